#include "weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "error.h"

namespace cosparse {

namespace {

struct Layer {  // what the node says
  int O, C, Cg, R, S, G, r;
  bool dct, block;
  const Tensor *values, *columns, *rows, *scale, *bias;
  int K() const { return Cg * R * S; }
};

Layer describe(const Node& node) {
  Layer l{};
  const bool conv = node.op == "conv";
  l.O = (int)node.integer("filters"), l.C = (int)node.integer("channels");
  l.R = conv ? (int)node.list("kernel")[0] : 1, l.S = conv ? (int)node.list("kernel")[1] : 1;
  l.G = conv ? (int)node.integer("groups") : 1, l.Cg = l.C / l.G;
  l.dct = node.text("transform") == "dct", l.block = node.text("format") == "block";
  l.r = l.block ? (int)node.integer("block") : 1;
  l.values = node.tensor("values"), l.columns = node.tensor("columns"), l.rows = node.tensor("rows");
  l.scale = node.tensor("scale"), l.bias = node.tensor("bias");
  return l;
}

std::vector<double> dct_matrix(int n) {  // [u][t], orthonormal DCT-II
  std::vector<double> d(n * n);
  for (int u = 0; u < n; ++u)
    for (int t = 0; t < n; ++t) d[u * n + t] = std::sqrt((u ? 2.0 : 1.0) / n) * std::cos(M_PI * (2 * t + 1) * u / (2.0 * n));
  return d;
}

uint32_t column_of(const Layer& l, int64_t b) { return l.columns->dtype == Dtype::u16 ? l.columns->u16()[b] : l.columns->u32()[b]; }

// Coefficients as a dense [O][K] array in double, scale applied.
std::vector<double> unpack(const Layer& l) {
  const int K = l.K();
  std::vector<double> w((size_t)l.O * K, 0.0);
  if (!l.block) {
    for (size_t i = 0; i < w.size(); ++i) w[i] = l.values->f32()[i];
  } else {
    for (int row = 0; row * l.r < l.O; ++row)
      for (uint32_t b = l.rows->u32()[row]; b < l.rows->u32()[row + 1]; ++b)
        for (int i = 0; i < l.r && row * l.r + i < l.O; ++i)
          w[(size_t)(row * l.r + i) * K + column_of(l, b)] = l.values->f32()[(size_t)b * l.r + i];
  }
  if (l.scale)
    for (int o = 0; o < l.O; ++o)
      for (int k = 0; k < K; ++k) w[(size_t)o * K + k] *= l.scale->f32()[o];
  return w;
}

// W = D_R^T S D_S for every filter and channel, in place.
void inverse_dct(std::vector<double>& w, int R, int S) {
  const std::vector<double> dr = dct_matrix(R), ds = dct_matrix(S);
  std::vector<double> half(R * S);
  for (size_t at = 0; at < w.size(); at += R * S) {
    double* s = &w[at];
    for (int u = 0; u < R; ++u)
      for (int x = 0; x < S; ++x) {
        half[u * S + x] = 0;
        for (int v = 0; v < S; ++v) half[u * S + x] += s[u * S + v] * ds[v * S + x];
      }
    for (int y = 0; y < R; ++y)
      for (int x = 0; x < S; ++x) {
        s[y * S + x] = 0;
        for (int u = 0; u < R; ++u) s[y * S + x] += dr[u * R + y] * half[u * S + x];
      }
  }
}

// Cuts [O][K] coefficients into blocks of r filters, all-zero blocks dropped, and numbers the maps that are left.
void pack(const Layer& l, const std::vector<double>& w, Weights& out) {
  const int K = l.K(), RS = l.R * l.S, filters_a_group = l.O / l.G, rows = (l.O + out.r - 1) / out.r;
  std::vector<uint32_t> column;  // over all groups: (channel * R*S + tap)
  std::vector<float> values;
  std::vector<char> needed((size_t)l.C * RS, 0);
  out.rows.assign(1, 0);
  for (int row = 0; row < rows; ++row) {
    const int first = row * out.r, last = std::min(first + out.r, l.O), group = first / filters_a_group;
    for (int k = 0; k < K; ++k) {
      bool any = false;
      for (int o = first; o < last; ++o) any |= (float)w[(size_t)o * K + k] != 0.f;
      if (!any) continue;
      column.push_back((uint32_t)(group * K + k));
      needed[group * K + k] = 1;
      for (int o = first; o < first + out.r; ++o) values.push_back(o < last ? (float)w[(size_t)o * K + k] : 0.f);
      out.kept += last - first;
    }
    out.rows.push_back((uint32_t)column.size());
  }
  std::vector<uint32_t> number((size_t)l.C * RS, 0);
  for (int c = 0; c < l.C; ++c) {
    const int begin = (int)out.taps.size();
    for (int tap = 0; tap < RS; ++tap)
      if (needed[c * RS + tap]) {
        number[c * RS + tap] = (uint32_t)out.taps.size();
        out.taps.push_back((uint16_t)tap);
      }
    uint32_t wanted = 0;
    for (size_t m = begin; m < out.taps.size(); ++m) wanted |= out.taps[m] < 32 ? 1u << out.taps[m] : 0;
    if ((int)out.taps.size() > begin) out.used.push_back({c, begin, (int)out.taps.size(), begin, wanted});
  }
  out.maps = (int)out.taps.size();
  out.columns.resize(column.size());
  for (size_t b = 0; b < column.size(); ++b) out.columns[b] = number[column[b]];
  out.values = allocate_floats((int64_t)values.size());
  std::copy(values.begin(), values.end(), out.values.get());
  out.bytes = (int64_t)(values.size() + column.size() + out.rows.size()) * 4;
}

int block_of(const Layer& l) {  // filters a block row on this target
  if (l.block) return std::min(l.r, 8);
  const int a_group = l.G > 1 ? l.O / l.G : l.O;
  int r = 8;
  while (r > 1 && (l.G > 1 ? a_group % r != 0 : r / 2 >= a_group)) r /= 2;
  return r;
}

// Cost in multiply-adds a pixel and channel, stores included, of making the maps.
double map_cost(Basis basis, int R, int S) {
  if (basis == Basis::taps) return 2.0 * R * S;
  return basis == Basis::dct3 ? 28 : R * S * (R + S + 2.0);
}

}  // namespace

double Weights::basis_cost(int down, int along) const {
  if (basis == Basis::taps) return 0;
  const auto line = [](int n) {  // one n-point DCT: sums and differences of mirrored pairs, then half the rows each
    const int h = n / 2, m = n - h;
    return h + (m - 1) / 2.0 + (m - 1) * (m - 1) + h * (h - 1);
  };
  const int R = kernel[0], S = kernel[1];
  return std::min(std::min(along, S) * line(R) + R * line(S), std::min(down, R) * line(S) + S * line(R));
}

std::shared_ptr<const Weights> prepare_weights(const Node& node) {
  const Layer l = describe(node);
  auto out = std::make_shared<Weights>();
  out->filters = l.O, out->channels = l.C, out->groups = l.G, out->kernel[0] = l.R, out->kernel[1] = l.S;
  if (l.R > kMaxTaps || l.S > kMaxTaps)
    throw Error(Fault::unsupported, "node '" + node.name + "'", "a kernel of at most 64 x 64",
                std::to_string(l.R) + " x " + std::to_string(l.S), "split the convolution");
  out->stored = l.values->count();
  std::vector<double> w = unpack(l);
  out->depthwise = l.G > 1 && l.Cg == 1;
  out->r = block_of(l);
  const int64_t dense = (int64_t)l.O * l.K();
  const double density = l.block ? (double)out->stored / dense : 1.0;
  bool transformed = l.dct && l.R * l.S > 1;
  if (transformed) {
    const Basis basis = l.R == 3 && l.S == 3 ? Basis::dct3 : Basis::dct;
    const double per_filter = (double)l.R * l.S * l.O / l.G;
    if (out->depthwise || l.R > kMaxDct || l.S > kMaxDct) {
      transformed = false, out->why = out->depthwise ? "depthwise: transformed back" : "kernel wider than 11: transformed back";
    } else if (per_filter * density + map_cost(basis, l.R, l.S) >= per_filter + map_cost(Basis::taps, l.R, l.S)) {
      transformed = false, out->why = "too dense for a basis step: transformed back";
    } else {
      out->basis = basis, out->why = "sparse in the DCT";
    }
  }
  if (l.dct && !transformed) inverse_dct(w, l.R, l.S);
  if (transformed && out->basis == Basis::dct3) {
    const double f[3] = {1 / std::sqrt(3.0), 1 / std::sqrt(2.0), 1 / std::sqrt(6.0)};  // scales of (1,1,1), (1,0,-1), (1,-2,1)
    for (size_t i = 0; i < w.size(); ++i) w[i] *= f[i % 9 / 3] * f[i % 3];
  }
  if (transformed && out->basis == Basis::dct) {
    const auto rows = dct_matrix(l.R), cols = dct_matrix(l.S);
    out->basis_rows.assign(rows.begin(), rows.end()), out->basis_cols.assign(cols.begin(), cols.end());
  }
  if (out->depthwise) {
    out->values = allocate_floats(dense);
    for (int64_t i = 0; i < dense; ++i) out->values[i] = (float)w[i];
    out->kept = dense, out->bytes = dense * 4;
    if (out->why.empty()) out->why = "depthwise";
  } else {
    pack(l, w, *out);
    if (out->why.empty()) out->why = l.block ? "sparse" : out->kept < dense ? "dense, all-zero blocks dropped" : "dense";
  }
  out->density = dense ? (double)out->kept / dense : 0;
  const int64_t padded = round_up(l.O, out->r);
  out->bias = allocate_floats(padded);
  for (int64_t o = 0; o < padded; ++o) out->bias[o] = l.bias && o < l.O ? l.bias->f32()[o] : 0.f;
  out->bytes += padded * 4;
  return out;
}

}  // namespace cosparse
