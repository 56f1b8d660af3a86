// conv: one tile of T groups of output pixels (contract: ConvArgs in kernel.h).
//
// For each chunk of source channels: the basis step makes their maps (conv_basis.h), then every block row adds its columns to r x T
// accumulators in registers, one index load a block. Between chunks the sums wait in y. A tiled source is its own map: no basis step.
// Included inside a per-ISA namespace, after conv_basis.h, act.h and conv_lanes.h.

// Steps of a block row whose values are asked for before they are multiplied: weights come from a last-level cache or from memory, and what
// the processor foresees by itself ends with each page.
constexpr int kAhead = 64;
static_assert(kAhead == 64 && kMapsAhead == 8 && kLanes == 16, "steps_avx2.h has these as numbers");

// Whether the maps of later steps are asked for: a tile's maps rarely fit the first-level cache, and a row picks them in no pattern that the
// processor foresees. Joined columns do not: their maps are shorter, and each step would ask for several.
template <class V, class N> constexpr bool asks_for_maps() { return V::lanes > 1 && N::columns == 1 && N::floats == kLanes; }

// The basis step alone (MapsKernel).
template <class V, class N> void conv_maps(const ConvArgs& a, int64_t group, int begin, int end, float* scratch) {
  constexpr int per = kLanes / V::lanes;
  const Chunk& last = a.chunks[a.chunk_count - 1];
  float* maps = a.maps + group * (last.first_map + last.maps) * N::floats;
  if (a.source == Source::picked) {
    float* to[per];
    for (int v = 0; v < per; ++v) to[v] = map_rows<V, N>(a, maps, v);
    return pick_maps<V, N, per>(a, group, begin, end, scratch, to);
  }
  const Taps<V, per> taps(a.window, group * kLanes, scratch, runs_alone<V, N>(a));
  basis_step<V, N, per>(a, Chunk{begin, end, 0, 0}, taps, maps);
}

// The sums of S filters from `filter` become values: y[q], residual[q] are the vector's place in the first of them. Every loop here is
// unrolled, or the sums would lie in memory. `to` and `from` are copies: a store may alias what `a` points to, which would be loaded anew
// each time, and the step of an int8 residual divided anew.
template <class V, class N, int S, int Q, bool kResidual, bool kClips = false>
inline __attribute__((always_inline)) void finish_rows(const ConvArgs& a, int filter, const typename N::Sum (&acc)[S][Q], float* const* y,
                                                       const float* const* residual) {
  constexpr int kTogether = N::together;
  if constexpr (kTogether == 4 && S % kTogether == 0 && !kClips)
    if (N::ends_in_steps(a)) return N::template finish_tile<kResidual>(a, filter, acc, y, residual);
  const typename V::Reg floor = V::set1(kClips ? a.alpha : a.act == Act::none ? -__builtin_inff() : 0.f), ceiling = V::set1(a.beta);
  const int filters = a.filters - filter;  // the last block row may be partial
  const Rows<float> to = a.y;
  const Rows<const float> from = a.residual;
  const auto value = [&](int r, int q) __attribute__((always_inline)) {
    typename V::Reg sum = N::result(a, filter + r, acc[r][q]);
    if (kResidual) {
      const float* own = residual[q] + r * from.channel;
      sum = V::add(sum, from.tiled ? N::load_value(from, own) : V::load(own));
    }
    sum = V::max(floor, sum);  // this order keeps NaN
    return kClips ? V::min(ceiling, sum) : sum;
  };
  if constexpr (kTogether > 1 && S % kTogether == 0) {
    if (to.tiled && filters >= S) {
#pragma GCC unroll 8
      for (int r = 0; r < S; r += kTogether)
#pragma GCC unroll 8
        for (int q = 0; q < Q; ++q) {
          float* place = y[q] + r * to.channel;
          if constexpr (kTogether == 4)
            N::store_values(to, place, value(r, q), value(r + 1, q), value(r + 2, q), value(r + 3, q));
          else
            N::store_values(to, place, value(r, q), value(r + 1, q));
        }
      return;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < S; ++r) {
    if (r >= filters) break;
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q) {
      if (to.tiled)
        N::store_value(to, y[q] + r * to.channel, value(r, q));
      else
        V::store(y[q] + r * to.channel, value(r, q));
    }
  }
}

