"""Models that write bars at once: the generators of adversarial pairs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack, overload

import numpy as np
import numpy.typing as npt

from musicgen_ext import encodings, generate
from musicgen_ext.encodings import Note, RollBars
from musicgen_ext.errors import WeightsError
from musicgen_ext.midi import Score
from musicgen_ext.model.base import MAX_SAMPLES, Model, Options, check_device, length_of, seed_of
from musicgen_ext.progress import Progress

_DEFAULT_BARS = 8
_MOST_BARS = 1 << 16
_CHUNK = 64  # samples in one call of the engine
_TEMPO = 120.0
_VELOCITY = 80


@dataclass(frozen=True)
class _Plan:
    """What one call asks for, worked out before anything is drawn."""

    seed: int
    steps: int  # of the result
    bars: int  # that hold them
    options: dict[str, Any]
    record: dict[str, Any]


class GanModel(Model):
    """The generator of an adversarial pair: every bar is one point z of a latent space, drawn or given.

    Bars are independent of each other; a note that sounds over a bar line is one note.
    """

    units: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "bars": ("bars", "bar"),
        "beats": ("beats", "beat"),
        "s": ("s", "sec", "second", "seconds"),
        "steps": ("steps", "step"),
    }

    def _build(self) -> None:
        self._engine = generate.GanEngine(self._file)
        encoding = encodings.load(self._file.encoding)
        if not isinstance(encoding, RollBars):
            raise WeightsError(f"encoding.name: expected 'roll_bars' for this model, got {encoding.name!r}")
        if encoding.shape != self._engine.shape:
            raise WeightsError(
                f"encoding: expected pictures of shape {list(self._engine.shape)} as the generator makes, got "
                f"{list(encoding.shape)}"
            )
        self._encoding = encoding

    @property
    def engine(self) -> generate.GanEngine:
        """What draws the pictures."""
        return self._engine

    @property
    def encoding(self) -> RollBars:
        """What the pictures mean."""
        return self._encoding

    @property
    def latent_size(self) -> int:
        """Numbers in z."""
        return self._engine.latent_size

    # -- making music ------------------------------------------------------------------------------------------------

    @overload
    def sample(self, *, num_samples: None = None, **options: Unpack[Options]) -> Score: ...
    @overload
    def sample(self, *, num_samples: int, **options: Unpack[Options]) -> list[Score]: ...
    def sample(
        self,
        *,
        num_samples: int | None = None,
        length: float | str | None = None,
        prompt: Any = None,
        condition: Mapping[str, Any] | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int | None = None,
        device: str = "cpu",
        progress: bool = False,
    ) -> Score | list[Score]:
        """Make music; arguments and result as for `musicgen_ext.sample`.

        Without a length it is 8 bars, or as many as ``condition["z"]`` (D,) or (bars, D) says.
        """
        check_device(device)
        count = 1 if num_samples is None else generate.check_integer("num_samples", num_samples, 1, MAX_SAMPLES)
        plan = self._plan(length, prompt, condition, temperature, top_k, top_p, seed)
        chunk = max(1, min(_CHUNK, 4096 // plan.bars))
        pieces: list[Score] = []
        with Progress(count, "sampling", enabled=progress) as bar:
            for first in range(0, count, chunk):
                several = min(chunk, count - first)
                drawn = self._engine.sample(plan.bars, seed=plan.seed, index=first, num_samples=several, **plan.options)
                for i, pictures in enumerate(drawn.pictures):
                    _cut(pictures, plan.steps)
                    record = {**plan.record, "index": first + i}
                    pieces.append(self._encoding.decode(pictures, tempo=_TEMPO, velocity=_VELOCITY, provenance=record))
                bar.update(len(pieces))
        return pieces[0] if num_samples is None else pieces

    def stream(
        self,
        *,
        length: float | str | None = None,
        prompt: Any = None,
        condition: Mapping[str, Any] | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int | None = None,
        device: str = "cpu",
    ) -> Iterator[Note]:
        """The notes of ``sample(…)``, a bar at a time, each as soon as its end is known.

        Yields
        ------
        note : Note
            (start, duration, pitch, velocity, track), 480 ticks a quarter, in the order of their ends, then of their
            pitches.
        """
        check_device(device)
        return self._notes(self._plan(length, prompt, condition, temperature, top_k, top_p, seed))

    def log_prob(self, music: Any, *, condition: Mapping[str, Any] | None = None) -> npt.NDArray[np.float64]:
        """There is none: an adversarial pair only draws.

        Raises
        ------
        ValueError
        """
        raise ValueError(f"log_prob: expected a model with a likelihood, got {self.name!r} of arch 'gan'")

    # -- from arguments to a plan --------------------------------------------------------------------------------------

    def _conditions(self) -> dict[str, Any]:
        size = self.latent_size
        return {"z": f"numbers of shape ({size},), for every bar, or (bars, {size})"}

    def _plan(
        self,
        length: float | str | None,
        prompt: Any,
        condition: Mapping[str, Any] | None,
        temperature: float,
        top_k: int | None,
        top_p: float,
        seed: int | None,
    ) -> _Plan:
        if prompt is not None:
            raise ValueError(f"prompt: expected None for arch 'gan', whose bars continue nothing, got {type(prompt)}")
        generate.sampler_options(temperature, top_k, top_p, 2)
        for name, value, neutral in (("top_k", top_k, None), ("top_p", top_p, 1)):
            if value != neutral:
                raise ValueError(f"{name}: expected {neutral} for a model that draws 0 or 1, got {value}")
        self._engine.check_temperature(temperature)
        wanted = self._checked_names(condition)
        z = wanted.get("z")
        number, unit = length_of(length, self.units, "8 bars")
        encoding = self._encoding
        if unit is None:
            steps = (_DEFAULT_BARS if z is None or np.ndim(z) != 2 else len(z)) * encoding.steps
        else:
            per_quarter = encoding.steps_per_quarter
            each = {"bars": encoding.steps, "beats": per_quarter, "s": per_quarter * _TEMPO / 60, "steps": 1}[unit]
            steps = max(1, round(min(number * each, 1e15)))
        bars = math.ceil(steps / encoding.steps)
        if bars > _MOST_BARS:
            raise ValueError(f"length: expected at most {_MOST_BARS} bars, got {length!r} ({bars})")
        chance = seed_of(seed)
        record = self._record(chance, temperature, top_k, top_p, length)
        if z is not None:
            z = self._engine.latent(z, 1, bars)[0]
            record["condition"] = {"z": z.tolist() if len(z) <= _DEFAULT_BARS else f"array of shape {z.shape}"}
        return _Plan(chance, steps, bars, {"temperature": temperature, "z": z}, record)

    def _notes(self, plan: _Plan) -> Iterator[Note]:
        encoding = self._encoding
        ticks = encodings.roll_bars.TICKS_PER_QUARTER // encoding.steps_per_quarter
        coins = self._engine.coins(plan.seed, [0])
        begun: dict[int, int] = {}  # pitches that sound, and since which step
        step = 0
        z = plan.options["z"]
        for bar in range(plan.bars):
            options = {**plan.options, "z": None if z is None else z[bar]}
            picture = self._engine.sample(1, seed=plan.seed, coins=coins, **options).pictures[0]
            _cut(picture, plan.steps - bar * encoding.steps)
            for sounding, onset in zip(picture[0, 0], picture[0, -1], strict=True):
                for pitch in range(encoding.num_pitches):
                    first = begun.get(pitch)
                    if first is not None and (not sounding[pitch] or (encoding.onsets and onset[pitch])):
                        yield Note(first * ticks, (step - first) * ticks, encoding.lowest_pitch + pitch, _VELOCITY, 0)
                        del begun[pitch]
                    if sounding[pitch] and pitch not in begun:
                        begun[pitch] = step
                step += 1
        for pitch, first in sorted(begun.items()):
            yield Note(first * ticks, (step - first) * ticks, encoding.lowest_pitch + pitch, _VELOCITY, 0)


def _cut(pictures: npt.NDArray[np.uint8], steps: int) -> None:
    """Silence after so many steps of pictures (N, C, T, P), in place."""
    per_bar = pictures.shape[2]
    bar, step = divmod(steps, per_bar)
    if bar < len(pictures):
        pictures[bar, :, step:] = 0
        pictures[bar + 1 :] = 0
