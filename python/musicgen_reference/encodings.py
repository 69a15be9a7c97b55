"""The token streams in plain Python: one note after the other, with whole numbers and fractions, to be read beside what
the encodings say of themselves.

An `encode_*` takes a `musicgen_reference.midi.Song` and the options of the encoding's JSON form, and returns tokens and
issues; a `decode_*` takes tokens and options, and returns a `Song`.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import count
from math import ceil, floor

from musicgen_reference.midi import Song

DRUM_CHANNEL = 9
RELEASE = 64


def chosen(song, drums, tracks):
    """Notes that are encoded, and what was left out."""
    if song.format == 2 and len({note[4] for note in song.notes}) > 1:
        raise ValueError("several pieces")
    here = [note for note in song.notes if tracks is None or note[4] in tracks]
    kept = [note for note in here if drums or note[5] != DRUM_CHANNEL]
    issues = said(len(song.notes) - len(here), "of other tracks {were} left out")
    return kept, issues + said(len(here) - len(kept), "of the drum channel {were} left out")


def said(count, what):
    text = f"{count} note {what.replace('{were}', 'was')}" if count == 1 else f"{count} notes {what}"
    return [text.replace("{were}", "were")] if count else []


def between_ends(tokens, end):
    """Leading ends are skipped, the next one ends the piece."""
    begin = 0
    while begin < len(tokens) and tokens[begin] == end:
        begin += 1
    tokens = tokens[begin:]
    return tokens[: tokens.index(end)] if end in tokens else tokens


# -- pitches -----------------------------------------------------------------------------------------------------------


def encode_pitches(song, *, lowest, highest, polyphony, drums, tracks, duration, velocity, end):
    notes, issues = chosen(song, drums, tracks)
    inside = sorted((note[0], note[2]) for note in notes if lowest <= note[2] <= highest)
    issues += said(len(notes) - len(inside), f"outside the pitches {lowest} to {highest} {{were}} left out")
    kept = inside
    if polyphony != "all":
        best = {}
        for start, pitch in inside:
            best[start] = (max if polyphony == "highest" else min)(best.get(start, pitch), pitch)
        kept = sorted(best.items())
        which = "higher" if polyphony == "highest" else "lower"
        issues += said(len(inside) - len(kept), f"{{were}} left out: a {which} one begins with them")
    return [pitch - lowest for _, pitch in kept] + [highest - lowest + 1] * end, issues


def decode_pitches(tokens, *, lowest, highest, polyphony, drums, tracks, duration, velocity, end):
    pitches = [token + lowest for token in between_ends(tokens, highest - lowest + 1)]
    notes = [(i * duration, duration, pitch, velocity, 0, 0, RELEASE) for i, pitch in enumerate(pitches)]
    return Song(format=1, division=480, notes=notes, track_ends=[len(notes) * duration])


# -- events ------------------------------------------------------------------------------------------------------------

MAX_STEPS = 2**27
NOTE_OFF, FIRST_SHIFT = 128, 256


def metas(song, kind, size):
    """(time, payload) of all meta events of a kind, in order of time, then track; a wrong size does not count."""
    rows = [(event[0], event[6]) for event in song.events if event[2] == 0xFF and event[3] == kind]
    return sorted((row for row in rows if len(row[1]) == size), key=lambda row: row[0])


def tempos(song):
    """(time, microseconds per quarter note), the last of each tick, beginning at tick 0."""
    found = {0: 500_000}
    for time, payload in metas(song, 0x51, 3):
        if any(payload):
            found[time] = int.from_bytes(payload, "big")
    return list(found.items())


def smpte_rate(song):
    """Ticks of a second."""
    frames, ticks = 256 - (song.division >> 8), song.division & 0xFF
    return Fraction(30_000 * ticks, 1001) if frames == 29 else Fraction(frames * ticks)


def seconds(song, tick):
    if song.division & 0x8000:
        return tick / smpte_rate(song)
    total, changes = Fraction(0), tempos(song)
    for (begin, tempo), (end, _) in zip(changes, [*changes[1:], (None, 0)], strict=True):
        if tick > begin:
            until = tick if end is None else min(tick, end)
            total += Fraction((until - begin) * tempo, 1_000_000 * song.division)
    return total


def beats(song, tick):
    """Quarter notes; SMPTE time has none, and two of them are taken to be a second."""
    return 2 * tick / smpte_rate(song) if song.division & 0x8000 else Fraction(tick, song.division)


def nearest(steps):
    """The nearest whole number, halves up."""
    if steps > MAX_STEPS:
        raise ValueError("too long")
    return floor(steps + Fraction(1, 2))


def bin_of_velocity(velocity, bins):
    return (velocity - 1) // ceil(127 / bins) + 1


def velocity_of_bin(number, bins):
    return min(1 + (number - 1) * ceil(127 / bins), 127)


def ruling(song, note, status, data1=None):
    """The events of a kind that rule a note, in order of time: its part's own, else those of its channel."""
    _, _, _, _, track, channel, _ = note
    of_channel = [e for e in song.events if e[2] == status | channel and data1 in (None, e[3])]
    own = [event for event in of_channel if event[1] == track]
    return sorted(own or of_channel, key=lambda event: event[0])


