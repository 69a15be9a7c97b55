from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

_Array: TypeAlias = npt.NDArray[Any]

__version__: str
compiler: str

def isa_in_use() -> str: ...
def isas_available() -> list[str]: ...

note_dtype: np.dtype[np.void]
event_dtype: np.dtype[np.void]

# format, division, notes, events, payload, payload_ends, track_ends, chunks, issues, unlisted_issues
def midi_parse(
    data: bytes, strict: bool
) -> tuple[
    int,
    int,
    _Array,
    _Array,
    _Array,
    _Array,
    _Array,
    list[tuple[int, bytes, bytes]],
    list[tuple[str, int, int]],
    int,
]: ...
def midi_write(
    format: int,
    division: int,
    notes: _Array,
    events: _Array,
    payload: _Array,
    payload_ends: _Array,
    track_ends: _Array,
    chunks: list[tuple[int, bytes, bytes]],
) -> bytes: ...
def midi_check_notes(notes: _Array) -> None: ...
