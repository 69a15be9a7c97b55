"""The MIDI reader and writer in plain Python: one event after the other, to be read beside the specification.

`parse` returns what `_core.midi_parse` returns, with lists of tuples in place of arrays and ``(kind, offset, track)``
in place of messages; `write` takes the same and returns bytes.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

HINT = b"\x7dmgp"
MAX_HINT = 127
IN_HEADER, BEFORE_DATA, AFTER_DATA = -1, -2, -3  # in place of a chunk's track: see src/cpp/midi/song.h
END_OF_TRACK, TEMPO, TIME_SIGNATURE, KEY_SIGNATURE, SEQUENCER = 0x2F, 0x51, 0x58, 0x59, 0x7F


class Broken(Exception):
    """Where the native parser raises MidiError in either mode: (offset, track or -1)."""


@dataclass
class Song:
    format: int = 1
    division: int = 480
    notes: list = field(default_factory=list)  # (start, duration, pitch, velocity, track, channel, release_velocity)
    events: list = field(default_factory=list)  # (time, track, status, data1, data2, place, payload or None)
    track_ends: list = field(default_factory=list)
    chunks: list = field(default_factory=list)  # (before_track, id, data)
    issues: list = field(default_factory=list)  # (kind, offset, track)


class Truncated(Exception):
    """The event does not fit into the track."""


def parse(data: bytes) -> Song:
    song = Song()
    begin, size = unwrap_riff(data, song)
    left = size - begin
    if left < 14 or data[begin : begin + 4] != b"MThd":
        raise Broken(begin, -1)
    length = int.from_bytes(data[begin + 4 : begin + 8], "big")
    if not 6 <= length <= left - 8:
        raise Broken(begin + 4, -1)
    song.format = int.from_bytes(data[begin + 8 : begin + 10], "big")
    declared = int.from_bytes(data[begin + 10 : begin + 12], "big")
    song.division = int.from_bytes(data[begin + 12 : begin + 14], "big")
    if song.format > 2:
        raise Broken(begin + 8, -1)
    frames = 256 - (song.division >> 8)
    smpte = song.division >= 0x8000
    if song.division == 0 or (smpte and (frames not in (24, 25, 29, 30) or song.division % 256 == 0)):
        raise Broken(begin + 12, -1)
    if length > 6:
        song.chunks.append((IN_HEADER, b"MThd", data[begin + 14 : begin + 8 + length]))

    at, track = begin + 8 + length, 0
    while at < size:
        if not could_be_chunk(data, at, size):
            song.issues.append(("not_a_chunk", at, -1))
            at = find_track(data, at + 1, size)
            continue
        kind, claimed = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "big")
        left = size - at - 8
        if kind == b"MTrk":
            if claimed > left:
                song.issues.append(("chunk_truncated", at, track))
            at = Track(data, at + 8, at + 8 + min(claimed, left), size, claimed > left, track, song).read()
            track += 1
        else:
            if kind == b"MThd":
                song.issues.append(("second_header", at, -1))
            song.chunks.append((track, kind, data[at + 8 : at + 8 + claimed]))
            at += 8 + claimed
    if track != declared:
        song.issues.append(("track_count", begin + 10, -1))
    if song.format == 0 and track != 1:
        song.issues.append(("format_0_tracks", begin + 8, -1))
        song.format = 1
    return song


def unwrap_riff(data, song):
    if len(data) < 20 or data[:4] != b"RIFF" or data[8:12] != b"RMID":
        return 0, len(data)
    form = int.from_bytes(data[4:8], "little")
    if len(data) - 8 not in (form, form + form % 2):
        song.issues.append(("riff_length", 4, -1))
    at, found = 12, None
    while len(data) - at >= 8:
        claimed, left = int.from_bytes(data[at + 4 : at + 8], "little"), len(data) - at - 8
        length = min(claimed, left)
        if claimed > left:
            song.issues.append(("chunk_truncated", at, -1))
        if found is None and data[at : at + 4] == b"data":
            found = at + 8, at + 8 + length
        else:
            place = BEFORE_DATA if found is None else AFTER_DATA
            song.chunks.append((place, data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 8 + min(length + length % 2, left)
    if at != len(data):
        song.issues.append(("not_a_chunk", at, -1))
    if found is None:
        raise Broken(12, -1)
    return found


def could_be_chunk(data, at, size):
    if at == size:
        return True
    if size - at < 8:
        return False
    if data[at : at + 4] == b"MTrk":
        return True
    printable = all(0x20 <= byte <= 0x7E for byte in data[at : at + 4])
    return printable and int.from_bytes(data[at + 4 : at + 8], "big") <= size - at - 8


def find_track(data, start, size):
    found = data.find(b"MTrk", start, size)
    return size if found < 0 else found


class Track:
    def __init__(self, data, begin, end, size, truncated, index, song):
        self.data, self.begin, self.end, self.claimed_end, self.size = data, begin, end, end, size
        self.truncated, self.index, self.song = truncated, index, song
        self.may_extend = not truncated and not could_be_chunk(data, end, size)
        self.at, self.time, self.place, self.hint = begin, 0, 0, 0
        self.running, self.cancelled, self.skipped, self.ended = 0, False, False, False
        self.sounding = defaultdict(list)  # (channel, pitch): indices of notes, oldest first
        self.durations = {}

    def issue(self, kind, offset):
        self.song.issues.append((kind, offset, self.index))

    def read(self):
        while not self.ended:
            event, skipped = self.at, self.skipped
            if not skipped and self.at == self.end:
                if self.extend():
                    continue
                break
            try:
                self.read_event(event)
            except Truncated as cut:
                if self.extend():
                    self.at, self.skipped = event, skipped
                    continue
                kind = cut.args[0]
                if kind == "number" and not self.truncated:
                    raise Broken(cut.args[1], self.index) from None
                if kind == "payload_truncated" or (kind == "event_truncated" and not self.truncated):
                    self.issue(kind, event)
                if kind != "number":
                    self.at = self.end
                break
        else:
            return self.finish()
        if not self.truncated:
            self.issue("no_end_of_track", self.at)
        return self.finish()

    def extend(self):
        """Read on after a length that proved too short: the track ends in the middle of things."""
        if not self.may_extend:
            return False
        self.may_extend = False
        self.issue("past_claimed_length", self.end)
        self.end = find_track(self.data, self.claimed_end, self.size)
        return True

    def finish(self):
        """Close what still sounds, in the order of channels, pitches and starts."""
        for key in sorted(self.sounding):
            for note in self.sounding[key]:
                self.close(note, max(1, self.time - self.song.notes[note][0]), 64)
                self.issue("unended_note", self.at)
        last = max(
            (start + duration for start, duration, *_, track, _, _ in self.song.notes if track == self.index), default=0
        )
        self.song.track_ends.append(max(self.time, last))
        if self.ended and not self.truncated and self.end == self.claimed_end and self.at != self.end:
            self.issue("after_end_of_track", self.at)
            self.at = self.end
        return self.at

    def close(self, note, duration, release_velocity):
        start, _, pitch, velocity, track, channel, _ = self.song.notes[note]
        self.song.notes[note] = (start, duration, pitch, velocity, track, channel, release_velocity)

    def number(self):
        """Seven bits a byte, the high bit set on all but the last, at most four bytes."""
        first, value = self.at, 0
        for _ in range(4):
            if self.at == self.end:
                raise Truncated("number", first)
            byte = self.data[self.at]
            self.at += 1
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value
        raise Broken(first, self.index)

    def need(self, count):
        if self.end - self.at < count:
            raise Truncated("event_truncated")

    def skip_to_status(self):
        while self.at < self.end and self.data[self.at] < 0x80:
            self.at += 1
        self.skipped = self.at < self.end

    def advance(self, delta):
        if delta:
            self.time, self.place = self.time + delta, 0

    def read_event(self, event):
        delta = 0 if self.skipped else self.number()
        self.skipped = False
        self.need(1)
        status = self.data[self.at]
        is_running = status < 0x80
        if is_running and not self.running:
            self.issue("no_running_status", self.at)
            self.skip_to_status()
            return self.advance(delta)
        if is_running:
            status = self.running
        else:
            self.at += 1
        if status < 0xF0:
            return self.read_channel_event(event, delta, status, is_running)
        if status not in (0xF0, 0xF7, 0xFF):
            self.issue("bad_status", self.at - 1)
            self.skip_to_status()
            return self.advance(delta)
        return self.read_payload_event(event, delta, status)

    def read_channel_event(self, event, delta, status, is_running):
        count = 1 if status & 0xE0 == 0xC0 else 2
        self.need(count)
        if is_running and self.cancelled:
            self.issue("cancelled_running_status", self.at)
        data1, data2 = self.data[self.at], self.data[self.at + 1] if count == 2 else 0
        self.advance(delta)
        self.running, self.cancelled = status, False
        if data1 >= 0x80 or data2 >= 0x80:
            self.at += 0 if data1 >= 0x80 else 1
            self.issue("high_data_byte", self.at)
            self.skipped = True
            return
        self.at += count
        kind, channel = status & 0xF0, status & 0x0F
        if kind == 0x90 and data2 > 0:
            self.sounding[channel, data1].append(len(self.song.notes))
            self.song.notes.append((self.time, -1, data1, data2, self.index, channel, 64))
            self.place = 2
        elif kind in (0x80, 0x90):
            self.note_off(event, channel, data1, data2 if kind == 0x80 else 64)
        else:
            self.song.events.append((self.time, self.index, status, data1, data2, self.place, None))

    def note_off(self, event, channel, pitch, release_velocity):
        self.place = max(self.place, 1)
        queue, chosen = self.sounding[channel, pitch], self.hint
        self.hint = 0
        if chosen >= len(queue):
            self.issue("lone_note_off", event)
            return
        note = queue.pop(chosen)
        duration = self.time - self.song.notes[note][0]
        self.close(note, max(duration, 1), release_velocity)
        if duration == 0:
            self.issue("zero_length_note", event)

    def read_payload_event(self, event, delta, status):
        self.need(2 if status == 0xFF else 1)
        kind = 0
        if status == 0xFF:
            kind = self.data[self.at]
            self.at += 1
        length = self.number()
        if length > self.end - self.at:
            raise Truncated("payload_truncated")
        self.advance(delta)
        self.cancelled = self.running != 0
        payload = self.data[self.at : self.at + length]
        self.at += length
        if status == 0xFF and kind == END_OF_TRACK:
            if length:
                self.issue("end_of_track_length", event)
            self.ended = True
        elif (
            status == 0xFF and kind == SEQUENCER and length == 5 and payload[:4] == HINT and 1 <= payload[4] <= MAX_HINT
        ):
            self.hint = payload[4]
        else:
            if status == 0xFF and not valid(kind, payload):
                self.issue(
                    {TEMPO: "tempo", TIME_SIGNATURE: "time_signature", KEY_SIGNATURE: "key_signature"}[kind], event
                )
            self.song.events.append((self.time, self.index, status, kind, 0, self.place, payload))


def valid(kind, payload):
    if kind == TEMPO:
        return len(payload) == 3 and any(payload)
    if kind == TIME_SIGNATURE:
        return len(payload) == 4 and payload[0] > 0 and payload[1] <= 7
    if kind == KEY_SIGNATURE:
        return len(payload) == 2 and (payload[0] <= 7 or payload[0] >= 249) and payload[1] <= 1
    return True


# -- writing ---------------------------------------------------------------------------------------------------------


def variable_length(value):
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(value & 0x7F | 0x80)
    return bytes(reversed(digits))


def write(song: Song) -> bytes:
    tracks = len(song.track_ends)
    extra = b"".join(data for place, _, data in song.chunks if place == IN_HEADER)
    out = b"MThd" + (6 + len(extra)).to_bytes(4, "big")
    out += b"".join(value.to_bytes(2, "big") for value in (song.format, tracks, song.division)) + extra
    for index in range(tracks + 1):
        for before, kind, data in song.chunks:
            if before == index or (index == tracks and before > tracks):
                out += kind + len(data).to_bytes(4, "big") + data
        if index < tracks:
            body = write_track(song, index)
            out += b"MTrk" + len(body).to_bytes(4, "big") + body
    around = {place: [chunk[1:] for chunk in song.chunks if chunk[0] == place] for place in (BEFORE_DATA, AFTER_DATA)}
    if not any(around.values()):
        return out
    form = b"RMID"
    for kind, data in (*around[BEFORE_DATA], (b"data", out), *around[AFTER_DATA]):
        form += kind + len(data).to_bytes(4, "little") + data + bytes(len(data) % 2)
    return b"RIFF" + len(form).to_bytes(4, "little") + form


def write_track(song, index):
    """Offs of a tick before its ons; events where their place says; everything else in the order given."""
    ons = [(start, n) for n, (start, *_, track, _, _) in enumerate(song.notes) if track == index]
    offs = sorted(((song.notes[n][0] + song.notes[n][1], n) for _, n in ons), key=lambda pair: pair[0])
    events = [event for event in song.events if event[1] == index]
    out, now, running = bytearray(), 0, 0
    sounding = defaultdict(list)

    def put(time, status, data):
        nonlocal now, running
        out.extend(variable_length(time - now))
        now = time
        if status >= 0xF0:
            running = 0
            out.append(status)
        elif status != running:
            running = status
            out.append(status)
        out.extend(data)

    while ons or offs or events:
        time = min(queue[0][0] for queue in (ons, offs, events) if queue)
        on, off = bool(ons) and ons[0][0] == time, bool(offs) and offs[0][0] == time
        event = bool(events) and events[0][0] == time
        if event and (events[0][5] == 0 or not off) and (events[0][5] <= 1 or not on):
            _, _, status, data1, data2, _, payload = events.pop(0)
            if payload is None:
                put(time, status, [data1] if status & 0xE0 == 0xC0 else [data1, data2])
            else:
                put(time, status, bytes([data1] * (status == 0xFF)) + variable_length(len(payload)) + payload)
        elif off:
            _, n = offs.pop(0)
            _, _, pitch, _, _, channel, release_velocity = song.notes[n]
            older = sounding[channel, pitch].index(n)
            sounding[channel, pitch].pop(older)
            if older:
                put(time, 0xFF, bytes([SEQUENCER, 5]) + HINT + bytes([older]))
            as_on = release_velocity == 64
            put(time, (0x90 if as_on else 0x80) | channel, [pitch, 0 if as_on else release_velocity])
        else:
            _, n = ons.pop(0)
            _, _, pitch, velocity, _, channel, _ = song.notes[n]
            sounding[channel, pitch].append(n)
            put(time, 0x90 | channel, [pitch, velocity])
    put(max(now, song.track_ends[index]), 0xFF, [END_OF_TRACK, 0])
    return bytes(out)
