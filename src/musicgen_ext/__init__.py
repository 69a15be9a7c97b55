"""A native engine for small music models: `musicgen_ext.sample()` makes music, with numpy as its only company."""

from musicgen_ext._core import __version__ as __version__
from musicgen_ext.audio import Audio, read_audio
from musicgen_ext.encodings import Note
from musicgen_ext.errors import CheckpointError, DeviceError, MidiError, MidiWarning, MusicgenExtError, WeightsError
from musicgen_ext.midi import Score, Track, read_midi
from musicgen_ext.model import Model, build_info, load, models, sample

__all__ = [
    "Audio",
    "CheckpointError",
    "DeviceError",
    "MidiError",
    "MidiWarning",
    "Model",
    "MusicgenExtError",
    "Note",
    "Score",
    "Track",
    "WeightsError",
    "build_info",
    "load",
    "models",
    "read_audio",
    "read_midi",
    "sample",
]
