"""Models with a latent space: music as points, and the ways between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack, overload

import numpy as np
import numpy.typing as npt

from musicgen_ext import encodings, generate
from musicgen_ext.encodings import MelodyWindows, Note
from musicgen_ext.errors import WeightsError
from musicgen_ext.midi import Score
from musicgen_ext.model.base import MAX_SAMPLES, Model, Options, check_device, length_of, score_of, seed_of
from musicgen_ext.progress import Progress

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

_CHUNK = 64  # samples in one call of the engine
_STRONGEST = 100.0  # standard deviations that an attribute may be asked for
_BOUND_SAMPLES = 64


@dataclass(frozen=True)
class _Plan:
    """What one call asks for, worked out before anything is drawn."""

    seed: int
    frames: int
    z: Floats | None  # (windows, latent_size)
    shift: Floats  # what the attributes add to every z
    options: dict[str, Any]
    record: dict[str, Any]


class VariationalModel(Model):
    """A variational autoencoder of melodies: two bars (a window) are one point z of a latent space.

    z is an array float32 (latent_size,); of music of several windows (n_windows, latent_size). `encode` and `decode`
    go from music to z and back, `interpolate` from one piece to another, and the directions in `attributes` lead to
    more (or less) of something.
    """

    units: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "bars": ("bars", "bar"),
        "beats": ("beats", "beat"),
        "s": ("s", "sec", "second", "seconds"),
        "steps": ("steps", "step"),
    }

    def _build(self) -> None:
        self._engine = generate.VariationalEngine(self._file)
        encoding = encodings.load(self._file.encoding)
        if not isinstance(encoding, MelodyWindows):
            raise WeightsError(f"encoding.name: expected 'melody_windows' for this model, got {encoding.name!r}")
        config = self._engine.config
        if encoding.steps != config.window:
            raise WeightsError(f"encoding.steps: expected {config.window} as in the config, got {encoding.steps}")
        ours = [(s["name"], s["size"], s["first_pitch"], s["hold"]) for s in encoding.slots]
        theirs = [(s.name, s.size, s.first_pitch, s.hold) for s in config.decoder.slots]
        if ours != theirs:
            raise WeightsError(f"config.decoder.slots: expected {ours} for this encoding, got {theirs}")
        self._encoding = encoding

    @property
    def engine(self) -> generate.VariationalEngine:
        """What encodes and draws the tokens; for those who have tokens of their own."""
        return self._engine

    @property
    def encoding(self) -> MelodyWindows:
        """What the tokens mean."""
        return self._encoding

    @property
    def latent_size(self) -> int:
        """Numbers in z."""
        return self._engine.latent_size

    @property
    def attributes(self) -> dict[str, Floats]:
        """Name to direction (latent_size,): what to add to z for one standard deviation more of it."""
        return dict(self._engine.attributes)

    # -- music and latent vectors --------------------------------------------------------------------------------------

    @overload
    def encode(self, score: Any) -> Floats: ...
    @overload
    def encode(self, score: Any, *, log_variance: bool) -> Floats | tuple[Floats, Floats]: ...
    def encode(self, score: Any, *, log_variance: bool = False) -> Floats | tuple[Floats, Floats]:
        """Where a melody lies in the latent space.

        Parameters
        ----------
        score : Score, PrettyMIDI, path, or integer array [shape=(n_windows * window, 1)]
            A melody (of several parts, the highest), or its tokens. It is transposed where it lies beyond the pitches
            that the model knows, and its last window is filled up with rests.
        log_variance : bool
            Also how sure the model is.

        Returns
        -------
        z : np.ndarray [shape=(n_windows, latent_size)], float32
            Means of the posterior.
        log_variance : np.ndarray, as z
            Natural logarithms of its variances.

        Raises
        ------
        ValueError, TypeError
            There is no melody in it, or it is no score.
        """
        mean, spread = self._engine.encode(self._tokens(score, "score"))
        return (mean, spread) if log_variance else mean

    def decode(
        self,
        z: npt.ArrayLike,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int | None = 0,
    ) -> Score:
        """The music at points of the latent space, a window for each, one behind the other.

        Parameters
        ----------
        z : array [shape=(latent_size,) or (n_windows, latent_size)], float
        temperature, top_k, top_p, seed
            As for `musicgen_ext.sample`; the default takes the most likely token at every step.
        """
        vectors = self._latent(z, "z")
        return self._music(vectors, temperature, top_k, top_p, seed_of(seed))

    def reconstruct(
        self,
        score: Any,
        *,
        condition: Mapping[str, Any] | None = None,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int | None = 0,
    ) -> Score:
        """A melody as the model remembers it: encoded and decoded again.

        Parameters
        ----------
        score
            As for `encode`.
        condition : dict, optional
            Attributes and how many standard deviations more of each the result shall have: ``{"density": 1.5}``.
        temperature, top_k, top_p, seed
            As for `decode`.
        """
        wanted = self._checked_condition(condition)
        if "z" in wanted:
            raise ValueError("condition['z']: expected none for reconstruct, the score has one of its own")
        return self._music(self.encode(score) + self._shift(wanted), temperature, top_k, top_p, seed_of(seed))

    def interpolate(
        self,
        a: Any,
        b: Any,
        steps: int,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int | None = 0,
    ) -> list[Score]:
        """Music on the way from one melody to another, along a great circle where both are equally far from the middle.

        Parameters
        ----------
        a, b : Score, PrettyMIDI, path or array [shape=(latent_size,) or (n_windows, latent_size)], float
            Melodies with equally many windows, or their latent vectors.
        steps : int >= 2
            Number of pieces, those of `a` and `b` (as the model remembers them) included.
        temperature, top_k, top_p, seed
            As for `decode`; every piece is drawn with the same chance.

        Returns
        -------
        scores : list of Score

        Source: K. Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985 (slerp).
        """
        steps = generate.check_integer("steps", steps, 2, 1 << 16)
        first, last = self._point(a, "a"), self._point(b, "b")
        if len(first) != len(last):
            raise ValueError(f"b: expected {len(first)} windows as in a, got {len(last)}")
        chance = seed_of(seed)
        return [
            self._music(slerp(first, last, float(share)), temperature, top_k, top_p, chance)
            for share in np.linspace(0.0, 1.0, steps)
        ]

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
        """Make music from random points of the latent space.

        Parameters and result are those of `musicgen_ext.sample`; here

        - `length` is one window if it is None; every window of a longer piece has a z of its own.
        - `prompt` must be None: to begin with music, take its z (`encode`).
        - `condition` has ``z``, array (latent_size,) or (n_windows, latent_size), instead of random ones; and the
          attributes of `info`, each with a number of standard deviations: ``{"density": 1.5}``.
        """
        check_device(device)
        count = 1 if num_samples is None else generate.check_integer("num_samples", num_samples, 1, MAX_SAMPLES)
        plan = self._plan(length, prompt, condition, temperature, top_k, top_p, seed)
        pieces: list[Score] = []
        with Progress(count, "sampling", enabled=progress) as bar:
            for first in range(0, count, _CHUNK):
                indices = range(first, min(first + _CHUNK, count))
                tokens = np.concatenate(list(self._windows(plan, indices)), 1)[:, : plan.frames]
                pieces += [
                    self._encoding.decode(row, provenance={**plan.record, "index": index})
                    for row, index in zip(tokens, indices, strict=True)
                ]
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
        """The notes of ``sample(…)`` in their order, a window at a time, each window when it is drawn.

        Yields
        ------
        note : Note
            (start, duration, pitch, velocity, track), 480 ticks a quarter, track 0. No note crosses the end of a
            window, so that nothing is drawn ahead.
        """
        check_device(device)
        plan = self._plan(length, prompt, condition, temperature, top_k, top_p, seed)
        return self._notes(plan)

    def log_prob(self, score: Any, *, condition: Mapping[str, Any] | None = None) -> npt.NDArray[np.float64]:
        """What the model thinks of a melody, at the least.

        The probability of a window is an integral over z, which nobody can compute; this is the importance-weighted
        lower bound of its logarithm with 64 samples (`VariationalEngine.bounds`), always the same ones.

        Parameters
        ----------
        score
            As for `encode`.
        condition
            Must be None or empty.

        Returns
        -------
        log_probs : np.ndarray [shape=(n_windows,)], float64
            Nats of whole windows: what the model gives them is this or more.
        """
        if self._checked_condition(condition):
            raise ValueError(f"condition: expected none for log_prob of a latent model, got {sorted(condition or {})}")
        return self._engine.bounds(self._tokens(score, "score"), samples=_BOUND_SAMPLES)[0]

    # -- from arguments to tokens --------------------------------------------------------------------------------------

    def _conditions(self) -> dict[str, Any]:
        size = self.latent_size
        accepted: dict[str, Any] = {"z": f"an array of numbers, shape ({size},) or (n_windows, {size})"}
        for name, (mean, deviation) in self._engine.spread.items():
            accepted[name] = f"standard deviations (of {deviation:.3g}) above the mean of the data ({mean:.3g})"
        return accepted

    def _checked_condition(self, condition: Mapping[str, Any] | None) -> dict[str, Any]:
        wanted: dict[str, Any] = {}
        for name, value in self._checked_names(condition).items():
            if value is None:
                continue
            if name == "z":
                wanted[name] = self._latent(value, "condition['z']")
                continue
            if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
                raise TypeError(f"condition[{name!r}]: expected a number, got {type(value).__name__}")
            if not -_STRONGEST <= value <= _STRONGEST:
                raise ValueError(f"condition[{name!r}]: expected -{_STRONGEST:g} to {_STRONGEST:g}, got {value!r}")
            wanted[name] = float(value)
        return wanted

    def _shift(self, wanted: Mapping[str, Any]) -> Floats:
        total = np.zeros(self.latent_size, np.float32)
        for name, direction in self._engine.attributes.items():
            total += np.float32(wanted.get(name, 0.0)) * direction
        return total

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
        options = self._options(temperature, top_k, top_p)
        chance = seed_of(seed)
        if prompt is not None:
            raise ValueError(
                "prompt: expected None for a latent model; condition={'z': model.encode(music)} begins there"
            )
        wanted = self._checked_condition(condition)
        number, unit = length_of(length, self.units, "2 bars")
        z = wanted.get("z")
        frames = self._encoding.steps * (1 if z is None else len(z))
        if unit is not None:
            quarter = self._encoding.grid.steps_per_quarter
            per = {"steps": 1.0, "beats": quarter, "bars": 4.0 * quarter, "s": quarter * self._encoding.tempo / 60}
            asked = number * per[unit]
            if asked > encodings.MAX_STEPS:
                raise ValueError(f"length: expected at most {encodings.MAX_STEPS} steps, got {length!r}")
            if z is not None and len(z) > 1 and max(1, round(asked)) > frames:
                raise ValueError(f"length: expected at most the {frames} steps of condition['z'], got {length!r}")
            frames = max(1, round(asked))
        record = self._record(chance, temperature, top_k, top_p, length)
        if wanted:
            record["condition"] = {k: v.tolist() if k == "z" else v for k, v in wanted.items()}
        return _Plan(chance, frames, z, self._shift(wanted), options, record)

    def _options(self, temperature: float, top_k: int | None, top_p: float) -> dict[str, Any]:
        generate.sampler_options(temperature, top_k, top_p, self._engine.most_tokens)
        return {"temperature": temperature, "top_k": top_k, "top_p": top_p, "allowed": self._encoding.allowed}

    def _windows(self, plan: _Plan, indices: range) -> Iterator[Ints]:
        """Tokens (samples, window, 1) of one window after the other: the numbers of its z first, then its tokens'."""
        coins = generate.Coins(plan.seed, indices)
        for k in range(-(-plan.frames // self._encoding.steps)):
            z = coins.normals(1, self.latent_size)[:, 0]
            if plan.z is not None:
                z = np.broadcast_to(plan.z[min(k, len(plan.z) - 1)], z.shape)
            yield self._engine.decode(z + plan.shift, coins=coins, **plan.options).tokens

    def _notes(self, plan: _Plan) -> Iterator[Note]:
        steps = self._encoding.steps
        for k, tokens in enumerate(self._windows(plan, range(1))):
            frames = tokens[0, : plan.frames - k * steps]
            for note in self._encoding.decode(frames).notes:
                start, *rest = (int(x) for x in note.tolist()[:5])
                yield Note(start + k * steps * encodings.TICKS_PER_STEP, *rest)

    def _music(self, z: Floats, temperature: float, top_k: int | None, top_p: float, seed: int) -> Score:
        drawn = self._engine.decode(z, seed=seed, **self._options(temperature, top_k, top_p))
        record = self._record(seed, temperature, top_k, top_p, None)
        return self._encoding.decode(drawn.tokens.reshape(-1, 1), provenance=record)

    def _tokens(self, score: Any, what: str) -> Ints:
        """Windows (n, window, 1) of a score or of its tokens."""
        steps = self._encoding.steps
        if isinstance(score, np.ndarray):
            if score.dtype.kind not in "iu":
                raise TypeError(f"{what}: expected a score or integer tokens, got an array of {score.dtype}")
            if score.ndim != 2 or score.shape[1] != 1 or not len(score) or len(score) % steps:
                raise ValueError(f"{what}: expected tokens of shape (n_windows * {steps}, 1), got {score.shape}")
            return score.reshape(-1, steps, 1)
        return self._encoding.encode(score_of(score, what)).reshape(-1, steps, 1)

    def _point(self, source: Any, what: str) -> Floats:
        """The latent vectors of whatever has some."""
        if isinstance(source, np.ndarray) and source.dtype.kind == "f":
            return self._latent(source, what)
        return self._engine.encode(self._tokens(source, what))[0]

    def _latent(self, z: Any, what: str) -> Floats:
        values = np.asarray(z)
        if values.dtype.kind not in "iuf":
            raise TypeError(f"{what}: expected numbers, got {values.dtype}")
        if values.ndim not in (1, 2) or values.shape[-1] != self.latent_size or not len(values):
            size = self.latent_size
            raise ValueError(f"{what}: expected shape ({size},) or (n_windows, {size}), got {values.shape}")
        with np.errstate(over="ignore"):
            values = np.atleast_2d(values).astype(np.float32)
        if not np.isfinite(values).all():
            raise ValueError(f"{what}: expected finite numbers, got {values[~np.isfinite(values)][0]}")
        return values


def slerp(a: Floats, b: Floats, share: float) -> Floats:
    """Spherical interpolation of the rows of two arrays (n, size); straight where rows are parallel, or one is 0."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a.astype(np.float64) * b).sum(1) / np.where(lengths > 0, lengths, 1.0)
    angle = np.arccos(np.clip(np.where(lengths > 0, cosine, 1.0), -1.0, 1.0))
    sine = np.sin(angle)
    round_about = sine > 1e-6
    safe = np.where(round_about, sine, 1.0)
    first = np.where(round_about, np.sin((1.0 - share) * angle) / safe, 1.0 - share)
    second = np.where(round_about, np.sin(share * angle) / safe, share)
    return (first[:, None] * a + second[:, None] * b).astype(np.float32)
