"""The door for sound: what it takes, the numbers it hands on, and what it says to the rest (R19 to R27)."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from musicgen_ext import checks


def layouts(y):
    """(name, the same numbers in another layout)."""
    wide = np.zeros((*y.shape[:-1], 2 * y.shape[-1]), y.dtype)
    wide[..., ::2] = y
    bytes_ = np.zeros(y.nbytes + 1, np.uint8)
    misaligned = bytes_[1:].view(y.dtype).reshape(y.shape)
    misaligned[...] = y
    read_only = y.copy()
    read_only.flags.writeable = False
    yield "float64", y.astype(np.float64)
    yield "strided", wide[..., ::2]
    yield "reversed", np.ascontiguousarray(y[..., ::-1])[..., ::-1]
    yield "big-endian", y.astype(y.dtype.newbyteorder(">"))
    yield "misaligned", misaligned
    yield "read-only", read_only
    yield "Fortran", np.asfortranarray(y)
    yield "list", y.tolist()


def test_R19_every_layout_gives_the_same_numbers_and_stays_unchanged(rng):
    y = rng.normal(size=(3, 40)).astype(np.float32)
    for name, other in layouts(y):
        before = np.array(other, copy=True)
        got = checks.samples(other)
        assert got.dtype == np.float32, name
        assert got.dtype.isnative
        assert got.flags.c_contiguous
        assert got.flags.aligned
        np.testing.assert_array_equal(got, y, err_msg=name)
        np.testing.assert_array_equal(before, other, err_msg=name)
    np.testing.assert_array_equal(checks.samples(np.broadcast_to(y[0], (5, 40))), np.stack([y[0]] * 5))
    assert checks.samples(y) is y  # nothing to convert, nothing copied


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.int64, bool])
def test_R20_whole_numbers_are_refused(dtype):
    with pytest.raises(TypeError, match=f"y: expected .*, got {np.dtype(dtype)}: convert to float and scale"):
        checks.samples(np.zeros(10, dtype))


class OnAnotherDevice:
    """As a tensor on a graphics card behaves."""

    dtype = "torch.float32"

    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (np.zeros(4, np.complex64), "complex64"),
        (np.array([1.0, None], object), "object"),
        ("sound.wav", "<U9"),
        (np.array([b"ab"]), r"\|S2"),
        (np.ma.masked_array(np.zeros(3, np.float32), [0, 1, 0]), "masked array of float32"),
        ([[1.0, 2.0], [3.0]], "ragged"),
        (None, "object"),
        (np.zeros(3, "datetime64[s]"), "datetime64"),
        (np.zeros(3, [("left", "f4")]), "left"),
        (OnAnotherDevice(), r"OnAnotherDevice of torch\.float32: can't convert cuda:0"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_R21_what_is_no_sound_is_refused_by_its_type(value, named):
    with pytest.raises(TypeError, match=f"y: .*{named}"):
        checks.samples(value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4"])
def test_R22_nan_and_infinities_are_counted(bad, dtype):
    y = np.zeros((2, 500), dtype)
    y[1, 7] = y[1, 499] = bad
    with pytest.raises(ValueError, match=r"y: expected finite float32 numbers, got 2 .* at index \(1, 7\)"):
        checks.samples(y)
    assert checks.samples(y, check_finite=False).shape == (2, 500)
    with pytest.raises(ValueError, match=r"D: .* got 2 .* at index \(1, 7\)"):
        checks.complexes("D", y.astype(np.complex128))


def test_R22_every_place_is_looked_at(rng):
    for size in (1, 3, 15, 16, 17, 31, 33, 64, 100, (1 << 20) + 5):
        y = np.full(size, np.finfo(np.float32).max, np.float32)
        y[::2] *= -1
        assert checks.samples(y) is y
        for at in {0, size - 1, *rng.integers(0, size, 5).tolist()}:
            y[at], kept = np.nan, y[at]
            with pytest.raises(ValueError, match=rf"got 1 that is not, the first nan at index {at}$"):
                checks.samples(y)
            y[at] = kept


def test_R22_what_float32_cannot_hold_is_infinite():
    with pytest.raises(ValueError, match=r"got 1 that is not, the first 1e\+300 at index 2"):
        checks.samples(np.array([0.0, 1.0, 1e300]))


def test_R23_shapes_that_hold_no_sound():
    for y in (np.zeros(0), np.zeros((2, 0)), np.zeros((0, 5))):
        with pytest.raises(ValueError, match=r"y: expected at least 1 samples along the last axis, got \("):
            checks.samples(y)
    with pytest.raises(ValueError, match="a single number"):
        checks.samples(1.0)
    with pytest.raises(ValueError, match=r"at least 9 samples .* got \(44100, 2\) \(channels come first\)"):
        checks.samples(np.zeros((44_100, 2)), minimum=9)
    for S in (np.zeros(5), np.zeros((0, 5)), np.zeros((5, 0))):
        with pytest.raises(ValueError, match=r"S: expected shape \(\.\.\., bins, frames\)"):
            checks.spectrogram(S)


def test_R24_numbers_out_of_range_name_both_arguments():
    for n_fft in (0, -1, 2**31):
        with pytest.raises(ValueError, match=f"n_fft: expected 1 to 2147483647, got {n_fft}"):
            checks.framing(n_fft, 512)
    with pytest.raises(ValueError, match=r"hop_length: expected 1 to .*, got 0"):
        checks.framing(2048, 0)
    with pytest.raises(ValueError, match="win_length: expected at most n_fft=400, got 401"):
        checks.framing(400, 100, 401)
    with pytest.raises(ValueError, match=r"fmax: expected at most sr / 2 = 11025 Hz with sr=22050, got 11026"):
        checks.band(22_050, 0, 11_026)
    with pytest.raises(ValueError, match="fmin: expected less than fmax=100 Hz, got 200"):
        checks.band(22_050, 200, 100)
    for sr in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="sr: expected a finite number > 0"):
            checks.rate(sr)
    for value in (1.0, True, "1", None, np.zeros(2)):
        with pytest.raises(TypeError, match="n_fft: expected an integer, got"):
            checks.integer("n_fft", value)
    for value in (True, "1", None, [1, 2]):
        with pytest.raises(TypeError, match="sr: expected a number, got"):
            checks.rate(value)
    with pytest.raises(ValueError, match="norm: expected one of 'slaney', None, got 'x'"):
        checks.choice("norm", "x", ("slaney", None))
    assert checks.framing(1, None) == (1, 1, 1)
    assert checks.framing(np.int32(2047), None) == (2047, 511, 2047)
    assert checks.band(16_000, 20) == (20, 8000)


def test_R25_sizes_are_checked_before_anything_is_allocated():
    with pytest.raises(MemoryError, match=rf"S: .* \(4294967296, 4294967296\), {2**64 * 4} bytes"):
        checks.empty("S", (2**32, 2**32))
    with pytest.raises(MemoryError, match=f"{2**42} bytes"):
        checks.samples(np.broadcast_to(np.float32(0), (2**40,)))  # 4 TiB, held in four bytes


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS")
def test_R25_the_process_lives_on_under_a_limit():
    code = (
        "import resource, numpy as np\n"
        "from musicgen_ext import checks\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "for _ in range(3):\n"
        "    try: checks.empty('S', (2**14, 2**15))\n"
        "    except MemoryError as e: print(e)\n"
        "print(checks.samples(np.ones(5)).sum())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    line = "S: expected an array that fits in memory, got shape (16384, 32768), 2147483648 bytes"
    assert done.stdout.splitlines() == [line] * 3 + ["5.0"]


def test_R27_no_reference_is_kept(rng):
    y = rng.normal(size=100)
    before = sys.getrefcount(y)
    checks.samples(y)
    assert sys.getrefcount(y) == before
    assert "another thread" in (checks.__doc__ or "")
