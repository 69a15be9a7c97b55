"""Training: features against their definition, the module against torch, runs that survive what happens to them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training extra is not installed")

from musicgen_ext import CheckpointError, DeviceError, generate, train, weights  # noqa: E402
from musicgen_ext.architectures import RecurrentConfig  # noqa: E402
from musicgen_ext.train import checkpoint, data, recipes  # noqa: E402
from musicgen_ext.train.features import longest_matches, recurrent_features  # noqa: E402

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

SMALL = {"hidden_size": 12, "head_size": 10, "token_dim": 6, "lag_dim": 4, "small_dim": 4}


def small_config(**keywords):
    return recipes.voices(
        slots=[
            {"name": "mark", "size": 3},
            {"name": "high", "size": 9, "first_pitch": 2, "hold": 0},
            {"name": "low", "size": 8, "first_pitch": 1},
        ],
        given=[{"name": "beat", "size": 4, "head": True}, {"name": "tonic", "size": 13}],
        tonic="tonic", lowest_pitch=41,
        clocks=(6,), head_clock="clock_6", lags=(2, 5), copy_lags=(2,), radius=3, limit=4, match_window=16,
        **{**SMALL, **keywords},
    )  # fmt: skip


def random_piece(rng, config, n, name="piece"):
    # Long holds and a small alphabet, so that matches, repetitions and leading holds all occur.
    tokens = np.stack([rng.integers(0, s.size, n) * (rng.random(n) < 0.4) for s in config.slots], 1).astype(np.int32)
    if n > 20:
        tokens[n // 2 : n // 2 + 8] = tokens[2:10]
    given = {g: rng.integers(0, config.feature_size(g), n).astype(np.int32) for g in config.given}
    return data.Piece(name, tokens, given)


def small_corpus(rng, config, sizes=(30, 17, 25, 40, 22)):
    pieces = [random_piece(rng, config, n, f"piece {i}") for i, n in enumerate(sizes)]
    return data.Corpus(encoding={"name": "test"}, train=pieces[:-1], valid=pieces[-1:])


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small only lose time, on a busy machine a lot of it, to more threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def generator():
    return np.random.default_rng(7)


# -- twins: the definitions, word by word --------------------------------------------------------------------------


def plain_features(config, tokens, given, t):
    """Every feature of frame t, one frame at a time, as `RecurrentConfig` defines them."""
    sizes = [s.size for s in config.slots]

    def sounding(slot, frame):
        while frame >= 0:
            token = tokens[frame][slot]
            if config.slots[slot].hold is None or token != config.slots[slot].hold:
                return token
            frame -= 1
        return sizes[slot]

    best, after = 0, None
    for j in range(1, t):
        if j <= t - 1 - config.match_window:
            continue
        length = 0
        while j - 1 - length >= 0 and list(tokens[t - 1 - length]) == list(tokens[j - 1 - length]):
            length += 1
        if length and length >= best:
            best, after = length, j

    def held(slot):
        hold = config.slots[slot].hold
        for frame in range(t - 1, -1, -1):
            if hold is None:
                onset = frame == 0 or tokens[frame][slot] != tokens[frame - 1][slot]
            else:
                onset = tokens[frame][slot] != hold
            if onset:
                return t - 1 - frame
        return 0

    def difference(a, slot_a, b, slot_b, limit):
        for value, slot in ((a, slot_a), (b, slot_b)):
            if value < (config.slots[slot].first_pitch or 0) or value >= sizes[slot]:
                return 0
        return 1 + limit + max(-limit, min(limit, a - b))

    def value(f):
        if f.kind == "token":
            return tokens[t - f.lag][f.slot] if t >= f.lag else sizes[f.slot]
        if f.kind == "sounding":
            return sounding(f.slot, t - f.lag)
        if f.kind == "held":
            return sum(b <= held(f.slot) for b in f.buckets)
        if f.kind == "clock":
            return t // f.divide % f.period
        if f.kind == "match":
            return sizes[f.slot] if after is None else tokens[after][f.slot]
        if f.kind == "match_length":
            return sum(b <= best for b in f.buckets)
        if f.kind == "interval":
            a, b = f.slots
            return difference(sounding(a, t - 1), a, sounding(b, t - 1), b, f.limit)
        if f.kind == "chosen":
            return tokens[t][f.slot]
        if f.kind == "chosen_sounding":
            return sounding(f.slot, t)
        if f.kind == "difference":
            a, b = (config.feature(name) for name in f.features)
            return difference(value(a), a.slot, value(b), b.slot, f.limit)
        if f.kind == "degree":
            a, tonic = (config.feature(name) for name in f.features)
            first = config.slots[a.slot].first_pitch
            if not first <= value(a) < sizes[a.slot] or value(tonic) >= 12:
                return 0
            return 1 + (value(a) - first + 41 - value(tonic)) % 12
        assert f.kind == "given"
        return given[f.name][t]

    return {f.name: int(value(f)) for f in config.features}


@pytest.mark.parametrize("n", [1, 2, 3, 17, 60])
def test_features_twin(generator, n):
    config = small_config()
    kinds = {"name": "between", "kind": "interval", "slots": [1, 2], "limit": 3}
    described = config.to_dict()
    described["features"] += [kinds, {"name": "slow", "kind": "clock", "period": 3, "divide": 4}]
    config = RecurrentConfig.from_dict(described)
    piece = random_piece(generator, config, n)
    computed = recurrent_features(config, piece.tokens, piece.given)
    assert {f.kind for f in config.features} >= {
        "token", "sounding", "held", "clock", "match", "match_length", "interval", "given", "chosen",
        "chosen_sounding", "difference", "degree",
    }  # fmt: skip
    for t in range(n):
        assert {k: int(v[t]) for k, v in computed.items()} == plain_features(config, piece.tokens, piece.given, t)


def test_features_never_look_ahead(generator):
    config = small_config()
    piece = random_piece(generator, config, 40)
    whole = recurrent_features(config, piece.tokens, piece.given)
    changed = piece.tokens.copy()
    changed[25:] = 0
    cut = recurrent_features(config, changed, piece.given)
    for f in config.features:
        until = 25 if "chosen" in f.kind or any("chosen" in name for name in f.features) else 26
        np.testing.assert_array_equal(whole[f.name][:until], cut[f.name][:until], err_msg=f.name)


def test_matches_survive_transposition(generator):
    tokens = generator.integers(1, 4, (50, 2)).astype(np.int32)
    for a, b in zip(longest_matches(tokens, 20), longest_matches(tokens + 3, 20), strict=True):
        np.testing.assert_array_equal(a, b)


def test_features_refuse_what_does_not_fit(generator):
    config = small_config()
    piece = random_piece(generator, config, 10)
    with pytest.raises(ValueError, match=r"tokens: expected shape \(n_frames, 3\), got \(10, 2\)"):
        recurrent_features(config, piece.tokens[:, :2], piece.given)
    wrong = piece.tokens.copy()
    wrong[4, 1] = 9
    with pytest.raises(ValueError, match=r"expected 0..8 in slot 'high', got 9 at frame 4"):
        recurrent_features(config, wrong, piece.given)
    with pytest.raises(ValueError, match=r"expected the feature 'beat'"):
        recurrent_features(config, piece.tokens)
    with pytest.raises(ValueError, match=r"given\['beat'\]: expected 0..3"):
        recurrent_features(config, piece.tokens, {"beat": np.full(10, 4)})


# -- the module ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh", "rnn_relu"])
def test_state_dict_is_the_model_files_tensors(cell):
    for config in (small_config(cell=cell), RecurrentConfig.language_model(
        cell, vocab_size=11, embedding_size=5, hidden_size=7, num_layers=2
    )):  # fmt: skip
        shapes = {k: tuple(v.shape) for k, v in train.Recurrent(config).state_dict().items()}
        assert shapes == config.tensor_shapes()


@pytest.mark.parametrize("name", ["a.b", "keys"])
def test_names_torch_cannot_have_are_refused(name):
    described = RecurrentConfig.language_model("gru", vocab_size=5, embedding_size=2, hidden_size=2, num_layers=1)
    described = json.loads(json.dumps(described.to_dict()).replace('"token"', json.dumps(name)))
    described["features"][0]["kind"] = "token"
    with pytest.raises(ValueError, match=f"torch cannot have a module named '{name}'"):
        train.Recurrent(RecurrentConfig.from_dict(described))


def test_missing_device_is_named(generator, tmp_path):
    config = small_config()
    with pytest.raises(ValueError, match="device: expected 'cpu' or 'cuda', got 'abacus'"):
        train.fit(config, small_corpus(generator, config), tmp_path, device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="finds no CUDA device for 'cuda:3'"):
            train.fit(config, small_corpus(generator, config), tmp_path, device="cuda:3")


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh", "rnn_relu"])
def test_language_model_is_torchs_own_layers(cell):
    """Oracle: nn.Embedding, nn.LSTM/GRU/RNN and nn.Linear with the same weights; the same kernels, so exact."""
    torch.manual_seed(1)
    config = RecurrentConfig.language_model(cell, vocab_size=11, embedding_size=5, hidden_size=7, num_layers=2)
    module = train.Recurrent(config).eval()
    kind, options = {
        "lstm": (torch.nn.LSTM, {}), "gru": (torch.nn.GRU, {}),
        "rnn_tanh": (torch.nn.RNN, {"nonlinearity": "tanh"}), "rnn_relu": (torch.nn.RNN, {"nonlinearity": "relu"}),
    }[cell]  # fmt: skip
    theirs = kind(5, 7, 2, **options)
    state = module.state_dict()
    theirs.load_state_dict({k.removeprefix("rnn."): v for k, v in state.items() if k.startswith("rnn.")})
    ids = torch.randint(0, 12, (9, 3))
    with torch.no_grad():
        hidden = theirs(torch.nn.functional.embedding(ids, state["trunk.token.weight"]))[0]
        expected = hidden @ state["head.token.output.weight"].T + state["head.token.output.bias"]
        got = module({"token": ids})[0]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)  # |logits| < 1, sums of 7 terms


def test_head_by_the_definition(generator):
    """Logits of one slot, recomputed with plain loops over relative blocks and copies."""
    torch.manual_seed(2)
    config = small_config()
    module = train.Recurrent(config).eval()
    piece = random_piece(generator, config, 12)
    batch = data.Collator(config)([piece])
    state = {k: v.double().numpy() for k, v in module.state_dict().items()}
    trunk = np.concatenate([state[f"trunk.{n}.weight"][batch.features[n][:, 0].numpy()] for n, _ in config.trunk], -1)
    with torch.no_grad():
        logits = module(batch.features)
        x = torch.from_numpy(trunk).float().unsqueeze(1)
        for k in range(config.num_layers):
            x = module.rnn(x, k, 0.0)
    x = x[:, 0].double().numpy()
    for s, slot in enumerate(config.slots):
        prefix = f"head.{slot.name}"
        for t in range(12):
            u = state[f"{prefix}.hidden.weight"] @ x[t] + state[f"{prefix}.hidden.bias"]
            for name in slot.head.inputs:
                u = u + state[f"{prefix}.input.{name}.weight"][batch.features[name][t, 0]]
            z = state[f"{prefix}.output.weight"] @ np.tanh(u) + state[f"{prefix}.output.bias"]
            expected, at = z[: slot.size].copy(), slot.size
            for r in slot.head.relative:
                reference = int(batch.features[r.feature][t, 0])
                for i in range(slot.first_pitch, slot.size):
                    if slot.first_pitch <= reference < slot.size and abs(i - reference) <= r.radius:
                        expected[i] += z[at + i - reference + r.radius]
                at += 2 * r.radius + 1
            for name in slot.head.copy:
                reference = int(batch.features[name][t, 0])
                if reference < slot.size:
                    expected[reference] += z[at]
                at += 1
            for p in slot.head.periodic:
                tonic = int(batch.features[p.feature][t, 0])
                for i in range(slot.first_pitch, slot.size):
                    if tonic < 12:
                        expected[i] += z[at + (41 + i - slot.first_pitch - tonic) % 12]
                at += 12
            assert at == slot.output_rows
            np.testing.assert_allclose(logits[s][t, 0].numpy(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh", "rnn_relu"])
def test_engine_agrees_on_every_token(generator, tmp_path, cell):
    """Train a little, export, and let the native engine say what each token costs, features and all."""
    config = small_config(cell=cell)
    corpus = small_corpus(generator, config)
    path = train.fit(config, corpus, tmp_path, options=replace(QUICK, checkpoint_every=0)).path
    file = weights.read(path)
    module = train.Recurrent(config)
    module.load_state_dict({k: torch.from_numpy(v) for k, v in file.tensors.items()})
    module.eval()
    engine = generate.load(file)
    for piece in corpus.train:
        batch = data.Collator(config)([piece])
        with torch.no_grad():
            log_softmax = [torch.log_softmax(z[:, 0].double(), -1) for z in module(batch.features)]
        expected = np.stack([z.gather(-1, batch.targets[:, :, k])[:, 0] for k, z in enumerate(log_softmax)], 1)
        got = engine.log_prob(piece.tokens, given=dict(piece.given))
        # float32 sums of at most 60 terms below 1, tanh and exp within 2 ulp: measured 4e-7
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def test_padding_changes_nothing(generator):
    config = small_config()
    torch.manual_seed(3)
    module = train.Recurrent(config)
    pieces = [random_piece(generator, config, n, str(n)) for n in (9, 31, 14)]
    together = train.evaluate(module, pieces, batch_size=3)
    alone = [train.evaluate(module, [p]) for p in pieces]
    assert together.tokens == 3 * (9 + 31 + 14) == sum(a.tokens for a in alone)
    assert together.nll == pytest.approx(sum(a.nll * a.tokens for a in alone) / together.tokens, rel=1e-6)
    assert together.macro == pytest.approx(np.mean([a.nll for a in alone]), rel=1e-6)
    only = train.evaluate(module, pieces, per=["high"])
    assert only.nll == pytest.approx(3 * together.nll, rel=1e-6)


def test_dropout_acts_in_training_only(generator):
    config = small_config()
    torch.manual_seed(4)
    every = train.Dropout(input=0.5, layer=0.5, head=0.5, weight=0.5, feature=0.5)
    module = train.Recurrent(config, every)
    features = data.Collator(config)([random_piece(generator, config, 20)]).features
    module.eval()
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(module(features), module(features), strict=True))
        module.train()
        assert not torch.equal(module(features)[0], module(features)[0])
    for name in ("input", "layer", "head", "weight", "feature"):
        one = train.Recurrent(config, train.Dropout(**{name: 0.5}))
        torch.manual_seed(5)
        with torch.no_grad():
            assert not torch.equal(one(features)[1], one(features)[1]), name
    with pytest.raises(ValueError, match=r"dropout.layer: expected a probability in \[0, 1\), got 1.5"):
        train.Dropout(layer=1.5)


# -- runs ----------------------------------------------------------------------------------------------------------

QUICK = train.Options(epochs=3, batch_size=2, warmup_steps=2, learning_rate=0.01, checkpoint_every=1, seed=3)
DROPOUT = train.Dropout(input=0.1, layer=0.2, head=0.1, weight=0.1, feature=0.1)


def state_of(folder):
    return checkpoint.load(checkpoint.found(folder)[0])


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_state(a, b):
    assert a["step"] == b["step"]
    for part in ("model", "average"):
        assert set(a[part]) == set(b[part])
        for key in a[part]:
            assert torch.equal(a[part][key], b[part][key]), key
    for key, moments in a["optimizer"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, b["optimizer"]["state"][key][name]), (key, name)


def test_overfits_a_tiny_set(generator, tmp_path):
    config = small_config(hidden_size=48, head_size=32)
    piece = random_piece(generator, config, 24)
    corpus = data.Corpus(encoding={"name": "test"}, train=[piece], valid=[piece])
    options = train.Options(epochs=150, batch_size=1, learning_rate=0.01, weight_decay=0.0, ema=0.9, evaluate_every=50)
    result = train.fit(config, corpus, tmp_path, options=options)
    assert result.best < 0.05  # log of the vocabulary's sizes: 1.8 on average
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines] == [50, 100, 150]
    assert lines[-1]["valid"] == result.best


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "constant"])
def test_every_optimizer_and_schedule_learns(generator, tmp_path, optimizer, schedule):
    config = small_config()
    corpus = small_corpus(generator, config)
    rate = 0.3 if optimizer == "sgd" else 0.01
    options = replace(QUICK, epochs=6, optimizer=optimizer, schedule=schedule, learning_rate=rate, checkpoint_every=0)
    train.fit(config, corpus, tmp_path, options=options)
    lines = metrics(tmp_path)
    assert lines[-1]["train"] < lines[0]["train"]


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_R46_resumed_run_is_the_unbroken_run(generator, tmp_path, monkeypatch, stop):
    config = small_config()
    corpus = small_corpus(generator, config)
    train.fit(config, corpus, tmp_path / "unbroken", options=QUICK, dropout=DROPOUT)

    save = checkpoint.save
    saved = []

    def save_then_die(folder, step, state):
        path = save(folder, step, state)
        saved.append(step)
        if len(saved) == stop:
            raise SystemError("pulled the plug")
        return path

    monkeypatch.setattr(checkpoint, "save", save_then_die)
    with pytest.raises(SystemError):
        train.fit(config, corpus, tmp_path / "broken", options=QUICK, dropout=DROPOUT)
    monkeypatch.setattr(checkpoint, "save", save)
    train.fit(config, corpus, tmp_path / "broken", options=QUICK, dropout=DROPOUT)
    assert_same_state(state_of(tmp_path / "unbroken"), state_of(tmp_path / "broken"))
    a, b = (weights.read(tmp_path / name / "model.safetensors").tensors for name in ("unbroken", "broken"))
    assert all(np.array_equal(a[k], b[k]) for k in a)
    logs = [
        [(line["step"], line["valid"], line["train"]) for line in metrics(tmp_path / name)]
        for name in ("unbroken", "broken")
    ]
    assert logs[0] == logs[1]


def test_early_stopping(generator, tmp_path):
    config = small_config()
    corpus = small_corpus(generator, config)
    options = replace(QUICK, epochs=200, learning_rate=0.05, patience=2, checkpoint_every=0, schedule="constant")
    result = train.fit(config, corpus, tmp_path, options=options)
    assert result.stopped_early
    assert result.steps == result.best_step + 2 * 2  # two evaluations of two steps
    again = train.fit(config, corpus, tmp_path, options=options)
    assert (again.steps, again.best) == (result.steps, result.best)


def test_interrupt_keeps_the_step(generator, tmp_path):
    config = small_config()
    corpus = small_corpus(generator, config)
    real, calls = corpus.draw, []

    def draw(piece, rng):
        calls.append(piece)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return real(piece, rng)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"stopped after step 3; .*checkpoint-000000003.pt goes on from here"):
        train.fit(config, replace(corpus, draw=draw), tmp_path / "a", options=replace(QUICK, checkpoint_every=0))
    assert signal.getsignal(signal.SIGINT) is before
    options = replace(QUICK, checkpoint_every=0)
    train.fit(config, corpus, tmp_path / "a", options=options)
    train.fit(config, corpus, tmp_path / "b", options=options)
    assert_same_state(state_of(tmp_path / "a"), state_of(tmp_path / "b"))


def test_R46_nan_stops_and_keeps_the_last_good(generator, tmp_path, monkeypatch):
    config = small_config()
    corpus = small_corpus(generator, config)
    forward = train.Recurrent.forward
    steps = []

    def poisoned(self, features, vector=None):
        logits = forward(self, features, vector)
        if self.training:
            steps.append(1)
            if len(steps) == 4:
                logits[0] = logits[0] * float("nan")
        return logits

    monkeypatch.setattr(train.Recurrent, "forward", poisoned)
    with pytest.raises(train.DivergenceError, match=r"step 3: the loss is nan; .*checkpoint-000000003.pt") as error:
        train.fit(config, corpus, tmp_path, options=QUICK)
    assert error.value.step == 3
    kept = checkpoint.load(error.value.path)
    assert kept["step"] == 3
    assert all(torch.isfinite(v).all() for v in kept["model"].values())
    # An infinite gradient under a finite loss is caught as well, before it reaches the weights.
    monkeypatch.setattr(train.Recurrent, "forward", forward)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(float("inf")))
    with pytest.raises(train.DivergenceError, match=r"step 3: the gradient's norm is inf"):
        train.fit(config, corpus, tmp_path, options=QUICK)


def test_R46_other_settings_do_not_resume(generator, tmp_path):
    config = small_config()
    corpus = small_corpus(generator, config)
    train.fit(config, corpus, tmp_path, options=QUICK)
    with pytest.raises(CheckpointError, match=r"same settings, got other train.learning_rate: 0.01, now 0.02"):
        train.fit(config, corpus, tmp_path, options=replace(QUICK, learning_rate=0.02))
    result = train.fit(config, corpus, tmp_path, options=replace(QUICK, learning_rate=0.02), resume=False)
    assert result.steps == 6


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda b: b[: len(b) // 2], "damaged"),
        (lambda b: b[:5000] + bytes([b[5000] ^ 1]) + b[5001:], "damaged"),
        (lambda b: b"", "begins with"),
        (lambda b: b"\0" * len(b), "begins with"),
        (lambda b: b.replace(b"checkpoint 1\n", b"checkpoint 0\n", 1), "expected format version 1, got '0'"),
    ],
)
def test_R46_damaged_checkpoint_offers_the_previous_one(generator, tmp_path, damage, says):
    config = small_config()
    corpus = small_corpus(generator, config)
    train.fit(config, corpus, tmp_path / "a", options=QUICK)
    good = state_of(tmp_path / "a")
    newest, previous = checkpoint.found(tmp_path / "a")
    newest.write_bytes(damage(newest.read_bytes()))
    with pytest.raises(CheckpointError, match=says) as error:
        train.fit(config, corpus, tmp_path / "a", options=QUICK)
    assert str(previous) in str(error.value)
    assert error.value.previous == str(previous)
    train.fit(config, corpus, tmp_path / "a", options=QUICK, resume=error.value.previous)
    assert_same_state(good, state_of(tmp_path / "a"))


def test_nothing_is_unpickled(tmp_path):
    import hashlib
    import pickle

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    body = pickle.dumps(Bomb())
    head = f"musicgen-ext checkpoint 1\n{hashlib.sha256(body).hexdigest()}\n".encode()
    path = tmp_path / "checkpoint-000000001.pt"
    path.write_bytes(head + body)
    with pytest.raises(CheckpointError, match="torch cannot read it"):
        checkpoint.load(path)
    assert not (tmp_path / "exploded").exists()


# Imports torch once; a line on standard input starts a child that saves one checkpoint after the other.
SAVER = """
import os, sys, torch
from pathlib import Path
from musicgen_ext.train import checkpoint
folder = Path(sys.argv[1])
for line in sys.stdin:
    step = int(line)
    child = os.fork()
    if child == 0:
        while True:
            step += 1
            checkpoint.save(folder, step, {"step": step, "model": torch.full((100_000,), float(step))})
            os.write(1, b"saved %d\\n" % step)
    os.write(1, b"child %d\\n" % child)
    os.waitpid(child, 0)
    os.write(1, b"dead\\n")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_R45_killed_at_any_moment_of_a_save(tmp_path):
    """50 kills at random moments: what was reported as saved loads, and at most one temporary file is left."""
    chance = random.Random(5)
    torn = last = 0
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SAVER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as saver:
        assert saver.stdin is not None
        assert saver.stdout is not None
        for _ in range(50):
            checkpoint.clean(tmp_path)
            print(last, file=saver.stdin, flush=True)
            pid, told = None, last
            while pid is None or told == last:
                word, number = saver.stdout.readline().split()
                if word == "child":
                    pid = int(number)
                else:
                    told = int(number)
            time.sleep(chance.uniform(0.0, 0.01))
            os.kill(pid, signal.SIGKILL)
            while (line := saver.stdout.readline().split()) != ["dead"]:
                told = int(line[1])
            left = list(tmp_path.glob(".*.tmp"))
            assert len(left) <= 1
            torn += len(left)
            state = checkpoint.load(checkpoint.found(tmp_path)[0])
            assert state["step"] >= told
            assert bool((state["model"] == state["step"]).all())
            last = state["step"]
        saver.stdin.close()
    assert torn  # some kills did hit the middle of a save
    checkpoint.clean(tmp_path)
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_save_that_fails_is_raised_and_keeps_the_previous(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, {"step": 1})
    (tmp_path / "checkpoint-000000002.pt").mkdir()
    with pytest.raises(IsADirectoryError):
        checkpoint.save(tmp_path, 2, {"step": 2})
    (tmp_path / "checkpoint-000000002.pt").rmdir()

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path, 3, {"step": 3})
    assert checkpoint.load(checkpoint.found(tmp_path)[0]) == {"step": 1}
    assert not list(tmp_path.glob(".*.tmp"))


