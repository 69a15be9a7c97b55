"""The numbers about music: hand-made examples with known answers, laws, and the counting floors of the benchmark."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from musicgen_ext import evaluate
from musicgen_ext.evaluate import Piece

DATA = Path(os.environ.get("MUSICGEN_EXT_DATA", Path(__file__).parents[2] / "shared" / "data"))
JSB16 = DATA / "jsb_chorales" / "jsb16_separated.npz"

needs_jsb16 = pytest.mark.skipif(not JSB16.is_file(), reason=f"{JSB16.name} is not here (set MUSICGEN_EXT_DATA)")


def chords(*columns, steps=4, **keywords):
    """A piece of block chords (soprano, alto, tenor, bass), each `steps` sixteenths long and struck anew."""
    pitch = np.repeat(np.array(columns), steps, axis=0)
    onset = np.zeros(pitch.shape, dtype=bool)
    onset[::steps] = True
    return Piece(pitch, onset & (pitch != -1), **keywords)


C_MAJOR = (72, 67, 64, 48)
D_MINOR = (74, 69, 65, 50)
G_MAJOR = (71, 67, 62, 43)
F_MAJOR = (72, 69, 65, 41)


@pytest.fixture
def cadence():
    return chords(C_MAJOR, F_MAJOR, G_MAJOR, C_MAJOR)


def random_piece(rng, steps=64):
    """Any grid at all: rests, crossings, repeated and held notes."""
    base = np.array([70, 64, 58, 48])
    pitch = base + rng.integers(-6, 7, size=(steps, 4))
    held = rng.random((steps, 4)) < 0.6
    for step in range(1, steps):
        pitch[step] = np.where(held[step], pitch[step - 1], pitch[step])
    pitch = np.where(rng.random((steps, 4)) < 0.05, -1, pitch)
    before = np.concatenate([np.full((1, 4), -1), pitch[:-1]])
    onset = (pitch != -1) & ((pitch != before) | (rng.random((steps, 4)) < 0.1))
    return Piece(pitch, onset)


# jsb16 ------------------------------------------------------------------------------------------------------


@needs_jsb16
def test_jsb16_has_the_published_sizes():
    data = evaluate.load_jsb16(JSB16)
    for name, (pieces, steps) in evaluate.JSB16_SIZES.items():
        assert len(data.split(name)) == pieces
        assert sum(len(piece) for piece in data.split(name)) == steps
    assert 4 * evaluate.JSB16_SIZES["valid"][1] == 73_632
    assert 4 * evaluate.JSB16_SIZES["test"][1] == 75_600


@needs_jsb16
def test_jsb16_json_and_npz_are_the_same_music():
    npz, from_json = evaluate.load_jsb16(JSB16), evaluate.load_jsb16(JSB16.with_suffix(".json"))
    for name in evaluate.JSB16_SPLITS:
        for a, b in zip(npz.split(name), from_json.split(name), strict=True):
            np.testing.assert_array_equal(a, b)


@needs_jsb16
@pytest.mark.parametrize(
    ("beat_phase", "split", "nats"),
    [(False, "valid", 0.934), (False, "test", 0.983), (True, "valid", 0.708), (True, "test", 0.740)],
)
def test_jsb16_counting_floor(beat_phase, split, nats):
    """The floors that two independent counts gave: 0.935 / 0.984 (0.936 / 0.985), with beat phase 0.707 / 0.740."""
    data = evaluate.load_jsb16(JSB16)
    score = evaluate.evaluate_jsb16(evaluate.counting_model(data.train, beat_phase=beat_phase), data.split(split))
    assert score.joint == pytest.approx(nats, abs=0.0008)
    assert score.tokens == 4 * evaluate.JSB16_SIZES[split][1]
    assert np.mean(list(score.per_voice.values())) == pytest.approx(score.joint, rel=1e-12)


def other_jsb16(path, pitch=60):
    splits = {name: [[[pitch, 55, 50, -1]] * 3] for name in evaluate.JSB16_SPLITS}
    path.write_text(json.dumps(splits))
    return path


def test_jsb16_refuses_another_file_unless_told(tmp_path):
    path = other_jsb16(tmp_path / "jsb16_separated.json")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match=digest):
        evaluate.load_jsb16(path)
    data = evaluate.load_jsb16(path, allow_other=True)
    np.testing.assert_array_equal(data.test[0], [[60, 55, 50, -1]] * 3)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"train": [[1]]}', b"PK\x03\x04 not a zip", b"\xff\xfe"])
def test_jsb16_says_what_is_wrong_with_a_broken_file(tmp_path, content):
    path = tmp_path / "broken.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.npz"):
        evaluate.load_jsb16(path, allow_other=True)


def test_jsb16_refuses_pitches_out_of_range(tmp_path):
    with pytest.raises(ValueError, match="expected pitches 36 to 81 or -1, got 90"):
        evaluate.load_jsb16(other_jsb16(tmp_path / "high.json", pitch=90), allow_other=True)


def test_jsb16_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        evaluate.load_jsb16(tmp_path)


def uniform(piece):
    return np.full((len(piece), 4), -np.log(47))


def grids(*lengths):
    return [np.full((length, 4), 60, dtype=np.int16) for length in lengths]


def test_counting_model_is_a_markov_chain_per_voice():
    """One symbol follows another for sure, or with the beat: the counts know it, up to the smoothing."""
    pitch = np.tile(np.array([60, 60, 62, 64]), 50)
    train = [np.stack([pitch, pitch - 12, pitch - 12, pitch - 24], axis=1).astype(np.int16)]
    plain = evaluate.counting_model(train, smoothing=1e-9)
    np.testing.assert_allclose(plain(train[0])[3::4], 0, atol=1e-6)  # after 62 always 64
    np.testing.assert_allclose(plain(train[0])[1::4], np.log(0.5), atol=1e-6)  # after 60: 60 or 62
    beat = evaluate.counting_model(train, smoothing=1e-9, beat_phase=True)
    np.testing.assert_allclose(beat(train[0]), 0, atol=1e-6)
    smooth = evaluate.counting_model([], smoothing=1.0)
    np.testing.assert_allclose(smooth(train[0]), -np.log(47))


def test_micro_average_weighs_tokens_and_macro_weighs_pieces():
    pieces = grids(10, 30)

    def log_prob(piece):
        return np.full((len(piece), 4), -1.0 if piece[0, 0] == 60 else -2.0)

    pieces[1][:] = 50
    score = evaluate.evaluate_jsb16(log_prob, pieces)
    assert score.joint == pytest.approx((10 * 1 + 30 * 2) / 40)
    assert score.joint_macro == pytest.approx(1.5)
    assert (score.tokens, score.pieces) == (160, 2)


def test_other_tokens_are_charged_to_the_notes():
    columns = ("flag", "soprano", "bass", "alto", "tenor")
    weights = np.array([-0.5, -1.0, -2.0, -3.0, -4.0])
    score = evaluate.evaluate_jsb16(lambda piece: np.tile(weights, (len(piece), 1)), grids(8), columns=columns)
    assert score.joint == pytest.approx(10.5 / 4)
    assert score.other == pytest.approx(0.5 / 4)
    assert score.per_voice == pytest.approx({"soprano": 1.0, "alto": 3.0, "tenor": 4.0, "bass": 2.0})


def test_a_model_that_knows_the_length_is_refused():
    with pytest.raises(ValueError, match="sees the future or the length"):
        evaluate.evaluate_jsb16(lambda piece: np.full((len(piece), 4), -1.0 / len(piece)), grids(8))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda piece: np.zeros((len(piece) + 1, 4)), r"expected shape \(8, 4\), got \(9, 4\)"),
        (lambda piece: np.full((len(piece), 4), np.nan), "expected finite values, got nan"),
        (lambda piece: np.full((len(piece), 4), 0.25), "expected log-probabilities <= 0, got 0.25"),
    ],
)
def test_impossible_log_probabilities_are_refused(result, message):
    with pytest.raises(ValueError, match=message):
        evaluate.evaluate_jsb16(result, grids(8))


def test_jsb16_arguments_are_checked():
    with pytest.raises(ValueError, match="at least one"):
        evaluate.evaluate_jsb16(uniform, [])
    with pytest.raises(ValueError, match="columns: expected soprano, alto, tenor and bass"):
        evaluate.evaluate_jsb16(uniform, grids(8), columns=("a", "b", "c", "d"))
    with pytest.raises(ValueError, match="split: expected one of train, valid, test, got 'all'"):
        evaluate.Jsb16([], [], []).split("all")


def test_jsb16_table_names_the_protocols():
    text = evaluate.format_jsb16(
        {"valid": evaluate.evaluate_jsb16(uniform, grids(8))}, name="uniform", parameters=10**6
    )
    assert f"**{np.log(47):.4f}**" in text
    assert "uniform, 1.00 M parameters" in text
    for _, _, nats, how in evaluate.JSB16_PUBLISHED:
        assert f"{nats:.3f} | {how}" in text


# Pieces -----------------------------------------------------------------------------------------------------


def test_notes_are_cut_at_onsets_and_rests():
    pitch = np.array([60, 60, 60, -1, 62, 62, 60, 60])
    onset = np.array([1, 0, 1, 0, 1, 0, 1, 0], dtype=bool)
    piece = Piece(np.stack([pitch] * 4, axis=1), np.stack([onset] * 4, axis=1))
    notes = evaluate.notes_of(piece)
    soprano = notes[notes[:, 0] == 0][:, 1:]
    np.testing.assert_array_equal(soprano, [[0, 2, 60], [2, 1, 60], [4, 2, 62], [6, 2, 60]])
    assert len(notes) == 16


def test_a_pitch_that_changes_without_an_onset_is_a_new_note():
    pitch = np.array([[60, 60, 60, 60], [61, 60, 60, 60]])
    onset = np.array([[1, 1, 1, 1], [0, 0, 0, 0]], dtype=bool)
    np.testing.assert_array_equal(evaluate.notes_of(Piece(pitch, onset))[:2, 1:], [[0, 1, 60], [1, 1, 61]])


def test_notes_fill_exactly_the_sounding_time(rng):
    for _ in range(20):
        piece = random_piece(rng)
        notes = evaluate.notes_of(piece)
        assert notes[:, 2].sum() == (piece.pitch != -1).sum()
        rebuilt = np.full_like(piece.pitch, -1)
        for voice, start, length, pitch in notes:
            rebuilt[start : start + length, voice] = pitch
        np.testing.assert_array_equal(rebuilt, piece.pitch)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pitch": np.zeros((0, 4))}, r"pitch: expected shape \(T, 4\)"),
        ({"pitch": np.zeros((3, 3))}, r"pitch: expected shape \(T, 4\)"),
        ({"pitch": np.full((2, 4), 128)}, "expected -1 \\(rest\\) to 127, got 128"),
        ({"pitch": np.zeros((2, 4)), "onset": np.ones((3, 4))}, r"onset: expected shape \(2, 4\)"),
        ({"pitch": np.full((2, 4), -1), "onset": np.ones((2, 4))}, "expected a pitch at step 0, soprano"),
        ({"pitch": np.zeros((2, 4)), "position": np.zeros(3)}, r"position: expected shape \(2,\)"),
        ({"pitch": np.zeros((2, 4)), "bar_length": 0}, "bar_length: expected > 0, got 0"),
    ],
)
def test_a_piece_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Piece(**arguments)


@pytest.mark.parametrize("tonic", range(12))
def test_key_of_a_cadence(cadence, tonic):
    assert evaluate.key_of(cadence.transposed(tonic)) == (tonic, "major")


def test_key_of_a_minor_cadence():
    minor = chords((69, 64, 60, 45), (69, 65, 62, 50), (68, 64, 59, 40), (69, 64, 60, 45))
    assert evaluate.key_of(minor) == (9, "minor")


def test_pitch_class_use_counts_time_above_the_tonic(cadence):
    use = evaluate.pitch_class_use([cadence, cadence.transposed(5)])
    expected = np.zeros(12)
    for chord in (C_MAJOR, F_MAJOR, G_MAJOR, C_MAJOR):
        for pitch in chord:
            expected[pitch % 12] += 1 / 16
    np.testing.assert_allclose(use["major"], expected)
    assert use["minor"].sum() == 0


def test_voice_ranges(cadence):
    ranges = evaluate.voice_ranges([cadence])
    assert ranges["soprano"] == {"lowest": 71.0, "mean": 71.75, "highest": 72.0}
    assert ranges["bass"] == {"lowest": 41.0, "mean": 45.0, "highest": 48.0}
    assert evaluate.out_of_range([cadence], ranges) == 0
    assert evaluate.out_of_range([cadence.transposed(12)], ranges) == 1
    silent = Piece(np.full((4, 4), -1))
    assert evaluate.voice_ranges([silent])["alto"] == {}


def test_voice_crossings_count_steps():
    crossed = chords((60, 64, 55, 48), C_MAJOR, (72, 67, 48, 50), (72, -1, 64, 65), steps=2)
    assert evaluate.voice_crossings([crossed]) == pytest.approx(100 * 3 / 4)
    touching = chords((60, 60, 60, 60))
    assert evaluate.voice_crossings([touching]) == 0


@pytest.mark.parametrize(
    ("before", "after", "fifths", "octaves"),
    [
        ((67, 60, 55, 48), (69, 62, 57, 50), 300, 200),  # S-A and T-B fifths, S-B a twelfth; S-T and A-B octaves
        ((67, 60, -1, -1), (69, 62, -1, -1), 100, 0),  # a plain parallel fifth
        ((67, 60, -1, -1), (67, 60, -1, -1), 0, 0),  # repeated: no chord change
        ((67, 60, -1, -1), (67, 62, -1, -1), 0, 0),  # one voice stays
        ((67, 60, -1, -1), (66, 60, -1, -1), 0, 0),
        ((67, 60, -1, -1), (69, 63, -1, -1), 0, 0),  # to a diminished fifth
        ((79, 60, -1, -1), (81, 62, -1, -1), 100, 0),  # a twelfth is a fifth
        ((67, 60, -1, -1), (72, 53, -1, -1), 0, 0),  # by contrary motion, fifth to twelfth
        ((72, 60, -1, -1), (74, 62, -1, -1), 0, 100),
        ((60, 60, -1, -1), (62, 62, -1, -1), 0, 100),  # unison
        ((72, 60, -1, -1), (-1, 62, -1, -1), 0, 0),  # one voice falls silent
        ((65, 60, -1, -1), (67, 62, -1, -1), 0, 0),  # fourths are fine
        ((60, 67, -1, -1), (62, 69, -1, -1), 0, 0),  # crossed voices: upper minus lower is a fourth
    ],
)
def test_parallels(before, after, fifths, octaves):
    found = evaluate.parallels([chords(before, after)])
    assert found == {"fifths": fifths, "octaves": octaves}


def test_parallels_are_per_hundred_chord_changes():
    piece = chords((67, 60, -1, -1), (69, 62, -1, -1), (69, 65, -1, -1), (71, 65, -1, -1), (71, 64, -1, -1))
    assert evaluate.parallels([piece])["fifths"] == 25
    assert evaluate.parallels([chords(C_MAJOR)]) == {"fifths": 0, "octaves": 0}


def test_strong_beats_follow_the_bar():
    four = chords(*[C_MAJOR] * 8)
    np.testing.assert_array_equal(evaluate.strong_beats(four), [0, 8, 16, 24])
    three = chords(*[C_MAJOR] * 6, bar_length=12)
    np.testing.assert_array_equal(evaluate.strong_beats(three), [0, 12])
    upbeat = chords(*[C_MAJOR] * 5, position=(np.arange(20) + 12) % 16)
    np.testing.assert_array_equal(evaluate.strong_beats(upbeat), [4, 12])


def test_consonance_looks_at_strong_beats_only():
    clash = (73, 67, 64, 48)
    weak = chords(C_MAJOR, clash, C_MAJOR, clash)
    assert evaluate.consonance([weak]) == {"triads": 1.0, "dissonant_pairs": 0.0}
    strong = chords(clash, C_MAJOR, C_MAJOR, C_MAJOR)
    assert evaluate.consonance([strong]) == {"triads": 0.5, "dissonant_pairs": pytest.approx(2 / 12)}  # C#-G, C#-C


@pytest.mark.parametrize(
    ("chord", "triad"),
    [
        (C_MAJOR, True),
        (D_MINOR, True),
        ((67, 67, 60, 48), True),  # a bare fifth lies within a triad
        ((70, 67, 64, 48), False),  # a seventh chord
        ((71, 65, 62, 59), False),  # diminished
        ((68, 64, 60, 48), False),  # augmented
    ],
)
def test_triads(chord, triad):
    assert evaluate.consonance([chords(chord)])["triads"] == triad


def test_note_lengths():
    piece = chords(C_MAJOR, D_MINOR, steps=4)
    assert evaluate.note_lengths([piece])["4"] == 1
    odd = evaluate.note_lengths([chords(C_MAJOR, steps=5), chords(C_MAJOR, steps=2)])
    assert (odd["other"], odd["2"]) == (0.5, 0.5)
    assert sum(odd.values()) == pytest.approx(1)


def test_melodic_steps():
    piece = chords((60, -1, -1, -1), (62, -1, -1, -1), (62, -1, -1, -1), (-1, -1, -1, -1), (90, -1, -1, -1))
    steps = evaluate.melodic_steps([piece])
    assert (steps[14], steps[12], steps.sum()) == (0.5, 0.5, 1)  # the leap over the rest is not melodic


def test_repetition_finds_what_came_before():
    phrase = [C_MAJOR, F_MAJOR, G_MAJOR, D_MINOR]
    once, twice = chords(*phrase), chords(*phrase, *phrase)
    assert evaluate.repetition([once])["windows"] == 0
    # 25 windows; those that start at 16 to 24 repeat 0 to 8
    assert evaluate.repetition([twice])["windows"] == pytest.approx(9 / 25)
    assert evaluate.repetition([chords(C_MAJOR, C_MAJOR)])["notes"] == 1


def test_copied_exact_and_transposed(cadence):
    assert evaluate.copied([cadence], [cadence]) == {"exact": 1, "transposed": 1}
    assert evaluate.copied([cadence], [cadence.transposed(2)]) == {"exact": 0, "transposed": 1}
    other = chords(D_MINOR, (74, 70, 67, 46), (76, 67, 60, 48), D_MINOR)
    assert evaluate.copied([other], [cadence]) == {"exact": 0, "transposed": 0}
    mixed = chords(C_MAJOR, F_MAJOR, G_MAJOR, D_MINOR)  # the first 5 of 9 windows are those of the cadence
    assert evaluate.copied([mixed], [cadence])["exact"] == pytest.approx(5 / 9)


def test_copied_tells_a_held_note_from_a_repeated_one(cadence):
    legato = Piece(cadence.pitch, cadence.onset & (np.arange(16) % 8 != 4)[:, None])
    assert evaluate.copied([legato], [cadence])["exact"] < 1


def test_copied_leaves_out_held_chords():
    held = chords(C_MAJOR, steps=32)
    assert evaluate.copied([held], [held]) == {"exact": 0, "transposed": 0}
    assert evaluate.copied([chords(C_MAJOR, steps=3)], [held]) == {"exact": 0, "transposed": 0}


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (C_MAJOR, (1, 1, 1)),
        ((72, 67, 60, 52), (1, 0, 0)),  # first inversion
        ((72, 64, 60, 48), (1, 1, 1)),  # no fifth
        ((72, 67, 60, 48), (0, 0, 1)),  # no third: neither major nor minor
        ((72, 69, 64, 45), (1, 1, 0)),  # deceptive
        ((70, 67, 64, 48), (0, 0, 1)),  # a seventh chord
        ((72, 67, 64, -1), (1, 0, 0)),  # no bass
    ],
)
def test_endings(last, expected):
    piece = chords(C_MAJOR, F_MAJOR, G_MAJOR, C_MAJOR, F_MAJOR, G_MAJOR, C_MAJOR, last, (-1, -1, -1, -1))
    ending = evaluate.endings([piece])
    assert (ending["triad"], ending["root_position"], ending["tonic_bass"]) == expected


def test_a_silent_piece_has_no_ending():
    assert evaluate.endings([Piece(np.full((4, 4), -1))]) == {"triad": 0, "root_position": 0, "tonic_bass": 0}


def test_overlap_and_divergence():
    assert evaluate.overlap([1, 1], [2, 2]) == 1
    assert evaluate.overlap([1, 0], [0, 1]) == 0
    assert evaluate.overlap([3, 1], [1, 1]) == pytest.approx(0.75)
    assert evaluate.divergence([3, 1], [3, 1]) == 0
    assert evaluate.divergence([1, 1], [3, 1], smoothing=0) == pytest.approx(0.5 * np.log(2 / 3) + 0.5 * np.log(2))
    assert np.isfinite(evaluate.divergence([1, 0], [0, 1]))


# Laws -------------------------------------------------------------------------------------------------------


def test_transposition_changes_ranges_only(rng):
    pieces = [random_piece(rng) for _ in range(5)]
    higher = [piece.transposed(semitones) for piece, semitones in zip(pieces, (1, -3, 5, 12, 7), strict=True)]
    a, b = evaluate.describe(pieces), evaluate.describe(higher)
    del a["voice_ranges"], b["voice_ranges"]
    for key in a:
        if key == "pitch_class_use":
            for mode in evaluate.MODES:
                np.testing.assert_allclose(a[key][mode], b[key][mode], atol=1e-12)
        else:
            assert a[key] == b[key], key


def test_copied_transposed_is_invariant(rng):
    pieces, training = [random_piece(rng)], [random_piece(rng) for _ in range(3)]
    training.append(Piece(pieces[0].pitch[:20], pieces[0].onset[:20]))
    here = evaluate.copied(pieces, training)
    there = evaluate.copied([pieces[0].transposed(4)], training)
    assert here["transposed"] == there["transposed"] > 0
    assert here["exact"] == here["transposed"]
    assert there["exact"] == 0


def test_report_against_itself_is_perfect(rng, cadence):
    pieces = [cadence, cadence.transposed(3), *(random_piece(rng) for _ in range(3))]
    result = evaluate.report(pieces, reference=pieces, training=pieces)
    comparison = result["comparison"]
    assert result["pieces"] == result["reference"]
    assert comparison["note_length_overlap"] == pytest.approx(1)
    assert comparison["melodic_interval_overlap"] == pytest.approx(1)
    assert comparison["out_of_range"] == 0
    assert comparison["pitch_class_overlap"]["major"] == pytest.approx(1)
    assert comparison["pitch_class_divergence"]["major"] == pytest.approx(0, abs=1e-12)
    assert result["pieces"]["copied"]["8"] == {"exact": 1, "transposed": 1}
    assert json.loads(json.dumps(result)) == result


def test_order_of_pieces_does_not_matter(rng):
    pieces = [random_piece(rng) for _ in range(4)]
    a, b = evaluate.describe(pieces), evaluate.describe(pieces[::-1])
    assert json.dumps(a["endings"]) == json.dumps(b["endings"])
    assert a["parallel_fifths_per_100_changes"] == b["parallel_fifths_per_100_changes"]
    assert a["repeated_windows"] == b["repeated_windows"]


def test_format_report_is_a_table(cadence):
    result = evaluate.report([cadence], reference=[cadence.transposed(2)], training=[cadence])
    text = evaluate.format_report(result, names=("samples", "test pieces"))
    assert text.startswith("| | samples | test pieces |")
    assert "| parallel fifths per 100 chord changes | 0.00 | 0.00 |" in text
    assert "| 8-step windows found in the training set | 100.0 % | 0.0 % |" in text
    assert "samples against test pieces" in text
    alone = evaluate.format_report(evaluate.report([cadence]))
    assert alone.startswith("| | pieces |")
    for line in alone.splitlines():
        assert line.count("|") == 3


def test_report_needs_pieces():
    with pytest.raises(ValueError, match="at least one"):
        evaluate.report([])


def test_scores_are_plain_numbers():
    score = evaluate.evaluate_jsb16(uniform, grids(8))
    assert json.loads(json.dumps(score.to_dict())) == dataclasses.asdict(score)
