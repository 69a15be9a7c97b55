"""Rebuild the fiddle tunes from the PyPI package music21: ``python -m musicgen_ext.train.rebuild_folk OUT.json``.

Ryan's Mammoth Collection (Boston 1883) and O'Neill's Music of Ireland (1903); the tunes are in the public domain. The
ABC transcriptions are volunteers', given to music21 for distribution by John Chambers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from musicgen_ext import files

COLLECTIONS = ("ryansMammoth", "oneills1850")
TICKS = 24  # a quarter: a sixteenth is 6, an eighth of a triplet 8


def splits() -> dict[str, list[str]]:
    """Tunes of the splits "valid" and "test", as ``collection/file:number``; all others are for training."""
    text = (resources("musicgen_ext.train") / "folk_splits.json").read_text(encoding="utf-8")
    names: dict[str, list[str]] = json.loads(text)
    return names


def tune_name(tune: Mapping[str, Any]) -> str:
    """What `splits` calls a tune."""
    return f"{tune['collection']}/{tune['file']}:{tune['number']}"


def rebuild_folk(out: str | os.PathLike[str], *, progress: bool = False) -> int:
    """Write the tunes as `musicgen_ext.train.folk.folk` reads them; about three minutes.

    JSON: ``ticks_per_quarter`` 24 and ``tunes``, each with ``collection``, ``file``, ``number``, ``title``, ``time``
    (the first time signature that music21 finds, which for a pickup may be "1/8"), ``sharps``, ``split`` and ``notes``
    [[onset, duration, midi]]; and as the bar lines have it ``meter`` (the commonest bar) and ``measures`` [[onset,
    ticks inside the bar]]. Repeats are written once, of a chord the highest note. Left out are tunes that are another
    one before them, transposed, and those with notes between two ticks.

    Returns
    -------
    tunes : int

    Raises
    ------
    ImportError
        music21 is not installed.
    ValueError
        A tune that the splits name is missing in the installed music21.
    """
    try:
        import music21
    except ImportError as e:
        raise ImportError("rebuilding the tunes needs music21: pip install music21==10.5.1") from e

    corpus = Path(music21.__file__).parent / "corpus"
    split_of = {name: split for split, names in splits().items() for name in names}
    tunes: list[dict[str, Any]] = []
    seen: set[tuple[Any, ...]] = set()
    for tune in _tunes(music21, corpus, progress):
        first = tune["notes"][0][2]
        shape = tuple((onset, duration, pitch - first) for onset, duration, pitch in tune["notes"])
        if shape not in seen:
            seen.add(shape)
            tunes.append({**tune, "split": split_of.pop(tune_name(tune), "train")})
    if split_of:
        raise ValueError(
            f"music21 {music21.__version__}: expected the tunes of the splits, {len(split_of)} are missing: "
            f"{sorted(split_of)[:5]}"
        )
    text = json.dumps({"ticks_per_quarter": TICKS, "note": ["onset", "duration", "midi_pitch"], "tunes": tunes})
    files.replace(out, [text.encode()])
    return len(tunes)


def _tunes(music21: Any, corpus: Path, progress: bool) -> Iterator[dict[str, Any]]:
    for collection in COLLECTIONS:
        paths = sorted((corpus / collection).glob("*.abc"))
        for i, path in enumerate(paths):
            if progress:
                sys.stderr.write(f"\r{collection} {i + 1}/{len(paths)} ")
            parsed = music21.converter.parse(path, format="abc")
            for score in parsed.scores if isinstance(parsed, music21.stream.Opus) else [parsed]:
                tune = _tune(score)
                if tune is not None:
                    yield {"collection": collection, "file": path.name, **tune}
    if progress:
        sys.stderr.write("\n")


def _tune(score: Any) -> dict[str, Any] | None:
    """What is kept of a tune; None if it has no notes, or some that begin or end between ticks."""
    flat = score.flatten()
    signatures, keys = (list(flat.getElementsByClass(kind)) for kind in ("TimeSignature", "KeySignature"))
    notes = [n for n in flat.stripTies().notes if n.quarterLength > 0]
    if not notes or any(abs(t * TICKS - _ticks(t)) > 1e-6 for n in notes for t in (n.offset, n.quarterLength)):
        return None
    meter, measures = _measures(score.parts[0].getElementsByClass("Measure"))
    return {
        "number": str(score.metadata.number),
        "title": score.metadata.title,
        "time": signatures[0].ratioString if signatures else None,
        "sharps": keys[0].sharps if keys else 0,
        "notes": [[_ticks(n.offset), _ticks(n.quarterLength), max(p.midi for p in n.pitches)] for n in notes],
        "meter": meter,
        "measures": measures,
    }


def _measures(found: Sequence[Any]) -> tuple[str | None, list[list[int]]]:
    """The metre of most bars, and where in its bar every measure begins (a repeat sign may cut a bar in two)."""
    measures = list(found)
    meters = Counter[str]()
    signature = None
    for measure in measures:
        signature = measure.timeSignature or signature
        if signature is not None:
            meters[signature.ratioString] += 1
    if not meters:
        return None, []
    meter = meters.most_common(1)[0][0]
    numerator, denominator = map(int, meter.split("/"))
    bar = 4 * TICKS * numerator // denominator
    placed: list[list[int]] = []
    at = None  # where the measure before ended, counted from the start of its bar
    for measure in measures:
        size = _ticks(measure.duration.quarterLength)
        begins = bar - size if at is None else at % bar  # a short first measure is a pickup
        first = begins if 0 <= begins <= bar - size else 0
        placed.append([_ticks(measure.offset), first])
        at = first + size
    return meter, placed


def _ticks(quarters: Any) -> int:
    return round(float(quarters) * TICKS)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m musicgen_ext.train.rebuild_folk", description=__doc__)
    parser.add_argument("out", help="the .json file to write")
    out = parser.parse_args(arguments).out
    count = rebuild_folk(out, progress=sys.stderr.isatty())
    print(f"{out}: {count} tunes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
