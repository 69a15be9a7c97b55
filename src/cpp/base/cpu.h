// The instruction sets this library has code for, and which of them this machine (CPU and operating system) can run.
#pragma once

#include <string>
#include <vector>

namespace musicgen {

enum class Isa { baseline = 0, avx2 = 1, avx512 = 2 };

const char* name_of(Isa isa);

// Every set this machine can run, slowest first; never empty.
std::vector<Isa> isas_available();

// The set in use: the fastest available one, or what MUSICGEN_EXT_CPU asks for. The environment is read at every call,
// so that a program can compare paths. Throws std::invalid_argument when the variable names an unknown set or one this
// machine cannot run.
Isa isa_in_use();

// Whether there are instructions for SHA-256.
bool has_sha();

}  // namespace musicgen
