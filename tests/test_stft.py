"""Spectra, mel bands, cepstra and the way back: against plain numpy in double precision, librosa, scipy, and laws.

Errors are multiples of eps (2^-23) of the largest value of a result. A transform of n samples passes through about
log2 n stages, each of which adds a few roundings of its own size in the mean square; the constants below are about
twice the worst that was seen over these tests on any instruction set.
"""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musicgen_ext import features
from musicgen_reference import spectra as twin

EPS = {np.dtype(np.float32): 2.0**-23, np.dtype(np.float64): 2.0**-52}

# A spectrum differs from the twin by at most this many eps of its largest magnitude: measured 1.9 in single precision,
# and 13 in double, where the twin's own sums count.
SPECTRUM = {np.dtype(np.complex64): 4.0, np.dtype(np.complex128): 25.0}
# A signal that went there and back: measured 4.5.
BACK = 9.0
# Powers have twice the relative error of magnitudes: measured 1.5, 6.7, and 2.8 from librosa.
BANDS = {np.dtype(np.float32): 3.0, np.dtype(np.float64): 14.0}
# Cepstra: measured 3.7.
CEPSTRA = 8.0
# librosa's own errors, in single precision: measured 2.8 and, for cepstra of what is next to silence, 15.
LIBROSA, LIBROSA_CEPSTRA = 6.0, 30.0
SEAMS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 64, 100, 128)
SIZES = (*SEAMS, 37, 67, 94, 200, 251, 256, 400, 441, 480, 512, 600, 1000, 1009, 1024, 1152, 2018, 2048, 4096)


def error(got, expected):
    """The largest difference, in eps of the largest expected magnitude."""
    assert got.shape == expected.shape
    kind = np.zeros(1, got.dtype).real.dtype
    return np.max(np.abs(got - expected), initial=0) / EPS[kind] / max(np.max(np.abs(expected), initial=0), 1e-300)


