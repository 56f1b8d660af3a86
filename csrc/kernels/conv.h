// conv: one tile of T groups of output pixels (contract: ConvArgs in kernel.h).
//
// For each chunk of source channels: the basis step makes their maps (conv_basis.h), then every block row adds its columns to r x T
// accumulators in registers, one index load a block. Between chunks the sums wait in y. A tiled source is its own map: no basis step.
// Included inside a per-ISA namespace, after conv_basis.h and act.h.

// The basis step alone (MapsKernel).
template <class V, class N> void conv_maps(const ConvArgs& a, int64_t group, int begin, int end, float* scratch) {
  constexpr int per = kLanes / V::lanes;
  const Taps<V, per> taps(a.window, group * kLanes, reinterpret_cast<typename V::Mask*>(scratch));
  const Chunk& last = a.chunks[a.chunk_count - 1];
  basis_step<V, N, per>(a, Chunk{begin, end, 0, 0}, taps, a.maps + group * (last.first_map + last.maps) * N::floats);
}

// The sums of one block row become values: y[q], residual[q] are the vector's place in filter row * R. Every loop here is unrolled, or the
// sums would lie in memory.
template <class V, class N, int R, int Q, bool kResidual>
inline __attribute__((always_inline)) void finish_row(const ConvArgs& a, int row, const typename N::Sum (&acc)[R][Q], float* const* y,
                                                      const float* const* residual) {
  const typename V::Reg floor = V::set1(a.act == Act::none ? -__builtin_inff() : 0.f);
  const int filters = a.filters - row * R;  // the last block row may be partial
  const bool tiled = a.y.tiled, from_tiled = a.residual.tiled;
  const int64_t y_channel = a.y.channel, residual_channel = a.residual.channel;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    if (r >= filters) break;
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q) {
      typename V::Reg sum = N::result(a, row * R + r, acc[r][q]);
      if (kResidual) {
        const float* from = residual[q] + r * residual_channel;
        sum = V::add(sum, from_tiled ? N::load_value(a.residual, from) : V::load(from));
      }
      sum = V::max(floor, sum);  // this order keeps NaN
      if (tiled) N::store_value(a.y, y[q] + r * y_channel, sum);
      else V::store(y[q] + r * y_channel, sum);
    }
  }
}

// The same with any activation; out of line, by way of memory.
template <class V, class N, int R, int Q>
__attribute__((noinline)) void finish_row_activated(const ConvArgs& a, int row, const typename N::Sum (&acc)[R][Q], float* const* y,
                                                    const float* const* residual) {
  for (int r = 0; r < R && row * R + r < a.filters; ++r)
    for (int q = 0; q < Q; ++q) {
      typename V::Reg sum = N::result(a, row * R + r, acc[r][q]);
      if (a.residual.base) {
        const float* from = residual[q] + r * a.residual.channel;
        sum = V::add(sum, a.residual.tiled ? N::load_value(a.residual, from) : V::load(from));
      }
      sum = activate<V>(a.act, V::set1(a.alpha), V::set1(a.beta), sum);
      if (a.y.tiled) N::store_value(a.y, y[q] + r * a.y.channel, sum);
      else V::store(y[q] + r * a.y.channel, sum);
    }
}

