// conv, first half: the basis step. The maps of a chunk of source channels go into the scratch, [groups][maps] rows, in the form that
// the number's product reads. N: number.h. Included inside a per-ISA namespace, after taps.h and number.h.

// Floats of memory of a vector of a row of maps, or of a tile.
template <class V, class N> constexpr int vector_floats() { return N::floats * V::lanes / kLanes; }

// Where the maps of vector v (of V::lanes pixels) start in the scratch.
template <class V, class N> float* map_rows(const ConvArgs& a, float* maps, int v) {
  constexpr int per = kLanes / V::lanes;
  if constexpr (N::beside) return maps + v * (N::floats / 2);
  if constexpr (N::wide) return maps + v % 2 * (N::floats / 2) + v / 2 * (N::floats / 8);
  return maps + (int64_t)(v / per) * (a.most_maps + 1) * N::floats + v % per * vector_floats<V, N>();
}

// Three taps by the 3-point DCT without its scales, which are folded into the values: (1,1,1), (1,0,-1), (1,-2,1).
template <class V> struct Dct3 {
  typename V::Reg even, odd, bend;
  Dct3(typename V::Reg a, typename V::Reg b, typename V::Reg c) {
    const typename V::Reg ends = V::add(a, c);
    even = V::add(ends, b), odd = V::sub(a, c), bend = V::fnma(V::set1(2.f), b, ends);
  }
};

// The nine maps of a channel, of which each row of taps has been transformed.
template <class V, class N> inline __attribute__((always_inline)) void store_dct3(const ConvArgs& a, float* to, uint32_t wanted,
                                                                                  const Dct3<V>& top, const Dct3<V>& middle,
                                                                                  const Dct3<V>& bottom) {
  const Dct3<V> even(top.even, middle.even, bottom.even), odd(top.odd, middle.odd, bottom.odd), bend(top.bend, middle.bend, bottom.bend);
  const typename V::Reg nine[9] = {even.even, odd.even, bend.even, even.odd, odd.odd, bend.odd, even.bend, odd.bend, bend.bend};
  N::store_nine(a, to, wanted, nine);
}

// Channels whose bottom row is asked for before it is loaded: it is new to the tile, and the processor does not foresee the next plane. With
// AVX2 alone, the second-level cache is small as a rule, and weights have taken the other rows' place in it: they are asked for, too.
constexpr int kChannelsAhead = 3;

enum class Reach { pieces, plain, inside };  // as Taps::plain, Taps::inside

// Everything that the loop over channels needs is copied to locals first: a vector store may alias any memory, and would make the compiler
// load it anew.
template <class V, class N, int T, Reach reach>
void basis_step_dct3(const ConvArgs& a, const Chunk& chunk, const Taps<V, T>& taps, float* maps) {
  int64_t start[T], offset[9];
  float* to[T];
  typename V::Mask mask[T][9], left[T], right[T];
  for (int i = 0; i < 9; ++i) offset[i] = taps.offset(i);
  for (int t = 0; t < T; ++t) {
    start[t] = taps.start(t);
    to[t] = map_rows<V, N>(a, maps, t) - (int64_t)chunk.first_map * N::floats;
    if (reach == Reach::plain)
      for (int i = 0; i < 9; ++i) mask[t][i] = taps.mask(t, i);
    if (reach == Reach::inside) left[t] = taps.mask(t, 0), right[t] = taps.mask(t, 2);
  }
  const UsedChannel* const used = a.used;
  const float* const source = a.x.base;
  const int64_t channel = a.x.channel;
  for (int i = chunk.begin; i < chunk.end; ++i) {
    const UsedChannel u = used[i];
    const float* x = source + u.channel * channel;
    if (V::lanes > 1 && reach != Reach::pieces) {
      const float* soon = source + used[i + kChannelsAhead < chunk.end ? i + kChannelsAhead : i].channel * channel;
#pragma GCC unroll 3
      for (int row = V::lanes == 8 ? 0 : 2; row < 3; ++row) {
        const float* const middle = soon + offset[row * 3 + 1];
#pragma GCC unroll 8
        for (int t = 0; t < T; t += kLanes / V::lanes) __builtin_prefetch(middle + start[t]);
        __builtin_prefetch(middle + start[T - 1] + V::lanes);
      }
    }
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      const auto tap = [&](int k) {
        if (reach == Reach::pieces) return taps.load(x, t, k, V::zero());
        const float* from = x + start[t] + offset[k];
        if (reach == Reach::plain) return V::mask_load(mask[t][k], from);
        if (k % 3 == 1) return V::loadu(from);
        return V::mask_load(k % 3 ? right[t] : left[t], from);
      };
      const Dct3<V> top(tap(0), tap(1), tap(2)), middle(tap(3), tap(4), tap(5)), bottom(tap(6), tap(7), tap(8));
      store_dct3<V, N>(a, to[t] + (int64_t)u.begin * N::floats, u.wanted, top, middle, bottom);
    }
  }
}

