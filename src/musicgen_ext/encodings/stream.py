"""What the encodings that write a score as one stream of tokens share: options, vocabulary, JSON form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from functools import cached_property
from typing import Any, Self

from musicgen_ext import _core
from musicgen_ext.encodings.base import Encoding
from musicgen_ext.errors import WeightsError


class TokenStream(Encoding):
    """A frozen dataclass of options: its fields are the keys of the JSON form.

    Where ``end`` is true, the last token of the vocabulary is the end of a piece. It follows the last token of an
    encoded score; a model may also begin with it, or be filled up with it: `decode` skips the ends before the first
    other token, and leaves out what follows the next one. There are no other special tokens.
    """

    def __post_init__(self) -> None:
        self._check()

    def _check(self) -> None:
        """Refuse options out of range: ``option: expected …, got …``."""
        raise NotImplementedError

    def _make_encoder(self) -> _core.Encoder:
        raise NotImplementedError

    def _make_vocabulary(self) -> list[str]:
        raise NotImplementedError

    @cached_property
    def encoder(self) -> _core.Encoder:
        return self._make_encoder()

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """What every token means, in order."""
        return tuple(self._make_vocabulary())

    @property
    def vocab_size(self) -> int:
        return len(self.vocabulary)

    @property
    def end_token(self) -> int | None:
        """The token that ends a piece, if there is one."""
        return self.vocab_size - 1 if getattr(self, "end", False) else None

    def describe(self, token: int) -> str:
        if not 0 <= token < self.vocab_size:
            raise ValueError(f"token: expected 0 to {self.vocab_size - 1}, got {token}")
        return self.vocabulary[token]

    def to_dict(self) -> dict[str, Any]:
        options = {option.name: getattr(self, option.name) for option in self._options()}
        return {"name": self.name, **{k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}}

    @classmethod
    def from_dict(cls, encoding: Mapping[str, Any]) -> Self:
        if encoding.get("name") != cls.name:
            raise WeightsError(f"encoding.name: expected {cls.name!r}, got {encoding.get('name')!r}")
        known = {"name", *(option.name for option in cls._options())}
        unknown = sorted(set(encoding) - known)
        if unknown:
            raise WeightsError(f"encoding: expected keys out of {sorted(known)}, got unknown {unknown}")
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in encoding.items() if k != "name"}
        try:
            return cls(**given)
        except (TypeError, ValueError) as error:
            raise WeightsError(f"encoding.{error}") from None

    @classmethod
    def _options(cls) -> tuple[Field[Any], ...]:
        return fields(cls)  # type: ignore[arg-type]

    def __getstate__(self) -> dict[str, Any]:
        return {option.name: getattr(self, option.name) for option in self._options()}  # without the native encoder


def check_whole(name: str, value: Any, low: int, high: int) -> None:
    if type(value) is not int:
        raise TypeError(f"{name}: expected an integer in [{low}, {high}], got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name}: expected an integer in [{low}, {high}], got {value!r}")


def check_truth(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected true or false, got {value!r}")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: expected one of {list(choices)}, got {value!r}")


def check_tracks(tracks: Any) -> None:
    """A choice of tracks: None for all of them, or indices in ascending order."""
    if tracks is None:
        return
    if not isinstance(tracks, tuple) or any(type(track) is not int for track in tracks):
        raise TypeError(f"tracks: expected None (all tracks) or a tuple of indices, got {tracks!r}")
    if not tracks or list(tracks) != sorted(set(tracks)) or not 0 <= tracks[0] <= tracks[-1] < 65_535:
        raise ValueError(f"tracks: expected different indices below 65535 in ascending order, got {tracks!r}")
