"""The key of music, out of how long each pitch class sounds."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

Mode = Literal["major", "minor"]
MODES: tuple[Mode, ...] = ("major", "minor")

# Albrecht and Shanahan, "The use of large corpora to train a new type of key-finding algorithm", Music Perception 31
# (1), 2013: mean use of the pitch classes above the tonic; a piece is in the key at the smallest Euclidean distance.
_PROFILES = {
    "major": (0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081),
    "minor": (0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052),
}


def nearest_key(use: npt.ArrayLike) -> tuple[int, Mode]:
    """The key whose profile (Albrecht and Shanahan 2013) lies nearest to a use of pitch classes.

    Parameters
    ----------
    use : array-like of numbers >= 0 [shape=(12,)]
        How long, or how often, each pitch class sounds; C is 0.

    Returns
    -------
    tonic : int
        Pitch class.
    mode : "major" or "minor"
    """
    shares = np.asarray(use, np.float64)
    shares = shares / max(shares.sum(), 1.0)
    best: tuple[float, int, Mode] = (math.inf, 0, "major")
    for mode in MODES:
        profile = np.array(_PROFILES[mode])
        for tonic in range(12):
            distance = float(np.sum((np.roll(shares, -tonic) - profile) ** 2))
            if distance < best[0]:
                best = (distance, tonic, mode)
    return best[1], best[2]
