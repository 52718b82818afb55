// What the machine is doing, as far as it can be read without root. What cannot be read is null with a reason.
#pragma once

#include <nlohmann/json.hpp>

namespace finet {

using Json = nlohmann::ordered_json;

Json device_state();
Json affinity_cpus();
Json peak_rss_mib();
Json os_threads();

}  // namespace finet
