"""Networks over frames, and the frames that they foretell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from musicgen_ext.architectures import FramesConfig
from musicgen_ext.train.frames import FrameCorpus, FramePiece, frame_features
from musicgen_ext.train.models import Dropout, Frames
from musicgen_ext.train.tasks.base import Likelihood, no_objective

_STRETCH = 512  # frames whose keys are evaluated at a time


class FramesTask:
    """A network that foretells the frames of a `FrameCorpus`."""

    data_kind: ClassVar[type] = FrameCorpus

    def __init__(
        self, config: FramesConfig, data: FrameCorpus, dropout: Dropout, objective: Mapping[str, Any] | None = None
    ) -> None:
        self.config, self.data, self.dropout, self.objective = config, data, dropout, objective or {}
        no_objective(self.objective, "a network over frames")
        keys = data.encoding["keys"]
        if config.keys != keys:
            raise ValueError(f"model.keys: expected those of the data, {keys}, got {config.keys}")

    def network(self) -> Frames:
        return Frames(self.config, self.dropout)

    def num_batches(self, batch_size: int) -> int:
        return -(-int(self.data.parts.sum()) // batch_size)

    def epoch(self, batch_size: int, rng: np.random.Generator) -> list[list[tuple[int, int, int]]]:
        parts = self.data.cut(rng)
        lengths = np.array([end - first for _, first, end in parts]) + rng.uniform(0.0, 8.0, len(parts))
        order = np.argsort(lengths)  # similar lengths together, in other company every time
        chunks = [[parts[i] for i in order[k : k + batch_size]] for k in range(0, len(parts), batch_size)]
        return [chunks[i] for i in rng.permutation(len(chunks))]

    def parts(self, chunk: list[tuple[int, int, int]], rng: np.random.Generator, step: int) -> list[_Batch]:
        n, batch = max(end - first for _, first, end in chunk), len(chunk)
        keys = self.config.keys
        channels = np.zeros((n, batch, keys, self.config.channels), np.uint8)
        numbers = np.zeros((n, batch, len(self.config.numbers)), np.int64)
        frames = np.zeros((n, batch, keys), np.uint8)
        scored = np.zeros((n, batch), bool)
        for b, (number, first, end) in enumerate(chunk):
            roll, count = self.data.train[number].frames, end - first
            seen, told = self.data.features(self.config, number)
            shift = _shift(roll, self.data.transpose, rng)
            to, source = slice(max(0, shift), keys + min(0, shift)), slice(max(0, -shift), keys - max(0, shift))
            channels[:count, b, to] = seen[first:end, source]
            numbers[:count, b] = told[first:end]
            frames[:count, b, to] = roll[first:end, source]
            scored[:count, b] = np.arange(first, end) >= (0 if self.data.first_frame else 1)
        return [_Batch(*map(torch.from_numpy, (channels, numbers, frames, scored)))]

    def evaluate(self, module: Frames, pieces: Sequence[FramePiece], *, per: Sequence[str] | None = None) -> Likelihood:
        """Nats per frame of whole pieces, each alone from its first frame on, which is heard but not scored.

        One piece at a time: there is no padding that could be counted.
        """
        device = next(module.parameters()).device
        was_training = module.training
        module.eval()
        each = []
        with torch.no_grad():
            for piece in pieces:
                computed = (*frame_features(self.config, piece.frames), piece.frames)
                channels, numbers, frames = (torch.from_numpy(a).unsqueeze(1).to(device) for a in computed)
                state = module.trunk(channels, numbers)
                nats = 0.0
                for i in range(1, len(frames), _STRETCH):
                    part = slice(i, i + _STRETCH)
                    nats += float(_nats(module.logits(state[part], channels[part], frames[part]), frames[part]).sum())
                each.append((nats, len(frames) - 1))
        module.train(was_training)
        totals = np.array(each, float)
        return Likelihood(
            nll=float(totals[:, 0].sum() / totals[:, 1].sum()),
            macro=float((totals[:, 0] / totals[:, 1]).mean()),
            slots={},
            tokens=int(totals[:, 1].sum()),
        )


@dataclass(frozen=True)
class _Batch:
    """Parts of pieces beside one another; what only pads, and perhaps the first frame of a piece, is not `scored`."""

    channels: Tensor
    numbers: Tensor
    frames: Tensor
    scored: Tensor

    @property
    def tokens(self) -> int:
        return int(self.scored.sum())

    def nats(self, module: Frames, device: torch.device, smoothing: float) -> Tensor:
        if smoothing:
            raise ValueError(f"train.label_smoothing: expected 0 for frames, got {smoothing}")
        channels, numbers, frames = (x.to(device) for x in (self.channels, self.numbers, self.frames))
        nats = _nats(module(channels, numbers, frames), frames)
        return (nats * self.scored.to(device)).sum()


def _nats(logits: Tensor, frames: Tensor) -> Tensor:
    """Of every frame and sequence: the sum over its keys."""
    return F.binary_cross_entropy_with_logits(logits.float(), frames.float(), reduction="none").sum(-1)


def _shift(roll: np.ndarray[Any, Any], most: int, rng: np.random.Generator) -> int:
    """Semitones up."""
    sounding = np.flatnonzero(roll.any(0))
    if not most or not len(sounding):
        return 0
    low, high = max(-most, -int(sounding[0])), min(most - 1, roll.shape[1] - 1 - int(sounding[-1]))
    return int(rng.integers(low, high + 1))
