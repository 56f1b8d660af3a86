// One engine, many threads, as in a server: the weights lie in memory once, each thread has a context of its own.
//
//     serve_threads MODEL.cosparse [THREADS [IMAGES]]
//
// Every thread runs the same images; all have to get the same bits.
#include <cosparse.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

namespace {

void check(cosparse_status status) {
  if (status != COSPARSE_OK) throw std::runtime_error(cosparse_last_error()->message);
}

struct Free {
  void operator()(cosparse_engine* engine) const { cosparse_free(engine); }
  void operator()(cosparse_context* context) const { cosparse_context_free(context); }
};
using Engine = std::unique_ptr<cosparse_engine, Free>;
using Context = std::unique_ptr<cosparse_context, Free>;

Engine load(const char* path) {
  cosparse_options options = COSPARSE_OPTIONS;
  options.threads = 1;  // each caller is a thread already
  cosparse_engine* engine;
  check(cosparse_load_file(path, &options, &engine));
  return Engine(engine);
}

Context context(const Engine& engine, const cosparse_shape& shape) {
  cosparse_context* made;
  check(cosparse_context_create(engine.get(), &shape, 1, &made));
  return Context(made);
}

std::vector<float> image(size_t floats, int seed) {
  std::vector<float> pixels(floats);
  unsigned state = 12345u + static_cast<unsigned>(seed);
  for (float& pixel : pixels) pixel = static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) / (1 << 24) - 0.5f;
  return pixels;
}

// The answers to all images, one after the other.
std::vector<float> answers(const Engine& engine, const cosparse_shape& shape, int images) {
  const Context own = context(engine, shape);
  const cosparse_shape output = cosparse_context_output(own.get(), 0);
  const size_t floats = cosparse_element_count(&output);
  std::vector<float> all(floats * static_cast<size_t>(images));
  for (int i = 0; i < images; ++i) {
    const std::vector<float> pixels = image(cosparse_element_count(&shape), i);
    const float* const in[] = {pixels.data()};
    float* const out[] = {all.data() + floats * static_cast<size_t>(i)};
    check(cosparse_context_run(own.get(), in, out));
  }
  return all;
}

int serve(const char* path, int threads, int images) {
  const Engine engine = load(path);
  cosparse_value input;
  check(cosparse_input(engine.get(), 0, &input));
  input.shape.sizes[0] = 1;
  const std::vector<float> expected = answers(engine, input.shape, images);

  std::vector<std::thread> team;
  std::vector<char> same(static_cast<size_t>(threads), 0);  // of each thread; not vector<bool>, whose bits share bytes
  const auto start = std::chrono::steady_clock::now();
  for (char& verdict : same)
    team.emplace_back([&] {
      try {
        const std::vector<float> got = answers(engine, input.shape, images);
        verdict = std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)) == 0;
      } catch (const std::exception& error) { std::fprintf(stderr, "serve_threads: %s\n", error.what()); }
    });
  for (std::thread& member : team) member.join();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (const char verdict : same)
    if (!verdict) {
      std::fprintf(stderr, "serve_threads: a thread got other answers\n");
      return 1;
    }
  std::printf("%d threads: the same answers, %.0f images a second\n", threads, threads * images / seconds);
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) {
    std::fprintf(stderr, "serve_threads MODEL.cosparse [THREADS [IMAGES]]\n");
    return 2;
  }
  try {
    return serve(arguments[1], count > 2 ? std::atoi(arguments[2]) : 4, count > 3 ? std::atoi(arguments[3]) : 50);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "serve_threads: %s\n", error.what());
    return 2;
  }
}
