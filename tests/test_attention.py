"""The attention engine: twins (numpy, torch), laws (one seed, one piece), its edges; training, and being told."""

import os
import pickle
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from musicgen_ext import Note, Score, encodings, generate, weights
from musicgen_ext.architectures import AttentionConfig
from musicgen_ext.errors import WeightsError
from musicgen_ext.model import ToldModel
from musicgen_reference import attention as reference
from musicgen_reference import generate as draws

EPS = float(np.finfo(np.float32).eps)

# Logits of one teacher-forced run against the float64 twin, in eps of the largest. Rounding errors of sums of n
# products grow like a random walk and pass the residual stream with a gain near one, twice a layer; worst seen: 20.
TWIN_EPS = 64

MEMORY = {"vocab_size": 9, "num_layers": 2, "context": 40, "reach": 5, "advances": [0, 1, 2, 0, 0, 7, 1, 0, 0]}


def config_of(width=48, num_heads=3, num_layers=2, mlp_size=80, context=11, *, memory=False, **changes):
    return AttentionConfig.from_dict(
        {
            "vocab_size": 37,
            "width": width,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "mlp_size": mlp_size,
            "context": context,
            "distances": [1, 2, 3, 5, 9],
            "advances": [i % 3 for i in range(37)] if memory else [],
            "memory": (MEMORY if memory is True else memory) or None,
            **changes,
        }
    )


def random_file(config, rng, storage="float32"):
    tensors = {}
    for name, shape in config.tensor_shapes().items():
        spread = 0.5 if len(shape) == 1 or "distance" in name or "place" in name else 1.5 / np.sqrt(shape[-1])
        tensors[name] = (rng.standard_normal(shape) * spread).astype(np.float32)
        if "norm" in name or "before" in name:
            tensors[name] += name.endswith("weight")
    file = weights.ModelFile(None, "attention", config.to_dict(), {}, {}, tensors, "float32")
    return weights.convert(file, storage)


@pytest.fixture(scope="module")
def told():
    """A small model with an encoder, and what it is told."""
    rng = np.random.default_rng(3)
    return generate.load(random_file(config_of(memory=True), rng)), rng.integers(0, 9, 21).astype(np.int32)


def bits(logits):
    return logits.view(np.int32)


# -- twins -------------------------------------------------------------------------------------------------------------

SHAPES = [
    {"width": 16, "num_heads": 1, "num_layers": 1, "mlp_size": 16, "context": 1},
    {"width": 96, "num_heads": 2, "activation": "relu", "tied": True, "context": 50},
    {"width": 64, "num_heads": 1, "activation": "gated", "memory": True},
    {"width": 160, "num_heads": 2, "num_layers": 3, "context": 17, "memory": True, "tied": True},
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
def test_twin(isa, shape, storage, rng):
    """The twin rounds cached numbers and bytes in float64: one within rounding of a half may go the other way.

    Such a one moves a logit by its share of a bfloat16's or byte's last bit; where none does, float32 agrees.
    """
    config = config_of(**shape)
    file = random_file(config, rng, storage)
    n, memory = 40, rng.integers(0, 9, 21).astype(np.int32) if config.memory else None
    drawn = generate.load(file).sample(n, seed=1, memory=memory, logits=True)
    twin = reference.Attention(config, file.tensors, storage)
    _, expected = twin.run(n, np.zeros(n), forced=drawn.tokens[0, :, 0], memory=() if memory is None else memory)
    error = np.abs(drawn.logits[0, :, 0] - expected).max(axis=1) / np.abs(expected).max()
    if storage == "float32":
        assert error.max() <= TWIN_EPS * EPS
    else:
        assert error.max() <= {"bfloat16": 2**-7, "int8": 6 / 127}[storage]
        assert np.median(error) <= {"bfloat16": 2**-12, "int8": 1.5 / 127}[storage]


@pytest.mark.parametrize("options", [{}, {"temperature": 0.0}, {"top_k": 6, "top_p": 0.8}])
def test_draws_are_the_references(isa, options, rng):
    """The same coins draw the same tokens, except where a coin lies within rounding of another token's share."""
    n = 100
    coins = generate.Coins(9, [0]).take(n, 1)[0, :, 0]
    drawn = generate.load(random_file(config_of(), rng)).sample(n, seed=9, logits=True, **options)
    differences = 0
    for t in range(n):
        logits = drawn.logits[0, t, 0].astype(np.float64)
        if drawn.tokens[0, t, 0] != draws.draw(logits, coins[t], **options):
            differences += 1
            assert draws.distance_to_edge(logits, coins[t], **options) < 1e-6
    assert differences <= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_torchs(shape, rng):
    torch = pytest.importorskip("torch")
    from musicgen_ext.train.models import Attention

    config = config_of(**shape)
    file = random_file(config, rng)
    module = Attention(config).eval()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in file.tensors.items()})
    memory = rng.integers(0, 9, (3, 13)).astype(np.int32)
    memory[1, 7:], memory[2] = -1, -1
    drawn = generate.load(file).sample(40, seed=2, num_samples=3, logits=True, memory=memory if config.memory else None)
    previous = np.concatenate([np.full((3, 1), 37), drawn.tokens[:, :-1, 0]], 1)
    places = np.cumsum(np.append(config.advances or np.zeros(37, int), 0)[previous], 1)
    with torch.inference_mode():
        expected = module(
            torch.from_numpy(previous).long(),
            torch.from_numpy(memory).long() if config.memory else None,
            torch.from_numpy(places),
        ).numpy()
    assert np.abs(drawn.logits[:, :, 0] - expected).max() <= TWIN_EPS * EPS * np.abs(expected).max()


