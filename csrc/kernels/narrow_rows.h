// The product of block rows of four or eight filters for int8 of AVX2 (number_int8_avx2.h): product_rows() of conv.h, four filters at a time.
// The first four leave the maps that they join to the other four. Two multiplications and an addition make 32 products; in double steps
// (narrow.h) two steps share the second multiplication. Included inside a per-ISA namespace, after conv.h.
template <class V> struct NarrowRows {
  using N = NarrowInt8<V>;
  using Reg = typename N::Reg;
  using Sum = typename N::Sum;
  using Value = typename N::Value;
  static constexpr int columns = N::columns, floats = N::floats;
  static_assert(columns == 4 && kMapsAhead == 2 * columns);
  // The room of a chunk's maps that stay in a first-level cache, once they are there.
  static constexpr int kNearFloats = 24 * 1024 / 4;

  // joined: [steps][2] vectors.
  template <int R, int T>
  static void rows(const ConvArgs& a, int chunk, int64_t group, int begin, int end, const float* const* x, float* joined) {
    const int64_t of_chunk = (int64_t)chunk * a.bounds_step, y_channel = a.y.channel;
    const int64_t residual_channel = a.residual.base ? a.residual.channel : 0;
    const uint32_t *const from = a.bounds + of_chunk, *const to = from + a.bounds_step, *const doubles = a.doubles + of_chunk;
    const Value* const values = static_cast<const Value*>(a.values);
    const uint32_t* const columns_of = a.columns;
    const bool first = chunk == 0, last = chunk + 1 == a.chunk_count;
    const bool far = (int64_t)a.chunks[chunk].maps * floats * T > kNearFloats;
    const int filters = a.filters;
    const bool in_steps = StepFactors::serve(a);
    const StepFactors factors(a);
    for (int row = begin; row < end; ++row) {
      const Value* const value = values + (int64_t)from[row] * R;
      const uint32_t *const column = columns_of + (int64_t)from[row] * columns, *const stop = columns_of + (int64_t)to[row] * columns;
      for (int g = 0; g < T; ++g) {
        const float* const maps = x[2 * g];
        float* y = a.y.at(row * R, group + g);
        const float* residual = a.residual.base ? a.residual.at(row * R, group + g) : nullptr;
#pragma GCC unroll 2
        for (int part = 0; part < R; part += 4) {
          const int filter = row * R + part;
          if (filter >= filters) break;
          Sum sums[4][2];
#pragma GCC unroll 4
          for (int r = 0; r < 4; ++r) sums[r][0] = sums[r][1] = N::zero();
          if (!first) take_sums(a, filter, y, sums);
          if (part > 0)
            steps<R, Maps::joined>(sums, value + part, column, stop, doubles[row], maps, joined);
          else if (far)
            steps<R, Maps::far>(sums, value, column, stop, doubles[row], maps, joined);
          else
            steps<R, Maps::near>(sums, value, column, stop, doubles[row], maps, joined);
          if (last && in_steps) {
            residual ? finish_steps<true>(a, factors, filter, sums, y, residual)
                     : finish_steps<false>(a, factors, filter, sums, y, residual);
          } else if (!last || !finish(a, filter, sums, y, residual)) {
            Sum waiting[4][2];  // a copy, so that the sums themselves stay in registers
#pragma GCC unroll 4
            for (int r = 0; r < 4; ++r) waiting[r][0] = sums[r][0], waiting[r][1] = sums[r][1];
            put_sums(a, filter, last, waiting, y, residual);
          }
          y += 4 * y_channel, residual += 4 * residual_channel;
        }
      }
    }
  }
  static float* second(const Rows<float>& y, float* at) { return at + (y.tiled ? floats / 2 : V::lanes); }
  // Sums that waited in y, and such that wait there or do not become values by finish().
  static inline __attribute__((always_inline)) void take_sums(const ConvArgs& a, int filter, float* y, Sum (&sums)[4][2]) {
    const int64_t channel = a.y.channel;
    const float* const other = second(a.y, y);
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      const int64_t at = (filter + r < a.filters ? r : 0) * channel;
      sums[r][0] = N::load_sum(y + at), sums[r][1] = N::load_sum(other + at);
    }
  }
  static __attribute__((noinline)) void put_sums(const ConvArgs& a, int filter, bool last, Sum (&sums)[4][2], float* y,
                                                 const float* residual) {
    if (last)
      for (auto& of_filter : sums) N::order(of_filter[0], of_filter[1]);
    float* const places[2] = {y, second(a.y, y)};
    const float* const residuals[2] = {residual, residual ? residual + (a.residual.tiled ? floats / 2 : V::lanes) : nullptr};
    end_sums<V, N, 4, 2>(a, filter, last, sums, places, residuals);
  }
  enum class Maps : int { near, far, joined };
  struct alignas(32) Ones {
    int16_t lane[16];
  };
  static constexpr Ones kOnes = {{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}};
  template <int R, Maps kMaps> static inline __attribute__((always_inline)) void steps(Sum (&sums)[4][2], const Value* value,
                                                                                       const uint32_t* column, const uint32_t* stop,
                                                                                       uint32_t doubles, const float* x, float* joined) {
    constexpr bool kStores = R > 4;
    __m256i* place = reinterpret_cast<__m256i*>(joined);
    // The maps of a step, from these columns.
    const auto join = [&](const uint32_t* from, Reg(&maps)[2]) __attribute__((always_inline)) {
      if constexpr (kMaps == Maps::joined) {
        maps[0] = _mm256_castsi256_ps(_mm256_load_si256(place)), maps[1] = _mm256_castsi256_ps(_mm256_load_si256(place + 1));
      } else {
        N::gather(x, from, maps[0], maps[1]);
        if (kStores) _mm256_store_si256(place, _mm256_castps_si256(maps[0])), _mm256_store_si256(place + 1, _mm256_castps_si256(maps[1]));
      }
      place += 2;
    };
    // widened() and an addition. One after the other, or what is joined and multiplied would not fit the registers, in which a vector of ones
    // has no place either.
    const auto add = [](Sum& sum, __m256i lanes) __attribute__((always_inline)) {
      asm volatile("vpmaddwd %2, %1, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "+x"(lanes) : "m"(kOnes));
    };
    uint32_t here[8];  // columns of a double step: each is read once, to ask for its map a step ahead
    if (kMaps == Maps::far)
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) here[i] = column[i];
    for (const uint32_t* end = column + 8 * doubles; column != end; column += 2 * columns, value += 2 * R) {
      Reg maps[2][2];
      join(kMaps == Maps::far ? here : column, maps[0]), join(kMaps == Maps::far ? here + columns : column + columns, maps[1]);
      if (kMaps == Maps::far) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) here[i] = column[kMapsAhead + i], __builtin_prefetch(N::at(x, here[i]));
      } else {
        __builtin_prefetch(value + kAhead * R);
        if (kMaps == Maps::near) __builtin_prefetch(column + kAhead * columns);
      }
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        const Value w = value[r], next = value[R + r];
        add(sums[r][0], _mm256_add_epi16(N::lanes(w, maps[0][0]), N::lanes(next, maps[1][0])));
        add(sums[r][1], _mm256_add_epi16(N::lanes(w, maps[0][1]), N::lanes(next, maps[1][1])));
      }
    }
    for (; column != stop; column += columns, value += R) {
      if (kMaps == Maps::far) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) __builtin_prefetch(N::at(x, column[kMapsAhead + i]));
      }
      Reg maps[2];
      join(column, maps);
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) add(sums[r][0], N::lanes(value[r], maps[0])), add(sums[r][1], N::lanes(value[r], maps[1]));
    }
  }
  // conv.h's finish_rows for sums as gather() left them, which is the order that a tile's row is packed in, where they do not end in steps
  // (finish_steps): to planes, or clipped. False, and nothing done, for what few layers have besides.
  static inline __attribute__((always_inline)) bool finish(const ConvArgs& a, int filter, const Sum (&sums)[4][2], float* y,
                                                           const float* residual) {
    if (!a.y.tiled) {
      if (residual || a.act > Act::relu) return false;
      finish_planes(a, filter, sums, y);
      return true;
    }
    if (residual || a.act != Act::clip) return false;
    finish_clipped(a, filter, sums, y);
    return true;
  }
  // Where StepFactors::serve(): the most frequent end.
  template <bool kResidual> static inline __attribute__((always_inline)) void finish_steps(const ConvArgs& a, const StepFactors& factors,
                                                                                           int filter, const Sum (&sums)[4][2], float* to,
                                                                                           const float* from) {
    alignas(16) float scale[4], bias[4];
    factors.of_four(a, filter, scale, bias);
    const Reg added = V::set1(factors.added);
    const int64_t channel = a.y.channel, channel_there = a.residual.channel;
    const int filters = a.filters - filter;  // the last block row may be partial
    const __m256i none = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      if (r >= filters) break;
      const Reg factor = V::set1(scale[r]), offset = V::set1(bias[r]);
      const auto value = [&](Sum sum, __m256i words) __attribute__((always_inline)) {
        const Reg before = kResidual ? V::fma(_mm256_cvtepi32_ps(words), added, offset) : offset;
        return _mm256_cvtps_epi32(V::fma(_mm256_cvtepi32_ps(sum), factor, before));
      };
      const __m256i there = kResidual ? _mm256_load_si256(reinterpret_cast<const __m256i*>(from + r * channel_there)) : none;
      const __m256i first = value(sums[r][0], _mm256_unpacklo_epi16(there, none));
      const __m256i second = value(sums[r][1], _mm256_unpackhi_epi16(there, none));
      const __m256i words = _mm256_min_epu16(_mm256_packus_epi32(first, second), _mm256_set1_epi16(255));
      _mm256_store_si256(reinterpret_cast<__m256i*>(to + r * channel), words);
    }
  }
  static inline __attribute__((always_inline)) void finish_planes(const ConvArgs& a, int filter, const Sum (&sums)[4][2], float* to) {
    const Reg floor = V::set1(a.act == Act::none ? -__builtin_inff() : 0.f);
    const float *const scale = a.scale + filter, *const bias = a.bias + filter;
    const int64_t channel = a.y.channel;
    const int filters = a.filters - filter;
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      if (r >= filters) break;
      Sum first = sums[r][0], second = sums[r][1];
      N::order(first, second);
      const auto value = [&](Sum sum) __attribute__((always_inline)) {
        return V::max(floor, V::fma(_mm256_cvtepi32_ps(sum), V::set1(scale[r]), V::set1(bias[r])));  // this order keeps NaN
      };
      V::store(to + r * channel, value(first)), V::store(to + r * channel + V::lanes, value(second));
    }
  }
  static inline __attribute__((always_inline)) void finish_clipped(const ConvArgs& a, int filter, const Sum (&sums)[4][2], float* to) {
    const Reg floor = V::set1(a.alpha), ceiling = V::set1(a.beta);
    const float *const scale = a.scale + filter, *const bias = a.bias + filter;
    const Rows<float> rows = a.y;
    const int filters = a.filters - filter;
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      if (r >= filters) break;
      const auto value = [&](Sum sum) __attribute__((always_inline)) {
        const Reg x = V::fma(_mm256_cvtepi32_ps(sum), V::set1(scale[r]), V::set1(bias[r]));
        return N::steps(V::min(ceiling, V::max(floor, x)), rows.inverse, rows.zero);  // this order keeps NaN
      };
      _mm256_store_si256(reinterpret_cast<__m256i*>(to + r * rows.channel), _mm256_packus_epi32(value(sums[r][0]), value(sums[r][1])));
    }
  }
};
