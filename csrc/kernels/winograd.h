// winograd: 3x3 convolutions at stride 1 by tiles of 4x4 output pixels, F(4x4, 3x3) (Winograd 1980; Lavin and Gray 2016, arXiv:1509.09308):
//
//   y = A^T [ sum_c (G w_c G^T) o (B^T d_c B) ] A     d: the 6x6 source pixels under a tile; o: place by place
//
// 36 multiplications for 16 pixels, where taps one by one take 144. Lanes are tiles, in rows of tiles, field after field, image after image.
// B and A come from the points 0, 3/4, -3/4, 3/2, -3/2 and infinity: with them the error is about twice that of a plain sum, with 0, 1, -1,
// 2, -2 five times (cosparse/kernels/winograd.py has the derivation). G w G^T is made when the weights are packed.
//
// A block of groups of kLanes tiles goes through three stages in a thread's scratch: places of the source [36][channels][tiles], products
// [36][filters][tiles], pixels. Included inside a per-ISA namespace, after act.h and winograd_pixels.h.

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

// The columns 4 l + j under tile l, j = 0..5, of source row i; v: its pixels, w: those four columns further right.
template <class V>
inline void columns_of_tiles(const typename V::Reg (&v)[4], const typename V::Reg (&w)[4], typename V::Reg (&d)[kSide]) {
  const typename V::Reg e0 = V::even(v[0], v[1]), e1 = V::even(v[2], v[3]), o0 = V::odd(v[0], v[1]), o1 = V::odd(v[2], v[3]);
  d[0] = V::even(e0, e1), d[2] = V::odd(e0, e1), d[1] = V::even(o0, o1), d[3] = V::odd(o0, o1);
  d[4] = V::even(V::even(w[0], w[1]), V::even(w[2], w[3])), d[5] = V::even(V::odd(w[0], w[1]), V::odd(w[2], w[3]));
}

// How lanes of two vectors become one: those of a and b in turn, from their first and from their second half.
template <class V> struct TurnLanes {
  alignas(64) int low[V::lanes], high[V::lanes];
  constexpr TurnLanes() : low(), high() {
    for (int l = 0; l < V::lanes; ++l) low[l] = l / 2 + l % 2 * V::lanes, high[l] = low[l] + V::lanes / 2;
  }
};
// A row of pixels out of the tiles' columns.
template <class V> inline void pixels_of_tiles(const typename V::Reg (&y)[kWinogradTile], typename V::Reg (&v)[4]) {
  static constexpr TurnLanes<V> lanes;
  const typename V::Reg e0 = V::of_two(y[0], y[2], lanes.low), e1 = V::of_two(y[0], y[2], lanes.high);
  const typename V::Reg o0 = V::of_two(y[1], y[3], lanes.low), o1 = V::of_two(y[1], y[3], lanes.high);
  v[0] = V::of_two(e0, o0, lanes.low), v[1] = V::of_two(e0, o0, lanes.high);
  v[2] = V::of_two(e1, o1, lanes.low), v[3] = V::of_two(e1, o1, lanes.high);
}

// Row i under the tiles of a vector: its pixels, and those four columns further right.
template <class V>
inline __attribute__((always_inline)) void source_row(const typename TilePixels<V>::Source* from, const typename TilePixels<V>::Source* end,
                                                      const float* row, int i, typename V::Reg& v, typename V::Reg& w) {
  v = V::mask_load(V::mask(from->there[i][0]), row + from->offset);
  w = V::mask_load(V::mask(from->there[i][1]), row + from->offset + kWinogradTile);
  for (++from; __builtin_expect(from != end, 0); ++from) {
    const float* const x = row + from->offset;
    v = V::mask_load(V::mask(from->there[i][0]), x, v), w = V::mask_load(V::mask(from->there[i][1]), x + kWinogradTile, w);
  }
}
// The same of a dilated layer.
template <class V>
__attribute__((noinline)) void source_field(const typename TilePixels<V>::Source* from, const typename TilePixels<V>::Source* end,
                                            const float* row, int step, int i, typename V::Reg& v, typename V::Reg& w) {
  alignas(64) float pixel[2][V::lanes] = {};
  for (; from != end; ++from)
    for (int far : {0, 1})
      for (uint32_t left = from->there[i][far]; left; left &= left - 1) {
        const int l = __builtin_ctz(left);
        pixel[far][l] = row[from->offset + (int64_t)(l + far * kWinogradTile) * step];
      }
  v = V::load(pixel[0]), w = V::load(pixel[1]);
}

