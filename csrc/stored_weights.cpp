#include "stored_weights.h"

namespace cosparse {

StoredWeights::StoredWeights(std::shared_ptr<Graph> graph) : graph_(std::move(graph)) {
  for (const auto& tensor : graph_->tensors) uses_[tensor.get()].tensor = tensor.get();
  for (const Node& node : graph_->nodes)
    for (const auto& [role, tensor] : node.tensors) uses_[tensor].readers.insert(&node);
}

void StoredWeights::give_up(const Node& layer) {
  std::lock_guard<std::mutex> guard(lock_);
  for (const auto& [role, tensor] : layer.tensors) {
    Use& use = uses_.at(tensor);
    use.readers.erase(&layer);
    if (use.readers.empty()) use.tensor->data.reset();
  }
}

}  // namespace cosparse
