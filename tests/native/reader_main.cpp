// The reader under the sanitizers.
//   reader FILE...              reads each; files called bad-* must be refused, all others accepted
//   reader --mutate N SEED FILE reads N damaged copies of a valid file, their checksum made right again so that the damage gets deep
//   reader --length FOLDER      files that shrink or grow between opening and reading
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "checksum.h"
#include "error.h"
#include "file.h"
#include "graph.h"

namespace {

using cosparse::Error;
using Random = std::mt19937_64;

size_t pick(Random& random, size_t below) { return below == 0 ? 0 : random() % below; }

// Touches every byte and every shape that a runtime would touch.
uint64_t use(const cosparse::Graph& graph) {
  uint64_t sum = 0;
  for (const auto& tensor : graph.tensors) {
    const auto bytes = static_cast<size_t>(tensor->count()) * cosparse::size_of(tensor->dtype);
    for (size_t i = 0; i < bytes; ++i) sum += static_cast<uint64_t>(tensor->data.get()[i]);
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
    } catch (const Error&) {
    }
  }
  return sum;
}

int read_files(const std::vector<std::string>& paths) {
  int wrong = 0, refused = 0;
  for (const std::string& path : paths) {
    const std::string name = path.substr(path.rfind('/') + 1);
    const bool bad = name.compare(0, 4, "bad-") == 0;
    std::string verdict;
    try {
      use(*cosparse::read_artifact(path));
    } catch (const Error& error) {
      verdict = error.what();
      ++refused;
    }
    if (verdict.empty() == bad) {
      std::cerr << name << (bad ? ": accepted\n" : ": refused: " + verdict + "\n");
      ++wrong;
    }
  }
  std::cout << paths.size() << " files, " << refused << " refused, " << wrong << " wrongly judged\n";
  return wrong != 0 || paths.empty();
}

void fix_checksum(std::string& content) {
  const std::string prefix = "blake2b-256:";
  const size_t at = content.find(prefix);
  if (at == std::string::npos || at + prefix.size() + 64 > content.size()) return;
  content.replace(at + prefix.size(), 64, std::string(64, '0'));
  cosparse::Blake2b hash;
  hash.update(content.data(), content.size());
  content.replace(at + prefix.size(), 64, hash.hex());
}

// Another number in place of one in the header.
void change_number(std::string& header, Random& random) {
  static const std::vector<std::string> numbers = {"0", "1", "2", "3", "7", "8", "64", "255", "65535", "65536", "2147483647", "4294967296",
                                                   "9223372036854775807", "-1", "-2147483648", "0.5", "1e300", "null", "[]"};
  std::vector<size_t> starts;
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  for (size_t i = 1; i < header.size(); ++i) {
    if (is_digit(header[i]) && std::strchr("[,: ", header[i - 1])) starts.push_back(i);
  }
  if (starts.empty()) return;
  const size_t start = starts[pick(random, starts.size())];
  size_t end = start;
  while (end < header.size() && is_digit(header[end])) ++end;
  header.replace(start, end - start, numbers[pick(random, numbers.size())]);
}

// A piece of the header again somewhere else, or gone.
void move_piece(std::string& header, Random& random) {
  const size_t from = pick(random, header.size()), count = std::min(pick(random, 60), header.size() - from);
  const std::string piece = header.substr(from, count);
  if (random() % 2) header.erase(from, count);
  if (random() % 2) header.insert(pick(random, header.size()), piece);
}

std::string damage(const std::string& valid, Random& random) {
  uint64_t length;
  std::memcpy(&length, valid.data(), 8);
  std::string header = valid.substr(8, length), data = valid.substr(8 + length);
  for (size_t times = 1 + pick(random, 3); times > 0; --times) {
    switch (random() % 5) {
      case 0: change_number(header, random); break;
      case 1: change_number(header, random); break;
      case 2: move_piece(header, random); break;
      case 3: if (!header.empty()) header[pick(random, header.size())] = static_cast<char>(random()); break;
      default: if (!data.empty()) data[pick(random, data.size())] = static_cast<char>(random());
    }
  }
  header.append((8 - header.size() % 8) % 8, ' ');
  length = header.size();
  if (random() % 50 == 0) length = random() >> pick(random, 64);
  std::string content(8, '\0');
  std::memcpy(content.data(), &length, 8);
  content += header + data;
  if (random() % 20 == 0) content.resize(pick(random, content.size()));
  fix_checksum(content);
  return content;
}

int mutate(int64_t times, uint64_t seed, const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string valid{std::istreambuf_iterator<char>(file), {}};
  if (valid.size() < 8) throw std::runtime_error("cannot read " + path);
  Random random(seed);
  std::map<std::string, int64_t> verdicts;
  for (int64_t i = 0; i < times; ++i) {
    const std::string content = damage(valid, random);
    try {
      use(*cosparse::parse_artifact("mutant", reinterpret_cast<const std::byte*>(content.data()), static_cast<int64_t>(content.size())));
      ++verdicts["accepted"];
    } catch (const Error& error) {
      const bool early = error.what_about.find("checksum") != std::string::npos;
      ++verdicts[early ? "checksum" : error.fault == cosparse::Fault::unsupported ? "unsupported" : "refused"];
    }
  }
  for (const auto& [verdict, count] : verdicts) std::cout << verdict << " " << count << "  ";
  std::cout << "of " << times << "\n";
  return verdicts["refused"] == 0;  // a run that never gets past the checksum has tested nothing
}

bool refuses(const std::function<void()>& action, const std::string& reason) {
  try {
    action();
  } catch (const Error& error) {
    if (error.next_step.find(reason) != std::string::npos) return true;
    std::cerr << "expected '" << reason << "', got: " << error.what() << "\n";
    return false;
  }
  std::cerr << "expected '" << reason << "', nothing was refused\n";
  return false;
}

int change_length(const std::string& folder) {
  const std::string path = folder + "/length.bin";
  std::vector<std::byte> buffer(1000);
  const auto open_then_resize = [&](off_t size) {
    std::ofstream(path, std::ios::binary) << std::string(1000, 'x');
    auto file = std::make_unique<cosparse::File>(path);
    if (::truncate(path.c_str(), size) != 0) throw std::runtime_error("cannot truncate " + path);
    file->read(buffer.data(), 1000);
    file->expect_end();
  };
  const bool good = refuses([&] { open_then_resize(999); }, "shrank") && refuses([&] { open_then_resize(1001); }, "grew");
  open_then_resize(1000);
  ::unlink(path.c_str());
  std::cout << (good ? "changed lengths are refused\n" : "changed lengths are not refused\n");
  return !good;
}

}  // namespace

int main(int count, char** words) {
  const std::vector<std::string> args(words + 1, words + count);
  if (args.size() == 4 && args[0] == "--mutate") return mutate(std::stoll(args[1]), std::stoull(args[2]), args[3]);
  if (args.size() == 2 && args[0] == "--length") return change_length(args[1]);
  return read_files(args);
}
