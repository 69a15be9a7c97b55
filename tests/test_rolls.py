"""Piano rolls against their twin, pretty_midi and symusic; and the times in seconds they are made of."""

import _thread
import io
import random
import re
import threading
import time
import tracemalloc
import warnings
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import musicgen_ext as mg
from musicgen_ext import MidiError, MidiWarning, Score, _core, read_midi
from musicgen_reference import rolls as reference

DATA = Path(__file__).parents[1] / ".." / "shared" / "data"


def bytes_of(division, tracks, *, format=1):
    """A file of `tracks`, each a list of (tick, event's bytes) in order."""
    chunks = [b"MThd" + bytes([0, 0, 0, 6, 0, format, 0, len(tracks)]) + division.to_bytes(2, "big")]
    for events in tracks:
        body, now = b"", 0
        for tick, event in [*events, (events[-1][0] if events else 0, b"\xff\x2f\x00")]:
            delta, now = tick - now, tick
            digits = [delta & 127]
            while delta := delta >> 7:
                digits.append(delta & 127 | 128)
            body += bytes(reversed(digits)) + event
        chunks.append(b"MTrk" + len(body).to_bytes(4, "big") + body)
    return b"".join(chunks)


def tempo(microseconds):
    return b"\xff\x51\x03" + microseconds.to_bytes(3, "big")


def random_file(rng, ticks=None):
    """Valid bytes in which everything happens at once: few pitches, channels and ticks, many kinds of events."""
    ticks = ticks or int(rng.choice([5, 40, 400]))
    tracks = []
    for index in range(int(rng.integers(1, 4))):
        channels = rng.choice([0, 1, 9, 15], 2)
        events = random_tempos(rng, int(rng.integers(0, 4)), ticks, 600_000) if index == 0 else []
        for _ in range(int(rng.integers(1, 120))):
            channel, pitch, value = int(rng.choice(channels)), int(rng.choice([0, 1, 2, 60, 61, 126, 127])), 0
            value = int(rng.integers(1, 128))
            bend = [(0, 64), (1, 64), (0, 0), (127, 127), (0, 96), (0, 32), (value, value)][int(rng.integers(7))]
            kinds = [
                [0x90 | channel, pitch, value],
                [0x90 | channel, pitch, value],
                [0x90 | channel, pitch, 0],
                [0x80 | channel, pitch, value],
                [0x80 | channel, pitch, value],
                [0xC0 | channel, value % 3],
                [0xB0 | channel, 7, value],
                [0xB0 | channel, 64, int(rng.choice([0, 63, 64, 127]))],
                [0xE0 | channel, *bend],
                [0xA0 | channel, pitch, value],
            ]
            events.append((int(rng.integers(0, ticks)), bytes(kinds[int(rng.integers(len(kinds)))])))
        tracks.append(sorted(events, key=lambda event: event[0]))
    return bytes_of(int(rng.choice([48, 96, 480])), tracks)


# -- seconds --------------------------------------------------------------------------------------------------------


def random_tempos(rng, count, ticks, slowest=(1 << 24) - 1):
    times = np.sort(rng.integers(0, ticks, count)) * (rng.random(count) < 0.8)
    values = rng.choice([500_000, 400_001, 1, slowest, int(rng.integers(1, slowest))], count)
    return [(int(time), tempo(int(value))) for time, value in zip(np.sort(times), values, strict=True)]


