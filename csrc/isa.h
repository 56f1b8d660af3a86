// Instruction sets: what this machine has, and which one to use.
#pragma once
#include <string>

namespace cosparse {

enum class Isa { scalar, avx2, avx512, avx512_vnni, avx512_bf16, amx };  // ascending: a machine that has one has those before it

const char* name_of(Isa);
// The best set of this machine that this build holds kernels for.
Isa best_isa();
// `asked` wins, then COSPARSE_ISA, then best_isa(). Throws Error(Fault::usage) for an unknown name or one that this machine lacks: never a
// silent fallback.
Isa choose_isa(const std::string& asked);

}  // namespace cosparse
