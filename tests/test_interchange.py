"""Scores as objects of pretty_midi, mido and symusic: what comes back, and what those packages read themselves."""

from __future__ import annotations

import io
import random
import sys
import warnings
from pathlib import Path

import mido
import numpy as np
import pretty_midi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import musicgen_ext as mg
from fuzz_midi import END, chunk, random_file
from musicgen_ext.midi import Text

ROOT = Path(__file__).parents[1]
REAL_FILES = sorted((ROOT.parent / "shared" / "data" / "midi_samples").glob("*.mid"))
real_files = pytest.mark.skipif(
    not REAL_FILES, reason="no folder of real files beside the checkout (../shared/data/midi_samples)"
)


def smf(*tracks: bytes, format: int = 1, division: int = 480, end: bytes = END) -> bytes:
    fields = b"".join(value.to_bytes(2, "big") for value in (format, len(tracks), division))
    return chunk(b"MThd", fields) + b"".join(chunk(b"MTrk", track + end) for track in tracks)


def quietly_read(data: bytes) -> mg.Score:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mg.MidiWarning)
        return mg.read_midi(data, max_duration=float("inf"))


def made_by_mido(rng: random.Random) -> bytes:
    """Tempos and signatures in the first track, notes of different pitches or apart, controls, programs, texts."""
    file = mido.MidiFile(type=1, ticks_per_beat=rng.choice((96, 220, 480)))
    first = mido.MidiTrack()
    file.tracks.append(first)
    for delta in (0, 480, 700, 481):
        first.append(mido.MetaMessage("set_tempo", tempo=rng.randint(200_000, 1_200_000), time=delta))
    first.append(
        mido.MetaMessage("time_signature", numerator=rng.randint(1, 12), denominator=rng.choice((2, 4, 8, 16)))
    )
    first.append(mido.MetaMessage("key_signature", key=rng.choice(("C", "F#m", "Bb", "Ebm", "C#", "Abm")), time=100))
    first.append(mido.MetaMessage("lyrics", text="la", time=7))
    for n in range(rng.randint(1, 4)):
        track = mido.MidiTrack()
        file.tracks.append(track)
        track.append(mido.MetaMessage("track_name", name=f"part {n}"))
        channel = rng.choice((n, n, 9))
        if rng.random() < 0.8:
            track.append(mido.Message("program_change", channel=channel, program=rng.randrange(128)))
        for _ in range(rng.randint(1, 60)):
            pitch = rng.randrange(128)
            track.append(
                mido.Message(
                    "note_on", channel=channel, note=pitch, velocity=rng.randint(1, 127), time=rng.randrange(300)
                )
            )
            if rng.random() < 0.3:
                track.append(
                    mido.Message(
                        "control_change", channel=channel, control=64, value=rng.randrange(128), time=rng.randrange(20)
                    )
                )
            if rng.random() < 0.3:
                track.append(
                    mido.Message("pitchwheel", channel=channel, pitch=rng.randint(-8192, 8191), time=rng.randrange(20))
                )
            track.append(mido.Message("note_off", channel=channel, note=pitch, velocity=0, time=rng.randint(1, 300)))
    stream = io.BytesIO()
    file.save(file=stream)
    return stream.getvalue()


def contents(pm):
    return sorted(
        (
            instrument.program,
            instrument.is_drum,
            instrument.name,
            sorted((note.start, note.end, note.pitch, note.velocity) for note in instrument.notes),
            sorted((control.time, control.number, control.value) for control in instrument.control_changes),
            sorted((bend.time, bend.pitch) for bend in instrument.pitch_bends),
        )
        for instrument in pm.instruments
    )


