"""The front door: load a model, make music with it, ask what it thinks of other music."""

from __future__ import annotations

import errno
import os
import platform
import sys
import threading
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Unpack, cast, overload

import numpy as np

from musicgen_ext import _core, files, weights
from musicgen_ext.audio import Audio
from musicgen_ext.errors import WeightsError
from musicgen_ext.midi import Score
from musicgen_ext.model.base import Model, Options, check_device
from musicgen_ext.model.c_rnn_gan import CRnnGanModel
from musicgen_ext.model.frames import FramesModel
from musicgen_ext.model.gan import GanModel
from musicgen_ext.model.score import ScoreModel
from musicgen_ext.model.sound import SoundModel
from musicgen_ext.model.tokens import TokenModel
from musicgen_ext.model.told import ToldModel
from musicgen_ext.model.vae_gan import StyleModel
from musicgen_ext.model.variational import VariationalModel

__all__ = [
    "CRnnGanModel",
    "FramesModel",
    "GanModel",
    "Model",
    "ScoreModel",
    "SoundModel",
    "StyleModel",
    "TokenModel",
    "ToldModel",
    "VariationalModel",
    "build_info",
    "load",
    "models",
    "sample",
]

AnyModel = TypeVar("AnyModel", bound=Model)

_BUNDLED = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bundled")
_SUFFIX = ".safetensors"
_CACHED_MODELS = 4
# By architecture and, where that alone does not say it, encoding.
_KINDS: dict[str | tuple[str, str], type[Model]] = {
    "c_rnn_gan": CRnnGanModel,
    "gan": GanModel,
    "recurrent": ScoreModel,
    "vae_gan": StyleModel,
    "variational": VariationalModel,
    "wavenet": SoundModel,
    "frames": FramesModel,
    **{
        (arch, name): TokenModel
        for arch in ("attention", "recurrent")
        for name in ("bars", "performance", "pitch_sequence")
    },
    ("attention", "told"): ToldModel,
}


# -- loading -----------------------------------------------------------------------------------------------------


def models() -> list[str]:
    """Names of the models that come with the package, for `load` and `sample`."""
    try:
        names = os.listdir(_BUNDLED)
    except FileNotFoundError:
        return []
    return sorted(n.removesuffix(_SUFFIX) for n in names if n.endswith(_SUFFIX) and not n.startswith("."))


_cache: dict[tuple[Any, ...], Model] = {}
_cache_lock = threading.Lock()


@overload
def load(model: Literal["chorale", "folk"] = "chorale", *, device: str = "cpu") -> ScoreModel: ...
@overload
def load(model: Literal["flute"], *, device: str = "cpu") -> SoundModel: ...
@overload
def load(model: AnyModel, *, device: str = "cpu") -> AnyModel: ...
@overload
def load(model: str | os.PathLike[str], *, device: str = "cpu") -> Model: ...
def load(model: str | os.PathLike[str] | Model = "chorale", *, device: str = "cpu") -> Model:
    """A model, ready to sample.

    Parameters
    ----------
    model : str, path or Model
        A bundled name (see `models`), a path to a ``.safetensors`` model file, or a model (given back as it is). A file
        that was loaded before and has not changed since is not read again.
    device : str
        "cpu".

    Raises
    ------
    WeightsError
        The file is not a model, or not one that this version can run.
    FileNotFoundError
        There is no such bundled model or file.
    DeviceError
        The device is not there.
    """
    check_device(device)
    if isinstance(model, Model):
        return model
    if not isinstance(model, str | os.PathLike):
        raise TypeError(f"model: expected a name, a path or a Model, got {type(model).__name__}")
    name = os.fspath(model)
    bundled = isinstance(model, str) and name in models()  # whatever lies in the current folder: ./chorale is a path
    path = os.path.join(_BUNDLED, name + _SUFFIX) if bundled else name
    try:
        stat = os.stat(path)
    except FileNotFoundError as error:
        there = ", ".join(models()) or "none"
        message = f"expected a model file or the name of a bundled model ({there})"
        raise FileNotFoundError(errno.ENOENT, message, name) from error
    key = (os.path.realpath(path), stat.st_ino, stat.st_mtime_ns, stat.st_size)
    with _cache_lock:
        found = _cache.get(key)
    if found is None:
        file = weights.read(path)
        kind = _KINDS.get((file.arch, str(file.encoding.get("name"))), _KINDS.get(file.arch))
        if kind is None:
            shown, known = files.shown(path), sorted({key if isinstance(key, str) else key[0] for key in _KINDS})
            raise WeightsError(f"{shown}: arch: expected one of {known}, got {file.arch!r}", path=file.path)
        found = kind(file, name=name if bundled else None)
        with _cache_lock:
            _cache[key] = found
            while len(_cache) > _CACHED_MODELS:
                del _cache[next(iter(_cache))]
    return found


