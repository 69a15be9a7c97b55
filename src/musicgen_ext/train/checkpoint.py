"""Checkpoints: written whole or not at all, checked when read, never unpickled beyond tensors and plain values."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
from pathlib import Path
from typing import Any

import torch

from musicgen_ext import files
from musicgen_ext.errors import CheckpointError

FORMAT_VERSION = 1
_MAGIC = b"musicgen-ext checkpoint "
_NAME = re.compile(r"checkpoint-(\d{9})\.pt")
_KEPT = 2


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write ``checkpoint-<step>.pt`` and keep one older checkpoint beside it.

    The file is a line with the format's version, a line with the SHA-256 of the rest, and what `torch.save` makes of
    `state` (tensors, numbers, strings, lists, dicts).

    Raises
    ------
    OSError
        It could not be written; older checkpoints are untouched.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    body = buffer.getbuffer()
    head = _MAGIC + f"{FORMAT_VERSION}\n{hashlib.sha256(body).hexdigest()}\n".encode()
    path = folder / f"checkpoint-{step:09d}.pt"
    files.replace(path, [head, body])
    for old in found(folder)[_KEPT:]:
        old.unlink(missing_ok=True)
    return path


def found(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, newest first."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if _NAME.fullmatch(p.name)), reverse=True)


def clean(folder: Path) -> None:
    """Remove what a killed process left half-written."""
    for path in folder.glob(".checkpoint-*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read one checkpoint.

    Raises
    ------
    CheckpointError
        It is damaged or from another version. The message, and the error's `previous`, name the next older checkpoint
        in the folder, if there is one.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            version = stream.readline(64)
            digest = stream.readline(80).strip()
            body = stream.read()
    except FileNotFoundError as e:
        raise _refused(path, "expected a checkpoint, got no such file") from e
    if not version.startswith(_MAGIC):
        raise _refused(path, f"expected a file that begins with {_MAGIC.decode().strip()!r}, got {version[:32]!r}")
    number = version.removeprefix(_MAGIC).strip().decode("ascii", "replace")
    if number != str(FORMAT_VERSION):
        raise _refused(path, f"expected format version {FORMAT_VERSION}, got {number!r}")
    got = hashlib.sha256(body).hexdigest().encode()
    if got != digest:
        raise _refused(path, f"damaged: expected SHA-256 {digest.decode('ascii', 'replace')}, got {got.decode()}")
    try:
        state = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as e:  # torch raises RuntimeError, UnpicklingError, EOFError … for a file it cannot read
        raise _refused(path, f"torch cannot read it: {e}") from e
    if not isinstance(state, dict):
        raise _refused(path, f"expected a dict, got {type(state).__name__}")
    return state


def _refused(path: Path, reason: str) -> CheckpointError:
    older = [p for p in found(path.parent) if p.name < path.name]
    message = f"{files.shown(path)}: {reason}"
    message += f"; the previous checkpoint is {files.shown(older[0])}" if older else "; there is no previous checkpoint"
    return CheckpointError(message, path=str(path), previous=str(older[0]) if older else None)
