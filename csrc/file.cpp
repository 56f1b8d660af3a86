#include "file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "message.h"

namespace cosparse {
namespace {

std::string system_message() { return std::strerror(errno); }

}  // namespace

// O_NONBLOCK: opening a named pipe must not wait for a writer. It changes nothing for a regular file.
File::File(const std::string& path) : handle_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
  const bool cut = path.find('\0') != std::string::npos;  // the system would see the part before it, perhaps another file
  if (cut && handle_ >= 0) ::close(handle_);
  if (cut || handle_ < 0) refuse("", "a readable file", cut ? "a path with a NUL" : system_message(), "check the path");
  struct stat info{};
  const bool known = ::fstat(handle_, &info) == 0;
  if (!known || !S_ISREG(info.st_mode)) {
    const std::string kind = !known                   ? system_message()
                             : S_ISDIR(info.st_mode)  ? "a directory"
                             : S_ISFIFO(info.st_mode) ? "a named pipe"
                                                      : "a device or socket";
    ::close(handle_);
    refuse("", "a regular file", kind, "check the path");
  }
  size_ = info.st_size;
}

File::~File() { ::close(handle_); }

int64_t File::read_some(std::byte* to, int64_t count) {
  constexpr int64_t most = int64_t{1} << 30;  // the system call reads at most 2 GiB at once
  ssize_t got;
  do got = ::read(handle_, to, static_cast<size_t>(std::min(count, most)));
  while (got < 0 && errno == EINTR);
  if (got < 0) refuse("", "to read the file", system_message());
  return got;
}

void File::read(std::byte* to, int64_t count) {
  while (count > 0) {
    const int64_t got = read_some(to, count);
    if (got == 0) {
      refuse("", std::to_string(size_) + " bytes", "the end after " + std::to_string(at_),
             "the file shrank while it was read; load it again");
    }
    to += got, count -= got, at_ += got;
  }
}

void File::expect_end() {
  std::byte extra;
  if (read_some(&extra, 1) != 0) { refuse("", std::to_string(size_) + " bytes", "more", "the file grew while it was read; load it again"); }
}

}  // namespace cosparse
