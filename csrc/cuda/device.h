// What the kernels ask of the machine, for the GPU here and for the CPU in host.h. Of two numbers in a word the first is the low half.
#pragma once

#include <stdint.h>

// float16 and bfloat16: minus infinity, 1 and -2, each twice.
struct Half {
  static constexpr uint32_t kLowest = 0xFC00FC00u, kOnes = 0x3C003C00u, kMinusTwos = 0xC000C000u;
};
struct BFloat {
  static constexpr uint32_t kLowest = 0xFF80FF80u, kOnes = 0x3F803F80u, kMinusTwos = 0xC000C000u;
};

#ifdef COSPARSE_CUDA_ON_HOST
#include "host.h"
#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define DEVICE __device__ __forceinline__
#define KERNEL(threads, blocks) __global__ void __launch_bounds__(threads, blocks)

DEVICE int thread_index() { return threadIdx.x; }
DEVICE int block_index() { return blockIdx.x; }
DEVICE int block_count() { return gridDim.x; }
DEVICE int block_group() { return blockIdx.y; }
DEVICE char* shared_memory() {
  extern __shared__ __align__(128) char memory[];
  return memory;
}
DEVICE void sync_block() { __syncthreads(); }
DEVICE void sync_warp() { __syncwarp(); }

// The next kernel may begin, and: wait for all that was launched before. From compute capability 9.0 on, where the launch allows it
// (kernels/gpu/dependent.py).
DEVICE void release_next() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
DEVICE void await_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

DEVICE __half2 as_half(uint32_t w) { return *reinterpret_cast<__half2*>(&w); }
DEVICE __nv_bfloat162 as_bfloat(uint32_t w) { return *reinterpret_cast<__nv_bfloat162*>(&w); }
template <class V> DEVICE uint32_t word(V v) { return *reinterpret_cast<uint32_t*>(&v); }

// a b + c of two numbers each, rounded once.
template <class T> DEVICE uint32_t fma2(uint32_t a, uint32_t b, uint32_t c);
template <> DEVICE uint32_t fma2<Half>(uint32_t a, uint32_t b, uint32_t c) { return word(__hfma2(as_half(a), as_half(b), as_half(c))); }
template <> DEVICE uint32_t fma2<BFloat>(uint32_t a, uint32_t b, uint32_t c) {
  return word(__hfma2(as_bfloat(a), as_bfloat(b), as_bfloat(c)));
}

// a + b and a - b of two numbers each.
template <class T> DEVICE uint32_t add2(uint32_t a, uint32_t b);
template <> DEVICE uint32_t add2<Half>(uint32_t a, uint32_t b) { return word(__hadd2(as_half(a), as_half(b))); }
template <> DEVICE uint32_t add2<BFloat>(uint32_t a, uint32_t b) { return word(__hadd2(as_bfloat(a), as_bfloat(b))); }
template <class T> DEVICE uint32_t subtract2(uint32_t a, uint32_t b);
template <> DEVICE uint32_t subtract2<Half>(uint32_t a, uint32_t b) { return word(__hsub2(as_half(a), as_half(b))); }
template <> DEVICE uint32_t subtract2<BFloat>(uint32_t a, uint32_t b) { return word(__hsub2(as_bfloat(a), as_bfloat(b))); }

template <class T> DEVICE uint32_t rounded2(float low, float high);
template <> DEVICE uint32_t rounded2<Half>(float low, float high) { return word(__floats2half2_rn(low, high)); }
template <> DEVICE uint32_t rounded2<BFloat>(float low, float high) { return word(__floats2bfloat162_rn(low, high)); }

template <class T> DEVICE float2 floats(uint32_t w);
template <> DEVICE float2 floats<Half>(uint32_t w) { return __half22float2(as_half(w)); }
template <> DEVICE float2 floats<BFloat>(uint32_t w) { return __bfloat1622float2(as_bfloat(w)); }

// Of four numbers the two in the middle; of two words the low halves, and the high ones.
DEVICE uint32_t middle(uint32_t low, uint32_t high) { return __byte_perm(low, high, 0x5432); }
DEVICE uint32_t lows(uint32_t a, uint32_t b) { return __byte_perm(a, b, 0x5410); }
DEVICE uint32_t highs(uint32_t a, uint32_t b) { return __byte_perm(a, b, 0x7632); }

// Of two bytes, each twice, the highest bit in all their bits. (__byte_perm does not know the bit of a selector that asks for it.)
template <int low, int high> DEVICE uint32_t mask_of(uint32_t flags) {
  uint32_t mask;
  asm("prmt.b32 %0, %1, 0, %2;" : "=r"(mask) : "r"(flags), "n"((8 + low) * 0x11 + (8 + high) * 0x1100));
  return mask;
}

