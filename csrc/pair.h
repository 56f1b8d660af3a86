// Pairs: a convolution and the one step that reads it plane by plane, run as one step. A unit of work is some block rows and a strip of the
// reader's rows: the convolution writes these channels' part into scratch that stays in a second-level cache, and the reader reads it there. The
// value between them has no place in the arena.
#pragma once
#include <functional>

#include "plan.h"

namespace cosparse {

// A convolution whose output goes where its reader wants it, some block rows and groups of pixels at a time.
struct BlockWriter {
  int64_t scratch;                          // floats
  std::function<void(const Run&)> prepare;  // once a run, before any call
  // Block rows begin..end-1 over groups first..beyond-1: the first filter's at `to`, then one every `plane` floats.
  std::function<void(const Run&, int begin, int end, int64_t first, int64_t beyond, float* to, int64_t plane, float* scratch)> write;
};

// A step that makes each plane of its output from the same plane of its input.
struct PlaneReader {
  int64_t scratch;  // floats
  // Output rows begin..end-1 of channel c of an image, from the image's plane at `from`, of which it reads the rows of their windows alone.
  std::function<void(const Run&, int64_t c, int64_t image, const float* from, int begin, int end, float* scratch)> read;
};

// step_conv.cpp, step_depthwise.cpp, step_pool.cpp. They fill `step` but for its `run`.
BlockWriter block_writer(const Build&, Step& step);
PlaneReader depthwise_reader(const Build&, Step& step);
PlaneReader pool_reader(const Build&, Step& step);

// Marks the steps that go into their reader (Fused::into_next) and puts each of them right before it.
void join_pairs(const Graph& graph, const Options& options, const Prepared& prepared, const std::vector<Shape>& shapes,
                std::vector<Fused>& steps);
// Two steps, the first of which runs both.
void build_pair(const Build& writer, const Build& reader);

}  // namespace cosparse
