// max_pool of int8's steps, in the numbers that tiles hold (contract: PoolStepsKernel in kernel.h): the larger number is the larger value, and 0, which
// no other is below, is what lies outside. Separable, as pool_rows.h. S: vectors of such numbers:
//
//   Number, Reg, lanes    uint8_t or uint16_t; a vector; of so many
//   load, store           of a whole vector; load_some, store_some: of the first n, 0 behind
//   larger                of each lane
//   even(a, b)            the lanes 0, 2, .. of both, one behind the other
//
// Included inside a per-ISA namespace, after taps.h.
template <class S> struct PoolSteps {
  using Number = typename S::Number;
  using Reg = typename S::Reg;

  static void rows(const PoolArgs& a, const float* from, float* to, int begin, int end, float* scratch) {
    const bool square = a.kernel[0] == a.kernel[1];
    square&& a.kernel[0] == 3   ? make<3>(a, from, to, begin, end, scratch)
    : square&& a.kernel[0] == 2 ? make<2>(a, from, to, begin, end, scratch)
                                : make<0>(a, from, to, begin, end, scratch);
  }

 private:
  // known: the kernel's height and width, or 0.
  template <int known> static void make(const PoolArgs& a, const float* from, float* to, int begin, int end, float* scratch) {
    const Number* const x = reinterpret_cast<const Number*>(from);
    Number* const y = reinterpret_cast<Number*>(to);
    const int64_t pitch = pool_steps_pitch(a);
    const int block = pool_steps_block(a), used = pool_used(a);
    Number* const lines = reinterpret_cast<Number*>(scratch) + a.pad[1];
    for (int i = 0; i < block && i < end - begin; ++i) {
      Number* const first = lines + i * pitch - a.pad[1];
      for (int c = 0; c < a.pad[1]; ++c) first[c] = 0;
      for (int c = a.pad[1] + a.w; c < used; ++c) first[c] = 0;
    }
    for (int top = begin; top < end; top += block) {  // a shifted load would otherwise wait for the store that it overlaps
      const int bottom = top + block < end ? top + block : end;
      for (int oy = top; oy < bottom; ++oy) source_rows<known>(a, x, oy, lines + (oy - top) * pitch);
      for (int oy = top; oy < bottom; ++oy) columns<known>(a, lines + (oy - top) * pitch - a.pad[1], y + (int64_t)oy * a.wo);
    }
  }

  template <int known> static void source_rows(const PoolArgs& a, const Number* x, int oy, Number* line) {
    const int top = oy * a.stride[0] - a.pad[0];
    const int64_t pitch = (int64_t)a.dilation[0] * a.w;
    const Inside rows(top, a.dilation[0], a.kernel[0], a.h);
    const Number* const from = x + (int64_t)(top + rows.begin * a.dilation[0]) * a.w;
    if (known && rows.end - rows.begin == known) return line_of<known>(a.w, from, pitch, known, line);
    line_of<0>(a.w, from, pitch, rows.end - rows.begin, line);
  }
  // Of `count` source rows, or `known` ones.
  template <int known> static void line_of(int width, const Number* from, int64_t pitch, int count, Number* line) {
    for (int i = 0; i < width; i += S::lanes) {
      const int n = width - i < S::lanes ? width - i : S::lanes;
      Reg v = S::zero();
#pragma GCC unroll 3
      for (int r = 0; r < (known ? known : count); ++r) {
        const Number* const at = from + r * pitch + i;
        v = S::larger(v, n == S::lanes ? S::load(at) : S::load_some(at, n));
      }
      n == S::lanes ? S::store(line + i, v) : S::store_some(line + i, v, n);
    }
  }

  template <int known> static void columns(const PoolArgs& a, const Number* line, Number* y) {
    const int taps = known ? known : a.kernel[1], dilation = a.dilation[1], stride = a.stride[1];
    if (stride > 2) {
      for (int ox = 0; ox < a.wo; ++ox) {
        Number most = 0;
        for (int s = 0; s < taps; ++s) {
          const Number number = line[ox * stride + s * dilation];
          most = number > most ? number : most;
        }
        y[ox] = most;
      }
      return;
    }
    const auto larger = [&](const Number* at) {
      Reg v = S::load(at);
#pragma GCC unroll 3
      for (int s = 1; s < taps; ++s) v = S::larger(v, S::load(at + s * dilation));
      return v;
    };
    for (int ox = 0; ox < a.wo; ox += S::lanes) {
      const Number* const at = line + ox * stride;
      const Reg v = stride == 1 ? larger(at) : S::even(larger(at), larger(at + S::lanes));
      const int n = a.wo - ox;
      n >= S::lanes ? S::store(y + ox, v) : S::store_some(y + ox, v, n);
    }
  }
};

template <class S> constexpr KernelRow pool_steps_row(const char* name) {
  KernelRow row{};
  row.name = name, row.op = "pool", row.isa = Isa::COSPARSE_ISA_NAMESPACE, row.number = ::cosparse::Number::int8;
  row.r = row.t = row.columns = 1, row.lanes = S::lanes, row.floats = kLanes * (int)sizeof(typename S::Number) / (int)sizeof(float);
  row.pool_steps = PoolSteps<S>::rows;
  return row;
}
