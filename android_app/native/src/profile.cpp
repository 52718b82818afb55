#include "profile.h"

#include <dlfcn.h>

#include "files.h"
#include "records.h"
#include "session.h"

namespace finet {
namespace {

constexpr int kProfileVersion = 1;

template <class Function>
Function* clock_function(const char* name) {
  void* found = dlsym(RTLD_DEFAULT, name);
  if (found == nullptr) throw Problem("libfinet_clock.so is not loaded: start the runner by its run.sh");
  return reinterpret_cast<Function*>(found);
}

}  // namespace

Profile::Profile(const std::string& path, bool virtual_clock) : path_(path), virtual_(virtual_clock) {
  if (path.empty()) return;
  mode_ = clock_function<void(int)>("finet_clock_mode");
  take_ = clock_function<std::size_t(const FinetClockReading**, std::size_t*)>("finet_clock_readings");
  // From the start: a runtime's events are relative to a reading that it takes when it loads the file.
  if (virtual_) mode_(FINET_CLOCK_VIRTUAL);
}

void Profile::begin() {
  if (path_.empty()) return;
  trace_.spans.clear();  // of the warm-up; ONNX Runtime gives all of its spans at the end
  mode_(virtual_ ? FINET_CLOCK_VIRTUAL : FINET_CLOCK_RECORD);  // and what was read before is forgotten
}

void Profile::end() {
  if (path_.empty()) return;
  const FinetClockReading* readings = nullptr;
  std::size_t dropped = 0;
  const std::size_t count = take_(&readings, &dropped);
  if (dropped > 0) throw Problem("more clock readings than there is room for: profile fewer runs");
  readings_.assign(readings, readings + count);
  if (!virtual_) mode_(FINET_CLOCK_PLAIN);
}

void Profile::write(const std::vector<std::int64_t>& begins_ns, const std::vector<std::int64_t>& latencies_ns) {
  Json kinds = Json::array(), spans = Json::array(), calls = Json::array(),
       readings = Json::array();
  for (const auto& kind : trace_.kinds) {
    kinds.push_back({{"name", kind.name},
                     {"in_delegate", kind.in_delegate},
                     {"instruction", kind.instruction},
                     {"details", kind.details.empty() ? Json(nullptr) : Json::parse(kind.details)}});
  }
  for (const auto& span : trace_.spans) spans.push_back({span.kind, span.begin, span.end});
  for (std::size_t i = 0; i < begins_ns.size(); ++i) {
    calls.push_back({begins_ns[i], begins_ns[i] + latencies_ns[i]});
  }
  for (const auto& reading : readings_) readings.push_back({reading.clock, reading.ns});
  const Json whole = {{"schema_version", kProfileVersion},
                      {"virtual_clock", virtual_},
                      {"unit_ns", trace_.unit_ns},
                      {"origin_ns", trace_.origin_ns},
                      {"kinds", kinds},
                      {"spans", spans},
                      {"calls_ns", calls},
                      {"readings", readings}};
  write_whole(path_, whole.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace finet
