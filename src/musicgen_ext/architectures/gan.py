"""Adversarial pairs: a network that writes a bar at once, and the one that it learnt to deceive."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from musicgen_ext.architectures.feedforward import FeedForwardConfig
from musicgen_ext.architectures.readers import choice, only
from musicgen_ext.errors import WeightsError

DRAWS = ("bernoulli", "threshold")


@dataclass(frozen=True)
class GanConfig:
    """A generator of pictures and its discriminator.

    Attributes
    ----------
    generator : FeedForwardConfig
        From z, (D,) numbers drawn from the standard normal distribution, to the probability of every point of a
        picture: (channels, height, width), by a "sigmoid".
    discriminator : FeedForwardConfig
        From a picture to one number. A model file describes it, but holds tensors of the generator alone.
    draw : "bernoulli" or "threshold"
        How probabilities become 0 or 1: by a draw for each, or where they pass 1/2 (Dong and Yang, "Convolutional
        generative adversarial networks with binary neurons for polyphonic music generation", 2018).

    Source: I. Goodfellow et al., "Generative adversarial nets", 2014.
    """

    generator: FeedForwardConfig
    discriminator: FeedForwardConfig
    draw: str = "bernoulli"

    arch: ClassVar[str] = "gan"

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """Build from the JSON form; a mistake is a `WeightsError` that names key, range and value."""
        only(config, {"generator", "discriminator", "draw"}, "config")
        generator, discriminator = (
            FeedForwardConfig.from_dict(config.get(name, {}), f"config.{name}")
            for name in ("generator", "discriminator")
        )
        if len(generator.input) != 1:
            raise WeightsError(f"config.generator.input: expected one size, got {list(generator.input)}")
        last = [layer for layer in generator.layers if layer.kind != "reshape"][-1:]
        if len(generator.output) != 3 or [layer.activation for layer in last] != ["sigmoid"]:
            raise WeightsError(
                "config.generator.layers: expected an output of (channels, height, width) by a 'sigmoid', got shape "
                f"{list(generator.output)} by {[layer.activation for layer in last]}"
            )
        if discriminator.input != generator.output or discriminator.output != (1,):
            raise WeightsError(
                f"config.discriminator: expected input {list(generator.output)} and output [1], got "
                f"{list(discriminator.input)} and {list(discriminator.output)}"
            )
        for i, layer in enumerate(discriminator.layers):
            if layer.norm != "none":  # the gradient's penalty is one of every picture by itself
                raise WeightsError(f"config.discriminator.layers[{i}].norm: expected 'none', got {layer.norm!r}")
        return cls(generator, discriminator, choice(config, "draw", DRAWS, "config", "bernoulli"))

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: `from_dict(config.to_dict()) == config`."""
        return {
            "generator": self.generator.to_dict(),
            "discriminator": self.discriminator.to_dict(),
            "draw": self.draw,
        }

    @property
    def folded(self) -> GanConfig:
        """The model as it is exported: without norms."""
        return replace(self, generator=self.generator.folded)

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the model and its shape: the generator's, under ``generator.``."""
        return self.generator.tensor_shapes("generator.")

    def num_parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.tensor_shapes().values())
