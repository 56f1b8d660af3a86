#include <algorithm>
#include <cstddef>
#include <cstring>

#include "../calibrate.h"
#include "../cores.h"
#include "../message.h"
#include "handles.h"

namespace cosparse {
namespace {

// The caller's options, whatever version of the structure it knows; what it does not know is the default.
cosparse_options read(const cosparse_options* from) {
  cosparse_options options = cosparse_options_default();
  if (!from) return options;
  constexpr size_t kFirst = offsetof(cosparse_options, max_memory);  // the structure as it was first in ABI 1
  const bool known = from->size >= kFirst && from->abi == COSPARSE_ABI;
  if (!known)
    throw Error(Fault::usage, "options", "a structure of ABI " + std::to_string(COSPARSE_ABI) + ", begun with COSPARSE_OPTIONS",
                from->size < kFirst ? "one of " + std::to_string(from->size) + " bytes" : "one of ABI " + std::to_string(from->abi),
                "build the program with the library's own cosparse.h");
  static_assert(offsetof(cosparse_options, reserved) + sizeof(int32_t) == sizeof(cosparse_options),
                "a new option would lie where callers left padding");
  const size_t own = options.size;
  std::memcpy(&options, from, std::min(from->size, own));
  return options;
}

Number number_of(cosparse_dtype dtype) {
  switch (dtype) {
    case COSPARSE_FLOAT32: return Number::f32;
    case COSPARSE_BFLOAT16: return Number::bf16;
    case COSPARSE_INT8: return Number::int8;
  }
  throw Error(Fault::usage, "options.dtype", "one of cosparse_dtype", std::to_string(static_cast<int>(dtype)), "");
}

Options native(const cosparse_options& from) {
  Options options;
  options.threads = from.threads ? from.threads : default_threads();
  options.contexts = from.contexts;
  options.number = number_of(from.dtype);
  options.tune = from.tune != 0;
  options.max_memory = from.max_memory;
  if (from.winograd < -1 || from.winograd > 1)
    throw Error(Fault::usage, "options.winograd", "-1, 0 or 1", std::to_string(from.winograd), "leave it 0 to measure");
  options.winograd = from.winograd == 0 ? Winograd::measured : from.winograd > 0 ? Winograd::always : Winograd::never;
  options.isa = choose_isa(from.isa ? from.isa : "");
  if (from.cores && from.core_count) options.cores.assign(from.cores, from.cores + from.core_count);
  return options;
}

std::map<int, Quantization> steps(const std::shared_ptr<const Graph>& graph, const cosparse_options& from, const Options& options) {
  std::vector<Sample> sample;
  for (size_t i = 0; from.calibration && from.calibration_batch && i < graph->inputs.size(); ++i) {
    Shape shape = graph->inputs[i].example;
    shape.n = static_cast<int64_t>(from.calibration_batch);
    sample.push_back({shape, given(from.calibration[i], "options.calibration[i]")});
  }
  return calibrate(graph, options, sample.empty() ? std::vector<std::vector<Sample>>{} : std::vector<std::vector<Sample>>{sample});
}

template <class Read> cosparse_status load(const Read& read_graph, const cosparse_options* given_options, cosparse_engine** engine) {
  return guarded([&] {
    given(engine, "engine");
    const cosparse_options from = read(given_options);
    const Options options = native(from);
    std::shared_ptr<Graph> graph = read_graph();
    std::map<int, Quantization> quantization;
    if (options.number == Number::int8) quantization = steps(graph, from, options);
    auto made = std::make_unique<cosparse_engine>();
    const std::vector<Shape> shapes = infer_shapes(*graph, example_shapes(*graph));
    for (const int value : graph->outputs) made->names.push_back(graph->value_name(value)), made->shapes.push_back(shapes[value]);
    made->engine = std::make_shared<Engine>(std::make_unique<StoredWeights>(std::move(graph)), options, quantization);
    made->warning = from.warning, made->user = from.user;
    for (const std::string& text : made->engine->warnings()) made->warn(text);
    *engine = made.release();
  });
}

}  // namespace
}  // namespace cosparse

using namespace cosparse;

extern "C" {

cosparse_options cosparse_options_default(void) {
  const cosparse_options options = COSPARSE_OPTIONS;
  return options;
}

cosparse_status cosparse_load_file(const char* path, const cosparse_options* options, cosparse_engine** engine) {
  return load([&] { return read_artifact(given(path, "path")); }, options, engine);
}

cosparse_status cosparse_load_memory(const void* bytes, size_t count, const char* name, const cosparse_options* options,
                                     cosparse_engine** engine) {
  const auto parse = [&] {
    return parse_artifact(name ? name : "artifact", static_cast<const std::byte*>(given(bytes, "bytes")), static_cast<int64_t>(count));
  };
  return load(parse, options, engine);
}

void cosparse_free(cosparse_engine* engine) { delete engine; }
}
