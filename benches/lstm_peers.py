"""One LSTM language model, the same weights, run step by step by every engine that can: ours, torch, numpy, ONNX
Runtime, OpenVINO.

Every contender samples token by token from softmax(logits) at temperature 1 and offers the same two methods:

    sample(n_steps) -> int array (batch, n_steps)
    log_prob(tokens) -> float array (n_steps,)     teacher forcing with the very loop that `sample` runs

The peers are written to be fast, as a careful user would write them: inference mode, threads pinned, buffers allocated
once, states swapped instead of copied, and the random numbers of a whole call drawn at once (categorical sampling as
argmax of logits plus Gumbel noise). Only the engines that run the whole loop natively escape Python's cost per step.
"""

import importlib.util
import warnings
from dataclasses import dataclass

import numpy as np

# vocabulary, embedding, hidden, layers
CONFIGS = {
    "A": (130, 128, 128, 1),
    "B": (130, 256, 256, 2),
    "C": (388, 512, 512, 3),
    "D": (388, 1024, 1024, 2),
}


@dataclass(frozen=True)
class Shape:
    """Sizes of a language model: V ids, E wide embedding, L layers of H units."""

    vocab_size: int
    embedding_size: int
    hidden_size: int
    num_layers: int

    @property
    def first_token(self):
        """What stands before the first token."""
        return self.vocab_size

    @property
    def macs(self):
        """Multiply-adds a step, where the product of embedding and first layer is a table lookup."""
        inner = sum(4 * self.hidden_size * (self.hidden_size * (1 if k == 0 else 2)) for k in range(self.num_layers))
        return inner + self.vocab_size * self.hidden_size

    def weight_bytes(self, precision):
        """Bytes of weights read at every step."""
        return self.macs * {"fp32": 4, "bf16": 2, "int8": 1}[precision]


def weights_for(shape, seed=0):
    """Random weights as torch would initialise them, but ten times as large in the head, so that the distributions are
    far from uniform and a wrong answer shows. Names and layouts of our model files; row V of the table is the start.
    """
    rng = np.random.default_rng(seed)
    k = shape.hidden_size**-0.5
    gates = 4 * shape.hidden_size

    def uniform(*size):
        return rng.uniform(-k, k, size=size).astype(np.float32)

    weights = {
        "trunk.token.weight": rng.standard_normal((shape.vocab_size + 1, shape.embedding_size)).astype(np.float32)
    }
    for layer in range(shape.num_layers):
        width = shape.embedding_size if layer == 0 else shape.hidden_size
        weights[f"rnn.weight_ih_l{layer}"] = uniform(gates, width)
        weights[f"rnn.weight_hh_l{layer}"] = uniform(gates, shape.hidden_size)
        weights[f"rnn.bias_ih_l{layer}"] = uniform(gates)
        weights[f"rnn.bias_hh_l{layer}"] = uniform(gates)
    weights["head.token.output.weight"] = 10 * uniform(shape.vocab_size, shape.hidden_size)
    weights["head.token.output.bias"] = uniform(shape.vocab_size)
    return weights


def gumbel(rng, n_steps, batch, vocab_size):
    """Noise for categorical sampling: argmax(logits + noise) is a draw from softmax(logits)."""
    noise = rng.standard_exponential((n_steps, batch, vocab_size), dtype=np.float32)
    np.maximum(noise, 1e-30, out=noise)
    np.log(noise, out=noise)
    np.negative(noise, out=noise)
    return noise


def log_softmax(logits):
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


