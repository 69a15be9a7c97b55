"""The synthesiser in numpy and double precision: every sample from its formula, nothing carried from block to block.

Timbres are data and are given by the caller, as `_core.synth_timbre` tells them; drums are left out.
"""

from __future__ import annotations

import numpy as np

BLOCK = 128
ROOM_SECONDS, CEILING = 1.1, 0.89
INAUDIBLE = 1e-5
DELAYS = (0.0297, 0.0371, 0.0411, 0.0437)


def scattered(a, b):
    """A number in [0, 1) that depends on both integers only."""
    x = (a * 0x9E3779B1 ^ (b + 0x7F4A7C15) * 0x85EBCA77) & 0xFFFFFFFF
    for shift, factor in ((15, 0x2C1B3C6D), (12, 0x297A2D39), (15, 1)):
        x = (x ^ x >> shift) * factor & 0xFFFFFFFF
    return x / 2**32


def rise(x):
    return np.sin(0.5 * np.pi * np.clip(x, 0, 1)) ** 2


def sounding_length(tone, timbre, sr):
    slowest = min((decay for _, _, decay, _ in timbre["partials"]), default=0)
    length = int(tone["length"])
    if slowest > 0:
        length = min(length, int(-np.log(INAUDIBLE) / slowest * sr))
    return length, length + int(np.ceil(timbre["release"] * sr))


def sing(tone, timbre, voice, index, detune, sr):
    """One voice, shape (total,), and the sum of the magnitudes of what was added up."""
    held, total = sounding_length(tone, timbre, sr)
    blocks = np.arange(0, total, BLOCK)
    seconds = (blocks + 0.5 * BLOCK) / sr
    depth = timbre["vibrato_cents"] * rise(seconds / timbre["vibrato_delay"])
    wave = np.sin(2 * np.pi * (timbre["vibrato_rate"] * seconds + scattered(index, voice + 1000)))
    bend = np.repeat(np.exp2(depth / 1200 * wave), BLOCK)
    cycles = float(tone["frequency"]) * detune / sr * np.concatenate([[0], np.cumsum(bend)[:-1]])
    n = np.arange(len(cycles))

    groups = {False: np.zeros(len(n)), True: np.zeros(len(n))}
    magnitude = 0.0
    for k, (ratio, amplitude, decay, bright) in enumerate(timbre["partials"]):
        phase = 2 * np.pi * (cycles * ratio + scattered(k, voice))
        level = amplitude * np.exp(-decay * n / sr)
        y = level * np.sin(phase)
        at = blocks  # a block is left out when its partial has died away by its first sample
        audible = level[at] * (np.abs(np.sin(phase[at])) + np.abs(np.cos(phase[at]))) > INAUDIBLE
        groups[bright] += y * np.repeat(audible, BLOCK)
        magnitude += amplitude

    out = np.zeros(len(n))
    edges = np.append(blocks, blocks[-1] + BLOCK)
    for bright, y in groups.items():
        attack = timbre["bright_attack"] if bright else timbre["attack"]
        level = rise(np.minimum(edges, held) / sr / attack) * (1 - rise((edges - held) / sr / timbre["release"]))
        out += y * np.interp(n, edges, level)
    return out[:total], magnitude


def synthesize(tones, sr, room, timbre_of):
    """Sound, shape (2, n), float64, and a bound on the magnitude of any intermediate sum, in units of the sound."""
    timbres = [timbre_of(int(t["program"]), float(t["frequency"]), float(t["velocity"]), sr) for t in tones]
    ends = [int(t["start"]) + sounding_length(t, timbre, sr)[1] for t, timbre in zip(tones, timbres, strict=True)]
    length = max(ends) + int(ROOM_SECONDS * sr)
    out, magnitude = np.zeros((2, length)), 0.0
    for index, (tone, timbre) in enumerate(zip(tones, timbres, strict=True)):
        voices = timbre["num_voices"]
        loudness = float(tone["gain"]) * float(tone["velocity"]) ** 1.6 / np.sqrt(voices)
        for voice in range(voices):
            side = 2 * voice / (voices - 1) - 1 if voices > 1 else 0
            detune = 2 ** (side * timbre["detune_cents"] / 1200)
            y, size = sing(tone, timbre, voice, index, detune, sr)
            angle = 0.25 * np.pi * (np.clip(float(tone["pan"]) + side * timbre["spread"], -1, 1) + 1)
            for channel, gain in enumerate((np.cos(angle), np.sin(angle))):
                out[channel, int(tone["start"]) : int(tone["start"]) + len(y)] += loudness * gain * y
            magnitude += loudness * size
    if room:
        out = out + room * reverberation(out, sr)
    peak = np.max(np.abs(out))
    return out * CEILING / peak, magnitude * CEILING / peak


def reverberation(y, sr):
    """Four delay lines and a Householder matrix, one sample after the other."""
    sizes = [max(1, int(np.floor(seconds * sr + 0.5))) for seconds in DELAYS]
    lines = [np.zeros(size) for size in sizes]
    gains = [10 ** (-3 * size / sr / ROOM_SECONDS) for size in sizes]
    keep = np.exp(-2 * np.pi * 4500 / sr)
    treble = [0.0] * 4
    wet = np.zeros_like(y)
    for n in range(y.shape[1]):
        out = []
        for i in range(4):
            x = lines[i][n % sizes[i]]
            treble[i] = x + keep * (treble[i] - x)
            out.append(treble[i] * gains[i])
        half = 0.5 * sum(out)
        for i in range(4):
            lines[i][n % sizes[i]] = y[i % 2, n] + out[i] - half
        wet[0, n], wet[1, n] = out[0] + out[2], out[1] + out[3]
    return wet
