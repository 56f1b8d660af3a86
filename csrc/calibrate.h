// What int8 learns from samples: a float32 twin (Number::observe) keeps the least and the greatest of each tap's maps, and steps follow.
#pragma once
#include "plan.h"

namespace cosparse {

// Of a layer that has seen nothing yet.
Ranges no_range(const Weights& weights);

}  // namespace cosparse
