"""Music in several styles to learn from: windows of bars, each with its labels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from musicgen_ext import files
from musicgen_ext.encodings import RollBars, StyledBars, StyleGroup
from musicgen_ext.encodings.roll_bars import Rolls
from musicgen_ext.encodings.styled_bars import Labels, tempo_of
from musicgen_ext.train.datasets import SPLITS, Item, Scores, collection, midi_folder

_TAKEN = {"density", "hear", "key", "score", "seed", "temperature", "tempo", "z"}  # what a model means otherwise
_WORDS = {1: ("any",), 2: ("low", "high"), 3: ("low", "medium", "high")}


@dataclass(frozen=True)
class StyledPiece:
    """One piece.

    Attributes
    ----------
    name : str
    windows : np.ndarray [shape=(N, C, T, P)], uint8
    labels : np.ndarray [shape=(N, groups)], int64
        Of every window.
    """

    name: str
    windows: Rolls
    labels: Labels


@dataclass(frozen=True)
class StyleCorpus:
    """Pieces in several styles, in three splits.

    Attributes
    ----------
    train, valid, test : sequence of StyledPiece
    styled_bars : StyledBars
        What windows and labels mean.
    per_label : int
        Windows of each label of the first group in an epoch.
    sketches : float
        The share of training windows of which the encoder hears lines only: half of them the melody, half the outer
        two (`musicgen_ext.encodings.styled_bars.lines`).
    """

    train: Sequence[StyledPiece]
    valid: Sequence[StyledPiece]
    test: Sequence[StyledPiece]
    styled_bars: StyledBars
    per_label: int = 2000
    sketches: float = 0.5
    issues: Sequence[str] = field(default=(), compare=False)

    variants: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def encoding(self) -> dict[str, Any]:
        """What a model file says the pictures mean."""
        return self.styled_bars.to_dict()


def styles(
    path: str | os.PathLike[str],
    *,
    collections: Mapping[str, Mapping[str, Any]] | None = None,
    group: str = "style",
    density: int = 3,
    tempo: int = 0,
    bars: int = 1,
    one_key: bool = True,
    per_label: int = 2000,
    sketches: float = 0.5,
    steps_per_quarter: int = 4,
    quarters: int = 4,
    lowest_pitch: int = 36,
    num_pitches: int = 60,
    **options: Any,
) -> StyleCorpus:
    """A folder with a subfolder of MIDI files for every style, or corpora by name, one for every style.

    Parameters
    ----------
    path : path
        The folder; of `collections` the one that their paths are relative to.
    collections : mapping of str to mapping, optional
        By label: ``name``, that of a corpus (`musicgen_ext.train.datasets.collection`), ``path`` below `path`, and the
        corpus's own options.
    group : str
        What the labels are called, as a condition.
    density, tempo : int, 0 to 3
        Classes of density (at how many steps of a bar something begins) and of tempo, each with as many windows of the
        training split as the others; 0 for none.
    bars : int
        In a window.
    one_key, steps_per_quarter, quarters, lowest_pitch, num_pitches
        See `musicgen_ext.encodings.StyledBars` and `RollBars`. Bars of other lengths are left out.
    per_label : int
        Windows of each style in an epoch, which balances them.
    sketches : float in [0, 1]
        Share of the training windows of which the encoder hears only the melody, or melody and bass, and the generator
        has to make up the rest from the style: so that z says what all styles have.
    options
        As of `musicgen_ext.train.datasets.midi_folder`.

    Raises
    ------
    ValueError
        Fewer than two styles, one without enough bars in train or valid, or an argument out of its range.
    """
    for name, value in (("density", density), ("tempo", tempo)):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= len(_WORDS):
            raise ValueError(f"data.{name}: expected an integer in [0, {len(_WORDS)}], got {value!r}")
    for name, value in (("bars", bars), ("per_label", per_label)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"data.{name}: expected an integer > 0, got {value!r}")
    if not isinstance(group, str) or not group.isidentifier() or group in _TAKEN:
        raise ValueError(f"data.group: expected a name that is none of {sorted(_TAKEN)}, got {group!r}")
    if isinstance(sketches, bool) or not isinstance(sketches, int | float) or not 0 <= sketches <= 1:
        raise ValueError(f"data.sketches: expected a number in [0, 1], got {sketches!r}")
    scores = _scores(path, collections, options)
    labels = tuple(scores.labels)
    if len(labels) < 2:
        raise ValueError(f"{files.shown(path)}: expected music in at least 2 styles, got {list(labels)}")
    rolls = RollBars(steps_per_quarter, quarters, lowest_pitch, num_pitches)
    draft = StyledBars((StyleGroup(group, labels),), rolls, bars, one_key)
    issues: list[str] = []
    found = {part: [_read(item, draft, issues) for item in getattr(scores, part)] for part in SPLITS}
    heard = {part: [piece for piece in pieces if piece is not None] for part, pieces in found.items()}
    for part in ("train", "valid"):
        missing = sorted(set(labels) - {piece.label for piece in heard[part]})
        if missing:
            raise ValueError(
                f"{files.shown(path)}: expected pieces of every style with at least 2 windows of {bars} bar(s) of "
                f"{quarters} quarters in {part}, got none of {missing}"
            )
    groups = list(draft.groups)
    for name, classes, measure in (("density", density, _Read.density), ("tempo", tempo, _Read.tempos)):
        if classes:
            groups.append(_classes(name, classes, [measure(piece, draft) for piece in heard["train"]]))
    encoding = StyledBars(tuple(groups), rolls, bars, one_key)
    train, valid, test = ([piece.styled(encoding) for piece in heard[part]] for part in SPLITS)
    return StyleCorpus(train, valid, test, encoding, per_label, float(sketches), tuple(issues))


def _scores(
    path: str | os.PathLike[str], collections: Mapping[str, Mapping[str, Any]] | None, options: Mapping[str, Any]
) -> Scores:
    if collections is None:
        return midi_folder(path, labels="folder", **options)
    if options:
        raise ValueError(f"data.{next(iter(options))}: expected none beside data.collections, which have their own")
    parts: dict[str, list[Item]] = {part: [] for part in SPLITS}
    for label, told in collections.items():
        settings = dict(told)
        if not {"name", "path"} <= set(settings):
            raise ValueError(f"data.collections.{label}: expected name and path, got {sorted(settings)}")
        corpus = collection(settings.pop("name"), Path(path) / settings.pop("path"), **settings)
        for part in SPLITS:
            parts[part] += [Item(f"{label}/{item.name}", item.score, label) for item in getattr(corpus, part)]
    return Scores(parts["train"], parts["valid"], parts["test"])


@dataclass(frozen=True)
class _Read:
    """A piece before it is known what is dense and what is fast."""

    name: str
    label: str
    windows: Rolls
    tempo: float

    def density(self, encoding: StyledBars) -> Any:
        return encoding.density(self.windows)

    def tempos(self, encoding: StyledBars) -> Any:
        return np.full(len(self.windows), self.tempo)

    def styled(self, encoding: StyledBars) -> StyledPiece:
        labels = encoding.labels_of(self.windows, self.tempo)
        labels[:, 0] = encoding.groups[0].labels.index(self.label)
        return StyledPiece(self.name, self.windows, labels)


def _read(item: Item, encoding: StyledBars, issues: list[str]) -> _Read | None:
    """None where there are not two windows in which something begins."""
    lost: list[str] = []
    windows, _ = encoding.windows(item.score, lost)
    issues += [f"{item.name}: {issue}" for issue in lost]
    begins = np.flatnonzero(windows[:, -1].any((1, 2)))
    if item.label is None or len(begins) < 2:
        return None
    return _Read(item.name, item.label, windows[begins[0] : begins[-1] + 1], tempo_of(item.score))


def _classes(name: str, count: int, values: Sequence[Any]) -> StyleGroup:
    """As many classes of equal size; every piece counts as often as it has windows."""
    measured = np.concatenate(values)
    at = np.quantile(measured, np.arange(1, 2 * count) / (2 * count))
    typical, edges = [float(v) for v in at[::2]], [float(v) for v in at[1::2]]
    if len(set(edges)) < len(edges) or measured.min() == measured.max() or (edges and edges[0] <= measured.min()):
        raise ValueError(
            f"data.{name}: expected music that differs in it enough for {count} classes, got edges {edges}"
        )
    return StyleGroup(name, _WORDS[count], name, tuple(edges), tuple(typical))
