// A regular file, read once. Plain read(), not mmap: a file that shrinks under a map kills the process.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace cosparse {

class File {
 public:
  explicit File(const std::string& path);  // throws Error(Fault::artifact) unless it is a readable regular file
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int64_t size() const { return size_; }
  void read(std::byte* to, int64_t count);  // the next `count` bytes, all of them or Error
  void expect_end();                        // throws Error where the file has grown since it was opened

 private:
  int64_t read_some(std::byte* to, int64_t count);
  int handle_;
  int64_t size_ = 0, at_ = 0;
};

}  // namespace cosparse
