"""The recurrent engine: twins (numpy, torch), laws (one seed, one piece), and its behaviour at the edges."""

import os
import pickle
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from musicgen_ext import _core, generate, weights
from musicgen_ext.architectures import RecurrentConfig
from musicgen_ext.errors import WeightsError
from musicgen_reference import generate as reference

EPS = float(np.finfo(np.float32).eps)

# Logits of one teacher-forced run against the float64 twin. Rounding errors of a sum of n products of size w·h add up
# like a random walk, and the recurrence passes them on with a gain near one; over 24 steps of up to three layers of 33
# units the worst seen is 4.4 eps of the largest logit, on every path alike since all give the same bits.
TWIN_EPS = 16


def every_kind_config(cell="lstm", hidden_size=19, num_layers=2, combine="concat", vector=True, hidden=23):
    """Two voices with holds and a mark, and at least one feature of each kind."""
    features = [
        {"name": "a1", "kind": "token", "slot": 1, "lag": 1},
        {"name": "b3", "kind": "token", "slot": 2, "lag": 3},
        {"name": "a_sounds", "kind": "sounding", "slot": 1, "lag": 1},
        {"name": "b_sounds_2", "kind": "sounding", "slot": 2, "lag": 2},
        {"name": "a_held", "kind": "held", "slot": 1, "buckets": [1, 2, 4]},
        {"name": "b_held", "kind": "held", "slot": 2, "buckets": [0, 3]},
        {"name": "beat", "kind": "clock", "period": 4, "divide": 1},
        {"name": "bar", "kind": "clock", "period": 3, "divide": 4},
        {"name": "a_match", "kind": "match", "slot": 1},
        {"name": "b_match", "kind": "match", "slot": 2},
        {"name": "match_length", "kind": "match_length", "buckets": [1, 2, 5]},
        {"name": "a_b", "kind": "interval", "slots": [1, 2], "limit": 3},
        {"name": "meter", "kind": "given", "size": 3},
        {"name": "mark_now", "kind": "chosen", "slot": 0},
        {"name": "a_now", "kind": "chosen", "slot": 1},
        {"name": "a_now_sounds", "kind": "chosen_sounding", "slot": 1},
        {"name": "a_step", "kind": "difference", "features": ["a_sounds", "a_match"], "limit": 4},
        {"name": "tonic", "kind": "given", "size": 13},
        {"name": "b_degree", "kind": "degree", "features": ["b_sounds_2", "tonic"], "offset": 5},
        {"name": "a_now_degree", "kind": "degree", "features": ["a_now_sounds", "tonic"], "offset": 0},
        {"name": "b_parallel_now", "kind": "parallel", "features": ["b_sounds_2", "a_now_sounds", "a_sounds"]},
        {"name": "a_parallel", "kind": "parallel", "features": ["a_sounds", "b3", "b_sounds_2"]},
        {"name": "a_b_now", "kind": "difference", "features": ["a_now_sounds", "b_sounds_2"], "limit": 5},
    ]
    past = [f["name"] for f in features if "_now" not in f["name"]]
    return RecurrentConfig.from_dict(
        {
            "cell": cell,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "combine": combine,
            "features": features,
            "trunk": [{"feature": name, "dim": 5 if combine == "sum" else 3 + i % 3} for i, name in enumerate(past)],
            "vector": {"size": 6, "dim": 5} if vector else None,
            "match_window": 8,
            "slots": [
                {"name": "mark", "size": 3, "head": {"hidden_size": hidden, "inputs": ["meter"] if hidden else []}},
                {
                    "name": "a",
                    "size": 11,
                    "first_pitch": 2,
                    "hold": 0,
                    "head": {
                        "hidden_size": hidden,
                        "inputs": ["a1", "a_held", "mark_now", "a_step"] if hidden else [],
                        "relative": [{"feature": "a_sounds", "radius": 3}, {"feature": "b_sounds_2", "radius": 0}],
                        "copy": ["a_match", "a1"],
                        "periodic": [{"feature": "tonic", "offset": 11}, {"feature": "meter", "offset": 0}],
                    },
                },
                {
                    "name": "b",
                    "size": 18,
                    "first_pitch": 1,
                    "head": {
                        "hidden_size": hidden and hidden + 9,
                        "inputs": ["a_now", "a_now_sounds", "a_b_now", "b_match", "a_now_degree", "b_parallel_now"]
                        if hidden
                        else [],
                        "relative": [{"feature": "a_now_sounds", "radius": 20}],
                        "copy": ["b_match", "b_parallel_now"],
                        "periodic": [{"feature": "tonic", "offset": 5}, {"feature": "a_now_sounds", "offset": 3}],
                    },
                },
            ],
        }
    )


