"""A native engine for small music models: `musicgen_ext.sample()` makes music, with numpy as its only company."""

from musicgen_ext import _core
from musicgen_ext.errors import CheckpointError, DeviceError, MidiError, MusicgenExtError, WeightsError

__version__: str = _core.__version__

__all__ = [
    "CheckpointError",
    "DeviceError",
    "MidiError",
    "MusicgenExtError",
    "WeightsError",
]
