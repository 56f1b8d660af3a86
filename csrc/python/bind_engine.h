#pragma once
#include <pybind11/pybind11.h>

namespace cosparse {

// Engine, kernels, best_isa.
void bind_engine(pybind11::module_& m);

}  // namespace cosparse
