#pragma once

#include <string>

#include "records.h"
#include "request.h"

namespace finet {

struct Options {
  bool mark = false;         // counting under emulation: a no-op instruction around each timed call
  std::string outputs_path;  // where to write the outputs of all golden inputs; empty: nowhere
  std::string profile_path;  // where to write what the runtime tells of its timed calls; empty: not profiled
  bool virtual_clock = false;  // counting under emulation: profiled on a clock that takes snapshots
};

// All phases of one visit, each written as soon as it is over. Throws Problem, and what the runtimes throw.
void run_visit(const Request& request, const Options& options, Records& records);

}  // namespace finet
