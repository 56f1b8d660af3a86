#include <cmath>

#include "check.h"
#include "read_graph.h"
#include "schema.h"

namespace cosparse {
namespace {

std::string range_text(const AttrRule& rule) {
  const auto text = [](double x) { return std::to_string(static_cast<int64_t>(x)); };
  if (rule.type != AttrRule::Type::number) return "from " + text(rule.lowest) + " to " + text(rule.highest);
  return rule.lowest < 0 ? "a float32" : "a float32 of at least " + text(rule.lowest);
}

int64_t read_integer(const Json& json, const AttrRule& rule, const std::string& about) {
  const int64_t* value = json.as<int64_t>();
  if (!value || static_cast<double>(*value) < rule.lowest || static_cast<double>(*value) > rule.highest) {
    refuse(about, "an integer " + range_text(rule), json.describe());
  }
  return *value;
}

double read_number(const Json& json, const AttrRule& rule, const std::string& about) {
  const int64_t* integer = json.as<int64_t>();
  const double* real = json.as<double>();
  const double value = integer ? static_cast<double>(*integer) : real ? *real : std::nan("");
  if (!(value >= rule.lowest && value <= rule.highest)) refuse(about, range_text(rule), json.describe());
  return value;
}

std::string read_choice(const Json& json, const AttrRule& rule, const std::string& about) {
  const std::string* value = json.as<std::string>();
  if (!value || std::find(rule.choices.begin(), rule.choices.end(), *value) == rule.choices.end()) {
    refuse(about, "one of " + joined(rule.choices), json.describe());
  }
  return *value;
}

std::vector<int64_t> read_list(const Json& json, const AttrRule& rule, const std::string& about) {
  const std::string least = rule.shortest == rule.longest ? "" : std::to_string(rule.shortest) + " to ";
  const std::string want = "a list of " + least + std::to_string(rule.longest) + " integers";
  const auto& items = expect<Json::Array>(json, about, want);
  if (items.size() < rule.shortest || items.size() > rule.longest) refuse(about, want, json.describe());
  std::vector<int64_t> out;
  for (const Json& item : items) out.push_back(read_integer(item, rule, about));
  return out;
}

Attr read_attr(const Json& json, const AttrRule& rule, const std::string& about) {
  switch (rule.type) {
    case AttrRule::Type::integer:
      return read_integer(json, rule, about);
    case AttrRule::Type::number:
      return read_number(json, rule, about);
    case AttrRule::Type::choice:
      return read_choice(json, rule, about);
    case AttrRule::Type::list:
      return read_list(json, rule, about);
  }
  throw std::logic_error("an attribute type without a reader");
}

std::string name_of(Dtype dtype) { return dtype == Dtype::f32 ? "F32" : dtype == Dtype::u16 ? "U16" : "U32"; }

void check_tensor(const Tensor& tensor, const TensorRule& rule, const std::string& about) {
  if (std::find(rule.dtypes.begin(), rule.dtypes.end(), tensor.dtype) == rule.dtypes.end()) {
    std::string wanted;
    for (Dtype dtype : rule.dtypes) wanted += (wanted.empty() ? "" : " or ") + name_of(dtype);
    refuse(about, "dtype " + wanted, name_of(tensor.dtype));
  }
  const bool fits = rule.rank == 0 || tensor.shape.size() == rule.rank;
  if (!fits) refuse(about, "rank " + std::to_string(rule.rank), "shape " + text_of(tensor.shape));
}

void read_tensors(const Json& json, const OpRule& rule, const std::map<std::string, const Tensor*>& tensors, Node& node) {
  const auto& fields = expect<Json::Object>(json, about(node), "'tensors' as an object");
  std::vector<std::string> roles;
  for (const TensorRule& tensor : rule.tensors) {
    if (!tensor.optional || find(fields, tensor.role)) roles.push_back(tensor.role);
  }
  expect_fields(fields, roles, about(node), "tensor");
  for (const TensorRule& wanted : rule.tensors) {
    const Json* named = find(fields, wanted.role);
    if (!named) continue;
    const std::string& name = expect<std::string>(*named, about(node) + ": tensor " + quoted(wanted.role), "the name of a tensor");
    const auto found = tensors.find(name);
    if (found == tensors.end()) refuse(about(node), "the tensor " + quoted(name) + " in the file", "none");
    check_tensor(*found->second, wanted, about(node) + ": tensor " + quoted(name));
    node.tensors[wanted.role] = found->second;
  }
}

}  // namespace

Node read_node(const Json::Object& json, int64_t version, const std::map<std::string, const Tensor*>& tensors) {
  Node node;
  node.name = expect<std::string>(*find(json, "name"), "a node", "a name");
  node.op = expect<std::string>(*find(json, "op"), "node " + quoted(node.name), "an operator's name");
  const OpRule& rule = rule_of(node.op, "node " + quoted(node.name), version);
  const auto& attrs = expect<Json::Object>(*find(json, "attrs"), about(node), "'attrs' as an object");
  std::vector<std::string> names;
  for (const AttrRule& attr : rule.attrs) {
    if (!attr.optional || find(attrs, attr.name)) names.push_back(attr.name);
  }
  expect_fields(attrs, names, about(node), "attribute");
  for (const AttrRule& attr : rule.attrs) {
    if (!find(attrs, attr.name)) continue;
    node.attrs[attr.name] = read_attr(*find(attrs, attr.name), attr, about(node) + ": attribute " + quoted(attr.name));
  }
  read_tensors(*find(json, "tensors"), rule, tensors, node);
  return node;
}

void check_node(const Node& node) {
  const OpRule& rule = rule_of(node.op, about(node));
  if (node.inputs.size() < rule.fewest_inputs || node.inputs.size() > rule.most_inputs) {
    const std::string least = std::to_string(rule.fewest_inputs), most = std::to_string(rule.most_inputs);
    refuse(about(node), (least == most ? least : least + " to " + most) + " inputs", std::to_string(node.inputs.size()));
  }
  if (rule.check) rule.check(node);
}

}  // namespace cosparse