def random_file(config, rng, storage="float32", scale=1.0):
    tensors = {}
    for name, shape in config.tensor_shapes().items():
        spread = 0.4 if name.startswith(("trunk", "vector")) or ".input." in name else scale / np.sqrt(shape[-1])
        tensors[name] = (rng.standard_normal(shape) * spread).astype(np.float32)
    file = weights.ModelFile(None, "recurrent", config.to_dict(), {}, {}, tensors, "float32")
    return weights.convert(file, storage)


def language_model(cell, hidden_size, num_layers, rng, storage="float32", vocab_size=37, embedding_size=10):
    config = RecurrentConfig.language_model(
        cell, vocab_size=vocab_size, embedding_size=embedding_size, hidden_size=hidden_size, num_layers=num_layers
    )
    return config, random_file(config, rng, storage)


def meter(n, first=0):
    """What the caller gives to `every_kind_config`: frames `first` to `first + n`."""
    t = np.arange(first, first + n)
    return {"meter": t % 3, "tonic": t % 13}


@pytest.fixture(scope="module")
def voices():
    rng = np.random.default_rng(5)
    config = every_kind_config(vector=False)
    return generate.load(random_file(config, rng, scale=2.0))


# -- twins -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh", "rnn_relu"])
@pytest.mark.parametrize(
    ("hidden_size", "num_layers"), [(1, 1), (7, 1), (15, 2), (16, 2), (17, 2), (31, 1), (32, 1), (33, 3)]
)
@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
def test_language_model_twin(isa, cell, hidden_size, num_layers, storage, rng):
    config, file = language_model(cell, hidden_size, num_layers, rng, storage)
    n = 24
    drawn = generate.load(file).sample(n, seed=1, logits=True)
    _, expected = reference.Recurrent(config, file.tensors).run(n, np.zeros((n, 1)), forced=drawn.tokens[0])
    expected = np.array(expected)[:, 0]
    assert np.abs(drawn.logits[0, :, 0] - expected).max() <= TWIN_EPS * EPS * np.abs(expected).max()


