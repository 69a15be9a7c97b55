"""The feed-forward engine: twins (numpy, torch), laws (the bits of a row are its own), behaviour at the edges."""

import os
import pickle
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from musicgen_ext import weights
from musicgen_ext.architectures import FeedForwardConfig
from musicgen_ext.errors import WeightsError
from musicgen_ext.generate import FeedForwardEngine
from musicgen_reference import feedforward as reference

EPS = float(np.finfo(np.float32).eps)

# A sum of n products rounds n times, like a random walk of steps eps / 2 times what was added up so far; the widest
# layer here adds 1,536. Measured against float64: at most 5.5 eps of the largest output, on every path alike.
TWIN_EPS = 16
PRECISIONS = ("float32", "bfloat16", "int8")


def dense(units, activation="leaky_relu", **more):
    return {"kind": "dense", "units": units, "activation": activation, **more}


def reshape(*shape):
    return {"kind": "reshape", "shape": list(shape)}


def conv(channels, kernel, stride=(1, 1), padding=(0, 0), activation="relu", transpose=False, **more):
    sizes = {"kernel": list(kernel), "stride": list(stride), "padding": list(padding)}
    kind = "conv_transpose2d" if transpose else "conv2d"
    return {"kind": kind, "channels": channels, **sizes, "activation": activation, **more}


NETWORKS = {
    "mlp": {"input": [7], "layers": [dense(33), dense(17, "tanh"), dense(5, "sigmoid")]},
    "picture": {"input": [20], "layers": [dense(64), dense(1536, "sigmoid"), reshape(2, 16, 48)]},
    "encoder": {
        "input": [2, 9, 13],
        "layers": [
            conv(3, (3, 3), (2, 1), (1, 1), "leaky_relu"),
            conv(17, (2, 5), (1, 2), (0, 2), "tanh"),
            dense(9, "none"),
        ],
    },
    "decoder": {
        "input": [10],
        "layers": [
            dense(60),
            reshape(5, 3, 4),
            conv(7, (4, 3), (2, 3), (1, 1), transpose=True),
            conv(20, (1, 2), (1, 3), (0, 0), "leaky_relu", transpose=True),  # every third column is bias alone
            conv(2, (3, 3), (1, 1), (1, 1), "sigmoid"),
        ],
    },
    "cropped": {"input": [6], "layers": [reshape(1, 3, 2), conv(1, (5, 5), (3, 2), (4, 1), "none", transpose=True)]},
    "reshaped": {
        "input": [4, 3, 5],
        "layers": [
            reshape(2, 6, 5),
            conv(4, (3, 3), (1, 1), (1, 1)),
            reshape(12, 2, 5),
            conv(3, (1, 1), (1, 1), (0, 0), "none"),
            reshape(30),
        ],
    },
}


def random_tensors(config, rng, prefix=""):
    return {
        name: (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) if len(shape) > 1 else 4)).astype(np.float32)
        for name, shape in config.tensor_shapes(prefix).items()
    }


def engine_of(network, rng, precision="float32", prefix=""):
    """An engine with random weights, and its tensors as they are stored."""
    config = FeedForwardConfig.from_dict(network)
    file = weights.ModelFile(None, "feedforward", config.to_dict(), {}, {}, random_tensors(config, rng, prefix))
    tensors = weights.convert(file, precision).tensors
    return FeedForwardEngine(config, tensors, precision, prefix), tensors


def inputs_of(engine, rng, batch):
    return rng.standard_normal((batch, *engine.config.input)).astype(np.float32)


# -- twins -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_twin(isa, rng, name, precision):
    engine, tensors = engine_of(NETWORKS[name], rng, precision, "decoder.")
    x = inputs_of(engine, rng, 3)
    y = engine.run(x, last_scale=0.7)
    assert y.shape == (3, *engine.config.output)
    for row, got in zip(x, y, strict=True):
        options = {"prefix": "decoder.", "last_scale": 0.7, "int8": precision == "int8"}
        want = reference.run(NETWORKS[name], tensors, row, **options)
        # int8: a sum near a half may become the byte beside it, a 127th of the largest.
        bound = TWIN_EPS * EPS if precision != "int8" else 0.01
        assert np.abs(got - want).max() <= bound * max(np.abs(want).max(), 1e-3)


