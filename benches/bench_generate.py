"""Sampling from the LSTM language models A to D, one thread: ours and every peer that is installed.

    pytest benches/bench_generate.py -k "A-1 or B-1"

`compare_generate.py` takes the same contenders through interleaved rounds and prints the ratios.
"""

import numpy as np
import pytest

import lstm_peers as peers
import musicgen_ext as mg

CONTENDERS = [
    pytest.param(
        contender,
        id=f"{contender.name} {contender.precision}",
        marks=pytest.mark.skipif(bool(peers.missing(contender)), reason=f"needs {', '.join(peers.missing(contender))}"),
    )
    for contender in (*peers.OURS, *peers.PEERS)
]
SECONDS = 0.1


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("batch", [1, 32])
@pytest.mark.parametrize("config", peers.CONFIGS)
def test_sample(benchmark, config, batch, contender):
    shape = peers.Shape(*peers.CONFIGS[config])
    weights = peers.weights_for(shape)
    tokens = np.random.default_rng(3).integers(0, shape.vocab_size, 32)
    entry = contender(shape, weights, batch, 1)
    peers.check(entry, peers.Numpy(shape, weights, 1, 1).log_prob(tokens), tokens)
    n_steps = 4 * max(1, round(SECONDS * 3e9 / (4 * shape.macs * batch)))  # a slow peer's rate, in multiply-adds/s
    benchmark.group = f"{config} batch {batch}, {n_steps} steps"
    benchmark.pedantic(entry.sample, args=(n_steps,), rounds=5, warmup_rounds=1)
    benchmark.extra_info["tokens_per_s"] = n_steps * batch / benchmark.stats.stats.median


@pytest.mark.parametrize("batch", [1, 32])
@pytest.mark.parametrize("model", ["chorale", "folk"])
def test_bundled(benchmark, model, batch):
    """Sixteen bars of 4/4 from a model that comes with the package, scores made of them included."""
    loaded = mg.load(model)
    benchmark.group = f"bundled, batch {batch}, 16 bars"
    options = {"num_samples": batch, "length": "16 bars", "condition": {"meter": "4/4"}, "seed": 1}
    benchmark.pedantic(loaded.sample, kwargs=options, rounds=5, warmup_rounds=1)
    benchmark.extra_info["frames_per_s"] = 256 * batch / benchmark.stats.stats.median
