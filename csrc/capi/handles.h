// What stands behind the handles of cosparse.h, and how its functions begin and end.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "../engine.h"
#include "../error.h"
#include "../include/cosparse.h"

struct cosparse_engine {
  std::shared_ptr<cosparse::Engine> engine;
  std::vector<std::string> names;       // of the outputs
  std::vector<cosparse::Shape> shapes;  // of the outputs at the example's size
  void (*warning)(const char* text, void* user) = nullptr;
  void* user = nullptr;
  void warn(const std::string& text) const {
    if (warning && !text.empty()) warning(text.c_str(), user);
  }
};

struct cosparse_context {
  std::shared_ptr<cosparse::Engine> engine;  // alive for as long as any context
  std::shared_ptr<const cosparse::Schedule> schedule;
  std::unique_ptr<cosparse::Context> memory;
  std::vector<const float*> inputs;  // of the run at hand: memory that is there already
  std::vector<float*> outputs;
};

namespace cosparse {

// Keeps the exception at hand as the thread's latest error; its status. Only within a catch block.
cosparse_status caught() noexcept;

// The body of a function of cosparse.h: whatever it throws becomes a status.
template <class Body> cosparse_status guarded(const Body& body) noexcept {
  try {
    body();
    return COSPARSE_OK;
  } catch (...) { return caught(); }
}

// The argument, which must not be NULL.
template <class Pointer> Pointer given(Pointer pointer, const char* name) {
  if (!pointer) throw Error(Fault::usage, name, "a pointer", "NULL", "cosparse.h says which arguments may be NULL");
  return pointer;
}

cosparse_shape to_c(const Shape& shape, bool any_batch);
// The view of output `index`, whose array has the shape `stored`; throws Error(Fault::shape) where it does not fit.
cosparse_view to_view(const Graph& graph, size_t index, const Shape& stored);
// Shapes of all inputs; throws Error (Fault::shape) where there are more or fewer, or one has no sizes.
std::vector<Shape> shapes_of(const Engine& engine, const cosparse_shape* inputs, size_t count);

}  // namespace cosparse
