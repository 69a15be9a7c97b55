"""MIDI: the native reader and writer against their plain twin, the laws they keep, and other people's readers."""

from __future__ import annotations

import io
import itertools
import json
import os
import pickle
import random
import re
import struct
import subprocess
import sys
import time
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import mido
import numpy as np
import pretty_midi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import midi_files
import musicgen_ext as mg
from fuzz_midi import END, SEEDS, check, chunk, header, mutant, numbered_mutant, random_file, riff, smf
from musicgen_ext import _core
from musicgen_ext.midi import NOTE, Text
from musicgen_reference import midi as reference

ROOT = Path(__file__).parents[1]
SANITIZED = bool(os.environ.get("MUSICGEN_EXT_SANITIZED"))  # the sanitizers need terabytes of address space


def claiming(length: int, track: bytes) -> bytes:
    return b"MTrk" + length.to_bytes(4, "big") + track


NOTE_60 = bytes.fromhex("00903c40 60803c40")  # on at 0, off at 96


@contextmanager
def deviations(*patterns):
    """Reading must warn once, with the first of these in its message."""
    with pytest.warns(mg.MidiWarning, match=re.escape(patterns[0])) as caught:
        yield
    assert len(caught) == 1


def read_with_issues(data: bytes, *patterns: str) -> mg.Score:
    """Read in default mode; the issues must be these, in this order. Strict mode must raise the first."""
    with deviations(*patterns):
        score = mg.read_midi(data)
    assert len(score.issues) == len(patterns), score.issues
    for issue, pattern in zip(score.issues, patterns, strict=True):
        assert pattern in issue.message
        assert f"at byte {issue.offset}" in issue.message
        assert 0 <= issue.offset <= len(data)
    with pytest.raises(mg.MidiError) as error:
        mg.read_midi(data, strict=True)
    assert patterns[0] in str(error.value)
    assert error.value.offset == score.issues[0].offset
    assert error.value.track == score.issues[0].track
    return score


def rows(score):
    return [tuple(row)[:5] for row in score.notes.tolist()]


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


@settings(max_examples=80, deadline=None)
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


COLUMNS = ("notes", "tempos", "time_signatures", "key_signatures", "programs", "controls", "pitch_bends")


def test_every_column_survives_writing_and_reading():
    score = full_score()
    again = mg.read_midi(score.to_bytes(), strict=True)
    assert again == score
    for name in COLUMNS:
        assert np.array_equal(getattr(again, name), getattr(score, name)), name
        assert len(getattr(score, name)), name
    assert again.texts == score.texts
    assert again.tracks == score.tracks
    assert again.tracks[1] == mg.Track("Baß", 0, 5, False)
    assert again.tracks[2].is_drum
    assert again.provenance == score.provenance
    assert again.to_bytes() == score.to_bytes()


def test_columns_can_be_replaced_one_at_a_time():
    score = full_score()
    before = {name: getattr(score, name) for name in COLUMNS}
    for name in COLUMNS[1:]:
        with pytest.raises(ValueError, match="read-only"):
            getattr(score, name)["time"] = 1
        setattr(score, name, getattr(score, name))
        for other in COLUMNS:
            assert np.array_equal(getattr(score, other), before[other]), (name, other)
    score.tempos = [(0, 1_000_000)]
    assert score.tempos.tolist() == [(0, 1_000_000, 0)]
    assert score.end_time == 3.0
    for name in COLUMNS:
        if name != "tempos":
            assert np.array_equal(getattr(score, name), before[name]), name
    score.notes["pitch"] += 2
    assert mg.read_midi(score.to_bytes()).notes["pitch"].tolist() == [74, 76, 50, 38]
    score.texts = [text for text in score.texts if text.kind == "track_name"]
    assert [text.text for text in score.texts] == ["Soprano", "Baß", "Kit"]
    assert score != full_score()
    assert score.__hash__ is None


def test_notes_can_be_replaced():
    score = full_score()
    score.notes = score.notes[score.notes["track"] == 1]
    assert rows(mg.read_midi(score.to_bytes())) == [(0, 1440, 48, 70, 1)]
    score.notes = [(480, 10, 60), (0, 10, 62)]  # in any order
    assert rows(mg.read_midi(score.to_bytes())) == [(0, 10, 62, 80, 0), (480, 10, 60, 80, 0)]
    with pytest.raises(ValueError, match=r"notes\[0\]\.pitch: .*got 128"):
        score.notes = [(0, 10, 128)]


def test_a_score_survives_pickling_and_saving(tmp_path):
    score = full_score()
    assert pickle.loads(pickle.dumps(score)) == score
    score.save(tmp_path / "x.mid")
    assert mg.read_midi(tmp_path / "x.mid") == score
    assert mg.read_midi(str(tmp_path / "x.mid")) == score
    assert mg.read_midi(os.fsencode(tmp_path / "x.mid").decode()) == score
    for same in (bytearray, memoryview):
        assert mg.read_midi(same(score.to_bytes())) == score
    assert [p.name for p in tmp_path.iterdir()] == ["x.mid"]
    with pytest.raises(TypeError, match="source: expected a path or bytes, got int"):
        mg.read_midi(3)


def test_the_provenance_is_one_text_event_and_other_texts_stay():
    score = mg.Score(provenance={"seed": 7, "temperature": np.float64(0.5)})
    file = mido.MidiFile(file=io.BytesIO(score.to_bytes()))
    texts = [message.text for message in file.tracks[0] if message.type == "text"]
    assert len(texts) == 1
    assert texts[0].startswith("musicgen_ext: ")
    assert json.loads(texts[0].removeprefix("musicgen_ext: ")) == {"seed": 7, "temperature": 0.5}
    for other in (b"musicgen_ext: {", b"musicgen_ext: 3", b"musicgen_ext: " + b"[" * 100_000):
        again = mg.read_midi(mg.Score(texts=[Text(0, "text", other)]).to_bytes())
        assert again.provenance == {}
        assert again.texts == (Text(0, "text", other),)
    for bad, error in (({"a": float("nan")}, ValueError), ({"a": {1, 2}}, TypeError)):
        with pytest.raises(error, match="provenance: expected"):
            mg.Score(provenance=bad).to_bytes()


