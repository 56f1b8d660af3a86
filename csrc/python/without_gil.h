// The interpreter's lock, given up while C++ works.
#pragma once
#include <pybind11/pybind11.h>
#include <unistd.h>

#include <cxxabi.h>

namespace cosparse {

// A thread that asks for the lock of an interpreter that is ending is ended by it (before Python 3.14) as by pthread_exit, whose unwinding may
// not pass a destructor: the process would abort. Such a thread has nothing to come back to, so it waits here for the end of the process.
class WithoutGil {
 public:
  WithoutGil() : thread_(PyEval_SaveThread()) {}
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;
  ~WithoutGil() {
    try {
      PyEval_RestoreThread(thread_);
    } catch (abi::__forced_unwind&) {
      for (;;) ::pause();
    }
  }

 private:
  PyThreadState* thread_;
};

}  // namespace cosparse
