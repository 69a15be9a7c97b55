"""Models of sound from the front door: one seed, one sound; told of scores; in blocks, with prompts; refusing well."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import musicgen_ext as mg
from musicgen_ext import cli, evaluate, generate, model, weights
from musicgen_ext.encodings import NotesToSound, Sound
from musicgen_ext.errors import WeightsError
from musicgen_ext.midi import Score, Track
from musicgen_reference import wavenet as reference

RATE, HOP = 4_000, 40
NOTES = NotesToSound(RATE, HOP, 55, 79, ("plain", "bright"))
MU_LAW = {"kind": "mu_law", "classes": 256}
LOGISTICS = {"kind": "logistics", "mixtures": 3}


@pytest.fixture(scope="module")
def flute(make_sound_model: Any) -> mg.SoundModel:
    """Told of notes."""
    return mg.SoundModel(make_sound_model())


@pytest.fixture(scope="module")
def free(make_sound_model: Any) -> mg.SoundModel:
    """Told nothing."""
    return mg.SoundModel(make_sound_model(Sound(RATE)))


@pytest.fixture(scope="module")
def fine(make_sound_model: Any) -> mg.SoundModel:
    """Of 16 bits."""
    return mg.SoundModel(make_sound_model(Sound(RATE), LOGISTICS))


@pytest.fixture(params=["flute", "free", "fine"])
def any_model(request: pytest.FixtureRequest) -> Any:
    """Each of them, and what it needs to be told."""
    return request.getfixturevalue(request.param), {"score": MELODY} if request.param == "flute" else None


def score_of(*notes: Any, names: tuple[str, ...] = ("Flute",)) -> Score:
    """A quarter note is half a second, 480 ticks."""
    return Score(list(notes), tracks=[Track(name, 73) for name in names])


MELODY = score_of((0, 96, 60), (96, 192, 64), (384, 96, 67))
DUET = score_of((0, 192, 72, 90, 0), (192, 192, 74, 90, 0), (0, 384, 60, 90, 1), names=("Soprano", "Alto"))


# -- one seed, one sound ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["mu_law", "logistics"])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.6}, {"top_k": 9}, {"top_p": 0.7}, {"temperature": 0}])
def test_the_samples_are_those_of_the_reference(which: str, options: dict[str, Any], make_sound_model: Any) -> None:
    """In double precision, with the same coins: none of them lies so near the edge of a token that rounding decides."""
    if which == "logistics" and not set(options) <= {"temperature"}:
        pytest.skip("classes only")
    file = make_sound_model(output=MU_LAW if which == "mu_law" else LOGISTICS)
    loaded, n = mg.SoundModel(file), 300
    twin = reference.WaveNet(file.config, file.tensors)
    frames = NOTES.frames(NOTES.lines(MELODY)[0], NOTES.num_frames(n) + 2)
    coins = generate.Coins(4, [0]).take(n, 1 if which == "mu_law" else 2)[0]
    tokens, log_probs = twin.sample(coins, frames.T, **options)
    got = loaded.sample(condition={"score": MELODY}, seed=4, length=f"{n} samples", **options)
    if which == "mu_law":
        np.testing.assert_array_equal(got.y, mg.mu_law_decode(tokens))
        # Logits of about 10, an eps each from sums of up to 120 products of single precision. Worst seen: 1.7e-6.
        np.testing.assert_allclose(loaded.log_prob(got, condition={"score": MELODY}), log_probs, atol=1e-5)
    else:  # rounding may move a sample to the next of the steps of 3.05e-5, and this one those after it. Worst seen: 1.
        np.testing.assert_allclose(got.y, reference.sample_value(tokens), atol=4 / 65_535)


def test_R38_one_seed_one_sound(any_model: Any) -> None:
    loaded, condition = any_model
    sound = loaded.sample(condition=condition, seed=3, length=0.2)
    assert isinstance(sound, mg.Audio)
    assert sound.y.shape == (800,)
    assert sound.sr == loaded.sample_rate == RATE
    assert np.abs(sound.y).max() <= 1
    assert loaded.sample(condition=condition, seed=3, length=0.2) == sound
    assert loaded.sample(condition=condition, seed=4, length=0.2) != sound


def test_R38_sound_i_does_not_depend_on_the_batch(any_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, condition = any_model
    sounds = loaded.sample(condition=condition, seed=3, length=0.1, num_samples=5)
    assert [sound.provenance["index"] for sound in sounds] == list(range(5))
    assert len({sound.y.tobytes() for sound in sounds}) == 5
    assert loaded.sample(condition=condition, seed=3, length=0.1) == sounds[0]
    monkeypatch.setattr(model.sound, "_BATCH", 2)
    assert loaded.sample(condition=condition, seed=3, length=0.1, num_samples=5) == sounds


@pytest.mark.parametrize("chunk", [1, 39, 40, 41, 333])
def test_R38_the_size_of_a_call_does_not_matter(chunk: int, any_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, condition = any_model
    sound = loaded.sample(condition=condition, seed=3, length="500 samples")
    monkeypatch.setattr(model.sound, "_CHUNK", chunk)
    assert loaded.sample(condition=condition, seed=3, length="500 samples") == sound
    log_probs = loaded.log_prob(sound, condition=condition)
    monkeypatch.undo()
    np.testing.assert_array_equal(loaded.log_prob(sound, condition=condition), log_probs)


@pytest.mark.parametrize("block", [1, 100, 1024])
def test_R38_stream_is_sample(block: int, any_model: Any) -> None:
    loaded, condition = any_model
    sound = loaded.sample(condition=condition, seed=5, length="700 samples", temperature=0.9)
    blocks = list(loaded.stream(condition=condition, seed=5, length="700 samples", temperature=0.9, block=block))
    assert [len(part) for part in blocks[:-1]] == [block] * (len(blocks) - 1)
    assert all(part.dtype == np.float32 for part in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks), sound.y)


@pytest.mark.parametrize("cores", [1, 2, 5])
def test_R38_the_number_of_threads_does_not_matter(cores: int, flute: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sounds = flute.sample(condition={"score": DUET}, seed=5, num_samples=2, length=0.1)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert flute.sample(condition={"score": DUET}, seed=5, num_samples=2, length=0.1) == sounds
    alone = [flute.sample(condition={"score": DUET, "voices": voice}, seed=5, length=0.1).y for voice in (0, "soprano")]
    np.testing.assert_array_equal(alone[0], alone[1])


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
def test_R38_on_every_isa_in_every_precision(
    storage: Any, on_every_isa: Any, tmp_path: Path, make_sound_model: Any
) -> None:
    path = tmp_path / "m.safetensors"
    weights.write(path, make_sound_model(storage=storage))
    assert mg.load(path).info["weights"] == storage
    sounds = on_every_isa(lambda: mg.sample(path, condition={"score": MELODY}, seed=1, length=0.2))
    assert all(sound == sounds["baseline"] for sound in sounds.values())


def test_a_shorter_sound_is_the_beginning_of_a_longer_one(flute: Any) -> None:
    long = flute.sample(condition={"score": MELODY}, seed=2, length="900 samples")
    for n in (1, 39, 40, 41, 555):
        short = flute.sample(condition={"score": MELODY}, seed=2, length=f"{n} samples")
        np.testing.assert_array_equal(short.y, long.y[:n])


def test_voices_alone_are_the_parts_of_the_mix(flute: Any) -> None:
    mix = flute.sample(condition={"score": DUET}, seed=2)
    parts = [flute.sample(condition={"score": DUET, "voices": voice}, seed=2).y for voice in ("Soprano", 1)]
    assert parts[0].shape == mix.y.shape
    assert not np.array_equal(parts[0], parts[1])
    np.testing.assert_allclose(mix.y, (parts[0].astype(float) + parts[1]) / 2, atol=1e-7)
    for every in (["alto", 0], (voice for voice in ("alto", "soprano")), np.array([0, 1])):
        both = flute.sample(condition={"score": DUET, "voices": every}, seed=2)
        np.testing.assert_array_equal(both.y, mix.y)
        assert len(both.provenance["condition"]["voices"]) == 2
        both.to_wav()  # the record can be written
    one = flute.sample(condition={"score": DUET, "voices": np.int64(1)}, seed=2)
    np.testing.assert_array_equal(one.y, parts[1])


def test_lines_are_played_together_as_alone(flute: Any, free: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chord = score_of((0, 96, 60), (0, 192, 67), (0, 384, 72))
    lines = [*NOTES.lines(DUET), *NOTES.lines(chord)]
    sounds = flute.play(lines, seed=2, style="bright")
    assert [len(sound.y) for sound in sounds] == [round(RATE * (line.notes[-1, 1] + 0.5)) for line in lines]
    for track in (0, 1):
        alone = flute.sample(condition={"score": DUET, "voices": track, "style": "bright"}, seed=2)
        np.testing.assert_array_equal(sounds[track].y, alone.y[: len(sounds[track].y)])
    assert sounds[3].provenance["line"] == 1
    monkeypatch.setattr(model.sound, "_TOGETHER", 2)
    again = flute.play(lines, seed=2, style="bright", length="800 samples")
    for one, other in zip(sounds, again, strict=True):
        np.testing.assert_array_equal(one.y[:800], other.y)
    assert flute.play([]) == []
    with pytest.raises(ValueError, match="a model that plays notes"):
        free.play(lines)


def test_without_a_seed_every_sound_is_new_and_can_be_made_again(free: Any) -> None:
    first, second = free.sample(length=0.1), free.sample(length=0.1)
    assert first != second
    assert free.sample(length=0.1, seed=first.provenance["seed"]) == first


# -- length ----------------------------------------------------------------------------------------------------------


def test_lengths(flute: Any, free: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(free.sample(length=0.05).y) == len(free.sample(length="0.05 s").y) == 200
    assert len(free.sample(length="123 samples").y) == len(free.sample(length="123 steps").y) == 123
    # The score ends with tick 480, at half a second; half a second more is its tail.
    assert len(flute.sample(condition={"score": MELODY}).y) == 4_000
    assert len(flute.sample(condition={"score": DUET, "voices": "alto"}).y) == round(4_000 * (0.4 + 0.5))
    frames = np.zeros((7, NOTES.num_channels), np.float32)
    assert len(flute.sample(condition={"frames": frames}).y) == 7 * HOP
    monkeypatch.setattr(model.sound, "DEFAULT_SECONDS", 0.1)
    assert len(free.sample().y) == 400
    assert len(free.sample(prompt=np.zeros(33, np.float32)).y) == 433


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"length": "16 bars"}, r'length: expected a number and one of s, samples \("4 s"\), got .16 bars'),
        ({"length": 0}, "length: expected more than 0, got 0"),
        ({"length": -1.0}, "length"),
        ({"length": float("nan")}, "length"),
        ({"length": 2.0**40}, "length: expected at most 86400 seconds"),
        ({"length": f"{2**40} samples"}, "length: expected at most 86400 seconds"),
        ({"temperature": float("nan")}, "temperature: .*got nan"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_k": 0}, r"top_k: .*\[1, 256\], got 0"),
        ({"top_k": 257}, r"top_k: .*\[1, 256\], got 257"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": float("nan")}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"num_samples": 0}, "num_samples"),
        ({"device": "tpu"}, "device"),
    ],
)
def test_R36_values_out_of_range(free: Any, arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        free.sample(**arguments)
    if "num_samples" not in arguments:
        with pytest.raises(ValueError, match=words):  # at once, not with the first block
            free.stream(**arguments)


def test_R36_sixteen_bits_are_not_filtered(fine: Any) -> None:
    with pytest.raises(ValueError, match=r"top_k: expected None for a model that draws 16 bits .* got 5"):
        fine.sample(top_k=5)
    with pytest.raises(ValueError, match="top_p: expected 1 for a model"):
        fine.sample(top_p=0.9)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"length": [1]}, "length"),
        ({"temperature": "hot"}, "temperature"),
        ({"seed": 1.5}, "seed"),
        ({"condition": 5}, "condition: expected a dict, got int"),
        ({"prompt": np.zeros(5, np.int16)}, "prompt"),
        ({"prompt": object()}, "prompt"),
    ],
)
def test_R36_wrong_types(free: Any, arguments: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        free.sample(**arguments)


def test_R37_extremes_stay_sound(any_model: Any) -> None:
    loaded, condition = any_model
    for temperature in (0, 1e-30, 1e30):
        sound = loaded.sample(condition=condition, temperature=temperature, length="50 samples", seed=1)
        assert np.isfinite(sound.y).all()
        assert np.abs(sound.y).max() <= 1
    greedy = [loaded.sample(condition=condition, temperature=0, length="50 samples", seed=s) for s in (1, 2)]
    np.testing.assert_array_equal(greedy[0].y, greedy[1].y)
    empty = loaded.sample(condition=condition, prompt=np.zeros(0, np.float32), length="50 samples", seed=1)
    assert empty == loaded.sample(condition=condition, length="50 samples", seed=1)


# -- conditions ------------------------------------------------------------------------------------------------------


def test_conditions_are_listed(flute: Any, free: Any) -> None:
    assert list(flute.info["conditions"]) == ["score", "voices", "style", "frames"]
    assert flute.info["conditions"]["style"] == ["plain", "bright"]
    assert "from 55 to 79" in flute.info["conditions"]["score"]
    assert free.info["conditions"] == {}
    for loaded in (flute, free):
        assert loaded.info["sample_rate"] == RATE
        assert loaded.info["lengths"] == ["s", "samples"]
        assert loaded.info["arch"] == "wavenet"


def test_a_score_comes_in_many_forms(flute: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.mid"
    MELODY.save(path)
    expected = flute.sample(condition={"score": MELODY}, seed=1, length=0.1)
    for form in (path, str(path), MELODY.to_bytes()):
        np.testing.assert_array_equal(flute.sample(condition={"score": form}, seed=1, length=0.1).y, expected.y)
    pytest.importorskip("pretty_midi")
    got = flute.sample(condition={"score": MELODY.to_pretty_midi()}, seed=1, length=0.1)
    np.testing.assert_array_equal(got.y, expected.y)


def test_frames_of_a_score_are_the_score(flute: Any) -> None:
    expected = flute.sample(condition={"score": MELODY, "style": "bright"}, seed=1)
    frames = NOTES.frames(NOTES.lines(MELODY)[0], NOTES.num_frames(len(expected.y)) + 2, style="bright")
    got = flute.sample(condition={"frames": frames}, seed=1, length=f"{len(expected.y)} samples")
    np.testing.assert_array_equal(got.y, expected.y)
    assert not np.array_equal(flute.sample(condition={"score": MELODY}, seed=1).y, expected.y)  # the plain style


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (None, "condition: expected 'score' or 'frames' for this model, got None"),
        ({}, "condition: expected 'score' or 'frames'"),
        ({"voices": "all"}, r"condition: expected 'score' or 'frames' for this model, got \['voices'\]"),
        ({"notes": 1}, r"condition: expected names out of \['score', 'voices', 'style', 'frames'\], got 'notes'"),
        ({"score": DUET, "voices": "tenor"}, r"voices: .*0 \('Soprano'\), 1 \('Alto'\), got 'tenor'"),
        ({"score": DUET, "style": "harsh"}, "style: expected one of plain, bright, got 'harsh'"),
        ({"score": score_of((0, 96, 60), (480, 96, 80))}, r"from 55 \(G3\) to 79 \(G5\).*got 80 .*at 0\.50 s"),
        ({"score": Score([(0, 96, 60)], tracks=[Track("Kit", is_drum=True)])}, "got drums in track 0"),
        ({"score": Score()}, "expected notes, got none"),
        ({"score": MELODY, "frames": np.zeros((9, 31), np.float32)}, "expected 'frames' alone, got 'score'"),
        ({"frames": np.zeros((9, 30), np.float32)}, r"condition\['frames'\]: .*31 channels, got 30"),
        ({"frames": np.zeros(31, np.float32)}, r"condition\['frames'\]: .*got shape \(31,\)"),
        ({"frames": np.zeros((0, 31), np.float32)}, "at least 1 frame, got 0"),
        ({"frames": np.zeros((10, 31), np.float32)}, r"condition\['frames'\]: expected at least 13 frames .*got 10"),
        ({"frames": np.full((20, 31), np.nan)}, "finite|NaN"),
    ],
    ids=range(15),
)
def test_R36_conditions(flute: Any, condition: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        flute.sample(condition=condition, length="500 samples")


def test_R36_conditions_of_another_model(free: Any) -> None:
    with pytest.raises(ValueError, match=r"condition: expected names out of \[\], got 'score'"):
        free.sample(condition={"score": MELODY})
    assert free.sample(condition={}, seed=1, length=0.01) == free.sample(seed=1, length=0.01)


# -- prompts ---------------------------------------------------------------------------------------------------------


def test_the_result_begins_with_the_prompt(any_model: Any, tmp_path: Path) -> None:
    loaded, condition = any_model
    sound = loaded.sample(condition=condition, seed=6, length="600 samples")
    going_on = loaded.sample(condition=condition, seed=6, length="600 samples", prompt=sound.y[:250])
    np.testing.assert_array_equal(going_on.y, sound.y)  # the same state, then the same coins
    other = mg.Audio(np.sin(np.arange(100, dtype=np.float32) / 5) * 0.3, RATE)
    other.save(tmp_path / "p.wav", subtype="FLOAT")
    results = [
        loaded.sample(condition=condition, seed=6, length="600 samples", prompt=prompt)
        for prompt in (other, other.y, other.y[None], tmp_path / "p.wav", str(tmp_path / "p.wav"))
    ]
    assert all(result == results[0] for result in results)
    np.testing.assert_array_equal(results[0].y[:100], other.y)
    assert not np.array_equal(results[0].y[100:], sound.y[100:])
    assert results[0].provenance["prompt"]["samples"] == 100
    streamed = loaded.stream(condition=condition, seed=6, length="600 samples", prompt=other, block=64)
    np.testing.assert_array_equal(np.concatenate(list(streamed)), results[0].y)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (mg.Audio(np.zeros(10, np.float32), 16_000), r"prompt: .*4000 Hz, got 16000 Hz; use prompt\.resample\(4000\)"),
        (np.zeros((2, 10), np.float32), r"prompt: expected one channel, .*got shape \(2, 10\)"),
        (np.full(10, 1.5, np.float32), r"prompt: expected samples in \[-1, 1\], got 1\.5"),
        (np.array([0, np.nan], np.float32), "prompt: "),
        (np.zeros(500, np.float32), "length: .*longer than the prompt's 500 samples, got 500"),
    ],
)
def test_prompts_that_do_not_fit(free: Any, prompt: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        free.sample(prompt=prompt, length="500 samples")


def test_a_prompt_is_one_voice(flute: Any) -> None:
    with pytest.raises(ValueError, match="prompt: expected none where 2 lines are mixed"):
        flute.sample(condition={"score": DUET}, prompt=np.zeros(10, np.float32))
    with pytest.raises(ValueError, match="prompt: expected a result longer than the prompt's 9000 samples, got 4000"):
        flute.sample(condition={"score": MELODY}, prompt=np.zeros(9_000, np.float32))


# -- streams ---------------------------------------------------------------------------------------------------------


def test_a_stream_draws_nothing_ahead(flute: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    sample = generate.WaveNetEngine.sample

    def spy(self: Any, n_steps: int, **options: Any) -> Any:
        drawn.append(n_steps)
        return sample(self, n_steps, **options)

    monkeypatch.setattr(generate.WaveNetEngine, "sample", spy)
    blocks = flute.stream(condition={"score": MELODY}, length=3_600, block=50)
    assert not drawn
    next(blocks)
    next(blocks)
    assert drawn == [50, 50]
    blocks.close()
    assert list(blocks) == []


def test_an_hour_takes_no_more_memory_than_a_second(flute: Any) -> None:
    """Of an hour's frames, 45 MB, and coins, 115 MB, only those of a block exist."""
    ticks = 960 * np.arange(3_600)
    hour = Score(np.stack([ticks, np.full(3_600, 900), np.full(3_600, 65)], axis=1).tolist(), tracks=[Track("Flute")])
    peaks = {}
    for length in (1, 3_600):
        tracemalloc.start()
        blocks = flute.stream(condition={"score": hour}, length=length, block=400)
        for _ in range(5):
            next(blocks)
        peaks[length] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[3_600] < 1.2 * peaks[1] + (1 << 16)


