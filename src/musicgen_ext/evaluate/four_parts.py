"""Numbers about four-part music: likelihood on the JSB chorales, and a report over pieces on a sixteenth-note grid.

Only numpy. Models come in as functions that give log-probabilities, pieces as `Piece` grids; nothing here samples or
trains.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from musicgen_ext.keys import MODES, Mode, nearest_key

VOICES = ("soprano", "alto", "tenor", "bass")
REST = -1

# --------------------------------------------------------------------------------------------------------------------
# jsb16: the JSB chorales on a sixteenth grid, voices apart

JSB16_SPLITS = ("train", "valid", "test")
JSB16_SIZES = {"train": (229, 55_228), "valid": (76, 18_408), "test": (77, 18_900)}
JSB16_SHA256 = {
    "cad2ec2c2394179d7f282bda20c523453a9e87f3a41bd16c1f8bd4f1d223c037": "jsb16_separated.npz",
    "d50c436564ec86f83f78f066fca03645ea4fbbe3b5e07e45be0e822ac94654d4": "jsb16_separated.json",
}
JSB16_LOWEST_PITCH = 36
JSB16_SYMBOLS = 47  # silence and the pitches 36 to 81

# (model, split, nats per note token, conditioning and source); none of these was re-run here.
JSB16_PUBLISHED = (
    ("Coconet, chronological order", "valid", 0.436, "joint; as reported by Huang et al. 2019 (Music Transformer)"),
    ("Transformer baseline", "valid", 0.417, "joint; as reported by Huang et al. 2019"),
    ("Music Transformer", "valid", 0.335, "joint; as reported by Huang et al. 2019"),
    ("TonicNet, 1.26 M parameters", "valid", 0.396, "joint; ours: 0.317 per token × 5 tokens ÷ 4 notes (Peracha 2019)"),
    ("TonicNet, notes only", "test", 0.220, "conditional on ground-truth chords, mean over pieces: not comparable"),
)


@dataclass(frozen=True)
class Jsb16:
    """The 382 JSB chorales in the split of Boulanger-Lewandowski et al. (2012).

    Each split is a list of int16 arrays of shape (T, 4), one row per sixteenth, columns soprano, alto, tenor, bass:
    MIDI pitch 36 to 81, or -1 for silence. Held and repeated notes look the same in these data.
    """

    train: list[npt.NDArray[np.int16]]
    valid: list[npt.NDArray[np.int16]]
    test: list[npt.NDArray[np.int16]]

    def split(self, name: str) -> list[npt.NDArray[np.int16]]:
        """The pieces of one split by its name."""
        if name not in JSB16_SPLITS:
            raise ValueError(f"split: expected one of {', '.join(JSB16_SPLITS)}, got {name!r}")
        pieces: list[npt.NDArray[np.int16]] = getattr(self, name)
        return pieces


def load_jsb16(path: str | PathLike[str], *, allow_other: bool = False) -> Jsb16:
    """Read `jsb16_separated.npz` or `jsb16_separated.json`.

    Parameters
    ----------
    path : str or path
        The file, or a folder that holds one of the two.
    allow_other : bool
        Take a file whose SHA-256 is not one of `JSB16_SHA256` (it must still have the same form). Numbers from such
        a file are not the benchmark's.

    Raises
    ------
    ValueError
        The file is another one (the message gives both hashes), or not of this form.
    OSError
        It cannot be read.
    """
    file = Path(path)
    if file.is_dir():
        names = list(JSB16_SHA256.values())
        file = next((file / name for name in names if (file / name).is_file()), file / names[0])
    data = file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest not in JSB16_SHA256 and not allow_other:
        known = ", ".join(f"{name} {sha}" for sha, name in JSB16_SHA256.items())
        raise ValueError(
            f"{file}: expected a file with SHA-256 {known}; got {digest}, which is not the benchmark's data"
        )
    try:
        splits = _jsb16_from_npz(data) if data[:4] == b"PK\x03\x04" else _jsb16_from_json(data)
    except (KeyError, TypeError, ValueError, OverflowError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file}: expected the splits train, valid and test of (T, 4) pitches, got {error}") from error
    for name in JSB16_SPLITS:
        for index, piece in enumerate(splits[name]):
            where = f"{file}: {name} piece {index}"
            if piece.ndim != 2 or piece.shape[1] != 4 or piece.shape[0] == 0:
                raise ValueError(f"{where}: expected shape (T, 4) with T > 0, got {piece.shape}")
            low, high = JSB16_LOWEST_PITCH, JSB16_LOWEST_PITCH + JSB16_SYMBOLS - 2
            wrong = (piece != REST) & ((piece < low) | (piece > high))
            if wrong.any():
                raise ValueError(f"{where}: expected pitches {low} to {high} or {REST}, got {piece[wrong][0]}")
    return Jsb16(**splits)


def _jsb16_from_npz(data: bytes) -> dict[str, list[npt.NDArray[np.int16]]]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        splits = {}
        for name in JSB16_SPLITS:
            pitch, offsets = arrays[f"{name}_pitch"].astype(np.int16), arrays[f"{name}_offsets"]
            splits[name] = [pitch[start:stop] for start, stop in itertools.pairwise(offsets.tolist())]
    return splits


def _jsb16_from_json(data: bytes) -> dict[str, list[npt.NDArray[np.int16]]]:
    pieces = json.loads(data)
    return {name: [np.array(piece, dtype=np.int16) for piece in pieces[name]] for name in JSB16_SPLITS}


@dataclass(frozen=True)
class Jsb16Score:
    """Negative log-likelihood of one split, in nats.

    Attributes
    ----------
    joint : float
        Sum over every token that is needed to write the notes, divided by `tokens` (micro average).
    joint_macro : float
        The same quotient for each piece, then the plain mean over pieces.
    per_voice : dict
        The share of each voice in `joint`, times four, so that their mean is `joint` when there are no other tokens.
    other : float
        What tokens that are not notes (chords, flags) add to `joint`.
    tokens, pieces : int
        Note tokens (four per sixteenth) and pieces scored.
    """

    joint: float
    joint_macro: float
    per_voice: dict[str, float]
    other: float
    tokens: int
    pieces: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON."""
        return {
            "joint": self.joint,
            "joint_macro": self.joint_macro,
            "per_voice": dict(self.per_voice),
            "other": self.other,
            "tokens": self.tokens,
            "pieces": self.pieces,
        }


