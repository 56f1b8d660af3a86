// A regular file, read once into aligned memory. Plain read(), not mmap: a file that shrinks under a map kills the process.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace cosparse {

// 64-byte aligned, the tail up to the next multiple of 64 zeroed. Throws std::bad_alloc.
std::shared_ptr<std::byte> allocate_bytes(int64_t count);

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
