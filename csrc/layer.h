// What a conv or linear node says of its weights, and the transform between coefficients and taps.
#pragma once
#include <string>
#include <vector>

#include "graph.h"

namespace cosparse {

// A transform along consecutive tiles of channels or filters; what is left over after the last whole tile stays as it is.
struct Tiles {
  std::string kind;  // dct, walsh, matrix; empty where there is none
  int points = 0;    // a tile
};

struct Layer {
  int O, C, Cg, R, S, G, r;  // filters, channels, channels a group, kernel, groups, filters a stored block
  bool dct, block;           // stored as DCT coefficients; stored as blocks
  const Tensor *values, *columns, *rows, *scale, *bias;
  const Tensor *basis, *tiles;  // matrices [R S, R S] along the taps, [tiles, points, points] along the channels; or nullptr
  Tiles channel_tiles, filter_tiles;
  int K() const { return Cg * R * S; }
  int taps() const { return R * S; }
  bool depthwise() const { return G > 1 && Cg == 1; }
  int64_t dense() const { return (int64_t)O * K(); }
  double density() const { return block ? (double)values->count() / (double)dense() : 1.0; }
  bool transformed() const { return (dct && R * S > 1) || without_kernel(); }
  bool without_kernel() const { return basis || channel_tiles.points || filter_tiles.points; }  // so it is transformed back at load
  uint32_t column(int64_t b) const { return columns->dtype == Dtype::u16 ? columns->u16()[b] : columns->u32()[b]; }
  double scale_of(int filter) const { return scale ? scale->f32()[filter] : 1.0; }
};

Layer describe(const Node& node);
std::string transform_of(const Layer& layer);  // "dct along taps, walsh:16 along channels"
std::vector<double> dct_matrix(int n);         // [u][t], orthonormal DCT-II
std::vector<double> walsh_matrix(int n);       // [u][t], orthonormal Walsh-Hadamard, natural order; n a power of two

// W = D_R^T S D_S for `count` R x S arrays one after the other, in place.
class InverseDct {
 public:
  InverseDct(int R, int S) : R_(R), S_(S), rows_(dct_matrix(R)), cols_(dct_matrix(S)), half_(R * S) {}
  void operator()(double* coefficients, int64_t count);

 private:
  int R_, S_;
  std::vector<double> rows_, cols_, half_;
};

}  // namespace cosparse
