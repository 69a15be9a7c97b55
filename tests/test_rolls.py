"""Piano rolls against their twin, pretty_midi and symusic; and the times in seconds they are made of."""

import io
import warnings

import numpy as np
import pytest

from musicgen_ext import _core
from musicgen_ext.midi import Score, read_midi


def bytes_of(division, tracks, *, format=1):
    """A file of `tracks`, each a list of (tick, event's bytes) in order."""
    chunks = [b"MThd" + bytes([0, 0, 0, 6, 0, format, 0, len(tracks)]) + division.to_bytes(2, "big")]
    for events in tracks:
        body, now = b"", 0
        for tick, event in [*events, (events[-1][0] if events else 0, b"\xff\x2f\x00")]:
            delta, now = tick - now, tick
            digits = [delta & 127]
            while delta := delta >> 7:
                digits.append(delta & 127 | 128)
            body += bytes(reversed(digits)) + event
        chunks.append(b"MTrk" + len(body).to_bytes(4, "big") + body)
    return b"".join(chunks)


def tempo(microseconds):
    return b"\xff\x51\x03" + microseconds.to_bytes(3, "big")


# -- seconds ---------------------------------------------------------------------------------------------------------


def random_tempos(rng, count, ticks):
    times = np.sort(rng.integers(0, ticks, count)) * (rng.random(count) < 0.8)
    values = rng.choice([500_000, 400_001, 1, 16_777_215, int(rng.integers(1, 1 << 24))], count)
    return [(int(time), tempo(int(value))) for time, value in zip(np.sort(times), values, strict=True)]


@pytest.mark.parametrize("division", [1, 96, 480, 32_767, 0xE728, 0xE250, 0xE704, 0xE864])
@pytest.mark.parametrize("format", [1, 2])
def test_R07_native_seconds_are_those_of_a_score(rng, division, format):
    tracks = [random_tempos(rng, 30, 5000) for _ in range(3)]
    tracks[1].insert(0, (0, b"\xff\x51\x03\x00\x00\x00"))  # a tempo of 0 and one too short: no tempos
    tracks[2].insert(0, (0, b"\xff\x51\x02\x01\x02"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        score = read_midi(bytes_of(division, tracks, format=format))
    ticks = rng.integers(0, 10_000, 500)
    for track in range(3):
        expected = score.to_seconds(ticks, track=track)
        np.testing.assert_array_equal(_core.midi_seconds(*score._tables(), ticks, track, False), expected)
    assert _core.midi_duration(*score._tables()) == score.end_time


def test_R07_smpte_seconds(rng):
    ticks = rng.integers(0, 1 << 40, 1000)
    for fps, exact in ((24, 24), (25, 25), (29, 30_000 / 1001), (30, 30)):
        score = read_midi(bytes_of((256 - fps) << 8 | 80, [[(1, tempo(400_000))]]))
        for order in (False, True):
            seconds = _core.midi_seconds(*score._tables(), ticks, 0, order)
            np.testing.assert_allclose(seconds, ticks / (exact * 80), rtol=1e-15)
            assert (seconds >= 0).all()


def test_R12_seconds_of_ticks_beyond_32_bits():
    score = Score([(0, 1 << 40, 60)], ticks_per_quarter=1, tempos=[(0, 3), (1 << 39, 16_777_215)])
    exact = ((1 << 39) * 3 + (1 << 39) * 16_777_215) / 1e6
    assert _core.midi_seconds(*score._tables(), np.array([1 << 40]), 0, False)[0] == exact == score.end_time


def test_seconds_have_the_bits_of_pretty_midi(rng):
    pretty_midi = pytest.importorskip("pretty_midi")
    for division in (1, 96, 480, 960):
        data = bytes_of(division, [random_tempos(rng, 60, 3000), [(8000, b"\x90\x40\x40"), (8001, b"\x80\x40\x40")]])
        pm = pretty_midi.PrettyMIDI(io.BytesIO(data))
        ticks = rng.permutation(8000)
        expected = pm._PrettyMIDI__tick_to_time[ticks]
        tables = read_midi(data, max_duration=1e9)._tables()
        np.testing.assert_array_equal(_core.midi_seconds(*tables, ticks, 0, True), expected)
