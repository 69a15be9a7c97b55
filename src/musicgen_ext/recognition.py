"""Style: which of several a piece of music sounds like, and what two tellings of a piece have in common.

Music comes as pictures of bars (`musicgen_ext.encodings.RollBars`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Rolls = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

_POLYPHONY = 6  # keys at once that are counted apart
_STEPS_OF_CHORD = 8  # half a bar of 4/4 in sixteenths
_LARGEST_STEP = 12  # semitones of the top line that are counted apart


# -- which style -----------------------------------------------------------------------------------------------------


def style_features(rolls: Rolls) -> Floats:
    """What tells styles apart, measured in pictures of bars: texture, register, rhythm and how the top line moves.

    None of it depends on the key.

    Parameters
    ----------
    rolls : np.ndarray [shape=(N, 2, T, P)], uint8
        What sounds, and what begins.

    Returns
    -------
    features : np.ndarray [shape=(N, 55)], float64
        Shares of the steps at which 0, 1, … 6 and more keys sound (7); and begin (7); shares of the steps at which
        something begins, by their place in a quarter, of 4/4 in sixteenths (16); middle, lowest, highest sounding
        pitch and their spread in octaves (4); shares of the top line's steps by size, 0 to 12 semitones or more (13),
        and how many there are (1); lengths of notes: shares of 1, 2, 3, 4, 5 to 8, more steps (6), notes a step (1).
    """
    sounding, onsets = rolls[:, 0] != 0, rolls[:, 1] != 0
    count, steps, pitches = sounding.shape
    columns = [_shares(np.minimum(cells.sum(2), _POLYPHONY), _POLYPHONY + 1) for cells in (sounding, onsets)]
    begins = onsets.any(2)
    columns.append(np.stack([begins[:, i::16].mean(1) for i in range(16)], 1))
    any_sounds = sounding.any(1)
    lowest = any_sounds.argmax(1)
    highest = pitches - 1 - any_sounds[:, ::-1].argmax(1)
    total = np.maximum(sounding.sum((1, 2)), 1)
    middle = sounding.sum(1) @ np.arange(pitches) / total
    columns.append(np.stack([middle, lowest, highest, highest - lowest], 1) / 12.0)
    moves = np.full((count, steps), -1)
    for i, line in enumerate(top_line(rolls)):
        heard = line[line >= 0]
        jumps = np.abs(np.diff(heard))[np.diff(heard) != 0]
        moves[i, : len(jumps)] = np.minimum(jumps, _LARGEST_STEP)
    columns.append(_shares(moves, _LARGEST_STEP + 1))
    columns.append((moves >= 0).mean(1, keepdims=True))
    lengths = np.zeros((count, 6))
    window, _, _ = np.nonzero(onsets)
    held = _lengths(sounding, onsets)
    np.add.at(lengths, (window, np.digitize(held, (2, 3, 4, 5, 9))), 1.0)
    columns.append(lengths / np.maximum(lengths.sum(1, keepdims=True), 1.0))
    columns.append(lengths.sum(1, keepdims=True) / steps)
    return np.concatenate(columns, 1)


def _shares(values: npt.NDArray[Any], size: int) -> Floats:
    """Rows of integers -> the share of each of 0..size - 1 among those that are not negative."""
    counts = np.stack([(values == value).sum(1) for value in range(size)], 1).astype(np.float64)
    shares: Floats = counts / np.maximum(counts.sum(1, keepdims=True), 1.0)
    return shares


def _lengths(sounding: npt.NDArray[np.bool_], onsets: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Steps that each note lasts within its picture, in the order of ``np.nonzero(onsets)``."""
    steps = sounding.shape[1]
    left = np.zeros(sounding.shape, np.int64)
    left[:, -1] = 1
    for t in range(steps - 2, -1, -1):
        left[:, t] = 1 + np.where(sounding[:, t + 1] & ~onsets[:, t + 1], left[:, t + 1], 0)
    return left[np.nonzero(onsets)]


