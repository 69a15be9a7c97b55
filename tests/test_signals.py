"""Sound made ready for training: librosa's numbers where it has them, laws for the rest, one seed one result."""

from __future__ import annotations

import itertools
import time
import warnings

import numpy as np
import pytest

import musicgen_ext as mg
from musicgen_ext import audio, checks, signals
from musicgen_reference import signals as reference

EPS = float(np.finfo(np.float32).eps)


def power(y):
    return float(np.mean(np.square(y, dtype=np.float64)))


def decibels(ratio):
    return 10 * np.log10(ratio)


@pytest.fixture
def batch(rng):
    """Four stereo sounds of different loudness."""
    return (rng.normal(size=(4, 2, 5000)) * np.array([1, 0.1, 0.01, 3])[:, None, None]).astype(np.float32)


@pytest.fixture
def phrases(rng):
    """Three bursts of sound with silence around them, the first channel louder."""
    y = 1e-4 * rng.normal(size=(2, 40_000))
    for first, last in ((5000, 9000), (15_000, 15_800), (30_000, 36_000)):
        y[:, first:last] += rng.normal(size=(2, last - first)) * np.array([[0.5], [0.1]])
    return y.astype(np.float32)


# -- twins -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["peak", "rms"])
def test_normalize_twin(rng, measure):
    y = rng.normal(size=(2, 300)).astype(np.float32)
    expected = np.array(reference.normalize(y.tolist(), -3.0, measure))
    got = signals.normalize(y, -3.0, measure=measure)
    assert np.all(np.abs(got - expected) <= 0.5 * EPS * np.abs(expected))  # rounded once


@pytest.mark.parametrize("size", [50, 80, 120])
def test_mix_twin(rng, size):
    sounds = [rng.normal(size=n).astype(np.float32) for n in (80, 100, 60)]
    expected = np.array(reference.mix([sound.tolist() for sound in sounds], size, 6.0))
    assert np.max(np.abs(signals.mix(sounds, snr=6.0, size=size) - expected)) <= 0.5 * EPS * np.abs(expected).max()


@pytest.mark.parametrize("mode", ["zeros", "wrap"])
@pytest.mark.parametrize("samples", [0, 7, 50, 51, -7, -60])
def test_time_shift_twin(rng, mode, samples):
    y = rng.normal(size=50).astype(np.float32)
    assert signals.time_shift(y, samples, mode=mode).tolist() == reference.time_shift(y.tolist(), samples, mode)


@pytest.mark.parametrize(("frame_length", "hop_length"), [(512, 128), (101, 200), (64, 64)])
@pytest.mark.parametrize("top_db", [20.0, 45.0])
def test_trim_and_split_twin(phrases, frame_length, hop_length, top_db):
    y = phrases[0, ::10].copy()
    options = {"top_db": top_db, "frame_length": frame_length, "hop_length": hop_length}
    stretches = reference.split(y.tolist(), **options)
    assert len(stretches) > 1
    assert signals.split(y, **options).tolist() == [list(stretch) for stretch in stretches]
    assert signals.trim(y, **options)[1].tolist() == list(reference.trim(y.tolist(), **options))


