"""What a model file may describe: validated configurations and the tensors that each of them needs.

Shared by the engine (`generate`), the trainer (`train`) and the plain reference, so that all of them mean the same
network by the same words. No torch, no native code.
"""

from __future__ import annotations

from musicgen_ext.architectures.recurrent import (
    CELLS,
    PITCH_CLASSES,
    Feature,
    Head,
    Periodic,
    RecurrentConfig,
    Relative,
    Slot,
)
from musicgen_ext.architectures.wavenet import Condition, Output, WaveNetConfig

__all__ = [
    "CELLS",
    "PITCH_CLASSES",
    "Condition",
    "Feature",
    "Head",
    "Output",
    "Periodic",
    "RecurrentConfig",
    "Relative",
    "Slot",
    "WaveNetConfig",
]
