// conv_basis: 3x3 convolutions whose weights are sparse in the DCT of their taps (contract: conv_basis.h and kernels/gpu/conv_basis.py).
//
// A block computes `groups` x 64 filters of a run of `pixels` output pixels. Chunk by chunk of its channels, the basis step makes the maps
// that some of its filters want in shared memory, and each warp multiplies its group's columns of them into registers. Maps are never in
// global memory; a chunk's maps are made while the chunk before it is multiplied, by different warps at a time.
#include "basis_step.h"
#include "product.h"

namespace {

struct Call {
  Args a;
  Geometry geometry;
};

constexpr int kRing = 4;  // chunks whose entries are in shared memory: the one that is multiplied, and three ahead

int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Where the entries lie: behind the maps and copies of two chunks.
template <int pixels> DEVICE int ring_at(const Call& call) {
  const int copies = call.geometry.source == kGather ? 0 : call.a.most_channels * (pixels + 2 * call.geometry.lead) * 2;
  return 2 * (call.a.most_rows * MapShape<pixels>::kRowBytes + copies);
}

// Blocks of a multiprocessor: so many that each thread has 128 registers where it holds 64 sums, 255 where it holds 128.
template <int groups, int pixels, int wide, int split> struct Launch {
  static constexpr int kThreads = 32 * groups * (pixels / wide) * split, kFit = (wide == 32 ? 512 : 256) / kThreads;
  static constexpr int kBlocks = kFit > 1 ? kFit : 1;
};

template <int pixels> constexpr bool kSliced = pixels == 64;  // blocks of more pixels are for layers that have enough of them

template <class T, int groups, int pixels, int wide, int split>
KERNEL((Launch<groups, pixels, wide, split>::kThreads), (Launch<groups, pixels, wide, split>::kBlocks))
conv_basis(const Call call) {
  using Shape = MapShape<pixels>;
  constexpr int warps = Launch<groups, pixels, wide, split>::kThreads / 32, across = pixels / wide, teams = groups * across;
  static_assert(warps % Shape::kParts == 0);
  const Args& a = call.a;
  const int lane = thread_index() % 32, warp = thread_index() / 32;
  const int pixel = block_x() * pixels;
  char* const memory = shared_memory();
  const int map_bytes = a.most_rows * Shape::kRowBytes;
  const int x_row = (pixels + 2 * call.geometry.lead) * 2, x_bytes = a.most_channels * x_row;
  char* const copies = memory + 2 * map_bytes;
  int2* const ring = (int2*)(memory + ring_at<pixels>(call));
  const auto own_pixels = [](int thread) { return (thread / 32 % Shape::kParts * 32 + thread % 32) * 2 * Shape::kPairs; };
  const uint32_t bits = inside_bits<Shape::kPairs>(a, pixel + own_pixels(thread_index()));
  const Source source = call.geometry.source;
  const int set_chunk = read_only(a.chunks + block_y()), set_count = read_only(a.chunks + block_y() + 1) - set_chunk;
  const int slice_chunk = set_count * block_z() / a.slices, count = set_count * (block_z() + 1) / a.slices - slice_chunk;
  const int chunk0 = set_chunk + slice_chunk;  // numbers, not pointers: registers are short
  const auto first_entry = [&](int c) { return read_only(a.firsts + chunk0 + c); };

  // Of the block's chunk c: entries, the copies of its channels, its maps.
  const auto entries_of = [&](int c) { return ring + (c & (kRing - 1)) * a.most_channels; };
  const auto fetch_entries = [&](int c) {
    if (c >= count || warp > 0) return;
    const int first = first_entry(c), last = first_entry(c + 1);
    for (int e = first + lane; e < last; e += 32) copy8(entries_of(c) + (e - first), (const int2*)a.entries + e);
  };
  const auto copy = [&](int c, const int2* entries) {
    if (source == kGather || c >= count) return;
    const int channels = first_entry(c + 1) - first_entry(c);
    copy_channels<warps>(a, entries, channels, pixel - call.geometry.lead, x_row, warp, lane, copies + (c & 1) * x_bytes);
  };
  const auto make_maps = [&](int c) {
    if (c >= count) return;
    const Chunk chunk{entries_of(c), first_entry(c + 1) - first_entry(c), memory + (c & 1) * map_bytes};
    const int t = thread_again(), warp = t / 32, lane_at = own_pixels(t);
    const Copies x{copies + (c & 1) * x_bytes, x_row, call.geometry.lead};
    switch (source) {
      case kEven: basis_step<T, kEven, pixels, warps>(a, chunk, x, bits, warp, lane_at); break;
      case kOdd: basis_step<T, kOdd, pixels, warps>(a, chunk, x, bits, warp, lane_at); break;
      case kQuads: basis_step<T, kQuads, pixels, warps>(a, chunk, x, bits, warp, lane_at); break;
      case kApart: basis_step<T, kApart, pixels, warps>(a, chunk, x, bits, warp, lane_at); break;
      case kGather: basis_step_gathered<T, pixels, warps>(a, chunk, bits, warp, lane_at, pixel + lane_at); break;
    }
  };

  fetch_entries(0);
  fetch_entries(1);
  if (count > 0) copy(0, (const int2*)a.entries + first_entry(0));
  const int team = warp % teams, group = team / across;
  const int step0 = set_chunk * groups + group * set_count + slice_chunk;
  Product<T, wide, Shape::kRowBytes, split> product(a, read_only(a.steps + step0), warp / teams, lane);
  wait_copies();
  sync_block();
  const Shared maps = shared_address(memory) + team % across * wide * 2;
  const int product_turn = warp / 4 % 2;  // of each multiprocessor quarter's warps one half multiplies while the other makes maps
  // Chunk -1 has no steps: there the maps of chunk 0 are made.
#pragma unroll 1
  for (int c = -1; c < count; ++c) {
    fetch_entries(c + 3);
    copy(c + 2, entries_of(c + 2));
#pragma unroll 1
    for (int turn = 0; turn < 2; ++turn) {
      if (turn == product_turn) {
        product.add_until(a, read_only(a.steps + step0 + c + 1), maps + (c & 1) * map_bytes, thread_again() % 32);
      } else {
        make_maps(c + 1);
      }
    }
    wait_copies();
    sync_block();
  }
  const int thread = thread_again(), own = thread / 32 % teams;
  add_splits<wide, split>((float*)memory, own, teams, thread / 32 / teams, thread % 32, product.sums);
  if constexpr (kSliced<pixels>)
    if (a.slices > 1) {
      const int tile = block_y() * blocks_x() + block_x();
      int* const counters = (int*)a.workspace;
      float4* const parts = (float4*)(counters + COSPARSE_COUNTERS) + (int64_t)tile * a.slices * teams * wide * 16;
      if (!add_slices<wide, teams>(a, parts, counters + tile, (int*)memory, thread, product.sums)) return;
    }
  if (thread / 32 >= teams) return;
  const int filter = (block_y() * groups + own / across) * 64, first_pixel = block_x() * pixels + own % across * wide;
  finish<T, wide>(a, filter, first_pixel, memory + own * Stage<wide>::kBytes, thread % 32, product.sums);
}

struct Instance {
  int dtype, groups, pixels, wide, split;
  void (*kernel)(const Call);
};

#define BOTH(groups, pixels, wide, split)                                                              \
  {COSPARSE_FLOAT16, groups, pixels, wide, split, conv_basis<Half, groups, pixels, wide, split>}, \
      {COSPARSE_BFLOAT16, groups, pixels, wide, split, conv_basis<BFloat, groups, pixels, wide, split>}

constexpr Instance kInstances[] = {
    BOTH(1, 64, 32, 4), BOTH(2, 64, 32, 2), BOTH(4, 64, 32, 1), BOTH(1, 128, 32, 1), BOTH(1, 128, 32, 2), BOTH(2, 128, 32, 1),
    BOTH(1, 256, 64, 1), BOTH(2, 128, 64, 2), BOTH(4, 128, 64, 1), BOTH(2, 256, 64, 1), BOTH(4, 128, 32, 1),
};
constexpr int kCount = sizeof(kInstances) / sizeof(kInstances[0]);

// The output is as large as the input and every tap a constant offset from its pixel: what the copies in shared memory need.
bool flat(const Args& a) {
  const int d = a.dilation_h;
  return a.stride_h == 1 && a.stride_w == 1 && a.dilation_w == d && a.pad_top == d && a.pad_left == d && a.out_height == a.height &&
         a.out_width == a.width && (d == 1 || d % 2 == 0);
}

Geometry geometry_of(const Args& a) {
  if (!flat(a)) return {kGather, 0};
  const int d = a.dilation_h, reach = d * a.width + d;
  const Source source = d > 1 ? kApart : a.width % 4 == 0 ? kQuads : a.width % 2 == 0 ? kEven : kOdd;
  return {source, (reach + 7) / 8 * 8};
}

int64_t shared_bytes(const Args& a, const Geometry& geometry) {
  const int64_t maps = 2 * (int64_t)a.most_rows * (a.pixels + 8) * 2;
  const int64_t x = geometry.source == kGather ? 0 : 2 * (int64_t)a.most_channels * (a.pixels + 2 * geometry.lead) * 2;
  const int64_t teams = (int64_t)a.groups * (a.pixels / a.wide);
  const int64_t ring = (int64_t)kRing * a.most_channels * 8;
  return larger(maps + x + ring, larger(teams * 64 * (a.wide + 8) * 2, (a.split - 1) * teams * a.wide * 64 * 4));
}

bool aligned(const void* p, int64_t stride) { return (uintptr_t)p % 16 == 0 && stride % 8 == 0; }

int refused(const Args& a) {
  if (a.dtype != COSPARSE_FLOAT16 && a.dtype != COSPARSE_BFLOAT16) return COSPARSE_BAD_DTYPE;
  if (!activation_known(a.act)) return COSPARSE_BAD_ACTIVATION;
  if (!aligned(a.x, a.x_stride) || !aligned(a.y, a.y_stride) || !aligned(a.residual, a.residual ? a.residual_stride : 0))
    return COSPARSE_BAD_ALIGNMENT;
  if (a.slices < 1 || (a.slices > 1 && !a.workspace)) return COSPARSE_NO_WORKSPACE;
  const int64_t in = (int64_t)a.images * a.height * a.width, out = (int64_t)a.images * a.out_height * a.out_width;
  return in + (1 << 20) > INT32_MAX || out + (1 << 20) > INT32_MAX ? COSPARSE_TOO_LARGE : 0;
}

#ifdef COSPARSE_CUDA_ON_HOST
constexpr int64_t kSharedLimit = 227 << 10;
int run(int instance, const Call& call, int blocks, int threads, int64_t bytes, void*) {
  emulation::launch(kInstances[instance].kernel, call, blocks, call.a.sets, call.a.slices, threads, bytes);
  return 0;
}
int shared_limit(int64_t* limit) { return *limit = kSharedLimit, 0; }
#else
constexpr int kDevices = 64;
int run(int instance, const Call& call, int blocks, int threads, int64_t bytes, void* stream) {
  void* args[] = {const_cast<Call*>(&call)};
  const void* kernel = (const void*)kInstances[instance].kernel;
  static bool ready[kDevices][kCount];  // threads that race here do the same thing twice
  int device;
  if (cudaError_t e = cudaGetDevice(&device)) return e;
  if (device >= kDevices || !ready[device][instance]) {
    int most;
    if (cudaError_t e = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device)) return e;
    if (cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most)) return e;
    if (device < kDevices) ready[device][instance] = true;
  }
  return cudaLaunchKernel(kernel, dim3(blocks, call.a.sets, call.a.slices), dim3(threads), args, bytes, (cudaStream_t)stream);
}
int shared_limit(int64_t* limit) {
  static int known[kDevices];
  int device, most = 0;
  if (cudaError_t e = cudaGetDevice(&device)) return e;
  if (device < kDevices && known[device]) return *limit = known[device], 0;
  if (cudaError_t e = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device)) return e;
  if (device < kDevices) known[device] = most;
  return *limit = most, 0;
}
#endif

}  // namespace

