// conv_shared: 3x3 convolutions whose weights are sparse in the DCT of their taps (contract: conv_shared.h and kernels/gpu/conv_shared.py).
//
// A block has sixteen warps, four of which together have the sums of 64 filters and 128 pixels: with a team of G groups its tile is 512 / G
// pixels. Blocks stay and take tile after tile. In a turn the warps make the maps of one chunk of channels that some group wants, each once, in
// shared memory, and multiply those of the chunk before: half of them in this order, half in the other, so that matrix instructions and
// additions run beside each other. Meanwhile each warp brings runs of the next chunk's channels, and one of them asks the copy engine for the
// weights of this one; a barrier ends the turn.
#include "conv_shared.h"
#include "epilogue.h"
#include "launch.h"
#include "shared_step.h"

namespace {

using SharedArgs = cosparse_conv_shared_args;
using Visit = cosparse_shared_visit;

constexpr int kThreads = 512, kWarps = kThreads / 32, kPart = 128;  // kPart: pixels of which a warp makes a map at once
constexpr int kMostVisits = 32;
constexpr int kStepBytes = 2048, kSlotBytes = 32;
constexpr int kHead = 128, kZerosAt = 64;  // two meetings, then zeros for lanes that have no row above or below
constexpr int kRow = 36;                   // floats from one filter's sums to the next where a warp turns them
constexpr int kTurned = 8 * kRow * 4;      // bytes for that

struct Call {
  SharedArgs a;
  Divisor teams, width, height;
  int items, tiles_back;  // tiles in all if the last comes first, else 0
  int lead, run_bytes;    // of a channel's run in shared memory: numbers before the tile and behind it, and all
  int stride;             // bytes from one map to the next
  int weights_at, slots_at, visits_at, maps_at, stage_bytes;
  int parts_log;  // a tile has 2^parts_log parts of 128 pixels
};

// In a block's work: of a tile and a team the chunk `chunk`; items in order, whatever tiles these are.
struct Place {
  int item, chunk = 0, tile, team;
  DEVICE explicit Place(const Call& call) : item(block_index()) { find(call); }
  DEVICE bool done(const Call& call) const { return item >= call.items; }
  DEVICE void find(const Call& call) {
    tile = quotient(item, call.teams), team = item - tile * call.teams.by;
    if (call.tiles_back) tile = call.tiles_back - 1 - tile;
  }
  DEVICE Place behind(const Call& call) const {
    Place next = *this;
    if (++next.chunk == call.a.chunks) next.chunk = 0, next.item += block_count(), next.find(call);
    return next;
  }
};

// What is loaded from device memory a turn before it is used, a number a lane, so that nobody waits for it until then: the channels that the
// warp will ask for, then where a chunk's steps begin and end.
constexpr int kLooked = kMostVisits / kWarps;
DEVICE void look_at(const Call& call, const Place& place, int warp, int lane, int& seen) {
  const int chunk = place.team * call.a.chunks + place.chunk, visit = warp + lane * kWarps;
  const bool bounds = lane >= kLooked;
  const int32_t* const from =
      bounds ? call.a.starts + chunk + place.team + lane - kLooked : (const int32_t*)(call.a.channel_list + chunk * call.a.visits + visit);
  if (!place.done(call) && (bounds ? lane < kLooked + 2 : visit < call.a.visits)) seen = read_only(from);
}

struct Steps {
  int first, count;
  DEVICE Steps() : first(0), count(0) {}
  DEVICE explicit Steps(int seen) : first(of_lane(seen, kLooked)) { count = of_lane(seen, kLooked + 1) - first; }
};

template <class T, int mod> KERNEL(kThreads, 1) conv_shared(const Call call) {
  const SharedArgs& a = call.a;
  const uint32_t thread = thread_index();
  const int lane = thread % 32, warp = of_lane((int)(thread / 32), 0);  // which the compiler then knows to be one for the whole warp
  const int parts = 1 << call.parts_log, tile_pixels = kPart << call.parts_log;
  const int part = warp & (parts - 1);  // of whose pixels the warp makes maps
  // Whose sums it has, and of which pixels of the tile.
  const int group = warp >> (call.parts_log + 2), own = (warp & (4 * parts - 1)) * 32;
  char* const head = shared_memory();
  Meeting* const full = (Meeting*)head;
  Spot* const spot = (Spot*)(head + kHead) + thread;  // not in registers, of which the sums take half
  float* const turned = (float*)(head + kHead + kThreads * sizeof(Spot) + warp * kTurned);
  char* const stages = head + kHead + kThreads * sizeof(Spot) + kWarps * kTurned;
  if (thread == 0) {
    for (int i = 0; i < 2; ++i) make_meeting(full + i, kThreads + kCopyArrivals);
    meetings_made();
    for (int byte = 0; byte < kZeros; byte += 16) *(uint4*)(head + kZerosAt + byte) = make_uint4(0, 0, 0, 0);
  }
  for (int i = thread * 16; i < call.stride; i += kThreads * 16)
    for (int stage = 0; stage < 2; ++stage)
      *(uint4*)(stages + stage * call.stage_bytes + call.maps_at + a.slots_of_chunk * call.stride + i) = make_uint4(0, 0, 0, 0);
  sync_block();
  release_next();

  // Asks for the runs of a chunk and the weights of the one before, whose maps are made and multiplied in turn `turn`.
  const auto bring = [&](uint32_t turn, const Place& next, int seen, const Steps& before) {
    char* const to = stages + turn % 2 * call.stage_bytes;
    Meeting* const meeting = full + turn % 2;
    const bool there = !next.done(call);
    int channels[kLooked];
#pragma unroll
    for (int i = 0; i < kLooked; ++i) channels[i] = of_lane(seen, i);
    if (warp == (int)(turn % kWarps)) {
      const int list = there ? a.visits * (int)sizeof(Visit) : 0, steps = before.count * a.groups;
      if (lane == 0) {
        promise(meeting, list + steps * (kStepBytes + kSlotBytes));
        if (there) copy_run(to + call.visits_at, a.channel_list + (next.team * a.chunks + next.chunk) * a.visits, list, meeting);
        if (steps > 0) {
          const int64_t at = (int64_t)before.first * a.groups;
          copy_run(to + call.weights_at, (const char*)a.weights + at * kStepBytes, steps * kStepBytes, meeting);
          copy_run(to + call.slots_at, (const char*)a.slots + at * kSlotBytes, steps * kSlotBytes, meeting);
        }
      }
      asked(meeting);
    }
    if (there) {
      const int from = next.tile * tile_pixels - call.lead, end = (int)a.x_stride;
#pragma unroll
      for (int i = 0; i < kLooked; ++i) {
        if (warp + i * kWarps >= a.visits) break;
        const uint16_t* const x = (const uint16_t*)a.x + (int64_t)channels[i] * end;
        char* const run = to + (warp + i * kWarps) * call.run_bytes;
#pragma unroll 1
        for (int j = lane * 8; j < tile_pixels + 2 * call.lead; j += 256) {
          const bool inside = (uint32_t)(from + j) < (uint32_t)end;
          bring_16(run + j * 2, x + (inside ? from + j : 0), inside);
        }
      }
    }
    arrive_with_brought(meeting);
  };

  // The maps of a chunk, whose runs are there.
  const auto make = [&](uint32_t turn, const Place& place) {
    if (place.chunk == 0) *spot = Spot(call.width, call.height, place.tile * tile_pixels + part * kPart, lane);
    const char* const stage = stages + turn % 2 * call.stage_bytes;
    const Spot at = *spot;
    char* const maps = (char*)stage + call.maps_at + (part * kPart + lane * 4) * 2;
#pragma unroll 1
    for (int i = warp >> call.parts_log; i < a.visits; i += kWarps >> call.parts_log) {
      const uint32_t wanted = ((const uint2*)(stage + call.visits_at))[i].y;
      const char* const x = stage + i * call.run_bytes + (call.lead + part * kPart + lane * 4) * 2;
      make_maps<T, mod>(at, head + kZerosAt + 8, a.width * 2, x, wanted >> 16, lane, maps + (wanted & 0xFFFF) * call.stride, call.stride);
    }
  };

  PixelSums sums;
  // The products of a chunk whose maps were made the turn before, with weights that are there.
  const auto multiply = [&](uint32_t turn, const Place& place, int steps) {
    const int filter = (place.team * a.groups + group) * 64;
    if (place.chunk == 0) {
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        const int o = filter + i / 2 * 8 + lane % 4 * 2 + i % 2;
        const float bias = a.bias && o < a.filters ? read_only(a.bias + o) : 0.f;
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[j / 2][i / 2][j % 2 * 2 + i % 2] = bias;
      }
    }
    const char* const stage = stages + turn % 2 * call.stage_bytes;
    const char* const maps = stages + (turn + 1) % 2 * call.stage_bytes + call.maps_at + (own + lane / 8 % 2 * 8) * 2;
    const char* weights = stage + call.weights_at + group * kStepBytes;
    const uint16_t* slots = (const uint16_t*)(stage + call.slots_at + group * kSlotBytes) + lane % 8 + lane / 16 * 8;
    const auto gather = [&](Left& left) {
      const char* const row = maps + *slots * call.stride;
      slots += a.groups * (kSlotBytes / 2);
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) gather_left(row + tile * 32, left[tile]);
    };
    const auto product = [&](const Left& left) {
      open_products();
      multiply_pixels<T>(sums, left, weights, false);
      close_products();
      weights += a.groups * kStepBytes;
    };
    Left left[2];
    if (steps > 0) gather(left[0]);
#pragma unroll 1
    while (steps > 0) {  // one step is gathered while the one before is multiplied
      product(left[0]);
      if (--steps > 0) gather(left[1]);
      finish_products();
      if (steps == 0) break;
      product(left[1]);
      if (--steps > 0) gather(left[0]);
      finish_products();
    }
    if (place.chunk + 1 == a.chunks) {
      // A lane has four pixels of two filters; where sums are finished, eight pixels beside each other of one.
      const auto eight = [&](int m, float (&numbers)[8]) {
        sync_warp();
#pragma unroll
        for (int i = 0; i < 8; ++i) turned[(lane % 4 * 2 + i % 2) * kRow + lane / 4 + i / 2 * 8] = sums[i / 4][m][i / 2 % 2 * 2 + i % 2];
        sync_warp();
        const float4* const from = (const float4*)(turned + lane / 4 * kRow + lane % 4 * 8);
        const float4 first = from[0], second = from[1];
        numbers[0] = first.x, numbers[1] = first.y, numbers[2] = first.z, numbers[3] = first.w;
        numbers[4] = second.x, numbers[5] = second.y, numbers[6] = second.z, numbers[7] = second.w;
      };
      finish<T>(a, filter, place.tile * tile_pixels + own, lane, eight);
    }
  };

  await_previous();
  Place making(call), multiplying = making;
  int seen = 0;
  Steps steps, next;  // of the chunk that is multiplied, and of that whose maps are made
  look_at(call, making, warp, lane, seen);
  bring(0, making, seen, steps);
  next = Steps(seen);
  look_at(call, making.behind(call), warp, lane, seen);
