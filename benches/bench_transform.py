"""Operations on a score of 100,000 notes with pedal: ours beside symusic's, where it has the same."""

import numpy as np
import pytest

import midi_files
import musicgen_ext as mg


@pytest.fixture(scope="module")
def score():
    return mg.read_midi(midi_files.long_piece(0))


OURS = {
    "transpose": lambda score: score.transpose(2),
    "trim": lambda score: score.trim(1000, 2000, unit="beats"),
    "quantize": lambda score: score.quantize(4, what="both"),
    "resample": lambda score: score.resample(24),
    "apply_sustain": lambda score: score.apply_sustain(),
    "split_tracks": lambda score: score.split_tracks("pitch"),
    "merge_tracks": lambda score: score.merge_tracks(),
    "with_programs": lambda score: score.with_programs("Violin"),
    "concatenate": lambda score: mg.Score.concatenate([score, score]),
    "to_seconds": lambda score: score.to_seconds(score.notes["start"]),
    "to_bars": lambda score: score.to_bars(score.notes["start"]),
}


@pytest.mark.parametrize("operation", OURS.values(), ids=OURS)
def test_operation(benchmark, score, operation):
    benchmark.group = "transform, 100,000 notes"
    benchmark(operation, score)


THEIRS = {
    "transpose": lambda score: score.shift_pitch(2),
    "resample": lambda score: score.resample(24),
    "to_seconds": lambda score: score.to("second"),
}


@pytest.mark.parametrize("name", THEIRS)
def test_symusic(benchmark, score, name):
    theirs = score.to_symusic()
    if name == "transpose":
        found = mg.Score.from_symusic(theirs.shift_pitch(2)).notes["pitch"]
        np.testing.assert_array_equal(np.sort(found), np.sort(score.transpose(2, drums=True).notes["pitch"]))
    benchmark.group = f"transform, 100,000 notes, symusic: {name}"
    benchmark(THEIRS[name], theirs)
