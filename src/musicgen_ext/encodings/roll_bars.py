"""Bars as pictures: which keys sound at every step, and which begin there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from musicgen_ext.encodings.base import whole
from musicgen_ext.errors import WeightsError
from musicgen_ext.midi import DRUM_CHANNEL, Score
from musicgen_ext.tables import whole_number

Rolls = npt.NDArray[np.uint8]

TICKS_PER_QUARTER = 480
_LIMITS = {"steps_per_quarter": (1, 96), "quarters": (1, 64), "lowest_pitch": (0, 127), "num_pitches": (1, 128)}


@dataclass(frozen=True)
class RollBars:
    """Every bar of a piece as a picture of (channels, steps, pitches), for networks that write a bar at once.

    Channel 0 is 1 where a key sounds; channel 1, with `onsets`, where it begins to. Without onsets two notes of one
    pitch that touch are one. A note that goes on from the bar before sounds at step 0 without an onset. Notes of all
    tracks lie in one picture; drums are left out.

    Attributes
    ----------
    steps_per_quarter : int, 1 to 96
    quarters : int, 1 to 64
        Length of a bar in quarter notes; bars of another length are no pictures.
    lowest_pitch : int, 0 to 127
    num_pitches : int, 1 to 128
        Notes outside the pitches ``lowest_pitch`` to ``lowest_pitch + num_pitches - 1`` are left out.
    onsets : bool

    Raises
    ------
    ValueError, TypeError
        An option out of its range, by name.
    """

    name: ClassVar[str] = "roll_bars"

    steps_per_quarter: int = 4
    quarters: int = 4
    lowest_pitch: int = 36
    num_pitches: int = 48
    onsets: bool = True

    def __post_init__(self) -> None:
        for option, (low, high) in _LIMITS.items():
            whole_number(option, getattr(self, option), low, high)
        if self.lowest_pitch + self.num_pitches > 128:
            raise ValueError(
                f"num_pitches: expected at most {128 - self.lowest_pitch} above pitch {self.lowest_pitch}, "
                f"got {self.num_pitches}"
            )
        if TICKS_PER_QUARTER % self.steps_per_quarter:
            raise ValueError(
                f"steps_per_quarter: expected a divisor of {TICKS_PER_QUARTER}, got {self.steps_per_quarter}"
            )
        if not isinstance(self.onsets, bool):
            raise TypeError(f"onsets: expected True or False, got {self.onsets!r}")

    @property
    def steps(self) -> int:
        """Steps in a bar."""
        return self.steps_per_quarter * self.quarters

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one picture: channels, steps, pitches."""
        return 1 + self.onsets, self.steps, self.num_pitches

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, with its ``name``: what a model file keeps."""
        return {"name": self.name, **asdict(self)}

    @classmethod
    def from_dict(cls, encoding: Mapping[str, Any]) -> Self:
        """Build from the JSON form; keys that are missing take their defaults, a mistake is a `WeightsError`."""
        known = {"name", "onsets", *_LIMITS}
        unknown = sorted(str(key) for key in set(encoding) - known)
        if unknown:
            raise WeightsError(f"encoding: expected keys out of {sorted(known)}, got unknown {unknown}")
        options: dict[str, Any] = {
            option: whole(encoding, option, low, high, getattr(cls, option)) for option, (low, high) in _LIMITS.items()
        }
        try:
            return cls(**options, onsets=encoding.get("onsets", cls.onsets))
        except (ValueError, TypeError) as e:
            raise WeightsError(f"encoding.{e}") from None

    def windows(self, score: Score, issues: list[str] | None = None) -> Rolls:
        """The bars of a score.

        Parameters
        ----------
        score : Score
        issues : list of str, optional
            What the pictures could not hold is added here, in words.

        Returns
        -------
        rolls : np.ndarray [shape=(N, C, T, P)], uint8
            0 and 1. Bars that last `quarters` quarters, in order; without a time signature bars are of 4/4. Starts are
            moved to the nearest step, and so are ends, but a note keeps one step.
        """
        division = score.ticks_per_quarter
        bars = score.bars
        fits = bars["duration"] == division * self.quarters
        notes = score.notes
        drums = notes["channel"] == DRUM_CHANNEL
        outside = (notes["pitch"] < self.lowest_pitch) | (notes["pitch"] >= self.lowest_pitch + self.num_pitches)
        kept = notes[~drums & ~outside]
        rolls = np.zeros((int(fits.sum()), *self.shape), np.uint8)
        starts = _steps(kept["start"], division, self.steps_per_quarter)
        ends = np.maximum(_steps(kept["start"] + kept["duration"], division, self.steps_per_quarter), starts + 1)
        firsts = _steps(bars["start"][fits], division, self.steps_per_quarter)
        pitches = kept["pitch"].astype(np.int64) - self.lowest_pitch
        # Every note meets the bars from that in which it begins to that in which it ends: rarely more than two.
        first_bar = np.searchsorted(firsts + self.steps, starts, side="right")
        last_bar = np.searchsorted(firsts, ends, side="left")
        for note in range(len(kept)):
            for bar in range(int(first_bar[note]), int(last_bar[note])):
                begin, end = int(starts[note] - firsts[bar]), int(ends[note] - firsts[bar])
                rolls[bar, 0, max(begin, 0) : end, pitches[note]] = 1
                if self.onsets and begin >= 0:
                    rolls[bar, 1, begin, pitches[note]] = 1
        if issues is not None:
            for count, what in (
                (int(drums.sum()), "notes of drums are left out"),
                (int((outside & ~drums).sum()), "notes outside the pitches of the pictures are left out"),
                (int((~fits).sum()), f"bars are left out: they do not last {self.quarters} quarters"),
            ):
                if count:
                    issues.append(f"{count} {what}")
        return rolls

    def decode(
        self,
        rolls: npt.ArrayLike,
        *,
        tempo: float = 120.0,
        velocity: int = 80,
        provenance: Mapping[str, Any] | None = None,
    ) -> Score:
        """The score of bars that follow one another.

        Parameters
        ----------
        rolls : array [shape=(N, C, T, P)]
            0 is silence, anything else is not.
        tempo : float
            Quarters a minute.
        velocity : int
        provenance : mapping, optional

        Returns
        -------
        Score
            One track, 480 ticks a quarter. A note begins where its key begins to sound, and where a sounding key has an
            onset; an onset without sound is none.

        Raises
        ------
        ValueError
            Another shape, or a tempo that a MIDI file cannot hold.
        """
        pictures = np.asarray(rolls)
        if pictures.ndim != 4 or pictures.shape[1:] != self.shape:
            raise ValueError(f"rolls: expected shape (N, {', '.join(map(str, self.shape))}), got {pictures.shape}")
        if not 4 <= tempo <= 60_000_000:
            raise ValueError(f"tempo: expected 4 to 60000000 quarters a minute, got {tempo}")
        sounding = (pictures[:, 0] != 0).reshape(-1, self.num_pitches).T  # (P, N * T)
        edges = np.zeros((self.num_pitches, sounding.shape[1] + 1), bool)
        edges[:, :-1] = sounding
        edges[:, 1:] &= ~sounding  # sounds, and did not before
        edges = edges[:, :-1]
        if self.onsets:
            edges |= sounding & (pictures[:, 1] != 0).reshape(-1, self.num_pitches).T
        stops = ~sounding | edges
        notes = []
        for pitch in np.flatnonzero(edges.any(axis=1)).tolist():
            begins = np.flatnonzero(edges[pitch])
            breaks = np.append(np.flatnonzero(stops[pitch]), sounding.shape[1])
            ends = breaks[np.searchsorted(breaks, begins, side="right")]
            notes.append(np.stack([begins, ends - begins, np.full(len(begins), self.lowest_pitch + pitch)], axis=1))
        table = np.concatenate(notes) if notes else np.zeros((0, 3), np.int64)
        ticks = TICKS_PER_QUARTER // self.steps_per_quarter
        order = np.lexsort((table[:, 2], table[:, 0]))
        start, duration, pitches = table[order].T
        columns = {"start": start * ticks, "duration": duration * ticks, "pitch": pitches}
        return Score(
            {**columns, "velocity": np.full(len(table), velocity)},
            tempos=[(0, round(60e6 / tempo))],
            time_signatures=[(0, self.quarters, 4)],
            provenance=provenance,
        )


def _steps(ticks: npt.NDArray[np.int64], division: int, steps_per_quarter: int) -> npt.NDArray[np.int64]:
    """The nearest steps; halves go up."""
    nearest: npt.NDArray[np.int64] = (2 * ticks * steps_per_quarter + division) // (2 * division)
    return nearest
