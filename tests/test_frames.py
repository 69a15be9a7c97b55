"""Networks over frames: the engine against its twin and torch, laws, the edges; encoding, training, evaluation."""

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
from musicgen_ext import architectures, encodings, evaluate, generate, weights
from musicgen_ext.architectures import FramesConfig
from musicgen_ext.errors import WeightsError
from musicgen_reference import frames as reference

EPS = float(np.finfo(np.float32).eps)
PRECISIONS = ("float32", "bfloat16", "int8")
ROLLS = Path(__file__).parents[1] / "../shared/data/pianorolls"
SETS = ("jsb_chorales", "nottingham", "musedata", "piano_midi")

CONFIGS = {
    "notes": {"keys": 24, "lags": [1, 2, 5], "trunk_lags": [2, 1], "clocks": [3, 4], "hidden_size": 20, "filters": 9},
    "independent": {"head": "independent", "keys": 17, "hidden_size": 16, "filters": 16, "cell": "gru"},
    "two layers": {"keys": 30, "num_layers": 2, "hidden_size": 33, "filters": 20, "cell": "rnn_relu", "clocks": []},
    "no match": {"keys": 70, "match_window": 0, "match_buckets": [], "hidden_size": 12, "filters": 5, "reach": 127},
    "one key": {"keys": 1, "lags": [1], "trunk_lags": [], "clocks": [2], "hidden_size": 1, "filters": 1, "reach": 1},
}


def config_of(name):
    return FramesConfig.from_dict({"match_window": 12, "reach": 7, **CONFIGS[name]})


def model_file(config, rng, storage="float32", encoding=None):
    tensors = {
        name: (rng.standard_normal(shape) * (1.5 / np.sqrt(np.prod(shape[1:]) + 1))).astype(np.float32)
        for name, shape in config.tensor_shapes().items()
    }
    tensors["key.bias"] -= 2
    encoding = encoding or {"name": "piano_roll_frames", "keys": min(config.keys, 107), "lowest_pitch": 21}
    file = weights.ModelFile(None, "frames", config.to_dict(), encoding, {"licence": "CC0"}, tensors)
    return weights.convert(file, storage)


def engine_of(config, rng, storage="float32"):
    return generate.FramesEngine(model_file(config, rng, storage))


