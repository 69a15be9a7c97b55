"""Frames of a signal, and what can be measured on them without a spectrum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core, checks

_F32 = npt.NDArray[np.float32]
PAD_MODES = ("constant", "edge", "linear_ramp", "maximum", "mean", "median", "minimum", "reflect", "symmetric", "wrap")


def zero_crossing_rate(
    y: npt.ArrayLike,
    *,
    frame_length: int = 2048,
    hop_length: int = 512,
    center: bool = True,
    threshold: float = 1e-10,
    ref_magnitude: float | Callable[[_F32], Any] | None = None,
    zero_pos: bool = True,
    pad: bool = False,
    check_finite: bool = True,
) -> _F32:
    """How often the sign changes, as a share of the samples of each frame.

    Parameters
    ----------
    y : np.ndarray [shape=(..., n)], floating point
    frame_length, hop_length : int > 0
        In samples.
    center : bool
        Frames lie around multiples of `hop_length`, the signal continued by its first and last sample.
    threshold : float >= 0
        Samples in [-threshold, threshold] count as 0; times `ref_magnitude` (of ``|y|``, where that is a callable).
    zero_pos : bool
        0 counts as positive; False: 0 is a sign of its own.
    pad : bool
        The first sample of each frame counts as a change.
    check_finite : bool
        Look for NaN and infinities in `y`.

    Returns
    -------
    np.ndarray [shape=(..., 1, frames)], float32
        ``librosa.feature.zero_crossing_rate``, to the last bit of float32.
    """
    frame_length, hop_length = checks.integer("frame_length", frame_length), checks.integer("hop_length", hop_length)
    samples = checks.samples(y, check_finite=check_finite)
    threshold = checks.real("threshold", threshold, 0)
    if callable(ref_magnitude):
        threshold *= checks.real("ref_magnitude", ref_magnitude(np.abs(samples)))
    elif ref_magnitude is not None:
        threshold *= checks.real("ref_magnitude", ref_magnitude, 0)
    rows, leading = _rows(samples, frame_length, "edge" if center else None)
    out = _room("zcr", rows, frame_length, hop_length)
    _core.zero_crossing_rate(rows, frame_length, hop_length, threshold, not zero_pos, out)
    if pad:
        out += np.float32(1 / frame_length)
    return out.reshape(*leading, 1, -1)


def rms(
    *,
    y: npt.ArrayLike | None = None,
    S: npt.ArrayLike | None = None,
    frame_length: int = 2048,
    hop_length: int = 512,
    center: bool = True,
    pad_mode: str = "constant",
    check_finite: bool = True,
) -> _F32:
    """Root of the mean square of each frame, of a signal or of a magnitude spectrogram.

    Parameters
    ----------
    y : np.ndarray [shape=(..., n)], floating point
        A signal; None: `S` is given.
    S : np.ndarray [shape=(..., frame_length // 2 + 1, frames)], floating point or complex
        Magnitudes (of a rectangular window, for the numbers of the signal).
    frame_length, hop_length : int > 0
        In samples.
    center : bool
        Frames of `y` lie around multiples of `hop_length`, the signal continued as `pad_mode` (of `np.pad`) says.
    check_finite : bool
        Look for NaN and infinities.

    Returns
    -------
    np.ndarray [shape=(..., 1, frames)], float32
        ``librosa.feature.rms``; within 1 ulp of the same formula in double precision.
    """
    frame_length, hop_length = checks.integer("frame_length", frame_length), checks.integer("hop_length", hop_length)
    if y is not None:
        checks.choice("pad_mode", pad_mode, PAD_MODES)
        rows, leading = _rows(checks.samples(y, check_finite=check_finite), frame_length, pad_mode if center else None)
        out = _room("rms", rows, frame_length, hop_length)
        _core.rms(rows, frame_length, hop_length, out)
        return out.reshape(*leading, 1, -1)
    if S is None:
        raise ValueError("rms: expected y or S, got neither")
    magnitudes = checks.spectrogram(np.abs(S) if checks.is_complex(S) else S, check_finite=check_finite)
    bins, frames = magnitudes.shape[-2:]
    if bins != frame_length // 2 + 1:
        raise ValueError(
            f"frame_length: expected {2 * bins - 2} or {2 * bins - 1} with the {bins} bins of S, got {frame_length}"
        )
    weights = np.full(bins, 2 / frame_length**2)  # both halves of the spectrum, of which this is one
    weights[0] /= 2
    if frame_length % 2 == 0:
        weights[-1] /= 2
    channels = checks.channels_of(magnitudes)
    out = checks.empty("rms", (len(channels), frames))
    _core.spectral_norm(_core.spectra(channels, True), weights, out)
    return out.reshape(*magnitudes.shape[:-2], 1, frames)


def _rows(samples: _F32, frame_length: int, pad_mode: str | None) -> tuple[_F32, tuple[int, ...]]:
    """(rows, samples) with half a frame before and after, and the shape of what comes before the last axis."""
    leading = samples.shape[:-1]
    rows = samples.reshape(-1, samples.shape[-1])
    half = frame_length // 2
    if pad_mode is not None and half > 0:
        length = samples.shape[-1] + 2 * half
        padded = checks.empty("y", (len(rows), length))
        if pad_mode == "constant":
            padded[:, :half] = padded[:, length - half :] = 0
        elif pad_mode == "edge":
            padded[:, :half], padded[:, length - half :] = rows[:, :1], rows[:, -1:]
        else:
            padded[:] = np.pad(rows, ((0, 0), (half, half)), pad_mode)  # type: ignore[call-overload]
            return padded, leading
        padded[:, half : length - half] = rows
        rows = padded
    if rows.shape[-1] < frame_length:
        raise ValueError(
            f"frame_length: expected at most the {rows.shape[-1]} samples of y along its last axis, got {frame_length}"
        )
    return rows, leading


def _room(name: str, rows: _F32, frame_length: int, hop_length: int) -> _F32:
    return checks.empty(name, (len(rows), 1 + (rows.shape[-1] - frame_length) // hop_length))
