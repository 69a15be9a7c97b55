"""Recurrent models: a frame of tokens a step."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core, weights
from musicgen_ext.architectures import RecurrentConfig
from musicgen_ext.generate.arguments import (
    MAX_FRAMES,
    MAX_MODEL_BYTES,
    Coins,
    Ints,
    Sampled,
    allowed_tokens,
    check_integer,
    check_seed,
    integers,
    sampler_options,
)

if TYPE_CHECKING:
    from musicgen_ext.weights import ModelFile


class RecurrentEngine:
    """Recurrent models (`RecurrentConfig`) sampled by the fused native loop. Immutable: share it between threads.

    Parameters
    ----------
    file : weights.ModelFile
        Its tensors are copied; the products of a step use them as stored (float32, bfloat16 or int8).
    """

    def __init__(self, file: ModelFile) -> None:
        self.config = RecurrentConfig.from_dict(file.config)
        weights.check_tensors(file, self.config.tensor_shapes())
        self.weights = file.weights
        self._check_memory(file)
        tensors = {name: np.ascontiguousarray(array) for name, array in file.tensors.items()}
        self._model = _core.RecurrentModel(self.config.to_dict(), tensors, file.weights)

    @property
    def num_slots(self) -> int:
        """Tokens in a frame."""
        return len(self.config.slots)

    @property
    def most_tokens(self) -> int:
        """Size of the largest slot's vocabulary: the last axis of masks and logits."""
        return max(slot.size for slot in self.config.slots)

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the features that the caller must supply."""
        return self.config.given

    @property
    def packed_bytes(self) -> int:
        """Memory of the packed weights and tables."""
        return int(self._model.packed_bytes)

    def start(self, num_samples: int = 1) -> _core.RecurrentStates:
        """The state before the first frame."""
        return self._model.start(num_samples)

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
        given: Mapping[str, npt.ArrayLike] | None = None,
        vector: npt.ArrayLike | None = None,
        allowed: npt.ArrayLike | None = None,
        stop: tuple[int, int] | None = None,
        threads: int | None = None,
        state: _core.RecurrentStates | None = None,
        coins: Coins | None = None,
        log_probs: bool = False,
        logits: bool = False,
    ) -> Sampled:
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
            Logits are divided by it; 0 takes the most likely token (the first of equals).
        top_k : int > 0 or None
            Keep the k most likely tokens of every step (ties by index).
        top_p : float in (0, 1]
            Keep the fewest most likely tokens whose probabilities reach this sum (Holtzman et al. 2020).
        forced : array [shape=(n_frames, F) or (B, n_frames, F)], int, optional
            Tokens that are set instead of drawn; -1 leaves a token free. Prompts and constraints.
        given : dict of arrays [shape=(n_frames,) or (B, n_frames)], int
            The features that the model expects from the caller, by name.
        vector : array [shape=(D,) or (B, D)], float
            The condition vector, for models that have one.
        allowed : array [shape=(F, V), (1, F, V) or (n_frames, F, V)], bool, optional
            Tokens that may be drawn.
        stop : (slot, token), optional
            A sequence ends with the frame in which this token is drawn.
        threads : int > 0, optional
            Threads for a batch; default: all cores. The result does not depend on it.
        state, coins : optional
            Go on from an earlier call: its state and the `Coins` object that it used.
        log_probs, logits : bool
            Return these too.

        Raises
        ------
        ValueError
            An argument is out of its range, or no token is allowed at some step; the message names it.
        KeyboardInterrupt
            Ctrl-C ends a call within a few milliseconds.
        """
        n_frames = check_integer("n_frames", n_frames, 1, MAX_FRAMES)
        batch = check_integer("num_samples", num_samples, 1, 1 << 20)
        index = check_integer("index", index, 0, (1 << 64) - batch)
        seed = check_seed(seed)
        options = sampler_options(temperature, top_k, top_p, self.most_tokens)
        workers = os.cpu_count() or 1 if threads is None else check_integer("threads", threads, 1, 1 << 16)
        if state is None:
            state = self.start(batch)
        elif len(state) != batch:
            raise ValueError(f"state: expected one of {batch} sequences (num_samples), got one of {len(state)}")
        if coins is None:
            coins = Coins(seed, range(index, index + batch))
        shape = (batch, n_frames, self.num_slots)
        tokens, lengths, log_prob_array, logit_array, after = _core.sample(
            self._model,
            state,
            n_frames,
            coins.take(n_frames, self.num_slots),
            None if forced is None else integers("forced", forced, shape),
            self._given(given, batch, n_frames),
            self._vector(vector, batch),
            None if allowed is None else allowed_tokens(allowed, n_frames, (self.num_slots, self.most_tokens)),
            (-1, -1) if stop is None else self._stop(stop),
            options,
            workers,
            log_probs,
            logits,
        )
        return Sampled(tokens, lengths, after, log_prob_array, logit_array)

    def stream(
        self,
        n_frames: int,
        *,
        block: int = 1,
        seed: int = 0,
        index: int = 0,
        forced: npt.ArrayLike | None = None,
        given: Mapping[str, npt.ArrayLike] | None = None,
        allowed: npt.ArrayLike | None = None,
        stop: tuple[int, int] | None = None,
        **options: Any,
    ) -> Iterator[Ints]:
        """The tokens of ``sample(n_frames, …)`` for one sequence, `block` frames at a time, as they are drawn.

        Yields
        ------
        tokens : np.ndarray [shape=(k, F)], int32
            k is `block`, less at the end. Concatenated, the blocks are exactly what `sample` returns.
        """
        n_frames = check_integer("n_frames", n_frames, 1, MAX_FRAMES)
        block = check_integer("block", block, 1, MAX_FRAMES)
        forced_rows = None if forced is None else integers("forced", forced, (1, n_frames, self.num_slots))[0]
        given_rows = {name: ids[0] for name, ids in self._named_given(given, 1, n_frames).items()}
        mask = None if allowed is None else allowed_tokens(allowed, n_frames, (self.num_slots, self.most_tokens))
        return self._stream(
            n_frames, block, Coins(check_seed(seed), [index]), forced_rows, given_rows, mask, stop, options
        )

    def _stream(
        self,
        n_frames: int,
        block: int,
        coins: Coins,
        forced: Ints | None,
        given: dict[str, Ints],
        allowed: npt.NDArray[np.uint8] | None,
        stop: tuple[int, int] | None,
        options: dict[str, Any],
    ) -> Iterator[Ints]:
        state = self.start(1)
        for first in range(0, n_frames, block):
            part = slice(first, min(first + block, n_frames))
            drawn = self.sample(
                part.stop - first,
                forced=None if forced is None else forced[part],
                given={name: ids[part] for name, ids in given.items()},
                allowed=allowed if allowed is None or len(allowed) == 1 else allowed[part],
                stop=stop,
                state=state,
                coins=coins,
                **options,
            )
            state = drawn.state
            tokens = drawn.tokens[0, : drawn.lengths[0]]
            yield tokens
            if stop is not None and len(tokens) and tokens[-1, stop[0]] == stop[1]:
                return

    def log_prob(
        self,
        tokens: npt.ArrayLike,
        *,
        given: Mapping[str, npt.ArrayLike] | None = None,
        vector: npt.ArrayLike | None = None,
    ) -> npt.NDArray[np.float64]:
        """Log-probability of every token under the model, each given all tokens before it; from the sampling loop.

        Parameters
        ----------
        tokens : array [shape=(n_frames, F)], int
        given, vector
            As for `sample`.

        Returns
        -------
        log_probs : np.ndarray [shape=(n_frames, F)], float64
            In nats; at most 0 up to rounding.
        """
        grid = np.asarray(tokens)
        if grid.ndim != 2 or grid.shape[1] != self.num_slots:
            raise ValueError(f"tokens: expected shape (n_frames, {self.num_slots}), got {grid.shape}")
        if len(grid) == 0:
            return np.zeros((0, self.num_slots))
        forced = integers("tokens", grid, (1, len(grid), self.num_slots))
        sizes = [slot.size for slot in self.config.slots]
        if (forced < 0).any() or (forced >= sizes).any():
            frame, slot = np.argwhere((forced[0] < 0) | (forced[0] >= sizes))[0]
            raise ValueError(
                f"tokens: expected [0, {sizes[slot] - 1}] in slot {self.config.slots[slot].name!r}, "
                f"got {forced[0, frame, slot]} at frame {frame}"
            )
        result = self.sample(len(grid), forced=forced, given=given, vector=vector, threads=1, log_probs=True)
        assert result.log_probs is not None
        log_probs: npt.NDArray[np.float64] = result.log_probs[0]
        return log_probs

    def _given(self, given: Mapping[str, npt.ArrayLike] | None, batch: int, n_frames: int) -> Ints:
        out = np.empty((batch, n_frames, len(self.given)), np.int32)
        for i, ids in enumerate(self._named_given(given, batch, n_frames).values()):
            out[:, :, i] = ids
        return out

    def _named_given(self, given: Mapping[str, npt.ArrayLike] | None, batch: int, n_frames: int) -> dict[str, Ints]:
        given = {} if given is None else given
        if set(given) != set(self.given):
            raise ValueError(f"given: expected the features {list(self.given)}, got {sorted(given)}")
        return {name: integers(f"given[{name!r}]", given[name], (batch, n_frames)) for name in self.given}

    def _vector(self, vector: npt.ArrayLike | None, batch: int) -> npt.NDArray[np.float32]:
        size = self.config.vector_size
        if vector is None:
            if size:
                raise ValueError(f"vector: expected {size} numbers, got None")
            return np.empty((batch, 0), np.float32)
        values = np.asarray(vector, dtype=np.float32)
        if values.shape not in ((size,), (batch, size)):
            raise ValueError(f"vector: expected shape ({size},) or ({batch}, {size}), got {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError(f"vector: expected finite numbers, got {values[~np.isfinite(values)][0]}")
        return np.ascontiguousarray(np.broadcast_to(values, (batch, size)))

    def _stop(self, stop: tuple[int, int]) -> tuple[int, int]:
        slot = check_integer("stop slot", stop[0], 0, self.num_slots - 1)
        return slot, check_integer("stop token", stop[1], 0, self.config.slots[slot].size - 1)

    def _check_memory(self, file: ModelFile) -> None:
        gate_rows = self.config.gates * (-(-self.config.hidden_size // 16) * 16)
        tables = sum(self.config.feature_size(name) for name, _ in self.config.trunk) * gate_rows * 4
        needed = tables + sum(array.nbytes for array in file.tensors.values())
        if needed > MAX_MODEL_BYTES:
            raise MemoryError(f"model: expected at most {MAX_MODEL_BYTES} bytes of packed weights, this needs {needed}")