@pytest.mark.parametrize("rate", [0.4, 1.0, 1.3, 3.0])
@pytest.mark.parametrize("n_fft", [16, 15])
def test_phase_vocoder_twin(rng, rate, n_fft):
    shape = (1 + n_fft // 2, 30)
    D = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    expected = np.array(reference.phase_vocoder(D.T.tolist(), rate, 5, n_fft)).T
    got = signals.phase_vocoder(D, rate=rate, hop_length=5, n_fft=n_fft)
    assert got.shape == expected.shape
    # Angles are rounded to single precision, and those of up to 75 frames added up; worst measured 11.
    assert np.max(np.abs(got - expected)) <= 20 * EPS * np.abs(expected).max()


# -- resampling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rates", [(44_100, 22_050), (22_050, 44_100), (44_100, 16_000), (16_000, 11_025.5)])
@pytest.mark.parametrize("shape", [(5000,), (2, 777), (1,), (3, 2, 100)])
@pytest.mark.parametrize("res_type", ["soxr_hq", "soxr_qq", "soxr_vhq"])
def test_resample_has_librosas_numbers(rng, rates, shape, res_type):
    librosa = pytest.importorskip("librosa", reason="librosa is the oracle of this test")
    y = rng.normal(size=shape).astype(np.float32)
    for scale in (False, True):
        expected = librosa.resample(y, orig_sr=rates[0], target_sr=rates[1], res_type=res_type, scale=scale)
        got = audio.resample(y, orig_sr=rates[0], target_sr=rates[1], res_type=res_type, scale=scale)
        assert got.shape == expected.shape
        assert np.max(np.abs(got - expected)) <= (EPS * np.abs(expected).max() if scale else 0)


def test_resample_keeps_a_tone():
    pytest.importorskip("soxr")
    t = np.arange(44_100) / 44_100
    y = audio.resample(np.sin(2 * np.pi * 1000 * t), orig_sr=44_100, target_sr=16_000)
    expected = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    assert np.max(np.abs(y - expected)[500:-500]) < 1e-5


@pytest.mark.parametrize("ratio", [3.0, 0.21])
def test_resample_in_blocks_is_resample_at_once(rng, monkeypatch, ratio):
    pytest.importorskip("soxr")
    y = rng.normal(size=(2, 10_000)).astype(np.float32)
    whole = audio.resample(y, orig_sr=1000, target_sr=1000 * ratio)
    monkeypatch.setattr(audio, "_BLOCK", 700)
    assert np.array_equal(audio.resample(y, orig_sr=1000, target_sr=1000 * ratio), whole)


def test_resample_to_the_same_rate_is_a_copy(rng):
    y = rng.normal(size=100).astype(np.float32)
    same = audio.resample(y, orig_sr=8000, target_sr=8000)
    assert np.array_equal(same, y)
    assert not np.may_share_memory(same, y)


def test_audio_at_another_rate(rng, tmp_path):
    pytest.importorskip("soxr")
    sound = mg.Audio(rng.uniform(-1, 1, (2, 4410)), 44_100, provenance={"seed": 1})
    other = sound.resample(16_000)
    assert (other.sr, other.y.shape, other.provenance) == (16_000, (2, 1600), {"seed": 1})
    sound.save(tmp_path / "x.wav", subtype="FLOAT")
    assert mg.read_audio(tmp_path / "x.wav", sr=16_000) == other
    quick = mg.read_audio(tmp_path / "x.wav", sr=16_000, res_type="soxr_qq")
    assert np.array_equal(quick.y, sound.resample(16_000, res_type="soxr_qq").y)
    assert not np.array_equal(quick.y, other.y)
    assert sound.resample(44_100) == sound


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_sr": 0}, "target_sr: expected a finite number > 0"),
        ({"orig_sr": np.nan}, "orig_sr"),
        ({"target_sr": 48_000 * 300}, "target_sr: expected 1/256 to 256 times"),
        ({"res_type": "kaiser_best"}, "res_type: expected one of 'soxr_vhq'"),
    ],
)
def test_resample_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        audio.resample(np.zeros(9), **{"orig_sr": 48_000, "target_sr": 16_000, **options})


def test_R25_resampling_into_more_than_memory(monkeypatch):
    monkeypatch.setattr(checks, "MOST_BYTES", 10_000)
    with pytest.raises(MemoryError, match=r"resampled sound: .*got shape \(2, 2560\), 20480 bytes"):
        audio.resample(np.zeros((2, 10)), orig_sr=1, target_sr=256)


# -- silence ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_db": 20},
        {"top_db": 100},
        {"top_db": 10, "ref": 0.05},
        {"frame_length": 500, "hop_length": 100, "top_db": 30},
        {"aggregate": np.mean, "top_db": 25},
        {"ref": np.median, "top_db": -3},
        {"ref": 1e6},
    ],
)
def test_trim_and_split_are_librosas(phrases, options):
    effects = pytest.importorskip("librosa.effects", reason="librosa is the oracle of this test")
    for y in (phrases, phrases[1], phrases[None]):
        expected, index = effects.trim(y, **options)
        got, at = signals.trim(y, **options)
        assert at.tolist() == index.tolist()
        assert np.array_equal(got, expected)
        assert np.array_equal(signals.split(y, **options), effects.split(y, **options))


