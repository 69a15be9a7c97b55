"""What all encodings have in common: options that a model file keeps, tokens out of a score, a score out of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core
from musicgen_ext.errors import WeightsError
from musicgen_ext.midi import Score

Ints = npt.NDArray[np.int32]


class Encoding:
    """A way to write a score as whole numbers, and to read them back.

    A subclass is a frozen dataclass of its options, with the native encoder made from them. `decode` undoes `encode`
    exactly on the grid that the encoding defines: ``encode(decode(tokens))`` gives `tokens` again wherever `encode`
    made them, and ``decode(encode(score))`` is the score itself when it lies on that grid.
    """

    name: ClassVar[str]
    """What the JSON form calls this encoding."""

    @property
    def encoder(self) -> _core.Encoder:
        """The native encoder with these options."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        """The options: what was made from them is made again where this is unpickled."""
        return {option.name: self.__dict__[option.name] for option in fields(self)}  # type: ignore[arg-type]

    @property
    def vocab_size(self) -> int:
        """Number of different tokens: they are 0 to `vocab_size` - 1."""
        raise NotImplementedError

    def describe(self, token: int) -> str:
        """What a token means, for people: ``"note_on 60"``."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, with its ``name``: what a model file keeps."""
        raise NotImplementedError

    @classmethod
    def from_dict(cls, encoding: Mapping[str, Any]) -> Self:
        """Build from the JSON form; keys that are missing take their defaults, a mistake is a `WeightsError`."""
        raise NotImplementedError

    def encode(self, score: Score, issues: list[str] | None = None) -> Ints:
        """The tokens of a score.

        Parameters
        ----------
        score : Score
        issues : list of str, optional
            What the encoding could not hold (notes moved to the grid, cut, left out) is added here, in words.

        Returns
        -------
        tokens : np.ndarray [shape=(n,) or (n, slots)], int32

        Raises
        ------
        ValueError
            A note or event that a MIDI file cannot hold, or a score that this encoding cannot say at all.
        """
        tokens, lost = self.encoder.encode(*score._tables())
        if issues is not None:
            issues += lost
        return tokens

    def decode(self, tokens: npt.ArrayLike) -> Score:
        """The score that the tokens mean.

        Parameters
        ----------
        tokens : array-like of int [shape=(n,) or (n, slots)]
            Any tokens of the vocabulary: what makes no sense (an end of a note that does not sound) is left out.

        Returns
        -------
        Score

        Raises
        ------
        ValueError
            A token outside the vocabulary (which, where and its limits), or the wrong shape.
        TypeError
            `tokens` are no integers.
        """
        array = np.asarray(tokens)
        if not np.issubdtype(array.dtype, np.integer) and array.size:
            raise TypeError(f"tokens: expected integers, got {array.dtype}")
        if array.size and not -(2**31) <= int(array.min()) <= int(array.max()) < 2**31:
            raise ValueError(f"tokens: expected 0 to {self.vocab_size - 1}, got {int(array.max())}")
        return Score._of_tables(self.encoder.decode(np.ascontiguousarray(array, np.int32)))


def whole(encoding: Mapping[str, Any], key: str, low: int, high: int, default: int) -> int:
    """An option out of the JSON form that must be an integer in [low, high]."""
    value = encoding.get(key, default)
    if type(value) is not int or not low <= value <= high:
        raise WeightsError(f"encoding.{key}: expected an integer in [{low}, {high}], got {value!r}")
    return value
