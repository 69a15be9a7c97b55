"""Notes as what a WaveNet is told beside the sound: one row of numbers for every few milliseconds of a melody.

A score of many voices is split into lines of one note at a time; every line becomes frames of its own and is played by
itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from musicgen_ext.encodings.base import whole
from musicgen_ext.errors import WeightsError
from musicgen_ext.general_midi import pitch_name
from musicgen_ext.midi import DRUM_CHANNEL, Score

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

FEATURES = ("onset", "ending", "release", "velocity")
KNOWN_FEATURES = (*FEATURES, "phase")
DECAY = 0.05  # seconds in which the traces of a note's start and end fall to 1/e
# Players overlap the notes of a melody by this much, in seconds; what overlaps longer are two voices.
LEGATO = 0.05
MAX_LINES = 64
MAX_STYLES = 128
MAX_SECONDS = 86_400.0


@dataclass(frozen=True)
class Line:
    """A voice of one note at a time.

    Attributes
    ----------
    notes : np.ndarray [shape=(n, 4)], float64
        Start and end in seconds, MIDI pitch, velocity; in the order of time, none begins before the last has ended.
    track : int
        Where it comes from.
    name : str
        Of the track.
    number : int
        Which of the score's lines this is, whichever of them are chosen.
    """

    notes: Doubles
    track: int = 0
    name: str = ""
    number: int = 0


@dataclass(frozen=True)
class NotesToSound:
    """What a WaveNet that plays notes is told: frames of numbers, one for every `hop_length` samples.

    Frame f stands for the samples from ``f * hop_length`` on, and tells what there is in their middle. Its channels:

    - ``pitch 36`` …: 1 for the pitch that sounds, 0 for the others, from `low` to `high`;
    - ``onset``: exp(-s / 0.05 s), s seconds since the note began; 0 in silence;
    - ``ending``: exp(-s / 0.05 s), s seconds until it ends; 0 in silence;
    - ``release``: exp(-s / 0.05 s) in silence, s seconds since the last note ended; 0 before the first;
    - ``velocity``: of the note, from 0 to 1; 0 in silence;
    - ``phase sine``, ``phase cosine`` of the note's fundamental, which begins at 0 with the note; 0 in silence. With
      them a network need not count periods to be in tune. Source: Wang, Takaki and Yamagishi, Neural source-filter
      waveform models, 2019, which excites the network with such a sine;
    - ``style …``: 1 for the style that is played, 0 for the others, if there is more than one.

    Attributes
    ----------
    sample_rate, hop_length : int
        Samples per second, and from one frame to the next.
    low, high : int
        The lowest and highest MIDI pitch.
    styles : tuple of str
        Instruments, or ways to play one.
    features : tuple of str
        Which of onset, ending, release, velocity and phase there are, in their order.
    """

    sample_rate: int
    hop_length: int
    low: int = 36
    high: int = 88
    styles: tuple[str, ...] = ()
    features: tuple[str, ...] = FEATURES

    name: ClassVar[str] = "notes_to_sound"

    @classmethod
    def from_dict(cls, encoding: Mapping[str, Any]) -> NotesToSound:
        """Build from the JSON form; a mistake is a `WeightsError`."""
        known = {"name", "sample_rate", "hop_length", "low", "high", "styles", "features"}
        unknown = sorted(str(key) for key in set(encoding) - known)
        if unknown:
            raise WeightsError(f"encoding: expected keys out of {sorted(known)}, got unknown {unknown}")
        low = whole(encoding, "low", 0, 127, 36)
        styles = _names(encoding, "styles", (), MAX_STYLES)
        features = _names(encoding, "features", FEATURES, len(KNOWN_FEATURES))
        strange = [feature for feature in features if feature not in KNOWN_FEATURES]
        if strange:
            raise WeightsError(f"encoding.features: expected names out of {list(KNOWN_FEATURES)}, got {strange[0]!r}")
        return cls(
            whole(encoding, "sample_rate", 1, 384_000, 0),
            whole(encoding, "hop_length", 1, 1 << 16, 0),
            low,
            whole(encoding, "high", low, 127, 88),
            styles,
            features,
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, with its ``name``: what a model file keeps."""
        return {
            "name": self.name,
            "sample_rate": self.sample_rate,
            "hop_length": self.hop_length,
            "low": self.low,
            "high": self.high,
            "styles": list(self.styles),
            "features": list(self.features),
        }

    @cached_property
    def channels(self) -> tuple[str, ...]:
        """What the numbers of a frame are, by name."""
        pitches = tuple(f"pitch {pitch}" for pitch in range(self.low, self.high + 1))
        styles = tuple(f"style {style}" for style in self.styles) if len(self.styles) > 1 else ()
        features = [name for f in self.features for name in (("phase sine", "phase cosine") if f == "phase" else (f,))]
        return (*pitches, *features, *styles)

    @property
    def num_channels(self) -> int:
        return len(self.channels)

    def num_frames(self, num_samples: int) -> int:
        """Frames that `num_samples` samples need."""
        return -(-num_samples // self.hop_length)

    # -- scores ------------------------------------------------------------------------------------------------------

    def lines(self, score: Score, voices: str | int | Iterable[str | int] = "all") -> list[Line]:
        """The voices of a score, each of one note at a time.

        The notes of a track go, in the order of time and high notes first, to its first line that is silent, which
        counts notes that overlap by less than 50 ms as one after the other (the first then ends where the second
        begins). Pedals are not looked at.

        Parameters
        ----------
        score : Score
        voices : "all", or one or more of the score's tracks, by name (in any case) or number

        Returns
        -------
        list of Line
            By track, and from high to low where the notes of one begin together.

        Raises
        ------
        ValueError
            No such track; no notes; drums; a pitch that the model has not learnt; more than 64 lines; several pieces in
            one file (format 2).
        """
        if score.format == 2:
            raise ValueError("score: expected one piece, got a file of several (format 2)")
        notes = score._checked_notes()
        tracks = score.tracks
        chosen = _chosen(voices, [track.name for track in tracks], np.unique(notes["track"]).tolist())
        lines: list[Line] = []
        for track in chosen:
            own = notes[notes["track"] == track]
            what = f"track {track}" + (f" ({tracks[track].name!r})" if tracks[track].name else "")
            if (own["channel"] == DRUM_CHANNEL).any():
                others = _listed(t for t in np.unique(notes["track"]).tolist() if not tracks[t].is_drum)
                raise ValueError(
                    f"score: expected notes with a pitch, got drums in {what}; choose other tracks as voices "
                    f"({others or 'there are none'})"
                )
            table = np.empty((len(own), 4))
            table[:, 0] = score.to_seconds(own["start"])
            table[:, 1] = score.to_seconds(own["start"] + own["duration"])
            table[:, 2] = own["pitch"]
            table[:, 3] = own["velocity"]
            self._check_pitches(table, what)
            parts = _monophonic(table)
            if len(lines) + len(parts) > MAX_LINES:
                raise ValueError(f"score: expected at most {MAX_LINES} lines of one note at a time, got more")
            lines += [Line(part, track, tracks[track].name, track * MAX_LINES + i) for i, part in enumerate(parts)]
        if not lines:
            raise ValueError("score: expected notes, got none")
        return lines

    def _check_pitches(self, notes: Doubles, what: str) -> None:
        outside = (notes[:, 2] < self.low) | (notes[:, 2] > self.high)
        if outside.any():
            start, _, pitch, _ = notes[int(outside.argmax())]
            raise ValueError(
                f"score: expected pitches from {self.low} ({pitch_name(self.low)}) to {self.high} "
                f"({pitch_name(self.high)}), which the model has learnt, got {int(pitch)} ({pitch_name(int(pitch))}) "
                f"at {start:.2f} s in {what}"
            )

    # -- frames ------------------------------------------------------------------------------------------------------

    def frames(
        self,
        notes: npt.ArrayLike | Line,
        num_frames: int,
        *,
        first: int = 0,
        style: str | None = None,
        phase: npt.ArrayLike | None = None,
    ) -> Floats:
        """What the model is told while it plays one line.

        Parameters
        ----------
        notes : Line, or array [shape=(n, 4)]
            Start and end in seconds, pitch, velocity: one note at a time.
        num_frames : int >= 0
        first : int
            The first of them (frames before 0 are silence before the first note): a part of the frames of a long line
            equals these frames of the whole.
        style : str, optional
            One of `styles`; None: the first.
        phase : array [shape=(num_frames,)], optional
            Of the fundamental in these frames, in periods, as `phases` finds it in a recording of the line. Default:
            what the notes' pitches say.

        Returns
        -------
        np.ndarray [shape=(num_frames, num_channels)], float32

        Raises
        ------
        ValueError
            The notes overlap, or are out of their ranges; there is no such style.
        """
        table = notes.notes if isinstance(notes, Line) else self._checked(notes)
        chosen = self.style(style)
        out = np.zeros((num_frames, self.num_channels), np.float32)
        if len(self.styles) > 1:
            out[:, self.num_channels - len(self.styles) + chosen] = 1
        if not len(table):
            return out
        middle = (np.arange(first, first + num_frames) + 0.5) * (self.hop_length / self.sample_rate)
        start, end, pitch, velocity = table.T
        last = np.searchsorted(start, middle, side="right") - 1  # the note that began last
        begun = last >= 0
        last = np.maximum(last, 0)
        since = middle - end[last]
        sounds = begun & (since < 0)
        rows = np.flatnonzero(sounds)
        out[rows, pitch[last[rows]].astype(np.int64) - self.low] = 1
        column = self.high - self.low + 1
        for feature in self.features:
            if feature == "onset":
                out[rows, column] = np.exp(-(middle[rows] - start[last[rows]]) / DECAY)
            elif feature == "ending":
                out[rows, column] = np.exp(since[rows] / DECAY)
            elif feature == "phase":
                told = last[rows]
                if phase is None:
                    frequency = 440.0 * 2.0 ** ((pitch[told] - 69) / 12)
                    turns = frequency * (middle[rows] - start[told])
                else:
                    turns = np.asarray(phase, np.float64)[rows]
                angle = 2 * np.pi * (turns - np.floor(turns))
                out[rows, column], out[rows, column + 1] = np.sin(angle), np.cos(angle)
                column += 1
            elif feature == "velocity":
                out[rows, column] = velocity[last[rows]] / 127
            else:
                silent = np.flatnonzero(begun & ~sounds)
                out[silent, column] = np.exp(-since[silent] / DECAY)
            column += 1
        return out

    def phases(self, y: npt.ArrayLike, notes: npt.ArrayLike | Line) -> Doubles:
        """The phase of the fundamental, frame by frame, in a recording of a line: what `frames` may be told.

        An instrument is never quite at the pitch that is written, so in a recording the phases that follow from the
        notes are soon wrong. They are found by moving the fundamental to 0 Hz and averaging over two periods, twice,
        which takes the harmonics away.

        Parameters
        ----------
        y : np.ndarray [shape=(n,)]
            Samples, at `sample_rate`.
        notes : Line, or array [shape=(k, 4)]

        Returns
        -------
        np.ndarray [shape=(num_frames(n),)], float64
            In periods from 0 to 1, the phase of a cosine; 0 in silence.
        """
        table = notes.notes if isinstance(notes, Line) else self._checked(notes)
        samples = np.asarray(y, np.float64)
        out = np.zeros(self.num_frames(len(samples)))
        middle = (np.arange(len(out)) + 0.5) * self.hop_length
        for start, end, pitch, _ in table:
            low, high = max(0, int(start * self.sample_rate)), min(len(samples), int(end * self.sample_rate) + 1)
            first, last = np.searchsorted(middle, (start * self.sample_rate, end * self.sample_rate))
            if high - low < 2 or last <= first:
                continue
            cycles = 440.0 * 2.0 ** ((pitch - 69) / 12) / self.sample_rate  # in a sample
            at = np.arange(low, high) - start * self.sample_rate
            moved = samples[low:high] * np.exp(-2j * np.pi * cycles * at)
            width = min(round(2 / cycles), high - low)
            moved = _averaged(_averaged(moved, width), width)
            off = np.unwrap(np.angle(moved)) / (2 * np.pi)
            off[:width] = off[min(width, len(off) - 1)]  # the note is only beginning
            frames = middle[first:last]
            turns = cycles * (frames - start * self.sample_rate) + np.interp(frames, np.arange(low, high), off)
            out[first:last] = turns - np.floor(turns)
        return out

    def style(self, name: str | None) -> int:
        """The number of a style, by name; None is the first."""
        if name is None:
            return 0
        if name not in self.styles:
            raise ValueError(f"style: expected one of {_listed(self.styles)}, got {name!r}")
        return self.styles.index(name)

    def _checked(self, notes: npt.ArrayLike) -> Doubles:
        table = np.asarray(notes, np.float64).reshape(-1, 4) if np.size(notes) == 0 else np.asarray(notes, np.float64)
        if table.ndim != 2 or table.shape[1] != 4:
            raise ValueError(f"notes: expected shape (n, 4), start, end, pitch and velocity, got {table.shape}")
        if not np.isfinite(table).all():
            raise ValueError(f"notes: expected finite numbers, got {table[~np.isfinite(table)][0]}")
        limits = ((0, MAX_SECONDS), (0, MAX_SECONDS), (self.low, self.high), (0, 127))
        for column, (name, (low, high)) in enumerate(zip(("start", "end", "pitch", "velocity"), limits, strict=True)):
            values = table[:, column]
            wrong = (values < low) | (values > high) | ((values != np.floor(values)) if column == 2 else False)
            if wrong.any():
                row = int(wrong.argmax())
                kind = "a whole number" if column == 2 else "a number"
                raise ValueError(f"notes[{row}].{name}: expected {kind} in [{low}, {high}], got {values[row]:g}")
        wrong = table[:, 1] < table[:, 0]
        wrong[1:] |= table[1:, 0] < table[:-1, 1]
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(
                f"notes[{row}]: expected notes one after the other, got one from {table[row, 0]:g} s to "
                f"{table[row, 1]:g} s" + (f" after one that ends at {table[row - 1, 1]:g} s" if row else "")
            )
        return table


def _averaged(values: npt.NDArray[np.complex128], width: int) -> npt.NDArray[np.complex128]:
    """The mean of `width` neighbours around every value, of fewer at the ends."""
    sums = np.concatenate([np.zeros(1), np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) - width // 2, 0)
    last = np.minimum(np.arange(len(values)) - width // 2 + width, len(values))
    means: npt.NDArray[np.complex128] = (sums[last] - sums[first]) / (last - first)
    return means


def _monophonic(notes: Doubles) -> list[Doubles]:
    """The lines of one track's notes."""
    order = np.lexsort((-notes[:, 2], notes[:, 0]))
    lines: list[list[list[float]]] = []
    for note in notes[order].tolist():
        start = note[0]
        for line in lines:
            before = line[-1]
            if before[1] <= start or (before[1] - start < LEGATO and before[0] + LEGATO < start):
                before[1] = min(before[1], start)
                line.append(note)
                break
        else:
            lines.append([note])
    return [np.array(line) for line in lines]


def _chosen(voices: Any, names: Sequence[str], sounding: Sequence[int]) -> list[int]:
    """The tracks that `voices` means, ascending."""
    if isinstance(voices, str) and voices.lower() == "all":
        return list(sounding)
    wanted = [voices] if isinstance(voices, str | int | np.integer) else voices
    if not isinstance(wanted, Iterable):
        raise TypeError(f"voices: expected 'all' or tracks by name or number, got {type(voices).__name__}")
    chosen: set[int] = set()
    for voice in wanted:
        if isinstance(voice, bool) or not isinstance(voice, str | int | np.integer):
            raise TypeError(f"voices: expected 'all' or tracks by name or number, got {voice!r}")
        if isinstance(voice, str):
            found = [track for track in sounding if names[track].strip().casefold() == voice.strip().casefold()]
            if not found and voice.strip().isdecimal():
                found = [track for track in sounding if track == int(voice)]
        else:
            found = [track for track in sounding if track == voice]
        if not found:
            known = _listed(f"{track} ({names[track]!r})" if names[track] else track for track in sounding)
            raise ValueError(f"voices: expected 'all' or a track with notes out of {known or 'none'}, got {voice!r}")
        chosen.update(found)
    if not chosen:
        raise ValueError("voices: expected 'all' or at least one track, got none")
    return sorted(chosen)


def _names(encoding: Mapping[str, Any], key: str, default: tuple[str, ...], most: int) -> tuple[str, ...]:
    value = encoding.get(key, default)
    if not isinstance(value, list | tuple) or len(value) > most:
        raise WeightsError(f"encoding.{key}: expected a list of at most {most} names, got {value!r}")
    for name in value:
        if not isinstance(name, str) or not name or not name.isprintable() or len(name) > 200:
            raise WeightsError(f"encoding.{key}: expected short names, got {name!r}")
    if len(set(value)) != len(value):
        raise WeightsError(f"encoding.{key}: expected distinct names, got {list(value)}")
    return tuple(value)


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(str(name) for name in names)