@pytest.mark.parametrize("outputs", [1, 2, 3, 8, 15, 16, 17, 193])  # the seams of vectors and tiles
def test_seams_twin(isa, rng, outputs):
    network = {
        "input": [outputs, 2, 9],
        "layers": [conv(outputs, (2, 3), (1, 2), (0, 1), "none"), dense(outputs, "none")],
    }
    engine, tensors = engine_of(network, rng)
    x = inputs_of(engine, rng, 2)
    for row, got in zip(x, engine.run(x), strict=True):
        want = reference.run(network, tensors, row)
        assert np.abs(got - want).max() <= TWIN_EPS * EPS * np.abs(want).max()


# -- laws --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_R38_every_isa_batch_and_thread_gives_the_same_bits(on_every_isa, rng, name, precision):
    engine, _ = engine_of(NETWORKS[name], rng, precision)
    x = inputs_of(engine, rng, 60)

    def run():
        whole = engine.run(x, threads=3)
        assert np.array_equal(whole, engine.run(x, threads=1))
        assert np.array_equal(whole[7:8], engine.run(x[7:8]))
        assert np.array_equal(whole[50:53], engine.run(x[50:53], threads=2))
        return whole

    results = list(on_every_isa(run).values())
    assert all(np.array_equal(results[0], other) for other in results)


def test_what_was_computed_before_leaves_no_trace(rng):
    engine, _ = engine_of(NETWORKS["encoder"], rng)
    wide, _ = engine_of({"input": [300], "layers": [dense(4000, "none")]}, rng)
    x = inputs_of(engine, rng, 2)
    first = engine.run(x)
    huge = wide.run(np.full((1, 300), 3e38, np.float32))  # infinities, in the memory that the next call uses
    assert not np.isfinite(huge).all()
    assert np.array_equal(engine.run(x), first)


def test_the_last_sums_are_scaled(rng):
    engine, _ = engine_of(NETWORKS["mlp"], rng)
    x = inputs_of(engine, rng, 4)
    sums = np.log(engine.run(x) / (1 - engine.run(x)))
    assert np.allclose(engine.run(x, last_scale=2.5), 1 / (1 + np.exp(-2.5 * sums)), atol=1e-5)
    assert np.array_equal(engine.run(x, last_scale=0.0), np.full((4, 5), 0.5, np.float32))


# -- torch ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_torchs(rng, name):
    torch = pytest.importorskip("torch")
    from musicgen_ext.train.models import FeedForward

    engine, tensors = engine_of(NETWORKS[name], rng)
    module = FeedForward(engine.config)
    assert {n: tuple(t.shape) for n, t in module.state_dict().items()} == engine.config.tensor_shapes()
    module.load_state_dict({n: torch.from_numpy(t) for n, t in tensors.items()})
    x = inputs_of(engine, rng, 3)
    with torch.no_grad():
        want = module(torch.from_numpy(x)).numpy()
    assert np.abs(engine.run(x) - want).max() <= 2 * TWIN_EPS * EPS * np.abs(want).max()


def test_folding_a_norm_changes_nothing(rng):
    torch = pytest.importorskip("torch")
    from musicgen_ext.train.models import FeedForward

    network = {
        "input": [10],
        "layers": [
            dense(60, norm="batch"),
            reshape(5, 3, 4),
            conv(7, (4, 3), (2, 3), (1, 1), transpose=True, norm="batch"),
            conv(2, (3, 3), (1, 1), (1, 1), "sigmoid", norm="batch"),
        ],
    }
    config = FeedForwardConfig.from_dict(network)
    module = FeedForward(config)
    assert {n: tuple(t.shape) for n, t in module.state_dict().items()} == config.tensor_shapes()
    x = torch.from_numpy(rng.standard_normal((64, 10)).astype(np.float32))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for _ in range(5):
            module.train()(x)
        want = module.eval()(x).numpy()
        folded = module.folded()
    assert folded.config == config.folded
    tensors = {name: value.numpy() for name, value in folded.state_dict().items()}
    got = FeedForwardEngine(folded.config, tensors, "float32").run(x.numpy())
    assert np.abs(got - want).max() <= 2 * TWIN_EPS * EPS  # of probabilities
    with pytest.raises(WeightsError, match=r"config: expected layers with norm 'none' .*, got 'batch'"):
        FeedForwardEngine(config, tensors, "float32")


