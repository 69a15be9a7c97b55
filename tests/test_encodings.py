"""Four voices on a grid: tokens and pieces say the same, and nothing is told that the model must not know."""

from __future__ import annotations

import json
import pickle
import time
from typing import Any

import numpy as np
import pytest

import musicgen_ext as mg
from musicgen_ext import encodings
from musicgen_ext.architectures import RecurrentConfig
from musicgen_ext.encodings import (
    CHORALE,
    JSB16,
    REST,
    TICKS_PER_STEP,
    VOICES,
    Meter,
    VoiceGrid,
    Voices,
    read_melody,
    read_voices,
)
from musicgen_ext.errors import WeightsError
from musicgen_ext.midi import Score, Text, Track, read_midi
from musicgen_reference import voices as reference


def random_piece(random: np.random.Generator, frames: int) -> tuple[Any, Any, Any]:
    """(pitch, onset, fermata) with holds, rests, repeated notes and crossings."""
    pitch = np.full((frames, 4), REST)
    onset = np.zeros((frames, 4), bool)
    for voice in range(4):
        at = 0
        while at < frames:
            length = int(random.integers(1, 9))
            rest = random.random() < 0.2
            pitch[at : at + length, voice] = REST if rest else random.integers(36, 82)
            onset[at, voice] = not rest
            at += length
    return pitch, onset, random.random(frames) < 0.1


# -- tokens --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [0, 1, 2, 17, 200])
def test_grid_undoes_tokens(frames: int) -> None:
    random = np.random.default_rng(frames)
    for _ in range(20):
        pitch, onset, fermata = random_piece(random, frames)
        tokens = CHORALE.grid_to_tokens(pitch, onset, fermata)
        assert tokens.shape == (frames + 1, 5)
        assert tokens.dtype == np.int32
        grid = CHORALE.tokens_to_grid(tokens)
        np.testing.assert_array_equal(grid.pitch, pitch)
        np.testing.assert_array_equal(grid.onset, onset)
        np.testing.assert_array_equal(grid.fermata, fermata)
        assert grid.ended
        open_end = CHORALE.tokens_to_grid(CHORALE.grid_to_tokens(pitch, onset, fermata, end=False))
        np.testing.assert_array_equal(open_end.pitch, pitch)
        assert not open_end.ended


@pytest.mark.parametrize("frames", [0, 1, 50])
def test_grid_undoes_tokens_without_holds(frames: int) -> None:
    pitch, _, _ = random_piece(np.random.default_rng(frames), frames)
    tokens = JSB16.grid_to_tokens(pitch)
    assert tokens.shape == (frames, 4)
    grid = JSB16.tokens_to_grid(tokens)
    np.testing.assert_array_equal(grid.pitch, pitch)
    changed = np.diff(pitch, axis=0, prepend=-2) != 0
    np.testing.assert_array_equal(grid.onset, changed & (pitch != REST))


def test_tokens_by_hand() -> None:
    pitch = [[72, 67, 60, 48], [72, 67, -1, 48], [72, 65, -1, 48]]
    onset = [[1, 1, 1, 1], [0, 1, 0, 0], [0, 1, 0, 0]]
    tokens = CHORALE.grid_to_tokens(pitch, onset, [0, 1, 0])
    assert tokens.tolist() == [
        [0, 38, 14, 33, 26],  # flag, soprano, bass, alto, tenor
        [1, 0, 0, 33, 1],  # a fermata; the alto repeats its note, the tenor rests
        [0, 0, 0, 31, 0],
        [2, 0, 0, 0, 0],
    ]
    assert JSB16.grid_to_tokens(pitch).tolist() == [[37, 13, 32, 25], [37, 13, 32, 0], [37, 13, 30, 0]]


def test_a_change_of_pitch_is_an_onset_even_if_not_said() -> None:
    pitch = [[60, 60, 60, 60], [62, 60, 60, 60]]
    assert CHORALE.grid_to_tokens(pitch, np.zeros((2, 4), bool))[1].tolist() == [0, 28, 0, 0, 0]


def test_any_tokens_decode() -> None:
    random = np.random.default_rng(5)
    for _ in range(50):
        tokens = np.stack([random.integers(0, s["size"], 40) for s in CHORALE.slots], axis=1)
        tokens[:30, 0] = random.integers(0, 2, 30)
        grid = CHORALE.tokens_to_grid(tokens)
        assert grid.pitch.min() >= REST
        assert not (grid.onset & (grid.pitch == REST)).any()
        again = CHORALE.tokens_to_grid(CHORALE.grid_to_tokens(grid.pitch, grid.onset, grid.fermata))
        np.testing.assert_array_equal(again.pitch, grid.pitch)
        np.testing.assert_array_equal(again.onset, grid.onset)


def test_a_hold_of_nothing_is_a_rest_and_the_end_ends() -> None:
    tokens = np.array([[0, 0, 0, 0, 0], [0, 26, 0, 1, 0], [2, 30, 30, 30, 30], [0, 26, 26, 26, 26]])
    grid = CHORALE.tokens_to_grid(tokens)
    assert grid.pitch.tolist() == [[-1, -1, -1, -1], [60, -1, -1, -1]]