def test_trim_finds_the_phrases(phrases):
    trimmed, index = signals.trim(phrases, top_db=30)
    assert abs(index[0] - 5000) <= 2048
    assert abs(index[1] - 36_000) <= 2048
    assert np.array_equal(trimmed, phrases[:, index[0] : index[1]])
    assert len(signals.split(phrases, top_db=30)) == 3
    sound = mg.Audio(phrases, 8000, provenance={"seed": 2}).trim(top_db=30)
    assert np.array_equal(sound.y, trimmed)
    assert sound.provenance == {"seed": 2}


def test_silence_is_not_silent_relative_to_itself():
    y = np.zeros(5000, np.float32)
    assert signals.trim(y)[1].tolist() == [0, 5000]
    assert signals.trim(y, ref=1.0)[1].tolist() == [0, 0]
    assert signals.split(y).tolist() == [[0, 5000]]


# -- levels ----------------------------------------------------------------------------------------------------------


def test_to_mono_is_the_mean(rng):
    y = rng.normal(size=(3, 2, 1000)).astype(np.float32)
    assert np.max(np.abs(signals.to_mono(y) - y.mean(axis=1, dtype=float))) <= EPS
    assert signals.to_mono(y[0]).shape == (1000,)
    mono = signals.to_mono(y[0, 0])
    assert np.array_equal(mono, y[0, 0])
    assert not np.may_share_memory(mono, y)
    assert mg.Audio(y[0], 8000).to_mono().num_channels == 1


@pytest.mark.parametrize("db", [0.0, -6.0, 3.0])
def test_normalize_sets_each_sound_as_a_whole(batch, db):
    peaks = signals.normalize(batch, db)
    assert np.abs(peaks).max(axis=(1, 2)) == pytest.approx(10 ** (db / 20), rel=2 * EPS)
    loud = signals.normalize(batch, db, measure="rms")
    assert [decibels(power(sound)) for sound in loud] == pytest.approx([db] * 4, abs=1e-5)
    for result in (peaks, loud):
        ratios = result[:, 0, :] * batch[:, 1, :] - result[:, 1, :] * batch[:, 0, :]  # channels keep their balance
        assert np.max(np.abs(ratios)) <= 4 * EPS * np.max(np.abs(result)) * np.max(np.abs(batch))
    assert np.array_equal(signals.normalize(batch[2], db), peaks[2])
    assert np.array_equal(signals.normalize(signals.normalize(batch), 0), signals.normalize(batch))


def test_normalize_leaves_silence():
    y = np.zeros((2, 1, 10), np.float32)
    y[1, 0, 3] = 0.25
    for measure in ("peak", "rms"):
        assert not signals.normalize(y, measure=measure)[0].any()
    assert signals.normalize(y).max() == 1
    assert mg.Audio(y[1, 0], 8000).normalize(-6.0).y.max() == pytest.approx(0.501187, rel=1e-5)


def test_gain_is_in_decibels(batch):
    assert np.max(np.abs(signals.gain(batch, 20) - 10 * batch)) <= 20 * EPS * np.abs(batch).max()
    assert np.array_equal(signals.gain(batch, 0.0), batch)


# -- mixtures --------------------------------------------------------------------------------------------------------


