"""Scores as objects of other packages, and back: pretty_midi, mido and symusic, each where it is installed."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from musicgen_ext.controllers import DOWN, SUSTAIN
from musicgen_ext.midi import DRUM_CHANNEL, Score, Text, Track, _channel_of, read_midi
from musicgen_ext.tables import CONTROL, PITCH_BEND

if TYPE_CHECKING:
    import mido
    from pretty_midi import PrettyMIDI

Array = npt.NDArray[Any]

_SHARPS_OF_MAJOR = (0, -5, 2, -3, 4, -1, 6, 1, -4, 3, -2, 5)  # by tonic; a minor key has those of its relative


class _Instrument(NamedTuple):
    """The notes of one track and channel that one program plays, and the events it plays them with."""

    name: str
    program: int
    is_drum: bool
    track: int
    notes: Array
    controls: Array
    pitch_bends: Array


def _instruments(score: Score, *, without_notes: bool) -> Iterator[_Instrument]:
    """One for every track, channel and program with notes, and, if asked for, for those with other events only.

    A program counts from where a note begins. An event at a time when a program without notes is set belongs to the
    first instrument of its track and channel.
    """
    notes = score._checked_notes()
    names = [track.name for track in score.tracks]
    programs = score.programs
    tables = (notes, score.controls, score.pitch_bends)
    keys = [table["track"].astype(np.int64) << 4 | table["channel"] for table in tables]
    for key in np.unique(np.concatenate(keys) if without_notes else keys[0]).tolist():
        track, channel = key >> 4, key & 15
        own = [table[of == key] for table, of in zip(tables, keys, strict=True)]
        changes = programs[(programs["track"] == track) & (programs["channel"] == channel)]
        values = np.append(changes["program"], 0)  # the last place, index -1: before any change
        at = [values[np.searchsorted(changes["time"], t, "right") - 1] for t in (own[0]["start"], *_times(own[1:]))]
        found = list(dict.fromkeys(at[0].tolist() or values[:1].tolist()))
        for program in found:
            masks = [of == program for of in at]
            if program == found[0]:
                masks[1:] = [mask | ~np.isin(of, found) for mask, of in zip(masks[1:], at[1:], strict=True)]
            parts = [table[mask] for table, mask in zip(own, masks, strict=True)]
            yield _Instrument(names[track], program, channel == DRUM_CHANNEL, track, *parts)


def _times(tables: Sequence[Array]) -> list[Array]:
    return [table["time"] for table in tables]


# -- pretty_midi -------------------------------------------------------------------------------------------------------


def to_pretty_midi(score: Score) -> PrettyMIDI:
    """See `Score.to_pretty_midi`."""
    pretty_midi = _package("pretty_midi", '"musicgen-ext[midi]"')
    limit = int(pretty_midi.pretty_midi.MAX_TICK)
    _one_timeline(score, "pretty_midi")
    if score._last_tick >= limit:
        raise ValueError(f"score: expected fewer than {limit} ticks (pretty_midi's limit), got {score._last_tick}")

    pm = pretty_midi.PrettyMIDI(resolution=score.ticks_per_quarter)
    ticks, _, tempo, _ = score._tempo_map(None)
    # In pretty_midi's own order of operations, so that every time has its bits.
    scales = [60.0 / ((6e7 / each) * score.ticks_per_quarter) for each in tempo.tolist()]
    pm._tick_scales = [
        (tick, scale)
        for tick, scale, before in zip(ticks.tolist(), scales, [None, *scales], strict=False)
        if scale != before
    ]
    pm._update_tick_to_time(score._last_tick + 1)
    seconds = pm._PrettyMIDI__tick_to_time

    for row in _in_time(score.time_signatures).tolist():
        pm.time_signature_changes.append(pretty_midi.TimeSignature(row[1], row[2], float(seconds[row[0]])))
    for time, sharps, minor, _ in _in_time(score.key_signatures).tolist():
        number = pretty_midi.mode_accidentals_to_key_number(minor, sharps)
        pm.key_signature_changes.append(pretty_midi.KeySignature(number, float(seconds[time])))
    for text in sorted(score.texts, key=lambda text: text.time):
        if text.kind == "lyric":
            pm.lyrics.append(pretty_midi.Lyric(text.text, float(seconds[text.time])))
        elif text.kind == "text":
            pm.text_events.append(pretty_midi.Text(text.text, float(seconds[text.time])))

    for part in _instruments(score, without_notes=False):
        instrument = pretty_midi.Instrument(part.program, part.is_drum, part.name)
        ends = part.notes["start"] + part.notes["duration"]
        order = np.lexsort((part.notes["start"], ends))
        notes, ends = part.notes[order], ends[order]
        instrument.notes = [
            pretty_midi.Note(*row)
            for row in _tuples(notes["velocity"], notes["pitch"], seconds[notes["start"]], seconds[ends])
        ]
        controls, bends = part.controls, part.pitch_bends
        instrument.control_changes = [
            pretty_midi.ControlChange(*row)
            for row in _tuples(controls["number"], controls["value"], seconds[controls["time"]])
        ]
        instrument.pitch_bends = [pretty_midi.PitchBend(*row) for row in _tuples(bends["bend"], seconds[bends["time"]])]
        pm.instruments.append(instrument)
    return pm


def from_pretty_midi(pm: PrettyMIDI) -> Score:
    """See `Score.from_pretty_midi`."""
    if not hasattr(pm, "instruments") or not hasattr(pm, "_tick_scales"):
        raise TypeError(f"pm: expected a pretty_midi.PrettyMIDI, got {type(pm).__name__}")
    begins = np.array([tick for tick, _ in pm._tick_scales], np.int64)
    scales = np.array([scale for _, scale in pm._tick_scales], np.float64)
    sums = np.concatenate([[0.0], np.cumsum(np.diff(begins) * scales[:-1])])

    def ticks(where: str, times: Sequence[float]) -> Array:
        seconds = np.asarray(times, np.float64)
        bad = np.flatnonzero(~((seconds >= 0) & (seconds < 1e15)))
        if len(bad):
            raise ValueError(f"{where.format(bad[0])}: expected seconds >= 0, got {seconds[bad[0]]}")
        segment = np.maximum(np.searchsorted(sums, seconds, side="right") - 1, 0)
        found = begins[segment] + np.rint((seconds - sums[segment]) / scales[segment])
        return np.asarray(found, np.int64)

    columns: dict[str, list[Any]] = {f: [] for f in ("start", "duration", "pitch", "velocity", "track", "channel")}
    tracks, controls, bends = [], [], []
    for i, instrument in enumerate(pm.instruments):
        channel = _channel_of(i, Track(is_drum=bool(instrument.is_drum)), None)
        tracks.append(Track(str(instrument.name), int(instrument.program), channel, bool(instrument.is_drum)))
        where = f"instruments[{i}].notes[{{}}]"
        first = [note.start for note in instrument.notes]
        last = [note.end for note in instrument.notes]
        start, end = ticks(where + ".start", first), ticks(where + ".end", last)
        for n, (begin, stop) in enumerate(zip(first, last, strict=True)):
            if not stop > begin:
                raise ValueError(f"{where.format(n)}.end: expected seconds after its start {begin}, got {stop}")
        columns["start"] += start.tolist()
        columns["duration"] += np.maximum(end - start, 1).tolist()
        columns["pitch"] += [note.pitch for note in instrument.notes]
        columns["velocity"] += [note.velocity for note in instrument.notes]
        columns["track"] += [i] * len(instrument.notes)
        columns["channel"] += [channel] * len(instrument.notes)
        times = ticks(f"instruments[{i}].control_changes[{{}}].time", [c.time for c in instrument.control_changes])
        for time, control in zip(times.tolist(), instrument.control_changes, strict=True):
            controls.append((time, control.number, control.value, channel, i))
        times = ticks(f"instruments[{i}].pitch_bends[{{}}].time", [bend.time for bend in instrument.pitch_bends])
        for time, bend in zip(times.tolist(), instrument.pitch_bends, strict=True):
            bends.append((time, bend.pitch, channel, i))

    keys = []
    times = ticks("key_signature_changes[{}].time", [key.time for key in pm.key_signature_changes])
    for time, key in zip(times.tolist(), pm.key_signature_changes, strict=True):
        minor, tonic = divmod(key.key_number, 12)
        keys.append((time, _SHARPS_OF_MAJOR[(tonic + 3 * minor) % 12], minor))
    metres = zip(
        ticks("time_signature_changes[{}].time", [t.time for t in pm.time_signature_changes]).tolist(),
        [t.numerator for t in pm.time_signature_changes],
        [t.denominator for t in pm.time_signature_changes],
        strict=True,
    )
    texts = []
    for kind, events in (("lyric", pm.lyrics), ("text", pm.text_events)):
        times = ticks(f"{kind}[{{}}].time", [event.time for event in events])
        texts += [Text(t, kind, e.text.encode()) for t, e in zip(times.tolist(), events, strict=True)]
    return Score(
        columns,
        ticks_per_quarter=int(pm.resolution),
        tempos=[(t, round(s * pm.resolution * 1e6)) for t, s in zip(begins.tolist(), scales.tolist(), strict=True)],
        time_signatures=list(metres),
        key_signatures=keys,
        tracks=tracks,
        controls=controls,
        pitch_bends=bends,
        texts=texts,
    )


# -- mido --------------------------------------------------------------------------------------------------------------


def to_mido(score: Score) -> mido.MidiFile:
    """See `Score.to_mido`."""
    mido = _package("mido", "mido")
    data = score.to_bytes()
    file = mido.MidiFile(type=int.from_bytes(data[8:10], "big"), ticks_per_beat=score._division, charset="latin1")
    file.ticks_per_beat -= (score._division & 0x8000) << 1  # mido keeps the header's number signed: SMPTE below zero
    at = 14
    while at < len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "big")
        if name == b"MTrk":
            file.tracks.append(mido.MidiTrack(_messages(mido, memoryview(data)[at + 8 : at + 8 + size])))
        at += 8 + size
    return file


def _messages(mido: Any, data: memoryview) -> Iterator[Any]:
    """The messages of a track as `Score.to_bytes` writes it.

    Not by mido's own reader: it fails at malformed meta events, moves what follows an unknown one to an earlier time,
    and makes a whole message of every part of a divided system exclusive one.
    """
    at, now, status = 0, 0, 0

    def number() -> int:
        nonlocal at
        value = 0
        while True:
            byte = data[at]
            at += 1
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value

    while at < len(data):
        now += number()
        if data[at] >= 0x80:
            status, at = data[at], at + 1
        if status < 0xF0:
            size = 1 if status & 0xE0 == 0xC0 else 2
            message = mido.Message.from_bytes([status, *data[at : at + size]], time=now)
            at += size
        else:
            kind = data[at]
            at += status == 0xFF
            size = number()
            payload = bytes(data[at : at + size])
            at += size
            if status == 0xFF:
                message = _meta_message(mido, kind, payload, now)
            elif status == 0xF0 and payload[-1:] == b"\xf7" and max(payload[:-1], default=0) < 0x80:
                message = mido.Message("sysex", data=payload[:-1], time=now)
            else:
                continue  # its time goes to the next message
        yield message
        now = 0


def _meta_message(mido: Any, kind: int, payload: bytes, delta: int) -> Any:
    """With mido's names where it would write the same bytes again."""
    meta = mido.midifiles.meta
    with meta.meta_charset("latin1"):
        try:
            message = meta.build_meta_message(kind, payload, delta)
            exact = bytes(message.bytes()[2:]) == bytes([*meta.encode_variable_int(len(payload)), *payload])
        except (ValueError, LookupError, TypeError, OverflowError, mido.KeySignatureError):
            exact = False
    if exact and message.type != "unknown_meta":
        return message
    return mido.UnknownMetaMessage(kind, payload, delta)


