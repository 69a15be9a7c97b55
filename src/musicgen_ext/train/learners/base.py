"""What the training loop asks of whoever learns: a step, and what is left of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from musicgen_ext.train.loop import Options


class NotFinite(ArithmeticError):
    """A loss or a gradient is not a finite number; the message says which. Nothing of the step was kept."""


class Learner(Protocol):
    """Networks, their optimisers, and how a step changes them.

    Chance is never part of the state: a step gets it from its number (torch's own generator was seeded with it, too).
    So `state` holds weights, optimisers and averages, and a run that was killed goes on to the same next step.
    """

    @property
    def average(self) -> Any:
        """The network that is evaluated and exported."""

    def begin_with(self, start: Mapping[str, Tensor]) -> None:
        """Take these weights instead of new ones."""

    def learn(self, chunk: list[Any], rng: np.random.Generator, step: int, total: int) -> tuple[float, int]:
        """Step `step` (from 0) of `total`, on what the task's epoch says; the mean loss, and of how many things.

        Raises
        ------
        NotFinite
            The networks are as they were before.
        """

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: tensors, numbers, strings, lists, dicts."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, which may hold more than this learner put there."""


def optimizer_of(module: nn.Module, options: Options, beta1: float = 0.9) -> torch.optim.Optimizer:
    """The optimiser that `options` describe; only matrices decay. `beta1` is of Adam."""
    matrices = [p for p in module.parameters() if p.dim() > 1]
    biases = [p for p in module.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": options.weight_decay}, {"params": biases, "weight_decay": 0.0}]
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=options.learning_rate, momentum=options.momentum)
    kind = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=options.learning_rate, betas=(beta1, options.beta2), fused=True)


def update(
    module: nn.Module, optimizer: torch.optim.Optimizer, options: Options, step: int, total: int, rate: float = 1.0
) -> None:
    """Clip the gradients and take a step with them, at `rate` times the learning rate of step `step` of `total`."""
    norm = float(nn.utils.clip_grad_norm_(module.parameters(), options.clip))
    if not np.isfinite(norm):
        raise NotFinite(f"the gradient's norm is {norm}")
    for group in optimizer.param_groups:
        group["lr"] = rate * options.learning_rate_at(step, total)
    optimizer.step()


@torch.no_grad()
def follow(average: nn.Module, module: nn.Module, options: Options, steps: int) -> None:
    """Move the average of the weights towards the weights after `steps` steps."""
    decay = min(options.ema, (1 + steps) / (10 + steps)) if options.ema else 0.0
    torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1 - decay)


def mixed(options: Options, device: torch.device) -> bool:
    """Whether products are taken in bfloat16."""
    return options.mixed_precision is True or (options.mixed_precision == "gpu" and device.type == "cuda")