DEVICE uint32_t upper_product(uint32_t a, uint32_t b) { return __umulhi(a, b); }
template <class V> DEVICE V read_only(const V* p) { return __ldg(p); }

// What another lane of the warp has: the one of that number, or so many before or behind; one's own where there is none.
template <class V> DEVICE V of_lane(V v, int lane) { return __shfl_sync(~0u, v, lane); }
template <class V> DEVICE V of_lane_before(V v, int lanes) { return __shfl_up_sync(~0u, v, lanes); }
template <class V> DEVICE V of_lane_behind(V v, int lanes) { return __shfl_down_sync(~0u, v, lanes); }

// The larger and the smaller of two numbers; NaN if one of them is.
DEVICE float most(float a, float b) {
  float c;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(c) : "f"(a), "f"(b));
  return c;
}
DEVICE float least(float a, float b) {
  float c;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(c) : "f"(a), "f"(b));
  return c;
}
template <class T> DEVICE uint32_t most2(uint32_t a, uint32_t b);
template <> DEVICE uint32_t most2<Half>(uint32_t a, uint32_t b) { return word(__hmax2_nan(as_half(a), as_half(b))); }
template <> DEVICE uint32_t most2<BFloat>(uint32_t a, uint32_t b) { return word(__hmax2_nan(as_bfloat(a), as_bfloat(b))); }

// A meeting that some arrive at and others wait for, round after round: it is complete when `count` have arrived and all bytes that were
// promised are there. A copying warp promises first, in lane 0; each of its lanes asks for runs of bytes; then all call `asked`.
using Meeting = uint64_t;

DEVICE uint32_t shared_address(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }

DEVICE void make_meeting(Meeting* m, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(m)), "r"(count) : "memory");
}
DEVICE void arrive(Meeting* m) {
  asm volatile("{.reg .b64 token;\n mbarrier.arrive.shared::cta.b64 token, [%0];}" ::"r"(shared_address(m)) : "memory");
}

#if __CUDA_ARCH__ >= 900
constexpr int kCopyArrivals = 1;  // of a copying warp
DEVICE void meetings_made() { asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::: "memory"); }
DEVICE void promise(Meeting* m, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(m)), "r"(bytes) : "memory");
}
DEVICE void copy_run(char* to, const void* from, int bytes, Meeting* m) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(to)),
               "l"(from), "r"(bytes), "r"(shared_address(m))
               : "memory");
}
DEVICE void asked(Meeting*) {}
#define COSPARSE_ASK "try_wait"  // which may sleep meanwhile
#else
constexpr int kCopyArrivals = 32;
DEVICE void meetings_made() {}
DEVICE void promise(Meeting*, int) {}
DEVICE void copy_run(char* to, const void* from, int bytes, Meeting*) {
  for (int i = 0; i < bytes; i += 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to + i)), "l"((const char*)from + i) : "memory");
}
DEVICE void asked(Meeting* m) { asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(m)) : "memory"); }
#define COSPARSE_ASK "test_wait"
#endif
DEVICE bool complete(Meeting* m, int round) {
  int done;
  asm volatile("{.reg .pred p;\n mbarrier." COSPARSE_ASK ".parity.shared::cta.b64 p, [%1], %2;\n selp.b32 %0, 1, 0, p;}"
               : "=r"(done)
               : "r"(shared_address(m)), "r"(round & 1)
               : "memory");
  return done;
}
DEVICE void wait_for(Meeting* m, int round) {
  while (!complete(m, round)) {}
}

// Sixteen bytes to shared memory, of zeros unless they are `there`; and: arrives once all that this thread has brought so is there.
DEVICE void bring_16(char* to, const void* from, bool there) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(there ? 16 : 0) : "memory");
}
DEVICE void arrive_with_brought(Meeting* m) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(m)) : "memory");
}

// Sixteen columns of sixteen pixels from shared memory to the left operand of a tile: lane l names the pixels 8 (l / 8 % 2) + 0..7 of column
// l % 8 + l / 16 * 8.
DEVICE void gather_left(const char* pixels, uint32_t (&left)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(left[0]), "=r"(left[1]), "=r"(left[2]), "=r"(left[3])
               : "r"(shared_address(pixels))
               : "memory");
}

template <class T> DEVICE uint32_t clipped(uint32_t v, float low, float high) {
  const float2 two = floats<T>(v);
  return rounded2<T>(least(most(two.x, low), high), least(most(two.y, low), high));
}

