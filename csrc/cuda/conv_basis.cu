// conv_basis: 3x3 convolutions whose weights are sparse in the DCT of their taps (contract: conv_basis.h and kernels/gpu/conv_basis.py).
//
// A block has 32 pixels for each of `across` warps, and a group of 64 filters; blocks stay and take tile after tile. Step by step, eight
// visits to channels each, runs of channels and weights are brought to shared memory, some stages ahead, by each warp in its turn: no warp
// waits for another but where it would overwrite what that one still reads. A lane makes two maps of each of its visits' four pixels in
// registers, where they are what a matrix instruction takes: maps are never in any memory.
#include "basis_step.h"
#include "epilogue.h"
#include "launch.h"

namespace {

constexpr int kMostStages = 8, kVisits = 8, kMostVisits = 64;
constexpr int kHead = 128;  // bytes of meetings: where each stage is full, and where all have left it
constexpr int kSlack = 2;   // stages by which the fastest warp may be ahead of the slowest before it waits
using Step = cosparse_basis_step;

struct Call {
  Args a;
  Run run;
  Divisor groups, width, height;
  int stages, items, stage_bytes, steps_at;  // in a stage its runs, then, at steps_at, its steps
  int tiles_back;                            // tiles in all if the last comes first, else 0
};

// So many blocks that each thread has 128 registers, of which its sums take 64.
template <int across, int split> struct Launch {
  static constexpr int kThreads = 32 * across * split, kBlocks = kThreads >= 512 ? 1 : 512 / kThreads;
};

struct Place {  // in a block's work: of a tile and a group the steps from `at` to `end`; items in order, whatever tiles these are
  int item, at, end;
  DEVICE Place(const Call& call, int first) : item(first) { begin(call); }
  DEVICE bool done(const Call& call) const { return item >= call.items; }
  DEVICE int tile(const Call& call) const {
    const int tile = quotient(item, call.groups);
    return call.tiles_back ? call.tiles_back - 1 - tile : tile;
  }
  DEVICE int group(const Call& call) const { return item - quotient(item, call.groups) * call.groups.by; }
  DEVICE void begin(const Call& call) {
    at = end = 0;
    if (done(call)) return;
    const int32_t* const start = call.a.starts + group(call);
    at = read_only(start), end = read_only(start + 1);
  }
  DEVICE void next(const Call& call) { item += block_count(), begin(call); }
};

// The steps that are next to be brought.
struct Supply {
  Place place;
  int turn;  // how many fills until the warp's own

  DEVICE Supply(const Call& call, int warp) : place(call, block_index()), turn(warp) { look(call); }

  DEVICE void look(const Call& call) {
    while (place.at >= place.end && !place.done(call)) place.next(call);
  }

