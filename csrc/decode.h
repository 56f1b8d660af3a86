// Stored coefficients -> taps, in double, filters in their order: what a layer runs on where its transform has no kernel, or does not pay.
#pragma once
#include <vector>

#include "layer.h"

namespace cosparse {

// Coefficients of filters first .. first+r-1 as a dense [r][K] array; filters that are not there are zeros.
void fill_dense(const Layer& layer, int first, int r, bool scaled, std::vector<double>& w);

// W = scale T^-1 S, along filters, channels and taps in turn.
class Decoder {
 public:
  explicit Decoder(const Layer& layer);
  // The taps of filters first .. first+r-1, [r][K], scale applied; filters that are not there are zeros.
  void operator()(int first, int r, std::vector<double>& w);

 private:
  void undo_filters(int first, int r, std::vector<double>& w);
  void undo_channels(double* filter);
  void undo_taps(double* filter);

  Layer layer_;
  InverseDct dct_;
  std::vector<double> filters_, channels_, basis_;  // matrices [u][t]; channels_: one for all tiles, or one for each
  std::vector<double> coefficients_, tile_;         // [points of filters_][K]; tile_ is that of tile `decoded_`
  std::vector<double> points_;                      // of one transform, before it
  int decoded_ = -1;
};

}  // namespace cosparse
