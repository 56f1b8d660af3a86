#include "shifted.h"

#include <cstring>
#include <map>

#include "kernels/table.h"

namespace cosparse {

namespace {

// The tap that each map is, and where its place lies from a pixel's.
struct Places {
  std::vector<uint32_t> place;
  std::vector<int> lane;  // of the place's numbers
  Places(const Weights& w, const Geometry& geometry) : place(w.maps()), lane(w.maps()) {
    const Window window = geometry.window();
    for (const UsedChannel& u : w.used)
      for (int m = u.begin; m < u.end; ++m) {
        place[m] = (uint32_t)(u.channel * geometry.channel_floats(0) + window.offset[w.taps[m]]);
        lane[m] = w.taps[m] % window.cols % geometry.joined;
      }
  }
};

void join_steps(const Weights& w, int columns, const Places& places, ShiftedSteps& out) {
  const int rows = w.block_rows(), chunks = (int)w.chunks.size();
  const uint8_t* const values = reinterpret_cast<const uint8_t*>(w.values.get());
  for (int row = 0; row < rows; ++row) {
    out.bounds.push_back((uint32_t)out.columns.size());
    std::map<uint32_t, std::vector<uint8_t>> steps;  // by place: [r][4]
    for (uint32_t b = w.bounds[row]; b < w.bounds[chunks * rows + row]; ++b)
      for (int i = 0; i < columns; ++i) {
        const uint32_t map = w.columns[b * columns + i] / kLanes;
        std::vector<uint8_t>& step = steps.try_emplace(places.place[map], (size_t)w.r * 4, uint8_t(0)).first->second;
        for (int f = 0; f < w.r; ++f)  // an empty slot of a step has some map once more, and zeros
          step[f * 4 + places.lane[map]] |= values[((size_t)b * w.r + f) * columns + i];
      }
    for (const auto& [place, step] : steps) {
      out.columns.push_back(place);
      out.values.resize(out.values.size() + w.r);
      std::memcpy(&out.values[out.values.size() - w.r], step.data(), w.r * sizeof(uint32_t));
    }
  }
  for (int row = 0; row < rows; ++row) out.bounds.push_back(row + 1 < rows ? out.bounds[row + 1] : (uint32_t)out.columns.size());
}

}  // namespace

ShiftedSteps shifted_steps(const Weights& w, const Geometry& geometry) {
  const Places places(w, geometry);
  const int columns = conv_kernels(w.isa, w.number, w.r)[0]->columns;
  ShiftedSteps out;
  if (geometry.joined > 1) {
    join_steps(w, columns, places, out);
  } else {
    const uint32_t count = w.bounds.back() * columns;
    for (uint32_t b = 0; b < count; ++b) out.columns.push_back(places.place[w.columns[b] / kLanes]);
  }
  out.columns.resize(out.columns.size() + kMapsAhead);
  return out;
}

}  // namespace cosparse
