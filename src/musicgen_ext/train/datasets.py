"""Data sets of scores: a folder of MIDI files, and some corpora by name, in three splits."""

from __future__ import annotations

import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from musicgen_ext import files
from musicgen_ext.errors import MidiError, MidiWarning
from musicgen_ext.midi import Score, Track, read_midi
from musicgen_ext.train.splits import SIMILARITY, near_duplicates, split

SPLITS = ("train", "valid", "test")
SUFFIXES = (".mid", ".midi", ".kar", ".rmi", ".smf")
_LARGEST_FILE = 1 << 26  # bytes of a MIDI file inside an archive, which says itself how much it holds
_TICKS = 480


@dataclass(frozen=True)
class Item:
    """One piece of a data set."""

    name: str
    score: Score
    label: str | None = None
    group: int = 0
    """Pieces that resemble each other have the same (`musicgen_ext.train.splits`), and are in one split."""


@dataclass(frozen=True)
class Scores:
    """Pieces in three splits, and the files that could not be read: names and reasons."""

    train: Sequence[Item]
    valid: Sequence[Item]
    test: Sequence[Item] = ()
    failures: Sequence[tuple[str, str]] = ()

    @property
    def labels(self) -> list[str]:
        """All labels that occur, sorted."""
        return sorted({item.label for part in SPLITS for item in getattr(self, part) if item.label is not None})


def midi_folder(
    path: str | os.PathLike[str],
    *,
    labels: Literal["folder"] | None = None,
    valid_share: float = 0.1,
    test_share: float = 0.1,
    seed: int = 0,
    similarity: float | None = SIMILARITY,
) -> Scores:
    """The MIDI files of a folder, to any depth, or of a ZIP archive.

    Where the folder has subfolders ``train`` and ``valid`` (and perhaps ``test``), these are the splits. Otherwise the
    pieces are split by `musicgen_ext.train.splits.split`. Hidden files, and those that do not end in .mid, .midi, .kar,
    .rmi or .smf, are left out; a file that cannot be read, or has no notes, is a failure of its own.

    Parameters
    ----------
    path : path
    labels : "folder", optional
        The label of a piece is the folder it lies in, directly below `path` (or below the split).
    valid_share, test_share, seed
        See `split`.
    similarity : float in (0, 1], optional
        From which share of common windows on two pieces stay together; see `near_duplicates`. None: only copies of the
        very same melody do.

    Raises
    ------
    ValueError
        Fewer than two pieces can be read, all resemble each other, or an argument is out of its range.
    OSError
        The folder cannot be read.
    """
    if labels not in (None, "folder"):
        raise ValueError(f"labels: expected None or 'folder', got {labels!r}")
    items: list[Item] = []
    failures: list[tuple[str, str]] = []
    for name, read in _midi_files(path):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MidiWarning)
                score = read_midi(read())
            if not len(score.notes):
                raise MidiError("no notes")
        except (OSError, MidiError, zipfile.BadZipFile) as error:
            failures.append((name, str(error).removeprefix("MIDI data: ")))
            continue
        items.append(Item(name, score))
    folders = [_folder(item.name) for item in items]
    if {"train", "valid"} <= set(folders) <= set(SPLITS):
        inner = [_folder(item.name.partition("/")[2]) for item in items]
        if labels:
            items = [replace(item, label=label) for item, label in zip(items, inner, strict=True)]
        return _published(items, folders, None, failures)
    if labels:
        items = [replace(item, label=label) for item, label in zip(items, folders, strict=True)]
    try:
        return _split(items, valid_share, test_share, seed, similarity, failures)
    except ValueError as error:
        bad = f" ({len(failures)} could not be read: {failures[0][0]}: {failures[0][1]})" if failures else ""
        raise ValueError(f"{files.shown(path)}: {error}{bad}") from None


def read(
    path: str | os.PathLike[str],
    collection_name: str | None = None,
    *,
    similarity: float | None = SIMILARITY,
    **shares: Any,
) -> Scores:
    """`collection` if there is a name, otherwise `midi_folder`, to which `shares` belong."""
    if collection_name is not None:
        return collection(collection_name, path, similarity=similarity)
    return midi_folder(path, similarity=similarity, **shares)


