"""One number, or a few, for each frame's spectrum.

From a signal they are computed sixteen frames at a time, while their spectra are in cache: no spectrogram is written.
Sums are taken in double precision and rounded once; what comes out is that of librosa's formulas in double precision to
a few eps of float32, which librosa itself, summing in float32, keeps to about 1e-5.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core, checks
from musicgen_ext.features.decibels import power_to_db
from musicgen_ext.features.sources import frequencies_of, spectra_of
from musicgen_ext.features.spectra import PadMode
from musicgen_ext.features.windows import Window

_F32 = npt.NDArray[np.float32]
_F64 = npt.NDArray[np.float64]
_TINY = float(np.finfo(np.float32).tiny)


def spectral_centroid(
    *,
    y: npt.ArrayLike | None = None,
    sr: float = 22050,
    S: npt.ArrayLike | None = None,
    n_fft: int = 2048,
    hop_length: int | None = 512,
    freq: npt.ArrayLike | None = None,
    win_length: int | None = None,
    window: Window = "hann",
    center: bool = True,
    pad_mode: PadMode = "constant",
    check_finite: bool = True,
) -> _F32:
    """Mean frequency of each frame, weighted by the magnitudes.

    Parameters
    ----------
    y : np.ndarray [shape=(..., n)], floating point, optional
        Sound; or
    S : np.ndarray [shape=(..., bins, frames)], floating point >= 0, optional
        a spectrogram of magnitudes, of which ``n_fft = 2 * (bins - 1)`` unless `n_fft` fits too.
    sr : number > 0
        Sample rate, in Hz.
    n_fft, hop_length, win_length, window, center, pad_mode
        As in `stft`; for `y` only.
    freq : np.ndarray [shape=(bins,) or (..., bins, frames)], optional
        Frequency of each bin, in Hz; None: ``k * sr / n_fft``. Frequencies that change from frame to frame are worked
        on by numpy, slowly.
    check_finite : bool
        Look for NaN and infinities in `S` (in `y`, always).

    Returns
    -------
    np.ndarray [shape=(..., 1, frames)], float32
        In Hz; 0 for silence. ``librosa.feature.spectral_centroid``.

    Raises
    ------
    TypeError, ValueError, MemoryError
        An argument of the wrong type, out of its range, negative magnitudes, NaN, infinities; the message names it.
    """
    found = spectra_of(y, S, n_fft, hop_length, win_length, window, center, pad_mode, check_finite)
    frequencies = frequencies_of(freq, sr, found)
    if frequencies.ndim > 1:
        return _plain_centroid(found.magnitudes(), frequencies)
    out = found.room("centroid")
    _core.spectral_centroid(found.tiles(), frequencies, out)
    return found.shaped(out)


def spectral_bandwidth(
    *,
    y: npt.ArrayLike | None = None,
    sr: float = 22050,
    S: npt.ArrayLike | None = None,
    n_fft: int = 2048,
    hop_length: int | None = 512,
    win_length: int | None = None,
    window: Window = "hann",
    center: bool = True,
    pad_mode: PadMode = "constant",
    freq: npt.ArrayLike | None = None,
    centroid: npt.ArrayLike | None = None,
    norm: bool = True,
    p: float = 2,
    check_finite: bool = True,
) -> _F32:
    """Spread of each frame's frequencies: ``(sum S |freq - centroid|^p)^(1/p)``.

    Parameters
    ----------
    y, sr, S, n_fft, hop_length, win_length, window, center, pad_mode, freq, check_finite
        As in `spectral_centroid`.
    centroid : np.ndarray [shape=(..., 1, frames)], floating point, optional
        The frequencies around which; None: those of `spectral_centroid`.
    norm : bool
        Divide the magnitudes of a frame by their sum first.
    p : float > 0
        2 is fast.

    Returns
    -------
    np.ndarray [shape=(..., 1, frames)], float32
        In Hz, with `norm`. ``librosa.feature.spectral_bandwidth``.
    """
    p = checks.real("p", p, above=0)
    found = spectra_of(y, S, n_fft, hop_length, win_length, window, center, pad_mode, check_finite)
    frequencies = frequencies_of(freq, sr, found)
    centres = None
    if centroid is not None:
        centres = checks.floats("centroid", centroid)
        expected = (*found.leading, 1, found.frames)
        if centres.shape != expected:
            raise ValueError(f"centroid: expected shape {expected}, got {centres.shape}")
    if frequencies.ndim > 1:
        return _plain_bandwidth(found.magnitudes(), frequencies, centres, norm, p)
    out = found.room("bandwidth")
    given = None if centres is None else centres.reshape(out.shape)
    _core.spectral_bandwidth(found.tiles(), frequencies, given, bool(norm), p, out)
    if not norm and found.exponent:
        out *= np.float32(2.0 ** min(found.exponent / p, 127))
    return found.shaped(out)


def spectral_rolloff(
    *,
    y: npt.ArrayLike | None = None,
    sr: float = 22050,
    S: npt.ArrayLike | None = None,
    n_fft: int = 2048,
    hop_length: int | None = 512,
    win_length: int | None = None,
    window: Window = "hann",
    center: bool = True,
    pad_mode: PadMode = "constant",
    freq: npt.ArrayLike | None = None,
    roll_percent: float = 0.85,
    check_finite: bool = True,
) -> _F32:
    """The frequency below which a share of each frame's magnitudes lies.

    Parameters
    ----------
    y, sr, S, n_fft, hop_length, win_length, window, center, pad_mode, freq, check_finite
        As in `spectral_centroid`.
    roll_percent : float, greater than 0, less than 1
        The share.

    Returns
    -------
    np.ndarray [shape=(..., 1, frames)], float32
        In Hz: the frequency of the first bin at which the sum from below reaches the share (the lowest frequency from
        there on, where `freq` does not rise). ``librosa.feature.spectral_rolloff``; where a sum and the share agree to
        float32's precision, librosa's sum may reach it a bin away.
    """
    roll_percent = checks.real("roll_percent", roll_percent, above=0)
    if roll_percent >= 1:
        raise ValueError(f"roll_percent: expected less than 1, got {roll_percent:g}")
    found = spectra_of(y, S, n_fft, hop_length, win_length, window, center, pad_mode, check_finite)
    frequencies = frequencies_of(freq, sr, found)
    if frequencies.ndim > 1:
        return _plain_rolloff(found.magnitudes(), frequencies, roll_percent)
    lowest = np.ascontiguousarray(np.minimum.accumulate(frequencies[::-1])[::-1])
    out = found.room("rolloff")
    _core.spectral_rolloff(found.tiles(), lowest, roll_percent, out)
    return found.shaped(out)


def spectral_flatness(
    *,
    y: npt.ArrayLike | None = None,
    S: npt.ArrayLike | None = None,
    n_fft: int = 2048,
    hop_length: int | None = 512,
    win_length: int | None = None,
    window: Window = "hann",
    center: bool = True,
    pad_mode: PadMode = "constant",
    amin: float = 1e-10,
    power: float = 2.0,
    check_finite: bool = True,
) -> _F32:
    """How noise-like each frame is: geometric over arithmetic mean, 0 for a tone, 1 for white noise.

    Parameters
    ----------
    y, S, n_fft, hop_length, win_length, window, center, pad_mode, check_finite
        As in `spectral_centroid`.
    amin : float > 0
        What ``S^power`` counts as at least.
    power : float > 0
        1 and 2 are fast.

    Returns
    -------
    np.ndarray [shape=(..., 1, frames)], float32
        ``librosa.feature.spectral_flatness``.
    """
    amin, power = checks.real("amin", amin, above=0), checks.real("power", power, above=0)
    found = spectra_of(y, S, n_fft, hop_length, win_length, window, center, pad_mode, check_finite)
    out = found.room("flatness")
    _core.spectral_flatness(found.tiles(), power, max(amin * 2.0 ** (-found.exponent * power), 1e-300), out)
    return found.shaped(out)


def spectral_contrast(
    *,
    y: npt.ArrayLike | None = None,
    sr: float = 22050,
    S: npt.ArrayLike | None = None,
    n_fft: int = 2048,
    hop_length: int | None = 512,
    win_length: int | None = None,
    window: Window = "hann",
    center: bool = True,
    pad_mode: PadMode = "constant",
    freq: npt.ArrayLike | None = None,
    fmin: float = 200.0,
    n_bands: int = 6,
    quantile: float = 0.02,
    linear: bool = False,
    check_finite: bool = True,
) -> _F32:
    """Difference between peaks and valleys in octave bands.

    Parameters
    ----------
    y, sr, S, n_fft, hop_length, win_length, window, center, pad_mode, check_finite
        As in `spectral_centroid`.
    freq : np.ndarray [shape=(bins,)], optional
    fmin : float > 0
        The lowest band reaches from 0 Hz to `fmin`, the others double.
    n_bands : int > 0
        How many bands, besides the lowest.
    quantile : float, greater than 0, less than 1
        Share of a band's bins whose mean is its peak, and its valley.
    linear : bool
        The difference of the magnitudes; False: of 10 times their logarithms, each limited to 80 below its highest.

    Returns
    -------
    np.ndarray [shape=(..., n_bands + 1, frames)], float32
        ``librosa.feature.spectral_contrast``.

    Notes
    -----
    Source: D.-N. Jiang et al., Music Type Classification by Spectral Contrast Feature, ICME 2002.
    """
    fmin, n_bands = checks.real("fmin", fmin, above=0), checks.integer("n_bands", n_bands, 1, 1000)
    quantile = checks.real("quantile", quantile, above=0)
    if quantile >= 1:
        raise ValueError(f"quantile: expected less than 1, got {quantile:g}")
    sr = checks.rate(sr)
    if fmin * 2.0 ** (n_bands - 1) >= sr / 2:
        raise ValueError(
            f"n_bands: expected bands that begin below sr / 2 = {sr / 2:g} Hz, got {n_bands} from fmin={fmin:g} Hz"
        )
    found = spectra_of(y, S, n_fft, hop_length, win_length, window, center, pad_mode, check_finite)
    frequencies = frequencies_of(freq, sr, found)
    if frequencies.ndim > 1:
        raise ValueError(f"freq: expected shape ({found.bins},), got {frequencies.shape}")
    bands = _octaves(frequencies, fmin, n_bands, quantile)
    shape = (found.channels, n_bands + 1, found.frames)
    valley, peak = checks.empty("valley", shape), checks.empty("peak", shape)
    _core.spectral_extremes(found.tiles(), bands, valley, peak)
    valley, peak = found.restored(valley), found.restored(peak)
    if linear:
        contrast = np.subtract(peak, valley, out=peak)
    else:
        contrast = power_to_db(peak, check_finite=False) - power_to_db(valley, check_finite=False)
    return contrast.reshape(*found.leading, n_bands + 1, found.frames)


def _octaves(frequencies: _F64, fmin: float, n_bands: int, quantile: float) -> list[tuple[int, int, int]]:
    """(first bin, one past the last, how many to average) of each band, with librosa's neighbours and omissions."""
    edges = [0.0, *(fmin * 2.0**k for k in range(n_bands + 1))]
    bands = []
    for k in range(n_bands + 1):
        inside = np.flatnonzero((frequencies >= edges[k]) & (frequencies <= edges[k + 1]))
        last = k == n_bands
        if len(inside) == 0 or (k > 0 and inside[0] == 0):
            raise ValueError(
                f"n_bands: expected bins in every band, got none between {edges[k]:g} and {edges[k + 1]:g} Hz "
                f"with n_bands={n_bands}, fmin={fmin:g}"
            )
        if not np.array_equal(inside, np.arange(inside[0], inside[-1] + 1)):
            raise ValueError("freq: expected rising frequencies, got some out of order")
        low = int(inside[0]) - (k > 0)
        high = len(frequencies) if last else int(inside[-1]) + 1
        count = max(1, int(np.rint(quantile * (high - low))))
        if not last:
            high -= 1  # the neighbour's
        if high <= low:
            raise ValueError(
                f"n_bands: expected at least 2 bins in every band, got 1 between {edges[k]:g} and {edges[k + 1]:g} Hz "
                f"with n_bands={n_bands}, fmin={fmin:g}"
            )
        bands.append((low, high, min(count, high - low)))
    return bands


# -- frequencies that change from frame to frame -----------------------------------------------------------------------


def _shares(S: _F32) -> _F64:
    total = S.sum(axis=-2, keepdims=True, dtype=np.float64)
    return S / np.where(total < _TINY, 1, total)


def _plain_centroid(S: _F32, freq: _F64) -> _F32:
    centroid: _F64 = (freq * _shares(S)).sum(axis=-2, keepdims=True)
    return centroid.astype(np.float32)


def _plain_bandwidth(S: _F32, freq: _F64, centres: _F32 | None, norm: bool, p: float) -> _F32:
    shares = _shares(S)
    around = (freq * shares).sum(axis=-2, keepdims=True) if centres is None else centres
    bandwidth: _F64 = ((shares if norm else S) * np.abs(freq - around) ** p).sum(axis=-2, keepdims=True) ** (1 / p)
    return bandwidth.astype(np.float32)


def _plain_rolloff(S: _F32, freq: _F64, share: float) -> _F32:
    sums = np.cumsum(S, axis=-2, dtype=np.float64)
    reached = sums >= share * sums[..., -1:, :]
    rolloff: _F64 = np.where(reached, freq, np.inf).min(axis=-2, keepdims=True)
    return rolloff.astype(np.float32)
