// What int8 learns from samples: a float32 twin (Number::observe) keeps the least and the greatest of each tap's maps, and steps follow.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "plan.h"

namespace cosparse {

// An input of the network: dense row-major floats of this shape.
struct Sample {
  Shape shape;
  const float* data;
};

// The steps of all conv and linear nodes for an int8 engine with these options, from what its layers, in the forms they will have, see of the
// samples; of each sample one array for each input. Throws Error where there are none, or their shapes or numbers will not do.
std::map<int, Quantization> calibrate(std::shared_ptr<const Graph> graph, Options options, const std::vector<std::vector<Sample>>& samples);

// Of a layer that has seen nothing yet.
Ranges no_range(const Weights& weights);

// Throws Error (Fault::usage) where an input or output of the twin holds a NaN: the least and the greatest of numbers pass it over, and the
// steps would be those of the other numbers.
void require_numbers(const std::string& value, const float* x, int64_t count);

}  // namespace cosparse
