// The stored weights of an artifact that one engine has taken over. They are needed until its layers are packed, and given up layer by
// layer, so that a network lies in memory once and not twice.
#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <set>

#include "graph.h"

namespace cosparse {

class StoredWeights {
 public:
  // Nobody else reads the tensors of `graph` any more. What Python has made arrays of stays alive through them.
  explicit StoredWeights(std::shared_ptr<Graph> graph);
  std::shared_ptr<const Graph> graph() const { return graph_; }

  // This conv or linear node is packed. Any number of threads.
  void give_up(const Node& layer);

 private:
  std::shared_ptr<Graph> graph_;
  std::mutex lock_;
  struct Use {
    Tensor* tensor;
    std::set<const Node*> readers;  // that still need it; those of other ops always do
  };
  std::map<const Tensor*, Use> uses_;
};

}  // namespace cosparse