# -- twin --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_fft", SIZES)
def test_stft_twin_and_back(isa, n_fft, rng):
    """Sizes at the seams of vectors and factors: powers of two, products of small primes, large primes."""
    hop = max(1, n_fft // 3)
    y = rng.uniform(-1, 1, 2 * n_fft + (20 * hop if n_fft < 600 else 3)).astype(np.float32)
    window = rng.uniform(0.5, 1, n_fft)
    for dtype in (np.complex64, np.complex128):
        got = features.stft(y, n_fft=n_fft, hop_length=hop, window=window, dtype=dtype)
        bins = range(1 + n_fft // 2) if n_fft < 150 else [*range(0, n_fft // 2, n_fft // 100), n_fft // 2]
        expected = twin.stft(y, n_fft, hop, window, bins=bins)
        assert got.dtype == dtype
        assert error(got[bins], expected) < SPECTRUM[got.dtype]
        back = features.istft(
            got, n_fft=n_fft, hop_length=hop, window=window, length=len(y), dtype=np.zeros(1, dtype).real.dtype
        )
        # where windows overlap enough; the last samples may lie beyond the last frame
        covered = len(y) if n_fft == 1 else hop * (got.shape[1] - 1)
        assert error(back[:covered], y[:covered].astype(back.dtype)) < BACK


@pytest.mark.parametrize("n", [1, 15, 16, 17, 31, 32, 33, 100])
def test_every_number_of_frames(isa, n, rng):
    y = rng.uniform(-1, 1, 64 + 10 * (n - 1)).astype(np.float32)
    got = features.stft(y, n_fft=64, hop_length=10, center=False)
    assert got.shape == (33, n)
    assert error(got, twin.stft(y, 64, 10, features.get_window("hann", 64), center=False)) < SPECTRUM[got.dtype]
    mel = features.melspectrogram(y, sr=8000, n_fft=64, hop_length=10, center=False, n_mels=4)
    bank = twin.mel_filterbank(8000, 64, 4, 0, 4000)
    spectra = twin.stft(y, 64, 10, features.get_window("hann", 64), center=False)
    assert error(mel, twin.melspectrogram(spectra, bank)) < BANDS[mel.dtype]


@pytest.mark.parametrize("power", [1, 2, 0.7, 3])
@pytest.mark.parametrize("n_fft", [512, 255])
def test_melspectrogram_twin(isa, n_fft, power, rng):
    y = rng.uniform(-1, 1, 5000).astype(np.float32)
    spectra = twin.stft(y, n_fft, 100, features.get_window("hann", n_fft))
    bank = twin.mel_filterbank(16000, n_fft, 20, 50, 7000)
    expected = twin.melspectrogram(spectra, bank, power)
    for dtype in (np.float32, np.float64):
        got = features.melspectrogram(
            y, sr=16000, n_fft=n_fft, hop_length=100, power=power, n_mels=20, fmin=50, fmax=7000, dtype=dtype
        )
        assert got.dtype == dtype
        assert error(got, expected) < BANDS[got.dtype]


@pytest.mark.parametrize("top_db", [80.0, 30.0, None])
@pytest.mark.parametrize(
    ("dct_type", "norm"), [(1, None), (1, "ortho"), (2, None), (2, "ortho"), (3, "forward"), (3, "ortho")]
)
def test_mfcc_twin(isa, dct_type, norm, top_db, rng):
    # From silence to full scale: what is raised by top_db lies at the beginning, before the highest level is known.
    y = (rng.uniform(-1, 1, 12_000) * np.logspace(-7, 0, 12_000)).astype(np.float32)
    spectra = twin.stft(y, 400, 160, features.get_window("hann", 400))
    bank = twin.mel_filterbank(16000, 400, 23, 20, 8000)
    levels = twin.decibels(twin.melspectrogram(spectra, bank), top_db=top_db)
    expected = twin.mfcc(levels, 13, dct_type, norm, 22)
    for dtype in (np.float32, np.float64):
        got = features.mfcc(
            y, sr=16000, n_mfcc=13, dct_type=dct_type, norm=norm, lifter=22, top_db=top_db, n_fft=400, hop_length=160,
            n_mels=23, fmin=20, dtype=dtype,
        )  # fmt: skip
        assert error(got, expected) < CEPSTRA


def test_paths_with_fused_multiply_add_give_the_same_bits(on_every_isa, rng):
    y = rng.uniform(-1, 1, 40_000).astype(np.float32)
    calls = {
        "stft": lambda: features.stft(y),
        "odd": lambda: features.stft(y, n_fft=375),
        "prime": lambda: features.stft(y, n_fft=1009),
        "istft": lambda: features.istft(features.stft(y)),
        "mel": lambda: features.melspectrogram(y, power=1),
        "mfcc": lambda: features.mfcc(y, dtype=np.float32),
        "double": lambda: features.stft(y, dtype=np.complex128),
    }
    for name, call in calls.items():
        results = on_every_isa(call)
        results.pop("baseline")
        for other in results.values():
            np.testing.assert_array_equal(other, next(iter(results.values())), err_msg=name)


# -- oracle: librosa and scipy -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def librosa():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("librosa")
        module.stft(np.zeros(100, np.float32), n_fft=16)  # fetches what it loads late
    return module


WINDOWS = ["hann", "hamming", ("kaiser", 6.0), "boxcar", ("tukey", 0.3)]


@pytest.mark.parametrize("channels", [(), (2,), (2, 3)])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(
    ("n_fft", "hop", "win", "n"),
    [
        (512, None, None, 5000),
        (512, 128, 400, 3000),
        (511, 100, 300, 2000),
        (64, 200, 64, 1999),
        (250, 1, 17, 600),
        (2048, 512, None, 22050),
    ],
)
def test_stft_is_librosas(librosa, channels, center, n_fft, hop, win, n, rng):
    y = rng.uniform(-1, 1, (*channels, n)).astype(np.float32)
    for i, pad_mode in enumerate(
        ["constant", "reflect", "edge", "symmetric", "linear_ramp"] if center else ["constant"]
    ):
        options = {
            "n_fft": n_fft,
            "hop_length": hop,
            "win_length": win,
            "center": center,
            "pad_mode": pad_mode,
            "window": WINDOWS[i],
        }
        expected = librosa.stft(y, **options)
        got = features.stft(y, **options)
        assert got.dtype == expected.dtype
        assert error(got, expected) < LIBROSA
        del options["pad_mode"]
        for length in (None, n, n + 1000, 100):
            theirs = librosa.istft(expected, **options, length=length)
            ours = features.istft(expected, **options, length=length)
            assert ours.shape == theirs.shape
            # Where the windows hardly reach, rounding errors are divided by next to nothing.
            options_ss = {
                "window": options["window"],
                "n_frames": got.shape[-1],
                "hop_length": hop or n_fft // 4,
                "win_length": win,
                "n_fft": n_fft,
            }
            weight = librosa.filters.window_sumsquare(**options_ss)[n_fft // 2 if center else 0 :]
            safe = librosa.util.fix_length(weight, size=ours.shape[-1]) > 1e-3
            np.testing.assert_allclose(ours[..., safe], theirs[..., safe], rtol=0, atol=2e-4)


def test_memory_order_is_librosas(librosa, rng):
    y = rng.uniform(-1, 1, 5000).astype(np.float32)
    assert features.stft(y).strides == librosa.stft(y).strides
    assert features.melspectrogram(y).strides == librosa.feature.melspectrogram(y=y).strides
    assert features.mfcc(y).strides == librosa.feature.mfcc(y=y).strides


@pytest.mark.parametrize("htk", [True, False])
@pytest.mark.parametrize("norm", ["slaney", None, 1, 2, 0.5, np.inf, 0])
def test_mel_filterbank_is_librosas(librosa, htk, norm):
    for sr, n_fft, n_mels, fmin, fmax in [
        (22050, 2048, 128, 0, None),
        (16000, 400, 40, 20, 7600.0),
        (44100, 1023, 64, 900, 1100),
    ]:
        options = {"sr": sr, "n_fft": n_fft, "n_mels": n_mels, "fmin": fmin, "fmax": fmax, "htk": htk, "norm": norm}
        with warnings.catch_warnings(record=True) as ours:
            warnings.simplefilter("always")
            got = features.mel_filterbank(**options)
        with warnings.catch_warnings(record=True) as theirs:
            warnings.simplefilter("always")
            expected = librosa.filters.mel(**options)
        np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-9)
        assert len(ours) == len(theirs)


@pytest.mark.parametrize("channels", [(), (2,)])
@pytest.mark.parametrize(
    "options",
    [
        {}, {"power": 1.0}, {"power": 3.0}, {"htk": True, "norm": None},
        {"n_fft": 400, "hop_length": 160, "n_mels": 40},
        {"n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 23, "fmin": 20, "fmax": 7600, "norm": 1},
        {"center": False}, {"pad_mode": "reflect", "window": "hamming"},
    ],
    ids=str,
)  # fmt: skip
def test_melspectrogram_is_librosas(librosa, channels, options, rng):
    y = rng.uniform(-1, 1, (*channels, 22_050)).astype(np.float32)
    expected = librosa.feature.melspectrogram(y=y, **options)
    assert error(features.melspectrogram(y, **options), expected) < LIBROSA
    S = np.abs(librosa.stft(y)) ** 2
    assert error(features.melspectrogram(S=S, n_mels=64), librosa.feature.melspectrogram(S=S, n_mels=64)) < LIBROSA


@pytest.mark.parametrize("channels", [(), (2,)])
@pytest.mark.parametrize(
    "options",
    [
        {}, {"n_mfcc": 40, "dct_type": 3}, {"norm": None, "lifter": 22}, {"dct_type": 1, "norm": None},
        {"dct_type": 3, "norm": None, "n_mfcc": 13}, {"dct_type": 1, "norm": "ortho"}, {"mel_norm": None, "htk": True},
        {"n_fft": 512, "hop_length": 160, "n_mels": 40, "n_mfcc": 13, "sr": 16000},
    ],
    ids=str,
)  # fmt: skip
def test_mfcc_is_librosas(librosa, channels, options, rng):
    y = rng.uniform(-1, 1, (*channels, 30_000)) * np.logspace(0, -6, 30_000)
    y = y.astype(np.float32)
    expected = librosa.feature.mfcc(y=y, **options)
    assert error(features.mfcc(y, **options), expected) < LIBROSA_CEPSTRA
    levels = librosa.power_to_db(librosa.feature.melspectrogram(y=y, n_mels=40))
    dct = {name: value for name, value in options.items() if name in ("n_mfcc", "dct_type", "norm", "lifter")}
    assert error(features.mfcc(S=levels, **dct), librosa.feature.mfcc(S=levels, **dct)) < LIBROSA_CEPSTRA


@pytest.mark.parametrize("n", [2, 3, 40])
@pytest.mark.parametrize("norm", [None, "ortho", "forward", "backward"])
def test_dct_is_scipys(n, norm, rng):
    fft = pytest.importorskip("scipy.fft")
    S = rng.uniform(-80, 0, (n, 7))
    for kind in (1, 2, 3):
        got = features.mfcc(S=S, n_mfcc=n, dct_type=kind, norm=norm, dtype=np.float64)
        assert error(got, fft.dct(S, axis=0, type=kind, norm=norm)) < 30


@given(n=st.integers(1, 700), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_any_size_is_scipys(n, seed):
    fft = pytest.importorskip("scipy.fft")
    y = np.random.default_rng(seed).uniform(-1, 1, n).astype(np.float32)
    got = features.stft(y, n_fft=n, hop_length=1, window="boxcar", center=False)
    assert error(got[:, 0], fft.rfft(y.astype(np.float64))) < SPECTRUM[got.dtype]


# -- laws --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_fft", [128, 100, 129, 127])
def test_parseval(n_fft, rng):
    """The energy of a frame is that of its spectrum: both halves of it."""
    y = rng.uniform(-1, 1, n_fft).astype(np.float32)
    X = features.stft(y, n_fft=n_fft, window="boxcar", center=False)[:, 0]
    both = np.full(len(X), 2.0)
    both[0] = 1
    if n_fft % 2 == 0:
        both[-1] = 1
    np.testing.assert_allclose(np.sum(both * np.abs(X) ** 2) / n_fft, np.sum(y.astype(np.float64) ** 2), rtol=1e-6)


def test_linearity(rng):
    a, b = rng.uniform(-1, 1, (2, 4000)).astype(np.float32)
    left = features.stft(2 * a - 3 * b)
    right = 2 * features.stft(a) - 3 * features.stft(b)
    assert error(left, right) < 10
    # Exact for powers of two: nothing but exponents change.
    np.testing.assert_array_equal(features.stft(4 * a), 4 * features.stft(a))


@pytest.mark.parametrize("window", ["hann", "hamming", "blackman"])
@pytest.mark.parametrize("n", [4000, 4111])
def test_istft_undoes_stft(window, n, rng):
    y = rng.uniform(-1, 1, (2, n)).astype(np.float32)
    back = features.istft(features.stft(y, n_fft=256, window=window), window=window, length=n)
    np.testing.assert_allclose(back, y, atol=2e-6)


def test_a_frame_does_not_depend_on_its_neighbours(isa, rng):
    y = rng.uniform(-1, 1, 20_000).astype(np.float32)
    whole = features.stft(y, n_fft=512, hop_length=100, center=False)
    for first in (1, 5, 16, 77):
        part = features.stft(y[100 * first : 100 * first + 3000], n_fft=512, hop_length=100, center=False)
        np.testing.assert_array_equal(part, whole[:, first : first + part.shape[1]])


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads_do_not_change_a_bit(isa, threads, rng):
    y = (rng.uniform(-1, 1, (2, 60_000)) * np.logspace(-6, 0, 60_000)).astype(np.float32)
    for call in (features.stft, features.melspectrogram, features.mfcc):
        np.testing.assert_array_equal(call(y, threads=threads), call(y, threads=1))
    X = features.stft(y)
    np.testing.assert_array_equal(features.istft(X, threads=threads), features.istft(X, threads=1))


def test_channels_are_transformed_alike(rng):
    y = rng.uniform(-1, 1, (2, 3, 5000)).astype(np.float32)
    for call in (features.stft, features.melspectrogram):
        both = call(y)
        assert both.shape[:2] == (2, 3)
        np.testing.assert_array_equal(both[1, 2], call(y[1, 2]))


# -- out= --------------------------------------------------------------------------------------------------------------


def test_out_is_written_to_whatever_its_layout(rng):
    y = rng.uniform(-1, 1, (2, 5000)).astype(np.float32)
    expected = features.stft(y, n_fft=256)
    bins, frames = expected.shape[1:]
    fortran = np.empty((2, frames, bins), np.complex64).swapaxes(1, 2)
    for out in (fortran, np.empty((2, bins, frames), np.complex64), np.empty((2, bins, frames), np.complex128)):
        assert features.stft(y, n_fft=256, out=out) is not None
        np.testing.assert_array_equal(out, expected)
    larger = np.full((2, bins, frames + 3), 7, np.complex64)
    result = features.stft(y, n_fft=256, out=larger)
    assert np.shares_memory(result, larger)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(larger[:, :, frames:], 7)
    signal = np.empty((2, 1000), np.float32)
    assert features.istft(expected, length=1000, out=signal) is signal
    np.testing.assert_array_equal(signal, features.istft(expected, length=1000))


@pytest.mark.parametrize(
    ("out", "error_type"),
    [(np.empty((129, 3), np.complex64), ValueError), (np.empty((129, 79), np.float32), TypeError), ([], TypeError)],
)
def test_out_of_another_kind_is_refused(out, error_type):
    with pytest.raises(error_type, match="out: expected"):
        features.stft(np.zeros(5000, np.float32), n_fft=256, out=out)
    read_only = np.empty((129, 79), np.complex64)
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="out: expected"):
        features.stft(np.zeros(5000, np.float32), n_fft=256, out=read_only)
