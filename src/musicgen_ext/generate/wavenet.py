"""WaveNets: a sample of sound a step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core, weights
from musicgen_ext.architectures import WaveNetConfig
from musicgen_ext.generate.arguments import (
    MAX_MODEL_BYTES,
    Coins,
    Ints,
    check_integer,
    check_seed,
    integers,
    sampler_options,
)

if TYPE_CHECKING:
    from musicgen_ext.weights import ModelFile

MAX_STEPS = 1 << 28  # in one call
MAX_BATCH = 1 << 16
_BLOCK = 1 << 15  # samples of one native call, of those that need more memory than their result


@dataclass(frozen=True)
class SampledSound:
    """What a call of `WaveNetEngine.sample` returns.

    Attributes
    ----------
    tokens : np.ndarray [shape=(B, n)], int32
        0 to ``classes - 1``; of 16 bits, 0 to 65535.
    state : opaque
        Pass it to the next call to go on. Immutable, picklable, valid for this model only.
    log_probs : np.ndarray [shape=(B, n)], float64, or None
        Natural logarithms of the tokens' probabilities at temperature 1.
    logits : np.ndarray [shape=(B, n, rows)], float32, or None
        What the network says of every sample: logits of the classes; or mixture logits, means, log scales.
    """

    tokens: Ints
    state: _core.WaveNetStates
    log_probs: npt.NDArray[np.float64] | None = None
    logits: npt.NDArray[np.float32] | None = None


class WaveNetEngine:
    """WaveNets (`WaveNetConfig`) sampled by the fused native loop. Immutable: share it between threads.

    Parameters
    ----------
    file : weights.ModelFile
        Its tensors are copied; the products of a step use them as stored (float32, bfloat16 or int8).
    """

    def __init__(self, file: ModelFile) -> None:
        self.config = WaveNetConfig.from_dict(file.config)
        weights.check_tensors(file, self.config.tensor_shapes())
        self.weights = file.weights
        needed = sum(array.nbytes for array in file.tensors.values())
        if needed > MAX_MODEL_BYTES:
            raise MemoryError(f"model: expected at most {MAX_MODEL_BYTES} bytes of packed weights, this needs {needed}")
        tensors = {name: np.ascontiguousarray(array) for name, array in file.tensors.items()}
        self._model = _core.WaveNetModel(self.config.to_dict(), tensors, file.weights)

    @property
    def num_tokens(self) -> int:
        """Different values of a sample."""
        return int(self._model.classes)

    @property
    def packed_bytes(self) -> int:
        """Memory of the packed weights."""
        return int(self._model.packed_bytes)

    def start(self, num_samples: int = 1) -> _core.WaveNetStates:
        """The state before the first sample."""
        return self._model.start(check_integer("num_samples", num_samples, 1, MAX_BATCH))

    def coins(self, seed: int, indices: Any) -> Coins:
        """The coins of some sequences, by their indices."""
        return Coins(check_seed(seed), indices)

    def sample(
        self,
        n_steps: int,
        *,
        seed: int = 0,
        index: int = 0,
        num_samples: int = 1,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        forced: npt.ArrayLike | None = None,
        condition: npt.ArrayLike | None = None,
        offset: int = 0,
        threads: int | None = None,
        state: _core.WaveNetStates | None = None,
        coins: Coins | None = None,
        log_probs: bool = False,
        logits: bool = False,
    ) -> SampledSound:
        """Draw `n_steps` samples of sound for a batch of independent sequences, in one native loop without the GIL.

        Parameters
        ----------
        n_steps : int in [1, 2^28]
        seed : int in [0, 2^64)
        index : int >= 0
            Sequence b of the batch uses the coins of sample ``index + b``, whatever the batch it is computed in.
        num_samples : int > 0
            B, the size of the batch.
        temperature : float >= 0
            Logits are divided by it; 0 takes the most likely token (of a mixture: the mean of its heaviest part).
        top_k, top_p : optional
            As for `RecurrentEngine.sample`; for classes only.
        forced : array [shape=(n_steps,) or (B, n_steps)], int, optional
            Tokens that are set instead of drawn; -1 leaves one free.
        condition : array [shape=(F, N) or (B, F, N)], float, optional
            Frames for models that are told something. What the convolution over frames sees beyond them is 0: a part of
            a longer sequence of frames needs its neighbours, too, ``kernel_size // 2`` on both sides.
        offset : int >= 0
            Where in the samples of `condition` this call begins: step t is told of frame
            ``(offset + t) // hop_length``.
        threads : int > 0, optional
            Default: all cores. The result does not depend on it.
        state, coins : optional
            Go on from an earlier call: its state, and the `Coins` object that it used.
        log_probs, logits : bool
            Return these too.

        Raises
        ------
        ValueError
            An argument is out of its range, or there are too few frames; the message names both numbers.
        KeyboardInterrupt
            Ctrl-C ends a call within a few milliseconds.
        """
        n_steps = check_integer("n_steps", n_steps, 1, MAX_STEPS)
        batch = check_integer("num_samples", num_samples, 1, MAX_BATCH)
        index = check_integer("index", index, 0, (1 << 64) - batch)
        options = self.sampler_options(temperature, top_k, top_p)
        workers = os.cpu_count() or 1 if threads is None else check_integer("threads", threads, 1, 1 << 16)
        if state is None:
            state = self.start(batch)
        elif len(state) != batch:
            raise ValueError(f"state: expected one of {batch} sequences (num_samples), got one of {len(state)}")
        if coins is None:
            coins = self.coins(seed, range(index, index + batch))
        told = self._condition(condition, batch, check_integer("offset", offset, 0, 1 << 48), n_steps)
        samples, log_prob_array, logit_array, after = _core.wavenet_sample(
            self._model,
            state,
            n_steps,
            coins.take(n_steps, self._model.coins_per_sample),
            None if forced is None else integers("forced", forced, (batch, n_steps)),
            told,
            offset,
            options,
            workers,
            log_probs,
            logits,
        )
        return SampledSound(samples, after, log_prob_array, logit_array)

    def stream(self, n_steps: int, *, block: int = 1024, **options: Any) -> Iterator[Ints]:
        """The tokens of ``sample(n_steps, …)`` for one sequence, `block` at a time, as they are drawn.

        Yields
        ------
        tokens : np.ndarray [shape=(k,)], int32
            k is `block`, less at the end. Concatenated, the blocks are exactly what `sample` returns.
        """
        n_steps = check_integer("n_steps", n_steps, 1, MAX_STEPS)
        block = check_integer("block", block, 1, MAX_STEPS)
        coins = self.coins(options.pop("seed", 0), [options.pop("index", 0)])
        forced = options.pop("forced", None)
        if forced is not None:
            forced = integers("forced", forced, (1, n_steps))[0]
        offset = check_integer("offset", options.pop("offset", 0), 0, 1 << 48)
        self._condition(options.get("condition"), 1, offset, n_steps)
        return self._stream(n_steps, block, coins, forced, offset, options)

    def _stream(
        self, n_steps: int, block: int, coins: Coins, forced: Ints | None, offset: int, options: dict[str, Any]
    ) -> Iterator[Ints]:
        state = self.start(1)
        for first in range(0, n_steps, block):
            count = min(block, n_steps - first)
            drawn = self.sample(
                count,
                forced=None if forced is None else forced[first : first + count],
                offset=offset + first,
                state=state,
                coins=coins,
                **options,
            )
            state = drawn.state
            yield drawn.tokens[0]

    def log_prob(
        self, tokens: npt.ArrayLike, *, condition: npt.ArrayLike | None = None, threads: int | None = None
    ) -> npt.NDArray[np.float64]:
        """Log-probability of every sample under the model, each given all before it; from the sampling loop.

        Parameters
        ----------
        tokens : array [shape=(n,)], int
        condition
            As for `sample`.

        Returns
        -------
        log_probs : np.ndarray [shape=(n,)], float64
            In nats.
        """
        array = np.asarray(tokens)
        if array.ndim != 1:
            raise ValueError(f"tokens: expected shape (n,), got {array.shape}")
        if not len(array):
            return np.zeros(0)
        forced = self.checked(integers("tokens", array, (1, len(array)))[0])
        out = np.empty(len(forced))
        state = self.start(1)
        coins = self.coins(0, [0])
        for first in range(0, len(forced), _BLOCK):
            part = forced[first : first + _BLOCK]
            drawn = self.sample(
                len(part), forced=part, condition=condition, offset=first, threads=threads, state=state, coins=coins,
                log_probs=True,
            )  # fmt: skip
            state = drawn.state
            assert drawn.log_probs is not None
            out[first : first + len(part)] = drawn.log_probs[0]
        return out

    def checked(self, tokens: Ints, what: str = "tokens") -> Ints:
        """Tokens of sound, none of which may be free."""
        wrong = (tokens < 0) | (tokens >= self.num_tokens)
        if wrong.any():
            at = int(wrong.argmax())
            raise ValueError(f"{what}: expected [0, {self.num_tokens - 1}], got {tokens[at]} at sample {at}")
        return tokens

    def sampler_options(self, temperature: Any, top_k: Any, top_p: Any) -> _core.SamplerOptions:
        """Checked sampling options."""
        options = sampler_options(temperature, top_k, top_p, self.num_tokens)
        if self.config.output.kind != "mu_law":
            for name, value, neutral in (("top_k", top_k, None), ("top_p", top_p, 1)):
                if value != neutral:
                    raise ValueError(
                        f"{name}: expected {neutral} for a model that draws 16 bits from a mixture, got {value}"
                    )
        return options

    def _condition(
        self, condition: npt.ArrayLike | None, batch: int, offset: int, n_steps: int
    ) -> npt.NDArray[np.float32] | None:
        told = self.config.condition
        if told is None:
            if condition is not None:
                raise ValueError(f"condition: expected None for a model without, got shape {np.shape(condition)}")
            return None
        if condition is None:
            raise ValueError(f"condition: expected frames of {told.channels} numbers, got None")
        frames = np.asarray(condition)
        if frames.dtype.kind not in "fiub":
            raise TypeError(f"condition: expected numbers, got dtype {frames.dtype}")
        if frames.ndim not in (2, 3) or (frames.ndim == 3 and len(frames) != batch):
            raise ValueError(f"condition: expected shape (F, N) or ({batch}, F, N), got {frames.shape}")
        if frames.shape[-1] != told.channels:
            raise ValueError(
                f"condition: expected frames of {told.channels} channels, got {frames.shape[-1]} (shape {frames.shape})"
            )
        needed = -(-(offset + n_steps) // told.hop_length)
        if frames.shape[-2] < needed:
            raise ValueError(
                f"condition: expected at least {needed} frames of {told.hop_length} samples for {offset + n_steps} "
                f"samples, got {frames.shape[-2]}"
            )
        single = np.ascontiguousarray(np.broadcast_to(frames, (batch, *frames.shape[-2:])), dtype=np.float32)
        if not np.isfinite(single).all():
            raise ValueError(f"condition: expected finite numbers, got {single[~np.isfinite(single)][0]}")
        return single
