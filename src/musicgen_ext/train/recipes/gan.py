"""Adversarial pairs of the usual shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from musicgen_ext.architectures import GanConfig
from musicgen_ext.encodings import RollBars

LEAKY = "leaky_relu"


def gan_mlp(
    *,
    encoding: Mapping[str, Any],
    latent: int = 100,
    hidden: Sequence[int] = (256, 512),
    draw: str = "bernoulli",
    norm: bool = False,
) -> GanConfig:
    """Dense layers: z to a picture by way of `hidden`, and the same way back.

    Parameters
    ----------
    latent : int
        Numbers in z.
    draw : "bernoulli" or "threshold"
    norm : bool
        Batch norm between the generator's layers.
    """
    shape = _shape_of(encoding, "gan_mlp")
    up = [_dense(units, norm=norm) for units in hidden]
    down = [_dense(units) for units in reversed(hidden)]
    return GanConfig.from_dict(
        {
            "generator": {
                "input": [latent],
                "layers": [
                    *up,
                    {"kind": "dense", "units": math.prod(shape), "activation": "sigmoid"},
                    {"kind": "reshape", "shape": list(shape)},
                ],
            },
            "discriminator": {"input": list(shape), "layers": [*down, {"kind": "dense", "units": 1}]},
            "draw": draw,
        }
    )


def gan_conv(
    *,
    encoding: Mapping[str, Any],
    latent: int = 100,
    channels: int = 64,
    draw: str = "bernoulli",
    norm: bool = True,
) -> GanConfig:
    """Convolutions: over time in two steps by 2 and what is left, over pitch in octaves and then in semitones.

    Parameters
    ----------
    latent : int
        Numbers in z.
    channels : int
        Of the layers between; twice as many where the picture is smallest.
    draw : "bernoulli" or "threshold"
    norm : bool
        Batch norm between the generator's layers.

    Raises
    ------
    ValueError
        Pictures whose steps are no multiple of 4 or whose pitches are none of 12.
    """
    made, steps, pitches = _shape_of(encoding, "gan_conv")
    if steps % 4 or pitches % 12:
        raise ValueError(
            "model.recipe: 'gan_conv' makes pictures of a multiple of 4 steps and of 12 pitches, got data of "
            f"{steps} and {pitches}"
        )
    wide = 2 * channels
    small = [wide, steps // 4, pitches // 12]

    def up(count: int, kernel: list[int], stride: list[int], padding: list[int]) -> dict[str, Any]:
        layer = {"kind": "conv_transpose2d", "channels": count, "kernel": kernel, "stride": stride, "padding": padding}
        return {**layer, "activation": "relu", "norm": "batch" if norm else "none"}

    def down(count: int, kernel: list[int], stride: list[int], padding: list[int]) -> dict[str, Any]:
        layer = {"kind": "conv2d", "channels": count, "kernel": kernel, "stride": stride, "padding": padding}
        return {**layer, "activation": LEAKY}

    return GanConfig.from_dict(
        {
            "generator": {
                "input": [latent],
                "layers": [
                    {**_dense(math.prod(small), norm=norm), "activation": "relu"},
                    {"kind": "reshape", "shape": small},
                    up(wide, [4, 1], [2, 1], [1, 0]),
                    up(channels, [4, 1], [2, 1], [1, 0]),
                    up(channels // 2, [1, 12], [1, 12], [0, 0]),
                    {"kind": "conv2d", "channels": made, "kernel": [3, 3], "padding": [1, 1], "activation": "sigmoid"},
                ],
            },
            "discriminator": {
                "input": [made, steps, pitches],
                "layers": [
                    down(channels // 2, [3, 3], [1, 1], [1, 1]),
                    down(channels, [1, 12], [1, 12], [0, 0]),
                    down(wide, [4, 1], [2, 1], [1, 0]),
                    down(wide, [4, 1], [2, 1], [1, 0]),
                    _dense(256),
                    {"kind": "dense", "units": 1},
                ],
            },
            "draw": draw,
        }
    )


def _dense(units: int, norm: bool = False) -> dict[str, Any]:
    return {"kind": "dense", "units": units, "activation": LEAKY, "norm": "batch" if norm else "none"}


def _shape_of(encoding: Mapping[str, Any], recipe: str) -> tuple[int, int, int]:
    if encoding.get("name") != RollBars.name:
        raise ValueError(f"model.recipe: {recipe!r} learns from bars, got data encoded as {encoding.get('name')!r}")
    return RollBars.from_dict(encoding).shape
