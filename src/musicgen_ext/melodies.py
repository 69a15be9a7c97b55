"""Lines of notes: what of a score is a melody, and windows of it that do not depend on key or tempo."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from musicgen_ext.hashing import Hashes, of_rows
from musicgen_ext.midi import DRUM_CHANNEL, Score

Ints = npt.NDArray[np.int64]


def melody(score: Score) -> Ints:
    """Pitches of the highest notes of a piece (drums left out), one for every time at which notes begin, in order."""
    return _highest(score.notes[score.notes["channel"] != DRUM_CHANNEL])


def lines(score: Score) -> list[Ints]:
    """The `melody` of every track on its own; tracks without notes, and drums, are left out."""
    notes = score.notes[score.notes["channel"] != DRUM_CHANNEL]
    return [_highest(notes[notes["track"] == track]) for track in np.unique(notes["track"])]


def windows(pitches: Ints, length: int, *, transposed: bool) -> Hashes:
    """A number for every window of `length` successive notes [shape=(n - length + 1,)], equal for equal windows.

    With `transposed`, windows that are each other's transpositions are equal, too: they are compared by their
    intervals.
    """
    values = np.diff(pitches) if transposed else pitches
    width = length - 1 if transposed else length
    if len(pitches) < length:
        return np.zeros(0, np.uint64)
    return of_rows(np.lib.stride_tricks.sliding_window_view(values, width))


def _highest(notes: npt.NDArray[Any]) -> Ints:
    order = np.lexsort((-notes["pitch"].astype(np.int64), notes["start"]))
    starts = notes["start"][order]
    first = np.ones(len(starts), bool)
    first[1:] = starts[1:] != starts[:-1]
    return notes["pitch"][order][first].astype(np.int64)
