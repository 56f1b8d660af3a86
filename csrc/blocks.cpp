#include "blocks.h"

#include <algorithm>

#include "decode.h"

namespace cosparse {

namespace {

// Takes blocks in order; room for `most` of them is allocated once.
class Writer {
 public:
  Writer(const Layer& layer, int r, int64_t most, Slab& slab) : layer_(layer), slab_(slab) {
    out_.r = r;
    out_.columns.reserve(most);
    out_.values = slab.take<float>(most * r);
  }
  // Where the next block's r values go; nothing is kept of them before take().
  float* next() { return out_.values.get() + (int64_t)out_.columns.size() * out_.r; }
  void take(int row, int column, bool even_zero) {
    const float* v = next();
    if (!even_zero && std::all_of(v, v + out_.r, [](float x) { return x == 0.f; })) return;
    const int filters = std::min(out_.r, layer_.O - row * out_.r), group = row * out_.r / (layer_.O / layer_.G);
    out_.columns.push_back((uint32_t)(group * layer_.K() + column));
    out_.kept += filters;
  }
  void end_row() { out_.rows.push_back((uint32_t)out_.columns.size()); }
  Blocks done() {
    slab_.keep<float>((int64_t)out_.columns.size() * out_.r);
    return std::move(out_);
  }

 private:
  const Layer& layer_;
  Slab& slab_;
  Blocks out_;
};

}  // namespace

Blocks stored_blocks(const Layer& l, int r, const std::vector<double>& factor, Slab& slab) {
  const int K = l.K(), rows = (l.O + r - 1) / r;
  if (!l.block || l.r % r != 0) {  // no stored block holds whole ones of ours
    Writer writer(l, r, (int64_t)rows * K, slab);
    std::vector<double> w((size_t)r * K);
    for (int row = 0; row < rows; ++row, writer.end_row()) {
      fill_dense(l, row * r, r, true, w);
      for (int k = 0; k < K; ++k) {
        float* to = writer.next();
        for (int i = 0; i < r; ++i) to[i] = (float)(w[(size_t)i * K + k] * factor[k % l.taps()]);
        writer.take(row, k, false);
      }
    }
    return writer.done();
  }
  Writer writer(l, r, l.columns->count() * (l.r / r), slab);
  const int parts = l.r / r;
  for (int row = 0; row < rows; ++row, writer.end_row()) {
    const int from = row / parts, part = row % parts * r, filters = std::min(r, l.O - row * r);
    double scale[8];
    for (int i = 0; i < r; ++i) scale[i] = i < filters ? l.scale_of(row * r + i) : 0.0;
    for (uint32_t b = l.rows->u32()[from]; b < l.rows->u32()[from + 1]; ++b) {
      const float* value = l.values->f32() + (size_t)b * l.r + part;
      const int k = (int)l.column(b);
      const double f = factor[k % l.taps()];
      float* to = writer.next();
      for (int i = 0; i < r; ++i) to[i] = (float)(value[i] * scale[i] * f);
      writer.take(row, k, false);
    }
  }
  return writer.done();
}

Blocks tap_blocks(const Layer& l, int r, bool all, Slab& slab) {
  const int K = l.K(), rows = (l.O + r - 1) / r;
  Writer writer(l, r, (int64_t)rows * K, slab);
  std::vector<double> w((size_t)r * K);
  Decoder decode(l);
  for (int row = 0; row < rows; ++row, writer.end_row()) {
    decode(row * r, r, w);
    for (int k = 0; k < K; ++k) {
      float* to = writer.next();
      for (int i = 0; i < r; ++i) to[i] = (float)w[(size_t)i * K + k];
      writer.take(row, k, all);
    }
  }
  return writer.done();
}

}  // namespace cosparse
