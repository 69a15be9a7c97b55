"""Transformers and the tokens that they foretell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from musicgen_ext.architectures import AttentionConfig
from musicgen_ext.train.data import IGNORED, Corpus, Piece, batches, num_batches
from musicgen_ext.train.models import Attention, Dropout
from musicgen_ext.train.tasks.base import Likelihood

MEMORY = "memory"
"""What a `Piece`'s given calls the tokens that the decoder is told of."""

_STRETCH = 1024  # tokens that are evaluated at a time, beside those before them that they depend on


class AttentionTask:
    """A transformer that foretells the tokens of a `Corpus` of one slot.

    Pieces whose ``given["memory"]`` holds tokens are told them; with probability `untold` they are not, which teaches a
    model that can be told something to make do without.
    """

    data_kind: ClassVar[type] = Corpus

    def __init__(
        self, config: AttentionConfig, data: Corpus, dropout: Dropout, objective: Mapping[str, Any] | None = None
    ) -> None:
        for name, value in vars(dropout).items():
            if name not in ("input", "layer") and value:
                raise ValueError(
                    f"dropout.{name}: expected 0 for attention, which has 'input' and 'layer', got {value}"
                )
        settings = {"untold": 0.0, **(objective or {})}
        for name in set(settings) - {"untold"}:
            raise ValueError(f"objective.{name}: expected 'untold' for attention")
        if not 0.0 <= settings["untold"] <= 1.0:
            raise ValueError(f"objective.untold: expected a probability in [0, 1], got {settings['untold']!r}")
        for piece in (*data.train, *data.valid, *data.test):
            _check(piece, config)
        self.config, self.data, self.dropout, self.objective = config, data, dropout, settings

    def network(self) -> Attention:
        return Attention(self.config, self.dropout.input, self.dropout.layer)

    def num_batches(self, batch_size: int) -> int:
        return num_batches(self.data, batch_size)

    def epoch(self, batch_size: int, rng: np.random.Generator) -> list[list[Piece]]:
        return list(batches(self.data.epoch(rng), batch_size, rng, self.data.drawn_length))

    def parts(self, chunk: list[Piece], rng: np.random.Generator, step: int) -> list[_Crops]:
        drawn = [self.data.draw(piece, rng) for piece in chunk]
        untold = self.objective["untold"]
        crops = [_Crop(piece, piece.context, len(piece.tokens), told=rng.random() >= untold) for piece in drawn]
        return [_Crops(collate(self.config, crops))]

    def evaluate(self, module: Attention, pieces: Sequence[Piece], *, per: Sequence[str] | None = None) -> Likelihood:
        if per is not None:
            raise ValueError(f"run.notes: expected none for attention, which has one slot, got {list(per)}")
        return evaluate_attention(module, pieces)


@dataclass(frozen=True)
class _Crop:
    """Tokens [start, stop) of a piece, or as many as there are."""

    piece: Piece
    start: int
    stop: int
    told: bool = True
    scored: int = 0
    """The first of them that counts."""


@dataclass(frozen=True)
class TokenBatch:
    """Crops side by side: int64 (B, T) each, `memory` (B, M) or None; targets are `IGNORED` where padded."""

    previous: Tensor
    places: Tensor
    targets: Tensor
    memory: Tensor | None

    def to(self, device: torch.device) -> TokenBatch:
        memory = None if self.memory is None else self.memory.to(device)
        return TokenBatch(self.previous.to(device), self.places.to(device), self.targets.to(device), memory)


@dataclass(frozen=True)
class _Crops:
    batch: TokenBatch

    @property
    def tokens(self) -> int:
        return int((self.batch.targets != IGNORED).sum())

    def nats(self, module: Attention, device: torch.device, smoothing: float) -> Tensor:
        return _nats(module, self.batch.to(device), smoothing).sum()


