#include <algorithm>
#include <cstddef>
#include <cstring>

#include "../view.h"
#include "handles.h"

namespace cosparse {

cosparse_shape to_c(const Shape& shape, bool any_batch) {
  return {shape.rank, {any_batch ? -1 : shape.n, shape.c, shape.h, shape.w}};
}

cosparse_view to_view(const Graph& graph, size_t index, const Shape& stored) {
  const std::vector<int64_t> sizes = view_sizes(graph, index, stored);
  cosparse_view view = {static_cast<int32_t>(sizes.size()), {}};
  std::copy(sizes.begin(), sizes.end(), view.sizes);
  return view;
}

std::vector<Shape> shapes_of(const Engine& engine, const cosparse_shape* inputs, size_t count) {
  const auto& expected = engine.graph().inputs;
  if (count != expected.size())
    throw Error(Fault::shape, "network '" + engine.graph().name + "'", std::to_string(expected.size()) + " inputs", std::to_string(count),
                "pass them in the order of cosparse_input()");
  given(inputs, "inputs");
  std::vector<Shape> shapes;
  for (size_t i = 0; i < count; ++i) {
    const cosparse_shape& s = inputs[i];
    if (s.rank != 2 && s.rank != 4)
      throw Error(Fault::shape, "input '" + expected[i].name + "'", "rank 4 [N, C, H, W] or rank 2 [N, F]", "rank " + std::to_string(s.rank), "");
    const bool image = s.rank == 4;
    shapes.push_back({s.sizes[0], s.sizes[1], image ? s.sizes[2] : 1, image ? s.sizes[3] : 1, s.rank});
  }
  return shapes;
}

namespace {

cosparse_dtype dtype_of(Number number) {
  return number == Number::bf16 ? COSPARSE_BFLOAT16 : number == Number::int8 ? COSPARSE_INT8 : COSPARSE_FLOAT32;
}

// The shapes of the outputs, which the caller has room for `count` of.
std::vector<Shape> output_shapes(const cosparse_engine* engine, const cosparse_shape* inputs, size_t input_count, size_t count) {
  const Engine& e = *given(engine, "engine")->engine;
  const std::vector<Shape> all = infer_shapes(e.graph(), shapes_of(e, inputs, input_count));
  if (count != engine->names.size())
    throw Error(Fault::usage, "output_count", std::to_string(engine->names.size()), std::to_string(count), "cosparse_output_count() tells");
  std::vector<Shape> shapes;
  for (const int value : e.graph().outputs) shapes.push_back(all[value]);
  return shapes;
}

void check_index(const char* what, size_t index, size_t count) {
  const std::string tells = "cosparse_" + std::string(what) + "_count() tells how many there are";
  if (index >= count) throw Error(Fault::usage, what, "an index below " + std::to_string(count), std::to_string(index), tells);
}

}  // namespace
}  // namespace cosparse

using namespace cosparse;

extern "C" {

cosparse_status cosparse_describe(const cosparse_engine* engine, cosparse_info* info) {
  return guarded([&] {
    const Engine& e = *given(engine, "engine")->engine;
    constexpr size_t kFirst = offsetof(cosparse_info, json) + sizeof(info->json);  // the structure as it was first in ABI 1
    const size_t size = given(info, "info")->size;
    if (size < kFirst)
      throw Error(Fault::usage, "info.size", "at least " + std::to_string(kFirst), std::to_string(size), "set it to sizeof(cosparse_info)");
    const Options& o = e.options();
    const cosparse_info own = {size, e.graph().name.c_str(), name_of(o.isa), dtype_of(o.number), o.threads, o.contexts, e.weight_bytes(),
                               e.arena_bytes(), e.graph().json.c_str()};
    std::memset(info, 0, size);  // a program's structure may be larger, or smaller, than this library's
    std::memcpy(info, &own, std::min(size, sizeof own));
  });
}

size_t cosparse_input_count(const cosparse_engine* engine) { return engine ? engine->engine->graph().inputs.size() : 0; }
size_t cosparse_output_count(const cosparse_engine* engine) { return engine ? engine->names.size() : 0; }

cosparse_status cosparse_input(const cosparse_engine* engine, size_t index, cosparse_value* value) {
  return guarded([&] {
    const auto& inputs = given(engine, "engine")->engine->graph().inputs;
    check_index("input", index, inputs.size());
    *given(value, "value") = {inputs[index].name.c_str(), to_c(inputs[index].example, true)};
  });
}

cosparse_status cosparse_output(const cosparse_engine* engine, size_t index, cosparse_value* value) {
  return guarded([&] {
    check_index("output", index, given(engine, "engine")->names.size());
    *given(value, "value") = {engine->names[index].c_str(), to_c(engine->shapes[index], true)};
  });
}

cosparse_status cosparse_output_shapes(const cosparse_engine* engine, const cosparse_shape* inputs, size_t input_count,
                                       cosparse_shape* outputs, size_t output_count) {
  return guarded([&] {
    const std::vector<Shape> shapes = output_shapes(engine, inputs, input_count, output_count);
    given(outputs, "outputs");
    for (size_t j = 0; j < output_count; ++j) outputs[j] = to_c(shapes[j], false);
  });
}

cosparse_status cosparse_output_views(const cosparse_engine* engine, const cosparse_shape* inputs, size_t input_count, cosparse_view* views,
                                      size_t output_count) {
  return guarded([&] {
    const std::vector<Shape> shapes = output_shapes(engine, inputs, input_count, output_count);
    given(views, "views");
    std::vector<cosparse_view> made;
    for (size_t j = 0; j < output_count; ++j) made.push_back(to_view(engine->engine->graph(), j, shapes[j]));
    std::copy(made.begin(), made.end(), views);
  });
}

size_t cosparse_element_count(const cosparse_shape* shape) {
  if (!shape || (shape->rank != 2 && shape->rank != 4)) return 0;
  size_t count = 1;
  for (int32_t axis = 0; axis < shape->rank; ++axis)
    if (shape->sizes[axis] < 0 || __builtin_mul_overflow(count, static_cast<size_t>(shape->sizes[axis]), &count)) return 0;
  return count;
}
}
