"""Windows as their formulas read, one sample at a time."""

import math

COSINES = {
    "boxcar": (1.0,),
    "hann": (0.5, 0.5),
    "hamming": (0.54, 0.46),
    "blackman": (0.42, 0.5, 0.08),
    "nuttall": (0.3635819, 0.4891775, 0.1365995, 0.0106411),
    "blackmanharris": (0.35875, 0.48829, 0.14128, 0.01168),
    "flattop": (0.21557895, 0.41663158, 0.277263158, 0.083578947, 0.006947368),
}


def bessel(x):
    """I0, by its power series."""
    total = term = 1.0
    k = 1
    while term > 1e-18 * total:
        term *= (x / (2 * k)) ** 2
        total += term
        k += 1
    return total


def sample(name, n, size, parameter=None):
    """Sample n of a symmetric window."""
    place = 2 * n / (size - 1) - 1  # -1 to 1
    if name in COSINES:
        return math.fsum(
            (-1) ** k * a * math.cos(2 * math.pi * k * n / (size - 1)) for k, a in enumerate(COSINES[name])
        )
    if name == "povey":
        return (0.5 - 0.5 * math.cos(2 * math.pi * n / (size - 1))) ** 0.85
    if name == "kaiser":
        return bessel(parameter * math.sqrt(max(0.0, 1 - place**2))) / bessel(parameter)
    if name == "gaussian":
        return math.exp(-0.5 * ((n - (size - 1) / 2) / parameter) ** 2)
    if name == "bartlett":
        return 1 - abs(place)
    if name == "cosine":
        return math.sin(math.pi * (n + 0.5) / size)
    if name == "tukey":
        edge = parameter * (size - 1) / 2
        inside = min(n, size - 1 - n)
        return 1.0 if inside > edge else 0.5 - 0.5 * math.cos(math.pi * inside / edge)
    raise ValueError(name)


def window(name, size, parameter=None, periodic=True):
    """A periodic one is a symmetric one of a sample more, without its last."""
    if size == 1:
        return [1.0]
    return [sample(name, n, size + periodic, parameter) for n in range(size)]
