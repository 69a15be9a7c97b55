#include "base/files.h"

#include <cerrno>
#include <cstddef>

#if defined(_WIN32)
#include <fcntl.h>
#include <io.h>
#include <sys/stat.h>

#include <filesystem>
#else
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace musicgen {

namespace {

constexpr std::size_t step = std::size_t{1} << 20;  // where a file is longer than the system said

#if defined(_WIN32)

int open_for_reading(const std::string& path) {
  return _wopen(std::filesystem::u8path(path).c_str(), _O_RDONLY | _O_BINARY | _O_NOINHERIT);
}
int close_file(int file) { return _close(file); }
std::ptrdiff_t read_some(int file, std::uint8_t* to, std::size_t size) {
  return _read(file, to, static_cast<unsigned>(size < step ? size : step));
}
using Status = struct _stat64;
int status_of(int file, Status* status) { return _fstat64(file, status); }
bool is_folder(const Status& status) { return (status.st_mode & _S_IFMT) == _S_IFDIR; }
bool is_regular(const Status& status) { return (status.st_mode & _S_IFMT) == _S_IFREG; }

#else

// O_NONBLOCK: a pipe without a writer would wait for one.
int open_for_reading(const std::string& path) { return open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); }
int close_file(int file) { return close(file); }
std::ptrdiff_t read_some(int file, std::uint8_t* to, std::size_t size) { return read(file, to, size); }
using Status = struct stat;
int status_of(int file, Status* status) { return fstat(file, status); }
bool is_folder(const Status& status) { return S_ISDIR(status.st_mode); }
bool is_regular(const Status& status) { return S_ISREG(status.st_mode); }

#endif

class File {
 public:
  explicit File(int number) : number_(number) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (number_ >= 0) close_file(number_);
  }
  int number() const { return number_; }

 private:
  int number_;
};

}  // namespace

int read_file(const std::string& path, std::size_t most, Buffer<std::uint8_t>& content) {
  content.set_size(0);
  const File file(open_for_reading(path));
  Status status;
  if (file.number() < 0 || status_of(file.number(), &status) != 0) return errno;
  if (!is_regular(status)) return is_folder(status) ? EISDIR : EINVAL;
  const auto expected = static_cast<std::size_t>(status.st_size);
  for (;;) {
    const std::size_t size = content.size();
    if (expected > most || size > most) return EFBIG;
    // One byte more than expected: a read that comes back without it has seen the end.
    const std::size_t room = size <= expected ? expected + 1 - size : step;
    std::uint8_t* const at = content.extend(room);
    const std::ptrdiff_t got = read_some(file.number(), at, room);
    content.set_size(size + (got > 0 ? static_cast<std::size_t>(got) : 0));
    if (got < 0 && errno != EINTR) return errno;
    if (got == 0 || (got > 0 && content.size() == expected)) return 0;
  }
}

}  // namespace musicgen
