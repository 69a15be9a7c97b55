"""Piano-roll frames: the keys that sound at every step, and the files that the classic sets of them come in."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from musicgen_ext.encodings.base import whole
from musicgen_ext.errors import WeightsError
from musicgen_ext.files import shown
from musicgen_ext.midi import DRUM_CHANNEL, Score
from musicgen_ext.tables import whole_number

Rolls = npt.NDArray[np.uint8]

TICKS_PER_QUARTER = 480
SPLITS = ("train", "valid", "test")
_LIMITS = {"lowest_pitch": (0, 127), "keys": (1, 128), "steps_per_quarter": (1, 96)}


@dataclass(frozen=True)
class PianoRollFrames:
    """A piece as frames of 0 and 1, one for every step: which keys sound.

    A frame does not say where a note begins: a key that sounds in consecutive frames is one long note when it is read
    back. Notes of all tracks lie in one picture; drums are left out.

    Attributes
    ----------
    lowest_pitch : int, 0 to 127
        The pitch of key 0.
    keys : int, 1 to 128
        Notes outside the pitches ``lowest_pitch`` to ``lowest_pitch + keys - 1`` are left out.
    steps_per_quarter : int, 1 to 96
        Frames in a quarter note; a divisor of 480.

    Raises
    ------
    ValueError, TypeError
        An option out of its range, by name.
    """

    name: ClassVar[str] = "piano_roll_frames"

    lowest_pitch: int = 21
    keys: int = 88
    steps_per_quarter: int = 4

    def __post_init__(self) -> None:
        for option, (low, high) in _LIMITS.items():
            whole_number(option, getattr(self, option), low, high)
        if self.lowest_pitch + self.keys > 128:
            raise ValueError(
                f"keys: expected at most {128 - self.lowest_pitch} above pitch {self.lowest_pitch}, got {self.keys}"
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
        known = {"name", *_LIMITS}
        unknown = sorted(str(key) for key in set(encoding) - known)
        if unknown:
            raise WeightsError(f"encoding: expected keys out of {sorted(known)}, got unknown {unknown}")
        options = {
            option: whole(encoding, option, low, high, getattr(cls, option)) for option, (low, high) in _LIMITS.items()
        }
        try:
            return cls(**options)
        except ValueError as e:
            raise WeightsError(f"encoding.{e}") from None

    def encode(self, score: Score, issues: list[str] | None = None) -> Rolls:
        """The frames of a score, from its beginning to the end of its last note.

        Parameters
        ----------
        score : Score
        issues : list of str, optional
            What the frames could not hold is added here, in words.

        Returns
        -------
        frames : np.ndarray [shape=(n_frames, keys)], uint8
            0 and 1. Starts are moved to the nearest step, and so are ends, but a note keeps one step.
        """
        notes = score.notes
        drums = notes["channel"] == DRUM_CHANNEL
        outside = (notes["pitch"] < self.lowest_pitch) | (notes["pitch"] >= self.lowest_pitch + self.keys)
        kept = notes[~drums & ~outside]
        starts = self._steps(kept["start"], score)
        ends = np.maximum(self._steps(kept["start"] + kept["duration"], score), starts + 1)
        frames = np.zeros((int(ends.max(initial=0)), self.keys), np.uint8)
        keys = kept["pitch"].astype(np.int64) - self.lowest_pitch
        for start, end, key in zip(starts.tolist(), ends.tolist(), keys.tolist(), strict=True):
            frames[start:end, key] = 1
        if issues is not None:
            for count, what in (
                (int(drums.sum()), "notes of drums are left out"),
                (int((outside & ~drums).sum()), "notes outside the keys are left out"),
            ):
                if count:
                    issues.append(f"{count} {what}")
        return frames

    def decode(
        self,
        frames: npt.ArrayLike,
        *,
        tempo: float = 120.0,
        velocity: int = 80,
        provenance: Mapping[str, Any] | None = None,
    ) -> Score:
        """The score of frames: one track, 480 ticks a quarter; a key that sounds on is one note.

        Parameters
        ----------
        frames : array [shape=(n_frames, keys)]
            0 is silence, anything else is not.
        tempo : float
            Quarters a minute.
        velocity : int
        provenance : mapping, optional

        Raises
        ------
        ValueError
            Another shape, or a tempo that a MIDI file cannot hold.
        """
        roll = self.checked(frames)
        if not 4 <= tempo <= 60_000_000:
            raise ValueError(f"tempo: expected 4 to 60000000 quarters a minute, got {tempo}")
        around = np.zeros((len(roll) + 2, self.keys), np.int8)
        around[1:-1] = roll
        change = np.diff(around, axis=0).T
        keys, starts = np.nonzero(change == 1)  # in the same order, key by key, as
        ends = np.nonzero(change == -1)[1]
        order = np.lexsort((keys, starts))
        ticks = TICKS_PER_QUARTER // self.steps_per_quarter
        return Score(
            {
                "start": starts[order] * ticks,
                "duration": (ends - starts)[order] * ticks,
                "pitch": self.lowest_pitch + keys[order],
                "velocity": np.full(len(order), velocity),
            },
            tempos=[(0, round(60e6 / tempo))],
            provenance=provenance,
        )

    def checked(self, frames: npt.ArrayLike, what: str = "frames") -> Rolls:
        """Frames as uint8 of 0 and 1, or a ValueError that names what is wrong with them."""
        roll = np.asarray(frames)
        if roll.ndim != 2 or roll.shape[1] != self.keys:
            raise ValueError(f"{what}: expected shape (n_frames, {self.keys}), got {roll.shape}")
        if roll.dtype.kind not in "biuf":
            raise TypeError(f"{what}: expected numbers, got dtype {roll.dtype}")
        sounding: Rolls = (roll != 0).astype(np.uint8)
        return sounding

    def _steps(self, ticks: npt.NDArray[np.int64], score: Score) -> npt.NDArray[np.int64]:
        """The nearest steps; halves go up."""
        division = score.ticks_per_quarter
        nearest: npt.NDArray[np.int64] = (2 * ticks * self.steps_per_quarter + division) // (2 * division)
        return nearest


def read_frames(path: str | os.PathLike[str]) -> dict[str, list[Rolls]]:
    """A set of pieces as frames of 88 keys, in the splits ``train``, ``valid`` and ``test``.

    Parameters
    ----------
    path : path
        An ``.npz`` file: for every split the array ``split``, uint8 (steps, 11), eight keys to a byte (key 0 is the
        highest bit of the first, MIDI pitch 21), and ``split_offsets``, where its pieces begin, then the number of
        steps.

    Raises
    ------
    ValueError
        The file has another form; the message names it and the array.
    OSError
        The file cannot be read.
    """
    out = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, zipfile.BadZipFile, EOFError) as e:
        raise ValueError(f"{shown(path)}: expected an .npz file of frames: {e}") from None
    for split in SPLITS:
        bits, offsets = arrays.get(split), arrays.get(f"{split}_offsets")
        if bits is None or bits.dtype != np.uint8 or bits.ndim != 2 or bits.shape[1] != 11:
            got = "none" if bits is None else f"{bits.dtype}, shape {bits.shape}"
            raise ValueError(f"{shown(path)}: {split}: expected uint8, shape (steps, 11), got {got}")
        steps = len(bits)
        if (
            offsets is None
            or offsets.ndim != 1
            or offsets.dtype.kind not in "iu"
            or len(offsets) < 1
            or offsets[0] != 0
            or offsets[-1] != steps
            or (np.diff(offsets.astype(np.int64)) <= 0).any()
        ):
            raise ValueError(f"{shown(path)}: {split}_offsets: expected whole numbers that grow from 0 to {steps}")
        roll = np.unpackbits(bits, axis=1)
        out[split] = [roll[a:b] for a, b in pairwise(offsets)]
    return out
