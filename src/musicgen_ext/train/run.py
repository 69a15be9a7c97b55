"""A training run described by a TOML file: what ``musicgen-ext train CONFIG.toml`` does."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from musicgen_ext import files, weights
from musicgen_ext.architectures import Config
from musicgen_ext.train import data, frames, midi, rolls, sound, styles, told, tuples, voices, windows
from musicgen_ext.train.export import export
from musicgen_ext.train.folk import folk
from musicgen_ext.train.loop import Options, Result, fit
from musicgen_ext.train.models import Dropout
from musicgen_ext.train.recipes import model_config
from musicgen_ext.train.tasks import Likelihood, Task, task_of

DATASETS: Mapping[str, Callable[..., Any]] = {
    "jsb16": data.jsb16,
    "chorales": data.chorales,
    "midi": midi.midi,
    "folk": folk,
    "tokens": data.tokens,
    "roll_bars": rolls.roll_bars,
    "note_tuples": tuples.note_tuples,
    "sounds": sound.sounds,
    "styles": styles.styles,
    "told": told.told,
    "voices": voices.voices,
    "windows": windows.windows,
    "frames": frames.frames,
}


Measure = Callable[[Any, Path], Mapping[str, Any]]


def run(
    config: str | os.PathLike[str] | Mapping[str, Mapping[str, Any]],
    *,
    data_path: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    steps: int | None = None,
    device: str = "cpu",
    threads: int | None = None,
    resume: bool | str | os.PathLike[str] = True,
    start: str | os.PathLike[str] | None = None,
    tensorboard: bool = False,
    progress: bool | None = None,
    measure: Measure | None = None,
) -> tuple[Result, dict[str, Likelihood]]:
    """Train as a TOML file says, then measure the best weights once on the validation and test splits.

    The file has the tables ``[data]`` (``kind`` and that reader's keywords, ``path`` among them), ``[model]`` (a recipe
    of `musicgen_ext.train.recipes` with its keywords, or a whole configuration), ``[train]`` (`Options`; or ``steps``
    in place of ``epochs``: as many epochs as have so many, evaluated 40 times at most, if it is not said how often),
    ``[dropout]`` (`Dropout`), ``[objective]`` (what the loss is made of, for families with a choice), ``[card]`` (what
    the model file should say about itself) and ``[run]`` (``out``, ``notes``: the slots whose tokens are counted as
    notes). paths in it are relative to the working folder.

    Parameters
    ----------
    config : path or mapping
        The TOML file, or its tables.
    data_path, out, seed, steps : optional
        Override ``data.path``, ``run.out``, ``train.seed``, and ``train.epochs`` or ``train.steps``.
    device, threads, resume, tensorboard, progress
        See `fit`; `threads` is the number of torch's threads on the CPU.
    start : path, optional
        A model file with the weights to begin from (pre-training). If no weights of the run are better on the
        validation split, they are the result.
    measure : callable (data, path of the model file) -> mapping, optional
        What else is to be known of the finished model: numbers for the card and ``results.json``.

    Returns
    -------
    result : Result
    likelihoods : dict of str to Likelihood
        Of ``"valid"`` and, where the data has one, ``"test"``, and of both as `Corpus.variants` show them
        (``"test, soprano known"``); also in ``out/results.json`` and the model's card.

    Raises
    ------
    ValueError
        The file is not TOML, or a table or key is unknown or has a wrong value; the message names file and key.
    """
    file, tables = (None, dict(config)) if isinstance(config, Mapping) else (files.shown(config), _read(config))
    where = "" if file is None else f"{file}: "
    try:
        dropout = _options(Dropout, "dropout", tables.get("dropout", {}))
        corpus = _corpus({**tables.get("data", {}), **({} if data_path is None else {"path": os.fspath(data_path)})})
        model = model_config(tables.get("model", {}), corpus.encoding)
        objective = tables.get("objective", {})
        task = task_of(model, corpus, Dropout(), objective)
        training = {**tables.get("train", {}), **({} if seed is None else {"seed": seed})}
        if steps is not None:
            training = {key: value for key, value in training.items() if key != "epochs"} | {"steps": steps}
        options = _training(training, task)
        settings = _only(tables.get("run", {}), "run", {"out", "notes"})
    except ValueError as e:
        raise type(e)(f"{where}{e}") from e
    if out is None and "out" not in settings:
        raise ValueError(f"{where}run.out: expected a folder, here or as `out`, got none")
    folder = Path(settings["out"] if out is None else out)
    if threads is not None:
        torch.set_num_threads(threads)
    card = {
        "command": f"musicgen-ext train {'' if file is None else Path(file).name} --seed {options.seed}",
        **tables.get("card", {}),
        "hardware": f"{_processor()}, {torch.get_num_threads()} thread(s)" if device == "cpu" else device,
        "software": f"torch {torch.__version__}, Python {platform.python_version()}",
    }
    weights_before = None if start is None else _tensors(start, model)
    result = fit(
        model, corpus, folder, options=options, dropout=dropout, objective=objective,
        start=weights_before, card=card, device=device, resume=resume, tensorboard=tensorboard, progress=progress,
    )  # fmt: skip
    best = weights.read(result.path)
    task = task_of(type(model).from_dict(best.config), corpus, Dropout(), objective)  # as exported: norms are folded
    module = task.network()
    measured: dict[str, Likelihood] = {}
    if weights_before is not None:
        module.load_state_dict(weights_before)
        measured["valid, before"] = task.evaluate(module, corpus.valid)
    if weights_before is None or measured["valid, before"].nll > result.best:
        module.load_state_dict({k: torch.from_numpy(v) for k, v in best.tensors.items()})
    for split, pieces in (("valid", corpus.valid), ("test", corpus.test)):
        for variant, view in {"": None, **corpus.variants}.items():
            if pieces:
                seen = pieces if view is None else [view(p) for p in pieces]
                name = f"{split}, {variant}" if variant else split
                measured[name] = task.evaluate(module, seen, per=settings.get("notes"))
    numbers = {name: dataclasses.asdict(m) for name, m in measured.items()}
    metrics = {**best.card.get("metrics", {}), **numbers, "minutes_of_run": round(result.minutes, 1)}
    export(module, result.path, encoding=corpus.encoding, card={**best.card, "metrics": metrics})
    if measure is not None:
        more = dict(measure(corpus, result.path))
        numbers |= more
        export(module, result.path, encoding=corpus.encoding, card={**best.card, "metrics": {**metrics, **more}})
    summary = {"seed": options.seed, "parameters": model.num_parameters(), **dataclasses.asdict(result), **numbers}
    files.replace(folder / "results.json", [json.dumps(summary, indent=1, default=str).encode()])
    return result, measured


def read_corpus(path: str | os.PathLike[str], data_path: str | os.PathLike[str] | None = None) -> Any:
    """What a TOML file says in ``[data]`` to learn from; `data_path` overrides its ``path``."""
    try:
        return _corpus({**_read(path).get("data", {}), **({} if data_path is None else {"path": os.fspath(data_path)})})
    except ValueError as e:
        raise type(e)(f"{files.shown(path)}: {e}") from e


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    with open(path, "rb") as stream:
        try:
            tables = tomllib.load(stream)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
            raise ValueError(f"{files.shown(path)}: expected a TOML file: {e}") from e
    known = {"data", "model", "train", "dropout", "objective", "card", "run"}
    for key, value in tables.items():
        if key not in known or not isinstance(value, dict):
            raise ValueError(f"{files.shown(path)}: expected tables out of {sorted(known)}, got {key!r}")
    return tables


def _corpus(table: Mapping[str, Any]) -> Any:
    arguments = dict(table)
    kind = arguments.pop("kind", None)
    if kind not in DATASETS:
        raise ValueError(f"data.kind: expected one of {sorted(DATASETS)}, got {kind!r}")
    if "path" not in arguments:
        raise ValueError("data.path: expected a file, got none")
    try:
        return DATASETS[kind](arguments.pop("path"), **arguments)
    except TypeError as e:
        raise ValueError(f"data: {e}") from e


def _training(table: Mapping[str, Any], task: Task) -> Options:
    """The options of a run, whose length may be said in steps."""
    values = dict(table)
    if "steps" in values:
        steps = values.pop("steps")
        if type(steps) is not int or steps < 1:
            raise ValueError(f"train.steps: expected an integer > 0, got {steps!r}")
        if "epochs" in values:
            raise ValueError("train.steps: expected steps or epochs, got both")
        epochs = -(-steps // task.num_batches(_options(Options, "train", values).batch_size))
        values = {"evaluate_every": -(-epochs // 40), **values, "epochs": epochs}
    made: Options = _options(Options, "train", values)
    return made


def _options(kind: Any, table: str, values: Mapping[str, Any]) -> Any:
    return kind(**_only(values, table, {f.name for f in dataclasses.fields(kind)}))


def _only(values: Mapping[str, Any], table: str, known: set[str]) -> dict[str, Any]:
    for key in values:
        if key not in known:
            raise ValueError(f"{table}.{key}: expected keys out of {sorted(known)}")
    return dict(values)


def _tensors(path: str | os.PathLike[str], config: Config) -> dict[str, torch.Tensor]:
    file = weights.read(path)
    weights.check_tensors(file, config.tensor_shapes())
    return {k: torch.from_numpy(v) for k, v in weights.convert(file, "float32").tensors.items()}


def _processor() -> str:
    """The processor's name where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            names = [line.split(":", 1)[1].strip() for line in f if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
