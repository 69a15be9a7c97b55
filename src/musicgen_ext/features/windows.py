"""Windows: what a frame is multiplied with before its spectrum is taken.

Formulas: F. J. Harris, On the Use of Windows for Harmonic Analysis with the Discrete Fourier Transform, Proc. IEEE
66(1), 1978; A. H. Nuttall, Some Windows with Very Good Sidelobe Behavior, IEEE Trans. ASSP 29(1), 1981. Names,
parameters and numbers are those of ``scipy.signal.get_window``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from musicgen_ext import checks

Window: TypeAlias = str | tuple[Any, ...] | float | Callable[[int], npt.ArrayLike] | npt.ArrayLike
_F64: TypeAlias = npt.NDArray[np.float64]


def get_window(window: Window, Nx: int, *, fftbins: bool = True) -> _F64:
    """A window of `Nx` samples.

    Parameters
    ----------
    window : str, tuple, number, callable or array
        A name (``"hann"``), a name and its parameters (``("kaiser", 4.0)``, ``("gaussian", 50)``, ``("tukey", 0.25)``),
        a number (the beta of a Kaiser window), a function of `Nx`, or the window itself. Names: barthann, bartlett,
        blackman, blackmanharris, bohman, boxcar, cosine, exponential, flattop, gaussian, general_cosine,
        general_gaussian, general_hamming, hamming, hann, kaiser, lanczos, nuttall, parzen, povey, triang, tukey,
        and scipy's other names for them; ``_periodic`` or ``_symmetric`` at the end goes before `fftbins`.
    Nx : int > 0
    fftbins : bool
        True: periodic, for spectra (the first `Nx` samples of a symmetric window of ``Nx + 1``). False: symmetric.

    Returns
    -------
    np.ndarray [shape=(Nx,)], float64

    Raises
    ------
    TypeError
        `window` is nothing of the kind.
    ValueError
        An unknown name, missing or impossible parameters, an array of another length or with NaN; the message says so.
    """
    Nx = checks.integer("Nx", Nx)
    name: str
    parameters: tuple[Any, ...]
    if callable(window):
        return _given(window(Nx), Nx)
    if isinstance(window, str):
        name, parameters = window, ()
    elif isinstance(window, tuple):
        if not window or not isinstance(window[0], str):
            raise ValueError(f"window: expected a tuple of a name and its parameters, got {window!r}")
        name, parameters = window[0], window[1:]
    elif isinstance(window, bool | None):
        raise TypeError(f"window: expected a name, tuple, number, function or array, got {window!r}")
    elif np.ndim(window) == 0:
        name, parameters = "kaiser", (window,)
    else:
        return _given(window, Nx)

    periodic = bool(fftbins)
    for ending, meaning in (("_periodic", True), ("_symmetric", False)):
        if name.endswith(ending):
            name, periodic = name[: -len(ending)], meaning
    key = name.replace(" ", "_").lower()
    function, defaults, least = _WINDOWS.get(_ALIASES.get(key, key), (None, (), 0))
    if function is None:
        raise ValueError(f"window: expected one of {', '.join(sorted(_WINDOWS))}, got {name!r}")
    if not least <= len(parameters) <= len(defaults):
        wanted = f"{least}" if least == len(defaults) else f"{least} to {len(defaults)}"
        raise ValueError(f"window: expected {wanted} parameters for {name!r}, got {len(parameters)} in {window!r}")
    if Nx == 1:
        return np.ones(1)
    size = Nx + 1 if periodic else Nx
    return function(size, *parameters, *defaults[len(parameters) :])[:Nx]


def padded_window(window: Window, win_length: int, n_fft: int) -> _F64:
    """A periodic window of `win_length` samples in the middle of `n_fft`, zeros around it, as librosa pads it."""
    inner = get_window(window, win_length)
    if win_length == n_fft:
        return inner
    padded = checks.empty("window", (n_fft,), np.float64)
    padded[:] = 0
    start = (n_fft - win_length) // 2
    padded[start : start + win_length] = inner
    return padded


def _given(window: npt.ArrayLike, Nx: int) -> _F64:
    array = np.asarray(window)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"window: expected real numbers, got {array.dtype}")
    if array.shape != (Nx,):
        raise ValueError(f"window: expected shape ({Nx},), got {array.shape}")
    result = array.astype(np.float64)
    if not np.isfinite(result).all():
        raise ValueError(f"window: expected finite numbers, got {int((~np.isfinite(result)).sum())} that are not")
    return result


# -- the formulas: symmetric windows of M samples ----------------------------------------------------------------------


def _positions(M: int) -> _F64:
    """-1 to 1."""
    return np.linspace(-1, 1, M, dtype=np.float64)


def _cosines(M: int, coefficients: Any) -> _F64:
    x = np.pi * _positions(M)
    constant, *others = np.asarray(coefficients, np.float64)
    total = np.full(M, constant)
    for k, a in enumerate(others, 1):
        total += a * np.cos(k * x)
    return total


def _from_centre(M: int) -> _F64:
    return np.arange(M, dtype=np.float64) - (M - 1) / 2


def _triang(M: int) -> _F64:
    n = np.arange(1, (M + 1) // 2 + 1)
    half = 2 * n / (M + 1.0) if M % 2 else (2 * n - 1.0) / M
    return np.concatenate([half, half[-2::-1] if M % 2 else half[::-1]])


def _bartlett(M: int) -> _F64:
    n = np.arange(M)
    return np.where(n <= (M - 1) / 2, 2.0 * n / (M - 1), 2 - 2.0 * n / (M - 1))


def _barthann(M: int) -> _F64:
    x = np.abs(np.arange(M) / (M - 1.0) - 0.5)
    return 0.62 - 0.48 * x + 0.38 * np.cos(2 * np.pi * x)


def _bohman(M: int) -> _F64:
    x = np.abs(_positions(M)[1:-1])
    return np.concatenate([[0], (1 - x) * np.cos(np.pi * x) + np.sin(np.pi * x) / np.pi, [0]])


def _parzen(M: int) -> _F64:
    x = np.abs(_from_centre(M)) / (M / 2)
    near = 1 - 6 * x**2 + 6 * x**3
    return np.where(np.abs(_from_centre(M)) <= (M - 1) / 4, near, 2 * (1 - x) ** 3)


def _cosine(M: int) -> _F64:
    return np.asarray(np.sin(np.pi / M * (np.arange(M) + 0.5)))


def _tukey(M: int, alpha: float) -> _F64:
    alpha = checks.real("window: alpha", alpha)
    if alpha <= 0:
        return np.ones(M)
    if alpha >= 1:
        return _cosines(M, (0.5, 0.5))
    n = np.arange(M)
    n = np.minimum(n, M - 1 - n)
    edge = np.minimum(2.0 * n / (alpha * (M - 1)), 1)
    return np.asarray(np.where(n <= int(alpha * (M - 1) / 2.0), 0.5 * (1 - np.cos(np.pi * edge)), 1.0))


def _exponential(M: int, center: float | None, tau: float) -> _F64:
    middle = (M - 1) / 2 if center is None else checks.real("window: center", center)
    distance: _F64 = np.abs(np.arange(M, dtype=np.float64) - middle)
    return np.asarray(np.exp(-distance / checks.real("window: tau", tau, above=0)))


def _lanczos(M: int) -> _F64:
    return np.sinc(2.0 * np.arange(M) / (M - 1) - 1.0)


def _kaiser(M: int, beta: float) -> _F64:
    beta = checks.real("window: beta", beta, -700, 700)  # beyond, its Bessel function passes what a double holds
    alpha = (M - 1) / 2.0
    return np.i0(beta * np.sqrt(np.maximum(1 - (_from_centre(M) / alpha) ** 2, 0))) / np.i0(beta)


def _general_gaussian(M: int, p: float, sig: float) -> _F64:
    p, sig = checks.real("window: p", p), checks.real("window: sig", sig, above=0)
    return np.asarray(np.exp(-0.5 * np.abs(_from_centre(M) / sig) ** (2 * p)))


def _gaussian(M: int, std: float) -> _F64:
    return _general_gaussian(M, 1.0, checks.real("window: std", std, above=0))


def _general_hamming(M: int, alpha: float) -> _F64:
    alpha = checks.real("window: alpha", alpha)
    return _cosines(M, (alpha, 1 - alpha))


def _hann(M: int) -> _F64:
    return _cosines(M, (0.5, 0.5))


# name: (function, default parameters, how many must be given)
_WINDOWS: dict[str, tuple[Callable[..., _F64], tuple[Any, ...], int]] = {
    "barthann": (_barthann, (), 0),
    "bartlett": (_bartlett, (), 0),
    "blackman": (lambda M: _cosines(M, (0.42, 0.50, 0.08)), (), 0),
    "blackmanharris": (lambda M: _cosines(M, (0.35875, 0.48829, 0.14128, 0.01168)), (), 0),
    "bohman": (_bohman, (), 0),
    "boxcar": (np.ones, (), 0),
    "cosine": (_cosine, (), 0),
    "exponential": (_exponential, (None, 1.0), 0),
    "flattop": (
        lambda M: _cosines(M, (0.21557895, 0.41663158, 0.277263158, 0.083578947, 0.006947368)), (), 0,
    ),
    "gaussian": (_gaussian, (math.nan,), 1),
    "general_cosine": (_cosines, (math.nan,), 1),
    "general_gaussian": (_general_gaussian, (math.nan, math.nan), 2),
    "general_hamming": (_general_hamming, (math.nan,), 1),
    "hamming": (lambda M: _cosines(M, (0.54, 0.46)), (), 0),
    "hann": (_hann, (), 0),
    "kaiser": (_kaiser, (math.nan,), 1),
    "lanczos": (_lanczos, (), 0),
    "nuttall": (lambda M: _cosines(M, (0.3635819, 0.4891775, 0.1365995, 0.0106411)), (), 0),
    "parzen": (_parzen, (), 0),
    # Kaldi's: like Hamming's, but it goes to zero at the edges.
    "povey": (lambda M: np.maximum(_hann(M), 0) ** 0.85, (), 0),
    "triang": (_triang, (), 0),
    "tukey": (_tukey, (0.5,), 0),
}  # fmt: skip

_ALIASES = {
    "brthan": "barthann", "bth": "barthann", "bart": "bartlett", "brt": "bartlett", "black": "blackman",
    "blk": "blackman", "blackharr": "blackmanharris", "bkh": "blackmanharris", "bman": "bohman", "bmn": "bohman",
    "box": "boxcar", "ones": "boxcar", "rect": "boxcar", "rectangular": "boxcar", "halfcosine": "cosine",
    "poisson": "exponential", "flat": "flattop", "flt": "flattop", "gauss": "gaussian", "gss": "gaussian",
    "general_gauss": "general_gaussian", "ggs": "general_gaussian", "hamm": "hamming", "ham": "hamming",
    "han": "hann", "ksr": "kaiser", "sinc": "lanczos", "nutl": "nuttall", "nut": "nuttall", "parz": "parzen",
    "par": "parzen", "triangle": "triang", "tri": "triang", "tuk": "tukey",
}  # fmt: skip
