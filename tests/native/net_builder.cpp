#include "net_builder.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "artifact_bytes.h"
#include "error.h"

namespace net {

namespace {

using cosparse::Dtype;
using cosparse::Node;
using cosparse::Shape;
using cosparse::Tensor;
using List = std::vector<int64_t>;

constexpr int kMostNodes = 10;
constexpr int64_t kMostElements = 6000, kMostWeights = 20000;

const char* const kOps[] = {"conv", "conv", "conv", "linear", "activation", "affine", "prelu", "add", "add", "sub", "mul", "div",
                            "max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "mean", "concat", "concat", "slice", "pad",
                            "reshape", "permute", "upsample", "depth_to_space", "channel_shuffle", "layer_norm", "softmax"};
const char* const kKinds[] = {"relu", "clip", "leaky_relu", "elu", "sigmoid", "silu", "tanh", "gelu", "gelu_tanh", "hardswish",
                              "hardsigmoid", "softplus", "mish"};
// Of version 3.
const char* const kLaterOps[] = {"maximum", "minimum", "sum", "amax", "group_norm", "log_softmax", "constant"};
const char* const kLaterKinds[] = {"sqrt", "abs", "exp", "log", "pow"};

template <size_t N> bool is_in(const std::string& word, const char* const (&list)[N]) {
  return std::find(list, list + N, word) != list + N;
}

class Builder {
 public:
  Builder(Bytes& bytes, bool later) : b_(bytes), later_(later) {}

  Net net() {
    const int inputs = b_.below(4) ? 1 : 2;
    for (int i = 0; i < inputs; ++i) {
      const Shape s{1, 1 + b_.below(20), 1 + b_.below(14), 1 + b_.below(14), b_.below(6) ? 4 : 2};
      net_.graph.inputs.push_back({"x" + std::to_string(i), s.rank == 4 ? s : Shape{1, s.c, 1, 1, 2}});
      shapes_.push_back(net_.graph.inputs.back().example);
    }
    const int nodes = 1 + b_.below(kMostNodes);
    for (int i = 0; i < nodes && b_.left(); ++i) add();
    const int values = (int)shapes_.size();
    net_.graph.outputs.push_back(values - 1);
    while (b_.left() && b_.below(3) == 0) net_.graph.outputs.push_back(b_.below(values));
    if (later_ && b_.coin()) views();
    return std::move(net_);
  }

 private:
  Bytes& b_;
  const bool later_;
  Net net_;
  std::vector<Shape> shapes_;

  template <size_t N, size_t M> std::string word(const char* const (&list)[N], const char* const (&later)[M]) {
    return later_ && b_.coin() ? later[b_.below((int)M)] : list[b_.below((int)N)];
  }

  void views() {
    net_.graph.views.resize(net_.graph.outputs.size());
    for (size_t i = 0; i < net_.graph.views.size(); ++i) {
      const Shape& s = shapes_[(size_t)net_.graph.outputs[i]];
      const int64_t part = s.c % 3 == 0 ? 3 : 1;
      const cosparse::View all[] = {
          {{s.c * s.h * s.w, 0}}, {{0, 0}, {part, 0}}, {{part, 0}, {0, 1 + b_.below(3)}, {0, 0}, {1, 0}}, {{0, 3}, {0, 2}, {0, 1}}};
      if (const int which = b_.below(5)) net_.graph.views[i] = all[which - 1];
    }
  }

  int value() {  // a late one, mostly
    const int n = (int)shapes_.size();
    return b_.below(3) ? n - 1 : b_.below(n);
  }
  float weight() { return (float)(b_.byte() - 128) / 128; }

  // A tensor; a few bytes decide all of its values.
  const Tensor* tensor(Node& node, const std::string& role, Dtype dtype, List shape) {
    auto made = std::make_unique<Tensor>(Tensor{node.name + "." + role, dtype, std::move(shape), nullptr});
    const int64_t count = made->count();
    auto* memory = new std::byte[std::max<int64_t>(1, made->bytes())]();
    made->data = std::shared_ptr<const std::byte>(memory, [](const std::byte* p) { delete[] p; });
    if (dtype == Dtype::f32) {
      const int a = 1 + b_.byte(), kind = b_.below(4);
      for (int64_t i = 0; i < count; ++i) {
        const float v = (float)((i * a + a / 3) % 17 - 8) / 16;
        reinterpret_cast<float*>(memory)[i] = kind == 0 && i % 3 ? 0 : v;
      }
    }
    net_.graph.tensors.push_back(std::move(made));
    return node.tensors[role] = net_.graph.tensors.back().get();
  }
  template <class T> T* data(const Tensor* t) { return const_cast<T*>(reinterpret_cast<const T*>(t->data.get())); }

