"""Models of frames: the keys that sound at every step, drawn all together and written as a `Score`."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack, overload

import numpy as np
import numpy.typing as npt

from musicgen_ext import encodings, generate
from musicgen_ext.encodings import Note, PianoRollFrames
from musicgen_ext.errors import WeightsError
from musicgen_ext.midi import Score
from musicgen_ext.model.base import MAX_SAMPLES, Model, Options, check_device, length_of, score_of, seed_of
from musicgen_ext.progress import Progress

Rolls = npt.NDArray[np.uint8]

TEMPO, VELOCITY = 120.0, 80  # of what is written: frames know neither
_DEFAULT_BEATS = 64
_CHUNK = 16  # samples in one call of the engine
_CHUNK_FRAMES = 1 << 12  # … and their frames: 0.8 kB each for coins and results


@dataclass(frozen=True)
class _Plan:
    """What one call asks for."""

    seed: int
    frames: int
    forced: npt.NDArray[np.int32] | None
    options: dict[str, Any]
    record: dict[str, Any]


class FramesModel(Model):
    """A model of frames: which keys of a piano sound at every step.

    Frames do not say where a note begins: a key that sounds in frames that follow one another is one held note of the
    result.
    """

    units: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "bars": ("bars", "bar"),  # of four quarters
        "beats": ("beats", "beat"),
        "s": ("s", "sec", "second", "seconds"),
        "steps": ("steps", "step", "frames", "frame"),
    }

    def _build(self) -> None:
        self._engine = generate.FramesEngine(self._file)
        encoding = encodings.load(self._file.encoding)
        if not isinstance(encoding, PianoRollFrames):
            raise WeightsError(f"encoding.name: expected 'piano_roll_frames' for frames, got {encoding.name!r}")
        if encoding.keys != self._engine.config.keys:
            keys = self._engine.config.keys
            raise WeightsError(f"encoding.keys: expected those of the config, {keys}, got {encoding.keys}")
        self._encoding = encoding

    @property
    def engine(self) -> generate.FramesEngine:
        """What draws the frames; for those who have frames of their own."""
        return self._engine

    @property
    def encoding(self) -> PianoRollFrames:
        """What the frames mean."""
        return self._encoding

    def _conditions(self) -> dict[str, Any]:
        return {}

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

        `length` counts the prompt in; without it 64 quarters are written after the prompt. The result has 120 quarters
        a minute. `prompt` is any score: its notes on the keys become frames.
        """
        check_device(device)
        count = 1 if num_samples is None else generate.check_integer("num_samples", num_samples, 1, MAX_SAMPLES)
        plan = self._plan(length, prompt, condition, temperature, top_k, top_p, seed)
        chunk = max(1, min(_CHUNK, _CHUNK_FRAMES // plan.frames))
        pieces: list[Score] = []
        with Progress(count, "sampling", enabled=progress) as bar:
            for first in range(0, count, chunk):
                drawn = self._engine.sample(
                    plan.frames, seed=plan.seed, index=first, num_samples=min(chunk, count - first),
                    forced=plan.forced, **plan.options,
                )  # fmt: skip
                for i, frames in enumerate(drawn.frames):
                    record = {**plan.record, "index": first + i}
                    pieces.append(self._encoding.decode(frames, tempo=TEMPO, velocity=VELOCITY, provenance=record))
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
        """The notes of ``sample(…)``, each as soon as it is decided, that is when its key is silent again.

        Yields
        ------
        note : Note
            (start, duration, pitch, velocity, track), 480 ticks a quarter, in the order of their ends. Nothing is drawn
            ahead: leaving the loop, or ``close()``, stops at once.
        """
        check_device(device)
        return self._notes(self._plan(length, prompt, condition, temperature, top_k, top_p, seed))

    def _notes(self, plan: _Plan) -> Iterator[Note]:
        ticks = encodings.TICKS_PER_QUARTER // self._encoding.steps_per_quarter
        lowest, silence = self._encoding.lowest_pitch, np.zeros(self._encoding.keys, np.uint8)
        since: dict[int, int] = {}

        def ended(frame: Rolls, step: int) -> Iterator[Note]:
            for key in [k for k in sorted(since) if not frame[k]]:
                start = since.pop(key)
                yield Note(start * ticks, (step - start) * ticks, lowest + key, VELOCITY, 0)

        step = 0
        for block in self._engine.stream(plan.frames, seed=plan.seed, forced=plan.forced, **plan.options):
            for frame in block:
                yield from ended(frame, step)
                for key in np.flatnonzero(frame).tolist():
                    since.setdefault(key, step)
                step += 1
        yield from ended(silence, step)

    def log_prob(self, score: Any, *, condition: Mapping[str, Any] | None = None) -> npt.NDArray[np.float64]:
        """What the model thinks of a score.

        Parameters
        ----------
        score : Score, PrettyMIDI, path, or integer array [shape=(n_frames, keys)]
            Music, or its frames.
        condition
            There is none.

        Returns
        -------
        log_probs : np.ndarray [shape=(n_frames,)], float64
            Natural logarithm of the probability of every frame given all before it.
        """
        self._checked_names(condition)
        frames = score if isinstance(score, np.ndarray) else self._encoding.encode(score_of(score, "score"))
        return self._engine.log_prob(frames)

    # -- arguments ---------------------------------------------------------------------------------------------------

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
        self._engine.sampler_options(temperature, top_k, top_p)
        self._checked_names(condition)
        seed = seed_of(seed)
        per_quarter = self._encoding.steps_per_quarter
        steps = {"steps": 1.0, "beats": per_quarter, "s": per_quarter * TEMPO / 60, "bars": 4 * per_quarter}
        number, unit = length_of(length, self.units, "64 beats")
        record = self._record(seed, temperature, top_k, top_p, length)
        heard = np.zeros((0, self._encoding.keys), np.uint8)
        if prompt is not None:
            issues: list[str] = []
            heard = self._encoding.encode(score_of(prompt, "prompt"), issues)
            if not len(heard):
                raise ValueError("prompt: expected a score with notes on the keys, got none")
            record["prompt"] = {"frames": len(heard), "crc32": zlib.crc32(heard.tobytes())}
            if issues:
                record["issues"] = [f"prompt: {issue}" for issue in issues]
        frames = len(heard) + _DEFAULT_BEATS * per_quarter if unit is None else max(1, round(number * steps[unit]))
        if frames > encodings.MAX_STEPS:
            raise ValueError(f"length: expected at most {encodings.MAX_STEPS} steps, got {frames}")
        if frames <= len(heard):
            raise ValueError(f"length: expected more than the prompt's {len(heard)} steps, got {length!r} ({frames})")
        forced = None
        if len(heard):
            forced = np.full((frames, self._encoding.keys), -1, np.int32)
            forced[: len(heard)] = heard
        options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        return _Plan(seed, frames, forced, options, record)
