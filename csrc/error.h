// One error type for the whole runtime: what it is about, what was expected, what was got, what to do next.
#pragma once
#include <stdexcept>
#include <string>

namespace cosparse {

enum class Fault { artifact, unsupported, shape, usage, memory };  // cosparse.ArtifactError, UnsupportedError, ShapeError, Error, MemoryLimitError

struct Error : std::runtime_error {
  Fault fault;
  std::string what_about, expected, got, next_step;  // what_about: a file, tensor, node, input or option
  Error(Fault f, std::string about, std::string want, std::string have, std::string next)
      : std::runtime_error(about + ": expected " + want + ", got " + have + (next.empty() ? "" : "; " + next)),
        fault(f),
        what_about(std::move(about)),
        expected(std::move(want)),
        got(std::move(have)),
        next_step(std::move(next)) {}
};

}  // namespace cosparse
