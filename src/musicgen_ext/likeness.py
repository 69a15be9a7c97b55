"""How alike two collections of music are: distributions of what can be counted in a piece, and how far they overlap.

Sources: L.-C. Yang and A. Lerch, "On the evaluation of generative models in music", Neural Computing and Applications
32, 2020; bandwidth of the smoothing: D. W. Scott, Multivariate Density Estimation, 1992.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from musicgen_ext.midi import DRUM_CHANNEL, Score

Floats = npt.NDArray[np.float64]

FEATURES = ("pitch_classes", "pitch_range", "note_density", "inter_onset_intervals", "durations", "polyphony")
"""What is counted in a piece.

``pitch_classes``, ``inter_onset_intervals`` and ``durations`` are histograms, shares of the notes (12 classes, and note
values from a 32nd to a breve), ``polyphony`` is one of time (0, 1 … 7 or more keys that sound); ``pitch_range`` is in
semitones, ``note_density`` in notes a quarter.
"""

# Between note values, in quarters: a sixteenth is from 3/16 to 7/24, so that triplets are nearest to their own kind.
_NOTE_VALUES = np.array([3 / 16, 7 / 24, 5 / 12, 7 / 12, 17 / 24, 7 / 8, 5 / 4, 7 / 4, 5 / 2, 7 / 2])
_MOST_KEYS = 7  # that are told apart
_GRID = 512  # points of the densities


def features(score: Score) -> dict[str, Floats]:
    """What can be counted in a piece, by the names of `FEATURES`; drums are not heard.

    Returns
    -------
    features : dict of str to np.ndarray [shape=(d,)], float64
        d is 1 for numbers. All 0 for a piece without notes.
    """
    notes = score.notes[score.notes["channel"] != DRUM_CHANNEL]
    values = len(_NOTE_VALUES) + 1
    out = {name: np.zeros(1) for name in FEATURES}
    out |= {"pitch_classes": np.zeros(12), "inter_onset_intervals": np.zeros(values), "durations": np.zeros(values)}
    out["polyphony"] = np.zeros(_MOST_KEYS + 1)
    if not len(notes):
        return out
    start = notes["start"] / score.ticks_per_quarter
    duration = notes["duration"] / score.ticks_per_quarter
    pitch = notes["pitch"].astype(np.int64)
    out["pitch_classes"] = np.bincount(pitch % 12, minlength=12) / len(notes)
    out["pitch_range"] = np.array([float(np.ptp(pitch))])
    onsets = np.unique(start)
    end = start + duration
    out["note_density"] = np.array([len(notes) / max(float(end.max() - onsets[0]), 1.0)])
    if len(onsets) > 1:
        out["inter_onset_intervals"] = _shares(np.diff(onsets))
    out["durations"] = _shares(duration)
    times = np.concatenate([start, end])
    order = np.argsort(times, kind="stable")
    sounding = np.minimum(np.cumsum(np.repeat([1, -1], len(notes))[order])[:-1], _MOST_KEYS)
    lasting = np.bincount(sounding, weights=np.diff(times[order]), minlength=_MOST_KEYS + 1)
    out["polyphony"] = lasting / max(float(lasting.sum()), 1e-9)
    return out


def overlaps(reference: Sequence[Score], others: Sequence[Score]) -> dict[str, float]:
    """Overlapping area of feature distributions, for every one of `FEATURES` and as ``"mean"``.

    The distances of every two pieces of `reference` (Euclidean, of one feature) are smoothed to a density, and so are
    those of every piece of `reference` to every one of `others`: what the two densities have in common is 1 where the
    others could be of the reference, 0 where they never are as near to it as it is to itself. Both are smoothed alike,
    by Scott's rule for the reference's distances and the number of its pieces: pairs are not independent.

    Parameters
    ----------
    reference, others : sequence of Score
        At least 3 and 1 pieces, all about as long, or their counts say nothing.
    """
    if len(reference) < 3 or not others:
        raise ValueError(f"reference, others: expected at least 3 and 1 pieces, got {len(reference)} and {len(others)}")
    here, there = [features(score) for score in reference], [features(score) for score in others]
    pairs = np.triu_indices(len(here), 1)
    areas = {}
    for name in FEATURES:
        ours = np.stack([counted[name] for counted in here])
        theirs = np.stack([counted[name] for counted in there])
        within = _distances(ours, ours)[pairs]
        width = float(within.std(ddof=1)) * len(here) ** -0.2
        areas[name] = common_area(within, _distances(ours, theirs).ravel(), width)
    areas["mean"] = float(np.mean([areas[name] for name in FEATURES]))
    return areas


def common_area(a: npt.ArrayLike, b: npt.ArrayLike, width: float) -> float:
    """The area under both of two densities, each a sum of normal curves of this width at its values, 0 to 1."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    width = max(width, 4e-3 * (high - low), 1e-9)  # no finer than the grid
    grid, step = np.linspace(low - 4 * width, high + 4 * width, _GRID, retstep=True)
    p, q = (_density(values, width, grid) for values in (x, y))
    return float(min(1.0, np.minimum(p, q).sum() * step))


