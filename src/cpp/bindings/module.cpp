// The door: one function per room registers that room's names.
#include <pybind11/pybind11.h>

#include <string>

#include "base/cpu.h"

namespace py = pybind11;
using namespace musicgen;

void register_attention(py::module_& m);
void register_audio(py::module_& m);
void register_corpus(py::module_& m);
void register_encodings(py::module_& m);
void register_features(py::module_& m);
void register_feedforward(py::module_& m);
void register_frames(py::module_& m);
void register_generate(py::module_& m);
void register_match(py::module_& m);
void register_midi(py::module_& m);
void register_note_tuples(py::module_& m);
void register_rolls(py::module_& m);
void register_spectra(py::module_& m);
void register_tokens(py::module_& m);
void register_voices(py::module_& m);
void register_wavenet(py::module_& m);

namespace {

std::string compiler() {
#if defined(__clang__)
  return std::string("clang ") + __clang_version__;
#elif defined(__GNUC__)
  return std::string("gcc ") + __VERSION__;
#elif defined(_MSC_VER)
  return "msvc " + std::to_string(_MSC_FULL_VER);
#else
  return "unknown";
#endif
}

}  // namespace

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() = "Native kernels of musicgen_ext. Call them through the Python modules, which explain what is wrong.";
  m.attr("__version__") = MUSICGEN_EXT_VERSION;
  m.attr("compiler") = compiler();
  m.def("isa_in_use", [] { return std::string(name_of(isa_in_use())); });
  m.def("isas_available", [] {
    py::list names;
    for (const Isa isa : isas_available()) names.append(name_of(isa));
    return names;
  });
  register_audio(m);
  register_features(m);
  register_generate(m);
  register_feedforward(m);
  register_note_tuples(m);
  register_frames(m);
  register_wavenet(m);
  register_attention(m);
  register_midi(m);
  register_rolls(m);
  register_spectra(m);
  register_encodings(m);
  register_tokens(m);
  register_match(m);
  register_voices(m);
  register_corpus(m);
}
