"""Bars, positions in them, and what happens there: any piece of any number of instruments as one stream."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from musicgen_ext import _core
from musicgen_ext.encodings.stream import TokenStream, check_truth, check_whole

TIME_SIGNATURES = (
    *(f"{n}/2" for n in range(1, 5)),
    *(f"{n}/4" for n in range(1, 9)),
    *(f"{n}/8" for n in range(1, 13)),
)
CHORD_QUALITIES = ("maj", "min", "dim", "aug", "7", "maj7", "min7", "hdim7", "dim7")
NOTE_NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
MAX_DURATIONS = 1024


@dataclass(frozen=True)
class Bars(TokenStream):
    """Bars, positions in them, and what happens there: any piece of any number of instruments as one stream.

    The vocabulary, in this order (number of ids with the default options):

    - ``bar`` (1): the next bar begins;
    - ``time_signature n/d`` (24), in the first bar and where it changes, directly after ``bar``;
    - ``position p`` (96): what follows happens `p` steps after the bar line;
    - ``tempo b`` (37), quarter notes a minute, at the first position and where it changes;
    - ``chord C:maj`` (0; 108 with `chords`), where it changes;
    - ``program p`` (128) and ``program drums`` (1): who plays the next notes; written before the first note of a
      position, and where it changes;
    - ``pitch p`` (128) and ``drum_pitch p`` (128): a note begins;
    - ``velocity v`` (32) and ``duration d`` (60), in steps: of that note;
    - ``end`` (1), if `end`.

    A piece is written from tick 0 to the bar in which its last note begins; empty bars are a ``bar`` each. At a
    position come its tempo, its chord, then its notes, by program (drums last), then pitch. The tracks of one program
    are merged; the program of a note is the one in force at its start in its track and channel or, where that has none
    of its own, in its channel.

    What the grid cannot hold is counted among the issues:

    - Starts, ends, tempos and time signatures are moved to the nearest step, half a step up; a note lasts at least one.
    - A duration outside the vocabulary becomes the nearest (the longer of two), one beyond the longest is cut. Up to 2
      quarter notes every step is in the vocabulary, up to 4 every second, up to 8 every fourth, and so on to
      `max_duration`; with `even_durations`, every step.
    - Of the notes of one program and pitch that begin together, the longest is kept, then the loudest.
    - Of the tempos (or time signatures) at one step, the last is kept. A tempo becomes the nearest of `tempo_bins`,
      which lie in equal ratios from `lowest_tempo` to `highest_tempo`. What comes after the last note is left out.
    - A time signature outside the vocabulary is written as 4/4.
    - Velocities are kept to a bin, as in `Performance`.

    A time signature that does not come at a bar line (after a pickup, say) cuts the bar short: then the last token
    of that bar is the ``position`` at which the next one begins, with nothing at it.

    Decoding gives one track for every program, in their order, drums last; tempos and time signatures are on the first.
    480 ticks are a quarter note, or the next more that steps divide. Scores of this form survive encoding and decoding
    exactly. Any tokens can be decoded: before the first bar is as after it; a note without velocity has `velocity`, one
    without duration lasts a quarter note; ``velocity`` and ``duration`` speak of the note before them; a drum pitch is
    for the drums and a pitch for the last program other than the drums; chords are not played.

    The chord of a quarter note, counted from the bar line, is found by weighing its pitch classes (drums left out) by
    the steps they sound: of the chords all of whose tones sound, the one whose tones weigh most, then the one on the
    lowest note, then the first of the vocabulary. Where there is none, the one before goes on.

    Attributes
    ----------
    steps_per_beat : int, 1 to 480
        Steps of a quarter note.
    time_signatures : tuple of str
        ``"3/4"`` and so on, one of them ``"4/4"``, each with bars of whole steps.
    tempo_bins : int, 2 to 128, or 0 for no tempos
    lowest_tempo, highest_tempo : int, 10 to 1000
        Quarter notes a minute; the highest at least double the lowest.
    chords, programs, drums : bool
        Whether there are chords, programs (without them, all that is no drum is one instrument), drums.
    velocity_bins : int, 0 to 127
        0: no velocities.
    velocity : int, 1 to 127
        Velocity of decoded notes without one.
    max_duration : int, 1 to 64
        In quarter notes.
    even_durations : bool
        Whether every duration up to `max_duration` is in the vocabulary.
    end : bool
        Whether a token ends the piece.

    Raises
    ------
    ValueError, TypeError
        An option out of its range, by name.

    Notes
    -----
    Encoding and decoding refuse (`ValueError`) a piece of more than 2^27 steps, and several pieces in a file of format
    2. In SMPTE time a quarter note takes half a second.

    Sources: Y.-S. Huang, Y.-H. Yang, Pop Music Transformer, ACM Multimedia 2020 (REMI); D. von Rütte et al., FIGARO,
    2022 (programs in the stream); C. Harte et al., Symbolic representation of musical chords, ISMIR 2005 (names).
    """

    name: ClassVar[str] = "bars"

    steps_per_beat: int = 12
    time_signatures: tuple[str, ...] = TIME_SIGNATURES
    tempo_bins: int = 37
    lowest_tempo: int = 30
    highest_tempo: int = 240
    chords: bool = False
    programs: bool = True
    drums: bool = True
    velocity_bins: int = 32
    velocity: int = 80
    max_duration: int = 16
    even_durations: bool = False
    end: bool = True

    def _check(self) -> None:
        check_whole("steps_per_beat", self.steps_per_beat, 1, 480)
        _check_time_signatures(self.time_signatures, self.steps_per_beat)
        check_whole("tempo_bins", self.tempo_bins, 0, 128)
        if self.tempo_bins == 1:
            raise ValueError("tempo_bins: expected 0 or an integer in [2, 128], got 1")
        check_whole("lowest_tempo", self.lowest_tempo, 10, 500)
        check_whole("highest_tempo", self.highest_tempo, 2 * self.lowest_tempo, 1000)
        for option in ("chords", "programs", "drums"):
            check_truth(option, getattr(self, option))
        check_whole("velocity_bins", self.velocity_bins, 0, 127)
        check_whole("velocity", self.velocity, 1, 127)
        check_whole("max_duration", self.max_duration, 1, 64)
        check_truth("even_durations", self.even_durations)
        if len(self.duration_steps) > MAX_DURATIONS:
            raise ValueError(
                f"max_duration: expected at most {MAX_DURATIONS} durations in steps of 1/{self.steps_per_beat}, "
                f"got {self.max_duration}"
            )
        check_truth("end", self.end)

    @property
    def duration_steps(self) -> list[int]:
        """The durations of the vocabulary, in steps, ascending."""
        steps, stride, fine_until = [1], 1, 2 * self.steps_per_beat
        while steps[-1] + stride <= self.max_duration * self.steps_per_beat:
            steps.append(steps[-1] + stride)
            if steps[-1] == fine_until and not self.even_durations:
                stride, fine_until = 2 * stride, 2 * fine_until
        return steps

    @property
    def microseconds_per_quarter(self) -> list[int]:
        """The tempos of the vocabulary, ascending in speed."""
        ratio = self.highest_tempo / self.lowest_tempo
        last = max(self.tempo_bins - 1, 1)
        return [round(6e7 / (self.lowest_tempo * ratio ** (i / last))) for i in range(self.tempo_bins)]

    def _make_encoder(self) -> _core.Encoder:
        signatures = [_parsed(text) for text in self.time_signatures]
        return _core.BarEncoder(
            self.steps_per_beat, signatures, self.microseconds_per_quarter, self.duration_steps, self.chords,
            self.programs, self.drums, self.velocity_bins, self.velocity, self.end,
        )  # fmt: skip

    def _make_vocabulary(self) -> list[str]:
        longest_bar = max(4 * n * self.steps_per_beat // d for n, d in map(_parsed, self.time_signatures))
        return [
            "bar",
            *(f"time_signature {signature}" for signature in self.time_signatures),
            *(f"position {step}" for step in range(longest_bar)),
            *(f"tempo {6e7 / microseconds:.2f}" for microseconds in self.microseconds_per_quarter),
            *(f"chord {root}:{quality}" for root in NOTE_NAMES for quality in CHORD_QUALITIES if self.chords),
            *(f"program {program}" for program in [*range(128), "drums"] if self.programs),
            *(f"pitch {pitch}" for pitch in range(128)),
            *(f"drum_pitch {pitch}" for pitch in range(128) if self.drums),
            *(f"velocity {number}" for number in range(1, self.velocity_bins + 1)),
            *(f"duration {steps}" for steps in self.duration_steps),
            *["end"] * self.end,
        ]


def _parsed(signature: str) -> tuple[int, int]:
    numerator, denominator = signature.split("/")
    return int(numerator), int(denominator)


def _check_time_signatures(signatures: Any, steps_per_beat: int) -> None:
    if not isinstance(signatures, tuple) or any(not isinstance(text, str) for text in signatures):
        raise TypeError(f"time_signatures: expected a tuple of strings like '3/4', got {signatures!r}")
    if "4/4" not in signatures or not len(set(signatures)) == len(signatures) <= 256:
        raise ValueError(
            f"time_signatures: expected at most 256 different ones and '4/4' with them, got {signatures!r}"
        )
    for text in signatures:
        if not re.fullmatch(r"[1-9]\d{0,2}/(1|2|4|8|16|32|64|128)", text) or _parsed(text)[0] > 255:
            raise ValueError(f"time_signatures: expected 1 to 255 over a power of two up to 128, got {text!r}")
        numerator, denominator = _parsed(text)
        if 4 * numerator * steps_per_beat % denominator:
            raise ValueError(
                f"time_signatures: expected bars of whole steps with steps_per_beat={steps_per_beat}, got {text!r}"
            )
