"""Sampling from the same LSTM side by side: ours against torch, numpy, ONNX Runtime and OpenVINO, in one run.

    python benches/compare_generate.py [--configs ABCD] [--batches 1 32] [--threads 1 2] [--json FILE]

First every contender must give torch's log-probabilities under teacher forcing; then all of them take turns, round
after round, so that a change of the machine's mood hits everyone. Printed: medians of tokens per second with their
range, and the median over the rounds of the ratio ours / peer. A package that is not installed is left out by name.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path

# Before numpy wakes its BLAS: the number of threads is part of what is measured.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402

import lstm_peers as peers  # noqa: E402


def machine():
    """What the numbers belong to: processor, system, compiler, versions."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        processor = f"{len(names)} × {names[0]}" if names else processor
    versions = []
    for package in ("musicgen-ext", "numpy", "torch", "onnxruntime", "openvino"):
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    try:
        from musicgen_ext import _core

        built = f"{_core.compiler}, {_core.isa_in_use()} path"
    except ImportError:
        built = "native module not built"
    return {
        "processor": processor,
        "system": f"{platform.system()}, Python {platform.python_version()}",
        "built with": built,
        "versions": ", ".join(versions),
    }


def read_bandwidth(size, seconds=0.1):
    """Bytes per second that one thread reads from a buffer of `size` bytes (dot products with itself)."""
    buffer = np.ones(max(size // 4, 1024), dtype=np.float32)
    repeats = max(1, int(4e7 / buffer.nbytes))
    # The same row again and again, so that one call of numpy holds enough work to hide its own cost.
    rows = np.lib.stride_tricks.as_strided(buffer, (repeats, 1, len(buffer)), (0, buffer.nbytes, 4))
    column = buffer[:, None]
    times = []
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or len(times) < 5:
        start = time.perf_counter()
        np.matmul(rows, column)
        times.append(time.perf_counter() - start)
    return repeats * buffer.nbytes / min(times)


def limits(shape):
    """Tokens per second at batch 1 if weights were read as fast as by numpy's dot product: for scale, no bound."""
    return {
        precision: read_bandwidth(shape.weight_bytes(precision)) / shape.weight_bytes(precision)
        for precision in ("fp32", "bf16", "int8")
    }


def contenders(selected):
    """The classes to run, and a line for everyone who has to stay at home."""
    present, absent = [], []
    for contender in (*peers.OURS, *peers.PEERS):
        if selected and not any(word in f"{contender.name} {contender.precision}" for word in selected):
            continue
        gone = peers.missing(contender)
        if gone:
            absent.append(f"{contender.name} {contender.precision}: {', '.join(gone)} not installed")
        else:
            present.append(contender)
    return present, absent


def race(entries, rounds, slice_seconds):
    """Tokens per second, one list per entry; entries take turns within every round."""
    steps = []
    for entry in entries:
        n_steps, taken = 4, 0.0
        entry.sample(n_steps)
        while True:
            start = time.perf_counter()
            entry.sample(n_steps)
            taken = time.perf_counter() - start
            if taken > slice_seconds / 4 or n_steps > 1 << 20:
                break
            n_steps *= 4
        steps.append(max(4, int(n_steps * slice_seconds / taken)))
    rates = [[] for _ in entries]
    for _ in range(rounds):
        for entry, n_steps, rate in zip(entries, steps, rates, strict=True):
            start = time.perf_counter()
            entry.sample(n_steps)
            rate.append(n_steps * entry.batch / (time.perf_counter() - start))
    return rates


def cell(name, batch, threads, classes, arguments):
    """One configuration at one batch size: check everyone, race everyone."""
    shape = peers.Shape(*peers.CONFIGS[name])
    weights = peers.weights_for(shape)
    tokens = np.random.default_rng(3).integers(0, shape.vocab_size, 48)
    reference = peers.Numpy(shape, weights, 1, 1)
    if not peers.missing(peers.TorchLstm):
        reference = peers.TorchLstm(shape, weights, 1, 1)
    expected = reference.log_prob(tokens)
    entries, differences = [], []
    for contender in classes:
        entry = contender(shape, weights, batch, threads)
        differences.append(peers.check(entry, expected, tokens))
        entries.append(entry)
    rates = race(entries, arguments.rounds, arguments.slice)
    return [
        {
            "config": name,
            "batch": batch,
            "threads": threads,
            "name": entry.name,
            "precision": entry.precision,
            "tokens_per_s": statistics.median(rate),
            "range": [min(rate), max(rate)],
            "rounds": rate,
            "nats_from_torch": difference,
        }
        for entry, rate, difference in zip(entries, rates, differences, strict=True)
    ]


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


def ratio(ours, peer):
    return statistics.median(a / b for a, b in zip(ours["rounds"], peer["rounds"], strict=True))


def figure(value):
    if value >= 1e6:
        return f"{value / 1e6:.2f}M"
    return f"{value / 1e3:.1f}k" if value >= 1e3 else f"{value:.0f}"


def full_table(rows):
    """Every contender of one cell; the ratio is against ours of the same precision."""
    ours = {row["precision"]: row for row in rows if row["name"] == peers.Ours.name}
    lines = [
        "| engine | weights | tokens/s (range) | ours of the same precision is | nats from torch |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        mine = ours.get(row["precision"])
        against = "" if row["name"] == peers.Ours.name or mine is None else f"{ratio(mine, row):.1f}× as fast"
        low, high = row["range"]
        lines.append(
            f"| {row['name']} | {row['precision']} | {figure(row['tokens_per_s'])} ({figure(low)}–{figure(high)}) "
            f"| {against} | {row['nats_from_torch']:.1e} |"
        )
    return "\n".join(lines)


def summary(cells, bounds):
    """One line per cell and precision: ours, the best peer of that precision, onnxruntime, torch's loop, the limit."""
    lines = [
        "| configuration | batch | threads | weights | ours, tokens/s | best peer, same precision | ratio "
        "| × onnxruntime fp32 | × torch nn.LSTM fp32 | of numpy's read rate |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (name, batch, threads), rows in cells.items():
        vocab, embedding, hidden, layers = peers.CONFIGS[name]
        label = f"{name}: V{vocab} E{embedding} H{hidden}×{layers}"
        others = [row for row in rows if row["name"] != peers.Ours.name]
        for mine in (row for row in rows if row["name"] == peers.Ours.name):
            same = [row for row in others if row["precision"] == mine["precision"]]
            best = max(same, key=lambda row: row["tokens_per_s"], default=None)
            known = {(row["name"], row["precision"]): row for row in others}
            against = [
                f"{ratio(mine, known[peer]):.1f}" if peer in known else "–"
                for peer in ((peers.OnnxRuntime.name, "fp32"), (peers.TorchLstm.name, "fp32"))
            ]
            bound = bounds[name][mine["precision"]] if batch == 1 and threads == 1 else None
            lines.append(
                f"| {label} | {batch} | {threads} | {mine['precision']} | {figure(mine['tokens_per_s'])} | "
                + (f"{best['name']} {figure(best['tokens_per_s'])} | {ratio(mine, best):.1f}" if best else "– | –")
                + f" | {against[0]} | {against[1]} | "
                + (f"{100 * mine['tokens_per_s'] / bound:.0f} % of {figure(bound)}" if bound else "")
                + " |"
            )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", default="ABCD", help="which of A, B, C, D (default: all)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="thread counts, each a run of its own")
    parser.add_argument("--only", nargs="*", default=[], help="contenders whose name contains one of these words")
    parser.add_argument("--scaling", type=int, default=2, help="threads of ours against one thread; 0: leave out")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--slice", type=float, default=0.1, help="seconds a contender runs in one round")
    parser.add_argument("--json", type=Path, help="write every number here")
    arguments = parser.parse_args()
    unknown = set(arguments.configs) - set(peers.CONFIGS)
    if unknown:
        parser.error(f"--configs: expected letters out of {''.join(peers.CONFIGS)}, got {arguments.configs!r}")
    classes, absent = contenders(arguments.only)
    description = machine()
    for key, value in description.items():
        print(f"{key}: {value}")
    for line in absent:
        print(f"left out: {line}")
    cells, bounds = {}, {}
    for name in arguments.configs:
        bounds[name] = limits(peers.Shape(*peers.CONFIGS[name]))
        for batch in arguments.batches:
            for threads in arguments.threads:
                rows = cell(name, batch, threads, classes, arguments)
                cells[name, batch, threads] = rows
                print(f"\n### {name}, batch {batch}, {threads} thread{'s' if threads > 1 else ''}\n")
                print(full_table(rows), flush=True)
    print("\n### Summary\n")
    print(summary(cells, bounds))
    if arguments.scaling > 1 and not arguments.only:
        batch = max(arguments.batches)
        print(f"\n### Threads: batch {batch}, one and {arguments.scaling}, in turns\n")
        print(
            "| configuration | weights | one thread | "
            + f"{arguments.scaling} threads | ratio |\n| --- | --- | --- | --- | --- |"
        )
        for name in arguments.configs:
            for precision, one, many, gain in scaling(name, batch, arguments.scaling, arguments):
                print(f"| {name} | {precision} | {figure(one)} | {figure(many)} | {gain:.2f} |", flush=True)
    if arguments.json:
        rows = [row for rows in cells.values() for row in rows]
        arguments.json.write_text(json.dumps({"machine": description, "limits": bounds, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
