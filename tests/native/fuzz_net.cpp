// Plans and kernels on networks made of any bytes (net_builder.h): each is read as an artifact, run in poisoned memory at a batch and a size
// of its own, and must give the shapes that were inferred, the same bits twice, no NaN, and, in float32, the scalar kernels' values but for
// rounding. Or it is refused by a cosparse::Error.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "artifact_bytes.h"
#include "net_builder.h"
#include "runs.h"

using cosparse::Engine;
using cosparse::Shape;
using runs::Outputs;
using runs::run;

namespace {

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::abort();
}

bool has_nan(const Outputs& all) {
  return std::any_of(all.begin(), all.end(), [](const auto& y) { return std::any_of(y.begin(), y.end(), [](float v) { return v != v; }); });
}

void compare(const Outputs& got, const Outputs& want) {
  float most = 1;
  for (const auto& y : want)
    for (float v : y)
      if (std::isfinite(v)) most = std::max(most, std::fabs(v));
  for (size_t i = 0; i < got.size(); ++i)
    for (size_t k = 0; k < got[i].size(); ++k)
      if (got[i][k] != want[i][k] && !(std::fabs(got[i][k] - want[i][k]) <= 1e-3f * most))  // a window beside its input gives infinity
        fail("output " + std::to_string(i) + "[" + std::to_string(k) + "]: " + std::to_string(got[i][k]) + ", by the scalar kernels " +
             std::to_string(want[i][k]));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 8) return 0;
  net::Bytes bytes(data, size);
  cosparse::Options options;
  options.poison = true;
  options.isa = std::min(cosparse::Isa(bytes.below((int)cosparse::Isa::amx + 1)), cosparse::best_isa());
  options.tile = bytes.below(4), options.threads = bytes.below(16) ? 1 : 2, options.dense = bytes.below(8) == 0;
  const int number = bytes.below(4), batch = 1 + bytes.below(5), seed = bytes.byte();
  const bool resize = bytes.below(3) == 0;
  const net::Net made = net::build(bytes, seed % 8 == 3);  // no input that was found before version 3 has such a seed
  std::vector<Shape> shapes;
  for (const auto& input : made.graph.inputs) {
    Shape s = input.example;
    s.n = batch;
    if (s.rank == 4 && resize) s.h += bytes.below(5), s.w += bytes.below(5);
    shapes.push_back(s);
  }
  try {
    const std::shared_ptr<cosparse::Graph> graph = bytes::parse(made.to_artifact());
    const auto inferred = cosparse::infer_shapes(*graph, shapes);
    const Outputs inputs = runs::inputs_of(shapes, (size_t)seed);
    cosparse::Options plain;
    options.winograd = seed & 1 ? cosparse::Winograd::always : cosparse::Winograd::measured;
    plain.isa = cosparse::Isa::scalar, plain.poison = true, plain.dense = options.dense;
    if (number == 0 || number == 3) plain.winograd = options.winograd;  // of NaN and infinity a whole tile knows
    const Outputs want = run(Engine(graph, plain), shapes, inputs);
    std::map<int, cosparse::Quantization> steps;
    if (number == 1) options.number = cosparse::Number::bf16;
    if (number == 2) {
      if (has_nan(want)) return 0;
      cosparse::Options observe = options;
      observe.number = cosparse::Number::observe, observe.tile = 0, observe.threads = 1;
      const Engine twin(graph, observe);
      run(twin, shapes, inputs);
      steps = twin.calibrated();
      options.number = cosparse::Number::int8;
    }
    const Engine engine(graph, options, steps);
    const Outputs got = run(engine, shapes, inputs);
    for (size_t i = 0; i < got.size(); ++i) {
      const Shape& s = inferred[(size_t)graph->outputs[i]];
      if (!(engine.schedule(shapes)->outputs[i] == s)) fail("a shape that was not inferred");
    }
    if (!runs::same_bits(got, run(engine, shapes, inputs))) fail("two runs that differ");
    if (!made.comparable || has_nan(want)) return 0;
    if (has_nan(got)) fail("NaN");
    if (options.number == cosparse::Number::f32) compare(got, want);
  } catch (const cosparse::Error& error) {
    if (std::getenv("FUZZ_SHOW")) std::fprintf(stderr, "%s\n", error.what());
  }
  return 0;
}
