// Geometry of a sliding window (convolution) as the kernels want it.
#pragma once
#include <vector>

#include "graph.h"
#include "kernels/kernel.h"
#include "plan.h"

namespace cosparse {

// With stride s, output row y reads source rows s*y + d. Kernels with few taps pick their lanes out of the source as it lies. For large ones,
// which read each place many times, and sources of few channels, where finding the lanes takes longer than the maps, the rows and columns of
// each residue d mod s are first copied side by side into a phase plane: there the stride is 1 and the tap a shift by floor(d / s).
//
// Where rows of the output are whole groups and taps are their own maps, the copies have the padding too: then each tap of all pixels lies
// at one offset from the pixel, and the product reads it there (Source::shifted): they are the maps, in the form that it reads. Where a step
// of the product is four bytes, a place of the copies holds that many neighbouring taps of a kernel's row.
struct Geometry {
  bool copies = false, padded = false;
  int joined = 1;                           // numbers of a place
  int64_t plane = 0;                        // places of a phase plane, where copies
  std::vector<std::pair<int, int>> phases;  // (row, column) residues that some tap needs

  Geometry(const Node& node, const Weights& weights, const Shape& in, const Shape& out);
  Window window() const;
  int taps() const { return window_.rows * window_.cols; }
  // Places, which take a float's room or less.
  int64_t channel_floats(int64_t x_plane) const { return copies ? plane * (int64_t)phases.size() : x_plane; }
  int64_t temporary_floats(int64_t channels) const { return copies ? channels * plane * (int64_t)phases.size() : 0; }
  // Floats of a thread's scratch that split_phases() needs.
  int64_t line_floats() const { return joined > 1 ? whole_vectors(line_numbers()) : 0; }
  // Copies the source's phases to arena + to; places outside the source get what stands for 0. An input is read where the caller has it.
  void split_phases(const Run& run, const Place& x, int64_t to, int channels) const;

 private:
  Window window_{};
  Shape in_;
  Number number_ = Number::f32;  // that copies are made of
  int floats_ = kLanes;          // of memory that kLanes of them take
  float inverse_ = 0, zero_ = 0;  // int8: of all taps
  int stride_[2], first_[2] = {0, 0};  // first: the row and column that a phase plane starts with, in its own steps
  int along_ = 1;                      // dilation of a kernel's row
  // Numbers of a source row that the places of a copied row are joined from.
  int64_t line_numbers() const { return (int64_t)stride_[1] * (window_.wi - 1) + (int64_t)along_ * (joined - 1) + 1; }
  // split_phases() to numbers of type T: make(in, step, n, out) makes n of a row; `outside` stands for 0.
  template <class T, class Row> void copy_phases(const Run& run, const Place& x, T* to, int channels, T outside, const Row& make) const;

  std::vector<int> dy_, dx_;
  std::vector<int64_t> offset_;
};

}  // namespace cosparse