# -- what the model thinks -------------------------------------------------------------------------------------------


def test_log_prob_is_a_distribution(flute: Any, fine: Any) -> None:
    """Over all that the next sample can be, the probabilities sum to 1."""
    rng = np.random.default_rng(8)
    before = rng.integers(0, 256, 40)
    last = [flute.log_prob(np.append(before, k), condition={"score": MELODY})[-1] for k in range(256)]
    np.testing.assert_allclose(np.exp(last).sum(), 1, rtol=1e-5)
    sound = fine.sample(seed=1, length="30 samples")
    log_probs = fine.log_prob(sound)
    assert log_probs.dtype == np.float64
    assert (log_probs < 0).all()
    assert len(fine.log_prob(np.zeros(0, np.float32))) == 0


def test_log_prob_of_its_own_sound_is_higher_than_of_noise(any_model: Any) -> None:
    loaded, condition = any_model
    own = loaded.sample(condition=condition, seed=1, length="800 samples")
    noise = np.random.default_rng(0).uniform(-1, 1, 800).astype(np.float32)
    assert loaded.log_prob(own, condition=condition).mean() > loaded.log_prob(noise, condition=condition).mean() + 0.3


def test_log_prob_tells_the_phase_of_the_sound_itself(make_sound_model: Any) -> None:
    """Of one that is sharp; what `sample` tells is what the notes say."""
    encoding = NotesToSound(RATE, HOP, 55, 79, features=("onset", "phase"))
    loaded = mg.SoundModel(make_sound_model(encoding))
    line = encoding.lines(MELODY)[0]
    seconds = np.arange(2_000) / RATE
    sharp = (0.5 * np.cos(2 * np.pi * 440 * 2 ** ((60.3 - 69) / 12) * seconds)).astype(np.float32)
    heard = loaded.log_prob(sharp, condition={"score": MELODY})
    phases = encoding.phases(mg.mu_law_decode(loaded.tokens(sharp)), line)
    count = encoding.num_frames(2_000)
    frames = encoding.frames(line, count, phase=phases)
    assert np.abs(frames - encoding.frames(line, count)).max() > 0.5
    edge = 2_000 - 2 * HOP  # beyond, frames that are given end, and notes go on
    np.testing.assert_array_equal(heard[:edge], loaded.log_prob(sharp, condition={"frames": frames})[:edge])