def test_pretty_midi_gets_from_us_what_it_reads_itself():
    """To the bit. Its habits, which these files avoid: an off ends all sounding notes of its pitch; tempos outside the
    first track do not count; a program counts from where a note ends."""
    rng = random.Random(5)
    for _ in range(40):
        data = made_by_mido(rng)
        theirs = pretty_midi.PrettyMIDI(io.BytesIO(data))
        score = mg.read_midi(data, strict=True)
        ours = score.to_pretty_midi()
        assert contents(ours) == contents(theirs)
        assert [(k.key_number, k.time) for k in ours.key_signature_changes] == [
            (k.key_number, k.time) for k in theirs.key_signature_changes
        ]
        assert [str(t) for t in ours.time_signature_changes] == [str(t) for t in theirs.time_signature_changes]
        assert [(lyric.text, lyric.time) for lyric in ours.lyrics] == [
            (lyric.text, lyric.time) for lyric in theirs.lyrics
        ]
        for a, b in zip(ours.get_tempo_changes(), theirs.get_tempo_changes(), strict=True):
            assert np.array_equal(a, b)
        assert score.end_time == pytest.approx(theirs.get_end_time(), abs=1e-9)
        ticks = np.array([0, 1, 479, 480, 5000])
        assert score.to_seconds(ticks) == pytest.approx([theirs.tick_to_time(int(t)) for t in ticks], abs=1e-9)


def note_rows(score):
    return np.sort(
        score.notes[["start", "duration", "pitch", "velocity"]], order=("start", "pitch", "duration")
    ).tolist()


def test_a_score_survives_pretty_midi():
    rng = random.Random(6)
    for _ in range(20):
        score = mg.read_midi(made_by_mido(rng))
        again = mg.Score.from_pretty_midi(score.to_pretty_midi())
        for name in ("tempos", "time_signatures"):
            assert getattr(again, name).tolist() == getattr(score, name).tolist(), name
        # It knows tonics, not spellings: six flats come back as six sharps.
        assert [(t, s * 7 % 12, m) for t, s, m, _ in again.key_signatures.tolist()] == [
            (t, s * 7 % 12, m) for t, s, m, _ in score.key_signatures.tolist()
        ]
        kept = np.sort(again.notes, order=("start", "pitch", "duration"))
        mine = np.sort(score.notes, order=("start", "pitch", "duration"))
        for field in ("start", "duration", "pitch", "velocity"):
            assert kept[field].tolist() == mine[field].tolist(), field


def test_from_pretty_midi_names_what_is_wrong():
    def made(**changed):
        pm = pretty_midi.PrettyMIDI()
        instrument = pretty_midi.Instrument(0)
        values = {"velocity": 80, "pitch": 60, "start": 0.0, "end": 1.0} | changed
        instrument.notes = [pretty_midi.Note(80, 60, 0, 1), pretty_midi.Note(**values)]
        pm.instruments.append(instrument)
        return pm

    assert len(mg.Score.from_pretty_midi(made()).notes) == 2
    for changed, message in (
        ({"start": float("nan")}, r"instruments\[0\]\.notes\[1\]\.start: expected seconds >= 0, got nan"),
        ({"start": -1.0}, r"instruments\[0\]\.notes\[1\]\.start: expected seconds >= 0, got -1"),
        ({"end": float("inf")}, r"instruments\[0\]\.notes\[1\]\.end: expected seconds >= 0, got inf"),
        ({"end": 0.0}, r"instruments\[0\]\.notes\[1\]\.end: expected seconds after its start 0\.0, got 0\.0"),
        ({"pitch": 200}, r"notes\[1\]\.pitch: expected a whole number from 0 to 127, got 200"),
    ):
        with pytest.raises(ValueError, match=message):
            mg.Score.from_pretty_midi(made(**changed))
    with pytest.raises(TypeError, match=r"pm: expected a pretty_midi\.PrettyMIDI, got int"):
        mg.Score.from_pretty_midi(3)
    with pytest.raises(ValueError, match="expected one timeline in ticks per quarter for pretty_midi, got format 2"):
        mg.read_midi(smf(bytes.fromhex("00903c40 60803c40"), format=2)).to_pretty_midi()


@real_files
def test_real_files_agree_with_pretty_midi():
    for path in REAL_FILES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some have signatures outside the first track
            theirs = pretty_midi.PrettyMIDI(str(path))
        score = mg.read_midi(path, strict=True)
        assert contents(score.to_pretty_midi()) == contents(theirs)
        assert mg.read_midi(score.to_bytes(), strict=True) == score
        again = mg.Score.from_pretty_midi(score.to_pretty_midi())
        assert note_rows(again) == note_rows(score)
        assert contents(again.to_pretty_midi()) == contents(theirs)


