"""C-RNN-GAN in torch: the generator, as a model file holds it, and its discriminator."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from musicgen_ext.architectures import CRnnGanConfig


class CRnnGan(nn.Module):
    """The generator of a `CRnnGanConfig`; ``state_dict()`` has the names of ``config.tensor_shapes()``."""

    def __init__(self, config: CRnnGanConfig) -> None:
        super().__init__()
        self.config = config
        self.rnn = nn.LSTM(config.noise + config.outputs, config.hidden_size, config.num_layers, batch_first=True)
        self.output = nn.Linear(config.hidden_size, config.outputs)

    def forward(self, noise: Tensor) -> Tensor:
        """Rows (B, T, outputs) in (0, 1) for noise (B, T, noise)."""
        said = noise.new_zeros(len(noise), 1, self.config.outputs)
        state = None
        rows = []
        for t in range(noise.shape[1]):
            heard, state = self.rnn(torch.cat([noise[:, t : t + 1], said], dim=2), state)
            said = torch.sigmoid(self.output(heard))
            rows.append(said)
        return torch.cat(rows, dim=1)


class CRnnGanCritic(nn.Module):
    """What hears rows in both directions."""

    def __init__(self, config: CRnnGanConfig) -> None:
        super().__init__()
        self.rnn = nn.LSTM(config.outputs, config.critic_size, batch_first=True, bidirectional=True)
        self.output = nn.Linear(2 * config.critic_size, 1)

    def features(self, rows: Tensor) -> Tensor:
        """What it hears at every row: (B, T, 2 * critic_size)."""
        return cast("Tensor", self.rnn(rows)[0])

    def judge(self, features: Tensor) -> Tensor:
        """(B, 1): the mean over all rows."""
        return cast("Tensor", self.output(features).mean(1))

    def forward(self, rows: Tensor) -> Tensor:
        return self.judge(self.features(rows))
