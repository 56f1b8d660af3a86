// Activations on vectors. Errors are a few units in the last place of float, but where the result is small beside what it is computed from:
// there they are absolute, of about 1e-7 (gelu below -3), or what e^x ends at, 1.2e-38 (sigmoid below -87). NaN stays NaN: of NaN and a number
// V::min and V::max give the second, so bounds come first. Included inside a per-ISA namespace.

// e^x for x clamped to [-87.3, 88]: x = n ln2 + f, |f| <= ln2 / 2, polynomial of degree 6 in f whose greatest relative error is least (3e-9
// before rounding).
template <class V> COSPARSE_INLINE typename V::Reg exp(typename V::Reg x) {
  using Reg = typename V::Reg;
  x = V::min(V::set1(88.f), V::max(V::set1(-87.3f), x));
  const Reg n = V::round(V::mul(x, V::set1(1.44269504f)));
  Reg f = V::fnma(n, V::set1(0.693359375f), x);  // ln2 in two parts: the first product is exact
  f = V::fnma(n, V::set1(-2.12194440e-4f), f);
  Reg p = V::set1(1.38145394e-3f);
  for (const float c : {8.36874545e-3f, 4.16683890e-2f, 1.66665211e-1f, 4.99999940e-1f, 1.f, 1.f}) p = V::fma(p, f, V::set1(c));
  return V::scale(p, n);
}

// e^x without bounds: infinity above 88.72, 0 far below, as the square of e^(x / 2).
template <class V> COSPARSE_INLINE typename V::Reg exp_unbounded(typename V::Reg x) {
  const typename V::Reg root = exp<V>(V::mul(V::set1(0.5f), x));
  return V::mul(root, root);
}

// log x: the exponent times ln2 and the logarithm of a mantissa in [1 / sqrt 2, sqrt 2) as 2 artanh(z), z = (m - 1) / (m + 1), |z| < 0.172, odd
// series to z^9 (error < 1e-9). -infinity at 0, NaN below and of NaN, infinity of infinity; what is below the normal numbers is made larger.
template <class V> COSPARSE_INLINE typename V::Reg log(typename V::Reg x) {
  using Reg = typename V::Reg;
  const Reg zero = V::zero(), one = V::set1(1.f);
  const Reg below = V::sub(V::set1(1.17549435e-38f), x);  // positive where x is subnormal, 0 or negative
  const Reg normal = V::select_positive(below, V::mul(x, V::set1(16777216.f)), x);
  Reg e = V::sub(V::exponent(normal), V::select_positive(below, V::set1(24.f), zero)), m = V::mantissa(normal);
  const Reg upper = V::sub(m, V::set1(1.41421356f));
  m = V::select_positive(upper, V::mul(V::set1(0.5f), m), m), e = V::select_positive(upper, V::add(e, one), e);
  const Reg z = V::div(V::sub(m, one), V::add(m, one)), s = V::mul(z, z);
  Reg p = V::set1(2.f / 9);
  for (const float c : {2.f / 7, 2.f / 5, 2.f / 3, 2.f}) p = V::fma(p, s, V::set1(c));
  const Reg whole = V::fma(e, V::set1(0.693359375f), V::fma(e, V::set1(-2.12194440e-4f), V::mul(p, z)));  // ln2 in two parts
  const Reg infinity = V::set1(__builtin_inff());
  const Reg positive = V::select_positive(V::sub(infinity, x), whole, infinity);
  return V::select_positive(x, positive, V::sub(V::sqrt(x), infinity));  // of 0: -infinity; the root of what is below is NaN
}

template <class V> COSPARSE_INLINE typename V::Reg sigmoid(typename V::Reg x) {
  return V::reciprocal(V::add(V::set1(1.f), exp<V>(V::sub(V::zero(), x))));
}

