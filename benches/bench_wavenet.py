"""Sampling from the WaveNets C1 to C3, one thread: ours and every peer that is installed.

    pytest benches/bench_wavenet.py -k "C2-1"

`compare_wavenet.py` takes the same contenders through interleaved rounds and prints the ratios.
"""

import numpy as np
import pytest

import wavenet_peers as peers

CONTENDERS = [
    pytest.param(
        contender,
        id=f"{contender.name} {contender.precision}",
        marks=pytest.mark.skipif(bool(peers.missing(contender)), reason=f"needs {', '.join(peers.missing(contender))}"),
    )
    for contender in (*peers.OURS, *peers.PEERS)
]


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("batch", [1, 8, 32])
@pytest.mark.parametrize("config", peers.CONFIGS)
def test_sample(benchmark, config, batch, contender):
    shape = peers.Shape(*peers.CONFIGS[config])
    weights = peers.weights_for(shape)
    tokens = np.random.default_rng(3).integers(0, shape.vocab_size, 32)
    entry = contender(shape, weights, batch, 1)
    peers.check(entry, peers.Numpy(shape, weights, 1, 1).log_prob(tokens), tokens)
    n_steps = 4 * max(1, round(3e8 / (4 * shape.macs * batch)))
    benchmark.group = f"{config} batch {batch}, {n_steps} steps"
    benchmark.pedantic(entry.sample, args=(n_steps,), rounds=5, warmup_rounds=1)
    benchmark.extra_info["samples_per_s"] = n_steps * batch / benchmark.stats.stats.median
