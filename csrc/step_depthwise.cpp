// Step of a depthwise convolution: plane by plane, row by row.
#include <algorithm>

#include "memory.h"
#include "pair.h"
#include "plane_rows.h"

namespace cosparse {

namespace {

constexpr int64_t kBandFloats = 4096;  // of source rows and sums: they stay in a first-level cache

// How many output rows a band has, and where in it each tap lies.
struct Band {
  DepthwiseArgs args;
  std::vector<int64_t> offset;
  std::vector<DepthwiseArgs::Residue> residues;

  Band(const Band&) = delete;  // args points into it
  explicit Band(const DepthwiseArgs& given) : args(given) {
    const int64_t R = args.kernel[0], S = args.kernel[1], sy = args.stride[0], sx = args.stride[1];
    const int64_t span = (R - 1) * args.dilation[0] + 1;  // source rows of one output row
    args.pitch = (int)(((args.wo - 1) * sx + (S - 1) * args.dilation[1]) / sx + 1);
    const int64_t row = args.pitch * sx;  // floats of a source row
    args.rows = (int)std::clamp<int64_t>((kBandFloats - span * row) / (sy * row + args.pitch) + 1, 1, args.ho);
    const bool one = args.rows == 1;  // then only the rows that some tap reads are copied
    args.gap = one ? args.dilation[0] : 1, args.row_planes = one ? 1 : (int)sy;
    const int64_t copied = one ? R : (args.rows - 1) * sy + span;
    args.plane = round_up((copied + args.row_planes - 1) / args.row_planes * args.pitch, kLanes) + kLanes;
    args.scratch = whole_vectors((int64_t)(args.rows - 1) * args.pitch + args.wo) + args.row_planes * sx * args.plane + kLanes;
    for (int64_t r = 0; r < R; ++r)
      for (int64_t s = 0; s < S; ++s) {
        const int64_t i = one ? r : r * args.dilation[0], x = s * args.dilation[1];
        offset.push_back((i % args.row_planes * sx + x % sx) * args.plane + i / args.row_planes * args.pitch + x / sx);
      }
    for (int64_t s = 0; s < std::min(S, sx); ++s) {  // they repeat after sx taps
      const int64_t residue = s * args.dilation[1] % sx, start = residue - args.pad[1];
      const int64_t first = std::min<int64_t>(args.pitch, start < 0 ? (-start + sx - 1) / sx : 0);
      const int64_t beyond = start < args.w ? (args.w - 1 - start) / sx + 1 : 0;
      residues.push_back({residue * args.plane, (int)start, (int)first, (int)std::max(first, std::min<int64_t>(args.pitch, beyond))});
    }
    args.offset = offset.data(), args.residues = residues.data(), args.residue_count = (int)residues.size();
  }
};

// Rows of one plane from its source's.
struct DepthwiseRows {
  std::shared_ptr<const Band> band;
  DepthwiseKernel kernel;
  std::shared_ptr<const Weights> weights;
  bool adds;
  Place y, residual;
  Shape out;

  void operator()(const Run& run, int64_t c, int64_t image, const float* from, int begin, int end, float* scratch) const {
    const int64_t taps = (int64_t)band->offset.size(), to = image * (out.h * out.w);
    const float* const plus = adds ? run.arena + residual.offset + c * residual.plane + to : nullptr;
    kernel(band->args, from, weights->values.get() + c * taps, weights->bias[c], plus, run.arena + y.offset + c * y.plane + to, begin, end,
           scratch);
  }
};

DepthwiseRows rows_of(const Build& b, Step& step) {
  const Node& node = b.node();
  const KernelRow& kernel = depthwise_kernel(b.options.isa);
  DepthwiseArgs args{};
  args.h = (int)b.in(0).h, args.w = (int)b.in(0).w, args.ho = (int)b.out().h, args.wo = (int)b.out().w;
  for (int i : {0, 1}) {
    args.kernel[i] = (int)node.list("kernel")[i], args.stride[i] = (int)node.list("stride")[i];
    args.dilation[i] = (int)node.list("dilation")[i], args.pad[i] = (int)node.list("pad")[i];
  }
  args.act = b.fused.act, args.alpha = b.fused.alpha, args.beta = b.fused.beta;
  step.kernel = kernel.name;
  const bool adds = b.fused.residual >= 0;
  return {std::make_shared<const Band>(args),
          kernel.depthwise,
          b.prepared.weights.at(b.fused.node),
          adds,
          b.to(),
          adds ? b.plan.places[b.fused.residual] : Place{},
          b.out()};
}

}  // namespace

void build_depthwise(const Build& b, Step& step) {
  DepthwiseRows rows = rows_of(b, step);
  b.plan.scratch_floats = std::max(b.plan.scratch_floats, rows.band->args.scratch);
  step.run = [rows = std::move(rows), x = b.at(0), in = b.in(0), out = b.out()](const Run& run) {
    const int64_t multiplier = rows.weights->filters / rows.weights->channels;
    each_rows(run, out.c * out.n, out.h, [&](int64_t plane, int begin, int end, int slot) {
      const int64_t c = out.n == 1 ? plane : plane / out.n, image = plane - c * out.n;  // a division costs as much as a row of a small plane
      const float* const from = run.arena + x.offset + (multiplier == 1 ? c : c / multiplier) * x.plane + image * (in.h * in.w);
      rows(run, c, image, from, begin, end, run.scratch_of(slot));
    });
  };
}

PlaneReader depthwise_reader(const Build& b, Step& step) {
  step = begin_conv(b);
  DepthwiseRows rows = rows_of(b, step);
  const int64_t scratch = rows.band->args.scratch;
  return {scratch, std::move(rows)};
}

}  // namespace cosparse