LogProb = Callable[[npt.NDArray[np.int16]], npt.NDArray[np.floating[Any]]]


def evaluate_jsb16(
    log_prob: LogProb,
    pieces: Sequence[npt.NDArray[np.int16]],
    *,
    columns: Sequence[str] = VOICES,
    check_leaks: int = 3,
) -> Jsb16Score:
    """Score whole pieces, each from its first step, one at a time: there is nothing to pad and nothing to reset.

    Parameters
    ----------
    log_prob : callable
        Takes a piece, int16 (T, 4) in the order soprano, alto, tenor, bass, and returns natural log-probabilities of
        shape (T, len(columns)), every value at most 0.
    columns : sequence of str
        What the columns of that result are. The four voices must be among them; anything else is a token that the
        model needs beside the notes and is charged to `joint` as well.
    check_leaks : int
        For so many pieces, score the first half alone as well: a model that looks ahead, or that knows how long the
        piece is, gives other numbers and is refused.

    Raises
    ------
    ValueError
        The result has another shape, a value that is positive or not finite, or changes when the future is cut off.

    Notes
    -----
    Protocol of the "note-wise" loss of Huang et al., "Music Transformer", ICLR 2019: no transposition at test, natural
    logarithm, silence is a symbol like the pitches.
    """
    missing = [voice for voice in VOICES if voice not in columns]
    if missing:
        raise ValueError(f"columns: expected soprano, alto, tenor and bass among them, got {list(columns)}")
    if len(pieces) == 0:
        raise ValueError("pieces: expected at least one, got none")
    sums = np.zeros(len(columns))
    per_piece = []
    tokens = 0
    for index, piece in enumerate(pieces):
        nats = _checked_nats(log_prob(piece), (piece.shape[0], len(columns)), f"log_prob of piece {index}")
        if index < check_leaks and piece.shape[0] > 1:
            half = piece.shape[0] // 2
            alone = _checked_nats(log_prob(piece[:half]), (half, len(columns)), f"log_prob of half of piece {index}")
            worst = float(np.abs(alone - nats[:half]).max())
            if worst > 1e-4:
                raise ValueError(
                    f"log_prob of piece {index}: expected the first {half} steps to cost the same without the rest, "
                    f"got a difference of {worst:.3g} nats: the model sees the future or the length of the piece"
                )
        sums += nats.sum(axis=0)
        per_piece.append(nats.sum() / (4 * piece.shape[0]))
        tokens += 4 * piece.shape[0]
    share = dict(zip(columns, (sums / tokens).tolist(), strict=True))
    return Jsb16Score(
        joint=float(sums.sum() / tokens),
        joint_macro=float(np.mean(per_piece)),
        per_voice={voice: 4 * share[voice] for voice in VOICES},
        other=float(sum(value for name, value in share.items() if name not in VOICES)),
        tokens=tokens,
        pieces=len(pieces),
    )