# -- laws --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("shape", [{"width": 96, "num_heads": 2, "memory": True}, {"width": 320, "num_heads": 4}])
def test_R38_every_isa_gives_the_same_bits(on_every_isa, shape, storage, rng):
    config = config_of(context=70, activation="gated" if "memory" in shape else "gelu", **shape)
    file = random_file(config, rng, storage)
    memory = rng.integers(0, 9, 40).astype(np.int32) if config.memory else None

    def run():
        engine = generate.load(file)
        return engine.sample(90, seed=3, num_samples=3, memory=memory, threads=2, logits=True)

    results = on_every_isa(run)
    for result in results.values():
        np.testing.assert_array_equal(result.tokens, results["baseline"].tokens)
        np.testing.assert_array_equal(bits(result.logits), bits(results["baseline"].logits))


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
def test_R38_a_sample_does_not_depend_on_its_batch(isa, storage, rng):
    engine = generate.load(random_file(config_of(memory=True), rng, storage))
    memory = rng.integers(0, 9, (53, 12)).astype(np.int32)
    together = engine.sample(30, seed=8, num_samples=53, memory=memory, threads=1)
    for threads in (2, 7):
        again = engine.sample(30, seed=8, num_samples=53, memory=memory, threads=threads)
        np.testing.assert_array_equal(again.tokens, together.tokens)
    for first, size in ((0, 1), (52, 1), (3, 2), (7, 13)):
        part = engine.sample(
            30, seed=8, index=first, num_samples=size, memory=memory[first : first + size], logits=True
        )
        np.testing.assert_array_equal(part.tokens, together.tokens[first : first + size])
    same = engine.sample(30, seed=8, num_samples=4, memory=memory[0])
    for i in range(4):  # a memory that all share is each one's own
        np.testing.assert_array_equal(engine.sample(30, seed=8, index=i, memory=memory[0]).tokens[0], same.tokens[i])


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_R38_chunks_are_the_whole(isa, storage, rng):
    engine = generate.load(random_file(config_of(memory=True, context=20), rng, storage))
    memory = rng.integers(0, 9, 12).astype(np.int32)
    whole = engine.sample(90, seed=6, num_samples=3, memory=memory, logits=True)
    coins, state, parts = generate.Coins(6, range(3)), engine.start(3, memory=memory), []
    for first, last in [(0, 1), (1, 2), (2, 19), (19, 21), (21, 90)]:
        part = engine.sample(last - first, num_samples=3, state=state, coins=coins, logits=True)
        state = pickle.loads(pickle.dumps(part.state))  # a state survives being saved
        parts.append(bits(part.logits))
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), bits(whole.logits))
    # Known tokens go in blocks, to the same effect; and a state may be gone on from twice.
    known = engine.sample(90, num_samples=3, memory=memory, forced=whole.tokens, logits=True)
    np.testing.assert_array_equal(bits(known.logits), bits(whole.logits))
    again = [engine.sample(5, seed=1, num_samples=3, state=state).tokens for _ in range(2)]
    np.testing.assert_array_equal(*again)


