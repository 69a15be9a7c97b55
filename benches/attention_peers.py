"""One transformer, the same weights, run token by token by every engine that can: ours, torch, ONNX Runtime, OpenVINO.

Every contender keeps keys and values of the last tokens in a ring, samples from softmax(logits) at temperature 1, and
offers the same two methods:

    sample(n_steps) -> int array (n_steps,)     goes on from where the last call ended; the ring is full
    log_prob(tokens) -> float array (n_steps,)  teacher forcing from the start, with the very loop that `sample` runs

The peers are written to be fast, as a careful user would write them: threads pinned, buffers allocated once and bound
once, no cache copied or grown: a step's graph reads the ring where it lies and gives the new keys and values, which
are then written to their slot. All distances share one bucket, so that peers need no biases at all.
"""

import importlib.util
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lstm_peers import TOLERANCE, gumbel, log_softmax


@dataclass(frozen=True)
class Shape:
    """V ids, D wide, L layers of `num_heads` heads, an inner layer of 4 D (gelu), C tokens of context."""

    vocab_size: int = 388
    width: int = 256
    num_layers: int = 4
    num_heads: int = 8
    context: int = 512

    @property
    def macs(self):
        """Multiply-adds of a step with weights."""
        return self.num_layers * 12 * self.width**2 + self.vocab_size * self.width

    def weight_bytes(self, precision):
        return self.macs * {"fp32": 4, "bf16": 2, "int8": 1}[precision]

    def cache_bytes(self, precision):
        """Bytes of keys and values that a step reads: ours of int8 weights are kept in bfloat16."""
        return 2 * self.num_layers * self.width * self.context * {"fp32": 4, "bf16": 2, "int8": 2}[precision]

    def config(self):
        return {
            "vocab_size": self.vocab_size,
            "width": self.width,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "mlp_size": 4 * self.width,
            "context": self.context,
        }


def weights_for(shape, seed=0):
    """Random weights, larger than at the start of a training, so that attention and distributions are far from even."""
    from musicgen_ext.architectures import AttentionConfig

    rng = np.random.default_rng(seed)
    tensors = {}
    for name, size in AttentionConfig.from_dict(shape.config()).tensor_shapes().items():
        spread = {1: 0.1}.get(len(size), 1.5 / np.sqrt(size[-1]))
        tensors[name] = (rng.standard_normal(size) * spread).astype(np.float32)
        if len(size) == 1 and name.endswith("weight"):  # of a norm
            tensors[name] += 1.0
    return tensors


class Ours:
    """musicgen_ext: the whole loop in one native call."""

    name = "musicgen_ext"
    precision = "fp32"
    stored = "float32"

    def __init__(self, shape, weights, threads):
        from musicgen_ext import generate
        from musicgen_ext.weights import ModelFile, convert

        file = ModelFile(None, "attention", shape.config(), {}, {}, dict(weights))
        self.engine = generate.load(convert(file, self.stored))
        self.batch, self.threads, self.seed = 1, threads, 0
        self.state = self.engine.sample(shape.context, forced=np.zeros((shape.context, 1), int)).state

    def sample(self, n_steps):
        self.seed += 1
        drawn = self.engine.sample(n_steps, seed=self.seed, state=self.state, threads=self.threads)
        self.state = drawn.state
        return drawn.tokens[0, :, 0]

    def log_prob(self, tokens):  # one token a call: the loop, and not the blocks of a prompt
        values, state = [], self.engine.start()
        for token in tokens:
            drawn = self.engine.sample(1, forced=[[int(token)]], state=state, log_probs=True)
            values.append(drawn.log_probs[0, 0, 0])
            state = drawn.state
        return np.array(values)


class OursBf16(Ours):
    """bfloat16 weights and cache, float32 arithmetic."""

    precision, stored = "bf16", "bfloat16"


class OursInt8(Ours):
    """int8 weights and activations, exact integer sums; a cache of bfloat16."""

    precision, stored = "int8", "int8"


