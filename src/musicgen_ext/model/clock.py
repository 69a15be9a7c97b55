"""How far music has come, token by token: where a length in bars, beats or seconds ends."""

from __future__ import annotations

import abc

import numpy as np
import numpy.typing as npt

from musicgen_ext.encodings import Bars
from musicgen_ext.encodings.stream import TokenStream
from musicgen_ext.timing import DEFAULT_TEMPO

Ints = npt.NDArray[np.int32]


class Clock(abc.ABC):
    """Tokens in, time out.

    Attributes
    ----------
    now : int
        The latest tick that the music has come to.
    limit : int or None
        The tick at which the length ends, as soon as that is reached.
    """

    def __init__(self, target: tuple[float, str] | None = None) -> None:
        self.now = 0
        self.limit: int | None = None
        self.target = target

    @abc.abstractmethod
    def push(self, tokens: Ints) -> int:
        """How many of the tokens are needed to reach the length; all of them, if they do not."""


def clock_of(encoding: TokenStream, target: tuple[float, str] | None = None) -> Clock:
    """A clock for the tokens of an encoding, which stops at a length: a number and its unit.

    Raises
    ------
    ValueError
        A part of a bar, where a bar can have any length.
    """
    return _BarClock(encoding, target) if isinstance(encoding, Bars) else _EvenClock(encoding, target)


class _EvenClock(Clock):
    """Every token takes its own time, and the tempo is always the same: `Performance`, `PitchSequence`."""

    def __init__(self, encoding: TokenStream, target: tuple[float, str] | None) -> None:
        super().__init__(target)
        notes = [meaning.startswith(("pitch", "note_on")) for meaning in encoding.vocabulary]
        note = notes.index(True)
        if "time_shift 1" in encoding.vocabulary:
            shift = encoding.vocabulary.index("time_shift 1")
            step = int(encoding.decode([shift, note]).notes["start"][0])
            words = [meaning.partition("time_shift ")[2] for meaning in encoding.vocabulary]
            self._ticks = step * np.array([int(word or 0) for word in words])
        else:
            self._ticks = int(encoding.decode([note, note]).notes["start"][1]) * np.array(notes)
        self._end: int | None = None
        if target is not None:
            number, unit = target
            score = encoding.decode(np.zeros(0, np.int32))
            self._end = int(
                score.to_ticks(number) if unit == "s" else score.from_beats(number * (4 if unit == "bars" else 1))
            )

    def push(self, tokens: Ints) -> int:
        times = self.now + np.cumsum(self._ticks[tokens])
        used = len(tokens)
        if self._end is not None and self.limit is None and used and times[-1] >= self._end:
            used = int(np.searchsorted(times, self._end)) + 1
            self.limit = self._end
        self.now = int(times[used - 1]) if used else self.now
        return used


class _BarClock(Clock):
    """`Bars`: positions in bars of any metre, and tempos. It reads the tokens as the decoder does."""

    def __init__(self, encoding: Bars, target: tuple[float, str] | None) -> None:
        super().__init__(target)
        self._step = encoding.decode(np.zeros(0, np.int32)).ticks_per_quarter // encoding.steps_per_beat
        self._quarter = self._step * encoding.steps_per_beat
        self._lengths = [4 * self._quarter * n // d for n, d in map(_parsed, encoding.time_signatures)]
        self._tempos = encoding.microseconds_per_quarter
        kinds = [meaning.partition(" ")[0] for meaning in encoding.vocabulary]
        self._first = {kind: kinds.index(kind) for kind in dict.fromkeys(kinds)}
        self._kinds = [kind if kind in ("bar", "time_signature", "position", "tempo") else "" for kind in kinds]
        self._bar = self._lengths[encoding.time_signatures.index("4/4")]
        self._seconds, self._tempo = 0.0, DEFAULT_TEMPO
        self._begin = self._here = self._bars = 0
        self._last = ""
        if target is not None and target[1] == "bars" and target[0] != int(target[0]):
            raise ValueError(f"length: expected whole bars, got {target[0]:g}")

    def push(self, tokens: Ints) -> int:
        for i, token in enumerate(tokens.tolist()):
            kind = self._kinds[token]
            if kind == "bar":
                if self._bars:
                    self._begin = self._here if self._last == "position" else self._begin + self._bar
                self._here = self._begin
                self._bars += 1
            elif kind == "time_signature":
                self._bar = self._lengths[token - self._first[kind]]
            elif kind == "position":
                self._here = self._begin + self._step * (token - self._first[kind])
            elif kind == "tempo":
                self._tempo = self._tempos[token - self._first[kind]]
            self._last = kind
            if (kind == "bar" or self._here > self.now) and self._arrived():
                return i + 1
        return len(tokens)

    def _arrived(self) -> bool:
        """Move on to here; whether the length is reached with that."""
        number, unit = self.target or (0.0, "")
        per_tick = self._tempo * 1e-6 / self._quarter
        before, self.now = self.now, max(self.now, self._here)
        seconds, self._seconds = self._seconds, self._seconds + (self.now - before) * per_tick
        if unit == "bars" and self._bars > number:
            self.limit = self.now
        elif unit == "beats" and self.now >= (end := round(number * self._quarter)):
            self.limit = end
        elif unit == "s" and self._seconds >= number:
            self.limit = before + round((number - seconds) / per_tick)
        return self.limit is not None


def _parsed(signature: str) -> tuple[int, int]:
    numerator, denominator = signature.split("/")
    return int(numerator), int(denominator)
