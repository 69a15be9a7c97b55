"""Ticks, seconds, beats and bars: inverses of one another, and what pretty_midi and symusic say."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import musicgen_ext as mg
from musicgen_ext.tables import TIME_SIGNATURE
from musicgen_ext.timing import BarMap

ROOT = Path(__file__).parents[1]
REAL_FILES = sorted((ROOT.parent / "shared" / "data" / "midi_samples").glob("*.mid"))

meters = st.lists(
    st.tuples(st.integers(0, 3000), st.integers(1, 20), st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128])), max_size=6
)


# -- beats -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-(2**40), 2**40), min_size=1), st.integers(1, 32_767))
def test_beats_and_ticks_are_inverses(ticks, ticks_per_quarter):
    score = mg.Score(ticks_per_quarter=ticks_per_quarter)
    beats = score.to_beats(ticks)
    assert beats.dtype == np.float64
    assert score.from_beats(beats).tolist() == ticks
    exact = score.to_beats(ticks, exact=True)
    assert exact.tolist() == [Fraction(tick, ticks_per_quarter) for tick in ticks]
    assert score.from_beats(exact, exact=True).tolist() == ticks


def test_beats_are_quarter_notes_of_any_shape():
    score = mg.Score(ticks_per_quarter=480, time_signatures=[(0, 6, 8)])
    assert score.to_beats(240) == 0.5
    assert score.to_beats(240, exact=True).item() == Fraction(1, 2)
    assert score.from_beats([[1, 2], [3, 4]]).tolist() == [[480, 960], [1440, 1920]]
    assert score.from_beats(1 / 3) == 160
    assert score.from_beats(Fraction(1, 7)) == 69
    with pytest.raises(ValueError, match="beats: expected times on one of the 480 ticks of a beat, got 1/7"):
        score.from_beats([Fraction(1), Fraction(1, 7)], exact=True)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="beats: expected finite numbers, got"):
            score.from_beats([0, bad])
    with pytest.raises(ValueError, match="beats: expected times below 2"):
        score.from_beats(1e300)
    with pytest.raises(TypeError, match="beats: expected numbers, got <U1"):
        score.from_beats(["a"])


def test_a_beat_of_smpte_time_is_half_a_second():
    data = b"MThd\0\0\0\6\0\1\0\1" + bytes([256 - 25, 40]) + b"MTrk\0\0\0\4\0\xff\x2f\0"
    score = mg.read_midi(data)
    assert score.to_seconds(score.from_beats(3)) == 1.5
    assert score.to_bars(score.to_ticks([0, 1.999, 2.0]))[0].tolist() == [1, 1, 2]


# -- bars ------------------------------------------------------------------------------------------------------------


def slow_bars(signatures, ticks_per_quarter, end):
    """(first tick, number) of the bars of `BarMap`, counted one by one with fractions."""
    segments = {0: (4, 4)} | {time: (n, d) for time, n, d in sorted(signatures, key=lambda row: row[0])}
    times = sorted(segments)
    lengths = [max(Fraction(4 * ticks_per_quarter * n, d), Fraction(1)) for n, d in (segments[t] for t in times)]
    begins, number = [], 1
    if len(times) > 1 and times[1] == lengths[0] < lengths[1] and lengths[1].denominator == 1:
        begins, number, times, lengths = [(0, 0)], 1, times[1:], lengths[1:]
    for time, until, length in zip(times, [*times[1:], max(end, times[-1] + 1)], lengths, strict=True):
        for n in itertools.count():
            begin = time + -(-n * length // 1)
            if time + n * length >= until:
                break
            begins.append((int(begin), number))
            number += 1
    return [row for row in begins if row[0] < max(end, 1)]


@settings(max_examples=200, deadline=None)
@given(meters, st.sampled_from([1, 3, 10, 24, 96, 480]), st.integers(0, 4000))
def test_bars_are_what_counting_gives(signatures, ticks_per_quarter, end):
    rows = np.zeros(len(signatures), TIME_SIGNATURE)
    for field, values in zip(("time", "numerator", "denominator"), zip(*signatures, strict=True), strict=False):
        rows[field] = values
    bars = BarMap(rows, ticks_per_quarter)
    table = bars.bars(end)
    expected = slow_bars(signatures, ticks_per_quarter, end)
    # A bar of a fraction of ticks that is cut short may have no tick of its own: it is counted, and lasts none.
    assert list(zip(table["start"].tolist(), table["number"].tolist(), strict=True)) == expected
    assert np.all(table["duration"] >= 0)
    ticks = np.arange(max(end, 1))
    number, place = bars.to_bars(ticks)
    assert np.array_equal(bars.from_bars(number) + place, ticks)
    assert np.all(place >= 0)
    assert np.all(np.diff(number) >= 0)


def test_bars_follow_the_time_signatures():
    score = mg.Score(
        [(0, 480 * 14, 60)], time_signatures=[(0, 1, 4), (480, 3, 4), (480 * 7, 4, 4)]
    )  # one beat before the first whole bar
    assert (score.bars["start"] / 480).tolist() == [0, 1, 4, 7, 11]
    assert (score.bars["duration"] / 480).tolist() == [1, 3, 3, 4, 4]
    assert score.bars["number"].tolist() == [0, 1, 2, 3, 4]
    assert score.bars[["numerator", "denominator"]].tolist() == [(3, 4)] * 3 + [(4, 4)] * 2
    number, place = score.to_bars([[0, 479], [480, 480 * 7]])
    assert number.tolist() == [[0, 0], [1, 3]]
    assert place.tolist() == [[960, 1439], [0, 0]]
    assert score.from_bars([0, 1, 3, 5]).tolist() == [-960, 480, 3360, 7200]
    assert [score.meter_at(tick) for tick in (0, 480, 480 * 7 - 1, 480 * 7)] == [(3, 4), (3, 4), (3, 4), (4, 4)]

    from musicgen_ext.pictures import _bars

    ticks, labels = _bars(score)
    assert ticks.tolist() == score.bars["start"].tolist()
    assert labels == ["0", "1", "2", "3", "4"]


def test_a_signature_cuts_the_bar_before_it_short():
    score = mg.Score([(0, 480 * 7, 60)], time_signatures=[(0, 4, 4), (480 * 5, 2, 4)])
    assert (score.bars["start"] / 480).tolist() == [0, 4, 5]
    assert (score.bars["duration"] / 480).tolist() == [4, 1, 2]
    assert mg.Score().bars.tolist() == [(0, 1920, 1, 4, 4)]


def test_bars_name_what_is_wrong():
    score = mg.Score([(2**62, 1, 60)], time_signatures=[(0, 1, 128)])
    with pytest.raises(ValueError, match=r"bars: expected at most 10000000, got \d+ up to tick"):
        _ = score.bars
    number, place = score.to_bars(2**62)
    assert score.from_bars(number) + place == 2**62
    with pytest.raises(TypeError, match="ticks: expected integers, got float64"):
        score.to_bars(0.5)
    with pytest.raises(TypeError, match="bars: expected integers, got float64"):
        score.from_bars(0.5)


def test_every_track_of_a_format_2_file_has_its_own_bars():
    def track(numerator):
        event = bytes([0, 0xFF, 0x58, 4, numerator, 2, 24, 8, 0x8F, 0, 0xFF, 0x2F, 0])
        return b"MTrk" + len(event).to_bytes(4, "big") + event

    score = mg.read_midi(b"MThd\0\0\0\6\0\2\0\2\1\xe0" + track(3) + track(4))
    assert [int(score.from_bars(3, track=n)) for n in (0, 1)] == [2 * 3 * 480, 2 * 4 * 480]
    assert [int(score.to_bars(1440, track=n)[0]) for n in (0, 1)] == [2, 1]


@pytest.mark.skipif(not REAL_FILES, reason="no folder of real files beside the checkout (../shared/data/midi_samples)")
def test_real_downbeats_agree_with_pretty_midi_and_symusic():
    symusic = pytest.importorskip("symusic")
    for path in REAL_FILES:
        score = mg.read_midi(path)
        starts = score.bars["start"]
        downbeats = score.to_pretty_midi().get_downbeats()
        count = min(len(downbeats), len(starts))
        assert count >= len(starts) - 1
        np.testing.assert_allclose(score.to_seconds(starts)[:count], downbeats[:count], atol=1e-6)
        ticks = np.asarray(symusic.Score(str(path)).get_downbeats())
        count = min(len(ticks), len(starts))
        assert count >= len(starts) - 1
        assert starts[:count].tolist() == ticks[:count].tolist()
