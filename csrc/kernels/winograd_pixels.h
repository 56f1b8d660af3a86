// Where the pixels of Winograd's tiles lie (winograd.h): found once for a block, used for every channel and filter. Included inside a per-ISA
// namespace.

constexpr int kSide = 6, kPlaces = kSide * kSide;
static_assert(kPlaces == kWinogradPlaces);

// A vector holds one row of pixels of V::lanes / 4 tiles side by side; those of one row of tiles are a piece of it, contiguous in the source
// and in the output unless the layer is dilated.
template <class V> struct TilePixels {
  static constexpr int tiles = V::lanes / kWinogradTile, most = kWinogradGroups * kLanes / tiles;  // of a vector; vectors of a block
  // Pixels from x[offset] on, row after row; lanes of row i that there are: columns of the tiles, and those four further right.
  struct Source {
    int64_t offset;
    uint16_t there[kSide][2];
  };
  // Lanes of the vector that go to `to`, and to which `residual` is added; offsets of lane 0 from the filter's start.
  struct Target {
    int64_t to, residual;
    uint16_t lanes;
  };
  int source[most + 1], target[most * kWinogradTile + 1];  // where the pieces of a vector, and of its row of pixels, begin
  Source sources[most * tiles];
  Target targets[most * tiles * kWinogradTile * 2];

  TilePixels(const WinogradArgs& a, int64_t first, int groups) {
    const int dy = a.dilation[0], dx = a.dilation[1], fields = dy * dx;
    const int64_t all = a.images * fields * a.down * a.along;
    int sources_ = 0, targets_ = 0, vector = 0;
    for (int64_t tile = first * kLanes; tile < (first + groups) * kLanes; tile += tiles, ++vector) {
      source[vector] = sources_;
      const int there = (int)(all - tile < tiles ? (all > tile ? all - tile : 0) : tiles);
      int x[tiles], y[tiles], begin[tiles + 1], pieces = 0;  // of the pieces: the pixel of lane 0, the first tile
      int64_t image[tiles];
      for (int t = 0, n; t < there; t += n, ++pieces) {
        const int64_t row = (tile + t) / a.along, field = row / a.down;
        const int column = (int)((tile + t) % a.along), residue = (int)(field % fields);
        n = a.along - column < there - t ? a.along - column : there - t;
        begin[pieces] = t, image[pieces] = field / fields;
        y[pieces] = (int)(row % a.down) * kWinogradTile * dy + residue / dx;
        x[pieces] = (column - t) * kWinogradTile * dx + residue % dx;
      }
      if (!there) begin[0] = 0, image[0] = 0, x[0] = y[0] = 0, pieces = 1;  // none of its lanes, so that each vector has a piece
      begin[pieces] = there;
      for (int p = 0; p < pieces; ++p) {
        const uint32_t own = lanes(begin[p], begin[p + 1]);
        Source& from = sources[sources_++];
        from.offset = (image[p] * a.hi + y[p] - a.top) * a.wi + x[p] - a.left;
        for (int i = 0; i < kSide; ++i) {
          const bool row = y[p] - a.top + i * dy >= 0 && y[p] - a.top + i * dy < a.hi;
          for (int far : {0, 1}) from.there[i][far] = row ? (uint16_t)(own & inside(x[p] - a.left + far * kWinogradTile * dx, dx, a.wi)) : 0;
        }
      }
      for (int i = 0; i < kWinogradTile; ++i) {
        target[vector * kWinogradTile + i] = targets_;
        for (int p = 0; p < pieces; ++p) {
          const uint32_t own = lanes(begin[p], begin[p + 1]) & inside(x[p], dx, a.wo);
          if (y[p] + i * dy < a.ho) add_target(a, (image[p] * a.ho + y[p] + i * dy) * a.wo + x[p], own, targets_);
        }
      }
    }
    source[vector] = sources_, target[vector * kWinogradTile] = targets_;
  }

 private:
  static uint32_t lanes(int first, int beyond) { return (uint32_t)((1ull << beyond * kWinogradTile) - (1ull << first * kWinogradTile)); }
  // Lanes l for which 0 <= first + l * step < size.
  static uint32_t inside(int first, int step, int size) {
    uint32_t bits = 0;
    for (int l = 0; l < V::lanes; ++l) bits |= (uint32_t)(first + l * step >= 0 && first + l * step < size) << l;
    return bits;
  }
  // `own` lanes of a row of which lane 0 is pixel `at`; where pixels lie in groups, those of each group are a piece. Dilated: `at` itself.
  void add_target(const WinogradArgs& a, int64_t at, uint32_t own, int& count) {
    if (a.dilation[1] > 1) {
      if (own) targets[count++] = {at, 0, (uint16_t)own};
      return;
    }
    while (own) {
      const int first = __builtin_ctz(own), room = kLanes - (int)((at + first) % kLanes);
      const uint32_t here = own & (uint32_t)((1ull << (first + room)) - 1);
      const auto offset = [&](const auto& rows) { return (at + first) / kLanes * rows.group + (at + first) % kLanes - first; };
      targets[count++] = {offset(a.y), a.residual.base ? offset(a.residual) : 0, (uint16_t)here};
      own &= ~here;
    }
  }
};
