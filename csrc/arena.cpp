// Where values lie: views cost nothing, concatenations are written in place, and memory is reused as soon as its last reader is done.
#include <algorithm>
#include <climits>
#include <numeric>

#include "memory.h"
#include "plan.h"

namespace cosparse {

namespace {

struct Home {  // planes [channel, ...) of the storage that starts with value `root`
  int root = -1;
  int64_t channel = 0;
};

struct Block {  // a piece of arena, live in steps first..last
  int64_t floats = 0, offset = 0;
  int first = INT_MAX, last = -2;
  void live(int step) { first = std::min(first, step), last = std::max(last, step); }
};

// Largest first, each at the lowest offset where it meets no block that is alive with it. Returns the arena's size.
int64_t pack_blocks(std::vector<Block*> blocks) {
  std::sort(blocks.begin(), blocks.end(),
            [](const Block* a, const Block* b) { return a->floats != b->floats ? a->floats > b->floats : a->first < b->first; });
  std::vector<const Block*> placed;  // by offset
  int64_t end = 0;
  for (Block* block : blocks) {
    int64_t at = 0;
    for (const Block* other : placed) {
      if (other->last < block->first || block->last < other->first) continue;
      if (other->offset >= at + block->floats) break;
      at = std::max(at, other->offset + other->floats);
    }
    block->offset = at;
    placed.insert(
        std::upper_bound(placed.begin(), placed.end(), block, [](const Block* a, const Block* b) { return a->offset < b->offset; }), block);
    end = std::max(end, at + block->floats);
  }
  return end;
}

bool slices_channels(const Node& node) { return node.op == "slice" && node.integer("axis") == 1 && node.integer("step") == 1; }

int64_t first_channel(const Node& node, int64_t channels) {
  const int64_t start = node.integer("start");
  return std::clamp<int64_t>(start < 0 ? start + channels : start, 0, channels);
}

// Homes of all values; a value without one (folded into a later one, or between the two steps of a pair) keeps root -1.
std::vector<Home> find_homes(const Graph& graph, const std::vector<Fused>& steps, const std::vector<Shape>& shapes) {
  const int inputs = (int)graph.inputs.size(), count = (int)graph.nodes.size();
  std::vector<Home> homes(inputs + count);
  std::vector<char> movable(inputs + count, 0);  // written by a step or by the caller, so free to lie anywhere
  for (int v = 0; v < inputs; ++v) homes[v] = {v, 0}, movable[v] = 1;
  for (const Fused& f : steps)
    if (!f.into_next) homes[f.output] = {f.output, 0}, movable[f.output] = 1;

  // Later concatenations first: a chain of growing ones (DenseNet) then shares the storage of the longest.
  for (int n = count - 1; n >= 0; --n) {
    const Node& node = graph.nodes[n];
    const int v = inputs + n;
    if (node.op != "concat" || node.integer("axis") != 1 || homes[v].root < 0) continue;
    bool joined = movable[v];  // are all parts neighbours already, in order, in one storage?
    int64_t channel = 0;
    for (int u : node.inputs) {
      const Home &h = homes[u], &head = homes[node.inputs[0]];
      joined = joined && !movable[u] && h.root == head.root && h.root >= 0 && h.channel == head.channel + channel;
      channel += shapes[u].c;
    }
    if (joined) {
      homes[v] = homes[node.inputs[0]];
      movable[v] = 0;
      continue;
    }
    channel = 0;
    for (int u : node.inputs) {
      if (movable[u] && homes[u].root == u && u != v) homes[u] = {homes[v].root, homes[v].channel + channel}, movable[u] = 0;
      channel += shapes[u].c;
    }
    movable[v] = 0;
  }
  // A storage that moved into another takes along what lies in it (concatenation of concatenations).
  for (auto& h : homes)
    while (h.root >= 0 && homes[h.root].root != h.root) h.channel += homes[h.root].channel, h.root = homes[h.root].root;
  for (int n = 0; n < count; ++n) {
    if (!is_view(graph, n, shapes)) continue;
    const Node& node = graph.nodes[n];
    homes[inputs + n] = homes[node.inputs[0]];
    if (slices_channels(node)) homes[inputs + n].channel += first_channel(node, shapes[node.inputs[0]].c);
  }
  return homes;
}

// Whose memory a value has: its own, or that of the residual which its step adds and nobody reads later. Each number is read before its
// place is written, so what is added is in the cache that the sum goes to, and one value less is alive.
std::vector<int> share_residuals(const Graph& graph, const std::vector<Fused>& steps, const std::vector<char>& whole,
                                 const Prepared& prepared, const Plan& plan, std::vector<Block>& storage) {
  std::vector<int> owner(storage.size());
  std::iota(owner.begin(), owner.end(), 0);
  for (int i = 0; i < (int)steps.size(); ++i) {
    const int from = steps[i].residual, to = steps[i].output;
    if (from < 0 || !whole[from] || !whole[to] || storage[from].last != i) continue;
    const Node& node = graph.nodes[steps[i].node];
    if (std::count(node.inputs.begin(), node.inputs.end(), from)) continue;  // other tiles read it too
    const auto own = prepared.weights.find(steps[i].node);
    if (own == prepared.weights.end() || own->second->depthwise) continue;
    if (own->second->chunks.size() > 1) continue;  // sums may wait in the output
    const Place &a = plan.places[from], &b = plan.places[to];
    if (a.tiled != b.tiled || a.plane != b.plane || a.group != b.group || a.row_bits != b.row_bits) continue;
    owner[to] = owner[from];
    Block& shared = storage[owner[from]];
    shared.last = storage[to].last, shared.floats = std::max(shared.floats, storage[to].floats);
  }
  return owner;
}

}  // namespace

bool is_view(const Graph& graph, int n, const std::vector<Shape>& shapes) {
  const Node& node = graph.nodes[n];
  const Shape &in = shapes[node.inputs[0]], &out = shapes[graph.inputs.size() + n];
  if (slices_channels(node)) return true;
  return node.op == "reshape" && in.c == out.c && in.h == out.h && in.w == out.w;
}

std::vector<int64_t> place_values(const Graph& graph, const std::vector<Fused>& steps, const Prepared& prepared, int threads, Plan& plan) {
  const std::vector<Home> homes = find_homes(graph, steps, plan.shapes);
  const int inputs = (int)graph.inputs.size();
  std::vector<Block> storage(homes.size()), temporary(steps.size());
  const auto touch = [&](int v, int step) {
    if (homes[v].root >= 0) storage[homes[v].root].live(step);
  };
  for (size_t v = 0; v < homes.size(); ++v) {
    if (homes[v].root < 0) continue;
    const Shape& s = plan.shapes[v];
    plan.places[v].plane = round_up(s.pixels(), kLanes);
    Block& block = storage[homes[v].root];
    block.floats = std::max(block.floats, (homes[v].channel + s.c) * plan.places[v].plane);
  }
  for (int v = 0; v < inputs; ++v) touch(v, -1);
  for (int i = 0; i < (int)steps.size(); ++i) {
    const Node& node = graph.nodes[steps[i].node];
    touch(steps[i].output, i);
    if (steps[i].residual >= 0) touch(steps[i].residual, i);
    const int last = i + steps[i].into_next;  // the pair reads while it writes the next step's output
    for (int v : read_by(node)) touch(v, i), touch(v, last);
    if (const auto own = prepared.weights.find(steps[i].node); own != prepared.weights.end())
      temporary[i].floats = temporary_floats(node, *own->second, plan.shapes[node.inputs[0]], plan.shapes[steps[i].output]);
    temporary[i].live(i), temporary[i].live(last);
  }
  for (int v : graph.outputs) touch(v, (int)steps.size());

  std::vector<int> residents(homes.size(), 0);
  for (const Home& h : homes)
    if (h.root >= 0) ++residents[h.root];
  std::vector<char> whole(homes.size(), 0);
  for (size_t v = inputs; v < homes.size(); ++v) whole[v] = homes[v].root == (int)v && residents[v] == 1;
  choose_layouts(graph, steps, whole, prepared, threads, plan);
  for (size_t v = 0; v < homes.size(); ++v)  // tiles of short numbers
    if (const Place& place = plan.places[v]; place.tiled) {
      const int64_t pixels = (int64_t)kLanes << place.row_bits, rows = (plan.shapes[v].pixels() + pixels - 1) / pixels;
      storage[v].floats = round_up((rows - 1) * place.group + (plan.shapes[v].c - 1) * place.plane + kLanes, kLanes);
    }
  const std::vector<int> owner = share_residuals(graph, steps, whole, prepared, plan, storage);

  std::vector<Block*> blocks;
  for (size_t v = 0; v < storage.size(); ++v)
    if (storage[v].floats && storage[v].last > -2 && owner[v] == (int)v) blocks.push_back(&storage[v]);
  for (Block& b : temporary)
    if (b.floats) blocks.push_back(&b);
  plan.arena_floats = pack_blocks(blocks);
  for (size_t v = 0; v < homes.size(); ++v)
    if (homes[v].root >= 0) plan.places[v].offset = storage[owner[homes[v].root]].offset + homes[v].channel * plan.places[v].plane;
  std::vector<int64_t> offsets;
  for (const Block& b : temporary) offsets.push_back(b.floats ? b.offset : -1);
  return offsets;
}

}  // namespace cosparse