// The same with any activation; out of line, by way of memory.
template <class V, class N, int S, int Q>
__attribute__((noinline)) void finish_rows_activated(const ConvArgs& a, int filter, const typename N::Sum (&acc)[S][Q], float* const* y,
                                                     const float* const* residual) {
  const Rows<float> to = a.y;
  const Rows<const float> from = a.residual;
  const int rows = a.filters - filter < S ? a.filters - filter : S;
  if (rows <= 0) return;
  const auto each = [&](auto take) {
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
      for (int q = 0; q < Q; ++q) {
        typename V::Reg sum = N::result(a, filter + r, acc[r][q]);
        if (from.base) {
          const float* own = residual[q] + r * from.channel;
          sum = V::add(sum, from.tiled ? N::load_value(from, own) : V::load(own));
        }
        take(r, q, sum);
      }
  };
  const auto put = [&](int r, int q, typename V::Reg v) {
    if (to.tiled)
      N::store_value(to, y[q] + r * to.channel, v);
    else
      V::store(y[q] + r * to.channel, v);
  };
  if (a.act == Act::hardswish)  // too short to be worth the way
    return each([&](int r, int q, typename V::Reg v) { put(r, q, activate<V>(Act::hardswish, V::zero(), V::zero(), v)); });
  alignas(64) float sums[S * Q * V::lanes];
  each([&](int r, int q, typename V::Reg v) { V::store(sums + (r * Q + q) * V::lanes, v); });
  activation_row<V>(a.act, a.alpha, a.beta, sums, sums, rows * Q * V::lanes);
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q) put(r, q, V::load(sums + (r * Q + q) * V::lanes));
}

// The sums of S filters from `filter` wait in y, or become values.
template <class V, class N, int S, int Q>
inline __attribute__((always_inline)) void end_sums(const ConvArgs& a, int filter, bool last, const typename N::Sum (&acc)[S][Q],
                                                    float* const* y, const float* const* residual) {
  const int64_t y_channel = a.y.channel;
  const int filters = a.filters - filter;
  if (!last) {
#pragma GCC unroll 8
    for (int r = 0; r < S; ++r) {
      if (r >= filters) break;
#pragma GCC unroll 8
      for (int q = 0; q < Q; ++q) N::store_sum(y[q] + r * y_channel, acc[r][q]);
    }
  } else if (a.act == Act::clip && !a.residual.base) {
    finish_rows<V, N, S, Q, false, true>(a, filter, acc, y, residual);
  } else if (a.act > Act::relu) {
    typename N::Sum sums[S][Q];  // a copy, so that the sums themselves stay in registers
#pragma GCC unroll 8
    for (int r = 0; r < S; ++r)
#pragma GCC unroll 8
      for (int q = 0; q < Q; ++q) sums[r][q] = acc[r][q];
    finish_rows_activated<V, N, S, Q>(a, filter, sums, y, residual);
  } else if (a.residual.base) {
    finish_rows<V, N, S, Q, true>(a, filter, acc, y, residual);
  } else {
    finish_rows<V, N, S, Q, false>(a, filter, acc, y, residual);
  }
}

// The same of the last chunk, out of line: what it takes of registers is no concern of the steps, which have as few to spare.
template <class V, class N, int S, int Q>
__attribute__((noinline)) void end_sums_apart(const ConvArgs& a, int filter, const typename N::Sum (&acc)[S][Q], float* const* y,
                                              const float* const* residual) {
  end_sums<V, N, S, Q>(a, filter, true, acc, y, residual);
}

