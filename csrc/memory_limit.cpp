#include "memory_limit.h"

#include <algorithm>
#include <fstream>
#include <limits>

#include "error.h"

namespace cosparse {

namespace {

constexpr int64_t kUnknown = std::numeric_limits<int64_t>::max();
constexpr int64_t kAlwaysThere = 64 << 20;  // bytes that are not worth a look at the machine

// The number in a file that holds one, or the one behind the word `key`; kUnknown where there is none ("max").
int64_t number_in(const std::string& path, const std::string& key = "") {
  std::ifstream file(path);
  std::string word;
  int64_t number = kUnknown;
  if (key.empty()) return file >> number ? number : kUnknown;
  while (file >> word)
    if (word == key) return file >> number ? number : kUnknown;
  return kUnknown;
}

// What one control group leaves. Pages of files count as used, though the kernel gives up those that nobody touched of late.
int64_t left_in(const std::string& group, const std::string& limit, const std::string& usage) {
  const int64_t most = number_in(group + limit), used = number_in(group + usage);
  if (most == kUnknown || used == kUnknown) return kUnknown;
  const int64_t pages = number_in(group + "/memory.stat", "inactive_file");
  return std::max<int64_t>(0, most - used + (pages == kUnknown ? 0 : std::min(pages, used)));
}

std::string text_of_bytes(int64_t bytes) {
  return bytes < 10000000 ? std::to_string(bytes) + " bytes" : std::to_string(bytes / 1000000) + " MB";
}

}  // namespace

int64_t memory_left(const std::string& proc, const std::string& groups) {
  const int64_t kilobytes = number_in(proc + "/meminfo", "MemAvailable:");
  int64_t left = kilobytes > kUnknown / 1024 ? kUnknown : kilobytes * 1024;
  std::ifstream file(proc + "/self/cgroup");  // lines of number:controllers:path
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty(), v1 = controllers == "memory";
    for (std::string path = line.substr(second + 1); v2 || v1;) {  // the group, and those that it lies in
      if (!path.empty() && path.back() == '/') path.pop_back();
      const std::string group = groups + (v1 ? "/memory" : "") + path;
      left = std::min(left, v2 ? left_in(group, "/memory.max", "/memory.current")
                               : left_in(group, "/memory.limit_in_bytes", "/memory.usage_in_bytes"));
      if (path.empty()) break;
      path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
    }
  }
  return left;
}

bool memory_allows(int64_t bytes, int64_t most) { return bytes <= (most ? most : kAlwaysThere) || (!most && bytes <= memory_left()); }

void require_memory(const std::string& about, const std::string& what, int64_t bytes, const std::string& taken, int64_t most) {
  if (bytes <= (most ? most : kAlwaysThere)) return;
  const int64_t limit = most ? most : memory_left();
  if (bytes <= limit) return;
  throw Error(Fault::memory, about, what + " of at most " + text_of_bytes(limit) + (most ? " (max_memory)" : " (what this machine has left)"),
              text_of_bytes(bytes) + " for " + taken, "use smaller batches or images, or allow it more memory");
}

}  // namespace cosparse
