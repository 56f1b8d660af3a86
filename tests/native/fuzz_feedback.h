// Which edges of the instrumented code a run took: counts by a hash of the edge.
#pragma once
#include <cstddef>
#include <cstdint>

namespace feedback {

constexpr size_t kEdges = 1 << 16;
extern uint8_t hits[kEdges];
void start();  // of a run

}  // namespace feedback
