"""Piano rolls in plain Python: one cell after the other, pretty_midi's own way from a file to a picture.

`piano_roll` takes the bytes of a MIDI file and what `musicgen_ext.piano_roll` takes, and returns nested lists: channel,
track, pitch, column.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from musicgen_reference.midi import parse

PITCHES, DRUMS, SUSTAIN = 128, 9, 64


def piano_roll(
    data, *, fs=100.0, steps_per_beat=None, times=None, pedal_threshold=64, overlap=None, binary=False,
    channels=("frame",), per_track=False, drums=False, whole=None,
):  # fmt: skip
    """`whole`: round sums down and clip them at 255; None: with `steps_per_beat`."""
    song = parse(data)
    keep = overlap == "keep" if overlap else steps_per_beat is not None
    events = written_events(song) if keep else file_events(data)
    instruments = ensemble(events)
    tracks = range(max(len(song.track_ends), 1)) if per_track else [None]
    if steps_per_beat is None:
        place = frames(song, fs)
        end = times[-1] if times is not None else 0
        ends = [max(seconds(song, i["last"], i["track"]), end) for i in instruments]
        widths = [int(fs * end) for end in ends]
    else:
        place = steps(song, steps_per_beat)
        widths = [max([place_of(n, i, place, 1)[1] for n in i["notes"]], default=0) for i in instruments]
    width = max(widths, default=0)
    columns = width if times is None or not instruments else len(times)

    result = []
    for channel in channels:
        planes = []
        for track in tracks:
            plane = [[0.0] * columns for _ in range(PITCHES)]
            for instrument, own in zip(instruments, widths, strict=True):
                if track not in (None, instrument["track"]) or (instrument["channel"] == DRUMS and not drums):
                    continue
                if channel != "frame":
                    rows = marks(instrument, place, steps_per_beat, width, channel)
                elif steps_per_beat is not None:
                    rows = notes_added(instrument, place, 1, own)
                else:
                    rows = notes_added(instrument, place, 0, own)
                    if pedal_threshold is not None:
                        hold_pedal(rows, instrument, place, pedal_threshold)
                    bend(rows, instrument, place, own)
                    if times is not None:
                        rows = means(rows, [round(time * fs) for time in times])
                for pitch in range(PITCHES):
                    for column, value in enumerate(rows[pitch]):
                        plane[pitch][column] += value
            planes.append([[finished(value, binary, whole, steps_per_beat) for value in row] for row in plane])
        result.append(planes)
    return result


def finished(value, binary, whole, steps_per_beat):
    if binary:
        return int(value != 0)
    if whole if whole is not None else steps_per_beat is not None:
        return min(int(value), 255)
    return value


# -- who plays what -------------------------------------------------------------------------------------


def file_events(data):
    """(track, time, status, data1, data2) of a valid file, in its order."""
    at = 8 + int.from_bytes(data[4:8], "big")
    track = 0
    while at < len(data):
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "big")
        at, time, status = at + 8, 0, 0
        while at < end:
            delta, at = number(data, at)
            time += delta
            if data[at] >= 0x80:
                status = data[at]
                at += 1
            if status < 0xF0:
                two = status & 0xE0 != 0xC0
                yield track, time, status, data[at], data[at + 1] if two else 0
                at += 1 + two
            else:
                at += status == 0xFF
                length, at = number(data, at)
                at += length
        track += 1


def number(data, at):
    value = 0
    while True:
        value = value << 7 | data[at] & 127
        at += 1
        if data[at - 1] < 128:
            return value, at


def written_events(song):
    """As `file_events`, of what is written for a song: a note's end is (track, time, None, note, None)."""
    for track in range(len(song.track_ends)):
        rows = [(e[0], (0, 2, 4)[e[5]], (track, e[0], *e[2:5])) for e in song.events if e[1] == track and e[2] < 0xF0]
        rows += [(n[0] + n[1], 1, (track, n[0] + n[1], None, n, None)) for n in song.notes if n[4] == track]
        for row in sorted(rows, key=lambda row: row[:2]):
            yield row[2]


class TrackParts:
    """What is known of the parts of one track."""

    def __init__(self, track, instruments):
        self.track, self.instruments = track, instruments
        self.programs, self.sounding, self.known, self.waiting = [0] * 16, defaultdict(list), {}, {}

    def add_notes(self, channel, notes):
        key = (self.programs[channel], channel)
        if key not in self.known:
            lists = self.waiting.get(channel, {"controls": [], "bends": []})
            self.known[key] = {"track": self.track, "channel": channel, "notes": [], "lists": lists}
            self.instruments.append(self.known[key])
        self.known[key]["notes"] += notes

    def lists(self, channel):
        key = (self.programs[channel], channel)
        if key in self.known:
            return self.known[key]["lists"]
        return self.waiting.setdefault(channel, {"controls": [], "bends": []})


