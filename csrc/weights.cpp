#include "weights.h"

#include <algorithm>
#include <cmath>

#include "blocks.h"
#include "error.h"
#include "kernels/table.h"
#include "pack.h"

namespace cosparse {

namespace {

// Maps of 16 floats that fit a second-level cache for two groups of pixels, weights beside them.
constexpr int kChunkMaps = 2304;
// With vectors of eight a map is read twice as often for its products, and the second-level cache is too slow for that: of so many maps three
// groups fit the first-level cache. Sums wait in the output between chunks, for which a block row should have some columns in each.
constexpr int kNearMaps = 160, kNearColumns = 110;
constexpr int kMostFields = 8;  // of pixels along an axis, of a dilated layer in Winograd's form: with more of them tiles are mostly empty

int block_of(const Layer& l) {  // filters a block row on this target
  if (l.block && !l.without_kernel()) {
    int r = 8;
    while (l.r % r != 0) r /= 2;
    return r;
  }
  const int a_group = l.G > 1 ? l.O / l.G : l.O;
  int r = 8;
  while (r > 1 && (l.G > 1 ? a_group % r != 0 : r / 2 >= a_group)) r /= 2;
  return r;
}

// Cost in multiply-adds a pixel and channel, stores included, of making the maps.
double map_cost(const Layer& l, bool transformed) {
  if (!transformed) return 2.0 * l.taps();
  return l.R == 3 && l.S == 3 ? 28 : l.taps() * (l.R + l.S + 2.0);
}

bool can_transform(const Layer& l) { return l.transformed() && !l.without_kernel() && !l.depthwise() && l.R <= kMaxDct && l.S <= kMaxDct; }

// The basis step stores all nine maps of a channel in any case, so where most of them are read there is nothing in leaving some out.
void complete_channels(std::vector<char>& read) {
  std::vector<char> whole = read;
  int64_t some = 0, all = 0;
  for (size_t c = 0; c < read.size(); c += 9) {
    const int64_t wanted = std::count(&read[c], &read[c] + 9, 1);
    some += wanted, all += wanted ? 9 : 0;
    if (wanted) std::fill_n(&whole[c], 9, 1);
  }
  if (some * 4 >= all * 3) read = whole;
}

// Numbers the maps that some block reads, channel after channel. 1x1: a map is a channel and keeps its number, so that a tiled source can
// be read in place.
void number_maps(const Layer& l, const Blocks& blocks, Weights& out, std::vector<uint32_t>& number) {
  const int taps = l.taps();
  std::vector<char> read((size_t)l.C * taps, 0);
  for (const uint32_t column : blocks.columns) read[column] = 1;
  number.resize(read.size());
  if (out.basis == Basis::dct3) complete_channels(read);
  for (int c = 0; c < l.C; ++c) {
    UsedChannel u{c, (int)out.taps.size(), 0, 0};
    for (int tap = 0; tap < taps; ++tap)
      if (read[c * taps + tap] || taps == 1) {
        number[c * taps + tap] = (uint32_t)out.taps.size();
        out.taps.push_back((uint16_t)tap);
        u.wanted |= tap < 32 ? 1u << tap : 0;
      }
    u.end = (int)out.taps.size();
    if (u.end > u.begin && (taps > 1 || read[c])) out.used.push_back(u);
  }
}

// Maps of a chunk, at the most.
int chunk_maps(const Layer& l, const KernelRow& kernel, const Weights& w) {
  const int far = kChunkMaps * kLanes / kernel.floats;
  if (kernel.isa != Isa::avx2 || kernel.floats < kLanes || !w.kept) return far;
  return std::clamp((int)(kNearColumns * (double)l.dense() / w.kept), kNearMaps, far);
}

// Cuts the used channels into chunks of about as many maps each; 1x1 layers, whose maps are copies or not even that, stay whole.
void cut_chunks(const Layer& l, const KernelRow& kernel, Weights& out) {
  const int most = chunk_maps(l, kernel, out), count = (int)out.used.size();
  const int parts = l.taps() == 1 ? 1 : std::max(1, (out.maps() + most - 1) / most);
  for (int part = 0, begin = 0; part < parts; ++part) {
    const int first = part ? out.chunks.back().first_map + out.chunks.back().maps : 0;
    const int64_t goal = (int64_t)out.maps() * (part + 1) / parts;
    int end = begin;
    while (end < count && (out.used[end].end <= goal || part + 1 == parts)) ++end;
    const int beyond = part + 1 == parts ? out.maps() : end > begin ? out.used[end - 1].end : first;
    out.chunks.push_back({begin, end, first, beyond - first}), begin = end;
  }
}

// Whether a basis step in whole numbers has the layer's window (basis_whole.h).
bool has_whole_step(const Node& node) {
  const int64_t down = node.list("stride")[0], along = node.list("stride")[1];
  return (down == 1 && along == 1) || (along == 2 && node.list("dilation")[1] == 1);
}

// A kernel of the best set that the layer's block rows are long enough for.
const KernelRow& kernel_for(const Layer& l, const Recipe& recipe, int r) {
  const double columns = l.K() * (recipe.form == Form::dense ? 1 : l.density());
  const KernelRow* kernel = conv_kernels(recipe.isa, recipe.number, r)[0];
  while (columns < kernel->least) kernel = conv_kernels(Isa((int)kernel->isa - 1), recipe.number, r)[0];
  return *kernel;
}

void depthwise_values(const Layer& l, Slab& slab, Weights& out) {
  out.values = tap_blocks(l, 1, true, slab).values;  // a filter has the taps of one channel, so rows follow each other without gaps
  out.depthwise = true, out.kept = l.dense(), out.bytes = l.dense() * 4;
}

std::string reason(const Layer& l, const Weights& w) {
  if (w.form == Form::winograd) return l.transformed() ? "transformed back, Winograd's tiles" : "dense, Winograd's tiles";
  if (w.depthwise) return l.transformed() ? "depthwise: transformed back" : "depthwise";
  if (w.form == Form::cosparse) return l.transformed() ? "sparse in the DCT" : "sparse";
  const std::string form = w.kept < l.dense() ? "all-zero blocks dropped" : "dense";
  if (l.without_kernel()) return "no kernel for " + transform_of(l) + ": transformed back, " + form;
  return l.transformed() ? "transformed back, " + form : l.block || w.kept == l.dense() ? form : "dense, " + form;
}

}  // namespace

const char* name_of(Form form) {
  return form == Form::cosparse ? "cosparse" : form == Form::spatial ? "spatial" : form == Form::dense ? "dense" : "winograd";
}

int Weights::most_maps() const {
  int most = 0;
  for (const Chunk& c : chunks) most = std::max(most, c.maps);
  return most;
}

double Weights::basis_cost(int down, int along) const {
  if (basis == Basis::taps) return 0;
  const auto line = [](int n) {  // one n-point DCT: sums and differences of mirrored pairs, then half the rows each
    const int h = n / 2, m = n - h;
    return h + (m - 1) / 2.0 + (m - 1) * (m - 1) + h * (h - 1);
  };
  const int R = kernel[0], S = kernel[1];
  return std::min(std::min(along, S) * line(R) + R * line(S), std::min(down, R) * line(S) + S * line(R));
}

bool is_weighted(const Node& node) { return node.op == "conv" || node.op == "linear"; }

std::vector<Form> forms_of(const Node& node) {
  const Layer l = describe(node);
  if (l.depthwise()) return {Form::dense};
  if (can_transform(l)) return {Form::cosparse, Form::spatial, Form::dense};
  if (l.block && !l.transformed()) return {Form::cosparse, Form::dense};
  return {Form::spatial, Form::dense};
}

bool has_winograd(const Node& node) {
  if (node.op != "conv") return false;
  const auto all = [&](const char* key, int64_t value) { return node.list(key)[0] == value && node.list(key)[1] == value; };
  return all("kernel", 3) && all("stride", 1) && std::max(node.list("dilation")[0], node.list("dilation")[1]) <= kMostFields &&
         node.integer("groups") == 1 &&
         std::min(node.integer("channels"), node.integer("filters")) >= kWinogradRows;
}

Form cheapest_form(const Node& node) {
  const Layer l = describe(node);
  const std::vector<Form> forms = forms_of(node);
  if (forms[0] != Form::cosparse || !l.transformed()) return forms[0];
  const double a_filter = (double)l.taps() * l.O / l.G;
  return a_filter * l.density() + map_cost(l, true) < a_filter + map_cost(l, false) ? Form::cosparse : Form::spatial;
}

int64_t most_coefficients(const Node& node, Form form) {
  const Layer l = describe(node);
  if (form == Form::dense) return l.dense();
  if (form == Form::winograd) return kWinogradPlaces * round_up(l.O, kWinogradRows) * l.C;
  const int64_t stored = l.values->count();
  if (form == Form::cosparse || !l.transformed()) return stored;
  const int64_t taps = l.dct || l.basis ? l.taps() : 1;  // that one coefficient becomes
  return std::min(l.dense(), stored * taps * std::max(1, l.channel_tiles.points) * std::max(1, l.filter_tiles.points));
}

std::shared_ptr<const Weights> prepare_weights(const Node& node, const Recipe& recipe, Slab& slab) {
  const Layer l = describe(node);
  auto out = std::make_shared<Weights>();
  out->filters = l.O, out->channels = l.C, out->groups = l.G, out->kernel[0] = l.R, out->kernel[1] = l.S;
  if (l.R > kMaxTaps || l.S > kMaxTaps)
    throw Error(Fault::unsupported, "node '" + node.name + "'", "a kernel of at most 64 x 64",
                std::to_string(l.R) + " x " + std::to_string(l.S), "split the convolution");
  out->form = recipe.form, out->number = recipe.number, out->r = recipe.form == Form::winograd ? kWinogradRows : block_of(l);
  const int64_t padded = round_up(l.O, out->r);
  out->bias = allocate_floats(padded);
  for (int64_t o = 0; o < padded; ++o) out->bias[o] = l.bias && o < l.O ? l.bias->f32()[o] : 0.f;
  if (l.depthwise()) {
    depthwise_values(l, slab, *out);
  } else if (recipe.form == Form::winograd) {
    out->isa = recipe.isa;
    pack_winograd(l, slab, *out);
  } else {
    const bool transformed = recipe.form == Form::cosparse && can_transform(l);
    std::vector<double> factor(l.taps(), 1.0);
    if (transformed) out->basis = l.R == 3 && l.S == 3 ? Basis::dct3 : Basis::dct;
    if (out->basis == Basis::dct3) {
      const double f[3] = {1 / std::sqrt(3.0), 1 / std::sqrt(2.0), 1 / std::sqrt(6.0)};  // scales of (1,1,1), (1,0,-1), (1,-2,1)
      for (int i = 0; i < 9; ++i) factor[i] = f[i / 3] * f[i % 3];
    }
    if (out->basis == Basis::dct) {
      const auto rows = dct_matrix(l.R), cols = dct_matrix(l.S);
      out->basis_rows.assign(rows.begin(), rows.end()), out->basis_cols.assign(cols.begin(), cols.end());
    }
    const KernelRow& kernel = kernel_for(l, recipe, out->r);
    out->isa = kernel.isa;
    Slab passing(false);
    Slab& values = kernel.columns > 1 ? passing : slab;
    Blocks blocks = recipe.form == Form::cosparse ? stored_blocks(l, out->r, factor, values)
                                                  : tap_blocks(l, out->r, recipe.form == Form::dense, values);
    out->kept = blocks.kept;
    if (recipe.number == Number::bf16) round_values(blocks);
    if (recipe.number == Number::int8)
      quantize(l, kernel.whole && out->basis == Basis::dct3 && has_whole_step(node), *recipe.quantization, blocks, *out);
    std::vector<uint32_t> number;
    number_maps(l, blocks, *out, number);
    out->floats = kernel.floats;
    cut_chunks(l, kernel, *out);
    pack_steps(blocks, number, kernel, slab, *out);
  }
  out->density = l.dense() ? (double)out->kept / l.dense() : 0;
  out->bytes += padded * 4 * (out->scale ? 2 : 1);
  out->why = reason(l, *out);
  return out;
}

}  // namespace cosparse
