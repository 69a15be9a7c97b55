"""Datasets: pieces as token grids, their splits, augmentation, and seeded batches.

Public arrays keep the field's order; the transpose to torch's (n_frames, B) lives here.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from musicgen_ext.architectures import RecurrentConfig
from musicgen_ext.train.features import longest_matches, recurrent_features

Ints = npt.NDArray[np.int32]
IGNORED = -100  # the target of a padded frame

JSB16_SHA256 = {
    ".npz": "cad2ec2c2394179d7f282bda20c523453a9e87f3a41bd16c1f8bd4f1d223c037",
    ".json": "d50c436564ec86f83f78f066fca03645ea4fbbe3b5e07e45be0e822ac94654d4",
}
CHORALES_SHA256 = "c50cc965a1cc3b29e3ffdc6a3bc5813eb7535a07515ecb7ae70d69a5d0680895"
JS_FAKES_SHA256 = "e242ce0b47327f078b7eaf4be396d084ce1df68dc57eebbce8184dcbbecd9cb1"

LOWEST_PITCH, NUM_PITCHES = 36, 46
SATB_TO_SLOTS = (0, 3, 1, 2)  # S A T B -> soprano, bass, alto, tenor: the outer voices are drawn first
VOICES = ("soprano", "bass", "alto", "tenor")


@dataclass(frozen=True)
class Piece:
    """One sequence: tokens int32 (n_frames, F) and the given features, int32 (n_frames,) each."""

    name: str
    tokens: Ints
    given: Mapping[str, Ints] = field(default_factory=dict)
    shifts: tuple[int, int] = (0, 0)
    """Lowest and highest transposition in semitones that keep every voice in its range."""


@dataclass(frozen=True)
class Corpus:
    """Pieces in three splits, and how one looks when it is drawn for training.

    Attributes
    ----------
    encoding : dict
        What the model file says about its tokens (`musicgen_ext.encodings`).
    train, valid, test : list of Piece
        `test` is never looked at by the training loop.
    transpose : callable (piece, semitones) -> Piece
    augment : callable (piece, rng) -> Piece
        Applied after the transposition, in training only (conditions that are sometimes unknown).
    extra : list of Piece
        More training pieces, of which `extra_share` times as many as `train` has are drawn every epoch.
    """

    encoding: Mapping[str, Any]
    train: Sequence[Piece]
    valid: Sequence[Piece]
    test: Sequence[Piece] = ()
    transpose: Callable[[Piece, int], Piece] = lambda piece, _: piece
    augment: Callable[[Piece, np.random.Generator], Piece] = lambda piece, _: piece
    extra: Sequence[Piece] = ()
    extra_share: float = 0.0

    def draw(self, piece: Piece, rng: np.random.Generator) -> Piece:
        """`piece` as training sees it this time: a uniformly chosen transposition, then `augment`."""
        shift = int(rng.integers(piece.shifts[0], piece.shifts[1] + 1))
        return self.augment(self.transpose(piece, shift) if shift else piece, rng)

    def epoch(self, rng: np.random.Generator) -> list[Piece]:
        """The pieces of one epoch: all of `train`, and the share of `extra`."""
        pieces = list(self.train)
        if self.extra:
            count = min(len(self.extra), round(self.extra_share * len(self.train)))
            pieces += [self.extra[i] for i in rng.permutation(len(self.extra))[:count]]
        return pieces


@dataclass(frozen=True)
class Batch:
    """Features, int32 (n_frames, B) each, and targets, int64 (n_frames, B, F) with `IGNORED` where padded."""

    features: Mapping[str, Tensor]
    targets: Tensor

    def to(self, device: torch.device) -> Batch:
        if device.type == "cpu":
            return self
        return Batch({k: v.to(device) for k, v in self.features.items()}, self.targets.to(device))


class Collator:
    """Pieces -> Batch. Remembers every piece's matches, which do not change when it is transposed."""

    def __init__(self, config: RecurrentConfig) -> None:
        self.config = config
        self._matches: dict[str, tuple[Ints, Ints]] = {}
        self._wants_match = any(f.kind in ("match", "match_length") for f in config.features)

    def __call__(self, pieces: Sequence[Piece]) -> Batch:
        n = max(len(p.tokens) for p in pieces)
        features = {f.name: np.zeros((n, len(pieces)), np.int32) for f in self.config.features}
        targets = np.full((n, len(pieces), len(self.config.slots)), IGNORED, np.int64)
        for b, piece in enumerate(pieces):
            length = len(piece.tokens)
            targets[:length, b] = piece.tokens
            computed = recurrent_features(self.config, piece.tokens, piece.given, match=self._match(piece))
            for name, ids in computed.items():
                features[name][:length, b] = ids
        return Batch({k: torch.from_numpy(v) for k, v in features.items()}, torch.from_numpy(targets))

    def _match(self, piece: Piece) -> tuple[Ints, Ints] | None:
        if not self._wants_match:
            return None
        if piece.name not in self._matches:
            self._matches[piece.name] = longest_matches(piece.tokens, self.config.match_window)
        return self._matches[piece.name]


def batches(pieces: Sequence[Piece], batch_size: int, rng: np.random.Generator | None) -> Iterator[list[Piece]]:
    """Pieces of about equal length together; with `rng`, slightly different company and another order every time."""
    lengths = np.array([len(p.tokens) for p in pieces], float)
    if rng is not None:
        lengths += rng.normal(0.0, 12.0, len(pieces))
    order = np.argsort(lengths, kind="stable")
    chunks = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    for i in range(len(chunks)) if rng is None else rng.permutation(len(chunks)):
        yield [pieces[j] for j in chunks[i]]


