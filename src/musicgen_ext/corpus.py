"""Many files into one store: all cores, the same bytes for any number of workers, and a kill loses next to nothing.

A store is a folder:

========================  ==============================================================================================
``encoding.json``         what was done: the encoding, its options, the shard, the type of the column
``tokens.npy``            the tokens of all pieces end to end, shape (n,) or (n, slots), uint16 if the vocabulary fits
``offsets.npy``           int64, shape (pieces + 1,): piece i has the rows from ``offsets[i]`` to ``offsets[i + 1]``
``manifest.jsonl``        a line for every file, in order: file, bytes, sha256, and offset, length, issues, or its error
``summary.json``          counts; written last, so that a store with it is whole
========================  ==============================================================================================

While it is being written the names end in ``.part``. The files of the folder come in one order, depth first and sorted
by the bytes of their names, whoever encodes them; nothing that is written depends on time, workers, or earlier runs.
A manifest line is written when the rows it speaks of are on the disk, so whatever ends the process, the lines that are
there say where to go on.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import re
import sys
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii
from typing import IO, Any, ClassVar, NamedTuple, Protocol, cast, overload

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core, encodings, files
from musicgen_ext.encodings import Encoding
from musicgen_ext.progress import Progress

Array = npt.NDArray[Any]
Path = str | os.PathLike[str]

MIDI_SUFFIXES = (".mid", ".midi", ".kar", ".rmi", ".smf")
FORMAT = 1

_BATCH_FILES = 128
_BATCHES_PER_WORKER, _BYTES_AHEAD = 4, 1 << 24  # what may wait for its turn to be written
# How often rows are flushed to the disk, and how much may wait for the next time: a kill loses no more than that.
_FLUSH_SECONDS, _DIRTY_BYTES = 0.05, 1 << 23
_FAILURES_LISTED = 100
_HEADER = 128  # bytes before the values of an .npy file: room for any shape
_PART = ".part"
# These say something about the machine now, nothing about a file.
NOT_THE_FILES_FAULT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


# -- what is public --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CorpusSummary:
    """What is in a store now.

    Attributes
    ----------
    path : str
    files, failed : int
        Pieces in the store, and files that could not be encoded.
    failures : tuple of (str, str)
        Name and reason of the first 100 of those; the manifest has them all.
    tokens : int
        Numbers in the store, of all slots.
    issues : int
        What the files got wrong and what the encoding could not hold, one for each line of the manifest's ``issues``.
    links : int
        Links to folders, which are not followed.
    seconds : float
        That this call took.
    """

    path: str
    files: int
    failed: int
    failures: tuple[tuple[str, str], ...]
    tokens: int
    issues: int
    links: int
    seconds: float


def encode_corpus(
    folder: Path | Sequence[Path],
    encoding: Encoding,
    *,
    out: Path,
    workers: int | None = None,
    shard: str | tuple[int, int] | None = None,
    resume: bool = True,
    force: bool = False,
    strict: bool = False,
    max_duration: float | None = 86_400.0,
    suffixes: Sequence[str] = MIDI_SUFFIXES,
    progress: bool = False,
) -> CorpusSummary:
    """Encode all MIDI files of a folder into a token store.

    Parameters
    ----------
    folder : path, or sequence of paths
        Folders are searched to any depth; hidden files and folders are left out, links to folders are not followed.
        Names in the manifest are relative to a single folder, and as given otherwise.
    encoding : Encoding
    out : path
        The folder of the store, made if it is not there.
    workers : int, optional
        Threads; None: as many as this process may use cores. The store has the same bytes for any number.
    shard : (int, int) or str, optional
        ``(i, n)`` or ``"i/n"``, i from 1 to n: only the i-th of n parts of the files, into a folder of its own inside
        `out`. Which part a file belongs to depends on its name alone. `TokenStore(out)` opens all n together.
    resume : bool
        Go on with a store that is there: only what an earlier run had not on the disk yet, at most some 16 MiB, is
        done again. What is finished already is left as it is.
    force : bool
        Begin anew whatever store is there.
    strict, max_duration
        As for `read_midi`: a file with any deviation, or longer than so many seconds, counts as failed.
    suffixes : sequence of str
        Names of files end so, in any case.
    progress : bool
        Show a bar on a terminal.

    Returns
    -------
    CorpusSummary
        Bad files are no error: they are skipped, and listed with their reasons here and in the manifest.

    Raises
    ------
    FileExistsError
        `out` holds other files, a store of something else (another encoding, folder, shard or option), or, without
        `resume`, any store.
    OSError
        A folder that is not there, a full disk …; what was written stays, and the next call goes on from there.
    KeyboardInterrupt
        Within a tenth of a second after Ctrl-C; likewise.
    """
    if not isinstance(encoding, Encoding):
        raise TypeError(f"encoding: expected an Encoding, got {type(encoding).__name__}")
    if max_duration is not None and not max_duration > 0:
        raise ValueError(f"max_duration: expected more than 0 seconds, got {max_duration}")
    job = _Encode(encoding, strict, max_duration)
    return run(
        folder, job, out=out, workers=workers, shard=shard, resume=resume, force=force, suffixes=suffixes,
        progress=progress,
    )  # fmt: skip


class Store(Sequence[npt.NDArray[Any]]):
    """What a job has made of many files, read from the disk as it is looked at. See `TokenStore`."""

    column_name: ClassVar[str]

    def __init__(self, path: Path) -> None:
        self.path = os.fsdecode(path)
        self._work: dict[str, Any]
        names = _shards_in(self.path)
        self.shards: tuple[Store, ...] = (self,)
        if names:
            self.shards = tuple(type(self)(os.path.join(self.path, name)) for name in names)
            for other in self.shards[1:]:
                if other._work["job"] != self.shards[0]._work["job"]:
                    raise _broken(other.path, "expected the encoding and options of the other shards, got others")
            self._work = self.shards[0]._work
        else:
            self._work = _read_json(self.path, "encoding.json")
            if (name := _column(self._work).name) != self.column_name:
                raise ValueError(f"{files.shown(self.path)}: expected a store of {self.column_name}, got one of {name}")
            summary = _read_json(self.path, "summary.json")
            self._count, self._pieces = int(summary["rows"]), int(summary["files"])
            self._check(summary)
        self._ends = np.cumsum([shard._pieces for shard in self.shards])
        self.num_rows = sum(shard._count for shard in self.shards)
        self._mapped_rows: Array | None = None
        self._offsets: Array | None = None

    def _check(self, summary: dict[str, Any]) -> None:
        column = _column(self._work)
        width = _row_size(self._work) * column.dtype.itemsize
        sizes = {
            f"{column.name}.npy": _HEADER + self._count * width,
            "offsets.npy": _HEADER + 8 * (self._pieces + 1),
            "manifest.jsonl": int(summary["manifest_bytes"]),
        }
        for name, size in sizes.items():
            path = os.path.join(self.path, name)
            got = os.stat(path).st_size
            if got != size:
                raise _broken(path, f"expected {size} bytes, got {got}")

    @property
    def rows(self) -> Array:
        """The rows of all pieces end to end, memory-mapped (of a store without shards)."""
        if self.shards != (self,):
            raise ValueError(f"{files.shown(self.path)}: expected one shard, got {len(self.shards)}: see shards")
        if self._mapped_rows is None:
            self._mapped_rows = _mapped(os.path.join(self.path, self.column_name + ".npy"))
            self._offsets = _mapped(os.path.join(self.path, "offsets.npy"))
            if len(self._mapped_rows) != self._count or self._offsets[-1] != self._count:
                raise _broken(self.path, f"expected {self._count} rows, got {len(self._mapped_rows)}")
        return self._mapped_rows

    def __len__(self) -> int:
        return int(self._ends[-1])

    @overload
    def __getitem__(self, index: int) -> Array: ...
    @overload
    def __getitem__(self, index: slice) -> list[Array]: ...
    def __getitem__(self, index: int | slice) -> Array | list[Array]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = index + len(self) if index < 0 else index
        if not 0 <= i < len(self):
            raise IndexError(f"{files.shown(self.path)}: expected a piece below {len(self)}, got {index}")
        which = int(np.searchsorted(self._ends, i, side="right"))
        shard = self.shards[which]
        if shard is not self:
            return shard[i - int(self._ends[which]) + shard._pieces]
        rows = self.rows
        assert self._offsets is not None
        return self._piece(rows[int(self._offsets[i]) : int(self._offsets[i + 1])])

    def _piece(self, rows: Array) -> Array:
        """A piece as it is shown, of its rows."""
        return rows

    @property
    def manifest(self) -> Iterator[dict[str, Any]]:
        """What is known about every piece, in the order of the pieces: file, bytes, sha256, offset, length, issues.

        Names hold bytes that are not UTF-8 as `os.fsdecode` does; `os.fsencode` gives them back.
        """
        return (line for shard in self.shards for line in _lines(shard.path) if "error" not in line)

    @property
    def failures(self) -> Iterator[dict[str, Any]]:
        """What is known about every file that is not in the store: file, error, and bytes and sha256 if it was read."""
        return (line for shard in self.shards for line in _lines(shard.path) if "error" in line)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path,)


class TokenStore(Store):
    """The tokens of many pieces, read from the disk as they are looked at.

    ``store[i]`` is a read-only view on the memory-mapped column: shape (n,) or (n, slots), uint16 or int32.

    Parameters
    ----------
    path : path
        What `encode_corpus` has written: a store, or the folder of all shards of one.

    Attributes
    ----------
    path : str
    encoding : Encoding
    shards : tuple of TokenStore
        One for every shard, in order; of a store without shards, itself.
    num_tokens : int

    Raises
    ------
    FileNotFoundError
        There is no store.
    ValueError
        It is unfinished, damaged, one of something else, or a shard is missing; the message names it and says what is
        wrong.
    """

    column_name = "tokens"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.encoding = encodings.load(self._work["job"]["encoding"], tokens=True)
        self.num_tokens = self.num_rows * _row_size(self._work)

    @property
    def tokens(self) -> Array:
        """All tokens end to end, memory-mapped (of a store without shards)."""
        return self.rows

    def __repr__(self) -> str:
        return f"TokenStore({self.path!r}: {len(self)} pieces, {self.num_tokens} tokens, {self.encoding.name})"


# -- jobs ------------------------------------------------------------------------------------------------------------


class Column(NamedTuple):
    """What a job makes of a file: so many rows of this type and shape."""

    name: str
    dtype: np.dtype[Any]
    row: tuple[int, ...]


class Made(NamedTuple):
    """What a job made of some files: the rows of all, in arrays that follow one another, and of every file their
    number, its size in bytes and its SHA-256 (end to end). By index of the file: what went wrong, as fields for the
    manifest with ``error`` among them (such a file has no rows); and issues.
    """

    rows: list[Array]
    lengths: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    digests: bytes
    errors: dict[int, dict[str, Any]]
    issues: dict[int, list[str]]


class Job(Protocol):
    """What is done to many files. The result for a file depends on its bytes alone."""

    column: Column
    batch_bytes: int  # of files that are done at once

    def describe(self) -> dict[str, Any]:
        """What is done, in JSON: a store is only continued by a job that says the same."""

    def __call__(self, paths: list[bytes], cancel: _core.Cancel) -> Made | None:
        """Read and process some files, without the interpreter's lock where it counts. None: it was cancelled."""