def from_mido(file: mido.MidiFile) -> Score:
    """See `Score.from_mido`."""
    if not hasattr(file, "tracks") or not hasattr(file, "ticks_per_beat"):
        raise TypeError(f"file: expected a mido.MidiFile, got {type(file).__name__}")
    stream = io.BytesIO()
    try:
        file.save(file=stream)
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise ValueError(f"file: expected messages that mido can save, got {error}") from error
    return read_midi(stream.getvalue(), max_duration=float("inf"))


# -- symusic -----------------------------------------------------------------------------------------------------------


def to_symusic(score: Score) -> Any:
    """See `Score.to_symusic`."""
    symusic = _package("symusic", "symusic")
    core = symusic.core
    _one_timeline(score, "symusic")
    longest = int(np.iinfo(np.int32).max)
    if score._last_tick > longest:
        raise ValueError(f"score: expected at most {longest} ticks (symusic's limit), got {score._last_tick}")
    made = core.ScoreTick(score.ticks_per_quarter)
    tempos, metres, keys = map(_in_time, (score.tempos, score.time_signatures, score.key_signatures))
    made.tempos = _list(core.TempoTickList, tempos, "time i4", "microseconds_per_quarter i4")
    made.time_signatures = _list(core.TimeSignatureTickList, metres, "time i4", "numerator u1", "denominator u1")
    made.key_signatures = _list(core.KeySignatureTickList, keys, "time i4", "sharps i1", "minor u1")
    lyrics: dict[int, list[Text]] = {}
    for text in sorted(score.texts, key=lambda text: text.time):
        if text.kind == "lyric":
            lyrics.setdefault(text.track, []).append(text)
        elif text.kind == "marker":
            made.markers.append(core.TextMetaTick(text.time, text.text))
    for part in _instruments(score, without_notes=True):
        track = core.TrackTick(part.name, part.program, part.is_drum)
        track.notes = _list(core.NoteTickList, part.notes, "start i4", "duration i4", "pitch i1", "velocity i1")
        track.controls = _list(core.ControlChangeTickList, part.controls, "time i4", "number u1", "value u1")
        track.pitch_bends = _list(core.PitchBendTickList, part.pitch_bends, "time i4", "bend i4")
        track.pedals = _pedals(core, part.controls)
        for text in lyrics.pop(part.track, ()):  # those of a track go with its first instrument
            track.lyrics.append(core.TextMetaTick(text.time, text.text))
        made.tracks.append(track)
    for i, texts in lyrics.items():
        track = core.TrackTick(score.tracks[i].name, 0, False)
        for text in texts:
            track.lyrics.append(core.TextMetaTick(text.time, text.text))
        made.tracks.append(track)
    return made


