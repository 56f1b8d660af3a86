// Loading the taps of T vectors of flat output pixels: offsets and masks, found once for a tile and used for every channel.
// Included inside a per-ISA namespace.

template <class V, int T> class Taps {
 public:
  // masks: room for T * R*S masks, aligned like V::Mask.
  Taps(const Window& w, int64_t first, typename V::Mask* masks) : w_(w), count_(w.rows * w.cols), masks_(masks) {
    const int64_t total = w.images * w.ho * w.wo;
    for (int t = 0; t < T; ++t) locate(t, first + t * V::lanes, total);
  }

  // Whether every vector is one run in the source; then tap `tap` of vector t is a masked load from channel + start(t) + offset of the tap.
  bool plain() const {
    for (const Vector& v : vectors_)
      if (v.runs != 1) return false;
    return true;
  }
  int64_t start(int t) const { return vectors_[t].start[0]; }
  typename V::Mask mask(int t, int tap) const { return masks_[t * count_ + tap]; }
  int64_t offset(int tap) const { return w_.offset[tap]; }

  // Tap number `tap` = r*cols + s of vector t; channel: the channel's first source plane. Lanes outside the image read `outside`.
  typename V::Reg load(const float* channel, int t, int tap, typename V::Reg outside) const {
    const Vector& v = vectors_[t];
    const float* p = channel + w_.offset[tap];
    if (__builtin_expect(v.runs == 1, 1)) return V::mask_load(masks_[t * count_ + tap], p + v.start[0], outside);
    typename V::Reg x = outside;
    const uint32_t hit = v.row_bits[tap / w_.cols] & v.col_bits[tap % w_.cols];
    for (int i = 0; i < v.runs; ++i)
      if (const uint32_t bits = hit & v.lanes[i]) x = V::mask_load(V::mask(bits), p + v.start[i], x);
    return x;
  }
  int count() const { return count_; }

 private:
  struct Vector {
    int runs;                 // lanes of one run lie side by side in the source
    int64_t start[V::lanes];  // source index of lane 0 of the run's lanes, before the tap's offset
    uint32_t lanes[V::lanes];
    uint32_t row_bits[kMaxTaps], col_bits[kMaxTaps];  // lanes whose source row (column) exists for kernel row r (column s)
  };

  // Bits of the lanes l in [begin, end) for which 0 <= l + shift < size.
  static uint32_t lanes_inside(int begin, int end, int shift, int size) {
    const int low = begin > -shift ? begin : -shift, high = end < size - shift ? end : size - shift;
    return low < high ? (uint32_t)((1ull << high) - (1ull << low)) : 0;
  }

  void locate(int t, int64_t first, int64_t total) {
    Vector& v = vectors_[t];
    v.runs = 0;
    for (int r = 0; r < w_.rows; ++r) v.row_bits[r] = 0;
    for (int s = 0; s < w_.cols; ++s) v.col_bits[s] = 0;
    const int64_t plane = (int64_t)w_.ho * w_.wo;
    const int lanes = total - first < V::lanes ? (int)(total - first) : V::lanes;
    int64_t image = first / plane, expected = -1;
    int oy = (int)(first % plane / w_.wo), ox = (int)(first % plane % w_.wo);
    for (int l = 0, next; l < lanes; l = next) {  // one output row after the other
      next = l + w_.wo - ox < lanes ? l + w_.wo - ox : lanes;
      const uint32_t row = (uint32_t)((1ull << next) - (1ull << l));
      const int64_t source = (image * w_.hq + oy) * w_.wq + ox;
      if (source != expected) {
        v.start[v.runs] = source - l;
        v.lanes[v.runs++] = 0;
      }
      expected = source + next - l;
      v.lanes[v.runs - 1] |= row;
      for (int r = 0; r < w_.rows; ++r)
        if ((unsigned)(oy + w_.dy[r]) < (unsigned)w_.hq) v.row_bits[r] |= row;
      for (int s = 0; s < w_.cols; ++s) v.col_bits[s] |= lanes_inside(l, next, ox - l + w_.dx[s], w_.wq);
      ox = 0;
      if (++oy == w_.ho) oy = 0, ++image;
    }
    if (v.runs == 0) v.runs = 1, v.start[0] = 0, v.lanes[0] = 0;
    if (v.runs > 1) return;
    for (int r = 0; r < w_.rows; ++r)
      for (int s = 0; s < w_.cols; ++s) masks_[t * count_ + r * w_.cols + s] = V::mask(v.row_bits[r] & v.col_bits[s]);
  }

  const Window& w_;
  const int count_;
  typename V::Mask* masks_;
  Vector vectors_[T];
};