# -- data, recipes, files ------------------------------------------------------------------------------------------


def write_jsb16(path, generator, pieces=3):
    arrays = {}
    for split in ("train", "valid", "test"):
        lengths = generator.integers(10, 30, pieces)
        pitch = np.stack([generator.integers(low, low + 5, lengths.sum()) for low in (64, 58, 50, 42)], 1)
        pitch += np.repeat(generator.integers(0, 5, pieces), lengths)[:, None]
        pitch[generator.random(pitch.shape) < 0.05] = -1
        arrays[f"{split}_pitch"] = pitch.astype(np.int8)
        arrays[f"{split}_offsets"] = np.cumsum([0, *lengths]).astype(np.int32)
    np.savez(path, **arrays)
    return arrays


def test_jsb16_reads_both_forms_and_checks_the_hash(generator, tmp_path):
    arrays = write_jsb16(tmp_path / "x.npz", generator)
    as_lists = {
        s: [arrays[f"{s}_pitch"][a:b].tolist() for a, b in zip(
            arrays[f"{s}_offsets"][:-1], arrays[f"{s}_offsets"][1:], strict=True)]
        for s in ("train", "valid", "test")
    }  # fmt: skip
    (tmp_path / "x.json").write_text(json.dumps(as_lists))
    with pytest.raises(ValueError, match=r"x.npz: expected the file with SHA-256 cad2.*, got"):
        data.jsb16(tmp_path / "x.npz")
    a, b = (data.jsb16(tmp_path / name, any_hash=True) for name in ("x.npz", "x.json"))
    for split in ("train", "valid", "test"):
        for p, q in zip(getattr(a, split), getattr(b, split), strict=True):
            np.testing.assert_array_equal(p.tokens, q.tokens)
            assert p.shifts == q.shifts
    first = arrays["train_pitch"][: arrays["train_offsets"][1]].astype(int)
    np.testing.assert_array_equal(np.where(a.train[0].tokens > 0, a.train[0].tokens + 35, -1), first[:, [0, 3, 1, 2]])