def _checked_nats(values: npt.ArrayLike, shape: tuple[int, int], what: str) -> npt.NDArray[np.float64]:
    nats = -np.asarray(values, dtype=np.float64)
    if nats.shape != shape:
        raise ValueError(f"{what}: expected shape {shape}, got {nats.shape}")
    if not np.isfinite(nats).all():
        raise ValueError(f"{what}: expected finite values, got {-nats[~np.isfinite(nats)][0]}")
    if nats.min() < -1e-6:
        raise ValueError(f"{what}: expected log-probabilities <= 0, got {-float(nats.min()):.6g}")
    return nats


def counting_model(
    train: Sequence[npt.NDArray[np.int16]], *, beat_phase: bool = False, smoothing: float = 0.1
) -> LogProb:
    """A first-order Markov chain per voice: the floor that a model of music must beat.

    p(symbol | previous symbol of the voice[, sixteenth within the beat]), counted over `train` with `smoothing` added
    to every count. Returns a function for `evaluate_jsb16`. On the benchmark: 0.934 valid, 0.983 test; with
    ``beat_phase=True`` 0.708 and 0.740.
    """
    phases = 4 if beat_phase else 1
    counts = np.full((4, phases, JSB16_SYMBOLS + 1, JSB16_SYMBOLS), smoothing)
    for piece in train:
        voice, phase, before, now = _transitions(piece, phases)
        np.add.at(counts, (voice, phase, before, now), 1.0)
    table = np.log(counts / counts.sum(axis=-1, keepdims=True))

    def log_prob(piece: npt.NDArray[np.int16]) -> npt.NDArray[np.floating[Any]]:
        values: npt.NDArray[np.float64] = table[_transitions(piece, phases)]
        return values

    return log_prob


def _transitions(piece: npt.NDArray[np.int16], phases: int) -> tuple[npt.NDArray[np.int64], ...]:
    now = np.where(piece < 0, 0, piece.astype(np.int64) - JSB16_LOWEST_PITCH + 1)
    before = np.concatenate([np.full((1, 4), JSB16_SYMBOLS), now[:-1]])
    phase = np.broadcast_to((np.arange(len(piece)) % phases)[:, None], now.shape)
    voice = np.broadcast_to(np.arange(4), now.shape)
    return voice, phase, before, now


def format_jsb16(scores: Mapping[str, Jsb16Score], *, name: str = "this model", parameters: int | None = None) -> str:
    """A Markdown table of `scores` (by split) above the published numbers, each with its protocol."""
    lines = ["| model | split | nats per note | protocol |", "| --- | --- | --- | --- |"]
    label = name if parameters is None else f"{name}, {parameters / 1e6:.2f} M parameters"
    for split, score in scores.items():
        counts = f"{score.tokens:,} note tokens, {score.pieces} pieces"
        lines += [
            f"| **{label}** | {split} | **{score.joint:.4f}** | joint, micro average over {counts} |",
            f"| {label} | {split} | {score.joint_macro:.4f} | joint, mean over pieces |",
        ]
        voices = ", ".join(f"{voice} {score.per_voice[voice]:.3f}" for voice in VOICES)
        extra = f", other tokens {score.other:.4f} per note" if score.other else ""
        lines.append(
            f"| {label} | {split} | {np.mean(list(score.per_voice.values())):.4f} | by voice: {voices}{extra} |"
        )
    lines += [f"| {model} | {split} | {nats:.3f} | {how} |" for model, split, nats, how in JSB16_PUBLISHED]
    lines.append("| counting, previous pitch of the voice (beat phase too) | valid | 0.934 (0.708) | voices apart |")
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------------------------------
# The report over four-part pieces


