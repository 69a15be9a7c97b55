"""Training without a training file: a model of tokens from a folder, and a model made one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import musicgen_ext as mg
from musicgen_ext import Score, cli, encodings, weights
from musicgen_ext.encodings import CHORALE, FOLK, VOICES
from musicgen_ext.errors import MidiWarning
from musicgen_ext.evaluate.copying import copying
from musicgen_ext.evaluate.counting import CountingModel, counting_baseline
from musicgen_ext.midi import Track
from musicgen_ext.train import data, quick, run
from musicgen_ext.train.midi import midi
from musicgen_ext.train.voices import voices


def chorale(rng: np.random.Generator, shift: int = 0) -> Score:
    """Four voices in quarters, each walking about its own middle."""
    rows = []
    for voice, centre in enumerate((70, 63, 57, 48)):
        steps = centre + shift + np.cumsum(rng.integers(-2, 3, 24)) % 6
        rows += [(i * 480, 480, int(p), 80, voice) for i, p in enumerate(steps)]
    return Score(rows, tracks=[Track(name) for name in VOICES], time_signatures=[(0, 4, 4)])


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    path = tmp_path / "music"
    path.mkdir()
    for i in range(6):
        chorale(rng, i - 3).save(path / f"{i}.mid")
    return path


def musicgen(capfd: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as exit:
        code = int(exit.code or 0)
    return code, *capfd.readouterr()


# -- copies ----------------------------------------------------------------------------------------------------------


def test_copies_are_counted() -> None:
    tune = Score([(i * 10, 10, 60 + p) for i, p in enumerate([0, 2, 4, 5, 7, 9, 11, 12, 14, 16])])
    other = Score([(i * 10, 10, 60 + p) for i, p in enumerate([0, 1, 0, 1, 0, 1, 0, 1, 0, 1])])
    same = copying([tune, other], [tune])
    assert (same.windows, same.exact, same.transposed) == (6, 0.5, 0.5)
    moved = copying([tune.transpose(3)], [tune])
    assert (moved.windows, moved.exact, moved.transposed) == (3, 0.0, 1.0)
    assert copying([Score(tune.notes[:7])], [tune]).windows == 0
    assert np.isnan(copying([], [tune]).exact)
    with pytest.raises(ValueError, match=r"notes: .*got 1"):
        copying([tune], [tune], notes=1)


def test_counting_in_all_keys(rng: np.random.Generator) -> None:
    encoding = encodings.PitchSequence(lowest=40, highest=90)
    theme = np.array([60, 64, 67, 65, 62, 60]) - 40
    train = [theme, theme + 2]
    found = counting_baseline(train, [theme + 5], [theme - 4], encoding.vocabulary)
    assert found["keys"] == 12
    assert found["test"] < 1.5  # every interval was seen from every pitch
    plain = -CountingModel(train, encoding.vocab_size, 1).log_probs([theme - 4]).mean()
    assert plain > 3


# -- a grid of voices ------------------------------------------------------------------------------------------------


def test_a_folder_of_four_voices(folder: Path, rng: np.random.Generator) -> None:
    (folder / "5.mid").write_bytes(Score([(0, 480, p, 80, 0) for p in (40, 50, 60, 70, 80)]).to_bytes())
    with pytest.warns(MidiWarning, match=r"1 file\(s\) could not be used: 5\.mid: .*5"):
        corpus = voices(folder, test_share=0.0)
    assert corpus.encoding == CHORALE.to_dict()
    assert len(corpus.train) + len(corpus.valid) == 5
    piece = corpus.train[0]
    assert piece.tokens.shape == (24 * 4 + 1, 5)
    assert set(CHORALE.given_sizes) == set(corpus.valid[0].given)
    drawn = [corpus.draw(piece, rng) for _ in range(40)]
    assert 8 < len({d.tokens.tobytes() for d in drawn}) <= 1 + piece.shifts[1] - piece.shifts[0]
    for one in drawn:
        pitch = CHORALE.tokens_to_grid(one.tokens).pitch
        for column, name in zip(pitch.T, VOICES, strict=True):
            low, high = CHORALE.ranges[name]
            assert low <= column[column >= 0].min() <= column.max() <= high
        if one.given["tonic"][0] < 12:
            assert one.given["tonic"][0] == data.find_key(pitch)[0]
    with pytest.raises(ValueError, match="expected a grid of voices, got 'bars'"):
        voices(folder, encoding="bars")


def test_a_folder_of_tunes(folder: Path, rng: np.random.Generator) -> None:
    for path in folder.iterdir():
        score = mg.read_midi(path)
        Score(score.notes[score.notes["track"] == 0], time_signatures=[(0, 3, 4)]).save(path)
    corpus = voices(folder, encoding=FOLK.to_dict(), known_meter=1.0, known_key=1.0, known_length=1.0)
    given = corpus.draw(corpus.train[0], rng).given
    assert set(given) == set(FOLK.given_sizes)
    assert given["position"][:14].tolist() == [*range(12), 0, 1]
    assert given["bar_length"][0] == 1 + FOLK.meters.index("3/4")
    assert given["left"][[95, 96]].tolist() == [2, 1]  # steps, and 1: 24 quarters, then the end; 0 would be unknown
    keys = {(corpus.draw(corpus.train[0], rng).given["tonic"][0]) for _ in range(40)}
    assert len(keys) > 6  # in any key


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("always")
def test_a_language_model_from_a_folder(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = quick.from_scratch("gru", folder, encoding="pitches")
    assert small["model"] == {
        "recipe": "language_model", "cell": "gru", "hidden_size": 256, "num_layers": 2, "tied": True
    }  # fmt: skip
    monkeypatch.setattr(quick, "HIDDEN_SIZE", 8)
    (folder / "bad.mid").write_bytes(b"MThd")
    out = tmp_path / "run"
    arguments = ["train", "--model", "gru", "--data", folder, "-o", out, "--encoding", "pitches", "--steps", "3"]
    code, text, errors = musicgen(capfd, *arguments, "--option", "lowest=30")
    assert code == 0, errors
    assert "1 file(s) could not be used: bad.mid: " in errors
    assert "Traceback" not in errors
    assert "counting model of order" in text
    loaded = mg.load(out / "model.safetensors")
    assert isinstance(loaded, mg.TokenModel)
    assert loaded.encoding == encodings.PitchSequence(lowest=30)
    assert loaded.info["metrics"]["counting"]["keys"] == 12
    assert "copied, its samples" not in loaded.info["metrics"]
    assert len(loaded.sample(seed=1, length="20 steps").notes) == 20
    # The model's own likelihood of the validation files, natively, is what training says.
    _, _, errors = musicgen(capfd, *arguments, "--option", "lowest=30")
    results = json.loads((out / "results.json").read_text())
    (folder / "bad.mid").unlink()
    corpus = midi(folder, encoding="pitches", options={"lowest": 30})
    nats = np.concatenate([loaded.log_prob(piece.tokens[:, 0]) for piece in corpus.valid])
    assert -nats.mean() == pytest.approx(results["valid"]["nll"], abs=1e-4)


def test_a_model_made_ones_own(folder: Path, tmp_path: Path, chorale_file: Path, capfd: Any) -> None:
    out = tmp_path / "own"
    code, text, errors = musicgen(capfd, "train", "--from", chorale_file, "--data", folder, "-o", out, "--steps", "4")
    assert code == 0, errors
    assert "windows of 8 notes of its samples" in text
    assert "valid, before:" in text
    results = json.loads((out / "results.json").read_text())
    assert results["valid"]["nll"] <= results["valid, before"]["nll"]
    assert set(results["copied, its samples"]) == {"windows", "exact", "transposed"}
    own = mg.load(out / "model.safetensors")
    assert own.encoding == mg.load(chorale_file).encoding
    assert own.sample(seed=1, length="2 bars") != mg.sample(chorale_file, seed=1, length="2 bars")
    assert own.info["training_data"].endswith("then the MIDI files of 'music'")


def test_old_weights_stay_where_new_ones_are_no_better(folder: Path, tmp_path: Path, chorale_file: Path) -> None:
    tables = quick.from_model(chorale_file, folder)
    tables["train"] |= {"learning_rate": 50.0, "warmup_steps": 0, "ema": 0.0, "clip": 1e9}
    result, measured = run(tables, out=tmp_path / "worse", start=chorale_file, steps=2)
    assert result.best > measured["valid, before"].nll == measured["valid"].nll
    before, after = weights.read(chorale_file), weights.read(result.path)
    assert all((after.tensors[name] == before.tensors[name]).all() for name in before.tensors)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x.toml", "--model", "lstm"], "expected one of CONFIG.toml, --model, --from, got CONFIG.toml and --model"),
        (["--model", "lstm", "-o", "run"], "--data: expected a folder with --model, got none"),
        (["--from", "chorale", "--data", "."], "--out: expected a folder with --from, got none"),
        (["x.toml", "--encoding", "bars"], "expected with --model only, got CONFIG.toml"),
        (["--model", "gru", "--data", ".", "-o", "run", "--start", "m"], "--start: expected with CONFIG.toml only"),
        (["--model", "gru", "--data", ".", "-o", "run", "--option", "lowest=x"], "lowest"),
        (["--model", "mlp"], "invalid choice"),
    ],
)
def test_R47_usage_of_train(arguments: list[str], words: str, capfd: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, errors = musicgen(capfd, "train", *arguments)
    assert code == 2
    assert words in errors.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_R47_data_of_train(folder: Path, tmp_path: Path, capfd: Any) -> None:
    out = tmp_path / "run"
    for what, words in (
        (["--from", "flute", "--data", folder], "expected a model of notes to go on with, got one of 'notes_to_sound'"),
        (["--from", "chorale", "--data", tmp_path / "none"], "none: "),
        (["--model", "rnn", "--data", tmp_path / "run.mid"], "run.mid: "),
    ):
        code, _, errors = musicgen(capfd, "train", *what, "-o", out)
        assert code == 1
        assert words in errors
        assert errors.count("\n") == 1
        assert not out.exists()