def test_transpositions_stay_in_the_training_ranges(generator, tmp_path):
    write_jsb16(tmp_path / "x.npz", generator)
    corpus = data.jsb16(tmp_path / "x.npz", any_hash=True)
    together = np.concatenate([p.tokens for p in corpus.train])
    low = [column[column > 0].min() for column in together.T]
    high = together.max(0)
    seen = set()
    for piece in corpus.train:
        for _ in range(40):
            drawn = corpus.draw(piece, generator)
            moved = (drawn.tokens - piece.tokens)[piece.tokens > 0]
            assert len(set(moved.tolist())) == 1
            assert ((drawn.tokens == 0) == (piece.tokens == 0)).all()
            seen.add(int(moved[0]) - piece.shifts[0])
            for column, lowest, highest in zip(drawn.tokens.T, low, high, strict=True):
                assert ((column == 0) | ((column >= lowest) & (column <= highest))).all()
        assert piece.shifts[0] <= 0 <= piece.shifts[1]
    assert {0} < seen


def write_chorales(path, generator):
    names, split = ["a", "b", "c", "d", "e"], ["train", "valid", "test", "extra", "skip"]
    length = 20
    pitch = np.stack([generator.integers(low, low + 5, 5 * length) for low in (66, 60, 54, 45)], 1).astype(np.int8)
    onset = np.ones((5 * length, 4), bool)
    onset[1::2] = False
    pitch[1::2] = pitch[::2]
    np.savez(
        path, pitch=pitch, onset=np.packbits(onset, axis=1), fermata=generator.random(5 * length) < 0.1,
        bar_pos=np.tile(np.concatenate([np.arange(12, 16), np.arange(16)]), 5).astype(np.int16),
        offsets=np.arange(0, 6 * length, length).astype(np.int32), ids=np.array(names), split=np.array(split),
        sharps=np.zeros(5, np.int8), duplicate=np.zeros(5, bool),
    )  # fmt: skip