def test_a_layer_forgets_what_lies_beyond_its_context(isa, rng):
    """One layer of context 11: logits depend on the last 11 tokens, and on the eleventh of them."""
    engine = generate.load(random_file(config_of(num_layers=1), rng))
    tokens = rng.integers(0, 37, (30, 1))
    before = engine.sample(30, forced=tokens, logits=True).logits[0, -1, 0]
    tokens[17] = (tokens[17] + 1) % 37
    assert np.abs(engine.sample(30, forced=tokens, logits=True).logits[0, -1, 0] - before).max() == 0
    tokens[18] = (tokens[18] + 1) % 37
    assert np.abs(engine.sample(30, forced=tokens, logits=True).logits[0, -1, 0] - before).max() > 1e-4


def test_stream_is_sample(told):
    engine, memory = told
    whole = engine.sample(30, seed=5, memory=memory).tokens[0]
    for block in (1, 7, 100):
        parts = list(engine.stream(30, seed=5, memory=memory, block=block))
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    stop = (0, int(whole[9, 0]))
    parts = list(engine.stream(30, seed=5, memory=memory, stop=stop))
    np.testing.assert_array_equal(np.concatenate(parts), whole[: np.flatnonzero(whole[:, 0] == stop[1])[0] + 1])


def test_log_prob_is_the_log_softmax_of_the_loop(isa, told):
    engine, memory = told
    drawn = engine.sample(60, seed=1, memory=memory, logits=True, log_probs=True)
    np.testing.assert_array_equal(engine.log_prob(drawn.tokens[0], memory=memory), drawn.log_probs[0])
    for t in range(60):
        expected = draws.log_softmax(drawn.logits[0, t, 0].astype(np.float64))
        assert abs(drawn.log_probs[0, t, 0] - expected[drawn.tokens[0, t, 0]]) < 20 * EPS * np.abs(expected).max()


def test_what_it_is_told_matters(told):
    engine, memory = told
    tokens = engine.sample(20, seed=1, memory=memory).tokens[0]
    others = [engine.log_prob(tokens, memory=m).sum() for m in (memory, memory[::-1], memory[:-1], None)]
    assert len(set(others)) == 4


def test_forced_masked_and_stopped(isa, told):
    engine, memory = told
    forced = np.full((60, 1), -1)
    forced[:50] = 4
    forced[55] = 5
    drawn = engine.sample(60, seed=12, forced=forced, memory=memory).tokens[0]
    np.testing.assert_array_equal(drawn[forced >= 0], forced[forced >= 0])
    allowed = np.zeros((60, 1, 37), bool)
    allowed[:, 0, [3, 17]] = allowed[30:, 0, 20] = True
    tokens = engine.sample(60, seed=2, memory=memory, allowed=allowed, temperature=9.0).tokens[0, :, 0]
    assert set(tokens[:30]) == {3, 17}
    assert 20 in tokens[30:]
    free = engine.sample(60, seed=4, num_samples=6, memory=memory)
    stopped = engine.sample(60, seed=4, num_samples=6, memory=memory, stop=(0, 2))
    assert stopped.lengths.min() < 60
    for b in range(6):
        hits = np.flatnonzero(free.tokens[b, :, 0] == 2)
        length = hits[0] + 1 if len(hits) else 60
        assert stopped.lengths[b] == length
        np.testing.assert_array_equal(stopped.tokens[b, :length], free.tokens[b, :length])
        assert (stopped.tokens[b, length:] == -1).all()
    # A prompt with the stop token in it ends there, block or not.
    forced[20] = 9
    assert engine.sample(60, forced=forced, stop=(0, 9)).lengths[0] == 21


