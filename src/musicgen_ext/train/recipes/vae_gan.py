"""VAE-GANs with a style vector, out of a few numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from musicgen_ext.architectures import VaeGanConfig
from musicgen_ext.encodings import StyledBars


def vae_gan(
    *,
    encoding: Mapping[str, Any],
    latent: int = 64,
    channels: int = 96,
    hidden: int = 512,
    norm: bool = True,
    critic_channels: int = 48,
    critic_hidden: int = 128,
    steps: int = 4,
    pitches: int = 12,
) -> VaeGanConfig:
    """Convolutions over patches that do not overlap, and dense layers between these and z.

    Parameters
    ----------
    latent : int
        Numbers in z.
    channels, critic_channels : int
        What a patch becomes.
    norm : bool
        Batch norm between the layers of encoder and generator.
    hidden, critic_hidden : int
        Units of the dense layers: two in encoder and generator, one in the discriminator.
    steps, pitches : int
        Of a patch: a quarter and an octave. They divide those of the data.

    Raises
    ------
    ValueError
        Data of another kind, or that patches do not divide.
    """
    if encoding.get("name") != StyledBars.name:
        raise ValueError(f"model.recipe: 'vae_gan' learns styles, got data encoded as {encoding.get('name')!r}")
    data = StyledBars.from_dict(encoding)
    planes, all_steps, all_pitches = data.shape
    if all_steps % steps or all_pitches % pitches:
        raise ValueError(
            f"model.steps, model.pitches: expected divisors of {all_steps} and {all_pitches}, got {steps} and {pitches}"
        )
    rows, columns = all_steps // steps, all_pitches // pitches
    patch = {"kernel": [steps, pitches], "stride": [steps, pitches]}

    between = {"norm": "batch" if norm else "none"}

    def dense(units: int, activation: str = "none") -> dict[str, Any]:
        return {"kind": "dense", "units": units, "activation": activation}

    def seen(width: int) -> dict[str, Any]:
        return {"kind": "conv2d", "channels": width, **patch, "activation": "leaky_relu"}

    return VaeGanConfig.from_dict(
        {
            "labels": len(data.groups[0].labels),
            "encoder": {
                "input": list(data.shape),
                "layers": [
                    seen(channels),
                    {**dense(hidden, "leaky_relu"), **between},
                    {**dense(hidden, "leaky_relu"), **between},
                    dense(2 * latent),
                ],
            },
            "generator": {
                "input": [latent + data.style_size],
                "layers": [
                    {**dense(hidden, "relu"), **between},
                    {**dense(hidden, "relu"), **between},
                    dense(channels * rows * columns, "relu"),
                    {"kind": "reshape", "shape": [channels, rows, columns]},
                    {"kind": "conv_transpose2d", "channels": planes, **patch},
                ],
            },
            "discriminator": {
                "input": list(data.shape),
                "layers": [
                    seen(critic_channels),
                    dense(critic_hidden, "leaky_relu"),
                    dense(1 + data.style_size),
                ],
            },
        }
    )
