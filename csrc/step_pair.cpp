#include "pair.h"

#include <algorithm>

#include "memory.h"
#include "window_geometry.h"

namespace cosparse {

namespace {

constexpr int64_t kLeastValue = 192 * 1024;   // bytes: with less there is nothing to save
constexpr int64_t kLargeValue = 1024 * 1024;  // bytes: more does not stay in a second-level cache by itself
// Coefficients a filter, at the most: where a convolution multiplies much, what its tiles keep in the first-level cache is worth more than the
// traffic. That of a large value is worth more of them.
constexpr int64_t kFewColumns = 8, kMostColumns = 64;
constexpr int64_t kBlockBytes = 384 * 1024, kSourceBytes = 512 * 1024;  // of the value and the source that a unit keeps in that cache
constexpr int kUnitsEach = 4;                                 // at least so many units for a thread
constexpr double kMostRows = 1.25;                            // times the value's rows are made, as strips overlap

// How a pair is cut into units.
struct Strips {
  int64_t count, shares;  // strips of an image's rows; shares of the block rows
  int at_once;            // block rows whose planes are in the scratch together
  int64_t plane;          // floats of one of them
};

// The reader's window, along rows.
struct RowWindow {
  int64_t kernel, stride, dilation, pad, in, out;

  RowWindow(const Node& node, const Shape& from, const Shape& to)
      : kernel(node.list("kernel")[0]),
        stride(node.list("stride")[0]),
        dilation(node.list("dilation")[0]),
        pad(node.list("pad")[0]),
        in(from.h),
        out(to.h) {}
  // Rows that output rows begin..end-1 read: first..second-1, none where all lie in the padding.
  std::pair<int64_t, int64_t> source(int64_t begin, int64_t end) const {
    const int64_t first = std::clamp<int64_t>(begin * stride - pad, 0, in);
    return {first, std::clamp<int64_t>((end - 1) * stride - pad + (kernel - 1) * dilation + 1, first, in)};
  }
  int64_t begin(int64_t strip, int64_t strips) const { return out * strip / strips; }
  template <class Use> void each(int64_t strips, Use use) const {
    for (int64_t i = 0; i < strips; ++i) {
      const auto [first, beyond] = source(begin(i, strips), begin(i + 1, strips));
      use(beyond - first);
    }
  }
  int64_t most(int64_t strips) const {
    int64_t rows = 0;
    each(strips, [&](int64_t n) { rows = std::max(rows, n); });
    return rows;
  }
  int64_t sum(int64_t strips) const {
    int64_t rows = 0;
    each(strips, [&](int64_t n) { rows += n; });
    return rows;
  }
};

// Whether a few block rows at a time cost no more than all: their maps need no basis step.
bool goes_by_rows(const Node& node, const Weights& w, const Shape& in, const Shape& out) {
  return reads_in_place(node) || Geometry(node, w, in, out).padded;
}

bool overlaps_little(const RowWindow& rows, int64_t strips) { return (double)rows.sum(strips) <= kMostRows * (double)rows.in; }

Strips cut(const Node& writer, const Weights& w, const Shape& source, const Shape& value, const RowWindow& rows, int threads) {
  const bool by_rows = goes_by_rows(writer, w, source, value);
  const int64_t row = value.w * (int64_t)sizeof(float), least = by_rows ? 1 : w.block_rows(),
                wanted = threads > 1 ? kUnitsEach * threads : 1;
  const auto fits = [&](int64_t strips) {
    const int64_t bytes = rows.most(strips) * row;
    return bytes * least * w.r <= kBlockBytes && (!by_rows || bytes * source.c <= kSourceBytes);
  };
  Strips s{1, 1, w.block_rows(), 0};
  while (s.count < rows.out && !fits(s.count)) ++s.count;
  const auto for_all = [&](int64_t units) { return (wanted + units - 1) / units; };
  if (by_rows)
    s.shares = std::min<int64_t>(for_all(value.n * s.count), w.block_rows());
  else
    while (s.count < std::min(for_all(value.n), rows.out) && overlaps_little(rows, s.count + 1)) ++s.count;
  s.plane = round_up(rows.most(s.count) * value.w, kLanes) + kLanes;  // a strip may begin and end within a group
  if (by_rows) s.at_once = (int)std::clamp<int64_t>(kBlockBytes / (s.plane * w.r * (int64_t)sizeof(float)), 1, w.block_rows());
  return s;
}

struct PairStep {
  BlockWriter writer;
  PlaneReader reader;
  std::shared_ptr<const Weights> weights;
  Shape value;
  RowWindow rows;
  Strips strips;

  int64_t block_floats() const { return strips.at_once * weights->r * strips.plane; }

