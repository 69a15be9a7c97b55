"""Sound as arrays, and the files that hold it.

WAV is read and written here; other formats go through the optional package soundfile, other sample rates through soxr.
"""

from __future__ import annotations

import base64
import io
import math
import os
import struct
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from musicgen_ext import checks, files
from musicgen_ext import provenance as provenance_text

Subtype = Literal["PCM_16", "FLOAT"]
Quality = Literal["soxr_vhq", "soxr_hq", "soxr_mq", "soxr_lq", "soxr_qq"]

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_QUALITIES = ("soxr_vhq", "soxr_hq", "soxr_mq", "soxr_lq", "soxr_qq")
_MOST_RATIO = 256  # of two sample rates
_BLOCK = 1 << 18  # samples resampled at a time, of the larger rate: milliseconds, so that Ctrl-C is heard
_NOTEBOOK_BYTES = 20_000_000  # of WAV inside a notebook; longer sounds show their first part


class Audio:
    """Sound: samples and their rate.

    Parameters
    ----------
    y : np.ndarray [shape=(n,) or (channels, n)], floating point
        Samples, nominally in [-1, 1]; kept as float32 (an array that is one already is not copied).
    sr : int > 0
        Sample rate, in Hz.
    provenance : mapping, optional
        Anything JSON can hold about where this sound comes from; saved in WAV files and read back.

    Attributes
    ----------
    y : np.ndarray [shape=(n,) or (channels, n)], float32
    sr : int
    duration : float
        Seconds.
    provenance : dict

    Raises
    ------
    TypeError
        `y` is not an array of floating-point numbers; `sr` is no integer.
    ValueError
        `y` has another shape, or holds NaN or infinities (their number and the first index are given); ``sr < 1``.
    """

    y: npt.NDArray[np.float32]
    sr: int
    provenance: dict[str, Any]

    def __init__(self, y: npt.ArrayLike, sr: int, *, provenance: Mapping[str, Any] | None = None) -> None:
        self.y = _samples(y)
        self.sr = checks.integer("sr", sr)
        self.provenance = dict(provenance or {})

    @property
    def duration(self) -> float:
        return float(self.y.shape[-1] / self.sr)

    @property
    def num_channels(self) -> int:
        return 1 if self.y.ndim == 1 else self.y.shape[0]

    def resample(self, sr: int, *, res_type: Quality = "soxr_hq") -> Audio:
        """The sound at another sample rate; see `resample`."""
        sr = checks.integer("sr", sr)
        y = resample(self.y, orig_sr=self.sr, target_sr=sr, res_type=res_type)
        return Audio(y, sr, provenance=self.provenance)

    def to_mono(self) -> Audio:
        """The mean of the channels; see `signals.to_mono`."""
        from musicgen_ext import signals

        return self._with(signals.to_mono(self.y))

    def trim(self, *, top_db: float = 60.0) -> Audio:
        """The sound without the silence at its beginning and end; see `signals.trim`."""
        from musicgen_ext import signals

        return self._with(signals.trim(self.y, top_db=top_db)[0])

    def normalize(self, db: float = 0.0, *, measure: Literal["peak", "rms"] = "peak") -> Audio:
        """The sound scaled to a level, in dB relative to 1; see `signals.normalize`."""
        from musicgen_ext import signals

        return self._with(signals.normalize(self.y, db, measure=measure))

    def time_stretch(self, rate: float) -> Audio:
        """The sound at another tempo, `rate` times as fast; see `signals.time_stretch`."""
        from musicgen_ext import signals

        return self._with(signals.time_stretch(self.y, rate))

    def pitch_shift(self, n_steps: float) -> Audio:
        """The sound so many semitones higher; see `signals.pitch_shift`."""
        from musicgen_ext import signals

        return self._with(signals.pitch_shift(self.y, n_steps, sr=self.sr))

    def _with(self, y: npt.NDArray[np.float32]) -> Audio:
        return Audio(y, self.sr, provenance=self.provenance)

    def to_wav(self, subtype: Subtype = "PCM_16") -> bytes:
        """The sound as a WAV file.

        Parameters
        ----------
        subtype : "PCM_16" or "FLOAT"
            16-bit integers (``y * 32768``, rounded; reading divides by 32768 again) or 32-bit floats (exact).

        Raises
        ------
        ValueError
            A sample that 16 bits cannot hold (beyond [-1, 1]); an unknown `subtype`; more than 4 GiB.
        """
        if subtype not in ("PCM_16", "FLOAT"):
            raise ValueError(f"subtype: expected 'PCM_16' or 'FLOAT', got {subtype!r}")
        y = _samples(self.y)
        frames = y.T if y.ndim == 2 else y
        peak = float(np.max(np.abs(frames), initial=0))
        if subtype == "PCM_16":
            if peak > 1:
                raise ValueError(
                    f"y: expected samples in [-1, 1] for PCM_16, got a peak of {peak:g} (scale, or use subtype='FLOAT')"
                )
            scaled = np.minimum(np.rint(frames.astype(np.float64) * 32_768), 32_767)
            data = np.ascontiguousarray(scaled.astype("<i2")).tobytes()
            code, width = _PCM, 2
        else:
            data = np.ascontiguousarray(frames.astype("<f4")).tobytes()
            code, width = _FLOAT, 4
        channels = self.num_channels
        if channels > 65_535:
            raise ValueError(f"y: expected at most 65535 channels, got {channels}")
        block = channels * width
        if block > 65_535 or self.sr * block >= 2**32:
            raise ValueError(f"y: expected a WAV file's rate and channels, got {channels} channels at {self.sr} Hz")
        chunks = [(b"fmt ", struct.pack("<HHIIHH", code, channels, self.sr, self.sr * block, block, 8 * width))]
        if code == _FLOAT:
            chunks.append((b"fact", struct.pack("<I", y.shape[-1])))
        if self.provenance:
            text = provenance_text.to_text(self.provenance) + b"\0"
            text += b"\0" * (len(text) % 2)
            chunks.append((b"LIST", b"INFOICMT" + struct.pack("<I", len(text)) + text))
        chunks.append((b"data", data))
        body = b"".join(
            name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
            for name, content in chunks
            if _fits(len(content))
        )
        _fits(len(body) + 4)
        return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WAVE" + body

    def save(self, path: str | os.PathLike[str], *, subtype: Subtype = "PCM_16") -> None:
        """Write the sound to a file, whole or not at all.

        Parameters
        ----------
        path : path
            ``.wav``: see `to_wav`. Any other ending (``.flac``, ``.ogg`` …) needs soundfile, which chooses the format
            by it; the provenance is kept in WAV files only.
        subtype : "PCM_16" or "FLOAT"

        Raises
        ------
        ValueError
            As `to_wav`, or an ending that soundfile does not know; the file at `path` is untouched.
        ImportError
            Another format than WAV without soundfile.
        OSError
            The subclass that fits, with ``filename``.
        """
        ending = os.path.splitext(os.fsdecode(path))[1].lower()
        if ending in (".wav", ".wave"):
            files.replace(path, [self.to_wav(subtype)])
            return
        soundfile = _soundfile(f"write {ending or 'a file without an ending'}")
        formats = soundfile.available_formats()
        name = {"AIF": "AIFF", "OGA": "OGG"}.get(ending[1:].upper(), ending[1:].upper())
        if name not in formats:
            known = ", ".join(f".{known.lower()}" for known in formats)
            raise ValueError(f"{files.shown(path)}: expected an ending among {known}, got {ending!r}")
        stream = io.BytesIO()
        chosen = subtype if soundfile.check_format(name, subtype) else None  # compressed formats have their own
        try:
            soundfile.write(stream, self.y.T, self.sr, format=name, subtype=chosen)
        except soundfile.LibsndfileError as error:
            problem = error.error_string  # without the address of our stream
            raise ValueError(f"{files.shown(path)}: expected sound that {name} can hold, got: {problem}") from None
        files.replace(path, [stream.getbuffer()])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Audio):
            return NotImplemented
        return self.sr == other.sr and np.array_equal(self.y, other.y) and self.provenance == other.provenance

    __hash__ = None  # type: ignore[assignment]  # a sound can change

    def __repr__(self) -> str:
        channels = {1: "mono", 2: "stereo"}.get(self.num_channels, f"{self.num_channels} channels")
        return f"<Audio: {self.duration:.2f} s, {self.sr} Hz, {channels}>"

    def _repr_html_(self) -> str:
        most = max(1, _NOTEBOOK_BYTES // (2 * self.num_channels))
        part = Audio(np.clip(self.y[..., :most], -1, 1), self.sr)
        note = "" if part.duration == self.duration else f" (the first {part.duration:.0f} s are playable here)"
        data = base64.b64encode(part.to_wav()).decode()
        return (
            f'<audio controls preload="metadata" src="data:audio/wav;base64,{data}"></audio>'
            f"<div>{repr(self)[1:-1]}{note}</div>"
        )


def read_audio(path: str | os.PathLike[str], sr: int | None = None, *, res_type: Quality = "soxr_hq") -> Audio:
    """Read a sound file.

    Parameters
    ----------
    path : path
        WAV (8, 16, 24 or 32 bits, or floats) is read here; anything else through soundfile.
    sr : int, optional
        The wanted rate; None: the file's own. Another rate than the file's needs the package soxr.
    res_type : "soxr_vhq", "soxr_hq", "soxr_mq", "soxr_lq" or "soxr_qq"
        How well to resample; see `resample`.

    Returns
    -------
    Audio
        ``y`` has shape (n,) for one channel, (channels, n) for more; float32 in [-1, 1].

    Raises
    ------
    ValueError
        Not a sound file, or a broken one; the message names it.
    ImportError
        soundfile or soxr is needed and missing.
    OSError
        The file cannot be opened, with ``filename``.
    """
    if sr is not None:
        checks.integer("sr", sr)
    checks.choice("res_type", res_type, _QUALITIES)
    with open(path, "rb") as stream:
        data = stream.read()
    audio = decode(data, files.shown(path), lambda issue: warnings.warn(issue, stacklevel=5))
    return audio if sr is None or sr == audio.sr else audio.resample(sr, res_type=res_type)


def decode(data: bytes, name: str, tell: Callable[[str], object]) -> Audio:
    """The sound in the bytes of a file called `name`. What is wrong with one that can be read is told to `tell`."""
    if data[:4] in (b"RIFF", b"RIFX") and data[8:12] == b"WAVE":
        return _from_wav(data, name, tell)
    return _from_soundfile(data, name)


def resample(
    y: npt.ArrayLike, *, orig_sr: float, target_sr: float, res_type: Quality = "soxr_hq", scale: bool = False
) -> npt.NDArray[np.float32]:
    """Sound at another sample rate: librosa's signature and numbers, without librosa. Needs the package soxr.

    Parameters
    ----------
    y : np.ndarray [shape=(..., n)], floating point
    orig_sr, target_sr : number > 0
        Sample rates, in Hz; need not be whole.
    res_type : "soxr_vhq", "soxr_hq", "soxr_mq", "soxr_lq" or "soxr_qq"
        From very high quality (24 bits and more) over high (20 bits) and lower ones to the quickest.
    scale : bool
        Divide by the square root of the ratio of the rates, which keeps the energy.

    Returns
    -------
    np.ndarray [shape=(..., ceil(n * target_sr / orig_sr))], float32

    Raises
    ------
    TypeError, ValueError
        `y` is no sound (see `checks.samples`), or a rate, their ratio (1/256 to 256) or `res_type` is out of range.
    ImportError
        soxr is missing.
    MemoryError
        The result would not fit.
    """
    samples = checks.samples(y)
    orig_sr, target_sr = (
        checks.real(name, sr, above=0, high=1e9) for name, sr in (("orig_sr", orig_sr), ("target_sr", target_sr))
    )
    checks.choice("res_type", res_type, _QUALITIES)
    ratio = target_sr / orig_sr
    if not 1 / _MOST_RATIO <= ratio <= _MOST_RATIO:
        raise ValueError(
            f"target_sr: expected 1/{_MOST_RATIO} to {_MOST_RATIO} times orig_sr={orig_sr:g}, got {target_sr:g}"
        )
    if ratio == 1:
        return samples.copy() if np.may_share_memory(samples, y) else samples
    try:
        import soxr
    except ImportError:
        raise ImportError(
            f'resampling from {orig_sr:g} to {target_sr:g} Hz needs soxr: pip install "musicgen-ext[audio]"'
        ) from None
    size = math.ceil(samples.shape[-1] * ratio)
    block = int(_BLOCK / max(ratio, 1))
    out = checks.empty("resampled sound", (*samples.shape[:-1], size))
    for row, target in zip(samples.reshape(-1, samples.shape[-1]), out.reshape(-1, size), strict=True):
        # The stream gives the bits of one call, whatever the blocks are.
        stream = soxr.ResampleStream(orig_sr, target_sr, 1, dtype="float32", quality=res_type)
        done = 0
        for first in range(0, len(row), block):
            last = first + block >= len(row)
            part = stream.resample_chunk(row[first : first + block], last=last)[: size - done]
            target[done : done + len(part)] = part
            done += len(part)
        target[done:] = 0
    if scale:
        out /= np.float32(math.sqrt(ratio))
    return out


# -- helpers ---------------------------------------------------------------------------------------------------------


def _samples(y: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """The samples of one sound; unlike those of `checks.samples`, they may be none."""
    samples: npt.NDArray[np.float32] = checks.floats("y", y)
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and samples.shape[0] == 0):
        raise ValueError(f"y: expected shape (n,) or (channels, n), got {samples.shape}")
    return samples


def _fits(size: int) -> bool:
    if size >= 2**32:
        raise ValueError(f"y: expected at most 4294967295 bytes in a WAV file, got {size}")
    return True


def _soundfile(purpose: str) -> Any:
    try:
        import soundfile
    except ImportError:
        raise ImportError(f'soundfile is needed to {purpose}: pip install "musicgen-ext[audio]"') from None
    return soundfile


def _from_soundfile(data: bytes, name: str) -> Audio:
    if len(data) < 4:
        raise ValueError(f"{name}: expected a sound file, got {len(data)} bytes")
    soundfile = _soundfile(f"read {name} (not a WAV file)")
    try:
        y, sr = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"{name}: expected a sound file, got first bytes {data[:8]!r} ({error.error_string})"
        ) from None
    return Audio(y[:, 0] if y.shape[1] == 1 else np.ascontiguousarray(y.T), int(sr))


