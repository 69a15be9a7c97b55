"""One WaveNet, the same weights, run sample by sample by every engine that can: ours, torch, numpy, ONNX Runtime,
OpenVINO.

The contenders have the interface of `lstm_peers`: sample(n_steps) from softmax(logits) at temperature 1, and
log_prob(tokens) under teacher forcing. The peers keep the past inputs of every layer in ring buffers (Le Paine et al.
2016) and compute one step: h of the layers now and `dilation` samples ago to logits and the rows to remember.
"""

import importlib.util
from dataclasses import dataclass

import numpy as np

import lstm_peers

CLASSES = HIDDEN = 256
# residual channels, skip channels, layers; dilations 1 … 512 again and again, kernel size 2
CONFIGS = {"C1": (32, 128, 20), "C2": (64, 256, 20), "C3": (128, 256, 30)}


@dataclass(frozen=True)
class Shape:
    """Sizes of a WaveNet with 256 classes and a hidden output layer of 256."""

    residual: int
    skip: int
    layers: int
    vocab_size: int = CLASSES
    first_token: int = CLASSES // 2

    @property
    def dilations(self):
        return [1 << (i % 10) for i in range(self.layers)]

    @property
    def macs(self):
        """Multiply-adds a sample; the residual of the last layer leads nowhere."""
        r = self.residual
        chain = self.layers * 4 * r * r + (self.layers - 1) * r * r
        return chain + self.layers * r * self.skip + self.skip * HIDDEN + HIDDEN * CLASSES

    def weight_bytes(self, precision):
        return self.macs * {"fp32": 4, "bf16": 2, "int8": 1}[precision]

    def config(self):
        """As a model file says it."""
        return {
            "sample_rate": 16_000,
            "residual_channels": self.residual,
            "skip_channels": self.skip,
            "hidden_channels": HIDDEN,
            "kernel_size": 2,
            "dilations": self.dilations,
            "output": {"kind": "mu_law", "classes": CLASSES},
            "condition": None,
        }


def weights_for(shape, seed=0):
    """Random weights whose distributions are far from uniform, so that a wrong answer shows. Names of model files."""
    rng = np.random.default_rng(seed)
    r, layers = shape.residual, shape.layers

    def matrix(*size, gain=1.0):
        return (rng.standard_normal(size) * gain / np.sqrt(np.prod(size[1:]))).astype(np.float32)

    def bias(n):
        return (0.1 * rng.standard_normal(n)).astype(np.float32)

    weights = {"embedding.weight": rng.standard_normal((CLASSES, r)).astype(np.float32)}
    for i in range(layers):
        weights |= {f"layers.{i}.gate.weight": matrix(2 * r, r, 2), f"layers.{i}.gate.bias": bias(2 * r)}
        if i + 1 < layers:
            weights |= {f"layers.{i}.residual.weight": matrix(r, r), f"layers.{i}.residual.bias": bias(r)}
    weights |= {"skip.weight": matrix(shape.skip, layers * r, gain=4.0), "skip.bias": bias(shape.skip)}
    weights |= {"hidden.weight": matrix(HIDDEN, shape.skip, gain=2.0), "hidden.bias": bias(HIDDEN)}
    return weights | {"logits.weight": matrix(CLASSES, HIDDEN, gain=2.0), "logits.bias": bias(CLASSES)}


class Rings:
    """The past inputs of every layer: gathered and stored for all layers at once."""

    def __init__(self, shape, batch):
        self.size = np.array(shape.dilations)
        self.layers = np.arange(shape.layers)
        self.rows = np.zeros((shape.layers, int(self.size.max()), batch, shape.residual), np.float32)
        self.start()

    def start(self):
        self.rows[:] = 0
        self.time = 0

    def past(self, out):
        self.slot = self.time % self.size
        out[:] = self.rows[self.layers, self.slot]

    def store(self, rows):
        self.rows[self.layers, self.slot] = rows
        self.time += 1


