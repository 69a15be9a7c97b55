"""The training loop: the same code on CPU and GPU, and a killed run goes on to the same next step.

Chance is never a state that has to be saved: the order of an epoch follows from (seed, epoch), transpositions and
dropout masks from (seed, step). A checkpoint is therefore weights, optimiser, averages and a few numbers.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from musicgen_ext import files
from musicgen_ext.architectures import Config
from musicgen_ext.errors import CheckpointError, DeviceError, MusicgenExtError
from musicgen_ext.train import checkpoint
from musicgen_ext.train.export import export
from musicgen_ext.train.learners import LEARNERS, Learner, MaximumLikelihood, NotFinite
from musicgen_ext.train.models import Dropout
from musicgen_ext.train.tasks import Task, task_of

_ORDER, _DRAW, _TORCH = 1, 2, 3  # streams of chance under one seed


class DivergenceError(MusicgenExtError, ArithmeticError):
    """The loss or a gradient stopped being finite. Attributes: `step`, `path` (the last good checkpoint, or None)."""


@dataclass(frozen=True)
class Options:
    """How to train.

    ``epochs`` sets the length of the learning-rate schedule: ``cosine`` falls to 0 after ``warmup_steps`` of linear
    growth, ``one_cycle`` grows for 30 % of the time first, ``constant`` stays. ``ema`` is the decay of the average of
    the weights that is evaluated and exported (0: none). ``patience``: stop after that many evaluations on the
    validation split without a new best (0: never). ``mixed_precision``: products in bfloat16, on a GPU only ("gpu"),
    everywhere or nowhere.
    """

    epochs: int = 60
    batch_size: int = 8
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    momentum: float = 0.9
    beta2: float = 0.98
    schedule: Literal["cosine", "one_cycle", "constant"] = "cosine"
    warmup_steps: int = 100
    clip: float = 1.0
    ema: float = 0.995
    label_smoothing: float = 0.0
    patience: int = 0
    evaluate_every: int = 1
    checkpoint_every: int = 0
    seed: int = 0
    mixed_precision: bool | Literal["gpu"] = "gpu"

    def __post_init__(self) -> None:
        def check(name: str, ok: bool, expected: str) -> None:
            if not ok:
                raise ValueError(f"train.{name}: expected {expected}, got {getattr(self, name)!r}")

        for name in ("epochs", "batch_size", "evaluate_every"):
            check(name, isinstance(getattr(self, name), int) and getattr(self, name) > 0, "an integer > 0")
        for name in ("warmup_steps", "patience", "checkpoint_every", "seed"):
            check(name, isinstance(getattr(self, name), int) and getattr(self, name) >= 0, "an integer >= 0")
        check("mixed_precision", self.mixed_precision in (True, False, "gpu"), "true, false or 'gpu'")
        check("optimizer", self.optimizer in ("adam", "adamw", "sgd"), "'adam', 'adamw' or 'sgd'")
        check("schedule", self.schedule in ("cosine", "one_cycle", "constant"), "'cosine', 'one_cycle' or 'constant'")
        check("learning_rate", 0 < self.learning_rate < math.inf, "a number > 0")
        check("clip", self.clip > 0, "a number > 0")
        check("weight_decay", 0 <= self.weight_decay < math.inf, "a number >= 0")
        for name in ("momentum", "beta2", "ema", "label_smoothing"):
            check(name, 0 <= getattr(self, name) < 1, "a number in [0, 1)")

    def learning_rate_at(self, step: int, total: int) -> float:
        """The learning rate of step `step` (from 0) of `total`."""
        if self.schedule == "constant":
            return self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup_steps))
        if self.schedule == "one_cycle":
            up = max(1, round(0.3 * total))
            if step < up:
                return self.learning_rate * (0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * step / up)))
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - up) / max(1, total - up)))
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, total))))


@dataclass(frozen=True)
class Result:
    """What a run came to. ``path`` is the model file with the weights of the best validation NLL."""

    path: Path
    best: float
    best_step: int
    steps: int
    minutes: float
    stopped_early: bool


def fit(
    model_config: Config | Mapping[str, Any],
    data: Any,
    out: str | os.PathLike[str],
    *,
    options: Options | None = None,
    dropout: Dropout | None = None,
    objective: Mapping[str, Any] | None = None,
    start: Mapping[str, Tensor] | None = None,
    card: Mapping[str, Any] | None = None,
    device: str = "cpu",
    resume: bool | str | os.PathLike[str] = True,
    tensorboard: bool = False,
    progress: bool | None = None,
) -> Result:
    """Train a network and keep its best state as ``out/model.safetensors``.

    Parameters
    ----------
    model_config : a configuration of `musicgen_ext.architectures`, or its JSON form with ``arch``
    data : Corpus or SoundCorpus
        What a network of this kind learns from: tokens, or sound.
    out : path
        A folder, made if need be: ``model.safetensors`` (the best so far on `data.valid`), ``checkpoint-*.pt`` (the
        last two), ``metrics.jsonl`` (a line an evaluation).
    objective : mapping, optional
        What the loss is made of, where a family has a choice.
    start : mapping of str to Tensor, optional
        Weights to begin from (pre-training), named as in the module's ``state_dict()``.
    card : mapping, optional
        Goes into the model file, with the numbers of the run added.
    resume : bool or path
        True: go on from the newest checkpoint in `out`, if there is one. A path: from that one. False: begin anew.
    progress : bool, optional
        A progress bar on standard error; default: when that is a terminal.

    Raises
    ------
    DeviceError
        torch has no such device.
    CheckpointError
        The checkpoint to resume from is damaged (an older one is named, if there is one) or belongs to a run with
        other settings.
    DivergenceError
        The loss or a gradient is not finite; nothing of that step was kept.
    KeyboardInterrupt
        After a checkpoint was written for the step that was under way.
    """
    task = task_of(model_config, data, dropout or Dropout(), objective)
    where = _device(device)
    with torch.random.fork_rng(devices=[] if where.type == "cpu" else [where]):
        run = _Run(task, Path(out), options or Options(), card or {}, where)
        run.begin(start, resume)
        return run.go(tensorboard, sys.stderr.isatty() if progress is None else progress)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise ValueError(f"device: expected 'cpu' or 'cuda', got {name!r}") from e
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"device: torch {torch.__version__} finds no CUDA device for {name!r}", device=name)
    return device


class _Run:
    def __init__(self, task: Task, out: Path, options: Options, card: Mapping[str, Any], device: torch.device) -> None:
        if not task.data.train or not task.data.valid:
            got = f"{len(task.data.train)} and {len(task.data.valid)}"
            raise ValueError(f"data: expected pieces in train and valid, got {got}")
        self.task, self.out, self.options, self.card, self.device = task, out, options, card, device
        settings = {"model": task.config.to_dict(), "train": asdict(options), "dropout": asdict(task.dropout)}
        if task.objective:
            settings["objective"] = dict(task.objective)
        self.settings = json.dumps(settings, sort_keys=True)
        torch.manual_seed(_torch_seed(options.seed, 0))
        self.learner: Learner = LEARNERS.get(task.config.arch, MaximumLikelihood)(task, options, device)
        self.per_epoch = task.num_batches(options.batch_size)
        self.total = self.per_epoch * options.epochs
        self.step = 0
        self.best, self.best_step, self.since_best = math.inf, 0, 0
        self.seconds = 0.0
        self.finished = False
        self.training_nats, self.training_tokens = 0.0, 0

    # -- state -----------------------------------------------------------------------------------------------------

    def begin(self, start: Mapping[str, Tensor] | None, resume: bool | str | os.PathLike[str]) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        checkpoint.clean(self.out)
        newest = checkpoint.found(self.out)
        path: Path | None = None if isinstance(resume, bool) else Path(resume)
        if resume is True and newest:
            path = newest[0]
        if path is not None:
            self._restore(path)
        else:
            for old in newest:
                old.unlink()
            (self.out / "metrics.jsonl").unlink(missing_ok=True)
            if start is not None:
                self.learner.begin_with(start)

    def save(self) -> Path:
        state = {
            "settings": self.settings,
            "step": self.step,
            **self.learner.state(),
            "best": [self.best, self.best_step, self.since_best],
            "training": [self.training_nats, self.training_tokens],
            "seconds": self.seconds,
            "finished": self.finished,
        }
        return checkpoint.save(self.out, self.step, state)

    def _restore(self, path: Path) -> None:
        state = checkpoint.load(path)
        if state["settings"] != self.settings:
            key = _first_difference(json.loads(state["settings"]), json.loads(self.settings))
            raise CheckpointError(
                f"{files.shown(path)}: expected a checkpoint of a run with the same settings, got other {key}; "
                "choose another folder or resume=False",
                path=str(path),
            )
        self.learner.restore(state)
        self.step, self.seconds, self.finished = state["step"], state["seconds"], state["finished"]
        self.best, self.best_step, self.since_best = state["best"]
        self.training_nats, self.training_tokens = state["training"]
        _keep_lines_until(self.out / "metrics.jsonl", self.step)

    # -- the loop --------------------------------------------------------------------------------------------------

    def go(self, tensorboard: bool, progress: bool) -> Result:
        began = time.monotonic() - self.seconds
        stopped_early = bool(self.options.patience) and self.since_best >= self.options.patience
        bar = _Bar(self.total) if progress else None
        with _interrupts() as interrupted, _board(self.out if tensorboard else None) as board:
            while not self.finished:
                for chunk in self._rest_of_epoch():
                    loss = self._advance(chunk)
                    self.seconds = time.monotonic() - began
                    if bar:
                        bar.show(self.step, f"train {loss:.4f} best {self.best:.4f}")
                    epoch_ends = self.step % self.per_epoch == 0
                    if epoch_ends and (
                        self.step // self.per_epoch % self.options.evaluate_every == 0 or self.step == self.total
                    ):
                        stopped_early = self._evaluate(board)
                        self.finished = stopped_early or self.step >= self.total
                        self.save()
                    elif self.options.checkpoint_every and self.step % self.options.checkpoint_every == 0:
                        self.save()
                    if interrupted:
                        path = self.save()
                        raise KeyboardInterrupt(
                            f"stopped after step {self.step}; {files.shown(path)} goes on from here"
                        )
                    if self.finished:
                        break
        if bar:
            bar.close()
        minutes = self.seconds / 60
        return Result(self.out / "model.safetensors", self.best, self.best_step, self.step, minutes, stopped_early)

    def _rest_of_epoch(self) -> Iterator[list[Any]]:
        epoch, done = divmod(self.step, self.per_epoch)
        rng = np.random.default_rng([self.options.seed, _ORDER, epoch])
        yield from self.task.epoch(self.options.batch_size, rng)[done:]

    def _advance(self, chunk: list[Any]) -> float:
        rng = np.random.default_rng([self.options.seed, _DRAW, self.step])
        torch.manual_seed(_torch_seed(self.options.seed, self.step))
        try:
            value, tokens = self.learner.learn(chunk, rng, self.step, self.total)
        except NotFinite as e:
            raise self._diverged(str(e)) from None
        self.step += 1
        self.training_nats += value * tokens
        self.training_tokens += tokens
        return value

    def _diverged(self, what: str) -> DivergenceError:
        kept = checkpoint.found(self.out)
        last = f"the last good checkpoint is {files.shown(kept[0])}" if kept else "no checkpoint was written yet"
        return DivergenceError(f"step {self.step}: {what}; {last}", step=self.step, path=str(kept[0]) if kept else None)

    def _evaluate(self, board: Any) -> bool:
        """Measure, log, keep the best; True when it is time to stop early."""
        got = self.task.evaluate(self.learner.average, self.task.data.valid)
        line = {
            "step": self.step,
            "epoch": self.step // self.per_epoch,
            "train": self.training_nats / max(1, self.training_tokens),
            "valid": got.nll,
            "slots": got.slots,
            **got.measures,
            "learning_rate": self.options.learning_rate_at(self.step, self.total),
            "minutes": self.seconds / 60,
        }
        self.training_nats, self.training_tokens = 0.0, 0
        with (self.out / "metrics.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        if board is not None:
            for name in ("train", "valid", "learning_rate"):
                board.add_scalar(name, line[name], self.step)
        if not math.isfinite(got.nll):
            raise self._diverged(f"the validation NLL is {got.nll}")
        if got.nll < self.best:
            self.best, self.best_step, self.since_best = got.nll, self.step, 0
            numbers = {f"valid_{got.name}": got.nll, "steps": self.step, "minutes": round(self.seconds / 60, 1)}
            card = {**self.card, "metrics": {**self.card.get("metrics", {}), **numbers}, "seed": self.options.seed}
            export(self.learner.average, self.out / "model.safetensors", encoding=self.task.data.encoding, card=card)
            return False
        self.since_best += 1
        return bool(self.options.patience) and self.since_best >= self.options.patience


def _torch_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, _TORCH, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _first_difference(old: Any, new: Any, where: str = "") -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(set(old) | set(new)):
            if old.get(key) != new.get(key):
                return _first_difference(old.get(key), new.get(key), f"{where}.{key}" if where else key)
    if isinstance(old, list) or isinstance(new, list):
        return where
    return f"{where}: {old!r}, now {new!r}"


def _keep_lines_until(path: Path, step: int) -> None:
    """Drop the log's lines that a killed run wrote after its last checkpoint: they will be written again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):  # a half-written line
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    files.replace(path, ["".join(kept).encode()])


