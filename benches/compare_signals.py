"""Signal preparation and template matching side by side with librosa and scipy, one thread, in one run.

    python benches/compare_signals.py [--rounds 7] [--only NAME]

The contenders take turns, round after round, so that a change of the machine's mood hits both; before that they must
agree. Printed for each: medians over the rounds in milliseconds, and the median over the rounds of theirs / ours.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time

import librosa
import numpy as np
import scipy.signal

from musicgen_ext import _core, audio, signals

SR = 22_050


def inputs():
    rng = np.random.default_rng(20_261_120)
    t = np.arange(30 * SR) / SR
    y = 0.3 * np.sin(2 * np.pi * 440 * t) + 0.1 * rng.normal(size=len(t))
    y *= np.repeat(rng.random(60) ** 4 + 1e-4, SR // 2)
    return {
        "y": y.astype(np.float32),
        "clip": rng.random((12, 215), np.float32),  # 5 s of chroma
        "piece": rng.random((12, 25_840), np.float32),  # 10 min
        "long": rng.random((12, 1292), np.float32),  # 30 s
    }


def correlations(clip, piece):
    """With the norms that make them comparable, by FFT and running sums."""
    m = clip.shape[1]
    centred = clip.astype(np.float64) - clip.mean(axis=1, keepdims=True)
    products = sum(scipy.signal.correlate(b, a, "valid", method="fft") for a, b in zip(centred, piece, strict=True))
    sums = np.cumsum(np.pad(piece.astype(np.float64), ((0, 0), (1, 0))), axis=1)
    squares = np.cumsum(np.pad(np.square(piece, dtype=np.float64), ((0, 0), (1, 0))), axis=1)
    own = squares[:, m:] - squares[:, :-m] - (sums[:, m:] - sums[:, :-m]) ** 2 / m
    return products / np.sqrt(own.sum(axis=0) * np.square(centred).sum())


def contests(x):
    y, clip, piece, long = x["y"], x["clip"], x["piece"], x["long"]
    half = np.float32(0.5)

    def ours_dtw(query, metric):
        return _core.match_warp(query, [piece], metric, (1, 1, 1), 1)[0][0]

    def their_dtw(query, metric):
        return librosa.sequence.dtw(query, piece, subseq=True, metric=metric, backtrack=False)[-1]

    return {
        "DTW, 5 s in 10 min, cosine": (lambda: ours_dtw(clip, "cosine"), lambda: their_dtw(clip, "cosine")),
        "DTW, 5 s in 10 min, euclidean": (lambda: ours_dtw(clip, "euclidean"), lambda: their_dtw(clip, "euclidean")),
        "DTW, 30 s in 10 min, cosine": (lambda: ours_dtw(long, "cosine"), lambda: their_dtw(long, "cosine")),
        "correlation, 5 s in 10 min (scipy, FFT)": (
            lambda: _core.match_correlate(clip, [piece], True, 1)[0],
            lambda: correlations(clip, piece),
        ),
        "correlation, 30 s in 10 min (scipy, FFT)": (
            lambda: _core.match_correlate(long, [piece], True, 1)[0],
            lambda: correlations(long, piece),
        ),
        "trim, 30 s": (lambda: signals.trim(y * half)[0], lambda: librosa.effects.trim(y * half)[0]),
        "split, 30 s": (lambda: signals.split(y, top_db=40), lambda: librosa.effects.split(y, top_db=40)),
        "resample, 30 s to 16 kHz": (
            lambda: audio.resample(y, orig_sr=SR, target_sr=16_000),
            lambda: librosa.resample(y, orig_sr=SR, target_sr=16_000),
        ),
        "time_stretch, 30 s, 1.2": (
            lambda: signals.time_stretch(y, 1.2),
            lambda: librosa.effects.time_stretch(y, rate=1.2),
        ),
        "pitch_shift, 30 s, 3 steps": (
            lambda: signals.pitch_shift(y, 3, sr=SR),
            lambda: librosa.effects.pitch_shift(y, sr=SR, n_steps=3),
        ),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    print(f"{_core.isa_in_use()}, librosa {librosa.__version__}, scipy {scipy.__version__}; ms, medians")
    for title, contenders in contests(inputs()).items():
        if arguments.only not in title:
            continue
        results = [np.asarray(contender(), np.float64) for contender in contenders]
        # librosa's vocoder adds phases up in single precision, which wander.
        allowed = 0.3 if "_s" in title else 1e-3
        assert results[0].shape == results[1].shape, title
        error = np.linalg.norm(results[0] - results[1]) / np.linalg.norm(results[1])
        assert error <= allowed, (title, error)
        times = [[], []]
        gc.disable()
        for _ in range(arguments.rounds):
            for contender, taken in zip(contenders, times, strict=True):
                begun = time.perf_counter()
                contender()
                taken.append(1e3 * (time.perf_counter() - begun))
        gc.enable()
        ours, theirs = map(statistics.median, times)
        ratio = statistics.median(b / a for a, b in zip(*times, strict=True))
        print(f"| {title} | {ours:.2f} | {theirs:.2f} | {ratio:.1f}x | {error:.0e} |")


if __name__ == "__main__":
    main()
