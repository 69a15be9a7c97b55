"""The columns of scores: their types and limits, the table of events, and typed windows on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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

META, META_TEXT, META_NAME, META_TEMPO, META_TIME_SIGNATURE, META_KEY_SIGNATURE = 0xFF, 0x01, 0x03, 0x51, 0x58, 0x59
_META_LENGTH = {META_TEMPO: 3, META_TIME_SIGNATURE: 4, META_KEY_SIGNATURE: 2}
_TEXT_KINDS = {
    1: "text",
    2: "copyright",
    3: "track_name",
    4: "instrument_name",
    5: "lyric",
    6: "marker",
    7: "cue_point",
    8: "program_name",
    9: "device_name",
}

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


# -- the typed columns -----------------------------------------------------------------------------------------------


class Text(NamedTuple):
    """A text event. `kind`: text, copyright, track_name, instrument_name, lyric, marker, cue_point, program_name or
    device_name; `data`: its bytes as they are in the file."""

    time: int
    kind: str
    data: bytes
    track: int = 0

    @property
    def text(self) -> str:
        """`data` decoded as UTF-8, or as Latin-1 where it is not UTF-8; never raises."""
        return _decoded(self.data)


class Columns:
    """What a score says about its events: typed, read-only windows on one table of them; assigning replaces rows."""

    _events: Array
    _payload: Array
    _payload_ends: Array

    def _payload_of(self, row: int) -> bytes:
        index = int(np.count_nonzero(self._events["status"][:row] >= 0xF0))
        begin = int(self._payload_ends[index - 1]) if index else 0
        return self._payload[begin : int(self._payload_ends[index])].tobytes()

    def _meta(self, kind: int) -> tuple[npt.NDArray[np.intp], Array]:
        """Indices of the well-formed meta events of this kind, and their payloads, shape (n, length), uint8.

        What is malformed (and among the issues) is in no column, but stays in the file.
        """
        rows, places = self._meta_places(kind)
        return rows, self._payload[places]

    def _meta_places(self, kind: int) -> tuple[npt.NDArray[np.intp], Array]:
        """As `_meta`, with the places of the bytes in the payload."""
        with_payload = np.flatnonzero(self._events["status"] >= 0xF0)
        lengths = np.diff(self._payload_ends, prepend=0)
        chosen = self._events["data1"][with_payload] == kind
        chosen &= (self._events["status"][with_payload] == META) & (lengths == _META_LENGTH[kind])
        begins = (self._payload_ends - lengths)[chosen]
        places = begins[:, None] + np.arange(_META_LENGTH[kind])
        payload = self._payload[places]
        if kind == META_TEMPO:
            valid = payload.any(axis=1)
        elif kind == META_TIME_SIGNATURE:
            valid = (payload[:, 0] > 0) & (payload[:, 1] <= 7)
        else:
            valid = ((payload[:, 0] <= 7) | (payload[:, 0] >= 249)) & (payload[:, 1] <= 1)
        return with_payload[chosen][valid], places[valid]

    def _rewrite_meta(self, kind: int, payload: Array) -> None:
        """Give the events of `_meta(kind)` other payloads, shape (n, length)."""
        data = self._payload.copy()
        data[self._meta_places(kind)[1]] = payload.astype(np.uint8)
        self._payload = data

    def _channel_rows(self, status: int) -> npt.NDArray[np.bool_]:
        return np.asarray((self._events["status"] & 0xF0) == status)

    @property
    def _event_table(self) -> Events:
        return Events(self._events, self._payload, self._payload_ends)

    @_event_table.setter
    def _event_table(self, table: Events) -> None:
        self._events, self._payload, self._payload_ends = table

    def _replace(self, chosen: npt.NDArray[np.bool_], added: Events) -> None:
        """Drop the rows `chosen` and add others, in the order of time; among equals, the old ones come first."""
        self._event_table = self._event_table.take(~chosen).joined(added)

    def _replace_meta(self, kind: int, table: Array, payload: Array) -> None:
        chosen = np.zeros(len(self._events), bool)
        chosen[self._meta(kind)[0]] = True
        rows = np.zeros(len(table), EVENT)
        rows["time"], rows["track"], rows["status"], rows["data1"] = table["time"], table["track"], META, kind
        rows["place"] = 1
        payload = payload.astype(np.uint8)
        self._replace(chosen, Events(rows, payload.ravel(), np.arange(1, len(rows) + 1) * payload.shape[1]))

    def _replace_channel(self, status: int, table: Array, data1: Array, data2: Array | int) -> None:
        rows = np.zeros(len(table), EVENT)
        rows["time"], rows["track"], rows["status"] = table["time"], table["track"], status | table["channel"]
        rows["data1"], rows["data2"], rows["place"] = data1, data2, 1
        self._replace(self._channel_rows(status), events_of(rows))

    @property
    def tempos(self) -> Array:
        rows, payload = self._meta(META_TEMPO)
        tempo = payload.astype(np.int64) @ np.array([65_536, 256, 1])
        return column_of(TEMPO, self._events[rows], microseconds_per_quarter=tempo)

    @tempos.setter
    def tempos(self, value: Any) -> None:
        table, _ = table_of("tempos", value, TEMPO, ("time", "microseconds_per_quarter"))
        tempo = table["microseconds_per_quarter"]
        payload = np.stack([tempo >> 16, tempo >> 8 & 255, tempo & 255], axis=1)
        self._replace_meta(META_TEMPO, table, payload)

    @property
    def time_signatures(self) -> Array:
        rows, payload = self._meta(META_TIME_SIGNATURE)
        numerator, power, clocks, notated = payload.T.astype(np.int16)
        return column_of(
            TIME_SIGNATURE,
            self._events[rows],
            numerator=numerator,
            denominator=1 << power,
            clocks_per_click=clocks,
            notated_32nds_per_quarter=notated,
        )

    @time_signatures.setter
    def time_signatures(self, value: Any) -> None:
        table, _ = table_of("time_signatures", value, TIME_SIGNATURE, ("time", "numerator", "denominator"))
        denominator = table["denominator"]
        bad = np.flatnonzero(denominator & (denominator - 1))
        if len(bad):
            raise ValueError(
                f"time_signatures[{bad[0]}].denominator: expected a power of two, got {denominator[bad[0]]}"
            )
        power = np.log2(denominator).astype(np.int16)
        payload = np.stack(
            [table["numerator"], power, table["clocks_per_click"], table["notated_32nds_per_quarter"]], axis=1
        )
        self._replace_meta(META_TIME_SIGNATURE, table, payload)

    @property
    def key_signatures(self) -> Array:
        rows, payload = self._meta(META_KEY_SIGNATURE)
        sharps, minor = payload.view(np.int8).reshape(-1, 2).T
        return column_of(KEY_SIGNATURE, self._events[rows], sharps=sharps, minor=minor)

    @key_signatures.setter
    def key_signatures(self, value: Any) -> None:
        table, _ = table_of("key_signatures", value, KEY_SIGNATURE, ("time", "sharps"))
        payload = np.stack([table["sharps"].view(np.uint8), table["minor"].view(np.uint8)], axis=1)
        self._replace_meta(META_KEY_SIGNATURE, table, payload)

    @property
    def programs(self) -> Array:
        rows = self._events[self._channel_rows(0xC0)]
        return column_of(PROGRAM, rows, program=rows["data1"], channel=rows["status"] & 15)

    @programs.setter
    def programs(self, value: Any) -> None:
        table, _ = table_of("programs", value, PROGRAM, ("time", "program"))
        self._replace_channel(0xC0, table, table["program"], 0)

    @property
    def controls(self) -> Array:
        rows = self._events[self._channel_rows(0xB0)]
        return column_of(CONTROL, rows, number=rows["data1"], value=rows["data2"], channel=rows["status"] & 15)

    @controls.setter
    def controls(self, value: Any) -> None:
        table, _ = table_of("controls", value, CONTROL, ("time", "number", "value"))
        self._replace_channel(0xB0, table, table["number"], table["value"])

    @property
    def pitch_bends(self) -> Array:
        rows = self._events[self._channel_rows(0xE0)]
        bend = (rows["data1"] | rows["data2"].astype(np.int16) << 7) - 8192
        return column_of(PITCH_BEND, rows, bend=bend, channel=rows["status"] & 15)

    @pitch_bends.setter
    def pitch_bends(self, value: Any) -> None:
        table, _ = table_of("pitch_bends", value, PITCH_BEND, ("time", "bend"))
        raw = table["bend"].astype(np.int32) + 8192
        self._replace_channel(0xE0, table, raw & 127, raw >> 7)

    @property
    def texts(self) -> tuple[Text, ...]:
        table = self._event_table.take(self._rows_of_text())
        ends, data = table.ends.tolist(), table.payload.tobytes()
        rows = zip(table.rows[["time", "data1", "track"]].tolist(), [0, *ends], ends, strict=False)
        return tuple(Text(time, _TEXT_KINDS[kind], data[a:b], track) for (time, kind, track), a, b in rows)

    @texts.setter
    def texts(self, value: Iterable[Text]) -> None:
        texts = tuple(value)
        codes = {kind: code for code, kind in _TEXT_KINDS.items()}
        rows = np.zeros(len(texts), EVENT)
        for i, text in enumerate(texts):
            if not isinstance(text, Text) or not isinstance(text.data, bytes):
                raise TypeError(f"texts[{i}]: expected a Text with bytes, got {text!r}")
            if text.kind not in codes:
                raise ValueError(f"texts[{i}].kind: expected one of {', '.join(codes)}, got {text.kind!r}")
            time = whole_number(f"texts[{i}].time", text.time, 0, MAX_TIME)
            track = whole_number(f"texts[{i}].track", text.track, 0, MAX_TRACKS - 1)
            rows[i] = (time, track, META, codes[text.kind], 0, 1)
        self._replace(self._rows_of_text(), events_of(rows, [text.data for text in texts]))

    def _rows_of_text(self) -> npt.NDArray[np.bool_]:
        kind = self._events["data1"]
        return np.asarray((self._events["status"] == META) & (kind >= 1) & (kind <= 9))


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


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