// Q vectors of one block row: x[q], the maps.
template <class V, class N, int R, int Q>
inline __attribute__((always_inline)) void block_product(const ConvArgs& a, int row, uint32_t begin, uint32_t end, bool first, bool last,
                                                         const float* const* x, float* const* y, const float* const* residual) {
  typename N::Sum acc[R][Q];
  const int64_t y_channel = a.y.channel;
  if (first) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int q = 0; q < Q; ++q) acc[r][q] = N::zero();
  } else {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int q = 0; q < Q; ++q) acc[r][q] = N::load_sum(y[q] + (r < a.filters - row * R ? r : 0) * y_channel);
  }
  const typename N::Value* value = static_cast<const typename N::Value*>(a.values) + (int64_t)begin * R;
  const uint32_t *column = a.columns + (int64_t)begin * N::columns, *const stop = a.columns + (int64_t)end * N::columns;
  for (; column != stop; column += N::columns, value += R) {
    typename V::Reg maps[Q];
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q) maps[q] = N::gather(x[q], column);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int q = 0; q < Q; ++q) acc[r][q] = N::madd(value[r], maps[q], acc[r][q]);
  }
  if (!last) {
    const int filters = a.filters - row * R;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      if (r >= filters) break;
#pragma GCC unroll 8
      for (int q = 0; q < Q; ++q) N::store_sum(y[q] + r * y_channel, acc[r][q]);
    }
  } else if (a.act > Act::relu) {
    typename N::Sum sums[R][Q];  // a copy, so that the sums themselves stay in registers
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int q = 0; q < Q; ++q) sums[r][q] = acc[r][q];
    finish_row_activated<V, N, R, Q>(a, row, sums, y, residual);
  } else if (a.residual.base) {
    finish_row<V, N, R, Q, true>(a, row, acc, y, residual);
  } else {
    finish_row<V, N, R, Q, false>(a, row, acc, y, residual);
  }
}

// Vectors that one block product holds in registers: R x Q accumulators, Q maps and a value must fit.
template <class V, int R> constexpr int vectors_at_once() { return V::registers / (R + 1) > 0 ? V::registers / (R + 1) : 1; }

// All block rows begin..end-1 of one chunk for T groups of pixels; x[v]: the maps of vector v.
template <class V, class N, int R, int T>
void product_rows(const ConvArgs& a, int chunk, int64_t group, int begin, int end, const float* const* x) {
  constexpr int per = kLanes / V::lanes, vectors = T * per, most = vectors_at_once<V, R>();
  constexpr int Q = vectors <= most ? vectors : per;
  const uint32_t *from = a.bounds + (int64_t)chunk * a.bounds_step, *to = from + a.bounds_step;
  const bool first = chunk == 0, last = chunk + 1 == a.chunk_count;
  for (int row = begin; row < end; ++row)
    for (int v = 0; v < vectors; v += Q) {
      float* y[Q];
      const float* residual[Q];
      for (int q = 0; q < Q; ++q) {
        const int64_t lane = (v + q) % per * V::lanes;
        y[q] = a.y.at(row * R, group + (v + q) / per) + lane;
        residual[q] = a.residual.base ? a.residual.at(row * R, group + (v + q) / per) + lane : nullptr;
      }
      block_product<V, N, R, Q>(a, row, from[row], to[row], first, last, x + v, y, residual);
    }
}

template <class V, class N, int R, int T> void conv_tile(const ConvArgs& a, int64_t group, int begin, int end, float* scratch) {
  constexpr int per = kLanes / V::lanes, vectors = T * per;
  const float* x[vectors];
  float* maps = scratch + (int64_t)T * (a.window.rows * a.window.cols + 1) * kLanes;
  if (a.source != Source::planar) {
    const bool in_place = N::in_place || a.source == Source::maps;
    if (!in_place) copy_tiled<V, N, vectors>(a, group, maps);
    for (int v = 0; v < vectors; ++v) x[v] = in_place ? a.x.at(0, group + v / per) + v % per * V::lanes : map_rows<V, N>(a, maps, v);
    return product_rows<V, N, R, T>(a, 0, group, begin, end, x);
  }
  const Taps<V, vectors> taps(a.window, group * kLanes, reinterpret_cast<typename V::Mask*>(scratch));
  for (int k = 0; k < a.chunk_count; ++k) {
    basis_step<V, N, vectors>(a, a.chunks[k], taps, maps);
    for (int v = 0; v < vectors; ++v) x[v] = map_rows<V, N>(a, maps, v) - (int64_t)a.chunks[k].first_map * N::floats;
    product_rows<V, N, R, T>(a, k, group, begin, end, x);
  }
}
