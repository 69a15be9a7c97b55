"""Who learns: one network by likelihood, or several that play against each other. One module a way to learn."""

from __future__ import annotations

from typing import Any

from musicgen_ext.train.learners.adversarial import Adversarial, Objective
from musicgen_ext.train.learners.base import Learner, NotFinite
from musicgen_ext.train.learners.likelihood import MaximumLikelihood
from musicgen_ext.train.learners.vae_gan import StyleLearner, StyleObjective

__all__ = [
    "LEARNERS",
    "Adversarial",
    "Learner",
    "MaximumLikelihood",
    "NotFinite",
    "Objective",
    "StyleLearner",
    "StyleObjective",
]

LEARNERS: dict[str, Any] = {"c_rnn_gan": Adversarial, "gan": Adversarial, "vae_gan": StyleLearner}
"""By the configuration's `arch`: classes made of a task, options and a device. All others learn by likelihood."""
