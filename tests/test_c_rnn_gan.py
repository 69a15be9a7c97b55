"""Recurrent adversarial pairs: notes as numbers, their native loop, and the game that makes them."""

import itertools
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

import musicgen_ext as mg
from musicgen_ext import _core, encodings, generate, weights
from musicgen_ext.architectures import CRnnGanConfig
from musicgen_ext.encodings import NoteTuples
from musicgen_ext.errors import WeightsError
from musicgen_ext.midi import Score
from musicgen_reference import c_rnn_gan as reference

EPS = float(np.finfo(np.float32).eps)
# Rows are fed back: rounding errors of 20 steps add up to at most 6 eps of 1, measured on every path alike.
TWIN_EPS = 32


def tiny_file(storage="float32", hidden_size=19, num_layers=2, noise=5, seed=0):
    """A `ModelFile` of a small random generator: nonsense, but music in form."""
    config = CRnnGanConfig.from_dict({"noise": noise, "hidden_size": hidden_size, "num_layers": num_layers})
    random = np.random.default_rng(seed)
    tensors = {
        name: random.normal(0, 1 / np.sqrt(shape[-1]), shape).astype(np.float32)
        for name, shape in config.tensor_shapes().items()
    }
    encoding = NoteTuples(lowest_pitch=50, num_pitches=30)
    file = weights.ModelFile(None, "c_rnn_gan", config.to_dict(), encoding.to_dict(), {"licence": "CC0"}, tensors)
    return weights.convert(file, storage)


# -- the engine --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize(("hidden_size", "num_layers", "noise"), [(1, 1, 1), (16, 2, 12), (33, 3, 13)])
def test_twin(isa, rng, storage, hidden_size, num_layers, noise):
    file = tiny_file(storage, hidden_size, num_layers, noise)
    heard = rng.standard_normal((20, noise)).astype(np.float32)
    rows, _ = generate.load(file).sample(20, noise=heard)
    want = reference.run(file.config, weights.convert(file, "float32").tensors, heard)
    bound = TWIN_EPS * EPS if storage != "int8" else 0.1  # inputs are bytes, too
    assert np.abs(rows - want).max() <= bound


def test_rows_are_torchs(rng):
    torch = pytest.importorskip("torch")
    from musicgen_ext.train.models import CRnnGan

    file = tiny_file()
    module = CRnnGan(CRnnGanConfig.from_dict(file.config))
    module.load_state_dict({name: torch.from_numpy(array) for name, array in file.tensors.items()})
    heard = rng.standard_normal((20, 5)).astype(np.float32)
    with torch.no_grad():
        want = module(torch.from_numpy(heard[None]))[0].numpy()
    assert np.abs(generate.load(file).sample(20, noise=heard)[0] - want).max() <= TWIN_EPS * EPS


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
def test_R38_every_isa_and_chunk_gives_the_same_bits(on_every_isa, storage):
    engine = generate.load(tiny_file(storage))

    def run():
        whole, after = engine.sample(60, seed=3, index=2)
        coins, state, parts = engine.coins(3, 2), None, []
        for n in (1, 40, 19):
            rows, state = engine.sample(n, state=state, coins=coins)
            parts.append(rows)
        assert np.array_equal(np.concatenate(parts), whole)
        assert np.array_equal(state, after)
        return whole

    results = list(on_every_isa(run).values())
    assert all(np.array_equal(results[0], other) for other in results)


def test_arguments_of_the_engine_are_checked():
    engine = generate.load(tiny_file())
    for options, words in (
        ({"temperature": float("nan")}, "temperature: expected a finite number >= 0, got nan"),
        ({"noise": np.zeros((2, 4))}, r"noise: expected finite numbers of shape \(3, 5\)"),
        ({"state": np.zeros(3)}, r"state: expected shape \(80\), got \(3\)"),
        ({"seed": -1}, "seed: expected an integer in"),
    ):
        with pytest.raises(ValueError, match=words):
            engine.sample(3, **options)
    with pytest.raises(ValueError, match="n: expected an integer in"):
        engine.sample(0)
    with pytest.raises(WeightsError, match=r"config\.hidden_size: expected an integer in"):
        CRnnGanConfig.from_dict({"noise": 3, "hidden_size": 10**9})
    good = tiny_file()
    wrong = {**good.tensors, "output.weight": np.zeros((4, 20), np.float32)}
    with pytest.raises(ValueError, match=r"tensor output\.weight: expected 4 x 19 numbers, got 4 x 20"):
        _core.TupleModel(good.config, wrong, "float32")