@pytest.mark.parametrize(
    ("pitch", "words"),
    [
        ([[60, 60, 60, 35]], r"36 to 81 .*got 35 \(bass, frame 0\)"),
        ([[60, 60, 60, 60], [82, 60, 60, 60]], r"got 82 \(soprano, frame 1\)"),
        ([[60, -2, 60, 60]], r"got -2 \(alto, frame 0\)"),
        ([[60, 60, 60]], r"expected shape \(T, 4\), got \(1, 3\)"),
    ],
)
def test_pitches_outside_the_vocabulary(pitch: Any, words: str) -> None:
    for encoding in (CHORALE, JSB16):
        with pytest.raises(ValueError, match=words):
            encoding.grid_to_tokens(pitch)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (np.zeros((3, 4), int), r"shape \(n_frames, 5\), got int64 \(3, 4\)"),
        (np.zeros((3, 5)), "expected integers"),
        (np.array([[3, 0, 0, 0, 0]]), r"0 to 2 for the flag, got 3 \(frame 0\)"),
        (np.array([[0, 0, 48, 0, 0]]), r"0 to 47 for the bass, got 48 \(frame 0\)"),
        (np.array([[0, 0, 200, 0, 0]], np.uint8), r"0 to 47 for the bass, got 200 \(frame 0\)"),
        (np.array([[0, 0, 1 << 40, 0, 0]]), r"0 to 47 for the bass, got 2147483647 \(frame 0\)"),
        (np.array([[0, 0, 0, 0, 0], [0, 0, 0, 0, -1]]), r"tenor, got -1 \(frame 1\)"),
    ],
)
def test_R37_tokens_outside_the_vocabulary(tokens: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CHORALE.tokens_to_grid(tokens)


# -- given ---------------------------------------------------------------------------------------------------------


def test_given_of_nothing_is_unknown() -> None:
    given = CHORALE.given(3)
    assert {name: values.tolist() for name, values in given.items()} == {
        "position": [32] * 3,
        "bar_length": [0] * 3,
        "mode": [0] * 3,
        "tonic": [12] * 3,
        "soprano_next": [0] * 3,
        "soprano_wait": [0] * 3,
    }


def test_given_counts_on_and_names_the_bar() -> None:
    given = CHORALE.given(6, position=[10, 11, 0], bar_length=12, mode="minor", tonic=9)
    assert given["position"].tolist() == [10, 11, 0, 1, 2, 3]
    assert CHORALE.given(20, position=[12], bar_length=16)["position"].tolist() == [*range(12, 16), *range(16)]
    assert given["bar_length"].tolist() == [2] * 6
    assert CHORALE.given(1, bar_length=16)["bar_length"].tolist() == [1]
    assert CHORALE.given(1, bar_length=24)["bar_length"].tolist() == [3]
    assert given["mode"].tolist() == [2] * 6
    assert given["tonic"].tolist() == [9] * 6


def test_given_soprano_looks_ahead() -> None:
    pitch = np.full((7, 4), 60)
    pitch[:, 0] = [70, 70, 72, 72, 72, -1, -1]
    onset = np.zeros((7, 4), bool)
    onset[[0, 2, 3], 0] = True
    tokens = CHORALE.grid_to_tokens(pitch, onset)
    given = CHORALE.given(8, soprano=tokens[:, 1])
    # The next onset or rest strictly after each frame; nothing is left after the rest at frame 5 but the end, frame 7.
    assert given["soprano_next"].tolist() == [38, 38, 38, 1, 1, 48, 48, 48]
    waits = [2, 1, 1, 2, 1, 2, 1, 0]
    assert given["soprano_wait"].tolist() == [1 + w for w in waits]


def test_given_ids_stay_below_their_sizes() -> None:
    random = np.random.default_rng(6)
    for frames in (1, 2, 100):
        pitch, onset, _ = random_piece(random, frames)
        for encoding in (CHORALE, JSB16):
            tokens = encoding.grid_to_tokens(pitch, onset)
            soprano = tokens[:, encoding.first_voice]
            position = random.integers(0, 48, frames)
            given = encoding.given(
                len(tokens), position=position, bar_length=48, mode="major", tonic=11, soprano=soprano
            )
            sizes = encoding.given_sizes
            assert given.keys() == sizes.keys()
            for name, values in given.items():
                assert values.dtype == np.int32
                assert values.shape == (len(tokens),)
                assert values.min() >= 0
                assert values.max() < sizes[name]
            assert given["soprano_next"][-1] == sizes["soprano_next"] - 1


# -- the JSON form -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", [CHORALE, JSB16, VoiceGrid(tempo=66.5, starts=(("3/4", 8, 1.0),))])
def test_json_form(encoding: VoiceGrid) -> None:
    assert encodings.load(encoding.to_dict()) == encoding
    assert encodings.load({"name": "voice_grid", "hold": encoding.hold}).slots == encoding.slots


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "wave"}, r"expected one of \[.*'voice_grid'\], got 'wave'"),
        ({"colour": 1}, "unknown"),
        ({"hold": 1}, "hold"),
        ({"lowest_pitch": 128}, "lowest_pitch"),
        ({"num_pitches": 0}, "num_pitches"),
        ({"ranges": {"soprano": [60, 80]}}, "range for each"),
        ({"ranges": {v: [60, 90] for v in VOICES}}, r"ranges.soprano: .*\[36, 81\], got \[60, 90\]"),
        ({"ranges": {v: [60, 50] for v in VOICES}}, "ranges.soprano"),
        ({"ranges": dict.fromkeys(VOICES, "ab")}, "ranges.soprano"),
        ({"starts": []}, "starts"),
        ({"starts": [["5/4", 0, 1]]}, "5/4"),
        ({"starts": [["4/4", 16, 1]]}, "pickup"),
        ({"starts": [["4/4", 0, 0]]}, "weight"),
        ({"starts": [["4/4", 0, float("nan")]]}, "weight"),
        ({"starts": [[[], 0, 1]]}, "starts"),
        ({"keys": []}, "keys"),
        ({"keys": [[12, "major", 1]]}, r"keys: expected \[tonic from 0 to 11, .*got \[12, 'major', 1\]"),
        ({"keys": [[0, "dorian", 1]]}, "keys"),
        ({"keys": [[0, ["major"], 1]]}, "keys"),
        ({"keys": [[0, "major", -1]]}, "keys"),
        ({"tempo": 0}, "tempo"),
        ({"tempo": True}, "tempo"),
        ({"steps_per_quarter": 8}, "steps_per_quarter"),
    ],
)
def test_R29_a_broken_encoding_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        encodings.load({**CHORALE.to_dict(), **change})


