"""Find a short clip in a library of pieces: where do its feature vectors go best?"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core, checks
from musicgen_ext.audio import Audio, read_audio
from musicgen_ext.features import named
from musicgen_ext.signals import to_mono

Item = npt.ArrayLike | Audio | str | os.PathLike[str]
Feature = Literal["chroma", "mfcc", "logmel", "mel"]
Method = Literal["ncc", "dtw"]
Metric = Literal["cosine", "euclidean"]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_SR = 22_050
_MOST_FRAMES = 2**30 - 1
_MOST_PATH_BYTES = 2**32


@dataclass(frozen=True)
class Match:
    """A stretch of a piece that is like the clip.

    Attributes
    ----------
    piece : int or str
        Which one of the library: its index, or its name in a mapping.
    start, end : float
        Seconds from the beginning of the piece; the stretch ends before `end`.
    score : float
        Higher is better. ``"ncc"``: the correlation, at most 1. ``"dtw"``: minus the cost of the path over the frames
        of the clip, at most 0.
    frames : (int, int)
        The first frame of the stretch, and the one after its last.
    path : np.ndarray [shape=(steps, 2)], int64, or None
        With ``path=True``: pairs of a frame of the clip and a frame of the piece, in order.
    """

    piece: int | str
    start: float
    end: float
    score: float
    frames: tuple[int, int]
    path: Ints | None = field(default=None, compare=False, repr=False)


def match(
    query: Item,
    library: Mapping[str, Item] | Sequence[Item],
    *,
    feature: Feature = "chroma",
    method: Method = "ncc",
    top: int = 5,
    sr: int | None = None,
    hop_length: int = 512,
    center: bool = True,
    metric: Metric = "cosine",
    step_weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    path: bool = False,
    threads: int | None = None,
    **options: Any,
) -> list[Match]:
    """The places in a library of pieces that are most like a clip.

    Parameters
    ----------
    query : Audio, path or np.ndarray
        The clip: a sound, a sound file, an array of samples [shape=(n,)], or a feature vector for every frame
        [shape=(dims, m)]. Channels are averaged.
    library : mapping of names to pieces, or sequence of pieces
        Every piece as the query.
    feature : "chroma", "mfcc", "logmel" or "mel"
        What sounds are compared by. Chroma knows harmonies and no timbres; `mfcc` the other way round.
    method : "ncc" or "dtw"
        Normalised cross-correlation: the clip at its own speed. Subsequence dynamic time warping: slower, faster, or
        with a tempo of its own.
    top : int > 0
        How many places at most. Two places in one piece do not overlap.
    sr : int, optional
        Sample rate to compare at; sounds of another one are resampled, which needs soxr. None: that of the query, or
        22050 where it is an array.
    hop_length : int > 0
        Samples from one frame to the next, of `sr`.
    center : bool
        ``"ncc"``: take the mean of every row off, in the clip and in each stretch, so that a constant added to a row (a
        gain, in log spectra and cepstra) makes no difference. A sound that does not change then matches nothing.
    metric : "cosine" or "euclidean"
        ``"dtw"``: the cost C of a frame against a frame, 1 - cos or the distance. Silence (zeros) is like silence
        (cosine cost 0) and unlike any sound (1).
    step_weights : three numbers > 0
        ``"dtw"``: what C counts for in the steps (1, 1), (0, 1), (1, 0), in frames of clip and piece. The first of
        equally cheap steps is taken.
    path : bool
        ``"dtw"``: with the alignment of each match, which takes 4 bytes for every frame of the clip times every frame
        of the stretch.
    threads : int, optional
        How many pieces are searched at a time; None: one for every core. The result is the same for any number.
    **options
        For the function that computes the feature: `n_fft`, `n_mfcc` …

    Returns
    -------
    list of Match
        Best first; of equal ones, in the order of the library, then of time. With ``"ncc"``, pieces shorter than the
        clip have none; with silence on a side the score is 0.

    Raises
    ------
    TypeError, ValueError
        An argument of the wrong type, shape or range; a NaN or infinity; every piece shorter than the clip (``"ncc"``).
    MemoryError
        A path of more than 4 GiB.
    OSError, ImportError
        A file that cannot be opened; soundfile or soxr is needed and missing.

    Examples
    --------
    Which recording, and where:

    >>> mg.match("clip.wav", {"a": "a.flac", "b": "b.flac"}, method="dtw", top=1)  # doctest: +SKIP
    [Match(piece='b', start=61.2, end=66.4, score=-0.08, frames=(2636, 2860))]

    Feature vectors of one's own:

    >>> import numpy as np, musicgen_ext as mg
    >>> rng = np.random.default_rng(0)
    >>> pieces = {name: rng.random((12, 1000), np.float32) for name in ("prelude", "fugue")}
    >>> clip = pieces["fugue"][:, 300:400]
    >>> best = mg.match(clip, pieces, top=1)[0]
    >>> best.piece, best.frames, round(best.start, 2)
    ('fugue', (300, 400), 6.97)

    Notes
    -----
    Memory grows with the frames of the library, never with clip times piece. So does the time of ``"ncc"`` (from clips
    of some seconds on, products are made by Fourier transforms); that of ``"dtw"`` is clip times piece: a minute of
    chroma against ten takes some milliseconds with the first, some tens with the second.
    Source: M. Müller, Fundamentals of Music Processing, Springer 2015, sections 7.1 and 7.2.
    """
    checks.choice("method", method, ("ncc", "dtw"))
    checks.choice("metric", metric, ("cosine", "euclidean"))
    top = checks.integer("top", top)
    hop_length = checks.integer("hop_length", hop_length)
    weights = _weights(step_weights)
    threads = (os.cpu_count() or 1) if threads is None else checks.integer("threads", threads, 1, 1024)
    if path and method != "dtw":
        raise ValueError(f"path: expected method='dtw', the only one with paths, got {method!r}")
    checks.choice("feature", feature, ("chroma", "mfcc", "logmel", "mel"))
    names, items = _named(library)
    if isinstance(query, str | os.PathLike):
        query = read_audio(query)
    if sr is None:
        sr = query.sr if isinstance(query, Audio) else _SR
    sr = checks.integer("sr", sr)
    options["hop_length"] = hop_length
    clip = _features("query", query, feature, sr, options)
    pieces = []
    for name, item in zip(names, items, strict=True):
        piece = _features(f"library[{name!r}]", item, feature, sr, options)
        if piece.shape[0] != clip.shape[0]:
            raise ValueError(
                f"library[{name!r}]: expected {clip.shape[0]} rows of features as in the query, got {piece.shape}"
            )
        pieces.append(piece)
    if method == "ncc" and all(piece.shape[1] < clip.shape[1] for piece in pieces):
        longest = max(piece.shape[1] for piece in pieces)
        raise ValueError(f"query: expected at most the {longest} frames of the longest piece, got {clip.shape[1]}")

    found: list[tuple[float, int, int, int]] = []  # loss, piece, start, stop: in the order of the result
    if method == "ncc":
        for k, curve in enumerate(_core.match_correlate(clip, pieces, bool(center), threads)):
            start = np.arange(len(curve))
            found += [(loss, k, a, b) for loss, a, b in _best(-curve, start, start + clip.shape[1], top)]
    else:
        for k, (cost, start) in enumerate(_core.match_warp(clip, pieces, metric, weights, threads)):
            losses = cost.astype(np.float64) / clip.shape[1]
            found += [(loss, k, a, b) for loss, a, b in _best(losses, start, np.arange(1, len(cost) + 1), top)]
    found = sorted(found)[:top]
    second = hop_length / sr
    return [
        Match(
            names[k],
            start * second,
            stop * second,
            0.0 - loss,
            (start, stop),
            _path(clip, pieces[k][:, start:stop], metric, weights, start) if path else None,
        )
        for loss, k, start, stop in found
    ]


# -- helpers ---------------------------------------------------------------------------------------------------------


def _named(library: Any) -> tuple[list[Any], list[Any]]:
    """The names of the pieces, and what was given for them."""
    if isinstance(library, Mapping):
        names, items = list(library.keys()), list(library.values())
    elif isinstance(library, Sequence) and not isinstance(library, str | bytes):
        names, items = list(range(len(library))), list(library)
    else:
        raise TypeError(f"library: expected a sequence or a mapping of pieces, got {type(library).__name__}")
    if not items:
        raise ValueError("library: expected at least 1 piece, got none")
    return names, items


def _features(name: str, item: Any, feature: str, sr: int, options: dict[str, Any]) -> Floats:
    """The feature vectors of an item [shape=(dims, frames)]."""
    if isinstance(item, str | os.PathLike):
        item = read_audio(item)
    if isinstance(item, Audio):
        array = to_mono((item if item.sr == sr else item.resample(sr)).y)
    else:
        array = checks.floats(name, item)
    if array.ndim == 1 and array.size:
        if feature == "chroma":  # tuned alike, or a clip and its piece might get different ones
            options = {"tuning": 0.0, **options}
        array = np.ascontiguousarray(named.compute(feature, array, sr, **options))
    if array.ndim != 2 or array.size == 0 or array.shape[1] > _MOST_FRAMES:
        raise ValueError(
            f"{name}: expected samples (n,) or features (dims, frames), 1 to {_MOST_FRAMES} frames, got {array.shape}"
        )
    return array


def _weights(values: Any) -> tuple[float, float, float]:
    try:
        diagonal, piece, clip = values
    except (TypeError, ValueError):
        raise ValueError(f"step_weights: expected three numbers, got {values!r}") from None
    first, second, third = (checks.real("step_weights", w, high=1e6, above=0) for w in (diagonal, piece, clip))
    return first, second, third


def _best(loss: npt.NDArray[Any], start: npt.NDArray[Any], stop: Ints, top: int) -> list[tuple[float, int, int]]:
    """(loss, start, stop) of the places with the least loss that do not overlap; of equal ones, the earlier first."""
    loss = loss.astype(np.float64)
    found: list[tuple[float, int, int]] = []
    while len(found) < top and loss.size:
        k = int(np.argmin(loss))
        if loss[k] == np.inf:
            break
        first, last = int(start[k]), int(stop[k])
        found.append((float(loss[k]), first, last))
        loss[(start < last) & (stop > first)] = np.inf
    return found


def _path(clip: Floats, stretch: Floats, metric: str, weights: tuple[float, float, float], first: int) -> Ints:
    bytes_needed = 4 * 16 * -(-clip.shape[1] // 16) * (stretch.shape[1] + 16)
    if bytes_needed > _MOST_PATH_BYTES:
        raise MemoryError(f"path: expected at most {_MOST_PATH_BYTES} bytes, got {bytes_needed}")
    pairs = _core.match_warp_path(clip, np.ascontiguousarray(stretch), metric, weights)
    pairs[:, 1] += first
    return pairs
