// SHA-256 after FIPS 180-4. Written out because no header-only library of it is packaged for both targets. Cores of
// the last years have instructions for it: a visit of a 23 MB file starts a tenth of a second earlier with them.

#include "sha256.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#include <sys/auxv.h>
#endif

#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "files.h"

namespace finet {
namespace {

constexpr std::array<std::uint32_t, 64> kRound = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

std::uint32_t rotate(std::uint32_t x, int n) { return x >> n | x << (32 - n); }

using State = std::array<std::uint32_t, 8>;

void add_blocks_plain(State& state, const unsigned char* data, std::size_t blocks) {
  for (; blocks > 0; --blocks, data += 64) {
    std::uint32_t w[64];
    for (int i = 0; i < 16; ++i) {
      std::uint32_t word;
      std::memcpy(&word, data + 4 * i, 4);
      w[i] = __builtin_bswap32(word);
    }
    for (int i = 16; i < 64; ++i) {
      const std::uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
      const std::uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    auto [a, b, c, d, e, f, g, h] = state;
    for (int i = 0; i < 64; ++i) {
      const std::uint32_t s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
      const std::uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + kRound[i] + w[i];
      const std::uint32_t s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
      const std::uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
      h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    const State added = {a, b, c, d, e, f, g, h};
    for (int i = 0; i < 8; ++i) state[i] += added[i];
  }
}

#if defined(__x86_64__)

bool has_instructions() {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
}

// Four rounds a step; the state is held as ABEF and CDGH (Intel SHA Extensions, 2013).
__attribute__((target("sha,sse4.1"))) void add_blocks_fast(State& state, const unsigned char* data, std::size_t blocks) {
  const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  __m128i half = _mm_shuffle_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(&state[0])), 0xb1);
  __m128i s1 = _mm_shuffle_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(&state[4])), 0x1b);
  __m128i s0 = _mm_alignr_epi8(half, s1, 8);
  s1 = _mm_blend_epi16(s1, half, 0xf0);
  for (; blocks > 0; --blocks, data += 64) {
    const __m128i before0 = s0, before1 = s1;
    __m128i w[4];
    for (int i = 0; i < 16; ++i) {
      __m128i& word = w[i % 4];
      const __m128i last = w[(i + 3) % 4];
      if (i < 4) {
        word = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(data + 16 * i)), swap);
      } else {
        const __m128i sum =
            _mm_add_epi32(_mm_sha256msg1_epu32(word, w[(i + 1) % 4]), _mm_alignr_epi8(last, w[(i + 2) % 4], 4));
        word = _mm_sha256msg2_epu32(sum, last);
      }
      const __m128i x = _mm_add_epi32(word, _mm_loadu_si128(reinterpret_cast<const __m128i*>(&kRound[4 * i])));
      s1 = _mm_sha256rnds2_epu32(s1, s0, x);
      s0 = _mm_sha256rnds2_epu32(s0, s1, _mm_shuffle_epi32(x, 0x0e));
    }
    s0 = _mm_add_epi32(s0, before0);
    s1 = _mm_add_epi32(s1, before1);
  }
  half = _mm_shuffle_epi32(s0, 0x1b);
  s1 = _mm_shuffle_epi32(s1, 0xb1);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(&state[0]), _mm_blend_epi16(half, s1, 0xf0));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(&state[4]), _mm_alignr_epi8(s1, half, 8));
}

#elif defined(__aarch64__)

bool has_instructions() { return getauxval(AT_HWCAP) & 1 << 6; }  // HWCAP_SHA2

__attribute__((target("+crypto"))) void add_blocks_fast(State& state, const unsigned char* data, std::size_t blocks) {
  uint32x4_t s0 = vld1q_u32(&state[0]), s1 = vld1q_u32(&state[4]);
  for (; blocks > 0; --blocks, data += 64) {
    const uint32x4_t before0 = s0, before1 = s1;
    uint32x4_t w[4];
    for (int i = 0; i < 16; ++i) {
      uint32x4_t& word = w[i % 4];
      if (i < 4) {
        word = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(data + 16 * i)));
      } else {
        word = vsha256su1q_u32(vsha256su0q_u32(word, w[(i + 1) % 4]), w[(i + 2) % 4], w[(i + 3) % 4]);
      }
      const uint32x4_t x = vaddq_u32(word, vld1q_u32(&kRound[4 * i])), old = s0;
      s0 = vsha256hq_u32(s0, s1, x);
      s1 = vsha256h2q_u32(s1, old, x);
    }
    s0 = vaddq_u32(s0, before0);
    s1 = vaddq_u32(s1, before1);
  }
  vst1q_u32(&state[0], s0);
  vst1q_u32(&state[4], s1);
}

#endif

void add_blocks(State& state, const unsigned char* data, std::size_t blocks) {
  static const bool fast = has_instructions();
  fast ? add_blocks_fast(state, data, blocks) : add_blocks_plain(state, data, blocks);
}

}  // namespace

std::string sha256_file(const std::string& path) {
  State state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  File file(path);
  std::vector<unsigned char> buffer(1 << 20);  // a multiple of the block
  std::uint64_t total = 0;
  std::size_t have = 0;
  do {
    have = file.read(buffer.data(), buffer.size());
    total += have;
    add_blocks(state, buffer.data(), have / 64);
  } while (have == buffer.size());
  unsigned char tail[128] = {};
  const std::size_t rest = have % 64;
  if (rest) std::memcpy(tail, &buffer[have - rest], rest);
  tail[rest] = 0x80;
  const std::size_t size = rest < 56 ? 64 : 128;
  const std::uint64_t bits = __builtin_bswap64(8 * total);
  std::memcpy(tail + size - 8, &bits, 8);
  add_blocks(state, tail, size / 64);
  std::string text;
  for (const std::uint32_t word : state) {
    for (int shift = 28; shift >= 0; shift -= 4) text += "0123456789abcdef"[word >> shift & 15];
  }
  return text;
}

}  // namespace finet
