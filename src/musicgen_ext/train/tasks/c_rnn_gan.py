"""Recurrent adversarial pairs over notes as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from musicgen_ext import likeness
from musicgen_ext.architectures import CRnnGanConfig
from musicgen_ext.encodings.note_tuples import COLUMNS, Floats
from musicgen_ext.midi import Score
from musicgen_ext.train.learners.adversarial import Objective
from musicgen_ext.train.models import CRnnGan, CRnnGanCritic, Dropout
from musicgen_ext.train.tasks.base import Distance
from musicgen_ext.train.tuples import TupleCorpus

_MOST_EXCERPTS = 200
_SEED = 20_161_129


class CRnnGanTask:
    """A recurrent generator of notes and a discriminator that hears them in both directions."""

    data_kind = TupleCorpus

    def __init__(
        self, config: CRnnGanConfig, data: TupleCorpus, dropout: Dropout, objective: Mapping[str, Any] | None = None
    ) -> None:
        for name, value in vars(dropout).items():
            if value:
                raise ValueError(f"dropout.{name}: expected 0 for an adversarial pair, which has none, got {value}")
        if config.outputs != len(COLUMNS):
            raise ValueError(f"model.outputs: expected {len(COLUMNS)} for notes as numbers, got {config.outputs}")
        self.config, self.data, self.dropout = config, data, dropout
        self.objective = dict(objective or {})
        self.settings = Objective.of(self.objective)

    def network(self) -> CRnnGan:
        return CRnnGan(self.config)

    def critic(self) -> CRnnGanCritic:
        return CRnnGanCritic(self.config)

    def real(self, chunk: list[int], rng: np.random.Generator) -> Tensor:
        windows = []
        for piece in chunk:
            rows = self.data.train[piece]
            first = int(rng.integers(len(rows) - self.data.notes + 1))
            windows.append(rows[first : first + self.data.notes])
        return self._on_the_grid(torch.from_numpy(np.stack(windows)))

    def made(self, generator: CRnnGan, count: int) -> Tensor:
        where = next(generator.parameters()).device
        rows: Tensor = generator(torch.randn(count, self.data.notes, self.config.noise, device=where)).float()
        if not self.settings.straight_through:
            return rows
        return rows + (self._on_the_grid(rows) - rows).detach()

    def _on_the_grid(self, rows: Tensor) -> Tensor:
        """The nearest numbers that mean what these do: a discriminator would know all others at once."""
        encoding = self.data.note_tuples
        steps = encoding.longest * encoding.steps_per_quarter
        most = rows.new_tensor([steps, steps, encoding.num_pitches - 1, 127])
        least = rows.new_tensor([0, 1, 0, 1])
        return torch.maximum(torch.floor(rows * most + 0.5), least) / most

    def exported(self, average: CRnnGan) -> CRnnGan:
        return average.eval()

    def num_batches(self, batch_size: int) -> int:
        return max(1, len(self.data.train) // batch_size)

    def epoch(self, batch_size: int, rng: np.random.Generator) -> list[list[int]]:
        order = rng.permutation(len(self.data.train)).tolist()
        return [order[i * batch_size : (i + 1) * batch_size] for i in range(self.num_batches(batch_size))]

    def evaluate(self, module: CRnnGan, pieces: Sequence[Floats], *, per: Sequence[str] | None = None) -> Distance:
        """How far samples are from `pieces`: see `musicgen_ext.likeness.overlaps`."""
        reference = self._excerpts(pieces)
        chance = torch.Generator().manual_seed(_SEED)
        where = next(module.parameters()).device
        with torch.no_grad():
            noise = torch.randn(len(reference), self.data.notes, self.config.noise, generator=chance)
            rows = module(noise.to(where)).float().cpu().numpy()
        samples = [self.data.note_tuples.decode(row) for row in rows]
        without_order = likeness.shuffled(self._excerpts(self.data.train))
        shuffled = likeness.overlaps(reference, without_order)["mean"]
        return Distance.of(likeness.overlaps(reference, samples), len(reference), shuffled)

    def _excerpts(self, pieces: Sequence[Floats]) -> list[Score]:
        """Parts of `notes` notes, evenly out of all pieces."""
        length = self.data.notes
        parts = [rows[i : i + length] for rows in pieces for i in range(0, len(rows) - length + 1, length)]
        chosen = parts[:: max(1, len(parts) // _MOST_EXCERPTS)][:_MOST_EXCERPTS]
        scores = []
        for part in chosen:
            rows = part.copy()
            rows[0, 0] = 0
            scores.append(self.data.note_tuples.decode(rows))
        return scores