def config_of(encoding: VoiceGrid, **changes: Any) -> RecurrentConfig:
    features = [{"name": n, "kind": "given", "size": s} for n, s in encoding.given_sizes.items()]
    fields = {
        "cell": "gru",
        "hidden_size": 4,
        "num_layers": 1,
        "features": features,
        "trunk": [{"feature": "position", "dim": 2}],
        "slots": encoding.slots,
    }
    return RecurrentConfig.from_dict({**fields, **changes})


def test_R33_a_network_of_another_vocabulary_is_refused() -> None:
    for encoding in (CHORALE, JSB16):
        encoding.check(config_of(encoding))
    with pytest.raises(WeightsError, match=r"config.slots: expected .*'flag'.* got .*'soprano'"):
        CHORALE.check(config_of(JSB16))
    smaller = VoiceGrid(num_pitches=30, ranges=dict.fromkeys(VOICES, (40, 60)))
    with pytest.raises(WeightsError, match=r"config.slots: expected"):
        CHORALE.check(config_of(smaller))
    for name, size in (("position", 16), ("weather", 33)):
        changed = config_of(CHORALE, features=[{"name": name, "kind": "given", "size": size}],
                            trunk=[{"feature": name, "dim": 2}])  # fmt: skip
        with pytest.raises(WeightsError, match=f"given features out of .* got '{name}' of size {size}"):
            CHORALE.check(changed)


# -- scores --------------------------------------------------------------------------------------------------------


def singable(random: np.random.Generator, frames: int) -> tuple[Any, Any, Any]:
    """A piece whose voices never cross, with a sound at its beginning and its end."""
    pitch, onset, fermata = random_piece(random, frames)
    centres = np.array([74, 64, 54, 44])
    pitch = np.where(pitch == REST, REST, centres + pitch % 9 - 4)
    pitch[[0, -1], :] = centres
    onset[[0, -1], :] = True
    if frames > 1:  # what follows the first chord, and what the last one cuts, begins anew
        onset[1] |= pitch[1] != REST
    return pitch, onset, fermata


@pytest.mark.parametrize("frames", [1, 2, 33, 160])
@pytest.mark.parametrize("meter", [Meter(), Meter(4, 4, 4), Meter(3, 4, 0), Meter(3, 4, 6), Meter(3, 2, 2)])
def test_encoding_a_decoded_score_gives_the_same_tokens(frames: int, meter: Meter) -> None:
    random = np.random.default_rng(frames)
    pitch, onset, fermata = singable(random, frames)
    tokens = CHORALE.grid_to_tokens(pitch, onset, fermata)
    score = CHORALE.decode(tokens, meter=meter, tempo=66, key=(2, "minor"), provenance={"seed": 7})
    for again in (score, read_midi(score.to_bytes(), strict=True)):
        assert again == score
        voices = read_voices(again)
        np.testing.assert_array_equal(CHORALE.grid_to_tokens(voices.pitch, voices.onset, voices.fermata), tokens)
        np.testing.assert_array_equal(voices.position, meter.positions(frames))
        assert voices.issues == ()
        assert voices.tempo == pytest.approx(66, abs=1e-4)
        if frames > meter.pickup:
            assert voices.meter == meter
        assert again.provenance == {"seed": 7}


