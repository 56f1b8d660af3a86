// The reader under the sanitizers.
//   reader FILE...              reads each; files called bad-* must be refused, all others accepted
//   reader --mutate N SEED FILE reads N damaged copies of a valid file, their checksum made right again so that the damage gets deep
//   reader --length FOLDER      files that shrink or grow between opening and reading
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <vector>

#include "artifact_bytes.h"
#include "file.h"

namespace {

using cosparse::Error;

int read_files(const std::vector<std::string>& paths) {
  int wrong = 0, refused = 0;
  for (const std::string& path : paths) {
    const std::string name = path.substr(path.rfind('/') + 1);
    const bool bad = name.compare(0, 4, "bad-") == 0;
    std::string verdict;
    try {
      bytes::use(*cosparse::read_artifact(path));
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

int mutate(int64_t times, uint64_t seed, const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string valid{std::istreambuf_iterator<char>(file), {}};
  if (valid.size() < 8) throw std::runtime_error("cannot read " + path);
  bytes::Random random(seed);
  std::map<std::string, int64_t> verdicts;
  for (int64_t i = 0; i < times; ++i) {
    const std::string content = bytes::damage(valid, random);
    try {
      bytes::use(*bytes::parse(content, "mutant"));
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
