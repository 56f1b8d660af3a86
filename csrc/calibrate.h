// What int8 learns from samples: a float32 twin (Number::observe) keeps the least and the greatest of each tap's maps, and steps follow.
#pragma once
#include <string>

#include "plan.h"

namespace cosparse {

// Of a layer that has seen nothing yet.
Ranges no_range(const Weights& weights);

// Throws Error (Fault::usage) where an input or output of the twin holds a NaN: the least and the greatest of numbers pass it over, and the
// steps would be those of the other numbers.
void require_numbers(const std::string& value, const float* x, int64_t count);

}  // namespace cosparse
