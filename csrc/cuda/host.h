// device.h on the CPU, for the kernels' numbers: blocks one after the other, the threads of a block as fibres of one thread.
//
// A fibre runs until it meets a barrier or a collective of its warp; the last lane to reach a collective does its work for all of them.
#pragma once

#include <stdint.h>
#include <string.h>
#include <ucontext.h>
#include <cmath>
#include <memory>
#include <vector>

#define DEVICE inline
#define KERNEL(threads, blocks) void

struct float2 { float x, y; };
struct alignas(8) uint2 { uint32_t x, y; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) uint4 { uint32_t x, y, z, w; };
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

using Shared = const char*;

namespace emulation {

struct Meeting {  // of a warp's lanes at a collective, or of a block's threads at a barrier
  int arrived = 0, round = 0;
};

struct Copy {
  char* to;
  const void* from;  // null: zeros
  int bytes;
};

struct Block {
  ucontext_t scheduler;
  std::vector<ucontext_t> fibres;
  std::vector<std::unique_ptr<char[]>> stacks;
  std::vector<char> done;
  std::vector<Meeting> warps;
  std::vector<std::vector<void*>> parcels;  // [warp][lane]
  std::vector<std::vector<Copy>> copies;  // that a thread asked for and has not waited for
  std::vector<char> memory;
  Meeting all;
  int threads = 0, current = 0, x = 0, y = 0, z = 0, blocks_x = 0;
  void (*body)(const void*) = nullptr;
  const void* args = nullptr;
};

inline Block& block() {
  static thread_local Block b;
  return b;
}

inline void yield_fibre() {
  Block& b = block();
  const int me = b.current;
  swapcontext(&b.fibres[me], &b.scheduler);
}

// Waits for `size` fibres; true for the one that came last, which the others wait for still until it calls release().
inline bool arrive(Meeting& m, int size) {
  const int round = m.round;
  if (++m.arrived == size) return true;
  while (m.round == round) yield_fibre();
  return false;
}
inline void release(Meeting& m) { m.arrived = 0, ++m.round; }

template <class Work> void collective(void* parcel, const Work& work) {
  Block& b = block();
  const int warp = b.current / 32;
  b.parcels[warp][b.current % 32] = parcel;
  if (!arrive(b.warps[warp], 32)) return;
  work(b.parcels[warp].data());
  release(b.warps[warp]);
}

inline void fibre_main() {
  Block& b = block();
  b.body(b.args);
  b.done[b.current] = 1;
  yield_fibre();
}

inline void run_block(Block& b) {
  constexpr size_t kStack = 128 << 10;
  b.done.assign(b.threads, 0), b.fibres.resize(b.threads);
  b.warps.assign(b.threads / 32, {}), b.parcels.assign(b.threads / 32, std::vector<void*>(32));
  b.copies.assign(b.threads, {});
  b.all = {};
  while ((int)b.stacks.size() < b.threads) b.stacks.emplace_back(new char[kStack]);
  for (int t = 0; t < b.threads; ++t) {
    getcontext(&b.fibres[t]);
    b.fibres[t].uc_stack.ss_sp = b.stacks[t].get(), b.fibres[t].uc_stack.ss_size = kStack, b.fibres[t].uc_link = nullptr;
    makecontext(&b.fibres[t], fibre_main, 0);
  }
  for (int left = b.threads; left > 0;)
    for (int i = 0; i < b.threads; ++i) {
      const int t = (b.x + b.y + b.z) % 2 ? b.threads - 1 - i : i;  // a missing barrier shows in one order or the other
      if (b.done[t]) continue;
      b.current = t;
      swapcontext(&b.scheduler, &b.fibres[t]);
      left -= b.done[t];
    }
}

template <class Args> struct Call {
  void (*kernel)(Args);
  Args args;
};

template <class Args>
void launch(void (*kernel)(Args), const Args& args, int blocks_x, int blocks_y, int blocks_z, int threads, size_t bytes) {
  Block& b = block();
  const Call<Args> call{kernel, args};
  b.threads = threads, b.blocks_x = blocks_x, b.args = &call;
  b.body = [](const void* p) { static_cast<const Call<Args>*>(p)->kernel(static_cast<const Call<Args>*>(p)->args); };
  for (int block = 0; block < blocks_x * blocks_y * blocks_z; ++block) {
    b.x = block % blocks_x, b.y = block / blocks_x % blocks_y, b.z = block / blocks_x / blocks_y;
    b.memory.assign(bytes + 128, (char)0xFF);  // NaN in every format: what was not written must not count
    run_block(b);
  }
}

inline float to_float(Half, uint16_t bits) {
  _Float16 h;
  memcpy(&h, &bits, 2);
  return (float)h;
}
inline float to_float(BFloat, uint16_t bits) {
  const uint32_t wide = (uint32_t)bits << 16;
  float f;
  memcpy(&f, &wide, 4);
  return f;
}
inline uint16_t from_float(Half, float f) {
  const _Float16 h = (_Float16)f;
  uint16_t bits;
  memcpy(&bits, &h, 2);
  return bits;
}
inline uint16_t from_float(BFloat, float f) {
  uint32_t bits;
  memcpy(&bits, &f, 4);
  if (std::isnan(f)) return 0x7FFF;
  return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}

// Products and sums of two such numbers have few enough bits that float rounds them, if at all, far below the half's own last place.
template <class T, class F> uint32_t each(uint32_t a, uint32_t b, const F& f) {
  const uint32_t low = from_float(T(), f(to_float(T(), (uint16_t)a), to_float(T(), (uint16_t)b)));
  return low | (uint32_t)from_float(T(), f(to_float(T(), a >> 16), to_float(T(), b >> 16))) << 16;
}

}  // namespace emulation

