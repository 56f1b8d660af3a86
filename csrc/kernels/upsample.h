// upsample, nearest and bilinear (contract: UpsampleArgs in kernel.h): each source row is stretched to the output's width once, the rows
// between are blends of two stretched ones. Included inside a per-ISA namespace, after row.h.

// Output columns from ox where the neighbours lie far apart: no vector of x holds them all.
template <class V> typename V::Reg stretch_far(const Interpolation& columns, const float* x, int ox) {
  alignas(64) float v[V::lanes];
  for (int l = 0; l < V::lanes; ++l) {
    const float low = x[columns.low[ox + l]], high = x[columns.high[ox + l]];
    v[l] = columns.share ? (1 - columns.share[ox + l]) * low + columns.share[ox + l] * high : low;
  }
  return V::load(v);
}

// y[0..out) = x at the output's columns.
template <class V> void stretch(const Interpolation& columns, const float* x, float* y, int64_t room) {
  if (!columns.close) return write_row<V>(y, columns.out, room, [&](int ox) { return stretch_far<V>(columns, x, ox); });
  const bool narrow = columns.in < V::lanes;
  const auto whole = narrow ? V::mask_load(V::mask((1u << columns.in) - 1), x) : V::zero();
  const int last = narrow ? 0 : columns.in - V::lanes;  // no load reaches behind the row
  write_row<V>(y, columns.out, room, [&](int ox) {
    const int first = columns.low[ox] < last ? columns.low[ox] : last;
    const auto near = narrow ? whole : V::loadu(x + first);
    const auto low = V::pick(near, columns.low + ox, first);
    if (!columns.share) return low;
    const auto share = V::loadu(columns.share + ox), high = V::pick(near, columns.high + ox, first);
    return V::fma(share, high, V::mul(V::sub(V::set1(1.f), share), low));
  });
}

template <class V> void upsample_rows(const UpsampleArgs& a, const float* x, float* y, int begin, int end, float* scratch) {
  const int wo = a.columns.out;
  if (!a.rows.share) {
    for (int oy = begin; oy < end; ++oy) {
      float* to = y + (int64_t)oy * wo;
      if (oy > begin && a.rows.low[oy] == a.rows.low[oy - 1])
        __builtin_memcpy(to, to - wo, wo * sizeof(float));
      else
        stretch<V>(a.columns, x + (int64_t)a.rows.low[oy] * a.columns.in, to, (int64_t)(end - oy) * wo);
    }
    return;
  }
  // Source row r lies stretched in place r % 2: the two that are neighbours never meet.
  const int64_t pitch = whole_vectors(wo) + kLanes;
  float* const place[2] = {scratch, scratch + pitch};
  int held[2] = {-1, -1};
  for (int oy = begin; oy < end; ++oy) {
    const int low = a.rows.low[oy], high = a.rows.high[oy];
    for (const int row : {low, high})
      if (held[row % 2] != row) stretch<V>(a.columns, x + (int64_t)row * a.columns.in, place[row % 2], pitch), held[row % 2] = row;
    const float *above = place[low % 2], *below = place[high % 2];
    const auto share = V::set1(a.rows.share[oy]), rest = V::sub(V::set1(1.f), share);
    write_row<V>(y + (int64_t)oy * wo, wo, (int64_t)(end - oy) * wo,
                 [&](int ox) { return V::fma(share, V::loadu(below + ox), V::mul(rest, V::loadu(above + ox))); });
  }
}