def test_mix_adds(rng):
    a, b, c = rng.normal(size=100), rng.normal(size=(2, 60)), rng.normal(size=(1, 80))
    total = signals.mix([a, b, c])
    expected = np.tile(a, (2, 1))
    expected[:, :60] += b
    expected[:, :80] += c
    assert total.shape == (2, 100)
    assert np.max(np.abs(total - expected)) <= 4 * EPS * np.abs(expected).max()
    assert signals.mix([a, b], size="shortest").shape == (2, 60)
    assert signals.mix([b, a], size="first").shape == (2, 60)
    assert signals.mix([a, a], size=250).shape == (250,)
    assert not signals.mix([a, a], size=250)[100:].any()
    assert signals.mix([c, a]).shape == (1, 100)
    assert np.array_equal(signals.mix([a]), a.astype(np.float32))
    louder = signals.mix([a, b], db=[0, -20])
    assert np.max(np.abs(louder[:, :60] - (a[:60] + 0.1 * b))) <= 8 * EPS * np.abs(expected).max()


@pytest.mark.parametrize("size", ["longest", "first", 40])
def test_mix_at_a_ratio(rng, size):
    a, b, c = 5 * rng.normal(size=100), rng.normal(size=70), 0.01 * rng.normal(size=130)
    total = signals.mix([a, b, c], snr=[10, -3], size=size)
    count = {"longest": 130, "first": 100}.get(size, size)
    used = [np.float32(y[:count]) for y in (a, b, c)]
    # What was added lies in the space of b and c: their factors by least squares.
    columns = np.zeros((count, 3))
    for k, sound in enumerate(used):
        columns[: len(sound), k] = sound
    factors = np.linalg.lstsq(columns, total.astype(float), rcond=None)[0]
    assert factors[0] == pytest.approx(1, abs=1e-5)
    for k, ratio in ((1, 10), (2, -3)):
        assert decibels(power(used[0]) / power(factors[k] * used[k])) == pytest.approx(ratio, abs=1e-3)
    assert np.array_equal(signals.mix([a, b], snr=10), signals.mix([a, b], snr=[10]))


def test_mix_with_silence():
    sound, silence = np.ones(10), np.zeros(10)
    assert np.array_equal(signals.mix([sound, silence], snr=0), sound)
    assert not signals.mix([silence, sound], snr=0).any()


@pytest.mark.parametrize(
    ("ys", "options", "error", "message"),
    [
        (np.zeros((2, 9)), {}, TypeError, "ys: expected a sequence of sounds"),
        ([], {}, ValueError, "ys: expected at least 1 sound"),
        ([np.zeros(9), np.zeros((2, 2, 9))], {}, ValueError, r"ys\[1\]: expected shape"),
        ([np.zeros(9), np.zeros(9, np.int16)], {}, TypeError, r"ys\[1\]: .*int16"),
        ([np.zeros((2, 9)), np.zeros((3, 9))], {}, ValueError, r"one channel or all of the same number, got \[2, 3\]"),
        ([np.zeros(9)] * 2, {"db": [1]}, ValueError, "db: expected 2 numbers"),
        ([np.zeros(9)] * 2, {"snr": [1, 2]}, ValueError, "snr: expected 1 numbers"),
        ([np.zeros(9)] * 2, {"db": [1, 1], "snr": 1}, ValueError, "either db or snr"),
        ([np.zeros(9)] * 2, {"size": "long"}, ValueError, "size: expected one of"),
        ([np.zeros(9)] * 2, {"size": 0}, ValueError, "size: expected 1 to"),
    ],
)
def test_mix_refuses(ys, options, error, message):
    with pytest.raises(error, match=message):
        signals.mix(ys, **options)


@pytest.mark.parametrize("color", ["white", "pink"])
@pytest.mark.parametrize("snr", [30.0, 0.0, -10.0])
def test_noise_has_the_ratio_asked_for(batch, color, snr):
    noisy = signals.noise(batch, snr, color=color, seed=5)
    for sound, result in zip(batch, noisy, strict=True):
        assert decibels(power(sound) / power(result.astype(float) - sound)) == pytest.approx(snr, abs=1e-3)


