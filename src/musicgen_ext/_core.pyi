from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__version__: str
compiler: str

def isa_in_use() -> str: ...
def isas_available() -> list[str]: ...

# midi
note_dtype: np.dtype[np.void]
event_dtype: np.dtype[np.void]

def midi_parse(data: bytes, strict: bool) -> tuple[Any, ...]: ...
def midi_write(
    format: int,
    division: int,
    notes: npt.NDArray[Any],
    events: npt.NDArray[Any],
    payload: npt.NDArray[np.uint8],
    payload_ends: npt.NDArray[np.int64],
    track_ends: npt.NDArray[np.int64],
    chunks: Sequence[tuple[int, bytes, bytes]],
) -> bytes: ...
def midi_check_notes(notes: npt.NDArray[Any]) -> None: ...