  List pair(std::initializer_list<int> list) { return {b_.one_of(list), b_.one_of(list)}; }
  List four(int most) { return {b_.below(most + 1), b_.below(most + 1), b_.below(most + 1), b_.below(most + 1)}; }

  void orthonormal(float* m, int64_t n) {  // a permutation with signs
    const int turn = b_.byte();
    for (int64_t u = 0; u < n; ++u) m[u * n + (u + turn) % n] = (turn + u) % 3 ? 1.f : -1.f;
  }

  void blocks(Node& node, int64_t filters, int64_t columns, int64_t r) {
    const int64_t rows = (filters + r - 1) / r;
    const int keep = b_.byte(), skip = b_.below(5);
    std::vector<uint32_t> at{0}, column;
    for (int64_t row = 0; row < rows; ++row) {
      if (row % 5 != skip || keep > 250)
        for (int64_t k = 0; k < columns; ++k)
          if (keep > 250 || (k * 37 + row * 11 * (keep % 2)) % 256 < keep) column.push_back((uint32_t)k);
      at.push_back((uint32_t)column.size());
    }
    const Tensor* values = tensor(node, "values", Dtype::f32, {(int64_t)column.size(), r});
    for (int64_t i = at[rows - 1]; i < (int64_t)column.size(); ++i)
      for (int64_t f = filters - (rows - 1) * r; f < r; ++f) data<float>(values)[i * r + f] = 0;
    auto* narrow = data<uint16_t>(tensor(node, "columns", Dtype::u16, {(int64_t)column.size()}));
    std::copy(column.begin(), column.end(), narrow);
    std::copy(at.begin(), at.end(), data<uint32_t>(tensor(node, "rows", Dtype::u32, {rows + 1})));
  }

  void weights(Node& node, int64_t channels, bool conv) {
    static const int sizes[] = {1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 17, 24};
    int64_t groups = 1, filters = sizes[b_.below(12)];
    List kernel{1, 1};
    if (conv) {
      kernel = b_.below(3) ? List{3, 3} : pair({1, 2, 3, 4, 5, 7, 11, 13});
      if (b_.below(4) == 0) kernel = {1, 1};
      if (b_.below(4) == 0) groups = b_.coin() ? channels : channels % 2 == 0 ? 2 : 1;
      filters = groups == 1 ? filters : groups * (1 + b_.below(4));
      node.attrs["kernel"] = kernel, node.attrs["groups"] = groups;
      node.attrs["stride"] = b_.below(3) ? List{1, 1} : pair({1, 2, 3, 4, 9});
      node.attrs["dilation"] = b_.below(4) ? List{1, 1} : pair({1, 2, 3, 5});
      node.attrs["pad"] = b_.coin() ? List{kernel[0] / 2, kernel[1] / 2, kernel[0] / 2, kernel[1] / 2} : four(4);
    }
    node.attrs["filters"] = filters, node.attrs["channels"] = channels;
    const int64_t taps = kernel[0] * kernel[1], columns = channels / groups * taps;
    if (filters * columns > kMostWeights) throw cosparse::Error(cosparse::Fault::usage, "net", "few weights", "many", "");
    const int transform = conv ? b_.below(3) : 0;
    node.attrs["transform"] = std::string(transform == 1 ? "dct" : transform == 2 && taps <= 25 ? "matrix" : "identity");
    if (node.text("transform") == "matrix") orthonormal(data<float>(tensor(node, "basis", Dtype::f32, {taps, taps})), taps);
    if (node.tensor("basis")) clear(node.tensor("basis"), taps, 1);
    if (groups == 1 && channels >= 4 && b_.below(5) == 0) {
      const int64_t points = channels >= 8 && b_.coin() ? 8 : 4;
      const int kind = b_.below(3);
      node.attrs["channels_transform"] = std::string(kind == 0 ? "dct" : kind == 1 ? "walsh" : "matrix"), node.attrs["channels_tile"] = points;
      if (kind == 2) clear(tensor(node, "tiles", Dtype::f32, {channels / points, points, points}), points, channels / points);
    }
    if (groups == 1 && filters >= 4 && b_.below(5) == 0) {
      node.attrs["filters_transform"] = std::string(b_.coin() ? "dct" : "walsh"), node.attrs["filters_tile"] = int64_t{4};
    }
    int64_t r = b_.one_of({0, 1, 2, 4, 8, 16});
    if (groups > 1 && r && filters / groups % r) r = 1;
    node.attrs["format"] = std::string(r ? "block" : "dense"), node.attrs["block"] = r ? r : int64_t{1};
    if (r)
      blocks(node, filters, columns, r);
    else
      tensor(node, "values", Dtype::f32, conv ? List{filters, channels / groups, kernel[0], kernel[1]} : List{filters, channels});
    if (b_.coin()) tensor(node, "bias", Dtype::f32, {filters});
    if (b_.below(4) == 0) tensor(node, "scale", Dtype::f32, {filters});
  }

