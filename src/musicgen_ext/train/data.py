"""Datasets: pieces as token grids, their splits, augmentation, and seeded batches.

Public arrays keep the field's order; the transpose to torch's (n_frames, B) lives here.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from musicgen_ext.architectures import RecurrentConfig
from musicgen_ext.encodings import CHORALE, JSB16, SLOT_ORDER, VoiceGrid
from musicgen_ext.files import shown
from musicgen_ext.train.datasets import Scores
from musicgen_ext.train.features import longest_matches, recurrent_features

Ints = npt.NDArray[np.int32]
IGNORED = -100  # the target of a padded frame

JSB16_SHA256 = {
    ".npz": "cad2ec2c2394179d7f282bda20c523453a9e87f3a41bd16c1f8bd4f1d223c037",
    ".json": "d50c436564ec86f83f78f066fca03645ea4fbbe3b5e07e45be0e822ac94654d4",
}
CHORALES_DIGEST = "84823e89a90fd3a69550c15aee05fb6c88d1836efe320d6127086fceaf78f96b"
JS_FAKES_SHA256 = "e242ce0b47327f078b7eaf4be396d084ce1df68dc57eebbce8184dcbbecd9cb1"


@dataclass(frozen=True)
class Piece:
    """One sequence: tokens int32 (n_frames, F) and the given features, int32 (n_frames,) each."""

    name: str
    tokens: Ints
    given: Mapping[str, Ints] = field(default_factory=dict)
    shifts: tuple[int, int] = (0, 0)
    """Lowest and highest transposition in semitones that keep every voice in its range."""
    heard: Ints | None = None
    """What the network hears of the tokens, shape (n_frames, F): features come from here. None: what is written."""
    context: int = 0
    """So many frames at the beginning are only what came before: features know them, the network does not see them."""


@dataclass(frozen=True)
class Corpus:
    """Pieces in three splits, and how one looks when it is drawn for training.

    Attributes
    ----------
    encoding : dict
        What the model file says about its tokens (`musicgen_ext.encodings`).
    train, valid, test : list of Piece
        `test` is never looked at by the training loop.
    draw : callable (piece, rng) -> Piece
        A piece as training sees it this time: transposed, told some of what can be known about it.
    variants : dict of str to callable (piece) -> Piece
        Other ways to see the pieces of `valid` and `test`, for evaluation (with other things known).
    extra : list of Piece
        More training pieces, of which `extra_share` times as many as `train` has are drawn every epoch.
    crop : int
        Frames that `draw` gives of a longer piece, which is drawn as often as it has such crops; 0: whole pieces.
    failures : sequence of (name, reason)
        Files that could not be used.
    sources : Scores, optional
        The music itself.
    """

    encoding: Mapping[str, Any]
    train: Sequence[Piece]
    valid: Sequence[Piece]
    test: Sequence[Piece] = ()
    draw: Callable[[Piece, np.random.Generator], Piece] = lambda piece, _: piece
    variants: Mapping[str, Callable[[Piece], Piece]] = field(default_factory=dict)
    extra: Sequence[Piece] = ()
    extra_share: float = 0.0
    crop: int = 0
    failures: Sequence[tuple[str, str]] = ()
    sources: Scores | None = None

    def epoch(self, rng: np.random.Generator) -> list[Piece]:
        """The pieces of one epoch: all of `train`, each as often as it has crops, and the share of `extra`."""
        pieces = [piece for piece in self.train for _ in range(self._draws(piece))]
        if self.extra:
            pieces += [self.extra[i] for i in rng.permutation(len(self.extra))[: self._num_extra]]
        return pieces

    @property
    def pieces_per_epoch(self) -> int:
        """Number of pieces of one epoch."""
        return sum(map(self._draws, self.train)) + self._num_extra

    def drawn_length(self, piece: Piece) -> int:
        """About how many frames `draw` gives of a piece."""
        return min(len(piece.tokens), self.crop or len(piece.tokens))

    def _draws(self, piece: Piece) -> int:
        return max(1, round(len(piece.tokens) / self.crop)) if self.crop else 1

    @property
    def _num_extra(self) -> int:
        return min(len(self.extra), round(self.extra_share * len(self.train)))


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
        n = max(len(p.tokens) - p.context for p in pieces)
        features = {f.name: np.zeros((n, len(pieces)), np.int32) for f in self.config.features}
        targets = np.full((n, len(pieces), len(self.config.slots)), IGNORED, np.int64)
        for b, piece in enumerate(pieces):
            length = len(piece.tokens) - piece.context
            targets[:length, b] = piece.tokens[piece.context :]
            heard = piece.tokens if piece.heard is None else piece.heard
            computed = recurrent_features(self.config, heard, piece.given, match=self._match(piece))
            for name, ids in computed.items():
                features[name][:length, b] = ids[piece.context :]
        return Batch({k: torch.from_numpy(v) for k, v in features.items()}, torch.from_numpy(targets))

    def _match(self, piece: Piece) -> tuple[Ints, Ints] | None:
        if not self._wants_match or piece.heard is not None:
            return None
        if piece.name not in self._matches:
            self._matches[piece.name] = longest_matches(piece.tokens, self.config.match_window)
        return self._matches[piece.name]


def batches(
    pieces: Sequence[Piece],
    batch_size: int,
    rng: np.random.Generator | None,
    length: Callable[[Piece], int] = lambda piece: len(piece.tokens),
) -> Iterator[list[Piece]]:
    """Pieces of about equal length together; with `rng`, slightly different company and another order every time."""
    lengths = np.array([length(p) for p in pieces], float)
    if rng is not None:
        lengths += rng.normal(0.0, 12.0, len(pieces))
    order = np.argsort(lengths, kind="stable")
    chunks = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    for i in range(len(chunks)) if rng is None else rng.permutation(len(chunks)):
        yield [pieces[j] for j in chunks[i]]


def num_batches(corpus: Corpus, batch_size: int) -> int:
    """Batches in an epoch of `corpus`."""
    return math.ceil(corpus.pieces_per_epoch / batch_size)


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
        return [Piece(n, g, {}, shifts_within(g, ranges)) for n, g in splits[split]]

    extra: list[Piece] = []
    if fakes is not None:
        _check_hash(os.fspath(fakes), JS_FAKES_SHA256)
        with np.load(fakes) as z:
            pitch, offsets = z["pitch"].astype(np.int32), z["offsets"]
        for i, (a, b) in enumerate(pairwise(offsets)):
            grid = _pitches_to_tokens(pitch[a:b])
            extra.append(Piece(f"js_fake_{i}", grid, {}, shifts_within(grid, ranges)))
    return Corpus(
        encoding=replace(JSB16, ranges=_heard(ranges, JSB16)).to_dict(),
        train=pieces("train"), valid=pieces("valid"), test=pieces("test"),
        draw=_draw_jsb16, extra=extra, extra_share=fakes_share if extra else 0.0,
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
    return JSB16.grid_to_tokens(pitch)


def _draw_jsb16(piece: Piece, rng: np.random.Generator) -> Piece:
    shift = int(rng.integers(piece.shifts[0], piece.shifts[1] + 1))
    return Piece(piece.name, np.where(piece.tokens > 0, piece.tokens + shift, 0).astype(np.int32))


def _voice_ranges(grids: Sequence[Ints], first: int = 1) -> list[tuple[int, int]]:
    """Lowest and highest pitch token of every slot."""
    together = np.concatenate(grids)
    return [(int(c[c >= first].min()), int(c.max())) for c in together.T]


def _heard(ranges: Sequence[tuple[int, int]], encoding: VoiceGrid) -> dict[str, tuple[int, int]]:
    """`ranges`, in tokens by slot, as MIDI pitches by voice."""
    up = encoding.lowest_pitch - encoding.first_pitch
    return {voice: (low + up, high + up) for voice, (low, high) in zip(SLOT_ORDER, ranges, strict=True)}


def shifts_within(grid: Ints, ranges: Sequence[Sequence[int]], first: int = 1) -> tuple[int, int]:
    """The lowest and highest transposition of tokens (T, voices) that keep every voice in its range, 0 among them."""
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


def tokens(path: str | os.PathLike[str], *, vocab_size: int, valid_share: float = 0.1) -> Corpus:
    """A folder of ``.npy`` files, one integer array (n_tokens,) each: pieces for an ordinary language model.

    Sorted by name, every so many-th piece is for validation, so that `valid_share` of them are.

    Raises
    ------
    ValueError
        There are fewer than two files, or one is not such an array with ids in 0..vocab_size - 1; the message names it.
    """
    names = sorted(name for name in os.listdir(path) if name.endswith(".npy"))
    if len(names) < 2 or not 0 < valid_share < 1:
        got = f"{len(names)} and {valid_share}"
        raise ValueError(f"{shown(path)}: expected at least 2 .npy files and a valid_share in (0, 1), got {got}")
    splits: tuple[list[Piece], list[Piece]] = ([], [])
    for i, name in enumerate(names):
        array = np.load(os.path.join(path, name), allow_pickle=False)
        if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer) or not len(array):
            raise ValueError(f"{shown(name)}: expected integers of shape (n_tokens,), got {array.dtype} {array.shape}")
        if array.min() < 0 or array.max() >= vocab_size:
            raise ValueError(f"{shown(name)}: expected ids in 0..{vocab_size - 1}, got {array.min()}..{array.max()}")
        # Piece i is for validation when another whole piece is due: at least one, never all.
        due = int((i + 1) * valid_share) > int(i * valid_share) if valid_share * len(names) >= 1 else i == 0
        splits[due].append(Piece(name, array.astype(np.int32)[:, None]))
    return Corpus(encoding={"name": "tokens", "vocab_size": vocab_size}, train=splits[0], valid=splits[1])


# -- chorales with onsets ----------------------------------------------------------------------------------------------

# All four voices silent for half of the time or more: long instrumental interludes.
_INTERLUDES = ("bwv248.64-6", "bwv79.3")


def chorales(
    path: str | os.PathLike[str],
    *,
    use_extra: bool = True,
    known_meter: float = 0.9,
    known_key: float = 0.7,
    known_soprano: float = 0.3,
    wrong_notes: float = 0.0,
    any_hash: bool = False,
) -> Corpus:
    """Bach's chorales with onsets, fermatas and metre, as the bundled model learns them.

    Tokens: `musicgen_ext.encodings.CHORALE`. In training a piece is transposed by every interval that keeps each voice
    inside the range it has in the training split, and what the model is told about it is unknown some of the time; in
    evaluation it knows metre and key but not the soprano. Copies of pieces, pieces that resemble a test piece and two
    with long instrumental interludes are left out.

    Parameters
    ----------
    path : path
        ``chorales_16th.npz``, which `musicgen_ext.train.rebuild_chorales` writes.
    use_extra : bool
        Train on the pieces outside the benchmark's splits, too.
    known_meter, known_key, known_soprano : float
        Probability, by piece and epoch, that the model is told position and length of the bar; tonic and mode; which
        soprano note comes next, and when.
    wrong_notes : float
        Mean share of notes that are heard a little too high or low, in half of the pieces. What is to be predicted
        stays right, so that the model learns to go on after mistakes, as it must when it hears itself.
    any_hash : bool
        Read a file of the same form with other contents (another music21 may give one).

    Raises
    ------
    ValueError
        The file is not the one expected, by hash or by form.
    """
    name = os.fspath(path)
    with np.load(name, allow_pickle=False) as z:
        arrays = {key: z[key] for key in z.files}
    if not any_hash and (got := _digest(arrays)) != CHORALES_DIGEST:
        raise ValueError(f"{name}: expected arrays with the digest {CHORALES_DIGEST}, got {got}")
    missing = {"pitch", "onset", "fermata", "bar_pos", "offsets", "ids", "split", "duplicate"} - set(arrays)
    if missing:
        raise ValueError(f"{name}: expected the arrays of a chorale file, {sorted(missing)} are missing")
    pitch = arrays["pitch"].astype(np.int32)
    onset = np.unpackbits(arrays["onset"], axis=1)[:, :4].astype(bool)
    pieces: dict[str, list[Piece]] = {"train": [], "valid": [], "test": [], "extra": [], "skip": []}
    facts: dict[str, _Facts] = {}
    for i, (a, b) in enumerate(pairwise(arrays["offsets"])):
        piece_name = str(arrays["ids"][i])
        if arrays["duplicate"][i] or piece_name in _INTERLUDES:
            continue
        tokens = CHORALE.grid_to_tokens(pitch[a:b], onset[a:b], arrays["fermata"][a:b])
        tonic, mode = find_key(pitch[a:b])
        position = arrays["bar_pos"][a:b].astype(np.int32)
        facts[piece_name] = _Facts(position, _bar_length(position), tonic, mode)
        pieces[str(arrays["split"][i])].append(Piece(piece_name, tokens))
    chosen = pieces["train"] + (pieces["extra"] if use_extra else [])
    ranges = _voice_ranges([p.tokens[:, 1:] for p in chosen], CHORALE.first_pitch)

    def told(piece: Piece, shift: int, meter: bool, key: bool, soprano: bool) -> Piece:
        fact = facts[piece.name]
        given = CHORALE.given(
            len(piece.tokens),
            position=fact.position if meter else None,
            bar_length=fact.bar_length if meter else None,
            mode=fact.mode if key else None,
            tonic=(fact.tonic + shift) % 12 if key else None,
            soprano=piece.tokens[:, 1] if soprano else None,
        )
        return Piece(piece.name, piece.tokens, given, piece.shifts)

    def draw(piece: Piece, rng: np.random.Generator) -> Piece:
        shift = int(rng.integers(piece.shifts[0], piece.shifts[1] + 1))
        voices = piece.tokens[:, 1:]
        moved = piece.tokens.copy()
        moved[:, 1:] = np.where(voices >= CHORALE.first_pitch, voices + shift, voices)
        known = rng.random(3) < (known_meter, known_key, known_soprano)
        drawn = told(Piece(piece.name, moved), shift, *map(bool, known))
        if wrong_notes and rng.random() < 0.5:
            heard = moved.copy()
            heard[:, 1:] = _misheard(moved[:, 1:], rng.uniform(0, 2 * wrong_notes), rng)
            drawn = replace(drawn, heard=heard)
        return drawn

    def with_shifts(split: Sequence[Piece]) -> list[Piece]:
        return [Piece(p.name, p.tokens, {}, shifts_within(p.tokens[:, 1:], ranges, CHORALE.first_pitch)) for p in split]

    def as_evaluated(split: Sequence[Piece]) -> list[Piece]:
        return [told(p, 0, True, True, False) for p in split]

    return Corpus(
        encoding=replace(CHORALE, ranges=_heard(ranges, CHORALE)).to_dict(),
        train=with_shifts(chosen),
        valid=as_evaluated(pieces["valid"]),
        test=as_evaluated(pieces["test"]),
        draw=draw,
        variants={
            "nothing known": lambda piece: told(piece, 0, False, False, False),
            "soprano known": lambda piece: told(piece, 0, True, True, True),
        },
    )


def _misheard(voices: Ints, share: float, rng: np.random.Generator) -> Ints:
    """A copy with a `share` of the onsets one or two semitones off."""
    wrong = (voices >= CHORALE.first_pitch) & (rng.random(voices.shape) < share)
    steps = rng.choice([-2, -1, 1, 2], voices.shape)
    highest = CHORALE.first_pitch + CHORALE.num_pitches - 1
    return np.where(wrong, np.clip(voices + steps, CHORALE.first_pitch, highest), voices).astype(np.int32)


@dataclass(frozen=True)
class _Facts:
    position: Ints
    bar_length: int
    tonic: int
    mode: str


def find_key(pitch: npt.ArrayLike) -> tuple[int, str]:
    """Tonic and mode of a chorale: the pitch class of its last bass note, and which third above it is heard more.

    Parameters
    ----------
    pitch : array-like of int [shape=(T, 4)]
        MIDI pitches of soprano, alto, tenor, bass; -1 for a rest.

    Returns
    -------
    tonic : int
        Pitch class, 0 for C.
    mode : "major" or "minor"
    """
    grid = np.asarray(pitch)
    bass = grid[grid[:, 3] >= 0, 3]
    tonic = int(bass[-1]) % 12 if len(bass) else 0
    classes = np.bincount(grid[grid >= 0] % 12, minlength=12)
    return tonic, "major" if classes[(tonic + 4) % 12] >= classes[(tonic + 3) % 12] else "minor"


def _bar_length(position: Ints) -> int:
    """The commonest length of a bar, in sixteenths."""
    ends = np.append(position[:-1][position[1:] <= position[:-1]], position[-1]) + 1
    return int(np.bincount(ends).argmax())


def _digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Of the contents, whatever the compression: SHA-256 over names, shapes and values in a fixed form."""
    digest = hashlib.sha256()
    for key in sorted(arrays):
        array = arrays[key]
        values = array.astype("U16").astype("S16") if array.dtype.kind == "U" else array.astype("<i4")
        digest.update(f"{key}{array.shape}".encode() + values.tobytes())
    return digest.hexdigest()
