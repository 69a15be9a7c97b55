"""One voice in windows of a fixed length, on a grid: what a variational model makes a latent vector of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from musicgen_ext.encodings.base import Encoding, Ints, whole
from musicgen_ext.encodings.voice_grid import MAX_STEPS, REST, Meter, VoiceGrid, Voices, read_melody
from musicgen_ext.errors import WeightsError
from musicgen_ext.midi import DRUM_CHANNEL, Score

HOLD, SILENCE, FIRST_PITCH = 0, 1, 2
ATTRIBUTES = ("density", "register", "contour", "range", "syncopation", "mode")

_MAJOR, _MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)


@dataclass(frozen=True)
class MelodyWindows(Encoding):
    """Windows of `steps` sixteenths of one voice; tokens {0 hold, 1 rest, 2 + i: onset of pitch `lowest_pitch` + i}.

    A window stands for itself: what still sounds when it begins is struck again, what sounds at its end, ends there.

    Attributes
    ----------
    steps : int
        Length of a window in sixteenths: 32 are two bars of 4/4.
    lowest_pitch, num_pitches : int
    low, high : int
        MIDI pitches heard in training: samples stay inside, and scores are transposed into them.
    tempo : float
        Quarters a minute of what is sampled.
    """

    name: ClassVar[str] = "melody_windows"

    steps: int = 32
    lowest_pitch: int = 48
    num_pitches: int = 48
    low: int = 55
    high: int = 88
    tempo: float = 120.0

    def __post_init__(self) -> None:
        if not self.lowest_pitch <= self.low <= self.high < self.lowest_pitch + self.num_pitches:
            vocabulary = f"{self.lowest_pitch}..{self.lowest_pitch + self.num_pitches - 1}"
            raise ValueError(f"low, high: expected a range inside {vocabulary}, got {self.low}..{self.high}")

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, **asdict(self)}

    @classmethod
    def from_dict(cls, encoding: Mapping[str, Any]) -> MelodyWindows:
        known = {"name", *(f.name for f in fields(cls))}
        unknown = sorted(set(encoding) - known)
        if unknown:
            raise WeightsError(f"encoding: expected keys out of {sorted(known)}, got unknown {unknown}")
        tempo = encoding.get("tempo", cls.tempo)
        if type(tempo) not in (int, float) or not 10 <= tempo <= 1000:
            raise WeightsError(f"encoding.tempo: expected 10 to 1000 quarters a minute, got {tempo!r}")
        steps = whole(encoding, "steps", 1, MAX_STEPS, cls.steps)
        lowest = whole(encoding, "lowest_pitch", 0, 127, cls.lowest_pitch)
        count = whole(encoding, "num_pitches", 1, 128 - lowest, min(cls.num_pitches, 128 - lowest))
        low = whole(encoding, "low", lowest, lowest + count - 1, lowest)
        high = whole(encoding, "high", low, lowest + count - 1, lowest + count - 1)
        return cls(steps, lowest, count, low, high, float(tempo))

    @cached_property
    def grid(self) -> VoiceGrid:
        """The same voice without windows."""
        return VoiceGrid(
            ranges={"melody": (self.low, self.high)},
            tempo=self.tempo,
            lowest_pitch=self.lowest_pitch,
            num_pitches=self.num_pitches,
            voices=("melody",),
        )

    @property
    def vocab_size(self) -> int:
        return FIRST_PITCH + self.num_pitches

    @property
    def slots(self) -> list[dict[str, Any]]:
        """The one slot of a frame, as `RecurrentConfig` wants it (without a head)."""
        return [{"name": "melody", "size": self.vocab_size, "first_pitch": FIRST_PITCH, "hold": HOLD}]

    @property
    def allowed(self) -> npt.NDArray[np.bool_]:
        """Tokens that may be drawn at every step of a window, shape (steps, 1, vocab_size): it begins with no hold."""
        mask = np.zeros((self.steps, 1, self.vocab_size), bool)
        mask[:, 0, [HOLD, SILENCE]] = True
        first = FIRST_PITCH - self.lowest_pitch
        mask[:, 0, self.low + first : self.high + first + 1] = True
        mask[0, 0, HOLD] = False
        return mask

    def describe(self, token: int) -> str:
        return self.grid.describe(token)

    # -- scores ------------------------------------------------------------------------------------------------------

    def encode(self, score: Score, issues: list[str] | None = None) -> Ints:
        """All windows of the melody of a score, one behind the other.

        Windows begin with the bar of its first note (see `melody_of`), the last one is filled up with rests.

        Returns
        -------
        tokens : np.ndarray [shape=(n_windows * steps, 1)], int32
        """
        voices = melody_of(score, self.grid)
        if issues is not None:
            issues += voices.issues
        shift = self.grid.fit(voices)
        if issues is not None and shift:
            issues.append(f"transposed by {shift} semitones")
        pitch, onset = framed(voices, self.steps)
        return self.windows(np.where(pitch == REST, REST, pitch + shift), onset).reshape(-1, 1)

    def windows(self, pitch: Ints, onset: npt.NDArray[np.bool_]) -> Ints:
        """Windows of a grid.

        Parameters
        ----------
        pitch : np.ndarray [shape=(T,)], int32
            MIDI pitches, -1 for a rest. What lies behind the last whole window is left out.
        onset : np.ndarray [shape=(T,)], bool

        Returns
        -------
        tokens : np.ndarray [shape=(T // steps, steps, 1)], int32
        """
        count = len(pitch) // self.steps
        pitch = pitch[: count * self.steps].reshape(count, self.steps)
        onset = onset[: count * self.steps].reshape(count, self.steps)
        before = np.concatenate([np.full((count, 1), -2, np.int32), pitch[:, :-1]], 1)
        struck = (pitch != REST) & (onset | (pitch != before))
        tokens = np.where(struck, pitch - self.lowest_pitch + FIRST_PITCH, HOLD)
        tokens[(pitch == REST) & (before != REST)] = SILENCE
        return np.ascontiguousarray(tokens[..., None], np.int32)

    def decode(self, tokens: npt.ArrayLike, *, provenance: Mapping[str, Any] | None = None) -> Score:
        """The score that windows mean.

        Parameters
        ----------
        tokens : array-like of int [shape=(T, 1)]
            In 4/4, from the beginning of a bar; the last window may be cut short.
        """
        voice = np.asarray(tokens)
        if voice.ndim != 2 or voice.shape[1] != 1:
            raise ValueError(f"tokens: expected shape (n_windows * {self.steps}, 1), got {voice.shape}")
        frames = np.concatenate([np.zeros_like(voice), voice], 1)
        for first in range(0, len(voice), self.steps):
            if first and voice[first, 0] == HOLD:  # of nothing: the window stands for itself
                frames[first, 1] = SILENCE
        return self.grid.decode(frames, meter=Meter(), tempo=self.tempo, provenance=provenance)

    # -- what can be said of a window --------------------------------------------------------------------------------

    def attributes(self, tokens: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """What `ATTRIBUTES` are of windows.

        All are 0 of a window without notes. density: their number. register: their mean pitch (MIDI). contour: that of
        the second half less that of the first. range: semitones from the lowest to the highest. syncopation: share of
        the notes that begin between two eighths, or between two quarters, and sound on over the second of these. mode:
        how much better the pitch classes, by duration, fit the best major key than the best minor one: the mean of
        their shares in the scale and in the tonic triad.

        Parameters
        ----------
        tokens : array-like of int [shape=(N, steps) or (N, steps, 1)]

        Returns
        -------
        values : np.ndarray [shape=(N, len(ATTRIBUTES))], float64
        """
        windows = np.asarray(tokens).reshape(-1, self.steps)
        return np.array([self._attributes(window) for window in windows]).reshape(-1, len(ATTRIBUTES))

    def _attributes(self, window: Ints) -> tuple[float, ...]:
        at = np.flatnonzero(window >= FIRST_PITCH)
        if not len(at):
            return (0.0,) * len(ATTRIBUTES)
        pitch = window[at] - FIRST_PITCH + self.lowest_pitch
        ends = np.append(np.flatnonzero(window), self.steps)
        length = ends[np.searchsorted(ends, at, side="right")] - at
        late = 2 * at >= self.steps
        contour = pitch[late].mean() - pitch[~late].mean() if 0 < late.sum() < len(at) else 0.0
        off = sum((at % (2 * beat) == beat) & (length > beat) for beat in (1, 2)) > 0
        heard = np.bincount(pitch % 12, weights=length, minlength=12) / length.sum()
        return (
            float(len(at)),
            float(pitch.mean()),
            float(contour),
            float(np.ptp(pitch)),
            float(off.mean()),
            _best_fit(heard, _MAJOR, (0, 4, 7)) - _best_fit(heard, _MINOR, (0, 3, 7)),
        )


def _best_fit(heard: npt.NDArray[np.float64], scale: tuple[int, ...], triad: tuple[int, ...]) -> float:
    """The largest share of what is heard in some key: its scale, and its triad once more."""
    wanted = np.zeros(12)
    wanted[list(scale)] += 0.5
    wanted[list(triad)] += 0.5
    return float(max(heard @ np.roll(wanted, tonic) for tonic in range(12)))


def melody_of(score: Score, grid: VoiceGrid) -> Voices:
    """The melody of a score: the voice that `read_melody` finds (a track named so, or the highest part).

    Where that part plays chords, it is the top line of all tracks but drums: a note that begins below one that still
    sounds is left out, a higher one ends it.

    Raises
    ------
    ValueError
        There are no notes.
    """
    try:
        return read_melody(score, encoding=grid)
    except ValueError:
        line = _top_line(score)
        if not len(line.notes):
            raise
        return read_melody(line, encoding=grid)


def _top_line(score: Score) -> Score:
    notes = score.notes[score.notes["channel"] != DRUM_CHANNEL]
    notes = notes[np.lexsort((-notes["pitch"].astype(int), notes["start"]))]
    starts, pitches = notes["start"].tolist(), notes["pitch"].tolist()
    ends = (notes["start"].astype(np.int64) + notes["duration"]).tolist()
    kept: list[int] = []
    for i, start in enumerate(starts):
        if kept and start < ends[kept[-1]]:
            last = kept[-1]
            if pitches[i] < pitches[last] or start == starts[last]:
                continue
            ends[last] = start
        kept.append(i)
    line = notes[kept].copy()
    line["duration"] = [ends[i] - starts[i] for i in kept]
    for name in ("track", "channel"):
        line[name] = line[name][:1]  # all on one
    alone = score.copy()
    alone.notes = line
    return alone


def framed(voices: Voices, steps: int) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Pitch (T,) and onset (T,) of a melody from its first bar's beginning, with rests up to the end of a window."""
    front = int(voices.position[0]) if len(voices.position) else 0
    back = -(front + len(voices.pitch)) % steps
    pitch = np.pad(voices.pitch[:, 0], (front, back), constant_values=REST)
    return pitch.astype(np.int32), np.pad(voices.onset[:, 0], (front, back))