class Numpy(lstm_peers.StepPeer):
    """BLAS products of [past, h] with both taps of a layer at once."""

    name = "numpy"

    def __init__(self, shape, weights, batch, threads):
        super().__init__(shape, weights, batch, threads)
        r = shape.residual
        self.weights = weights
        self.gate = [
            np.ascontiguousarray(weights[f"layers.{i}.gate.weight"].transpose(2, 1, 0).reshape(2 * r, 2 * r))
            for i in range(shape.layers)
        ]
        self.residual = [weights[f"layers.{i}.residual.weight"].T.copy() for i in range(shape.layers - 1)]
        self.output = {n: weights[f"{n}.weight"].T.copy() for n in ("skip", "hidden", "logits")}
        self.rings = Rings(shape, batch)
        self.past = np.zeros((shape.layers, batch, r), np.float32)
        self.inputs = np.zeros((shape.layers, batch, 2 * r), np.float32)
        self.z = np.zeros((batch, shape.layers * r), np.float32)

    def start(self):
        self.rings.start()

    def step(self, tokens):
        r, weights = self.shape.residual, self.weights
        h = weights["embedding.weight"][tokens]
        self.rings.past(self.past)
        self.inputs[:, :, :r] = self.past
        for i in range(self.shape.layers):
            self.inputs[i, :, r:] = h
            sums = self.inputs[i] @ self.gate[i]
            sums += weights[f"layers.{i}.gate.bias"]
            sums[:, r:] *= 0.5
            np.tanh(sums, out=sums)
            sums[:, r:] += 1.0
            sums[:, r:] *= 0.5
            z = self.z[:, i * r : (i + 1) * r]
            np.multiply(sums[:, :r], sums[:, r:], out=z)
            if i + 1 < self.shape.layers:
                h = h + (z @ self.residual[i] + weights[f"layers.{i}.residual.bias"])
        self.rings.store(self.inputs[:, :, r:])
        x = self.z
        for name in ("skip", "hidden"):
            x = np.maximum(x @ self.output[name] + weights[f"{name}.bias"], 0.0)
        return x @ self.output["logits"] + weights["logits.bias"]


class Torch:
    """Linear layers in eager mode, one step a call."""

    name = "torch eager, queues"
    precision = "fp32"

    def __init__(self, shape, weights, batch, threads):
        import torch

        self.torch, self.shape, self.batch, self.threads = torch, shape, batch, threads
        self.w = {name: torch.from_numpy(array) for name, array in weights.items()}
        r = shape.residual
        self.gate = [
            self.w[f"layers.{i}.gate.weight"].permute(0, 2, 1).reshape(2 * r, 2 * r).contiguous()
            for i in range(shape.layers)
        ]
        self.rings = [torch.zeros(d, batch, r) for d in shape.dilations]
        self.generator = torch.Generator().manual_seed(1)

    def start(self):
        for ring in self.rings:
            ring.zero_()
        self.time = 0

    def step(self, tokens):
        torch, w = self.torch, self.w
        linear = torch.nn.functional.linear
        h = w["embedding.weight"][tokens]
        zs = []
        for i, ring in enumerate(self.rings):
            slot = ring[self.time % len(ring)]
            sums = linear(torch.cat((slot, h), 1), self.gate[i], w[f"layers.{i}.gate.bias"])
            slot.copy_(h)
            f, g = sums.chunk(2, 1)
            z = torch.tanh(f) * torch.sigmoid(g)
            zs.append(z)
            if i + 1 < len(self.rings):
                h = h + linear(z, w[f"layers.{i}.residual.weight"], w[f"layers.{i}.residual.bias"])
        x = torch.cat(zs, 1)
        for name in ("skip", "hidden"):
            x = torch.relu(linear(x, w[f"{name}.weight"], w[f"{name}.bias"]))
        self.time += 1
        return linear(x, w["logits.weight"], w["logits.bias"])

    def sample(self, n_steps):
        torch = self.torch
        torch.set_num_threads(self.threads)
        with torch.inference_mode():
            noise = torch.empty(n_steps, self.batch, CLASSES)
            noise.exponential_(generator=self.generator).log_().neg_()
            out = torch.empty(n_steps, self.batch, dtype=torch.int64)
            tokens = torch.full((self.batch,), self.shape.first_token)
            self.start()
            for t in range(n_steps):
                tokens = torch.argmax(noise[t].add_(self.step(tokens)), dim=1, out=out[t])
            return out.T.numpy()

    def log_prob(self, tokens):
        torch = self.torch
        torch.set_num_threads(self.threads)
        values, before = [], self.shape.first_token
        with torch.inference_mode():
            self.start()
            for token in tokens:
                logits = self.step(torch.full((self.batch,), int(before)))[0]
                values.append(float(torch.log_softmax(logits.double(), dim=-1)[int(token)]))
                before = token
        return np.array(values)