  // One more stage, by the warp whose turn it is; `round` of the stage has to have been left, if any.
  template <int across, int split>
  DEVICE void fill(const Call& call, char* memory, Meeting* full, Meeting* left, int stage, int round, int lane) {
    if (place.done(call)) return;
    const Args& a = call.a;
    const int most = a.per * split;
    if (turn-- == 0) {
      turn = across * split - 1;
      const int steps = place.end - place.at < most ? place.end - place.at : most;
      const int64_t from = (int64_t)place.tile(call) * 32 * across - call.run.lead, behind = from + 32 * across + 2 * call.run.lead;
      const int64_t first = from < 0 ? 0 : from, last = behind < a.x_stride ? behind : a.x_stride;
      const int bytes = (int)(last - first) * 2, visits = steps * kVisits;
      char* const to = memory + stage * call.stage_bytes;
      int channels[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) channels[i] = lane + 32 * i < visits ? read_only(a.visits + place.at * kVisits + lane + 32 * i) : 0;
      if (round >= 0) wait_for(left + stage, round);
      if (lane == 0) {
        promise(full + stage, visits * bytes + steps * (int)sizeof(Step));
        copy_run(to + call.steps_at, a.steps + place.at, steps * (int)sizeof(Step), full + stage);
      }
      sync_warp();
#pragma unroll
      for (int i = 0; i < 2; ++i)
        if (const int visit = lane + 32 * i; visit < visits) {
          const uint16_t* const x = (const uint16_t*)a.x + channels[i] * a.x_stride + first;
          copy_run(to + visit * call.run.bytes + (first - from) * 2, x, bytes, full + stage);
        }
      asked(full + stage);
    }
    place.at += most;
    if (place.at >= place.end) look(call);
  }
};

template <class T, int mod, int across, int split> KERNEL((Launch<across, split>::kThreads), (Launch<across, split>::kBlocks))
conv_basis(const Call call) {
  const Args& a = call.a;
  const int thread = thread_index(), lane = thread % 32, own = thread / 32 % across, part = thread / 32 / across;
  char* const head = shared_memory();
  Meeting *const full = (Meeting*)head, *const left = full + kMostStages;
  char* const memory = head + kHead;
  const int most = a.per * split;
  if (thread == 0) {
    for (int i = 0; i < call.stages; ++i) make_meeting(full + i, kCopyArrivals), make_meeting(left + i, across * split);
    meetings_made();
  }
  for (int i = thread; i < call.stages * most * kVisits; i += Launch<across, split>::kThreads) {
    char* const run = memory + i / (most * kVisits) * call.stage_bytes + i % (most * kVisits) * call.run.bytes;
    for (int byte = 0; byte < kZeros; byte += 16) *(uint4*)(run + call.run.zeros + byte) = make_uint4(0, 0, 0, 0);
  }
  sync_block();
  release_next();
  await_previous();
  Supply supply(call, thread / 32);
  for (int i = 0; i < call.stages - kSlack; ++i) supply.fill<across, split>(call, memory, full, left, i, -1, lane);

  int stage = 0, round = 0;
  for (Place place(call, block_index()); !place.done(call); place.next(call)) {
    const int in_block = own * 32 + lane / 4 * 4;
    const Lane<mod> at(call.width, call.height, call.run, place.tile(call) * 32 * across + in_block, in_block, lane);
    Sums sums;
    begin(a, place.group(call) * 64, lane, part == 0, sums);
#pragma unroll 1
    for (; place.at < place.end; place.at += most) {
      const bool wraps = stage < kSlack;
      supply.fill<across, split>(call, memory, full, left, stage - kSlack + (wraps ? call.stages : 0), round - wraps, lane);
      const char* const here = memory + stage * call.stage_bytes;
      const char* x = here + part * kVisits * call.run.bytes;
      const Step* step = (const Step*)(here + call.steps_at) + part;
      const Step* const behind = step - part + (place.end - place.at < most ? place.end - place.at : most);
      wait_for(full + stage, round);
#pragma unroll 1
      for (; step < behind; step += split, x += split * kVisits * call.run.bytes) {
        uint32_t b[4][2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          uint32_t maps[2][2];
          basis_step<T, mod>(at, x + i * 4 * call.run.bytes, lane, (const uint4*)step->vectors[i * 4 + lane % 4], maps);
#pragma unroll
          for (int j = 0; j < 2; ++j) b[2 * j][i] = lows(maps[0][j], maps[1][j]), b[2 * j + 1][i] = highs(maps[0][j], maps[1][j]);
        }
#pragma unroll
        for (int m = 0; m < 4; ++m) multiply_row<T, 4>(sums[m], *(const uint4*)step->weights[m][lane], b);
      }
      sync_warp();
      if (lane == 0) arrive(left + stage);
      if (++stage == call.stages) stage = 0, ++round;
    }
    add_splits<split>((float*)(memory + call.stages * call.stage_bytes), own, across, part, lane, sums);
    if (part == 0) finish<T>(a, place.group(call) * 64, (place.tile(call) * across + own) * 32, lane, sums);
  }
}

struct Instance {
  int dtype, mod, across, split, threads, blocks;
  void (*kernel)(const Call);
};

#define KERNEL_OF(dtype, T, mod, across, split) \
  {dtype, mod, across, split, Launch<across, split>::kThreads, Launch<across, split>::kBlocks, conv_basis<T, mod, across, split>}
#define EACH_WIDTH(dtype, T, across, split)                                                                            \
  KERNEL_OF(dtype, T, 0, across, split), KERNEL_OF(dtype, T, 1, across, split), KERNEL_OF(dtype, T, 2, across, split), \
      KERNEL_OF(dtype, T, 3, across, split), KERNEL_OF(dtype, T, kWholeRows, across, split)
#define EACH(across, split) EACH_WIDTH(COSPARSE_FLOAT16, Half, across, split), EACH_WIDTH(COSPARSE_BFLOAT16, BFloat, across, split)

constexpr Instance kInstances[] = {EACH(16, 1), EACH(8, 1), EACH(4, 1), EACH(12, 1), EACH(4, 2)};
constexpr int kCount = sizeof(kInstances) / sizeof(kInstances[0]);

int refused(const Args& a) {
  if (a.dtype != COSPARSE_FLOAT16 && a.dtype != COSPARSE_BFLOAT16) return COSPARSE_BAD_DTYPE;
  if (!activation_known(a.act)) return COSPARSE_BAD_ACTIVATION;
  if (!aligned(a.x, a.x_stride) || !aligned(a.y, a.y_stride) || !aligned(a.residual, a.residual ? a.residual_stride : 0))
    return COSPARSE_BAD_ALIGNMENT;
  return (int64_t)a.images * a.height * a.width + (1 << 20) > INT32_MAX ? COSPARSE_TOO_LARGE : 0;
}

// Numbers on both sides of a tile that some tap of its pixels, or a word beside it, reaches; and the runs that hold them.
Run run_of(const Args& a) {
  const int64_t lead = round_up(a.width + 4, 8), zeros = (32 * a.across + 2 * lead) * 2;
  return {(int)lead, (int)zeros, (int)round_up(zeros + kZeros - 32, 128) + 32};
}

}  // namespace

