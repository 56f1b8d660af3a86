// The reader on any bytes: container, checksum, JSON, rules of the graph, shapes. An input is a file whose checksum is made right first; it
// is accepted, and then every byte of it used, or refused by a cosparse::Error.
#include "artifact_bytes.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most);

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string content(reinterpret_cast<const char*>(data), size);
  bytes::fix_checksum(content);
  try {
    bytes::use(*bytes::parse(content));
  } catch (const cosparse::Error& error) {
    if (error.expected.empty() || error.got.empty()) throw std::logic_error("an error that says nothing");
  }
  return 0;
}

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
