// How a batch runs.
#pragma once
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "plan.h"

namespace cosparse {

// What measurements said of a batch: microseconds with one run a thread apart, and with all images together.
struct BatchTimes {
  double apart, together;
};
// Whether a batch runs apart, and why. Once it has run it stays so for as long as the engine lives: the other way's last bits may differ.
struct BatchChoice {
  bool apart = false;
  std::string why;
};
BatchChoice choose_batch(const BatchTimes& times);
// By batch_key(): a batch that fits into the caches as a whole is measured as a whole; of a larger one as much as runs at once.
using BatchChoices = std::map<std::vector<int64_t>, BatchChoice>;
std::vector<int64_t> batch_key(const std::vector<Shape>& inputs, int64_t images);  // inputs: sizes of one image

// In parts, one after the other, each small enough for its activations to stay in the caches. No operator of the format mixes images, so the
// parts are the whole. All threads share each layer of a part; or the part is runs of the whole network, each by one thread alone ("apart"):
// then nothing waits between layers and no activation moves from core to core, but every thread fetches all the weights.
struct Schedule {
  struct Part {
    std::shared_ptr<const Plan> plan;
    int64_t times;
    bool apart = false;  // as many of the times at once as there are threads
  };
  // The rows of plan and profile are the steps of the first part. Others may have them in another order: layers that run as a pair change
  // places, and whether they are one depends on the batch (pair.h).
  size_t rows() const { return parts[0].plan->steps.size(); }
  // For each step of a part's plan its row; rows() for one that the first part does without.
  std::vector<size_t> rows_of(const Plan& plan) const;
  // A count of each row (Step::flops and the like) over all parts.
  std::vector<double> counts(double Step::* count) const;
  bool apart() const { return parts[0].apart; }
  std::string text() const;  // "2 x 8 images, each on a thread of its own; 1 image"

  std::vector<Part> parts;     // the one that runs apart first
  std::vector<Shape> outputs;  // of the whole batch
  int64_t measured = 0;        // images of the batch that tells whether to run apart; 0: there is no choice
  BatchChoice choice = {};     // where there is one
  std::vector<int64_t> key;    // of the choice, to be kept once the schedule has run; empty: nothing to keep
  mutable std::atomic<bool> kept{false};
};

// What is known of how layers and batches run, at any shapes.
struct Known {
  Choices layers;
  BatchChoices batches;
};

}  // namespace cosparse