@pytest.mark.parametrize("division", [1, 96, 480, 32_767, 0xE728, 0xE250, 0xE704, 0xE864])
@pytest.mark.parametrize("format", [1, 2])
def test_R07_native_seconds_are_those_of_a_score(rng, division, format):
    tracks = [random_tempos(rng, 30, 5000) for _ in range(3)]
    tracks[1].insert(0, (0, b"\xff\x51\x03\x00\x00\x00"))  # a tempo of 0 and one too short: no tempos
    tracks[2].insert(0, (0, b"\xff\x51\x02\x01\x02"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        score = read_midi(bytes_of(division, tracks, format=format))
    ticks = rng.integers(0, 10_000, 500)
    for track in range(3):
        expected = score.to_seconds(ticks, track=track)
        np.testing.assert_array_equal(_core.midi_seconds(*score._tables(), ticks, track, False), expected)
    assert _core.midi_duration(*score._tables()) == score.end_time


def test_R07_smpte_seconds(rng):
    ticks = rng.integers(0, 1 << 40, 1000)
    for fps, exact in ((24, 24), (25, 25), (29, 30_000 / 1001), (30, 30)):
        score = read_midi(bytes_of((256 - fps) << 8 | 80, [[(1, tempo(400_000))]]))
        for order in (False, True):
            seconds = _core.midi_seconds(*score._tables(), ticks, 0, order)
            np.testing.assert_allclose(seconds, ticks / (exact * 80), rtol=1e-15)
            assert (seconds >= 0).all()


def test_R12_seconds_of_ticks_beyond_32_bits():
    score = Score([(0, 1 << 40, 60)], ticks_per_quarter=1, tempos=[(0, 3), (1 << 39, 16_777_215)])
    exact = ((1 << 39) * 3 + (1 << 39) * 16_777_215) / 1e6
    assert _core.midi_seconds(*score._tables(), np.array([1 << 40]), 0, False)[0] == exact == score.end_time


def test_seconds_have_the_bits_of_pretty_midi(rng):
    pretty_midi = pytest.importorskip("pretty_midi")
    for division in (1, 96, 480, 960):
        data = bytes_of(division, [random_tempos(rng, 60, 3000), [(8000, b"\x90\x40\x40"), (8001, b"\x80\x40\x40")]])
        pm = pretty_midi.PrettyMIDI(io.BytesIO(data))
        ticks = rng.permutation(8000)
        expected = pm._PrettyMIDI__tick_to_time[ticks]
        tables = read_midi(data, max_duration=1e9)._tables()
        np.testing.assert_array_equal(_core.midi_seconds(*tables, ticks, 0, True), expected)


# -- twin -----------------------------------------------------------------------------------------------------------


def twin(data, **options):
    """The reference's roll in the shape and type of ours."""
    channels = options.get("channels", ("frame",))
    roll = np.array(reference.piano_roll(data, **options), np.float64)
    if not options.get("per_track"):
        roll = roll[:, 0]
    return roll if len(channels) > 1 else roll[0]


def quiet_roll(source, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MidiWarning)
        return mg.piano_roll(source, **options)


def quiet_score(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MidiWarning)
        return read_midi(data)


ALL = ("frame", "onset", "offset")
OPTIONS = [
    {"fs": 100},
    {"fs": 7, "channels": ALL},
    {"fs": 31.7, "per_track": True, "drums": True},
    {"fs": 20, "overlap": "keep", "channels": ("offset", "frame"), "per_track": True},
    {"fs": 20, "overlap": "keep", "pedal_threshold": None},
    {"fs": 11, "pedal_threshold": 100, "drums": True, "binary": True},
    {"fs": 15, "times": [0, 0.1, 0.1, 0.5, 3, 3.3], "drums": True},
    {"fs": 15, "times": [0.4], "per_track": True},
    {"steps_per_beat": 4},
    {"steps_per_beat": 7, "channels": ALL, "per_track": True},
    {"steps_per_beat": 24, "overlap": "cut", "drums": True},
    {"steps_per_beat": 1, "binary": True, "channels": ("onset",)},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_twin(rng, options):
    for _ in range(12):
        data = random_file(rng)
        expected = twin(data, **options)
        roll = quiet_roll(data, **options)
        assert roll.dtype == (np.uint8 if "steps_per_beat" in options else np.float64)
        np.testing.assert_array_equal(roll, expected)
        # A score is the file that would be written of it.
        score = quiet_score(data)
        np.testing.assert_array_equal(mg.piano_roll(score, **options), twin(score.to_bytes(), **options))


@pytest.mark.parametrize("division", [1, 480, 32_767, 0xE728, 0xE250, 0xE704])
@pytest.mark.parametrize("format", [1, 2])
def test_twin_on_other_timelines(rng, division, format):
    """SMPTE, and format 2 with its timeline for every track: pretty_midi reads neither."""
    tracks = []
    for _ in range(3):
        events = random_tempos(rng, 5, 300, 600_000)
        events += [(int(t), bytes([0x90, int(p), int(v)])) for t, p, v in rng.integers(0, [300, 128, 128], (40, 3))]
        tracks.append(sorted(events, key=lambda event: event[0]))
    data = bytes_of(division, tracks, format=format)
    for options in ({"fs": 3.7}, {"fs": 9, "per_track": True, "channels": ALL}):
        np.testing.assert_array_equal(quiet_roll(data, **options), twin(data, **options))
    if division >= 0x8000:
        with pytest.raises(ValueError, match="steps_per_beat: expected a piece in ticks per quarter note, got SMPTE"):
            quiet_roll(data, steps_per_beat=4)


# -- laws -----------------------------------------------------------------------------------------------------------


def test_the_types_say_the_same(rng):
    for _ in range(20):
        data = random_file(rng)
        for options in ({"fs": 50}, {"steps_per_beat": 12}, {"fs": 9, "times": [0, 0.2, 0.7, 1.5]}):
            exact = quiet_roll(data, dtype=np.float64, **options)
            for dtype in (np.float32, np.uint8):
                roll = quiet_roll(data, dtype=dtype, **options)
                expected = np.minimum(np.floor(exact), 255) if dtype == np.uint8 else exact
                np.testing.assert_array_equal(roll, expected.astype(dtype))
            np.testing.assert_array_equal(quiet_roll(data, dtype=bool, **options), exact != 0)
            for dtype in (np.float64, np.float32, np.uint8):
                binary = quiet_roll(data, dtype=dtype, binary=True, **options)
                assert binary.dtype == dtype
                np.testing.assert_array_equal(binary, exact != 0)
            packed = quiet_roll(data, packed=True, **options)
            assert packed.dtype == np.uint8
            np.testing.assert_array_equal(packed, np.packbits(exact != 0, axis=-1))


def test_tracks_and_channels_are_those_of_the_whole(rng):
    for _ in range(20):
        data = random_file(rng)
        for options in ({"fs": 50, "drums": True}, {"steps_per_beat": 12, "dtype": np.float64}):
            whole = quiet_roll(data, **options)
            tracks = quiet_roll(data, per_track=True, **options)
            assert len(tracks) == len(quiet_score(data).tracks)
            np.testing.assert_array_equal(tracks.sum(axis=0), whole)
            several = quiet_roll(data, channels=("onset", "frame"), per_track=True, **options)
            np.testing.assert_array_equal(several[1], tracks)
            onsets = quiet_roll(data, channels="onset", per_track=True, **options)
            np.testing.assert_array_equal(several[0], onsets)
            offsets = quiet_roll(data, channels="offset", per_track=True, **options)
            np.testing.assert_array_equal(offsets.sum(axis=-1), onsets.sum(axis=-1))


def test_out_is_drawn_over_whatever_it_held(rng):
    data = random_file(rng)
    for options in (
        {"fs": 50},
        {"fs": 50, "times": [0, 1, 2]},
        {"steps_per_beat": 12, "channels": ALL, "per_track": True},
        {"fs": 50, "packed": True},
        {"fs": 50, "binary": True, "dtype": np.float32, "channels": ALL},
    ):
        expected = quiet_roll(data, **options)
        out = np.full_like(expected, 93)
        assert quiet_roll(data, out=out, **options) is out
        np.testing.assert_array_equal(out, expected)


def test_an_empty_piece_has_no_columns():
    for source in (Score(), bytes_of(480, [[]])):
        assert mg.piano_roll(source).shape == (128, 0)
        assert mg.piano_roll(source, steps_per_beat=4, per_track=True, channels=ALL).shape == (3, 1, 128, 0)
        assert mg.piano_roll(source, packed=True).shape == (128, 0)
        assert mg.piano_roll(source, times=[0, 1]).shape == (128, 0)


def test_steps_round_halves_up_and_a_note_fills_one_at_least():
    notes = [(0, 1, 60), (59, 1, 61), (60, 1, 62), (100, 139, 63), (100, 140, 64), (0, 480, 65), (180, 120, 65)]
    roll = mg.piano_roll(Score(notes, ticks_per_quarter=480), steps_per_beat=4, binary=True)
    steps = {pitch: np.flatnonzero(roll[pitch]).tolist() for pitch in (60, 61, 62, 63, 64, 65)}
    assert steps == {60: [0], 61: [0], 62: [1], 63: [1], 64: [1], 65: [0, 1, 2, 3]}
    assert roll.shape == (128, 4)


def test_sums_in_bytes_end_at_255():
    score = Score([(0, 960, 60, 127), (0, 480, 60, 127), (0, 480, 60, 127), (480, 480, 60, 1)])
    roll = mg.piano_roll(score, steps_per_beat=1)
    assert roll[60].tolist() == [255, 128]


# -- oracles --------------------------------------------------------------------------------------------------------


def pretty(data):
    pretty_midi = pytest.importorskip("pretty_midi")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pretty_midi.PrettyMIDI(io.BytesIO(data))


def assert_drawn_as_pretty_midi_does(data, **options):
    pm = pretty(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = pm.get_piano_roll(**options)
    for source in (data, pm):
        roll = quiet_roll(source, **options)
        assert roll.dtype == expected.dtype
        np.testing.assert_array_equal(roll, expected)


def test_pretty_midi_on_random_files(rng):
    for _ in range(60):
        data = random_file(rng)
        times = np.sort(rng.random(int(rng.integers(1, 30)))) * 5
        for options in (
            {"fs": 100},
            {"fs": int(rng.integers(1, 50)), "times": times},
            {"fs": float(rng.uniform(0.1, 1000)), "pedal_threshold": rng.choice([None, 1, 64, 128])},
        ):
            assert_drawn_as_pretty_midi_does(data, **options)
            assert_drawn_as_pretty_midi_does(quiet_score(data).to_bytes(), **options)


def real_files():
    """A sample of real MIDI files: (name, bytes)."""
    found = [(path.name, path.read_bytes()) for path in sorted((DATA / "midi_samples").glob("*.mid"))]
    for archive, count in (("nottingham/nottingham_midi.zip", 30), ("openscore_lieder/lieder_midi.zip", 10)):
        if (DATA / archive).exists():
            with zipfile.ZipFile(DATA / archive) as files:
                names = sorted(name for name in files.namelist() if name.endswith((".mid", ".midi")))
                found += [(name, files.read(name)) for name in random.Random(3).sample(names, count)]
    if not found:
        pytest.skip("no real MIDI files here (../shared/data)")
    return found


def test_pretty_midi_on_real_files():
    for _, data in real_files():
        assert_drawn_as_pretty_midi_does(data, fs=50)


def test_roll_of_a_pretty_midi_made_by_hand():
    """Events out of order, notes of no length or ending before they begin: as pretty_midi takes them."""
    pretty_midi = pytest.importorskip("pretty_midi")
    pm = pretty_midi.PrettyMIDI()
    empty, drums, piano = (pretty_midi.Instrument(0), pretty_midi.Instrument(0, True), pretty_midi.Instrument(3))
    pm.instruments += [empty, drums, piano]
    assert mg.piano_roll(pm).shape == pm.get_piano_roll().shape == (128, 0)
    drums.notes.append(pretty_midi.Note(90, 36, 0.0, 2.345))
    piano.notes += [
        pretty_midi.Note(100, 60, 0.5, 0.9),
        pretty_midi.Note(30, 60, 0.2, 0.7),
        pretty_midi.Note(20, 62, 1.0, 1.0),
        pretty_midi.Note(20, 62, 0.4, 0.4),
        pretty_midi.Note(20, 62, 0.1, 0.5),
    ]
    piano.notes[3].end = 0.3
    piano.control_changes += [
        pretty_midi.ControlChange(64, value, time)
        for value, time in ((127, 0.6), (0, 1.1), (70, 0.1), (64, 0.3), (0, 0.5), (90, 2.0), (0, 1.0), (64, 2.2))
    ]
    piano.pitch_bends += [pretty_midi.PitchBend(1234, 0.8), pretty_midi.PitchBend(-8192, 0.25)]
    for options in ({"fs": 100}, {"fs": 33.3}, {"fs": 10, "times": np.arange(0, 3, 0.25)}, {"pedal_threshold": None}):
        np.testing.assert_array_equal(mg.piano_roll(pm, **options), pm.get_piano_roll(**options))
    both = mg.piano_roll(pm, per_track=True)
    assert both.shape == (3, 128, 234)
    np.testing.assert_array_equal(both[2, :, :220], piano.get_piano_roll())
    steps = [len(mg.piano_roll(Score.from_pretty_midi(pretty(Score([(0, 9, 60)]).to_bytes())), steps_per_beat=s)[0])
             for s in (1, 480)]  # fmt: skip
    assert steps == [1, 9]

    piano.notes[0].velocity = 80.5
    with pytest.raises(ValueError, match=r"instruments\[2\]\.notes\[0\]\.velocity: expected a whole number .* 80\.5"):
        mg.piano_roll(pm)
    piano.notes[0] = pretty_midi.Note(80, 60, float("nan"), 1.0)
    with pytest.raises(ValueError, match=r"instruments\[2\]\.notes\[0\]\.start: expected seconds >= 0, got nan"):
        mg.piano_roll(pm)


def test_symusic_in_steps(rng):
    """On the grid, without overlaps, the two agree; symusic has one column more, and marks an offset one later."""
    symusic = pytest.importorskip("symusic")
    notes, at = [], np.zeros(128, np.int64)
    for _ in range(300):
        pitch, gap, length = int(rng.integers(0, 128)), int(rng.integers(0, 9)), int(rng.integers(1, 9))
        notes.append((int(at[pitch] + gap) * 120, length * 120, pitch, int(rng.integers(1, 128))))
        at[pitch] += gap + length
    data = Score(notes).to_bytes()
    theirs = symusic.Score.from_midi(data).resample(4, min_dur=1).pianoroll(
        modes=["onset", "frame", "offset"], pitch_range=[0, 128], encode_velocity=True
    )[:, 0]  # fmt: skip
    ours = mg.piano_roll(data, steps_per_beat=4, channels=("onset", "frame", "offset"))
    np.testing.assert_array_equal(ours[:2], theirs[:2, :, :-1])
    np.testing.assert_array_equal(ours[2], theirs[2, :, 1:])


# -- errors ---------------------------------------------------------------------------------------------------------


def test_R17_a_roll_too_large_is_refused_before_anything_is_allocated():
    ten_days = Score([(0, 1, 60), (10 * 86_400 * 192, 1, 60)], ticks_per_quarter=96)
    far = Score([(1 << 62, 1, 60)], ticks_per_quarter=1)
    limit, columns = 8 << 30, 864_000_005
    tracemalloc.start()
    for source, options, expected in (
        (ten_days, {"fs": 1000}, f"at most {limit} bytes (max_bytes), got {columns * 1024} for {columns} columns"),
        (ten_days.to_bytes(), {"fs": 1000}, f"MIDI data: expected a roll of at most {limit} bytes"),
        (ten_days, {"fs": 1000, "packed": True, "max_bytes": 1}, "at most 1 bytes (max_bytes), got 138240"),
        (
            ten_days,
            {"fs": 10, "per_track": True, "channels": ALL, "max_bytes": 1 << 20},
            f"got {128 * 8 * 3 * 8_640_000}",
        ),
        (ten_days, {"fs": 1e300}, f"at most {limit} bytes"),
        (ten_days, {"fs": 1e9, "times": [0, 1]}, f"at most {limit} bytes"),
        (far, {"steps_per_beat": 1_000_000}, f"at most {limit} bytes"),
    ):
        with pytest.raises(MemoryError, match=re.escape(expected)):
            mg.piano_roll(source, **options)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20  # and not gigabytes
    tracemalloc.stop()


@pytest.mark.parametrize("fs", [0, -1, -0.0, float("nan"), float("inf"), -float("inf")])
def test_R17_fs_out_of_range(fs):
    with pytest.raises(ValueError, match=re.escape(f"fs: expected frames per second above 0, got {fs}")):
        mg.piano_roll(Score([(0, 1, 60)]), fs=fs)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"fs": "100"}, TypeError, "fs: expected a number, got str '100'"),
        ({"fs": True}, TypeError, "fs: expected a number, got bool True"),
        ({"steps_per_beat": 0}, ValueError, "steps_per_beat: expected 1 to 1000000, got 0"),
        ({"steps_per_beat": 2.0}, TypeError, "steps_per_beat: expected an integer, got float 2.0"),
        ({"steps_per_beat": 4, "times": [1]}, ValueError, "times: expected none with steps_per_beat"),
        ({"times": []}, ValueError, r"times: expected shape \(n,\) with n >= 1, got \(0,\)"),
        ({"times": [0, 2, 1]}, ValueError, r"times\[2\]: expected finite seconds >= 0, not decreasing, got 1.0"),
        ({"times": [0, np.nan]}, ValueError, r"times\[1\]: expected finite seconds .*, got nan"),
        ({"times": [-1]}, ValueError, r"times\[0\]: expected finite seconds .*, got -1.0"),
        ({"times": ["a"]}, TypeError, "times: expected numbers, got <U1"),
        ({"times": [0], "channels": "onset"}, ValueError, "times: expected the channel frame alone"),
        ({"pedal_threshold": float("nan")}, ValueError, "pedal_threshold: expected a number or None, got nan"),
        ({"overlap": "both"}, ValueError, """overlap: expected "cut" or "keep", got 'both'"""),
        ({"channels": ()}, ValueError, r"channels: expected one or more of frame, onset, offset, each once, got \(\)"),
        ({"channels": ("frame", "frame")}, ValueError, "channels: expected one or more of .*, each once"),
        ({"channels": "pedal"}, ValueError, "channels: expected one or more of .*, got 'pedal'"),
        ({"dtype": "int16"}, ValueError, "dtype: expected float64, float32, uint8, bool, got int16"),
        ({"dtype": ">f8"}, ValueError, "dtype: expected float64, .*, got >f8"),
        ({"dtype": "float32", "packed": True}, ValueError, "dtype: expected uint8 with packed, got float32"),
        ({"max_bytes": -1}, ValueError, "max_bytes: expected at least 0, got -1"),
        ({"out": [1]}, TypeError, "out: expected a numpy array, got list"),
        ({"out": np.zeros((128, 5))}, ValueError, r"out: expected shape \(128, 50\) of float64, got \(128, 5\)"),
        ({"out": np.zeros((128, 50)), "dtype": "uint8"}, ValueError, "of uint8, got .* of float64"),
        ({"out": np.zeros((50, 128)).T}, ValueError, "out: expected a C-contiguous, aligned array that can be written"),
        ({"out": np.broadcast_to(0.0, (128, 50))}, ValueError, "out: expected a C-contiguous, aligned array"),
    ],
)  # fmt: skip
def test_wrong_arguments(options, error, message):
    with pytest.raises(error, match=message):
        mg.piano_roll(Score([(0, 480, 60)]), **options)


