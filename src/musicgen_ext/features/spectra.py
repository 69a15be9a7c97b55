"""Short-time spectra and back: librosa's names, signatures, shapes and numbers.

Sixteen frames are transformed side by side, one in each lane of the processor's vectors. What comes out of a frame does
not depend on its neighbours, on the number of threads or on how a signal was cut up before it was fed to a stream.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core, checks
from musicgen_ext.features.windows import Window, padded_window

PadMode: TypeAlias = str | Callable[..., Any]
_Array: TypeAlias = npt.NDArray[Any]

PAD_MODES = ("constant", "edge", "linear_ramp", "reflect", "symmetric")
_LEAST_BLOCKS = 4  # of sixteen frames for each thread: with less work, waking it is not worth it


def stft(
    y: Any,
    *,
    n_fft: int = 2048,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Window = "hann",
    center: bool = True,
    dtype: npt.DTypeLike | None = None,
    pad_mode: PadMode = "constant",
    out: _Array | None = None,
    threads: int | None = None,
) -> _Array:
    """Short-time Fourier transform.

    Parameters
    ----------
    y : np.ndarray [shape=(..., n)], floating point
        Sound.
    n_fft : int > 0
        Samples of a frame. Any number; powers of two, and these times 3 or 5, are fastest.
    hop_length : int > 0, optional
        Samples from one frame to the next; None: a quarter of `win_length`.
    win_length : int, optional
        Samples of the window, which is padded with zeros to `n_fft`; None: `n_fft`.
    window : str, tuple, number, callable or array
        See `get_window`.
    center : bool
        Frame t is centred at sample ``t * hop_length``, the signal padded on both sides; else it begins there.
    dtype : np.complex64 or np.complex128, optional
        complex128: computed in double precision; None: complex64.
    pad_mode : str or callable
        "constant" (zeros), "edge", "linear_ramp", "reflect", "symmetric", or a function for ``np.pad``.
    out : np.ndarray [shape=(..., 1 + n_fft // 2, at least frames)], optional
        Where to write. Arrays in the layout of the result (frames follow one another in memory) are written directly.
    threads : int > 0, optional
        At most this many; None: see `set_threads`. The numbers do not depend on it.

    Returns
    -------
    np.ndarray [shape=(..., 1 + n_fft // 2, frames)], complex64 or complex128
        ``frames = 1 + (n + 2 * (n_fft // 2) - n_fft) // hop_length`` with `center`, else
        ``1 + (n - n_fft) // hop_length``. The bins of a frame follow one another in memory, as librosa's. `out` if
        that was given, or the part of it that was written to.

    Raises
    ------
    TypeError, ValueError
        An argument of the wrong type, out of its range, or not finite; the message names it.
    ValueError
        Fewer than `n_fft` samples without `center`; `out` of another shape or type.
    """
    n_fft, hop_length, win_length = checks.framing(n_fft, hop_length, win_length)
    kind = complex_type(dtype)
    analysis = spectrum(key_of(window), win_length, n_fft, kind)
    if out is None:
        found = plainly(analysis, y, hop_length, center, pad_mode, threads)
        if found is not None:
            return np.swapaxes(found, -1, -2)
    signal = samples(y, kind)
    frames = framed(signal, n_fft, hop_length, center, pad_mode)
    shape = (*signal.shape[:-1], 1 + n_fft // 2, frames.number)
    result = None if out is None else _fitting(out, shape)
    # In memory: channels, frames, bins. An `out` laid out like this is written to, any other is copied to.
    target = None if result is None else _written_directly(result, kind)
    if target is None:
        target = checks.empty("stft", (len(frames.signals), frames.number, 1 + n_fft // 2), kind)
    run(analysis, frames, n_fft, hop_length, target, threads, y)
    if result is None:
        return np.swapaxes(target.reshape(*shape[:-2], shape[-1], shape[-2]), -1, -2)
    if not np.shares_memory(result, target):
        result[...] = np.swapaxes(target.reshape(*shape[:-2], shape[-1], shape[-2]), -1, -2)
    return result


def istft(
    stft_matrix: Any,
    *,
    hop_length: int | None = None,
    win_length: int | None = None,
    n_fft: int | None = None,
    window: Window = "hann",
    center: bool = True,
    dtype: npt.DTypeLike | None = None,
    length: int | None = None,
    out: _Array | None = None,
    threads: int | None = None,
) -> _Array:
    """Inverse short-time Fourier transform, by overlapping and adding.

    The sum of the windowed frames is divided by that of the squared windows wherever that is not 0: the signal whose
    `stft` is nearest to `stft_matrix` in the mean square.

    Parameters
    ----------
    stft_matrix : np.ndarray [shape=(..., 1 + n_fft // 2, frames)], complex
        Imaginary parts that a real signal cannot have (of the first bin, and the last of an even `n_fft`) are ignored.
    hop_length, win_length, window, center, threads
        As in `stft`.
    n_fft : int, optional
        None: ``2 * (stft_matrix.shape[-2] - 1)``; odd ones have to be given.
    dtype : np.float32 or np.float64, optional
        None: float32.
    length : int, optional
        Samples to return: the signal is cut, or padded with zeros.
    out : np.ndarray [shape=(..., n)], optional
        Where to write.

    Returns
    -------
    np.ndarray [shape=(..., n)], float32 or float64

    Raises
    ------
    TypeError, ValueError
        An argument of the wrong type, out of its range, or not finite; the message names it.

    Notes
    -----
    Source: D. W. Griffin and J. S. Lim, Signal Estimation from Modified Short-Time Fourier Transform, IEEE Trans. ASSP
    32(2), 1984.
    """
    kind = real_type(dtype)
    spectra = _frames_first(stft_matrix, np.result_type(kind, np.complex64))
    bins = spectra.shape[-1]
    if n_fft is None:
        n_fft = 2 * (bins - 1)
    n_fft, hop_length, win_length = checks.framing(n_fft, hop_length, win_length)
    if bins != 1 + n_fft // 2:
        raise ValueError(f"stft_matrix: expected {1 + n_fft // 2} bins for n_fft={n_fft}, got {bins}")
    offset = n_fft // 2 if center else 0
    n_frames = spectra.shape[-2]
    if length is None:
        samples_out = max(0, n_fft + hop_length * (n_frames - 1) - 2 * offset)
    else:
        samples_out = checks.integer("length", length, 0, 2**62)
        n_frames = min(n_frames, -(-(samples_out + 2 * offset) // hop_length))
    shape = (*spectra.shape[:-2], samples_out)
    channels = spectra.reshape(-1, spectra.shape[-2], bins)
    target = None
    if out is not None:
        if not isinstance(out, np.ndarray) or out.dtype.kind != "f" or out.shape != shape:
            what = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
            raise ValueError(f"out: expected a floating-point array of shape {shape}, got {what}")
        if out.dtype == kind and out.flags.c_contiguous and out.flags.writeable and out.flags.aligned:
            target = out.reshape(-1, samples_out)
    if target is None:
        target = checks.empty("istft", (len(channels), samples_out), kind)
    count = threads_for(threads, len(channels) * n_frames)
    with working_memory(n_fft):
        synthesis = _synthesis(key_of(window), win_length, n_fft, hop_length, kind)
        synthesis.run(channels, bins, n_frames, offset, target, count)
    if out is None:
        return target.reshape(shape)
    if not np.shares_memory(out, target):
        out[...] = target.reshape(shape)
    return out


_threads: int | None = None
_limited = threading.local()  # its `most`, in threads of which there are many already


def set_threads(threads: int | None) -> None:
    """How many threads `stft`, `melspectrogram`, `mfcc` … use where their ``threads`` argument is None.

    None: what the environment variable MUSICGEN_EXT_THREADS says, else as many as this process has processors.
    Short signals use fewer, in any case. Numbers do not depend on it.
    """
    global _threads
    _threads = None if threads is None else checks.integer("threads", threads, 1, 1 << 10)


# -- for the rooms next door -----------------------------------------------------------------------------------------


class Frames(NamedTuple):
    """Where frames lie: the first `n_head` in `heads`, the last `n_tail` in `tails`, the others in `signals`.

    Heads and tails without samples are those of the signals, with zeros before and after.
    """

    signals: _Array  # (channels, n)
    heads: _Array
    tails: _Array
    offset: int  # frame f begins at f * hop - offset
    number: int
    n_head: int
    n_tail: int


def real_type(dtype: npt.DTypeLike | None) -> np.dtype[Any]:
    kind = np.dtype(np.float32 if dtype is None else dtype)
    if kind not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype: expected float32 or float64, got {kind}")
    return kind


def complex_type(dtype: npt.DTypeLike | None) -> np.dtype[Any]:
    kind = np.dtype(np.complex64 if dtype is None else dtype)
    if kind not in (np.dtype(np.complex64), np.dtype(np.complex128)):
        raise ValueError(f"dtype: expected complex64 or complex128, got {kind}")
    return kind


def precision_of(kind: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float64 if kind in (np.dtype(np.complex128), np.dtype(np.float64)) else np.float32)


def samples(y: Any, kind: np.dtype[Any]) -> _Array:
    """Sound in the precision of `kind`; NaN and infinities are looked for by those who read it anyway."""
    return checks.samples(y, dtype=precision_of(kind), check_finite=False)


def framed(signal: _Array, n_fft: int, hop_length: int, center: bool, pad_mode: PadMode) -> Frames:
    """The frames of sound (..., n). Only what lies over the edges is padded, not the whole."""
    signals = signal.reshape(-1, signal.shape[-1])
    n = signals.shape[1]
    none = signals[:, :0]
    if not center:
        if n < n_fft:
            raise ValueError(f"y: expected at least n_fft={n_fft} samples without center, got shape {signal.shape}")
        return Frames(signals, none, none, 0, 1 + (n - n_fft) // hop_length, 0, 0)
    if not callable(pad_mode):
        checks.choice("pad_mode", pad_mode, PAD_MODES)
    if n < n_fft:
        warnings.warn(f"n_fft={n_fft} is too large for input signal of length={n}", stacklevel=3)
    pad = n_fft // 2
    count = 1 + (n + 2 * pad - n_fft) // hop_length
    n_head = -(-pad // hop_length)
    tail = (n + pad - n_fft) // hop_length + 1  # the first frame over the right edge
    if tail <= n_head:
        return Frames(padded(signals, pad, pad, pad_mode), none, none, 0, count, 0, 0)
    if pad_mode == "constant":
        return Frames(signals, none, none, pad, count, n_head, count - tail)
    # Padding looks as far into the signal as it reaches beyond it.
    head_end = max((n_head - 1) * hop_length + n_fft - pad, pad + 1)
    heads = padded(signals[:, :head_end], pad, 0, pad_mode) if n_head > 0 else none
    tails = none
    if tail < count:
        tail_begin = max(0, min(tail * hop_length - pad, n - pad - 1))
        tails = padded(signals[:, tail_begin:], 0, pad, pad_mode)[:, tail * hop_length - pad - tail_begin :]
        tails = np.ascontiguousarray(tails)
    return Frames(signals, heads, tails, pad, count, n_head, count - tail)


def run(analysis: Any, frames: Frames, n_fft: int, hop_length: int, out: _Array, threads: int | None, y: Any) -> None:
    """Fill `out` with what `analysis` makes of the frames; `y` is what the caller gave, for the error."""
    count = threads_for(threads, len(frames.signals) * frames.number)
    parts = (frames.signals, frames.heads, frames.tails)
    numbers = (n_fft, hop_length, frames.offset, frames.number, frames.n_head, frames.n_tail)
    try:  # as `working_memory`, without its microsecond
        finite = analysis.run(*parts, *numbers, out, count)
    except MemoryError:
        raise _no_memory(n_fft) from None
    if not finite:
        checks.floats("y", y, dtype=frames.signals.dtype)  # raises, with the place
        raise ValueError("y: expected finite numbers, got some that are not after padding")


def plainly(analysis: Any, y: Any, hop_length: int, center: bool, pad_mode: PadMode, threads: int | None) -> Any:
    """What `framed` and `run` do, in one native call; None where anything about the sound is out of the ordinary."""
    if type(y) is not np.ndarray or not isinstance(pad_mode, str) or pad_mode != "constant":
        return None
    try:
        return analysis.run_plain(y, hop_length, bool(center), threads_for(threads, y.size // hop_length))
    except MemoryError:  # the long way says for what
        return None


@contextmanager
def working_memory(n_fft: int) -> Iterator[None]:
    """Says what there was no memory for: tables, and sixteen frames with their spectra for each thread."""
    try:
        yield
    except MemoryError:
        raise _no_memory(n_fft) from None


def _no_memory(n_fft: int) -> MemoryError:
    return MemoryError(
        f"n_fft: expected frames that fit in memory sixteen at a time, got {n_fft}, more than {128 * n_fft} bytes"
    )


def threads_for(threads: int | None, n_frames: int) -> int:
    """How many threads to use: no more than wanted, than there is work for, or than this process may have."""
    if threads is not None:
        return checks.integer("threads", threads, 1, 1 << 10)
    if n_frames < 2 * 16 * _LEAST_BLOCKS:
        return 1
    wanted = getattr(_limited, "most", None) or _threads or _default_threads()
    return min(wanted, n_frames // (16 * _LEAST_BLOCKS))


@contextmanager
def threads_inside(threads: int | None) -> Iterator[None]:
    """What is called inside, by this thread, uses at most so many where its ``threads`` argument is None."""
    before = getattr(_limited, "most", None)
    _limited.most = None if threads is None else checks.integer("threads", threads, 1, 1 << 10)
    try:
        yield
    finally:
        _limited.most = before


def _default_threads() -> int:
    asked = os.environ.get("MUSICGEN_EXT_THREADS", "")
    if asked:
        try:
            return checks.integer("MUSICGEN_EXT_THREADS", int(asked), 1, 1 << 10)
        except ValueError:
            raise ValueError(f"MUSICGEN_EXT_THREADS: expected 1 to 1024, got {asked!r}") from None
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# -- helpers ---------------------------------------------------------------------------------------------------------


def key_of(window: Window) -> Any:
    """The window as something that can be looked up: arrays by their content."""
    if isinstance(window, np.ndarray | list):
        given = np.asarray(window)
        return ("array", given.dtype.str, given.shape, given.tobytes()) if given.dtype != object else given
    return window


def window_of(key: Any, win_length: int, n_fft: int) -> npt.NDArray[np.float64]:
    if isinstance(key, tuple) and len(key) == 4 and key[0] == "array":
        key = np.frombuffer(key[3], key[1]).reshape(key[2])
    return np.ascontiguousarray(padded_window(key, win_length, n_fft), np.float64)


@lru_cache(maxsize=32)
def spectrum(window: Any, win_length: int, n_fft: int, kind: np.dtype[Any]) -> Any:
    made = _core.Analysis32 if kind == np.complex64 else _core.Analysis64
    with working_memory(n_fft):
        return made(window_of(window, win_length, n_fft), "spectrum", 2.0, None, None, False, 1e-10, None)


@lru_cache(maxsize=32)
def _synthesis(window: Any, win_length: int, n_fft: int, hop_length: int, kind: np.dtype[Any]) -> Any:
    made = _core.Synthesis32 if kind == np.float32 else _core.Synthesis64
    return made(window_of(window, win_length, n_fft), hop_length)


def padded(signals: _Array, left: int, right: int, mode: PadMode) -> _Array:
    if mode == "constant":  # np.pad takes longer to think than the transform
        result = np.zeros((len(signals), left + signals.shape[1] + right), signals.dtype)
        result[:, left : left + signals.shape[1]] = signals
        return result
    try:
        padded: _Array = np.pad(signals, ((0, 0), (left, right)), mode=mode)  # type: ignore[call-overload]
    except ValueError as error:
        raise ValueError(
            f"pad_mode: expected one that fits {signals.shape[1]} samples, got {mode!r}: {error}"
        ) from None
    return np.ascontiguousarray(padded, signals.dtype)


def _frames_first(stft_matrix: Any, kind: np.dtype[Any]) -> _Array:
    """(..., frames, bins), contiguous: what `stft` returns, without a copy."""
    spectra = checks.dense("stft_matrix", stft_matrix, kind)
    if spectra.ndim < 2 or spectra.size == 0:
        raise ValueError(f"stft_matrix: expected shape (..., 1 + n_fft // 2, frames), got {spectra.shape}")
    return np.ascontiguousarray(spectra.swapaxes(-1, -2))


def _fitting(out: Any, shape: tuple[int, ...]) -> _Array:
    if not isinstance(out, np.ndarray) or out.dtype.kind != "c":
        what = out.dtype if isinstance(out, np.ndarray) else type(out).__name__
        raise TypeError(f"out: expected a complex array, got {what}")
    if out.ndim != len(shape) or out.shape[:-1] != shape[:-1] or out.shape[-1] < shape[-1]:
        raise ValueError(f"out: expected shape {shape} or more frames, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out: expected an array that can be written to, got a read-only one")
    return out[..., : shape[-1]]


def _written_directly(result: _Array, kind: np.dtype[Any]) -> _Array | None:
    """`result` as a contiguous (channels, frames, bins), where it is one."""
    frames_first = np.swapaxes(result, -1, -2)
    if result.dtype == kind and frames_first.flags.c_contiguous and frames_first.flags.aligned:
        return frames_first.reshape(-1, *frames_first.shape[-2:])
    return None
