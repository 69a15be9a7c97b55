"""Adversarial pairs that write bars at once."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from musicgen_ext import likeness
from musicgen_ext.architectures import GanConfig
from musicgen_ext.encodings import RollBars
from musicgen_ext.encodings.roll_bars import Rolls
from musicgen_ext.midi import Score
from musicgen_ext.train.learners.adversarial import Objective
from musicgen_ext.train.models import Dropout, FeedForward, Gan
from musicgen_ext.train.rolls import RollCorpus
from musicgen_ext.train.tasks.base import Distance

EXCERPT_BARS = 4  # of what is compared with what
_MOST_EXCERPTS = 200
_SEED = 20_140_610
_BATCH, _BATCHES = 64, 16  # by which the generator's norms are measured


class GanTask:
    """A generator and a discriminator of pictures."""

    data_kind = RollCorpus

    def __init__(
        self, config: GanConfig, data: RollCorpus, dropout: Dropout, objective: Mapping[str, Any] | None = None
    ) -> None:
        for name, value in vars(dropout).items():
            if value:
                raise ValueError(f"dropout.{name}: expected 0 for an adversarial pair, which has none, got {value}")
        if config.generator.output != data.roll_bars.shape:
            raise ValueError(
                f"data: expected pictures of shape {list(config.generator.output)} as the generator makes, got "
                f"{list(data.roll_bars.shape)}"
            )
        self.config, self.data, self.dropout = config, data, dropout
        self.objective = dict(objective or {})
        self.settings = Objective.of(self.objective)
        if self.settings.feature_matching:
            raise ValueError("objective.feature_matching: expected 0 for arch 'gan', got another number")
        self._places = [(piece, bar) for piece, bars in enumerate(data.train) for bar in range(len(bars))]

    # -- the game --------------------------------------------------------------------------------------------------

    def network(self) -> Gan:
        return Gan(self.config)

    def critic(self) -> FeedForward:
        return FeedForward(self.config.discriminator)

    def real(self, chunk: list[tuple[int, int]], rng: np.random.Generator) -> Tensor:
        bars = [self.data.draw(self.data.train[piece][bar], rng) for piece, bar in chunk]
        return torch.from_numpy(np.stack(bars).astype(np.float32))

    def made(self, generator: Gan, count: int) -> Tensor:
        probabilities: Tensor = generator(generator.latent(count)).float()
        return generator.draw(probabilities) if self.settings.straight_through else probabilities

    def exported(self, average: Gan) -> Gan:
        """With norms that know what the averaged weights make, folded."""
        measured = copy.deepcopy(average).train()
        norms = [m for m in measured.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
        chance = torch.Generator().manual_seed(_SEED)
        device = next(average.parameters()).device
        with torch.no_grad():
            for i in range(_BATCHES if norms else 0):
                for norm in norms:
                    norm.momentum = 1 / (i + 1)  # the mean of all batches so far
                measured(torch.randn(_BATCH, self.config.generator.input[0], generator=chance).to(device))
        return measured.folded()

    # -- the task --------------------------------------------------------------------------------------------------

    def num_batches(self, batch_size: int) -> int:
        return max(1, len(self._places) // batch_size)

    def epoch(self, batch_size: int, rng: np.random.Generator) -> list[list[tuple[int, int]]]:
        order = rng.permutation(len(self._places))
        return [
            [self._places[i] for i in order[first * batch_size : (first + 1) * batch_size]]
            for first in range(self.num_batches(batch_size))
        ]

    def evaluate(self, module: Gan, pieces: Sequence[Rolls], *, per: Sequence[str] | None = None) -> Distance:
        """How far samples are from `pieces`: see `musicgen_ext.likeness.overlaps`."""
        reference = excerpts_of(pieces, self.data.roll_bars)[:_MOST_EXCERPTS]
        chance = torch.Generator().manual_seed(_SEED)
        size, device = self.config.generator.input[0], next(module.parameters()).device
        bars: list[Rolls] = []
        with torch.no_grad():
            while len(bars) < EXCERPT_BARS * len(reference):
                made = module(torch.randn(_BATCH, size, generator=chance).to(device)).float().cpu()
                limit = torch.rand(made.shape, generator=chance) if self.config.draw == "bernoulli" else 0.5
                bars.extend((made > limit).numpy().astype(np.uint8))
        made_pieces = [np.stack(bars[i : i + EXCERPT_BARS]) for i in range(0, len(bars), EXCERPT_BARS)]
        samples = [self.data.roll_bars.decode(rolls) for rolls in made_pieces[: len(reference)]]
        areas = likeness.overlaps(reference, samples)
        without_order = likeness.shuffled(excerpts_of(self.data.train, self.data.roll_bars))[:_MOST_EXCERPTS]
        return Distance.of(areas, len(reference), likeness.overlaps(reference, without_order)["mean"])


def excerpts_of(pieces: Sequence[Rolls], encoding: RollBars) -> list[Score]:
    """Parts of `EXCERPT_BARS` bars in which something sounds."""
    parts = [
        rolls[first : first + EXCERPT_BARS]
        for rolls in pieces
        for first in range(0, len(rolls) - EXCERPT_BARS + 1, EXCERPT_BARS)
    ]
    return [encoding.decode(part) for part in parts if part[:, 0].any()]
