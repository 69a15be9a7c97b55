"""Windows of melodies to learn from: what a variational autoencoder sees of a data set of scores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from musicgen_ext import files
from musicgen_ext.encodings import FIRST_PITCH, REST, STEPS_PER_QUARTER, MelodyWindows, melody_of
from musicgen_ext.midi import Score
from musicgen_ext.train import datasets
from musicgen_ext.train.data import Corpus, Ints, Piece
from musicgen_ext.train.splits import SIMILARITY


def windows(
    path: str | os.PathLike[str],
    *,
    collection: str | None = None,
    steps: int = 32,
    transpose: int = 6,
    bars: Literal["written", "heard"] = "written",
    straight: bool = False,
    least_notes: int = 2,
    tempo: float = 120.0,
    valid_share: float = 0.1,
    test_share: float = 0.1,
    seed: int = 0,
    similarity: float | None = SIMILARITY,
) -> Corpus:
    """Windows of the melodies of scores, one that begins with every bar.

    Pieces whose bars a window does not hold a whole number of, at their end, are left out: 6/8 where it is 32
    sixteenths long.

    Parameters
    ----------
    path : path
        A folder of MIDI files or a ZIP archive of them; with `collection`, that corpus's file or folder.
    collection : str, optional
        A name of `musicgen_ext.train.datasets.collection`; by default the path is any folder (`midi_folder`).
    steps : int
        Sixteenths of a window: 32 are two bars of 4/4.
    transpose : int >= 0
        In training a window is moved by up to so many semitones, inside the range of the training split.
    bars : {"written", "heard"}
        Where they begin: as the score says, or, for scores that leave out how long the upbeat is, where the notes are
        longest.
    straight : bool
        Leave windows out in which a note does not lie on the grid of sixteenths (triplets), rather than move it there.
    least_notes : int
        Leave out windows with fewer.
    tempo : float
        Quarters a minute that the encoding says.
    valid_share, test_share, seed, similarity
        See `musicgen_ext.train.datasets.midi_folder`; a corpus with a split of its own knows `similarity` only.

    Raises
    ------
    ValueError
        Unknown collection or option, or too few windows; the message names it.
    """
    if bars not in ("written", "heard"):
        raise ValueError(f"bars: expected 'written' or 'heard', got {bars!r}")
    for name, value, least in (("transpose", transpose, 0), ("least_notes", least_notes, 1), ("steps", steps, 1)):
        if type(value) is not int or value < least:
            raise ValueError(f"{name}: expected an integer >= {least}, got {value!r}")
    if collection is not None:
        scores = datasets.collection(collection, path, similarity=similarity)
    else:
        scores = datasets.midi_folder(
            path, valid_share=valid_share, test_share=test_share, seed=seed, similarity=similarity
        )
    failures = list(scores.failures)
    reader = MelodyWindows(steps, 0, 128, 0, 127, tempo)  # any pitch: which there are is only known then

    def read(items: Sequence[datasets.Item]) -> list[tuple[str, Ints]]:
        found = []
        for item in items:
            try:
                each = _windows_of(item.score, reader, bars, straight)
            except ValueError as error:
                failures.append((item.name, str(error)))
                continue
            found += [
                (f"{item.name}:{i}", w)
                for i, w in enumerate(each)
                if (w >= FIRST_PITCH).sum() >= least_notes
            ]  # fmt: skip
        return found

    splits = [read(part) for part in (scores.train, scores.valid, scores.test)]
    if not splits[0] or not splits[1]:
        why = f": {files.shown(failures[-1][0])}: {failures[-1][1]}" if failures else ""
        got = f"{len(splits[0])} and {len(splits[1])}{why}"
        raise ValueError(f"{files.shown(path)}: expected windows to train on and to validate with, got {got}")
    sounding = np.concatenate([w[w >= FIRST_PITCH] for _, w in splits[0]]) - FIRST_PITCH
    low, high = int(sounding.min()), int(sounding.max())
    encoding = MelodyWindows(steps, low, high - low + 1, low, high, tempo)

    def pieces(found: list[tuple[str, Ints]]) -> list[Piece]:
        made = []
        for name, window in found:
            pitch = window[window >= FIRST_PITCH]
            lowest, highest = int(pitch.min()) - FIRST_PITCH, int(pitch.max()) - FIRST_PITCH
            if highest - lowest > high - low:
                continue
            # What lies outside the training split's range is moved into it.
            shift = max(low - lowest, 0) + min(high - highest, 0)
            tokens = np.where(window >= FIRST_PITCH, window + shift - low, window).astype(np.int32)
            room = (max(-transpose, low - lowest - shift), min(transpose, high - highest - shift))
            made.append(Piece(name, tokens, shifts=room))
        return made

    train, valid, test = map(pieces, splits)
    return Corpus(
        encoding=encoding.to_dict(), train=train, valid=valid, test=test, draw=_transposed, failures=failures
    )  # fmt: skip


def _transposed(piece: Piece, rng: np.random.Generator) -> Piece:
    shift = int(rng.integers(piece.shifts[0], piece.shifts[1] + 1))
    return replace(piece, tokens=np.where(piece.tokens >= FIRST_PITCH, piece.tokens + shift, piece.tokens))


def _windows_of(score: Score, reader: MelodyWindows, bars: str, straight: bool) -> list[Ints]:
    """Tokens (steps, 1) of the windows of a score, one for every bar that has room for one."""
    crooked = _off_the_grid(score) if straight else np.zeros(len(score.notes), bool)
    if crooked.any():
        straight_notes = score.copy()
        straight_notes.notes = score.notes[~crooked]
        voices = melody_of(straight_notes, reader.grid)
    else:
        voices = melody_of(score, reader.grid)
    length = voices.meter.bar_length
    if reader.steps % length:
        raise ValueError(
            f"expected bars of which {reader.steps} sixteenths are a whole number, got {length} sixteenths"
        )
    pitch, onset = voices.pitch[:, 0], voices.onset[:, 0]
    first = np.flatnonzero(voices.position == 0)
    if bars == "heard":
        first = np.arange(_downbeat(pitch, onset, length), len(pitch), length)
    if crooked.any():
        left_out = _sounding(score, crooked, voices.begin, len(pitch))
        first = np.array([i for i in first if not left_out[i : i + reader.steps].any()], int)
    return [
        reader.windows(pitch[i : i + reader.steps], onset[i : i + reader.steps])[0]
        for i in first
        if i + reader.steps <= len(pitch)
    ]


def _downbeat(pitch: Ints, onset: npt.NDArray[np.bool_], length: int) -> int:
    """The frame, below a bar's length, from which bars hold the longest notes at their beginning and in the middle.

    A note counts as no longer than a quarter: one very long note is no metre.
    """
    at = np.flatnonzero(onset)
    ends = np.flatnonzero(np.append(onset | (pitch == REST), True))
    long = np.minimum(ends[np.searchsorted(ends, at, side="right")] - at, STEPS_PER_QUARTER)
    begins = [int(long[(at - p) % length == 0].sum()) for p in range(length)]
    middle = [begins[(p + length // 2) % length] for p in range(length)]
    return int(np.argmax([2 * a + b for a, b in zip(begins, middle, strict=True)]))


def _off_the_grid(score: Score) -> npt.NDArray[np.bool_]:
    """Notes that do not begin and end on a sixteenth."""
    start, end = _sixteenths(score)
    return np.asarray((start % score.ticks_per_quarter != 0) | (end % score.ticks_per_quarter != 0))


def _sounding(score: Score, which: npt.NDArray[np.bool_], begin: int, frames: int) -> npt.NDArray[np.bool_]:
    """Frames, from sixteenth `begin` on, in which one of these notes sounds."""
    marked = np.zeros(frames, bool)
    start, end = (times[which] // score.ticks_per_quarter - begin for times in _sixteenths(score))
    for first, last in zip(start, end, strict=True):
        marked[max(int(first), 0) : max(int(last) + 1, 0)] = True
    return marked


def _sixteenths(score: Score) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Beginnings and ends of the notes, in sixteenths times `ticks_per_quarter`."""
    start = score.notes["start"].astype(np.int64)
    return start * STEPS_PER_QUARTER, (start + score.notes["duration"]) * STEPS_PER_QUARTER