@pytest.mark.parametrize("vocab_size", [1, 16, 17, 192, 193, 260, 388, 500])
def test_vocabulary_seams_twin(isa, vocab_size, rng):
    """A head's rows are cut into tiles of 8 to 12 vectors: every kind of last tile, alone and in a batch."""
    config, file = language_model("lstm", 32, 1, rng, vocab_size=vocab_size)
    drawn = generate.load(file).sample(6, seed=1, num_samples=5, logits=True)
    for b in range(5):
        _, expected = reference.Recurrent(config, file.tensors).run(6, np.zeros((6, 1)), forced=drawn.tokens[b])
        expected = np.array(expected)[:, 0]
        assert np.abs(drawn.logits[b, :, 0] - expected).max() <= TWIN_EPS * EPS * np.abs(expected).max()


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh", "rnn_relu"])
@pytest.mark.parametrize("combine", ["concat", "sum"])
@pytest.mark.parametrize("hidden", [0, 23])
def test_every_feature_twin(isa, cell, combine, hidden, rng):
    config = every_kind_config(cell, combine=combine, hidden=hidden)
    file = random_file(config, rng)
    vector, n = rng.standard_normal(6).astype(np.float32), 40
    drawn = generate.load(file).sample(n, seed=2, given=meter(n), vector=vector, logits=True)
    tokens = drawn.tokens[0]
    _, expected = reference.Recurrent(config, file.tensors).run(
        n, np.zeros((n, 3)), forced=tokens, given=meter(n), vector=vector.astype(np.float64)
    )
    for s, slot in enumerate(config.slots):
        wanted = np.array([row[s] for row in expected])
        assert np.abs(drawn.logits[0, :, s, : slot.size] - wanted).max() <= TWIN_EPS * EPS * np.abs(wanted).max()
        assert np.isneginf(drawn.logits[0, :, s, slot.size :]).all()


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh", "rnn_relu"])
def test_int8_twin(isa, cell, rng):
    """The twin rounds its states in float64, so a state within rounding of a half may become the neighbouring byte.

    Such a byte moves a logit by 1/127 of a weight; all others agree as float32 does.
    """
    config, file = language_model(cell, 33, 2, rng, "int8")
    n = 24
    drawn = generate.load(file).sample(n, seed=1, logits=True)
    _, expected = reference.Recurrent(config, file.tensors, "int8").run(n, np.zeros((n, 1)), forced=drawn.tokens[0])
    expected = np.array(expected)[:, 0]
    error = np.abs(drawn.logits[0, :, 0] - expected) / np.abs(expected).max()
    assert np.median(error) <= TWIN_EPS * EPS
    assert error.max() <= 4 / 127


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.7}, {"temperature": 0.0}, {"top_k": 3}, {"top_p": 0.6}, {"top_k": 6, "top_p": 0.8}],
)
def test_draws_are_the_references(isa, options, rng):
    """The same coins draw the same tokens, except where a coin lies within rounding of another token's share."""
    _config, file = language_model("gru", 20, 1, rng)
    n = 200
    coins = generate.Coins(9, [0]).take(n, 1)[0]
    drawn = generate.load(file).sample(n, seed=9, logits=True, **options)
    differences = 0
    for t in range(n):
        logits = drawn.logits[0, t, 0].astype(np.float64)
        if drawn.tokens[0, t, 0] != reference.draw(logits, coins[t, 0], **options):
            differences += 1
            assert reference.distance_to_edge(logits, coins[t, 0], **options) < 1e-6
    assert differences <= 1


@pytest.mark.parametrize(
    ("cell", "module"), [("lstm", "LSTM"), ("gru", "GRU"), ("rnn_tanh", "RNN"), ("rnn_relu", "RNN")]
)
def test_logits_are_torchs(isa, cell, module, rng):
    """Gate order and both biases are torch's: its own modules, given the same tensors, say the same."""
    torch = pytest.importorskip("torch")
    _config, file = language_model(cell, 48, 2, rng)
    drawn = generate.load(file).sample(32, seed=4, num_samples=3, logits=True)
    options = {"nonlinearity": cell.removeprefix("rnn_")} if module == "RNN" else {}
    network = getattr(torch.nn, module)(10, 48, 2, batch_first=True, **options)
    tensors = {name: torch.from_numpy(array) for name, array in file.tensors.items()}
    network.load_state_dict({n.removeprefix("rnn."): t for n, t in tensors.items() if n.startswith("rnn.")})
    tokens = torch.from_numpy(drawn.tokens[:, :, 0]).long()
    inputs = torch.cat([torch.full((3, 1), 37), tokens[:, :-1]], dim=1)
    with torch.inference_mode():
        out = network(tensors["trunk.token.weight"][inputs])[0]
        expected = (out @ tensors["head.token.output.weight"].T + tensors["head.token.output.bias"]).numpy()
    assert np.abs(drawn.logits[:, :, 0] - expected).max() <= TWIN_EPS * EPS * np.abs(expected).max()


