"""The decoder of a variational autoencoder side by side: ours against ONNX Runtime and others, in one run.

    python benches/compare_variational.py [--configs AB] [--rounds 7] [--json FILE]

The LSTMs of compare_generate.py, told a latent vector of 32 numbers too: fed at every step, as 64 numbers beside the
embedding, or making the states before the first frame. One sequence, one thread. Peers are at their best: what the
vector adds to the first layer's sums is the same at every step, so their sessions have it in that layer's bias, and
cost no more than those of an ordinary language model. First everyone must give the same log-probabilities under teacher
forcing; then all take turns, round after round.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np

import compare_generate as common  # first of all: it sets the number of threads
import lstm_peers as peers
from musicgen_ext import generate
from musicgen_ext.architectures import RecurrentConfig
from musicgen_ext.weights import ModelFile, convert

LATENT, INPUT = 32, 64


class Told:
    """Our engine with a condition vector: fed at every step, or as the first states."""

    batch = 1

    def __init__(self, shape, weights, z, precision, initial):
        self.name = "musicgen_ext, z makes the first state" if initial else "musicgen_ext, z at every step"
        self.precision = {"float32": "fp32", "bfloat16": "bf16", "int8": "int8"}[precision]
        config = RecurrentConfig.from_dict(
            {
                "cell": "lstm",
                "hidden_size": shape.hidden_size,
                "num_layers": shape.num_layers,
                "features": [{"name": "token", "kind": "token", "slot": 0, "lag": 1}],
                "trunk": [{"feature": "token", "dim": shape.embedding_size}],
                "vector": {"size": LATENT, "dim": 0 if initial else INPUT, "initial": initial},
                "slots": [{"name": "token", "size": shape.vocab_size}],
            }
        )
        tensors = {name: weights[name] for name in config.tensor_shapes()}
        if initial:
            tensors["rnn.weight_ih_l0"] = np.ascontiguousarray(tensors["rnn.weight_ih_l0"][:, : shape.embedding_size])
        self.engine = generate.load(convert(ModelFile(None, "recurrent", config.to_dict(), {}, {}, tensors), precision))
        self.z, self.seed = z, 0

    def sample(self, n_steps):
        self.seed += 1
        return self.engine.sample(n_steps, seed=self.seed, vector=self.z, threads=1).tokens[:, :, 0]

    def log_prob(self, tokens):
        return self.engine.log_prob(np.asarray(tokens, np.int32)[:, None], vector=self.z)[:, 0]


def told_weights(shape, seed=0):
    """Those of `lstm_peers`, and what belongs to the vector."""
    rng = np.random.default_rng(seed + 1)
    weights = peers.weights_for(shape, seed)
    bound = shape.hidden_size**-0.5
    states = 2 * shape.num_layers * shape.hidden_size
    extra = rng.uniform(-bound, bound, (4 * shape.hidden_size, INPUT)).astype(np.float32)
    weights["rnn.weight_ih_l0"] = np.concatenate([weights["rnn.weight_ih_l0"], extra], axis=1)
    weights["vector.weight"] = rng.standard_normal((INPUT, LATENT)).astype(np.float32) / np.float32(LATENT**0.5)
    weights["initial.weight"] = rng.standard_normal((states, LATENT)).astype(np.float32) / np.float32(LATENT**0.5)
    weights["initial.bias"] = np.zeros(states, np.float32)
    return weights


def folded(shape, weights, z):
    """The ordinary language model that the one told `z` at every step is."""
    plain = {n: w for n, w in weights.items() if not n.startswith(("vector", "initial"))}
    matrix = weights["rnn.weight_ih_l0"]
    plain["rnn.weight_ih_l0"] = np.ascontiguousarray(matrix[:, : shape.embedding_size])
    share = matrix[:, shape.embedding_size :] @ (weights["vector.weight"] @ z)
    plain["rnn.bias_ih_l0"] = weights["rnn.bias_ih_l0"] + share
    return plain


def race(name, arguments):
    """One configuration: [(entry, rates)]."""
    shape = peers.Shape(*peers.CONFIGS[name])
    weights, z = told_weights(shape), np.random.default_rng(2).standard_normal(LATENT).astype(np.float32)
    tokens = np.random.default_rng(3).integers(0, shape.vocab_size, 48)
    plain = folded(shape, weights, z)
    expected = peers.Numpy(shape, plain, 1, 1).log_prob(tokens)
    entries = []
    for precision in ("float32", "bfloat16", "int8"):
        for initial in (False, True):
            entry = Told(shape, weights, z, precision, initial)
            if not initial:
                peers.check(entry, expected, tokens)
            entries.append(entry)
    for contender in (peers.OnnxRuntime, peers.TorchLstmCell, peers.Numpy):
        gone = peers.missing(contender)
        if gone:
            print(f"left out: {contender.name}: {', '.join(gone)} not installed")
            continue
        entry = contender(shape, plain, 1, 1)
        peers.check(entry, expected, tokens)
        entries.append(entry)
    return list(zip(entries, common.race(entries, arguments.rounds, arguments.slice), strict=True))


def table(rows):
    """One line an engine; the ratio is to ONNX Runtime's fp32 session, round by round."""
    known = [rates for entry, rates in rows if entry.name == peers.OnnxRuntime.name]
    lines = ["| engine | weights | tokens/s (range) | × onnxruntime fp32 |", "| --- | --- | --- | --- |"]
    for entry, rates in rows:
        ratio = statistics.median(a / b for a, b in zip(rates, known[0], strict=True)) if known else None
        low, middle, high = (common.figure(x) for x in (min(rates), statistics.median(rates), max(rates)))
        shown = "–" if ratio is None else f"{ratio:.1f}"
        lines.append(f"| {entry.name} | {entry.precision} | {middle} ({low}–{high}) | {shown} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", default="ABCD", help="which of A, B, C, D (default: all)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--slice", type=float, default=0.1, help="seconds a contender runs in one round")
    parser.add_argument("--json", type=Path, help="write every number here")
    arguments = parser.parse_args()
    unknown = set(arguments.configs) - set(peers.CONFIGS)
    if unknown:
        parser.error(f"--configs: expected letters out of {''.join(peers.CONFIGS)}, got {arguments.configs!r}")
    description = common.machine()
    for key, value in description.items():
        print(f"{key}: {value}")
    numbers = []
    for name in arguments.configs:
        rows = race(name, arguments)
        vocab, embedding, hidden, layers = peers.CONFIGS[name]
        print(f"\n### {name}: V{vocab} E{embedding} H{hidden}×{layers}, z of {LATENT}, batch 1, one thread\n")
        print(table(rows), flush=True)
        numbers += [{"config": name, "name": e.name, "precision": e.precision, "rounds": r} for e, r in rows]
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": description, "rows": numbers}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
