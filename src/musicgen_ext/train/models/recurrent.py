"""The recurrent architecture in torch: for training, and as a second opinion on the native engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from musicgen_ext.architectures import PITCH_CLASSES, TOKEN_KINDS, FramesConfig, Head, RecurrentConfig, Slot

_CELLS: dict[str, Any] = {
    "lstm": torch._VF.lstm,
    "gru": torch._VF.gru,
    "rnn_tanh": torch._VF.rnn_tanh,
    "rnn_relu": torch._VF.rnn_relu,
}


@dataclass(frozen=True)
class Dropout:
    """Probabilities in [0, 1) of dropping, in training only.

    ``input``, ``layer``, ``head``: units of the trunk's input, of every layer's output and of the heads' hidden layer,
    one mask for all frames of a sequence (Gal & Ghahramani, 2016). ``weight``: entries of the recurrent matrices, one
    mask a batch (DropConnect; Merity et al., 2018). ``feature``: a whole group of features of a sequence is replaced by
    their start id: one group for the tokens at each lag above 1, one for all that comes from the match. ``token``: what
    the trunk hears of single frames is replaced by start ids, all of its features of tokens at once (word dropout;
    Bowman et al., 2016).
    """

    input: float = 0.0
    layer: float = 0.0
    head: float = 0.0
    weight: float = 0.0
    feature: float = 0.0
    token: float = 0.0

    def __post_init__(self) -> None:
        for name, p in self.__dict__.items():
            if not 0.0 <= p < 1.0:
                raise ValueError(f"dropout.{name}: expected a probability in [0, 1), got {p!r}")


class Recurrent(nn.Module):
    """A recurrent trunk over frames with one head per slot; see `musicgen_ext.architectures.RecurrentConfig`.

    ``state_dict()`` has exactly the names and shapes of ``config.tensor_shapes()``.

    Raises
    ------
    ValueError
        torch cannot give a module the name of a feature or slot (it has a dot, or torch uses it itself).
    """

    def __init__(self, config: RecurrentConfig, dropout: Dropout | None = None) -> None:
        super().__init__()
        for name in [s.name for s in config.slots] + [f.name for f in config.features]:
            if "." in name or hasattr(nn.ModuleDict, name):
                raise ValueError(f"config: torch cannot have a module named {name!r}; rename that feature or slot")
        self.config = config
        self.dropout = dropout or Dropout()
        tied = {slot.head.tied for slot in config.slots}
        self.trunk = nn.ModuleDict(
            {
                name: Table(config.feature_size(name), dim, dim**-0.5 if name in tied else 0.3)
                for name, dim in config.trunk
            }
        )
        if config.vector_dim:
            self.vector = nn.Linear(config.vector_size, config.vector_dim, bias=False)
        if config.vector_initial:
            self.initial = nn.Linear(config.vector_size, config.num_states * config.hidden_size)
        self.rnn = Cells(config)
        self.head = nn.ModuleDict({slot.name: _Head(config, slot) for slot in config.slots})
        self._groups = _feature_groups(config)

    def forward(self, features: Mapping[str, Tensor], vector: Tensor | None = None) -> list[Tensor]:
        """Teacher-forced logits.

        Parameters
        ----------
        features : mapping of str to int Tensor [shape=(n_frames, B)]
            Every feature of the config, as `musicgen_ext.train.features.recurrent_features` computes them.
        vector : float Tensor [shape=(B, vector_size)], optional
            The condition vector, when the config has one.

        Returns
        -------
        logits : list of float Tensor [shape=(n_frames, B, slot.size)], one for every slot
        """
        if self.training and self.dropout.feature:
            features = self._drop_features(features)
        if self.training and self.dropout.token:
            features = self._drop_tokens(features)
        config = self.config
        parts = [self.trunk[name](features[name]) for name, _ in config.trunk]
        if config.vector_size and vector is None:
            raise ValueError(f"vector: expected shape (B, {config.vector_size}), got None")
        if config.vector_dim:
            first = parts[0] if parts else next(iter(features.values())).unsqueeze(-1)
            parts.append(self.vector(vector).unsqueeze(0).expand(first.shape[0], -1, -1))
        states: list[Tensor | None] = [None] * config.num_states
        if config.vector_initial:
            states = list(torch.tanh(self.initial(vector)).unsqueeze(0).chunk(config.num_states, -1))
        x = torch.cat(parts, -1) if config.combine == "concat" else torch.stack(parts).sum(0)
        x = self._drop_units(x, self.dropout.input)
        for k in range(config.num_layers):
            x = self.rnn(x, k, self.dropout.weight if self.training else 0.0, states[k :: config.num_layers])
            x = self._drop_units(x, self.dropout.layer)
        return [self._logits(slot, self.head[slot.name], x, features) for slot in config.slots]

    def _logits(self, slot: Slot, module: nn.Module, x: Tensor, features: Mapping[str, Tensor]) -> Tensor:
        assert isinstance(module, _Head)
        head = slot.head
        if head.hidden_size:
            u = module.hidden(x)
            if head.inputs:
                u = u + module.look_up(features)
            x = self._drop_units(torch.tanh(u), self.dropout.head)
        z: Tensor = F.linear(x, self.get_parameter(slot.output_weight)[: slot.output_rows], module.output.bias)
        logits: Tensor = z[..., : slot.size]
        at = slot.size
        ids = torch.arange(slot.size, device=z.device)
        for r in head.relative:
            width = 2 * r.radius + 1
            reference = features[r.feature].long().unsqueeze(-1)
            first = slot.first_pitch or 0
            column = ids - reference + r.radius
            valid = (ids >= first) & (reference >= first) & (reference < slot.size) & (column >= 0) & (column < width)
            block = F.pad(z[..., at : at + width], (0, 1))  # a zero for everything out of reach
            logits = logits + block.gather(-1, torch.where(valid, column, width))
            at += width
        for name in head.copy:
            logits = logits + z[..., at : at + 1] * (ids == features[name].unsqueeze(-1))
            at += 1
        for p in head.periodic:
            reference = features[p.feature].long().unsqueeze(-1)
            first = slot.first_pitch or 0
            source = self.config.feature(p.feature)
            if source.kind == "given":
                known = reference < PITCH_CLASSES
            else:
                other = self.config.slots[source.slot]
                lowest = other.first_pitch or 0
                known = (reference >= lowest) & (reference < other.size)
                reference = reference - lowest
            column = (ids - first + p.offset - reference) % PITCH_CLASSES
            valid = (ids >= first) & known
            block = F.pad(z[..., at : at + PITCH_CLASSES], (0, 1))
            logits = logits + block.gather(-1, torch.where(valid, column, PITCH_CLASSES))
            at += PITCH_CLASSES
        return logits

    def _drop_units(self, x: Tensor, p: float) -> Tensor:
        return same_units_dropped(x, p if self.training else 0.0)

    def _drop_tokens(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        shape = next(iter(features.values())).shape
        off = torch.rand(shape) < self.dropout.token
        out = dict(features)
        for name, _ in self.config.trunk:
            f = self.config.feature(name)
            if f.kind not in ("given", "clock"):
                start = self.config.feature_size(name) - 1 if f.kind in (*TOKEN_KINDS, "parallel") else 0
                out[name] = features[name].masked_fill(off.to(features[name].device), start)
        return out

    def _drop_features(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        out = dict(features)
        for group in self._groups:
            batch = features[group[0][0]].shape[1]
            off = torch.rand(1, batch, device=features[group[0][0]].device) < self.dropout.feature
            for name, start in group:
                out[name] = features[name].masked_fill(off, start)
        return out


def same_units_dropped(x: Tensor, p: float) -> Tensor:
    """Dropout with one mask for all frames (Gal & Ghahramani, 2016) of `x` (n_frames, B, units)."""
    if not p:
        return x
    mask = torch.empty(1, x.shape[1], x.shape[2], dtype=x.dtype, device=x.device).bernoulli_(1 - p).div_(1 - p)
    return x * mask


class Table(nn.Module):
    """An embedding: `weight` [size, dim]."""

    def __init__(self, size: int, dim: int, spread: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size, dim).normal_(0.0, spread))

    def forward(self, ids: Tensor) -> Tensor:
        rows: Tensor = F.embedding(ids, self.weight)
        return rows


class Cells(nn.Module):
    """The parameters of `nn.LSTM`, `nn.GRU` or `nn.RNN`, run layer by layer so that dropout can go in between."""

    def __init__(self, config: RecurrentConfig | FramesConfig) -> None:
        super().__init__()
        self.cell = config.cell
        self.hidden_size = config.hidden_size
        bound = config.hidden_size**-0.5  # torch's own initialisation
        for name, shape in config.tensor_shapes().items():
            if name.startswith("rnn."):
                weight = torch.empty(shape).uniform_(-bound, bound)
                self.register_parameter(name.removeprefix("rnn."), nn.Parameter(weight))

    def forward(self, x: Tensor, layer: int, weight_dropout: float, states: Sequence[Tensor | None] = ()) -> Tensor:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weights = [self.get_parameter(f"{name}_l{layer}") for name in names]
        if weight_dropout:
            dropped: list[Tensor] = [*weights]
            dropped[1] = F.dropout(weights[1], weight_dropout)
        else:
            dropped = [*weights]
        zero = x.new_zeros(1, x.shape[1], self.hidden_size)
        start = [zero if s is None else s.to(x.dtype).contiguous() for s in states] or [zero, zero]
        state = (start[0], start[1]) if self.cell == "lstm" else start[0]
        # (input, state, weights, has_biases, num_layers, dropout, train, bidirectional, batch_first)
        y: Tensor = _CELLS[self.cell](x, state, dropped, True, 1, 0.0, self.training, False, False)[0]
        return y


class _Head(nn.Module):
    def __init__(self, config: RecurrentConfig, slot: Slot) -> None:
        super().__init__()
        head: Head = slot.head
        width = head.hidden_size or config.hidden_size
        if head.hidden_size:
            self.hidden = nn.Linear(config.hidden_size, head.hidden_size)
            if head.inputs:
                self.input = nn.ModuleDict(
                    {name: Table(config.feature_size(name), head.hidden_size, 0.1) for name in head.inputs}
                )
        self.output = nn.Linear(width, slot.output_rows)
        if head.tied is not None:
            del self.output.weight  # the trunk has it

    def look_up(self, features: Mapping[str, Tensor]) -> Tensor:
        """Sum of the inputs' embeddings, as one bag over one table: four times faster than a sum of look-ups."""
        tables: list[Tensor] = []
        ids: list[Tensor] = []
        offset = 0
        for name, table in self.input.items():
            assert isinstance(table, Table)
            tables.append(table.weight)
            ids.append(features[name].reshape(-1) + offset)
            offset += table.weight.shape[0]
        shape = features[next(iter(self.input))].shape
        return F.embedding_bag(torch.stack(ids, 1), torch.cat(tables), mode="sum").view(*shape, -1)


def _feature_groups(config: RecurrentConfig) -> list[list[tuple[str, int]]]:
    """Features that `Dropout.feature` drops together, each with its start id."""
    groups: dict[str, list[tuple[str, int]]] = {}

    def source(name: str) -> str | None:
        f = config.feature(name)
        if f.kind in ("token", "sounding") and f.lag > 1:
            return f"lag {f.lag}"
        if f.kind in ("match", "match_length"):
            return "match"
        if f.kind in ("difference", "degree"):
            return next((s for s in map(source, f.features) if s), None)
        return None

    for f in config.features:
        group = source(f.name)
        if group:
            start = config.slots[f.slot].size if f.kind in ("token", "sounding", "match") else 0
            groups.setdefault(group, []).append((f.name, start))
    return list(groups.values())