class _Flag:
    def __init__(self) -> None:
        self.up = False

    def __bool__(self) -> bool:
        return self.up


@contextlib.contextmanager
def _interrupts() -> Iterator[_Flag]:
    """Ctrl-C raises the flag, so that a step is never torn; a second one interrupts at once."""
    flag = _Flag()
    if threading.current_thread() is not threading.main_thread():
        yield flag  # only the main thread may set handlers
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        if flag.up:
            raise KeyboardInterrupt
        flag.up = True

    signal.signal(signal.SIGINT, note)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _board(folder: Path | None) -> Iterator[Any]:
    if folder is None:
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as e:
        raise ImportError("tensorboard=True needs TensorBoard: pip install tensorboard") from e
    with contextlib.closing(SummaryWriter(str(folder / "tensorboard"))) as writer:
        yield writer


class _Bar:
    def __init__(self, total: int) -> None:
        self.total, self.began, self.first, self.last = total, time.monotonic(), -1, 0.0

    def show(self, step: int, note: str) -> None:
        now = time.monotonic()
        if self.first < 0:
            self.first = step
        if now - self.last < 0.2 and step < self.total:
            return
        self.last = now
        left = (now - self.began) / max(1, step - self.first) * (self.total - step)
        done = round(30 * step / max(1, self.total))
        sys.stderr.write(f"\r{'━' * done}{' ' * (30 - done)} {step}/{self.total} {note} {left / 60:.1f} min left ")
        sys.stderr.flush()

    def close(self) -> None:
        sys.stderr.write("\n")
