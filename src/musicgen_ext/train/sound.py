"""Sound to train on: recordings as tokens with the notes that are played in them, their splits, and seeded crops."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from musicgen_ext.architectures import WaveNetConfig
from musicgen_ext.audio import read_audio
from musicgen_ext.encodings import NotesToSound
from musicgen_ext.encodings.notes_to_sound import KNOWN_FEATURES
from musicgen_ext.features import mu_law_encode
from musicgen_ext.files import shown
from musicgen_ext.midi import read_midi

SUFFIXES = (".wav", ".flac", ".ogg", ".aiff", ".aif")
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Recording:
    """Samples in [-1, 1], float32 (n,), and what tells of the notes in them: (first, count) to frames.

    Frames are made when they are wanted: they are many times as large as the sound.
    """

    name: str
    samples: npt.NDArray[np.float32]
    frames: Callable[[int, int], npt.NDArray[np.float32]] | None = None


@dataclass(frozen=True)
class Crop:
    """A part of a recording: the last `scored` of `samples` are to be predicted, those before only heard.

    ``previous``: the samples one earlier, as the network hears them; ``frames`` (F, channels) hold the condition from
    `offset` samples before the first sample on.
    """

    previous: Tensor
    samples: Tensor
    scored: int
    frames: Tensor | None
    offset: int


@dataclass(frozen=True)
class SoundCorpus:
    """Recordings in three splits.

    Attributes
    ----------
    encoding : dict
        What the model file says about sound and condition (`musicgen_ext.encodings`).
    train, valid, test : list of Recording
        `test` is never looked at by the training loop.
    crop : int
        Samples that are predicted at a time in training (those before, which they depend on, are heard besides).
    noise : float
        The most of the standard deviation of noise, other for every crop, in what is heard in training: in steps of the
        mu-law scale, or of an 8-bit one. What is to be predicted stays clean. A network that must not trust its ears
        learns to listen to what it is told, and to mend its own slips when it hears itself.
        Source: Valin & Skoglund, LPCNet, 2019.
    dither : float
        Standard deviation of noise that is added in training to what is heard and predicted alike. Digital silence is
        the same sample for ever: a network that has learnt it goes on with it when a note should begin.
    """

    encoding: Mapping[str, Any]
    train: Sequence[Recording]
    valid: Sequence[Recording]
    test: Sequence[Recording] = ()
    crop: int = 8_192
    noise: float = 0.0
    dither: float = 0.0
    variants: ClassVar[Mapping[str, Any]] = {}  # other ways to see a recording: there are none

    @property
    def crops_per_epoch(self) -> int:
        """Every sample of `train` is predicted once, of each recording from another place on every time."""
        return sum(1 + math.ceil(len(r.samples) / self.crop) for r in self.train)

    def check(self, config: WaveNetConfig) -> None:
        """Raise ValueError, with both numbers, where a network of this configuration could not learn from this."""
        rate = self.encoding["sample_rate"]
        if config.sample_rate != rate:
            raise ValueError(f"model.sample_rate: expected that of the data, {rate} Hz, got {config.sample_rate}")
        frames = self.train[0].frames if self.train else None
        told = config.condition
        if (frames is None) != (told is None):
            there = "none" if frames is None else "notes"
            raise ValueError(f"model.condition: expected one for the data's condition ({there}), got {told}")
        if frames is not None and told is not None:
            channels = frames(0, 1).shape[1]
            if channels != told.channels:
                raise ValueError(f"model.condition.channels: expected the data's {channels}, got {told.channels}")
            if self.encoding["hop_length"] != told.hop_length:
                hop = self.encoding["hop_length"]
                raise ValueError(f"model.condition.hop_length: expected the data's {hop}, got {told.hop_length}")

    def cut(
        self,
        config: WaveNetConfig,
        recording: Recording | int,
        start: int,
        count: int,
        rng: np.random.Generator | None = None,
    ) -> Crop:
        """Samples ``start`` to ``start + count`` to be predicted, with all that they depend on; dithered with `rng`.

        Where `start` is negative the crop begins with the recording, and is so much shorter; it ends with it, too.
        """
        whole = self.train[recording] if isinstance(recording, int) else recording
        first, last = max(0, start), min(start + count, len(whole.samples))
        begin = max(0, first - (config.receptive_field - 1))
        heard = whole.samples[max(0, begin - 1) : last]
        if rng is not None and self.dither:
            added = self.dither * rng.standard_normal(len(heard), np.float32)
            heard = np.clip(heard + added, -1.0, 1.0).astype(np.float32)
        samples: npt.NDArray[Any] = heard
        silence: float = 0
        if config.output.kind == "mu_law":
            samples = mu_law_encode(heard, mu=config.output.classes - 1).astype(np.int64)
            silence = config.output.classes // 2
        if begin == 0:
            samples = np.concatenate([np.full(1, silence, samples.dtype), samples])
        frames, offset = None, 0
        if whole.frames is not None and config.condition is not None:
            hop, margin = config.condition.hop_length, config.condition.kernel_size // 2
            low, high = max(0, begin // hop - margin), math.ceil(last / hop) + margin
            high = min(high, math.ceil(len(whole.samples) / hop))
            frames, offset = torch.from_numpy(whole.frames(low, high - low)), begin - low * hop
        return Crop(torch.from_numpy(samples[:-1]), torch.from_numpy(samples[1:]), last - first, frames, offset)


def with_noise(crop: Crop, classes: int, noise: float, rng: np.random.Generator) -> Crop:
    """The crop, heard through noise of a standard deviation of at most `noise` steps; `classes` is 0 for 16 bits."""
    if not noise:
        return crop
    added = rng.normal(0.0, rng.uniform(0.0, noise), len(crop.previous))
    if classes:
        heard = (crop.previous + torch.from_numpy(np.rint(added)).long()).clamp(0, classes - 1)
    else:
        heard = (crop.previous + torch.from_numpy((added / 128.0).astype(np.float32))).clamp(-1.0, 1.0)
    return replace(crop, previous=heard)


def crops_of(data: SoundCorpus, rng: np.random.Generator) -> list[tuple[int, int]]:
    """The crops of an epoch in a new order: (number of the recording, first sample, which may lie before it)."""
    places = []
    for number, recording in enumerate(data.train):
        shift = int(rng.integers(data.crop))
        starts = range(-shift, data.crop * math.ceil(len(recording.samples) / data.crop) + 1 - shift, data.crop)
        places += [(number, start) for start in starts if start < len(recording.samples)]
    order = rng.permutation(len(places))
    chosen = [places[i] for i in order]
    return chosen + chosen[: data.crops_per_epoch - len(chosen)]  # as many in every epoch


def sounds(
    path: str | os.PathLike[str],
    *,
    sample_rate: int = 16_000,
    crop: int = 8_192,
    noise: float = 0.0,
    dither: float = 0.0,
    valid_share: float = 0.05,
    notes: bool | None = None,
    hop_length: int = 8,
    low: int = 36,
    high: int = 88,
    features: Sequence[str] = KNOWN_FEATURES,
) -> SoundCorpus:
    """A folder of recordings, of one voice or instrument for example, with the notes that are played if there are any.

    The folder has the folders ``train`` and ``valid`` (and ``test``), or recordings, every so many-th of which by name
    is for validation. A recording is a WAV, FLAC, Ogg or AIFF file; ``NAME.mid`` beside ``NAME.flac`` holds its notes,
    one at a time. Folders inside, if there are any, are *styles*: the network is told which one a recording is from.

    Parameters
    ----------
    path : path
    sample_rate : int
        To which recordings are resampled (this needs soxr).
    crop : int
        Samples predicted at a time.
    noise : float
        Of what is heard in training, in steps of an 8-bit scale; see `SoundCorpus`.
    dither : float
        Added to all sound in training, full scale being 1; see `SoundCorpus`.
    valid_share : float
        Share of the recordings that are for validation where there are no folders of that name.
    notes : bool, optional
        Whether the network is told the notes; default: if every recording has them.
    hop_length, low, high : int
        Samples from frame to frame of what the network is told, and its lowest and highest pitch.
    features : list of str
        What else it is told; see `musicgen_ext.encodings.NotesToSound`. The phase is the recording's own.

    Raises
    ------
    ValueError
        Too few recordings; notes missing or not one at a time; a pitch outside; the message names the file.
    """
    folder = Path(path)
    for name, value, most in (("noise", noise, 128), ("dither", dither, 1)):
        if not 0 <= value < most:
            raise ValueError(f"data.{name}: expected a number in [0, {most}), got {value}")
    if not 0 < valid_share < 1 or crop < 1 or sample_rate < 1 or hop_length < 1:
        raise ValueError(
            "data: expected valid_share in (0, 1), crop, sample_rate and hop_length > 0, "
            f"got {valid_share}, {crop}, {sample_rate}, {hop_length}"
        )
    splits = {split: _found(folder / split) for split in SPLITS if (folder / split).is_dir()}
    if not splits:
        together = _found(folder)
        every = max(2, round(1 / valid_share))
        splits = {
            "train": [f for i, f in enumerate(together) if i % every != every - 1 and i != len(together) - 1],
            "valid": [f for i, f in enumerate(together) if i % every == every - 1 or i == len(together) - 1],
        }
    if not splits.get("train") or not splits.get("valid"):
        got = {split: len(found) for split, found in splits.items()}
        raise ValueError(
            f"{shown(folder)}: expected recordings ({', '.join(SUFFIXES)}) to train and validate on, got {got}"
        )
    files = [file for found in splits.values() for file, _ in found]
    if notes is None:
        notes = all(_midi(file) is not None for file in files)
    styles = sorted({style for found in splits.values() for _, style in found})
    encoding = NotesToSound.from_dict(
        {
            "sample_rate": sample_rate,
            "hop_length": hop_length,
            "low": low,
            "high": high,
            "styles": styles if len(styles) > 1 else [],
            "features": list(features),
        }
    )
    read = {
        split: [_recording(file, style, encoding, notes) for file, style in splits.get(split, [])] for split in SPLITS
    }
    return SoundCorpus(
        encoding=encoding.to_dict() if notes else {"name": "sound", "sample_rate": sample_rate},
        train=read["train"], valid=read["valid"], test=read["test"], crop=crop, noise=noise, dither=dither,
    )  # fmt: skip


def _found(folder: Path) -> list[tuple[Path, str]]:
    """Recordings under a folder, by name, each with its style: the folder in it."""
    found = (f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
    return [(f, f.relative_to(folder).parts[0] if f.parent != folder else "") for f in sorted(found)]


def _midi(file: Path) -> Path | None:
    beside: Iterator[Path] = (file.with_suffix(suffix) for suffix in (".mid", ".midi"))
    return next((f for f in beside if f.exists()), None)


def _recording(file: Path, style: str, encoding: NotesToSound, notes: bool) -> Recording:
    audio = read_audio(file)
    mono = audio.to_mono() if audio.y.ndim > 1 else audio
    if mono.sr != encoding.sample_rate:
        mono = mono.resample(encoding.sample_rate)
    samples = np.clip(mono.y, -1.0, 1.0).astype(np.float32)
    if not len(samples):
        raise ValueError(f"{shown(file)}: expected sound, got a file without samples")
    if not notes:
        return Recording(file.name, samples)
    midi = _midi(file)
    if midi is None:
        raise ValueError(f"{shown(file)}: expected the notes beside it, {file.stem}.mid, got none")
    try:
        lines = encoding.lines(read_midi(midi))
    except ValueError as e:
        raise ValueError(f"{shown(midi)}: {e}") from e
    if len(lines) != 1:
        raise ValueError(f"{shown(midi)}: expected one note at a time, got {len(lines)} voices")
    line, chosen = lines[0], style if encoding.styles else None
    phase = encoding.phases(samples, line) if "phase" in encoding.features else None

    def frames(first: int, count: int) -> npt.NDArray[np.float32]:
        heard = None if phase is None else phase[first : first + count]
        return encoding.frames(line, count, first=first, style=chosen, phase=heard)

    return Recording(file.name, samples, frames)
