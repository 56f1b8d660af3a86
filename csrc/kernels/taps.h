// Loading the taps of T vectors of flat output pixels: offsets and masks, found once for a tile and used for every channel.
// Included inside a per-ISA namespace.
//
// At a horizontal stride of 1 a tap's lanes lie side by side in the source, row by row of the output, and are loaded under a mask for each
// row; those of the first two are kept. At stride s lane l of such a run is element s*l, and each vector that holds some of them is loaded once: element s*l mod V::lanes of it
// goes to lane l.

// The taps begin..end-1 that meet an axis of `size` when the first of them lies at `start`.
struct Inside {
  int begin = 0, end;
  Inside(int start, int step, int taps, int size) : end(taps) {
    while (begin < taps && start + begin * step < 0) ++begin;
    while (end > begin && start + (end - 1) * step >= size) --end;
  }
};

// A flat output pixel's place. Found by division once for a tile: from there on it is counted.
struct Pixel {
  int64_t image;
  int y, x;
  Pixel(const Window& w, int64_t flat) {
    const int64_t row = flat / w.wo;
    x = (int)(flat - row * w.wo), image = row / w.ho, y = (int)(row - image * w.ho);
  }
  // By at most what is left of the row.
  void advance(const Window& w, int pixels) {
    if ((x += pixels) < w.wo) return;
    x = 0;
    if (++y == w.ho) y = 0, ++image;
  }
  int64_t source(const Window& w) const { return (image * w.hi + (int64_t)y * w.stride_y) * w.wi + (int64_t)x * w.stride_x; }
};

