"""Sound that stands for itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from musicgen_ext.encodings.base import whole
from musicgen_ext.errors import WeightsError


@dataclass(frozen=True)
class Sound:
    """The tokens are samples of sound, and the model is told nothing, or frames that mean nothing to us.

    Attributes
    ----------
    sample_rate : int
        In Hz.
    """

    sample_rate: int

    name: ClassVar[str] = "sound"

    @classmethod
    def from_dict(cls, encoding: Mapping[str, Any]) -> Sound:
        """Build from the JSON form; a mistake is a `WeightsError`."""
        unknown = sorted(str(key) for key in set(encoding) - {"name", "sample_rate"})
        if unknown:
            raise WeightsError(f"encoding: expected keys out of ['name', 'sample_rate'], got unknown {unknown}")
        return cls(whole(encoding, "sample_rate", 1, 384_000, 0))

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, with its ``name``: what a model file keeps."""
        return {"name": self.name, "sample_rate": self.sample_rate}
