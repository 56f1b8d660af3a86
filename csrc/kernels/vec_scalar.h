// Plain C++ vector of eight floats: the reference target, and what other architectures compile.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace cosparse::scalar {

struct Vec {
  static constexpr int lanes = 8;
  static constexpr int registers = 16;
  static constexpr bool steps = false;  // whether steps_avx2.h has the product's loop
  static constexpr bool masks = false;  // whether a masked load or store is one instruction
  struct Reg {
    float v[8];
  };
  using Mask = uint32_t;  // bit l: lane l
  struct Index {          // a lane number for each lane
    int32_t lane[8];
  };

  template <class F> static Reg map(F f) {
    Reg r;
    for (int l = 0; l < 8; ++l) r.v[l] = f(l);
    return r;
  }
  static Mask mask(uint32_t bits) { return bits; }
  static Reg zero() { return set1(0.f); }
  static Reg set1(float x) {
    return map([&](int) { return x; });
  }
  static Reg load(const float* p) {
    return map([&](int l) { return p[l]; });
  }
  static Reg loadu(const float* p) { return load(p); }
  static Reg mask_load(Mask m, const float* p) {  // 0 in the other lanes
    return map([&](int l) { return m >> l & 1 ? p[l] : 0.f; });
  }
  static Reg mask_load(Mask m, const float* p, Reg other) {
    return map([&](int l) { return m >> l & 1 ? p[l] : other.v[l]; });
  }
  static void store(float* p, Reg a) {
    for (int l = 0; l < 8; ++l) p[l] = a.v[l];
  }
  static void storeu(float* p, Reg a) { store(p, a); }
  static void mask_store(float* p, Mask m, Reg a) {
    for (int l = 0; l < 8; ++l)
      if (m >> l & 1) p[l] = a.v[l];
  }
  static Reg add(Reg a, Reg b) {
    return map([&](int l) { return a.v[l] + b.v[l]; });
  }
  static Reg sub(Reg a, Reg b) {
    return map([&](int l) { return a.v[l] - b.v[l]; });
  }
  static Reg mul(Reg a, Reg b) {
    return map([&](int l) { return a.v[l] * b.v[l]; });
  }
  static Reg div(Reg a, Reg b) {
    return map([&](int l) { return a.v[l] / b.v[l]; });
  }
  static Reg fma(Reg a, Reg b, Reg c) {
    return map([&](int l) { return a.v[l] * b.v[l] + c.v[l]; });
  }
  static Reg fnma(Reg a, Reg b, Reg c) {
    return map([&](int l) { return c.v[l] - a.v[l] * b.v[l]; });
  }
  // As the x86 instructions: where either is NaN, the second operand.
  static Reg max(Reg a, Reg b) {
    return map([&](int l) { return a.v[l] > b.v[l] ? a.v[l] : b.v[l]; });
  }
  static Reg min(Reg a, Reg b) {
    return map([&](int l) { return a.v[l] < b.v[l] ? a.v[l] : b.v[l]; });
  }
  // Where either is NaN, NaN.
  static Reg larger(Reg a, Reg b) {
    return map([&](int l) { return a.v[l] > b.v[l] || a.v[l] != a.v[l] ? a.v[l] : b.v[l]; });
  }
  static Reg sqrt(Reg a) {
    return map([&](int l) { return std::sqrt(a.v[l]); });
  }
  static Reg round(Reg a) {
    return map([&](int l) { return std::nearbyint(a.v[l]); });
  }
  // a 2^n for whole n.
  static Reg scale(Reg a, Reg n) {
    return map([&](int l) { return n.v[l] == n.v[l] ? std::ldexp(a.v[l], (int)n.v[l]) : n.v[l]; });
  }
  // 1 / a for a in [1, 2^127].
  static Reg reciprocal(Reg a) { return div(set1(1), a); }
  // a = mantissa * 2^exponent for normal a > 0, the mantissa in [1, 2).
  static Reg mantissa(Reg a) {
    return map([&](int l) {
      int unused;
      return 2 * std::frexp(a.v[l], &unused);
    });
  }
  static Reg exponent(Reg a) {
    return map([&](int l) {
      int found = 0;
      std::frexp(a.v[l], &found);
      return (float)(found - 1);
    });
  }
  static Reg select_positive(Reg a, Reg yes, Reg no) {
    return map([&](int l) { return a.v[l] > 0.f ? yes.v[l] : no.v[l]; });
  }
  // To the nearest bfloat16, ties to even; NaN stays NaN.
  static Reg round_bf16(Reg a) {
    return map([&](int l) {
      uint32_t x;
      std::memcpy(&x, &a.v[l], 4);
      x = (x + 0x7fff + (x >> 16 & 1)) & 0xffff0000;
      float rounded;
      std::memcpy(&rounded, &x, 4);
      return a.v[l] == a.v[l] ? rounded : a.v[l];
    });
  }
  // a[0], a[2], .. b[0], b[2], ..
  static Reg even(Reg a, Reg b) {
    return map([&](int l) { return l < 4 ? a.v[2 * l] : b.v[2 * l - 8]; });
  }
  // a[1], a[3], .. b[1], b[3], ..
  static Reg odd(Reg a, Reg b) {
    return map([&](int l) { return l < 4 ? a.v[2 * l + 1] : b.v[2 * l - 7]; });
  }
  // Lane l: lane[l] of a and b one after the other.
  static Reg of_two(Reg a, Reg b, const int* lane) {
    return map([&](int l) { return lane[l] < 8 ? a.v[lane[l]] : b.v[lane[l] - 8]; });
  }
  // Lane l: a[lane[l] - first], which must be a lane of a where the result is used.
  static Reg pick(Reg a, const int* lane, int first) {
    return map([&](int l) { return a.v[(lane[l] - first) & 7]; });
  }
  static Index index(const int32_t* lane) {
    Index i;
    std::memcpy(i.lane, lane, sizeof i.lane);
    return i;
  }
  // a[lane[l]] in the lanes of m, else other.
  static Reg mask_pick(Mask m, Index i, Reg a, Reg other) {
    return map([&](int l) { return m >> l & 1 ? a.v[i.lane[l] & 7] : other.v[l]; });
  }
  static float sum(Reg a) {
    float s = 0;
    for (float x : a.v) s += x;
    return s;
  }
};
// Eight filters side by side (conv_lanes.h).
using Vec8 = Vec;

}  // namespace cosparse::scalar
