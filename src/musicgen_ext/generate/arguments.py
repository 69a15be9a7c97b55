"""What all engines ask for: coins, and arguments checked by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core

Ints = npt.NDArray[np.int32]

# Tables and packed weights of one model may take this much memory.
MAX_MODEL_BYTES = 8 << 30
FINEST = 1 << 20  # normal numbers are multiples of 1 / this


# More than this is a mistake in an argument, not a piece: 2^24 frames of sixteenths are 48 days of music.
MAX_FRAMES = 1 << 24


@dataclass(frozen=True)
class Sampled:
    """What a call of an engine's `sample` returns.

    Attributes
    ----------
    tokens : np.ndarray [shape=(B, n_frames, F)], int32
        -1 behind a sequence's end.
    lengths : np.ndarray [shape=(B,)], int64
        Frames of every sequence, the one with the stop token included.
    state : opaque
        Pass it to the next call to go on. Immutable, picklable, valid for this model only.
    log_probs : np.ndarray [shape=(B, n_frames, F)], float64, or None
        Natural logarithms of the tokens' probabilities at temperature 1, before any mask.
    logits : np.ndarray [shape=(B, n_frames, F, V)], float32, or None
        -inf beyond a slot's vocabulary.
    """

    tokens: Ints
    lengths: npt.NDArray[np.int64]
    state: Any
    log_probs: npt.NDArray[np.float64] | None = None
    logits: npt.NDArray[np.float32] | None = None


class Coins:
    """Uniform numbers in [0, 1) for one seed and some samples, by their indices.

    Sample `index` of `seed` reads the raw 64-bit words of numpy's ``Philox(key=(seed, index))``, a stream that numpy
    promises to keep; the upper 53 bits of each make one coin. The stream goes on from call to call, so a piece drawn in
    chunks uses the coins of a piece drawn at once.

    Source: J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox 4x64-10).
    """

    def __init__(self, seed: int, indices: Iterable[int]) -> None:
        key = np.empty(2, np.uint64)
        self._streams = []
        for index in indices:
            key[:] = seed, index
            self._streams.append(np.random.Philox(key=key))

    def take(self, n_frames: int, num_slots: int) -> npt.NDArray[np.float64]:
        """The next coins [shape=(B, n_frames, num_slots)]."""
        out = np.empty((len(self._streams), n_frames, num_slots))
        for row, stream in zip(out, self._streams, strict=True):
            words = stream.random_raw(n_frames * num_slots)
            row[:] = ((words >> np.uint64(11)) * 2.0**-53).reshape(n_frames, num_slots)
        return out

    def normals(self, n_frames: int, size: int) -> npt.NDArray[np.float32]:
        """Standard normal numbers out of the next coins, two for each [shape=(B, n_frames, size)], float32.

        Multiples of 2^-20, so that they do not depend on the last digits of a library's logarithm and cosine.

        Source: G. E. P. Box, M. E. Muller, "A note on the generation of random normal deviates", 1958.
        """
        uniform = self.take(n_frames, 2 * size)
        radius = np.sqrt(-2.0 * np.log1p(-uniform[..., :size]))
        drawn = radius * np.cos(2.0 * np.pi * uniform[..., size:])
        return np.asarray(np.rint(drawn * FINEST) / FINEST, np.float32)


def check_integer(name: str, value: Any, low: int, high: int) -> int:
    """`value` as an int in [low, high], or a TypeError or ValueError that names the argument."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected an integer, got {value!r} ({type(value).__name__})")
    if not low <= value <= high:
        raise ValueError(f"{name}: expected an integer in [{low}, {high}], got {value}")
    return int(value)


def check_seed(seed: Any) -> int:
    return check_integer("seed", seed, 0, (1 << 64) - 1)


def sampler_options(temperature: Any, top_k: Any, top_p: Any, most_tokens: int) -> _core.SamplerOptions:
    """Checked sampling options. Comparisons let NaN pass, so each range is asked for from the inside."""
    for name, value in (("temperature", temperature), ("top_p", top_p)):
        if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
            raise TypeError(f"{name}: expected a number, got {value!r} ({type(value).__name__})")
    if not 0.0 <= temperature < float("inf"):
        raise ValueError(f"temperature: expected a finite number >= 0 (0 means greedy), got {temperature}")
    if not 0.0 < top_p <= 1.0:
        raise ValueError(f"top_p: expected a number in (0, 1], got {top_p}")
    k = 0 if top_k is None else check_integer("top_k", top_k, 1, most_tokens)
    return _core.SamplerOptions(float(temperature), k, float(top_p))


def integers(name: str, values: npt.ArrayLike, shape: tuple[int, ...]) -> Ints:
    """An int32 array of this shape; a missing first (batch) axis is repeated."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got dtype {array.dtype}")
    if array.shape not in (shape, shape[1:]):
        raise ValueError(f"{name}: expected shape {shape[1:]} or {shape}, got {array.shape}")
    if array.size and not (int(array.min()) >= -(1 << 31) and int(array.max()) < 1 << 31):
        raise ValueError(f"{name}: expected 32-bit integers, got values in [{array.min()}, {array.max()}]")
    return np.ascontiguousarray(np.broadcast_to(array, shape), dtype=np.int32)


def allowed_tokens(allowed: npt.ArrayLike, n_frames: int, shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """A mask [shape=(1 or n_frames, slots, tokens)] of the tokens that may be drawn; `shape`: its last two axes."""
    mask = np.asarray(allowed)
    if mask.ndim == 2:
        mask = mask[None]
    if mask.dtype not in (np.bool_, np.uint8) or mask.shape not in ((1, *shape), (n_frames, *shape)):
        expected = f"bool, shape {shape}, (1, *{shape}) or ({n_frames}, *{shape})"
        raise ValueError(f"allowed: expected {expected}, got {mask.dtype}, shape {np.shape(allowed)}")
    return np.ascontiguousarray(mask, dtype=np.uint8)
