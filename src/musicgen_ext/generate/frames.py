"""Networks over frames: all keys of a step at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core, weights
from musicgen_ext.architectures import FramesConfig
from musicgen_ext.generate.arguments import (
    MAX_MODEL_BYTES,
    Coins,
    check_integer,
    check_seed,
    integers,
    sampler_options,
)

if TYPE_CHECKING:
    from musicgen_ext.weights import ModelFile

MAX_FRAMES = 1 << 24  # in one call, as of other engines
_MOST_COINS = 1 << 22  # of one native call: 32 MiB

Rolls = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SampledFrames:
    """What a call of `FramesEngine.sample` returns.

    Attributes
    ----------
    frames : np.ndarray [shape=(B, n_frames, keys)], uint8
        1 where a key sounds.
    state : opaque
        Pass it to the next call to go on. Immutable, picklable, valid for this model only.
    log_probs : np.ndarray [shape=(B, n_frames)], float64, or None
        Natural logarithms of the frames' probabilities at temperature 1.
    logits : np.ndarray [shape=(B, n_frames, keys)], float32, or None
        Of every key to sound, given the frame's keys below it where the head asks for them.
    """

    frames: Rolls
    state: _core.FramesStates
    log_probs: npt.NDArray[np.float64] | None = None
    logits: npt.NDArray[np.float32] | None = None


class FramesEngine:
    """Networks over frames (`FramesConfig`) sampled by the fused native loop. Immutable: share it between threads.

    Parameters
    ----------
    file : weights.ModelFile
        Its tensors are copied; the products with the trunk's state use them as stored (float32, bfloat16 or int8).
    """

    def __init__(self, file: ModelFile) -> None:
        self.config = FramesConfig.from_dict(file.config)
        weights.check_tensors(file, self.config.tensor_shapes())
        self.weights = file.weights
        needed = 4 * self.config.num_parameters() + sum(array.nbytes for array in file.tensors.values())
        if needed > MAX_MODEL_BYTES:
            raise MemoryError(f"model: expected at most {MAX_MODEL_BYTES} bytes of packed weights, this needs {needed}")
        tensors = {name: np.ascontiguousarray(array) for name, array in file.tensors.items()}
        self._model = _core.FramesModel(self.config.to_dict(), self.config.trunk_channels, tensors, file.weights)

    @property
    def packed_bytes(self) -> int:
        """Memory of the packed weights and tables."""
        return int(self._model.packed_bytes)

    def start(self, num_samples: int = 1) -> _core.FramesStates:
        """The state before the first frame."""
        return self._model.start(check_integer("num_samples", num_samples, 1, 1 << 20))

    def sample(
        self,
        n_frames: int,
        *,
        seed: int = 0,
        index: int = 0,
        num_samples: int = 1,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        forced: npt.ArrayLike | None = None,
        threads: int | None = None,
        state: _core.FramesStates | None = None,
        coins: Coins | None = None,
        log_probs: bool = False,
        logits: bool = False,
    ) -> SampledFrames:
        """Draw `n_frames` frames for a batch of independent sequences, in one native loop without the GIL.

        Parameters
        ----------
        n_frames : int in [1, 2^24]
        seed : int in [0, 2^64)
        index : int >= 0
            Sequence b of the batch uses the coins of sample ``index + b``, whatever the batch it is computed in.
        num_samples : int > 0
            B, the size of the batch.
        temperature : float >= 0
            Logarithms of probabilities are divided by it; 0 takes the most likely. What is drawn is the next note of
            the frame or the stop (head ``"notes"``), or for each key whether it sounds (``"independent"``).
        top_k, top_p : optional
            As for `RecurrentEngine.sample`, of the same draws.
        forced : array [shape=(n_frames, keys) or (B, n_frames, keys)], int, optional
            1: the key sounds, 0: it does not, -1: it is free. Prompts, and keys that are ruled out. Notes are still
            written in ascending order: what a free key does is drawn without knowing of the forced keys above.
        threads : int > 0, optional
            Threads for a batch; default: all cores. The result does not depend on it.
        state, coins : optional
            Go on from an earlier call: its state and the `Coins` object that it used.
        log_probs, logits : bool
            Return these too.

        Raises
        ------
        ValueError
            An argument is out of its range; the message names it.
        KeyboardInterrupt
            Ctrl-C ends a call within a few milliseconds.
        """
        keys = self.config.keys
        n_frames = check_integer("n_frames", n_frames, 1, MAX_FRAMES)
        batch = check_integer("num_samples", num_samples, 1, 1 << 20)
        index = check_integer("index", index, 0, (1 << 64) - batch)
        seed = check_seed(seed)
        options = self.sampler_options(temperature, top_k, top_p)
        workers = os.cpu_count() or 1 if threads is None else check_integer("threads", threads, 1, 1 << 16)
        if state is None:
            state = self.start(batch)
        elif len(state) != batch:
            raise ValueError(f"state: expected one of {batch} sequences (num_samples), got one of {len(state)}")
        if coins is None:
            coins = Coins(seed, range(index, index + batch))
        told = None if forced is None else self._forced(forced, (batch, n_frames, keys))
        frames = np.empty((batch, n_frames, keys), np.uint8)
        log_prob_array = np.empty((batch, n_frames)) if log_probs else None
        logit_array = np.empty((batch, n_frames, keys), np.float32) if logits else None
        block = max(1, _MOST_COINS // (batch * keys))
        for first in range(0, n_frames, block):
            part = slice(first, min(first + block, n_frames))
            count = part.stop - first
            drawn, nats, z, state = _core.frames_sample(
                self._model,
                state,
                count,
                coins.take(count, keys),
                None if told is None else np.ascontiguousarray(told[:, part]),
                options,
                workers,
                log_probs,
                logits,
            )
            frames[:, part] = drawn
            if log_prob_array is not None:
                log_prob_array[:, part] = nats
            if logit_array is not None:
                logit_array[:, part] = z
        return SampledFrames(frames, state, log_prob_array, logit_array)

    def stream(self, n_frames: int, *, block: int = 1, **options: Any) -> Iterator[Rolls]:
        """The frames of ``sample(n_frames, …)`` for one sequence, `block` at a time, as they are drawn.

        Yields
        ------
        frames : np.ndarray [shape=(k, keys)], uint8
            k is `block`, less at the end. Concatenated, the blocks are exactly what `sample` returns.
        """
        n_frames = check_integer("n_frames", n_frames, 1, MAX_FRAMES)
        block = check_integer("block", block, 1, MAX_FRAMES)
        coins = Coins(check_seed(options.pop("seed", 0)), [options.pop("index", 0)])
        forced = options.pop("forced", None)
        if forced is not None:
            forced = self._forced(forced, (1, n_frames, self.config.keys))[0]
        return self._stream(n_frames, block, coins, forced, options)

    def _stream(
        self, n_frames: int, block: int, coins: Coins, forced: npt.NDArray[np.int8] | None, options: dict[str, Any]
    ) -> Iterator[Rolls]:
        state = self.start(1)
        for first in range(0, n_frames, block):
            count = min(block, n_frames - first)
            part = None if forced is None else forced[first : first + count]
            drawn = self.sample(count, forced=part, state=state, coins=coins, **options)
            state = drawn.state
            yield drawn.frames[0]

    def log_prob(self, frames: npt.ArrayLike, *, threads: int | None = None) -> npt.NDArray[np.float64]:
        """Log-probability of every frame of a piece, each given all before it; from the sampling loop.

        Parameters
        ----------
        frames : array [shape=(n_frames, keys)], int
            0 and 1.

        Returns
        -------
        log_probs : np.ndarray [shape=(n_frames,)], float64
            In nats.
        """
        roll = np.asarray(frames)
        if roll.ndim != 2 or roll.shape[1] != self.config.keys:
            raise ValueError(f"frames: expected shape (n_frames, {self.config.keys}), got {roll.shape}")
        if not len(roll):
            return np.zeros(0)
        forced = self._forced(roll, (1, *roll.shape), lowest=0)
        found = self.sample(len(roll), forced=forced, threads=threads, log_probs=True).log_probs
        assert found is not None
        only: npt.NDArray[np.float64] = found[0]
        return only

    def sampler_options(self, temperature: Any, top_k: Any, top_p: Any) -> _core.SamplerOptions:
        """Checked sampling options."""
        return sampler_options(temperature, top_k, top_p, self.config.keys + 1)

    def _forced(self, forced: npt.ArrayLike, shape: tuple[int, ...], lowest: int = -1) -> npt.NDArray[np.int8]:
        values = integers("forced" if lowest else "frames", forced, shape)
        if values.size and not lowest <= int(values.min()) <= int(values.max()) <= 1:
            wrong = values[(values < lowest) | (values > 1)][0]
            raise ValueError(f"{'forced' if lowest else 'frames'}: expected {lowest} to 1, got {wrong}")
        return values.astype(np.int8)
