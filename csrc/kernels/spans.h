// Element-wise loops and reductions over contiguous floats, and the two norms across channels (contract: SpanKernels in kernel.h).
// Included inside a per-ISA namespace, after act.h.

template <class V, class F> void map_span(int64_t n, float* y, F f) {
  int64_t i = 0;
  for (; i + V::lanes <= n; i += V::lanes) V::storeu(y + i, f(i, ~0u));
  if (i < n) {
    const uint32_t bits = (1u << (n - i)) - 1;
    V::mask_store(y + i, V::mask(bits), f(i, bits));
  }
}

template <class V> typename V::Reg load_span(const float* x, uint32_t bits) {
  return bits == ~0u ? V::loadu(x) : V::mask_load(V::mask(bits), x);
}

template <class V> void binary_span(Binary op, const float* a, int a_step, const float* b, int b_step, float* y, int64_t n) {
  using Reg = typename V::Reg;
  const Reg a0 = V::set1(*a), b0 = V::set1(*b);
  const auto both = [&](auto f) {
    map_span<V>(n, y, [&](int64_t i, uint32_t bits) {
      return f(a_step ? load_span<V>(a + i, bits) : a0, b_step ? load_span<V>(b + i, bits) : b0);
    });
  };
  switch (op) {
    case Binary::add:
      return both([](Reg p, Reg q) { return V::add(p, q); });
    case Binary::sub:
      return both([](Reg p, Reg q) { return V::sub(p, q); });
    case Binary::mul:
      return both([](Reg p, Reg q) { return V::mul(p, q); });
    case Binary::div:
      return both([](Reg p, Reg q) { return V::div(p, q); });
    case Binary::maximum:
      return both([](Reg p, Reg q) { return V::larger(p, q); });
    case Binary::minimum: {
      const auto minus = [](Reg p) { return V::mul(V::set1(-1.f), p); };
      return both([&](Reg p, Reg q) { return minus(V::larger(minus(p), minus(q))); });
    }
  }
}

template <class V> void affine_span(const float* x, float scale, float shift, float* y, int64_t n) {
  map_span<V>(n, y, [&](int64_t i, uint32_t bits) { return V::fma(load_span<V>(x + i, bits), V::set1(scale), V::set1(shift)); });
}

template <class V> float sum_span(const float* x, int64_t n) {
  typename V::Reg even = V::zero(), odd = V::zero();
  int64_t i = 0;
  for (; i + 2 * V::lanes <= n; i += 2 * V::lanes) even = V::add(even, V::loadu(x + i)), odd = V::add(odd, V::loadu(x + i + V::lanes));
  for (; i < n; i += V::lanes) even = V::add(even, load_span<V>(x + i, n - i >= V::lanes ? ~0u : (1u << (n - i)) - 1));
  return V::sum(V::add(even, odd));
}

template <class V> void layer_norm_pixels(const float* x, int64_t x_plane, int channels, const float* scale, const float* shift, float eps,
                                          float* y, int64_t y_plane, int64_t first) {
  using Reg = typename V::Reg;
  const Reg share = V::set1(1.f / channels);
  for (int64_t p = first; p < first + kLanes; p += V::lanes) {
    Reg mean = V::zero(), variance = V::zero();
    for (int c = 0; c < channels; ++c) mean = V::add(mean, V::load(x + c * x_plane + p));
    mean = V::mul(mean, share);
    for (int c = 0; c < channels; ++c) {
      const Reg d = V::sub(V::load(x + c * x_plane + p), mean);
      variance = V::fma(d, d, variance);
    }
    const Reg factor = V::div(V::set1(1.f), V::sqrt(V::fma(variance, share, V::set1(eps))));
    for (int c = 0; c < channels; ++c) {
      const Reg normal = V::mul(V::sub(V::load(x + c * x_plane + p), mean), factor);
      V::store(y + c * y_plane + p, V::fma(normal, V::set1(scale[c]), V::set1(shift[c])));
    }
  }
}

template <class V> void softmax_pixels(const float* x, int64_t x_plane, int channels, float* y, int64_t y_plane, int64_t first) {
  using Reg = typename V::Reg;
  for (int64_t p = first; p < first + kLanes; p += V::lanes) {
    Reg highest = V::load(x + p), sum = V::zero();
    for (int c = 1; c < channels; ++c) highest = V::max(highest, V::load(x + c * x_plane + p));
    for (int c = 0; c < channels; ++c) {
      const Reg e = exp<V>(V::sub(V::load(x + c * x_plane + p), highest));
      V::store(y + c * y_plane + p, e);
      sum = V::add(sum, e);
    }
    const Reg factor = V::div(V::set1(1.f), sum);
    for (int c = 0; c < channels; ++c) V::store(y + c * y_plane + p, V::mul(V::load(y + c * y_plane + p), factor));
  }
}