def test_log_prob_refuses(flute: Any, tmp_path: Path) -> None:
    mg.Audio(np.zeros(10, np.float32), 8_000).save(tmp_path / "x.wav")
    for audio, condition, words in (
        (tmp_path / "x.wav", {"score": MELODY}, r"audio: .*4000 Hz, got 8000 Hz"),
        (np.zeros(10, np.float32), {"score": DUET}, "condition: expected one line .* got 2"),
        (np.zeros(10, np.float32), None, "condition: expected 'score' or 'frames'"),
        (np.array([256]), {"score": MELODY}, r"audio: expected \[0, 255\], got 256 at sample 0"),
        (np.zeros((2, 2), int), {"score": MELODY}, r"shape \(n,\), got \(2, 2\)"),
        (np.zeros(100, np.float32), {"frames": np.zeros((2, 31), np.float32)}, "at least 3 frames .* got 2"),
    ):
        with pytest.raises(ValueError, match=words):
            flute.log_prob(audio, condition=condition)


# -- files -----------------------------------------------------------------------------------------------------------


def test_provenance_is_in_the_file(flute: Any, tmp_path: Path) -> None:
    sound = flute.sample(condition={"score": DUET, "voices": ["soprano"], "style": "bright"}, seed=9, length="0.1 s")
    record = sound.provenance
    assert record["seed"] == 9
    assert record["length"] == "0.1 s"
    assert record["condition"]["voices"] == ["soprano"]
    assert record["condition"]["style"] == "bright"
    assert record["condition"]["score"]["notes"] == 3
    sound.save(tmp_path / "x.wav")
    again = mg.read_audio(tmp_path / "x.wav")
    assert again.provenance == record
    np.testing.assert_allclose(again.y, sound.y, atol=1 / 32_768)


