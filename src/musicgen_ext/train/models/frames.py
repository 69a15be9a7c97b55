"""The architecture of frames in torch: for training, and as a second opinion on the native engine."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from musicgen_ext.architectures import FramesConfig
from musicgen_ext.architectures.frames import MOST_APART, MOST_BELOW
from musicgen_ext.train.models.recurrent import Cells, Dropout


class Frames(nn.Module):
    """A recurrent trunk over frames and one network for all keys; see `musicgen_ext.architectures.FramesConfig`.

    ``state_dict()`` has exactly the names and shapes of ``config.tensor_shapes()``. Of `dropout`, ``input`` drops
    inputs of the trunk, ``layer`` units of its layers, ``head`` filters, ``weight`` recurrent weights, and ``feature``
    whole channels but for the last frame.
    """

    def __init__(self, config: FramesConfig, dropout: Dropout | None = None) -> None:
        super().__init__()
        self.config = config
        self.dropout = dropout or Dropout()
        shapes = config.tensor_shapes()
        self.rnn = Cells(config)
        nn.init.uniform_(self.rnn.get_parameter("weight_ih_l0"), -0.15, 0.15)  # few of its many inputs are not 0
        self.key = nn.Linear(config.hidden_size, config.keys)
        nn.init.constant_(self.key.bias, -3.0)  # 4 keys of 88 sound
        self.condition = nn.Linear(config.hidden_size, config.filters, bias=False)
        self.position = _Weight(shapes["position.weight"], 0.05)
        self.local = _Weight(shapes["local.weight"], 0.15)
        if config.head == "notes":
            self.written = _Weight(shapes["written.weight"], 0.15)
        self.ranks = _Weight(shapes["ranks.weight"], 0.1)
        self.output = nn.Linear(config.filters, 1, bias=False)

    def forward(self, channels: Tensor, numbers: Tensor, frames: Tensor) -> Tensor:
        """Teacher-forced logits.

        Parameters
        ----------
        channels : Tensor [shape=(n_frames, B, keys, C)], any dtype
            0 and 1: what `musicgen_ext.train.frames.frame_features` shows of the past.
        numbers : int64 Tensor [shape=(n_frames, B, len(config.numbers))]
        frames : Tensor [shape=(n_frames, B, keys)]
            The frames themselves; with head "notes" the logit of a key sees the keys below it.

        Returns
        -------
        logits : Tensor [shape=(n_frames, B, keys)]
        """
        channels = channels.to(self._dtype())
        if self.training and self.dropout.feature:
            keep = torch.rand(1, channels.shape[1], 1, self.config.channels) >= self.dropout.feature
            keep[..., 0] = True
            channels = channels * keep
        return self.logits(self.trunk(channels, numbers), channels, frames)

    def trunk(self, channels: Tensor, numbers: Tensor) -> Tensor:
        """The trunk's state at every frame [shape=(n_frames, B, hidden_size)]."""
        config = self.config
        channels = channels.to(self._dtype())
        parts = [channels[..., list(config.trunk_channels)].flatten(2)]
        parts += [
            F.one_hot(ids, size).to(channels.dtype)
            for ids, size in zip(numbers.unbind(-1), config.numbers, strict=True)
        ]
        x = self._drop_units(torch.cat(parts, -1), self.dropout.input)
        for layer in range(config.num_layers):
            x = self.rnn(x, layer, self.dropout.weight if self.training else 0.0)
            x = self._drop_units(x, self.dropout.layer)
        return x

    def logits(self, state: Tensor, channels: Tensor, frames: Tensor) -> Tensor:
        """What `forward` returns, from the trunk's states."""
        config, dtype = self.config, self._dtype()
        shape = frames.shape
        pictures = channels.to(dtype).flatten(0, 1)  # (N, keys, C)
        weight: Tensor = self.local.weight
        new = frames.to(dtype).flatten(0, 1).unsqueeze(-1)
        if config.head == "notes":
            # The new frame is one channel more, of which a key sees what is below.
            below = F.pad(self.written.weight, (0, config.reach + 1)).unsqueeze(1)
            weight = torch.cat([weight, below], 1)
            pictures = torch.cat([pictures, new], -1)
        # One row high, channels last: twice as fast on a CPU as a convolution of one dimension, and in place from here.
        f = F.conv2d(
            pictures.unsqueeze(1).permute(0, 3, 1, 2),
            weight.to(dtype).unsqueeze(2).contiguous(memory_format=torch.channels_last),
            padding=(0, config.reach),
        )
        f = f.squeeze(2).transpose(1, 2)  # (N, keys, filters)
        f = f.add_(self.condition(state).flatten(0, 1).unsqueeze(1).to(dtype))
        f = f.add_(self.position.weight.to(dtype))
        f = f.add_(self._ranks(pictures, new) @ self.ranks.weight.to(dtype)).relu_()
        if self.training and self.dropout.head:
            keep = torch.rand(shape[1], 1, config.filters, device=f.device) >= self.dropout.head
            f = f * (keep.to(dtype) / (1 - self.dropout.head)).repeat(shape[0], 1, 1)
        z: Tensor = self.output(f).squeeze(-1) + self.key(state).flatten(0, 1)
        return z.view(shape)

    def _ranks(self, pictures: Tensor, new: Tensor) -> Tensor:
        """Which rows of ``ranks.weight`` every key adds, as ones [shape=(N, keys, rows)]."""
        config = self.config

        def below(picture: Tensor) -> Tensor:
            counts = picture.float().cumsum(1) - picture.float()
            return counts.clamp_(max=MOST_BELOW).long()

        past = [below(pictures[..., 0])]
        if config.has_match:
            past.append(below(pictures[..., len(config.lags)]))
        ranks = past
        if config.head == "notes":
            written = below(new[..., 0])
            apart = [(written - each).clamp_(-MOST_APART, MOST_APART) + MOST_APART for each in past]
            ranks = [*past, written, *apart]
        rows = torch.stack(ranks, -1) + torch.arange(len(ranks), device=new.device) * (MOST_BELOW + 1)
        ones = new.new_zeros(*rows.shape[:2], self.ranks.weight.shape[0])
        marked: Tensor = ones.scatter_(2, rows, 1.0)
        return marked

    def _dtype(self) -> torch.dtype:
        device = self.key.weight.device.type
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.key.weight.dtype

    def _drop_units(self, x: Tensor, p: float) -> Tensor:
        if not self.training or not p:
            return x
        mask = torch.empty(1, *x.shape[1:], dtype=x.dtype, device=x.device).bernoulli_(1 - p).div_(1 - p)
        return x * mask


class _Weight(nn.Module):
    def __init__(self, shape: tuple[int, ...], spread: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape).normal_(0.0, spread))
