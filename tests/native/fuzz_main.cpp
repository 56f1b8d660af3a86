// A fuzzing engine for compilers without libFuzzer: the same entry points, the same few options, feedback from -fsanitize-coverage=trace-pc.
//   fuzz [-runs=N] [-max_total_time=S] [-seed=S] [-max_len=N] [-artifact_prefix=P] [FOLDER or FILE ...]
// Folders are seeds (what adds coverage is written to the first); files alone are run once each. Itself it must not be instrumented.
#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "fuzz_feedback.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" __attribute__((weak)) size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t most, unsigned int seed);
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)());

namespace {

using feedback::hits;
using feedback::kEdges;
uint8_t seen[kEdges];  // by all runs, as classes of counts
std::mt19937_64 randoms;
std::string running, prefix = "crash-";

int class_of(uint8_t count) { return count == 0 ? 0 : count == 1 ? 1 : count == 2 ? 2 : count < 8 ? 4 : count < 32 ? 8 : 16; }

// Whether the run reached an edge, or a class of counts of one, that no run did before.
bool learn() {
  bool fresh = false;
  for (size_t i = 0; i < kEdges; ++i)
    if (const int bit = hits[i] ? class_of(hits[i]) : 0; bit & ~seen[i]) seen[i] |= (uint8_t)bit, fresh = true;
  return fresh;
}

size_t edges() { return kEdges - (size_t)std::count(seen, seen + kEdges, 0); }

std::string name_of(const std::string& content) {
  char name[32];
  std::snprintf(name, sizeof name, "%016zx", std::hash<std::string>()(content));
  return name;
}

void write(const std::string& path, const std::string& content) { std::ofstream(path, std::ios::binary) << content; }

void keep_crash() {
  const std::string path = prefix + name_of(running);
  write(path, running);
  std::fprintf(stderr, "the input is in %s\n", path.c_str());
}

void on_signal(int number) {
  keep_crash();
  signal(number, SIG_DFL);
  raise(number);
}

bool run(const std::string& input) {
  running = input;
  feedback::start();
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
  return learn();
}

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

bool is_folder(const std::string& path) {
  struct stat info{};
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

std::vector<std::string> files_in(const std::string& folder) {
  std::vector<std::string> paths;
  if (DIR* open = opendir(folder.c_str())) {
    while (const dirent* entry = readdir(open))
      if (entry->d_name[0] != '.') paths.push_back(folder + "/" + entry->d_name);
    closedir(open);
  } else {
    paths.push_back(folder);
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most) {
  const auto place = [&] { return size ? randoms() % size : 0; };
  switch (randoms() % 5) {
    case 0: if (size) data[place()] ^= (uint8_t)(1 << randoms() % 8); break;
    case 1: if (size) data[place()] = (uint8_t)randoms(); break;
    case 2: if (size < most) { const size_t at = place(); std::copy_backward(data + at, data + size, data + size + 1); data[at] = (uint8_t)randoms(), ++size; } break;
    case 3: if (size > 1) { const size_t at = place(); std::copy(data + at + 1, data + size, data + at); --size; } break;
    default: if (size > 1) { const size_t from = place(), to = place(), n = std::min<size_t>(1 + randoms() % 16, size - std::max(from, to));
             std::copy_n(std::vector<uint8_t>(data + from, data + from + n).begin(), n, data + to); }
  }
  return size;
}

int main(int count, char** words) {
  int64_t runs = -1, seconds = 0, seed = 1, longest = 1 << 16;
  std::vector<std::string> places;
  for (int i = 1; i < count; ++i) {
    const std::string word = words[i], value = word.substr(std::min(word.size(), word.find('=') + 1));
    if (word.rfind("-runs=", 0) == 0) runs = std::stoll(value);
    else if (word.rfind("-max_total_time=", 0) == 0) seconds = std::stoll(value);
    else if (word.rfind("-seed=", 0) == 0) seed = std::stoll(value);
    else if (word.rfind("-max_len=", 0) == 0) longest = std::stoll(value);
    else if (word.rfind("-artifact_prefix=", 0) == 0) prefix = value;
    else if (word[0] != '-') places.push_back(word);
  }
  randoms.seed((uint64_t)seed);
  for (int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) signal(number, on_signal);
  if (__sanitizer_set_death_callback) __sanitizer_set_death_callback(keep_crash);
  const auto start = std::chrono::steady_clock::now();
  const auto spent = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  std::vector<std::string> corpus;
  for (const std::string& place : places)
    for (const std::string& path : files_in(place)) {
      corpus.push_back(read(path));
      run(corpus.back());
    }
  const bool replay = std::none_of(places.begin(), places.end(), is_folder);
  if (corpus.empty()) corpus.emplace_back();
  int64_t done = (int64_t)corpus.size();
  const size_t at_first = corpus.size();
  for (; !(replay && !places.empty()) && done != runs && (seconds == 0 || spent() < (double)seconds); ++done) {
    std::string input = corpus[randoms() % corpus.size()];
    const size_t had = input.size();
    input.resize((size_t)longest);
    for (size_t times = 1 + randoms() % 4, size = had; times > 0; --times) {
      auto* data = reinterpret_cast<uint8_t*>(input.data());
      size = LLVMFuzzerCustomMutator ? LLVMFuzzerCustomMutator(data, size, input.size(), (unsigned)randoms())
                                     : LLVMFuzzerMutate(data, size, input.size());
      if (times == 1) input.resize(size);
    }
    if (!run(input)) continue;
    corpus.push_back(input);
    if (!places.empty()) write(places[0] + "/" + name_of(input), input);
  }
  std::printf("%lld runs in %.1f s, %zu edges, %zu inputs kept of which %zu were given\n", (long long)done, spent(), edges(), corpus.size(),
              at_first);
  return 0;
}