def test_unknown_events_and_chunks_are_kept_byte_for_byte_and_in_order():
    track = b"".join(
        (
            b"\x00\xff\x7f\x03abc",  # sequencer-specific
            b"\x00\xff\x60\x02\x01\x02",  # a meta event nobody has defined
            b"\x00\xff\x00\x02\x00\x07\x00\xff\x20\x01\x03\x00\xff\x21\x01\x00",
            b"\x00\xff\x54\x05\x20\x01\x02\x03\x04",  # SMPTE offset
            b"\x05\xf0\x05\x7e\x7f\x09\x01\xf7",  # a system exclusive, whole
            b"\x00\xf0\x02\x43\x12\x05\xf7\x02\x01\xf7",  # one in two packets
            b"\x00\xf7\x02\xf3\x01",  # an escape
            b"\x00\xb0\x00\x01\x00\x20\x02\x00\xc0\x05",  # bank select, program: this order matters
            b"\x00\xa0\x3c\x11\x00\xd0\x22",  # pressure
            b"\x00\x90\x3c\x40\x00\xb0\x40\x7f",  # pedal after the note of its tick
            b"\x60\x40\x00\x00\x80\x3c\x33",  # pedal up before the end of its tick
        )
    )
    data = header(1) + chunk(b"XFIH", b"\x00\xff") + chunk(b"MTrk", track + b"\x10\xff\x2f\x00") + chunk(b"last", b"")
    score = mg.read_midi(data, strict=True)
    again = score.to_bytes()
    assert mg.read_midi(again, strict=True) == score
    assert again == data  # this file is written as ours are: running status wherever it can be


# -- twin: the plain parser and writer agree in everything ------------------------------------------------------------

KINDS = {
    "chunk_truncated": "expected a chunk of",
    "track_count": "tracks as the header says",
    "format_0_tracks": "in a file of format 0",
    "event_truncated": "expected an event of at least",
    "payload_truncated": "of data in a meta or system exclusive event",
    "no_end_of_track": "expected an end-of-track event, got the end",
    "end_of_track_length": "expected an end-of-track event without data",
    "after_end_of_track": "expected nothing after the end-of-track",
    "past_claimed_length": "expected the track to end after",
    "no_running_status": "without a running status",
    "cancelled_running_status": "read with the earlier status",
    "high_data_byte": "expected a data byte below 0x80",
    "bad_status": "expected a channel, meta or system exclusive status",
    "tempo": "expected a tempo",
    "time_signature": "expected a time signature",
    "key_signature": "expected a key signature",
    "unended_note": "got the end of the track (closed there)",
    "lone_note_off": "expected a sounding note for the note-off",
    "zero_length_note": "expected a note of at least 1 tick",
    "not_a_chunk": "expected a chunk, got",
    "second_header": "expected one header",
    "riff_length": "in the RIFF wrapper as its length says",
}


def unpacked(chunks: bytes) -> list[tuple[int, bytes, bytes]]:
    """(track, id, data) of what the native side keeps in one piece."""
    found = []
    while chunks:
        track, kind, size = struct.unpack_from("=i4sQ", chunks)
        found.append((track, kind, chunks[16 : 16 + size]))
        chunks = chunks[16 + size :]
    return found


def assert_twins_agree(data: bytes) -> bool:
    """Both read the same, or both refuse at the same byte; True if they read."""
    try:
        song = reference.parse(data)
    except reference.Broken as broken:
        offset, track = broken.args
        with pytest.raises(mg.MidiError) as error:
            _core.midi_parse(data, False)
        assert (error.value.offset, error.value.track) == (offset, None if track < 0 else track)
        return False
    tables, chunks, issues, unlisted = _core.midi_parse(data, False)
    format, division, notes, events, payload, payload_ends, track_ends = tables
    assert (format, division) == (song.format, song.division)
    assert notes.tolist() == song.notes
    begin, found = 0, []
    ends = iter(payload_ends.tolist())
    for row in events.tolist():
        content = None
        if row[2] >= 0xF0:
            end = next(ends)
            content, begin = payload[begin:end].tobytes(), end
        found.append((*row, content))
    assert found == song.events
    assert track_ends.tolist() == song.track_ends
    assert unpacked(chunks) == song.chunks
    expected = [kind for kind, _, _ in song.issues]
    assert [(offset, track) for _, offset, track in issues] == [issue[1:] for issue in song.issues][: len(issues)]
    assert all(KINDS[kind] in message for kind, (message, _, _) in zip(expected, issues, strict=False))
    assert len(issues) + unlisted == len(expected)
    if expected:
        with pytest.raises(mg.MidiError, match="at byte"):
            _core.midi_parse(data, True)
    else:
        _core.midi_parse(data, True)
    if len(song.track_ends) and not any(later - now > 2**28 - 1 for now, later in gaps(song)):
        written = _core.midi_write(*tables, chunks)
        assert written == reference.write(song)
        again = reference.parse(written)
        assert [row[:2] + row[3:] for row in again.events] != [] or not song.events
        assert (again.notes, again.chunks) == (song.notes, song.chunks)
    return True


def gaps(song):
    """Neighbouring times of every track: a file cannot hold more than four bytes of delta."""
    for track, end in enumerate(song.track_ends):
        times = [0, end] + [event[0] for event in song.events if event[1] == track]
        times += [t for note in song.notes if note[4] == track for t in (note[0], note[0] + note[1])]
        times.sort()
        yield from itertools.pairwise(times)


def test_the_twins_agree_on_files_with_everything_in_them():
    rng = random.Random(20_261_120)
    for _ in range(300):
        assert assert_twins_agree(random_file(rng))


def test_the_twins_agree_on_broken_files():
    rng = random.Random(20_261_121)
    outcomes = [assert_twins_agree(mutant(rng, random_file(rng))) for _ in range(3000)]
    assert 300 < sum(outcomes) < 2700  # many are read, many refused


@pytest.mark.parametrize("begin", range(0, 4000, 1000))
def test_R16_seeded_mutants(begin):
    """The first of those that `python/fuzz_midi.py` runs by the hundred thousand."""
    read = sum(check(numbered_mutant(0, index)) for index in range(begin, begin + 1000))
    assert 100 < read < 900


CORPUS = ROOT / "tests" / "fuzz" / "corpus" / "midi"


