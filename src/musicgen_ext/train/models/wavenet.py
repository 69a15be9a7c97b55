"""The WaveNet architecture in torch: for training, and as a second opinion on the native engine.

Source: van den Oord et al., WaveNet: A Generative Model for Raw Audio, 2016; the mixture of logistics of Salimans et
al., PixelCNN++, 2017.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from musicgen_ext.architectures import Condition, WaveNetConfig

_LEVELS = 65_536  # of the 16 bits that a mixture of logistics speaks of
_LEAST_LOG_SCALE = -14.0


class WaveNet(nn.Module):
    """Gated dilated causal convolutions over samples; see `musicgen_ext.architectures.WaveNetConfig`.

    ``state_dict()`` has exactly the names and shapes of ``config.tensor_shapes()``. Every layer is a product of a
    matrix with the taps beside one another: (B, T, channels) throughout, which on a CPU is faster than a convolution
    over (B, channels, T).

    Parameters
    ----------
    config : WaveNetConfig
    dropout : float in [0, 1)
        Probability of dropping a channel of what a layer hears, one mask for all samples of a sequence, in training.
    """

    def __init__(self, config: WaveNetConfig, dropout: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout: expected a probability in [0, 1), got {dropout!r}")
        self.config, self.dropout = config, dropout
        r, s, h = config.residual_channels, config.skip_channels, config.hidden_channels
        if config.output.kind == "mu_law":
            self.embedding = nn.Embedding(config.output.classes, r)
        else:
            self.input = nn.Linear(1, r)
        if config.condition is not None:
            self.condition = _Frames(config.condition)
        last = config.num_layers - 1
        self.layers = nn.ModuleList(_Layer(config, last=i == last) for i in range(config.num_layers))
        self.skip = nn.Linear(config.num_layers * r, s)
        self.hidden = nn.Linear(s, h)
        self.logits = nn.Linear(h, config.output.rows)

    def forward(self, previous: Tensor, frames: Tensor | None = None, *, offset: int = 0) -> Tensor:
        """What the network expects of every sample, given those before it.

        Parameters
        ----------
        previous : Tensor (B, T)
            The samples before: tokens, int64 (mu-law), or float32 in [-1, 1]. `before` makes them of a sequence that
            starts in silence.
        frames : Tensor (B, F, condition.channels), optional
            The local condition; frame f lasts from sample ``f * hop_length`` on.
        offset : int
            Sample number of ``previous[:, 0]``, counted from the start of the first frame.

        Returns
        -------
        Tensor (B, T, rows)
            Logits (mu-law), or logits, means and log scales of the mixture.
        """
        config = self.config
        h = self.embedding(previous) if config.output.kind == "mu_law" else self.input(previous.unsqueeze(-1))
        count = h.shape[1]
        local = self._local(frames, count, offset)
        heard = []
        layers = cast("Iterable[_Layer]", self.layers)
        for dilation, layer in zip(config.dilations, layers, strict=True):
            taps = [F.pad(h, (0, 0, dilation * k, 0))[:, :count] for k in range(config.kernel_size - 1, 0, -1)]
            seen = torch.cat([*taps, h], -1)
            if self.dropout and self.training:
                keep = torch.rand(seen.shape[0], 1, seen.shape[2], device=seen.device) >= self.dropout
                seen = seen * (keep / (1.0 - self.dropout)).to(seen.dtype)
            gates = F.linear(seen, layer.gate.weight.permute(0, 2, 1).flatten(1), layer.gate.bias)
            if local is not None and config.condition is not None:
                gates = _add_frames(gates, layer.condition(local), config.condition.hop_length, offset)
            filtered, gate = gates.chunk(2, -1)
            z = torch.tanh(filtered) * torch.sigmoid(gate)
            heard.append(z)
            if layer.residual is not None:
                h = h + layer.residual(z)
        s = F.relu(self.skip(torch.cat(heard, -1)))
        outputs: Tensor = self.logits(F.relu(self.hidden(s)))
        return outputs

    def before(self, samples: Tensor) -> Tensor:
        """`samples` one later: what `forward` hears of a whole sequence."""
        silence = self.config.output.classes // 2 if self.config.output.kind == "mu_law" else 0
        return F.pad(samples, (1, 0), value=silence)[:, :-1]

    def nats(self, outputs: Tensor, samples: Tensor) -> Tensor:
        """Negative log-likelihood of every sample.

        Parameters
        ----------
        outputs : Tensor (B, T, rows)
        samples : Tensor (B, T)
            Tokens, int64 (mu-law), or float32 in [-1, 1], of which the nearest of 65,536 levels counts.

        Returns
        -------
        Tensor (B, T), float32
        """
        if self.config.output.kind == "mu_law":
            return F.cross_entropy(outputs.flatten(0, 1).float(), samples.flatten(), reduction="none").view(
                samples.shape
            )
        return -log_logistics(outputs.float(), samples)

    def _local(self, frames: Tensor | None, count: int, offset: int) -> Tensor | None:
        condition = self.config.condition
        if condition is None:
            if frames is not None:
                raise ValueError(f"frames: this network has no local condition, got {tuple(frames.shape)}")
            return None
        if frames is None:
            raise ValueError(f"frames: expected frames of {condition.channels} numbers, got none")
        if frames.dim() != 3 or frames.shape[2] != condition.channels:
            raise ValueError(f"frames: expected (B, F, {condition.channels}), got {tuple(frames.shape)}")
        if frames.shape[1] * condition.hop_length < offset + count:
            raise ValueError(
                f"frames: expected frames for {offset + count} samples, got {frames.shape[1]} of {condition.hop_length}"
            )
        local: Tensor = self.condition(frames)
        return local


class _Frames(nn.Module):
    """Frames (B, F, channels) -> what every layer is told of them (B, F, width)."""

    def __init__(self, condition: Condition) -> None:
        super().__init__()
        self.conv = nn.Conv1d(
            condition.channels, condition.width, condition.kernel_size, padding=condition.kernel_size // 2
        )

    def forward(self, frames: Tensor) -> Tensor:
        return torch.tanh(self.conv(frames.transpose(1, 2))).transpose(1, 2)


class _Layer(nn.Module):
    condition: nn.Linear
    residual: nn.Linear | None

    def __init__(self, config: WaveNetConfig, *, last: bool) -> None:
        super().__init__()
        r = config.residual_channels
        self.gate = nn.Conv1d(r, 2 * r, config.kernel_size)  # holds weight and bias; `WaveNet.forward` multiplies
        if config.condition is not None:
            self.condition = nn.Linear(config.condition.width, 2 * r, bias=False)
        self.residual = None if last else nn.Linear(r, r)


def _add_frames(gates: Tensor, frames: Tensor, hop: int, offset: int) -> Tensor:
    """gates (B, T, C) + frames (B, F, C), each for `hop` samples; the first sample is number `offset`."""
    b, t, c = gates.shape
    first, last = offset // hop, -(-(offset + t) // hop)
    if offset % hop == 0 and t % hop == 0:
        return (gates.view(b, t // hop, hop, c) + frames[:, first:last].unsqueeze(2)).view(b, t, c)
    held = frames[:, first:last].repeat_interleave(hop, 1)
    return gates + held[:, offset - first * hop :][:, :t]


def log_logistics(outputs: Tensor, samples: Tensor) -> Tensor:
    """log P(sample) under a mixture of logistics cut into 65,536 levels from -1 to 1.

    Parameters
    ----------
    outputs : Tensor (..., 3 * mixtures), float32
        Logits of the mixture, means, log scales.
    samples : Tensor (...), float32 in [-1, 1]

    Returns
    -------
    Tensor (...), float32
    """
    logits, means, log_scales = outputs.chunk(3, -1)
    log_scales = log_scales.clamp(min=_LEAST_LOG_SCALE)
    half = 1.0 / (_LEVELS - 1)  # of the distance of two levels
    level = torch.round((samples.unsqueeze(-1) + 1.0) / (2.0 * half))
    centred = level * (2.0 * half) - 1.0 - means
    inverse = torch.exp(-log_scales)
    upper, lower = inverse * (centred + half), inverse * (centred - half)
    # log(cdf(upper) - cdf(lower)) without cancellation
    inside = torch.log(-torch.expm1(-2.0 * half * inverse))
    inner = F.logsigmoid(upper) + F.logsigmoid(-lower) + inside
    inner = torch.where(level <= 0, F.logsigmoid(upper), inner)
    inner = torch.where(level >= _LEVELS - 1, F.logsigmoid(-lower), inner)
    return torch.logsumexp(F.log_softmax(logits, -1) + inner, -1)
