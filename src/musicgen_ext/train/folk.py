"""Fiddle tunes with metre, key and length, as the bundled model `folk` learns them."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from musicgen_ext.encodings import FOLK, REST, SCALES, STEPS_PER_QUARTER, Meter
from musicgen_ext.train.data import Corpus, Piece
from musicgen_ext.train.datasets import collection

Ints = npt.NDArray[np.int32]

FOLK_DIGEST = "65c4d2f439b7edd1558103e1a26fd02025771874f73d61b199db7eaf02f939fd"
_LONGEST = 48  # bars; 17 tunes are longer, sets of variations most of them
_HEARD_ONCE = 10  # a length, a key or a beginning that fewer training tunes have is not drawn
_WEIGHTS = {"tonic": 0.3, "fifth": 0.1, "last": 0.05}


@dataclass(frozen=True)
class _Facts:
    meter: Meter
    position: Ints
    tonic: int
    mode: str


def folk(
    path: str | os.PathLike[str],
    *,
    known_meter: float = 0.95,
    known_key: float = 0.8,
    known_length: float = 0.8,
    transposed: float = 0.5,
    any_hash: bool = False,
) -> Corpus:
    """Tunes of one voice on the grid of sixteenths, told metre, key and how much of it is left.

    Tokens: `musicgen_ext.encodings.FOLK`. What lies between two sixteenths goes to the one before, so that a triplet of
    eighths becomes two sixteenths and an eighth, as fiddlers play it; left out are tunes where two notes then fall on
    one sixteenth (32nds, triplets of sixteenths), those in rarer metres, those whose bars are not all of one length or
    more than 48, and training tunes that resemble a tune of the validation or test split (by a quarter of their windows
    of 8 notes, see `near_duplicates`). The key is what `tune_key` hears.

    In training a tune is, some of the time, transposed by any interval up to a tritone that keeps it inside the range
    of all, and what the model is told about it is unknown some of the time; in evaluation it knows metre, key and
    length.

    Parameters
    ----------
    path : path
        The file that `musicgen_ext.train.rebuild_folk` writes.
    known_meter, known_key, known_length : float
        Probability, by tune and epoch, that the model is told the time signature and the position in the bar; tonic and
        mode; how much is left (of a tune whose metre it is told).
    transposed : float
        Probability that a tune is drawn in any key rather than in its own.
    any_hash : bool
        Read a file of the same form with other contents (another music21 may give one).

    Raises
    ------
    ValueError
        The file is not the one expected, by hash or by form.
    """
    name = os.fspath(path)
    with open(name, "rb") as stream:
        text = stream.read()
    try:
        data = json.loads(text)
        tunes, ticks = data["tunes"], int(data["ticks_per_quarter"]) // STEPS_PER_QUARTER
        missing = {key for tune in tunes for key in {"notes", "split", "meter", "measures"} - set(tune)}
    except (ValueError, KeyError, TypeError) as e:
        raise ValueError(f"{name}: expected the JSON that rebuild_folk writes: {e}") from e
    if missing:
        raise ValueError(f"{name}: expected tunes as rebuild_folk writes them, {sorted(missing)} are missing")
    if not any_hash and (got := digest(tunes)) != FOLK_DIGEST:
        raise ValueError(f"{name}: expected tunes with the digest {FOLK_DIGEST}, got {got}")

    pieces: dict[str, list[Piece]] = {"train": [], "valid": [], "test": []}
    facts: dict[str, _Facts] = {}
    scores = collection("folk_melodies", name)
    for split in pieces:
        for item in getattr(scores, split):
            read = _on_grid(tunes[int(item.name.rsplit("/", 1)[1])], ticks)
            if read is not None:
                tokens, fact = read
                facts[item.name] = fact
                pieces[split].append(Piece(item.name, tokens))
    lowest, highest = FOLK.first_pitch, FOLK.vocab_size - 1

    def told(piece: Piece, shift: int, meter: bool, key: bool, length: bool) -> Piece:
        fact = facts[piece.name]
        given = FOLK.given(
            len(piece.tokens),
            position=fact.position if meter else None,
            bar_length=fact.meter if meter else None,
            mode=fact.mode if key else None,
            tonic=(fact.tonic + shift) % 12 if key else None,
            length=len(fact.position) if length else None,
        )
        return Piece(piece.name, piece.tokens, given, piece.shifts)

    def draw(piece: Piece, rng: np.random.Generator) -> Piece:
        shift = int(rng.integers(piece.shifts[0], piece.shifts[1] + 1)) if rng.random() < transposed else 0
        moved = piece.tokens.copy()
        moved[:, 1] += np.where(moved[:, 1] >= lowest, shift, 0).astype(np.int32)
        meter, key, length = rng.random(3) < (known_meter, known_key, known_length)
        return told(Piece(piece.name, moved), shift, bool(meter), bool(key), bool(length))

    def with_shifts(piece: Piece) -> Piece:
        pitches = piece.tokens[piece.tokens[:, 1] >= lowest, 1]
        room = (max(-5, lowest - int(pitches.min())), min(6, highest - int(pitches.max())))
        return Piece(piece.name, piece.tokens, {}, room)

    return Corpus(
        encoding=replace(FOLK, **_heard(pieces["train"], facts)).to_dict(),
        train=[with_shifts(p) for p in pieces["train"]],
        valid=[told(p, 0, True, True, True) for p in pieces["valid"]],
        test=[told(p, 0, True, True, True) for p in pieces["test"]],
        draw=draw,
        variants={"nothing known": lambda piece: told(piece, 0, False, False, False)},
    )


def tune_key(pitch: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> tuple[int, str]:
    """Tonic and mode of a tune, out of major, minor, mixolydian and dorian on every tonic.

    The scale that most of the sounding time lies in; the tonic counts for 0.3 of its time more, the fifth for 0.1, and
    the last note for 0.05 of the whole. 92 % of the fiddle tunes have the key signature that their writers gave them.

    Parameters
    ----------
    pitch : array-like of int [shape=(n,)]
        MIDI pitches in order, of notes or of grid steps; -1 for a rest.
    weight : array-like of float [shape=(n,)], optional
        How long each lasts; None: all as long.

    Returns
    -------
    tonic : int
        Pitch class, 0 for C.
    mode : str

    Raises
    ------
    ValueError
        Nothing sounds.
    """
    pitches = np.asarray(pitch)
    sounds = pitches != REST
    if not sounds.any():
        raise ValueError("pitch: expected at least one note, got none")
    lengths = np.ones(len(pitches)) if weight is None else np.asarray(weight, float)
    heard = np.bincount(pitches[sounds] % 12, lengths[sounds], 12) / lengths[sounds].sum()
    last = int(pitches[sounds][-1]) % 12

    def likeness(tonic: int, mode: str) -> float:
        time = sum(heard[(tonic + step) % 12] for step in SCALES[mode])
        leaning = _WEIGHTS["tonic"] * heard[tonic] + _WEIGHTS["fifth"] * heard[(tonic + 7) % 12]
        return round(float(time + leaning + _WEIGHTS["last"] * (tonic == last)), 9)  # of equals the first

    return max(((tonic, mode) for mode in FOLK.modes for tonic in range(12)), key=lambda key: likeness(*key))


def digest(tunes: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 of the tunes in a fixed form."""
    return hashlib.sha256(json.dumps(tunes, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _on_grid(tune: Mapping[str, Any], ticks: int) -> tuple[Ints, _Facts] | None:
    """Tokens of a tune and what is known about it; None if the grid, or the encoding, has no place for it."""
    notes = np.array(tune["notes"], np.int64)
    begin = int(notes[0, 0]) // ticks
    starts = notes[:, 0] // ticks - begin
    ends = np.maximum((notes[:, 0] + notes[:, 1]) // ticks - begin, starts + 1)
    low, high = FOLK.lowest_pitch, FOLK.lowest_pitch + FOLK.num_pitches - 1
    if tune["meter"] not in FOLK.meters or (np.diff(starts) <= 0).any():
        return None
    if notes[:, 2].min() < low or notes[:, 2].max() > high:
        return None
    ends[:-1] = np.minimum(ends[:-1], starts[1:])
    numerator, denominator = map(int, tune["meter"].split("/"))
    meter = Meter(numerator, denominator)
    length = int(ends[-1])
    position = _positions(tune["measures"], begin, length, ticks, meter.bar_length)
    if position is None or length > _LONGEST * meter.bar_length:
        return None
    meter = replace(meter, pickup=-int(position[0]) % meter.bar_length)
    pitch, onset = np.full((length, 1), REST, np.int32), np.zeros((length, 1), bool)
    for start, end, midi in zip(starts.tolist(), ends.tolist(), notes[:, 2].tolist(), strict=True):
        pitch[start:end] = midi
        onset[start] = True
    return FOLK.grid_to_tokens(pitch, onset), _Facts(meter, position, *tune_key(notes[:, 2], notes[:, 1]))


def _positions(measures: Sequence[Sequence[int]], begin: int, length: int, ticks: int, bar: int) -> Ints | None:
    """Sixteenth inside the bar of every frame; None where bars differ in length."""
    places = sorted((onset // ticks - begin, place // ticks) for onset, place in measures if onset % ticks == 0)
    if len(places) != len(measures) or any(place % ticks for _, place in measures):
        return None
    position: Ints = ((np.arange(length) - places[0][0] + places[0][1]) % bar).astype(np.int32)
    if any(0 <= step < length and position[step] != place for step, place in places):
        return None
    return position


def _heard(pieces: Sequence[Piece], facts: Mapping[str, _Facts]) -> dict[str, Any]:
    """How the training tunes begin, their keys, lengths and range, as the encoding has them."""
    starts, keys, lengths = Counter[Any](), Counter[Any](), Counter[int]()
    for piece in pieces:
        fact = facts[piece.name]
        starts[str(fact.meter), fact.meter.pickup] += 1
        keys[fact.tonic, fact.mode] += 1
        bars, rest = divmod(len(fact.position), fact.meter.bar_length)
        lengths[0 if rest else bars] += 1
    del lengths[0]
    pitches = np.concatenate([p.tokens[:, 1] for p in pieces])
    pitches = pitches[pitches >= FOLK.first_pitch] + FOLK.lowest_pitch - FOLK.first_pitch

    def common(counts: Counter[Any]) -> list[Any]:
        return [(value, float(n)) for value, n in counts.most_common() if n >= _HEARD_ONCE]

    return {
        "starts": tuple((meter, pickup, n) for (meter, pickup), n in common(starts)),
        "keys": tuple((tonic, mode, n) for (tonic, mode), n in common(keys)),
        "lengths": tuple((bars, n) for bars, n in common(lengths) if bars % 8 == 0),
        "ranges": {FOLK.voices[0]: (int(pitches.min()), int(pitches.max()))},
    }
