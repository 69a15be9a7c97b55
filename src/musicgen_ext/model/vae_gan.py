"""Models of music in several styles: made in one of them, or told anew in another."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack, overload

import numpy as np
import numpy.typing as npt

from musicgen_ext import encodings, generate
from musicgen_ext.encodings import Note, StyledBars
from musicgen_ext.encodings.styled_bars import HEARD, TEMPO, Labels, lines, tempo_of
from musicgen_ext.errors import WeightsError
from musicgen_ext.midi import Score
from musicgen_ext.model.base import MAX_SAMPLES, Model, Options, check_device, length_of, score_of, seed_of
from musicgen_ext.progress import Progress
from musicgen_ext.transform import key_named

Floats = npt.NDArray[np.float32]
Rolls = npt.NDArray[np.uint8]

HEAR = "melody"  # of a piece that is told in another style
_HEARINGS = 4  # of what is drawn
_DEFAULT_BARS = 8
_MAX_STEPS = 1 << 20
_CHUNK = 1 << 12  # pictures at a time
_TICKS_PER_QUARTER = 480
_VELOCITY = 80


@dataclass(frozen=True)
class _Plan:
    """What one call asks for."""

    seed: int
    steps: int  # of the result; all of the windows but perhaps the end of the last
    labels: tuple[int | None, ...]  # None: drawn for every sample
    shift: int  # semitones that the pictures are above the music
    tempo: float | None  # None: what the label of tempo says
    temperature: float
    z: Floats | None  # (windows, D), in place of what would be drawn
    prompt: Rolls | None
    last: Floats | None  # (1, D): z of the prompt's last window
    record: dict[str, Any]


class StyleModel(Model):
    """A model of pictures of bars: what they say (z) and the style that they say it in, apart."""

    units: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "bars": ("bars", "bar"),
        "beats": ("beats", "beat"),
        "s": ("s", "sec", "second", "seconds"),
        "steps": ("steps", "step"),
    }

    def _build(self) -> None:
        self._engine = generate.VaeGanEngine(self._file)
        encoding = encodings.load(self._file.encoding)
        if not isinstance(encoding, StyledBars):
            raise WeightsError(f"encoding.name: expected 'styled_bars' for arch 'vae_gan', got {encoding.name!r}")
        config = self._engine.config
        for what, got, expected in (
            ("pictures of shape", list(encoding.shape), list(config.encoder.input)),
            ("styles of size", encoding.style_size, config.style_size),
            ("labels of the first group:", len(encoding.groups[0].labels), config.labels),
        ):
            if got != expected:
                raise WeightsError(f"encoding: expected {what} {expected}, as in config, got {got}")
        self._encoding = encoding

    @property
    def engine(self) -> generate.VaeGanEngine:
        """Encoder and generator; for those who have pictures of their own."""
        return self._engine

    @property
    def encoding(self) -> StyledBars:
        """What pictures and style vectors mean."""
        return self._encoding

    # -- music and z -------------------------------------------------------------------------------------------------

    def encode(self, score: Any, *, hear: str = "all") -> Floats:
        """What a piece says: z of its windows.

        Parameters
        ----------
        score : Score, PrettyMIDI or path
        hear : "all", "outer" or "melody"
            What the encoder hears: everything, the highest and the lowest notes, or the highest ones.

        Returns
        -------
        z : np.ndarray [shape=(N, D)], float32
            Means of the posterior, for every `encoding.bars` bars. The key is not in it if ``encoding.one_key``.

        Raises
        ------
        ValueError
            No bar is of the length that the model knows.
        """
        _check_hear(hear)
        pictures, _ = self._pictures(score_of(score, "score"), "score")
        return self._engine.encode(lines(pictures, hear))[0]

    def decode(
        self, z: npt.ArrayLike, *, tempo: float | str | None = None, key: str | None = None, **labels: str
    ) -> Score:
        """Music out of what it is to say and its style.

        Parameters
        ----------
        z : array [shape=(N, D) or (D,)], float
        tempo : float or str, optional
            Quarters a minute; or a label, if the model has a group of that name.
        key : str, optional
            As ``condition["key"]`` of `sample`.
        **labels : str
            The label of each group, ``style="chorale"``; a measured one (``density``) that is left out is the middle
            one.
        """
        codes = self._latents(z, "z")
        if isinstance(tempo, str):
            labels["tempo"], tempo = tempo, None
        shift = 0 if key is None else self._shift_of(key, "key")
        row = np.zeros((1, len(self._encoding.groups)), np.int64)
        for i, (group, label) in enumerate(zip(self._encoding.groups, self._given(labels), strict=True)):
            if label is None and group.measure == "none":
                raise ValueError(f"{group.name}: expected one of {list(group.labels)}, got none")
            row[0, i] = len(group.labels) // 2 if label is None else label
        styles = self._encoding.vectors(row).repeat(len(codes), axis=0)
        pictures = self._engine.draw(self._engine.decode(codes, styles))
        speed = self._tempo(row[0]) if tempo is None else tempo
        return self._encoding.decode(pictures, shift=shift, tempo=speed)

    def transfer(
        self, score: Any, *, hear: str = HEAR, temperature: float = 0.0, seed: int | None = None, **labels: str
    ) -> Score:
        """A piece in another style: encoded window by window, and decoded under other labels.

        Parameters
        ----------
        score : Score, PrettyMIDI or path
        hear : "all", "outer" or "melody"
            What the encoder hears: everything, the highest and the lowest notes, or the highest ones, to which the
            generator makes up the rest.
        temperature : float >= 0
            0: z is the mean of what the encoder says; 1: drawn from it.
        seed : int, optional
            Of that draw.
        **labels : str
            ``style="folk"``: the labels that are to change. Measured groups (``density``) that are left out stay what
            they are in every window of the piece; others must be given.

        Returns
        -------
        Score
            In the key and tempo of the piece, one track; bars that the model cannot see (of another length) are left
            out, as ``provenance["issues"]`` says.

        Raises
        ------
        ValueError
            No bar is of the length that the model knows, or a label is not one of its group's.
        """
        source = score_of(score, "score")
        _check_hear(hear)
        generate.sampler_options(temperature, None, 1.0, 1)
        seed = 0 if seed is None and temperature == 0 else seed_of(seed)
        issues: list[str] = []
        self._given(labels)
        pictures, shift = self._pictures(source, "score", issues)
        tempo = tempo_of(source)
        rows = self._rows(pictures, tempo, labels)
        mean, log_variance = self._engine.encode(lines(pictures, hear))
        noise = generate.Coins(seed, [0]).normals(*mean.shape)[0]
        z = mean + np.float32(temperature) * np.exp(0.5 * log_variance) * noise if temperature else mean
        made = self._engine.draw(self._engine.decode(z, self._encoding.vectors(rows)))
        record = self._record(seed, temperature, None, 1.0, None)
        record["transfer"] = {**labels, "hear": hear, **_heard(pictures, shift)}
        if issues:
            record["issues"] = issues
        if "tempo" in labels:
            tempo = self._tempo(rows[0])
        return self._encoding.decode(made, shift=shift, tempo=tempo, provenance=record)

    def retell(self, pictures: npt.ArrayLike, labels: Mapping[str, str], *, hear: str = HEAR) -> Rolls:
        """`transfer` of windows [shape=(N, C, T, P)], in the model's key and from the means of z."""
        windows = np.asarray(pictures, np.uint8)
        _check_hear(hear)
        z = self._engine.encode(lines(windows, hear))[0]
        return self._engine.draw(self._engine.decode(z, self._encoding.vectors(self._rows(windows, TEMPO, labels))))

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

        Every window has a z of its own, which keeps of the one before it what neighbouring windows have in common in
        music (`VaeGanConfig`); `temperature` multiplies the deviation of what is new. A note is where it is likelier
        than none; there is nothing for `top_k` and `top_p` to leave out. Labels that `condition` does not give are
        drawn, one for the whole piece.
        """
        check_device(device)
        count = 1 if num_samples is None else generate.check_integer("num_samples", num_samples, 1, MAX_SAMPLES)
        plan = self._plan(length, prompt, condition, temperature, top_k, top_p, seed)
        pieces: list[Score] = []
        chunk = max(1, _CHUNK // self._windows(plan.steps))
        with Progress(count, "sampling", enabled=progress) as bar:
            for first in range(0, count, chunk):
                pieces += self._draw(plan, range(first, min(first + chunk, count)))
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
        """The notes of ``sample(…)``, each as soon as its end is drawn, window by window.

        Yields
        ------
        note : Note
            (start, duration, pitch, velocity, track), 480 ticks a quarter; in the order of their ends.
        """
        check_device(device)
        plan = self._plan(length, prompt, condition, temperature, top_k, top_p, seed)
        return self._notes(plan)

    def log_prob(self, score: Any, *, condition: Mapping[str, Any] | None = None) -> npt.NDArray[np.float64]:
        """A bound on what the model thinks of a score in a style.

        Parameters
        ----------
        score : Score, PrettyMIDI or path
        condition : dict
            The labels; measured ones (density) that are left out are what they are in the score.

        Returns
        -------
        log_probs : np.ndarray [shape=(N,)], float64
            A lower bound of the natural logarithm of the probability of every window (`VaeGanEngine.bounds`, with
            the coins of seed 0).
        """
        wanted = self._checked_names(condition)
        if "z" in wanted:
            raise ValueError("condition['z']: expected none for log_prob, which asks the score for it")
        source = score_of(score, "score")
        pictures, _ = self._pictures(source, "score")
        labels = {name: label for name, label in wanted.items() if name != "key"}
        rows = self._rows(pictures, tempo_of(source), labels, "condition[{!r}]")
        return self._engine.bounds(pictures, self._encoding.vectors(rows), generate.Coins(0, [0]))

    # -- from arguments to a plan --------------------------------------------------------------------------------------

    def _conditions(self) -> dict[str, Any]:
        accepted: dict[str, Any] = {group.name: list(group.labels) for group in self._encoding.groups}
        if self._encoding.one_key:
            accepted["key"] = 'the signature, by one of its two keys, for example "D major" or "B minor"'
        size = self._engine.latent_size
        accepted["z"] = f"an array of shape (windows, {size}), one row for every {self._encoding.bars} bar(s)"
        return accepted

    def _given(self, labels: Mapping[str, Any], naming: str = "{}") -> list[int | None]:
        """Numbers of the labels that are given, by group."""
        names = [group.name for group in self._encoding.groups]
        unknown = [name for name in labels if name not in names]
        if unknown:
            raise ValueError(f"{naming.format(unknown[0])}: expected a label of one of {names}")
        found: list[int | None] = []
        for group in self._encoding.groups:
            label = labels.get(group.name)
            if label is not None and not (isinstance(label, str) and label in group.labels):
                where = naming.format(group.name)
                raise ValueError(f"{where}: expected one of {list(group.labels)}, got {label!r}")
            found.append(None if label is None else group.labels.index(label))
        return found

    def _rows(self, pictures: Rolls, tempo: float, labels: Mapping[str, Any], naming: str = "{}") -> Labels:
        """The labels of windows: those that are given, and for the others what is measured."""
        rows = self._encoding.labels_of(pictures, tempo)
        for i, (group, label) in enumerate(zip(self._encoding.groups, self._given(labels, naming), strict=True)):
            if label is not None:
                rows[:, i] = label
            elif group.measure == "none":
                raise ValueError(f"{naming.format(group.name)}: expected one of {list(group.labels)}, got none")
        return rows

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
        generate.sampler_options(temperature, None, top_p, 1)
        if top_k is not None or top_p != 1.0:
            raise ValueError(
                f"top_k, top_p: expected None and 1.0 for a model that draws whole bars, got {top_k} and {top_p}"
            )
        seed = seed_of(seed)
        wanted = self._checked_names(condition)
        labels = {name: label for name, label in wanted.items() if name not in ("z", "key")}
        given = self._given(labels, "condition[{!r}]")
        record = self._record(seed, temperature, None, top_p, length)
        if labels or "key" in wanted:
            record["condition"] = {name: label for name, label in wanted.items() if name != "z"}
        encoding, window = self._encoding, self._encoding.shape[1]
        shift = 0 if wanted.get("key") is None else self._shift_of(wanted["key"], "condition['key']")
        tempo = None if "tempo" in [group.name for group in encoding.groups] else TEMPO
        z = last = pictures = None
        if wanted.get("z") is not None:
            z = self._latents(wanted["z"], "condition['z']")
            record.setdefault("condition", {})["z"] = {"windows": len(z), "crc32": zlib.crc32(z.tobytes())}
            if prompt is not None or length is not None:
                raise ValueError("condition['z']: expected neither prompt nor length with it, it is the whole piece")
        elif prompt is not None:
            if wanted.get("key") is not None:
                raise ValueError("condition['key']: expected none with a prompt, which has its own")
            source = score_of(prompt, "prompt")
            issues: list[str] = []
            pictures, shift = self._pictures(source, "prompt", issues)
            record["prompt"] = _heard(pictures, shift)
            if issues:
                record["issues"] = [f"prompt: {issue}" for issue in issues]
            tempo = tempo_of(source)
            last = self._engine.encode(pictures[-1:])[0]
        number, unit = length_of(length, self.units, "8 bars")
        per_quarter = encoding.roll_bars.steps_per_quarter
        speed = tempo if tempo is not None else self._tempo([label or 0 for label in given])
        sizes = {"steps": 1.0, "beats": per_quarter, "s": per_quarter * speed / 60, "bars": encoding.roll_bars.steps}
        if z is not None:
            steps = len(z) * window
        elif unit is None:
            steps = _DEFAULT_BARS * encoding.roll_bars.steps + (0 if pictures is None else len(pictures) * window)
        else:
            if number * sizes[unit] > _MAX_STEPS:
                raise ValueError(f"length: expected at most {_MAX_STEPS} steps, got {length!r}")
            steps = max(1, round(number * sizes[unit]))
        if pictures is not None and steps <= len(pictures) * window:
            begun = f"{len(pictures) * encoding.bars} bars of the prompt"
            raise ValueError(f"length: expected more than the {begun}, with which the result begins, got {length!r}")
        return _Plan(seed, steps, tuple(given), shift, tempo, float(temperature), z, pictures, last, record)

    def _latents(self, z: Any, what: str) -> Floats:
        values = np.atleast_2d(np.asarray(z))
        size = self._engine.latent_size
        if values.dtype.kind not in "fiu":
            raise TypeError(f"{what}: expected numbers, got dtype {values.dtype}")
        if values.ndim != 2 or values.shape[1] != size or not 0 < len(values) <= _MAX_STEPS:
            raise ValueError(f"{what}: expected shape (windows, {size}), got {np.shape(z)}")
        if not np.isfinite(values).all():
            raise ValueError(f"{what}: expected finite numbers, got {values[~np.isfinite(values)][0]}")
        return values.astype(np.float32)

    def _shift_of(self, key: Any, what: str) -> int:
        """Semitones that pictures in one key are above music in this one."""
        if not self._encoding.one_key:
            raise ValueError(f"{what}: expected none for a model that keeps the keys of its pieces, got {key!r}")
        sharps, _ = key_named(what, key)
        return -((7 * sharps + 5) % 12 - 5)

    def _tempo(self, labels: Any) -> float:
        for label, group in zip(labels, self._encoding.groups, strict=True):
            if group.measure == "tempo":
                return group.typical[int(label)]
        return TEMPO

    def _pictures(self, score: Score, what: str, issues: list[str] | None = None) -> tuple[Rolls, int]:
        pictures, shift = self._encoding.windows(score, issues)
        if not len(pictures):
            raise ValueError(f"{what}: expected bars of {self._encoding.roll_bars.quarters} quarters, got none")
        return pictures, shift

    # -- drawing -------------------------------------------------------------------------------------------------------

    def _windows(self, steps: int) -> int:
        return -(-steps // self._encoding.shape[1])

    def _labels(self, plan: _Plan, coins: generate.Coins) -> Labels:
        """One row for every sequence: what was asked for, or else drawn."""
        uniform = coins.take(1, len(plan.labels))[:, 0]
        sizes = [len(group.labels) for group in self._encoding.groups]
        drawn = np.floor(uniform * sizes).astype(np.int64)
        for i, label in enumerate(plan.labels):
            if label is not None:
                drawn[:, i] = label
        return drawn

    def _made(self, plan: _Plan, codes: Floats, labels: Labels) -> Rolls:
        """z (B, n, D) and a row of labels for each sequence -> pictures (B, n, C, T, P).

        What was drawn, not given, is heard again a few times, its melody alone, and told anew: each time it is more
        like what the generator has learnt to tell (Bengio et al., "Generalized denoising auto-encoders as generative
        models", 2013).
        """
        batch, count, size = codes.shape
        styles = self._encoding.vectors(labels).repeat(count, axis=0)
        pictures = self._engine.draw(self._engine.decode(codes.reshape(-1, size), styles))
        for _ in range(_HEARINGS if plan.z is None else 0):
            heard, _ = self._engine.encode(lines(pictures, HEAR))
            pictures = self._engine.draw(self._engine.decode(heard, styles))
        return pictures.reshape(batch, count, *pictures.shape[1:])

    def _begun(self, plan: _Plan, labels: Labels) -> npt.NDArray[np.float64] | None:
        """What the first z that is drawn of each sequence follows."""
        return None if plan.last is None else self._engine.whiten(plan.last.repeat(len(labels), axis=0), labels[:, 0])

    def _draw(self, plan: _Plan, indices: range) -> list[Score]:
        coins = generate.Coins(plan.seed, indices)
        labels = self._labels(plan, coins)
        begun = 0 if plan.prompt is None else len(plan.prompt)
        if plan.z is None:
            codes, _ = self._engine.latents(
                self._windows(plan.steps) - begun, coins, labels[:, 0],
                temperature=plan.temperature, before=self._begun(plan, labels),
            )  # fmt: skip
        else:
            codes = plan.z[None].repeat(len(indices), axis=0)
        pieces = []
        for i, made in enumerate(self._made(plan, codes, labels)):
            pictures = made if plan.prompt is None else np.concatenate([plan.prompt, made])
            pieces.append(self._score(plan, pictures, labels[i], indices[i]))
        return pieces

    def _score(self, plan: _Plan, pictures: Rolls, labels: Labels, index: int) -> Score:
        past = plan.steps - (len(pictures) - 1) * self._encoding.shape[1]
        pictures[-1, :, past:] = 0
        named = {group.name: group.labels[k] for group, k in zip(self._encoding.groups, labels.tolist(), strict=True)}
        record = {**plan.record, "index": index, "style": named}
        tempo = self._tempo(labels) if plan.tempo is None else plan.tempo
        return self._encoding.decode(pictures, shift=plan.shift, tempo=tempo, provenance=record)

    def _notes(self, plan: _Plan) -> Iterator[Note]:
        coins = generate.Coins(plan.seed, [0])
        labels = self._labels(plan, coins)
        rolls, before = self._encoding.roll_bars, self._begun(plan, labels)
        ticks = _TICKS_PER_QUARTER // rolls.steps_per_quarter
        begun: dict[int, int] = {}  # pitch to the step at which it began
        step = 0

        def ended(pitch: int) -> Note:
            start = begun.pop(pitch)
            return Note(start * ticks, (step - start) * ticks, pitch, _VELOCITY, 0)

        for number in range(self._windows(plan.steps)):
            if plan.prompt is not None and number < len(plan.prompt):
                picture = plan.prompt[number]
            else:
                if plan.z is None:
                    code, before = self._engine.latents(
                        1, coins, labels[:, 0], temperature=plan.temperature, before=before
                    )  # fmt: skip
                else:
                    code = plan.z[None, number : number + 1]
                picture = self._made(plan, code, labels)[0, 0]
            for column in range(min(picture.shape[1], plan.steps - step)):
                sounding = picture[0, column]
                strikes = picture[-1, column] if rolls.onsets else np.zeros_like(sounding)
                pitches = np.arange(len(sounding)) + rolls.lowest_pitch - plan.shift
                for pitch in [p for p in sorted(begun) if not sounding[p - pitches[0]] or strikes[p - pitches[0]]]:
                    yield ended(pitch)
                for pitch in pitches[sounding != 0].tolist():
                    if pitch not in begun and 0 <= pitch < 128:
                        begun[pitch] = step
                step += 1
        for pitch in sorted(begun):
            yield ended(pitch)


def _check_hear(hear: Any) -> None:
    if hear not in HEARD:
        raise ValueError(f"hear: expected one of {list(HEARD)}, got {hear!r}")


def _heard(pictures: Rolls, shift: int) -> dict[str, Any]:
    """What a piece of provenance says about the music that was listened to."""
    heard: dict[str, Any] = {"windows": len(pictures), "crc32": zlib.crc32(pictures.tobytes())}
    return {**heard, "transposed": shift} if shift else heard
