"""A native engine for small music models: `musicgen_ext.sample()` makes music, with numpy as its only company.

The names below are fetched from their rooms at first use, so that importing the package costs next to nothing.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

from musicgen_ext._core import __version__ as __version__

if TYPE_CHECKING:
    from musicgen_ext import encodings as encodings
    from musicgen_ext import features as features
    from musicgen_ext import signals as signals
    from musicgen_ext import train as train
    from musicgen_ext.audio import Audio as Audio
    from musicgen_ext.audio import read_audio as read_audio
    from musicgen_ext.corpus import TokenStore as TokenStore
    from musicgen_ext.corpus import encode_corpus as encode_corpus
    from musicgen_ext.encodings import Note as Note
    from musicgen_ext.errors import CheckpointError as CheckpointError
    from musicgen_ext.errors import DeviceError as DeviceError
    from musicgen_ext.errors import MidiError as MidiError
    from musicgen_ext.errors import MidiWarning as MidiWarning
    from musicgen_ext.errors import MusicgenExtError as MusicgenExtError
    from musicgen_ext.errors import WeightsError as WeightsError
    from musicgen_ext.extraction import FeatureStore as FeatureStore
    from musicgen_ext.extraction import extract_features as extract_features
    from musicgen_ext.features import StreamingMelspectrogram as StreamingMelspectrogram
    from musicgen_ext.features import StreamingMFCC as StreamingMFCC
    from musicgen_ext.features import StreamingSTFT as StreamingSTFT
    from musicgen_ext.features import istft as istft
    from musicgen_ext.features import mel_filterbank as mel_filterbank
    from musicgen_ext.features import melspectrogram as melspectrogram
    from musicgen_ext.features import mfcc as mfcc
    from musicgen_ext.features import mu_law_decode as mu_law_decode
    from musicgen_ext.features import mu_law_encode as mu_law_encode
    from musicgen_ext.features import stft as stft
    from musicgen_ext.matching import Match as Match
    from musicgen_ext.matching import match as match
    from musicgen_ext.midi import Score as Score
    from musicgen_ext.midi import Track as Track
    from musicgen_ext.midi import read_midi as read_midi
    from musicgen_ext.model import Model as Model
    from musicgen_ext.model import ScoreModel as ScoreModel
    from musicgen_ext.model import SoundModel as SoundModel
    from musicgen_ext.model import TokenModel as TokenModel
    from musicgen_ext.model import VariationalModel as VariationalModel
    from musicgen_ext.model import build_info as build_info
    from musicgen_ext.model import load as load
    from musicgen_ext.model import models as models
    from musicgen_ext.model import sample as sample
    from musicgen_ext.rolls import piano_roll as piano_roll
    from musicgen_ext.rolls import piano_rolls as piano_rolls

_ROOMS = {
    "audio": ("Audio", "read_audio"),
    "corpus": ("TokenStore", "encode_corpus"),
    "encodings": ("Note",),
    "errors": ("CheckpointError", "DeviceError", "MidiError", "MidiWarning", "MusicgenExtError", "WeightsError"),
    "extraction": ("FeatureStore", "extract_features"),
    "features": (
        "StreamingMFCC",
        "StreamingMelspectrogram",
        "StreamingSTFT",
        "istft",
        "mel_filterbank",
        "melspectrogram",
        "mfcc",
        "mu_law_decode",
        "mu_law_encode",
        "stft",
    ),
    "matching": ("Match", "match"),
    "midi": ("Score", "Track", "read_midi"),
    "model": (
        "Model",
        "ScoreModel",
        "SoundModel",
        "TokenModel",
        "VariationalModel",
        "build_info",
        "load",
        "models",
        "sample",
    ),
    "rolls": ("piano_roll", "piano_rolls"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}
_MODULES = ("encodings", "features", "signals", "train")  # reached as attributes; `train` brings torch

__all__ = sorted(_ROOM_OF)


def __getattr__(name: str) -> Any:
    if name in _ROOM_OF:
        value = getattr(_import_module(f"musicgen_ext.{_ROOM_OF[name]}"), name)
    elif name in _MODULES:
        value = _import_module(f"musicgen_ext.{name}")
    else:
        raise AttributeError(f"module 'musicgen_ext' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
