"""Recurrent generators of numbers: a row a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core, weights
from musicgen_ext.architectures import CRnnGanConfig
from musicgen_ext.generate.arguments import MAX_FRAMES, Coins, check_integer, check_seed

if TYPE_CHECKING:
    from musicgen_ext.weights import ModelFile

Floats = npt.NDArray[np.float32]


class CRnnGanEngine:
    """The generator of a `CRnnGanConfig`, run by the native loop. Immutable: share it between threads.

    Parameters
    ----------
    file : weights.ModelFile
        Its tensors are copied; products use them as stored (float32, bfloat16 or int8).
    """

    def __init__(self, file: ModelFile) -> None:
        self.config = CRnnGanConfig.from_dict(file.config)
        weights.check_tensors(file, self.config.tensor_shapes())
        self.weights = file.weights
        tensors = {name: np.ascontiguousarray(array) for name, array in file.tensors.items()}
        self._model = _core.TupleModel(self.config.to_dict(), tensors, file.weights)

    @property
    def packed_bytes(self) -> int:
        """Memory of the packed weights."""
        return int(self._model.packed_bytes)

    def start(self) -> Floats:
        """The state before the first row: zeros, (2 * num_layers * hidden_size + outputs,)."""
        return np.zeros(2 * self.config.num_layers * self.config.hidden_size + self.config.outputs, np.float32)

    def coins(self, seed: int, index: int = 0) -> Coins:
        """The coins of a sequence."""
        return Coins(check_seed(seed), [index])

    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        index: int = 0,
        temperature: float = 1.0,
        noise: npt.ArrayLike | None = None,
        state: Floats | None = None,
        coins: Coins | None = None,
    ) -> tuple[Floats, Floats]:
        """Draw `n` rows of one sequence.

        Parameters
        ----------
        n : int in [1, 2^24]
        seed, index : int
            The sequence uses the coins of sample `index` of `seed`.
        temperature : float >= 0
            Standard deviation of the noise; 0: none.
        noise : array [shape=(n, config.noise)], float, optional
            Given instead of drawn.
        state, coins : optional
            Go on from an earlier call: the state that it returned and the `Coins` object that it used.

        Returns
        -------
        rows : np.ndarray [shape=(n, config.outputs)], float32 in (0, 1)
        state : np.ndarray

        Raises
        ------
        ValueError
            An argument is out of its range; the message names it.
        """
        n = check_integer("n", n, 1, MAX_FRAMES)
        index = check_integer("index", index, 0, (1 << 64) - 1)
        if not 0 <= temperature < float("inf"):
            raise ValueError(f"temperature: expected a finite number >= 0, got {temperature}")
        coins = self.coins(seed, index) if coins is None else coins
        if noise is None:
            heard = np.empty((n, self.config.noise), np.float32)
            for row in heard:  # row by row: chunks are the whole
                row[:] = coins.normals(1, self.config.noise)[0, 0] * np.float32(temperature)
        else:
            heard = np.ascontiguousarray(noise, np.float32)
            if heard.shape != (n, self.config.noise) or not np.isfinite(heard).all():
                raise ValueError(
                    f"noise: expected finite numbers of shape ({n}, {self.config.noise}), got shape {heard.shape}"
                )
        before = self.start() if state is None else np.ascontiguousarray(state, np.float32)
        return self._model.run(heard, before)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("CRnnGanEngine: expected its model to be pickled, which makes the engine anew")
