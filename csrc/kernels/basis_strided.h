// The basis step of the 3x3 DCT at a horizontal stride of 2 without dilation: a row's middle and right taps are the even and the odd floats
// from its first middle one on, the left ones the even floats from the one before. Lanes are loaded run by run (Taps), so many floats at
// once as two vectors have. As basis_step_dct3() of conv_basis.h otherwise. Included inside a per-ISA namespace, from there.

inline bool strides_by_two(const ConvArgs& a) {
  return a.basis == Basis::dct3 && a.window.stride_x == 2 && a.window.dx[2] - a.window.dx[0] == 2;
}

// Two vectors of floats from `at` on, those of both masks.
template <class V> struct TwoVectors {
  typename V::Mask low, high;
  TwoVectors() = default;
  // lanes: of the even floats; odd: of those behind them.
  TwoVectors(uint32_t lanes, uint32_t odd) {
    uint32_t bits = 0;
    for (int l = 0; l < V::lanes; ++l) bits |= (lanes >> l & 1) << 2 * l | (odd >> l & 1) << (2 * l + 1);
    low = V::mask(bits & ((1u << V::lanes) - 1)), high = V::mask(bits >> V::lanes);
  }
  void load(const float* at, typename V::Reg (&x)[2]) const {
    x[0] = V::mask_load(low, at, x[0]), x[1] = V::mask_load(high, at + V::lanes, x[1]);
  }
};

template <class V> struct StridedRun {
  int64_t middle[3], left[3];  // where lane 0's taps are, for each row of taps
  TwoVectors<V> both[3], lefts[3];
};

// known: the runs of each vector, or 0.
template <class V, class N, int T, int known>
void basis_step_runs(const ConvArgs& a, const Chunk& chunk, const StridedRun<V> (&runs)[T][V::lanes], int all, float* maps) {
  const int count = known ? known : all;
  float* to[T];
  for (int t = 0; t < T; ++t) to[t] = map_rows<V, N>(a, maps, t) - (int64_t)chunk.first_map * N::floats;
  const UsedChannel* const used = a.used;
  const float* const source = a.x.base;
  const int64_t channel = a.x.channel;
  for (int i = chunk.begin; i < chunk.end; ++i) {
    const UsedChannel u = used[i];
    const float* x = source + u.channel * channel;
    const float* soon = source + used[i + kChannelsAhead < chunk.end ? i + kChannelsAhead : i].channel * channel;
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      __builtin_prefetch(soon + runs[t][0].middle[2]);
      __builtin_prefetch(soon + runs[t][0].middle[2] + V::lanes);
      const auto line = [&](int r) __attribute__((always_inline)) {
        typename V::Reg both[2] = {V::zero(), V::zero()}, left[2] = {V::zero(), V::zero()};
#pragma GCC unroll 2
        for (int k = 0; k < count; ++k) {
          const StridedRun<V>& run = runs[t][k];
          run.both[r].load(x + run.middle[r], both), run.lefts[r].load(x + run.left[r], left);
        }
        return Dct3<V>(V::even(left[0], left[1]), V::even(both[0], both[1]), V::odd(both[0], both[1]));
      };
      store_dct3<V, N>(a, to[t] + (int64_t)u.begin * N::floats, u.wanted, line(0), line(1), line(2));
    }
  }
}

template <class V, class N, int T> void basis_step_strided(const ConvArgs& a, const Chunk& chunk, const Taps<V, T>& taps, float* maps) {
  StridedRun<V> runs[T][V::lanes];
  int count = 1;
  for (int t = 0; t < T; ++t) count = taps.runs(t) > count ? taps.runs(t) : count;
  for (int t = 0; t < T; ++t)
    for (int i = 0; i < count; ++i)
      for (int r = 0; r < 3; ++r) {
        const bool there = i < taps.runs(t);
        const int64_t start = taps.run_start(t, there ? i : 0);
        const auto lanes = [&](int s) { return there ? taps.run_lanes(t, i, r, s) : 0; };
        StridedRun<V>& run = runs[t][i];
        run.middle[r] = start + taps.offset(3 * r + 1), run.left[r] = start + taps.offset(3 * r);
        run.both[r] = TwoVectors<V>(lanes(1), lanes(2)), run.lefts[r] = TwoVectors<V>(lanes(0), 0);
      }
  count == 1   ? basis_step_runs<V, N, T, 1>(a, chunk, runs, count, maps)
  : count == 2 ? basis_step_runs<V, N, T, 2>(a, chunk, runs, count, maps)
               : basis_step_runs<V, N, T, 0>(a, chunk, runs, count, maps);
}
