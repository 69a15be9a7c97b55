"""Ticks as seconds, beats and bars, and back: over arrays, in O(log n) a time for n tempos or time signatures."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

DEFAULT_TEMPO = 500_000  # microseconds per quarter note where a file says nothing: 120 per minute
BAR = np.dtype([("start", "i8"), ("duration", "i8"), ("number", "i8"), ("numerator", "i2"), ("denominator", "i2")])
MOST_BARS = 10_000_000
_MOST_TICKS = 2.0**62


class TempoMap(NamedTuple):
    """Where each tempo begins: ticks; sums of ticks times tempo; tempo; and what to divide such a sum by."""

    ticks: Array
    sums: Array
    tempo: Array
    divisor: float

    @classmethod
    def of(cls, tempos: Array, ticks_per_quarter: int) -> TempoMap:
        """From a table of tempos in any order."""
        tempos = tempos[np.argsort(tempos["time"], kind="stable")]
        ticks, tempo = tempos["time"], tempos["microseconds_per_quarter"].astype(float)
        last = np.append(np.diff(ticks) > 0, True)[: len(ticks)]  # of several at one tick, the last counts
        ticks, tempo = ticks[last], tempo[last]
        if not len(ticks) or ticks[0] > 0:
            ticks, tempo = np.insert(ticks, 0, 0), np.insert(tempo, 0, DEFAULT_TEMPO)
        # Whole numbers below 2^53 for any piece of up to 24 hours: the sums are exact, the division rounds once.
        sums = np.concatenate([[0.0], np.cumsum(np.diff(ticks) * tempo[:-1])])
        return cls(ticks, sums, tempo, 1e6 * ticks_per_quarter)

    @classmethod
    def steady(cls, seconds_per_tick: float) -> TempoMap:
        return cls(np.zeros(1, np.int64), np.zeros(1), np.ones(1), 1 / seconds_per_tick)

    def to_seconds(self, ticks: npt.ArrayLike) -> Array:
        times = np.asarray(ticks)
        segment = np.maximum(np.searchsorted(self.ticks, times, side="right") - 1, 0)
        return cast("Array", (self.sums[segment] + (times - self.ticks[segment]) * self.tempo[segment]) / self.divisor)

    def to_ticks(self, seconds: npt.ArrayLike) -> Array:
        times = np.asarray(seconds, np.float64)
        if not np.all(np.isfinite(times)):
            raise ValueError(f"seconds: expected finite numbers, got {times[~np.isfinite(times)][0]}")
        work = times * self.divisor
        segment = np.maximum(np.searchsorted(self.sums, work, side="right") - 1, 0)
        ticks = np.rint((work - self.sums[segment]) / self.tempo[segment])
        if np.any(np.abs(ticks) >= _MOST_TICKS):
            raise ValueError(f"seconds: expected times below 2^62 ticks, got {np.max(np.abs(times))} seconds")
        return self.ticks[segment] + ticks.astype(np.int64)


def to_beats(ticks: npt.ArrayLike, ticks_per_quarter: int, exact: bool) -> Array:
    times = np.asarray(ticks)
    if not exact:
        return cast("Array", times / ticks_per_quarter)
    return np.asarray(np.frompyfunc(lambda time: Fraction(int(time), ticks_per_quarter), 1, 1)(times), object)


def from_beats(beats: npt.ArrayLike, ticks_per_quarter: int, exact: bool) -> Array:
    given = np.asarray(beats)
    if given.dtype.kind not in "iufO":
        raise TypeError(f"beats: expected numbers, got {given.dtype}")
    if given.dtype.kind == "f" and not np.all(np.isfinite(given)):
        raise ValueError(f"beats: expected finite numbers, got {given[~np.isfinite(given)][0]}")
    times = given * ticks_per_quarter
    if np.any(np.abs(times) >= _MOST_TICKS):
        raise ValueError(f"beats: expected times below 2^62 ticks, got {np.max(np.abs(given))} beats")
    ticks = np.asarray(np.frompyfunc(round, 1, 1)(times) if given.dtype.kind == "O" else np.rint(times))
    off = np.atleast_1d(ticks != times)
    if exact and off.any():
        first = np.atleast_1d(given)[off][0]
        raise ValueError(f"beats: expected times on one of the {ticks_per_quarter} ticks of a beat, got {first}")
    return ticks.astype(np.int64)


class BarMap:
    """Bars over time signatures: 4/4 where they say nothing; of several at one tick, the last counts.

    A time signature begins a new bar, cutting the one before it short. Bars are numbered from 1. A pickup is bar 0: a
    first time signature that holds for exactly one bar, shorter than the bars of the next; it is the end of a bar of
    the next one. A bar that would begin between two ticks begins at the later; it lasts at least one tick.
    """

    def __init__(self, signatures: Array, ticks_per_quarter: int) -> None:
        table = signatures[np.argsort(signatures["time"], kind="stable")]
        begins = table["time"].astype(np.int64)
        meters = np.stack([table["numerator"], table["denominator"]], axis=1).astype(np.int64)
        last = np.append(np.diff(begins) > 0, True)[: len(begins)]
        begins, meters = begins[last], meters[last]
        if not len(begins) or begins[0] > 0:
            begins, meters = np.insert(begins, 0, 0), np.insert(meters, 0, (4, 4), axis=0)
        ticks = 4 * ticks_per_quarter * meters[:, 0]  # a bar is so many ticks, divided by
        parts = meters[:, 1].copy()
        common = np.gcd(ticks, parts)
        ticks, parts = ticks // common, parts // common
        tiny = ticks < parts
        ticks[tiny] = parts[tiny] = 1
        into = np.zeros(len(begins), np.int64)  # how far into a bar a segment begins
        if len(begins) > 1 and parts[0] == parts[1] == 1 and begins[1] == ticks[0] < ticks[1]:
            into[0] = ticks[1] - ticks[0]
            meters[0], ticks[0] = meters[1], ticks[1]
        self.begins, self.meters, self.into = begins, meters, into
        self._ticks, self._parts = ticks, parts
        spans = np.diff(begins) + into[:-1]
        counts = -self._floor(np.arange(len(spans)), -spans)
        self.numbers = np.cumsum(np.concatenate([[0 if into[0] else 1], counts]))

    def _floor(self, segment: Array, ticks: Any) -> Array:
        """How many whole bars of a segment are `ticks`, in integers that do not overflow."""
        whole, rest = np.divmod(ticks, self._ticks[segment])
        return np.asarray(whole * self._parts[segment] + rest * self._parts[segment] // self._ticks[segment])

    def _begin(self, segment: Array, bars: Array) -> Array:
        """Ticks from the beginning of a segment's first bar to that of its bar number `bars`, from 0."""
        whole, rest = np.divmod(bars, self._parts[segment])
        return np.asarray(whole * self._ticks[segment] - -rest * self._ticks[segment] // self._parts[segment])

    def to_bars(self, ticks: npt.ArrayLike) -> tuple[Array, Array]:
        times = np.asarray(ticks)
        if times.dtype.kind not in "iu":
            raise TypeError(f"ticks: expected integers, got {times.dtype}")
        segment = np.maximum(np.searchsorted(self.begins, times, side="right") - 1, 0)
        offset = times.astype(np.int64) - self.begins[segment] + self.into[segment]
        bars = self._floor(segment, offset)
        return self.numbers[segment] + bars, offset - self._begin(segment, bars)

    def from_bars(self, bars: npt.ArrayLike) -> Array:
        numbers = np.asarray(bars)
        if numbers.dtype.kind not in "iu":
            raise TypeError(f"bars: expected integers, got {numbers.dtype}")
        segment = np.maximum(np.searchsorted(self.numbers, numbers, side="right") - 1, 0)
        begin = self._begin(segment, numbers.astype(np.int64) - self.numbers[segment])
        return np.asarray(self.begins[segment] - self.into[segment] + begin)

    def meter_at(self, tick: int) -> tuple[int, int]:
        """Numerator and denominator in force."""
        segment = max(int(np.searchsorted(self.begins, tick, side="right")) - 1, 0)
        numerator, denominator = self.meters[segment].tolist()
        return numerator, denominator

    def bars(self, end: int) -> Array:
        """Every bar that begins before `end`, and at least one: dtype `BAR`."""
        first, count = int(self.numbers[0]), int(self.to_bars(max(end - 1, 0))[0]) - int(self.numbers[0]) + 1
        if count > MOST_BARS:
            raise ValueError(f"bars: expected at most {MOST_BARS}, got {count} up to tick {end}")
        table = np.empty(count, BAR)
        table["number"] = np.arange(first, first + count)
        segment = np.searchsorted(self.numbers, table["number"], side="right") - 1
        begins = np.maximum(self.from_bars(np.arange(first, first + count + 1)), 0)
        table["start"], table["duration"] = begins[:-1], np.diff(begins)
        table["numerator"], table["denominator"] = self.meters[segment].T
        return table
