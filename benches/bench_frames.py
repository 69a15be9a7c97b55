"""Scoring and drawing frames with one network, one thread: ours and every peer that is installed.

`compare_frames.py` takes the same contenders through interleaved rounds and prints the ratios.
"""

import numpy as np
import pytest

import compare_frames as frames

TENSORS = frames.tensors_for(frames.CONFIG)
STEPS = 400


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("kind", [frames.Ours, frames.OursDrawing])
def test_ours(benchmark, kind, storage):
    entry = kind(frames.CONFIG, TENSORS, frames.music(frames.CONFIG), storage)
    run(benchmark, entry)


@pytest.mark.parametrize("kind", [frames.OnnxRuntime, frames.Torch, frames.Numpy])
def test_peers(benchmark, kind):
    try:
        entry = kind(frames.CONFIG, TENSORS, frames.music(frames.CONFIG))
    except ImportError as error:
        pytest.skip(str(error))
    expected = frames.Ours(frames.CONFIG, TENSORS, entry.roll).log_prob()
    np.testing.assert_allclose(entry.log_prob(), expected, atol=1e-3)
    run(benchmark, entry)


def run(benchmark, entry):
    benchmark.group = f"{STEPS} frames"
    benchmark.pedantic(entry.sample, args=(STEPS,), rounds=5, warmup_rounds=1)
    benchmark.extra_info["frames_per_s"] = STEPS / benchmark.stats.stats.median
