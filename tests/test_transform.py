"""Operations on scores: the laws they keep, what plain loops say, and that nothing is lost on the way."""

from __future__ import annotations

import dataclasses
import itertools
import random
import tracemalloc
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import musicgen_ext as mg
from fuzz_midi import END, chunk, random_file
from musicgen_ext.general_midi import key_name
from musicgen_ext.midi import Text, Track

FIELDS = ("start", "duration", "pitch", "velocity", "track")

notes = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(1, 2000), st.integers(0, 127), st.integers(1, 127), st.integers(0, 3)),
    max_size=25,
)
times = st.integers(0, 6000)
scores = st.builds(
    mg.Score,
    notes,
    ticks_per_quarter=st.sampled_from([1, 96, 480, 32_767]),
    tempos=st.lists(st.tuples(times, st.integers(1, 2**24 - 1)), max_size=4),
    time_signatures=st.lists(st.tuples(times, st.integers(1, 12), st.sampled_from([2, 4, 8])), max_size=3),
    key_signatures=st.lists(st.tuples(times, st.integers(-7, 7), st.integers(0, 1)), max_size=3),
    programs=st.lists(st.tuples(times, st.integers(0, 127), st.integers(0, 15), st.integers(0, 3)), max_size=4),
    controls=st.lists(
        st.tuples(times, st.sampled_from([7, 64, 64, 101]), st.integers(0, 127), st.integers(0, 3), st.integers(0, 3)),
        max_size=12,
    ),
    pitch_bends=st.lists(st.tuples(times, st.integers(-8192, 8191), st.integers(0, 3), st.integers(0, 3)), max_size=4),
    texts=st.lists(
        st.builds(
            Text, times, st.sampled_from(["text", "marker", "lyric", "track_name"]), st.binary(max_size=4), st.just(0)
        ),
        max_size=4,
    ),
)


