// conv by matrix registers (AMX): C [8 filters][16 pixels] += A [8][64 bytes of columns] * B [16 rows of joined columns][16 pixels].
//
// A step is a tile of weights, as it was packed. Its columns, any of the maps, are joined in pairs (bfloat16) or quads (int8) to a tile B
// in the scratch, one step ahead of the product that reads it: what has just been stored cannot be forwarded to a tile. The sums of a
// block row go to the scratch and become values while the next one's products run. Where all block rows have the same columns, the tiles B
// of all steps are made once, and two block rows are multiplied at a time.
// Kernels configure the tiles when they begin and release them before they return, so that no thread keeps any state.
// Included inside a per-ISA namespace.
#include "number_bf16.h"
#include "number_int8.h"
#ifdef COSPARSE_TILES_HEADER
#include COSPARSE_TILES_HEADER
#else
#include "tiles_amx.h"
#endif

constexpr int kTileFloats = 256;  // 16 rows of 64 bytes
constexpr int kStepsAhead = 6;    // whose weights are asked for, as far as a second-level cache

template <class V> struct TileBf16 : Bf16<V> {
  static constexpr int columns = 32;
  // A row of tile B for each of T groups: the columns from `at`.
  template <int T> static inline __attribute__((always_inline)) void join(const float* const* x, const uint32_t* at, float* to) {
    uint64_t both;  // one load for two
    std::memcpy(&both, at, 8);
    const uint64_t even = (uint32_t)both, odd = both >> 32;
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) _mm512_store_si512(to + t * kTileFloats, Bf16<V>::pairs(x[t] + even, x[t] + odd));
  }
  static constexpr int step = 2;  // columns of a row of B
  static typename V::Reg add(typename V::Reg a, typename V::Reg b) { return V::add(a, b); }
  template <int C, int A, int B> static void multiply() { multiply_bf16<C, A, B>(); }
};

// Two groups beside each other in the scratch: a cache line holds what both have of a map, and one load fetches it. Joined, the pixels of the
// two are mixed, four by four, until apart() takes the sums of a row to their groups.
template <class V> struct BesideBf16 : TileBf16<V> {
  static constexpr int floats = kLanes;
  static constexpr bool beside = true;
  static void store_nine(const ConvArgs& a, float* to, uint32_t wanted, const typename V::Reg (&x)[9]) {
    if (wanted != kAllNine) return put_nine<BesideBf16, V>(a, to, wanted, x);
#pragma GCC unroll 9
    for (int i = 0; i < 9; ++i) Bf16<V>::store_row(to + i * floats, x[i]);
  }
  template <int T> static inline __attribute__((always_inline)) void join(const float* const* x, const uint32_t* at, float* to) {
    static_assert(T == 2);
    uint64_t both;
    std::memcpy(&both, at, 8);
    const __m512i even = _mm512_load_si512(x[0] + 2 * (uint64_t)(uint32_t)both), odd = _mm512_load_si512(x[0] + 2 * (both >> 32));
    _mm512_store_si512(to, _mm512_unpacklo_epi16(even, odd));
    _mm512_store_si512(to + kTileFloats, _mm512_unpackhi_epi16(even, odd));
  }
  static void apart(float* sums) {
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
#pragma GCC unroll 8
    for (int r = 0; r < 8; ++r) {
      const __m512 low = _mm512_load_ps(sums + r * kLanes), high = _mm512_load_ps(sums + (8 + r) * kLanes);
      _mm512_store_ps(sums + r * kLanes, _mm512_permutex2var_ps(low, first, high));
      _mm512_store_ps(sums + (8 + r) * kLanes, _mm512_permutex2var_ps(low, second, high));
    }
  }
};