def test_chorales_are_told_what_is_known(generator, tmp_path):
    write_chorales(tmp_path / "c.npz", generator)
    with pytest.raises(ValueError, match="expected arrays with the digest"):
        data.chorales(tmp_path / "c.npz")
    corpus = data.chorales(tmp_path / "c.npz", any_hash=True)
    assert [p.name for p in corpus.train] == ["a", "d"]
    assert [p.name for p in corpus.valid] == ["b"]
    assert [p.name for p in corpus.test] == ["c"]
    valid = corpus.valid[0]
    assert valid.tokens.shape == (21, 5)
    assert valid.tokens[-1].tolist() == [2, 0, 0, 0, 0]
    assert valid.given["position"].tolist() == [*range(12, 16), *range(16), 0]
    assert set(valid.given["bar_length"]) == {1}
    assert set(valid.given["soprano_next"]) == {0}
    assert set(corpus.variants["nothing known"](valid).given["tonic"]) == {12}
    told = corpus.variants["soprano known"](valid).given["soprano_next"]
    onsets = valid.tokens[:, 1]
    for t in range(20):
        later = [int(x) for x in onsets[t + 1 : 20] if x]
        assert told[t] == (later[0] if later else 48)
    config = recipes.chorale(**SMALL, lags=(4,), copy_lags=(4,))
    assert set(config.given) == set(valid.given)
    unknown = {"position": 0, "tonic": 0, "soprano_next": 0}
    tonics = set()
    for _ in range(60):
        drawn = corpus.draw(corpus.train[0], generator)
        recurrent_features(config, drawn.tokens, drawn.given)
        unknown["position"] += drawn.given["position"][0] == 32
        unknown["tonic"] += drawn.given["tonic"][0] == 12
        unknown["soprano_next"] += drawn.given["soprano_next"][0] == 0
        shift = int((drawn.tokens - corpus.train[0].tokens)[0, 1])
        if drawn.given["tonic"][0] != 12:
            tonics.add((int(drawn.given["tonic"][0]) - shift) % 12)
    assert len(tonics) == 1
    assert 0 < unknown["position"] < unknown["tonic"] < unknown["soprano_next"] < 60


