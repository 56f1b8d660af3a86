#include "isa.h"

#include <cstdlib>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "error.h"

namespace cosparse {

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::amx:
      return "amx";
    case Isa::avx512_bf16:
      return "avx512_bf16";
    case Isa::avx512_vnni:
      return "avx512_vnni";
    case Isa::avx512:
      return "avx512";
    case Isa::avx2:
      return "avx2";
    default:
      return "scalar";
  }
}

namespace {

// Whether tiles may be used: the processor has them for bfloat16 and int8, and the operating system saves their registers and lets this
// process have them, which Linux wants to be asked once.
bool allows_tiles() {
#if defined(__x86_64__) && defined(__linux__)
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25, kAll = kBf16 | kTile | kInt8;
  constexpr unsigned kSaved = 3u << 17;             // XCR0: tile configuration and data
  constexpr int kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  unsigned a, b, c, d, low, high;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kAll) != kAll) return false;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & kSaved) == kSaved && syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace

Isa best_isa() {
#ifdef COSPARSE_EVERY_SET  // tests/native/emulated: instructions are functions
  return Isa::amx;
#elif defined(__x86_64__)
  __builtin_cpu_init();  // asks the operating system too: a set whose registers it does not save counts as absent
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw")) {
    if (!__builtin_cpu_supports("avx512vnni")) return Isa::avx512;
    if (!__builtin_cpu_supports("avx512bf16")) return Isa::avx512_vnni;
    static const bool tiles = __builtin_cpu_supports("avx512vbmi") && allows_tiles();
    return tiles ? Isa::amx : Isa::avx512_bf16;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
#endif
  return Isa::scalar;
}

Isa choose_isa(const std::string& asked) {
  const char* variable = std::getenv("COSPARSE_ISA");
  const bool from_variable = asked.empty() && variable && *variable;
  const std::string name = from_variable ? variable : asked;
  const std::string about = from_variable ? "COSPARSE_ISA" : "isa";
  if (name.empty()) return best_isa();
  for (Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_vnni, Isa::avx512_bf16, Isa::amx})
    if (name == name_of(isa)) {
      if (isa > best_isa())
        throw Error(Fault::usage, about, "an instruction set of this machine (best: " + std::string(name_of(best_isa())) + ")", name,
                    "unset it to let the engine choose");
      return isa;
    }
  throw Error(Fault::usage, about, "one of scalar, avx2, avx512, avx512_vnni, avx512_bf16, amx", name, "unset it to let the engine choose");
}

}  // namespace cosparse
