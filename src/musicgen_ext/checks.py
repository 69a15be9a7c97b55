"""What the audio functions accept: sound and spectrograms as float32, numbers in their ranges, sizes that fit.

An array may have any strides, byte order, alignment and memory layout, and may be read-only; it is never written to.
Nothing but floating-point numbers is taken for sound: integers need a scale that only the caller knows. An array must
not be resized, or written to by another thread, while a function works on it: that is not detected, and the numbers
would be those of some moment in between. No function keeps a pointer into an argument after it returns.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core

MOST_BYTES = 2**40  # of one array; what the machine cannot give below that is refused by its system
_MOST_INTEGER = 2**31 - 1

# -- arrays ----------------------------------------------------------------------------------------------------------


def floats(name: str, values: Any, *, check_finite: bool = True, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
    """`values` as a C-contiguous array of `dtype`, in native byte order; the same memory where it is one already.

    Raises
    ------
    TypeError
        Not an array of floating-point numbers: integers, bool, complex, objects, text, masked or ragged ones, an array
        that lives on another device.
    ValueError
        NaN or infinities (or numbers that `dtype` cannot hold), with their count and the first one's index;
        not looked for with ``check_finite=False``.
    MemoryError
        No room for the copy, with its size.
    """
    array = _plain(name, values)
    if array.dtype.kind == "c":
        raise TypeError(f"{name}: expected floating-point numbers, got {array.dtype} (take np.abs or .real first)")
    _is_floating(name, array, "f", "floating-point numbers")
    return _converted(name, array, np.dtype(dtype), check_finite)


def complexes(
    name: str, values: Any, *, check_finite: bool = True, dtype: npt.DTypeLike = np.complex64
) -> npt.NDArray[Any]:
    """As `floats`, for complex numbers; real ones count as complex."""
    array = _plain(name, values)
    _is_floating(name, array, "fc", "complex numbers")
    return _converted(name, array, np.dtype(dtype), check_finite)


def dense(name: str, values: Any, dtype: npt.DTypeLike = np.float32, *, check_finite: bool = True) -> npt.NDArray[Any]:
    """`floats` or `complexes`; memory along the last axis but one, as librosa's spectrograms have it, is kept so."""
    convert: Any = floats if np.dtype(dtype).kind == "f" else complexes
    if isinstance(values, np.ndarray) and values.ndim >= 2 and not values.flags.c_contiguous:
        swapped = values.swapaxes(-1, -2)
        if swapped.flags.c_contiguous and not isinstance(values, np.ma.MaskedArray):
            array = convert(name, swapped, check_finite=False, dtype=dtype)
            if check_finite and _nonfinite(array)[0] > 0:
                convert(name, values, dtype=dtype)  # says where
            return array.swapaxes(-1, -2)  # type: ignore[no-any-return]
    return convert(name, values, check_finite=check_finite, dtype=dtype)  # type: ignore[no-any-return]


def is_complex(values: Any) -> bool:
    """Whether `values` is an array, or a number, of a complex type."""
    return isinstance(values, np.ndarray | np.generic | complex) and np.iscomplexobj(values)


