"""Scores: notes and events as numpy columns, read from and written to Standard MIDI Files.

The parser and the writer are native (`_core.midi_parse`, `_core.midi_write`); this module gives their two tables, the
notes and all other events in file order, a face: typed columns, tracks, seconds, pictures and conversions.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core, files
from musicgen_ext import provenance as provenance_text
from musicgen_ext.errors import MidiError, MidiWarning
from musicgen_ext.tables import (
    EVENT,
    META,
    META_NAME,
    META_TEXT,
    PROGRAM,
    Columns,
    events_of,
    in_order,
    table_of,
    whole_number,
)
from musicgen_ext.tables import NOTE as NOTE
from musicgen_ext.tables import Text as Text
from musicgen_ext.timing import BarMap, TempoMap, from_beats, to_beats

if TYPE_CHECKING:
    import mido
    from pretty_midi import PrettyMIDI

    from musicgen_ext.audio import Audio

Array = npt.NDArray[Any]
# Format, division, notes, events, payload, payload_ends, track_ends, as `_core` makes and takes them.
_Tables = tuple[int, int, Array, Array, Array, Array, Array]

DRUM_CHANNEL = 9


class Issue(NamedTuple):
    """Something a file gets wrong: what, at which byte, in which track."""

    message: str
    offset: int
    track: int | None


@dataclass(frozen=True)
class Track:
    """One track of a score: its name, and the channel and program (0 to 127, General MIDI) it begins with.

    `program` None: the track does not choose one. `channel` None, in a track given to `Score`: the drum channel for
    `is_drum`, otherwise the channel of the track's first note, if the notes have channels, or one chosen by the track's
    index, leaving out the drum channel. In a track of a score, it means that nothing in it uses a channel.
    """

    name: str = ""
    program: int | None = None
    channel: int | None = None
    is_drum: bool = False


class Score(Columns):
    """Notes and events of a piece, in ticks.

    Parameters
    ----------
    notes : structured array, mapping of columns, or sequence of tuples
        Columns start, duration (ticks), pitch, and optionally velocity (default 80), track (0), channel (that of the
        track) and release_velocity (64); tuples hold a prefix of these in this order.
    ticks_per_quarter : int, 1 to 32767
        Resolution.
    tempos, time_signatures, key_signatures, programs, controls, pitch_bends : as `notes`
        Columns as in the attributes of the same name; tuples may leave out the columns with a default.
    tracks : sequence of Track
        Names, channels and first programs. There are at least as many tracks as the notes and events need.
    texts : sequence of Text
        Lyrics, markers and so on.
    provenance : mapping, optional
        Anything JSON can hold about where this score comes from; saved in the file and read back.

    Attributes
    ----------
    notes : np.ndarray [shape=(n,)]
        Fields start, duration (int64 ticks), pitch, velocity (uint8), track (int32), channel, release_velocity (uint8);
        ordered by track, then start. May be changed in place or replaced; `save` and `to_bytes` check it.
    tempos : np.ndarray
        Fields time (int64 ticks), microseconds_per_quarter, track. Without one at tick 0, 120 quarters a minute.
    time_signatures : np.ndarray
        Fields time, numerator, denominator, clocks_per_click (24), notated_32nds_per_quarter (8), track.
    key_signatures : np.ndarray
        Fields time, sharps (-7 to 7, negative: flats), minor (0 or 1), track.
    programs : np.ndarray
        Program changes: fields time, program, channel, track. Also holds those of `tracks`.
    controls : np.ndarray
        Control changes: fields time, number, value, channel, track.
    pitch_bends : np.ndarray
        Fields time, bend (-8192 to 8191), channel, track.
    tracks : tuple of Track
        Assign others to rename them or to give them programs and channels.
    texts : tuple of Text
        Also holds the names of `tracks`.
    ticks_per_quarter : int
        For a file with SMPTE time: the ticks of half a second, rounded.
    smpte : (int, int) or None
        Frames per second (29 means 29.97) and ticks per frame, for a file with SMPTE time, which ignores tempos.
    format : int
        0, 1 or 2, as in the file's header.
    issues : tuple of Issue
        What was wrong in the file this score was read from.
    provenance : dict

    Operations (`transpose`, `trim`, `with_programs` …) make a new score and leave this one as it is. If there is a
    provenance, they add themselves to its list "changes".

    The typed columns other than `notes` are read-only windows on one table of events; assign a new array (or
    anything `Score()` takes) to change one.

    Raises
    ------
    ValueError
        A value out of its range; the message names the column, the row and both.
    TypeError
        Something that is no table of integers.
    """

    format: int
    issues: tuple[Issue, ...]
    provenance: dict[str, Any]

    def __init__(
        self,
        notes: Any = (),
        *,
        ticks_per_quarter: int = 480,
        tempos: Any = (),
        time_signatures: Any = (),
        key_signatures: Any = (),
        tracks: Sequence[Track] = (),
        programs: Any = (),
        controls: Any = (),
        pitch_bends: Any = (),
        texts: Iterable[Text] = (),
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self._division = whole_number("ticks_per_quarter", ticks_per_quarter, 1, 32_767)
        self.format = 1
        self.issues = ()
        self.provenance = dict(provenance or {})
        self._chunks = b""  # what is no track: only `_core` looks into it
        self._events = np.zeros(0, EVENT)
        self._payload = np.zeros(0, np.uint8)
        self._payload_ends = np.zeros(0, np.int64)

        given = checked_tracks(tracks)
        table, present = table_of("notes", notes, NOTE, ("start", "duration", "pitch"))
        by_track = dict(zip(table["track"][::-1].tolist(), table["channel"][::-1].tolist(), strict=True))
        if "channel" not in present:
            by_track = {}
        channels = [_channel_of(i, track, by_track.get(i)) for i, track in enumerate(given)]
        if "channel" not in present:
            count = int(table["track"].max(initial=0)) + 1
            channels_of_all = channels + [_channel_of(i, Track(), None) for i in range(len(channels), count)]
            table["channel"] = np.array(channels_of_all, np.uint8)[table["track"]]
        self._notes = in_order(table, "start")
        self._track_ends = np.zeros(len(given), np.int64)
        self._add_tracks(given, channels)
        self.tempos = tempos
        self.time_signatures = time_signatures
        self.key_signatures = key_signatures
        if len(programs):
            added, _ = table_of("programs", programs, PROGRAM, ("time", "program"))
            self.programs = np.concatenate([self.programs, added])
        self.controls = controls
        self.pitch_bends = pitch_bends
        texts = tuple(texts)
        if texts:
            self.texts = (*self.texts, *texts)

    # -- from and to bytes ---------------------------------------------------------------------------------------

    @classmethod
    def _from_bytes(cls, data: bytes, strict: bool) -> Score:
        tables, chunks, issues, unlisted = _core.midi_parse(data, strict)
        self = cls._of_tables(tables)
        self._chunks = chunks
        if issues:
            self.issues = tuple(Issue(text, offset, None if track < 0 else track) for text, offset, track in issues)
        if unlisted:
            last = self.issues[-1]
            self.issues += (Issue(f"{unlisted} more deviations are not listed", last.offset, None),)
        if provenance_text.PREFIX in self._payload.tobytes():
            self._take_provenance()
        return self

    @classmethod
    def _of_tables(cls, tables: _Tables) -> Score:
        """A score of what the native side makes, as it is."""
        self = cls.__new__(cls)
        (
            self.format, self._division, self._notes, self._events, self._payload, self._payload_ends, self._track_ends,
        ) = tables  # fmt: skip
        self._chunks = b""
        self.issues = ()
        self.provenance = {}
        return self

    def _tables(self) -> _Tables:
        """What the native side reads: every note and event checked, in order, of a track that is there."""
        notes = in_order(self._checked_notes(), "start")
        ends = np.zeros(self._num_tracks, np.int64)
        ends[: len(self._track_ends)] = self._track_ends
        return self.format, self._division, notes, self._events, self._payload, self._payload_ends, ends

    def to_bytes(self) -> bytes:
        """The score as a Standard MIDI File.

        Format 1 (or the format it was read in), with running status; `provenance` becomes a text event at the start of
        track 0. Reading the bytes gives an equal score.

        Raises
        ------
        ValueError
            A note or event that a MIDI file cannot hold (its row, field, and value), or a gap between two events of
            more than 268,435,455 ticks.
        TypeError
            `notes` is no array of `NOTE`, or `provenance` holds something that JSON cannot.
        """
        _, division, notes, events, payload, payload_ends, ends = self._tables()
        if self.provenance:
            row = np.zeros(1, EVENT)
            row["status"], row["data1"] = META, META_TEXT
            text = np.frombuffer(provenance_text.to_text(self.provenance), np.uint8)
            events = np.concatenate([row, events])
            payload = np.concatenate([text, payload])
            payload_ends = np.concatenate([[len(text)], payload_ends + len(text)])
        written_format = 1 if self.format == 0 and len(ends) != 1 else self.format
        return _core.midi_write(written_format, division, notes, events, payload, payload_ends, ends, self._chunks)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a Standard MIDI File, whole or not at all.

        Everything is checked, then written to a temporary file in the same folder, flushed to the disk, and renamed:
        whatever goes wrong, a file that was there keeps its bytes.

        Raises
        ------
        ValueError, TypeError
            As `to_bytes`; `path` is untouched.
        OSError
            The subclass that fits, with ``filename``.
        """
        files.replace(path, [self.to_bytes()])

    def _checked_notes(self) -> Array:
        notes = np.ascontiguousarray(self.notes)
        _core.midi_check_notes(notes)
        return notes

    def _take_provenance(self) -> None:
        rows = np.flatnonzero((self._events["status"] == META) & (self._events["data1"] == META_TEXT))
        for row in rows[self._events["track"][rows] == 0]:
            found = provenance_text.from_text(self._payload_of(row))
            if found is not None:
                self.provenance = found
                self._event_table = self._event_table.take(np.arange(len(self._events)) != row)
                return

    @property
    def notes(self) -> Array:
        return self._notes

    @notes.setter
    def notes(self, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.dtype == NOTE and value.ndim == 1:
            self._notes = value  # as it is: it may be changed further, and `save` checks it
        else:
            self._notes = table_of("notes", value, NOTE, ("start", "duration", "pitch"))[0]

    # -- tracks --------------------------------------------------------------------------------------------------

    @property
    def _num_tracks(self) -> int:
        needed = max(int(table["track"].max(initial=-1)) + 1 for table in (self.notes, self._events))
        return max(len(self._track_ends), needed, 1)

    @property
    def tracks(self) -> tuple[Track, ...]:
        names = self._track_names()
        programs: dict[tuple[int, int], int] = {}
        for row in self.programs.tolist():
            programs.setdefault((row[3], row[2]), row[1])
        channels: dict[int, int] = {}
        events = self._events[self._events["status"] < 0xF0]
        for table, channel in ((self.notes, self.notes["channel"]), (events, events["status"] & 15)):
            found, first = np.unique(table["track"], return_index=True)
            for track, row in zip(found.tolist(), first.tolist(), strict=True):
                channels.setdefault(track, int(channel[row]))
        tracks = []
        for i in range(self._num_tracks):
            chosen = channels.get(i)
            program = None if chosen is None else programs.get((i, chosen))
            tracks.append(Track(names.get(i, ""), program, chosen, chosen == DRUM_CHANNEL))
        return tuple(tracks)

    @tracks.setter
    def tracks(self, value: Sequence[Track]) -> None:
        """Rename tracks, choose other programs (the first of each track is replaced) or channels (of the notes and
        events that are on the track's), add tracks at the end, or drop empty ones there. What is equal stays as it is.

        ``score.tracks = [dataclasses.replace(t, program=73) if t.name == "Soprano" else t for t in score.tracks]``

        Raises
        ------
        ValueError
            Fewer tracks than notes and events use, or a program or channel out of its range.
        TypeError
            Something that is no Track.
        """
        from musicgen_ext.transform import set_tracks

        set_tracks(self, value)

    def _track_names(self) -> dict[int, str]:
        names: dict[int, str] = {}
        for text in self.texts:
            if text.kind == "track_name":
                names.setdefault(text.track, text.text)
        return names

    def _add_tracks(self, tracks: Sequence[Track], channels: Sequence[int]) -> None:
        rows, payloads = [], []
        for i, (track, channel) in enumerate(zip(tracks, channels, strict=True)):
            if track.name:
                rows.append((0, i, META, META_NAME, 0, 1))
                payloads.append(track.name.encode())
            if track.program is not None:
                rows.append((0, i, 0xC0 | channel, track.program, 0, 1))
        self._event_table = events_of(np.array(rows, EVENT), payloads)

    # -- time ----------------------------------------------------------------------------------------------------

    @property
    def ticks_per_quarter(self) -> int:
        if self.smpte is None:
            return self._division
        return round(1 / (2 * self._smpte_seconds))

    @property
    def smpte(self) -> tuple[int, int] | None:
        if not self._division & 0x8000:
            return None
        return 256 - (self._division >> 8), self._division & 0xFF

    @property
    def _smpte_seconds(self) -> float:
        """Seconds of one tick; 29 frames per second is the film industry's 30000 / 1001."""
        assert self.smpte is not None
        fps, ticks = self.smpte
        return 1001 / (30_000 * ticks) if fps == 29 else 1 / (fps * ticks)

    def _tempo_map(self, track: int | None) -> TempoMap:
        if self.smpte is not None:
            return TempoMap.steady(self._smpte_seconds)
        return TempoMap.of(self._of_timeline(self.tempos, track), self._division)

    def _bar_map(self, track: int | None) -> BarMap:
        return BarMap(self._of_timeline(self.time_signatures, track), self.ticks_per_quarter)

    def _of_timeline(self, table: Array, track: int | None) -> Array:
        """In format 2 every track is a piece of its own."""
        return table if self.format != 2 else table[table["track"] == (track or 0)]

    def to_seconds(self, ticks: npt.ArrayLike, *, track: int | None = None) -> Array:
        """Seconds, float64, of times in ticks (any shape). `track` matters in files of format 2 only."""
        return self._tempo_map(track).to_seconds(ticks)

    def to_ticks(self, seconds: npt.ArrayLike, *, track: int | None = None) -> Array:
        """The nearest ticks, int64, of times in seconds (any shape); the inverse of `to_seconds`.

        Raises
        ------
        ValueError
            A time is not finite.
        """
        return self._tempo_map(track).to_ticks(seconds)

    def to_beats(self, ticks: npt.ArrayLike, *, exact: bool = False) -> Array:
        """Beats, quarter notes whatever the metre, of times in ticks (any shape): float64, or `Fraction` with `exact`.

        In SMPTE time a beat is `ticks_per_quarter` ticks, too: half a second.
        """
        return to_beats(ticks, self.ticks_per_quarter, exact)

    def from_beats(self, beats: npt.ArrayLike, *, exact: bool = False) -> Array:
        """The nearest ticks, int64, of times in beats (any shape; integers, floats, `Fraction`).

        Raises
        ------
        ValueError
            A time is not finite; with `exact`, it falls between two ticks.
        TypeError
            Something that is no number.
        """
        return from_beats(beats, self.ticks_per_quarter, exact)

    def to_bars(self, ticks: npt.ArrayLike, *, track: int | None = None) -> tuple[Array, Array]:
        """Number of the bar, and ticks since it began, both int64, of times in ticks (any shape); see `bars`.

        In the pickup, bar 0, ticks count from where a whole bar would have begun: its last beat is the bar's last.
        """
        return self._bar_map(track).to_bars(ticks)

    def from_bars(self, bars: npt.ArrayLike, *, track: int | None = None) -> Array:
        """Ticks, int64, at which bars begin (any shape), by number; of the pickup, bar 0, as `to_bars`: before 0."""
        return self._bar_map(track).from_bars(bars)

    def meter_at(self, tick: int, *, track: int | None = None) -> tuple[int, int]:
        """Numerator and denominator of the time signature in force; in a pickup, that of the bars after it."""
        return self._bar_map(track).meter_at(tick)

    @property
    def bars(self) -> Array:
        """Every bar up to the last event: fields start, duration (ticks), number, numerator, denominator.

        4/4 where no time signature says otherwise. A time signature begins a new bar and cuts the one before it short.
        Bars are numbered from 1; a pickup is bar 0: a first signature that holds for exactly one bar, which is shorter
        than the bars of the next. ``score.to_seconds(score.bars["start"])`` are the downbeats in seconds.

        Raises
        ------
        ValueError
            More than 10,000,000 bars.
        """
        return self._bar_map(None).bars(self._last_tick)

    @property
    def _last_tick(self) -> int:
        """The end of the last note or the time of the last event, whichever is later."""
        ends = self.notes["start"] + self.notes["duration"]
        return max(int(ends.max(initial=0)), int(self._events["time"].max(initial=0)))

    @property
    def end_time(self) -> float:
        """Seconds at which the last note ends or the last event happens. Silence before an end of track is left out."""
        if self.format != 2:
            return float(self.to_seconds(self._last_tick))
        ends = []
        for track in range(self._num_tracks):
            notes, events = (table[table["track"] == track] for table in (self.notes, self._events))
            last = max((notes["start"] + notes["duration"]).max(initial=0), events["time"].max(initial=0))
            ends.append(float(self.to_seconds(last, track=track)))
        return max(ends)

    # -- operations that make new scores --------------------------------------------------------------------------

    def copy(self) -> Score:
        """A score of its own: nothing that is done to it changes this one."""
        return self._with_notes(self._notes.copy())

    def _with_notes(self, notes: Array) -> Score:
        new = copy.copy(self)
        new._notes = notes
        new.provenance = copy.deepcopy(self.provenance)
        return new

    def transpose(self, semitones: int, *, drums: bool = False, outside: str = "raise") -> Score:
        """Every note, and the key signatures, so many semitones higher (negative: lower).

        Parameters
        ----------
        semitones : int, -127 to 127
        drums : bool
            Also on the drum channel, where a pitch is an instrument.
        outside : "raise", "fold" or "drop"
            What to do with notes that leave 0 to 127: refuse them all, move them by octaves until they fit, or leave
            them out. Aftertouch goes with its notes.

        Returns
        -------
        Score
            Keys have at most six sharps or flats.

        Raises
        ------
        ValueError
            Notes that leave the range; the message says how many.
        """
        from musicgen_ext.transform import transpose

        return transpose(self, semitones, drums=drums, outside=outside)

    def with_key(self, key: str, *, from_key: str | None = None, direction: str = "nearest") -> Score:
        """Transposed to a key such as "Eb major" or "F# minor", of the same mode as the key it is in.

        Parameters
        ----------
        key : str
        from_key : str, optional
            The key it is in; None: its first key signature.
        direction : "nearest", "up" or "down"
            By at most six semitones up or five down, or only up, or only down.

        Raises
        ------
        ValueError
            No key signature and no `from_key`, another mode, or notes that leave 0 to 127.
        """
        from musicgen_ext.transform import with_key

        return with_key(self, key, from_key=from_key, direction=direction)

    def scale_tempo(self, factor: float) -> Score:
        """`factor` times as fast (2: twice), with the tempos rounded to whole microseconds; ticks stay.

        A piece without a tempo at its beginning gets the default one, scaled.

        Raises
        ------
        ValueError
            A tempo that a file cannot hold, or a score in SMPTE time, which knows none.
        """
        from musicgen_ext.transform import scale_tempo

        return scale_tempo(self, factor)

    def with_tempo(self, bpm: float) -> Score:
        """One tempo in quarter notes per minute for the whole piece, in place of all others; see `scale_tempo`."""
        from musicgen_ext.transform import with_tempo

        return with_tempo(self, bpm)

    def with_programs(self, programs: Mapping[int | str, int | str] | int | str) -> Score:
        """Played by other instruments: ``score.with_programs({"Soprano": "Flute", 3: "Cello"})``.

        Parameters
        ----------
        programs : mapping, or one program
            By name (every track of that name) or index of the track: a program from 0 to 127, or its General MIDI name
            in any case. One program alone is for all tracks but drums.

        Returns
        -------
        Score
            Each track begins with its program and keeps it: other program changes and bank selects of the channels it
            plays on are gone, in it and in tracks that play nothing there. Tracks that share a channel share its
            program in most players; give them channels of their own with `tracks`.

        Raises
        ------
        ValueError
            No such track or program; the message lists those there are.
        """
        from musicgen_ext.transform import with_programs

        return with_programs(self, programs)

    def trim(self, start: Any = 0, end: Any = None, *, unit: str = "ticks", notes: str = "cut") -> Score:
        """The part from `start` up to `end`, moved to the beginning: ``score.trim(9, 17, unit="bars")``.

        Parameters
        ----------
        start, end : number
            `end` None: to the end. Bars by number, see `bars`: up to the beginning of bar `end`.
        unit : "ticks", "beats", "seconds" or "bars"
        notes : "cut", "drop" or "keep"
            Notes across a border are cut there, or left out; or those that begin inside keep their length and those
            that begin before are left out.

        Returns
        -------
        Score
            It begins with what is in force at `start`: the tempo, time and key signature, and in every track and
            channel the program, controls, pressure and bend. Everything else before `start` that is no matter of a
            moment comes along, too: names and other texts (but for later plain texts, lyrics, markers and cue points),
            system exclusive and unknown events, parameter numbers (RPN). Tracks end at `end` at the latest, so that
            silence at the end of a loop is kept. What is left of a bar that was cut becomes a pickup, if a time
            signature can say how long it is; otherwise a bar begins there.

        Raises
        ------
        ValueError
            Times below zero or in the wrong order; seconds or bars in format 2.
        """
        from musicgen_ext.transform import trim

        return trim(self, start, end, unit=unit, notes=notes)

    def quantize(self, steps_per_beat: int = 4, *, what: str = "starts", strength: float = 1.0) -> Score:
        """Notes on a grid of so many steps to a quarter note, counted from tick 0; other events stay.

        Parameters
        ----------
        steps_per_beat : int, 1 to 32767
            4: sixteenths, 3: triplets of eighths, 12: both. Halves are rounded up.
        what : "starts", "durations" or "both"
            A start moves the whole note. A duration becomes at least one step.
        strength : float, 0 to 1
            How much of the way to go.
        """
        from musicgen_ext.transform import quantize

        return quantize(self, steps_per_beat, what=what, strength=strength)

    def resample(self, ticks_per_quarter: int) -> Score:
        """In another resolution; times are rounded to the nearest tick, and notes last at least one.

        SMPTE time becomes ticks per quarter at 120 quarters a minute, and its tempos, which did not count, are gone.
        """
        from musicgen_ext.transform import resample

        return resample(self, ticks_per_quarter)

    def apply_sustain(self, *, drop_controls: bool = False) -> Score:
        """Notes that end while the sustain pedal (control 64) is down last until it is lifted.

        Or until the same pitch is struck again in their track and channel; a pedal that is never lifted holds until the
        end of the piece. A part without a pedal of its own has that of its channel. With `drop_controls`, the pedal's
        events are left out, and otherwise kept.
        """
        from musicgen_ext.transform import apply_sustain

        return apply_sustain(self, drop_controls=drop_controls)

    def merge_tracks(self, tracks: Sequence[int | str] | None = None) -> Score:
        """All tracks, or those of these indices and names, in one, in place of the first; channels stay as they are.

        Raises
        ------
        ValueError
            No such track, or format 2, in which every track is a piece of its own.
        """
        from musicgen_ext.transform import merge_tracks

        return merge_tracks(self, tracks)

    def split_tracks(self, by: str = "channel") -> Score:
        """A track for every channel, program or pitch that is played in a track; channels stay as they are.

        Parameters
        ----------
        by : "channel", "program" or "pitch"
            "program": the one in force where a note begins; "pitch": one for each drum, say.

        Returns
        -------
        Score
            The parts of a track follow each other in its place. The first keeps its name and what belongs to none of
            them; the others are called after it and their channel, program or pitch. A channel's events go with it, or
            with the part of their program or, for aftertouch, pitch.
        """
        from musicgen_ext.transform import split_tracks

        return split_tracks(self, by)

    @staticmethod
    def concatenate(scores: Sequence[Score], *, align: str = "bar") -> Score:
        """One after the other: ``mg.Score.concatenate([intro, *[loop] * 4, outro])``.

        Parameters
        ----------
        scores : sequence of Score
            Tracks go on in those of the same index.
        align : "bar", "beat" or "tick"
            Each score begins at the first bar line (beat, tick) at which all tracks of the one before have ended.

        Returns
        -------
        Score
            In the least common resolution, if a file can hold it, or the finest. What a score changes and the next does
            not set at its beginning (tempo, time signature, and in every track and channel program, bend, pressure,
            volume, pan, expression, pedals, modulation, bank) is set back to what a piece begins with.
            ``provenance["concatenated"]`` lists where each came from; chunks that are no tracks are the first's.

        Raises
        ------
        ValueError
            No scores, or one in format 2 or SMPTE time.
        """
        from musicgen_ext.transform import concatenate

        return concatenate(scores, align=align)

    # -- sound ---------------------------------------------------------------------------------------------------

    def synthesize(self, sr: int = 44_100) -> Audio:
        """The score as played by the built-in synthesiser.

        Tones with a limited band and envelopes, timbres by General MIDI program (families: piano, organ, strings,
        choir, brass, reeds, flutes, plucked, bells …), simple drums on channel 10, sustain pedal, volume, expression
        and pan; pitch bends as they are when a note begins. Tracks are spread from left to right unless the file pans
        them. A little room is added; the peak is 0.89. The same score gives the same samples.

        Parameters
        ----------
        sr : int, 1000 to 768000
            Sample rate, in Hz.

        Returns
        -------
        Audio
            ``y`` has shape (2, n), float32.

        Raises
        ------
        ValueError
            `sr` out of its range, or a note that is none.
        MemoryError
            More than 8 GiB of sound.
        """
        # Here and not at the top: `render` stands above `midi` and `audio` and introduces them, so that neither needs
        # the other. The method only makes it easy to find.
        from musicgen_ext.render import synthesize

        return synthesize(self, sr)

    # -- pictures ------------------------------------------------------------------------------------------------

    def plot(self, ax: Any = None) -> Any:
        """Draw a piano roll: a colour for every track, stronger for louder notes, bar lines and pitch names.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; None makes a new figure, as wide as the piece is long.

        Returns
        -------
        matplotlib.axes.Axes
            ``ax.figure.savefig("x.png")`` writes it to a file. The x axis counts ticks, labelled by bar.

        Raises
        ------
        ImportError
            matplotlib is missing; the message says how to install it.
        """
        from musicgen_ext.pictures import plot

        return plot(self, ax)

    def _repr_html_(self) -> str:
        from musicgen_ext.pictures import svg

        return svg(self)

    # -- other packages ------------------------------------------------------------------------------------------

    def to_pretty_midi(self) -> PrettyMIDI:
        """The score as a `pretty_midi.PrettyMIDI`, with the times that pretty_midi itself gives a file's ticks.

        One instrument for every track, channel and program with notes. Programs count from where a note begins
        (pretty_midi: where it ends); tempos and signatures of all tracks count (pretty_midi: of the first). Texts other
        than lyrics and plain text, and events without a place in pretty_midi, are left out.

        Raises
        ------
        ImportError
            pretty_midi is missing; the message says how to install it.
        ValueError
            A piece longer than pretty_midi's limit in ticks, or in format 2 or SMPTE time, which it does not know.
        """
        from musicgen_ext.interchange import to_pretty_midi

        return to_pretty_midi(self)

    @staticmethod
    def from_pretty_midi(pm: PrettyMIDI) -> Score:
        """A score from a `pretty_midi.PrettyMIDI`: one track for every instrument, times rounded to its ticks.

        A note shorter than half a tick gets one tick. Channels are given out in order, without the drum channel.

        Raises
        ------
        ValueError
            A time that is negative, not finite or not after its note's start, or another value out of range; the
            message names the instrument, the note's index and the field.
        TypeError
            `pm` is no PrettyMIDI.
        """
        from musicgen_ext.interchange import from_pretty_midi

        return from_pretty_midi(pm)

    def to_mido(self) -> mido.MidiFile:
        """The score as a `mido.MidiFile`: the messages of the file that `save` would write, in its order.

        `from_mido` makes an equal score of it. What mido has no name for, or cannot write as it was, is an
        `UnknownMetaMessage`; texts are in its default charset, Latin-1. Chunks that are no tracks, and system exclusive
        data that is escaped or in parts, have no place in mido and are left out.

        Raises
        ------
        ImportError
            mido is missing; the message says how to install it.
        ValueError, TypeError
            As `to_bytes`.
        """
        from musicgen_ext.interchange import to_mido

        return to_mido(self)

    @staticmethod
    def from_mido(file: mido.MidiFile) -> Score:
        """A score from a `mido.MidiFile`, read from the bytes that mido saves, with `MidiWarning` and `issues`.

        Raises
        ------
        ValueError
            Messages that mido cannot save (times that are no whole ticks, texts outside its charset).
        MidiError
            A file that cannot be read, see `read_midi`.
        TypeError
            `file` is no MidiFile.
        """
        from musicgen_ext.interchange import from_mido

        return from_mido(file)

    def to_symusic(self) -> Any:
        """The score as a `symusic.Score` in ticks, without a Python object for any note.

        One track for every track, channel and program, as symusic's own reader makes them, in order of track and
        channel; a program counts from where a note begins, and tracks without notes are kept for their controls, bends
        and lyrics. symusic has no place for channels, release velocities, aftertouch, system exclusive data, clocks
        per click, and texts other than names, lyrics and markers.

        Raises
        ------
        ImportError
            symusic is missing; the message says how to install it.
        ValueError
            A piece of 2^31 ticks or more, or in format 2 or SMPTE time, which symusic does not know.
        """
        from musicgen_ext.interchange import to_symusic

        return to_symusic(self)

    @staticmethod
    def from_symusic(score: Any) -> Score:
        """A score from a `symusic.Score` (one in quarters or seconds is brought to ticks by symusic): a track for each.

        Channels are given out in order, without the drum channel. Pedals become control 64 in tracks that have none of
        those.

        Raises
        ------
        ValueError
            A note without length or another value that a file cannot hold; the message names the column and the row.
        TypeError
            `score` is no symusic score.
        """
        from musicgen_ext.interchange import from_symusic

        return from_symusic(score)

    def _is_longer_than(self, seconds: float) -> bool:
        """Whether `end_time` is, found out without looking at every note where possible."""
        last = max(self._track_ends.tolist(), default=0)
        if self._division < 0x8000 and last * 16.777216 / self._division <= seconds:  # a quarter is at most 2^24 us
            return False
        if self.format != 2 and self.to_seconds(last) <= seconds:
            return False
        return self.end_time > seconds

    # -- as an object --------------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        """Equal when the files would hold the same: notes, events, track ends, resolution and provenance."""
        if not isinstance(other, Score):
            return NotImplemented
        mine, theirs = self._content(), other._content()
        return all(
            np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in zip(mine, theirs, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]  # a score can change

    def _content(self) -> tuple[Any, ...]:
        events = self._events.copy()
        events["place"] = 0  # finer than what a score means: whether an event of a note's tick came before the note
        ends = np.zeros(self._num_tracks, np.int64)
        ends[: len(self._track_ends)] = self._track_ends
        np.maximum.at(ends, self.notes["track"], self.notes["start"] + self.notes["duration"])
        np.maximum.at(ends, events["track"], events["time"])
        notes = in_order(self.notes, "start")
        one_track = self.format == 0 and len(ends) == 1
        return (
            0 if one_track else max(self.format, 1), self._division, notes, events, self._payload, self._payload_ends,
            ends, self._chunks, self.provenance,
        )  # fmt: skip

    def __repr__(self) -> str:
        names = ", ".join(repr(name) for _, name in sorted(self._track_names().items()) if name)
        time = "SMPTE time" if self.smpte else f"{self.ticks_per_quarter} ticks per quarter"
        parts = [
            f"{len(self.notes)} notes",
            f"{self._num_tracks} tracks" + (f" ({_shortened(names, 60)})" if names else ""),
            f"{self.end_time:.2f} s",
            time,
        ]
        if self.issues:
            parts.append(f"{len(self.issues)} issues")
        return f"<Score: {', '.join(parts)}>"


def read_midi(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview,
    strict: bool = False,
    *,
    max_duration: float = 86_400.0,
) -> Score:
    """Read a Standard MIDI File.

    Parameters
    ----------
    source : path, or bytes of a file
        Formats 0, 1 and 2; also wrapped in RIFF.
    strict : bool
        False: read everything that is unambiguous and list what is wrong in ``score.issues``, with one `MidiWarning`
        for the file. True: raise at the first deviation.
    max_duration : float
        Longest piece accepted, in seconds (default: a day), because a single broken time makes a piece of months.

    Returns
    -------
    Score

    Raises
    ------
    MidiError
        Not a MIDI file, or broken beyond reading (or, with `strict`, at all). Attributes `path` (None for bytes),
        `offset` (bytes from the start of the file) and `track`.
    OSError
        The file cannot be opened: `FileNotFoundError`, `IsADirectoryError` …, with ``filename``.
    TypeError
        `source` is neither a path nor bytes.

    Notes
    -----
    Inside a track, a note-off ends the oldest sounding note of its channel and pitch; a note that never ends is closed
    at the end of its track. Source: MIDI 1.0 Detailed Specification (96.1), Standard MIDI Files 1.0.
    """
    path = None
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        data = files.content(path)
    elif isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    else:
        raise TypeError(f"source: expected a path or bytes, got {type(source).__name__}")
    try:
        score = Score._from_bytes(data, strict)
    except MidiError as error:
        raise MidiError(f"{_name_of(path)}: {error}", **{**error.__dict__, "path": path}) from None
    if score._is_longer_than(max_duration):
        raise MidiError(
            f"{_name_of(path)}: expected a piece of at most {max_duration:g} seconds (max_duration), got "
            f"{score.end_time:g}",
            path=path,
            offset=None,
            track=None,
        )
    if score.issues:
        count = len(score.issues)
        more = f" (and {count - 1} more, see score.issues)" if count > 1 else ""
        warnings.warn(f"{_name_of(path)}: {score.issues[0].message}{more}", MidiWarning, stacklevel=2)
    return score


# -- helpers ---------------------------------------------------------------------------------------------------------


def _name_of(path: str | None) -> str:
    return "MIDI data" if path is None else files.shown(path)


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def checked_tracks(tracks: Sequence[Track]) -> tuple[Track, ...]:
    given = tuple(tracks)
    for i, track in enumerate(given):
        if not isinstance(track, Track):
            raise TypeError(f"tracks[{i}]: expected a Track, got {type(track).__name__}")
        if not isinstance(track.name, str):
            raise TypeError(f"tracks[{i}].name: expected a str, got {type(track.name).__name__}")
        if track.program is not None:
            whole_number(f"tracks[{i}].program", track.program, 0, 127)
    return given


def _channel_of(index: int, track: Track, of_notes: int | None) -> int:
    if track.channel is not None:
        channel = whole_number(f"tracks[{index}].channel", track.channel, 0, 15)
        if track.is_drum and channel != DRUM_CHANNEL:
            raise ValueError(f"tracks[{index}].channel: expected {DRUM_CHANNEL} for drums, got {channel}")
        return channel
    if track.is_drum:
        return DRUM_CHANNEL
    if of_notes is not None:
        return of_notes
    melodic = [channel for channel in range(16) if channel != DRUM_CHANNEL]
    return melodic[index % len(melodic)]
