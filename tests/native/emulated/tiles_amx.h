// csrc/kernels/tiles_amx.h as arrays of this thread. Included inside the namespace of the kernels.
#include <cstdlib>

struct Tiles {
  int rows[8];  // 0: not configured
  alignas(64) uint8_t row[8][16][64];
};
inline thread_local Tiles tiles;

template <int tile> void load_tile(const void* from) {
  if (!tiles.rows[tile]) std::abort();
  std::memcpy(tiles.row[tile], from, 64 * tiles.rows[tile]);
}
template <int tile> void store_tile(void* to) {
  if (!tiles.rows[tile]) std::abort();
  std::memcpy(to, tiles.row[tile], 64 * tiles.rows[tile]);
}
template <int tile> void zero_tile() { std::memset(tiles.row[tile], 0, sizeof tiles.row[tile]); }

template <class Number, class Part, int C, int A, int B, class F> void multiply_tiles(const F& add) {
  constexpr int n = 64 / sizeof(Part), parts = n / 16;  // of a row, of a step
  if (!tiles.rows[C] || tiles.rows[C] != tiles.rows[A] || tiles.rows[B] != 16) std::abort();
  for (int m = 0; m < tiles.rows[C]; ++m) {
    Number c[16];
    Part a[n], b[n];
    std::memcpy(c, tiles.row[C][m], 64), std::memcpy(a, tiles.row[A][m], 64);
    for (int k = 0; k < 16; ++k) {
      std::memcpy(b, tiles.row[B][k], 64);
      for (int j = 0; j < 16; ++j) c[j] = add(c[j], a + k * parts, b + j * parts);
    }
    std::memcpy(tiles.row[C][m], c, 64);
  }
}
template <int C, int A, int B> void multiply_bf16() {
  multiply_tiles<float, uint16_t, C, A, B>([](float c, const uint16_t* a, const uint16_t* b) {
    c = emulated::no_denormal(c + emulated::of_bf16(a[0]) * emulated::of_bf16(b[0]));
    return emulated::no_denormal(c + emulated::of_bf16(a[1]) * emulated::of_bf16(b[1]));
  });
}
template <int C, int A, int B> void multiply_int8() {
  multiply_tiles<int32_t, uint8_t, C, A, B>([](int32_t c, const uint8_t* a, const uint8_t* b) {
    for (int i = 0; i < 4; ++i) c += (int8_t)a[i] * b[i];
    return c;
  });
}

class TileUse {
 public:
  TileUse(int rows, int sums, int weights) {
    for (int i = 0; i < 8; ++i) tiles.rows[i] = i < sums || i == weights ? rows : 16;
  }
  ~TileUse() { std::memset(&tiles, 0xff, sizeof tiles), std::memset(tiles.rows, 0, sizeof tiles.rows); }
  TileUse(const TileUse&) = delete;
  TileUse& operator=(const TileUse&) = delete;
};
