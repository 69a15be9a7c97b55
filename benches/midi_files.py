"""MIDI files for the benches, the same bytes everywhere: chorales, piano performances, long pieces, a folder of many.

    python benches/midi_files.py FOLDER [--corpus 2000]

Only numpy is needed. No note overlaps another of its pitch and channel, so that readers that pair notes by different
rules still agree on what they read.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

CHORALES, PERFORMANCES, LONG = 100, 80, 20
LONG_NOTES = (100_000, 10_000, 25_000, 45_000, 60_000)  # in turn
NOTE_OFF, NOTE_ON, CONTROL, PROGRAM, META = 0x80, 0x90, 0xB0, 0xC0, 0xFF
TRACK_NAME, END_OF_TRACK, TEMPO, TIME_SIGNATURE, KEY_SIGNATURE = 0x03, 0x2F, 0x51, 0x58, 0x59
PEDAL = 64


def chunk(kind: bytes, data: bytes) -> bytes:
    return kind + len(data).to_bytes(4, "big") + data


def song(format: int, division: int, tracks: list[bytes]) -> bytes:
    fields = (format, len(tracks), division)
    return chunk(b"MThd", b"".join(value.to_bytes(2, "big") for value in fields)) + b"".join(tracks)


def meta(kind: int, data: bytes) -> bytes:
    return bytes([META, kind, len(data)]) + data


def tempo(bpm: float) -> bytes:
    return meta(TEMPO, round(60e6 / bpm).to_bytes(3, "big"))


def channel_events(times, status, data1, data2):
    """Rows for `track`: time, then up to three bytes."""
    columns = np.broadcast_arrays(times, status, data1, data2)
    return np.stack(columns, axis=1).astype(np.int64)


def track(*tables, opening: bytes = b"", metas=(), running_status: bool) -> bytes:
    """One track chunk of tables of channel events (of equal times, those of earlier tables come first) and (time, meta
    event of six bytes) pairs; `opening` comes before all of them, complete with its deltas."""
    size = sum(map(len, tables)) + len(metas)
    rows, lengths = np.zeros((size, 6), np.uint8), np.full(size, 3)
    at, times = len(metas), np.zeros(size, np.int64)
    for i, (time, event) in enumerate(metas):
        times[i], rows[i], lengths[i] = time, np.frombuffer(event, np.uint8), len(event)
    for table in tables:
        times[at : at + len(table)], rows[at : at + len(table), :3] = table[:, 0], table[:, 1:]
        at += len(table)
    order = np.argsort(times, kind="stable")
    times, rows, lengths = times[order], rows[order], lengths[order]
    lengths[rows[:, 0] & 0xE0 == PROGRAM] = 2
    deltas = np.diff(times, prepend=0)
    digits = np.stack([deltas >> 21 & 127 | 128, deltas >> 14 & 127 | 128, deltas >> 7 & 127 | 128, deltas & 127], 1)
    keep_digits = np.stack([deltas >= 1 << 21, deltas >= 1 << 14, deltas >= 1 << 7, deltas >= 0], 1)
    keep = np.arange(6) < lengths[:, None]
    if running_status:
        keep[1:, 0] &= (rows[1:, 0] != rows[:-1, 0]) | (rows[1:, 0] == META)
    body = np.hstack([digits.astype(np.uint8), rows])[np.hstack([keep_digits, keep])]
    return chunk(b"MTrk", opening + body.tobytes() + b"\x01" + meta(END_OF_TRACK, b""))


def chords(rng, count: int, gap: float, spread: int, length: float):
    """`count` notes (start, end, pitch, velocity) in chords of one to four: a random walk over the keyboard."""
    sizes = rng.integers(1, 5, count)
    firsts = np.cumsum(sizes) - sizes
    chord = np.repeat(np.arange(count), sizes)[:count]
    onsets = np.cumsum(spread + 1 + rng.exponential(gap, count).astype(np.int64)) - spread - 1
    start = onsets[chord] + rng.integers(0, spread + 1, count)
    walk = np.cumsum(rng.integers(-4, 5, count))
    base = 36 + np.abs((walk + 48) % 96 - 48)  # 36 to 84, turning round at both ends
    pitch = base[chord] + np.array([0, 4, 7, 12])[np.arange(count) - firsts[chord]]
    end = start + 1 + rng.exponential(length, count).astype(np.int64)
    order = np.lexsort((start, pitch))
    same = pitch[order][1:] == pitch[order][:-1]
    end[order[:-1][same]] = np.minimum(end[order[:-1]], start[order[1:]])[same]  # ended before it is struck again
    return start, end, pitch, rng.integers(20, 110, count)


def chorale(index: int) -> bytes:
    """Four voices of some 80 notes on four tracks, as a notation program writes them: exact durations, many ticks a
    beat, note-off events, no running status; about 3.5 KB."""
    rng = np.random.default_rng((1, index))
    beat, tracks = 10_080, []
    length = int(rng.integers(60, 101))
    for voice, (name, low) in enumerate((("Soprano", 60), ("Alto", 55), ("Tenor", 48), ("Bass", 41))):
        duration = rng.choice([beat // 2, beat, beat, 2 * beat], length)
        end = np.cumsum(duration)
        pitch = low + np.abs((np.cumsum(rng.integers(-2, 3, length)) + 19) % 38 - 19)
        opening = [meta(TRACK_NAME, name.encode()), bytes([PROGRAM | voice, 52])]
        if voice == 0:
            key = bytes([int(rng.integers(0, 5)), 0])
            opening += [tempo(96), meta(KEY_SIGNATURE, key), meta(TIME_SIGNATURE, bytes([4, 2, 24, 8]))]
        off = channel_events(end, NOTE_OFF | voice, pitch, 0)
        on = channel_events(end - duration, NOTE_ON | voice, pitch, 90)
        tracks.append(track(off, on, opening=b"".join(b"\0" + e for e in opening), running_status=False))
    return song(1, beat, tracks)


def performance(index: int, notes: int | None = None) -> bytes:
    """A piano as a player plays it: no two notes quite together, pedal, and a tempo that changes; some 4000 notes.

    Every second file has running status (and with it note-ons of velocity 0 for note-offs), the others have note-off
    events with release velocities.
    """
    rng = np.random.default_rng((2, index))
    running = index % 2 == 0
    count = int(rng.integers(2000, 6400)) if notes is None else notes
    start, end, pitch, velocity = chords(rng, count, gap=80, spread=9, length=180)
    last = int(end.max())
    pedal = np.arange(200, last, 700) + rng.integers(0, 300, len(range(200, last, 700)))
    controls = channel_events(np.sort(pedal), CONTROL, PEDAL, np.where(np.arange(len(pedal)) % 2, 0, 127))
    if running:
        offs = channel_events(end, NOTE_ON, pitch, 0)
    else:
        offs = channel_events(end, NOTE_OFF, pitch, rng.integers(1, 127, count))
    ons = channel_events(start, NOTE_ON, pitch, velocity)
    tempos = [(time, tempo(rng.uniform(60, 140))) for time in range(0, last, 9600)]
    opening = b"\x00" + meta(TRACK_NAME, b"Piano") + b"\x00" + bytes([PROGRAM, 0])
    first = track(metas=tempos, running_status=False)
    return song(1, 480, [first, track(offs, ons, controls, opening=opening, running_status=running)])


def long_piece(index: int) -> bytes:
    """100 000, 10 000, 25 000, 45 000 or 60 000 notes in turn; the first five are performances, the rest have parts of
    chords on 2, 8 and 15 tracks."""
    notes = LONG_NOTES[index % len(LONG_NOTES)]
    parts = (1, 2, 8, 15)[index // len(LONG_NOTES) % 4]
    if parts == 1:
        return performance(1000 + index, notes)
    rng = np.random.default_rng((3, index))
    running = index % 2 == 0
    tempos = [(time, tempo(rng.uniform(90, 130))) for time in range(0, 100_000, 7680)]
    tracks = [track(metas=tempos, running_status=False)]
    for part in range(parts):
        count = notes // parts + (part < notes % parts)
        start, end, pitch, velocity = chords(rng, count, gap=120, spread=0, length=200)
        offs = channel_events(end, NOTE_ON | part if running else NOTE_OFF | part, pitch, 0)
        ons = channel_events(start, NOTE_ON | part, pitch, velocity)
        opening = b"\x00" + meta(TRACK_NAME, f"Part {part + 1}".encode()) + b"\x00" + bytes([PROGRAM | part, 5 * part])
        tracks.append(track(offs, ons, opening=opening, running_status=running))
    return song(1, 480, tracks)


GROUPS = {"chorales": (chorale, CHORALES), "piano": (performance, PERFORMANCES), "long": (long_piece, LONG)}


def write_group(folder: Path, name: str) -> list[Path]:
    """The files of one group, written unless they are there; their paths in order."""
    make, count = GROUPS[name]
    folder = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:03}.mid" for index in range(count)]
    for index, path in enumerate(paths):
        if not path.exists():
            path.write_bytes(make(index))
    return paths


def write_corpus(folder: Path, count: int) -> list[Path]:
    """`count` small files, all different, in subfolders of 100: nine chorales for every performance."""
    paths = []
    for index in range(count):
        path = folder / f"{index // 100:04}" / f"{index:06}.mid"
        paths.append(path)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(chorale(1000 + index) if index % 10 else performance(2000 + index, 800))
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--corpus", type=int, default=0, help="also a folder 'corpus' of so many files")
    options = parser.parse_args()
    for name in GROUPS:
        paths = write_group(options.folder, name)
        print(f"{name}: {len(paths)} files, {sum(path.stat().st_size for path in paths)} bytes")
    if options.corpus:
        paths = write_corpus(options.folder / "corpus", options.corpus)
        print(f"corpus: {len(paths)} files, {sum(path.stat().st_size for path in paths)} bytes")


if __name__ == "__main__":
    main()
