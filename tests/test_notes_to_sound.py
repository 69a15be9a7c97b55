"""What a WaveNet is told of a score: lines of one note at a time, and a row of numbers every few milliseconds."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest

from musicgen_ext import encodings
from musicgen_ext.encodings import Line, NotesToSound
from musicgen_ext.encodings.notes_to_sound import FEATURES
from musicgen_ext.errors import WeightsError
from musicgen_ext.midi import Score, Track
from musicgen_reference import encodings as reference

ENCODING = NotesToSound(16_000, 80, 48, 84)


def random_line(random: np.random.Generator, count: int) -> Any:
    """Notes one after the other, with and without rests, some shorter than a frame."""
    lengths = random.exponential(0.05, count)
    rests = np.where(random.random(count) < 0.5, 0.0, random.exponential(0.03, count))
    end = np.cumsum(lengths + rests)
    pitches, velocities = random.integers(48, 85, count), random.integers(1, 128, count)
    return np.stack([end - lengths, end, pitches, velocities], axis=1)


def score_of(notes: Any, names: tuple[str, ...] = ("Flute",), **options: Any) -> Score:
    """A quarter note is half a second, 480 ticks."""
    return Score(notes, tracks=[Track(name, 73) for name in names], **options)


# -- frames ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 40])
@pytest.mark.parametrize("hop", [1, 37, 80, 256])
def test_frames_are_those_of_the_reference(count: int, hop: int, rng: np.random.Generator) -> None:
    notes = random_line(rng, count) if count else np.zeros((0, 4))
    encoding = NotesToSound(8_000, hop, 48, 84, features=(*FEATURES, "phase"))
    total = min(encoding.num_frames(int(8_000 * (notes[-1, 1] + 0.1 if count else 0.1))), 400)
    frames = encoding.frames(notes, total)
    expected = reference.sound_frames(notes.tolist(), total, sample_rate=8_000, hop_length=hop, low=48, high=84)
    assert frames.dtype == np.float32
    assert frames.shape == (total, encoding.num_channels) == (total, 37 + 6)
    # Each is one exponential in double precision, rounded to single, or a sine of up to some thousand periods.
    np.testing.assert_allclose(frames, np.array(expected).reshape(frames.shape), rtol=1e-6, atol=1e-9)


def test_a_part_of_the_frames_is_that_part_of_all(rng: np.random.Generator) -> None:
    notes = random_line(rng, 60)
    whole = ENCODING.frames(notes, 900)
    for first, count in ((0, 900), (0, 1), (17, 100), (899, 1), (300, 0)):
        np.testing.assert_array_equal(ENCODING.frames(notes, count, first=first), whole[first : first + count])
    before = ENCODING.frames(notes, 40, first=-20)
    assert not before[:20].any()
    np.testing.assert_array_equal(before[20:], whole[:20])


def test_channels_have_names() -> None:
    encoding = NotesToSound(16_000, 80, 60, 62, ("legato", "staccato"), ("onset", "velocity"))
    assert encoding.channels == (
        "pitch 60", "pitch 61", "pitch 62", "onset", "velocity", "style legato", "style staccato"
    )  # fmt: skip
    notes = [[0.0, 0.01, 61, 127]]
    first = encoding.frames(notes, 3)[0]
    np.testing.assert_allclose(first, [0, 1, 0, np.exp(-0.0025 / 0.05), 1, 1, 0], rtol=1e-6)
    staccato = encoding.frames(notes, 3, style="staccato")
    np.testing.assert_array_equal(staccato[:, -2:], [[0, 1]] * 3)
    np.testing.assert_array_equal(staccato[2], [0, 0, 0, 0, 0, 0, 1])
    with pytest.raises(ValueError, match=r"style: expected one of legato, staccato, got 'pizzicato'"):
        encoding.frames(notes, 1, style="pizzicato")
    assert NotesToSound(16_000, 80, 60, 62, ("only",)).channels[-1] == "velocity"


def test_num_frames_covers_every_sample() -> None:
    assert [ENCODING.num_frames(n) for n in (0, 1, 79, 80, 81, 160)] == [0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("notes", "words"),
    [
        ([[0, 1, 60]], r"shape \(n, 4\)"),
        ([[0, 1, 60, 80], [0.5, 2, 62, 80]], r"notes\[1\]: .* from 0\.5 s to 2 s after one that ends at 1 s"),
        ([[1, 0, 60, 80]], r"notes\[0\]: .* from 1 s to 0 s"),
        ([[0, 1, 60.5, 80]], r"notes\[0\]\.pitch: expected a whole number in \[48, 84\], got 60\.5"),
        ([[0, 1, 85, 80]], r"notes\[0\]\.pitch: .*got 85"),
        ([[0, 1, 60, 128]], r"notes\[0\]\.velocity: .*\[0, 127\], got 128"),
        ([[-1, 1, 60, 80]], r"notes\[0\]\.start"),
        ([[0, 1e9, 60, 80]], r"notes\[0\]\.end"),
        ([[0, np.nan, 60, 80]], "finite"),
    ],
)
def test_notes_that_make_no_line_are_refused(notes: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ENCODING.frames(notes, 10)


# -- lines -----------------------------------------------------------------------------------------------------------


def check_lines(lines: list[Line], count: int) -> None:
    assert sum(len(line.notes) for line in lines) == count
    for line in lines:
        starts, ends = line.notes[:, 0], line.notes[:, 1]
        assert (starts <= ends).all()
        assert (ends[:-1] <= starts[1:]).all()
        np.testing.assert_array_equal(ENCODING.frames(line, 50), ENCODING.frames(line.notes, 50))


def test_a_melody_is_one_line_in_seconds() -> None:
    (line,) = ENCODING.lines(score_of([(0, 480, 60, 90), (480, 240, 62, 80), (960, 960, 64, 70)]))
    assert (line.name, line.track) == ("Flute", 0)
    np.testing.assert_allclose(line.notes, [[0, 0.5, 60, 90], [0.5, 0.75, 62, 80], [1, 2, 64, 70]])


def test_chords_are_split_from_high_to_low() -> None:
    lines = ENCODING.lines(score_of([(0, 480, 60), (0, 480, 67), (0, 960, 64), (480, 480, 72), (480, 480, 59)]))
    check_lines(lines, 5)
    assert [line.notes[:, 2].tolist() for line in lines] == [[67, 72], [64], [60, 59]]


def test_a_little_overlap_is_legato_and_a_longer_one_a_voice() -> None:
    (line,) = ENCODING.lines(score_of([(0, 500, 60), (480, 480, 62)]))  # 21 ms
    np.testing.assert_allclose(line.notes[:, :2], [[0, 0.5], [0.5, 1.0]])
    lines = ENCODING.lines(score_of([(0, 600, 60), (480, 480, 62)]))  # 125 ms
    assert [line.notes[:, 2].tolist() for line in lines] == [[60], [62]]
    check_lines(ENCODING.lines(score_of([(0, 30, 60), (10, 30, 62), (20, 30, 64)])), 3)  # 10 ms apart: a chord


def test_any_notes_become_lines_without_overlap(rng: np.random.Generator) -> None:
    for _ in range(20):
        count = int(rng.integers(1, 80))
        notes = [
            (int(rng.integers(0, 4800)), int(rng.integers(1, 700)), int(rng.integers(48, 85)), 80, int(rng.integers(2)))
            for _ in range(count)
        ]
        check_lines(ENCODING.lines(score_of(notes, ("a", "b"))), count)


def test_tracks_are_chosen_by_name_or_number() -> None:
    notes = [(0, 480, 72, 80, 0), (0, 480, 65, 80, 1), (0, 480, 60, 80, 2), (480, 480, 50, 80, 3)]
    score = score_of(notes, ("Soprano", "Alto", "Alto", "", "silent"))

    def chosen(voices: Any) -> list[int]:
        return [line.track for line in ENCODING.lines(score, voices)]

    assert chosen("all") == [0, 1, 2, 3]
    assert chosen("soprano") == chosen(0) == chosen("0") == chosen(["SOPRANO "]) == [0]
    assert chosen("Alto") == [1, 2]
    assert chosen([3, "soprano", 3]) == [0, 3]
    for wrong in ("tenor", 4, 9, -1, "silent"):
        with pytest.raises(ValueError, match=r"voices: .*0 \('Soprano'\), 1 \('Alto'\), 2 \('Alto'\), 3, got"):
            chosen(wrong)
    for strange in (None, 1.5, [True], [[0]]):
        with pytest.raises(TypeError, match="voices"):
            chosen(strange)
    with pytest.raises(ValueError, match="at least one track"):
        chosen([])


def test_scores_that_cannot_be_played_are_refused() -> None:
    with pytest.raises(ValueError, match="expected notes, got none"):
        ENCODING.lines(Score())
    with pytest.raises(
        ValueError, match=r"from 48 \(C3\) to 84 \(C6\).*got 47 \(B2\) at 0\.50 s in track 0 \('Flute'\)"
    ):
        ENCODING.lines(score_of([(0, 480, 60), (480, 480, 47)]))
    drums = Score([(0, 480, 60, 80, 0), (0, 480, 36, 80, 1)], tracks=[Track("Flute"), Track("Kit", is_drum=True)])
    with pytest.raises(ValueError, match=r"got drums in track 1 \('Kit'\); choose other tracks as voices \(0\)"):
        ENCODING.lines(drums)
    assert [line.name for line in ENCODING.lines(drums, "flute")] == ["Flute"]
    with pytest.raises(ValueError, match="at most 64 lines"):
        ENCODING.lines(score_of([(0, 480, 60, 80)] * 65))


# -- the JSON form ---------------------------------------------------------------------------------------------------


def test_json_form() -> None:
    for encoding in (ENCODING, NotesToSound(8_000, 200, 0, 127, ("a", "b"), ("release",))):
        form = json.loads(json.dumps(encoding.to_dict()))
        assert encodings.load(form) == encoding
        assert pickle.loads(pickle.dumps(encoding)) == encoding
    assert encodings.load({"name": "notes_to_sound", "sample_rate": 16_000, "hop_length": 80}) == NotesToSound(
        16_000, 80
    )
    with pytest.raises(WeightsError, match=r"encoding\.name: expected one of \['bars'"):
        encodings.load(ENCODING.to_dict(), tokens=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sample_rate": 0}, "encoding.sample_rate"),
        ({"sample_rate": None}, "encoding.sample_rate"),
        ({"hop_length": 0}, "encoding.hop_length"),
        ({"hop_length": 1 << 40}, "encoding.hop_length"),
        ({"low": -1}, "encoding.low"),
        ({"low": 60, "high": 59}, r"encoding.high: .*\[60, 127\], got 59"),
        ({"styles": "flute"}, "encoding.styles"),
        ({"styles": ["a", "a"]}, "distinct"),
        ({"styles": [str(i) for i in range(200)]}, "at most 128"),
        ({"styles": ["a\nb"]}, "short names"),
        ({"features": ["onset", "pitch"]}, "'pitch'"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_R29_a_broken_encoding_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        encodings.load({**ENCODING.to_dict(), **change})
