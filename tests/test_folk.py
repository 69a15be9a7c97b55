"""Tunes of one voice: what is asked for is what comes, how they are learnt, and the bundled model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import musicgen_ext as mg
from musicgen_ext import cli
from musicgen_ext.encodings import FOLK, REST, SCALES, TICKS_PER_STEP, read_melody
from musicgen_ext.midi import Score, Track

SHARED = Path(__file__).parents[2] / "shared" / "data" / "folk_melodies" / "melodies.json"
FOUR_BARS = [62, 66, 69, 74, 73, 71, 69, 66, 67, 71, 69, 67, 66, 64, 62, 62]


@pytest.fixture(scope="module")
def tiny(make_model: Any) -> mg.ScoreModel:
    return mg.ScoreModel(make_model(FOLK))


def tune(pitches: list[int] = FOUR_BARS, steps: int = 4, numerator: int = 4) -> Score:
    rows = [(i * steps * TICKS_PER_STEP, steps * TICKS_PER_STEP, pitch) for i, pitch in enumerate(pitches)]
    return Score(rows, time_signatures=[(0, numerator, 4)])


def steps_of(score: Score) -> int:
    return int((score.notes["start"] + score.notes["duration"]).max()) // TICKS_PER_STEP


# -- any model of tunes --------------------------------------------------------------------------------------------


def test_what_a_tune_may_be_told(tiny: mg.ScoreModel) -> None:
    conditions = tiny.info["conditions"]
    assert list(conditions) == ["meter", "pickup", "mode", "key"]
    assert conditions["meter"] == ["4/4", "2/2", "2/4", "3/4", "6/8", "9/8"]
    assert conditions["mode"] == ["major", "minor", "mixolydian", "dorian"]
    asked = {"key": "D major", "meter": "6/8", "pickup": 0.5}
    piece = tiny.sample(condition=asked, length="8 bars", seed=1)
    assert [t.name for t in piece.tracks] == ["Melody"]
    assert piece.programs["program"].tolist() == [40]
    assert piece.key_signatures[["sharps", "minor"]].tolist() == [(2, 0)]
    assert piece.time_signatures[["numerator", "denominator"]].tolist() == [(1, 8), (6, 8)]
    assert piece.tempos["microseconds_per_quarter"].tolist() == [round(60e6 / 170)]
    assert steps_of(piece) <= 8 * 12
    assert piece.provenance["condition"] == asked
    with pytest.raises(ValueError, match=r"condition: expected names out of .*'key'\], got 'soprano'"):
        tiny.sample(condition={"soprano": tune()})
    with pytest.raises(ValueError, match=r"condition\['meter'\]: expected one of .*'9/8'.*got '5/8'"):
        tiny.sample(condition={"meter": "5/8"})


@pytest.mark.parametrize("arguments", [{}, {"length": "4 bars"}, {"prompt": tune()}])
def test_R38_one_seed_one_tune_and_stream_is_sample(tiny: mg.ScoreModel, arguments: Any) -> None:
    pieces = tiny.sample(seed=5, num_samples=3, **arguments)
    assert tiny.sample(seed=5, **arguments) == pieces[0]
    assert len({piece.to_bytes() for piece in pieces}) == 3
    expected = [tuple(row)[:5] for row in pieces[0].notes.tolist()]
    assert list(tiny.stream(seed=5, **arguments)) == expected


def test_without_a_length_a_tune_is_as_long_as_others(make_model: Any) -> None:
    encoding = mg.encodings.load({**FOLK.to_dict(), "lengths": [[8, 3.0], [16, 1.0]], "starts": [["2/4", 0, 1.0]]})
    never_rests = mg.ScoreModel(make_model(encoding, bias={("melody", 1): -1e9}))
    lengths = [steps_of(piece) for piece in never_rests.sample(seed=0, num_samples=40)]
    assert set(lengths) == {64, 128}
    assert lengths.count(64) > lengths.count(128)
    # A prompt that leaves less than a bar of 8: longer; one that leaves less than a bar of any: as the model likes.
    assert steps_of(never_rests.sample(seed=0, prompt=tune(FOUR_BARS[:15], numerator=2))) == 128
    hasty = mg.ScoreModel(make_model(encoding, bias={("melody", 1): -1e9, ("flag", 2): 1e9}))
    assert steps_of(hasty.sample(seed=0, prompt=tune(FOUR_BARS * 2, numerator=2))) == 128 + 16


def test_a_tune_that_is_told_its_key_ends_on_the_tonic(tiny: mg.ScoreModel) -> None:
    for meter, pickup, length in [("6/8", 0.5, 4), ("6/8", 0, 6), ("2/4", 0.5, 2), ("2/2", 0, 4), ("9/8", 0, 6)]:
        asked = {"key": "G dorian", "meter": meter, "pickup": pickup}
        piece = tiny.sample(seed=1, length="4 bars", condition=asked)
        assert list(tiny.stream(seed=1, length="4 bars", condition=asked)) == [
            tuple(n)[:5] for n in piece.notes.tolist()
        ]
        numerator, denominator = map(int, meter.split("/"))
        last = piece.notes[-1]
        assert int(last["pitch"]) % 12 == 7
        assert int(last["start"] + last["duration"]) == 4 * 1920 * numerator // denominator
        assert int(last["duration"]) >= length * TICKS_PER_STEP
    free = tiny.sample(seed=0, num_samples=20, length="4 bars", prompt=tune(FOUR_BARS[:8]))  # in a key nobody said
    assert len({int(piece.notes["pitch"][-1]) % 12 for piece in free}) > 3


def test_a_prompt_is_what_the_tune_begins_with(tiny: mg.ScoreModel) -> None:
    piece = tiny.sample(prompt=tune(), length="8 bars", seed=2)
    assert piece.notes["pitch"][:16].tolist() == FOUR_BARS
    assert piece.notes["duration"][:16].tolist() == [480] * 16
    assert 64 < steps_of(piece) <= 128
    low = tiny.sample(prompt=tune([p - 30 for p in FOUR_BARS]), length="8 bars", seed=2)
    assert low.provenance["prompt"]["transposed"] == 23
    assert low.notes["pitch"][:16].tolist() == [p - 30 for p in FOUR_BARS]
    rows = [tuple(row)[:5] for row in tune().notes.tolist()]
    accompanied = Score([*rows, (0, 1920, 38, 80, 1), (0, 1920, 45, 80, 1)], tracks=[Track("Air"), Track("Chords")])
    piece = tiny.sample(prompt=accompanied, length="8 bars", seed=2)
    assert piece.notes["pitch"][:16].tolist() == FOUR_BARS
    assert piece.provenance["issues"] == ["prompt: 1 of 2 parts were left out: they are not the melody"]
    with pytest.raises(ValueError, match="prompt: bar 1, tick 0: expected at most 1 notes at once, got 2"):
        tiny.sample(prompt=Score([(0, 480, 60), (0, 480, 64)]))


def test_log_prob_of_a_tune(tiny: mg.ScoreModel) -> None:
    piece = tune()
    values = tiny.log_prob(piece, condition={"key": "D major"})
    voices = read_melody(piece, encoding=FOLK)
    tokens = FOLK.grid_to_tokens(voices.pitch, voices.onset)
    assert values.shape == tokens.shape == (65, 2)
    assert (values <= 1e-6).all()
    given = FOLK.given(65, position=voices.position, bar_length=voices.meter, mode="major", tonic=2)
    np.testing.assert_array_equal(values, tiny.engine.log_prob(tokens, given=given))


# -- learning ----------------------------------------------------------------------------------------------------------


def written(tunes: list[dict[str, Any]], path: Path) -> Path:
    path.write_text(json.dumps({"ticks_per_quarter": 24, "tunes": tunes}))
    return path


def a_tune(number: int, split: str, *, meter: str = "2/4", bars: int = 4, **changes: Any) -> dict[str, Any]:
    """A tune that resembles no other one, in eighths, on g."""
    random = np.random.default_rng(number)
    numerator, denominator = map(int, meter.split("/"))
    bar = 96 * numerator // denominator
    pitches = [67 + SCALES["major"][i] for i in random.integers(0, 7, bars * bar // 12)]
    pitches[-1] = 67
    return {
        "collection": "test", "file": "x.abc", "number": str(number), "title": "", "time": meter, "sharps": 1,
        "split": split, "notes": [[12 * i, 12, pitch] for i, pitch in enumerate(pitches)], "meter": meter,
        "measures": [[bar * i, 0] for i in range(bars)], **changes,
    }  # fmt: skip


def test_the_tunes_that_are_learnt(tmp_path: Path) -> None:
    folk = pytest.importorskip("musicgen_ext.train.folk").folk
    pickup = [[0, 36], *([12 + 48 * i, 0] for i in range(4))]
    triplets = a_tune(3, "train")
    triplets["notes"][:2] = [[0, 8, 67], [8, 8, 69], [16, 8, 71]]
    fast = a_tune(4, "train")
    fast["notes"][:1] = [[0, 4, 67], [4, 4, 69], [8, 4, 71]]
    variant = {**a_tune(9, "train"), "number": "5"}
    variant["notes"] = [[onset, length, pitch + 2] for onset, length, pitch in a_tune(9, "test")["notes"][:-1]]
    tunes = [
        a_tune(1, "train", meter="6/8", bars=8), a_tune(2, "train", measures=pickup), triplets, fast, variant,
        a_tune(6, "train", meter="5/8"), a_tune(7, "train", measures=[[0, 0], [36, 0]]), a_tune(8, "valid"),
        a_tune(9, "test"), a_tune(10, "train", bars=49),
    ]  # fmt: skip
    path = written(tunes, tmp_path / "folk.json")
    with pytest.raises(ValueError, match="expected tunes with the digest"):
        folk(path)
    corpus = folk(path, any_hash=True)
    assert [p.name for p in corpus.train] == ["test/0", "test/1", "test/2"]
    assert [len(corpus.valid), len(corpus.test)] == [1, 1]
    jig, reel, third = corpus.train
    assert len(jig.tokens) == 8 * 12 + 1
    first = third.tokens[:5, 1]
    assert (first > 1).tolist() == [True, True, True, False, True]  # a triplet: two sixteenths and an eighth
    told = corpus.draw(reel, SimpleNamespace(random=lambda n=None: np.zeros(n or 1), integers=lambda a, b: 3))
    assert told.given["position"][:4].tolist() == [6, 7, 0, 1]
    assert told.given["tonic"][0] == (7 + 3) % 12
    assert told.given["bar_length"][0] == 1 + FOLK.meters.index("2/4")
    assert told.given["left"][[0, 15, 16, 31, 32]].tolist() == [21, 20, 17, 2, 1]
    np.testing.assert_array_equal(told.tokens[:, 1], np.where(reel.tokens[:, 1] > 1, reel.tokens[:, 1] + 3, 0))
    unknown = corpus.variants["nothing known"](corpus.test[0]).given
    assert {name: int(ids[0]) for name, ids in unknown.items()} == {
        "position": 32, "bar_length": 0, "mode": 0, "tonic": 12, "left": 0,
    }  # fmt: skip
    for change, words in [({"tunes": [{"notes": []}]}, "are missing"), ({}, "expected the JSON that rebuild_folk")]:
        (tmp_path / "bad.json").write_text(json.dumps({**change, "ticks_per_quarter": 24}))
        with pytest.raises(ValueError, match=words):
            folk(tmp_path / "bad.json")


@pytest.mark.parametrize("mode", FOLK.modes)
@pytest.mark.parametrize("tonic", [0, 2, 7, 11])
def test_tune_key(tonic: int, mode: str) -> None:
    tune_key = pytest.importorskip("musicgen_ext.train.folk").tune_key
    steps = [0, 7, 4, 2, 6, 5, 3, 1, 0]  # all degrees, the tonic twice
    pitches = [60 + tonic + (*SCALES[mode], 12)[i] for i in steps]
    assert tune_key([*pitches, REST]) == (tonic, mode)
    with pytest.raises(ValueError, match="expected at least one note"):
        tune_key([REST])


def test_measures_that_a_repeat_sign_cuts() -> None:
    measures_of = pytest.importorskip("musicgen_ext.train.rebuild_folk")._measures
    signature = SimpleNamespace(ratioString="6/8")

    def measure(offset: float, length: float, sign: Any = None) -> Any:
        return SimpleNamespace(offset=offset, duration=SimpleNamespace(quarterLength=length), timeSignature=sign)

    # An eighth before the first bar, one out of the second that belongs to the repeat, and one of its own after it.
    cut = [measure(0, 0.5, signature), measure(0.5, 3), measure(3.5, 2.5), measure(6, 0.5), measure(6.5, 3)]
    assert measures_of(cut) == ("6/8", [[0, 60], [12, 0], [84, 0], [144, 60], [156, 0]])
    assert measures_of([measure(0, 3)]) == (None, [])


def test_the_splits_are_those_of_the_collection() -> None:
    rebuild = pytest.importorskip("musicgen_ext.train.rebuild_folk")
    named = rebuild.splits()
    assert {split: len(names) for split, names in named.items()} == {"valid": 136, "test": 168}
    if not SHARED.is_file():
        pytest.skip("no collection beside the checkout (../shared/data/folk_melodies)")
    tunes = json.loads(SHARED.read_bytes())["tunes"]
    for split, names in named.items():
        assert names == [rebuild.tune_name(t) for t in tunes if t["split"] == split]


# -- the bundled model -------------------------------------------------------------------------------------------------

needs_bundled = pytest.mark.skipif("folk" not in mg.models(), reason="the bundled model is not in this tree")


@needs_bundled
def test_the_bundled_model_plays_what_it_is_told(tmp_path: Path) -> None:
    folk = mg.load("folk")
    info = folk.info
    assert info["licence"] == "MIT"
    assert "public domain" in info["card"]["data_licence"]
    assert info["weights"] == "int8"
    assert info["bytes"] < 3_000_000
    assert info["metrics"]["test"]["nll"] > 0
    pieces = mg.sample("folk", condition={"key": "D major", "meter": "6/8"}, length="16 bars", seed=1, num_samples=20)
    pitches = np.concatenate([piece.notes["pitch"] for piece in pieces]).astype(int)
    assert np.isin((pitches - 2) % 12, SCALES["major"]).mean() > 0.95
    assert {int(piece.notes["pitch"][-1]) % 12 for piece in pieces} == {2}
    assert {steps_of(piece) for piece in pieces} == {16 * 12}
    assert pieces[0] == mg.sample("folk", condition={"key": "D major", "meter": "6/8"}, length="16 bars", seed=1)
    piece = mg.sample("folk", prompt=tune(), length="16 bars", seed=3)
    assert piece.notes["pitch"][:16].tolist() == FOUR_BARS
    asked = [
        "-c",
        "key=D major",
        "-c",
        "meter=6/8",
        "--length",
        "16 bars",
        "--seed",
        "1",
        "-o",
        str(tmp_path / "a.mid"),
    ]
    assert cli.main(["sample", "folk", *asked]) == 0
    assert mg.read_midi(tmp_path / "a.mid").notes.tolist() == pieces[0].notes.tolist()


@needs_bundled
def test_R38_the_bundled_model_on_every_isa(on_every_isa: Any) -> None:
    pieces = on_every_isa(lambda: mg.sample("folk", seed=7, length="4 bars"))
    assert all(piece == pieces["baseline"] for piece in pieces.values())
