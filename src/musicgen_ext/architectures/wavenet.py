"""WaveNet: dilated causal convolutions over samples of sound."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

from musicgen_ext.architectures.readers import choice, entries, integer, only
from musicgen_ext.errors import WeightsError

OUTPUTS = ("mu_law", "logistics")
KERNEL_SIZES = (2, 3)

# Far above any WaveNet that was published, far below what would exhaust a machine.
LIMITS = {
    "sample_rate": 384_000,
    "residual_channels": 2_048,
    "skip_channels": 8_192,
    "hidden_channels": 8_192,
    "layers": 256,
    "dilation": 1 << 16,
    "classes": 4_096,
    "mixtures": 256,
    "condition_channels": 4_096,
    "condition_width": 4_096,
    "condition_kernel_size": 255,
    "hop_length": 1 << 16,
    "queues": 1 << 26,
}


@dataclass(frozen=True)
class Output:
    """What is drawn for a sample.

    ``"mu_law"``: one of `classes` steps of a logarithmic scale (`musicgen_ext.mu_law_encode`, ``mu = classes - 1``).
    ``"logistics"``: 16 bits, out of a mixture of `mixtures` discretised logistics (Salimans et al., PixelCNN++, 2017).
    """

    kind: Literal["mu_law", "logistics"] = "mu_law"
    classes: int = 256
    mixtures: int = 0

    @property
    def rows(self) -> int:
        """Rows of the last matrix: a logit for every class; or mixture logits, means, logarithms of scales."""
        return self.classes if self.kind == "mu_law" else 3 * self.mixtures

    def to_dict(self) -> dict[str, Any]:
        size = {"classes": self.classes} if self.kind == "mu_law" else {"mixtures": self.mixtures}
        return {"kind": self.kind, **size}


@dataclass(frozen=True)
class Condition:
    """What the network is told beside the sound: frames of `channels` numbers, one for every `hop_length` samples.

    They pass a convolution over frames to `width` numbers (`kernel_size` is odd: it looks as far ahead as back), then
    tanh; sample t gets those of frame ``t // hop_length``.
    """

    channels: int
    width: int
    kernel_size: int
    hop_length: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "channels": self.channels,
            "width": self.width,
            "kernel_size": self.kernel_size,
            "hop_length": self.hop_length,
        }


@dataclass(frozen=True)
class WaveNetConfig:
    """A stack of gated dilated causal convolutions over samples, one layer for every entry of `dilations`.

    h of sample t begins as an embedding of sample t - 1's class (silence before the first: ``classes // 2``), or for
    ``"logistics"`` as a linear map of its value in [-1, 1]. Layer i computes, from its input h at the times t,
    t - dilation, ... (`kernel_size` of them; h is 0 before the first sample) and the condition c,

        a, b = gate(h) + condition(c);   z_i = tanh(a) * sigmoid(b);   h = h + residual(z_i)

    and the logits are ``logits(relu(hidden(relu(skip(z_0, z_1, ...)))))``. The last layer has no residual.

    Source: A. van den Oord et al., "WaveNet: a generative model for raw audio", 2016.
    """

    sample_rate: int
    residual_channels: int
    skip_channels: int
    hidden_channels: int
    dilations: tuple[int, ...]
    kernel_size: int = 2
    output: Output = Output()
    condition: Condition | None = None

    arch: ClassVar[str] = "wavenet"

    # -- the JSON form -------------------------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> WaveNetConfig:
        """Build from the JSON form; a mistake is a `WeightsError` that names key, range and value."""
        where = "config"
        only(
            config,
            {
                "sample_rate", "residual_channels", "skip_channels", "hidden_channels", "dilations", "kernel_size",
                "output", "condition",
            },
            where,
        )  # fmt: skip
        dilations = tuple(
            integer({"dilation": d}, "dilation", 1, LIMITS["dilation"], f"{where}.dilations[{i}]")
            for i, d in enumerate(entries(config, "dilations", 1, LIMITS["layers"], where))
        )
        built = cls(
            integer(config, "sample_rate", 1, LIMITS["sample_rate"], where),
            integer(config, "residual_channels", 1, LIMITS["residual_channels"], where),
            integer(config, "skip_channels", 1, LIMITS["skip_channels"], where),
            integer(config, "hidden_channels", 1, LIMITS["hidden_channels"], where),
            dilations,
            integer(config, "kernel_size", min(KERNEL_SIZES), max(KERNEL_SIZES), where, 2),
            _output(config.get("output", {"kind": "mu_law"}), f"{where}.output"),
            None if config.get("condition") is None else _condition(config["condition"], f"{where}.condition"),
        )
        queues = (built.receptive_field - 1) * built.residual_channels
        if queues > LIMITS["queues"]:
            raise WeightsError(
                f"{where}.dilations: expected queues of at most {LIMITS['queues']} numbers (residual_channels times "
                f"the sum of the dilations), got {queues}"
            )
        return built

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: `from_dict(config.to_dict()) == config`."""
        return {
            "sample_rate": self.sample_rate,
            "residual_channels": self.residual_channels,
            "skip_channels": self.skip_channels,
            "hidden_channels": self.hidden_channels,
            "dilations": list(self.dilations),
            "kernel_size": self.kernel_size,
            "output": self.output.to_dict(),
            "condition": None if self.condition is None else self.condition.to_dict(),
        }

    # -- what follows from it ------------------------------------------------------------------------------------

    @property
    def num_layers(self) -> int:
        return len(self.dilations)

    @property
    def receptive_field(self) -> int:
        """Samples that the distribution of the next one can depend on."""
        return 1 + (self.kernel_size - 1) * sum(self.dilations)

    def frames(self, num_samples: int) -> int:
        """Frames of the condition that `num_samples` samples need; 0 without a condition."""
        return 0 if self.condition is None else -(-num_samples // self.condition.hop_length)

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the model and its shape: torch's Embedding, Linear and Conv1d (rows, inputs, taps in time).

        ``skip.weight`` takes the z of all layers, one after the other.
        """
        r, s, h, told = self.residual_channels, self.skip_channels, self.hidden_channels, self.condition
        shapes: dict[str, tuple[int, ...]] = {}
        if self.output.kind == "mu_law":
            shapes["embedding.weight"] = (self.output.classes, r)
        else:
            shapes["input.weight"] = (r, 1)
            shapes["input.bias"] = (r,)
        if told is not None:
            shapes["condition.conv.weight"] = (told.width, told.channels, told.kernel_size)
            shapes["condition.conv.bias"] = (told.width,)
        for i in range(self.num_layers):
            shapes[f"layers.{i}.gate.weight"] = (2 * r, r, self.kernel_size)
            shapes[f"layers.{i}.gate.bias"] = (2 * r,)
            if told is not None:
                shapes[f"layers.{i}.condition.weight"] = (2 * r, told.width)
            if i + 1 < self.num_layers:
                shapes[f"layers.{i}.residual.weight"] = (r, r)
                shapes[f"layers.{i}.residual.bias"] = (r,)
        shapes["skip.weight"] = (s, self.num_layers * r)
        shapes["skip.bias"] = (s,)
        shapes["hidden.weight"] = (h, s)
        shapes["hidden.bias"] = (h,)
        shapes["logits.weight"] = (self.output.rows, h)
        shapes["logits.bias"] = (self.output.rows,)
        return shapes

    def num_parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.tensor_shapes().values())


def _output(entry: Any, where: str) -> Output:
    kind = cast("Literal['mu_law', 'logistics']", choice(entry, "kind", OUTPUTS, where))
    if kind == "mu_law":
        only(entry, {"kind", "classes"}, where)
        return Output(kind, classes=integer(entry, "classes", 2, LIMITS["classes"], where, 256))
    only(entry, {"kind", "mixtures"}, where)
    return Output(kind, classes=0, mixtures=integer(entry, "mixtures", 1, LIMITS["mixtures"], where, 10))


def _condition(entry: Any, where: str) -> Condition:
    only(entry, {"channels", "width", "kernel_size", "hop_length"}, where)
    kernel_size = integer(entry, "kernel_size", 1, LIMITS["condition_kernel_size"], where)
    if kernel_size % 2 == 0:
        raise WeightsError(f"{where}.kernel_size: expected an odd number (as far ahead as back), got {kernel_size}")
    return Condition(
        integer(entry, "channels", 1, LIMITS["condition_channels"], where),
        integer(entry, "width", 1, LIMITS["condition_width"], where),
        kernel_size,
        integer(entry, "hop_length", 1, LIMITS["hop_length"], where),
    )
