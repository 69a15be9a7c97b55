"""Numbers out of sound: against plain twins in double precision, librosa, and laws."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_ext import features

scipy_signal = pytest.importorskip("scipy.signal")

# -- windows -----------------------------------------------------------------------------------------------------------

PARAMETERS = {
    "exponential": [(), (None, 3.0)],
    "gaussian": [(7.0,)],
    "general_cosine": [([0.5, 0.3, 0.2],)],
    "general_gaussian": [(1.5, 7.0)],
    "general_hamming": [(0.6,)],
    "kaiser": [(8.6,), (0.0,)],
    "tukey": [(), (0.25,), (0.0,), (1.0,), (1e-3,)],
}
PLAIN = ["barthann", "bartlett", "blackman", "blackmanharris", "bohman", "boxcar", "cosine", "flattop", "hamming",
         "hann", "lanczos", "nuttall", "parzen", "triang", "han", "rectangular", "black", "hann_periodic",
         "hamming_symmetric"]  # fmt: skip


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("name", [*PLAIN, *PARAMETERS])
def test_windows_are_scipys(name, periodic):
    for parameters in PARAMETERS.get(name, [()]):
        window = (name, *parameters) if parameters else name
        for size in (1, 2, 3, 4, 5, 7, 8, 33, 400, 2048):
            got = features.get_window(window, size, fftbins=periodic)
            wanted = scipy_signal.get_window(window, size, fftbins=periodic)
            assert got.dtype == np.float64
            # Sums of at most five cosines of rounded angles; worst measured 9e-16, for tukey's 0.001 6e-15.
            np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-14, err_msg=f"{window} {size}")


def test_windows_of_other_kinds():
    np.testing.assert_array_equal(features.get_window(5.0, 16), features.get_window(("kaiser", 5.0), 16))
    np.testing.assert_array_equal(features.get_window(np.hanning, 16), np.hanning(16))
    np.testing.assert_array_equal(features.get_window([1, 2, 3], 3), [1.0, 2.0, 3.0])
    povey = features.get_window("povey", 400, fftbins=False)
    n = np.arange(400)
    np.testing.assert_allclose(povey, (0.5 - 0.5 * np.cos(2 * np.pi * n / 399)) ** 0.85, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("window", "size", "error", "named"),
    [
        ("hannn", 8, ValueError, "expected one of .*'hannn'"),
        ("kaiser", 8, ValueError, "expected 1 parameters for 'kaiser', got 0"),
        (("hann", 3), 8, ValueError, "expected 0 parameters"),
        ((3, "kaiser"), 8, ValueError, "a tuple of a name"),
        (("kaiser", np.nan), 8, ValueError, "window: beta: expected a finite"),
        (("gaussian", 0), 8, ValueError, "window: std: expected a finite number > 0"),
        (np.ones(7), 8, ValueError, r"expected shape \(8,\), got \(7,\)"),
        ([1.0, np.nan], 2, ValueError, "1 that are not"),
        (np.ones(2, complex), 2, TypeError, "complex128"),
        (None, 8, TypeError, "got None"),
        ("hann", 0, ValueError, "Nx: expected 1"),
    ],
)
def test_windows_that_cannot_be(window, size, error, named):
    with pytest.raises(error, match=named):
        features.get_window(window, size)
