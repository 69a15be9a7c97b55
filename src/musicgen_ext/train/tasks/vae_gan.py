"""Music in several styles: a VAE-GAN and the windows that it learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from musicgen_ext.architectures import VaeGanConfig
from musicgen_ext.encodings.roll_bars import Rolls
from musicgen_ext.encodings.styled_bars import TEMPO, Labels, lines
from musicgen_ext.recognition import Recogniser, excerpts, survival
from musicgen_ext.train.learners.vae_gan import Pictures, StyleObjective
from musicgen_ext.train.models import Dropout, FeedForward, VaeGan
from musicgen_ext.train.styles import StyleCorpus, StyledPiece
from musicgen_ext.train.tasks.base import Likelihood

_SEED = 20_160_204  # of the z by which likelihoods are measured
_BATCH = 256
_MOST_PIECES = 100  # of each style, to fit its prior
_EXCERPT_BARS, _MOST_EXCERPTS = 4, 150  # in which styles are recognised; of each style
_ACTIVE = 0.01  # variance of a mean from which a number of z says something (Burda et al. 2016)


@dataclass(frozen=True)
class Transfer(Likelihood):
    """How far a model is from telling music in another style: for a model of styles, what a likelihood is for others.

    ``nll`` and ``macro``: 1 less the mean of `measures`' ``contour``, ``rhythm`` and ``harmony`` (what survives, see
    `musicgen_ext.recognition.Survival`) and twice ``recognised`` (the share of excerpts in which a classifier of real
    music hears the new style); ``tokens``: windows.
    """

    name: ClassVar[str] = "distance"

    @classmethod
    def of(cls, told: Mapping[str, float], count: int, others: Mapping[str, float]) -> Transfer:
        kept = [told["contour"], told["rhythm"], told["harmony"], told["recognised"], told["recognised"]]
        distance = 1 - sum(kept) / len(kept)
        return cls(distance, distance, {}, count, {**told, **others})


class VaeGanTask:
    """Encoder, generator and discriminator of pictures of bars, and their styles."""

    data_kind = StyleCorpus

    def __init__(
        self, config: VaeGanConfig, data: StyleCorpus, dropout: Dropout, objective: Mapping[str, Any] | None = None
    ) -> None:
        for name, value in vars(dropout).items():
            if value:
                raise ValueError(f"dropout.{name}: expected 0 for a VAE-GAN, which has none, got {value}")
        shape, size = data.styled_bars.shape, data.styled_bars.style_size
        labels = len(data.styled_bars.groups[0].labels)
        if (config.encoder.input, config.style_size, config.labels) != (shape, size, labels):
            raise ValueError(
                f"data: expected pictures of shape {list(config.encoder.input)} and styles of {config.style_size} "
                f"numbers, of which {config.labels} are labels, as in the configuration, got {list(shape)}, {size} "
                f"and {labels}"
            )
        self.config, self.data, self.dropout = config, data, dropout
        self.objective = dict(objective or {})
        self.settings = StyleObjective.of(self.objective)
        self._labels = labels
        self._recogniser: Recogniser | None = None
        self._together = -(-_EXCERPT_BARS // data.styled_bars.bars)
        channels, steps, pitches = shape
        self._excerpt_shape = (channels, self._together * steps, pitches)
        self._places: list[list[tuple[int, int]]] = [[] for _ in range(self._labels)]
        for number, piece in enumerate(data.train):
            self._places[int(piece.labels[0, 0])] += [(number, i) for i in range(len(piece.windows))]

    def network(self) -> VaeGan:
        return VaeGan(self.config)

    def critic(self) -> FeedForward:
        return FeedForward(self.config.discriminator)

    def num_batches(self, batch_size: int) -> int:
        return max(1, self._labels * self.data.per_label // batch_size)

    def epoch(self, batch_size: int, rng: np.random.Generator) -> list[list[tuple[int, int]]]:
        """Places of windows, `batch_size` a step."""
        count = self.num_batches(batch_size) * batch_size
        label = rng.integers(self._labels, size=count)
        chosen = [self._places[k][int(rng.integers(len(self._places[k])))] for k in label.tolist()]
        return [chosen[i : i + batch_size] for i in range(0, count, batch_size)]

    def parts(self, chunk: list[Any], rng: np.random.Generator, step: int) -> list[Any]:
        raise NotImplementedError("a VAE-GAN learns by more than likelihood")

    def pictures(self, chunk: list[tuple[int, int]], rng: np.random.Generator) -> Pictures:
        whole = np.stack([self.data.train[number].windows[place] for number, place in chunk])
        labels = np.stack([self.data.train[number].labels[place] for number, place in chunk])
        return self._seen(whole, labels, rng)

    def _seen(self, whole: Rolls, labels: Labels, rng: np.random.Generator) -> Pictures:
        heard = whole.copy()
        chance = rng.random(len(whole)) / max(self.data.sketches, 1e-9)
        for rows, heard_of in ((chance < 0.5, "melody"), ((chance >= 0.5) & (chance < 1), "outer")):
            heard[rows] = lines(whole[rows], heard_of)
        return Pictures(
            heard=torch.from_numpy(heard).float(),
            whole=torch.from_numpy(whole).float(),
            style=torch.from_numpy(self.data.styled_bars.vectors(labels)),
            label=torch.from_numpy(labels[:, 0].copy()),
        )

    def exported(self, average: VaeGan) -> VaeGan:
        """Without norms, with priors that know what its encoder says of training data."""
        made = average.folded()
        rng = np.random.default_rng(_SEED)
        device = made.walk.device
        now, after, label = [], [], []
        with torch.no_grad():
            for places in self._places:
                for number in rng.permutation(sorted({number for number, _ in places}))[:_MOST_PIECES].tolist():
                    piece = self.data.train[number]
                    seen = self._seen(piece.windows, piece.labels, rng)
                    mean, log_variance = made.encode(seen.heard.to(device))
                    noise = torch.from_numpy(rng.standard_normal(mean.shape).astype(np.float32)).to(device)
                    z = mean + noise * torch.exp(0.5 * log_variance)
                    now.append(z[:-1])
                    after.append(z[1:])
                    label.append(seen.label[:-1])
            made.fit_priors(torch.cat(now), torch.cat(after), torch.cat(label).to(device))
        return made

    def evaluate(self, module: VaeGan, pieces: Sequence[StyledPiece], *, per: Sequence[str] | None = None) -> Transfer:
        """How far the model is from telling `pieces` in another style: `Transfer`.

        Measures: those of `Transfer`; ``reconstruction`` and ``kl``, which add up to a bound on the likelihood, in nats
        a window, with one z for each; and how many numbers of z are ``active``.
        """
        device = next(module.parameters()).device
        chance = torch.Generator().manual_seed(_SEED)
        was_training = module.training
        module.eval()
        windows = np.concatenate([piece.windows for piece in pieces])
        styles = self.data.styled_bars.vectors(np.concatenate([piece.labels for piece in pieces]))
        rows, means = [], []
        with torch.no_grad():
            for first in range(0, len(windows), _BATCH):
                whole = torch.from_numpy(windows[first : first + _BATCH]).to(device).float()
                style = torch.from_numpy(styles[first : first + _BATCH]).to(device)
                mean, log_variance = module.encode(whole)
                noise = torch.randn(mean.shape, generator=chance).to(device)
                logits = module.decode(mean + noise * torch.exp(0.5 * log_variance), style)
                lost = F.binary_cross_entropy_with_logits(logits, whole, reduction="none").flatten(1).sum(1)
                kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
                rows.append(torch.stack([lost, kl], 1).double().cpu())
                means.append(mean.cpu())
        module.train(was_training)
        nats = torch.cat(rows).numpy()
        told = self._told(module, pieces)
        return Transfer.of(
            told,
            len(windows),
            {
                "reconstruction": float(nats[:, 0].mean()),
                "kl": float(nats[:, 1].mean()),
                "active": float((torch.cat(means).var(0) > _ACTIVE).sum()),
            },
        )

    def _told(self, module: VaeGan, pieces: Sequence[StyledPiece]) -> dict[str, float]:
        """Excerpts in another style, the encoder hearing their melodies: what survives, and what is recognised."""
        if self._recogniser is None:
            learnt, which = self._excerpts(self.data.train)
            self._recogniser = Recogniser.fit(learnt, which, self.data.styled_bars.groups[0].labels)
        excerpt, which = self._excerpts(pieces)
        other = (which + np.random.default_rng(_SEED).integers(1, self._labels, len(which))) % self._labels
        windows = excerpt.reshape(len(excerpt), excerpt.shape[1], self._together, -1, excerpt.shape[3])
        windows = windows.transpose(0, 2, 1, 3, 4).reshape(-1, *self.data.styled_bars.shape)
        labels = self.data.styled_bars.labels_of(windows, TEMPO)
        labels[:, 0] = other.repeat(self._together)
        device = next(module.parameters()).device
        with torch.no_grad():
            mean, _ = module.encode(torch.from_numpy(lines(windows, "melody")).to(device).float())
            styles = torch.from_numpy(self.data.styled_bars.vectors(labels)).to(device)
            made = (module.draw(module.decode(mean, styles)) > 0.5).to(torch.uint8).cpu().numpy()
        after = excerpts(made, self._together)
        return {**vars(survival(excerpt, after)), "recognised": self._recogniser.accuracy(after, other)}

    def _excerpts(self, pieces: Sequence[StyledPiece]) -> tuple[Rolls, Labels]:
        """At most so many excerpts of each style, as even over its pieces as can be."""
        found, which = [], []
        for label in range(self._labels):
            cut = [excerpts(p.windows, self._together) for p in pieces if p.labels[0, 0] == label]
            every = np.concatenate([np.zeros((0, *self._excerpt_shape), np.uint8), *cut])
            every = every[:: -(-len(every) // _MOST_EXCERPTS) or 1]
            found.append(every)
            which.append(np.full(len(every), label))
        return np.concatenate(found), np.concatenate(which)
