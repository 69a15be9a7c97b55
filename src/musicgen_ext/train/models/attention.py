"""The attention architecture in torch: for training, and as a second opinion on the native engine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from musicgen_ext.architectures import AttentionConfig

_NEVER = float("-inf")


class Attention(nn.Module):
    """A transformer over tokens; see `musicgen_ext.architectures.AttentionConfig`.

    ``state_dict()`` has exactly the names and shapes of ``config.tensor_shapes()``.

    Parameters
    ----------
    config : AttentionConfig
    input_dropout, layer_dropout : float in [0, 1)
        Probabilities of dropping numbers of the embeddings, and of what a layer's halves add, in training.
    """

    def __init__(self, config: AttentionConfig, input_dropout: float = 0.0, layer_dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.embedding = _embedding(config.vocab_size + 1, config.width)
        self.layers = nn.ModuleList(_Layer(config, layer_dropout, memory=config.memory is not None)
                                    for _ in range(config.num_layers))  # fmt: skip
        self.norm = nn.LayerNorm(config.width)
        self.output = _Output(config)
        if config.memory is not None:
            self.memory = _Memory(config, input_dropout, layer_dropout)
        self.drop = nn.Dropout(input_dropout)
        self.register_buffer("buckets", torch.tensor(config.buckets()), persistent=False)

    def forward(self, previous: Tensor, memory: Tensor | None = None, places: Tensor | None = None) -> Tensor:
        """What the network expects of every token, given those before it.

        Parameters
        ----------
        previous : int Tensor [shape=(B, T)]
            The tokens before; `config.vocab_size` before the first of a piece.
        memory : int Tensor [shape=(B, M)], optional
            What the decoder is told of, with -1 behind the end (nothing but -1: it is told nothing).
        places : int Tensor [shape=(B, T)], optional
            With a memory: what the advances of all tokens of the piece up to `previous` add up to.

        Returns
        -------
        logits : float Tensor [shape=(B, T, vocab_size)]
        """
        config = self.config
        x = self.drop(self.embedding(previous))
        told, seen = None, None
        if config.memory is not None and memory is not None:
            if places is None:
                raise ValueError(f"places: expected shape {tuple(previous.shape)} with a memory, got None")
            told = self.memory(memory)
            seen = self.memory.bias_from(memory, places)
        for layer in cast("Iterable[_Layer]", self.layers):
            x = layer(x, layer.attention.distance.behind(cast("Tensor", self.buckets), x.shape[1]), told, seen)
        if config.tied:
            return F.linear(self.norm(x), self.embedding.weight[: config.vocab_size], self.output.bias)
        return F.linear(self.norm(x), self.output.weight, self.output.bias)


class _Output(nn.Module):
    """The last matrix, where the embedding is not used for it, and its biases."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        if not config.tied:
            self.weight = nn.Parameter(torch.randn(config.vocab_size, config.width) * config.width**-0.5)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))


class _Layer(nn.Module):
    """Attention to itself, perhaps to a memory, and two products: each hears x normalised and adds to it."""

    def __init__(
        self, config: AttentionConfig, dropout: float, *, memory: bool = False, both_ways: bool = False
    ) -> None:
        super().__init__()
        d, gated = config.width, config.activation == "gated"
        self.activation = config.activation
        self.before_attention = nn.LayerNorm(d)
        self.attention = _SelfAttention(config, both_ways)
        if memory:
            self.before_cross = nn.LayerNorm(d)
            self.cross = _CrossAttention(config)
        self.before_mlp = nn.LayerNorm(d)
        self.mlp = nn.ModuleDict(
            {"up": _linear(d, 2 * config.mlp_size if gated else config.mlp_size), "down": _linear(config.mlp_size, d)}
        )
        self.drop = nn.Dropout(dropout)
        with torch.no_grad():  # what all layers add stays as large as what one would (Radford et al., 2019)
            for added in (self.attention.out, self.mlp["down"]):
                added.weight /= (2 * config.num_layers) ** 0.5

    def forward(self, x: Tensor, bias: Tensor, memory: Tensor | None = None, seen: Tensor | None = None) -> Tensor:
        x = x + self.drop(self.attention(self.before_attention(x), bias))
        if hasattr(self, "cross"):
            x = x + self.drop(self.cross(self.before_cross(x), memory, seen))
        u = self.mlp["up"](self.before_mlp(x))
        if self.activation == "relu":
            u = F.relu(u)
        elif self.activation == "gelu":
            u = F.gelu(u, approximate="tanh")
        else:
            a, b = u.chunk(2, -1)
            u = F.gelu(a, approximate="tanh") * b
        return x + cast("Tensor", self.drop(self.mlp["down"](u)))