class StepPeer:
    """A peer that gives one step at a time: `start()`, then `step(tokens) -> logits (batch, V)` as often as needed."""

    precision = "fp32"

    def __init__(self, shape, weights, batch, threads):
        self.shape, self.batch, self.threads = shape, batch, threads
        self.rng = np.random.default_rng(1)

    def start(self):
        raise NotImplementedError

    def step(self, tokens):
        raise NotImplementedError

    def sample(self, n_steps):
        noise = gumbel(self.rng, n_steps, self.batch, self.shape.vocab_size)
        out = np.empty((n_steps, self.batch), dtype=np.int64)
        tokens = np.full(self.batch, self.shape.first_token, dtype=np.int64)
        self.start()
        for t in range(n_steps):
            race = noise[t]
            race += self.step(tokens)
            tokens = race.argmax(axis=1, out=out[t])
        return out.T

    def log_prob(self, tokens):
        self.start()
        before = self.shape.first_token
        values = np.empty(len(tokens))
        for t, token in enumerate(tokens):
            logits = self.step(np.full(self.batch, before, dtype=np.int64))
            values[t] = log_softmax(np.asarray(logits)[:1])[0, token]
            before = token
        return values


class Numpy(StepPeer):
    """BLAS products of [x, h] with both matrices of a layer at once."""

    name = "numpy"

    def __init__(self, shape, weights, batch, threads):
        super().__init__(shape, weights, batch, threads)
        self.table = weights["trunk.token.weight"]
        self.matrix, self.bias, self.inputs, self.gates = [], [], [], []
        # Gates in the order i, f, o, g: one sigmoid over three of them.
        order = np.concatenate([np.arange(4 * shape.hidden_size).reshape(4, -1)[i] for i in (0, 1, 3, 2)])
        for layer in range(shape.num_layers):
            both = np.concatenate([weights[f"rnn.weight_ih_l{layer}"], weights[f"rnn.weight_hh_l{layer}"]], axis=1)
            self.matrix.append(np.ascontiguousarray(both[order].T))
            self.bias.append((weights[f"rnn.bias_ih_l{layer}"] + weights[f"rnn.bias_hh_l{layer}"])[order])
            self.inputs.append(np.zeros((batch, both.shape[1]), dtype=np.float32))
            self.gates.append(np.zeros((batch, both.shape[0]), dtype=np.float32))
        self.output = np.ascontiguousarray(weights["head.token.output.weight"].T)
        self.output_bias = weights["head.token.output.bias"]
        self.cell = [np.zeros((batch, shape.hidden_size), dtype=np.float32) for _ in range(shape.num_layers)]
        self.logits = np.zeros((batch, shape.vocab_size), dtype=np.float32)

    def start(self):
        for inputs, cell in zip(self.inputs, self.cell, strict=True):
            inputs[:] = 0
            cell[:] = 0

    def step(self, tokens):
        size = self.shape.hidden_size
        x = self.table[tokens]
        for matrix, bias, inputs, gates, cell in zip(
            self.matrix, self.bias, self.inputs, self.gates, self.cell, strict=True
        ):
            inputs[:, :-size] = x
            np.dot(inputs, matrix, out=gates)
            gates += bias
            sigmoids, g = gates[:, : 3 * size], gates[:, 3 * size :]
            sigmoids *= 0.5
            np.tanh(gates, out=gates)
            sigmoids += 1.0
            sigmoids *= 0.5
            g *= gates[:, :size]
            cell *= gates[:, size : 2 * size]
            cell += g
            x = inputs[:, -size:]
            np.tanh(cell, out=x)
            x *= gates[:, 2 * size : 3 * size]
        np.dot(x, self.output, out=self.logits)
        self.logits += self.output_bias
        return self.logits


