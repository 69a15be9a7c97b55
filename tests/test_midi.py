"""MIDI: the native reader and writer against their plain twin, the laws they keep, and other people's readers."""

from __future__ import annotations

import io
import pickle

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import musicgen_ext as mg
from musicgen_ext.midi import NOTE, Text

# -- law: what is written is read ------------------------------------------------------------------------------------

note_rows = st.lists(
    st.tuples(
        st.integers(0, 2000), st.integers(1, 500), st.integers(0, 127), st.integers(1, 127), st.integers(0, 3),
        st.integers(0, 15), st.integers(0, 127),
    ),
    max_size=40,
)  # fmt: skip
# Few pitches, one channel: notes of one pitch that overlap, nest, and begin or end together.
crowded_rows = st.lists(
    st.tuples(st.integers(0, 20), st.integers(1, 12), st.integers(60, 61), st.integers(1, 127)), max_size=40
)


@settings(max_examples=150, deadline=None)
@given(rows=st.one_of(note_rows, crowded_rows), ticks_per_quarter=st.integers(1, 32_767))
def test_any_list_of_notes_survives_writing_and_reading(rows, ticks_per_quarter):
    score = mg.Score(rows, ticks_per_quarter=ticks_per_quarter)
    again = mg.read_midi(score.to_bytes(), strict=True)
    assert again == score
    assert np.array_equal(again.notes, score.notes)
    width = len(rows[0]) if rows else 0
    assert sorted(row[:width] for row in again.notes.tolist()) == sorted(rows)
    assert again.to_bytes() == score.to_bytes()


def full_score() -> mg.Score:
    return mg.Score(
        [(0, 480, 72, 90, 0), (480, 960, 74, 91, 0), (0, 1440, 48, 70, 1), (10, 5, 36, 100, 2)],
        ticks_per_quarter=480,
        tempos=[(0, 600_000), (480, 433_333)],
        time_signatures=[(0, 3, 4, 24, 8), (1440, 6, 8, 36, 8)],
        key_signatures=[(0, -3, 1), (960, 7, 0)],
        tracks=[mg.Track("Soprano", program=52), mg.Track("Baß", program=0, channel=5), mg.Track("Kit", is_drum=True)],
        programs=[(700, 19, 0, 0)],
        controls=[(0, 64, 127, 0, 0), (700, 64, 0, 0, 0)],
        pitch_bends=[(5, -8192, 5, 1), (6, 8191, 5, 1), (7, 0, 5, 1)],
        texts=[Text(480, "lyric", b"a\xe4\x00b"), Text(0, "marker", "Größe".encode(), 1)],
        provenance={"seed": 2**64 - 1, "model": "chorale", "nested": {"a": [1, 2.5, None, "ü"]}},
    )


def test_every_column_survives_writing_and_reading():
    score = full_score()
    again = mg.read_midi(score.to_bytes(), strict=True)
    assert again == score
    for name in ("notes", "tempos", "time_signatures", "key_signatures", "programs", "controls", "pitch_bends"):
        assert np.array_equal(getattr(again, name), getattr(score, name)), name
        assert len(getattr(score, name)), name
    assert again.texts == score.texts
    assert again.tracks == score.tracks
    assert again.tracks[1] == mg.Track("Baß", 0, 5, False)
    assert again.tracks[2].is_drum
    assert again.provenance == score.provenance
    assert again.to_bytes() == score.to_bytes()


def test_a_score_survives_pickling_and_saving(tmp_path):
    score = full_score()
    assert pickle.loads(pickle.dumps(score)) == score
    score.save(tmp_path / "x.mid")
    assert mg.read_midi(tmp_path / "x.mid") == score
    assert mg.read_midi(str(tmp_path / "x.mid")) == score
    assert [p.name for p in tmp_path.iterdir()] == ["x.mid"]


# -- oracle: mido reads what we write --------------------------------------------------------------------------------


def test_mido_reads_what_we_write():
    score = full_score()
    file = mido.MidiFile(file=io.BytesIO(score.to_bytes()))
    assert (file.type, file.ticks_per_beat, len(file.tracks)) == (1, 480, 3)
    found = []
    for index, track in enumerate(file.tracks):
        now, sounding = 0, {}
        for message in track:
            now += message.time
            if message.type == "note_on" and message.velocity:
                sounding[message.channel, message.note] = (now, message.velocity)
            elif message.type in ("note_on", "note_off"):
                start, velocity = sounding.pop((message.channel, message.note))
                found.append((start, now - start, message.note, velocity, index, message.channel, 64))
        assert not sounding
    assert found == sorted(score.notes.tolist(), key=lambda row: (row[4], row[0]))
    assert score.notes.dtype == NOTE
    with pytest.raises(ValueError, match=r"notes\[1\]\.pitch: expected .*127, got 128"):
        mg.Score([(0, 1, 127), (0, 1, 128)])
