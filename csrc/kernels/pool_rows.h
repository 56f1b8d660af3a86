// max_pool and avg_pool, separable (contract: PoolArgs in kernel.h): the window's source rows become one row by whole vectors, then the
// window's columns by shifted loads from it; its margins hold what the padding counts as. Included inside a per-ISA namespace, after act.h,
// row.h and pool_quarters.h.

template <class V> struct PoolMax {
  static constexpr float outside = -__builtin_inff();
  static typename V::Reg of(typename V::Reg a, typename V::Reg b) { return V::larger(a, b); }
  static float of(float a, float b) { return a > b || a != a ? a : b; }
};

template <class V> struct PoolSum {
  static constexpr float outside = 0;
  static typename V::Reg of(typename V::Reg a, typename V::Reg b) { return V::add(a, b); }
  static float of(float a, float b) { return a + b; }
};

// row[i] = over the window's source rows; the vector that ends the row fills up with `outside`.
template <class V, class Op> void pool_source_rows(const PoolArgs& a, const float* x, int oy, float* row) {
  const int top = oy * a.stride[0] - a.pad[0];
  const Inside rows(top, a.dilation[0], a.kernel[0], a.h);
  const int64_t pitch = (int64_t)a.dilation[0] * a.w;
  const float* from = x + (int64_t)(top + rows.begin * a.dilation[0]) * a.w;
  const int count = rows.end - rows.begin;
  const auto outside = V::set1(Op::outside);
  const auto combined = [&](auto load) {
    auto v = count > 0 ? load(from) : outside;
    for (int r = 1; r < count; ++r) v = Op::of(v, load(from + r * pitch));
    return v;
  };
  int i = 0;
  for (; i + V::lanes <= a.w; i += V::lanes) V::store(row + i, combined([&](const float* p) { return V::loadu(p + i); }));
  if (i == a.w) return;
  const auto mask = V::mask((1u << (a.w - i)) - 1);
  V::store(row + i, combined([&](const float* p) { return V::mask_load(mask, p + i, outside); }));
}

// One vector of outputs whose first taps are p[0], p[stride], ..; stride 0: any other than 1 and 2, only the first `lanes` of them.
template <class V, class Op, int stride> typename V::Reg pool_columns(const PoolArgs& a, const float* p, [[maybe_unused]] int lanes) {
  const int taps = a.kernel[1], step = a.dilation[1];
  if constexpr (stride == 1) {
    auto v = V::loadu(p);
    for (int s = 1; s < taps; ++s) v = Op::of(v, V::loadu(p + s * step));
    return v;
  } else if constexpr (stride == 2) {
    auto v = V::even(V::loadu(p), V::loadu(p + V::lanes));
    for (int s = 1; s < taps; ++s) v = Op::of(v, V::even(V::loadu(p + s * step), V::loadu(p + s * step + V::lanes)));
    return v;
  } else {
    alignas(64) float v[V::lanes] = {};
    for (int l = 0; l < V::lanes && l < lanes; ++l) {
      const float* q = p + l * a.stride[1];
      v[l] = q[0];
      for (int s = 1; s < taps; ++s) v[l] = Op::of(v[l], q[s * step]);
    }
    return V::load(v);
  }
}

// A block of rows goes through the first half before any goes through the second: a shifted load would otherwise wait for the store that it
// overlaps.
template <class V, class Op, int stride> void pool_plane(const PoolArgs& a, const float* x, float* y, int begin, int end, float* scratch) {
  const int64_t pitch = pool_pitch(a);
  const int block = pool_block(a), used = pool_used(a);
  float* const rows = scratch + pool_margin(a);
  for (int i = 0; i < block && i < end - begin; ++i) {
    float* const first = rows + i * pitch - a.pad[1];
    for (int c = 0; c < a.pad[1]; ++c) first[c] = Op::outside;
    for (int c = a.pad[1] + a.w; c < used; ++c) first[c] = Op::outside;
  }
  for (int top = begin; top < end; top += block) {
    const int bottom = top + block < end ? top + block : end;
    for (int oy = top; oy < bottom; ++oy) pool_source_rows<V, Op>(a, x, oy, rows + (oy - top) * pitch);
    for (int oy = top; oy < bottom; ++oy) {
      const float* const first = rows + (oy - top) * pitch - a.pad[1];
      float* const to = y + (int64_t)oy * a.wo;
      write_row<V>(to, a.wo, (int64_t)(end - oy) * a.wo, [&](int ox) {
        const auto v = pool_columns<V, Op, stride>(a, first + ox * a.stride[1], a.wo - ox);
        return a.max ? v : V::mul(v, V::loadu(a.factor + (int64_t)oy * a.wo + ox));
      });
      if (a.act != Act::none) activation_row<V>(a.act, a.alpha, a.beta, to, to, a.wo);
    }
  }
}

template <class V, class Op> void pool_strided(const PoolArgs& a, const float* x, float* y, int begin, int end, float* scratch) {
  if (a.stride[1] == 1) return pool_plane<V, Op, 1>(a, x, y, begin, end, scratch);
  if (a.stride[1] == 2) return pool_plane<V, Op, 2>(a, x, y, begin, end, scratch);
  pool_plane<V, Op, 0>(a, x, y, begin, end, scratch);
}

template <class V> void pool_rows(const PoolArgs& a, const float* x, float* y, int begin, int end, float* scratch) {
  if (pools_quarters<V>(a)) return pool_quarters<V>(a, x, y, begin, end);
  if (a.max) return pool_strided<V, PoolMax<V>>(a, x, y, begin, end, scratch);
  pool_strided<V, PoolSum<V>>(a, x, y, begin, end, scratch);
}
