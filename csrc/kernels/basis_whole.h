// The basis step of the 3x3 DCT in whole numbers, for int8: out of planes of steps u = 0..255 (0 stands for 0), by sums of 16 bits, which
// hold 16 * 255, map = clamp(zero + (sum * factor + 2^14 >> 15), 0, 255) for each of the nine. Two groups of pixels at a time, in vectors of 64
// bytes, and one for what is left. As basis_step_dct3() of conv_basis.h otherwise. At a horizontal stride of 2 a row's three taps are the even and
// the odd bytes from pixel 2x on, and the odd ones of a second load before it.
// Included inside a per-ISA namespace, after number_int8.h.

// Words of one group of pixels, or of two that follow each other.
struct OneGroup {
  using Words = __m256i;
  using Mask = __mmask16;
  static Words load(const uint8_t* p) { return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static Words load(Mask mask, const uint8_t* p) { return _mm256_cvtepu8_epi16(_mm_maskz_loadu_epi8(mask, p)); }
  static Words add(Words a, Words b) { return _mm256_add_epi16(a, b); }
  static Words sub(Words a, Words b) { return _mm256_sub_epi16(a, b); }
  static Words map(Words sum, const int16_t* factor, const int16_t* zero) {
    const auto words = [](const int16_t* of) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(of)); };
    return add(_mm256_mulhrs_epi16(sum, words(factor)), words(zero));
  }
  // Rows of bytes: of two maps, one behind the other.
  static __m256i rows(Words first, Words second, __m256i&) { return _mm256_permute4x64_epi64(_mm256_packus_epi16(first, second), 0xd8); }
};
struct TwoGroups {
  using Words = __m512i;
  using Mask = __mmask32;
  static Words load(const uint8_t* p) { return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  static Words load(Mask mask, const uint8_t* p) { return _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(mask, p)); }
  static Words add(Words a, Words b) { return _mm512_add_epi16(a, b); }
  static Words sub(Words a, Words b) { return _mm512_sub_epi16(a, b); }
  static Words map(Words sum, const int16_t* factor, const int16_t* zero) {
    return add(_mm512_mulhrs_epi16(sum, _mm512_load_si512(factor)), _mm512_load_si512(zero));
  }
  // Those of the second group: other.
  static __m256i rows(Words first, Words second, __m256i& other) {
    const __m512i both = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 1, 3, 4, 6, 5, 7), _mm512_packus_epi16(first, second));
    other = _mm512_extracti64x4_epi64(both, 1);
    return _mm512_castsi512_si256(both);
  }
};