// Whether a tile has the pixels behind it as well, and how they are multiplied (L as in conv_lanes.h): 8 filters side by side. One pixel goes
// with each step where registers are left for it, which costs a tile of three 2 instructions of 46; elsewhere a row's pixels follow its tile,
// while its values are in the nearest cache. A pass of their own would fetch all values once more.
struct NoPixel {
  struct Sum {};
  static Sum zero() { return {}; }
  static Sum madd(const void*, const float*, int, const uint32_t*, Sum s) { return s; }
};
struct NoTaps {
  NoTaps(const Window&, int64_t, float*, bool) {}
};
template <class L> constexpr bool takes_pixel() { return !std::is_same<L, NoPixel>::value; }
template <class V> constexpr bool pixel_in_step() { return V::registers == 32; }

// S of the R filters of block row `row`, from number `part`, times Q vectors; x[q]: the maps, x[Q]: those of the pixel behind. Returns its
// sums.
template <class V, class N, class L, int R, int S, int Q>
inline __attribute__((always_inline)) typename L::Sum block_product(const ConvArgs& a, int row, int part, uint32_t begin, uint32_t end,
                                                                    bool first, bool last, const float* const* x, float* const* y,
                                                                    const float* const* residual) {
  const int filter = row * R + part;
  typename N::Sum acc[S][Q];
  typename L::Sum pixel = L::zero();
  const int64_t y_channel = a.y.channel;
  const int filters = a.filters - filter;
  if (first) {
#pragma GCC unroll 8
    for (int r = 0; r < S; ++r)
#pragma GCC unroll 8
      for (int q = 0; q < Q; ++q) acc[r][q] = N::zero();
  } else {
#pragma GCC unroll 8
    for (int r = 0; r < S; ++r)
#pragma GCC unroll 8
      for (int q = 0; q < Q; ++q) acc[r][q] = N::load_sum(y[q] + (r < filters ? r : 0) * y_channel);
  }
  const typename N::Value* value = static_cast<const typename N::Value*>(a.values) + (int64_t)begin * R + part;
  const uint32_t *column = a.columns + (int64_t)begin * N::columns, *const stop = a.columns + (int64_t)end * N::columns;
  const bool brings_maps = part == 0;  // the first filters of a row do, the others bring the values of what follows
  if constexpr (in_assembly<V, N, S, Q>()) {
    // Columns of a dense row follow each other: so do its maps, which are then found without reading the columns.
    const bool dense = a.source != Source::shifted && column != stop && stop[-1] - *column == (stop - column - 1) * N::floats;
    row_steps<R>(acc, value, column, stop, dense, brings_maps, x);
  } else {
    const auto steps = [&](auto asks_maps, auto asks_values) __attribute__((always_inline)) {
      for (; column != stop; column += N::columns, value += R) {
        if (asks_values && R * sizeof(typename N::Value) >= 32) {  // less than a line in two steps: the processor foresees that much
          __builtin_prefetch(value + kAhead * R);
          __builtin_prefetch(column + kAhead * N::columns);
        }
        if (asks_maps && asks_for_maps<V, N>()) {
#pragma GCC unroll 8
          for (int q = 0; q < Q; ++q)  // a line holds the map of a whole group
            if (q * V::lanes % kLanes == 0) __builtin_prefetch(x[q] + column[kMapsAhead]);
        }
        typename V::Reg maps[Q];
#pragma GCC unroll 8
        for (int q = 0; q < Q; ++q)
          if constexpr (!N::halves) maps[q] = N::gather(x[q], column);
        if constexpr (N::halves) N::gather(x[0], column, maps[0], maps[1]);
#pragma GCC unroll 8
        for (int r = 0; r < S; ++r)
#pragma GCC unroll 8
          for (int q = 0; q < Q; ++q) acc[r][q] = N::madd(value[r], maps[q], acc[r][q]);
        if (takes_pixel<L>()) pixel = L::madd(reinterpret_cast<const float*>(value), x[Q], 0, column, pixel);
      }
    };
    constexpr std::true_type yes;
    constexpr std::false_type no;
    S == R ? steps(yes, yes) : brings_maps ? steps(yes, no) : steps(no, yes);
  }
  if constexpr (N::halves)
    if (last)
#pragma GCC unroll 8
      for (int r = 0; r < S; ++r) N::order(acc[r][0], acc[r][1]);
  if constexpr (N::ends_apart) {
    typename N::Sum sums[S][Q];  // a copy, so that the sums themselves stay in registers
#pragma GCC unroll 8
    for (int r = 0; r < S; ++r)
#pragma GCC unroll 8
      for (int q = 0; q < Q; ++q) sums[r][q] = acc[r][q];
    end_sums_apart<V, N, S, Q>(a, filter, sums, y, residual);
  } else {
    end_sums<V, N, S, Q>(a, filter, last, acc, y, residual);
  }
  return pixel;
}

