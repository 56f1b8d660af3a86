// Bytes -> Graph: container, checksum, network, tensor data, shapes at the example's size, in this order.
#include <algorithm>
#include <functional>
#include <new>
#include <numeric>

#include "check.h"
#include "checksum.h"
#include "container.h"
#include "fields.h"
#include "file.h"
#include "graph.h"
#include "memory.h"
#include "read_graph.h"
#include "schema.h"
#include "shape.h"

namespace cosparse {
namespace {

const std::string kChecksumPrefix = "blake2b-256:";
constexpr size_t kChecksumDigits = 64;

int64_t read_version(const Json::Object& json) {
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
  return *version;
}

// The stored digest's first byte in the header.
size_t find_digest(const std::string& stored, std::string_view header) {
  const std::string about = "graph: checksum", digits = stored.substr(std::min(stored.size(), kChecksumPrefix.size()));
  if (stored.compare(0, kChecksumPrefix.size(), kChecksumPrefix) != 0 || digits.size() != kChecksumDigits ||
      digits.find_first_not_of("0123456789abcdef") != std::string::npos) {
    refuse(about, "'blake2b-256:' and 64 lower-case hexadecimal digits", quoted(stored));
  }
  const size_t at = header.find(stored);
  if (at == std::string_view::npos || header.find(stored, at + 1) != std::string_view::npos) {
    refuse(about, "the checksum's text once in the header", at == std::string_view::npos ? "an escaped form of it" : "it twice");
  }
  return at + kChecksumPrefix.size();
}

// The tensors in the order in which their data lie.
std::vector<Tensor*> in_file_order(const Container& container) {
  std::vector<size_t> order(container.tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return container.begins[a] < container.begins[b]; });
  std::vector<Tensor*> tensors;
  for (size_t i : order) tensors.push_back(container.tensors[i].get());
  return tensors;
}

void check_sizes(const Graph& graph) {
  int64_t bytes = 0;
  for (const Shape& shape : infer_shapes(graph, example_shapes(graph))) {
    bytes += 4 * shape.c * shape.h * shape.w;
    if (bytes > kLargestBytes) refuse("graph", "values of at most 64 GiB at the example's size", "more");
  }
}

// A tensor's memory of its own. Large ones have their own pages, so that what an engine gives up leaves the process.
std::shared_ptr<std::byte> allocate_bytes(int64_t count) {
  constexpr int64_t large = 64 << 10;
  if (count >= large) return map_pages(count, Pages::filled);
  return {reinterpret_cast<std::byte*>(allocate_floats((count + 3) / 4).release()), Free()};
}

// Reads the tensors behind the header and checks everything. `head`: the bytes up to and with the header; `read`: copies the next bytes
// of the file, `end` is called behind the last ones.
std::shared_ptr<Graph> assemble(const std::string& name, const std::byte* head, int64_t count, Container container,
                                const std::function<void(std::byte* to, int64_t bytes)>& read, const std::function<void()>& end) {
  const std::vector<Tensor*> tensors = in_file_order(container);
  auto graph = std::make_shared<Graph>();
  graph->file = name;
  graph->file_bytes = count;
  graph->json = std::move(container.graph);
  graph->tensors = std::move(container.tensors);
  const Json json = parse_json(graph->json, "graph");
  const auto& fields = expect<Json::Object>(json, "graph", "an object");
  const int64_t version = read_version(fields);
  std::vector<std::string> known = {"format", "version", "checksum", "name", "inputs", "outputs", "nodes", "preprocessing", "provenance"};
  if (version >= 3 && find(fields, "views")) known.push_back("views");
  expect_fields(fields, known, "graph");
  const std::string& stored = expect<std::string>(*find(fields, "checksum"), "graph: checksum", "a string");
  const auto head_bytes = static_cast<size_t>(8 + container.header_bytes);
  const size_t at = 8 + find_digest(stored, {reinterpret_cast<const char*>(head + 8), head_bytes - 8}), behind = at + kChecksumDigits;

  // The digest covers the whole file with its own digits read as '0'. It takes most of the time, so all else runs beside it.
  const std::string zeros(kChecksumDigits, '0');
  Blake2bBeside digest(count);
  digest.update(head, at);
  digest.update(zeros.data(), zeros.size());
  digest.update(head + behind, head_bytes - behind);
  for (Tensor* tensor : tensors) {
    const auto memory = allocate_bytes(tensor->bytes());
    read(memory.get(), tensor->bytes());
    tensor->data = memory;
    digest.update(memory.get(), static_cast<size_t>(tensor->bytes()));
  }
  end();
  std::exception_ptr failed;
  try {
    for (const auto& tensor : graph->tensors) check_finite(*tensor);
    read_graph(fields, version, *graph);
    check_sizes(*graph);
  } catch (...) {  // perhaps only because the file is damaged, which the digest tells better
    failed = std::current_exception();
  }
  const std::string computed = digest.hex(), digits = stored.substr(kChecksumPrefix.size());
  if (computed != digits) refuse("graph: checksum", digits, computed, "the file is damaged: copy or export it again");
  if (failed) std::rethrow_exception(failed);
  return graph;
}

// Whatever is wrong inside a file is a fault of that file, and its name leads the message.
std::shared_ptr<Graph> in_file(const std::string& name, const std::function<std::shared_ptr<Graph>()>& read) {
  try {
    return read();
  } catch (const Error& error) {
    const Fault fault = error.fault == Fault::shape ? Fault::artifact : error.fault;
    const std::string about = error.what_about.empty() ? name : name + ": " + error.what_about;
    throw Error(fault, about, error.expected, error.got, error.next_step);
  } catch (const std::bad_alloc&) {
    throw Error(Fault::memory, name, "a file that fits in memory", "no memory left for it", "free memory, or use a machine with more");
  }
}

}  // namespace

std::shared_ptr<Graph> read_artifact(const std::string& path) {
  return in_file(path, [&] {
    File file(path);
    const int64_t count = file.size();
    std::vector<std::byte> head(static_cast<size_t>(std::min<int64_t>(count, 8)));
    file.read(head.data(), static_cast<int64_t>(head.size()));
    const int64_t header_bytes = read_header_length(head.data(), count);
    head.resize(static_cast<size_t>(8 + header_bytes));
    file.read(head.data() + 8, header_bytes);
    Container container = read_container(head.data(), count);  // a sound header accounts for every byte of the file
    return assemble(
        path, head.data(), count, std::move(container), [&](std::byte* to, int64_t bytes) { file.read(to, bytes); },
        [&] { file.expect_end(); });
  });
}

std::shared_ptr<Graph> parse_artifact(const std::string& name, const std::byte* bytes, int64_t count) {
  return in_file(name, [&] {
    Container container = read_container(bytes, count);
    const std::byte* from = bytes + 8 + container.header_bytes;
    const auto copy = [&](std::byte* to, int64_t some) { std::copy_n(from, some, to), from += some; };
    return assemble(name, bytes, count, std::move(container), copy, [] {});
  });
}

}  // namespace cosparse