template <class V> struct TileInt8 : Int8<V> {
  static constexpr int columns = 64, least = 40;
  static constexpr bool whole = false;
  alignas(64) static constexpr uint8_t kJoined[64] = {
      0, 16, 32, 48, 1, 17, 33, 49, 2,  18, 34, 50, 3,  19, 35, 51, 4,  20, 36, 52, 5,  21, 37, 53, 6,  22, 38, 54, 7,  23, 39, 55,
      8, 24, 40, 56, 9, 25, 41, 57, 10, 26, 42, 58, 11, 27, 43, 59, 12, 28, 44, 60, 13, 29, 45, 61, 14, 30, 46, 62, 15, 31, 47, 63};
  template <int T> static inline __attribute__((always_inline)) void join(const float* const* x, const uint32_t* at, float* to) {
    uint64_t both[2];
    std::memcpy(both, at, 16);
    const uint64_t column[4] = {(uint32_t)both[0], both[0] >> 32, (uint32_t)both[1], both[1] >> 32};
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      const auto row = [&](int i) { return _mm_load_si128(reinterpret_cast<const __m128i*>(x[t] + column[i])); };
      __m512i four = _mm512_castsi128_si512(row(0));
      four = _mm512_mask_broadcast_i32x4(four, 0x00f0, row(1));
      four = _mm512_mask_broadcast_i32x4(four, 0x0f00, row(2));
      four = _mm512_mask_broadcast_i32x4(four, 0xf000, row(3));
      _mm512_store_si512(to + t * kTileFloats, _mm512_permutexvar_epi8(_mm512_load_si512(kJoined), four));
    }
  }
  static constexpr int step = 4;
  static __m512i add(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
  template <int C, int A, int B> static void multiply() { multiply_int8<C, A, B>(); }
};

// As BesideBf16; joined by whole rows, so that nothing is mixed.
template <class V> struct BesideInt8 : TileInt8<V> {
  static constexpr int floats = kLanes / 2;
  static constexpr bool beside = true;
  static void store_nine(const ConvArgs& a, float* to, uint32_t wanted, const typename V::Reg (&x)[9]) {
    Int8<V>::template put_rows<floats>(a, to, wanted, x);
  }
  template <int T> static inline __attribute__((always_inline)) void join(const float* const* x, const uint32_t* at, float* to) {
    static_assert(T == 2);
    uint64_t both[2];
    std::memcpy(both, at, 16);
    const auto row = [&](uint64_t column) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(x[0] + 2 * column)); };
    const auto two = [&](uint64_t columns) {
      return _mm512_inserti64x4(_mm512_castsi256_si512(row((uint32_t)columns)), row(columns >> 32), 1);
    };
    const __m512i low = two(both[0]), high = two(both[1]), order = _mm512_load_si512(TileInt8<V>::kJoined);
    _mm512_store_si512(to, _mm512_permutexvar_epi8(order, _mm512_shuffle_i32x4(low, high, 0x88)));
    _mm512_store_si512(to + kTileFloats, _mm512_permutexvar_epi8(order, _mm512_shuffle_i32x4(low, high, 0xdd)));
  }
  static void apart(float*) {}
};

// f(0), f(1), .. with constants.
template <int n, class F> inline __attribute__((always_inline)) void each_tile(const F& f) {
  if constexpr (n > 0) {
    each_tile<n - 1>(f);
    f(std::integral_constant<int, n - 1>());
  }
}

// The tiles B of one step for T groups.
template <class N, int T>
inline __attribute__((always_inline)) void join_columns(const float* const* x, const uint32_t* column, float* to) {
  const float* own[T];  // a store may alias what x points to, which would be loaded anew each time
  for (int t = 0; t < T; ++t) own[t] = x[t];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) N::template join<T>(own, column + i * N::step, to + i * kLanes);
}

// The sums of block row `row` for one group, [8][kLanes] floats, become values.
template <class V, class N> void finish_sums(const ConvArgs& a, bool first, bool last, int row, int64_t group, const float* sums) {
  typename N::Sum acc[8][1];
  float* const y[1] = {a.y.at(row * 8, group)};
  const float* const residual[1] = {a.residual.base ? a.residual.at(row * 8, group) : nullptr};
  const int filters = a.filters - row * 8;
#pragma GCC unroll 8
  for (int r = 0; r < 8; ++r) acc[r][0] = N::load_sum(sums + r * kLanes);
  if (!first)
#pragma GCC unroll 8
    for (int r = 0; r < 8; ++r) acc[r][0] = N::add(acc[r][0], N::load_sum(y[0] + (r < filters ? r : 0) * a.y.channel));
  if (!last) {
    for (int r = 0; r < 8 && r < filters; ++r) N::store_sum(y[0] + r * a.y.channel, acc[r][0]);
  } else if (a.act > Act::relu) {
    finish_rows_activated<V, N, 8, 1>(a, row * 8, acc, y, residual);
  } else if (a.residual.base) {
    finish_rows<V, N, 8, 1, true>(a, row * 8, acc, y, residual);
  } else {
    finish_rows<V, N, 8, 1, false>(a, row * 8, acc, y, residual);
  }
}

