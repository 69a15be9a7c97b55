"""Some tracks of a score as tokens, given others: a melody over chords, an accompaniment of a melody."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from musicgen_ext import _core
from musicgen_ext.encodings.base import Encoding, Ints
from musicgen_ext.encodings.performance import Performance
from musicgen_ext.encodings.stream import check_choice
from musicgen_ext.errors import WeightsError
from musicgen_ext.midi import Score

CONDITIONS = ("chords", "melody")
CHORDS = {
    "": (0, 4, 7),
    "m": (0, 3, 7),
    "7": (0, 4, 7, 10),
    "m7": (0, 3, 7, 10),
    "maj7": (0, 4, 7, 11),
    "dim": (0, 3, 6),
    "aug": (0, 4, 8),
}
"""What may follow a chord's root, and the semitones above it."""
_CHORD = re.compile(r"([A-G])([#b]?)(.*)")
_ROOTS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_LOWEST_ROOT = 36


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

    def together(self, music: Score, tokens: Ints) -> Score:
        """What `music` is decoded from, with what was told beside it on a track of its own."""
        other = self.told.decode(tokens)
        notes = other.notes.copy()
        if self.told.tracks is None or self.music.tracks is None or self.told.tracks[0] == self.music.tracks[0]:
            notes["track"] = len(music.tracks)
        both = music.copy()
        both.notes = np.concatenate([music.notes, notes])
        return both

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


def chords_score(symbols: str) -> Score:
    """Block chords out of symbols: ``"C G7 Am:2 F:2"``.

    Each has four quarter notes, or as many as stand behind its colon; ``-`` is a rest. Roots lie from C2 (36) to B2,
    the other tones above them.

    Raises
    ------
    ValueError
        A symbol that is none; the message names it.
    """
    notes, beat = [], 0.0
    for symbol in symbols.split():
        name, _, beats = symbol.partition(":")
        found = _CHORD.fullmatch(name)
        if name != "-" and (found is None or found[3] not in CHORDS):
            raise ValueError(f"expected a root A to G, # or b, and one of {list(CHORDS)}, got {symbol!r}")
        try:
            length = float(beats or 4)
        except ValueError:
            length = 0.0
        if not 0 < length <= 1024:
            raise ValueError(f"expected quarter notes above 0 behind the colon, got {symbol!r}")
        start, end = round(480 * beat), round(480 * (beat + length))
        if found is not None:
            root = _LOWEST_ROOT + (_ROOTS[found[1]] + {"": 0, "#": 1, "b": -1}[found[2]]) % 12
            notes += [(start, end - start, root + step, 80) for step in CHORDS[found[3]]]
        beat += length
    if not notes:
        raise ValueError(f"expected chords, got {symbols!r}")
    return Score(notes, ticks_per_quarter=480)
