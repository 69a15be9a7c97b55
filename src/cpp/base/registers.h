// What base/registers_*.inl need, and how a file of kernels is compiled for every instruction set:
//
//   #define MUSICGEN_KERNELS "audio/match.inl"
//   #include "base/every_isa.inl"  // baseline::, avx2:: and avx512::
//
//   const Kernels& kernels_for(Isa isa) { return MUSICGEN_OF(isa, kKernels); }
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "base/cpu.h"
#include "base/target.h"

#if MUSICGEN_X86
#include <immintrin.h>
#elif MUSICGEN_ARM64
#include <arm_neon.h>
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define MUSICGEN_ALWAYS_INLINE
#define MUSICGEN_NOINLINE __declspec(noinline)
#define __builtin_memcpy std::memcpy
#define __builtin_inff() std::numeric_limits<float>::infinity()
#define __builtin_sqrt std::sqrt
#else
#define MUSICGEN_ALWAYS_INLINE __attribute__((always_inline))
#define MUSICGEN_NOINLINE __attribute__((noinline))
#endif

// What the namespace of an instruction set calls `name`.
#if MUSICGEN_X86
#define MUSICGEN_OF(isa, name) ((isa) == Isa::avx512 ? avx512::name : (isa) == Isa::avx2 ? avx2::name : baseline::name)
#else
#define MUSICGEN_OF(isa, name) (static_cast<void>(isa), baseline::name)
#endif
