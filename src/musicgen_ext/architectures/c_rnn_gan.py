"""Recurrent adversarial pairs over notes as numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

from musicgen_ext.architectures.readers import integer, only

LIMITS = {"noise": 4_096, "hidden_size": 8_192, "num_layers": 16, "outputs": 64, "critic_size": 8_192}
_DEFAULTS = {"outputs": 4, "num_layers": 2, "critic_size": 64}


@dataclass(frozen=True)
class CRnnGanConfig:
    """LSTM layers that hear `noise` normal numbers and their own last outputs, and say `outputs` numbers in (0, 1).

    The discriminator, of which a model file holds no tensors, hears a sequence in both directions with `critic_size`
    units each.

    Source: O. Mogren, "C-RNN-GAN: continuous recurrent neural networks with adversarial training", 2016.
    """

    noise: int
    hidden_size: int
    num_layers: int = 2
    outputs: int = 4
    critic_size: int = 64

    arch: ClassVar[str] = "c_rnn_gan"

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """Build from the JSON form; a mistake is a `WeightsError` that names key, range and value."""
        only(config, set(LIMITS), "config")
        return cls(
            **{name: integer(config, name, 1, most, "config", _DEFAULTS.get(name)) for name, most in LIMITS.items()}
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: `from_dict(config.to_dict()) == config`."""
        return asdict(self)

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the generator and its shape: torch's LSTM and Linear."""
        gates = 4 * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for k in range(self.num_layers):
            shapes[f"rnn.weight_ih_l{k}"] = (gates, self.noise + self.outputs if k == 0 else self.hidden_size)
            shapes[f"rnn.weight_hh_l{k}"] = (gates, self.hidden_size)
            shapes[f"rnn.bias_ih_l{k}"] = (gates,)
            shapes[f"rnn.bias_hh_l{k}"] = (gates,)
        shapes["output.weight"] = (self.outputs, self.hidden_size)
        shapes["output.bias"] = (self.outputs,)
        return shapes

    def num_parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.tensor_shapes().values())
