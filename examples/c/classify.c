/* One image, one network: the five best classes and what a run takes.

     classify MODEL.cosparse [IMAGE.f32]        IMAGE: the floats of one image, channel by channel; without it a grey one */
#define _POSIX_C_SOURCE 200809L
#include <cosparse.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { RUNS = 50, BEST = 5 };

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static int by_value(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

static int failed(void) {
  fprintf(stderr, "classify: %s\n", cosparse_last_error()->message);
  return 2;
}

static void warn(const char* text, void* user) {
  (void)user;
  fprintf(stderr, "classify: %s\n", text);
}

static int read_image(const char* path, float* image, size_t count) {
  FILE* file = fopen(path, "rb");
  const int whole = file && fread(image, sizeof(float), count, file) == count && fgetc(file) == EOF;
  if (file) fclose(file);
  if (!whole) fprintf(stderr, "classify: %s: expected a file of %zu floats\n", path, count);
  return whole;
}

static void print_best(const float* scores, size_t count) {
  char* taken = calloc(count, 1);
  for (int place = 0; taken && place < BEST && place < (int)count; ++place) {
    size_t best = count;
    for (size_t i = 0; i < count; ++i)
      if (!taken[i] && (best == count || scores[i] > scores[best])) best = i;
    taken[best] = 1;
    printf("class %zu: %g\n", best, (double)scores[best]);
  }
  free(taken);
}

/* Runs in a context, whose working memory is made once: nothing is allocated between two images. */
static int run(const cosparse_engine* engine, cosparse_shape shape, const char* path) {
  cosparse_context* context;
  if (cosparse_context_create(engine, &shape, 1, &context) != COSPARSE_OK) return failed();
  const cosparse_shape answer = cosparse_context_output(context, 0);
  const size_t pixels = cosparse_element_count(&shape), classes = cosparse_element_count(&answer);
  float *image = malloc(pixels * sizeof(float)), *scores = malloc(classes * sizeof(float));
  int status = 2;
  if (image && scores) {
    for (size_t i = 0; i < pixels; ++i) image[i] = 0.5f;
    if (!path || read_image(path, image, pixels)) {
      const float* const inputs[] = {image};
      float* const outputs[] = {scores};
      double ms[RUNS];
      status = 0;
      for (int i = 0; i < RUNS && !status; ++i) {
        const double start = now_ms();
        if (cosparse_context_run(context, inputs, outputs) != COSPARSE_OK) status = failed();
        ms[i] = now_ms() - start;
      }
      if (!status) {
        qsort(ms, RUNS, sizeof(ms[0]), by_value);
        print_best(scores, classes);
        printf("median of %d runs: %.3f ms\n", (int)RUNS, ms[RUNS / 2]);
      }
    }
  }
  free(image);
  free(scores);
  cosparse_context_free(context);
  return status;
}

int main(int count, char** arguments) {
  if (count < 2) {
    fprintf(stderr, "classify MODEL.cosparse [IMAGE.f32]\n");
    return 2;
  }
  if (cosparse_abi() != COSPARSE_ABI) {
    fprintf(stderr, "classify: built for ABI %d of cosparse, found %d (version %s)\n", COSPARSE_ABI, cosparse_abi(), cosparse_version());
    return 2;
  }
  cosparse_options options = COSPARSE_OPTIONS;
  options.warning = warn;
  cosparse_engine* engine;
  if (cosparse_load_file(arguments[1], &options, &engine) != COSPARSE_OK) return failed();

  int status = 2;
  cosparse_info info = {.size = sizeof info};
  cosparse_value input;
  if (cosparse_describe(engine, &info) != COSPARSE_OK || cosparse_input(engine, 0, &input) != COSPARSE_OK) {
    failed();
  } else if (cosparse_input_count(engine) != 1) {
    fprintf(stderr, "classify: %s has %zu inputs, and this program one image\n", info.name, cosparse_input_count(engine));
  } else {
    printf("%s: %s, %d threads, %.1f MB of weights\n", info.name, info.isa, (int)info.threads, (double)info.weight_bytes / 1e6);
    input.shape.sizes[0] = 1;
    status = run(engine, input.shape, count > 2 ? arguments[2] : NULL);
  }
  cosparse_free(engine);
  return status;
}
