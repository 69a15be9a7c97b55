// Which machine are we compiled for, and how one source file holds code for several instruction sets.
//
// Code between MUSICGEN_BEGIN_AVX2 (or _AVX512) and MUSICGEN_END_TARGET is compiled for that instruction set, the rest
// of the file for the baseline. Put nothing from the standard library between them: the linker keeps one copy of an
// inline function, and it might keep the wrong one.
#pragma once

#if defined(__x86_64__) || defined(_M_X64)
#define MUSICGEN_X86 1
#else
#define MUSICGEN_X86 0
#endif

#if defined(__aarch64__) || defined(_M_ARM64)
#define MUSICGEN_ARM64 1
#else
#define MUSICGEN_ARM64 0
#endif

#define MUSICGEN_PRAGMA(x) _Pragma(#x)

#if MUSICGEN_X86
#if defined(__clang__)
#define MUSICGEN_BEGIN_TARGET_(isa) \
  MUSICGEN_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define MUSICGEN_END_TARGET MUSICGEN_PRAGMA(clang attribute pop)
#elif defined(__GNUC__)
#define MUSICGEN_BEGIN_TARGET_(isa) MUSICGEN_PRAGMA(GCC push_options) MUSICGEN_PRAGMA(GCC target(isa))
#define MUSICGEN_END_TARGET MUSICGEN_PRAGMA(GCC pop_options)
#else  // MSVC compiles every intrinsic anywhere
#define MUSICGEN_BEGIN_TARGET_(isa)
#define MUSICGEN_END_TARGET
#endif
#define MUSICGEN_BEGIN_AVX2 MUSICGEN_BEGIN_TARGET_("avx2,fma")
#define MUSICGEN_BEGIN_AVX512 MUSICGEN_BEGIN_TARGET_("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif
