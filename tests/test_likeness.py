"""How alike two collections of music are: what is counted, how far distributions overlap, and music without order."""

import numpy as np
import pytest

from musicgen_ext import likeness
from musicgen_ext.midi import Score


def tune(rng, key=0, notes=32, duration=240):
    """A tune in the major scale of `key`, one note every `duration` ticks."""
    scale = np.array([0, 2, 4, 5, 7, 9, 11, 12])
    pitch = 60 + key + scale[rng.integers(0, 8, notes)]
    return Score({"start": np.arange(notes) * duration, "duration": np.full(notes, duration), "pitch": pitch})


def test_features_by_hand():
    score = Score([(0, 480, 60), (0, 480, 64), (480, 960, 67), (1440, 480, 60)])
    counted = likeness.features(score)
    assert set(counted) == set(likeness.FEATURES)
    assert counted["pitch_classes"].tolist() == [0.5, 0, 0, 0, 0.25, 0, 0, 0.25, 0, 0, 0, 0]
    assert counted["pitch_range"].tolist() == [7]
    assert counted["note_density"].tolist() == [1]  # 4 notes in 4 quarters
    assert counted["durations"].sum() == pytest.approx(1)
    assert counted["durations"].max() == 0.75  # quarters
    assert counted["inter_onset_intervals"].max() == 0.5  # a quarter and a half
    assert counted["polyphony"].tolist() == [0, 0.75, 0.25, 0, 0, 0, 0, 0]
    assert not any(values.any() for values in likeness.features(Score()).values())
    drums = Score({"start": [0], "duration": [9], "pitch": [40], "channel": [9]})
    assert not any(values.any() for values in likeness.features(drums).values())


def test_ticks_do_not_matter(rng):
    score = tune(rng)
    for name, values in likeness.features(score.resample(960)).items():
        assert np.allclose(values, likeness.features(score)[name])


def test_common_area_of_known_curves(rng):
    a, b = rng.normal(0, 1, 20_000), rng.normal(1, 1, 20_000)
    assert likeness.common_area(a, a, 0.05) == pytest.approx(1, abs=1e-3)
    assert likeness.common_area(a, b, 0.05) == pytest.approx(0.617, abs=0.01)  # 2 Phi(-1/2)
    assert likeness.common_area(a, a + 50, 0.05) < 1e-6
    assert likeness.common_area([1, 1, 1], [1, 1], 0.0) == pytest.approx(1, abs=1e-3)
    assert likeness.common_area([1, 1], [2, 2], 0.0) < 1e-3


def test_overlaps_tell_music_from_its_shuffle(rng):
    here = [tune(rng) for _ in range(30)]
    alike = likeness.overlaps(here, [tune(rng) for _ in range(30)])
    other_key = likeness.overlaps(here, [tune(rng, key=1) for _ in range(30)])
    shuffled = likeness.overlaps(here, likeness.shuffled([tune(rng) for _ in range(30)]))
    assert set(alike) == {*likeness.FEATURES, "mean"}
    assert alike["mean"] == np.mean([alike[name] for name in likeness.FEATURES])
    assert all(0 <= area <= 1 for area in [*alike.values(), *shuffled.values()])
    assert alike["mean"] > 0.85
    assert other_key["pitch_classes"] < 0.3
    assert other_key["durations"] > 0.9
    assert shuffled["mean"] < alike["mean"] - 0.1
    with pytest.raises(ValueError, match="expected at least 3 and 1 pieces, got 2 and 30"):
        likeness.overlaps(here[:2], here)


def test_shuffling_keeps_what_there_is(rng):
    pieces = [tune(rng, notes=n) for n in (5, 9, 30)]
    made = likeness.shuffled(pieces, seed=3)
    assert [len(score.notes) for score in made] == [5, 9, 30]
    for column in ("start", "duration", "pitch"):
        before, after = (np.sort(np.concatenate([s.notes[column] for s in part])) for part in (pieces, made))
        assert np.array_equal(before, after)
    assert all(a == b for a, b in zip(made, likeness.shuffled(pieces, seed=3), strict=True))
    assert any(a != b for a, b in zip(made, likeness.shuffled(pieces, seed=4), strict=True))


def test_excerpts_are_whole_bars(rng):
    score = tune(rng, notes=40, duration=480)  # ten bars of four
    parts = likeness.excerpts(score, 4)
    assert [len(part.notes) for part in parts] == [16, 16]
    assert all(part.notes["start"][0] == 0 for part in parts)
    silent = Score([(0, 480, 60), (5 * 1920, 480, 60)])
    assert [len(part.notes) for part in likeness.excerpts(silent, 1)] == [1, 1]