template <class T> DEVICE void multiply(float (&c)[4], const uint4& a, const uint32_t (&b)[2]);
template <> DEVICE void multiply<Half>(float (&c)[4], const uint4& a, const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b[0]), "r"(b[1]));
}
template <> DEVICE void multiply<BFloat>(float (&c)[4], const uint4& a, const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b[0]), "r"(b[1]));
}

// c += a b for 16 filters and 8 `tiles` pixels.
template <class T, int tiles> DEVICE void multiply_row(float (&c)[tiles][4], const uint4& a, const uint32_t (&b)[tiles][2]) {
#pragma unroll
  for (int n = 0; n < tiles; ++n) multiply<T>(c[n], a, b[n]);
}

// Products with pixels on the left, 32 of a warp, by 64 filters. A lane's pixels are 4 (lane / 4) + 0..3, of which the first two are rows
// lane / 4 and lane / 4 + 8 of tile 0, the others of tile 1; its filters are 8 n + 2 (lane % 4) + 0..1: sums[tile][n][2 (pixel % 2) +
// filter % 2].
using PixelSums = float[2][8][4];

// The left operand, 16 columns, [tile][register]: 0 and 1 are of the two pixels the columns 2 (lane % 4) + 0..1, 2 and 3 those 8 further
// on.
using Left = uint32_t[2][4];

// The right operand lies in shared memory, [8 of 8 filters][2 of 8 columns][filter][column]: 2 KB. `fresh`: the sums were nothing before.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// Four warps multiply together, while they go on. Between `open_products` and `close_products` they begin; before `finish_products` nobody
// touches sums and operands.
DEVICE void open_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void close_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
DEVICE void finish_products() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }

#define COSPARSE_FOUR(d, n) "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])
#define COSPARSE_PRODUCT(type)                                                                                                        \
  asm volatile(                                                                                                                       \
      "{.reg .pred adds;\n setp.eq.s32 adds, %37, 0;\n"                                                                               \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type                                                                     \
      " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31},"     \
      " {%32,%33,%34,%35}, %36, adds, 1, 1, 0;}"                                                                                      \
      : COSPARSE_FOUR(d, 0), COSPARSE_FOUR(d, 1), COSPARSE_FOUR(d, 2), COSPARSE_FOUR(d, 3), COSPARSE_FOUR(d, 4), COSPARSE_FOUR(d, 5), \
        COSPARSE_FOUR(d, 6), COSPARSE_FOUR(d, 7)                                                                                      \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(right), "r"((int)fresh)                                                       \
      : "memory")

template <class T> DEVICE void multiply_tile(float (&d)[8][4], const uint32_t (&a)[4], uint64_t right, bool fresh);
template <> DEVICE void multiply_tile<Half>(float (&d)[8][4], const uint32_t (&a)[4], uint64_t right, bool fresh) {
  COSPARSE_PRODUCT("f16");
}
template <> DEVICE void multiply_tile<BFloat>(float (&d)[8][4], const uint32_t (&a)[4], uint64_t right, bool fresh) {
  COSPARSE_PRODUCT("bf16");
}

template <class T> DEVICE void multiply_pixels(PixelSums& sums, const Left& left, const void* right, bool fresh) {
  // The address; from 8 columns to the next and from 8 filters to the next, all in 16 bytes; no swizzle.
  const uint64_t described = (uint64_t)((shared_address(right) & 0x3FFFF) >> 4) | (uint64_t)(128 >> 4) << 16 | (uint64_t)(256 >> 4) << 32;
#pragma unroll
  for (int tile = 0; tile < 2; ++tile) multiply_tile<T>(sums[tile], left[tile], described, fresh);
}

#else

DEVICE void open_products() {}
DEVICE void close_products() {}
DEVICE void finish_products() {}

template <class T> DEVICE void multiply_pixels(PixelSums& sums, const Left& left, const void* right, bool fresh) {
  const char* const own = (const char*)right + thread_index() % 32 * 4;  // filter lane / 4, columns 2 (lane % 4) + 0..1
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    const uint32_t b[2] = {*(const uint32_t*)(own + n * 256), *(const uint32_t*)(own + n * 256 + 128)};
#pragma unroll
    for (int tile = 0; tile < 2; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[tile][n][i] = fresh ? 0.f : sums[tile][n][i];
      multiply<T>(sums[tile][n], make_uint4(left[tile][0], left[tile][1], left[tile][2], left[tile][3]), b);
    }
  }
}

#endif

#endif