// Every second output of an n-point DCT, from the `first`: y[v] = sum of c[v][j] part[j], into x[0], x[step], ..
template <class V, int n, int first, int count>
inline __attribute__((always_inline)) void dct_outputs(const float* c, const typename V::Reg* part, typename V::Reg* x, int step) {
#pragma GCC unroll 8
  for (int v = first; v < n; v += 2) {
    typename V::Reg y = V::mul(V::set1(c[v * n]), part[0]);
#pragma GCC unroll 8
    for (int j = 1; j < count; ++j) y = V::fma(V::set1(c[v * n + j]), part[j], y);
    x[v * step] = y;
  }
}
// The n-point DCT of x[0], x[step], .. in place, by the orthonormal matrix c: sums of mirrored pairs make the even outputs, differences the
// odd ones.
template <class V, int n> inline __attribute__((always_inline)) void dct_line(const float* c, typename V::Reg* x, int step) {
  constexpr int kPairs = n / 2, kSums = n - kPairs;
  typename V::Reg sum[kSums], difference[kPairs];
#pragma GCC unroll 8
  for (int j = 0; j < kPairs; ++j) {
    const typename V::Reg a = x[j * step], b = x[(n - 1 - j) * step];
    sum[j] = V::add(a, b), difference[j] = V::sub(a, b);
  }
  if (n % 2) sum[kPairs] = x[kPairs * step];
  dct_outputs<V, n, 0, kSums>(c, sum, x, step);
  dct_outputs<V, n, 1, kPairs>(c, difference, x, step);
}
template <class V, int n = kMaxDct>
inline __attribute__((always_inline)) void dct_line(int points, const float* c, typename V::Reg* x, int step) {
  if constexpr (n > 1) points == n ? dct_line<V, n>(c, x, step) : dct_line<V, n - 1>(points, c, x, step);
}

// Any R x S: rows first, then those columns of which some map is wanted.
template <class V, class N, int T> void basis_step_dct(const ConvArgs& a, const Chunk& chunk, const Taps<V, T>& taps, float* maps) {
  const int R = a.window.rows, S = a.window.cols;
  typename V::Reg x[kMaxDct * kMaxDct];
  for (int i = chunk.begin; i < chunk.end; ++i) {
    const UsedChannel u = a.used[i];
    const float* source = a.x.base + u.channel * a.x.channel;
    uint32_t wanted = 0;  // columns
    for (int m = u.begin; R > 1 && m < u.end; ++m) wanted |= 1u << a.taps[m] % S;
    for (int t = 0; t < T; ++t) {
      for (int k = 0; k < R * S; ++k) x[k] = taps.load(source, t, k, V::zero());
      for (int r = 0; r < R; ++r) dct_line<V>(S, a.basis_cols, x + r * S, 1);
      for (int s = 0; s < S; ++s)
        if (wanted >> s & 1) dct_line<V>(R, a.basis_rows, x + s, S);
      float* out = map_rows<V, N>(a, maps, t) + (int64_t)(u.begin - chunk.first_map) * N::floats;
      for (int m = u.begin; m < u.end; ++m, out += N::floats) N::store_map(a, out, x[a.taps[m]], a.taps[m]);
    }
  }
}

