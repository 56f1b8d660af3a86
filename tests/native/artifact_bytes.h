// Artifacts as bytes, for programs that damage them: the parts of a file, its checksum made right again, mutations, and a use of every byte.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "checksum.h"
#include "error.h"
#include "graph.h"

namespace bytes {

using Random = std::mt19937_64;

inline size_t pick(Random& random, size_t below) { return below == 0 ? 0 : random() % below; }

// Makes the checksum that stands first in a file right again, so that damage gets deep.
inline void fix_checksum(std::string& content) {
  const std::string prefix = "blake2b-256:";
  const size_t at = content.find(prefix);
  if (at == std::string::npos || at + prefix.size() + 64 > content.size()) return;
  content.replace(at + prefix.size(), 64, std::string(64, '0'));
  cosparse::Blake2b hash;
  hash.update(content.data(), content.size());
  content.replace(at + prefix.size(), 64, hash.hex());
}

struct Parts {
  std::string header, data;
};

// A length that does not fit counts as the whole file's.
inline Parts split(const std::string& content) {
  uint64_t length = 0;
  if (content.size() >= 8) std::memcpy(&length, content.data(), 8);
  const std::string behind = content.size() >= 8 ? content.substr(8) : content;
  length = std::min<uint64_t>(length, behind.size());
  return {behind.substr(0, length), behind.substr(length)};
}

inline std::string join(Parts parts) {
  parts.header.append((8 - parts.header.size() % 8) % 8, ' ');
  const uint64_t length = parts.header.size();
  std::string content(8, '\0');
  std::memcpy(content.data(), &length, 8);
  return content + parts.header + parts.data;
}

// Another number in place of one in the header.
inline void change_number(std::string& header, Random& random) {
  static const std::vector<std::string> numbers = {"0", "1", "2", "3", "7", "8", "64", "255", "65535", "65536", "2147483647", "4294967296",
                                                   "9223372036854775807", "-1", "-2147483648", "0.5", "1e300", "null", "[]"};
  std::vector<size_t> starts;
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  for (size_t i = 1; i < header.size(); ++i) {
    if (is_digit(header[i]) && header[i - 1] && std::strchr("[,: ", header[i - 1])) starts.push_back(i);
  }
  if (starts.empty()) return;
  const size_t start = starts[pick(random, starts.size())];
  size_t end = start;
  while (end < header.size() && is_digit(header[end])) ++end;
  header.replace(start, end - start, numbers[pick(random, numbers.size())]);
}

// A piece of the header again somewhere else, or gone.
inline void move_piece(std::string& header, Random& random) {
  const size_t from = pick(random, header.size()), count = std::min(pick(random, 60), header.size() - from);
  const std::string piece = header.substr(from, count);
  if (random() % 2) header.erase(from, count);
  if (random() % 2) header.insert(pick(random, header.size()), piece);
}

// One to three changes; the checksum of the result is right.
inline std::string damage(const std::string& valid, Random& random) {
  Parts parts = split(valid);
  std::string &header = parts.header, &data = parts.data;
  for (size_t times = 1 + pick(random, 3); times > 0; --times) {
    switch (random() % 5) {
      case 0: change_number(header, random); break;
      case 1: change_number(header, random); break;
      case 2: move_piece(header, random); break;
      case 3: if (!header.empty()) header[pick(random, header.size())] = static_cast<char>(random()); break;
      default: if (!data.empty()) data[pick(random, data.size())] = static_cast<char>(random());
    }
  }
  std::string content = join(std::move(parts));
  if (random() % 50 == 0) {
    const uint64_t length = random() >> pick(random, 64);
    std::memcpy(content.data(), &length, 8);
  }
  if (random() % 20 == 0) content.resize(pick(random, content.size()));
  fix_checksum(content);
  return content;
}

// Touches every byte and every shape that a runtime would touch.
inline uint64_t use(const cosparse::Graph& graph) {
  uint64_t sum = 0;
  for (const auto& tensor : graph.tensors) {
    const auto count = static_cast<size_t>(tensor->count()) * cosparse::size_of(tensor->dtype);
    for (size_t i = 0; i < count; ++i) sum += static_cast<uint64_t>(tensor->data.get()[i]);
    if (reinterpret_cast<uintptr_t>(tensor->data.get()) % cosparse::size_of(tensor->dtype) != 0) throw std::logic_error("misaligned tensor");
  }
  for (int64_t batch : {int64_t{1}, int64_t{7}, int64_t{1} << 40}) {
    std::vector<cosparse::Shape> inputs;
    for (const auto& input : graph.inputs) {
      inputs.push_back(input.example);
      inputs.back().n = batch;
    }
    try {
      for (const auto& shape : cosparse::infer_shapes(graph, inputs)) sum += static_cast<uint64_t>(shape.pixels());
    } catch (const cosparse::Error&) {
    }
  }
  return sum;
}

inline std::shared_ptr<cosparse::Graph> parse(const std::string& content, const std::string& name = "fuzz") {
  return cosparse::parse_artifact(name, reinterpret_cast<const std::byte*>(content.data()), static_cast<int64_t>(content.size()));
}

}  // namespace bytes