// Block rows begin..end-1 of one chunk for T groups; x[t]: the maps of group t; scratch: 6 T half tiles.
template <class V, class N, int T>
void tile_rows(const ConvArgs& a, int chunk, int64_t group, int begin, int end, const float* const* x, float* scratch) {
  constexpr int kWeights = 7, kMaps = T;
  constexpr int64_t kStep = 512;  // bytes of weights
  const uint32_t *from = a.bounds + (int64_t)chunk * a.bounds_step, *to = from + a.bounds_step;
  const bool first = chunk == 0, last = chunk + 1 == a.chunk_count;
  float* joined[2] = {scratch, scratch + T * kTileFloats};
  float* const sums = scratch + 2 * T * kTileFloats;  // [T][8][kLanes]
  const float* maps[T];
  for (int t = 0; t < T; ++t) maps[t] = x[t];
  const TileUse use(8, T, kWeights);
  const auto columns = [&](uint32_t step) { return a.columns + (int64_t)step * N::columns; };
  const auto finish = [&](int row) {
    if constexpr (N::beside) N::apart(sums);
    for (int t = 0; t < T; ++t) finish_sums<V, N>(a, first, last, row, group + t, sums + t * 8 * kLanes);
  };
  int row = begin;
  while (row < end && from[row] == to[row]) ++row;
  if (row < end) join_columns<N, T>(maps, columns(from[row]), joined[0]);
  int waits = -1;  // a row whose sums are in the scratch
  for (int row = begin; row < end; ++row) {
    each_tile<T>([](auto t) { zero_tile<t>(); });
    for (uint32_t step = from[row]; step < to[row]; ++step) {
      uint32_t ahead = step + 1;
      if (ahead == to[row]) {
        int next = row + 1;
        while (next < end && from[next] == to[next]) ++next;
        ahead = next < end ? from[next] : step;  // the last one of all is joined once more, for nobody
      }
      if (N::beside) {
        const char* const soon = static_cast<const char*>(a.values) + (step + kStepsAhead) * kStep;
#pragma GCC unroll 8
        for (int line = 0; line < kStep / 64; ++line) __builtin_prefetch(soon + line * 64, 0, 2);
        __builtin_prefetch(columns(step + kStepsAhead), 0, 2), __builtin_prefetch(columns(step + kStepsAhead) + kLanes, 0, 2);
      }
      if constexpr (N::beside) join_columns<N, T>(maps, columns(ahead), joined[1]);
      load_tile<kWeights>(static_cast<const char*>(a.values) + step * kStep);
      each_tile<T>([&](auto t) {  // loads, products and the joining of the next step side by side
        if constexpr (!N::beside) join_columns<N, 1>(maps + t, columns(ahead), joined[1] + t * kTileFloats);
        load_tile<kMaps + t>(joined[0] + t * kTileFloats);
        N::template multiply<t, kWeights, kMaps + t>();
      });
      std::swap(joined[0], joined[1]);
    }
    if (waits >= 0) finish(waits);
    each_tile<T>([&](auto t) { store_tile<t>(sums + t * 8 * kLanes); });
    waits = row;
  }
  if (waits >= 0) finish(waits);
}

