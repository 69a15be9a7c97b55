#include "base/cpu.h"

#include <cstdint>
#include <cstdlib>
#include <stdexcept>

#include "base/target.h"

#if MUSICGEN_X86
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

namespace musicgen {

namespace {

#if MUSICGEN_X86

struct Registers {
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(std::uint32_t leaf, std::uint32_t subleaf) {
  Registers r;
#if defined(_MSC_VER)
  int out[4];
  __cpuidex(out, static_cast<int>(leaf), static_cast<int>(subleaf));
  r.eax = static_cast<std::uint32_t>(out[0]);
  r.ebx = static_cast<std::uint32_t>(out[1]);
  r.ecx = static_cast<std::uint32_t>(out[2]);
  r.edx = static_cast<std::uint32_t>(out[3]);
#else
  __cpuid_count(leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
#endif
  return r;
}

// XCR0: the register states that the operating system saves at a task switch. A CPU may have AVX-512 while the system
// would lose its registers.
std::uint64_t states_saved_by_os() {
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  std::uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<std::uint64_t>(high) << 32) | low;
#endif
}

Isa best_of_this_machine() {
  constexpr std::uint32_t osxsave = 1u << 27, fma = 1u << 12;                                     // leaf 1, ecx
  constexpr std::uint32_t avx2 = 1u << 5;                                                         // leaf 7, ebx
  constexpr std::uint32_t avx512_f_dq_bw_vl = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31);  // leaf 7, ebx
  constexpr std::uint32_t avx512_vnni = 1u << 11;                                                 // leaf 7, ecx
  constexpr std::uint64_t ymm_state = 0x6, zmm_state = 0xe6;

  if (cpuid(0, 0).eax < 7) return Isa::baseline;
  const Registers one = cpuid(1, 0), seven = cpuid(7, 0);
  if (!(one.ecx & osxsave)) return Isa::baseline;
  const std::uint64_t saved = states_saved_by_os();
  if ((saved & ymm_state) != ymm_state || !(one.ecx & fma) || !(seven.ebx & avx2)) return Isa::baseline;
  const bool has_avx512 = (saved & zmm_state) == zmm_state && (seven.ebx & avx512_f_dq_bw_vl) == avx512_f_dq_bw_vl &&
                          (seven.ecx & avx512_vnni) != 0;
  return has_avx512 ? Isa::avx512 : Isa::avx2;
}

bool sha_of_this_machine() {
  constexpr std::uint32_t ssse3_sse41 = (1u << 9) | (1u << 19);  // leaf 1, ecx
  constexpr std::uint32_t sha = 1u << 29;                        // leaf 7, ebx
  return cpuid(0, 0).eax >= 7 && (cpuid(1, 0).ecx & ssse3_sse41) == ssse3_sse41 && (cpuid(7, 0).ebx & sha) != 0;
}

#else

bool sha_of_this_machine() { return false; }

Isa best_of_this_machine() { return Isa::baseline; }

#endif

Isa best() {
  static const Isa isa = best_of_this_machine();
  return isa;
}

}  // namespace

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::avx512:
      return "avx512";
    case Isa::avx2:
      return "avx2";
    default:
      return "baseline";
  }
}

bool has_sha() {
  static const bool has = sha_of_this_machine();
  return has;
}

std::vector<Isa> isas_available() {
  std::vector<Isa> all;
  for (int i = 0; i <= static_cast<int>(best()); ++i) all.push_back(static_cast<Isa>(i));
  return all;
}

Isa isa_in_use() {
  const char* wanted = std::getenv("MUSICGEN_EXT_CPU");
  if (wanted == nullptr || *wanted == '\0') return best();
  std::string names;
  for (const Isa isa : isas_available()) {
    if (wanted == std::string(name_of(isa))) return isa;
    names += names.empty() ? name_of(isa) : std::string(", ") + name_of(isa);
  }
  throw std::invalid_argument("MUSICGEN_EXT_CPU: expected one of " + names + " on this machine, got '" + wanted + "'");
}

}  // namespace musicgen
