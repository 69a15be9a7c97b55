"""The generator of an adversarial pair in torch."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from musicgen_ext.architectures import GanConfig
from musicgen_ext.train.models.feedforward import FeedForward


class Gan(nn.Module):
    """What a model file of arch "gan" holds: a generator of pictures; see `musicgen_ext.architectures.GanConfig`."""

    def __init__(self, config: GanConfig) -> None:
        super().__init__()
        self.config = config
        self.generator = FeedForward(config.generator)

    def forward(self, z: Tensor) -> Tensor:
        """Probabilities (B, C, T, P) of what z (B, D) stands for."""
        return cast("Tensor", self.generator(z))

    def latent(self, count: int) -> Tensor:
        """So many z, by torch's own generator of chance."""
        return torch.randn(count, self.config.generator.input[0], device=next(self.parameters()).device)

    def draw(self, probabilities: Tensor) -> Tensor:
        """0 and 1, as the configuration says; the gradient is that of the probabilities (straight through).

        Source: Y. Bengio, N. Léonard, A. Courville, "Estimating or propagating gradients through stochastic neurons
        for conditional computation", 2013.
        """
        if self.config.draw == "bernoulli":
            drawn = (torch.rand_like(probabilities) < probabilities).to(probabilities.dtype)
        else:
            drawn = (probabilities > 0.5).to(probabilities.dtype)
        return drawn + probabilities - probabilities.detach()

    def folded(self) -> Gan:
        """The model as it is exported."""
        made = Gan(self.config.folded)
        made.generator = self.generator.folded()
        return made.eval()