def ensemble(events):
    """Instruments with notes (start, end, pitch, velocity), controls and bends, in the order of their first ends."""
    instruments, parts = [], None
    for track, time, status, data1, data2 in events:
        if parts is None or track != parts.track:
            parts = TrackParts(track, instruments)
        if status is None:
            parts.add_notes(data1[5], [(data1[0], time, data1[2], data1[3])])
            continue
        kind, channel = status & 0xF0, status & 15
        if kind == 0x90 and data2:
            parts.sounding[channel, data1].append((time, data2))
        elif kind in (0x80, 0x90):
            notes = parts.sounding.pop((channel, data1), [])
            ended = [(start, time, data1, velocity) for start, velocity in notes if start != time]
            if ended:
                parts.add_notes(channel, ended)
                parts.sounding[channel, data1] = [note for note in notes if note[0] == time]
        elif kind == 0xC0:
            parts.programs[channel] = data1
        elif kind == 0xB0:
            parts.lists(channel)["controls"].append((time, data1, data2))
        elif kind == 0xE0:
            parts.lists(channel)["bends"].append((time, (data1 | data2 << 7) - 8192))
    for one in instruments:
        events = one["lists"]["controls"] + one["lists"]["bends"]
        one["last"] = max([note[1] for note in one["notes"]] + [event[0] for event in events])
    return instruments


# -- time -----------------------------------------------------------------------------------------------


def seconds(song, tick, track):
    if song.division >= 0x8000:
        fps, ticks = 256 - (song.division >> 8), song.division & 255
        return tick / (1 / (1001 / (30_000 * ticks) if fps == 29 else 1 / (fps * ticks)))
    changes = [e for e in song.events if e[2] == 0xFF and e[3] == 0x51 and len(e[6]) == 3 and any(e[6])]
    if song.format == 2:
        changes = [e for e in changes if e[1] == track]
    scales = [(0, 60.0 / (120.0 * song.division))]
    for event in sorted(changes, key=lambda e: e[0]):
        scale = 60.0 / ((6e7 / int.from_bytes(event[6], "big")) * song.division)
        if event[0] == 0:
            scales = [(0, scale)]
        elif scale != scales[-1][1]:
            scales.append((event[0], scale))
    time = 0.0
    for (begin, scale), (end, _) in zip(scales, [*scales[1:], (tick, 0)], strict=True):
        if tick <= end:
            return time + scale * (tick - begin)
        time += scale * (end - begin)
    return time + scales[-1][1] * (tick - scales[-1][0])


def frames(song, fs):
    return lambda tick, track: int(seconds(song, tick, track) * fs)


def steps(song, steps_per_beat):
    return lambda tick, track: (2 * tick * steps_per_beat + song.division) // (2 * song.division)


def place_of(note, instrument, place, at_least):
    begin = place(note[0], instrument["track"])
    return begin, max(place(note[1], instrument["track"]), begin + at_least)


# -- a roll of one instrument ---------------------------------------------------------------------------


def notes_added(instrument, place, at_least, width):
    rows = [[0.0] * width for _ in range(PITCHES)]
    for note in instrument["notes"]:
        begin, end = place_of(note, instrument, place, at_least)
        for column in range(begin, end):
            rows[note[2]][column] += note[3]
    return rows


def marks(instrument, place, steps_per_beat, width, channel):
    rows = [[0.0] * width for _ in range(PITCHES)]
    for note in instrument["notes"] if width else []:
        begin, end = place_of(note, instrument, place, steps_per_beat is not None)
        column = begin if channel == "onset" else max(begin, end - 1)
        rows[note[2]][min(column, width - 1)] += note[3]
    return rows


def hold_pedal(rows, instrument, place, threshold):
    down = None
    for time, control, value in instrument["lists"]["controls"]:
        if control != SUSTAIN:
            continue
        now = place(time, instrument["track"])
        if value >= threshold and down is None:
            down = now
        elif value < threshold and down is not None:
            for row in rows:
                for column in range(down + 1, now):
                    row[column] = max(row[column], row[column - 1])
            down = None


def bend(rows, instrument, place, width):
    bends = instrument["lists"]["bends"]
    begins = [place(time, instrument["track"]) for time, _ in bends]
    for begin, end, (_, value) in zip(begins, [*begins[1:], width], bends, strict=False):
        whole, part = divmod(abs(value) / 4096, 1)
        whole, up = int(whole), value > 0
        for column in range(begin, end) if value else []:
            old = [row[column] for row in (rows if up else reversed(rows))]
            moved = [0.0] * whole + old[: PITCHES - whole]
            new = [moved[0]] + [(1 - part) * moved[p] + part * moved[p - 1] for p in range(1, PITCHES)]
            for row, sound in zip(rows if up else reversed(rows), new, strict=True):
                row[column] = sound


def means(rows, begins):
    width = len(rows[0])
    result = [[0.0] * len(begins) for _ in range(PITCHES)]
    for column, (begin, end) in enumerate(pairwise(begins)):
        if begin < width:
            cells = range(begin, min(max(end, begin + 1), width))
            for pitch in range(PITCHES):
                result[pitch][column] = sum(rows[pitch][cell] for cell in cells) / len(cells)
    return result
