"""What models of notes and models of sound have in common: a file, an engine, a name, and one set of arguments."""

from __future__ import annotations

import abc
import math
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypedDict, Unpack, overload

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core, files, generate, weights
from musicgen_ext.errors import DeviceError, WeightsError
from musicgen_ext.midi import Score, read_midi

MAX_SAMPLES = 1_000_000
_LENGTH = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*([a-z]+)\s*", re.IGNORECASE)


class Options(TypedDict, total=False):
    """The arguments of `sample` but for the model and the number of samples."""

    length: float | str | None
    prompt: Any
    condition: Mapping[str, Any] | None
    temperature: float
    top_k: int | None
    top_p: float
    seed: int | None
    device: str
    progress: bool


class Model(abc.ABC):
    """A model file, its engine and its encoding. Immutable: threads may share it; it can be pickled.

    Made by `load`; a `ScoreModel` or a `SoundModel`.
    """

    units: ClassVar[Mapping[str, tuple[str, ...]]]
    """Units of a length, and the words for each."""

    def __init__(self, file: weights.ModelFile, *, name: str | None = None) -> None:
        self._file = file
        self._name = name
        self._digest: str | None = None
        try:
            self._build()
        except WeightsError as error:
            shown = "model" if file.path is None else files.shown(file.path)
            text = str(error)
            raise WeightsError(
                text if text.startswith(shown) else f"{shown}: {text}", **{**vars(error), "path": file.path}
            ) from None

    @abc.abstractmethod
    def _build(self) -> None:
        """The engine and the encoding, out of the file."""

    @property
    def name(self) -> str:
        """The bundled name, or the file's."""
        if self._name is not None:
            return self._name
        return "model" if self._file.path is None else os.path.basename(os.fsdecode(self._file.path))

    @property
    @abc.abstractmethod
    def engine(self) -> Any:
        """What draws the tokens; for those who have tokens of their own."""

    @property
    @abc.abstractmethod
    def encoding(self) -> Any:
        """What the numbers mean."""

    @property
    def info(self) -> dict[str, Any]:
        """What is known about the model, ready for JSON.

        Keys: name, path, arch, encoding, config, parameters (their number), weights ("float32", "bfloat16" or "int8"),
        bytes, sha256, licence, training_data, metrics, conditions (name to accepted values), lengths (units that
        `length` takes), card (all that the file says about its making).
        """
        card = self._file.card
        return {
            "name": self.name,
            "path": self._file.path if self._file.path is None else os.fsdecode(self._file.path),
            "arch": self._file.arch,
            "encoding": self.encoding.to_dict(),
            "config": self.engine.config.to_dict(),
            "parameters": self._file.num_parameters,
            "weights": self._file.weights,
            "bytes": self._file.nbytes,
            "sha256": self._sha256(),
            "licence": card.get("licence"),
            "training_data": card.get("data"),
            "metrics": card.get("metrics"),
            "conditions": self._conditions(),
            "lengths": list(self._lengths()),
            "card": card,
        }

    def __repr__(self) -> str:
        count = self._file.num_parameters
        size = f"{count / 1e6:.2f} M" if count >= 100_000 else f"{count:,}"
        return f"<Model {self.name!r}: {self._file.arch}, {size} parameters, {self._file.weights}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (type(self), weights.serialize(self._file), self._name, self._file.path)

    def _sha256(self) -> str:
        """Of the tensors, by name: which weights made a piece."""
        if self._digest is None:
            import hashlib

            digest = hashlib.sha256()
            for name in sorted(self._file.tensors):
                digest.update(name.encode() + b"\0")
                digest.update(np.ascontiguousarray(self._file.tensors[name]).data)
            self._digest = digest.hexdigest()
        return self._digest

    def _lengths(self) -> Mapping[str, tuple[str, ...]]:
        """Those of `units` that this model knows."""
        return self.units

    @abc.abstractmethod
    def _conditions(self) -> dict[str, Any]:
        """What `condition` takes: name to accepted values."""

    def _checked_names(self, condition: Any) -> Mapping[str, Any]:
        """The condition, all of whose names are known."""
        if condition is None:
            return {}
        if not isinstance(condition, Mapping):
            raise TypeError(f"condition: expected a dict, got {type(condition).__name__}")
        accepted = list(self._conditions())
        unknown = [name for name in condition if name not in accepted]
        if unknown:
            raise ValueError(f"condition: expected names out of {accepted}, got {unknown[0]!r}")
        return condition

    def _record(
        self, seed: int, temperature: float, top_k: int | None, top_p: float, length: float | str | None
    ) -> dict[str, Any]:
        """What made a piece, for its provenance."""
        record: dict[str, Any] = {
            "software": f"musicgen_ext {_core.__version__}",
            "model": self.name,
            "model_sha256": self._sha256(),
            "seed": seed,
            "temperature": float(temperature),
            "top_p": float(top_p),
        }
        if top_k is not None:
            record["top_k"] = int(top_k)
        if length is not None:
            record["length"] = length if isinstance(length, str) else float(length)
        return record

    # -- making music ------------------------------------------------------------------------------------------------

    @overload
    @abc.abstractmethod
    def sample(self, *, num_samples: None = None, **options: Unpack[Options]) -> Any: ...
    @overload
    @abc.abstractmethod
    def sample(self, *, num_samples: int, **options: Unpack[Options]) -> list[Any]: ...
    @abc.abstractmethod
    def sample(
        self,
        *,
        num_samples: int | None = None,
        length: float | str | None = None,
        prompt: Any = None,
        condition: Mapping[str, Any] | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int | None = None,
        device: str = "cpu",
        progress: bool = False,
    ) -> Any:
        """Make music; arguments and result as for `musicgen_ext.sample`."""

    @abc.abstractmethod
    def stream(
        self,
        *,
        length: float | str | None = None,
        prompt: Any = None,
        condition: Mapping[str, Any] | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int | None = None,
        device: str = "cpu",
    ) -> Iterator[Any]:
        """What ``sample(…)`` makes, piece by piece, as soon as it is decided."""

    @abc.abstractmethod
    def log_prob(self, music: Any, *, condition: Mapping[str, Any] | None = None) -> npt.NDArray[np.float64]:
        """What the model thinks of music: natural logarithms of probabilities, each given all that came before."""


