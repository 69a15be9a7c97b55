"""Local slopes of features over time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core, checks

_F32 = npt.NDArray[np.float32]
_F64 = npt.NDArray[np.float64]
# scipy's name for the continuation at the edges: numpy's
_PADDING: dict[str, Any] = {"mirror": "reflect", "nearest": "edge", "constant": "constant", "wrap": "wrap"}


def delta(
    data: npt.ArrayLike,
    *,
    width: int = 9,
    order: int = 1,
    axis: int = -1,
    mode: str = "interp",
    polyorder: int | None = None,
    cval: float = 0.0,
    check_finite: bool = True,
) -> _F32:
    """Derivatives over time, by a polynomial through `width` neighbours (Savitzky and Golay).

    Parameters
    ----------
    data : np.ndarray [any shape], floating point
        Features; along `axis` lies time.
    width : int >= 3, odd
        How many values one polynomial is fitted to.
    order : int > 0
        Of the derivative.
    axis : int
    mode : "interp", "nearest", "mirror", "constant" or "wrap"
        At the edges: the polynomial of the first and of the last `width` values, or the data continued by its edge,
        mirrored at it, by `cval`, or periodically.
    polyorder : int, `order` to `width` - 1
        Degree of the polynomial; None: `order`.
    cval : float
        What ``mode="constant"`` continues with.
    check_finite : bool
        Look for NaN and infinities in `data`.

    Returns
    -------
    np.ndarray [the shape of `data`], float32
        ``librosa.feature.delta``; sums are taken in double precision.

    Notes
    -----
    Source: A. Savitzky and M. J. E. Golay, Smoothing and Differentiation of Data by Simplified Least Squares
    Procedures, Analytical Chemistry 36(8), 1964.
    """
    values = np.atleast_1d(checks.floats("data", data, check_finite=check_finite))
    width = checks.integer("width", width, 3)
    if width % 2 == 0:
        raise ValueError(f"width: expected an odd number, got {width}")
    order = checks.integer("order", order, 1)
    degree = order if polyorder is None else checks.integer("polyorder", polyorder)
    if not order <= degree < width:
        raise ValueError(f"polyorder: expected order={order} to width - 1 = {width - 1}, got {degree}")
    axis = checks.integer("axis", axis, -values.ndim, values.ndim - 1)
    checks.choice("mode", mode, ("interp", *_PADDING))
    cval = checks.real("cval", cval)
    length, half = values.shape[axis], width // 2
    if values.size == 0:
        raise ValueError(f"data: expected values along axis {axis}, got shape {values.shape}")
    if mode == "interp" and width > length:
        raise ValueError(
            f"width: expected at most the {length} values along axis {axis} with mode='interp', got {width}"
        )

    moved = np.moveaxis(values, axis, -1)
    rows = np.ascontiguousarray(moved).reshape(-1, length)
    out = checks.empty("delta", rows.shape)
    slopes = _slopes(width, degree, order)
    if mode == "interp":
        _core.correlate(rows, slopes[half], half, out)
        out[:, :half] = rows[:, :width] @ slopes[:half].T
        out[:, length - half :] = rows[:, length - width :] @ slopes[half + 1 :].T
    else:
        options: dict[str, Any] = {"constant_values": cval} if mode == "constant" else {}
        padded = np.pad(rows, ((0, 0), (half, half)), _PADDING[mode], **options)
        _core.correlate(padded, slopes[half], 0, out)
    return np.ascontiguousarray(np.moveaxis(out.reshape(moved.shape), -1, axis))


def _slopes(width: int, degree: int, order: int) -> _F64:
    """Row i: weights that give the derivative at point i of the polynomial through `width` points."""
    x = np.arange(width) - (width - 1) / 2
    scale = max(1.0, (width - 1) / 2)  # keeps high powers within reach
    fit = np.linalg.pinv(np.vander(x / scale, degree + 1, increasing=True))
    factors = np.array([math.perm(k, order) if k >= order else 0 for k in range(degree + 1)], np.float64)
    powers = np.stack([(x / scale) ** max(k - order, 0) for k in range(degree + 1)], axis=1)
    return np.ascontiguousarray((powers * factors) @ fit / scale**order)