@dataclass(frozen=True, eq=False)
class Piece:
    """Four voices on a sixteenth-note grid.

    Attributes
    ----------
    pitch : int array of shape (T, 4)
        Sounding MIDI pitch of soprano, alto, tenor, bass at each sixteenth; -1 is a rest.
    onset : bool array of shape (T, 4)
        Where a note starts. A sounding pitch without an onset is held. Left out: a note starts wherever the pitch
        changes.
    position : int array of shape (T,), or None
        Sixteenth inside the bar, 0 on the bar line. None: the first step is a bar line, bars of `bar_length`.
    bar_length : int
        Sixteenths in a bar: 16 for 4/4, 12 for 3/4.
    name : str
        For messages.
    """

    pitch: npt.NDArray[np.int64]
    onset: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), dtype=bool))
    position: npt.NDArray[np.int64] | None = None
    bar_length: int = 16
    name: str = "piece"

    def __post_init__(self) -> None:
        pitch = np.array(self.pitch, dtype=np.int64)
        if pitch.ndim != 2 or pitch.shape[1] != 4 or pitch.shape[0] == 0:
            raise ValueError(f"{self.name}: pitch: expected shape (T, 4) with T > 0, got {pitch.shape}")
        if pitch.min() < REST or pitch.max() > 127:
            raise ValueError(f"{self.name}: pitch: expected -1 (rest) to 127, got {pitch.min()} to {pitch.max()}")
        sounding = pitch != REST
        if np.asarray(self.onset).size == 0:
            before = np.concatenate([np.full((1, 4), REST), pitch[:-1]])
            onset = sounding & (pitch != before)
        else:
            onset = np.array(self.onset, dtype=bool)
        if onset.shape != pitch.shape:
            raise ValueError(f"{self.name}: onset: expected shape {pitch.shape}, got {onset.shape}")
        if (onset & ~sounding).any():
            step, voice = np.argwhere(onset & ~sounding)[0]
            raise ValueError(f"{self.name}: onset: expected a pitch at step {step}, {VOICES[voice]}, got a rest")
        if self.bar_length <= 0:
            raise ValueError(f"{self.name}: bar_length: expected > 0, got {self.bar_length}")
        position = self.position
        if position is not None:
            position = np.array(position, dtype=np.int64)
            if position.shape != pitch.shape[:1]:
                raise ValueError(f"{self.name}: position: expected shape {pitch.shape[:1]}, got {position.shape}")
        object.__setattr__(self, "pitch", pitch)
        object.__setattr__(self, "onset", onset)
        object.__setattr__(self, "position", position)

    def __len__(self) -> int:
        return int(self.pitch.shape[0])

    def transposed(self, semitones: int) -> Piece:
        """The same piece so many semitones higher."""
        return replace(self, pitch=np.where(self.pitch == REST, REST, self.pitch + semitones))


def notes_of(piece: Piece) -> npt.NDArray[np.int64]:
    """The notes as rows (voice, first step, length in sixteenths, pitch), voice by voice in time order."""
    rows = []
    for voice in range(4):
        pitch = piece.pitch[:, voice]
        before = np.concatenate([[REST], pitch[:-1]])
        starts = np.flatnonzero(piece.onset[:, voice] | ((pitch != REST) & (pitch != before)))
        ends = np.flatnonzero(piece.onset[:, voice] | (pitch != before))
        ends = np.append(ends, len(pitch))
        stops = ends[np.searchsorted(ends, starts, side="right")]
        rows.append(np.stack([np.full_like(starts, voice), starts, stops - starts, pitch[starts]], axis=1))
    return np.concatenate(rows)


def pitch_classes_of(piece: Piece) -> npt.NDArray[np.float64]:
    """Time spent on each of the 12 pitch classes, all voices together, in sixteenths; C is 0."""
    sounding = piece.pitch[piece.pitch != REST]
    return np.bincount(sounding % 12, minlength=12).astype(np.float64)


def key_of(piece: Piece) -> tuple[int, Mode]:
    """Estimated key: tonic as a pitch class (C is 0) and mode.

    The key whose profile (Albrecht and Shanahan 2013) lies nearest, by Euclidean distance, to the piece's pitch classes
    weighted by duration. The same estimate serves generated and reference pieces.
    """
    return nearest_key(pitch_classes_of(piece))


def pitch_class_use(pieces: Sequence[Piece]) -> dict[str, npt.NDArray[np.float64]]:
    """Share of sounding time on each degree above the tonic (12 values from 0 up to 11 semitones), by mode.

    Pooled over the pieces whose estimated key has that mode; all zeros where there is none.
    """
    use = {mode: np.zeros(12) for mode in MODES}
    for piece in pieces:
        tonic, mode = key_of(piece)
        use[mode] += np.roll(pitch_classes_of(piece), -tonic)
    return {mode: counts / max(counts.sum(), 1.0) for mode, counts in use.items()}


def overlap(p: npt.ArrayLike, q: npt.ArrayLike) -> float:
    """Shared area of two distributions, the sum of min(p, q): 1 where they are equal, 0 where they never meet."""
    a, b = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    return float(np.minimum(a / max(a.sum(), 1e-300), b / max(b.sum(), 1e-300)).sum())


def divergence(p: npt.ArrayLike, q: npt.ArrayLike, *, smoothing: float = 1e-4) -> float:
    """Kullback-Leibler divergence of p from q, in nats, after adding `smoothing` to every share of both."""
    a, b = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    a, b = a / max(a.sum(), 1e-300) + smoothing, b / max(b.sum(), 1e-300) + smoothing
    a, b = a / a.sum(), b / b.sum()
    return float(np.sum(a * np.log(a / b)))