#pragma unroll 1
  for (uint32_t turn = 0; !multiplying.done(call); ++turn) {
    const Place bringing = making.behind(call);
    bring(turn + 1, bringing, seen, making.done(call) ? Steps() : next);
    const Steps behind(seen);
    look_at(call, bringing.behind(call), warp, lane, seen);
    wait_for(full + turn % 2, turn / 2);
#pragma unroll 1
    for (int half = 0; half < 2; ++half) {  // the four warps that multiply together agree
      if ((half ^ warp / 4) % 2 == 0) {
        if (!making.done(call)) make(turn, making);
      } else if (turn > 0) {
        multiply(turn, multiplying, steps.count);
      }
    }
    steps = next, next = behind;
    if (turn > 0) multiplying = making;
    making = bringing;
    sync_block();
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
  if (!aligned(a.weights, 0) || !aligned(a.slots, 0) || !aligned(a.channel_list, 0)) return COSPARSE_BAD_ALIGNMENT;
  const bool teamed = a.groups == 1 || a.groups == 2 || a.groups == 4;
  if (!teamed || a.visits < 2 || a.visits % 2 || a.visits > kMostVisits) return COSPARSE_NO_VARIANT;
  return a.x_stride + (1 << 20) > INT32_MAX ? COSPARSE_TOO_LARGE : 0;
}

}  // namespace

