"""Adversarial models: bars as pictures, two networks against each other, and the draws of what they learnt."""

import numpy as np
import pytest

from musicgen_ext import encodings
from musicgen_ext.encodings import RollBars
from musicgen_ext.errors import WeightsError
from musicgen_ext.midi import Score

# -- bars as pictures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("onsets", [True, False])
@pytest.mark.parametrize("density", [0.0, 0.03, 0.3, 1.0])
def test_windows_undo_decode(rng, onsets, density):
    encoding = RollBars(steps_per_quarter=3, quarters=2, lowest_pitch=120, num_pitches=8, onsets=onsets)
    rolls = (rng.random((7, *encoding.shape)) < density).astype(np.uint8)
    score = encoding.decode(rolls, tempo=90)
    sounding = rolls[:, 0].reshape(-1, 8)
    before = np.vstack([np.zeros((1, 8), np.uint8), sounding[:-1]])
    begins = sounding & (1 - before)
    if onsets:  # what is heard: an onset where a sound begins, none without sound
        begins |= sounding & rolls[:, 1].reshape(-1, 8)
        rolls[:, 1] = begins.reshape(rolls[:, 1].shape)
    assert len(score.notes) == begins.sum()
    bars = encoding.windows(score)
    assert np.array_equal(bars, rolls[: len(bars)])
    assert not rolls[len(bars) :].any()
    again = encoding.decode(bars, tempo=90)
    assert np.array_equal(again.notes, score.notes)
    assert again.tempos[0][1] == round(60e6 / 90)


def test_windows_are_the_bars_that_fit():
    encoding = RollBars(lowest_pitch=60, num_pitches=12)
    notes = [(0, 100, 60), (1910, 500, 61), (1920, 30, 61), (3840, 480, 62), (5280, 7 * 480, 63), (5280, 480, 59)]
    score = Score(notes, time_signatures=[(0, 4, 4), (3840, 3, 4), (5280, 4, 4)])
    issues = []
    rolls = encoding.windows(score, issues)
    assert rolls.shape == (4, 2, 16, 12)  # two of 4/4, one of 3/4 that is left out, two of 4/4
    assert rolls[0, 0, :, 0].tolist() == [1] + [0] * 15  # 100 of 120 ticks
    assert rolls[0, :, :, 1].sum() == 0  # 1910 is nearer to the next bar
    assert rolls[1, 0, :, 1].tolist() == [1] * 4 + [0] * 12
    assert rolls[1, 1, :, 1].tolist() == [1] + [0] * 15
    assert rolls[2, 0, :, 3].all()
    assert rolls[3, 0, :, 3].tolist() == [1] * 12 + [0] * 4
    assert rolls[2:, 1, :, 3].sum() == 1  # it goes on without an onset
    assert len(issues) == 2
    assert issues[0].startswith("1 notes outside")
    assert issues[1].startswith("1 bars")


def test_drums_and_empty_scores_have_no_pictures():
    drums = Score({"start": [0], "duration": [10], "pitch": [60], "channel": [9]})
    issues = []
    assert not RollBars().windows(drums, issues).any()
    assert issues == ["1 notes of drums are left out"]
    assert RollBars().windows(Score()).shape[1:] == (2, 16, 48)
    assert len(RollBars().decode(np.zeros((0, 2, 16, 48))).notes) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_pitches": 0}, "num_pitches: expected an integer in"),
        ({"lowest_pitch": 100, "num_pitches": 40}, "num_pitches: expected at most 28"),
        ({"steps_per_quarter": 7}, "steps_per_quarter: expected a divisor of 480, got 7"),
        ({"onsets": 1}, "onsets: expected True or False, got 1"),
        ({"key": 1}, "expected keys out of"),
    ],
)
def test_encodings_out_of_range_are_refused(options, words):
    with pytest.raises(WeightsError, match=words):
        encodings.load({"name": "roll_bars", **options})


def test_rolls_that_do_not_fit_are_refused():
    encoding = RollBars()
    assert encodings.load(encoding.to_dict()) == encoding
    with pytest.raises(ValueError, match=r"rolls: expected shape \(N, 2, 16, 48\), got \(2, 16, 48\)"):
        encoding.decode(np.zeros((2, 16, 48)))
    with pytest.raises(ValueError, match="tempo: expected 4 to"):
        encoding.decode(np.zeros((1, 2, 16, 48)), tempo=float("nan"))