inline int thread_index() { return emulation::block().current; }
inline int thread_again() { return thread_index(); }
inline int block_x() { return emulation::block().x; }
inline int block_y() { return emulation::block().y; }
inline int block_z() { return emulation::block().z; }
inline int blocks_x() { return emulation::block().blocks_x; }
inline char* shared_memory() { return (char*)(((uintptr_t)emulation::block().memory.data() + 127) & ~(uintptr_t)127); }
inline Shared shared_address(const void* p) { return (const char*)p; }
inline void sync_block() {
  emulation::Block& b = emulation::block();
  if (emulation::arrive(b.all, b.threads)) emulation::release(b.all);
}
inline void sync_warp() {
  emulation::collective(nullptr, [](void**) {});
}

inline void fence() {}
inline int count_up(int* p) { return (*p)++; }

template <class V> V not_before(V v) { return v; }

template <class T> uint32_t add2(uint32_t a, uint32_t b) {
  return emulation::each<T>(a, b, [](float x, float y) { return x + y; });
}
template <class T> uint32_t sub2(uint32_t a, uint32_t b) {
  return emulation::each<T>(a, b, [](float x, float y) { return x - y; });
}
template <class T> uint32_t minus_twice(uint32_t a, uint32_t b) {
  return emulation::each<T>(a, b, [](float x, float y) { return x - 2 * y; });
}
template <class T> uint32_t rounded2(float low, float high) {
  return emulation::from_float(T(), low) | (uint32_t)emulation::from_float(T(), high) << 16;
}
template <class T> float2 floats(uint32_t w) { return {emulation::to_float(T(), (uint16_t)w), emulation::to_float(T(), w >> 16)}; }
inline uint32_t middle(uint32_t low, uint32_t high) { return low >> 16 | high << 16; }
template <class V> V read_only(const V* p) { return *p; }
inline float exponential(float x) { return std::exp(x); }
inline float quotient(float a, float b) { return a / b; }

// Nothing arrives before it is waited for, which is as late as it may on a GPU.
inline void copy16(char* shared, const void* global, bool inside) {
  emulation::Block& b = emulation::block();
  b.copies[b.current].push_back({shared, inside ? global : nullptr, 16});
}
inline void copy8(void* shared, const void* global) {
  emulation::Block& b = emulation::block();
  b.copies[b.current].push_back({(char*)shared, global, 8});
}
inline void wait_copies() {
  emulation::Block& b = emulation::block();
  for (const emulation::Copy& copy : b.copies[b.current]) {
    if (copy.from)
      memcpy(copy.to, copy.from, copy.bytes);
    else
      memset(copy.to, 0, copy.bytes);
  }
  b.copies[b.current].clear();
}

inline void load_matrices(uint32_t (&a)[2], uint32_t (&b)[2], Shared row) {
  struct Parcel {
    Shared row;
    uint32_t* to[4];
  } mine{row, {&a[0], &a[1], &b[0], &b[1]}};
  emulation::collective(&mine, [](void** lanes) {
    for (int lane = 0; lane < 32; ++lane)
      for (int m = 0; m < 4; ++m) {
        const auto number = [&](int k) {
          uint16_t n;
          memcpy(&n, static_cast<Parcel*>(lanes[m * 8 + k])->row + lane / 4 * 2, 2);
          return (uint32_t)n;
        };
        *static_cast<Parcel*>(lanes[lane])->to[m] = number(lane % 4 * 2) | number(lane % 4 * 2 + 1) << 16;
      }
  });
}

template <class T, int tiles> void multiply_row(float (&c)[tiles][4], const uint4& a, const uint32_t (&b)[tiles][2]) {
  struct Parcel {
    float (*c)[4];
    const uint4* a;
    const uint32_t (*b)[2];
  } mine{c, &a, b};
  emulation::collective(&mine, [](void** lanes) {
    static thread_local float left[16][16], right[16][8 * tiles];
    for (int lane = 0; lane < 32; ++lane) {
      const Parcel& p = *static_cast<Parcel*>(lanes[lane]);
      const uint32_t words[4] = {p.a->x, p.a->y, p.a->z, p.a->w};
      for (int i = 0; i < 4; ++i) {
        const float2 pair = floats<T>(words[i]);
        float* to = &left[lane / 4 + i % 2 * 8][lane % 4 * 2 + i / 2 * 8];
        to[0] = pair.x, to[1] = pair.y;
      }
      for (int n = 0; n < tiles; ++n)
        for (int i = 0; i < 2; ++i) {
          const float2 pair = floats<T>(p.b[n][i]);
          right[lane % 4 * 2 + i * 8][n * 8 + lane / 4] = pair.x, right[lane % 4 * 2 + i * 8 + 1][n * 8 + lane / 4] = pair.y;
        }
    }
    for (int row = 0; row < 16; ++row) {
      float sum[8 * tiles] = {};
      for (int k = 0; k < 16; ++k)
        for (int n = 0; n < 8 * tiles; ++n) sum[n] += left[row][k] * right[k][n];
      for (int n = 0; n < 8 * tiles; ++n)
        static_cast<Parcel*>(lanes[row % 8 * 4 + n % 8 / 2])->c[n / 8][row / 8 * 2 + n % 2] += sum[n];
    }
  });
}
