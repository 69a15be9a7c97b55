// corpus: many files at once, read and encoded without the interpreter's lock.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <locale>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/buffer.h"
#include "base/error.h"
#include "base/files.h"
#include "base/sha256.h"
#include "bindings/signals.h"
#include "bindings/tokens.h"
#include "midi/encoder.h"
#include "midi/smf.h"
#include "midi/tempo.h"

using namespace pybind11::literals;
using namespace musicgen;

namespace {

// Asks work in other threads to stop.
struct Cancel {
  std::atomic<bool> is_set{false};
};

struct Cancelled final : std::exception {};

thread_local const std::atomic<bool>* cancel_of_this_thread = nullptr;

void poll() {
  if (cancel_of_this_thread->load(std::memory_order_relaxed)) throw Cancelled();
  poll_signals();
}

struct Failure {
  std::size_t file;
  int number;           // of the system's error, or 0: the file was read
  std::string message;  // empty where there is a number
  std::int64_t offset;  // -1: at no byte in particular
  std::int32_t track;   // -1: not inside a track
};

constexpr std::size_t max_file_size = std::size_t{1} << 35;
constexpr std::size_t issues_listed = 20;  // of a file's deviations: a broken one can have thousands

std::vector<std::string> words_of(const midi::Song& song) {
  std::vector<std::string> words;
  const std::size_t listed = std::min(song.issues.size(), issues_listed);
  for (std::size_t i = 0; i < listed; ++i) words.push_back(midi::message_of(song.issues[i]));
  const auto more = static_cast<std::int64_t>(song.issues.size() - listed) + song.unlisted_issues;
  if (more > 0) words.push_back(std::to_string(more) + " more deviations are not listed");
  return words;
}

// As Python's %g, whatever the locale.
std::string shown(double number) {
  std::ostringstream text;
  text.imbue(std::locale::classic());
  text << number;
  return text.str();
}

class FileEncoder {
 public:
  FileEncoder(const midi::Encoder& encoder, bool strict, double max_duration, bool narrow)
      : encoder_(encoder), strict_(strict), max_duration_(max_duration), narrow_(narrow) {}

  void add(const std::string& path) {
    const std::size_t index = sizes_.size(), before = num_tokens();
    sizes_.push(-1);
    digests_.append(Digest{}.data(), Digest{}.size());
    const auto fail = [&](int number, std::string message, std::int64_t offset = -1, std::int32_t track = -1) {
      failures_.push_back({index, number, std::move(message), offset, track});
    };
    try {
      const int number = read_file(path, max_file_size, content_);
      if (number == EINVAL) {
        fail(0, "expected a regular file, got another kind");
      } else if (number != 0) {
        fail(number, "");
      } else {
        sizes_[index] = static_cast<std::int64_t>(content_.size());
        const Digest digest = sha256(content_.data(), content_.size());
        std::copy(digest.begin(), digest.end(), digests_.end() - digest.size());
        encode(index);
      }
    } catch (const MidiError& error) {
      fail(0, error.what(), error.offset, error.track);
    } catch (const std::invalid_argument& error) {
      fail(0, error.what());
    } catch (const std::bad_alloc&) {
      fail(0, "expected a file that fits into memory, got one that does not");
    }
    rows_.push(static_cast<std::int64_t>((num_tokens() - before) / static_cast<std::size_t>(encoder_.width())));
  }

  // (tokens, rows, sizes (-1: not read), SHA-256 end to end, [(file, errno, message, offset, track)], [(file, issues)])
  py::tuple result() {
    py::list failures;
    for (const Failure& failure : failures_) {
      failures.append(py::make_tuple(failure.file, failure.number, failure.message, failure.offset, failure.track));
    }
    const py::bytes digests(reinterpret_cast<const char*>(digests_.data()), digests_.size());
    const int width = encoder_.width();
    return py::make_tuple(narrow_ ? rows_of_width(narrow_tokens_, width) : rows_of_width(tokens_, width),
                          array_of(rows_, plain<std::int64_t>()), array_of(sizes_, plain<std::int64_t>()), digests,
                          failures, issues_);
  }

 private:
  std::size_t num_tokens() const { return narrow_ ? narrow_tokens_.size() : tokens_.size(); }

  void encode(std::size_t index) {
    const midi::Song song = midi::parse(content_.data(), content_.size(), strict_, poll);
    const midi::SongView view = midi::view_of(song);
    if (const double seconds = midi::duration_of(view); seconds > max_duration_) {
      throw std::invalid_argument("expected a piece of at most " + shown(max_duration_) +
                                  " seconds (max_duration), got " + shown(seconds));
    }
    midi::Encoded encoded = encoder_.encode(view, poll);
    std::vector<std::string> issues = words_of(song);
    issues.insert(issues.end(), encoded.issues.begin(), encoded.issues.end());
    if (!issues.empty()) issues_.emplace_back(index, std::move(issues));
    if (narrow_) {
      std::uint16_t* out = narrow_tokens_.extend(encoded.tokens.size());
      for (const std::int32_t token : encoded.tokens) *out++ = static_cast<std::uint16_t>(token);
    } else {
      tokens_.append(encoded.tokens.data(), encoded.tokens.size());
    }
  }

  const midi::Encoder& encoder_;
  const bool strict_;
  const double max_duration_;
  const bool narrow_;
  Buffer<std::uint8_t> content_, digests_;
  Buffer<std::int32_t> tokens_;
  Buffer<std::uint16_t> narrow_tokens_;
  Buffer<std::int64_t> rows_, sizes_;
  std::vector<Failure> failures_;
  std::vector<std::pair<std::size_t, std::vector<std::string>>> issues_;
};

py::object encode_files(const midi::Encoder& encoder, const std::vector<std::string>& paths, bool strict,
                        double max_duration, bool narrow, const Cancel& cancel) {
  FileEncoder files(encoder, strict, max_duration, narrow);
  bool cancelled = false;
  without_lock([&] {
    cancel_of_this_thread = &cancel.is_set;
    try {
      auto polled = std::chrono::steady_clock::now();
      for (const std::string& path : paths) {
        const auto now = std::chrono::steady_clock::now();
        if (now - polled > std::chrono::milliseconds(5)) {  // in the main thread it takes the lock
          polled = now;
          poll();
        }
        files.add(path);
      }
    } catch (const Cancelled&) {
      cancelled = true;
    }
  });
  return cancelled ? py::object(py::none()) : files.result();
}

}  // namespace

void register_corpus(py::module_& m) {
  py::class_<Cancel>(m, "Cancel")
      .def(py::init<>())
      .def("set", [](Cancel& cancel) { cancel.is_set = true; })
      .def("is_set", [](const Cancel& cancel) { return cancel.is_set.load(); });
  m.def("encode_files", &encode_files, "encoder"_a, "paths"_a, "strict"_a, "max_duration"_a, "narrow"_a, "cancel"_a);
}