def test_R39_ctrl_c_ends_a_long_call(ctrl_c):
    before = """
import sys
from musicgen_ext import _core
model = _core.TupleModel({"noise": 4, "hidden_size": 64, "num_layers": 1, "outputs": 4}, {
    "rnn.weight_ih_l0": np.zeros((256, 8), np.float32), "rnn.weight_hh_l0": np.zeros((256, 64), np.float32),
    "rnn.bias_ih_l0": np.zeros(256, np.float32), "rnn.bias_hh_l0": np.zeros(256, np.float32),
    "output.weight": np.zeros((4, 64), np.float32), "output.bias": np.zeros(4, np.float32)}, "float32")
noise, state = np.zeros((1 << 20, 4), np.float32), np.zeros(132, np.float32)
"""
    late = ctrl_c(before, "model.run(noise, state)", "assert model.run(noise[:3], state)[0].shape == (3, 4)")
    assert late < 1  # 0.1 s on a machine of one's own


def test_R41_one_engine_in_many_threads():
    engine = generate.load(tiny_file("int8"))
    want, got = [engine.sample(400, seed=5, index=i)[0] for i in range(4)], {}

    def run(index):
        got[index] = [engine.sample(400, seed=5, index=index)[0] for _ in range(5)]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [0, 1, 2, 3]
    assert all(np.array_equal(want[index], rows) for index, each in got.items() for rows in each)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_R42_fork_also_during_a_call():
    engine = generate.load(tiny_file())
    want = engine.sample(50, seed=2)[0]
    noise = np.zeros((20_000, 5), np.float32)
    busy = threading.Thread(target=engine.sample, args=(len(noise),), kwargs={"noise": noise})
    busy.start()
    children = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:  # the child has the engine, but not the other thread's call
            os._exit(0 if np.array_equal(engine.sample(50, seed=2)[0], want) else 1)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0, 0]
    busy.join()
    assert np.array_equal(engine.sample(50, seed=2)[0], want)


