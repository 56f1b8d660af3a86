// Packed weights of many layers, one after the other in large pages: weights that are streamed from memory should not wait for the
// translation of an address every 4 KiB, and layers smaller than a large page should not take a whole one each.
#pragma once
#include <memory>

#include "memory.h"

namespace cosparse {

class Slab {
 public:
  // huge: for more bytes than a processor keeps translations of 4 KiB pages for (kManyBytes).
  explicit Slab(bool huge) : kind_(huge ? Pages::huge : Pages::ordinary) {}

  // n uninitialised elements on a 64-byte boundary. They live as long as somebody holds them, with all pieces of their region.
  template <class T> std::shared_ptr<T[]> take(int64_t n) {
    std::byte* at = reserve(n * (int64_t)sizeof(T));
    return {region_, reinterpret_cast<T*>(at)};
  }
  // Of the latest piece only the first n elements stay; the next piece begins there.
  template <class T> void keep(int64_t n) { used_ = latest_ + round_up(n * (int64_t)sizeof(T), 64); }

 private:
  std::byte* reserve(int64_t bytes);

  Pages kind_;
  std::shared_ptr<std::byte> region_;
  int64_t size_ = 0, used_ = 0, latest_ = 0;  // bytes of the region
};

constexpr int64_t kManyBytes = 8 << 20;  // 2048 pages of 4 KiB

}  // namespace cosparse
