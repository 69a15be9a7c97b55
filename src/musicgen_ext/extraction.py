"""Features of many sound files into one store: the runner and the files of `corpus`, another job."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core, audio, checks, corpus
from musicgen_ext.corpus import Column, Made, Path
from musicgen_ext.features import named
from musicgen_ext.signals import to_mono

_NAMELESS = "sound: "  # before what is wrong with it: its name stands beside that already
AUDIO_SUFFIXES = (".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf")


@dataclass(frozen=True)
class FeatureSummary:
    """What is in a store now.

    Attributes
    ----------
    path : str
    files, failed : int
        Sounds in the store, and files that could not be read.
    failures : tuple of (str, str)
        Name and reason of the first 100 of those; the manifest has them all.
    frames : int
        Feature vectors in the store.
    issues : int
        What was wrong with files that could be read, one for each line of the manifest's ``issues``.
    links : int
        Links to folders, which are not followed.
    seconds : float
        That this call took.
    """

    path: str
    files: int
    failed: int
    failures: tuple[tuple[str, str], ...]
    frames: int
    issues: int
    links: int
    seconds: float


def extract_features(
    folder: Path | Sequence[Path],
    feature: str = "mfcc",
    *,
    out: Path,
    sr: int = 22_050,
    workers: int | None = None,
    shard: str | tuple[int, int] | None = None,
    resume: bool = True,
    force: bool = False,
    suffixes: Sequence[str] = AUDIO_SUFFIXES,
    progress: bool = False,
    **options: Any,
) -> FeatureSummary:
    """Compute a feature of all sound files of a folder, into a store that is read as it is needed.

    Parameters
    ----------
    folder : path, or sequence of paths
        As for `encode_corpus`.
    feature : "mfcc", "mel", "logmel", "chroma" or "stft"
        What `mfcc`, `melspectrogram`, `power_to_db` of it, `chroma_stft` or `stft` computes; "stft" is complex64, the
        others float32. Channels are averaged.
    out : path
        The folder of the store, made if it is not there.
    sr : int > 0
        Sample rate, in Hz; files of another one are resampled, which needs soxr.
    workers, shard, resume, force, progress
        As for `encode_corpus`. The store has the same bytes for any number of workers.
    suffixes : sequence of str
        Names of files end so, in any case. Other formats than WAV need soundfile.
    **options
        Those of the function; what JSON can hold.

    Returns
    -------
    FeatureSummary
        Bad files are no error: they are skipped, and listed with their reasons here and in the manifest.

    Raises
    ------
    TypeError, ValueError
        An unknown feature or option, or an option out of its range: before anything is read or written.
    ImportError
        A file needs soundfile or soxr, and it is missing.
    FileExistsError, OSError, KeyboardInterrupt
        As for `encode_corpus`.

    Examples
    --------
    >>> import musicgen_ext as mg
    >>> summary = mg.extract_features("recordings", "mfcc", out="mfccs", n_mfcc=13)  # doctest: +SKIP
    >>> store = mg.FeatureStore("mfccs")  # doctest: +SKIP
    >>> store[0].shape  # doctest: +SKIP
    (13, 1292)
    """
    job = _Extract(feature, checks.integer("sr", sr), options)
    done = corpus.run(
        folder, job, out=out, workers=workers, shard=shard, resume=resume, force=force, suffixes=suffixes,
        progress=progress,
    )  # fmt: skip
    return FeatureSummary(
        done.path, done.files, done.failed, done.failures, done.tokens // job.column.row[0], done.issues, done.links,
        done.seconds,
    )  # fmt: skip


class FeatureStore(corpus.Store):
    """The features of many sounds, read from the disk as they are looked at.

    ``store[i]`` is a read-only view on the memory-mapped column, of shape (dims, frames) as the function that made it
    returns it. In the file ``features.npy`` and in ``store.rows`` the frames of all sounds follow one another: shape
    (frames, dims).

    Parameters
    ----------
    path : path
        What `extract_features` has written: a store, or the folder of all shards of one.

    Attributes
    ----------
    path : str
    feature : str
    sr : int
    options : dict
    shards : tuple of FeatureStore
        One for every shard, in order; of a store without shards, itself.
    num_frames : int

    Raises
    ------
    FileNotFoundError
        There is no store.
    ValueError
        It is unfinished, damaged, one of something else, or a shard is missing; the message says what is wrong.
    """

    column_name = "features"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        job = self._work["job"]
        self.feature: str = job["feature"]
        self.sr: int = job["sr"]
        self.options: dict[str, Any] = job["options"]
        self.num_frames = self.num_rows

    def _piece(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return rows.T

    def __repr__(self) -> str:
        return f"FeatureStore({self.path!r}: {self.feature} of {len(self)} sounds, {self.num_frames} frames)"


class _Extract:
    """Sound files to feature vectors."""

    batch_bytes = 1 << 19  # a few milliseconds: the other workers wait for the last one

    def __init__(self, feature: str, sr: int, options: dict[str, Any]) -> None:
        try:
            self._options = json.loads(json.dumps(options))
        except (TypeError, ValueError):
            raise TypeError(f"options: expected what JSON can hold, got {options!r}") from None
        for name in ("y", "S", "out", "threads", "dtype"):
            if name in options:
                raise TypeError(f"{name}: expected an option of {feature}, this one is chosen here")
        self._feature, self._sr = feature, sr
        dims, dtype = named.shape_of(feature, sr, **self._options)
        self.column = Column("features", dtype.newbyteorder("<"), (dims,))

    def describe(self) -> dict[str, Any]:
        return {"feature": self._feature, "sr": self._sr, "options": self._options}

    def __call__(self, paths: list[bytes], cancel: _core.Cancel) -> Made | None:
        parts, lengths, sizes, digests = [], [], [], []
        errors: dict[int, dict[str, Any]] = {}
        issues: dict[int, list[str]] = {}
        for place, path in enumerate(paths):
            if cancel.is_set():
                return None
            rows: npt.NDArray[Any] = np.empty((0, *self.column.row), self.column.dtype)
            size, digest = -1, bytes(32)
            try:
                with open(path, "rb") as stream:
                    data = stream.read()
                size, digest = len(data), hashlib.sha256(data).digest()
                rows, words = self._rows(data)
                if words:
                    issues[place] = words
            except OSError as error:
                if error.errno in corpus.NOT_THE_FILES_FAULT:
                    raise
                errors[place] = {"error": error.strerror or str(error)}
            except (ValueError, MemoryError) as error:
                errors[place] = {"error": str(error).removeprefix(_NAMELESS)}
            parts.append(rows)
            lengths.append(len(rows))
            sizes.append(size)
            digests.append(digest)
        return Made(parts, np.array(lengths, np.int64), np.array(sizes, np.int64), b"".join(digests), errors, issues)

    def _rows(self, data: bytes) -> tuple[npt.NDArray[Any], list[str]]:
        """The feature vectors of a file [shape=(frames, dims)], and what was wrong with it."""
        issues: list[str] = []
        sound = audio.decode(data, "sound", lambda issue: issues.append(issue.removeprefix(_NAMELESS)))
        if sound.sr != self._sr:
            sound = sound.resample(self._sr)
        mono = sound.y if sound.num_channels == 1 else to_mono(sound.y)
        values = named.compute(self._feature, mono, self._sr, threads=1, **self._options)
        return np.ascontiguousarray(values.T, self.column.dtype), issues
