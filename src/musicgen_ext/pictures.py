"""Piano-roll pictures of scores: with matplotlib, or as plain SVG for notebooks without it."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import numpy.typing as npt

from musicgen_ext.general_midi import pitch_name
from musicgen_ext.midi import DRUM_CHANNEL, Score

Array = npt.NDArray[Any]

# Distinct for most kinds of colour vision, dark enough on white.
COLOURS = ("#2f6fbf", "#d9772b", "#2e9c72", "#b4497f", "#7b68c8", "#b8960c", "#3aa0b8", "#9a5a3c", "#6f7f8f", "#c0453f")
BLACK_KEYS = (1, 3, 6, 8, 10)
MOST_BARS = 64  # lines drawn; longer pieces show every second, fourth … bar
MOST_SVG_NOTES = 4_000


def plot(score: Score, ax: Any = None) -> Any:
    """The score as a piano roll on matplotlib axes; see `Score.plot`."""
    try:
        import matplotlib.pyplot as plt
        from matplotlib.collections import PolyCollection
        from matplotlib.colors import to_rgb
        from matplotlib.patches import Patch
    except ImportError:
        raise ImportError('matplotlib is needed to plot: pip install "musicgen-ext[plot]"') from None

    parts, low, high = _parts(score), *_pitch_range(score)
    end = max(score._last_tick, 1)
    if ax is None:
        width = float(np.clip(end / score.ticks_per_quarter * 0.22, 8, 20))
        _, ax = plt.subplots(figsize=(width, 4.5), layout="constrained")

    keys = [pitch for pitch in range(low, high + 1) if pitch % 12 in BLACK_KEYS]
    shade = [[(0, k - 0.5), (end, k - 0.5), (end, k + 0.5), (0, k + 0.5)] for k in keys]
    ax.add_collection(PolyCollection(shade, facecolors="#f2f3f5", edgecolors="none", zorder=0))
    bars, labels = _bars(score)
    ax.vlines(bars, low - 0.5, high + 0.5, colors="#d4d7dc", linewidth=0.8, zorder=1)
    ax.hlines([p - 0.5 for p in range(low, high + 1) if p % 12 == 0], 0, end, colors="#d4d7dc", linewidth=0.8, zorder=1)

    handles = []
    for name, colour, notes in parts:
        left, bottom = notes["start"].astype(float), notes["pitch"] - 0.42
        right, top = left + notes["duration"], notes["pitch"] + 0.42
        corners = np.stack([left, bottom, right, bottom, right, top, left, top], axis=1).reshape(-1, 4, 2)
        faces = np.empty((len(notes), 4))
        faces[:, :3], faces[:, 3] = to_rgb(colour), 0.45 + 0.55 * notes["velocity"] / 127
        edges = np.array([*to_rgb(colour), 1.0]) * [0.7, 0.7, 0.7, 1]
        ax.add_collection(PolyCollection(list(corners), facecolors=faces, edgecolors=edges, linewidths=0.5, zorder=2))
        handles.append(Patch(facecolor=colour, label=name))

    ax.set_xlim(0, end)
    ax.set_ylim(low - 0.5, high + 0.5)
    ax.set_xticks(bars, labels)
    names = _named_pitches(low, high)
    ax.set_yticks(names, [pitch_name(pitch) for pitch in names])
    ax.set_xlabel("bar")
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set_visible(False)
    if handles:
        columns = min(len(handles), 6)
        ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, borderpad=0.2)
    return ax


def svg(score: Score) -> str:
    """The score as a piano roll in SVG, with what it is called and how long it lasts."""
    parts, low, high = _parts(score), *_pitch_range(score)
    end = max(score._last_tick, 1)
    row = 7
    height = row * (high - low + 1)
    width = float(np.clip(end / score.ticks_per_quarter * 16, 480, 1600))
    left, top = 34, 24

    def x(tick: Any) -> Any:
        return np.round(left + np.asarray(tick) * (width / end), 1)

    def y(pitch: int) -> int:
        return top + row * (high - pitch)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 8:.0f} {top + height + 18}" '
        f'style="max-width:100%;background:#fff;font:10px sans-serif" role="img">',
        f"<title>{html.escape(repr(score)[1:-1])}</title>",
    ]
    out += [
        f'<rect x="{left}" y="{y(pitch)}" width="{width:.0f}" height="{row}" fill="#f2f3f5"/>'
        for pitch in range(low, high + 1)
        if pitch % 12 in BLACK_KEYS
    ]
    out += [
        f'<text x="{left - 5}" y="{y(pitch) + row}" text-anchor="end" fill="#555">{pitch_name(pitch)}</text>'
        for pitch in _named_pitches(low, high)
    ]
    bars, labels = _bars(score)
    for at, label in zip(x(bars).tolist(), labels, strict=True):
        out.append(f'<path d="M{at} {top}v{height}" stroke="#d4d7dc"/>')
        out.append(f'<text x="{at}" y="{top + height + 12}" text-anchor="middle" fill="#555">{label}</text>')
    shown, at = 0, float(left)
    for name, colour, notes in parts:
        out.append(f'<g fill="{colour}">')
        drawn = notes[: MOST_SVG_NOTES - shown]
        shown += len(drawn)
        begins, ends = x(drawn["start"]), x(drawn["start"] + drawn["duration"])
        widths = np.round(np.maximum(ends - begins, 0.8), 1)
        opacity = np.round(0.45 + 0.55 * drawn["velocity"] / 127, 2)
        columns = (begins.tolist(), widths.tolist(), drawn["pitch"].tolist(), opacity.tolist())
        out += [
            f'<rect x="{b}" y="{y(pitch)}" width="{w}" height="{row - 1}" rx="1.5" opacity="{o}"/>'
            for b, w, pitch, o in zip(*columns, strict=True)
        ]
        label = html.escape(name if len(name) <= 24 else name[:23] + "…")
        out.append(f'<rect x="{at:.0f}" y="6" width="10" height="10" rx="2"/>')
        out.append(f'<text x="{at + 14:.0f}" y="15" fill="#333">{label}</text></g>')
        at += 14 + 6.5 * min(len(name), 24) + 14
    out.append("</svg>")
    missing = len(score.notes) - shown
    note = f" (the first {shown} notes are drawn)" if missing else ""
    return "".join(out) + f'<div style="font-size:90%">{html.escape(repr(score)[1:-1])}{note}</div>'


# -- helpers ---------------------------------------------------------------------------------------------------------


def _parts(score: Score) -> list[tuple[str, str, Array]]:
    """Name, colour and notes of every part: a track, or a channel of a track that uses several."""
    notes = score.notes
    parts: list[tuple[str, str, Array]] = []
    tracks = score.tracks
    keys = notes["track"].astype(np.int64) << 4 | notes["channel"]
    for key in np.unique(keys).tolist():
        track, channel = key >> 4, key & 15
        name = tracks[track].name or f"track {track + 1}"
        if np.any((notes["track"] == track) & (notes["channel"] != channel)):
            name += f", channel {channel + 1}"
        if channel == DRUM_CHANNEL and not tracks[track].name:
            name += " (drums)"
        parts.append((name, COLOURS[len(parts) % len(COLOURS)], notes[keys == key]))
    return parts


def _pitch_range(score: Score) -> tuple[int, int]:
    """At least an octave, with a little air around the notes."""
    if not len(score.notes):
        return 60, 72
    low, high = int(score.notes["pitch"].min()) - 2, int(score.notes["pitch"].max()) + 2
    missing = max(0, 12 - (high - low))
    return max(0, low - missing // 2), min(127, high + (missing + 1) // 2)


def _named_pitches(low: int, high: int) -> list[int]:
    """Every C, or, in a range with fewer than two, every natural F, G, A and C."""
    cs = [pitch for pitch in range(low, high + 1) if pitch % 12 == 0]
    return cs if len(cs) > 1 else [pitch for pitch in range(low, high + 1) if pitch % 12 in (0, 5, 7, 9)]


def _bars(score: Score) -> tuple[Array, list[str]]:
    """Ticks at which bars begin, and their numbers; of a long piece every second, fourth … bar."""
    bars = score._bar_map(None)
    first, last = int(bars.numbers[0]), int(bars.to_bars(max(score._last_tick - 1, 0))[0])
    step = 1
    while last - first >= MOST_BARS * step:
        step *= 2
    numbers = np.arange(first if step == 1 else 1, last + 1, step)
    return np.maximum(bars.from_bars(numbers), 0), [str(number) for number in numbers.tolist()]
