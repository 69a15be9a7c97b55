"""Numbers out of sound: against plain twins in double precision, librosa, and laws."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import musicgen_ext as mg
from musicgen_ext import features
from musicgen_reference import measures as reference

scipy_signal = pytest.importorskip("scipy.signal")

EPS = float(np.finfo(np.float32).eps)
SR = 22_050


@pytest.fixture(scope="session")
def librosa():
    """Slow to import, and its compiled functions are slow at their first call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        librosa = pytest.importorskip("librosa")
        _ = librosa.feature.zero_crossing_rate
    return librosa


@pytest.fixture(scope="session")
def sound():
    """Half a second: a chord that fades, a little noise, and silence at the end."""
    random = np.random.default_rng(7)
    n = np.arange(SR // 2)
    y = sum(np.sin(2 * np.pi * f * n / SR) / (i + 1) for i, f in enumerate((220.0, 277.5, 331.0, 1203.7, 5003.1)))
    y = 0.3 * y * np.exp(-n / 4000) + 0.01 * random.normal(size=len(n))
    y[-2500:] = 0
    return y.astype(np.float32)


@pytest.fixture(scope="session")
def spectrum(sound):
    """Its magnitudes, (1025, 22), rounded to float32."""
    window = np.hanning(2049)[:-1]
    padded = np.pad(sound.astype(np.float64), 1024)
    frames = np.stack([padded[i : i + 2048] * window for i in range(0, len(sound) + 1, 512)])
    return np.ascontiguousarray(np.abs(np.fft.rfft(frames)).T.astype(np.float32))


def close(got, wanted, factor, scale=None):
    """Within `factor` eps of the largest number that is wanted (or of `scale`)."""
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.shape == wanted.shape
    scale = np.max(np.abs(wanted)) if scale is None else scale
    worst = float(np.max(np.abs(got - wanted)) / (EPS * scale)) if got.size else 0.0
    assert worst <= factor, f"{worst:.2f} eps of {scale:g}"


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


# -- element by element ------------------------------------------------------------------------------------------------

# Every function computes in double precision and rounds once to float32: half an eps of the number itself, which
# nothing else reaches; worst measured 0.5.
ONE_ROUNDING = 0.51

POWERS = [np.float32(x) for x in (0, 1e-38, 1e-30, 1e-11, 9.99e-11, 1e-10, 0.5, 1, 1.0000001, 2, 3, 10, 1e10, 3.4e38)]


@pytest.mark.parametrize("options", [{}, {"top_db": None}, {"ref": np.max}, {"ref": 0.1, "amin": 1e-3, "top_db": 20.0},
                                     {"amin": 1e-320, "top_db": None}])  # fmt: skip
def test_decibels_are_librosas(isa, librosa, rng, options):
    S = np.concatenate([POWERS, np.exp(rng.normal(0, 5, 3000))]).astype(np.float32)
    for ours, theirs, twin in (
        (features.power_to_db, librosa.power_to_db, reference.power_to_db),
        (features.amplitude_to_db, librosa.amplitude_to_db, reference.amplitude_to_db),
    ):
        if options.get("amin") == 1e-320:  # below what float32 can hold: nothing of ours may be minus infinity
            assert np.isfinite(ours(S, **options)).all()
            continue
        got, wanted = ours(S, **options), twin(S, **options)
        assert got.dtype == np.float32
        close(got, wanted, ONE_ROUNDING)
        finite = {"amplitude": S[S < 1e19]}.get(ours.__name__.split("_")[0], S)  # the others' square is infinite
        close(ours(finite, **options), theirs(finite, **options), 4)  # the peer's float32: measured 3


@pytest.mark.parametrize("ref", [1.0, 0.25])
def test_decibels_and_back(isa, librosa, rng, ref):
    db = rng.uniform(-200, 200, 4001).astype(np.float32)
    for ours, theirs, twin, back in (
        (features.db_to_power, librosa.db_to_power, reference.db_to_power, features.power_to_db),
        (features.db_to_amplitude, librosa.db_to_amplitude, reference.db_to_amplitude, features.amplitude_to_db),
    ):
        got = ours(db, ref=ref)
        np.testing.assert_allclose(got, twin(db, ref=ref), rtol=ONE_ROUNDING * EPS)
        np.testing.assert_allclose(got, theirs(db, ref=ref), rtol=200 * EPS)  # float32 exponents: measured 60
        # Law. A power is rounded to eps, an eps of a power is 4.3 eps in decibels, and these are rounded again.
        amin = 1e-30
        np.testing.assert_allclose(back(got, ref=ref, amin=amin, top_db=None), db, rtol=0, atol=210 * EPS)
    assert np.isfinite(features.db_to_power(np.float32([1e4, 1e30, -1e30]))).all()


def test_decibels_of_other_shapes(rng):
    S = np.exp(rng.normal(size=(2, 30, 17))).astype(np.float32)
    wanted = features.power_to_db(S)
    for other in (S.astype(np.float64), S[:, ::-1][:, ::-1], np.ascontiguousarray(S.swapaxes(1, 2)).swapaxes(1, 2)):
        np.testing.assert_array_equal(features.power_to_db(other), wanted)
    one = features.power_to_db(2.0)
    assert one.shape == ()
    close(one, 10 * np.log10(2), 1)
    assert features.power_to_db(np.zeros((0, 3), np.float32)).shape == (0, 3)
    with pytest.warns(UserWarning, match="power_to_db: expected real values, got complex"):
        np.testing.assert_array_equal(features.power_to_db(S * 1j), wanted)
    with pytest.raises(ValueError, match="amin: expected a finite number > 0, got 0"):
        features.power_to_db(S, amin=0)
    with pytest.raises(ValueError, match="top_db: expected a finite number >= 0, got -1"):
        features.amplitude_to_db(S, top_db=-1)


def test_magphase(isa, librosa, rng):
    D = (rng.normal(size=(33, 21)) + 1j * rng.normal(size=(33, 21))).astype(np.complex64)
    D[3, 4] = D[0, 0] = 0
    D[1, 1], D[2, 2] = 1e30, 1e-30j
    for order in "CF":
        S, P = features.magphase(np.asarray(D, order=order))
        assert (S.dtype, P.dtype) == (np.float32, np.complex64)
        magnitude, phase = reference.magphase(D)
        np.testing.assert_allclose(S, magnitude, rtol=EPS)
        close(P, phase, 1, scale=1)
        close(P, librosa.magphase(D)[1], 3, scale=1)
        np.testing.assert_allclose(S * P, D, rtol=3 * EPS)  # law
    np.testing.assert_allclose(features.magphase(D[4:], power=2)[0], magnitude[4:] ** 2, rtol=4 * EPS)


@pytest.mark.parametrize("mu", [1, 15, 255, 1023, 65_535, 2**20])
def test_mu_law(isa, librosa, rng, mu):
    y = np.concatenate([rng.uniform(-1, 1, 3000), rng.normal(0, 1e-3, 1000), [0, -0.0, 1, -1, 1e-30, -1e-30]])
    y = y.astype(np.float32)
    tokens = mg.mu_law_encode(y, mu=mu)
    assert tokens.dtype == np.int32
    exact = (reference.compressed(y, mu) + 1) / 2 * mu + 0.5
    doubtful = np.abs(exact - np.rint(exact)) < 1e-9 * mu
    np.testing.assert_array_equal(tokens[~doubtful], reference.mu_law_encode(y, mu)[~doubtful])
    assert np.abs(tokens - np.floor(exact)).max() <= 1
    assert tokens.min() == 0
    assert tokens.max() == mu
    decoded = mg.mu_law_decode(tokens, mu=mu)
    assert decoded.dtype == np.float32
    close(decoded, reference.mu_law_decode(tokens, mu), 1)
    if mu < 2**16:  # law: decoding and encoding again changes nothing
        np.testing.assert_array_equal(mg.mu_law_encode(decoded, mu=mu), tokens)
    close(features.mu_compress(y, mu=mu, quantize=False), reference.compressed(y, mu), 1)
    close(features.mu_compress(y, mu=mu, quantize=False), librosa.mu_compress(y, mu=mu, quantize=False), 5)
    steps, theirs = features.mu_compress(y, mu=mu), librosa.mu_compress(y, mu=mu)
    steps, theirs = steps[np.abs(y) < 1], theirs[np.abs(y) < 1]  # at 1 its float32 may pass the last mark
    assert np.abs(steps - theirs).max() <= 1
    assert (steps != theirs).mean() < 1e-5 * mu  # where the peer's float32 falls on the other side
    close(features.mu_expand(steps, mu=mu), librosa.mu_expand(steps, mu=mu), 1, scale=1)
    close(features.mu_expand(y, mu=mu, quantize=False), librosa.mu_expand(y.astype(float), mu=mu, quantize=False), 1)


def test_mu_law_refusals():
    for y in ([1.5], [-1.0001, 0.0]):
        with pytest.raises(ValueError, match=r"expected values in \[-1, 1\], got"):
            mg.mu_law_encode(y)
    with pytest.raises(TypeError, match="convert to float"):
        mg.mu_law_encode(np.zeros(3, np.int16))
    with pytest.raises(ValueError, match="tokens: expected 0 to mu=255, got 0 to 256"):
        mg.mu_law_decode([0, 256])
    with pytest.raises(TypeError, match="tokens: expected whole numbers, got float64"):
        mg.mu_law_decode([0.5])
    for mu in (0, 2**24 + 1):
        with pytest.raises(ValueError, match="mu: expected 1 to 16777216"):
            mg.mu_law_encode([0.0], mu=mu)


def test_mu_law_is_torchaudios(rng):
    """Its formula in torch's arithmetic: torchaudio.functional.mu_law_encoding."""
    torch = pytest.importorskip("torch")
    y = rng.uniform(-1, 1, 20_000).astype(np.float32)
    x, mu = torch.from_numpy(y), torch.tensor(255.0)
    x_mu = torch.sign(x) * torch.log1p(mu * torch.abs(x)) / torch.log1p(mu)
    theirs = ((x_mu + 1) / 2 * mu + 0.5).to(torch.int64).numpy()
    ours = mg.mu_law_encode(y)
    assert np.abs(ours - theirs).max() <= 1
    assert (ours != theirs).mean() < 1e-4


# -- frames of a signal ------------------------------------------------------------------------------------------------

FRAMINGS = [(2048, 512), (2048, 2048), (1001, 333), (64, 16), (7, 3), (1, 1), (400, 160)]


@pytest.mark.parametrize(("frame_length", "hop_length"), FRAMINGS)
@pytest.mark.parametrize("pad_mode", ["constant", "reflect", "edge", None])
def test_rms(isa, librosa, sound, frame_length, hop_length, pad_mode):
    y = sound[:5000]
    options = {"frame_length": frame_length, "hop_length": hop_length, "center": pad_mode is not None}
    got = features.rms(y=y, pad_mode=pad_mode or "constant", **options)
    wanted = reference.rms(y, frame_length, hop_length, pad_mode)[None]
    close(got, wanted, ONE_ROUNDING)
    if isa == "baseline":
        close(got, librosa.feature.rms(y=y, pad_mode=pad_mode or "constant", **options), 4)


@pytest.mark.parametrize("frame_length", [2048, 2049])
def test_rms_of_a_spectrum(isa, librosa, spectrum, frame_length):
    got = features.rms(S=spectrum, frame_length=frame_length)
    close(got, reference.rms_of_spectrum(spectrum, frame_length)[None], ONE_ROUNDING)
    close(got, librosa.feature.rms(S=spectrum, frame_length=frame_length), 8)
    close(got, features.rms(S=spectrum * np.exp(0.3j), frame_length=frame_length), 4)
    with pytest.raises(ValueError, match="frame_length: expected 2048 or 2049 with the 1025 bins of S, got 2047"):
        features.rms(S=spectrum, frame_length=2047)
    with pytest.raises(ValueError, match="expected y or S, got neither"):
        features.rms()


@pytest.mark.parametrize(("frame_length", "hop_length"), FRAMINGS)
@pytest.mark.parametrize("options", [{}, {"threshold": 0.05, "zero_pos": False}, {"threshold": 0.0, "center": False}])
def test_zero_crossing_rate(isa, librosa, sound, frame_length, hop_length, options):
    y = sound[:3000].copy()
    y[100:150] = 0
    y[200:300] = -0.0
    got = features.zero_crossing_rate(y, frame_length=frame_length, hop_length=hop_length, **options)
    wanted = reference.zero_crossing_rate(y, frame_length, hop_length, **options)[None]
    np.testing.assert_array_equal(got, wanted.astype(np.float32))
    if isa == "baseline" and frame_length > 1:
        theirs = librosa.feature.zero_crossing_rate(y, frame_length=frame_length, hop_length=hop_length, **options)
        np.testing.assert_array_equal(got, theirs.astype(np.float32))
        padded = features.zero_crossing_rate(y, frame_length=frame_length, hop_length=hop_length, pad=True, **options)
        theirs = librosa.feature.zero_crossing_rate(
            y, frame_length=frame_length, hop_length=hop_length, pad=True, **options
        )
        close(padded, theirs, 1)


def test_zero_crossings_relative_to_the_signal(librosa, sound):
    for ref in (np.max, 0.5):
        got = features.zero_crossing_rate(sound, threshold=0.1, ref_magnitude=ref)
        close(got, librosa.feature.zero_crossing_rate(sound, threshold=0.1, ref_magnitude=ref), 1)


# -- slopes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["interp", "nearest", "mirror", "constant", "wrap"])
@pytest.mark.parametrize(("width", "order"), [(9, 1), (9, 2), (3, 1), (5, 3), (21, 2)])
def test_delta(isa, librosa, rng, mode, width, order):
    data = rng.normal(size=(2, 3, 40)).astype(np.float32)
    # A kernel of many weights: the scale is that of the sum of their magnitudes times the data, about 3.
    for axis in (-1, 1, 0):
        if data.shape[axis] < width:
            continue
        got = features.delta(data, width=width, order=order, axis=axis, mode=mode)
        assert got.dtype == np.float32
        theirs = librosa.feature.delta(data.astype(float), width=width, order=order, axis=axis, mode=mode)
        close(got, theirs, 1)
    if mode in ("interp", "wrap"):
        got = features.delta(data, width=width, order=order, mode=mode)
        twin = [[reference.delta(row, width, order, mode) for row in channel] for channel in data]
        close(got, twin, 1)


def test_delta_of_a_polynomial_is_its_derivative(isa):
    t = np.arange(30.0)
    for order, wanted in ((1, 6 * t + 2), (2, np.full(30, 6.0))):
        close(features.delta(3 * t**2 + 2 * t + 1, order=order, polyorder=2), wanted, 1)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"width": 4}, "width: expected an odd number, got 4"),
        ({"width": 1}, "width: expected 3 to"),
        ({"width": 11}, r"width: expected at most the 10 values along axis -1 with mode='interp', got 11"),
        ({"order": 0}, "order: expected 1 to"),
        ({"order": 3, "polyorder": 2}, "polyorder: expected order=3 to width - 1 = 8, got 2"),
        ({"mode": "reflect"}, "mode: expected one of 'interp'"),
        ({"axis": 2}, "axis: expected -2 to 1, got 2"),
    ],
)
def test_delta_refusals(options, named):
    with pytest.raises(ValueError, match=named):
        features.delta(np.zeros((3, 10), np.float32), **options)
