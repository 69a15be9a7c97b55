"""Transformers over tokens: a decoder that sees the last of them, and, where it has one, an encoder of others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from musicgen_ext.architectures.readers import choice, entries, integer, only
from musicgen_ext.errors import WeightsError

ACTIVATIONS = ("relu", "gelu", "gated")
LANES = 16

# Far above any small music model, far below what would exhaust a machine.
LIMITS = {
    "vocab_size": 1 << 20,
    "width": 4_096,
    "num_layers": 64,
    "num_heads": 256,
    "mlp_size": 16_384,
    "context": 1 << 16,
    "advance": 1 << 20,
    "reach": 1 << 16,
    "cache": 1 << 31,
}


@dataclass(frozen=True)
class MemoryConfig:
    """Other tokens that the decoder is told of: an encoder of `num_layers` layers reads up to `context` of them.

    `advances` says by token how far it moves the place of those behind it, in the unit of the decoder's own
    `advances`; the decoder's heads have a bias for every difference of places up to `reach` both ways.
    """

    vocab_size: int
    num_layers: int
    context: int
    reach: int
    advances: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "vocab_size": self.vocab_size,
            "num_layers": self.num_layers,
            "context": self.context,
            "reach": self.reach,
            "advances": list(self.advances),
        }


@dataclass(frozen=True)
class AttentionConfig:
    """A transformer decoder over tokens of one slot; with `memory`, an encoder and attention to what it makes.

    x begins as the embedding of the token before (row `vocab_size`: the start). Every layer adds to it

        x += out(attention(qkv(norm(x))));  [x += cross(norm(x), memory);]  x += down(act(up(norm(x))))

    and the logits are ``output(norm(x))``; with `tied` the output's matrix is the embedding's. `num_heads` heads of
    ``width / num_heads`` numbers attend, each to the last `context` tokens, the newest included:

        weight of token j for token i = softmax(q_i · k_j / sqrt(head size) + bias[bucket of i - j])

    A layer's biases are learnt for buckets of distances (Raffel et al., 2020): `distances` are the thresholds at which
    a new one begins. As keys do not depend on the position, what is cached stays as it is for as long as it is seen; a
    piece may be as long as one likes, and layer n hears of tokens up to ``n * (context - 1)`` back.

    ``"gated"`` is ``gelu(a) * b`` of the two halves of ``up`` (Shazeer, 2020); gelu is its tanh form.

    With `memory`, every layer also attends to the encoder's last x (normalised; the encoder's layers look both ways,
    with biases of their own for both sides), and a head's bias depends on the difference between the *places* of the
    memory's token and of the decoder's: places are what `advances` of the tokens before add up to, musical time for
    tokens that say how time moves on. So the decoder need not count to know which chord is sounding.

    Sources: Vaswani et al., Attention is all you need, 2017; Xiong et al., On layer normalization in the transformer
    architecture, 2020 (norms first); Raffel et al., Exploring the limits of transfer learning, 2020 (biases).
    """

    vocab_size: int
    width: int
    num_layers: int
    num_heads: int
    mlp_size: int
    context: int
    distances: tuple[int, ...] = ()
    activation: str = "gelu"
    tied: bool = False
    advances: tuple[int, ...] = ()
    memory: MemoryConfig | None = None

    arch: ClassVar[str] = "attention"

    # -- the JSON form -----------------------------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> AttentionConfig:
        """Build from the JSON form; a mistake is a `WeightsError` that names key, range and value."""
        where = "config"
        only(
            config,
            {
                "vocab_size", "width", "num_layers", "num_heads", "mlp_size", "context", "distances", "activation",
                "tied", "advances", "memory",
            },
            where,
        )  # fmt: skip
        vocab_size = integer(config, "vocab_size", 1, LIMITS["vocab_size"], where)
        tied = config.get("tied", False)
        if not isinstance(tied, bool):
            raise WeightsError(f"{where}.tied: expected true or false, got {tied!r}")
        memory = config.get("memory")
        built = cls(
            vocab_size,
            integer(config, "width", 1, LIMITS["width"], where),
            integer(config, "num_layers", 1, LIMITS["num_layers"], where),
            integer(config, "num_heads", 1, LIMITS["num_heads"], where),
            _lanes(config, "mlp_size", where),
            integer(config, "context", 1, LIMITS["context"], where),
            _distances(config, where),
            choice(config, "activation", ACTIVATIONS, where, "gelu"),
            tied,
            _advances(config, vocab_size, where, least=0),
            None if memory is None else _memory(memory, f"{where}.memory"),
        )
        if built.width % (LANES * built.num_heads):
            raise WeightsError(
                f"{where}.width: expected a multiple of {LANES} for each of {built.num_heads} heads, got {built.width}"
            )
        if built.cache_numbers > LIMITS["cache"]:
            raise WeightsError(
                f"{where}.context: expected a cache of at most {LIMITS['cache']} numbers (2 * num_layers * width * "
                f"context), got {built.cache_numbers}"
            )
        if built.memory is not None and len(built.advances) != vocab_size:
            raise WeightsError(f"{where}.advances: expected {vocab_size} (with a memory), got {len(built.advances)}")
        return built

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: `from_dict(config.to_dict()) == config`."""
        return {
            "vocab_size": self.vocab_size,
            "width": self.width,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "mlp_size": self.mlp_size,
            "context": self.context,
            "distances": list(self.distances),
            "activation": self.activation,
            "tied": self.tied,
            "advances": list(self.advances),
            "memory": None if self.memory is None else self.memory.to_dict(),
        }

    # -- what follows from it ----------------------------------------------------------------------------------------

    @property
    def head_size(self) -> int:
        return self.width // self.num_heads

    @property
    def cache_numbers(self) -> int:
        """Keys and values that a full cache holds."""
        return 2 * self.num_layers * self.width * self.context

    @property
    def num_buckets(self) -> int:
        return len(self.distances) + 1

    def buckets(self) -> list[int]:
        """The bucket of every distance from 0 to ``context - 1``."""
        out, bucket = [], 0
        for distance in range(self.context):
            while bucket < len(self.distances) and self.distances[bucket] <= distance:
                bucket += 1
            out.append(bucket)
        return out

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the model and its shape: torch's Embedding, Linear and LayerNorm; a row of biases a head."""
        d, heads = self.width, self.num_heads
        shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (self.vocab_size + 1, d)}

        def linear(name: str, rows: int, columns: int) -> None:
            shapes[f"{name}.weight"] = (rows, columns)
            shapes[f"{name}.bias"] = (rows,)

        def norm(name: str) -> None:
            shapes[f"{name}.weight"] = (d,)
            shapes[f"{name}.bias"] = (d,)

        def layer(name: str, buckets: int) -> None:
            norm(f"{name}.before_attention")
            linear(f"{name}.attention.qkv", 3 * d, d)
            linear(f"{name}.attention.out", d, d)
            shapes[f"{name}.attention.distance.weight"] = (heads, buckets)
            norm(f"{name}.before_mlp")
            linear(f"{name}.mlp.up", (2 if self.activation == "gated" else 1) * self.mlp_size, d)
            linear(f"{name}.mlp.down", d, self.mlp_size)

        for i in range(self.num_layers):
            layer(f"layers.{i}", self.num_buckets)
            if self.memory is not None:
                norm(f"layers.{i}.before_cross")
                linear(f"layers.{i}.cross.query", d, d)
                linear(f"layers.{i}.cross.keys_values", 2 * d, d)
                linear(f"layers.{i}.cross.out", d, d)
        norm("norm")
        if not self.tied:
            shapes["output.weight"] = (self.vocab_size, d)
        shapes["output.bias"] = (self.vocab_size,)
        if self.memory is not None:
            shapes["memory.embedding.weight"] = (self.memory.vocab_size, d)
            for i in range(self.memory.num_layers):
                layer(f"memory.layers.{i}", 2 * self.num_buckets)
            norm("memory.norm")
            shapes["memory.place.weight"] = (heads, 2 * self.memory.reach + 1)
        return shapes

    def num_parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.tensor_shapes().values())


