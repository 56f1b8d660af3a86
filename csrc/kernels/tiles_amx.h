// The matrix registers (AMX) by number, 16 rows of 64 bytes each. Included inside a per-ISA namespace.

template <int tile> void load_tile(const void* from) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(64l), "i"(tile) : "memory");
}
template <int tile> void store_tile(void* to) { asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(64l), "i"(tile) : "memory"); }
template <int tile> void zero_tile() { asm volatile("tilezero %%tmm%c0" ::"i"(tile)); }

// Tile C += tile A * tile B: pairs of bfloat16, quads of signed (A) times unsigned bytes (B).
template <int C, int A, int B> void multiply_bf16() { asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B)); }
template <int C, int A, int B> void multiply_int8() { asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B)); }

// While one is alive, tiles 0..sums-1 and `weights` have `rows` rows, the others 16.
class TileUse {
 public:
  TileUse(int rows, int sums, int weights) {
    Config config{};
    config.palette = 1;
    for (int i = 0; i < 8; ++i) config.bytes[i] = 64, config.rows[i] = i < sums || i == weights ? (uint8_t)rows : 16;
    asm volatile("ldtilecfg %0" ::"m"(config));
  }
  ~TileUse() { asm volatile("tilerelease" ::: "memory"); }
  TileUse(const TileUse&) = delete;
  TileUse& operator=(const TileUse&) = delete;

 private:
  struct alignas(64) Config {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  };
};