class _Encode:
    """MIDI files to tokens."""

    batch_bytes = 1 << 21

    def __init__(self, encoding: Encoding, strict: bool, max_duration: float | None) -> None:
        self._encoding, self._encoder = encoding, encoding.encoder
        self._strict, self._max_duration = bool(strict), max_duration
        width = self._encoder.width
        # Half the disk and half the memory; int32 for the few vocabularies that are larger.
        self._narrow = encoding.vocab_size <= 1 << 16
        self.column = Column("tokens", np.dtype("<u2" if self._narrow else "<i4"), () if width == 1 else (width,))

    def describe(self) -> dict[str, Any]:
        return {
            "encoding": self._encoding.to_dict(),
            "strict": self._strict,
            "max_duration": None if self._max_duration is None else float(self._max_duration),
        }

    def __call__(self, paths: list[bytes], cancel: _core.Cancel) -> Made | None:
        limit = float("inf") if self._max_duration is None else float(self._max_duration)
        made = _core.encode_files(self._encoder, paths, self._strict, limit, self._narrow, cancel)
        if made is None:
            return None
        tokens, lengths, sizes, digests, failed, issues = made
        errors: dict[int, dict[str, Any]] = {}
        for index, number, message, offset, track in failed:
            if number in NOT_THE_FILES_FAULT:
                raise OSError(number, os.strerror(number), os.fsdecode(paths[index]))
            errors[index] = {"error": os.strerror(number) if number else message}
            if offset >= 0:
                errors[index]["at_byte"] = offset
            if track >= 0:
                errors[index]["track"] = track
        return Made([tokens], lengths, sizes, digests, errors, dict(issues))


