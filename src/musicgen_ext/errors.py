"""The exceptions of `musicgen_ext`: bad data is also a `ValueError`, so callers need not know our names."""

from __future__ import annotations

from typing import Any


class MusicgenExtError(Exception):
    """Base of every error that is ours alone.

    Attributes given as keywords (`path`, `offset`, `track`, `tensor` …) are kept on the instance and survive pickling.
    """

    def __init__(self, message: str = "", **details: Any) -> None:
        super().__init__(message)
        self.__dict__.update(details)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self),), dict(self.__dict__)


class MidiError(MusicgenExtError, ValueError):
    """A file or byte string is not the MIDI data it should be. Attributes: `path`, `offset`, `track`."""


class MidiWarning(UserWarning):
    """A MIDI file was read, but something in it was wrong; `score.issues` lists what."""


class WeightsError(MusicgenExtError, ValueError):
    """A model file cannot be used. Attributes: `path`, `tensor`."""


class CheckpointError(MusicgenExtError, ValueError):
    """A training checkpoint cannot be used. Attributes: `path`, `previous` (an older one that can)."""


class DeviceError(MusicgenExtError, RuntimeError):
    """A compute device is missing or failed. Attribute: `device`."""
