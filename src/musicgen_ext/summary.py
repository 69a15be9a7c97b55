"""What is in a score, as a dict for programs and as lines for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from musicgen_ext.general_midi import PROGRAMS, key_name, pitch_name
from musicgen_ext.midi import Score

Array = npt.NDArray[Any]

MOST_ROWS = 12  # of each list, on a screen
MOST_TRACKS = 64
_WIDTH = 40  # of a name


def describe(score: Score) -> dict[str, Any]:
    """Everything about a score that fits a page of JSON; every issue and every change of tempo, metre and key.

    Times are in ticks, with seconds or the number of the bar; a file of format 2, in which every track is a piece of
    its own, has no bars. Channels count from 0, as everywhere in this package.
    """
    notes, tracks = score.notes, score.tracks
    count = np.bincount(notes["track"], minlength=len(tracks))
    lowest, highest = np.full(len(tracks), 127), np.zeros(len(tracks), int)
    np.minimum.at(lowest, notes["track"], notes["pitch"])
    np.maximum.at(highest, notes["track"], notes["pitch"])
    bars = None if score.format == 2 else int(score.to_bars(max(score._last_tick - 1, 0))[0])
    status = score._events["status"]
    kinds = Counter(text.kind for text in score.texts)
    return {
        "format": score.format,
        "ticks_per_quarter": score.ticks_per_quarter,
        "smpte": score.smpte,
        "seconds": round(score.end_time, 3),
        "bars": bars,
        "notes": len(notes),
        "tracks": [
            {
                "name": track.name,
                "channel": track.channel,
                "program": track.program,
                "instrument": _instrument(track.program, track.is_drum),
                "notes": int(count[i]),
                "lowest": int(lowest[i]) if count[i] else None,
                "highest": int(highest[i]) if count[i] else None,
            }
            for i, track in enumerate(tracks)
        ],
        "tempos": _placed(score, score.tempos, "bpm", lambda row: round(6e7 / row["microseconds_per_quarter"], 3)),
        "time_signatures": _placed(
            score, score.time_signatures, "meter", lambda row: f"{row['numerator']}/{row['denominator']}"
        ),
        "key_signatures": _placed(
            score, score.key_signatures, "key", lambda row: key_name(int(row["sharps"]), bool(row["minor"]))
        ),
        "events": {
            "controls": int(np.count_nonzero(status & 0xF0 == 0xB0)),
            "programs": int(np.count_nonzero(status & 0xF0 == 0xC0)),
            "pitch_bends": int(np.count_nonzero(status & 0xF0 == 0xE0)),
            "aftertouch": int(np.count_nonzero((status & 0xF0 == 0xA0) | (status & 0xF0 == 0xD0))),
            "system_exclusive": int(np.count_nonzero((status == 0xF0) | (status == 0xF7))),
            "texts": dict(sorted(kinds.items())),
        },
        "issues": [issue._asdict() for issue in score.issues],
        "provenance": score.provenance,
    }


def _placed(score: Score, table: Array, name: str, value: Callable[[Any], Any]) -> list[dict[str, Any]]:
    """For every row its time, its place in the piece, and what it says."""
    seconds = np.empty(len(table))
    pieces = np.unique(table["track"]).tolist() if score.format == 2 else [None]
    for track in pieces:
        own = slice(None) if track is None else table["track"] == track
        seconds[own] = score.to_seconds(table["time"][own], track=track)
    places = {"time": table["time"].tolist(), "seconds": np.round(seconds, 3).tolist()}
    if score.format == 2:
        places["track"] = table["track"].tolist()
    else:
        places["bar"] = score.to_bars(table["time"])[0].tolist()
    rows = zip(*places.values(), strict=True)
    return [dict(zip(places, row, strict=True)) | {name: value(given)} for row, given in zip(rows, table, strict=True)]


def lines(found: dict[str, Any]) -> Iterator[str]:
    """A description for the screen, of bounded length whatever the file holds."""
    if found["smpte"]:
        fps, ticks = found["smpte"]
        yield f"format: {found['format']}, SMPTE time, {'29.97' if fps == 29 else fps} frames of {ticks} ticks a second"
    else:
        yield f"format: {found['format']}, {found['ticks_per_quarter']} ticks per quarter"
    bars = "" if found["bars"] is None else f", {_counted(found['bars'], 'bar')}"
    yield f"length: {found['seconds']:.2f} s{bars}, {_counted(found['notes'], 'note')}"
    for title, table, field, form in (
        ("tempo", "tempos", "bpm", "g"),
        ("metre", "time_signatures", "meter", ""),
        ("key", "key_signatures", "key", ""),
    ):
        rows = found[table]
        if rows:
            shown = dict.fromkeys(f"{row[field]:{form}}{_where(row)}" for row in rows[:MOST_ROWS])  # files say it twice
            yield f"{title}: {', '.join(shown)}{_more(rows, MOST_ROWS)}"
    yield "tracks:"
    yield from (f"  {line}" for line in _table(found["tracks"][:MOST_TRACKS]))
    if len(found["tracks"]) > MOST_TRACKS:
        yield f"  {_more(found['tracks'], MOST_TRACKS).strip()}"
    counts = [
        f"{count} {name.replace('_', ' ')}" for name, count in found["events"].items() if count and name != "texts"
    ]
    counts += [_counted(count, kind.replace("_", " ")) for kind, count in found["events"]["texts"].items()]
    if counts:
        yield "events: " + ", ".join(counts)
    issues = found["issues"]
    yield f"issues: {len(issues) or 'none'}"
    yield from (f"  {printable(issue['message'], 200)}" for issue in issues[:MOST_ROWS])
    if len(issues) > MOST_ROWS:
        yield f"  {_more(issues, MOST_ROWS).strip()}"


def printable(text: str, width: int = _WIDTH) -> str:
    """One line that does nothing to a terminal."""
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= width else text[: width - 1] + "…"


def _instrument(program: int | None, is_drum: bool) -> str | None:
    return "drums" if is_drum else None if program is None else PROGRAMS[program]


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _where(row: dict[str, Any]) -> str:
    if "track" in row:
        return f" (track {row['track']}, {row['seconds']:.2f} s)"
    return f" (bar {row['bar']})" if row["time"] else ""


def _more(rows: Sequence[Any], shown: int) -> str:
    return f" … and {len(rows) - shown} more (--json shows them)" if len(rows) > shown else ""


def _table(tracks: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Columns as wide as their widest entry, numbers to the right."""
    columns: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("name", lambda track: printable(track["name"])),
        ("channel", lambda track: "" if track["channel"] is None else str(track["channel"])),
        ("program", lambda track: "" if track["program"] is None else str(track["program"])),
        ("instrument", lambda track: track["instrument"] or ""),
        ("notes", lambda track: f"{track['notes']:,}"),
        ("range", lambda track: "–".join(pitch_name(track[end]) for end in ("lowest", "highest") if track["notes"])),
    ]
    rows = [("#", *(title for title, _ in columns))]
    rows += [(str(i), *(shown(track) for _, shown in columns)) for i, track in enumerate(tracks)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if title in ("#", "channel", "program", "notes") else cell.ljust(width)
            for title, cell, width in zip(rows[0], row, widths, strict=True)
        ]
        yield "  ".join(cells).rstrip()