# -- the runner ------------------------------------------------------------------------------------------------------


def run(
    sources: Path | Sequence[Path],
    job: Job,
    *,
    out: Path,
    workers: int | None,
    shard: str | tuple[int, int] | None,
    resume: bool,
    force: bool,
    suffixes: Sequence[str],
    progress: bool,
) -> CorpusSummary:
    """Run a job on many files: the main thread lists them and writes results in order, workers do the rest."""
    begun = time.monotonic()
    part = _shard_of(shard)
    count = _workers(workers)
    tree = _Tree(sources, suffixes, part)
    work = {"format": FORMAT, "column": {"name": job.column.name, "dtype": job.column.dtype.str,
            "row": list(job.column.row)}, "job": job.describe(), "suffixes": list(tree.suffixes),
            "shard": None if part is None else list(part)}  # fmt: skip
    path = os.fsdecode(out)
    if part is not None:
        path = os.path.join(path, f"shard-{part[0]:0{len(str(part[1]))}}-of-{part[1]}")
    store = _Writer(path, work, tree.identity, resume=resume, force=force)
    try:
        if not store.finished:
            total = tree.count() if progress and sys.stderr is not None and sys.stderr.isatty() else 0
            with Progress(total, job.column.name, enabled=progress and total > 0) as bar:
                _run(store.remaining(tree), job, store, count, bar)
            store.finish(tree.links)
    except OSError as error:
        if error.filename is None:
            error.filename = path
        raise
    finally:
        store.close()
    return store.summary(time.monotonic() - begun)


