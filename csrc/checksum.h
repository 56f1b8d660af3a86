// BLAKE2b with a 32-byte digest, no key (RFC 7693).
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

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

}  // namespace cosparse
