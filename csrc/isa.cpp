#include "isa.h"

#include <cstdlib>

#include "error.h"

namespace cosparse {

const char* name_of(Isa isa) {
  switch (isa) {
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

Isa best_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();  // asks the operating system too: a set whose registers it does not save counts as absent
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw")) {
    if (!__builtin_cpu_supports("avx512vnni")) return Isa::avx512;
    return __builtin_cpu_supports("avx512bf16") ? Isa::avx512_bf16 : Isa::avx512_vnni;
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
  for (Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_vnni, Isa::avx512_bf16})
    if (name == name_of(isa)) {
      if (isa > best_isa())
        throw Error(Fault::usage, about, "an instruction set of this machine (best: " + std::string(name_of(best_isa())) + ")", name,
                    "unset it to let the engine choose");
      return isa;
    }
  throw Error(Fault::usage, about, "one of scalar, avx2, avx512, avx512_vnni, avx512_bf16", name, "unset it to let the engine choose");
}

}  // namespace cosparse