@overload
def sample(
    model: Literal["chorale", "folk"] | ScoreModel | TokenModel = "chorale",
    *,
    num_samples: None = None,
    **options: Unpack[Options],
) -> Score: ...
@overload
def sample(
    model: Literal["chorale", "folk"] | ScoreModel | TokenModel = "chorale",
    *,
    num_samples: int,
    **options: Unpack[Options],
) -> list[Score]: ...
@overload
def sample(model: Literal["flute"] | SoundModel, *, num_samples: None = None, **options: Unpack[Options]) -> Audio: ...
@overload
def sample(model: Literal["flute"] | SoundModel, *, num_samples: int, **options: Unpack[Options]) -> list[Audio]: ...
@overload
def sample(
    model: str | os.PathLike[str] | Model, *, num_samples: None = None, **options: Unpack[Options]
) -> Score | Audio: ...
@overload
def sample(
    model: str | os.PathLike[str] | Model, *, num_samples: int, **options: Unpack[Options]
) -> list[Score] | list[Audio]: ...
def sample(
    model: str | os.PathLike[str] | Model = "chorale",
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
) -> Score | list[Score] | Audio | list[Audio]:
    """Make music.

    Parameters
    ----------
    model : str, path or Model
        See `load`.
    num_samples : int, optional
        None: one piece; n: a list of n pieces. Piece i of n is the same whatever n is.
    length : float or str, optional
        Of the whole result, the prompt included: seconds, or a number with a unit, "16 bars", "64 beats", "4 s",
        "256 steps"; of sound "16000 samples". None: the piece ends where the model ends it (a chorale after 6 to 40
        bars of 4/4), a tune is as long as one of those it learnt from, sound as the score that it plays.
    prompt : Score, PrettyMIDI or path; for a model of sound Audio, array or path; optional
        What the result begins with: music for the model's voices, four parts or a tune (on the grid, without silence
        before the first note), for a language model any music, or sound.
    condition : dict, optional
        What the model is told: ``load(model).info["conditions"]`` lists names and values.
    temperature : float >= 0
        Below 1 more predictable, above 1 less; 0 always takes the most likely token.
    top_k : int, optional
        Draw from the k most likely tokens only.
    top_p : float in (0, 1]
        Draw from the fewest tokens that have this much of the probability.
    seed : int in [0, 2^64), optional
        The same call with the same seed gives the same piece, on every CPU. None: a new one every time; it is in
        ``result.provenance["seed"]``.
    device : str
        "cpu".
    progress : bool
        Show a progress bar if standard error is a terminal.

    Returns
    -------
    Score, or list of Score
        For a model of sound, Audio or list of Audio; see `SoundModel.sample`.

    Raises
    ------
    ValueError, TypeError
        An argument is out of its range or of another type; the message names it and what is accepted.
    """
    loaded = load(model, device=device)
    made: Score | list[Score] | Audio | list[Audio] = loaded.sample(
        num_samples=cast("Any", num_samples),  # None or a number: the overloads tell them apart, here it is either
        length=length,
        prompt=prompt,
        condition=condition,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        progress=progress,
    )
    return made


def build_info() -> dict[str, Any]:
    """How this copy of the package was built and what it runs on.

    Keys: version, compiler, isa (the CPU path in use; the environment variable ``MUSICGEN_EXT_CPU`` chooses another),
    isas (all that this CPU has), cuda (whether the build has it), python, numpy, platform.
    """
    return {
        "version": _core.__version__,
        "compiler": _core.compiler,
        "isa": _core.isa_in_use(),
        "isas": list(_core.isas_available()),
        "cuda": False,
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "platform": platform.platform(),
    }