template <class V, class N> struct WholeBasis {
  template <class G> struct Line {  // Dct3
    using Words = typename G::Words;
    Words even, odd, bend;
    Line(Words a, Words b, Words c) {
      const Words ends = G::add(a, c);
      even = G::add(ends, b), odd = G::sub(a, c), bend = G::sub(ends, G::add(b, b));
    }
  };

  struct Steps {
    alignas(64) int16_t factor[9][32], zero[9][32];
    explicit Steps(const ConvArgs& a) {
      for (int i = 0; i < 9; ++i)
        for (int l = 0; l < 32; ++l) factor[i][l] = a.factor[i], zero[i][l] = (int16_t)a.zero[i];
    }
  };

  template <int T> static void make(const ConvArgs& a, const Chunk& chunk, const Taps<V, T>& taps, float* maps) {
    if (a.window.stride_x == 2) return make_strided<T>(a, chunk, taps, maps);
    taps.inside() ? make_all<T, true>(a, chunk, taps, maps) : make_all<T, false>(a, chunk, taps, maps);
  }

 private:
  template <int T, bool inside> static void make_all(const ConvArgs& a, const Chunk& chunk, const Taps<V, T>& taps, float* maps) {
    int64_t start[T], offset[9];
    float* to[T];
    OneGroup::Mask last[9];
    TwoGroups::Mask pairs[T / 2 + 1][9];  // of groups 0 and 1, ..; stride 1, and the first pixel of a group follows the last one before
    for (int i = 0; i < 9; ++i) offset[i] = taps.offset(i);
    for (int t = 0; t < T; ++t) {
      start[t] = taps.start(t);
      to[t] = map_rows<V, N>(a, maps, t) - (int64_t)chunk.first_map * N::floats;
    }
    for (int i = 0; i < 9; ++i) {
      for (int t = 0; t + 1 < T; t += 2) pairs[t / 2][i] = taps.mask(t, i) | (TwoGroups::Mask)taps.mask(t + 1, i) << V::lanes;
      last[i] = taps.mask(T - 1, i);
    }
    const Steps steps(a);
    const UsedChannel* const used = a.used;
    const uint8_t* const source = reinterpret_cast<const uint8_t*>(a.x.base);
    const int64_t channel = a.x.channel * (int64_t)sizeof(float);
    for (int i = chunk.begin; i < chunk.end; ++i) {
      const UsedChannel u = used[i];
      const uint8_t* x = source + u.channel * channel;
      const uint8_t* soon = source + used[i + kChannelsAhead < chunk.end ? i + kChannelsAhead : i].channel * channel + offset[7];
      __builtin_prefetch(soon + start[0]), __builtin_prefetch(soon + start[T - 1] + V::lanes);
      if constexpr (N::wide) {
        wide_step<inside>(x + start[0], x + start[2], offset, pairs[0], pairs[1], u, to[0], steps);
        continue;
      }
#pragma GCC unroll 2
      for (int t = 0; t + 1 < T; t += 2)
        group_step<TwoGroups, inside>(x + start[t], offset, pairs[t / 2], u, to[t], to[t + 1], steps);
      if (T % 2) group_step<OneGroup, inside>(x + start[T - 1], offset, last, u, to[T - 1], nullptr, steps);
    }
  }
  // The taps k, k + 1 and k + 2 of a group, or of two.
  template <class G, bool inside>
  static inline __attribute__((always_inline)) Line<G> line_of(const uint8_t* x, const int64_t (&offset)[9],
                                                               const typename G::Mask (&mask)[9], int k) {
    const auto tap = [&](int i) __attribute__((always_inline)) {
      return inside && i % 3 == 1 ? G::load(x + offset[i]) : G::load(mask[inside ? i % 3 : i], x + offset[i]);
    };
    return Line<G>(tap(k), tap(k + 1), tap(k + 2));
  }
  template <class G, bool inside>
  static inline __attribute__((always_inline)) void group_step(const uint8_t* x, const int64_t (&offset)[9], const typename G::Mask (&mask)[9],
                                                               const UsedChannel& u, float* to, float* other, const Steps& steps) {
    const auto line = [&](int k) __attribute__((always_inline)) { return line_of<G, inside>(x, offset, mask, k); };
    const int64_t first = (int64_t)u.begin * N::floats;
    store_nine<G>(to + first, other ? other + first : nullptr, u.wanted, line(0), line(3), line(6), steps);
  }
  // Four groups into rows of 64 bytes (conv_wide.h), as packing leaves them.
  template <bool inside>
  static inline __attribute__((always_inline)) void wide_step(const uint8_t* x, const uint8_t* other, const int64_t (&offset)[9],
                                                              const TwoGroups::Mask (&mask)[9], const TwoGroups::Mask (&other_mask)[9],
                                                              const UsedChannel& u, float* maps, const Steps& steps) {
    using G = TwoGroups;
    __m512i words[2][9];
    const auto make = [&](const uint8_t* from, const TwoGroups::Mask(&of)[9], __m512i(&made)[9]) __attribute__((always_inline)) {
      const auto line = [&](int k) __attribute__((always_inline)) { return line_of<G, inside>(from, offset, of, k); };
      nine_of<G>(line(0), line(3), line(6), made);
#pragma GCC unroll 9
      for (int i = 0; i < 9; ++i) made[i] = G::map(made[i], steps.factor[i], steps.zero[i]);
    };
    make(x, mask, words[0]), make(other, other_mask, words[1]);
    float* to = maps + (int64_t)u.begin * N::floats;
#pragma GCC unroll 9
    for (int i = 0; i < 9; ++i) {
      _mm512_store_si512(to, _mm512_packus_epi16(words[0][i], words[1][i]));
      to += (u.wanted >> i & 1) * N::floats;
    }
  }
  template <class G>
  static inline __attribute__((always_inline)) void nine_of(const Line<G>& top, const Line<G>& middle, const Line<G>& bottom,
                                                            typename G::Words (&nine)[9]) {
    const Line<G> lines[3] = {{top.even, middle.even, bottom.even}, {top.odd, middle.odd, bottom.odd}, {top.bend, middle.bend, bottom.bend}};
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) nine[i] = lines[i].even, nine[3 + i] = lines[i].odd, nine[6 + i] = lines[i].bend;
  }

  // Stride 2 along a row. Lanes are loaded run by run.
  struct Run {
    int64_t at[3], before[3];  // offsets of the even pixels, and of two pixels before them, for each row of taps
    __mmask32 both[3], left[3];
  };
  template <int T> static void make_strided(const ConvArgs& a, const Chunk& chunk, const Taps<V, T>& taps, float* maps) {
    Run runs[T][V::lanes];
    int count = 1;
    const auto twice = [](uint32_t lanes) {  // bit l to bit 2 l
      uint32_t bits = 0;
      for (int l = 0; l < V::lanes; ++l) bits |= (lanes >> l & 1) << 2 * l;
      return bits;
    };
    for (int t = 0; t < T; ++t) count = taps.runs(t) > count ? taps.runs(t) : count;
    for (int t = 0; t < T; ++t)
      for (int i = 0; i < count; ++i)
        for (int r = 0; r < 3; ++r) {
          const bool there = i < taps.runs(t);
          const int64_t start = taps.run_start(t, there ? i : 0);
          const auto lanes = [&](int s) { return there ? twice(taps.run_lanes(t, i, r, s)) : 0; };
          Run& run = runs[t][i];
          run.at[r] = start + taps.offset(3 * r + 1), run.before[r] = start + taps.offset(3 * r) - 1;
          run.both[r] = lanes(1) | lanes(2) << 1, run.left[r] = lanes(0) << 1;
        }
    count == 1   ? make_runs<T, 1>(a, chunk, runs, count, maps)
    : count == 2 ? make_runs<T, 2>(a, chunk, runs, count, maps)
                 : make_runs<T, 0>(a, chunk, runs, count, maps);
  }
  // known: the count, or 0.
  template <int T, int known>
  static void make_runs(const ConvArgs& a, const Chunk& chunk, const Run (&runs)[T][V::lanes], int all, float* maps) {
    const int count = known ? known : all;
    const Steps steps(a);
    float* to[T];
    for (int t = 0; t < T; ++t) to[t] = map_rows<V, N>(a, maps, t) - (int64_t)chunk.first_map * N::floats;
    const UsedChannel* const used = a.used;
    const uint8_t* const source = reinterpret_cast<const uint8_t*>(a.x.base);
    const int64_t channel = a.x.channel * (int64_t)sizeof(float);
    const __m256i low = _mm256_set1_epi16(0xff);
    for (int i = chunk.begin; i < chunk.end; ++i) {
      const UsedChannel u = used[i];
      const uint8_t* x = source + u.channel * channel;
      const uint8_t* soon = source + used[i + kChannelsAhead < chunk.end ? i + kChannelsAhead : i].channel * channel;
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) {
        __builtin_prefetch(soon + runs[t][0].at[2]);
        const auto line = [&](int r) __attribute__((always_inline)) {
          __m256i both = _mm256_setzero_si256(), left = both;
#pragma GCC unroll 2
          for (int k = 0; k < count; ++k) {
            const Run& run = runs[t][k];
            both = _mm256_mask_loadu_epi8(both, run.both[r], x + run.at[r]);
            left = _mm256_mask_loadu_epi8(left, run.left[r], x + run.before[r]);
          }
          return Line<OneGroup>(_mm256_srli_epi16(left, 8), _mm256_and_si256(both, low), _mm256_srli_epi16(both, 8));
        };
        store_nine<OneGroup>(to[t] + (int64_t)u.begin * N::floats, nullptr, u.wanted, line(0), line(1), line(2), steps);
      }
    }
  }

  // The maps of a group at `to`, of a second one at `other`.
  template <class G>
  static inline __attribute__((always_inline)) void store_nine(float* to, float* other, uint32_t wanted, const Line<G>& top,
                                                               const Line<G>& middle, const Line<G>& bottom, const Steps& steps) {
    typename G::Words sums[9];
    nine_of<G>(top, middle, bottom, sums);
    constexpr bool kTwo = std::is_same<G, TwoGroups>::value;
    const bool all = __builtin_expect(wanted == kAllNine, 1);
    const auto map = [&](int i) __attribute__((always_inline)) { return G::map(sums[i], steps.factor[i], steps.zero[i]); };
#pragma GCC unroll 5
    for (int i = 0; i < 9; i += 2) {
      __m256i second{};
      const __m256i first = G::rows(map(i), map(i < 8 ? i + 1 : i), second);
      const auto put = [&](float* at, __m256i rows) __attribute__((always_inline)) {
        const auto row = [&](float* there, __m128i bytes) {
          if constexpr (N::wide)
            N::put(there, bytes);
          else
            _mm_store_si128(reinterpret_cast<__m128i*>(there), bytes);
        };
        if (i == 8) return row(at, _mm256_castsi256_si128(rows));
        if (all && !N::wide) return _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), rows);
        row(at, _mm256_castsi256_si128(rows));
        row(at + (wanted >> i & 1) * N::floats, _mm256_extracti128_si256(rows, 1));
      };
      put(to, first);
      if (kTwo) put(other, second);
      const int64_t behind = all ? 2 * N::floats : (int64_t)((wanted >> i & 1) + (wanted >> (i + 1) & 1)) * N::floats;
      to += behind;
      if (kTwo) other += behind;
    }
  }
};