# -- laws --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh", "rnn_relu"])
def test_R38_every_isa_gives_the_same_bits(on_every_isa, cell, storage, rng):
    file = random_file(every_kind_config(cell, hidden_size=37), rng, storage)

    def run():
        return generate.load(file).sample(
            60, seed=3, num_samples=7, given=meter(60), vector=np.ones(6, np.float32), threads=2, logits=True
        )

    results = on_every_isa(run)
    expected = results["baseline"]
    for result in results.values():
        np.testing.assert_array_equal(result.tokens, expected.tokens)
        np.testing.assert_array_equal(result.logits.view(np.int32), expected.logits.view(np.int32))


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
def test_R38_a_sample_does_not_depend_on_its_batch(isa, storage):
    rng = np.random.default_rng(1)
    _, file = language_model("lstm", 40, 2, rng, storage)
    engine = generate.load(file)
    together = engine.sample(50, seed=8, num_samples=64, threads=1).tokens
    np.testing.assert_array_equal(engine.sample(50, seed=8, num_samples=64, threads=2).tokens, together)
    np.testing.assert_array_equal(engine.sample(50, seed=8, num_samples=64, threads=7).tokens, together)
    for i in (0, 1, 17, 63):
        np.testing.assert_array_equal(engine.sample(50, seed=8, index=i).tokens[0], together[i])
    for size in (2, 5, 13):
        np.testing.assert_array_equal(
            engine.sample(50, seed=8, index=3, num_samples=size).tokens, together[3 : 3 + size]
        )


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh", "rnn_relu"])
@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_R38_chunks_are_the_whole(isa, cell, storage):
    rng = np.random.default_rng(2)
    engine = generate.load(random_file(every_kind_config(cell, vector=False), rng, storage))
    whole = engine.sample(50, seed=6, num_samples=3, given=meter(50)).tokens
    coins, state, parts = generate.Coins(6, range(3)), None, []
    for first, last in [(0, 1), (1, 2), (2, 19), (19, 50)]:
        part = engine.sample(last - first, num_samples=3, given=meter(last - first, first), state=state, coins=coins)
        state = pickle.loads(pickle.dumps(part.state))  # a state survives being saved
        parts.append(part.tokens)
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_stream_is_sample(voices):
    whole = voices.sample(30, seed=5, given=meter(30)).tokens[0]
    for block in (1, 7, 30, 100):
        parts = list(voices.stream(30, seed=5, given=meter(30), block=block))
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    stream = voices.stream(30, seed=5, given=meter(30))
    np.testing.assert_array_equal(next(stream)[0], whole[0])
    stream.close()


def test_log_prob_is_the_log_softmax_of_the_loop(isa, voices):
    drawn = voices.sample(25, seed=1, given=meter(25), logits=True, log_probs=True)
    np.testing.assert_array_equal(voices.log_prob(drawn.tokens[0], given=meter(25)), drawn.log_probs[0])
    for t in range(25):
        for s, slot in enumerate(voices.config.slots):
            expected = reference.log_softmax(drawn.logits[0, t, s, : slot.size].astype(np.float64))
            assert abs(drawn.log_probs[0, t, s] - expected[drawn.tokens[0, t, s]]) < 20 * EPS * np.abs(expected).max()


def test_probabilities_sum_to_one(voices):
    """exp(log_prob) over all tokens of the last slot adds up to one: the loop scores a distribution."""
    prefix = voices.sample(6, seed=3, given=meter(6)).tokens[0]
    total = 0.0
    for token in range(voices.config.slots[2].size):
        prefix[-1, 2] = token
        total += np.exp(voices.log_prob(prefix, given=meter(6))[-1, 2])
    assert abs(total - 1) < 1e-6


def test_forced_tokens_stay_and_shape_the_rest(voices):
    forced = np.full((20, 3), -1, np.int32)
    forced[:8] = voices.sample(8, seed=11, given=meter(8)).tokens[0]
    forced[8:, 1] = 4
    drawn = voices.sample(20, seed=12, forced=forced, given=meter(20)).tokens[0]
    np.testing.assert_array_equal(drawn[forced >= 0], forced[forced >= 0])
    # A prompt that the same seed would have drawn changes nothing.
    free = voices.sample(20, seed=11, given=meter(20)).tokens[0]
    forced = np.concatenate([free[:8], np.full((12, 3), -1, np.int32)])
    np.testing.assert_array_equal(voices.sample(20, seed=11, forced=forced, given=meter(20)).tokens[0], free)


