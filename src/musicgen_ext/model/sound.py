"""Models of sound: a WaveNet draws samples, told of a score or of frames of numbers, and makes an `Audio`."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Unpack, cast, overload

import numpy as np
import numpy.typing as npt

from musicgen_ext import checks, encodings, generate
from musicgen_ext.audio import Audio, read_audio
from musicgen_ext.encodings import Line, NotesToSound, Sound
from musicgen_ext.errors import WeightsError
from musicgen_ext.features.decibels import mu_law_decode, mu_law_encode
from musicgen_ext.model.base import MAX_SAMPLES, Model, Options, check_device, length_of, score_of, seed_of
from musicgen_ext.progress import Progress

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

TAIL = 0.5  # seconds after a score's last note, in which it dies away
DEFAULT_SECONDS = 5.0  # of a model that is told nothing
MAX_SECONDS = 86_400
_BATCH = 64  # sequences in one call of the engine
_TOGETHER = 16  # lines of different lengths that are played at once
_CHUNK = 1 << 14  # samples in one call of the engine: its coins and frames are made for no more
_LINE_BITS = 40  # of an index of coins, those above number the line

# Frames of what a model is told: the first, and how many; fewer come back where there are no more.
_Frames = Callable[[int, int], Floats]


@dataclass(frozen=True)
class _Told:
    """What a model is told: of every line that is mixed its number, which chooses its coins, and its frames."""

    lines: tuple[int, ...] = (0,)
    frames: tuple[_Frames, ...] = ()  # none, of a model that is told nothing
    enough: int | None = None  # samples
    record: dict[str, Any] = field(default_factory=dict)  # for the provenance


@dataclass(frozen=True)
class _Plan:
    """What one call asks for, worked out before anything is drawn."""

    seed: int
    num_steps: int
    told: _Told
    prompt: Floats  # what the sound begins with
    forced: Ints  # its tokens
    options: dict[str, Any]
    record: dict[str, Any]


class SoundModel(Model):
    """A model of sound: a WaveNet."""

    units: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "s": ("s", "sec", "second", "seconds"),
        "samples": ("samples", "sample", "steps", "step"),
    }

    def _build(self) -> None:
        self._engine = generate.WaveNetEngine(self._file)
        self._encoding = self._checked_encoding()

    def _checked_encoding(self) -> NotesToSound | Sound:
        config = self._engine.config
        encoding = encodings.load(self._file.encoding)
        if not isinstance(encoding, NotesToSound | Sound):
            raise WeightsError(
                f"encoding.name: expected 'notes_to_sound' or 'sound' for a model of sound, got {encoding.name!r}"
            )
        pairs = [("sample_rate", encoding.sample_rate, config.sample_rate)]
        if isinstance(encoding, NotesToSound):
            if config.condition is None:
                raise WeightsError(
                    "encoding.name: expected 'sound' for a model without a condition, got 'notes_to_sound'"
                )
            pairs.append(("hop_length", encoding.hop_length, config.condition.hop_length))
            pairs.append(("channels", encoding.num_channels, config.condition.channels))
        for name, ours, theirs in pairs:
            if ours != theirs:
                raise WeightsError(f"encoding.{name}: expected {theirs} as in the config, got {ours}")
        return encoding

    @property
    def engine(self) -> generate.WaveNetEngine:
        """What draws the samples; for those who have frames of their own."""
        return self._engine

    @property
    def encoding(self) -> NotesToSound | Sound:
        """What the samples, and the frames of the condition, mean."""
        return self._encoding

    @property
    def sample_rate(self) -> int:
        """Of the sound, in Hz."""
        return self._engine.config.sample_rate

    @property
    def info(self) -> dict[str, Any]:
        """As of every `Model`, and sample_rate, in Hz."""
        return {**super().info, "sample_rate": self.sample_rate}

    # -- making music ------------------------------------------------------------------------------------------------

    @overload
    def sample(self, *, num_samples: None = None, **options: Unpack[Options]) -> Audio: ...
    @overload
    def sample(self, *, num_samples: int, **options: Unpack[Options]) -> list[Audio]: ...
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
    ) -> Audio | list[Audio]:
        """Make sound.

        Parameters and errors are those of `musicgen_ext.sample`; here

        - `length` is in seconds, or ``"16000 samples"``. None: to half a second after the score's last note, to the end
          of the frames, or 5 s (after the prompt) for a model that is told nothing.
        - `prompt` is an `Audio`, an array [shape=(n,)] or a path: one channel, at the model's rate. It is the beginning
          of the result as it is, and the model goes on from it.
        - `condition` has ``score`` (a Score, PrettyMIDI or path); ``voices``, which of its tracks are played: "all" or
          one or more by name or number; ``style``, for models of several. Or ``frames``, an array [shape=(F, N)] of
          what the model is told, one row for every ``hop_length`` samples.

        Every line of one note at a time is played by itself (`NotesToSound.lines`), and the lines are mixed, each with
        a gain of 1 over their number, so that the mix cannot clip. A line of a score sounds the same alone and in the
        mix: its chance depends on the seed and on its number in the score.

        Returns
        -------
        Audio, or list of Audio
            One channel.
        """
        check_device(device)
        count = 1 if num_samples is None else generate.check_integer("num_samples", num_samples, 1, MAX_SAMPLES)
        plan = self._plan(length, prompt, condition, temperature, top_k, top_p, seed)
        together = max(1, _BATCH // len(plan.told.lines))
        pieces: list[Audio] = []
        with Progress(count * plan.num_steps, "sampling", enabled=progress) as bar:
            for first in range(0, count, together):
                indices = range(first, min(first + together, count))
                sound = checks.empty("sound", (len(indices), plan.num_steps))
                done = 0
                for block in self._blocks(plan, indices, _CHUNK):
                    sound[:, done : done + block.shape[1]] = block
                    done += block.shape[1]
                    bar.update(first * plan.num_steps + len(indices) * done)
                pieces += [
                    Audio(y, self.sample_rate, provenance={**plan.record, "index": index})
                    for index, y in zip(indices, sound, strict=True)
                ]
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
        block: int = 1024,
    ) -> Iterator[Floats]:
        """The sound of ``sample(…)``, `block` samples at a time, as they are drawn.

        Yields
        ------
        y : np.ndarray [shape=(k,)], float32
            k is `block`, less at the end. End to end they are the ``y`` of ``sample(…)``, the prompt included. Nothing
            is drawn ahead: leaving the loop, or ``close()``, stops at once.
        """
        check_device(device)
        block = generate.check_integer("block", block, 1, 1 << 24)
        plan = self._plan(length, prompt, condition, temperature, top_k, top_p, seed)
        return (sound[0] for sound in self._blocks(plan, range(1), block))

    def play(
        self,
        lines: Sequence[Line],
        *,
        style: str | None = None,
        length: float | str | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int | None = None,
        progress: bool = False,
    ) -> list[Audio]:
        """Every line by itself, all at once: of one score, or of many.

        Parameters
        ----------
        lines : sequence of Line
            As ``encoding.lines(score)`` finds them.
        style, temperature, top_k, top_p, seed
            As for `sample`: a line sounds as there.
        length : float or str, optional
            At most this much of every line; None: to half a second after its last note.

        Returns
        -------
        list of Audio
            One for every line.
        """
        encoding = self._encoding
        if not isinstance(encoding, NotesToSound):
            raise ValueError(f"lines: expected a model that plays notes, got {self!r}")
        self._engine.sampler_options(temperature, top_k, top_p)
        seed = seed_of(seed)
        most = self._steps(length)
        encoding.style(style)
        record = self._record(seed, temperature, top_k, top_p, length)
        ends = [math.ceil((float(line.notes[-1, 1]) + TAIL) * self.sample_rate) for line in lines]
        steps = [self._allowed(end) if most is None else min(most, end) for end in ends]
        order = sorted(range(len(lines)), key=lambda i: steps[i])
        played: dict[int, Audio] = {}
        with Progress(sum(steps), "playing", enabled=progress) as bar:
            for first in range(0, len(order), _TOGETHER):
                group = order[first : first + _TOGETHER]  # of nearly one length
                plan = _Plan(
                    seed=seed,
                    num_steps=steps[group[-1]],
                    told=_of_lines(encoding, [lines[i] for i in group], style),
                    prompt=np.zeros(0, np.float32),
                    forced=np.zeros(0, np.int32),
                    options={"temperature": temperature, "top_k": top_k, "top_p": top_p},
                    record=record,
                )
                sound = checks.empty("sound", (len(group), plan.num_steps))
                done = 0
                for part in self._parts(plan, range(1), _CHUNK):
                    sound[:, done : done + part.shape[2]] = part[0]
                    done += part.shape[2]
                    bar.update(sum(steps[i] for i in order[:first]) + sum(min(done, steps[i]) for i in group))
                for i, y in zip(group, sound, strict=True):
                    played[i] = Audio(y[: steps[i]], self.sample_rate, provenance={**record, "line": lines[i].number})
        return [played[i] for i in range(len(lines))]

    def log_prob(self, audio: Any, *, condition: Mapping[str, Any] | None = None) -> npt.NDArray[np.float64]:
        """What the model thinks of a sound.

        Parameters
        ----------
        audio : Audio, array [shape=(n,)] or path
            One channel, at the model's rate; an array of integers holds tokens.
        condition : dict, optional
            As for `sample`, of one line. A model that is told the phase of the fundamental is told the sound's own
            (`NotesToSound.phases`), as in training: its likelihood is that of the sound given its pitch.

        Returns
        -------
        log_probs : np.ndarray [shape=(n,)], float64
            Natural logarithm of the probability of every sample (as one of the classes, or 16 bits) given all before
            it, at temperature 1. ``-log_probs.mean() / np.log(2)`` are bits per sample.
        """
        tokens = self.tokens(audio)
        told = self._told(condition, heard=tokens)
        if len(told.lines) != 1:
            raise ValueError(f"condition: expected one line of one note at a time for log_prob, got {len(told.lines)}")
        if not len(tokens):
            return np.zeros(0)
        out = np.empty(len(tokens))
        state, coins = self._engine.start(1), self._engine.coins(0, [0])
        for first in range(0, len(tokens), _CHUNK):
            part = tokens[first : first + _CHUNK]
            drawn = self._engine.sample(
                len(part),
                forced=part,
                state=state,
                coins=coins,
                log_probs=True,
                **self._window(told, first, len(part)),
            )
            state = drawn.state
            assert drawn.log_probs is not None
            out[first : first + len(part)] = drawn.log_probs[0]
        return out

    def tokens(self, audio: Any, what: str = "audio") -> Ints:
        """What the model draws, of a sound: 0 to ``engine.num_tokens - 1``.

        Parameters
        ----------
        audio : Audio, array [shape=(n,)] or path
            One channel, at the model's rate; an array of integers holds tokens already.

        Returns
        -------
        tokens : np.ndarray [shape=(n,)], int32
        """
        if not isinstance(audio, np.ndarray) or audio.dtype.kind not in "iu":
            return self._tokens(self._sound_of(audio, what))
        if audio.ndim != 1:
            raise ValueError(f"{what}: expected tokens of shape (n,), got {audio.shape}")
        return self._engine.checked(audio.astype(np.int32, casting="same_kind", copy=False), what)

    # -- from arguments to a plan ------------------------------------------------------------------------------------

    def _conditions(self) -> dict[str, Any]:
        told = self._engine.config.condition
        if told is None:
            return {}
        accepted: dict[str, Any] = {}
        if isinstance(self._encoding, NotesToSound):
            low, high = self._encoding.low, self._encoding.high
            accepted["score"] = f"a Score, PrettyMIDI or path, with pitches from {low} to {high}: what is played"
            accepted["voices"] = '"all", or one or more tracks of the score by name or number'
            if len(self._encoding.styles) > 1:
                accepted["style"] = list(self._encoding.styles)
        accepted["frames"] = f"an array of shape (F, {told.channels}), a row for every {told.hop_length} samples"
        return accepted

    def _told(self, condition: Mapping[str, Any] | None, heard: Ints | None = None) -> _Told:
        given = {name: value for name, value in self._checked_names(condition).items() if value is not None}
        if self._engine.config.condition is None:
            return _Told()
        if "frames" in given:
            others = [name for name in given if name != "frames"]
            if others:
                raise ValueError(f"condition: expected 'frames' alone, got {others[0]!r} with it")
            frames = self._frames(given["frames"])
            hop = self._engine.config.condition.hop_length
            record = {"frames": {"shape": list(frames.shape), "crc32": zlib.crc32(frames.tobytes())}}
            return _Told((0,), (lambda first, count: frames[first : first + count],), len(frames) * hop, record)
        if "score" not in given:
            known = " or ".join(repr(name) for name in ("score", "frames") if name in self._conditions())
            raise ValueError(f"condition: expected {known} for this model, got {sorted(given) or None}")
        encoding = cast("NotesToSound", self._encoding)  # the only one that takes a score
        score = score_of(given["score"], "condition['score']")
        voices, style = given.get("voices", "all"), given.get("style")
        encoding.style(style)
        if isinstance(voices, Iterable) and not isinstance(voices, str):
            voices = list(voices)
        lines = encoding.lines(score, voices)

        notes = score.notes
        seconds = float(score.to_seconds((notes["start"] + notes["duration"]).max())) + TAIL
        source: dict[str, Any] = {"notes": len(notes), "crc32": zlib.crc32(notes.tobytes())}
        if score.provenance:
            source["provenance"] = score.provenance
        asked: dict[str, Any] = {"score": source}
        asked |= {} if voices == "all" else {"voices": voices}
        asked |= {} if style is None else {"style": style}
        phases = None
        if heard is not None and len(lines) == 1 and "phase" in encoding.features:
            phases = encoding.phases(self._decoded(heard), lines[0])
        told = _of_lines(encoding, lines, style, phases)
        return replace(told, enough=math.ceil(seconds * self.sample_rate), record=asked)

    def _frames(self, value: Any) -> Floats:
        told = self._engine.config.condition
        assert told is not None
        frames = checks.floats("condition['frames']", value)
        if frames.ndim != 2 or frames.shape[1] != told.channels:
            got = f"{frames.shape[1]} (shape {frames.shape})" if frames.ndim == 2 else f"shape {frames.shape}"
            raise ValueError(f"condition['frames']: expected shape (F, N) with {told.channels} channels, got {got}")
        if not len(frames):
            raise ValueError("condition['frames']: expected at least 1 frame, got 0")
        return np.array(frames, np.float32, order="C")  # ours: nobody changes it while we play

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
        seed = seed_of(seed)
        asked = self._steps(length)
        record = self._record(seed, temperature, top_k, top_p, length)
        told = self._told(condition)
        if told.record:
            record["condition"] = told.record

        sound = np.zeros(0, np.float32) if prompt is None else self._sound_of(prompt, "prompt")
        if len(sound):
            if len(told.lines) > 1:
                mixed = len(told.lines)
                raise ValueError(f"prompt: expected none where {mixed} lines are mixed, got one; choose a voice")
            record["prompt"] = {"samples": len(sound), "crc32": zlib.crc32(sound.tobytes())}

        default = told.enough or round(DEFAULT_SECONDS * self.sample_rate) + len(sound)
        num_steps = self._allowed(default) if asked is None else asked
        if num_steps <= len(sound):
            what = "length" if length is not None else "prompt"
            raise ValueError(
                f"{what}: expected a result longer than the prompt's {len(sound)} samples, got {num_steps}"
            )
        if "frames" in told.record and told.enough is not None and num_steps > told.enough:
            frames = told.record["frames"]["shape"][0]
            hop = told.enough // frames
            raise ValueError(
                f"condition['frames']: expected at least {-(-num_steps // hop)} frames of {hop} samples for "
                f"{num_steps} samples, got {frames}"
            )
        return _Plan(
            seed=seed,
            num_steps=num_steps,
            told=told,
            prompt=sound,
            forced=self._tokens(sound),
            options={"temperature": temperature, "top_k": top_k, "top_p": top_p},
            record=record,
        )

    def _steps(self, length: float | str | None) -> int | None:
        """Samples that were asked for."""
        number, unit = length_of(length, self.units, "4 s")
        if unit is None:
            return None
        return self._allowed(max(1, round(number * (self.sample_rate if unit == "s" else 1))))

    def _allowed(self, steps: int) -> int:
        if steps > MAX_SECONDS * self.sample_rate:
            raise ValueError(f"length: expected at most {MAX_SECONDS} seconds, got {steps / self.sample_rate:g}")
        return steps

    def _sound_of(self, source: Any, what: str) -> Floats:
        """One channel of samples at the model's rate, in [-1, 1]."""
        if isinstance(source, str | os.PathLike):
            source = read_audio(source)
        if isinstance(source, Audio):
            if source.sr != self.sample_rate:
                raise ValueError(
                    f"{what}: expected sound at the model's {self.sample_rate} Hz, got {source.sr} Hz; "
                    f"use {what}.resample({self.sample_rate})"
                )
            source = source.y
        sound = checks.floats(what, source)
        if sound.ndim == 2 and len(sound) == 1:
            sound = sound[0]
        if sound.ndim != 1:
            raise ValueError(f"{what}: expected one channel, shape (n,), got shape {sound.shape}; use to_mono")
        if len(sound) and np.abs(sound).max() > 1:
            raise ValueError(f"{what}: expected samples in [-1, 1], got {float(np.abs(sound).max()):g}")
        return np.ascontiguousarray(sound, np.float32)

    def _tokens(self, sound: Floats) -> Ints:
        if self._engine.config.output.kind == "mu_law":
            return mu_law_encode(sound, mu=self._engine.num_tokens - 1)
        half = (self._engine.num_tokens - 1) / 2
        return np.clip(np.floor((sound.astype(np.float64) + 1) * half + 0.5), 0, 2 * half).astype(np.int32)

    # -- from a plan to sound ----------------------------------------------------------------------------------------

    def _decoded(self, tokens: Ints) -> Floats:
        if self._engine.config.output.kind == "mu_law":
            return mu_law_decode(tokens, mu=self._engine.num_tokens - 1)
        half = (self._engine.num_tokens - 1) / 2
        return ((tokens - half) / half).astype(np.float32)

    def _window(self, told: _Told, first: int, count: int, pieces: int = 1) -> dict[str, Any]:
        """What the engine is told for `count` samples from `first` on: their frames and the neighbours of these."""
        config = self._engine.config.condition
        if config is None:
            return {}
        hop, beside = config.hop_length, config.kernel_size // 2
        begin = max(0, first // hop - beside)
        frames = np.stack([each(begin, -(-(first + count) // hop) + beside - begin) for each in told.frames])
        return {"condition": np.tile(frames, (pieces, 1, 1)), "offset": first - begin * hop}

    def _blocks(self, plan: _Plan, indices: range, size: int) -> Iterator[Floats]:
        """Sound of some pieces [shape=(pieces, k)], `size` samples at a time."""
        done = 0
        for parts in self._parts(plan, indices, size):
            lines, count = parts.shape[1:]
            mixed = parts[:, 0] if lines == 1 else parts.sum(axis=1, dtype=np.float64) / lines
            block = mixed.astype(np.float32, copy=False)
            begun = plan.prompt[done : done + count]
            block[:, : len(begun)] = begun
            done += count
            yield block

    def _parts(self, plan: _Plan, indices: range, size: int) -> Iterator[Floats]:
        """Sound of all lines of some pieces [shape=(pieces, lines, k)], `size` samples at a time."""
        pieces, lines = len(indices), len(plan.told.lines)
        coins = self._engine.coins(
            plan.seed, [index + (line << _LINE_BITS) for index in indices for line in plan.told.lines]
        )
        state = self._engine.start(pieces * lines)
        for first in range(0, plan.num_steps, size):
            count = min(size, plan.num_steps - first)
            forced = None
            begun = plan.forced[first : first + count]
            if len(begun):
                forced = np.full(count, -1, np.int32)
                forced[: len(begun)] = begun
            drawn = self._engine.sample(
                count,
                num_samples=pieces * lines,
                state=state,
                coins=coins,
                forced=forced,
                **self._window(plan.told, first, count, pieces),
                **plan.options,
            )
            state = drawn.state
            yield self._decoded(drawn.tokens).reshape(pieces, lines, count)


def _of_lines(
    encoding: NotesToSound,
    lines: Sequence[Line],
    style: str | None,
    phases: npt.NDArray[np.float64] | None = None,
) -> _Told:
    def phase(first: int, count: int) -> npt.NDArray[np.float64] | None:
        if phases is None:
            return None
        known = np.zeros(count)  # 0 beside what was heard
        known[max(0, -first) : max(0, len(phases) - first)] = phases[max(0, first) : max(0, first + count)]
        return known

    def frames(line: Line) -> _Frames:
        return lambda first, count: encoding.frames(line, count, first=first, style=style, phase=phase(first, count))

    return _Told(tuple(line.number for line in lines), tuple(map(frames, lines)))
