"""Reading MIDI into note columns, pytest-benchmark: ours, its plain twin, symusic, pretty_midi and mido.

    pytest benches/bench_midi.py

Every reader finds the same notes before it is timed. `compare_midi.py` is the one for ratios: there, the fast ones take
turns.
"""

import io

import numpy as np
import pytest

import midi_files
import musicgen_ext as mg
from musicgen_reference import midi as reference


def ours(data):
    notes = mg.read_midi(data).notes
    return notes["start"], notes["pitch"]


def twin(data):
    notes = reference.parse(data).notes
    return [note[0] for note in notes], [note[2] for note in notes]


def with_symusic(data):
    symusic = pytest.importorskip("symusic")
    columns = [track.notes.numpy() for track in symusic.Score.from_midi(data).tracks]
    return np.concatenate([c["time"] for c in columns]), np.concatenate([c["pitch"] for c in columns])


def with_pretty_midi(data):
    pretty_midi = pytest.importorskip("pretty_midi")
    score = pretty_midi.PrettyMIDI(io.BytesIO(data))
    notes = [note for instrument in score.instruments for note in instrument.notes]
    return [score.time_to_tick(note.start) for note in notes], [note.pitch for note in notes]


def with_mido(data):
    mido = pytest.importorskip("mido")
    starts, pitches = [], []
    for track in mido.MidiFile(file=io.BytesIO(data)).tracks:
        now = 0
        for message in track:
            now += message.time
            if message.type == "note_on" and message.velocity:
                starts.append(now)
                pitches.append(message.note)
    return starts, pitches


READERS = {
    "musicgen_ext": ours,
    "twin": twin,
    "symusic": with_symusic,
    "pretty_midi": with_pretty_midi,
    "mido": with_mido,
}
FILES = {
    "a chorale": lambda: midi_files.chorale(0),
    "a performance of 4000 notes": lambda: midi_files.performance(0, 4000),
    "100 000 notes": lambda: midi_files.long_piece(0),
}


def ordered(columns):
    return sorted(zip(*(np.asarray(column).tolist() for column in columns), strict=True))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("file", FILES)
def test_read_midi(benchmark, file, reader):
    if file == "100 000 notes" and reader not in ("musicgen_ext", "symusic"):
        pytest.skip("seconds a time")
    data, read = FILES[file](), READERS[reader]
    assert ordered(read(data)) == ordered(ours(data))
    benchmark.group = f"read {file}"
    benchmark.pedantic(read, args=(data,), rounds=7, warmup_rounds=1, iterations=1 if len(data) > 10_000 else 10)


def test_write_midi(benchmark):
    score = mg.read_midi(midi_files.long_piece(0))
    assert mg.read_midi(score.to_bytes()) == score
    benchmark.group = "write 100 000 notes"
    benchmark.pedantic(score.to_bytes, rounds=7, warmup_rounds=1)
