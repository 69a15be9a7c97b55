"""Sampling from the same transformer side by side: ours against torch, ONNX Runtime and OpenVINO, in one run.

    python benches/compare_attention.py [--contexts 64 256 512] [--rounds 7] [--json FILE]

4 layers, 256 wide, 8 heads, one thread, batch 1, every context full. First every contender must give torch's
log-probabilities under teacher forcing; then all of them take turns, round after round, so that a change of the
machine's mood hits everyone. Printed: medians of tokens per second with their range, the median over the rounds of the
ratio ours / peer, and what share of the rate at which numpy reads as many bytes ours reaches.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

from compare_generate import figure, machine, race, ratio, read_bandwidth  # first: it tells numpy's BLAS the threads

import attention_peers as peers  # isort: skip
import numpy as np  # isort: skip


def cell(shape, classes, arguments):
    """One context: check everyone, race everyone."""
    weights = peers.weights_for(shape)
    tokens = np.random.default_rng(3).integers(0, shape.vocab_size, 24)
    first = peers.Ours if peers.missing(peers.Torch) else peers.Torch
    expected = first(shape, weights, arguments.threads).log_prob(tokens)
    entries = [contender(shape, weights, arguments.threads) for contender in classes]
    differences = [peers.check(entry, expected, tokens) for entry in entries]
    rates = race(entries, arguments.rounds, arguments.slice)
    return [
        {
            "context": shape.context,
            "name": entry.name,
            "precision": entry.precision,
            "tokens_per_s": statistics.median(rate),
            "range": [min(rate), max(rate)],
            "rounds": rate,
            "nats_from_torch": difference,
        }
        for entry, rate, difference in zip(entries, rates, differences, strict=True)
    ]


def table(shape, rows):
    ours = {row["precision"]: row for row in rows if row["name"] == peers.Ours.name}
    lines = [
        "| engine | weights | us a token | tokens/s (range) | ours of the same precision is | nats from torch | "
        "of numpy's read rate |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        mine = row["name"] == peers.Ours.name
        against = "" if mine or row["precision"] not in ours else f"{ratio(ours[row['precision']], row):.1f}× as fast"
        share = ""
        if mine:
            needed = shape.weight_bytes(row["precision"]) + shape.cache_bytes(row["precision"])
            bound = read_bandwidth(needed) / needed
            share = f"{100 * row['tokens_per_s'] / bound:.0f} % of {figure(bound)} ({needed / 1e6:.1f} MB a token)"
        low, high = row["range"]
        lines.append(
            f"| {row['name']} | {row['precision']} | {1e6 / row['tokens_per_s']:.0f} | {figure(row['tokens_per_s'])} "
            f"({figure(low)}–{figure(high)}) | {against} | {row['nats_from_torch']:.1e} | {share} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contexts", type=int, nargs="+", default=[64, 256, 512])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[], help="contenders whose name contains one of these words")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--slice", type=float, default=0.1, help="seconds a contender runs in one round")
    parser.add_argument("--json", type=Path, help="write every number here")
    arguments = parser.parse_args()
    wanted = [c for c in (*peers.OURS, *peers.PEERS)
              if not arguments.only or any(w in f"{c.name} {c.precision}" for w in arguments.only)]  # fmt: skip
    description = machine()
    for key, value in description.items():
        print(f"{key}: {value}")
    for contender in wanted:
        if peers.missing(contender):
            print(f"left out: {contender.name} {contender.precision}: {', '.join(peers.missing(contender))} missing")
    classes = [contender for contender in wanted if not peers.missing(contender)]
    rows = []
    for context in arguments.contexts:
        shape = peers.Shape(context=context)
        rows += cell(shape, classes, arguments)
        print(f"\n### {context} tokens of context, {arguments.threads} thread(s)\n")
        print(table(shape, rows[-len(classes) :]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": description, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
