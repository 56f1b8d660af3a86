// Python's view of the engine. Arrays come in as C-contiguous float32 (engine/engine.py sees to that); the GIL is released while C++ works.
#include "bind_engine.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <optional>

#include "bind_artifact.h"
#include "calibrate.h"
#include "cores.h"
#include "engine.h"
#include "error.h"
#include "memory_limit.h"
#include "message.h"
#include "view.h"
#include "without_gil.h"

namespace py = pybind11;

namespace cosparse {
namespace {

using Array = py::array_t<float, py::array::c_style>;

Shape shape_of(const std::vector<int64_t>& sizes, const std::string& name) {
  if (sizes.size() == 2) return {sizes[0], sizes[1], 1, 1, 2};
  if (sizes.size() == 4) return {sizes[0], sizes[1], sizes[2], sizes[3], 4};
  throw Error(Fault::shape, "input '" + name + "'", "4 axes [N, C, H, W] or 2 axes [N, F]",
              std::to_string(sizes.size()) + " axes, " + text_of(sizes), sizes.size() == 3 ? "one image is a batch of one: x[None]" : "");
}

std::vector<Shape> shapes_of(const Engine& engine, const std::vector<std::vector<int64_t>>& inputs) {
  const auto& expected = engine.graph().inputs;
  if (inputs.size() != expected.size())
    throw Error(Fault::shape, "network '" + engine.graph().name + "'", std::to_string(expected.size()) + " inputs",
                std::to_string(inputs.size()), "pass them in the order of engine.inputs");
  std::vector<Shape> shapes;
  for (size_t i = 0; i < inputs.size(); ++i) shapes.push_back(shape_of(inputs[i], expected[i].name));
  return shapes;
}

std::vector<std::vector<int64_t>> array_sizes(const std::vector<Array>& arrays) {
  std::vector<std::vector<int64_t>> sizes;
  for (const Array& a : arrays) sizes.emplace_back(a.shape(), a.shape() + a.ndim());
  return sizes;
}

std::vector<const float*> pointers(const std::vector<Array>& arrays) {
  std::vector<const float*> all;
  for (const Array& a : arrays) all.push_back(a.data());
  return all;
}

template <class Work> auto without_gil(const Work& work) {
  const WithoutGil here;
  return work();
}

std::shared_ptr<const Schedule> find_schedule(const Engine& engine, const std::vector<Shape>& shapes) {
  return without_gil([&] { return engine.schedule(shapes); });
}

std::vector<Array> run(const Engine& engine, const std::vector<Array>& inputs, const std::optional<std::vector<Array>>& out) {
  const auto schedule = find_schedule(engine, shapes_of(engine, array_sizes(inputs)));
  const auto& values = engine.graph().outputs;
  if (out && out->size() != values.size())
    throw Error(Fault::shape, "out", std::to_string(values.size()) + " arrays", std::to_string(out->size()), "");
  std::vector<Array> results;
  std::vector<float*> to;
  for (size_t i = 0; i < values.size(); ++i) {
    const auto sizes = view_sizes(engine.graph(), i, schedule->outputs[i]);
    results.push_back(out ? (*out)[i] : Array(sizes));
    if (out && array_sizes({results.back()})[0] != sizes) {
      const auto text = [](const std::vector<int64_t>& s) { return py::str(py::tuple(py::cast(s))).cast<std::string>(); };
      throw Error(Fault::shape, "out for output '" + engine.graph().value_name(values[i]) + "'", text(sizes),
                  text(array_sizes({results.back()})[0]), "");
    }
    to.push_back(results.back().mutable_data());  // raises ValueError for a read-only array
  }
  const auto from = pointers(inputs);
  const WithoutGil here;
  engine.run(*schedule, from, to);
  return results;
}

py::tuple plan(const Engine& engine, const std::vector<std::vector<int64_t>>& inputs) {
  const auto schedule = find_schedule(engine, shapes_of(engine, inputs));
  const auto flops = schedule->counts(&Step::flops), basis = schedule->counts(&Step::basis_flops),
             dense = schedule->counts(&Step::dense_flops);
  py::list rows;
  for (size_t i = 0; i < schedule->rows(); ++i) {
    const Step& s = schedule->parts[0].plan->steps[i];
    rows.append(py::dict(py::arg("name") = s.name, py::arg("op") = s.op, py::arg("kernel") = s.kernel, py::arg("density") = s.density,
                         py::arg("flops") = flops[i], py::arg("basis_flops") = basis[i], py::arg("dense_flops") = dense[i],
                         py::arg("bytes") = s.bytes, py::arg("why") = s.why));
  }
  return py::make_tuple(schedule->text(), rows);
}

std::string tune(Engine& engine, const std::vector<std::vector<int64_t>>& inputs) {
  const std::vector<Shape> shapes = shapes_of(engine, inputs);
  const WithoutGil here;
  return engine.tune(shapes);
}

std::vector<std::pair<double, double>> profile(const Engine& engine, const std::vector<Array>& inputs, int repeat) {
  const auto schedule = find_schedule(engine, shapes_of(engine, array_sizes(inputs)));
  const auto from = pointers(inputs);
  std::vector<std::pair<double, double>> times;
  const WithoutGil here;
  for (const StepTime& t : engine.profile(*schedule, from, repeat)) times.emplace_back(t.median_us, t.min_us);
  return times;
}

Number number_of(const std::string& dtype) {
  for (const Number number : {Number::f32, Number::bf16, Number::int8})
    if (dtype == name_of(number)) return number;
  throw Error(Fault::unsupported, "dtype", "float32, bfloat16 or int8", dtype, "");
}

std::map<int, Quantization> steps_of(const std::shared_ptr<const Graph>& graph, const Options& options,
                                     const std::vector<std::vector<Array>>& calibration) {
  std::vector<std::vector<Sample>> samples;
  for (const std::vector<Array>& arrays : calibration) {
    if (arrays.size() != graph->inputs.size())
      throw Error(Fault::shape, "calibration", std::to_string(graph->inputs.size()) + " inputs", std::to_string(arrays.size()),
                  "pass them in the order of engine.inputs");
    samples.emplace_back();
    for (size_t i = 0; i < arrays.size(); ++i)
      samples.back().push_back({shape_of(array_sizes(arrays)[i], graph->inputs[i].name), arrays[i].data()});
  }
  return without_gil([&] { return calibrate(graph, options, samples); });
}

std::unique_ptr<Engine> make_engine(Artifact& artifact, int threads, const std::string& isa, int tile, bool tune, bool dense, bool poison,
                                    const std::string& dtype, const std::vector<std::vector<Array>>& calibration, bool own, int contexts,
                                    const std::vector<int>& cores, int64_t max_memory, std::optional<bool> winograd) {
  const Winograd where = !winograd ? Winograd::measured : *winograd ? Winograd::always : Winograd::never;
  const Options options =
      checked({threads, choose_isa(isa), number_of(dtype), tile, tune, dense, poison, contexts, max_memory, cores, where});  // before it takes over
  std::map<int, Quantization> steps;
  if (options.number == Number::int8) steps = steps_of(share(artifact), options, calibration);
  if (own) {
    auto stored = take_over(artifact);
    const WithoutGil here;
    return std::make_unique<Engine>(std::move(stored), options, steps);
  }
  const auto graph = share(artifact);
  const WithoutGil here;
  return std::make_unique<Engine>(graph, options, steps);
}

py::list kernels() {
  py::list rows;
  for (const KernelRow& k : kernel_table())
    rows.append(py::dict(py::arg("name") = k.name, py::arg("op") = k.op, py::arg("isa") = name_of(k.isa),
                         py::arg("dtype") = name_of(k.number), py::arg("r") = k.r, py::arg("t") = k.t, py::arg("least_columns") = k.least,
                         py::arg("available") = k.isa <= best_isa()));
  return rows;
}

}  // namespace

void bind_engine(py::module_& m) {
  py::class_<Engine>(m, "Engine", "A network ready to run. Call it from as many threads as you like.")
      .def(py::init(&make_engine), py::arg("artifact"), py::arg("threads"), py::arg("isa") = "", py::arg("tile") = 0,
           py::arg("tune") = false, py::arg("dense") = false, py::arg("poison") = false, py::arg("dtype") = "float32",
           py::arg("calibration") = py::list(), py::arg("take_over") = false, py::arg("contexts") = 0,
           py::arg("cores") = std::vector<int>{}, py::arg("max_memory") = 0, py::arg("winograd") = py::none())
      .def("run", &run, py::arg("inputs"), py::arg("out") = py::none(), "Float32 arrays in, float32 arrays out.")
      .def("plan", &plan, py::arg("shapes"), "How the batch runs, in words, and one dictionary a step.")
      .def("tune", &tune, py::arg("shapes"), "Measures the tiles for these shapes; a warning about the tuning cache, or nothing.")
      .def("profile", &profile, py::arg("inputs"), py::arg("repeat"), "(median, minimum) microseconds of each step.")
      .def_property_readonly("isa", [](const Engine& e) { return name_of(e.options().isa); })
      .def_property_readonly("dtype", [](const Engine& e) { return name_of(e.options().number); })
      .def_property_readonly("warnings", &Engine::warnings)
      .def_property_readonly("cache", &Engine::cache)
      .def_property_readonly("measured", &Engine::measured)
      .def_property_readonly("threads", [](const Engine& e) { return e.options().threads; })
      .def_property_readonly("contexts", [](const Engine& e) { return e.options().contexts; })
      .def_property_readonly("weight_bytes", &Engine::weight_bytes)
      .def_property_readonly("arena_bytes", &Engine::arena_bytes);
  m.def("kernels", &kernels, "The kernel table, best instruction set first.");
  m.def("default_threads", &default_threads, "COSPARSE_THREADS, else the number of cores that this process may use.");
  m.def("memory_left", &memory_left, py::arg("proc") = "/proc", py::arg("groups") = "/sys/fs/cgroup",
        "Bytes that this process can still take.");
  m.def("best_isa", [] { return name_of(best_isa()); }, "The best instruction set that this machine and this build have.");
}

}  // namespace cosparse