def _from_wav(data: bytes, name: str, tell: Callable[[str], object]) -> Audio:
    """WAV by its chunks. Source: IBM and Microsoft, Multimedia Programming Interface and Data Specifications 1.0."""
    order: Literal["<", ">"] = "<" if data[:4] == b"RIFF" else ">"
    fmt = samples = None
    found: dict[str, Any] = {}
    at = 12
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], struct.unpack_from(f"{order}I", data, at + 4)[0]
        content = memoryview(data)[at + 8 : at + 8 + size]
        if kind == b"fmt ":
            fmt = content
        elif kind == b"data" and samples is None:
            samples = content
            if len(content) < size:
                # Recorders that were cut off, and programs that write into a pipe, leave such lengths.
                tell(f"{name}: expected {size} bytes of samples, got {len(content)} before the end of the file")
        elif kind == b"LIST" and bytes(content[:4]) == b"INFO":
            found = _comment(bytes(content), order) or found
        at += 8 + size + (size & 1)
    if fmt is None or len(fmt) < 16 or samples is None:
        missing = "samples ('data')" if fmt is not None and len(fmt) >= 16 else "a format ('fmt ')"
        raise ValueError(f"{name}: expected a WAV file with {missing}, got none")
    code, channels, sr, _, block, bits = struct.unpack_from(f"{order}HHIIHH", fmt)
    if code == _EXTENSIBLE and len(fmt) >= 26:
        code = struct.unpack_from(f"{order}H", fmt, 24)[0]
    width = bits // 8
    known = {(_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32), (_FLOAT, 64)}
    if (code, bits) not in known or channels == 0 or block != channels * width or not 1 <= sr < 2**31:
        raise ValueError(
            f"{name}: expected PCM of 8 to 32 bits or floats of 32 or 64 in at least 1 channel, got format {code} of "
            f"{bits} bits, {channels} channels in blocks of {block} bytes, {sr} Hz"
        )
    frames = len(samples) // block
    raw = samples[: frames * block]
    if code == _FLOAT:
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below, by name
            y = np.frombuffer(raw, f"{order}f{width}").astype(np.float32)
    elif bits == 8:  # the only unsigned one
        y = np.frombuffer(raw, np.uint8).astype(np.float32) - np.float32(128)
    elif bits == 24:
        parts = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        whole = np.zeros((len(parts), 4), np.uint8)
        whole[:, 1:] = parts if order == "<" else parts[:, ::-1]
        y = whole.view("<i4")[:, 0].astype(np.float32) * np.float32(2.0**-8)
    else:
        y = np.frombuffer(raw, f"{order}i{width}").astype(np.float32)
    if code == _PCM:  # integers are rounded to single precision once; a power of two leaves their digits alone
        y *= np.float32(2.0 ** (1 - bits))
    shaped = y if channels == 1 else y.reshape(frames, channels).T
    try:
        return Audio(shaped, sr, provenance=found)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _comment(content: bytes, order: str) -> dict[str, Any] | None:
    at = 4
    while at + 8 <= len(content):
        kind, size = content[at : at + 4], struct.unpack_from(f"{order}I", content, at + 4)[0]
        if kind == b"ICMT":
            return provenance_text.from_text(content[at + 8 : at + 8 + size].rstrip(b"\0"))
        at += 8 + size + (size & 1)
    return None