def excerpts(score: Score, bars: int) -> list[Score]:
    """A piece cut into parts of so many bars; what is left at its end is not one, nor are silent parts."""
    table = score.bars
    cuts = [*table["start"].tolist(), *(table["start"] + table["duration"])[-1:].tolist()][::bars]
    parts = []
    for first, last in itertools.pairwise(cuts):
        part = score.trim(first, last)
        if len(part.notes):
            parts.append(part)
    return parts


def in_one_key(score: Score) -> Score:
    """Moved to the signature of C major and A minor, by the nearest way."""
    if not len(score.key_signatures):
        return score
    sharps = int(score.key_signatures[0]["sharps"])
    shift = (-7 * sharps + 5) % 12 - 5
    return score.transpose(shift) if shift else score


def shuffled(scores: Sequence[Score], seed: int = 0) -> list[Score]:
    """The notes of all pieces dealt out anew: the music that knows how often what occurs, and nothing else.

    Every piece keeps its number of notes. Their pitches, durations and starts (within a piece) are those of all pieces
    together, each shuffled by itself; drums are left out.

    Parameters
    ----------
    scores : sequence of Score
        About as long as each other.
    seed : int
    """
    rng = np.random.default_rng(seed)
    tables = [score.notes[score.notes["channel"] != DRUM_CHANNEL] for score in scores]
    columns = {}
    for name in ("start", "duration", "pitch"):
        parts = [
            table[name] if name == "pitch" else table[name] / score.ticks_per_quarter
            for table, score in zip(tables, scores, strict=True)
        ]
        columns[name] = rng.permutation(np.concatenate(parts))
    made, at = [], 0
    for score, table in zip(scores, tables, strict=True):
        part = slice(at, at + len(table))
        at = part.stop
        division = score.ticks_per_quarter
        made.append(
            Score(
                {
                    "start": np.rint(columns["start"][part] * division).astype(np.int64),
                    "duration": np.maximum(np.rint(columns["duration"][part] * division), 1).astype(np.int64),
                    "pitch": columns["pitch"][part],
                },
                ticks_per_quarter=division,
            )
        )
    return made


def _shares(quarters: npt.NDArray[np.float64]) -> Floats:
    """The note values that lengths are nearest to, as shares of all."""
    bins = np.bincount(np.searchsorted(_NOTE_VALUES, quarters, side="right"), minlength=len(_NOTE_VALUES) + 1)
    shares: Floats = bins / len(quarters)
    return shares


def _distances(a: Floats, b: Floats) -> Floats:
    distances: Floats = np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=-1))
    return distances


def _density(values: Floats, width: float, grid: Floats) -> Floats:
    counts, edges = np.histogram(values, bins=4 * _GRID, range=(grid[0], grid[-1]))  # far finer than the smoothing
    centres = (edges[:-1] + edges[1:]) / 2
    used = counts > 0
    z = (grid[:, None] - centres[None, used]) / width
    density: Floats = (np.exp(-0.5 * z * z) @ counts[used]) / (len(values) * width * np.sqrt(2 * np.pi))
    return density
