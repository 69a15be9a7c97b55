"""Bars as pictures to learn from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from musicgen_ext import files
from musicgen_ext.encodings import RollBars
from musicgen_ext.encodings.roll_bars import Rolls
from musicgen_ext.likeness import in_one_key
from musicgen_ext.train.datasets import Item, Scores, collection, midi_folder


@dataclass(frozen=True)
class RollCorpus:
    """Pieces as pictures of their bars, in three splits.

    Attributes
    ----------
    train, valid, test : sequence of np.ndarray [shape=(N, C, T, P)], uint8
        A piece each.
    roll_bars : RollBars
    transpose : int
        A training bar is moved by up to so many semitones, where it stays inside the picture.
    """

    train: Sequence[Rolls]
    valid: Sequence[Rolls]
    test: Sequence[Rolls]
    roll_bars: RollBars
    transpose: int = 0
    issues: Sequence[str] = field(default=(), compare=False)

    variants: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def encoding(self) -> dict[str, Any]:
        """What a model file says the pictures mean."""
        return self.roll_bars.to_dict()

    def draw(self, bar: Rolls, rng: np.random.Generator) -> Rolls:
        """A bar as a step learns it: moved up or down."""
        keys = np.flatnonzero(bar.any(axis=(0, 1)))
        if not self.transpose or not len(keys):
            return bar
        low = max(-self.transpose, -int(keys[0]))
        high = min(self.transpose, bar.shape[-1] - 1 - int(keys[-1]))
        return np.roll(bar, int(rng.integers(low, high + 1)), axis=-1)


def roll_bars(
    path: str | os.PathLike[str],
    *,
    collection: str | None = None,
    one_key: bool = False,
    transpose: int = 0,
    steps_per_quarter: int = 4,
    quarters: int = 4,
    lowest_pitch: int = 36,
    num_pitches: int = 48,
    onsets: bool = True,
    **options: Any,
) -> RollCorpus:
    """The bars of a folder of MIDI files, or of a corpus by name.

    Parameters
    ----------
    path : path
    collection : str, optional
        A name of `musicgen_ext.train.datasets.collection`; None: a folder of MIDI files.
    one_key : bool
        Move every piece by its first key signature to that of C major (or A minor); pieces without one stay.
    transpose : int
        See `RollCorpus`.
    steps_per_quarter, quarters, lowest_pitch, num_pitches, onsets
        See `musicgen_ext.encodings.RollBars`.
    options
        As of `musicgen_ext.train.datasets.midi_folder` or `collection`.

    Raises
    ------
    ValueError
        No piece has a bar that is such a picture, or an argument is out of its range.
    """
    if isinstance(transpose, bool) or not isinstance(transpose, int) or not 0 <= transpose <= 48:
        raise ValueError(f"data.transpose: expected an integer in [0, 48], got {transpose!r}")
    encoding = RollBars(steps_per_quarter, quarters, lowest_pitch, num_pitches, onsets)
    return rolls_of(scores_of(path, collection, **options), encoding, one_key=one_key, transpose=transpose, source=path)


def scores_of(path: str | os.PathLike[str], name: str | None, **options: Any) -> Scores:
    """A corpus by name, or else a folder of MIDI files."""
    return midi_folder(path, **options) if name is None else collection(name, path, **options)


def rolls_of(
    scores: Scores, encoding: RollBars, *, one_key: bool = False, transpose: int = 0, source: Any = "scores"
) -> RollCorpus:
    """The bars of scores that are read already; arguments as for `roll_bars`."""
    issues: list[str] = []

    def pictures(items: Sequence[Item]) -> list[Rolls]:
        each = []
        for item in items:
            lost: list[str] = []
            bars = encoding.windows(in_one_key(item.score) if one_key else item.score, lost)
            issues.extend(f"{item.name}: {issue}" for issue in lost)
            if bars.any():
                each.append(bars)
        return each

    corpus = RollCorpus(
        pictures(scores.train), pictures(scores.valid), pictures(scores.test), encoding, transpose, tuple(issues)
    )
    if not corpus.train or not corpus.valid:
        raise ValueError(
            f"{files.shown(source)}: expected bars of {encoding.quarters} quarters in train and valid, got none"
            + (f" ({issues[0]})" if issues else "")
        )
    return corpus
