// Steps of conv and linear: phase planes for strides, then tiles of pixels x groups of block rows over the threads.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "memory.h"
#include "plan.h"
#include "window_geometry.h"

namespace cosparse {

namespace {

constexpr int64_t kTileFloats = 96 * 1024;  // maps of a tile that still leave room for the weights in a second-level cache

// Where tiles are too few for the threads, block rows are shared out too; each share then makes its own maps.
int row_shares(int64_t tiles, int rows, int threads) {
  return threads == 1 ? 1 : (int)std::clamp<int64_t>(3 * threads / tiles, 1, std::max(1, rows / 8));
}

// The tile that finishes first: vectors on the busiest thread, a little more each where a tile is one vector wide and shares no weight
// loads.
const KernelRow& choose_kernel(const Options& options, const Weights& w, int64_t pixels) {
  if (options.tile) return conv_kernel(options.isa, w.r, options.tile);
  if (w.r == 8 && pixels <= kLanePixels) return conv_kernel(options.isa, 8, 0);
  const KernelRow* best = nullptr;
  double least = 0;
  for (const KernelRow& row : kernel_table()) {
    if (row.isa != options.isa || !row.conv || row.r != w.r || row.t < 1) continue;
    if (row.t > 1 && (int64_t)w.maps * row.t * row.lanes > kTileFloats) continue;
    const int64_t width = (int64_t)row.t * row.lanes, tiles = (pixels + width - 1) / width;
    const int shares = row_shares(tiles, w.block_rows(), options.threads);
    const int64_t units = (tiles * shares + options.threads - 1) / options.threads;
    const double cost = (double)units * row.t / shares * (row.t == 1 ? 1.05 : 1.0);
    if (!best || cost < least) best = &row, least = cost;
  }
  return *best;
}

struct ConvStep {
  std::shared_ptr<const Weights> weights;
  std::shared_ptr<const Geometry> geometry;
  const KernelRow *full, *single;  // tiles of full->t vectors; the rest one by one
  Place x, y, residual;
  bool has_residual;
  int64_t temporary;
  Act act;
  float alpha, beta;
  int threads;

  ConvArgs args(const Run& run) const {
    ConvArgs a{};
    a.window = geometry->window();
    a.x = run.arena + (geometry->copies ? temporary : x.offset);
    a.x_channel = geometry->channel_floats(x.plane);
    a.basis = weights->basis;
    a.used = weights->used.data(), a.used_count = (int)weights->used.size(), a.maps = weights->maps;
    a.taps = weights->taps.data();
    a.basis_rows = weights->basis_rows.data(), a.basis_cols = weights->basis_cols.data();
    a.rows = weights->rows.data(), a.columns = weights->columns.data();
    a.values = weights->values.get(), a.bias = weights->bias.get(), a.filters = weights->filters;
    a.y = run.arena + y.offset, a.y_plane = y.plane;
    a.residual = has_residual ? run.arena + residual.offset : nullptr, a.residual_plane = residual.plane;
    a.act = act, a.alpha = alpha, a.beta = beta;
    return a;
  }

  void operator()(const Run& run) const {
    if (geometry->copies) geometry->split_phases(run, x, temporary, weights->channels, 0.f);
    const ConvArgs a = args(run);
    const int64_t pixels = a.window.images * a.window.ho * a.window.wo;
    const int width = full->t == 0 ? kLanePixels : full->t * full->lanes;
    const int64_t tiles = (pixels + width - 1) / width;
    const int rows = weights->block_rows(), shares = row_shares(tiles, rows, threads);
    run.pool.each(tiles * shares, [&](int64_t unit, int slot) {
      const int64_t first = unit / shares * width;
      const int share = (int)(unit % shares), begin = (int)((int64_t)rows * share / shares),
                end = (int)((int64_t)rows * (share + 1) / shares);
      if (full->t < 2 || first + width <= round_up(pixels, full->lanes)) return full->conv(a, first, begin, end, run.scratch_of(slot));
      for (int64_t p = first; p < pixels; p += single->lanes) single->conv(a, p, begin, end, run.scratch_of(slot));
    });
  }
};

struct DepthwiseStep {
  std::shared_ptr<const Weights> weights;
  std::shared_ptr<const Geometry> geometry;
  const KernelRow* kernel;
  Place x, y, residual;
  bool has_residual;
  int64_t temporary;
  Act act;
  float alpha, beta;

  void operator()(const Run& run) const {
    if (geometry->copies) geometry->split_phases(run, x, temporary, weights->channels, 0.f);
    WindowArgs a{};
    a.window = geometry->window();
    a.x = run.arena + (geometry->copies ? temporary : x.offset), a.x_channel = geometry->channel_floats(x.plane);
    a.multiplier = weights->filters / weights->channels;
    a.weight = weights->values.get(), a.bias = weights->bias.get();
    a.y = run.arena + y.offset, a.y_plane = y.plane;
    a.residual = has_residual ? run.arena + residual.offset : nullptr, a.residual_plane = residual.plane;
    a.act = act, a.alpha = alpha, a.beta = beta;
    run_window(run, *kernel, a, weights->filters);
  }
};

}  // namespace

void build_conv(const Build& b) {
  const Node& node = b.node();
  const auto weights = b.weights.at(b.fused.node);
  const auto geometry = std::make_shared<const Geometry>(node, b.in(0), b.out());
  const bool has_residual = b.fused.residual >= 0;
  const Place residual = has_residual ? b.plan.places[b.fused.residual] : Place{};
  const double pixels = (double)b.out().pixels();
  Step step;
  step.op = node.op, step.density = weights->density, step.bytes = weights->bytes, step.why = weights->why;
  step.flops = weights->kept * pixels;
  step.dense_flops = (double)weights->filters * (weights->channels / weights->groups) * weights->kernel[0] * weights->kernel[1] * pixels;
  const bool strided = node.op == "conv";
  step.basis_flops = weights->basis_cost(strided ? (int)node.list("stride")[0] : 1, strided ? (int)node.list("stride")[1] : 1) *
                     weights->used.size() * pixels;
  if (weights->depthwise) {
    const KernelRow& kernel = window_kernel(b.options.isa);
    step.kernel = kernel.name;
    step.run = DepthwiseStep{weights,      geometry,    &kernel,     b.at(0),       b.to(),      residual,
                             has_residual, b.temporary, b.fused.act, b.fused.alpha, b.fused.beta};
    b.plan.scratch_floats = std::max(b.plan.scratch_floats, conv_scratch(0, geometry->taps(), 1, kernel.lanes));
  } else {
    const KernelRow& kernel = choose_kernel(b.options, *weights, b.out().pixels());
    const KernelRow& single = kernel.t == 0 ? kernel : conv_kernel(b.options.isa, weights->r, 1);
    step.kernel = kernel.name;
    step.run = ConvStep{weights,      geometry,    &kernel,     &single,       b.at(0),      b.to(),           residual,
                        has_residual, b.temporary, b.fused.act, b.fused.alpha, b.fused.beta, b.options.threads};
    b.plan.scratch_floats = std::max(b.plan.scratch_floats, conv_scratch(weights->maps, geometry->taps(), kernel.t, kernel.lanes));
  }
  b.plan.steps.push_back(std::move(step));
}

}  // namespace cosparse