  void clear(const Tensor* t, int64_t n, int64_t count) {
    for (int64_t m = 0; m < count; ++m) {
      std::fill_n(data<float>(t) + m * n * n, n * n, 0.f);
      orthonormal(data<float>(t) + m * n * n, n);
    }
  }

  void pool(Node& node, bool max) {
    const List kernel = pair({1, 2, 3, 4, 5});
    node.attrs["kernel"] = kernel, node.attrs["stride"] = pair({1, 2, 3, 7}), node.attrs["ceil"] = (int64_t)b_.below(2);
    node.attrs["pad"] = b_.coin() ? List{0, 0, 0, 0} : List{kernel[0] / 2, kernel[1] / 2, kernel[0] / 2, kernel[1] / 2};
    if (max) node.attrs["dilation"] = pair({1, 1, 2, 3});
    if (!max) node.attrs["count_pad"] = (int64_t)b_.below(2), node.attrs["divisor"] = (int64_t)b_.one_of({0, 0, 1, 7});
  }

  void activation(Node& node) {
    const std::string kind = word(kKinds, kLaterKinds);
    node.attrs["kind"] = kind;
    node.attrs["alpha"] = kind == "clip" || kind == "leaky_relu" || kind == "elu" ? (double)weight() : 0.0;
    if (kind == "pow") node.attrs["alpha"] = (double)b_.one_of({-1, 0, 2, 3});
    node.attrs["beta"] = kind == "clip" ? node.number("alpha") + b_.below(7) : 0.0;
  }

  void rearrange(Node& node, const Shape& x) {
    static const char* modes[] = {"constant", "reflect", "replicate"};
    if (node.op == "slice") {
      node.attrs["axis"] = (int64_t)(x.rank == 4 ? 1 + b_.below(3) : 1), node.attrs["step"] = (int64_t)(1 + b_.below(3));
      node.attrs["start"] = (int64_t)(b_.byte() % 41 - 20), node.attrs["stop"] = (int64_t)(b_.coin() ? 2147483647 : b_.byte() % 41 - 20);
    } else if (node.op == "pad") {
      node.attrs["before"] = List{b_.below(3), b_.below(4), b_.below(4)}, node.attrs["after"] = List{b_.below(3), b_.below(4), b_.below(4)};
      node.attrs["mode"] = std::string(modes[b_.below(3)]);
      node.attrs["value"] = node.text("mode") == "constant" ? (double)weight() : 0.0;
    } else if (node.op == "reshape") {
      node.attrs["shape"] = b_.coin() ? List{-1} : b_.coin() ? List{-1, 1, 1} : b_.coin() ? List{0, -1, 1} : List{x.h, x.w, x.c};
    } else if (node.op == "permute") {
      static const List orders[] = {{0, 1, 2, 3}, {0, 1, 3, 2}, {0, 2, 1, 3}, {0, 2, 3, 1}, {0, 3, 1, 2}, {0, 3, 2, 1}};
      node.attrs["order"] = orders[b_.below(6)];
    } else if (node.op == "depth_to_space") {
      const int64_t h = 1 + b_.below(3), w = x.c % h == 0 && x.c / h % 2 == 0 ? 2 : 1;
      node.attrs["block"] = List{x.c % h ? 1 : h, w}, node.attrs["order"] = std::string(b_.coin() ? "crd" : "dcr");
      node.attrs["crop"] = b_.coin() ? List{0, 0, 0, 0} : four(1);
    } else {
      node.attrs["groups"] = (int64_t)(x.c % 3 == 0 ? 3 : x.c % 2 == 0 ? 2 : 1);
    }
  }

