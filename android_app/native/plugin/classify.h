// Which kind of work an A64 instruction word is. Encodings: Arm Architecture Reference Manual for A-profile, C4.
#pragma once

#include <stdint.h>

// Each instruction is in one class; the sum of the classes is all instructions.
enum InsnClass {
  CLASS_FMA,      // vector multiply-add: FMLA, FMLS (half, single, double; by vector and by element)
  CLASS_DOT,      // dot products and 2x2 matrix products of bytes, halves and bfloat16
  CLASS_SIMD,     // other SIMD and floating point, scalar multiply-adds among them
  CLASS_LOAD,     // reads memory; read-modify-write too. A pair or a structure is one instruction
  CLASS_STORE,    // writes memory only
  CLASS_BRANCH,   // branches, calls, returns, exceptions and system instructions
  CLASS_INTEGER,  // data processing on general registers, and prefetches
  CLASS_SVE,      // SVE and SME
  CLASS_COUNT,
};

static const char *const class_names[CLASS_COUNT] = {"fma",   "dot",    "simd",    "load",
                                                     "store", "branch", "integer", "sve"};

static inline int is_fma(uint32_t w) {
  const uint32_t vector = w & 0xbfa0fc00u, element = w & 0xbf80b400u;
  return vector == 0x0e20cc00u || vector == 0x0ea0cc00u         // FMLA, FMLS Vd.(2S|4S|2D)
         || (w & 0xbf60fc00u) == 0x0e400c00u                    // FMLA, FMLS Vd.(4H|8H)
         || element == 0x0f801000u                              // FMLA, FMLS by element, single and double
         || (w & 0xbfc0b400u) == 0x0f001000u;                   // by element, half
}

static inline int is_dot(uint32_t w) {
  return (w & 0x9f20fc00u) == 0x0e009400u      // SDOT, UDOT
         || (w & 0xbf20fc00u) == 0x0e009c00u   // USDOT
         || (w & 0x9f00f400u) == 0x0f00e000u   // SDOT, UDOT by element
         || (w & 0xbf00f400u) == 0x0f00f000u   // USDOT, SUDOT, BFDOT (and BFMLAL) by element
         || (w & 0x9f20f400u) == 0x0e00a400u   // SMMLA, UMMLA, USMMLA
         || (w & 0xbfe0ec00u) == 0x2e40ec00u;  // BFMMLA, BFDOT
}

// Loads and stores: bits 28..25 are x1x0.
static inline enum InsnClass memory_class(uint32_t w) {
  const uint32_t group = w >> 27 & 7, vector = w >> 26 & 1, opc = w >> 22 & 3;
  if (group == 3 && (w >> 24 & 1) == 0) {  // literal: always a load, or PRFM
    return !vector && (w >> 30) == 3 ? CLASS_INTEGER : CLASS_LOAD;
  }
  if (group == 3 && (w >> 24 & 1) == 1 && !vector && (w >> 21 & 1) == 0) {  // LDAPUR, STLUR: opc as below
    return opc == 0 ? CLASS_STORE : CLASS_LOAD;
  }
  if (group == 7) {  // one register
    if (vector) return opc & 1 ? CLASS_LOAD : CLASS_STORE;  // opc 2 is STR Qt
    const int offset_form = (w >> 24 & 1) == 0 && (w >> 21 & 1);
    if (offset_form && (w >> 10 & 3) != 2) return CLASS_LOAD;  // LDADD, SWP, ...; LDRAA
    if (opc == 0) return CLASS_STORE;
    return opc == 2 && (w >> 30) == 3 ? CLASS_INTEGER : CLASS_LOAD;  // opc 2 with size 3 is PRFM
  }
  if ((w & 0x3fa07c00u) == 0x08a07c00u) return CLASS_LOAD;  // CAS: bit 22 is its acquire
  return w >> 22 & 1 ? CLASS_LOAD : CLASS_STORE;  // pairs, structures, exclusives: the L bit
}

static inline enum InsnClass classify(uint32_t w) {
  const uint32_t op0 = w >> 25 & 15;
  if (op0 == 2 || (op0 == 0 && w >> 31)) return CLASS_SVE;
  if ((op0 & 5) == 4) return memory_class(w);
  if ((op0 & 14) == 10) return CLASS_BRANCH;
  if ((op0 & 7) == 7) return is_fma(w) ? CLASS_FMA : is_dot(w) ? CLASS_DOT : CLASS_SIMD;
  return CLASS_INTEGER;
}