class StepPeer:
    """A peer that gives one step at a time: `start()`, then ``step(token, slot) -> logits (V,)``."""

    precision = "fp32"

    def __init__(self, shape, weights, threads):
        self.shape, self.threads, self.batch = shape, threads, 1
        self.rng = np.random.default_rng(1)
        self.build(weights)
        self.start()
        self.now, self.token = 0, shape.vocab_size
        for _ in range(shape.context):
            self.follow(0)

    def follow(self, token):
        """The logits after the last token; `token` is the next one, or None to draw it."""
        logits = self.step(self.token, self.now % self.shape.context)
        self.now += 1
        self.token = token
        return logits

    def sample(self, n_steps):
        noise = gumbel(self.rng, n_steps, 1, self.shape.vocab_size)[:, 0]
        out = np.empty(n_steps, np.int64)
        for t in range(n_steps):
            race = noise[t]
            race += self.follow(None)
            self.token = out[t] = race.argmax()
        return out

    def log_prob(self, tokens):
        kept = self.now, self.token
        self.start()
        self.now, self.token = 0, self.shape.vocab_size
        values = [log_softmax(np.asarray(self.follow(token), np.float32))[token] for token in tokens]
        self.now, self.token = kept
        self.refill()
        return np.array(values)

    def refill(self):
        """A full ring again, whatever is in it."""
        for _ in range(self.shape.context):
            self.follow(0)


