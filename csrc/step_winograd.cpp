// Step of a 3x3 convolution by tiles of 4x4 output pixels (kernels/winograd.h): blocks of tiles x block rows over the threads.
#include <algorithm>

#include "memory.h"
#include "plan.h"
#include "units.h"

namespace cosparse {

namespace {

// Groups of a block: each block reads all weights anew, but its places and products should stay in a second-level cache, if not all of them
// those of one place.
constexpr int64_t kMostGroups = 3;

// Groups of a block, such that a thread's blocks are alike.
int groups_at_once(int64_t groups, int threads) {
  const int64_t each = std::max<int64_t>(groups / threads, 1), blocks = (each + kMostGroups - 1) / kMostGroups;
  return (int)((each + blocks - 1) / blocks);
}

struct WinogradStep {
  std::shared_ptr<const Weights> weights;
  WinogradArgs args;  // without addresses
  WinogradKernel kernel;
  std::vector<Unit> units;
  Place x, y, residual;
  bool adds;

  void operator()(const Run& run) const {
    WinogradArgs a = args;
    a.x = rows_at<const float>(run, x), a.y = rows_at<float>(run, y);
    if (adds) a.residual = rows_at<const float>(run, residual);
    run.pool.each((int64_t)units.size(), [&](int64_t i, int slot) {
      const Unit& u = units[i];
      if (u.begin < u.end) kernel(a, u.group, u.t, u.begin, u.end, run.scratch_of(slot));
    });
  }
};

}  // namespace

int64_t most_winograd_scratch(const Node& node) {
  const int64_t rows = (node.integer("filters") + kWinogradRows - 1) / kWinogradRows;
  return winograd_scratch(node.integer("channels"), rows, kMostGroups) * (int64_t)sizeof(float);
}

void build_winograd(const Build& b, Step& step) {
  const auto weights = b.prepared.weights.at(b.fused.node);
  const Weights& w = *weights;
  const Shape &in = b.in(0), &out = b.out();
  const KernelRow& kernel = winograd_kernel(w.isa);
  WinogradArgs a{};
  a.images = in.n, a.hi = (int)in.h, a.wi = (int)in.w, a.ho = (int)out.h, a.wo = (int)out.w;
  a.top = (int)b.node().list("pad")[0], a.left = (int)b.node().list("pad")[1];
  for (int i : {0, 1}) a.dilation[i] = (int)b.node().list("dilation")[i];
  const auto tiles = [&](int pixels, int dilation) { return ((pixels + dilation - 1) / dilation + kWinogradTile - 1) / kWinogradTile; };
  a.down = tiles(a.ho, a.dilation[0]), a.along = tiles(a.wo, a.dilation[1]);
  a.channels = w.channels, a.filters = w.filters, a.values = w.values.get(), a.bias = w.bias.get();
  a.act = b.fused.act, a.alpha = b.fused.alpha, a.beta = b.fused.beta;
  const int64_t groups = round_up(a.images * a.dilation[0] * a.dilation[1] * a.down * a.along, kLanes) / kLanes;
  const int tile = chosen_tile(b, step), most = tile ? std::min(tile, kWinogradGroups) : groups_at_once(groups, b.options.threads);
  std::vector<int> widths;
  for (int t = most; t > 0; --t) widths.push_back(t);
  const bool adds = b.fused.residual >= 0;
  WinogradStep run{weights, a, kernel.winograd, share_out(groups, w.block_rows(), b.options.threads, widths, Last::whole),
                   b.at(0), b.to(), adds ? b.plan.places[b.fused.residual] : Place{}, adds};
  for (const Unit& u : run.units)
    if (u.begin < u.end)
      b.plan.scratch_floats = std::max(b.plan.scratch_floats, winograd_scratch(w.channels, u.end - u.begin, u.t));
  step.kernel = kernel.name;
  step.run = std::move(run);
}

}  // namespace cosparse
