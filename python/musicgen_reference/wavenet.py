"""WaveNet sampling in plain numpy, float64, one sample at a time. The native engine must agree with it."""

from __future__ import annotations

import numpy as np

from musicgen_reference.generate import as_bytes, dequantized, draw, sigmoid

LOGISTICS_CLASSES = 65_536
MIN_LOG_SCALE = -14.0


def dynamic_bytes(x):
    """What is left of a vector that is stored in signed bytes, 127 standing for its largest magnitude."""
    return as_bytes(x, float(np.abs(x).max()))


class WaveNet:
    """A WaveNet whose config and tensors are those of a model file.

    `weights` "int8" stores every vector that meets an int8 matrix in bytes, as the native engine does.
    """

    def __init__(self, config, tensors, weights="float32"):
        self.config = config
        self.tensors = dequantized(tensors)
        self.int8 = weights == "int8"
        self.kernel_size = config["kernel_size"]
        self.history = [[] for _ in config["dilations"]]  # h of every layer at every sample so far
        self.before = None  # the previous sample's token

    def _array(self, name):
        return self.tensors[name]

    # -- input ---------------------------------------------------------------------------------------------------------

    def embed(self, token):
        """h of the first layer, after the sample `token` (None: there is none yet)."""
        if self.config["output"]["kind"] == "mu_law":
            return self._array("embedding.weight")[self.config["output"]["classes"] // 2 if token is None else token]
        x = 0.0 if token is None else sample_value(token)
        return self._array("input.weight")[:, 0] * x + self._array("input.bias")

    def condition_rows(self, frames):
        """c of every frame: (N, F) to (W, F)."""
        if self.config["condition"] is None:
            return None
        weight, bias = self._array("condition.conv.weight"), self._array("condition.conv.bias")
        width = weight.shape[2]
        padded = np.pad(np.asarray(frames, np.float64), ((0, 0), (width // 2, width // 2)))
        sums = [
            bias + np.einsum("wnk,nk->w", weight, padded[:, f : f + width]) for f in range(padded.shape[1] - width + 1)
        ]
        return np.tanh(np.array(sums)).T

    # -- one sample ----------------------------------------------------------------------------------------------------

    def step(self, condition=None):
        """Logits of the next sample. `condition`: its column of `condition_rows`. Then tell `push` what was drawn."""
        channels = self.config["residual_channels"]
        h = self.embed(self.before)
        zs = []
        for i, dilation in enumerate(self.config["dilations"]):
            past = self.history[i]
            past.append(dynamic_bytes(h) if self.int8 else h)
            weight, t = self._array(f"layers.{i}.gate.weight"), len(past) - 1
            sums = self._array(f"layers.{i}.gate.bias").copy()
            if condition is not None:
                sums += self._array(f"layers.{i}.condition.weight") @ condition
            for k in range(self.kernel_size):
                at = t - (self.kernel_size - 1 - k) * dilation
                if at >= 0:
                    sums += weight[:, :, k] @ past[at]
            z = np.tanh(sums[:channels]) * sigmoid(sums[channels:])
            if self.int8:
                z = as_bytes(z)
            zs.append(z)
            if i + 1 < len(self.config["dilations"]):
                h = h + (self._array(f"layers.{i}.residual.bias") + self._array(f"layers.{i}.residual.weight") @ z)
        x = np.concatenate(zs)
        for name in ("skip", "hidden"):
            x = np.maximum(self._array(f"{name}.weight") @ x + self._array(f"{name}.bias"), 0.0)
            if self.int8:
                x = dynamic_bytes(x)
        return self._array("logits.weight") @ x + self._array("logits.bias")

    def push(self, token):
        self.before = int(token)

    def teacher_forced(self, tokens, frames=None, hop_length=1):
        """Logits (n, rows) of every sample, given those before it."""
        rows = self.condition_rows(frames)
        out = []
        for t, token in enumerate(tokens):
            out.append(self.step(None if rows is None else rows[:, t // hop_length]))
            self.push(token)
        return np.array(out)

    def sample(self, coins, frames=None, *, forced=None, temperature=1.0, top_k=None, top_p=1.0):
        """Tokens for coins (n, 1) or (n, 2), and the natural logarithms of their probabilities at temperature 1.

        `frames`: what the model is told, (N, F). `forced`: tokens set instead of drawn, -1 where there is none.
        """
        rows = self.condition_rows(frames)
        mu_law = self.config["output"]["kind"] == "mu_law"
        tokens, log_probs = [], []
        for t, coin in enumerate(coins):
            logits = self.step(None if rows is None else rows[:, t // self.config["condition"]["hop_length"]])
            if forced is not None and forced[t] >= 0:
                token = int(forced[t])
            elif mu_law:
                token = draw(logits, coin[0], temperature=temperature, top_k=top_k, top_p=top_p)
            else:
                token = logistics_draw(logits, coin, temperature)
            self.push(token)
            tokens.append(token)
            log_probs.append(log_softmax(logits)[token] if mu_law else logistics_log_prob(logits, token))
        return np.array(tokens), np.array(log_probs)


# -- mixture of logistics over 16 bits ---------------------------------------------------------------------------------


def sample_value(token):
    """The sample in [-1, 1] that a 16-bit token stands for."""
    return (token - 32767.5) / 32767.5


def log_softmax(logits):
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def log_sigmoid(x):
    return -np.logaddexp(0.0, -x)


def logistics_log_prob(row, token):
    """ln P(token) under one row of logits: mixture logits, means, log scales."""
    weights, means, log_scales = np.split(np.asarray(row, np.float64), 3)
    scales = np.exp(np.maximum(log_scales, MIN_LOG_SCALE))
    low = (sample_value(token) - 1 / 65_535 - means) / scales
    high = (sample_value(token) + 1 / 65_535 - means) / scales
    if token == 0:
        mass = log_sigmoid(high)
    elif token == LOGISTICS_CLASSES - 1:
        mass = log_sigmoid(-low)
    else:  # where the sigmoid is near 0, so that the difference keeps its digits
        flip = low + high > 0
        a, b = np.where(flip, -high, low), np.where(flip, -low, high)
        below = log_sigmoid(b)
        mass = below + np.log(-np.expm1(log_sigmoid(a) - below))
    return float(np.logaddexp.reduce(log_softmax(weights) + mass))


def logistics_draw(row, coins, temperature=1.0):
    """The token for two coins in [0, 1): one picks the component, one the value."""
    weights, means, log_scales = np.split(np.asarray(row, np.float64), 3)
    if temperature == 0:
        x = means[weights.argmax()]
    else:
        running = np.cumsum(np.exp(log_softmax(weights / temperature)))
        m = min(int(np.searchsorted(running, coins[0] * running[-1], side="right")), len(weights) - 1)
        with np.errstate(divide="ignore"):
            x = means[m] + np.exp(max(log_scales[m], MIN_LOG_SCALE)) * temperature * np.log(coins[1] / (1 - coins[1]))
    return int(np.clip(np.floor((x + 1) * 32767.5 + 0.5), 0, LOGISTICS_CLASSES - 1))


def mu_law_draw(logits, coin, temperature=1.0):
    """The token at which the running sum of softmax(logits / temperature) passes `coin`."""
    if temperature == 0:
        return int(logits.argmax())
    running = np.cumsum(np.exp(log_softmax(logits / temperature)))
    return min(int(np.searchsorted(running, coin * running[-1], side="right")), len(logits) - 1)
