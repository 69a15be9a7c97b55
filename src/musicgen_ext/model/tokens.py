"""Language models: any score written as one token after the other, and read back."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Unpack, cast, overload

import numpy as np
import numpy.typing as npt

from musicgen_ext import encodings, generate
from musicgen_ext.encodings import Bars, Note, Performance
from musicgen_ext.encodings.stream import TokenStream
from musicgen_ext.errors import WeightsError
from musicgen_ext.midi import Score
from musicgen_ext.model.base import MAX_SAMPLES, Model, Options, check_device, length_of, score_of, seed_of
from musicgen_ext.model.clock import clock_of
from musicgen_ext.progress import Progress

Ints = npt.NDArray[np.int32]

DRUMS = 128  # what `TokenModel.stream` calls the program of the drums
MOST_TOKENS = 1 << 20
_LONGEST = 8192  # tokens of a piece that finds no end of its own
_SHORTEST = 32  # tokens after the prompt before which it may not end
_FIRST_LOOK = 256  # tokens after which a length in bars, beats or seconds is looked at for the first time
_GIVEN_UP = 1 << 17  # tokens after which a model is not believed to reach it
_DEFAULT_LENGTH = {"bars": (16.0, "bars"), "s": (30.0, "s")}  # of a model that cannot end a piece
_CHUNK = 64  # samples in one call of the engine
_CHUNK_TOKENS = 1 << 20  # … and their tokens, which bounds memory
_BLOCK, _BLOCKS = 16, 64  # tokens that `stream` draws at a time, but at least a 64th of what is there already


class TokenEngine(Protocol):
    """What draws the tokens: a recurrent network, a transformer, anything with one token a frame."""

    config: Any

    @property
    def num_slots(self) -> int: ...
    @property
    def most_tokens(self) -> int: ...
    @property
    def given(self) -> tuple[str, ...]: ...
    def start(self, num_samples: int = 1, **arguments: Any) -> Any:
        """As `RecurrentEngine.start`."""

    def sample(self, n_frames: int, **arguments: Any) -> Any:
        """As `RecurrentEngine.sample`, with its `Sampled`."""

    def log_prob(self, tokens: npt.ArrayLike, **arguments: Any) -> npt.NDArray[np.float64]:
        """As `RecurrentEngine.log_prob`."""


@dataclass(frozen=True)
class _Plan:
    """What one call asks for, worked out before anything is drawn."""

    seed: int
    target: tuple[float, str] | None  # a length and its unit; None: where the model ends
    begun: Ints  # the first tokens, -1 where one of `choices` is to be drawn
    prompt: int  # how many of them are the prompt's
    allowed: npt.NDArray[np.bool_]  # of the vocabulary
    choices: Mapping[int, npt.NDArray[np.bool_]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)  # for the provenance
    memory: Ints | None = None  # what a model with an encoder is told


class TokenModel(Model):
    """A language model over the tokens of `Bars`, `Performance` or `PitchSequence`."""

    units: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "bars": ("bars", "bar"),
        "beats": ("beats", "beat"),
        "s": ("s", "sec", "second", "seconds"),
        "steps": ("steps", "step", "tokens", "token"),
    }

    def _build(self) -> None:
        engine = cast("TokenEngine", generate.load(self._file))
        encoding = encodings.load(self._file.encoding, tokens=True)
        if not isinstance(encoding, TokenStream):
            raise WeightsError(f"encoding.name: expected a stream of tokens, got {encoding.name!r}")
        if engine.num_slots != 1 or engine.most_tokens != encoding.vocab_size:
            got = f"{engine.num_slots} of {engine.most_tokens}"
            raise WeightsError(f"config: expected one token a frame, of {encoding.vocab_size}, got {got}")
        if engine.given:
            raise WeightsError(f"config.features: expected none that is given, got {list(engine.given)}")
        self._engine, self._encoding = engine, encoding
        kinds = [meaning.partition(" ")[0] for meaning in encoding.vocabulary]
        self._kinds = {kind: np.array([k == kind for k in kinds]) for kind in dict.fromkeys(kinds)}
        begins = [self._kinds[kind] for kind in ("pitch", "drum_pitch", "note_on") if kind in self._kinds]
        self._begins_note = np.any(begins, axis=0)

    @property
    def engine(self) -> TokenEngine:
        """What draws the tokens; for those who have tokens of their own."""
        return self._engine

    @property
    def encoding(self) -> TokenStream:
        """What the tokens mean."""
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

        A "step" is a token; of `Bars`, every bar counts, that of a pickup too. Without a `length` the piece ends where
        the model ends it, or after 8192 tokens.

        Raises
        ------
        ValueError
            An argument is out of its range, or the model writes 131,072 tokens without getting as far as `length`.
        """
        check_device(device)
        count = 1 if num_samples is None else generate.check_integer("num_samples", num_samples, 1, MAX_SAMPLES)
        plan = self._plan(length, prompt, condition, temperature, top_k, top_p, seed)
        pieces: list[Score] = []
        timed = plan.target is not None and plan.target[1] != "steps"
        block = (lambda made: max(_FIRST_LOOK, made)) if timed else (lambda made: MOST_TOKENS)
        steps = _LONGEST if plan.target is None or timed else int(plan.target[0])
        chunk = max(1, min(_CHUNK, _CHUNK_TOKENS // steps))
        with Progress(count, "sampling", enabled=progress) as bar:
            for first in range(0, count, chunk):
                *_, samples = self._grow(plan, first, min(chunk, count - first), block)
                pieces += [self._piece(plan, sample, first + i) for i, sample in enumerate(samples)]
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
        """The notes of ``sample(…)``, each when the music has moved on beyond its end.

        Yields
        ------
        note : Note
            (start, duration, pitch, velocity, track), in ticks of the encoding (480 a quarter, if its grid allows), in
            the order of their ends; where there are several instruments, `track` is the program, 128 for the drums. At
            most 16 tokens, or a 64th of the piece so far, are drawn ahead: leaving the loop, or ``close()``, stops.
        """
        check_device(device)
        plan = self._plan(length, prompt, condition, temperature, top_k, top_p, seed)
        return self._notes(plan)

    def log_prob(self, score: Any, *, condition: Mapping[str, Any] | None = None) -> npt.NDArray[np.float64]:
        """What the model thinks of a score.

        Parameters
        ----------
        score : Score, PrettyMIDI, path, or integer array [shape=(n,)]
            Any music that the encoding can write, or its tokens.
        condition : dict, optional
            None: what `sample` takes only chooses among tokens, and changes nothing in what the model thinks of them.

        Returns
        -------
        log_probs : np.ndarray [shape=(n,)], float64
            Natural logarithm of the probability of every token given all before it, that of the end (if there is one)
            among them: negative, or 0.
        """
        if condition:
            raise ValueError(f"condition: expected none for log_prob, got {list(condition)}")
        tokens = score if isinstance(score, np.ndarray) else self._encoding.encode(score_of(score, "score"))
        if tokens.ndim != 1:
            raise ValueError(f"score: expected tokens of shape (n,), got {tokens.shape}")
        return self._engine.log_prob(tokens[:, None])[:, 0]

    # -- from arguments to a plan --------------------------------------------------------------------------------------

    def _lengths(self) -> Mapping[str, tuple[str, ...]]:
        if isinstance(self._encoding, Performance) and self._encoding.steps_per_beat is None:
            return {unit: words for unit, words in self.units.items() if unit in ("s", "steps")}
        return self.units

    def _conditions(self) -> dict[str, Any]:
        accepted: dict[str, Any] = {}
        if isinstance(self._encoding, Bars):
            accepted["meter"] = list(self._encoding.time_signatures)
            if self._encoding.tempo_bins:
                low, high = self._encoding.lowest_tempo, self._encoding.highest_tempo
                accepted["tempo"] = f"quarter notes a minute, {low} to {high}"
            if self._encoding.programs:
                accepted["programs"] = "a list of programs, 0 to 127, and 'drums': who may play"
        return accepted

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
        encoding = self._encoding
        generate.sampler_options(temperature, top_k, top_p, encoding.vocab_size)
        seed = seed_of(seed)
        number, unit = length_of(length, self._lengths(), next(f"16 {unit}" for unit in self._lengths()))
        if unit == "steps":
            number = max(1, round(number))
            if number > MOST_TOKENS:
                raise ValueError(f"length: expected at most {MOST_TOKENS} steps, got {length!r}")
        if unit is None and encoding.end_token is None:
            number, unit = _DEFAULT_LENGTH["bars" if "bars" in self._lengths() else "s"]
        wanted = self._checked_names(condition)
        record = self._record(seed, temperature, top_k, top_p, length)
        allowed = np.ones(encoding.vocab_size, bool)
        if "programs" in wanted:
            allowed &= ~self._kinds["program"] | self._programs(wanted["programs"])
        begun: list[int] = []
        choices: dict[int, npt.NDArray[np.bool_]] = {}
        count = 0
        if prompt is not None:
            for name in ("meter", "tempo"):
                if name in wanted:
                    raise ValueError(f"condition[{name!r}]: expected none with a prompt, which has its own")
            begun = self._prompt(prompt, record)
            count = len(begun)
        elif wanted.keys() & {"meter", "tempo"}:
            begun, choices = self._beginning(wanted)
        if wanted:
            record["condition"] = dict(wanted)
        target = None if unit is None else (number, unit)
        if target is not None and unit != "steps":
            clock = clock_of(encoding, target)
            clock.push(np.array(begun[:count], np.int32))
            if clock.limit is not None:
                raise ValueError(f"length: expected more than the prompt has, got {length!r}")
        plan = _Plan(
            seed, target, np.array(begun, np.int32), count, allowed, choices,
            {"temperature": temperature, "top_k": top_k, "top_p": top_p}, record,
        )  # fmt: skip
        if unit == "steps" and count >= number:
            raise ValueError(f"length: expected more than the prompt's {count} steps, got {length!r}")
        return plan

    def _prompt(self, prompt: Any, record: dict[str, Any]) -> list[int]:
        issues: list[str] = []
        tokens = self._encoding.encode(score_of(prompt, "prompt"), issues)
        if self._encoding.end_token is not None:
            tokens = tokens[:-1]
        if not self._begins_note[tokens].any():
            raise ValueError(f"prompt: expected notes that {self._encoding.name!r} can write, got none")
        record["prompt"] = {"tokens": len(tokens), "crc32": zlib.crc32(tokens.tobytes())}
        if issues:
            record["issues"] = [f"prompt: {issue}" for issue in issues]
        return [int(token) for token in tokens]

    def _programs(self, value: Any) -> npt.NDArray[np.bool_]:
        known = {meaning.partition(" ")[2]: i for i, meaning in enumerate(self._encoding.vocabulary)
                 if meaning.startswith("program ")}  # fmt: skip
        if isinstance(value, str | int) or not isinstance(value, Sequence) or not value:
            raise TypeError(f"condition['programs']: expected a list of programs, got {value!r}")
        chosen = np.zeros(self._encoding.vocab_size, bool)
        for program in value:
            if isinstance(program, bool) or str(program) not in known:
                raise ValueError(f"condition['programs']: expected 0 to 127 or 'drums', got {program!r}")
            chosen[known[str(program)]] = True
        return chosen

    def _beginning(self, wanted: Mapping[str, Any]) -> tuple[list[int], dict[int, npt.NDArray[np.bool_]]]:
        """The first tokens of a piece in this metre and tempo."""
        encoding = cast("Bars", self._encoding)
        index = encoding.vocabulary.index
        begun, choices = [index("bar")], {}
        if "meter" in wanted:
            if wanted["meter"] not in encoding.time_signatures:
                accepted = ", ".join(encoding.time_signatures)
                raise ValueError(f"condition['meter']: expected one of {accepted}, got {wanted['meter']!r}")
            begun.append(index(f"time_signature {wanted['meter']}"))
        if "tempo" in wanted:
            tempo = wanted["tempo"]
            if isinstance(tempo, bool) or not isinstance(tempo, int | float | np.integer | np.floating):
                raise TypeError(f"condition['tempo']: expected a number, got {tempo!r}")
            if not encoding.lowest_tempo <= tempo <= encoding.highest_tempo:
                low, high = encoding.lowest_tempo, encoding.highest_tempo
                raise ValueError(f"condition['tempo']: expected {low} to {high} quarter notes a minute, got {tempo}")
            if "meter" not in wanted:
                choices[len(begun)] = self._kinds["time_signature"]
                begun.append(-1)
            ratios = np.abs(np.log(np.array(encoding.microseconds_per_quarter) * tempo / 6e7))
            begun += [index("position 0"), int(np.flatnonzero(self._kinds["tempo"])[ratios.argmin()])]
        return begun, choices

    # -- from a plan to tokens -----------------------------------------------------------------------------------------

    def _grow(self, plan: _Plan, first: int, count: int, block: Callable[[int], int]) -> Iterator[list[_Sample]]:
        """Some samples after every block of tokens, until all are whole; `block`: how many tokens after so many."""
        samples = [_Sample(self._encoding, plan.target) for _ in range(count)]
        end = self._encoding.end_token
        unended = plan.allowed.copy()
        if end is not None:
            unended[end] = False
        coins, state = generate.Coins(plan.seed, range(first, first + count)), None
        if plan.memory is not None:
            state = self._engine.start(count, memory=plan.memory)
        for made, (number, may_end) in enumerate(self._blocks(plan, block)):
            begun = plan.begun[:number, None] if not made and len(plan.begun) else None
            mask = np.broadcast_to(plan.allowed if may_end else unended, (1, 1, len(unended)))
            if begun is not None and plan.choices:
                mask = np.repeat(mask, len(begun), axis=0)
                for at, choice in plan.choices.items():
                    mask[at : at + 1, 0] &= choice
            drawn = self._engine.sample(
                number, num_samples=count, forced=begun, allowed=mask, coins=coins, state=state,
                stop=(0, end) if may_end and end is not None else None, **plan.options,
            )  # fmt: skip
            state = drawn.state
            for sample, tokens in zip(samples, drawn.tokens[:, :, 0], strict=True):
                sample.add(tokens)
            yield samples
            if all(sample.whole for sample in samples):
                return
        if plan.target is not None and plan.target[1] != "steps":
            asked = plan.record.get("length", f"{plan.target[0]:g} {plan.target[1]}")
            raise ValueError(f"length: expected one that the model reaches in {_GIVEN_UP} tokens, got {asked!r}")

    def _blocks(self, plan: _Plan, block: Callable[[int], int]) -> Iterator[tuple[int, bool]]:
        """How many tokens are drawn next, and whether the piece may end with one of them."""
        begun, free = len(plan.begun), plan.target is None
        if plan.target is None:
            most = begun + _LONGEST
        else:
            most = int(plan.target[0]) if plan.target[1] == "steps" else _GIVEN_UP
        made = 0
        while made < most:
            first = begun if made < begun else _SHORTEST if free and made == begun else 0
            number = min(first or block(made), most - made)
            yield number, free and made >= begun + _SHORTEST
            made += number

    def _piece(self, plan: _Plan, sample: _Sample, index: int) -> Score:
        score = self._encoding.decode(sample.tokens)
        if sample.clock.limit is not None:
            score = score.trim(0, max(sample.clock.limit, 1))
        score.provenance = {**plan.record, "index": index}
        return score

    def _notes(self, plan: _Plan) -> Iterator[Note]:
        given: Counter[Note] = Counter()
        sample = _Sample(self._encoding, plan.target)
        for (sample,) in self._grow(plan, 0, 1, lambda made: max(_BLOCK, made // _BLOCKS)):
            if sample.whole:
                break
            tokens = sample.tokens
            if "note_on" not in self._kinds:  # what comes may still be about the last note
                tokens = tokens[: int(np.flatnonzero(self._begins_note[tokens]).max(initial=0))]
            yield from self._new(self._encoding.decode(tokens), given, sample.clock.now)
        yield from self._new(self._piece(plan, sample, 0), given, None)

    def _new(self, score: Score, given: Counter[Note], now: int | None) -> Iterator[Note]:
        """Of the notes that end before now those that were not given yet, in the order of their ends."""
        notes = score.notes
        if now is not None:
            notes = notes[notes["start"] + notes["duration"] < now]
        if len(notes) == given.total():
            return
        programs = np.array([DRUMS if track.is_drum else track.program or 0 for track in score.tracks])
        played_by = programs[notes["track"]] if "program" in self._kinds else notes["track"]
        order = np.lexsort((notes["pitch"], notes["start"], notes["start"] + notes["duration"]))
        columns = [notes[name][order].tolist() for name in ("start", "duration", "pitch", "velocity")]
        seen: Counter[Note] = Counter()
        for note in map(Note, *columns, played_by[order].tolist()):
            seen[note] += 1
            if seen[note] > given[note]:
                given[note] += 1
                yield note


class _Sample:
    """The tokens of one piece as they are drawn, as far as they belong to it."""

    def __init__(self, encoding: TokenStream, target: tuple[float, str] | None) -> None:
        self.clock = clock_of(encoding, None if target is None or target[1] == "steps" else target)
        self.whole = False
        self._end = encoding.end_token if target is None else None
        self._parts: list[Ints] = []

    @property
    def tokens(self) -> Ints:
        return np.concatenate([np.zeros(0, np.int32), *self._parts])

    def add(self, tokens: Ints) -> None:
        if self.whole:
            return
        if self._end is not None:
            ends = np.flatnonzero((tokens == self._end) | (tokens < 0))
            self.whole = len(ends) > 0
            tokens = tokens[: ends[0]] if self.whole else tokens
        tokens = tokens[: self.clock.push(tokens)]
        self.whole |= self.clock.limit is not None
        self._parts.append(tokens)
