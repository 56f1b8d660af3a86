// conv: basis step and block product of one tile of T vectors of output pixels (contract: ConvArgs in kernel.h).
//
//   1. basis step: for each source channel that some filter uses, its maps go into the scratch, [maps][T * lanes], so that
//   2. block product: every block row reads its columns from there, r x T accumulators in registers, one index load a block.
// Included inside a per-ISA namespace, after taps.h and act.h.

// Three taps by the 3-point DCT without its scales, which are folded into the values: (1,1,1), (1,0,-1), (1,-2,1).
template <class V> struct Dct3 {
  typename V::Reg even, odd, bend;
  Dct3(typename V::Reg a, typename V::Reg b, typename V::Reg c) {
    const typename V::Reg ends = V::add(a, c);
    even = V::add(ends, b), odd = V::sub(a, c), bend = V::fnma(V::set1(2.f), b, ends);
  }
};

// Everything that the loop over channels needs is copied to locals first: a vector store may alias any memory, and would make the compiler
// load it anew.
template <class V, int T, bool plain> void basis_step_dct3(const ConvArgs& a, const Taps<V, T>& taps, float* scratch) {
  using Reg = typename V::Reg;
  int64_t start[T], offset[9];
  typename V::Mask mask[T][9];
  for (int i = 0; i < 9; ++i) offset[i] = taps.offset(i);
  for (int t = 0; t < T; ++t) {
    start[t] = taps.start(t);
    if (plain)
      for (int i = 0; i < 9; ++i) mask[t][i] = taps.mask(t, i);
  }
  const UsedChannel* const used = a.used;
  const int used_count = a.used_count;
  const float* const source = a.x;
  const int64_t x_channel = a.x_channel;
  for (int i = 0; i < used_count; ++i) {
    const UsedChannel u = used[i];
    const float* x = source + u.channel * x_channel;
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      const auto tap = [&](int k) {
        return plain ? V::mask_load(mask[t][k], x + start[t] + offset[k], V::zero()) : taps.load(x, t, k, V::zero());
      };
      const Dct3<V> top(tap(0), tap(1), tap(2)), middle(tap(3), tap(4), tap(5)), bottom(tap(6), tap(7), tap(8));
      const Dct3<V> even(top.even, middle.even, bottom.even), odd(top.odd, middle.odd, bottom.odd),
          bend(top.bend, middle.bend, bottom.bend);
      float* out = scratch + ((int64_t)u.row * T + t) * V::lanes;
      const auto put = [&](int map, Reg value) {  // which maps are used repeats from tile to tile, so the branches are foreseen
        if (u.wanted >> map & 1) V::store(out, value), out += T * V::lanes;
      };
      put(0, even.even), put(1, odd.even), put(2, bend.even);
      put(3, even.odd), put(4, odd.odd), put(5, bend.odd);
      put(6, even.bend), put(7, odd.bend), put(8, bend.bend);
    }
  }
}

// Any R x S: columns first, then rows, by the orthonormal matrices.
template <class V, int T> void basis_step_dct(const ConvArgs& a, const Taps<V, T>& taps, float* scratch) {
  using Reg = typename V::Reg;
  const int R = a.window.rows, S = a.window.cols;
  Reg tap[kMaxDct], h[kMaxDct * kMaxDct];
  for (int i = 0; i < a.used_count; ++i) {
    const UsedChannel& u = a.used[i];
    const float* x = a.x + u.channel * a.x_channel;
    for (int t = 0; t < T; ++t) {
      for (int r = 0; r < R; ++r) {
        for (int s = 0; s < S; ++s) tap[s] = taps.load(x, t, r * S + s, V::zero());
        for (int v = 0; v < S; ++v) {
          Reg sum = V::mul(V::set1(a.basis_cols[v * S]), tap[0]);
          for (int s = 1; s < S; ++s) sum = V::fma(V::set1(a.basis_cols[v * S + s]), tap[s], sum);
          h[r * S + v] = sum;
        }
      }
      float* out = scratch + ((int64_t)u.row * T + t) * V::lanes;
      for (int m = u.begin; m < u.end; ++m, out += T * V::lanes) {
        const int row = a.taps[m] / S, v = a.taps[m] % S;
        Reg sum = V::mul(V::set1(a.basis_rows[row * R]), h[v]);
        for (int r = 1; r < R; ++r) sum = V::fma(V::set1(a.basis_rows[row * R + r]), h[r * S + v], sum);
        V::store(out, sum);
      }
    }
  }
}

template <class V, int T, bool plain> void basis_step_taps(const ConvArgs& a, const Taps<V, T>& taps, float* scratch) {
  const UsedChannel* const used = a.used;
  const int used_count = a.used_count;
  const float* const source = a.x;
  const int64_t x_channel = a.x_channel;
  const uint16_t* const numbers = a.taps;
  int64_t start[T];
  for (int t = 0; t < T; ++t) start[t] = taps.start(t);
  for (int i = 0; i < used_count; ++i) {
    const UsedChannel u = used[i];
    const float* x = source + u.channel * x_channel;
    float* out = scratch + (int64_t)u.row * T * V::lanes;
    for (int m = u.begin; m < u.end; ++m, out += T * V::lanes) {
      const int tap = numbers[m];
      const float* p = x + taps.offset(tap);
      for (int t = 0; t < T; ++t)
        V::store(out + t * V::lanes, plain ? V::mask_load(taps.mask(t, tap), p + start[t], V::zero()) : taps.load(x, t, tap, V::zero()));
    }
  }
}

