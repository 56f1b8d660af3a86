// The loop of a product with AVX2 in assembly: four filters by two or three vectors of eight pixels, as conv.h and winograd.h have it.
//
//   sums[r][q] += values[step][r] * maps[q][step]        r = 0..3, q < Q, for every step (a column, a channel)
//
// Twelve sums, three maps and a value are all sixteen registers. Four steps share the counting and what is asked for ahead, which GCC cannot
// be brought to: it lets the steps overlap, and sums spill. A step takes 20 to 24 instructions for its twelve products, where GCC's own loop
// takes 24 to 28: nothing where the multiplications are the limit; where the other half of the core is busy, the instructions are.
// Included inside a per-ISA namespace, after number.h.

// Where the maps of a step are, and what is asked for ahead; `values` and `steps` are clear.
constexpr int kPicked = 0;     // columns: of the row, each the distance of a map from x, in floats
constexpr int kFollow = 4;     // columns: the distance of the first map from x, in bytes; the others follow it
constexpr int kApart = 8;      // columns: from one map to the next, in bytes; the first is at x
constexpr int kAskMaps = 1;    // maps of kMapsAhead steps later, where they are picked: the processor foresees the others
constexpr int kAskValues = 2;  // values, and columns, of kAhead steps later

// Whether the loop of S filters by Q vectors is here.
template <class V, class N, int S, int Q> constexpr bool in_assembly() {
  return V::steps && std::is_base_of<F32<V>, N>::value && N::columns == 1 && S == 4 && (Q == 2 || Q == 3);
}

#ifndef __AVX2__
template <int stride, int how, class Sums> void product_steps(Sums&, const float*, int64_t, int64_t, const float* const*);
template <int R, class Sums> void row_steps(Sums&, const float*, const uint32_t*, const uint32_t*, bool, bool, const float* const*);
#else
// rsi: values. rdi: columns, or the distance of a step's maps from x, which r8, r9 and r10 hold; r11: that between two steps. rcx: steps.
#define COSPARSE_IF(condition, text) ".if " condition "\n\t" text "\n\t.endif\n\t"
#define COSPARSE_IS(where) "(%c[how] & 12) == " where
#define COSPARSE_MAP(at, x, to)                                                       \
  COSPARSE_IF(COSPARSE_IS("0"), "vmovups (%%" x ", %%rax, 4), %%" to)                 \
  COSPARSE_IF(COSPARSE_IS("4"), "vmovups 64*" at "(%%" x ", %%rdi), %%" to)           \
  COSPARSE_IF(COSPARSE_IS("8"), "vmovups (%%" x ", %%rdi), %%" to)
#define COSPARSE_IF_ASKED(text) COSPARSE_IF("(%c[how] & 13) == 1", text)
#define COSPARSE_ASK_MAP(x) COSPARSE_IF_ASKED("prefetcht0 (%%" x ", %%rax, 4)")
#define COSPARSE_VALUE(at, r) "vbroadcastss %c[stride]*" at "+4*" r "(%%rsi), %%ymm12\n\t"
#define COSPARSE_SUM(map, sum) "vfmadd231ps %%" map ", %%ymm12, %[" sum "]\n\t"
#define COSPARSE_ROW_2(at, r) COSPARSE_VALUE(at, r) COSPARSE_SUM("ymm13", "s" r "0") COSPARSE_SUM("ymm14", "s" r "1")
#define COSPARSE_ROW_3(at, r) COSPARSE_ROW_2(at, r) COSPARSE_SUM("ymm15", "s" r "2")
#define COSPARSE_STEP(at, ROW, ASK_MAPS, LAST_MAP)                                    \
  COSPARSE_IF_ASKED("movl 4*(" at "+8)(%%rdi), %%eax") ASK_MAPS                       \
  COSPARSE_IF(COSPARSE_IS("0"), "movl 4*" at "(%%rdi), %%eax")                        \
  COSPARSE_MAP(at, "r8", "ymm13") COSPARSE_MAP(at, "r9", "ymm14") LAST_MAP            \
  COSPARSE_IF(COSPARSE_IS("8"), "addq %%r11, %%rdi")                                  \
  ROW(at, "0") ROW(at, "1") ROW(at, "2") ROW(at, "3")
#define COSPARSE_STEP_2(at) COSPARSE_STEP(at, COSPARSE_ROW_2, COSPARSE_ASK_MAP("r8"), "")
#define COSPARSE_STEP_3(at)                                                           \
  COSPARSE_STEP(at, COSPARSE_ROW_3, COSPARSE_ASK_MAP("r8") COSPARSE_ASK_MAP("r10"), COSPARSE_MAP(at, "r10", "ymm15"))
#define COSPARSE_NEXT(steps)                                                          \
  "addq $" steps "*%c[stride], %%rsi\n\t"                                             \
  COSPARSE_IF(COSPARSE_IS("0"), "addq $4*" steps ", %%rdi")                           \
  COSPARSE_IF(COSPARSE_IS("4"), "addq $64*" steps ", %%rdi")                          \
  "subq $" steps ", %%rcx\n\t"
