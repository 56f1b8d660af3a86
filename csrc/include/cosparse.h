/* cosparse in C: networks whose weights are sparse in a transform domain, run on this machine's CPU. C99, and C++ as it is.

     cosparse_engine* engine;
     if (cosparse_load_file("net.cosparse", NULL, &engine) != COSPARSE_OK) return fail(cosparse_last_error()->message);
     const cosparse_shape shape = {4, {1, 3, 32, 32}};
     cosparse_run(engine, &shape, &image, 1, &scores, &score_count, 1);
     cosparse_free(engine);

   Arrays are dense, row-major float32: [N, C, H, W], or [N, F] of rank 2. Outputs overlap neither each other nor inputs.

   Threads. One engine may be used from any number of threads at once: it holds the weights, which never change, and every call works in
   memory of its own. Answers are bitwise the same whoever calls beside. cosparse_run takes working memory from the engine's pool and waits
   where `contexts` calls already run. A context is working memory for one shape that its owner keeps: runs in it neither wait nor
   allocate, and one thread at a time may use it. Queries may be made at any time. An engine and its contexts may be freed in any order,
   each once nobody else uses it.

   Errors. Every function that can fail returns a status; nothing is written to its results then, and the engine stays as it was. The text
   is cosparse_last_error() of the same thread. No function prints, exits or throws.

   Versions. A program that was built with this header runs with every library of the same COSPARSE_ABI that has the functions it calls:
   structures that a caller fills begin with their size, and grow at their end alone; functions are added, none is changed. */
#ifndef COSPARSE_H
#define COSPARSE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__) && !defined(COSPARSE_STATIC)
#define COSPARSE_API __attribute__((visibility("default")))
#else
#define COSPARSE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define COSPARSE_VERSION "0.1.0"
#define COSPARSE_ABI 1

/* The library's own, to compare with the two above. */
COSPARSE_API const char* cosparse_version(void);
COSPARSE_API int cosparse_abi(void);

/* ---- errors ---- */

typedef enum cosparse_status {
  COSPARSE_OK = 0,
  COSPARSE_ARTIFACT = 1,    /* the file is no valid artifact, or cannot be read */
  COSPARSE_UNSUPPORTED = 2, /* it needs what this library or machine does not have */
  COSPARSE_SHAPE = 3,       /* arrays that the network does not take */
  COSPARSE_USAGE = 4,       /* an option or argument that makes no sense */
  COSPARSE_MEMORY = 5,      /* there was not enough */
  COSPARSE_INTERNAL = 6     /* a defect of the library: please report it */
} cosparse_status;

typedef struct cosparse_error {
  cosparse_status status;
  const char* message;   /* the four below in one sentence */
  const char* about;     /* the file, tensor, node, input or option */
  const char* expected;
  const char* got;
  const char* next_step; /* may be empty */
} cosparse_error;

/* The latest error of the calling thread, valid until its next one; never NULL. UTF-8, but for names of files. */
COSPARSE_API const cosparse_error* cosparse_last_error(void);

/* ---- loading ---- */

typedef struct cosparse_engine cosparse_engine;
typedef struct cosparse_context cosparse_context;

/* Sizes beyond the rank are not read. */
typedef struct cosparse_shape {
  int32_t rank; /* 4: [N, C, H, W], 2: [N, F] */
  int64_t sizes[4];
} cosparse_shape;

/* The shape in which Python and the server give an output: of any rank, over the same numbers in the same order. Sizes beyond the rank are 0. */
typedef struct cosparse_view {
  int32_t rank; /* 1 to 8 */
  int64_t sizes[8];
} cosparse_view;

typedef enum cosparse_dtype {
  COSPARSE_FLOAT32 = 0,
  COSPARSE_BFLOAT16 = 1, /* weights and activations rounded, sums in float32 */
  COSPARSE_INT8 = 2      /* rounded to 8 bits; needs calibration */
} cosparse_dtype;

/* Begin with COSPARSE_OPTIONS or cosparse_options_default(), and change what should differ. */
typedef struct cosparse_options {
  size_t size;             /* of this structure */
  int32_t abi;             /* COSPARSE_ABI */
  int32_t threads;         /* of a run, the caller's included; 0: COSPARSE_THREADS, else one for each core that this process may use */
  int32_t contexts;        /* calls of cosparse_run at once; 0: as many as threads or usable cores, the larger */
  cosparse_dtype dtype;    /* what convolutions multiply */
  int32_t tune;            /* 1: time each layer at load, or take it from the tuning cache (COSPARSE_CACHE); 0: a rule decides */
  const char* isa;         /* scalar, avx2, avx512, avx512_vnni, avx512_bf16, amx; NULL: COSPARSE_ISA, else the best of this machine */
  const int32_t* cores;    /* worker i stays on the i-th of them, the caller's thread where it is; NULL: wherever the system puts them */
  size_t core_count;
  const float* const* calibration; /* int8: sample images for each input: calibration_batch * C * H * W floats of its example's shape */
  size_t calibration_batch;        /* images in each of these arrays */
  void (*warning)(const char* text, void* user); /* hears, on the thread that loads or warms up, of what is not as it should be, such as
                                                    an unwritable cache; may be NULL; must not throw */
  void* user;
  int64_t max_memory; /* bytes of activations, and of packed weights, beyond which COSPARSE_MEMORY; 0: as many as the machine has left */
  int32_t winograd;   /* 3x3 layers by Winograd's tiles (float32): 0: where tune measures it as the fastest; 1: wherever it can; -1: nowhere */
  int32_t reserved;   /* 0 */
} cosparse_options;

