"""Rebuild the chorale data from the PyPI package music21: ``python -m musicgen_ext.train.rebuild_chorales OUT.npz``.

The encodings are Margaret Greentree's and others', distributed with music21; the works are in the public domain. The
splits (`chorale_splits.json`) are those of Boulanger-Lewandowski et al. (2012), carried over by matching the chords.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Iterable
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import numpy as np

from musicgen_ext import files

VOICE_NAMES = ("Soprano", "Alto", "Tenor", "Bass")
TICKS = 8  # a quarter; nothing in the corpus is finer than a 32nd
STEP = 2  # ticks in a sixteenth


def splits() -> dict[str, list[str]]:
    """Names of the pieces by split, and of those that are further copies of a piece under ``"duplicate"``."""
    text = (resources("musicgen_ext.train") / "chorale_splits.json").read_text(encoding="utf-8")
    names: dict[str, list[str]] = json.loads(text)
    return names


def rebuild_chorales(out: str | os.PathLike[str], *, progress: bool = False) -> int:
    """Write ``chorales_16th.npz`` as `musicgen_ext.train.data.chorales` reads it; about a minute.

    Arrays: ``pitch`` int8 (T, 4) soprano, alto, tenor, bass, -1 = rest; ``onset`` uint8 (T, 1), bits of the four
    voices; ``fermata`` bool (T,); ``bar_pos`` int16 (T,), sixteenth inside the bar; ``offsets`` int32 (pieces + 1,);
    ``ids``, ``split``, ``sharps``, ``duplicate`` by piece. Repeats are written once.

    Returns
    -------
    pieces : int

    Raises
    ------
    ImportError
        music21 is not installed.
    ValueError
        A piece that the splits name is missing in the installed music21 or has not four voices.
    """
    try:
        import music21
    except ImportError as e:
        raise ImportError("rebuilding the chorales needs music21: pip install music21==10.5.1") from e

    corpus = Path(music21.__file__).parent / "corpus" / "bach"
    named = splits()
    duplicates = set(named.pop("duplicate"))
    split_of = {name: split for split, names in named.items() for name in names}
    scores = (p for p in sorted(corpus.iterdir()) if p.suffix in (".mxl", ".xml"))
    paths = {p.stem: p for p in scores if p.stem in split_of}
    missing = sorted(set(split_of) - set(paths))
    if missing:
        raise ValueError(
            f"music21 {music21.__version__}: expected 407 chorales, {len(missing)} are missing: {missing[:5]}"
        )
    columns: dict[str, list[Any]] = {k: [] for k in ("pitch", "onset", "fermata", "bar_pos", "sharps")}
    names = list(paths)
    for i, name in enumerate(names):
        if progress:
            sys.stderr.write(f"\r{i + 1}/{len(names)} {name:<16}")
        for key, value in _piece(music21, paths[name]).items():
            columns[key].append(value)
    if progress:
        sys.stderr.write("\n")
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        pitch=np.concatenate(columns["pitch"]).astype(np.int8),
        onset=np.packbits(np.concatenate(columns["onset"]), axis=1),
        fermata=np.concatenate(columns["fermata"]),
        bar_pos=np.concatenate(columns["bar_pos"]).astype(np.int16),
        offsets=np.cumsum([0, *(len(p) for p in columns["pitch"])]).astype(np.int32),
        ids=np.array(names),
        split=np.array([split_of[n] for n in names]),
        sharps=np.array(columns["sharps"], np.int8),
        duplicate=np.array([n in duplicates for n in names]),
    )
    files.replace(out, [buffer.getbuffer()])
    return len(names)


def _piece(music21: Any, path: Path) -> dict[str, Any]:
    score = music21.converter.parse(path)
    # A part may also list the instruments that double it: "Soprano\rOboe 1,2" or "Bass Continuo".
    names = [" ".join(str(p.partName or "").split()).split(" ")[0] for p in score.parts]
    if all(name in names for name in VOICE_NAMES):
        voices = [score.parts[names.index(name)] for name in VOICE_NAMES]
    elif len(score.parts) == 4:
        voices = list(score.parts)
    else:
        raise ValueError(f"{path.name}: expected four voices, got the parts {names}")
    measures = list(voices[0].getElementsByClass("Measure"))
    notes = [list(v.stripTies().flatten().notes) for v in voices]
    end = max(_ticks(n.offset + n.quarterLength) for voice in notes for n in voice)
    length = max(end, _ticks(measures[-1].offset + measures[-1].duration.quarterLength)) // STEP
    pitch = np.full((length, 4), -1, np.int64)
    onset = np.zeros((length, 4), bool)
    fermata = np.zeros(length, bool)
    for column, voice in enumerate(notes):
        for note in voice:
            start, stop = _ticks(note.offset), _ticks(note.offset + note.quarterLength)
            top = max(p.midi for p in note.pitches)
            pitch[-(-start // STEP) : -(-stop // STEP), column] = top
            if start % STEP == 0:
                onset[start // STEP, column] = stop > start
            if any(type(e).__name__ == "Fermata" for e in note.expressions):
                fermata[start // STEP] = True
    keys = voices[0].recurse().getElementsByClass("KeySignature")
    return {
        "pitch": pitch,
        "onset": onset,
        "fermata": fermata,
        "bar_pos": _positions(measures, length),
        "sharps": keys[0].sharps if keys else 0,
    }


def _positions(measures: Iterable[Any], length: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Sixteenth inside the bar; a pickup and the two halves of a bar that a repeat sign cuts count on rightly."""
    out = np.zeros(length, np.int64)
    at = None  # where the measure before ended, counted from the start of its bar
    measures = list(measures)
    ends = [_ticks(m.offset) // STEP for m in measures[1:]] + [length]
    for measure, stop in zip(measures, ends, strict=True):
        start = _ticks(measure.offset) // STEP
        bar = _ticks(measure.barDuration.quarterLength) // STEP
        size = stop - start
        begins = bar - size if at is None else at % bar  # a short first measure is a pickup
        first = begins if 0 <= begins <= bar - size else 0
        out[start:stop] = (first + np.arange(size)) % bar
        at = first + size
    return out


def _ticks(quarters: Any) -> int:
    return round(float(quarters) * TICKS)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m musicgen_ext.train.rebuild_chorales", description=__doc__)
    parser.add_argument("out", help="the .npz file to write")
    out = parser.parse_args(arguments).out
    count = rebuild_chorales(out, progress=sys.stderr.isatty())
    print(f"{out}: {count} chorales")
    return 0


if __name__ == "__main__":
    sys.exit(main())
