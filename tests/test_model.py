"""The front door: one seed, one piece; what is asked for is what comes; what is wrong is named."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import musicgen_ext as mg
from musicgen_ext import encodings, model, weights
from musicgen_ext.encodings import CHORALE, JSB16, TICKS_PER_STEP, VOICES, Meter, read_voices
from musicgen_ext.errors import DeviceError, WeightsError
from musicgen_ext.midi import Score, Track, read_midi

STEP = TICKS_PER_STEP


@pytest.fixture(params=["chorale", "jsb16"])
def any_model(request: pytest.FixtureRequest) -> mg.Model:
    return mg.load(request.getfixturevalue(f"{request.param}_file"))


@pytest.fixture
def tiny(chorale_file: Path) -> mg.Model:
    return mg.load(chorale_file)


def four_voices(bars: int = 2, transpose: int = 0, seed: int = 0) -> Score:
    """Some bars of quarter notes in four voices, inside the ranges."""
    random = np.random.default_rng(seed)
    centres = [72, 64, 57, 48]
    rows = [
        (beat * 480, 480, centre + transpose + int(random.integers(-4, 5)), 80, voice)
        for voice, centre in enumerate(centres)
        for beat in range(4 * bars)
    ]
    return Score(rows, tracks=[Track(name) for name in VOICES])


def columns(score: Score, voice: int | None = None) -> list[tuple[int, int, int, int]]:
    notes = score.notes if voice is None else score.notes[score.notes["track"] == voice]
    return [(int(n["track"]), int(n["start"]), int(n["duration"]), int(n["pitch"])) for n in notes]


def steps_of(score: Score) -> int:
    return int((score.notes["start"] + score.notes["duration"]).max()) // STEP


# -- one seed, one piece -------------------------------------------------------------------------------------------


def test_R38_one_seed_one_piece(any_model: mg.Model) -> None:
    first = any_model.sample(seed=7, length="4 bars")
    assert isinstance(first, Score)
    assert len(first.notes) > 4
    assert any_model.sample(seed=7, length="4 bars") == first
    assert mg.sample(any_model, seed=7, length="4 bars") == first
    assert any_model.sample(seed=8, length="4 bars") != first


def test_R38_sample_i_does_not_depend_on_the_batch(tiny: mg.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = tiny.sample(seed=3, num_samples=9)
    assert len(pieces) == 9
    assert tiny.sample(seed=3) == pieces[0]
    assert tiny.sample(seed=3, num_samples=1) == pieces[:1]
    assert tiny.sample(seed=3, num_samples=4) == pieces[:4]
    assert len({p.to_bytes() for p in pieces}) == 9
    monkeypatch.setattr(model.score, "_CHUNK", 2)
    assert tiny.sample(seed=3, num_samples=9) == pieces


def test_R38_with_a_length_the_batch_may_mix_metres(tiny: mg.Model) -> None:
    pieces = tiny.sample(seed=0, num_samples=40, length="2 bars")
    signatures = [p.time_signatures[-1][["numerator", "denominator"]].item() for p in pieces]
    assert {(4, 4), (3, 4)} <= set(signatures)
    assert tiny.sample(seed=0, length="2 bars") == pieces[0]
    assert tiny.sample(seed=0, num_samples=11, length="2 bars") == pieces[:11]


def test_R38_on_every_isa(on_every_isa: Any, chorale_file: Path) -> None:
    pieces = on_every_isa(lambda: mg.load(chorale_file).sample(seed=11, num_samples=3))
    assert all(p == pieces["baseline"] for p in pieces.values())


@pytest.mark.parametrize("storage", ["bfloat16", "int8"])
def test_R38_in_every_precision(storage: Any, make_model: Any, on_every_isa: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    weights.write(path, make_model(CHORALE, storage=storage))
    assert mg.load(path).info["weights"] == storage
    pieces = on_every_isa(lambda: mg.load(path).sample(seed=11, length="4 bars"))
    assert all(p == pieces["baseline"] for p in pieces.values())


@pytest.mark.parametrize("arguments", [{}, {"length": "3 bars"}, {"prompt": four_voices()}, {"temperature": 0.5}])
def test_R38_stream_is_sample(any_model: mg.Model, arguments: Any) -> None:
    """Drawn frame by frame, with the state carried over, the piece is the same."""
    piece = any_model.sample(seed=5, **arguments)
    notes = list(any_model.stream(seed=5, **arguments))
    assert all(isinstance(note, mg.Note) for note in notes)
    ends = [note.start + note.duration for note in notes]
    assert ends == sorted(ends)
    expected = [tuple(row)[:5] for row in piece.notes.tolist()]
    assert sorted(notes) == sorted(expected)


def test_stream_draws_nothing_ahead(tiny: mg.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    stream = tiny.engine.stream

    def counted(*args: Any, **kwargs: Any) -> Any:
        for block in stream(*args, **kwargs):
            drawn.append(len(block))
            yield block

    monkeypatch.setattr(type(tiny.engine), "stream", lambda self, *args, **kwargs: counted(*args, **kwargs))
    notes = tiny.stream(seed=5, length="1000 bars")
    assert not drawn
    first = next(notes)
    assert sum(drawn) * STEP == first.start + first.duration + STEP
    notes.close()  # type: ignore[attr-defined]
    assert sum(drawn) < 100


def test_stream_names_mistakes_at_once(tiny: mg.Model) -> None:
    with pytest.raises(ValueError, match="temperature"):
        tiny.stream(temperature=-1)


def test_without_a_seed_every_piece_is_new_and_can_be_made_again(tiny: mg.Model) -> None:
    one, two = tiny.sample(), tiny.sample()
    assert one.provenance["seed"] != two.provenance["seed"]
    assert tiny.sample(seed=one.provenance["seed"]) == one
    many = tiny.sample(num_samples=3)
    assert tiny.sample(num_samples=3, seed=many[2].provenance["seed"])[many[2].provenance["index"]] == many[2]


@pytest.mark.parametrize("seed", [0, 1, (1 << 63) + 5, (1 << 64) - 1, np.int64(9)])
def test_seeds(tiny: mg.Model, seed: Any) -> None:
    assert tiny.sample(seed=seed, length="1 bars").provenance["seed"] == int(seed)


def test_provenance_is_in_the_file(tiny: mg.Model, tmp_path: Path) -> None:
    tune = four_voices()
    piece = tiny.sample(seed=4, length="4 bars", prompt=tune, condition={"mode": "minor"}, top_k=9, temperature=0.9)
    piece.save(tmp_path / "x.mid")
    found = read_midi(tmp_path / "x.mid", strict=True).provenance
    assert found == piece.provenance
    assert found["model"] == "tiny.safetensors"
    assert found["model_sha256"] == tiny.info["sha256"]
    assert found["software"] == f"musicgen_ext {mg.__version__}"
    assert (found["seed"], found["index"], found["length"]) == (4, 0, "4 bars")
    assert (found["temperature"], found["top_k"], found["top_p"]) == (0.9, 9, 1.0)
    assert found["condition"] == {"mode": "minor"}
    assert found["prompt"]["frames"] == 32


# -- arguments -----------------------------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"temperature": NAN}, r"temperature: expected a finite number >= 0 .*got nan"),
        ({"temperature": INF}, "temperature: .*got inf"),
        ({"temperature": -0.1}, "temperature: .*got -0.1"),
        ({"top_k": -1}, r"top_k: expected an integer in \[1, 48\], got -1"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": 49}, "top_k: .*got 49"),
        ({"top_p": 0}, r"top_p: expected a number in \(0, 1\], got 0"),
        ({"top_p": -1}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_p": NAN}, "top_p: .*got nan"),
        ({"seed": -1}, "seed: .*got -1"),
        ({"seed": 1 << 64}, r"seed: expected an integer in \[0, 18446744073709551615\]"),
        ({"num_samples": 0}, r"num_samples: expected an integer in \[1, 1000000\], got 0"),
        ({"num_samples": 1 << 40}, "num_samples"),
        ({"length": 0}, "length: expected more than 0, got 0"),
        ({"length": -1.5}, "length"),
        ({"length": NAN}, "length: .*got nan"),
        ({"length": INF}, "length"),
        ({"length": 1 << 40}, "length: expected at most 65536 steps"),
        ({"length": "0 bars"}, "length"),
        ({"length": "1099511627776 steps"}, "length: expected at most 65536 steps"),
        ({"length": "65537 steps"}, "length: expected at most 65536 steps"),
        ({"length": "6000 bars"}, "length: expected at most 65536 steps, got (96000|72000)"),
        ({"length": "16 barn"}, r'length: expected a number and one of bars, beats, s, steps \("16 bars"\), got'),
        ({"length": "16"}, "bars, beats, s, steps"),
        ({"length": "bars"}, "bars, beats, s, steps"),
        ({"length": "1e9 bars"}, "bars, beats, s, steps"),
        ({"length": ""}, "bars, beats, s, steps"),
        ({"device": "tpu"}, "device: expected 'cpu', got 'tpu'"),
    ],
)
def test_R36_values_out_of_range(any_model: mg.Model, arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("48", str(any_model.engine.most_tokens))):
        any_model.sample(**arguments)
    with pytest.raises(ValueError, match=words.split(":")[0]):
        mg.sample(any_model, **arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"temperature": "1"}, "temperature: expected a number, got '1'"),
        ({"top_p": None}, "top_p"),
        ({"top_k": 1.5}, "top_k"),
        ({"top_k": True}, "top_k"),
        ({"seed": 1.0}, "seed: expected an integer, got 1.0"),
        ({"seed": True}, "seed"),
        ({"seed": "7"}, "seed"),
        ({"num_samples": 2.0}, "num_samples"),
        ({"length": True}, "length: expected seconds or a string with a unit, got bool"),
        ({"length": [4]}, "length: .*got list"),
        ({"device": 0}, "device: expected a string, got int"),
        ({"prompt": 5}, "prompt: expected a Score, a PrettyMIDI or a path, got int"),
        ({"condition": ["mode"]}, "condition: expected a dict, got list"),
        ({"condition": {"soprano": 3.5}}, r"condition\['soprano'\]: expected a Score"),
    ],
)
def test_R36_wrong_types(any_model: mg.Model, arguments: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        any_model.sample(**arguments)


def test_no_cuda_here(tiny: mg.Model) -> None:
    for name in ("cuda", "cuda:1"):
        with pytest.raises(DeviceError, match=f"device: expected 'cpu', got '{name}': this build has no CUDA") as e:
            mg.sample(tiny, device=name)
        error: Any = pickle.loads(pickle.dumps(e.value))
        assert error.device == name
        with pytest.raises(DeviceError):
            mg.load(tiny, device=name)


@pytest.mark.parametrize("temperature", [0, 1e-30, 1e30])
@pytest.mark.parametrize("bias", [0.0, 1e38, -1e38])
def test_R37_extreme_numbers(make_model: Any, temperature: float, bias: float) -> None:
    extreme = model.ScoreModel(make_model(CHORALE, bias={("soprano", 30): bias, ("flag", encodings.END): -bias}))
    piece = extreme.sample(seed=1, length="2 bars", temperature=temperature)
    assert steps_of(piece) <= 32
    pitches = piece.notes["pitch"][piece.notes["track"] == 0]
    assert all(57 <= p <= 81 for p in pitches)
    if bias == 1e38 and temperature <= 1:
        assert set(pitches.tolist()) == {36 + 28}
    if temperature == 0:
        assert extreme.sample(seed=2, length="2 bars", temperature=0).notes.tolist() == piece.notes.tolist()


def test_R37_empty_prompt_and_soprano(tiny: mg.Model) -> None:
    with pytest.raises(ValueError, match="prompt: expected notes of four voices, got none"):
        tiny.sample(prompt=Score())
    with pytest.raises(ValueError, match=r"condition\['soprano'\]: expected notes"):
        tiny.sample(condition={"soprano": Score()})


def test_top_k_one_is_greedy(tiny: mg.Model) -> None:
    one = tiny.sample(seed=1, top_k=1, length="2 bars", condition={"meter": "4/4", "pickup": 0})
    greedy = tiny.sample(seed=2, temperature=0, length="2 bars", condition={"meter": "4/4", "pickup": 0})
    assert one.notes.tolist() == greedy.notes.tolist()


# -- length and ending ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "steps"),
    [("3 bars", 48), ("1 bar", 16), ("2.5 bars", 40), ("6 beats", 24), ("13 steps", 13), (" 5Steps ", 5),
     ("6 s", 32), (6, 32), (6.0, 32), ("0.75 seconds", 4), (0.001, 1), (np.float32(6), 32)],
)  # fmt: skip
def test_length(make_model: Any, length: Any, steps: int) -> None:
    """Exactly as long as asked: four voices that never rest sound until then."""
    loud = model.ScoreModel(make_model(CHORALE, bias={(voice, 1): -1e9 for voice in VOICES}))
    piece = loud.sample(seed=2, length=length, condition={"meter": "4/4"})
    for voice in range(4):
        notes = piece.notes[piece.notes["track"] == voice]
        assert int((notes["start"] + notes["duration"]).max()) == steps * STEP
        assert notes["start"].min() == 0


def test_bars_follow_the_metre(make_model: Any) -> None:
    loud = model.ScoreModel(make_model(CHORALE, bias={(voice, 1): -1e9 for voice in VOICES}))
    assert steps_of(loud.sample(seed=2, length="3 bars", condition={"meter": "3/4", "pickup": 1})) == 36


def test_a_model_that_knows_no_end_makes_sixteen_bars(make_model: Any) -> None:
    loud = model.ScoreModel(make_model(JSB16, bias={(voice, 0): -1e9 for voice in VOICES}))
    assert steps_of(loud.sample(seed=2)) == 256
    assert steps_of(loud.sample(seed=2, prompt=four_voices(3))) == 48 + 256


def test_without_a_length_the_model_ends_the_piece(make_model: Any) -> None:
    # Once it may, this model ends at once: after six bars, but not sooner than a bar after the prompt.
    hasty = model.ScoreModel(make_model(CHORALE, bias={("flag", 2): 1e9, **{(v, 1): -1e9 for v in VOICES}}))
    assert steps_of(hasty.sample(seed=1)) == 96
    assert steps_of(hasty.sample(seed=1, prompt=four_voices(3))) == 96
    assert steps_of(hasty.sample(seed=1, prompt=four_voices(7))) == 128
    assert steps_of(hasty.sample(seed=1, length="5 bars", condition={"meter": "4/4"})) == 80
    endless = model.ScoreModel(make_model(CHORALE, bias={("flag", 2): -1e9, **{(v, 1): -1e9 for v in VOICES}}))
    piece = endless.sample(seed=1)
    assert steps_of(piece) == 640
    # … and it is cut where a held chord is its end.
    lasts = piece.notes[(piece.notes["start"] + piece.notes["duration"]) == 640 * STEP]
    assert len(lasts) == 4
    assert lasts["duration"].min() >= 4 * STEP
    marks = [t.time for t in piece.texts if t.kind == "marker"]
    assert marks[-1] == int(lasts["start"].max())
    assert marks[-1] in ((640 - 4) * STEP, (640 - 8) * STEP, (640 - 12) * STEP)


def test_voices_stay_in_their_ranges(make_model: Any) -> None:
    wild = model.ScoreModel(make_model(CHORALE, bias={(v, 0): -20.0 for v in VOICES}))
    for piece in wild.sample(seed=1, num_samples=5, length="8 bars", temperature=5.0):
        for voice, name in enumerate(VOICES):
            low, high = CHORALE.ranges[name]
            pitches = piece.notes["pitch"][piece.notes["track"] == voice]
            assert low <= pitches.min()
            assert pitches.max() <= high


# -- prompt --------------------------------------------------------------------------------------------------------


def test_the_result_begins_with_the_prompt(any_model: mg.Model) -> None:
    prompt = four_voices(3)
    piece = any_model.sample(prompt=prompt, length="8 bars", seed=1)
    inside = [c for c in columns(piece) if c[1] < 48 * STEP]
    if any_model.encoding.hold:
        assert inside == columns(prompt)  # even the last notes keep their length: what follows begins anew
    else:  # this encoding cannot tell a repeated note from a held one
        grids = [read_voices(s).pitch[:48] for s in (piece, prompt)]
        np.testing.assert_array_equal(grids[0], grids[1])
    assert steps_of(piece) > 48
    assert piece.tempos["microseconds_per_quarter"].tolist() == [500_000]  # the prompt's


def test_prompts_come_in_many_forms(tiny: mg.Model, tmp_path: Path) -> None:
    prompt = four_voices()
    expected = tiny.sample(prompt=prompt, seed=1)
    prompt.save(tmp_path / "p.mid")
    for form in (tmp_path / "p.mid", str(tmp_path / "p.mid"), (tmp_path / "p.mid").read_bytes()):
        assert tiny.sample(prompt=form, seed=1) == expected
    pretty_midi = pytest.importorskip("pretty_midi")
    assert tiny.sample(prompt=pretty_midi.PrettyMIDI(str(tmp_path / "p.mid")), seed=1).notes.tolist() == (
        expected.notes.tolist()
    )


@pytest.mark.parametrize("transpose", [12, -9, 25])
def test_a_prompt_out_of_range_is_transposed_and_back(tiny: mg.Model, transpose: int) -> None:
    prompt = four_voices(2, transpose)
    piece = tiny.sample(prompt=prompt, length="6 bars", seed=1)
    assert [c for c in columns(piece) if c[1] < 32 * STEP] == columns(prompt)
    shift = piece.provenance["prompt"]["transposed"]
    assert shift * transpose < 0
    assert abs(shift) <= abs(transpose)
    assert any(c[1] >= 32 * STEP for c in columns(piece))


@pytest.mark.parametrize("transpose", [-44, 46])
def test_what_is_transposed_back_stays_on_the_keyboard(make_model: Any, transpose: int) -> None:
    """A model that loves the ends of its ranges, asked to go on where MIDI pitches end."""
    edge = {("bass", 2): 1e9} if transpose < 0 else {("soprano", 47): 1e9}
    prompt = four_voices(2, transpose)
    piece = model.ScoreModel(make_model(CHORALE, bias=edge)).sample(prompt=prompt, length="6 bars", seed=1)
    assert piece.notes["pitch"].max() <= 127
    assert read_midi(piece.to_bytes(), strict=True) == piece


def test_odd_metres_of_a_prompt(tiny: mg.Model) -> None:
    for signature in ((0, 19, 1), (0, 1, 32), (0, 255, 16), (0, 5, 8), (0, 7, 64)):
        prompt = Score([(120, 960, p) for p in (48, 57, 64, 72)], time_signatures=[signature])
        piece = tiny.sample(prompt=prompt, seed=1, length="100 steps")
        assert steps_of(piece) <= 100
        found = piece.time_signatures[-1][["numerator", "denominator"]].item()
        assert found == signature[1:]


def test_prompts_that_cannot_be_read(tiny: mg.Model, tmp_path: Path) -> None:
    five = Score([(960, 480, p) for p in (50, 55, 60, 64, 67)])
    with pytest.raises(ValueError, match="prompt: bar 1, tick 960: expected at most 4 notes at once, got 5"):
        tiny.sample(prompt=five)
    with pytest.raises(ValueError, match="prompt: expected pitches within 45 semitones, got 20 to 100"):
        tiny.sample(prompt=Score([(0, 480, 20), (0, 480, 100)]))
    with pytest.raises(FileNotFoundError):
        tiny.sample(prompt=tmp_path / "none.mid")
    (tmp_path / "x.mid").write_bytes(b"RIFF....")
    with pytest.raises(mg.MidiError, match=r"x\.mid"):
        tiny.sample(prompt=tmp_path / "x.mid")
    with pytest.raises(ValueError, match=r"length: expected more than the prompt's 32 steps, got '2 bars'"):
        tiny.sample(prompt=four_voices(2), length="2 bars")


def test_what_the_grid_changed_in_a_prompt_is_recorded(tiny: mg.Model) -> None:
    prompt = four_voices()
    prompt.notes["start"][3] += 11
    piece = tiny.sample(prompt=prompt, seed=1, length="3 bars")
    assert piece.provenance["issues"] == [
        "prompt: 1 of 32 notes do not begin on a sixteenth and were moved there, by at most 0.09 of one"
    ]


def test_a_sample_is_a_prompt(tiny: mg.Model) -> None:
    first = tiny.sample(seed=1, length="4 bars", condition={"meter": "3/4", "pickup": 1})
    longer = tiny.sample(prompt=first, seed=2, length="8 bars")
    end = steps_of(first)
    assert [c for c in columns(longer) if c[1] < end * STEP] == columns(first)
    signatures = [s.time_signatures[["time", "numerator", "denominator"]].tolist() for s in (first, longer)]
    assert signatures[0] == signatures[1] == [(0, 1, 4), (480, 3, 4)]


# -- conditions ----------------------------------------------------------------------------------------------------


def test_conditions_are_listed(tiny: mg.Model, jsb16_file: Path) -> None:
    accepted = tiny.info["conditions"]
    assert list(accepted) == ["meter", "pickup", "mode", "key", "soprano"]
    assert accepted["mode"] == ["major", "minor"]
    assert list(mg.load(jsb16_file).info["conditions"]) == ["soprano"]


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ({"mood": "sad"}, r"condition: expected names out of \['meter', 'pickup', .*'soprano'\], got 'mood'"),
        ({"mode": "dorian"}, r"condition\['mode'\]: expected one of \['major', 'minor'\], got 'dorian'"),
        ({"mode": 1}, r"condition\['mode'\]"),
        ({"meter": "5/4"}, r"condition\['meter'\]: expected one of \['4/4', '3/4'\], got '5/4'"),
        ({"meter": 4}, r"condition\['meter'\]"),
        ({"key": "H major"}, r"condition\['key'\]: expected a note and a mode, for example 'D major'"),
        ({"key": "D dorian"}, r"condition\['key'\]"),
        ({"key": 2}, r"condition\['key'\]"),
        ({"key": "D major", "mode": "minor"}, r"condition\['key'\]: expected a minor key \(mode\), got 'D major'"),
        ({"pickup": 0.3}, r"condition\['pickup'\]: expected a multiple of 0.25 beats"),
        ({"pickup": -1}, r"condition\['pickup'\]"),
        ({"pickup": NAN}, r"condition\['pickup'\]"),
        ({"pickup": 4}, r"condition\['pickup'\]"),
        ({"meter": "3/4", "pickup": 3}, r"condition\['pickup'\]: expected less than a bar of 3 beats, got 3"),
    ],
)  # fmt: skip
def test_R36_conditions(tiny: mg.Model, condition: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tiny.sample(condition=condition)


def test_conditions_reach_the_model(tiny: mg.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    sample = tiny.engine.sample

    def spy(self: Any, n_frames: int, **arguments: Any) -> Any:
        given.update(arguments["given"])
        return sample(n_frames, **arguments)

    monkeypatch.setattr(type(tiny.engine), "sample", spy)
    piece = tiny.sample(condition={"key": "Bb minor", "meter": "3/4", "pickup": 1.5, "mode": None}, length="2 bars")
    assert set(given["mode"].ravel()) == {2}
    assert set(given["tonic"].ravel()) == {10}
    assert set(given["bar_length"].ravel()) == {2}
    assert given["position"][0, :8].tolist() == [6, 7, 8, 9, 10, 11, 0, 1]
    assert piece.key_signatures[["sharps", "minor"]].tolist() == [(-5, 1)]
    assert piece.time_signatures[["time", "numerator", "denominator"]].tolist() == [(0, 3, 8), (720, 3, 4)]
    tiny.sample(prompt=four_voices())
    assert set(given["mode"].ravel()) == {0}  # unknown: the model hears for itself
    assert set(given["tonic"].ravel()) == {12}


def keys_of(pieces: list[Score]) -> list[tuple[int, int]]:
    return [p.key_signatures[0][["sharps", "minor"]].item() for p in pieces]


def test_a_key_is_drawn_where_it_is_free(make_model: Any) -> None:
    encoding = encodings.VoiceGrid(keys=((2, "major", 3.0), (4, "minor", 1.0), (2, "minor", 1e-6)))
    loaded = model.ScoreModel(make_model(encoding))
    found = keys_of(loaded.sample(seed=1, num_samples=400, length="1 steps"))
    assert set(found) == {(2, 0), (1, 1)}
    assert abs(found.count((2, 0)) - 300) < 43  # as for the metre above
    minor = loaded.sample(seed=1, num_samples=20, length="1 steps", condition={"mode": "minor"})
    assert set(keys_of(minor)) == {(1, 1)}
    e = loaded.sample(seed=1, num_samples=9, length="1 steps", condition={"key": "E"})
    assert set(keys_of(e)) == {(1, 1)}
    # No piece was in this one: then the mode is drawn as for any other.
    f_sharp = loaded.sample(seed=1, num_samples=40, length="1 steps", condition={"key": "F#"})
    assert set(keys_of(f_sharp)) == {(6, 0), (3, 1)}
    assert loaded.sample(seed=1, length="1 steps") == loaded.sample(seed=1, num_samples=3, length="1 steps")[0]


@pytest.mark.parametrize(
    ("condition", "key"),
    [
        ({}, None),
        ({"mode": "minor"}, (0, 1)),
        ({"mode": "major"}, (0, 0)),
        ({"key": "A"}, (0, 1)),
        ({"key": "Ab"}, (-4, 0)),
    ],
)
def test_half_a_key_of_a_prompt_is_completed_by_ear(tiny: mg.Model, condition: Any, key: Any) -> None:
    scale = [9, 11, 0, 2, 4, 5, 7, 9, 9, 0, 4, 9]  # a minor, or C major
    prompt = Score([(i * 480, 480, 48 + pc + 12 * v, 80, 3 - v) for i, pc in enumerate(scale) for v in range(2)])
    piece = tiny.sample(prompt=prompt, condition=condition, seed=1)
    assert keys_of([piece]) == [key] if key else not len(piece.key_signatures)


@pytest.mark.parametrize(
    ("arguments", "frame"),
    [
        ({"length": "4 bars", "condition": {"meter": "4/4", "pickup": 1}}, 60),
        ({"length": "4 bars", "condition": {"meter": "4/4", "pickup": 0}}, 56),
        ({"length": "4 bars", "condition": {"meter": "3/4", "pickup": 1}}, 40),
        ({"length": "4 bars", "condition": {"meter": "3/4", "pickup": 0}}, 36),
        ({"length": "67 steps", "condition": {"meter": "4/4", "pickup": 0}}, 56),
        ({"length": "5 bars", "prompt": four_voices(3)}, 72),
        ({"length": "6 steps", "condition": {"meter": "4/4", "pickup": 0}}, None),
        ({"length": "51 steps", "prompt": four_voices(3)}, None),
    ],
)
def test_a_piece_of_given_length_ends_on_a_held_chord(make_model: Any, arguments: Any, frame: int | None) -> None:
    # Left alone, this model strikes a chord in every sixteenth and never writes a fermata.
    busy = {("flag", 1): -1e9, **{(v, token): -1e9 for v in VOICES for token in (0, 1)}}
    piece = model.ScoreModel(make_model(CHORALE, bias=busy)).sample(seed=3, **arguments)
    marks = [t.time for t in piece.texts if t.kind == "marker"]
    end = steps_of(piece)
    first = 0 if "prompt" not in arguments else 48
    for voice in range(4):
        notes = [c for c in columns(piece, voice) if c[1] >= first * STEP]
        durations = {c[2] for c in notes[:-1]}
        assert durations == {STEP}
        assert notes[-1][1:3] == ((end - 1) * STEP, STEP) if frame is None else (frame * STEP, (end - frame) * STEP)
    assert marks == ([] if frame is None else [frame * STEP])


def test_pieces_begin_as_the_encoding_says(make_model: Any) -> None:
    encoding = encodings.VoiceGrid(starts=(("3/4", 4, 3.0), ("4/4", 2, 1.0)))
    pieces = model.ScoreModel(make_model(encoding)).sample(seed=1, num_samples=400, length="1 steps")
    bars = [p.time_signatures[-1]["numerator"] for p in pieces]
    # 400 draws with probability 3/4: five standard deviations are 43.
    assert abs(bars.count(3) - 300) < 43
    only = model.ScoreModel(make_model(encoding)).sample(seed=1, condition={"meter": "4/4"}, length="1 bars")
    assert only.time_signatures[["time", "numerator", "denominator"]].tolist() == [(0, 1, 8), (240, 4, 4)]


@pytest.mark.parametrize("transpose", [0, 12, -12])
def test_a_soprano_is_harmonised(any_model: mg.Model, transpose: int) -> None:
    tune = four_voices(4, transpose, seed=3)
    piece = any_model.sample(condition={"soprano": tune}, seed=1)
    if any_model.encoding.hold:
        assert columns(piece, 0) == columns(tune, 0)
    else:
        grids = [read_voices(s).pitch[:, 0] for s in (piece, tune)]
        np.testing.assert_array_equal(grids[0], grids[1])
    assert steps_of(piece) == 64
    assert all(len(columns(piece, voice)) for voice in (1, 2, 3))
    assert piece.provenance["condition"]["soprano"]["frames"] == 64
    other = any_model.sample(condition={"soprano": tune}, seed=2)
    assert columns(other, 3) != columns(piece, 3)


def test_a_soprano_is_told_ahead(tiny: mg.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    sample = tiny.engine.sample

    def spy(self: Any, n_frames: int, **arguments: Any) -> Any:
        seen.update(arguments, n_frames=n_frames)
        return sample(n_frames, **arguments)

    monkeypatch.setattr(type(tiny.engine), "sample", spy)
    tune = Score([(0, 480, 93), (480, 240, 91)])  # a twelfth above where the model knows sopranos
    piece = tiny.sample(condition={"soprano": tune, "key": "G major"})
    assert piece.provenance["condition"]["soprano"]["transposed"] == -12
    assert columns(piece, 0) == [(0, 0, 480, 93), (0, 480, 240, 91)]
    assert seen["n_frames"] == 7
    assert seen["forced"][0, :, 1].tolist() == [47, 0, 0, 0, 45, 0, 0]
    assert seen["forced"][0, :, 0].tolist() == [-1] * 6 + [encodings.END]
    assert (seen["forced"][0, :, 2:] == -1).all()
    assert seen["given"]["soprano_next"][0].tolist() == [45] * 4 + [48] * 3
    assert set(seen["given"]["tonic"].ravel()) == {7}


def test_a_soprano_comes_alone(tiny: mg.Model) -> None:
    with pytest.raises(ValueError, match=r"prompt: expected none together with condition\['soprano'\]"):
        tiny.sample(prompt=four_voices(), condition={"soprano": four_voices()})
    with pytest.raises(ValueError, match=r"length: expected None with condition\['soprano'\]"):
        tiny.sample(length="4 bars", condition={"soprano": four_voices()})


def test_fermatas_of_a_soprano_are_kept(tiny: mg.Model) -> None:
    tune = four_voices()
    tune.texts = (*tune.texts, mg.midi.Text(480, "marker", b"fermata"))
    piece = tiny.sample(condition={"soprano": tune}, seed=3)
    assert [t.time for t in piece.texts if t.kind == "marker"] == [480]


# -- log_prob ------------------------------------------------------------------------------------------------------


def test_log_prob(tiny: mg.Model) -> None:
    piece = tiny.sample(seed=1)
    values = tiny.log_prob(piece)
    voices = read_voices(piece)
    tokens = CHORALE.grid_to_tokens(voices.pitch, voices.onset, voices.fermata)
    assert values.dtype == np.float64
    assert values.shape == tokens.shape
    assert values.max() <= 1e-9
    assert np.isfinite(values).all()
    given = CHORALE.given(len(tokens), position=voices.position, bar_length=voices.meter.bar_length)
    np.testing.assert_array_equal(values, tiny.engine.log_prob(tokens, given=given))
    # The score tells the metre, and a condition more: they matter to this model.
    assert (values != tiny.engine.log_prob(tokens, given=CHORALE.given(len(tokens)))).any()
    assert (values != tiny.log_prob(piece, condition={"mode": "minor"})).any()
    meter = Meter(voices.meter.numerator, voices.meter.denominator, voices.meter.pickup)
    condition = {"meter": f"{meter.numerator}/{meter.denominator}", "pickup": meter.pickup / 4}
    np.testing.assert_array_equal(values, tiny.log_prob(piece, condition=condition))


def test_log_prob_of_the_benchmark_model(jsb16_file: Path) -> None:
    loaded = mg.load(jsb16_file)
    piece = four_voices()
    tokens = JSB16.grid_to_tokens(read_voices(piece).pitch)
    np.testing.assert_array_equal(loaded.log_prob(piece), loaded.engine.log_prob(tokens))
    np.testing.assert_array_equal(loaded.log_prob(tokens), loaded.engine.log_prob(tokens))


def test_log_prob_refuses(tiny: mg.Model) -> None:
    with pytest.raises(ValueError, match=r"pitch: expected 36 to 81 or -1 \(rest\), got 1"):
        tiny.log_prob(four_voices(1, 40))
    with pytest.raises(ValueError, match="tokens: expected 0 to 2 for the flag, got 7"):
        tiny.log_prob(np.full((3, 5), 7))
    with pytest.raises(TypeError, match="score: expected a Score, a PrettyMIDI or a path, got NoneType"):
        tiny.log_prob(None)
    with pytest.raises(ValueError, match=r"condition\['soprano'\]: expected none for log_prob"):
        tiny.log_prob(four_voices(), condition={"soprano": four_voices()})


# -- loading -------------------------------------------------------------------------------------------------------


def test_load_gives_the_same_model_until_the_file_changes(make_model: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    weights.write(path, make_model(CHORALE))
    first = mg.load(path)
    assert mg.load(str(path)) is first
    assert mg.load(first) is first
    weights.write(path, make_model(CHORALE, seed=1))
    second = mg.load(path)
    assert second is not first
    assert second.sample(seed=1, length="2 bars") != first.sample(seed=1, length="2 bars")


def test_R35_a_loaded_model_does_not_follow_its_file(make_model: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    weights.write(path, make_model(CHORALE))
    loaded = mg.load(path)
    piece = loaded.sample(seed=1)
    with open(path, "r+b") as stream:
        stream.seek(100)
        stream.write(b"\xff" * 1000)
        stream.truncate(2000)
    assert loaded.sample(seed=1) == piece
    with pytest.raises(WeightsError, match=r"m\.safetensors: "):
        mg.load(path)
    path.unlink()
    assert loaded.sample(seed=1) == piece
    with pytest.raises(FileNotFoundError):
        mg.load(path)


def test_bundled_names(chorale_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.safetensors", "chorale.safetensors", ".hidden.safetensors", "notes.txt"):
        shutil.copy(chorale_file, tmp_path / name)
    monkeypatch.setattr(model, "_BUNDLED", str(tmp_path))
    assert mg.models() == ["b", "chorale"]
    piece = mg.sample(seed=1)
    assert piece.provenance["model"] == "chorale"
    assert mg.load().info["name"] == "chorale"
    assert mg.load() is mg.load("chorale")
    here = tmp_path / "elsewhere"
    (here / "chorale").mkdir(parents=True)  # a name wins over what happens to lie in the current folder
    monkeypatch.chdir(here)
    assert mg.sample(seed=1) == piece
    with pytest.raises(IsADirectoryError):
        mg.sample("./chorale")
    with pytest.raises(FileNotFoundError, match=r"the name of a bundled model \(b, chorale\)") as caught:
        mg.load("choral")
    assert caught.value.filename == "choral"
    monkeypatch.setattr(model, "_BUNDLED", str(tmp_path / "none"))
    assert mg.models() == []


def test_R34_what_is_not_a_model(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"PK\x03\x04" + bytes(40))
    with pytest.raises(WeightsError, match=r"model\.pt: expected a model file .*zip archive"):
        mg.sample(path)
    with pytest.raises(IsADirectoryError, match="expected a model file, got a folder"):
        mg.sample(tmp_path)
    with pytest.raises(TypeError, match="model: expected a name, a path or a Model, got int"):
        mg.sample(5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: setattr(f, "arch", "transformer"), "arch: expected one of .*'recurrent'.*, got 'transformer'"),
        (lambda f: f.config.update(num_layers=10**9), "config.num_layers: .*got 1000000000"),
        (lambda f: f.config.update(num_layers=2), "missing .*rnn.weight_ih_l1"),
        (lambda f: f.tensors.pop("rnn.bias_ih_l0"), "missing .*rnn.bias_ih_l0"),
        (lambda f: f.tensors.update(stranger=np.zeros((1, 1), np.float32)), "unexpected .*stranger"),
        (lambda f: f.encoding.update(name="wave"), "encoding.name: .*got 'wave'"),
        (lambda f: f.encoding.update(hold=False), "config.slots: expected"),
        (lambda f: f.encoding.update(num_pitches=20, ranges={v: [40, 50] for v in VOICES}), "config.slots: expected"),
    ],
)
def test_R33_a_model_that_does_not_fit_itself(change: Any, words: str, make_model: Any, tmp_path: Path) -> None:
    file = make_model(CHORALE)
    change(file)
    path = tmp_path / "m.safetensors"
    weights.write(path, file)
    with pytest.raises(WeightsError, match=words) as caught:
        mg.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.path == str(path)  # type: ignore[attr-defined]


def test_info(tiny: mg.Model, chorale_file: Path) -> None:
    info = tiny.info
    assert json.loads(json.dumps(info)) == info
    assert info["name"] == "tiny.safetensors"
    assert info["path"] == str(chorale_file)
    assert info["arch"] == "recurrent"
    assert info["parameters"] == weights.read(chorale_file).num_parameters
    assert info["licence"] == "CC0"
    assert info["training_data"] == "none: random weights"
    assert info["metrics"] == {"valid_nll": 4.0}
    assert info["lengths"] == ["bars", "beats", "s", "steps"]
    assert repr(tiny) == f"<Model 'tiny.safetensors': recurrent, {info['parameters']:,} parameters, float32>"


# -- threads and processes -----------------------------------------------------------------------------------------


def test_R41_one_model_in_two_threads(tiny: mg.Model) -> None:
    expected = [tiny.sample(seed=s, num_samples=3) for s in range(6)]
    results: dict[int, list[Any]] = {}
    barrier = threading.Barrier(2)

    def work(which: int) -> None:
        barrier.wait()
        results[which] = [tiny.sample(seed=s, num_samples=3) for s in (range(6) if which else reversed(range(6)))]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[1] == expected
    assert results[0] == expected[::-1]


def test_R41_two_streams_of_one_model(tiny: mg.Model) -> None:
    alone = [list(tiny.stream(seed=s, length="4 bars")) for s in (1, 2)]
    both = [tiny.stream(seed=s, length="4 bars") for s in (1, 2)]
    found: list[list[Any]] = [[], []]
    for _ in range(1000):
        for notes, stream in zip(found, both, strict=True):
            notes.extend([note for note in [next(stream, None)] if note is not None])
    assert found == alone


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_R42_a_model_is_pickled_whole(make_model: Any, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    weights.write(path, make_model(CHORALE, storage="int8"))
    loaded = mg.load(path)
    data = pickle.dumps(loaded, protocol)
    path.unlink()
    again = pickle.loads(data)
    assert again.sample(seed=1, num_samples=2) == loaded.sample(seed=1, num_samples=2)
    assert again.info == loaded.info


def _sample_in_child(loaded: mg.Model, queue: Any) -> None:
    queue.put([p.to_bytes() for p in loaded.sample(seed=6, num_samples=5)])


@pytest.mark.parametrize("method", [m for m in ("fork", "spawn") if m in multiprocessing.get_all_start_methods()])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork with threads, said from Python 3.12 on
def test_R42_results_in_a_child_process(tiny: mg.Model, method: str, tmp_path: Path) -> None:
    expected = [p.to_bytes() for p in tiny.sample(seed=6, num_samples=5)]  # the parent has used its threads
    if method == "spawn":  # a child that imports this very file would need it on its path: a plain program does
        program = tmp_path / "child.py"
        program.write_text(
            "import pickle, sys\n"
            "model = pickle.load(open(sys.argv[1], 'rb'))\n"
            "pickle.dump([p.to_bytes() for p in model.sample(seed=6, num_samples=5)], open(sys.argv[2], 'wb'))\n"
        )
        (tmp_path / "model").write_bytes(pickle.dumps(tiny))
        import subprocess

        subprocess.run([sys.executable, program, tmp_path / "model", tmp_path / "out"], check=True, timeout=60)
        assert pickle.loads((tmp_path / "out").read_bytes()) == expected
        return
    context: Any = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_sample_in_child, args=(tiny, queue))
    child.start()
    try:
        assert queue.get(timeout=60) == expected
    finally:
        child.join(10)
    assert child.exitcode == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_R42_fork_while_another_thread_samples(tiny: mg.Model) -> None:
    expected = tiny.sample(seed=6, num_samples=5)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            tiny.sample(seed=1, num_samples=4, length="8 bars")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                os._exit(0 if tiny.sample(seed=6, num_samples=5) == expected else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        thread.join()


def test_progress_is_silent_without_a_terminal(tiny: mg.Model, capfd: pytest.CaptureFixture[str]) -> None:
    tiny.sample(num_samples=3, length="1 bars", progress=True)
    assert capfd.readouterr() == ("", "")


# -- the model in the wheel ----------------------------------------------------------------------------------------

needs_bundled = pytest.mark.skipif("chorale" not in model.models(), reason="the bundled model is not in this tree")


@needs_bundled
def test_bundled_chorale() -> None:
    loaded = mg.load("chorale")
    info = loaded.info
    assert info["parameters"] <= 5_000_000
    assert info["licence"]
    assert info["training_data"]
    assert info["metrics"]
    piece = mg.sample(seed=7)
    assert piece == mg.sample(seed=7)
    assert [t.name for t in piece.tracks] == ["Soprano", "Alto", "Tenor", "Bass"]
    voices = read_voices(piece)
    assert 64 <= len(voices.pitch) < 1024  # at least four bars, and it found its end
    assert (voices.pitch[-1] >= 0).all()


@needs_bundled
def test_bundled_chorale_on_every_isa(on_every_isa: Any) -> None:
    pieces = on_every_isa(lambda: mg.sample(seed=7, num_samples=2))
    assert all(p == pieces["baseline"] for p in pieces.values())
