// The safetensors container (docs/artifact.md, "Container"): header length, JSON header, tensor data.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "graph.h"

namespace cosparse {

constexpr int64_t kLongestHeader = int64_t{64} << 20;
constexpr int64_t kLargestBytes = int64_t{64} << 30;  // of a file, and of a network's values together
constexpr int64_t kMostElements = (int64_t{1} << 31) - 1;

struct Container {
  int64_t header_bytes = 0;                      // L; the header text lies at bytes 8 .. 8 + L
  std::string graph;                             // the JSON text of the network
  std::vector<std::unique_ptr<Tensor>> tensors;  // without data, which the header alone does not have
  std::vector<int64_t> begins;                   // byte of the file where the data of each tensor begin
};

// L, from the first 8 bytes (fewer where the file is shorter) of a file of that size.
int64_t read_header_length(const std::byte* bytes, int64_t file_bytes);
// Looks at bytes 0 .. 8 + L only, so it may run before memory is taken for the rest.
Container read_container(const std::byte* bytes, int64_t file_bytes);

}  // namespace cosparse
