"""Numbers about rendered and real sound: has it the right pitches, does it stay a tone, how well is it foretold.

Only numpy. Models come in as the sound that they made, or as the log-probabilities that they gave.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from musicgen_ext.evaluate.pitch import yin
from musicgen_ext.features.decibels import mu_law_decode

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

HALF_A_SEMITONE = 0.5
_CLEAR = 0.5  # aperiodicity above which a frame has no pitch
_MIDDLE = (0.25, 0.75)  # of a note: what is heard of its pitch
# Beside a harmonic belong to it: the main lobe of the window (16 Hz), and an eighth of a semitone of vibrato, but never
# more than half of the spectrum in all.
_LOBE, _VIBRATO, _MOST = 20.0, 0.0072, 0.25
_FFT_SECONDS = 0.128


# -- rendered scores -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rendering:
    """What was heard of the notes of one line.

    Attributes
    ----------
    notes : int
        Notes of the line that lie inside the sound.
    in_tune : int
        … whose pitch was heard within half a semitone.
    semitones : np.ndarray [shape=(notes,)], float64
        Heard less written pitch; NaN where no pitch was heard.
    level : np.ndarray [shape=(seconds,)], float64
        Level of every second, in dB relative to 1.
    noise : np.ndarray [shape=(seconds,)], float64
        Share of the power of every second that lies apart from the harmonics of what is played; NaN in silence.
    rests : float
        Level of the rests of 0.3 s and more, without their first 0.2 s, in dB; NaN if there are none.
    """

    notes: int
    in_tune: int
    semitones: Doubles = field(repr=False)
    level: Doubles = field(repr=False)
    noise: Doubles = field(repr=False)
    rests: float = math.nan


def hear(y: npt.NDArray[np.float32], sr: int, notes: npt.NDArray[np.float64]) -> Rendering:
    """Compare a sound with the line that it should play.

    Parameters
    ----------
    y : np.ndarray [shape=(n,)], float32
    sr : int
    notes : np.ndarray [shape=(m, 4)], float64
        Start and end in seconds, pitch, velocity: `encodings.Line.notes`.

    Notes
    -----
    The pitch of a note is the median of those that `yin` finds in frames of its middle half (at least in the frame that
    is nearest to its middle).
    """
    inside = notes[(notes[:, 0] + notes[:, 1]) / 2 < len(y) / sr]
    lowest = 440 * 2 ** ((notes[:, 2].min() - 69 - 7) / 12) if len(notes) else 55.0
    highest = 440 * 2 ** ((notes[:, 2].max() - 69 + 19) / 12) if len(notes) else 2_000.0
    fmin = min(max(lowest, 20.0), sr / 16)
    found = yin(y, sr=sr, fmin=fmin, fmax=min(max(highest, 4 * fmin), sr / 4), hop_length=max(1, round(sr / 200)))
    heard = 69 + 12 * np.log2(found.hertz / 440)
    off = np.full(len(inside), math.nan)
    for i, (start, end, pitch, _) in enumerate(inside.tolist()):
        if not len(found.times):
            break
        low, high = (start + share * (end - start) for share in _MIDDLE)
        begin, stop = np.searchsorted(found.times, (low, high))
        if begin == stop:
            begin = int(np.abs(found.times - (low + high) / 2).argmin())
            stop = begin + 1
        clear = found.aperiodicity[begin:stop] < _CLEAR
        if clear.any():
            off[i] = float(np.median(heard[begin:stop][clear])) - pitch
    level, noise = _over_time(y, sr, notes)
    return Rendering(len(inside), int((np.abs(off) <= HALF_A_SEMITONE).sum()), off, level, noise, _rests(y, sr, notes))


def _over_time(y: npt.NDArray[np.float32], sr: int, notes: Doubles) -> tuple[Doubles, Doubles]:
    """Level and share of noise of every second; what remains of the last one belongs to the one before."""
    seconds = max(1, len(y) // sr)
    size = max(16, 2 ** round(math.log2(_FFT_SECONDS * sr)))
    window = np.hanning(size + 1)[:-1]
    hertz = np.fft.rfftfreq(size, 1 / sr)
    level, noise = np.empty(seconds), np.full(seconds, math.nan)
    for second in range(seconds):
        part = y[second * sr : (second + 1) * sr if second + 1 < seconds else len(y)].astype(np.float64)
        level[second] = _decibels(float(np.mean(part**2)) if len(part) else 0.0)
        tonal = apart = 0.0
        for first in range(0, len(part) - size + 1, size // 2):
            begin = second + first / sr
            sounding = notes[(notes[:, 0] < begin + size / sr) & (notes[:, 1] > begin)]
            if not len(sounding):
                continue
            power = np.abs(np.fft.rfft(part[first : first + size] * window)) ** 2
            harmonic = np.zeros(len(hertz), bool)
            for pitch in np.unique(sounding[:, 2]):
                tone = 440 * 2 ** ((pitch - 69) / 12)
                number = np.maximum(np.rint(hertz / tone), 1)
                width = np.minimum(_LOBE + _VIBRATO * number * tone, _MOST * tone)
                harmonic |= np.abs(hertz - number * tone) <= width
            tonal += float(power[harmonic].sum())
            apart += float(power[~harmonic & (hertz > 30)].sum())
        if tonal + apart > 0:
            noise[second] = apart / (tonal + apart)
    return level, noise


def _rests(y: npt.NDArray[np.float32], sr: int, notes: Doubles) -> float:
    ends = np.concatenate([[-0.2], np.maximum.accumulate(notes[:, 1])]) if len(notes) else np.array([-0.2])
    starts = np.append(notes[:, 0], len(y) / sr)
    power, count = 0.0, 0
    for end, start in zip(ends.tolist(), starts.tolist(), strict=True):
        if start - end >= 0.3:
            part = y[max(0, round((end + 0.2) * sr)) : max(0, round(start * sr))].astype(np.float64)
            power, count = power + float((part**2).sum()), count + len(part)
    return _decibels(power / count) if count else math.nan


def _decibels(power: float) -> float:
    return 10 * math.log10(max(power, 1e-12))


def rendering_report(heard: Mapping[str, Rendering]) -> dict[str, Any]:
    """Numbers about renderings, by name, ready for JSON.

    Keys: notes, in_tune (their share), unheard (share of notes without a pitch), octaves (share heard whole octaves
    off), cents (median of the absolute differences of the notes that are in tune), level (dB: mean, quietest and
    loudest second that has notes), noise (share of power apart from the harmonics: mean, of the first and the last ten
    seconds of every line, and the worst second), rests (dB), lines (of every line notes, in_tune, and level and noise
    of every second).
    """
    lines = list(heard.values())
    notes = sum(line.notes for line in lines)
    off = np.concatenate([line.semitones for line in lines]) if lines else np.zeros(0)
    tuned = np.abs(off) <= HALF_A_SEMITONE
    octaves = ~tuned & (np.abs(off - 12 * np.rint(off / 12)) <= HALF_A_SEMITONE)
    played = [~np.isnan(line.noise) for line in lines]
    level = np.concatenate([line.level[there] for line, there in zip(lines, played, strict=True)] or [np.zeros(0)])
    noise = [line.noise[there] for line, there in zip(lines, played, strict=True)]
    every = np.concatenate(noise or [np.zeros(0)])
    return {
        "notes": notes,
        "in_tune": _share(tuned),
        "unheard": _share(np.isnan(off)),
        "octaves": _share(octaves),
        "cents": 100 * float(np.median(np.abs(off[tuned]))) if tuned.any() else None,
        "level": {"mean": _mean(level), "quietest": _least(level), "loudest": _most(level)},
        "noise": {
            "mean": _mean(every),
            "first": _mean(np.concatenate([part[:10] for part in noise] or [every])),
            "last": _mean(np.concatenate([part[-10:] for part in noise] or [every])),
            "worst": _most(every),
        },
        "rests": _mean(np.array([line.rests for line in lines if not math.isnan(line.rests)])),
        "lines": {
            name: {
                "notes": line.notes,
                "in_tune": line.in_tune,
                "level": [round(value, 2) for value in line.level.tolist()],
                "noise": [None if math.isnan(value) else round(value, 5) for value in line.noise.tolist()],
            }
            for name, line in heard.items()
        },
    }


def _share(which: npt.NDArray[np.bool_]) -> float | None:
    return float(which.mean()) if len(which) else None


def _mean(values: Doubles) -> float | None:
    return float(values.mean()) if len(values) else None


def _least(values: Doubles) -> float | None:
    return float(values.min()) if len(values) else None


def _most(values: Doubles) -> float | None:
    return float(values.max()) if len(values) else None


def format_rendering(report: Mapping[str, Any]) -> str:
    """`rendering_report` for people."""

    def percent(value: float | None) -> str:
        return "none" if value is None else f"{100 * value:.1f} %"

    def decibels(value: float | None) -> str:
        return "none" if value is None else f"{value:.1f} dB"

    level, noise = report["level"], report["noise"]
    cents = "" if report["cents"] is None else f", {report['cents']:.0f} cents off in the median"
    return "\n".join(
        [
            f"{report['notes']} notes: {percent(report['in_tune'])} within half a semitone{cents}; "
            f"{percent(report['octaves'])} whole octaves off, {percent(report['unheard'])} without a pitch",
            f"level: {decibels(level['mean'])}, from {decibels(level['quietest'])} to {decibels(level['loudest'])} "
            f"in one second; in rests {decibels(report['rests'])}",
            f"power apart from the harmonics: {percent(noise['mean'])}; {percent(noise['first'])} in the first 10 s, "
            f"{percent(noise['last'])} in the last 10 s, {percent(noise['worst'])} in the worst second",
            *(f"  {name}: {line['in_tune']} of {line['notes']}" for name, line in report["lines"].items()),
        ]
    )


# -- simple models of sound --------------------------------------------------------------------------------------------


class Counting:
    """The next class of a mu-law sound from the last one, by counting: a first-order model.

    Pairs are counted in `training`; a pair's probability is its share, mixed with that of the class alone as if this
    had been seen `weight` times more after every class; `weight` is what foretells the last tenth of `training` best.

    Parameters
    ----------
    training : iterable of np.ndarray [shape=(n,)], int32
        Tokens of sounds.
    classes : int
    """

    def __init__(self, training: Iterable[Ints], classes: int) -> None:
        sounds = [np.asarray(tokens) for tokens in training]
        counts = [_pairs(tokens[: 9 * len(tokens) // 10], classes) for tokens in sounds]
        kept = sum(counts, np.zeros((classes, classes)))
        left = sum((_pairs(tokens[9 * len(tokens) // 10 :], classes) for tokens in sounds), np.zeros_like(kept))
        weights = [4.0**k for k in range(-3, 8)]
        costs = [-float((left * np.log(_mixed(kept, weight))).sum()) for weight in weights]
        self.weight = weights[int(np.argmin(costs))]
        self._log: Doubles = np.log(_mixed(kept + left, self.weight))
        self.classes = classes

    def log_prob(self, tokens: Ints) -> Doubles:
        """Nats of every sample; the one before the first is silence."""
        before = np.concatenate([[self.classes // 2], tokens[:-1]])
        chosen: Doubles = self._log.ravel()[before.astype(np.int64) * self.classes + tokens]
        return chosen


def _pairs(tokens: Ints, classes: int) -> Doubles:
    if len(tokens) < 2:
        return np.zeros((classes, classes))
    flat = tokens[:-1].astype(np.int64) * classes + tokens[1:]
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes).astype(np.float64)


def _mixed(pairs: Doubles, weight: float) -> Doubles:
    alone = pairs.sum(axis=0) + 1
    alone /= alone.sum()
    mixed: Doubles = (pairs + weight * alone) / (pairs.sum(axis=1, keepdims=True) + weight)
    return mixed


class LinearPrediction:
    """The next sample as a weighted sum of the last `order`, and a logistic distribution around it.

    Its scale is ``floor + gain * m``, m the mean error over the last 32 samples, so that loud and soft sound each have
    theirs. The weights are those of least squares over all of `training`; floor and gain are what foretells a part of
    it best. A class of the mu-law scale has the probability of the values that become it: a proper distribution over
    the same classes that a WaveNet draws from.

    Parameters
    ----------
    training : sequence of np.ndarray [shape=(n,)], int32
        Tokens of sounds.
    classes : int
    order : int
    """

    _WINDOW = 32

    def __init__(self, training: Sequence[Ints], classes: int, order: int = 32) -> None:
        self.classes, self.order = classes, order
        c = (2 * np.arange(1, classes) - 1) / (classes - 1) - 1  # where the compressed value becomes the next class
        mu = classes - 1
        edges = np.sign(c) * np.expm1(np.abs(c) * np.log1p(mu)) / mu
        self._edges = np.concatenate([[-np.inf], edges, [np.inf]])
        correlation = np.zeros(order + 1)
        for tokens in training:
            sound = self._sound(tokens)
            for first in range(0, len(sound), 1 << 20):
                part = sound[max(0, first - order) : first + (1 << 20)]
                now = part[order:] if first else np.concatenate([part, np.zeros(0)])
                past = part if first else np.concatenate([np.zeros(order), part])
                correlation += [float(now @ past[order - lag : order - lag + len(now)]) for lag in range(order + 1)]
        correlation[0] = correlation[0] * (1 + 1e-9) + 1e-9
        toeplitz = correlation[np.abs(np.arange(order)[:, None] - np.arange(order))]
        self.weights: Doubles = np.linalg.solve(toeplitz, correlation[1:])
        self.floor, self.gain = self._fit(training)

    def _fit(self, training: Sequence[Ints]) -> tuple[float, float]:
        part = [
            tokens[len(tokens) // 2 : len(tokens) // 2 + 40_000] for tokens in training[:: max(1, len(training) // 8)]
        ]
        settled = [(tokens, *self._predicted(tokens)) for tokens in part]
        best, found = math.inf, (1e-3, 0.5)
        for floor in 10.0 ** np.arange(-5, -0.9, 0.5):
            for gain in (0.0, 0.125, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4):
                cost = -sum(float(self._masses(*each, floor, gain).sum()) for each in settled)
                if cost < best:
                    best, found = cost, (float(floor), gain)
        return found

    def _sound(self, tokens: Ints) -> Doubles:
        return mu_law_decode(tokens, mu=self.classes - 1).astype(np.float64)

    def _predicted(self, tokens: Ints) -> tuple[Doubles, Doubles]:
        """What is foretold of every sample, and the mean error before it."""
        sound = self._sound(tokens)
        size = 1 << (len(sound) + self.order).bit_length()
        taps = np.concatenate([[0.0], self.weights])
        foretold = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(taps, size), size)[: len(sound)]
        total = np.concatenate([[0.0], np.cumsum(np.abs(sound - foretold))])
        until = np.arange(len(sound))
        since = np.maximum(until - self._WINDOW, 0)
        return foretold, (total[until] - total[since]) / np.maximum(until - since, 1)

    def _masses(self, tokens: Ints, foretold: Doubles, error: Doubles, floor: float, gain: float) -> Doubles:
        scale = floor + gain * error
        low = (self._edges[tokens] - foretold) / scale
        high = (self._edges[tokens + 1] - foretold) / scale
        flip = low + high > 0  # where the logistic function is near 0, the difference keeps its digits
        low, high = np.where(flip, -high, low), np.where(flip, -low, high)
        below = -np.logaddexp(0, -high)
        with np.errstate(divide="ignore"):
            mass: Doubles = np.maximum(below + np.log(-np.expm1(-np.logaddexp(0, -low) - below)), -700.0)
        return mass

    def log_prob(self, tokens: Ints) -> Doubles:
        """Nats of every sample; before the first there is silence."""
        out = np.empty(len(tokens))
        for first in range(0, len(tokens), 1 << 20):
            begin = max(0, first - self.order - self._WINDOW)
            part = tokens[begin : first + (1 << 20)]
            masses = self._masses(part, *self._predicted(part), self.floor, self.gain)
            out[first : first + (1 << 20)] = masses[first - begin :]
        return out


def bits_per_sample(log_probs: Iterable[Doubles]) -> float:
    """Mean of minus the logarithms to base 2, over the samples of all sounds."""
    parts = list(log_probs)
    return -math.fsum(float(part.sum()) for part in parts) / max(1, sum(map(len, parts))) / math.log(2)