#define COSPARSE_OPTIONS {sizeof(cosparse_options), COSPARSE_ABI, 0, 0, COSPARSE_FLOAT32, 1, NULL, NULL, 0, NULL, 0, NULL, NULL, 0, 0, 0}
COSPARSE_API cosparse_options cosparse_options_default(void);

/* Reads and checks an artifact and packs its weights for this machine. options: NULL for the defaults. The bytes are not needed afterwards;
   `name` leads the errors about them. */
COSPARSE_API cosparse_status cosparse_load_file(const char* path, const cosparse_options* options, cosparse_engine** engine);
COSPARSE_API cosparse_status cosparse_load_memory(const void* bytes, size_t count, const char* name, const cosparse_options* options,
                                                  cosparse_engine** engine);
/* NULL is allowed. */
COSPARSE_API void cosparse_free(cosparse_engine* engine);

/* ---- queries: what is returned lives as long as the engine ---- */

typedef struct cosparse_value {
  const char* name;
  cosparse_shape shape; /* sizes[0] is -1: any batch. H and W are the example's; many networks take others, cosparse_output_shapes tells */
} cosparse_value;

typedef struct cosparse_info {
  size_t size; /* of this structure; the caller sets it */
  const char* name;
  const char* isa;
  cosparse_dtype dtype;
  int32_t threads, contexts;
  int64_t weight_bytes;    /* packed weights */
  int64_t workspace_bytes; /* of one call; the most so far */
  const char* json;        /* the network as docs/artifact.md has it: nodes, preprocessing, provenance */
} cosparse_info;

COSPARSE_API cosparse_status cosparse_describe(const cosparse_engine* engine, cosparse_info* info);
COSPARSE_API size_t cosparse_input_count(const cosparse_engine* engine);
COSPARSE_API size_t cosparse_output_count(const cosparse_engine* engine);
COSPARSE_API cosparse_status cosparse_input(const cosparse_engine* engine, size_t index, cosparse_value* value);
COSPARSE_API cosparse_status cosparse_output(const cosparse_engine* engine, size_t index, cosparse_value* value);
/* The shapes of all outputs for these shapes of all inputs. */
COSPARSE_API cosparse_status cosparse_output_shapes(const cosparse_engine* engine, const cosparse_shape* inputs, size_t input_count,
                                                    cosparse_shape* outputs, size_t output_count);
/* The views of all outputs for these shapes of all inputs: what the artifact states ("views" in docs/artifact.md), and where it states
   none, the shape of cosparse_output_shapes. */
COSPARSE_API cosparse_status cosparse_output_views(const cosparse_engine* engine, const cosparse_shape* inputs, size_t input_count,
                                                   cosparse_view* views, size_t output_count);
/* Floats in an array of this shape; 0 where the shape is none. */
COSPARSE_API size_t cosparse_element_count(const cosparse_shape* shape);

/* ---- running ---- */

/* Plans, tunes (where the options said so) and allocates for these shapes, so that the first run is as fast as the others. */
COSPARSE_API cosparse_status cosparse_warm_up(cosparse_engine* engine, const cosparse_shape* inputs, size_t input_count);

/* shapes[i], inputs[i]: of input i. outputs[j]: memory for output j, output_floats[j] floats of it; more than needed is allowed. */
COSPARSE_API cosparse_status cosparse_run(const cosparse_engine* engine, const cosparse_shape* shapes, const float* const* inputs,
                                          size_t input_count, float* const* outputs, const size_t* output_floats, size_t output_count);

COSPARSE_API cosparse_status cosparse_context_create(const cosparse_engine* engine, const cosparse_shape* inputs, size_t input_count,
                                                     cosparse_context** context);
COSPARSE_API void cosparse_context_free(cosparse_context* context);
/* The shape of an output of this context; rank 0 where there is none of this index. */
COSPARSE_API cosparse_shape cosparse_context_output(const cosparse_context* context, size_t index);
/* Its view, as cosparse_output_views has it; rank 0 where there is none of this index, or no memory to find it. */
COSPARSE_API cosparse_view cosparse_context_output_view(const cosparse_context* context, size_t index);
/* One array for each input and output of the network, of cosparse_element_count() floats of the context's shapes: nothing tells the library how
   long they are. Neither waits nor allocates. */
COSPARSE_API cosparse_status cosparse_context_run(cosparse_context* context, const float* const* inputs, float* const* outputs);

/* ---- profiling ---- */

typedef struct cosparse_step {
  const char* name; /* these four live as long as the context */
  const char* op;
  const char* kernel;
  const char* why;
  double median_us, min_us;
  double density;                        /* share of the coefficients that are kept */
  double multiply_adds, dense_multiply_adds; /* basis step included; as if nothing were sparse */
  int64_t weight_bytes;                  /* that the kernel reads */
} cosparse_step;

COSPARSE_API size_t cosparse_context_step_count(const cosparse_context* context);
/* Times every step over `repeat` runs on these inputs. steps: step_count of them, which is cosparse_context_step_count(). */
COSPARSE_API cosparse_status cosparse_context_profile(cosparse_context* context, const float* const* inputs, int32_t repeat,
                                                      cosparse_step* steps, size_t step_count);

#ifdef __cplusplus
}
#endif
#endif
