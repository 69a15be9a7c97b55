"""Sampling from the transformer of attention_peers.py, one thread: ours and every peer that is installed.

    pytest benches/bench_attention.py -k "512"

`compare_attention.py` takes the same contenders through interleaved rounds and prints the ratios.
"""

import numpy as np
import pytest

import attention_peers as peers

CONTENDERS = [
    pytest.param(
        contender,
        id=f"{contender.name} {contender.precision}",
        marks=pytest.mark.skipif(bool(peers.missing(contender)), reason=f"needs {', '.join(peers.missing(contender))}"),
    )
    for contender in (*peers.OURS, *peers.PEERS)
]


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("context", [64, 256, 512])
def test_sample(benchmark, context, contender):
    shape = peers.Shape(context=context)
    weights = peers.weights_for(shape)
    tokens = np.random.default_rng(3).integers(0, shape.vocab_size, 24)
    entry = contender(shape, weights, 1)
    peers.check(entry, peers.Ours(shape, weights, 1).log_prob(tokens), tokens)
    benchmark.group = f"{context} tokens of context, 100 steps"
    benchmark.pedantic(entry.sample, args=(100,), rounds=5, warmup_rounds=1)
    benchmark.extra_info["tokens_per_s"] = 100 / benchmark.stats.stats.median


@pytest.mark.parametrize("contender", peers.OURS, ids=lambda contender: contender.precision)
def test_prompt(benchmark, contender):
    """500 tokens that are known: they go through the layers together."""
    shape = peers.Shape()
    entry = contender(shape, peers.weights_for(shape), 1)
    forced = np.random.default_rng(3).integers(0, shape.vocab_size, (500, 1))
    benchmark.group = "a prompt of 500 tokens"
    benchmark(lambda: entry.engine.sample(500, forced=forced, threads=1))
    benchmark.extra_info["tokens_per_s"] = 500 / benchmark.stats.stats.median
