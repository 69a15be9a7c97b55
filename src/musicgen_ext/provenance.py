"""Where a piece comes from, as one line of text that travels inside its file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

PREFIX = b"musicgen_ext: "


def to_text(provenance: Mapping[str, Any]) -> bytes:
    """`provenance` as ``musicgen_ext: {json}``, in ASCII, keys sorted: equal mappings give equal bytes.

    Raises
    ------
    TypeError, ValueError
        A value that JSON cannot hold; NaN, an infinity, or a mapping that holds itself.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"provenance: expected values that JSON can hold, got {type(value).__name__}")

    try:
        return PREFIX + json.dumps(dict(provenance), sort_keys=True, allow_nan=False, default=plain).encode()
    except ValueError as error:
        raise ValueError(f"provenance: expected finite numbers and no cycles, got {provenance!r}") from error


def from_text(text: bytes) -> dict[str, Any] | None:
    """The inverse of `to_text`; None for any other text."""
    if not text.startswith(PREFIX):
        return None
    try:
        found = json.loads(text[len(PREFIX) :])
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
