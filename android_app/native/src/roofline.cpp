// A matrix product's inner kernel on panels that stay in the first-level cache, and the "triad" of the STREAM
// benchmark on working sets of several sizes. Written with the compiler's vectors, so that one source serves ARM and
// x86; where the processor has wider vectors than the compiler may assume, they are chosen at run time.

#include "roofline.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "files.h"
#include "records.h"
#include "session.h"

#pragma GCC optimize("O3", "fp-contract=fast")

namespace finet {
namespace {

constexpr int kDepth = 256, kRooflineVersion = 1;
// Short, so that a trial fits between two other processes' turns; the best one counts.
constexpr double kTrialSeconds = 0.004;
constexpr int kComputeTrials = 24, kStreamTrials = 8;
constexpr std::size_t kWorkingSets[] = {32u << 10, 128u << 10, 512u << 10, 2u << 20, 8u << 20, 32u << 20, 96u << 20};
constexpr int kThreadLimit = 64;

#define FINET_INLINE inline __attribute__((always_inline))

// acc[Rows][Vectors] += a column of `a` times a row of `b`, kDepth times: the inner loop of every sgemm.
template <int Bytes, int Rows, int Vectors>
FINET_INLINE void product(const float* a, const float* b, float* c) {
  typedef float Vector __attribute__((vector_size(Bytes), aligned(4), may_alias));
  constexpr int kWidth = Bytes / sizeof(float);
  Vector acc[Rows][Vectors];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < Vectors; ++j) acc[i][j] = Vector{};
  }
  for (int k = 0; k < kDepth; ++k) {
    Vector row[Vectors];
#pragma GCC unroll 16
    for (int j = 0; j < Vectors; ++j) {
      row[j] = *reinterpret_cast<const Vector*>(b + (k * Vectors + j) * kWidth);
    }
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 16
      for (int j = 0; j < Vectors; ++j) acc[i][j] += a[k * Rows + i] * row[j];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < Vectors; ++j) *reinterpret_cast<Vector*>(c + (i * Vectors + j) * kWidth) += acc[i][j];
  }
}

FINET_INLINE void triad(float* a, const float* b, const float* c, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) a[i] = b[i] + 3.0f * c[i];
}

struct Kernels {
  const char* name;
  int macs;  // of one product
  int floats_a, floats_b, floats_c;
  void (*product)(const float*, const float*, float*);
  void (*triad)(float*, const float*, const float*, std::size_t);
};

#define FINET_KERNELS(id, text, target_attribute, bytes, rows, vectors)                                      \
  target_attribute void product_##id(const float* a, const float* b, float* c) {                             \
    product<bytes, rows, vectors>(a, b, c);                                                                  \
  }                                                                                                          \
  target_attribute void triad_##id(float* __restrict a, const float* __restrict b, const float* __restrict c, \
                                   std::size_t count) {                                                      \
    triad(a, b, c, count);                                                                                   \
  }                                                                                                          \
  constexpr Kernels kernels_##id = {text,                                                                    \
                                    rows * vectors * (bytes / 4) * kDepth,                                   \
                                    rows * kDepth,                                                           \
                                    vectors * (bytes / 4) * kDepth,                                          \
                                    rows * vectors * (bytes / 4),                                            \
                                    product_##id,                                                            \
                                    triad_##id};

#ifdef __x86_64__
FINET_KERNELS(avx512, "avx512f", __attribute__((target("avx512f,prefer-vector-width=512"))), 64, 12, 2)
FINET_KERNELS(avx2, "avx2, fma", __attribute__((target("avx2,fma"))), 32, 6, 2)
FINET_KERNELS(plain, "sse2", , 16, 4, 2)

const Kernels& kernels() {
  if (__builtin_cpu_supports("avx512f")) return kernels_avx512;
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? kernels_avx2 : kernels_plain;
}
#else
FINET_KERNELS(plain, "neon", , 16, 6, 4)

const Kernels& kernels() { return kernels_plain; }
#endif

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Work per second of `step` (which does `work` of it), on all threads at once: the best of several trials.
template <class Step>
double best_rate(int threads, int trials, double work, Step step) {
  double best = 0;
  for (int trial = 0; trial < trials; ++trial) {
    std::vector<double> rates(static_cast<std::size_t>(threads));
    std::atomic<int> missing{threads};  // all begin together
    const auto run = [&](int thread) {
      --missing;
      while (missing.load() > 0) std::this_thread::yield();
      const double start = seconds();
      double now = start;
      long steps = 0;
      for (; now - start < kTrialSeconds; now = seconds()) {
        step(thread);
        ++steps;
      }
      rates[static_cast<std::size_t>(thread)] = work * static_cast<double>(steps) / (now - start);
    };
    std::vector<std::thread> others;
    for (int thread = 1; thread < threads; ++thread) others.emplace_back(run, thread);
    run(0);
    for (auto& other : others) other.join();
    double sum = 0;
    for (const double rate : rates) sum += rate;
    best = std::max(best, sum);
  }
  return best;
}

double compute_rate(const Kernels& use, int threads) {
  struct Panels {
    std::vector<float> a, b, c;
  };
  std::vector<Panels> panels;
  for (int thread = 0; thread < threads; ++thread) {
    panels.push_back({std::vector<float>(static_cast<std::size_t>(use.floats_a), 1e-3f),
                      std::vector<float>(static_cast<std::size_t>(use.floats_b), 1e-3f),
                      std::vector<float>(static_cast<std::size_t>(use.floats_c))});
  }
  constexpr int kRepeats = 16;
  return best_rate(threads, kComputeTrials, static_cast<double>(use.macs) * kRepeats, [&](int thread) {
    auto& mine = panels[static_cast<std::size_t>(thread)];
    for (int i = 0; i < kRepeats; ++i) use.product(mine.a.data(), mine.b.data(), mine.c.data());
  });
}

double stream_rate(const Kernels& use, int threads, std::size_t bytes) {
  const std::size_t count = bytes / 3 / sizeof(float) / static_cast<std::size_t>(threads);
  std::vector<std::vector<float>> arrays(static_cast<std::size_t>(threads) * 3, std::vector<float>(count, 1.0f));
  const double work = 3.0 * sizeof(float) * static_cast<double>(count);
  return best_rate(threads, kStreamTrials, work, [&](int thread) {
    auto* mine = &arrays[static_cast<std::size_t>(thread) * 3];
    use.triad(mine[0].data(), mine[1].data(), mine[2].data(), count);
  });
}

}  // namespace

void write_roofline(const std::string& path, int threads) {
  if (threads < 1 || threads > kThreadLimit) throw Problem("threads must be 1 to " + std::to_string(kThreadLimit));
  const Kernels& use = kernels();
  Json sets = Json::array();
  const double macs = compute_rate(use, threads);
  for (const std::size_t bytes : kWorkingSets) {
    sets.push_back({{"bytes", bytes}, {"bytes_per_second", stream_rate(use, threads, bytes)}});
  }
  const Json whole = {{"schema_version", kRooflineVersion},
                      {"vectors", use.name},
                      {"threads", threads},
                      {"macs_per_second", macs},
                      {"streams", sets}};
  write_whole(path, whole.dump(1) + "\n");
}

}  // namespace finet