@pytest.mark.skipif(sys.platform != "linux", reason="counts through LD_PRELOAD")
def test_R44_no_allocation_and_no_lock_in_a_step(tmp_path):
    """malloc and pthread_mutex_lock are counted around calls of 96 and of 960 rows: nothing is added for a row.

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
    from test_c_rnn_gan import tiny_file
    from musicgen_ext import generate
    counter = ctypes.CDLL(sys.argv[3])
    counter.counter_stop.restype = ctypes.c_long
    def count(function):
        function()
        counts = []
        for which in (0, 1):
            counter.counter_start(); function(); counts.append(counter.counter_stop(which))
        return counts
    few, many = np.ones((96, 5), np.float32), np.ones((960, 5), np.float32)
    for storage in ("float32", "bfloat16", "int8"):
        engine = generate.load(tiny_file(storage))
        run = lambda noise: engine._model.run(noise, engine.start())
        (few_allocated, few_locked), (allocated, locked) = count(lambda: run(few)), count(lambda: run(many))
        assert allocated == few_allocated, (storage, few_allocated, allocated)
        # Signals are looked for every few milliseconds, under Python's lock: not once a row.
        assert locked - few_locked < 100, (storage, few_locked, locked)
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


# -- notes as numbers --------------------------------------------------------------------------------------------------


def test_encode_undoes_decode(rng):
    encoding = NoteTuples(steps_per_quarter=4, longest=2, lowest_pitch=40, num_pitches=20)
    start = np.cumsum(rng.integers(0, 9, 30)) * 120
    start -= start[0]
    notes = np.stack([start, rng.integers(1, 9, 30) * 120, rng.integers(40, 60, 30), rng.integers(1, 128, 30)], axis=1)
    order = np.lexsort((notes[:, 2], notes[:, 0]))
    columns = dict(zip(("start", "duration", "pitch", "velocity"), notes[order].T, strict=True))
    score = Score(columns)
    rows = encoding.encode(score)
    assert rows.shape == (30, 4)
    assert rows.min() >= 0
    assert rows.max() <= 1
    assert np.array_equal(encoding.encode(encoding.decode(rows)), rows)
    for name in columns:
        assert np.array_equal(np.sort(encoding.decode(rows).notes[name]), np.sort(score.notes[name]))
    outside = Score([(0, 100, 39), (0, 100, 60)])
    assert encoding.encode(outside).shape == (0, 4)
    assert encodings.load(encoding.to_dict()) == encoding
    with pytest.raises(ValueError, match=r"rows: expected finite numbers of shape \(n, 4\), got shape \(3,\)"):
        encoding.decode(np.zeros(3))
    with pytest.raises(WeightsError, match=r"encoding\.num_pitches: expected at most 8 above"):
        encodings.load({"name": "note_tuples", "lowest_pitch": 120})


# -- the model ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    where = tmp_path / "tuples.safetensors"
    weights.write(where, tiny_file())
    return where


def test_R38_one_seed_one_piece(path, on_every_isa):
    def pieces():
        model = mg.load(path)
        many = model.sample(num_samples=3, seed=7)
        assert model.sample(seed=7) == many[0]
        assert [len(piece.notes) for piece in many] == [64] * 3
        streamed = list(model.stream(seed=7))
        fields = ("start", "duration", "pitch", "velocity", "track")
        assert sorted(streamed) == sorted(tuple(int(note[f]) for f in fields) for note in many[0].notes)
        assert all(a.start <= b.start for a, b in itertools.pairwise(streamed))
        assert pickle.loads(pickle.dumps(model)).sample(seed=7) == many[0]
        return [piece.to_bytes() for piece in many]

    results = list(on_every_isa(pieces).values())
    assert all(results[0] == other for other in results)
    assert len(set(results[0])) == 3


def test_lengths(path):
    assert len(mg.sample(path, length="9 notes", seed=1).notes) == 9
    whole, part = mg.sample(path, length="300 notes", seed=1), mg.sample(path, length="4 bars", seed=1)
    assert len(part.notes) == (whole.notes["start"] < 16 * 480).sum()
    assert (part.notes["start"] + part.notes["duration"]).max() <= 16 * 480
    assert mg.sample(path, length=3.0, seed=1).end_time <= 3.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": float("inf")}, "temperature: expected a finite number"),
        ({"top_k": 2}, "top_k: expected None for a model that says numbers, got 2"),
        ({"length": "2 steps"}, "length: expected a number and one of notes"),
        ({"length": 1e300}, "length: expected at most 1048576 notes or quarters"),
        ({"prompt": Score()}, "prompt: expected None for arch 'c_rnn_gan', got Score"),
        ({"condition": {"z": 1}}, "condition: expected names out of"),
    ],
)
def test_R36_arguments_are_checked(path, options, words):
    with pytest.raises(ValueError, match=words):
        mg.sample(path, **options)
    with pytest.raises(ValueError, match="log_prob: expected a model with a likelihood"):
        mg.load(path).log_prob(Score())


# -- training ----------------------------------------------------------------------------------------------------------


def test_a_game_makes_a_model_file(rng, tmp_path):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)  # networks this small only lose time to more
    from musicgen_ext import train
    from musicgen_ext.train.tuples import TupleCorpus

    encoding = NoteTuples(lowest_pitch=50, num_pitches=30)
    pieces = [rng.random((12, 4)).astype(np.float32) for _ in range(16)]
    corpus = TupleCorpus(pieces[:12], pieces[12:], [], encoding, notes=6)
    config = CRnnGanConfig.from_dict({"noise": 3, "hidden_size": 8, "num_layers": 1, "critic_size": 4})
    options = train.Options(
        epochs=2, batch_size=4, optimizer="adam", weight_decay=0.0, warmup_steps=1, checkpoint_every=1,
        mixed_precision=False,
    )  # fmt: skip
    objective = {"loss": "non_saturating", "critic_steps": 2, "penalty": 1.0, "feature_matching": 1.0}
    results = [train.fit(config, corpus, tmp_path / n, options=options, objective=objective) for n in ("a", "b")]
    assert results[0].steps == 6
    files = [weights.read(tmp_path / name / "model.safetensors") for name in ("a", "b")]
    assert files[0].arch == "c_rnn_gan"
    assert all(np.array_equal(value, files[1].tensors[name]) for name, value in files[0].tensors.items())
    assert len(mg.sample(tmp_path / "a" / "model.safetensors", seed=0).notes) == 64
    with pytest.raises(ValueError, match=r"model\.outputs: expected 4 for notes as numbers, got 5"):
        train.fit(CRnnGanConfig(3, 8, outputs=5), corpus, tmp_path / "c", options=options)


def test_a_discriminator_hears_what_is_meant(rng):
    """Both what people made and what is made lie on the encoding's grid; the gradient is that of what was said."""
    torch = pytest.importorskip("torch")
    from musicgen_ext.train.models import Dropout
    from musicgen_ext.train.tasks.c_rnn_gan import CRnnGanTask
    from musicgen_ext.train.tuples import TupleCorpus

    encoding = NoteTuples(steps_per_quarter=2, longest=3, lowest_pitch=50, num_pitches=30)
    pieces = [rng.random((12, 4)).astype(np.float32) for _ in range(4)]
    corpus = TupleCorpus(pieces, pieces, [], encoding, notes=6)
    config = CRnnGanConfig(3, 8, 1)

    def made(straight_through):
        torch.manual_seed(0)
        task = CRnnGanTask(config, corpus, Dropout(), {"straight_through": straight_through})
        generator = task.network()
        rows = task.made(generator, 5)
        rows.sum().backward()
        return task, rows.detach().numpy(), generator.output.weight.grad.numpy()

    (task, shown, gradient), (_, said, wanted) = made(True), made(False)
    assert np.array_equal(gradient, wanted)
    assert np.abs(wanted).max() > 0
    real = task.real([0, 1, 2, 3], np.random.default_rng(0)).numpy()
    most = np.array([6, 6, 29, 127])
    for rows in (*shown, *real):
        assert np.abs(rows * most - np.rint(rows * most)).max() < 127 * EPS
    for rows, meant in zip(shown, said, strict=True):
        assert np.array_equal(encoding.ticks(rows), encoding.ticks(meant))
    assert not np.array_equal(shown, said)