class Torch(StepPeer):
    """Linear layers and scaled_dot_product_attention over a ring that is never copied."""

    name = "torch, own KV cache"

    def build(self, weights):
        import torch

        self.torch = torch
        torch.set_num_threads(self.threads)
        shape = self.shape
        self.modules = torch.nn.ModuleDict()
        tensors = {name: torch.from_numpy(array) for name, array in weights.items()}

        def add(name):
            rows, columns = tensors[f"{name}.weight"].shape
            module = torch.nn.Linear(columns, rows)
            module.load_state_dict({"weight": tensors[f"{name}.weight"], "bias": tensors[f"{name}.bias"]})
            self.modules[name.replace(".", "_")] = module

        for i in range(shape.num_layers):
            for part in ("attention.qkv", "attention.out", "mlp.up", "mlp.down"):
                add(f"layers.{i}.{part}")
        add("output")
        self.convert()
        self.modules.eval()
        self.norms = {n: t.to(self.kind) for n, t in tensors.items() if "norm" in n or "before" in n}
        self.embedding = tensors["embedding.weight"].to(self.kind)
        size = (1, shape.num_heads, shape.context, shape.width // shape.num_heads)
        self.keys = [torch.zeros(size, dtype=self.kind) for _ in range(shape.num_layers)]
        self.values = [torch.zeros(size, dtype=self.kind) for _ in range(shape.num_layers)]
        m = self.modules
        self.layers = [
            (
                m[f"layers_{i}_attention_qkv"], m[f"layers_{i}_attention_out"],
                m[f"layers_{i}_mlp_up"], m[f"layers_{i}_mlp_down"],
                *(self.norms[f"layers.{i}.{n}.{p}"] for n in ("before_attention", "before_mlp")
                  for p in ("weight", "bias")),
                self.keys[i], self.values[i],
            )
            for i in range(shape.num_layers)
        ]  # fmt: skip

    def convert(self):
        self.kind = self.torch.float32

    def start(self):
        self.count = 0

    def step(self, token, slot):
        torch, shape = self.torch, self.shape
        functional, width = torch.nn.functional, (shape.width,)
        self.count = min(self.count + 1, shape.context)
        with torch.inference_mode():
            x = self.embedding[token : token + 1]
            for qkv, out, up, down, w1, b1, w2, b2, keys, values in self.layers:
                y = functional.layer_norm(x, width, w1, b1)
                q, k, v = qkv(y).view(3, 1, shape.num_heads, 1, -1)
                keys[:, :, slot] = k[:, :, 0]
                values[:, :, slot] = v[:, :, 0]
                seen = functional.scaled_dot_product_attention(q, keys[:, :, : self.count], values[:, :, : self.count])
                x = x + out(seen.view(1, -1))
                x = x + down(functional.gelu(up(functional.layer_norm(x, width, w2, b2)), approximate="tanh"))
            x = functional.layer_norm(x, width, self.norms["norm.weight"], self.norms["norm.bias"])
            return self.modules["output"](x)[0].float().numpy()


class TorchBf16(Torch):
    """All of it in bfloat16."""

    precision = "bf16"

    def convert(self):
        self.kind = self.torch.bfloat16
        self.modules.to(self.kind)


class TorchInt8(Torch):
    """Dynamic quantisation of the linear layers: int8 weights, activations quantised at every product."""

    precision = "int8"

    def convert(self):
        self.kind = self.torch.float32
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces the successor of this interface
            self.modules = self.torch.ao.quantization.quantize_dynamic(
                self.modules, {self.torch.nn.Linear}, dtype=self.torch.qint8
            )


def onnx_step(shape, weights):
    """A step as an ONNX graph.

    Inputs: token (1,); mask (1, 1, C), -inf where a slot holds nothing or is about to be written; keys{i} (H, size, C)
    and values{i} (H, C, size). Outputs: logits (1, V); key{i} (H, size, 1) and value{i} (H, 1, size), the new ones.
    """
    from onnx import TensorProto, helper, numpy_helper

    heads, size, context = shape.num_heads, shape.width // shape.num_heads, shape.context
    constants, nodes = [], []

    def constant(name, array):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(kind, inputs, *outputs, **attributes):
        nodes.append(helper.make_node(kind, list(inputs), list(outputs), **attributes))
        return outputs[0]

    def linear(name, x, columns=slice(None), suffix=""):
        matrix = constant(f"{name}.w{suffix}", weights[f"{name}.weight"][columns].T)
        product = node("MatMul", [x, matrix], f"{name}.product{suffix}")
        return node("Add", [product, constant(f"{name}.b{suffix}", weights[f"{name}.bias"][columns])],
                    f"{name}.out{suffix}")  # fmt: skip

    def norm(name, x):
        gain, shift = (constant(f"{name}.{p}", weights[f"{name}.{p}"]) for p in ("weight", "bias"))
        return node("LayerNormalization", [x, gain, shift], f"{name}.out", axis=-1, epsilon=1e-5)

    row, column = constant("row", np.array([heads, 1, size])), constant("column", np.array([heads, size, 1]))
    flat = constant("flat", np.array([1, shape.width]))
    down = constant("down", np.float32(size**-0.5))
    three = constant("three", np.array([shape.width] * 3))
    inputs = [
        helper.make_tensor_value_info("token", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 1, context]),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, shape.vocab_size])]
    x = node("Gather", [constant("embedding", weights["embedding.weight"]), "token"], "x")
    for i in range(shape.num_layers):
        name = f"layers.{i}"
        inputs += [
            helper.make_tensor_value_info(f"keys{i}", TensorProto.FLOAT, [heads, size, context]),
            helper.make_tensor_value_info(f"values{i}", TensorProto.FLOAT, [heads, context, size]),
        ]
        outputs += [
            helper.make_tensor_value_info(f"key{i}", TensorProto.FLOAT, [heads, size, 1]),
            helper.make_tensor_value_info(f"value{i}", TensorProto.FLOAT, [heads, 1, size]),
        ]
        both = linear(f"{name}.attention.qkv", norm(f"{name}.before_attention", x))
        node("Split", [both, three], f"q{i}", f"k{i}", f"v{i}", axis=1)
        q = node("Mul", [node("Reshape", [f"q{i}", row], f"query{i}"), down], f"scaled{i}")
        key, value = node("Reshape", [f"k{i}", column], f"key{i}"), node("Reshape", [f"v{i}", row], f"value{i}")
        old = node("Add", [node("MatMul", [q, f"keys{i}"], f"old{i}"), "mask"], f"masked{i}")
        new = node("MatMul", [q, key], f"new{i}")
        share = node("Softmax", [node("Concat", [old, new], f"scores{i}", axis=2)], f"share{i}", axis=-1)
        node("Split", [share, constant(f"parts{i}", np.array([context, 1]))], f"of_old{i}", f"of_new{i}", axis=2)
        seen = node("Add", [node("MatMul", [f"of_old{i}", f"values{i}"], f"from_old{i}"),
                            node("Mul", [f"of_new{i}", value], f"from_new{i}")], f"seen{i}")  # fmt: skip
        added = linear(f"{name}.attention.out", node("Reshape", [seen, flat], f"heads{i}"))
        x = node("Add", [x, added], f"x{i}.1")
        u = node("Gelu", [linear(f"{name}.mlp.up", norm(f"{name}.before_mlp", x))], f"u{i}", approximate="tanh")
        x = node("Add", [x, linear(f"{name}.mlp.down", u)], f"x{i}.2")
    logits = linear("output", norm("norm", x))
    node("Identity", [logits], "logits")
    graph = helper.make_graph(nodes, "step", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


class Ring(StepPeer):
    """A graph over rings that numpy holds: what a step gives is written to its slot afterwards."""

    def buffers(self):
        shape = self.shape
        heads, size, context = shape.num_heads, shape.width // shape.num_heads, shape.context
        self.inputs = {"token": np.zeros(1, np.int64), "mask": np.full((1, 1, context), -np.inf, np.float32)}
        self.outputs = {"logits": np.zeros((1, shape.vocab_size), np.float32)}
        for i in range(shape.num_layers):
            self.inputs[f"keys{i}"] = np.zeros((heads, size, context), np.float32)
            self.inputs[f"values{i}"] = np.zeros((heads, context, size), np.float32)
            self.outputs[f"key{i}"] = np.zeros((heads, size, 1), np.float32)
            self.outputs[f"value{i}"] = np.zeros((heads, 1, size), np.float32)
        self.writes = [
            (self.inputs[f"{kind}s{i}"], self.outputs[f"{kind}{i}"], kind == "key")
            for i in range(shape.num_layers) for kind in ("key", "value")
        ]  # fmt: skip

    def start(self):
        self.inputs["mask"][:] = -np.inf

    def step(self, token, slot):
        mask = self.inputs["mask"]
        self.inputs["token"][0] = token
        mask[0, 0, slot] = -np.inf  # the oldest, which the new one replaces
        self.run()
        mask[0, 0, slot] = 0.0
        for ring, new, is_key in self.writes:
            if is_key:
                ring[:, :, slot] = new[:, :, 0]
            else:
                ring[:, slot] = new[:, 0]
        return self.outputs["logits"][0]


class OnnxRuntime(Ring):
    """A step session with every input and output bound to buffers that live as long as the session."""

    name = "onnxruntime step"

    def build(self, weights):
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        self.session = ort.InferenceSession(
            self.graph(onnx_step(self.shape, weights)), options, providers=["CPUExecutionProvider"]
        )
        self.buffers()
        self.binding, self.keep = self.session.io_binding(), []
        for side, arrays in (("input", self.inputs), ("output", self.outputs)):
            for name, array in arrays.items():
                value = ort.OrtValue.ortvalue_from_numpy(array)
                if value.data_ptr() != array.ctypes.data:
                    raise RuntimeError(f"onnxruntime: expected {name} to share numpy's memory, got a copy")
                getattr(self.binding, f"bind_ortvalue_{side}")(name, value)
                self.keep.append(value)

    def graph(self, model):
        return model.SerializeToString()

    def run(self):
        self.session.run_with_iobinding(self.binding)


class OnnxRuntimeInt8(OnnxRuntime):
    """Its own dynamic quantisation: int8 weights, activations quantised at every product with weights."""

    name = "onnxruntime step, int8 dynamic"
    precision = "int8"

    def graph(self, model):
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with tempfile.TemporaryDirectory() as folder:
            before, after = Path(folder) / "step.onnx", Path(folder) / "int8.onnx"
            onnx.save(model, before)
            quantize_dynamic(
                before, after, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8, per_channel=True,
                extra_options={"MatMulConstBOnly": True},
            )  # fmt: skip
            return after.read_bytes()


class OpenVino(Ring):
    """The same graph compiled by OpenVINO, tensors shared with numpy."""

    name = "openvino step"
    hint = "f32"

    def build(self, weights):
        import openvino

        settings = {
            "INFERENCE_NUM_THREADS": self.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": self.hint,
        }
        core = openvino.Core()
        graph = onnx_step(self.shape, weights).SerializeToString()
        self.request = core.compile_model(core.read_model(graph, b""), "CPU", settings).create_infer_request()
        self.buffers()
        self.keep = []
        for name, array in {**self.inputs, **self.outputs}.items():
            tensor = openvino.Tensor(array, shared_memory=True)
            self.request.set_tensor(name, tensor)
            self.keep.append(tensor)

    def run(self):
        self.request.infer()


class OpenVinoBf16(OpenVino):
    """As above, computing in bfloat16."""

    precision, hint = "bf16", "bf16"


OURS = (Ours, OursBf16, OursInt8)
PEERS = (Torch, TorchBf16, TorchInt8, OnnxRuntime, OnnxRuntimeInt8, OpenVino, OpenVinoBf16)
_NEEDS = {Torch: ("torch",), TorchBf16: ("torch",), TorchInt8: ("torch",), OnnxRuntime: ("onnx", "onnxruntime"),
          OnnxRuntimeInt8: ("onnx", "onnxruntime"), OpenVino: ("onnx", "openvino"),
          OpenVinoBf16: ("onnx", "openvino")}  # fmt: skip


def missing(contender):
    """Packages that this contender needs and that are not installed."""
    return [name for name in _NEEDS.get(contender, ()) if importlib.util.find_spec(name) is None]


def check(contender, expected, tokens):
    """Does it compute the same model? Raises AssertionError with the difference; returns it, in nats."""
    difference = float(np.abs(contender.log_prob(tokens) - expected).mean())
    limit = 4 * TOLERANCE[contender.precision]  # four layers of random weights spread what rounding changes
    if not difference <= limit:
        raise AssertionError(
            f"{contender.name} {contender.precision}: log-probabilities differ from torch by {difference:.3g} nats on "
            f"average, at most {limit:g} expected"
        )
    return difference
