"""How far samples of a model overlap with music that people made, beside that music's own notes without order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from musicgen_ext import likeness
from musicgen_ext.midi import Score


def overlap_report(
    samples: Mapping[str, Sequence[Score]],
    data: Sequence[Score],
    *,
    bars: int = 4,
    one_key: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Overlapping areas of feature distributions (`musicgen_ext.likeness.overlaps`) of excerpts equally long.

    Parameters
    ----------
    samples : mapping of str to sequence of Score
        What is compared, by name.
    data : sequence of Score
        Held-out music.
    bars : int > 0
        Length of an excerpt.
    one_key : bool
        Bring the data into one key first (`musicgen_ext.likeness.in_one_key`), for models that learnt from such.
    seed : int
        Of the shuffle.

    Returns
    -------
    report : dict
        "bars", "excerpts" of the data, and "overlaps": by name, and of the data's notes "shuffled"
        (`musicgen_ext.likeness.shuffled`), areas by feature and their mean.

    Raises
    ------
    ValueError
        Fewer than 3 excerpts of the data, or none of some samples.
    """
    reference = _excerpts([likeness.in_one_key(score) for score in data] if one_key else data, bars)
    if len(reference) < 3:
        raise ValueError(f"data: expected at least 3 excerpts of {bars} bars, got {len(reference)}")
    overlaps: dict[str, dict[str, float]] = {}
    for name, scores in samples.items():
        parts = _excerpts(scores, bars)
        if not parts:
            raise ValueError(f"{name}: expected excerpts of {bars} bars with notes, got none")
        overlaps[name] = likeness.overlaps(reference, parts)
    overlaps["shuffled"] = likeness.overlaps(reference, likeness.shuffled(reference, seed))
    return {"bars": bars, "excerpts": len(reference), "overlaps": overlaps}


def format_overlaps(report: Mapping[str, Any]) -> str:
    """A report of `overlap_report` as a table."""
    names = [*likeness.FEATURES, "mean"]
    width = max(12, *(len(name) for name in report["overlaps"]))
    heads = [name.replace("_", " ").replace("inter onset", "inter-onset") for name in names]
    lines = [
        f"overlapping area with {report['excerpts']} excerpts of {report['bars']} bars (1: alike)",
        " " * width + "  " + "  ".join(heads),
    ]
    for name, areas in report["overlaps"].items():
        cells = "  ".join(f"{areas[key]:{len(head)}.3f}" for key, head in zip(names, heads, strict=True))
        lines.append(f"{name:{width}}  {cells}")
    return "\n".join(lines)


def _excerpts(scores: Sequence[Score], bars: int) -> list[Score]:
    return [part for score in scores for part in likeness.excerpts(score, bars)]
