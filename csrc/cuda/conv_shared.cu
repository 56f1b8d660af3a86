// conv_shared: 3x3 convolutions whose weights are sparse in the DCT of their taps (contract: conv_shared.h and kernels/gpu/conv_shared.py).
//
// A block has 32 pixels for each of `across` warps, and a team of groups of 64 filters; blocks stay and take tile after tile. Chunk by
// chunk of channels, its warps make the maps that some group of the team wants, each once, in shared memory, and then multiply: a warp has
// the sums of one group and 32 pixels, and gathers its columns' maps from there by addresses of its lanes. Nobody waits for all: maps are
// made a chunk ahead, in a ring of four, and a warp brings the runs of the channels that it will make maps of by itself.
#include "conv_shared.h"
#include "epilogue.h"
#include "launch.h"
#include "shared_step.h"

namespace {

using SharedArgs = cosparse_conv_shared_args;
using Visit = cosparse_shared_visit;

constexpr uint32_t kRing = 4;  // chunks of maps: one that is made, one that is read, the one before, one by which warps may be apart
constexpr uint32_t kAhead = kRing - 1;  // chunks of runs on their way, beside the one whose maps are made
constexpr int kHead = 128;              // bytes of meetings: where the maps of a chunk are made, and where all have left it
constexpr int kMostThreads = 512;
constexpr int kMostTasks = 2;  // runs of 128 pixels of which a warp makes the maps, in a chunk

struct Call {
  SharedArgs a;
  Run run;
  Divisor teams, width, height;
  int items, tiles_back;  // tiles in all if the last comes first, else 0
  int tasks, apart;       // a warp's in a chunk, and by how many visits
  int stride, maps_at, chunk_bytes, label_at, runs_bytes, warp_bytes, x_stride, warps;
  int parts_log;  // a tile has 2^parts_log parts of 128 pixels
};

// What a warp has of a block. Of a tile's parts of 128 pixels it makes maps of one.
struct Warp {
  int own, lane;
  DEVICE Warp() : own(thread_index() / 32), lane(thread_index() % 32) {}
  DEVICE int part(const Call& call) const { return own & ((1 << call.parts_log) - 1); }
  DEVICE int first_visit(const Call& call) const { return own >> call.parts_log; }
  DEVICE int group(const Call& call) const { return own >> (call.parts_log + 2); }
  DEVICE int column(const Call& call) const { return own & ((4 << call.parts_log) - 1); }
};

// In a block's work: of a tile and a team the chunk `chunk`; items in order, whatever tiles these are.
struct Place {
  int item, chunk = 0;
  DEVICE Place() : item(block_index()) {}
  DEVICE bool done(const Call& call) const { return item >= call.items; }
  DEVICE int tile(const Call& call) const {
    const int tile = quotient(item, call.teams);
    return call.tiles_back ? call.tiles_back - 1 - tile : tile;
  }
  DEVICE int team(const Call& call) const { return item - quotient(item, call.teams) * call.teams.by; }
  DEVICE bool next(const Call& call) {  // whether to another item
    if (++chunk < call.a.chunks) return false;
    chunk = 0, item += block_count();
    return true;
  }
};

// What a warp finds beside the runs that it brought: of which maps are wanted and where they go (the second words of its visits), the first
// of its 128 pixels where these are other ones than before, else -1, and whether there is a chunk at all.
struct alignas(16) Label {
  uint32_t wanted[2];
  int32_t pixel, there;
};

// The runs of the warp's channels, chunk after chunk, to shared memory. What the kernel multiplies takes its registers: little is kept here
// from chunk to chunk.
struct Supply {
  Place place;
  uint2 visits[kMostTasks];

  // Which channels come next; early, as the list is in device memory.
  DEVICE void look(const Call& call, const Warp& warp) {
    if (place.done(call)) return;
    const int first = (place.team(call) * call.a.chunks + place.chunk) * call.a.visits + warp.first_visit(call);
#pragma unroll
    for (int i = 0; i < kMostTasks; ++i)
      if (i < call.tasks) visits[i] = read_only((const uint2*)call.a.channel_list + first + i * call.apart);
  }
  DEVICE void bring(const Call& call, const Warp& warp, char* to) {
    const bool there = !place.done(call);
    const int pixel = place.tile(call) * 32 * call.a.across + warp.part(call) * 128, from = pixel - call.run.lead;
    if (warp.lane == 0) *(Label*)(to + call.label_at) = {{visits[0].y, visits[1].y}, place.chunk == 0 ? pixel : -1, there};
    if (there) {
#pragma unroll
      for (int i = 0; i < kMostTasks; ++i) {
        if (i >= call.tasks) break;
        const uint16_t* const x = (const uint16_t*)call.a.x + (int64_t)visits[i].x * call.x_stride;
        for (int j = warp.lane * 8; j < 128 + 2 * call.run.lead; j += 256) {
          const bool inside = (uint32_t)(from + j) < (uint32_t)call.x_stride;
          bring_16(to + i * call.run.bytes + j * 2, x + (inside ? from + j : 0), inside);
        }
      }
      place.next(call);
    }
    all_asked();
  }
};

// Four lanes that have two pixels of each of four tiles beside each other: to eight pixels beside each other of a filter, a tile a lane.
DEVICE void eight_beside(const Sums& sums, int lane, int m, float (&eight)[8]) {
  const bool odd = lane & 1, upper = lane & 2;
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    float t[4];
#pragma unroll
    for (int n = 0; n < 4; ++n) t[n] = sums[m / 2][n][m % 2 * 2 + e];
#pragma unroll
    for (int n = 0; n < 4; n += 2) {
      const float other = of_lane(odd ? t[n] : t[n + 1], lane ^ 1);
      (odd ? t[n] : t[n + 1]) = other;
    }
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const float other = of_lane(upper ? t[n] : t[n + 2], lane ^ 2);
      (upper ? t[n] : t[n + 2]) = other;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) eight[2 * i + e] = t[i];
  }
}

