"""Variational autoencoders: reconstruction, and what the latent vector may cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from musicgen_ext import encodings
from musicgen_ext.architectures import VariationalConfig
from musicgen_ext.train.data import IGNORED, Batch, Collator, Corpus, Piece, batches, num_batches
from musicgen_ext.train.models import Dropout, Variational
from musicgen_ext.train.tasks.base import Likelihood
from musicgen_ext.train.tasks.recurrent import token_nats

Doubles = npt.NDArray[np.float64]

_NOISE = 20_261_120  # the seed of evaluations, which are the same every time
_BATCH = 64  # windows that are evaluated at a time
_LONGEST = 2.0  # of an attribute's direction, where 1 is a unit's standard deviation under the prior
_DESCRIBED = 4_096  # windows of the training split in which directions of attributes are looked for
ACTIVE = 0.01  # variance of posterior means from which on a unit of z is used (Burda et al., 2016)


@dataclass(frozen=True)
class Objective:
    """What a variational autoencoder learns by: nats of reconstruction + beta · max(KL - free_nats, 0), a window.

    ``beta`` (Higgins et al., 2017) grows from 0 in proportion to the step until step ``anneal_steps`` (Bowman et al.,
    2016). The first ``free_nats`` of the divergence of posterior and prior cost nothing (Kingma et al., 2016).
    ``importance_samples``: of the tighter bound that is measured on splits other than the validation split, which the
    loop looks at again and again (Burda et al., 2016).
    """

    beta: float = 1.0
    anneal_steps: int = 0
    free_nats: float = 0.0
    importance_samples: int = 32

    def __post_init__(self) -> None:
        for name in ("beta", "free_nats"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"objective.{name}: expected a number >= 0, got {value!r}")
        for name, least in (("anneal_steps", 0), ("importance_samples", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"objective.{name}: expected an integer >= {least}, got {value!r}")

    def beta_at(self, step: int) -> float:
        """The weight of the divergence in step `step`, counted from 0."""
        return self.beta * min(1.0, (step + 1) / self.anneal_steps) if self.anneal_steps else self.beta


class VariationalTask:
    """A variational autoencoder and the windows of a `Corpus`, all of one length."""

    data_kind: ClassVar[type] = Corpus

    def __init__(
        self, config: VariationalConfig, data: Corpus, dropout: Dropout, objective: Mapping[str, Any] | None = None
    ) -> None:
        for name in objective or {}:
            known = [f.name for f in fields(Objective)]
            if name not in known:
                raise ValueError(f"objective.{name}: expected names out of {known}")
        self.config, self.data, self.dropout = config, data, dropout
        self.terms = Objective(**(objective or {}))
        self.objective = asdict(self.terms)
        for piece in (*data.train, *data.valid, *data.test):
            if len(piece.tokens) != config.window:
                got = f"{len(piece.tokens)} in {piece.name!r}"
                raise ValueError(f"data: expected windows of {config.window} frames (config.window), got {got}")
        if config.attributes:
            encoding = encodings.load(data.encoding)
            if not isinstance(encoding, encodings.MelodyWindows) or config.attributes != encodings.ATTRIBUTES:
                known = list(encodings.ATTRIBUTES)
                got = f"{list(config.attributes)} for {encoding.name!r}"
                raise ValueError(f"model.attributes: expected {known} for 'melody_windows' or none, got {got}")
            self._encoding = encoding
        self._collate = Collator(config.decoder)

    def network(self) -> Variational:
        return Variational(self.config, self.dropout)

    def num_batches(self, batch_size: int) -> int:
        return num_batches(self.data, batch_size)

    def epoch(self, batch_size: int, rng: np.random.Generator) -> list[list[Piece]]:
        return list(batches(self.data.epoch(rng), batch_size, rng))

    def parts(self, chunk: list[Piece], rng: np.random.Generator, step: int) -> list[_Windows]:
        batch = self._collate([self.data.draw(piece, rng) for piece in chunk])
        return [_Windows(batch, self.terms.beta_at(step), self.terms.free_nats)]

    def evaluate(self, module: Variational, pieces: Sequence[Piece], *, per: Sequence[str] | None = None) -> Likelihood:
        """Bounds of the likelihood: `nll` is an upper one, of nats a token.

        Measures: ``reconstruction`` and ``kl``, the two parts of the bound in nats a window; ``active_units``;
        ``importance_nll``, nats a token by the bound with `Objective.importance_samples` samples, not of the validation
        split. The attributes' directions are found anew on the way, in windows of the training split.
        """
        if per is not None:
            raise ValueError(f"run.notes: expected none for a variational autoencoder, got {list(per)}")
        was_training = module.training
        module.eval()
        with torch.no_grad():
            if self.config.attributes:
                self._describe(module)
            samples = 1 if pieces is self.data.valid else self.terms.importance_samples
            reconstruction, kl, bound, means = self._bounds(module, pieces, samples)
        module.train(was_training)
        frames = sum(len(p.tokens) for p in pieces)
        tokens = frames * len(self.config.decoder.slots)
        elbo = reconstruction.sum(1) + kl
        measures = {
            "reconstruction": float(reconstruction.sum(1).mean()),
            "kl": float(kl.mean()),
            "active_units": int((means.var(0) > ACTIVE).sum()),
        }
        if samples > 1:
            measures["importance_nll"] = float(bound.sum() / tokens)
        return Likelihood(
            nll=float(elbo.sum() / tokens),
            macro=float(elbo.mean() * len(pieces) / tokens),
            slots={
                slot.name: float(reconstruction[:, k].sum() / frames)
                for k, slot in enumerate(self.config.decoder.slots)
            },
            tokens=tokens,
            measures=measures,
        )

    def _bounds(
        self, module: Variational, pieces: Sequence[Piece], samples: int
    ) -> tuple[Doubles, Doubles, Doubles, Doubles]:
        """Of every piece: nats of reconstruction by slot, of divergence, and by importance; the posterior's mean."""
        device = next(module.parameters()).device
        chance = torch.Generator().manual_seed(_NOISE)
        columns: tuple[list[Tensor], ...] = ([], [], [], [])
        for first in range(0, len(pieces), _BATCH):
            batch = self._collate(pieces[first : first + _BATCH]).to(device)
            mean, log_variance = module.encode(batch.targets)
            nats, log_weights = [], []
            for _ in range(samples):
                noise = torch.randn(mean.shape, generator=chance).to(device)
                z = mean + torch.exp(0.5 * log_variance) * noise
                nats.append(_reconstruction(module, batch, z))
                # log p(x|z) + log p(z) - log q(z|x): the constants of the two normals cancel
                log_weights.append(-nats[-1].sum(1) + 0.5 * (noise**2 + log_variance - z**2).sum(1))
            bound = math.log(samples) - torch.logsumexp(torch.stack(log_weights).double(), 0)
            for column, value in zip(columns, (nats[0], divergence(mean, log_variance), bound, mean), strict=True):
                column.append(value)
        reconstruction, kl, bounds, means = (torch.cat(column).double().cpu().numpy() for column in columns)
        return reconstruction, kl, bounds, means

    def _describe(self, module: Variational) -> None:
        """Finds the attributes' directions in windows as `Corpus.draw` shows them."""
        rng = np.random.default_rng(_NOISE)
        count = min(_DESCRIBED, len(self.data.train))
        chosen = [self.data.train[i] for i in rng.choice(len(self.data.train), count, replace=False)]
        pieces = [self.data.draw(piece, rng) for piece in chosen]
        values = self._encoding.attributes(np.stack([p.tokens for p in pieces]))
        device = next(module.parameters()).device
        means = []
        for first in range(0, count, _BATCH):
            batch = self._collate(pieces[first : first + _BATCH]).to(device)
            means.append(module.encode(batch.targets)[0].double().cpu().numpy())
        average, deviation = values.mean(0), values.std(0)
        deviation[deviation == 0] = 1.0
        found = directions((values - average) / deviation, np.concatenate(means))
        for name, value in (("attributes", found), ("attribute_mean", average), ("attribute_deviation", deviation)):
            getattr(module, name).copy_(torch.from_numpy(value))


