"""Which pieces are for training, validation and test: by piece, with pieces that resemble each other kept together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from musicgen_ext.melodies import melody, windows
from musicgen_ext.midi import Score

NOTES = 8
SKETCH = 1024
_NEIGHBOURS = 16  # of the pieces with a window, each is compared with so many that follow it
SIMILARITY = 0.25  # of 2963 fiddle tunes, 470 are then variants of another, and no family has more than 5


def near_duplicates(scores: Sequence[Score], similarity: float = SIMILARITY) -> npt.NDArray[np.int64]:
    """Numbers of groups: pieces that resemble each other have the same.

    Two pieces resemble each other when they share at least `similarity` of the shorter one's windows of 8 melody notes
    (`musicgen_ext.melodies.melody`), compared by their intervals, so that neither key nor tempo nor rhythm matter; and
    so on from piece to piece. Of a piece with more than 1024 different windows, those with the 1024 smallest hashes
    count (a bottom-k sketch: A. Broder, On the resemblance and containment of documents, 1997). A piece with fewer
    than 8 notes has one window of its own length.

    Parameters
    ----------
    scores : sequence of Score
    similarity : float in (0, 1]

    Returns
    -------
    groups : np.ndarray [shape=(len(scores),)], int64
        0, 1, … in the order of each group's first piece.
    """
    if not 0 < similarity <= 1:
        raise ValueError(f"similarity: expected a number in (0, 1], got {similarity!r}")
    sketches = []
    for score in scores:
        pitches = melody(score)
        sketches.append(np.unique(windows(pitches, max(1, min(NOTES, len(pitches))), transposed=True))[:SKETCH])
    sizes = np.array([len(sketch) for sketch in sketches], np.int64)
    hashes = np.concatenate([np.zeros(0, np.uint64), *sketches])
    pieces = np.repeat(np.arange(len(scores)), sizes)
    order = np.argsort(hashes, kind="stable")
    hashes, pieces = hashes[order], pieces[order]
    # Pieces with a window stand together now, in order. Compared with its neighbours only, a family of many copies
    # still hangs together, and a window that everybody has costs little.
    pairs = []
    for distance in range(1, min(_NEIGHBOURS, len(hashes) - 1) + 1):
        same = hashes[distance:] == hashes[:-distance]
        pairs.append(pieces[:-distance][same] * len(scores) + pieces[distance:][same])
    found, shared = np.unique(np.concatenate([np.zeros(0, np.int64), *pairs]), return_counts=True)
    first, second = np.divmod(found, max(len(scores), 1))
    alike = shared >= similarity * np.minimum(sizes[first], sizes[second])
    return _united(len(scores), first[alike], second[alike])


def _united(count: int, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Connected pieces get one number: union-find by smallest index."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    _, numbers = np.unique([root(i) for i in range(count)], return_inverse=True)
    return numbers.astype(np.int64)


def split(
    names: Sequence[str],
    groups: npt.NDArray[np.int64],
    *,
    valid_share: float = 0.1,
    test_share: float = 0.1,
    seed: int = 0,
) -> list[str]:
    """``"train"``, ``"valid"`` or ``"test"`` for every piece; the pieces of a group stay together.

    The groups come in an order that their first names and the seed decide, and fill the test split up to its share of
    the pieces, then the validation split (which gets one piece at least), then the training split; so does a group that
    is too large for the others. The largest group is for training.

    Raises
    ------
    ValueError
        Shares that leave nothing to train on, or fewer than two groups.
    """
    for what, share in (("valid_share", valid_share), ("test_share", test_share)):
        if not 0 <= share < 1:
            raise ValueError(f"{what}: expected a number in [0, 1), got {share!r}")
    if valid_share + test_share >= 1:
        raise ValueError(f"valid_share, test_share: expected less than 1 together, got {valid_share + test_share!r}")
    members: dict[int, list[int]] = {}
    for i, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(i)
    if len(members) < 2:
        raise ValueError(
            f"pieces: expected at least 2 that do not resemble each other, to train on and to validate with, "
            f"got {len(names)} in {len(members)} group(s)"
        )
    room = {"test": round(test_share * len(names)), "valid": max(1, round(valid_share * len(names)))}
    largest = max(members, key=lambda group: (len(members[group]), -group))
    others = [group for group in members if group != largest]
    others.sort(key=lambda group: _digest(seed, names[members[group][0]]))
    where = ["train"] * len(names)
    for group in others:
        size = len(members[group])
        for part in ("test", "valid"):
            if size <= room[part]:
                room[part] -= size
                for i in members[group]:
                    where[i] = part
                break
    if "valid" not in where:  # every group is larger than the split: the smallest will have to do
        for i in members[min(others, key=lambda group: len(members[group]))]:
            where[i] = "valid"
    return where


def _digest(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()
