"""Voices on a grid of sixteenths in plain Python: any score to a grid, a grid to tokens, and back.

A voice is (names, low, high): what a track may be called, in lower case, and where it usually lies. Notes are tuples
(start, duration, pitch, track, channel) in ticks. A grid is a list of frames of one (pitch or -1, onset) for every
voice, high voice first.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise, permutations

REST = -1
NO_FLAG, FERMATA, END = 0, 1, 2
STEPS_PER_QUARTER = 4
MAX_STEPS = 1 << 16
DRUM_CHANNEL = 9


class Refused(Exception):
    """There is no grid: why, and at which tick (or None)."""


def slot_order(num_voices):
    return [0, *[num_voices - 1][: num_voices - 1], *range(1, num_voices - 1)]


# -- scores to grids -----------------------------------------------------------------------------------------------


class Note:
    def __init__(self, start, duration, pitch, part, ticks_per_quarter):
        exact = Fraction(start * STEPS_PER_QUARTER, ticks_per_quarter)
        self.tick, self.pitch, self.part = start, pitch, part
        self.start = nearest(exact)
        end = nearest(Fraction((start + duration) * STEPS_PER_QUARTER, ticks_per_quarter))
        self.end = max(end, self.start + 1)
        self.off = abs(self.start - exact)
        self.stretched = end <= self.start


def nearest(number):
    return (2 * number + 1) // 2  # halves up


def find_voices(notes, track_names, voices, ticks_per_quarter, fermatas=(), melody=False):
    """(frames, fermata by frame, first step, issues)."""
    issues = []
    parts = parts_of([n for n in notes if n[4] != DRUM_CHANNEL], ticks_per_quarter, issues)
    if not parts:
        raise Refused("got none", None)
    found = highest(parts, track_names, voices, issues) if melody else all_voices(parts, track_names, voices, issues)
    return fill(found, fermatas, ticks_per_quarter, issues)


def parts_of(notes, ticks_per_quarter, issues):
    parts, doubled = {}, 0
    made = [Note(start, duration, pitch, (track, channel), ticks_per_quarter)
            for start, duration, pitch, track, channel in notes]  # fmt: skip
    for note in sorted(made, key=lambda n: (n.part, n.start, -n.pitch, -n.end)):
        part = parts.setdefault(note.part, [])
        if part and (part[-1].start, part[-1].pitch) == (note.start, note.pitch):
            doubled += 1
        else:
            part.append(note)
    if doubled:
        issues.append(f"{doubled} notes that another one doubles were left out")
    return list(parts.values())


def named(parts, track_names, voices):
    """Index of the part of every voice, or None."""
    claims = [[] for _ in voices]
    for index, part in enumerate(parts):
        words = track_names.get(part[0].part[0], "").lower().split()
        fits = [(len(name.split()), -v) for v, (names, _, _) in enumerate(voices) for name in names
                if words[: len(name.split())] == name.split()]  # fmt: skip
        if fits:
            claims[-max(fits)[1]].append(index)
    return [claim[0] if len(claim) == 1 else None for claim in claims]


def as_melody(part):
    """The part with what overlaps by no more than a sixteenth cut, and the number of cuts; None if it is no melody."""
    if any(b.start == a.start or a.end - b.start > 1 for a, b in pairwise(part)):
        return None
    cuts = 0
    for a, b in pairwise(part):
        if a.end > b.start:
            a.end = b.start
            cuts += 1
    return cuts


def mean_pitch(part):
    return Fraction(sum(n.pitch * (n.end - n.start) for n in part), sum(n.end - n.start for n in part))


def all_voices(parts, track_names, voices, issues):
    by_name = named(parts, track_names, voices)
    chosen = parts if len(parts) == len(voices) else []
    if None not in by_name:
        chosen = [parts[i] for i in by_name]
    before = {id(note): note.end for part in parts for note in part}
    cuts = [as_melody(part) for part in chosen]
    if not chosen or None in cuts:
        for part in parts:
            for note in part:
                note.end = before[id(note)]
        return shared(parts, voices)
    if None not in by_name:
        if len(parts) > len(voices):
            issues.append(
                f"{len(parts) - len(voices)} of {len(parts)} parts were left out: they are not voices by name"
            )
    else:
        chosen = sorted(chosen, key=mean_pitch, reverse=True)
    say_cuts(sum(cuts), issues)
    return chosen


def highest(parts, track_names, voices, issues):
    first = named(parts, track_names, voices)[0]
    part = max(parts, key=mean_pitch) if first is None else parts[first]
    cuts = as_melody(part)
    if cuts is None:
        return [next(voice for voice in shared(parts, voices) if voice)]
    say_cuts(cuts, issues)
    return [part]


def say_cuts(cuts, issues):
    if cuts:
        issues.append(f"{cuts} notes were cut where the next one of their voice begins")


def shared(parts, voices):
    """All notes, chord by chord: of all ways to give its notes to free voices, the first of those that cost least."""
    notes = sorted((note for part in parts for note in part), key=lambda n: (n.start, -n.pitch))
    given = [[] for _ in voices]
    last = [Fraction(low + high, 2) for _, low, high in voices]
    at = 0
    while at < len(notes):
        now = notes[at].start
        chord = [n for n in notes[at:] if n.start == now]
        held = [v for v in range(len(voices)) if given[v] and given[v][-1].end > now]
        free = [v for v in range(len(voices)) if v not in held]
        if len(chord) > len(free):
            raise Refused(f"expected at most {len(voices)} notes at once, got {len(chord) + len(held)}", chord[0].tick)
        best = min(permutations(free, len(chord)), key=lambda way: cost(way, chord, held, given, last, voices, now))
        for v, note in zip(best, chord, strict=True):
            given[v].append(note)
            last[v] = note.pitch
        at += len(chord)
    return given


def cost(way, chord, held, given, last, voices, now):
    total = 0
    placed = [(v, given[v][-1].pitch) for v in held]
    for v, note in zip(way, chord, strict=True):
        _, low, high = voices[v]
        total += abs(note.pitch - last[v]) + 12 * max(0, low - note.pitch, note.pitch - high)
        total += 5 * ((given[v][-1].end if given[v] else 0) != now)
        total += sum(1000 for w, pitch in placed if (pitch - note.pitch) * (v - w) < 0)
        placed.append((v, note.pitch))
    return total


def fill(found, fermatas, ticks_per_quarter, issues):
    used = [note for voice in found for note in voice]
    moved = sum(note.off > 0 for note in used)
    if moved:
        hundredths = nearest(100 * max(note.off for note in used))
        issues.append(
            f"{moved} of {len(used)} notes do not begin on a sixteenth and were moved there, "
            f"by at most 0.{hundredths:02} of one"
        )
    stretched = sum(note.stretched for note in used)
    if stretched:
        issues.append(f"{stretched} of {len(used)} notes are shorter than a sixteenth and were made one long")
    begin, end = min(n.start for n in used), max(n.end for n in used)
    if end - begin > MAX_STEPS:
        raise Refused(f"expected at most {MAX_STEPS} sixteenths, got {end - begin}", None)
    frames = [[(REST, False)] * len(found) for _ in range(end - begin)]
    for v, voice in enumerate(found):
        for note in voice:
            for step in range(note.start, note.end):
                frames[step - begin][v] = (note.pitch, step == note.start)
    marks = {nearest(Fraction(tick * STEPS_PER_QUARTER, ticks_per_quarter)) - begin for tick in fermatas}
    return frames, [step in marks for step in range(end - begin)], begin, issues


# -- grids and tokens ----------------------------------------------------------------------------------------------


def grid_to_tokens(frames, fermata, *, hold, lowest_pitch, end=True):
    rows = []
    for i, frame in enumerate(frames):
        row = [FERMATA if fermata[i] else NO_FLAG] if hold else []
        for v in slot_order(len(frame)):
            pitch, onset = frame[v]
            begins = i == 0 or pitch != frames[i - 1][v][0] or (onset and pitch != REST)
            if not hold:
                row.append(0 if pitch == REST else pitch - lowest_pitch + 1)
            elif begins:
                row.append(1 if pitch == REST else pitch - lowest_pitch + 2)
            else:
                row.append(0)
        rows.append(row)
    if hold and end:
        rows.append([END] + [0] * len(rows[0][1:]))
    return rows


def tokens_to_grid(rows, *, hold, lowest_pitch):
    """(frames, fermata by frame)."""
    frames, fermata = [], []
    for row in rows:
        if hold and row[0] == END:
            break
        fermata.append(hold and row[0] == FERMATA)
        slots = row[1:] if hold else row
        frame = [None] * len(slots)
        for v, token in zip(slot_order(len(slots)), slots, strict=True):
            before = frames[-1][v][0] if frames else REST
            if hold and token == 0:
                frame[v] = (before, False)
            else:
                rest = token == (1 if hold else 0)
                pitch = REST if rest else token - (2 if hold else 1) + lowest_pitch
                frame[v] = (pitch, not rest and (hold or pitch != before))
        frames.append(frame)
    return frames, fermata


def notes_of(frames):
    """(voice, first frame, end, pitch) by voice and time."""
    for v in range(len(frames[0]) if frames else 0):
        for i, frame in enumerate(frames):
            pitch, onset = frame[v]
            if onset:
                end = i + 1
                while end < len(frames) and frames[end][v] == (pitch, False):
                    end += 1
                yield v, i, end, pitch
