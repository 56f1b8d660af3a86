// Several vectors that go through the same steps side by side: step by step all of them, not one after the other. The steps of one wait for
// each other, four cycles each, and a processor looks ahead only some hundred instructions, of which a chain of twenty takes twenty.
// Included inside a per-ISA namespace.

// Registers side by side are passed in memory, if they are passed.
#ifdef __AVX512F__
#define COSPARSE_INLINE __attribute__((always_inline)) static inline
#else
#define COSPARSE_INLINE static inline
#endif

// A vector of V whose results are computed where they are written: compilers would gather each chain where its end is needed.
template <class V> struct Kept {
  using Reg = typename V::Reg;
  COSPARSE_INLINE Reg here(Reg a) {
    V::keep(a);
    return a;
  }
  COSPARSE_INLINE Reg zero() { return V::zero(); }
  COSPARSE_INLINE Reg set1(float a) { return V::set1(a); }
#define COSPARSE_OF_ONE(op) \
  COSPARSE_INLINE Reg op(Reg a) { return here(V::op(a)); }
#define COSPARSE_OF_TWO(op) \
  COSPARSE_INLINE Reg op(Reg a, Reg b) { return here(V::op(a, b)); }
#define COSPARSE_OF_THREE(op) \
  COSPARSE_INLINE Reg op(Reg a, Reg b, Reg c) { return here(V::op(a, b, c)); }
#define COSPARSE_OPERATIONS                                                                                                             \
  COSPARSE_OF_ONE(round)                                                                                                                \
  COSPARSE_OF_ONE(sqrt)                                                                                                                 \
  COSPARSE_OF_ONE(reciprocal) COSPARSE_OF_ONE(mantissa) COSPARSE_OF_ONE(exponent) COSPARSE_OF_TWO(add) COSPARSE_OF_TWO(sub)             \
      COSPARSE_OF_TWO(mul) COSPARSE_OF_TWO(div) COSPARSE_OF_TWO(min) COSPARSE_OF_TWO(max) COSPARSE_OF_TWO(scale) COSPARSE_OF_THREE(fma) \
          COSPARSE_OF_THREE(fnma) COSPARSE_OF_THREE(select_positive)
  COSPARSE_OPERATIONS
#undef COSPARSE_OF_ONE
#undef COSPARSE_OF_TWO
#undef COSPARSE_OF_THREE
  COSPARSE_INLINE Reg load(const float* x) { return V::loadu(x); }
  COSPARSE_INLINE void store(float* y, Reg a) { V::storeu(y, a); }
  static constexpr int lanes = V::lanes;
};

// Two of U side by side.
template <class U> struct Twice {
  struct Reg {
    typename U::Reg first, second;
  };
  COSPARSE_INLINE Reg zero() { return {U::zero(), U::zero()}; }
  COSPARSE_INLINE Reg set1(float a) { return {U::set1(a), U::set1(a)}; }
#define COSPARSE_OF_ONE(op) \
  COSPARSE_INLINE Reg op(Reg a) { return {U::op(a.first), U::op(a.second)}; }
#define COSPARSE_OF_TWO(op) \
  COSPARSE_INLINE Reg op(Reg a, Reg b) { return {U::op(a.first, b.first), U::op(a.second, b.second)}; }
#define COSPARSE_OF_THREE(op) \
  COSPARSE_INLINE Reg op(Reg a, Reg b, Reg c) { return {U::op(a.first, b.first, c.first), U::op(a.second, b.second, c.second)}; }
  COSPARSE_OPERATIONS
#undef COSPARSE_OF_ONE
#undef COSPARSE_OF_TWO
#undef COSPARSE_OF_THREE
  COSPARSE_INLINE Reg load(const float* x) { return {U::load(x), U::load(x + U::lanes)}; }
  COSPARSE_INLINE void store(float* y, Reg a) { U::store(y, a.first), U::store(y + U::lanes, a.second); }
  static constexpr int lanes = 2 * U::lanes;
};
#undef COSPARSE_OPERATIONS

template <class V> using Abreast = Twice<Twice<Twice<Kept<V>>>>;
