"""Training with torch: the only room of the house that needs it (``pip install "musicgen-ext[train]"``)."""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as e:
    if e.name != "torch":
        raise
    raise ImportError('training needs torch: pip install "musicgen-ext[train]"') from e

from musicgen_ext.train.export import export
from musicgen_ext.train.loop import DivergenceError, Likelihood, Options, Result, evaluate, fit
from musicgen_ext.train.models import Dropout, Recurrent
from musicgen_ext.train.run import run

__all__ = [
    "DivergenceError",
    "Dropout",
    "Likelihood",
    "Options",
    "Recurrent",
    "Result",
    "evaluate",
    "export",
    "fit",
    "run",
]
