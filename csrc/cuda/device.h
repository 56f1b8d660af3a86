// What the kernels ask of the machine, for the GPU here and for the CPU in host.h. Of two numbers in a word the first is the low half.
#pragma once

#include <stdint.h>

struct Half {};   // float16
struct BFloat {}; // bfloat16

#ifdef COSPARSE_CUDA_ON_HOST
#include "host.h"
#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define DEVICE __device__ __forceinline__
#define KERNEL(threads, blocks) __global__ void __launch_bounds__(threads, blocks)

using Shared = uint32_t;  // an address that ldmatrix takes

DEVICE int thread_index() { return threadIdx.x; }
// The same, asked anew where it is used rather than kept in a register until then.
DEVICE int thread_again() {
  int t;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(t));
  return t;
}
DEVICE int block_x() { return blockIdx.x; }
DEVICE int block_y() { return blockIdx.y; }
DEVICE int block_z() { return blockIdx.z; }
DEVICE int blocks_x() { return gridDim.x; }
DEVICE char* shared_memory() {
  extern __shared__ __align__(128) char memory[];
  return memory;
}
DEVICE Shared shared_address(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }
DEVICE void sync_block() { __syncthreads(); }
DEVICE void sync_warp() { __syncwarp(); }

// Between a block's writes and its sign to others that they are there, and between that sign and reading theirs.
DEVICE void fence() { __threadfence(); }
DEVICE int count_up(int* p) { return atomicAdd(p, 1); }

// What is computed from it hereafter is computed here, and not kept in registers from somewhere before a loop.
template <class V> DEVICE V not_before(V v) {
  asm volatile("" : "+r"(v));
  return v;
}

DEVICE __half2 as_half(uint32_t w) { return *reinterpret_cast<__half2*>(&w); }
DEVICE __nv_bfloat162 as_bfloat(uint32_t w) { return *reinterpret_cast<__nv_bfloat162*>(&w); }
template <class V> DEVICE uint32_t word(V v) { return *reinterpret_cast<uint32_t*>(&v); }

template <class T> DEVICE uint32_t add2(uint32_t a, uint32_t b);
template <> DEVICE uint32_t add2<Half>(uint32_t a, uint32_t b) { return word(__hadd2(as_half(a), as_half(b))); }
template <> DEVICE uint32_t add2<BFloat>(uint32_t a, uint32_t b) { return word(__hadd2(as_bfloat(a), as_bfloat(b))); }

template <class T> DEVICE uint32_t sub2(uint32_t a, uint32_t b);
template <> DEVICE uint32_t sub2<Half>(uint32_t a, uint32_t b) { return word(__hsub2(as_half(a), as_half(b))); }
template <> DEVICE uint32_t sub2<BFloat>(uint32_t a, uint32_t b) { return word(__hsub2(as_bfloat(a), as_bfloat(b))); }

// a - 2 b, rounded once.
template <class T> DEVICE uint32_t minus_twice(uint32_t a, uint32_t b);
template <> DEVICE uint32_t minus_twice<Half>(uint32_t a, uint32_t b) {
  return word(__hfma2(as_half(0xC000C000u), as_half(b), as_half(a)));
}
template <> DEVICE uint32_t minus_twice<BFloat>(uint32_t a, uint32_t b) {
  return word(__hfma2(as_bfloat(0xC000C000u), as_bfloat(b), as_bfloat(a)));
}

template <class T> DEVICE uint32_t rounded2(float low, float high);
template <> DEVICE uint32_t rounded2<Half>(float low, float high) { return word(__floats2half2_rn(low, high)); }
template <> DEVICE uint32_t rounded2<BFloat>(float low, float high) { return word(__floats2bfloat162_rn(low, high)); }

template <class T> DEVICE float2 floats(uint32_t w);
template <> DEVICE float2 floats<Half>(uint32_t w) { return __half22float2(as_half(w)); }
template <> DEVICE float2 floats<BFloat>(uint32_t w) { return __bfloat1622float2(as_bfloat(w)); }

// The two numbers in the middle of four.
DEVICE uint32_t middle(uint32_t low, uint32_t high) { return __byte_perm(low, high, 0x5432); }

template <class V> DEVICE V read_only(const V* p) { return __ldg(p); }
DEVICE float exponential(float x) { return __expf(x); }
DEVICE float quotient(float a, float b) { return __fdividef(a, b); }

// Asks for 16 bytes; zeros where `inside` is false, and then nothing is read.
DEVICE void copy16(char* shared, const void* global, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(inside ? 16 : 0) : "memory");
}
DEVICE void copy8(void* shared, const void* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(shared_address(shared)), "l"(global) : "memory");
}
DEVICE void wait_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Four 8x8 matrices whose rows the lanes point at, eight lanes a matrix, transposed.
DEVICE void load_matrices(uint32_t (&a)[2], uint32_t (&b)[2], Shared row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(a[0]), "=r"(a[1]), "=r"(b[0]), "=r"(b[1])
               : "r"(row)
               : "memory");
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

#endif
