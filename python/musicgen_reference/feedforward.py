"""Feed-forward networks by their definitions, in float64: one loop for every output of a convolution."""

import numpy as np

LEAK = 0.2
ACTIVATIONS = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, LEAK * x),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-np.clip(x, -700, 700))),
}


def run(config, tensors, x, prefix="", last_scale=1.0, int8=False):
    """What a network (the JSON form of a `FeedForwardConfig`) makes of one input.

    With `int8` the tensors are bytes with scales, and every layer's input becomes bytes, too: of a transposed
    convolution after it was multiplied by the scales, which belong to its channels.
    """
    values = np.asarray(x, np.float64)
    last = max(i for i, layer in enumerate(config["layers"]) if layer["kind"] != "reshape")
    for i, layer in enumerate(config["layers"]):
        if layer["kind"] == "reshape":
            values = values.reshape(layer["shape"])
            continue
        weight = np.asarray(tensors[f"{prefix}layers.{i}.weight"], np.float64)
        bias = np.asarray(tensors[f"{prefix}layers.{i}.bias"], np.float64)
        if int8:
            scale = np.asarray(tensors[f"{prefix}layers.{i}.weight.scale"], np.float64)
            scale = scale.reshape(-1, *[1] * (weight.ndim - 1))
            if layer["kind"] == "conv_transpose2d":
                values = in_bytes(values * scale.reshape(-1, 1, 1))
            else:
                values, weight = in_bytes(values), weight * scale
        if layer["kind"] == "dense":
            sums = weight @ values.ravel() + bias
        elif layer["kind"] == "conv2d":
            sums = convolved(values, weight, bias, layer["stride"], layer["padding"])
        else:
            sums = transposed(values, weight, bias, layer["stride"], layer["padding"])
        values = ACTIVATIONS[layer["activation"]](sums * (last_scale if i == last else 1.0))
    return values


def pictures(config, tensors, n, *, seed, index, temperature=1.0, int8=False):
    """z, probabilities and coins of the `n` pictures of one sample of a `GanConfig` (in its JSON form)."""
    size = config["generator"]["input"][0]
    words = np.random.Philox(key=np.array([seed, index], np.uint64))
    made_of, likely, chance = [], [], []
    for _ in range(n):
        uniform = (words.random_raw(2 * size) >> np.uint64(11)) * 2.0**-53
        radius = np.sqrt(-2 * np.log1p(-uniform[:size]))
        z = np.rint(radius * np.cos(2 * np.pi * uniform[size:]) * 2**20) / 2**20
        made_of.append(z)
        likely.append(run(config["generator"], tensors, z, "generator.", 1 / temperature, int8))
        chance.append((words.random_raw(likely[-1].size) >> np.uint64(11)) * 2.0**-53)
    return np.float32(made_of), np.array(likely), np.reshape(chance, np.shape(likely))


def in_bytes(values):
    """To the nearest of 255 values between minus and plus the largest."""
    largest = np.abs(values).max()
    if largest == 0:
        return values
    return np.clip(np.rint(np.float32(values) * np.float32(127 / np.float32(largest))), -127, 127) * largest / 127


def convolved(x, weight, bias, stride, padding):
    """torch's conv2d: x (C, H, W), weight (outputs, C, kernel height, kernel width)."""
    (sy, sx), (py, px) = stride, padding
    padded = np.pad(x, [(0, 0), (py, py), (px, px)])
    _, _, kh, kw = weight.shape
    height, width = (padded.shape[1] - kh) // sy + 1, (padded.shape[2] - kw) // sx + 1
    out = np.empty((len(weight), height, width))
    for y in range(height):
        for z in range(width):
            window = padded[:, y * sy : y * sy + kh, z * sx : z * sx + kw]
            out[:, y, z] = np.einsum("ochw,chw->o", weight, window) + bias
    return out


def transposed(x, weight, bias, stride, padding):
    """torch's conv_transpose2d: every input adds its multiple of a kernel; weight (C, outputs, height, width)."""
    (sy, sx), (py, px) = stride, padding
    _, outputs, kh, kw = weight.shape
    _, height, width = x.shape
    out = np.zeros((outputs, (height - 1) * sy + kh, (width - 1) * sx + kw))
    for y in range(height):
        for z in range(width):
            out[:, y * sy : y * sy + kh, z * sx : z * sx + kw] += np.einsum("cohw,c->ohw", weight, x[:, y, z])
    out = out[:, py : out.shape[1] - py, px : out.shape[2] - px]
    return out + bias[:, None, None]
