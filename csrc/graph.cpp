#include "graph.h"

namespace cosparse {

size_t size_of(Dtype dtype) { return dtype == Dtype::u16 ? 2 : 4; }

int64_t Tensor::count() const {
  int64_t product = 1;
  for (int64_t size : shape) product *= size;
  return product;
}

const Tensor* Node::tensor(const std::string& role) const {
  const auto found = tensors.find(role);
  return found == tensors.end() ? nullptr : found->second;
}

}  // namespace cosparse
