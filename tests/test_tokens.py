"""Token streams: pitch sequences, performances, bars. Twin, laws, JSON form, what cannot be said."""

import _thread
import json
import pickle
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import musicgen_ext as mg
import musicgen_reference.encodings as reference
from midi_files import chorale, performance
from musicgen_ext import encodings, weights
from musicgen_ext.encodings import Bars, Performance, PitchSequence
from musicgen_ext.midi import NOTE
from musicgen_reference.midi import Song

SAMPLES = Path(__file__).parents[2] / "shared" / "data" / "midi_samples"
TWINS = {
    "bars": (reference.encode_bars, reference.decode_bars),
    "performance": (reference.encode_performance, reference.decode_performance),
    "pitch_sequence": (reference.encode_pitches, reference.decode_pitches),
}
VARIANTS = [
    PitchSequence(),
    PitchSequence(lowest=36, highest=81, polyphony="highest", end=False),
    PitchSequence(polyphony="lowest", drums=True, tracks=(0, 2), duration=7, velocity=1),
    Performance(),
    Performance(steps_per_second=31, max_shift=7, velocity_bins=0, drums=True, sustain=False, end=False),
    Performance(steps_per_beat=12, max_shift=1, velocity_bins=127, tracks=(1, 2)),
    Performance(steps_per_beat=7, velocity_bins=30, velocity=1, sustain=False),
    Bars(),
    Bars(chords=True, velocity_bins=0, tempo_bins=2, lowest_tempo=60, highest_tempo=120, max_duration=3),
    Bars(steps_per_beat=7, time_signatures=("4/4", "3/4"), programs=False, even_durations=True, end=False),
    Bars(steps_per_beat=4, drums=False, tempo_bins=0, velocity_bins=127, velocity=3),
]
each_variant = pytest.mark.parametrize("encoding", VARIANTS, ids=lambda e: f"{e.name}-{VARIANTS.index(e)}")


def song_of(score):
    """The score as the reference's lists."""
    format, division, notes, events, payload, payload_ends, track_ends = score._tables()
    payloads = iter(
        [payload[begin:end].tobytes() for begin, end in zip([0, *payload_ends], payload_ends, strict=False)]
    )
    rows = [(*row, next(payloads) if row[2] >= 0xF0 else None) for row in events.tolist()]
    return Song(format, division, notes.tolist(), rows, track_ends.tolist())


def options_of(encoding):
    options = json.loads(json.dumps(encoding.to_dict()))
    options.pop("name")
    return options