def test_wrong_notes_are_heard_but_never_asked_for(generator, tmp_path):
    write_chorales(tmp_path / "c.npz", generator)
    clean = data.chorales(tmp_path / "c.npz", any_hash=True)
    noisy = data.chorales(tmp_path / "c.npz", any_hash=True, wrong_notes=0.3)
    written = clean.train[0].tokens
    changed = onsets = untouched = 0
    for _ in range(60):
        drawn = noisy.draw(noisy.train[0], generator)
        assert len(set((drawn.tokens - written)[written >= 2].tolist()) - {0}) <= 1  # transposed, else as written
        if drawn.heard is None:
            untouched += 1
            continue
        off = np.abs(drawn.heard - drawn.tokens)
        assert off.max() <= 2
        assert not off[drawn.tokens < 2].any()
        changed, onsets = changed + (off > 0).sum(), onsets + (drawn.tokens[:, 1:] >= 2).sum()
    assert 15 < untouched < 45
    assert 0.2 < changed / onsets < 0.4
    config = recipes.chorale(**SMALL, lags=(4,), copy_lags=(4,))
    higher = np.where((drawn.tokens >= 2) & (drawn.tokens < 47), drawn.tokens + 1, drawn.tokens)
    drawn = replace(drawn, heard=np.concatenate([drawn.tokens[:, :1], higher[:, 1:]], 1))
    batch = data.Collator(config)([drawn])
    assert torch.equal(batch.targets[:, 0], torch.from_numpy(drawn.tokens).long())
    told = recurrent_features(config, drawn.heard, drawn.given)
    assert all(np.array_equal(batch.features[k][:, 0].numpy(), told[k]) for k in told)


