"""Two networks that learn from each other: one makes music, one tells it from music that people made."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from musicgen_ext.train.learners.base import NotFinite, follow, mixed, optimizer_of, update

if TYPE_CHECKING:
    from musicgen_ext.train.loop import Options

LOSSES = ("non_saturating", "wasserstein")


@dataclass(frozen=True)
class Objective:
    """What two adversaries play for: the table ``[objective]``.

    Attributes
    ----------
    loss : "non_saturating" or "wasserstein"
        Goodfellow et al. 2014, or Arjovsky et al. 2017 with the penalty of Gulrajani et al. 2017.
    critic_steps : int > 0
        Steps of the discriminator for one of the generator.
    penalty : float >= 0
        Weight of the gradient's penalty: how far its norm is from 1, between real and made pictures, for Wasserstein;
        its square at real ones for the other (R1, Mescheder et al. 2018).
    critic_rate : float > 0
        The discriminator's learning rate, in learning rates of the generator.
    beta1 : float in [0, 1)
        Of Adam, in place of its usual 0.9.
    straight_through : bool
        Whether the discriminator is shown what was drawn, with the gradient of the probabilities, or these themselves.
    feature_matching : float >= 0
        Weight of how far the means of the discriminator's last hidden layer are apart (Salimans et al. 2016), where a
        family has it.
    """

    loss: str = "wasserstein"
    critic_steps: int = 5
    penalty: float = 10.0
    critic_rate: float = 1.0
    beta1: float = 0.5
    straight_through: bool = True
    feature_matching: float = 0.0

    def __post_init__(self) -> None:
        def check(name: str, ok: bool, expected: str) -> None:
            if not ok:
                raise ValueError(f"objective.{name}: expected {expected}, got {getattr(self, name)!r}")

        check("loss", self.loss in LOSSES, "'non_saturating' or 'wasserstein'")
        check("critic_steps", type(self.critic_steps) is int and 0 < self.critic_steps <= 100, "an integer in [1, 100]")
        check("straight_through", isinstance(self.straight_through, bool), "true or false")
        for name in ("penalty", "critic_rate", "beta1", "feature_matching"):
            check(name, isinstance(getattr(self, name), int | float), "a number")
        check("critic_rate", 0 < self.critic_rate < math.inf, "a number > 0")
        check("beta1", 0 <= self.beta1 < 1, "a number in [0, 1)")
        for name in ("penalty", "feature_matching"):
            check(name, 0 <= getattr(self, name) < math.inf, "a number >= 0")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Objective:
        known = [field.name for field in fields(cls)]
        for name in settings:
            if name not in known:
                raise ValueError(f"objective.{name}: expected names out of {known}")
        return cls(**settings)


class Game(Protocol):
    """What two adversaries ask of a task."""

    settings: Objective

    def network(self) -> Any:
        """The generator, a new one."""

    def critic(self) -> Any:
        """The discriminator, a new one: from what it is shown to (B, 1)."""

    def real(self, chunk: list[Any], rng: np.random.Generator) -> Tensor:
        """What people made: (B, …)."""

    def made(self, generator: Any, count: int) -> Tensor:
        """What the generator makes, with its gradient: (B, …), by torch's own generator of chance."""

    def exported(self, average: Any) -> Any:
        """The average of the generator as it is evaluated and exported."""


class Adversarial:
    """A generator and a discriminator, an optimiser each: a step is one of the discriminator, and every
    `Objective.critic_steps`-th step is also one of the generator."""

    def __init__(self, task: Game, options: Options, device: torch.device) -> None:
        self.task, self.options, self.device = task, options, device
        self.settings = task.settings
        self.generator: nn.Module = task.network().to(device)
        self.critic: Any = task.critic().to(device)
        self.mean = copy.deepcopy(self.generator)
        self.optimizers = [optimizer_of(m, options, self.settings.beta1) for m in (self.generator, self.critic)]

    @property
    def average(self) -> Any:
        return self.task.exported(self.mean)

    def begin_with(self, start: Mapping[str, Tensor]) -> None:
        self.generator.load_state_dict(dict(start))
        self.mean.load_state_dict(dict(start))

    def learn(self, chunk: list[Any], rng: np.random.Generator, step: int, total: int) -> tuple[float, int]:
        real = self.task.real(chunk, rng).to(self.device)
        of_generator, of_critic = self.optimizers
        self.generator.train()
        self.critic.train()
        with torch.no_grad(), self._autocast():
            made = self.task.made(self.generator, len(real))
        self.critic.requires_grad_(True)
        of_critic.zero_grad(set_to_none=True)
        with self._autocast():
            loss = self._critic_loss(self.critic(real), self.critic(made))
        value = _finite(loss, "discriminator")
        if self.settings.penalty:
            loss = loss + self.settings.penalty * self._penalty(real, made.float())
        loss.backward()  # type: ignore[no-untyped-call]
        update(self.critic, of_critic, self.options, step, total, self.settings.critic_rate)
        if (step + 1) % self.settings.critic_steps == 0:
            self.critic.requires_grad_(False)
            of_generator.zero_grad(set_to_none=True)
            with self._autocast():
                loss = self._generator_loss(real)
            _finite(loss, "generator")
            loss.backward()  # type: ignore[no-untyped-call]
            update(self.generator, of_generator, self.options, step, total)
            follow(self.mean, self.generator, self.options, (step + 1) // self.settings.critic_steps)
            _copy_buffers(self.mean, self.generator)
        return value, len(real)

    def _autocast(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16, mixed(self.options, self.device))

    def _critic_loss(self, real: Tensor, made: Tensor) -> Tensor:
        if self.settings.loss == "wasserstein":
            return made.mean() - real.mean()
        return F.softplus(-real).mean() + F.softplus(made).mean()

    def _generator_loss(self, real: Tensor) -> Tensor:
        made = self.task.made(self.generator, len(real))
        if not self.settings.feature_matching:
            judged = self.critic(made)
            return -judged.mean() if self.settings.loss == "wasserstein" else F.softplus(-judged).mean()
        hidden = self.critic.features
        with torch.no_grad():
            wanted = hidden(real).mean(0)
        got = hidden(made)
        judged = self.critic.judge(got)
        loss: Tensor = -judged.mean() if self.settings.loss == "wasserstein" else F.softplus(-judged).mean()
        return loss + self.settings.feature_matching * F.mse_loss(got.mean(0), wanted)

    def _penalty(self, real: Tensor, made: Tensor) -> Tensor:
        """Of the discriminator's gradient, in float32."""
        if self.settings.loss == "wasserstein":
            share = torch.rand(len(real), *[1] * (real.dim() - 1), device=real.device)
            where = torch.lerp(real, made, share).requires_grad_(True)
        else:
            where = real.detach().clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.critic(where).sum(), where, create_graph=True)
        norms = gradient.flatten(1).square().sum(1)
        if self.settings.loss == "wasserstein":
            return ((norms + 1e-12).sqrt() - 1).square().mean()
        return 0.5 * norms.mean()

    def state(self) -> dict[str, Any]:
        return {
            "model": self.generator.state_dict(),
            "average": self.mean.state_dict(),
            "critic": self.critic.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.generator.load_state_dict(state["model"])
        self.mean.load_state_dict(state["average"])
        self.critic.load_state_dict(state["critic"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)


def _finite(loss: Tensor, whose: str) -> float:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise NotFinite(f"the loss of the {whose} is {value}")
    return value


@torch.no_grad()
def _copy_buffers(to: nn.Module, source: nn.Module) -> None:
    for mine, theirs in zip(to.buffers(), source.buffers(), strict=True):
        mine.copy_(theirs)