def voice_ranges(pieces: Sequence[Piece]) -> dict[str, dict[str, float]]:
    """Per voice: lowest, mean and highest MIDI pitch, over sounding time; empty for a voice that never sounds."""
    ranges: dict[str, dict[str, float]] = {}
    for voice, name in enumerate(VOICES):
        pitch = np.concatenate([piece.pitch[:, voice] for piece in pieces])
        pitch = pitch[pitch != REST]
        if len(pitch):
            ranges[name] = {"lowest": float(pitch.min()), "mean": float(pitch.mean()), "highest": float(pitch.max())}
        else:
            ranges[name] = {}
    return ranges


def out_of_range(pieces: Sequence[Piece], ranges: Mapping[str, Mapping[str, float]]) -> float:
    """Share of sounding time on pitches outside the lowest to highest of `ranges` (from `voice_ranges`)."""
    outside = sounding = 0
    for piece in pieces:
        for voice, name in enumerate(VOICES):
            pitch = piece.pitch[:, voice]
            pitch = pitch[pitch != REST]
            sounding += len(pitch)
            limits = ranges.get(name)
            if limits:
                outside += int(((pitch < limits["lowest"]) | (pitch > limits["highest"])).sum())
            else:
                outside += len(pitch)
    return outside / max(sounding, 1)


def voice_crossings(pieces: Sequence[Piece]) -> float:
    """Steps, per 100 steps, where some voice sounds lower than the next voice below it (S-A, A-T, T-B)."""
    crossed = steps = 0
    for piece in pieces:
        upper, lower = piece.pitch[:, :3], piece.pitch[:, 1:]
        crossed += int(((upper < lower) & (upper != REST) & (lower != REST)).any(axis=1).sum())
        steps += len(piece)
    return 100.0 * crossed / max(steps, 1)


def chord_changes(piece: Piece) -> npt.NDArray[np.int64]:
    """Steps t > 0 at which the pitch of at least one voice differs from the step before."""
    return 1 + np.flatnonzero((piece.pitch[1:] != piece.pitch[:-1]).any(axis=1))


def parallels(pieces: Sequence[Piece]) -> dict[str, float]:
    """Parallel perfect fifths and parallel octaves (unisons too), each per 100 chord changes.

    Two voices that sound before and after a chord change are parallel when both move, in the same direction, and the
    interval between them, in semitones modulo 12, is the same before and after: 7 (upper minus lower voice) for fifths,
    0 for octaves and unisons. Contrary motion from a fifth to a twelfth, repeated notes and diminished fifths do not
    count. Every one of the six pairs of voices counts for itself, so one change may hold several.

    Source: the rule of consecutive fifths and octaves (W. Piston, Harmony, chapter 2); the definition is that of
    ``parallelFifth`` and ``parallelUnisonOrOctave`` in music21's ``voiceLeading.VoiceLeadingQuartet``, with semitones
    in place of spelled intervals.
    """
    found = {"fifths": 0, "octaves": 0}
    changes = 0
    for piece in pieces:
        steps = chord_changes(piece)
        changes += len(steps)
        before, after = piece.pitch[steps - 1], piece.pitch[steps]
        for upper, lower in itertools.combinations(range(4), 2):
            here = (before[:, [upper, lower]] != REST).all(axis=1) & (after[:, [upper, lower]] != REST).all(axis=1)
            motion = np.sign(after - before)
            together = here & (motion[:, upper] != 0) & (motion[:, upper] == motion[:, lower])
            was, now = (before[:, upper] - before[:, lower]) % 12, (after[:, upper] - after[:, lower]) % 12
            found["fifths"] += int((together & (was == 7) & (now == 7)).sum())
            found["octaves"] += int((together & (was == 0) & (now == 0)).sum())
    return {name: 100.0 * count / max(changes, 1) for name, count in found.items()}


def strong_beats(piece: Piece) -> npt.NDArray[np.int64]:
    """Steps on a strong beat: the first of every bar and, in bars of 16 sixteenths, the middle one."""
    position = np.arange(len(piece)) % piece.bar_length if piece.position is None else piece.position
    strong = position == 0
    if piece.bar_length == 16:
        strong = strong | (position == 8)
    return np.flatnonzero(strong)


def _triads() -> npt.NDArray[np.bool_]:
    """(4096,): whether a set of pitch classes, as a bit mask, lies within a major or a minor triad."""
    inside = np.zeros(4096, dtype=bool)
    for root in range(12):
        for third in (3, 4):
            tones = [root, (root + third) % 12, (root + 7) % 12]
            for size in (1, 2, 3):
                for chosen in itertools.combinations(tones, size):
                    inside[sum(1 << tone for tone in chosen)] = True
    return inside


_IN_A_TRIAD = _triads()


