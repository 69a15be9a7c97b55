"""What of a piece is left when a model tells it in another style, and whether that style is recognised.

Music comes as pictures of bars, models as functions; nothing here samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from musicgen_ext.recognition import Recogniser, Rolls, survival


def style_report(
    recogniser: Recogniser,
    pieces: Mapping[str, Rolls],
    tellings: Mapping[str, Callable[[Rolls, str], Rolls]],
    samples: Mapping[str, Rolls],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """How a model tells music in another style: what survives, and whether the new style is recognised.

    Parameters
    ----------
    recogniser : Recogniser
        Fitted to other music than this.
    pieces : mapping of str to np.ndarray [shape=(N, 2, T, P)]
        Excerpts of held-out music, by label.
    tellings : mapping of str to callable
        By name, ways to tell: excerpts and a label -> the same excerpts in that style.
    samples : mapping of str to np.ndarray
        What the model makes in each style.
    seed : int
        Of the other pieces that each one is compared with.

    Returns
    -------
    report : dict
        ``"real"``, ``"samples"``: share that is recognised, by label. ``"told"``: for every telling ``"own"``, pieces
        in their own style, ``"others"``, pieces in each of the other styles, and by label what becomes of all others in
        that style: `musicgen_ext.recognition.Survival`, and ``recognised``, the share in which the recogniser hears the
        style that was asked for. ``"another piece"``: what survives when another piece of the held-out music stands in
        place of the told one.
    """
    rng = np.random.default_rng(seed)
    everything = np.concatenate(list(pieces.values()))
    told: dict[str, dict[str, dict[str, float]]] = {}
    for name, telling in tellings.items():
        rows: dict[str, list[_Row]] = {"own": [], "others": [], **{label: [] for label in recogniser.labels}}
        for label, excerpt in pieces.items():
            for number, target in enumerate(recogniser.labels):
                after = telling(excerpt, target)
                found = vars(survival(excerpt, after)) | {"recognised": recogniser.accuracy(after, number)}
                for key in ("own",) if target == label else ("others", target):
                    rows[key].append((len(excerpt), found))
        told[name] = {key: _mean(listed) for key, listed in rows.items() if listed}
    floor = []
    for excerpt in pieces.values():
        other = everything[rng.permutation(len(everything))[np.arange(len(excerpt)) % len(everything)]]
        floor.append((len(excerpt), vars(survival(excerpt, other))))
    return {
        "real": {label: recogniser.accuracy(x, recogniser.labels.index(label)) for label, x in pieces.items()},
        "samples": {label: recogniser.accuracy(x, recogniser.labels.index(label)) for label, x in samples.items()},
        "told": told,
        "another piece": _mean(floor),
    }


_Row = tuple[int, dict[str, float]]  # how many excerpts, and their means


def _mean(rows: Sequence[_Row]) -> dict[str, float]:
    total = sum(count for count, _ in rows)
    return {name: sum(count * row[name] for count, row in rows) / total for name in rows[0][1]}


def format_style(report: Mapping[str, Any]) -> str:
    """A report as tables for the screen."""
    columns = ("contour", "moves", "rhythm", "harmony", "recognised")
    rows: list[tuple[str, Mapping[str, float] | None]] = []
    for name, told in report["told"].items():
        rows += [(f"the encoder hears {name}", None), ("  in its own style", told["own"])]
        rows += [("  in another style", told["others"])]
        rows += [(f"    {label}", told[label]) for label in told if label not in ("own", "others")]
    rows.append(("another piece instead", report["another piece"]))
    width = max(len(name) for name, _ in rows)
    lines = [" " * width + "".join(f"{column:>12}" for column in columns)]
    for name, row in rows:
        cells = "" if row is None else "".join(f"{row[c]:12.3f}" if c in row else f"{'-':>12}" for c in columns)
        lines.append(f"{name:<{width}}{cells}".rstrip())
    lines += ["", f"{'recognised':<{width}}{'real':>12}{'samples':>12}"]
    lines += [
        f"  {label:<{width - 2}}{share:12.3f}{report['samples'].get(label, np.nan):12.3f}"
        for label, share in report["real"].items()
    ]
    return "\n".join(lines)
