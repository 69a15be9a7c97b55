"""The token streams in plain Python: one note after the other, with whole numbers and fractions, to be read beside what
the encodings say of themselves.

An `encode_*` takes a `musicgen_reference.midi.Song` and the options of the encoding's JSON form, and returns tokens and
issues; a `decode_*` takes tokens and options, and returns a `Song`.
"""

from __future__ import annotations

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