def test_the_corpus_of_the_fuzz_target_is_there():
    """What `python/fuzz_midi.py --seeds` writes, and what was found with it."""
    files = {path.stem: path.read_bytes() for path in CORPUS.glob("*.mid")}
    assert {name: data for name, data in files.items() if not name.startswith("found_")} == SEEDS
    assert sum(map(len, files.values())) < 100_000


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.mid")), ids=lambda path: path.stem)
def test_R16_every_file_of_the_corpus(path):
    data = path.read_bytes()
    assert assert_twins_agree(data) == check(data)
    for size in range(0, len(data), max(1, len(data) // 40)):  # and what is left when the rest is lost
        assert assert_twins_agree(data[:size]) == check(data[:size])


def test_the_mutants_reach_every_deviation():
    rng, found = random.Random(20_261_121), set()
    for _ in range(6000):
        try:
            found |= {kind for kind, _, _ in reference.parse(mutant(rng, random_file(rng))).issues}
        except reference.Broken:
            continue
    # What single bytes rarely bring about has its own test below.
    assert set(KINDS) - found <= {"format_0_tracks", "second_header", "riff_length", "end_of_track_length"}


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=120).map(lambda body: smf(body, end=b""))))
def test_any_bytes_are_a_score_or_a_midi_error(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mg.MidiWarning)
        try:
            score = mg.read_midi(data, max_duration=float("inf"))
        except mg.MidiError as refused:
            error, score = refused, None
    if score is None:
        assert error.path is None
        assert 0 <= error.offset <= len(data)
    else:
        assert mg.read_midi(score.to_bytes(), max_duration=float("inf")) == score


# -- oracles: mido, pretty_midi and symusic ---------------------------------------------------------------------------


def files_of(group: str) -> list[tuple[str, bytes]]:
    """Names and contents: made here, or a part of the real files beside the checkout."""
    if group == "generated":
        return [(f"chorale {n}", midi_files.chorale(n)) for n in range(8)] + [
            (f"performance {n}", midi_files.performance(n, 500)) for n in range(4)
        ]
    folder = ROOT.parent / "shared" / "data"
    if group == "midi_samples":
        found = [(path.name, path.read_bytes()) for path in sorted((folder / group).glob("*.mid"))]
    else:
        archive, every = {
            "nottingham": ("nottingham/nottingham_midi.zip", 25),
            "js_fakes": ("js_fakes/js_fakes_midi.zip", 10),
            "lieder": ("openscore_lieder/lieder_midi.zip", 10),
        }[group]
        if not (folder / archive).is_file():
            found = []
        else:
            with zipfile.ZipFile(folder / archive) as files:
                names = sorted(name for name in files.namelist() if name.endswith(".mid"))
                found = [(name, files.read(name)) for name in names[::every]]
    if not found:
        pytest.skip(f"no real files beside the checkout (../shared/data, {group})")
    return found


groups = pytest.mark.parametrize("group", ["generated", "midi_samples", "nottingham", "js_fakes", "lieder"])


def columns_of(score: mg.Score) -> dict[str, list[tuple[int, ...]]]:
    return {name: [tuple(row) for row in getattr(score, name).tolist()] for name in COLUMNS}


@groups
def test_files_are_read_as_mido_reads_them(group):
    """Everything in its columns, note-offs paired by our rule."""
    for name, data in files_of(group):
        expected, texts = {column: [] for column in COLUMNS}, []
        for index, track in enumerate(mido.MidiFile(file=io.BytesIO(data)).tracks):
            now, sounding = 0, {}
            for message in track:
                now += message.time
                kind = message.type
                if kind == "note_on" and message.velocity:
                    sounding.setdefault((message.channel, message.note), []).append((now, message.velocity))
                elif kind in ("note_on", "note_off"):
                    start, velocity = sounding[message.channel, message.note].pop(0)
                    release = 64 if kind == "note_on" else message.velocity
                    row = (start, now - start, message.note, velocity, index, message.channel, release)
                    expected["notes"].append(row)
                elif kind == "set_tempo":
                    expected["tempos"].append((now, message.tempo, index))
                elif kind == "time_signature":
                    row = (message.numerator, message.denominator, message.clocks_per_click)
                    expected["time_signatures"].append((now, *row, message.notated_32nd_notes_per_beat, index))
                elif kind == "key_signature":
                    expected["key_signatures"].append((now, message.key, index))
                elif kind == "program_change":
                    expected["programs"].append((now, message.program, message.channel, index))
                elif kind == "control_change":
                    expected["controls"].append((now, message.control, message.value, message.channel, index))
                elif kind == "pitchwheel":
                    expected["pitch_bends"].append((now, message.pitch, message.channel, index))
                elif kind == "track_name":
                    texts.append((now, message.name.encode("latin-1"), index))
            assert not any(sounding.values())
        score = mg.read_midi(data, strict=True)
        found = columns_of(score)
        # mido gives keys their names: here from 7 flats to 7 sharps.
        majors = ["Cb", "Gb", "Db", "Ab", "Eb", "Bb", "F", "C", "G", "D", "A", "E", "B", "F#", "C#"]
        minors = ["Abm", "Ebm", "Bbm", "Fm", "Cm", "Gm", "Dm", "Am", "Em", "Bm", "F#m", "C#m", "G#m", "D#m", "A#m"]
        found["key_signatures"] = [
            (time, (minors if minor else majors)[7 + sharps], track)
            for time, sharps, minor, track in found["key_signatures"]
        ]
        assert sorted(found.pop("notes")) == sorted(expected.pop("notes")), name
        assert found == expected, name
        assert [(t.time, t.data, t.track) for t in score.texts if t.kind == "track_name"] == texts, name
        again = mg.read_midi(score.to_bytes(), strict=True)
        assert again == score, name


@groups
def test_files_are_read_as_symusic_reads_them(group):
    """Notes, tempos and metres. Its habits: every channel and program of a track is a track of its own, and the tempos
    and metres of all tracks are one list, by time."""
    symusic = pytest.importorskip("symusic")
    for name, data in files_of(group):
        theirs, score = symusic.Score.from_midi(data), mg.read_midi(data, strict=True)
        fields = ("start", "duration", "pitch", "velocity")
        found = sorted(zip(*(score.notes[field].tolist() for field in fields), strict=True))
        notes = [(n.time, n.duration, n.pitch, n.velocity) for track in theirs.tracks for n in track.notes]
        assert found == sorted(notes), name
        tempos = [(t.time, t.mspq) for t in theirs.tempos]
        assert tempos == sorted(row[:2] for row in score.tempos.tolist()), name
        signatures = sorted((t.time, t.numerator, t.denominator) for t in theirs.time_signatures)
        assert signatures == sorted(row[:3] for row in score.time_signatures.tolist()), name
        assert theirs.ticks_per_quarter == score.ticks_per_quarter


