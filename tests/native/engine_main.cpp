// The runtime under the sanitizers, without Python: engines of every instruction set and number, called from many threads.
//   engine FILE...   each file, in each form: calls of all kinds side by side give the bits that one caller alone got
// COSPARSE_ISA names one instruction set instead of all that the machine has; what is tuned is kept in COSPARSE_CACHE.
#include <atomic>
#include <cstdlib>
#include <iostream>
#include <set>
#include <string>
#include <thread>

#include "error.h"
#include "runs.h"

namespace {

using cosparse::Engine;
using cosparse::Number;

constexpr int kCallers = 8, kCalls = 6, kBatches = 20;  // more than an engine keeps schedules for
constexpr int64_t kMore = 3;

std::atomic<int> wrong{0}, calls{0};

// The answers of a lone caller, by batch; at two sizes.
struct Wanted {
  std::vector<runs::Outputs> inputs, outputs;
  std::vector<std::vector<cosparse::Shape>> shapes;
};

Wanted ask_alone(const Engine& engine, bool other_size) {
  Wanted w;
  for (int64_t batch = 1; batch <= kBatches; ++batch) {
    w.shapes.push_back(runs::shapes_of(engine.graph(), batch, other_size && batch % 4 == 0 ? kMore : 0));
    w.inputs.push_back(runs::inputs_of(w.shapes.back(), (size_t)batch));
    w.outputs.push_back(runs::run(engine, w.shapes.back(), w.inputs.back()));
  }
  return w;
}

void call(const Engine& engine, const Wanted& w, int caller) {
  for (int i = 0; i < kCalls; ++i) {
    const size_t which = (size_t)(caller * 7 + i * 3) % kBatches;
    if (!runs::same_bits(runs::run(engine, w.shapes[which], w.inputs[which]), w.outputs[which])) ++wrong;
    ++calls;
  }
}

void profile(const Engine& engine, const Wanted& w) {
  std::vector<const float*> from;
  for (const auto& x : w.inputs[1]) from.push_back(x.data());
  if (engine.profile(*engine.schedule(w.shapes[1]), from, 3).empty()) ++wrong;
}

bool fits(const cosparse::Graph& graph, int64_t more) {
  try {
    return !cosparse::infer_shapes(graph, runs::shapes_of(graph, 1, more)).empty();
  } catch (const cosparse::Error&) {
    return false;
  }
}

void try_all(const std::string& path, const cosparse::Options& options, const std::map<int, cosparse::Quantization>& steps) {
  const std::shared_ptr<cosparse::Graph> graph = cosparse::read_artifact(path);
  const bool other_size = fits(*graph, kMore);
  Engine engine(std::make_unique<cosparse::StoredWeights>(graph), options, steps);
  const Wanted w = ask_alone(engine, other_size);
  std::vector<std::thread> threads;
  for (int caller = 0; caller < kCallers; ++caller) threads.emplace_back([&, caller] { call(engine, w, caller); });
  threads.emplace_back([&] { profile(engine, w); });
  if (options.tune)
    for (const int batch : {1, 2})
      threads.emplace_back([&, batch] { engine.tune(w.shapes[(size_t)batch]); });
  for (std::thread& thread : threads) thread.join();
  call(engine, w, 0);  // after all tuning
}

std::map<int, cosparse::Quantization> calibrated(const std::string& path, cosparse::Options options) {
  options.threads = 1, options.number = Number::observe, options.tune = false;
  const std::shared_ptr<cosparse::Graph> graph = cosparse::read_artifact(path);
  const Engine twin(graph, options);
  const auto shapes = runs::shapes_of(*graph, 2);
  runs::run(twin, shapes, runs::inputs_of(shapes));
  return twin.calibrated();
}

}  // namespace

int main(int count, char** words) {
  std::set<cosparse::Isa> isas = {cosparse::choose_isa("")};
  const char* asked = std::getenv("COSPARSE_ISA");
  for (int isa = 0; !(asked && *asked) && isa < (int)cosparse::best_isa(); ++isa) isas.insert(cosparse::Isa(isa));
  int engines = 0;
  for (int i = 1; i < count; ++i)
    for (const cosparse::Isa isa : isas)
      for (const Number number : {Number::f32, Number::bf16, Number::int8})
        for (const bool tune : {false, true}) {
          cosparse::Options options;
          options.threads = 3, options.isa = isa, options.number = number, options.tune = tune, options.poison = !tune;
          if (!tune) options.winograd = cosparse::Winograd::always;  // tests/test_engine_conv.py runs the others without
          try_all(words[i], options, number == Number::int8 ? calibrated(words[i], options) : std::map<int, cosparse::Quantization>());
          ++engines;
        }
  std::cout << engines << " engines, " << calls << " calls, " << wrong << " wrong\n";
  return wrong != 0 || engines == 0;
}
