"""Models of notes: voices on a grid, drawn as tokens and written as a `Score`."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Unpack, overload

import numpy as np
import numpy.typing as npt

from musicgen_ext import encodings, generate
from musicgen_ext.encodings import END, REST, SCALES, Meter, Note, VoiceGrid, Voices, velocity_of
from musicgen_ext.errors import WeightsError
from musicgen_ext.midi import DRUM_CHANNEL, Score
from musicgen_ext.model.base import MAX_SAMPLES, Model, Options, check_device, length_of, score_of, seed_of
from musicgen_ext.progress import Progress

Ints = npt.NDArray[np.int32]

# Of pieces that the model ends: of 242 chorales the shortest has 96 sixteenths, and one in a hundred more than 640. A
# piece that would end sooner goes on, and one that finds no end by then is given one.
_SHORTEST, _LONGEST = 96, 640
_DEFAULT_BARS = 16  # of a model that cannot end a piece
_CHUNK = 64  # samples in one call of the engine: enough for all cores, little enough to show progress
_CHUNK_FRAMES = 1 << 18  # … and their frames, which bounds memory: 80 bytes each for coins and features

_KEY = re.compile(r"\s*([A-Ga-g])([#b♯♭]?)(?:\s+([a-z]+))?\s*")
_TONICS = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_ACCIDENTALS = {"": 0, "#": 1, "♯": 1, "b": -1, "♭": -1}


@dataclass(frozen=True)
class _Plan:
    """What one call asks for, worked out before anything is drawn."""

    seed: int
    length: tuple[
        float, str | None
    ]  # of the result, with its unit; None: where the model ends it, or as long as others
    meter: Meter | None  # None: drawn for every sample
    pickup: int | None  # asked for without a meter of its own, or with it
    tempo: float | None  # of the prompt or the soprano; None: that of the metre
    mode: str | None  # of the key, as asked for or heard; drawn for every sample if there is no prompt or soprano
    tonic: int | None  # as the listener hears it
    shift: int  # semitones that the tokens are above the music
    prompt: Ints | None = None  # tokens, without the end
    position: Ints | None = None  # of the prompt's or the soprano's frames
    soprano: Ints | None = None  # tokens of the soprano, the frame of the end included
    flags: Ints | None = None  # of the soprano's frames, -1 where free
    options: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)  # for the provenance


@dataclass(frozen=True)
class _LastNote:
    """The last note of a tune: on its last beat that leaves an eighth or more, and the tonic (so 113 of 123 end)."""

    frame: int
    tonics: Sequence[int]  # tokens
    rest: int

    def token(self, frame: int, drawn: int, sounding: int) -> int:
        """What stands in a frame from there on, for what was drawn and what sounded before: the nearest tonic, held."""
        if frame > self.frame or (drawn or sounding) in self.tonics:
            return drawn if frame == self.frame else 0
        if (drawn or sounding) == self.rest:
            return self.tonics[len(self.tonics) // 2]
        return min(self.tonics, key=lambda token: (abs(token - (drawn or sounding)), token))


class ScoreModel(Model):
    """A model of one to eight voices, a choir or a single tune: a recurrent network over a grid of sixteenths."""

    units: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "bars": ("bars", "bar"),
        "beats": ("beats", "beat"),
        "s": ("s", "sec", "second", "seconds"),
        "steps": ("steps", "step"),
    }

    def _build(self) -> None:
        self._engine = generate.RecurrentEngine(self._file)
        encoding = encodings.load(self._file.encoding)
        if not isinstance(encoding, VoiceGrid):
            raise WeightsError(f"encoding.name: expected 'voice_grid' for a model to sample, got {encoding.name!r}")
        self._encoding = encoding
        self._encoding.check(self._engine.config)

    @property
    def engine(self) -> generate.RecurrentEngine:
        """What draws the tokens; for those who have tokens of their own."""
        return self._engine

    @property
    def encoding(self) -> VoiceGrid:
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
        """Make music; arguments and result as for `musicgen_ext.sample`."""
        check_device(device)
        count = 1 if num_samples is None else generate.check_integer("num_samples", num_samples, 1, MAX_SAMPLES)
        plan = self._plan(length, prompt, condition, temperature, top_k, top_p, seed)
        pieces: list[Score] = []
        longest = self._frames(plan, Meter()) or _LONGEST  # about: others may be drawn longer
        chunk = max(1, min(_CHUNK, _CHUNK_FRAMES // longest))
        with Progress(count, "sampling", enabled=progress) as bar:
            for first in range(0, count, chunk):
                pieces += self._draw(plan, first, min(chunk, count - first))
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
        """The notes of ``sample(…)``, each as soon as it is decided, that is when the model has drawn its end.

        Yields
        ------
        note : Note
            (start, duration, pitch, velocity, track), 480 ticks a quarter, a track for every voice of the encoding; in
            the order of their ends. Nothing is drawn ahead: leaving the loop, or ``close()``, stops at once.
        """
        check_device(device)
        plan = self._plan(length, prompt, condition, temperature, top_k, top_p, seed)
        return self._notes(plan)

    def log_prob(self, score: Any, *, condition: Mapping[str, Any] | None = None) -> npt.NDArray[np.float64]:
        """What the model thinks of a score.

        Parameters
        ----------
        score : Score, PrettyMIDI, path, or integer array [shape=(n_frames, F)]
            Music for the voices of the encoding (four of a choir, or a single line), or its tokens.
        condition : dict, optional
            As for `sample`; what is left out is unknown to the model, except for the metre, which the score tells.

        Returns
        -------
        log_probs : np.ndarray [shape=(n_frames, F)], float64
            Natural logarithm of the probability of every token given all before it: negative, or 0. Rows are sixteenths
            (with one more for the end, in an encoding that has one), columns the slots of a frame,
            ``model.encoding.slots``.
        """
        wanted = self._check_condition(condition)
        if "soprano" in wanted:
            voice = self._encoding.voices[0]
            raise ValueError(f"condition[{voice!r}]: expected none for log_prob, the score has a {voice} already")
        if isinstance(score, np.ndarray):
            tokens = self._encoding.checked(score)
            meter, position = wanted.get("meter", Meter()), None
        else:
            voices = self._read(score, "score")
            tokens = self._encoding.grid_to_tokens(voices.pitch, voices.onset, voices.fermata)
            meter, position = voices.meter, voices.position
        if "meter" in wanted or position is None:
            meter = _with_pickup(wanted.get("meter", meter), wanted.get("pickup"))
            position = meter.positions(len(tokens))
        mode, tonic = wanted.get("mode"), wanted.get("tonic")
        given = self._encoding.given(len(tokens), position=position, bar_length=meter, mode=mode, tonic=tonic)
        return self._engine.log_prob(tokens, given={name: given[name] for name in self._engine.given})

    # -- from arguments to a plan --------------------------------------------------------------------------------------

    def _read(self, source: Any, what: str) -> Voices:
        """The encoding's voices in a score; of more parts than a model of a single one knows, the highest."""
        score = score_of(source, what)
        if len(self._encoding.voices) > 1:
            return encodings.read_voices(score, what, encoding=self._encoding)
        voices = encodings.read_melody(score, what, encoding=self._encoding)
        parts = len(np.unique(score.notes[score.notes["channel"] != DRUM_CHANNEL][["track", "channel"]]))
        if parts > 1:
            left = f"{parts - 1} of {parts} parts were left out: they are not the {self._encoding.voices[0]}"
            voices = replace(voices, issues=(left, *voices.issues))
        return voices

    def _conditions(self) -> dict[str, Any]:
        told = self._engine.given
        accepted: dict[str, Any] = {}
        if "position" in told:
            accepted["meter"] = list(self._encoding.meters)
            accepted["pickup"] = "beats before the first full bar, a multiple of 0.25 below a bar"
        if "mode" in told:
            accepted["mode"] = list(self._encoding.modes)
        if "tonic" in told:
            accepted["key"] = 'a note and a mode, for example "D major", "f# minor", "Bb major"'
        if len(self._encoding.voices) > 1:
            accepted.setdefault(self._encoding.voices[0], "a Score, PrettyMIDI or path: the melody to harmonise")
        return accepted

    def _check_condition(self, condition: Mapping[str, Any] | None) -> dict[str, Any]:
        """The condition with its values read: meter, pickup (in sixteenths), mode, tonic, soprano (the first voice)."""
        condition = self._checked_names(condition)
        accepted = self._conditions()
        wanted: dict[str, Any] = {}
        for name, value in condition.items():
            if value is None:
                continue
            if name in ("meter", "mode") and not (isinstance(value, str) and value in accepted[name]):
                raise ValueError(f"condition[{name!r}]: expected one of {accepted[name]}, got {value!r}")
            if name == "meter":
                numerator, denominator = value.split("/")
                wanted["meter"] = Meter(int(numerator), int(denominator))
            elif name == "pickup":
                wanted["pickup"] = _pickup(value)
            elif name == "key":
                wanted["tonic"], mode = _key(value, self._encoding.modes)
                if mode and condition.get("mode") not in (None, mode):
                    raise ValueError(f"condition['key']: expected a {condition['mode']} key (mode), got {value!r}")
                wanted["mode"] = mode or wanted.get("mode")
            elif name == "mode":
                wanted["mode"] = value
            else:
                wanted["soprano"] = score_of(value, f"condition[{name!r}]")
        if "pickup" in wanted:
            longest = wanted.get("meter", Meter()).bar_length
            if wanted["pickup"] >= longest:
                got = condition["pickup"]
                raise ValueError(f"condition['pickup']: expected less than a bar of {longest / 4:g} beats, got {got!r}")
        return wanted

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
        generate.sampler_options(temperature, top_k, top_p, self._engine.most_tokens)
        seed = seed_of(seed)
        wanted = self._check_condition(condition)
        asked = length_of(length, self.units, "16 bars")
        if asked[0] > encodings.MAX_STEPS:
            raise ValueError(f"length: expected at most {encodings.MAX_STEPS} steps, got {length!r}")
        record = self._record(seed, temperature, top_k, top_p, length)
        encoding = self._encoding
        first_voice = encoding.voices[0]
        if condition:
            record["condition"] = {name: value for name, value in condition.items() if name != first_voice}
        soprano = wanted.get("soprano")
        told = f"condition[{first_voice!r}]"
        if soprano is not None and prompt is not None:
            raise ValueError(f"prompt: expected none together with {told}, got both")
        if soprano is not None and length is not None:
            raise ValueError(f"length: expected None with {told} (the piece is as long as it), got {length!r}")

        voices: Voices | None = None
        if soprano is not None:
            voices = encodings.read_melody(soprano, told, encoding=encoding)
        elif prompt is not None:
            voices = self._read(prompt, "prompt")
        meter, position, tempo, shift = wanted.get("meter"), None, None, 0
        if voices is not None:
            what = "prompt" if soprano is None else told
            shift = encoding.fit(voices, what)
            tempo = voices.tempo
            if meter is None and "pickup" not in wanted:
                meter, position = voices.meter, voices.position
            else:
                meter = _with_pickup(meter or voices.meter, wanted.get("pickup"))
            if (wanted.get("tonic") is None) != (wanted.get("mode") is None):  # the model knows whole keys only
                known = wanted.get("tonic"), wanted.get("mode")
                wanted["tonic"], wanted["mode"] = _nearest_key(voices.pitch, encoding.modes, *known)
            heard = {"frames": len(voices.pitch), "crc32": zlib.crc32(voices.pitch.tobytes() + voices.onset.tobytes())}
            if shift:
                heard["transposed"] = shift
            if voices.issues:
                record["issues"] = [f"{what}: {issue}" for issue in voices.issues]
            if soprano is None:
                record["prompt"] = heard
            else:
                record.setdefault("condition", {})[first_voice] = heard
        elif "position" not in self._engine.given:
            meter = Meter()

        prompt_tokens = soprano_tokens = flags = None
        if voices is not None:
            pitch = np.where(voices.pitch == REST, REST, voices.pitch + shift)
            if soprano is None:
                prompt_tokens = encoding.grid_to_tokens(pitch, voices.onset, voices.fermata, end=False)
            else:
                alone = np.full((len(pitch), len(encoding.voices)), REST, np.int32)
                alone[:, 0] = pitch[:, 0]
                onset = np.zeros(alone.shape, bool)
                onset[:, 0] = voices.onset[:, 0]
                tokens = encoding.grid_to_tokens(alone, onset, voices.fermata)
                soprano_tokens = tokens[:, encoding.first_voice]
                if encoding.hold:
                    flags = tokens[:, 0].copy()
                    if not voices.fermata.any():  # nothing said about fermatas: the model may set them
                        flags[:-1] = -1
        plan = _Plan(
            seed=seed,
            length=asked,
            meter=meter,
            pickup=wanted.get("pickup"),
            tempo=tempo,
            mode=wanted.get("mode"),
            tonic=wanted.get("tonic"),
            shift=shift,
            prompt=prompt_tokens,
            position=position,
            soprano=soprano_tokens,
            flags=flags,
            options={"temperature": temperature, "top_k": top_k, "top_p": top_p},
            record=record,
        )
        if prompt_tokens is not None and length is not None:
            frames = self._frames(plan, meter or Meter())
            if frames is not None and frames <= len(prompt_tokens):
                least = len(prompt_tokens)
                raise ValueError(f"length: expected more than the prompt's {least} steps, got {length!r} ({frames})")
        return plan

    # -- from a plan to tokens -----------------------------------------------------------------------------------------

    def _meter_of(self, plan: _Plan, index: int) -> Meter:
        """The metre of one sample: as asked for, or drawn from how pieces begin, by a number of its own."""
        if plan.meter is not None and (plan.prompt is not None or plan.soprano is not None):
            return plan.meter
        starts = self._encoding.starts
        if plan.meter is not None:
            starts = [s for s in starts if s[0] == str(plan.meter)]
        if plan.pickup is not None or not starts or "position" not in self._engine.given:
            return _with_pickup(plan.meter or Meter(), plan.pickup)
        name, pickup, _ = _choice(starts, _uniform(plan.seed, 2 * index))
        numerator, denominator = name.split("/")
        return Meter(int(numerator), int(denominator), pickup)

    def _key_of(self, plan: _Plan, index: int) -> tuple[int, str] | None:
        """The key of one sample; None: the model shall hear for itself."""
        if plan.tonic is not None and plan.mode is not None:
            return plan.tonic, plan.mode
        if plan.prompt is not None or plan.soprano is not None or "tonic" not in self._engine.given:
            return None
        keys = [k for k in self._encoding.keys if plan.tonic in (None, k[0]) and plan.mode in (None, k[1])]
        if not keys:  # a tonic, or a mode, that no piece had: as for any other
            keys = list(self._encoding.keys)
        tonic, mode, _ = _choice(keys, _uniform(plan.seed, 2 * index + 1))
        return (tonic if plan.tonic is None else plan.tonic), (mode if plan.mode is None else plan.mode)

    def _tempo_of(self, plan: _Plan, meter: Meter) -> float:
        """Quarters a minute."""
        return self._encoding.tempo_of(meter) if plan.tempo is None else plan.tempo

    def _frames(self, plan: _Plan, meter: Meter, index: int = 0) -> int | None:
        """Frames of one sample with this metre; None: where the model ends it."""
        bar, per_quarter = meter.bar_length, self._encoding.steps_per_quarter
        prompt = 0 if plan.prompt is None else len(plan.prompt)
        frames: int | None = None
        number, unit = plan.length
        if unit is not None:
            steps = {
                "steps": 1.0,
                "beats": per_quarter,
                "s": per_quarter * self._tempo_of(plan, meter) / 60,
                "bars": bar,
            }
            frames = max(1, round(number * steps[unit]))
        elif plan.soprano is None:
            lengths = [(bars, weight) for bars, weight in self._encoding.lengths if bars * bar >= prompt + bar]
            if lengths and "left" in self._engine.given:
                frames = bar * int(_choice(lengths, _uniform(~plan.seed, index))[0])
            elif self._encoding.stop is None:
                frames = _DEFAULT_BARS * bar + prompt
        if frames is not None and frames > encodings.MAX_STEPS:
            raise ValueError(f"length: expected at most {encodings.MAX_STEPS} steps, got {frames}")
        return frames

    def _request(
        self, plan: _Plan, first: int, meters: list[Meter], keys: list[tuple[int, str] | None]
    ) -> tuple[int, list[int | None], dict[str, Any]]:
        """Frames to draw, frames of every sample's result (from the `first` on), and the engine's arguments."""
        encoding, engine = self._encoding, self._engine
        wanted = [self._frames(plan, meter, first + i) for i, meter in enumerate(meters)]
        if plan.soprano is not None:
            n = len(plan.soprano)
        elif wanted[0] is not None:
            n = max(frames for frames in wanted if frames is not None)
        else:
            n = _LONGEST + (0 if plan.prompt is None else len(plan.prompt))
        prefix = 0 if plan.prompt is None else len(plan.prompt)

        allowed = np.zeros((encoding.num_slots, engine.most_tokens), bool)
        for slot, description in enumerate(encoding.slots):
            allowed[slot, : description["size"]] = True
            if description["name"] in encoding.ranges:
                low, high = encoding.ranges[description["name"]]
                low, high = max(low, plan.shift), min(high, 127 + plan.shift)  # transposed back, it is a MIDI pitch
                low, high = (p - encoding.lowest_pitch + encoding.first_pitch for p in (low, high))
                allowed[slot, encoding.first_pitch : max(low, encoding.first_pitch)] = False
                allowed[slot, max(high + 1, encoding.first_pitch) :] = False
        mask = np.repeat(allowed[None], n, axis=0)
        if encoding.hold:
            # A hold has something to hold, and what the prompt wrote keeps its length.
            mask[min(prefix, n - 1), 1:, 0] = False
            # The end: where it was asked for, or where the model likes, but not within the first bar of what is new.
            earliest = max(_SHORTEST, prefix + 16)
            mask[: n if wanted[0] is not None or plan.soprano is not None else earliest, 0, END] = False

        forced = np.full((len(meters), n, encoding.num_slots), -1, np.int32)
        if plan.prompt is not None:
            forced[:, :prefix] = plan.prompt
        if plan.soprano is not None:
            forced[:, :, encoding.first_voice] = plan.soprano
            if plan.flags is not None:
                forced[:, :, 0] = plan.flags
        if encoding.hold and plan.soprano is None and "left" not in engine.given:
            for row, meter, frames in zip(forced, meters, wanted, strict=True):
                last = n if frames is None else frames
                _end_on_a_chord(row[prefix:last], self._positions(plan, meter, last)[prefix:], meter)

        told: list[dict[str, Ints]] = []
        for meter, key, frames in zip(meters, keys, wanted, strict=True):
            position = meter.positions(n) if plan.position is None else plan.position
            tonic, mode = (None, None) if key is None else ((key[0] + plan.shift) % 12, key[1])
            told.append(
                encoding.given(
                    n, position=position, bar_length=meter, mode=mode, tonic=tonic, soprano=plan.soprano, length=frames
                )
            )
        given = {name: np.stack([one[name] for one in told]) for name in engine.given}
        arguments = {"seed": plan.seed, "given": given, "allowed": mask, "forced": forced, **plan.options}
        if encoding.stop is not None:
            arguments["stop"] = encoding.stop
        return n, wanted, arguments

    def _positions(self, plan: _Plan, meter: Meter, n: int) -> Ints:
        if plan.position is None:
            return meter.positions(n)
        return self._encoding.positions(n, plan.position, meter.bar_length)

    def _last_note(
        self, plan: _Plan, meter: Meter, key: tuple[int, str] | None, frames: int | None
    ) -> _LastNote | None:
        """How a tune ends whose length and key are known; None where the model says how, or somebody's melody does."""
        encoding = self._encoding
        told = "left" in self._engine.given and len(encoding.voices) == 1 and encoding.hold
        if not told or key is None or frames is None or plan.soprano is not None:
            return None
        beat = 6 if meter.denominator == 8 and meter.numerator % 3 == 0 else encoding.steps_per_quarter
        position = self._positions(plan, meter, frames)
        begin = max(1 if plan.prompt is None else len(plan.prompt) + 1, frames - meter.bar_length)
        frame = next((f for f in range(frames - 2, begin - 1, -1) if position[f] % beat == 0), None)
        low, high = (p - encoding.lowest_pitch + encoding.first_pitch for p in encoding.ranges[encoding.voices[0]])
        first = encoding.first_pitch - encoding.lowest_pitch
        tonics = [t for t in range(low, high + 1) if (t - first - key[0] - plan.shift) % 12 == 0]
        return _LastNote(frame, tonics, encoding.rest) if frame is not None and tonics else None

    def _draw(self, plan: _Plan, first: int, count: int) -> list[Score]:
        encoding = self._encoding
        meters = [self._meter_of(plan, first + i) for i in range(count)]
        keys = [self._key_of(plan, first + i) for i in range(count)]
        n, wanted, arguments = self._request(plan, first, meters, keys)
        drawn = self._engine.sample(n, index=first, num_samples=count, **arguments)
        pieces = []
        for i in range(count):
            frames = int(drawn.lengths[i]) if wanted[i] is None else wanted[i]
            tokens = drawn.tokens[i, :frames]
            last = self._last_note(plan, meters[i], keys[i], wanted[i])
            if last is not None:
                for frame in range(last.frame, len(tokens)):
                    sounding = next((int(t) for t in tokens[:frame, 1][::-1] if t), encoding.rest)
                    tokens[frame, 1] = last.token(frame, int(tokens[frame, 1]), sounding)
            pieces.append(
                encoding.decode(
                    tokens,
                    meter=meters[i],
                    tempo=self._tempo_of(plan, meters[i]),
                    key=keys[i],
                    transpose=-plan.shift,
                    provenance={**plan.record, "index": first + i},
                )
            )
        return pieces

    def _notes(self, plan: _Plan) -> Iterator[Note]:
        encoding = self._encoding
        meter = self._meter_of(plan, 0)
        key = self._key_of(plan, 0)
        n, wanted, arguments = self._request(plan, 0, [meter], [key])
        n = n if wanted[0] is None else wanted[0]
        last = self._last_note(plan, meter, key, wanted[0])
        step, ticks = 0, encodings.TICKS_PER_STEP
        voices = encoding.voices
        columns = [voices.index(name) for name in encodings.slot_order(voices)]
        sounding: list[tuple[int, int] | None] = [None] * len(voices)  # (first step, token) by voice

        def ended(voice: int) -> Iterator[Note]:
            note = sounding[voice]
            if note is not None:
                begun, token = note
                pitch = token - encoding.first_pitch + encoding.lowest_pitch - plan.shift
                yield Note(begun * ticks, (step - begun) * ticks, pitch, velocity_of(voice, len(voices)), voice)
            sounding[voice] = None

        for block in self._engine.stream(n, block=1, **arguments):
            for frame in block.tolist():
                if encoding.hold and frame[0] == END:
                    break
                if last is not None and step >= last.frame:
                    note = sounding[0]
                    frame[1] = last.token(step, frame[1], encoding.rest if note is None else note[1])
                for column, token in enumerate(frame[encoding.first_voice :]):
                    voice = columns[column]
                    note = sounding[voice]
                    if token == 0 if encoding.hold else note is not None and note[1] == token:
                        continue
                    yield from ended(voice)
                    if token != encoding.rest:
                        sounding[voice] = (step, token)
                step += 1
        for voice in range(len(voices)):
            yield from ended(voice)