// For |x| < 0.25 the odd series (1 - 2 / (e^2x + 1) would cancel), else by the exponential.
template <class V> COSPARSE_INLINE typename V::Reg tanh(typename V::Reg x) {
  using Reg = typename V::Reg;
  const Reg s = V::mul(x, x);
  Reg p = V::set1(-1382.f / 155925);
  for (const float c : {62.f / 2835, -17.f / 315, 2.f / 15, -1.f / 3, 1.f}) p = V::fma(p, s, V::set1(c));
  const Reg far = V::fnma(V::set1(2.f), V::reciprocal(V::add(exp<V>(V::add(x, x)), V::set1(1.f))), V::set1(1.f));
  return V::select_positive(V::sub(V::set1(0.0625f), s), V::mul(x, p), far);
}

// log(1 + u) for u in [0, 1] as 2 artanh(u / (2 + u)): z <= 1/3, odd series to z^13.
template <class V> COSPARSE_INLINE typename V::Reg log1p_unit(typename V::Reg u) {
  using Reg = typename V::Reg;
  const Reg z = V::mul(u, V::reciprocal(V::add(u, V::set1(2.f)))), s = V::mul(z, z);
  Reg p = V::set1(1.f / 13);
  for (const float c : {1.f / 11, 1.f / 9, 1.f / 7, 1.f / 5, 1.f / 3, 1.f}) p = V::fma(p, s, V::set1(c));
  return V::mul(V::add(z, z), p);
}

// erf by the rational-exponential form of Abramowitz and Stegun 7.1.26 beyond |x| = 0.5 (absolute error 1.5e-7), by its series below.
template <class V> COSPARSE_INLINE typename V::Reg erf(typename V::Reg x) {
  using Reg = typename V::Reg;
  const Reg a = V::max(x, V::sub(V::zero(), x)), s = V::mul(x, x);
  Reg series = V::set1(2.f / 1.7724538509f / 1320 * -1);
  for (const float c : {1.f / 216, -1.f / 42, 1.f / 10, -1.f / 3, 1.f}) series = V::fma(series, s, V::set1(c * 1.1283791671f));
  const Reg t = V::reciprocal(V::fma(V::set1(0.3275911f), V::min(V::set1(16.f), a), V::set1(1.f)));  // at 16 the rest of erf is 0
  Reg p = V::set1(1.061405429f);
  for (const float c : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f}) p = V::fma(p, t, V::set1(c));
  const Reg far = V::fnma(V::mul(p, t), exp<V>(V::sub(V::zero(), s)), V::set1(1.f));
  const Reg signed_far = V::select_positive(x, far, V::sub(V::zero(), far));
  return V::select_positive(V::sub(V::set1(0.25f), s), V::mul(x, series), signed_far);
}

template <class V> COSPARSE_INLINE typename V::Reg activate(Act act, typename V::Reg alpha, typename V::Reg beta, typename V::Reg x) {
  using Reg = typename V::Reg;
  const Reg zero = V::zero(), one = V::set1(1.f);
  switch (act) {
    case Act::none:
      return x;
    case Act::relu:
      return V::max(zero, x);
    case Act::clip:
      return V::min(beta, V::max(alpha, x));
    case Act::leaky_relu:
      return V::select_positive(x, x, V::mul(alpha, x));
    case Act::elu:
      return V::select_positive(x, x, V::mul(alpha, V::sub(exp<V>(V::min(zero, x)), one)));
    case Act::sigmoid:
      return sigmoid<V>(x);
    case Act::silu:
      return V::mul(x, sigmoid<V>(x));
    case Act::tanh:
      return tanh<V>(x);
    case Act::gelu:
      return V::mul(V::mul(V::set1(0.5f), x), V::add(one, erf<V>(V::mul(x, V::set1(0.70710678f)))));
    case Act::gelu_tanh: {
      const Reg inner = V::mul(V::set1(0.79788456f), V::fma(V::mul(V::set1(0.044715f), x), V::mul(x, x), x));
      return V::mul(V::mul(V::set1(0.5f), x), V::add(one, tanh<V>(inner)));
    }
    case Act::hardswish:
      return V::mul(x, V::mul(V::min(V::set1(6.f), V::max(zero, V::add(x, V::set1(3.f)))), V::set1(1.f / 6)));
    case Act::hardsigmoid:
      return V::mul(V::min(V::set1(6.f), V::max(zero, V::add(x, V::set1(3.f)))), V::set1(1.f / 6));
    case Act::softplus:
    case Act::mish: {
      const Reg a = V::max(x, V::sub(zero, x));  // log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)
      const Reg soft = V::add(V::max(zero, x), log1p_unit<V>(exp<V>(V::sub(zero, a))));
      return act == Act::softplus ? soft : V::mul(x, tanh<V>(soft));
    }
    case Act::sqrt:
      return V::sqrt(x);
    case Act::abs:
      return V::max(x, V::sub(zero, x));
    case Act::exp:
      return exp_unbounded<V>(x);
    case Act::log:
      return log<V>(x);
    case Act::pow:
      return exp_unbounded<V>(V::mul(alpha, log<V>(x)));
  }
  return x;
}