def music(rng, n, keys, p=0.15):
    """Frames that repeat themselves, so that there is something to match."""
    roll = (rng.random((n, keys)) < p).astype(np.uint8)
    roll[n // 2 : n // 2 + n // 4] = roll[: n // 4]
    return roll


def sets(roll):
    return [set(np.flatnonzero(frame).tolist()) for frame in roll]


@pytest.fixture(params=CONFIGS)
def config(request):
    return config_of(request.param)


# -- twin --------------------------------------------------------------------------------------------------------------

# Logits against the float64 twin, in eps of the largest sum of magnitudes (4, here): rounding errors of sums of some 60
# terms grow like a random walk. Worst seen below: 5.
TWIN_EPS = 24


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
def test_twin(isa, rng, config, storage):
    file = model_file(config, rng, storage)
    roll = music(rng, 24, config.keys)
    got = generate.FramesEngine(file).sample(24, forced=roll, logits=True, log_probs=True)
    expected = reference.Frames(config, weights.convert(file, "float32").tensors).teacher_forced(sets(roll))
    assert np.abs(got.logits[0] - expected).max() <= TWIN_EPS * EPS * max(4.0, np.abs(expected).max())
    assert (got.frames[0] == roll).all()
    wanted = (roll * expected - np.logaddexp(0.0, expected)).sum(1)
    np.testing.assert_allclose(got.log_probs[0], wanted, rtol=1e-5, atol=1e-5)


def test_int8_twin(isa, rng):
    """Bytes are the same on both sides until a value lies half-way between two of them: then they differ by one."""
    config = config_of("two layers")
    file = model_file(config, rng, "int8")
    roll = music(rng, 24, config.keys)
    got = generate.FramesEngine(file).sample(24, forced=roll, logits=True).logits[0]
    expected = reference.Frames(config, file.tensors, "int8").teacher_forced(sets(roll))
    difference = np.abs(got - expected).max(axis=1) / np.abs(expected).max()
    assert np.median(difference) < 1e-4  # no byte differs
    assert difference.max() < 0.02  # a few do


@pytest.mark.parametrize("name", ["notes", "independent"])
def test_draws_are_those_of_the_twin(rng, name):
    """Same coins, same keys, but for coins at the edge of a choice."""
    config = config_of(name)
    file = model_file(config, rng)
    engine, n = generate.FramesEngine(file), 12
    for options in ({}, {"temperature": 0.5}, {"temperature": 0.0}, {"top_p": 0.7}, {"top_k": 2, "temperature": 1.3}):
        drawn = engine.sample(n, seed=3, **options).frames[0]
        coins = generate.Coins(3, [0]).take(n, config.keys)[0]
        twin = reference.Frames(config, file.tensors)
        wrong = 0
        for frame, coin in zip(sets(drawn), coins, strict=True):
            twin.begin()
            wrong += twin.draw(coin, **options) != frame
            twin.frames.append(frame)
        assert wrong <= 1


@pytest.mark.parametrize("head", ["notes", "independent"])
def test_frames_are_a_distribution(rng, head):
    """The probabilities of all 2^8 frames add up to one; so do those of the next note and the stop."""
    config = FramesConfig.from_dict({"keys": 8, "head": head, "hidden_size": 6, "filters": 7, "match_window": 9})
    engine = engine_of(config, rng)
    every = (np.arange(256)[:, None] >> np.arange(8) & 1).astype(np.int8)
    past = np.repeat(music(rng, 6, 8, 0.3)[None], 256, 0)
    forced = np.concatenate([past, every[:, None]], 1)
    found = engine.sample(7, num_samples=256, forced=forced, log_probs=True).log_probs[:, -1]
    assert np.exp(found).sum() == pytest.approx(1.0, abs=1e-5)  # of float32 logits
    if head == "notes":
        twin = reference.Frames(config, model_file(config, rng).tensors)
        twin.begin()
        assert twin.note_or_stop([2, 4]).sum() == pytest.approx(1.0)


def test_draws_have_the_frames_probabilities(rng):
    config = FramesConfig.from_dict({"keys": 3, "hidden_size": 4, "filters": 5, "match_window": 4})
    engine, n = engine_of(config, rng), 5_000
    drawn = engine.sample(1, num_samples=n).frames[:, 0] @ [1, 2, 4]
    every = (np.arange(8)[:, None] >> np.arange(3) & 1).astype(np.int8)
    p = np.exp(engine.sample(1, num_samples=8, forced=every[:, None], log_probs=True).log_probs[:, 0])
    share = np.bincount(drawn, minlength=8) / n
    assert (np.abs(share - p) < 5 * np.sqrt(p * (1 - p) / n) + 1e-4).all()


# -- laws --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", PRECISIONS)
def test_every_instruction_set_gives_the_same_bits(rng, config, storage, on_every_isa):
    engine = engine_of(config, rng, storage)
    results = on_every_isa(lambda: engine.sample(40, seed=1, num_samples=3, log_probs=True, logits=True))
    first, *others = results.values()
    for other in others:
        for array in ("frames", "log_probs", "logits"):
            assert getattr(first, array).tobytes() == getattr(other, array).tobytes()
        assert pickle.dumps(first.state) == pickle.dumps(other.state)


@pytest.mark.parametrize("storage", PRECISIONS)
def test_R38_chunks_batches_and_threads_give_the_same_bits(rng, config, storage):
    engine, n, batch = engine_of(config, rng, storage), 50, 5
    whole = engine.sample(n, seed=4, num_samples=batch, threads=1, logits=True)
    threaded = engine.sample(n, seed=4, num_samples=batch, threads=3, logits=True)
    assert whole.logits.tobytes() == threaded.logits.tobytes()
    alone = engine.sample(n, seed=4, index=3, logits=True)
    assert (alone.frames[0] == whole.frames[3]).all()
    assert alone.logits[0].tobytes() == whole.logits[3].tobytes()
    state, coins, parts = engine.start(batch), generate.Coins(4, range(batch)), []
    for size in (1, 7, 30, 12):
        part = engine.sample(size, num_samples=batch, state=state, coins=coins, logits=True)
        state = pickle.loads(pickle.dumps(part.state))
        parts.append(part.logits)
    assert np.concatenate(parts, 1).tobytes() == whole.logits.tobytes()
    assert pickle.dumps(state) == pickle.dumps(whole.state)
    assert state.frame == n
    streamed = np.concatenate(list(engine.stream(n, block=8, seed=4)))
    assert (streamed == whole.frames[0]).all()


def test_teacher_forcing_gives_the_bits_of_sampling(rng, config):
    engine = engine_of(config, rng)
    drawn = engine.sample(40, seed=2, log_probs=True, logits=True)
    again = engine.sample(40, seed=9, forced=drawn.frames, log_probs=True, logits=True)
    assert drawn.logits.tobytes() == again.logits.tobytes()
    assert drawn.log_probs.tobytes() == again.log_probs.tobytes()
    assert engine.log_prob(drawn.frames[0]).tobytes() == drawn.log_probs[0].tobytes()
    forced = drawn.frames.astype(np.int8)
    forced[:, 15:] = -1
    assert (engine.sample(40, seed=2, forced=forced).frames == drawn.frames).all()


@pytest.mark.parametrize("name", ["notes", "independent"])
def test_forced_keys_are_kept_and_others_are_free(rng, name):
    config = config_of(name)
    engine, n = engine_of(config, rng), 60
    forced = np.full((n, config.keys), -1)
    forced[:, 3], forced[:, 5:8], forced[::2, 11] = 1, 0, 1
    frames = engine.sample(n, seed=1, forced=forced).frames[0]
    assert (frames[forced == 1] == 1).all()
    assert (frames[forced == 0] == 0).all()
    assert 0 < frames[forced < 0].mean() < 0.7


def test_top_k_1_and_temperature_0_are_greedy(rng, config):
    engine = engine_of(config, rng)
    greedy = engine.sample(30, temperature=0.0, seed=1).frames
    assert (greedy == engine.sample(30, top_k=1, seed=2).frames).all()
    assert (greedy == engine.sample(30, temperature=1e-30, seed=3).frames).all()


# -- the edges ---------------------------------------------------------------------------------------------------------


def test_R36_arguments_out_of_range(rng):
    engine = engine_of(config_of("notes"), rng)
    for options, named in [
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": 26}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"num_samples": 0}, "num_samples"),
        ({"forced": np.zeros((4, 24))}, "forced"),
        ({"forced": np.full((5, 24), 2)}, "forced"),
        ({"forced": np.zeros((5, 23), int)}, "forced"),
    ]:
        with pytest.raises((ValueError, TypeError), match=named):
            engine.sample(5, **options)
    for n in (0, -1, 1 << 40):
        with pytest.raises(ValueError, match="n_frames"):
            engine.sample(n)
    with pytest.raises(ValueError, match="frames: expected shape"):
        engine.log_prob(np.zeros((5, 23), int))
    with pytest.raises(ValueError, match="frames: expected 0 to 1, got -1"):
        engine.log_prob(np.full((5, 24), -1))
    other = engine_of(config_of("independent"), rng).start()
    with pytest.raises(ValueError, match="state"):
        engine.sample(5, state=other)


def test_R32_R33_files_that_do_not_fit(rng):
    config = config_of("notes")
    file = model_file(config, rng)
    tensors = dict(file.tensors)
    del tensors["written.weight"]
    broken = weights.ModelFile(None, "frames", file.config, file.encoding, {}, {**tensors, "more": tensors["key.bias"]})
    with pytest.raises(WeightsError, match=r"(?s)written.weight.*more|more.*written.weight"):
        generate.load(broken)
    for change, named in [
        ({"keys": 0}, r"config\.keys"),
        ({"keys": 129}, r"config\.keys"),
        ({"lags": [2]}, "lag 1"),
        ({"lags": [1, 3, 2]}, "that grow"),
        ({"trunk_lags": [7]}, "trunk_lags"),
        ({"head": "chords"}, r"config\.head"),
        ({"hidden_size": 10**9}, r"config\.hidden_size"),
        ({"clocks": [0]}, r"config\.clocks"),
        ({"more": 1}, "more"),
        ({"trunk_lags": [], "clocks": [], "match_window": 0}, "for the trunk to read"),
    ]:
        with pytest.raises(WeightsError, match=named):
            FramesConfig.from_dict({**config.to_dict(), **change})
    assert FramesConfig.from_dict(config.to_dict()) == config
    assert architectures.CONFIGS["frames"] is FramesConfig


def run_python(code, *arguments, env=None):
    before = """
    import os, signal, sys, threading, time
    import numpy as np
    sys.path[:0] = [sys.argv[1], sys.argv[2]]
    from test_frames import config_of, engine_of
    engine = engine_of(config_of("notes"), np.random.default_rng(0))
    """
    here = Path(__file__).parent
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(before) + textwrap.dedent(code), str(here), str(here.parent / "python"),
         *arguments],
        capture_output=True, text=True, timeout=120, env=env, check=False,
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_R39_ctrl_c_ends_a_long_call_and_the_engine_lives_on():
    code = """
    before = engine.sample(30).frames
    sent = [0.0]
    def interrupt():
        time.sleep(0.3)
        sent[0] = time.perf_counter()
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()
    try:
        engine.sample(1 << 21)
    except KeyboardInterrupt:
        print("delay", time.perf_counter() - sent[0])
    assert (engine.sample(30).frames == before).all()
    print("alive")
    """
    result = run_python(code)
    assert "alive" in result.stdout, result.stderr
    assert float(result.stdout.split()[1]) < 1.5


