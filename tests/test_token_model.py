"""Language models over tokens: any encoding in, any score out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from musicgen_ext import generate, weights
from musicgen_ext.architectures import RecurrentConfig
from musicgen_ext.errors import WeightsError
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