def _run(listed: Iterator[_File], job: Job, store: _Writer, workers: int, bar: Progress) -> None:
    """`workers` threads: this one lists files, writes what is made of them, and works like the others in between."""
    tasks: queue.SimpleQueue[tuple[int, list[_File]] | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, _Results | BaseException | None]] = queue.SimpleQueue()
    cancel = _core.Cancel()
    stopping = threading.Event()

    def do(task: tuple[int, list[_File]]) -> None:
        index, batch = task
        try:
            done.put((index, None if stopping.is_set() else _results(batch, job, cancel)))
        except BaseException as error:  # raised again by the main thread
            if isinstance(error, Exception):  # Ctrl-C has nothing to do with these files
                first, last = (files.shown(os.fsdecode(file.name)) for file in (batch[0], batch[-1]))
                error.add_note(f"in one of the files {first} to {last}")
            done.put((index, error))

    def work() -> None:
        while (task := tasks.get()) is not None:
            do(task)

    threads: list[threading.Thread] = []
    try:
        for target in (store.flush, *[work] * (workers - 1)):
            threads.append(threading.Thread(target=target, name="corpus"))
            threads[-1].start()
        batches = _batches(listed, job.batch_bytes)
        ready: dict[int, _Results] = {}
        waiting: deque[int] = deque()  # bytes of every batch that is not written yet
        submitted = written = 0
        listing = True
        while True:
            # Every worker has something to do, however large files are; what waits beyond that is bounded.
            while listing and (
                len(waiting) < workers
                or (len(waiting) < workers * _BATCHES_PER_WORKER and sum(waiting) <= _BYTES_AHEAD)
            ):
                batch = next(batches, None)
                if batch is None:
                    listing = False
                    break
                tasks.put((submitted, batch))
                waiting.append(sum(file.size for file in batch))
                submitted += 1
            if not waiting:
                return
            if done.empty():  # what is made is written first: only this thread can
                with contextlib.suppress(queue.Empty):
                    do(cast("tuple[int, list[_File]]", tasks.get_nowait()))
            with contextlib.suppress(queue.Empty):
                index, result = done.get(timeout=0.05)  # no longer: Windows hears Ctrl-C only in between
                while True:
                    if isinstance(result, BaseException):
                        raise result
                    assert result is not None  # only cancelled work has no result
                    ready[index] = result
                    index, result = done.get_nowait()
            while written in ready:
                store.append(ready.pop(written))
                waiting.popleft()
                written += 1
            store.flush_if_due()
            bar.update(min(store.files + store.failed, bar.total), f"{store.failed} failed" if store.failed else "")
    finally:
        stopping.set()
        cancel.set()
        store.end_flush()
        for _ in threads:
            tasks.put(None)
        for thread in threads:
            if thread.is_alive():  # not if Ctrl-C came while it was starting: then it ends by itself
                thread.join()


class _File(NamedTuple):
    name: bytes  # in the manifest
    path: bytes
    size: int


