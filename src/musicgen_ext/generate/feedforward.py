"""Feed-forward networks: numbers in, numbers out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core
from musicgen_ext.architectures import FeedForwardConfig
from musicgen_ext.errors import WeightsError
from musicgen_ext.generate.arguments import MAX_MODEL_BYTES, check_integer


class FeedForwardEngine:
    """A feed-forward network run by the native loop. Immutable: share it between threads; it can be pickled.

    The bits of a result depend on its row of the input alone: not on the instruction set, the batch or the threads.

    Parameters
    ----------
    config : FeedForwardConfig
        Without norms (`FeedForwardConfig.folded`).
    tensors : mapping of str to np.ndarray
        A model file's, checked (`musicgen_ext.weights.check_tensors`); they are copied.
    precision : {"float32", "bfloat16", "int8"}
        How the matrices are stored, and multiplied; int8 with scales made for every row of the input.
    prefix : str
        What the names of this network's tensors begin with.
    """

    def __init__(
        self, config: FeedForwardConfig, tensors: Mapping[str, npt.NDArray[Any]], precision: str, prefix: str = ""
    ) -> None:
        if config != config.folded:
            raise WeightsError("config: expected layers with norm 'none' (exporting folds them), got 'batch'")
        own = {
            name.removeprefix(prefix): np.ascontiguousarray(array)
            for name, array in tensors.items()
            if name.startswith(prefix)
        }
        needed = sum(array.nbytes for array in own.values())
        if needed > MAX_MODEL_BYTES:
            raise MemoryError(f"model: expected at most {MAX_MODEL_BYTES} bytes of packed weights, this needs {needed}")
        self.config = config
        self._made_of = config, own, precision
        self._shape = config.input
        self._model = _core.FeedForwardModel(config.to_dict(), own, precision)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made_of

    @property
    def packed_bytes(self) -> int:
        """Memory of the packed weights."""
        return int(self._model.packed_bytes)

    def run(self, x: npt.ArrayLike, *, last_scale: float = 1.0, threads: int | None = None) -> npt.NDArray[np.float32]:
        """What comes out for a batch of inputs.

        Parameters
        ----------
        x : array [shape=(B, *config.input)], float
        last_scale : float
            The sums of the last layer are multiplied by it before its activation: the inverse of a temperature.
        threads : int > 0, optional
            Threads for a batch; default: all cores. The result does not depend on it.

        Returns
        -------
        y : np.ndarray [shape=(B, *config.output)], float32

        Raises
        ------
        ValueError
            Another shape, no rows, or numbers that are not finite.
        """
        rows = np.ascontiguousarray(x, dtype=np.float32)
        if rows.shape[1:] != self._shape or not len(rows):
            raise ValueError(f"x: expected shape (B, {', '.join(map(str, self._shape))}), got {np.shape(x)}")
        if not np.isfinite(rows).all():
            raise ValueError(f"x: expected finite numbers, got {rows[~np.isfinite(rows)][0]}")
        if not np.isfinite(last_scale):
            raise ValueError(f"last_scale: expected a finite number, got {last_scale}")
        workers = os.cpu_count() or 1 if threads is None else check_integer("threads", threads, 1, 1 << 16)
        return self._model.run(rows, float(last_scale), workers)
