"""Notes as numbers to learn from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from musicgen_ext import files
from musicgen_ext.encodings import NoteTuples
from musicgen_ext.encodings.note_tuples import Floats
from musicgen_ext.likeness import in_one_key
from musicgen_ext.train.datasets import Item
from musicgen_ext.train.rolls import scores_of


@dataclass(frozen=True)
class TupleCorpus:
    """Pieces as rows of numbers (n, 4), in three splits; `notes` of them at a time are learnt from."""

    train: Sequence[Floats]
    valid: Sequence[Floats]
    test: Sequence[Floats]
    note_tuples: NoteTuples
    notes: int = 32

    variants: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def encoding(self) -> dict[str, Any]:
        """What a model file says the numbers mean."""
        return self.note_tuples.to_dict()


def note_tuples(
    path: str | os.PathLike[str],
    *,
    collection: str | None = None,
    one_key: bool = False,
    notes: int = 32,
    steps_per_quarter: int = 4,
    longest: int = 4,
    lowest_pitch: int = 36,
    num_pitches: int = 64,
    **options: Any,
) -> TupleCorpus:
    """The notes of a folder of MIDI files, or of a corpus by name.

    Parameters
    ----------
    path, collection, one_key, options
        As for `musicgen_ext.train.rolls.roll_bars`.
    notes : int
        How many notes in a row are learnt from; shorter pieces are left out.
    steps_per_quarter, longest, lowest_pitch, num_pitches
        See `musicgen_ext.encodings.NoteTuples`.

    Raises
    ------
    ValueError
        No piece has so many notes, or an argument is out of its range.
    """
    if isinstance(notes, bool) or not isinstance(notes, int) or not 2 <= notes <= 4096:
        raise ValueError(f"data.notes: expected an integer in [2, 4096], got {notes!r}")
    encoding = NoteTuples(steps_per_quarter, longest, lowest_pitch, num_pitches)
    scores = scores_of(path, collection, **options)

    def rows(items: Sequence[Item]) -> list[Floats]:
        each = [encoding.encode(in_one_key(item.score) if one_key else item.score) for item in items]
        return [piece for piece in each if len(piece) >= notes]

    corpus = TupleCorpus(rows(scores.train), rows(scores.valid), rows(scores.test), encoding, notes)
    if not corpus.train or not corpus.valid:
        raise ValueError(f"{files.shown(path)}: expected pieces of {notes} notes in train and valid, got none")
    return corpus
