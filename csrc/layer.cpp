#include "layer.h"

#include <bitset>
#include <cmath>

#include "error.h"

namespace cosparse {

Layer describe(const Node& node) {
  Layer l{};
  const bool conv = node.op == "conv";
  l.O = (int)node.integer("filters"), l.C = (int)node.integer("channels");
  l.R = conv ? (int)node.list("kernel")[0] : 1, l.S = conv ? (int)node.list("kernel")[1] : 1;
  l.G = conv ? (int)node.integer("groups") : 1, l.Cg = l.C / l.G;
  l.dct = node.text("transform") == "dct", l.block = node.text("format") == "block";
  l.r = l.block ? (int)node.integer("block") : 1;
  constexpr double kMost = 1 << 28;  // what is counted in 32 bits: filters in whole block rows, floats of rows of maps
  if (l.O > kMost || (double)l.Cg * l.R * l.S > kMost)
    throw Error(Fault::unsupported, "node '" + node.name + "'", "at most 268435456 filters, and inputs of one",
                std::to_string(l.O) + " and " + std::to_string(l.Cg) + " x " + std::to_string(l.R) + " x " + std::to_string(l.S),
                "split the layer");
  l.values = node.tensor("values"), l.columns = node.tensor("columns"), l.rows = node.tensor("rows");
  l.scale = node.tensor("scale"), l.bias = node.tensor("bias");
  l.basis = node.tensor("basis"), l.tiles = node.tensor("tiles");
  const auto tiles_of = [&](const std::string& axis) {
    return node.attrs.count(axis + "_tile") ? Tiles{node.text(axis + "_transform"), (int)node.integer(axis + "_tile")} : Tiles{};
  };
  l.channel_tiles = tiles_of("channels"), l.filter_tiles = tiles_of("filters");
  return l;
}

std::string transform_of(const Layer& l) {
  std::string text = l.basis ? "a matrix along taps" : l.dct && l.taps() > 1 ? "dct along taps" : "";
  const auto add = [&](const Tiles& tiles, const char* axis) {
    if (!tiles.points) return;
    text += (text.empty() ? "" : ", ") + tiles.kind + ":" + std::to_string(tiles.points) + " along " + axis;
  };
  const bool alike = l.channel_tiles.kind == l.filter_tiles.kind && l.channel_tiles.points == l.filter_tiles.points;
  add(l.channel_tiles, alike ? "channels and filters" : "channels");
  if (!alike) add(l.filter_tiles, "filters");
  return text;
}

std::vector<double> walsh_matrix(int n) {
  std::vector<double> h(n * n);
  for (int u = 0; u < n; ++u)
    for (int t = 0; t < n; ++t) h[u * n + t] = (std::bitset<32>(u & t).count() % 2 ? -1 : 1) / std::sqrt((double)n);
  return h;
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