@groups
def test_files_are_read_as_pretty_midi_reads_them(group):
    """Notes and the end, to the tick. Its habits: an off ends every sounding note of its pitch and channel, so that
    only files without such overlaps can be compared; controls before the program are those of another instrument."""
    compared = 0
    for name, data in files_of(group):
        score = mg.read_midi(data, strict=True)
        order = np.lexsort([score.notes[field] for field in ("start", "pitch", "channel", "track")])
        ordered = score.notes[order]
        same = np.all(
            [np.diff(ordered[field].astype(np.int64)) == 0 for field in ("pitch", "channel", "track")], axis=0
        )
        if np.any(same & (ordered["start"][1:] < (ordered["start"] + ordered["duration"])[:-1])):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some have signatures outside the first track
            theirs = pretty_midi.PrettyMIDI(io.BytesIO(data))
        tick = theirs.time_to_tick
        notes = [
            (tick(n.start), tick(n.end) - tick(n.start), n.pitch, n.velocity)
            for instrument in theirs.instruments
            for n in instrument.notes
        ]
        fields = ("start", "duration", "pitch", "velocity")
        assert sorted(notes) == sorted(zip(*(score.notes[field].tolist() for field in fields), strict=True)), name
        assert score.end_time == pytest.approx(theirs.get_end_time(), abs=1e-9)
        compared += 1
    assert compared > 3


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
    assert file.length == pytest.approx(score.end_time, abs=1e-9)


# -- time ------------------------------------------------------------------------------------------------------------


def test_seconds_and_ticks_are_inverses():
    rng = np.random.default_rng(1)
    times = np.sort(rng.integers(0, 50_000, 20))
    score = mg.Score(ticks_per_quarter=96, tempos=[(int(t), int(rng.integers(1, 2**24))) for t in times])
    ticks = rng.integers(0, 10**6, (3, 500))
    assert np.array_equal(score.to_ticks(score.to_seconds(ticks)), ticks)
    seconds = score.to_seconds(np.arange(60_000))
    assert np.all(np.diff(seconds) > 0)
    assert seconds[0] == 0
    assert mg.Score().to_seconds(480) == 0.5  # 120 quarters a minute where nothing is said
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="seconds: expected finite numbers"):
            score.to_ticks([0.0, bad])


def test_of_two_tempos_at_one_tick_the_last_counts():
    score = mg.Score([(0, 480, 60)], tempos=[(0, 1_000_000), (0, 2_000_000), (480, 1)])
    assert score.end_time == 2.0


def test_every_track_of_a_format_2_file_has_its_own_time():
    slow = b"\x00\xff\x51\x03\x0f\x42\x40" + NOTE_60  # 1 s a quarter
    score = mg.read_midi(smf(slow, NOTE_60, format=2), strict=True)
    assert score.format == 2
    assert score.to_seconds(480, track=0) == 1
    assert score.to_seconds(480, track=1) == 0.5
    assert score.end_time == 0.2
    assert mg.read_midi(score.to_bytes()) == score
    assert score.synthesize(8000).duration > 0.2


# -- R01 to R18 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 4, 13])
def test_R01_too_short_for_a_header(size):
    with pytest.raises(
        mg.MidiError, match=f"MIDI data: too short for a MIDI header: expected at least 14 bytes, got {size}"
    ):
        mg.read_midi(header()[:size])


def test_R01_a_header_longer_than_the_file():
    for length in (5, 7, 2**32 - 1):
        data = b"MThd" + length.to_bytes(4, "big") + bytes((0, 1, 0, 1, 1, 0))
        with pytest.raises(
            mg.MidiError, match=f"expected a MIDI header of 6 to 6 bytes, got a length of {length}, at byte 4"
        ):
            mg.read_midi(data)


def test_R02_what_is_no_midi_file(tmp_path):
    for name, data in (
        ("x.wav", b"RIFF\x24\x00\x00\x00WAVEfmt "),
        ("x.txt", b"It was a dark and stormy night"),
        ("x.jpg", bytes.fromhex("ffd8ffe000104a46494600010101")),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(mg.MidiError) as error:
            mg.read_midi(tmp_path / name)
        assert name in str(error.value)
        assert "expected a MIDI file (first bytes 'MThd'), got '" in str(error.value)
        assert error.value.path == str(tmp_path / name)
        again = pickle.loads(pickle.dumps(error.value))
        assert (str(again), again.path, again.offset, again.track) == (str(error.value), str(tmp_path / name), 0, None)
    with pytest.raises(IsADirectoryError) as folder:
        mg.read_midi(tmp_path)
    assert folder.value.filename == str(tmp_path)
    with pytest.raises(FileNotFoundError) as missing:
        mg.read_midi(tmp_path / "missing.mid")
    assert missing.value.filename == str(tmp_path / "missing.mid")


def quietly_read(data: bytes) -> mg.Score:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mg.MidiWarning)
        return mg.read_midi(data)


LIMITED = """
import resource, sys, warnings
import musicgen_ext as mg
warnings.simplefilter("ignore", mg.MidiWarning)
data = bytes.fromhex(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))
print(len(mg.read_midi(data).notes), mg.read_midi(data).issues[0].message)
"""


def read_with_512_mib(data: bytes) -> str:
    if SANITIZED:
        return "".join(f"{len(score.notes)} {score.issues[0].message}" for score in [quietly_read(data)])
    pytest.importorskip("resource")
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, data.hex()],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_R03_a_chunk_longer_than_the_file():
    track = NOTE_60 + END
    data = header(2) + claiming(2**32 - 1, track) + chunk(b"MTrk", track)
    score = read_with_issues(data, "expected a chunk of 4294967295 bytes, got 32 bytes before the end of the file")
    assert rows(score) == [(0, 96, 60, 64, 0), (0, 96, 60, 64, 1)]  # the track behind it is found all the same
    assert read_with_512_mib(data).startswith("2 expected a chunk of 4294967295 bytes")
    cut = smf(NOTE_60 + NOTE_60 + NOTE_60)
    for size in range(23, len(cut) - 1):
        score = quietly_read(cut[:size])
        assert "before the end of the file" in score.issues[0].message
        assert len(score.notes) == (size >= 26) + (size >= 34) + (size >= 42)


def test_R04_end_of_track_missing_early_or_late():
    score = read_with_issues(smf(NOTE_60, end=b""), "expected an end-of-track event, got the end of the track's data")
    assert rows(score) == [(0, 96, 60, 64, 0)]
    score = read_with_issues(
        smf(NOTE_60 + END, NOTE_60), "expected nothing after the end-of-track event, got 4 bytes (left out)"
    )
    assert len(score.notes) == 2
    short = header(2) + claiming(3, NOTE_60 + END) + chunk(b"MTrk", NOTE_60 + END)
    score = read_with_issues(short, "expected the track to end after the 3 bytes of its length")
    assert rows(score) == [(0, 96, 60, 64, 0), (0, 96, 60, 64, 1)]
    score = read_with_issues(
        header(1) + chunk(b"MTrk", NOTE_60 + b"\x00\x90\x3c"),
        "expected an event of at least 4 bytes, got 3 bytes before the end of the track",
        "expected an end-of-track event",
    )
    assert len(score.notes) == 1


