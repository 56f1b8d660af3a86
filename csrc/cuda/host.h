// device.h on the CPU, for the kernels' numbers: blocks one after the other, the threads of a block as fibres of one thread.
//
// A fibre runs until it meets a barrier or a collective of its warp; the last lane to reach a collective does its work for all of them.
#pragma once

#include <stdint.h>
#include <string.h>
#include <ucontext.h>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <type_traits>
#include <vector>

#define DEVICE inline
#define KERNEL(threads, blocks) void

struct float2 {
  float x, y;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

namespace emulation {

struct Gathering {  // of a warp's lanes at a collective, or of a block's threads at a barrier
  int arrived = 0, round = 0;
};

struct Copy {
  char* to;
  const void* from;
  int bytes;
};

inline void copy(const Copy& c) {
  if (c.from)
    memcpy(c.to, c.from, c.bytes);
  else
    memset(c.to, 0, c.bytes);
}

struct Meeting {
  std::vector<Copy> copies;
  int count = 0, arrived = 0, promised = 0, asked = 0, round = 0;
};

struct Block {
  ucontext_t scheduler;
  std::vector<ucontext_t> fibres;
  std::vector<std::unique_ptr<char[]>> stacks;
  std::vector<char> done;
  std::vector<Gathering> warps;
  std::vector<std::vector<void*>> parcels;  // [warp][lane]
  std::map<const void*, Meeting> meetings;
  std::vector<std::vector<Copy>> brought;  // [thread]
  std::vector<char> memory;
  Gathering all;
  int threads = 0, current = 0, index = 0, count = 0, group = 0;
  void (*body)(const void*) = nullptr;
  const void* args = nullptr;
};

[[noreturn]] inline void fail(const char* why) {
  fprintf(stderr, "emulation: %s\n", why);
  abort();
}

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
inline bool gather(Gathering& m, int size) {
  const int round = m.round;
  if (++m.arrived == size) return true;
  while (m.round == round) yield_fibre();
  return false;
}
inline void release(Gathering& m) { m.arrived = 0, ++m.round; }

template <class Work> void collective(void* parcel, const Work& work) {
  Block& b = block();
  const int warp = b.current / 32;
  b.parcels[warp][b.current % 32] = parcel;
  if (!gather(b.warps[warp], 32)) return;
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
  b.meetings.clear();
  b.brought.assign(b.threads, {});
  b.all = {};
  while ((int)b.stacks.size() < b.threads) b.stacks.emplace_back(new char[kStack]);
  for (int t = 0; t < b.threads; ++t) {
    getcontext(&b.fibres[t]);
    b.fibres[t].uc_stack.ss_sp = b.stacks[t].get(), b.fibres[t].uc_stack.ss_size = kStack, b.fibres[t].uc_link = nullptr;
    makecontext(&b.fibres[t], fibre_main, 0);
  }
  for (int left = b.threads; left > 0;)
    for (int i = 0; i < b.threads; ++i) {
      const int t = b.index % 2 ? b.threads - 1 - i : i;  // a missing barrier shows in one order or the other
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

template <class Args> void launch(void (*kernel)(Args), const Args& args, int blocks, int groups, int threads, size_t bytes) {
  Block& b = block();
  const Call<Args> call{kernel, args};
  b.threads = threads, b.count = blocks, b.args = &call;
  b.body = [](const void* p) { static_cast<const Call<Args>*>(p)->kernel(static_cast<const Call<Args>*>(p)->args); };
  for (int i = 0; i < blocks * groups; ++i) {
    b.index = i % blocks, b.group = i / blocks;
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

}  // namespace emulation

inline int thread_index() { return emulation::block().current; }
inline int block_index() { return emulation::block().index; }
inline int block_count() { return emulation::block().count; }
inline int block_group() { return emulation::block().group; }
inline char* shared_memory() { return (char*)(((uintptr_t)emulation::block().memory.data() + 127) & ~(uintptr_t)127); }
inline void sync_block() {
  emulation::Block& b = emulation::block();
  if (emulation::gather(b.all, b.threads)) emulation::release(b.all);
}
inline void sync_warp() {
  emulation::collective(nullptr, [](void**) {});
}
template <class V> V of_lane(V v, int lane) {
  struct Parcel {
    V v;
    int from;
  } mine{v, lane};
  emulation::collective(&mine, [](void** lanes) {
    V given[32];
    for (int i = 0; i < 32; ++i) given[i] = static_cast<Parcel*>(lanes[i])->v;
    for (int i = 0; i < 32; ++i) static_cast<Parcel*>(lanes[i])->v = given[static_cast<Parcel*>(lanes[i])->from];
  });
  return mine.v;
}
template <class V> V of_lane_before(V v, int lanes) {
  const int lane = thread_index() % 32;
  return of_lane(v, lane < lanes ? lane : lane - lanes);
}
template <class V> V of_lane_behind(V v, int lanes) {
  const int lane = thread_index() % 32;
  return of_lane(v, lane + lanes > 31 ? lane : lane + lanes);
}
inline void release_next() {}
inline void await_previous() {}

// A product of two such numbers is exact in double, and so is its sum with a third, or rounded far below the half's own last place.
template <class T> uint32_t fma2(uint32_t a, uint32_t b, uint32_t c) {
  using emulation::from_float, emulation::to_float;
  const auto one = [](uint16_t x, uint16_t y, uint16_t z) {
    return (uint32_t)from_float(T(), (float)((double)to_float(T(), x) * to_float(T(), y) + to_float(T(), z)));
  };
  return one((uint16_t)a, (uint16_t)b, (uint16_t)c) | one(a >> 16, b >> 16, c >> 16) << 16;
}
template <class T> uint32_t add2(uint32_t a, uint32_t b) { return fma2<T>(a, T::kOnes, b); }
template <class T> uint32_t subtract2(uint32_t a, uint32_t b) { return fma2<T>(b, T::kOnes ^ 0x80008000u, a); }
template <class T> uint32_t rounded2(float low, float high) {
  return emulation::from_float(T(), low) | (uint32_t)emulation::from_float(T(), high) << 16;
}
template <class T> float2 floats(uint32_t w) { return {emulation::to_float(T(), (uint16_t)w), emulation::to_float(T(), w >> 16)}; }
inline uint32_t middle(uint32_t low, uint32_t high) { return low >> 16 | high << 16; }
inline uint32_t lows(uint32_t a, uint32_t b) { return (a & 0xFFFFu) | b << 16; }
inline uint32_t highs(uint32_t a, uint32_t b) { return a >> 16 | (b & 0xFFFF0000u); }
template <int low, int high> uint32_t mask_of(uint32_t flags) {
  return (flags >> (8 * low + 7) & 1) * 0xFFFFu | (flags >> (8 * high + 7) & 1) * 0xFFFF0000u;
}
inline uint32_t upper_product(uint32_t a, uint32_t b) { return (uint32_t)((uint64_t)a * b >> 32); }
template <class V> V read_only(const V* p) { return *p; }
inline float most(float a, float b) { return a >= b || std::isnan(a) ? a : b; }
inline float least(float a, float b) { return a <= b || std::isnan(a) ? a : b; }
template <class T> uint32_t most2(uint32_t a, uint32_t b) {
  const float2 x = floats<T>(a), y = floats<T>(b);
  return rounded2<T>(most(x.x, y.x), most(x.y, y.y));
}

// What was asked for comes when it is waited for, which is as late as it may on a GPU.
using Meeting = uint64_t;
constexpr int kCopyArrivals = 1;
inline void make_meeting(Meeting* m, int count) { emulation::block().meetings[m].count = count; }
inline void meetings_made() {}
inline void arrive(Meeting* m) {
  emulation::Meeting& meeting = emulation::block().meetings.at(m);
  if (meeting.arrived == meeting.count) emulation::fail("more arrived at a meeting than it is for");
  ++meeting.arrived;
}
inline void promise(Meeting* m, int bytes) { arrive(m), emulation::block().meetings.at(m).promised += bytes; }
inline void copy_run(char* to, const void* from, int bytes, Meeting* m) {
  if ((uintptr_t)to % 16 || (uintptr_t)from % 16 || bytes % 16) emulation::fail("a run that is not of whole 16 bytes");
  emulation::Meeting& meeting = emulation::block().meetings.at(m);
  meeting.copies.push_back({to, from, bytes}), meeting.asked += bytes;
}
inline void asked(Meeting*) {}
inline void wait_for(Meeting* m, int round) {
  emulation::Meeting& meeting = emulation::block().meetings.at(m);
  for (int tries = 0; meeting.round <= round; ++tries) {
    if (meeting.arrived == meeting.count && meeting.asked == meeting.promised) {
      for (const emulation::Copy& copy : meeting.copies) emulation::copy(copy);
      meeting.copies.clear(), meeting.arrived = meeting.promised = meeting.asked = 0, ++meeting.round;
    } else if (tries < 100000) {
      emulation::yield_fibre();
    } else {
      emulation::fail("a meeting never complete");
    }
  }
}

inline std::vector<emulation::Copy>& brought() {
  emulation::Block& b = emulation::block();
  return b.brought[b.current];
}
inline void bring_16(char* to, const void* from, bool there) {
  if ((uintptr_t)to % 16 || (uintptr_t)from % 16) emulation::fail("a copy that is not of whole 16 bytes");
  brought().push_back({to, there ? from : nullptr, 16});
}
inline void arrive_with_brought(Meeting* m) {
  auto& copies = emulation::block().meetings.at(m).copies;
  copies.insert(copies.end(), brought().begin(), brought().end());
  brought().clear();
  arrive(m);
}

inline void gather_left(const char* pixels, uint32_t (&left)[4]) {
  struct Parcel {
    const char* pixels;
    uint32_t* left;
  } mine{pixels, left};
  emulation::collective(&mine, [](void** lanes) {
    const auto number = [&](int column, int pixel) {
      const char* const from = static_cast<Parcel*>(lanes[column % 8 + pixel / 8 * 8 + column / 8 * 16])->pixels;
      if ((uintptr_t)from % 16) emulation::fail("a row of a matrix that is not of whole 16 bytes");
      return (uint32_t)((const uint16_t*)from)[pixel % 8];
    };
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) {
        const int column = lane % 4 * 2 + i / 2 * 8, pixel = lane / 4 + i % 2 * 8;
        static_cast<Parcel*>(lanes[lane])->left[i] = number(column, pixel) | number(column + 1, pixel) << 16;
      }
  });
}

template <class T> uint32_t clipped(uint32_t v, float low, float high) {
  const float2 two = floats<T>(v);
  return rounded2<T>(least(most(two.x, low), high), least(most(two.y, low), high));
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
      for (int n = 0; n < 8 * tiles; ++n) static_cast<Parcel*>(lanes[row % 8 * 4 + n % 8 / 2])->c[n / 8][row / 8 * 2 + n % 2] += sum[n];
    }
  });
}
using PixelSums = float[2][8][4];
using Left = uint32_t[2][4];
inline void open_products() {}
inline void close_products() {}
inline void finish_products() {}

template <class T> void multiply_pixels(PixelSums& sums, const Left& left, const void* right, bool fresh) {
  struct Parcel {
    PixelSums* sums;
    const Left* left;
    const void* right;
    bool fresh;
  } mine{&sums, &left, right, fresh};
  emulation::collective(&mine, [](void** lanes) {
    const uint16_t* const weights = (const uint16_t*)static_cast<Parcel*>(lanes[0])->right;
    static thread_local float pixels[32][16], filters[64][16];
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 8; ++i) {
        const float2 pair = floats<T>((*static_cast<Parcel*>(lanes[lane])->left)[i / 4][i % 4]);
        float* to = &pixels[lane / 4 * 4 + i / 4 * 2 + i % 2][lane % 4 * 2 + i % 4 / 2 * 8];
        to[0] = pair.x, to[1] = pair.y;
      }
    for (int i = 0; i < 1024; ++i) filters[i / 128 * 8 + i / 8 % 8][i / 64 % 2 * 8 + i % 8] = emulation::to_float(T(), weights[i]);
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 64; ++i) {
        Parcel& p = *static_cast<Parcel*>(lanes[lane]);
        const float* const pixel = pixels[lane / 4 * 4 + i / 32 * 2 + i / 2 % 2];
        const float* const filter = filters[i / 4 % 8 * 8 + lane % 4 * 2 + i % 2];
        float& to = (*p.sums)[i / 32][i / 4 % 8][i % 4];
        float sum = p.fresh ? 0 : to;
        for (int k = 0; k < 16; ++k) sum += pixel[k] * filter[k];
        to = sum;
      }
  });
}