# -- edges -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"temperature": float("nan")}, ValueError, "temperature: expected a finite number >= 0"),
        ({"top_k": 38}, ValueError, r"top_k: expected an integer in \[1, 37\]"),
        ({"top_p": 0.0}, ValueError, r"top_p: expected a number in \(0, 1\]"),
        ({"seed": 1 << 64}, ValueError, "seed"),
        ({"num_samples": 0}, ValueError, "num_samples"),
        ({"threads": 0}, ValueError, "threads"),
        ({"forced": np.full((8, 1), 37)}, ValueError, "forced: expected values in"),
        ({"forced": np.full((7, 1), 0)}, ValueError, r"forced: expected shape \(8, 1\)"),
        ({"given": {"meter": [0]}}, ValueError, "given: expected none"),
        ({"memory": [9]}, ValueError, r"memory: expected values in \[0, 8\]"),
        ({"memory": [0, -1, 0]}, ValueError, "memory: expected values"),
        ({"memory": np.zeros(41, int)}, ValueError, "memory: expected at most 40 tokens, got 41"),
        ({"memory": np.zeros((2, 3), int), "num_samples": 3}, ValueError, "memory: expected 1 or 3 sequences, got 2"),
        ({"memory": np.zeros((1, 1, 3), int)}, ValueError, "memory: expected shape"),
        ({"memory": [0.5]}, TypeError, "memory: expected integers"),
        ({"allowed": np.zeros((1, 37), bool)}, ValueError, "allowed: no token is left at frame 0"),
        ({"allowed": np.ones((1, 36), bool)}, ValueError, "allowed: expected"),
        ({"stop": (1, 0)}, ValueError, "stop slot"),
        ({"stop": (0, 37)}, ValueError, "stop token"),
    ],
)
def test_R36_arguments_are_checked(told, arguments, error, words):
    with pytest.raises(error, match=words):
        told[0].sample(8, **arguments)


def test_R36_states_and_lengths_are_checked(told, rng):
    engine, memory = told
    for n in (0, -1, 1 << 40):
        with pytest.raises(ValueError, match="n_frames"):
            engine.sample(n)
    other = generate.load(random_file(config_of(width=32, num_heads=1), rng))
    with pytest.raises(ValueError, match="state: expected one of this model"):
        other.sample(4, state=engine.sample(1, memory=memory).state)
    with pytest.raises(ValueError, match="state: expected one of 2 sequences"):
        engine.sample(4, num_samples=2, state=engine.start(1))
    with pytest.raises(ValueError, match="memory: expected None with a state"):
        engine.sample(4, state=engine.start(1), memory=memory)
    with pytest.raises(ValueError, match="memory: expected None for a model without an encoder"):
        other.sample(4, memory=memory)
    assert engine.log_prob(np.zeros((0, 1), int)).shape == (0, 1)
    with pytest.raises(ValueError, match=r"tokens: expected \[0, 36\], got 37 at frame 1"):
        engine.log_prob([[0], [37]])


def test_R37_extreme_logits_are_sampled_in_order(isa, rng):
    config = config_of(width=16, num_heads=1)
    file = random_file(config, rng)
    file.tensors["output.weight"][:] = 0
    file.tensors["output.bias"][:] = -1e38
    file.tensors["output.bias"][7] = 1e38
    engine = generate.load(file)
    for options in ({}, {"temperature": 1e-30}, {"temperature": 0}, {"top_p": 1e-9}):
        assert set(engine.sample(20, **options).tokens.ravel()) == {7}
    for name in file.tensors:  # scores far beyond what a softmax can tell apart
        if "qkv" in name:
            file.tensors[name] *= 1e6
    assert np.isfinite(generate.load(file).sample(20, log_probs=True, forced=np.full((20, 1), 7)).log_probs).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_layers": 10**9}, "config.num_layers: expected an integer in"),
        ({"width": 40}, "config.width: expected a multiple of 16 for each of 3 heads, got 40"),
        ({"mlp_size": 20}, "config.mlp_size: expected a multiple of 16"),
        ({"context": 0}, "config.context"),
        ({"distances": [2, 1]}, "config.distances: expected ascending thresholds"),
        ({"activation": "swish"}, "config.activation"),
        ({"tied": 1}, "config.tied: expected true or false"),
        ({"advances": [1]}, "config.advances: expected one for each of 37 tokens"),
        ({"advances": []}, "config.advances: expected 37"),
        ({"memory": {**MEMORY, "vocab_size": 8}}, "config.memory.advances"),
        ({"memory": {**MEMORY, "reach": -1}}, "config.memory.reach"),
        ({"heads": 3}, "config: expected keys out of"),
        ({"width": 4080, "num_heads": 1, "num_layers": 64, "context": 65536}, "config.context: expected a cache of"),
        ({"mlp_size": 96}, "misshapen"),
    ],
)
def test_R32_R33_files_that_do_not_fit_are_refused_before_building(rng, change, words):
    config = config_of(memory=True)
    file = random_file(config, rng)
    file.config = {**config.to_dict(), **change}
    with pytest.raises(WeightsError, match=words):
        generate.load(file)