// The same where the kind is not known beforehand, once for all who call it.
template <class V>
__attribute__((noinline)) typename V::Reg activate_any(Act act, typename V::Reg alpha, typename V::Reg beta, typename V::Reg x) {
  return activate<V>(act, alpha, beta, x);
}

// y[i] = act(x[i]) for n floats, any alignment, y may be x: several vectors at a time, as the steps of one wait for each other. With 32
// registers side by side, else one after the other: constants and what is between take all.
template <class V, Act act> void map_row(float alpha, float beta, const float* x, float* y, int64_t n) {
  const typename V::Reg a = V::set1(alpha), b = V::set1(beta);
  const auto one = [&](typename V::Reg v) { return activate<V>(act, a, b, v); };
  int64_t i = 0;
  if constexpr (V::registers == 32) {
    using A = Abreast<V>;
    for (; i + A::lanes <= n; i += A::lanes)
      if constexpr (act == Act::silu) {  // x is read twice, or it would take the registers
        const typename A::Reg factor = sigmoid<A>(A::load(x + i));
        asm("" : : : "memory");
        A::store(y + i, A::mul(A::load(x + i), factor));
      } else {
        A::store(y + i, activate<A>(act, A::set1(alpha), A::set1(beta), A::load(x + i)));
      }
  } else {
    constexpr int kAtOnce = 4;
    for (; i + kAtOnce * V::lanes <= n; i += kAtOnce * V::lanes) {
      typename V::Reg v[kAtOnce];
#pragma GCC unroll 8
      for (int k = 0; k < kAtOnce; ++k) v[k] = V::loadu(x + i + k * V::lanes);
#pragma GCC unroll 8
      for (int k = 0; k < kAtOnce; ++k) v[k] = one(v[k]);
#pragma GCC unroll 8
      for (int k = 0; k < kAtOnce; ++k) V::storeu(y + i + k * V::lanes, v[k]);
    }
  }
  for (; i + V::lanes <= n; i += V::lanes) V::storeu(y + i, one(V::loadu(x + i)));
  if (i < n) {
    const typename V::Mask m = V::mask((1u << (n - i)) - 1);
    V::mask_store(y + i, m, one(V::mask_load(m, x + i)));
  }
}

// The same of a kind that is not known beforehand; out of line, once for all who call it.
template <class V> __attribute__((noinline)) void activation_row(Act act, float alpha, float beta, const float* x, float* y, int64_t n) {
  switch (act) {
#define COSPARSE_ACT(kind) \
  case Act::kind:          \
    return map_row<V, Act::kind>(alpha, beta, x, y, n);
    COSPARSE_ACT(none)
    COSPARSE_ACT(relu)
    COSPARSE_ACT(clip)
    COSPARSE_ACT(leaky_relu)
    COSPARSE_ACT(elu)
    COSPARSE_ACT(sigmoid)
    COSPARSE_ACT(silu)
    COSPARSE_ACT(tanh)
    COSPARSE_ACT(gelu)
    COSPARSE_ACT(gelu_tanh)
    COSPARSE_ACT(hardswish)
    COSPARSE_ACT(hardsigmoid)
    COSPARSE_ACT(softplus)
    COSPARSE_ACT(mish)
    COSPARSE_ACT(sqrt)
    COSPARSE_ACT(abs)
    COSPARSE_ACT(exp)
    COSPARSE_ACT(log)
    COSPARSE_ACT(pow)
#undef COSPARSE_ACT
  }
}