def test_noise_has_the_colour_asked_for():
    """Power in octaves: alike for pink noise, doubling for white noise; and the shape of a normal distribution."""
    y = np.ones(1 << 17, np.float32)
    edges = 2 ** np.arange(6, 16)
    for color, slope in (("white", 10 * np.log10(2)), ("pink", 0.0)):
        added = signals.noise(y, 0, color=color, seed=1).astype(float) - y
        spectrum = np.abs(np.fft.rfft(added)) ** 2
        octaves = decibels([spectrum[a:b].sum() for a, b in itertools.pairwise(edges)])
        assert np.polyfit(np.arange(len(octaves)), octaves, 1)[0] == pytest.approx(slope, abs=0.2)
        if color == "white":
            assert abs(np.mean(added)) < 4 / np.sqrt(len(y))
            assert np.mean(np.abs(added) < 1) == pytest.approx(0.6827, abs=0.005)
            assert np.mean(np.abs(added) < 2) == pytest.approx(0.9545, abs=0.003)
            assert abs(np.corrcoef(added[0::2], added[1::2])[0, 1]) < 4 / np.sqrt(len(y) / 2)


def test_noise_leaves_silence():
    assert not signals.noise(np.zeros((2, 50), np.float32), 10.0, seed=1).any()
    one = signals.noise(np.ones(1, np.float32), 10.0, color="pink", seed=1)  # no frequency but 0
    assert one.tolist() == [1.0]


# -- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [0, 1, 40, 99, 100, 101, 100_000, -1, -40, -99, -100, -250])
def test_time_shift(rng, samples):
    y = rng.normal(size=(2, 100)).astype(np.float32)
    shifted = signals.time_shift(y, samples)
    for i in range(100):
        assert np.array_equal(shifted[:, i], y[:, i - samples] if 0 <= i - samples < 100 else [0, 0])
    assert np.array_equal(signals.time_shift(y, samples, mode="wrap"), np.roll(y, samples, axis=-1))


# Of the largest sample. librosa adds phases up in single precision unless it is given doubles, as here; then what is
# left comes from bins of next to no magnitude, whose phases are rounding. Worst measured: 4e-6.
STRETCH_BOUND = 2e-5


@pytest.mark.parametrize("rate", [0.5, 0.8, 1.0, 1.37, 2.0])
@pytest.mark.parametrize("options", [{}, {"n_fft": 512, "hop_length": 100}, {"n_fft": 1000, "window": "hamming"}])
def test_time_stretch_is_librosas(rng, rate, options):
    effects = pytest.importorskip("librosa.effects", reason="librosa is the oracle of this test")
    t = np.arange(20_000) / 22_050
    y = (0.5 * np.sin(2 * np.pi * 440 * t) + 0.2 * rng.normal(size=(2, len(t)))).astype(np.float32)
    expected = effects.time_stretch(y.astype(np.float64), rate=rate, **options)
    got = signals.time_stretch(y, rate, **options)
    assert got.shape == expected.shape
    assert np.max(np.abs(got - expected)) <= STRETCH_BOUND * np.abs(expected).max()


@pytest.mark.parametrize("n_steps", [-12, -1.5, 0, 4, 7])
def test_pitch_shift_is_librosas(rng, n_steps):
    effects = pytest.importorskip("librosa.effects", reason="librosa is the oracle of this test")
    y = (0.2 * rng.normal(size=(2, 9000))).astype(np.float32)
    expected = effects.pitch_shift(y.astype(np.float64), sr=22_050, n_steps=n_steps)
    got = signals.pitch_shift(y, n_steps, sr=22_050)
    assert got.shape == y.shape
    assert np.max(np.abs(got - expected)) <= STRETCH_BOUND * np.abs(expected).max()
    quarter = signals.pitch_shift(y, 2 * n_steps, sr=22_050, bins_per_octave=24)
    assert np.array_equal(quarter, got)


@pytest.mark.parametrize(("rate", "steps"), [(0.8, 0), (1.25, 0), (1, 5), (1, -7)])
def test_a_tone_keeps_what_should_stay(rate, steps):
    pytest.importorskip("soxr")
    sr = 22_050
    y = np.sin(2 * np.pi * 440 * np.arange(sr) / sr)
    made = signals.pitch_shift(y, steps, sr=sr) if steps else signals.time_stretch(y, rate)
    assert made.shape == (round(sr / rate),)
    middle = made[4096:-4096] * np.hanning(len(made) - 8192)
    spectrum = np.abs(np.fft.rfft(middle, 1 << 18))
    assert np.argmax(spectrum) * sr / (1 << 18) == pytest.approx(440 * 2 ** (steps / 12), abs=1)