def flat(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An array out of `dense` or `empty_like` with its axes in the order of its memory."""
    return array if array.flags.c_contiguous else array.swapaxes(-1, -2)


def samples(
    y: Any, *, name: str = "y", minimum: int = 1, check_finite: bool = True, dtype: npt.DTypeLike = np.float32
) -> npt.NDArray[Any]:
    """Sound of shape (n,) or (..., channels, n) with at least `minimum` samples; see `floats`."""
    array = floats(name, y, check_finite=check_finite, dtype=dtype)
    if array.ndim == 0:
        raise ValueError(f"{name}: expected shape (n,) or (channels, n), got a single number")
    if array.shape[-1] < minimum or array.size == 0:
        hint = " (channels come first)" if array.ndim > 1 and array.shape[-2] > array.shape[-1] else ""
        raise ValueError(f"{name}: expected at least {minimum} samples along the last axis, got {array.shape}{hint}")
    return array


def spectrogram(
    S: Any, *, name: str = "S", minimum_bins: int = 1, check_finite: bool = True, dtype: npt.DTypeLike = np.float32
) -> npt.NDArray[Any]:
    """Real spectra of shape (..., bins, frames), none of both empty; see `floats`.

    Memory along bins instead of frames is kept so; see `dense`.
    """
    array = dense(name, S, dtype, check_finite=check_finite)
    if array.ndim < 2 or array.shape[-2] < minimum_bins or array.size == 0:
        least = f"at least {minimum_bins} bins" if minimum_bins > 1 else "at least 1 bin"
        raise ValueError(f"{name}: expected shape (..., bins, frames) with {least}, got {array.shape}")
    return array


def channels_of(S: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Spectra out of `spectrogram` as (channels, bins, frames), without a copy."""
    bins, frames = S.shape[-2:]
    if S.flags.c_contiguous:
        return S.reshape(-1, bins, frames)
    return S.swapaxes(-1, -2).reshape(-1, frames, bins).swapaxes(-1, -2)


def _plain(name: str, values: Any) -> npt.NDArray[Any]:
    if isinstance(values, np.ma.MaskedArray):  # whose mask np.asarray would drop
        raise TypeError(f"{name}: expected an ordinary array, got a masked array of {values.dtype} (fill it first)")
    try:
        array = np.asarray(values)
    except ValueError:
        raise TypeError(f"{name}: expected an array of floating-point numbers, got a ragged sequence") from None
    except (TypeError, RuntimeError) as error:  # a tensor on a graphics card, or one that requires gradients
        kind = f"{type(values).__name__} of {dtype}" if (dtype := getattr(values, "dtype", None)) else type(values)
        raise TypeError(f"{name}: expected an array of floating-point numbers, got {kind}: {error}") from None
    return array


def _is_floating(name: str, array: npt.NDArray[Any], kinds: str, expected: str) -> None:
    if array.dtype.kind in "iub":
        raise TypeError(f"{name}: expected {expected}, got {array.dtype}: convert to float and scale to [-1, 1]")
    if array.dtype.kind not in kinds:
        raise TypeError(f"{name}: expected {expected}, got {array.dtype}")


def _converted(name: str, array: npt.NDArray[Any], dtype: np.dtype[Any], check_finite: bool) -> npt.NDArray[Any]:
    if array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned:
        result = array
    else:
        result = empty(name, array.shape, dtype)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # infinities are refused below, by name
            np.copyto(result, array, casting="same_kind")
    if check_finite:
        count, first = _nonfinite(result)
        if count > 0:
            index = tuple(int(i) for i in np.unravel_index(first, array.shape))
            place = index[0] if len(index) == 1 else index
            raise ValueError(
                f"{name}: expected finite {dtype.name} numbers, got {count} that {'is' if count == 1 else 'are'} not, "
                f"the first {array[index]} at index {place}"
            )
    return result


def _nonfinite(array: npt.NDArray[Any]) -> tuple[int, int]:
    """How many values are NaN or infinite, and the flat index of the first."""
    if array.dtype == np.float32:
        return _core.nonfinite(array)
    if array.dtype == np.complex64:
        count, first = _core.nonfinite(array.view(np.float32))
        return count, first // 2
    bad = ~np.isfinite(array)
    return int(np.count_nonzero(bad)), int(np.argmax(bad)) if bad.size else -1


# -- numbers ---------------------------------------------------------------------------------------------------------


def integer(name: str, value: Any, low: int = 1, high: int = _MOST_INTEGER) -> int:
    """`value` as an int in [low, high]; anything that is an index, but no bool and no float."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        whole = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__} {value!r}") from None
    if not low <= whole <= high:
        raise ValueError(f"{name}: expected {low} to {high}, got {whole}")
    return whole


def real(name: str, value: Any, low: float = -math.inf, high: float = math.inf, *, above: float | None = None) -> float:
    """`value` as a finite float in [low, high], and greater than `above` where that is given."""
    if isinstance(value, bool | np.bool_ | str | bytes):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__} {value!r}")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__} {value!r}") from None
    inside = math.isfinite(number) and low <= number <= high and (above is None or number > above)
    if not inside:  # NaN compares false with everything
        bounds = [f"> {above:g}"] if above is not None else []
        bounds += [f">= {low:g}"] if low > -math.inf else []
        bounds += [f"<= {high:g}"] if high < math.inf else []
        raise ValueError(
            f"{name}: expected a finite number{' and'.join(f' {bound}' for bound in bounds)}, got {value!r}"
        )
    return number


def choice(name: str, value: Any, known: Collection[Any]) -> None:
    """`value` is among `known`."""
    try:
        found = value in known
    except (TypeError, ValueError):  # unhashable, or an array
        found = False
    if not found:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, known))}, got {value!r}")


def rate(sr: Any) -> float:
    """A sample rate, in Hz; need not be whole."""
    return real("sr", sr, above=0, high=1e9)


def framing(n_fft: Any, hop_length: Any, win_length: Any = None) -> tuple[int, int, int]:
    """(n_fft, hop_length, win_length) with librosa's defaults: a whole frame, and a quarter of its window."""
    n_fft = integer("n_fft", n_fft)
    if win_length is None:
        win_length = n_fft
    else:
        win_length = integer("win_length", win_length)
        if win_length > n_fft:
            raise ValueError(f"win_length: expected at most n_fft={n_fft}, got {win_length}")
    hop_length = max(1, win_length // 4) if hop_length is None else integer("hop_length", hop_length)
    return n_fft, hop_length, win_length


def band(sr: float, fmin: Any, fmax: Any = None) -> tuple[float, float]:
    """(fmin, fmax) with 0 <= fmin < fmax <= sr / 2; None for fmax: sr / 2."""
    fmin = real("fmin", fmin, 0)
    fmax = sr / 2 if fmax is None else real("fmax", fmax)
    if fmax > sr / 2:
        raise ValueError(f"fmax: expected at most sr / 2 = {sr / 2:g} Hz with sr={sr:g}, got {fmax:g}")
    if fmin >= fmax:
        raise ValueError(f"fmin: expected less than fmax={fmax:g} Hz, got {fmin:g}")
    return fmin, fmax


# -- sizes -----------------------------------------------------------------------------------------------------------


def empty(
    name: str, shape: Sequence[int], dtype: npt.DTypeLike = np.float32, *, order: Literal["C", "F"] = "C"
) -> npt.NDArray[Any]:
    """An uninitialised array, or a MemoryError that names it and gives its bytes."""
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize  # of Python's integers: cannot wrap
    if size <= MOST_BYTES:
        try:
            return np.empty(tuple(shape), kind, order)
        except MemoryError:
            pass
    raise MemoryError(f"{name}: expected an array that fits in memory, got shape {tuple(shape)}, {size} bytes")


def empty_like(name: str, model: npt.NDArray[Any], dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
    """As `empty`, with the shape of an array out of `dense` and its memory in the same order."""
    if model.flags.c_contiguous:
        return empty(name, model.shape, dtype)
    return empty(name, flat(model).shape, dtype).swapaxes(-1, -2)
