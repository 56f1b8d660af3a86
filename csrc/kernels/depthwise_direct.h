// Depthwise convolution of the common kinds out of the source as it lies, without a band: no dilation, 3x3 and 5x5 at stride 1, 3x3 at stride 2.
// Included inside a per-ISA namespace, after act.h and before depthwise.h.

// The lanes begin..end-1, of which some may lie beyond either end.
template <class V> typename V::Mask depthwise_mask(int begin, int end) {
  const int low = begin > 0 ? begin : 0, high = end < V::lanes ? end : V::lanes;
  return V::mask(low < high ? (uint32_t)((1ull << high) - (1ull << low)) : 0);
}

// What becomes of a sum: no activation, relu or clip, which are a clamp, NaN kept.
template <class V> struct DepthwiseFinish {
  const typename V::Reg low, high;
  explicit DepthwiseFinish(const DepthwiseArgs& a)
      : low(V::set1(a.act == Act::none ? -__builtin_inff() : a.act == Act::relu ? 0.f : a.alpha)),
        high(V::set1(a.act == Act::clip ? a.beta : __builtin_inff())) {}
  typename V::Reg operator()(typename V::Reg v) const { return V::min(high, V::max(low, v)); }
  // With what is added to the lanes of `there`, at `plus` (nullptr: nothing).
  typename V::Reg operator()(typename V::Reg v, const float* plus, typename V::Mask there) const {
    return (*this)(plus ? V::add(v, V::mask_load(there, plus)) : v);
  }
};

// R x R at stride 1, B vectors of columns from ox: down the rows, each source row is loaded once and added to the sums of the R output rows that
// read it. sum[r]: that of the output row whose tap row r comes next.
template <class V, int R, int B>
__attribute__((noinline)) void depthwise_columns(const DepthwiseArgs& a, const float* x, const float* weight, float bias,
                                                 const float* residual, float* y, int begin, int end, int ox) {
  using Reg = typename V::Reg;
  typename V::Mask there[B][R], out[B];
  for (int b = 0; b < B; ++b) {
    const int first = ox + b * V::lanes;
    for (int s = 0; s < R; ++s) there[b][s] = depthwise_mask<V>(a.pad[1] - first - s, a.w + a.pad[1] - first - s);
    out[b] = depthwise_mask<V>(0, a.wo - first);
  }
  const DepthwiseFinish<V> finish(a);
  Reg w[R * R], sum[R][B];
  for (int i = 0; i < R * R; ++i) w[i] = V::set1(weight[i]);
  const Reg start = V::set1(bias);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) sum[r][b] = start;
  const int64_t top = begin - a.pad[0], last = end - a.pad[0] + R - 1;
  for (int64_t row = top; row < last; ++row) {
    if (row >= 0 && row < a.h) {
      const float* const from = x + row * a.w + ox - a.pad[1];
#pragma GCC unroll 8
      for (int b = 0; b < B; ++b)
#pragma GCC unroll 8
        for (int s = 0; s < R; ++s) {
          const Reg v = V::mask_load(there[b][s], from + b * V::lanes + s);
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) sum[r][b] = V::fma(w[r * R + s], v, sum[r][b]);
        }
    }
    if (row - top >= R - 1) {
      const int64_t to = (row + a.pad[0] - R + 1) * a.wo + ox;
#pragma GCC unroll 8
      for (int b = 0; b < B; ++b)
        V::mask_store(y + to + b * V::lanes, out[b], finish(sum[R - 1][b], residual ? residual + to + b * V::lanes : nullptr, out[b]));
    }
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) {
#pragma GCC unroll 8
      for (int r = R - 1; r > 0; --r) sum[r][b] = sum[r - 1][b];
      sum[0][b] = start;
    }
  }
}

template <class V, int R>
void depthwise_down(const DepthwiseArgs& a, const float* x, const float* weight, float bias, const float* residual, float* y, int begin,
                    int end) {
  constexpr int B = R == 3 ? 4 : 2;  // sums that registers hold
  int ox = 0;
  for (; a.wo - ox > (B - 1) * V::lanes; ox += B * V::lanes) depthwise_columns<V, R, B>(a, x, weight, bias, residual, y, begin, end, ox);
  for (; a.wo - ox > V::lanes; ox += 2 * V::lanes) depthwise_columns<V, R, 2>(a, x, weight, bias, residual, y, begin, end, ox);
  if (ox < a.wo) depthwise_columns<V, R, 1>(a, x, weight, bias, residual, y, begin, end, ox);
}

// 3x3 at stride 2, a vector of columns after the other: each tap's lanes are every second float of two vectors.
template <class V>
void depthwise_halving(const DepthwiseArgs& a, const float* x, const float* weight, float bias, const float* residual, float* y, int begin,
                       int end) {
  using Reg = typename V::Reg;
  const DepthwiseFinish<V> finish(a);
  Reg w[9];
  for (int i = 0; i < 9; ++i) w[i] = V::set1(weight[i]);
  for (int ox = 0; ox < a.wo; ox += V::lanes) {
    const int lanes = a.wo - ox < V::lanes ? a.wo - ox : V::lanes;
    const typename V::Mask out = depthwise_mask<V>(0, lanes);
    typename V::Mask there[3][2];  // nothing behind the row's end is read
    for (int s = 0; s < 3; ++s) {
      const int first = 2 * ox + s - a.pad[1], beyond = a.w - first < 2 * lanes - 1 ? a.w - first : 2 * lanes - 1;
      there[s][0] = depthwise_mask<V>(-first, beyond), there[s][1] = depthwise_mask<V>(-first - V::lanes, beyond - V::lanes);
    }
    for (int oy = begin; oy < end; ++oy) {
      Reg sum = V::set1(bias);
#pragma GCC unroll 8
      for (int r = 0; r < 3; ++r) {
        const int64_t row = (int64_t)oy * 2 + r - a.pad[0];
        if (row < 0 || row >= a.h) continue;
        const float* const from = x + row * a.w + 2 * ox - a.pad[1];
#pragma GCC unroll 8
        for (int s = 0; s < 3; ++s) {
          const Reg low = V::mask_load(there[s][0], from + s), high = V::mask_load(there[s][1], from + s + V::lanes);
          sum = V::fma(w[r * 3 + s], V::even(low, high), sum);
        }
      }
      const int64_t to = (int64_t)oy * a.wo + ox;
      V::mask_store(y + to, out, finish(sum, residual ? residual + to : nullptr, out));
    }
  }
}

// Whether it was one of these kinds, and is done.
template <class V>
bool depthwise_direct(const DepthwiseArgs& a, const float* x, const float* weight, float bias, const float* residual, float* y, int begin,
                      int end) {
  if (!V::masks || a.kernel[0] != a.kernel[1] || a.stride[0] != a.stride[1] || a.dilation[0] != 1 || a.dilation[1] != 1) return false;
  const int taps = a.kernel[0];
  if (a.stride[0] == 1 && taps == 3)
    depthwise_down<V, 3>(a, x, weight, bias, residual, y, begin, end);
  else if (a.stride[0] == 1 && taps == 5)
    depthwise_down<V, 5>(a, x, weight, bias, residual, y, begin, end);
  else if (a.stride[0] == 2 && taps == 3 && (V::registers == 32 || a.wo <= 2 * V::lanes))  // bands of wide rows are as fast with fewer registers
    depthwise_halving<V>(a, x, weight, bias, residual, y, begin, end);
  else
    return false;
  return true;
}
