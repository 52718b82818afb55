// What this core can do at best: multiply-adds per second out of its nearest cache, bytes per second by working set.
#pragma once

#include <string>

namespace finet {

// Measures on `threads` threads at once, about half a second, and writes `path`. Throws Problem.
void write_roofline(const std::string& path, int threads);

}  // namespace finet
