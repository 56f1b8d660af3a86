// Loading the taps of T vectors of flat output pixels: offsets and masks, found once for a tile and used for every channel.
// Included inside a per-ISA namespace.

template <class V, int T> class Taps {
 public:
  // masks: room for T * R*S masks, aligned like V::Mask.
  Taps(const Window& w, int64_t first, typename V::Mask* masks) : w_(w), count_(w.rows * w.cols), masks_(masks) {
    const int64_t total = w.images * w.ho * w.wo;
    for (int t = 0; t < T; ++t) locate(t, first + t * V::lanes, total);
  }

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
  uint32_t hits(int t, int tap) const { return vectors_[t].row_bits[tap / w_.cols] & vectors_[t].col_bits[tap % w_.cols]; }
  int count() const { return count_; }

 private:
  struct Vector {
    int runs;                      // lanes of one run lie side by side in the source
    int64_t start[V::lanes];       // source index of lane 0 of the run's lanes, before the tap's offset
    uint32_t lanes[V::lanes];
    uint32_t row_bits[kMaxTaps], col_bits[kMaxTaps];  // lanes whose source row (column) exists for kernel row r (column s)
  };

  void locate(int t, int64_t first, int64_t total) {
    Vector& v = vectors_[t];
    v.runs = 0;
    for (int r = 0; r < w_.rows; ++r) v.row_bits[r] = 0;
    for (int s = 0; s < w_.cols; ++s) v.col_bits[s] = 0;
    const int64_t plane = (int64_t)w_.ho * w_.wo;
    int64_t image = first / plane;
    int oy = (int)(first % plane / w_.wo), ox = (int)(first % plane % w_.wo);
    int64_t expected = -1;
    for (int l = 0; l < V::lanes && first + l < total; ++l) {
      const int64_t source = (image * w_.hq + oy) * w_.wq + ox;
      if (source != expected) {
        v.start[v.runs] = source - l;
        v.lanes[v.runs++] = 0;
      }
      expected = source + 1;
      v.lanes[v.runs - 1] |= 1u << l;
      for (int r = 0; r < w_.rows; ++r) v.row_bits[r] |= (uint32_t)((unsigned)(oy + w_.dy[r]) < (unsigned)w_.hq) << l;
      for (int s = 0; s < w_.cols; ++s) v.col_bits[s] |= (uint32_t)((unsigned)(ox + w_.dx[s]) < (unsigned)w_.wq) << l;
      if (++ox == w_.wo) {
        ox = 0;
        if (++oy == w_.ho) oy = 0, ++image;
      }
    }
    if (v.runs <= 1) {
      if (v.runs == 0) v.runs = 1, v.start[0] = 0, v.lanes[0] = 0;
      for (int r = 0; r < w_.rows; ++r)
        for (int s = 0; s < w_.cols; ++s) masks_[t * count_ + r * w_.cols + s] = V::mask(v.row_bits[r] & v.col_bits[s]);
    }
  }

  const Window& w_;
  const int count_;
  typename V::Mask* masks_;
  Vector vectors_[T];
};
