"""Dilated convolutions over samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from musicgen_ext.architectures import WaveNetConfig
from musicgen_ext.encodings import NotesToSound


def wavenet(
    *,
    encoding: Mapping[str, Any],
    residual_channels: int,
    skip_channels: int = 128,
    hidden_channels: int = 128,
    layers: int = 20,
    longest_dilation: int = 512,
    kernel_size: int = 2,
    output: str = "mu_law",
    classes: int = 256,
    mixtures: int = 10,
    condition_width: int = 64,
    condition_kernel_size: int = 5,
) -> WaveNetConfig:
    """Dilated convolutions over the samples of sounds, told the notes where the data have them.

    Parameters
    ----------
    layers, longest_dilation : int
        Dilations double from 1 to the longest, and begin again, until there are so many layers.
    output : "mu_law" or "logistics"
        `classes` steps of a logarithmic scale, or 16 bits out of `mixtures` logistics.
    condition_width, condition_kernel_size : int
        Numbers that the notes become, and frames that they depend on.
    """
    if longest_dilation < 1 or longest_dilation & (longest_dilation - 1):
        raise ValueError(f"model.longest_dilation: expected a power of two, got {longest_dilation}")
    if "sample_rate" not in encoding:
        raise ValueError(f"model.recipe: 'wavenet' learns from sounds, got data encoded as {encoding.get('name')!r}")
    condition = None
    if encoding["name"] == NotesToSound.name:
        notes = NotesToSound.from_dict(encoding)
        condition = {
            "channels": notes.num_channels,
            "width": condition_width,
            "kernel_size": condition_kernel_size,
            "hop_length": notes.hop_length,
        }
    stack = longest_dilation.bit_length()
    return WaveNetConfig.from_dict(
        {
            "sample_rate": encoding["sample_rate"],
            "residual_channels": residual_channels,
            "skip_channels": skip_channels,
            "hidden_channels": hidden_channels,
            "dilations": [1 << (i % stack) for i in range(layers)],
            "kernel_size": kernel_size,
            "output": {"kind": "mu_law", "classes": classes}
            if output == "mu_law"
            else {"kind": output, "mixtures": mixtures},
            "condition": condition,
        }
    )