def test_load_and_sample_know_the_kind(tmp_path: Path, make_sound_model: Any) -> None:
    path = tmp_path / "m.safetensors"
    weights.write(path, make_sound_model(storage="int8"))
    loaded = mg.load(path)
    assert isinstance(loaded, mg.SoundModel)
    assert isinstance(loaded, mg.Model)
    assert mg.load(loaded) is loaded
    assert repr(loaded).startswith("<Model 'm.safetensors': wavenet, ")
    options: Any = {"condition": {"score": MELODY}, "seed": 2, "length": 0.1}
    assert mg.sample(path, **options) == loaded.sample(**options) == mg.sample(loaded, **options)
    assert mg.sample(path, num_samples=2, **options)[0] == loaded.sample(**options)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.encoding.update(name="wave"), "encoding.name: .*got 'wave'"),
        (
            lambda f: f.encoding.update(sample_rate=8_000),
            "encoding.sample_rate: expected 4000 as in .* got 8000",
        ),
        (lambda f: f.encoding.update(hop_length=80), "encoding.hop_length: expected 40 as in the config, got 80"),
        (lambda f: f.encoding.update(high=78), "encoding.channels: expected 31 as in the config, got 30"),
        (lambda f: f.encoding.clear(), "encoding.name"),
        (lambda f: f.config.update(dilations=[0]), r"config.dilations\[0\]"),
        (lambda f: f.config.update(dilations=[1] * 10**5), "config.dilations: .*100000 entries"),
        (lambda f: f.config.update(dilations=[1]), "unexpected .*layers.1"),
        (lambda f: f.tensors.pop("skip.bias"), "missing .*skip.bias"),
        (lambda f: setattr(f, "arch", "recurrent"), "config: expected keys"),
    ],
    ids=range(10),
)
def test_R33_a_model_that_does_not_fit_itself(change: Any, words: str, tmp_path: Path, make_sound_model: Any) -> None:
    file = make_sound_model()
    change(file)
    path = tmp_path / "m.safetensors"
    weights.write(path, file)
    with pytest.raises(WeightsError, match=words) as caught:
        mg.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_R33_notes_for_a_model_that_is_told_nothing(make_sound_model: Any) -> None:
    with pytest.raises(WeightsError, match=r"encoding\.name: expected 'sound' for a model without a condition"):
        mg.SoundModel(make_sound_model(condition=None))


