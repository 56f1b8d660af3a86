// What a network may take of this machine's memory. A file of a few kilobytes can describe activations and weights of many gigabytes; it is
// refused before they are planned, packed or written, not by the system's killer of processes afterwards.
#pragma once
#include <cstdint>
#include <string>

namespace cosparse {

// Bytes that this process can still take: what the kernel calls available, and what its control groups (v2 and v1) leave, whichever is the
// least; INT64_MAX where none of them can be read. The folders are those of the system, or stand-ins for tests.
int64_t memory_left(const std::string& proc = "/proc", const std::string& groups = "/sys/fs/cgroup");

// Whether `bytes` are at most `most`; 0: at most memory_left().
bool memory_allows(int64_t bytes, int64_t most);

// Throws Error (Fault::memory) where `bytes` are more than `most`; 0: than memory_left(). `what`, `taken`: "activations", "[1, 3, 32, 32]".
void require_memory(const std::string& about, const std::string& what, int64_t bytes, const std::string& taken, int64_t most);

}  // namespace cosparse