extern "C" int cosparse_conv_basis(const struct cosparse_conv_basis_args* args, void* stream) {
  const Args& a = *args;
  if (int code = refused(a)) return code;
  const int kind = a.width >= 4 && 32 % a.width == 0 ? kWholeRows : a.width % 4;
  int instance = 0;
  while (instance < kCount) {
    const Instance& i = kInstances[instance];
    if (i.dtype == a.dtype && i.mod == kind && i.across == a.across && i.split == a.split) break;
    ++instance;
  }
  if (instance == kCount) return COSPARSE_NO_VARIANT;
  const Instance& chosen = kInstances[instance];
  const int64_t most = (int64_t)a.per * a.split;
  if (a.per < 1 || most * kVisits > kMostVisits) return COSPARSE_NO_VARIANT;
  const int64_t pixels = (int64_t)a.images * a.height * a.width, tile = 32 * a.across;
  const int64_t groups = (a.filters + 63) / 64, items = groups * ((pixels + tile - 1) / tile);
  if (items == 0) return 0;
  Machine m;
  if (int code = machine(&m)) return code;
  Call call{a, run_of(a), divisor((int)groups), divisor(a.width), divisor(a.height), 0, 0, 0, 0, 0};
  // Of three stages at least; of so many blocks to a multiprocessor as have the registers, if that leaves each enough.
  const int64_t runs = most * kVisits * call.run.bytes, stage = runs + most * (int64_t)sizeof(Step);
  const int64_t fixed = kHead + (a.split - 1) * a.across * 64 * 32 * 4;
  int blocks = chosen.blocks;
  const auto room = [&](int n) {
    const int64_t of_all = m.shared / n - 1024;
    return of_all < m.shared_of_block ? of_all : m.shared_of_block;
  };
  while (blocks > 1 && room(blocks) < fixed + 4 * stage) --blocks;
  const int64_t fit = (room(blocks) - fixed) / stage, resident = (int64_t)m.processors * blocks;
  if (fit <= kSlack || items + resident > INT32_MAX) return COSPARSE_TOO_LARGE;
  call.stages = (int)(fit < kMostStages ? fit : kMostStages);
  call.tiles_back = a.backwards ? (int)(items / groups) : 0;
  call.items = (int)items, call.stage_bytes = (int)stage, call.steps_at = (int)runs;
  return run(chosen.kernel, call, (int)(items < resident ? items : resident), 1, chosen.threads, fixed + call.stages * stage, stream);
}

extern "C" const char* cosparse_cuda_error(int code) {
  switch (code) {
    case 0:
      return "no error";
    case COSPARSE_NO_VARIANT:
      return "no kernel was compiled for this variant";
    case COSPARSE_BAD_DTYPE:
      return "a dtype other than float16 and bfloat16";
    case COSPARSE_BAD_ACTIVATION:
      return "an activation that this kernel does not know";
    case COSPARSE_BAD_ALIGNMENT:
      return "rows that do not start on 16 bytes";
    case COSPARSE_TOO_LARGE:
      return "a plane of 2^31 numbers or more, or rows too wide for shared memory";
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
