"""One feed-forward generator, the same weights, run by every engine that can: ours, torch, ONNX Runtime, OpenVINO."""

import importlib.util
import io
import warnings

import numpy as np

from musicgen_ext import weights
from musicgen_ext.architectures import FeedForwardConfig


def dense(units, activation):
    return {"kind": "dense", "units": units, "activation": activation}


def mlp(*shape, latent=100, hidden=(256, 512)):
    layers = [dense(units, "leaky_relu") for units in hidden]
    units = int(np.prod(shape))
    return {"input": [latent], "layers": [*layers, dense(units, "sigmoid"), {"kind": "reshape", "shape": list(shape)}]}


def convolutional(channels=64, steps=16, pitches=48, latent=100):
    def up(count, kernel, stride, padding):
        sizes = {"kernel": kernel, "stride": stride, "padding": padding}
        return {"kind": "conv_transpose2d", "channels": count, **sizes, "activation": "relu"}

    wide, small = 2 * channels, [2 * channels, steps // 4, pitches // 12]
    last = {"kind": "conv2d", "channels": 2, "kernel": [3, 3], "padding": [1, 1], "stride": [1, 1]}
    return {
        "input": [latent],
        "layers": [
            dense(int(np.prod(small)), "relu"),
            {"kind": "reshape", "shape": small},
            up(wide, [4, 1], [2, 1], [1, 0]),
            up(channels, [4, 1], [2, 1], [1, 0]),
            up(channels // 2, [1, 12], [1, 12], [0, 0]),
            {**last, "activation": "sigmoid"},
        ],
    }


NETWORKS = {
    "bar": mlp(2, 16, 48),  # what gan_mlp makes
    "tutorial": mlp(1, 96, 84),  # a bar of 96 steps and 84 pitches, as MuseGAN's data have it
    "conv": convolutional(),  # what gan_conv makes
}


def tensors_for(config, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) if len(shape) > 1 else 4)).astype(np.float32)
        for name, shape in config.tensor_shapes().items()
    }


class Ours:
    def __init__(self, config, tensors, precision, threads):
        from musicgen_ext.generate import FeedForwardEngine

        file = weights.ModelFile(None, "feedforward", config.to_dict(), {}, {}, tensors)
        self.engine = FeedForwardEngine(config, weights.convert(file, precision).tensors, precision)
        self.threads = threads

    def run(self, x):
        return self.engine.run(x, threads=self.threads)


def torch_module(config, tensors):
    import torch

    from musicgen_ext.train.models import FeedForward

    module = FeedForward(config).eval()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})
    return module


class Torch:
    def __init__(self, config, tensors, threads, compiled=False):
        import torch

        torch.set_num_threads(threads)
        self.torch, self.module = torch, torch_module(config, tensors)
        if compiled:
            self.module = torch.jit.freeze(torch.jit.trace(self.module, torch.zeros(1, *config.input)))

    def run(self, x):
        with self.torch.inference_mode():
            return self.module(self.torch.from_numpy(x)).numpy()


def onnx_of(config, tensors):
    """The bytes of an ONNX file, written by torch."""
    import torch

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the successor of this exporter
        torch.onnx.export(
            torch_module(config, tensors), (torch.zeros(1, *config.input),), buffer, input_names=["x"],
            output_names=["y"], dynamic_axes={"x": {0: "b"}, "y": {0: "b"}}, dynamo=False,
        )  # fmt: skip
    return buffer.getvalue()


class OnnxRuntime:
    def __init__(self, model, threads):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(self, x):
        return self.session.run(None, {"x": x})[0]


class OpenVino:
    def __init__(self, model, threads):
        import openvino

        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        self.request = core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()

    def run(self, x):
        return self.request.infer([x])[0]


def contenders(name, threads):
    """By name, what is installed; ours in every precision."""
    config = FeedForwardConfig.from_dict(NETWORKS[name])
    tensors = tensors_for(config)
    ours = {precision: Ours(config, tensors, precision, threads) for precision in ("float32", "bfloat16", "int8")}
    out = {f"ours {precision}": engine for precision, engine in ours.items()}
    if importlib.util.find_spec("torch") is None:
        return out
    out["torch"] = Torch(config, tensors, threads)
    out["torch traced"] = Torch(config, tensors, threads, compiled=True)
    if importlib.util.find_spec("onnx") is not None:
        model = onnx_of(config, tensors)
        if importlib.util.find_spec("onnxruntime") is not None:
            out["ONNX Runtime"] = OnnxRuntime(model, threads)
        if importlib.util.find_spec("openvino") is not None:
            out["OpenVINO"] = OpenVino(model, threads)
    return out