// The same where all block rows have the same columns, P pairs of rows at a time.
template <class V, class N, int T, int P>
void tile_pairs(const ConvArgs& a, int chunk, int64_t group, int begin, int end, const float* const* x, float* scratch) {
  constexpr int kSums = P * T, kWeights = 7, kMaps = kSums;
  static_assert(kMaps + T <= kWeights);
  constexpr int64_t kStep = 1024;  // bytes of weights of a pair
  const uint32_t *from = a.bounds + (int64_t)chunk * a.bounds_step, *to = from + a.bounds_step;
  const bool first = chunk == 0, last = chunk + 1 == a.chunk_count;
  const int steps = (int)(to[0] - from[0]), all = (int)(from[1] - from[0]), pairs = (end + 1) / 2;
  float* const sums = scratch;                          // [P][T][16][kLanes]
  float* const joined = scratch + kSums * kTileFloats;  // [steps][T]
  for (int step = 0; step < steps; ++step)
    join_columns<N, T>(x, a.columns + (int64_t)(from[0] + step) * N::columns, joined + (int64_t)step * T * kTileFloats);
  const TileUse use(16, kSums, kWeights);
  for (int pair = begin / 2; pair < pairs; pair += P) {
    const char* weights[P];
    for (int p = 0; p < P; ++p)
      weights[p] = static_cast<const char*>(a.values) + ((int64_t)(pair + p < pairs ? pair + p : pair) * all + from[0]) * kStep;
    each_tile<kSums>([](auto i) { zero_tile<i>(); });
    const float* maps = joined;
    for (int64_t step = 0; step < steps; ++step, maps += T * kTileFloats) {
      each_tile<T>([&](auto t) { load_tile<kMaps + t>(maps + t * kTileFloats); });
      each_tile<P>([&](auto p) {
        load_tile<kWeights>(weights[p] + step * kStep);
        each_tile<T>([&](auto t) { N::template multiply<p * T + t, kWeights, kMaps + t>(); });
      });
    }
    each_tile<kSums>([&](auto i) { store_tile<i>(sums + i * kTileFloats); });
    for (int row = pair * 2; row < pair * 2 + 2 * P && row < end; ++row)
      for (int t = 0; t < T && row >= begin; ++t)
        finish_sums<V, N>(a, first, last, row, group + t, sums + ((row / 2 - pair) * T + t) * kTileFloats + row % 2 * 8 * kLanes);
  }
}

// Sources that are not their own maps: these are made, then multiplied, chunk by chunk.
template <class V, class N, int T, int P> void tile_chunks(const ConvArgs& a, int64_t group, int begin, int end, float* scratch) {
  float* const maps = scratch + taps_floats(a.window.rows * a.window.cols, T);
  float* const tiles = maps + whole_vectors((int64_t)(N::beside ? 1 : T) * (a.most_maps + 1) * N::floats);
  const float* x[T];
  const auto multiply = [&](int chunk) {
    for (int t = 0; t < T; ++t) x[t] = map_rows<V, N>(a, maps, t) - (int64_t)a.chunks[chunk].first_map * N::floats;
    if constexpr (!N::beside)
      if (a.same_columns) return tile_pairs<V, N, T, P>(a, chunk, group, begin, end, x, tiles);
    tile_rows<V, N, T>(a, chunk, group, begin, end, x, tiles);
  };
  if (a.source == Source::picked) {
    float* to[T];
    for (int t = 0; t < T; ++t) to[t] = map_rows<V, N>(a, maps, t);
    pick_maps<V, N, T>(a, group, a.chunks[0].begin, a.chunks[0].end, scratch, to);
    return multiply(0);
  }
  const Taps<V, T> taps(a.window, group * kLanes, scratch);
  for (int k = 0; k < a.chunk_count; ++k) {
    basis_step<V, N, T>(a, a.chunks[k], taps, maps);
    multiply(k);
  }
}

template <class V, class N, int R, int T> void conv_amx(const ConvArgs& a, int64_t group, int begin, int end, float* scratch) {
  static_assert(R == 8 && V::lanes == kLanes && T <= 3);
  constexpr int P = T == 1 ? 4 : T == 2 ? 2 : 1;
  if (a.source == Source::planar || a.source == Source::picked) {
    using Beside = std::conditional_t<N::number == Number::bf16, BesideBf16<V>, BesideInt8<V>>;
    if constexpr (T == 2)
      if (!a.same_columns) return tile_chunks<V, Beside, T, P>(a, group, begin, end, scratch);
    return tile_chunks<V, N, T, P>(a, group, begin, end, scratch);
  }
  const float* x[T];
  for (int t = 0; t < T; ++t) x[t] = a.x.at(0, group + t);
  float* const tiles = scratch + taps_floats(a.window.rows * a.window.cols, T);
  a.same_columns ? tile_pairs<V, N, T, P>(a, 0, group, begin, end, x, tiles) : tile_rows<V, N, T>(a, 0, group, begin, end, x, tiles);
}
