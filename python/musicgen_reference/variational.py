"""The variational autoencoder in plain numpy, float64, one window at a time. The native engine must agree with it."""

from __future__ import annotations

import numpy as np

from musicgen_ext.architectures import DIRECTIONS, VariationalConfig
from musicgen_reference import generate


class Variational:
    """A variational autoencoder, as `musicgen_ext.architectures.VariationalConfig` describes it.

    `weights` "int8" stores every state that meets a recurrent matrix in bytes, as the native engine does.
    """

    def __init__(self, config: VariationalConfig, tensors, weights="float32"):
        self.config = config
        self.tensors = generate.dequantized(tensors)
        self.decoder = generate.Recurrent(config.decoder, self.part("decoder."), weights)
        self.readers = [
            generate.Recurrent(config.reader, self.part(f"encoder.{name}."), weights) for name in DIRECTIONS
        ]

    def part(self, prefix):
        return {n.removeprefix(prefix): a for n, a in self.tensors.items() if n.startswith(prefix)}

    def encode(self, window):
        """Mean and log-variance (Z,) of a window of tokens (n, F)."""
        last = []
        for reader, frames in zip(self.readers, (window, window[::-1]), strict=True):
            heard, state = [], reader.start(None)
            for frame in (*frames, None):  # a step hears the frames before its own
                state = reader.step(reader.trunk_input(reader.features(heard, None, ()), None), state)
                heard.append(frame)
            last.append(state[-1][0])
        last = np.concatenate(last)
        return tuple(
            self.tensors[f"{name}.weight"] @ last + self.tensors[f"{name}.bias"] for name in ("mean", "log_variance")
        )

    def logits(self, window, z):
        """Teacher-forced logits: for every frame a list of arrays, one a slot."""
        n = len(window)
        return self.decoder.run(n, np.zeros((n, len(self.config.decoder.slots))), forced=window, vector=z)[1]

    def log_prob(self, window, z):
        """log p(window | z)."""
        total = 0.0
        for frame, each in zip(window, self.logits(window, z), strict=True):
            total += sum(generate.log_softmax(row)[token] for row, token in zip(each, frame, strict=True))
        return total


def divergence(mean, log_variance):
    """KL of a normal distribution with independent units from the standard one, in nats."""
    variance = np.exp(log_variance)
    return float(np.sum(0.5 * (variance + mean**2 - 1.0) - 0.5 * np.log(variance)))


def normal_log_density(x, mean, variance):
    """Of independent units."""
    return float(np.sum(-0.5 * np.log(2 * np.pi * variance) - 0.5 * (x - mean) ** 2 / variance))
