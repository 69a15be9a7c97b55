"""Piano rolls: one row for every pitch, one column for every frame or step of time."""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core, files
from musicgen_ext.errors import MidiError, MidiWarning
from musicgen_ext.midi import Score

if TYPE_CHECKING:
    from pretty_midi import PrettyMIDI

Source: TypeAlias = "Score | PrettyMIDI | str | os.PathLike[str] | bytes | bytearray | memoryview"
Array: TypeAlias = npt.NDArray[Any]

CHANNELS = ("frame", "onset", "offset")
MAX_BYTES = 8 << 30
"""Memory that a roll may take unless told otherwise."""

# Arrays up to this size mostly lie where earlier ones lay, and are cleared row by row, while a row is in the cache; the
# system gives larger ones, with zeros in them that cost nothing where a roll stays empty. (glibc's limit.)
_RECYCLED = 32 << 20
_MAX_STEPS = 1_000_000  # in a beat
_SUSTAIN = 64
_PITCHES = 128


class _Job(NamedTuple):
    """The arguments of `piano_roll`, checked."""

    fs: float
    steps_per_beat: int | None
    times: Array | None
    pedal_threshold: float | None
    overlap: str
    binary: bool
    channels: tuple[str, ...]
    per_track: bool
    drums: bool
    dtype: np.dtype[Any]
    packed: bool
    max_bytes: int

    def options(self) -> _core.RollOptions:
        return _core.RollOptions(
            self.fs, self.steps_per_beat or 0, self.pedal_threshold, self.times, self.drums, self.per_track
        )


class _Found(NamedTuple):
    """What a source shows, not yet drawn; and what a warning about its file says, or nothing."""

    roll: _core.Roll
    name: str
    warning: str


def piano_roll(
    source: Source,
    *,
    fs: float = 100.0,
    steps_per_beat: int | None = None,
    times: npt.ArrayLike | None = None,
    pedal_threshold: float | None = 64,
    overlap: Literal["cut", "keep"] | None = None,
    binary: bool = False,
    channels: str | Sequence[str] = ("frame",),
    per_track: bool = False,
    drums: bool = False,
    dtype: npt.DTypeLike | None = None,
    out: Array | None = None,
    packed: bool = False,
    max_bytes: int = MAX_BYTES,
) -> Array:
    """Piano roll of a piece: 128 pitches by frames of ``1 / fs`` seconds, or by steps of a beat.

    With `fs`, the roll is the one that ``pretty_midi.PrettyMIDI(file).get_piano_roll(fs, times, pedal_threshold)``
    draws of the same file, cell for cell.

    Parameters
    ----------
    source : Score, PrettyMIDI, path, or bytes of a MIDI file
        For a `Score`, that file is ``score.to_bytes()``.
    fs : float > 0
        Frames per second. A time falls into frame ``int(time * fs)``.
    steps_per_beat : int, 1 to 1,000,000, optional
        Columns for a quarter note, in place of `fs`. A note fills the steps from its start up to its end, both rounded
        to the nearest step (halves up), and at least one.
    times : array_like [shape=(n,)], seconds, optional
        With `fs`: where each of n columns begins, not decreasing; a column is the mean of the frames up to the next
        one, and the last is empty.
    pedal_threshold : float or None
        With `fs`: the sustain pedal (control 64) is down from this value, and a pitch keeps the highest velocity it has
        had since then until it is lifted. None: no pedal. Pitch bends, too, count with `fs` only.
    overlap : "cut" or "keep", optional
        Notes of the same pitch, channel and track that overlap. "cut" (what `fs` does): a note-off ends every note that
        began before it, a note-off at the tick of its note-on drops the note, and a note that is never ended is not
        there. "keep" (what `steps_per_beat` does): notes as they are in ``score.notes``. Does not matter for a
        PrettyMIDI with `fs`, whose notes are as they are.
    binary : bool
        1 where there is anything, in place of the velocity.
    channels : "frame", "onset" or "offset", or a sequence of these
        frame: the velocities of what sounds, added up. onset, offset: the velocities of the notes that begin in this
        column, or that fill it as their last (as they are written, without pedal and bends).
    per_track : bool
        A roll for every track (for a PrettyMIDI: instrument).
    drums : bool
        Draw channel 10, too. The width counts drums in any case.
    dtype : float64, float32, uint8 or bool, optional
        Default: float64 with `fs`, uint8 with `steps_per_beat`. In uint8, sums end at 255 and fractions (of bends) are
        rounded down; bool means `binary`.
    out : np.ndarray, optional
        Where to draw: of the result's shape and `dtype`, C-contiguous. What it held does not matter.
    packed : bool
        Eight columns to a byte, as ``np.packbits(roll, axis=-1)`` does it; means `binary`.
    max_bytes : int
        Largest roll to be allocated (default: 8 GiB).

    Returns
    -------
    roll : np.ndarray [shape=(128, T)]
        With `per_track`, shape (tracks, 128, T); with more than one channel, (channels, [tracks,] 128, T); with
        `packed`, ceil(T / 8) in place of T. T: up to the last note or event of a part that has notes (`fs`), the last
        step with a note, or the length of `times`.

    Raises
    ------
    ValueError
        An argument is out of its range (its name, what is allowed, what came); `MidiError` for a broken file.
    TypeError
        An argument of the wrong type.
    MemoryError
        The roll would take more than `max_bytes`: the message gives both numbers. Raised before anything is allocated.
    OSError
        The file cannot be opened.

    Notes
    -----
    Times in seconds have the bits that pretty_midi gives them, which differ from `Score.to_seconds` in the last. Where
    a file has tempos outside its first track, which pretty_midi leaves out, they count here; each track of a file of
    format 2 has its own. An unended note that reading a file closes at the end of its track (and reports) is a note of
    the `Score`, but not of the file.
    """
    job = _checked(
        fs=fs, steps_per_beat=steps_per_beat, times=times, pedal_threshold=pedal_threshold, overlap=overlap,
        binary=binary, channels=channels, per_track=per_track, drums=drums,
        dtype=getattr(out, "dtype", None) if dtype is None else dtype, packed=packed, max_bytes=max_bytes,
    )  # fmt: skip
    found = _find(source, job)
    if found.warning:
        warnings.warn(found.warning, MidiWarning, stacklevel=2)
    if out is None:
        return _draw(found, job, *_allocated(found, job))
    _check_out(out, _shape(found, job), job.dtype)
    return _draw(found, job, out, False)


