// What the launches of all kernels share: what a machine has, and how a kernel begins there.
#pragma once

#include "conv_basis.h"
#include "device.h"

inline bool aligned(const void* p, int64_t stride) { return (uintptr_t)p % 16 == 0 && stride % 8 == 0; }
inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
inline bool activation_known(int act) { return act >= 0 && act <= 2; }  // none, relu, clip

struct Machine {
  int processors;
  int64_t shared, shared_of_block;  // bytes of a multiprocessor, and the most of one block
};

#ifdef COSPARSE_CUDA_ON_HOST
inline int machine(Machine* m) { return *m = {2, 228 << 10, 227 << 10}, 0; }
template <class Call>
int run(void (*kernel)(Call), const std::remove_const_t<Call>& call, int blocks, int groups, int threads, int64_t bytes, void*) {
  emulation::launch(kernel, call, blocks, groups, threads, bytes);
  return 0;
}
#else
inline int machine(Machine* m) {
  int device, processors, shared, of_block;
  if (cudaError_t e = cudaGetDevice(&device)) return e;
  if (cudaError_t e = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device)) return e;
  if (cudaError_t e = cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device)) return e;
  if (cudaError_t e = cudaDeviceGetAttribute(&of_block, cudaDevAttrMaxSharedMemoryPerBlockOptin, device)) return e;
  return *m = {processors, shared, of_block}, 0;
}
template <class Call>
int run(void (*kernel)(Call), const std::remove_const_t<Call>& call, int blocks, int groups, int threads, int64_t bytes, void* stream) {
  int device, most;
  if (cudaError_t e = cudaGetDevice(&device)) return e;
  if (cudaError_t e = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device)) return e;
  // The same for all launches: another thread may be between this and its own.
  if (cudaError_t e = cudaFuncSetAttribute((const void*)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most)) return e;
  // What matters is what the kernel was compiled for, not where it runs: on GPUs newer than Hopper that is compute capability 8.0, without
  // the wait.
  cudaFuncAttributes compiled;
  if (cudaError_t e = cudaFuncGetAttributes(&compiled, (const void*)kernel)) return e;
  cudaLaunchAttribute early;
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(blocks, groups), config.blockDim = dim3(threads);
  config.dynamicSmemBytes = bytes, config.stream = (cudaStream_t)stream;
  config.attrs = &early, config.numAttrs = compiled.ptxVersion >= 90;
  void* args[] = {const_cast<std::remove_const_t<Call>*>(&call)};
  return cudaLaunchKernelExC(&config, (const void*)kernel, args);
}
#endif