def test_wrong_sources(tmp_path):
    with pytest.raises(TypeError, match="source: expected a Score, a PrettyMIDI, a path or bytes, got int"):
        mg.piano_roll(3)
    with pytest.raises(FileNotFoundError) as missing:
        mg.piano_roll(tmp_path / "no.mid")
    assert missing.value.filename == tmp_path / "no.mid" or missing.value.filename == str(tmp_path / "no.mid")
    with pytest.raises(IsADirectoryError):
        mg.piano_roll(tmp_path)
    bad = tmp_path / "bad.mid"
    bad.write_bytes(b"RIFF")
    with pytest.raises(MidiError, match=r"bad\.mid: too short for a MIDI header: .*got 4") as error:
        mg.piano_roll(bad)
    assert error.value.path == str(bad)
    assert error.value.offset == 0


def test_what_a_file_gets_wrong_is_said_once():
    data = bytes_of(96, [[(0, b"\x90\x40\x40"), (5, b"\x80\x41\x40"), (9, b"\xb0\x07\x40")]])
    with pytest.warns(
        MidiWarning, match=r"MIDI data: expected a sounding note .* \(and 1 more, see read_midi\)"
    ) as found:
        roll = mg.piano_roll(data)
    assert len(found) == 1
    assert roll.shape == (128, 0)
    assert mg.piano_roll(quiet_score(data)).shape == (128, 4)  # the score has closed the note
    assert quiet_roll(data, steps_per_beat=96, overlap="keep").shape == (128, 9)