def num_batches(corpus: Corpus, batch_size: int) -> int:
    """Batches in an epoch of `corpus`."""
    extra = min(len(corpus.extra), round(corpus.extra_share * len(corpus.train)))
    return math.ceil((len(corpus.train) + extra) / batch_size)


# -- files -------------------------------------------------------------------------------------------------------------


def jsb16(
    path: str | os.PathLike[str],
    *,
    fakes: str | os.PathLike[str] | None = None,
    fakes_share: float = 1.0,
    any_hash: bool = False,
) -> Corpus:
    """The JSB Chorales benchmark on the 16th-note grid.

    Tokens of a frame: soprano, bass, alto, tenor, each 0 = silent or 1 + i for pitch 36 + i. A piece is transposed by
    every interval that keeps each voice inside the range it has in the training split.

    Parameters
    ----------
    path : path
        ``jsb16_separated.npz`` or ``jsb16_separated.json``; its SHA-256 is checked.
    fakes : path, optional
        ``js_fakes_16th.npz``: synthetic chorales to train on as well,
        `fakes_share` times as many an epoch as real ones.
    any_hash : bool
        Read a file of the same form with other contents.

    Raises
    ------
    ValueError
        The file is not the one expected, by hash or by form.
    """
    name = os.fspath(path)
    suffix = os.path.splitext(name)[1].lower()
    if suffix not in JSB16_SHA256:
        raise ValueError(f"{name}: expected a .npz or .json file, got {suffix or 'no suffix'!r}")
    if not any_hash:
        _check_hash(name, JSB16_SHA256[suffix])
    splits = _jsb16_npz(name) if suffix == ".npz" else _jsb16_json(name)
    train = [grid for _, grid in splits["train"]]
    ranges = _voice_ranges(train)

    def pieces(split: str) -> list[Piece]:
        return [Piece(n, g, {}, _shifts(g, ranges)) for n, g in splits[split]]

    extra: list[Piece] = []
    if fakes is not None:
        _check_hash(os.fspath(fakes), JS_FAKES_SHA256)
        with np.load(fakes) as z:
            pitch, offsets = z["pitch"].astype(np.int32), z["offsets"]
        for i, (a, b) in enumerate(pairwise(offsets)):
            grid = _pitches_to_tokens(pitch[a:b])
            extra.append(Piece(f"js_fake_{i}", grid, {}, _shifts(grid, ranges)))
    return Corpus(
        encoding={"name": "voice_grid", "hold": False},
        train=pieces("train"), valid=pieces("valid"), test=pieces("test"),
        transpose=_transpose_jsb16, extra=extra, extra_share=fakes_share if extra else 0.0,
    )  # fmt: skip


def _jsb16_npz(name: str) -> dict[str, list[tuple[str, Ints]]]:
    out: dict[str, list[tuple[str, Ints]]] = {}
    with np.load(name) as z:
        for split in ("train", "valid", "test"):
            pitch, offsets = z[f"{split}_pitch"].astype(np.int32), z[f"{split}_offsets"]
            out[split] = [
                (f"{split}_{i}", _pitches_to_tokens(pitch[a:b])) for i, (a, b) in enumerate(pairwise(offsets))
            ]
    return out


def _jsb16_json(name: str) -> dict[str, list[tuple[str, Ints]]]:
    with open(name, encoding="utf-8") as f:
        data = json.load(f)
    return {
        split: [(f"{split}_{i}", _pitches_to_tokens(np.array(p, np.int32))) for i, p in enumerate(data[split])]
        for split in ("train", "valid", "test")
    }


def _pitches_to_tokens(pitch: Ints) -> Ints:
    """(T, 4) S A T B, -1 silent -> (T, 4) tokens soprano, bass, alto, tenor."""
    pitch = pitch[:, SATB_TO_SLOTS]
    return np.where(pitch < 0, 0, pitch - LOWEST_PITCH + 1).astype(np.int32)


def _transpose_jsb16(piece: Piece, shift: int) -> Piece:
    tokens = np.where(piece.tokens > 0, piece.tokens + shift, 0).astype(np.int32)
    return Piece(piece.name, tokens, piece.given, (0, 0))


def _voice_ranges(grids: Sequence[Ints], first: int = 1) -> list[tuple[int, int]]:
    """Lowest and highest pitch token of every slot."""
    together = np.concatenate(grids)
    return [(int(c[c >= first].min()), int(c.max())) for c in together.T]


def _shifts(grid: Ints, ranges: Sequence[tuple[int, int]], first: int = 1) -> tuple[int, int]:
    low, high = -128, 128
    for column, (lowest, highest) in zip(grid.T, ranges, strict=True):
        pitches = column[column >= first]
        if len(pitches):
            low, high = max(low, lowest - int(pitches.min())), min(high, highest - int(pitches.max()))
    return (min(low, 0), max(high, 0)) if low > -128 else (0, 0)


def _check_hash(name: str, expected: str) -> None:
    with open(name, "rb") as f:
        got = hashlib.file_digest(f, "sha256").hexdigest()
    if got != expected:
        raise ValueError(f"{name}: expected the file with SHA-256 {expected}, got {got}")
