// conv of a group with few pixels (fully connected layers, the end of a small plane): the 8 filters of a block side by side, P pixels.
// Included inside a per-ISA namespace, after conv_basis.h, picks.h and act.h.

// As kAhead in conv.h, where a row is over sooner.
constexpr int kAheadOfLanes = 256;

// How a number's blocks are multiplied by single pixels; w: 8 filters of one step. For f32 and its emulations; the others: number_*.h.
template <class V8> struct LanesF32 {
  using Vector = V8;
  static constexpr int columns = 1;
  using Sum = typename V8::Reg;
  static Sum zero() { return V8::zero(); }
  static Sum madd(const float* w, const float* x, int p, const uint32_t* column, Sum s) {
    return V8::fma(V8::load(w), V8::set1(x[*column + p]), s);
  }
  static Sum add(Sum a, Sum b) { return V8::add(a, b); }
  static void store(float* p, Sum s) { V8::store(p, s); }
  static Sum load(const float* p) { return V8::load(p); }
  static typename V8::Reg result(const ConvArgs& a, int filter, Sum s) { return V8::add(s, V8::load(a.bias + filter)); }
};

template <class V8> struct LanesStepsF32 : LanesF32<V8> {
  static typename V8::Reg result(const ConvArgs& a, int filter, typename V8::Reg s) {
    return V8::fma(s, V8::load(a.scale + filter), V8::load(a.bias + filter));
  }
};

// The sums of block row `row` at pixel p of a group become values.
template <class V8, class L, class N>
inline __attribute__((always_inline)) void finish_lanes(const ConvArgs& a, int row, int chunk, int64_t group, int p, typename L::Sum sum) {
  const int filters = a.filters - row * 8 < 8 ? a.filters - row * 8 : 8;
  alignas(64) float out[8] = {};
  float* y = a.y.at(row * 8, group);
  if (chunk > 0) {
    for (int r = 0; r < filters; ++r) out[r] = y[r * a.y.channel + p];
    sum = L::add(sum, L::load(out));
  }
  L::store(out, sum);
  const bool last = chunk + 1 == a.chunk_count;
  if (last) {
    V8::store(out, L::result(a, row * 8, sum));
    if (a.residual.base)
      for (int r = 0; r < filters; ++r) {
        const float* from = a.residual.at(row * 8 + r, group);
        out[r] += a.residual.tiled ? N::load_pixel(a.residual, from, p) : from[p];
      }
    V8::store(out, activate_any<V8>(a.act, V8::set1(a.alpha), V8::set1(a.beta), V8::load(out)));
  }
  for (int r = 0; r < filters; ++r)
    if (last && a.y.tiled)
      N::store_pixel(a.y, y + r * a.y.channel, p, out[r]);
    else
      y[r * a.y.channel + p] = out[r];
}

// Whether the columns of steps b..end-1 follow each other, as those of a dense row do: they ascend by kLanes at least (taps read in place never
// come here), and the last step has none twice.
template <class L, class N> bool follow(const uint32_t* columns, uint32_t b, uint32_t end) {
  if (N::narrow || b == end) return false;
  const uint32_t *const first = columns + (int64_t)b * L::columns, *const beyond = columns + (int64_t)end * L::columns;
  return beyond[-1] - *first == (beyond - first - 1) * kLanes && (L::columns == 1 || beyond[-L::columns] != beyond[1 - L::columns]);
}
constexpr uint32_t kFollowing[4] = {0, kLanes, 2 * kLanes, 3 * kLanes};

