"""Where spectra come from: a signal, or a spectrogram that is there already."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core, checks
from musicgen_ext.features import spectra
from musicgen_ext.features.windows import Window

_F32 = npt.NDArray[np.float32]
_F64 = npt.NDArray[np.float64]
_LOUD = 2.0**40  # from here on the powers of spectra could pass what float32 holds: signals are scaled down


class Spectra(NamedTuple):
    """Magnitudes to a power, given or still to be computed."""

    leading: tuple[int, ...]
    channels: int
    bins: int
    frames: int
    n_fft: int
    given: _F32 | None  # (..., bins, frames)
    analysis: Any
    framed: spectra.Frames | None
    hop_length: int
    exponent: int = 0  # the magnitudes are to be multiplied by two to this power

    def tiles(self) -> _core.Tiles:
        """For the native measures, which do the work of a signal's spectra on the way."""
        if self.given is not None:
            return _core.spectra(checks.channels_of(self.given), False)
        return _core.tiles(self.analysis, *self._frames(), spectra.threads_for(None, self.channels * self.frames))

    def computed(self) -> Spectra:
        """The same with its magnitudes in memory, bins side by side where they are computed here."""
        if self.given is not None:
            return self
        out = checks.empty("S", (self.channels, self.frames, self.bins))
        self.analysis.run(*self._frames(), out, spectra.threads_for(None, self.channels * self.frames))
        return self._replace(given=out.reshape(*self.leading, self.frames, self.bins).swapaxes(-1, -2))

    def magnitudes(self) -> _F32:
        """(..., bins, frames), which the caller must not write to."""
        given = self.computed().given
        assert given is not None
        if (given < 0).any():
            raise ValueError(f"S: expected non-negative values, got {given.min():g}")
        return given

    def restored(self, values: _F32) -> _F32:
        """What is proportional to the magnitudes, in its true size; at most the largest float32."""
        if self.exponent == 0:
            return values
        largest = np.finfo(np.float32).max
        return np.minimum(np.ldexp(values.astype(np.float64), self.exponent), largest).astype(np.float32)

    def room(self, name: str) -> _F32:
        """For one number a frame."""
        return checks.empty(name, (self.channels, self.frames))

    def shaped(self, out: _F32) -> _F32:
        return out.reshape(*self.leading, 1, self.frames)

    def _frames(self) -> tuple[_F32, _F32, _F32, int, int, int, int, int, int]:
        f = self.framed
        assert f is not None
        return (f.signals, f.heads, f.tails, self.n_fft, self.hop_length, f.offset, f.number, f.n_head, f.n_tail)


def spectra_of(
    y: npt.ArrayLike | None,
    S: npt.ArrayLike | None,
    n_fft: int,
    hop_length: int | None,
    win_length: int | None,
    window: Window,
    center: bool,
    pad_mode: spectra.PadMode,
    check_finite: bool,
    power: float = 1.0,
) -> Spectra:
    """What a function with librosa's arguments works on. `check_finite` is about `S`."""
    if S is not None:
        given = checks.spectrogram(S, check_finite=check_finite)
        bins, frames = given.shape[-2:]
        n_fft = checks.integer("n_fft", n_fft)
        if n_fft // 2 + 1 != bins:
            n_fft = max(1, 2 * (bins - 1))
        return Spectra(given.shape[:-2], given.size // (bins * frames), bins, frames, n_fft, given, None, None, 0)
    if y is None:
        raise ValueError("y: expected a signal, or a spectrogram S, got neither")
    n_fft, hop_length, win_length = checks.framing(n_fft, hop_length, win_length)
    signal = checks.samples(y, check_finite=False)
    exponent = 0
    if _core.any_from(signal, _LOUD):  # or not finite
        checks.floats("y", y)
        exponent = math.frexp(max(signal.max(), -signal.min()))[1]
        signal = np.ldexp(signal, -exponent)  # exact, for all that is not far below the loudest
    framed = spectra.framed(signal, n_fft, hop_length, center, pad_mode)
    analysis = _magnitudes(spectra.key_of(window), win_length, n_fft, power)
    channels = len(framed.signals)
    return Spectra(
        signal.shape[:-1],
        channels,
        1 + n_fft // 2,
        framed.number,
        n_fft,
        None,
        analysis,
        framed,
        hop_length,
        round(exponent * power),
    )


@lru_cache(maxsize=16)
def _magnitudes(window: Any, win_length: int, n_fft: int, power: float) -> Any:
    values = spectra.window_of(window, win_length, n_fft)
    return _core.Analysis32(values, "magnitudes", power, None, None, False, 1e-10, None)


def frequencies_of(freq: npt.ArrayLike | None, sr: float, found: Spectra) -> _F64:
    """Frequency of each bin, shape (bins,), or of each bin in each frame, shape (..., bins, frames)."""
    sr = checks.rate(sr)
    if freq is None:
        # Rounded as librosa's: a bin may lie on the edge of a band.
        return np.fft.rfftfreq(found.n_fft, 1 / sr).astype(np.float64)
    array = np.asarray(freq)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"freq: expected real numbers, got {array.dtype}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"freq: expected finite numbers, got {int((~np.isfinite(array)).sum())} that are not")
    whole = (*found.leading, found.bins, found.frames)
    if array.shape == (found.bins,):
        return np.ascontiguousarray(array)
    if array.ndim >= 2 and array.shape in (whole[-2:], whole):
        return array
    raise ValueError(f"freq: expected shape ({found.bins},) or {whole}, got {array.shape}")