#define COSPARSE_LOOP(STEP)                                                           \
  "movq %[values], %%rsi\n\t"                                                         \
  "movq %[columns], %%rdi\n\t"                                                        \
  "movq %[steps], %%rcx\n\t"                                                          \
  COSPARSE_IF(COSPARSE_IS("8"), "movq %%rdi, %%r11\n\txorl %%edi, %%edi")             \
  "movq (%[x]), %%r8\n\t"                                                             \
  "movq 8(%[x]), %%r9\n\t"                                                            \
  "subq $4, %%rcx\n\t"                                                                \
  "jl 2f\n\t"                                                                         \
  ".p2align 4\n"                                                                      \
  "1:\n\t"                                                                            \
  COSPARSE_IF("%c[how] & 2", "prefetcht0 64*%c[stride](%%rsi)")                       \
  COSPARSE_IF("(%c[how] & 2) && (%c[stride] > 16)", "prefetcht0 66*%c[stride](%%rsi)") \
  COSPARSE_IF("(%c[how] & 14) == 2", "prefetcht0 4*64(%%rdi)")                        \
  STEP("0") STEP("1") STEP("2") STEP("3")                                             \
  COSPARSE_NEXT("4")                                                                  \
  "jge 1b\n"                                                                          \
  "2:\n\t"                                                                            \
  "addq $4, %%rcx\n\t"                                                                \
  "jz 4f\n"                                                                           \
  "3:\n\t"                                                                            \
  STEP("0")                                                                           \
  COSPARSE_NEXT("1")                                                                  \
  "jnz 3b\n"                                                                          \
  "4:\n"

// stride: bytes of a step's values.
template <int stride, int how>
inline __attribute__((always_inline)) void product_steps(__m256 (&sums)[4][2], const float* values, int64_t columns, int64_t steps,
                                                         const float* const* x) {
  __m256 s00 = sums[0][0], s01 = sums[0][1], s10 = sums[1][0], s11 = sums[1][1];
  __m256 s20 = sums[2][0], s21 = sums[2][1], s30 = sums[3][0], s31 = sums[3][1];
  asm volatile(COSPARSE_LOOP(COSPARSE_STEP_2)
               : [s00] "+x"(s00), [s01] "+x"(s01), [s10] "+x"(s10), [s11] "+x"(s11), [s20] "+x"(s20), [s21] "+x"(s21),
                 [s30] "+x"(s30), [s31] "+x"(s31)
               : [values] "r"(values), [columns] "r"(columns), [steps] "r"(steps), [x] "r"(x), [stride] "i"(stride), [how] "i"(how)
               : "rax", "rcx", "rsi", "rdi", "r8", "r9", "r11", "xmm12", "xmm13", "xmm14", "cc", "memory");
  sums[0][0] = s00, sums[0][1] = s01, sums[1][0] = s10, sums[1][1] = s11;
  sums[2][0] = s20, sums[2][1] = s21, sums[3][0] = s30, sums[3][1] = s31;
}
template <int stride, int how>
inline __attribute__((always_inline)) void product_steps(__m256 (&sums)[4][3], const float* values, int64_t columns, int64_t steps,
                                                         const float* const* x) {
  __m256 s00 = sums[0][0], s01 = sums[0][1], s02 = sums[0][2], s10 = sums[1][0], s11 = sums[1][1], s12 = sums[1][2];
  __m256 s20 = sums[2][0], s21 = sums[2][1], s22 = sums[2][2], s30 = sums[3][0], s31 = sums[3][1], s32 = sums[3][2];
  asm volatile("movq 16(%[x]), %%r10\n\t" COSPARSE_LOOP(COSPARSE_STEP_3)
               : [s00] "+x"(s00), [s01] "+x"(s01), [s02] "+x"(s02), [s10] "+x"(s10), [s11] "+x"(s11), [s12] "+x"(s12),
                 [s20] "+x"(s20), [s21] "+x"(s21), [s22] "+x"(s22), [s30] "+x"(s30), [s31] "+x"(s31), [s32] "+x"(s32)
               : [values] "r"(values), [columns] "r"(columns), [steps] "r"(steps), [x] "r"(x), [stride] "i"(stride), [how] "i"(how)
               : "rax", "rcx", "rsi", "rdi", "r8", "r9", "r10", "r11", "xmm12", "xmm13", "xmm14", "xmm15", "cc", "memory");
  sums[0][0] = s00, sums[0][1] = s01, sums[0][2] = s02, sums[1][0] = s10, sums[1][1] = s11, sums[1][2] = s12;
  sums[2][0] = s20, sums[2][1] = s21, sums[2][2] = s22, sums[3][0] = s30, sums[3][1] = s31, sums[3][2] = s32;
}
// A block row of R filters, four of which are summed here.
template <int R, class Sums>
inline __attribute__((always_inline)) void row_steps(Sums& sums, const float* values, const uint32_t* column, const uint32_t* stop,
                                                     bool dense, bool brings_maps, const float* const* x) {
  constexpr int stride = R * (int)sizeof(float);
  constexpr bool all = R == 4;
  const int64_t steps = stop - column, columns = reinterpret_cast<int64_t>(column);
  if (dense) {
    const int64_t first_map = *column * (int64_t)sizeof(float);
    if (!all && brings_maps)
      product_steps<stride, kFollow>(sums, values, first_map, steps, x);
    else
      product_steps<stride, kFollow | kAskValues>(sums, values, first_map, steps, x);
  } else if (all) {
    product_steps<stride, kPicked | kAskMaps | kAskValues>(sums, values, columns, steps, x);
  } else if (brings_maps) {
    product_steps<stride, kPicked | kAskMaps>(sums, values, columns, steps, x);
  } else {
    product_steps<stride, kPicked | kAskValues>(sums, values, columns, steps, x);
  }
}
#undef COSPARSE_IF
#undef COSPARSE_IS
#undef COSPARSE_MAP
#undef COSPARSE_IF_ASKED
#undef COSPARSE_ASK_MAP
#undef COSPARSE_VALUE
#undef COSPARSE_SUM
#undef COSPARSE_ROW_2
#undef COSPARSE_ROW_3
#undef COSPARSE_STEP
#undef COSPARSE_STEP_2
#undef COSPARSE_STEP_3
#undef COSPARSE_NEXT
#undef COSPARSE_LOOP
#endif