# -- mido --------------------------------------------------------------------------------------------------------------


def absolute(track):
    """(time, message) of a track with absolute times, an "off" that is an "on" of velocity 0 as an off."""
    now, found = 0, []
    for message in track:
        now += message.time
        if message.type == "note_on" and message.velocity == 0:
            message = mido.Message("note_off", channel=message.channel, note=message.note)
        found.append((now, str(message.copy(time=0))))
    return sorted(found)


def messages(file):
    return [[str(message) for message in track] for track in file.tracks]


def test_mido_gets_from_us_what_it_reads_itself():
    """Message by message, from what we write. From the file itself, all but the order inside a tick is the same."""
    rng = random.Random(7)
    for _ in range(20):
        data = made_by_mido(rng)
        score = mg.read_midi(data, strict=True)
        ours, theirs = score.to_mido(), mido.MidiFile(file=io.BytesIO(data))
        assert (ours.type, ours.ticks_per_beat) == (theirs.type, theirs.ticks_per_beat)
        assert messages(ours) == messages(mido.MidiFile(file=io.BytesIO(score.to_bytes())))
        for mine, other in zip(ours.tracks, theirs.tracks, strict=True):
            assert absolute(mine) == absolute(other)


@real_files
def test_real_files_agree_with_mido():
    for path in REAL_FILES:
        score = mg.read_midi(path, strict=True)
        assert mg.Score.from_mido(score.to_mido()) == score
        assert mg.Score.from_mido(mido.MidiFile(path)) == score


def test_a_score_survives_mido():
    """Whatever is in it, but for alien chunks and escaped system exclusive data, which have no place in mido."""
    for n in range(200):
        score = quietly_read(random_file(random.Random(n)))
        escaped = np.flatnonzero(score._events["status"] == 0xF7)
        whole = [score._payload_of(row) for row in np.flatnonzero(score._events["status"] == 0xF0)]
        if len(escaped) or not all(payload.endswith(b"\xf7") for payload in whole):
            continue
        score._chunks = b""
        assert mg.Score.from_mido(score.to_mido()) == score, n


def test_what_mido_has_no_name_for_keeps_its_bytes_and_its_time():
    """mido's own reader fails at a malformed key signature, and forgets the time before an unknown meta event."""
    events = bytes.fromhex("00ff5903090000 20ff600201ff 20ff58020404 10ff5103000000 00903c40 60803c40 10ff0003010203")
    events += b"\x00\xff\x03\x05Fl\xf6te\x00\xff\x05\x04\xe2\x99\xa9!"
    score = quietly_read(smf(events))
    file = score.to_mido()
    found = [(m.type, m.time) for m in file.tracks[0]]
    assert found[:4] == [("unknown_meta", 0), ("unknown_meta", 32), ("unknown_meta", 32), ("set_tempo", 16)]
    assert found[-1] == ("end_of_track", 0)
    with pytest.warns(mg.MidiWarning, match="key signature"):
        again = mg.Score.from_mido(file)
    assert again == score
    assert [text.data for text in again.texts] == [b"Fl\xf6te", b"\xe2\x99\xa9!"]


def test_mido_with_smpte_time_and_other_formats():
    note = bytes.fromhex("00903c40 60803c40")
    for data in (smf(note, division=0xE728), smf(note, format=0), smf(note, note, format=2)):
        score = mg.read_midi(data)
        file = score.to_mido()
        assert file.ticks_per_beat == mido.MidiFile(file=io.BytesIO(data)).ticks_per_beat
        assert file.type == score.format
        assert mg.Score.from_mido(file) == score
    sysex = bytes.fromhex("00f003010203 10f7020405 10f70106 00f0030708f7") + note
    kept = mg.read_midi(smf(sysex)).to_mido()
    assert [m.type for m in kept.tracks[0]][:2] == ["sysex", "note_on"]
    assert kept.tracks[0][0].time == 32
    assert kept.tracks[0][0].data == (7, 8)