// B^T d B of every channel: places[p * step + c * tiles + lane].
template <class V, bool kDilated>
void winograd_source(const WinogradArgs& a, const TilePixels<V>& pixels, int tiles, float* places, int64_t step) {
  const int64_t down = (int64_t)a.dilation[0] * a.wi;
  for (int c = 0; c < a.channels; ++c) {
    const float* const channel = a.x.at(c, 0);
    for (int lane = 0; lane < tiles; lane += V::lanes) {
      alignas(64) float half[kPlaces * V::lanes];
      float* const to = places + (int64_t)c * tiles + lane;
      const int* const source = pixels.source + lane / TilePixels<V>::tiles;
      typename V::Reg d[kSide], t[kSide];
      for (int i = 0; i < kSide; ++i) {
        typename V::Reg v[4], w[4];
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) {
          const auto *from = pixels.sources + source[k], *end = pixels.sources + source[k + 1];
          if constexpr (kDilated)
            source_field<V>(from, end, channel + i * down, a.dilation[1], i, v[k], w[k]);
          else
            source_row<V>(from, end, channel + i * down, i, v[k], w[k]);
        }
        columns_of_tiles<V>(v, w, d);
        winograd_source_line<V>(d, t);
#pragma GCC unroll 6
        for (int j = 0; j < kSide; ++j) V::store(half + (i * kSide + j) * V::lanes, t[j]);
      }
      for (int j = 0; j < kSide; ++j) {
#pragma GCC unroll 6
        for (int i = 0; i < kSide; ++i) d[i] = V::load(half + (i * kSide + j) * V::lanes);
        winograd_source_line<V>(d, t);
#pragma GCC unroll 6
        for (int i = 0; i < kSide; ++i) V::store(to + (i * kSide + j) * step, t[i]);
      }
    }
  }
}

// Sums over the channels for R filters and Q vectors of tiles. u: [channels][8], of which the first filters ask for what follows; x, y: the
// vectors' places in the first channel and filter.
template <class V, int R, int Q, bool first>
inline __attribute__((always_inline)) void winograd_sums(int channels, const float* u, const float* x, float* y, int tiles) {
  typename V::Reg acc[R][Q];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q) acc[r][q] = V::zero();
  if constexpr (in_assembly<V, F32<V>, R, Q>()) {
    const float* const vectors[3] = {x, x + V::lanes, x + 2 * V::lanes};
    constexpr int stride = kWinogradRows * (int)sizeof(float);
    product_steps<stride, kApart | (first ? kAskValues : 0)>(acc, u, tiles * (int64_t)sizeof(float), channels, vectors);
  } else {
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
    for (int r = 0; r < kWinogradRows; r += R) {
      float* const to = y + (int64_t)(row * kWinogradRows + r) * tiles;
      r ? winograd_sums<V, R, Q, false>(a.channels, u + r, x, to, tiles) : winograd_sums<V, R, Q, true>(a.channels, u + r, x, to, tiles);
    }
}

template <class V>
void winograd_products(const WinogradArgs& a, int begin, int end, int tiles, const float* places, int64_t x_step, float* products,
                       int64_t y_step) {
  const int64_t all = (a.filters + kWinogradRows - 1) / kWinogradRows;
  for (int p = 0; p < kPlaces; ++p) {
    const float* const u = a.values + (p * all + begin) * a.channels * kWinogradRows;
    const float* x = places + p * x_step;
    float* y = products + p * y_step;
    for (int left = tiles / V::lanes, q; left > 0; left -= q, x += q * V::lanes, y += q * V::lanes) {
      q = left == 4 ? 2 : left < 3 ? left : 3;  // vectors at once; two and two rather than three and one
      (q == 3 ? winograd_rows<V, 3> : q == 2 ? winograd_rows<V, 2> : winograd_rows<V, 1>)(a, u, end - begin, x, y, tiles);
    }
  }
}