extern "C" int cosparse_conv_basis(const struct cosparse_conv_basis_args* args, void* stream) {
  Call call{*args, geometry_of(*args)};
  const Args& a = call.a;
  if (int code = refused(a)) return code;
  if (a.slices > 1 && a.pixels != 64) return COSPARSE_NO_VARIANT;
  int instance = 0;
  while (instance < kCount) {
    const Instance& i = kInstances[instance];
    if (i.dtype == a.dtype && i.groups == a.groups && i.pixels == a.pixels && i.wide == a.wide && i.split == a.split) break;
    ++instance;
  }
  if (instance == kCount) return COSPARSE_NO_VARIANT;
  int64_t limit;
  if (int code = shared_limit(&limit)) return code;
  if (shared_bytes(a, call.geometry) > limit) call.geometry = {kGather, 0};
  const int64_t bytes = shared_bytes(a, call.geometry);
  if (bytes > limit) return COSPARSE_TOO_LARGE;
  const int blocks = (int)(((int64_t)a.images * a.out_height * a.out_width + a.pixels - 1) / a.pixels);
  if (blocks == 0 || a.sets == 0) return 0;
  if (a.slices > 1 && (int64_t)blocks * a.sets > COSPARSE_COUNTERS) return COSPARSE_NO_WORKSPACE;
  return run(instance, call, blocks, 32 * a.groups * (a.pixels / a.wide) * a.split, bytes, stream);
}

extern "C" const char* cosparse_cuda_error(int code) {
  switch (code) {
    case 0: return "no error";
    case COSPARSE_NO_VARIANT: return "no kernel was compiled for this variant";
    case COSPARSE_BAD_DTYPE: return "a dtype other than float16 and bfloat16";
    case COSPARSE_BAD_ACTIVATION: return "an activation that this kernel does not know";
    case COSPARSE_BAD_ALIGNMENT: return "rows that do not start on 16 bytes";
    case COSPARSE_NO_WORKSPACE: return "slices without a workspace, or of too many tiles";
    case COSPARSE_TOO_LARGE: return "a plane of 2^31 numbers or more, or a chunk too large for shared memory";
  }
#ifdef COSPARSE_CUDA_ON_HOST
  return "an unknown code";
#else
  return cudaGetErrorString((cudaError_t)code);
#endif
}

extern "C" int cosparse_cuda_interface(void) { return COSPARSE_CUDA_INTERFACE; }

#ifdef COSPARSE_CUDA_ON_HOST
extern "C" int cosparse_cuda_on_host(void) { return 1; }
#else
extern "C" int cosparse_cuda_on_host(void) { return 0; }
#endif