def onnx_step(shape, weights, batch):
    """One step as an ONNX graph: token (B,), past (layers, B, R) to logits (B, 256) and now (layers, B, R)."""
    from onnx import TensorProto, helper, numpy_helper

    r, layers = shape.residual, shape.layers
    constants, nodes = [], []

    def constant(array, name):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(kind, inputs, output, **attributes):
        outputs = [output] if isinstance(output, str) else output
        nodes.append(helper.make_node(kind, inputs, outputs, **attributes))
        return output

    constant(weights["embedding.weight"], "table")
    constant(np.array([0], np.int64), "axis")
    node("Split", ["past"], [f"past{i}_" for i in range(layers)], axis=0, num_outputs=layers)
    h = node("Gather", ["table", "token"], "h0")
    for i in range(layers):
        past = node("Squeeze", [f"past{i}_", "axis"], f"past{i}")
        both = node("Concat", [past, h], f"both{i}", axis=1)
        gate = weights[f"layers.{i}.gate.weight"].transpose(2, 1, 0).reshape(2 * r, 2 * r)
        gate, bias = constant(gate, f"gate{i}"), constant(weights[f"layers.{i}.gate.bias"], f"gate_bias{i}")
        f, g = node("Split", [node("Gemm", [both, gate, bias], f"sums{i}")], [f"f{i}", f"g{i}"], axis=1, num_outputs=2)
        z = node("Mul", [node("Tanh", [f], f"tanh{i}"), node("Sigmoid", [g], f"sigmoid{i}")], f"z{i}")
        if i + 1 < layers:
            matrix = constant(weights[f"layers.{i}.residual.weight"].T, f"residual{i}")
            bias = constant(weights[f"layers.{i}.residual.bias"], f"residual_bias{i}")
            h = node("Add", [h, node("Gemm", [z, matrix, bias], f"r{i}")], f"h{i + 1}")
    node("Concat", [node("Unsqueeze", [f"h{i}", "axis"], f"now{i}") for i in range(layers)], "now", axis=0)
    x = node("Concat", [f"z{i}" for i in range(layers)], "z", axis=1)
    for name in ("skip", "hidden", "logits"):
        matrix, bias = (
            constant(weights[f"{name}.weight"].T, f"{name}_matrix"),
            constant(weights[f"{name}.bias"], f"{name}_bias"),
        )
        x = node("Gemm", [x, matrix, bias], "logits" if name == "logits" else f"{name}_sums")
        if name != "logits":
            x = node("Relu", [x], f"{name}_out")
    rows = [layers, batch, r]
    graph = helper.make_graph(
        nodes,
        "step",
        [
            helper.make_tensor_value_info("token", TensorProto.INT64, [batch]),
            helper.make_tensor_value_info("past", TensorProto.FLOAT, rows),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES]),
            helper.make_tensor_value_info("now", TensorProto.FLOAT, rows),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return model.SerializeToString()


class OnnxRuntime(lstm_peers.StepPeer):
    """A step session with every input and output bound to buffers that live as long as the session."""

    name = "onnxruntime step"

    def __init__(self, shape, weights, batch, threads):
        super().__init__(shape, weights, batch, threads)
        self.rings = Rings(shape, batch)
        self.tokens = np.zeros(batch, np.int64)
        self.past = np.zeros((shape.layers, batch, shape.residual), np.float32)
        self.now = np.zeros_like(self.past)
        self.logits = np.zeros((batch, CLASSES), np.float32)
        self.build(weights)

    def build(self, weights):
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        session = ort.InferenceSession(
            onnx_step(self.shape, weights, self.batch), options, providers=["CPUExecutionProvider"]
        )
        binding = session.io_binding()
        self.keep = [binding]
        for side, name in (("input", "token"), ("input", "past"), ("output", "logits"), ("output", "now")):
            array = self.tokens if name == "token" else getattr(self, name)
            value = ort.OrtValue.ortvalue_from_numpy(array)
            if value.data_ptr() != array.ctypes.data:
                raise RuntimeError(f"onnxruntime: expected {name} to share numpy's memory, got a copy")
            getattr(binding, f"bind_ortvalue_{side}")(name, value)
            self.keep.append(value)
        self.run = lambda: session.run_with_iobinding(binding)

    def start(self):
        self.rings.start()

    def step(self, tokens):
        self.tokens[:] = tokens
        self.rings.past(self.past)
        self.run()
        self.rings.store(self.now)
        return self.logits


