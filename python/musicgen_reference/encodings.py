"""The token streams in plain Python: one note after the other, with whole numbers and fractions, to be read beside what
the encodings say of themselves.

An `encode_*` takes a `musicgen_reference.midi.Song` and the options of the encoding's JSON form, and returns tokens and
issues; a `decode_*` takes tokens and options, and returns a `Song`.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import count
from math import ceil, cos, exp, floor, pi, sin

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


def said(count, what, thing="note"):
    things, were = (thing, "was") if count == 1 else (thing + "s", "were")
    return [f"{count} {things} {what}".replace("{were}", were)] if count else []


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
    track = tracks[0] if tracks else 0
    notes = [(i * duration, duration, pitch, velocity, track, 0, RELEASE) for i, pitch in enumerate(pitches)]
    return Song(format=1, division=480, notes=notes, track_ends=[0] * track + [len(notes) * duration])


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
    notes, sounding, now, track = [], [], 0, tracks[0] if tracks else 0

    def finish(note):
        note[1] = max(now * ticks - note[0], ticks)

    for token in between_ends(tokens, first_velocity + velocity_bins):
        if token < NOTE_OFF:
            notes.append([now * ticks, None, token, velocity, track, 0, RELEASE])
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
    return Song(1, division, [tuple(note) for note in notes], events, [0] * track + [last])


def tempo_event(time, microseconds):
    return (time, 0, 0xFF, 0x51, 0, 1, microseconds.to_bytes(3, "big"))


# -- bars --------------------------------------------------------------------------------------------------------------

QUALITIES = {
    "maj": (0, 4, 7), "min": (0, 3, 7), "dim": (0, 3, 6), "aug": (0, 4, 8), "7": (0, 4, 7, 10), "maj7": (0, 4, 7, 11),
    "min7": (0, 3, 7, 10), "hdim7": (0, 3, 6, 10), "dim7": (0, 3, 6, 9),
}  # fmt: skip
DRUMS = 128


class BarVocabulary:
    """First ids and lists of values."""

    def __init__(self, options):
        steps = options["steps_per_beat"]
        self.signatures = [tuple(map(int, text.split("/"))) for text in options["time_signatures"]]
        self.lengths = [4 * n * steps // d for n, d in self.signatures]
        self.common = self.signatures.index((4, 4))
        bins, low, high = options["tempo_bins"], options["lowest_tempo"], options["highest_tempo"]
        self.tempos = [round(6e7 / (low * (high / low) ** (i / max(bins - 1, 1)))) for i in range(bins)]
        self.durations = [
            d
            for d in range(1, options["max_duration"] * steps + 1)
            if options["even_durations"] or d % self.stride(d, steps) == 0
        ]
        sizes = [
            1, len(self.signatures), max(self.lengths), bins, 12 * len(QUALITIES) * options["chords"],
            129 * options["programs"], 128, 128 * options["drums"], options["velocity_bins"], len(self.durations),
        ]  # fmt: skip
        first = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
        self.signature, self.position, self.tempo, self.chord, self.program = first[1:6]
        self.pitch, self.drum_pitch, self.velocity, self.duration, self.end = first[6:]

    @staticmethod
    def stride(duration, steps):
        """1 up to two quarter notes, 2 up to four, 4 up to eight …"""
        stride = 1
        while duration > 2 * steps * stride:
            stride *= 2
        return stride

    def nearest_tempo(self, microseconds):
        """The nearest in equal ratios, the faster of two."""
        far = [max(Fraction(microseconds, tempo), Fraction(tempo, microseconds)) for tempo in self.tempos]
        return max(i for i, ratio in enumerate(far) if ratio == min(far))

    def nearest_duration(self, steps):
        far = [abs(duration - steps) for duration in self.durations]
        return max(i for i, distance in enumerate(far) if distance == min(far))


def chord_in(notes, begin, end):
    """The index of the chord that sounds in [begin, end), or None; notes are (start, end, pitch)."""
    sounding = [note for note in notes if note[0] < end and note[1] > begin]
    weights = [0] * 12
    for start, stop, pitch in sounding:
        weights[pitch % 12] += min(stop, end) - max(start, begin)
    found = []
    for root in range(12):
        for quality, tones in enumerate(QUALITIES.values()):
            inside = [weights[(root + tone) % 12] for tone in tones]
            if all(inside):
                on_lowest = root == min(note[2] for note in sounding) % 12
                found.append((-sum(inside), not on_lowest, root * len(QUALITIES) + quality))
    return min(found)[2] if found else None


def marks_of(song, rows, last, at_first, thing, otherwise, steps_per_beat):
    """(step, index), one for a step, from (time, index, whether that is exact)."""
    marks, given, moved, other, replaced, late = {0: at_first}, set(), 0, 0, 0, 0
    for time, index, exact in rows:
        at = beats(song, time) * steps_per_beat
        if at > MAX_STEPS or nearest(at) > last:
            late += 1
            continue
        step = nearest(at)
        moved += step != at
        other += not exact
        replaced += step in given and marks[step] != index
        marks[step] = index
        given.add(step)
    issues = said(moved, "{were} moved to the nearest step", thing) + said(other, otherwise, thing)
    issues += said(replaced, "{were} left out: another one is at the same step", thing)
    return list(marks.items()), issues + said(late, "after the last note {were} left out", thing)


def bar_notes(song, words, options):
    """{(step, program, pitch): (duration index, velocity bin)}, and issues."""
    kept, issues = chosen(song, options["drums"], None)
    notes, moved, shorter, cut, other = {}, 0, 0, 0, 0
    for note in kept:
        exact = [beats(song, time) * options["steps_per_beat"] for time in (note[0], note[0] + note[1])]
        start, end = map(nearest, exact)
        moved += [start, end] != exact
        shorter += end <= start
        cut += end - start > words.durations[-1]
        steps = min(max(end - start, 1), words.durations[-1])
        duration = words.nearest_duration(steps)
        other += words.durations[duration] != steps
        program = 0
        if note[5] == DRUM_CHANNEL:
            program = DRUMS
        elif options["programs"]:
            program = ([0] + [event[3] for event in ruling(song, note, 0xC0) if event[0] <= note[0]])[-1]
        velocity = bin_of_velocity(note[3], options["velocity_bins"]) if options["velocity_bins"] else 0
        key = (start, program, note[2])
        notes[key] = max(notes.get(key, (0, 0)), (duration, velocity))
    issues += said(moved, "{were} moved to the nearest step")
    issues += said(shorter, "shorter than a step {were} made one long")
    issues += said(cut, f"longer than {words.durations[-1]} steps {{were}} cut")
    issues += said(other, "{were} given the nearest duration of the vocabulary")
    return notes, issues + said(
        len(kept) - len(notes), "{were} left out: one of their program and pitch begins with them"
    )


def encode_bars(song, **options):
    words, steps_per_beat = BarVocabulary(options), options["steps_per_beat"]
    notes, issues = bar_notes(song, words, options)
    last = max((step for step, _, _ in notes), default=-1)

    tempos = []
    if words.tempos:
        rows = [(time, int.from_bytes(payload, "big")) for time, payload in metas(song, 0x51, 3) if any(payload)]
        if song.division & 0x8000:
            rows = []
        indexed = [(t, words.nearest_tempo(us), us == words.tempos[words.nearest_tempo(us)]) for t, us in rows]
        tempos, more = marks_of(
            song, indexed, last, words.nearest_tempo(500_000), "tempo",
            "{were} given the nearest value of the vocabulary", steps_per_beat,
        )  # fmt: skip
        issues += more
    signatures, more = marks_of(
        song,
        [
            (time, words.signatures.index(pair) if pair in words.signatures else words.common, pair in words.signatures)
            for time, payload in metas(song, 0x58, 4)
            if payload[0] and payload[1] <= 7
            for pair in [(payload[0], 2 ** payload[1])]
        ],
        last, words.common, "time signature", "outside the vocabulary {were} written as 4/4", steps_per_beat,
    )  # fmt: skip
    issues += more
    if not notes:
        return [words.end] * options["end"], issues

    # Bars: (begin, end, signature), a new signature begins one in any case.
    bars, begin = [], 0
    while begin <= last:
        signature = [index for step, index in signatures if step <= begin][-1]
        end = begin + words.lengths[signature]
        nexts = [step for step, _ in signatures if begin < step <= end]
        bars.append((begin, min([end, *nexts]), signature))
        begin = bars[-1][1]

    happens = {}  # step: tokens
    tempo = None
    for step, index in tempos:
        if index != tempo:
            happens.setdefault(step, []).append(words.tempo + index)
            tempo = index
    if options["chords"]:
        melodic = [(s, s + words.durations[d], pitch) for (s, p, pitch), (d, _) in notes.items() if p != DRUMS]
        chord = None
        for begin, end, _ in bars:
            for beat in range(begin, min(end, last + 1), steps_per_beat):
                found = chord_in(melodic, beat, min(beat + steps_per_beat, end))
                if found not in (None, chord):
                    happens.setdefault(beat, []).append(words.chord + found)
                    chord = found
    before = None
    for (step, program, pitch), (duration, velocity) in sorted(notes.items()):
        tokens = happens.setdefault(step, [])
        if options["programs"] and before != (step, program):
            tokens.append(words.program + program)
        before = (step, program)
        tokens.append((words.drum_pitch if program == DRUMS else words.pitch) + pitch)
        if options["velocity_bins"]:
            tokens.append(words.velocity + velocity - 1)
        tokens.append(words.duration + duration)

    tokens, written = [], None
    for i, (begin, end, signature) in enumerate(bars):
        tokens.append(0)
        if signature != written:
            tokens.append(words.signature + signature)
            written = signature
        for step in range(begin, end):
            if step in happens:
                tokens += [words.position + step - begin, *happens[step]]
        if end - begin < words.lengths[signature] and i + 1 < len(bars):
            tokens.append(words.position + end - begin)
    return tokens + [words.end] * options["end"], issues


def decode_bars(tokens, **options):
    words, steps_per_beat = BarVocabulary(options), options["steps_per_beat"]
    ticks = ceil(480 / steps_per_beat)
    plain = [i for i, d in enumerate(words.durations) if d >= steps_per_beat][:1] or [len(words.durations) - 1]
    notes, tempos, signatures = [], [], {}
    begin, now, signature, program, started, before = 0, 0, words.common, 0, False, None
    for token in between_ends(tokens, words.end):
        if token == 0:
            if started:
                cut = before is not None and words.position < before < words.tempo
                begin = now if cut else begin + words.lengths[signature]
                if cut:
                    signatures[begin] = signature
            now, started = begin, True
        elif token < words.position:
            signature = signatures[begin] = token - words.signature
        elif token < words.tempo:
            now = begin + token - words.position
        elif token < words.chord:
            tempos.append((now, words.tempos[token - words.tempo]))
        elif token < words.program:
            pass
        elif token < words.pitch:
            program = program if token - words.program == DRUMS else token - words.program
        elif token < words.velocity:
            drum = token >= words.drum_pitch
            pitch = token - (words.drum_pitch if drum else words.pitch)
            notes.append([DRUMS if drum else program, now, pitch, options["velocity"], words.durations[plain[0]]])
        elif notes and token < words.duration:
            notes[-1][3] = velocity_of_bin(token - words.velocity + 1, options["velocity_bins"])
        elif notes:
            notes[-1][4] = words.durations[token - words.duration]
        before = token

    programs = sorted({note[0] for note in notes})
    channels = [9 if p == DRUMS else [*range(9), *range(10, 16)][i % 15] for i, p in enumerate(programs)]
    rows, ends = [], [0] * max(1, len(programs))
    for its_program, start, pitch, velocity, duration in sorted(notes, key=lambda note: note[:2]):
        track = programs.index(its_program)
        rows.append((start * ticks, duration * ticks, pitch, velocity, track, channels[track], RELEASE))
        ends[track] = max(ends[track], (start + duration) * ticks)
    events = [
        (0, i, 0xC0 | channels[i], p, 0, 1, None) for i, p in enumerate(programs) if p != DRUMS and options["programs"]
    ]
    events += [tempo_event(step * ticks, microseconds) for step, microseconds in tempos]
    for step, index in signatures.items():
        numerator, denominator = words.signatures[index]
        payload = bytes([numerator, denominator.bit_length() - 1, 24, 8])
        events.append((step * ticks, 0, 0xFF, 0x58, 0, 1, payload))
    return Song(1, ticks * steps_per_beat, rows, sorted(events, key=lambda event: (event[1], event[0])), ends)


# -- notes to sound ------------------------------------------------------------------------------------------------


def sound_frames(notes, num_frames, *, sample_rate, hop_length, low, high):
    """What a WaveNet is told of one line of notes (start, end, pitch, velocity): a list of numbers for every frame.

    The last two are sine and cosine of the fundamental's phase.
    """
    rows = []
    for frame in range(num_frames):
        now = (frame + 0.5) * hop_length / sample_rate
        sounding = [note for note in notes if note[0] <= now < note[1]]
        ended = [note[1] for note in notes if note[1] <= now]
        one_hot = [1.0 if sounding and sounding[0][2] == pitch else 0.0 for pitch in range(low, high + 1)]
        if sounding:
            start, end, _, velocity = sounding[0]
            angle = 2 * pi * 440 * 2 ** ((sounding[0][2] - 69) / 12) * (now - start)
            rest = [exp(-(now - start) / 0.05), exp(-(end - now) / 0.05), 0.0, velocity / 127, sin(angle), cos(angle)]
        else:
            rest = [0.0, 0.0, exp(-(now - max(ended)) / 0.05) if ended else 0.0, 0.0, 0.0, 0.0]
        rows.append(one_hot + rest)
    return rows
