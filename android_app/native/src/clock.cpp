// `libfinet_clock.so`, preloaded into a profiled visit: see clock.h.

#include "clock.h"

#include <dlfcn.h>
#include <pthread.h>
#include <time.h>

#include <atomic>

namespace {

constexpr std::size_t kRoom = 1 << 20;
constexpr std::int64_t kTickNs = 1'000'000, kSecondNs = 1'000'000'000;

FinetClockReading* kept = nullptr;
std::size_t count = 0, dropped_count = 0;
std::int64_t ticks = 0;
std::atomic<int> mode{FINET_CLOCK_PLAIN};
pthread_t owner;

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

int system_clock_gettime(clockid_t id, timespec* out) {
  static const auto found = next<int(clockid_t, timespec*)>("clock_gettime");
  return found(id, out);
}

inline void snapshot() {
#ifdef __aarch64__
  asm volatile("hint #0x36" ::: "memory");
#endif
}

void keep(std::int64_t clock, std::int64_t ns) {
  if (count < kRoom) {
    kept[count++] = {clock, ns};
  } else {
    ++dropped_count;
  }
}

// What the clock says, kept when the calling thread is the one that is profiled. `label` is 0 for a reading that was
// asked for.
int read(clockid_t id, timespec* out, std::int64_t label) {
  const int now = mode.load(std::memory_order_relaxed);
  const bool ours = now != FINET_CLOCK_PLAIN && pthread_equal(pthread_self(), owner);
  if (ours && now == FINET_CLOCK_VIRTUAL) {
    snapshot();
    const std::int64_t ns = ++ticks * kTickNs;
    out->tv_sec = ns / kSecondNs;
    out->tv_nsec = ns % kSecondNs;
  } else if (const int status = system_clock_gettime(id, out); status != 0) {
    return status;
  }
  if (ours) keep(label == 0 ? id : label, out->tv_sec * kSecondNs + out->tv_nsec);
  return 0;
}

void note(std::int64_t label) {
  timespec now;
  if (mode.load(std::memory_order_relaxed) != FINET_CLOCK_PLAIN) read(CLOCK_MONOTONIC, &now, label);
}

}  // namespace

#define FINET_EXPORT extern "C" __attribute__((visibility("default")))

FINET_EXPORT int clock_gettime(clockid_t id, timespec* out) noexcept { return read(id, out, 0); }

// std::ios_base's constructor and destructor, by their names in the C++ ABI. While ONNX Runtime profiles it writes
// the shapes of a node's inputs and outputs as text, inside the time that it gives for the node and longer than a
// small node takes. The texts stand before and after the kernel's own work: their ends bound it.
FINET_EXPORT void _ZNSt8ios_baseC2Ev(void* self) {
  static const auto found = next<void(void*)>("_ZNSt8ios_baseC2Ev");
  note(FINET_CLOCK_STREAM_BEGIN);
  found(self);
}

FINET_EXPORT void _ZNSt8ios_baseD2Ev(void* self) {
  static const auto found = next<void(void*)>("_ZNSt8ios_baseD2Ev");
  found(self);
  note(FINET_CLOCK_STREAM_END);
}

FINET_EXPORT void finet_clock_mode(int wanted) {
  timespec now;
  system_clock_gettime(CLOCK_MONOTONIC, &now);  // looked up now, not inside a timed call
  mode = FINET_CLOCK_PLAIN;
  if (kept == nullptr && wanted != FINET_CLOCK_PLAIN) kept = new FinetClockReading[kRoom];
  count = dropped_count = 0;
  owner = pthread_self();
  mode = wanted;
}

FINET_EXPORT std::size_t finet_clock_readings(const FinetClockReading** readings, std::size_t* dropped) {
  *readings = kept;
  *dropped = dropped_count;
  return count;
}