def test_a_decoded_score_is_a_file_for_four_voices() -> None:
    tokens = CHORALE.grid_to_tokens([[72, 67, 60, 48]] * 8, None, [1, 0, 0, 0, 0, 0, 0, 0])
    score = CHORALE.decode(tokens, meter=Meter(4, 4, 4), key=(9, "major"), transpose=2)
    assert [t.name for t in score.tracks] == ["Soprano", "Alto", "Tenor", "Bass"]
    assert score.notes["pitch"].tolist() == [74, 69, 62, 50]
    assert score.notes["duration"].tolist() == [8 * TICKS_PER_STEP] * 4
    assert score.time_signatures[["time", "numerator", "denominator"]].tolist() == [(0, 1, 4), (480, 4, 4)]
    assert score.key_signatures[["sharps", "minor"]].tolist() == [(3, 0)]
    assert [(t.time, t.text) for t in score.texts if t.kind == "marker"] == [(0, "fermata")]
    assert score.end_time == pytest.approx(8 / 4 * 60 / CHORALE.tempo)


@pytest.mark.parametrize(
    ("tonic", "mode", "sharps"),
    [(0, "major", 0), (7, "major", 1), (5, "major", -1), (6, "major", 6), (1, "major", -5), (9, "minor", 0),
     (2, "minor", -1), (6, "minor", 3), (3, "minor", 6)],
)  # fmt: skip
def test_key_signatures(tonic: int, mode: str, sharps: int) -> None:
    score = CHORALE.decode(np.zeros((1, 5), int), key=(tonic, mode))
    assert score.key_signatures[["sharps", "minor"]].tolist() == [(sharps, int(mode == "minor"))]


def chords(*rows: tuple[int, ...], ticks: int = 480) -> list[tuple[int, int, int, int, int]]:
    """Quarter-note chords, track 0 to 3 from high to low."""
    return [(i * ticks, ticks, pitch, 80, voice) for i, row in enumerate(rows) for voice, pitch in enumerate(row)]


HIGH_TO_LOW = ((72, 67, 60, 48), (74, 67, 59, 55), (72, 65, 60, 53))


def merged(track_of: dict[int, int], *, channels: bool = False) -> Score:
    notes = chords(*HIGH_TO_LOW)
    rows = [(s, d, p, v, 0 if channels else track_of[t], track_of[t]) for s, d, p, v, t in notes]
    return Score(rows)


@pytest.mark.parametrize(
    "score",
    [
        merged({0: 0, 1: 1, 2: 2, 3: 3}),
        merged({0: 3, 1: 2, 2: 1, 3: 0}),  # by mean pitch, whatever the order of the tracks
        merged({0: 0, 1: 1, 2: 2, 3: 3}, channels=True),  # one track, four channels
        merged({0: 0, 1: 0, 2: 1, 3: 1}),  # two staves
        merged({0: 0, 1: 0, 2: 0, 3: 0}),  # one keyboard part
        merged({0: 0, 1: 0, 2: 0, 3: 5}),
    ],
    ids=["tracks", "reversed", "channels", "staves", "keyboard", "organ and pedal"],
)
def test_voices_in_any_four_part_file(score: Score) -> None:
    voices = read_voices(read_midi(score.to_bytes()))
    assert voices.pitch[::4].tolist() == [list(row) for row in HIGH_TO_LOW]
    assert voices.onset[::4].all()
    assert not voices.onset[1::4].any()
    assert voices.issues == ()


def test_named_tracks_are_those_voices_even_when_they_cross() -> None:
    notes = chords((60, 67, 72, 48), (60, 67, 72, 48))  # the tenor lies above the soprano throughout
    names = ["Soprano 1", "ALTO", "Tenor", "bass"]
    notes += [(0, 960, 90, 80, 4)]
    score = Score(notes, tracks=[*(Track(name) for name in names), Track("Flute")])
    voices = read_voices(score)
    assert voices.pitch[0].tolist() == [60, 67, 72, 48]
    assert voices.issues == ("1 of 5 parts were left out: they are not voices by name",)


def test_fewer_notes_go_to_the_nearest_free_voices() -> None:
    rows = [(0, 480, 72), (0, 480, 48), (480, 480, 71), (480, 480, 50), (960, 480, 64)]
    voices = read_voices(Score(rows))
    assert voices.pitch[::4].tolist() == [[72, -1, -1, 48], [71, -1, -1, 50], [-1, 64, -1, -1]]


def test_a_held_note_stays_in_its_voice() -> None:
    rows = [(0, 1920, 60), (0, 480, 72), (480, 480, 67), (960, 480, 72), (0, 480, 48)]
    voices = read_voices(Score(rows))
    held = [v for v in range(4) if (voices.pitch[:, v] == 60).all()]
    assert len(held) == 1
    assert voices.onset[:, held[0]].sum() == 1
    assert voices.pitch[:, 0].tolist() == [72] * 4 + [67] * 4 + [72] * 4 + [-1] * 4


def test_drums_are_left_out() -> None:
    score = Score([*((s, d, p, v, t, t) for s, d, p, v, t in chords(*HIGH_TO_LOW)), (0, 10, 36, 99, 4, 9)])
    assert read_voices(score).pitch[::4].tolist() == [list(row) for row in HIGH_TO_LOW]


