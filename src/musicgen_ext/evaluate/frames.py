"""Piano-roll frames: what models think of the four sets of Boulanger-Lewandowski et al., and two simple rivals.

Protocol (Bai et al., "An empirical evaluation of generic convolutional and recurrent networks", 2018): frame t of 88
keys is foretold from the frames before it, the first of each piece is not scored, and the nats of all frames are
divided by their number. Pieces come one by one: there is no padding that could be counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Rolls = npt.NDArray[np.uint8]

FRAME_SETS: Mapping[str, str] = {
    "jsb_chorales": "JSB chorales",
    "nottingham": "Nottingham",
    "musedata": "MuseData",
    "piano_midi": "Piano-midi",
}
"""By the names of their files."""

FRAMES_PUBLISHED: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "independent": {"TCN": {"jsb_chorales": 8.10, "nottingham": 3.07}},
    "notes": {
        "RNN-NADE": {"jsb_chorales": 5.56, "nottingham": 2.31, "musedata": 5.60, "piano_midi": 7.05},
    },
}
"""Nats a frame on the test split, by the head that compares: Bai et al. 2018; Boulanger-Lewandowski et al. 2012."""


@dataclass(frozen=True)
class FrameScore:
    """``nats``: per frame, all frames alike; ``frames``: how many were scored."""

    nats: float
    frames: int


def evaluate_frames(log_prob: Callable[[Rolls], npt.ArrayLike], pieces: Sequence[Rolls]) -> FrameScore:
    """Nats per frame of whole pieces.

    Parameters
    ----------
    log_prob : callable
        Frames, uint8 (n_frames, keys), to the natural logarithms of their probabilities (n_frames,).
    pieces : sequence of arrays

    Raises
    ------
    ValueError
        No piece has two frames, `log_prob` gave another number of them, or a probability above 1 or no number; the
        message says of which piece.
    """
    total, frames = 0.0, 0
    for i, piece in enumerate(pieces):
        found = np.asarray(log_prob(piece), np.float64)
        if found.shape != (len(piece),):
            raise ValueError(f"log_prob: expected shape ({len(piece)},) of piece {i}, got {found.shape}")
        if not (found <= 1e-9).all():  # nor are these not-a-number
            raise ValueError(f"log_prob: expected logarithms of probabilities of piece {i}, got {found.max()}")
        total -= float(found[1:].sum())
        frames += len(piece) - 1
    if frames <= 0:
        raise ValueError("pieces: expected one of two frames at least, got none")
    return FrameScore(total / frames, frames)


def marginal_frames(train: Sequence[Rolls]) -> Callable[[Rolls], npt.NDArray[np.float64]]:
    """The model that knows how often each key sounds: ``log_prob`` for `evaluate_frames`."""
    frames = np.concatenate(list(train))
    on = (frames.sum(0, dtype=np.float64) + 0.5) / (len(frames) + 1.0)
    return lambda piece: np.where(piece != 0, np.log(on), np.log1p(-on)).sum(1)


def first_order_frames(train: Sequence[Rolls]) -> Callable[[Rolls], npt.NDArray[np.float64]]:
    """The model that knows of each key how often it sounds after it did, and after it did not."""
    pairs = [(piece[:-1], piece[1:]) for piece in train]
    before, after = (np.concatenate(list(part)) for part in zip(*pairs, strict=True))
    on = np.stack([(after * (before == b)).sum(0) + 0.5 for b in (0, 1)])
    on /= np.stack([(before == b).sum(0) + 1.0 for b in (0, 1)])

    def log_prob(piece: Rolls) -> npt.NDArray[np.float64]:
        last = np.concatenate([np.zeros_like(piece[:1]), piece[:-1]])
        p = np.where(last != 0, on[1], on[0])
        found: npt.NDArray[np.float64] = np.where(piece != 0, np.log(p), np.log1p(-p)).sum(1)
        return found

    return log_prob


def format_frames(rows: Sequence[tuple[str, Mapping[str, Mapping[str, float]]]], splits: Sequence[str]) -> str:
    """A table of nats per frame: (name, set to split to nats), a column for every set and split."""
    sets = [name for name in FRAME_SETS if any(name in scores for _, scores in rows)]
    columns = [(name, split) for name in sets for split in splits]
    heads = [f"{FRAME_SETS[name]} {split}" for name, split in columns]
    width = max([len(name) for name, _ in rows] + [4])
    lines = [" " * width + "".join(f"  {head:>18}" for head in heads)]
    for name, scores in rows:
        cells = [scores.get(one, {}).get(split) for one, split in columns]
        lines.append(f"{name:<{width}}" + "".join(f"  {'' if x is None else f'{x:.4f}':>18}" for x in cells))
    return "\n".join(lines)