# -- edges ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"input": [3]}, "config.layers: expected a list"),
        ({"input": [0], "layers": [dense(3)]}, r"config.input\[0\]: expected an integer in \[1, "),
        ({"input": [2, 2, 2, 2], "layers": [dense(3)]}, "config.input: expected a list of 1 to 3"),
        ({"input": [1024, 1025, 2], "layers": [dense(3)]}, "config.input: expected at most"),
        ({"input": [3], "layers": [dense(10**9)]}, r"layers\[0\].units: expected an integer"),
        ({"input": [1 << 20], "layers": [dense(1 << 20)]}, "expected at most 268435456 weights"),
        ({"input": [3], "layers": [dense(3)] * 65}, "config.layers: expected a list of 1 to 64"),
        ({"input": [3], "layers": [conv(3, (3, 3))]}, r"layers\[0\]: expected an input of \(channels"),
        ({"input": [1, 3, 3], "layers": [conv(3, (4, 4))]}, r"layers\[0\]: expected an output of 1 to"),
        ({"input": [1, 3, 3], "layers": [conv(3, (0, 3))]}, r"layers\[0\].kernel\[0\]: expected an integer in \[1"),
        ({"input": [1, 3, 3], "layers": [conv(3, (1, 1), (0, 1))]}, r"layers\[0\].stride\[0\]"),
        ({"input": [5], "layers": [reshape(2, 3)]}, r"layers\[0\].shape: expected 5 numbers as in \[5\], got \[2, 3\]"),
        ({"input": [5], "layers": [dense(2, "gelu")]}, r"layers\[0\].activation: expected one of"),
        ({"input": [5], "layers": [{"kind": "pool"}]}, r"layers\[0\].kind: expected one of"),
        ({"input": [5], "layers": [dense(2)], "depth": 1}, "expected keys out of"),
    ],
)
def test_R33_configs_out_of_bounds_are_refused_before_building(config, words):
    with pytest.raises(WeightsError, match=words):
        FeedForwardConfig.from_dict(config)


def test_inputs_are_checked(rng):
    engine, tensors = engine_of(NETWORKS["mlp"], rng)
    with pytest.raises(ValueError, match=r"x: expected shape \(B, 7\), got \(3, 8\)"):
        engine.run(np.zeros((3, 8)))
    with pytest.raises(ValueError, match=r"x: expected shape \(B, 7\), got \(0, 7\)"):
        engine.run(np.zeros((0, 7)))
    with pytest.raises(ValueError, match="x: expected finite numbers, got nan"):
        engine.run(np.full((1, 7), np.nan))
    with pytest.raises(ValueError, match="last_scale: expected a finite number, got inf"):
        engine.run(np.zeros((1, 7)), last_scale=float("inf"))
    with pytest.raises(ValueError, match="threads: expected an integer in"):
        engine.run(np.zeros((1, 7)), threads=0)
    missing = {name: array for name, array in tensors.items() if name != "layers.2.bias"}
    with pytest.raises(ValueError, match=r"tensor layers\.2\.bias: expected, got none"):
        FeedForwardEngine(engine.config, missing, "float32")
    with pytest.raises(ValueError, match="tensors: expected 85 weights and 5 biases for a layer, got 85 and 4"):
        FeedForwardEngine(engine.config, {**tensors, "layers.2.bias": np.zeros(4, np.float32)}, "float32")