def pedalled_end(song, index):
    """A note that ends while its pedal is down sounds until it is up, or struck again."""
    note = song.notes[index]
    end = note[0] + note[1]
    pedal = ruling(song, note, 0xB0, 64)
    before = [event for event in pedal if event[0] <= end]
    if not before or before[-1][4] < 64:
        return end
    last = max([other[0] + other[1] for other in song.notes] + [event[0] for event in song.events])
    ups = [event[0] for event in pedal[len(before) :] if event[4] < 64]
    again = [other[0] for other in song.notes[index + 1 :] if (other[2], *other[4:6]) == (note[2], *note[4:6])]
    return max(end, min([*ups[:1], *again[:1], last]))


def encode_performance(
    song, *, steps_per_second, steps_per_beat, max_shift, velocity_bins, drums, tracks, sustain, velocity, end
):
    notes, issues = chosen(song, drums, tracks)
    events, of_pitch, moved, shorter = [], {}, 0, 0
    index_of = {id(note): index for index, note in enumerate(song.notes)}
    for note in notes:
        times = (note[0], pedalled_end(song, index_of[id(note)]) if sustain else note[0] + note[1])
        if steps_per_beat is None:
            exact = [seconds(song, time) * steps_per_second for time in times]
        else:
            exact = [beats(song, time) * steps_per_beat for time in times]
        first, last = map(nearest, exact)
        moved += [first, last] != exact
        shorter += last <= first
        last = max(last, first + 1)
        events.append((first, 1, note[2], bin_of_velocity(note[3], velocity_bins) if velocity_bins else 0, last))
        events.append((last, 0, note[2], 0, last))
    issues += said(moved, "{were} moved to the nearest step") + said(
        shorter, "shorter than a step {were} made one long"
    )

    tokens, now, loudness, exchanged = [], 0, 0, 0
    for step, is_on, pitch, its_bin, its_end in sorted(events, key=lambda event: event[:3]):
        while step > now:
            shift = min(step - now, max_shift)
            tokens.append(FIRST_SHIFT - 1 + shift)
            now += shift
        if not is_on:
            tokens.append(NOTE_OFF + pitch)
            continue
        if its_bin != loudness:
            tokens.append(FIRST_SHIFT + max_shift - 1 + its_bin)
            loudness = its_bin
        tokens.append(pitch)
        exchanged += its_end < of_pitch.get(pitch, 0)
        of_pitch[pitch] = max(its_end, of_pitch.get(pitch, 0))
    issues += said(exchanged, "that ended before an older one of their pitch {were} given its end")
    return tokens + [FIRST_SHIFT + max_shift + velocity_bins] * end, issues


def decode_performance(
    tokens, *, steps_per_second, steps_per_beat, max_shift, velocity_bins, drums, tracks, sustain, velocity, end
):
    if steps_per_beat is None:  # two quarter notes a second
        ticks = next(t for t in count(1) if t * steps_per_second >= 960 and t * steps_per_second % 2 == 0)
        division = ticks * steps_per_second // 2
    else:
        ticks = next(t for t in count(1) if t * steps_per_beat >= 480)
        division = ticks * steps_per_beat
    first_velocity = FIRST_SHIFT + max_shift
    notes, sounding, now = [], [], 0

    def finish(note):
        note[1] = max(now * ticks - note[0], ticks)

    for token in between_ends(tokens, first_velocity + velocity_bins):
        if token < NOTE_OFF:
            notes.append([now * ticks, None, token, velocity, 0, 0, RELEASE])
            sounding.append(notes[-1])
        elif token < FIRST_SHIFT:
            oldest = [note for note in sounding if note[2] == token - NOTE_OFF][:1]
            for note in oldest:
                finish(note)
                sounding = [other for other in sounding if other is not note]
        elif token < first_velocity:
            now += token - FIRST_SHIFT + 1
        else:
            velocity = velocity_of_bin(token - first_velocity + 1, velocity_bins)
    for note in sounding:
        finish(note)
    events = [] if steps_per_beat is not None else [tempo_event(0, 500_000)]
    last = max((note[0] + note[1] for note in notes), default=0)
    return Song(1, division, [tuple(note) for note in notes], events, [last])


def tempo_event(time, microseconds):
    return (time, 0, 0xFF, 0x51, 0, 1, microseconds.to_bytes(3, "big"))
