// Depthwise convolution: one vector of output pixels, a range of channels (contract: WindowArgs in kernel.h).
// Included inside a per-ISA namespace, after taps.h and act.h.

template <class V> void window_tile(const WindowArgs& a, int64_t first, int begin, int end, float* scratch) {
  using Reg = typename V::Reg;
  const Taps<V, 1> taps(a.window, first, scratch);
  for (int c = begin; c < end; ++c) {
    const float* x = a.x + (c / a.multiplier) * a.x_channel;
    Reg y = V::set1(a.bias[c]);
    for (int tap = 0; tap < taps.count(); ++tap)
      y = V::fma(V::set1(a.weight[(int64_t)c * taps.count() + tap]), taps.load(x, 0, tap, V::zero()), y);
    if (a.residual) y = V::add(y, V::load(a.residual + c * a.residual_plane + first));
    V::store(a.y + c * a.y_plane + first, activate<V>(a.act, V::set1(a.alpha), V::set1(a.beta), y));
  }
}
