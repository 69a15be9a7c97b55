"""What a model file may describe: validated configurations and the tensors that each of them needs.

Shared by the engine (`generate`), the trainer (`train`) and the plain reference, so that all of them mean the same
network by the same words. No torch, no native code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self

from musicgen_ext.architectures.attention import AttentionConfig, MemoryConfig
from musicgen_ext.architectures.c_rnn_gan import CRnnGanConfig
from musicgen_ext.architectures.feedforward import FeedForwardConfig, FeedForwardLayer
from musicgen_ext.architectures.frames import FramesConfig
from musicgen_ext.architectures.gan import GanConfig
from musicgen_ext.architectures.recurrent import (
    CELLS,
    PITCH_CLASSES,
    TOKEN_KINDS,
    Feature,
    Head,
    Periodic,
    RecurrentConfig,
    Relative,
    Slot,
)
from musicgen_ext.architectures.vae_gan import VaeGanConfig
from musicgen_ext.architectures.variational import DIRECTIONS, Encoder, VariationalConfig
from musicgen_ext.architectures.wavenet import Condition, Output, WaveNetConfig

__all__ = [
    "CELLS",
    "CONFIGS",
    "DIRECTIONS",
    "PITCH_CLASSES",
    "TOKEN_KINDS",
    "AttentionConfig",
    "CRnnGanConfig",
    "Condition",
    "Config",
    "Encoder",
    "Feature",
    "FeedForwardConfig",
    "FeedForwardLayer",
    "FramesConfig",
    "GanConfig",
    "Head",
    "MemoryConfig",
    "Output",
    "Periodic",
    "RecurrentConfig",
    "Relative",
    "Slot",
    "VaeGanConfig",
    "VariationalConfig",
    "WaveNetConfig",
]


class Config(Protocol):
    """What every configuration has."""

    arch: ClassVar[str]
    """What a model file calls this architecture."""

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """Build from the JSON form; a mistake is a `WeightsError` that names key, range and value."""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: `from_dict(config.to_dict()) == config`."""

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the model and its shape."""

    def num_parameters(self) -> int:
        """Numbers in all tensors."""


CONFIGS: dict[str, type[Config]] = {
    each.arch: each
    for each in (
        AttentionConfig,
        CRnnGanConfig,
        FramesConfig,
        GanConfig,
        RecurrentConfig,
        VaeGanConfig,
        VariationalConfig,
        WaveNetConfig,
    )
}
"""By the name that a model file has for it."""
