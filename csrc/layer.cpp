#include "layer.h"

#include <cmath>

namespace cosparse {

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

std::vector<double> dct_matrix(int n) {
  std::vector<double> d(n * n);
  for (int u = 0; u < n; ++u)
    for (int t = 0; t < n; ++t) d[u * n + t] = std::sqrt((u ? 2.0 : 1.0) / n) * std::cos(M_PI * (2 * t + 1) * u / (2.0 * n));
  return d;
}

void InverseDct::operator()(double* s, int64_t count) {
  for (; count > 0; --count, s += R_ * S_) {
    for (int u = 0; u < R_; ++u)
      for (int x = 0; x < S_; ++x) {
        double sum = 0;
        for (int v = 0; v < S_; ++v) sum += s[u * S_ + v] * cols_[v * S_ + x];
        half_[u * S_ + x] = sum;
      }
    for (int y = 0; y < R_; ++y)
      for (int x = 0; x < S_; ++x) {
        double sum = 0;
        for (int u = 0; u < R_; ++u) sum += rows_[u * R_ + y] * half_[u * S_ + x];
        s[y * S_ + x] = sum;
      }
  }
}

}  // namespace cosparse
