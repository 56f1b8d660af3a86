// What differs between the numbers that a convolution multiplies: how a map is stored in the scratch, how the columns of a block row are
// summed, how a sum becomes a value. Included inside a per-ISA namespace.
//
//   F32        one column a step
//   RoundedF32 bfloat16 on machines without its instructions: the same, of rounded numbers
//   StepsF32   int8 likewise: whole numbers in float32, exact up to 2^24
//   Observe    F32 that keeps the ranges of the maps
// Instructions of their own: number_bf16.h, number_int8.h, number_int8_avx2.h.

constexpr uint32_t kAllNine = 0x1ff;

// int8: the step of which a row of numbers has the inverse; 0 where all its values were 0.
inline __attribute__((always_inline)) float step_of(float inverse) { return inverse > 0 ? 1 / inverse : 0.f; }

// The maps of a channel that some filter wants, one behind the other. No branch for each: what nobody wants is overwritten by the next.
template <class N, class V>
inline __attribute__((always_inline)) void put_nine(const ConvArgs& a, float* to, uint32_t wanted, const typename V::Reg (&x)[9]) {
  if (V::lanes == 8 && __builtin_expect(wanted == kAllNine, 1)) {  // half a row at once: finding the places would take as long as the sums
#pragma GCC unroll 9
    for (int map = 0; map < 9; ++map) N::store_map(a, to + map * N::floats, x[map], map);
    return;
  }
#pragma GCC unroll 9
  for (int map = 0; map < 9; ++map) N::store_map(a, to, x[map], map), to += (wanted >> map & 1) * N::floats;
}

template <class V> struct F32 {
  static constexpr Number number = Number::f32;
  static constexpr int columns = 1;       // of a step
  static constexpr int least = 0;         // columns of a block row (KernelRow)
  static constexpr int floats = kLanes;   // of memory in a row of kLanes maps
  static constexpr bool in_place = true;  // a tiled source is a row of maps
  static constexpr bool beside = false;   // a row of maps in the scratch holds two groups of pixels, one beside the other
  static constexpr bool halves = false;   // the vectors of a group are gathered together, and their sums put in order at the end
  static constexpr bool narrow = false;   // KernelRow
  static constexpr bool whole = false;    // KernelRow
  static constexpr bool wide = false;     // a row of maps in the scratch holds four groups (conv_wide.h)
  static constexpr bool joins = false;    // shifted copies hold the columns of a step joined (Joined)
  static constexpr bool joined = false;   // such a number
  static constexpr bool ends_apart = false;  // sums of a row end out of line (end_sums_apart)
  using OutOfWideRows = void;                // the number out of rows of several groups (Rows::row_bits), where there are such
  static constexpr int together = 1;      // values of neighbouring filters that store_values, where there is one, puts into a tile at once
  using Sum = typename V::Reg;
  using Value = float;  // of one filter and step

  static void store_map(const ConvArgs&, float* to, typename V::Reg x, int) { V::store(to, x); }
  static void store_nine(const ConvArgs& a, float* to, uint32_t wanted, const Sum (&x)[9]) { put_nine<F32, V>(a, to, wanted, x); }
  static Sum zero() { return V::zero(); }
  static Sum load_sum(const float* p) { return V::load(p); }
  static void store_sum(float* p, Sum s) { V::store(p, s); }
  // Number `offset` of padded copies (Source::shifted).
  static const float* at(const float* copies, int64_t offset) { return copies + offset; }
  // The maps of one step, ready for madd.
  static typename V::Reg gather(const float* x, const uint32_t* column) { return V::loadu(x + *column); }
  static Sum madd(Value w, typename V::Reg x, Sum s) { return V::fma(V::set1(w), x, s); }
  static typename V::Reg result(const ConvArgs& a, int filter, Sum s) { return V::add(s, V::set1(a.bias[filter])); }
  // A value of a tiled layer, and one pixel of it.
  static void store_value(const Rows<float>&, float* to, typename V::Reg y) { V::store(to, y); }
  static typename V::Reg load_value(const Rows<const float>&, const float* from) { return V::load(from); }
  static void store_pixel(const Rows<float>&, float* row, int p, float y) { row[p] = y; }
  static float load_pixel(const Rows<const float>&, const float* row, int p) { return row[p]; }

  // A vector of a tiled source as it lies there: lanes picked out of it, and stored as a map (picks.h).
  using Packed = typename V::Reg;
  using Index = typename V::Index;
  static Packed nothing() { return V::zero(); }
  static Index index(const int32_t* lane) { return V::index(lane); }
  static Packed pick(uint32_t lanes, Index index, const float* from, Packed other) {
    return V::mask_pick(V::mask(lanes), index, V::load(from), other);
  }
  static void store_packed(const ConvArgs&, float* to, Packed x) { V::store(to, x); }
};