def test_from_mido_names_what_is_wrong():
    track = mido.MidiTrack([mido.Message("note_on", note=60, time=0.5)])
    with pytest.raises(ValueError, match="file: expected messages that mido can save, got message time must be int"):
        mg.Score.from_mido(mido.MidiFile(tracks=[track]))
    with pytest.raises(ValueError, match="file: expected messages that mido can save, got 'latin-1'"):
        mg.Score.from_mido(mido.MidiFile(tracks=[mido.MidiTrack([mido.MetaMessage("text", text="♩")])]))
    with pytest.raises(TypeError, match=r"file: expected a mido\.MidiFile, got int"):
        mg.Score.from_mido(3)


# -- symusic -----------------------------------------------------------------------------------------------------------


def of_symusic(score):
    """What a symusic score holds, in an order of its own."""
    return (
        score.ticks_per_quarter,
        [(t.time, t.mspq) for t in score.tempos],
        [(t.time, t.numerator, t.denominator) for t in score.time_signatures],
        [(t.time, t.key, t.tonality) for t in score.key_signatures],
        [(t.time, t.text) for t in score.markers],
        sorted(
            (
                track.name,
                track.program,
                track.is_drum,
                sorted((n.time, n.duration, n.pitch, n.velocity) for n in track.notes),
                sorted((c.time, c.number, c.value) for c in track.controls),
                sorted((b.time, b.value) for b in track.pitch_bends),
                pedals(track),
                sorted((t.time, t.text) for t in track.lyrics),
            )
            for track in score.tracks
        ),
    )


def pedals(track):
    """All but the first: symusic's reader believes that the pedal is down from tick 0 until it is lifted first."""
    changes = [c for c in track.controls if c.number == 64]
    lifted = next((c.time for c in changes if c.value < 64), 0)
    return sorted((p.time, p.duration) for p in track.pedals if p.time >= lifted)


def test_symusic_gets_from_us_what_it_reads_itself():
    """Its habits: see `pedals`; lyrics get a track of their own (left out here)."""
    symusic = pytest.importorskip("symusic")
    rng = random.Random(8)
    for _ in range(40):
        data = made_by_mido(rng)
        score = mg.read_midi(data, strict=True)
        score.texts = [text for text in score.texts if text.kind != "lyric"]
        ours, theirs = score.to_symusic(), symusic.Score.from_midi(score.to_bytes())
        assert of_symusic(ours) == of_symusic(theirs)


@real_files
def test_real_files_agree_with_symusic():
    symusic = pytest.importorskip("symusic")
    for path in REAL_FILES:
        score = mg.read_midi(path, strict=True)
        ours, theirs = score.to_symusic(), symusic.Score(str(path))
        if not any(track.lyrics for track in ours.tracks):
            assert of_symusic(ours) == of_symusic(theirs)
        assert note_rows(mg.Score.from_symusic(ours)) == note_rows(score)


def test_a_score_survives_symusic():
    symusic = pytest.importorskip("symusic")
    rng = random.Random(9)
    for _ in range(20):
        score = mg.read_midi(made_by_mido(rng))
        theirs = score.to_symusic()
        again = mg.Score.from_symusic(theirs)
        for name in ("tempos", "key_signatures", "texts"):
            mine, other = (
                [row for row in getattr(s, name) if getattr(row, "kind", "") != "track_name"] for s in (score, again)
            )
            assert [tuple(row)[:3] for row in other] == [tuple(row)[:3] for row in mine], name
        assert again.time_signatures[["time", "numerator", "denominator"]].tolist() == (
            score.time_signatures[["time", "numerator", "denominator"]].tolist()
        )
        assert note_rows(again) == note_rows(score)
        assert of_symusic(again.to_symusic()) == of_symusic(theirs)
        assert of_symusic(mg.Score.from_symusic(theirs.to("quarter")).to_symusic()) == of_symusic(theirs)
    made = symusic.Score(480)
    made.tracks.append(symusic.Track("Piano", 4, False))
    made.tracks[0].notes.append(symusic.Note(0, 480, 60, 90))
    made.tracks[0].pedals.append(symusic.Pedal(0, 960))
    score = mg.Score.from_symusic(made)
    assert score.controls[["time", "number", "value"]].tolist() == [(0, 64, 127), (960, 64, 0)]
    assert score.tracks == (mg.Track("Piano", 4, 0, False),)


