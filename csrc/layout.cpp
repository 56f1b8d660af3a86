// Which values are tiled. A 1x1 convolution that reads planes would touch as many memory pages as it has channels, and so copies its tile
// first; tiles it reads where they lie. Only convolutions know the layout, so a value is tiled where they are all that touches it.
#include <algorithm>

#include "memory.h"
#include "plan.h"

namespace cosparse {

bool pixelwise(const Node& node) {
  if (node.op == "linear") return true;
  const auto all = [&](const char* key, int64_t is) {
    const auto& list = node.list(key);
    return std::all_of(list.begin(), list.end(), [&](int64_t x) { return x == is; });
  };
  return node.op == "conv" && all("kernel", 1) && all("pad", 0);
}

bool reads_in_place(const Node& node) {
  return pixelwise(node) && (node.op == "linear" || (node.list("stride")[0] == 1 && node.list("stride")[1] == 1));
}

// Whether sums wait in the output between chunks, for which a row of shorter numbers has no room. Where all maps are made first there is one
// chunk, but not of double steps.
static bool keeps_sums(const Node& node, const Weights& weights, int64_t pixels) {
  return weights.floats < kLanes && weights.chunks.size() > 1 && (!weights.doubles.empty() || !maps_first(node, weights, pixels));
}

// Whether a layer's basis step is in whole numbers where its source lies in planes of them: without a stride each row of pixels must follow the
// one before.
static bool reads_steps(const Node& node, const Weights& weights, const Shape& in, const Shape& out) {
  return weights.source_inverse > 0 && (node.list("stride")[1] == 2 || (in.h == out.h && in.w == out.w));
}

// Whether one layer's steps are what the other reads, and a pool between them has a kernel for their numbers.
static bool alike(const Weights& writer, const Weights& reader) {
  return reader.number == Number::int8 && writer.floats == reader.floats && pool_steps_kernel(reader.isa, reader.floats);
}

// Whether a layer has the kernel that reads rows of four groups where they lie (kernels/conv_wide.h), and tiles of as many: the whole
// plane, whose block rows threads then share, or so many that most of the groups are in tiles when each thread has the same number.
static bool reads_wide_rows(const Weights& weights, int64_t pixels, int threads) {
  constexpr int kManyTiles = 4;  // for each thread
  const KernelRow& widest = *conv_kernels(weights.isa, weights.number, weights.r)[0];
  const int64_t groups = round_up(pixels, kLanes) / kLanes, tiles = groups / kWideGroups;
  return widest.t == kWideGroups && widest.floats * kWideGroups == kLanes && tiles > 0 &&
         (groups == kWideGroups || tiles % threads == 0 || tiles >= kManyTiles * threads);
}

void choose_layouts(const Graph& graph, const std::vector<Fused>& steps, const std::vector<char>& whole, const Prepared& prepared,
                    int threads, Plan& plan) {
  const auto convolves = [&](int node) {
    const auto own = prepared.weights.find(node);
    return own != prepared.weights.end() && !own->second->depthwise;
  };
  std::vector<char> allowed = whole;
  // What a max_pool makes of the value; the convolution that writes it.
  std::vector<int> pooled(whole.size(), -1), writer(whole.size(), -1);
  // A node that reads the value pixel by pixel, or out of planes of steps; all such have seen the same range of it.
  std::vector<int> wanted(whole.size(), -1), planes(whole.size(), -1);
  std::vector<char> wide(whole.size(), 1);  // all that read it pixel by pixel do so by rows of four groups
  for (size_t v = 0; v < allowed.size(); ++v)
    if (v >= graph.inputs.size() && is_view(graph, (int)(v - graph.inputs.size()), plan.shapes)) allowed[v] = 0;
  for (int v : graph.outputs) allowed[v] = 0;
  for (const Fused& f : steps) {
    const Node& node = graph.nodes[f.node];
    if (node.op == "max_pool" && f.act == Act::none && f.moves.empty() && pooled[node.inputs[0]] < 0) {
      pooled[node.inputs[0]] = f.output;
      continue;
    }
    if (convolves(f.node) && !f.into_next) writer[f.output] = f.node;
    if (!convolves(f.node) || keeps_sums(node, *prepared.weights.at(f.node), plan.shapes[f.output].pixels())) allowed[f.output] = 0;
    for (int v : read_by(node))  // of which `add` may be folded into the step before: that one reads it as its residual
      if (convolves(f.node) && pixelwise(node))
        wanted[v] = f.node, wide[v] = wide[v] && reads_wide_rows(*prepared.weights.at(f.node), plan.shapes[v].pixels(), threads);
      else if (convolves(f.node) && reads_steps(node, *prepared.weights.at(f.node), plan.shapes[v], plan.shapes[f.output]) &&
               (planes[v] < 0 || prepared.weights.at(planes[v])->source_inverse == prepared.weights.at(f.node)->source_inverse))
        planes[v] = f.node;
      else
        allowed[v] = 0;
    if (f.residual >= 0 && !convolves(f.node)) allowed[f.residual] = 0;
  }
  for (const Fused& f : steps)
    if (f.residual >= 0 && (planes[f.residual] >= 0 || pooled[f.residual] >= 0)) allowed[f.residual] = 0;
  for (size_t v = 0; v < allowed.size(); ++v)
    if (planes[v] >= 0 && wanted[v] >= 0) allowed[v] = 0;
  for (int n = 0; n < (int)graph.nodes.size(); ++n)
    if (is_view(graph, n, plan.shapes))
      for (int v : graph.nodes[n].inputs) allowed[v] = 0;
  // Pools of steps, those that their reader wants: of numbers cut off and rounded, the largest is the largest one cut off and rounded.
  for (size_t v = 0; v < allowed.size(); ++v) {
    if (pooled[v] < 0) continue;
    const int p = pooled[v], reader = wanted[p] >= 0 ? wanted[p] : planes[p];
    const bool read_by_it_alone = allowed[v] && wanted[v] < 0 && planes[v] < 0, read_on = allowed[p] && pooled[p] < 0 && reader >= 0;
    if (!read_by_it_alone || !read_on || writer[v] < 0 || !alike(*prepared.weights.at(writer[v]), *prepared.weights.at(reader)))
      allowed[v] = allowed[p] = 0, pooled[v] = -1;
  }
  // What is only added lies as the sum does, so that a tile of both is read and written in one piece.
  std::vector<int> added(whole.size(), -1);  // such a value: the node that adds it
  for (auto f = steps.rbegin(); f != steps.rend(); ++f)
    if (f->residual >= 0 && wanted[f->residual] < 0 && pooled[f->residual] < 0 && allowed[f->output] && wanted[f->output] >= 0 &&
        (prepared.weights.at(f->node)->inverse.empty() || prepared.weights.at(f->node)->added_inverse > 0))
      wanted[f->residual] = wanted[f->output], wide[f->residual] = wide[f->output], added[f->residual] = f->node;
  for (size_t v = 0; v < allowed.size(); ++v)
    if (allowed[v] && planes[v] >= 0) {
      const Weights& reader = *prepared.weights.at(planes[v]);
      Place& place = plan.places[v];
      place.tiled = true, place.group = reader.floats, place.inverse = reader.source_inverse;
      place.plane = round_up(plan.shapes[v].pixels(), kLanes) / kLanes * reader.floats;
    } else if (allowed[v] && wanted[v] >= 0) {
      const Weights& reader = *prepared.weights.at(wanted[v]);
      Place& place = plan.places[v];
      place.tiled = true, place.row_bits = wide[v] ? kWideBits : 0;
      place.plane = reader.floats << place.row_bits, place.group = plan.shapes[v].c * place.plane;
      if (added[v] >= 0)
        place.inverse = prepared.weights.at(added[v])->added_inverse, place.zero = prepared.weights.at(added[v])->added_zero;
      else if (!reader.inverse.empty())
        place.inverse = reader.inverse[0], place.zero = reader.zero[0];
    }
  for (size_t v = 0; v < allowed.size(); ++v)
    if (pooled[v] >= 0) {
      const Place& made = plan.places[pooled[v]];
      Place& place = plan.places[v];
      place.tiled = true, place.group = prepared.weights.at(writer[v])->floats, place.inverse = made.inverse, place.zero = made.zero;
      place.plane = round_up(plan.shapes[v].pixels(), kLanes) / kLanes * place.group;
    }
}

}  // namespace cosparse
