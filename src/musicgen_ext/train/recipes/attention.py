"""Transformers over tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from musicgen_ext import encodings
from musicgen_ext.architectures import AttentionConfig
from musicgen_ext.encodings import Performance, Told


def attention(
    *,
    encoding: Mapping[str, Any],
    width: int = 192,
    num_layers: int = 4,
    num_heads: int = 4,
    mlp_size: int | None = None,
    context: int = 512,
    exact_distances: int = 64,
    activation: str = "gelu",
    tied: bool = True,
    told_layers: int = 2,
    told_context: int = 512,
    reach: int = 64,
) -> AttentionConfig:
    """A transformer for the tokens of the data's encoding; where the data tell of something, with an encoder of it.

    Parameters
    ----------
    mlp_size : int, optional
        Default: four times the width.
    exact_distances : int
        Distances with a bias of their own; those above share it with others, in buckets that grow by an eighth.
    told_layers, told_context : int
        Layers of the encoder, and the most tokens it reads.
    reach : int
        Differences of places, in steps, up to which each has a bias of its own.
    """
    used = None if encoding.get("name") == "tokens" else encodings.load(encoding, tokens=True)
    memory = None
    if isinstance(used, Told):
        memory = {
            "vocab_size": used.told.vocab_size,
            "num_layers": told_layers,
            "context": told_context,
            "reach": reach,
            "advances": _advances(used.told),
        }
    return AttentionConfig.from_dict(
        {
            "vocab_size": int(encoding["vocab_size"]) if used is None else used.vocab_size,
            "width": width,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "mlp_size": 4 * width if mlp_size is None else mlp_size,
            "context": context,
            "distances": distances(exact_distances, context),
            "activation": activation,
            "tied": tied,
            "advances": _advances(used.music) if isinstance(used, Told) else [],
            "memory": memory,
        }
    )


def distances(exact: int, context: int) -> list[int]:
    """Thresholds of buckets: every distance up to `exact`, then each an eighth further than the one before."""
    out = list(range(1, min(exact, context)))
    at = exact
    while at < context:
        out.append(at)
        at += max(1, at // 8)
    return out


def _advances(encoding: Performance) -> list[int]:
    """How far each token moves the time, in steps."""
    words = [encoding.describe(token).split() for token in range(encoding.vocab_size)]
    return [int(word[1]) if word[0] == "time_shift" else 0 for word in words]