def collate(config: AttentionConfig, crops: Sequence[_Crop]) -> TokenBatch:
    """What goes through the network together."""
    ends = [min(crop.stop, len(crop.piece.tokens)) for crop in crops]
    shape = (len(crops), max(end - crop.start for crop, end in zip(crops, ends, strict=True)))
    previous, places = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    targets = np.full(shape, IGNORED, np.int64)
    advances = np.array(config.advances or np.zeros(config.vocab_size), np.int64)
    told = [crop.piece.given.get(MEMORY, ()) if crop.told else () for crop in crops]
    longest = 0 if config.memory is None else max(map(len, told))
    memory = np.full((len(crops), longest), -1, np.int64)
    for b, (crop, end) in enumerate(zip(crops, ends, strict=True)):
        tokens = crop.piece.tokens[:, 0]
        heard = tokens if crop.piece.heard is None else crop.piece.heard[:, 0]
        before = np.append(config.vocab_size, heard[: end - 1])
        place = np.append(0, np.cumsum(advances[heard[: end - 1]]))
        n = end - crop.start
        previous[b, :n], places[b, :n] = before[crop.start :], place[crop.start :]
        targets[b, crop.scored : n] = tokens[crop.start + crop.scored : end]
        if longest:
            memory[b, : len(told[b])] = told[b]
    as_tensor = torch.from_numpy
    return TokenBatch(
        as_tensor(previous), as_tensor(places), as_tensor(targets), as_tensor(memory) if longest else None
    )


def evaluate_attention(module: Attention, pieces: Sequence[Piece], *, batch_size: int = 8) -> Likelihood:
    """Likelihood of whole pieces from their first token, each told what its ``given["memory"]`` holds."""
    config = module.config
    device = next(module.parameters()).device
    reach = config.num_layers * (config.context - 1)  # the last layer depends on as many tokens before its own
    crops, owners = [], []
    for i, piece in enumerate(pieces):
        _check(piece, config)
        for first in range(0, len(piece.tokens), _STRETCH):
            start = max(0, first - reach)
            crops.append(_Crop(piece, start, first + _STRETCH, scored=first - start))
            owners.append(i)
    nats, was_training = np.zeros(len(pieces)), module.training
    module.eval()
    order = np.argsort([min(crop.stop, len(crop.piece.tokens)) - crop.start for crop in crops], kind="stable")
    with torch.no_grad():
        for at in range(0, len(order), batch_size):
            chosen = order[at : at + batch_size]
            each = _nats(module, collate(config, [crops[i] for i in chosen]).to(device))
            np.add.at(nats, [owners[i] for i in chosen], each.sum(1).double().cpu().numpy())
    module.train(was_training)
    tokens = np.array([len(piece.tokens) for piece in pieces], float)
    nll = float(nats.sum() / tokens.sum())
    return Likelihood(nll, float((nats / tokens).mean()), {"token": nll}, int(tokens.sum()))


def _nats(module: Attention, batch: TokenBatch, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of every token (B, T), float32, 0 where padded."""
    logits = module(batch.previous, batch.memory, batch.places)
    flat = F.cross_entropy(
        logits.flatten(0, 1).float(),
        batch.targets.flatten(),
        ignore_index=IGNORED,
        reduction="none",
        label_smoothing=smoothing,
    )
    return flat.view(batch.targets.shape)


def _check(piece: Piece, config: AttentionConfig) -> None:
    tokens, told = piece.tokens, piece.given.get(MEMORY)
    if tokens.shape[1] != 1:
        raise ValueError(f"data: expected pieces of one slot for attention, got {tokens.shape[1]} in {piece.name!r}")
    if len(tokens) and not (tokens.min() >= 0 and tokens.max() < config.vocab_size):
        got = f"{tokens.min()} to {tokens.max()} in {piece.name!r}"
        raise ValueError(f"data: expected tokens below vocab_size {config.vocab_size}, got {got}")
    if told is None:
        return
    if config.memory is None:
        raise ValueError(f"data: expected no {MEMORY!r} for a model without an encoder, got one in {piece.name!r}")
    if len(told) > config.memory.context:
        got = f"{len(told)} in {piece.name!r}"
        raise ValueError(f"data: expected at most {config.memory.context} tokens of {MEMORY!r}, got {got}")
