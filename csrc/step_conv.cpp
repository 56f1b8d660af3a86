// Steps of conv and linear (depthwise ones: step_depthwise.cpp): phase planes for large kernels with a stride, then tiles of pixels x block rows over the threads.
#include <algorithm>
#include <cmath>

#include "memory.h"
#include "pair.h"
#include "plan.h"
#include "shifted.h"
#include "units.h"
#include "window_geometry.h"

namespace cosparse {

namespace {

constexpr int64_t kWeightsInCache = 512 * 1024, kSourceInCache = 512 * 1024;  // bytes
constexpr int kFewThreads = 4, kOwnGroups = 4;
constexpr int64_t kFewGroups = 8, kMapsInCache = 2 * 1024 * 1024;
constexpr int kMapShares = 4;                   // of the channels, for each group
constexpr int64_t kRowsAtOnce = 64 * 1024;      // bytes of weights that a unit reads
constexpr int64_t kRowsAlike = 16;              // at least so many share the columns that they have in common
constexpr int kWidestTile = 3, kUsualTile = 2;  // groups; wider ones spare weight loads, narrower ones cache
constexpr int64_t kManyPixels = 128;            // from which the widest tile takes 5 to 10 % less time, where nothing was measured

// Whether a tiled source is the smaller thing to keep in a second-level cache, so that the weights should pass by it once.
bool rows_first(const Weights& w, int64_t groups, bool made_before) {
  return made_before || (w.bytes > kWeightsInCache && groups * w.channels * w.floats * (int64_t)sizeof(float) <= kSourceInCache);
}

// Where a plane is a tile or two, few threads had better each make its maps for themselves, chunk by chunk, than fetch from another core's cache
// what it has made of them: large weights then pass by once. A short number's sums have no room between chunks.
bool makes_own_maps(const Weights& w, int64_t groups, int threads) {
  return groups <= kOwnGroups && threads <= kFewThreads && (w.floats == kLanes || w.chunks.size() == 1);
}

// The kernels that a step may use, widest first: none of more than `widest` groups of pixels, the narrower ones for what is left over, and that
// for few pixels (t = 0).
std::vector<const KernelRow*> choose_kernels(const std::vector<const KernelRow*>& all, int widest) {
  std::vector<const KernelRow*> chosen;
  for (const KernelRow* row : all)
    if (row->t <= widest) chosen.push_back(row);
  return chosen;
}

struct ConvStep {
  std::shared_ptr<const Weights> weights;
  std::shared_ptr<const Geometry> geometry;
  std::vector<Unit> units;
  std::vector<const KernelRow*> kernels;  // by the t of a unit
  MapsKernel maps;
  Source source, made_from;  // the product's, and that of maps made before it
  Place x, y, residual;
  bool has_residual;
  int64_t temporary;
  Act act;
  float alpha, beta;
  Ranges ranges;  // calibration only
  ShiftedSteps shifted = {};
  bool bounded = false;

  ConvArgs args(const Run& run) const {
    const Weights& w = *weights;
    ConvArgs a{};
    a.window = geometry->window();
    a.source = made_from;
    a.x = rows_at<const float>(run, x);
    if (geometry->copies) a.x = {run.arena + temporary, geometry->channel_floats(x.plane), kLanes, false, 0, 0};
    a.basis = w.basis;
    a.used = w.used.data(), a.taps = w.taps.data();
    a.basis_rows = w.basis_rows.data(), a.basis_cols = w.basis_cols.data();
    a.chunks = w.chunks.data(), a.chunk_count = (int)w.chunks.size(), a.most_maps = w.most_maps();
    a.bounds = w.bounds.data(), a.bounds_step = w.block_rows(), a.columns = w.columns.get();
    a.doubles = w.doubles.data();
    a.same_columns = w.same_columns;
    a.values = w.values.get(), a.bias = w.bias.get(), a.scale = w.scale.get(), a.inverse = w.inverse.data(), a.zero = w.zero.data();
    a.low = ranges.low.get(), a.high = ranges.high.get();
    a.factor = w.factor.data();
    a.filters = w.filters;
    a.y = rows_at<float>(run, y);
    if (has_residual) a.residual = rows_at<const float>(run, residual);
    a.act = act, a.alpha = alpha, a.beta = beta, a.bounded = bounded;
    if (source == Source::shifted) join_chunks(a), shifted.serve(a);
    return a;
  }
  // All chunks are there at once. Double steps are those of one chunk.
  void join_chunks(ConvArgs& a) const {
    if (weights->doubles.empty()) a.bounds_step *= a.chunk_count, a.chunk_count = 1;
  }

