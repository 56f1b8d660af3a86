#include <stdexcept>

#include "handles.h"

namespace cosparse {
namespace {

struct Kept {
  std::string message, about, expected, got, next_step;
  cosparse_error view = {COSPARSE_OK, "", "", "", "", ""};
};
thread_local Kept kept;

// For when there is no memory even for the text.
constexpr cosparse_error kNoMemory = {COSPARSE_MEMORY, "memory: expected enough, got none; free some, or use smaller batches", "memory",
                                      "enough", "none", "free some, or use smaller batches"};

cosparse_status status_of(Fault fault) {
  constexpr cosparse_status all[] = {COSPARSE_ARTIFACT, COSPARSE_UNSUPPORTED, COSPARSE_SHAPE, COSPARSE_USAGE, COSPARSE_MEMORY};  // in the order of Fault
  return all[static_cast<int>(fault)];
}

cosparse_status keep(cosparse_status status, const Error& error) {
  kept.message = error.what(), kept.about = error.what_about, kept.expected = error.expected, kept.got = error.got;
  kept.next_step = error.next_step;
  kept.view = {status, kept.message.c_str(), kept.about.c_str(), kept.expected.c_str(), kept.got.c_str(), kept.next_step.c_str()};
  return status;
}

cosparse_status keep_defect(const char* what) {
  return keep(COSPARSE_INTERNAL, Error(Fault::usage, "cosparse", "no such failure", what, "please report it"));
}

}  // namespace

cosparse_status caught() noexcept {
  try {
    try {
      throw;
    } catch (const Error& error) {
      return keep(status_of(error.fault), error);
    } catch (const std::bad_alloc&) {
    } catch (const std::length_error&) {  // a size that no memory could hold
    } catch (const std::exception& error) {
      return keep_defect(error.what());
    } catch (...) {
      return keep_defect("an exception of unknown kind");
    }
  } catch (...) {  // std::bad_alloc of keep()
  }
  kept.view = kNoMemory;
  return COSPARSE_MEMORY;
}

}  // namespace cosparse

extern "C" {

const cosparse_error* cosparse_last_error(void) { return &cosparse::kept.view; }
const char* cosparse_version(void) { return COSPARSE_VERSION; }
int cosparse_abi(void) { return COSPARSE_ABI; }
}
