// Writing one row of n floats, any length and alignment, without touching what lies behind it. Included inside a per-ISA namespace.

// value(i): the vector for y[i..i+lanes); only lanes below n count. The last vector overlaps the one before it: two plain stores cost less
// than a masked one.
template <class V, class F> void write_row(float* y, int n, F value) {
  int i = 0;
  for (; i + V::lanes <= n; i += V::lanes) V::storeu(y + i, value(i));
  if (i == n) return;
  if (n > V::lanes)
    V::storeu(y + n - V::lanes, value(n - V::lanes));
  else
    V::mask_store(y, V::mask((1u << n) - 1), value(0));
}
