// Sharing out work that goes plane by plane, row by row.
#pragma once
#include <algorithm>

#include "plan.h"

namespace cosparse {

// The image planes of a value in memory order: plane i is image i % n of channel i / n.
inline float* image_plane(const Run& run, const Place& at, const Shape& s, int64_t i) {
  return run.arena + at.offset + i / s.n * at.plane + i % s.n * (s.h * s.w);
}

// body(plane, begin, end, slot): rows begin..end-1 of one of `planes` planes of `rows` rows each. Few planes are cut, many small ones go
// together, so that every thread has some units and none is tiny.
template <class Body> void each_rows(const Run& run, int64_t planes, int64_t rows, const Body& body) {
  const int64_t all = planes * rows, units = std::min<int64_t>(all, 8 * run.pool.threads());
  run.pool.each(units, [&](int64_t unit, int slot) {
    const int64_t at = all * unit / units, end = all * (unit + 1) / units, first = at / rows;
    for (int64_t plane = first, begin = at - first * rows; plane * rows < end; ++plane, begin = 0)
      body(plane, (int)begin, (int)std::min(rows, end - plane * rows), slot);
  });
}

}  // namespace cosparse
