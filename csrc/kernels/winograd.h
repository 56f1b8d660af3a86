// winograd: 3x3 convolutions at stride 1 by tiles of 4x4 output pixels, F(4x4, 3x3) (Winograd 1980; Lavin and Gray 2016, arXiv:1509.09308):
//
//   y = A^T [ sum_c (G w_c G^T) o (B^T d_c B) ] A     d: the 6x6 source pixels under a tile; o: place by place
//
// 36 multiplications for 16 pixels, where taps one by one take 144. Lanes are tiles, in rows of tiles, field after field, image after image. B and A come from
// the points 0, 3/4, -3/4, 3/2, -3/2 and infinity: with them the error is about twice that of a plain sum, with 0, 1, -1, 2, -2 five times
// (cosparse/kernels/winograd.py has the derivation). G w G^T is made when the weights are packed.
//
// A block of groups of kLanes tiles goes through three stages in a thread's scratch: places of the source [36][channels][tiles], products
// [36][filters][tiles], rows of pixels. Included inside a per-ISA namespace, after act.h.

constexpr int kSide = 6, kPlaces = kSide * kSide;
static_assert(kPlaces == kWinogradPlaces);
constexpr float kNear2 = 0.5625f, kFar2 = 2.25f;  // squares of the points 3/4 and 3/2

// B^T v and A^T v along one axis.
template <class V> inline void winograd_source_line(const typename V::Reg (&d)[kSide], typename V::Reg (&t)[kSide]) {
  using Reg = typename V::Reg;
  const Reg near2 = V::set1(kNear2), far2 = V::set1(kFar2), both = V::set1(kNear2 + kFar2), product = V::set1(kNear2 * kFar2);
  const Reg near = V::set1(0.75f), far = V::set1(1.5f);
  const Reg even_near = V::fnma(far2, d[2], d[4]), odd_near = V::fnma(far2, d[1], d[3]);
  const Reg even_far = V::fnma(near2, d[2], d[4]), odd_far = V::fnma(near2, d[1], d[3]);
  t[0] = V::fnma(both, d[2], V::fma(product, d[0], d[4]));
  t[1] = V::fma(near, odd_near, even_near), t[2] = V::fnma(near, odd_near, even_near);
  t[3] = V::fma(far, odd_far, even_far), t[4] = V::fnma(far, odd_far, even_far);
  t[5] = V::fnma(both, d[3], V::fma(product, d[1], d[5]));
}
template <class V> inline void winograd_result_line(const typename V::Reg (&m)[kSide], typename V::Reg (&y)[kWinogradTile]) {
  using Reg = typename V::Reg;
  const Reg near2 = V::set1(kNear2), far2 = V::set1(kFar2), near = V::set1(0.75f), far = V::set1(1.5f);
  const Reg near_sum = V::add(m[1], m[2]), far_sum = V::add(m[3], m[4]);
  const Reg near_difference = V::mul(near, V::sub(m[1], m[2])), far_difference = V::mul(far, V::sub(m[3], m[4]));
  y[0] = V::add(m[0], V::add(near_sum, far_sum));
  y[1] = V::add(near_difference, far_difference);
  y[2] = V::fma(near2, near_sum, V::mul(far2, far_sum));
  y[3] = V::add(m[5], V::fma(near2, near_difference, V::mul(far2, far_difference)));
}

// Tiles of one row of a field, side by side in the lanes: at most a vector.
struct TileRun {
  int lane, count;     // lane: of the block
  int y, x;            // the first output pixel, in its image
  int64_t image;
  uint32_t inside[5];  // no dilation: lanes of the source's columns x - left + V::lanes * k that there are
};

template <class V> struct TileBlock {
  static constexpr int most = kWinogradGroups * kLanes;
  int count = 0;
  TileRun runs[most];

  TileBlock(const WinogradArgs& a, int64_t first, int groups) {
    const int64_t fields = a.dilation[0] * a.dilation[1], all = a.images * fields * a.down * a.along;
    const int tiles = (int)(all - first * kLanes < groups * kLanes ? all - first * kLanes : groups * kLanes);
    const int64_t row = first * kLanes / a.along;
    int x = (int)(first * kLanes - row * a.along), y = (int)(row % a.down);
    int64_t field = row / a.down;
    for (int lane = 0, n; lane < tiles; lane += n) {
      n = a.along - x < V::lanes ? a.along - x : V::lanes;
      if (n > tiles - lane) n = tiles - lane;
      TileRun& run = runs[count++];
      const int residue = (int)(field % fields);
      run.lane = lane, run.count = n, run.image = field / fields;
      run.y = y * kWinogradTile * a.dilation[0] + residue / a.dilation[1], run.x = x * kWinogradTile * a.dilation[1] + residue % a.dilation[1];
      for (int k = 0; k < 5; ++k) run.inside[k] = columns(run.x - a.left + k * V::lanes, a.wi);
      if ((x += n) == a.along) {
        x = 0;
        if (++y == a.down) y = 0, ++field;
      }
    }
  }
  static uint32_t columns(int first, int width) {
    const int low = first < 0 ? -first : 0, high = width - first < V::lanes ? width - first : V::lanes;
    return low < high ? (uint32_t)((1ull << high) - (1ull << low)) : 0;
  }
};