@pytest.mark.parametrize("declared", [0, 1, 3, 65_535])
def test_R05_another_number_of_tracks_than_declared(declared):
    data = smf(NOTE_60, NOTE_60, declared=declared)
    score = read_with_issues(data, f"expected {declared} tracks as the header says, got 2")
    assert len(score.notes) == 2
    assert len(score.tracks) == 2


def test_R06_division_0_and_format_7():
    with pytest.raises(
        mg.MidiError, match="expected a division of at least 1 tick per quarter note, got 0, at byte 12"
    ):
        mg.read_midi(smf(NOTE_60, division=0))
    with pytest.raises(mg.MidiError, match="expected MIDI format 0, 1 or 2, got 7, at byte 8"):
        mg.read_midi(smf(NOTE_60, format=7))
    for division in (0xFF28, 0xE700, 0x8000, 0xE828 ^ 0x0100 | 0x0200):
        if 256 - (division >> 8) in (24, 25, 29, 30) and division & 255:
            continue
        with pytest.raises(mg.MidiError, match="expected an SMPTE division of 24, 25, 29 or 30 frames per second"):
            mg.read_midi(smf(NOTE_60, division=division))


@pytest.mark.parametrize(("frames", "exact"), [(24, 24), (25, 25), (29, 30_000 / 1001), (30, 30)])
def test_R07_smpte_time(frames, exact):
    tempo = b"\x00\xff\x51\x03\x00\x00\x01"  # means nothing here
    score = mg.read_midi(smf(tempo + NOTE_60, division=(256 - frames) << 8 | 40), strict=True)
    assert score.smpte == (frames, 40)
    assert score.ticks_per_quarter == round(exact * 20)
    ticks = np.array([0, 1, 96, 12_345, 3_456_000])
    assert score.to_seconds(ticks) == pytest.approx(ticks / (exact * 40), abs=1e-9)
    assert np.array_equal(score.to_ticks(score.to_seconds(ticks)), ticks)
    assert score.end_time == pytest.approx(96 / (exact * 40), abs=1e-9)
    assert mg.read_midi(score.to_bytes(), strict=True) == score
    assert "SMPTE" in repr(score)


@pytest.mark.parametrize(
    ("track", "at"),
    [
        (b"\xff\xff\xff\xff\x7f\x90\x3c\x40" + END, 22),  # a delta of five bytes
        (b"\x00\xff\x01\x80\x80\x80\x80\x01" + END, 25),  # a length of five bytes
        (NOTE_60 + b"\x81\x80", 30),  # a delta without an end
        (b"\x00\xf0\x81", 24),  # a length without an end
    ],
)
def test_R08_numbers_without_an_end(track, at):
    for strict in (False, True):
        with pytest.raises(
            mg.MidiError, match=f"variable-length number of at most 4 bytes.*at byte {at}, track 0"
        ) as error:
            mg.read_midi(header(1) + chunk(b"MTrk", track), strict)
        assert (error.value.offset, error.value.track) == (at, 0)


def test_R09_bytes_that_are_no_event():
    score = read_with_issues(smf(b"\x00\x3c\x40" + NOTE_60[1:]), "got data byte 0x3C without a running status")
    assert rows(score) == [(0, 96, 60, 64, 0)]
    score = read_with_issues(
        smf(b"\x00\x90\x3d\x90\x3c\x40" + NOTE_60[4:]), "expected a data byte below 0x80 after status 0x90, got 0x90"
    )
    assert rows(score) == [(0, 96, 60, 64, 0)]
    for status in (*range(0xF1, 0xF7), *range(0xF8, 0xFF)):
        data = smf(bytes([5, status, 1, 2]) + NOTE_60[1:])
        score = read_with_issues(data, f"expected a channel, meta or system exclusive status, got 0x{status:02X}")
        assert rows(score) == [(5, 96, 60, 64, 0)]
    score = read_with_issues(smf(NOTE_60[:4] + b"\x00\xff\x01\x00\x60\x3c\x00"), "read with the earlier status 0x90")
    assert rows(score) == [(0, 96, 60, 64, 0)]


def test_R10_an_event_longer_than_the_file():
    for status in (b"\xf0", b"\xf7", b"\xff\x01"):
        data = smf(NOTE_60 + b"\x00" + status + b"\xff\xff\xff\x7f" + b"abc", end=b"")
        score = read_with_issues(
            data,
            "expected 268435455 bytes of data in a meta or system exclusive event, got 3 bytes",
            "expected an end-of-track event",
        )
        assert rows(score) == [(0, 96, 60, 64, 0)]
        assert read_with_512_mib(data).startswith("1 expected 268435455 bytes")


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (b"\xff\x51\x03\x00\x00\x00", "expected a tempo of 3 bytes above 0, got 0 (ignored)"),
        (b"\xff\x51\x02\x07\xa1", "expected a tempo of 3 bytes above 0, got 2 bytes (ignored)"),
        (b"\xff\x58\x04\x00\x02\x18\x08", "got 0 over 2 to the power of 2 (ignored)"),
        (b"\xff\x58\x04\x04\x20\x18\x08", "got 4 over 2 to the power of 32 (ignored)"),
        (b"\xff\x58\x02\x04\x02", "expected a time signature of 4 bytes"),
        (b"\xff\x59\x02\x08\x00", "got 8 sharps, mode 0 (ignored)"),
        (b"\xff\x59\x02\x80\x02", "got -128 sharps, mode 2 (ignored)"),
        (b"\xff\x59\x01\x00", "expected a key signature of 2 bytes"),
    ],
)
def test_R11_tempos_and_signatures_that_make_no_sense(event, message):
    score = read_with_issues(smf(b"\x00" + event + NOTE_60), message)
    assert len(score.tempos) == len(score.time_signatures) == len(score.key_signatures) == 0
    assert score.end_time == pytest.approx(0.1)
    score.tempos, score.time_signatures, score.key_signatures = [(0, 1_000_000)], [(0, 3, 4)], [(0, 1)]
    assert event in score.to_bytes()  # ignored, but not lost


def test_R12_ticks_beyond_32_bits_and_a_limit_on_duration():
    longest = b"\xff\xff\xff\x7f"
    data = smf((longest + b"\x90\x3c\x40" + longest + b"\x80\x3c\x40") * 20, division=32_767)
    with pytest.raises(mg.MidiError, match=r"expected a piece of at most 86400 seconds \(max_duration\), got 163845"):
        mg.read_midi(data)
    score = mg.read_midi(data, strict=True, max_duration=1e6)
    step = 2**28 - 1
    assert score.notes["start"].tolist() == [step * (2 * n + 1) for n in range(20)]
    assert np.all(score.notes["duration"] == step)
    assert score.notes["start"][-1] > 2**33
    assert mg.read_midi(score.to_bytes(), max_duration=1e6) == score
    with pytest.raises(mg.MidiError, match=r"at most 0\.05 seconds"):
        mg.read_midi(smf(NOTE_60), max_duration=0.05)