// Vectors that one block product holds in registers: S x Q sums, Q maps and a value must fit.
template <class V, int S> constexpr int vectors_at_once() { return V::registers / (S + 1) > 0 ? V::registers / (S + 1) : 1; }

// Filters of a row at once: all of them, or half where a group of pixels is two vectors and the whole would have room for one, since a
// value that is fetched should serve more than one product.
template <class V, int R> constexpr int filters_at_once() { return R > 1 && vectors_at_once<V, R>() < kLanes / V::lanes ? R / 2 : R; }

// All block rows begin..end-1 of one chunk for T groups of pixels; x[v]: the maps of vector v, behind the last those of the pixel. joined:
// room for the joined maps of a row's steps (narrow).
template <class V, class N, class L, int R, int T>
void product_rows(const ConvArgs& a, int chunk, int64_t group, int begin, int end, const float* const* x, float* joined = nullptr) {
  constexpr int per = kLanes / V::lanes, vectors = T * per, S = filters_at_once<V, R>(), most = vectors_at_once<V, S>();
  constexpr int Q = N::halves ? per : vectors <= most ? vectors : vectors % most ? per : most;
  using InStep = std::conditional_t<pixel_in_step<V>(), L, NoPixel>;
  if constexpr (N::narrow && S == 4) return N::template rows<R, T>(a, chunk, group, begin, end, x, joined);
  static_assert(!takes_pixel<L>() || (R == 8 && sizeof(typename N::Value) == sizeof(float)));
  static_assert(!takes_pixel<InStep>() || (S == R && Q == vectors));
  const uint32_t *from = a.bounds + (int64_t)chunk * a.bounds_step, *to = from + a.bounds_step;
  const bool first = chunk == 0, last = chunk + 1 == a.chunk_count;
  // Where the vectors of the first filter lie.
  float* y_at[vectors];
  const float* residual_at[vectors];
#pragma GCC unroll 8
  for (int v = 0; v < vectors; ++v) {
    const auto lane = [&](bool tiled) { return v % per * (tiled ? vector_floats<V, N>() : V::lanes); };
    y_at[v] = a.y.at(0, group + v / per) + lane(a.y.tiled);
    residual_at[v] = a.residual.base ? a.residual.at(0, group + v / per) + lane(a.residual.tiled) : nullptr;
  }
  const int64_t y_channel = a.y.channel, residual_channel = a.residual.base ? a.residual.channel : 0;
  for (int row = begin; row < end; ++row) {
    for (int v = 0; v < vectors; v += Q)
      for (int part = 0; part < R && row * R + part < a.filters; part += S) {
        const int64_t filter = row * R + part;
        float* y[Q];
        const float* residual[Q];
#pragma GCC unroll 8
        for (int q = 0; q < Q; ++q) y[q] = y_at[v + q] + filter * y_channel, residual[q] = residual_at[v + q] + filter * residual_channel;
        const auto pixel = block_product<V, N, InStep, R, S, Q>(a, row, part, from[row], to[row], first, last, x + v, y, residual);
        if constexpr (takes_pixel<InStep>()) finish_lanes<typename L::Vector, L, N>(a, row, chunk, group + T, 0, pixel);
      }
    if constexpr (takes_pixel<L>() && !takes_pixel<InStep>())
      lanes_row<typename L::Vector, L, N>(a, row, chunk, group + T, pixels_from(a, group + T), x[vectors]);
  }
}

