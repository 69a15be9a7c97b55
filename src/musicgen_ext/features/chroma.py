"""Energy in the twelve pitch classes, and how far an instrument is tuned from A = 440 Hz."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core, checks
from musicgen_ext.features.sources import Spectra, frequencies_of, spectra_of
from musicgen_ext.features.spectra import PadMode
from musicgen_ext.features.windows import Window

_F32 = npt.NDArray[np.float32]
_F64 = npt.NDArray[np.float64]
_TINY = float(np.finfo(np.float32).tiny)


def chroma_stft(
    *,
    y: npt.ArrayLike | None = None,
    sr: float = 22050,
    S: npt.ArrayLike | None = None,
    norm: float | None = np.inf,
    n_fft: int = 2048,
    hop_length: int | None = 512,
    win_length: int | None = None,
    window: Window = "hann",
    center: bool = True,
    pad_mode: PadMode = "constant",
    tuning: float | None = None,
    n_chroma: int = 12,
    ctroct: float = 5.0,
    octwidth: float | None = 2.0,
    base_c: bool = True,
    check_finite: bool = True,
) -> _F32:
    """Chromagram of a signal, or of a power spectrogram.

    Parameters
    ----------
    y, sr, n_fft, hop_length, win_length, window, center, pad_mode, check_finite
        As in `spectral_centroid`.
    S : np.ndarray [shape=(..., bins, frames)], floating point >= 0, optional
        A power spectrogram.
    norm : float > 0, inf, -inf, 0 or None
        Each frame is divided by this norm of it; None: as it is.
    tuning : float, optional
        From A = 440 Hz, in parts of a chroma bin; None: that of `estimate_tuning`.
    n_chroma : int > 0
        Pitch classes of an octave.
    ctroct, octwidth, base_c
        As in `chroma_filter`.

    Returns
    -------
    np.ndarray [shape=(..., n_chroma, frames)], float32
        ``librosa.feature.chroma_stft``.

    Notes
    -----
    Source: D. P. W. Ellis, Chroma Feature Analysis and Synthesis, 2007.
    """
    norm = _norm(norm)
    n_chroma = checks.integer("n_chroma", n_chroma, 1, 10_000)
    found = spectra_of(y, S, n_fft, hop_length, win_length, window, center, pad_mode, check_finite, power=2.0)
    if tuning is None:  # needs the spectra once more
        found = found.computed()
        # librosa looks for peaks with the default n_fft, or the one that the bins tell
        n_fft = 2048 if found.bins == 1025 else max(1, 2 * (found.bins - 1))
        tuning = _tuning(found._replace(n_fft=n_fft), checks.rate(sr), 0.01, n_chroma)
    weights = chroma_filter(
        sr=sr, n_fft=found.n_fft, n_chroma=n_chroma, tuning=tuning, ctroct=ctroct, octwidth=octwidth, base_c=base_c
    )
    raw = checks.empty("chroma", (found.channels, n_chroma, found.frames))
    _core.spectral_sums(found.tiles(), weights.astype(np.float64), raw)
    chroma = _normalized(raw, norm).reshape(*found.leading, n_chroma, found.frames)
    return chroma if norm is not None else found.restored(chroma)


def chroma_filter(
    *,
    sr: float,
    n_fft: int,
    n_chroma: int = 12,
    tuning: float = 0.0,
    ctroct: float = 5.0,
    octwidth: float | None = 2.0,
    norm: float | None = 2,
    base_c: bool = True,
) -> _F32:
    """Weights of each bin of a spectrum in each pitch class: a Gaussian around its pitch.

    Parameters
    ----------
    sr : number > 0
        Sample rate, in Hz.
    n_fft : int > 1
    n_chroma : int > 0
        Pitch classes of an octave.
    tuning : float
        From A = 440 Hz, in parts of a chroma bin.
    ctroct, octwidth : float
        Centre and width, in octaves above 27.5 Hz, of a Gaussian that lets the middle octaves weigh most; None for the
        width: all weigh the same.
    norm : float > 0, inf, -inf, 0 or None
        Each bin's weights are divided by this norm of them.
    base_c : bool
        Begin at C; False: at A.

    Returns
    -------
    np.ndarray [shape=(n_chroma, 1 + n_fft // 2)], float32
        ``librosa.filters.chroma``, computed in double precision.
    """
    sr, n_fft = checks.rate(sr), checks.integer("n_fft", n_fft, 2)
    n_chroma = checks.integer("n_chroma", n_chroma, 1, 10_000)
    tuning, ctroct = checks.real("tuning", tuning), checks.real("ctroct", ctroct)
    octwidth = None if octwidth is None else checks.real("octwidth", octwidth, above=0)
    checks.empty("chroma_filter", (n_chroma, 1 + n_fft // 2), np.float64)  # fits, or raises
    return _filter(sr, n_fft, n_chroma, tuning, ctroct, octwidth, _norm(norm), bool(base_c)).copy()


@lru_cache(maxsize=8)
def _filter(
    sr: float, n_fft: int, n_chroma: int, tuning: float, ctroct: float, octwidth: float | None, norm: float | None,
    base_c: bool,
) -> _F32:  # fmt: skip
    bins = 1 + n_fft // 2
    above = np.arange(1, min(bins + 1, n_fft)) * (sr / n_fft)
    places = n_chroma * np.log2(above / (440.0 * 2.0 ** (tuning / n_chroma) / 16))
    places = np.concatenate([[places[0] - 1.5 * n_chroma], places])  # the first bin: an octave and a half below
    widths = np.maximum(np.diff(places), 1.0)
    widths = np.concatenate([widths, [1.0]])[:bins]
    places = places[:bins]
    half = round(n_chroma / 2)
    distances = (places - np.arange(n_chroma)[:, None] + half + 10 * n_chroma) % n_chroma - half
    weights: _F64 = np.exp(-0.5 * (2 * distances / widths) ** 2)
    lengths = _lengths(weights, norm)
    if lengths is not None:
        weights /= np.where(lengths < np.finfo(np.float64).tiny, 1, lengths)
    if octwidth is not None:
        weights *= np.exp(-0.5 * ((places / n_chroma - ctroct) / octwidth) ** 2)
    if base_c:
        weights = np.roll(weights, -3 * (n_chroma // 12), axis=0)
    return np.ascontiguousarray(weights, np.float32)


def estimate_tuning(
    *,
    y: npt.ArrayLike | None = None,
    sr: float = 22050,
    S: npt.ArrayLike | None = None,
    n_fft: int = 2048,
    resolution: float = 0.01,
    bins_per_octave: int = 12,
    hop_length: int | None = None,
    fmin: float = 150.0,
    fmax: float = 4000.0,
    threshold: float = 0.1,
    win_length: int | None = None,
    window: Window = "hann",
    center: bool = True,
    pad_mode: PadMode = "constant",
    check_finite: bool = True,
) -> float:
    """How far the pitches of a sound lie from A = 440 Hz, in parts of a chroma bin.

    Peaks of the spectra between `fmin` and `fmax` that reach `threshold` of the highest of their frame are refined by a
    parabola; of those that are at least as high as the median of all, the commonest deviation is the result.

    Parameters
    ----------
    y, sr, S, n_fft, win_length, window, center, pad_mode, check_finite
        As in `spectral_centroid`.
    hop_length : int > 0, optional
        None: a quarter of `win_length`.
    resolution : float, greater than 0, at most 1
        Of the result.
    bins_per_octave : int > 0
        12: deviations are parts of a semitone.

    Returns
    -------
    float
        In [-0.5, 0.5); 0, with a warning, where there are no peaks. ``librosa.estimate_tuning``, for which a deviation
        at the edge between two steps of `resolution` may fall into the other one.
    """
    found = spectra_of(y, S, n_fft, hop_length, win_length, window, center, pad_mode, check_finite)
    bins_per_octave = checks.integer("bins_per_octave", bins_per_octave)
    resolution = checks.real("resolution", resolution, 1e-6, 1)
    return _tuning(found, checks.rate(sr), resolution, bins_per_octave, fmin, fmax, threshold)


def _tuning(
    found: Spectra, sr: float, resolution: float, bins_per_octave: int,
    fmin: float = 150.0, fmax: float = 4000.0, threshold: float = 0.1,
) -> float:  # fmt: skip
    fmin, fmax = max(checks.real("fmin", fmin), 0.0), min(checks.real("fmax", fmax), sr / 2)
    threshold = checks.real("threshold", threshold, 0)
    low, high = np.searchsorted(frequencies_of(None, sr, found), [fmin, fmax])
    positions, heights = _core.spectral_peaks(found.tiles(), int(low), int(high), threshold)
    if len(positions) == 0:
        warnings.warn(
            "estimate_tuning: expected peaks of the spectra, got none: the tuning is taken as 0", stacklevel=4
        )
        return 0.0
    strong = positions[heights >= np.median(heights)].astype(np.float64) * (sr / found.n_fft)
    deviations = np.mod(bins_per_octave * np.log2(strong / 27.5), 1.0)
    deviations[deviations >= 0.5] -= 1.0
    counts, edges = np.histogram(deviations, np.linspace(-0.5, 0.5, math.ceil(1.0 / resolution) + 1))
    return float(edges[np.argmax(counts)])


# -- norms -------------------------------------------------------------------------------------------------------------


def _norm(norm: Any) -> float | None:
    if norm is None:
        return None
    if isinstance(norm, bool | str) or not np.isscalar(norm):
        raise TypeError(f"norm: expected a number or None, got {norm!r}")
    number = float(norm)  # type: ignore[arg-type]
    if math.isnan(number) or (number < 0 and number != -math.inf):
        raise ValueError(f"norm: expected a number >= 0, inf, -inf or None, got {norm!r}")
    return number


def _lengths(values: npt.NDArray[Any], norm: float | None) -> _F64 | None:
    """The norm of each column, (..., 1, columns)."""
    if norm is None:
        return None
    magnitudes = np.abs(values)
    lengths: npt.NDArray[Any]
    if norm == math.inf:
        lengths = magnitudes.max(axis=-2, keepdims=True)
    elif norm == -math.inf:
        lengths = magnitudes.min(axis=-2, keepdims=True)
    elif norm == 0:
        lengths = (magnitudes > 0).sum(axis=-2, keepdims=True)
    else:
        lengths = (magnitudes.astype(np.float64) ** norm).sum(axis=-2, keepdims=True) ** (1 / norm)
    return lengths.astype(np.float64)


def _normalized(raw: _F32, norm: float | None) -> _F32:
    lengths = _lengths(raw, norm)
    if lengths is not None:
        np.divide(raw, np.where(lengths < _TINY, 1, lengths), out=raw, casting="same_kind")
    return raw