def test_notes_off_the_grid_are_moved_and_that_is_said() -> None:
    rows = [(0, 480, 60), (490, 470, 62), (950, 20, 64), (1440, 470, 65)]
    voices = read_melody(Score(rows))
    assert voices.pitch[:, 0].tolist() == [60] * 4 + [62] * 4 + [64] + [-1] * 3 + [65] * 4
    assert voices.issues == (
        "2 of 4 notes do not begin on a sixteenth and were moved there, by at most 0.08 of one",
        "1 of 4 notes are shorter than a sixteenth and were made one long",
    )


def test_only_notes_that_are_used_are_spoken_of() -> None:
    rows = [(0, 480, 72, 80, 0), (480, 480, 74, 80, 0), (7, 480, 48, 80, 1), (491, 480, 50, 80, 1)]
    assert read_melody(Score(rows)).issues == ()
    assert read_voices(Score(rows)).issues[0].startswith("2 of 4 notes do not begin on a sixteenth")


def test_legato_overlaps_are_cut() -> None:
    rows = [(s, d + 100, p, v, t) for s, d, p, v, t in chords(*HIGH_TO_LOW)]
    voices = read_voices(Score(rows))
    assert voices.pitch[:12:4].tolist() == [list(row) for row in HIGH_TO_LOW]
    assert any("were cut" in issue for issue in voices.issues)


def test_notes_doubled_in_one_part_count_once() -> None:
    rows = [*chords(*HIGH_TO_LOW), (0, 480, 72, 60, 0)]
    voices = read_voices(Score(rows))
    assert voices.pitch[::4].tolist() == [list(row) for row in HIGH_TO_LOW]
    assert voices.issues == ("1 notes that another one doubles were left out",)


def test_other_resolutions_and_the_beginning_in_a_bar() -> None:
    rows = [(96 * 3 + i * 24, 24, 60 + i) for i in range(6)]  # three beats of silence, 96 ticks a quarter
    voices = read_melody(Score(rows, ticks_per_quarter=96, time_signatures=[(0, 4, 4)]))
    assert voices.position.tolist() == [12, 13, 14, 15, 0, 1]
    assert voices.meter == Meter(4, 4, 4)


