// A file's bytes, read without the interpreter: for workers that read many small files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/buffer.h"

namespace musicgen {

// Replaces the buffer's content. `path` as the system has it, on Windows UTF-8. Returns 0, or what errno says:
// EISDIR and EINVAL for what is no regular file, EFBIG for more than `most` bytes. Throws std::bad_alloc.
int read_file(const std::string& path, std::size_t most, Buffer<std::uint8_t>& content);

}  // namespace musicgen