def test_symusic_keeps_tracks_without_notes_and_lyrics_once():
    symusic = pytest.importorskip("symusic")
    score = mg.Score(
        [(0, 10, 60, 80, 0), (20, 10, 61, 80, 0), (0, 10, 36, 80, 2)],
        tracks=[mg.Track("a", 1), mg.Track("b"), mg.Track("c", is_drum=True)],
        programs=[(15, 9, 0, 0)], controls=[(5, 7, 100, 0, 0), (6, 7, 90, 1, 1)], pitch_bends=[(17, 5, 0, 0)],
        texts=[Text(3, "lyric", b"la", 0), Text(4, "lyric", b"lo", 3), Text(9, "marker", b"A", 1)],
    )  # fmt: skip
    found = [
        (t.name, t.program, t.is_drum, len(t.notes), len(t.controls), len(t.pitch_bends), [x.text for x in t.lyrics])
        for t in score.to_symusic().tracks
    ]
    assert found == [
        ("a", 1, False, 1, 1, 0, ["la"]),
        ("a", 9, False, 1, 0, 1, []),
        ("b", 0, False, 0, 1, 0, []),
        ("c", 0, True, 1, 0, 0, []),
        ("", 0, False, 0, 0, 0, ["lo"]),
    ]
    assert isinstance(score.to_symusic(), symusic.core.ScoreTick)
    assert mg.Score().to_symusic().empty()


def test_symusic_names_what_is_wrong():
    symusic = pytest.importorskip("symusic")
    with pytest.raises(
        ValueError, match=r"score: expected at most 2147483647 ticks \(symusic's limit\), got 2147483648"
    ):
        mg.Score([(2**31 - 1, 1, 60)]).to_symusic()
    with pytest.raises(
        ValueError, match="score: expected one timeline in ticks per quarter for symusic, got SMPTE time"
    ):
        mg.read_midi(smf(b"", division=0xE728)).to_symusic()
    with pytest.raises(TypeError, match=r"score: expected a symusic\.Score, got int"):
        mg.Score.from_symusic(3)
    made = symusic.Score(480)
    made.tracks.append(symusic.Track("", 0, False))
    made.tracks[0].notes.append(symusic.Note(0, 0, 60, 90))
    with pytest.raises(ValueError, match=r"notes\[0\]\.duration: expected a whole number from 1 to"):
        mg.Score.from_symusic(made)


@pytest.mark.parametrize(
    ("name", "what"), [("pretty_midi", '"musicgen-ext[midi]"'), ("mido", "mido"), ("symusic", "symusic")]
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(name, what, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError) as error:
        getattr(mg.Score(), f"to_{name}")()
    assert str(error.value) == f"{name} is needed for this: pip install {what}"


notes = st.lists(
    st.tuples(
        st.integers(0, 10**6), st.integers(1, 10**5), st.integers(0, 127), st.integers(1, 127), st.integers(0, 3)
    ),
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(notes, st.integers(1, 32_767))
def test_any_notes_survive_mido_and_symusic(rows, ticks_per_quarter):
    score = mg.Score(rows, ticks_per_quarter=ticks_per_quarter)
    assert mg.Score.from_mido(score.to_mido()) == score
    pytest.importorskip("symusic")
    assert note_rows(mg.Score.from_symusic(score.to_symusic())) == note_rows(score)


def test_signatures_of_several_tracks_come_in_time_order():
    pytest.importorskip("symusic")
    score = mg.Score(
        time_signatures=[(0, 4, 4, 24, 8, 0), (960, 3, 4, 24, 8, 0), (480, 2, 4, 24, 8, 1)],
        key_signatures=[(0, 1, 0, 0), (960, 2, 0, 0), (480, 3, 0, 1)],
        tempos=[(0, 500_000, 0), (960, 400_000, 0), (480, 300_000, 1)],
    )
    theirs = score.to_symusic()
    assert [t.numerator for t in theirs.time_signatures] == [4, 2, 3]
    assert [t.key for t in theirs.key_signatures] == [1, 3, 2]
    assert [t.mspq for t in theirs.tempos] == [500_000, 300_000, 400_000]
    pm = score.to_pretty_midi()
    assert [t.numerator for t in pm.time_signature_changes] == [4, 2, 3]
    assert [t.key_number for t in pm.key_signature_changes] == [7, 9, 2]