def test_R27_frames_are_copied(flute: Any) -> None:
    frames = NOTES.frames(NOTES.lines(MELODY)[0], 20)
    expected = flute.sample(condition={"frames": frames}, seed=1)
    blocks = flute.stream(condition={"frames": frames}, seed=1, block=100)
    frames[:] = 0
    np.testing.assert_array_equal(np.concatenate(list(blocks)), expected.y)


def test_frames_for_a_model_that_knows_no_notes(make_sound_model: Any) -> None:
    condition = {"channels": 2, "width": 3, "kernel_size": 1, "hop_length": 7}
    loaded = mg.SoundModel(make_sound_model(Sound(RATE), condition=condition))
    assert list(loaded.info["conditions"]) == ["frames"]
    frames = np.random.default_rng(0).normal(size=(10, 2))
    assert len(loaded.sample(condition={"frames": frames}, seed=1).y) == 70
    with pytest.raises(ValueError, match="condition: expected 'frames' for this model"):
        loaded.sample()


# -- threads and processes -------------------------------------------------------------------------------------------


def test_R41_one_model_in_two_threads(flute: Any) -> None:
    def draw(seed: int) -> Any:
        return flute.sample(condition={"score": DUET}, seed=seed, length=0.1)

    expected = [draw(seed) for seed in range(4)]
    results: dict[int, list[Any]] = {}

    def work(which: int) -> None:
        results[which] = [draw(seed) for seed in (range(4) if which else reversed(range(4)))]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[1] == expected
    assert results[0] == expected[::-1]


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_R42_a_model_is_pickled_whole(storage: Any, tmp_path: Path, make_sound_model: Any) -> None:
    path = tmp_path / "m.safetensors"
    weights.write(path, make_sound_model(storage=storage))
    loaded = mg.load(path)
    again = pickle.loads(pickle.dumps(loaded))
    path.unlink()
    options: Any = {"condition": {"score": MELODY}, "seed": 2, "length": 0.1}
    assert again.sample(**options) == loaded.sample(**options)
    assert again.info == loaded.info