// A vector of sums of one filter becomes values.
template <class V, class F>
inline __attribute__((always_inline)) void put_row(float* y, const float* residual, typename V::Reg sums,
                                                   const typename TilePixels<V>::Target* to, const typename TilePixels<V>::Target* end,
                                                   F activated) {
  for (; to != end; ++to) {
    const typename V::Mask lanes = V::mask(to->lanes);
    V::mask_store(y + to->to, lanes, activated(residual ? V::add(sums, V::mask_load(lanes, residual + to->residual)) : sums));
  }
}
// The same of a dilated layer.
template <class V, class F>
__attribute__((noinline)) void put_field(const WinogradArgs& a, float* y, const float* residual, typename V::Reg sums,
                                         const typename TilePixels<V>::Target* to, const typename TilePixels<V>::Target* end, F activated) {
  const auto place = [](const auto& rows, int64_t pixel) { return pixel / kLanes * rows.group + pixel % kLanes; };
  alignas(64) float value[V::lanes], plus[V::lanes] = {};
  const auto each = [&](auto use) {
    for (const auto* piece = to; piece != end; ++piece)
      for (uint32_t left = piece->lanes; left; left &= left - 1)
        use(__builtin_ctz(left), piece->to + (int64_t)__builtin_ctz(left) * a.dilation[1]);
  };
  if (residual) each([&](int l, int64_t pixel) { plus[l] = residual[place(a.residual, pixel)]; });
  V::store(value, activated(V::add(sums, V::load(plus))));
  each([&](int l, int64_t pixel) { y[place(a.y, pixel)] = value[l]; });
}

// A^T m A of every filter of the block rows, and what follows.
template <class V, bool kDilated, class F>
void winograd_result(const WinogradArgs& a, const TilePixels<V>& pixels, int begin, int end, int tiles, const float* products, int64_t step,
                     F activated) {
  for (int filter = begin * kWinogradRows; filter < end * kWinogradRows && filter < a.filters; ++filter) {
    const typename V::Reg bias = V::set1(a.bias[filter]);
    float* const values = a.y.at(filter, 0);
    const float* const residual = a.residual.base ? a.residual.at(filter, 0) : nullptr;
    for (int lane = 0; lane < tiles; lane += V::lanes) {
      const float* const from = products + (int64_t)(filter - begin * kWinogradRows) * tiles + lane;
      alignas(64) float half[kWinogradTile * kSide * V::lanes];
      typename V::Reg m[kSide], y[kWinogradTile], v[4];
      for (int j = 0; j < kSide; ++j) {
#pragma GCC unroll 6
        for (int i = 0; i < kSide; ++i) {
          m[i] = V::load(from + (i * kSide + j) * step);
          __builtin_prefetch(from + (i * kSide + j) * step + tiles);  // of the next filter
        }
        winograd_result_line<V>(m, y);
#pragma GCC unroll 4
        for (int i = 0; i < kWinogradTile; ++i) V::store(half + (i * kSide + j) * V::lanes, y[i]);
      }
      for (int i = 0; i < kWinogradTile; ++i) {
#pragma GCC unroll 6
        for (int j = 0; j < kSide; ++j) m[j] = V::load(half + (i * kSide + j) * V::lanes);
        winograd_result_line<V>(m, y);
        pixels_of_tiles<V>(y, v);
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) {
          const int* const target = pixels.target + (lane / TilePixels<V>::tiles + k) * kWinogradTile + i;
          const auto *to = pixels.targets + target[0], *end = pixels.targets + target[1];
          if constexpr (kDilated)
            put_field<V>(a, values, residual, V::add(v[k], bias), to, end, activated);
          else
            put_row<V>(values, residual, V::add(v[k], bias), to, end, activated);
        }
      }
    }
  }
}

template <class V, bool kDilated>
void winograd_stages(const WinogradArgs& a, int64_t first, int groups, int begin, int end, float* scratch) {
  const int tiles = groups * kLanes;
  const TilePixels<V> pixels(a, first, groups);
  const int64_t x_step = winograd_step(a.channels, groups), y_step = winograd_step((end - begin) * kWinogradRows, groups);
  float *const places = scratch, *const products = places + kPlaces * x_step;
  winograd_source<V, kDilated>(a, pixels, tiles, places, x_step);
  winograd_products<V>(a, begin, end, tiles, places, x_step, products, y_step);
  const auto result = [&](auto activated) { winograd_result<V, kDilated>(a, pixels, begin, end, tiles, products, y_step, activated); };
  using Reg = typename V::Reg;
  const Reg alpha = V::set1(a.alpha), beta = V::set1(a.beta), zero = V::zero();
  if (a.act == Act::none)
    result([](Reg y) { return y; });
  else if (a.act == Act::relu)
    result([=](Reg y) { return V::max(zero, y); });
  else
    result([=](Reg y) { return activate_any<V>(a.act, alpha, beta, y); });
}

template <class V> void winograd_block(const WinogradArgs& a, int64_t first, int groups, int begin, int end, float* scratch) {
  (a.dilation[1] > 1 ? winograd_stages<V, true> : winograd_stages<V, false>)(a, first, groups, begin, end, scratch);
}
