// max_pool of 2x2 windows side by side on narrow planes: a vector of outputs out of the four vectors of pixels that they read, which lie
// side by side in memory, however many rows that is. Included inside a per-ISA namespace, after act.h and before pool_rows.h.

// Whether a row is two vectors or a whole part of them, and windows neither overlap nor leave the plane.
template <class V> bool pools_quarters(const PoolArgs& a) {
  if (!V::masks || !a.max) return false;
  for (int i = 0; i < 2; ++i)
    if (a.kernel[i] != 2 || a.stride[i] != 2 || a.dilation[i] != 1 || a.pad[i] != 0) return false;
  return a.w % 2 == 0 && 2 * V::lanes % a.w == 0 && a.wo == a.w / 2 && a.h >= 2 * a.ho;
}

// Where the larger of each pair of neighbours lies, in two vectors of them, for rows of 1, 2, 4, .. outputs: of the upper and the lower row.
template <class V> struct QuarterLanes {
  static constexpr int kinds = 5;
  alignas(64) int upper[kinds][V::lanes], lower[kinds][V::lanes];
  constexpr QuarterLanes() : upper(), lower() {
    for (int kind = 0; kind < kinds; ++kind)
      for (int l = 0, row = 1 << kind; l < V::lanes; ++l) upper[kind][l] = l + (l & -row), lower[kind][l] = upper[kind][l] + row;
  }
};

template <class V> void pool_quarters(const PoolArgs& a, const float* x, float* y, int begin, int end) {
  using Reg = typename V::Reg;
  static constexpr QuarterLanes<V> lanes;
  const int kind = __builtin_ctz(a.wo);
  const int *const upper = lanes.upper[kind], *const lower = lanes.lower[kind];
  x += (int64_t)begin * 2 * a.w, y += (int64_t)begin * a.wo;
  const int64_t n = (int64_t)(end - begin) * a.wo;
  for (int64_t o = 0; o < n; o += V::lanes, x += 4 * V::lanes) {
    const int left = n - o < V::lanes ? (int)(n - o) : V::lanes;
    Reg v[4];
#pragma GCC unroll 8
    for (int q = 0; q < 4; ++q) {
      const int there = 4 * left - q * V::lanes;
      v[q] = there >= V::lanes ? V::loadu(x + q * V::lanes)
             : there > 0       ? V::mask_load(V::mask((1u << there) - 1), x + q * V::lanes)
                               : V::zero();
    }
    const Reg first = V::larger(V::even(v[0], v[1]), V::odd(v[0], v[1])), second = V::larger(V::even(v[2], v[3]), V::odd(v[2], v[3]));
    const Reg most = V::larger(V::of_two(first, second, upper), V::of_two(first, second, lower));
    if (left == V::lanes)
      V::storeu(y + o, most);
    else
      V::mask_store(y + o, V::mask((1u << left) - 1), most);
  }
  if (a.act != Act::none) activation_row<V>(a.act, a.alpha, a.beta, y, y, n);
}