def test_stretching_in_blocks_is_stretching_at_once(rng, monkeypatch):
    y = rng.normal(size=(2, 20_000)).astype(np.float32)
    whole = [signals.time_stretch(y, rate) for rate in (0.6, 1.9)]
    monkeypatch.setattr(signals, "_CACHED", 7 * 1025)
    for rate, expected in zip((0.6, 1.9), whole, strict=True):
        # A sum of phases that begins in the middle is rounded elsewhere, in the last bits of a double.
        assert np.max(np.abs(signals.time_stretch(y, rate) - expected)) <= 4 * EPS * np.abs(expected).max()


def test_stretching_keeps_the_shape_of_a_batch(rng):
    y = rng.normal(size=(3, 2, 5000)).astype(np.float32)
    assert signals.time_stretch(y, 2.0).shape == (3, 2, 2500)
    assert signals.time_stretch(y, (0.5, 2.0), seed=1).shape == y.shape
    with pytest.warns(UserWarning, match="n_fft=2048 is too large"):
        assert signals.pitch_shift(y[0, 0, :1], 72, sr=8000).shape == (1,)
    assert signals.time_stretch(y[0, 0, :1], 64.0).shape == (0,)
    faster = signals.time_stretch(y, (2.0, 2.0), seed=1)
    assert np.array_equal(faster[..., :2500], signals.time_stretch(y, 2.0))
    assert not faster[..., 2500:].any()


def test_phase_vocoder_is_librosas(rng):
    librosa = pytest.importorskip("librosa", reason="librosa is the oracle of this test")
    D = (rng.normal(size=(2, 65, 40)) + 1j * rng.normal(size=(2, 65, 40))).astype(np.complex64)
    for rate in (0.3, 1.0, 2.7):
        for options in ({}, {"hop_length": 20}, {"n_fft": 129, "hop_length": 7}):
            expected = librosa.phase_vocoder(D.astype(np.complex128), rate=rate, **options)
            got = signals.phase_vocoder(D, rate=rate, **options)
            assert got.shape == expected.shape
            assert np.max(np.abs(got - expected)) <= 2e-6 * np.abs(expected).max()


# -- chance ----------------------------------------------------------------------------------------------------------

DRAWN = {
    "gain": lambda y, **seed: signals.gain(y, (-12, 3), **seed),
    "noise": lambda y, **seed: signals.noise(y, (0, 20), **seed),
    "pink": lambda y, **seed: signals.noise(y, (0, 20), color="pink", **seed),
    "time_shift": lambda y, **seed: signals.time_shift(y, (-500, 500), **seed),
    "time_stretch": lambda y, **seed: signals.time_stretch(y, (0.7, 1.4), n_fft=256, **seed),
    "pitch_shift": lambda y, **seed: signals.pitch_shift(y, (-5, 5), sr=8000, n_fft=256, **seed),
}


@pytest.mark.parametrize("change", DRAWN.values(), ids=DRAWN)
def test_one_seed_one_result(batch, change):
    same = np.tile(batch[0], (4, 1, 1))
    whole = change(same, seed=7)
    assert np.array_equal(change(same, seed=7), whole)
    for i in range(4):  # whatever else is in the batch
        assert np.array_equal(change(same[i], seed=7, index=i), whole[i])
    assert len({sound.tobytes() for sound in whole}) == 4  # each sound by itself
    assert not np.array_equal(change(same, seed=8), whole)
    assert not np.array_equal(change(same), change(same))