def _unpickle(kind: type[Model], data: bytes, name: str | None, path: str | None) -> Model:
    file = weights.parse(data)
    file.path = path
    return kind(file, name=name)


# -- arguments ---------------------------------------------------------------------------------------------------


def check_device(device: Any) -> None:
    if not isinstance(device, str):
        raise TypeError(f"device: expected a string, got {type(device).__name__}")
    if device.partition(":")[0] == "cuda":
        raise DeviceError(f"device: expected 'cpu', got {device!r}: this build has no CUDA", device=device)
    if device != "cpu":
        raise ValueError(f"device: expected 'cpu', got {device!r}")


def score_of(source: Any, what: str) -> Score:
    """A Score out of whatever holds one."""
    if isinstance(source, Score):
        return source
    if isinstance(source, str | bytes | os.PathLike):
        return read_midi(source)
    if hasattr(source, "instruments") and hasattr(source, "resolution"):
        return Score.from_pretty_midi(source)
    raise TypeError(f"{what}: expected a Score, a PrettyMIDI or a path, got {type(source).__name__}")


def length_of(length: Any, units: Mapping[str, tuple[str, ...]], example: str) -> tuple[float, str | None]:
    """The number and the unit of a `length` argument: (0.0, None) for None."""
    if length is None:
        return 0.0, None
    if isinstance(length, bool) or not isinstance(length, str | int | float | np.integer | np.floating):
        raise TypeError(f"length: expected seconds or a string with a unit, got {type(length).__name__}")
    unit = "s"
    if isinstance(length, str):
        match = _LENGTH.fullmatch(length)
        word = match[2].lower() if match else None
        known = [name for name, words in units.items() if word in words]
        if match is None or not known:
            raise ValueError(f'length: expected a number and one of {", ".join(units)} ("{example}"), got {length!r}')
        number, unit = float(match[1]), known[0]
    else:
        number = float(length)
    if not 0 < number < math.inf:
        raise ValueError(f"length: expected more than 0, got {length!r}")
    return number, unit


def seed_of(seed: Any) -> int:
    """The seed that was asked for, or a fresh one."""
    return int.from_bytes(os.urandom(8), "little") if seed is None else generate.check_seed(seed)