template <class V, int T> class Taps {
 public:
  // room: taps_floats(w, T vectors) floats, aligned like V::Mask. runs_alone: at a stride load() is not asked for.
  Taps(const Window& w, int64_t first, float* room, bool runs_alone = false)
      : w_(w),
        count_(w.rows * w.cols),
        masks_(reinterpret_cast<typename V::Mask*>(room)),
        second_(reinterpret_cast<typename V::Mask*>(room + (int64_t)T * (count_ + 1) * V::lanes)),
        pieces_(reinterpret_cast<Piece*>(room + (int64_t)T * (count_ + 1) * V::lanes)) {
    const int64_t total = w.images * w.ho * w.wo;
    Pixel at(w, first);
    for (int t = 0; t < T; ++t) locate(t, at, total - first - t * V::lanes);
    if (w_.stride_x == 1 || runs_alone) return;
    int32_t element[V::lanes];
    for (int l = 0; l < V::lanes; ++l) element[l] = w_.stride_x * l % V::lanes;
    element_ = V::index(element);
    cut_pieces();
  }

  // Whether every vector is one run in the source; then tap `tap` of vector t is a masked load from channel + start(t) + offset of the tap.
  bool plain() const {
    for (const Vector& v : vectors_)
      if (v.runs != 1) return false;
    return w_.stride_x == 1;
  }
  // Three columns of plain vectors whose rows all exist, and the middle column: then the masks of the first and the last column are those
  // of every row, and the middle needs none.
  bool inside() const {
    constexpr uint32_t all = (uint32_t)((1ull << V::lanes) - 1);
    for (const Vector& v : vectors_) {
      uint32_t rows = v.col_bits[1];
      for (int r = 0; r < w_.rows; ++r) rows &= v.row_bits[r];
      if (rows != all) return false;
    }
    return true;
  }
  int64_t start(int t) const { return vectors_[t].start[0]; }
  // Lanes of one run lie in one output row: lane l is the source's place run_start() + l * stride, before a tap's offset. Those of them that
  // tap (r, s) finds in the image.
  int runs(int t) const { return vectors_[t].runs; }
  int64_t run_start(int t, int run) const { return vectors_[t].start[run]; }
  uint32_t run_lanes(int t, int run, int r, int s) const {
    const Vector& v = vectors_[t];
    return v.lanes[run] & v.row_bits[r] & v.col_bits[s];
  }
  typename V::Mask mask(int t, int tap) const { return masks_[t * count_ + tap]; }
  int64_t offset(int tap) const { return w_.offset[tap]; }

  // Tap number `tap` = r*cols + s of vector t; channel: the channel's source plane. Lanes outside the image read `outside`.
  typename V::Reg load(const float* channel, int t, int tap, typename V::Reg outside) const {
    if (w_.stride_x != 1) return load_pieces(channel, vectors_[t], tap, outside);
    const Vector& v = vectors_[t];
    const float* p = channel + w_.offset[tap];
    if (v.runs <= 2) {
      typename V::Reg x = V::mask_load(masks_[t * count_ + tap], p + v.start[0], outside);
      return v.runs == 1 ? x : V::mask_load(second_[t * count_ + tap], p + v.start[1], x);
    }
    typename V::Reg x = outside;
    const uint32_t hit = v.row_bits[tap / w_.cols] & v.col_bits[tap % w_.cols];
    for (int i = 0; i < v.runs; ++i)
      if (const uint32_t bits = hit & v.lanes[i]) x = V::mask_load(V::mask(bits), p + v.start[i], x);
    return x;
  }
  int count() const { return count_; }

 private:
  struct Piece {
    int64_t offset;  // of the vector in the channel
    uint32_t lanes;  // that it fills
    uint32_t there;  // its elements that lie in the channel, where some do not; else 0
  };
  static_assert(sizeof(Piece) == kPieceBytes);
  struct Vector {
    const Piece* pieces;  // [R*S][count]: as many for each tap, some of them empty, so that the processor foresees the loop's end
    int count;
    int runs;                 // lanes of one run lie in one output row, or in rows that follow each other in the source
    int64_t start[V::lanes];  // source index of lane 0 of the run's lanes, before the tap's offset
    uint32_t lanes[V::lanes];
    uint32_t row_bits[kMaxTaps], col_bits[kMaxTaps];  // lanes whose source row (column) exists for kernel row r (column s)
  };
  static int floor_div(int a, int b) { return a / b - (a % b < 0); }

  // Bits of the lanes l in [begin, end) for which 0 <= (l + shift) * stride + d < size. Two divisions for each tap would take longer than
  // many a tile's maps.
  static uint32_t lanes_inside(int begin, int end, int shift, int stride, int d, int size) {
    const int least = (stride == 1 ? -d : -floor_div(d, stride)) - shift;
    const int beyond = (stride == 1 ? size - d : floor_div(size - 1 - d, stride) + 1) - shift;
    const int low = begin > least ? begin : least, high = end < beyond ? end : beyond;
    return low < high ? (uint32_t)((1ull << high) - (1ull << low)) : 0;
  }

  typename V::Reg load_pieces(const float* channel, const Vector& v, int tap, typename V::Reg outside) const {
    typename V::Reg x = outside;
    for (const Piece *p = v.pieces + tap * v.count, *const end = p + v.count; p != end; ++p) {
      const float* from = channel + p->offset;
      const typename V::Reg all = __builtin_expect(p->there == 0, 1) ? V::loadu(from) : V::mask_load(V::mask(p->there), from);
      x = V::mask_pick(V::mask(p->lanes), element_, all, x);
    }
    return x;
  }

  void cut_pieces() {
    const int64_t plane = w_.images * w_.hi * w_.wi;
    struct {
      uint32_t lanes;
      int offset;
    } vectors[V::lanes];  // of the source, that a run may touch: the lanes that it fills, and where it starts
    int count = 0, *offset = nullptr;
    for (int l = 0; l < V::lanes; ++l) {
      const int at = w_.stride_x * l / V::lanes * V::lanes;
      if (!offset || *offset != at) vectors[count] = {0, at}, offset = &vectors[count++].offset;
      vectors[count - 1].lanes |= 1u << l;
    }
    const auto piece_at = [&](int64_t at, uint32_t lanes) {
      Piece piece{at, lanes, 0};
      if (at < 0 || at + V::lanes > plane)
        for (int e = 0; e < V::lanes; ++e) piece.there |= (uint32_t)((uint64_t)(at + e) < (uint64_t)plane) << e;
      return piece;
    };
    Piece* piece = pieces_;
    for (Vector& v : vectors_) {
      const auto each = [&](int r, int s, auto use) {
        for (int i = 0; i < v.runs; ++i)
          for (int k = 0; k < count; ++k)
            if (const uint32_t lanes = v.row_bits[r] & v.col_bits[s] & v.lanes[i] & vectors[k].lanes)
              use(v.start[i] + w_.offset[r * w_.cols + s] + vectors[k].offset, lanes);
      };
      v.pieces = piece, v.count = 0;
      for (int r = 0; r < w_.rows; ++r)
        for (int s = 0; s < w_.cols; ++s) {
          int needed = 0;
          each(r, s, [&](int64_t, uint32_t) { ++needed; });
          if (needed > v.count) v.count = needed;
        }
      for (int r = 0; r < w_.rows; ++r)
        for (int s = 0; s < w_.cols; ++s) {
          const Piece* const end = piece + v.count;
          each(r, s, [&](int64_t at, uint32_t lanes) { *piece++ = piece_at(at, lanes); });
          while (piece != end) *piece++ = piece_at(0, 0);
        }
    }
  }

  // `at`: lane 0's pixel, then the next vector's; pixels: how many there are from lane 0 on.
  void locate(int t, Pixel& at, int64_t pixels) {
    Vector& v = vectors_[t];
    v.runs = 0;
    for (int r = 0; r < w_.rows; ++r) v.row_bits[r] = 0;
    for (int s = 0; s < w_.cols; ++s) v.col_bits[s] = 0;
    const int lanes = pixels < V::lanes ? (int)pixels : V::lanes;
    int64_t expected = -1;
    for (int l = 0, next; l < lanes; l = next) {  // one output row after the other
      next = l + w_.wo - at.x < lanes ? l + w_.wo - at.x : lanes;
      const uint32_t row = (uint32_t)((1ull << next) - (1ull << l));
      const int64_t source = at.source(w_);
      if (source != expected) {
        v.start[v.runs] = source - (int64_t)w_.stride_x * l;
        v.lanes[v.runs++] = 0;
      }
      expected = source + (int64_t)w_.stride_x * (next - l);
      v.lanes[v.runs - 1] |= row;
      for (int r = 0; r < w_.rows; ++r)
        if ((uint64_t)((int64_t)at.y * w_.stride_y + w_.dy[r]) < (uint64_t)w_.hi) v.row_bits[r] |= row;
      for (int s = 0; s < w_.cols; ++s) v.col_bits[s] |= lanes_inside(l, next, at.x - l, w_.stride_x, w_.dx[s], w_.wi);
      at.advance(w_, next - l);
    }
    if (v.runs == 0) v.runs = 1, v.start[0] = 0, v.lanes[0] = 0;
    if (v.runs > 2 || w_.stride_x != 1) return;
    for (int r = 0; r < w_.rows; ++r)
      for (int s = 0; s < w_.cols; ++s) {
        const uint32_t hit = v.row_bits[r] & v.col_bits[s];
        masks_[t * count_ + r * w_.cols + s] = V::mask(v.runs == 1 ? hit : hit & v.lanes[0]);
        if (v.runs == 2) second_[t * count_ + r * w_.cols + s] = V::mask(hit & v.lanes[1]);
      }
  }

  const Window& w_;
  const int count_;
  typename V::Mask *const masks_, *const second_;  // [T][count]; stride 1, and at most two runs
  Piece* const pieces_;                            // other strides, in place of second_
  typename V::Index element_;
  Vector vectors_[T];
};