template <class T, int mod> KERNEL(kMostThreads, 1) conv_shared(const Call call) {
  const SharedArgs& a = call.a;
  const Warp warp;
  const int lane = warp.lane;
  char* const head = shared_memory();
  Meeting *const made = (Meeting*)head, *const left = made + kRing;
  char* const runs = head + kHead + warp.own * call.warp_bytes;
  char* const maps = head + call.maps_at;
  if (thread_index() == 0) {
    for (uint32_t i = 0; i < kRing; ++i) make_meeting(made + i, call.warps), make_meeting(left + i, call.warps);
    meetings_made();
  }
  for (int i = lane; i < (int)kRing * call.tasks; i += 32) {
    const int place = i < (int)kRing ? i * call.runs_bytes : (i - (int)kRing) * call.runs_bytes + call.run.bytes;
    for (int byte = 0; byte < kZeros; byte += 16) *(uint4*)(runs + place + call.run.zeros + byte) = make_uint4(0, 0, 0, 0);
  }
  sync_block();
  release_next();

  // Runs are brought kAhead chunks before their maps are made, and those a chunk before they are multiplied. All rings are of kRing.
  Supply supply{};
  await_previous();
#pragma unroll 1
  for (uint32_t i = 0; i < kAhead; ++i) supply.look(call, warp), supply.bring(call, warp, runs + i * call.runs_bytes);

  Spot* const own_spot = (Spot*)(runs + kRing * call.runs_bytes) + lane;  // not in registers, of which the sums take half
  const auto make = [&](uint32_t count) {
    supply.look(call, warp);
    await_asked<kAhead - 1>();
    sync_warp();
    const char* const x = runs + count % kRing * call.runs_bytes;
    const Label label = *(const Label*)(x + call.label_at);
    if (label.there) {
      if (label.pixel >= 0) *own_spot = Spot(call.width, call.height, label.pixel, lane);
      const Spot spot = *own_spot;
      char* const to = maps + count % kRing * call.chunk_bytes + (warp.part(call) * 128 + lane * 4) * 2;
#pragma unroll 1
      for (int i = 0; i < call.tasks; ++i) {
        const uint32_t wanted = i == 0 ? label.wanted[0] : label.wanted[1];
        const int mask = wanted >> 16, slot = wanted & 0xFFFF;
        make_maps<T, mod>(spot, call.run, a.width * 2, x + i * call.run.bytes, mask, lane, to + slot * call.stride, call.stride);
      }
      sync_warp();
      if (lane == 0) arrive(made + count % kRing);
    }
    supply.bring(call, warp, runs + (count + kAhead) % kRing * call.runs_bytes);
  };

  const int group = warp.group(call), own = warp.column(call);
  const char* const columns = maps + (own * 32 + lane / 16 * 8) * 2;
  Place place;
  uint32_t step = 0;
  Sums sums;
#pragma unroll 1
  for (uint32_t count = 0; !place.done(call); ++count) {
    // The maps of chunk `count` go where those of the chunk four before were: its last readers are those of the chunk three before.
    if (count >= 3) wait_for(left + (count - 3) % kRing, (count - 3) / kRing);
    make(count);
    if (count == 0) continue;
    const uint32_t turn = (count - 1) % kRing;  // of the chunk before, whose maps all warps have made by and by
    const int row = place.team(call) * a.groups + group;
    const int32_t* const starts = a.starts + row * (a.chunks + 1) + place.chunk;
    const uint32_t end = read_only(starts + 1);
    if (place.chunk == 0) step = read_only(starts), begin(a, row * 64, lane, true, sums);
    const uint4* const weights = (const uint4*)a.weights + lane;
    const uint16_t* const slots = a.slots + lane % 16;
    uint4 fragment[4];
#pragma unroll
    for (int m = 0; m < 4; ++m) fragment[m] = read_only(weights + step * 128 + m * 32);
    int slot = read_only(slots + step * 16);
    const char* const now = columns + turn * call.chunk_bytes;
    const char* const earlier = columns + (turn + kRing - 1) % kRing * call.chunk_bytes;
    wait_for(made + turn, (count - 1) / kRing);
#pragma unroll 1
    while (step < end) {
      const char* const row = (slot & COSPARSE_SHARED_EARLIER ? earlier : now) + (slot & (COSPARSE_SHARED_EARLIER - 1)) * call.stride;
      uint32_t b[4][2];
      gather_rows(row, b[0], b[1]);
      gather_rows(row + 32, b[2], b[3]);
      slot = read_only(slots + ++step * 16);
#pragma unroll
      for (int m = 0; m < 4; ++m) {
        multiply_row<T, 4>(sums[m], fragment[m], b);
        fragment[m] = read_only(weights + step * 128 + m * 32);
      }
    }
    sync_warp();
    if (lane == 0) arrive(left + turn);
    if (place.chunk + 1 == a.chunks) {
      const auto eight = [&](int m, float (&numbers)[8]) { eight_beside(sums, lane, m, numbers); };
      finish<T>(a, row * 64, (place.tile(call) * a.across + own) * 32, lane, eight);
    }
    place.next(call);
  }
}

