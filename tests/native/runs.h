// An engine called from a program: inputs of any batch, outputs as vectors, comparison by bits.
#pragma once
#include <cmath>
#include <cstring>
#include <vector>

#include "engine.h"

namespace runs {

using Outputs = std::vector<std::vector<float>>;

// The example's shapes at another batch, and larger by `more` rows and columns.
inline std::vector<cosparse::Shape> shapes_of(const cosparse::Graph& graph, int64_t batch, int64_t more = 0) {
  std::vector<cosparse::Shape> shapes;
  for (const auto& input : graph.inputs) {
    shapes.push_back(input.example);
    shapes.back().n = batch;
    if (shapes.back().rank == 4) shapes.back().h += more, shapes.back().w += more;
  }
  return shapes;
}

inline Outputs inputs_of(const std::vector<cosparse::Shape>& shapes, size_t seed = 0) {
  Outputs all;
  for (const auto& s : shapes) {
    all.emplace_back((size_t)(s.n * s.c * s.h * s.w));
    for (size_t i = 0; i < all.back().size(); ++i) all.back()[i] = (float)((int)((i * 31 + seed) % 33) - 16) / 16;
  }
  return all;
}

// What is not written stays NaN.
inline Outputs run(const cosparse::Engine& engine, const std::vector<cosparse::Shape>& shapes, const Outputs& inputs) {
  const auto schedule = engine.schedule(shapes);
  Outputs outputs;
  std::vector<const float*> from;
  std::vector<float*> to;
  for (const auto& x : inputs) from.push_back(x.data());
  for (const auto& s : schedule->outputs) outputs.emplace_back((size_t)(s.n * s.c * s.h * s.w), NAN);
  for (auto& y : outputs) to.push_back(y.data());
  engine.run(*schedule, from, to);
  return outputs;
}

inline bool same_bits(const Outputs& a, const Outputs& b) {
  for (size_t i = 0; i < a.size() && a.size() == b.size(); ++i)
    if (a[i].size() != b[i].size() || std::memcmp(a[i].data(), b[i].data(), a[i].size() * sizeof(float)) != 0) return false;
  return a.size() == b.size();
}

}  // namespace runs