  void operator()(const Run& run) const {
    writer.prepare(run);
    run.pool.each(value.n * strips.count * strips.shares, [&](int64_t unit, int slot) {
      const int64_t share = unit % strips.shares, strip = unit / strips.shares % strips.count, image = unit / strips.shares / strips.count;
      const int all = weights->block_rows(), last = (int)(all * (share + 1) / strips.shares);
      for (int row = (int)(all * share / strips.shares); row < last; row += strips.at_once)
        run_block(run, image, strip, row, std::min(last, row + strips.at_once), run.scratch_of(slot));
    });
  }

  void run_block(const Run& run, int64_t image, int64_t strip, int row, int last, float* scratch) const {
    const int64_t begin = rows.begin(strip, strips.count), end = rows.begin(strip + 1, strips.count);
    const auto [top, bottom] = rows.source(begin, end);
    const int64_t flat = image * value.h * value.w, first = (flat + top * value.w) / kLanes;
    float* const rest = scratch + block_floats();
    if (top < bottom) writer.write(run, row, last, first, (flat + bottom * value.w + kLanes - 1) / kLanes, scratch, strips.plane, rest);
    const int64_t filter = (int64_t)row * weights->r, beyond = std::min<int64_t>((int64_t)last * weights->r, weights->filters);
    for (int64_t c = filter; c < beyond; ++c)
      reader.read(run, c, image, scratch + (c - filter) * strips.plane + flat - first * kLanes, (int)begin, (int)end, rest);
  }
};

}  // namespace

void join_pairs(const Graph& graph, const Options& options, const Prepared& prepared, const std::vector<Shape>& shapes,
                std::vector<Fused>& steps) {
  if (!options.pairs) return;
  std::vector<int> readers(shapes.size(), 0);
  for (const Node& node : graph.nodes)
    for (int v : read_by(node)) ++readers[v];
  for (int v : graph.outputs) ++readers[v];
  const auto weights_of = [&](const Fused& f) {
    const auto own = prepared.weights.find(f.node);
    return own == prepared.weights.end() ? nullptr : own->second.get();
  };
  const auto reads_planes = [&](const Fused& f) {
    const Weights* w = weights_of(f);
    return w ? w->depthwise && w->filters == w->channels : graph.nodes[f.node].op == "max_pool";
  };
  const auto worth_it = [&](const Fused& writer, const Fused& reader) {
    const Weights* w = weights_of(writer);
    const Node &node = graph.nodes[writer.node], &next = graph.nodes[reader.node];
    if (!w || w->depthwise || w->form == Form::winograd || node.op != "conv" || writer.residual >= 0) return false;
    const Shape& value = shapes[writer.output];
    const int64_t bytes = value.c * value.pixels() * (int64_t)sizeof(float);
    if (bytes < kLeastValue || w->kept > w->filters * (bytes < kLargeValue ? kFewColumns : kMostColumns)) return false;
    const RowWindow rows(next, value, shapes[reader.output]);
    // Whatever the threads: sums of single pixels are added in another order where a convolution runs by itself.
    return overlaps_little(rows, cut(node, *w, shapes[node.inputs[0]], value, rows, 1).count);
  };
  for (auto reader = steps.begin(); reader != steps.end(); ++reader) {
    const int value = graph.nodes[reader->node].inputs.empty() ? -1 : graph.nodes[reader->node].inputs[0];
    if (value < 0 || readers[value] != 1 || !reads_planes(*reader)) continue;
    const auto writer = std::find_if(steps.begin(), reader, [&](const Fused& f) { return f.output == value; });
    if (writer == reader || !worth_it(*writer, *reader)) continue;
    writer->into_next = true;
    std::rotate(writer, writer + 1, reader);
  }
}

void build_pair(const Build& first, const Build& second) {
  Step writer, reader;
  const auto weights = first.prepared.weights.at(first.fused.node);
  const Shape value = second.in(0);
  const RowWindow rows(second.node(), value, second.out());
  PairStep pair{block_writer(first, writer),
                second.node().op == "conv" ? depthwise_reader(second, reader) : pool_reader(second, reader),
                weights,
                value,
                rows,
                cut(first.node(), *weights, first.in(0), value, rows, first.options.threads)};
  const int64_t floats = pair.block_floats() + std::max(pair.writer.scratch, pair.reader.scratch);
  first.plan.scratch_floats = std::max(first.plan.scratch_floats, floats);
  writer.run = std::move(pair);
  reader.why += (reader.why.empty() ? "" : "; ") + ("in blocks with '" + first.node().name + "'");
  first.plan.steps.push_back(std::move(writer)), first.plan.steps.push_back(std::move(reader));
}

}  // namespace cosparse