def for_ever(function):
    while True:
        function()


def test_R39_ctrl_c_while_drawing():
    """Half a million notes one over the other: seconds of drawing, in one row and in the order of the notes."""
    score = Score({"start": np.zeros(500_000, int), "duration": np.full(500_000, 24_000_000), "pitch": [60] * 500_000})
    for steps, packed in ((4, False), (1, True)):  # more than the cache holds, and less
        stop = threading.Timer(0.2, _thread.interrupt_main)
        began = time.monotonic()
        stop.start()
        with pytest.raises(KeyboardInterrupt):
            for_ever(partial(mg.piano_roll, score, steps_per_beat=steps, packed=packed))
        assert time.monotonic() - began < 5  # 0.1 s later, on a machine that has nothing else to do
        stop.join()


# -- many files -----------------------------------------------------------------------------------------------------


def test_piano_rolls_are_those_of_the_files_in_order(rng, tmp_path):
    sources = []
    for index in range(40):
        data = random_file(rng)
        (tmp_path / f"{index}.mid").write_bytes(data)
        sources.append([data, tmp_path / f"{index}.mid", quiet_score(data), pretty(data)][index % 4])
    expected = [quiet_roll(source, fs=20, channels=ALL) for source in sources]
    for threads in (1, 2, 5):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MidiWarning)
            rolls = list(mg.piano_rolls(iter(sources), threads=threads, fs=20, channels=ALL))
        assert len(rolls) == len(expected)
        for roll, one in zip(rolls, expected, strict=True):
            np.testing.assert_array_equal(roll, one)


