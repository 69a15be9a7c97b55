"""Training files that need not be written: a model of tokens from a folder, and a model made one's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from musicgen_ext import encodings, files, weights
from musicgen_ext.errors import WeightsError

HIDDEN_SIZE = 256
CELLS = {"lstm": "lstm", "gru": "gru", "rnn": "rnn_tanh"}
MODELS = ("attention", *CELLS)
_RATES = {"attention": 1.5e-3, "lstm": 4e-3, "gru": 3e-3, "rnn": 1e-3}
_CROP = 384
_DROPOUT = {"attention": {"input": 0.1, "layer": 0.2}, "recurrent": {"input": 0.2, "layer": 0.3, "weight": 0.2}}


def from_scratch(
    model: str,
    data: str | os.PathLike[str],
    *,
    encoding: str = "bars",
    options: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """The tables of a training file for a language model on a folder of MIDI files.

    Parameters
    ----------
    model : "attention", "lstm", "gru" or "rnn"
    data : path
        See `musicgen_ext.train.midi.midi`.
    encoding, options
        "bars", "performance" or "pitches", and what differs from its own options.

    Raises
    ------
    ValueError
        There is no such model or encoding.
    """
    if model not in MODELS:
        raise ValueError(f"model: expected one of {', '.join(sorted(MODELS))}, got {model!r}")
    written = encodings.named(encoding, options).to_dict()
    return {
        "data": {"kind": "midi", "path": os.fspath(data), "encoding": written, "crop": _CROP},
        "model": _attention() if model == "attention" else _recurrent(CELLS[model]),
        "train": {
            "steps": 2000, "batch_size": 16, "learning_rate": _RATES[model], "weight_decay": 0.02, "patience": 8,
            "mixed_precision": True,
        },
        "dropout": {"input": 0.1, "layer": 0.2} if model == "attention" else {"layer": 0.35, "weight": 0.2},
        "card": {"data": _folder(data), "command": f"musicgen-ext train --model {model} --encoding {encoding}"},
    }  # fmt: skip


def _recurrent(cell: str) -> dict[str, Any]:
    return {"recipe": "language_model", "cell": cell, "hidden_size": HIDDEN_SIZE, "num_layers": 2, "tied": True}


def _attention() -> dict[str, Any]:
    return {"recipe": "attention", "width": 192, "num_layers": 4, "num_heads": 4, "context": _CROP}


def from_model(start: str | os.PathLike[str], data: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """The tables of a training file that goes on with a model on a folder of MIDI files of one's own.

    Parameters
    ----------
    start : path
        A model file: of voices on a grid (`VoiceGrid`), or of tokens (`Bars`, `Performance`, `PitchSequence`).
    data : path
        See `musicgen_ext.train.midi.midi`.

    Raises
    ------
    ValueError
        A model of another kind.
    """
    file = weights.read(start)
    name = str(file.encoding.get("name"))
    kind = {"voice_grid": "voices", "bars": "midi", "performance": "midi", "pitch_sequence": "midi"}.get(name)
    if kind is None:
        raise WeightsError(f"{files.shown(start)}: expected a model of notes to go on with, got one of {name!r}")
    source = {"kind": kind, "path": os.fspath(data), "encoding": dict(file.encoding), "test_share": 0.0}
    card: dict[str, Any] = {key: file.card[key] for key in ("description", "licence") if key in file.card}
    card["command"] = f"musicgen-ext train --from {files.shown(os.path.basename(start))}"
    card["data"] = "; then ".join(filter(None, [file.card.get("data"), _folder(data)]))
    return {
        "data": source,
        "model": {"arch": file.arch, **file.config},
        "train": {
            "steps": 300, "batch_size": 8, "learning_rate": 5e-4, "warmup_steps": 20, "weight_decay": 0.05,
            "patience": 6, "ema": 0.98,
        },
        "dropout": _DROPOUT.get(file.arch, {}),
        "card": card,
    }  # fmt: skip


def _folder(data: str | os.PathLike[str]) -> str:
    return f"the MIDI files of {files.shown(os.path.basename(os.path.abspath(data)))!r}"
