"""One network that learns by likelihood."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from musicgen_ext.train.learners.base import NotFinite, follow, mixed, optimizer_of, update
from musicgen_ext.train.tasks import Task

if TYPE_CHECKING:
    from musicgen_ext.train.loop import Options


class MaximumLikelihood:
    """One network, one optimiser: a step lowers the negative log-likelihood of the task's parts."""

    def __init__(self, task: Task, options: Options, device: torch.device) -> None:
        self.task, self.options, self.device = task, options, device
        self.module = task.network().to(device)
        self.average = copy.deepcopy(self.module).eval()
        self.optimizer = optimizer_of(self.module, options)

    def begin_with(self, start: Mapping[str, Tensor]) -> None:
        self.module.load_state_dict(dict(start))
        self.average.load_state_dict(dict(start))

    def learn(self, chunk: list[Any], rng: np.random.Generator, step: int, total: int) -> tuple[float, int]:
        parts = self.task.parts(chunk, rng, step)
        tokens = sum(part.tokens for part in parts)
        self.module.train()
        self.optimizer.zero_grad(set_to_none=True)
        value = 0.0
        for part in parts:  # what a step learns from, as much at a time as is quick
            with torch.autocast(self.device.type, torch.bfloat16, mixed(self.options, self.device)):
                loss = part.nats(self.module, self.device, self.options.label_smoothing) / tokens
            value += float(loss.detach())
            if not math.isfinite(value):
                raise NotFinite(f"the loss is {value}")
            loss.backward()
        update(self.module, self.optimizer, self.options, step, total)
        follow(self.average, self.module, self.options, step + 1)
        return value, tokens

    def state(self) -> dict[str, Any]:
        return {
            "model": self.module.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.module.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
