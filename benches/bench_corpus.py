"""Encoding a folder of MIDI files into a token store: one worker and two, in turns, and where a file's time goes.

    python benches/bench_corpus.py [--files 20000] [--rounds 5] [--encoding performance ...] [--out FOLDER]

The files are the corpus of `midi_files`: nine chorales of 3.5 KB for a performance of 800 notes. Stores are compared
byte for byte before times are printed. `--out` is where they go; the default, a folder in memory where the system has
one, measures the work and not the disk. Printed for each encoding: medians over the rounds and their range; events and
tokens a second; the median over the rounds of the ratio; and microseconds of a file in each step of one worker.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import midi_files
from musicgen_ext import _core, corpus, encodings, read_midi


def encode(folder: Path, out: Path, encoding: encodings.Encoding, workers: int) -> tuple[float, corpus.CorpusSummary]:
    shutil.rmtree(out, ignore_errors=True)
    begun = time.perf_counter()
    summary = corpus.encode_corpus(folder, encoding, out=out, workers=workers)
    return time.perf_counter() - begun, summary


def same_bytes(one: Path, other: Path) -> None:
    names = sorted(os.listdir(one))
    assert names == sorted(os.listdir(other))
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def steps(folder: Path, encoding: encodings.Encoding) -> dict[str, float]:
    """Seconds of one thread for the whole folder, step by step."""
    job, cancel = corpus._Encode(encoding, False, 86_400.0), _core.Cancel()
    begun = time.perf_counter()
    files = iter(corpus._Tree(folder, corpus.MIDI_SUFFIXES, None))
    batches = list(corpus._batches(files, job.batch_bytes))
    listed = time.perf_counter()
    for batch in batches:
        job([file.path for file in batch], cancel)
    native = time.perf_counter()
    for batch in batches:
        corpus._results(batch, job, cancel)
    lines = time.perf_counter()
    return {"list": listed - begun, "read, hash, parse, encode": native - listed,
            "manifest lines": lines - native - (native - listed)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--encoding", nargs="+", default=["performance", "bars", "pitches", "chorale"])
    parser.add_argument("--folder", type=Path, help="where the files are, or are made (a temporary folder)")
    parser.add_argument("--out", type=Path, default=Path("/dev/shm") if os.path.isdir("/dev/shm") else None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, tempfile.TemporaryDirectory(dir=options.out) as stores:
        folder = options.folder or Path(temporary)
        paths = midi_files.write_corpus(folder, options.files)
        sample = [read_midi(path) for path in paths[: min(1000, len(paths))]]
        events = sum(2 * len(score.notes) + len(score._events) + len(score._track_ends) for score in sample)
        events = events * len(paths) // len(sample)
        size = sum(path.stat().st_size for path in paths)
        print(f"{len(paths)} files, {size / 1e6:.1f} MB, {events / 1e6:.2f} million events")
        outs = {workers: Path(stores) / str(workers) for workers in (1, 2)}
        for name in options.encoding:
            encoding = encodings.named(name)
            times: dict[int, list[float]] = {1: [], 2: []}
            for turn in range(options.rounds + 1):
                for workers, out in outs.items():
                    seconds, summary = encode(folder, out, encoding, workers)
                    if turn:  # the first warms up
                        times[workers].append(seconds)
            same_bytes(outs[1], outs[2])
            print(
                f"\n{name}: {summary.files} pieces, {summary.failed} failed, {summary.tokens / 1e6:.1f} million tokens"
            )
            for workers, found in times.items():
                median = statistics.median(found)
                print(
                    f"  {workers} workers: {1e3 * median:.0f} ms ({1e3 * min(found):.0f} to {1e3 * max(found):.0f}), "
                    f"{len(paths) / median:,.0f} files/s, {events / median / 1e6:.1f} million events/s, "
                    f"{summary.tokens / median / 1e6:.1f} million tokens/s"
                )
            print(f"  2 workers: {statistics.median(a / b for a, b in zip(*times.values(), strict=True)):.2f} times 1")
            for step, seconds in steps(folder, encoding).items():
                print(f"    {step}: {1e6 * seconds / len(paths):.1f} us a file")


if __name__ == "__main__":
    main()