def test_R41_two_threads_share_an_engine(rng):
    engine = engine_of(config_of("notes"), rng)
    expected = engine.sample(300, seed=1).frames
    results = [None] * 4

    def call(i):
        results[i] = engine.sample(300, seed=1, threads=2).frames

    threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((r == expected).all() for r in results)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_R42_fork_and_pickle(rng):
    code = """
    import warnings
    warnings.simplefilter("ignore")  # Python warns of any fork with threads
    expected = engine.sample(100, num_samples=3, threads=2).frames
    pid = os.fork()
    if pid == 0:
        os._exit(0 if (engine.sample(100, num_samples=3, threads=2).frames == expected).all() else 1)
    assert os.waitpid(pid, 0)[1] == 0
    print("same")
    """
    result = run_python(code)
    assert "same" in result.stdout, result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="counts through LD_PRELOAD")
def test_R44_no_allocation_in_a_step(tmp_path):
    """malloc is counted around calls of 200 and of 2,000 frames: 1,800 frames add nothing but larger results."""
    source, library = Path(__file__).parent / "cpp/counter.c", tmp_path / "counter.so"
    built = subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", str(source), "-o", str(library), "-ldl"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if built.returncode:
        pytest.skip(f"needs a C compiler: {built.stderr[:200]}")
    code = """
    import ctypes
    from musicgen_ext import _core
    counter = ctypes.CDLL(sys.argv[3])
    counter.counter_stop.restype = ctypes.c_long
    options = _core.SamplerOptions(1.0, 5, 0.9)
    def count(engine, n, calls=1):
        model, keys, coins = engine._model, engine.config.keys, np.full((2, n, engine.config.keys), 0.4)
        state = model.start(2)
        def call():
            for _ in range(calls):
                _core.frames_sample(model, state, n, coins, None, options, 1, True, True)
        call()
        counter.counter_start(); call(); return counter.counter_stop(0)
    for name in ("notes", "independent"):
        engine = engine_of(config_of(name), np.random.default_rng(0))
        few, many = count(engine, 200), count(engine, 2000)
        assert few == many, (few, many)
    assert count(engine, 1, 20) > count(engine, 1, 2) + 15  # the counter counts
    print("counted")
    """
    result = run_python(code, str(library), env={**os.environ, "LD_PRELOAD": str(library)})
    assert "counted" in result.stdout, result.stderr


