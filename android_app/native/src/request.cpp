#include "request.h"

#include <nlohmann/json.hpp>

#include "files.h"

namespace finet {
namespace {

constexpr std::size_t kMaxRequest = 1 << 20;
constexpr std::int64_t kMaxRuns = 10'000'000, kMaxThreads = 1024, kRequestVersion = 1;
constexpr double kMaxSeconds = 1e7;

using json = nlohmann::ordered_json;  // checked inputs stay in the order of the job

std::int64_t integer(const json& in, const char* name, std::int64_t low, std::int64_t high) {
  const json& value = in.at(name);
  const std::int64_t number = value.is_number_integer() ? value.get<std::int64_t>() : low - 1;
  if (number < low || number > high) throw Problem(std::string("field '") + name + "' is out of range");
  return number;
}

double seconds(const json& in, const char* name) {
  const double number = in.at(name).get<double>();
  if (!(number >= 0 && number <= kMaxSeconds)) throw Problem(std::string("field '") + name + "' is out of range");
  return number;
}

Rule rule(const json& settings, const std::string& loop) {
  return {integer(settings, (loop + "_min_runs").c_str(), 1, kMaxRuns),
          integer(settings, "timed_max_runs", 1, kMaxRuns),
          seconds(settings, (loop + "_min_seconds").c_str()), seconds(settings, (loop + "_max_seconds").c_str())};
}

Request decode(const json& data) {
  integer(data, "schema_version", kRequestVersion, kRequestVersion);
  const json &settings = data.at("settings"), &row = data.at("row"), &golden = row.at("golden");
  Request request;
  request.visit = integer(data.at("visit"), "index", 0, INT64_MAX);
  request.artifact_path = data.at("artifact_path").get<std::string>();
  request.golden_path = data.at("golden_path").get<std::string>();
  request.format = row.at("artifact").at("format").get<std::string>();
  request.sha256 = row.at("artifact").at("sha256").get<std::string>();
  request.timed_input = golden.at("timed_input").get<std::string>();
  for (const auto& item : golden.at("output_limits").items()) request.checked_inputs.push_back(item.key());
  request.threads = static_cast<int>(integer(row, "threads", 1, kMaxThreads));
  request.warmup = rule(settings, "warmup");
  request.timed = rule(settings, "timed");
  return request;
}

}  // namespace

Request read_request(const std::string& path) {
  const json data = json::parse(read_bounded(path, kMaxRequest), nullptr, /*allow_exceptions=*/false);
  try {
    if (!data.is_object()) throw Problem("not a JSON object");
    return decode(data);
  } catch (const json::exception& error) {
    throw Problem("not a visit request: " + first_line(error.what()) + " [" + path + "]");
  } catch (const Problem& problem) {
    throw Problem("not a visit request: " + std::string(problem.what()) + " [" + path + "]");
  }
}

}  // namespace finet
