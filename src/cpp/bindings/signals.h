// Ctrl-C during native work that runs without the interpreter's lock.
#pragma once

#include <pybind11/pybind11.h>

#include <exception>

#include "base/interrupt.h"

#if defined(__GLIBCXX__) && defined(__linux__)
#include <cxxabi.h>
#include <unistd.h>
#endif

namespace musicgen {

// What a poll throws through native code: no Python object travels there. The error itself waits in the interpreter.
struct Interrupted final : std::exception {};

// The main thread of the interpreter, asked for once, with the lock held.
inline unsigned long main_thread() {
  static const auto ident =
      pybind11::module_::import("threading").attr("main_thread")().attr("ident").cast<unsigned long>();
  return ident;
}

// To be called every few milliseconds without the lock. Only the main thread hears signals, so only it takes the lock:
// any other could be asking for it while the interpreter ends.
inline void poll_signals() {
  if (PyThread_get_thread_ident() != main_thread()) return;
  const pybind11::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) throw Interrupted();
}

// The same for native code that asks. The error itself waits in the interpreter, and is raised with `Interrupted`.
class Signals final : public Interrupt {
 public:
  bool requested() override {
    try {
      poll_signals();
    } catch (const Interrupted&) {
      return true;
    }
    return false;
  }
};

// Takes the lock back. Before Python 3.14, a daemon thread that asks for it while the interpreter ends is ended by
// unwinding its stack, and on the way our objects would be released without the lock, beside a main thread that is
// releasing the same ones. It waits here instead, as 3.14 makes it, until the process is gone.
inline void take_lock(PyThreadState* state) {
#if defined(__GLIBCXX__) && defined(__linux__)
  try {
    PyEval_RestoreThread(state);
  } catch (const abi::__forced_unwind&) {
    for (;;) pause();
  }
#else
  PyEval_RestoreThread(state);
#endif
}

// Runs `work` without the lock; Ctrl-C inside it becomes the KeyboardInterrupt that it is.
//
// The lock is taken back in plain code, not in a destructor: in a daemon thread of an interpreter that is ending,
// taking it ends the thread by unwinding its stack, and unwinding out of a destructor would end the process instead.
template <typename Work>
void without_lock(Work&& work) {
  main_thread();
  PyThreadState* const state = PyEval_SaveThread();
  std::exception_ptr error;
  try {
    work();
  } catch (...) {
    error = std::current_exception();
  }
  take_lock(state);
  if (!error) return;
  try {
    std::rethrow_exception(error);
  } catch (const Interrupted&) {
    throw pybind11::error_already_set();
  }
}

}  // namespace musicgen