class _Results(NamedTuple):
    rows: list[Array]
    lengths: list[int]  # -1 for a file that failed
    # The manifest's line of every file is its head, offset and length, its tail; of a failed one, head and tail.
    heads: list[str]
    tails: list[str]
    issues: int
    failures: list[tuple[str, str]]  # the first


def _results(batch: list[_File], job: Job, cancel: _core.Cancel) -> _Results | None:
    made = job([file.path for file in batch], cancel)
    if made is None:
        return None
    digests = made.digests.hex()
    heads, tails = [], [', "issues": []}\n'] * len(batch)
    for place, (file, size) in enumerate(zip(batch, made.sizes.tolist(), strict=True)):
        name = encode_basestring_ascii(os.fsdecode(file.name))
        read = f', "bytes": {size}, "sha256": "{digests[64 * place : 64 * place + 64]}"' if size >= 0 else ""
        heads.append(f'{{"file": {name}{read}')
    for place, words in made.issues.items():
        tails[place] = f', "issues": {json.dumps(words)}}}\n'
    lengths = made.lengths.tolist()
    for place, fields in made.errors.items():
        lengths[place] = -1
        tails[place] = f", {json.dumps(fields)[1:]}\n"
    failures = [(os.fsdecode(batch[place].name), made.errors[place]["error"]) for place in sorted(made.errors)]
    return _Results(made.rows, lengths, heads, tails, sum(map(len, made.issues.values())), failures[:_FAILURES_LISTED])


def _batches(listed: Iterator[_File], batch_bytes: int) -> Iterator[list[_File]]:
    batch: list[_File] = []
    size = 0
    for file in listed:
        batch.append(file)
        size += file.size
        if len(batch) == _BATCH_FILES or size >= batch_bytes:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _workers(workers: int | None) -> int:
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(workers, bool) or not isinstance(workers, int):
        raise TypeError(f"workers: expected an integer, got {type(workers).__name__}")
    if not 1 <= workers <= 1024:
        raise ValueError(f"workers: expected 1 to 1024, got {workers}")
    return workers


def _shard_of(shard: str | tuple[int, int] | None) -> tuple[int, int] | None:
    if shard is None:
        return None
    try:
        i, n = (int(number) for number in (shard.split("/") if isinstance(shard, str) else shard))
    except (TypeError, ValueError):
        raise ValueError(f'shard: expected "i/n" or (i, n), got {shard!r}') from None
    if not 1 <= i <= n <= 1_000_000:
        raise ValueError(f"shard: expected i/n with i from 1 to n, got {i}/{n}")
    return i, n


# -- files, in one order ---------------------------------------------------------------------------------------------


class _Tree:
    """The files of the sources in one order, listed as they are asked for: a folder at a time is in memory."""

    def __init__(self, sources: Path | Sequence[Path], suffixes: Sequence[str], shard: tuple[int, int] | None) -> None:
        single = isinstance(sources, str | os.PathLike)
        given: Sequence[Path] = [sources] if isinstance(sources, str | os.PathLike) else sources
        self._sources = [(os.fsencode(source), b"" if single else os.fsencode(source)) for source in given]
        if isinstance(suffixes, str) or not all(isinstance(suffix, str) and suffix for suffix in suffixes):
            raise TypeError(f"suffixes: expected a sequence of strings, got {suffixes!r}")
        self.suffixes = tuple(suffix.lower() for suffix in suffixes)
        self._endings = tuple(os.fsencode(suffix) for suffix in self.suffixes)
        self._shard = shard
        self.links = 0
        if single:
            os.stat(os.fsdecode(given[0]))  # a folder that is not there is an error; one file among many, a failed one
        self.identity = b"\0".join(os.path.realpath(source) for source, _ in self._sources)

    def __iter__(self) -> Iterator[_File]:
        self.links = 0
        for name, path in self._paths():
            try:
                size = os.stat(path).st_size
            except OSError:  # whoever reads it will say so
                size = 0
            yield _File(name, path, size)

    def count(self) -> int:
        """The number of files, without a look at any of them."""
        return sum(1 for _ in self._paths())

    def _paths(self) -> Iterator[tuple[bytes, bytes]]:
        """(name, path) of the files of this shard."""
        if self._shard is None:
            return self._all_paths()
        i, n = self._shard
        return (pair for pair in self._all_paths() if zlib.crc32(pair[0]) % n == i - 1)

    def _all_paths(self) -> Iterator[tuple[bytes, bytes]]:
        separator = os.sep.encode()
        for source, name in self._sources:
            if not os.path.isdir(source):
                yield name or os.path.basename(source), source
                continue
            prefix = name.replace(os.sep.encode(), b"/").rstrip(b"/") + b"/" if name else b""
            stack = [(prefix, source, self._listed(source))]
            while stack:
                prefix, folder, left = stack[-1]
                if left is None:  # opening it as a file will fail, and say why
                    stack.pop()
                    yield prefix or b"./", folder
                    continue
                if not left:
                    stack.pop()
                    continue
                entry, is_folder = left.pop()
                path = folder + separator + entry
                if is_folder:
                    stack.append((prefix + entry + b"/", path, self._listed(path)))
                else:
                    yield prefix + entry, path

    def _listed(self, folder: bytes) -> list[tuple[bytes, bool]] | None:
        """(name, whether it is a folder), the last one first; None if it cannot be listed."""
        found = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = entry.name
                    if name[:1] == b".":
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        found.append((name, True))
                    elif entry.is_symlink() and entry.is_dir():
                        self.links += 1
                    elif name.lower().endswith(self._endings):
                        found.append((name, False))
        except OSError:
            return None
        found.sort(reverse=True)
        return found


