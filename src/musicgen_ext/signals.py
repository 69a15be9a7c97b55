"""Sound made ready for training: levels, mixtures, silence cut off, and changes drawn by chance.

An array of shape (n,) or (channels, n) is one sound; further axes in front number the sounds of a batch, so a batch of
mono sounds has shape (B, 1, n). What is measured or drawn is measured or drawn once for a sound: its channels stay
together.

Where a function takes a range ``(low, high)`` it draws from it, for every sound of a batch by itself. Sound i of seed s
reads the raw words of numpy's ``Philox(counter=(0, 0, 0, k), key=(s, index + i))``, a stream that numpy promises to
keep, with a k for every function: the same seed gives the same result, whatever else is in the batch, and functions
that are given the same seed do not draw alike. The first word draws the number, noise is made of the words after it.

Levels are peaks and root mean squares. Loudness after ITU-R BS.1770 (LUFS) is not measured here.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core, checks
from musicgen_ext.audio import Quality, resample
from musicgen_ext.features import amplitude_to_db, istft, rms, stft
from musicgen_ext.features.windows import Window

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Range = tuple[float, float]
Reference = float | Callable[[Floats], Any]

_MOST_OCTAVES = 6  # of a tempo or a pitch, either way
_MOST_DB = 400.0  # either way: float32 holds 1e38
_GAIN, _NOISE, _SHIFT, _STRETCH, _PITCH = 1, 2, 3, 4, 5  # k of the streams
_FAINT = 2.0**-60  # below, sounds are stretched louder: denormal numbers take six times as long
_CACHED = 1 << 15  # values of a spectrogram stretched at a time: they stay in the second-level cache
_BLOCK = 1 << 18  # samples of noise made at a time: milliseconds, so that Ctrl-C is heard


# -- levels ----------------------------------------------------------------------------------------------------------


def to_mono(y: npt.ArrayLike) -> Floats:
    """The mean of the channels.

    Parameters
    ----------
    y : np.ndarray [shape=(n,) or (..., channels, n)], floating point

    Returns
    -------
    np.ndarray [shape=(n,) or (..., n)], float32

    Raises
    ------
    TypeError, ValueError
        `y` is no sound; see `checks.samples`.
    """
    samples = checks.samples(y)
    if samples.ndim == 1:
        return _own(samples, y)
    mean: Doubles = np.mean(samples, axis=-2, dtype=np.float64)
    return mean.astype(np.float32)


def normalize(y: npt.ArrayLike, db: float = 0.0, *, measure: Literal["peak", "rms"] = "peak") -> Floats:
    """Every sound scaled to a level.

    Parameters
    ----------
    y : np.ndarray [shape=(n,) or (..., channels, n)], floating point
    db : float
        The level, in dB relative to 1.
    measure : "peak" or "rms"
        What is to have it: the largest magnitude, or the root mean square over all channels. With "rms", samples may
        pass [-1, 1].

    Returns
    -------
    np.ndarray [shape as y], float32
        Silence stays silence.

    Raises
    ------
    TypeError, ValueError
        `y` is no sound; `db` beyond 400 dB; another `measure`; a level that float32 cannot hold.
    """
    samples = checks.samples(y)
    level = _amplitude(checks.real("db", db, -_MOST_DB, _MOST_DB))
    checks.choice("measure", measure, ("peak", "rms"))
    sounds = _sounds(samples)
    found = np.abs(sounds).max(axis=(1, 2)).astype(np.float64) if measure == "peak" else np.sqrt(_power(sounds))
    factors = np.divide(level, found, out=np.zeros_like(found), where=found > 0)
    return _scaled("normalize", sounds, factors).reshape(samples.shape)


def gain(y: npt.ArrayLike, db: float | Range, *, seed: int | None = None, index: int = 0) -> Floats:
    """Every sound made louder or softer.

    Parameters
    ----------
    y : np.ndarray [shape=(n,) or (..., channels, n)], floating point
    db : float, or (low, high)
        Decibels, drawn uniformly from a range.
    seed : int in [0, 2^64), optional
        None: another one at every call.
    index : int >= 0
        The number of the first sound; see the module.

    Returns
    -------
    np.ndarray [shape as y], float32
        Not clipped.

    Raises
    ------
    TypeError, ValueError
        `y` is no sound; an argument out of its range; a result that float32 cannot hold.
    """
    samples = checks.samples(y)
    sounds = _sounds(samples)
    drawn = _drawn("db", db, -_MOST_DB, _MOST_DB, [dice.coin() for dice in _dice(_GAIN, len(sounds), seed, index)])
    return _scaled("gain", sounds, 10 ** (drawn / 20)).reshape(samples.shape)


# -- silence ---------------------------------------------------------------------------------------------------------


def trim(
    y: npt.ArrayLike,
    *,
    top_db: float = 60.0,
    ref: Reference = np.max,
    frame_length: int = 2048,
    hop_length: int = 512,
    aggregate: Callable[..., Any] = np.max,
) -> tuple[Floats, Ints]:
    """A sound without the silence at its beginning and end.

    Parameters
    ----------
    y : np.ndarray [shape=(..., n)], floating point
    top_db : float
        Frames this many decibels or more below `ref` are silent.
    ref : float > 0 or callable
        The amplitude at 0 dB, or what finds it among the root mean squares of the frames.
    frame_length, hop_length : int > 0
        Samples of a frame, and from one to the next.
    aggregate : callable
        What makes one level of those of the channels: called with an array and an axis.

    Returns
    -------
    trimmed : np.ndarray [shape=(..., m)], float32
        Empty where every frame is silent. Total silence is not silent relative to its own maximum, and stays.
    index : np.ndarray [shape=(2,)], int64
        ``trimmed`` is ``y[..., index[0]:index[1]]``.

    Raises
    ------
    TypeError, ValueError
        `y` is no sound; an argument out of its range.

    Notes
    -----
    ``librosa.effects.trim``: a frame around each multiple of `hop_length`, zeros beyond the ends.
    """
    samples = checks.samples(y)
    frames = np.flatnonzero(_sounding(samples, top_db, ref, frame_length, hop_length, aggregate))
    index = np.zeros(2, np.int64)
    if frames.size:
        index[:] = frames[0] * hop_length, min((frames[-1] + 1) * hop_length, samples.shape[-1])
    return _own(np.ascontiguousarray(samples[..., index[0] : index[1]]), y), index


def split(
    y: npt.ArrayLike,
    *,
    top_db: float = 60.0,
    ref: Reference = np.max,
    frame_length: int = 2048,
    hop_length: int = 512,
    aggregate: Callable[..., Any] = np.max,
) -> Ints:
    """The stretches of a sound between its silences: ``librosa.effects.split``.

    Parameters and errors as `trim`.

    Returns
    -------
    np.ndarray [shape=(stretches, 2)], int64
        The first sample of each, and the one after its last.
    """
    samples = checks.samples(y)
    sounding = _sounding(samples, top_db, ref, frame_length, hop_length, aggregate)
    edges = np.flatnonzero(np.diff(sounding, prepend=False, append=False))
    return np.minimum(edges * hop_length, samples.shape[-1]).astype(np.int64).reshape(-1, 2)


def _sounding(
    samples: Floats, top_db: Any, ref: Any, frame_length: Any, hop_length: Any, aggregate: Callable[..., Any]
) -> npt.NDArray[np.bool_]:
    top_db = checks.real("top_db", top_db)
    levels = rms(y=samples, frame_length=frame_length, hop_length=hop_length)[..., 0, :]
    db: npt.NDArray[Any] = amplitude_to_db(levels, ref=ref, top_db=None)
    if db.ndim > 1:
        db = np.apply_over_axes(aggregate, db, range(db.ndim - 1)).reshape(-1)
    sounding: npt.NDArray[np.bool_] = db > -top_db
    return sounding


# -- mixtures --------------------------------------------------------------------------------------------------------


def mix(
    ys: Sequence[npt.ArrayLike],
    *,
    db: Sequence[float] | None = None,
    snr: float | Sequence[float] | None = None,
    size: int | Literal["longest", "shortest", "first"] = "longest",
) -> Floats:
    """The sum of sounds.

    Parameters
    ----------
    ys : sequence of np.ndarray [shape=(n,) or (channels, n)], floating point
        Mono sounds are added to every channel of the others.
    db : sequence of floats, optional
        A gain for each sound, in dB.
    snr : float or sequence of floats, optional
        In place of `db`: scale each sound after the first so that the power of the first is this many dB above its
        own. Powers are means over the samples that are used (what is cropped off or padded does not count). Where the
        first is silent, so is the result.
    size : int, "longest", "shortest" or "first"
        Samples of the result; sounds are cropped at their end, or padded with zeros.

    Returns
    -------
    np.ndarray [shape=(size,) or (channels, size)], float32
        Not clipped.

    Raises
    ------
    TypeError, ValueError
        Something that is no sound; channels that do not go together; an argument out of its range; a sum that float32
        cannot hold.

    Examples
    --------
    Speech over music, 10 dB louder:

    >>> import numpy as np
    >>> from musicgen_ext import signals
    >>> rng = np.random.default_rng(0)
    >>> speech, music = rng.normal(0, 0.1, 16_000), rng.normal(0, 0.2, (2, 20_000))
    >>> signals.mix([speech, music], snr=10, size="first").shape
    (2, 16000)
    """
    if not isinstance(ys, Sequence) or isinstance(ys, str | bytes):  # an array is no sequence of sounds
        raise TypeError(f"ys: expected a sequence of sounds, got {type(ys).__name__}")
    if not ys:
        raise ValueError("ys: expected at least 1 sound, got none")
    sounds = [checks.samples(y, name=f"ys[{i}]") for i, y in enumerate(ys)]
    for i, sound in enumerate(sounds):
        if sound.ndim > 2:
            raise ValueError(f"ys[{i}]: expected shape (n,) or (channels, n), got {sound.shape}")
    channels = sorted({sound.shape[0] for sound in sounds if sound.ndim == 2} - {1})
    if len(channels) > 1:
        raise ValueError(f"ys: expected sounds of one channel or all of the same number, got {channels}")
    lengths = [sound.shape[-1] for sound in sounds]
    if isinstance(size, str):
        checks.choice("size", size, ("longest", "shortest", "first"))
        count = {"longest": max(lengths), "shortest": min(lengths), "first": lengths[0]}[size]
    else:
        count = checks.integer("size", size)
    used = [sound[..., :count] for sound in sounds]
    factors = _mix_factors(used, db, snr)
    shape = (channels[0] if channels else 1, count) if any(s.ndim == 2 for s in sounds) else (count,)
    total = np.zeros(shape, np.float64)
    for sound, factor in zip(used, factors, strict=True):
        total[..., : sound.shape[-1]] += factor * sound.astype(np.float64)
    return _single("mix", total)


def noise(
    y: npt.ArrayLike,
    snr: float | Range,
    *,
    color: Literal["white", "pink"] = "white",
    seed: int | None = None,
    index: int = 0,
) -> Floats:
    """Every sound with noise added.

    Parameters
    ----------
    y, seed, index
        As in `gain`.
    snr : float, or (low, high)
        Power of the sound over that of the noise, in dB, drawn uniformly from a range; exact for every sound. Silence
        stays silence.
    color : "white" or "pink"
        Normally distributed; the same power at all frequencies, or one that falls by 3 dB an octave.

    Returns
    -------
    np.ndarray [shape as y], float32
        Every channel has a noise of its own. Not clipped.

    Raises
    ------
    TypeError, ValueError
        `y` is no sound; an argument out of its range; a result that float32 cannot hold.

    Notes
    -----
    G. E. P. Box and M. E. Muller, Annals of Mathematical Statistics 29(2), 1958, from two words a pair. The logarithm
    and the cosine are the machine's: another one may give other last bits.
    """
    samples = checks.samples(y)
    checks.choice("color", color, ("white", "pink"))
    sounds = _sounds(samples)
    dice = _dice(_NOISE, len(sounds), seed, index)
    drawn = _drawn("snr", snr, -_MOST_DB, _MOST_DB, [die.coin() for die in dice])
    out = np.empty_like(sounds)
    for sound, level, die, target in zip(sounds, drawn, dice, out, strict=True):
        added = [die.normal(sound.shape[-1]) for _ in sound]  # channel by channel, and so on below: Ctrl-C is heard
        if color == "pink":
            added = [_pink(channel) for channel in added]
        own = sum(float(np.dot(channel, channel)) for channel in added) / sound.size
        factor = math.sqrt(float(_power(sound[None])[0]) / own) * _amplitude(-level) if own > 0 else 0.0
        for channel, part, into in zip(sound, added, target, strict=True):
            part *= factor
            part += channel
            into[:] = _single("noise", part)
    return out.reshape(samples.shape)


# -- time ------------------------------------------------------------------------------------------------------------


def time_shift(
    y: npt.ArrayLike,
    samples: int | tuple[int, int],
    *,
    mode: Literal["zeros", "wrap"] = "zeros",
    seed: int | None = None,
    index: int = 0,
) -> Floats:
    """Every sound moved in time; its length stays.

    Parameters
    ----------
    y, seed, index
        As in `gain`.
    samples : int, or (low, high)
        How much later; negative: earlier. Drawn uniformly from a range, both ends included.
    mode : "zeros" or "wrap"
        What comes in: silence, or what went out at the other end.

    Returns
    -------
    np.ndarray [shape as y], float32

    Raises
    ------
    TypeError, ValueError
        `y` is no sound; an argument out of its range.
    """
    array = checks.samples(y)
    checks.choice("mode", mode, ("zeros", "wrap"))
    sounds = _sounds(array)
    most = 2**31 - 1
    coins = [die.coin() for die in _dice(_SHIFT, len(sounds), seed, index)]
    if isinstance(samples, tuple | list):
        low, high = (checks.integer("samples", bound, -most, most) for bound in _pair("samples", samples))
        if low > high:
            raise ValueError(f"samples: expected a range (low, high) with low <= high, got {samples!r}")
        steps = [low + int(coin * (high - low + 1)) for coin in coins]
    else:
        steps = [checks.integer("samples", samples, -most, most)] * len(sounds)
    out = np.zeros_like(sounds)
    n = sounds.shape[-1]
    for sound, step, target in zip(sounds, steps, out, strict=True):
        if mode == "wrap":
            target[:] = np.roll(sound, step, axis=-1)
        elif 0 <= step < n:
            target[:, step:] = sound[:, : n - step]
        elif -n < step < 0:
            target[:, :step] = sound[:, -step:]
    return out.reshape(array.shape)


def time_stretch(
    y: npt.ArrayLike,
    rate: float | Range,
    *,
    n_fft: int = 2048,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Window = "hann",
    seed: int | None = None,
    index: int = 0,
) -> Floats:
    """Sound at another tempo and the same pitch, by a phase vocoder.

    Parameters
    ----------
    y, seed, index
        As in `gain`.
    rate : float in [1/64, 64], or (low, high)
        How much faster: 2 halves the time. Drawn from a range, every ratio as likely as its inverse would be.
    n_fft, hop_length, win_length, window
        As in `features.stft`.

    Returns
    -------
    np.ndarray [shape=(..., round(n / rate))], float32
        ``librosa.effects.time_stretch``. With a range, the sounds of a batch get different lengths and are cropped or
        padded with zeros to n samples.

    Raises
    ------
    TypeError, ValueError
        `y` is no sound; an argument out of its range.
    """
    samples = checks.samples(y)
    sounds = _sounds(samples)
    octaves = _octaves("rate", rate, [die.coin() for die in _dice(_STRETCH, len(sounds), seed, index)])
    options = {"n_fft": n_fft, "hop_length": hop_length, "win_length": win_length, "window": window}
    n = samples.shape[-1]
    if not isinstance(rate, tuple | list):
        one = _stretched(sounds, float(rate), round(n / float(rate)), options)
        return one.reshape(*samples.shape[:-1], one.shape[-1])
    out = np.zeros_like(sounds)
    for sound, octave, target in zip(sounds, octaves, out, strict=True):
        drawn = 2.0**octave
        fast = _stretched(sound, drawn, round(n / drawn), options)[..., :n]
        target[:, : fast.shape[-1]] = fast
    return out.reshape(samples.shape)


def pitch_shift(
    y: npt.ArrayLike,
    n_steps: float | Range,
    *,
    sr: float,
    bins_per_octave: int = 12,
    res_type: Quality = "soxr_hq",
    n_fft: int = 2048,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Window = "hann",
    seed: int | None = None,
    index: int = 0,
) -> Floats:
    """Sound at another pitch and the same tempo: stretched in time, then resampled. Needs the package soxr.

    Parameters
    ----------
    y, seed, index
        As in `gain`.
    n_steps : float, or (low, high)
        How much higher, in steps, at most six octaves either way; drawn uniformly from a range.
    sr : float > 0
        Sample rate, in Hz.
    bins_per_octave : int > 0
        Steps of an octave.
    res_type : str
        See `audio.resample`.
    n_fft, hop_length, win_length, window
        As in `features.stft`.

    Returns
    -------
    np.ndarray [shape as y], float32
        ``librosa.effects.pitch_shift``.

    Raises
    ------
    TypeError, ValueError
        `y` is no sound; an argument out of its range.
    ImportError
        soxr is missing.
    """
    samples = checks.samples(y)
    sr = checks.rate(sr)
    bins_per_octave = checks.integer("bins_per_octave", bins_per_octave)
    most = _MOST_OCTAVES * bins_per_octave
    sounds = _sounds(samples)
    coins = [die.coin() for die in _dice(_PITCH, len(sounds), seed, index)]
    steps = _drawn("n_steps", n_steps, -most, most, coins)
    options = {"n_fft": n_fft, "hop_length": hop_length, "win_length": win_length, "window": window}
    n = samples.shape[-1]
    out = np.zeros_like(sounds)
    for sound, step, target in zip(sounds, steps.tolist(), out, strict=True):
        rate = 2.0 ** (-step / bins_per_octave)
        slow = _stretched(sound, rate, round(n / rate), options)
        shifted = resample(slow, orig_sr=sr / rate, target_sr=sr, res_type=res_type)[..., :n] if slow.size else slow
        target[:, : shifted.shape[-1]] = shifted
    return out.reshape(samples.shape)


def phase_vocoder(
    D: npt.ArrayLike, *, rate: float, hop_length: int | None = None, n_fft: int | None = None
) -> npt.NDArray[np.complex64]:
    """A spectrogram at another tempo: magnitudes in between, phases that go on as they went.

    Parameters
    ----------
    D : np.ndarray [shape=(..., 1 + n_fft // 2, frames)], complex
    rate : float in [1/64, 64]
        How much faster.
    hop_length : int > 0, optional
        Samples between frames; None: a quarter of `n_fft`.
    n_fft : int > 0, optional
        None: ``2 * (D.shape[-2] - 1)``; odd ones have to be given.

    Returns
    -------
    np.ndarray [shape=(..., 1 + n_fft // 2, ceil(frames / rate))], complex64
        ``librosa.phase_vocoder``, phases added up in double precision.

    Raises
    ------
    TypeError, ValueError
        `D` is no spectrogram; an argument out of its range.

    Notes
    -----
    J. L. Flanagan and R. M. Golden, Bell System Technical Journal 45, 1966; D. P. W. Ellis, A phase vocoder in Matlab,
    2002.
    """
    spectra = checks.complexes("D", D)
    if spectra.ndim < 2 or spectra.size == 0:
        raise ValueError(f"D: expected shape (..., bins, frames), got {spectra.shape}")
    rate = checks.real("rate", rate, 2.0**-_MOST_OCTAVES, 2.0**_MOST_OCTAVES)
    n_fft = 2 * (spectra.shape[-2] - 1) if n_fft is None else checks.integer("n_fft", n_fft)
    if spectra.shape[-2] != 1 + n_fft // 2:
        raise ValueError(f"D: expected {1 + n_fft // 2} bins with n_fft={n_fft}, got {spectra.shape}")
    hop_length = max(1, n_fft // 4) if hop_length is None else checks.integer("hop_length", hop_length)
    bins, frames = spectra.shape[-2:]
    steps = np.arange(0, frames, rate)
    # In memory: channels, frames, bins, as `stft` makes them. Two frames of silence follow the last.
    rows = np.swapaxes(spectra, -1, -2).reshape(-1, frames, bins)
    out = checks.empty("phase_vocoder", (len(rows), len(steps), bins), np.complex64)
    advance = hop_length * 2 * np.pi * np.arange(bins) / max(n_fft, 1)
    block = max(1, _CACHED // bins)
    for row, target in zip(rows, out, strict=True):
        phase = np.angle(row[0].astype(np.complex128))
        for first in range(0, len(steps), block):
            at = steps[first : first + block]
            i = at.astype(np.intp)
            seen = np.zeros((i[-1] + 2 - i[0], bins), np.complex64)
            part = row[i[0] : i[-1] + 2]
            seen[: len(part)] = part
            i -= i[0]
            real, imaginary = seen.real.astype(np.float64), seen.imag.astype(np.float64)
            magnitudes = np.sqrt(real * real + imaginary * imaginary)
            angles = np.arctan2(seen.imag, seen.real)  # to single precision; sums of them are not
            alpha = (at % 1.0)[:, None]
            magnitude = magnitudes[i]
            magnitude += alpha * (magnitudes[i + 1] - magnitude)
            phases = np.empty((len(at) + 1, bins))
            phases[0] = phase
            turned = np.subtract(angles[i + 1], angles[i], out=phases[1:], dtype=np.float64)
            turned -= advance
            turned += advance - 2 * np.pi * np.rint(turned * (0.5 / np.pi))
            np.cumsum(phases, axis=0, out=phases)
            phase = phases[-1]
            wrapped = (phases[:-1] - 2 * np.pi * np.rint(phases[:-1] * (0.5 / np.pi))).astype(np.float32)
            np.multiply(magnitude, np.cos(wrapped), out=target.real[first : first + block], casting="same_kind")
            np.multiply(magnitude, np.sin(wrapped), out=target.imag[first : first + block], casting="same_kind")
    return np.swapaxes(out.reshape(*spectra.shape[:-2], len(steps), bins), -1, -2)


def _stretched(sounds: Floats, rate: float, size: int, options: dict[str, Any]) -> Floats:
    if size == 0:
        return np.zeros((*sounds.shape[:-1], 0), np.float32)
    n_fft, hop_length, _ = checks.framing(options["n_fft"], options["hop_length"], options["win_length"])
    exponent = 0
    if not _core.any_from(sounds, _FAINT):
        exponent = math.frexp(float(np.abs(sounds).max()))[1]
        sounds = np.ldexp(sounds, -exponent)
    spectra = phase_vocoder(stft(sounds, **options), rate=rate, hop_length=hop_length, n_fft=n_fft)
    result: Floats = istft(spectra, **options, length=size)
    return np.ldexp(result, exponent) if exponent else result


# -- chance ----------------------------------------------------------------------------------------------------------


class _Die:
    """The words of one sound's stream."""

    def __init__(self, stream: int, seed: int, index: int) -> None:
        key, counter = np.array([seed, index], np.uint64), np.array([0, 0, 0, stream], np.uint64)
        self._philox = np.random.Philox(counter=counter, key=key)

    def coin(self) -> float:
        """Uniform in [0, 1)."""
        return float(self._coins(1)[0])

    def _coins(self, count: int) -> Doubles:
        words: npt.NDArray[np.uint64] = self._philox.random_raw(count)
        return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normal(self, count: int) -> Doubles:
        """Standard normal numbers; a pair of coins makes a pair."""
        out = np.empty(count + count % 2)
        for first in range(0, len(out), _BLOCK):
            block = out[first : first + _BLOCK]
            coins = self._coins(len(block))
            radius = np.sqrt(-2 * np.log(1 - coins[0::2]))  # of (0, 1]
            block[0::2] = radius * np.cos(2 * np.pi * coins[1::2])
            block[1::2] = radius * np.sin(2 * np.pi * coins[1::2])
        return out[:count]


def _dice(stream: int, count: int, seed: int | None, index: int) -> list[_Die]:
    last = 2**64 - 1
    seed = secrets.randbits(64) if seed is None else checks.integer("seed", seed, 0, last)
    index = checks.integer("index", index, 0, last - count)
    return [_Die(stream, seed, index + i) for i in range(count)]


def _pair(name: str, bounds: Any) -> tuple[Any, Any]:
    try:
        low, high = bounds
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected a number or a range (low, high), got {bounds!r}") from None
    return low, high


def _drawn(name: str, value: Any, least: float, most: float, coins: list[float]) -> Doubles:
    """`value` for every sound, or a number from the range that it is."""
    if not isinstance(value, tuple | list):
        return np.full(len(coins), checks.real(name, value, least, most))
    low, high = (checks.real(name, bound, least, most) for bound in _pair(name, value))
    if low > high:
        raise ValueError(f"{name}: expected a range (low, high) with low <= high, got {value!r}")
    return low + (high - low) * np.array(coins)


def _octaves(name: str, ratio: Any, coins: list[float]) -> Doubles:
    """Logarithms of the ratio for every sound: uniform between those of the bounds."""
    least, most = 2.0**-_MOST_OCTAVES, 2.0**_MOST_OCTAVES
    if not isinstance(ratio, tuple | list):
        return np.full(len(coins), math.log2(checks.real(name, ratio, least, most)))
    bounds = tuple(math.log2(checks.real(name, bound, least, most)) for bound in _pair(name, ratio))
    if bounds[0] > bounds[1]:
        raise ValueError(f"{name}: expected a range (low, high) with low <= high, got {ratio!r}")
    return bounds[0] + (bounds[1] - bounds[0]) * np.array(coins)


def _pink(white: Doubles) -> Doubles:
    """White noise with amplitudes over the square root of their frequency, and no constant part."""
    spectrum = np.fft.rfft(white)
    bins = np.arange(spectrum.shape[-1], dtype=np.float64)
    spectrum *= np.divide(1, np.sqrt(bins), out=np.zeros_like(bins), where=bins > 0)
    shaped: Doubles = np.fft.irfft(spectrum, white.shape[-1])
    return shaped


# -- helpers ---------------------------------------------------------------------------------------------------------


def _own(samples: Floats, y: Any) -> Floats:
    """`samples` in memory of their own: what a function returns can be written to without a change to its argument."""
    return samples.copy() if np.may_share_memory(samples, y) else samples


def _sounds(samples: Floats) -> Floats:
    """The batch as (sounds, channels, n)."""
    channels = 1 if samples.ndim == 1 else samples.shape[-2]
    return samples.reshape(-1, channels, samples.shape[-1])


def _amplitude(db: float) -> float:
    return float(10 ** (db / 20))


def _power(sounds: npt.NDArray[Any]) -> Doubles:
    """Mean square of every sound, (sounds, channels, n) -> (sounds,)."""
    # Squares of 1e30 do not fit in float32, and a sum of them has its digits in float64.
    energy = [[np.dot(channel, channel) for channel in map(np.float64, sound)] for sound in sounds]
    power: Doubles = np.sum(energy, axis=1) / sounds[0].size
    return power


def _scaled(name: str, sounds: Floats, factors: Doubles) -> Floats:
    return _single(name, sounds * factors[:, None, None])


def _single(name: str, values: Doubles) -> Floats:
    with np.errstate(over="ignore", under="ignore"):
        result = values.astype(np.float32)
    if not np.isfinite(result).all():
        raise ValueError(
            f"{name}: expected a result that float32 can hold, got a magnitude of {np.abs(values).max():g}"
        )
    return result


def _mix_factors(sounds: list[Floats], db: Any, snr: Any) -> list[float]:
    if db is not None and snr is not None:
        raise ValueError("snr: expected either db or snr, got both")
    if db is not None:
        return [_amplitude(level) for level in _levels("db", db, len(sounds))]
    if snr is None:
        return [1.0] * len(sounds)
    others = len(sounds) - 1
    ratios = _levels("snr", snr if isinstance(snr, Sequence | np.ndarray) else [snr] * others, others)
    first, *powers = (float(_power(sound[None])[0]) for sound in sounds)
    pairs = zip(powers, ratios, strict=True)
    return [1.0, *(math.sqrt(first / power) * _amplitude(-ratio) if power > 0 else 0.0 for power, ratio in pairs)]


def _levels(name: str, values: Any, count: int) -> list[float]:
    if not isinstance(values, Sequence | np.ndarray) or isinstance(values, str | bytes) or len(values) != count:
        raise ValueError(f"{name}: expected {count} numbers, got {values!r}")
    return [checks.real(name, value, -_MOST_DB, _MOST_DB) for value in values]
