// Measurements kept between processes: one readable JSON file for each machine, instruction set, number of threads and dtype.
//
//   {"format": 1, "kernels": "3", "cpu": "...", "isa": "avx512", "threads": 2, "dtype": "float32",
//    "layers": {SIGNATURE: {"form": "cosparse", "tile": 2, "us": {"cosparse/1": 130.2, "cosparse/2": 112.0, "dense/2": 340.9}}},
//    "batches": {SIGNATURE: {"apart": 1420.5, "together": 1655.1}}}
#pragma once
#include <map>
#include <string>

#include "schedule.h"
#include "tune.h"

namespace cosparse {

class TuneCache {
 public:
  // In COSPARSE_CACHE, else XDG_CACHE_HOME/cosparse, else HOME/.cache/cosparse; where none of these is set, and where COSPARSE_CACHE is
  // empty, nothing is kept. A file that cannot be read, is damaged, or is of other kernels counts as empty, and warning() says so.
  explicit TuneCache(const Options& options);
  const Measured* find(const std::string& signature) const;
  void put(const std::string& signature, Measured measured) { layers_[signature] = std::move(measured), changed_ = true; }
  const BatchTimes* find_batch(const std::string& signature) const;
  void put_batch(const std::string& signature, BatchTimes times) { batches_[signature] = times, changed_ = true; }
  // Picks from what was found for signatures that are new, and saves; how many these were.
  int keep(Found found);
  // Writes beside and renames, after taking over what other processes have added; failing to write is a warning, no error. The file is whole
  // at any time; of two that save at the same moment one may lose what the other adds, and measures it again.
  void save();
  const std::string& path() const { return path_; }
  const std::string& warning() const { return warning_; }

 private:
  void load();
  std::string text() const;

  Options options_;
  std::string path_, warning_;
  std::map<std::string, Measured> layers_;
  std::map<std::string, BatchTimes> batches_;
  bool changed_ = false;
};

std::string cpu_name();

}  // namespace cosparse
