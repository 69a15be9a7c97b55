"""Decibels and back, magnitudes and phases, mu-law companding: element by element."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core, checks

_F32 = npt.NDArray[np.float32]
_C64 = npt.NDArray[np.complex64]
Reference = float | Callable[[_F32], Any]

_LOG2_OF_10 = math.log2(10)
_PIECE = 1 << 14
_ABOVE_ONE = float(np.nextafter(np.float32(1), np.float32(2)))
_LEAST = 1e-300  # for `amin`: smaller ones make no difference in float32


def power_to_db(
    S: npt.ArrayLike,
    *,
    ref: Reference = 1.0,
    amin: float = 1e-10,
    top_db: float | None = 80.0,
    check_finite: bool = True,
) -> _F32:
    """Power to decibels: ``10 log10(S / ref)``.

    Parameters
    ----------
    S : np.ndarray [any shape], floating point
        Powers. Of complex numbers the magnitude is taken, with a warning, as librosa does.
    ref : number or callable
        What lies at 0 dB; a callable (`np.max`) is given `S`.
    amin : float > 0
        What `S` and `ref` count as at least.
    top_db : float >= 0 or None
        The result is at most this far below its own largest value; None: no limit.
    check_finite : bool
        Look for NaN and infinities in `S`.

    Returns
    -------
    np.ndarray [the shape of `S`], float32
        Within 1 ulp of librosa's formula in double precision.

    Raises
    ------
    TypeError, ValueError, MemoryError
        `S` as in `musicgen_ext.checks`; ``amin <= 0``, ``top_db < 0``; the message names it.
    """
    magnitude = _magnitude("power_to_db", S, check_finite)
    return _to_db(magnitude, _reference(ref, magnitude), checks.real("amin", amin, above=0), top_db, squared=False)


def amplitude_to_db(
    S: npt.ArrayLike,
    *,
    ref: Reference = 1.0,
    amin: float = 1e-5,
    top_db: float | None = 80.0,
    check_finite: bool = True,
) -> _F32:
    """Amplitude to decibels: ``20 log10(|S| / ref)``. Parameters, result and errors as `power_to_db`."""
    magnitude = _magnitude("amplitude_to_db", S, check_finite)
    ref_value = _reference(ref if not callable(ref) else lambda x: ref(np.abs(x)), magnitude)
    amin = checks.real("amin", amin, above=0)
    return _to_db(magnitude, ref_value**2, amin**2, top_db, squared=True)


def db_to_power(S_db: npt.ArrayLike, *, ref: float = 1.0, check_finite: bool = True) -> _F32:
    """Decibels to power: ``ref * 10^(S_db / 10)``.

    Parameters
    ----------
    S_db : np.ndarray [any shape], floating point
    ref : float
        The power at 0 dB.
    check_finite : bool
        Look for NaN and infinities in `S_db`.

    Returns
    -------
    np.ndarray [the shape of `S_db`], float32
        At most the largest float32, 3.4e38.
    """
    return _from_db(S_db, _LOG2_OF_10 / 10, checks.real("ref", ref), check_finite)


def db_to_amplitude(S_db: npt.ArrayLike, *, ref: float = 1.0, check_finite: bool = True) -> _F32:
    """Decibels to amplitude: ``|ref| * 10^(S_db / 20)``. Parameters and result as `db_to_power`."""
    return _from_db(S_db, _LOG2_OF_10 / 20, abs(checks.real("ref", ref)), check_finite)


def magphase(D: npt.ArrayLike, *, power: float = 1.0, check_finite: bool = True) -> tuple[_F32, _C64]:
    """Magnitudes and phases of a complex spectrogram: ``D = S * P`` for ``power=1``.

    Parameters
    ----------
    D : np.ndarray [any shape], complex
    power : float > 0
        The magnitudes are raised to it.
    check_finite : bool
        Look for NaN and infinities in `D`.

    Returns
    -------
    S : np.ndarray [the shape of `D`], float32
        ``|D|^power``.
    P : np.ndarray [the shape of `D`], complex64
        ``D / |D|``; 1 where `D` is 0.
    """
    power = checks.real("power", power, above=0)
    spectrum = checks.dense("D", D, np.complex64, check_finite=check_finite)
    magnitude, phase = checks.empty_like("S", spectrum), checks.empty_like("P", spectrum, np.complex64)
    _core.polar(checks.flat(spectrum), checks.flat(magnitude), checks.flat(phase))
    if power != 1:
        np.power(magnitude, np.float32(power), out=magnitude)
    return magnitude, phase


# -- companding --------------------------------------------------------------------------------------------------------


def mu_law_encode(y: npt.ArrayLike, *, mu: int = 255, check_finite: bool = True) -> npt.NDArray[np.int32]:
    """Sound as tokens: a logarithmic scale of ``mu + 1`` steps.

    Parameters
    ----------
    y : np.ndarray [any shape], floating point
        Samples in [-1, 1].
    mu : int, 1 to 2^24
        The largest token.
    check_finite : bool
        Look for NaN and infinities in `y`.

    Returns
    -------
    np.ndarray [the shape of `y`], int32
        ``floor((c + 1) / 2 * mu + 1/2)`` with ``c = sign(y) log(1 + mu |y|) / log(1 + mu)``, computed in double
        precision. torchaudio's ``mu_law_encoding(y, mu + 1)``, whose single precision may differ by one where the
        value before rounding lies within 1e-5 of a half; librosa's `mu_compress` rounds up instead.

    Notes
    -----
    Source: ITU-T Recommendation G.711; A. van den Oord et al., WaveNet, 2016, section 2.2.
    """
    mu = checks.integer("mu", mu, 1, 2**24)
    samples = _in_one("y", checks.floats("y", y, check_finite=check_finite))
    tokens = checks.empty("tokens", samples.shape, np.int32)
    _core.mu_law(samples, mu, tokens)
    return tokens


def mu_law_decode(tokens: npt.ArrayLike, *, mu: int = 255) -> _F32:
    """Tokens of `mu_law_encode` as sound.

    Parameters
    ----------
    tokens : np.ndarray [any shape], integers
        0 to `mu`.
    mu : int, 1 to 2^24

    Returns
    -------
    np.ndarray [the shape of `tokens`], float32
        ``sign(c) ((1 + mu)^|c| - 1) / mu`` with ``c = 2 token / mu - 1``: torchaudio's
        ``mu_law_decoding(tokens, mu + 1)``.

    Raises
    ------
    TypeError, ValueError
        `tokens` are not whole numbers, or lie outside [0, `mu`].
    """
    mu = checks.integer("mu", mu, 1, 2**24)
    array = np.asarray(tokens)
    if array.dtype.kind not in "iu":
        raise TypeError(f"tokens: expected whole numbers, got {array.dtype}")
    if array.size and not (array.min() >= 0 and array.max() <= mu):
        raise ValueError(f"tokens: expected 0 to mu={mu}, got {array.min()} to {array.max()}")
    if mu < 2**16:  # as many values as tokens
        values = _expanded(2.0 * np.arange(mu + 1) / mu - 1.0, mu)
        return np.asarray(values[array])
    return _expanded(2.0 * array / mu - 1.0, mu)


def mu_compress(
    x: npt.ArrayLike, *, mu: float = 255, quantize: bool = True, check_finite: bool = True
) -> _F32 | npt.NDArray[np.int32]:
    """librosa's mu-law: values in [-1, 1], or steps from ``-(mu + 1) / 2`` up with ``quantize=True``."""
    mu = checks.real("mu", mu, above=0)
    samples = _in_one("x", checks.floats("x", x, check_finite=check_finite))
    compressed = checks.empty("compressed", samples.shape)
    _core.mu_compress(samples, mu, compressed)
    if not quantize:
        return compressed
    # The steps are the gaps between 1 + mu equal marks on [-1, 1]; a value on a mark belongs to the gap below.
    steps = math.floor(mu)
    return (np.ceil((compressed + 1) * (steps / 2)) - int(mu + 1) // 2).astype(np.int32)


def mu_expand(x: npt.ArrayLike, *, mu: float = 255.0, quantize: bool = True, check_finite: bool = True) -> _F32:
    """The way back from `mu_compress`; with ``quantize=True`` `x` holds whole numbers, of any dtype."""
    mu = checks.real("mu", mu, above=0)
    array = np.asarray(x)
    if not (quantize and array.dtype.kind in "iu"):
        array = checks.floats("x", x, check_finite=check_finite)
    scale = 2.0 / (1 + mu) if quantize else 1.0
    _in_one("x", array, scale)
    return _expanded(array, mu, scale)


# -- helpers -----------------------------------------------------------------------------------------------------------


def _magnitude(function: str, S: npt.ArrayLike, check_finite: bool) -> _F32:
    if checks.is_complex(S):
        warnings.warn(
            f"{function}: expected real values, got complex ones: their phases are discarded (take np.abs first)",
            stacklevel=3,
        )
        magnitude: _F32 = np.abs(checks.dense("S", S, np.complex64, check_finite=check_finite))
        return magnitude
    return checks.dense("S", S, check_finite=check_finite)


def _reference(ref: Reference, magnitude: _F32) -> float:
    if callable(ref):
        return checks.real("ref", ref(magnitude))
    return abs(checks.real("ref", ref))


def _to_db(values: _F32, ref: float, amin: float, top_db: float | None, *, squared: bool) -> _F32:
    if top_db is not None:
        top_db = checks.real("top_db", top_db, 0)
    out = checks.empty_like("S_db", values)
    amin = max(amin, _LEAST)
    top = _core.to_log(
        checks.flat(values), squared, 10 / math.log(10), amin, 10 * math.log10(max(amin, ref)), checks.flat(out)
    )
    if top_db is not None and out.size:
        _core.at_least(checks.flat(out), top - top_db)
    return out


def _from_db(S_db: npt.ArrayLike, rate: float, scale: float, check_finite: bool) -> _F32:
    values = checks.dense("S_db", S_db, check_finite=check_finite)
    out = checks.empty_like("S", values)
    _core.exp2_of(checks.flat(values), rate, scale, checks.flat(out))
    return out


def _in_one(name: str, values: npt.NDArray[Any], scale: float = 1.0) -> npt.NDArray[Any]:
    if values.dtype == np.float32 and scale == 1 and not _core.any_from(values, _ABOVE_ONE):
        return values
    low, high = (values.min() * scale, values.max() * scale) if values.size else (0.0, 0.0)
    if low < -1 or high > 1:
        raise ValueError(f"{name}: expected values in [-1, 1], got {low:g} to {high:g}")
    return values


def _expanded(compressed: npt.NDArray[Any], mu: float, scale: float = 1.0) -> _F32:
    """`compressed` times `scale`, in [-1, 1], expanded; in pieces that stay in cache."""
    out = checks.empty("x", compressed.shape)
    values, results = np.ascontiguousarray(compressed).reshape(-1), out.reshape(-1)
    for begin in range(0, len(values), _PIECE):
        part = np.multiply(values[begin : begin + _PIECE], scale, dtype=np.float64)
        _core.mu_expand(part, mu, results[begin : begin + _PIECE])
    return out
