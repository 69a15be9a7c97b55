"""A network over frames, frame by frame: ours against ONNX Runtime, torch and numpy, in one run on one thread.

    python benches/compare_frames.py [--rounds 9] [--json FILE]

A step: one frame of 88 keys is heard, the trunk moves on, and every key of the next frame gets its logit, given the
keys below it. The peers find all features ready (channels, ranks, one-hot numbers), so that their step is arithmetic
alone; ours finds them itself, longest match included, from frames of 0 and 1. First every contender must give the same
log-probabilities of the same frames; then all of them take turns. Ours is timed in sampling, too, which asks the keys
above every note again.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np

from compare_generate import figure, machine, race, ratio  # first: it pins the threads of numpy's BLAS
from musicgen_ext import generate, weights
from musicgen_ext.architectures import FramesConfig

CONFIG = FramesConfig()  # what the examples train
FRAMES = 256
ENCODING = {"name": "piano_roll_frames"}


def tensors_for(config, seed=0):
    rng = np.random.default_rng(seed)
    tensors = {
        name: (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) + 1)).astype(np.float32)
        for name, shape in config.tensor_shapes().items()
    }
    tensors["key.bias"] -= 3  # about 4 keys of 88 sound
    return tensors


def music(config, seed=0):
    """Frames that the network itself draws: with as many notes as it likes."""
    file = weights.ModelFile(None, "frames", config.to_dict(), ENCODING, {}, tensors_for(config))
    return generate.FramesEngine(file).sample(FRAMES, seed=seed).frames[0]


class Ours:
    name = "musicgen_ext"
    batch = 1

    def __init__(self, config, tensors, roll, storage="float32"):
        self.precision, self.roll = storage, roll
        file = weights.ModelFile(None, "frames", config.to_dict(), ENCODING, {}, tensors)
        self.engine = generate.FramesEngine(weights.convert(file, storage))

    def log_prob(self):
        return self.engine.log_prob(self.roll, threads=1)

    def sample(self, n_steps):
        """Score `n_steps` frames."""
        roll = np.resize(self.roll, (n_steps, self.roll.shape[1]))
        return self.engine.log_prob(roll, threads=1)


class OursDrawing(Ours):
    name = "musicgen_ext, sampling"

    def sample(self, n_steps):
        return self.engine.sample(n_steps, threads=1)


class Numpy:
    """The step with its features ready, as few and as large products as there can be."""

    name, precision, batch = "numpy", "float32", 1

    def __init__(self, config, tensors, roll):
        from musicgen_ext.train.frames import frame_features

        self.config, self.tensors, self.roll = config, tensors, roll
        channels, numbers = frame_features(config, roll)
        n = len(roll)
        hot = [np.eye(size, dtype=np.float32)[numbers[:, i]] for i, size in enumerate(config.numbers)]
        trunk = channels[:, :, list(config.trunk_channels)].reshape(n, -1).astype(np.float32)
        self.x = np.ascontiguousarray(np.concatenate([trunk, *hot], 1))[:, None]  # (n, 1, inputs)
        pictures = np.concatenate([channels, roll[..., None]], 2).astype(np.float32)
        self.pictures = np.ascontiguousarray(pictures.transpose(0, 2, 1))[:, None, :, None]  # (n, 1, C + 1, 1, keys)
        below = [np.minimum(p.cumsum(1, dtype=np.int64) - p, 8) for p in (channels[..., 0], channels[..., -1], roll)]
        ranks = [*below, *(np.clip(below[2] - past, -4, 4) + 4 for past in below[:2])]
        table = tensors["ranks.weight"].reshape(len(ranks), 9, -1)
        # What every key adds whatever the trunk says.
        own = tensors["position.weight"] + sum(table[i][rank] for i, rank in enumerate(ranks))
        self.own = np.ascontiguousarray(own.transpose(0, 2, 1).astype(np.float32))[:, None, :, None]  # (n, 1, F, 1, k)
        written = np.pad(tensors["written.weight"], ((0, 0), (0, config.reach + 1)))[:, None]
        self.local = np.ascontiguousarray(np.concatenate([tensors["local.weight"], written], 1)[:, :, None])
        self.start()

    def start(self):
        size = self.config.hidden_size
        self.h, self.c = np.zeros((1, size), np.float32), np.zeros((1, size), np.float32)

    def step(self, i):
        t = self.tensors
        gates = self.x[i] @ t["rnn.weight_ih_l0"].T + t["rnn.bias_ih_l0"] + t["rnn.bias_hh_l0"]
        gates += self.h @ t["rnn.weight_hh_l0"].T
        a, f, g, o = np.split(gates, 4, 1)
        self.c = self.c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-a))
        self.h = np.tanh(self.c) / (1 + np.exp(-o))
        reach = self.config.reach
        wide = np.pad(self.pictures[i, 0, :, 0], ((0, 0), (reach, reach)))
        seen = np.lib.stride_tricks.sliding_window_view(wide, 2 * reach + 1, 1).transpose(1, 0, 2).reshape(88, -1)
        sums = seen @ self.local.reshape(len(self.local), -1).T + self.own[i, 0, :, 0].T
        sums += self.h @ t["condition.weight"].T
        return np.maximum(sums, 0) @ t["output.weight"][0] + (self.h @ t["key.weight"].T)[0] + t["key.bias"]

    def log_prob(self):
        self.start()
        z = np.array([np.asarray(self.step(i)).reshape(-1) for i in range(len(self.roll))], np.float64)
        return (self.roll * z - np.logaddexp(0, z)).sum(1)

    def sample(self, n_steps):
        self.start()
        for i in range(n_steps):
            self.step(i % len(self.roll))


class Torch(Numpy):
    name = "torch, eager"

    def __init__(self, config, tensors, roll):
        super().__init__(config, tensors, roll)
        import torch

        self.torch = torch
        torch.set_num_threads(1)
        names = ("x", "pictures", "own", "local")
        self.x, self.pictures, self.own, self.local = (torch.from_numpy(getattr(self, name)) for name in names)
        self.t = {name: torch.from_numpy(array) for name, array in tensors.items()}
        self.cell = torch.nn.LSTMCell(config.trunk_inputs, config.hidden_size)
        state = {name: self.t[f"rnn.{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        self.cell.load_state_dict(state)
        self.state = None

    def start(self):
        self.state = None

    def step(self, i):
        torch, t = self.torch, self.t
        with torch.inference_mode():
            self.state = self.cell(self.x[i], self.state)
            h = self.state[0]
            sums = torch.nn.functional.conv2d(self.pictures[i], self.local, padding=(0, self.config.reach))
            sums += self.own[i]
            sums += (h @ t["condition.weight"].T).view(1, -1, 1, 1)
            z = t["output.weight"] @ sums.relu_()[0, :, 0]
            return z + torch.addmm(t["key.bias"], h, t["key.weight"].T)


def onnx_step(config, tensors, local):
    """One step as an ONNX model: the operators that a careful user would write."""
    from onnx import TensorProto, helper, numpy_helper

    size, filters, keys = config.hidden_size, config.filters, config.keys
    order = np.concatenate([np.arange(4 * size).reshape(4, size)[i] for i in (0, 3, 1, 2)])  # ONNX: i, o, f, c
    constants = {
        "W": tensors["rnn.weight_ih_l0"][order][None],
        "R": tensors["rnn.weight_hh_l0"][order][None],
        "B": np.concatenate([tensors["rnn.bias_ih_l0"][order], tensors["rnn.bias_hh_l0"][order]])[None],
        "local": local,
        "condition": tensors["condition.weight"],
        "none": np.zeros(filters, np.float32),
        "key": tensors["key.weight"],
        "key_bias": tensors["key.bias"],
        "output": tensors["output.weight"].reshape(1, filters, 1, 1),
        "flat": np.array([1, size], np.int64),
        "one": np.array([1, filters, 1, 1], np.int64),
        "row": np.array([1, keys], np.int64),
        "first": np.array([1, 1, config.trunk_inputs], np.int64),
    }
    pads = {"kernel_shape": [1, 2 * config.reach + 1], "pads": [0, config.reach, 0, config.reach]}
    nodes = [
        helper.make_node("Reshape", ["x", "first"], ["x3"]),
        helper.make_node("LSTM", ["x3", "W", "R", "B", "", "h", "c"], ["", "h_next", "c_next"], hidden_size=size),
        helper.make_node("Reshape", ["h_next", "flat"], ["state"]),
        helper.make_node("Conv", ["pictures", "local"], ["seen"], **pads),
        helper.make_node("Gemm", ["state", "condition", "none"], ["told"], transB=1),
        helper.make_node("Reshape", ["told", "one"], ["told4"]),
        helper.make_node("Add", ["seen", "own"], ["a"]),
        helper.make_node("Add", ["a", "told4"], ["b"]),
        helper.make_node("Relu", ["b"], ["f"]),
        helper.make_node("Conv", ["f", "output"], ["z4"], kernel_shape=[1, 1]),
        helper.make_node("Reshape", ["z4", "row"], ["z"]),
        helper.make_node("Gemm", ["state", "key", "key_bias"], ["direct"], transB=1),
        helper.make_node("Add", ["z", "direct"], ["logits"]),
    ]

    def wire(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    inputs = [
        wire("x", 1, config.trunk_inputs), wire("pictures", 1, config.channels + 1, 1, keys),
        wire("own", 1, filters, 1, keys), wire("h", 1, 1, size), wire("c", 1, 1, size),
    ]  # fmt: skip
    outputs = [wire("logits", 1, keys), wire("h_next", 1, 1, size), wire("c_next", 1, 1, size)]
    stored = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "step", inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model.SerializeToString()


class OnnxRuntime(Numpy):
    name = "onnxruntime step"

    def __init__(self, config, tensors, roll):
        super().__init__(config, tensors, roll)
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        model = onnx_step(config, tensors, self.local)
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.start()

    def start(self):
        self.states = [np.zeros((1, 1, self.config.hidden_size), np.float32) for _ in "hc"]

    def step(self, i):
        h, c = self.states
        feed = {"x": self.x[i], "pictures": self.pictures[i], "own": self.own[i], "h": h, "c": c}
        logits, *self.states = self.session.run(None, feed)
        return logits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="how often everyone takes a turn (9)")
    parser.add_argument("--slice", type=float, default=0.15, help="seconds of a turn (0.15)")
    parser.add_argument("--json", help="write the numbers here as well")
    arguments = parser.parse_args()
    tensors, roll = tensors_for(CONFIG), music(CONFIG)
    entries = [Ours(CONFIG, tensors, roll, storage) for storage in ("float32", "bfloat16", "int8")]
    entries += [OursDrawing(CONFIG, tensors, roll, storage) for storage in ("float32", "bfloat16", "int8")]
    for peer in (OnnxRuntime, Torch, Numpy):
        try:
            entries.append(peer(CONFIG, tensors, roll))
        except ImportError as error:
            print(f"left out: {peer.name} ({error})", file=sys.stderr)
    expected = Numpy(CONFIG, tensors, roll).log_prob()
    rows = []
    for entry in entries:
        difference = float(np.abs(entry.log_prob() - expected).mean())
        if entry.precision == "float32" and difference > 1e-3:
            raise SystemExit(f"{entry.name}: expected numpy's log-probabilities, they differ by {difference} nats")
        rows.append({"name": entry.name, "precision": entry.precision, "nats": difference})
    for row, rates in zip(rows, race(entries, arguments.rounds, arguments.slice), strict=True):
        row |= {"frames_per_s": statistics.median(rates), "range": [min(rates), max(rates)], "rounds": rates}
    print("\n".join(f"{name}: {value}" for name, value in machine().items()))
    print(f"{CONFIG.num_parameters():,} parameters, {roll.sum() / len(roll):.1f} notes a frame, one thread\n")
    print("| engine | weights | frames/s (range) | ours, scoring, same weights, is | nats from numpy |")
    print("| --- | --- | --- | --- | --- |")
    for row in rows:
        mine = next(r for r in rows if r["precision"] == row["precision"])
        low, high = map(figure, row["range"])
        against = "" if row is mine else f"{ratio(mine, row):.1f}× as fast"
        rate = figure(row["frames_per_s"])
        print(f"| {row['name']} | {row['precision']} | {rate} ({low}–{high}) | {against} | {row['nats']:.1e} |")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
