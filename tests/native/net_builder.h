// Small networks from any bytes: each byte decides something, and most of what comes out is valid. For fuzzing of plans and kernels.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "graph.h"

namespace net {

// Numbers out of bytes; zeros behind the end.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}
  bool left() const { return at_ < end_; }
  int byte() { return at_ < end_ ? *at_++ : 0; }
  int below(int n) { return byte() % n; }
  int one_of(std::initializer_list<int> list) { return list.begin()[below((int)list.size())]; }
  bool coin() { return byte() & 1; }

 private:
  const uint8_t *at_, *end_;
};

struct Net {
  cosparse::Graph graph;       // owns its tensors
  bool comparable = true;      // no node that makes large differences of small ones (division, norms, powers)
  std::string to_artifact() const;
};

// `later`: also what version 3 of the artifact added.
Net build(Bytes& bytes, bool later);

}  // namespace net