# -- frames and scores -------------------------------------------------------------------------------------------------


def test_encoding_undoes_decoding(rng):
    encoding = encodings.PianoRollFrames(steps_per_quarter=2)
    roll = music(rng, 40, 88)
    roll[-1, 0] = 1  # silence at the end is no part of a score
    score = encoding.decode(roll)
    assert (encoding.encode(score) == roll).all()
    assert encoding.encode(encoding.decode(roll[:0])).shape == (0, 88)
    held = np.zeros((6, 88))
    held[1:5, 39] = 7
    notes = encoding.decode(held, tempo=60).notes
    assert notes[["start", "duration", "pitch"]].tolist() == [(240, 960, 60)]
    issues = []
    low = encodings.PianoRollFrames(lowest_pitch=90, keys=10)
    assert not low.encode(score, issues).any() or issues
    assert encodings.load(encoding.to_dict()) == encoding
    with pytest.raises(WeightsError, match=r"encoding\.keys"):
        encodings.load({"name": "piano_roll_frames", "keys": 120})
    with pytest.raises(ValueError, match="shape"):
        encoding.decode(np.zeros((3, 87)))


def test_model_samples_scores_without_torch(rng, tmp_path):
    config = FramesConfig.from_dict({"hidden_size": 12, "filters": 6, "match_window": 64})
    path = tmp_path / "frames.safetensors"
    weights.write(path, model_file(config, rng))
    model = mg.load(path)
    assert isinstance(model, mg.model.FramesModel)
    score = model.sample(length="24 steps", seed=1)
    assert score.provenance["seed"] == 1
    several = model.sample(num_samples=3, length="24 steps", seed=1)
    assert several[0] == score
    assert score.notes["start"].max() < 24 * 120
    notes = sorted(tuple(note)[:3] for note in model.stream(length="24 steps", seed=1))
    assert notes == sorted(map(tuple, score.notes[["start", "duration", "pitch"]].tolist()))
    prompt = several[1]
    went_on = model.sample(prompt=prompt, length="40 steps", seed=2)
    heard = model.encoding.encode(prompt)
    assert (model.encoding.encode(went_on)[: len(heard)] == heard).all()
    log_probs = model.log_prob(score)
    assert (log_probs < 0).all()
    assert log_probs.tobytes() == model.log_prob(model.encoding.encode(score)).tobytes()
    assert model.info["arch"] == "frames"
    assert pickle.loads(pickle.dumps(model)).sample(length="24 steps", seed=1) == score
    with pytest.raises(ValueError, match="length: expected more than the prompt"):
        model.sample(prompt=prompt, length="2 steps")
    with pytest.raises(ValueError, match="condition"):
        model.sample(condition={"key": "C major"})
    code = "import sys, musicgen_ext as mg; mg.load(sys.argv[1]).sample(length=2); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def one_thread():
    """Networks this small only lose time, on a busy machine a lot of it, to more threads."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(before)


def packed(path, pieces):
    arrays = {}
    for split, rolls in pieces.items():
        arrays[split] = np.packbits(np.concatenate(rolls), axis=1)
        arrays[f"{split}_offsets"] = np.cumsum([0, *map(len, rolls)]).astype(np.int32)
    np.savez(path, **arrays)


def scales(rng, count):
    """Pieces that climb in thirds: easy to learn."""
    pieces = []
    for _ in range(count):
        low, n = int(rng.integers(20, 40)), int(rng.integers(24, 40))
        roll = np.zeros((n, 88), np.uint8)
        at = low + np.arange(n) % 8
        roll[np.arange(n), at] = roll[np.arange(n), at + 4] = 1
        pieces.append(roll)
    return pieces


@pytest.mark.parametrize("head", ["notes", "independent"])
def test_torch_and_the_engine_agree(rng, head, one_thread):
    torch = one_thread
    from musicgen_ext.train.frames import frame_features
    from musicgen_ext.train.models import Frames

    config = FramesConfig.from_dict({"head": head, "hidden_size": 24, "filters": 16, "match_window": 20})
    file = model_file(config, rng)
    module = Frames(config).eval()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in file.tensors.items()})
    roll = music(rng, 64, 88, 0.05)
    arrays = (*frame_features(config, roll), roll)
    with torch.no_grad():
        expected = module(*(torch.from_numpy(a).unsqueeze(1) for a in arrays))[:, 0].numpy()
    got = generate.FramesEngine(file).sample(64, forced=roll, logits=True).logits[0]
    # Both round sums of about 100 terms in orders of their own. Worst seen: 6 eps of the largest logit.
    assert np.abs(got - expected).max() <= 32 * EPS * np.abs(expected).max()


@pytest.mark.usefixtures("one_thread")
def test_training_learns_and_measures_what_the_engine_does(rng, tmp_path):
    from musicgen_ext import train

    data = tmp_path / "scales.npz"
    packed(data, {"train": scales(rng, 10), "valid": scales(rng, 2), "test": scales(rng, 3)})
    toml = tmp_path / "scales.toml"
    toml.write_text(
        """
        data = {kind = "frames", crop = 16}
        model = {arch = "frames", hidden_size = 16, filters = 12, match_window = 32, reach = 8}
        train = {epochs = 10, batch_size = 4, learning_rate = 0.03, ema = 0.9, warmup_steps = 5, evaluate_every = 10}
        dropout = {input = 0.1, layer = 0.1, feature = 0.1, head = 0.1}
        """
    )
    result, measured = train.run(toml, data_path=data, out=tmp_path / "run", progress=False)
    rolls = encodings.read_frames(data)
    marginal = evaluate.evaluate_frames(evaluate.marginal_frames(rolls["train"]), rolls["test"])
    assert measured["test"].nll < 0.7 * marginal.nats
    assert measured["test"].tokens == marginal.frames == sum(len(r) - 1 for r in rolls["test"])
    own = evaluate.evaluate_frames(mg.load(result.path).log_prob, rolls["test"])
    assert own.nats == pytest.approx(measured["test"].nll, rel=1e-4)


def test_data_of_midi_files_are_cut_and_transposed(rng, tmp_path):
    pytest.importorskip("torch")
    from musicgen_ext.train import tasks
    from musicgen_ext.train.frames import frames
    from musicgen_ext.train.models import Dropout

    encoding = encodings.PianoRollFrames(steps_per_quarter=2)
    for split in ("train", "valid"):
        for i, roll in enumerate(scales(rng, 3)):
            (tmp_path / split).mkdir(exist_ok=True)
            encoding.decode(roll).save(tmp_path / split / f"{i}.mid")
    corpus = frames(tmp_path, steps_per_quarter=2, crop=10)
    assert [len(corpus.train), len(corpus.valid), len(corpus.test)] == [3, 3, 0]
    task = tasks.task_of({"arch": "frames", "hidden_size": 4, "filters": 3}, corpus, Dropout())
    epoch = task.epoch(2, rng)
    assert len(epoch) == task.num_batches(2)
    assert min(part for chunk in epoch for part in chunk)[:2] == (0, 0)
    covered = sum(end - first for chunk in epoch for _, first, end in chunk)
    assert covered == sum(len(piece.frames) for piece in corpus.train)
    (batch,) = task.parts(epoch[0], rng, 0)
    assert batch.tokens == sum(end - first for _, first, end in epoch[0])
    last, now = batch.channels[1:, :, :, 0], batch.frames[:-1]
    begins = [first for _, first, _ in epoch[0]]
    for b in range(len(begins)):
        n = int(batch.scored[:, b].sum())
        assert (last[: n - 1, b] == now[: n - 1, b]).all()  # lag 1 is the frame before, transposed alike
    with pytest.raises(ValueError, match=r"data\.crop"):
        frames(tmp_path, crop=1)


# -- evaluation --------------------------------------------------------------------------------------------------------


def test_files_of_frames_that_are_none(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"x\.npz"):
        encodings.read_frames(path)
    np.savez(path, train=np.zeros((4, 10), np.uint8))
    with pytest.raises(ValueError, match=r"train: expected uint8, shape \(steps, 11\), got uint8, shape \(4, 10\)"):
        encodings.read_frames(path)
    np.savez(path, train=np.zeros((4, 11), np.uint8), train_offsets=np.array([0, 5]))
    with pytest.raises(ValueError, match="train_offsets"):
        encodings.read_frames(path)


def test_evaluation_refuses_what_is_no_likelihood():
    piece = np.zeros((4, 88), np.uint8)
    with pytest.raises(ValueError, match="shape"):
        evaluate.evaluate_frames(lambda p: np.zeros(len(p) + 1), [piece])
    with pytest.raises(ValueError, match="piece 0"):
        evaluate.evaluate_frames(lambda p: np.full(len(p), 0.1), [piece])
    with pytest.raises(ValueError, match="piece 0"):
        evaluate.evaluate_frames(lambda p: np.full(len(p), np.nan), [piece])
    with pytest.raises(ValueError, match="two frames"):
        evaluate.evaluate_frames(lambda p: np.zeros(len(p)), [piece[:1]])
    score = evaluate.evaluate_frames(lambda p: np.full(len(p), -2.0), [piece, piece[:1], piece])
    assert (score.nats, score.frames) == (2.0, 6)  # the first frame of every piece is not scored


@pytest.mark.skipif(not ROLLS.exists(), reason="needs ../shared/data/pianorolls")
@pytest.mark.parametrize(
    ("name", "marginal", "first_order"),
    list(zip(SETS, (11.09, 10.26, 11.51, 11.05), (10.49, 5.15, 8.56, 8.27), strict=True)),
)
def test_simple_models_have_their_known_numbers(name, marginal, first_order):
    """Files, base of the logarithms and averages are those of the literature."""
    data = encodings.read_frames(ROLLS / f"{name}.npz")
    for rival, expected in ((evaluate.marginal_frames, marginal), (evaluate.first_order_frames, first_order)):
        assert evaluate.evaluate_frames(rival(data["train"]), data["test"]).nats == pytest.approx(expected, abs=0.01)


def test_command_line(rng, tmp_path, capsys):
    from musicgen_ext import cli

    rolls = {"train": scales(rng, 3), "valid": scales(rng, 1), "test": scales(rng, 2)}
    for name in SETS:
        packed(tmp_path / f"{name}.npz", rolls)
    path = tmp_path / "model.safetensors"
    config = FramesConfig.from_dict({"hidden_size": 8, "filters": 4, "match_window": 8})
    weights.write(path, model_file(config, rng))
    assert cli.main(["evaluate", "frames", str(path), "--data", str(tmp_path), "--split", "test"]) == 0
    table = capsys.readouterr().out
    assert "Piano-midi test" in table
    assert "RNN-NADE (published)" in table
    assert cli.main(["evaluate", "frames", "--data", str(tmp_path), "--json"]) == 0
    assert '"nottingham"' in capsys.readouterr().out
    assert cli.main(["evaluate", "frames", "chorale", "--data", str(tmp_path)]) != 0
    assert "expected a model of frames" in capsys.readouterr().err
