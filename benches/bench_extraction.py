"""Features of a folder of sounds into a store: one worker and two, in turns.

    python benches/bench_extraction.py [--files 200] [--seconds 10] [--rounds 5] [--feature mfcc ...] [--out FOLDER]

The sounds are chords in noise at 22.05 kHz, 16 bits, one channel, once as WAV and once as FLAC. Stores are compared
byte for byte before times are printed. `--out` is where sounds and stores go; the default, a folder in memory where the
system has one, measures the work and not the disk.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from bench_corpus import same_bytes
from musicgen_ext import extract_features

SR = 22_050


def write_sounds(folder: Path, suffix: str, count: int, seconds: float) -> None:
    rng = np.random.default_rng(0)
    time_axis = np.arange(int(seconds * SR)) / SR
    folder.mkdir()
    for i in range(count):
        tones = sum(np.sin(2 * np.pi * f * time_axis) for f in rng.uniform(80, 4000, 4))
        y = 0.2 * tones + 0.02 * rng.standard_normal(len(time_axis))
        soundfile.write(folder / f"{i:05d}.{suffix}", y, SR, subtype="PCM_16")


def extract(folder: Path, feature: str, out: Path, workers: int) -> float:
    shutil.rmtree(out, ignore_errors=True)
    begun = time.perf_counter()
    summary = extract_features(folder, feature, out=out, sr=SR, workers=workers)
    assert summary.failed == 0
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--feature", nargs="+", default=["mfcc", "logmel", "chroma", "stft"])
    parser.add_argument("--suffix", nargs="+", default=["wav", "flac"])
    parser.add_argument("--out", type=Path, default=Path("/dev/shm") if os.path.isdir("/dev/shm") else None)
    options = parser.parse_args()
    print(
        "| files | feature | one worker, ms a file | two | ratio, median and range |\n| --- | --- | --- | --- | --- |"
    )
    with tempfile.TemporaryDirectory(dir=options.out) as temporary:
        outs = {workers: Path(temporary) / str(workers) for workers in (1, 2)}
        for suffix in options.suffix:
            folder = Path(temporary) / suffix
            write_sounds(folder, suffix, options.files, options.seconds)
            for feature in options.feature:
                times: dict[int, list[float]] = {1: [], 2: []}
                for turn in range(options.rounds + 1):
                    for workers, out in outs.items():
                        seconds = extract(folder, feature, out, workers)
                        if turn:  # the first warms up
                            times[workers].append(1e3 * seconds / options.files)
                same_bytes(outs[1], outs[2])
                ratios = [a / b for a, b in zip(*times.values(), strict=True)]
                print(
                    f"| {suffix} | {feature} | {statistics.median(times[1]):.2f} | {statistics.median(times[2]):.2f} | "
                    f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
