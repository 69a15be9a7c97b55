"""From a torch module to the one model file that the native engine loads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from musicgen_ext import weights as model_files
from musicgen_ext.architectures import Config


def export(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    encoding: Mapping[str, Any],
    card: Mapping[str, Any] | None = None,
    weights: model_files.Storage = "float32",
) -> None:
    """Write `module` as a model file.

    Parameters
    ----------
    module : nn.Module
        One of `musicgen_ext.train.models`: it has a ``config``, whose tensors are its ``state_dict()``.
    path : path
        Written whole or not at all; what was there is replaced.
    encoding, card : mapping
        What its tokens mean, and where it comes from (data, licence, numbers); JSON values.
    weights : {"float32", "bfloat16", "int8"}
        How matrices are stored; biases stay float32 beside int8.

    Raises
    ------
    ValueError
        A parameter is not finite; the message names it.
    OSError
        The file could not be written.
    """
    config: Config = module.config  # type: ignore[assignment]
    tensors = {
        name: np.ascontiguousarray(value.detach().float().cpu().numpy()) for name, value in module.state_dict().items()
    }
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise ValueError(f"module: expected finite parameters, got {name!r} with nan or inf")
    file = model_files.ModelFile(
        path=None,
        arch=config.arch,
        config=config.to_dict(),
        encoding=dict(encoding),
        card={"parameters": config.num_parameters(), **(card or {})},
        tensors=tensors,
    )
    model_files.check_tensors(file, config.tensor_shapes())
    model_files.write(path, file if weights == "float32" else model_files.convert(file, weights))
