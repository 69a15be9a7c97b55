"""Where notes begin, and how fast the beat goes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core, checks
from musicgen_ext.features import spectra
from musicgen_ext.features.decibels import power_to_db
from musicgen_ext.features.mel import melspectrogram
from musicgen_ext.features.windows import Window

_F32 = npt.NDArray[np.float32]
_F64 = npt.NDArray[np.float64]
_TINY = float(np.finfo(np.float32).tiny)


def onset_strength(
    *,
    y: npt.ArrayLike | None = None,
    sr: float = 22050,
    S: npt.ArrayLike | None = None,
    lag: int = 1,
    max_size: int = 1,
    ref: npt.ArrayLike | None = None,
    detrend: bool = False,
    center: bool = True,
    feature: Callable[..., Any] | None = None,
    aggregate: Callable[..., Any] | None = None,
    n_fft: int = 2048,
    hop_length: int = 512,
    check_finite: bool = True,
    **options: Any,
) -> _F32:
    """How much louder each frame is than one before: the mean rise over all bands.

    Parameters
    ----------
    y : np.ndarray [shape=(..., n)], floating point, optional
        Sound; or
    S : np.ndarray [shape=(..., bands, frames)], floating point, optional
        a spectrogram, in decibels.
    sr : number > 0
        Sample rate, in Hz.
    lag : int > 0
        How many frames before.
    max_size : int > 0
        The loudest of so many neighbouring bands counts for the frame before.
    ref : np.ndarray [the shape of `S`], floating point, optional
        What counts for the frame before instead.
    detrend : bool
        Take slow changes out: ``out[t] = in[t] - in[t - 1] + 0.99 out[t - 1]``.
    center : bool
        Frame t lies around sample ``t * hop_length`` of `y`: the result is shifted by half a frame.
    feature : callable, optional
        ``feature(y=y, sr=sr, n_fft=…, hop_length=…, **options)`` gives the power spectrogram whose decibels `S` are;
        None: `melspectrogram` up to ``fmax=sr / 2``.
    aggregate : callable, optional
        ``aggregate(rises, axis=-2)`` over the bands; None: the mean.
    check_finite : bool
        Look for NaN and infinities in `S` and `ref` (in `y`, always).

    Returns
    -------
    np.ndarray [shape=(..., frames)], float32
        ``librosa.onset.onset_strength``. 0 for the first `lag` frames, however few there are.

    Notes
    -----
    Source: S. Böck and G. Widmer, Maximum Filter Vibrato Suppression for Onset Detection, DAFx 2013.
    """
    lag, max_size = checks.integer("lag", lag), checks.integer("max_size", max_size)
    n_fft, hop_length, _ = checks.framing(n_fft, hop_length)
    if S is None:
        if y is None:
            raise ValueError("y: expected a signal, or a spectrogram S, got neither")
        if feature is None:
            feature = melspectrogram
            options.setdefault("fmax", 0.5 * checks.rate(sr))
        powers = np.abs(feature(y=y, sr=sr, n_fft=n_fft, hop_length=hop_length, **options))
        levels = power_to_db(powers, check_finite=check_finite)
        levels = np.atleast_2d(levels)
    else:
        levels = np.atleast_2d(checks.dense("S", S, check_finite=check_finite))
        checks.spectrogram(levels, check_finite=False)
    frames = levels.shape[-1]
    if ref is not None:
        before = checks.floats("ref", ref, check_finite=check_finite)
        if before.shape != levels.shape:
            raise ValueError(f"ref: expected the shape of S, {levels.shape}, got {before.shape}")
    elif max_size == 1:
        before = levels
    else:
        # As scipy.ndimage.maximum_filter1d: centred, the edges mirrored with their last band repeated.
        left = max_size // 2
        padding = [(0, 0)] * levels.ndim
        padding[-2] = (left, max_size - 1 - left)
        padded = np.pad(levels, padding, "symmetric")
        before = padded[..., : levels.shape[-2], :].copy()
        for k in range(1, max_size):
            np.maximum(before, padded[..., k : k + levels.shape[-2], :], out=before)
    rises = np.subtract(levels[..., lag:], before[..., :-lag])
    np.maximum(rises, 0, out=rises)
    strength = rises.mean(axis=-2, dtype=np.float64) if aggregate is None else aggregate(rises, axis=-2)
    shift = lag + (n_fft // (2 * hop_length) if center else 0)
    out = checks.empty("onset_strength", (*levels.shape[:-2], frames if center else strength.shape[-1] + shift))
    out[..., :shift] = 0
    out[..., shift:] = strength[..., : out.shape[-1] - shift] if out.shape[-1] > shift else 0
    return _detrended(out) if detrend else out


def tempogram(
    *,
    y: npt.ArrayLike | None = None,
    sr: float = 22050,
    onset_envelope: npt.ArrayLike | None = None,
    hop_length: int = 512,
    win_length: int = 384,
    center: bool = True,
    window: Window = "hann",
    norm: float | None = np.inf,
    check_finite: bool = True,
) -> _F32:
    """Autocorrelation of the onset strength around each frame.

    Parameters
    ----------
    y, sr : see `onset_strength`
    onset_envelope : np.ndarray [shape=(..., n)], floating point, optional
        An onset strength; None: that of `y`.
    hop_length : int > 0
        Samples from one frame to the next.
    win_length : int > 0
        Frames that are correlated, and lags of the result.
    center : bool
        Windows lie around their frame, the envelope continued by ramps down to 0.
    window : see `get_window`
    norm : inf or None
        Divide each frame by its value at lag 0, its largest; None: as it is.

    Returns
    -------
    np.ndarray [shape=(..., win_length, n)], float32
        ``librosa.feature.tempogram``.

    Notes
    -----
    Source: P. Grosche, M. Müller and F. Kurth, Cyclic Tempogram, ICASSP 2010.
    """
    if norm is not None and norm != np.inf:
        raise ValueError(f"norm: expected inf or None, got {norm!r}")
    envelope = _envelope(y, sr, onset_envelope, hop_length, check_finite)
    powers, size, exponent = _correlation_spectra(envelope, win_length, center, window)
    correlations = np.fft.irfft(powers, size)[..., :win_length]
    if norm is not None:
        peaks = correlations[..., :1]
        correlations = correlations / np.where(peaks < _TINY, 1, peaks)
    elif exponent:
        correlations = np.minimum(np.ldexp(correlations.astype(np.float64), 2 * exponent), np.finfo(np.float32).max)
    result = checks.empty("tempogram", (*envelope.shape[:-1], win_length, powers.shape[-2]))
    result[...] = correlations.swapaxes(-1, -2)
    return result


def tempo(
    *,
    y: npt.ArrayLike | None = None,
    sr: float = 22050,
    onset_envelope: npt.ArrayLike | None = None,
    tg: npt.ArrayLike | None = None,
    hop_length: int = 512,
    start_bpm: float = 120,
    std_bpm: float = 1.0,
    ac_size: float = 8.0,
    max_tempo: float | None = 320.0,
    aggregate: Callable[..., Any] | None = np.mean,
    prior: Any = None,
    check_finite: bool = True,
) -> _F64:
    """Beats per minute: the likeliest lag of the tempogram.

    Parameters
    ----------
    y, sr, onset_envelope, hop_length, check_finite
        As in `tempogram`.
    tg : np.ndarray [shape=(..., lags, n)], floating point, optional
        A tempogram; None: that of `onset_envelope` or `y`.
    start_bpm, std_bpm : float > 0
        The tempo that is expected, and how far from it others are likely, in octaves.
    ac_size : float > 0
        Seconds that are correlated.
    max_tempo : float > 0 or None
        No tempo above it.
    aggregate : callable or None
        Over the frames, ``aggregate(tg, axis=-1, keepdims=True)``; None: a tempo for each frame.
    prior : object with ``logpdf(bpm)``, optional
        What is likely instead, as a distribution of scipy.stats.

    Returns
    -------
    np.ndarray [shape=(..., 1) or (..., n)], float64
        ``librosa.feature.tempo``.
    """
    start_bpm, std_bpm = checks.real("start_bpm", start_bpm, above=0), checks.real("std_bpm", std_bpm, above=0)
    sr, hop_length = checks.rate(sr), checks.integer("hop_length", hop_length)
    max_tempo = None if max_tempo is None else checks.real("max_tempo", max_tempo, above=0)
    strengths: npt.NDArray[Any]
    if tg is not None:
        strengths = checks.spectrogram(tg, name="tg", check_finite=check_finite)
    else:
        lags = int(int(checks.real("ac_size", ac_size, above=0) * sr) // hop_length)
        if lags < 2:
            raise ValueError(f"ac_size: expected at least 2 frames of hop_length={hop_length}, got {ac_size:g} s")
        if aggregate is np.mean:
            # The mean of the correlations is the correlation of the mean spectrum: one transform back instead of all.
            envelope = _envelope(y, sr, onset_envelope, hop_length, check_finite)
            powers, size, _ = _correlation_spectra(envelope, lags, True, "hann")
            # Lag 0 is the sum of the spectrum, of which one half is here.
            peaks = (2 * powers.sum(axis=-1, dtype=np.float64) - powers[..., 0] - powers[..., -1]) / size
            weights = 1 / (np.where(peaks < _TINY, 1, peaks) * peaks.shape[-1])
            mean = np.einsum("...t,...tk->...k", weights, powers)  # no BLAS: its threads wait for one another
            strengths = np.fft.irfft(mean, size)[..., :lags, None]
            aggregate = None
        else:
            strengths = tempogram(
                y=y, sr=sr, onset_envelope=onset_envelope, hop_length=hop_length, win_length=lags,
                check_finite=check_finite,
            )  # fmt: skip
    if aggregate is not None:
        strengths = aggregate(strengths, axis=-1, keepdims=True)
    bpms = np.concatenate([[np.inf], 60.0 * sr / (hop_length * np.arange(1.0, strengths.shape[-2]))])
    if prior is None:
        likely = -0.5 * ((np.log2(bpms) - math.log2(start_bpm)) / std_bpm) ** 2
    else:
        likely = np.array(prior.logpdf(bpms), np.float64)
    if max_tempo is not None:
        likely[: int(np.argmax(bpms < max_tempo))] = -np.inf
    best = np.argmax(np.log1p(1e6 * np.maximum(strengths, -1e-7)) + likely[:, None], axis=-2)
    return np.asarray(bpms[best], np.float64)


# -- helpers -----------------------------------------------------------------------------------------------------------


def _detrended(x: _F32) -> _F32:
    """A high-pass: out[t] = x[t] - x[t - 1] + 0.99 out[t - 1]."""
    rows = x.reshape(-1, x.shape[-1])
    steps = np.diff(rows, axis=-1, prepend=np.float32(0)).astype(np.float64)
    state = np.zeros(len(rows))
    for t in range(rows.shape[-1]):
        state = steps[:, t] + 0.99 * state
        rows[:, t] = state
    return rows.reshape(x.shape)


def _envelope(
    y: npt.ArrayLike | None, sr: float, onset_envelope: npt.ArrayLike | None, hop_length: int, check_finite: bool
) -> _F32:
    if onset_envelope is not None:
        return checks.samples(onset_envelope, name="onset_envelope", check_finite=check_finite)
    if y is None:
        raise ValueError("y: expected a signal, or an onset_envelope, got neither")
    return onset_strength(y=y, sr=sr, hop_length=hop_length, check_finite=check_finite)


def _correlation_spectra(envelope: _F32, win_length: int, center: bool, window: Window) -> tuple[_F32, int, int]:
    """Power spectra of all windows, (..., n, bins); the length they are padded to; the envelope was divided by two to
    the power of the last number.
    """
    win_length = checks.integer("win_length", win_length, 1, 2**24)
    n = envelope.shape[-1]
    rows = envelope.reshape(-1, n)
    exponent = 0
    if _core.any_from(rows, 2.0**40):  # whose powers could pass what float32 holds
        exponent = math.frexp(float(np.abs(rows).max()))[1]
        rows = np.ldexp(rows, -exponent)
    half = win_length // 2 if center else 0
    if n + 2 * half < win_length:
        raise ValueError(f"win_length: expected at most the {n} frames of the envelope, got {win_length}")
    size = _fast_size(2 * win_length - 1)
    count = n if center else n - win_length + 1
    powers = checks.empty("tempogram", (len(rows), count, size // 2 + 1))
    ramps = np.pad(rows, ((0, 0), (half, half)), "linear_ramp", end_values=0)
    signals = checks.empty("envelope", (len(rows), ramps.shape[-1] + size - win_length))
    signals[:, : ramps.shape[-1]] = ramps
    signals[:, ramps.shape[-1] :] = 0
    analysis, none = _powers(spectra.key_of(window), win_length, size), signals[:, :0]
    threads = spectra.threads_for(None, len(rows) * count)
    analysis.run(signals, none, none, size, 1, 0, count, 0, 0, powers, threads)
    return powers.reshape(*envelope.shape[:-1], count, -1), size, exponent


@lru_cache(maxsize=8)
def _powers(window: Any, win_length: int, size: int) -> Any:
    values = np.zeros(size)
    values[:win_length] = spectra.window_of(window, win_length, win_length)
    return _core.Analysis32(values, "magnitudes", 2.0, None, None, False, 1e-10, None)


def _fast_size(least: int) -> int:
    """The smallest even number that is not less and has no prime factor above 5."""
    best = 1 << max(1, (least - 1).bit_length())
    five = 2
    while five < best:
        three = five
        while three < best:
            best = min(best, three << max(0, -(-least // three) - 1).bit_length())
            three *= 3
        five *= 5
    return best
