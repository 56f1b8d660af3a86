// Steps of add, sub, mul, div, maximum, minimum (with broadcasting), affine, activation and prelu.
#include "plan.h"

namespace cosparse {

void build_binary(const Build& b) {
  static const std::map<std::string, Binary> kinds = {{"add", Binary::add}, {"sub", Binary::sub},         {"mul", Binary::mul},
                                                      {"div", Binary::div}, {"maximum", Binary::maximum}, {"minimum", Binary::minimum}};
  const Binary kind = kinds.at(b.node().op);
  const Shape p = b.in(0), q = b.in(1), out = b.out();
  // The longest run of output pixels over which each operand is contiguous or one repeated value.
  const auto covers = [&](const Shape& s) { return s.h == out.h && s.w == out.w; };
  const auto single = [&](const Shape& s) { return s.h == 1 && s.w == 1; };
  const bool planes = covers(p) && covers(q), images = (covers(p) || single(p)) && (covers(q) || single(q));
  const int64_t run_length = planes ? out.pixels() : images ? out.h * out.w : out.w, runs = out.pixels() / run_length;
  const auto step_of = [&](const Shape& s) { return planes || (images ? covers(s) : s.w == out.w) ? 1 : 0; };
  b.push(b.spans_name(), [=, a = b.at(0), c = b.at(1), a_step = step_of(p), c_step = step_of(q), y = b.to(), fused = b.fused,
           spans = b.spans()](const Run& run) {
    const auto operand = [&](const Place& at, const Shape& s, int64_t channel, int64_t i) {
      const float* plane = run.arena + at.offset + (s.c == 1 ? 0 : channel) * at.plane;
      if (planes) return plane;
      if (images) return plane + i * s.h * s.w;
      return plane + (i / out.h * s.h + (s.h == 1 ? 0 : i % out.h)) * s.w;
    };
    run.pool.each(out.c, [&](int64_t channel, int) {
      for (int64_t i = 0; i < runs; ++i) {
        float* to = run.arena + y.offset + channel * y.plane + i * run_length;
        spans.binary(kind, operand(a, p, channel, i), a_step, operand(c, q, channel, i), c_step, to, run_length);
        if (fused.act != Act::none) spans.activation(fused.act, fused.alpha, fused.beta, to, to, run_length);
      }
    });
  });
}

void build_affine(const Build& b) {
  b.push(b.spans_name(), [x = b.at(0), y = b.to(), shape = b.in(0), fused = b.fused, spans = b.spans(), scale = b.parameter("scale"),
           shift = b.parameter("shift")](const Run& run) {
    run.pool.each(shape.c, [&](int64_t c, int) {
      float* to = run.arena + y.offset + c * y.plane;
      spans.affine(run.arena + x.offset + c * x.plane, scale[c], shift[c], to, shape.pixels());
      if (fused.act != Act::none) spans.activation(fused.act, fused.alpha, fused.beta, to, to, shape.pixels());
    });
  });
}

void build_activation(const Build& b) {
  b.push(b.spans_name(), [x = b.at(0), y = b.to(), shape = b.in(0), fused = b.fused, spans = b.spans()](const Run& run) {
    run.pool.each(shape.c, [&](int64_t c, int) {
      spans.activation(fused.act, fused.alpha, fused.beta, run.arena + x.offset + c * x.plane, run.arena + y.offset + c * y.plane,
                       shape.pixels());
    });
  });
}

void build_prelu(const Build& b) {
  b.push(b.spans_name(), [x = b.at(0), y = b.to(), shape = b.in(0), spans = b.spans(), slope = b.parameter("slope")](const Run& run) {
    run.pool.each(shape.c, [&](int64_t c, int) {
      spans.activation(Act::leaky_relu, slope[c], 0, run.arena + x.offset + c * x.plane, run.arena + y.offset + c * y.plane,
                       shape.pixels());
    });
  });
}

}  // namespace cosparse
