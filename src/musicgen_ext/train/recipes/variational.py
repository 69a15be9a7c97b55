"""Configurations of variational autoencoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from musicgen_ext.architectures import VariationalConfig
from musicgen_ext.encodings import ATTRIBUTES, MelodyWindows


def melody_vae(
    *,
    encoding: Mapping[str, Any],
    latent_size: int = 32,
    encoder_size: int = 128,
    hidden_size: int = 256,
    num_layers: int = 1,
    cell: str = "lstm",
    dim: int = 32,
    latent_dim: int = 64,
    decoder: Literal["every step", "initial", "both", "repeat"] = "every step",
    clock: int = 0,
) -> VariationalConfig:
    """A variational autoencoder of windows of one voice (`musicgen_ext.encodings.MelodyWindows`).

    Parameters
    ----------
    encoder_size, hidden_size : int
        Units of each direction of the encoder, and of the decoder's layers.
    dim, latent_dim : int
        Widths of the embedding of tokens, and of what is made of z for the decoder's input.
    decoder : str
        How it is told z: fed at every step; as its initial state (latent-to-LSTM); both; or "repeat", which is fed z
        and nothing else, so that it does not hear what it has played.
    clock : int
        Period of a feature that counts frames, for the decoder; 0: none.
    """
    if encoding.get("name") != MelodyWindows.name:
        raise ValueError(
            f"model.recipe: 'melody_vae' learns from windows, got data encoded as {encoding.get('name')!r}"
        )
    ways = ("every step", "initial", "both", "repeat")
    if decoder not in ways:
        raise ValueError(f"model.decoder: expected one of {list(ways)}, got {decoder!r}")
    windows = MelodyWindows.from_dict(encoding)
    features: list[dict[str, Any]] = [{"name": "last", "kind": "token", "slot": 0, "lag": 1}]
    trunk = [] if decoder == "repeat" else [{"feature": "last", "dim": dim}]
    if clock:
        features.append({"name": "clock", "kind": "clock", "period": clock, "divide": 1})
        trunk.append({"feature": "clock", "dim": 8})
    vector = {
        "size": latent_size,
        "dim": 0 if decoder == "initial" else latent_dim,
        "initial": decoder in ("initial", "both"),
    }
    return VariationalConfig.from_dict(
        {
            "latent_size": latent_size,
            "window": windows.steps,
            "encoder": {"cell": cell, "hidden_size": encoder_size, "num_layers": 1, "dim": dim},
            "decoder": {
                "cell": cell,
                "hidden_size": hidden_size,
                "num_layers": num_layers,
                "features": features,
                "trunk": trunk,
                "vector": vector,
                "slots": windows.slots,
            },
            "attributes": list(ATTRIBUTES),
        }
    )
