"""Adversarial models: bars as pictures, two networks against each other, and the draws of what they learnt."""

import dataclasses
import itertools
import json
import pickle

import numpy as np
import pytest

import musicgen_ext as mg
from musicgen_ext import cli, encodings, generate, weights
from musicgen_ext.architectures import GanConfig
from musicgen_ext.encodings import RollBars
from musicgen_ext.errors import WeightsError
from musicgen_ext.midi import Score
from musicgen_reference import feedforward as reference

# -- bars as pictures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("onsets", [True, False])
@pytest.mark.parametrize("density", [0.0, 0.03, 0.3, 1.0])
def test_windows_undo_decode(rng, onsets, density):
    encoding = RollBars(steps_per_quarter=3, quarters=2, lowest_pitch=120, num_pitches=8, onsets=onsets)
    rolls = (rng.random((7, *encoding.shape)) < density).astype(np.uint8)
    score = encoding.decode(rolls, tempo=90)
    sounding = rolls[:, 0].reshape(-1, 8)
    before = np.vstack([np.zeros((1, 8), np.uint8), sounding[:-1]])
    begins = sounding & (1 - before)
    if onsets:  # what is heard: an onset where a sound begins, none without sound
        begins |= sounding & rolls[:, 1].reshape(-1, 8)
        rolls[:, 1] = begins.reshape(rolls[:, 1].shape)
    assert len(score.notes) == begins.sum()
    bars = encoding.windows(score)
    assert np.array_equal(bars, rolls[: len(bars)])
    assert not rolls[len(bars) :].any()
    again = encoding.decode(bars, tempo=90)
    assert np.array_equal(again.notes, score.notes)
    assert again.tempos[0][1] == round(60e6 / 90)


def test_windows_are_the_bars_that_fit():
    encoding = RollBars(lowest_pitch=60, num_pitches=12)
    notes = [(0, 100, 60), (1910, 500, 61), (1920, 30, 61), (3840, 480, 62), (5280, 7 * 480, 63), (5280, 480, 59)]
    score = Score(notes, time_signatures=[(0, 4, 4), (3840, 3, 4), (5280, 4, 4)])
    issues = []
    rolls = encoding.windows(score, issues)
    assert rolls.shape == (4, 2, 16, 12)  # two of 4/4, one of 3/4 that is left out, two of 4/4
    assert rolls[0, 0, :, 0].tolist() == [1] + [0] * 15  # 100 of 120 ticks
    assert rolls[0, :, :, 1].sum() == 0  # 1910 is nearer to the next bar
    assert rolls[1, 0, :, 1].tolist() == [1] * 4 + [0] * 12
    assert rolls[1, 1, :, 1].tolist() == [1] + [0] * 15
    assert rolls[2, 0, :, 3].all()
    assert rolls[3, 0, :, 3].tolist() == [1] * 12 + [0] * 4
    assert rolls[2:, 1, :, 3].sum() == 1  # it goes on without an onset
    assert len(issues) == 2
    assert issues[0].startswith("1 notes outside")
    assert issues[1].startswith("1 bars")


def test_drums_and_empty_scores_have_no_pictures():
    drums = Score({"start": [0], "duration": [10], "pitch": [60], "channel": [9]})
    issues = []
    assert not RollBars().windows(drums, issues).any()
    assert issues == ["1 notes of drums are left out"]
    assert RollBars().windows(Score()).shape[1:] == (2, 16, 48)
    assert len(RollBars().decode(np.zeros((0, 2, 16, 48))).notes) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_pitches": 0}, "num_pitches: expected an integer in"),
        ({"lowest_pitch": 100, "num_pitches": 40}, "num_pitches: expected at most 28"),
        ({"steps_per_quarter": 7}, "steps_per_quarter: expected a divisor of 480, got 7"),
        ({"onsets": 1}, "onsets: expected True or False, got 1"),
        ({"key": 1}, "expected keys out of"),
    ],
)
def test_encodings_out_of_range_are_refused(options, words):
    with pytest.raises(WeightsError, match=words):
        encodings.load({"name": "roll_bars", **options})


def test_rolls_that_do_not_fit_are_refused():
    encoding = RollBars()
    assert encodings.load(encoding.to_dict()) == encoding
    with pytest.raises(ValueError, match=r"rolls: expected shape \(N, 2, 16, 48\), got \(2, 16, 48\)"):
        encoding.decode(np.zeros((2, 16, 48)))
    with pytest.raises(ValueError, match="tempo: expected 4 to"):
        encoding.decode(np.zeros((1, 2, 16, 48)), tempo=float("nan"))


