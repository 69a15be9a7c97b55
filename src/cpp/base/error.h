// What the library throws beyond the standard exceptions; bindings/module.cpp says what Python sees.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace musicgen {

// Bytes that are not the MIDI data they should be. Python: musicgen_ext.MidiError with attributes offset and track.
struct MidiError : std::invalid_argument {
  MidiError(const std::string& message, std::int64_t byte_offset, std::int32_t track_index)
      : std::invalid_argument(message), offset(byte_offset), track(track_index) {}
  std::int64_t offset;  // in bytes from the start of the file
  std::int32_t track;   // -1: not inside a track
};

}  // namespace musicgen