def test_a_change_of_metre() -> None:
    rows = [(i * 480, 480, 60) for i in range(7)]
    voices = read_melody(Score(rows, time_signatures=[(0, 4, 4), (1920, 3, 4)]))
    assert voices.position.tolist() == [*range(16), *range(12)]
    assert voices.meter.bar_length == 12


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (Score(), "x.mid: expected notes of four voices, got none"),
        (Score([(0, 480, 36, 80, 0, 9)]), "expected notes of four voices, got none"),
        (Score([(1920 + 480, 480, p) for p in (50, 55, 60, 64, 67)]), "x.mid: bar 2, tick 2400: .*at most 4 .*got 5"),
        (
            Score(
                [(480, 960, p) for p in (50, 55, 60)] + [(960, 480, p) for p in (64, 67)],
                time_signatures=[(0, 1, 4), (480, 3, 4)],
            ),
            "bar 1, tick 960: .*got 5",
        ),
        (Score([(0, 1 << 30, 60)]), "at most 65536 sixteenths, got 8947849"),
    ],
    ids=["empty", "drums", "five", "five held", "long"],
)
def test_what_is_not_four_voices_is_refused(score: Score, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_voices(score, "x.mid")


def test_melody_is_the_soprano_of_any_score() -> None:
    assert read_melody(merged({0: 2, 1: 1, 2: 0, 3: 3})).pitch[::4, 0].tolist() == [72, 74, 72]
    assert read_melody(merged({0: 0, 1: 0, 2: 0, 3: 0})).pitch[::4, 0].tolist() == [72, 74, 72]
    named = Score([(0, 480, 60, 80, 0), (0, 480, 80, 80, 1)], tracks=[Track("soprano"), Track("descant")])
    assert read_melody(named).pitch[0].tolist() == [60]
    low = Score([(0, 480, 48), (480, 480, 50)])
    assert read_melody(low).pitch[::4, 0].tolist() == [48, 50]


def test_fermata_markers() -> None:
    score = Score([(0, 1920, 60)], texts=[Text(480, "marker", b" Fermata "), Text(0, "marker", b"A"),
                                          Text(9600, "marker", b"fermata"), Text(960, "text", b"fermata")])  # fmt: skip
    assert np.flatnonzero(read_melody(score).fermata).tolist() == [4]


def voices_of(*pitches: int) -> Voices:
    pitch = np.array([pitches], np.int32)
    return Voices(pitch, pitch > 0, np.zeros(1, bool), np.zeros(1, np.int32), Meter(), 120.0)


@pytest.mark.parametrize(
    ("pitches", "shift"),
    [
        ((72, 67, 60, 48), 0),
        ((83, 72, 64, 55), -2),
        ((60, 57, 45, 40), 3),
        ((60, 55, 46, 33), 3),
        ((81, 53, 69, 36), 0),
        ((81, 52, 60, 48), 0),  # no shift suits both soprano and alto: the vocabulary is enough
        ((85, 52, 60, 48), -4),
        ((-1, -1, -1, -1), 0),
        ((50,), 7),
    ],
)
def test_fit(pitches: tuple[int, ...], shift: int) -> None:
    assert CHORALE.fit(voices_of(*pitches)) == shift


def test_fit_refuses_what_is_too_wide() -> None:
    with pytest.raises(ValueError, match=r"tune: expected pitches within 45 semitones, got 30 to 80"):
        CHORALE.fit(voices_of(80, 60, 50, 30), "tune")


# -- the plain reference, and any number of voices -----------------------------------------------------------------

QUINTET = VoiceGrid(voices=("violin 1", "violin 2", "viola", "cello", "bass"), lowest_pitch=28, num_pitches=73)
CHOIRS = [
    CHORALE,
    JSB16,
    VoiceGrid(voices=("melody",), lowest_pitch=0, num_pitches=128),
    VoiceGrid(voices=("upper", "lower"), hold=False),
    VoiceGrid(voices=("soprano", "middle", "bass"), ranges={"soprano": (60, 81), "middle": (50, 70), "bass": (36, 64)}),
    QUINTET,
    VoiceGrid(voices=tuple("abcdefgh"), lowest_pitch=10, num_pitches=100),
]
choirs = pytest.mark.parametrize("encoding", CHOIRS, ids=lambda e: f"{len(e.voices)}{'' if e.hold else ' no hold'}")


def twin(score: Score, encoding: VoiceGrid, *, melody: bool = False) -> Any:
    """(pitch, onset, fermata, first step, issues) of the reference, or its refusal."""
    aliases = encodings.voice_grid._ALIASES
    voices = [(aliases.get(v, (v,)), *encodings.CHORALE_RANGES.get(v, encoding.ranges[v])) for v in encoding.voices]
    notes = score.notes[["start", "duration", "pitch", "track", "channel"]].tolist()
    names = {i: track.name for i, track in enumerate(score.tracks)}
    marks = [t.time for t in score.texts if t.kind == "marker" and t.text.strip().lower() == "fermata"]
    try:
        frames, fermata, begin, issues = reference.find_voices(
            notes, names, voices, score.ticks_per_quarter, marks, melody=melody
        )
    except reference.Refused as refused:
        return refused.args
    pitch, onset = np.moveaxis(np.array(frames), -1, 0)
    return pitch, onset.astype(bool), np.array(fermata), begin, issues


def random_score(random: np.random.Generator, n_voices: int) -> Score:
    """Anything from a fugue to nonsense: tracks with and without names, unisons, doubled notes, times off the grid."""
    tracks = int(random.integers(1, n_voices + 3))
    grid, spread = random.choice([120, 60, 37]), random.choice([4, 24, 60])
    rows = [
        (int(random.integers(0, 12)) * grid, int(random.choice([120, 240, 480, 100, 10])),
         int(60 + random.integers(-spread, spread) // 2), 80, int(random.integers(0, tracks)))
        for _ in range(int(random.integers(1, 4 * n_voices)))
    ]  # fmt: skip
    names = ["Soprano", "ALTO I", "Tenor", "b. 2", "Violin 1", "violin 2 (solo)", "Viola", "a", "melody", "", "upper"]
    return Score(
        rows, tracks=[Track(str(random.choice(names)), channel=int(random.integers(0, 16))) for _ in range(tracks)],
        texts=[Text(int(random.integers(0, 2000)), "marker", b" Fermata")], ticks_per_quarter=480,
    )  # fmt: skip


def compare(score: Score, encoding: VoiceGrid) -> bool:
    """Native and plain find the same, or refuse alike; whether they found voices."""
    for melody in (False, True):
        found, expected = encoding.encoder.find(melody, *score._tables()), twin(score, encoding, melody=melody)
        assert len(found) == len(expected), (found, expected)
        if len(found) == 2:
            assert found[0].endswith(expected[0])
            assert found[1] == expected[1]
            continue
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    return len(encoding.encoder.find(False, *score._tables())) == 5


@choirs
def test_voices_twin(encoding: VoiceGrid) -> None:
    random = np.random.default_rng(len(encoding.voices))
    rounds = 150 if len(encoding.voices) < 6 else 4  # the reference tries 40 320 ways for every chord
    found = sum(compare(random_score(random, len(encoding.voices)), encoding) for _ in range(rounds))
    assert found > rounds // 6


def test_voices_twin_of_a_real_choir() -> None:
    """What the bundled model sings, in four tracks, in one, and with every second track merged."""
    for seed in range(3):
        score = mg.sample(seed=seed, length="8 bars")
        for merge in (lambda t: t, lambda t: t * 0, lambda t: t // 2):
            notes = score.notes.copy()
            notes["track"] = merge(notes["track"])
            again = Score(np.sort(notes, order=["track", "start"]), tracks=[Track()] * 4)
            assert compare(again, CHORALE)


@choirs
def test_tokens_twin(encoding: VoiceGrid) -> None:
    random = np.random.default_rng(3)
    sizes = [slot["size"] for slot in encoding.slots]
    options = {"hold": encoding.hold, "lowest_pitch": encoding.lowest_pitch}
    for frames in (0, 1, 2, 40):
        tokens = np.stack(
            [random.integers(0, min(size, 2 if i % 2 else size), frames) for i, size in enumerate(sizes)], 1
        )
        tokens = np.where(random.random(tokens.shape) < 0.5, 0, tokens)
        grid = encoding.tokens_to_grid(tokens)
        cells, fermata = reference.tokens_to_grid(tokens.tolist(), **options)
        assert grid.fermata.tolist() == fermata
        assert [[tuple(c) for c in row] for row in np.stack([grid.pitch, grid.onset], -1).tolist()] == cells
        if cells:
            made = encoding.grid_to_tokens(grid.pitch, grid.onset, grid.fermata)
            assert made.tolist() == reference.grid_to_tokens(cells, fermata, **options)
        notes = [(v, i * TICKS_PER_STEP, (end - i) * TICKS_PER_STEP, p) for v, i, end, p in reference.notes_of(cells)]
        decoded = encoding.decode(tokens)
        assert decoded.notes[["track", "start", "duration", "pitch"]].tolist() == notes
        assert [t.time // TICKS_PER_STEP for t in decoded.texts if t.kind == "marker"] == np.flatnonzero(
            fermata
        ).tolist()
        assert len(decoded.tracks) == len(encoding.voices)


@choirs
def test_encode_undoes_decode_for_any_number_of_voices(encoding: VoiceGrid) -> None:
    random = np.random.default_rng(4)
    n = len(encoding.voices)
    for frames in (1, 2, 50):
        pitch = random.integers(encoding.lowest_pitch, encoding.lowest_pitch + encoding.num_pitches, (frames, n))
        pitch = np.where(random.random(pitch.shape) < 0.2, REST, np.repeat(pitch[::3], 3, axis=0)[:frames])
        pitch[[0, -1]] = encoding.lowest_pitch + 5  # every voice has a track, and the ends are not silent
        tokens = encoding.grid_to_tokens(pitch)
        for score in (encoding.decode(tokens), read_midi(encoding.decode(tokens).to_bytes(), strict=True)):
            issues: list[str] = []
            np.testing.assert_array_equal(encoding.encode(score, issues), tokens)
            assert issues == []
            assert [track.name.lower() for track in score.tracks] == list(encoding.voices)
    assert encodings.load(encoding.to_dict()) == encoding
    assert pickle.loads(pickle.dumps(encoding)) == encoding
    assert encoding.describe(encoding.rest) == "rest"
    assert encoding.describe(encoding.vocab_size - 1) == f"pitch {encoding.lowest_pitch + encoding.num_pitches - 1}"


def test_encode_is_what_read_voices_finds() -> None:
    score = CHORALE.decode(CHORALE.grid_to_tokens(*singable(np.random.default_rng(1), 64)))
    voices = read_voices(score)
    np.testing.assert_array_equal(
        CHORALE.encode(score), CHORALE.grid_to_tokens(voices.pitch, voices.onset, voices.fermata)
    )
    np.testing.assert_array_equal(JSB16.encode(score), JSB16.grid_to_tokens(voices.pitch))
    with pytest.raises(ValueError, match=r"tick 0: expected at most 4 notes at once, got 5"):
        CHORALE.encode(Score([(0, 480, p) for p in (50, 55, 60, 64, 67)]))
    with pytest.raises(ValueError, match=r"pitch: expected 36 to 81 or -1 \(rest\), got 90 \(soprano, frame 0\)"):
        CHORALE.encode(Score([(0, 480, 90)]))


def test_eight_voices_in_unison_take_no_longer_than_eight_apart() -> None:
    """The search is over subsets: 40 320 ways to give eight notes to eight voices are not tried one by one."""
    eight = CHOIRS[-1]
    rows = [(step * 120, 120, 60) for step in range(2000)]
    tracks = np.array([(s, d, p, 80, v) for s, d, p in rows for v in range(9)][:16000])
    begun = time.monotonic()
    with pytest.raises(ValueError, match="at most 8"):
        read_voices(Score([tuple(row) for row in tracks.tolist()]), encoding=eight)
    mixed = Score([(s, d, p + v % 2, 80, v, v) for s, d, p in rows for v in range(8)])
    assert read_voices(mixed, encoding=eight).pitch.shape == (2000, 8)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"voices": ()}, r"voices: expected 1 to 8 different names, got \(\)"),
        ({"voices": tuple("abcdefghi")}, "voices: expected 1 to 8"),
        ({"voices": ("a", "A")}, "voices: expected"),
        ({"voices": ("a", " ")}, "voices: expected"),
        ({"voices": ("a", 3)}, "voices: expected"),
        ({"voices": ("a", "b"), "ranges": {"a": (60, 70)}}, r"ranges: expected a range for each of \['a', 'b'\]"),
        ({"lowest_pitch": 100}, "num_pitches: expected pitches from 0 to 127, got 46 from 100"),
    ],
)
def test_voices_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        VoiceGrid(**options)
    if "lowest_pitch" not in options:
        ranges = {"ranges": {v: list(r) for v, r in options["ranges"].items()}} if "ranges" in options else {}
        with pytest.raises(WeightsError, match="encoding"):
            encodings.load({"name": "voice_grid", "voices": list(options["voices"]), **ranges})