def _masks(pitch: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    bits = np.where(pitch == REST, 0, 1 << (pitch % 12))
    masks: npt.NDArray[np.int64] = np.bitwise_or.reduce(bits, axis=-1)
    return masks


def consonance(pieces: Sequence[Piece]) -> dict[str, float]:
    """What sounds on strong beats (`strong_beats`), over the beats with at least three voices sounding.

    ``triads``: share of those beats whose pitch classes all belong to one major or one minor triad (complete or not).
    ``dissonant_pairs``: share of the pairs of voices there that are a second, a seventh or a tritone apart (1, 2, 6,
    10 or 11 semitones modulo 12).
    """
    triads = beats = dissonant = pairs = 0
    for piece in pieces:
        chords = piece.pitch[strong_beats(piece)]
        chords = chords[(chords != REST).sum(axis=1) >= 3]
        beats += len(chords)
        triads += int(_IN_A_TRIAD[_masks(chords)].sum())
        for upper, lower in itertools.combinations(range(4), 2):
            both = chords[(chords[:, upper] != REST) & (chords[:, lower] != REST)]
            pairs += len(both)
            dissonant += int(np.isin((both[:, upper] - both[:, lower]) % 12, (1, 2, 6, 10, 11)).sum())
    return {"triads": triads / max(beats, 1), "dissonant_pairs": dissonant / max(pairs, 1)}


NOTE_LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16)


def note_lengths(pieces: Sequence[Piece]) -> dict[str, float]:
    """Share of notes of 1, 2, 3, 4, 6, 8, 12 and 16 sixteenths, and of any other length (``"other"``)."""
    lengths = np.concatenate([notes_of(piece)[:, 2] for piece in pieces])
    total = max(len(lengths), 1)
    shares = {str(length): float((lengths == length).sum()) / total for length in NOTE_LENGTHS}
    shares["other"] = float((~np.isin(lengths, NOTE_LENGTHS)).sum()) / total
    return shares


def melodic_steps(pieces: Sequence[Piece]) -> npt.NDArray[np.float64]:
    """Share of melodic intervals from -12 to +12 semitones (25 values, wider ones at the ends), all voices together."""
    counts = np.zeros(25)
    for piece in pieces:
        notes = notes_of(piece)
        for voice in range(4):
            line = notes[notes[:, 0] == voice]
            touching = line[:-1, 1] + line[:-1, 2] == line[1:, 1]
            intervals = np.clip(np.diff(line[:, 3])[touching], -12, 12)
            counts += np.bincount(intervals + 12, minlength=25)
    shares: npt.NDArray[np.float64] = counts / max(float(counts.sum()), 1.0)
    return shares


def _windows(piece: Piece, size: int, transposed: bool) -> tuple[list[bytes], npt.NDArray[np.bool_]]:
    """Each window of `size` steps as bytes (pitches and onsets), and whether anything starts after its first step."""
    if len(piece) < size:
        return [], np.zeros(0, dtype=bool)
    pitch = np.lib.stride_tricks.sliding_window_view(piece.pitch, size, axis=0)  # (windows, voice, step)
    onset = np.lib.stride_tricks.sliding_window_view(piece.onset, size, axis=0)
    count = len(pitch)
    flat = pitch.reshape(count, -1)
    if transposed:
        first = flat[np.arange(count), (flat != REST).argmax(axis=1)]
        flat = np.where(flat == REST, -1000, flat - first[:, None])
    words = np.concatenate([flat, onset.reshape(count, -1)], axis=1).astype(np.int16)
    moves = np.asarray(onset[:, :, 1:].reshape(count, -1).any(axis=1), dtype=np.bool_)
    return [row.tobytes() for row in words], moves


def repetition(pieces: Sequence[Piece], *, window: int = 8) -> dict[str, float]:
    """``notes``: share of notes with the pitch of the note before them in the same voice.
    ``windows``: share of the windows of `window` steps that already occurred earlier in the same piece, note for note;
    windows in which nothing starts after the first step do not count.
    """
    same = following = again = total = 0
    for piece in pieces:
        notes = notes_of(piece)
        for voice in range(4):
            pitch = notes[notes[:, 0] == voice, 3]
            same += int((np.diff(pitch) == 0).sum())
            following += max(len(pitch) - 1, 0)
        seen: set[bytes] = set()
        for key, moves in zip(*_windows(piece, window, transposed=False), strict=True):
            if moves:
                total += 1
                again += key in seen
            seen.add(key)
    return {"notes": same / max(following, 1), "windows": again / max(total, 1)}


