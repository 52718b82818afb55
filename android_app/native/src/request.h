// The visit that the runner is asked to do: a `VisitRequest` of finet_deploy/bench/protocol.py.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace finet {

// One loop: until it has min_runs AND min_seconds, or meets a cap.
struct Rule {
  std::int64_t min_runs, max_runs;
  double min_seconds, max_seconds;
};

struct Request {
  std::int64_t visit;
  std::string artifact_path, golden_path, format, sha256, timed_input;
  std::vector<std::string> checked_inputs;
  int threads;
  Rule warmup, timed;
};

// Throws Problem for what is no request of schema version 1, or one with impossible values.
Request read_request(const std::string& path);

}  // namespace finet