def test_old_files_and_old_readers_know_four_voices() -> None:
    assert "voices" not in CHORALE.to_dict()
    assert QUINTET.to_dict()["voices"] == list(QUINTET.voices)
    assert encodings.load({"name": "voice_grid"}) == CHORALE


DUET = VoiceGrid(
    voices=("violin", "cello"), ranges={"violin": (60, 81), "cello": (40, 60)}, meters=("6/8", "3/4"), program=40,
    modes=("major", "dorian"), keys=((2, "dorian", 1.0),), starts=(("6/8", 2, 1.0),), lengths=((2, 3.0), (3, 1.0)),
    tempos=(("6/8", 150.0),),
)  # fmt: skip


def test_the_form_of_an_encoding_that_says_all() -> None:
    assert encodings.load(json.loads(json.dumps(DUET.to_dict()))) == DUET
    for change, words in [
        ({"meters": ["6/8", "6/8"]}, "encoding.meters: expected 1 to 16 different time signatures"),
        ({"meters": ["17/8"]}, "encoding.meters"),
        ({"meters": "6/8"}, "encoding.meters"),
        ({"modes": ["lydian"]}, "encoding.modes: expected some of .*'dorian'.*, got"),
        ({"starts": [["4/4", 0, 1.0]]}, "encoding.starts: .*'3/4', '6/8'"),
        ({"keys": [[0, "minor", 1.0]]}, "encoding.keys: .*mode out of .*'dorian'"),
        ({"lengths": [[0, 1.0]]}, "encoding.lengths: expected .bars from 1 to 256, weight > 0., got"),
        ({"lengths": 8}, "encoding.lengths: expected up to 100"),
        ({"program": 128}, "encoding.program"),
        ({"tempos": [["4/4", 90.0]]}, "encoding.tempos: expected .meter, 10 to 1000 quarters a minute. with a meter"),
        ({"tempos": {"6/8": 90.0}}, "encoding.tempos"),
    ]:
        with pytest.raises(WeightsError, match=words):
            encodings.load({**DUET.to_dict(), **change})