// Sums in kChains chains, so that a single pixel does not wait for its own last addition. The columns of a dense row are not read: there are
// half as many bytes of them as of int8's values.
template <class V8, class L, class N, int P> void lane_product(const ConvArgs& a, int row, int chunk, int64_t group, const float* x) {
  constexpr int kChains = P == 1 ? 4 : 2;
  typename L::Sum acc[kChains][P];
  for (int k = 0; k < kChains; ++k)
    for (int p = 0; p < P; ++p) acc[k][p] = L::zero();
  const uint32_t begin = a.bounds[(int64_t)chunk * a.bounds_step + row], end = a.bounds[(int64_t)(chunk + 1) * a.bounds_step + row];
  const auto steps = [&](auto dense) __attribute__((always_inline)) {
    constexpr int64_t kStep = L::columns * kLanes;  // from one step's maps to the next one's
    const float* const maps = dense ? N::at(x, a.columns[(int64_t)begin * L::columns] - begin * kStep) : x;
    const auto step = [&](uint32_t b, int k) __attribute__((always_inline)) {
      const float* const values = static_cast<const float*>(a.values) + (int64_t)b * 8;
      __builtin_prefetch(values + kAheadOfLanes * 8);
      for (int p = 0; p < P; ++p)
        acc[k][p] = dense ? L::madd(values, N::at(maps, b * kStep), p, kFollowing, acc[k][p])
                          : L::madd(values, maps, p, a.columns + (int64_t)b * L::columns, acc[k][p]);
    };
    uint32_t b = begin;
    for (; b + kChains <= end; b += kChains)
#pragma GCC unroll 4
      for (int k = 0; k < kChains; ++k) step(b + k, k);
    for (; b < end; ++b) step(b, 0);
  };
  follow<L, N>(a.columns, begin, end) ? steps(std::true_type{}) : steps(std::false_type{});

  for (int p = 0; p < P; ++p) {
    typename L::Sum sum = acc[0][p];
    for (int k = 1; k < kChains; ++k) sum = L::add(sum, acc[k][p]);
    finish_lanes<V8, L, N>(a, row, chunk, group, p, sum);
  }
}

// Block row `row` at the `pixels` of `group`, at most kLanePixels.
template <class V8, class L, class N> void lanes_row(const ConvArgs& a, int row, int chunk, int64_t group, int pixels, const float* x) {
  switch (pixels) {
    case 1:
      return lane_product<V8, L, N, 1>(a, row, chunk, group, x);
    case 2:
      return lane_product<V8, L, N, 2>(a, row, chunk, group, x);
    case 3:
      return lane_product<V8, L, N, 3>(a, row, chunk, group, x);
    default:
      return lane_product<V8, L, N, 4>(a, row, chunk, group, x);
  }
}

inline int pixels_from(const ConvArgs& a, int64_t group) { return (int)(a.window.images * a.window.ho * a.window.wo - group * kLanes); }

// At most kLanePixels pixels of `group` are there. N: the number; L: its product by pixels.
template <class V, class V8, class N, class L> void conv_lanes(const ConvArgs& a, int64_t group, int begin, int end, float* scratch) {
  constexpr int per = kLanes / V::lanes;
  const int pixels = pixels_from(a, group);
  const auto rows = [&](int chunk, const float* x) {
    for (int row = begin; row < end; ++row) lanes_row<V8, L, N>(a, row, chunk, group, pixels, x);
  };
  float* maps = scratch + taps_floats(a.window.rows * a.window.cols, 1);
  if (a.source == Source::picked) {
    float* to[per];
    for (int v = 0; v < per; ++v) to[v] = map_rows<V, N>(a, maps, v);
    pick_maps<V, N, per>(a, group, a.chunks[0].begin, a.chunks[0].end, scratch, to);
    return rows(0, maps);
  }
  if (a.source != Source::planar) {
    const bool in_place = N::in_place || a.source == Source::maps;
    if (!in_place) copy_tiled<V, N, per>(a, group, maps);
    for (int k = 0; k < a.chunk_count; ++k) rows(k, in_place ? a.x.at(0, group) : maps);
    return;
  }
  const Taps<V, per> taps(a.window, group * kLanes, scratch);
  for (int k = 0; k < a.chunk_count; ++k) {
    basis_step<V, N, per>(a, a.chunks[k], taps, maps);
    rows(k, maps - (int64_t)a.chunks[k].first_map * N::floats);
  }
}
