"""Language models over tokens: any encoding in, any score out."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import musicgen_ext as mg
from musicgen_ext import encodings, generate, weights
from musicgen_ext.architectures import RecurrentConfig
from musicgen_ext.errors import WeightsError
from musicgen_ext.midi import Score, Track
from musicgen_ext.model import clock, tokens
from musicgen_reference import generate as reference

EPS = float(np.finfo(np.float32).eps)
TWIN_EPS = 16  # as in test_generate.py


def language_model(
    encoding: dict[str, Any], storage: str = "float32", seed: int = 0, **sizes: Any
) -> weights.ModelFile:
    """A `ModelFile` of a small random language model."""
    sizes = {"vocab_size": 37, "embedding_size": 10, "hidden_size": 17, "num_layers": 2, **sizes}
    config = RecurrentConfig.language_model(sizes.pop("cell", "lstm"), **sizes)
    random = np.random.default_rng(seed)
    tensors = {
        name: (random.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in config.tensor_shapes().items()
    }
    return weights.convert(weights.ModelFile(None, "recurrent", config.to_dict(), encoding, {}, tensors), storage)


# -- tied embeddings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("embedding_size", [17, 10])  # as wide as the network, and behind a layer of its own
def test_tied_embeddings_twin(isa: str, storage: str, embedding_size: int) -> None:
    file = language_model({}, storage, embedding_size=embedding_size, tied=True)
    config, n = RecurrentConfig.from_dict(file.config), 24
    assert "head.token.output.weight" not in file.tensors
    drawn = generate.load(file).sample(n, seed=1, num_samples=2, logits=True)
    twin = reference.Recurrent(config, file.tensors, storage)
    for b in range(2):
        _, expected = twin.run(n, np.zeros((n, 1)), forced=drawn.tokens[b])
        error = np.abs(drawn.logits[b, :, 0] - np.array(expected)[:, 0]) / np.abs(expected).max()
        assert np.median(error) <= TWIN_EPS * EPS
        assert error.max() <= (4 / 127 if storage == "int8" else TWIN_EPS * EPS)  # a byte of state: see test_int8_twin


@pytest.mark.parametrize("embedding_size", [17, 10])
def test_tied_embeddings_are_torchs(embedding_size: int, tmp_path: Any) -> None:
    torch = pytest.importorskip("torch")
    from musicgen_ext.train import Recurrent, export

    file = language_model({}, embedding_size=embedding_size, tied=True)
    module = Recurrent(RecurrentConfig.from_dict(file.config)).eval()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in file.tensors.items()})
    drawn = generate.load(file).sample(16, seed=2, logits=True)
    heard = np.concatenate([[37], drawn.tokens[0, :-1, 0]])
    with torch.inference_mode():
        expected = module({"token": torch.from_numpy(heard[:, None])})[0][:, 0].numpy()
    assert np.abs(drawn.logits[0, :, 0] - expected).max() <= TWIN_EPS * EPS * np.abs(expected).max()
    export(module, tmp_path / "m.safetensors", encoding={})
    assert (generate.load(weights.read(tmp_path / "m.safetensors")).sample(16, seed=2).tokens == drawn.tokens).all()


def test_tied_embeddings_must_fit() -> None:
    good = RecurrentConfig.language_model(
        "gru", vocab_size=9, embedding_size=5, hidden_size=5, num_layers=1, tied=True
    ).to_dict()
    assert RecurrentConfig.from_dict(good).to_dict() == good
    for change, words in (
        (
            {"trunk": [{"feature": "token", "dim": 4}]},
            r"slots\[0\]\.head\.tied: expected an embedding as wide .* 5, got 4",
        ),
        ({"slots": [{**good["slots"][0], "head": {"tied": "note"}}]}, r"tied: expected a feature .* got 'note'"),
        ({"slots": [{**good["slots"][0], "head": {"tied": "token", "copy": ["token"]}}]}, "no relative, copy"),
    ):
        with pytest.raises(WeightsError, match=words):
            RecurrentConfig.from_dict({**good, **change})


# -- any encoding in, any score out ----------------------------------------------------------------------------------

ENCODINGS: dict[str, encodings.Encoding] = {
    "bars": encodings.Bars(),
    "bars, one instrument": encodings.Bars(
        steps_per_beat=4, tempo_bins=0, programs=False, drums=False, velocity_bins=0, end=False
    ),
    "performance": encodings.Performance(),
    "performance in beats": encodings.Performance(steps_per_beat=4, max_shift=16, velocity_bins=0),
    "pitches": encodings.PitchSequence(lowest=40, highest=80),
}


def model_of(encoding: encodings.Encoding, **options: Any) -> mg.TokenModel:
    file = language_model(encoding.to_dict(), vocab_size=encoding.vocab_size, hidden_size=12, num_layers=1, **options)
    return mg.TokenModel(file)


@pytest.fixture(scope="module", params=list(ENCODINGS))
def any_model(request: pytest.FixtureRequest) -> mg.TokenModel:
    return model_of(ENCODINGS[request.param])


@pytest.fixture(scope="module")
def band_model() -> mg.TokenModel:
    return model_of(ENCODINGS["bars"])


def band(bars: int = 2) -> Score:
    """Two instruments and drums."""
    rows = [(beat * 480, 480, 60 + beat % 7, 80, 0) for beat in range(4 * bars)]
    rows += [(beat * 960, 960, 40 + beat % 5, 80, 1) for beat in range(2 * bars)]
    rows += [(beat * 480, 120, 36, 80, 2) for beat in range(4 * bars)]
    tracks = [Track("flute", 73), Track("bass", 32), Track("drums", is_drum=True)]
    return Score(rows, tracks=tracks, tempos=[(0, 500_000)], time_signatures=[(0, 4, 4)])


def notes_of(score: Score) -> list[tuple[int, ...]]:
    return sorted(tuple(int(n[name]) for name in ("start", "duration", "pitch", "velocity")) for n in score.notes)


def lengths_of(model: mg.TokenModel) -> list[str]:
    return [f"{40 if unit == 'steps' else 3} {unit}" for unit in model.info["lengths"]]


def test_loaded_by_its_encoding(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for encoding in ENCODINGS.values():
        file = language_model(encoding.to_dict(), vocab_size=encoding.vocab_size, tied=True)
        weights.write(path, file)
        model = mg.load(path)
        assert isinstance(model, mg.TokenModel)
        assert model.encoding == encoding
        assert model.info["encoding"]["name"] == encoding.name
        assert pickle.loads(pickle.dumps(model)).sample(seed=1, length="40 steps") == model.sample(
            seed=1, length="40 steps"
        )
    wrong = language_model(ENCODINGS["bars"].to_dict())
    with pytest.raises(WeightsError, match=r"expected one token a frame, of 636, got 1 of 37"):
        mg.TokenModel(wrong)


def test_R38_one_seed_one_piece(any_model: mg.TokenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    for length in [None, *lengths_of(any_model)]:
        pieces = any_model.sample(seed=3, num_samples=5, length=length)
        assert len({p.to_bytes() for p in pieces}) == 5
        assert any_model.sample(seed=3, length=length) == pieces[0]
        monkeypatch.setattr(tokens, "_CHUNK", 2)
        assert any_model.sample(seed=3, num_samples=4, length=length) == pieces[:4]
        monkeypatch.undo()
        assert any_model.sample(seed=4, length=length) != pieces[0]


def test_R38_every_isa_gives_the_same_piece(on_every_isa: Any) -> None:
    file = language_model(ENCODINGS["performance"].to_dict(), vocab_size=389, hidden_size=33)
    pieces = on_every_isa(lambda: mg.TokenModel(file).sample(seed=5, length="200 steps").to_bytes())
    assert len(set(pieces.values())) == 1


def test_blocks_are_no_part_of_the_piece(any_model: mg.TokenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    for length in lengths_of(any_model):
        piece = any_model.sample(seed=6, length=length)
        monkeypatch.setattr(tokens, "_FIRST_LOOK", 5000)
        assert any_model.sample(seed=6, length=length) == piece
        monkeypatch.undo()


def test_stream_is_sample(any_model: mg.TokenModel) -> None:
    for length in [None, *lengths_of(any_model)]:
        piece = any_model.sample(seed=7, length=length)
        streamed = list(any_model.stream(seed=7, length=length))
        assert sorted(tuple(note)[:4] for note in streamed) == notes_of(piece)
        if len({track.program for track in piece.tracks} - {None}) > 1:
            programs = [128 if t.is_drum else t.program for t in piece.tracks]
            assert Counter(n.track for n in streamed) == Counter(programs[t] for t in piece.notes["track"])


def test_lengths_are_kept(any_model: mg.TokenModel) -> None:
    tpq = any_model.sample(seed=0, length="10 steps").ticks_per_quarter
    for seed in range(4):
        ends = {}
        for length in lengths_of(any_model):
            piece = any_model.sample(seed=seed, length=length)
            ends[length.split()[1]] = (piece, int((piece.notes["start"] + piece.notes["duration"]).max(initial=0)))
        if not getattr(any_model.encoding, "tempo_bins", 0):  # nonsense sets tempos behind what it plays already
            assert ends["s"][0].to_seconds(ends["s"][1]) <= 3.01
        if "beats" in ends:
            assert ends["beats"][1] <= 3 * tpq
    if isinstance(any_model.encoding, encodings.PitchSequence):
        assert len(any_model.sample(seed=1, length="40 steps").notes) == 40
        assert len(any_model.sample(seed=1, length="3 bars").notes) == 24  # eighth notes
        assert len(any_model.sample(seed=1, length=2.0).notes) == 8
    if isinstance(any_model.encoding, encodings.Performance) and any_model.encoding.steps_per_beat is None:
        with pytest.raises(ValueError, match=r"length: expected a number and one of s, steps"):
            any_model.sample(length="4 bars")


def test_bars_are_counted(band_model: mg.TokenModel) -> None:
    """In one metre, n bars are n bars; drawn bars of other metres end where the next one begins."""
    model = model_of(encodings.Bars(time_signatures=("4/4",), tempo_bins=0))
    for bars in (1, 5):
        piece = model.sample(seed=2, length=f"{bars} bars")
        last = int((piece.notes["start"] + piece.notes["duration"]).max())
        longer = model.sample(seed=2, length=f"{bars + 2} bars")
        assert last <= bars * 1920
        assert notes_of(longer.trim(0, bars * 1920)) == notes_of(piece)
    with pytest.raises(ValueError, match=r"length: expected whole bars, got 2\.5"):
        band_model.sample(length="2.5 bars")


def test_the_clock_reads_bars_as_the_decoder_does(rng: np.random.Generator) -> None:
    encoding = ENCODINGS["bars"]
    note = encoding.vocabulary.index("pitch 60")
    useful = [
        i for i, text in enumerate(encoding.vocabulary) if text.startswith(("bar", "time", "pos", "tempo", "pitch"))
    ]
    for _ in range(20):
        drawn = rng.choice(np.array([0, *useful], np.int32), 60, p=[0.2, *[0.8 / len(useful)] * len(useful)])
        watch, latest = clock.clock_of(encoding), 0
        for i in range(len(drawn)):
            assert watch.push(drawn[i : i + 1]) == 1
            heard = encoding.decode(np.append(drawn[: i + 1], note)).notes["start"]
            latest = max(latest, int(heard.max()))
            assert watch.now == latest


def test_a_piece_ends_where_the_model_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = encodings.PitchSequence()
    file = language_model(encoding.to_dict(), vocab_size=129, hidden_size=12, num_layers=1)
    file.tensors["head.token.output.bias"][128] += 3.0
    model = mg.TokenModel(file)
    pieces = model.sample(seed=1, num_samples=8)
    lengths = [len(p.notes) for p in pieces]
    assert min(lengths) >= tokens._SHORTEST
    assert max(lengths) < 400
    assert len(set(lengths)) > 3
    assert len(model.sample(seed=1, length="500 steps").notes) == 500  # asked for, so it does not end
    file.tensors["head.token.output.bias"][128] = -100
    assert len(mg.TokenModel(file).sample(seed=1).notes) == tokens._LONGEST


def test_a_prompt_is_continued(any_model: mg.TokenModel) -> None:
    encoding = any_model.encoding
    issues: list[str] = []
    begun = encoding.encode(band(), issues)
    begun = begun[:-1] if encoding.end_token is not None else begun
    length = f"{len(begun) + 50} steps"
    piece = any_model.sample(prompt=band(), seed=3, length=length)
    assert piece.provenance["prompt"]["tokens"] == len(begun)
    assert piece.provenance.get("issues", []) == [f"prompt: {issue}" for issue in issues]
    continued, before = Counter(notes_of(piece)), Counter(notes_of(encoding.decode(begun)))
    assert not before - continued  # every note of it is there
    assert len(piece.notes) > len(encoding.decode(begun).notes)
    assert any_model.sample(prompt=band(), seed=4, length=length) != piece
    with pytest.raises(ValueError, match="length: expected more than the prompt"):
        any_model.sample(prompt=band(), length=f"{len(begun)} steps")
    with pytest.raises(ValueError, match="length: expected more than the prompt has"):
        any_model.sample(prompt=band(), length=0.5)
    with pytest.raises(ValueError, match=r"prompt: expected notes .* got none"):
        any_model.sample(prompt=Score([]))


def test_R37_log_prob(any_model: mg.TokenModel) -> None:
    encoding = any_model.encoding
    written = encoding.encode(band())
    log_probs = any_model.log_prob(band())
    assert log_probs.shape == written.shape
    assert log_probs.dtype == np.float64
    assert (log_probs < 0).all()
    np.testing.assert_array_equal(any_model.log_prob(written), log_probs)
    with pytest.raises(ValueError, match=rf"tokens: expected \[0, {encoding.vocab_size - 1}\]"):
        any_model.log_prob(np.array([encoding.vocab_size]))
    with pytest.raises(ValueError, match=r"score: expected tokens of shape \(n,\)"):
        any_model.log_prob(written[:, None])
    with pytest.raises(ValueError, match="condition"):
        any_model.log_prob(written, condition={"meter": "4/4"})


def test_conditions_choose_the_tokens(band_model: mg.TokenModel) -> None:
    piece = band_model.sample(
        seed=1, length="600 steps", condition={"meter": "3/4", "tempo": 90, "programs": [40, "drums"]}
    )
    assert {track.program for track in piece.tracks if not track.is_drum} <= {0, 40}
    assert piece.provenance["condition"] == {"meter": "3/4", "tempo": 90, "programs": [40, "drums"]}
    piece = band_model.sample(length="4 steps", condition={"meter": "3/4", "tempo": 90})
    assert (piece.time_signatures[0]["numerator"], piece.time_signatures[0]["denominator"]) == (3, 4)
    assert piece.tempos[0]["time"] == 0
    assert 6e7 / piece.tempos[0]["microseconds_per_quarter"] == pytest.approx(90, rel=0.03)
    free = band_model.sample(length="4 steps", condition={"tempo": 200})
    assert len(free.time_signatures) == len(free.tempos) == 1
    assert len(band_model.sample(length="2 steps", condition={"tempo": 200}).time_signatures) == 1


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"condition": {"mode": "minor"}}, ValueError, r"condition: expected names out of \['meter', 'tempo', 'prog"),
        ({"condition": {"meter": "17/8"}}, ValueError, r"condition\['meter'\]: expected one of .*'17/8'"),
        ({"condition": {"tempo": 5}}, ValueError, r"condition\['tempo'\]: expected 30 to 240"),
        ({"condition": {"tempo": "fast"}}, TypeError, r"condition\['tempo'\]: expected a number"),
        ({"condition": {"programs": [128]}}, ValueError, r"condition\['programs'\]: expected 0 to 127 or .*, got 128"),
        ({"condition": {"programs": 3}}, TypeError, r"condition\['programs'\]: expected a list"),
        ({"condition": {"meter": "3/4"}, "prompt": band()}, ValueError, "expected none with a prompt"),
        ({"length": "16 frames"}, ValueError, "length: expected a number and one of bars, beats, s, steps"),
        ({"length": 0}, ValueError, "length: expected more than 0"),
        ({"length": f"{1 << 40} steps"}, ValueError, "length: expected at most 1048576 steps"),
        ({"temperature": float("nan")}, ValueError, "temperature"),
        ({"top_p": 0.0}, ValueError, "top_p"),
        ({"top_k": 637}, ValueError, "top_k"),
        ({"seed": -1}, ValueError, "seed"),
        ({"prompt": 3}, TypeError, "prompt: expected a Score"),
        ({"num_samples": 0}, ValueError, "num_samples"),
    ],
)  # fmt: skip
def test_R36_arguments_are_checked(band_model: mg.TokenModel, options: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        band_model.sample(**options)


def test_a_length_that_is_never_reached_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = encodings.Bars()
    file = language_model(encoding.to_dict(), vocab_size=encoding.vocab_size, hidden_size=12, num_layers=1)
    file.tensors["head.token.output.bias"][0] = -1000  # no bar ever
    monkeypatch.setattr(tokens, "_GIVEN_UP", 2000)
    with pytest.raises(ValueError, match=r"length: expected one that the model reaches in 2000 tokens, got '4 bars'"):
        mg.TokenModel(file).sample(seed=0, length="4 bars")
