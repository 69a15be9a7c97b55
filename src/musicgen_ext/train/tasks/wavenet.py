"""WaveNets and the sound that they foretell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from musicgen_ext.architectures import WaveNetConfig
from musicgen_ext.train.models import Dropout, WaveNet
from musicgen_ext.train.sound import Crop, Recording, SoundCorpus, crops_of, with_noise
from musicgen_ext.train.tasks.base import Likelihood, no_objective

_STRETCH = 32_768  # samples that are evaluated at a time


class WaveNetTask:
    """A WaveNet that foretells the samples of a `SoundCorpus`."""

    data_kind: ClassVar[type] = SoundCorpus

    def __init__(
        self, config: WaveNetConfig, data: SoundCorpus, dropout: Dropout, objective: Mapping[str, Any] | None = None
    ) -> None:
        for name, value in vars(dropout).items():
            if name != "layer" and value:
                raise ValueError(f"dropout.{name}: expected 0 for a WaveNet, which has 'layer' only, got {value}")
        data.check(config)
        self.config, self.data, self.dropout, self.objective = config, data, dropout, objective or {}
        no_objective(self.objective, "a WaveNet")

    def network(self) -> WaveNet:
        return WaveNet(self.config, self.dropout.layer)

    def num_batches(self, batch_size: int) -> int:
        return -(-self.data.crops_per_epoch // batch_size)

    def epoch(self, batch_size: int, rng: np.random.Generator) -> list[list[tuple[int, int]]]:
        places = crops_of(self.data, rng)
        return [places[i : i + batch_size] for i in range(0, len(places), batch_size)]

    def parts(self, chunk: list[tuple[int, int]], rng: np.random.Generator, step: int) -> list[_Sound]:
        crops = (self.data.cut(self.config, number, start, self.data.crop, rng) for number, start in chunk)
        return [_Sound(with_noise(crop, self.config.output.classes, self.data.noise, rng)) for crop in crops]

    def evaluate(self, module: WaveNet, pieces: Sequence[Recording], *, per: Sequence[str] | None = None) -> Likelihood:
        return evaluate_sound(module, self.data, pieces)


@dataclass(frozen=True)
class _Sound:
    """One crop: alone, a layer's sums stay in the processor's cache."""

    crop: Crop

    @property
    def tokens(self) -> int:
        return self.crop.scored

    def nats(self, module: WaveNet, device: torch.device, smoothing: float) -> Tensor:
        if smoothing:
            raise ValueError(f"train.label_smoothing: expected 0 for a WaveNet, got {smoothing}")
        return _nats_of(module, self.crop, device).sum()


def evaluate_sound(module: WaveNet, data: SoundCorpus, recordings: Sequence[Recording]) -> Likelihood:
    """Likelihood of whole recordings from their first sample, in nats a sample.

    Parameters
    ----------
    module : WaveNet
    data : SoundCorpus
        Says what the samples are; its recordings are not looked at.
    recordings : sequence of Recording
    """
    device = next(module.parameters()).device
    was_training = module.training
    module.eval()
    each = []
    with torch.no_grad():
        for recording in recordings:
            nats = 0.0
            for start in range(0, len(recording.samples), _STRETCH):
                count = min(_STRETCH, len(recording.samples) - start)
                crop = data.cut(module.config, recording, start, count)
                nats += float(_nats_of(module, crop, device).double().sum())
            each.append((nats, len(recording.samples)))
    module.train(was_training)
    totals = np.array(each, float)
    return Likelihood(
        nll=float(totals[:, 0].sum() / totals[:, 1].sum()),
        macro=float((totals[:, 0] / totals[:, 1]).mean()),
        slots={},
        tokens=int(totals[:, 1].sum()),
    )


def _nats_of(module: WaveNet, crop: Crop, device: torch.device) -> Tensor:
    """Negative log-likelihoods of the samples of a crop that are scored."""
    previous, samples = crop.previous.to(device)[None], crop.samples.to(device)[None]
    frames = None if crop.frames is None else crop.frames.to(device)[None]
    outputs = module(previous, frames, offset=crop.offset)[:, -crop.scored :]
    nats: Tensor = module.nats(outputs, samples[:, -crop.scored :])
    return nats[0]