// How lanes of two vectors become one.
template <class V> struct TileLanes {
  // low, high: of a and b in turn, from their first and from their second half. next: the lane behind, in the last one lane 0 or 1 of b.
  alignas(64) int low[V::lanes], high[V::lanes], next[2][V::lanes];
  constexpr TileLanes() : low(), high(), next() {
    for (int l = 0; l < V::lanes; ++l) {
      low[l] = l / 2 + l % 2 * V::lanes, high[l] = low[l] + V::lanes / 2;
      for (int j : {0, 1}) next[j][l] = l + 1 < V::lanes ? l + 1 : V::lanes + j;
    }
  }
};

// The columns 4 l + j under tile l of a run, j = 0..5, out of the vectors of a source row that starts where the first tile does.
template <class V> inline void columns_of_tiles(const typename V::Reg (&v)[5], typename V::Reg (&d)[kSide]) {
  static constexpr TileLanes<V> lanes;
  const typename V::Reg e0 = V::even(v[0], v[1]), e1 = V::even(v[2], v[3]), o0 = V::odd(v[0], v[1]), o1 = V::odd(v[2], v[3]);
  d[0] = V::even(e0, e1), d[2] = V::odd(e0, e1), d[1] = V::even(o0, o1), d[3] = V::odd(o0, o1);
  d[4] = V::of_two(d[0], v[4], lanes.next[0]), d[5] = V::of_two(d[1], v[4], lanes.next[1]);
}
// A row of pixels out of the tiles' columns.
template <class V> inline void pixels_of_tiles(const typename V::Reg (&y)[kWinogradTile], float* to) {
  static constexpr TileLanes<V> lanes;
  const typename V::Reg e0 = V::of_two(y[0], y[2], lanes.low), e1 = V::of_two(y[0], y[2], lanes.high);
  const typename V::Reg o0 = V::of_two(y[1], y[3], lanes.low), o1 = V::of_two(y[1], y[3], lanes.high);
  V::store(to, V::of_two(e0, o0, lanes.low)), V::store(to + V::lanes, V::of_two(e0, o0, lanes.high));
  V::store(to + 2 * V::lanes, V::of_two(e1, o1, lanes.low)), V::store(to + 3 * V::lanes, V::of_two(e1, o1, lanes.high));
}

// A source row under a run's tiles; from: of its first column.
template <class V>
inline void row_of_tiles(const WinogradArgs& a, const TileRun& run, const float* from, typename V::Reg (&v)[5]) {
  const int step = a.dilation[1];
  if (step == 1) {
#pragma GCC unroll 5
    for (int k = 0; k < 5; ++k) v[k] = V::mask_load(V::mask(run.inside[k]), from + k * V::lanes, V::zero());
    return;
  }
  alignas(64) float row[5 * V::lanes] = {};
  const int first = run.x - a.left, columns = (run.count + 1) * kWinogradTile;
  for (int m = first < 0 ? (-first + step - 1) / step : 0; m < columns && first + m * step < a.wi; ++m) row[m] = from[m * step];
#pragma GCC unroll 5
  for (int k = 0; k < 5; ++k) v[k] = V::load(row + k * V::lanes);
}

