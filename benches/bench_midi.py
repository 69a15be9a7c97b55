"""Reading a MIDI file into note arrays: ours and pretty_midi, on the same bytes."""

import io

import numpy as np
import pytest


@pytest.fixture(scope="module")
def song():
    """A performance of 20 000 notes on four tracks, as the bytes of a MIDI file."""
    mido = pytest.importorskip("mido")
    rng = np.random.default_rng(0)
    file = mido.MidiFile(ticks_per_beat=480)
    for channel in range(4):
        track = mido.MidiTrack()
        for start in range(5000):
            pitch = int(rng.integers(30, 90))
            track.append(mido.Message("note_on", channel=channel, note=pitch, velocity=64, time=int(start > 0) * 30))
            track.append(mido.Message("note_off", channel=channel, note=pitch, velocity=0, time=90))
        file.tracks.append(track)
    out = io.BytesIO()
    file.save(file=out)
    return out.getvalue()


def ours(data):
    import musicgen_ext as mg

    notes = mg.read_midi(data).notes
    return np.sort(np.asarray(notes["pitch"]))


def theirs(data):
    pretty_midi = pytest.importorskip("pretty_midi")
    score = pretty_midi.PrettyMIDI(io.BytesIO(data))
    return np.sort([note.pitch for instrument in score.instruments for note in instrument.notes])


@pytest.mark.parametrize("reader", [ours, theirs], ids=["musicgen_ext", "pretty_midi"])
def test_read_midi(benchmark, song, reader):
    np.testing.assert_array_equal(ours(song), theirs(song))
    benchmark.group = "read 20 000 notes"
    benchmark.pedantic(reader, args=(song,), rounds=5, warmup_rounds=1)
