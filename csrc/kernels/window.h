// depthwise convolution, max and average pooling: one vector of output pixels, a range of channels (contract: WindowArgs in kernel.h).
// Included inside a per-ISA namespace, after taps.h and act.h.

template <class V, WindowOp op> void window_channels(const WindowArgs& a, const Taps<V, 1>& taps, int64_t first, int begin, int end) {
  using Reg = typename V::Reg;
  const Reg outside = op == WindowOp::max ? V::set1(-__builtin_inff()) : V::zero();
  Reg factor = V::zero();
  if (op == WindowOp::sum) {  // pixels of all images share the factors of one plane
    alignas(64) float f[V::lanes];
    const int64_t plane = (int64_t)a.window.ho * a.window.wo;
    for (int l = 0; l < V::lanes; ++l) f[l] = a.factor[(first + l) % plane];
    factor = V::load(f);
  }
  for (int c = begin; c < end; ++c) {
    const float* x = a.x + (c / a.multiplier) * a.x_channel;
    Reg y = op == WindowOp::depthwise ? V::set1(a.bias[c]) : outside;
    for (int tap = 0; tap < taps.count(); ++tap) {
      const Reg v = taps.load(x, 0, tap, outside);
      if (op == WindowOp::depthwise) y = V::fma(V::set1(a.weight[(int64_t)c * taps.count() + tap]), v, y);
      if (op == WindowOp::max) y = V::max(v, y);
      if (op == WindowOp::sum) y = V::add(y, v);
    }
    if (op == WindowOp::sum) y = V::mul(y, factor);
    if (a.residual) y = V::add(y, V::load(a.residual + c * a.residual_plane + first));
    V::store(a.y + c * a.y_plane + first, activate<V>(a.act, V::set1(a.alpha), V::set1(a.beta), y));
  }
}

template <class V> void window_tile(const WindowArgs& a, int64_t first, int begin, int end, float* scratch) {
  const Taps<V, 1> taps(a.window, first, reinterpret_cast<typename V::Mask*>(scratch));
  switch (a.op) {
    case WindowOp::depthwise:
      return window_channels<V, WindowOp::depthwise>(a, taps, first, begin, end);
    case WindowOp::max:
      return window_channels<V, WindowOp::max>(a, taps, first, begin, end);
    case WindowOp::sum:
      return window_channels<V, WindowOp::sum>(a, taps, first, begin, end);
  }
}