def test_the_stream_is_the_one_documented():
    """Philox as its authors define it: the words of one block, in Python's integers."""
    seed, index, stream = 123, 4, 1
    counter, key, mask = [1, 0, 0, stream], [seed, index], 2**64 - 1  # numpy counts before it draws
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
        counter = [(b >> 64) ^ counter[1] ^ key[0], b & mask, (a >> 64) ^ counter[3] ^ key[1], a & mask]
        key = [(key[0] + 0x9E3779B97F4A7C15) & mask, (key[1] + 0xBB67AE8584CAA73B) & mask]
    coin = (counter[0] >> 11) * 2.0**-53
    got = signals.gain(np.ones(1), (-10, 10), seed=seed, index=index)
    assert got[0] == np.float32(10 ** ((-10 + 20 * coin) / 20))


def test_functions_with_one_seed_do_not_draw_alike():
    y = np.ones((200, 1, 1000), np.float32)
    gains = signals.gain(y, (0, 1), seed=3)[:, 0, 0]
    shifts = np.argmax(signals.time_shift(y, (0, 999), seed=3)[:, 0] > 0, axis=-1)
    assert abs(np.corrcoef(gains, shifts)[0, 1]) < 0.3
    assert 0 <= shifts.min() < 50
    assert 950 < shifts.max() <= 999


def test_both_ends_of_a_range_of_samples_are_drawn():
    y = np.zeros((300, 1, 5), np.float32)
    y[..., 2] = 1
    places = np.argmax(signals.time_shift(y, (-2, 2), seed=1)[:, 0], axis=-1)
    assert sorted(set(places.tolist())) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda y: signals.gain(y, (3, -3), seed=1), ValueError, r"db: expected a range \(low, high\)"),
        (lambda y: signals.gain(y, (1, 2, 3)), ValueError, "db: expected a number or a range"),
        (lambda y: signals.gain(y, np.nan), ValueError, "db"),
        (lambda y: signals.gain(y, "loud"), TypeError, "db"),
        (lambda y: signals.gain(y, 500), ValueError, "db: .*400"),
        (lambda y: signals.gain(y + 1e30, 300), ValueError, "gain: expected a result that float32 can hold"),
        (lambda y: signals.gain(y, 0, seed=-1), ValueError, "seed: expected 0 to 18446744073709551615"),
        (lambda y: signals.gain(y, 0, seed=1.5), TypeError, "seed"),
        (lambda y: signals.gain(y, 0, index=-1), ValueError, "index"),
        (lambda y: signals.noise(y, 3, color="brown"), ValueError, "color: expected one of 'white', 'pink'"),
        (lambda y: signals.time_shift(y, 0.5), TypeError, "samples"),
        (lambda y: signals.time_shift(y, (5, 2)), ValueError, "samples: expected a range"),
        (lambda y: signals.time_shift(y, 1, mode="roll"), ValueError, "mode"),
        (lambda y: signals.time_stretch(y, 0), ValueError, "rate: expected a finite number >= 0.015625"),
        (lambda y: signals.time_stretch(y, (2, 1)), ValueError, "rate: expected a range"),
        (lambda y: signals.time_stretch(y, 1.5, hop_length=0), ValueError, "hop_length"),
        (lambda y: signals.pitch_shift(y, 80, sr=8000), ValueError, "n_steps: .*72"),
        (lambda y: signals.pitch_shift(y, 1, sr=0), ValueError, "sr"),
        (lambda y: signals.pitch_shift(y, 1, sr=1, res_type="x"), ValueError, "res_type"),
        (lambda y: signals.phase_vocoder(y, rate=1, n_fft=9), ValueError, "D: expected 5 bins with n_fft=9"),
        (lambda y: signals.phase_vocoder(y[0], rate=1), ValueError, r"D: expected shape \(..., bins, frames\)"),
        (lambda y: signals.normalize(y, measure="lufs"), ValueError, "measure: expected one of 'peak', 'rms'"),
        (lambda y: signals.trim(y, frame_length=0), ValueError, "frame_length"),
        (lambda y: signals.trim(y, hop_length=-1), ValueError, "hop_length"),
        (lambda y: signals.trim(y, top_db=np.nan), ValueError, "top_db"),
    ],
)
def test_arguments_out_of_range(call, error, message):
    with pytest.raises(error, match=message):
        call(np.zeros((2, 3000), np.float32))


