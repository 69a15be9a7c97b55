"""Piano rolls: ours, and those of symusic (steps of a beat) and pretty_midi (fs=100), of the same files."""

import numpy as np
import pytest

import midi_files
import musicgen_ext as mg

# What pretty_midi says of the chorales, which repeat their one tempo on every track.
pytestmark = pytest.mark.filterwarnings("ignore:Tempo, Key or Time:RuntimeWarning")
FILES = {
    "chorale": (midi_files.chorale, 0),
    "performance": (midi_files.performance, 1),
    "long": (midi_files.long_piece, 2),
}


@pytest.fixture(scope="module", params=FILES)
def file(request, tmp_path_factory):
    """Path of a file: 300 notes, some 4000 with pedal, 25 000 with pedal."""
    make, index = FILES[request.param]
    path = tmp_path_factory.mktemp("roll") / f"{request.param}.mid"
    path.write_bytes(make(index))
    return path


def symusic_roll(path):
    symusic = pytest.importorskip("symusic")
    score = symusic.Score(path).resample(4, min_dur=1)
    return score.pianoroll(modes=["frame"], pitch_range=[0, 128], encode_velocity=True)


STEPS = {"musicgen_ext": lambda path: mg.piano_roll(path, steps_per_beat=4), "symusic": symusic_roll}


@pytest.mark.parametrize("roll", STEPS.values(), ids=STEPS)
def test_roll_in_steps(benchmark, file, roll):
    ours, theirs = mg.piano_roll(file, steps_per_beat=4), symusic_roll(file)[0].max(axis=0)
    width = min(ours.shape[1], theirs.shape[1])  # rounded differently, and most cells are the same
    assert np.mean((ours[:, :width] > 0) != (theirs[:, :width] > 0)) < 0.05
    benchmark.group = f"roll, 4 steps per beat, {file.stem}"
    benchmark(roll, file)


@pytest.mark.parametrize("way", ["pretty_midi", "float64", "into out, uint8", "packed"])
def test_roll_in_frames(benchmark, file, way):
    pm, score = pytest.importorskip("pretty_midi").PrettyMIDI(str(file)), mg.read_midi(file)
    expected = pm.get_piano_roll(fs=100)
    np.testing.assert_array_equal(mg.piano_roll(score), expected)
    benchmark.group = f"roll, fs=100, {file.stem}"
    if way == "pretty_midi":
        benchmark.pedantic(pm.get_piano_roll, kwargs={"fs": 100}, rounds=5, warmup_rounds=1)
    elif way == "float64":
        benchmark(mg.piano_roll, score)
    elif way == "packed":
        benchmark(mg.piano_roll, score, packed=True)
    else:
        benchmark(mg.piano_roll, score, out=np.empty(expected.shape, np.uint8))