def test_R13_notes_are_paired_first_in_first_out():
    def on(delta, velocity):
        return bytes([delta, 0x90, 60, velocity])

    def off(delta, pitch=60):
        return bytes([delta, 0x80, pitch, 64])

    score = mg.read_midi(smf(on(0, 1) + on(10, 2) + off(10) + off(10)), strict=True)
    assert rows(score) == [(0, 20, 60, 1, 0), (10, 20, 60, 2, 0)]
    score = read_with_issues(
        smf(on(0, 1) + on(10, 2) + off(10) + b"\x20\xff\x01\x00"),
        "expected a note-off for pitch 60 on channel 0 begun at tick 10, got the end of the track (closed there)",
    )
    assert rows(score) == [(0, 20, 60, 1, 0), (10, 42, 60, 2, 0)]
    assert mg.read_midi(score.to_bytes(), strict=True) == score  # what was closed stays closed
    lone = "expected a sounding note for the note-off of pitch 60 on channel 0, got none (left out)"
    assert rows(read_with_issues(smf(on(0, 1) + off(10) + off(10)), lone)) == [(0, 10, 60, 1, 0)]
    assert rows(read_with_issues(smf(off(10)), lone)) == []
    score = read_with_issues(smf(on(5, 1) + off(0) + on(0, 2) + off(7)), "expected a note of at least 1 tick, got 0")
    assert rows(score) == [(5, 1, 60, 1, 0), (5, 7, 60, 2, 0)]
    assert mg.read_midi(score.to_bytes(), strict=True) == score


def test_R13_nested_notes_are_written_so_that_they_are_read_back():
    score = mg.Score([(0, 100, 60, 1), (10, 10, 60, 2), (10, 40, 60, 3)])
    data = score.to_bytes()
    assert data.count(b"\xff\x7f\x05\x7dmgp") == 2
    assert mg.read_midi(data, strict=True) == score
    many = mg.Score([(n, 1000 - 2 * n, 60, 1) for n in range(128)])
    assert mg.read_midi(many.to_bytes(), strict=True) == many
    with pytest.raises(ValueError, match=r"notes\[\d+\]\.pitch: expected at most 127 older notes of its pitch"):
        mg.Score([(n, 1000 - 2 * n, 60, 1) for n in range(129)]).to_bytes()


@pytest.mark.parametrize("length", [0, 1, 2, 4, 5, 250])
def test_R14_a_longer_header_is_kept(length):
    data = smf(NOTE_60, extra=bytes(range(length)))
    score = mg.read_midi(data, strict=True)
    assert rows(score) == [(0, 96, 60, 64, 0)]
    assert mg.read_midi(score.to_bytes(), strict=True) == score
    assert score.to_bytes()[: 14 + length] == data[: 14 + length]
    assert assert_twins_agree(data)


def test_R14_a_riff_wrapper_and_what_else_is_in_it():
    inner = mg.read_midi(smf(NOTE_60)).to_bytes()
    score = mg.read_midi(riff((b"data", inner)), strict=True)
    assert score == mg.read_midi(inner)
    assert score.to_bytes() == inner  # a wrapper with nothing else in it means nothing
    full = riff((b"DISP", b"abc"), (b"data", inner), (b"LIST", b"INFOICMT"), (b"data", b"x"))
    score = mg.read_midi(full, strict=True)
    assert rows(score) == [(0, 96, 60, 64, 0)]
    assert score.to_bytes() == full
    for data in (full, riff((b"data", inner + b"\0")), riff((b"data", smf(NOTE_60, extra=b"abc")), (b"x   ", b"1"))):
        assert assert_twins_agree(data)
    wrong_length = "in the RIFF wrapper as its length says, got"
    for data, *messages in (
        (riff((b"data", inner), length=1000), f"expected 1000 bytes {wrong_length}"),
        (riff((b"data", inner)) + b"abc", wrong_length, "expected a chunk, got 3 bytes that are none"),
        (riff((b"data", inner), (b"LIST", b"abcd"))[:-2], wrong_length, "expected a chunk of 4 bytes, got 2 bytes"),
    ):
        assert assert_twins_agree(data)
        assert rows(read_with_issues(data, *messages)) == [(0, 96, 60, 64, 0)]
    for size in range(20, len(full)):
        assert_twins_agree(full[:size])
    with pytest.raises(mg.MidiError, match="expected a chunk 'data' with the MIDI file in the RIFF wrapper, got none"):
        mg.read_midi(b"RIFF\x0c\x00\x00\x00RMIDDISP\x00\x00\x00\x00")


def test_R14_alien_chunks_and_formats():
    assert len(mg.read_midi(smf(NOTE_60, NOTE_60, NOTE_60, format=2), strict=True).tracks) == 3
    score = read_with_issues(smf(NOTE_60, NOTE_60, NOTE_60, format=0), "expected 1 track in a file of format 0, got 3")
    assert (len(score.notes), score.format) == (3, 1)
    garbage = header(2) + chunk(b"MTrk", NOTE_60 + END) + b"\x00\x01\x02" + chunk(b"MTrk", NOTE_60 + END)
    score = read_with_issues(garbage, "expected a chunk, got 3 bytes that are none (left out)")
    assert len(score.notes) == 2
    assert len(read_with_issues(smf(NOTE_60) + header(), "expected one header, got another 'MThd'").notes) == 1


@pytest.mark.parametrize("data", [b"Gr\xfc\xdfe", b"\xc3\x28", b"a\x00b", "Grüße ♫".encode(), b"", bytes(range(256))])
def test_R15_text_is_kept_byte_for_byte(data):
    event = b"\x00\xff\x03" + reference.variable_length(len(data)) + data
    score = mg.read_midi(smf(event + NOTE_60), strict=True)
    assert score.texts[0].data == data
    assert isinstance(score.texts[0].text, str)
    assert isinstance(score.tracks[0].name, str)
    assert event in score.to_bytes()
    assert mg.read_midi(score.to_bytes()) == score
    assert isinstance(repr(score), str)
    assert "<svg" in score._repr_html_()