def test_piano_rolls_read_only_a_little_ahead():
    taken = []

    def sources():
        for index in range(1000):
            taken.append(index)
            yield Score([(0, 1, 60)])

    rolls = mg.piano_rolls(sources(), threads=2)
    assert taken == []
    next(rolls)
    assert len(taken) == 5
    next(rolls)
    assert len(taken) == 6
    rolls.close()
    assert len(taken) == 6


def test_piano_rolls_and_bad_files(tmp_path):
    good, bad = Score([(0, 480, 60)]), tmp_path / "bad.mid"
    bad.write_bytes(b"nothing of the kind")
    sources = [good, bad, good, tmp_path / "missing.mid", 3, Score([(1 << 40, 1, 60)])]
    results = list(mg.piano_rolls(sources, errors="return", threads=2))
    kinds = [np.ndarray, MidiError, np.ndarray, FileNotFoundError, TypeError, MemoryError]
    assert [type(result) for result in results] == kinds
    assert "bad.mid" in str(results[1])
    rolls = mg.piano_rolls(sources, threads=2)
    assert next(rolls).shape == (128, 50)
    with pytest.raises(MidiError, match=r"bad\.mid"):
        next(rolls)
    with pytest.raises(StopIteration):
        next(rolls)
    with pytest.raises(ValueError, match="fs: expected"):
        mg.piano_rolls(sources, fs=0)
    with pytest.raises(TypeError, match="out"):
        mg.piano_rolls(sources, out=np.zeros(3))
    with pytest.raises(ValueError, match="threads: expected at least 1, got 0"):
        mg.piano_rolls(sources, threads=0)
    with pytest.raises(TypeError, match=r"threads: expected an integer, got float 2\.0"):
        mg.piano_rolls(sources, threads=2.0)
    with pytest.raises(ValueError, match=r"errors: expected .*, got 'skip'"):
        mg.piano_rolls(sources, errors="skip")
