"""One token for every note, as in the simplest language models of melodies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from musicgen_ext import _core
from musicgen_ext.encodings.stream import TokenStream, check_choice, check_tracks, check_truth, check_whole

POLYPHONY = ("all", "highest", "lowest")
MAX_DURATION = 1 << 20


@dataclass(frozen=True)
class PitchSequence(TokenStream):
    """One token for every note: its pitch, in order of start, then pitch. Times are not kept.

    Token ``pitch - lowest`` is a note, the last one the end of the piece (if `end`). What decoding gives is a grid of
    its own: one note after the other, all `duration` ticks long, 480 ticks a quarter note, on one track. Scores of this
    form survive encoding and decoding exactly.

    Attributes
    ----------
    lowest, highest : int, 0 to 127
        Pitches of the vocabulary, both included. Notes outside are left out, and counted among the issues.
    polyphony : "all", "highest" or "lowest"
        Which of the notes that begin at the same tick are kept.
    drums : bool
        Whether the notes of the drum channel are encoded.
    tracks : tuple of int, optional
        The tracks that are encoded, by index; None: all. Decoding makes the first of them.
    duration : int, 1 to 1048576
        Length of a decoded note, in ticks. 240: an eighth note.
    velocity : int, 1 to 127
        Velocity of a decoded note.
    end : bool
        Whether a token ends the piece.

    Raises
    ------
    ValueError, TypeError
        An option out of its range, by name.

    Notes
    -----
    Encoding refuses (`ValueError`) a note that begins at tick 2^56 or later, and several pieces in a file of format 2.
    """

    name: ClassVar[str] = "pitch_sequence"

    lowest: int = 0
    highest: int = 127
    polyphony: str = "all"
    drums: bool = False
    tracks: tuple[int, ...] | None = None
    duration: int = 240
    velocity: int = 80
    end: bool = True

    def _check(self) -> None:
        check_whole("lowest", self.lowest, 0, 127)
        check_whole("highest", self.highest, self.lowest, 127)
        check_choice("polyphony", self.polyphony, POLYPHONY)
        check_truth("drums", self.drums)
        check_tracks(self.tracks)
        check_whole("duration", self.duration, 1, MAX_DURATION)
        check_whole("velocity", self.velocity, 1, 127)
        check_truth("end", self.end)

    def _make_encoder(self) -> _core.Encoder:
        return _core.PitchEncoder(
            self.lowest, self.highest, POLYPHONY.index(self.polyphony), self.drums, self.tracks, self.duration,
            self.velocity, self.end,
        )  # fmt: skip

    def _make_vocabulary(self) -> list[str]:
        return [f"pitch {pitch}" for pitch in range(self.lowest, self.highest + 1)] + ["end"] * self.end
