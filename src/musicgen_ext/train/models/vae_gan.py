"""The VAE-GAN with a style vector in torch: for training, and as a second opinion on the native engine."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from musicgen_ext.architectures import VaeGanConfig
from musicgen_ext.architectures.vae_gan import LOG_VARIANCES
from musicgen_ext.train.models.feedforward import FeedForward

_LOG_VARIANCE = -4.0  # at first: z says something from the first step on
_LOGIT = -3.0  # at first: one place in twenty has a note
_MOST_WALK = 0.99


class VaeGan(nn.Module):
    """Encoder and generator; see `musicgen_ext.architectures.VaeGanConfig`.

    ``state_dict()`` has exactly the names and shapes of ``config.tensor_shapes()``.
    """

    walk: Tensor

    def __init__(self, config: VaeGanConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = FeedForward(config.encoder)
        self.generator = FeedForward(config.generator)
        self.register_buffer("walk", torch.zeros(config.latent_size))
        with torch.no_grad():
            _last_bias(self.encoder)[config.latent_size :] = _LOG_VARIANCE
            _last_bias(self.generator).fill_(_LOGIT)

    def encode(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, T, P), float32, 0 and 1 -> means and logarithms of variances, (B, D) each."""
        mean, log_variance = self.encoder(pictures).float().chunk(2, -1)
        return mean, log_variance.clamp(*LOG_VARIANCES)

    def decode(self, z: Tensor, style: Tensor) -> Tensor:
        """z (B, D) and style vectors (B, S) -> logits (B, C, T, P)."""
        return cast("Tensor", self.generator(torch.cat([z, style], -1)).float())

    def draw(self, logits: Tensor) -> Tensor:
        """1 where a note is likelier than none, no onset without a sound; the gradient is that of the probability."""
        likely = torch.sigmoid(logits)
        on = (logits > 0).to(likely.dtype)
        on = torch.cat([on[:, :1], on[:, 1:] * on[:, :1]], 1)
        return on + likely - likely.detach()

    @torch.no_grad()
    def walk_towards(self, first: Tensor, second: Tensor, share: float) -> None:
        """Move `walk` towards what the means of neighbouring pictures (B, D) have in common."""
        seen = (first * second).mean(0) / (0.5 * (first.square() + second.square())).mean(0).clamp(min=1e-6)
        self.walk.lerp_(seen, share).clamp_(-_MOST_WALK, _MOST_WALK)

    def folded(self) -> VaeGan:
        """The model as it is exported: norms are part of the weights."""
        made = VaeGan(self.config.folded)
        made.encoder, made.generator = self.encoder.folded(), self.generator.folded()
        made.walk.copy_(self.walk)
        return made.eval()


def _last_bias(network: FeedForward) -> Tensor:
    return [parameter for name, parameter in network.named_parameters() if name.endswith(".bias")][-1]