# On Linux VmHWM and not ru_maxrss, which a process inherits from the one that started it.
MEASURED = """
import re, resource, sys
from musicgen_ext import _core
def peak():
    if sys.platform == "linux":
        return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begin, middle, end = map(bytes.fromhex, sys.argv[1:4])
data = begin + middle * int(sys.argv[4]) + end
before = peak()
result = _core.midi_parse(data, False)
after = peak()
tables = result[0]
print(len(tables[2]), len(tables[3]), len(data), after - before)
"""


def one_track(first: bytes, event: bytes, count: int) -> tuple[bytes, bytes, bytes, int]:
    """The beginning, middle and end of a file whose middle comes `count` times."""
    return header(1) + claiming(len(first) + len(event) * count + len(END), first), event, END, count


@pytest.mark.skipif(SANITIZED, reason="the sanitizers keep memory of their own")
@pytest.mark.parametrize(
    ("parts", "notes", "events"),
    [
        (one_track(b"\x00\x90\x3c\x40", b"\x01\x3c\x00\x01\x3c\x40", 5_000_000), 5_000_001, 0),  # 4.0 times the file
        (one_track(b"\x00\x90\x3c\x40", b"\x01\x3c\x40", 2_000_000), 2_000_001, 0),  # 24 bytes for 3: they never end
        (one_track(b"\x00\xc0\x05", b"\x01\x06", 2_000_000), 0, 2_000_001),  # 16 bytes for 2
        (one_track(b"", b"\x00\xff\x01\x00", 1_000_000), 0, 1_000_000),
        ((header(1), b"none\0\0\0\0", chunk(b"MTrk", END), 500_000), 0, 0),
        ((header(1), chunk(b"MTrk", b""), chunk(b"MTrk", END), 500_000), 0, 0),
        ((header(1), b"\x01MTrk\xff\xff\xff\xff", b"", 300_000), 0, 1),
    ],
    ids=["notes", "notes without an end", "programs", "texts", "chunks", "tracks", "garbage"],
)
def test_R16_millions_of_events_in_little_memory(parts, notes, events):
    pytest.importorskip("resource")
    *texts, count = parts
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *(text.hex() for text in texts), str(count)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *found, size, memory = map(int, done.stdout.split())
    assert found == [notes, events]
    assert memory < 8 * size + (8 << 20)  # the second: 10 000 issues in words, and what any call may cost


def test_R16_hostile_files_take_linear_time():
    def seconds(data):
        best = float("inf")
        for _ in range(3):
            begin = time.perf_counter()
            with suppress(mg.MidiError):
                _core.midi_parse(data, False)
            best = min(best, time.perf_counter() - begin)
        return best

    def hostile(n):
        yield smf(b"\x00\x90\x3c\x40" * n)  # notes that pile up
        yield smf(b"\x00\x90\x3c\x40" * n + b"\x00\xff\x7f\x05\x7dmgp\x7f\x00\x80\x3c\x40" * n)  # the longest walks
        yield header(1) + b"MTrk\0\0\0\0" * n  # tracks of no length
        yield header(1) + b"MTrk\0\0\0\0\x00\xff\x2f\x00" * n  # lengths that are wrong
        yield header(1) + b"\x01MTrk\xff\xff\xff\xff" * n
        yield smf(b"\x00\x3c" * n)  # garbage
        yield smf(b"\x00\xf1" * n)

    for small, large in zip(hostile(20_000), hostile(200_000), strict=True):
        assert seconds(large) < 40 * max(seconds(small), 1e-4), large[:40]


def test_R16_a_file_of_nothing_but_faults_has_a_list_of_bounded_length():
    score = quietly_read(smf(b"\x00\x80\x3c\x40" * 50_000))
    assert len(score.issues) == 10_001
    assert score.issues[-1].message == "40000 more deviations are not listed"


def test_R16_threads_read_and_write_side_by_side():
    def is_flawless(file):  # warnings belong to the whole process, not to a thread
        with suppress(mg.MidiError):
            return mg.read_midi(file, strict=True) is not None
        return False

    files = [file for n in range(100) if is_flawless(file := random_file(random.Random(n)))]
    assert len(files) > 10
    scores = [mg.read_midi(file) for file in files]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert list(pool.map(mg.read_midi, files)) == scores
            assert [*pool.map(mg.Score.to_bytes, scores)] == [score.to_bytes() for score in scores]


def test_scores_that_come_and_go_do_not_share_memory():
    """Large tables get the memory of those that were thrown away: nobody may see that."""

    def read_often(seed):
        rng, kept = random.Random(seed), []
        for _ in range(30):
            n = rng.randrange(len(files))
            kept.append((n, mg.read_midi(files[n]).notes))
            if len(kept) > 3:
                kept.pop(rng.randrange(4))
            for n, notes in kept:
                assert np.array_equal(notes, expected[n])
        return len({notes.__array_interface__["data"][0] for _, notes in kept}) == len(kept)

    # From less to more than what is kept: 48 KB to 4.8 MB of notes.
    files = [midi_files.performance(n, count) for n, count in enumerate((2000, 3000, 5000, 9000, 40_000, 200_000))]
    expected = [mg.read_midi(file).notes.copy() for file in files]
    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(read_often, range(6)))


