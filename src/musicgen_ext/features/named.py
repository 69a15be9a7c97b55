"""Features by name, for whoever computes one of them on many sounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from musicgen_ext import checks
from musicgen_ext.features.chroma import chroma_stft
from musicgen_ext.features.decibels import power_to_db
from musicgen_ext.features.mel import melspectrogram, mfcc
from musicgen_ext.features.spectra import stft, threads_inside

_Array = npt.NDArray[Any]

_COLUMNS = 4096  # of a picture
_ROWS = {"chroma": "pitch class", "logmel": "mel band", "mel": "mel band", "mfcc": "coefficient", "stft": "bin"}


def _stft(*, y: Any, sr: float, **options: Any) -> _Array:
    options["hop_length"] = options.get("hop_length", 512)
    return stft(y, **options)


def _logmel(**options: Any) -> _Array:
    return power_to_db(melspectrogram(**options), top_db=None)


NAMES: dict[str, Callable[..., _Array]] = {
    "chroma": chroma_stft,
    "logmel": _logmel,
    "mel": melspectrogram,
    "mfcc": mfcc,
    "stft": _stft,
}


def compute(name: str, y: Any, sr: float, *, threads: int | None = None, **options: Any) -> _Array:
    """A feature of a mono sound.

    Parameters
    ----------
    name : str
        "chroma" (`chroma_stft`), "mel" (`melspectrogram`), "logmel" (the same in dB, without a lower limit), "mfcc" or
        "stft".
    y : np.ndarray [shape=(n,)], floating point
    sr : float > 0
        Sample rate, in Hz.
    threads : int > 0, optional
        At most this many; None: see `set_threads`. The numbers do not depend on it.
    **options
        Those of the function.

    Returns
    -------
    np.ndarray [shape=(dims, frames)], float32, or complex64 for "stft"

    Raises
    ------
    TypeError, ValueError
        An unknown name or option; what the function raises.
    """
    checks.choice("feature", name, tuple(NAMES))
    try:
        with threads_inside(threads):
            return NAMES[name](y=y, sr=sr, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise TypeError(f"{name}: {str(error).split('() ')[-1]}") from None


def shape_of(name: str, sr: float, **options: Any) -> tuple[int, np.dtype[Any]]:
    """The rows of a feature and their type, for sounds of any length."""
    framing = max(int(options.get("n_fft") or 2048), 1)
    tone = np.sin(0.3 * np.arange(framing)).astype(np.float32)  # silence has no tuning, and "chroma" would say so
    probe = compute(name, tone, sr, **options)
    if probe.ndim != 2:
        raise ValueError(f"{name}: expected a feature of shape (dims, frames), got {probe.shape}")
    return probe.shape[0], probe.dtype


def plot(name: str, values: _Array, sr: float, hop_length: int) -> Any:
    """A picture of a feature [shape=(dims, frames)] on new axes; spectra in dB. Needs matplotlib."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError('matplotlib is needed to plot: pip install "musicgen-ext[plot]"') from None
    if name in ("mel", "stft"):
        values = power_to_db(np.abs(values) ** (2 if name == "stft" else 1), ref=np.max)
    frames = values.shape[1]
    group = -(-frames // _COLUMNS)  # frames of a pixel
    if group > 1:
        values = np.maximum.reduceat(values, np.arange(0, frames, group), axis=1)
    seconds = frames * hop_length / sr
    _, axes = plt.subplots(figsize=(min(max(seconds, 6), 24), 4), layout="constrained")
    image = axes.imshow(
        values,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        extent=(0, seconds, -0.5, values.shape[0] - 0.5),
    )
    axes.figure.colorbar(image, ax=axes, label="dB" if name in ("logmel", "mel", "stft") else None)
    axes.set_xlabel("seconds")
    axes.set_ylabel(_ROWS[name])
    return axes
