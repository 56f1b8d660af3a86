// How the fuzzing of artifacts changes one into the next; fuzz_loader and fuzz_plan link it.
#include "artifact_bytes.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most);

// Half of the time the engine's own mutation of the header or the data, half that of artifact_bytes.h; the header's length fits in both.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t most, unsigned int seed) {
  bytes::Random random(seed);
  std::string content(reinterpret_cast<const char*>(data), size);
  if (random() % 2) {
    content = bytes::damage(content, random);
  } else {
    bytes::Parts parts = bytes::split(content);
    std::string& part = random() % 4 || parts.data.empty() ? parts.header : parts.data;
    const size_t had = part.size();
    part.resize(had + 64);
    part.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(part.data()), had, had + 64));
    content = bytes::join(std::move(parts));
  }
  content.resize(std::min(content.size(), most));
  std::copy(content.begin(), content.end(), data);
  return content.size();
}
