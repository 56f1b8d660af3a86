#include "decode.h"

#include <algorithm>

namespace cosparse {

namespace {

std::vector<double> doubles(const Tensor& tensor) { return {tensor.f32(), tensor.f32() + tensor.count()}; }

std::vector<double> matrices(const Tiles& tiles, const Tensor* stored) {
  return stored ? doubles(*stored) : tiles.kind == "walsh" ? walsh_matrix(tiles.points) : dct_matrix(tiles.points);
}

}  // namespace

void fill_dense(const Layer& l, int first, int r, bool scaled, std::vector<double>& w) {
  const int K = l.K(), last = std::min(first + r, l.O);
  const auto scale = [&](int o) { return scaled ? l.scale_of(o) : 1.0; };
  std::fill(w.begin(), w.end(), 0.0);
  if (!l.block) {
    for (int o = first; o < last; ++o)
      for (int k = 0; k < K; ++k) w[(size_t)(o - first) * K + k] = l.values->f32()[(size_t)o * K + k] * scale(o);
    return;
  }
  for (int row = first / l.r; row * l.r < last; ++row)
    for (uint32_t b = l.rows->u32()[row]; b < l.rows->u32()[row + 1]; ++b)
      for (int o = std::max(first, row * l.r); o < std::min(last, (row + 1) * l.r); ++o)
        w[(size_t)(o - first) * K + l.column(b)] = l.values->f32()[(size_t)b * l.r + o - row * l.r] * scale(o);
}

Decoder::Decoder(const Layer& layer) : layer_(layer), dct_(layer.R, layer.S) {
  if (layer.filter_tiles.points) {
    filters_ = matrices(layer.filter_tiles, nullptr);
    coefficients_.resize((size_t)layer.filter_tiles.points * layer.K());
    tile_.resize(coefficients_.size());
  }
  if (layer.channel_tiles.points) channels_ = matrices(layer.channel_tiles, layer.tiles);
  if (layer.basis) basis_ = doubles(*layer.basis);
  points_.resize(std::max(layer.taps(), layer.channel_tiles.points));
}

void Decoder::operator()(int first, int r, std::vector<double>& w) {
  if (filters_.empty())
    fill_dense(layer_, first, r, true, w);
  else
    undo_filters(first, r, w);
  if (layer_.without_kernel()) {
    for (int i = 0; i < r; ++i) {
      double* filter = w.data() + (size_t)i * layer_.K();
      if (!channels_.empty()) undo_channels(filter);
      if (!basis_.empty()) undo_taps(filter);
    }
  }
  if (layer_.dct && layer_.taps() > 1) dct_(w.data(), (int64_t)r * layer_.Cg);
}

// A filter of a whole tile is a sum over all filters of the tile. Callers go upwards, so each tile is made once.
void Decoder::undo_filters(int first, int r, std::vector<double>& w) {
  const int K = layer_.K(), n = layer_.filter_tiles.points;
  fill_dense(layer_, first, r, false, w);
  for (int o = first; o < std::min(first + r, layer_.O); ++o) {
    const int tile = o / n;
    if ((tile + 1) * n <= layer_.O) {
      if (tile != decoded_) {
        fill_dense(layer_, tile * n, n, false, coefficients_);
        std::fill(tile_.begin(), tile_.end(), 0.0);
        for (int u = 0; u < n; ++u)
          for (int t = 0; t < n; ++t)
            for (int k = 0; k < K; ++k) tile_[(size_t)t * K + k] += filters_[u * n + t] * coefficients_[(size_t)u * K + k];
        decoded_ = tile;
      }
      std::copy_n(&tile_[(size_t)(o - tile * n) * K], K, &w[(size_t)(o - first) * K]);
    }
    for (int k = 0; k < K; ++k) w[(size_t)(o - first) * K + k] *= layer_.scale_of(o);
  }
}

void Decoder::undo_channels(double* filter) {
  const int n = layer_.channel_tiles.points, taps = layer_.taps();
  for (int tile = 0; (tile + 1) * n <= layer_.C; ++tile) {
    const double* matrix = &channels_[layer_.tiles ? (size_t)tile * n * n : 0];
    for (int tap = 0; tap < taps; ++tap) {
      double* first = filter + (size_t)tile * n * taps + tap;
      for (int u = 0; u < n; ++u) points_[u] = first[(size_t)u * taps];
      for (int t = 0; t < n; ++t) {
        double sum = 0;
        for (int u = 0; u < n; ++u) sum += matrix[u * n + t] * points_[u];
        first[(size_t)t * taps] = sum;
      }
    }
  }
}

void Decoder::undo_taps(double* filter) {
  const int n = layer_.taps();
  for (int c = 0; c < layer_.Cg; ++c, filter += n) {
    std::copy_n(filter, n, points_.begin());
    for (int t = 0; t < n; ++t) {
      double sum = 0;
      for (int u = 0; u < n; ++u) sum += basis_[u * n + t] * points_[u];
      filter[t] = sum;
    }
  }
}

}  // namespace cosparse