@pytest.mark.parametrize(
    ("bass", "others", "expected"),
    [([48], [52, 55, 60], (0, "major")), ([45], [60, 64, 69], (9, "minor")), ([45, 50], [65, 65, 66], (2, "minor"))],
)
def test_find_key(bass, others, expected):
    pitch = np.array([[others[2], others[1], others[0], b] for b in bass])
    assert data.find_key(pitch) == expected


def test_batches_hold_every_piece_once(generator):
    config = small_config()
    pieces = [random_piece(generator, config, int(n), str(i)) for i, n in enumerate(generator.integers(1, 50, 23))]
    for rng in (None, generator):
        chunks = list(data.batches(pieces, 4, rng))
        assert sorted(p.name for c in chunks for p in c) == sorted(p.name for p in pieces)
        assert max(map(len, chunks)) == 4
    twice = [[[p.name for p in c] for c in data.batches(pieces, 4, np.random.default_rng(1))] for _ in range(2)]
    assert twice[0] == twice[1]


RUN = """
[data]
kind = "jsb16"
any_hash = true
[model]
recipe = "jsb16"
hidden_size = 8
head_size = 8
lags = [2]
token_dim = 4
[train]
epochs = 2
batch_size = 2
warmup_steps = 1
[dropout]
layer = 0.1
[card]
licence = "none"
[run]
out = "runs/x"
"""


