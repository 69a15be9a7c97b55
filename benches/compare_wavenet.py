"""Sampling from the same WaveNet side by side: ours against torch, numpy, ONNX Runtime and OpenVINO, in one run.

    python benches/compare_wavenet.py [--configs C1 C2 C3] [--batches 1] [--threads 1] [--json FILE]

First every contender must give torch's log-probabilities under teacher forcing; then all of them take turns, round
after round. Printed: medians of samples per second with their range, the times faster than real time at 16 kHz, the
ratios to the best peer and to ONNX Runtime, multiply-adds per second, and the share of what our packed matrix-vector
product reaches on one matrix of as many weights in the same rounds. A package that is not installed is left out by
name.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np

import wavenet_peers as peers
from compare_generate import figure, machine, race, ratio  # first: it pins the threads of numpy's BLAS

RATE = 16_000


class Matvec:
    """One packed product with as many weights as a WaveNet: the hidden layer of a model that is little else."""

    name = "packed matrix-vector product"

    def __init__(self, shape, precision, stored):
        from musicgen_ext import _core

        self.core, self.precision, self.batch = _core, precision, 1
        rows = 16 * round((shape.macs**0.5) / 16)
        config = {
            **shape.config(),
            "residual_channels": 1,
            "skip_channels": rows,
            "hidden_channels": rows,
            "dilations": [1],
            "output": {"kind": "mu_law", "classes": 2},
        }
        rng = np.random.default_rng(0)
        tensors = {}
        for name, size in (
            ("embedding.weight", (2, 1)),
            ("layers.0.gate.weight", (2, 1, 2)),
            ("skip.weight", (rows, 1)),
            ("hidden.weight", (rows, rows)),
            ("logits.weight", (2, rows)),
        ):
            array = rng.standard_normal(size).astype(np.float32)
            tensors[name] = array
            if stored == "int8":
                tensors[name], tensors[name + ".scale"] = peers.int8_rows(array)
            if name != "embedding.weight":
                tensors[name.replace("weight", "bias")] = np.zeros(len(array), np.float32)
        self.model = _core.WaveNetModel(config, tensors, stored)
        # What the product itself does; the rest of the model is a few hundredths of it.
        self.macs = rows * rows
        self.options = _core.SamplerOptions(1.0, 0, 1.0)

    def sample(self, n):
        self.core.wavenet_sample(
            self.model, self.model.start(1), n, np.zeros((1, n, 1)), None, None, 0, self.options, 1, False, False
        )


def cell(name, batch, threads, classes, arguments):
    """One configuration: check everyone, race everyone."""
    shape = peers.Shape(*peers.CONFIGS[name])
    weights = peers.weights_for(shape)
    tokens = np.random.default_rng(3).integers(0, shape.vocab_size, 48)
    reference = peers.Numpy if peers.missing(peers.Torch) else peers.Torch
    expected = reference(shape, weights, 1, 1).log_prob(tokens)
    entries, differences = [], []
    for contender in classes:
        entry = contender(shape, weights, batch, threads)
        differences.append(peers.check(entry, expected, tokens))
        entries.append(entry)
    products = [Matvec(shape, c.precision, c.stored) for c in peers.OURS] if batch == 1 and threads == 1 else []
    rates = race([*entries, *products], arguments.rounds, arguments.slice)
    limits = {p.precision: [p.macs * r for r in rate] for p, rate in zip(products, rates[len(entries) :], strict=True)}
    rows = []
    for entry, rate, difference in zip(entries, rates, differences, strict=False):
        ours = entry.name == peers.Ours.name
        share = None
        if ours and products:
            limit = limits[entry.precision]
            share = statistics.median(shape.macs * r / most for r, most in zip(rate, limit, strict=True))
        rows.append(
            {
                "config": name,
                "batch": batch,
                "threads": threads,
                "name": entry.name,
                "precision": entry.precision,
                "samples_per_s": statistics.median(rate),
                "range": [min(rate), max(rate)],
                "rounds": rate,
                "gmac_per_s": shape.macs * statistics.median(rate) / 1e9,
                "matvec_gmac_per_s": statistics.median(limits[entry.precision]) / 1e9 if share else None,
                "share_of_matvec": share,
                "nats_from_torch": difference,
            }
        )
    return rows


def table(rows):
    """Every contender of one cell; ratios of ours against the fastest peer, whatever its weights, and against ONNX."""
    others = [row for row in rows if row["name"] != peers.Ours.name]
    best = max(others, key=lambda row: row["samples_per_s"], default=None)
    onnx = next((row for row in others if row["name"] == peers.OnnxRuntime.name), None)
    lines = [
        "| engine | weights | samples/s (range) | × real time | × best peer | × onnxruntime | GMAC/s "
        "| of packed product | nats from torch |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        ours = row["name"] == peers.Ours.name
        low, high = row["range"]
        against = [f"{ratio(row, peer):.2f}" if ours and peer else "" for peer in (best, onnx)]
        share = row["share_of_matvec"]
        limit = f"{100 * share:.0f} % of {row['matvec_gmac_per_s']:.1f}" if share else ""
        lines.append(
            f"| {row['name']} | {row['precision']} | {figure(row['samples_per_s'])} ({figure(low)}–{figure(high)}) "
            f"| {row['samples_per_s'] / RATE:.2f} | {against[0]} | {against[1]} | {row['gmac_per_s']:.1f} | {limit} "
            f"| {row['nats_from_torch']:.1e} |"
        )
    return "\n".join(lines)


def scaling(name, batch, threads, arguments):
    """Ours with one thread and with `threads`, in turns: [(precision, one, many, ratio)]."""
    shape = peers.Shape(*peers.CONFIGS[name])
    weights = peers.weights_for(shape)
    entries = [contender(shape, weights, batch, count) for contender in peers.OURS for count in (1, threads)]
    rates = race(entries, arguments.rounds, arguments.slice)
    lines = []
    for one, many, entry in zip(rates[::2], rates[1::2], entries[::2], strict=True):
        gain = statistics.median(b / a for a, b in zip(one, many, strict=True))
        lines.append((entry.precision, statistics.median(one), statistics.median(many), gain))
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", nargs="+", default=list(peers.CONFIGS), choices=list(peers.CONFIGS))
    parser.add_argument("--batches", type=int, nargs="+", default=[1])
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="thread counts, each a run of its own")
    parser.add_argument("--only", nargs="*", default=[], help="contenders whose name contains one of these words")
    parser.add_argument("--scaling", type=int, nargs="*", default=[], help="batches: ours with 1 and with 2 threads")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--slice", type=float, default=0.1, help="seconds a contender runs in one round")
    parser.add_argument("--json", type=Path, help="write every number here")
    arguments = parser.parse_args()
    classes = []
    description = machine()
    for key, value in description.items():
        print(f"{key}: {value}")
    for contender in (*peers.OURS, *peers.PEERS):
        gone = peers.missing(contender)
        if gone:
            print(f"left out: {contender.name} {contender.precision}: {', '.join(gone)} not installed")
        elif not arguments.only or any(w in f"{contender.name} {contender.precision}" for w in arguments.only):
            classes.append(contender)
    every = []
    for name in arguments.configs:
        residual, skip, layers = peers.CONFIGS[name]
        for batch in arguments.batches:
            for threads in arguments.threads:
                rows = cell(name, batch, threads, classes, arguments)
                every += rows
                print(f"\n### {name} (R{residual} S{skip} L{layers}), batch {batch}, threads {threads}\n")
                print(table(rows), flush=True)
    for batch in arguments.scaling:
        print(f"\n### batch {batch}, one and two threads, in turns\n")
        print("| configuration | weights | one thread | two threads | ratio |\n| --- | --- | --- | --- | --- |")
        for name in arguments.configs:
            for precision, one, many, gain in scaling(name, batch, 2, arguments):
                print(f"| {name} | {precision} | {figure(one)} | {figure(many)} | {gain:.2f} |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": description, "rows": every}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