def test_only_allowed_tokens_are_drawn(isa, voices):
    allowed = np.zeros((3, 18), bool)
    allowed[0, 0] = allowed[1, [0, 4, 5]] = allowed[2, [3, 17]] = True
    tokens = voices.sample(200, seed=2, given=meter(200), allowed=allowed).tokens[0]
    for s in range(3):
        assert set(np.unique(tokens[:, s])) == set(np.flatnonzero(allowed[s]))
    each = np.repeat(allowed[None], 200, axis=0)
    each[100:, 1, 4] = False
    tokens = voices.sample(200, seed=2, given=meter(200), allowed=each).tokens[0]
    assert 4 in tokens[:100, 1]
    assert 4 not in tokens[100:, 1]


def test_stop_token_ends_a_sequence_alone(voices):
    stop = (0, 2)
    free = voices.sample(60, seed=4, num_samples=6, given=meter(60))
    drawn = voices.sample(60, seed=4, num_samples=6, given=meter(60), stop=stop)
    assert drawn.lengths.min() < 60
    for b in range(6):
        hits = np.flatnonzero(free.tokens[b, :, 0] == 2)
        length = hits[0] + 1 if len(hits) else 60
        assert drawn.lengths[b] == length
        np.testing.assert_array_equal(drawn.tokens[b, :length], free.tokens[b, :length])
        assert (drawn.tokens[b, length:] == -1).all()
    parts = list(voices.stream(60, seed=4, given=meter(60), stop=stop))
    np.testing.assert_array_equal(np.concatenate(parts), drawn.tokens[0, : drawn.lengths[0]])


def test_greedy_takes_the_first_of_equals(isa, rng):
    _config, file = language_model("lstm", 8, 1, rng)
    file.tensors["head.token.output.weight"][:] = 0
    file.tensors["head.token.output.bias"][:] = 0
    file.tensors["head.token.output.bias"][[5, 20]] = 3
    assert set(generate.load(file).sample(10, temperature=0).tokens.ravel()) == {5}


def test_draws_follow_the_distribution(isa, rng):
    """Without a state to speak of, 20,000 draws fall as the softmax says (chi-squared, 1 % level: 36 degrees, 58.6)."""
    _config, file = language_model("rnn_tanh", 4, 1, rng)
    file.tensors["head.token.output.weight"][:] = 0
    tokens = generate.load(file).sample(20_000, seed=3).tokens.ravel()
    p = np.exp(reference.log_softmax(file.tensors["head.token.output.bias"].astype(np.float64)))
    assert ((np.bincount(tokens, minlength=37) - 20_000 * p) ** 2 / (20_000 * p)).sum() < 58.6


