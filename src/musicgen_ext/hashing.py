"""Numbers that stand for sequences of integers: equal for equal ones, different for others but for one pair in 2^64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]


def mixed(total: Hashes, values: npt.NDArray[Any]) -> Hashes:
    """Hashes of sequences, each with one more integer: splitmix64's finaliser (Steele, Lea, Flood 2014) in a chain."""
    word = total * np.uint64(0x9E3779B97F4A7C15) + values.astype(np.uint64) + np.uint64(0x632BE59BD9B4E019)
    word = (word ^ word >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ word >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return np.asarray(word ^ word >> np.uint64(31))


def of_rows(rows: npt.NDArray[Any]) -> Hashes:
    """The hash of every row [shape=(n, width)], n of them."""
    total = np.zeros(len(rows), np.uint64)
    for column in rows.T:
        total = mixed(total, column)
    return total