@overload
def piano_rolls(
    sources: Iterable[Source], *, threads: int | None = None, errors: Literal["raise"] = "raise", **options: Any
) -> Iterator[Array]: ...


@overload
def piano_rolls(
    sources: Iterable[Source], *, threads: int | None = None, errors: Literal["return"], **options: Any
) -> Iterator[Array | Exception]: ...


def piano_rolls(
    sources: Iterable[Source],
    *,
    threads: int | None = None,
    errors: Literal["raise", "return"] = "raise",
    **options: Any,
) -> Iterator[Array] | Iterator[Array | Exception]:
    """Piano rolls of many pieces, several at once, in the order of `sources`.

    Parameters
    ----------
    sources : iterable
        What `piano_roll` takes; read on as rolls are taken, never more than two for a thread ahead.
    threads : int >= 1, optional
        Default: as many as this process has CPUs. Their number does not change the rolls.
    errors : "raise" or "return"
        A source that cannot be read or drawn (`OSError`, `ValueError`, `TypeError`, `MemoryError`) raises when its turn
        has come, or its exception is returned in the place of its roll. Its message begins with the file's name.
    **options
        Those of `piano_roll` but `out`.

    Yields
    ------
    roll : np.ndarray
        As `piano_roll` returns it (with `errors` "return", possibly an exception).

    Raises
    ------
    ValueError, TypeError
        An option is wrong: at once, not when the first roll is taken.
    """
    if errors not in ("raise", "return"):
        raise ValueError(f'errors: expected "raise" or "return", got {errors!r}')
    if threads is not None:
        if isinstance(threads, bool) or not isinstance(threads, int | np.integer):
            raise TypeError(f"threads: expected an integer, got {type(threads).__name__} {threads!r}")
        if threads < 1:
            raise ValueError(f"threads: expected at least 1, got {threads}")
    job = _checked(**options)
    return _rolls(iter(sources), job, int(threads or _cpus()), errors == "return")


_FAILURES = (OSError, ValueError, TypeError, MemoryError)


