// The graph and its plans on any artifact: what the reader accepts is made an engine (layers are packed) and planned for several batches and
// sizes, nothing is computed. Each plan has the shapes that were inferred and memory that can be counted, or is refused by a cosparse::Error.
#include <cstdio>
#include <cstdlib>
#include <functional>

#include "artifact_bytes.h"
#include "runs.h"

using cosparse::Engine;
using cosparse::Shape;

namespace {

constexpr int64_t kMostMemory = 2 << 20;  // bytes: a small file may describe any size, and packing and planning take time in proportion

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

// Whether the shapes can be inferred; then a plan must agree with them.
void plan(const Engine& engine, const std::vector<Shape>& shapes) {
  try {
    const auto inferred = cosparse::infer_shapes(engine.graph(), shapes);
    const auto schedule = engine.schedule(shapes);
    for (size_t i = 0; i < schedule->outputs.size(); ++i)
      if (!(schedule->outputs[i] == inferred[(size_t)engine.graph().outputs[i]])) fail("a shape that was not inferred");
    for (const auto& part : schedule->parts)
      if (part.times < 1 || part.plan->arena_floats < 0 || part.plan->scratch_floats < 0) fail("memory that cannot be counted");
  } catch (const cosparse::Error& error) {
    if (error.expected.empty() || error.got.empty()) fail("an error that says nothing");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string content(reinterpret_cast<const char*>(data), size);
  bytes::fix_checksum(content);
  try {
    const std::shared_ptr<const cosparse::Graph> graph = bytes::parse(content);
    bytes::Random choose(std::hash<std::string>()(content));
    cosparse::Options options;
    options.isa = std::min(cosparse::Isa(bytes::pick(choose, (size_t)cosparse::Isa::amx + 1)), cosparse::best_isa());
    options.tile = (int)bytes::pick(choose, 4);
    options.dense = choose() % 4 == 0;
    options.winograd = choose() % 2 ? cosparse::Winograd::always : cosparse::Winograd::measured;
    options.max_memory = kMostMemory;
    options.number = choose() % 4 ? cosparse::Number::f32 : cosparse::Number::bf16;
    const Engine engine(graph, options);
    for (int64_t batch : {1, 5, 1 << 20}) plan(engine, runs::shapes_of(*graph, batch));
    for (int64_t more : {-3, 1, 40}) plan(engine, runs::shapes_of(*graph, 2, more));
  } catch (const cosparse::Error& error) {
    if (error.expected.empty() || error.got.empty()) fail("an error that says nothing");
  }
  return 0;
}