def test_run_from_toml(generator, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsb16("x.npz", generator)
    Path("x.toml").write_text(RUN)
    result, measured = train.run("x.toml", data_path="x.npz", seed=5)
    assert result.path == Path("runs/x/model.safetensors")
    file = weights.read(result.path)
    config = RecurrentConfig.from_dict(file.config)
    weights.check_tensors(file, config.tensor_shapes())
    assert file.card["licence"] == "none"
    assert file.card["seed"] == 5
    assert file.card["parameters"] == config.num_parameters()
    assert file.card["metrics"]["test"]["nll"] == measured["test"].nll
    assert measured["valid"].nll == pytest.approx(result.best, rel=1e-6)
    assert json.loads(Path("runs/x/results.json").read_text())["seed"] == 5
    # The file holds what was measured.
    module = train.Recurrent(config)
    module.load_state_dict({k: torch.from_numpy(v) for k, v in file.tensors.items()})
    corpus = data.jsb16("x.npz", any_hash=True)
    assert train.evaluate(module, corpus.test).nll == measured["test"].nll


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("[train]", "[training]"), "expected tables out of"),
        (("epochs = 2", "epoch = 2"), "train.epoch: expected keys out of"),
        (("epochs = 2", "epochs = 0"), "train.epochs: expected an integer > 0, got 0"),
        (("layer = 0.1", "layer = 1.0"), r"dropout.layer: expected a probability in \[0, 1\), got 1.0"),
        (('"jsb16"\nhidden', '"jsb17"\nhidden'), "model.recipe: expected one of"),
        (("lags =", "legs ="), "model: .*legs"),
        (('kind = "jsb16"', 'kind = "mp3"'), "data.kind: expected one of"),
        (("[data]", "[data"), "expected a TOML file"),
    ],
)
def test_mistakes_in_toml_are_named(generator, tmp_path, change, says):
    write_jsb16(tmp_path / "x.npz", generator)
    assert change[0] in RUN
    (tmp_path / "x.toml").write_text(RUN.replace(*change, 1))
    with pytest.raises(ValueError, match=says) as error:
        train.run(tmp_path / "x.toml", data_path=tmp_path / "x.npz", out=tmp_path / "out")
    assert "x.toml" in str(error.value)


