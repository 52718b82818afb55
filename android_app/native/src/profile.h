// A profiled visit: the runtime's own events of the timed calls, and every reading of the clock in them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "clock.h"
#include "trace.h"

namespace finet {

class Profile {
 public:
  // With an empty path nothing is profiled. Throws Problem when the clock of clock.h is not loaded.
  Profile(const std::string& path, bool virtual_clock);

  // Where the runtime puts its events; null when nothing is profiled.
  Trace* trace() { return path_.empty() ? nullptr : &trace_; }
  // Around the timed calls.
  void begin();
  void end();
  // `path`, whole: kinds, spans that ended in the timed calls, the calls themselves, the clock's readings.
  void write(const std::vector<std::int64_t>& begins_ns, const std::vector<std::int64_t>& latencies_ns);

 private:
  std::string path_;
  bool virtual_;
  Trace trace_;
  std::vector<FinetClockReading> readings_;
  void (*mode_)(int) = nullptr;
  std::size_t (*take_)(const FinetClockReading**, std::size_t*) = nullptr;
};

}  // namespace finet
