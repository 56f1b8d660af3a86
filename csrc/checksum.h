// BLAKE2b with a 32-byte digest, no key (RFC 7693).
#pragma once
#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

namespace cosparse {

class Blake2b {
 public:
  Blake2b();
  void update(const void* data, size_t count);
  std::string hex();  // 64 lower-case digits; ends the stream

 private:
  static constexpr size_t kBlock = 128, kDigest = 32;
  void compress(const std::byte* block, bool last);

  std::array<uint64_t, 8> state_;
  std::array<std::byte, kBlock> buffer_;
  size_t buffered_ = 0;
  uint64_t low_ = 0, high_ = 0;  // bytes hashed so far, 128 bits
};

// The same on a thread of its own, behind the one that still reads the file. The caller's where the file is so small that starting a thread
// would take longer, and where the system has none to give.
class Blake2bBeside {
 public:
  explicit Blake2bBeside(int64_t file_bytes);
  ~Blake2bBeside();
  Blake2bBeside(const Blake2bBeside&) = delete;
  Blake2bBeside& operator=(const Blake2bBeside&) = delete;
  void update(const void* data, size_t count);  // the bytes must stay as they are until hex() or the end
  std::string hex();                            // waits; ends the stream

 private:
  void work();

  Blake2b hash_;
  std::mutex lock_;
  std::condition_variable more_;
  std::deque<std::pair<const void*, size_t>> pieces_;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace cosparse
