"""Scores some tracks of which are to be foretold, given others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from musicgen_ext import files
from musicgen_ext.encodings import Performance, Told
from musicgen_ext.midi import Score
from musicgen_ext.train import datasets
from musicgen_ext.train.data import Corpus, Piece
from musicgen_ext.train.splits import SIMILARITY
from musicgen_ext.train.tasks.attention import MEMORY


def told(
    path: str | os.PathLike[str],
    *,
    tracks: Sequence[int],
    told: Sequence[int],
    condition: str = "melody",
    collection: str | None = None,
    steps_per_beat: int = 4,
    max_shift: int = 16,
    longest: int = 1024,
    longest_told: int = 512,
    transpose: int = 5,
    **options: Any,
) -> Corpus:
    """MIDI files whose tracks `tracks` are written given their tracks `told`.

    Training moves both by the same interval. Pieces that lack one of the two, or have more tokens than `longest` and
    `longest_told`, are left out. Variants for evaluation: ``"told another"``, where every piece is told what belongs to
    the next one, and ``"told nothing"``: a model that listens foretells worse then.

    Parameters
    ----------
    path : path
        A folder of MIDI files or a ZIP archive of them; with `collection`, that corpus's file or folder.
    tracks, told : list of int
        Indices of tracks.
    condition : "chords" or "melody"
        What the model calls what it is told.
    steps_per_beat, max_shift : int
        Of both encodings; see `musicgen_ext.encodings.Performance`.
    transpose : int, 0 to 24
        Semitones that a piece is moved up or down at most in training.
    options
        Those of `musicgen_ext.train.datasets.midi_folder`, or of the collection.

    Raises
    ------
    ValueError
        Too few pieces have both, or an option is out of its range.
    """
    if type(transpose) is not int or not 0 <= transpose <= 24:
        raise ValueError(f"transpose: expected an integer in [0, 24], got {transpose!r}")

    def performance(which: Sequence[int]) -> Performance:
        return Performance(
            steps_per_beat=steps_per_beat, max_shift=max_shift, velocity_bins=0, sustain=False, tracks=tuple(which)
        )

    encoding = Told(performance(tracks), performance(told), condition)
    if collection is None:
        scores = datasets.midi_folder(path, **options)
    else:
        scores = datasets.collection(collection, path, **{"similarity": SIMILARITY, **options})
    failures = list(scores.failures)
    sources: dict[str, Score] = {}

    def written(name: str, score: Score) -> Piece:
        return Piece(name, encoding.encode(score)[:, None], {MEMORY: encoding.tell(score)})

    def pieces(items: Sequence[datasets.Item]) -> list[Piece]:
        found = []
        for item in items:
            piece = written(item.name, item.score)
            count, count_told = len(piece.tokens), len(piece.given[MEMORY])
            if not 1 < count <= longest or not 1 < count_told <= longest_told:
                failures.append((item.name, f"expected 2 to {longest} tokens and 2 to {longest_told} of what is told, "
                                            f"got {count} and {count_told}"))  # fmt: skip
                continue
            sources[item.name] = item.score
            found.append(piece)
        return found

    def draw(piece: Piece, rng: np.random.Generator) -> Piece:
        score = sources[piece.name]
        low, high = int(score.notes["pitch"].min()), int(score.notes["pitch"].max())
        interval = int(rng.integers(max(-transpose, -low), min(transpose, 127 - high) + 1))
        return written(piece.name, score.transpose(interval)) if interval else piece

    train, valid, test = (pieces(part) for part in (scores.train, scores.valid, scores.test))
    if not train or not valid:
        got = f"{len(train)} and {len(valid)} ({len(failures)} left out)"
        raise ValueError(f"{files.shown(path)}: expected pieces to train on and to validate with, got {got}")
    others = {
        piece.name: following.given
        for part in (valid, test)
        for piece, following in zip(part, [*part[1:], *part[:1]], strict=True)
    }
    return Corpus(
        encoding=encoding.to_dict(),
        train=train,
        valid=valid,
        test=test,
        draw=draw,
        variants={
            "told another": lambda piece: Piece(piece.name, piece.tokens, others[piece.name]),
            "told nothing": lambda piece: Piece(piece.name, piece.tokens),
        },
    )