# -- the door --------------------------------------------------------------------------------------------------------

FUNCTIONS = {
    "resample": lambda y: audio.resample(y, orig_sr=2, target_sr=1),
    "to_mono": signals.to_mono,
    "normalize": signals.normalize,
    "trim": lambda y: signals.trim(y)[0],
    "split": signals.split,
    "mix": lambda y: signals.mix([y]),
    **{name: lambda y, change=change: change(y, seed=1) for name, change in DRAWN.items()},
}
EVERY = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


@EVERY
def test_R19_any_layout(rng, function):
    y = rng.normal(size=(2, 3000)).astype(np.float32)
    before = y.copy()
    expected = function(y)
    frozen = y.copy()
    frozen.setflags(write=False)
    misaligned = np.frombuffer(b"\0" + y.tobytes(), np.uint8)[1:].view(np.float32).reshape(y.shape)
    strided = np.repeat(y, 2, axis=1)[:, ::2]
    for other in (y.astype(np.float64), strided, y[:, ::-1].copy()[:, ::-1], y.astype(">f4"), frozen, misaligned,
                  np.asfortranarray(y)):  # fmt: skip
        assert np.array_equal(function(other), expected)
    assert np.array_equal(y, before)
    assert not np.may_share_memory(expected, y)


@EVERY
def test_R20_R21_other_types(function):
    for wrong in (np.zeros(9, np.int16), np.zeros(9, bool), np.zeros(9, complex), np.array(["a"]), [[1.0], [1.0, 2.0]],
                  None, np.ma.masked_array(np.zeros(9)), np.zeros(9, object)):  # fmt: skip
        with pytest.raises(TypeError, match=r"^ys?(\[0\])?: "):
            function(wrong)


@EVERY
def test_R22_nan_and_infinity(function):
    for bad in (np.nan, np.inf, 1e300):
        y = np.zeros((2, 9))
        y[1, 4] = bad
        with pytest.raises(ValueError, match=r"got 1 that is not, .* at index \(1, 4\)"):
            function(y)


@EVERY
def test_R23_shapes(function):
    for wrong in (np.zeros(0), np.zeros((2, 0)), np.zeros((0, 5)), np.float64(1)):
        with pytest.raises(ValueError, match=r"^ys?(\[0\])?: expected"):
            function(wrong)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "n_fft=256 is too large")
        assert function(np.ones(1)) is not None


@EVERY
@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e30])
def test_R26_huge_and_tiny_sounds(rng, function, scale):
    assert np.isfinite(function((scale * rng.normal(size=3000)).astype(np.float32))).all()


def test_R26_faint_sounds_are_stretched_alike_and_not_slowly(rng):
    y = rng.normal(size=100_000).astype(np.float32)
    stretched = signals.time_stretch(y, 1.1)
    np.testing.assert_array_equal(signals.time_stretch(np.ldexp(y, -80), 1.1), np.ldexp(stretched, -80))
    assert not signals.time_stretch(np.zeros_like(y), 1.1).any()
    pairs = []
    for _ in range(5):  # in turns, so that a busy machine is busy for both; the best pair counts
        times = []
        for sound in (y, y * np.float32(1e-40)):
            begun = time.process_time()
            signals.time_stretch(sound, 1.1)
            times.append(time.process_time() - begun)
        pairs.append(times[1] / times[0])
    assert min(pairs) < 2


@pytest.mark.parametrize(
    "call",
    [
        "signals.noise(y, 10.0, seed=1)",
        "audio.resample(y, orig_sr=44_100, target_sr=48_000)",
        "signals.time_stretch(y[0], 1.1)",
    ],
)
def test_R39_ctrl_c_ends_a_long_call(ctrl_c, call):
    before = "from musicgen_ext import audio, signals; y = np.ones((6, 1_000_000), np.float32)"
    assert ctrl_c(before, call) < 1  # 0.1 s on a machine of one's own
