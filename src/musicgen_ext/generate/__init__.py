"""Engines over tokens: weights, state and coins in; tokens and state out. Never a note, never a file.

Chance is an argument: a seed becomes uniform coins once, here, and every path (baseline, AVX2, AVX-512, any number of
threads, any batch) consumes the same coins and so draws the same tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from musicgen_ext.errors import WeightsError
from musicgen_ext.generate.arguments import (
    MAX_FRAMES,
    Coins,
    Sampled,
    check_integer,
    check_seed,
    sampler_options,
)
from musicgen_ext.generate.attention import AttentionEngine
from musicgen_ext.generate.c_rnn_gan import CRnnGanEngine
from musicgen_ext.generate.feedforward import FeedForwardEngine
from musicgen_ext.generate.frames import FramesEngine, SampledFrames
from musicgen_ext.generate.gan import GanEngine, SampledPictures
from musicgen_ext.generate.recurrent import RecurrentEngine
from musicgen_ext.generate.vae_gan import VaeGanEngine
from musicgen_ext.generate.variational import VariationalEngine
from musicgen_ext.generate.wavenet import SampledSound, WaveNetEngine

if TYPE_CHECKING:
    from musicgen_ext.weights import ModelFile

__all__ = [
    "MAX_FRAMES",
    "AttentionEngine",
    "CRnnGanEngine",
    "Coins",
    "Engine",
    "FeedForwardEngine",
    "FramesEngine",
    "GanEngine",
    "RecurrentEngine",
    "Sampled",
    "SampledFrames",
    "SampledPictures",
    "SampledSound",
    "VaeGanEngine",
    "VariationalEngine",
    "WaveNetEngine",
    "check_integer",
    "check_seed",
    "load",
    "sampler_options",
]


Engine = (
    AttentionEngine
    | CRnnGanEngine
    | FramesEngine
    | GanEngine
    | RecurrentEngine
    | VaeGanEngine
    | VariationalEngine
    | WaveNetEngine
)

_ENGINES: dict[str, type[Engine]] = {
    "attention": AttentionEngine,
    "c_rnn_gan": CRnnGanEngine,
    "frames": FramesEngine,
    "gan": GanEngine,
    "recurrent": RecurrentEngine,
    "vae_gan": VaeGanEngine,
    "variational": VariationalEngine,
    "wavenet": WaveNetEngine,
}


def load(file: ModelFile) -> Engine:
    """The engine for a model file: its architecture chooses the class.

    Raises
    ------
    WeightsError
        Unknown architecture, a config that is out of bounds, or tensors that do not fit it.
    MemoryError
        The packed model would take more than 8 GiB.
    """
    if file.arch not in _ENGINES:
        raise WeightsError(f"arch: expected one of {sorted(_ENGINES)}, got {file.arch!r}", path=file.path)
    return _ENGINES[file.arch](file)
