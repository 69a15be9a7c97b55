"""Who learns: one network by likelihood, or several that play against each other. One module a way to learn."""

from __future__ import annotations

from typing import Any

from musicgen_ext.train.learners.base import Learner, NotFinite
from musicgen_ext.train.learners.likelihood import MaximumLikelihood

__all__ = ["LEARNERS", "Learner", "MaximumLikelihood", "NotFinite"]

LEARNERS: dict[str, Any] = {}
"""By the configuration's `arch`: classes made of a task, options and a device. All others learn by likelihood."""
