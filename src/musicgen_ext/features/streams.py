"""Spectra, bands and cepstra of sound that comes block by block: exactly the frames of the whole, bit for bit.

A frame is given out as soon as its last sample is there. With ``center=True`` the first block of at least half a frame
and one sample begins it (padding may look that far), and frames that reach over the end come out of `finish`.
"""

from __future__ import annotations

import threading
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from musicgen_ext import checks
from musicgen_ext.features import mel, spectra
from musicgen_ext.features.windows import Window

_Array: TypeAlias = npt.NDArray[Any]


class _Stream:
    """What all streams do. A subclass tells which analysis it makes and what shape comes out of it.

    One stream is one sound: two threads that feed it at the same time take turns, in an order nobody knows.
    """

    def __init__(
        self,
        n_fft: int,
        hop_length: int | None,
        win_length: int | None,
        window: Window,
        center: bool,
        pad_mode: str,
        kind: np.dtype[Any],
        threads: int | None,
    ) -> None:
        self._n_fft, self._hop, self._win = checks.framing(n_fft, hop_length, win_length)
        self._window = spectra.key_of(window)
        spectra.window_of(self._window, self._win, self._n_fft)  # raises now rather than later
        checks.choice("pad_mode", pad_mode, spectra.PAD_MODES)
        self._pad = self._n_fft // 2 if center else 0
        self._pad_mode = pad_mode
        self._kind = kind
        self._threads = threads if threads is None else checks.integer("threads", threads, 1, 1 << 10)
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forget what was fed: the next block begins another sound."""
        self._shape: tuple[int, ...] | None = None  # of the channels, once they are known
        self._begun = False  # whether the left side is padded
        self._buffer: _Array = np.empty((0, 0))  # channels, samples
        self._next = 0  # where the next frame begins in the buffer; may lie beyond its end

    def feed(self, y: Any) -> _Array:
        """Take the next samples, shape (..., n); return the frames that they complete, shape (..., rows, frames).

        Raises
        ------
        TypeError, ValueError
            As for whole sounds; other leading axes than the block before. The stream is as it was.
        """
        block = checks.floats("y", y, dtype=spectra.precision_of(self._kind))
        if block.ndim == 0:
            raise ValueError("y: expected shape (n,) or (channels, n), got a single number")
        with self._lock:
            if self._shape is not None and block.shape[:-1] != self._shape:
                raise ValueError(f"y: expected channels of shape {self._shape} as before, got {block.shape[:-1]}")
            if self._shape is None:
                self._shape = block.shape[:-1]
                self._buffer = np.empty((int(np.prod(self._shape)), 0), block.dtype)
            self._buffer = np.concatenate([self._buffer, block.reshape(len(self._buffer), block.shape[-1])], axis=1)
            if not self._begun and self._buffer.shape[1] > self._pad:
                self._buffer = spectra.padded(self._buffer, self._pad, 0, self._pad_mode)
                self._begun = True
            return self._frames()

    def finish(self) -> _Array:
        """The frames that reach over the end; afterwards the stream is new.

        Raises
        ------
        ValueError
            Nothing was fed, or so little that `pad_mode` has nothing to look at.
        """
        with self._lock:
            if self._shape is None or self._buffer.shape[1] == 0:
                raise ValueError("y: expected samples before the end, got none")
            if self._pad > 0:
                left = 0 if self._begun else self._pad
                self._buffer = spectra.padded(self._buffer, left, self._pad, self._pad_mode)
            self._begun = True
            frames = self._frames()
            self.reset()
            return frames

    def _frames(self) -> _Array:
        """The frames that are complete. What neither they nor padding will need again is let go."""
        assert self._shape is not None
        analysis, rows, frames_first = self._engine()
        length = self._buffer.shape[1]
        number = 0
        if self._begun and length >= self._next + self._n_fft:
            number = 1 + (length - self._next - self._n_fft) // self._hop
        channels = len(self._buffer)
        shape = (channels, number, rows) if frames_first else (channels, rows, number)
        out = checks.empty("frames", shape, self._kind)
        if number > 0:
            signals = np.ascontiguousarray(self._buffer[:, self._next :])
            frames = spectra.Frames(signals, signals[:, :0], signals[:, :0], 0, number, 0, 0)
            spectra.run(analysis, frames, self._n_fft, self._hop, out, self._threads, signals)
            self._next += number * self._hop
        if self._begun:
            spent = max(0, min(self._next, length - self._pad - 1))
            self._buffer = self._buffer[:, spent:].copy()
            self._next -= spent
        if frames_first:
            out = out.swapaxes(-1, -2)
        return out.reshape(*self._shape, rows, number)

    def _engine(self) -> tuple[Any, int, bool]:
        """The analysis, the rows that come out of a frame, and whether frames follow one another in memory."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


