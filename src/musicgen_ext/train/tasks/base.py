"""What every family of models tells the training loop about itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from musicgen_ext.train.models import Dropout


@dataclass(frozen=True)
class Likelihood:
    """Teacher-forced negative log-likelihood in nats over whole pieces.

    ``nll``: all nats ÷ all tokens of the scored slots (micro average); ``macro``: that of every piece, averaged;
    ``slots``: nats per token of each slot (none for sound); ``tokens``: how many were scored; ``measures``: what else
    there is to know of a model of this kind, by name.
    """

    nll: float
    macro: float
    slots: Mapping[str, float]
    tokens: int
    measures: Mapping[str, float] = field(default_factory=dict)

    name: ClassVar[str] = "nll"
    """What `nll` is called in a model's card."""


@dataclass(frozen=True)
class Distance(Likelihood):
    """What there is for models without a likelihood: how far their samples are from music that people made.

    ``nll`` and ``macro``: 1 minus the mean overlapping area of feature distributions (`musicgen_ext.likeness`);
    ``measures``: those areas, and the mean one of the training music's notes, shuffled; ``tokens``: how many excerpts
    were compared.
    """

    name: ClassVar[str] = "distance"

    @classmethod
    def of(cls, areas: Mapping[str, float], count: int, shuffled: float) -> Distance:
        distance = 1 - areas["mean"]
        measures = {f"overlap_{name}": area for name, area in areas.items()} | {"overlap_mean_of_shuffled": shuffled}
        return cls(distance, distance, {}, count, measures)


class Part(Protocol):
    """What goes through the network at once: a step's batch, or one of several parts of it."""

    @property
    def tokens(self) -> int:
        """How many are predicted."""

    def nats(self, module: Any, device: torch.device, smoothing: float) -> Tensor:
        """The sum of their negative log-likelihoods."""


class Task(Protocol):
    """A network and its data, as the training loop sees them."""

    config: Any
    data: Any
    dropout: Dropout
    objective: Mapping[str, Any]
    """What the loss is made of, where there is a choice: goes into a run's settings."""

    def network(self) -> Any:
        """A new one, by torch's own generator of chance."""

    def num_batches(self, batch_size: int) -> int:
        """Steps in an epoch."""

    def epoch(self, batch_size: int, rng: np.random.Generator) -> list[list[Any]]:
        """What each step of an epoch is made of."""

    def parts(self, chunk: list[Any], rng: np.random.Generator, step: int) -> list[Any]:
        """The `Part`s of a step, counted from 0."""

    def evaluate(self, module: Any, pieces: Sequence[Any], *, per: Sequence[str] | None = None) -> Likelihood:
        """The likelihood of whole pieces."""


def no_objective(objective: Mapping[str, Any], what: str) -> None:
    """Refuse settings of the loss where there is nothing to set.

    Raises
    ------
    ValueError
        There is one; the message names it.
    """
    for name in objective:
        raise ValueError(f"objective.{name}: expected no settings for {what}, which learns by likelihood alone")