def _rolls(sources: Iterator[Source], job: _Job, threads: int, keep_errors: bool) -> Iterator[Any]:
    results = _one_by_one(sources, job) if threads == 1 else _in_parallel(sources, job, threads)
    with contextlib.closing(results):
        for roll, warning in results:
            if isinstance(roll, Exception) and not keep_errors:
                raise roll
            if warning:
                warnings.warn(warning, MidiWarning, stacklevel=2)
            yield roll
            del roll  # its memory is for the next


def _one_by_one(sources: Iterator[Source], job: _Job) -> Generator[tuple[Array | Exception, str]]:
    """Rolls, or what went wrong, with the warnings about their files."""

    def result(source: Source) -> tuple[Array | Exception, str]:
        try:
            found = _find(source, job)
            return _draw(found, job, *_allocated(found, job)), found.warning
        except _FAILURES as error:
            return error, ""

    for source in sources:
        yield result(source)


def _in_parallel(sources: Iterator[Source], job: _Job, threads: int) -> Generator[tuple[Array | Exception, str]]:
    pool = ThreadPoolExecutor(threads, thread_name_prefix="piano_rolls")
    finding: deque[Future[_Found]] = deque()
    drawing: deque[tuple[Future[Array] | Exception, str]] = deque()

    def begin_drawing() -> None:
        try:
            found = finding.popleft().result()
            # Allocated here, in the thread that gives old rolls back: it gets their memory again, where another thread
            # would get new pages from the system, which take as long as all the rest.
            drawing.append((pool.submit(_draw, found, job, *_allocated(found, job)), found.warning))
        except _FAILURES as error:
            drawing.append((error, ""))

    def result() -> tuple[Array | Exception, str]:
        work, warning = drawing.popleft()
        if isinstance(work, Exception):
            return work, ""
        try:
            return work.result(), warning
        except _FAILURES as error:
            return error, ""

    try:
        for source in sources:
            finding.append(pool.submit(_find, source, job))
            if len(finding) > threads:
                begin_drawing()
            if len(drawing) > threads:
                yield result()
        while finding or drawing:
            if finding:
                begin_drawing()
            yield result()
    finally:
        # Not waited for: after Ctrl-C or a failure, what is being drawn ends by itself, and nothing else begins.
        pool.shutdown(wait=False, cancel_futures=True)


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# -- arguments -------------------------------------------------------------------------------------------------------


def _checked(
    *,
    fs: Any = 100.0,
    steps_per_beat: Any = None,
    times: Any = None,
    pedal_threshold: Any = 64,
    overlap: Any = None,
    binary: Any = False,
    channels: Any = ("frame",),
    per_track: Any = False,
    drums: Any = False,
    dtype: Any = None,
    packed: Any = False,
    max_bytes: Any = MAX_BYTES,
) -> _Job:
    rate = _real("fs", fs)
    if not (0 < rate < math.inf):
        raise ValueError(f"fs: expected frames per second above 0, got {fs}")
    steps = None
    if steps_per_beat is not None:
        if isinstance(steps_per_beat, bool) or not isinstance(steps_per_beat, int | np.integer):
            kind = type(steps_per_beat).__name__
            raise TypeError(f"steps_per_beat: expected an integer, got {kind} {steps_per_beat!r}")
        steps = int(steps_per_beat)
        if not 1 <= steps <= _MAX_STEPS:
            raise ValueError(f"steps_per_beat: expected 1 to {_MAX_STEPS}, got {steps}")
    threshold = None
    if pedal_threshold is not None:
        threshold = _real("pedal_threshold", pedal_threshold)
        if math.isnan(threshold):
            raise ValueError(f"pedal_threshold: expected a number or None, got {pedal_threshold}")
    if overlap not in (None, "cut", "keep"):
        raise ValueError(f'overlap: expected "cut" or "keep", got {overlap!r}')
    wanted = (channels,) if isinstance(channels, str) else tuple(channels)
    if not wanted or len(set(wanted)) < len(wanted) or not set(wanted) <= set(CHANNELS):
        raise ValueError(f"channels: expected one or more of {', '.join(CHANNELS)}, each once, got {channels!r}")
    begins = None
    if times is not None:
        if steps is not None:
            raise ValueError("times: expected none with steps_per_beat (they are seconds), got some")
        if wanted != ("frame",):
            raise ValueError(f"times: expected the channel frame alone with them, got {channels!r}")
        begins = _times(times)
    if max_bytes < 0:
        raise ValueError(f"max_bytes: expected at least 0, got {max_bytes}")

    kinds = ("uint8",) if packed else ("float64", "float32", "uint8", "bool")
    usual = "uint8" if packed or steps is not None else "float64"
    cell: np.dtype[Any] = np.dtype(usual if dtype is None else dtype)
    if cell.name not in kinds or not cell.isnative:
        raise ValueError(f"dtype: expected {', '.join(kinds)}{' with packed' if packed else ''}, got {cell}")
    return _Job(
        rate, steps, begins, threshold, overlap or ("cut" if steps is None else "keep"),
        bool(binary or packed or cell.kind == "b"), wanted, bool(per_track), bool(drums), cell, bool(packed), max_bytes,
    )  # fmt: skip


