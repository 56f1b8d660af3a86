// Step of slice, pad and channel_shuffle, and of chains of them: each output axis is a map of one input axis.
#include <algorithm>
#include <array>
#include <cstring>

#include "plan.h"
#include "plane_rows.h"

namespace cosparse {

namespace {

// out[n, c, y, x] = in[n, from[0][c], from[1][y], from[2][x]]; -1 stands for `fill`.
struct AxisMaps {
  std::array<std::vector<int64_t>, 3> from;
  float fill = 0;
};

std::vector<int64_t> identity(int64_t n) {
  std::vector<int64_t> map(n);
  for (int64_t i = 0; i < n; ++i) map[i] = i;
  return map;
}

int64_t padded_index(int64_t i, int64_t n, const std::string& mode) {
  if (i >= 0 && i < n) return i;
  if (mode == "constant") return -1;
  if (mode == "replicate") return std::clamp<int64_t>(i, 0, n - 1);
  return i < 0 ? -i : 2 * (n - 1) - i;  // reflect, less than n cells beyond the edge
}

AxisMaps axis_maps(const Node& node, const Shape& in, const Shape& out) {
  const int64_t size[3] = {in.c, in.h, in.w}, length[3] = {out.c, out.h, out.w};
  AxisMaps maps;
  for (int axis = 0; axis < 3; ++axis) {
    auto& map = maps.from[axis] = identity(length[axis]);
    if (node.op == "slice" && node.integer("axis") == axis + 1) {
      int64_t start = node.integer("start");
      start = std::clamp<int64_t>(start < 0 ? start + size[axis] : start, 0, size[axis]);
      for (auto& i : map) i = start + i * node.integer("step");
    }
    if (node.op == "pad") {
      for (auto& i : map) i = padded_index(i - node.list("before")[axis], size[axis], node.text("mode"));
      if (node.text("mode") == "constant") maps.fill = (float)node.number("value");
    }
    if (node.op == "channel_shuffle" && axis == 0) {
      const int64_t groups = node.integer("groups"), each = in.c / groups;
      for (auto& i : map) i = i % groups * each + i / groups;
    }
  }
  return maps;
}

// The node's maps and those of the moves behind it as one.
AxisMaps all_maps(const Build& b) {
  const size_t inputs = b.graph.inputs.size();
  int value = (int)inputs + b.fused.node;
  AxisMaps all = axis_maps(b.node(), b.in(0), b.plan.shapes[value]);
  for (int n : b.fused.moves) {
    const int next = (int)inputs + n;
    const AxisMaps then = axis_maps(b.graph.nodes[n], b.plan.shapes[value], b.plan.shapes[next]);
    for (int axis = 0; axis < 3; ++axis) {
      std::vector<int64_t> map = then.from[axis];
      for (auto& i : map) i = i < 0 ? -1 : all.from[axis][i];
      all.from[axis] = std::move(map);
    }
    if (pads_with_value(b.graph.nodes[n])) all.fill = then.fill;
    value = next;
  }
  return all;
}

// Runs of one row that lie side by side on both sides, and the places that hold the fill.
struct RowCopy {
  struct Piece {
    int64_t to, from, length;  // from -1: fill
  };
  std::vector<Piece> pieces;
  std::vector<int64_t> from;  // instead, where the pieces are short: the source of each place

  explicit RowCopy(const std::vector<int64_t>& map) {
    for (int64_t i = 0; i < (int64_t)map.size(); ++i) {
      const bool grows = !pieces.empty() && (map[i] < 0) == (pieces.back().from < 0) &&
                         (map[i] < 0 || map[i] == pieces.back().from + pieces.back().length);
      if (grows)
        ++pieces.back().length;
      else
        pieces.push_back({i, map[i], 1});
    }
    if (pieces.size() > 8 + map.size() / 8) from = map, pieces.clear();
  }

  void operator()(const float* in, float* out, float fill) const {
    for (const Piece& p : pieces) {
      if (p.from < 0)
        std::fill_n(out + p.to, p.length, fill);
      else
        std::memcpy(out + p.to, in + p.from, p.length * sizeof(float));
    }
    for (size_t i = 0; i < from.size(); ++i) out[i] = from[i] < 0 ? fill : in[from[i]];
  }
};

}  // namespace

bool moves_along_axes(const Node& node) { return node.op == "slice" || node.op == "pad" || node.op == "channel_shuffle"; }

bool pads_with_value(const Node& node) { return node.op == "pad" && node.text("mode") == "constant"; }

void build_axes(const Build& b) {
  const Shape in = b.in(0), out = b.out();
  const AxisMaps maps = all_maps(b);
  const bool whole_planes = maps.from[1] == identity(in.h) && maps.from[2] == identity(in.w);
  Step step;
  step.op = b.node().op, step.kernel = "copy";
  step.run = [in, out, x = b.at(0), y = b.to(), maps, copy_row = RowCopy(maps.from[2]), whole_planes](const Run& run) {
    each_rows(run, out.c * out.n, out.h, [&](int64_t plane, int begin, int end, int) {
      float* to = image_plane(run, y, out, plane) + begin * out.w;
      const int64_t channel = maps.from[0][plane / out.n];
      if (channel < 0) return std::fill_n(to, (end - begin) * out.w, maps.fill), void();
      const float* from = image_plane(run, x, in, channel * in.n + plane % in.n);
      if (whole_planes) return std::memcpy(to, from + begin * out.w, (end - begin) * out.w * sizeof(float)), void();
      for (int oy = begin; oy < end; ++oy, to += out.w) {
        if (const int64_t row = maps.from[1][oy]; row < 0)
          std::fill_n(to, out.w, maps.fill);
        else
          copy_row(from + row * in.w, to, maps.fill);
      }
    });
  };
  b.plan.steps.push_back(std::move(step));
}

}  // namespace cosparse