def test_language_model_from_a_folder_of_tokens(generator, tmp_path):
    for i in range(12):
        np.save(tmp_path / f"{i:02}.npy", generator.integers(0, 5, 30))
    corpus = data.tokens(tmp_path, vocab_size=5)
    assert (len(corpus.train), len(corpus.valid)) == (11, 1)
    assert len(data.tokens(tmp_path, vocab_size=5, valid_share=0.5).valid) == 6
    assert len(data.tokens(tmp_path, vocab_size=5, valid_share=0.01).valid) == 1
    config = RecurrentConfig.language_model("gru", vocab_size=5, embedding_size=4, hidden_size=6, num_layers=1)
    result = train.fit(config, corpus, tmp_path / "run", options=QUICK)
    assert RecurrentConfig.from_dict(weights.read(result.path).config) == config
    with pytest.raises(ValueError, match=r"00.npy: expected ids in 0..3, got"):
        data.tokens(tmp_path, vocab_size=4)
    np.save(tmp_path / "00.npy", generator.random(5))
    with pytest.raises(ValueError, match=r"00.npy: expected integers of shape \(n_tokens,\), got float64"):
        data.tokens(tmp_path, vocab_size=5)


@pytest.mark.parametrize("name", ["jsb16", "jsb16_fakes", "chorale", "language_model"])
def test_shipped_configurations_are_valid(name):
    import tomllib

    path = Path(__file__).parents[1] / "python" / "examples" / f"{name}.toml"
    tables = tomllib.loads(path.read_text())
    config = recipes.model_config(tables["model"])
    assert config.num_parameters() <= 5_000_000
    train.Options(**tables["train"])
    train.Dropout(**tables.get("dropout", {}))


def test_export_round_trip(tmp_path):
    torch.manual_seed(6)
    config = small_config()
    module = train.Recurrent(config)
    for storage in ("float32", "bfloat16", "int8"):
        train.export(module, tmp_path / "m.safetensors", encoding={"name": "test"}, weights=storage)
        file = weights.read(tmp_path / "m.safetensors")
        assert (file.arch, file.weights) == ("recurrent", storage)
        assert RecurrentConfig.from_dict(file.config) == config
    train.export(module, tmp_path / "m.safetensors", encoding={"name": "test"})
    tensors = weights.read(tmp_path / "m.safetensors").tensors
    for name, value in module.state_dict().items():
        np.testing.assert_array_equal(tensors[name], value.numpy())
    with torch.no_grad():
        module.rnn.bias_hh_l1[3] = float("nan")
    with pytest.raises(ValueError, match=r"expected finite parameters, got 'rnn.bias_hh_l1'"):
        train.export(module, tmp_path / "m.safetensors", encoding={"name": "test"})


def test_without_torch_the_extra_is_named(tmp_path):
    code = "import sys; sys.modules['torch'] = None\nimport musicgen_ext.train"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert 'ImportError: training needs torch: pip install "musicgen-ext[train]"' in done.stderr


@pytest.mark.skipif(not SHARED.is_dir(), reason="the corpora lie beside the repository, not in it")
def test_real_corpora_have_their_published_sizes():
    corpus = data.jsb16(SHARED / "jsb_chorales" / "jsb16_separated.npz")
    sizes = {
        s: (len(p), sum(len(x.tokens) for x in p)) for s in ("train", "valid", "test") for p in [getattr(corpus, s)]
    }
    assert sizes == {"train": (229, 55_228), "valid": (76, 18_408), "test": (77, 18_900)}
    chorales = data.chorales(SHARED / "bach_chorales_m21" / "chorales_16th.npz")
    assert [len(s) for s in (chorales.train, chorales.valid, chorales.test)] == [241, 72, 77]
    names = [{p.name for p in s} for s in (chorales.train, chorales.valid, chorales.test)]
    assert len(set.union(*names)) == 241 + 72 + 77
