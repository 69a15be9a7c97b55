"""What is heard of a sound, and how well simple models foretell it: known tones, known mistakes, proper likelihoods."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import musicgen_ext as mg
from musicgen_ext import cli, evaluate, weights
from musicgen_ext.encodings import NotesToSound, Sound
from musicgen_ext.midi import Score, Track

SR = 8_000


def tone(hertz: float, seconds: float, sr: int = SR, partials: int = 4) -> Any:
    t = np.arange(int(seconds * sr)) / sr
    parts = [np.sin(2 * np.pi * hertz * k * t) / k for k in range(1, partials + 1) if hertz * k < sr / 2]
    return (0.2 * np.sum(parts, axis=0)).astype(np.float32)


# -- pitch -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hertz", [65.4, 110.0, 261.63, 440.0, 987.8])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_yin_finds_known_tones(hertz: float, noise: float, rng: np.random.Generator) -> None:
    y = tone(hertz, 0.5) + (noise * rng.normal(size=SR // 2)).astype(np.float32)
    found = evaluate.yin(y, sr=SR)
    # The parabola through three lags misses the minimum by a share of a sample that grows with the frequency.
    np.testing.assert_array_less(np.abs(1200 * np.log2(found.hertz / hertz)), 25)
    assert (found.aperiodicity < 0.1).all()
    assert len(found.times) == len(found.hertz)
    assert 0 < found.times[0] < found.times[-1] < 0.5
    np.testing.assert_allclose(np.diff(found.times), 0.01)


def test_yin_knows_what_has_no_pitch(rng: np.random.Generator) -> None:
    noise = evaluate.yin((0.1 * rng.normal(size=SR)).astype(np.float32), sr=SR)
    assert np.median(noise.aperiodicity) > 0.6
    silence = evaluate.yin(np.zeros(SR, np.float32), sr=SR)
    assert (silence.aperiodicity >= 1).all()
    assert np.isfinite(silence.hertz).all()
    assert len(evaluate.yin(np.zeros(10, np.float32), sr=SR).times) == 0


def test_yin_takes_the_fundamental_even_where_it_is_missing() -> None:
    t = np.arange(SR // 2) / SR
    y = sum(np.sin(2 * np.pi * 150 * k * t) for k in (2, 3, 4)) / 5
    found = evaluate.yin(y.astype(np.float32), sr=SR)
    np.testing.assert_allclose(found.hertz, 150, rtol=5e-3)


def test_yin_follows_a_glide() -> None:
    t = np.arange(SR) / SR
    hertz = 200 * 2.0**t  # an octave a second
    y = 0.3 * np.sin(2 * np.pi * np.cumsum(hertz) / SR)
    found = evaluate.yin(y.astype(np.float32), sr=SR)
    np.testing.assert_allclose(12 * np.log2(found.hertz / (200 * 2.0**found.times)), 0, atol=0.3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"y": np.zeros((2, 100), np.float32)}, "one channel"),
        ({"fmin": 0}, "fmin"),
        ({"fmin": 2_000.0}, "fmin"),
        ({"fmax": 100.0}, "fmax"),
        ({"fmax": float("nan")}, "fmax"),
        ({"sr": 0}, "sr"),
        ({"hop_length": -1}, "hop_length"),
        ({"y": np.array([0, np.nan], np.float32)}, "y"),
    ],
)
def test_yin_refuses(options: dict[str, Any], words: str) -> None:
    arguments: dict[str, Any] = {"y": np.zeros(1_000, np.float32), "sr": SR, **options}
    with pytest.raises(ValueError, match=words):
        evaluate.yin(arguments.pop("y"), **arguments)


def test_yin_agrees_with_librosa() -> None:
    """pYIN, another estimator of the same family, on a melody with vibrato and a breath of noise."""
    librosa = pytest.importorskip("librosa")
    rng = np.random.default_rng(3)
    hertz = np.repeat(440 * 2 ** (np.array([0, 2, -5, 7, 4]) / 12), SR // 2)
    hertz = hertz * 2 ** (0.3 / 12 * np.sin(2 * np.pi * 5 * np.arange(len(hertz)) / SR))
    phase = 2 * np.pi * np.cumsum(hertz) / SR
    y = (0.2 * (np.sin(phase) + np.sin(2 * phase) / 2) + 0.005 * rng.normal(size=len(phase))).astype(np.float32)
    theirs, voiced, _ = librosa.pyin(y, fmin=110, fmax=1_500, sr=SR, frame_length=512, hop_length=80)
    times = librosa.times_like(theirs, sr=SR, hop_length=80)
    ours = evaluate.yin(y, sr=SR, fmin=110, fmax=1_500, hop_length=80)
    there = np.interp(times, ours.times, 69 + 12 * np.log2(ours.hertz / 440))
    inside = voiced & (times > 0.05) & (times < 2.45) & (np.abs((times + 0.25) % 0.5 - 0.25) > 0.05)
    assert inside.sum() > 150
    np.testing.assert_allclose(there[inside], 69 + 12 * np.log2(theirs[inside] / 440), atol=0.25)


# -- renderings ------------------------------------------------------------------------------------------------------

NOTES = np.array([[0, 0.5, 60, 80], [0.5, 1.0, 64, 80], [1.5, 2.0, 67, 80], [2.0, 2.5, 72, 80]], float)


def played(pitches: Any, rest: float = 0.0) -> Any:
    """The notes of `NOTES`, with other pitches, and half a second of rest."""
    y = np.full(int(3 * SR), rest, np.float32)
    for (start, end, _, _), pitch in zip(NOTES, pitches, strict=True):
        part = tone(440 * 2 ** ((pitch - 69) / 12), end - start)
        y[int(start * SR) : int(start * SR) + len(part)] = part
    return y


def test_a_faithful_rendering_is_heard_as_one() -> None:
    heard = evaluate.hear(played([60, 64, 67, 72]), SR, NOTES)
    assert (heard.notes, heard.in_tune) == (4, 4)
    assert np.abs(heard.semitones).max() < 0.1
    assert heard.level.shape == heard.noise.shape == (3,)
    assert np.nanmax(heard.noise) < 0.02
    assert heard.rests == -120  # nothing at all
    np.testing.assert_allclose(heard.level[0], 10 * np.log10(np.mean(played([60, 64, 67, 72])[:SR] ** 2)), atol=1e-3)


def test_wrong_notes_octaves_and_silence_are_told_apart(rng: np.random.Generator) -> None:
    y = played([60, 65, 79, 72.3])
    y[2 * SR :] = 0
    heard = evaluate.hear(y, SR, NOTES)
    assert heard.in_tune == 1
    np.testing.assert_allclose(heard.semitones[:3], [0, 1, 12], atol=0.2)  # the last has periods of five samples
    assert math.isnan(heard.semitones[3])
    report = evaluate.rendering_report({"x": heard})
    assert (report["in_tune"], report["octaves"], report["unheard"]) == (0.25, 0.25, 0.25)
    assert report["lines"]["x"]["in_tune"] == 1
    assert "4 notes: 25.0 % within half a semitone" in evaluate.format_rendering(report)
    json.dumps(report, allow_nan=False)


def test_noise_that_runs_away_shows(rng: np.random.Generator) -> None:
    y = played([60, 64, 67, 72])
    noise = (0.3 * rng.normal(size=len(y))).astype(np.float32)
    noise[: 2 * SR] = 0
    heard = evaluate.hear(y + noise, SR, NOTES)
    assert heard.noise[0] < 0.02
    assert heard.noise[2] > 0.5
    assert heard.level[2] > heard.level[0] + 3


def test_what_does_not_reach_a_note_does_not_count_it() -> None:
    assert evaluate.hear(played([60, 64, 67, 72])[: int(1.2 * SR)], SR, NOTES).notes == 2
    empty = evaluate.hear(np.zeros(100, np.float32), SR, np.zeros((0, 4)))
    assert (empty.notes, empty.in_tune) == (0, 0)
    report = evaluate.rendering_report({"x": empty})
    assert report["in_tune"] is None
    assert "none within" in evaluate.format_rendering(report)
    json.dumps(evaluate.rendering_report({}), allow_nan=False)


# -- simple models of sound ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sounds() -> list[Any]:
    """Tones with a little noise, as tokens."""
    rng = np.random.default_rng(11)
    made = []
    for hertz in range(200, 460, 25):
        y = tone(hertz, 1.0) + (0.002 * rng.normal(size=SR)).astype(np.float32)
        made.append(mg.mu_law_encode(y))
    return made


def test_likelihoods_are_proper(sounds: list[Any]) -> None:
    """Over all classes that the next sample can have, the probabilities sum to 1."""
    for likelihood in (evaluate.Counting(sounds, 256), evaluate.LinearPrediction(sounds, 256)):
        for n in (1, 2, 40):
            before = sounds[0][: n - 1]
            last = [likelihood.log_prob(np.append(before, k).astype(np.int32))[-1] for k in range(256)]
            np.testing.assert_allclose(np.exp(last).sum(), 1, rtol=1e-9)


def resonance(n: int, a: float, b: float, seed: int) -> Any:
    """Noise through two poles, as tokens: y[t] = a y[t - 1] + b y[t - 2] + noise."""
    noise = 0.015 * np.random.default_rng(seed).normal(size=n)
    y = np.zeros(n)
    for t in range(2, n):
        y[t] = a * y[t - 1] + b * y[t - 2] + noise[t]
    assert np.abs(y).max() < 1
    return mg.mu_law_encode(y.astype(np.float32))


def test_linear_prediction_knows_more_of_the_past_than_counting() -> None:
    """Of a resonance, two samples tell -log2(1 - b^2) / 2 = 1.7 bits more than one."""
    training, held_out = [resonance(60_000, 1.9, -0.95, 1)], [resonance(5_000, 1.9, -0.95, 2)]
    counting = evaluate.bits_per_sample(map(evaluate.Counting(training, 256).log_prob, held_out))
    linear = evaluate.bits_per_sample(map(evaluate.LinearPrediction(training, 256).log_prob, held_out))
    assert 1.4 < counting - linear < 2.2
    assert counting < 7.5


def test_counting_counts() -> None:
    tokens = np.array([1, 2, 1, 2, 1, 3] * 50, np.int32)
    model = evaluate.Counting([tokens], 4)
    found = np.exp([model.log_prob(np.array([1, k], np.int32))[1] for k in range(4)])
    np.testing.assert_allclose(found, [0, 0, 2 / 3, 1 / 3], atol=0.02)
    assert evaluate.bits_per_sample([np.log([0.5, 0.25]), np.log([0.125])]) == pytest.approx(2)


def test_linear_prediction_finds_the_weights(sounds: list[Any]) -> None:
    """Those of an autoregression; silence and empty sounds are no trouble."""
    model = evaluate.LinearPrediction([resonance(40_000, 1.6, -0.8, 5)], 256, order=4)
    np.testing.assert_allclose(model.weights, [1.6, -0.8, 0, 0], atol=0.05)
    quiet = evaluate.LinearPrediction([np.full(100, 128, np.int32), np.zeros(0, np.int32)], 256)
    assert np.isfinite(quiet.log_prob(sounds[0])).all()
    assert len(quiet.log_prob(np.zeros(0, np.int32))) == 0


# -- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_sound_model: Any) -> Path:
    monkeypatch.chdir(tmp_path)
    weights.write("m.safetensors", make_sound_model(NotesToSound(4_000, 40, 55, 79)))
    weights.write("free.safetensors", make_sound_model(Sound(4_000)))
    score = Score([(0, 480, 60), (480, 480, 64), (0, 960, 57)], tracks=[Track("Flute", 73)])
    score.save("x.mid")
    for name in ("x", "y"):
        mg.Audio(tone(262 if name == "x" else 330, 0.4, 4_000), 4_000).save(f"{name}.wav")
    (tmp_path / "bad.mid").write_bytes(b"nonsense")
    return tmp_path


def test_cli_evaluate_rendering(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", "rendering", "m.safetensors", "--scores", "x.mid", "--length", "0.8 s"]
    assert cli.main(command) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert "within half a semitone" in out
    assert "x.mid Flute, line 0: " in out
    assert cli.main([*command, "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["notes"] == 3
    assert set(report["lines"]) == {"x.mid Flute, line 0", "x.mid Flute, line 1"}
    assert cli.main([*command, "--json", "--seed", "5", "--temperature", "0.5"]) == 0
    assert json.loads(capfd.readouterr().out) != report


def test_cli_evaluate_audio(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "audio", "free.safetensors", "x.wav", "y.wav", "--train", "x.wav", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["seconds"] == 0.8
    names = ["free.safetensors", "first-order counting", "linear prediction, order 32"]
    assert list(found["bits_per_sample"]) == names
    loaded = mg.load("free.safetensors")
    expected = evaluate.bits_per_sample([loaded.log_prob(name) for name in ("x.wav", "y.wav")])
    assert found["bits_per_sample"][names[0]] == pytest.approx(expected)
    assert cli.main(["evaluate", "audio", "m.safetensors", "x.wav"]) == 1  # two lines
    assert "one line" in capfd.readouterr().err
    Score([(0, 480, 60)], tracks=[Track("Flute", 73)]).save("x.mid")
    assert cli.main(["evaluate", "audio", "m.safetensors", "x.wav"]) == 0
    assert "0.4 s of sound, bits per sample:" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["rendering"], 2, "expected one MODEL and --scores"),
        (["rendering", "m.safetensors"], 2, "expected one MODEL and --scores"),
        (["rendering", "free.safetensors", "--scores", "x.mid"], 1, "expected a model that plays scores"),
        (["rendering", "chorale", "--scores", "x.mid"], 1, "expected a model of sound"),
        (["rendering", "m.safetensors", "--scores", "bad.mid"], 1, "0 of 1 scores played, 1 failed"),
        (["rendering", "m.safetensors", "--scores", "x.mid", "--length", "2 bars"], 2, "length"),
        (["audio", "free.safetensors"], 2, "expected MODEL FILE"),
        (["audio", "free.safetensors", "none.wav"], 1, "0 of 1 files read, 1 failed"),
        (["audio", "free.safetensors", "x.wav", "--train", "bad.mid"], 1, "bad.mid: "),
        (["audio", "m.safetensors", "y.wav"], 1, "0 of 1 files read, 1 failed"),
        (["jsb16", "m.safetensors", "--data", "none.npz"], 1, "none.npz"),
    ],
    ids=range(11),
)
def test_R47_cli_refuses(
    arguments: list[str], code: int, words: str, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sorted(os.listdir())
    assert cli.main(["evaluate", *arguments]) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert words in err.splitlines()[-1]
    assert "fault of musicgen-ext" not in err
    assert sorted(os.listdir()) == before
