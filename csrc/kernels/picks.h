// The maps of a 1x1 convolution with a stride whose source lies in tiles: its pixels, picked out of the rows that hold them. Which lanes of
// which groups they are is found once for a tile and used for every channel.
// Included inside a per-ISA namespace, after number.h.

template <class V, class N, int T> class Picks {
 public:
  // room: taps_floats(one tap, T vectors) floats, 64-byte aligned.
  Picks(const ConvArgs& a, int64_t first, float* room) : picks_(reinterpret_cast<Pick*>(room)) {
    const Window& w = a.window;
    const int64_t pixels = w.images * w.ho * w.wo;
    uint32_t count = 0;
    Pixel at(w, first);
    for (int t = 0; t < T; ++t) {
      int64_t vector = -1;  // of the source, that the last pick reads
      int32_t lane[V::lanes] = {};
      const auto close = [&] {
        if (vector >= 0) picks_[count++].index = N::index(lane);
      };
      for (int l = 0; l < V::lanes && first + t * V::lanes + l < pixels; ++l, at.advance(w, 1)) {
        const int64_t source = at.source(w);
        if (source / V::lanes != vector) {
          close();
          vector = source / V::lanes;
          constexpr int per = kLanes / V::lanes;
          picks_[count].offset = a.x.at(0, vector / per) - a.x.base + vector % per * vector_floats<V, N>();
          picks_[count].lanes = 0;
        }
        picks_[count].lanes |= 1u << l;
        lane[l] = (int32_t)(source % V::lanes);
      }
      close();
      ends_[t + 1] = count;
    }
  }

  // One channel's pixels for vector t; lanes behind the last pixel are 0.
  typename N::Packed load(const float* channel, int t) const {
    typename N::Packed x = N::nothing();
    for (const Pick *p = picks_ + ends_[t], *const end = picks_ + ends_[t + 1]; p != end; ++p)
      x = N::pick(p->lanes, p->index, channel + p->offset, x);
    return x;
  }

 private:
  struct alignas(64) Pick {
    typename N::Index index;
    int64_t offset;  // of the source vector in the channel
    uint32_t lanes;  // that it fills
  };
  static_assert(sizeof(Pick) <= kPickBytes);
  Pick* const picks_;
  uint32_t ends_[T + 1] = {};
};

// The maps of used[begin..end); to[t]: where those of vector t lie.
template <class V, class N, int T> void pick_maps(const ConvArgs& a, int64_t group, int begin, int end, float* room, float* const* to) {
  const Picks<V, N, T> picks(a, group * kLanes, room);
  for (int i = begin; i < end; ++i) {
    const UsedChannel& u = a.used[i];
    const float* x = a.x.base + u.channel * a.x.channel;
    for (int t = 0; t < T; ++t) N::store_packed(a, to[t] + (int64_t)u.begin * N::floats, picks.load(x, t));
  }
}
