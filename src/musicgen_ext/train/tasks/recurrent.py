"""Recurrent networks and the tokens that they foretell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from musicgen_ext.architectures import RecurrentConfig
from musicgen_ext.train.data import IGNORED, Batch, Collator, Corpus, Piece, batches, num_batches
from musicgen_ext.train.models import Dropout, Recurrent
from musicgen_ext.train.tasks.base import Likelihood, no_objective

_MOST_LOGITS = 1 << 25  # that are evaluated at a time: 128 MiB, or one piece


class RecurrentTask:
    """A recurrent network that foretells the tokens of a `Corpus`."""

    data_kind: ClassVar[type] = Corpus

    def __init__(
        self, config: RecurrentConfig, data: Corpus, dropout: Dropout, objective: Mapping[str, Any] | None = None
    ) -> None:
        self.config, self.data, self.dropout, self.objective = config, data, dropout, objective or {}
        no_objective(self.objective, "a recurrent network")
        self._collate = Collator(config)

    def network(self) -> Recurrent:
        return Recurrent(self.config, self.dropout)

    def num_batches(self, batch_size: int) -> int:
        return num_batches(self.data, batch_size)

    def epoch(self, batch_size: int, rng: np.random.Generator) -> list[list[Piece]]:
        return list(batches(self.data.epoch(rng), batch_size, rng, self.data.drawn_length))

    def parts(self, chunk: list[Piece], rng: np.random.Generator, step: int) -> list[_Tokens]:
        return [_Tokens(self._collate([self.data.draw(piece, rng) for piece in chunk]))]

    def evaluate(self, module: Recurrent, pieces: Sequence[Piece], *, per: Sequence[str] | None = None) -> Likelihood:
        return evaluate(module, pieces, per=per)


@dataclass(frozen=True)
class _Tokens:
    batch: Batch

    @property
    def tokens(self) -> int:
        return int((self.batch.targets != IGNORED).sum())

    def nats(self, module: Recurrent, device: torch.device, smoothing: float) -> Tensor:
        batch = self.batch.to(device)
        logits = module(batch.features)
        return torch.stack([token_nats(z, batch.targets[..., k], smoothing).sum() for k, z in enumerate(logits)]).sum()


def evaluate(
    module: Recurrent, pieces: Sequence[Piece], *, batch_size: int = 16, per: Sequence[str] | None = None
) -> Likelihood:
    """Likelihood of whole pieces from their first frame.

    Parameters
    ----------
    module : Recurrent
    pieces : sequence of Piece
    per : sequence of str, optional
        Count the tokens of these slots only in the denominator of `nll` and `macro` (all nats are counted still):
        nats per *note* where other slots say when to stop. Default: all slots.
    """
    device = next(module.parameters()).device
    collate = Collator(module.config)
    names = [s.name for s in module.config.slots]
    frame = sum(s.size for s in module.config.slots)
    longest = max((len(p.tokens) for p in pieces), default=1)
    batch_size = max(1, min(batch_size, _MOST_LOGITS // (longest * frame)))
    counted = [names.index(n) for n in (per or names)]
    was_training = module.training
    module.eval()
    nats = np.zeros((len(pieces), len(names)))
    frames = np.zeros(len(pieces))
    place = {id(p): i for i, p in enumerate(pieces)}
    with torch.no_grad():
        for chunk in batches(pieces, batch_size, None):
            batch = collate(chunk).to(device)
            rows = [place[id(p)] for p in chunk]
            frames[rows] = [len(p.tokens) for p in chunk]
            for k, logits in enumerate(module(batch.features)):
                nats[rows, k] = token_nats(logits, batch.targets[..., k]).sum(0).double().cpu().numpy()
    module.train(was_training)
    tokens = frames * len(counted)
    return Likelihood(
        nll=float(nats.sum() / tokens.sum()),
        macro=float((nats.sum(1) / tokens).mean()),
        slots={n: float(nats[:, k].sum() / frames.sum()) for k, n in enumerate(names)},
        tokens=int(tokens.sum()),
    )


def token_nats(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of every frame and sequence, float32, 0 where padded."""
    flat = F.cross_entropy(
        logits.flatten(0, 1).float(),
        targets.flatten(),
        ignore_index=IGNORED,
        reduction="none",
        label_smoothing=smoothing,
    )
    return flat.view(targets.shape)
