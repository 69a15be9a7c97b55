"""Feed-forward networks in torch: for training, and as a second opinion on the native engine."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from musicgen_ext.architectures import FeedForwardConfig, FeedForwardLayer
from musicgen_ext.architectures.feedforward import LEAK


class FeedForward(nn.Module):
    """Dense layers and convolutions; see `musicgen_ext.architectures.FeedForwardConfig`.

    ``state_dict()`` has exactly the names and shapes of ``config.tensor_shapes()``.
    """

    def __init__(self, config: FeedForwardConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(
            _Layer(layer, given) for layer, given in zip(config.layers, config.shapes, strict=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, *input) to (B, *output), float32."""
        for layer in self.layers:
            x = layer(x)
        return x

    @torch.no_grad()
    def folded(self) -> FeedForward:
        """The same network in evaluation, its norms made part of the weights."""
        made = FeedForward(self.config.folded).to(next(self.parameters()).device).eval()
        for layer, plain in zip(self.layers, made.layers, strict=True):
            cast("_Layer", layer).fold_into(cast("_Layer", plain))
        return made


class _Layer(nn.Module):
    def __init__(self, layer: FeedForwardLayer, given: tuple[int, ...]) -> None:
        super().__init__()
        self.layer = layer
        shape = layer.weight_shape(given)
        if shape is None:
            return
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(layer.outputs))
        bound = 1 / math.sqrt(math.prod(shape[1:]))  # torch's own way to begin
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)
        if layer.norm == "batch":
            self.norm = nn.BatchNorm1d(layer.outputs) if layer.kind == "dense" else nn.BatchNorm2d(layer.outputs)
            self.norm.num_batches_tracked = None

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        if layer.kind == "reshape":
            return x.reshape(-1, *layer.shape)  # of any batch: a trace would remember len(x)
        if layer.kind == "dense":
            x = F.linear(x.flatten(1), self.weight, self.bias)
        else:
            convolve = F.conv2d if layer.kind == "conv2d" else F.conv_transpose2d
            x = convolve(x, self.weight, self.bias, layer.stride, layer.padding)
        if layer.norm == "batch":
            x = self.norm(x)
        if layer.activation == "leaky_relu":
            return F.leaky_relu(x, LEAK)
        return x if layer.activation == "none" else cast("Tensor", getattr(torch, layer.activation)(x))

    def fold_into(self, plain: _Layer) -> None:
        if self.layer.kind == "reshape":
            return
        weight, bias = self.weight, self.bias
        if self.layer.norm == "batch":
            norm = self.norm
            mean, variance = cast("Tensor", norm.running_mean), cast("Tensor", norm.running_var)
            scale = norm.weight / torch.sqrt(variance + norm.eps)
            rows = 1 if self.layer.kind == "conv_transpose2d" else 0
            along = [1] * weight.dim()
            along[rows] = len(scale)
            plain.weight.copy_(weight * scale.view(along))
            plain.bias.copy_((bias - mean) * scale + norm.bias)
        else:
            plain.weight.copy_(weight)
            plain.bias.copy_(bias)