def _real(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__} {value!r}")
    return float(value)


def _times(value: Any) -> Array:
    times = np.asarray(value)
    if times.dtype.kind not in "iuf":
        raise TypeError(f"times: expected numbers, got {times.dtype}")
    times = times.astype(np.float64)
    if times.ndim != 1 or not len(times):
        raise ValueError(f"times: expected shape (n,) with n >= 1, got {times.shape}")
    good = np.isfinite(times) & (times >= 0) & (np.diff(times, prepend=0.0) >= 0)
    if not good.all():
        first = int(np.argmin(good))
        raise ValueError(f"times[{first}]: expected finite seconds >= 0, not decreasing, got {times[first]}")
    return times


# -- sources ---------------------------------------------------------------------------------------------------------


def _find(source: Source, job: _Job) -> _Found:
    as_written = job.overlap == "keep"
    if not isinstance(source, Score) and hasattr(source, "instruments") and hasattr(source, "get_piano_roll"):
        if job.steps_per_beat is None:
            return _Found(_of_instruments(source, job), "piano roll", "")
        source = Score.from_pretty_midi(source)
    if isinstance(source, Score):
        return _Found(_core.Roll.of_song(*source._tables(), job.options(), as_written), "piano roll", "")

    path = None
    if isinstance(source, bytes | bytearray | memoryview):
        data, name = bytes(source), "MIDI data"
    elif isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        name = files.shown(path)
        data = files.content(path)
    else:
        raise TypeError(f"source: expected a Score, a PrettyMIDI, a path or bytes, got {type(source).__name__}")
    try:
        roll, issues, unlisted = _core.Roll.of_bytes(data, job.options(), as_written)
    except MidiError as error:
        raise MidiError(f"{name}: {error}", **{**error.__dict__, "path": path}) from None
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    warning = ""
    if issues:
        more = len(issues) + unlisted - 1
        warning = f"{name}: {issues[0][0]}" + (f" (and {more} more, see read_midi)" if more else "")
    return _Found(roll, name, warning)


def _of_instruments(pm: Any, job: _Job) -> _core.Roll:
    """Of a PrettyMIDI's own times."""
    parts: list[tuple[int, int, Array, Array]] = []
    all_notes = [np.zeros(0, _core.part_note_dtype)]
    for index, instrument in enumerate(pm.instruments):
        if not instrument.notes:
            continue
        where = f"instruments[{index}]"
        end = float(instrument.get_end_time())
        if job.times is not None:
            end = max(end, float(job.times[-1]))
        if not end * job.fs < _core.roll_max_width:
            raise _too_large("piano roll", math.inf if math.isnan(end) else end * job.fs, job)
        start = _frames(f"{where}.notes[{{}}].start", [note.start for note in instrument.notes], job.fs)
        stop = _frames(f"{where}.notes[{{}}].end", [note.end for note in instrument.notes], job.fs)
        notes = np.zeros(len(start), _core.part_note_dtype)
        notes["part"], notes["begin"], notes["end"] = len(parts), start, np.maximum(start, stop)
        notes["pitch"] = _whole(f"{where}.notes[{{}}].pitch", [note.pitch for note in instrument.notes], 0, 127)
        velocity = [note.velocity for note in instrument.notes]
        notes["velocity"] = _whole(f"{where}.notes[{{}}].velocity", velocity, 0, 1 << 20)
        if job.drums or not instrument.is_drum:
            all_notes.append(notes)

        controls = [control for control in instrument.control_changes if control.number == _SUSTAIN]
        pedals = np.zeros(0 if job.pedal_threshold is None else len(controls), _core.part_pedal_dtype)
        if len(pedals):
            pedals["frame"] = _frames(f"{where}.control_changes (64)[{{}}].time", [c.time for c in controls], job.fs)
            pedals["down"] = np.array([control.value for control in controls]) >= job.pedal_threshold
        ordered = sorted(instrument.pitch_bends, key=lambda bend: bend.time)
        bends = np.zeros(len(ordered), _core.part_bend_dtype)
        bends["frame"] = _frames(f"{where}.pitch_bends[{{}}].time", [bend.time for bend in ordered], job.fs)
        bends["value"] = _whole(f"{where}.pitch_bends[{{}}].pitch", [bend.pitch for bend in ordered], -8192, 8191)
        parts.append((index, int(end * job.fs), pedals, bends))
    return _core.Roll.of_parts(
        parts, np.concatenate(all_notes, dtype=_core.part_note_dtype), len(pm.instruments), job.options()
    )