class StreamingSTFT(_Stream):
    """`stft` of sound that comes block by block.

    Parameters
    ----------
    n_fft, hop_length, win_length, window, center, pad_mode, dtype, threads
        As in `stft`; `pad_mode` by name.

    Examples
    --------
    >>> import numpy as np
    >>> from musicgen_ext import features
    >>> y = np.random.default_rng(0).normal(0, 0.1, 10_000)
    >>> stream = features.StreamingSTFT(n_fft=512)
    >>> frames = [stream.feed(block) for block in np.split(y, [1000, 1010, 7000])]
    >>> frames.append(stream.finish())
    >>> bool(np.array_equal(np.concatenate(frames, axis=-1), features.stft(y, n_fft=512)))  # bit for bit
    True
    """

    def __init__(
        self,
        *,
        n_fft: int = 2048,
        hop_length: int | None = None,
        win_length: int | None = None,
        window: Window = "hann",
        center: bool = True,
        pad_mode: str = "constant",
        dtype: npt.DTypeLike | None = None,
        threads: int | None = None,
    ) -> None:
        kind = spectra.complex_type(dtype)
        super().__init__(n_fft, hop_length, win_length, window, center, pad_mode, kind, threads)

    def _engine(self) -> tuple[Any, int, bool]:
        return spectra.spectrum(self._window, self._win, self._n_fft, self._kind), 1 + self._n_fft // 2, True


class StreamingMelspectrogram(_Stream):
    """`melspectrogram` of sound that comes block by block.

    Arguments as there, `feed` and `finish` as in `StreamingSTFT`.
    """

    def __init__(
        self,
        *,
        sr: float = 22050,
        n_fft: int = 2048,
        hop_length: int | None = 512,
        win_length: int | None = None,
        window: Window = "hann",
        center: bool = True,
        pad_mode: str = "constant",
        power: float = 2.0,
        n_mels: int = 128,
        fmin: float = 0.0,
        fmax: float | None = None,
        htk: bool = False,
        norm: mel.Norm = "slaney",
        dtype: npt.DTypeLike = np.float32,
        threads: int | None = None,
    ) -> None:
        super().__init__(n_fft, hop_length, win_length, window, center, pad_mode, spectra.real_type(dtype), threads)
        self._power = checks.real("power", power, above=0)
        self._bands = mel.bands_key(sr, self._n_fft, n_mels, fmin, fmax, htk, norm)
        self._cepstra: tuple[Any, ...] | None = None
        self._made(warn=True)

    def _made(self, warn: bool = False) -> tuple[Any, int]:
        return mel.analysis(self._window, self._win, self._kind, self._power, self._bands, self._cepstra, warn=warn)

    def _engine(self) -> tuple[Any, int, bool]:
        return (*self._made(), False)


class StreamingMFCC(StreamingMelspectrogram):
    """`mfcc` of sound that comes block by block: that with ``top_db=None``, since the highest level is not known yet.

    Arguments as in `mfcc`, `feed` and `finish` as in `StreamingSTFT`.
    """

    def __init__(
        self,
        *,
        sr: float = 22050,
        n_mfcc: int = 20,
        dct_type: int = 2,
        norm: Literal["ortho", "backward", "forward"] | None = "ortho",
        lifter: float = 0,
        mel_norm: mel.Norm = "slaney",
        n_fft: int = 2048,
        hop_length: int | None = 512,
        win_length: int | None = None,
        window: Window = "hann",
        center: bool = True,
        pad_mode: str = "constant",
        power: float = 2.0,
        n_mels: int = 128,
        fmin: float = 0.0,
        fmax: float | None = None,
        htk: bool = False,
        dtype: npt.DTypeLike = np.float32,
        threads: int | None = None,
    ) -> None:
        super().__init__(
            sr=sr, n_fft=n_fft, hop_length=hop_length, win_length=win_length, window=window, center=center,
            pad_mode=pad_mode, power=power, n_mels=n_mels, fmin=fmin, fmax=fmax, htk=htk, norm=mel_norm, dtype=dtype,
            threads=threads,
        )  # fmt: skip
        self._cepstra = (*mel.cepstra_key(n_mfcc, dct_type, norm, lifter), None)
        self._made()
