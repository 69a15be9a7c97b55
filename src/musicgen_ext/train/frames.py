"""Piano-roll frames to train on: the four classic sets or a folder of MIDI files, and what a network sees of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from musicgen_ext.architectures import FramesConfig
from musicgen_ext.encodings import PianoRollFrames, read_frames
from musicgen_ext.files import shown
from musicgen_ext.train.datasets import SPLITS, midi_folder
from musicgen_ext.train.features import longest_matches

Rolls = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class FramePiece:
    """One piece: frames of 0 and 1, uint8 (n_frames, keys)."""

    name: str
    frames: Rolls


@dataclass(frozen=True)
class FrameCorpus:
    """Pieces as frames, in three splits.

    Attributes
    ----------
    encoding : dict
        What the model file says about frames (`musicgen_ext.encodings.PianoRollFrames`).
    train, valid, test : list of FramePiece
        `test` is never looked at by the training loop.
    crop : int
        Longer pieces are learnt from in parts of about so many frames, which are cut elsewhere every time; features
        come from the whole piece.
    transpose : int
        A part is heard up to so many semitones lower, or one less higher, as far as its piece stays on the keys: 6 are
        the twelve keys.
    first_frame : bool
        Whether the first frame of a piece, before which nothing was heard, is learnt as well. It is never scored.
    """

    encoding: Mapping[str, Any]
    train: Sequence[FramePiece]
    valid: Sequence[FramePiece]
    test: Sequence[FramePiece] = ()
    crop: int = 128
    transpose: int = 6
    first_frame: bool = True
    variants: ClassVar[Mapping[str, Any]] = {}
    _seen: dict[tuple[int, FramesConfig], tuple[Rolls, npt.NDArray[np.int64]]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def features(self, config: FramesConfig, number: int) -> tuple[Rolls, npt.NDArray[np.int64]]:
        """What a network sees of training piece `number`; computed once."""
        key = number, config
        if key not in self._seen:
            self._seen[key] = frame_features(config, self.train[number].frames)
        return self._seen[key]

    @property
    def parts(self) -> npt.NDArray[np.int64]:
        """Into how many parts each training piece is cut."""
        lengths = np.array([len(piece.frames) for piece in self.train])
        return np.maximum(1, np.rint(lengths / self.crop)).astype(np.int64)

    def cut(self, rng: np.random.Generator) -> list[tuple[int, int, int]]:
        """An epoch's parts: (number of the piece, first frame, end), all frames of all pieces."""
        out = []
        for number, (piece, count) in enumerate(zip(self.train, self.parts, strict=True)):
            length = len(piece.frames) / count
            inner = (np.arange(1, count) + rng.uniform(-0.25, 0.25, count - 1)) * length
            edges = [0, *np.rint(inner).astype(int).tolist(), len(piece.frames)]
            out += [(number, edges[i], edges[i + 1]) for i in range(count)]
        return out


def frame_features(config: FramesConfig, frames: npt.ArrayLike) -> tuple[Rolls, npt.NDArray[np.int64]]:
    """What the network sees before every frame of a piece; definitions: `FramesConfig`.

    Parameters
    ----------
    config : FramesConfig
    frames : array [shape=(n_frames, keys)]
        0 and 1.

    Returns
    -------
    channels : np.ndarray [shape=(n_frames, keys, C)], uint8
    numbers : np.ndarray [shape=(n_frames, len(config.numbers))], int64

    Raises
    ------
    ValueError
        Another number of keys.
    """
    roll = np.asarray(frames, np.uint8)
    if roll.ndim != 2 or roll.shape[1] != config.keys:
        raise ValueError(f"frames: expected shape (n_frames, {config.keys}), got {roll.shape}")
    n = len(roll)
    channels = np.zeros((n, config.keys, config.channels), np.uint8)
    for i, lag in enumerate(config.lags):
        channels[lag:, :, i] = roll[: max(0, n - lag)]
    numbers = []
    if config.has_match:
        where, length = longest_matches(roll, config.match_window)
        channels[where >= 0, :, -1] = roll[where[where >= 0]]
        numbers.append(np.searchsorted(config.match_buckets, length, side="right"))
    numbers += [np.arange(n) % period for period in config.clocks]
    return channels, np.stack(numbers, 1).astype(np.int64) if numbers else np.zeros((n, 0), np.int64)


def frames(
    path: str | os.PathLike[str],
    *,
    crop: int = 128,
    transpose: int = 6,
    first_frame: bool = True,
    steps_per_quarter: int = 4,
    **options: Any,
) -> FrameCorpus:
    """Frames from a file of frames, or from a folder of MIDI files.

    Parameters
    ----------
    path : path
        An ``.npz`` file as `musicgen_ext.encodings.read_frames` takes it, or a folder (or ZIP archive) of MIDI files.
    crop, transpose, first_frame
        See `FrameCorpus`.
    steps_per_quarter : int
        Frames in a quarter note.
    options
        How a folder is split: see `musicgen_ext.train.datasets.midi_folder`.

    Raises
    ------
    ValueError
        The file has another form, too few pieces can be read, or a number is out of its range.
    """
    for name, value, low in (("crop", crop, 2), ("transpose", transpose, 0)):
        if type(value) is not int or not low <= value <= 1 << 20:
            raise ValueError(f"data.{name}: expected an integer >= {low}, got {value!r}")
    if not isinstance(first_frame, bool):
        raise ValueError(f"data.first_frame: expected true or false, got {first_frame!r}")
    encoding = PianoRollFrames(steps_per_quarter=steps_per_quarter)
    if Path(path).suffix == ".npz":
        if options:
            raise ValueError(f"data.{next(iter(options))}: expected for a folder of MIDI files only")
        rolls = read_frames(path)
        names = {split: [f"{split} {i}" for i in range(len(rolls[split]))] for split in SPLITS}
    else:
        scores = midi_folder(path, **options)
        names = {split: [item.name for item in getattr(scores, split)] for split in SPLITS}
        rolls = {split: [encoding.encode(item.score) for item in getattr(scores, split)] for split in SPLITS}
    splits = {
        split: [FramePiece(n, r) for n, r in zip(names[split], rolls[split], strict=True) if len(r) > 1]
        for split in SPLITS
    }
    if not splits["train"] or not splits["valid"]:
        raise ValueError(f"{shown(path)}: expected pieces of two frames and more to train and validate on, got none")
    return FrameCorpus(
        encoding.to_dict(), splits["train"], splits["valid"], splits["test"], crop, transpose, first_frame
    )
