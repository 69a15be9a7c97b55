"""Training with torch: the only room of the house that needs it (``pip install "musicgen-ext[train]"``)."""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as e:
    if e.name != "torch":
        raise
    raise ImportError('training needs torch: pip install "musicgen-ext[train]"') from e

from musicgen_ext.train.augmentation import Augmentation
from musicgen_ext.train.datasets import Item, Scores, collection, midi_folder
from musicgen_ext.train.export import export
from musicgen_ext.train.loop import DivergenceError, Options, Result, fit
from musicgen_ext.train.models import Dropout, Recurrent, WaveNet
from musicgen_ext.train.run import read_corpus, run
from musicgen_ext.train.sound import SoundCorpus, sounds
from musicgen_ext.train.styles import StyleCorpus, styles
from musicgen_ext.train.tasks import Likelihood, evaluate, evaluate_sound

__all__ = [
    "Augmentation",
    "DivergenceError",
    "Dropout",
    "Item",
    "Likelihood",
    "Options",
    "Recurrent",
    "Result",
    "Scores",
    "SoundCorpus",
    "StyleCorpus",
    "WaveNet",
    "collection",
    "evaluate",
    "evaluate_sound",
    "export",
    "fit",
    "midi_folder",
    "read_corpus",
    "run",
    "sounds",
    "styles",
]
