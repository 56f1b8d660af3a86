#include "checksum.h"

#include <algorithm>
#include <cstring>
#include <system_error>

namespace cosparse {
namespace {

constexpr uint64_t kStart[8] = {0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
                                0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179};

constexpr uint8_t kOrder[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

constexpr int64_t kWorthAThread = 256 << 10;  // bytes: hashing them takes longer than starting a thread does

uint64_t rotate(uint64_t x, int by) { return x >> by | x << (64 - by); }

uint64_t load_little_endian(const std::byte* p) {
  uint64_t x = 0;
  for (int i = 7; i >= 0; --i) x = x << 8 | static_cast<uint64_t>(p[i]);
  return x;
}

inline void mix(uint64_t& a, uint64_t& b, uint64_t& c, uint64_t& d, uint64_t x, uint64_t y) {
  a += b + x, d = rotate(d ^ a, 32), c += d, b = rotate(b ^ c, 24);
  a += b + y, d = rotate(d ^ a, 16), c += d, b = rotate(b ^ c, 63);
}

// The round number is a template argument, so that the message order is folded into the code: twice as fast as a table look-up.
template <int round> inline void mix_round(uint64_t (&v)[16], const uint64_t (&m)[16]) {
  constexpr const uint8_t (&s)[16] = kOrder[round % 10];
  mix(v[0], v[4], v[8], v[12], m[s[0]], m[s[1]]);
  mix(v[1], v[5], v[9], v[13], m[s[2]], m[s[3]]);
  mix(v[2], v[6], v[10], v[14], m[s[4]], m[s[5]]);
  mix(v[3], v[7], v[11], v[15], m[s[6]], m[s[7]]);
  mix(v[0], v[5], v[10], v[15], m[s[8]], m[s[9]]);
  mix(v[1], v[6], v[11], v[12], m[s[10]], m[s[11]]);
  mix(v[2], v[7], v[8], v[13], m[s[12]], m[s[13]]);
  mix(v[3], v[4], v[9], v[14], m[s[14]], m[s[15]]);
}

}  // namespace

Blake2b::Blake2b() {
  std::copy(std::begin(kStart), std::end(kStart), state_.begin());
  state_[0] ^= 0x01010000 ^ kDigest;  // fan-out 1, depth 1, no key
}

void Blake2b::compress(const std::byte* block, bool last) {
  uint64_t m[16], v[16];
  for (int i = 0; i < 16; ++i) m[i] = load_little_endian(block + 8 * i);
  for (int i = 0; i < 8; ++i) v[i] = state_[i], v[i + 8] = kStart[i];
  v[12] ^= low_, v[13] ^= high_;
  if (last) v[14] = ~v[14];
  mix_round<0>(v, m), mix_round<1>(v, m), mix_round<2>(v, m), mix_round<3>(v, m), mix_round<4>(v, m), mix_round<5>(v, m);
  mix_round<6>(v, m), mix_round<7>(v, m), mix_round<8>(v, m), mix_round<9>(v, m), mix_round<10>(v, m), mix_round<11>(v, m);
  for (int i = 0; i < 8; ++i) state_[i] ^= v[i] ^ v[i + 8];
}

void Blake2b::update(const void* data, size_t count) {
  auto* from = static_cast<const std::byte*>(data);
  auto advance = [&](size_t by) {
    low_ += by;
    high_ += low_ < by;
  };
  while (count > 0) {
    if (buffered_ == kBlock) {  // more follows, so this block is not the last one
      advance(kBlock);
      compress(buffer_.data(), false);
      buffered_ = 0;
    }
    if (buffered_ == 0) {
      for (; count > kBlock; from += kBlock, count -= kBlock) {
        advance(kBlock);
        compress(from, false);
      }
    }
    const size_t take = std::min(count, kBlock - buffered_);
    std::memcpy(buffer_.data() + buffered_, from, take);
    buffered_ += take, from += take, count -= take;
  }
}

std::string Blake2b::hex() {
  low_ += buffered_;
  high_ += low_ < buffered_;
  std::fill(buffer_.begin() + static_cast<std::ptrdiff_t>(buffered_), buffer_.end(), std::byte{0});
  compress(buffer_.data(), true);
  constexpr char digits[] = "0123456789abcdef";
  std::string out;
  for (size_t i = 0; i < kDigest; ++i) {
    const uint64_t byte = state_[i / 8] >> (8 * (i % 8)) & 0xFF;
    out += {digits[byte >> 4], digits[byte & 15]};
  }
  return out;
}

Blake2bBeside::Blake2bBeside(int64_t file_bytes) {
  if (file_bytes < kWorthAThread) return;
  try {
    thread_ = std::thread([this] { work(); });
  } catch (const std::system_error&) {}
}

Blake2bBeside::~Blake2bBeside() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard<std::mutex> guard(lock_);
    pieces_.clear();  // an error elsewhere: nobody asks for the digest
    ended_ = true;
  }
  more_.notify_one();
  thread_.join();
}

void Blake2bBeside::update(const void* data, size_t count) {
  if (!thread_.joinable()) return hash_.update(data, count);
  {
    std::lock_guard<std::mutex> guard(lock_);
    pieces_.emplace_back(data, count);
  }
  more_.notify_one();
}

std::string Blake2bBeside::hex() {
  if (thread_.joinable()) {
    {
      std::lock_guard<std::mutex> guard(lock_);
      ended_ = true;
    }
    more_.notify_one();
    thread_.join();
  }
  return hash_.hex();
}

void Blake2bBeside::work() {
  std::unique_lock<std::mutex> guard(lock_);
  for (;;) {
    more_.wait(guard, [&] { return ended_ || !pieces_.empty(); });
    if (pieces_.empty()) return;
    const auto [data, count] = pieces_.front();
    pieces_.pop_front();
    guard.unlock();
    hash_.update(data, count);
    guard.lock();
  }
}

}  // namespace cosparse