def _frames(where: str, times: Sequence[float], fs: float) -> Array:
    seconds = np.asarray(times, np.float64)
    bad = np.flatnonzero(~((seconds >= 0) & (seconds * fs < _core.roll_max_width)))
    if len(bad):
        raise ValueError(f"{where.format(bad[0])}: expected seconds >= 0, got {seconds[bad[0]]}")
    return (seconds * fs).astype(np.uint32)


def _whole(where: str, values: Sequence[Any], low: int, high: int) -> Array:
    column = np.asarray(values, np.float64)
    bad = np.flatnonzero(~((column >= low) & (column <= high) & (column == np.floor(column))))
    if len(bad):
        raise ValueError(f"{where.format(bad[0])}: expected a whole number from {low} to {high}, got {column[bad[0]]}")
    return column.astype(np.int32)


# -- drawing ---------------------------------------------------------------------------------------------------------


def _allocated(found: _Found, job: _Job) -> tuple[Array, bool]:
    """An array for a roll, and whether it is all zeros."""
    shape = _shape(found, job)
    size = math.prod(shape) * job.dtype.itemsize
    if size > job.max_bytes:
        raise _too_large(found.name, found.roll.width, job)
    if size > _RECYCLED:
        return np.zeros(shape, job.dtype), True
    return np.empty(shape, job.dtype), False


def _draw(found: _Found, job: _Job, out: Array, zeroed: bool) -> Array:
    roll = found.roll
    for channel, plane in zip(job.channels, out if len(job.channels) > 1 else out[None], strict=True):
        if job.packed and job.times is None:
            roll.draw_bits(channel, zeroed, plane)
        elif job.packed:
            dense = np.empty((*plane.shape[:-1], int(roll.width)), np.uint8)
            roll.draw(channel, True, False, dense)
            plane[...] = np.packbits(dense, axis=-1)
        else:
            roll.draw(channel, job.binary, zeroed, plane)
    return out


def _shape(found: _Found, job: _Job) -> tuple[int, ...]:
    roll = found.roll
    if roll.width > _core.roll_max_width:
        raise _too_large(found.name, roll.width, job)
    width = int(roll.width)
    channels = (len(job.channels),) if len(job.channels) > 1 else ()
    tracks = (roll.num_tracks,) if job.per_track else ()
    return (*channels, *tracks, _PITCHES, -(-width // 8) if job.packed else width)


def _check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out: expected a numpy array, got {type(out).__name__}")
    if out.shape != shape or out.dtype != dtype:
        raise ValueError(f"out: expected shape {shape} of {dtype}, got {out.shape} of {out.dtype}")
    if not (out.flags.c_contiguous and out.flags.writeable and out.flags.aligned):
        raise ValueError("out: expected a C-contiguous, aligned array that can be written to, got one that is not")


def _too_large(name: str, width: float, job: _Job) -> MemoryError:
    """For a roll of so many columns (of one track, where there could be several)."""
    columns = width / 8 if job.packed else width
    size = columns * _PITCHES * len(job.channels) * job.dtype.itemsize
    return MemoryError(
        f"{name}: expected a roll of at most {job.max_bytes} bytes (max_bytes), got {size:.0f} for {width:.0f} columns"
    )
