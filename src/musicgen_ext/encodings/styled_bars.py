"""Windows of bars with the style that they are in: what a network hears that tells music in one style or another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from musicgen_ext.architectures import readers
from musicgen_ext.encodings.roll_bars import RollBars, Rolls
from musicgen_ext.errors import WeightsError
from musicgen_ext.keys import nearest_key
from musicgen_ext.midi import DRUM_CHANNEL, Score

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

HEARD = ("all", "outer", "melody")
MEASURES = ("none", "density", "tempo")
TEMPO = 120.0  # of a score that does not say
_LIMITS = {"bars": 64, "groups": 16, "labels": 1 << 12, "edge": 1 << 30}


@dataclass(frozen=True)
class StyleGroup:
    """One choice out of several: a part of the style vector, with a 1 for what is chosen and 0 for the others.

    Attributes
    ----------
    name : str
    labels : tuple of str
    measure : "none", "density" or "tempo"
        What tells the label of music. ``"none"``: whoever collected it. ``"density"``: at how many steps of a bar
        something begins; ``"tempo"``: quarters a minute.
    edges : tuple of float
        Of a measure, one fewer than labels: label i is from ``edges[i - 1]`` (inclusive) up to ``edges[i]``.
    typical : tuple of float
        Of a measure: a value in the middle of each label.
    """

    name: str
    labels: tuple[str, ...]
    measure: str = "none"
    edges: tuple[float, ...] = ()
    typical: tuple[float, ...] = ()

    def label_of(self, values: npt.ArrayLike) -> Labels:
        """The numbers of the labels of measured values."""
        return np.searchsorted(np.array(self.edges, float), np.asarray(values, float), side="right")

    def to_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {"name": self.name, "labels": list(self.labels)}
        if self.measure == "none":
            return out
        return {**out, "measure": self.measure, "edges": list(self.edges), "typical": list(self.typical)}


@dataclass(frozen=True)
class StyledBars:
    """Pictures of a few bars each, one after the other, all in one key if so wanted, and the style vectors of these.

    Attributes
    ----------
    groups : tuple of StyleGroup
    roll_bars : RollBars
        What a bar looks like.
    bars : int
        In a window.
    one_key : bool
        Whether a piece is brought to C major or A minor, by the nearest way, before it is looked at.
    """

    name: ClassVar[str] = "styled_bars"

    groups: tuple[StyleGroup, ...]
    roll_bars: RollBars = field(default_factory=RollBars)
    bars: int = 1
    one_key: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one window: channels, steps, pitches."""
        channels, steps, pitches = self.roll_bars.shape
        return channels, self.bars * steps, pitches

    @property
    def style_size(self) -> int:
        """Numbers in a style vector."""
        return sum(len(group.labels) for group in self.groups)

    # -- the JSON form ---------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, with its ``name``: what a model file keeps."""
        return {
            "name": self.name,
            "groups": [group.to_dict() for group in self.groups],
            "roll_bars": self.roll_bars.to_dict(),
            "bars": self.bars,
            "one_key": self.one_key,
        }

    @classmethod
    def from_dict(cls, encoding: Mapping[str, Any]) -> Self:
        """Build from the JSON form; keys that are missing take their defaults, a mistake is a `WeightsError`."""
        where = "encoding"
        readers.only(encoding, {"name", "groups", "roll_bars", "bars", "one_key"}, where)
        listed = readers.entries(encoding, "groups", 1, _LIMITS["groups"], where)
        groups = tuple(_group(entry, f"{where}.groups[{i}]") for i, entry in enumerate(listed))
        readers.unique((group.name for group in groups), f"{where}.groups")
        one_key = encoding.get("one_key", True)
        if not isinstance(one_key, bool):
            raise WeightsError(f"{where}.one_key: expected true or false, got {one_key!r}")
        rolls = encoding.get("roll_bars", {})
        if not isinstance(rolls, Mapping):
            raise WeightsError(f"{where}.roll_bars: expected an object, got {type(rolls).__name__}")
        bars = readers.integer(encoding, "bars", 1, _LIMITS["bars"], where, 1)
        return cls(groups, RollBars.from_dict(rolls), bars, one_key)

    # -- music to numbers --------------------------------------------------------------------------------------------

    def windows(self, score: Score, issues: list[str] | None = None) -> tuple[Rolls, int]:
        """The bars of a score, `bars` to a window; the last is filled up with silence.

        Parameters
        ----------
        score : Score
        issues : list of str, optional
            What the pictures could not hold is added here, in words.

        Returns
        -------
        windows : np.ndarray [shape=(N, C, T, P)], uint8
        shift : int, -5 to 6
            Semitones that they are above the score.
        """
        shift = self._shift(score)
        bars = self.roll_bars.windows(score.transpose(shift, outside="drop") if shift else score, issues)
        silent = np.zeros((-len(bars) % self.bars, *bars.shape[1:]), np.uint8)
        return self.joined(np.concatenate([bars, silent]).reshape(-1, self.bars, *bars.shape[1:])), shift

    def joined(self, bars: Rolls) -> Rolls:
        """Bars (N, bars, C, T, P) as windows (N, C, bars * T, P)."""
        return np.ascontiguousarray(bars.transpose(0, 2, 1, 3, 4)).reshape(-1, *self.shape)

    def _shift(self, score: Score) -> int:
        notes = score.notes[score.notes["channel"] != DRUM_CHANNEL]
        if not self.one_key or not len(notes):
            return 0
        quarters = notes["duration"] / score.ticks_per_quarter
        tonic, mode = nearest_key(np.bincount(notes["pitch"] % 12, weights=quarters, minlength=12))
        return ((0 if mode == "major" else 9) - tonic + 5) % 12 - 5

    def density(self, windows: Rolls) -> npt.NDArray[np.float64]:
        """At how many steps of a bar something begins, for every window."""
        begins = windows[:, -1] != 0
        if not self.roll_bars.onsets:
            begins[:, 1:] &= windows[:, 0, :-1] == 0
        return np.asarray(begins.any(axis=2).sum(axis=1) / self.bars, np.float64)

    def labels_of(self, windows: Rolls, tempo: float) -> Labels:
        """Labels of all windows [shape=(N, groups)], as measured; 0 where a group is not measured."""
        values = {"none": np.zeros(len(windows)), "tempo": np.full(len(windows), tempo)}
        values["density"] = self.density(windows)
        return np.stack([group.label_of(values[group.measure]) for group in self.groups], axis=1)

    def vectors(self, labels: npt.ArrayLike) -> Floats:
        """Labels, one of each group [shape=(N, groups)] -> style vectors [shape=(N, style_size)], float32."""
        chosen = np.asarray(labels, np.int64)
        return np.concatenate(
            [np.eye(len(group.labels), dtype=np.float32)[chosen[:, i]] for i, group in enumerate(self.groups)], axis=1
        )

    # -- and back ------------------------------------------------------------------------------------------------------

    def decode(
        self,
        windows: npt.ArrayLike,
        *,
        shift: int = 0,
        tempo: float = TEMPO,
        provenance: Mapping[str, Any] | None = None,
    ) -> Score:
        """The score of windows [shape=(N, C, T, P)] that follow one another and are `shift` semitones too high."""
        pictures = np.asarray(windows, np.uint8)
        if pictures.ndim != 4 or pictures.shape[1:] != self.shape:
            raise ValueError(f"windows: expected shape (N, {', '.join(map(str, self.shape))}), got {pictures.shape}")
        channels, _, pitches = self.shape
        bars = pictures.reshape(len(pictures), channels, self.bars, -1, pitches).transpose(0, 2, 1, 3, 4)
        score = self.roll_bars.decode(bars.reshape(-1, *self.roll_bars.shape), tempo=tempo, provenance=provenance)
        return score.transpose(-shift, outside="drop") if shift else score


