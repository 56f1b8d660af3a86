// What differs between the numbers that a convolution multiplies: how a map is stored in the scratch, how the columns of a block row are
// summed, how a sum becomes a value. Included inside a per-ISA namespace.
//
//   F32        one column a step
//   RoundedF32 bfloat16 on machines without its instructions: the same, of rounded numbers
//   StepsF32   int8 likewise: whole numbers in float32, exact up to 2^24
//   Observe    F32 that keeps the ranges of the maps
// Instructions of their own: number_bf16.h, number_int8.h.

template <class V> struct F32 {
  static constexpr Number number = Number::f32;
  static constexpr int columns = 1;       // of a step
  static constexpr bool in_place = true;  // a tiled source is read as it is, without map()
  using Sum = typename V::Reg;
  using Value = float;  // of one filter and step

  static typename V::Reg map(const ConvArgs&, typename V::Reg x, int) { return x; }
  static Sum zero() { return V::zero(); }
  static Sum load_sum(const float* p) { return V::load(p); }
  static void store_sum(float* p, Sum s) { V::store(p, s); }
  // The maps of one step, ready for madd.
  static typename V::Reg gather(const float* x, const uint32_t* column) { return V::load(x + *column); }
  static Sum madd(Value w, typename V::Reg x, Sum s) { return V::fma(V::set1(w), x, s); }
  static typename V::Reg result(const ConvArgs& a, int filter, Sum s) { return V::add(s, V::set1(a.bias[filter])); }
  static typename V::Reg round(typename V::Reg y) { return y; }
};

template <class V> struct RoundedF32 : F32<V> {
  static constexpr Number number = Number::bf16;
  static typename V::Reg map(const ConvArgs&, typename V::Reg x, int) { return V::round_bf16(x); }
  static typename V::Reg round(typename V::Reg y) { return V::round_bf16(y); }
};

template <class V> struct StepsF32 : F32<V> {
  static constexpr Number number = Number::int8;
  static constexpr bool in_place = false;
  static typename V::Reg map(const ConvArgs& a, typename V::Reg x, int tap) {
    const typename V::Reg steps = V::round(V::fma(x, V::set1(a.inverse[tap]), V::set1(a.zero[tap])));
    return V::min(V::set1(255.f), V::max(V::zero(), steps));
  }
  static typename V::Reg result(const ConvArgs& a, int filter, typename V::Reg s) {
    return V::fma(s, V::set1(a.scale[filter]), V::set1(a.bias[filter]));
  }
};

template <class V> struct Observe : F32<V> {
  static constexpr Number number = Number::observe;
  static constexpr bool in_place = false;
  static typename V::Reg map(const ConvArgs& a, typename V::Reg x, int tap) {
    float *low = a.low + tap * kLanes, *high = a.high + tap * kLanes;
    V::store(low, V::min(V::load(low), x)), V::store(high, V::max(V::load(high), x));
    return x;
  }
};