// B^T d B of every channel: places[p * step + c * tiles + lane]. under: [36][tiles + kLanes], the source pixels of one channel.
template <class V>
void winograd_source(const WinogradArgs& a, const TileBlock<V>& block, int tiles, float* under, float* places, int64_t step) {
  const int64_t row = tiles + kLanes;
  for (int c = 0; c < a.channels; ++c) {
    const float* const plane = a.x.at(c, 0);
    for (int r = 0; r < block.count; ++r) {  // what a run stores behind its last tile, the next one overwrites
      const TileRun& run = block.runs[r];
      float* to = under + run.lane;
      for (int i = 0; i < kSide; ++i, to += kSide * row) {
        typename V::Reg v[5], d[kSide];
        const int y = run.y - a.top + i * a.dilation[0];
        if (y >= 0 && y < a.hi)
          row_of_tiles<V>(a, run, plane + (run.image * a.hi + y) * a.wi + run.x - a.left, v);
        else
          for (int k = 0; k < 5; ++k) v[k] = V::zero();
        columns_of_tiles<V>(v, d);
#pragma GCC unroll 6
        for (int j = 0; j < kSide; ++j) V::storeu(to + j * row, d[j]);
      }
    }
    for (int lane = 0; lane < tiles; lane += V::lanes) {
      alignas(64) float half[kPlaces * V::lanes];
      float* const to = places + (int64_t)c * tiles + lane;
      typename V::Reg d[kSide], t[kSide];
      for (int j = 0; j < kSide; ++j) {
#pragma GCC unroll 6
        for (int i = 0; i < kSide; ++i) d[i] = V::loadu(under + (i * kSide + j) * row + lane);
        winograd_source_line<V>(d, t);
#pragma GCC unroll 6
        for (int i = 0; i < kSide; ++i) V::store(half + (i * kSide + j) * V::lanes, t[i]);
      }
      for (int i = 0; i < kSide; ++i) {
#pragma GCC unroll 6
        for (int j = 0; j < kSide; ++j) d[j] = V::load(half + (i * kSide + j) * V::lanes);
        winograd_source_line<V>(d, t);
#pragma GCC unroll 6
        for (int j = 0; j < kSide; ++j) V::store(to + (i * kSide + j) * step, t[j]);
      }
    }
  }
}

// Sums over the channels for R filters and Q vectors of tiles. u: [channels][8]; x, y: the vectors' places in the first channel and filter.
template <class V, int R, int Q>
inline __attribute__((always_inline)) void winograd_sums(int channels, const float* u, const float* x, float* y, int tiles) {
  typename V::Reg acc[R][Q];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q) acc[r][q] = V::zero();
  for (int c = 0; c < channels; ++c, u += kWinogradRows, x += tiles) {
    __builtin_prefetch(u + 64 * kWinogradRows);  // weights come from a last-level cache or from memory
    typename V::Reg d[Q];
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q) d[q] = V::load(x + q * V::lanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int q = 0; q < Q; ++q) acc[r][q] = V::fma(V::set1(u[r]), d[q], acc[r][q]);
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q) V::store(y + r * tiles + q * V::lanes, acc[r][q]);
}

// Block rows begin..end-1 of one place, for Q vectors.
template <class V, int Q> void winograd_rows(const WinogradArgs& a, const float* u, int rows, const float* x, float* y, int tiles) {
  constexpr int R = V::registers >= 32 ? kWinogradRows : kWinogradRows / 2;
  for (int row = 0; row < rows; ++row, u += (int64_t)a.channels * kWinogradRows)
    for (int r = 0; r < kWinogradRows; r += R) winograd_sums<V, R, Q>(a.channels, u + r, x, y + (int64_t)(row * kWinogradRows + r) * tiles, tiles);
}

template <class V>
void winograd_products(const WinogradArgs& a, int begin, int end, int tiles, const float* places, int64_t x_step, float* products,
                       int64_t y_step) {
  constexpr int per = kLanes / V::lanes, most = V::registers >= 32 ? 3 : 1;  // groups at once
  const int64_t all = (a.filters + kWinogradRows - 1) / kWinogradRows;
  for (int p = 0; p < kPlaces; ++p) {
    const float* const u = a.values + (p * all + begin) * a.channels * kWinogradRows;
    const float* x = places + p * x_step;
    float* y = products + p * y_step;
    for (int left = tiles / kLanes, t; left > 0; left -= t, x += t * kLanes, y += t * kLanes) {
      t = left == 4 ? 2 : left;  // two and two rather than three and one
      if (most == 3 && t >= 3)
        t = 3, winograd_rows<V, most * per>(a, u, end - begin, x, y, tiles);
      else if (most == 3 && t == 2)
        winograd_rows<V, (most == 3 ? 2 : 1) * per>(a, u, end - begin, x, y, tiles);
      else
        t = 1, winograd_rows<V, per>(a, u, end - begin, x, y, tiles);
    }
  }
}

// A row of pixels of one filter becomes values: n sums from pixel `at` of the plane on.
template <class V, class F>
inline void winograd_values(const WinogradArgs& a, int filter, const float* sums, int64_t at, int n, F activated) {
  const typename V::Reg bias = V::set1(a.bias[filter]);
  for (int m; n > 0; n -= m, sums += m, at += m) {
    const int lane = (int)(at % kLanes), room = V::lanes - lane % V::lanes;
    m = n < room ? n : room;
    const typename V::Mask mask = V::mask((uint32_t)((1ull << m) - 1));
    const int64_t group = at / kLanes;
    typename V::Reg y = V::add(V::loadu(sums), bias);
    if (a.residual.base) y = V::add(y, V::mask_load(mask, a.residual.at(filter, group) + lane, V::zero()));
    V::mask_store(a.y.at(filter, group) + lane, mask, activated(y));
  }
}