# -- arguments ---------------------------------------------------------------------------------------------------


def _pickup(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"condition['pickup']: expected a number of beats, got {type(value).__name__}")
    sixteenths = float(value) * encodings.STEPS_PER_QUARTER
    if not (0 <= sixteenths < encodings.UNKNOWN_POSITION and sixteenths == int(sixteenths)):
        raise ValueError(
            f"condition['pickup']: expected a multiple of 0.25 beats, at least 0 and below a bar, got {value!r}"
        )
    return int(sixteenths)


def _key(value: Any, modes: Sequence[str]) -> tuple[int, str | None]:
    """Tonic as a pitch class, and mode if it is said."""
    match = _KEY.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[3] not in (None, *modes):
        raise ValueError(
            f"condition['key']: expected a note and a mode, for example 'D major' or 'f# minor' "
            f"({', '.join(modes)}), got {value!r}"
        )
    return (_TONICS[match[1].lower()] + _ACCIDENTALS[match[2]]) % 12, match[3]


def _nearest_key(pitch: Ints, modes: Sequence[str], tonic: int | None, mode: str | None) -> tuple[int, str]:
    """The whole key of which one half is known: the one whose scale, tonic and fifth are heard most."""
    heard = np.bincount(pitch[pitch != REST] % 12, minlength=12)
    best = max(
        ((t, m) for t in range(12) for m in modes if tonic in (None, t) and mode in (None, m)),
        key=lambda k: sum(int(heard[(k[0] + s) % 12]) for s in (*SCALES[k[1]], 0, 7)),
    )
    return best