template <class V, int T> void basis_step(const ConvArgs& a, int64_t first, float* maps, float* masks) {
  const Taps<V, T> taps(a.window, first, reinterpret_cast<typename V::Mask*>(masks));
  if (a.basis == Basis::dct3)
    return taps.plain() ? basis_step_dct3<V, T, true>(a, taps, maps) : basis_step_dct3<V, T, false>(a, taps, maps);
  if (a.basis == Basis::dct) return basis_step_dct<V, T>(a, taps, maps);
  taps.plain() ? basis_step_taps<V, T, true>(a, taps, maps) : basis_step_taps<V, T, false>(a, taps, maps);
}

template <class V, int R, int T> void block_product(const ConvArgs& a, int row, const float* maps, int64_t first) {
  using Reg = typename V::Reg;
  Reg acc[R][T];
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) acc[r][t] = V::set1(a.bias[row * R + r]);
  const float* value = a.values + (int64_t)a.rows[row] * R;
  const uint32_t* const end = a.columns + a.rows[row + 1];
  for (const uint32_t* column = a.columns + a.rows[row]; column != end; ++column, value += R) {
    const float* x = maps + (int64_t)*column * (T * V::lanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Reg w = V::set1(value[r]);
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) acc[r][t] = V::fma(w, V::load(x + t * V::lanes), acc[r][t]);
    }
  }
  const int filters = a.filters - row * R < R ? a.filters - row * R : R;  // the last block row may be partial
  for (int r = 0; r < R; ++r) {
    if (r >= filters) break;
    float* y = a.y + (int64_t)(row * R + r) * a.y_plane + first;
    for (int t = 0; t < T; ++t) {
      Reg sum = acc[r][t];
      if (a.residual) sum = V::add(sum, V::load(a.residual + (int64_t)(row * R + r) * a.residual_plane + first + t * V::lanes));
      V::store(y + t * V::lanes, a.act == Act::relu ? V::max(V::zero(), sum) : sum);
    }
    if (a.act > Act::relu) activation_row<V>(a.act, a.alpha, a.beta, y, y, T * V::lanes);
  }
}

template <class V, int R, int T> void conv_tile(const ConvArgs& a, int64_t first, int begin, int end, float* scratch) {
  float* maps = scratch + (int64_t)T * (a.window.rows * a.window.cols + 1) * V::lanes;
  basis_step<V, T>(a, first, maps, scratch);
  for (int row = begin; row < end; ++row) block_product<V, R, T>(a, row, maps, first);
}

// Few pixels (fully connected layers, last planes at batch 1): the 8 filters of a block side by side, P pixels. Sums in kChains chains, so
// that a single pixel does not wait for its own last addition.
template <class V, class V8, int P> void lane_product(const ConvArgs& a, int row, const float* maps, int64_t first) {
  using Reg = typename V8::Reg;
  constexpr int kChains = P == 1 ? 4 : P == 2 ? 2 : 1;
  Reg acc[kChains][P];
  for (int k = 0; k < kChains; ++k)
    for (int p = 0; p < P; ++p) acc[k][p] = V8::zero();
  const uint32_t begin = a.rows[row], end = a.rows[row + 1];
  uint32_t b = begin;
  for (; b + kChains <= end; b += kChains)
#pragma GCC unroll 4
    for (int k = 0; k < kChains; ++k) {
      const Reg w = V8::load(a.values + (int64_t)(b + k) * 8);
      const float* x = maps + (int64_t)a.columns[b + k] * V::lanes;
      for (int p = 0; p < P; ++p) acc[k][p] = V8::fma(w, V8::set1(x[p]), acc[k][p]);
    }
  for (; b < end; ++b) {
    const Reg w = V8::load(a.values + (int64_t)b * 8);
    const float* x = maps + (int64_t)a.columns[b] * V::lanes;
    for (int p = 0; p < P; ++p) acc[0][p] = V8::fma(w, V8::set1(x[p]), acc[0][p]);
  }
  const int filters = a.filters - row * 8 < 8 ? a.filters - row * 8 : 8;
  alignas(64) float out[8];
  for (int p = 0; p < P; ++p) {
    Reg sum = V8::load(a.bias + row * 8);
    for (int k = 0; k < kChains; ++k) sum = V8::add(sum, acc[k][p]);
    V8::store(out, sum);
    if (a.residual)
      for (int r = 0; r < filters; ++r) out[r] += a.residual[(int64_t)(row * 8 + r) * a.residual_plane + first + p];
    activation_row<V8>(a.act, a.alpha, a.beta, out, out, 8);
    for (int r = 0; r < filters; ++r) a.y[(int64_t)(row * 8 + r) * a.y_plane + first + p] = out[r];
  }
}

template <class V, class V8> void conv_lanes(const ConvArgs& a, int64_t first, int begin, int end, float* scratch) {
  float* maps = scratch + (int64_t)(a.window.rows * a.window.cols + 1) * V::lanes;
  basis_step<V, 1>(a, first, maps, scratch);
  const int64_t left = a.window.images * a.window.ho * a.window.wo - first;
  for (int row = begin; row < end; ++row) switch (left < kLanePixels ? (int)left : kLanePixels) {
      case 1:
        lane_product<V, V8, 1>(a, row, maps, first);
        break;
      case 2:
        lane_product<V, V8, 2>(a, row, maps, first);
        break;
      case 3:
        lane_product<V, V8, 3>(a, row, maps, first);
        break;
      default:
        lane_product<V, V8, 4>(a, row, maps, first);
        break;
    }
}
