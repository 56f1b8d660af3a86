// int8 by dot products of four columns (AVX512-VNNI): maps as unsigned bytes, repeated in all four bytes of their lane, so any four columns
// can be a step. Included inside a per-ISA namespace, after number.h.

template <class V> struct Int8 : F32<V> {
  static constexpr Number number = Number::int8;
  static constexpr int columns = 4;
  static constexpr bool in_place = false;
  using Reg = typename V::Reg;
  using Sum = __m512i;
  using Value = uint32_t;  // first column in the lowest byte

  static Reg map(const ConvArgs& a, Reg x, int tap) {
    const Reg steps = _mm512_fmadd_ps(x, _mm512_set1_ps(a.inverse[tap]), _mm512_set1_ps(a.zero[tap]));
    const __m512i bytes = _mm512_cvtps_epi32(_mm512_min_ps(_mm512_set1_ps(255.f), _mm512_max_ps(_mm512_setzero_ps(), steps)));
    const __m512i repeat = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0x00000000);
    return _mm512_castsi512_ps(_mm512_shuffle_epi8(bytes, repeat));
  }
  static Sum zero() { return _mm512_setzero_si512(); }
  static Sum load_sum(const float* p) { return _mm512_load_si512(p); }
  static void store_sum(float* p, Sum s) { _mm512_store_si512(p, s); }
  static Reg gather(const float* x, const uint32_t* column) {
    const __mmask64 odd = 0xaaaaaaaaaaaaaaaa;  // bytes 1, 3 of a lane; the words 2-3 by the second mask
    const __m512i low = _mm512_mask_blend_epi8(odd, _mm512_load_si512(x + column[0]), _mm512_load_si512(x + column[1]));
    const __m512i high = _mm512_mask_blend_epi8(odd, _mm512_load_si512(x + column[2]), _mm512_load_si512(x + column[3]));
    return _mm512_castsi512_ps(_mm512_mask_blend_epi16(0xaaaaaaaa, low, high));
  }
  static Sum madd(Value w, Reg x, Sum s) { return _mm512_dpbusd_epi32(s, _mm512_castps_si512(x), _mm512_set1_epi32((int)w)); }
  static Reg result(const ConvArgs& a, int filter, Sum s) {
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(s), _mm512_set1_ps(a.scale[filter]), _mm512_set1_ps(a.bias[filter]));
  }
};

template <class V8> struct LanesInt8 {
  static constexpr int columns = 4;
  using Sum = __m256i;
  static Sum zero() { return _mm256_setzero_si256(); }
  static Sum madd(const float* w, const float* x, const uint32_t* column, Sum s) {
    uint32_t quad = 0;
    for (int i = 0; i < 4; ++i) {
      uint32_t lane;
      std::memcpy(&lane, x + column[i], 4);
      quad |= lane & 0xffu << 8 * i;
    }
    return _mm256_dpbusd_epi32(s, _mm256_set1_epi32((int)quad), _mm256_castps_si256(_mm256_load_ps(w)));
  }
  static Sum add(Sum a, Sum b) { return _mm256_add_epi32(a, b); }
  static void store(float* p, Sum s) { _mm256_store_ps(p, _mm256_castsi256_ps(s)); }
  static Sum load(const float* p) { return _mm256_castps_si256(_mm256_load_ps(p)); }
  static __m256 result(const ConvArgs& a, int filter, Sum s) {
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(s), _mm256_load_ps(a.scale + filter), _mm256_load_ps(a.bias + filter));
  }
};