# -- edges -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"temperature": float("nan")}, ValueError, "temperature: expected a finite number >= 0"),
        ({"temperature": float("inf")}, ValueError, "temperature"),
        ({"temperature": -0.1}, ValueError, "got -0.1"),
        ({"temperature": "hot"}, TypeError, "temperature"),
        ({"top_k": 0}, ValueError, r"top_k: expected an integer in \[1, 18\], got 0"),
        ({"top_k": 19}, ValueError, "top_k"),
        ({"top_k": 2.5}, TypeError, "top_k"),
        ({"top_p": 0.0}, ValueError, r"top_p: expected a number in \(0, 1\]"),
        ({"top_p": 1.01}, ValueError, "top_p"),
        ({"top_p": float("nan")}, ValueError, "top_p"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": 1 << 64}, ValueError, "seed"),
        ({"seed": 1.5}, TypeError, "seed"),
        ({"num_samples": 0}, ValueError, "num_samples"),
        ({"threads": 0}, ValueError, "threads"),
        ({"forced": np.full((8, 3), 99)}, ValueError, "forced"),
        ({"forced": np.full((7, 3), 0)}, ValueError, r"forced: expected shape \(8, 3\)"),
        ({"forced": np.full((8, 3), 0.5)}, TypeError, "forced"),
        ({"given": {}}, ValueError, r"given: expected the features \['meter', 'tonic'\]"),
        ({"given": {**meter(8), "meter": np.full(8, 3)}}, ValueError, "given 'meter'"),
        ({"given": {**meter(8), "tonic": np.full(8, -1)}}, ValueError, "given 'tonic'"),
        ({"vector": np.ones(2)}, ValueError, "vector"),
        ({"allowed": np.zeros((3, 18), bool)}, ValueError, "allowed: no token is left for slot 'mark' at frame 0"),
        ({"allowed": np.ones((3, 17), bool)}, ValueError, "allowed: expected"),
        ({"stop": (3, 0)}, ValueError, "stop slot"),
        ({"stop": (0, 3)}, ValueError, "stop token"),
    ],
)
def test_R36_arguments_are_checked(voices, arguments, error, words):
    with pytest.raises(error, match=words):
        voices.sample(8, **{"given": meter(8), **arguments})


@pytest.mark.parametrize("n_frames", [0, -1, 1 << 40])
def test_R36_lengths_are_checked(voices, n_frames):
    with pytest.raises(ValueError, match="n_frames"):
        voices.sample(n_frames, given=meter(1))


def test_R37_extreme_logits_are_sampled_in_order(isa, rng):
    _config, file = language_model("lstm", 8, 1, rng)
    file.tensors["head.token.output.weight"][:] = 0
    bias = file.tensors["head.token.output.bias"]
    bias[:] = -1e38
    bias[7] = 1e38
    engine = generate.load(file)
    for options in (
        {},
        {"temperature": 1e-30},
        {"temperature": 1e-320},
        {"temperature": 0},
        {"top_p": 1e-9},
        {"temperature": 1e30, "top_k": 1},
    ):
        assert set(engine.sample(20, **options).tokens.ravel()) == {7}
    assert len(set(engine.sample(400, temperature=3e38).tokens.ravel())) > 10  # as good as uniform
    assert np.isfinite(engine.log_prob([[7], [7]])).all()


def test_R37_tokens_outside_the_vocabulary_are_refused(voices):
    with pytest.raises(ValueError, match=r"tokens: expected \[0, 10\] in slot 'a', got 11 at frame 1"):
        voices.log_prob([[0, 0, 0], [0, 11, 0]], given=meter(2))
    with pytest.raises(ValueError, match="tokens: expected shape"):
        voices.log_prob([0, 1, 2], given=meter(3))
    assert voices.log_prob(np.zeros((0, 3), np.int32), given=meter(0)).shape == (0, 3)


def test_R33_configs_out_of_bounds_are_refused_before_building(rng):
    config, file = language_model("lstm", 8, 1, rng)
    for key, value in [("num_layers", 10**9), ("hidden_size", 0), ("cell", "qrnn"), ("slots", [])]:
        file.config = {**config.to_dict(), key: value}
        with pytest.raises(WeightsError, match=f"config.{key}"):
            generate.load(file)
    file.config = {**config.to_dict(), "hidden_size": 9}
    with pytest.raises(WeightsError, match="misshapen"):
        generate.load(file)


def test_a_state_of_another_model_is_refused(voices, rng):
    _, file = language_model("lstm", 8, 1, rng)
    with pytest.raises(ValueError, match="state: expected one of this model"):
        voices.sample(4, given=meter(4), state=generate.load(file).start(1))
    with pytest.raises(ValueError, match="state: expected one of 2 sequences"):
        voices.sample(4, num_samples=2, given=meter(4), state=voices.start(1))


