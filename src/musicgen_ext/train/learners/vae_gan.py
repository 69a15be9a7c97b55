"""Encoder, generator and discriminator with a style vector, and a guesser that hunts the style in z."""

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
from musicgen_ext.train.models.feedforward import FeedForward
from musicgen_ext.train.models.vae_gan import VaeGan

if TYPE_CHECKING:
    from musicgen_ext.train.loop import Options

_GUESSER = 128  # hidden units
_BETA1 = 0.5  # of Adam


@dataclass(frozen=True)
class StyleObjective:
    """What the networks play for: the table ``[objective]``. All weights are in nats a picture.

    Attributes
    ----------
    beta : float >= 0
        Of the KL divergence of z from its prior, beside the reconstruction's Bernoulli likelihood.
    adversarial : float >= 0
        Of what the discriminator says (hinge: Lim and Ye 2017) of pictures made from z of music in another style, and
        from z of the prior.
    similarity : float >= 0
        Of the squared distance of picture and reconstruction in the discriminator's last hidden layer (Larsen et al.
        2016).
    hide : float >= 0
        Of the entropy of what a network guesses of the first group's label from the mean of z: an encoder that wins
        leaves the style out of z (Lample et al. 2017).
    content : float >= 0
        Of the squared distance between the mean of z and that of the picture made from it in another style.
    alone : int >= 0
        Steps of reconstruction and divergence only, before the others begin.
    warmup : int >= 0
        Steps over which a weight grows from 0.
    critic_rate : float > 0
        Learning rate of discriminator and guesser, in learning rates of the others.
    """

    beta: float = 0.3
    adversarial: float = 5.0
    similarity: float = 0.0
    hide: float = 20.0
    content: float = 0.0
    alone: int = 0
    warmup: int = 1000
    critic_rate: float = 0.5

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"objective.{field.name}: expected a number >= 0, got {value!r}")
        if self.critic_rate == 0:
            raise ValueError("objective.critic_rate: expected a number > 0, got 0")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> StyleObjective:
        known = [field.name for field in fields(cls)]
        for name in settings:
            if name not in known:
                raise ValueError(f"objective.{name}: expected names out of {known}")
        return cls(**settings)


@dataclass(frozen=True)
class Pictures:
    """What a step sees: windows (B, …).

    ``heard``: what the encoder hears; ``whole``: what it is of; ``style`` (B, S); ``label`` (B,), int64, of the
    first group.
    """

    heard: Tensor
    whole: Tensor
    style: Tensor
    label: Tensor

    def to(self, device: torch.device) -> Pictures:
        return Pictures(*(x.to(device) for x in (self.heard, self.whole, self.style, self.label)))


class Styled(Protocol):
    """What this way to learn asks of a task."""

    settings: StyleObjective

    def network(self) -> VaeGan:
        """Encoder and generator, new ones."""

    def critic(self) -> FeedForward:
        """The discriminator, a new one."""

    def pictures(self, chunk: list[Any], rng: np.random.Generator) -> Pictures:
        """What a step sees."""

    def exported(self, average: VaeGan) -> VaeGan:
        """The average of the weights as it is evaluated and exported."""