def everything(count: int = 40) -> list[mg.Score]:
    """Scores with every kind of event, nested notes, long gaps, all formats."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mg.MidiWarning)
        return [mg.read_midi(random_file(random.Random(n)), max_duration=float("inf")) for n in range(count)]


EVERYTHING = everything()


def rows(score: mg.Score, *fields: str) -> list[tuple[int, ...]]:
    return sorted(score.notes[list(fields or FIELDS)].tolist())


def other_events(score: mg.Score) -> list[tuple[object, ...]]:
    """Every event with its payload, without its track and place."""
    table = score._event_table
    data, ends = table.payload.tobytes(), [0, *table.ends.tolist()]
    payloads = [data[a:b] for a, b in itertools.pairwise(ends)]
    index = table.payload_of.tolist()
    return sorted(
        (row[0], *row[2:5], payloads[i] if row[2] >= 0xF0 else b"")
        for row, i in zip(table.rows.tolist(), index, strict=True)
    )


def in_quarters(score: mg.Score) -> bool:
    return score.format != 2 and score.smpte is None


def piece(**changes) -> mg.Score:
    """Three parts and drums, with a pickup."""
    return mg.Score(
        **{
            "notes": [
                (480 * n, 480, 60 + n + 5 * part if part < 3 else 36, 80, part) for part in range(4) for n in range(9)
            ],
            "tempos": [(0, 500_000), (1920, 600_000)],
            "time_signatures": [(0, 1, 4), (480, 4, 4)],
            "key_signatures": [(0, -3, 0)],
            "tracks": [Track("Flute", 73), Track("Oboe", 68), Track("Cello", 42), Track("Kit", is_drum=True)],
            "controls": [(0, 7, 90, 0, 0), (960, 7, 80, 0, 0), (960, 64, 127, 2, 2), (1440, 64, 0, 2, 2)],
            "pitch_bends": [(500, 100, 1, 1)],
            "texts": [Text(0, "text", b"title"), Text(960, "marker", b"A"), Text(2400, "lyric", b"la", 1)],
        }
        | changes
    )


# -- copies ------------------------------------------------------------------------------------------------------------

OPERATIONS = {
    "copy": lambda score: score.copy(),
    "transpose": lambda score: score.transpose(5, outside="fold"),
    "with_key": lambda score: score.with_key("Eb major" if len(score.key_signatures) else "C", from_key="C major"),
    "scale_tempo": lambda score: score.scale_tempo(1.5),
    "with_tempo": lambda score: score.with_tempo(90),
    "with_programs": lambda score: score.with_programs("Violin"),
    "trim": lambda score: score.trim(100, 4000),
    "quantize": lambda score: score.quantize(3, what="both"),
    "resample": lambda score: score.resample(24),
    "apply_sustain": lambda score: score.apply_sustain(drop_controls=True),
    "merge_tracks": lambda score: score.merge_tracks(),
    "split_tracks": lambda score: score.split_tracks("pitch"),
    "concatenate": lambda score: mg.Score.concatenate([score, score]),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_original_stays_as_it_was(name):
    score = piece(provenance={"seed": 3, "more": [1]})
    before = score.to_bytes()
    new = OPERATIONS[name](score)
    assert isinstance(new, mg.Score)
    new.notes["pitch"] = 1
    new.provenance["more"] = 0
    new.tempos = []
    assert score.to_bytes() == before
    assert score.provenance == {"seed": 3, "more": [1]}


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "with_key"])
def test_the_new_score_can_be_saved_and_read(name):
    for score in [mg.Score(), piece(), *EVERYTHING]:
        try:
            new = OPERATIONS[name](score)
        except ValueError as error:
            if not in_quarters(score):
                continue
            # What a file itself can hold, but not twice as much of.
            assert "MIDI file" in str(error) or "65535" in str(error), error  # noqa: PT017
            continue
        try:
            data = new.to_bytes()
        except ValueError as error:
            assert "which is all that a MIDI file can hold" in str(error)  # noqa: PT017
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mg.MidiWarning)
            assert mg.read_midi(data, max_duration=float("inf")) == new


def test_the_provenance_says_what_was_done():
    score = piece(provenance={"seed": 3})
    new = score.transpose(2).with_programs({"Cello": "Violin"}).trim(1, 3, unit="bars")
    assert new.provenance == {
        "seed": 3,
        "changes": ["transpose(2)", "with_programs({'Cello': 'Violin'})", "trim(1, 3, unit='bars')"],
    }
    assert piece().transpose(2).provenance == {}
    joined = mg.Score.concatenate([new, piece()])
    assert joined.provenance == {"concatenated": [new.provenance, {}]}
    assert mg.read_midi(joined.to_bytes()).provenance == joined.provenance


@pytest.mark.parametrize("name", ["transpose", "scale_tempo", "apply_sustain", "split_tracks", "merge_tracks"])
def test_events_that_are_not_spoken_of_survive(name):
    changed = {"transpose": 0x59, "scale_tempo": 0x51, "split_tracks": 3}.get(name)
    operation = OPERATIONS[name] if name != "apply_sustain" else lambda score: score.apply_sustain()
    for score in [piece(), *EVERYTHING]:
        if not in_quarters(score):
            continue
        new = operation(score)
        for before, after in ((score, new), (new, score)):
            if name == "scale_tempo" and before is new:
                continue
            left = [e for e in other_events(before) if not (e[1] == 0xFF and e[2] == changed)]
            found = [e for e in other_events(after) if not (e[1] == 0xFF and e[2] == changed)]
            assert left == found
        assert new._chunks == score._chunks


# -- pitch -------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(scores, st.integers(-12, 12))
def test_transposing_there_and_back_is_nothing(score, semitones):
    inside = score.notes[(score.notes["pitch"] >= 12) & (score.notes["pitch"] < 116)]
    score.notes = inside
    there = score.transpose(semitones)
    back = there.transpose(-semitones)
    assert rows(back) == rows(score)
    assert (back.key_signatures["sharps"] * 7 % 12).tolist() == (score.key_signatures["sharps"] * 7 % 12).tolist()
    back.key_signatures = there.key_signatures = score.key_signatures = []
    assert back == score
    moved = there.notes["pitch"].astype(int) - score.notes["pitch"]
    assert np.array_equal(moved, np.where(score.notes["channel"] == 9, 0, semitones))
    assert score.transpose(0) == score


def test_transposing_moves_keys_aftertouch_and_if_asked_drums():
    touched = bytes.fromhex("00903c40 00a03c20 00993c40 10803c40 00893c40")
    score = mg.read_midi(chunk(b"MThd", b"\0\0\0\1\1\xe0") + chunk(b"MTrk", touched + END))
    up = score.transpose(3)
    assert up.notes["pitch"].tolist() == [63, 60]
    assert up._events["data1"].tolist() == [63]
    assert score.transpose(3, drums=True).notes["pitch"].tolist() == [63, 63]
    keys = [(-3, 0), (0, 1), (6, 0), (-6, 0), (7, 0)]
    score = mg.Score(key_signatures=[(n, *key) for n, key in enumerate(keys)])
    assert score.transpose(2).key_signatures["sharps"].tolist() == [-1, 2, -4, -4, -3]
    assert score.transpose(-1).key_signatures["sharps"].tolist() == [2, 5, -1, -1, 0]
    assert score.transpose(12) == score
    assert score.transpose(2).key_signatures["minor"].tolist() == [0, 1, 0, 0, 0]


def test_notes_that_leave_the_range():
    score = mg.Score([(0, 10, 2), (0, 10, 60), (0, 10, 125)])
    with pytest.raises(
        ValueError, match=r"semitones: expected pitches within 0 to 127, got 1 of 3 notes outside, from"
    ):
        score.transpose(3)
    assert score.transpose(3, outside="drop").notes["pitch"].tolist() == [5, 63]
    assert score.transpose(3, outside="fold").notes["pitch"].tolist() == [5, 63, 116]
    assert score.transpose(-30, outside="fold").notes["pitch"].tolist() == [8, 30, 95]
    assert score.transpose(127, outside="fold").notes["pitch"].tolist() == [117, 127, 120]
    with pytest.raises(ValueError, match="outside: expected 'raise', 'fold' or 'drop', got 'cut'"):
        score.transpose(3, outside="cut")
    with pytest.raises(ValueError, match="semitones: expected -127 to 127, got 128"):
        score.transpose(128)
    with pytest.raises(TypeError, match=r"semitones: expected an integer, got float 1\.5"):
        score.transpose(1.5)


@pytest.mark.parametrize(
    ("key", "direction", "step", "sharps"),
    [("C major", "nearest", -3, 0), ("c", "up", 9, 0), ("A", "nearest", 6, 3), ("Bb", "down", -5, -2),
     ("F♯ major", "nearest", 3, 6), ("Gb", "nearest", 3, -6), ("Eb maj", "down", 0, -3)],
)  # fmt: skip
def test_another_key(key, direction, step, sharps):
    new = piece().with_key(key, direction=direction)
    assert int(new.notes["pitch"][0]) - 60 == step
    assert new.key_signatures.tolist() == [(0, sharps, 0, 0)]
    assert rows(new)[0][2] == 36


def test_keys_that_cannot_be():
    assert mg.Score([(0, 1, 60)]).with_key("Dm", from_key="C minor").notes["pitch"].tolist() == [62]
    assert mg.Score([(0, 1, 60)]).with_key("D min", from_key="a  minor").notes["pitch"].tolist() == [65]
    with pytest.raises(ValueError, match="key: expected a major key, as the score's is, got 'A minor'"):
        piece().with_key("A minor")
    with pytest.raises(ValueError, match="from_key: expected the key the score is in, because it has no key signature"):
        mg.Score().with_key("C")
    for bad in ("H", "C sharp", "", 3, "Cmm"):
        with pytest.raises(ValueError, match="key: expected a key such as 'Eb major', 'F# minor' or 'Dm', got"):
            piece().with_key(bad)
    with pytest.raises(ValueError, match="key: expected a key of at most seven sharps or flats, got 'G# major'"):
        piece().with_key("G# major")
    with pytest.raises(ValueError, match="direction: expected 'nearest', 'up' or 'down', got 'left'"):
        piece().with_key("C", direction="left")


def test_keys_are_named_as_they_are_written():
    names = [key_name(sharps, minor) for minor in (False, True) for sharps in (-7, -3, 0, 1, 7)]
    assert names[:5] == ["C♭ major", "E♭ major", "C major", "G major", "C♯ major"]
    assert names[5:] == ["A♭ minor", "C minor", "A minor", "E minor", "A♯ minor"]
    for minor in (False, True):
        for sharps in range(-7, 8):
            name = key_name(sharps, minor)
            made = mg.Score(key_signatures=[(0, 0, minor)]).with_key(name)
            assert made.key_signatures.tolist() == [(0, sharps, minor, 0)]


# -- trim --------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(scores)
def test_a_trim_of_the_whole_is_the_same(score):
    assert score.trim() == score
    assert score.trim(0, 10**9) == score
    assert score.trim(0, 10**5, unit="beats", notes="drop") == score


def state(score: mg.Score, tick: int) -> dict[object, object]:
    """What is in force at a tick, told by a loop over the events in time order."""
    found: dict[object, object] = {}
    for kind, table in (("t", score.tempos), ("m", score.time_signatures), ("k", score.key_signatures)):
        for row in sorted(table.tolist(), key=lambda row: row[0]):
            if row[0] <= tick:
                found[kind] = row[1:-1]
    for kind, table in (("p", score.programs), ("b", score.pitch_bends)):
        for time, value, channel, track in table.tolist():
            if time <= tick:
                found[kind, track, channel] = value
    for time, number, value, channel, track in score.controls.tolist():
        if time <= tick:
            found["c", track, channel, number] = value
    return found


@settings(max_examples=100, deadline=None)
@given(scores, times, st.integers(1, 3000), st.sampled_from(["cut", "drop", "keep"]))
def test_what_is_in_force_goes_with_a_trimmed_part(score, begin, length, across):
    part = score.trim(begin, begin + length, notes=across)
    expected = []
    for start, duration, *rest in score.notes[list(FIELDS)].tolist():
        end, inside = start + duration, begin <= start < begin + length
        if across == "cut":
            start, end = max(start, begin), min(end, begin + length)
            inside = end > start
        elif across == "drop":
            inside = start >= begin and end <= begin + length
        if inside:
            expected.append((start - begin, end - start, *rest))
    assert rows(part) == sorted(expected)
    bar_line = score.to_bars(begin)[1] == 0
    for tick in (0, length // 2, length - 1):
        now, then = state(part, tick), state(score, begin + tick)
        if not bar_line:  # the rest of the bar may have got a metre of its own
            now.pop("m", None), then.pop("m", None)
        assert now == then
    assert [(t.time, t.data) for t in part.texts if t.kind in ("marker", "lyric")] == [
        (t.time - begin, t.data) for t in score.texts
        if t.kind in ("marker", "lyric") and begin <= t.time < begin + length
    ]  # fmt: skip
    assert sorted(t.data for t in part.texts if t.kind == "track_name" and t.time == 0) == sorted(
        t.data for t in score.texts if t.kind == "track_name" and t.time <= begin
    )
    assert part.trim() == part


def test_what_is_no_matter_of_a_moment_survives_a_trim():
    for score in EVERYTHING:
        begin = 200
        part = score.trim(begin)
        lost = [e for e in other_events(score) if e[0] < begin]
        kept = [e[1:] for e in other_events(part)]
        for event in lost:
            status, number = event[1], event[2]
            if status in (0xF0, 0xF7) or (status == 0xFF and number not in (1, 5, 6, 7, 0x51, 0x58, 0x59)):
                assert kept.count(event[1:]) == [e[1:] for e in other_events(score)].count(event[1:])


def test_trim_by_beats_seconds_and_bars():
    score = piece()
    assert score.trim(2, 4, unit="beats") == score.trim(960, 1920)
    assert score.trim(0.5, 2.6, unit="seconds") == score.trim(480, 2400)
    assert score.trim(1, 2, unit="bars") == score.trim(480, 2400)
    assert score.trim(0, 1, unit="bars") == score.trim(0, 480)
    assert score.trim(2, unit="bars").bars["start"].tolist() == [0]
    assert [t.data for t in score.trim(1, unit="bars").texts if t.kind != "track_name"] == [b"title", b"A", b"la"]


def test_a_cut_bar_becomes_a_pickup():
    score = piece()
    part = score.trim(1440)  # two beats into the first whole bar
    assert part.bars[["start", "number"]].tolist() == [(0, 0), (960, 1)]
    assert part.time_signatures[["time", "numerator", "denominator"]].tolist() == [(960, 4, 4), (0, 2, 4)] or (
        part.time_signatures[["time", "numerator", "denominator"]].tolist() == [(0, 2, 4), (960, 4, 4)]
    )
    for begin in (480 * 2 + 7, 480 * 2 + 60, 480 * 4 + 240):
        ours = score.trim(begin)
        whole = [start - begin for start in score.bars["start"].tolist() if start > begin]
        if (480 - begin % 480) % 15 == 0:
            assert ours.bars["start"].tolist()[1:] == whole
        else:
            assert ours.bars["start"].tolist()[0] == 0
    assert score.trim(1440, 1500).bars.tolist() == [(0, 1920, 1, 4, 4)]


def test_a_loop_keeps_its_silence():
    score = mg.Score([(0, 480, 60), (1920, 480, 62), (3840, 480, 64)])
    loop = score.trim(1, 2, unit="bars")
    whole = mg.Score.concatenate([loop] * 3)
    assert whole.notes["start"].tolist() == [0, 1920, 3840]
    assert mg.Score.concatenate([loop] * 3, align="tick") == whole


def test_trim_names_what_is_wrong():
    for arguments, message in (
        ((5, 5), r"end: expected a time after start=5, got 5 ticks"),
        ((-1,), "start: expected 0 to"),
    ):
        with pytest.raises(ValueError, match=message):
            piece().trim(*arguments)
    for unit, value, message in (
        ("beats", -0.5, r"start: expected beats >= 0, got -0\.5"),
        ("seconds", float("nan"), "start: expected seconds >= 0, got nan"),
        ("seconds", float("inf"), "start: expected seconds >= 0, got inf"),
        ("steps", 1, "unit: expected one of ticks, beats, seconds, bars, got 'steps'"),
    ):
        with pytest.raises(ValueError, match=message):
            piece().trim(value, unit=unit)
    with pytest.raises(ValueError, match="notes: expected 'cut', 'drop' or 'keep', got 'fade'"):
        piece().trim(0, 1, notes="fade")
    with pytest.raises(TypeError, match="start: expected a number, got str '1'"):
        piece().trim("1", unit="beats")
    with pytest.raises(TypeError, match=r"start: expected an integer, got float 1\.5"):
        piece().trim(1.5)
    pieces = next(score for score in EVERYTHING if score.format == 2)
    assert pieces.trim(0) == pieces
    with pytest.raises(ValueError, match="unit='bars': expected one timeline, got format 2"):
        pieces.trim(1, unit="bars")


# -- quantize and resample ---------------------------------------------------------------------------------------------


def nearest(value: Fraction) -> int:
    return int((2 * value + 1) // 2)  # halves up


@settings(max_examples=80, deadline=None)
@given(scores, st.integers(1, 50), st.sampled_from(["starts", "durations", "both"]))
def test_quantize_is_the_nearest_step(score, steps, what):
    new = score.quantize(steps, what=what)
    quarter = score.ticks_per_quarter
    expected = []
    for start, duration, *rest in score.notes[list(FIELDS)].tolist():
        if what != "durations":
            start = nearest(nearest(Fraction(start * steps, quarter)) * Fraction(quarter, steps))
        if what != "starts":
            duration = max(nearest(max(nearest(Fraction(duration * steps, quarter)), 1) * Fraction(quarter, steps)), 1)
        expected.append((start, duration, *rest))
    assert rows(new) == sorted(expected)
    assert new.quantize(steps, what=what) == new
    assert other_events(new) == other_events(score)
    assert score.quantize(steps, what=what, strength=0) == score
    half = score.quantize(steps, what="starts", strength=0.5)
    away = np.abs(np.sort(half.notes["start"]) - np.sort(score.notes["start"]))
    assert np.all(away <= np.ceil(quarter / steps / 4) + 1)


def test_quantize_far_away_and_what_is_wrong():
    score = mg.Score([(2**62 + 7, 5, 60)], ticks_per_quarter=480)
    assert (score.quantize(4).notes["start"][0] - 2**62) % 120 == -(2**62) % 120
    with pytest.raises(ValueError, match="steps_per_beat: expected 1 to 32767, got 0"):
        score.quantize(0)
    with pytest.raises(ValueError, match="what: expected 'starts', 'durations' or 'both', got 'ends'"):
        score.quantize(4, what="ends")
    for bad in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="strength: expected 0 to 1, got"):
            score.quantize(4, strength=bad)
    with pytest.raises(TypeError, match="strength: expected a number, got str"):
        score.quantize(4, strength="all")


@settings(max_examples=60, deadline=None)
@given(scores, st.integers(1, 32_767))
def test_resampling_is_the_nearest_tick(score, quarter):
    new = score.resample(quarter)
    old = score.ticks_per_quarter
    assert new.ticks_per_quarter == quarter
    expected = []
    for start, duration, *rest in score.notes[list(FIELDS)].tolist():
        begin, end = (nearest(Fraction(tick * quarter, old)) for tick in (start, start + duration))
        expected.append((begin, max(end - begin, 1), *rest))
    assert rows(new) == sorted(expected)
    for name in ("tempos", "controls", "programs"):
        assert getattr(new, name)["time"].tolist() == [
            nearest(Fraction(tick * quarter, old)) for tick in getattr(score, name)["time"].tolist()
        ]
    if 3 * old <= 32_767:
        assert score.resample(3 * old).resample(old) == score
    assert score.resample(old) == score


def test_smpte_time_becomes_ticks_per_quarter():
    track = bytes.fromhex("00ff510301ffff 00903c40 8310803c40 00ff2f00")  # a tempo that does not count
    score = mg.read_midi(chunk(b"MThd", b"\0\0\0\1\xe2\x0a") + chunk(b"MTrk", track))
    assert score.smpte == (30, 10)
    new = score.resample(480)
    assert new.smpte is None
    assert new.end_time == pytest.approx(score.end_time, abs=1e-3)
    assert len(new.tempos) == 0
    for call in (lambda: score.scale_tempo(2), lambda: score.with_tempo(60)):
        with pytest.raises(ValueError, match="expected ticks per quarter, got SMPTE time"):
            call()
    with pytest.raises(ValueError, match=r"ticks_per_quarter: expected times to stay below 2\^63 ticks"):
        mg.Score([(2**61, 1, 60)], ticks_per_quarter=1).resample(480)
    with pytest.raises(ValueError, match="ticks_per_quarter: expected 1 to 32767, got 0"):
        score.resample(0)


# -- tempo -------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(scores, st.floats(0.1, 10))
def test_a_scaled_tempo_scales_the_seconds(score, factor):
    score.tempos = [(time, max(min(tempo, 1_000_000), 1000)) for time, tempo, _ in score.tempos.tolist()]
    new = score.scale_tempo(factor)
    last = score._last_tick
    assert float(new.to_seconds(last)) * factor == pytest.approx(float(score.to_seconds(last)), rel=0.01 * factor)
    assert rows(new) == rows(score)
    back = new.scale_tempo(1 / factor)
    tempos = score.scale_tempo(1).tempos["microseconds_per_quarter"]  # with one at the beginning
    # Rounded to a microsecond, twice.
    assert np.all(np.abs(back.tempos["microseconds_per_quarter"] - tempos) <= factor / 2 + 1)


def test_tempos_that_a_file_cannot_hold():
    assert mg.Score().scale_tempo(2).tempos.tolist() == [(0, 250_000, 0)]
    assert piece().with_tempo(97.3).tempos.tolist() == [(0, round(6e7 / 97.3), 0)]
    with pytest.raises(ValueError, match=r"factor: expected tempos of 1 to 16777215 microseconds a quarter, got 5e"):
        mg.Score().scale_tempo(0.01)
    for bad in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"factor: expected a number above 0 \(2: twice as fast\), got"):
            mg.Score().scale_tempo(bad)
        with pytest.raises(ValueError, match=r"bpm: expected 3\.576 to 60000000 quarter notes per minute, got"):
            mg.Score().with_tempo(bad)
    with pytest.raises(TypeError, match="factor: expected a number, got str 'fast'"):
        mg.Score().scale_tempo("fast")
    two = next(score for score in EVERYTHING if score.format == 2 and len(score.tracks) > 1 and score.smpte is None)
    assert set(two.scale_tempo(2).tempos["track"].tolist()) == set(range(len(two.tracks)))
    assert two.with_tempo(60).tempos["track"].tolist() == list(range(len(two.tracks)))


# -- pedal -------------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(scores)
def test_the_pedal_holds_notes_until_it_is_lifted_or_they_are_struck_again(score):
    new = score.apply_sustain()
    table = score.notes.tolist()
    pedals = [row for row in score.controls.tolist() if row[1] == 64]
    last = score._last_tick
    expected = []
    for i, (start, duration, pitch, velocity, track, channel, release) in enumerate(table):
        end = start + duration
        of_channel = [row for row in pedals if row[3] == channel]
        own = [row for row in of_channel if row[4] == track] or of_channel
        own.sort(key=lambda row: row[0])
        before = [row[2] >= 64 for row in own if row[0] <= end]
        if before and before[-1]:
            lifted = next((row[0] for row in own if row[0] > end and row[2] < 64), last)
            again = [r[0] for j, r in enumerate(table) if j > i and (r[2], r[4], r[5]) == (pitch, track, channel)]
            end = max(end, min([lifted, *again[:1]]))
        expected.append((start, end - start, pitch, velocity, track, channel, release))
    assert new.notes.tolist() == expected
    assert new.apply_sustain() == new
    assert other_events(new) == other_events(score)
    dry = score.apply_sustain(drop_controls=True)
    assert dry.notes.tolist() == expected
    assert not np.any(dry.controls["number"] == 64)
    assert len(dry.controls) == len(score.controls) - len(pedals)


# -- instruments -------------------------------------------------------------------------------------------------------


def test_instruments_by_name_and_index():
    score = piece(
        programs=[(960, 5, 0, 0), (1000, 6, 2, 1)], controls=[(0, 0, 3, 0, 0), (0, 32, 1, 2, 2), (0, 7, 99, 0, 0)]
    )
    new = score.with_programs({"Flute": "Violin", 2: 12, "kit": 8})
    assert [track.program for track in new.tracks] == [40, 68, 12, 8]
    # Other program changes and bank selects of the channels are gone, but for those of tracks that play elsewhere.
    assert sorted(new.programs.tolist()) == [(0, 8, 9, 3), (0, 12, 2, 2), (0, 40, 0, 0), (0, 68, 1, 1)]
    assert new.controls.tolist() == [(0, 7, 99, 0, 0)]
    everyone = score.with_programs("string ensemble 1")
    assert [track.program for track in everyone.tracks] == [48, 48, 48, score.tracks[3].program]
    assert rows(new) == rows(score)
    for programs, message in (
        (
            {"Tuba": 1},
            r"\['Tuba'\]: expected the name of a track \('Flute', 'Oboe', 'Cello', 'Kit'\) or its index",
        ),
        ({7: 1}, r"programs\[7\]: expected 0 to 3, got 7"),
        ({0: 128}, r"programs\[0\]: expected 0 to 127, got 128"),
        ({0: "Violine"}, r"expected 0 to 127 or a General MIDI name \(such as Violin.*\), got 'Violine'"),
        ({0: "zzz"}, r"expected 0 to 127 or a General MIDI name, got 'zzz'"),
    ):
        with pytest.raises(ValueError, match=message):
            score.with_programs(programs)
    with pytest.raises(TypeError, match=r"programs\[0\]: expected an integer, got float"):
        score.with_programs({0: 1.5})
    with pytest.raises(ValueError, match=r"programs\[0\]: expected a track that plays notes, got one without"):
        mg.Score().with_programs({0: 1})


def test_tracks_can_be_given_new_names_programs_and_channels():
    score = piece()
    before = score.to_bytes()
    score.tracks = score.tracks
    assert score.to_bytes() == before
    wanted = (
        Track("Piccolo", 72, 0), Track("Oboe", None, 5), Track("", 42, 2), Track("Kit", 1, 9, True), Track("new", 3, 4)
    )  # fmt: skip
    score.tracks = wanted
    assert score.tracks == wanted
    assert set(score.notes["channel"][score.notes["track"] == 1].tolist()) == {5}
    assert score.pitch_bends.tolist() == [(500, 100, 5, 1)]
    assert rows(score) == rows(piece())
    assert mg.read_midi(score.to_bytes()).tracks == wanted
    score.tracks = [dataclasses.replace(t, channel=9) if t.name == "Piccolo" else t for t in score.tracks]
    assert score.tracks[0] == Track("Piccolo", 72, 9, True)
    assert score.notes["channel"][0] == 9
    empty = mg.Score()
    empty.tracks = [Track("a"), Track("b", is_drum=True), Track()]
    assert [track.name for track in empty.tracks] == ["a", "b", ""]
    empty.tracks = [Track("a"), Track("b")]
    with pytest.raises(ValueError, match="tracks: expected 2 to 65535, because so many are in use, got 1"):
        empty.tracks = [Track("a")]  # a name is an event
    empty.tracks = [Track("a"), Track()]
    empty.tracks = [Track("a")]
    assert empty.tracks == (Track("a"),)


def test_tracks_survive_what_they_hold():
    for score in EVERYTHING:
        before = score.copy()
        tracks = score.tracks
        score.tracks = tracks
        assert score == before
        score.tracks = [dataclasses.replace(track, name=f"part {i}") for i, track in enumerate(tracks)]
        assert [track.name for track in score.tracks] == [f"part {i}" for i in range(len(tracks))]
        score.tracks = [dataclasses.replace(track, program=7, channel=3, is_drum=False) for track in tracks]
        assert all(track.program == 7 and track.channel == 3 for track in score.tracks)


def test_tracks_that_cannot_be():
    score = piece()
    with pytest.raises(ValueError, match="tracks: expected 4 to 65535, because so many are in use, got 1"):
        score.tracks = [Track()]
    with pytest.raises(TypeError, match=r"tracks\[0\]: expected a Track, got str"):
        score.tracks = ["Flute"] * 4
    with pytest.raises(TypeError, match=r"tracks\[1\]\.name: expected a str, got int"):
        score.tracks = [Track(), Track(3)]
    with pytest.raises(ValueError, match=r"tracks\[0\]\.program: expected 0 to 127, got 200"):
        score.tracks = [Track(program=200)] * 4
    with pytest.raises(ValueError, match=r"tracks\[3\]\.channel: expected 9 for drums, got 2"):
        score.tracks = [*score.tracks[:3], Track(channel=2, is_drum=True)]
    assert score == piece()


# -- tracks ------------------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(scores, st.sampled_from(["channel", "program", "pitch"]))
def test_merging_what_was_split_keeps_every_note(score, by):
    split = score.split_tracks(by)
    fields = ("start", "duration", "pitch", "velocity", "channel")
    assert rows(split, *fields) == rows(score, *fields)
    merged = split.merge_tracks()
    assert rows(merged, *fields) == rows(score, *fields)
    assert set(merged.notes["track"].tolist()) <= {0}
    assert len(merged.tracks) == 1
    assert split.split_tracks(by) == split
    keys = {
        "channel": lambda row: row[4],
        "program": lambda row: row[4],
        "pitch": lambda row: (row[4], row[2]),
    }
    for track in range(len(split.tracks)):
        own = split.notes[split.notes["track"] == track]
        assert len({keys[by](row) for row in own[list(fields)].tolist()}) <= 1
    assert {tuple(e) for e in other_events(score)} <= {tuple(e) for e in other_events(split)}


def test_split_by_channel_of_a_file_with_one_track():
    score = piece(time_signatures=[], texts=[])
    merged = score.merge_tracks()
    assert merged.tracks == (Track("Flute", 73, 0),)
    split = merged.split_tracks()
    assert [t.name for t in split.tracks] == ["Flute", "Flute, channel 2", "Flute, channel 3", "Flute, channel 10"]
    assert [t.program for t in split.tracks] == [t.program for t in score.tracks]
    assert split.pitch_bends.tolist() == score.pitch_bends.tolist()
    assert rows(split) == rows(score)
    assert np.array_equal(split.synthesize(8000).y, score.synthesize(8000).y)


def test_split_by_program_and_pitch():
    score = mg.Score(
        [(0, 10, 60), (100, 10, 61), (200, 10, 62)],
        programs=[(0, 5), (100, 6), (200, 5)], controls=[(0, 7, 90), (100, 7, 91), (150, 7, 92)], tracks=[Track("a")],
    )  # fmt: skip
    split = score.split_tracks("program")
    assert [(t.name, t.program) for t in split.tracks] == [("a", 5), ("a, Electric Piano 2", 5)] or [
        (t.name, t.program) for t in split.tracks
    ] == [("a", 5), ("a, Harpsichord", 6)]
    assert split.notes[["start", "track"]].tolist() == [(0, 0), (200, 0), (100, 1)]
    assert split.controls[["time", "track"]].tolist() == [(0, 0), (100, 1), (150, 1)]
    kit = mg.Score([(0, 10, 36), (0, 10, 42), (10, 10, 36)], tracks=[Track("Kit", is_drum=True)]).split_tracks("pitch")
    assert [(t.name, t.channel) for t in kit.tracks] == [("Kit", 9), ("Kit, F♯2", 9)]
    assert mg.Score([(0, 1, 60, 80, 0, 3), (0, 1, 60, 80, 0, 2)]).split_tracks().tracks[1].name == "channel 4"
    with pytest.raises(ValueError, match="by: expected 'channel', 'program' or 'pitch', got 'name'"):
        score.split_tracks("name")


def test_merging_some_tracks():
    score = piece()
    new = score.merge_tracks(["Oboe", 2])
    assert [track.name for track in new.tracks] == ["Flute", "Oboe", "Kit"]
    assert np.bincount(new.notes["track"]).tolist() == [9, 18, 9]
    assert new.merge_tracks([0]) == new
    assert mg.read_midi(new.to_bytes()) == new
    with pytest.raises(ValueError, match=r"tracks\[1\]: expected the name of a track"):
        score.merge_tracks([0, "Tuba"])
    pieces = next(score for score in EVERYTHING if score.format == 2)
    with pytest.raises(ValueError, match="merge_tracks: expected one timeline, got format 2"):
        pieces.merge_tracks()


# -- concatenate -------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(scores, scores, st.sampled_from(["bar", "beat", "tick"]))
def test_each_piece_sounds_after_another_as_it_does_alone(first, second, align):
    first, second = first.resample(96), second.resample(96)
    joined = mg.Score.concatenate([first, second], align=align)
    if not (len(second.notes) or len(second._events)):
        return
    begin, end = joined._last_tick - second._last_tick, first._last_tick
    assert end <= begin <= end + {"tick": 0, "beat": 95, "bar": 96 * 4 * 12}[align]
    for track in range(4):
        before = np.count_nonzero(first.notes["track"] == track)
        late = joined.notes[joined.notes["track"] == track][before:].copy()
        late["start"] -= begin
        assert late.tolist() == second.notes[second.notes["track"] == track].tolist()
    now, then = state(joined, begin), state(second, 0)
    at_first = {"t": (500_000,), "m": (4, 4, 24, 8), "p": 0, "b": 0, 7: 100, 64: 0}
    for key, value in now.items():
        if key in then:
            assert value == then[key]
        elif key != "k" and key[-1] != 101:  # a key is not unset, and a parameter number stays
            assert value == at_first[key[-1] if key[0] == "c" else key[0]]


def test_concatenate_brings_resolutions_and_tempos_together():
    a = mg.Score([(0, 96, 60)], ticks_per_quarter=96, tempos=[(0, 400_000)], tracks=[Track("x", 5)])
    b = mg.Score([(0, 480, 62, 80, 1)], ticks_per_quarter=480)
    joined = mg.Score.concatenate([a, b])
    assert joined.ticks_per_quarter == 480
    assert joined.notes[["start", "duration", "track"]].tolist() == [(0, 480, 0), (1920, 480, 1)]
    assert joined.tempos.tolist() == [(0, 400_000, 0), (1920, 500_000, 0)]
    assert joined.programs.tolist() == [(0, 5, 0, 0), (1920, 0, 0, 0)]
    assert mg.Score.concatenate([a]) == a
    assert mg.Score.concatenate([a, a], align="beat").notes["start"].tolist() == [0, 96]
    assert mg.Score.concatenate([a, a], align="beat").tempos["time"].tolist() == [0, 96]
    with pytest.raises(ValueError, match="scores: expected at least one, got none"):
        mg.Score.concatenate([])
    with pytest.raises(TypeError, match=r"scores\[1\]: expected a Score, got int"):
        mg.Score.concatenate([a, 3])
    with pytest.raises(ValueError, match="align: expected 'bar', 'beat' or 'tick', got 'page'"):
        mg.Score.concatenate([a], align="page")
    pieces = next(score for score in EVERYTHING if score.format == 2)
    with pytest.raises(ValueError, match=r"scores\[0\]: expected one timeline, got format 2"):
        mg.Score.concatenate([pieces])


# -- R18 and scale -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["transpose", "trim", "quantize", "resample", "apply_sustain", "merge_tracks", "concatenate"]
)
def test_R18_notes_that_are_none_are_named_before_anything_is_done(name):
    score = mg.Score([(0, 10, 60), (5, 10, 61)], controls=[(0, 64, 127)])
    score.notes["pitch"][1] = 200
    with pytest.raises(ValueError, match=r"notes\[1\]\.pitch: expected 0 to 127, got 200"):
        OPERATIONS[name](score)
    for track, expected in ((-1, "at least 0"), (10**9, "at most 65534")):  # room for 10^9 tracks would be 8 GB
        score.notes["pitch"][1], score.notes["track"][1] = 60, track
        assert f"{track + 1 if track > 0 else 1} tracks" in repr(score)  # at once
        with pytest.raises(ValueError, match=rf"notes\[1\]\.track: expected {expected}, got {track}"):
            OPERATIONS[name](score)
        with pytest.raises(ValueError, match=rf"notes\[1\]\.track: expected {expected}, got {track}"):
            score.to_bytes()


def test_symusic_transposes_and_resamples_as_we_do():
    """Its habits: drums are transposed, too; a resampled note keeps its rounded length, ours its rounded end."""
    pytest.importorskip("symusic")
    rng = np.random.default_rng(4)
    columns = {"start": rng.integers(0, 5000, 200), "duration": rng.integers(1, 100, 200)}
    score = mg.Score({name: 4 * column for name, column in columns.items()} | {"pitch": rng.integers(20, 90, 200)})
    theirs = score.to_symusic()
    assert rows(mg.Score.from_symusic(theirs.shift_pitch(7))) == rows(score.transpose(7))
    assert rows(mg.Score.from_symusic(theirs.resample(120))) == rows(score.resample(120))


def test_many_notes_take_no_python_object_each():
    rng = np.random.default_rng(5)
    size = 200_000
    columns = {"start": np.sort(rng.integers(0, 10**8, size)), "pitch": rng.integers(30, 90, size)}
    score = mg.Score(columns | {"duration": np.full(size, 100), "track": rng.integers(0, 4, size)})
    tracemalloc.start()
    for name in ("transpose", "trim", "quantize", "apply_sustain", "merge_tracks"):
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        OPERATIONS[name](score)
        peak = tracemalloc.get_traced_memory()[1] - before
        assert peak < 200 * size, (name, peak)  # a Python integer for every column of every note is more than that
    tracemalloc.stop()
