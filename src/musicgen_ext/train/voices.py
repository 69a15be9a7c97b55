"""A folder of music for the voices of a grid: what fine-tunes a model of chorales or of tunes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from musicgen_ext import encodings, files
from musicgen_ext.encodings import REST, VoiceGrid, Voices, read_voices
from musicgen_ext.keys import nearest_key
from musicgen_ext.train import datasets
from musicgen_ext.train.data import Corpus, Ints, Piece, find_key, shifts_within
from musicgen_ext.train.folk import tune_key
from musicgen_ext.train.splits import SIMILARITY


def voices(
    path: str | os.PathLike[str],
    *,
    encoding: str | Mapping[str, Any] = "chorale",
    collection: str | None = None,
    known_meter: float = 0.9,
    known_key: float = 0.7,
    known_soprano: float = 0.3,
    known_length: float = 0.8,
    valid_share: float = 0.1,
    test_share: float = 0.1,
    seed: int = 0,
    similarity: float | None = SIMILARITY,
) -> Corpus:
    """MIDI files of as many voices as the grid has, on its steps.

    How the voices are found is told by `musicgen_ext.encodings.read_voices`. A piece that lies outside the ranges of
    the encoding is moved into them; one whose voices lie too far apart, or which has more of them, is a failure. In
    training it is transposed by every interval that keeps each voice inside its range, and what the model is told about
    it is unknown some of the time; in evaluation it knows metre, key and, if it has that, length.

    Parameters
    ----------
    path, collection, valid_share, test_share, seed, similarity
        As for `musicgen_ext.train.midi.midi`.
    encoding : str or mapping
        A `VoiceGrid`, by name or in its JSON form.
    known_meter, known_key, known_soprano, known_length : float
        Probability, by piece and epoch, that the model is told position and length of the bar; tonic and mode; which
        note of the first voice comes next, and when; how many bars are left.

    Raises
    ------
    ValueError
        The encoding is another one, or there are too few pieces.
    """
    named = encodings.named(encoding) if isinstance(encoding, str) else encodings.load(encoding, tokens=True)
    if not isinstance(named, VoiceGrid):
        raise ValueError(f"encoding: expected a grid of voices, got {named.name!r}")
    grid: VoiceGrid = named
    scores = datasets.read(
        path, collection, valid_share=valid_share, test_share=test_share, seed=seed, similarity=similarity
    )
    failures = list(scores.failures)
    found: dict[str, Voices] = {}
    first = grid.first_voice
    ranges = [
        tuple(pitch - grid.lowest_pitch + grid.first_pitch for pitch in grid.ranges[slot["name"]])
        for slot in grid.slots[first:]
    ]

    def pieces(items: Sequence[datasets.Item]) -> list[Piece]:
        made = []
        for item in items:
            try:
                heard = read_voices(item.score, item.name, encoding=grid)
                pitch = np.where(heard.pitch == REST, REST, heard.pitch + grid.fit(heard, item.name))
            except ValueError as error:
                failures.append((item.name, str(error).removeprefix(f"{item.name}: ")))
                continue
            tokens = grid.grid_to_tokens(pitch, heard.onset, heard.fermata)
            found[item.name] = heard
            made.append(Piece(item.name, tokens, {}, shifts_within(tokens[:, first:], ranges, grid.first_pitch)))
        return made

    def told(piece: Piece, meter: bool, key: bool, soprano: bool, length: bool) -> Piece:
        heard = found[piece.name]
        pitch = grid.tokens_to_grid(piece.tokens).pitch
        tonic, mode = _key(grid, pitch)
        given = grid.given(
            len(piece.tokens),
            position=heard.position if meter else None,
            bar_length=heard.meter if meter else None,
            mode=mode if key else None,
            tonic=tonic if key else None,
            soprano=piece.tokens[:, first] if soprano else None,
            length=len(heard.position) if length else None,
        )
        return Piece(piece.name, piece.tokens, given, piece.shifts)

    def draw(piece: Piece, rng: np.random.Generator) -> Piece:
        shift = int(rng.integers(piece.shifts[0], piece.shifts[1] + 1))
        moved = piece.tokens.copy()
        moved[:, first:] = np.where(moved[:, first:] >= grid.first_pitch, moved[:, first:] + shift, moved[:, first:])
        known = rng.random(4) < (known_meter, known_key, known_soprano, known_length)
        return told(Piece(piece.name, moved), *map(bool, known))

    train, valid, test = (pieces(part) for part in (scores.train, scores.valid, scores.test))
    if not train or not valid:
        why = f": {files.shown(failures[-1][0])}: {failures[-1][1]}" if failures else ""
        raise ValueError(
            f"{files.shown(path)}: expected pieces of {len(grid.voices)} voice(s), to train on and to validate with, "
            f"got {len(train)} and {len(valid)}{why}"
        )
    datasets.warn_of(path, failures)
    return Corpus(
        encoding=grid.to_dict(),
        train=train,
        valid=[told(p, True, True, False, True) for p in valid],
        test=[told(p, True, True, False, True) for p in test],
        draw=draw,
        failures=failures,
        sources=scores,
    )


def _key(grid: VoiceGrid, pitch: Ints) -> tuple[int | None, str | None]:
    """As it was heard for the chorales and the tunes; for other numbers of voices, as most would hear it."""
    if len(grid.voices) == len(encodings.VOICES):
        return find_key(pitch)
    if len(grid.voices) == 1:
        return tune_key(pitch[:, 0])
    tonic, mode = nearest_key(np.bincount(pitch[pitch != REST] % 12, minlength=12))
    return (tonic, mode) if mode in grid.modes else (None, None)
