// The basis step of the 3x3 DCT in whole numbers, for int8: out of planes of steps u = 0..255 (0 stands for 0), by sums of 16 bits, which
// hold 16 * 255, map = clamp(zero + (sum * factor + 2^14 >> 15), 0, 255) for each of the nine. Sixteen pixels at a time: a vector of 32 bytes,
// for which some processors have a port more than for 64. As basis_step_dct3() of conv_basis.h otherwise. At a horizontal stride of 2 a row's
// three taps are the even and the odd bytes from pixel 2x on, and the odd ones of a second load before it.
// Included inside a per-ISA namespace, after number_int8.h.
template <class V, class N> struct WholeBasis {
  struct Line {  // Dct3
    __m256i even, odd, bend;
    Line(__m256i a, __m256i b, __m256i c) {
      const __m256i ends = _mm256_add_epi16(a, c);
      even = _mm256_add_epi16(ends, b), odd = _mm256_sub_epi16(a, c), bend = _mm256_sub_epi16(ends, _mm256_add_epi16(b, b));
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
    typename V::Mask mask[T][9];
    for (int i = 0; i < 9; ++i) offset[i] = taps.offset(i);
    for (int t = 0; t < T; ++t) {
      start[t] = taps.start(t);
      to[t] = map_rows<V, N>(a, maps, t) - (int64_t)chunk.first_map * N::floats;
      for (int i = 0; i < 9; ++i) mask[t][i] = taps.mask(t, i);
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
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) {
        const auto tap = [&](int k) __attribute__((always_inline)) {
          const uint8_t* from = x + start[t] + offset[k];
          const bool all = inside && k % 3 == 1;
          return _mm256_cvtepu8_epi16(all ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(from))
                                          : _mm_maskz_loadu_epi8(mask[t][inside ? k % 3 : k], from));
        };
        const Line top(tap(0), tap(1), tap(2)), middle(tap(3), tap(4), tap(5)), bottom(tap(6), tap(7), tap(8));
        store_nine(to[t] + (int64_t)u.begin * N::floats, u.wanted, top, middle, bottom, steps);
      }
    }
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
    count == 1 ? make_runs<T, 1>(a, chunk, runs, count, maps) : count == 2 ? make_runs<T, 2>(a, chunk, runs, count, maps)
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
          return Line(_mm256_srli_epi16(left, 8), _mm256_and_si256(both, low), _mm256_srli_epi16(both, 8));
        };
        store_nine(to[t] + (int64_t)u.begin * N::floats, u.wanted, line(0), line(1), line(2), steps);
      }
    }
  }

  struct Steps {
    alignas(32) int16_t factor[9][16], zero[9][16];
    explicit Steps(const ConvArgs& a) {
      for (int i = 0; i < 9; ++i)
        for (int l = 0; l < 16; ++l) factor[i][l] = a.factor[i], zero[i][l] = (int16_t)a.zero[i];
    }
  };

  static inline __attribute__((always_inline)) void store_nine(float* to, uint32_t wanted, const Line& top, const Line& middle,
                                                               const Line& bottom, const Steps& steps) {
    const Line even(top.even, middle.even, bottom.even), odd(top.odd, middle.odd, bottom.odd), bend(top.bend, middle.bend, bottom.bend);
    const __m256i sums[9] = {even.even, odd.even, bend.even, even.odd, odd.odd, bend.odd, even.bend, odd.bend, bend.bend};
    const auto words = [](const int16_t(&of)[16]) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(of)); };
    const auto map = [&](int i) { return _mm256_add_epi16(_mm256_mulhrs_epi16(sums[i], words(steps.factor[i])), words(steps.zero[i])); };
    const auto two = [&](int i) { return _mm256_permute4x64_epi64(_mm256_packus_epi16(map(i), map(i < 8 ? i + 1 : i)), 0xd8); };
    const auto put = [&](__m128i bytes) { _mm_store_si128(reinterpret_cast<__m128i*>(to), bytes); };
    if (__builtin_expect(wanted == kAllNine, 1)) {
#pragma GCC unroll 4
      for (int i = 0; i < 8; i += 2) _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i * N::floats), two(i));
      to += 8 * N::floats;
      return put(_mm256_castsi256_si128(two(8)));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
      const __m256i both = two(i);
      put(_mm256_castsi256_si128(both)), to += (wanted >> i & 1) * N::floats;
      put(_mm256_extracti128_si256(both, 1)), to += (wanted >> (i + 1) & 1) * N::floats;
    }
    put(_mm256_castsi256_si128(two(8)));
  }
};
