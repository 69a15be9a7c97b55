"""Some tracks of a score as tokens, given others: a melody over chords, an accompaniment of a melody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from musicgen_ext import _core
from musicgen_ext.encodings.base import Encoding, Ints
from musicgen_ext.encodings.performance import Performance
from musicgen_ext.encodings.stream import check_choice
from musicgen_ext.errors import WeightsError
from musicgen_ext.midi import Score

CONDITIONS = ("chords", "melody")


@dataclass(frozen=True)
class Told(Encoding):
    """The tracks that `music` writes, for a model that is told those that `told` writes.

    Both are `Performance` encodings of steps of a quarter note, the same for both, without velocities: a place in one
    is a place in the other.

    Attributes
    ----------
    music : Performance
        What the model writes.
    told : Performance
        What it is told.
    condition : "chords" or "melody"
        What the model calls that.

    Raises
    ------
    WeightsError
        The two do not fit together.
    """

    name: ClassVar[str] = "told"

    music: Performance
    told: Performance
    condition: str = "melody"

    def __post_init__(self) -> None:
        try:
            check_choice("condition", self.condition, CONDITIONS)
        except ValueError as error:
            raise WeightsError(f"encoding.{error}") from None
        if self.music.steps_per_beat is None or self.music.steps_per_beat != self.told.steps_per_beat:
            got = f"{self.music.steps_per_beat} and {self.told.steps_per_beat}"
            raise WeightsError(f"encoding.steps_per_beat: expected the same number in music and told, got {got}")

    @property
    def encoder(self) -> _core.Encoder:
        return self.music.encoder

    @property
    def vocab_size(self) -> int:
        return self.music.vocab_size

    @property
    def end_token(self) -> int | None:
        """The token that ends a piece, if there is one."""
        return self.music.end_token

    def describe(self, token: int) -> str:
        return self.music.describe(token)

    def tell(self, score: Score, issues: list[str] | None = None) -> Ints:
        """The tokens of what a model is told, out of a score that has it on its own tracks."""
        return self.told.encode(score, issues)

    def tell_all(self, score: Score, issues: list[str] | None = None) -> Ints:
        """The same out of a score that has nothing else, on any tracks."""
        return replace(self.told, tracks=None).encode(score, issues)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "music": self.music.to_dict(),
            "told": self.told.to_dict(),
            "condition": self.condition,
        }

    @classmethod
    def from_dict(cls, encoding: Mapping[str, Any]) -> Told:
        unknown = sorted(set(encoding) - {"name", "music", "told", "condition"})
        if unknown:
            raise WeightsError(f"encoding: expected keys out of music, told, condition, got unknown {unknown}")
        parts = {}
        for key in ("music", "told"):
            value = encoding.get(key)
            if not isinstance(value, Mapping):
                raise WeightsError(f"encoding.{key}: expected the JSON form of a performance encoding, got {value!r}")
            parts[key] = Performance.from_dict(value)
        return cls(parts["music"], parts["told"], encoding.get("condition", "melody"))