// Steps of several columns out of copies that hold them joined (Source::shifted): a place is the maps of a step, and columns count places.
template <class V, class N> struct Joined : N {
  static constexpr bool joined = true, ends_apart = true;
  static constexpr int columns = 1;
  static typename V::Reg gather(const float* x, const uint32_t* column) { return V::loadu(x + *column); }
};

template <class V> struct RoundedF32 : F32<V> {
  static constexpr Number number = Number::bf16;
  static void store_map(const ConvArgs&, float* to, typename V::Reg x, int) { V::store(to, V::round_bf16(x)); }
  static void store_nine(const ConvArgs& a, float* to, uint32_t wanted, const typename V::Reg (&x)[9]) {
    put_nine<RoundedF32, V>(a, to, wanted, x);
  }
  static void store_value(const Rows<float>&, float* to, typename V::Reg y) { V::store(to, V::round_bf16(y)); }
  static void store_pixel(const Rows<float>&, float* row, int p, float y) {
    alignas(64) float all[V::lanes];
    V::store(all, V::round_bf16(V::set1(y)));
    row[p] = all[0];
  }
};

template <class V> struct StepsF32 : F32<V> {
  static constexpr Number number = Number::int8;
  static constexpr bool in_place = false;
  static typename V::Reg steps(typename V::Reg x, float inverse, float zero) {
    return V::min(V::set1(255.f), V::max(V::zero(), V::round(V::fma(x, V::set1(inverse), V::set1(zero)))));
  }
  static void store_map(const ConvArgs& a, float* to, typename V::Reg x, int tap) { V::store(to, steps(x, a.inverse[tap], a.zero[tap])); }
  static void store_packed(const ConvArgs& a, float* to, typename V::Reg x) { store_map(a, to, x, 0); }
  static void store_nine(const ConvArgs& a, float* to, uint32_t wanted, const typename V::Reg (&x)[9]) {
    put_nine<StepsF32, V>(a, to, wanted, x);
  }
  // What its readers would make of it anyway, as a float.
  static void store_value(const Rows<float>& y, float* to, typename V::Reg x) {
    V::store(to, V::mul(V::sub(steps(x, y.inverse, y.zero), V::set1(y.zero)), V::set1(step_of(y.inverse))));
  }
  static void store_pixel(const Rows<float>& y, float* row, int p, float x) {
    alignas(64) float all[V::lanes];
    store_value(y, all, V::set1(x));
    row[p] = all[0];
  }
  static typename V::Reg result(const ConvArgs& a, int filter, typename V::Reg s) {
    return V::fma(s, V::set1(a.scale[filter]), V::set1(a.bias[filter]));
  }
};

template <class V> struct Observe : F32<V> {
  static constexpr Number number = Number::observe;
  static constexpr bool in_place = false;
  static void store_map(const ConvArgs& a, float* to, typename V::Reg x, int tap) {
    float *low = a.low + tap * kLanes, *high = a.high + tap * kLanes;
    V::store(low, V::min(V::load(low), x)), V::store(high, V::max(V::load(high), x));
    V::store(to, x);
  }
  static void store_packed(const ConvArgs& a, float* to, typename V::Reg x) { store_map(a, to, x, 0); }
  static void store_nine(const ConvArgs& a, float* to, uint32_t wanted, const typename V::Reg (&x)[9]) {
    put_nine<Observe, V>(a, to, wanted, x);
  }
};