def lines(windows: Rolls, heard: str) -> Rolls:
    """Windows [shape=(N, C, T, P)] as they are ("all"), or only the highest note of every step ("melody"), or the
    highest and the lowest ("outer")."""
    if heard == "all":
        return windows
    sounding = windows[:, 0]
    kept = np.zeros_like(sounding)
    np.put_along_axis(kept, (sounding.shape[2] - 1 - sounding[:, :, ::-1].argmax(2))[..., None], 1, 2)
    if heard == "outer":
        np.put_along_axis(kept, sounding.argmax(2)[..., None], 1, 2)
    return windows * kept[:, None]


def tempo_of(score: Score) -> float:
    """Quarters a minute at the beginning of a score; 120 where it does not say."""
    tempos = score.tempos
    return 60e6 / int(tempos["microseconds_per_quarter"][0]) if len(tempos) else TEMPO


def _group(entry: Any, where: str) -> StyleGroup:
    readers.only(entry, {"name", "labels", "measure", "edges", "typical"}, where)
    listed = readers.entries(entry, "labels", 1, _LIMITS["labels"], where)
    labels = tuple(readers.string({"label": one}, "label", f"{where}.labels[{i}]") for i, one in enumerate(listed))
    readers.unique(labels, f"{where}.labels")
    measure = readers.choice(entry, "measure", MEASURES, where, "none")
    numbers: dict[str, tuple[float, ...]] = {}
    for key, count in (("edges", len(labels) - 1), ("typical", len(labels))):
        count = 0 if measure == "none" else count
        values = readers.entries(entry, key, count, count, where, [])
        for i, value in enumerate(values):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LIMITS["edge"]:
                raise WeightsError(f"{where}.{key}[{i}]: expected a number in [0, {_LIMITS['edge']}), got {value!r}")
        if sorted(values) != values:
            raise WeightsError(f"{where}.{key}: expected growing numbers, got {values}")
        numbers[key] = tuple(map(float, values))
    return StyleGroup(readers.string(entry, "name", where), labels, measure, **numbers)
