"""Reading MIDI files side by side with symusic, one thread, in one run: path to note columns.

    python benches/compare_midi.py [--rounds 15] [--folder FOLDER] [--bound PROGRAM]

The readers take turns, round after round, so that a change of the machine's mood hits both; before that they must agree
on every note. Printed for each group of files of `midi_files`: medians over the rounds of the time for the whole group,
their range, and the median over the rounds of the ratio symusic / ours. `--bound` names a program that takes the paths
of the files and prints one JSON object with `open_read_ms`, `scan_ms` and `pair_ms`: what this machine needs to read
the files, to walk over their events, and to pair the notes.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import symusic

import midi_files
import musicgen_ext as mg


def ours(paths):
    for path in paths:
        _ = mg.read_midi(path).notes


def symusic_notes(paths):
    """What `ours` gives: its notes lie in lists of objects until they are asked for as arrays, one for each track."""
    for path in paths:
        for track in symusic.Score(path).tracks:
            track.notes.numpy()


def symusic_score(paths):
    for path in paths:
        symusic.Score(path)


CONTENDERS = {"ours": ours, "symusic": symusic_notes, "symusic, notes left as objects": symusic_score}
FIELDS = ("start", "duration", "pitch", "velocity")


def check(paths):
    """Both find the same notes. Returns the number of events and of notes."""
    events = notes = 0
    for path in paths:
        score = mg.read_midi(path, strict=True)
        found = []
        for track in symusic.Score(path).tracks:
            columns = track.notes.numpy()
            found.append(np.stack([columns["time" if f == "start" else f].astype(np.int64) for f in FIELDS], axis=1))
        mine = np.stack([score.notes[f].astype(np.int64) for f in FIELDS], axis=1)
        theirs = np.concatenate(found)
        assert len(mine) == len(theirs), path
        assert np.array_equal(mine[np.lexsort(mine.T)], theirs[np.lexsort(theirs.T)]), path
        notes += len(mine)
        events += 2 * len(mine) + len(score._events) + len(score._track_ends)
    return events, notes


def race(paths, rounds):
    """Milliseconds of every contender in every round."""
    times = {name: [] for name in CONTENDERS}
    gc.disable()
    for turn in range(rounds + 1):
        for name, read in CONTENDERS.items():
            start = time.perf_counter()
            read(paths)
            if turn:  # the first warms up
                times[name].append(1e3 * (time.perf_counter() - start))
        gc.collect()
    gc.enable()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--folder", type=Path, help="where to keep the files (default: a temporary folder)")
    parser.add_argument("--bound", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        print(
            f"musicgen-ext {mg.__version__}, symusic {symusic.__version__}, numpy {np.__version__}; ms for the group\n"
        )
        print("| group | files | events | reader | median | range | ns/event | us/file | symusic / this |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        for group in midi_files.GROUPS:
            paths = [str(path) for path in midi_files.write_group(folder, group)]
            events, _ = check(paths)
            times = race(paths, options.rounds)
            for name, taken in times.items():
                median = statistics.median(taken)
                ratio = statistics.median(b / a for a, b in zip(taken, times["symusic"], strict=True))
                print(
                    f"| {group} | {len(paths)} | {events} | {name} | {median:.2f} | {min(taken):.2f} to "
                    f"{max(taken):.2f} | {1e6 * median / events:.1f} | {1e3 * median / len(paths):.1f} | {ratio:.2f} |"
                )
            if options.bound:
                done = subprocess.run([options.bound, *paths], check=True, capture_output=True, text=True)
                bound = json.loads(done.stdout)
                for name in ("open_read", "scan", "pair"):
                    value = bound[f"{name}_ms"]
                    print(
                        f"| {group} | {len(paths)} | {events} | bound: {name} | {value:.2f} | | "
                        f"{1e6 * value / events:.1f} | {1e3 * value / len(paths):.1f} | |"
                    )


if __name__ == "__main__":
    main()