class TorchLstm:
    """nn.LSTM called once per step."""

    name = "torch nn.LSTM loop"
    precision = "fp32"

    def __init__(self, shape, weights, batch, threads):
        import torch

        self.torch, self.shape, self.batch, self.threads = torch, shape, batch, threads
        self.embedding = torch.nn.Embedding.from_pretrained(torch.from_numpy(weights["trunk.token.weight"]))
        self.linear = torch.nn.Linear(shape.hidden_size, shape.vocab_size)
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(weights["head.token.output.weight"]))
            self.linear.bias.copy_(torch.from_numpy(weights["head.token.output.bias"]))
        self.build(weights)
        self.generator = torch.Generator().manual_seed(1)

    def build(self, weights):
        torch, shape = self.torch, self.shape
        self.rnn = torch.nn.LSTM(shape.embedding_size, shape.hidden_size, shape.num_layers)
        with torch.no_grad():
            for name, parameter in self.rnn.named_parameters():
                parameter.copy_(torch.from_numpy(weights[f"rnn.{name}"]))
        self.rnn.eval()

    def start(self):
        self.state = None

    def step(self, tokens):
        y, self.state = self.rnn(self.embedding(tokens)[None], self.state)
        return self.linear(y[0])

    def noise(self, n_steps):
        noise = self.torch.empty(n_steps, self.batch, self.shape.vocab_size)
        return noise.exponential_(generator=self.generator).log_().neg_()

    def sample(self, n_steps):
        torch = self.torch
        torch.set_num_threads(self.threads)
        with torch.inference_mode():
            noise = self.noise(n_steps)
            out = torch.empty(n_steps, self.batch, dtype=torch.int64)
            tokens = torch.full((self.batch,), self.shape.vocab_size)
            self.start()
            for t in range(n_steps):
                tokens = torch.argmax(noise[t].add_(self.step(tokens)), dim=1, out=out[t])
            return out.T.numpy()

    def log_prob(self, tokens):
        torch = self.torch
        torch.set_num_threads(self.threads)
        values = []
        with torch.inference_mode():
            self.start()
            before = self.shape.vocab_size
            for token in tokens:
                logits = self.step(torch.full((self.batch,), int(before)))[0]
                values.append(float(torch.log_softmax(logits.double(), dim=-1)[int(token)]))
                before = token
        return np.array(values)


class TorchLstmCell(TorchLstm):
    """One nn.LSTMCell per layer, called once per step."""

    name = "torch nn.LSTMCell loop"

    def build(self, weights):
        torch, shape = self.torch, self.shape
        self.cells = torch.nn.ModuleList()
        for layer in range(shape.num_layers):
            cell = torch.nn.LSTMCell(shape.embedding_size if layer == 0 else shape.hidden_size, shape.hidden_size)
            with torch.no_grad():
                for name, parameter in cell.named_parameters():
                    parameter.copy_(torch.from_numpy(weights[f"rnn.{name}_l{layer}"]))
            self.cells.append(cell)
        self.cells.eval()

    def start(self):
        zero = self.torch.zeros(self.batch, self.shape.hidden_size)
        self.states = [(zero, zero) for _ in self.cells]

    def step(self, tokens):
        x = self.embedding(tokens)
        for layer, cell in enumerate(self.cells):
            x, c = cell(x, self.states[layer])
            self.states[layer] = (x, c)
        return self.linear(x)


class TorchBf16(TorchLstm):
    """nn.LSTM and Linear in bfloat16."""

    name = "torch nn.LSTM loop"
    precision = "bf16"

    def build(self, weights):
        super().build(weights)
        for module in (self.rnn, self.linear, self.embedding):
            module.to(self.torch.bfloat16)


class TorchInt8(TorchLstm):
    """Dynamic quantisation of nn.LSTM and Linear: int8 weights, activations quantised at every product."""

    name = "torch int8 dynamic"
    precision = "int8"

    def build(self, weights):
        super().build(weights)
        torch = self.torch
        whole = torch.nn.ModuleDict({"rnn": self.rnn, "linear": self.linear})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces the successor of this interface
            small = torch.ao.quantization.quantize_dynamic(whole, {torch.nn.LSTM, torch.nn.Linear}, dtype=torch.qint8)
        self.rnn, self.linear = small["rnn"], small["linear"]

    def start(self):
        zero = self.torch.zeros(self.shape.num_layers, self.batch, self.shape.hidden_size)
        self.state = (zero, zero)


