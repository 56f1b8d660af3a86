// Depthwise convolution, band after band (contract: DepthwiseArgs in kernel.h). Included inside a per-ISA namespace, after act.h and row.h.

// from[begin..end-1] in their lanes, zeros in the others.
template <class V> typename V::Reg depthwise_part(const float* from, int begin, int end) {
  const int low = begin > 0 ? begin : 0, high = end < V::lanes ? end : V::lanes;
  return low < high ? V::mask_load(V::mask((uint32_t)((1ull << high) - (1ull << low))), from, V::zero()) : V::zero();
}

// One source row's places of one residue, zeros where the row ends; x nullptr: all of them. Less than a vector behind them is overwritten.
template <class V> void depthwise_spread(const DepthwiseArgs::Residue& part, int step, const float* x, float* to, int n) {
  int k = 0;
  if (!x) {
    for (; k < n; k += V::lanes) V::storeu(to + k, V::zero());
    return;
  }
  const int first = part.first, last = part.last;
  const float* const from = x + part.start;
  if (step == 1) {
    for (; k < first && k < n; k += V::lanes) V::storeu(to + k, depthwise_part<V>(from + k, first - k, last - k));
    for (; k + V::lanes <= last; k += V::lanes) V::storeu(to + k, V::loadu(from + k));
    for (; k < n; k += V::lanes) V::storeu(to + k, depthwise_part<V>(from + k, 0, last - k));
    return;
  }
  for (; k < first; k += V::lanes) V::storeu(to + k, V::zero());
  k = first;
  if (step == 2) {
    for (; k + V::lanes < last; k += V::lanes) V::storeu(to + k, V::even(V::loadu(from + 2 * k), V::loadu(from + 2 * k + V::lanes)));
    if (k < last) {  // nothing behind the row's end is read
      const int there = 2 * (last - k) - 1;
      const float* const at = from + 2 * k;
      V::storeu(to + k, V::even(depthwise_part<V>(at, 0, there), depthwise_part<V>(at + V::lanes, 0, there - V::lanes))), k += V::lanes;
    }
  } else {
    for (; k < last; ++k) to[k] = from[(int64_t)k * step];
  }
  for (; k < n; k += V::lanes) V::storeu(to + k, V::zero());
}

// The source rows of the output rows top..bottom-1; of a band of one row those alone that some tap reads.
template <class V> void depthwise_copy(const DepthwiseArgs& a, const float* x, int top, int bottom, float* band) {
  const int count = a.rows == 1 ? a.kernel[0] : (bottom - top - 1) * a.stride[0] + (a.kernel[0] - 1) * a.dilation[0] + 1;
  const int64_t turn = a.stride[1] * a.plane;  // from one row's planes to the next row's
  int64_t row = (int64_t)top * a.stride[0] - a.pad[0];
  float* to = band;
  for (int i = 0, plane = 0; i < count; ++i, row += a.gap) {
    const float* const from = row >= 0 && row < a.h ? x + row * a.w : nullptr;
    for (int k = 0; k < a.residue_count; ++k)
      depthwise_spread<V>(a.residues[k], a.stride[1], from, to + a.residues[k].plane, a.pitch);
    if (++plane < a.row_planes)
      to += turn;
    else
      plane = 0, to += a.pitch - (a.row_planes - 1) * turn;
  }
}

// B vectors of places from x: the sum over all taps.
template <class V, int B> void depthwise_sum(const DepthwiseArgs& a, const float* x, const float* weight, float bias, float* to) {
  typename V::Reg sum[B];
  for (int b = 0; b < B; ++b) sum[b] = V::set1(bias);
  for (int tap = 0, taps = a.kernel[0] * a.kernel[1]; tap < taps; ++tap) {
    const float* const from = x + a.offset[tap];
    const typename V::Reg w = V::set1(weight[tap]);
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) sum[b] = V::fma(w, V::loadu(from + b * V::lanes), sum[b]);
  }
  for (int b = 0; b < B; ++b) V::store(to + b * V::lanes, sum[b]);
}

template <class V>
void depthwise_rows(const DepthwiseArgs& a, const float* x, const float* weight, float bias, const float* residual, float* y, int begin,
                    int end, float* scratch) {
  float* const sums = scratch;
  const int64_t places = whole_vectors((int64_t)(a.rows - 1) * a.pitch + a.wo);
  float* const band = scratch + places;
  // The cheap activations are a clamp, NaN kept; the others are a call for each vector.
  const bool clamps = a.act <= Act::clip;
  const float low = a.act == Act::none ? -__builtin_inff() : a.act == Act::relu ? 0.f : a.alpha;
  const typename V::Reg alpha = V::set1(clamps ? low : a.alpha), beta = V::set1(clamps && a.act != Act::clip ? __builtin_inff() : a.beta);
  for (int top = begin; top < end; top += a.rows) {
    const int bottom = top + a.rows < end ? top + a.rows : end;
    depthwise_copy<V>(a, x, top, bottom, band);
    const int64_t n = (int64_t)(bottom - top - 1) * a.pitch + a.wo;
    int64_t i = 0;
    const auto sum = [&](auto count) {
      constexpr int B = decltype(count)::value;
      for (; i + (B - 1) * V::lanes < n; i += B * V::lanes) depthwise_sum<V, B>(a, band + i, weight, bias, sums + i);
    };
    sum(std::integral_constant<int, 8>()), sum(std::integral_constant<int, 4>());
    sum(std::integral_constant<int, 2>()), sum(std::integral_constant<int, 1>());
    for (int oy = top; oy < bottom; ++oy) {
      const float* const from = sums + (int64_t)(oy - top) * a.pitch;
      const float* const plus = residual ? residual + (int64_t)oy * a.wo : nullptr;
      write_row<V>(y + (int64_t)oy * a.wo, a.wo, (int64_t)(end - oy) * a.wo, [&](int ox) {
        typename V::Reg v = V::loadu(from + ox);
        if (plus) v = V::add(v, ox + V::lanes <= a.wo ? V::loadu(plus + ox) : V::mask_load(V::mask((1u << (a.wo - ox)) - 1), plus + ox, V::zero()));
        return clamps ? V::min(beta, V::max(alpha, v)) : activate<V>(a.act, alpha, beta, v);
      });
    }
  }
}