def _list(kind: Any, table: Array, *columns: str) -> Any:
    """A symusic list of some columns of a table, given with the type that symusic wants."""
    fields = (column.split() for column in columns)
    return kind.from_numpy(*(np.array(table[name], dtype) for name, dtype in fields))


def _pedals(core: Any, controls: Array) -> Any:
    """Spans of the sustain pedal; one that is never lifted has none, as in symusic's reader."""
    pedal = controls[controls["number"] == SUSTAIN]
    down = pedal["value"] >= DOWN
    changed = np.diff(down, prepend=False)
    begins, ends = pedal["time"][changed & down], pedal["time"][changed & ~down]
    begins = begins[: len(ends)]
    return core.PedalTickList.from_numpy(begins.astype(np.int32), (ends - begins).astype(np.int32))


def from_symusic(score: Any) -> Score:
    """See `Score.from_symusic`."""
    if not hasattr(score, "tracks") or not hasattr(score, "ticks_per_quarter") or not hasattr(score, "to"):
        raise TypeError(f"score: expected a symusic.Score, got {type(score).__name__}")
    score = score.to("tick")
    notes: list[dict[str, Array]] = []
    tracks, texts = [], [Text(int(m.time), "marker", m.text.encode()) for m in score.markers]
    controls, bends = [np.zeros(0, CONTROL)], [np.zeros(0, PITCH_BEND)]
    for i, track in enumerate(score.tracks):
        channel = _channel_of(i, Track(is_drum=bool(track.is_drum)), None)
        tracks.append(Track(str(track.name), int(track.program), channel, bool(track.is_drum)))
        columns = track.notes.numpy()
        columns["start"] = columns.pop("time")
        size = len(columns["start"])
        notes.append({**columns, "track": np.full(size, i), "channel": np.full(size, channel)})
        changes, wheel, pedals = (t.numpy() for t in (track.controls, track.pitch_bends, track.pedals))
        if len(pedals["time"]) and not np.any(changes["number"] == SUSTAIN):
            times = np.concatenate([pedals["time"], pedals["time"] + pedals["duration"]])
            values = np.repeat([127, 0], len(pedals["time"]))
            added = {"time": times, "number": np.full(len(times), SUSTAIN), "value": values}
            changes = {field: np.concatenate([changes[field], added[field]]) for field in added}
        controls.append(_rows(CONTROL, i, channel, **changes))
        bends.append(_rows(PITCH_BEND, i, channel, time=wheel["time"], bend=wheel["value"]))
        texts += [Text(int(lyric.time), "lyric", lyric.text.encode(), i) for lyric in track.lyrics]
    tempos, metres, keys = (t.numpy() for t in (score.tempos, score.time_signatures, score.key_signatures))
    fields = ("start", "duration", "pitch", "velocity", "track", "channel")
    return Score(
        {field: np.concatenate([np.zeros(0, np.int64), *(part[field] for part in notes)]) for field in fields},
        ticks_per_quarter=int(score.ticks_per_quarter),
        tempos={"time": tempos["time"], "microseconds_per_quarter": tempos["mspq"]},
        time_signatures={field: metres[field] for field in ("time", "numerator", "denominator")},
        key_signatures={"time": keys["time"], "sharps": keys["key"], "minor": keys["tonality"]},
        tracks=tracks,
        controls=np.concatenate(controls),
        pitch_bends=np.concatenate(bends),
        texts=texts,
    )


def _rows(dtype: np.dtype[np.void], track: int, channel: int, **columns: Array) -> Array:
    table = np.empty(len(columns["time"]), dtype)
    for field, values in columns.items():
        table[field] = values
    table["track"], table["channel"] = track, channel
    return table


# -- helpers -----------------------------------------------------------------------------------------------------------


def _in_time(table: Array) -> Array:
    """By time, whatever the track."""
    return table[np.argsort(table["time"], kind="stable")]


def _tuples(*columns: Array) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.tolist() for column in columns), strict=True)


def _package(name: str, what: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise ImportError(f"{name} is needed for this: pip install {what}") from None


def _one_timeline(score: Score, package: str) -> None:
    if score.format == 2 or score.smpte is not None:
        kind = "format 2" if score.format == 2 else "SMPTE time"
        raise ValueError(f"score: expected one timeline in ticks per quarter for {package}, got {kind}")
