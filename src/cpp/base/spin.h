// Waiting for another thread without going to sleep.
#pragma once

#include "base/target.h"

#if MUSICGEN_X86
#include <immintrin.h>
#endif

namespace musicgen {

// Tells the processor that this thread only waits.
inline void breathe() {
#if MUSICGEN_X86
  _mm_pause();
#elif MUSICGEN_ARM64 && defined(__GNUC__)
  __asm__ volatile("yield");
#endif
}

}  // namespace musicgen