  void upsample(Node& node) {
    const bool bilinear = b_.coin();
    node.attrs["mode"] = std::string(bilinear ? "bilinear" : "nearest"), node.attrs["align_corners"] = (int64_t)(bilinear && b_.coin());
    const int way = b_.below(3);
    node.attrs["size"] = way == 0 ? List{1 + b_.below(17), 1 + b_.below(17)} : List{0, 0};
    node.attrs["factor"] = way == 1 ? List{1 + b_.below(3), 1 + b_.below(3)} : List{0, 0};
    if (way == 2) node.inputs.push_back(value());
  }

  void fill(Node& node, const Shape& x) {
    if (node.op == "conv" || node.op == "linear") return weights(node, x.c, node.op == "conv");
    if (node.op == "activation") return activation(node);
    if (node.op == "max_pool" || node.op == "avg_pool") return pool(node, node.op == "max_pool");
    if (node.op == "upsample") return upsample(node);
    if (node.op.rfind("adaptive", 0) == 0) node.attrs["size"] = List{1 + b_.below(5), 1 + b_.below(5)};
    const bool reduces = node.op == "mean" || node.op == "sum" || node.op == "amax";
    if (reduces) node.attrs["axes"] = b_.coin() ? List{2, 3} : b_.coin() ? List{1} : List{1, 3}, node.attrs["keep"] = int64_t{1};
    if (reduces && node.list("axes") == List{2, 3}) node.attrs["keep"] = (int64_t)b_.below(2);
    if (node.op == "concat") node.attrs["axis"] = (int64_t)(x.rank == 4 ? 1 + b_.below(3) : 1);
    if (node.op == "softmax" || node.op == "log_softmax") node.attrs["axis"] = int64_t{1};
    const bool norm = node.op == "layer_norm" || node.op == "group_norm";
    if (norm) node.attrs["eps"] = 0.5;
    if (node.op == "group_norm") node.attrs["groups"] = (int64_t)(x.c % 3 == 0 ? 3 : x.c % 2 == 0 ? 2 : 1);
    for (const char* role : {"scale", "shift"})
      if (node.op == "affine" || norm) tensor(node, role, Dtype::f32, {x.c});
    if (node.op == "constant") tensor(node, "values", Dtype::f32, x.rank == 4 ? List{1 + b_.below(3), x.h, x.w} : List{x.c});
    if (node.op == "prelu") tensor(node, "slope", Dtype::f32, {x.c});
    for (const char* op : {"slice", "pad", "reshape", "permute", "depth_to_space", "channel_shuffle"})
      if (node.op == op) rearrange(node, x);
  }

  // A node that fits, or none: its tensors go with it.
  void add() {
    Node node;
    node.name = "n" + std::to_string(net_.graph.nodes.size()), node.op = word(kOps, kLaterOps);
    node.inputs = {value()};
    const size_t tensors = net_.graph.tensors.size();
    try {
      const Shape x = shapes_[(size_t)node.inputs[0]];
      fill(node, x);
      if (is_in(node.op, {"add", "sub", "mul", "div", "maximum", "minimum", "concat"})) node.inputs.push_back(value());
      while (node.op == "concat" && b_.coin()) node.inputs.push_back(value());
      std::vector<Shape> in;
      for (int v : node.inputs) in.push_back(shapes_[(size_t)v]);
      const Shape out = cosparse::infer_shape(node, in);
      if (out.c * out.h * out.w > kMostElements) throw cosparse::Error(cosparse::Fault::usage, "net", "small values", "large ones", "");
      const bool steep = is_in(node.op, {"div", "mul", "layer_norm", "group_norm"}) ||
                         (node.op == "activation" && is_in(node.text("kind"), {"sqrt", "exp", "log", "pow"}));
      net_.comparable = net_.comparable && !steep;
      shapes_.push_back(out);
      net_.graph.nodes.push_back(std::move(node));
    } catch (const cosparse::Error&) {
      net_.graph.tensors.resize(tensors);
    }
  }
};

void next(std::string& list, const std::string& item) { list += (list.empty() ? "" : ",") + item; }

std::string json(const List& list) {
  std::string text;
  for (int64_t n : list) next(text, std::to_string(n));
  return "[" + text + "]";
}

std::string json(const cosparse::View& view) {
  std::string text;
  for (const cosparse::ViewAxis& a : view)
    next(text, a.is_rest() ? "null" : a.axis ? "{\"axis\":" + std::to_string(a.axis) + "}" : std::to_string(a.size));
  return "[" + text + "]";
}

struct ToJson {
  std::string operator()(int64_t n) const { return std::to_string(n); }
  std::string operator()(double n) const { return std::to_string(n); }
  std::string operator()(const std::string& s) const { return "\"" + s + "\""; }
  std::string operator()(const List& list) const { return json(list); }
};

std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) out += c == '"' ? "\\\"" : std::string(1, c);
  return out;
}

}  // namespace

