"""Four voices on a grid: tokens and pieces say the same, and nothing is told that the model must not know."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from musicgen_ext import encodings
from musicgen_ext.encodings import CHORALE, JSB16, REST, VOICES, VoiceGrid
from musicgen_ext.errors import WeightsError


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
        ({"name": "wave"}, r"expected one of \['voice_grid'\], got 'wave'"),
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
        ({"tempo": 0}, "tempo"),
        ({"tempo": True}, "tempo"),
        ({"steps_per_quarter": 8}, "steps_per_quarter"),
    ],
)
def test_R29_a_broken_encoding_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        encodings.load({**CHORALE.to_dict(), **change})
