#include "slab.h"

#include <algorithm>

namespace cosparse {

namespace {

constexpr int64_t kRegion = 64 << 20;  // of addresses; memory follows as it is written

}  // namespace

std::byte* Slab::reserve(int64_t bytes) {
  const int64_t whole = round_up(std::max<int64_t>(bytes, 1), 64);
  if (!region_ || size_ - used_ < whole) {
    size_ = std::max(kRegion, whole);
    region_ = map_pages(size_, kind_);
    used_ = 0;
  }
  latest_ = used_;
  used_ += whole;
  return region_.get() + latest_;
}

}  // namespace cosparse
