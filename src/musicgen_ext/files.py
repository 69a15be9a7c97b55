"""Files on disk: written whole or not at all, and named so that a message stays on one line."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterable

if sys.platform != "win32":
    import fcntl

_PATH_HEADROOM = 250  # bytes of a file name that still leave room for the dot and ".tmp" under the usual limit of 255


def shown(path: str | os.PathLike[str]) -> str:
    """`path` as it appears in messages: always one printable line, whatever bytes the name holds."""
    name = os.fspath(path)
    text = os.fsdecode(name)
    return text if text.isprintable() else repr(text)[1:-1]


def content(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file.

    A file object asks the system for more than it needs to read a file from one end to the other: for a small one, this
    takes half the time.

    Raises
    ------
    OSError
        The built-in subclass that fits, with ``filename`` set to `path`.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        size = os.fstat(descriptor).st_size
        data = os.read(descriptor, size + 1)
        if len(data) == size > 0:
            return data
        parts = [data]  # a pipe or a device, more than the system reads at once, or a file that somebody is writing
        while part := os.read(descriptor, 1 << 20):
            parts.append(part)
        return b"".join(parts)
    except OSError as error:  # such as IsADirectoryError, which comes only now
        error.filename = os.fspath(path)
        raise
    finally:
        os.close(descriptor)


def replace(path: str | os.PathLike[str], chunks: Iterable[bytes | memoryview]) -> None:
    """Write `chunks` to `path` so that a reader sees the old bytes or all of the new ones, never a mixture.

    A temporary file in the same folder (``.NAME.tmp``) is written, flushed to the disk and renamed over the target;
    then the folder is flushed. Whatever fails, the target keeps its old bytes and the temporary file is removed. If the
    process is killed, at most that one ``.tmp`` stays behind, and the next write of the same file takes it over.
    A symbolic link is followed, so that the file it names is replaced, not the link. A device or a pipe is written to
    directly. The mode of an existing file is kept.

    Raises
    ------
    OSError
        The built-in subclass that fits (no space, no permission, a folder …), with ``filename`` set to `path`.
    """
    target = os.fsdecode(os.path.realpath(path))
    try:
        try:
            mode = os.stat(target).st_mode
        except FileNotFoundError:
            mode = None
        if mode is not None and stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if mode is not None and not stat.S_ISREG(mode):
            with open(target, "wb") as stream:
                stream.writelines(chunks)
            return
        _replace_regular(target, mode, chunks)
    except OSError as error:
        # The caller asked for `path`: the name of a temporary file would only puzzle. Windows: filename2 of a rename.
        error.filename = os.fspath(path)
        error.filename2 = None
        raise


def _replace_regular(target: str, mode: int | None, chunks: Iterable[bytes | memoryview]) -> None:
    folder, name = os.path.split(target)
    if len(os.fsencode(name)) > _PATH_HEADROOM:
        name = os.fsdecode(os.fsencode(name)[:_PATH_HEADROOM])
    temporary = os.path.join(folder, f".{name}.tmp")
    descriptor = _open_locked(temporary)
    try:
        os.ftruncate(descriptor, 0)
        with os.fdopen(descriptor, "wb", closefd=False) as stream:
            stream.writelines(chunks)
        os.fsync(descriptor)
        if mode is not None and sys.platform != "win32":
            os.fchmod(descriptor, stat.S_IMODE(mode))
        if sys.platform == "win32":  # an open file cannot be renamed there
            os.close(descriptor)
            descriptor = -1
        os.replace(temporary, target)
    except BaseException:
        if descriptor >= 0 and sys.platform == "win32":
            os.close(descriptor)
            descriptor = -1
        _remove(temporary)
        raise
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    _sync_folder(folder)


def lock(descriptor: int, path: str | os.PathLike[str]) -> None:
    """Hold an open file alone until it is closed; an `OSError` about `path` if another process does."""
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OSError(errno.EBUSY, "another process is writing this", os.fspath(path)) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # a file system without locks
            raise


def _open_locked(temporary: str) -> int:
    """Open the temporary file for writing alone: two writers of one target must not share its bytes."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    flags |= getattr(os, "O_BINARY", 0)
    while True:
        descriptor = os.open(temporary, flags, 0o666)
        if sys.platform == "win32":
            return descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder may have renamed the file between our open and our lock: then it is the target now.
            if os.stat(temporary).st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise OSError(errno.EBUSY, "another process is writing this file") from None
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOTSUP):  # a file system without locks
                return descriptor
            os.close(descriptor)
            raise
        os.close(descriptor)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):  # the error that brought us here is the one to tell
        os.unlink(path)


def _sync_folder(folder: str) -> None:
    if sys.platform == "win32":
        return
    descriptor = os.open(folder or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot flush a folder say so
            raise
    finally:
        os.close(descriptor)