def directions(attributes: Doubles, means: Doubles) -> Doubles:
    """What to add to z for one standard deviation more of each attribute, as far as z knows it.

    Two linear fits by least squares: of z by the attributes (how z differs where an attribute does, the others held
    fixed), and of the attributes by z. The first are mixed and scaled so that by the second each raises its own
    attribute by one and leaves the others as they are. Where z hardly tells of an attribute that would lead far beyond
    all music: no direction is longer than `_LONGEST`.

    Parameters
    ----------
    attributes : np.ndarray [shape=(N, n)]
        Standardised.
    means : np.ndarray [shape=(N, latent_size)]
        Of the posteriors.

    Returns
    -------
    directions : np.ndarray [shape=(n, latent_size)]
    """
    ones = np.ones((len(means), 1))
    differences = np.linalg.lstsq(np.hstack([ones, attributes]), means, rcond=None)[0][1:]
    readings = np.linalg.lstsq(np.hstack([ones, means]), attributes, rcond=None)[0][1:]
    mixed = np.linalg.pinv(differences @ readings) @ differences
    length = np.linalg.norm(mixed, axis=1, keepdims=True)
    return np.asarray(mixed * np.minimum(1.0, _LONGEST / np.maximum(length, 1e-12)))


@dataclass(frozen=True)
class _Windows:
    batch: Batch
    beta: float
    free_nats: float

    @property
    def tokens(self) -> int:
        return int((self.batch.targets != IGNORED).sum())

    def nats(self, module: Variational, device: torch.device, smoothing: float) -> Tensor:
        batch = self.batch.to(device)
        mean, log_variance = module.encode(batch.targets)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        cost = (divergence(mean, log_variance) - self.free_nats).clamp(min=0.0).sum()
        return _reconstruction(module, batch, z, smoothing).sum() + self.beta * cost


def _reconstruction(module: Variational, batch: Batch, z: Tensor, smoothing: float = 0.0) -> Tensor:
    """Nats of every window and slot, (B, F)."""
    logits = module(batch.features, z)
    return torch.stack(
        [token_nats(one, batch.targets[..., k], smoothing).sum(0) for k, one in enumerate(logits)], -1
    )  # fmt: skip


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of normal distributions (B, Z) from the standard normal one, nats (B,)."""
    return 0.5 * (mean**2 + log_variance.exp() - 1.0 - log_variance).sum(-1)
