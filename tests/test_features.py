"""Numbers out of sound: against plain twins in double precision, librosa, and laws."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest

import musicgen_ext as mg
from musicgen_ext import features
from musicgen_reference import measures as reference
from musicgen_reference import windows

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


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize(
    "window", [*windows.COSINES, "povey", "bartlett", "cosine", ("kaiser", 8.6), ("gaussian", 7.0), ("tukey", 0.3)]
)
def test_windows_twin(window, periodic):
    name, parameter = (window, None) if isinstance(window, str) else window
    for size in (1, 2, 3, 16, 33, 400):
        got = features.get_window(window, size, fftbins=periodic)
        # The edges of Povey's are roundings of zero to the power of 0.85.
        np.testing.assert_allclose(got, windows.window(name, size, parameter, periodic), rtol=0, atol=1e-12)


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


# -- measures of spectra -----------------------------------------------------------------------------------------------

FREQUENCIES = np.arange(1025) * SR / 2048
MEASURES = ["spectral_centroid", "spectral_bandwidth", "spectral_rolloff", "spectral_flatness", "spectral_contrast"]
# From a spectrogram, sums in double precision and one rounding; means of magnitudes in `contrast` are rounded before
# their decibels are taken, a few eps of 80. Worst measured: 0.5 and 0.7.
SPECTRAL = {"spectral_contrast": 2}
# librosa is given doubles: its sums of float32 are worth three or four digits in silence.


def twin_of(name, S, **options):
    freq = () if name == "spectral_flatness" else (options.pop("freq", FREQUENCIES),)
    value = getattr(reference, name)(S, *freq, **options)
    return value if value.ndim == 2 else value[None]


@pytest.mark.parametrize("name", MEASURES)
def test_measures_of_a_spectrogram(isa, librosa, spectrum, name):
    measure = getattr(features, name)
    wanted = twin_of(name, spectrum)
    for S in (spectrum, np.asfortranarray(spectrum), spectrum[:, :1], spectrum[:, :16], spectrum[:, :17]):
        got = measure(S=S)
        assert got.dtype == np.float32
        if name != "spectral_contrast":  # whose lowest values depend on the highest of all frames
            close(got, wanted[:, : S.shape[1]], SPECTRAL.get(name, ONE_ROUNDING))
        np.testing.assert_array_equal(got, measure(S=np.ascontiguousarray(S)))
    close(measure(S=spectrum), wanted, SPECTRAL.get(name, ONE_ROUNDING))
    theirs = getattr(librosa.feature, name)(S=spectrum.astype(np.float64))
    close(measure(S=spectrum), theirs, SPECTRAL.get(name, ONE_ROUNDING))
    two = np.stack([spectrum, spectrum[::-1]])
    np.testing.assert_array_equal(measure(S=two[:1])[0], measure(S=spectrum))
    assert measure(S=two).shape == (2, *measure(S=spectrum).shape)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("spectral_centroid", {"sr": 44_100}),
        ("spectral_bandwidth", {"p": 1}),
        ("spectral_bandwidth", {"p": 3.5}),
        ("spectral_bandwidth", {"norm": False}),
        ("spectral_rolloff", {"roll_percent": 0.1}),
        ("spectral_rolloff", {"roll_percent": 0.99}),
        ("spectral_flatness", {"power": 1.0}),
        ("spectral_flatness", {"power": 0.7, "amin": 1e-3}),
        ("spectral_flatness", {"amin": 1e-2}),
        ("spectral_contrast", {"linear": True}),
        ("spectral_contrast", {"fmin": 100.0, "n_bands": 3, "quantile": 0.3}),
        ("spectral_contrast", {"quantile": 0.9}),
    ],
)
def test_options_of_measures(isa, librosa, spectrum, name, options):
    got = getattr(features, name)(S=spectrum, **options)
    scale = 80 if name == "spectral_contrast" and not options.get("linear") else None  # of the decibels it subtracts
    close(got, getattr(librosa.feature, name)(S=spectrum.astype(np.float64), **options), 2, scale)
    sr = options.pop("sr", SR)
    freq = {} if name == "spectral_flatness" else {"freq": FREQUENCIES * sr / SR}
    close(got, twin_of(name, spectrum, **freq, **options), 2, scale)


@pytest.mark.parametrize("bins", [1436, 261])  # bins 287 and 26 of these lie at 1600 and 800 Hz, or an ulp below
def test_a_bin_on_the_edge_of_a_band_is_where_librosa_has_it(librosa, rng, bins):
    S = rng.random((bins, 50)).astype(np.float32)
    close(features.spectral_contrast(S=S, sr=16000), librosa.feature.spectral_contrast(S=S, sr=16000), 60)


def test_given_frequencies_and_centroids(librosa, spectrum, rng):
    odd = np.sort(rng.uniform(0, 9000, 1025))
    moving = odd[:, None] + rng.uniform(0, 100, spectrum.shape)
    around = rng.uniform(100, 5000, (1, spectrum.shape[1]))
    S = spectrum.astype(np.float64)
    for name in MEASURES[:3]:
        ours, theirs = getattr(features, name), getattr(librosa.feature, name)
        close(ours(S=spectrum, freq=odd), theirs(S=S, freq=odd), 1)
        close(ours(S=spectrum, freq=moving), theirs(S=S, freq=moving), 1)
    for freq in (None, moving):
        close(
            features.spectral_bandwidth(S=spectrum, freq=freq, centroid=around),
            librosa.feature.spectral_bandwidth(S=S, freq=freq, centroid=around), 2,
        )  # fmt: skip
    falling = odd[::-1].copy()
    close(features.spectral_rolloff(S=spectrum, freq=falling), librosa.feature.spectral_rolloff(S=S, freq=falling), 1)
    shuffled = rng.permutation(odd)
    close(features.spectral_rolloff(S=spectrum, freq=shuffled), librosa.feature.spectral_rolloff(S=S, freq=shuffled), 1)


FROM_SIGNALS = [
    {},
    {"n_fft": 1024, "hop_length": 160, "win_length": 400, "window": "hamming", "center": False},
    {"n_fft": 600, "hop_length": None, "pad_mode": "reflect"},
    {"n_fft": 1001, "hop_length": 333, "window": ("kaiser", 5.0), "pad_mode": "edge"},
]


@pytest.mark.parametrize("options", FROM_SIGNALS)
@pytest.mark.parametrize("name", [*MEASURES, "chroma_stft"])
def test_measures_of_a_signal(isa, librosa, sound, name, options):
    got = getattr(features, name)(y=sound, **options)
    theirs = getattr(librosa.feature, name)(y=sound, **options)
    if name == "spectral_rolloff":  # a bin's width where two sums are nearly equal
        step = SR / options.get("n_fft", 2048)
        assert np.abs(got - theirs).max() <= step * 1.0001
        assert (np.abs(got - theirs) > 1).mean() < 0.02
    elif name == "spectral_contrast":
        # Valleys are magnitudes near 0, where single precision leaves few digits in either: measured 2e-3 of 30 dB
        loud = slice(None, -5 * len(sound) // 2500)
        np.testing.assert_allclose(got[:, loud], theirs[:, loud], rtol=0, atol=0.05)
    elif name == "spectral_bandwidth" or name == "spectral_centroid":
        # in silence at the end, both are made of rounding errors
        heard = features.rms(y=sound, frame_length=options.get("n_fft", 2048),
                             hop_length=options.get("hop_length") or options.get("n_fft", 2048) // 4,
                             center=options.get("center", True))[0] > 1e-4  # fmt: skip
        close(got[:, heard], theirs[:, heard], 60)
    else:
        close(got, theirs, 60)  # measured 20
    two = getattr(features, name)(y=np.stack([sound, 0.5 * sound]), **options)
    if name not in ("spectral_flatness", "chroma_stft", "spectral_contrast"):
        np.testing.assert_array_equal(two[0], got)
    assert two.shape == (2, *got.shape)


def test_measures_of_a_signal_are_those_of_its_spectrogram(isa, sound):
    S = np.abs(features.stft(sound))
    for name in MEASURES:
        close(getattr(features, name)(y=sound)[:, :15], getattr(features, name)(S=S)[:, :15], 20)


def test_measures_do_not_depend_on_threads(beats):
    results = []
    for threads in (1, 3):
        features.set_threads(threads)
        results.append([getattr(features, name)(y=beats) for name in [*MEASURES, "chroma_stft"]])
    features.set_threads(None)
    for one, three in zip(*results, strict=True):
        np.testing.assert_array_equal(one, three)


def test_laws_of_measures(isa, spectrum):
    """Louder is not brighter; a tone has its frequency and no width; white is flat."""
    for name in MEASURES[:3]:
        np.testing.assert_array_equal(getattr(features, name)(S=4 * spectrum), getattr(features, name)(S=spectrum))
    tone = np.zeros((1025, 3), np.float32)
    tone[100] = 2
    np.testing.assert_allclose(features.spectral_centroid(S=tone), FREQUENCIES[100], rtol=EPS)
    np.testing.assert_array_equal(features.spectral_bandwidth(S=tone), 0)
    np.testing.assert_allclose(features.spectral_rolloff(S=tone), FREQUENCIES[100], rtol=EPS)
    np.testing.assert_array_equal(features.spectral_flatness(S=np.ones((513, 4), np.float32)), 1)


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("spectral_centroid", {"S": -np.ones((5, 2))}, "S: expected non-negative values, got -1"),
        ("spectral_centroid", {}, "y: expected a signal, or a spectrogram S, got neither"),
        ("spectral_centroid", {"freq": np.zeros(7)}, r"freq: expected shape \(1025,\) or \(1025, 22\), got \(7,\)"),
        ("spectral_bandwidth", {"p": 0}, "p: expected a finite number > 0"),
        ("spectral_bandwidth", {"centroid": np.zeros((1, 3))}, r"centroid: expected shape \(1, 22\), got \(1, 3\)"),
        ("spectral_rolloff", {"roll_percent": 1.0}, "roll_percent: expected less than 1, got 1"),
        ("spectral_flatness", {"amin": 0}, "amin: expected a finite number > 0"),
        ("spectral_contrast", {"n_bands": 9}, "n_bands: expected bands that begin below sr / 2 = 11025 Hz, got 9"),
        ("spectral_contrast", {"quantile": 1.0}, "quantile: expected less than 1"),
        ("spectral_contrast", {"fmin": 4.0, "n_bands": 2}, "n_bands: expected .* in every band"),
        ("chroma_stft", {"norm": -2}, "norm: expected a number >= 0"),
        ("estimate_tuning", {"resolution": 2.0}, "resolution: expected a finite number"),
    ],
)
def test_measures_refuse(spectrum, name, options, named):
    source = {} if "S" in options or "neither" in named else {"S": spectrum}
    with pytest.raises(ValueError, match=named):
        getattr(features, name)(**source, **options)


# -- pitch classes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_fft", [2048, 512, 1001, 2])
@pytest.mark.parametrize("options", [{}, {"n_chroma": 24, "tuning": 0.3}, {"octwidth": None, "base_c": False},
                                     {"ctroct": 4.0, "octwidth": 1.0, "norm": np.inf}, {"norm": None}])  # fmt: skip
def test_chroma_filter(librosa, n_fft, options):
    got = features.chroma_filter(sr=SR, n_fft=n_fft, **options)
    close(got, reference.chroma_filter(SR, n_fft, **options), 1)
    close(got, librosa.filters.chroma(sr=SR, n_fft=n_fft, **options), 1)


@pytest.mark.parametrize("norm", [np.inf, -np.inf, 0, 1, 2, None])
def test_chroma(isa, librosa, spectrum, norm):
    S = spectrum**2
    got = features.chroma_stft(S=S, norm=norm, tuning=0.1)
    weights = features.chroma_filter(sr=SR, n_fft=2048, tuning=0.1)
    if norm in (np.inf, 1, 2, None):
        close(got, reference.chroma(S, weights, norm), 2)
    theirs = librosa.feature.chroma_stft(S=S, norm=norm, tuning=0.1)
    close(got, theirs, 30)


def test_tuning(isa, librosa, sound, spectrum):
    found = reference.tuning(spectrum, SR, 2048)
    assert features.estimate_tuning(S=spectrum) == pytest.approx(found, abs=1e-12)
    assert features.estimate_tuning(S=spectrum) == pytest.approx(librosa.estimate_tuning(S=spectrum), abs=1e-12)
    for cents in (-30, 12, 45):  # law: what is played is what is heard
        y = np.sin(2 * np.pi * 440 * 2 ** (cents / 1200) * np.arange(SR) / SR).astype(np.float32)
        assert features.estimate_tuning(y=y, hop_length=512) == pytest.approx(
            cents / 100, abs=0.03
        )  # a parabola is not the window's shape
    with pytest.warns(UserWarning, match="expected peaks of the spectra, got none"):
        assert features.estimate_tuning(S=np.zeros((1025, 3))) == 0


# -- rhythm ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def beats():
    """Six seconds of noise bursts, 100 to a minute."""
    random = np.random.default_rng(3)
    y = 0.001 * random.normal(size=6 * SR)
    for i in range(10):
        at = round(i * 0.6 * SR)
        y[at : at + 2000] += random.normal(size=len(y[at : at + 2000])) * np.exp(
            -np.arange(len(y[at : at + 2000])) / 400
        )
    return (0.3 * y).astype(np.float32)


@pytest.mark.parametrize(
    "options",
    [{}, {"lag": 3}, {"max_size": 3}, {"max_size": 4, "lag": 2}, {"detrend": True}, {"center": False}, {"n_fft": 512}],
)
def test_onset_strength(isa, librosa, sound, options):
    S = features.power_to_db(features.melspectrogram(y=sound, n_mels=20))
    got = features.onset_strength(S=S, **options)
    theirs = librosa.onset.onset_strength(S=S, **options)
    close(got, theirs, 4)
    plain = {name: value for name, value in options.items() if name in ("lag", "max_size", "detrend")}
    shift = options.get("n_fft", 2048) // 1024 if options.get("center", True) else 0
    wanted = reference.onset_strength(S, shift=shift, **plain)
    close(got[: len(wanted)], wanted, 2)


def test_onset_strength_of_a_signal(isa, librosa, beats):
    for options in (
        {},
        {"hop_length": 256, "n_mels": 64, "aggregate": np.median},
        {"feature": librosa.feature.melspectrogram},
    ):
        close(features.onset_strength(y=beats, **options), librosa.onset.onset_strength(y=beats, **options), 60)
    S = features.power_to_db(features.melspectrogram(y=beats))
    np.testing.assert_array_equal(features.onset_strength(S=S), features.onset_strength(y=beats))
    close(features.onset_strength(S=S, ref=S), librosa.onset.onset_strength(S=S, ref=S), 4)
    with pytest.raises(ValueError, match="ref: expected the shape of S"):
        features.onset_strength(S=S, ref=S[:, 1:])


@pytest.mark.parametrize("n", [1, 100, 700])
@pytest.mark.parametrize("options", [{}, {"lag": 5}, {"center": False, "lag": 2}, {"detrend": True}])
def test_sounds_of_a_frame_or_two_have_no_onsets(librosa, beats, n, options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # both say that n_fft is larger than the sound
        got = features.onset_strength(y=beats[:n], **options)
        np.testing.assert_array_equal(got, librosa.onset.onset_strength(y=beats[:n], **options))
        assert not got.any()
        np.testing.assert_allclose(features.tempo(y=beats[:n]), librosa.feature.tempo(y=beats[:n]))


@pytest.mark.parametrize("options", [{}, {"win_length": 65, "norm": None}, {"center": False, "win_length": 100}])
def test_tempogram(librosa, beats, options):
    envelope = features.onset_strength(y=beats)
    got = features.tempogram(onset_envelope=envelope, **options)
    close(got, librosa.feature.tempogram(onset_envelope=envelope, **options), 4)
    if not options:
        close(got[:, ::40], reference.tempogram(envelope, features.get_window("hann", 384))[:, ::40], 4)


def test_tempo(librosa, beats):
    envelope = features.onset_strength(y=beats)
    assert features.tempo(y=beats) == pytest.approx([100], abs=3)
    tempogram = reference.tempogram(envelope, features.get_window("hann", 344))
    assert features.tempo(onset_envelope=envelope) == pytest.approx([reference.tempo(tempogram, SR, 512)])
    for options in ({}, {"start_bpm": 60, "std_bpm": 0.5}, {"max_tempo": 90}, {"aggregate": None}, {"ac_size": 3.0},
                    {"aggregate": np.median}, {"max_tempo": None}):  # fmt: skip
        got = features.tempo(onset_envelope=envelope, **options)
        np.testing.assert_allclose(got, librosa.feature.tempo(onset_envelope=envelope, **options), rtol=1e-12)
    tg = features.tempogram(onset_envelope=envelope)
    np.testing.assert_allclose(features.tempo(tg=tg), librosa.feature.tempo(tg=tg), rtol=1e-12)
    prior = pytest.importorskip("scipy.stats").uniform(30, 200)
    np.testing.assert_allclose(
        features.tempo(tg=tg, prior=prior), librosa.feature.tempo(tg=tg, prior=prior), rtol=1e-12
    )
    two = np.stack([envelope, envelope[::-1]])
    np.testing.assert_allclose(
        features.tempo(onset_envelope=two), librosa.feature.tempo(onset_envelope=two), rtol=1e-12
    )


# -- as Kaldi ----------------------------------------------------------------------------------------------------------

KALDI = [
    {},
    {"num_mel_bins": 40, "high_freq": -400.0, "low_freq": 40.0},
    {"window_type": "hamming", "remove_dc_offset": False, "preemphasis_coefficient": 0.0},
    {"window_type": "hanning", "snip_edges": False},
    {"window_type": "blackman", "raw_energy": False},
    {"window_type": "rectangular", "use_power": False},
    {"round_to_power_of_two": False, "frame_length": 20.0, "frame_shift": 5.0},
    {"sr": 8000},
    {"htk_compat": True, "raw_energy": False, "energy_floor": 0.0},
]


def kaldi_native(y, options, mfcc, use_energy, **others):
    """The same from kaldi-native-fbank."""
    knf = pytest.importorskip("kaldi_native_fbank")
    opts = knf.MfccOptions() if mfcc else knf.FbankOptions()
    frame, mel = opts.frame_opts, opts.mel_opts
    opts.use_energy, frame.dither, opts.energy_floor = use_energy, 0, 1.0
    names = {"sr": (frame, "samp_freq"), "frame_length": (frame, "frame_length_ms"),
             "frame_shift": (frame, "frame_shift_ms"), "preemphasis_coefficient": (frame, "preemph_coeff"),
             "num_mel_bins": (mel, "num_bins"), "low_freq": (mel, "low_freq"),
             "high_freq": (mel, "high_freq")}  # fmt: skip
    for name in ("remove_dc_offset", "window_type", "round_to_power_of_two", "snip_edges"):
        names[name] = (frame, name)
    for name, value in {**options, **others}.items():
        owner, attribute = names.get(name, (opts, name))
        setattr(owner, attribute, value)
    computer = (knf.OnlineMfcc if mfcc else knf.OnlineFbank)(opts)
    computer.accept_waveform(options.get("sr", 16_000), y.tolist())
    computer.input_finished()
    return np.stack([computer.get_frame(i) for i in range(computer.num_frames_ready)])


@pytest.fixture(scope="session")
def speech(sound):
    """As Kaldi likes it: 16-bit numbers, with an offset."""
    return np.round(sound[:8000] * 20_000 + 300).astype(np.float32)


@pytest.mark.parametrize("options", KALDI)
@pytest.mark.parametrize("use_energy", [False, True])
def test_kaldi_fbank(isa, speech, options, use_energy):
    got = features.kaldi_fbank(speech, use_energy=use_energy, **options)
    theirs = kaldi_native(speech, options, False, use_energy)
    assert got.shape == theirs.shape
    # Two computations in single precision, of logarithms up to 25, where a band may hold a thousandth of the frame's
    # energy; silence at the end is rounding. Worst measured: 2e-4.
    np.testing.assert_allclose(got[:-20], theirs[:-20], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "options", [o for o in KALDI if "use_power" not in o] + [{"num_ceps": 20, "cepstral_lifter": 0.0}]
)
@pytest.mark.parametrize("use_energy", [False, True])
def test_kaldi_mfcc(isa, speech, options, use_energy):
    got = features.kaldi_mfcc(speech, use_energy=use_energy, **options)
    theirs = kaldi_native(speech, options, True, use_energy)
    assert got.shape == theirs.shape
    np.testing.assert_allclose(got[:-20], theirs[:-20], rtol=0, atol=5e-3)  # lifted up to 12 times: measured 1e-3


@pytest.mark.parametrize("options", [{}, {"raw_energy": False, "snip_edges": False}, {"remove_dc_offset": False}])
def test_kaldi_twin(isa, speech, options):
    y = speech[:1500]
    window = features.get_window("povey", 400, fftbins=False)
    energies, bands = reference.kaldi_fbank(
        y, 16_000, 23, 20.0, 8000.0, window, 0.97, options.get("remove_dc_offset", True),
        options.get("raw_energy", True), options.get("snip_edges", True),
    )  # fmt: skip
    got = features.kaldi_fbank(y, use_energy=True, **options)
    # A band of small energy carries the rounding of the loud ones: measured 9e-6 of logarithms up to 25.
    np.testing.assert_allclose(got[:, 1:], bands, rtol=0, atol=5e-5)
    close(got[:, 0], energies, 1)
    for lifter in (22.0, 0.0):
        wanted = reference.kaldi_mfcc(bands, 13, lifter)
        np.testing.assert_allclose(features.kaldi_mfcc(y, cepstral_lifter=lifter, **options), wanted, rtol=0, atol=5e-4)
    linear = features.kaldi_fbank(y, use_log_fbank=False, **options)
    np.testing.assert_allclose(np.log(linear), got[:, 1:], rtol=0, atol=4e-6)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_mel_bins": 2}, "num_mel_bins: expected 3 to"),
        ({"num_mel_bins": 200}, "num_mel_bins: expected bands that hold at least one of 256 bins, got 200"),
        ({"high_freq": 8001.0}, r"high_freq: expected more than low_freq=20 and at most sr / 2 = 8000 Hz, got 8001"),
        ({"low_freq": 500.0, "high_freq": 400.0}, "high_freq: expected more than low_freq=500"),
        ({"frame_length": 0.05}, "frame_length: expected at least 2 samples with sr=16000"),
        ({"frame_shift": 0.01}, "frame_shift: expected at least 1 sample with sr=16000"),
        ({"window_type": "hann"}, "window_type: expected one of 'povey'"),
    ],
)
def test_kaldi_refusals(speech, options, named):
    with pytest.raises(ValueError, match=named):
        features.kaldi_fbank(speech, **options)
    if "num_mel_bins" not in options:
        with pytest.raises(ValueError, match=r"y: expected one channel, shape \(n,\), got \(2, 4000\)"):
            features.kaldi_fbank(speech.reshape(2, -1))
    with pytest.raises(ValueError, match="num_ceps: expected at most num_mel_bins=23, got 24"):
        features.kaldi_mfcc(speech, num_ceps=24)


def test_kaldi_of_short_signals():
    assert features.kaldi_fbank(np.zeros(399, np.float32)).shape == (0, 23)
    assert features.kaldi_mfcc(np.zeros(399, np.float32)).shape == (0, 13)
    assert features.kaldi_fbank(np.ones(1, np.float32), snip_edges=False).shape == (0, 23)
    assert features.kaldi_fbank(np.ones(100, np.float32), snip_edges=False).shape == (1, 23)


# -- the robustness list: every function that takes sound --------------------------------------------------------------

BY_POSITION = {"zero_crossing_rate", "kaldi_fbank", "kaldi_mfcc", "stft", "mu_law_encode", "mu_compress"}
OF_SOUND = ["stft", "melspectrogram", "mfcc", *MEASURES, "chroma_stft", "estimate_tuning", "onset_strength", "tempo",
            "tempogram", "rms", "zero_crossing_rate", "kaldi_fbank", "kaldi_mfcc", "mu_law_encode",
            "mu_compress"]  # fmt: skip
OF_LEVELS = ["power_to_db", "amplitude_to_db", "db_to_power", "db_to_amplitude", "magphase", "delta"]
every_function = pytest.mark.parametrize("name", [*OF_SOUND, *OF_LEVELS])


def call(name, y, **options):
    function = getattr(features, name)
    return function(y, **options) if name in BY_POSITION or name in OF_LEVELS else function(y=y, **options)


def whole(result):
    return np.concatenate([np.ravel(part) for part in result]) if isinstance(result, tuple) else np.asarray(result)


@every_function
def test_R19_every_layout_gives_the_same_numbers(sound, name):
    y = sound[2000:6000]
    one = name.startswith("kaldi")
    rows = y[None] if one else np.stack([y, y[::-1]])
    wanted = whole(call(name, rows[0] if one else rows))
    wide = np.zeros((*rows.shape[:-1], 2 * rows.shape[-1]), np.float32)
    wide[..., ::2] = rows
    read_only = rows.copy()
    read_only.flags.writeable = False
    raw = np.zeros(rows.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(rows.shape)
    raw[...] = rows
    layouts = [rows.astype(np.float64), wide[..., ::2], np.ascontiguousarray(rows[..., ::-1])[..., ::-1],
               rows.astype(">f4"), raw, read_only, np.asfortranarray(rows)]  # fmt: skip
    for layout in layouts:
        before = layout.copy()
        np.testing.assert_array_equal(whole(call(name, layout[0] if one else layout)), wanted)
        np.testing.assert_array_equal(before, layout)
    same = np.broadcast_to(y, (2, len(y)))
    if not one and name not in ("db_to_power", "db_to_amplitude"):
        np.testing.assert_array_equal(whole(call(name, same)), whole(call(name, np.stack([y, y]))))


@every_function
def test_R20_R21_what_is_no_sound_is_refused_by_its_type(name):
    for bad in (np.zeros(5000, np.int16), np.zeros(5000, bool)):
        with pytest.raises(TypeError, match=f"got {bad.dtype}: convert to float and scale"):
            call(name, bad)
    kinds = [
        np.zeros(5000, object),
        "sound",
        np.ma.masked_array(np.zeros(5000), np.zeros(5000, bool)),
        [[1.0], [1.0, 2.0]],
    ]
    if name not in ("magphase", "power_to_db", "amplitude_to_db"):
        kinds.append(np.zeros(5000, np.complex64))
    for bad in kinds:
        with pytest.raises(TypeError, match=r": expected .*, got"):
            call(name, bad)
    with pytest.raises((TypeError, ValueError), match=r"expected .*, got"):
        call(name, None)  # the functions that take y or S cannot know that y was meant


@every_function
def test_R22_nan_and_infinities_are_counted(sound, name):
    y = sound[:5000].copy()
    y[[700, 4000]] = np.inf, np.nan
    with pytest.raises(ValueError, match=r"expected finite .* got 2 that are not, the first inf at index 700"):
        call(name, y)


@pytest.mark.filterwarnings("ignore:n_fft=:UserWarning", "ignore:estimate_tuning:UserWarning")
@every_function
def test_R23_short_signals_and_many_channels(librosa, sound, name):
    if name in OF_SOUND and not name.startswith("mu_"):
        for empty in (np.zeros(0, np.float32), np.zeros((2, 0), np.float32)):
            with pytest.raises(ValueError, match=r"y: expected at least 1 samples along the last axis, got \("):
                call(name, empty)
    if name in ("delta", "kaldi_fbank", "kaldi_mfcc", "tempo", "tempogram"):
        return
    theirs = getattr(librosa.feature, name, None)
    if name == "onset_strength":
        return
    for shape in ((1,), (100,), (2, 3000), (3, 2, 700)):
        got = whole(call(name, np.resize(sound, shape)))
        assert np.isfinite(got).all()
        if theirs is not None and name != "mfcc":
            y = np.resize(sound, shape)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert got.shape == (theirs(y) if name in BY_POSITION else theirs(y=y)).shape


@pytest.mark.parametrize("name", ["stft", "melspectrogram", "mfcc", *MEASURES, "chroma_stft", "onset_strength"])
def test_R24_impossible_frames_name_both_arguments(sound, name):
    y = sound[:4000]
    for n_fft in (0, -1, 2**31):
        with pytest.raises(ValueError, match=f"n_fft: expected 1 to 2147483647, got {n_fft}"):
            call(name, y, n_fft=n_fft)
    with pytest.raises(ValueError, match=r"hop_length: expected 1 to 2147483647, got 0"):
        call(name, y, hop_length=0)
    with pytest.raises(TypeError, match=r"hop_length: expected an integer, got float 512.0"):
        call(name, y, hop_length=512.0)
    if name != "onset_strength":
        with pytest.raises(ValueError, match="win_length: expected at most n_fft=512, got 513"):
            call(name, y, n_fft=512, win_length=513)
    if name not in ("stft", "spectral_flatness"):
        with pytest.raises(ValueError, match=r"sr: expected a finite number > 0 and <= 1e\+09, got 0"):
            call(name, y, sr=0)
    if name not in ("spectral_contrast", "melspectrogram", "mfcc", "onset_strength"):  # which need bins in every band
        for n_fft in (1009, 607):
            assert np.isfinite(whole(call(name, y, n_fft=n_fft))).all()


@pytest.mark.filterwarnings("ignore:n_fft=:UserWarning")
def test_R25_sizes_that_cannot_be(sound):
    wide = np.broadcast_to(np.float32(0.5), (2**40,))  # 4 TiB in four bytes
    for name in ("rms", "zero_crossing_rate", "spectral_centroid", "power_to_db", "mu_law_encode", "kaldi_fbank"):
        with pytest.raises(MemoryError, match=f"{2**42} bytes"):
            call(name, wide)
    with pytest.raises(MemoryError, match=r"\d{13,} bytes"):
        features.chroma_filter(sr=SR, n_fft=2**31 - 1, n_chroma=10_000)
    with pytest.raises(MemoryError, match=r"tempogram: .* \d{13,} bytes"):
        features.tempogram(onset_envelope=np.zeros(2**15, np.float32), win_length=2**24)
    assert np.isfinite(features.rms(y=sound)).all()  # the process lives on


LEVELS = {"denormals": 1e-40, "tiny": 1e-30, "zeros": 0.0, "huge": 1e30}


@pytest.mark.filterwarnings("ignore:estimate_tuning:UserWarning")
@pytest.mark.parametrize("name", [n for n in OF_SOUND if not n.startswith("mu_")])
def test_R26_extreme_levels_stay_finite(isa, rng, name):
    noise = np.sign(rng.normal(size=22_050)).astype(np.float32)
    for level in LEVELS.values():
        assert np.isfinite(whole(call(name, noise * np.float32(level)))).all(), level
    assert np.isfinite(whole(call(name, np.ones(22_050, np.float32)))).all()
    if name in ("spectral_centroid", "spectral_bandwidth", "spectral_rolloff", "chroma_stft"):  # do not depend on it
        ordinary = call(name, noise)
        close(call(name, noise * np.float32(2.0**99)), ordinary, 0)


def test_R26_extreme_levels_of_elements():
    values = np.float32([0, 1e-45, 1e-38, 1e30, 3.4e38])
    for name in OF_LEVELS:
        if name != "delta":
            assert np.isfinite(whole(call(name, values))).all(), name


def test_R26_denormals_are_not_slow(rng):
    noise = rng.normal(size=5 * SR).astype(np.float32)
    for name in ("rms", "zero_crossing_rate", "spectral_centroid", "spectral_flatness", "kaldi_fbank"):
        call(name, noise)
        pairs = []
        for _ in range(7):  # in turns, so that a busy machine is busy for both; the best pair counts
            times = []
            for y in (noise, noise * np.float32(1e-40)):
                begun = time.process_time()
                for _ in range(3):
                    call(name, y)
                times.append(time.process_time() - begun)
            pairs.append(times[1] / max(times[0], 1e-6))
        assert min(pairs) < 2, name
