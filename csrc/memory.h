// Arrays of floats on a 64-byte boundary.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace cosparse {

struct Free {
  void operator()(void* p) const { std::free(p); }
};
using Floats = std::unique_ptr<float[], Free>;

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Uninitialised; at least one cache line.
inline Floats allocate_floats(int64_t n) {
  float* p = static_cast<float*>(std::aligned_alloc(64, round_up((n ? n : 1) * (int64_t)sizeof(float), 64)));
  if (!p) throw std::bad_alloc();
  return Floats(p);
}

}  // namespace cosparse
