// One visit, phase by phase, as finet_deploy/devices/worker.py does it.

#include "visit.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <map>

#include "golden.h"
#include "profile.h"
#include "sha256.h"

namespace finet {
namespace {

constexpr std::size_t kBatch = 1000;

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

std::string utc() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  tm parts{};
  gmtime_r(&now.tv_sec, &parts);
  char date[32], whole[64];
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(whole, sizeof whole, "%s.%03ld+00:00", date, now.tv_nsec / 1'000'000);
  return whole;
}

// `hint #0x35` does nothing on any core; the counting plugin takes a snapshot of its counters there.
inline void mark() {
#ifdef __aarch64__
  asm volatile("hint #0x35" ::: "memory");
#endif
}

struct Timing {
  std::vector<std::int64_t> latencies_ns;
  std::vector<std::int64_t> begins_ns;  // empty unless they were to be kept
  const char* stopped_by;
};

// Latencies of repeated `call()`, until there are min_runs AND min_seconds, or a cap is met. Storage exists
// before the first run; between the two clock readings stands the call alone.
template <class Call>
Timing timing_loop(const Rule& rule, bool keep_begins, Call call) {
  std::vector<std::int64_t> latencies(static_cast<std::size_t>(rule.max_runs));
  std::vector<std::int64_t> begins(keep_begins ? latencies.size() : 0);
  std::int64_t count = 0;
  const std::int64_t begin = now_ns();
  const std::int64_t enough = begin + static_cast<std::int64_t>(rule.min_seconds * 1e9);
  const std::int64_t limit = begin + static_cast<std::int64_t>(rule.max_seconds * 1e9);
  const char* stopped = "max_runs";
  while (count < rule.max_runs) {
    const std::int64_t before = now_ns();
    call();
    const std::int64_t after = now_ns();
    if (keep_begins) begins[static_cast<std::size_t>(count)] = before;
    latencies[static_cast<std::size_t>(count++)] = after - before;
    if (after >= enough && count >= rule.min_runs) {
      stopped = "minimum";
      break;
    }
    if (after >= limit) {
      stopped = "max_seconds";
      break;
    }
  }
  latencies.resize(static_cast<std::size_t>(count));
  begins.resize(keep_begins ? latencies.size() : 0);
  return {std::move(latencies), std::move(begins), stopped};
}

double total_ms(const Timing& timing) {
  std::int64_t total = 0;
  for (const auto latency : timing.latencies_ns) total += latency;
  return static_cast<double>(total) / 1e6;
}

Session* load(const Request& request, Trace* trace, const std::string& scratch, Records& records) {
  const std::int64_t before = now_ns();
  const OpenSession open = import_runtime(request.format);
  const std::int64_t imported = now_ns();
  Session* session = open(request.artifact_path.c_str(), request.threads, trace, scratch.c_str());
  const std::int64_t opened = now_ns();
  records.write("load", {{"runtime", session->runtime},
                         {"runtime_version", session->version},
                         {"threads", session->threads},
                         {"import_ms", static_cast<double>(imported - before) / 1e6},
                         {"load_ms", static_cast<double>(opened - imported) / 1e6}});
  return session;
}

// Runtimes do not check their input: one that is too small is read beyond its end.
void bind(Session& session, const Input& input) {
  if (!session.input_shape.empty() && session.input_shape != input.shape) {
    throw Problem("input has shape " + to_text(input.shape) + ", this file takes " + to_text(session.input_shape) +
                  "; export the bundle again");
  }
  session.bind(input.data.get(), input.shape);
}

// Raw little-endian fp32, one output after another, and an index beside them.
void write_outputs(const std::string& path, const std::map<std::string, Output>& outputs) {
  std::string data;
  Json index = Json::array();
  for (const auto& [name, output] : outputs) {
    const std::size_t bytes = output.values.size() * sizeof(float);
    index.push_back({{"name", name}, {"shape", output.shape}, {"offset", data.size()}, {"bytes", bytes}});
    data.append(reinterpret_cast<const char*>(output.values.data()), bytes);
  }
  write_whole(path, data);
  const Json whole = {{"schema_version", 1}, {"dtype", "float32"}, {"byte_order", "little"}, {"outputs", index}};
  write_whole(path + ".json", whole.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
}

// Norm-relative error of each checked output; null where it cannot be compared.
Json output_errors(Session& session, GoldenFile& golden, const Request& request, const Options& options) {
  std::map<std::string, Output> outputs;
  const auto run = [&](const std::string& name) -> const Output& {
    const auto known = outputs.find(name);
    if (known != outputs.end()) return known->second;
    const Input input = golden.input(name);
    bind(session, input);
    session.call();
    return outputs[name] = session.output();
  };
  Json errors = Json::object();
  for (const auto& name : request.checked_inputs) {
    const auto error = relative_error(run(name), golden.output(name));
    errors[name] = error ? Json(*error) : Json(nullptr);
  }
  if (!options.outputs_path.empty()) {
    for (const auto& name : golden.inputs()) run(name);
    write_outputs(options.outputs_path, outputs);
  }
  return errors;
}

void write_samples(const std::vector<std::int64_t>& latencies, Records& records) {
  for (std::size_t first = 0; first < latencies.size(); first += kBatch) {
    const std::size_t last = std::min(first + kBatch, latencies.size());
    records.write("samples",
                  {{"latencies_ns", std::vector<std::int64_t>(&latencies[first], &latencies[first] + (last - first))}});
  }
}

std::string start(const Request& request, Records& records) {
  const std::string sha256 = sha256_file(request.artifact_path);
  records.write("start", {{"started_utc", utc()},
                          {"pid", getpid()},
                          {"runner", FINET_RUNNER},
                          {"affinity_cpus", affinity_cpus()},
                          {"artifact_sha256", sha256},
                          {"state", device_state()}});
  return sha256;
}

}  // namespace

void run_visit(const Request& request, const Options& options, Records& records) {
  records.enter("start");
  const std::string sha256 = start(request, records);
  records.enter("load");
  if (sha256 != request.sha256) {  // before a runtime sees it: a damaged file can crash one
    throw Problem("another file than the job names (SHA-256 differs) [" + request.artifact_path +
                  "]; copy the bundle again");
  }
  GoldenFile golden(request.golden_path);
  const Input timed = golden.input(request.timed_input);
  Profile profile(options.profile_path, options.virtual_clock);
  Session& session = *load(request, profile.trace(), options.profile_path + ".runtime", records);
  records.enter("first");
  bind(session, timed);
  const std::int64_t before = now_ns();
  session.call();
  records.write("first", {{"first_ms", static_cast<double>(now_ns() - before) / 1e6}});
  records.enter("warmup");
  const Timing warmup = timing_loop(request.warmup, false, [&] { session.call(); });
  records.write("warmup", {{"runs", warmup.latencies_ns.size()}, {"total_ms", total_ms(warmup)}});
  records.enter("timing");
  const auto marked = [&] { mark(), session.call(), mark(); };
  profile.begin();
  const bool profiled = profile.trace() != nullptr;
  const Timing timing = options.mark ? timing_loop(request.timed, profiled, marked)
                                     : timing_loop(request.timed, profiled, [&] { session.call(); });
  profile.end();
  write_samples(timing.latencies_ns, records);
  if (profiled) {
    session.finish_trace();
    profile.write(timing.begins_ns, timing.latencies_ns);
  }
  records.enter("check");
  const Json errors = output_errors(session, golden, request, options);
  records.write("end", {{"ended_utc", utc()},
                        {"runs", timing.latencies_ns.size()},
                        {"total_ms", total_ms(timing)},
                        {"stopped_by", timing.stopped_by},
                        {"peak_rss_mib", peak_rss_mib()},
                        {"os_threads", os_threads()},
                        {"output_errors", errors},
                        {"state", device_state()}});
}

}  // namespace finet
