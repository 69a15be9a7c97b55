"""A generator of bars side by side: ours against torch, ONNX Runtime and OpenVINO, in one run.

    python benches/compare_gan.py [--networks bar tutorial conv] [--batches 1 32] [--threads 1] [--rounds 15]

First every contender must give our float32 numbers; then all of them take turns, round after round, so that a change of
the machine's mood hits everyone. Printed: medians of microseconds a call with their range, the median over the rounds
of the ratio peer / ours (float32), and the distance to what memory alone would take: the bytes of the weights at the
speed at which one thread reads a buffer of that size.
"""

import argparse
import os
import statistics
import time

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402

import compare_generate  # noqa: E402
import feedforward_peers as peers  # noqa: E402


def seconds(contender, x, least=0.02):
    """Of one call, averaged over as many as take `least` seconds."""
    calls, began = 0, time.perf_counter()
    while True:
        contender.run(x)
        calls += 1
        passed = time.perf_counter() - began
        if passed >= least:
            return passed / calls


def compare(name, batch, threads, rounds):
    all_of_them = peers.contenders(name, threads)
    ours = all_of_them["ours float32"]
    x = np.random.default_rng(1).standard_normal((batch, *ours.engine.config.input)).astype(np.float32)
    want = ours.run(x)
    for label, contender in all_of_them.items():
        allowed = {"ours bfloat16": 0.05, "ours int8": 0.1}.get(label, 1e-4)
        worst = float(np.abs(contender.run(x) - want).max())
        assert worst < allowed, (label, worst)
    taken = {label: [] for label in all_of_them}
    for _ in range(rounds):
        for label, contender in all_of_them.items():
            taken[label].append(seconds(contender, x))
    macs = ours.engine.config.macs()
    print(f"\n{name}, batch {batch}, {threads} thread(s): {macs / 1e6:.2f} M multiplications")
    for label, times in taken.items():
        ratio = statistics.median(t / o for t, o in zip(times, taken["ours float32"], strict=True))
        line = (
            f"  {label:14} {1e6 * statistics.median(times):8.1f} us  ({1e6 * min(times):.1f} … {1e6 * max(times):.1f})"
        )
        line += f"  {ratio:5.2f} x ours float32"
        if label.startswith("ours"):
            size = all_of_them[label].engine.packed_bytes
            memory = size / compare_generate.read_bandwidth(size)
            line += f"; weights {size / 1e6:.2f} MB, from memory alone {1e6 * memory:.1f} us"
        print(line)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(peers.NETWORKS), choices=list(peers.NETWORKS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    for key, value in compare_generate.machine().items():
        print(f"{key}: {value}")
    for name in arguments.networks:
        for batch in arguments.batches:
            for threads in arguments.threads:
                compare(name, batch, threads, arguments.rounds)


if __name__ == "__main__":
    main()
