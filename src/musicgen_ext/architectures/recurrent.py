"""Recurrent networks over frames of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, cast

from musicgen_ext.architectures.readers import boolean, choice, entries, integer, only, string, unique
from musicgen_ext.errors import WeightsError

CELLS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}

# Far above any small music model, far below what would exhaust a machine: a config beyond these is a broken file.
LIMITS = {
    "hidden_size": 16_384,
    "num_layers": 64,
    "size": 1 << 20,
    "dim": 16_384,
    "slots": 64,
    "features": 512,
    "lag": 4_096,
    "match_window": 65_536,
    "radius": 4_096,
    "period": 1 << 20,
    "buckets": 4_096,
}

FEATURE_FIELDS: dict[str, tuple[str, ...]] = {
    "token": ("slot", "lag"),
    "sounding": ("slot", "lag"),
    "held": ("slot", "buckets"),
    "clock": ("period", "divide"),
    "match": ("slot",),
    "match_length": ("buckets",),
    "interval": ("slots", "limit"),
    "given": ("size",),
    "chosen": ("slot",),
    "chosen_sounding": ("slot",),
    "difference": ("features", "limit"),
    "degree": ("features", "offset"),
    "parallel": ("features",),
}
TOKEN_KINDS = ("token", "sounding", "match", "chosen", "chosen_sounding")  # ids of a slot, its size meaning "none"
COMBINED_KINDS: dict[str, tuple[tuple[str, ...], ...]] = {  # made of other features, of these kinds
    "difference": (TOKEN_KINDS, TOKEN_KINDS),
    "degree": (TOKEN_KINDS, ("given",)),
    "parallel": (TOKEN_KINDS, TOKEN_KINDS, TOKEN_KINDS),
}


@dataclass(frozen=True)
class Feature:
    """One integer that describes the past (or is given by the caller) at every frame; see `RecurrentConfig`."""

    name: str
    kind: str
    slot: int = 0
    lag: int = 1
    buckets: tuple[int, ...] = ()
    period: int = 0
    divide: int = 1
    slots: tuple[int, int] = (0, 0)
    limit: int = 0
    size: int = 0
    features: tuple[str, ...] = ()
    offset: int = 0

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        out: dict[str, Any] = {"name": self.name, "kind": self.kind}
        for key in FEATURE_FIELDS[self.kind]:
            out[key] = list(values[key]) if isinstance(values[key], tuple) else values[key]
        return out


@dataclass(frozen=True)
class Relative:
    """Output rows for token ids near a reference id: ``logits[i] += rows[i - ref + radius]``."""

    feature: str
    radius: int


@dataclass(frozen=True)
class Periodic:
    """Output rows for pitch classes counted from a reference.

    ``logits[i] += rows[(i - first_pitch + offset - ref) % 12]``. The reference is a given pitch class (nothing is added
    where it is 12 or more: unknown), or a slot's token less that slot's `first_pitch` (nothing where it is no pitch):
    then the rows are for intervals, octaves apart. `offset` is the pitch class of the slot's `first_pitch`, counted
    from that of the reference's slot if it is a token.
    """

    feature: str
    offset: int


PITCH_CLASSES = 12


@dataclass(frozen=True)
class Head:
    """From the trunk's state (and embeddings of `inputs`) to the logits of one slot; `hidden_size` 0 means linear.

    With `tied` the output matrix is the trunk's embedding of that feature, without its row for the start (O. Press,
    L. Wolf, Using the output embedding to improve language models, 2017).
    """

    hidden_size: int = 0
    inputs: tuple[str, ...] = ()
    relative: tuple[Relative, ...] = ()
    copy: tuple[str, ...] = ()
    periodic: tuple[Periodic, ...] = ()
    tied: str | None = None


@dataclass(frozen=True)
class Slot:
    """One token of a frame: its vocabulary, where pitches begin in it, and which id means "still sounding"."""

    name: str
    size: int
    first_pitch: int | None = None
    hold: int | None = None
    head: Head = field(default_factory=Head)

    @property
    def output_rows(self) -> int:
        """Rows of the output matrix: logits, then the relative blocks, a row for every copy, the periodic blocks."""
        head = self.head
        relative = sum(2 * r.radius + 1 for r in head.relative)
        return self.size + relative + len(head.copy) + PITCH_CLASSES * len(head.periodic)

    @property
    def output_weight(self) -> str:
        """Name of the tensor whose first `output_rows` rows are the output matrix."""
        return f"head.{self.name}.output.weight" if self.head.tied is None else f"trunk.{self.head.tied}.weight"


@dataclass(frozen=True)
class RecurrentConfig:
    """A recurrent trunk over frames of tokens, with one head for every slot of a frame.

    A sequence is a grid of tokens, shape (n_frames, F). The trunk (`cell`, torch's gate order and biases) steps once a
    frame on the embeddings of its `features`; then the slots are drawn in order, each by its own head, which may look
    at the slots already drawn. An ordinary language model has one slot and one feature, the previous token.

    Feature kinds (value at frame t, from frames before t; the *start* id, the slot's size, where there is none):

    ================= ======================================================================== ==============
    kind              value                                                                    number of ids
    ================= ======================================================================== ==============
    token             token of `slot` at frame t - `lag`                                       size + 1
    sounding          last token of `slot` other than its hold, at or before frame t - `lag`   size + 1
    held              frames since the slot's last onset, as the number of `buckets` reached   len(buckets)+1
    clock             (t // divide) mod period                                                 period
    match             token of `slot` after the longest earlier match of the last frames       size + 1
    match_length      length of that match, as the number of `buckets` reached                 len(buckets)+1
    interval          1 + limit + clip(a - b) of two slots sounding at t - 1; 0: undefined     2*limit + 2
    given             supplied by the caller under the feature's name                          size
    chosen            token already drawn in this frame for an earlier slot (heads only)       size + 1
    chosen_sounding   what that slot sounds, this frame's token included (heads only)          size + 1
    difference        1 + limit + clip(a - b) of two `features` of one of the kinds token,     2*limit + 2
                      sounding, match, chosen, chosen_sounding; 0 where either is below its
                      slot's first_pitch or is the start id
    degree            1 + the pitch class of the first of two `features` (a token's), counted  13
                      from the second (given: a pitch class, 12 or more: unknown); `offset`
                      is the pitch class of the slot's first_pitch; 0 where either is missing
    parallel          a + b - c of three `features` that are tokens: where voice a comes to if   size + 1
                      it moves as another does from c to b; start where that is no pitch
    ================= ======================================================================== ==============
    """

    cell: str
    hidden_size: int
    num_layers: int
    slots: tuple[Slot, ...]
    features: tuple[Feature, ...]
    trunk: tuple[tuple[str, int], ...]
    combine: Literal["concat", "sum"] = "concat"
    vector_size: int = 0
    vector_dim: int = 0
    match_window: int = 1024
    vector_initial: bool = False

    arch: ClassVar[str] = "recurrent"

    # -- the JSON form -------------------------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> RecurrentConfig:
        """Build from the JSON form; a mistake is a `WeightsError` that names key, range and value."""
        known = {
            "cell", "hidden_size", "num_layers", "combine", "features", "trunk", "vector", "match_window", "slots",
        }  # fmt: skip
        only(config, known, "config")
        cell = choice(config, "cell", CELLS, "config")
        hidden_size = integer(config, "hidden_size", 1, LIMITS["hidden_size"], "config")
        num_layers = integer(config, "num_layers", 1, LIMITS["num_layers"], "config")
        combine = choice(config, "combine", ("concat", "sum"), "config", "concat")
        window = integer(config, "match_window", 1, LIMITS["match_window"], "config", 1024)
        slots = tuple(
            _slot(s, f"config.slots[{i}]") for i, s in enumerate(entries(config, "slots", 1, LIMITS["slots"], "config"))
        )
        features = tuple(
            _feature(f, f"config.features[{i}]", slots)
            for i, f in enumerate(entries(config, "features", 0, LIMITS["features"], "config"))
        )
        trunk = []
        for i, entry in enumerate(entries(config, "trunk", 0, LIMITS["features"], "config")):
            where = f"config.trunk[{i}]"
            only(entry, {"feature", "dim"}, where)
            trunk.append((string(entry, "feature", where), integer(entry, "dim", 1, LIMITS["dim"], where)))
        vector_size, vector_dim, vector_initial = 0, 0, False
        if config.get("vector") is not None:
            vector = config["vector"]
            only(vector, {"size", "dim", "initial"}, "config.vector")
            vector_initial = boolean(vector, "initial", "config.vector", False)
            vector_size = integer(vector, "size", 1, LIMITS["dim"], "config.vector")
            vector_dim = integer(vector, "dim", 0 if vector_initial else 1, LIMITS["dim"], "config.vector")
        built = cls(
            cell, hidden_size, num_layers, slots, features, tuple(trunk), cast("Any", combine), vector_size, vector_dim,
            window, vector_initial,
        )  # fmt: skip
        built._check()
        return built

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: `from_dict(config.to_dict()) == config`."""
        return {
            "cell": self.cell,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "combine": self.combine,
            "features": [f.to_dict() for f in self.features],
            "trunk": [{"feature": name, "dim": dim} for name, dim in self.trunk],
            "vector": {"size": self.vector_size, "dim": self.vector_dim, "initial": self.vector_initial}
            if self.vector_size
            else None,
            "match_window": self.match_window,
            "slots": [
                {
                    "name": s.name,
                    "size": s.size,
                    "first_pitch": s.first_pitch,
                    "hold": s.hold,
                    "head": {
                        "hidden_size": s.head.hidden_size,
                        "inputs": list(s.head.inputs),
                        "relative": [{"feature": r.feature, "radius": r.radius} for r in s.head.relative],
                        "copy": list(s.head.copy),
                        "periodic": [{"feature": r.feature, "offset": r.offset} for r in s.head.periodic],
                        **({} if s.head.tied is None else {"tied": s.head.tied}),
                    },
                }
                for s in self.slots
            ],
        }

    @classmethod
    def language_model(
        cls, cell: str, *, vocab_size: int, embedding_size: int, hidden_size: int, num_layers: int, tied: bool = False
    ) -> RecurrentConfig:
        """The plain case: one token a frame, the previous token as input, a linear head.

        `tied`: the output matrix is the embedding; where the sizes differ, behind a layer of `embedding_size` units.
        """
        head: dict[str, Any] = {}
        if tied:
            head = {"tied": "token", "hidden_size": 0 if embedding_size == hidden_size else embedding_size}
        return cls.from_dict(
            {
                "cell": cell,
                "hidden_size": hidden_size,
                "num_layers": num_layers,
                "features": [{"name": "token", "kind": "token", "slot": 0, "lag": 1}],
                "trunk": [{"feature": "token", "dim": embedding_size}],
                "slots": [{"name": "token", "size": vocab_size, "head": head}],
            }
        )

    # -- what follows from it ------------------------------------------------------------------------------------

    @property
    def gates(self) -> int:
        return GATES[self.cell]

    @property
    def num_states(self) -> int:
        """State vectors that pass from frame to frame: of every layer h, and then of every layer of an LSTM c."""
        return self.num_layers * (2 if self.cell == "lstm" else 1)

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the features that the caller supplies, in order."""
        return tuple(f.name for f in self.features if f.kind == "given")

    @property
    def input_size(self) -> int:
        """Width of the trunk's input."""
        dims = [dim for _, dim in self.trunk] + ([self.vector_dim] if self.vector_dim else [])
        return sum(dims) if self.combine == "concat" else dims[0]

    def feature(self, name: str) -> Feature:
        for f in self.features:
            if f.name == name:
                return f
        raise KeyError(name)

    def feature_size(self, name: str) -> int:
        """Number of ids the feature can take: the rows of its embedding table."""
        f = self.feature(name)
        if f.kind in TOKEN_KINDS:
            return self.slots[f.slot].size + 1
        if f.kind == "parallel":
            return self.slots[self.feature(f.features[0]).slot].size + 1
        if f.kind in ("held", "match_length"):
            return len(f.buckets) + 1
        if f.kind == "clock":
            return f.period
        if f.kind in ("interval", "difference"):
            return 2 * f.limit + 2
        if f.kind == "degree":
            return PITCH_CLASSES + 1
        return f.size

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the model and its shape (torch's names and layouts for the cells)."""
        gate_rows, h = self.gates * self.hidden_size, self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for name, dim in self.trunk:
            shapes[f"trunk.{name}.weight"] = (self.feature_size(name), dim)
        if self.vector_dim:
            shapes["vector.weight"] = (self.vector_dim, self.vector_size)
        if self.vector_initial:
            shapes["initial.weight"] = (self.num_states * h, self.vector_size)
            shapes["initial.bias"] = (self.num_states * h,)
        for k in range(self.num_layers):
            shapes[f"rnn.weight_ih_l{k}"] = (gate_rows, self.input_size if k == 0 else h)
            shapes[f"rnn.weight_hh_l{k}"] = (gate_rows, h)
            shapes[f"rnn.bias_ih_l{k}"] = (gate_rows,)
            shapes[f"rnn.bias_hh_l{k}"] = (gate_rows,)
        for slot in self.slots:
            head, width = slot.head, slot.head.hidden_size or h
            if head.hidden_size:
                shapes[f"head.{slot.name}.hidden.weight"] = (width, h)
                shapes[f"head.{slot.name}.hidden.bias"] = (width,)
                for name in head.inputs:
                    shapes[f"head.{slot.name}.input.{name}.weight"] = (self.feature_size(name), width)
            if head.tied is None:
                shapes[slot.output_weight] = (slot.output_rows, width)
            shapes[f"head.{slot.name}.output.bias"] = (slot.output_rows,)
        return shapes

    def num_parameters(self) -> int:
        total = 0
        for shape in self.tensor_shapes().values():
            count = 1
            for n in shape:
                count *= n
            total += count
        return total

    def _chosen_slot(self, name: str) -> int | None:
        """The last slot of the present frame that the feature looks at; None if it looks at the past only."""
        f = self.feature(name)
        if f.kind in COMBINED_KINDS:
            return max((s for s in map(self._chosen_slot, f.features) if s is not None), default=None)
        return f.slot if f.kind.startswith("chosen") else None

    # -- checks that need the whole ------------------------------------------------------------------------------

    def _check(self) -> None:
        unique((s.name for s in self.slots), "config.slots")
        unique((f.name for f in self.features), "config.features")
        unique((name for name, _ in self.trunk), "config.trunk")
        names = {f.name: f for f in self.features}
        for i, f in enumerate(self.features):
            wanted = COMBINED_KINDS.get(f.kind, ())
            if len(f.features) != len(wanted):
                where = f"config.features[{i}].features"
                raise WeightsError(f"{where}: expected {len(wanted)} features, got {list(f.features)}")
            for name, kinds in zip(f.features, wanted, strict=True):
                if name not in names or names[name].kind not in kinds:
                    where = f"config.features[{i}].features"
                    raise WeightsError(f"{where}: expected a feature of the kinds {list(kinds)}, got {name!r}")
        if not self.trunk and not self.vector_dim:
            raise WeightsError("config.trunk: expected at least one feature (or a vector), got none")
        if self.vector_initial and self.cell == "rnn_relu":
            raise WeightsError("config.vector.initial: expected false for rnn_relu, whose states are never negative")
        for i, (name, _) in enumerate(self.trunk):
            where = f"config.trunk[{i}].feature"
            if name not in names:
                raise WeightsError(f"{where}: expected one of {sorted(names)}, got {name!r}")
            if self._chosen_slot(name) is not None:
                raise WeightsError(f"{where}: expected a feature of the past, got {names[name].kind!r} {name!r}")
        dims = [dim for _, dim in self.trunk] + ([self.vector_dim] if self.vector_dim else [])
        if self.combine == "sum" and len(set(dims)) != 1:
            raise WeightsError(f"config.trunk: expected equal dims where combine is 'sum', got {dims}")
        if self.input_size > LIMITS["dim"]:
            raise WeightsError(f"config.trunk: expected an input at most {LIMITS['dim']} wide, got {self.input_size}")
        for index, slot in enumerate(self.slots):
            where = f"config.slots[{index}].head"
            head = slot.head
            if not head.hidden_size and head.inputs:
                raise WeightsError(f"{where}.inputs: expected none where hidden_size is 0, got {list(head.inputs)}")
            unique(head.inputs, f"{where}.inputs")
            references = [*(r.feature for r in head.relative), *head.copy, *(r.feature for r in head.periodic)]
            for name in (*head.inputs, *references):
                if name not in names:
                    raise WeightsError(f"{where}: expected features out of {sorted(names)}, got {name!r}")
                chosen = self._chosen_slot(name)
                if chosen is not None and chosen >= index:
                    raise WeightsError(f"{where}: feature {name!r} looks at slot {chosen}, which is drawn later")
            for name in references:
                if names[name].kind not in (*TOKEN_KINDS, "given", "parallel"):
                    raise WeightsError(f"{where}: expected a feature that holds a token, got {name!r}")
            for name in (*(r.feature for r in head.relative), *(r.feature for r in head.periodic)):
                if names[name].kind == "parallel":
                    raise WeightsError(
                        f"{where}: expected 'parallel' features among copy and inputs only, got {name!r}"
                    )
            if head.tied is not None:
                self._check_tied(index, f"{where}.tied")
            if (head.relative or head.periodic) and slot.first_pitch is None:
                raise WeightsError(f"{where}: slot {slot.name!r} has relative outputs but no first_pitch")

    def _check_tied(self, index: int, where: str) -> None:
        slot, head = self.slots[index], self.slots[index].head
        name, width = head.tied, head.hidden_size or self.hidden_size
        of_slot = {f.name for f in self.features if f.kind in TOKEN_KINDS and f.slot == index}
        dims = {feature: dim for feature, dim in self.trunk if feature in of_slot}
        if name not in dims:
            raise WeightsError(f"{where}: expected a feature of the trunk with tokens of this slot, got {name!r}")
        if dims[name] != width:
            raise WeightsError(f"{where}: expected an embedding as wide as the head, {width}, got {dims[name]}")
        if slot.output_rows != slot.size:
            raise WeightsError(f"{where}: expected no relative, copy or periodic outputs beside it")


def _feature(entry: Any, where: str, slots: tuple[Slot, ...]) -> Feature:
    kind = choice(entry, "kind", tuple(FEATURE_FIELDS), where)
    fields = FEATURE_FIELDS[kind]
    only(entry, {"name", "kind", *fields}, where)
    values: dict[str, Any] = {"name": string(entry, "name", where), "kind": kind}
    if "slot" in fields:
        values["slot"] = integer(entry, "slot", 0, len(slots) - 1, where)
    if "lag" in fields:
        values["lag"] = integer(entry, "lag", 1, LIMITS["lag"], where, 1)
    if "buckets" in fields:
        buckets = [
            integer({"bucket": b}, "bucket", 0, 1 << 30, f"{where}.buckets")
            for b in entries(entry, "buckets", 1, LIMITS["buckets"], where)
        ]
        if buckets != sorted(set(buckets)):
            raise WeightsError(f"{where}.buckets: expected ascending thresholds, got {buckets}")
        values["buckets"] = tuple(buckets)
    if "period" in fields:
        values["period"] = integer(entry, "period", 1, LIMITS["period"], where)
        values["divide"] = integer(entry, "divide", 1, LIMITS["period"], where, 1)
    if "features" in fields:
        names = entries(entry, "features", 2, 3, where)
        values["features"] = tuple(string({"features": name}, "features", where) for name in names)
    if "slots" in fields:
        pair = [
            integer({"slot": s}, "slot", 0, len(slots) - 1, f"{where}.slots")
            for s in entries(entry, "slots", 2, 2, where)
        ]
        values["slots"] = (pair[0], pair[1])
    if "limit" in fields:
        values["limit"] = integer(entry, "limit", 1, LIMITS["radius"], where)
    if "offset" in fields:
        values["offset"] = integer(entry, "offset", 0, PITCH_CLASSES - 1, where, 0)
    if "size" in fields:
        values["size"] = integer(entry, "size", 1, LIMITS["size"], where)
    return Feature(**values)


def _slot(entry: Any, where: str) -> Slot:
    only(entry, {"name", "size", "first_pitch", "hold", "head"}, where)
    size = integer(entry, "size", 1, LIMITS["size"], where)
    head_entry = entry.get("head", {})
    inner = f"{where}.head"
    only(head_entry, {"hidden_size", "inputs", "relative", "copy", "periodic", "tied"}, inner)
    relative = []
    for i, r in enumerate(entries(head_entry, "relative", 0, 64, inner, [])):
        only(r, {"feature", "radius"}, f"{inner}.relative[{i}]")
        relative.append(
            Relative(
                string(r, "feature", f"{inner}.relative[{i}]"),
                integer(r, "radius", 0, LIMITS["radius"], f"{inner}.relative[{i}]"),
            )
        )
    periodic = []
    for i, r in enumerate(entries(head_entry, "periodic", 0, 64, inner, [])):
        place = f"{inner}.periodic[{i}]"
        only(r, {"feature", "offset"}, place)
        periodic.append(Periodic(string(r, "feature", place), integer(r, "offset", 0, PITCH_CLASSES - 1, place, 0)))
    head = Head(
        integer(head_entry, "hidden_size", 0, LIMITS["hidden_size"], inner, 0),
        tuple(_names(head_entry, "inputs", inner)),
        tuple(relative),
        tuple(_names(head_entry, "copy", inner)),
        tuple(periodic),
        None if head_entry.get("tied") is None else string(head_entry, "tied", inner),
    )
    return Slot(string(entry, "name", where), size, _token(entry, "first_pitch", size, where),
                _token(entry, "hold", size, where), head)  # fmt: skip


def _names(entry: Mapping[str, Any], key: str, where: str) -> list[str]:
    return [string({key: n}, key, where) for n in entries(entry, key, 0, LIMITS["features"], where, [])]


def _token(entry: Mapping[str, Any], key: str, size: int, where: str) -> int | None:
    return None if entry.get(key) is None else integer(entry, key, 0, size - 1, where)
