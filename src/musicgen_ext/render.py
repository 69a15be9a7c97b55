"""From a score to sound: introduces `midi` to `audio`, which do not know each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core, checks
from musicgen_ext.audio import Audio
from musicgen_ext.controllers import latest, pedalled_ends
from musicgen_ext.midi import DRUM_CHANNEL, Score

Array = npt.NDArray[Any]

_VOLUME, _PAN, _EXPRESSION = 7, 10, 11
_BEND_RANGE = 2.0  # semitones, the General MIDI default
_WIDTH = 0.5  # how far left and right the outermost tracks sit when a file does not say


def synthesize(score: Score, sr: int = 44_100) -> Audio:
    """The score as played by the built-in synthesiser; see `Score.synthesize`."""
    sr = checks.integer("sr", sr, 1_000, 768_000)
    return Audio(_core.synthesize(tones_of(score, sr), float(sr)), sr, provenance=score.provenance)


def tones_of(score: Score, sr: int) -> Array:
    """What the synthesiser plays: one row for every note, shape (n,), dtype ``_core.tone_dtype``."""
    notes = score._checked_notes()
    tones = np.zeros(len(notes), _core.tone_dtype)
    if not len(notes):
        return tones
    ends = pedalled_ends(notes, score.controls, score._last_tick)
    begins = _seconds(score, notes["start"], notes["track"])
    tones["start"] = np.rint(begins * sr)
    tones["length"] = np.maximum(np.rint(_seconds(score, ends, notes["track"]) * sr) - tones["start"], 1)
    drums = notes["channel"] == DRUM_CHANNEL

    programs, controls, bends = score.programs, score.controls, score.pitch_bends
    tones["program"] = np.where(drums, _core.drum_program, latest(notes, programs, "program", 0))
    tones["key"] = notes["pitch"]
    bend = latest(notes, bends, "bend", 0) / 8192 * _BEND_RANGE
    tones["frequency"] = 440 * np.exp2((notes["pitch"] - 69.0 + np.where(drums, 0, bend)) / 12)
    tones["velocity"] = notes["velocity"] / 127

    # Squares: General MIDI Level 2, volume in dB is 40 log10(value / 127). 100 is the value a channel begins with.
    volume = latest(notes, controls[controls["number"] == _VOLUME], "value", 100) / 100
    expression = latest(notes, controls[controls["number"] == _EXPRESSION], "value", 127) / 127
    tones["gain"] = (volume * expression) ** 2
    pan = latest(notes, controls[controls["number"] == _PAN], "value", -1)
    tracks, index = np.unique(notes["track"], return_inverse=True)
    seats = np.linspace(-_WIDTH, _WIDTH, len(tracks)) if len(tracks) > 1 else np.zeros(1)
    tones["pan"] = np.where(pan >= 0, np.clip((pan - 64.0) / 63, -1, 1), np.where(drums, 0, seats[index]))
    return tones


def _seconds(score: Score, ticks: Array, tracks: Array) -> Array:
    if score.format != 2:
        return score.to_seconds(ticks)
    seconds = np.empty(len(ticks))
    for track in np.unique(tracks).tolist():
        mask = tracks == track
        seconds[mask] = score.to_seconds(ticks[mask], track=track)
    return seconds