def test_metres_of_one_length_are_told_apart_and_what_is_left_is_counted() -> None:
    given = DUET.given(26, position=Meter(6, 8).positions(26), bar_length=Meter(6, 8), length=24, mode="dorian")
    assert given["bar_length"][0] == 1
    assert given["mode"][0] == 2
    assert given["left"].tolist() == [19] * 8 + [*range(17, 0, -1), 1]
    assert DUET.given(1, bar_length=Meter(3, 4))["bar_length"][0] == 2
    assert DUET.given(1, bar_length=Meter(4, 4))["bar_length"][0] == 3
    assert DUET.given(2, bar_length=12, length=12 * 32 + 1)["left"].tolist() == [50, 49]
    assert DUET.given(1, bar_length=12, length=12 * 40)["left"][0] == 50
    assert DUET.given(1, length=12)["left"][0] == 0
    assert {name: len(ids) for name, ids in given.items()} == dict.fromkeys(DUET.given_sizes, 26)


def test_a_model_of_other_voices(make_model: Any) -> None:
    duet = mg.ScoreModel(make_model(DUET))
    assert list(duet.info["conditions"]) == ["meter", "pickup", "mode", "key", "violin"]
    piece = duet.sample(seed=1)
    assert [track.name for track in piece.tracks] == ["Violin", "Cello"]
    assert {int(p) for p in piece.programs["program"]} == {40}
    assert piece.time_signatures[-1][["numerator", "denominator"]].item() == (6, 8)
    assert piece.key_signatures[["sharps", "minor"]].tolist() == [(-1, 1)]  # d dorian, as d minor
    assert piece.tempos["microseconds_per_quarter"].tolist() == [400_000]
    slow = duet.sample(seed=1, length="3 s", condition={"meter": "3/4"})  # at 80 quarters a minute: 4 of them
    assert int((slow.notes["start"] + slow.notes["duration"]).max()) <= 4 * 480
    last = max((note.start + note.duration for note in duet.stream(seed=1)), default=0)
    assert last == int((piece.notes["start"] + piece.notes["duration"]).max()) <= 3 * 1440
    assert set(piece.notes["velocity"].tolist()) == {88, 82}
    tune = Score([(0, 960, 64), (960, 480, 65)])
    over = duet.sample(condition={"violin": tune}, seed=2)
    assert over.notes[over.notes["track"] == 0]["pitch"].tolist() == [64, 65]
    assert duet.log_prob(piece).shape[1] == 3
    with pytest.raises(ValueError, match=r"condition\['violin'\]: expected none for log_prob"):
        duet.log_prob(piece, condition={"violin": tune})
    with pytest.raises(ValueError, match=r"condition\['key'\]: expected a note and a mode.*dorian"):
        duet.sample(condition={"key": "D minor"})
