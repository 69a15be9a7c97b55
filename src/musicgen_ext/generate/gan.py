"""Generators of adversarial pairs: a picture a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from musicgen_ext import weights
from musicgen_ext.architectures import GanConfig
from musicgen_ext.generate.arguments import Coins, check_integer, check_seed, sampler_options
from musicgen_ext.generate.feedforward import FeedForwardEngine

if TYPE_CHECKING:
    from musicgen_ext.weights import ModelFile

MAX_PICTURES = 1 << 20  # in one call
_BLOCK = 64  # pictures of a sequence that are under way at a time


@dataclass(frozen=True)
class SampledPictures:
    """What a call of `GanEngine.sample` returns.

    Attributes
    ----------
    pictures : np.ndarray [shape=(B, n, channels, height, width)], uint8
        0 and 1.
    z : np.ndarray [shape=(B, n, D)], float32
        What each was made of.
    probabilities : np.ndarray, as pictures, float32, or None
    """

    pictures: npt.NDArray[np.uint8]
    z: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32] | None = None


class GanEngine:
    """The generator of a `GanConfig`, run natively. Immutable: share it between threads.

    Parameters
    ----------
    file : weights.ModelFile
        Its tensors are copied; matrices are multiplied as stored (float32, bfloat16 or int8).
    """

    def __init__(self, file: ModelFile) -> None:
        self.config = GanConfig.from_dict(file.config)
        weights.check_tensors(file, self.config.tensor_shapes())
        self.weights = file.weights
        self.network = FeedForwardEngine(self.config.generator, file.tensors, file.weights, "generator.")

    @property
    def latent_size(self) -> int:
        """Numbers in z."""
        return self.config.generator.input[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a picture: channels, height, width."""
        return self.config.generator.output

    @property
    def packed_bytes(self) -> int:
        """Memory of the packed weights."""
        return self.network.packed_bytes

    def coins(self, seed: int, indices: Any) -> Coins:
        """The coins of some sequences, by their indices."""
        return Coins(check_seed(seed), indices)

    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        index: int = 0,
        num_samples: int = 1,
        temperature: float = 1.0,
        z: npt.ArrayLike | None = None,
        threads: int | None = None,
        coins: Coins | None = None,
        probabilities: bool = False,
    ) -> SampledPictures:
        """Draw `n` pictures for a batch of independent sequences.

        A picture takes two coins for each number of z, given or not, and one for each of its points, drawn or not: so
        chunks are the whole, and another z or temperature changes nothing else.

        Parameters
        ----------
        n : int in [1, 2^20]
        seed : int in [0, 2^64)
        index : int >= 0
            Sequence b of the batch uses the coins of sample ``index + b``, whatever the batch it is computed in.
        num_samples : int > 0
            B, the size of the batch.
        temperature : float >= 0
            What the generator says of a point is divided by it before the point is drawn; 0 takes what is more likely.
            1 for a model that draws nothing (``config.draw == "threshold"``).
        z : array [shape=(D,), (n, D) or (B, n, D)], float, optional
            Given instead of drawn.
        threads : int > 0, optional
            Threads for a batch; default: all cores. The result does not depend on it.
        coins : optional
            The `Coins` object of an earlier call, to go on from it.
        probabilities : bool
            Return these too.

        Raises
        ------
        ValueError
            An argument is out of its range; the message names it.
        """
        n = check_integer("n", n, 1, MAX_PICTURES)
        batch = check_integer("num_samples", num_samples, 1, 1 << 20)
        index = check_integer("index", index, 0, (1 << 64) - batch)
        seed = check_seed(seed)
        drawing = self.check_temperature(temperature)
        given = None if z is None else self.latent(z, batch, n)
        if coins is None:
            coins = Coins(seed, range(index, index + batch))
        points = int(np.prod(self.shape))
        pictures = np.empty((batch, n, points), np.uint8)
        made_of = np.empty((batch, n, self.latent_size), np.float32)
        likely = np.empty((batch, n, points), np.float32) if probabilities else None
        scale = 1.0 / temperature if drawing else 1.0
        for first in range(0, n, _BLOCK):
            part = slice(first, min(first + _BLOCK, n))
            count = part.stop - first
            chance = np.empty((batch, count, points))
            for k in range(count):
                drawn = coins.normals(1, self.latent_size)[:, 0]
                made_of[:, first + k] = drawn if given is None else given[:, first + k]
                chance[:, k] = coins.take(1, points)[:, 0]
            rows = made_of[:, part].reshape(-1, self.latent_size)
            says = self.network.run(rows, last_scale=scale, threads=threads).reshape(batch, count, points)
            pictures[:, part] = chance < says if drawing else says > 0.5
            if likely is not None:
                likely[:, part] = says
        whole = (batch, n, *self.shape)
        return SampledPictures(pictures.reshape(whole), made_of, None if likely is None else likely.reshape(whole))

    def check_temperature(self, temperature: Any) -> bool:
        """Whether points are drawn at this temperature."""
        sampler_options(temperature, None, 1.0, 1)
        if self.config.draw == "threshold" and temperature not in (0, 1):
            raise ValueError(f"temperature: expected 1 for a model that draws nothing, got {temperature}")
        return self.config.draw == "bernoulli" and temperature > 0

    def latent(self, z: npt.ArrayLike, batch: int, n: int) -> npt.NDArray[np.float32]:
        """z for every picture [shape=(batch, n, D)], checked."""
        size = self.latent_size
        values = np.asarray(z)
        if values.dtype.kind not in "fiu":
            raise TypeError(f"z: expected numbers, got dtype {values.dtype}")
        if values.shape not in ((size,), (n, size), (batch, n, size)):
            raise ValueError(
                f"z: expected shape ({size},), ({n}, {size}) or ({batch}, {n}, {size}), got {values.shape}"
            )
        single = np.ascontiguousarray(np.broadcast_to(values, (batch, n, size)), dtype=np.float32)
        if not np.isfinite(single).all():
            raise ValueError(f"z: expected finite numbers, got {single[~np.isfinite(single)][0]}")
        return single
