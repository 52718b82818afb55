#include "probes.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "files.h"

namespace finet {
namespace {

constexpr std::size_t kMaxProbe = 1 << 20;
const std::string kCpus = "/sys/devices/system/cpu";

// The protocol's Reading: what `probe` returns, or why it failed.
template <class Probe>
Json reading(Probe probe) {
  try {
    return {{"value", probe()}, {"reason", nullptr}};
  } catch (const Problem& problem) {
    return {{"value", nullptr}, {"reason", problem.what()}};
  } catch (const std::logic_error&) {  // std::stod and friends
    return {{"value", nullptr}, {"reason", "not a number"}};
  }
}

std::string text(const std::string& path) {
  std::string data = read_bounded(path, kMaxProbe);
  const auto blank = [](unsigned char c) { return c <= ' '; };
  data.erase(std::find_if_not(data.rbegin(), data.rend(), blank).base(), data.end());
  data.erase(data.begin(), std::find_if_not(data.begin(), data.end(), blank));
  return data;
}

double number(const std::string& path) { return std::stod(text(path)); }

std::vector<std::string> listed(const std::string& folder, const std::string& prefix) {
  std::vector<std::string> names;
  if (DIR* stream = opendir(folder.c_str())) {
    while (const dirent* entry = readdir(stream)) {
      const std::string name = entry->d_name;
      if (name.rfind(prefix, 0) == 0 && name[0] != '.') names.push_back(folder + "/" + name);
    }
    closedir(stream);
  }
  std::sort(names.begin(), names.end());
  return names;
}

// By opening it: an emulator redirects that, and not access(). What exists and may not be read counts as there.
bool exists(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd >= 0) close(fd);
  return fd >= 0 || errno == EACCES;
}

// The files `leaf` of all CPUs, by name.
std::vector<std::string> of_cpus(const std::string& leaf) {
  std::vector<std::string> found;
  for (const auto& cpu : listed(kCpus, "cpu")) {
    const char digit = cpu[kCpus.size() + 4];
    if (digit >= '0' && digit <= '9' && exists(cpu + leaf)) found.push_back(cpu + leaf);
  }
  return found;
}

// Values of the lines `name: value`.
std::vector<std::string> fields(const std::string& path, const std::string& name) {
  const std::string data = text(path) + "\n";
  std::vector<std::string> found;
  for (std::size_t at = 0, end; (end = data.find('\n', at)) != std::string::npos; at = end + 1) {
    const std::string line = data.substr(at, end - at);
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::size_t last = line.find_last_not_of(" \t", colon == 0 ? 0 : colon - 1);
    if (last == std::string::npos || line.substr(0, last + 1) != name) continue;
    const std::size_t start = line.find_first_not_of(" \t", colon + 1);
    found.push_back(start == std::string::npos ? "" : line.substr(start));
  }
  if (found.empty()) throw Problem("no field '" + name + "': " + path);
  return found;
}

std::string governors() {
  std::set<std::string> names;
  for (const auto& file : of_cpus("/cpufreq/scaling_governor")) names.insert(text(file));
  if (names.empty()) throw Problem("no cpufreq: the frequency is set outside this system");
  std::string joined;
  for (const auto& name : names) joined += (joined.empty() ? "" : ", ") + name;
  return joined;
}

std::vector<double> frequencies() {
  std::vector<double> found;
  for (const auto& file : of_cpus("/cpufreq/scaling_cur_freq")) found.push_back(number(file) / 1000);
  if (found.empty()) {
    for (const auto& value : fields("/proc/cpuinfo", "cpu MHz")) found.push_back(std::stod(value));
  }
  return found;
}

// Phones have dozens of zones, some of which refuse to be read at times: the others count.
Json temperatures() {
  Json found = Json::object();
  std::string refused = "no thermal zones";
  for (const auto& zone : listed("/sys/class/thermal", "thermal_zone")) {
    try {
      found[zone.substr(zone.rfind('/') + 1) + " " + text(zone + "/type")] = number(zone + "/temp") / 1000;
    } catch (const std::exception& error) {
      refused = error.what();
    }
  }
  if (found.empty()) throw Problem(refused);
  return found;
}

std::string battery() {
  for (const auto& supply : listed("/sys/class/power_supply", "")) {
    if (exists(supply + "/capacity")) return supply;
  }
  throw Problem("no battery");
}

bool charging() {
  const std::string status = text(battery() + "/status");
  return status == "Charging" || status == "Full";
}

}  // namespace

Json device_state() {
  const auto for_apps = [] { return Json{{"value", nullptr}, {"reason", "Android tells it to apps alone"}}; };
  const auto available = [] { return std::stoll(fields("/proc/meminfo", "MemAvailable")[0]) / 1024; };
  return {
      {"load_average_1min", reading([] { return number("/proc/loadavg"); })},
      {"governor", reading(governors)},
      {"frequencies_mhz", reading(frequencies)},
      {"memory_available_mib", reading(available)},
      {"temperatures_celsius", reading(temperatures)},
      {"battery_percent", reading([] { return number(battery() + "/capacity"); })},
      {"battery_charging", reading(charging)},
      {"thermal_status", for_apps()},
      {"thermal_headroom", for_apps()},
      {"sustained_performance", {{"value", nullptr}, {"reason", "a mode of an app's window"}}},
  };
}

Json affinity_cpus() {
  return reading([] {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) throw Problem(system_error("sched_getaffinity"));
    std::vector<int> cpus;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
    }
    return cpus;
  });
}

Json peak_rss_mib() {
  return reading([] { return std::stod(fields("/proc/self/status", "VmHWM")[0]) / 1024; });
}

Json os_threads() {
  return reading([] { return std::stoll(fields("/proc/self/status", "Threads")[0]); });
}

}  // namespace finet
