// What generate/lanes_*.inl need, and how a file of kernels is compiled for every instruction set:
//
//   #define MUSICGEN_KERNELS "generate/kernels.inl"
//   #include "generate/every_isa.inl"  // baseline::, avx2:: and avx512::
//
//   const Kernels& kernels_for(Isa isa) { return MUSICGEN_OF(isa, kKernels); }
#pragma once

#include "base/registers.h"
#include "generate/kernels.h"

// Before a loop over an array that is to live in registers: GCC 12 leaves loops with much in them as they are, and an
// array that a variable indexes in memory.
#if defined(__clang__)
#define MUSICGEN_UNROLL MUSICGEN_PRAGMA(unroll)
#elif defined(__GNUC__)
#define MUSICGEN_UNROLL MUSICGEN_PRAGMA(GCC unroll 16)
#else
#define MUSICGEN_UNROLL
#endif

namespace musicgen::generate {

inline void fetch_ahead(const void* p) {
#if defined(__GNUC__)
  __builtin_prefetch(p);
#else
  (void)p;
#endif
}

inline void fetch_near(const void* p) {  // to the second level only
#if defined(__GNUC__)
  __builtin_prefetch(p, 0, 2);
#else
  (void)p;
#endif
}

}  // namespace musicgen::generate
