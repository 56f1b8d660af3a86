// A conv or linear node's weights in the form that the kernels read; made once at load, shared by every plan and caller.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "graph.h"
#include "kernels/kernel.h"
#include "slab.h"

namespace cosparse {

struct Layer;

// How a layer is computed.
//   cosparse  stored coefficients on transformed activations (identity transform: stored blocks)
//   spatial   transformed back at load, all-zero blocks dropped
//   dense     transformed back at load, every block there: the engine's own dense kernel
//   winograd  the same weights, 3x3 at stride 1 in float32 by tiles of pixels (kernels/winograd.h): a quarter of the multiplications
enum class Form : int { cosparse, spatial, dense, winograd };
constexpr Form kForms[] = {Form::cosparse, Form::spatial, Form::dense, Form::winograd};
const char* name_of(Form);

// int8: a map of tap t is stored as round(x / step[t] + zero[t]) in 0..255. So is what is added to the layer's sums, where nothing else reads
// it, and the source of a layer with a transform, where its kernels take that (KernelRow::whole) and nothing of it is negative. A step of 0: there
// was nothing, or only zeros.
struct Quantization {
  std::vector<float> step, zero;  // [taps]
  float added_step = 0, added_zero = 0;
  float source_step = 0;  // of a source that is nowhere negative, else 0
};

struct Weights {
  int filters = 0, channels = 0, kernel[2] = {1, 1}, groups = 1;
  // values: [filters][R*S] float; everything below up to `bias` is then unused. Form::winograd: values as in WinogradArgs, with r and isa; no
  // chunks, no maps; basis and used for counting alone.
  bool depthwise = false;

  Form form = Form::dense;
  Number number = Number::f32;
  int r = 8;              // filters a block row
  Isa isa = Isa::scalar;  // whose kernels read these weights
  int floats = kLanes;    // of memory in a row of maps (KernelRow)
  Basis basis = Basis::taps;
  std::vector<UsedChannel> used;
  std::vector<Chunk> chunks;
  std::vector<uint16_t> taps;    // map numbers, channel after channel (UsedChannel)
  std::vector<uint32_t> bounds;  // as ConvArgs; bounds_step = block rows
  std::vector<uint32_t> doubles;  // as ConvArgs
  std::shared_ptr<uint32_t[]> columns;
  bool same_columns = false;
  std::shared_ptr<float[]> values;
  std::vector<float> basis_rows, basis_cols;
  std::vector<float> inverse, zero;  // int8, as ConvArgs
  float added_inverse = 0, added_zero = 0;  // the same of Quantization
  float source_inverse = 0;                 // of a source in steps; 0: the basis step is in float32
  std::vector<int16_t> factor;              // then, as ConvArgs
  Floats bias, scale;
  double most_sum = 0;  // int8: times its scale no filter's sum is larger

  int64_t kept = 0;    // coefficients executed, tail filters excluded
  double density = 1;  // kept / (filters * channels / groups * R * S)
  int64_t bytes = 0;   // everything that the kernel reads of the weights
  std::string why;     // the reason for this form, for the plan's table

  int maps() const { return (int)taps.size(); }
  int block_rows() const { return (filters + r - 1) / r; }
  int most_maps() const;                                                                          // of a chunk
  bool whole_channels() const { return basis != Basis::dct3 || maps() == 9 * (int)used.size(); }  // MapsKernel
  // The basis step in multiply-adds a channel and output pixel, at this stride (counting rule: cosparse.compress.transforms.basis_cost).
  double basis_cost(int down, int along) const;
};

struct Recipe {
  Form form = Form::cosparse;
  Number number = Number::f32;
  Isa isa = Isa::scalar;                       // whose kernels read the weights
  const Quantization* quantization = nullptr;  // int8
};

bool is_weighted(const Node& node);  // conv, linear
// The form that costs the fewest operations: what a plan takes until layers are timed.
Form cheapest_form(const Node& node);
// The forms that a layer has, the one that reads the fewest weights first; winograd, which only float32 has, is not among them.
std::vector<Form> forms_of(const Node& node);
bool has_winograd(const Node& node);
// Coefficients that a layer executes in this form, at the most.
int64_t most_coefficients(const Node& node, Form form);
// Values of a layer in Form::winograd, for prepare_weights.
void pack_winograd(const Layer& layer, Slab& slab, Weights& out);
// Values and columns are pieces of `slab`.
std::shared_ptr<const Weights> prepare_weights(const Node& node, const Recipe& recipe, Slab& slab);

}  // namespace cosparse
