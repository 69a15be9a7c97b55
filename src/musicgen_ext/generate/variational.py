"""Variational autoencoders: a window of frames for a latent vector, a latent vector for a window."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core, weights
from musicgen_ext.architectures import VariationalConfig
from musicgen_ext.generate.arguments import Coins, Ints, Sampled, check_integer, check_seed
from musicgen_ext.generate.recurrent import RecurrentEngine

if TYPE_CHECKING:
    from musicgen_ext.weights import ModelFile

Floats = npt.NDArray[np.float32]

_BATCH = 1 << 8  # windows decoded at a time for `bounds`


class VariationalEngine:
    """Variational autoencoders (`VariationalConfig`): a native encoder, and a `RecurrentEngine` that is told z.

    Immutable: share it between threads.

    Parameters
    ----------
    file : weights.ModelFile
        Its tensors are copied; the products of a step use them as stored (float32, bfloat16 or int8).
    """

    def __init__(self, file: ModelFile) -> None:
        self.config = config = VariationalConfig.from_dict(file.config)
        weights.check_tensors(file, config.tensor_shapes())
        self.weights = file.weights
        prefix = "decoder."
        parts = {name.removeprefix(prefix): a for name, a in file.tensors.items() if name.startswith(prefix)}
        self._decoder = RecurrentEngine(replace(file, arch="recurrent", config=config.decoder.to_dict(), tensors=parts))
        tensors = {n: np.ascontiguousarray(a) for n, a in file.tensors.items() if not n.startswith(prefix)}
        self._encoder = _core.VariationalEncoder(config.reader.to_dict(), config.latent_size, tensors, file.weights)
        plain = weights.convert(file, "float32").tensors
        self.attributes: dict[str, Floats] = {}
        """Name to direction, float32 (latent_size,): what is added to z for one standard deviation more."""
        for i, name in enumerate(config.attributes):
            self.attributes[name] = plain["attributes"][i].copy()
            self.attributes[name].flags.writeable = False
        self.spread: dict[str, tuple[float, float]] = {
            name: (float(plain["attribute_mean"][i]), float(plain["attribute_deviation"][i]))
            for i, name in enumerate(config.attributes)
        }
        """Name to mean and standard deviation in the data."""

    @property
    def decoder(self) -> RecurrentEngine:
        """What draws the tokens of a window, with z as its condition vector."""
        return self._decoder

    @property
    def most_tokens(self) -> int:
        """Size of the largest slot's vocabulary."""
        return self._decoder.most_tokens

    @property
    def latent_size(self) -> int:
        """Numbers in z."""
        return self.config.latent_size

    @property
    def packed_bytes(self) -> int:
        """Memory of the packed weights and tables."""
        return self._decoder.packed_bytes + int(self._encoder.packed_bytes)

    def encode(self, tokens: npt.ArrayLike, *, threads: int | None = None) -> tuple[Floats, Floats]:
        """The posterior of z for windows of tokens: a normal distribution with independent units.

        Parameters
        ----------
        tokens : array [shape=(B, window, F) or (window, F)], int
        threads : int > 0, optional
            Default: all cores. The result does not depend on it, nor on B.

        Returns
        -------
        mean, log_variance : np.ndarray [shape=(B, latent_size) or (latent_size,)], float32

        Raises
        ------
        ValueError
            The shape is another, or a token is outside its slot; the message names it.
        """
        windows = self._windows(tokens)
        workers = os.cpu_count() or 1 if threads is None else check_integer("threads", threads, 1, 1 << 16)
        mean, log_variance = self._encoder.encode(windows, workers)
        return (mean, log_variance) if np.ndim(tokens) == 3 else (mean[0], log_variance[0])

    def decode(self, z: npt.ArrayLike, **options: Any) -> Sampled:
        """One window for each of some latent vectors.

        Parameters
        ----------
        z : array [shape=(B, latent_size) or (latent_size,)], float
        options
            Of `RecurrentEngine.sample`: temperature, top_k, top_p, seed, coins, allowed, threads …

        Returns
        -------
        drawn : Sampled
            ``tokens`` int32 (B, window, F).
        """
        vectors = np.atleast_2d(np.asarray(z))
        return self._decoder.sample(self.config.window, vector=vectors, num_samples=len(vectors), **options)

    def bounds(
        self, tokens: npt.ArrayLike, *, samples: int = 1, seed: int = 0, threads: int | None = None
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Lower bounds of the log-probability of windows, and what their latent vectors cost.

        With one sample the bound is the usual one, ``log p(x | z) - KL``, for one z of the posterior; with K, the
        importance-weighted one, ``log mean p(x | z_k) p(z_k) / q(z_k | x)``, which is nearer to ``log p(x)`` the larger
        K is. z depends on the seed and the number of the window.

        Parameters
        ----------
        tokens : array [shape=(B, window, F)], int
        samples : int in [1, 2^16]
        seed, threads
            As for `RecurrentEngine.sample`.

        Returns
        -------
        log_probs : np.ndarray [shape=(B,)], float64
            Natural logarithms, of whole windows.
        divergences : np.ndarray [shape=(B,)], float64
            KL of the posterior from the prior, nats.

        Source: Y. Burda, R. Grosse, R. Salakhutdinov, "Importance weighted autoencoders", ICLR 2016.
        """
        samples = check_integer("samples", samples, 1, 1 << 16)
        windows = self._windows(tokens)
        mean, log_variance = (a.astype(np.float64) for a in self.encode(windows, threads=threads))
        divergences = 0.5 * (mean**2 + np.exp(log_variance) - 1.0 - log_variance).sum(1)
        coins = Coins(check_seed(seed), range(len(windows)))
        deviation = np.exp(0.5 * log_variance)
        scores = np.empty((samples, len(windows)))
        for k in range(samples):
            noise = coins.normals(1, self.latent_size)[:, 0].astype(np.float64)
            z = (mean + deviation * noise).astype(np.float32)
            for first in range(0, len(windows), _BATCH):
                part = slice(first, first + _BATCH)
                drawn = self.decode(z[part], forced=windows[part], log_probs=True, threads=threads)
                assert drawn.log_probs is not None
                scores[k, part] = drawn.log_probs.sum((1, 2))
            if samples > 1:  # log p(z) - log q(z | x): the constants of the two normals cancel
                scores[k] += 0.5 * (noise**2 + log_variance - z.astype(np.float64) ** 2).sum(1)
        if samples == 1:
            return scores[0] - divergences, divergences
        best = scores.max(0)
        return best + np.log(np.exp(scores - best).sum(0)) - math.log(samples), divergences

    def _windows(self, tokens: npt.ArrayLike) -> Ints:
        array = np.asarray(tokens)
        slots = self.config.decoder.slots
        shape = (self.config.window, len(slots))
        if array.dtype.kind not in "iu":
            raise TypeError(f"tokens: expected integers, got dtype {array.dtype}")
        if array.ndim not in (2, 3) or array.shape[-2:] != shape:
            raise ValueError(f"tokens: expected shape (B, {shape[0]}, {shape[1]}), got {array.shape}")
        array = array.reshape(-1, *shape)
        for k, slot in enumerate(slots):
            column = array[:, :, k]
            if column.size and not 0 <= int(column.min()) <= int(column.max()) < slot.size:
                wrong = int(column.min()) if int(column.min()) < 0 else int(column.max())
                raise ValueError(f"tokens: expected [0, {slot.size - 1}] in slot {slot.name!r}, got {wrong}")
        return np.ascontiguousarray(array, np.int32)