def _lanes(config: Mapping[str, Any], key: str, where: str) -> int:
    value = integer(config, key, 1, LIMITS[key], where)
    if value % LANES:
        raise WeightsError(f"{where}.{key}: expected a multiple of {LANES}, got {value}")
    return value


def _distances(config: Mapping[str, Any], where: str) -> tuple[int, ...]:
    distances = [
        integer({"distance": d}, "distance", 1, LIMITS["context"], f"{where}.distances")
        for d in entries(config, "distances", 0, LIMITS["context"], where, [])
    ]
    if distances != sorted(set(distances)):
        raise WeightsError(f"{where}.distances: expected ascending thresholds, got {distances}")
    return tuple(distances)


def _advances(config: Mapping[str, Any], vocab_size: int, where: str, least: int) -> tuple[int, ...]:
    advances = entries(config, "advances", least, vocab_size, where, [])
    if advances and len(advances) != vocab_size:
        raise WeightsError(f"{where}.advances: expected one for each of {vocab_size} tokens, got {len(advances)}")
    return tuple(integer({"advance": a}, "advance", 0, LIMITS["advance"], f"{where}.advances") for a in advances)


def _memory(entry: Any, where: str) -> MemoryConfig:
    only(entry, {"vocab_size", "num_layers", "context", "reach", "advances"}, where)
    vocab_size = integer(entry, "vocab_size", 1, LIMITS["vocab_size"], where)
    return MemoryConfig(
        vocab_size,
        integer(entry, "num_layers", 0, LIMITS["num_layers"], where),
        integer(entry, "context", 1, LIMITS["context"], where),
        integer(entry, "reach", 0, LIMITS["reach"], where),
        _advances(entry, vocab_size, where, least=1),
    )
