"""VAE-GANs with a style vector: a picture for a latent vector, a latent vector and a style for a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from musicgen_ext import weights
from musicgen_ext.architectures import VaeGanConfig
from musicgen_ext.architectures.vae_gan import LOG_VARIANCES
from musicgen_ext.errors import WeightsError
from musicgen_ext.generate.arguments import FINEST, Coins
from musicgen_ext.generate.feedforward import FeedForwardEngine

if TYPE_CHECKING:
    from musicgen_ext.weights import ModelFile

Floats = npt.NDArray[np.float32]
Rolls = npt.NDArray[np.uint8]

_BATCH = 1 << 12  # pictures in one call of the engine


class VaeGanEngine:
    """Encoder and generator of a `VaeGanConfig`, run natively. Immutable: share it between threads.

    Parameters
    ----------
    file : weights.ModelFile
        Its tensors are copied; products use them as stored (float32, bfloat16 or int8).
    """

    def __init__(self, file: ModelFile) -> None:
        self.config = config = VaeGanConfig.from_dict(file.config)
        weights.check_tensors(file, config.tensor_shapes())
        self.weights = file.weights
        self._encoder = FeedForwardEngine(config.encoder, file.tensors, file.weights, "encoder.")
        self._generator = FeedForwardEngine(config.generator, file.tensors, file.weights, "generator.")
        plain = weights.convert(file, "float32").tensors
        self._walk = plain["walk"].astype(np.float64)
        self._mean = plain["prior.mean"].astype(np.float64)
        self._scale = plain["prior.scale"].astype(np.float64).reshape(-1, config.latent_size, config.latent_size)
        if np.abs(self._walk).max() > 1:
            worst = float(self._walk[np.abs(self._walk).argmax()])
            raise WeightsError(f"walk: expected numbers in [-1, 1], got {worst}")
        if np.triu(self._scale, 1).any() or (np.diagonal(self._scale, axis1=1, axis2=2) <= 0).any():
            raise WeightsError("prior.scale: expected lower triangles with numbers > 0 on the diagonal")

    @property
    def latent_size(self) -> int:
        """Numbers in z."""
        return self.config.latent_size

    @property
    def packed_bytes(self) -> int:
        """Memory of the packed weights."""
        return self._encoder.packed_bytes + self._generator.packed_bytes

    def encode(self, pictures: npt.ArrayLike, *, threads: int | None = None) -> tuple[Floats, Floats]:
        """The posterior of z: a normal distribution with independent numbers.

        Parameters
        ----------
        pictures : array [shape=(N, C, T, P)]
            1 where there is a note, 0 elsewhere.
        threads : int > 0, optional
            Default: all cores. The result does not depend on it, nor on N.

        Returns
        -------
        mean, log_variance : np.ndarray [shape=(N, D)], float32

        Raises
        ------
        ValueError
            Another shape; the message has both.
        """
        said = self._in_batches(self._encoder, np.asarray(pictures), threads)
        mean, log_variance = np.split(said, 2, axis=1)
        return np.ascontiguousarray(mean), np.clip(log_variance, *LOG_VARIANCES)

    def decode(self, z: npt.ArrayLike, style: npt.ArrayLike, *, threads: int | None = None) -> Floats:
        """Logits of pictures.

        Parameters
        ----------
        z : array [shape=(N, D)]
        style : array [shape=(N, S)]
            Style vectors.
        threads
            As for `encode`.

        Returns
        -------
        logits : np.ndarray [shape=(N, C, T, P)], float32
            Of a note at each place.

        Raises
        ------
        ValueError
            Other shapes, or numbers that are not finite.
        """
        codes, styles = np.asarray(z, np.float32), np.asarray(style, np.float32)
        for name, array, size in (("z", codes, self.latent_size), ("style", styles, self.config.style_size)):
            if array.ndim != 2 or array.shape[1] != size or len(array) != len(codes):
                raise ValueError(f"{name}: expected shape ({len(codes)}, {size}), got {array.shape}")
        return self._in_batches(self._generator, np.concatenate([codes, styles], axis=1), threads)

    @staticmethod
    def draw(logits: Floats) -> Rolls:
        """Pictures, uint8: at every step as many of the likeliest pitches as are expected to sound there.

        That is the sum of the probabilities, rounded; a threshold would leave out every note of which the network knows
        that there is one but not quite where. Of these pitches those have an onset that begin there with a probability
        of at least half of that of sounding.
        """
        likely = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
        points = np.rint(likely * FINEST).astype(np.int64)  # the last digits of a library's exponential do not matter
        sounding = points[:, 0]
        count = (2 * sounding.sum(axis=2, keepdims=True) + FINEST) // (2 * FINEST)
        order = np.argsort(-logits[:, 0], axis=2, kind="stable")
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(order.shape[2])[None, None], axis=2)
        on = np.zeros(logits.shape, np.uint8)
        on[:, 0] = rank < count
        on[:, 1:] = on[:, :1] & (2 * points[:, 1:] >= points[:, :1])
        return on

    def latents(
        self,
        count: int,
        coins: Coins,
        label: npt.ArrayLike,
        *,
        temperature: float = 1.0,
        before: npt.ArrayLike | None = None,
    ) -> tuple[Floats, npt.NDArray[np.float64]]:
        """z of neighbouring pictures, each like those of music in a style, and a little like the one before it.

        Parameters
        ----------
        count : int
        coins : Coins
            Of B sequences; the next normal numbers of each are taken.
        label : array [shape=(B,)], int
            Of the first group of styles.
        temperature : float >= 0
            What the deviation of every normal number is multiplied by.
        before : array [shape=(B, D)], float64, optional
            What this returned last for the pictures before (or `whiten` says of them).

        Returns
        -------
        z : np.ndarray [shape=(B, count, D)], float32
        last : np.ndarray [shape=(B, D)], float64
            To go on with.
        """
        which = np.asarray(label, np.int64)
        drawn = temperature * coins.normals(count, self.latent_size).astype(np.float64)
        new = np.sqrt(1.0 - self._walk**2)
        for i in range(count):
            if i or before is not None:
                kept = drawn[:, i - 1] if i else np.asarray(before, np.float64)
                drawn[:, i] = self._walk * kept + new * drawn[:, i]
        z = np.repeat(self._mean[which][:, None], count, axis=1)
        for j in range(self.latent_size):  # one order of summation: the same bits everywhere
            z += drawn[..., j : j + 1] * self._scale[which][:, None, :, j]
        return z.astype(np.float32), drawn[:, -1]

    def whiten(self, z: npt.ArrayLike, label: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """What `latents` would have drawn for z [shape=(B, D)] of these labels: its `before`."""
        which = np.asarray(label, np.int64)
        left = np.asarray(z, np.float64) - self._mean[which]
        drawn = np.zeros_like(left)
        for j in range(self.latent_size):  # the scales are lower triangular
            drawn[:, j] = left[:, j] / self._scale[which, j, j]
            left -= drawn[:, j : j + 1] * self._scale[which, :, j]
        return drawn

    def bounds(self, pictures: Rolls, style: npt.ArrayLike, coins: Coins) -> npt.NDArray[np.float64]:
        """Lower bounds of the log-probability of pictures [shape=(N,)], float64, nats.

        ``log p(x | z, c) - KL(q(z | x) || p(z))`` for one z of the posterior, drawn with the coins of one sequence; the
        places of a picture are independent given z.

        Source: D. P. Kingma, M. Welling, "Auto-encoding variational Bayes", 2014.
        """
        mean, log_variance = (array.astype(np.float64) for array in self.encode(pictures))
        noise = coins.normals(len(mean), self.latent_size)[0]
        logits = self.decode(mean + np.exp(0.5 * log_variance) * noise, style).astype(np.float64)
        signed = np.where(np.asarray(pictures) != 0, logits, -logits)
        likely = -np.logaddexp(0.0, -signed).reshape(len(mean), -1).sum(axis=1)
        cost = 0.5 * (mean**2 + np.exp(log_variance) - 1.0 - log_variance).sum(axis=1)
        return np.asarray(likely - cost, np.float64)

    @staticmethod
    def _in_batches(network: FeedForwardEngine, rows: npt.NDArray[np.generic], threads: int | None) -> Floats:
        if not len(rows):
            return np.zeros((0, *network.config.output), np.float32)
        parts = [network.run(rows[i : i + _BATCH], threads=threads) for i in range(0, len(rows), _BATCH)]
        return np.concatenate(parts)
