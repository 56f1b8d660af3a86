#include "container.h"

#include <algorithm>
#include <tuple>

#include "fields.h"

namespace cosparse {
namespace {

constexpr size_t kLongestTensorName = 1024;
constexpr size_t kHighestRank = 5;
const char* const kForeign = "is this a .cosparse file, and is it complete?";

Dtype read_dtype(const Json& json, const std::string& about) {
  const std::string& name = expect<std::string>(json, about, "a dtype");
  if (name == "F32") return Dtype::f32;
  if (name == "U16") return Dtype::u16;
  if (name == "U32") return Dtype::u32;
  refuse(about, "dtype F32, U16 or U32", quoted(name));
}

std::vector<int64_t> read_shape(const Json& json, const std::string& about) {
  std::vector<int64_t> shape;
  for (const Json& size : expect<Json::Array>(json, about, "a shape")) {
    const int64_t n = expect<int64_t>(size, about, "integers in its shape");
    if (n < 0 || n > kMostElements) refuse(about, "sizes from 0 to 2147483647 in its shape", std::to_string(n));
    shape.push_back(n);
  }
  if (shape.empty() || shape.size() > kHighestRank) refuse(about, "rank 1 to 5", "shape " + text_of(shape));
  return shape;
}

int64_t count_elements(const std::vector<int64_t>& shape, const std::string& about) {
  int64_t count = std::find(shape.begin(), shape.end(), 0) == shape.end();  // a 0 anywhere, also behind an overflow
  for (int64_t size : shape) {
    count *= size;
    if (count > kMostElements) refuse(about, "at most 2147483647 elements", "shape " + text_of(shape));
  }
  return count;
}

struct Range {
  int64_t begin, end;
  const Tensor* tensor;
};

Range read_tensor(const Member& member, int64_t data_bytes, Tensor& tensor) {
  tensor.name = member.key;
  const std::string about = "tensor " + quoted(tensor.name);
  expect_name(tensor.name, about, kLongestTensorName);
  const auto& fields = expect<Json::Object>(member.value, about, "an object");
  expect_fields(fields, {"dtype", "shape", "data_offsets"}, about);
  tensor.dtype = read_dtype(*find(fields, "dtype"), about);
  tensor.shape = read_shape(*find(fields, "shape"), about);
  const auto& pair = expect<Json::Array>(*find(fields, "data_offsets"), about, "data_offsets [begin, end]");
  if (pair.size() != 2) refuse(about, "data_offsets [begin, end]", "a list of " + std::to_string(pair.size()));
  const int64_t begin = expect<int64_t>(pair[0], about, "integers in data_offsets");
  const int64_t end = expect<int64_t>(pair[1], about, "integers in data_offsets");
  if (begin < 0 || begin > end || end > data_bytes) {
    refuse(about, "data_offsets within the " + std::to_string(data_bytes) + " bytes of data", text_of(std::vector<int64_t>{begin, end}),
           "the file may be truncated: copy it again");
  }
  const auto element = static_cast<int64_t>(size_of(tensor.dtype)), wanted = count_elements(tensor.shape, about) * element;
  if (end - begin != wanted) {
    refuse(about, std::to_string(wanted) + " bytes for shape " + text_of(tensor.shape), std::to_string(end - begin));
  }
  if (begin % element != 0) refuse(about, "data_offsets that start at a multiple of " + std::to_string(element), std::to_string(begin));
  return {begin, end, &tensor};
}

// The ranges tile 0 .. data_bytes.
void check_ranges(std::vector<Range>& ranges, int64_t data_bytes) {
  const auto earlier = [](const Range& a, const Range& b) { return std::tie(a.begin, a.end) < std::tie(b.begin, b.end); };
  std::sort(ranges.begin(), ranges.end(), earlier);
  int64_t at = 0;
  const Tensor* before = nullptr;
  for (const Range& range : ranges) {
    const std::string about = "tensor " + quoted(range.tensor->name), begin = std::to_string(range.begin);
    if (range.begin > at) refuse(about, "data that start at byte " + std::to_string(at), "a gap: they start at byte " + begin);
    if (range.begin < at) {
      refuse(about, "data of its own", "byte " + begin + " for a start, which overlaps with tensor " + quoted(before->name));
    }
    at = range.end;
    before = range.tensor;
  }
  if (at != data_bytes) {
    refuse("", "the tensors to fill the " + std::to_string(data_bytes) + " bytes of data", "an end at byte " + std::to_string(at));
  }
}

}  // namespace

void expect_name(const std::string& name, const std::string& about, size_t longest) {
  if (name.empty() || name.size() > longest) {
    refuse(about, "a name of 1 to " + std::to_string(longest) + " bytes", std::to_string(name.size()) + " bytes");
  }
  for (size_t i = 0; i < name.size(); ++i) {
    const auto byte = static_cast<unsigned char>(name[i]);
    const bool c1 = byte == 0xC2 && i + 1 < name.size() && static_cast<unsigned char>(name[i + 1]) < 0xA0;  // U+0080 .. U+009F
    if (byte < 0x20 || byte == 0x7F || c1) refuse(about, "a name without control characters", "one at byte " + std::to_string(i));
  }
}

int64_t read_header_length(const std::byte* bytes, int64_t file_bytes) {
  if (file_bytes < 8) refuse("", "at least 8 bytes", std::to_string(file_bytes), kForeign);
  if (file_bytes > kLargestBytes) refuse("", "at most 64 GiB", std::to_string(file_bytes) + " bytes");
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | static_cast<uint64_t>(bytes[i]);
  if (length > static_cast<uint64_t>(kLongestHeader)) refuse("header", "a length of at most 64 MiB", std::to_string(length), kForeign);
  if (static_cast<int64_t>(length) > file_bytes - 8) {
    refuse("header", "a length within the file's " + std::to_string(file_bytes) + " bytes", std::to_string(length), kForeign);
  }
  if (length % 8 != 0) refuse("header", "a length that is a multiple of 8", std::to_string(length), kForeign);
  return static_cast<int64_t>(length);
}

Container read_container(const std::byte* bytes, int64_t file_bytes) {
  Container container;
  container.header_bytes = read_header_length(bytes, file_bytes);
  const std::string_view text(reinterpret_cast<const char*>(bytes + 8), static_cast<size_t>(container.header_bytes));
  if (text.empty() || text[0] != '{') {
    refuse("header", "JSON that starts with '{'", text.empty() ? "no header" : quoted(text.substr(0, 1)), kForeign);
  }
  const Json header = parse_json(text, "header");
  const int64_t data_begin = 8 + container.header_bytes, data_bytes = file_bytes - data_begin;
  const Json* metadata = nullptr;
  std::vector<Range> ranges;
  for (const Member& member : *header.as<Json::Object>()) {
    if (member.key == "__metadata__") {
      metadata = &member.value;
      continue;
    }
    container.tensors.push_back(std::make_unique<Tensor>());
    ranges.push_back(read_tensor(member, data_bytes, *container.tensors.back()));
    container.begins.push_back(data_begin + ranges.back().begin);
  }
  if (!metadata) refuse("header", "'__metadata__' with the network", "none", "this is a safetensors file, but no cosparse artifact");
  const auto& fields = expect<Json::Object>(*metadata, "header: '__metadata__'", "an object");
  expect_fields(fields, {"cosparse"}, "header: '__metadata__'");
  container.graph = expect<std::string>(*find(fields, "cosparse"), "header: '__metadata__'", "the network's JSON as a string");
  check_ranges(ranges, data_bytes);
  return container;
}

}  // namespace cosparse
