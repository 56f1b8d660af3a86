// bfloat16 by dot products of column pairs (AVX512-BF16). A row of maps is sixteen numbers of two bytes; any two rows can be a pair: one
// permutation joins them. Included inside a per-ISA namespace, after number.h.

template <class V> struct Bf16 : F32<V> {
  static constexpr Number number = Number::bf16;
  static constexpr int columns = 2, floats = kLanes / 2, together = 2;
  using Value = uint32_t;  // the even column below, the odd one above
  using Reg = typename V::Reg;

  static void store_map(const ConvArgs&, float* to, Reg x, int) { store_row(to, x); }
  static void store_nine(const ConvArgs& a, float* to, uint32_t wanted, const Reg (&x)[9]) {
    if (wanted != kAllNine) return put_nine<Bf16, V>(a, to, wanted, x);
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) _mm512_storeu_si512(to + i * floats, (__m512i)_mm512_cvtne2ps_pbh(x[i + 1], x[i]));
    store_row(to + 8 * floats, x[8]);
  }
  static void store_row(float* to, Reg x) { _mm256_store_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(x)); }
  // Two rows as sixteen pairs.
  static inline __attribute__((always_inline)) __m512i pairs(const float* even, const float* odd) {
    alignas(64) static constexpr uint16_t kJoined[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                         8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i low = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(even)));
    const __m512i both = _mm512_inserti64x4(low, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(odd)), 1);
    return _mm512_permutexvar_epi16(_mm512_load_si512(kJoined), both);
  }
  // Columns count words.
  static const float* at(const float* x, int64_t offset) {
    return reinterpret_cast<const float*>(reinterpret_cast<const uint16_t*>(x) + offset);
  }
  static Reg gather(const float* x, const uint32_t* column) { return _mm512_castsi512_ps(pairs(at(x, column[0]), at(x, column[1]))); }
  static Reg madd(Value w, Reg x, Reg s) {
    return _mm512_dpbf16_ps(s, (__m512bh)_mm512_castps_si512(x), (__m512bh)_mm512_set1_epi32((int)w));
  }
  static void store_value(const Rows<float>&, float* to, Reg y) { store_row(to, y); }
  static void store_values(const Rows<float>&, float* to, Reg first, Reg second) {
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(second, first));
  }
  static Reg load_value(const Rows<const float>&, const float* from) {
    const __m256i words = _mm256_load_si256(reinterpret_cast<const __m256i*>(from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
  }
  static void store_pixel(const Rows<float>&, float* row, int p, float y) {
    alignas(32) float words[kLanes / 2];
    store_row(words, V::set1(y));
    std::memcpy(reinterpret_cast<uint16_t*>(row) + p, words, 2);
  }
  static float load_pixel(const Rows<const float>&, const float* row, int p) { return pixel(row, p); }
  using Packed = __m256i;
  using Index = __m256i;
  static Packed nothing() { return _mm256_setzero_si256(); }
  static Index index(const int32_t* lane) { return _mm512_cvtepi32_epi16(_mm512_loadu_si512(lane)); }
  static Packed pick(uint32_t lanes, Index index, const float* from, Packed other) {
    return _mm256_mask_permutexvar_epi16(other, (__mmask16)lanes, index, _mm256_load_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static void store_packed(const ConvArgs&, float* to, Packed x) { _mm256_store_si256(reinterpret_cast<__m256i*>(to), x); }
  static float pixel(const float* row, int p) {
    uint16_t word;
    std::memcpy(&word, reinterpret_cast<const uint16_t*>(row) + p, 2);
    const uint32_t bits = (uint32_t)word << 16;
    float y;
    std::memcpy(&y, &bits, 4);
    return y;
  }
};

template <class V8> struct LanesBf16 : LanesF32<V8> {
  static constexpr int columns = 2;
  static __m256 madd(const float* w, const float* x, int p, const uint32_t* column, __m256 s) {
    uint16_t even, odd;
    std::memcpy(&even, reinterpret_cast<const uint16_t*>(x) + column[0] + p, 2);
    std::memcpy(&odd, reinterpret_cast<const uint16_t*>(x) + column[1] + p, 2);
    const int pair = (int)(even | (uint32_t)odd << 16);
    return _mm256_dpbf16_ps(s, (__m256bh)_mm256_set1_epi32(pair), (__m256bh)_mm256_castps_si256(_mm256_load_ps(w)));
  }
};
