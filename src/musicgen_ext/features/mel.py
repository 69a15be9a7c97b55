"""Mel spectrograms and cepstra: librosa's names, signatures, shapes and numbers.

Window, transform, power, bands, logarithm and cosine transform of sixteen frames follow one another in cache; the
spectrogram between them is never written.
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core, checks
from musicgen_ext.features import spectra
from musicgen_ext.features.spectra import PadMode
from musicgen_ext.features.windows import Window

_Array: TypeAlias = npt.NDArray[Any]
Norm: TypeAlias = Literal["slaney"] | float | None

_LEAST = 1e-10  # power below which decibels are not told apart: librosa's amin


def mel_filterbank(
    *,
    sr: float,
    n_fft: int,
    n_mels: int = 128,
    fmin: float = 0.0,
    fmax: float | None = None,
    htk: bool = False,
    norm: Norm = "slaney",
    dtype: npt.DTypeLike = np.float32,
) -> _Array:
    """Triangular bands, equally wide on the mel scale: ``librosa.filters.mel``.

    Parameters
    ----------
    sr : float > 0
        Sample rate, in Hz.
    n_fft : int > 0
    n_mels : int > 0
        Bands.
    fmin, fmax : float
        Lower edge of the lowest band and upper edge of the highest, in Hz; ``fmax=None`` means ``sr / 2``.
    htk : bool
        HTK's mel scale instead of Slaney's.
    norm : "slaney", number or None
        "slaney": every band has the same area; a number p: the same p-norm (inf: the same peak); None: peaks of at most
        1.
    dtype : np.float32 or np.float64

    Returns
    -------
    np.ndarray [shape=(n_mels, 1 + n_fft // 2)]

    Raises
    ------
    TypeError, ValueError
        An argument of the wrong type or out of its range; the message names it.

    Warns
    -----
    UserWarning
        A band is narrower than the distance of two bins and so empty.

    Notes
    -----
    Sources: M. Slaney, Auditory Toolbox, Interval Research TR 1998-010; S. Young et al., The HTK Book.
    """
    weights, empty = _mel(*bands_key(sr, n_fft, n_mels, fmin, fmax, htk, norm), spectra.real_type(dtype))
    if empty:
        _warn_of_empty(empty)
    return weights.copy()


def melspectrogram(
    y: Any = None,
    *,
    sr: float = 22050,
    S: Any = None,
    n_fft: int = 2048,
    hop_length: int | None = 512,
    win_length: int | None = None,
    window: Window = "hann",
    center: bool = True,
    pad_mode: PadMode = "constant",
    power: float = 2.0,
    n_mels: int = 128,
    fmin: float = 0.0,
    fmax: float | None = None,
    htk: bool = False,
    norm: Norm = "slaney",
    dtype: npt.DTypeLike = np.float32,
    threads: int | None = None,
) -> _Array:
    """Mel-scaled spectrogram.

    Parameters
    ----------
    y : np.ndarray [shape=(..., n)], floating point
        Sound; needed where `S` is not given.
    sr : float > 0
        Sample rate, in Hz.
    S : np.ndarray [shape=(..., 1 + n_fft // 2, frames)], optional
        A spectrogram to take the bands of.
    n_fft, hop_length, win_length, window, center, pad_mode, threads
        As in `stft`.
    power : float > 0
        Exponent of the magnitudes: 1 for amplitudes, 2 for power.
    n_mels, fmin, fmax, htk, norm
        As in `mel_filterbank`.
    dtype : np.float32 or np.float64
        What to compute in, and the type of the result.

    Returns
    -------
    np.ndarray [shape=(..., n_mels, frames)], linear (not dB)
        At most the largest finite number of its type.

    Raises
    ------
    TypeError, ValueError
        An argument of the wrong type, out of its range, or not finite; the message names it.
    """
    if S is not None:
        kind = spectra.real_type(dtype)
        n_fft, hop_length, win_length = checks.framing(n_fft, hop_length, win_length)
        power = checks.real("power", power, above=0)
        given = checks.spectrogram(S, dtype=kind)
        if given.shape[-2] != 1 + n_fft // 2:
            n_fft = 2 * (given.shape[-2] - 1)
        weights, empty = _mel(*bands_key(sr, n_fft, n_mels, fmin, fmax, htk, norm), kind)
        if empty:
            _warn_of_empty(empty)
        result: _Array = np.matmul(weights, given)
        return result
    framing, bands = (n_fft, hop_length, win_length), (sr, n_mels, fmin, fmax, htk, norm)
    return _analysed(y, dtype, framing, window, center, pad_mode, power, bands, (), threads)


def mfcc(
    y: Any = None,
    *,
    sr: float = 22050,
    S: Any = None,
    n_mfcc: int = 20,
    dct_type: int = 2,
    norm: Literal["ortho", "backward", "forward"] | None = "ortho",
    lifter: float = 0,
    mel_norm: Norm = "slaney",
    top_db: float | None = 80.0,
    n_fft: int = 2048,
    hop_length: int | None = 512,
    win_length: int | None = None,
    window: Window = "hann",
    center: bool = True,
    pad_mode: PadMode = "constant",
    power: float = 2.0,
    n_mels: int = 128,
    fmin: float = 0.0,
    fmax: float | None = None,
    htk: bool = False,
    dtype: npt.DTypeLike = np.float32,
    threads: int | None = None,
) -> _Array:
    """Mel-frequency cepstral coefficients.

    Parameters
    ----------
    y : np.ndarray [shape=(..., n)], floating point
        Sound; needed where `S` is not given.
    sr : float > 0
        Sample rate, in Hz.
    S : np.ndarray [shape=(..., n_mels, frames)], optional
        A mel spectrogram in decibels, as it is: `top_db` has no part in it.
    n_mfcc : int > 0
        Coefficients to return, at most as many as there are bands.
    dct_type : 1, 2 or 3
        Of the cosine transform, as ``scipy.fft.dct`` numbers them.
    norm : "ortho", "backward", "forward" or None
        Of the cosine transform, as ``scipy.fft.dct`` has it.
    lifter : float >= 0
        Coefficient n (from 1) is multiplied by ``1 + lifter / 2 * sin(pi * n / lifter)``; 0: not at all.
    mel_norm
        `norm` of `mel_filterbank`.
    top_db : float >= 0 or None
        Levels more than this below the highest of the whole signal (all channels) are raised to it; None: none are.
    n_fft, hop_length, win_length, window, center, pad_mode, threads
        As in `stft`.
    power, n_mels, fmin, fmax, htk, dtype
        As in `melspectrogram`.

    Returns
    -------
    np.ndarray [shape=(..., n_mfcc, frames)]

    Raises
    ------
    TypeError, ValueError
        An argument of the wrong type, out of its range, or not finite; the message names it.
    """
    if S is not None:
        kind = spectra.real_type(dtype)
        transform = cepstra_key(n_mfcc, dct_type, norm, lifter)
        given = checks.spectrogram(S, dtype=kind, minimum_bins=2 if dct_type == 1 else 1)
        matrix = _cepstra(given.shape[-2], *transform, kind)
        result: _Array = np.matmul(matrix, given)
        return result
    framing, bands = (n_fft, hop_length, win_length), (sr, n_mels, fmin, fmax, htk, mel_norm)
    cepstra = (n_mfcc, dct_type, norm, lifter, top_db)
    return _analysed(y, dtype, framing, window, center, pad_mode, power, bands, cepstra, threads)


# -- helpers ---------------------------------------------------------------------------------------------------------


class _Prepared(NamedTuple):
    engine: Any
    n_rows: int
    empty: int  # bands
    kind: np.dtype[Any]
    n_fft: int
    hop_length: int


def _analysed(
    y: Any,
    dtype: npt.DTypeLike,
    framing: tuple[Any, Any, Any],
    window: Window,
    center: bool,
    pad_mode: PadMode,
    power: float,
    bands: tuple[Any, ...],
    cepstra: tuple[Any, ...],
    threads: int | None,
) -> _Array:
    """Bands, or cepstra where they are asked for, of sound."""
    if y is None:
        raise ValueError("y: expected sound, or a spectrogram as S, got neither")
    settings = (dtype, spectra.key_of(window), power, *framing, *bands, *cepstra)
    try:
        made = _prepared(*settings)
    except TypeError:  # something that cannot be looked up, or is refused
        made = None
    if made is None:
        made = _prepared.__wrapped__(*settings)
    if made.empty:
        _warn_of_empty(made.empty, 4)
    found = spectra.plainly(made.engine, y, made.hop_length, center, pad_mode, threads)
    if found is not None:
        return found  # type: ignore[no-any-return]
    signal = spectra.samples(y, made.kind)
    frames = spectra.framed(signal, made.n_fft, made.hop_length, center, pad_mode)
    out = checks.empty("features", (*signal.shape[:-1], made.n_rows, frames.number), made.kind)
    spectra.run(made.engine, frames, made.n_fft, made.hop_length, out, threads, y)
    return out


# Looking at the settings takes as long as three frames, so it is done once; True is not 1 here, and 1.0 neither.
@lru_cache(maxsize=32, typed=True)
def _prepared(
    dtype: npt.DTypeLike,
    window: Any,
    power: float,
    n_fft: Any,
    hop_length: Any,
    win_length: Any,
    sr: float,
    n_mels: int,
    fmin: float,
    fmax: float | None,
    htk: bool,
    norm: Norm,
    *cepstra: Any,
) -> _Prepared:
    """The engine for settings as they were given; `cepstra`: the arguments of `cepstra_key`, and top_db."""
    kind = spectra.real_type(dtype)
    n_fft, hop_length, win_length = checks.framing(n_fft, hop_length, win_length)
    power = checks.real("power", power, above=0)
    transform: tuple[Any, ...] | None = None
    if cepstra:
        *arguments, top_db = cepstra
        transform = (*cepstra_key(*arguments), None if top_db is None else checks.real("top_db", top_db, 0))
    bands = bands_key(sr, n_fft, n_mels, fmin, fmax, htk, norm)
    engine, n_rows, empty = _analysis(window, win_length, kind, power, bands, transform)
    return _Prepared(engine, n_rows, empty, kind, n_fft, hop_length)


def cepstra_key(n_mfcc: int, dct_type: int, norm: str | None, lifter: float) -> tuple[int, int, str | None, float]:
    """The checked arguments of a cosine transform."""
    n_mfcc = checks.integer("n_mfcc", n_mfcc)
    checks.choice("dct_type", dct_type, (1, 2, 3))
    checks.choice("norm", norm, (None, "ortho", "backward", "forward"))
    return n_mfcc, dct_type, norm, checks.real("lifter", lifter, 0)


def analysis(
    window: Any,
    win_length: int,
    kind: np.dtype[Any],
    power: float,
    bands: tuple[Any, ...],
    cepstra: tuple[Any, ...] | None,
    *,
    warn: bool = True,
) -> tuple[Any, int]:
    """The engine for bands or cepstra, and the rows that come out of it."""
    engine, n_rows, empty = _analysis(window, win_length, kind, power, bands, cepstra)
    if empty and warn:
        _warn_of_empty(empty, 4)
    return engine, n_rows


@lru_cache(maxsize=32)
def _analysis(
    window: Any,
    win_length: int,
    kind: np.dtype[Any],
    power: float,
    bands: tuple[Any, ...],
    cepstra: tuple[Any, ...] | None,
) -> tuple[Any, int, int]:
    """`analysis`, and how many bands are empty."""
    weights, empty = _mel(*bands, kind)
    matrix, top_db = None, None
    if cepstra is not None:
        n_mfcc, dct_type, norm, lifter, top_db = cepstra
        matrix = _cepstra(len(weights), n_mfcc, dct_type, norm, lifter, kind)
    made = _core.Analysis32 if kind == np.float32 else _core.Analysis64
    with spectra.working_memory(bands[1]):
        full = spectra.window_of(window, win_length, bands[1])
        engine = made(full, "bands", power, weights, matrix, matrix is not None, _LEAST, top_db)
    return engine, len(weights if matrix is None else matrix), empty


def bands_key(
    sr: float, n_fft: int, n_mels: int, fmin: float, fmax: float | None, htk: bool, norm: Norm
) -> tuple[Any, ...]:
    """The checked arguments of `_mel`, but for the type."""
    sr = checks.rate(sr)
    low, high = checks.band(sr, fmin, fmax)
    if norm is not None and norm != "slaney":
        expected = f"norm: expected 'slaney', a number >= 0, inf, -inf or None, got {norm!r}"
        try:
            norm = float(norm)
        except (TypeError, ValueError):
            raise ValueError(expected) from None
        if not (norm >= 0 or norm == -math.inf):
            raise ValueError(expected)
    return sr, checks.integer("n_fft", n_fft), checks.integer("n_mels", n_mels), low, high, bool(htk), norm


@lru_cache(maxsize=32)
def _mel(
    sr: float, n_fft: int, n_mels: int, fmin: float, fmax: float, htk: bool, norm: Norm, kind: np.dtype[Any]
) -> tuple[_Array, int]:
    """Bands (n_mels, bins), not to be written to, and how many of them are empty."""
    weights = checks.empty("mel_filterbank", (n_mels, 1 + n_fft // 2), kind)
    edges = _to_hz(np.linspace(_to_mel(fmin, htk), _to_mel(fmax, htk), n_mels + 2), htk)
    frequencies = np.fft.rfftfreq(n_fft, 1 / sr)
    for i in range(n_mels):  # one at a time: a bank of many bands over long frames would need them all at once
        rising = (frequencies - edges[i]) / (edges[i + 1] - edges[i])
        falling = (edges[i + 2] - frequencies) / (edges[i + 2] - edges[i + 1])
        weights[i] = np.maximum(0, np.minimum(rising, falling))
    if norm == "slaney":
        weights *= (2 / (edges[2:] - edges[:-2]))[:, np.newaxis]
    elif norm is not None:
        weights /= _sizes(weights, float(norm))[:, np.newaxis]
    empty = int(np.count_nonzero((edges[:-2] != 0) & (weights.max(axis=1) <= 0)))
    weights.flags.writeable = False
    return weights, empty


def _sizes(weights: _Array, p: float) -> _Array:
    """The p-norms of rows; 1 for rows that have none."""
    if p in (np.inf, -np.inf):
        sizes = weights.max(axis=1) if p > 0 else weights.min(axis=1)
    elif p == 0:
        sizes = np.count_nonzero(weights, axis=1).astype(weights.dtype)
    else:
        sizes = np.sum(weights**p, axis=1) ** (1 / p)
    return np.where(sizes < np.finfo(weights.dtype).tiny, 1, sizes)


def _to_mel(hz: float, htk: bool) -> float:
    if htk:
        return float(2595.0 * np.log10(1.0 + hz / 700.0))
    # Linear up to 1 kHz = 15 mel, then a factor of 6.4 in 27 mel.
    return hz / (200 / 3) if hz < 1000 else float(15 + np.log(hz / 1000) / (np.log(6.4) / 27))


def _to_hz(mel: npt.NDArray[np.float64], htk: bool) -> npt.NDArray[np.float64]:
    if htk:
        return np.asarray(700.0 * (10.0 ** (mel / 2595.0) - 1.0))
    return np.where(mel < 15, mel * (200 / 3), 1000 * np.exp(np.log(6.4) / 27 * (np.maximum(mel, 15) - 15)))


def _cepstra(n: int, n_mfcc: int, dct_type: int, norm: str | None, lifter: float, kind: np.dtype[Any]) -> _Array:
    """The first rows of a cosine transform of n values, liftered: shape (at most n_mfcc, n)."""
    if dct_type == 1 and n < 2:
        raise ValueError(f"dct_type: expected 2 or 3 for {n} band, got 1")
    k, i = np.arange(min(n_mfcc, n))[:, np.newaxis], np.arange(n)
    if dct_type == 1:
        matrix = 2 * np.cos(np.pi * k * i / (n - 1))
        matrix[:, [0, -1]] /= 2
        size = 2 * (n - 1)
        ends = (np.array([0, n - 1]), np.array([0, n - 1]))
    elif dct_type == 2:
        matrix = 2 * np.cos(np.pi * k * (2 * i + 1) / (2 * n))
        size = 2 * n
        ends = (np.array([0]), np.array([], int))
    else:
        matrix = 2 * np.cos(np.pi * (2 * k + 1) * i / (2 * n))
        matrix[:, 0] /= 2
        size = 2 * n
        ends = (np.array([], int), np.array([0]))
    if norm == "ortho":
        matrix /= np.sqrt(size)
        rows, columns = ends
        matrix[rows[rows < len(matrix)]] /= np.sqrt(2)
        matrix[:, columns] *= np.sqrt(2)
    elif norm == "forward":
        matrix /= size
    if lifter > 0:
        matrix *= 1 + lifter / 2 * np.sin(np.pi * (k + 1) / lifter)
    return np.ascontiguousarray(matrix, kind)


def _warn_of_empty(empty: int, stacklevel: int = 3) -> None:
    warnings.warn(
        f"n_mels: expected bands wider than the distance of two bins, got {empty} that are empty (a larger n_fft or "
        "fewer bands would help)",
        stacklevel=stacklevel,
    )