def onnx_step(shape, weights, batch):
    """One step as an ONNX graph: token (B,), h{k} and c{k} (1, B, H) to logits (B, V) and the next h and c."""
    from onnx import TensorProto, helper, numpy_helper

    def constant(array, name):
        return numpy_helper.from_array(np.ascontiguousarray(array), name)

    state = [1, batch, shape.hidden_size]
    inputs = [helper.make_tensor_value_info("token", TensorProto.INT64, [batch])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, shape.vocab_size])]
    constants = [
        constant(weights["trunk.token.weight"], "table"),
        constant(np.array([0], dtype=np.int64), "axis"),
        constant(weights["head.token.output.weight"].T, "head"),
        constant(weights["head.token.output.bias"], "head_bias"),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "token"], ["row"]),
        helper.make_node("Unsqueeze", ["row", "axis"], ["x0"]),
    ]
    # torch has the gates i, f, g, o; ONNX wants i, o, f, c.
    order = np.concatenate([np.arange(4 * shape.hidden_size).reshape(4, -1)[i] for i in (0, 3, 1, 2)])
    for k in range(shape.num_layers):
        bias = np.concatenate([weights[f"rnn.bias_ih_l{k}"][order], weights[f"rnn.bias_hh_l{k}"][order]])
        constants += [
            constant(weights[f"rnn.weight_ih_l{k}"][order][None], f"w{k}"),
            constant(weights[f"rnn.weight_hh_l{k}"][order][None], f"r{k}"),
            constant(bias[None], f"b{k}"),
        ]
        inputs += [helper.make_tensor_value_info(f"{s}{k}", TensorProto.FLOAT, state) for s in "hc"]
        outputs += [helper.make_tensor_value_info(f"{s}{k}_next", TensorProto.FLOAT, state) for s in "hc"]
        nodes.append(
            helper.make_node(
                "LSTM",
                [f"x{k}", f"w{k}", f"r{k}", f"b{k}", "", f"h{k}", f"c{k}"],
                ["", f"h{k}_next", f"c{k}_next"],
                hidden_size=shape.hidden_size,
            )
        )
        nodes.append(helper.make_node("Identity", [f"h{k}_next"], [f"x{k + 1}"]))
    nodes += [
        helper.make_node("Squeeze", [f"x{shape.num_layers}", "axis"], ["y"]),
        helper.make_node("Gemm", ["y", "head", "head_bias"], ["logits"]),
    ]
    graph = helper.make_graph(nodes, "step", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


class Swapped(StepPeer):
    """Two requests over two sets of state buffers: the outputs of one are the inputs of the other."""

    def buffers(self):
        size = (1, self.batch, self.shape.hidden_size)
        names = [f"{s}{k}" for k in range(self.shape.num_layers) for s in "hc"]
        self.tokens = np.zeros(self.batch, dtype=np.int64)
        self.logits = np.zeros((self.batch, self.shape.vocab_size), dtype=np.float32)
        self.states = [{name: np.zeros(size, dtype=np.float32) for name in names} for _ in range(2)]

    def start(self):
        for state in self.states[0].values():
            state[:] = 0
        self.turn = 0

    def step(self, tokens):
        self.tokens[:] = tokens
        self.runs[self.turn]()
        self.turn ^= 1
        return self.logits


class OnnxRuntime(Swapped):
    """A step session with every input and output bound to buffers that live as long as the session."""

    name = "onnxruntime step"

    def __init__(self, shape, weights, batch, threads):
        super().__init__(shape, weights, batch, threads)
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        self.session = ort.InferenceSession(
            onnx_step(shape, weights, batch), options, providers=["CPUExecutionProvider"]
        )
        self.buffers()
        self.keep, self.runs = [], []
        for turn in range(2):
            binding = self.session.io_binding()
            wires = [("input", "token", self.tokens), ("output", "logits", self.logits)]
            wires += [("input", name, array) for name, array in self.states[turn].items()]
            wires += [("output", f"{name}_next", array) for name, array in self.states[1 - turn].items()]
            for side, name, array in wires:
                value = ort.OrtValue.ortvalue_from_numpy(array)
                if value.data_ptr() != array.ctypes.data:
                    raise RuntimeError(f"onnxruntime: expected {name} to share numpy's memory, got a copy")
                getattr(binding, f"bind_ortvalue_{side}")(name, value)
                self.keep.append(value)
            self.keep.append(binding)
            self.runs.append(lambda binding=binding: self.session.run_with_iobinding(binding))


class OpenVino(Swapped):
    """The same step graph compiled by OpenVINO, tensors shared with numpy."""

    name = "openvino step"

    def __init__(self, shape, weights, batch, threads):
        super().__init__(shape, weights, batch, threads)
        import openvino

        core = openvino.Core()
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[self.precision],
        }
        self.model = core.compile_model(core.read_model(onnx_step(shape, weights, batch), b""), "CPU", settings)
        self.buffers()
        self.keep, self.runs = [], []
        for turn in range(2):
            request = self.model.create_infer_request()
            wires = [("token", self.tokens), ("logits", self.logits)]
            wires += list(self.states[turn].items())
            wires += [(f"{name}_next", array) for name, array in self.states[1 - turn].items()]
            for name, array in wires:
                tensor = openvino.Tensor(array, shared_memory=True)
                request.set_tensor(name, tensor)
                self.keep.append(tensor)
            self.keep.append(request)
            self.runs.append(request.infer)