def copied(pieces: Sequence[Piece], training: Sequence[Piece], *, window: int = 8) -> dict[str, float]:
    """Share of the windows of `window` steps that occur in `training`: all four voices, pitches and onsets alike.

    ``exact``: at the same pitch; ``transposed``: at any transposition. Windows begin at every step; those in which
    nothing starts after the first step (one held chord) do not count. Compare with the same number for real pieces that
    the model has not seen: chorales share formulas.
    """
    shares = {}
    for name, transposed in (("exact", False), ("transposed", True)):
        known = {key for piece in training for key in _windows(piece, window, transposed)[0]}
        found = total = 0
        for piece in pieces:
            for key, moves in zip(*_windows(piece, window, transposed), strict=True):
                if moves:
                    total += 1
                    found += key in known
        shares[name] = found / max(total, 1)
    return shares


def endings(pieces: Sequence[Piece]) -> dict[str, float]:
    """The last chord (the last step at which any voice sounds), as shares of the pieces.

    ``triad``: its pitch classes are exactly a major or a minor triad, complete or without its fifth.
    ``root_position``: such a triad with its root in the bass voice.
    ``tonic_bass``: the bass voice has the tonic of the estimated key (`key_of`).
    """
    triad = rooted = tonic = 0
    for piece in pieces:
        sounding = np.flatnonzero((piece.pitch != REST).any(axis=1))
        if len(sounding) == 0:
            continue
        chord = piece.pitch[sounding[-1]]
        classes = {int(p) % 12 for p in chord if p != REST}
        bass = int(chord[3]) % 12 if chord[3] != REST else None
        roots = [
            root
            for root in classes
            for third in (3, 4)
            if {root, (root + third) % 12} <= classes <= {root, (root + third) % 12, (root + 7) % 12}
        ]
        triad += bool(roots)
        rooted += bass in roots
        tonic += bass == key_of(piece)[0]
    count = max(len(pieces), 1)
    return {"triad": triad / count, "root_position": rooted / count, "tonic_bass": tonic / count}


def describe(
    pieces: Sequence[Piece], *, training: Sequence[Piece] | None = None, windows: Sequence[int] = (8, 32)
) -> dict[str, Any]:
    """Every number above for one set of pieces, as plain dicts, lists and floats (ready for JSON)."""
    if len(pieces) == 0:
        raise ValueError("pieces: expected at least one, got none")
    parallel, on_beats, again = parallels(pieces), consonance(pieces), repetition(pieces)
    described: dict[str, Any] = {
        "pieces": len(pieces),
        "steps": sum(len(piece) for piece in pieces),
        "notes": sum(len(notes_of(piece)) for piece in pieces),
        "chord_changes": sum(len(chord_changes(piece)) for piece in pieces),
        "major": sum(key_of(piece)[1] == "major" for piece in pieces) / len(pieces),
        "pitch_class_use": {mode: use.tolist() for mode, use in pitch_class_use(pieces).items()},
        "voice_ranges": voice_ranges(pieces),
        "voice_crossings_per_100_steps": voice_crossings(pieces),
        "parallel_fifths_per_100_changes": parallel["fifths"],
        "parallel_octaves_per_100_changes": parallel["octaves"],
        "triads_on_strong_beats": on_beats["triads"],
        "dissonant_pairs_on_strong_beats": on_beats["dissonant_pairs"],
        "note_lengths": note_lengths(pieces),
        "melodic_intervals": melodic_steps(pieces).tolist(),
        "repeated_notes": again["notes"],
        "repeated_windows": again["windows"],
        "endings": endings(pieces),
    }
    if training is not None:
        described["copied"] = {str(size): copied(pieces, training, window=size) for size in windows}
    return described


def report(
    pieces: Sequence[Piece],
    *,
    reference: Sequence[Piece] | None = None,
    training: Sequence[Piece] | None = None,
    windows: Sequence[int] = (8, 32),
) -> dict[str, Any]:
    """Describe `pieces`, and `reference` beside them.

    Parameters
    ----------
    pieces, reference, training : sequence of Piece
        What to describe, what to compare it with (real pieces), and what the model was trained on (for `copied`).
    windows : sequence of int
        Lengths, in sixteenths, of the windows that are looked up in `training`.

    Returns
    -------
    dict
        ``pieces``: see `describe`; with a reference also ``reference`` (the same numbers) and ``comparison``: overlap
        and divergence of pitch-class use by mode, overlap of note lengths and of melodic intervals, and the share of
        time outside the reference's voice ranges.
    """
    result: dict[str, Any] = {"pieces": describe(pieces, training=training, windows=windows)}
    if reference is None:
        return result
    result["reference"] = describe(reference, training=training, windows=windows)
    ours, theirs = result["pieces"], result["reference"]
    use, expected = ours["pitch_class_use"], theirs["pitch_class_use"]
    lengths = [list(side["note_lengths"].values()) for side in (ours, theirs)]
    result["comparison"] = {
        "pitch_class_overlap": {mode: overlap(use[mode], expected[mode]) for mode in MODES},
        "pitch_class_divergence": {mode: divergence(use[mode], expected[mode]) for mode in MODES},
        "note_length_overlap": overlap(*lengths),
        "melodic_interval_overlap": overlap(ours["melodic_intervals"], theirs["melodic_intervals"]),
        "out_of_range": out_of_range(pieces, theirs["voice_ranges"]),
    }
    return result


