"""Feed-forward networks: dense layers and convolutions one after the other, numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from musicgen_ext.architectures.readers import choice, entries, integer, only
from musicgen_ext.errors import WeightsError

LAYER_KINDS = ("dense", "reshape", "conv2d", "conv_transpose2d")
ACTIVATIONS = ("none", "relu", "leaky_relu", "tanh", "sigmoid")
NORMS = ("none", "batch")
LEAK = 0.2  # slope of "leaky_relu" below 0

# Far above what writes a bar of music, far below what would exhaust a machine.
LIMITS = {"layers": 64, "rank": 3, "size": 1 << 20, "kernel": 63, "stride": 16, "padding": 62, "weights": 1 << 28}


@dataclass(frozen=True)
class FeedForwardLayer:
    """One step of a feed-forward network.

    ``"dense"``: `units` sums over all numbers that come in, whatever their shape. ``"reshape"``: the same numbers in
    another `shape`. ``"conv2d"`` and ``"conv_transpose2d"``: torch's, over (channels, height, width), with `kernel`,
    `stride` and `padding` for height and width. Then the `activation`.

    ``norm = "batch"`` normalises the sums before the activation (Ioffe and Szegedy 2015), over all places of a channel.
    It is for training: exporting a network folds it into the weights.
    """

    kind: str
    units: int = 0
    shape: tuple[int, ...] = ()
    channels: int = 0
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    activation: str = "none"
    norm: str = "none"

    def to_dict(self) -> dict[str, Any]:
        if self.kind == "reshape":
            return {"kind": self.kind, "shape": list(self.shape)}
        out: dict[str, Any] = {"kind": self.kind}
        if self.kind == "dense":
            out["units"] = self.units
        else:
            out["channels"] = self.channels
            out |= {"kernel": list(self.kernel), "stride": list(self.stride), "padding": list(self.padding)}
        out["activation"] = self.activation
        return out if self.norm == "none" else {**out, "norm": self.norm}

    def output_shape(self, given: tuple[int, ...], where: str = "layer") -> tuple[int, ...]:
        """The shape that comes out for one that goes in; `WeightsError` where it cannot."""
        if self.kind == "dense":
            return (self.units,)
        if self.kind == "reshape":
            if math.prod(self.shape) != math.prod(given):
                raise WeightsError(
                    f"{where}.shape: expected {math.prod(given)} numbers as in {list(given)}, got {list(self.shape)}"
                )
            return self.shape
        if len(given) != 3:
            raise WeightsError(f"{where}: expected an input of (channels, height, width), got shape {list(given)}")
        sizes = []
        for size, kernel, stride, padding in zip(given[1:], self.kernel, self.stride, self.padding, strict=True):
            if self.kind == "conv2d":
                sizes.append((size + 2 * padding - kernel) // stride + 1 if size + 2 * padding >= kernel else 0)
            else:
                sizes.append((size - 1) * stride - 2 * padding + kernel)
        if min(sizes) < 1 or self.channels * math.prod(sizes) > LIMITS["size"]:
            raise WeightsError(
                f"{where}: expected an output of 1 to {LIMITS['size']} numbers for the input {list(given)}, "
                f"got shape {[self.channels, *sizes]}"
            )
        return (self.channels, *sizes)

    def weight_shape(self, given: tuple[int, ...]) -> tuple[int, ...] | None:
        """Shape of the weights, torch's: of Linear, Conv2d and ConvTranspose2d; None without."""
        if self.kind == "reshape":
            return None
        if self.kind == "dense":
            return (self.units, math.prod(given))
        rows = (self.channels, given[0]) if self.kind == "conv2d" else (given[0], self.channels)
        return (*rows, *self.kernel)

    @property
    def outputs(self) -> int:
        """Number of biases: units or channels."""
        return self.units if self.kind == "dense" else self.channels