def test_R32_missing_and_extra_tensors_are_all_named(rng):
    file = random_file(config_of(memory=True), rng)
    file.tensors["layers.9.more"] = file.tensors.pop("memory.place.weight")
    del file.tensors["layers.0.attention.qkv.bias"]
    with pytest.raises(
        WeightsError, match=r"(?s)layers\.0\.attention\.qkv\.bias.*memory\.place\.weight.*layers\.9\.more"
    ):
        generate.load(file)


LARGE = """
import numpy as np
from musicgen_ext import generate, weights
from musicgen_ext.architectures import AttentionConfig
config = AttentionConfig(64, 256, 2, 4, 1024, 256)
rng = np.random.default_rng(0)
tensors = {n: (rng.standard_normal(s) * 0.05).astype(np.float32) for n, s in config.tensor_shapes().items()}
engine = generate.load(weights.ModelFile(None, "attention", config.to_dict(), {}, {}, tensors, "float32"))
before = engine.sample(20, seed=1).tokens
"""


@pytest.mark.parametrize("batch", [1, 60])
def test_R39_ctrl_c_ends_a_long_call_and_the_engine_lives_on(ctrl_c, batch):
    # 2^20 tokens take minutes. On an idle machine the delay is below 0.1 s; a busy one is given a second.
    call = f"engine.sample(1 << 20, num_samples={batch}, threads=2)"
    assert ctrl_c(LARGE, call, "assert (engine.sample(20, seed=1).tokens == before).all()") < 1.0


