"""Piano rolls side by side with symusic and pretty_midi, one thread, in one run.

    python benches/compare_roll.py [--rounds 7] [--folder FOLDER] [--groups long chorales piano]

Two tables. Four steps to a beat, from the path of a file to its roll: symusic's `resample` and `pianoroll`. Frames at
fs=100: pretty_midi's `get_piano_roll` of what it has read already, against ours of a `Score` that has been read, of the
file's bytes, into a buffer that is there (`out`), and packed to bits. Contenders take turns, round after round; before
that their rolls must agree. Medians over the rounds of the time for the whole group, their range, and the ratio of the
medians of the peer and of ours.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pretty_midi
import symusic

import midi_files
import musicgen_ext as mg

FS, STEPS = 100, 4


def symusic_roll(path):
    score = symusic.Score(path).resample(STEPS, min_dur=1)
    return score.pianoroll(modes=["frame"], pitch_range=[0, 128], encode_velocity=True)


def race(contenders, rounds):
    """Milliseconds of every contender in every round."""
    times = {name: [] for name in contenders}
    gc.disable()
    for turn in range(rounds + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if turn:  # the first warms up
                times[name].append(1e3 * (time.perf_counter() - start))
            gc.collect()
    gc.enable()
    return times


def table(group, count, contenders, peer, rounds):
    times = race(contenders, rounds)
    base = statistics.median(times[peer])
    for name, taken in times.items():
        median = statistics.median(taken)
        print(
            f"| {group} | {count} | {name} | {median:.2f} | {min(taken):.2f} to {max(taken):.2f} | "
            f"{base / median:.2f} |"
        )


def steps_contenders(paths):
    for path in paths:
        ours, theirs = mg.piano_roll(path, steps_per_beat=STEPS, binary=True), symusic_roll(path)[0].any(axis=0)
        # Rounded differently (a start and an end; a start and a length), and most cells are the same.
        width = min(ours.shape[1], theirs.shape[1])
        assert np.mean(ours[:, :width] != theirs[:, :width]) < 0.05, path
    return {
        "symusic": lambda: [symusic_roll(path) for path in paths],
        "ours, uint8": lambda: [mg.piano_roll(path, steps_per_beat=STEPS) for path in paths],
        "ours, packed": lambda: [mg.piano_roll(path, steps_per_beat=STEPS, packed=True) for path in paths],
    }


def frames_contenders(paths):
    data = [path.read_bytes() for path in paths]
    scores = [mg.read_midi(path) for path in paths]
    theirs = [pretty_midi.PrettyMIDI(str(path)) for path in paths]
    widths = []
    for one, score, pm in zip(data, scores, theirs, strict=True):
        expected = pm.get_piano_roll(fs=FS)
        widths.append(expected.shape[1])
        for source in (one, score):
            assert np.array_equal(mg.piano_roll(source, fs=FS), expected)
    largest = 128 * max(widths)

    def into(dtype):
        buffer = np.ones(largest, dtype)
        outs = [buffer[: 128 * width].reshape(128, width) for width in widths]
        return lambda: [mg.piano_roll(score, fs=FS, out=out) for score, out in zip(scores, outs, strict=True)]

    def each(run, sources):
        """One roll at a time: hundreds of megabytes each."""

        def all_of_them():
            for source in sources:
                run(source)

        return all_of_them

    return {
        "pretty_midi, of a PrettyMIDI": each(lambda pm: pm.get_piano_roll(fs=FS), theirs),
        "ours, float64, of a Score": each(lambda score: mg.piano_roll(score, fs=FS), scores),
        "ours, float64, of bytes": each(lambda one: mg.piano_roll(one, fs=FS), data),
        "ours, float64 into out": into(np.float64),
        "ours, uint8 into out": into(np.uint8),
        "ours, packed": each(lambda score: mg.piano_roll(score, fs=FS, packed=True), scores),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where to keep the files (default: a temporary folder)")
    parser.add_argument("--groups", nargs="+", choices=list(midi_files.GROUPS), default=list(midi_files.GROUPS))
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # pretty_midi's, about tempos outside the first track
    with tempfile.TemporaryDirectory() as temporary:
        groups = {name: midi_files.write_group(options.folder or Path(temporary), name) for name in options.groups}
        print(
            f"musicgen-ext {mg.__version__}, symusic {symusic.__version__}, numpy {np.__version__}; "
            "ms for the group, one thread\n"
        )
        for title, make, peer in (
            (f"{STEPS} steps per beat, file to roll", steps_contenders, "symusic"),
            (f"fs={FS}", frames_contenders, "pretty_midi, of a PrettyMIDI"),
        ):
            print(f"{title}\n\n| group | files | contender | median | range | peer / this |")
            print("| --- | --- | --- | --- | --- | --- |")
            for name, paths in groups.items():
                table(name, len(paths), make(paths), peer, options.rounds)
            print()


if __name__ == "__main__":
    main()
