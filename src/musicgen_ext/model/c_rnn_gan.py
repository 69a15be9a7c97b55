"""Models that say notes as numbers: the generators of recurrent adversarial pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack, overload

import numpy as np
import numpy.typing as npt

from musicgen_ext import encodings, generate
from musicgen_ext.encodings import Note, NoteTuples
from musicgen_ext.encodings.note_tuples import TICKS_PER_QUARTER
from musicgen_ext.errors import WeightsError
from musicgen_ext.midi import Score
from musicgen_ext.model.base import MAX_SAMPLES, Model, Options, check_device, length_of, seed_of
from musicgen_ext.progress import Progress

_DEFAULT_NOTES = 64
_MOST_NOTES = 1 << 20
_CHUNK = 64  # notes of one call, where nobody knows how many it takes
_TEMPO = 120.0


@dataclass(frozen=True)
class _Plan:
    """What one call asks for: so many notes, or as many as begin before a tick."""

    seed: int
    notes: int
    ticks: int | None
    temperature: float
    record: dict[str, Any]


class CRnnGanModel(Model):
    """The generator of a recurrent adversarial pair: one note after the other, each out of noise and the last."""

    units: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "notes": ("notes", "note"),
        "bars": ("bars", "bar"),
        "beats": ("beats", "beat"),
        "s": ("s", "sec", "second", "seconds"),
    }

    def _build(self) -> None:
        self._engine = generate.CRnnGanEngine(self._file)
        encoding = encodings.load(self._file.encoding)
        if not isinstance(encoding, NoteTuples):
            raise WeightsError(f"encoding.name: expected 'note_tuples' for this model, got {encoding.name!r}")
        if self._engine.config.outputs != len(encodings.note_tuples.COLUMNS):
            raise WeightsError(f"config.outputs: expected 4 for this encoding, got {self._engine.config.outputs}")
        self._encoding = encoding

    @property
    def engine(self) -> generate.CRnnGanEngine:
        """What says the numbers."""
        return self._engine

    @property
    def encoding(self) -> NoteTuples:
        """What the numbers mean."""
        return self._encoding

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

        Without a length it is 64 notes; of bars (of 4/4), beats or seconds, the notes that begin before its end, cut
        there. `temperature` is the standard deviation of the noise.
        """
        check_device(device)
        count = 1 if num_samples is None else generate.check_integer("num_samples", num_samples, 1, MAX_SAMPLES)
        plan = self._plan(length, prompt, condition, temperature, top_k, top_p, seed)
        pieces = []
        with Progress(count, "sampling", enabled=progress) as bar:
            for index in range(count):
                notes = np.concatenate(list(self._drawn(plan, index, _CHUNK)))
                columns = {name: notes[:, i] for i, name in enumerate(("start", "duration", "pitch", "velocity"))}
                pieces.append(
                    Score(columns, tempos=[(0, round(60e6 / _TEMPO))], provenance={**plan.record, "index": index})
                )
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
        """The notes of ``sample(…)``, each as soon as it is said, in the order of their starts."""
        check_device(device)
        plan = self._plan(length, prompt, condition, temperature, top_k, top_p, seed)
        drawn = self._drawn(plan, 0, 1)
        return (Note(int(r[0]), int(r[1]), int(r[2]), int(r[3]), 0) for rows in drawn for r in rows)

    def log_prob(self, music: Any, *, condition: Mapping[str, Any] | None = None) -> npt.NDArray[np.float64]:
        """There is none: an adversarial pair only draws.

        Raises
        ------
        ValueError
        """
        raise ValueError(f"log_prob: expected a model with a likelihood, got {self.name!r} of arch 'c_rnn_gan'")

    # -- from arguments to notes ---------------------------------------------------------------------------------------

    def _conditions(self) -> dict[str, Any]:
        return {}

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
            raise ValueError(f"prompt: expected None for arch 'c_rnn_gan', got {type(prompt).__name__}")
        generate.sampler_options(temperature, top_k, top_p, 2)
        for name, value, neutral in (("top_k", top_k, None), ("top_p", top_p, 1)):
            if value != neutral:
                raise ValueError(f"{name}: expected {neutral} for a model that says numbers, got {value}")
        self._checked_names(condition)
        number, unit = length_of(length, self.units, "64 notes")
        notes, ticks = _DEFAULT_NOTES, None
        if unit == "notes":
            notes = max(1, round(min(number, 1e15)))
        elif unit is not None:
            quarters = number * {"bars": 4.0, "beats": 1.0, "s": _TEMPO / 60}[unit]
            notes, ticks = _MOST_NOTES, max(1, round(min(quarters * TICKS_PER_QUARTER, 1e15)))
        if notes > _MOST_NOTES or (ticks is not None and ticks > _MOST_NOTES * TICKS_PER_QUARTER):
            raise ValueError(f"length: expected at most {_MOST_NOTES} notes or quarters, got {length!r}")
        chance = seed_of(seed)
        return _Plan(chance, notes, ticks, temperature, self._record(chance, temperature, top_k, top_p, length))

    def _drawn(self, plan: _Plan, index: int, chunk: int) -> Iterator[npt.NDArray[np.int64]]:
        """Start, duration, pitch, velocity of the notes of a sample, some at a time."""
        coins, state, now, made = self._engine.coins(plan.seed, index), None, 0, 0
        while made < plan.notes:
            count = min(chunk, plan.notes - made)
            rows, state = self._engine.sample(count, temperature=plan.temperature, state=state, coins=coins)
            notes = self._encoding.ticks(rows)
            if not made:
                notes[0, 0] = 0  # the first waits for nothing
            notes[:, 0] = now + np.cumsum(notes[:, 0])
            now, made = int(notes[-1, 0]), made + count
            if plan.ticks is not None:
                notes = notes[notes[:, 0] < plan.ticks]
                notes[:, 1] = np.minimum(notes[:, 1], plan.ticks - notes[:, 0])
            yield notes
            if plan.ticks is not None and now >= plan.ticks:
                return