class _SelfAttention(nn.Module):
    def __init__(self, config: AttentionConfig, both_ways: bool) -> None:
        super().__init__()
        self.heads = config.num_heads
        self.qkv = _linear(config.width, 3 * config.width)
        self.out = _linear(config.width, config.width)
        self.distance = _Distances(config, both_ways)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (_apart(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        return cast("Tensor", self.out(_together(F.scaled_dot_product_attention(q, k, v, bias.to(q.dtype)))))


class _CrossAttention(nn.Module):
    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.heads = config.num_heads
        self.query = _linear(config.width, config.width)
        self.keys_values = _linear(config.width, 2 * config.width)
        self.out = _linear(config.width, config.width)

    def forward(self, x: Tensor, memory: Tensor | None, seen: Tensor | None) -> Tensor:
        if memory is None or seen is None:  # nothing is found
            return self.out.bias.expand_as(x)
        k, v = (_apart(part, self.heads) for part in self.keys_values(memory).chunk(2, -1))
        q = _apart(self.query(x), self.heads)
        # A sequence that is told nothing looks at the first key, and forgets it again.
        nothing = torch.isinf(seen[:, 0, :, 0])
        bias = torch.cat([seen[..., :1].masked_fill(nothing[:, None, :, None], 0.0), seen[..., 1:]], -1)
        found = _together(F.scaled_dot_product_attention(q, k, v, bias.to(q.dtype)))
        return cast("Tensor", self.out(found.masked_fill(nothing[..., None], 0.0)))


class _Distances(nn.Module):
    """Heads' biases by bucket; those of an encoder for the keys before a query, then for those behind."""

    def __init__(self, config: AttentionConfig, both_ways: bool) -> None:
        super().__init__()
        # At first every head prefers what is near, each by another slope (Press et al., 2022).
        near = torch.tensor([0, *config.distances], dtype=torch.float32)
        one_way = -_slopes(config.num_heads)[:, None] * near
        self.weight = nn.Parameter(torch.cat([one_way, one_way], 1) if both_ways else one_way)
        self.context = config.context

    def behind(self, buckets: Tensor, n: int) -> Tensor:
        """[heads, query, key]: of the last `context` keys, the query's own included."""
        of_distance = self.weight[:, buckets[:n]]
        heads = len(of_distance)
        never = of_distance.new_full((heads, n - 1), _NEVER)
        far = of_distance.new_full((heads, max(0, n - self.context)), _NEVER)
        # By key - query, from 1 - n to n - 1.
        return _diagonals(torch.cat([of_distance, far], 1).flip(1), never, n)

    def around(self, buckets: Tensor, n: int) -> Tensor:
        """[heads, query, key]: of all keys."""
        at = buckets[torch.arange(n).clamp(max=len(buckets) - 1)]
        behind, ahead = self.weight.chunk(2, 1)
        return _diagonals(behind[:, at].flip(1), ahead[:, at[1:]], n)


class _Memory(nn.Module):
    """The encoder: tokens -> what the decoder's layers attend to."""

    def __init__(self, config: AttentionConfig, input_dropout: float, layer_dropout: float) -> None:
        super().__init__()
        memory = config.memory
        assert memory is not None
        self.reach = memory.reach
        self.embedding = _embedding(memory.vocab_size, config.width)
        self.layers = nn.ModuleList(_Layer(config, layer_dropout, both_ways=True) for _ in range(memory.num_layers))
        self.norm = nn.LayerNorm(config.width)
        self.place = nn.Module()
        away = torch.arange(-memory.reach, memory.reach + 1).abs().float()
        self.place.weight = nn.Parameter(-0.2 * _slopes(config.num_heads)[:, None] * away)
        self.drop = nn.Dropout(input_dropout)
        self.register_buffer("advances", torch.tensor(memory.advances), persistent=False)
        self.register_buffer("buckets", torch.tensor(config.buckets()), persistent=False)

    def forward(self, memory: Tensor) -> Tensor:
        x = self.drop(self.embedding(memory.clamp(min=0)))
        n = memory.shape[1]
        absent = (memory < 0)[:, None, None, :]
        absent = absent & ~absent.all(-1, keepdim=True)  # a row of nothing is looked at, but never used
        for layer in cast("Iterable[_Layer]", self.layers):
            bias = layer.attention.distance.around(cast("Tensor", self.buckets), n)[None]
            x = layer(x, bias.masked_fill(absent, _NEVER))
        return cast("Tensor", self.norm(x))

    def bias_from(self, memory: Tensor, places: Tensor) -> Tensor:
        """[B, heads, T, M]: by the places of the memory's tokens, as seen from the decoder's."""
        moved = cast("Tensor", self.advances)[memory.clamp(min=0)]
        away = (moved.cumsum(1) - moved)[:, None, :] - places[:, :, None]
        at = away.clamp(-self.reach, self.reach) + self.reach
        weight = cast("Tensor", self.place.weight)
        bias = F.embedding(at, weight.T).permute(0, 3, 1, 2)
        return bias.masked_fill((memory < 0)[:, None, None, :], _NEVER)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.zeros_(linear.bias)
    return linear


def _embedding(rows: int, width: int) -> nn.Embedding:
    embedding = nn.Embedding(rows, width)
    nn.init.normal_(embedding.weight, std=width**-0.5)
    return embedding


def _slopes(heads: int) -> Tensor:
    return torch.tensor([2.0 ** (-8.0 * (h + 1) / heads) for h in range(heads)])


def _apart(x: Tensor, heads: int) -> Tensor:
    """(B, T, width) -> (B, heads, T, head size)"""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def _together(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _diagonals(up_to_zero: Tensor, above_zero: Tensor, n: int) -> Tensor:
    """[heads, i, j] of a number for every j - i: those up to 0, ascending, and those above."""
    return torch.cat([up_to_zero, above_zero], 1).unfold(1, n, 1).flip(1)
