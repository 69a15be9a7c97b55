"""How much of some music is copied out of other music: windows of notes that are the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from musicgen_ext.hashing import Hashes
from musicgen_ext.melodies import lines, windows
from musicgen_ext.midi import Score


@dataclass(frozen=True)
class Copying:
    """Windows of successive notes, and the share of them that other music has too.

    ``windows``: how many there are; ``exact``: the share whose pitches are found elsewhere; ``transposed``: the share
    whose intervals are. NaN where there is no window.
    """

    windows: int
    exact: float
    transposed: float


def copying(scores: Iterable[Score], training: Iterable[Score], *, notes: int = 8) -> Copying:
    """The share of windows of `notes` successive notes of `scores` that occur in `training`, too.

    A window is part of one line, the highest notes of one track (`musicgen_ext.melodies.lines`); drums have none. Only
    pitches are compared, no rhythms: music of small steps shares windows by chance, so the number wants another beside
    it, that of music which is known to be no copy.

    Parameters
    ----------
    scores, training : iterable of Score
    notes : int >= 2
        Length of a window.

    Raises
    ------
    ValueError
        `notes` is less than 2.
    """
    if notes < 2:
        raise ValueError(f"notes: expected an integer >= 2, got {notes}")
    ours, theirs = list(scores), list(training)
    shares = {}
    count = 0
    for transposed in (False, True):
        here, there = (_windows(music, notes, transposed) for music in (ours, theirs))
        count = len(here)
        shares[transposed] = float(np.isin(here, there).mean()) if count else float("nan")
    return Copying(count, shares[False], shares[True])


def _windows(scores: Iterable[Score], notes: int, transposed: bool) -> Hashes:
    found = [windows(line, notes, transposed=transposed) for score in scores for line in lines(score)]
    return np.concatenate([np.zeros(0, np.uint64), *found])