# -- models ------------------------------------------------------------------------------------------------------------


def tiny_gan(draw="bernoulli", storage="float32", seed=0, onsets=True):
    """A `ModelFile` of a small random generator: nonsense, but music in form."""
    encoding = RollBars(steps_per_quarter=2, quarters=2, lowest_pitch=60, num_pitches=12, onsets=onsets)
    channels = encoding.shape[0]
    small = [4, 2, 12]
    config = {
        "generator": {
            "input": [6],
            "layers": [
                {"kind": "dense", "units": 96, "activation": "leaky_relu"},
                {"kind": "reshape", "shape": small},
                {"kind": "conv_transpose2d", "channels": channels, "kernel": [4, 3], "stride": [2, 1],
                 "padding": [1, 1], "activation": "sigmoid"},
            ],
        },
        "discriminator": {"input": [channels, 4, 12], "layers": [{"kind": "dense", "units": 1}]},
        "draw": draw,
    }  # fmt: skip
    config = GanConfig.from_dict(config)
    random = np.random.default_rng(seed)
    tensors = {n: random.normal(0, 0.6, s).astype(np.float32) for n, s in config.tensor_shapes().items()}
    tensors["generator.layers.2.bias"] -= 1.5
    file = weights.ModelFile(None, "gan", config.to_dict(), encoding.to_dict(), {"licence": "CC0"}, tensors)
    return weights.convert(file, storage)


@pytest.fixture(params=["float32", "bfloat16", "int8"])
def gan_path(request, tmp_path):
    path = tmp_path / "gan.safetensors"
    weights.write(path, tiny_gan(storage=request.param))
    return path


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
def test_pictures_are_the_twins(isa, storage):
    file = tiny_gan(storage=storage)
    engine = generate.load(file)
    drawn = engine.sample(3, seed=5, index=2, num_samples=2, temperature=0.8, probabilities=True)
    for i in range(2):
        want = reference.pictures(
            file.config, file.tensors, 3, seed=5, index=2 + i, temperature=0.8, int8=storage == "int8"
        )
        assert np.array_equal(drawn.z[i], want[0])
        assert np.abs(drawn.probabilities[i] - want[1]).max() < (1e-5 if storage != "int8" else 0.02)
        certain = np.abs(want[1] - want[2]) > (1e-5 if storage != "int8" else 0.02)  # no coin at the edge
        assert np.array_equal(drawn.pictures[i][certain], (want[2] < want[1])[certain])
    assert 0.05 < drawn.pictures.mean() < 0.5


def test_R38_one_seed_one_piece(gan_path, on_every_isa):
    def pieces():
        model = mg.load(gan_path)
        many = model.sample(num_samples=5, length="3 bars", seed=7)
        assert model.sample(length="3 bars", seed=7) == many[0]
        assert [len(piece.bars) <= 3 for piece in many]
        streamed = list(model.stream(length="3 bars", seed=7))
        assert sorted(streamed, key=lambda n: (n.start, n.pitch)) == [
            tuple(int(note[name]) for name in ("start", "duration", "pitch", "velocity", "track"))
            for note in many[0].notes
        ]
        assert all(a.start + a.duration <= b.start + b.duration for a, b in itertools.pairwise(streamed))
        return [piece.to_bytes() for piece in many]

    results = list(on_every_isa(pieces).values())
    assert all(results[0] == other for other in results)
    assert len(set(results[0])) == 5


def test_chunks_threads_and_pickles_give_the_same_pictures():
    engine = generate.load(tiny_gan())
    whole = engine.sample(130, seed=1, num_samples=2, threads=2).pictures
    coins = engine.coins(1, [0, 1])
    parts = [engine.sample(n, num_samples=2, coins=coins, threads=1).pictures for n in (1, 100, 29)]
    assert np.array_equal(np.concatenate(parts, axis=1), whole)
    assert np.array_equal(engine.sample(130, seed=1, index=1).pictures[0], whole[1])
    again = pickle.loads(pickle.dumps(engine))
    assert np.array_equal(again.sample(130, seed=1, num_samples=2).pictures, whole)


