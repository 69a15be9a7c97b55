"""What a player does, event by event: note-ons, note-offs, time and velocity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from musicgen_ext import _core
from musicgen_ext.encodings.stream import TokenStream, check_tracks, check_truth, check_whole

MAX_RATE = 1000


@dataclass(frozen=True)
class Performance(TokenStream):
    """Note-ons, note-offs, shifts of time and velocities, in the order in which they happen.

    =====================================  ===========================================================================
    ids (with the default options)         meaning
    =====================================  ===========================================================================
    0 to 127                               note-on of that pitch
    128 to 255                             note-off of pitch ``id - 128``
    256 to 355                             time moves on by ``id - 255`` steps
    356 to 387                             velocity of the next note-ons: bin ``id - 355``
    388                                    end of the piece (if `end`)
    =====================================  ===========================================================================

    The first 388 are the events of Oore et al. with the ids of Magenta's ``PerformanceOneHotEncoding``, and its bins of
    velocity: bin b of 32 holds velocities ``4 b - 3`` to ``4 b``, and is decoded as the first of them.

    The stream is one instrument: all chosen tracks are merged. At one step the note-offs come first, then the note-ons,
    each from low to high; a velocity is written where it changes. A note-off ends the oldest sounding note of its
    pitch: a note that began and ended inside another one of its pitch exchanges ends with it (that is counted among
    the issues).

    Starts and ends are moved to the nearest step, half a step up; a note lasts one step at least. Decoding gives one
    track, on which a step is a whole number of ticks: of 100 steps a second each has 10 ticks, 500 ticks are a quarter
    note, 120 quarter notes a minute (a tick is a millisecond). Scores of this form survive encoding and decoding
    exactly. Any tokens can be decoded: a note-off of nothing is left out, a note that is never ended sounds until the
    last token, and one that is ended where it begins lasts one step.

    Attributes
    ----------
    steps_per_second : int, 1 to 1000
    steps_per_beat : int, 1 to 1000, optional
        Steps of a quarter note in place of steps of a second: tempos then play no part.
    max_shift : int, 1 to 1000
        The longest shift of time, in steps; longer ones take several tokens.
    velocity_bins : int, 0 to 127
        0: no velocities.
    drums : bool
        Whether the notes of the drum channel are encoded, too.
    tracks : tuple of int, optional
        The tracks that are encoded, by index; None: all. Decoding makes the first of them.
    sustain : bool
        Whether a note sounds for as long as the sustain pedal holds it, by the rule of `Score.apply_sustain`.
    velocity : int, 1 to 127
        Velocity of decoded notes before the first token that says one.
    end : bool
        Whether a token ends the piece.

    Raises
    ------
    ValueError, TypeError
        An option out of its range, by name.

    Notes
    -----
    Encoding and decoding refuse (`ValueError`) a piece of more than 2^27 steps (at 100 a second, 15 days), and several
    pieces in a file of format 2. In SMPTE time a quarter note takes half a second.

    Source: S. Oore, I. Simon, S. Dieleman, D. Eck, K. Simonyan, This time with feeling: learning expressive musical
    performance, Neural Computing and Applications 32, 2018.
    """

    name: ClassVar[str] = "performance"

    steps_per_second: int = 100
    steps_per_beat: int | None = None
    max_shift: int = 100
    velocity_bins: int = 32
    drums: bool = False
    tracks: tuple[int, ...] | None = None
    sustain: bool = True
    velocity: int = 80
    end: bool = True

    def _check(self) -> None:
        check_whole("steps_per_second", self.steps_per_second, 1, MAX_RATE)
        if self.steps_per_beat is not None:
            check_whole("steps_per_beat", self.steps_per_beat, 1, MAX_RATE)
        check_whole("max_shift", self.max_shift, 1, MAX_RATE)
        check_whole("velocity_bins", self.velocity_bins, 0, 127)
        check_truth("drums", self.drums)
        check_tracks(self.tracks)
        check_truth("sustain", self.sustain)
        check_whole("velocity", self.velocity, 1, 127)
        check_truth("end", self.end)

    def _make_encoder(self) -> _core.Encoder:
        return _core.EventEncoder(
            self.steps_per_second, self.steps_per_beat or 0, self.max_shift, self.velocity_bins, self.drums,
            self.tracks, self.sustain, self.velocity, self.end,
        )  # fmt: skip

    def _make_vocabulary(self) -> list[str]:
        return [
            *(f"note_on {pitch}" for pitch in range(128)),
            *(f"note_off {pitch}" for pitch in range(128)),
            *(f"time_shift {steps}" for steps in range(1, self.max_shift + 1)),
            *(f"velocity {number}" for number in range(1, self.velocity_bins + 1)),
            *["end"] * self.end,
        ]
