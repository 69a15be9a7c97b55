"""The pitch of a sound of one note at a time."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from musicgen_ext import checks

Doubles = npt.NDArray[np.float64]

_THRESHOLD = 0.15  # of the normalised difference, below which a period is taken at once: 0.1 to 0.15 in the paper
_FRAMES = 1 << 12  # frames worked on at a time


class Pitch(NamedTuple):
    """Pitch over time.

    Attributes
    ----------
    times : np.ndarray [shape=(F,)], float64
        The middle of every frame, in seconds.
    hertz : np.ndarray [shape=(F,)], float64
        Fundamental frequency, the best guess where there is none, too.
    aperiodicity : np.ndarray [shape=(F,)], float64
        Share of the power that does not repeat after a period: near 0 for a clear tone, near 1 for noise and silence.
    """

    times: Doubles
    hertz: Doubles
    aperiodicity: Doubles


def yin(y: npt.ArrayLike, *, sr: float, fmin: float = 55.0, fmax: float = 2_000.0, hop_length: int = 0) -> Pitch:
    """Pitch by the YIN method: the shortest period after which the sound comes nearest to repeating itself.

    Parameters
    ----------
    y : np.ndarray [shape=(n,)], floating point
    sr : number > 0
        Samples per second.
    fmin, fmax : float
        Lowest and highest frequency, in Hz; `fmax` at most a quarter of `sr`.
    hop_length : int
        From one frame to the next; 0: ten milliseconds.

    Returns
    -------
    Pitch
        Only frames that lie inside of `y`: none of less than two periods of `fmin`.

    Notes
    -----
    Source: A. de Cheveigné, H. Kawahara, "YIN, a fundamental frequency estimator for speech and music", JASA 111, 2002,
    steps 1 to 5: difference function, its cumulative mean, threshold, parabolic interpolation.
    """
    sound = checks.samples(y)
    if sound.ndim != 1:
        raise ValueError(f"y: expected one channel, shape (n,), got shape {sound.shape}")
    sr = checks.rate(sr)
    fmin = checks.real("fmin", fmin, above=0, high=sr / 8)
    fmax = checks.real("fmax", fmax, low=2 * fmin, high=sr / 4)
    hop = checks.integer("hop_length", hop_length, 0) or max(1, round(sr / 100))
    longest = math.ceil(sr / fmin)
    shortest = max(2, math.floor(sr / fmax))
    width = longest + 1  # samples that are compared with those a lag later, of lags up to longest + 1
    frame = width + longest + 1
    count = max(0, 1 + (len(sound) - frame) // hop)
    times: Doubles = (np.arange(count, dtype=np.float64) * hop + frame / 2) / np.float64(sr)
    hertz, aperiodicity = np.empty(count), np.empty(count)
    for first in range(0, count, _FRAMES):
        last = min(first + _FRAMES, count)
        windows = np.lib.stride_tricks.sliding_window_view(sound, frame)[first * hop : (last - 1) * hop + 1 : hop]
        lags, rest = _periods(_normalised(windows.astype(np.float64), width), shortest, longest)
        hertz[first:last], aperiodicity[first:last] = sr / lags, rest
    return Pitch(times, hertz, aperiodicity)


def _normalised(frames: Doubles, width: int) -> Doubles:
    """The cumulative mean normalised difference at the lags 0, 1 …, equations 6 and 8 of the paper."""
    total = frames.shape[1]
    lags = total - width + 1
    size = 1 << (total + width - 1).bit_length()
    ahead = np.fft.irfft(np.fft.rfft(frames, size) * np.conj(np.fft.rfft(frames[:, :width], size)), size)[:, :lags]
    energy = np.cumsum(np.pad(frames**2, ((0, 0), (1, 0))), axis=1)
    energies = energy[:, width : width + lags] - energy[:, :lags]
    difference = np.maximum(energies[:, :1] + energies - 2 * ahead, 0.0)
    mean = np.cumsum(difference, axis=1)
    tau = np.arange(lags)
    # Silence repeats exactly and has no period: its difference counts as all of the power.
    out = np.ones_like(difference)
    loud = mean > 1e-12 * (energies[:, :1] + 1e-12) * np.maximum(tau, 1)
    np.divide(difference * tau, mean, out=out, where=loud)
    out[:, 0] = 1
    return out


def _periods(difference: Doubles, shortest: int, longest: int) -> tuple[Doubles, Doubles]:
    """The period of every frame, in samples, and what is left of the difference there."""
    rows = np.arange(len(difference))
    inside = difference[:, shortest : longest + 1]
    valley = (inside <= difference[:, shortest - 1 : longest]) & (inside < difference[:, shortest + 1 : longest + 2])
    good = valley & (inside < _THRESHOLD)
    first = good.argmax(axis=1)
    lowest = np.where(valley, inside, np.inf).argmin(axis=1)
    lowest = np.where(valley.any(axis=1), lowest, inside.argmin(axis=1))
    at = np.where(good.any(axis=1), first, lowest) + shortest
    before, here, after = difference[rows, at - 1], difference[rows, at], difference[rows, at + 1]
    curve = before - 2 * here + after
    shift = np.where(curve > 0, 0.5 * (before - after) / np.where(curve > 0, curve, 1), 0.0)
    shift = np.clip(shift, -1, 1)
    return at + shift, np.clip(here - 0.25 * (before - after) * shift, 0, None)
