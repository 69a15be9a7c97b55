"""What a run trains: a network, what it learns from, and how its likelihood is measured. One module a family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from musicgen_ext.architectures import CONFIGS
from musicgen_ext.train.models import Dropout
from musicgen_ext.train.tasks.attention import AttentionTask, evaluate_attention
from musicgen_ext.train.tasks.base import Distance, Likelihood, Part, Task
from musicgen_ext.train.tasks.c_rnn_gan import CRnnGanTask
from musicgen_ext.train.tasks.frames import FramesTask
from musicgen_ext.train.tasks.gan import GanTask
from musicgen_ext.train.tasks.recurrent import RecurrentTask, evaluate
from musicgen_ext.train.tasks.vae_gan import VaeGanTask
from musicgen_ext.train.tasks.variational import VariationalTask
from musicgen_ext.train.tasks.wavenet import WaveNetTask, evaluate_sound

__all__ = [
    "TASKS",
    "Distance",
    "Likelihood",
    "Part",
    "Task",
    "evaluate",
    "evaluate_attention",
    "evaluate_sound",
    "task_of",
]

TASKS: dict[str, Any] = {
    "attention": AttentionTask,
    "frames": FramesTask,
    "c_rnn_gan": CRnnGanTask,
    "gan": GanTask,
    "recurrent": RecurrentTask,
    "wavenet": WaveNetTask,
    "vae_gan": VaeGanTask,
    "variational": VariationalTask,
}
"""By the configuration's `arch`: classes that are made of a configuration, data of their `data_kind`, dropout and the
settings of their objective."""


def task_of(config: Any, data: Any, dropout: Dropout, objective: Mapping[str, Any] | None = None) -> Task:
    """What it takes to train a network of this configuration on these data.

    Parameters
    ----------
    config : a configuration of `musicgen_ext.architectures`, or its JSON form with ``arch``
        Without ``arch`` it is what these data are commonly learnt by.
    data : Corpus, SoundCorpus …
    dropout : Dropout
    objective : mapping, optional
        What the loss is made of; each family has names of its own.

    Raises
    ------
    ValueError
        A network for tokens and sounds to learn from, or the other way about; or settings that it does not have.
    """
    if isinstance(config, Mapping):
        common = next((arch for arch, task in TASKS.items() if isinstance(data, task.data_kind)), None)
        values = dict(config)
        arch = values.pop("arch", common)
        if arch not in TASKS:
            raise ValueError(f"model.arch: expected one of {sorted(TASKS)}, got {arch!r}")
        config = CONFIGS[arch].from_dict(values)
    task = TASKS[config.arch]
    if not isinstance(data, task.data_kind):
        expected, got = task.data_kind.__name__, type(data).__name__
        raise ValueError(f"data: expected a {expected} for arch {config.arch!r}, got a {got}")
    made: Task = task(config, data, dropout, objective)
    return made