def test_z_may_be_given(gan_path):
    model = mg.load(gan_path)
    z = np.linspace(-1, 1, 6)
    one = model.sample(condition={"z": z}, temperature=0, seed=1)
    bars = model.encoding.windows(one)
    assert len(bars) == 8
    assert (bars[:, 0] == bars[0, 0]).all()
    several = model.sample(condition={"z": np.stack([z, -z])}, temperature=0, seed=2)
    assert len(several.bars) == 2
    assert np.array_equal(model.encoding.windows(several)[0], bars[0])
    assert one.provenance["condition"]["z"][0] == pytest.approx(z.tolist())
    assert mg.sample(gan_path, length=2.5, seed=3).end_time <= 2.5
    assert mg.sample(gan_path, length="5 steps", seed=3).notes["start"].max() < 5 * 240
    assert model.info["conditions"].keys() == {"z"}
    assert model.info["arch"] == "gan"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"temperature": float("nan")}, ValueError, "temperature: expected a finite number"),
        ({"temperature": -1}, ValueError, "temperature: expected a finite number"),
        ({"top_k": 1}, ValueError, "top_k: expected None for a model that draws 0 or 1, got 1"),
        ({"top_p": 0.5}, ValueError, "top_p: expected 1 for a model that draws 0 or 1, got 0.5"),
        ({"length": "3 parsecs"}, ValueError, "length: expected a number and one of bars"),
        ({"length": 1e300}, ValueError, "length: expected at most 65536 bars"),
        ({"seed": -1}, ValueError, "seed: expected an integer in"),
        ({"prompt": Score()}, ValueError, "prompt: expected None for arch 'gan'"),
        ({"condition": {"z": np.zeros(5)}}, ValueError, r"z: expected shape \(6,\), \(8, 6\)"),
        ({"condition": {"z": np.full(6, np.inf)}}, ValueError, "z: expected finite numbers, got inf"),
        ({"condition": {"z": ["a"] * 6}}, TypeError, "z: expected numbers, got dtype"),
        ({"condition": {"style": 1}}, ValueError, r"condition: expected names out of \['z'\], got 'style'"),
        ({"device": "cuda"}, mg.DeviceError, "this build has no CUDA"),
    ],
)
def test_R36_arguments_are_checked(tmp_path, options, error, words):
    path = tmp_path / "gan.safetensors"
    weights.write(path, tiny_gan())
    with pytest.raises(error, match=words):
        mg.sample(path, **options)


def test_thresholds_draw_nothing(tmp_path):
    engine = generate.load(tiny_gan("threshold"))
    z = np.zeros(6)
    assert np.array_equal(engine.sample(2, seed=1, z=z).pictures, engine.sample(2, seed=2, z=z).pictures)
    with pytest.raises(ValueError, match=r"temperature: expected 1 for a model that draws nothing, got 0\.5"):
        engine.sample(1, temperature=0.5)


def test_R32_files_that_do_not_fit_are_refused(tmp_path):
    good = tiny_gan()
    path = tmp_path / "gan.safetensors"
    for change, words in (
        ({"encoding": RollBars().to_dict()}, r"encoding: expected pictures of shape \[2, 4, 12\]"),
        ({"encoding": {"name": "bars"}}, r"encoding\.name: expected 'roll_bars'"),
        (
            {"tensors": {n: a for n, a in good.tensors.items() if "bias" not in n}},
            r"missing .'generator.layers.0.bias'",
        ),
        ({"config": {**good.config, "draw": "dice"}}, r"config\.draw: expected one of"),
    ):
        weights.write(path, dataclasses.replace(good, **change))
        with pytest.raises(WeightsError, match=words):
            mg.load(path)
    weights.write(path, good)
    with pytest.raises(ValueError, match=r"log_prob: expected a model with a likelihood, got 'gan.safetensors'"):
        mg.load(path).log_prob(Score())


