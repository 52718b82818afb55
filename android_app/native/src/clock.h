// The library that stands before the system's clock in a profiled visit, so that every reading that the runtimes take
// is known: XNNPACK and ONNX Runtime tell whole microseconds only, and many operators take one or two.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

enum FinetClockMode : int {
  FINET_CLOCK_PLAIN = 0,   // the system's clock
  FINET_CLOCK_RECORD = 1,  // the same, and each reading of the calling thread is kept
  // Each reading is one millisecond after the last, and `hint #0x36` is executed there: under emulation the counting
  // plugin takes a snapshot, and a reading tells which one. Readings are kept, too.
  FINET_CLOCK_VIRTUAL = 2,
};

// From now on, for the thread that calls; forgets what was kept.
void finet_clock_mode(int mode);

// `clock` of a reading that nobody asked for, on the monotonic clock: a text stream came into being, or went.
constexpr std::int64_t FINET_CLOCK_STREAM_BEGIN = -1, FINET_CLOCK_STREAM_END = -2;

struct FinetClockReading {
  std::int64_t clock;  // CLOCK_REALTIME, CLOCK_MONOTONIC, ... or one of the above
  std::int64_t ns;
};

// The readings that were kept; `dropped` is how many there was no room for.
std::size_t finet_clock_readings(const FinetClockReading** readings, std::size_t* dropped);
}
