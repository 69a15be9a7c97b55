"""Fixtures of all rooms: a seeded generator, and one run of a numeric test on each instruction set of this machine."""

import os
import subprocess
import sys

import numpy as np
import pytest

from musicgen_ext import _core, encodings, weights
from musicgen_ext.architectures import RecurrentConfig, WaveNetConfig


def pytest_report_header():
    return f"musicgen_ext {_core.__version__}, {_core.compiler}, instruction sets: {', '.join(_core.isas_available())}"


@pytest.fixture
def rng():
    return np.random.default_rng(20_261_120)


@pytest.fixture(params=_core.isas_available())
def isa(request, monkeypatch):
    """The instruction set that the native code uses in this test."""
    monkeypatch.setenv("MUSICGEN_EXT_CPU", request.param)
    assert _core.isa_in_use() == request.param
    return request.param


@pytest.fixture
def on_every_isa(monkeypatch):
    """Call a function once on each instruction set and return the results by name."""

    def run(function):
        results = {}
        for name in _core.isas_available():
            monkeypatch.setenv("MUSICGEN_EXT_CPU", name)
            results[name] = function()
        monkeypatch.delenv("MUSICGEN_EXT_CPU")
        return results

    return run


INTERRUPTED = """
import os, signal, threading, time
import numpy as np
{before}
sent = []
def interrupt():
    time.sleep(0.3)
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    while True:
        {call}
except KeyboardInterrupt:
    late = time.monotonic() - sent[0]
{after}
print(late)
"""


@pytest.fixture
def ctrl_c():
    """Run a call over and over in a process of its own until Ctrl-C ends it; the seconds that takes."""
    if sys.platform == "win32":
        pytest.skip("no such signal")

    def run(before, call, after=""):
        code = INTERRUPTED.format(before=before, call=call, after=after)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return float(done.stdout)

    return run


def pytest_configure():
    os.environ.pop("MUSICGEN_EXT_CPU", None)  # tests choose their paths themselves


def tiny_model(encoding, *, seed=0, hidden_size=12, storage="float32", bias=None):
    """A `ModelFile` of a small random network that fits `encoding`: nonsense, but music in form.

    `bias` maps (slot, token) to what is added to that logit.
    """
    features, trunk = [], []
    for i, slot in enumerate(encoding.slots):
        kind = "token" if slot["hold"] is None else "sounding"
        features.append({"name": f"{slot['name']}_1", "kind": kind, "slot": i, "lag": 1})
        features.append({"name": f"{slot['name']}_now", "kind": "chosen", "slot": i})
        trunk.append({"feature": f"{slot['name']}_1", "dim": 4})
    if encoding.hold:  # the benchmark's models are told nothing
        for name, size in encoding.given_sizes.items():
            features.append({"name": name, "kind": "given", "size": size})
            trunk.append({"feature": name, "dim": 2})
    slots = [
        {**slot, "head": {"hidden_size": 8, "inputs": [f"{s['name']}_now" for s in encoding.slots[:i]]}}
        for i, slot in enumerate(encoding.slots)
    ]
    config = RecurrentConfig.from_dict(
        {"cell": "lstm", "hidden_size": hidden_size, "num_layers": 1, "features": features, "trunk": trunk,
         "slots": slots}
    )  # fmt: skip
    random = np.random.default_rng(seed)
    tensors = {n: random.normal(0, 0.5, s).astype(np.float32) for n, s in config.tensor_shapes().items()}
    if encoding.hold:  # mostly holds, and about eight bars
        bias = {("flag", encodings.NO_FLAG): 5.0, ("flag", encodings.FERMATA): 2.0,
                **{(v, 0): 5.0 for v in encoding.voices}, **(bias or {})}  # fmt: skip
    for (slot, token), value in (bias or {}).items():
        tensors[f"head.{slot}.output.bias"][token] += value
    card = {"licence": "CC0", "data": "none: random weights", "metrics": {"valid_nll": 4.0}}
    file = weights.ModelFile(None, "recurrent", config.to_dict(), encoding.to_dict(), card, tensors)
    return weights.convert(file, storage)


NOTES_TO_SOUND = encodings.NotesToSound(4_000, 40, 55, 79, ("plain", "bright"))


def tiny_sound_model(encoding=NOTES_TO_SOUND, output=None, storage="float32", seed=0, **changes):
    """A `ModelFile` of a small random WaveNet: noise, but sound in form. `changes` are of its config."""
    told = isinstance(encoding, encodings.NotesToSound)
    config = WaveNetConfig.from_dict(
        {
            "sample_rate": 4_000, "residual_channels": 12, "skip_channels": 20, "hidden_channels": 16,
            "dilations": [1, 2, 4, 8, 1, 2], "output": output or {"kind": "mu_law", "classes": 256},
            "condition": {"channels": encoding.num_channels, "width": 6, "kernel_size": 5, "hop_length": 40}
            if told else None,
            **changes,
        }
    )  # fmt: skip
    random = np.random.default_rng(seed)
    tensors = {}
    for name, shape in config.tensor_shapes().items():
        spread = 1.5 / np.sqrt(np.prod(shape[1:]) if len(shape) > 1 and "embedding" not in name else 2)
        tensors[name] = (random.normal(size=shape) * spread).astype(np.float32)
    if config.output.kind == "logistics":
        tensors["logits.bias"][2 * config.output.mixtures :] -= 4  # narrow enough to lie inside [-1, 1]
    card = {"licence": "CC0", "data": "none: random weights", "metrics": {"bits": 8.0}}
    file = weights.ModelFile(None, "wavenet", config.to_dict(), encoding.to_dict(), card, tensors)
    return weights.convert(file, storage)


@pytest.fixture(scope="session")
def make_model():
    """`tiny_model`."""
    return tiny_model


@pytest.fixture(scope="session")
def make_sound_model():
    """`tiny_sound_model`."""
    return tiny_sound_model


@pytest.fixture(scope="session")
def chorale_file(tmp_path_factory):
    """Path of a tiny random model with the encoding of the chorales."""
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    weights.write(path, tiny_model(encodings.CHORALE))
    return path


@pytest.fixture(scope="session")
def jsb16_file(tmp_path_factory):
    """Path of a tiny random model with the encoding of the JSB benchmark."""
    path = tmp_path_factory.mktemp("models") / "tiny16.safetensors"
    weights.write(path, tiny_model(encodings.JSB16))
    return path