// The same where pixels lie `step` apart.
template <class V, class F>
void winograd_fields(const WinogradArgs& a, int filter, const float* sums, int64_t at, int n, int step, F activated) {
  const typename V::Reg bias = V::set1(a.bias[filter]);
  for (int m; n > 0; n -= m, sums += m) {
    m = n < V::lanes ? n : V::lanes;
    alignas(64) float value[V::lanes];
    typename V::Reg y = V::add(V::loadu(sums), bias);
    if (a.residual.base) {
      for (int l = 0; l < V::lanes; ++l) value[l] = l < m ? a.residual.at(filter, (at + l * step) / kLanes)[(at + l * step) % kLanes] : 0.f;
      y = V::add(y, V::load(value));
    }
    V::store(value, activated(y));
    for (int l = 0; l < m; ++l, at += step) a.y.at(filter, at / kLanes)[at % kLanes] = value[l];
  }
}

// A^T m A of every filter of the block rows, and what follows. pixels: [4][4 tiles + kLanes].
template <class V, class F>
void winograd_result(const WinogradArgs& a, const TileBlock<V>& block, int begin, int end, int tiles, const float* products, int64_t step,
                     float* pixels, F activated) {
  const int64_t row = kWinogradTile * tiles + kLanes;
  for (int filter = begin * kWinogradRows; filter < end * kWinogradRows && filter < a.filters; ++filter) {
    for (int lane = 0; lane < tiles; lane += V::lanes) {
      const float* const from = products + (int64_t)(filter - begin * kWinogradRows) * tiles + lane;
      alignas(64) float half[kWinogradTile * kSide * V::lanes];
      typename V::Reg m[kSide], y[kWinogradTile];
      for (int j = 0; j < kSide; ++j) {
#pragma GCC unroll 6
        for (int i = 0; i < kSide; ++i) m[i] = V::load(from + (i * kSide + j) * step);
        winograd_result_line<V>(m, y);
#pragma GCC unroll 4
        for (int i = 0; i < kWinogradTile; ++i) V::store(half + (i * kSide + j) * V::lanes, y[i]);
      }
      for (int i = 0; i < kWinogradTile; ++i) {
#pragma GCC unroll 6
        for (int j = 0; j < kSide; ++j) m[j] = V::load(half + (i * kSide + j) * V::lanes);
        winograd_result_line<V>(m, y);
        pixels_of_tiles<V>(y, pixels + i * row + lane * kWinogradTile);
      }
    }
    for (int r = 0; r < block.count; ++r) {
      const TileRun& run = block.runs[r];
      const int step = a.dilation[1], there = (a.wo - run.x + step - 1) / step;
      const int n = there < run.count * kWinogradTile ? there : run.count * kWinogradTile;
      for (int i = 0, y = run.y; i < kWinogradTile && y < a.ho; ++i, y += a.dilation[0]) {
        const float* const sums = pixels + i * row + run.lane * kWinogradTile;
        const int64_t at = (run.image * a.ho + y) * a.wo + run.x;
        if (step == 1)
          winograd_values<V>(a, filter, sums, at, n, activated);
        else
          winograd_fields<V>(a, filter, sums, at, n, step, activated);
      }
    }
  }
}

template <class V> void winograd_block(const WinogradArgs& a, int64_t first, int groups, int begin, int end, float* scratch) {
  const int tiles = groups * kLanes;
  const TileBlock<V> block(a, first, groups);
  const int64_t x_step = winograd_step(a.channels, groups), y_step = winograd_step((end - begin) * kWinogradRows, groups);
  float *const places = scratch, *const products = places + kPlaces * x_step, *const rest = products + kPlaces * y_step;
  winograd_source<V>(a, block, tiles, rest, places, x_step);
  winograd_products<V>(a, begin, end, tiles, places, x_step, products, y_step);
  const auto result = [&](auto activated) {
    winograd_result<V>(a, block, begin, end, tiles, products, y_step, rest, activated);
  };
  using Reg = typename V::Reg;
  const Reg alpha = V::set1(a.alpha), beta = V::set1(a.beta), zero = V::zero();
  if (a.act == Act::none)
    result([](Reg y) { return y; });
  else if (a.act == Act::relu)
    result([=](Reg y) { return V::max(zero, y); });
  else
    result([=](Reg y) { return activate_any<V>(a.act, alpha, beta, y); });
}
