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
_LEAST_VARIANCE = 1e-3


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
        self.prior = _Prior(config.labels, config.latent_size)
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
        """Pictures as `musicgen_ext.generate.VaeGanEngine.draw` draws them; the gradient is that of the probability."""
        likely = torch.sigmoid(logits)
        sounding = likely.detach()[:, :1]
        order = logits.detach()[:, :1].argsort(dim=-1, descending=True, stable=True)
        ranks = torch.arange(logits.shape[-1], device=logits.device).expand(order.shape)
        rank = torch.empty_like(order).scatter_(-1, order, ranks)
        on = (rank < sounding.sum(-1, keepdim=True).round()).to(likely.dtype)
        on = torch.cat([on, on * (2 * likely.detach()[:, 1:] >= sounding)], 1)
        return on + likely - likely.detach()

    @torch.no_grad()
    def fit_priors(self, z: Tensor, after: Tensor, label: Tensor) -> None:
        """Fit the priors to z of the windows of some pieces (N, D), and `walk` to the z after each of them (N, D).

        `label` (N,), int64, is of the first group. A little of the identity is added to the covariances.
        """
        size = self.config.latent_size
        found, follows = [], []
        for k in range(self.config.labels):
            rows, next_rows = z[label == k].double(), after[label == k].double()
            mean = rows.mean(0)
            covariance = (rows - mean).T @ (rows - mean) / max(1, len(rows) - 1)
            covariance += _LEAST_VARIANCE * torch.eye(size, dtype=torch.float64, device=z.device)
            scale = torch.linalg.cholesky(covariance)
            self.prior.mean[k], self.prior.scale[k] = mean.float(), scale.float()
            white = [torch.linalg.solve_triangular(scale, (x - mean).T, upper=False) for x in (rows, next_rows)]
            found.append((white[0] * white[1]).sum(1))
            follows.append(len(rows))
        self.walk.copy_((torch.stack(found).sum(0) / sum(follows)).clamp(-_MOST_WALK, _MOST_WALK).float())

    def folded(self) -> VaeGan:
        """The model as it is exported: norms are part of the weights."""
        made = VaeGan(self.config.folded)
        made.encoder, made.generator = self.encoder.folded(), self.generator.folded()
        made.walk.copy_(self.walk)
        made.prior.load_state_dict(self.prior.state_dict())
        return made.eval()


class _Prior(nn.Module):
    """Normal distributions of z, one for each label."""

    mean: Tensor
    scale: Tensor

    def __init__(self, labels: int, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(labels, size))
        self.register_buffer("scale", torch.eye(size).repeat(labels, 1, 1))


def _last_bias(network: FeedForward) -> Tensor:
    return [parameter for name, parameter in network.named_parameters() if name.endswith(".bias")][-1]
