"""What a run trains: a network, what it learns from, and how its likelihood is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from musicgen_ext.architectures import RecurrentConfig, WaveNetConfig
from musicgen_ext.train.data import IGNORED, Batch, Collator, Corpus, Piece, batches, num_batches
from musicgen_ext.train.models import Dropout, Recurrent, WaveNet
from musicgen_ext.train.sound import Crop, Recording, SoundCorpus, crops_of, with_noise

_STRETCH = 32_768  # samples that are evaluated at a time


@dataclass(frozen=True)
class Likelihood:
    """Teacher-forced negative log-likelihood in nats over whole pieces.

    ``nll``: all nats ÷ all tokens of the scored slots (micro average); ``macro``: that of every piece, averaged;
    ``slots``: nats per token of each slot (none for sound); ``tokens``: how many were scored.
    """

    nll: float
    macro: float
    slots: Mapping[str, float]
    tokens: int


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

    def network(self) -> Any:
        """A new one, by torch's own generator of chance."""

    def num_batches(self, batch_size: int) -> int:
        """Steps in an epoch."""

    def epoch(self, batch_size: int, rng: np.random.Generator) -> list[list[Any]]:
        """What each step of an epoch is made of."""

    def parts(self, chunk: list[Any], rng: np.random.Generator) -> list[Any]:
        """The `Part`s of a step."""

    def evaluate(self, module: Any, pieces: Sequence[Any], *, per: Sequence[str] | None = None) -> Likelihood:
        """The likelihood of whole pieces."""


def task_of(config: Any, data: Corpus | SoundCorpus, dropout: Dropout) -> Task:
    """What it takes to train a network of this configuration (or its JSON form) on these data.

    Raises
    ------
    ValueError
        A network for tokens and sounds to learn from, or the other way about.
    """
    if isinstance(data, SoundCorpus):
        if isinstance(config, RecurrentConfig):
            raise ValueError("data: expected a Corpus of tokens for a recurrent network, got a SoundCorpus")
        return _WaveNetTask(
            config if isinstance(config, WaveNetConfig) else WaveNetConfig.from_dict(config), data, dropout
        )
    if isinstance(config, WaveNetConfig):
        raise ValueError("data: expected a SoundCorpus for a WaveNet, got a Corpus of tokens")
    return _RecurrentTask(
        config if isinstance(config, RecurrentConfig) else RecurrentConfig.from_dict(config), data, dropout
    )


# -- tokens ------------------------------------------------------------------------------------------------------------


class _RecurrentTask:
    def __init__(self, config: RecurrentConfig, data: Corpus, dropout: Dropout) -> None:
        self.config, self.data, self.dropout = config, data, dropout
        self._collate = Collator(config)

    def network(self) -> Recurrent:
        return Recurrent(self.config, self.dropout)

    def num_batches(self, batch_size: int) -> int:
        return num_batches(self.data, batch_size)

    def epoch(self, batch_size: int, rng: np.random.Generator) -> list[list[Piece]]:
        return list(batches(self.data.epoch(rng), batch_size, rng))

    def parts(self, chunk: list[Piece], rng: np.random.Generator) -> list[_Tokens]:
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
        return torch.stack([_nats(z, batch.targets[..., k], smoothing).sum() for k, z in enumerate(logits)]).sum()


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
                nats[rows, k] = _nats(logits, batch.targets[..., k]).sum(0).double().cpu().numpy()
    module.train(was_training)
    tokens = frames * len(counted)
    return Likelihood(
        nll=float(nats.sum() / tokens.sum()),
        macro=float((nats.sum(1) / tokens).mean()),
        slots={n: float(nats[:, k].sum() / frames.sum()) for k, n in enumerate(names)},
        tokens=int(tokens.sum()),
    )


def _nats(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of every frame and sequence, float32, 0 where padded."""
    flat = F.cross_entropy(
        logits.flatten(0, 1).float(),
        targets.flatten(),
        ignore_index=IGNORED,
        reduction="none",
        label_smoothing=smoothing,
    )
    return flat.view(targets.shape)


# -- sound -------------------------------------------------------------------------------------------------------------


class _WaveNetTask:
    def __init__(self, config: WaveNetConfig, data: SoundCorpus, dropout: Dropout) -> None:
        for name, value in vars(dropout).items():
            if name != "layer" and value:
                raise ValueError(f"dropout.{name}: expected 0 for a WaveNet, which has 'layer' only, got {value}")
        data.check(config)
        self.config, self.data, self.dropout = config, data, dropout

    def network(self) -> WaveNet:
        return WaveNet(self.config, self.dropout.layer)

    def num_batches(self, batch_size: int) -> int:
        return -(-self.data.crops_per_epoch // batch_size)

    def epoch(self, batch_size: int, rng: np.random.Generator) -> list[list[tuple[int, int]]]:
        places = crops_of(self.data, rng)
        return [places[i : i + batch_size] for i in range(0, len(places), batch_size)]

    def parts(self, chunk: list[tuple[int, int]], rng: np.random.Generator) -> list[_Sound]:
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