def test_R41_one_engine_in_many_threads(rng):
    engine, _ = engine_of(NETWORKS["decoder"], rng)
    x = inputs_of(engine, rng, 9)
    want, got = engine.run(x), []
    threads = [threading.Thread(target=lambda: got.append(engine.run(x, threads=2))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 4
    assert all(np.array_equal(want, other) for other in got)


def test_R42_engines_are_pickled(rng):
    engine, _ = engine_of(NETWORKS["decoder"], rng, "int8", "a.")
    x = inputs_of(engine, rng, 2)
    assert np.array_equal(pickle.loads(pickle.dumps(engine)).run(x), engine.run(x))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_R42_after_a_fork(rng):
    engine, _ = engine_of(NETWORKS["decoder"], rng)
    x = inputs_of(engine, rng, 60)
    want = engine.run(x, threads=2)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if np.array_equal(engine.run(x, threads=2), want) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_R39_ctrl_c_ends_a_long_call(ctrl_c):
    before = """
import sys
sys.path[:0] = [{tests!r}, {python!r}]
from test_feedforward import NETWORKS, engine_of, inputs_of
rng = np.random.default_rng(0)
engine, _ = engine_of({{"input": [256], "layers": [{{"kind": "dense", "units": 1024, "activation": "relu"}}] * 2}}, rng)
x = inputs_of(engine, rng, 20_000)
first = engine.run(x[:3])
""".format(tests=str(Path(__file__).parent), python=str(Path(__file__).parents[1] / "python"))
    late = ctrl_c(before, "engine.run(x, threads=1)", "assert np.array_equal(engine.run(x[:3]), first)")
    assert late < 1  # 0.1 s on a machine of one's own


@pytest.mark.skipif(sys.platform != "linux", reason="counts through LD_PRELOAD")
def test_R44_no_allocation_and_no_lock_in_a_step(tmp_path):
    """malloc and pthread_mutex_lock are counted around calls with 96 and with 960 rows: nothing is added for a row.

    The counter itself is proven by calls from Python, one for every row, which do allocate.
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
    sys.path[:0] = [sys.argv[1], sys.argv[2]]
    from test_feedforward import NETWORKS, engine_of, inputs_of
    counter = ctypes.CDLL(sys.argv[3])
    counter.counter_stop.restype = ctypes.c_long
    def count(function):
        function()
        counts = []
        for which in (0, 1):
            counter.counter_start(); function(); counts.append(counter.counter_stop(which))
        return counts
    rng = np.random.default_rng(0)
    for name in ("picture", "encoder", "decoder"):
        for precision in ("float32", "int8"):
            engine, _ = engine_of(NETWORKS[name], rng, precision)
            few, many = inputs_of(engine, rng, 96), inputs_of(engine, rng, 960)
            run = lambda x: engine._model.run(x, 1.0, 1)
            (few_allocated, few_locked), (allocated, locked) = count(lambda: run(few)), count(lambda: run(many))
            assert allocated == few_allocated, (name, precision, few_allocated, allocated)
            # Signals are looked for every few milliseconds, under Python's lock: not once a row.
            assert locked - few_locked < 100, (name, precision, few_locked, locked)
    single = [count(lambda: [run(few[:1]) for _ in range(n)])[0] for n in (5, 40)]
    assert single[1] > single[0] + 30, single
    print("counted")
    """
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(here), str(here.parent / "python"), str(library)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "LD_PRELOAD": str(library)},
        check=False,
    )
    assert "counted" in done.stdout, done.stderr


def test_packed_weights_are_as_large_as_they_should_be(rng):
    network = {"input": [112], "layers": [dense(256), dense(512), dense(1536, "sigmoid")]}
    products = 112 * 256 + 256 * 512 + 512 * 1536
    for precision, width in (("float32", 4), ("bfloat16", 2), ("int8", 1)):
        engine, _ = engine_of(network, rng, precision)
        assert engine._model.macs == products
        assert products * width <= engine.packed_bytes <= 1.06 * products * width + 60_000