// As kChannelsAhead where a channel is done with as soon as its one tap is copied.
constexpr int kPlanesAhead = 16;

template <class V, class N, int T, bool plain>
void basis_step_taps(const ConvArgs& a, const Chunk& chunk, const Taps<V, T>& taps, float* maps) {
  const UsedChannel* const used = a.used;
  const float* const source = a.x.base;
  const int64_t channel = a.x.channel;
  const uint16_t* const numbers = a.taps;
  int64_t start[T];
  float* to[T];
  for (int t = 0; t < T; ++t) {
    start[t] = taps.start(t);
    to[t] = map_rows<V, N>(a, maps, t) - (int64_t)chunk.first_map * N::floats;
  }
  for (int i = chunk.begin; i < chunk.end; ++i) {
    const UsedChannel u = used[i];
    const float* x = source + u.channel * channel;
    if (V::lanes > 1 && taps.count() == 1) {
      const float* soon = source + used[i + kPlanesAhead < chunk.end ? i + kPlanesAhead : i].channel * channel + taps.offset(0);
#pragma GCC unroll 8
      for (int t = 0; t < T; t += kLanes / V::lanes) __builtin_prefetch(soon + start[t]);
      __builtin_prefetch(soon + start[T - 1] + V::lanes);
    }
    for (int m = u.begin; m < u.end; ++m) {
      const int tap = numbers[m];
      const float* p = x + taps.offset(tap);
      for (int t = 0; t < T; ++t) {
        const typename V::Reg value = plain ? V::mask_load(taps.mask(t, tap), p + start[t]) : taps.load(x, t, tap, V::zero());
        N::store_map(a, to[t] + (int64_t)m * N::floats, value, tap);
      }
    }
  }
}

// A tiled source: 1x1, so a map is a channel. Lanes behind the last pixel become 0: ranges are those of pixels.
template <class V, class N, int T> void copy_tiled(const ConvArgs& a, int64_t group, float* maps) {
  constexpr int per = kLanes / V::lanes;
  const Chunk& chunk = a.chunks[0];
  const int64_t pixels = a.window.images * a.window.ho * a.window.wo - group * kLanes;
  for (int t = 0; t < T; ++t) {
    const int64_t there = pixels - t * V::lanes;
    const typename V::Mask mask = V::mask(there <= 0 ? 0 : there < V::lanes ? (1u << there) - 1 : (1u << V::lanes) - 1);
    const float* x = a.x.at(0, group + t / per) + t % per * V::lanes;
    float* to = map_rows<V, N>(a, maps, t);
    for (int i = chunk.begin; i < chunk.end; ++i)
      N::store_map(a, to + (int64_t)a.used[i].begin * N::floats, V::mask_load(mask, x + (int64_t)a.used[i].channel * kLanes), 0);
  }
}

#include "basis_strided.h"

// Whether the basis step asks the taps for runs alone (Taps).
template <class V, class N> bool runs_alone(const ConvArgs& a) {
  return (N::whole && a.x.tiled) || (V::lanes > 1 && strides_by_two(a));
}

template <class V, class N, int T> void basis_step(const ConvArgs& a, const Chunk& chunk, const Taps<V, T>& taps, float* maps) {
  if constexpr (N::whole)
    if (a.x.tiled) return N::template whole_maps<T>(a, chunk, taps, maps);
  if constexpr (V::lanes > 1)
    if (strides_by_two(a)) return basis_step_strided<V, N, T>(a, chunk, taps, maps);
  if (a.basis == Basis::dct3)
    return !taps.plain()   ? basis_step_dct3<V, N, T, Reach::pieces>(a, chunk, taps, maps)
           : taps.inside() ? basis_step_dct3<V, N, T, Reach::inside>(a, chunk, taps, maps)
                           : basis_step_dct3<V, N, T, Reach::plain>(a, chunk, taps, maps);
  if (a.basis == Basis::dct) return basis_step_dct<V, N, T>(a, chunk, taps, maps);
  taps.plain() ? basis_step_taps<V, N, T, true>(a, chunk, taps, maps) : basis_step_taps<V, N, T, false>(a, chunk, taps, maps);
}