# -- the store on the disk -------------------------------------------------------------------------------------------


def _column(work: dict[str, Any]) -> Column:
    column = work["column"]
    return Column(column["name"], np.dtype(column["dtype"]), tuple(column["row"]))


def _row_size(work: dict[str, Any]) -> int:
    return int(np.prod(_column(work).row, dtype=np.int64))


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The first bytes of an .npy file (version 1.0), always as many."""
    text = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    return b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little") + text.ljust(_HEADER - 11).encode() + b"\n"


class _Writer:
    """A store that grows, from nothing or from what an earlier run has left."""

    def __init__(self, path: str, work: dict[str, Any], identity: bytes, *, resume: bool, force: bool) -> None:
        self.path = path
        self.files = self.failed = self._rows = self._issues = self._links = 0
        self._failures: list[tuple[str, str]] = []
        self._work = work
        self._row = _row_size(work)
        self._column = _column(work)
        self._bytes_of_row = self._row * self._column.dtype.itemsize
        self._names = (self._column.name + ".npy", "offsets.npy", "manifest.jsonl")
        self._lines: list[str] = []  # of the manifest, to be written when their rows are on the disk
        self._dirty = 0  # bytes of those rows
        self._flushing = False
        self._flushes: queue.SimpleQueue[list[str] | None] = queue.SimpleQueue()
        self._flushed: queue.SimpleQueue[OSError | None] = queue.SimpleQueue()
        self._streams: list[IO[bytes]] = []
        self._due = 0.0
        description = json.dumps(work, indent=1).encode() + b"\n"
        os.makedirs(path, exist_ok=True)
        _refuse_strangers(path, self._names)
        if force:
            self._remove()
        self.finished = os.path.exists(self._in("summary.json"))
        if os.path.exists(self._in("encoding.json")):
            self._refuse_other(description, identity, resume)
        else:
            files.replace(self._in("source" + _PART), [identity])
            files.replace(self._in("encoding.json"), [description])
        if self.finished:
            self._take_summary()
        else:
            self._open()

    def _in(self, name: str) -> str:
        return os.path.join(self.path, name)

    def _remove(self) -> None:
        # The summary first: what is left after a kill is an unfinished store, then none.
        for name in ("summary.json", *self._names[::-1], "source", "encoding.json"):
            for path in (self._in(name), self._in(name + _PART)):
                if os.path.exists(path):
                    os.unlink(path)

    def _refuse_other(self, description: bytes, identity: bytes, resume: bool) -> None:
        if not resume:
            raise _exists(self.path, "holds a store already; resume goes on with it, force begins it anew")
        with open(self._in("encoding.json"), "rb") as stream:
            if stream.read() != description:
                there, ours = _read_json(self.path, "encoding.json"), json.loads(description)
                keys = [key for key in ours if there.get(key) != ours[key]] or ["format"]
                raise _exists(
                    self.path,
                    f"holds a store of another {', '.join(keys)}: expected {[ours[k] for k in keys]}, "
                    f"got {[there.get(k) for k in keys]}; force begins it anew",
                )
        if not self.finished:
            with open(self._in("source" + _PART), "rb") as stream:
                if stream.read() != identity:
                    raise _exists(self.path, "holds an unfinished store of another folder; force begins it anew")

    def _take_summary(self) -> None:
        found = _read_json(self.path, "summary.json")
        self.files, self.failed, self._rows = found["files"], found["failed"], found["rows"]
        self._issues, self._links = found["issues"], found["links"]
        if self.failed:
            for line in _lines(self.path):
                if "error" in line and len(self._failures) < _FAILURES_LISTED:
                    self._failures.append((line["file"], line["error"]))

    # -- writing -----------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        for name in self._names:
            if os.path.exists(self._in(name)):  # killed while it was being finished
                os.replace(self._in(name), self._in(name + _PART))
            stream = open(self._in(name + _PART), "a+b", buffering=0)  # noqa: SIM115
            self._streams.append(stream)
        try:
            files.lock(self._streams[2].fileno(), self.path)
        except OSError:
            self.close()
            raise

    def remaining(self, tree: Iterable[_File]) -> Iterator[_File]:
        """The files that are not in the store yet; the store is cut back to what its manifest says first."""
        values, offsets, manifest = self._streams
        listed = iter(tree)
        whole = max(os.fstat(values.fileno()).st_size - _HEADER, 0) // self._bytes_of_row
        ends = [0]
        offsets.truncate(0)
        _write(offsets, _header(np.dtype("<i8"), (0,)))
        manifest.seek(0)
        good = 0
        with open(manifest.fileno(), "rb", closefd=False) as lines:
            for text in lines:
                line = _parsed(text)
                if (
                    line is None
                    or self._rows + line.get("length", 0) > whole
                    or line.get("offset", self._rows) != self._rows
                ):
                    break
                expected = next(listed, None)
                name = None if expected is None else os.fsdecode(expected.name)
                if name != line["file"]:
                    raise _exists(
                        self.path,
                        f"the folder has changed since: expected {files.shown(line['file'])} as file "
                        f"{self.files + self.failed + 1}, got "
                        f"{'no more' if name is None else files.shown(name)}; force begins it anew",
                    )
                good += len(text)
                self._count(line)
                if "error" not in line:
                    ends.append(self._rows)
                if len(ends) >= 1 << 16:
                    _write(offsets, np.array(ends, "<i8").tobytes())
                    ends = []
        _write(offsets, np.array(ends, "<i8").tobytes())
        manifest.truncate(good)
        if os.fstat(values.fileno()).st_size < _HEADER:
            values.truncate(0)
            _write(values, _header(self._column.dtype, (0, *self._column.row)))
        values.truncate(_HEADER + self._rows * self._bytes_of_row)
        return listed

    def _count(self, line: dict[str, Any]) -> None:
        if "error" in line:
            self.failed += 1
            if len(self._failures) < _FAILURES_LISTED:
                self._failures.append((line["file"], line["error"]))
        else:
            self.files += 1
            self._rows += line["length"]
            self._issues += len(line["issues"])

    def append(self, results: _Results) -> None:
        values, offsets, _ = self._streams
        for rows in results.rows:
            _write(values, np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)
            self._dirty += rows.nbytes
        ends = []
        for head, length, tail in zip(results.heads, results.lengths, results.tails, strict=True):
            if length < 0:
                self._lines.append(head + tail)
                self.failed += 1
                continue
            self._lines.append(f'{head}, "offset": {self._rows}, "length": {length}{tail}')
            self._rows += length
            ends.append(self._rows)
        _write(offsets, np.array(ends, "<i8").tobytes())
        self.files += len(ends)
        self._issues += results.issues
        self._failures += results.failures[: _FAILURES_LISTED - len(self._failures)]

    def flush_if_due(self) -> None:
        """Have what was appended flushed: a disk is slow, but needs no core."""
        if self._flushing:
            with contextlib.suppress(queue.Empty):
                self._take_flushed(block=self._dirty >= _DIRTY_BYTES)
        now = time.monotonic()
        if not self._flushing and self._lines and (now >= self._due or self._dirty >= _DIRTY_BYTES):
            self._flushes.put(self._lines)
            self._flushing, self._lines, self._dirty, self._due = True, [], 0, now + _FLUSH_SECONDS

    def flush(self) -> None:
        """What a thread of its own does."""
        while (lines := self._flushes.get()) is not None:
            try:
                self._flush(lines)
            except OSError as error:
                self._flushed.put(error)
            else:
                self._flushed.put(None)

    def end_flush(self) -> None:
        self._flushes.put(None)

    def _flush(self, lines: list[str]) -> None:
        """First the rows reach the disk, then the lines that speak of them are written."""
        os.fsync(self._streams[0].fileno())
        _write(self._streams[2], "".join(lines).encode())

    def _take_flushed(self, block: bool) -> None:
        error = self._flushed.get(block)
        self._flushing = False
        if error is not None:
            raise error

    def finish(self, links: int) -> None:
        if self._flushing:
            self._take_flushed(block=True)
        self._flush(self._lines)
        self._links = links
        summary = {
            "files": self.files, "failed": self.failed, "rows": self._rows, "issues": self._issues, "links": links,
            "manifest_bytes": os.fstat(self._streams[2].fileno()).st_size,
        }  # fmt: skip
        heads = (
            _header(self._column.dtype, (self._rows, *self._column.row)), _header(np.dtype("<i8"), (self.files + 1,)),
        )  # fmt: skip
        for stream in self._streams:
            os.fsync(stream.fileno())
        self.close()
        for name, head in zip(self._names, heads, strict=False):
            with open(self._in(name + _PART), "r+b", buffering=0) as stream:
                _write(stream, head)
                os.fsync(stream.fileno())
        for name in self._names:
            os.replace(self._in(name + _PART), self._in(name))
        files.replace(self._in("summary.json"), [json.dumps(summary, indent=1).encode() + b"\n"])
        os.unlink(self._in("source" + _PART))

    def close(self) -> None:
        for stream in self._streams:
            stream.close()
        self._streams.clear()

    def summary(self, seconds: float) -> CorpusSummary:
        return CorpusSummary(
            self.path, self.files, self.failed, tuple(self._failures), self._rows * self._row, self._issues,
            self._links, seconds,
        )  # fmt: skip


def _write(stream: IO[bytes], data: bytes | memoryview) -> None:
    left = memoryview(data)
    try:
        while len(left):
            left = left[stream.write(left) :]
    except OSError as error:
        error.filename = stream.name
        raise


def _refuse_strangers(path: str, names: Sequence[str]) -> None:
    """A store never mixes with other files."""
    ours = {"encoding.json", "summary.json", "source", *names}
    for name in sorted(os.listdir(path)):
        if not name.startswith(".") and name.removesuffix(_PART) not in ours:
            raise _exists(path, f"expected an empty folder or a store, got one with {files.shown(name)}")


def _exists(path: str, what: str) -> FileExistsError:
    return FileExistsError(errno.EEXIST, what, path)


def _broken(path: str, what: str) -> ValueError:
    return ValueError(f"{files.shown(path)}: {what} (damaged?)")


def _read_json(folder: str, name: str) -> dict[str, Any]:
    path = os.path.join(folder, name)
    try:
        with open(path, "rb") as stream:
            found = json.loads(stream.read())
    except FileNotFoundError:
        if name == "summary.json":
            raise ValueError(f"{files.shown(folder)}: expected a finished store, got an unfinished one") from None
        raise
    except ValueError as error:
        raise _broken(path, f"expected JSON, got {error}") from None
    if not isinstance(found, dict):
        raise _broken(path, f"expected a JSON object, got {type(found).__name__}")
    return found


def _parsed(text: bytes) -> dict[str, Any] | None:
    """A line of the manifest; None if it was not written to its end."""
    if not text.endswith(b"\n"):
        return None
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def _lines(folder: str) -> Iterator[dict[str, Any]]:
    path = os.path.join(folder, "manifest.jsonl")
    with open(path, "rb") as stream:
        for i, text in enumerate(stream):
            line = _parsed(text)
            if line is None:
                raise _broken(path, f"line {i + 1}: expected a JSON object, got {text[:80]!r}")
            yield line


def _shards_in(path: str) -> list[str]:
    """Names of the shards in a folder, in order; none if it is a store itself."""
    found = {}
    for name in os.listdir(path):
        numbers = re.fullmatch(r"shard-(\d+)-of-(\d+)", name)
        if numbers:
            found[int(numbers[1]), int(numbers[2])] = name
    for n in {n for _, n in found}:
        missing = [i for i in range(1, n + 1) if (i, n) not in found]
        if missing or len(found) != n:
            raise ValueError(
                f"{files.shown(path)}: expected {n} shards, got {len(found)}"
                + (f", not {missing[0]}" if missing else "")
            )
    return [found[key] for key in sorted(found)]


def _mapped(path: str) -> Array:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        raise _broken(path, f"expected an .npy file, got {error}") from None