template <class V, class N, int R, int T, class L = NoPixel>
void conv_tile(const ConvArgs& a, int64_t group, int begin, int end, float* scratch) {
  if constexpr (N::number == Number::int8 && T == 4) return N::wide_tile(a, group, begin, end, scratch);
  constexpr int per = kLanes / V::lanes, vectors = T * per, kBehind = takes_pixel<L>(), all = vectors + kBehind * per;
  const int taps = a.window.rows * a.window.cols;
  const float* x[all];
  float *const room_behind = scratch + taps_floats(taps, T), *const maps = scratch + taps_floats(taps, T + kBehind);
  float* const maps_behind = map_rows<V, N>(a, maps, vectors);
  // A narrow number's maps take half of their room, and its joined ones at most the other half: a step, 64 bytes, has two columns or more, but
  // for a row's last, which the room's own spare serves.
  float* const joined = maps_behind;
  if (a.source == Source::picked) {
    float* to[all];
    for (int v = 0; v < all; ++v) x[v] = to[v] = map_rows<V, N>(a, maps, v);
    pick_maps<V, N, vectors>(a, group, a.chunks[0].begin, a.chunks[0].end, scratch, to);
    if constexpr (kBehind) pick_maps<V, N, per>(a, group + T, a.chunks[0].begin, a.chunks[0].end, room_behind, to + vectors);
    return product_rows<V, N, L, R, T>(a, 0, group, begin, end, x, joined);
  }
  if constexpr (N::joins)
    if (a.source == Source::shifted) {
      for (int v = 0; v < vectors; ++v) x[v] = a.x.base + Pixel(a.window, group * kLanes + v * V::lanes).source(a.window);
      return product_rows<V, Joined<V, N>, NoPixel, R, T>(a, 0, group, begin, end, x);
    }
  if (a.source == Source::shifted) {
    for (int v = 0; v < all; ++v) x[v] = N::at(a.x.base, Pixel(a.window, group * kLanes + v * V::lanes).source(a.window));
    for (int k = 0; k < a.chunk_count; ++k) product_rows<V, N, L, R, T>(a, k, group, begin, end, x, joined);
    return;
  }
  if (a.source != Source::planar) {
    const bool in_place = N::in_place || a.source == Source::maps;
    if (!in_place) copy_tiled<V, N, vectors>(a, group, maps);
    if constexpr (kBehind)
      if (!in_place) copy_tiled<V, N, per>(a, group + T, maps_behind);
    if constexpr (R == 8 && !takes_pixel<L>() && !std::is_void<typename N::OutOfWideRows>::value)
      if (a.x.row_bits > 0) {
        for (int v = 0; v < vectors; ++v) x[v] = a.x.at(0, group + v);
        return product_rows<V, typename N::OutOfWideRows, L, R, T>(a, 0, group, begin, end, x);
      }
    for (int v = 0; v < all; ++v)
      x[v] = in_place ? a.x.at(0, group + v / per) + v % per * vector_floats<V, N>() : map_rows<V, N>(a, maps, v);
    for (int k = 0; k < a.chunk_count; ++k) product_rows<V, N, L, R, T>(a, k, group, begin, end, x, joined);
    return;
  }
  const Taps<V, vectors> taps_here(a.window, group * kLanes, scratch, runs_alone<V, N>(a));
  const std::conditional_t<kBehind, Taps<V, per>, NoTaps> taps_behind(a.window, (group + T) * kLanes, room_behind, runs_alone<V, N>(a));
  for (int k = 0; k < a.chunk_count; ++k) {
    basis_step<V, N, vectors>(a, a.chunks[k], taps_here, maps);
    if constexpr (kBehind) basis_step<V, N, per>(a, a.chunks[k], taps_behind, maps_behind);
    for (int v = 0; v < all; ++v) x[v] = map_rows<V, N>(a, maps, v) - (int64_t)a.chunks[k].first_map * N::floats;
    product_rows<V, N, L, R, T>(a, k, group, begin, end, x, joined);
  }
}