struct Instance {
  int dtype, mod;
  void (*kernel)(const Call);
};
#define KERNEL_OF(dtype, T, mod) {dtype, mod, conv_shared<T, mod>}
#define EACH(dtype, T) \
  KERNEL_OF(dtype, T, 0), KERNEL_OF(dtype, T, 1), KERNEL_OF(dtype, T, 2), KERNEL_OF(dtype, T, 3), KERNEL_OF(dtype, T, kWholeRows)
constexpr Instance kInstances[] = {EACH(COSPARSE_FLOAT16, Half), EACH(COSPARSE_BFLOAT16, BFloat)};

int refused(const SharedArgs& a) {
  if (a.dtype != COSPARSE_FLOAT16 && a.dtype != COSPARSE_BFLOAT16) return COSPARSE_BAD_DTYPE;
  if (!activation_known(a.act)) return COSPARSE_BAD_ACTIVATION;
  if (!aligned(a.x, a.x_stride) || !aligned(a.y, a.y_stride) || !aligned(a.residual, a.residual ? a.residual_stride : 0))
    return COSPARSE_BAD_ALIGNMENT;
  const bool tiled = (a.across == 4 || a.across == 8 || a.across == 16) && a.groups >= 1 && a.groups * a.across * 32 <= kMostThreads;
  if (!tiled || (a.visits != 4 * a.groups && a.visits != 8 * a.groups)) return COSPARSE_NO_VARIANT;
  return a.x_stride + (1 << 20) > INT32_MAX ? COSPARSE_TOO_LARGE : 0;
}

}  // namespace

extern "C" int cosparse_conv_shared(const struct cosparse_conv_shared_args* args, void* stream) {
  const SharedArgs& a = *args;
  if (int code = refused(a)) return code;
  const int kind = a.width >= 4 && 128 % a.width == 0 ? kWholeRows : a.width % 4;
  const int warps = a.groups * a.across, parts_log = a.across / 8, tasks = a.visits / (4 * a.groups);  // log2 of 1, 2, 4
  const Instance* chosen = nullptr;
  for (const Instance& i : kInstances)
    if (i.dtype == a.dtype && i.mod == kind) chosen = &i;
  if (!chosen) return COSPARSE_NO_VARIANT;
  const int64_t pixels = (int64_t)a.images * a.height * a.width, tile = 32 * a.across,
                teams = (a.filters + a.groups * 64 - 1) / (a.groups * 64);
  const int64_t tiles = (pixels + tile - 1) / tile, items = teams * tiles;
  if (items == 0) return 0;
  Machine m;
  if (int code = machine(&m)) return code;
  const int64_t lead = round_up(a.width + 4, 8), run_bytes = (128 + 2 * lead) * 2;
  // Rows of maps begin in different banks, one after the other.
  const int64_t stride = tile * 2 + 16, chunk_bytes = stride * a.slots_of_chunk;
  const int64_t label_at = tasks * (run_bytes + kZeros);
  const int64_t runs_bytes = label_at + sizeof(Label), warp_bytes = kRing * runs_bytes + 32 * sizeof(Spot);
  const int64_t maps_at = round_up(kHead + warps * warp_bytes, 128), bytes = maps_at + kRing * chunk_bytes;
  if (bytes > m.shared_of_block) return COSPARSE_TOO_LARGE;
  int64_t blocks = kMostThreads / (warps * 32);
  while (blocks > 1 && blocks * (bytes + 1024) > m.shared) --blocks;
  const int64_t resident = blocks * m.processors;
  if (items + resident > INT32_MAX) return COSPARSE_TOO_LARGE;
  const Call call{a,
                  {(int)lead, (int)run_bytes, (int)(run_bytes + kZeros)},
                  divisor((int)teams),
                  divisor(a.width),
                  divisor(a.height),
                  (int)items,
                  a.backwards ? (int)tiles : 0,
                  tasks,
                  a.visits / tasks,
                  (int)stride,
                  (int)maps_at,
                  (int)chunk_bytes,
                  (int)label_at,
                  (int)runs_bytes,
                  (int)warp_bytes,
                  (int)a.x_stride,
                  warps,
                  parts_log};
  return run(chosen->kernel, call, (int)(items < resident ? items : resident), 1, warps * 32, bytes, stream);
}