Net build(Bytes& bytes, bool later) { return Builder(bytes, later).net(); }

std::string Net::to_artifact() const {
  std::string nodes, inputs, outputs, views, entries, data;
  const auto quoted = [](const std::string& s) { return "\"" + s + "\""; };
  bool second = false, third = !graph.views.empty();
  for (const Node& node : graph.nodes) {
    std::string names, attrs, tensors;
    for (int v : node.inputs) next(names, quoted(graph.value_name(v)));
    for (const auto& [key, attr] : node.attrs) next(attrs, quoted(key) + ":" + std::visit(ToJson{}, attr)), second |= key.find("_tile") < 99;
    for (const auto& [role, tensor] : node.tensors) next(tensors, quoted(role) + ":" + quoted(tensor->name));
    second |= node.tensors.count("basis") > 0;
    third |= is_in(node.op, kLaterOps) || (node.op == "activation" && is_in(node.text("kind"), kLaterKinds));
    next(nodes, "{\"name\":" + quoted(node.name) + ",\"op\":" + quoted(node.op) + ",\"inputs\":[" + names + "],\"attrs\":{" + attrs +
                    "},\"tensors\":{" + tensors + "}}");
  }
  for (const auto& input : graph.inputs) {
    const Shape& s = input.example;
    next(inputs, "{\"name\":" + quoted(input.name) + ",\"shape\":[null," + std::to_string(s.c) +
                     (s.rank == 4 ? "," + std::to_string(s.h) + "," + std::to_string(s.w) : "") + "],\"dtype\":\"float32\"}");
  }
  for (int v : graph.outputs) next(outputs, quoted(graph.value_name(v)));
  for (const auto& view : graph.views) next(views, view ? json(*view) : "null");
  std::vector<const Tensor*> order;  // those of four bytes first, so that all are aligned
  for (const auto& t : graph.tensors) order.push_back(t.get());
  std::stable_sort(order.begin(), order.end(), [](const Tensor* a, const Tensor* b) { return size_of(a->dtype) > size_of(b->dtype); });
  for (const Tensor* t : order) {
    const std::string begin = std::to_string(data.size());
    data.append(reinterpret_cast<const char*>(t->data.get()), (size_t)t->bytes());
    const char* dtype = t->dtype == Dtype::f32 ? "F32" : t->dtype == Dtype::u16 ? "U16" : "U32";
    entries += "," + quoted(t->name) + ":{\"dtype\":" + quoted(dtype) + ",\"shape\":" + json(t->shape) + ",\"data_offsets\":[" + begin + "," +
               std::to_string(data.size()) + "]}";
  }
  const int version = third ? 3 : second ? 2 : 1;
  const std::string text = "{\"checksum\":\"blake2b-256:" + std::string(64, '0') + "\",\"format\":\"cosparse\",\"version\":" +
                           std::to_string(version) + ",\"name\":\"fuzz\",\"inputs\":[" + inputs + "],\"outputs\":[" + outputs +
                           (views.empty() ? "" : "],\"views\":[" + views) + "],\"nodes\":[" + nodes +
                           "],\"preprocessing\":{},\"provenance\":{}}";
  std::string content = bytes::join({"{\"__metadata__\":{\"cosparse\":\"" + escaped(text) + "\"}" + entries + "}", data});
  bytes::fix_checksum(content);
  return content;
}

}  // namespace net
