// Steps that only move values: concat, slice, pad, channel_shuffle, reshape, permute, depth_to_space.
#include <algorithm>
#include <array>
#include <cstring>

#include "plan.h"

namespace cosparse {

namespace {

void push(const Build& b, std::function<void(const Run&)> run) {
  Step step;
  step.op = b.node().op, step.kernel = "copy", step.run = std::move(run);
  b.plan.steps.push_back(std::move(step));
}

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

void copy_row(const float* in, float* out, const std::vector<int64_t>& from, float fill) {
  for (size_t x = 0; x < from.size(); ++x) out[x] = from[x] < 0 ? fill : in[from[x]];
}

void build_axis_copy(const Build& b) {
  const Shape in = b.in(0), out = b.out();
  push(b, [in, out, x = b.at(0), y = b.to(), maps = all_maps(b)](const Run& run) {
    const bool whole_rows = maps.from[2] == identity(in.w);
    run.pool.each(out.c, [&](int64_t c, int) {
      float* to = run.arena + y.offset + c * y.plane;
      const int64_t source = maps.from[0][c];
      if (source < 0) return std::fill(to, to + out.pixels(), maps.fill), void();
      for (int64_t n = 0; n < out.n; ++n)
        for (int64_t oy = 0; oy < out.h; ++oy, to += out.w) {
          const int64_t row = maps.from[1][oy];
          const float* from = run.arena + x.offset + source * x.plane + (n * in.h + std::max<int64_t>(row, 0)) * in.w;
          if (row < 0)
            std::fill(to, to + out.w, maps.fill);
          else if (whole_rows)
            std::memcpy(to, from, out.w * sizeof(float));
          else
            copy_row(from, to, maps.from[2], maps.fill);
        }
    });
  });
}

void build_reshape(const Build& b) {
  const Shape in = b.in(0), out = b.out();
  push(b, [in, out, x = b.at(0), y = b.to()](const Run& run) {
    const int64_t from_plane = in.h * in.w, to_plane = out.h * out.w, total = in.c * from_plane;
    run.pool.each(in.n, [&](int64_t n, int) {
      for (int64_t i = 0; i < total;) {  // runs that are contiguous on both sides
        const int64_t a = i % from_plane, c = i % to_plane, run_length = std::min(from_plane - a, to_plane - c);
        std::memcpy(run.arena + y.offset + i / to_plane * y.plane + n * to_plane + c,
                    run.arena + x.offset + i / from_plane * x.plane + n * from_plane + a, run_length * sizeof(float));
        i += run_length;
      }
    });
  });
}

void build_permute(const Build& b) {
  const Shape out = b.out(), in = b.in(0);
  const Place x = b.at(0);
  const auto& order = b.node().list("order");
  const int64_t stride[4] = {in.h * in.w, x.plane, in.w, 1};  // of n, c, h, w in the source
  const int64_t s[4] = {stride[order[0]], stride[order[1]], stride[order[2]], stride[order[3]]};
  push(b, [=, y = b.to(), n_step = s[0], c_step = s[1], h_step = s[2], w_step = s[3]](const Run& run) {
    run.pool.each(out.c, [&](int64_t c, int) {
      float* to = run.arena + y.offset + c * y.plane;
      for (int64_t n = 0; n < out.n; ++n)
        for (int64_t h = 0; h < out.h; ++h) {
          const float* from = run.arena + x.offset + n * n_step + c * c_step + h * h_step;
          for (int64_t w = 0; w < out.w; ++w) *to++ = from[w * w_step];
        }
    });
  });
}

void build_depth_to_space(const Build& b) {
  const Node& node = b.node();
  const int64_t bh = node.list("block")[0], bw = node.list("block")[1], top = node.list("crop")[0], left = node.list("crop")[1];
  push(b, [=, crd = node.text("order") == "crd", in = b.in(0), out = b.out(), x = b.at(0), y = b.to()](const Run& run) {
    run.pool.each(out.c, [&](int64_t c, int) {
      float* to = run.arena + y.offset + c * y.plane;
      for (int64_t n = 0; n < out.n; ++n)
        for (int64_t oy = 0; oy < out.h; ++oy) {
          const int64_t row = (oy + top) / bh, i = (oy + top) % bh;
          for (int64_t ox = 0; ox < out.w; ++ox) {
            const int64_t column = (ox + left) / bw, j = (ox + left) % bw, source = crd ? (c * bh + i) * bw + j : (i * bw + j) * out.c + c;
            *to++ = run.arena[x.offset + source * x.plane + (n * in.h + row) * in.w + column];
          }
        }
    });
  });
}

}  // namespace

bool moves_along_axes(const Node& node) { return node.op == "slice" || node.op == "pad" || node.op == "channel_shuffle"; }

bool pads_with_value(const Node& node) { return node.op == "pad" && node.text("mode") == "constant"; }

void build_copy(const Build& b) {
  const std::string& op = b.node().op;
  if (op == "reshape") return build_reshape(b);
  if (op == "permute") return build_permute(b);
  if (op == "depth_to_space") return build_depth_to_space(b);
  build_axis_copy(b);
}

void build_concat(const Build& b) {
  const int64_t axis = b.node().integer("axis");
  const Shape out = b.out();
  const Place y = b.to();
  struct Part {
    Place at;
    Shape shape;
    int64_t start;  // along the axis
  };
  std::vector<Part> parts;
  int64_t start = 0;
  for (size_t i = 0; i < b.node().inputs.size(); ++i) {
    const Part part{b.at((int)i), b.in((int)i), start};
    start += axis == 1 ? part.shape.c : axis == 2 ? part.shape.h : part.shape.w;
    if (axis != 1 || part.at.offset != y.offset + part.start * y.plane) parts.push_back(part);  // else its producer wrote it in place
  }
  if (parts.empty()) return;
  push(b, [=](const Run& run) {
    for (const Part& p : parts)
      run.pool.each(p.shape.c, [&](int64_t c, int) {
        const float* from = run.arena + p.at.offset + c * p.at.plane;
        if (axis == 1) return std::memcpy(run.arena + y.offset + (p.start + c) * y.plane, from, out.pixels() * sizeof(float)), void();
        for (int64_t n = 0; n < out.n; ++n)
          for (int64_t h = 0; h < p.shape.h; ++h, from += p.shape.w)
            std::memcpy(
                run.arena + y.offset + c * y.plane + (n * out.h + h + (axis == 2 ? p.start : 0)) * out.w + (axis == 3 ? p.start : 0), from,
                p.shape.w * sizeof(float));
      });
  });
}

}  // namespace cosparse
