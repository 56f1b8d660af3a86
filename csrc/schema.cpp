#include "schema.h"

#include <cfloat>

#include "check.h"
#include "message.h"
#include "shape.h"

namespace cosparse {
namespace {

constexpr double kInt = 2147483647;  // sizes and channels
constexpr double kStep = 65535;      // strides, pads, factors: beyond any network, and safe to multiply with each other
constexpr double kMostTaps = 1024;   // taps of a convolution along one axis: bounds the DCT matrix
constexpr size_t kMany = 65536;

AttrRule integer(const char* name, double lowest, double highest) { return {name, AttrRule::Type::integer, lowest, highest}; }
AttrRule flag(const char* name) { return integer(name, 0, 1); }
AttrRule number(const char* name, double lowest = -FLT_MAX, double highest = FLT_MAX) {
  return {name, AttrRule::Type::number, lowest, highest};
}
AttrRule choice(const char* name, std::vector<std::string> choices) {
  return {name, AttrRule::Type::choice, 0, 0, 0, 0, std::move(choices)};
}
AttrRule list(const char* name, size_t shortest, size_t longest, double lowest, double highest) {
  return {name, AttrRule::Type::list, lowest, highest, shortest, longest};
}
AttrRule pair(const char* name, double lowest, double highest) { return list(name, 2, 2, lowest, highest); }

TensorRule vector(const char* role, bool optional = false) { return {role, {Dtype::f32}, 1, optional}; }

const AttrRule kStride = pair("stride", 1, kStep), kDilation = pair("dilation", 1, kStep), kPad = list("pad", 4, 4, 0, kStep);
const AttrRule kFormat = choice("format", {"dense", "block"}), kBlock = integer("block", 1, 64);
const AttrRule kWindow = pair("kernel", 1, kStep);
const std::vector<TensorRule> kWeights = {{"values", {Dtype::f32}},
                                          {"columns", {Dtype::u16, Dtype::u32}, 1, true},
                                          {"rows", {Dtype::u32}, 1, true},
                                          vector("scale", true),
                                          vector("bias", true)};

// Since version 2 the coefficients may be those of a matrix along the taps, and of transforms along tiles of channels and of filters.
void add_transforms(OpRule& rule) {
  const auto optional = [](AttrRule attr) { return attr.optional = true, attr; };
  rule.attrs.push_back(optional(choice("channels_transform", {"dct", "walsh", "matrix"})));
  rule.attrs.push_back(optional(integer("channels_tile", 4, 64)));
  rule.attrs.push_back(optional(choice("filters_transform", {"dct", "walsh"})));
  rule.attrs.push_back(optional(integer("filters_tile", 4, 64)));
  rule.tensors.push_back({"tiles", {Dtype::f32}, 3, true});
  if (rule.op != "conv") return;
  rule.tensors.push_back({"basis", {Dtype::f32}, 2, true});
  for (AttrRule& attr : rule.attrs)
    if (attr.name == "transform") attr.choices.push_back("matrix");
}

std::vector<OpRule> make_schema(int64_t version) {
  std::vector<OpRule> ops = {
      {"conv",
       1,
       1,
       {integer("filters", 1, kInt), integer("channels", 1, kInt), pair("kernel", 1, kMostTaps), kStride, kDilation, kPad,
        integer("groups", 1, kInt), choice("transform", {"identity", "dct"}), kFormat, kBlock},
       kWeights,
       check_conv,
       infer_conv},
      {"linear",
       1,
       1,
       {integer("filters", 1, kInt), integer("channels", 1, kInt), choice("transform", {"identity"}), kFormat, kBlock},
       kWeights,
       check_conv,
       infer_linear},
      {"affine", 1, 1, {}, {vector("scale"), vector("shift")}, nullptr, infer_per_channel},
      {"activation",
       1,
       1,
       {choice("kind", {"relu", "clip", "leaky_relu", "elu", "sigmoid", "silu", "tanh", "gelu", "gelu_tanh", "hardswish", "hardsigmoid",
                        "softplus", "mish"}),
        number("alpha"), number("beta")},
       {},
       check_activation,
       infer_same},
      {"prelu", 1, 1, {}, {vector("slope")}, nullptr, infer_per_channel},
  };
  for (const char* op : {"add", "sub", "mul", "div"}) ops.push_back({op, 2, 2, {}, {}, nullptr, infer_broadcast});
  ops.insert(ops.end(),
             {
                 {"max_pool", 1, 1, {kWindow, kStride, kDilation, kPad, flag("ceil")}, {}, check_pool, infer_pool},
                 {"avg_pool",
                  1,
                  1,
                  {kWindow, kStride, kPad, flag("ceil"), flag("count_pad"), integer("divisor", 0, kInt)},
                  {},
                  check_pool,
                  infer_pool},
                 {"adaptive_avg_pool", 1, 1, {pair("size", 1, kInt)}, {}, nullptr, infer_adaptive},
                 {"adaptive_max_pool", 1, 1, {pair("size", 1, kInt)}, {}, nullptr, infer_adaptive},
                 {"mean", 1, 1, {list("axes", 1, 3, 1, 3), flag("keep")}, {}, check_mean, infer_mean},
                 {"concat", 2, kMany, {integer("axis", 1, 3)}, {}, nullptr, infer_concat},
                 {"slice",
                  1,
                  1,
                  {integer("axis", 1, 3), integer("start", -kInt - 1, kInt), integer("stop", -kInt - 1, kInt), integer("step", 1, kInt)},
                  {},
                  nullptr,
                  infer_slice},
                 {"pad",
                  1,
                  1,
                  {list("before", 3, 3, 0, kStep), list("after", 3, 3, 0, kStep), choice("mode", {"constant", "reflect", "replicate"}),
                   number("value")},
                  {},
                  check_pad,
                  infer_pad},
                 {"reshape", 1, 1, {list("shape", 1, 3, -1, kInt)}, {}, check_reshape, infer_reshape},
                 {"permute", 1, 1, {list("order", 4, 4, 0, 3)}, {}, check_permute, infer_permute},
                 {"upsample",
                  1,
                  2,
                  {choice("mode", {"nearest", "bilinear"}), pair("size", 0, kInt), pair("factor", 0, kStep), flag("align_corners")},
                  {},
                  check_upsample,
                  infer_upsample},
                 {"depth_to_space",
                  1,
                  1,
                  {pair("block", 1, kStep), choice("order", {"crd", "dcr"}), list("crop", 4, 4, 0, kStep)},
                  {},
                  nullptr,
                  infer_depth_to_space},
                 {"channel_shuffle", 1, 1, {integer("groups", 1, kInt)}, {}, nullptr, infer_channel_shuffle},
                 {"layer_norm", 1, 1, {number("eps", 0)}, {vector("scale"), vector("shift")}, nullptr, infer_per_channel},
                 {"softmax", 1, 1, {integer("axis", 1, 1)}, {}, nullptr, infer_same},
             });
  if (version >= 2)
    for (OpRule& rule : ops)
      if (rule.check == check_conv) add_transforms(rule);
  if (version >= 3) {
    for (OpRule& rule : ops)
      if (rule.op == "activation")
        for (const char* kind : {"sqrt", "abs", "exp", "log", "pow"}) rule.attrs[0].choices.push_back(kind);
    for (const char* op : {"maximum", "minimum"}) ops.push_back({op, 2, 2, {}, {}, nullptr, infer_broadcast});
    for (const char* op : {"sum", "amax"}) ops.push_back({op, 1, 1, {list("axes", 1, 3, 1, 3), flag("keep")}, {}, check_mean, infer_mean});
    ops.push_back({"group_norm", 1, 1, {integer("groups", 1, kInt), number("eps", 0)}, {vector("scale"), vector("shift")}, check_group_norm,
                   infer_per_channel});
    ops.push_back({"log_softmax", 1, 1, {integer("axis", 1, 1)}, {}, nullptr, infer_same});
    ops.push_back({"constant", 1, 1, {}, {{"values", {Dtype::f32}}}, check_constant, infer_constant});
  }
  return ops;
}

}  // namespace

const std::vector<OpRule>& schema(int64_t version) {
  static const std::vector<OpRule> all[kVersion] = {make_schema(1), make_schema(2), make_schema(3)};
  return all[version - 1];
}

const OpRule& rule_of(const std::string& op, const std::string& about, int64_t version) {
  for (const OpRule& rule : schema(version)) {
    if (rule.op == op) return rule;
  }
  std::vector<std::string> names;
  for (const OpRule& rule : schema(version)) names.push_back(rule.op);
  throw Error(Fault::unsupported, about, "one of the operators " + joined(names), quoted(op),
              "update cosparse, or export the network again");
}

}  // namespace cosparse
