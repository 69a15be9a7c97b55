"""Other music out of the same: seeded changes of a score that a model shall not learn by heart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from musicgen_ext.midi import DRUM_CHANNEL, Score


@dataclass(frozen=True)
class Augmentation:
    """``augmentation(score, rng)``: the score in another key, at another tempo, louder or softer, without some voices.

    Attributes
    ----------
    transpose : int, 0 to 24
        Semitones that a piece moves up or down at most, as far as all its pitches stay MIDI pitches. Drums stay.
    stretch : float, 0 to 1
        A piece becomes up to ``1 + stretch`` times as fast or as slow, all ratios being equally likely: its tempos
        change, its ticks do not. (Pieces in SMPTE time have no tempo and stay.)
    velocity : int, 0 to 127
        All notes together become up to so much louder or softer, within 1 to 127.
    voice_dropout : float, 0 to 1 (exclusive)
        Probability of leaving out a track with notes; one is always kept.

    A draw takes as many random numbers whatever the settings, so that changing one of them leaves the others as they
    are.

    Raises
    ------
    ValueError
        A setting out of its range, by name.
    """

    transpose: int = 0
    stretch: float = 0.0
    velocity: int = 0
    voice_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, most in (("transpose", 24), ("velocity", 127)):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value <= most:
                raise ValueError(f"{name}: expected an integer in [0, {most}], got {value!r}")
        if not 0 <= self.stretch <= 1:
            raise ValueError(f"stretch: expected a number in [0, 1], got {self.stretch!r}")
        if not 0 <= self.voice_dropout < 1:
            raise ValueError(f"voice_dropout: expected a probability in [0, 1), got {self.voice_dropout!r}")

    def __call__(self, score: Score, rng: np.random.Generator) -> Score:
        """The score changed; the one given stays as it is."""
        key, tempo, loudness, voice = rng.random(4)
        if self.transpose:
            pitches = score.notes["pitch"][score.notes["channel"] != DRUM_CHANNEL].astype(int)
            low, high = (-int(pitches.min()), 127 - int(pitches.max())) if len(pitches) else (0, 0)
            low, high = max(low, -self.transpose), min(high, self.transpose)
            score = score.transpose(low + int(key * (high - low + 1)))
        if self.stretch and score.smpte is None:
            score = score.scale_tempo(math.exp((2 * tempo - 1) * math.log1p(self.stretch)))
        if self.velocity:
            change = round((2 * loudness - 1) * self.velocity)
            notes = score.notes.copy()
            notes["velocity"] = np.clip(notes["velocity"].astype(int) + change, 1, 127)
            score = _with_notes(score, notes)
        if self.voice_dropout:
            tracks = np.unique(score.notes["track"])
            kept = np.random.default_rng(int(voice * 2**53)).random(len(tracks)) >= self.voice_dropout
            if len(tracks):
                kept[int(voice * len(tracks))] = True
            score = _with_notes(score, score.notes[np.isin(score.notes["track"], tracks[kept])])
        return score


def _with_notes(score: Score, notes: npt.NDArray[Any]) -> Score:
    changed = score.copy()
    changed.notes = notes
    return changed
