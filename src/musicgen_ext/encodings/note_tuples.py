"""Notes as four numbers each: how long after the last, how long, how high, how loud."""

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

Floats = npt.NDArray[np.float32]

TICKS_PER_QUARTER = 480
COLUMNS = ("wait", "duration", "pitch", "velocity")
_LIMITS = {"steps_per_quarter": (1, 96), "longest": (1, 64), "lowest_pitch": (0, 127), "num_pitches": (2, 128)}


@dataclass(frozen=True)
class NoteTuples:
    """A note is (time since the last onset, duration, pitch, velocity), each a number in [0, 1].

    Times are in `longest` quarters, pitch from the lowest to the highest, velocity in 127ths. Reading them back, times
    go to the nearest of `steps_per_quarter` steps, and a note lasts at least one; notes at the same time are in order
    of pitch.

    Attributes
    ----------
    steps_per_quarter : int, 1 to 96
    longest : int, 1 to 64
        The longest time, in quarters; longer ones become as long.
    lowest_pitch, num_pitches : int
        Notes outside are left out, and so are drums.
    """

    name: ClassVar[str] = "note_tuples"

    steps_per_quarter: int = 4
    longest: int = 4
    lowest_pitch: int = 36
    num_pitches: int = 64

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

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, with its ``name``: what a model file keeps."""
        return {"name": self.name, **asdict(self)}

    @classmethod
    def from_dict(cls, encoding: Mapping[str, Any]) -> Self:
        """Build from the JSON form; keys that are missing take their defaults, a mistake is a `WeightsError`."""
        unknown = sorted(str(key) for key in set(encoding) - {"name", *_LIMITS})
        if unknown:
            raise WeightsError(f"encoding: expected keys out of {['name', *_LIMITS]}, got unknown {unknown}")
        options = {key: whole(encoding, key, low, high, getattr(cls, key)) for key, (low, high) in _LIMITS.items()}
        try:
            return cls(**options)
        except ValueError as e:
            raise WeightsError(f"encoding.{e}") from None

    def encode(self, score: Score) -> Floats:
        """The notes of all tracks as numbers [shape=(n, 4)], float32, in [0, 1]; the first waits for nothing."""
        notes = score.notes
        inside = (notes["pitch"] >= self.lowest_pitch) & (notes["pitch"] < self.lowest_pitch + self.num_pitches)
        notes = notes[inside & (notes["channel"] != DRUM_CHANNEL)]
        notes = notes[np.lexsort((notes["pitch"], notes["start"]))]
        quarter = score.ticks_per_quarter * self.longest
        rows = np.empty((len(notes), 4), np.float32)
        rows[:, 0] = np.diff(notes["start"], prepend=notes["start"][:1]) / quarter
        rows[:, 1] = notes["duration"] / quarter
        rows[:, 2] = (notes["pitch"] - float(self.lowest_pitch)) / (self.num_pitches - 1)
        rows[:, 3] = notes["velocity"] / 127
        return np.minimum(rows, np.float32(1))

    def ticks(self, rows: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """What numbers mean [shape=(n, 4)]: ticks to wait and to last, pitch, velocity."""
        values = np.asarray(rows, np.float64)
        if values.ndim != 2 or values.shape[1] != 4 or not np.isfinite(values).all():
            raise ValueError(f"rows: expected finite numbers of shape (n, 4), got shape {values.shape}")
        values = np.clip(values, 0, 1)
        step = TICKS_PER_QUARTER // self.steps_per_quarter
        steps = self.longest * self.steps_per_quarter
        out = np.empty(values.shape, np.int64)
        out[:, 0] = np.floor(values[:, 0] * steps + 0.5) * step
        out[:, 1] = np.maximum(np.floor(values[:, 1] * steps + 0.5), 1) * step
        out[:, 2] = self.lowest_pitch + np.floor(values[:, 2] * (self.num_pitches - 1) + 0.5)
        out[:, 3] = np.maximum(np.floor(values[:, 3] * 127 + 0.5), 1)
        return out

    def decode(
        self, rows: npt.ArrayLike, *, tempo: float = 120.0, provenance: Mapping[str, Any] | None = None
    ) -> Score:
        """The score that numbers (n, 4) mean, on one track, 480 ticks a quarter."""
        meant = self.ticks(rows)
        columns = {"start": np.cumsum(meant[:, 0]), "duration": meant[:, 1], "pitch": meant[:, 2]}
        return Score({**columns, "velocity": meant[:, 3]}, tempos=[(0, round(60e6 / tempo))], provenance=provenance)
