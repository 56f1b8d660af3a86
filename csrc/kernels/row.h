// Writing rows of n floats, any length and alignment. Included inside a per-ISA namespace.

// value(i): the vector for y[i..i+lanes), of which the lanes below n count. y[n..room) will be written later, so the last vector may spill
// into it; else it overlaps the one before it. Only where neither is possible it is masked, which costs more than a plain store.
template <class V, class F> void write_row(float* y, int n, int64_t room, F value) {
  int i = 0;
  for (; i + V::lanes <= n; i += V::lanes) V::storeu(y + i, value(i));
  if (i == n) return;
  if (i + V::lanes <= room)
    V::storeu(y + i, value(i));
  else if (n > V::lanes)
    V::storeu(y + n - V::lanes, value(n - V::lanes));
  else
    V::mask_store(y, V::mask((1u << n) - 1), value(0));
}
