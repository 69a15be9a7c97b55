"""Training on sound: the WaveNet module against the plain one, its likelihoods, crops, and whole runs."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training extra is not installed")

import musicgen_ext as mg  # noqa: E402
from musicgen_ext import train, weights  # noqa: E402
from musicgen_ext.architectures import WaveNetConfig  # noqa: E402
from musicgen_ext.train import recipes, sound, tasks  # noqa: E402
from musicgen_ext.train.models.wavenet import log_logistics  # noqa: E402
from musicgen_reference.wavenet import WaveNet as PlainWaveNet  # noqa: E402

RATE, HOP = 2_000, 10
NOTES = {"low": 60, "high": 64, "features": ["onset", "ending", "release", "velocity"]}
EPS = float(np.finfo(np.float32).eps)


def config_of(*, output=None, condition=None, kernel_size=2, dilations=(1, 2, 4, 1, 8), channels=6):
    return WaveNetConfig.from_dict(
        {
            "sample_rate": RATE,
            "residual_channels": channels,
            "skip_channels": 7,
            "hidden_channels": 9,
            "dilations": list(dilations),
            "kernel_size": kernel_size,
            "output": output or {"kind": "mu_law", "classes": 32},
            "condition": condition,
        }
    )


TOLD = {"channels": 9, "width": 4, "kernel_size": 3, "hop_length": HOP}
CONFIGS = {
    "mu_law": config_of(),
    "told": config_of(condition=TOLD),
    "kernel 3": config_of(condition=TOLD, kernel_size=3),
    "logistics": config_of(output={"kind": "logistics", "mixtures": 3}, condition=TOLD),
}


def module_of(config, seed=0):
    torch.manual_seed(seed)
    module = train.WaveNet(config)
    with torch.no_grad():
        for parameter in module.parameters():  # larger than at the start of training, so that every part matters
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return module


def samples_of(config, rng, shape):
    if config.output.kind == "mu_law":
        return torch.from_numpy(rng.integers(0, config.output.classes, shape))
    return torch.from_numpy(rng.uniform(-1, 1, shape).astype(np.float32))


def frames_of(config, rng, batch, count):
    if config.condition is None:
        return None
    return torch.from_numpy(rng.normal(size=(batch, config.frames(count), 9)).astype(np.float32))


def melody(rng, seconds, rate=RATE):
    """A line of sine tones and its score."""
    notes, start = [], 0
    while start < seconds:
        length = float(rng.uniform(0.1, 0.25))
        notes.append((round(960 * start), round(960 * length), int(rng.integers(60, 65)), 100))
        start += length
    score = mg.Score(notes, ticks_per_quarter=480)  # 120 a minute: 960 ticks a second
    t = np.arange(round(seconds * rate)) / rate
    y = np.zeros(len(t))
    for start, length, pitch, _ in notes:
        inside = (t >= start / 960) & (t < (start + length) / 960)
        y[inside] = 0.5 * np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * t[inside])
    return mg.Audio(y.astype(np.float32), rate), score


def folder_of(path, rng, count=6, seconds=1.0, notes=True):
    for i in range(count):
        audio, score = melody(rng, seconds)
        path.mkdir(parents=True, exist_ok=True)
        audio.save(path / f"take {i}.wav")
        if notes:
            score.save(path / f"take {i}.mid")
    return path


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# -- the module --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_the_module_has_the_tensors_of_its_configuration(name):
    shapes = {key: tuple(value.shape) for key, value in train.WaveNet(CONFIGS[name]).state_dict().items()}
    assert shapes == CONFIGS[name].tensor_shapes()


@pytest.mark.parametrize("name", CONFIGS)
def test_module_against_the_plain_one(rng, name):
    """Twin: logits within 64 eps of the largest, sample by sample in float64 against all at once in float32."""
    config = CONFIGS[name]
    module, count = module_of(config), 45
    samples, frames = samples_of(config, rng, (1, count)), frames_of(config, rng, 1, count)
    with torch.no_grad():
        got = module(module.before(samples), frames)[0].numpy()
    plain = PlainWaveNet(config.to_dict(), {k: v.numpy() for k, v in module.state_dict().items()})
    rows = None if frames is None else plain.condition_rows(frames[0].numpy().T)
    for t in range(count):
        want = plain.step(None if rows is None else rows[:, t // HOP])
        assert np.abs(got[t] - want).max() <= 64 * EPS * np.abs(want).max()
        value = samples[0, t].item()
        plain.push(value if config.output.kind == "mu_law" else round((value + 1) * 32767.5))
        if config.output.kind == "logistics":  # what the plain one heard is the nearest of 16 bits
            samples[0, t] = 2 * round((value + 1) * 32767.5) / 65535 - 1
            with torch.no_grad():
                got = module(module.before(samples), frames)[0].numpy()


@pytest.mark.parametrize("name", CONFIGS)
def test_what_comes_later_changes_nothing_before(rng, name):
    config = CONFIGS[name]
    module, count, place = module_of(config), 60, 33
    samples, frames = samples_of(config, rng, (2, count)), frames_of(config, rng, 2, count)
    other = samples.clone()
    other[:, place:] = samples_of(config, rng, (2, count - place))
    with torch.no_grad():
        one, two = (module(module.before(s), frames) for s in (samples, other))
    assert torch.equal(one[:, : place + 1], two[:, : place + 1])
    assert not torch.equal(one[:, place + 1], two[:, place + 1])


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("start", [0, 3, 25, 40])
def test_a_crop_is_predicted_as_in_the_whole(rng, name, start):
    config = CONFIGS[name]
    module, count = module_of(config), 20
    y = rng.uniform(-1, 1, 70).astype(np.float32)
    table = rng.normal(size=(7, 9)).astype(np.float32)
    told = None if config.condition is None else lambda first, count: table[first : first + count]
    recording = sound.Recording("r", y, told)
    data = sound.SoundCorpus(encoding={}, train=[recording], valid=[])
    with torch.no_grad():
        device = torch.device("cpu")
        whole = tasks.wavenet._nats_of(module, data.cut(config, recording, 0, 70), device)
        part = tasks.wavenet._nats_of(module, data.cut(config, recording, start, count), device)
    assert len(whole) == 70
    assert len(part) == count
    np.testing.assert_allclose(part, whole[start : start + count], rtol=1e-5, atol=1e-5)


def test_frames_too_few_or_of_other_channels_are_refused(rng):
    module = module_of(CONFIGS["told"])
    previous = torch.zeros(1, 31, dtype=torch.int64)
    with pytest.raises(ValueError, match="expected frames for 31 samples, got 3 of 10"):
        module(previous, torch.zeros(1, 3, 9))
    with pytest.raises(ValueError, match=r"expected \(B, F, 9\), got \(1, 4, 8\)"):
        module(previous, torch.zeros(1, 4, 8))
    with pytest.raises(ValueError, match="no local condition"):
        module_of(CONFIGS["mu_law"])(previous, torch.zeros(1, 4, 9))


def test_dropout_acts_in_training_only(rng):
    config = CONFIGS["mu_law"]
    torch.manual_seed(0)
    module = train.WaveNet(config, 0.5)
    previous = samples_of(config, rng, (1, 20))
    assert not torch.equal(module(previous), module(previous))
    module.eval()
    assert torch.equal(module(previous), module(previous))
    with pytest.raises(ValueError, match="dropout: expected a probability"):
        train.WaveNet(config, 1.0)


# -- the mixture of logistics ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_scale", [-13.0, -9.0, -4.0, 1.0])
def test_logistics_are_a_distribution_over_16_bits(rng, log_scale):
    """A fine scale is a difference of nearly equal sums, a coarse one reaches over both ends."""
    outputs = torch.tensor([[0.3, -0.2, 0.9, -0.4, *([log_scale] * 2)]], dtype=torch.float32)
    levels = torch.from_numpy((np.arange(65_536) * 2.0 / 65_535 - 1.0).astype(np.float32))
    log_p = log_logistics(outputs.expand(65_536, 6), levels).double()
    assert float(torch.logsumexp(log_p, 0)) == pytest.approx(0.0, abs=2e-3)


def test_logistics_against_the_definition_in_float64(rng):
    outputs = rng.normal(size=(500, 6)) * [1, 1, 0.5, 0.5, 1, 1] + [0, 0, 0, 0, -5, -5]
    levels = rng.integers(0, 65_536, 500)
    levels[:4] = [0, 0, 65_535, 65_535]
    x = 2.0 * levels / 65_535 - 1.0
    mix = np.exp(outputs[:, :2]) / np.exp(outputs[:, :2]).sum(1, keepdims=True)
    s = np.exp(-outputs[:, 4:])

    def cdf(edge):
        return 1 / (1 + np.exp(-np.clip((edge[:, None] - outputs[:, 2:4]) * s, -700, 700)))

    upper = np.where(levels[:, None] == 65_535, 1.0, cdf(x + 1 / 65_535))
    lower = np.where(levels[:, None] == 0, 0.0, cdf(x - 1 / 65_535))
    p = (mix * (upper - lower)).sum(1)
    got = log_logistics(torch.from_numpy(outputs.astype(np.float32)), torch.from_numpy(x.astype(np.float32))).numpy()
    kept = p > 1e-9  # below, the difference in float64 is rounding
    assert kept.sum() > 100
    np.testing.assert_allclose(got[kept], np.log(p[kept]), rtol=2e-3, atol=2e-3)


# -- data --------------------------------------------------------------------------------------------------------------


def test_every_sample_is_learnt_from_once_an_epoch(rng):
    lengths = [1, 40, 41, 99]
    data = sound.SoundCorpus(
        encoding={}, train=[sound.Recording(str(n), np.zeros(n, np.float32)) for n in lengths], valid=[], crop=20
    )
    counts = [np.zeros(n, int) for n in lengths]
    places = sound.crops_of(data, rng)
    assert len(places) == data.crops_per_epoch
    for number, start in dict.fromkeys(places):  # some are drawn again to make epochs of one length
        counts[number][max(0, start) : start + 20] += 1
    assert all((c == 1).all() for c in counts)


def test_noise_is_heard_and_not_predicted(rng):
    y = rng.uniform(-1, 1, 5000).astype(np.float32)
    data = sound.SoundCorpus(encoding={}, train=[sound.Recording("r", y)], valid=[])
    for config in (CONFIGS["mu_law"], config_of(output={"kind": "logistics", "mixtures": 3})):
        crop = data.cut(config, 0, 0, 5000)
        heard = sound.with_noise(crop, config.output.classes, 2.0, rng)
        assert torch.equal(heard.samples, crop.samples)
        assert heard.previous.dtype == crop.previous.dtype
        off = (heard.previous - crop.previous).double()
        assert 0 < float(off.std()) <= 2.2 * (1 if config.output.classes else 1 / 128)
        assert sound.with_noise(crop, config.output.classes, 0.0, rng) is crop


def test_dither_is_heard_and_predicted(rng):
    data = sound.SoundCorpus(
        encoding={}, train=[sound.Recording("r", np.zeros(5000, np.float32))], valid=[], dither=0.01
    )
    config = config_of(output={"kind": "logistics", "mixtures": 3})
    crop = data.cut(config, 0, 0, 5000, rng)
    assert torch.equal(crop.previous[1:], crop.samples[:-1])
    assert float(crop.samples.std()) == pytest.approx(0.01, rel=0.1)
    assert not data.cut(config, 0, 0, 5000).samples.any()  # not where likelihood is measured
    for name, value in (("noise", -1), ("dither", float("nan"))):
        with pytest.raises(ValueError, match=f"data.{name}: expected a number in"):
            sound.sounds(".", **{name: value})


def test_a_folder_of_recordings(rng, tmp_path):
    folder_of(tmp_path / "data", rng)
    data = sound.sounds(tmp_path / "data", sample_rate=RATE, hop_length=HOP, valid_share=0.34, **NOTES)
    assert [r.name for r in data.train] == ["take 0.wav", "take 1.wav", "take 3.wav", "take 4.wav"]
    assert [r.name for r in data.valid] == ["take 2.wav", "take 5.wav"]
    assert data.encoding["name"] == "notes_to_sound"
    frames = data.train[0].frames(0, 200)
    assert frames.shape == (200, 9)
    np.testing.assert_allclose(frames[:, :5].sum(1), 1)  # one pitch sounds all the time
    without = sound.sounds(tmp_path / "data", sample_rate=RATE, notes=False)
    assert without.train[0].frames is None
    assert without.encoding == {"name": "sound", "sample_rate": RATE}


def test_folders_are_splits_and_styles(rng, tmp_path):
    for split in ("train", "valid", "test"):
        for style in ("flute", "organ"):
            folder_of(tmp_path / split / style, rng, count=1, seconds=0.3)
    data = sound.sounds(tmp_path, sample_rate=RATE, hop_length=HOP, **NOTES)
    assert data.encoding["styles"] == ["flute", "organ"]
    assert [len(s) for s in (data.train, data.valid, data.test)] == [2, 2, 2]
    assert data.train[0].frames(0, 60)[:, -2:].tolist() == [[1, 0]] * 60
    assert data.train[1].frames(0, 60)[:, -2:].tolist() == [[0, 1]] * 60


def test_the_network_is_told_the_phase_that_is_in_the_recording(rng, tmp_path):
    """Of a line that is 20 cents too high, to a hundredth of a period once a note has begun."""
    score = melody(rng, 1.0)[1]
    table = mg.encodings.NotesToSound(16_000, 8, features=("phase",))
    line = table.lines(score)[0]
    t = np.arange(16_000) / 16_000
    y = np.zeros(16_000)
    for start, end, pitch, _ in line.notes:
        inside = (t >= start) & (t < end)
        turns = 440 * 2 ** ((pitch + 0.2 - 69) / 12) * (t[inside] - start) + 0.3
        y[inside] = np.cos(2 * np.pi * turns) + 0.8 * np.cos(4 * np.pi * turns + 1) + 0.2
    sharp = mg.Audio((0.3 * y).astype(np.float32), 16_000)
    sharp.save(tmp_path / "a.wav")
    score.save(tmp_path / "a.mid")
    sharp.save(tmp_path / "b.wav")
    score.save(tmp_path / "b.mid")
    data = sound.sounds(tmp_path)
    frames = data.train[0].frames(0, 2000)
    assert data.encoding["features"][-1] == "phase"
    middle = (np.arange(2000) + 0.5) * 8 / 16_000
    checked = 0
    for start, end, pitch, _ in line.notes:
        inside = (middle > start + 0.02) & (middle < min(end, 1.0) - 0.02)
        turns = 440 * 2 ** ((pitch + 0.2 - 69) / 12) * (middle[inside] - start) + 0.3
        off = np.angle(np.exp(2j * np.pi * turns) / (frames[inside, -1] + 1j * frames[inside, -2])) / (2 * np.pi)
        assert np.abs(off).max() < 0.01
        checked += inside.sum()
    assert checked > 1000


@pytest.mark.parametrize("what", ["few", "no notes", "chord", "pitch", "empty"])
def test_bad_folders_are_refused_by_name(rng, tmp_path, what):
    folder_of(tmp_path, rng, count=1 if what == "few" else 3, seconds=0.3)
    if what == "no notes":
        (tmp_path / "take 1.mid").unlink()
        message = "take 1.wav: expected the notes beside it, take 1.mid"
    elif what == "chord":
        mg.Score([(0, 400, 60, 9), (0, 400, 64, 9)], ticks_per_quarter=480).save(tmp_path / "take 1.mid")
        message = "take 1.mid: expected one note at a time, got 2 voices"
    elif what == "pitch":
        mg.Score([(0, 400, 30, 9)], ticks_per_quarter=480).save(tmp_path / "take 1.mid")
        message = "take 1.mid: .*expected pitches from 60"
    elif what == "empty":
        mg.Audio(np.zeros(0, np.float32), RATE).save(tmp_path / "take 1.wav")
        message = "take 1.wav: expected sound"
    else:
        message = "expected recordings .* got .*'train': 0, 'valid': 1"
    with pytest.raises(ValueError, match=message):
        sound.sounds(tmp_path, sample_rate=RATE, hop_length=HOP, notes=True, **NOTES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample_rate": 8_000}, "model.sample_rate: expected that of the data, 2000 Hz, got 8000"),
        ({"condition": None}, "model.condition: expected one for the data's condition"),
        ({"condition": {**TOLD, "channels": 8}}, "model.condition.channels: expected the data's 9, got 8"),
        ({"condition": {**TOLD, "hop_length": 20}}, "model.condition.hop_length: expected the data's 10, got 20"),
    ],
)
def test_a_network_for_other_data_is_refused(rng, tmp_path, change, message):
    data = sound.sounds(folder_of(tmp_path, rng, 3, 0.3), sample_rate=RATE, hop_length=HOP, **NOTES)
    with pytest.raises(ValueError, match=message):
        train.fit({**CONFIGS["told"].to_dict(), **change}, data, tmp_path / "run")


# -- runs --------------------------------------------------------------------------------------------------------------

QUICK = train.Options(epochs=6, batch_size=2, learning_rate=5e-3, weight_decay=0.0, warmup_steps=5, ema=0.9)


@pytest.mark.parametrize("kind", ["mu_law", "logistics"])
def test_a_run_learns_and_its_model_file_says_the_same(rng, tmp_path, kind):
    """Better than the frequencies of its tokens, which know nothing of what came before."""
    data = replace(sound.sounds(folder_of(tmp_path / "data", rng), sample_rate=RATE, hop_length=HOP, **NOTES), crop=500)
    output = {"kind": "mu_law", "classes": 64} if kind == "mu_law" else {"kind": "logistics", "mixtures": 2}
    config = config_of(output=output, condition=TOLD, dilations=(1, 2, 4, 8, 16), channels=16)
    result = train.fit(config, data, tmp_path / "run", options=replace(QUICK, epochs=6 if kind == "mu_law" else 18))
    if kind == "mu_law":
        tokens = np.concatenate([mg.mu_law_encode(r.samples, mu=63) for r in data.train])
        p = np.bincount(tokens, minlength=64) / len(tokens)
        assert result.best < -(p[p > 0] * np.log(p[p > 0])).sum() - 0.3
    else:
        assert result.best < math.log(65_536) - 1.0
    file = weights.read(result.path)
    assert (file.arch, file.encoding["name"]) == ("wavenet", "notes_to_sound")
    module = train.WaveNet(config)
    module.load_state_dict({k: torch.from_numpy(v) for k, v in file.tensors.items()})
    assert train.evaluate_sound(module, data, data.valid).nll == pytest.approx(result.best, abs=1e-6)
    native = mg.load(result.path)
    nats = []
    for recording in data.valid:
        frames = recording.frames(0, len(recording.samples) // HOP)
        nats.append(-native.log_prob(recording.samples, condition={"frames": frames}))
    assert np.concatenate(nats).mean() == pytest.approx(result.best, abs=1e-4)


def test_likelihood_does_not_depend_on_how_much_is_measured_at_a_time(rng, tmp_path, monkeypatch):
    data = sound.sounds(folder_of(tmp_path, rng, 3, 0.5), sample_rate=RATE, hop_length=HOP, **NOTES)
    config = config_of(condition=TOLD)
    module = module_of(config)
    whole = train.evaluate_sound(module, data, data.train)
    monkeypatch.setattr(tasks.wavenet, "_STRETCH", 333)
    assert train.evaluate_sound(module, data, data.train).nll == pytest.approx(whole.nll, rel=1e-6)
    assert whole.tokens == 2000


def test_R46_a_resumed_run_is_the_unbroken_run(rng, tmp_path):
    data = replace(
        sound.sounds(folder_of(tmp_path / "data", rng, 3, 0.5), sample_rate=RATE, hop_length=HOP, **NOTES),
        crop=300,
    )
    options = replace(QUICK, epochs=2)
    whole = train.fit(CONFIGS["told"], data, tmp_path / "whole", options=options)

    class Stop(Exception):
        pass

    calls = 0
    cut = sound.SoundCorpus.cut

    def failing(self, *arguments):
        nonlocal calls
        calls += 1
        if calls == 19:
            raise Stop
        return cut(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sound.SoundCorpus, "cut", failing)
        with pytest.raises(Stop):
            train.fit(CONFIGS["told"], data, tmp_path / "cut", options=replace(options, checkpoint_every=1))
    other = train.fit(CONFIGS["told"], data, tmp_path / "cut", options=replace(options, checkpoint_every=1))
    one, two = weights.read(whole.path), weights.read(other.path)
    assert all(np.array_equal(one.tensors[k], two.tensors[k]) for k in one.tensors)


def test_the_command_trains_from_a_file(rng, tmp_path):
    folder_of(tmp_path / "data" / "train", rng, 2, 0.4)
    folder_of(tmp_path / "data" / "valid", rng, 1, 0.4)
    folder_of(tmp_path / "data" / "test", rng, 1, 0.4)
    (tmp_path / "tiny.toml").write_text(
        f"""
        [data]
        kind = "sounds"
        sample_rate = {RATE}
        hop_length = {HOP}
        crop = 200
        low = 60
        high = 64
        features = ["onset", "velocity"]
        [model]
        recipe = "wavenet"
        residual_channels = 4
        skip_channels = 4
        hidden_channels = 4
        layers = 5
        longest_dilation = 4
        classes = 16
        condition_width = 3
        condition_kernel_size = 3
        [train]
        epochs = 1
        batch_size = 2
        mixed_precision = true
        [dropout]
        layer = 0.1
        """
    )
    result, measured = train.run(tmp_path / "tiny.toml", data_path=tmp_path / "data", out=tmp_path / "run")
    assert set(measured) == {"valid", "test"}
    assert 0 < measured["test"].nll < 2 * math.log(16)
    file = weights.read(result.path)
    assert file.config["dilations"] == [1, 2, 4, 1, 2]
    assert json.loads((tmp_path / "run" / "results.json").read_text())["test"]["tokens"] == 800


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"recipe": "wavenet", "residual_channels": 4, "longest_dilation": 3}, "expected a power of two, got 3"),
        ({"recipe": "wavenet"}, "residual_channels"),
        ({"recipe": "wavenet", "residual_channels": 0}, "config.residual_channels: expected"),
    ],
)
def test_recipes_refuse(model, message):
    with pytest.raises(ValueError, match=message):
        recipes.model_config(model, {"name": "sound", "sample_rate": RATE})
    with pytest.raises(ValueError, match="learns from sounds, got data encoded as 'tokens'"):
        recipes.model_config({"recipe": "wavenet", "residual_channels": 4}, {"name": "tokens"})


def test_tokens_and_sounds_are_not_mixed_up(rng, tmp_path):
    data = sound.sounds(folder_of(tmp_path, rng, 3, 0.3), sample_rate=RATE, hop_length=HOP, **NOTES)
    recurrent = recipes.language_model(cell="gru", vocab_size=4, embedding_size=4, hidden_size=4, num_layers=1)
    with pytest.raises(ValueError, match="expected a Corpus for arch 'recurrent', got a SoundCorpus"):
        train.fit(recurrent, data, tmp_path / "run")
    with pytest.raises(ValueError, match=r"dropout\.head: expected 0 for a WaveNet"):
        train.fit(CONFIGS["told"], data, tmp_path / "run", dropout=train.Dropout(head=0.1))
