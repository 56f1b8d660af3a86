#pragma once
#include <pybind11/pybind11.h>

namespace cosparse {

// Artifact, read_artifact, parse_artifact, infer_shapes, operators, blake2b; and Error -> cosparse.errors for the whole module.
void bind_artifact(pybind11::module_& m);

}  // namespace cosparse
