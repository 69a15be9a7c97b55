"""Transformers: one token a step, through a cache of what the layers have seen."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core, weights
from musicgen_ext.architectures import AttentionConfig
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


class AttentionEngine:
    """Transformers (`AttentionConfig`) sampled by the fused native loop. Immutable: share it between threads.

    A frame is one token. Keys and values of the last `context` tokens are cached, in float32 or, for bfloat16 and int8
    weights, in bfloat16. Forced tokens that follow one another go through the layers together, which changes the time
    it takes and nothing else.

    Parameters
    ----------
    file : weights.ModelFile
        Its tensors are copied; the products of a step use them as stored (float32, bfloat16 or int8).
    """

    def __init__(self, file: ModelFile) -> None:
        self.config = AttentionConfig.from_dict(file.config)
        weights.check_tensors(file, self.config.tensor_shapes())
        self.weights = file.weights
        c = self.config  # beside the tensors: embeddings as float32, and a bias for every distance
        needed = sum(array.nbytes for array in file.tensors.values())
        needed += 4 * (c.vocab_size * c.width + 2 * c.num_layers * c.num_heads * c.context)
        if needed > MAX_MODEL_BYTES:
            raise MemoryError(f"model: expected at most {MAX_MODEL_BYTES} bytes of packed weights, this needs {needed}")
        tensors = {name: np.ascontiguousarray(array) for name, array in file.tensors.items()}
        config = {**self.config.to_dict(), "buckets": self.config.buckets()}
        self._model = _core.AttentionModel(config, tensors, file.weights)

    @property
    def num_slots(self) -> int:
        """Tokens in a frame: one."""
        return 1

    @property
    def most_tokens(self) -> int:
        """Size of the vocabulary: the last axis of masks and logits."""
        return self.config.vocab_size

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the features that the caller must supply: none."""
        return ()

    @property
    def packed_bytes(self) -> int:
        """Memory of the packed weights and tables."""
        return int(self._model.packed_bytes)

    def start(self, num_samples: int = 1, *, memory: npt.ArrayLike | None = None) -> _core.AttentionStates:
        """The state before the first token.

        Parameters
        ----------
        num_samples : int > 0
        memory : array [shape=(m,) or (num_samples, m)], int, optional
            Tokens that the decoder is told of, for models that have an encoder: the same for all sequences, or a row
            each, with -1 behind the end of shorter ones. None or empty: it is told nothing.
        """
        return self._model.start(check_integer("num_samples", num_samples, 1, 1 << 20), self._memory(memory))

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
        memory: npt.ArrayLike | None = None,
        allowed: npt.ArrayLike | None = None,
        stop: tuple[int, int] | None = None,
        threads: int | None = None,
        state: _core.AttentionStates | None = None,
        coins: Coins | None = None,
        log_probs: bool = False,
        logits: bool = False,
    ) -> Sampled:
        """Draw `n_frames` tokens for a batch of independent sequences, in one native loop without the GIL.

        Arguments and result as for `RecurrentEngine.sample`, with one slot (F = 1); but `memory` as for `start`, which
        a `state` already knows.

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
        if given:
            raise ValueError(f"given: expected none, got {sorted(given)}")
        if state is None:
            state = self.start(batch, memory=memory)
        elif len(state) != batch:
            raise ValueError(f"state: expected one of {batch} sequences (num_samples), got one of {len(state)}")
        elif memory is not None:
            raise ValueError("memory: expected None with a state, which knows its own, got an array")
        if coins is None:
            coins = Coins(seed, range(index, index + batch))
        tokens, lengths, log_prob_array, logit_array, after = _core.attention_sample(
            self._model,
            state,
            n_frames,
            coins.take(n_frames, 1),
            None if forced is None else integers("forced", forced, (batch, n_frames, 1)),
            None if allowed is None else allowed_tokens(allowed, n_frames, (1, self.most_tokens)),
            -1 if stop is None else self._stop(stop),
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
        memory: npt.ArrayLike | None = None,
        allowed: npt.ArrayLike | None = None,
        stop: tuple[int, int] | None = None,
        **options: Any,
    ) -> Iterator[Ints]:
        """The tokens of ``sample(n_frames, …)`` for one sequence, `block` at a time, as they are drawn.

        Every block copies the cache once: for a large model, blocks of a few tokens are quicker than single ones.

        Yields
        ------
        tokens : np.ndarray [shape=(k, 1)], int32
            k is `block`, less at the end. Concatenated, the blocks are exactly what `sample` returns.
        """
        n_frames = check_integer("n_frames", n_frames, 1, MAX_FRAMES)
        block = check_integer("block", block, 1, MAX_FRAMES)
        forced_rows = None if forced is None else integers("forced", forced, (1, n_frames, 1))[0]
        mask = None if allowed is None else allowed_tokens(allowed, n_frames, (1, self.most_tokens))
        state = self.start(1, memory=memory)
        return self._stream(n_frames, block, Coins(check_seed(seed), [index]), forced_rows, mask, stop, state, options)

    def _stream(
        self,
        n_frames: int,
        block: int,
        coins: Coins,
        forced: Ints | None,
        allowed: npt.NDArray[np.uint8] | None,
        stop: tuple[int, int] | None,
        state: _core.AttentionStates,
        options: dict[str, Any],
    ) -> Iterator[Ints]:
        for first in range(0, n_frames, block):
            part = slice(first, min(first + block, n_frames))
            drawn = self.sample(
                part.stop - first,
                forced=None if forced is None else forced[part],
                allowed=allowed if allowed is None or len(allowed) == 1 else allowed[part],
                stop=stop,
                state=state,
                coins=coins,
                **options,
            )
            state = drawn.state
            tokens = drawn.tokens[0, : drawn.lengths[0]]
            yield tokens
            if stop is not None and len(tokens) and tokens[-1, 0] == stop[1]:
                return

    def log_prob(self, tokens: npt.ArrayLike, *, memory: npt.ArrayLike | None = None) -> npt.NDArray[np.float64]:
        """Log-probability of every token under the model, each given all tokens before it; from the sampling loop.

        Parameters
        ----------
        tokens : array [shape=(n_frames, 1)], int
        memory
            As for `start`.

        Returns
        -------
        log_probs : np.ndarray [shape=(n_frames, 1)], float64
            In nats; at most 0 up to rounding.
        """
        column = np.asarray(tokens)
        if column.ndim != 2 or column.shape[1] != 1:
            raise ValueError(f"tokens: expected shape (n_frames, 1), got {column.shape}")
        if len(column) == 0:
            return np.zeros((0, 1))
        forced = integers("tokens", column, (1, len(column), 1))
        wrong = (forced < 0) | (forced >= self.most_tokens)
        if wrong.any():
            frame = int(np.argwhere(wrong)[0, 1])
            raise ValueError(
                f"tokens: expected [0, {self.most_tokens - 1}], got {forced[0, frame, 0]} at frame {frame}"
            )
        result = self.sample(len(column), forced=forced, memory=memory, threads=1, log_probs=True)
        assert result.log_probs is not None
        log_probs: npt.NDArray[np.float64] = result.log_probs[0]
        return log_probs

    def _memory(self, memory: npt.ArrayLike | None) -> list[Ints]:
        """A row of tokens for all sequences, or one each, without what fills them up."""
        if memory is None:
            return []
        if self.config.memory is None:
            raise ValueError("memory: expected None for a model without an encoder, got an array")
        array = np.asarray(memory)
        if array.size == 0:
            return []
        if array.ndim not in (1, 2):
            raise ValueError(f"memory: expected shape (m,) or (num_samples, m), got {array.shape}")
        rows = integers("memory", array, array.shape).reshape(-1, array.shape[-1])
        lengths = [int((row != -1).nonzero()[0].max(initial=-1)) + 1 for row in rows]
        return [np.ascontiguousarray(row[:length]) for row, length in zip(rows, lengths, strict=True)]

    def _stop(self, stop: tuple[int, int]) -> int:
        check_integer("stop slot", stop[0], 0, 0)
        return check_integer("stop token", stop[1], 0, self.most_tokens - 1)
