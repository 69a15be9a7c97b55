"""Signal preparation as the definitions read: loops over samples, frames and bins, float64.

Sounds are lists of channels, channels lists of samples.
"""

import cmath
import math


def normalize(sound, db=0.0, measure="peak"):
    samples = [x for channel in sound for x in channel]
    peak = max(abs(x) for x in samples)
    level = peak if measure == "peak" else math.sqrt(math.fsum(x * x for x in samples) / len(samples))
    return [[10 ** (db / 20) / level * x if level > 0 else 0.0 for x in channel] for channel in sound]


def mix(sounds, size, snr):
    """One channel each; every sound after the first so loud that the first has `snr` dB more power than it."""
    cropped = [sound[:size] for sound in sounds]
    first, *others = (math.fsum(x * x for x in sound) / len(sound) for sound in cropped)
    factors = [1.0, *(math.sqrt(first / (power * 10 ** (snr / 10))) for power in others)]
    pairs = list(zip(cropped, factors, strict=True))
    return [math.fsum(factor * sound[t] for sound, factor in pairs if t < len(sound)) for t in range(size)]


def time_shift(channel, samples, mode="zeros"):
    n = len(channel)
    if mode == "wrap":
        return [channel[(t - samples) % n] for t in range(n)]
    return [channel[t - samples] if 0 <= t - samples < n else 0.0 for t in range(n)]


def split(channel, top_db=60.0, frame_length=2048, hop_length=512):
    """(first sample, one after the last) of every stretch within `top_db` of the loudest frame."""
    n, half = len(channel), frame_length // 2
    levels = []
    for middle in range(0, n + 2 * half - frame_length + 1, hop_length):
        inside = [channel[t] for t in range(middle - half, middle - half + frame_length) if 0 <= t < n]
        levels.append(max(1e-10, math.fsum(x * x for x in inside) / frame_length))
    stretches = []
    for frame, level in enumerate(levels):
        if 10 * math.log10(level / max(levels)) <= -top_db:
            continue
        begin, end = frame * hop_length, min((frame + 1) * hop_length, n)
        if stretches and stretches[-1][1] == begin:
            stretches[-1] = (stretches[-1][0], end)
        else:
            stretches.append((begin, end))
    return stretches


def trim(channel, **options):
    stretches = split(channel, **options)
    return (stretches[0][0], stretches[-1][1]) if stretches else (0, 0)


def phase_vocoder(spectra, rate, hop_length, n_fft):
    """spectra[frame][bin] at `rate` times the speed."""
    frames, bins = len(spectra), len(spectra[0])
    silence = [0j] * bins
    phases = [cmath.phase(z) for z in spectra[0]]
    out = []
    for step in range(math.ceil(frames / rate)):
        i, part = divmod(step * rate, 1.0)
        now, then = (spectra[k] if k < frames else silence for k in (int(i), int(i) + 1))
        out.append(
            [cmath.rect((1 - part) * abs(a) + part * abs(b), p) for a, b, p in zip(now, then, phases, strict=True)]
        )
        for k, (a, b) in enumerate(zip(now, then, strict=True)):
            expected = 2 * math.pi * hop_length * k / n_fft
            turned = cmath.phase(b) - cmath.phase(a) - expected
            phases[k] += expected + turned - 2 * math.pi * round(turned / (2 * math.pi))
    return out
