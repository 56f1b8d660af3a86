// Depthwise convolution, band after band (contract: DepthwiseArgs in kernel.h). Included inside a per-ISA namespace, after depthwise_direct.h
// and row.h.

// Source rows' places of one residue, zeros where a row ends. Where that is in a vector is found once for all rows of a band: of a small
// plane it would take most of the time. Less than a vector behind a row's n places is overwritten.
template <class V> class DepthwiseSpread {
 public:
  DepthwiseSpread(const DepthwiseArgs::Residue& part, int step, int n) : part_(part), step_(step), n_(n) {
    if (step == 1) {
      edge_ = part.last / V::lanes * V::lanes < V::lanes ? V::lanes : part.last / V::lanes * V::lanes;
      left_ = depthwise_mask<V>(part.first, part.last), right_ = depthwise_mask<V>(part.first - edge_, part.last - edge_);
    } else if (step == 2) {  // nothing behind the row's end is read
      edge_ = part.last > part.first ? part.first + (part.last - part.first - 1) / V::lanes * V::lanes : part.first;
      const int there = part.last > part.first ? 2 * (part.last - edge_) - 1 : 0;
      left_ = depthwise_mask<V>(0, there), right_ = depthwise_mask<V>(0, there - V::lanes);
    }
  }

  // x nullptr: zeros.
  void operator()(const float* x, float* to) const {
    int k = 0;
    const float* const from = x + (x ? part_.start : 0);
    if (x && step_ == 1 && part_.first <= V::lanes) {
      V::storeu(to, V::mask_load(left_, from));
      for (k = V::lanes; k < edge_; k += V::lanes) V::storeu(to + k, V::loadu(from + k));
      if (k < n_) V::storeu(to + k, V::mask_load(right_, from + k)), k += V::lanes;
    } else if (x) {
      for (; k < part_.first; k += V::lanes) V::storeu(to + k, V::zero());
      k = part_.first;
      if (step_ == 2) {
        for (; k < edge_; k += V::lanes) V::storeu(to + k, V::even(V::loadu(from + 2 * k), V::loadu(from + 2 * k + V::lanes)));
        const float* const at = from + 2 * k;
        V::storeu(to + k, V::even(V::mask_load(left_, at), V::mask_load(right_, at + V::lanes))), k += V::lanes;
      } else {
        for (; k < part_.last; ++k) to[k] = from[(int64_t)k * step_];
      }
    }
    for (; k < n_; k += V::lanes) V::storeu(to + k, V::zero());
  }

 private:
  const DepthwiseArgs::Residue part_;
  const int step_, n_;
  int edge_ = 0;  // where the last vector with something in it begins
  typename V::Mask left_ = V::mask(0), right_ = V::mask(0);
};

// The source rows of the output rows top..bottom-1; of a band of one row those alone that some tap reads.
template <class V> void depthwise_copy(const DepthwiseArgs& a, const float* x, int top, int bottom, float* band) {
  const int count = a.rows == 1 ? a.kernel[0] : (bottom - top - 1) * a.stride[0] + (a.kernel[0] - 1) * a.dilation[0] + 1;
  const int64_t turn = a.stride[1] * a.plane;  // from one row's planes to the next row's
  const auto each_row = [&](int residue, auto spread) {
    int64_t row = (int64_t)top * a.stride[0] - a.pad[0];
    float* to = band + a.residues[residue].plane;
    for (int i = 0, plane = 0; i < count; ++i, row += a.gap) {
      spread(row >= 0 && row < a.h ? x + row * a.w : nullptr, to);
      if (++plane < a.row_planes)
        to += turn;
      else
        plane = 0, to += a.pitch - (a.row_planes - 1) * turn;
    }
  };
  if (a.stride[1] == 1 && a.pitch <= 2 * V::lanes) {  // the small planes, of which networks have most: no loop in a row
    const DepthwiseArgs::Residue part = a.residues[0];
    const typename V::Mask left = depthwise_mask<V>(part.first, part.last);
    const typename V::Mask right = depthwise_mask<V>(part.first - V::lanes, part.last - V::lanes);
    const bool two = a.pitch > V::lanes;
    return each_row(0, [&](const float* from, float* to) {
      V::storeu(to, from ? V::mask_load(left, from + part.start) : V::zero());
      if (two) V::storeu(to + V::lanes, from ? V::mask_load(right, from + part.start + V::lanes) : V::zero());
    });
  }
  for (int k = 0; k < a.residue_count; ++k) each_row(k, DepthwiseSpread<V>(a.residues[k], a.stride[1], a.pitch));
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
void depthwise_clamped(const DepthwiseArgs& a, const float* x, const float* weight, float bias, const float* residual, float* y, int begin,
                    int end, float* scratch) {
  if (depthwise_direct<V>(a, x, weight, bias, residual, y, begin, end)) return;
  float* const sums = scratch;
  const int64_t places = whole_vectors((int64_t)(a.rows - 1) * a.pitch + a.wo);
  float* const band = scratch + places;
  const DepthwiseFinish<V> finish(a);
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
        if (plus) v = V::add(v, ox + V::lanes <= a.wo ? V::loadu(plus + ox) : V::mask_load(V::mask((1u << (a.wo - ox)) - 1), plus + ox));
        return finish(v);
      });
    }
  }
}

template <class V>
void depthwise_rows(const DepthwiseArgs& a, const float* x, const float* weight, float bias, const float* residual, float* y, int begin,
                    int end, float* scratch) {
  if (a.act <= Act::clip) return depthwise_clamped<V>(a, x, weight, bias, residual, y, begin, end, scratch);
  // The others are a pass over what was just written: in a loop of their own they take two thirds of the time.
  DepthwiseArgs plain = a;
  plain.act = Act::none;
  depthwise_clamped<V>(plain, x, weight, bias, residual, y, begin, end, scratch);
  float* const rows = y + (int64_t)begin * a.wo;
  activation_row<V>(a.act, a.alpha, a.beta, rows, rows, (int64_t)(end - begin) * a.wo);
}