class StyleLearner:
    """Two sides with an optimiser each: encoder and generator; discriminator and guesser. A step is one of both."""

    def __init__(self, task: Styled, options: Options, device: torch.device) -> None:
        self.task, self.options, self.device, self.settings = task, options, device, task.settings
        self.module = task.network().to(device)
        self.mean = copy.deepcopy(self.module).eval()
        self.critic = task.critic().to(device)
        labels = self.module.config.labels
        self.guesser = nn.Sequential(
            nn.Linear(self.module.config.latent_size, _GUESSER), nn.LeakyReLU(0.2), nn.Linear(_GUESSER, labels)
        ).to(device)
        self.rivals = nn.ModuleList([self.critic, self.guesser])
        self.optimizers = [optimizer_of(side, options, _BETA1) for side in (self.module, self.rivals)]

    @property
    def average(self) -> VaeGan:
        return self.task.exported(self.mean)

    def begin_with(self, start: Mapping[str, Tensor]) -> None:
        self.module.load_state_dict(dict(start))
        self.mean.load_state_dict(dict(start))

    def learn(self, chunk: list[Any], rng: np.random.Generator, step: int, total: int) -> tuple[float, int]:
        seen = self.task.pictures(chunk, rng).to(self.device)
        styles = None if step < self.settings.alone else _others(seen, self.module.config.labels)
        self.module.train()
        self.rivals.train()
        ours, theirs = self.optimizers
        self.rivals.requires_grad_(False)
        ours.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, mixed(self.options, self.device)):
            loss, mean, made = self._loss(seen, styles, step)
        value = _finite(loss, "encoder and generator")
        loss.backward()  # type: ignore[no-untyped-call]
        if styles is not None:
            self.rivals.requires_grad_(True)
            theirs.zero_grad(set_to_none=True)
            with torch.autocast(self.device.type, torch.bfloat16, mixed(self.options, self.device)):
                rivals = self._rivals_loss(seen, mean, made, styles)
            _finite(rivals, "discriminator and guesser")
            rivals.backward()  # type: ignore[no-untyped-call]
            update(self.rivals, theirs, self.options, step, total, self.settings.critic_rate)
        update(self.module, ours, self.options, step, total)
        follow(self.mean, self.module, self.options, step + 1)
        for kept, buffer in zip(self.mean.buffers(), self.module.buffers(), strict=True):
            kept.copy_(buffer)
        return value, len(seen.whole)

    def _loss(self, seen: Pictures, styles: Tensor | None, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, the means of z, and pictures in other styles: half of z that the encoder said, half of the prior's.

        Without `styles` the loss is that of reconstruction and divergence.
        """
        want = self.settings
        mean, log_variance = self.module.encode(seen.heard)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        half = len(z) // 2
        if styles is None:
            own = self.module.decode(z, seen.style)
            made = own[:0]
        else:
            codes = torch.cat([z, z[:half], torch.randn_like(z[half:])])
            logits = self.module.decode(codes, torch.cat([seen.style, styles]))
            own, made = logits[: len(z)], self.module.draw(logits[len(z) :])
        loss = F.binary_cross_entropy_with_logits(own, seen.whole, reduction="none").flatten(1).sum(1).mean()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        loss = loss + min(1.0, step / max(1, want.warmup)) * want.beta * kl
        if styles is None:
            return loss, mean.detach(), made
        grown = min(1.0, (step - want.alone) / max(1, want.warmup))
        if want.adversarial:
            judged = _judge(self.critic, made, styles)
            loss = loss - grown * want.adversarial * judged.mean()
        if want.similarity:
            with torch.no_grad():
                expected = _hidden(self.critic, seen.whole)
            distance = (_hidden(self.critic, self.module.draw(own)).float() - expected.float()).square().sum(1)
            loss = loss + grown * want.similarity * distance.mean()
        if want.hide:
            guessed = F.log_softmax(self.guesser(mean).float(), 1)
            loss = loss + grown * want.hide * (guessed.exp() * guessed).sum(1).mean()
        if want.content:
            again, _ = self.module.encode(made[:half])
            loss = loss + grown * want.content * (again - mean[:half].detach()).square().sum(1).mean()
        return loss, mean.detach(), made.detach()

    def _rivals_loss(self, seen: Pictures, mean: Tensor, made: Tensor, styles: Tensor) -> Tensor:
        loss = F.cross_entropy(self.guesser(mean).float(), seen.label)
        judged = _judge(self.critic, torch.cat([seen.whole, made]), torch.cat([seen.style, styles]))
        real, false = judged[: len(seen.whole)], judged[len(seen.whole) :]
        return loss + F.relu(1 - real).mean() + F.relu(1 + false).mean()

    def state(self) -> dict[str, Any]:
        return {
            "model": self.module.state_dict(),
            "average": self.mean.state_dict(),
            "rivals": self.rivals.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.module.load_state_dict(state["model"])
        self.mean.load_state_dict(state["average"])
        self.rivals.load_state_dict(state["rivals"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)


def _others(seen: Pictures, labels: int) -> Tensor:
    """Style vectors: for the first half of what is seen the label of another and the rest their own, then any."""
    half = len(seen.style) // 2
    label, rest = seen.style[:, :labels], seen.style[:, labels:]
    other = torch.cat([label.roll(1, 0), rest], 1)[:half]
    return torch.cat([other, seen.style[torch.randperm(len(seen.style), device=seen.style.device)][half:]])


def _judge(critic: FeedForward, pictures: Tensor, styles: Tensor) -> Tensor:
    """How much each picture is taken for music of its style (B,)."""
    said: Tensor = critic(pictures).float()
    return said[:, 0] + (said[:, 1:] * styles).sum(1)


def _hidden(critic: FeedForward, pictures: Tensor) -> Tensor:
    """The input of the discriminator's last layer (B, H)."""
    for layer in list(critic.layers)[:-1]:
        pictures = layer(pictures)
    return pictures.flatten(1)


def _finite(loss: Tensor, whose: str) -> float:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise NotFinite(f"the loss of {whose} is {value}")
    return value