  // Of what the kernels do not observe. Before the run, as sums may take the place of what is added to them.
  void observe(const Run& run) const {
    const Window window = geometry->window();
    const auto extend = [&](float* range, const Place& at, int channels, int64_t pixels) {
      const Rows<const float> rows = rows_at<const float>(run, at);
      for (int64_t group = 0; group * kLanes < pixels; ++group)
        for (int channel = 0; channel < channels; ++channel) {
          const float *const from = rows.at(channel, group), *const end = from + std::min<int64_t>(kLanes, pixels - group * kLanes);
          range[0] = std::min(range[0], *std::min_element(from, end)), range[1] = std::max(range[1], *std::max_element(from, end));
        }
    };
    if (has_residual) extend(ranges.added.get(), residual, weights->filters, window.images * window.ho * window.wo);
    if (weights->basis == Basis::dct3 && !geometry->copies)
      extend(ranges.source.get(), x, weights->channels, window.images * window.hi * window.wi);
  }

  void prepare(const Run& run) const {
    if (ranges.low) observe(run);
    if (geometry->copies) geometry->split_phases(run, x, temporary, weights->channels);
  }

  void operator()(const Run& run) const {
    prepare(run);
    ConvArgs a = args(run);
    if (source == Source::maps) {
      a.maps = run.arena + temporary + geometry->temporary_floats(weights->channels);
      make_maps(run, a);
      a.x = {a.maps, weights->floats, (int64_t)weights->maps() * weights->floats, true, 0, 0};
      a.source = source;
      if (weights->floats < kLanes) join_chunks(a);  // else in the same order of additions as where each thread makes its own maps
    }
    run.pool.each((int64_t)units.size(), [&](int64_t i, int slot) {
      const Unit& u = units[i];
      if (u.begin >= u.end) return;
      const KernelRow& kernel = *kernels[u.t];
      (u.behind ? kernel.behind : kernel.conv)(a, u.group, u.begin, u.end, run.scratch_of(slot));
    });
  }

  // BlockWriter. Here kernels are those of tiles, widest first.
  void write(const Run& run, int begin, int end, int64_t first, int64_t beyond, float* to, int64_t plane, float* scratch) const {
    ConvArgs a = args(run);
    a.y = {to - begin * weights->r * plane - first * kLanes, plane, kLanes, false, 0, 0};
    for (const KernelRow* kernel : kernels)
      for (; first + kernel->t <= beyond; first += kernel->t) kernel->conv(a, first, begin, end, scratch);
  }

