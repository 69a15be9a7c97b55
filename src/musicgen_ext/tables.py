"""The columns of scores: their types and limits, making them from what a user gives, and the table of events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core

Array = npt.NDArray[Any]

NOTE: np.dtype[np.void] = _core.note_dtype
"""A note: start, duration (int64 ticks), pitch, velocity (uint8), track (int32), channel, release_velocity (uint8)."""

EVENT: np.dtype[np.void] = _core.event_dtype
TEMPO = np.dtype([("time", "i8"), ("microseconds_per_quarter", "i4"), ("track", "i4")])
TIME_SIGNATURE = np.dtype(
    [
        ("time", "i8"),
        ("numerator", "i2"),
        ("denominator", "i2"),
        ("clocks_per_click", "i2"),
        ("notated_32nds_per_quarter", "i2"),
        ("track", "i4"),
    ]
)
KEY_SIGNATURE = np.dtype([("time", "i8"), ("sharps", "i1"), ("minor", "i1"), ("track", "i4")])
PROGRAM = np.dtype([("time", "i8"), ("program", "u1"), ("channel", "u1"), ("track", "i4")])
CONTROL = np.dtype([("time", "i8"), ("number", "u1"), ("value", "u1"), ("channel", "u1"), ("track", "i4")])
PITCH_BEND = np.dtype([("time", "i8"), ("bend", "i2"), ("channel", "u1"), ("track", "i4")])

MAX_TIME = 2**63 - 1
MAX_TRACKS = 65_535

# Inclusive limits of every column; what lies outside is refused by name before it is cast to the column's type.
_LIMITS: dict[str, tuple[int, int]] = {
    "start": (0, MAX_TIME),
    "duration": (1, MAX_TIME),
    "time": (0, MAX_TIME),
    "pitch": (0, 127),
    "velocity": (1, 127),
    "release_velocity": (0, 127),
    "channel": (0, 15),
    "track": (0, MAX_TRACKS - 1),
    "microseconds_per_quarter": (1, 2**24 - 1),
    "numerator": (1, 255),
    "denominator": (1, 128),
    "clocks_per_click": (0, 255),
    "notated_32nds_per_quarter": (0, 255),
    "sharps": (-7, 7),
    "minor": (0, 1),
    "program": (0, 127),
    "number": (0, 127),
    "value": (0, 127),
    "bend": (-8192, 8191),
}
_DEFAULTS: dict[str, int] = {
    "velocity": 80,
    "release_velocity": 64,
    "track": 0,
    "channel": 0,
    "clocks_per_click": 24,
    "notated_32nds_per_quarter": 8,
    "minor": 0,
}


# -- the table of events ---------------------------------------------------------------------------------------------


class Events(NamedTuple):
    """All events of a score but notes: rows of dtype `EVENT` by track and time, and their payloads, end to end.

    A row with a status of 0xF0 or more has a payload; `ends` holds where each of them ends.
    """

    rows: Array
    payload: Array
    ends: Array

    @property
    def payload_of(self) -> Array:
        """For every row, the index of its payload, or of the next one."""
        return np.cumsum(self.rows["status"] >= 0xF0) - (self.rows["status"] >= 0xF0)

    def take(self, index: Array) -> Events:
        """The rows at `index` (integers in any order, or a mask) with their payloads. Time: linear in what is taken."""
        index = np.flatnonzero(index) if index.dtype == bool else index
        rows = self.rows[index]
        if not len(self.ends):
            return Events(rows, self.payload, self.ends)
        chosen = self.payload_of[index][rows["status"] >= 0xF0]
        lengths = np.diff(self.ends, prepend=0)[chosen]
        ends = np.cumsum(lengths)
        places = np.arange(ends[-1] if len(ends) else 0) + np.repeat(self.ends[chosen] - ends, lengths)
        return Events(rows, self.payload[places], ends)

    def joined(self, *others: Events) -> Events:
        """These events and those, in order of track and time; of one track and time, in the order given."""
        every = (self, *others)
        rows = np.concatenate([events.rows for events in every])
        payload = np.concatenate([events.payload for events in every])
        begins = np.cumsum([0, *(len(events.payload) for events in every[:-1])])
        ends = np.concatenate([events.ends + begin for events, begin in zip(every, begins.tolist(), strict=True)])
        joined = Events(rows, payload, ends)
        return joined if in_order(rows, "time") is rows else joined.take(np.lexsort((rows["time"], rows["track"])))


def events_of(rows: Array, payloads: list[bytes] | None = None) -> Events:
    """A table of `rows`, with `payloads` for those that have one."""
    lengths = [len(payload) for payload in payloads or ()]
    return Events(rows, np.frombuffer(b"".join(payloads or ()), np.uint8), np.cumsum(lengths, dtype=np.int64))


# -- making and checking columns -------------------------------------------------------------------------------------


def column_of(dtype: np.dtype[np.void], rows: Array, **columns: Array) -> Array:
    table = np.empty(len(rows), dtype)
    table["time"], table["track"] = rows["time"], rows["track"]
    for name, values in columns.items():
        table[name] = values
    table.flags.writeable = False
    return table


def in_order(table: Array, time: str) -> Array:
    """Sorted by track, then time, equals as they were; the same array when it already is."""
    track, when = table["track"], table[time]
    step = np.diff(track)
    if np.all((step > 0) | ((step == 0) & (np.diff(when) >= 0))):
        return table
    return table[np.lexsort((when, track))]


def table_of(
    name: str, value: Any, dtype: np.dtype[np.void], required: tuple[str, ...]
) -> tuple[Array, frozenset[str]]:
    """A new table of `dtype` from a structured array, a mapping of columns or rows of tuples; and the columns given."""
    fields = cast("tuple[str, ...]", dtype.names)
    columns: Mapping[str, Any]
    if isinstance(value, np.ndarray) and value.dtype.names is not None:
        columns = {field: value[field] for field in value.dtype.names}
    elif isinstance(value, Mapping):
        columns = value
    else:
        try:
            rows = [tuple(row) for row in value]
        except TypeError:
            raise TypeError(
                f"{name}: expected a structured array, a mapping of columns or a sequence of tuples "
                f"({', '.join(fields)}), got {type(value).__name__}"
            ) from None
        width = len(rows[0]) if rows else len(required)
        for i, row in enumerate(rows):
            if not len(required) <= len(row) <= len(fields) or len(row) != width:
                raise ValueError(
                    f"{name}[{i}]: expected {len(required)} to {len(fields)} values ({', '.join(fields)}), as many in "
                    f"every row, got {len(row)}"
                )
        columns = dict(zip(fields[:width], zip(*rows, strict=True) if rows else [()] * width, strict=True))
    unknown, missing = set(columns) - set(fields), set(required) - set(columns)
    if unknown or missing:
        raise ValueError(f"{name}: expected the columns {', '.join(fields)}, got {', '.join(columns) or 'none'}")

    lengths = {field: np.size(column) for field, column in columns.items()}
    size = lengths[required[0]]
    table = np.empty(size, dtype)
    for field in fields:
        if field not in columns:
            table[field] = _DEFAULTS[field]
            continue
        column = np.asarray(columns[field])
        if column.ndim != 1 or len(column) != size:
            raise ValueError(f"{name}.{field}: expected shape ({size},), got {column.shape}")
        table[field] = whole_numbers(f"{name}[{{}}].{field}", column, *_LIMITS[field])
    return table, frozenset(columns)


def whole_numbers(where: str, column: Array, low: int, high: int) -> Array:
    """`column` if it holds whole numbers from low to high; `where` names a row of it."""
    whole = column.dtype.kind in "iuf" or (column.dtype.kind == "b" and high == 1)
    if column.dtype.kind == "O":  # Python integers beyond 64 bits: wrong by value, not by type
        whole = all(isinstance(value, int | np.integer) for value in column.tolist())
    if not whole and column.size:
        raise TypeError(f"{where.format(0)}: expected integers, got {column.dtype}")
    # A float is welcome when it is a whole number: it often comes out of an ordinary calculation. NaN compares false.
    good = np.asarray((column >= low) & (column <= high), bool)
    if column.dtype.kind == "f":
        good &= (column == np.floor(column)) & (column < 2.0**63)
    bad = np.flatnonzero(~good)
    if len(bad):
        raise ValueError(f"{where.format(bad[0])}: expected a whole number from {low} to {high}, got {column[bad[0]]}")
    return column


def whole_number(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__} {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name}: expected {low} to {high}, got {value}")
    return int(value)