def _end_on_a_chord(forced: Ints, position: Ints, meter: Meter) -> None:
    """Where the length is given, the piece ends on a held chord with a fermata.

    It begins where the chorales' last chords begin, in the middle of a bar of 4/4 (167 of 214 pieces: 8 sixteenths
    into it; nearly all others at its beginning) or at the beginning of one of 3/4. `forced` are the rows of what is to
    be drawn, changed in place; where there is no such place in the last bar, nothing is.
    """
    strong = (0, meter.bar_length // 2) if meter.bar_length == 16 else (0,)
    last = len(forced)
    for frame in range(last - 4, max(last - meter.bar_length, 4) - 1, -1):
        if int(position[frame]) in strong:
            forced[frame, 0] = encodings.FERMATA
            forced[frame + 1 :] = 0  # no flag, and holds
            return


def _choice(weighted: Any, uniform: float) -> Any:
    """One of some tuples that end with a weight."""
    at = uniform * sum(entry[-1] for entry in weighted)
    for entry in weighted:
        at -= entry[-1]
        if at < 0:
            return entry
    return weighted[-1]


def _with_pickup(meter: Meter, pickup: int | None) -> Meter:
    return meter if pickup is None else Meter(meter.numerator, meter.denominator, pickup % meter.bar_length)


def _uniform(seed: int, index: int) -> float:
    """A number in [0, 1) for one sample, apart from the coins of its tokens: splitmix64 (Steele, Lea, Flood 2014)."""
    word = (seed + (index + 1) * 0x9E3779B97F4A7C15) % (1 << 64)
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % (1 << 64)
    word = (word ^ word >> 27) * 0x94D049BB133111EB % (1 << 64)
    return ((word ^ word >> 31) >> 11) * 2.0**-53