class OpenVino(OnnxRuntime):
    """The same step graph compiled by OpenVINO, tensors shared with numpy."""

    name = "openvino step"

    def build(self, weights):
        import openvino

        core = openvino.Core()
        settings = {
            "INFERENCE_NUM_THREADS": self.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[self.precision],
        }
        model = core.compile_model(core.read_model(onnx_step(self.shape, weights, self.batch), b""), "CPU", settings)
        request = model.create_infer_request()
        self.keep = [model, request]
        for name in ("token", "past", "logits", "now"):
            array = self.tokens if name == "token" else getattr(self, name)
            tensor = openvino.Tensor(array, shared_memory=True)
            request.set_tensor(name, tensor)
            self.keep.append(tensor)
        self.run = request.infer


class OpenVinoBf16(OpenVino):
    """As above, computing in bfloat16."""

    precision = "bf16"


def int8_rows(array):
    """int8 and a scale for every row of the first dimension."""
    flat = array.reshape(len(array), -1)
    scale = (np.abs(flat).max(axis=1) / np.float32(127)).astype(np.float32)
    return np.rint(flat / scale[:, None]).astype(np.int8).reshape(array.shape), scale


class Ours:
    """musicgen_ext: the whole loop in one native call."""

    name = "musicgen_ext"
    precision = "fp32"
    stored = "float32"

    def __init__(self, shape, weights, batch, threads):
        from musicgen_ext import _core

        self.core, self.batch, self.threads = _core, batch, threads
        tensors = dict(weights)
        if self.stored == "int8":
            for name, array in weights.items():
                if array.ndim > 1:
                    tensors[name], tensors[name + ".scale"] = int8_rows(array)
        self.model = _core.WaveNetModel(shape.config(), tensors, self.stored)
        self.options = _core.SamplerOptions(1.0, 0, 1.0)
        self.rng = np.random.default_rng(1)

    def _run(self, n, forced, log_probs):
        coins = self.rng.random((self.batch, n, 1))
        return self.core.wavenet_sample(
            self.model, self.model.start(self.batch), n, coins, forced, None, 0, self.options, self.threads,
            log_probs, False,
        )  # fmt: skip

    def sample(self, n_steps):
        return self._run(n_steps, None, False)[0]

    def log_prob(self, tokens):
        forced = np.ascontiguousarray(np.broadcast_to(np.asarray(tokens, np.int32), (self.batch, len(tokens))))
        return self._run(len(tokens), forced, True)[1][0]


class OursBf16(Ours):
    """bfloat16 weights, float32 arithmetic."""

    precision, stored = "bf16", "bfloat16"


class OursInt8(Ours):
    """int8 weights and activations, exact integer sums."""

    precision, stored = "int8", "int8"


OURS = (Ours, OursBf16, OursInt8)
PEERS = (Torch, Numpy, OnnxRuntime, OpenVino, OpenVinoBf16)
_NEEDS = {
    Torch: ("torch",),
    OnnxRuntime: ("onnx", "onnxruntime"),
    OpenVino: ("onnx", "openvino"),
    OpenVinoBf16: ("onnx", "openvino"),
}


def missing(contender):
    """Packages that this contender needs and that are not installed."""
    return [name for name in _NEEDS.get(contender, ()) if importlib.util.find_spec(name) is None]


# As in lstm_peers, from torch in float32.
TOLERANCE = {"fp32": 1e-3, "bf16": 1e-1, "int8": 2e-1}


def check(contender, expected, tokens):
    """Does it compute the same model? Raises AssertionError with the difference; returns it, in nats."""
    difference = float(np.abs(contender.log_prob(tokens) - expected).mean())
    if not difference <= TOLERANCE[contender.precision]:
        raise AssertionError(
            f"{contender.name} {contender.precision}: log-probabilities differ from torch by {difference:.3g} nats on "
            f"average, at most {TOLERANCE[contender.precision]:g} expected"
        )
    return difference
