"""Voices on a grid of sixteenths: four of a choir, or up to eight by any names.

`VoiceGrid` turns a piece into a token grid (n_frames, F) and back, and makes the arrays of the *given* features, what a
model may be told about a piece (metre, mode, key, the soprano to harmonise). The model file keeps its JSON form.
`read_voices` and `read_melody` find the voices, or the first one, in any score that has them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core
from musicgen_ext.encodings.base import Encoding, Ints, whole
from musicgen_ext.errors import WeightsError
from musicgen_ext.midi import Score

if TYPE_CHECKING:
    from musicgen_ext.architectures import RecurrentConfig

VOICES = ("soprano", "alto", "tenor", "bass")  # columns of a grid, high to low
MAX_VOICES = 8
REST = -1

NO_FLAG, FERMATA, END = 0, 1, 2
FLAGS = 3
MODES = ("major", "minor")
SCALES = {  # semitones above the tonic
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
}
METERS = ("4/4", "3/4")
UNKNOWN_POSITION = 32
STEPS_LEFT, BARS_LEFT = 16, 32  # of a length that a model is told: so many sixteenths one by one, then whole bars
MAX_STEPS = 1 << 16  # 4096 bars of 4/4
WAIT_BUCKETS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24)

# What every voice does in the chorales a model is trained on, MIDI pitches, both included.
CHORALE_RANGES = {"soprano": (57, 81), "alto": (53, 74), "tenor": (48, 69), "bass": (36, 64)}
# The keys of the chorales in the training split (tonic: the last bass note), and how many pieces have each.
CHORALE_KEYS = (
    (7, "major", 36.0), (2, "major", 20.0), (5, "major", 18.0), (9, "major", 17.0), (10, "major", 15.0),
    (0, "major", 10.0), (4, "major", 7.0), (3, "major", 6.0), (8, "major", 1.0), (11, "major", 1.0),
    (7, "minor", 27.0), (4, "minor", 27.0), (2, "minor", 20.0), (9, "minor", 17.0), (11, "minor", 9.0),
    (6, "minor", 6.0), (0, "minor", 5.0),
)  # fmt: skip
JSB16_RANGES = {"soprano": (60, 81), "alto": (52, 74), "tenor": (46, 69), "bass": (36, 66)}


STEPS_PER_QUARTER = 4
TICKS_PER_QUARTER = 480
TICKS_PER_STEP = TICKS_PER_QUARTER // STEPS_PER_QUARTER
CHOIR_AAHS = 52  # General MIDI program, counted from 0

# What a track may be called, by the first words of its name in lower case; voices of other names have no other.
_ALIASES = {
    "soprano": ("soprano", "sopran", "s", "s.", "treble", "discant", "cantus"),
    "alto": ("alto", "alt", "a", "a."),
    "tenor": ("tenor", "t", "t."),
    "bass": ("bass", "basso", "b", "b.", "bassus"),
}


class Note(NamedTuple):
    """One note, its times in ticks: the first five columns of `Score.notes`."""

    start: int
    duration: int
    pitch: int
    velocity: int
    track: int


@dataclass(frozen=True)
class Grid:
    """A piece on a grid, one column for every voice, high voice first.

    Attributes
    ----------
    pitch : np.ndarray [shape=(T, n_voices)], int32
        MIDI pitch, -1 for a rest.
    onset : np.ndarray [shape=(T, n_voices)], bool
        Where a note begins (never in a rest).
    fermata : np.ndarray [shape=(T,)], bool
        Where a chord with a fermata begins.
    ended : bool
        Whether the tokens said that the piece ends here (True too if the encoding cannot say).
    """

    pitch: Ints
    onset: npt.NDArray[np.bool_]
    fermata: npt.NDArray[np.bool_]
    ended: bool = True


@dataclass(frozen=True)
class Meter:
    """Time signature, and how many sixteenths the piece begins before a full bar."""

    numerator: int = 4
    denominator: int = 4
    pickup: int = 0

    @property
    def bar_length(self) -> int:
        """Sixteenths in a bar."""
        return max(1, 16 * self.numerator // self.denominator)

    def __str__(self) -> str:
        return f"{self.numerator}/{self.denominator}"

    def positions(self, n_frames: int) -> Ints:
        """Sixteenth inside the bar of every frame."""
        return ((np.arange(n_frames) - self.pickup) % self.bar_length).astype(np.int32)


@dataclass(frozen=True)
class Voices:
    """Voices found in a score, on the grid.

    Attributes
    ----------
    pitch, onset : np.ndarray [shape=(T, n_voices)]
        As in `Grid`, high voice first; the first frame is where the first note begins.
    fermata : np.ndarray [shape=(T,)], bool
    position : np.ndarray [shape=(T,)], int32
        Sixteenth inside the bar.
    meter : Meter
        The time signature at the end, and the sixteenths before the first full bar.
    tempo : float
        Quarters a minute, the first of the score.
    issues : tuple of str
        What the grid could not hold: notes that were moved, shortened, left out.
    begin : int
        The first frame, in sixteenths of the score.
    """

    pitch: Ints
    onset: npt.NDArray[np.bool_]
    fermata: npt.NDArray[np.bool_]
    position: Ints
    meter: Meter
    tempo: float
    issues: tuple[str, ...] = ()
    begin: int = 0

    def transposition(self, ranges: Sequence[tuple[int, int]]) -> int | None:
        """The smallest shift in semitones that brings every voice into its range; None: there is none."""
        low, high = -128, 127
        for pitch, (lowest, highest) in zip(self.pitch.T, ranges, strict=True):
            sounding = pitch[pitch != REST]
            if len(sounding):
                low, high = max(low, lowest - int(sounding.min())), min(high, highest - int(sounding.max()))
        return None if low > high else min(max(0, low), high)


def slot_order(voices: Sequence[str]) -> tuple[str, ...]:
    """Voices as the slots of a frame: the outer ones are drawn first, then what fits between them, from high to low."""
    return tuple(voices[:1]) + tuple(voices[1:][-1:]) + tuple(voices[1:-1])


SLOT_ORDER = slot_order(VOICES)


def velocity_of(voice: int, num_voices: int) -> int:
    """How loud a voice is decoded: the melody in front, the ground under it."""
    if voice == 0:
        return 88
    return 82 if voice == num_voices - 1 else 76


def default_ranges(
    voices: Sequence[str], hold: bool = True, lowest_pitch: int = 36, num_pitches: int = 46
) -> dict[str, tuple[int, int]]:
    """Ranges of voices where nothing is said about them.

    Those of the chorales (or of the JSB benchmark) for the four voices of a choir; for others, windows on the
    vocabulary as wide as two of ``n_voices + 1`` equal parts, at equal distances from high to low.
    """
    if tuple(voices) == VOICES:
        return dict(CHORALE_RANGES if hold else JSB16_RANGES)
    last = num_pitches - 1
    width = last if len(voices) == 1 else round(2 * last / (len(voices) + 1))
    found = {}
    for below, voice in enumerate(reversed(voices)):
        low = lowest_pitch + round(below * (last - width) / max(1, len(voices) - 1))
        found[voice] = (low, low + width)
    return {voice: found[voice] for voice in voices}


@dataclass(frozen=True)
class VoiceGrid(Encoding):
    """Voices on a grid of sixteenths.

    With `hold` (the encoding of the chorales) a frame has a slot *flag* {0 nothing, 1 a fermata begins, 2 end}, then
    one for every voice, the first and the last, then those between from high to low (soprano, bass, alto, tenor), each
    {0 hold, 1 rest, 2 + i: onset of pitch `lowest_pitch` + i}; one frame with the flag *end* (and holds) follows the
    last one. Without it (the encoding of the JSB benchmark) there are the voices only, each {0 silent, 1 + i: pitch
    `lowest_pitch` + i}, and a repeated note cannot be told from a held one.

    Attributes
    ----------
    hold : bool
    ranges : dict of voice to (low, high)
        MIDI pitches that the model has heard from the voice: samples stay inside, prompts are transposed into them.
        Voices other than those of a choir are also looked for there (see `read_voices`).
    starts : sequence of (meter, pickup in sixteenths, weight)
        How pieces begin; without a condition one of them is drawn.
    keys : sequence of (tonic, mode, weight)
        Likewise, the keys: tonic as a pitch class, mode out of `modes`.
    lengths : sequence of (bars, weight)
        Likewise, how long pieces are; a model of an encoding that has them may be told how much is left. None:
        models end their pieces where they like.
    meters : sequence of str
        Time signatures that a model can tell apart, "4/4" style; others that have the length of one of them count as
        the first of these, all that is left as "other".
    modes : sequence of str
        Out of "major", "minor", "mixolydian", "dorian".
    tempo : float
        Quarters a minute of what is sampled.
    tempos : sequence of (meter, quarters a minute)
        Of metres that have another one.
    lowest_pitch, num_pitches, steps_per_quarter : int
    voices : sequence of str
        Names of 1 to 8 voices, from high to low. A track whose name begins so (in any case) is that voice.
    program : int
        General MIDI program of what is decoded, counted from 0.

    Raises
    ------
    ValueError
        Voices that are not 1 to 8 different names, or without a range each; a vocabulary beyond MIDI's pitches.
    """

    name: ClassVar[str] = "voice_grid"

    hold: bool = True
    ranges: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    starts: Sequence[tuple[str, int, float]] = (("4/4", 4, 0.66), ("4/4", 0, 0.23), ("3/4", 0, 0.07), ("3/4", 4, 0.04))
    keys: Sequence[tuple[int, str, float]] = CHORALE_KEYS
    tempo: float = 80.0
    lowest_pitch: int = 36
    num_pitches: int = 46
    steps_per_quarter: int = 4
    voices: Sequence[str] = VOICES
    lengths: Sequence[tuple[int, float]] = ()
    meters: Sequence[str] = METERS
    modes: Sequence[str] = MODES
    program: int = CHOIR_AAHS
    tempos: Sequence[tuple[str, float]] = ()

    def __post_init__(self) -> None:
        voices = tuple(self.voices)
        named = all(isinstance(name, str) and name.split() and name.isprintable() for name in voices)
        if not named or not 1 <= len({str(name).lower() for name in voices}) == len(voices) <= MAX_VOICES:
            raise ValueError(f"voices: expected 1 to {MAX_VOICES} different names, got {self.voices!r}")
        object.__setattr__(self, "voices", voices)
        if not self.ranges:
            ranges = default_ranges(voices, self.hold, self.lowest_pitch, self.num_pitches)
            object.__setattr__(self, "ranges", ranges)
        if set(self.ranges) != set(voices):
            raise ValueError(f"ranges: expected a range for each of {list(voices)}, got {self.ranges!r}")
        if not 0 <= self.lowest_pitch < self.lowest_pitch + self.num_pitches <= 128:
            raise ValueError(
                f"num_pitches: expected pitches from 0 to 127, got {self.num_pitches} from {self.lowest_pitch}"
            )

    # -- the JSON form -----------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, with its ``name``."""
        made = {
            "name": self.name,
            "hold": self.hold,
            "ranges": {voice: list(self.ranges[voice]) for voice in self.voices},
            "starts": [list(start) for start in self.starts],
            "keys": [list(key) for key in self.keys],
            "tempo": self.tempo,
            "lowest_pitch": self.lowest_pitch,
            "num_pitches": self.num_pitches,
            "steps_per_quarter": self.steps_per_quarter,
        }
        if self.voices != VOICES:  # without it, whoever knows four voices only can read the form
            made["voices"] = list(self.voices)
        if self.lengths:
            made["lengths"] = [list(length) for length in self.lengths]
        if self.meters != METERS:
            made["meters"] = list(self.meters)
        if self.modes != MODES:
            made["modes"] = list(self.modes)
        if self.program != CHOIR_AAHS:
            made["program"] = self.program
        if self.tempos:
            made["tempos"] = [list(tempo) for tempo in self.tempos]
        return made

    @classmethod
    def from_dict(cls, encoding: Mapping[str, Any]) -> VoiceGrid:
        known = {
            "name", "hold", "ranges", "starts", "keys", "tempo", "lowest_pitch", "num_pitches", "steps_per_quarter",
            "voices", "lengths", "meters", "modes", "program", "tempos",
        }  # fmt: skip
        if encoding.get("name") != "voice_grid":
            raise WeightsError(f"encoding.name: expected 'voice_grid', got {encoding.get('name')!r}")
        unknown = sorted(set(encoding) - known)
        if unknown:
            raise WeightsError(f"encoding: expected keys out of {sorted(known)}, got unknown {unknown}")
        hold = encoding.get("hold", True)
        if not isinstance(hold, bool):
            raise WeightsError(f"encoding.hold: expected true or false, got {hold!r}")
        lowest = whole(encoding, "lowest_pitch", 0, 127, 36)
        count = whole(encoding, "num_pitches", 1, 128 - lowest, 46)
        voices = encoding.get("voices", VOICES)
        if not isinstance(voices, list | tuple):
            raise WeightsError(f"encoding.voices: expected a list of names, got {voices!r}")
        try:
            default = cls(hold, lowest_pitch=lowest, num_pitches=count, voices=voices).ranges
        except ValueError as error:
            raise WeightsError(f"encoding.{error}") from None
        ranges = encoding.get("ranges", default)
        if not isinstance(ranges, Mapping) or set(ranges) != set(voices):
            raise WeightsError(f"encoding.ranges: expected a range for each of {list(voices)}, got {ranges!r}")
        checked = {}
        for voice in voices:
            pair = ranges[voice]
            if not (
                isinstance(pair, list | tuple)
                and len(pair) == 2
                and all(type(p) is int for p in pair)
                and lowest <= pair[0] <= pair[1] < lowest + count
            ):
                raise WeightsError(
                    f"encoding.ranges.{voice}: expected [low, high] in [{lowest}, {lowest + count - 1}], got {pair!r}"
                )
            checked[voice] = (pair[0], pair[1])
        meters, modes = encoding.get("meters", METERS), encoding.get("modes", MODES)
        bars = _bar_lengths(meters)
        if not (isinstance(modes, list | tuple) and modes and set(modes) <= set(SCALES)):
            raise WeightsError(f"encoding.modes: expected some of {list(SCALES)}, got {modes!r}")
        starts = encoding.get("starts", cls.starts)
        if not isinstance(starts, list | tuple) or not 1 <= len(starts) <= 100:
            raise WeightsError(f"encoding.starts: expected 1 to 100 of [meter, pickup, weight], got {starts!r}")
        for start in starts:
            if not (
                isinstance(start, list | tuple)
                and len(start) == 3
                and start[0] in list(bars)
                and type(start[1]) is int
                and 0 <= start[1] < bars[start[0]]
                and type(start[2]) in (int, float)
                and 0 < start[2] < 1e9
            ):
                raise WeightsError(
                    f"encoding.starts: expected [meter, pickup in sixteenths, weight > 0] with a meter out of "
                    f"{sorted(bars)}, got {start!r}"
                )
        keys = encoding.get("keys", cls.keys)
        if not isinstance(keys, list | tuple) or not 1 <= len(keys) <= 100:
            raise WeightsError(f"encoding.keys: expected 1 to 100 of [tonic, mode, weight], got {keys!r}")
        for key in keys:
            if not (
                isinstance(key, list | tuple)
                and len(key) == 3
                and type(key[0]) is int
                and 0 <= key[0] < 12
                and key[1] in list(modes)
                and type(key[2]) in (int, float)
                and 0 < key[2] < 1e9
            ):
                raise WeightsError(
                    f"encoding.keys: expected [tonic from 0 to 11, mode out of {list(modes)}, weight > 0], got {key!r}"
                )
        lengths = encoding.get("lengths", ())
        if not isinstance(lengths, list | tuple) or len(lengths) > 100:
            raise WeightsError(f"encoding.lengths: expected up to 100 of [bars, weight], got {lengths!r}")
        for length in lengths:
            if not (
                isinstance(length, list | tuple)
                and len(length) == 2
                and type(length[0]) is int
                and 1 <= length[0] <= 256
                and type(length[1]) in (int, float)
                and 0 < length[1] < 1e9
            ):
                raise WeightsError(f"encoding.lengths: expected [bars from 1 to 256, weight > 0], got {length!r}")
        tempo = encoding.get("tempo", 80.0)
        if type(tempo) not in (int, float) or not 10 <= tempo <= 1000:
            raise WeightsError(f"encoding.tempo: expected 10 to 1000 quarters a minute, got {tempo!r}")
        tempos = encoding.get("tempos", ())
        for entry in tempos if isinstance(tempos, list | tuple) else (tempos,):
            if not (
                isinstance(entry, list | tuple)
                and len(entry) == 2
                and entry[0] in list(bars)
                and type(entry[1]) in (int, float)
                and 10 <= entry[1] <= 1000
            ):
                raise WeightsError(
                    f"encoding.tempos: expected [meter, 10 to 1000 quarters a minute] with a meter out of "
                    f"{sorted(bars)}, got {entry!r}"
                )
        steps = whole(encoding, "steps_per_quarter", 4, 4, 4)
        return cls(
            hold,
            checked,
            tuple((meter, pickup, float(weight)) for meter, pickup, weight in starts),
            tuple((tonic, mode, float(weight)) for tonic, mode, weight in keys),
            float(tempo),
            lowest,
            count,
            steps,
            tuple(voices),
            tuple((bars, float(weight)) for bars, weight in lengths),
            tuple(meters),
            tuple(modes),
            whole(encoding, "program", 0, 127, CHOIR_AAHS),
            tuple((meter, float(quarters)) for meter, quarters in tempos),
        )

    def check(self, config: RecurrentConfig) -> None:
        """Refuse a network whose slots or given features are not those of this encoding (a `WeightsError`)."""
        ours = [(s["name"], s["size"], s["first_pitch"], s["hold"]) for s in self.slots]
        theirs = [(s.name, s.size, s.first_pitch, s.hold) for s in config.slots]
        if ours != theirs:
            raise WeightsError(
                f"config.slots: expected {ours} (name, size, first_pitch, hold) for this encoding, got {theirs}"
            )
        sizes = self.given_sizes
        for name in config.given:
            if config.feature_size(name) != sizes.get(name):
                raise WeightsError(
                    f"config.features: expected given features out of {sizes} (name: size) for this encoding, "
                    f"got {name!r} of size {config.feature_size(name)}"
                )

    # -- the vocabulary ----------------------------------------------------------------------------------------------

    @cached_property
    def encoder(self) -> _core.VoiceGrid:
        return _core.VoiceGrid(
            [
                (voice, list(_ALIASES.get(voice, (voice,))), *CHORALE_RANGES.get(voice, self.ranges[voice]))
                for voice in self.voices
            ],
            self.hold,
            self.lowest_pitch,
            self.num_pitches,
            round(60e6 / self.tempo),
            self.program,
        )

    @property
    def vocab_size(self) -> int:
        return self.first_pitch + self.num_pitches

    def describe(self, token: int) -> str:
        """What a token means in the slot of a voice."""
        if not 0 <= token < self.vocab_size:
            raise ValueError(f"token: expected 0 to {self.vocab_size - 1}, got {token}")
        if token >= self.first_pitch:
            return f"pitch {self.lowest_pitch + token - self.first_pitch}"
        return "rest" if token == self.rest else "hold"

    @property
    def slots(self) -> list[dict[str, Any]]:
        """The slots of a frame in order, as `RecurrentConfig` wants them (without heads)."""
        voice = {"size": self.vocab_size, "first_pitch": self.first_pitch}
        voices = [{"name": name, **voice, "hold": 0 if self.hold else None} for name in slot_order(self.voices)]
        if not self.hold:
            return voices
        return [{"name": "flag", "size": FLAGS, "first_pitch": None, "hold": None}, *voices]

    @property
    def first_pitch(self) -> int:
        """The token of `lowest_pitch`."""
        return 2 if self.hold else 1

    @property
    def rest(self) -> int:
        """The token of silence."""
        return 1 if self.hold else 0

    @property
    def first_voice(self) -> int:
        """Number of slots before that of the first voice."""
        return 1 if self.hold else 0

    @property
    def num_slots(self) -> int:
        return len(self.voices) + self.first_voice

    @property
    def stop(self) -> tuple[int, int] | None:
        """(slot, token) that ends a piece."""
        return (0, END) if self.hold else None

    def tempo_of(self, meter: Meter) -> float:
        """Quarters a minute of what is sampled in a metre."""
        return dict(self.tempos).get(str(meter), self.tempo)

    @property
    def given_sizes(self) -> dict[str, int]:
        """Name and number of ids of every given feature that a model of this encoding may have."""
        sizes = {
            "position": UNKNOWN_POSITION + 1,
            "bar_length": len(self.meters) + 2,
            "mode": len(self.modes) + 1,
            "tonic": 13,
        }
        if len(self.voices) > 1:
            sizes |= {"soprano_next": self.vocab_size + 1, "soprano_wait": len(WAIT_BUCKETS) + 2}
        if self.lengths:
            sizes["left"] = STEPS_LEFT + BARS_LEFT + 3
        return sizes

    # -- grids -------------------------------------------------------------------------------------------------------

    def grid_to_tokens(
        self,
        pitch: npt.ArrayLike,
        onset: npt.ArrayLike | None = None,
        fermata: npt.ArrayLike | None = None,
        *,
        end: bool = True,
    ) -> Ints:
        """Tokens of a piece.

        Parameters
        ----------
        pitch : array-like of int [shape=(T, n_voices)]
            MIDI pitches, high voice first (soprano, alto, tenor, bass); -1 for a rest.
        onset : array-like of bool [shape=(T, n_voices)], optional
            Where notes begin; None: where the pitch changes. A change of pitch is an onset in any case.
        fermata : array-like of bool [shape=(T,)], optional
        end : bool
            Add the frame that says so (only an encoding with `hold` has it).

        Returns
        -------
        tokens : np.ndarray [shape=(T + 1, 1 + n_voices) or (T, n_voices)], int32

        Raises
        ------
        ValueError
            A shape is wrong, or a pitch is outside the vocabulary; the message gives frame, voice and pitch.
        """
        pitch = np.ascontiguousarray(pitch, np.int32)
        if pitch.ndim != 2 or pitch.shape[1] != len(self.voices):
            raise ValueError(f"pitch: expected shape (T, {len(self.voices)}), got {pitch.shape}")
        onset, fermata = _flags("onset", onset, pitch.shape), _flags("fermata", fermata, pitch.shape[:1])
        return self.encoder.tokens(pitch, onset, fermata, end)

    def tokens_to_grid(self, tokens: npt.ArrayLike) -> Grid:
        """The inverse of `grid_to_tokens`; whatever follows the end is left out, a hold of nothing is a rest."""
        return Grid(*self.encoder.grid(self.checked(tokens)))

    def checked(self, tokens: npt.ArrayLike) -> Ints:
        """`tokens` as contiguous int32; a `ValueError` where one is outside the vocabulary, or the shape is wrong."""
        tokens = np.asarray(tokens)
        if tokens.ndim != 2 or tokens.shape[1] != self.num_slots or not np.issubdtype(tokens.dtype, np.integer):
            raise ValueError(
                f"tokens: expected integers of shape (n_frames, {self.num_slots}), got {tokens.dtype} {tokens.shape}"
            )
        if tokens.dtype != np.int32:
            tokens = np.clip(tokens.astype(np.int64), -(2**31), 2**31 - 1)  # what is outside stays outside
        tokens = np.ascontiguousarray(tokens, np.int32)
        self.encoder.check(tokens)
        return tokens

    # -- scores ------------------------------------------------------------------------------------------------------

    def fit(self, voices: Voices, what: str = "score") -> int:
        """Semitones by which `voices` (all, or the first alone) must go up to lie where the model knows them.

        0 where every voice is in its range already; the smallest shift that brings them there; failing that, the
        smallest one into the vocabulary.

        Raises
        ------
        ValueError
            The voices are too far apart for any; the message names `what`, the voice, its pitches and its range.
        """
        names = self.voices[: voices.pitch.shape[1]]
        everything = (self.lowest_pitch, self.lowest_pitch + self.num_pitches - 1)
        for ranges in ([self.ranges[name] for name in names], [everything for _ in names]):
            shift = voices.transposition(ranges)
            if shift is not None:
                return shift
        sounding = voices.pitch[voices.pitch != REST]
        raise ValueError(
            f"{what}: expected pitches within {everything[1] - everything[0]} semitones, "
            f"got {int(sounding.min())} to {int(sounding.max())}"
        )

    def decode(
        self,
        tokens: npt.ArrayLike,
        *,
        meter: Meter = Meter(),
        tempo: float | None = None,
        key: tuple[int, str] | None = None,
        transpose: int = 0,
        provenance: Mapping[str, Any] | None = None,
    ) -> Score:
        """The score that the tokens mean.

        Parameters
        ----------
        tokens : array-like of int [shape=(n_frames, F)]
        meter : Meter
            A pickup is written as a first bar of its own length.
        tempo : float, optional
            Quarters a minute; None: that of the metre.
        key : (tonic, mode), optional
            For the key signature (of the score as it sounds, after `transpose`).
        transpose : int
            Semitones added to every pitch.
        provenance : mapping, optional

        Returns
        -------
        Score
            A track for every voice (Soprano, Alto, Tenor and Bass), 480 ticks a quarter; fermatas are markers, so that
            encoding the score gives the same tokens.
        """
        score = Score._of_tables(
            self.encoder.decode_as(
                self.checked(tokens),
                meter.numerator,
                meter.denominator,
                meter.pickup,
                round(60e6 / (tempo or self.tempo_of(meter))),
                None if key is None else (_sharps(*key), int(_is_minor(key[1]))),
                transpose,
            )
        )
        score.provenance = dict(provenance or {})
        return score

    # -- what the model may be told ----------------------------------------------------------------------------------

    def given(
        self,
        n_frames: int,
        *,
        position: npt.ArrayLike | None = None,
        bar_length: int | Meter | None = None,
        mode: str | None = None,
        tonic: int | None = None,
        soprano: npt.ArrayLike | None = None,
        length: int | None = None,
    ) -> dict[str, Ints]:
        """The given features of a piece; what is None is unknown to the model.

        Parameters
        ----------
        n_frames : int
            Frames of the token grid, the one of the end included.
        position : array-like of int [shape=(T,)], optional
            Sixteenth inside the bar. Frames after the T-th count on from it.
        bar_length : int or Meter, optional
            Sixteenths in a bar, or what tells `meters` of one length apart; "other" if none of them is so long.
        mode : str, optional
            One of `modes`.
        tonic : int, optional
            Pitch class, 0 for C.
        soprano : array-like of int [shape=(n_frames,)], optional
            The soprano's tokens, the frame of the end included. The model is told which comes after each frame and how
            soon; at the last one that is the end.
        length : int, optional
            Sixteenths of the whole piece. The model is told how many of the last 16 are left, before these how many
            bars, the one begun included, if `bar_length` is known.

        Returns
        -------
        given : dict of name to np.ndarray [shape=(n_frames,)], int32
            Ids below `given_sizes`.
        """
        bar = bar_length.bar_length if isinstance(bar_length, Meter) else bar_length
        out = {name: np.zeros(n_frames, np.int32) for name in self.given_sizes}
        out["position"] = self.positions(n_frames, position, bar)
        out["bar_length"] += self._bar_length_id(bar_length)
        out["mode"] += 0 if mode is None else 1 + self.modes.index(mode)
        out["tonic"] += 12 if tonic is None else tonic
        if soprano is not None and "soprano_next" in out:
            out["soprano_next"], out["soprano_wait"] = self._soprano_ahead(np.asarray(soprano, np.int32), n_frames)
        if "left" in out and length is not None and bar is not None:
            left = np.maximum(length - np.arange(n_frames), 0)
            bars = STEPS_LEFT + np.minimum(-(-left // bar), BARS_LEFT + 1)
            out["left"] = (1 + np.where(left <= STEPS_LEFT, left, bars)).astype(np.int32)
        return out

    @staticmethod
    def positions(n_frames: int, position: npt.ArrayLike | None, bar_length: int | None) -> Ints:
        """`position` counted on to `n_frames`, as ids (unknown without it)."""
        if position is None:
            return np.full(n_frames, UNKNOWN_POSITION, np.int32)
        known = np.asarray(position, np.int32)[:n_frames]
        missing = n_frames - len(known)
        if missing:
            start = int(known[-1]) + 1 if len(known) else 0
            known = np.concatenate([known, np.arange(start, start + missing, dtype=np.int32) % (bar_length or 16)])
        return np.clip(known, 0, UNKNOWN_POSITION - 1).astype(np.int32)

    def _bar_length_id(self, bar_length: int | Meter | None) -> int:
        """0: unknown; the first of `meters` that is so long has 1 + its index."""
        if bar_length is None:
            return 0
        if isinstance(bar_length, Meter):
            if str(bar_length) in self.meters:
                return 1 + list(self.meters).index(str(bar_length))
            bar_length = bar_length.bar_length
        lengths = list(_bar_lengths(self.meters).values())
        return 1 + (lengths.index(bar_length) if bar_length in lengths else len(lengths))

    def _soprano_ahead(self, soprano: Ints, n_frames: int) -> tuple[Ints, Ints]:
        if soprano.shape != (n_frames,):
            raise ValueError(f"soprano: expected shape ({n_frames},), got {soprano.shape}")
        last = n_frames - 1
        begins = np.zeros(n_frames, bool)
        if self.hold:
            begins[:last] = soprano[:last] != 0
        else:
            begins[1:last] = soprano[1:last] != soprano[: last - 1] if last else False
        # For every frame the first one after it where something begins; the end if nothing does.
        after = np.where(begins, np.arange(n_frames), last)
        after = np.minimum.accumulate(after[::-1])[::-1]
        following = np.concatenate([after[1:], [last]])
        none_left = self.vocab_size
        token = np.where(begins[following], soprano[following], none_left)
        wait = following - np.arange(n_frames)
        return token.astype(np.int32), (1 + np.searchsorted(WAIT_BUCKETS, wait, side="right")).astype(np.int32)


# -- voices in a score -------------------------------------------------------------------------------------------------


def read_voices(score: Score, what: str = "score", *, encoding: VoiceGrid | None = None) -> Voices:
    """The voices of a score.

    Tracks (or channels) named soprano, alto, tenor and bass are those voices. Otherwise four tracks that play one note
    at a time are the voices, by their mean pitch. Otherwise all notes are shared out among four voices, chord by chord:
    four together from high to low, fewer to the nearest voices that are free. Drums are left out.

    Parameters
    ----------
    score : Score
    what : str
        Stands for the score in messages.
    encoding : VoiceGrid, optional
        Whose voices they are; None: the four voices of a choir. Sharing out n voices takes n 2^n steps a chord.

    Raises
    ------
    ValueError
        There are no notes, or more than four sound at once; the message gives bar, tick and their number.
    """
    return _found(score, what, CHORALE if encoding is None else encoding, melody=False)


def read_melody(score: Score, what: str = "score", *, encoding: VoiceGrid | None = None) -> Voices:
    """One voice out of a score, the soprano: the part of that name, or the highest part, or the highest of four voices.

    Raises
    ------
    ValueError
        As `read_voices`, where no part is a melody by itself.
    """
    return _found(score, what, CHORALE if encoding is None else encoding, melody=True)


def _found(score: Score, what: str, encoding: VoiceGrid, *, melody: bool) -> Voices:
    found = encoding.encoder.find(melody, *score._tables())
    if len(found) == 2:
        problem, tick = found
        where = "" if tick is None else f"bar {score.to_bars(tick)[0]}, tick {tick}: "
        raise ValueError(f"{what}: {where}{problem}")
    pitch, onset, fermata, first_step, issues = found
    position, meter = _metre(score, first_step, len(pitch))
    tempos = score.tempos
    tempo = 6e7 / int(tempos["microseconds_per_quarter"][0]) if len(tempos) else 120.0
    return Voices(pitch, onset, fermata, position, meter, tempo, tuple(issues), int(first_step))


def _metre(score: Score, begin: int, frames: int) -> tuple[Ints, Meter]:
    """Sixteenth inside the bar of every frame, and the time signature at the end."""
    ticks = (np.arange(begin, begin + frames) * score.ticks_per_quarter) // STEPS_PER_QUARTER
    position = score.to_bars(ticks)[1] * STEPS_PER_QUARTER // score.ticks_per_quarter
    meter = Meter(*score.meter_at(int(ticks[-1])))
    return position.astype(np.int32), replace(meter, pickup=(meter.bar_length - int(position[0])) % meter.bar_length)


def _flags(name: str, values: npt.ArrayLike | None, shape: tuple[int, ...]) -> npt.NDArray[np.bool_] | None:
    if values is None:
        return None
    array = np.ascontiguousarray(values, bool)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    return array


def _bar_lengths(meters: Any) -> dict[str, int]:
    """Sixteenths in a bar of every one of some time signatures."""
    found = {}
    for meter in meters if isinstance(meters, list | tuple) else ():
        match = re.fullmatch(r"([1-9]\d?)/(1|2|4|8|16)", meter) if isinstance(meter, str) else None
        if match is None or 16 * int(match[1]) % int(match[2]) or 16 * int(match[1]) > UNKNOWN_POSITION * int(match[2]):
            break
        found[meter] = Meter(int(match[1]), int(match[2])).bar_length
    else:
        if 1 <= len(found) == len(meters) <= 16:
            return found
    raise WeightsError(
        f"encoding.meters: expected 1 to 16 different time signatures of at most {UNKNOWN_POSITION} sixteenths, "
        f"got {meters!r}"
    )


def _is_minor(mode: str) -> bool:
    return SCALES[mode][2] == 3


def _sharps(tonic: int, mode: str) -> int:
    """Sharps (negative: flats) of a key signature, from -5 to 6: that of the major or minor key of the tonic."""
    major = tonic + 3 if _is_minor(mode) else tonic
    return (major * 7 + 5) % 12 - 5


JSB16 = VoiceGrid(hold=False)
CHORALE = VoiceGrid()
FOLK = VoiceGrid(
    starts=(("6/8", 2, 1.0), ("2/2", 0, 1.0)),
    keys=((2, "major", 1.0), (7, "major", 1.0)),
    tempo=160.0,
    lowest_pitch=55,
    num_pitches=39,
    voices=("melody",),
    lengths=((16, 1.0),),
    meters=("4/4", "2/2", "2/4", "3/4", "6/8", "9/8"),
    modes=("major", "minor", "mixolydian", "dorian"),
    program=40,
    tempos=(("2/2", 200.0), ("2/4", 100.0), ("3/4", 120.0), ("6/8", 170.0), ("9/8", 170.0)),
)  # a violin's lowest string and up; four sixteenths of 2/4 last as long as four eighths of 2/2
