// Steps that only move values: concat, constant, reshape, permute, depth_to_space; slice, pad and channel_shuffle are in step_axes.cpp.
#include <algorithm>
#include <cstring>

#include "plan.h"
#include "plane_rows.h"

namespace cosparse {

namespace {

// to[0], to[step], .. = from[0..n)
void spread(const float* from, float* to, int64_t step, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i * step] = from[i];
}

void build_reshape(const Build& b) {
  const Shape in = b.in(0), out = b.out();
  b.push("copy", [in, out, x = b.at(0), y = b.to()](const Run& run) {
    const int64_t from_plane = in.h * in.w, to_plane = out.h * out.w;
    each_rows(run, out.n, out.c, [&](int64_t n, int begin, int end, int) {
      for (int64_t i = begin * to_plane; i < end * to_plane;) {  // runs that are contiguous on both sides
        const int64_t a = i % from_plane, c = i % to_plane;
        const float* const from = run.arena + x.offset + i / from_plane * x.plane + n * from_plane + a;
        float* const to = run.arena + y.offset + i / to_plane * y.plane + n * to_plane + c;
        const int64_t length = std::min(from_plane - a, to_plane == 1 ? end - i : to_plane - c);
        to_plane == 1 ? spread(from, to, y.plane, length) : (void)std::memcpy(to, from, length * sizeof(float));
        i += length;
      }
    });
  });
}

// to[i * to_a + j * to_b] = from[i + j * from_b], i < na, j < nb: in squares, so that a cache line is used up while it is there.
void transpose(const float* from, int64_t from_b, float* to, int64_t to_a, int64_t to_b, int64_t na, int64_t nb) {
  constexpr int64_t kSquare = 16;
  for (int64_t i = 0; i < na; i += kSquare)
    for (int64_t j = 0; j < nb; j += kSquare)
      for (int64_t k = i; k < std::min(i + kSquare, na); ++k)
        for (int64_t l = j; l < std::min(j + kSquare, nb); ++l) to[k * to_a + l * to_b] = from[k + l * from_b];
}

void build_permute(const Build& b) {
  const Shape out = b.out(), in = b.in(0);
  const auto& order = b.node().list("order");
  const int64_t stride[4] = {in.h * in.w, b.at(0).plane, in.w, 1};  // of n, c, h, w in the source
  b.push("copy", [out, x = b.at(0), y = b.to(), image = stride[0], last = std::find(order.begin(), order.end(), 3) - order.begin(),
           sc = stride[order[1]], sh = stride[order[2]], sw = stride[order[3]]](const Run& run) {
    const auto source = [&](int64_t n, int64_t c, int64_t h) { return run.arena + x.offset + n * image + c * sc + h * sh; };
    const auto target = [&](int64_t n, int64_t c, int64_t h) { return run.arena + y.offset + c * y.plane + (n * out.h + h) * out.w; };
    if (last == 1)  // places that lie side by side in the source become channels
      return each_rows(run, out.n, out.h, [&](int64_t n, int begin, int end, int) {
        for (int h = begin; h < end; ++h) transpose(source(n, 0, h), sw, target(n, 0, h), y.plane, 1, out.c, out.w);
      });
    each_rows(run, out.c * out.n, out.h, [&](int64_t plane, int begin, int end, int) {
      const int64_t n = plane % out.n, c = plane / out.n;
      if (last == 2) return transpose(source(n, c, begin), sw, target(n, c, begin), out.w, 1, end - begin, out.w);
      for (int h = begin; h < end; ++h) std::memcpy(target(n, c, h), source(n, c, h), out.w * sizeof(float));
    });
  });
}

void build_depth_to_space(const Build& b) {
  const Node& node = b.node();
  const int64_t bh = node.list("block")[0], bw = node.list("block")[1], top = node.list("crop")[0], left = node.list("crop")[1];
  b.push("copy", [=, crd = node.text("order") == "crd", in = b.in(0), out = b.out(), x = b.at(0), y = b.to()](const Run& run) {
    each_rows(run, out.c * out.n, out.h, [&](int64_t plane, int begin, int end, int) {
      const int64_t c = plane / out.n, n = plane % out.n;
      for (int64_t oy = begin; oy < end; ++oy) {
        const int64_t row = (oy + top) / bh, i = (oy + top) % bh;
        float* const to = image_plane(run, y, out, plane) + oy * out.w;
        const auto from = [&](int64_t j) {
          const int64_t source = crd ? (c * bh + i) * bw + j : (i * bw + j) * out.c + c;
          return image_plane(run, x, in, source * in.n + n) + row * in.w;
        };
        if (bw == 2 && left == 0 && out.w % 2 == 0) {
          const float *even = from(0), *odd = from(1);
          for (int64_t q = 0; q < out.w / 2; ++q) to[2 * q] = even[q], to[2 * q + 1] = odd[q];
          continue;
        }
        for (int64_t j = 0; j < bw; ++j) {
          const int64_t ox = (j + bw - left % bw) % bw;  // the first that column j of a block goes to
          spread(from(j) + (ox + left) / bw, to + ox, bw, (out.w - ox + bw - 1) / bw);
        }
      }
    });
  });
}

}  // namespace

void build_copy(const Build& b) {
  const std::string& op = b.node().op;
  if (op == "reshape") return build_reshape(b);
  if (op == "permute") return build_permute(b);
  if (op == "depth_to_space") return build_depth_to_space(b);
  build_axes(b);
}

void build_concat(const Build& b) {
  const int64_t axis = b.node().integer("axis");
  const Shape out = b.out();
  const Place y = b.to();
  struct Plane {  // of one input: `runs` of `length` floats, neighbours there and `step` apart in the output
    int64_t from, to, length, step, runs;
  };
  std::vector<Plane> planes;
  int64_t start = 0;  // along the axis
  for (size_t i = 0; i < b.node().inputs.size(); ++i) {
    const Place& x = b.at((int)i);
    const Shape& in = b.in((int)i);
    const int64_t to = y.offset + (axis == 1 ? start * y.plane : axis == 2 ? start * out.w : start);
    start += axis == 1 ? in.c : axis == 2 ? in.h : in.w;
    if (axis == 1 && x.offset == to) continue;  // its producer wrote it in place
    const int64_t length = axis == 1 ? in.pixels() : axis == 2 ? in.h * in.w : in.w;
    for (int64_t c = 0; c < in.c; ++c)
      planes.push_back({x.offset + c * x.plane, to + c * y.plane, length, axis == 2 ? out.h * out.w : out.w, in.pixels() / length});
  }
  if (planes.empty()) return;
  b.push("copy", [planes = std::move(planes)](const Run& run) {
    each_rows(run, (int64_t)planes.size(), 1, [&](int64_t i, int, int, int) {
      const Plane& p = planes[i];
      for (int64_t r = 0; r < p.runs; ++r)
        std::memcpy(run.arena + p.to + r * p.step, run.arena + p.from + r * p.length, p.length * sizeof(float));
    });
  });
}

void build_constant(const Build& b) {
  b.push("copy", [y = b.to(), out = b.out(), values = b.parameter("values")](const Run& run) {
    const int64_t pixels = out.h * out.w;
    each_rows(run, out.c, out.n, [&](int64_t c, int begin, int end, int) {
      for (int n = begin; n < end; ++n) std::memcpy(image_plane(run, y, out, c * out.n + n), values + c * pixels, pixels * sizeof(float));
    });
  });
}

}  // namespace cosparse
