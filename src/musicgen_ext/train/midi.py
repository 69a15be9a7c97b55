"""Any folder of MIDI files as tokens to learn from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from musicgen_ext import encodings, files
from musicgen_ext.encodings.stream import TokenStream
from musicgen_ext.midi import Score
from musicgen_ext.train import datasets
from musicgen_ext.train.augmentation import Augmentation
from musicgen_ext.train.data import Corpus, Ints, Piece
from musicgen_ext.train.splits import SIMILARITY


def midi(
    path: str | os.PathLike[str],
    *,
    encoding: str | Mapping[str, Any] = "bars",
    options: Mapping[str, Any] | None = None,
    collection: str | None = None,
    crop: int = 512,
    transpose: int = 5,
    stretch: float = 0.1,
    velocity: int = 0,
    voice_dropout: float = 0.0,
    valid_share: float = 0.1,
    test_share: float = 0.1,
    seed: int = 0,
    similarity: float | None = SIMILARITY,
) -> Corpus:
    """MIDI files as sequences of tokens, one a piece.

    For training, a piece is changed (`musicgen_ext.train.augmentation`), encoded, and cut: it is drawn as often in an
    epoch as it has crops, from a place that is different every time.

    Parameters
    ----------
    path : path
        A folder of MIDI files or a ZIP archive of them; with `collection`, that corpus's file or folder.
    encoding : str or mapping
        "bars", "performance" or "pitches" (`musicgen_ext.encodings.named`), or the JSON form of such an encoding.
    options : mapping, optional
        Options of the encoding that differ from its own.
    collection : str, optional
        A name of `musicgen_ext.train.datasets.collection`; by default the path is any folder (`midi_folder`).
    crop : int >= 0
        Tokens that are learnt from at once; 0: whole pieces.
    transpose, stretch, velocity, voice_dropout
        See `musicgen_ext.train.augmentation.Augmentation`.
    valid_share, test_share, seed, similarity
        See `musicgen_ext.train.datasets.midi_folder`; a corpus with a split of its own knows `similarity` only.

    Raises
    ------
    ValueError
        Unknown encoding, collection or option, or too few pieces; the message names it.
    """
    if type(crop) is not int or crop < 0:
        raise ValueError(f"crop: expected an integer >= 0, got {crop!r}")
    writes = _encoding(encoding, options)
    change = Augmentation(transpose, stretch, velocity, voice_dropout)
    scores = datasets.read(
        path, collection, valid_share=valid_share, test_share=test_share, seed=seed, similarity=similarity
    )
    failures = list(scores.failures)
    sources: dict[str, Score] = {}

    def pieces(items: Sequence[datasets.Item]) -> list[Piece]:
        found = []
        for item in items:
            try:
                tokens = _tokens(writes, item.score)
            except ValueError as error:
                failures.append((item.name, str(error)))
                continue
            sources[item.name] = item.score
            found.append(Piece(item.name, tokens))
        return found

    def draw(piece: Piece, rng: np.random.Generator) -> Piece:
        tokens = _tokens(writes, change(sources[piece.name], rng))
        drawn = cut(Piece(piece.name, tokens), crop, rng)
        return replace(drawn, heard=drawn.tokens)  # its matches are its own, not those of an earlier draw

    train, valid, test = (pieces(part) for part in (scores.train, scores.valid, scores.test))
    if not train or not valid:
        why = f": {files.shown(failures[-1][0])}: {failures[-1][1]}" if failures else ""
        raise ValueError(
            f"{files.shown(path)}: expected pieces that {writes.name!r} can write, to train on and to validate with, "
            f"got {len(train)} and {len(valid)}{why}"
        )
    datasets.warn_of(path, failures)
    return Corpus(
        encoding=writes.to_dict(), train=train, valid=valid, test=test, draw=draw, crop=crop, failures=failures,
        sources=scores,
    )  # fmt: skip


def cut(piece: Piece, crop: int, rng: np.random.Generator) -> Piece:
    """`crop` tokens of a piece from anywhere, the beginning and the end more often, and the token before them.

    A crop knows what came directly before it, as a piece knows that it begins.
    """
    count = len(piece.tokens)
    if not crop or count <= crop:
        return piece
    start = int(np.clip(rng.integers(-(crop // 2), count - crop // 2), 0, count - crop))
    context = min(start, 1)
    return replace(piece, tokens=piece.tokens[start - context : start + crop], context=context)


def _encoding(name: str | Mapping[str, Any], options: Mapping[str, Any] | None) -> TokenStream:
    if isinstance(name, str):
        found: Any = encodings.named(name, options)
    else:
        found = encodings.load({**name, **(options or {})}, tokens=True)
    if not isinstance(found, TokenStream):
        raise ValueError(f"encoding: expected one with a stream of tokens (bars, performance, pitches), got {name!r}")
    return found


def _tokens(encoding: TokenStream, score: Score) -> Ints:
    tokens = encoding.encode(score)
    if len(tokens) <= (encoding.end_token is not None):
        raise ValueError(f"expected notes that {encoding.name!r} can write, got none")
    return tokens[:, None]