def format_report(result: Mapping[str, Any], *, names: tuple[str, str] = ("pieces", "reference")) -> str:
    """`report` as a Markdown table: one row per number, a column for the pieces and one for the reference."""
    sides = [result[key] for key in ("pieces", "reference") if key in result]
    lines = [
        "| | " + " | ".join(names[: len(sides)]) + " |",
        "| --- |" + " --- |" * len(sides),
    ]

    def row(label: str, number: Callable[[Any], str]) -> None:
        lines.append(f"| {label} | " + " | ".join(number(side) for side in sides) + " |")

    def percent(value: float) -> str:
        return f"{100 * value:.1f} %"

    row("pieces / steps / notes", lambda side: f"{side['pieces']} / {side['steps']:,} / {side['notes']:,}")
    row("pieces in a major key (estimated)", lambda side: percent(side["major"]))
    for voice in VOICES:
        row(f"{voice}: lowest, mean, highest pitch", lambda side, voice=voice: _range(side["voice_ranges"][voice]))  # type: ignore[misc]
    row("voice crossings per 100 steps", lambda side: f"{side['voice_crossings_per_100_steps']:.2f}")
    row("parallel fifths per 100 chord changes", lambda side: f"{side['parallel_fifths_per_100_changes']:.2f}")
    row("parallel octaves per 100 chord changes", lambda side: f"{side['parallel_octaves_per_100_changes']:.2f}")
    row("strong beats on a major or minor triad", lambda side: percent(side["triads_on_strong_beats"]))
    row("dissonant pairs of voices on strong beats", lambda side: percent(side["dissonant_pairs_on_strong_beats"]))
    row(
        "notes of 1, 2, 4, 8 sixteenths",
        lambda side: ", ".join(percent(side["note_lengths"][length]) for length in ("1", "2", "4", "8")),
    )
    row("notes that repeat the one before", lambda side: percent(side["repeated_notes"]))
    row("8-step windows heard before in the piece", lambda side: percent(side["repeated_windows"]))
    row("last chord a triad", lambda side: percent(side["endings"]["triad"]))
    row("last chord a triad in root position", lambda side: percent(side["endings"]["root_position"]))
    row("last bass note the tonic", lambda side: percent(side["endings"]["tonic_bass"]))
    for size in sides[0].get("copied", {}):
        row(f"{size}-step windows found in the training set", lambda s, size=size: percent(s["copied"][size]["exact"]))  # type: ignore[misc]
        row("… at any transposition", lambda s, size=size: percent(s["copied"][size]["transposed"]))  # type: ignore[misc]
    if "comparison" in result:
        both = result["comparison"]
        overlaps, divergences = both["pitch_class_overlap"], both["pitch_class_divergence"]
        lines += [
            "",
            f"| {names[0]} against {names[1]} | |",
            "| --- | --- |",
            *(
                f"| pitch-class use, {mode}: overlap, divergence | {overlaps[mode]:.3f}, {divergences[mode]:.4f} nats |"
                for mode in MODES
            ),
            f"| note lengths: overlap | {both['note_length_overlap']:.3f} |",
            f"| melodic intervals: overlap | {both['melodic_interval_overlap']:.3f} |",
            f"| time outside the voice ranges | {percent(both['out_of_range'])} |",
        ]
    return "\n".join(lines)


def _range(limits: Mapping[str, float]) -> str:
    return f"{limits['lowest']:.0f}, {limits['mean']:.1f}, {limits['highest']:.0f}" if limits else "silent"


__all__ = [
    "JSB16_PUBLISHED",
    "JSB16_SHA256",
    "VOICES",
    "Jsb16",
    "Jsb16Score",
    "Piece",
    "chord_changes",
    "consonance",
    "copied",
    "counting_model",
    "describe",
    "divergence",
    "endings",
    "evaluate_jsb16",
    "format_jsb16",
    "format_report",
    "key_of",
    "load_jsb16",
    "melodic_steps",
    "note_lengths",
    "notes_of",
    "out_of_range",
    "overlap",
    "parallels",
    "pitch_class_use",
    "pitch_classes_of",
    "repetition",
    "report",
    "strong_beats",
    "voice_crossings",
    "voice_ranges",
]
