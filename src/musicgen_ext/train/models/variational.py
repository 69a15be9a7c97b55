"""The variational autoencoder in torch: for training, and as a second opinion on the native engine."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from musicgen_ext.architectures import RecurrentConfig, VariationalConfig
from musicgen_ext.train.models.recurrent import Cells, Dropout, Recurrent, Table, same_units_dropped


class Variational(nn.Module):
    """A window of frames -> a latent vector -> a window; see `musicgen_ext.architectures.VariationalConfig`.

    ``state_dict()`` has exactly the names and shapes of ``config.tensor_shapes()``.
    """

    attributes: Tensor
    attribute_mean: Tensor
    attribute_deviation: Tensor

    def __init__(self, config: VariationalConfig, dropout: Dropout | None = None) -> None:
        super().__init__()
        self.config = config
        self.dropout = dropout or Dropout()
        reader = config.reader
        self.encoder = nn.ModuleDict(
            {"forwards": _Reader(reader, self.dropout), "backwards": _Reader(reader, self.dropout)}
        )
        self.mean = nn.Linear(2 * reader.hidden_size, config.latent_size)
        self.log_variance = nn.Linear(2 * reader.hidden_size, config.latent_size)
        self.decoder = Recurrent(config.decoder, self.dropout)
        if config.attributes:
            count = len(config.attributes)
            self.register_buffer("attributes", torch.zeros(count, config.latent_size))
            self.register_buffer("attribute_mean", torch.zeros(count))
            self.register_buffer("attribute_deviation", torch.ones(count))

    def encode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the posterior.

        Parameters
        ----------
        tokens : int Tensor [shape=(window, B, F)]

        Returns
        -------
        mean, log_variance : float32 Tensor [shape=(B, latent_size)]
        """
        last = torch.cat([self.encoder["forwards"](tokens), self.encoder["backwards"](tokens.flip(0))], -1)
        return self.mean(last).float(), self.log_variance(last).float()

    def forward(self, features: Mapping[str, Tensor], z: Tensor) -> list[Tensor]:
        """Teacher-forced logits of the decoder, as `Recurrent` gives them, for latent vectors (B, latent_size)."""
        logits: list[Tensor] = self.decoder(features, z)
        return logits


class _Reader(nn.Module):
    """One direction of the encoder: the last state of the uppermost layer."""

    def __init__(self, config: RecurrentConfig, dropout: Dropout) -> None:
        super().__init__()
        self.config = config
        self.dropout = dropout
        self.trunk = nn.ModuleDict({name: Table(config.feature_size(name), dim, 0.3) for name, dim in config.trunk})
        self.rnn = Cells(config)

    def forward(self, tokens: Tensor) -> Tensor:
        start = tokens.new_tensor([slot.size for slot in self.config.slots]).expand(1, tokens.shape[1], -1)
        ids = torch.cat([start, tokens])
        x = torch.cat([self.trunk[name](ids[..., i]) for i, (name, _) in enumerate(self.config.trunk)], -1)
        for k in range(self.config.num_layers):
            x = self.rnn(x, k, self.dropout.weight if self.training else 0.0)
            x = same_units_dropped(x, self.dropout.layer if self.training else 0.0)
        return x[-1]