def collection(
    name: str, path: str | os.PathLike[str], *, similarity: float | None = SIMILARITY, **options: Any
) -> Scores:
    """A corpus by name.

    Corpora with a published split keep it, but training pieces that resemble one of the validation or test split, and
    validation pieces that resemble one of the test split, are left out (with ``similarity=None`` they stay); the others
    are split as `midi_folder` does.

    ================= ========================================================================= ========= ==========
    name              pieces                                                                    split     label
    ================= ========================================================================= ========= ==========
    bach_chorales     ``chorales.json``: four voices, a track each                              published
    folk_melodies     ``melodies.json``: tunes of one voice                                     published collection
    js_fakes          ``js_fakes_midi.zip``: four-part chorales that a network wrote            own
    nottingham        ``nottingham_midi.zip``; ``part``: "full", "melody" or "chords"           own       book
    openscore_lieder  ``lieder_midi.zip`` and ``index.json`` beside it: songs with piano        published composer
    ================= ========================================================================= ========= ==========

    Parameters
    ----------
    name : str
    path : path
        The file, or the folder that holds it.
    similarity : float, optional
        See `near_duplicates`.

    Raises
    ------
    ValueError
        There is no such corpus, or the file has another form.
    OSError
        The file cannot be read.
    """
    if name not in COLLECTIONS:
        raise ValueError(f"collection: expected one of {', '.join(sorted(COLLECTIONS))}, got {name!r}")
    file, read = COLLECTIONS[name]
    where = Path(path)
    where = where / file if where.is_dir() else where
    try:
        return read(where, similarity, **options)
    except (KeyError, IndexError, TypeError, json.JSONDecodeError, UnicodeDecodeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{files.shown(where)}: expected the file of {name}, got {error!r}") from error


# -- corpora ---------------------------------------------------------------------------------------------------------


def _folk_melodies(path: Path, similarity: float | None) -> Scores:
    data = json.loads(path.read_bytes())
    scale = _TICKS // int(data["ticks_per_quarter"])
    items, where = [], []
    for i, tune in enumerate(data["tunes"]):
        upper, lower = map(int, tune["time"].split("/"))
        times = [(0, upper, lower)] if upper > 1 and lower in (2, 4, 8) else []  # some headers say 1/8
        score = _score_of_voices([tune["notes"]], scale, sharps=[(0, tune["sharps"])], times=times)
        items.append(Item(f"{tune['collection']}/{i}", score, tune["collection"]))
        where.append(tune["split"])
    return _published(items, where, similarity)


def _bach_chorales(path: Path, similarity: float | None) -> Scores:
    data = json.loads(path.read_bytes())
    scale = _TICKS // int(data["ticks_per_quarter"])
    items, where = [], []
    for piece in data["pieces"]:
        if piece["split"] == "skip" or piece["duplicate_of"] is not None:
            continue
        times = [(tick, *map(int, text.split("/"))) for tick, text in piece["time"]]
        score = _score_of_voices(piece["voices"], scale, names=data["voices"], sharps=piece["sharps"], times=times)
        items.append(Item(piece["id"], score))
        where.append("train" if piece["split"] == "extra" else piece["split"])
    return _published(items, where, similarity)


def _openscore_lieder(path: Path, similarity: float | None) -> Scores:
    index = {entry["file"]: entry for entry in json.loads((path.parent / "index.json").read_bytes())}
    items = [Item(name, read_midi(read()), index[name]["composer"]) for name, read in _midi_files(path)]
    return _published(items, [index[item.name]["split"] for item in items], similarity)


def _js_fakes(path: Path, similarity: float | None) -> Scores:
    return midi_folder(path, similarity=similarity)


def _nottingham(path: Path, similarity: float | None, *, part: Literal["full", "melody", "chords"] = "full") -> Scores:
    if part not in ("full", "melody", "chords"):
        raise ValueError(f"part: expected 'full', 'melody' or 'chords', got {part!r}")
    items = []
    for name, read in _midi_files(path):
        folder, _, file = name.removeprefix("MIDI/").rpartition("/")
        if folder == ("" if part == "full" else part):
            items.append(Item(file, read_midi(read()), file.rstrip("0123456789.mid")))
    return _split(items, 0.1, 0.1, 0, similarity, [])


COLLECTIONS: Mapping[str, tuple[str, Callable[..., Scores]]] = {
    "bach_chorales": ("chorales.json", _bach_chorales),
    "folk_melodies": ("melodies.json", _folk_melodies),
    "js_fakes": ("js_fakes_midi.zip", _js_fakes),
    "nottingham": ("nottingham_midi.zip", _nottingham),
    "openscore_lieder": ("lieder_midi.zip", _openscore_lieder),
}


def _score_of_voices(
    voices: Sequence[Sequence[Sequence[int]]],
    scale: int,
    *,
    names: Sequence[str] = (),
    sharps: Sequence[Sequence[int]] = (),
    times: Sequence[Sequence[int]] = (),
) -> Score:
    """Lists of [onset, duration, pitch] as a score with a track each."""
    rows = [
        (scale * onset, scale * duration, pitch, 80, track)
        for track, voice in enumerate(voices)
        for onset, duration, pitch in voice
    ]
    return Score(
        rows,
        ticks_per_quarter=_TICKS,
        tracks=[Track(name=name, channel=0) for name in names],
        key_signatures=[(scale * tick, count, 0) for tick, count in sharps if -7 <= count <= 7],
        time_signatures=[(scale * tick, upper, lower) for tick, upper, lower in times],
    )


def warn_of(path: str | os.PathLike[str], failures: Sequence[tuple[str, str]]) -> None:
    """One `MidiWarning` for all the files that could not be used, the first three by name."""
    if failures:
        first = "; ".join(f"{files.shown(name)}: {reason}" for name, reason in failures[:3])
        more = f"; and {len(failures) - 3} more" if len(failures) > 3 else ""
        message = f"{files.shown(path)}: {len(failures)} file(s) could not be used: {first}{more}"
        warnings.warn(message, MidiWarning, stacklevel=3)


# -- helpers ---------------------------------------------------------------------------------------------------------


def _split(
    items: Sequence[Item],
    valid_share: float,
    test_share: float,
    seed: int,
    similarity: float | None,
    failures: Sequence[tuple[str, str]],
) -> Scores:
    groups = near_duplicates([item.score for item in items], 1.0 if similarity is None else similarity)
    names = [item.name for item in items]
    where = split(names, groups, valid_share=valid_share, test_share=test_share, seed=seed)
    return _in_splits(items, groups, where, failures)


def _published(
    items: Sequence[Item], where: Sequence[str], similarity: float | None, failures: Sequence[tuple[str, str]] = ()
) -> Scores:
    """A split that is given, less the pieces that resemble one of a split that is judged by."""
    if similarity is None:
        return _in_splits(items, np.arange(len(items)), where, failures)
    groups = near_duplicates([item.score for item in items], similarity)
    kept = list(where)
    for judge, others in (("test", ("train", "valid")), ("valid", ("train",))):
        taken = {int(group) for group, part in zip(groups, where, strict=True) if part == judge}
        kept = [
            "" if part in others and int(group) in taken else part for group, part in zip(groups, kept, strict=True)
        ]
    return _in_splits(items, groups, kept, failures)


def _in_splits(items: Sequence[Item], groups: Any, where: Sequence[str], failures: Sequence[tuple[str, str]]) -> Scores:
    parts: dict[str, list[Item]] = {part: [] for part in SPLITS}
    for item, group, part in zip(items, groups, where, strict=True):
        if part:
            parts[part].append(replace(item, group=int(group)))
    return Scores(parts["train"], parts["valid"], parts["test"], tuple(failures))


def _folder(name: str) -> str:
    folder, slash, _ = name.partition("/")
    return folder if slash else ""


def _midi_files(path: str | os.PathLike[str]) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Names, relative to `path` and sorted, and how to get at the bytes."""
    where = Path(path)
    if where.is_file():
        yield from _in_archive(where)
        return
    if not where.is_dir():
        raise FileNotFoundError(2, "expected a folder of MIDI files, or a ZIP archive of them", os.fspath(path))
    found = []
    for folder, subfolders, names in os.walk(where):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        found += [Path(folder, name) for name in names if _is_midi(name)]
    for file in sorted(found, key=lambda file: os.fsencode(file)):
        yield file.relative_to(where).as_posix(), file.read_bytes


def _in_archive(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{files.shown(path)}: expected a folder of MIDI files, or a ZIP archive of them, got a file")
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        for entry in sorted(archive.infolist(), key=lambda entry: entry.filename):
            if not entry.is_dir() and _is_midi(entry.filename.rpartition("/")[2]):
                yield entry.filename, lambda entry=entry: _entry(archive, entry)  # type: ignore[misc]


def _entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    if entry.file_size > _LARGEST_FILE:
        raise MidiError(f"expected at most {_LARGEST_FILE} bytes, got {entry.file_size}")
    return archive.read(entry)


def _is_midi(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)
