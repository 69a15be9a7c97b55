"""Training with torch: the only room of the house that needs it (``pip install "musicgen-ext[train]"``)."""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as e:
    if e.name != "torch":
        raise
    raise ImportError('training needs torch: pip install "musicgen-ext[train]"') from e

from musicgen_ext.train.export import export
from musicgen_ext.train.loop import DivergenceError, Options, Result, fit
from musicgen_ext.train.models import Dropout, Recurrent, WaveNet
from musicgen_ext.train.run import read_corpus, run
from musicgen_ext.train.sound import SoundCorpus, sounds
from musicgen_ext.train.styles import StyleCorpus, styles
from musicgen_ext.train.tasks import Likelihood, evaluate, evaluate_sound

__all__ = [
    "DivergenceError",
    "Dropout",
    "Likelihood",
    "Options",
    "Recurrent",
    "Result",
    "SoundCorpus",
    "StyleCorpus",
    "WaveNet",
    "evaluate",
    "evaluate_sound",
    "export",
    "fit",
    "read_corpus",
    "run",
    "sounds",
    "styles",
]