@dataclass(frozen=True)
class Recogniser:
    """Says which style music is in: multinomial logistic regression on `style_features`, fitted to real music.

    Attributes
    ----------
    labels : tuple of str
    mean, scale : np.ndarray [shape=(F,)]
        What features are brought to mean 0 and deviation 1 by.
    weights : np.ndarray [shape=(1 + F, labels)]
        Biases first.
    """

    labels: tuple[str, ...]
    mean: Floats
    scale: Floats
    weights: Floats

    @classmethod
    def fit(cls, rolls: Rolls, which: npt.ArrayLike, labels: Sequence[str], *, decay: float = 1e-3) -> Self:
        """Fit to windows of real music.

        Every label counts the same, however many windows it has. Gradient descent with Nesterov's momentum from
        zero, 400 steps: the same windows give the same recogniser.

        Parameters
        ----------
        rolls : np.ndarray [shape=(N, 2, T, P)], uint8
        which : array-like of int [shape=(N,)]
            The number of each window's label.
        labels : sequence of str
        decay : float
            Half of it times the squared weights is added to the mean loss.
        """
        truth = np.asarray(which)
        names = tuple(labels)
        missing = [name for i, name in enumerate(names) if not (truth == i).any()]
        if missing:
            raise ValueError(f"which: expected windows of every label, got none of {missing}")
        features = style_features(rolls)
        mean, scale = features.mean(0), features.std(0) + 1e-6
        inputs = np.concatenate([np.ones((len(features), 1)), (features - mean) / scale], 1)
        target = np.eye(len(names))[truth]
        shares = (target / target.sum(0)).sum(1, keepdims=True) / len(names)
        weights = np.zeros((inputs.shape[1], len(names)))
        step = 1.0 / (0.5 * np.linalg.eigvalsh(inputs.T @ (inputs * shares))[-1] + decay)  # 1 / Lipschitz constant
        before = weights
        for i in range(400):
            ahead = weights + i / (i + 3) * (weights - before)
            error = _softmax(inputs @ ahead) - target
            before, weights = weights, ahead - step * (inputs.T @ (error * shares) + decay * ahead)
        return cls(names, mean, scale, weights)

    def probabilities(self, rolls: Rolls) -> Floats:
        """Of every window [shape=(N, labels)]."""
        scaled = (style_features(rolls) - self.mean) / self.scale
        return _softmax(scaled @ self.weights[1:] + self.weights[0])

    def accuracy(self, rolls: Rolls, which: npt.ArrayLike) -> float:
        """Share of the windows whose likeliest label is the right one, by its number: one for all, or one for each."""
        return float((self.probabilities(rolls).argmax(1) == np.asarray(which)).mean())


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    out: Floats = powers / powers.sum(1, keepdims=True)
    return out


# -- what survives ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Survival:
    """What two pictures of the same bars have in common; means over windows.

    ``contour``: correlation of the top lines, over the steps at which both sound (0 where one of them does not move).
    ``moves``: what the ups and downs of the top lines share: 1 less the edit distance (Levenshtein) of the two
    sequences over the longer one's length. ``rhythm``: F1 of the steps at which something begins. ``harmony``: cosine
    of the pitch classes that sound in each half bar, by duration.
    """

    contour: float
    moves: float
    rhythm: float
    harmony: float


def survival(before: Rolls, after: Rolls) -> Survival:
    """Compare music with what became of it, window by window [shape=(N, 2, T, P) each]; silent windows do not count.

    Raises
    ------
    ValueError
        The shapes differ, or all windows are silent.
    """
    if before.shape != after.shape or before.ndim != 4:
        raise ValueError(f"after: expected shape {before.shape} (N, 2, T, P), got {after.shape}")
    heard = before[:, 0].any((1, 2))
    if not heard.any():
        raise ValueError("before: expected music, got silence")
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in zip(before[heard], after[heard], strict=True)]
    lines = [(top_line(a[None])[0], top_line(b[None])[0]) for a, b in pairs]
    return Survival(
        contour=float(np.mean([_correlation(a, b) for a, b in lines])),
        moves=float(np.mean([_alike(_moves(a), _moves(b)) for a, b in lines])),
        rhythm=float(np.mean([_f1(a[1].any(1), b[1].any(1)) for a, b in pairs])),
        harmony=float(np.mean([_harmony(a[0], b[0]) for a, b in pairs])),
    )


def top_line(rolls: Rolls) -> npt.NDArray[np.int64]:
    """The highest row that sounds at every step [shape=(N, T)]; -1 where none does."""
    sounding = rolls[:, 0] != 0
    highest = sounding.shape[2] - 1 - sounding[:, :, ::-1].argmax(2)
    return np.where(sounding.any(2), highest, -1)


def _correlation(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> float:
    both = (a >= 0) & (b >= 0)
    if both.sum() < 2 or np.ptp(a[both]) == 0 or np.ptp(b[both]) == 0:
        return 0.0
    return float(np.corrcoef(a[both], b[both])[0, 1])


def _moves(line: npt.NDArray[np.int64]) -> list[int]:
    change = np.sign(np.diff(line[line >= 0]))
    return [int(sign) for sign in change[change != 0]]


def _alike(a: list[int], b: list[int]) -> float:
    """1 less the edit distance over the longer one's length; 1 for two empty ones."""
    if not a and not b:
        return 1.0
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return 1.0 - row[-1] / max(len(a), len(b))


def _f1(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / max(a.sum() + b.sum(), 1))


def _harmony(a: Rolls, b: Rolls) -> float:
    """Mean over the half bars in which the first one sounds."""
    found = []
    for begin in range(0, len(a), _STEPS_OF_CHORD):
        first, second = (_classes(x[begin : begin + _STEPS_OF_CHORD]) for x in (a, b))
        if first.any():
            lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
            found.append(float(first @ second) / max(lengths, 1e-12))
    return float(np.mean(found)) if found else 0.0


def _classes(sounding: Rolls) -> Floats:
    each = sounding.sum(0).astype(np.float64)
    return np.asarray(np.bincount(np.arange(len(each)) % 12, weights=each, minlength=12), np.float64)


def excerpts(windows: Rolls, count: int) -> Rolls:
    """Every `count` windows (N, C, T, P) as one, (N // count, C, count * T, P); what is left over is left out."""
    whole = len(windows) // count * count
    joined = windows[:whole].reshape(-1, count, *windows.shape[1:]).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(joined).reshape(len(joined), windows.shape[1], -1, windows.shape[3])