  void make_maps(const Run& run, const ConvArgs& a) const {
    const int used = (int)weights->used.size(), shares = std::min(used, kMapShares);
    const int64_t groups = round_up(a.window.images * a.window.ho * a.window.wo, kLanes) / kLanes;
    run.pool.each(groups * shares, [&](int64_t i, int slot) {
      const int64_t share = i % shares;
      maps(a, i / shares, (int)(used * share / shares), (int)(used * (share + 1) / shares), run.scratch_of(slot));
    });
  }
};

// ConvArgs::bounded.
bool bounded_steps(const Weights& w, const Place& y, const Place& residual) {
  if (w.number != Number::int8 || !y.tiled) return false;
  const double added = residual.tiled && residual.inverse > 0 ? 512. / residual.inverse : 0;
  const auto small = [&](float bias) {
    return (w.most_sum + std::abs((double)bias) + added) * y.inverse < 0x1p30;
  };  // half the room: roundings
  return std::all_of(w.bias.get(), w.bias.get() + w.filters, small);
}

// Without kernels and units.
ConvStep begin_tiles(const Build& b) {
  const auto weights = b.prepared.weights.at(b.fused.node);
  const auto geometry = std::make_shared<const Geometry>(b.node(), *weights, b.in(0), b.out());
  const bool has_residual = b.fused.residual >= 0;
  const Place residual = has_residual ? b.plan.places[b.fused.residual] : Place{};
  ConvStep conv{weights, geometry, {},           {},          nullptr,     Source::planar, Source::planar, b.at(0),
                b.to(),  residual, has_residual, b.temporary, b.fused.act, b.fused.alpha,  b.fused.beta,   {}};
  if (const auto ranges = b.prepared.ranges.find(b.fused.node); ranges != b.prepared.ranges.end()) conv.ranges = ranges->second;
  if (geometry->copies && conv.x.input >= 0) --b.plan.readers[conv.x.input];
  conv.bounded = bounded_steps(*weights, conv.y, conv.residual);
  conv.made_from = !conv.x.tiled || weights->basis == Basis::dct3 ? Source::planar
                   : reads_in_place(b.node())                     ? Source::tiled
                                                                  : Source::picked;
  if (geometry->padded) conv.made_from = Source::shifted, conv.shifted = shifted_steps(*weights, *geometry);
  return conv;
}

void build_tiles(const Build& b, Step& step, ConvStep conv) {
  const Weights& w = *conv.weights;
  const int64_t pixels = b.out().pixels(), groups = round_up(pixels, kLanes) / kLanes;
  const int rows = w.block_rows();
  const std::vector<const KernelRow*> all = conv_kernels(w.isa, w.number, w.r);
  const bool tiled = conv.made_from == Source::tiled;
  const bool planes_of_steps = conv.made_from == Source::planar && conv.x.tiled && conv.geometry->window().stride_x == 1;
  const bool wide = tiled && conv.x.row_bits > 0,
             one_tile = all[0]->t == kWideGroups && groups == kWideGroups && (tiled || planes_of_steps);
  const bool few = all.back()->t == 0 && !b.options.tile && !wide && !one_tile && pixels - (groups - 1) * kLanes <= few_pixels(*all.back());
  const bool first = !conv.geometry->padded && maps_first(b.node(), w, pixels);
  const bool copied = conv.made_from == Source::planar && reads_in_place(b.node()) && groups - few > 1;  // 1x1, out of planes
  const bool own = (first || copied) && makes_own_maps(w, groups - few, b.options.threads);
  conv.source = first && !own ? Source::maps : conv.made_from;
  conv.maps = maps_kernel(w.isa, w.number);
  const bool in_place = conv.source == Source::maps || (tiled && all[0]->in_place);
  const bool by_rows = own || (wide && one_tile) || (in_place && rows_first(w, groups, conv.source == Source::maps));
  std::vector<int> widths;
  bool behind = few && groups > 1;
  const bool many = pixels >= kManyPixels, fours = wide || one_tile || (planes_of_steps && many && !by_rows);
  const int tile = chosen_tile(b, step), rule = fours ? kWideGroups : by_rows || many ? kWidestTile : kUsualTile;
  for (const KernelRow* row : choose_kernels(all, tile ? tile : rule)) {
    conv.kernels.resize(std::max<size_t>(conv.kernels.size(), row->t + 1));
    conv.kernels[row->t] = row;
    if (row->t > 0) widths.push_back(row->t), behind = behind && pixels % kLanes <= row->pixels_behind;
  }
  const Last last = !few ? Last::whole : behind ? Last::behind : Last::few;
  const int at_once = own ? rows : (int)std::max(w.same_columns ? kRowsAlike : 1, kRowsAtOnce * rows / w.bytes);
  conv.units =
      by_rows ? share_rows(groups, rows, b.options.threads, widths, last, at_once) : share_out(groups, rows, b.options.threads, widths, last);
  const auto most = std::max_element(conv.units.begin(), conv.units.end(), [](const Unit& p, const Unit& q) { return p.t < q.t; });
  step.kernel = conv.kernels[most->t]->name;
  b.plan.scratch_floats = std::max(b.plan.scratch_floats, conv.geometry->line_floats());
  const int maps_at_once = conv.source == Source::maps ? w.maps() : w.most_maps();
  b.plan.scratch_floats = std::max(b.plan.scratch_floats, conv_scratch(maps_at_once, conv.geometry->taps(), most->t + behind));
  step.run = std::move(conv);
}

}  // namespace

bool maps_first(const Node& node, const Weights& w, int64_t pixels) {
  const int64_t groups = round_up(pixels, kLanes) / kLanes;
  return !reads_in_place(node) && !w.depthwise && w.whole_channels() && groups <= kFewGroups && w.bytes > kWeightsInCache &&
         groups * w.maps() * w.floats * (int64_t)sizeof(float) <= kMapsInCache;
}

int64_t temporary_floats(const Node& node, const Weights& w, const Shape& in, const Shape& out) {
  if (w.depthwise || w.form == Form::winograd) return 0;
  const int64_t phases = Geometry(node, w, in, out).temporary_floats(in.c);
  return phases + (maps_first(node, w, out.pixels()) ? round_up(out.pixels(), kLanes) * w.maps() : 0);
}

Step begin_conv(const Build& b) {
  const Node& node = b.node();
  const auto weights = b.prepared.weights.at(b.fused.node);
  Step step;
  step.op = node.op, step.why = weights->why, step.density = weights->density, step.bytes = weights->bytes;
  const double pixels = (double)b.out().pixels();
  step.flops = weights->kept * pixels;
  step.dense_flops = (double)weights->filters * (weights->channels / weights->groups) * weights->kernel[0] * weights->kernel[1] * pixels;
  const bool strided = node.op == "conv";
  step.basis_flops = weights->basis_cost(strided ? (int)node.list("stride")[0] : 1, strided ? (int)node.list("stride")[1] : 1) *
                     weights->used.size() * pixels;
  return step;
}

int chosen_tile(const Build& b, Step& step) {
  const auto choice = b.prepared.choices.find(b.fused.node);
  if (choice == b.prepared.choices.end()) return b.options.tile;
  step.why += "; " + choice->second.why;
  return b.options.tile ? b.options.tile : choice->second.pixels == b.out().pixels() ? choice->second.tile : 0;
}

void build_conv(const Build& b) {
  Step step = begin_conv(b);
  const Weights& w = *b.prepared.weights.at(b.fused.node);
  if (w.depthwise)
    build_depthwise(b, step);
  else if (w.form == Form::winograd)
    build_winograd(b, step);
  else
    build_tiles(b, step, begin_tiles(b));
  b.plan.steps.push_back(std::move(step));
}

BlockWriter block_writer(const Build& b, Step& step) {
  step = begin_conv(b);
  ConvStep conv = begin_tiles(b);
  const Weights& w = *conv.weights;
  conv.source = conv.made_from;
  const int tile = chosen_tile(b, step);
  for (const KernelRow* row : choose_kernels(conv_kernels(w.isa, w.number, w.r), tile ? tile : kUsualTile))
    if (row->t > 0) conv.kernels.push_back(row);
  step.kernel = conv.kernels[0]->name;
  const int64_t scratch =
      std::max(conv.geometry->line_floats(), conv_scratch(w.most_maps(), conv.geometry->taps(), conv.kernels[0]->t));
  const auto shared = std::make_shared<const ConvStep>(std::move(conv));
  return {scratch, [shared](const Run& run) { shared->prepare(run); },
          [shared](const Run& run, int begin, int end, int64_t first, int64_t beyond, float* to, int64_t plane, float* scratch) {
            shared->write(run, begin, end, first, beyond, to, plane, scratch);
          }};
}

}  // namespace cosparse
