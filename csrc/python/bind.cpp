#include <pybind11/pybind11.h>

#include "bind_artifact.h"
#include "bind_engine.h"

PYBIND11_MODULE(_C, m) {
  m.doc() = "The C++ runtime of cosparse: artifact reader, planner, kernels.";
  cosparse::bind_artifact(m);
  cosparse::bind_engine(m);
}