def _in_child(loaded: Any, queue: Any) -> None:
    queue.put(loaded.sample(condition={"score": DUET}, seed=6, num_samples=2, length=0.1))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork with threads, said from Python 3.12 on
def test_R42_results_in_a_child_process(flute: Any) -> None:
    expected = flute.sample(condition={"score": DUET}, seed=6, num_samples=2, length=0.1)
    context: Any = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(flute, queue))
    child.start()
    try:
        assert queue.get(timeout=60) == expected
    finally:
        child.join(10)
    assert child.exitcode == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_R42_fork_while_another_thread_samples(flute: Any) -> None:
    expected = flute.sample(condition={"score": DUET}, seed=6, length=0.1)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            flute.sample(condition={"score": DUET}, seed=1, length=0.2)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                os._exit(0 if flute.sample(condition={"score": DUET}, seed=6, length=0.1) == expected else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("voices", ["all", "soprano"])
def test_R40_exit_with_work_in_a_daemon_thread(voices: str, make_sound_model: Any, tmp_path: Path) -> None:
    weights.write(tmp_path / "m.safetensors", make_sound_model())
    DUET.save(tmp_path / "duet.mid")
    code = (
        "import sys, threading, time\n"
        "import musicgen_ext as mg\n"
        "model, condition = mg.load(sys.argv[1]), {'score': sys.argv[2], 'voices': sys.argv[3]}\n"
        "threading.Thread(target=lambda: model.sample(condition=condition, length=3600), daemon=True).start()\n"
        "time.sleep(0.3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "m.safetensors", tmp_path / "duet.mid", voices],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("score", [MELODY, DUET], ids=["one line", "two lines"])
def test_R39_ctrl_c_ends_a_long_call(score: Score, flute: Any) -> None:
    before = flute.sample(condition={"score": score}, seed=1, length=0.1)
    sent = []

    def interrupt() -> None:
        time.sleep(0.3)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        flute.sample(condition={"score": score}, seed=1, length=3_600)
    delay = time.perf_counter() - sent[0]
    thread.join()
    assert delay < 1.0  # below 0.1 s on an idle machine; a busy one is given a second
    assert flute.sample(condition={"score": score}, seed=1, length=0.1) == before


def test_progress_is_silent_without_a_terminal(free: Any, capfd: pytest.CaptureFixture[str]) -> None:
    free.sample(num_samples=2, length=0.01, progress=True)
    assert capfd.readouterr() == ("", "")


# -- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_sound_model: Any) -> Path:
    """A folder with a model, a score and a sound."""
    monkeypatch.chdir(tmp_path)
    weights.write("m.safetensors", make_sound_model())
    weights.write("free.safetensors", make_sound_model(Sound(RATE)))
    DUET.save("duet.mid")
    mg.Audio(np.sin(np.arange(100, dtype=np.float32) / 5) * 0.3, RATE).save("p.wav", subtype="FLOAT")
    return tmp_path


def test_cli_sample_writes_what_sample_returns(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["sample", "m.safetensors", "-c", "score=duet.mid", "-o", "x.wav", "--seed", "7", "-c", "style=bright"]
    assert cli.main(command) == 0
    assert capfd.readouterr() == ("x.wav: 0.9 s at 4000 Hz, seed 7\n", "")
    expected = mg.sample("m.safetensors", condition={"score": "duet.mid", "style": "bright"}, seed=7)
    found = mg.read_audio("x.wav")
    assert found == mg.Audio(found.y, RATE, provenance=expected.provenance)
    np.testing.assert_allclose(found.y, expected.y, atol=1 / 32_768)


def test_cli_sample_of_some_voices(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for voices, same in (("soprano", ["soprano"]), ("0,Alto", "all"), ("all", "all"), ("1", "alto")):
        command = ["sample", "m.safetensors", "-c", "score=duet.mid", "--voices", voices, "-o", "x.wav", "--force"]
        assert cli.main([*command, "--length", "0.2 s", "--seed", "7"]) == 0
        expected = mg.sample("m.safetensors", condition={"score": DUET, "voices": same}, seed=7, length="0.2 s")
        np.testing.assert_allclose(mg.read_audio("x.wav").y, expected.y, atol=1 / 32_768)


def test_cli_sample_several_going_on_from_a_sound(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["sample", "free.safetensors", "-n", "2", "--prompt", "p.wav", "--length", "300 samples", "--seed", "7"]
    assert cli.main(command) == 0
    expected = mg.sample("free.safetensors", num_samples=2, prompt="p.wav", length="300 samples", seed=7)
    for i, sound in enumerate(expected):
        np.testing.assert_allclose(mg.read_audio(f"free-{i}.wav").y, sound.y, atol=1 / 32_768)


def test_cli_sample_of_frames(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    frames = NOTES.frames(NOTES.lines(MELODY)[0], 20)
    np.save("f.npy", frames)
    assert cli.main(["sample", "m.safetensors", "-c", "frames=f.npy", "-o", "x.wav", "--seed", "1"]) == 0
    expected = mg.sample("m.safetensors", condition={"frames": frames}, seed=1)
    np.testing.assert_allclose(mg.read_audio("x.wav").y, expected.y, atol=1 / 32_768)


def test_cli_the_chain_from_notes_to_sound(
    here: Path, chorale_file: Path, capfd: pytest.CaptureFixture[str], make_sound_model: Any
) -> None:
    low = mg.SoundModel(make_sound_model(NotesToSound(RATE, HOP, 24, 96)))
    weights.write("low.safetensors", low._file)
    assert cli.main(["sample", str(chorale_file), "-o", "c.mid", "--length", "1 bars", "--seed", "3"]) == 0
    assert cli.main(["sample", "low.safetensors", "-c", "score=c.mid", "-o", "c.wav", "--seed", "3"]) == 0
    record = mg.read_audio("c.wav").provenance
    assert record["condition"]["score"]["provenance"]["seed"] == 3  # how the notes were made is known, too


def test_cli_to_standard_output(here: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert cli.main(["sample", "free.safetensors", "-o", "-", "--length", "50 samples", "--seed", "1"]) == 0
    out, err = capfdbinary.readouterr()
    assert out[:4] == b"RIFF"
    assert b"standard output: 0.0 s at 4000 Hz, seed 1" in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-o", "x.mid"], 2, "x.mid: expected a name in .wav, .flac, .ogg, .aiff (this model makes sound)"),
        (["-o", "x.wav", "--plot", "x.png"], 2, "--plot: expected a model of notes"),
        (["-o", "x.wav"], 2, "condition: expected 'score' or 'frames' for this model, got None"),
        (["-o", "x.wav", "-c", "score=none.mid"], 1, "none.mid: "),
        (["-o", "x.wav", "-c", "score=p.wav"], 1, "p.wav: "),
        (["-o", "x.wav", "-c", "score=duet.mid", "--voices", "oboe"], 2, "got 'oboe'"),
        (["-o", "x.wav", "-c", "score=duet.mid", "-c", "style=loud"], 2, "style: expected one of plain, bright"),
        (["-o", "x.wav", "-c", "score=duet.mid", "--length", "2 bars"], 2, "length: expected a number and one of s"),
        (["-o", "x.wav", "-c", "frames=p.wav"], 1, "p.wav: expected an array of numbers in .npy form"),
        (["-o", "x.wav", "--soprano", "duet.mid"], 2, "condition: expected names out of"),
        (["-o", "p.wav", "-c", "score=duet.mid"], 1, "p.wav: exists already"),
        (["-o", "x.wav", "-c", "score=duet.mid", "--prompt", "none.wav", "--voices", "0"], 1, "none.wav: "),
    ],
    ids=range(12),
)
def test_R47_cli_refuses(
    arguments: list[str], code: int, words: str, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sorted(os.listdir())
    assert cli.main(["sample", "m.safetensors", *arguments]) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert words in err.splitlines()[-1]
    assert sorted(os.listdir()) == before


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and terminals")
def test_R47_interrupted(here: Path) -> None:
    pty = pytest.importorskip("pty")
    leader, follower = pty.openpty()
    arguments = ["sample", "m.safetensors", "-c", "score=duet.mid", "--length", "3600 s", "-o", "x.wav"]
    above = str(Path(mg.__file__).parents[1])
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", "musicgen_ext", *arguments],
            stdout=subprocess.PIPE, stderr=follower, env={**os.environ, "PYTHONPATH": above},
        )  # fmt: skip
        shown = b""
        while b"sampling" not in shown:  # the bar says that the work has begun
            shown += os.read(leader, 1 << 16)
        child.send_signal(signal.SIGINT)
        out = child.communicate(timeout=60)[0]
        os.write(follower, b"\0")  # so that there is something to read, whatever was said
        while b"\0" not in shown:
            shown += os.read(leader, 1 << 16)
    finally:
        os.close(leader)
        os.close(follower)
    assert (child.returncode, out) == (130, b"")
    assert shown.endswith(b"interrupted\r\n\0")
    assert b"Traceback" not in shown
    assert "x.wav" not in os.listdir()


def test_cli_info(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "m.safetensors"]) == 0
    out = capfd.readouterr().out
    for line in ("arch: wavenet", "sample_rate: 4000", 'lengths: ["s", "samples"]', '  style: ["plain", "bright"]'):
        assert line in out


# -- the model in the wheel ------------------------------------------------------------------------------------------

needs_bundled = pytest.mark.skipif("flute" not in model.models(), reason="the bundled model is not in this tree")


@needs_bundled
def test_bundled_flute_plays_in_tune() -> None:
    info = mg.load("flute").info
    assert info["bytes"] <= 4 << 20
    assert info["licence"]
    assert info["training_data"]
    assert info["metrics"]
    pitches = (67, 69, 71, 72, 74, 71, 67, 62, 64, 67)
    score = score_of(*((480 * i, 480, pitch, 80) for i, pitch in enumerate(pitches)))
    sound = mg.sample("flute", condition={"score": score}, seed=1)
    assert sound == mg.sample("flute", condition={"score": score}, seed=1)
    assert sound.duration == pytest.approx(5.5, abs=1e-3)
    heard = evaluate.hear(sound.y, sound.sr, NotesToSound(sound.sr, 80).lines(score)[0].notes)
    assert heard.in_tune >= 9


@needs_bundled
def test_bundled_flute_on_every_isa(on_every_isa: Any) -> None:
    sounds = on_every_isa(lambda: mg.sample("flute", condition={"score": MELODY}, seed=7, length=0.1))
    assert all(sound == sounds["baseline"] for sound in sounds.values())