class OpenVinoBf16(OpenVino):
    """As above, computing in bfloat16."""

    precision = "bf16"


class Ours:
    """musicgen_ext: the whole loop in one native call."""

    name = "musicgen_ext"
    precision = "fp32"
    stored = "float32"

    def __init__(self, shape, weights, batch, threads):
        from musicgen_ext import generate
        from musicgen_ext.architectures import RecurrentConfig
        from musicgen_ext.weights import ModelFile, convert

        config = RecurrentConfig.language_model(
            "lstm",
            vocab_size=shape.vocab_size,
            embedding_size=shape.embedding_size,
            hidden_size=shape.hidden_size,
            num_layers=shape.num_layers,
        )
        file = ModelFile(
            path="bench.safetensors",
            arch="recurrent",
            config=config.to_dict(),
            encoding={},
            card={},
            tensors=dict(weights),
            weights="float32",
        )
        if self.stored != "float32":
            file = convert(file, self.stored)
        self.engine = generate.load(file)
        self.batch, self.threads, self.seed = batch, threads, 0

    def sample(self, n_steps):
        self.seed += 1
        return self.engine.sample(n_steps, seed=self.seed, num_samples=self.batch, threads=self.threads).tokens[:, :, 0]

    def log_prob(self, tokens):
        return self.engine.log_prob(np.asarray(tokens, dtype=np.int32)[:, None])[:, 0]


class OursBf16(Ours):
    """bfloat16 weights, float32 arithmetic."""

    precision, stored = "bf16", "bfloat16"


class OursInt8(Ours):
    """int8 weights and states, exact integer sums."""

    precision, stored = "int8", "int8"


OURS = (Ours, OursBf16, OursInt8)
PEERS = (TorchLstm, TorchLstmCell, TorchBf16, TorchInt8, Numpy, OnnxRuntime, OpenVino, OpenVinoBf16)
_NEEDS = {
    TorchLstm: ("torch",),
    TorchLstmCell: ("torch",),
    TorchBf16: ("torch",),
    TorchInt8: ("torch",),
    OnnxRuntime: ("onnx", "onnxruntime"),
    OpenVino: ("onnx", "openvino"),
    OpenVinoBf16: ("onnx", "openvino"),
}


def missing(contender):
    """Packages that this contender needs and that are not installed."""
    return [name for name in _NEEDS.get(contender, ()) if importlib.util.find_spec(name) is None]


# Largest mean difference of log-probabilities, in nats, from torch in float32 under teacher forcing. fp32: rounding.
# bf16 and int8 change the weights (and, for some, the arithmetic): a wrong formula is off by tenths of a nat.
TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2, "int8": 4e-2}


def check(contender, expected, tokens):
    """Does it compute the same model? Raises AssertionError with the difference; returns it, in nats."""
    difference = float(np.abs(contender.log_prob(tokens) - expected).mean())
    limit = TOLERANCE[contender.precision]
    if not difference <= limit:
        raise AssertionError(
            f"{contender.name} {contender.precision}: log-probabilities differ from torch by {difference:.3g} nats on "
            f"average, at most {limit:g} expected"
        )
    return difference
