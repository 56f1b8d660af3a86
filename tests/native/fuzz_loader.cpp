// The reader on any bytes: container, checksum, JSON, rules of the graph, shapes. An input is a file whose checksum is made right first; it
// is accepted, and then every byte of it used, or refused by a cosparse::Error.
#include "artifact_bytes.h"

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
