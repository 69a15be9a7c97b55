"""What the tokens of a model mean: four voices on a grid of sixteenths.

`VoiceGrid` turns a piece into a token grid (n_frames, F) and back, and makes the arrays of the *given* features, what a
model may be told about a piece (metre, mode, key, the soprano to harmonise). The model file keeps its JSON form.
`read_voices` and `read_melody` find four voices, or one, in any score that has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from musicgen_ext.errors import WeightsError
from musicgen_ext.midi import DRUM_CHANNEL, Score, Text, Track

if TYPE_CHECKING:
    from musicgen_ext.architectures import RecurrentConfig

Ints = npt.NDArray[np.int32]

VOICES = ("soprano", "alto", "tenor", "bass")  # columns of a grid, high to low
SLOT_ORDER = ("soprano", "bass", "alto", "tenor")  # the outer voices are drawn first, then what fits between them
COLUMNS = tuple(VOICES.index(name) for name in SLOT_ORDER)
REST = -1

NO_FLAG, FERMATA, END = 0, 1, 2
FLAGS = 3
MODES = ("major", "minor")
METERS = {"4/4": 16, "3/4": 12}  # bar lengths in sixteenths that have an id of their own, from 1
UNKNOWN_POSITION = 32
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
VELOCITIES = {"soprano": 88, "alto": 76, "tenor": 76, "bass": 82}  # the melody in front, the ground under it


class Note(NamedTuple):
    """One note, its times in ticks: the first five columns of `Score.notes`."""

    start: int
    duration: int
    pitch: int
    velocity: int
    track: int


@dataclass(frozen=True)
class Grid:
    """A four-part piece on a grid, columns soprano, alto, tenor, bass.

    Attributes
    ----------
    pitch : np.ndarray [shape=(T, 4)], int32
        MIDI pitch, -1 for a rest.
    onset : np.ndarray [shape=(T, 4)], bool
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

    def notes(self, *, transpose: int = 0) -> Iterator[Note]:
        """The notes by voice and time, `TICKS_PER_QUARTER` ticks a quarter; tracks are numbered as in `VOICES`."""
        for voice, name in enumerate(VOICES):
            pitch = self.pitch[:, voice]
            starts = np.flatnonzero(self.onset[:, voice])
            stops = np.flatnonzero(self.onset[:, voice] | (pitch == REST))
            stops = np.append(stops, len(pitch))
            ends = stops[np.searchsorted(stops, starts, side="right")]
            for start, end, sounds in zip(starts.tolist(), ends.tolist(), pitch[starts].tolist(), strict=True):
                yield Note(
                    start * TICKS_PER_STEP, (end - start) * TICKS_PER_STEP, sounds + transpose, VELOCITIES[name], voice
                )


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
    """

    pitch: Ints
    onset: npt.NDArray[np.bool_]
    fermata: npt.NDArray[np.bool_]
    position: Ints
    meter: Meter
    tempo: float
    issues: tuple[str, ...] = ()

    def transposition(self, ranges: Sequence[tuple[int, int]]) -> int | None:
        """The smallest shift in semitones that brings every voice into its range; None: there is none."""
        low, high = -128, 127
        for pitch, (lowest, highest) in zip(self.pitch.T, ranges, strict=True):
            sounding = pitch[pitch != REST]
            if len(sounding):
                low, high = max(low, lowest - int(sounding.min())), min(high, highest - int(sounding.max()))
        return None if low > high else min(max(0, low), high)


@dataclass(frozen=True)
class VoiceGrid:
    """Four voices on a grid of sixteenths.

    With `hold` (the encoding of the chorales) a frame has five slots: *flag* {0 nothing, 1 a fermata begins, 2 end},
    then soprano, bass, alto and tenor, each {0 hold, 1 rest, 2 + i: onset of pitch `lowest_pitch` + i}; one frame with
    the flag *end* (and holds) follows the last one. Without it (the encoding of the JSB benchmark) there are the four
    voices only, each {0 silent, 1 + i: pitch `lowest_pitch` + i}, and a repeated note cannot be told from a held one.

    Attributes
    ----------
    hold : bool
    ranges : dict of voice to (low, high)
        MIDI pitches that the model has heard from the voice: samples stay inside, prompts are transposed into them.
    starts : sequence of (meter, pickup in sixteenths, weight)
        How pieces begin; without a condition one of them is drawn.
    keys : sequence of (tonic, mode, weight)
        Likewise, the keys: tonic as a pitch class, "major" or "minor".
    tempo : float
        Quarters a minute of what is sampled.
    lowest_pitch, num_pitches, steps_per_quarter : int
    """

    hold: bool = True
    ranges: Mapping[str, tuple[int, int]] = field(default_factory=lambda: dict(CHORALE_RANGES))
    starts: Sequence[tuple[str, int, float]] = (("4/4", 4, 0.66), ("4/4", 0, 0.23), ("3/4", 0, 0.07), ("3/4", 4, 0.04))
    keys: Sequence[tuple[int, str, float]] = CHORALE_KEYS
    tempo: float = 80.0
    lowest_pitch: int = 36
    num_pitches: int = 46
    steps_per_quarter: int = 4

    # -- the JSON form -----------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, with its ``name``."""
        return {
            "name": "voice_grid",
            "hold": self.hold,
            "ranges": {voice: list(self.ranges[voice]) for voice in VOICES},
            "starts": [list(start) for start in self.starts],
            "keys": [list(key) for key in self.keys],
            "tempo": self.tempo,
            "lowest_pitch": self.lowest_pitch,
            "num_pitches": self.num_pitches,
            "steps_per_quarter": self.steps_per_quarter,
        }

    @classmethod
    def from_dict(cls, encoding: Mapping[str, Any]) -> VoiceGrid:
        """Build from the JSON form; keys that are missing take their defaults, a mistake is a `WeightsError`."""
        known = {
            "name", "hold", "ranges", "starts", "keys", "tempo", "lowest_pitch", "num_pitches", "steps_per_quarter",
        }  # fmt: skip
        if encoding.get("name") != "voice_grid":
            raise WeightsError(f"encoding.name: expected 'voice_grid', got {encoding.get('name')!r}")
        unknown = sorted(set(encoding) - known)
        if unknown:
            raise WeightsError(f"encoding: expected keys out of {sorted(known)}, got unknown {unknown}")
        hold = encoding.get("hold", True)
        if not isinstance(hold, bool):
            raise WeightsError(f"encoding.hold: expected true or false, got {hold!r}")
        lowest = _integer(encoding, "lowest_pitch", 0, 127, 36)
        count = _integer(encoding, "num_pitches", 1, 128 - lowest, 46)
        ranges = encoding.get("ranges", CHORALE_RANGES if hold else JSB16_RANGES)
        if not isinstance(ranges, Mapping) or set(ranges) != set(VOICES):
            raise WeightsError(f"encoding.ranges: expected a range for each of {list(VOICES)}, got {ranges!r}")
        checked = {}
        for voice in VOICES:
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
        starts = encoding.get("starts", cls.starts)
        if not isinstance(starts, list | tuple) or not 1 <= len(starts) <= 100:
            raise WeightsError(f"encoding.starts: expected 1 to 100 of [meter, pickup, weight], got {starts!r}")
        for start in starts:
            if not (
                isinstance(start, list | tuple)
                and len(start) == 3
                and start[0] in list(METERS)
                and type(start[1]) is int
                and 0 <= start[1] < METERS[start[0]]
                and type(start[2]) in (int, float)
                and 0 < start[2] < 1e9
            ):
                raise WeightsError(
                    f"encoding.starts: expected [meter, pickup in sixteenths, weight > 0] with a meter out of "
                    f"{sorted(METERS)}, got {start!r}"
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
                and key[1] in list(MODES)
                and type(key[2]) in (int, float)
                and 0 < key[2] < 1e9
            ):
                raise WeightsError(
                    f"encoding.keys: expected [tonic from 0 to 11, mode out of {list(MODES)}, weight > 0], got {key!r}"
                )
        tempo = encoding.get("tempo", 80.0)
        if type(tempo) not in (int, float) or not 10 <= tempo <= 1000:
            raise WeightsError(f"encoding.tempo: expected 10 to 1000 quarters a minute, got {tempo!r}")
        steps = _integer(encoding, "steps_per_quarter", 4, 4, 4)
        return cls(
            hold,
            checked,
            tuple((meter, pickup, float(weight)) for meter, pickup, weight in starts),
            tuple((tonic, mode, float(weight)) for tonic, mode, weight in keys),
            float(tempo),
            lowest,
            count,
            steps,
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

    @property
    def slots(self) -> list[dict[str, Any]]:
        """The slots of a frame in order, as `RecurrentConfig` wants them (without heads)."""
        voice = {"size": self.first_pitch + self.num_pitches, "first_pitch": self.first_pitch}
        voices = [{"name": name, **voice, "hold": 0 if self.hold else None} for name in SLOT_ORDER]
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
        """Number of slots before the soprano's."""
        return 1 if self.hold else 0

    @property
    def num_slots(self) -> int:
        return 4 + self.first_voice

    @property
    def stop(self) -> tuple[int, int] | None:
        """(slot, token) that ends a piece."""
        return (0, END) if self.hold else None

    @property
    def given_sizes(self) -> dict[str, int]:
        """Name and number of ids of every given feature that a model of this encoding may have."""
        size = self.first_pitch + self.num_pitches
        return {
            "position": UNKNOWN_POSITION + 1,
            "bar_length": len(METERS) + 2,
            "mode": len(MODES) + 1,
            "tonic": 13,
            "soprano_next": size + 1,
            "soprano_wait": len(WAIT_BUCKETS) + 2,
        }

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
        pitch : array-like of int [shape=(T, 4)]
            MIDI pitches of soprano, alto, tenor, bass; -1 for a rest.
        onset : array-like of bool [shape=(T, 4)], optional
            Where notes begin; None: where the pitch changes. A change of pitch is an onset in any case.
        fermata : array-like of bool [shape=(T,)], optional
        end : bool
            Add the frame that says so (only an encoding with `hold` has it).

        Returns
        -------
        tokens : np.ndarray [shape=(T + 1, 5) or (T, 4)], int32

        Raises
        ------
        ValueError
            A shape is wrong, or a pitch is outside the vocabulary; the message gives frame, voice and pitch.
        """
        pitch = np.asarray(pitch, np.int32)
        if pitch.ndim != 2 or pitch.shape[1] != 4:
            raise ValueError(f"pitch: expected shape (T, 4), got {pitch.shape}")
        highest = self.lowest_pitch + self.num_pitches - 1
        wrong = (pitch != REST) & ((pitch < self.lowest_pitch) | (pitch > highest))
        if wrong.any():
            frame, voice = np.argwhere(wrong)[0]
            raise ValueError(
                f"pitch: expected {self.lowest_pitch} to {highest} or -1 (rest), got {pitch[frame, voice]} "
                f"({VOICES[voice]}, frame {frame})"
            )
        frames = len(pitch)
        tokens = np.where(pitch == REST, self.rest, pitch - self.lowest_pitch + self.first_pitch)
        if not self.hold:
            return np.ascontiguousarray(tokens[:, COLUMNS], np.int32)
        before = np.concatenate([np.full((1, 4), REST - 1), pitch[:-1]])[:frames]
        begins = pitch != before
        if onset is not None:
            onset = np.asarray(onset, bool)
            if onset.shape != pitch.shape:
                raise ValueError(f"onset: expected shape {pitch.shape}, got {onset.shape}")
            begins |= onset & (pitch != REST)
        out = np.zeros((frames + bool(end), 5), np.int32)
        out[:frames, 1:] = np.where(begins, tokens, 0)[:, COLUMNS]
        if fermata is not None:
            fermata = np.asarray(fermata, bool)
            if fermata.shape != (frames,):
                raise ValueError(f"fermata: expected shape {(frames,)}, got {fermata.shape}")
            out[:frames, 0] = np.where(fermata, FERMATA, NO_FLAG)
        if end:
            out[frames, 0] = END
        return out

    def tokens_to_grid(self, tokens: npt.ArrayLike) -> Grid:
        """The inverse of `grid_to_tokens`; whatever follows the end is left out, a hold of nothing is a rest."""
        tokens = self._tokens(tokens)
        if not self.hold:
            pitch = np.empty((len(tokens), 4), np.int32)
            pitch[:, COLUMNS] = np.where(tokens == self.rest, REST, tokens - self.first_pitch + self.lowest_pitch)
            before = np.concatenate([np.full((1, 4), REST, np.int32), pitch[:-1]])[: len(pitch)]
            return Grid(pitch, (pitch != before) & (pitch != REST), np.zeros(len(pitch), bool))
        ends = np.flatnonzero(tokens[:, 0] == END)
        if len(ends):
            tokens = tokens[: ends[0]]
        frames = len(tokens)
        voices = np.empty((frames, 4), np.int32)
        voices[:, COLUMNS] = tokens[:, 1:]
        # Index of the last frame that was not a hold, by voice; -1 before there was one.
        last = np.maximum.accumulate(np.where(voices != 0, np.arange(frames)[:, None], -1), axis=0)
        sounding = np.where(last >= 0, np.take_along_axis(voices, np.maximum(last, 0), axis=0), self.rest)
        pitch = np.where(sounding == self.rest, REST, sounding - self.first_pitch + self.lowest_pitch)
        return Grid(pitch.astype(np.int32), voices >= self.first_pitch, tokens[:, 0] == FERMATA, bool(len(ends)))

    def _tokens(self, tokens: npt.ArrayLike) -> Ints:
        tokens = np.asarray(tokens)
        if tokens.ndim != 2 or tokens.shape[1] != self.num_slots or not np.issubdtype(tokens.dtype, np.integer):
            raise ValueError(
                f"tokens: expected integers of shape (n_frames, {self.num_slots}), got {tokens.dtype} {tokens.shape}"
            )
        sizes = np.array([slot["size"] for slot in self.slots])
        wrong = (tokens < 0) | (tokens >= sizes)
        if wrong.any():
            frame, slot = np.argwhere(wrong)[0]
            raise ValueError(
                f"tokens: expected 0 to {sizes[slot] - 1} for the {self.slots[slot]['name']}, "
                f"got {tokens[frame, slot]} (frame {frame})"
            )
        return tokens.astype(np.int32, copy=False)

    # -- scores ------------------------------------------------------------------------------------------------------

    def fit(self, voices: Voices, what: str = "score") -> int:
        """Semitones by which `voices` (four, or the soprano alone) must go up to lie where the model knows them.

        0 where every voice is in its range already; the smallest shift that brings them there; failing that, the
        smallest one into the vocabulary.

        Raises
        ------
        ValueError
            The voices are too far apart for any; the message names `what`, the voice, its pitches and its range.
        """
        names = VOICES[: voices.pitch.shape[1]]
        whole = (self.lowest_pitch, self.lowest_pitch + self.num_pitches - 1)
        for ranges in ([self.ranges[name] for name in names], [whole for _ in names]):
            shift = voices.transposition(ranges)
            if shift is not None:
                return shift
        sounding = voices.pitch[voices.pitch != REST]
        raise ValueError(
            f"{what}: expected pitches within {whole[1] - whole[0]} semitones, "
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
            Quarters a minute; None: that of the encoding.
        key : (tonic, mode), optional
            For the key signature (of the score as it sounds, after `transpose`).
        transpose : int
            Semitones added to every pitch.
        provenance : mapping, optional

        Returns
        -------
        Score
            Four tracks, Soprano, Alto, Tenor and Bass, 480 ticks a quarter; fermatas are markers, so that encoding the
            score gives the same tokens.
        """
        grid = self.tokens_to_grid(tokens)
        signatures = [(0, meter.numerator, meter.denominator)]
        first = _fraction(meter.pickup)
        if 0 < first[0] <= 255:  # a time signature cannot say more
            signatures = [(0, *first), (meter.pickup * TICKS_PER_STEP, meter.numerator, meter.denominator)]
        return Score(
            list(grid.notes(transpose=transpose)),
            ticks_per_quarter=TICKS_PER_QUARTER,
            tempos=[(0, round(60e6 / (tempo or self.tempo)))],
            time_signatures=signatures,
            key_signatures=[] if key is None else [(0, _sharps(*key), int(key[1] == "minor"))],
            tracks=[Track(name.capitalize(), CHOIR_AAHS) for name in VOICES],
            texts=[
                Text(frame * TICKS_PER_STEP, "marker", FERMATA_MARKER)
                for frame in np.flatnonzero(grid.fermata).tolist()
            ],
            provenance=provenance,
        )

    # -- what the model may be told ----------------------------------------------------------------------------------

    def given(
        self,
        n_frames: int,
        *,
        position: npt.ArrayLike | None = None,
        bar_length: int | None = None,
        mode: str | None = None,
        tonic: int | None = None,
        soprano: npt.ArrayLike | None = None,
    ) -> dict[str, Ints]:
        """The given features of a piece; what is None is unknown to the model.

        Parameters
        ----------
        n_frames : int
            Frames of the token grid, the one of the end included.
        position : array-like of int [shape=(T,)], optional
            Sixteenth inside the bar. Frames after the T-th count on from it.
        bar_length : int, optional
            Sixteenths in a bar: 16 (4/4) and 12 (3/4) are told apart, all others are "other".
        mode : "major" or "minor", optional
        tonic : int, optional
            Pitch class, 0 for C.
        soprano : array-like of int [shape=(n_frames,)], optional
            The soprano's tokens, the frame of the end included. The model is told which comes after each frame and how
            soon; at the last one that is the end.

        Returns
        -------
        given : dict of name to np.ndarray [shape=(n_frames,)], int32
            Ids below `given_sizes`.
        """
        out = {
            "position": self.positions(n_frames, position, bar_length),
            "bar_length": np.full(n_frames, self._bar_length_id(bar_length), np.int32),
            "mode": np.full(n_frames, 0 if mode is None else 1 + MODES.index(mode), np.int32),
            "tonic": np.full(n_frames, 12 if tonic is None else tonic, np.int32),
            "soprano_next": np.zeros(n_frames, np.int32),
            "soprano_wait": np.zeros(n_frames, np.int32),
        }
        if soprano is not None:
            out["soprano_next"], out["soprano_wait"] = self._soprano_ahead(np.asarray(soprano, np.int32), n_frames)
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

    @staticmethod
    def _bar_length_id(bar_length: int | None) -> int:
        lengths = list(METERS.values())
        if bar_length is None:
            return 0
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
        none_left = self.first_pitch + self.num_pitches
        token = np.where(begins[following], soprano[following], none_left)
        wait = following - np.arange(n_frames)
        return token.astype(np.int32), (1 + np.searchsorted(WAIT_BUCKETS, wait, side="right")).astype(np.int32)


# -- voices in a score -------------------------------------------------------------------------------------------------

FERMATA_MARKER = b"fermata"
_NAMES = {
    "soprano": ("soprano", "sopran", "s", "s.", "treble", "discant", "cantus"),
    "alto": ("alto", "alt", "a", "a."),
    "tenor": ("tenor", "t", "t."),
    "bass": ("bass", "basso", "b", "b.", "bassus"),
}


def read_voices(score: Score, what: str = "score") -> Voices:
    """Four voices out of a score.

    Tracks (or channels) named soprano, alto, tenor and bass are those voices. Otherwise four tracks that play one note
    at a time are the voices, by their mean pitch. Otherwise all notes are shared out among four voices, chord by chord:
    four together from high to low, fewer to the nearest voices that are free. Drums are left out.

    Parameters
    ----------
    score : Score
    what : str
        Stands for the score in messages.

    Raises
    ------
    ValueError
        There are no notes, or more than four sound at once; the message gives bar, tick and their number.
    """
    reader = _Reader(score, what)
    parts = reader.parts()
    named = reader.named(parts)
    if len(named) == 4:
        if len(parts) > 4:
            reader.issues.append(f"{len(parts) - 4} of {len(parts)} parts were left out: they are not voices by name")
        chosen = [reader.melody(named[name]) for name in VOICES]
    else:
        chosen = [reader.melody(part) for part in parts] if len(parts) == 4 else []
    if not chosen or any(voice is None for voice in chosen):
        return reader.voices(reader.shared(np.concatenate(parts)))
    voices = [voice for voice in chosen if voice is not None]
    if len(named) < 4:
        voices.sort(key=lambda v: -float(np.average(v["pitch"], weights=v["end"] - v["start"])))
    return reader.voices(voices)


def read_melody(score: Score, what: str = "score") -> Voices:
    """One voice out of a score, the soprano: the part of that name, or the highest part, or the highest of four voices.

    Raises
    ------
    ValueError
        As `read_voices`, where no part is a melody by itself.
    """
    reader = _Reader(score, what)
    parts = reader.parts()
    part = reader.named(parts).get("soprano")
    if part is None:
        part = max(parts, key=lambda p: float(np.average(p["pitch"], weights=p["end"] - p["start"])))
    melody = reader.melody(part)
    if melody is None:
        melody = next(voice for voice in reader.shared(np.concatenate(parts)) if len(voice))
    return reader.voices([melody])


# A note on the grid (in sixteenths), where it was (in ticks), and what the grid could not hold of it.
_STEP_NOTE = np.dtype(
    [("start", "i8"), ("end", "i8"), ("pitch", "i4"), ("part", "i4"), ("tick", "i8"), ("off", "f8"), ("short", "?")]
)


class _Reader:
    """The notes of a score on the grid, part by part, and what had to be changed to get them there."""

    def __init__(self, score: Score, what: str) -> None:
        self.what = what
        self.score = score
        self.ticks = score.ticks_per_quarter
        self.issues: list[str] = []
        notes = score.notes[score.notes["channel"] != DRUM_CHANNEL]
        if not len(notes):
            raise ValueError(f"{what}: expected notes of four voices, got none")
        self.notes = np.empty(len(notes), _STEP_NOTE)
        self.notes["tick"], self.notes["pitch"] = notes["start"], notes["pitch"]
        self.notes["part"] = notes["track"] * 16 + notes["channel"]
        self.notes["start"] = self._steps(notes["start"])
        end = self._steps(notes["start"] + notes["duration"])
        self.notes["end"] = np.maximum(end, self.notes["start"] + 1)
        off = np.abs(self.notes["start"] * self.ticks - notes["start"] * STEPS_PER_QUARTER)
        self.notes["off"], self.notes["short"] = off / self.ticks, end <= self.notes["start"]

    def _steps(self, ticks: Any) -> Any:
        return (2 * STEPS_PER_QUARTER * ticks + self.ticks) // (2 * self.ticks)  # to the nearest, halves up

    def parts(self) -> list[Any]:
        """Notes by track and channel, each in time order (from high to low where together)."""
        order = np.lexsort((-self.notes["end"], -self.notes["pitch"], self.notes["start"], self.notes["part"]))
        notes = self.notes[order]
        place = notes[["start", "pitch", "part"]]
        repeated = np.concatenate([[False], place[1:] == place[:-1]])
        if repeated.any():
            self.issues.append(f"{np.count_nonzero(repeated)} notes that another one doubles were left out")
            notes = notes[~repeated]
        borders = np.flatnonzero(np.diff(notes["part"])) + 1
        return [np.asarray(part) for part in np.split(notes, borders)]

    def named(self, parts: Sequence[Any]) -> dict[str, Any]:
        """Parts by voice, where a track's name says which voice it is and no other track says the same."""
        tracks = self.score.tracks
        found: dict[str, list[Any]] = {voice: [] for voice in VOICES}
        for part in parts:
            words = tracks[int(part["part"][0]) // 16].name.strip().lower().split()
            for voice, names in _NAMES.items():
                if words and words[0] in names:
                    found[voice].append(part)
        return {voice: of[0] for voice, of in found.items() if len(of) == 1}

    def melody(self, part: Any) -> Any | None:
        """`part` if it plays one note at a time; what overlaps by no more than a sixteenth is cut."""
        start, end = part["start"], part["end"]
        over = end[:-1] - start[1:]
        if (start[1:] == start[:-1]).any() or (over > 1).any():
            return None
        if (over > 0).any():
            part = part.copy()
            part["end"][:-1] = np.minimum(end[:-1], start[1:])
            self.issues.append(f"{np.count_nonzero(over > 0)} notes were cut where the next one of their voice begins")
        return part

    def shared(self, notes: Any) -> list[Any]:
        """All notes, shared out among four voices."""
        notes = notes[np.lexsort((-notes["pitch"], notes["start"]))]
        last = [float(sum(CHORALE_RANGES[voice])) / 2 for voice in VOICES]  # where a voice that has not sung yet waits
        busy_until = [0, 0, 0, 0]
        sounding = [0, 0, 0, 0]
        given: list[list[int]] = [[], [], [], []]
        starts = notes["start"].tolist()
        pitches, ends = notes["pitch"].tolist(), notes["end"].tolist()
        at = 0
        while at < len(starts):
            now = starts[at]
            upto = at
            while upto < len(starts) and starts[upto] == now:
                upto += 1
            held = [v for v in range(4) if busy_until[v] > now]
            free = [v for v in range(4) if busy_until[v] <= now]
            if upto - at > len(free):
                tick = int(notes["tick"][at])
                raise ValueError(
                    f"{self.what}: bar {self._bar(tick)}, tick {tick}: expected at most 4 notes at once, "
                    f"got {upto - at + len(held)}"
                )

            def cost(voices: Sequence[int], now: int = now, first: int = at, held: Sequence[int] = held) -> float:
                total = 0.0
                placed = [(v, sounding[v]) for v in held]
                for i, v in enumerate(voices):
                    pitch = pitches[first + i]
                    low, high = CHORALE_RANGES[VOICES[v]]
                    total += abs(pitch - last[v]) + 12 * max(0, low - pitch, pitch - high)
                    total += 5.0 * (busy_until[v] != now)  # rather a voice that goes on than one that comes in
                    # A crossing costs more than any leap: with four notes together, the order of pitch decides.
                    total += sum(1000.0 for w, p in placed if (p - pitch) * (v - w) < 0)
                    placed.append((v, pitch))
                return total

            best = min(permutations(free, upto - at), key=cost)
            for i, voice in enumerate(best):
                given[voice].append(at + i)
                busy_until[voice], sounding[voice], last[voice] = ends[at + i], pitches[at + i], pitches[at + i]
            at = upto
        return [notes[rows] for rows in given]

    def voices(self, voices: Sequence[Any]) -> Voices:
        """The grid of the voices' notes, from the first onset to the last end."""
        used = np.concatenate(voices)
        off, short = used["off"], np.count_nonzero(used["short"])
        if off.any():
            self.issues.append(
                f"{np.count_nonzero(off)} of {len(used)} notes do not begin on a sixteenth and were moved there, "
                f"by at most {off.max():.2f} of one"
            )
        if short:
            self.issues.append(f"{short} of {len(used)} notes are shorter than a sixteenth and were made one long")
        begin = min(int(v["start"].min()) for v in voices if len(v))
        frames = max(int(v["end"].max()) for v in voices if len(v)) - begin
        if frames > MAX_STEPS:
            raise ValueError(f"{self.what}: expected at most {MAX_STEPS} sixteenths, got {frames}")
        pitch = np.full((frames, len(voices)), REST, np.int32)
        onset = np.zeros((frames, len(voices)), bool)
        for column, notes in enumerate(voices):
            for start, end, sounds in zip(
                (notes["start"] - begin).tolist(), (notes["end"] - begin).tolist(), notes["pitch"].tolist(), strict=True
            ):
                pitch[start:end, column] = sounds
                onset[start, column] = True
        fermata = np.zeros(frames, bool)
        for text in self.score.texts:
            if text.kind == "marker" and text.data.strip().lower() == FERMATA_MARKER:
                frame = int(self._steps(text.time)) - begin
                if 0 <= frame < frames:
                    fermata[frame] = True
        position, meter = self._meter(begin, frames)
        tempos = self.score.tempos
        tempo = 6e7 / int(tempos["microseconds_per_quarter"][0]) if len(tempos) else 120.0
        return Voices(pitch, onset, fermata, position, meter, tempo, tuple(self.issues))

    def _segments(self) -> list[tuple[int, int, int, int]]:
        """(first tick, numerator, denominator, ticks into a bar at that tick) of every time signature."""
        table = np.sort(self.score.time_signatures, order="time", kind="stable")
        found = [(0, 4, 4, 0)]
        for time, numerator, denominator in table[["time", "numerator", "denominator"]].tolist():
            if found[-1][0] == time:
                found.pop()
            found.append((time, numerator, denominator, 0))
        if len(found) > 1:  # a first bar that is shorter than the next one is a pickup: it counts as that bar's end
            first = found[0][1] * 4 * self.ticks // found[0][2]
            bar = found[1][1] * 4 * self.ticks // found[1][2]
            if found[1][0] == first < bar:
                found[0] = (0, found[1][1], found[1][2], bar - first)
        return found

    def _bar_and_place(self, tick: int) -> tuple[int, int]:
        """Number of the bar, from 1 (a pickup is bar 0), and ticks from its beginning."""
        bar = 1
        segments = self._segments()
        for i, (begin, numerator, denominator, into) in enumerate(segments):
            length = max(1, numerator * 4 * self.ticks // denominator)
            if i == 0 and into:
                bar = 0
            end = segments[i + 1][0] if i + 1 < len(segments) else tick + 1
            if tick < end or i + 1 == len(segments):
                return bar + (tick - begin + into) // length, (tick - begin + into) % length
            bar += -(-(end - begin + into) // length)
        raise AssertionError("unreachable")

    def _bar(self, tick: int) -> int:
        return self._bar_and_place(tick)[0]

    def _meter(self, begin: int, frames: int) -> tuple[Ints, Meter]:
        segments = self._segments()
        ticks = (np.arange(begin, begin + frames) * self.ticks) // STEPS_PER_QUARTER
        position = np.empty(frames, np.int32)
        for first, numerator, denominator, into in segments:
            length = max(1, numerator * 4 * self.ticks // denominator)
            rows = ticks >= first
            position[rows] = ((ticks[rows] - first + into) % length) * STEPS_PER_QUARTER // self.ticks
        current = [s for s in segments if s[0] <= ticks[-1]][-1]
        meter = Meter(current[1], current[2])
        place = int(position[0])
        return position, Meter(current[1], current[2], (meter.bar_length - place) % meter.bar_length)


def _fraction(sixteenths: int) -> tuple[int, int]:
    """A time signature for a bar of so many sixteenths."""
    denominator = 16
    while sixteenths and sixteenths % 2 == 0 and denominator > 4:
        sixteenths, denominator = sixteenths // 2, denominator // 2
    return sixteenths, denominator


def _sharps(tonic: int, mode: str) -> int:
    """Sharps (negative: flats) of a key signature, from -5 to 6."""
    major = tonic + 3 if mode == "minor" else tonic
    return (major * 7 + 5) % 12 - 5


JSB16 = VoiceGrid(hold=False, ranges=JSB16_RANGES)
CHORALE = VoiceGrid()


def _integer(encoding: Mapping[str, Any], key: str, low: int, high: int, default: int) -> int:
    value = encoding.get(key, default)
    if type(value) is not int or not low <= value <= high:
        raise WeightsError(f"encoding.{key}: expected an integer in [{low}, {high}], got {value!r}")
    return value
