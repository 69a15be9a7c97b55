"""What the numbers of a model mean: ways to write a score as tokens and to read them back, or to tell it of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, overload

from musicgen_ext.encodings.bars import Bars
from musicgen_ext.encodings.base import Encoding
from musicgen_ext.encodings.frames import PianoRollFrames, read_frames
from musicgen_ext.encodings.melody_windows import ATTRIBUTES, FIRST_PITCH, MelodyWindows, melody_of
from musicgen_ext.encodings.note_tuples import NoteTuples
from musicgen_ext.encodings.notes_to_sound import Line, NotesToSound
from musicgen_ext.encodings.performance import Performance
from musicgen_ext.encodings.pitch_sequence import PitchSequence
from musicgen_ext.encodings.roll_bars import RollBars
from musicgen_ext.encodings.sound import Sound
from musicgen_ext.encodings.styled_bars import HEARD, StyledBars, StyleGroup
from musicgen_ext.encodings.told import Told
from musicgen_ext.encodings.voice_grid import (
    CHORALE,
    CHORALE_RANGES,
    END,
    FERMATA,
    FOLK,
    JSB16,
    JSB16_RANGES,
    MAX_STEPS,
    METERS,
    MODES,
    NO_FLAG,
    REST,
    SCALES,
    SLOT_ORDER,
    STEPS_PER_QUARTER,
    TICKS_PER_QUARTER,
    TICKS_PER_STEP,
    UNKNOWN_POSITION,
    VOICES,
    Grid,
    Meter,
    Note,
    VoiceGrid,
    Voices,
    read_melody,
    read_voices,
    slot_order,
    velocity_of,
)
from musicgen_ext.errors import WeightsError

__all__ = [
    "ATTRIBUTES",
    "CHORALE",
    "CHORALE_RANGES",
    "END",
    "FERMATA",
    "FIRST_PITCH",
    "FOLK",
    "HEARD",
    "JSB16",
    "JSB16_RANGES",
    "MAX_STEPS",
    "METERS",
    "MODES",
    "NAMES",
    "NO_FLAG",
    "REST",
    "SCALES",
    "SLOT_ORDER",
    "STEPS_PER_QUARTER",
    "TICKS_PER_QUARTER",
    "TICKS_PER_STEP",
    "UNKNOWN_POSITION",
    "VOICES",
    "Bars",
    "Encoding",
    "Grid",
    "Line",
    "MelodyWindows",
    "Meter",
    "Note",
    "NoteTuples",
    "NotesToSound",
    "Performance",
    "PianoRollFrames",
    "PitchSequence",
    "RollBars",
    "Sound",
    "StyleGroup",
    "StyledBars",
    "Told",
    "VoiceGrid",
    "Voices",
    "load",
    "melody_of",
    "named",
    "read_frames",
    "read_melody",
    "read_voices",
    "slot_order",
    "velocity_of",
]


_OF_TOKENS: dict[str, type[Encoding]] = {
    each.name: each for each in (Bars, MelodyWindows, Performance, PitchSequence, Told, VoiceGrid)
}

_OF_OTHERS: dict[str, Any] = {
    each.name: each for each in (NotesToSound, NoteTuples, PianoRollFrames, RollBars, Sound, StyledBars)
}


@overload
def load(encoding: Mapping[str, Any], *, tokens: Literal[True]) -> Encoding: ...
@overload
def load(
    encoding: Mapping[str, Any], *, tokens: bool = False
) -> Encoding | NotesToSound | NoteTuples | PianoRollFrames | RollBars | Sound | StyledBars: ...
def load(
    encoding: Mapping[str, Any], *, tokens: bool = False
) -> Encoding | NotesToSound | NoteTuples | PianoRollFrames | RollBars | Sound | StyledBars:
    """The encoding that a model file describes; with `tokens`, one that writes scores as tokens."""
    name = encoding.get("name")
    if isinstance(name, str) and name in _OF_OTHERS and not tokens:
        other: NotesToSound | NoteTuples | PianoRollFrames | RollBars | Sound | StyledBars
        other = _OF_OTHERS[name].from_dict(encoding)
        return other
    if not isinstance(name, str) or name not in _OF_TOKENS:
        known = sorted(_OF_TOKENS if tokens else (*_OF_TOKENS, *_OF_OTHERS))
        raise WeightsError(f"encoding.name: expected one of {known}, got {name!r}")
    return _OF_TOKENS[name].from_dict(encoding)


def named(name: str, options: Mapping[str, Any] | None = None) -> Encoding:
    """An encoding by what people call it, one of `NAMES`, with options that differ from its own.

    Raises
    ------
    WeightsError
        There is no such name, option or value.
    """
    if name not in NAMES:
        raise WeightsError(f"encoding: expected one of {', '.join(sorted(NAMES))}, got {name!r}")
    return load({**NAMES[name], **(options or {})}, tokens=True)


NAMES: dict[str, dict[str, Any]] = {
    "bars": {"name": Bars.name},
    "chorale": CHORALE.to_dict(),
    "jsb16": JSB16.to_dict(),
    "performance": {"name": Performance.name},
    "pitches": {"name": PitchSequence.name},
    "voices": {"name": VoiceGrid.name},
}
