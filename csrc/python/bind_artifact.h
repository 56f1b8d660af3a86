#pragma once
#include <pybind11/pybind11.h>

#include <memory>

#include "stored_weights.h"

namespace cosparse {

// What Python calls an Artifact. Touched under the GIL alone.
struct Artifact {
  std::shared_ptr<Graph> graph;
  bool taken = false;
};
// For an engine that leaves the tensors where they are. Error where another one has taken them over.
std::shared_ptr<const Graph> share(const Artifact& artifact);
// For the engine that has them from now on. Error where any other engine reads them.
std::unique_ptr<StoredWeights> take_over(Artifact& artifact);

// Artifact, read_artifact, parse_artifact, infer_shapes, output_shapes, operators, blake2b; and Error -> cosparse.errors for the whole module.
void bind_artifact(pybind11::module_& m);

}  // namespace cosparse
