"""The transformer's sampling loop in plain numpy, float64, one token at a time. The native loop must agree with it."""

from __future__ import annotations

import numpy as np

from musicgen_ext.architectures import AttentionConfig
from musicgen_ext.weights import bfloat16_from_float32, float32_from_bfloat16
from musicgen_reference.generate import as_bytes, dequantized, draw


def as_halves(x):
    """What is left of keys and values in a cache of bfloat16."""
    return float32_from_bfloat16(bfloat16_from_float32(np.asarray(x, np.float32), "x")).astype(np.float64)


def gelu(x):
    """Its tanh form. Source: Hendrycks and Gimpel, Gaussian error linear units, 2016."""
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))


class Attention:
    """A transformer, as `musicgen_ext.architectures.AttentionConfig` describes it.

    `weights` "int8" stores every vector that meets a matrix in bytes, and "int8" and "bfloat16" keep keys and values in
    bfloat16, as the native engine does.
    """

    def __init__(self, config: AttentionConfig, tensors, weights="float32"):
        self.config = config
        self.tensors = dequantized(tensors)
        self.int8 = weights == "int8"
        self.kept = as_halves if weights != "float32" else np.asarray

    def linear(self, name, x):
        x = as_bytes(x, np.abs(x).max()) if self.int8 else x
        return self.tensors[f"{name}.weight"] @ x + self.tensors[f"{name}.bias"]

    def norm(self, name, x):
        centred = x - x.mean()
        return (
            centred / np.sqrt((centred**2).mean() + 1e-5) * self.tensors[f"{name}.weight"]
            + self.tensors[f"{name}.bias"]
        )

    def attend(self, query, keys, values, bias):
        """All heads of one query: `keys` and `values` (n, width), `bias` (heads, n)."""
        size = self.config.head_size
        out = np.zeros(self.config.width)
        for h in range(self.config.num_heads if len(keys) else 0):
            part = slice(h * size, (h + 1) * size)
            scores = np.array(keys)[:, part] @ query[part] / np.sqrt(size) + bias[h]
            weights = np.exp(scores - scores.max())
            out[part] = weights / weights.sum() @ np.array(values)[:, part]
        return out

    def bucket(self, distance):
        return sum(threshold <= distance for threshold in self.config.distances)

    def mlp(self, name, x):
        u = self.linear(f"{name}.mlp.up", self.norm(f"{name}.before_mlp", x))
        if self.config.activation == "gated":
            a, b = np.split(u, 2)
            u = gelu(a) * b
        else:
            u = np.maximum(u, 0.0) if self.config.activation == "relu" else gelu(u)
        return self.linear(f"{name}.mlp.down", u)

    # -- the encoder -------------------------------------------------------------------------------------------------

    def remember(self, memory):
        """Keys and values that every decoder's layer sees, and the places of the tokens."""
        config = self.config
        xs = [self.tensors["memory.embedding.weight"][token] for token in memory]
        for i in range(config.memory.num_layers):
            name = f"memory.layers.{i}"
            qkv = [np.split(self.linear(f"{name}.attention.qkv", self.norm(f"{name}.before_attention", x)), 3)
                   for x in xs]  # fmt: skip
            keys, values = ([self.kept(row[part]) for row in qkv] for part in (1, 2))
            table = self.tensors[f"{name}.attention.distance.weight"]
            after = []
            for at, x in enumerate(xs):
                columns = [
                    self.bucket(min(abs(at - key), config.context - 1)) + (config.num_buckets if key > at else 0)
                    for key in range(len(xs))
                ]
                found = self.attend(qkv[at][0], keys, values, table[:, columns])
                x = x + self.linear(f"{name}.attention.out", found)
                after.append(x + self.mlp(name, x))
            xs = after
        xs = [self.norm("memory.norm", x) for x in xs]
        seen = []
        for i in range(config.num_layers):
            both = [np.split(self.linear(f"layers.{i}.cross.keys_values", x), 2) for x in xs]
            seen.append(([self.kept(k) for k, _ in both], [self.kept(v) for _, v in both]))
        return seen, np.append(0, np.cumsum([config.memory.advances[t] for t in memory]))[: len(memory)]

    # -- the loop ----------------------------------------------------------------------------------------------------

    def run(self, n, coins, *, forced=None, memory=(), allowed=None, stop=None, **options):
        """Tokens [n] and logits [n, V]. `coins` [n]; `forced` [n], -1 is free."""
        config = self.config
        seen, places = self.remember(memory) if len(memory) else ([], [])
        cache = [([], []) for _ in range(config.num_layers)]
        tokens, all_logits, place = [], [], 0
        for t in range(n):
            x = self.tensors["embedding.weight"][tokens[-1] if tokens else config.vocab_size]
            if tokens and config.advances:
                place += config.advances[tokens[-1]]
            for i, (keys, values) in enumerate(cache):
                name = f"layers.{i}"
                q, k, v = np.split(self.linear(f"{name}.attention.qkv", self.norm(f"{name}.before_attention", x)), 3)
                keys.append(self.kept(k))
                values.append(self.kept(v))
                first = max(0, t + 1 - config.context)
                columns = [self.bucket(t - key) for key in range(first, t + 1)]
                bias = self.tensors[f"{name}.attention.distance.weight"][:, columns]
                x = x + self.linear(f"{name}.attention.out", self.attend(q, keys[first:], values[first:], bias))
                if config.memory is not None:
                    query = self.linear(f"{name}.cross.query", self.norm(f"{name}.before_cross", x))
                    found = np.zeros(config.width)
                    if len(memory):
                        away = np.clip(places - place, -config.memory.reach, config.memory.reach)
                        bias = self.tensors["memory.place.weight"][:, away + config.memory.reach]
                        found = self.attend(query, *seen[i], bias)
                    x = x + self.linear(f"{name}.cross.out", found)
                x = x + self.mlp(name, x)
            u = self.norm("norm", x)
            u = as_bytes(u, np.abs(u).max()) if self.int8 else u
            matrix = self.tensors["embedding.weight"][: config.vocab_size] if config.tied else None
            matrix = self.tensors["output.weight"] if matrix is None else matrix
            logits = matrix @ u + self.tensors["output.bias"]
            all_logits.append(logits)
            if forced is not None and forced[t] >= 0:
                tokens.append(int(forced[t]))
            else:
                if allowed is not None:
                    logits = np.where(allowed[min(t, len(allowed) - 1)], logits, -np.inf)
                tokens.append(draw(logits, coins[t], **options))
            if tokens[-1] == stop:
                break
        return np.array(tokens, np.int32), np.array(all_logits)
