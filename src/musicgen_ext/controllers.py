"""Which events rule a note: the program, controls and pedal of the part that plays it, over columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SUSTAIN = 64
DOWN = 64  # a pedal with at least this value is down


def parts(notes: Array, events: Array) -> Iterator[tuple[Array, Array]]:
    """For every part, the notes of one track and channel: their mask, and the events that rule them in time order.

    Those are the part's own events, or, where it has none, all events of its channel: files put the set-up of all
    channels into the first track, and files with more than 16 tracks use a channel twice.
    """
    keys = notes["track"].astype(np.int64) << 4 | notes["channel"]
    for key in np.unique(keys).tolist():
        ruling = events[events["channel"] == (key & 15)]
        own = ruling[ruling["track"] == key >> 4]
        chosen = own if len(own) else ruling
        yield keys == key, chosen[np.argsort(chosen["time"], kind="stable")]


def latest(notes: Array, events: Array, field: str, default: int, time: str = "start") -> Array:
    """For every note, the value of the last event at or before its start."""
    values = np.full(len(notes), default, np.int64)
    if len(events):
        for mask, ruling in parts(notes, events):
            at = np.searchsorted(ruling["time"], notes[time][mask], side="right")
            values[mask] = np.concatenate([[default], ruling[field].astype(np.int64)])[at]
    return values


def pedalled_ends(notes: Array, controls: Array, last: int) -> Array:
    """Ends in ticks: a note that ends while the sustain pedal is down sounds until it is lifted or struck again.

    A pedal that is never lifted is at `last`, or with the end of the last note.
    """
    ends = np.asarray(notes["start"] + notes["duration"])
    pedal = controls[controls["number"] == SUSTAIN]
    if not len(pedal) or not len(notes):
        return ends
    last = max(last, int(ends.max()))
    lifted = ends.copy()
    for mask, ruling in parts(notes, pedal):
        down = np.concatenate([[False], ruling["value"] >= DOWN])
        # For every state, when the pedal is next up: scanned from the right.
        up_times = np.where(~down[1:], ruling["time"], last)
        next_up = np.append(np.minimum.accumulate(up_times[::-1])[::-1], last)
        at = np.searchsorted(ruling["time"], ends[mask], side="right")
        lifted[mask] = np.where(down[at], np.maximum(next_up[at], ends[mask]), ends[mask])
    order = np.lexsort((notes["start"], notes["pitch"], notes["channel"], notes["track"]))
    same = np.ones(len(notes) - 1, bool)
    for field in ("track", "channel", "pitch"):
        same &= np.diff(notes[field][order]) == 0
    struck = np.full(len(notes), last, np.int64)
    struck[order[:-1][same]] = notes["start"][order[1:][same]]
    return np.asarray(np.maximum(ends, np.minimum(lifted, struck)))