@dataclass(frozen=True)
class FeedForwardConfig:
    """Dense layers and convolutions one after the other.

    Attributes
    ----------
    input : tuple of int
        Shape of what goes in, without the batch: one to three sizes.
    layers : tuple of FeedForwardLayer
    """

    input: tuple[int, ...]
    layers: tuple[FeedForwardLayer, ...]

    arch: ClassVar[str] = "feedforward"

    # -- the JSON form -------------------------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], where: str = "config") -> Self:
        """Build from the JSON form; a mistake is a `WeightsError` that names key, range and value."""
        only(config, {"input", "layers"}, where)
        listed = entries(config, "layers", 1, LIMITS["layers"], where)
        built = cls(
            _sizes(config, "input", where),
            tuple(_layer(entry, f"{where}.layers[{i}]") for i, entry in enumerate(listed)),
        )
        shape, weights = built.input, 0
        for i, layer in enumerate(built.layers):
            weights += math.prod(layer.weight_shape(shape) or (0,))
            shape = layer.output_shape(shape, f"{where}.layers[{i}]")
        if weights > LIMITS["weights"]:
            raise WeightsError(f"{where}.layers: expected at most {LIMITS['weights']} weights, got {weights}")
        return built

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: `from_dict(config.to_dict()) == config`."""
        return {"input": list(self.input), "layers": [layer.to_dict() for layer in self.layers]}

    # -- what follows from it ------------------------------------------------------------------------------------

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of the input and of what every layer makes."""
        shapes = [self.input]
        for layer in self.layers:
            shapes.append(layer.output_shape(shapes[-1]))
        return shapes

    @property
    def output(self) -> tuple[int, ...]:
        """Shape of what comes out, without the batch."""
        return self.shapes[-1]

    @property
    def folded(self) -> FeedForwardConfig:
        """The network as it is exported: without norms."""
        return replace(self, layers=tuple(replace(layer, norm="none") for layer in self.layers))

    def tensor_shapes(self, prefix: str = "") -> dict[str, tuple[int, ...]]:
        """Every tensor and its shape, named ``{prefix}layers.{i}.weight`` and ``.bias``."""
        shapes: dict[str, tuple[int, ...]] = {}
        for i, (layer, given) in enumerate(zip(self.layers, self.shapes, strict=False)):
            weight = layer.weight_shape(given)
            if weight is None:
                continue
            name = f"{prefix}layers.{i}."
            shapes[name + "weight"] = weight
            shapes[name + "bias"] = (layer.outputs,)
            if layer.norm == "batch":
                for part in ("weight", "bias", "running_mean", "running_var"):
                    shapes[f"{name}norm.{part}"] = (layer.outputs,)
        return shapes

    def num_parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.tensor_shapes().values())

    def macs(self) -> int:
        """Multiplications of one run, for one sequence; products with padding are not counted."""
        total = 0
        for layer, given, made in zip(self.layers, self.shapes, self.shapes[1:], strict=False):
            weight = layer.weight_shape(given)
            if weight is None:
                continue
            # Of a transposed convolution every input meets every weight; of the others every output does.
            places = 1 if layer.kind == "dense" else math.prod((made if layer.kind == "conv2d" else given)[1:])
            total += math.prod(weight) * places
        return total


def _layer(entry: Any, where: str) -> FeedForwardLayer:
    kind = choice(entry, "kind", LAYER_KINDS, where)
    if kind == "reshape":
        only(entry, {"kind", "shape"}, where)
        return FeedForwardLayer(kind, shape=_sizes(entry, "shape", where))
    own = {"units"} if kind == "dense" else {"channels", "kernel", "stride", "padding"}
    only(entry, {"kind", "activation", "norm", *own}, where)
    built = FeedForwardLayer(
        kind,
        activation=choice(entry, "activation", ACTIVATIONS, where, "none"),
        norm=choice(entry, "norm", NORMS, where, "none"),
    )
    if kind == "dense":
        return replace(built, units=integer(entry, "units", 1, LIMITS["size"], where))
    return replace(
        built,
        channels=integer(entry, "channels", 1, LIMITS["size"], where),
        kernel=_pair(entry, "kernel", 1, None, where),
        stride=_pair(entry, "stride", 1, [1, 1], where),
        padding=_pair(entry, "padding", 0, [0, 0], where),
    )


def _sizes(entry: Mapping[str, Any], key: str, where: str) -> tuple[int, ...]:
    sizes = _integers(entries(entry, key, 1, LIMITS["rank"], where), key, 1, LIMITS["size"], where)
    if math.prod(sizes) > LIMITS["size"]:
        raise WeightsError(f"{where}.{key}: expected at most {LIMITS['size']} numbers, got {list(sizes)}")
    return sizes


def _pair(entry: Mapping[str, Any], key: str, low: int, default: list[int] | None, where: str) -> tuple[int, int]:
    height, width = _integers(entries(entry, key, 2, 2, where, default), key, low, LIMITS[key], where)
    return height, width


def _integers(values: Sequence[Any], key: str, low: int, high: int, where: str) -> tuple[int, ...]:
    return tuple(integer({f"{key}[{i}]": value}, f"{key}[{i}]", low, high, where) for i, value in enumerate(values))
