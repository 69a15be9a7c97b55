"""Numbers out of sound: librosa's names, signatures, shapes and values; float32 in, float32 out."""

from __future__ import annotations

from musicgen_ext.features.windows import get_window

__all__ = ["get_window"]