def random_score(rng, *, notes=60, tracks=3, division=480, span=20_000, step=1, changes=6):
    """Notes, drums, programs, tempos, metres and pedals in no order a composer would choose."""
    start = rng.integers(0, span, notes) // step * step
    channel = np.where(rng.random(notes) < 0.1, 9, rng.integers(0, 3, notes))
    columns = {
        "start": start,
        "duration": np.maximum(rng.integers(1, 3000, notes) // step * step, step),
        "pitch": rng.integers(30, 90, notes),
        "velocity": rng.integers(1, 128, notes),
        "track": rng.integers(0, tracks, notes),
        "channel": channel,
    }
    times = np.sort(rng.integers(0, span, changes))

    def rows(*values):
        return [(int(time), *(int(rng.integers(low, high)) for low, high in values)) for time in times]

    return mg.Score(
        columns,
        ticks_per_quarter=division,
        tempos=rows((200_000, 1_500_000)),
        time_signatures=[(int(time), int(rng.integers(1, 14)), 2 ** int(rng.integers(0, 5))) for time in times],
        programs=[(*row, int(rng.integers(0, tracks))) for row in rows((0, 128), (0, 3))],
        controls=[(row[0], 64, *row[1:], int(rng.integers(0, tracks))) for row in rows((0, 128), (0, 3))],
    )


ticks = st.integers(0, 4000)
note_rows = st.tuples(
    ticks, st.integers(1, 2000), st.integers(50, 62), st.integers(1, 127), st.integers(0, 2),
    st.sampled_from([0, 0, 1, 9]),
)  # fmt: skip
scores = st.builds(
    lambda notes, division, tempos, metres: mg.Score(
        notes, ticks_per_quarter=division, tempos=tempos, time_signatures=[(t, n, 1 << d) for t, n, d in metres]
    ),
    st.lists(note_rows, max_size=12),
    st.sampled_from([1, 96, 480, 1000]),
    st.lists(st.tuples(ticks, st.integers(50_000, 3_000_000)), max_size=3),
    st.lists(st.tuples(ticks, st.integers(1, 20), st.integers(0, 5)), max_size=3),
)


# -- twin --------------------------------------------------------------------------------------------------------------


@each_variant
def test_tokens_twin(encoding, rng):
    encode, decode = TWINS[encoding.name]
    for trial in range(24):
        division = [480, 96, 1, 1009][trial % 4]
        span = division * [40, 3, 20][trial % 3]
        score = random_score(rng, notes=int(rng.integers(0, 80)), division=division, span=span)
        issues = []
        tokens = encoding.encode(score, issues)
        assert tokens.dtype == np.int32
        expected, expected_issues = encode(song_of(score), **options_of(encoding))
        assert tokens.tolist() == expected
        assert issues == expected_issues
        assert tokens.max(initial=0) < encoding.vocab_size
        assert song_of(encoding.decode(tokens)) == decode(tokens.tolist(), **options_of(encoding))


def check_twin(encoding, score):
    encode, decode = TWINS[encoding.name]
    issues = []
    tokens = encoding.encode(score, issues)
    assert (tokens.tolist(), issues) == encode(song_of(score), **options_of(encoding))
    assert song_of(encoding.decode(tokens)) == decode(tokens.tolist(), **options_of(encoding))
    np.testing.assert_array_equal(encoding.encode(encoding.decode(tokens)), tokens)


@each_variant
def test_files_twin(encoding):
    """A chorale, and a performance with pedal and many tempos."""
    check_twin(encoding, mg.read_midi(chorale(0)))
    check_twin(encoding, mg.read_midi(performance(0, 150)))


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no folder of real files beside the checkout (../shared/data)")
@pytest.mark.parametrize("name", ["js_fake_000.mid", "lied_5115550.mid"])
@each_variant
def test_real_files_twin(encoding, name):
    check_twin(encoding, mg.read_midi(SAMPLES / name))


@each_variant
def test_decoding_any_tokens_twin(encoding, rng):
    _, decode = TWINS[encoding.name]
    for size in (0, 1, 10, 300):
        tokens = rng.integers(0, encoding.vocab_size, size, np.int32)
        assert song_of(encoding.decode(tokens)) == decode(tokens.tolist(), **options_of(encoding))


@pytest.mark.parametrize("encoding", [Performance(), Performance(steps_per_beat=12)], ids=["seconds", "beats"])
@pytest.mark.parametrize("division", [500, 480, 1, 32_767, 0xE7_28, 0xE3_50, 0xE2_01])  # from 0x8000: SMPTE time
def test_halves_are_rounded_up(encoding, division, rng):
    """Every tick of a second and a few far from it, where floating point alone would round 0.285 · 100 down."""
    start = np.unique(np.concatenate([np.arange(1000), rng.integers(0, 2_000_000, 100)]))
    score = mg.Score({"start": start, "duration": np.full(len(start), 1), "pitch": start % 128})
    score._division = division
    issues = []
    tokens = encoding.encode(score, issues)
    expected, expected_issues = reference.encode_performance(song_of(score), **options_of(encoding))
    assert tokens.tolist() == expected
    assert issues == expected_issues


# -- laws --------------------------------------------------------------------------------------------------------------


@each_variant
@settings(max_examples=60, deadline=None)
@given(score=scores)
def test_what_was_encoded_decodes_to_the_same_tokens(encoding, score):
    tokens = encoding.encode(score)
    again = []
    np.testing.assert_array_equal(encoding.encode(encoding.decode(tokens), again), tokens)
    assert not again


@each_variant
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_tokens_make_a_score_that_keeps(encoding, data):
    tokens = data.draw(st.lists(st.integers(0, encoding.vocab_size - 1), max_size=60))
    once = encoding.decode(np.array(tokens, np.int32))
    once.to_bytes()
    twice = encoding.decode(encoding.encode(once))
    assert encoding.decode(encoding.encode(twice)) == twice


@pytest.mark.parametrize("polyphony", ["all", "highest", "lowest"])
def test_a_pitch_sequence_survives(polyphony, rng):
    encoding = PitchSequence(polyphony=polyphony, duration=120, velocity=99)
    score = mg.Score([(120 * i, 120, int(p), 99) for i, p in enumerate(rng.integers(0, 128, 50))])
    assert encoding.decode(encoding.encode(score)) == score


def test_pitches_are_in_order_of_start_then_pitch():
    score = mg.Score([(10, 5, 64, 80, 1, 0), (0, 90, 70, 80, 1, 0), (10, 5, 60, 80, 2, 0), (5, 1, 35, 80, 0, 9)])
    assert PitchSequence(end=False).encode(score).tolist() == [70, 60, 64]
    assert PitchSequence(end=False, drums=True).encode(score).tolist() == [70, 35, 60, 64]
    issues = []
    assert PitchSequence(tracks=(1,), lowest=65).encode(score, issues).tolist() == [5, 63]
    assert issues == ["2 notes of other tracks were left out", "1 note outside the pitches 65 to 127 was left out"]


def test_a_performance_has_the_ids_of_magenta():
    """Written by hand, after PerformanceOneHotEncoding: 128 note-ons, 128 note-offs, 100 shifts, 32 velocities."""
    encoding = Performance()
    assert encoding.vocab_size == 388 + 1
    score = mg.Score([(0, 500, 60, 100), (0, 1500, 64, 97), (500, 1250, 60, 3)], ticks_per_quarter=500)
    expected = [
        355 + 25, 60, 64,  # velocities 97 to 100
        255 + 50, 128 + 60, 355 + 1, 60,  # half a second; velocities 1 to 4
        255 + 100, 128 + 64,
        255 + 25, 128 + 60,
        388,
    ]  # fmt: skip
    assert encoding.encode(score).tolist() == expected
    assert [encoding.describe(token) for token in (60, 188, 256, 355, 356, 387)] == [
        "note_on 60", "note_off 60", "time_shift 1", "time_shift 100", "velocity 1", "velocity 32",
    ]  # fmt: skip
    assert encoding.decode(expected).notes["velocity"].tolist() == [97, 97, 1]


@pytest.mark.parametrize("encoding", [Performance(velocity_bins=127), Performance(steps_per_beat=4, velocity_bins=127)])
def test_a_performance_on_the_grid_survives(encoding, rng):
    quarter, step = (500, 10) if encoding.steps_per_beat is None else (480, 120)
    tempos = [(0, 500_000)] if encoding.steps_per_beat is None else []
    start = np.sort(rng.integers(0, 2000, 200)) * step
    notes = {"start": start, "duration": step * rng.integers(1, 300, 200), "pitch": np.arange(200) % 128}
    notes["velocity"] = rng.integers(1, 128, 200)
    order = np.lexsort((notes["pitch"], start))
    # Notes of one pitch do not overlap: note-offs could not be told apart.
    kept = order[[i < 128 or start[i] >= start[i - 128] + notes["duration"][i - 128] for i in order]]
    score = mg.Score({k: v[kept] for k, v in notes.items()}, ticks_per_quarter=quarter, tempos=tempos)
    issues = []
    assert encoding.decode(encoding.encode(score, issues)) == score
    assert not issues


def test_notes_of_one_pitch_that_overlap_end_in_the_order_of_their_beginnings():
    encoding = Performance(steps_per_beat=1, end=False)
    score = mg.Score([(0, 1920, 60), (480, 480, 60), (960, 1920, 60)])
    issues = []
    again = encoding.decode(encoding.encode(score, issues))
    assert again.notes[["start", "duration"]].tolist() == [(0, 960), (480, 1440), (960, 1920)]
    assert issues == ["1 note that ended before an older one of their pitch was given its end"]


def test_the_pedal_is_that_of_apply_sustain(rng):
    for trial in range(20):
        score = random_score(rng, notes=150, tracks=1 + trial % 4, changes=20)
        plain = Performance(steps_per_beat=12, sustain=False, drums=True)
        held = Performance(steps_per_beat=12, drums=True)
        np.testing.assert_array_equal(held.encode(score), plain.encode(score.apply_sustain()))
        assert not np.array_equal(held.encode(score), plain.encode(score))


def words(encoding, score, issues=None):
    """The tokens in words, without the end."""
    return ", ".join(
        encoding.describe(token) for token in encoding.encode(score, issues) if token != encoding.end_token
    )


def test_bars_by_hand():
    score = mg.Score(
        [(0, 480, 60, 100, 0, 0), (0, 480, 64, 1, 0, 0), (0, 960, 36, 127, 1, 9), (2400, 40, 67, 64, 0, 0)],
        tempos=[(0, 500_000), (480, 1_000_000)],
        time_signatures=[(0, 3, 4)],
        programs=[(0, 40, 0, 0), (2400, 41, 0, 0)],
    )
    assert words(Bars(), score) == (
        "bar, time_signature 3/4, "
        "position 0, tempo 120.00, program 40, pitch 60, velocity 25, duration 12, pitch 64, velocity 1, duration 12, "
        "program drums, drum_pitch 36, velocity 32, duration 24, position 12, tempo 60.00, "
        "bar, position 24, program 41, pitch 67, velocity 16, duration 1"
    )
    again = Bars().decode(Bars().encode(score))
    assert [track.program for track in again.tracks] == [40, 41, None]
    assert again.tracks[2].is_drum
    assert words(Bars(programs=False, velocity_bins=0, tempo_bins=0, drums=False), score) == (
        "bar, time_signature 3/4, position 0, pitch 60, duration 12, pitch 64, duration 12, "
        "bar, position 24, pitch 67, duration 1"
    )


def test_bars_that_are_cut_short_and_empty_bars():
    """A pickup of a quarter note before 4/4 at tick 480; a bar of 3/4 with nothing in it."""
    score = mg.Score(
        [(0, 480, 60), (480 * 8, 480, 62)], time_signatures=[(0, 4, 4), (480, 4, 4), (480 * 5, 3, 4), (480 * 8, 1, 16)]
    )
    encoding = Bars(tempo_bins=0, velocity_bins=0, programs=False)
    issues = []
    assert words(encoding, score, issues) == (
        "bar, time_signature 4/4, position 0, pitch 60, duration 12, position 12, "
        "bar, bar, time_signature 3/4, bar, time_signature 4/4, position 0, pitch 62, duration 12"
    )
    assert issues == ["1 time signature outside the vocabulary was written as 4/4"]
    again = encoding.decode(encoding.encode(score))
    assert again.time_signatures[["time", "numerator", "denominator"]].tolist() == [
        (0, 4, 4), (480, 4, 4), (480 * 5, 3, 4), (480 * 8, 4, 4),
    ]  # fmt: skip


def test_what_bars_cannot_hold_is_counted():
    score = mg.Score(
        [(19, 481, 60), (21, 460, 60), (0, 480 * 20, 61), (480, 7, 62), (960, 480 * 2 + 40, 63)],
        tempos=[(0, 500_000), (100, 510_000), (90, 700_000), (9600, 400_000)],
        time_signatures=[(0, 4, 4), (0, 3, 4), (5, 13, 4), (9600, 4, 4)],
    )
    issues = []
    tokens = Bars().encode(score, issues)
    assert issues == [
        "3 notes were moved to the nearest step",
        "1 note shorter than a step was made one long",
        "1 note longer than 192 steps was cut",
        "1 note was given the nearest duration of the vocabulary",
        "2 tempos were moved to the nearest step",
        "2 tempos were given the nearest value of the vocabulary",
        "1 tempo after the last note was left out",
        "1 time signature was moved to the nearest step",
        "1 time signature outside the vocabulary was written as 4/4",
        "2 time signatures were left out: another one is at the same step",
        "1 time signature after the last note was left out",
    ]
    again = []
    np.testing.assert_array_equal(Bars().encode(Bars().decode(tokens), again), tokens)
    assert not again
    doubled = mg.Score([(0, 480, 60, 90, 0, 0), (0, 960, 60, 30, 1, 0), (0, 960, 60, 10, 2, 0), (0, 480, 60, 1, 0, 1)])
    assert Bars(velocity_bins=127).decode(Bars(velocity_bins=127).encode(doubled, issues)).notes.tolist() == [
        (0, 960, 60, 30, 0, 0, 64)
    ]
    assert issues[-1] == "3 notes were left out: one of their program and pitch begins with them"


def test_bars_on_the_grid_survive(rng):
    encoding = Bars(velocity_bins=127, steps_per_beat=24)
    tempos = encoding.microseconds_per_quarter
    for _ in range(10):
        start = rng.integers(0, 600, 80) * 20
        pitch, track = rng.integers(0, 128, 80), rng.integers(0, 4, 80)
        _, kept = np.unique(np.stack([start, pitch, track]), axis=1, return_index=True)
        order = kept[np.lexsort((pitch[kept], start[kept], track[kept]))]
        columns = {"start": start, "pitch": pitch, "track": track, "velocity": rng.integers(1, 128, 80)}
        columns["duration"] = rng.choice(encoding.duration_steps, 80) * 20
        columns["channel"] = np.array([0, 1, 2, 9])[track]
        score = mg.Score(
            {k: v[order] for k, v in columns.items()},
            tracks=[mg.midi.Track(program=p) for p in (3, 40, 127)] + [mg.midi.Track(is_drum=True)],
            tempos=[(0, tempos[3]), (700, tempos[30]), (1920, tempos[36])],
            time_signatures=[(0, 3, 4), (480, 6, 8), (480 + 1440 * 2, 2, 2), (480 + 1440 * 4 + 20, 2, 2)],
        )
        issues = []
        assert encoding.decode(encoding.encode(score, issues)) == score
        assert not issues


def test_bars_say_chords():
    notes = [(0, 960, p) for p in (48, 64, 67)] + [(960, 480, p) for p in (53, 57, 60, 64)] + [(1440, 480, 60)]
    notes += [(1920, 240, p) for p in (59, 62, 65)] + [(2160, 240, p) for p in (55, 62, 65, 71)]
    encoding = Bars(chords=True)
    said = [word for word in words(encoding, mg.Score(notes)).split(", ") if word[0] in "cb" or "posit" in word]
    # The last quarter note begins with a B diminished chord and ends with G7: all tones of both sound, G7 weighs more.
    assert said == [
        "bar", "position 0", "chord C:maj", "position 24", "chord F:maj7", "position 36", "bar", "position 0",
        "chord G:7", "position 6",
    ]  # fmt: skip
    plain = [word for word in words(encoding, mg.Score(notes)).split(", ") if "chord" not in word]
    assert ", ".join(plain) == words(Bars(), mg.Score(notes))


def test_a_note_has_the_program_of_its_part_or_else_of_its_channel():
    score = mg.Score(
        [(0, 10, 60, 80, 1, 3), (0, 10, 62, 80, 2, 3), (480, 10, 64, 80, 2, 3), (960, 10, 62, 80, 1, 3)],
        programs=[(0, 7, 3, 0), (480, 9, 3, 2)],
    )
    programs = [word for word in words(Bars(), score).split(", ") if "program" in word]
    assert programs == ["program 0", "program 7", "program 9", "program 9"]


@pytest.mark.filterwarnings("ignore")
def test_bars_hold_the_notes_of_miditok(tmp_path):
    """MidiTok's REMI on files whose notes lie on the grid, so that its ways to round and to cut play no part. It keeps
    both notes of a unison, we keep the longer."""
    miditok = pytest.importorskip("miditok", reason="MidiTok is not installed")
    symusic = pytest.importorskip("symusic", reason="symusic is not installed")
    config = miditok.TokenizerConfig(
        use_programs=True, use_time_signatures=True, pitch_range=(0, 127), beat_res={(0, 16): 12}
    )
    remi = miditok.REMI(config)
    for index in range(3):
        path = tmp_path / f"{index}.mid"
        path.write_bytes(chorale(index))
        theirs, bar, program, position, pitch = {}, -1, 0, 0, 0
        for token in remi(symusic.Score(path)).tokens:
            kind, value = token.split("_")
            bar += kind == "Bar"
            position = int(value) if kind == "Position" else position
            program = int(value) if kind == "Program" else program
            pitch = int(value) if kind == "Pitch" else pitch
            if kind == "Duration":
                beats, rest, per_beat = map(int, value.split("."))
                note, steps = (bar, position, program, pitch), beats * per_beat + rest
                theirs[note] = max(steps, theirs.get(note, 0))
        ours, bar, program, position, pitch = {}, -1, 0, 0, 0
        for word in words(Bars(), mg.read_midi(path)).split(", "):
            kind, value = [*word.split(), "0"][:2]
            bar += kind == "bar"
            position = int(value) if kind == "position" else position
            program = int(value) if kind == "program" else program
            pitch = int(value) if kind == "pitch" else pitch
            if kind == "duration":
                ours[bar, position, program, pitch] = int(value)
        assert len(ours) > 200
        assert ours == theirs


# -- ends --------------------------------------------------------------------------------------------------------------


@each_variant
def test_an_end_token_ends(encoding, rng):
    tokens = encoding.encode(random_score(rng))
    if encoding.end_token is None:
        assert "end" not in encoding.vocabulary
        return
    assert encoding.describe(encoding.end_token) == "end"
    assert tokens[-1] == encoding.end_token
    assert np.count_nonzero(tokens == encoding.end_token) == 1
    padded = np.concatenate([[tokens[-1]], tokens, [tokens[-1]] * 3, tokens])
    assert encoding.decode(padded) == encoding.decode(tokens) == encoding.decode(tokens[:-1])


@each_variant
def test_a_score_without_notes(encoding):
    tokens = encoding.encode(mg.Score(tempos=[(0, 400_000)]))
    assert tokens.tolist() == ([] if encoding.end_token is None else [encoding.end_token])
    assert len(encoding.decode(tokens).notes) == 0


# -- the JSON form -----------------------------------------------------------------------------------------------------


@each_variant
def test_the_json_form(encoding):
    form = json.loads(json.dumps(encoding.to_dict()))
    again = encodings.load(form)
    assert type(again) is type(encoding)
    assert again == encoding
    assert hash(again) == hash(encoding)
    assert type(encoding).from_dict({"name": encoding.name}) == type(encoding)()
    with pytest.raises(mg.WeightsError, match=r"expected keys out of .* got unknown \['pitchs'\]"):
        encodings.load({**form, "pitchs": 1})
    with pytest.raises(mg.WeightsError, match=r"encoding\.name: expected"):
        type(encoding).from_dict({"name": "roll"})
    for key, value in form.items():
        for wrong in (None, -1, 2**40, 0.5, "x", [], {}, [2, 1], [0.5], True):
            if wrong == value or (key, wrong) in ACCEPTED or (type(value) is bool and wrong is True):
                continue
            with pytest.raises(mg.WeightsError, match=rf"^encoding\.{key}: expected .*, got "):
                encodings.load({**form, key: wrong})


ACCEPTED = [("tracks", None), ("steps_per_beat", None)]


@each_variant
def test_encodings_can_be_pickled(encoding, rng):
    score = random_score(rng)
    tokens = encoding.encode(score)
    again = pickle.loads(pickle.dumps(encoding))
    assert again == encoding
    np.testing.assert_array_equal(again.encode(score), tokens)


@each_variant
def test_an_encoding_survives_in_a_model_file(encoding, make_model, tmp_path):
    model = make_model(encodings.CHORALE)
    model.encoding = encoding.to_dict()
    path = tmp_path / "model.safetensors"
    weights.write(path, model)
    assert encodings.load(weights.read(path).encoding) == encoding
    with pytest.raises(mg.WeightsError, match=r"model.safetensors: config: expected one token a frame, of \d+, got 5"):
        mg.load(path)


@each_variant
def test_the_vocabulary(encoding):
    assert encoding.vocab_size == len(encoding.vocabulary) == len(set(encoding.vocabulary))
    assert [encoding.describe(token) for token in range(encoding.vocab_size)] == list(encoding.vocabulary)
    for wrong in (-1, encoding.vocab_size):
        with pytest.raises(ValueError, match=rf"token: expected 0 to {encoding.vocab_size - 1}, got {wrong}"):
            encoding.describe(wrong)
        with pytest.raises(ValueError, match=rf"tokens\[1\]: expected 0 to {encoding.vocab_size - 1}, got {wrong}"):
            encoding.decode(np.array([0, wrong], np.int32))


# -- what cannot be said -----------------------------------------------------------------------------------------------


@each_variant
def test_pieces_of_format_2_are_not_merged(encoding):
    score = mg.Score([(0, 10, 60, 80, 0), (0, 10, 61, 80, 1)])
    score.format = 2
    with pytest.raises(ValueError, match=r"score: expected one piece, got a file of format 2 with .* tracks 0 to 1"):
        encoding.encode(score)
    one = mg.Score([(0, 10, 60, 80, 1)])
    tokens = encoding.encode(one)
    one.format = 2
    np.testing.assert_array_equal(encoding.encode(one), tokens)


@each_variant
def test_R12_times_without_bounds(encoding):
    track = (getattr(encoding, "tracks", None) or [0])[0]
    for start in (2**57, 2**62, 2**63 - 2):
        with pytest.raises(ValueError, match=r"score: expected .*, got .*\d"):
            encoding.encode(mg.Score([(0, 10, 60, 80, track), (start, 1, 60, 80, track)]))
    late = mg.Score([(0, 10, 60, 80, track)], tempos=[(2**62, 1)], time_signatures=[(2**62, 3, 4)])
    assert len(encoding.decode(encoding.encode(late)).notes) == 1


@each_variant
def test_R12_tokens_without_bounds(encoding):
    """The longest shift, or a bar, more often than a piece is long."""
    word = {"performance": f"time_shift {getattr(encoding, 'max_shift', 0)}", "bars": "bar"}.get(encoding.name)
    if word is None:
        return
    steps = {"time_shift": getattr(encoding, "max_shift", 0), "bar": 4 * (encoding.steps_per_beat or 0)}
    count = 2**27 // steps[word.split()[0]] + 1
    if count > 5_000_000:
        return
    tokens = np.full(count, encoding.vocabulary.index(word), np.int32)
    with pytest.raises(ValueError, match=r"tokens\[\d+\]: expected less than \d+ steps of time, got \d+"):
        encoding.decode(tokens)
    assert len(encoding.decode(tokens[: count // 2]).notes) == 0


@each_variant
def test_R16_many_notes_in_linear_time(encoding):
    rng = np.random.default_rng(5)
    size = 300_000
    notes = np.zeros(size, NOTE)
    notes["start"] = np.where(rng.random(size) < 0.5, 7, rng.integers(0, 1_000_000, size))  # half of them together
    notes["duration"] = rng.integers(1, 1000, size)
    notes["pitch"], notes["velocity"] = rng.integers(0, 128, (2, size)) | 1
    notes["track"] = rng.integers(0, 3000, size)
    score = mg.Score(notes)
    tokens = encoding.encode(score)
    assert len(encoding.decode(tokens).notes)


def for_ever(function):
    while True:
        function()


@pytest.mark.parametrize("name", ["bars", "performance", "pitches"])
def test_R39_ctrl_c_ends_encoding_and_decoding(name, rng):
    """A million notes: a tenth of a second for each call."""
    size = 1_000_000
    starts = 60 * np.arange(size)
    score = mg.Score({"start": starts, "duration": np.full(size, 50), "pitch": rng.integers(30, 90, size)})
    encoding = encodings.named(name)
    tokens = encoding.encode(score)
    for call in (partial(encoding.encode, score), partial(encoding.decode, tokens)):
        stop = threading.Timer(0.3, _thread.interrupt_main)
        began = time.monotonic()
        stop.start()
        with pytest.raises(KeyboardInterrupt):
            for_ever(call)
        assert time.monotonic() - began < 5  # 0.1 s later, on a machine that has nothing else to do
        stop.join()
    assert np.array_equal(encoding.encode(score), tokens)
