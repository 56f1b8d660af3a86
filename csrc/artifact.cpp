// Bytes -> Graph: container, checksum, network, tensor data, shapes at the example's size, in this order.
#include <algorithm>
#include <functional>
#include <new>

#include "check.h"
#include "checksum.h"
#include "container.h"
#include "fields.h"
#include "file.h"
#include "graph.h"
#include "read_graph.h"
#include "shape.h"

namespace cosparse {
namespace {

constexpr int64_t kVersion = 1;
const std::string kChecksumPrefix = "blake2b-256:";
constexpr size_t kChecksumDigits = 64;

void check_version(const Json::Object& json) {
  const Json* format = find(json, "format");
  if (!format || !format->as<std::string>() || *format->as<std::string>() != "cosparse") {
    refuse("graph: format", "'cosparse'", format ? format->describe() : "none");
  }
  const Json* field = find(json, "version");
  const int64_t* version = field ? field->as<int64_t>() : nullptr;
  if (!version || *version < 1) refuse("graph: version", "an integer of at least 1", field ? field->describe() : "none");
  if (*version > kVersion) {
    throw Error(Fault::unsupported, "graph: version", "at most " + std::to_string(kVersion), std::to_string(*version),
                "update cosparse to read this file");
  }
}

// The digest covers the whole file with its own 64 digits read as '0'.
void check_checksum(const std::string& stored, const std::byte* bytes, int64_t count, int64_t header_bytes) {
  const std::string about = "graph: checksum", digits = stored.substr(std::min(stored.size(), kChecksumPrefix.size()));
  if (stored.compare(0, kChecksumPrefix.size(), kChecksumPrefix) != 0 || digits.size() != kChecksumDigits ||
      digits.find_first_not_of("0123456789abcdef") != std::string::npos) {
    refuse(about, "'blake2b-256:' and 64 lower-case hexadecimal digits", quoted(stored));
  }
  const std::string_view header(reinterpret_cast<const char*>(bytes + 8), static_cast<size_t>(header_bytes));
  const size_t at = header.find(stored);
  if (at == std::string_view::npos || header.find(stored, at + 1) != std::string_view::npos) {
    refuse(about, "the checksum's text once in the header", at == std::string_view::npos ? "an escaped form of it" : "it twice");
  }
  const size_t start = 8 + at + kChecksumPrefix.size(), end = start + kChecksumDigits;
  Blake2b hash;
  hash.update(bytes, start);
  hash.update(std::string(kChecksumDigits, '0').data(), kChecksumDigits);
  hash.update(bytes + end, static_cast<size_t>(count) - end);
  const std::string computed = hash.hex();
  if (computed != digits) refuse(about, digits, computed, "the file is damaged: copy or export it again");
}

void check_sizes(const Graph& graph) {
  std::vector<Shape> examples;
  for (const Input& input : graph.inputs) examples.push_back(input.example);
  int64_t bytes = 0;
  for (const Shape& shape : infer_shapes(graph, examples)) {
    bytes += 4 * shape.c * shape.h * shape.w;
    if (bytes > kLargestBytes) refuse("graph", "values of at most 64 GiB at the example's size", "more");
  }
}

std::shared_ptr<const Graph> assemble(const std::string& name, std::shared_ptr<const std::byte> bytes, int64_t count, Container container) {
  auto graph = std::make_shared<Graph>();
  graph->file = name;
  graph->file_bytes = count;
  graph->json = std::move(container.graph);
  graph->tensors = std::move(container.tensors);
  for (size_t i = 0; i < graph->tensors.size(); ++i) graph->tensors[i]->data = bytes.get() + container.begins[i];
  graph->bytes = std::move(bytes);
  const Json json = parse_json(graph->json, "graph");
  const auto& fields = expect<Json::Object>(json, "graph", "an object");
  check_version(fields);
  expect_fields(fields, {"format", "version", "checksum", "name", "inputs", "outputs", "nodes", "preprocessing", "provenance"}, "graph");
  const std::string& checksum = expect<std::string>(*find(fields, "checksum"), "graph: checksum", "a string");
  check_checksum(checksum, graph->bytes.get(), count, container.header_bytes);
  for (const auto& tensor : graph->tensors) check_finite(*tensor);
  read_graph(fields, *graph);
  check_sizes(*graph);
  return graph;
}

// Whatever is wrong inside a file is a fault of that file, and its name leads the message.
std::shared_ptr<const Graph> in_file(const std::string& name, const std::function<std::shared_ptr<const Graph>()>& read) {
  try {
    return read();
  } catch (const Error& error) {
    const Fault fault = error.fault == Fault::shape ? Fault::artifact : error.fault;
    const std::string about = error.what_about.empty() ? name : name + ": " + error.what_about;
    throw Error(fault, about, error.expected, error.got, error.next_step);
  } catch (const std::bad_alloc&) {
    throw Error(Fault::artifact, name, "a file that fits in memory", "no memory left for it", "");
  }
}

}  // namespace

std::shared_ptr<const Graph> read_artifact(const std::string& path) {
  return in_file(path, [&] {
    File file(path);
    const int64_t count = file.size();
    std::vector<std::byte> head(static_cast<size_t>(std::min<int64_t>(count, 8)));
    file.read(head.data(), static_cast<int64_t>(head.size()));
    const int64_t header_bytes = read_header_length(head.data(), count);
    head.resize(static_cast<size_t>(8 + header_bytes));
    file.read(head.data() + 8, header_bytes);
    Container container = read_container(head.data(), count);
    auto bytes = allocate_bytes(count);  // only now: a sound header accounts for every byte of the file
    std::copy(head.begin(), head.end(), bytes.get());
    file.read(bytes.get() + head.size(), count - 8 - header_bytes);
    file.expect_end();
    return assemble(path, std::move(bytes), count, std::move(container));
  });
}

std::shared_ptr<const Graph> parse_artifact(const std::string& name, std::shared_ptr<const std::byte> bytes, int64_t count) {
  return in_file(name, [&] {
    Container container = read_container(bytes.get(), count);
    return assemble(name, bytes, count, std::move(container));
  });
}

}  // namespace cosparse
