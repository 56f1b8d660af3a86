// Memory for numbers: single arrays, and whole pages.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace cosparse {

struct Free {
  void operator()(void* p) const { std::free(p); }
};
constexpr int64_t kHugePage = 2 << 20;
using Floats = std::unique_ptr<float[], Free>;

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Uninitialised, on a 64-byte boundary; at least one cache line.
inline Floats allocate_floats(int64_t n) {
  const int64_t bytes = (n ? n : 1) * (int64_t)sizeof(float), align = bytes >= kHugePage / 2 ? kHugePage : 64;
  float* p = static_cast<float*>(std::aligned_alloc(align, round_up(bytes, align)));
  if (!p) throw std::bad_alloc();
#if defined(__linux__)
  if (align == kHugePage) madvise(p, round_up(bytes, align), MADV_HUGEPAGE);
#endif
  return Floats(p);
}

enum class Pages {
  filled,   // the caller is about to write all of it: its pages are made in one go
  huge,     // on a huge page's boundary, in huge pages as far as it is written
  ordinary  // in small pages as far as it is written
};
// Zeros in pages of their own, which go back to the operating system with the last holder: malloc keeps what is freed between live pieces.
// Throws std::bad_alloc.
std::shared_ptr<std::byte> map_pages(int64_t bytes, Pages kind);

}  // namespace cosparse