def test_overlap_on_the_command_line(tmp_path, rng, capsys):
    model, data = tmp_path / "gan.safetensors", tmp_path / "data"
    weights.write(model, tiny_gan())
    (data / "sub").mkdir(parents=True)
    for i in range(4):
        mg.sample(model, length="8 bars", seed=i).save(data / "sub" / f"{i}.mid")
    arguments = ["--data", str(data), "--bars", "2", "--samples", "20"]
    assert cli.main(["evaluate", "overlap", str(model), *arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bars"] == 2
    assert report["excerpts"] == 16
    shown = report["overlaps"]
    assert set(shown) == {str(model), "shuffled"}
    assert shown[str(model)]["mean"] > 0.7
    assert cli.main(["evaluate", "overlap", str(data), *arguments, "--one-key"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table[2:]] == ["files", "shuffled"]
    assert cli.main(["evaluate", "overlap", str(model)]) == 2
    assert cli.main(["evaluate", "overlap", str(model), "--data", str(data), "--bars", "100"]) == 1


# -- training ----------------------------------------------------------------------------------------------------------

torch = pytest.importorskip("torch")

from musicgen_ext import likeness, train  # noqa: E402
from musicgen_ext.train import checkpoint, rolls  # noqa: E402
from musicgen_ext.train.datasets import Item, Scores  # noqa: E402
from musicgen_ext.train.learners import Objective  # noqa: E402
from musicgen_ext.train.models import Gan  # noqa: E402
from musicgen_ext.train.recipes import gan_conv, gan_mlp  # noqa: E402

SMALL = RollBars(steps_per_quarter=2, quarters=2, lowest_pitch=60, num_pitches=12)
QUICK = train.Options(
    epochs=3, batch_size=8, optimizer="adam", weight_decay=0.0, learning_rate=1e-3, ema=0.9, checkpoint_every=2,
    mixed_precision=False, warmup_steps=1,
)  # fmt: skip


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small_corpus(rng, encoding=SMALL):
    """Pieces of 8 bars: a triad in half notes over a moving voice."""

    def piece():
        notes = []
        for bar in range(8):
            root = int(rng.integers(0, 3))
            notes += [(bar * 960, 960, 60 + root + step) for step in (0, 4, 7)]
            notes += [(bar * 960 + 240 * i, 240, 71) for i in range(4) if rng.random() < 0.7]
        return Score(notes, time_signatures=[(0, 2, 4)], key_signatures=[(0, 2, 0)])

    items = [Item(f"{i}", piece()) for i in range(12)]
    return rolls.rolls_of(Scores(items[:8], items[8:], []), encoding)


def recipe(kind, encoding=SMALL, **options):
    if kind == "mlp":
        return gan_mlp(encoding=encoding.to_dict(), latent=5, hidden=[16], **options)
    return gan_conv(encoding=encoding.to_dict(), latent=5, channels=4, **options)


@pytest.mark.parametrize(("kind", "loss"), [("mlp", "wasserstein"), ("conv", "non_saturating")])
def test_R46_resumed_game_is_the_unbroken_game(one_thread, rng, tmp_path, monkeypatch, kind, loss):
    corpus, config = small_corpus(rng), recipe(kind, draw="bernoulli" if kind == "mlp" else "threshold", norm=True)
    objective = {"loss": loss, "critic_steps": 3, "straight_through": kind == "mlp"}
    options = {"options": QUICK, "objective": objective}
    whole = train.fit(config, corpus, tmp_path / "whole", **options)
    assert whole.steps == 24
    save, saved = checkpoint.save, []

    def save_then_die(folder, step, state):
        path = save(folder, step, state)
        saved.append(step)
        if step == 10:  # between two steps of the generator
            raise SystemError("pulled the plug")
        return path

    monkeypatch.setattr(checkpoint, "save", save_then_die)
    with pytest.raises(SystemError):
        train.fit(config, corpus, tmp_path / "broken", **options)
    monkeypatch.setattr(checkpoint, "save", save)
    train.fit(config, corpus, tmp_path / "broken", **options)
    states = [checkpoint.load(checkpoint.found(tmp_path / name)[0]) for name in ("whole", "broken")]
    for part in ("model", "average", "critic"):
        assert all(torch.equal(value, states[1][part][name]) for name, value in states[0][part].items())
    a, b = (weights.read(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert a.arch == "gan"
    assert all(np.array_equal(value, b.tensors[name]) for name, value in a.tensors.items())
    assert a.config == config.folded.to_dict()
    assert a.card["metrics"]["valid_distance"] == whole.best
    with pytest.raises(ValueError, match="got other objective"):
        train.fit(config, corpus, tmp_path / "broken", options=QUICK, objective={**objective, "critic_steps": 2})


def test_a_game_learns_what_bars_look_like(one_thread, rng, tmp_path):
    corpus, config = small_corpus(rng), recipe("mlp", draw="bernoulli")
    options = train.Options(
        epochs=60, batch_size=16, optimizer="adam", weight_decay=0.0, learning_rate=5e-3, ema=0.9, warmup_steps=1,
        evaluate_every=60, mixed_precision=False,
    )  # fmt: skip
    train.fit(config, corpus, tmp_path, options=options, objective={"critic_steps": 2})
    file = weights.read(tmp_path / "model.safetensors")
    module = Gan(GanConfig.from_dict(file.config))
    module.load_state_dict({name: torch.from_numpy(value) for name, value in file.tensors.items()})
    with torch.no_grad():
        made = module(torch.randn(200, 5, generator=torch.Generator().manual_seed(0))).mean(0).numpy()
    real = np.concatenate(corpus.train).mean(0)
    chance = np.abs(real - real.mean()).mean()
    assert np.abs(made - real).mean() < 0.6 * chance


def test_a_gradient_that_is_no_number_stops_the_game(one_thread, rng, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(train.DivergenceError, match="step 0: the gradient's norm is nan; no checkpoint was written"):
        train.fit(recipe("mlp"), small_corpus(rng), tmp_path, options=QUICK)


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ({"loss": "hinge"}, "objective.loss: expected 'non_saturating' or 'wasserstein', got 'hinge'"),
        ({"critic_steps": 0}, "objective.critic_steps: expected an integer in"),
        ({"penalty": -1.0}, "objective.penalty: expected a number >= 0"),
        ({"penalty": "10"}, "objective.penalty: expected a number, got '10'"),
        ({"beta1": float("nan")}, "objective.beta1: expected a number in"),
        ({"straight_through": 1}, "objective.straight_through: expected true or false"),
        ({"beta": 1}, "objective.beta: expected names out of"),
        ({"feature_matching": 1.0}, "objective.feature_matching: expected 0 for arch 'gan'"),
    ],
)
def test_mistakes_in_the_objective_are_named(rng, tmp_path, objective, words):
    with pytest.raises(ValueError, match=words):
        train.fit(recipe("mlp"), small_corpus(rng), tmp_path, options=QUICK, objective=objective)


def test_what_does_not_fit_is_refused(rng, tmp_path):
    corpus = small_corpus(rng)
    with pytest.raises(ValueError, match=r"data: expected pictures of shape \[2, 8, 12\] .*, got \[2, 4, 12\]"):
        train.fit(recipe("mlp", RollBars(4, 2, 60, 12)), corpus, tmp_path, options=QUICK)
    with pytest.raises(ValueError, match=r"dropout.layer: expected 0 for an adversarial pair"):
        train.fit(recipe("mlp"), corpus, tmp_path, options=QUICK, dropout=train.Dropout(layer=0.1))
    with pytest.raises(ValueError, match="'gan_conv' makes pictures of a multiple of 4 steps and of 12 pitches"):
        recipe("conv", RollBars(3, 3, 60, 12))
    with pytest.raises(ValueError, match="'gan_mlp' learns from bars, got data encoded as 'sound'"):
        gan_mlp(encoding={"name": "sound"})
    good = recipe("mlp").to_dict()
    for change, words in (
        ({"draw": "coin"}, "config.draw: expected one of"),
        ({"generator": good["discriminator"]}, "config.generator.input: expected one size"),
        ({"discriminator": good["generator"]}, r"config.discriminator: expected input \[2, 4, 12\] and output \[1\]"),
    ):
        with pytest.raises(WeightsError, match=words):
            GanConfig.from_dict({**good, **change})


def test_scores_come_into_one_key(rng):
    corpus = small_corpus(rng)
    score = SMALL.decode(corpus.train[0])
    sharp = Score(score.notes, key_signatures=[(0, 3, 0)])
    assert np.array_equal(likeness.in_one_key(sharp).notes["pitch"], score.notes["pitch"] + 3)  # A major: up to C
    flat = Score(score.notes, key_signatures=[(0, -1, 1)])
    moved = likeness.in_one_key(flat).notes["pitch"]
    assert np.array_equal(moved, score.notes["pitch"] - 5)  # D minor: down to A minor
    assert likeness.in_one_key(score) == score


def test_bars_are_transposed_within_the_picture(rng):
    corpus = rolls.RollCorpus([], [], [], SMALL, transpose=5)
    bar = np.zeros(SMALL.shape, np.uint8)
    bar[:, :, 2:10] = 1
    seen = {int(np.flatnonzero(corpus.draw(bar, rng).any((0, 1)))[0]) for _ in range(60)}
    assert seen == {0, 1, 2, 3, 4}
    assert all(corpus.draw(bar, rng).sum() == bar.sum() for _ in range(5))


def test_penalties_by_their_definitions(one_thread, rng):
    """Of a linear discriminator the gradient is its weights, everywhere."""
    from musicgen_ext.train.learners import Adversarial

    corpus, config = small_corpus(rng), recipe("mlp").to_dict()
    config["discriminator"]["layers"] = [{"kind": "dense", "units": 1}]
    real = torch.zeros(4, *SMALL.shape)
    for loss in ("wasserstein", "non_saturating"):
        task = train.tasks.task_of(GanConfig.from_dict(config), corpus, train.Dropout(), {"loss": loss})
        learner = Adversarial(task, QUICK, torch.device("cpu"))
        assert task.settings == Objective(loss=loss)
        norm = float(learner.critic.layers[0].weight.detach().norm())
        want = (norm - 1) ** 2 if loss == "wasserstein" else 0.5 * norm**2
        assert float(learner._penalty(real, real + 1).detach()) == pytest.approx(want, rel=1e-4)