extern "C" int cosparse_conv_shared(const struct cosparse_conv_shared_args* args, void* stream) {
  const SharedArgs& a = *args;
  if (int code = refused(a)) return code;
  const int kind = a.width >= 4 && kPart % a.width == 0 ? kWholeRows : a.width % 4;
  const Instance* chosen = nullptr;
  for (const Instance& i : kInstances)
    if (i.dtype == a.dtype && i.mod == kind) chosen = &i;
  if (!chosen) return COSPARSE_NO_VARIANT;
  const int parts_log = a.groups == 1 ? 2 : a.groups == 2 ? 1 : 0;
  const int64_t pixels = (int64_t)a.images * a.height * a.width, tile = kPart << parts_log;
  const int64_t teams = (a.filters + a.groups * 64 - 1) / (a.groups * 64), tiles = (pixels + tile - 1) / tile, items = teams * tiles;
  if (items == 0) return 0;
  Machine m;
  if (int code = machine(&m)) return code;
  const int64_t lead = round_up(a.width + 4, 8), run_bytes = (tile + 2 * lead) * 2;
  // Rows of maps begin in different banks, one after the other.
  const int64_t stride = tile * 2 + 16, steps = (int64_t)a.steps_of_chunk * a.groups;
  const int64_t weights_at = round_up(a.visits * run_bytes, 128), slots_at = weights_at + steps * kStepBytes;
  const int64_t visits_at = slots_at + steps * kSlotBytes, maps_at = round_up(visits_at + a.visits * (int64_t)sizeof(Visit), 128);
  const int64_t stage_bytes = round_up(maps_at + (a.slots_of_chunk + 1) * stride, 128);
  const int64_t bytes = kHead + kThreads * (int64_t)sizeof(Spot) + kWarps * kTurned + 2 * stage_bytes;
  if (bytes > m.shared_of_block) return COSPARSE_TOO_LARGE;
  if (items + m.processors > INT32_MAX) return COSPARSE_TOO_LARGE;
  const Call call{a,
                  divisor((int)teams),
                  divisor(a.width),
                  divisor(a.height),
                  (int)items,
                  a.backwards ? (int)tiles : 0,
                  (int)lead,
                  (int)run_bytes,
                  (int)stride,
                  (int)weights_at,
                  (int)slots_at,
                  (int)visits_at,
                  (int)maps_at,
                  (int)stage_bytes,
                  parts_log};
  return run(chosen->kernel, call, (int)(items < m.processors ? items : m.processors), 1, kThreads, bytes, stream);
}
