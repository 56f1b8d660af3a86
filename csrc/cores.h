// The cores that this process may use, and threads kept on some of them.
#pragma once
#include <vector>

namespace cosparse {

// Ascending; the numbers of 0 .. n-1 where the operating system does not say which.
std::vector<int> available_cores();
// COSPARSE_THREADS, else one for each available core. Throws Error (Fault::usage) where the variable is no whole number from 1.
int default_threads();
// Throws Error (Fault::usage) where one of them is not available, or named twice.
void check_cores(const std::vector<int>& cores);
// The calling thread runs on these cores alone from now on. Best effort: false where the operating system refuses.
bool stay_on(const std::vector<int>& cores) noexcept;

// Keeps the calling thread on some cores for a while; on none of them in particular where the list is empty. Memory that is first written
// meanwhile lies beside these cores.
class KeptOn {
 public:
  explicit KeptOn(const std::vector<int>& cores);
  ~KeptOn();
  KeptOn(const KeptOn&) = delete;
  KeptOn& operator=(const KeptOn&) = delete;

 private:
  std::vector<int> before_;
};

}  // namespace cosparse