def test_R41_one_engine_in_many_threads(told):
    engine, memory = told
    expected = [engine.sample(60, seed=i, memory=memory).tokens for i in range(4)]
    got = [None] * 4

    def work(i):
        got[i] = engine.sample(60, seed=i, memory=memory, threads=2).tokens

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(got, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_R42_fork(told):
    engine, memory = told
    expected = engine.sample(10, seed=1, num_samples=4, memory=memory, threads=2).tokens
    pid = os.fork()
    if pid == 0:
        same = (engine.sample(10, seed=1, num_samples=4, memory=memory, threads=2).tokens == expected).all()
        os._exit(0 if same else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_R43_an_error_in_a_worker_thread_reaches_the_caller(told):
    allowed = np.ones((30, 1, 37), bool)
    allowed[29] = False
    for threads in (1, 3):
        with pytest.raises(ValueError, match="allowed: no token is left at frame 29"):
            told[0].sample(30, num_samples=5, allowed=allowed, threads=threads)
    assert threading.active_count() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="counts through LD_PRELOAD")
def test_R44_no_allocation_and_no_lock_in_a_step(tmp_path):
    """malloc and pthread_mutex_lock are counted around calls of 400 and of 900 steps: 500 steps add nothing."""
    here, library = Path(__file__).parent, tmp_path / "counter.so"
    build = ["cc", "-shared", "-fPIC", "-O1", str(here / "cpp/counter.c"), "-o", str(library), "-ldl"]
    built = subprocess.run(build, capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.skip(f"needs a C compiler: {built.stderr[:200]}")
    code = """
    import ctypes, sys
    import numpy as np
    sys.path[:0] = [sys.argv[2], sys.argv[3]]
    from test_attention import config_of, random_file
    from musicgen_ext import generate
    counter = ctypes.CDLL(sys.argv[1])
    counter.counter_stop.restype = ctypes.c_long
    def count(function):
        function()
        best = []
        for which in (0, 1):
            counter.counter_start(); function(); best.append(counter.counter_stop(which))
        return best
    for storage in ("float32", "int8"):
        engine = generate.load(random_file(config_of(memory=True), np.random.default_rng(0), storage))
        for batch, threads in ((1, 1), (6, 2)):
            def run(n):
                coins = generate.Coins(1, range(batch)).take(n, 1)
                class Fixed:
                    def take(self, *shape): return coins
                options = {"top_k": 5, "top_p": 0.9, "log_probs": True, "threads": threads}
                memory = np.zeros(9, np.int32)
                return lambda: engine.sample(n, num_samples=batch, memory=memory, coins=Fixed(), **options)
            few, many = count(run(400)), count(run(900))  # numpy keeps small arrays aside
            assert few[0] == many[0], ("allocations", storage, batch, few, many)
            assert many[1] - few[1] < 100, ("locks", storage, batch, few, many)
    stepwise = [count(lambda: [engine.sample(1) for _ in range(n)])[0] for n in (5, 40)]
    assert stepwise[1] > stepwise[0] + 30, stepwise
    print("counted")
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(library), str(here), str(here.parent / "python")],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "LD_PRELOAD": str(library)},
        check=False,
    )
    assert "counted" in result.stdout, result.stderr


# -- the front door ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def duo():
    """A model of random weights that writes melodies and is told chords."""
    parts = (encodings.Performance(steps_per_beat=4, velocity_bins=0, max_shift=8, tracks=(t,)) for t in (0, 1))
    encoding = encodings.Told(*parts, "chords")
    n = encoding.vocab_size
    told = {"vocab_size": n, "num_layers": 1, "context": 99, "reach": 4, "advances": [0] * 256 + [*range(1, 9), 0]}
    config = config_of(16, 1, 1, 16, vocab_size=n, advances=told["advances"], memory=told)
    file = random_file(config, np.random.default_rng(8))
    file.tensors["output.bias"][256:264] += 4.0  # time goes on
    return ToldModel(weights.ModelFile(None, "attention", config.to_dict(), encoding.to_dict(), {}, file.tensors))


def test_the_front_door_takes_chords(duo, tmp_path):
    chords = {"chords": "C G7:2 Am:2 -:1 Bb"}
    score = duo.sample(condition=chords, seed=1, length="16 beats")
    heard = score.notes[score.notes["track"] == 1]
    assert [int(p) for p in heard["pitch"][:7]] == [36, 40, 43, 43, 47, 50, 53]
    assert sorted(set(heard["start"].tolist())) == [0, 1920, 2880, 4320]
    assert (score.notes["track"] == 0).any()
    assert duo.sample(condition=chords, seed=1, length="16 beats", num_samples=3)[0] == score
    told = score.copy()
    told.notes = heard
    told.save(tmp_path / "chords.mid")
    for same in (told, tmp_path / "chords.mid", str(tmp_path / "chords.mid")):
        assert duo.sample(condition={"chords": same}, seed=1, length="16 beats") == score
    assert duo.sample(condition={"chords": "C"}, seed=1, length="16 beats") != score
    streamed = list(duo.stream(condition=chords, seed=1, length="16 beats"))
    assert len(streamed) == (score.notes["track"] == 0).sum()
    # What it thinks of a score depends on what it is told; by default, what the score has beside it.
    own, told_own = duo.log_prob(score), duo.log_prob(score, condition=chords)
    np.testing.assert_array_equal(own, told_own)
    assert (own != duo.log_prob(score, condition={})).any()
    again = duo.sample(condition=chords, prompt=score, seed=2, length="24 beats")
    first, before = (
        sorted(x.notes[(x.notes["track"] == 0) & (x.notes["start"] < 1920)].tolist()) for x in (again, score)
    )
    assert [note[2] for note in first] == [note[2] for note in before]
    assert pickle.loads(pickle.dumps(duo)).sample(condition=chords, seed=1, length="16 beats") == score
    assert duo.info["encoding"]["condition"] == "chords"


@pytest.mark.parametrize(
    ("condition", "error", "words"),
    [
        ({"melody": "C"}, ValueError, "condition: expected names out of"),
        ({"chords": "H7"}, ValueError, r"condition\['chords'\]: expected a root A to G"),
        ({"chords": "C:0"}, ValueError, "expected quarter notes above 0"),
        ({"chords": "-"}, ValueError, "expected chords"),
        ({"chords": 7}, TypeError, r"condition\['chords'\]: expected a Score"),
        ({"chords": "C D " * 10}, ValueError, r"condition\['chords'\]: expected at most 99 tokens of it"),
    ],
)
def test_conditions_are_checked(duo, condition, error, words):
    with pytest.raises(error, match=words):
        duo.sample(condition=condition)


# -- training ----------------------------------------------------------------------------------------------------------


def duet(rng, root=60):
    """A melody of one chord tone a quarter note, over its chords: who hears the chords knows the melody."""
    roots = root + rng.integers(0, 3, 6) * 2
    chords = [Note(480 * i, 480, int(r) - 12 + step, 80, track=1) for i, r in enumerate(roots) for step in (0, 4, 7)]
    return Score([Note(480 * i, 480, int(r), 80, track=0) for i, r in enumerate(roots)] + chords)


@pytest.fixture(scope="module")
def duets(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("duets"), np.random.default_rng(0)
    for i in range(36):
        duet(rng).save(folder / f"{i:02}.mid")
    return folder


def test_a_told_score_is_written_and_read():
    music, told = (encodings.Performance(steps_per_beat=4, velocity_bins=0, tracks=(t,)) for t in (0, 1))
    encoding = encodings.Told(music, told, "chords")
    assert encodings.load(encoding.to_dict(), tokens=True) == encoding
    score = duet(np.random.default_rng(1))
    tokens = encoding.encode(score)
    assert tokens[-1] == encoding.end_token
    np.testing.assert_array_equal(
        encoding.decode(tokens).notes["pitch"], score.notes["pitch"][score.notes["track"] == 0]
    )
    assert len(encoding.tell(score)) > len(tokens)
    for change, words in [
        ({"condition": "words"}, "encoding.condition"),
        ({"told": {**told.to_dict(), "steps_per_beat": 3}}, "encoding.steps_per_beat"),
        ({"music": None}, "encoding.music"),
        ({"voices": 2}, "unknown"),
    ]:
        with pytest.raises(WeightsError, match=words):
            encodings.load({**encoding.to_dict(), **change}, tokens=True)


def test_training_teaches_it_to_listen(duets, tmp_path):
    """A second of training: told the right chords it is far surer of the melody than told those of another piece.

    Its likelihood is the native engine's.
    """
    torch = pytest.importorskip("torch")
    from musicgen_ext.train import Options, fit, told
    from musicgen_ext.train.models import Attention
    from musicgen_ext.train.recipes import attention
    from musicgen_ext.train.tasks import evaluate_attention

    corpus = told.told(duets, tracks=[0], told=[1], condition="chords", transpose=0, similarity=None)
    config = attention(
        encoding=corpus.encoding, width=32, num_layers=1, num_heads=2, context=64, told_layers=1, told_context=64,
        exact_distances=8, reach=8,
    )  # fmt: skip
    options = Options(epochs=30, batch_size=8, learning_rate=1e-2, warmup_steps=5, ema=0.0, evaluate_every=30)
    result = fit(config, corpus, tmp_path, options=options)
    file = weights.read(result.path)
    engine = generate.load(file)
    assert engine.config == config
    module = Attention(config)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in file.tensors.items()})
    right = evaluate_attention(module, corpus.valid)
    wrong = evaluate_attention(module, [corpus.variants["told another"](piece) for piece in corpus.valid])
    assert right.nll < wrong.nll - 0.1
    native = [engine.log_prob(piece.tokens, memory=piece.given["memory"]).sum() for piece in corpus.valid]
    assert abs(-sum(native) / right.tokens - right.nll) < 1e-4


def test_torch_evaluates_long_pieces_in_stretches(monkeypatch, rng):
    torch = pytest.importorskip("torch")
    from musicgen_ext.train.data import Piece
    from musicgen_ext.train.models import Attention
    from musicgen_ext.train.tasks import attention, evaluate_attention

    config = config_of(context=5)
    file = random_file(config, rng)
    module = Attention(config)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in file.tensors.items()})
    pieces = [Piece(str(n), rng.integers(0, 37, (n, 1)).astype(np.int32)) for n in (3, 50, 90)]
    whole = evaluate_attention(module, pieces)
    monkeypatch.setattr(attention, "_STRETCH", 20)
    assert abs(evaluate_attention(module, pieces).nll - whole.nll) < 1e-5
    native = sum(generate.load(file).log_prob(piece.tokens).sum() for piece in pieces)
    assert abs(-native / whole.tokens - whole.nll) < 1e-5


def test_train_needs_no_file_for_a_transformer(duets):
    pytest.importorskip("torch")
    from musicgen_ext.train import quick
    from musicgen_ext.train.recipes import model_config

    tables = quick.from_scratch("attention", duets, encoding="pitches")
    config = model_config(tables["model"], tables["data"]["encoding"])
    assert (config.arch, config.vocab_size, config.context) == ("attention", 129, tables["data"]["crop"])