def test_R18_notes_that_a_file_cannot_hold(tmp_path):
    path = tmp_path / "x.mid"
    path.write_bytes(b"old")
    for field, value, message in (
        ("duration", 0, r"notes\[1\]\.duration: expected at least 1 tick \(an end after the start\), got 0"),
        ("duration", -5, r"notes\[1\]\.duration: .*got -5"),
        ("duration", 2**63 - 1, r"notes\[1\]\.duration: expected an end below 2\^63 ticks"),
        ("start", -1, r"notes\[1\]\.start: expected at least 0 ticks, got -1"),
        ("pitch", 200, r"notes\[1\]\.pitch: expected 0 to 127, got 200"),
        ("velocity", 0, r"notes\[1\]\.velocity: expected 1 to 127, got 0"),
        ("velocity", 128, r"notes\[1\]\.velocity: expected 1 to 127, got 128"),
        ("channel", 16, r"notes\[1\]\.channel: expected 0 to 15, got 16"),
        ("track", -1, r"notes\[1\]\.track: expected at least 0, got -1"),
        ("release_velocity", 200, r"notes\[1\]\.release_velocity: expected 0 to 127, got 200"),
        ("duration", 2**29, r"notes\[1\]\.duration: expected at most 268435455 ticks after the event before it"),
    ):
        score = mg.Score([(0, 10, 60), (5, 10, 62)])
        score.notes[field][1] = value
        with pytest.raises(ValueError, match=message):
            score.save(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.mid"]


def test_R18_chunks_that_are_none():
    tables, chunks, _, _ = _core.midi_parse(header(1) + chunk(b"some", b"thing") + chunk(b"MTrk", END), True)
    assert unpacked(chunks) == [(0, b"some", b"thing")]
    for size in range(1, len(chunks)):
        with pytest.raises(ValueError, match=r"chunks: expected what midi_parse gives, got .* the middle of a chunk"):
            _core.midi_write(*tables, chunks[:size])


def test_R18_values_that_a_score_cannot_hold():
    nan = float("nan")
    for make, message in (
        (lambda: mg.Score([(0, 1, 60), (nan, 1, 60)]), r"notes\[1\]\.start: expected a whole number .*, got nan"),
        (lambda: mg.Score([(0, 0, 60)]), r"notes\[0\]\.duration: expected a whole number from 1 .*, got 0"),
        (lambda: mg.Score([(0.5, 1, 60)]), r"notes\[0\]\.start: .*, got 0\.5"),
        (lambda: mg.Score([(2**63, 1, 60)]), r"notes\[0\]\.start: .*, got 9223372036854775808"),
        (lambda: mg.Score([(10**30, 1, 60)]), r"notes\[0\]\.start: .*, got 10{30}"),
        (lambda: mg.Score([(0, 1, 300)]), r"notes\[0\]\.pitch: .*from 0 to 127, got 300"),
        (lambda: mg.Score([(0, 1)]), r"notes\[0\]: expected 3 to 7 values .*, got 2"),
        (lambda: mg.Score({"start": [0], "duration": [1]}), r"notes: expected the columns start, .*, got start, dura"),
        (
            lambda: mg.Score({"start": [0, 1], "duration": [1], "pitch": [1, 2]}),
            r"notes\.duration: expected shape \(2,\), got \(1,\)",
        ),
        (lambda: mg.Score(tempos=[(0, 0)]), r"tempos\[0\]\.microseconds_per_quarter: .*from 1 to 16777215, got 0"),
        (lambda: mg.Score(time_signatures=[(0, 3, 5)]), r"signatures\[0\]\.denominator: .*power of two, got 5"),
        (lambda: mg.Score(key_signatures=[(0, 8)]), r"key_signatures\[0\]\.sharps: .*from -7 to 7, got 8"),
        (lambda: mg.Score(controls=[(0, 64, 128)]), r"controls\[0\]\.value: .*from 0 to 127, got 128"),
        (lambda: mg.Score(pitch_bends=[(0, 8192)]), r"pitch_bends\[0\]\.bend: .*, got 8192"),
        (lambda: mg.Score(tracks=[mg.Track(program=128)]), r"tracks\[0\]\.program: expected 0 to 127, got 128"),
        (lambda: mg.Score(tracks=[mg.Track("", 0, 3, True)]), r"tracks\[0\]\.channel: expected 9 for drums, got 3"),
        (lambda: mg.Score(ticks_per_quarter=0), r"ticks_per_quarter: expected 1 to 32767, got 0"),
        (lambda: mg.Score(texts=[Text(0, "poem", b"")]), r"texts\[0\]\.kind: expected one of text, .*, got 'poem'"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            make()
    for make, message in (
        (lambda: mg.Score([("a", 1, 60)]), r"notes\[0\]\.start: expected integers, got <U1"),
        (lambda: mg.Score(3), "notes: expected a structured array, a mapping of columns or a sequence of tuples"),
        (lambda: mg.Score(tracks=["Soprano"]), r"tracks\[0\]: expected a Track, got str"),
        (lambda: mg.Score(ticks_per_quarter=480.0), "ticks_per_quarter: expected an integer, got float"),
        (lambda: mg.Score(texts=[Text(0, "text", "no bytes")]), r"texts\[0\]: expected a Text with bytes"),
    ):
        with pytest.raises(TypeError, match=message):
            make()
    assert mg.Score({"start": np.array([0.0]), "duration": [480], "pitch": np.array([60], np.uint8)}).end_time == 0.5


def test_a_full_disk_or_a_missing_folder_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        full_score().save(tmp_path / "no" / "x.mid")
    assert error.value.filename == str(tmp_path / "no" / "x.mid")
    with pytest.raises(IsADirectoryError):
        full_score().save(tmp_path)


# -- tracks, pictures, and how a score shows itself --------------------------------------------------------------------


def test_channels_are_given_out_without_the_drum_channel():
    score = mg.Score([(0, 1, 60, 80, n) for n in range(12)])
    assert score.notes["channel"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12]
    given = mg.Score([(0, 1, 60, 80, 0, 7)], tracks=[mg.Track(program=3)])
    assert given.tracks == (mg.Track("", 3, 7, False),)
    assert mg.Score().tracks == (mg.Track(),)


def test_a_score_tells_what_it_is():
    assert repr(full_score()) == ("<Score: 4 notes, 3 tracks ('Soprano', 'Baß', 'Kit'), 1.47 s, 480 ticks per quarter>")
    with pytest.warns(mg.MidiWarning, match="1 more"):
        score = mg.read_midi(smf(b"\x00\x80\x3c\x40" * 2))
    assert "2 issues" in repr(score)


def test_the_piano_roll_shows_every_note():
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    score = full_score()
    ax = score.plot()
    try:
        rectangles = [path for part in ax.collections for path in part.get_paths() if part.get_zorder() == 2]
        left = sorted(path.vertices[:, 0].min() for path in rectangles)
        assert left == sorted(score.notes["start"].tolist())
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["Soprano", "Baß", "Kit"]
        assert [label.get_text() for label in ax.get_xticklabels()] == ["1"]
        assert {"C3", "C4"} <= {label.get_text() for label in ax.get_yticklabels()}
        other = plt.figure().add_subplot()
        assert mg.Score([(0, 480 * 4 * 1000, 60)]).plot(other) is other
        assert len(other.get_xticks()) <= 64
        assert mg.Score().plot(plt.figure().add_subplot()).get_legend() is None
    finally:
        plt.close("all")


def test_the_notebook_picture_needs_no_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    score = mg.Score([(0, 480, 60), (480, 10, 72)], tracks=[mg.Track("<script>")])
    picture = score._repr_html_()
    assert picture.count('rx="1.5"') == 2
    assert "<script>" not in picture
    assert "&lt;script&gt;" in picture
    with pytest.raises(ImportError, match=r'matplotlib is needed to plot: pip install "musicgen-ext\[plot\]"'):
        score.plot()
    monkeypatch.setitem(sys.modules, "pretty_midi", None)
    with pytest.raises(ImportError, match=r'pip install "musicgen-ext\[midi\]"'):
        score.to_pretty_midi()
    long = mg.Score([(n, 1, 60) for n in range(5000)])
    assert "the first 4000 notes are drawn" in long._repr_html_()