def test_R41_one_engine_in_many_threads(voices):
    expected = [voices.sample(200, seed=i, given=meter(200)).tokens for i in range(8)]
    got = [None] * 8

    def work(i):
        got[i] = voices.sample(200, seed=i, given=meter(200), num_samples=1, threads=2).tokens

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def run_python(code, *arguments, env=None, timeout=120):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=env,
        check=False,
    )


LARGE = """
    import os, signal, sys, threading, time
    import numpy as np
    from musicgen_ext import generate, weights
    from musicgen_ext.architectures import RecurrentConfig
    config = RecurrentConfig.language_model("lstm", vocab_size=64, embedding_size=16, hidden_size=512, num_layers=2)
    rng = np.random.default_rng(0)
    tensors = {n: (rng.standard_normal(s) * 0.05).astype(np.float32) for n, s in config.tensor_shapes().items()}
    engine = generate.load(weights.ModelFile(None, "recurrent", config.to_dict(), {}, {}, tensors, "float32"))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("batch", [1, 40])
def test_R39_ctrl_c_ends_a_long_call_and_the_engine_lives_on(batch):
    code = (
        LARGE
        + """
    before = engine.sample(20, seed=1).tokens
    sent = [0.0]
    def interrupt():
        time.sleep(0.5)
        sent[0] = time.perf_counter()
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()
    try:
        engine.sample(1 << 20, num_samples=int(sys.argv[1]), threads=2)
    except KeyboardInterrupt:
        print("delay", time.perf_counter() - sent[0])
    assert (engine.sample(20, seed=1).tokens == before).all()
    print("alive")
    """
    )
    # 2^20 frames take minutes. On an idle machine the delay is below 0.1 s; a busy one is given a second.
    result = run_python(code, str(batch))
    assert "alive" in result.stdout, result.stderr
    assert float(result.stdout.split()[1]) < 1.0


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(
    "work", ["engine.sample(1 << 20, num_samples=40, threads=2)", "[engine.sample(3) for _ in iter(int, 1)]"]
)
def test_R40_exit_with_work_in_a_daemon_thread(work):
    code = (
        LARGE
        + """
    for _ in range(4):
        threading.Thread(target=lambda: eval(sys.argv[1]), daemon=True).start()
    time.sleep(0.3)
    print("leaving")
    """
    )
    result = run_python(code, work)
    assert result.returncode == 0, result.stderr
    assert "terminate" not in result.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_R42_fork_also_during_a_call():
    code = (
        LARGE
        + """
    import warnings
    warnings.simplefilter("ignore")  # Python warns of any fork with threads
    expected = engine.sample(10, seed=1, num_samples=8, threads=2).tokens
    thread = threading.Thread(target=lambda: engine.sample(200, num_samples=8, threads=2))
    thread.start()
    pid = os.fork()
    if pid == 0:
        same = (engine.sample(10, seed=1, num_samples=8, threads=2).tokens == expected).all()
        os._exit(0 if same else 1)
    status = os.waitpid(pid, 0)[1]
    thread.join()
    assert status == 0, status
    print("same")
    """
    )
    result = run_python(code)
    assert "same" in result.stdout, result.stderr


def test_R43_an_error_in_a_worker_thread_reaches_the_caller(voices):
    allowed = np.ones((30, 3, 18), bool)
    allowed[29, 2] = False
    for threads in (1, 2, 5):
        with pytest.raises(ValueError, match="allowed: no token is left for slot 'b' at frame 29"):
            voices.sample(30, num_samples=5, given=meter(30), allowed=allowed, threads=threads)
    assert threading.active_count() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="counts through LD_PRELOAD")
def test_R44_no_allocation_and_no_lock_in_a_step(tmp_path):
    """malloc and pthread_mutex_lock are counted around calls of 400 and of 2,000 steps: 1,600 steps add nothing.

    The counter itself is proven by calls from Python, one for every step, which do allocate.
    """
    source, library = Path(__file__).parent / "cpp/counter.c", tmp_path / "counter.so"
    built = subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", str(source), "-o", str(library), "-ldl"],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        pytest.skip(f"needs a C compiler: {built.stderr[:200]}")
    code = """
    import ctypes, sys
    import numpy as np
    sys.path[:0] = [sys.argv[2], sys.argv[3]]
    from test_generate import every_kind_config, random_file, meter
    from musicgen_ext import generate
    counter = ctypes.CDLL(sys.argv[1])
    counter.counter_stop.restype = ctypes.c_long
    def count(function):
        function()
        best = []
        for which in (0, 1):
            counter.counter_start(); function(); best.append(counter.counter_stop(which))
        return best
    for cell, storage in (("lstm", "float32"), ("gru", "int8"), ("rnn_relu", "bfloat16")):
        engine = generate.load(random_file(every_kind_config(cell, vector=False), np.random.default_rng(0), storage))
        for batch, threads in ((1, 1), (6, 2)):
            def run(n):
                coins = generate.Coins(1, range(batch)).take(n, 3)
                class Fixed:
                    def take(self, *shape): return coins
                given = meter(n)
                options = {"top_k": 5, "top_p": 0.9, "log_probs": True, "threads": threads}
                return lambda: engine.sample(n, num_samples=batch, given=given, coins=Fixed(), **options)
            few, many = count(run(400)), count(run(2000))  # numpy keeps small arrays aside
            assert few[0] == many[0], ("allocations", cell, storage, batch, few, many)
            # Signals are looked for every 20 ms, under Python's lock: a few times a call, not once a step.
            assert many[1] - few[1] < 100, ("locks", cell, storage, batch, few, many)
    stepwise = [count(lambda: [engine.sample(1, given=meter(1)) for _ in range(n)])[0] for n in (5, 40)]
    assert stepwise[1] > stepwise[0] + 30, stepwise
    print("counted")
    """
    here = Path(__file__).parent
    result = run_python(
        code, str(library), str(here), str(here.parent / "python"), env={**os.environ, "LD_PRELOAD": str(library)}
    )
    assert "counted" in result.stdout, result.stderr


def test_packed_weights_are_as_large_as_they_should_be(rng):
    config = RecurrentConfig.language_model("lstm", vocab_size=64, embedding_size=16, hidden_size=256, num_layers=2)
    sizes = {s: generate.load(random_file(config, rng, s)).packed_bytes for s in ("float32", "bfloat16", "int8")}
    table, products = 65 * 1024 * 4, (3 * 1024 + 64) * 256
    for storage, width in (("float32", 4), ("bfloat16", 2), ("int8", 1)):
        assert products * width + table <= sizes[storage] <= 1.06 * (products * width + table) + 40_000


def test_build_names_its_paths():
    assert _core.isas_available()[0] == "baseline"
    assert _core.isa_in_use() == _core.isas_available()[-1]


def test_an_unknown_path_is_refused(monkeypatch):
    monkeypatch.setenv("MUSICGEN_EXT_CPU", "sse9")
    with pytest.raises(ValueError, match="MUSICGEN_EXT_CPU: expected one of baseline"):
        _core.isa_in_use()


def test_coins_make_normal_numbers():
    drawn = generate.Coins(3, range(40)).normals(5, 70)
    assert drawn.shape == (40, 5, 70)
    assert drawn.dtype == np.float32
    count = drawn.size  # means of count numbers: 5 standard errors
    assert abs(drawn.mean()) < 5 / np.sqrt(count)
    assert abs(np.square(drawn).mean() - 1) < 5 * np.sqrt(2 / count)
    assert abs((drawn > 1).mean() - 0.158655) < 5 * np.sqrt(0.1335 / count)
    assert (np.rint(drawn * 2.0**20) == drawn * 2.0**20).all()


def test_normal_numbers_in_chunks_are_those_at_once():
    whole = generate.Coins(3, [7, 9]).normals(6, 5)
    coins = generate.Coins(3, [7, 9])
    np.testing.assert_array_equal(np.concatenate([coins.normals(2, 5), coins.normals(4, 5)], 1), whole)
