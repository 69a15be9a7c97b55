"""Recurrent networks over piano-roll frames: which of the keys sound at the next step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

from musicgen_ext.architectures.readers import choice, entries, integer, only
from musicgen_ext.architectures.recurrent import CELLS, GATES
from musicgen_ext.errors import WeightsError

HEADS = ("independent", "notes")
MOST_BELOW = 8  # counts of notes below a key stop here
MOST_APART = 4  # and their differences there, both ways

# Far above any published model of frames, far below what would exhaust a machine.
LIMITS = {
    "keys": 128,
    "lags": 64,
    "lag": 4_096,
    "match_window": 65_536,
    "match_buckets": 4_096,
    "clocks": 64,
    "period": 1 << 16,
    "hidden_size": 16_384,
    "num_layers": 64,
    "filters": 4_096,
    "reach": 127,
}


@dataclass(frozen=True)
class FramesConfig:
    """A recurrent trunk over frames, and one small network that asks of every key in turn whether it sounds.

    A frame is the set of the keys 0 to ``keys - 1`` that sound at one step. Before frame t the network sees *channels*:
    the frames t - lag for every lag of `lags` (empty before the first), and, with a `match_window`, the frame that
    followed the longest earlier occurrence of the recent past. A trunk of `num_layers` layers reads the channels of
    `trunk_lags` and the match (input column ``key * n + channel``), then one-hot numbers: how long the match is (in
    buckets: the number of `match_buckets` not above it) and t modulo each of `clocks`. From its state h, for key k,

        f(k) = relu(position[k] + condition h + Σ local[channel, j - k] over sounding keys j at most `reach` away
                    + ranks of key k  (+ Σ written[k - j] over keys j of the new frame, at most `reach` below k))
        logit(k) = output · f(k) + key[k] · h + bias[k]

    The ranks of a key are embeddings of how many notes lie below it: in the last frame, in the match (both at most
    `MOST_BELOW`) and, for head ``"notes"``, in the new frame, and by how many the new frame differs from those two (at
    most `MOST_APART` either way).

    ``"independent"``: every key sounds with probability sigmoid(logit), whatever the others do. ``"notes"``: the
    logits depend on the keys below, and the notes of a frame are written one by one, ascending, then a stop: the next
    note is k with probability σ(logit(k)) Π (1 - σ(logit(j))) over the keys j between the last note and k, and it is
    the stop with what remains. So a frame has probability Π σ(logit)^[sounds] (1 - σ(logit))^[silent], given what is
    below each key: a distribution over all ``2^keys`` frames.

    Source: N. Boulanger-Lewandowski et al., "Modeling temporal dependencies in high-dimensional sequences", ICML 2012
    (frames, RNN-NADE); D. Johnson, "Generating polyphonic music using tied parallel networks", 2017 (one network for
    all keys).
    """

    keys: int = 88
    head: Literal["independent", "notes"] = "notes"
    lags: tuple[int, ...] = (1, 2, 3, 4, 8, 16)
    trunk_lags: tuple[int, ...] = (1, 2, 4, 8, 16)
    match_window: int = 4096
    match_buckets: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
    clocks: tuple[int, ...] = (4, 8, 16)
    cell: str = "lstm"
    hidden_size: int = 256
    num_layers: int = 1
    filters: int = 64
    reach: int = 20

    arch: ClassVar[str] = "frames"

    # -- the JSON form -------------------------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> FramesConfig:
        """Build from the JSON form; a mistake is a `WeightsError` that names key, range and value."""
        where = "config"
        only(config, set(cls.__dataclass_fields__), where)

        def numbers(key: str, least: int, most: int, low: int, high: int) -> tuple[int, ...]:
            found = entries(config, key, least, most, where, list(getattr(cls, key)))
            return tuple(integer({key: n}, key, low, high, f"{where}.{key}[{i}]") for i, n in enumerate(found))

        def number(key: str, low: int) -> int:
            return integer(config, key, low, LIMITS[key], where, getattr(cls, key))

        built = cls(
            number("keys", 1),
            cast("Literal['independent', 'notes']", choice(config, "head", HEADS, where, cls.head)),
            numbers("lags", 1, LIMITS["lags"], 1, LIMITS["lag"]),
            numbers("trunk_lags", 0, LIMITS["lags"], 1, LIMITS["lag"]),
            number("match_window", 0),
            numbers("match_buckets", 0, LIMITS["match_buckets"], 1, 1 << 30),
            numbers("clocks", 0, LIMITS["clocks"], 1, LIMITS["period"]),
            choice(config, "cell", CELLS, where, cls.cell),
            number("hidden_size", 1),
            number("num_layers", 1),
            number("filters", 1),
            number("reach", 1),
        )
        for key in ("lags", "match_buckets"):
            values = getattr(built, key)
            if list(values) != sorted(set(values)):
                raise WeightsError(f"{where}.{key}: expected numbers that grow, got {list(values)}")
        if built.lags[0] != 1:
            raise WeightsError(f"{where}.lags: expected the last frame, lag 1, first, got {list(built.lags)}")
        if not set(built.trunk_lags) <= set(built.lags) or len(set(built.trunk_lags)) != len(built.trunk_lags):
            raise WeightsError(
                f"{where}.trunk_lags: expected distinct lags out of {list(built.lags)}, got {list(built.trunk_lags)}"
            )
        if not built.trunk_inputs:
            raise WeightsError(f"{where}: expected something for the trunk to read: trunk_lags, clocks or a match")
        return built

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: `from_dict(config.to_dict()) == config`."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    # -- what follows from it ------------------------------------------------------------------------------------

    @property
    def gates(self) -> int:
        """Rows of the recurrent matrices per hidden unit."""
        return GATES[self.cell]

    @property
    def has_match(self) -> bool:
        return self.match_window > 0

    @property
    def channels(self) -> int:
        """Pictures of the past: a frame for every lag, and the match."""
        return len(self.lags) + self.has_match

    @property
    def trunk_channels(self) -> tuple[int, ...]:
        """Which of them the trunk reads."""
        match = (len(self.lags),) if self.has_match else ()
        return (*(self.lags.index(lag) for lag in self.trunk_lags), *match)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Sizes of the trunk's one-hot inputs: the match's length, the clocks."""
        return (*((len(self.match_buckets) + 1,) if self.has_match else ()), *self.clocks)

    @property
    def trunk_inputs(self) -> int:
        """Columns of the first layer's input matrix."""
        return self.keys * len(self.trunk_channels) + sum(self.numbers)

    @property
    def rank_kinds(self) -> tuple[str, ...]:
        """What counts notes below a key, in the order of the rows of ``ranks.weight``."""
        past = ("last", "match") if self.has_match else ("last",)
        if self.head == "independent":
            return past
        return (*past, "written", *(f"written - {name}" for name in past))

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the model and its shape: torch's LSTM (or GRU, RNN), Linear, Conv1d and Embedding.

        Tap o of ``local.weight`` (filters, channels, 2 reach + 1) looks at key ``k + o - reach``, tap o of
        ``written.weight`` (filters, reach) at key ``k + o - reach`` of the new frame.
        """
        h, f = self.hidden_size, self.filters
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.num_layers):
            shapes[f"rnn.weight_ih_l{layer}"] = (self.gates * h, h if layer else self.trunk_inputs)
            shapes[f"rnn.weight_hh_l{layer}"] = (self.gates * h, h)
            shapes[f"rnn.bias_ih_l{layer}"] = (self.gates * h,)
            shapes[f"rnn.bias_hh_l{layer}"] = (self.gates * h,)
        shapes["key.weight"] = (self.keys, h)
        shapes["key.bias"] = (self.keys,)
        shapes["condition.weight"] = (f, h)
        shapes["position.weight"] = (self.keys, f)
        shapes["local.weight"] = (f, self.channels, 2 * self.reach + 1)
        if self.head == "notes":
            shapes["written.weight"] = (f, self.reach)
        shapes["ranks.weight"] = (len(self.rank_kinds) * (MOST_BELOW + 1), f)
        shapes["output.weight"] = (1, f)
        return shapes

    def num_parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.tensor_shapes().values())


assert MOST_BELOW + 1 == 2 * MOST_APART + 1  # every kind of rank has as many rows
