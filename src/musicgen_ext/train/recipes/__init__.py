"""Configurations from a few numbers: what the ``[model]`` table of a training file may name as its ``recipe``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from musicgen_ext.architectures import CONFIGS, Config
from musicgen_ext.train.recipes.attention import attention
from musicgen_ext.train.recipes.gan import gan_conv, gan_mlp
from musicgen_ext.train.recipes.recurrent import chorale, folk, jsb16, language_model, voices
from musicgen_ext.train.recipes.vae_gan import vae_gan
from musicgen_ext.train.recipes.variational import melody_vae
from musicgen_ext.train.recipes.wavenet import wavenet

__all__ = [
    "RECIPES",
    "attention",
    "chorale",
    "folk",
    "gan_conv",
    "gan_mlp",
    "jsb16",
    "language_model",
    "melody_vae",
    "model_config",
    "vae_gan",
    "voices",
    "wavenet",
]

RECIPES: Mapping[str, Callable[..., Config]] = {
    "voices": voices,
    "jsb16": jsb16,
    "chorale": chorale,
    "folk": folk,
    "language_model": language_model,
    "gan_mlp": gan_mlp,
    "gan_conv": gan_conv,
    "melody_vae": melody_vae,
    "vae_gan": vae_gan,
    "wavenet": wavenet,
    "attention": attention,
}


def model_config(table: Mapping[str, Any], encoding: Mapping[str, Any] | None = None) -> Config:
    """The configuration that a ``[model]`` table describes, for data of this encoding.

    With ``recipe`` it is the recipe's name and its keywords (recipes that have an `encoding` are given that of the
    data); without, ``arch`` ("recurrent" if there is none) and the JSON form of its configuration itself.

    Raises
    ------
    ValueError
        There is no such recipe or arch, or a keyword is not one of its own.
    """
    arguments = dict(table)
    if "recipe" not in table:
        arch = arguments.pop("arch", "recurrent")
        if arch not in CONFIGS:
            raise ValueError(f"model.arch: expected one of {sorted(CONFIGS)}, got {arch!r}")
        return CONFIGS[arch].from_dict(arguments)
    name = arguments.pop("recipe")
    if name not in RECIPES:
        raise ValueError(f"model.recipe: expected one of {sorted(RECIPES)}, got {name!r}")
    recipe = RECIPES[name]
    if "encoding" in inspect.signature(recipe).parameters:
        arguments["encoding"] = encoding or {}
    try:
        return recipe(**arguments)
    except TypeError as e:
        raise ValueError(f"model: {e}") from e
