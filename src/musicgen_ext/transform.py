"""Operations on scores: each makes a new score and leaves the one it is given as it is; see the methods of `Score`.

Everything is done on columns, in time linear in notes and events, or n log n where they have to be sorted again. What
an operation does not speak of (texts, system exclusive data, unknown events, chunks) stays, at its musical place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import signature
from typing import Any, Concatenate, ParamSpec

import numpy as np
import numpy.typing as npt

from musicgen_ext.controllers import SUSTAIN, latest, pedalled_ends
from musicgen_ext.general_midi import PROGRAMS, pitch_name, program_number, similar_programs
from musicgen_ext.midi import DRUM_CHANNEL, Issue, Score, Track, _channel_of, checked_tracks
from musicgen_ext.tables import (
    EVENT,
    MAX_TIME,
    MAX_TRACKS,
    META,
    META_KEY_SIGNATURE,
    META_NAME,
    META_TEMPO,
    META_TIME_SIGNATURE,
    NOTE,
    Events,
    events_of,
    in_order,
    whole_number,
)
from musicgen_ext.timing import DEFAULT_TEMPO

Array = npt.NDArray[Any]
P = ParamSpec("P")

AFTERTOUCH, CONTROL, PROGRAM, PRESSURE, BEND = 0xA0, 0xB0, 0xC0, 0xD0, 0xE0
BANK_SELECT = (0, 32)
PARAMETERS = (6, 38, 96, 97, 98, 99, 100, 101)  # registered and other parameter numbers, and the data that follow them
UNITS = ("ticks", "beats", "seconds", "bars")
_MAX_TEMPO = 2**24 - 1


def _recorded(operation: Callable[Concatenate[Score, P], Score]) -> Callable[Concatenate[Score, P], Score]:
    """A score with a provenance says in it what was done: a seed must not claim a piece that it does not make."""
    defaults = {name: parameter.default for name, parameter in signature(operation).parameters.items()}

    @wraps(operation)
    def recorded(score: Score, /, *args: P.args, **kwargs: P.kwargs) -> Score:
        new = operation(score, *args, **kwargs)
        if new.provenance:
            named = [f"{name}={value!r}" for name, value in kwargs.items() if value != defaults[name]]
            call = f"{operation.__name__}({', '.join([*map(repr, args), *named])})"
            new.provenance["changes"] = [*new.provenance.get("changes", ()), call]
        return new

    return recorded


def _changed(
    score: Score, *, notes: Array | None = None, events: Events | None = None, track_ends: Array | None = None
) -> Score:
    new = score.copy() if notes is None else score._with_notes(in_order(notes, "start"))
    if events is not None:
        new._event_table = events
    if track_ends is not None:
        new._track_ends = track_ends
    return new


def _ends(score: Score) -> Array:
    """Tick at which every track ends: its end of track, or what comes later."""
    ends = np.zeros(score._num_tracks, np.int64)
    ends[: len(score._track_ends)] = score._track_ends
    np.maximum.at(ends, score.notes["track"], score.notes["start"] + score.notes["duration"])
    np.maximum.at(ends, score._events["track"], score._events["time"])
    return ends


def _kind(events: Array) -> Array:
    """The status of channel events without their channel, of others as it is."""
    return np.where(events["status"] < 0xF0, events["status"] & 0xF0, events["status"])


def _channel_events(events: Array, kind: int, numbers: Sequence[int] | None = None) -> Array:
    chosen = _kind(events) == kind
    return np.asarray(chosen if numbers is None else chosen & np.isin(events["data1"], numbers))


def _rows(count: int, **fields: Any) -> Array:
    rows = np.zeros(count, EVENT)
    for name, values in fields.items():
        rows[name] = values
    return rows


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__} {value!r}")
    return float(value)


def _one_timeline(score: Score, what: str) -> None:
    if score.format == 2:
        raise ValueError(f"{what}: expected one timeline, got format 2, in which every track is a piece of its own")


def _in_quarters(score: Score, what: str) -> None:
    if score.smpte is not None:
        raise ValueError(f"{what}: expected ticks per quarter, got SMPTE time, which knows no tempo (see resample)")


def _ticks(score: Score, name: str, value: Any, unit: str) -> int:
    """A time in some unit, to the nearest tick."""
    if unit not in UNITS:
        raise ValueError(f"unit: expected one of {', '.join(UNITS)}, got {unit!r}")
    if unit in ("seconds", "bars"):
        _one_timeline(score, f"unit={unit!r}")
    if unit in ("ticks", "bars"):
        number = whole_number(name, value, 0, MAX_TIME)
        return number if unit == "ticks" else max(int(score.from_bars(number)), 0)
    if not 0 <= _number(name, value) < math.inf:
        raise ValueError(f"{name}: expected {unit} >= 0, got {value}")
    return int(score.to_ticks(value) if unit == "seconds" else score.from_beats(value))


# -- pitch -----------------------------------------------------------------------------------------------------------


@_recorded
def transpose(score: Score, semitones: int, *, drums: bool = False, outside: str = "raise") -> Score:
    step = whole_number("semitones", semitones, -127, 127)
    return _transposed(score, step, (7 * step + 5) % 12 - 5, 6, drums, outside)


def _transposed(score: Score, step: int, sharps: int, most: int, drums: bool, outside: str) -> Score:
    """A key signature gets so many sharps more, or 12 fewer, or more, where that makes more than `most`."""
    if outside not in ("raise", "fold", "drop"):
        raise ValueError(f"outside: expected 'raise', 'fold' or 'drop', got {outside!r}")
    notes = score._checked_notes()
    pitch = notes["pitch"] + step * (drums | (notes["channel"] != DRUM_CHANNEL)).astype(np.int16)
    lost = (pitch < 0) | (pitch > 127)
    if outside == "raise" and lost.any():
        raise ValueError(
            f"semitones: expected pitches within 0 to 127, got {np.count_nonzero(lost)} of {len(notes)} notes outside, "
            f"from {pitch.min()} to {pitch.max()} (outside='fold' moves them by octaves, 'drop' leaves them out)"
        )
    moved = notes.copy()
    moved["pitch"] = _folded(pitch) if outside == "fold" else pitch

    table = score._event_table
    rows = table.rows.copy()
    touch = _channel_events(rows, AFTERTOUCH) & (drums | (rows["status"] & 15 != DRUM_CHANNEL))
    touched = rows["data1"] + step * touch.astype(np.int16)
    rows["data1"] = np.where(touch, _folded(touched), rows["data1"])
    events = Events(rows, table.payload, table.ends)
    if outside != "fold":
        moved = moved[~lost] if lost.any() else moved
        events = events.take(~touch | (touched >= 0) & (touched <= 127))
    new = _changed(score, notes=moved, events=events)
    if sharps:
        keys = new.key_signatures
        spelled = keys["sharps"].astype(np.int64) + sharps
        spelled -= 12 * np.sign(spelled) * (np.abs(spelled) > most)
        new._rewrite_meta(META_KEY_SIGNATURE, np.stack([spelled, keys["minor"]], axis=1))
    return new


def _folded(pitch: Array) -> Array:
    """Moved by octaves into 0 to 127."""
    over, under = np.maximum(pitch - 127, 0), np.maximum(-pitch, 0)
    return np.asarray(pitch - 12 * (-(-over // 12)) + 12 * (-(-under // 12)))


_KEY = re.compile(r"([A-Ga-g])([#♯b♭]?)\s*(major|maj|minor|min|m|)", re.IGNORECASE)
_SHARPS_OF = {"C": 0, "D": 2, "E": 4, "F": -1, "G": 1, "A": 3, "B": 5}


def key_named(name: str, text: Any) -> tuple[int, int]:
    """(sharps, minor) of a key such as "Eb major", "F# minor", "Dm"; `name` begins the message about others."""
    found = _KEY.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"{name}: expected a key such as 'Eb major', 'F# minor' or 'Dm', got {text!r}")
    tonic, sign, mode = found.groups()
    minor = mode == "m" or mode.lower() in ("minor", "min")
    sharps = _SHARPS_OF[tonic.upper()] + 7 * (sign in ("#", "♯")) - 7 * (sign in ("b", "♭")) - 3 * minor
    if not -7 <= sharps <= 7:
        raise ValueError(f"{name}: expected a key of at most seven sharps or flats, got {text!r}")
    return sharps, int(minor)


@_recorded
def with_key(score: Score, key: str, *, from_key: str | None = None, direction: str = "nearest") -> Score:
    if direction not in ("nearest", "up", "down"):
        raise ValueError(f"direction: expected 'nearest', 'up' or 'down', got {direction!r}")
    sharps, minor = key_named("key", key)
    if from_key is not None:
        before, mode = key_named("from_key", from_key)
    else:
        signatures = score.key_signatures
        if not len(signatures):
            raise ValueError("from_key: expected the key the score is in, because it has no key signature, got None")
        first = signatures[np.argmin(signatures["time"])]
        before, mode = int(first["sharps"]), int(first["minor"])
    if minor != mode:
        modes = ("major", "minor")
        raise ValueError(f"key: expected a {modes[mode]} key, as the score's is, got {key!r}")
    step = 7 * (sharps - before) % 12
    if step and (direction == "down" or (direction == "nearest" and step > 6)):
        step -= 12
    return _transposed(score, step, sharps - before, 7, False, "raise")


# -- time ------------------------------------------------------------------------------------------------------------


@_recorded
def trim(score: Score, start: Any = 0, end: Any = None, *, unit: str = "ticks", notes: str = "cut") -> Score:
    begin = _ticks(score, "start", start, unit)
    stop = MAX_TIME if end is None else _ticks(score, "end", end, unit)
    if not stop > begin:
        raise ValueError(f"end: expected a time after start={start!r}, got {end!r} {unit}")
    if notes not in ("cut", "drop", "keep"):
        raise ValueError(f"notes: expected 'cut', 'drop' or 'keep', got {notes!r}")
    table = score._checked_notes()
    starts, ends = table["start"], table["start"] + table["duration"]
    if notes == "cut":
        chosen = (starts < stop) & (ends > begin)
        starts, ends = np.maximum(starts, begin), np.minimum(ends, stop)
    elif notes == "drop":
        chosen = (starts >= begin) & (ends <= stop)
    else:
        chosen = (starts >= begin) & (starts < stop)
    kept = table[chosen]
    kept["start"], kept["duration"] = starts[chosen] - begin, (ends - starts)[chosen]

    events = score._events
    before = events["time"] < begin
    carried = before & _in_force(score, begin)
    taken = score._event_table.take(carried | (~before & (events["time"] < stop)))
    taken.rows["place"][taken.rows["time"] < begin] = 0
    taken.rows["time"] = np.maximum(taken.rows["time"], begin) - begin
    trimmed = _changed(
        score, notes=kept, events=taken, track_ends=np.maximum(np.minimum(_ends(score), stop) - begin, 0)
    )
    if score.format != 2:
        _keep_bar_lines(score, trimmed, begin)
    return trimmed


def _in_force(score: Score, begin: int) -> Array:
    """Of the events before `begin`, those that still count there, as a mask; see `Score.trim`."""
    events = score._events
    kind, data = _kind(events), events["data1"].astype(np.int64)
    meta = kind == META
    last_counts = (kind == PROGRAM) | (kind == PRESSURE) | (kind == BEND)
    last_counts |= (kind == CONTROL) & ~np.isin(data, PARAMETERS)
    key = _ruled(events)
    for of_all in (META_TEMPO, META_TIME_SIGNATURE, META_KEY_SIGNATURE):
        rows = score._meta(of_all)[0]
        last_counts[rows] = True
        key[rows] = (events["track"][rows].astype(np.int64) << 16 if score.format == 2 else 0) | META << 8 | of_all
    of_a_moment = meta & (np.isin(data, (5, 6, 7)) | ((data == 1) & (events["time"] > 0)))
    in_force = ~last_counts & ~of_a_moment & (kind != AFTERTOUCH)

    rows = np.flatnonzero(last_counts & (events["time"] <= begin))
    rows = rows[np.argsort(events["time"][rows], kind="stable")][::-1]
    in_force[rows[np.unique(key[rows], return_index=True)[1]]] = True
    return np.asarray(in_force)


def _ruled(events: Array) -> Array:
    """What a channel event sets, as a number: of two with the same, the later counts."""
    control = np.where(_kind(events) == CONTROL, events["data1"], 0)
    return np.asarray(events["track"].astype(np.int64) << 16 | events["status"].astype(np.int64) << 8 | control)


def _keep_bar_lines(score: Score, trimmed: Score, begin: int) -> None:
    """Make the rest of a bar in which a score was cut a pickup, if a time signature can say how long it is."""
    bar, place = score.to_bars(begin)
    until = int(score.from_bars(bar + 1))
    if begin == 0 or place == 0 or until - begin > trimmed._last_tick:
        return
    signatures = trimmed.time_signatures
    quarter = 4 * score.ticks_per_quarter
    meter = score.meter_at(begin)
    denominator = meter[1]
    while denominator <= 64 and (until - begin) * denominator % quarter:
        denominator *= 2
    numerator, rest = divmod((until - begin) * denominator, quarter)
    if rest or not 0 < numerator < 256:
        return
    now = signatures[signatures["time"] == 0]
    clocks = tuple(now[-1][["clocks_per_click", "notated_32nds_per_quarter", "track"]]) if len(now) else (24, 8, 0)
    added = [(0, numerator, denominator, *clocks)]
    if not np.any(signatures["time"] == until - begin):
        added.append((until - begin, *meter, *clocks))
    trimmed.time_signatures = [*signatures[signatures["time"] > 0].tolist(), *added]


@_recorded
def quantize(score: Score, steps_per_beat: int = 4, *, what: str = "starts", strength: float = 1.0) -> Score:
    steps = whole_number("steps_per_beat", steps_per_beat, 1, 32_767)
    if what not in ("starts", "durations", "both"):
        raise ValueError(f"what: expected 'starts', 'durations' or 'both', got {what!r}")
    if not 0 <= _number("strength", strength) <= 1:
        raise ValueError(f"strength: expected 0 to 1, got {strength}")
    notes = score._checked_notes().copy()
    quarter = score.ticks_per_quarter
    if what != "durations":
        grid = _tick_of_step(_nearest_step(notes["start"], quarter, steps), quarter, steps)
        notes["start"] += np.rint(strength * (grid - notes["start"])).astype(np.int64)
    if what != "starts":
        grid = _tick_of_step(np.maximum(_nearest_step(notes["duration"], quarter, steps), 1), quarter, steps)
        notes["duration"] += np.rint(strength * (grid - notes["duration"])).astype(np.int64)
        notes["duration"] = np.maximum(notes["duration"], 1)  # a step may be less than a tick
    return _changed(score, notes=notes)


def _nearest_step(ticks: Array, quarter: int, steps: int) -> Array:
    """In integers, halves up; of a beat and of its rest apart, so that nothing overflows."""
    beats, rest = np.divmod(ticks, quarter)
    return np.asarray(beats * steps + (2 * rest * steps + quarter) // (2 * quarter))


def _tick_of_step(step: Array, quarter: int, steps: int) -> Array:
    beats, rest = np.divmod(step, steps)
    return np.asarray(beats * quarter + (2 * rest * quarter + steps) // (2 * steps))


@_recorded
def resample(score: Score, ticks_per_quarter: int) -> Score:
    new_quarter = whole_number("ticks_per_quarter", ticks_per_quarter, 1, 32_767)
    notes = score._checked_notes().copy()
    table = score._event_table
    if score.smpte is None:
        old = score.ticks_per_quarter
        last = int(_ends(score).max())
        if last * new_quarter >= MAX_TIME * old:
            raise ValueError(
                f"ticks_per_quarter: expected times to stay below 2^63 ticks, got {last} * {new_quarter / old:g}"
            )

        def scaled(ticks: Array) -> Array:
            beats, rest = np.divmod(ticks, old)
            return np.asarray(beats * new_quarter + (2 * rest * new_quarter + old) // (2 * old))

    else:
        steady = Score(ticks_per_quarter=new_quarter)  # 120 a minute
        rows = np.ones(len(table.rows), bool)
        rows[score._meta(META_TEMPO)[0]] = False  # they did not count
        table = table.take(rows)

        def scaled(ticks: Array) -> Array:
            return steady.to_ticks(score.to_seconds(ticks))

    ends = scaled(notes["start"] + notes["duration"])
    notes["start"] = scaled(notes["start"])
    notes["duration"] = np.maximum(ends - notes["start"], 1)
    rows = table.rows.copy()
    rows["time"] = scaled(rows["time"])
    track_ends = scaled(score._track_ends)
    new = _changed(score, notes=notes, events=Events(rows, table.payload, table.ends), track_ends=track_ends)
    new._division = new_quarter
    return new


# -- tempo -----------------------------------------------------------------------------------------------------------


@_recorded
def scale_tempo(score: Score, factor: float) -> Score:
    _in_quarters(score, "scale_tempo")
    if not 0 < _number("factor", factor) < math.inf:
        raise ValueError(f"factor: expected a number above 0 (2: twice as fast), got {factor}")
    new = _with_first_tempo(score)
    tempo = np.rint(new.tempos["microseconds_per_quarter"] / factor)
    bad = np.flatnonzero(~((tempo >= 1) & (tempo <= _MAX_TEMPO)))
    if len(bad):
        raise ValueError(
            f"factor: expected tempos of 1 to {_MAX_TEMPO} microseconds a quarter, got {tempo[bad[0]]:g} at {factor:g}"
        )
    whole = tempo.astype(np.int64)
    new._rewrite_meta(META_TEMPO, np.stack([whole >> 16, whole >> 8 & 255, whole & 255], axis=1))
    return new


def _with_first_tempo(score: Score) -> Score:
    """The default tempo as an event, where a piece has none at its beginning."""
    tempos = score.tempos
    found = set(tempos["track"][tempos["time"] == 0].tolist())
    missing = sorted(set(range(score._num_tracks)) - found) if score.format == 2 else [] if found else [0]
    rows = _rows(len(missing), track=missing, status=META, data1=META_TEMPO)
    added = events_of(rows, [DEFAULT_TEMPO.to_bytes(3, "big")] * len(missing))
    return _changed(score, events=score._event_table.joined(added))


@_recorded
def with_tempo(score: Score, bpm: float) -> Score:
    _in_quarters(score, "with_tempo")
    if not 6e7 / (_MAX_TEMPO + 0.5) < _number("bpm", bpm) <= 6e7:
        raise ValueError(f"bpm: expected {6e7 / _MAX_TEMPO:.3f} to 60000000 quarter notes per minute, got {bpm}")
    new = score.copy()
    tracks = range(score._num_tracks) if score.format == 2 else [0]
    new.tempos = [(0, round(6e7 / bpm), track) for track in tracks]
    return new


# -- instruments and tracks ------------------------------------------------------------------------------------------


@_recorded
def with_programs(score: Score, programs: Mapping[int | str, int | str] | int | str) -> Score:
    tracks = score.tracks
    chosen: dict[int, int] = {}
    if isinstance(programs, Mapping):
        for key, value in programs.items():
            where = f"programs[{key!r}]"
            for track in _tracks_named(score, where, key, tracks):
                if tracks[track].channel is None:
                    raise ValueError(f"{where}: expected a track that plays notes, got one without")
                chosen[track] = _program(where, value)
    else:
        number = _program("programs", programs)
        chosen = {i: number for i, track in enumerate(tracks) if track.channel is not None and not track.is_drum}

    events, notes = score._events, score.notes
    channels = events["status"] & 15
    playing = np.unique(notes["track"].astype(np.int64) << 4 | notes["channel"])
    drop, rows = np.zeros(len(events), bool), []
    of_sound = _channel_events(events, PROGRAM) | _channel_events(events, CONTROL, BANK_SELECT)
    alone = of_sound & ~np.isin(events["track"].astype(np.int64) << 4 | channels, playing)  # set up for other tracks
    for track, number in chosen.items():
        own = sorted({*notes["channel"][notes["track"] == track].tolist(), tracks[track].channel})
        for channel in own if isinstance(programs, Mapping) else [c for c in own if c != DRUM_CHANNEL]:
            drop |= of_sound & (channels == channel) & ((events["track"] == track) | alone)
            rows.append((0, track, PROGRAM | channel, number, 0, 0))
    return _changed(score, events=score._event_table.take(~drop).joined(events_of(np.array(rows, EVENT))))


def _tracks_named(score: Score, where: str, key: Any, tracks: Sequence[Track]) -> list[int]:
    if isinstance(key, str):
        found = [i for i, track in enumerate(tracks) if track.name == key]
        found = found or [i for i, track in enumerate(tracks) if track.name.casefold() == key.casefold()]
        if not found:
            names = ", ".join(dict.fromkeys(repr(track.name) for track in tracks if track.name)) or "none"
            raise ValueError(f"{where}: expected the name of a track ({names}) or its index, got {key!r}")
        return found
    return [whole_number(where, key, 0, len(tracks) - 1)]


def _program(where: str, value: Any) -> int:
    if not isinstance(value, str):
        return whole_number(where, value, 0, 127)
    number = program_number(value)
    if number is None:
        near = ", ".join(similar_programs(value))
        raise ValueError(
            f"{where}: expected 0 to 127 or a General MIDI name{f' (such as {near})' if near else ''}, got {value!r}"
        )
    return number


@_recorded
def merge_tracks(score: Score, tracks: Sequence[int | str] | None = None) -> Score:
    _one_timeline(score, "merge_tracks")
    score._checked_notes()
    count = score._num_tracks
    if tracks is None:
        merged = list(range(count))
    else:
        of = score.tracks
        merged = sorted({i for n, key in enumerate(tracks) for i in _tracks_named(score, f"tracks[{n}]", key, of)})
    place = np.arange(count)
    place[merged[1:]] = merged[0] if merged else 0
    place = np.unique(place, return_inverse=True)[1]
    ends = np.zeros(int(place.max()) + 1, np.int64)
    np.maximum.at(ends, place, _ends(score))
    return _moved(score, place[score.notes["track"]], place[score._events["track"]], ends)


@_recorded
def split_tracks(score: Score, by: str = "channel") -> Score:
    notes, events = score._checked_notes(), score._events
    kind = _kind(events)
    placed = np.empty(len(events), [("time", "i8"), ("track", "i8"), ("channel", "i8")])
    placed["time"], placed["track"], placed["channel"] = events["time"], events["track"], events["status"] & 15
    # A part is a track, a channel, and a program or a pitch.
    of_notes = (notes["track"].astype(np.int64) << 4 | notes["channel"]) << 7
    of_events = (placed["track"] << 4 | placed["channel"]) << 7
    if by == "program":
        programs = score.programs
        of_notes |= latest(notes, programs, "program", 0)
        of_events |= latest(placed, programs, "program", 0, "time")
        of_events[kind == PROGRAM] = of_events[kind == PROGRAM] & ~127 | events["data1"][kind == PROGRAM]
    elif by == "pitch":
        of_notes |= notes["pitch"]
        of_events[kind == AFTERTOUCH] |= events["data1"][kind == AFTERTOUCH]
    elif by != "channel":
        raise ValueError(f"by: expected 'channel', 'program' or 'pitch', got {by!r}")

    count = score._num_tracks
    parts = np.unique(of_notes)
    parts = np.union1d(parts, np.setdiff1d(np.arange(count), parts >> 11) << 11)  # a track without notes stays
    if len(parts) > MAX_TRACKS:
        raise ValueError(f"by: expected at most {MAX_TRACKS} tracks, got {len(parts)}")
    first = np.searchsorted(parts, np.arange(count) << 11)
    # An event goes with its part, or the first of its channel, or the first of its track.
    new_track = first[events["track"]]
    for wanted in (of_events & ~127, of_events):
        at = np.minimum(np.searchsorted(parts, wanted), len(parts) - 1)
        fits = parts[at] == wanted if wanted is of_events else parts[at] >> 7 == wanted >> 7
        new_track = np.where((kind < 0xF0) & fits, at, new_track)
    new = _moved(score, np.searchsorted(parts, of_notes), new_track, _ends(score)[parts >> 11])

    old = score.tracks
    named = np.setdiff1d(np.arange(len(parts)), first)
    labels = [_part_name(old[part >> 11].name, by, part & 2047) for part in parts[named].tolist()]
    rows = _rows(len(named), track=named, status=META, data1=META_NAME)
    new._event_table = events_of(rows, [label.encode() for label in labels]).joined(new._event_table)
    return new


def _part_name(name: str, by: str, key: int) -> str:
    if by == "channel":
        label = f"channel {(key >> 7) + 1}"
    elif by == "program":
        label = "drums" if key >> 7 == DRUM_CHANNEL else PROGRAMS[key & 127]
    else:
        label = pitch_name(key & 127)
    return f"{name}, {label}" if name else label


def _moved(score: Score, of_notes: Array, of_events: Array, track_ends: Array) -> Score:
    """Every note and event in a new track, in order of time, and as they were where times are equal."""
    notes, table = score._checked_notes().copy(), score._event_table
    notes["track"] = of_notes
    rows = table.rows.copy()
    rows["track"] = of_events
    order = np.lexsort((rows["place"], rows["time"], rows["track"]))
    new = _changed(
        score, notes=notes, events=Events(rows, table.payload, table.ends).take(order), track_ends=track_ends
    )
    if new.format == 0 and len(track_ends) != 1:
        new.format = 1
    return new


def set_tracks(score: Score, tracks: Sequence[Track]) -> None:
    """Give `score` these tracks; see `Score.tracks`."""
    given, old = checked_tracks(tracks), score.tracks
    used = max(int(table["track"].max(initial=-1)) + 1 for table in (score.notes, score._events))
    if not max(used, 1) <= len(given) <= MAX_TRACKS:
        raise ValueError(
            f"tracks: expected {max(used, 1)} to {MAX_TRACKS}, because so many are in use, got {len(given)}"
        )
    padded = [*old[: len(given)], *[Track()] * (len(given) - len(old))]
    channels = [_channel_of(i, new, before.channel) for i, (new, before) in enumerate(zip(given, padded, strict=True))]
    notes, table = score.notes.copy(), score._event_table
    rows = table.rows.copy()
    drop = np.zeros(len(rows), bool)
    programs, names, texts = [], [], []
    for i, (track, before, channel) in enumerate(zip(given, padded, channels, strict=True)):
        own = rows["track"] == i
        if before.channel is not None and channel != before.channel:
            of_channel = own & (rows["status"] < 0xF0) & (rows["status"] & 15 == before.channel)
            rows["status"][of_channel] = rows["status"][of_channel] & 0xF0 | channel
            notes["channel"][(notes["track"] == i) & (notes["channel"] == before.channel)] = channel
        if track.name != before.name:
            drop |= own & (rows["status"] == META) & (rows["data1"] == META_NAME)
            if track.name:
                names.append((0, i, META, META_NAME, 0, 0))
                texts.append(track.name.encode())
        if track.program != before.program:
            changes = np.flatnonzero(own & (rows["status"] == PROGRAM | channel))
            if track.program is None:
                drop[changes] = True
            elif len(changes):
                rows["data1"][changes[0]] = track.program
            else:
                programs.append((0, i, PROGRAM | channel, track.program, 0, 0))
    ends = np.zeros(len(given), np.int64)
    ends[: len(score._track_ends)] = score._track_ends[: len(given)]
    kept = Events(rows, table.payload, table.ends).take(~drop).joined(events_of(np.array(programs, EVENT)))
    score._notes, score._track_ends = notes, ends
    score._event_table = events_of(np.array(names, EVENT), texts).joined(kept)


# -- pedal -----------------------------------------------------------------------------------------------------------


@_recorded
def apply_sustain(score: Score, *, drop_controls: bool = False) -> Score:
    notes = score._checked_notes().copy()
    notes["duration"] = pedalled_ends(notes, score.controls, score._last_tick) - notes["start"]
    if not drop_controls:
        return _changed(score, notes=notes)
    pedal = _channel_events(score._events, CONTROL, [SUSTAIN])
    return _changed(score, notes=notes, events=score._event_table.take(~pedal))


# -- one after the other ---------------------------------------------------------------------------------------------

# What a channel begins with; a piece that does not set one of these gets it back from the piece before.
_CONTROLS_AT_FIRST = {
    0: 0, 1: 0, 2: 0, 5: 0, 7: 100, 8: 64, 10: 64, 11: 127, 32: 0, 64: 0, 65: 0, 66: 0, 67: 0, 68: 0, 69: 0,
}  # fmt: skip


def concatenate(scores: Sequence[Score], *, align: str = "bar") -> Score:
    given = list(scores)
    for i, score in enumerate(given):
        if not isinstance(score, Score):
            raise TypeError(f"scores[{i}]: expected a Score, got {type(score).__name__}")
        _one_timeline(score, f"scores[{i}]")
        _in_quarters(score, f"scores[{i}]")
        score._checked_notes()
    if not given:
        raise ValueError("scores: expected at least one, got none")
    if align not in ("bar", "beat", "tick"):
        raise ValueError(f"align: expected 'bar', 'beat' or 'tick', got {align!r}")
    common = math.lcm(*(score.ticks_per_quarter for score in given))
    quarter = common if common <= 32_767 else max(score.ticks_per_quarter for score in given)
    pieces = [score if score.ticks_per_quarter == quarter else resample(score, quarter) for score in given]

    notes, events = [], []
    issues: tuple[Issue, ...] = ()
    ends = np.zeros(max(piece._num_tracks for piece in pieces), np.int64)
    begin, before = 0, None
    for piece in pieces:
        table = piece._event_table if before is None else _reset(before, piece).joined(piece._event_table)
        rows, played = table.rows.copy(), piece._checked_notes().copy()
        rows["time"] += begin
        played["start"] += begin
        notes.append(played)
        events.append(Events(rows, table.payload, table.ends))
        own = _ends(piece)
        ends[: len(own)] = own + begin
        issues += piece.issues
        begin, before = begin + _length(piece, align), piece
    first = pieces[0]
    joined = events[0].joined(*events[1:])
    new = _changed(first, notes=np.concatenate(notes, dtype=NOTE), events=joined, track_ends=ends)
    new.issues = issues
    new.format = first.format if len(ends) == 1 else 1
    if any(piece.provenance for piece in given):
        new.provenance = {"concatenated": [piece.copy().provenance for piece in given]}
    return new


def _length(score: Score, align: str) -> int:
    """Ticks to the first bar line, beat or tick at which everything has ended."""
    end = int(_ends(score).max())
    if align == "tick":
        return end
    if align == "beat":
        return -(-end // score.ticks_per_quarter) * score.ticks_per_quarter
    bar, place = score.to_bars(end)
    return end if place == 0 else int(score.from_bars(bar + 1))


def _reset(before: Score, after: Score) -> Events:
    """What brings tempo, metre, programs, controls, pressure and bends of `before` back to how a piece begins.

    Only what was changed, and what `after` does not set itself at its first tick.
    """
    metas, payloads = [], []
    for number, field, default in (
        (META_TEMPO, "tempos", DEFAULT_TEMPO.to_bytes(3, "big")),
        (META_TIME_SIGNATURE, "time_signatures", bytes([4, 2, 24, 8])),
    ):
        if len(getattr(before, field)) and not np.any(getattr(after, field)["time"] == 0):
            metas.append((0, 0, META, number, 0, 0))
            payloads.append(default)

    events = before._events
    kind = _kind(events)
    state = (kind == PROGRAM) | (kind == PRESSURE) | (kind == BEND)
    state |= (kind == CONTROL) & np.isin(events["data1"], list(_CONTROLS_AT_FIRST))
    last = events[state][::-1]
    last = last[np.unique(_ruled(last), return_index=True)[1]]
    first = last.copy()
    kind = _kind(first)
    first["data1"][kind != CONTROL] = 0
    first["data2"] = np.where(kind == BEND, 64, 0)
    controls = kind == CONTROL
    first["data2"][controls] = [_CONTROLS_AT_FIRST[number] for number in first["data1"][controls].tolist()]
    first["time"], first["place"] = 0, 0
    changed = (first["data1"] != last["data1"]) | (first["data2"] != last["data2"])
    changed &= ~np.isin(_ruled(last), _ruled(after._events[after._events["time"] == 0]))
    return events_of(np.array(metas, EVENT), payloads).joined(events_of(first[changed]))
