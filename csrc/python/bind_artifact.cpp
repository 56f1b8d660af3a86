// Python's view of an artifact: the checked graph as JSON, its tensors as read-only arrays on the file's bytes.
#include "bind_artifact.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "checksum.h"
#include "error.h"
#include "graph.h"
#include "message.h"
#include "schema.h"
#include "view.h"
#include "without_gil.h"

namespace py = pybind11;

namespace cosparse {
namespace {

// A file's name need not be UTF-8, and an error must not fail for it.
py::object to_text(const std::string& text) {
  return py::reinterpret_steal<py::object>(PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "backslashreplace"));
}

void raise(const Error& error) {
  constexpr const char* classes[] = {"ArtifactError", "UnsupportedError", "ShapeError", "Error", "MemoryLimitError"};  // in the order of Fault
  const py::object type = py::module_::import("cosparse.errors").attr(classes[static_cast<int>(error.fault)]);
  const py::object value = type(to_text(error.what_about), to_text(error.expected), to_text(error.got), to_text(error.next_step));
  PyErr_SetObject(type.ptr(), value.ptr());
}

Artifact read(const py::object& path) {
  const std::string name = py::module_::import("os").attr("fsencode")(path).cast<std::string>();
  const WithoutGil here;
  return {read_artifact(name)};
}

Artifact parse(const py::bytes& content, const std::string& name) {
  const std::string_view from = content;
  const WithoutGil here;
  return {parse_artifact(name, reinterpret_cast<const std::byte*>(from.data()), static_cast<int64_t>(from.size()))};
}

py::array view(const Artifact& artifact, const std::string& name) {
  for (const auto& tensor : share(artifact)->tensors) {
    if (tensor->name != name) continue;
    const char* dtype = tensor->dtype == Dtype::f32 ? "<f4" : tensor->dtype == Dtype::u16 ? "<u2" : "<u4";
    using Bytes = std::shared_ptr<const std::byte>;
    const py::capsule base(new Bytes(tensor->data), [](void* bytes) { delete static_cast<Bytes*>(bytes); });  // keeps them alive
    py::array array(py::dtype(dtype), tensor->shape, tensor->data.get(), base);
    array.attr("setflags")(py::arg("write") = false);
    return array;
  }
  throw py::key_error(name);
}

py::tuple to_tuple(const Shape& s) {
  if (s.rank == 2) return py::make_tuple(s.n, s.c);
  return py::make_tuple(s.n, s.c, s.h, s.w);
}

Shape to_shape(const std::vector<int64_t>& sizes) {
  if (sizes.size() == 2) return {sizes[0], sizes[1], 1, 1, 2};
  if (sizes.size() == 4) return {sizes[0], sizes[1], sizes[2], sizes[3], 4};
  throw Error(Fault::shape, "input", "[N, C, H, W] or [N, F]", text_of(sizes), "");
}

py::dict shapes(const Artifact& artifact, const std::vector<std::vector<int64_t>>& inputs) {
  const Graph& graph = *artifact.graph;
  std::vector<Shape> given;
  for (const auto& sizes : inputs) given.push_back(to_shape(sizes));
  py::dict out;
  int value = 0;
  for (const Shape& shape : infer_shapes(graph, given)) out[py::str(graph.value_name(value++))] = to_tuple(shape);
  return out;
}

py::list output_shapes(const Artifact& artifact, const std::vector<std::vector<int64_t>>& inputs) {
  const Graph& graph = *artifact.graph;
  std::vector<Shape> given;
  for (const auto& sizes : inputs) given.push_back(to_shape(sizes));
  const std::vector<Shape> values = infer_shapes(graph, given);
  py::list out;
  for (size_t i = 0; i < graph.outputs.size(); ++i) {
    out.append(py::tuple(py::cast(view_sizes(graph, i, values[static_cast<size_t>(graph.outputs[i])]))));
  }
  return out;
}

py::dict operators() {
  py::dict out;
  for (const OpRule& rule : schema()) {
    py::list attrs, roles;
    for (const AttrRule& attr : rule.attrs) attrs.append(attr.name + (attr.optional ? "?" : ""));
    for (const TensorRule& tensor : rule.tensors) roles.append(tensor.role + (tensor.optional ? "?" : ""));
    const py::tuple inputs = py::make_tuple(rule.fewest_inputs, rule.most_inputs);
    out[py::str(rule.op)] = py::dict(py::arg("inputs") = inputs, py::arg("attrs") = attrs, py::arg("tensors") = roles);
  }
  return out;
}

}  // namespace

std::shared_ptr<const Graph> share(const Artifact& artifact) {
  if (artifact.taken) {
    throw Error(Fault::usage, "artifact '" + artifact.graph->name + "'", "one that still has its tensors",
                "one that an engine has taken over", "read the file again");
  }
  return artifact.graph;
}

std::unique_ptr<StoredWeights> take_over(Artifact& artifact) {
  share(artifact);
  if (artifact.graph.use_count() > 1) {  // an engine, perhaps one that is being made on another thread
    throw Error(Fault::usage, "artifact '" + artifact.graph->name + "'", "one that no other engine reads", "one that is shared",
                "read the file again");
  }
  artifact.taken = true;
  return std::make_unique<StoredWeights>(artifact.graph);
}

void bind_artifact(py::module_& m) {
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Error& error) { raise(error); }
  });

  py::class_<Artifact>(m, "Artifact", "A checked artifact; read-only.")
      .def_property_readonly("name", [](const Artifact& a) { return a.graph->name; })
      .def_property_readonly(
          "json", [](const Artifact& a) { return a.graph->json; }, "The network as JSON text (docs/artifact.md).")
      .def_property_readonly("file_bytes", [](const Artifact& a) { return a.graph->file_bytes; })
      .def_property_readonly("file", [](const Artifact& a) { return to_text(a.graph->file); })
      .def_property_readonly("tensors",
                             [](const Artifact& a) {
                               py::list names;
                               for (const auto& tensor : a.graph->tensors) names.append(tensor->name);
                               return names;
                             })
      .def("tensor", &view, py::arg("name"),
           "The tensor as a read-only array, without a copy. KeyError where there is none, Error where an engine has taken them over.");

  m.def("read_artifact", &read, py::arg("path"), "Reads and checks a file.");
  m.def("parse_artifact", &parse, py::arg("content"), py::arg("name") = "artifact", "Checks the bytes of a file; `name` leads its errors.");
  m.def("infer_shapes", &shapes, py::arg("artifact"), py::arg("inputs"), "Value name -> shape, for these shapes of the inputs.");
  m.def("output_shapes", &output_shapes, py::arg("artifact"), py::arg("inputs"),
        "Shapes of the outputs as a caller has them, views included, in their order.");
  m.def("operators", &operators, "The operator table: op -> number of inputs, attributes, tensor roles (optional ones end in '?').");
  m.def(
      "blake2b",
      [](const py::bytes& content) {
        const std::string_view from = content;
        const WithoutGil here;
        Blake2b hash;
        hash.update(from.data(), from.size());
        return hash.hex();
      },
      py::arg("content"), "BLAKE2b-256 as 64 hexadecimal digits.");
}

}  // namespace cosparse
