// bfloat16 by dot products of column pairs (AVX512-BF16). Maps stay floats of which the upper half counts, so any two columns can be a pair:
// one permutation joins them. Included inside a per-ISA namespace, after number.h.

template <class V> struct Bf16 : RoundedF32<V> {
  static constexpr int columns = 2;
  using Value = uint32_t;  // the even column below, the odd one above
  using Reg = typename V::Reg;

  static Reg map(const ConvArgs&, Reg x, int) { return round(x); }
  static Reg round(Reg y) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(y)), 16));
  }
  static Reg gather(const float* x, const uint32_t* column) {
    alignas(64) static constexpr uint16_t kUpper[32] = {1,  33, 3,  35, 5,  37, 7,  39, 9,  41, 11, 43, 13, 45, 15, 47,
                                                        17, 49, 19, 51, 21, 53, 23, 55, 25, 57, 27, 59, 29, 61, 31, 63};
    return _mm512_castsi512_ps(_mm512_permutex2var_epi16(_mm512_load_si512(x + column[0]), _mm512_load_si512(kUpper),
                                                         _mm512_load_si512(x + column[1])));
  }
  static Reg madd(Value w, Reg x, Reg s) {
    return _mm512_dpbf16_ps(s, (__m512bh)_mm512_castps_si512(x), (__m512bh)_mm512_set1_epi32((int)w));
  }
};

template <class V8> struct LanesBf16 : LanesF32<V8> {
  static constexpr int columns = 2;
  static __m256 madd(const float* w, const float* x, const uint32_t* column, __m256 s) {
    uint32_t low, high;
    std::memcpy(&low, x + column[0], 4), std::memcpy(&high, x + column[1], 4);
    const int pair = (int)(low >> 16 | (high & 0xffff0000));
    return _mm256_dpbf16_ps(s, (__m256bh)_mm256_set1_epi32(pair), (__m256bh)_mm256_castps_si256(_mm256_load_ps(w)));
  }
};
