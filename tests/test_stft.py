"""Spectra, mel bands, cepstra and the way back: against plain numpy in double precision, librosa, scipy, and laws.

Errors are multiples of eps (2^-23) of the largest value of a result. A transform of n samples passes through about
log2 n stages, each of which adds a few roundings of its own size in the mean square; the constants below are about
twice the worst that was seen over these tests on any instruction set.
"""

import os
import pickle
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musicgen_ext import features
from musicgen_ext.features.spectra import threads_for, threads_inside
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


@pytest.mark.parametrize("mode", ["edge", "linear_ramp", "reflect", "symmetric"])
@pytest.mark.parametrize(
    ("n", "n_fft", "hop"), [(3, 2, 1), (10, 2, 2), (9, 4, 1), (100, 50, 7), (4096, 4, 512), (512, 256, 256)]
)
def test_padding_is_that_of_the_whole_signal(mode, n, n_fft, hop, rng):
    # librosa 0.11 pads the samples of the last frames alone, and reflects those into themselves where they are few
    y = rng.normal(size=n).astype(np.float32)
    whole = np.pad(y, n_fft // 2, mode=mode)
    got = features.stft(y, n_fft=n_fft, hop_length=hop, pad_mode=mode)
    np.testing.assert_array_equal(got, features.stft(whole, n_fft=n_fft, hop_length=hop, center=False))


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


# -- block by block ----------------------------------------------------------------------------------------------------


def blocks_of(y, sizes):
    """`y` cut into blocks of these sizes, again and again, some of them empty."""
    at = i = 0
    while at < y.shape[-1]:
        yield y[..., at : at + sizes[i % len(sizes)]]
        at += sizes[i % len(sizes)]
        i += 1


def streamed(stream, y, sizes):
    frames = [stream.feed(block) for block in blocks_of(y, sizes)]
    return np.concatenate([*frames, stream.finish()], axis=-1)


@pytest.mark.parametrize("sizes", [(1, 0, 7), (100,), (333, 5000, 1), (50_000,)], ids=str)
@pytest.mark.parametrize("pad_mode", ["constant", "reflect", "edge", "symmetric", "linear_ramp", None])
@pytest.mark.parametrize(("n_fft", "hop"), [(128, 32), (127, 50), (64, 200), (100, 100)])
def test_a_stream_gives_the_frames_of_the_whole(sizes, pad_mode, n_fft, hop, rng):
    framing = {"n_fft": n_fft, "hop_length": hop}
    framing |= {"center": False} if pad_mode is None else {"pad_mode": pad_mode}
    bands = {**framing, "sr": 8000, "n_mels": 10, "fmin": 100}
    for n in (n_fft, 1501):
        y = rng.uniform(-1, 1, (2, n)).astype(np.float32)
        whole = features.stft(y, **framing)
        np.testing.assert_array_equal(streamed(features.StreamingSTFT(**framing), y, sizes), whole)
        whole = features.melspectrogram(y, **bands)
        np.testing.assert_array_equal(streamed(features.StreamingMelspectrogram(**bands), y, sizes), whole)
        whole = features.mfcc(y, **bands, n_mfcc=5, top_db=None)
        np.testing.assert_array_equal(streamed(features.StreamingMFCC(**bands, n_mfcc=5), y, sizes), whole)


def test_a_stream_begins_again_after_its_end(rng):
    y = rng.uniform(-1, 1, 3000).astype(np.float32)
    stream = features.StreamingMFCC(sr=8000, n_fft=256, hop_length=100, n_mels=20)
    first = streamed(stream, y, (700,))
    np.testing.assert_array_equal(streamed(stream, y, (10,)), first)
    stream.feed(y[:100])
    stream.reset()
    np.testing.assert_array_equal(streamed(stream, np.stack([y, y]), (999,))[1], first)


def test_a_stream_gives_frames_as_soon_as_they_are_there(rng):
    y = rng.uniform(-1, 1, 1000).astype(np.float32)
    stream = features.StreamingSTFT(n_fft=256, hop_length=64)
    assert [stream.feed(block).shape[-1] for block in blocks_of(y, (128,))] == [0, 3, 2, 2, 2, 2, 2, 1]


def test_a_stream_refuses_what_does_not_fit(rng):
    stream = features.StreamingSTFT(n_fft=256)
    with pytest.raises(ValueError, match="got none"):
        stream.finish()
    stream.feed(np.zeros((2, 100), np.float32))
    with pytest.raises(ValueError, match=r"y: expected channels of shape \(2,\) as before, got \(3,\)"):
        stream.feed(np.zeros((3, 100), np.float32))
    with pytest.raises(ValueError, match="y: expected finite"):
        stream.feed(np.full((2, 10), np.nan, np.float32))
    with pytest.raises(ValueError, match="pad_mode: expected one of"):
        features.StreamingMFCC(pad_mode="wrap")


# -- robustness --------------------------------------------------------------------------------------------------------

SOUND = {
    "stft": features.stft,
    "melspectrogram": features.melspectrogram,
    "mfcc": features.mfcc,
    "stream": lambda y: features.StreamingSTFT().feed(y),
}
sound = pytest.mark.parametrize("call", SOUND.values(), ids=SOUND)


@sound
def test_R19_any_layout_of_memory(call, rng):
    y = rng.uniform(-1, 1, (2, 5000)).astype(np.float32)
    expected = call(y)
    before = y.copy()
    wide = np.zeros((2, 10_000), np.float32)
    wide[:, ::2] = y
    shifted = np.frombuffer(b"\0" + y.tobytes(), np.uint8)[1:].view(np.float32).reshape(y.shape)
    for same in (
        wide[:, ::2],
        np.asfortranarray(y),
        y[:, ::-1].copy()[:, ::-1],
        y.astype(">f4"),
        y.astype(np.float64),
        shifted,
    ):
        np.testing.assert_array_equal(call(same), expected)
    read_only = y.copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(call(read_only), expected)
    np.testing.assert_array_equal(call(np.broadcast_to(y[0], (2, 5000))), call(np.stack([y[0], y[0]])))
    np.testing.assert_array_equal(y, before)


@sound
@pytest.mark.parametrize(
    "bad", [np.zeros(5000, np.int16), np.zeros(5000, bool), np.zeros(5000, complex), np.array(["x"]), None, "x"]
)
def test_R20_R21_other_types(call, bad):
    with pytest.raises((TypeError, ValueError), match="y: expected"):
        call(bad)


@sound
@pytest.mark.parametrize("where", [0, 2500, 4999])
@pytest.mark.parametrize("what", [np.nan, np.inf, -np.inf])
def test_R22_not_finite(call, where, what):
    y = np.zeros((2, 5000), np.float32)
    y[1, where] = what
    with pytest.raises(ValueError, match=rf"y: expected finite.*got 1 .*\(1, {where}\)"):
        call(y)


def test_R22_also_between_frames():
    y = np.zeros(5000, np.float32)
    y[150] = np.nan  # no frame has this sample
    with pytest.raises(ValueError, match="y: expected finite"):
        features.stft(y, n_fft=100, hop_length=1000, center=False)


@pytest.mark.parametrize("n", [1, 2, 100])
def test_R23_shorter_than_a_frame(n, rng):
    y = rng.uniform(-1, 1, n).astype(np.float32)
    with pytest.warns(UserWarning, match="n_fft=256 is too large"):
        assert features.stft(y, n_fft=256).shape == (129, 1 + n // 64)
    with pytest.raises(ValueError, match="n_fft=256"):
        features.stft(y, n_fft=256, center=False)
    with pytest.raises(ValueError, match="y: expected at least 1 samples"):
        features.stft(y[:0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_fft": 0}, "n_fft: expected"),
        ({"n_fft": -1}, "n_fft: expected"),
        ({"n_fft": 2**31}, "n_fft: expected"),
        ({"hop_length": 0}, "hop_length: expected"),
        ({"n_fft": 64, "win_length": 65}, "win_length: expected at most n_fft=64"),
        ({"n_mels": 0}, "n_mels: expected"),
        ({"fmax": 12_000}, "fmax: expected at most sr / 2"),
        ({"fmin": 5000, "fmax": 4000}, "fmin: expected less than fmax"),
        ({"sr": 0}, "sr: expected"),
        ({"power": 0}, "power: expected"),
        ({"pad_mode": "wrap"}, "pad_mode: expected"),
        ({"window": "cheese"}, "window"),
        ({"threads": 0}, "threads: expected"),
        ({"dtype": np.float16}, "dtype: expected"),
        ({"norm": "x"}, "norm: expected"),
    ],
    ids=str,
)
def test_R24_values_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        features.melspectrogram(np.zeros(5000, np.float32), **options)


@pytest.mark.parametrize("options", [{"n_mfcc": 13.0}, {"n_mels": True}, {"n_fft": 2048.0}, {"power": True}], ids=str)
def test_R24_what_equals_known_settings_is_still_looked_at(options):
    y = np.zeros(5000, np.float32)
    features.mfcc(y, **{name: int(value) for name, value in options.items()})
    with pytest.raises(TypeError, match=f"{next(iter(options))}: expected"):
        features.mfcc(y, **options)


def test_settings_that_cannot_be_looked_up(rng):
    y = rng.uniform(-1, 1, 5000).astype(np.float32)
    window = np.hanning(2048)
    same = features.mfcc(y, window=window, sr=np.array(22_050), n_mels=np.int64(40))
    np.testing.assert_array_equal(same, features.mfcc(y, window=window.tolist(), n_mels=40))
    window[:] = 1  # another window in the same array
    assert not np.array_equal(features.mfcc(y, window=window, n_mels=40), same)


def test_R24_empty_bands_warn():
    with pytest.warns(UserWarning, match="n_mels: expected bands wider"):
        features.melspectrogram(np.zeros(5000, np.float32), n_fft=256)


LIMITED = """
import resource
import numpy as np
from musicgen_ext import features
from musicgen_ext.features import spectra
y = np.zeros(1000, np.float32)
expected = features.mfcc(y, n_fft=256)
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
for call in (features.stft, features.mfcc):
    try:
        call(y, n_fft=1 << 27)
    except MemoryError as error:
        assert "expected" in str(error) and "bytes" in str(error), error
    else:
        raise AssertionError("expected a MemoryError")
np.testing.assert_array_equal(features.mfcc(y, n_fft=256), expected)
"""


LEAN = """
import resource
import numpy as np
from musicgen_ext import features
from musicgen_ext.features import spectra
y = np.random.default_rng(0).uniform(-1, 1, 22_050 * 600).astype(np.float32)
y *= np.logspace(-6, 0, len(y), dtype=np.float32)
features.mfcc(y[:30_000], threads=1)
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (28 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
features.mfcc(y, threads=1)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs limits on addresses")
def test_cepstra_need_no_memory_that_grows_with_the_sound():
    """Of ten minutes: 2 MiB of them, 16 MiB of levels to look at again; the spectrogram would be 101 MiB."""
    done = subprocess.run([sys.executable, "-c", LEAN], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs limits on addresses")
def test_R25_sizes_that_do_not_fit():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LIMITED], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    with pytest.raises(MemoryError, match="bytes"):
        features.mel_filterbank(sr=8000, n_fft=2**31 - 1, n_mels=2**31 - 1)


@pytest.mark.parametrize("kind", ["zeros", "denormal", "constant", "huge"])
def test_R26_extreme_values(isa, kind, rng):
    y = {
        "zeros": np.zeros(20_000),
        "denormal": rng.uniform(-1e-40, 1e-40, 20_000),
        "constant": np.ones(20_000),
        "huge": rng.choice([-1e30, 1e30], 20_000),
    }[kind].astype(np.float32)
    for call in (features.stft, features.melspectrogram, features.mfcc):
        assert np.isfinite(call(y)).all()


CTRL_C = """
import os, signal, threading, time
import numpy as np
from musicgen_ext import features
from musicgen_ext.features import spectra
y = np.zeros(22_050 * 4000, np.float32)
sent = []
def send():
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)
small = features.mfcc(y[:50_000], threads=2)
threading.Timer(0.05, send).start()
try:
    features.mfcc(y, hop_length=64, threads={threads})
    print("not interrupted")
except KeyboardInterrupt:
    print(f"{{time.perf_counter() - sent[0]:.3f}}")
np.testing.assert_array_equal(features.mfcc(y[:50_000], threads=2), small)
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_R39_ctrl_c_ends_a_long_call(threads):
    done = subprocess.run(
        [sys.executable, "-c", CTRL_C.format(threads=threads)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.5  # 0.1 on a machine with nothing else to do


EXIT = """
import threading, time
import numpy as np
from musicgen_ext import features
from musicgen_ext.features import spectra
y = np.zeros(22_050 * 1000, np.float32)
def work():
    while True:
        features.mfcc(y, hop_length=64, threads=2)
threading.Thread(target=work, daemon=True).start()
time.sleep(0.3)
"""


def test_R40_the_interpreter_ends_with_work_in_the_pool():
    done = subprocess.run([sys.executable, "-c", EXIT], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_R42_fork_also_during_a_call(rng):
    y = rng.uniform(-1, 1, 200_000).astype(np.float32)
    expected = features.mfcc(y, threads=2)
    stop = threading.Event()

    def keep_busy():
        while not stop.is_set():
            features.mfcc(y, threads=2)

    other = threading.Thread(target=keep_busy)
    other.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                same = np.array_equal(features.mfcc(y, threads=2), expected)
                os._exit(0 if same else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        other.join()
    np.testing.assert_array_equal(features.mfcc(y, threads=2), expected)


def test_R42_streams_are_pickled_with_what_they_hold(rng):
    y = rng.uniform(-1, 1, 3000).astype(np.float32)
    stream = features.StreamingMFCC(n_fft=512)
    first = stream.feed(y)
    again = pickle.loads(pickle.dumps(stream))
    np.testing.assert_array_equal(again.finish(), stream.finish())
    assert first.shape[0] == 20


def test_R41_many_callers_at_once(rng):
    y = rng.uniform(-1, 1, 100_000).astype(np.float32)
    expected = features.mfcc(y)
    results = []
    callers = [threading.Thread(target=lambda: results.append(features.mfcc(y, threads=3))) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(results) == 8
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_threads_by_default(monkeypatch):
    y = np.zeros(100_000, np.float32)
    features.set_threads(3)
    features.stft(y)
    features.set_threads(None)
    monkeypatch.setenv("MUSICGEN_EXT_THREADS", "many")
    with pytest.raises(ValueError, match="MUSICGEN_EXT_THREADS: expected 1 to 1024, got 'many'"):
        features.stft(y)
    monkeypatch.setenv("MUSICGEN_EXT_THREADS", "2")
    features.stft(y)
    assert threads_for(None, 10_000) == 2
    with threads_inside(1):  # a worker among many
        assert threads_for(None, 10_000) == 1
        with ThreadPoolExecutor() as other:
            assert other.submit(threads_for, None, 10_000).result() == 2
    assert threads_for(None, 10_000) == 2
    with pytest.raises(ValueError, match="threads: expected"):
        features.set_threads(0)
