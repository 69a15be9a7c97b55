from collections.abc import Sequence
from typing import Any, TypeAlias, final

import numpy as np
import numpy.typing as npt

_Array: TypeAlias = npt.NDArray[Any]

__version__: str
compiler: str

def isa_in_use() -> str: ...
def isas_available() -> list[str]: ...

note_dtype: np.dtype[np.void]
event_dtype: np.dtype[np.void]

# format, division, notes, events, payload, payload_ends, track_ends
_Tables: TypeAlias = tuple[int, int, _Array, _Array, _Array, _Array, _Array]

# tables, chunks, issues, unlisted_issues
def midi_parse(data: bytes, strict: bool) -> tuple[_Tables, bytes, list[tuple[str, int, int]], int]: ...
def midi_write(
    format: int,
    division: int,
    notes: _Array,
    events: _Array,
    payload: _Array,
    payload_ends: _Array,
    track_ends: _Array,
    chunks: bytes,
) -> bytes: ...
def midi_check_notes(notes: _Array) -> None: ...

part_note_dtype: np.dtype[np.void]
part_pedal_dtype: np.dtype[np.void]
part_bend_dtype: np.dtype[np.void]
roll_max_width: float

@final
class RollOptions:
    def __init__(
        self,
        fs: float,
        steps_per_beat: int,
        pedal_threshold: float | None,
        times: _Array | None,
        drums: bool,
        per_track: bool,
    ) -> None: ...

@final
class Roll:
    # Made by the static methods only.
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    # roll, issues, unlisted_issues
    @staticmethod
    def of_bytes(
        data: bytes, options: RollOptions, as_written: bool
    ) -> tuple[Roll, list[tuple[str, int, int]], int]: ...
    @staticmethod
    def of_song(
        format: int,
        division: int,
        notes: _Array,
        events: _Array,
        payload: _Array,
        payload_ends: _Array,
        track_ends: _Array,
        options: RollOptions,
        as_written: bool,
    ) -> Roll: ...
    # parts: track, width, pedals, bends
    @staticmethod
    def of_parts(
        parts: list[tuple[int, int, _Array, _Array]], notes: _Array, num_tracks: int, options: RollOptions
    ) -> Roll: ...
    @property
    def width(self) -> float: ...
    @property
    def num_tracks(self) -> int: ...
    def draw(self, channel: str, binary: bool, zeroed: bool, out: _Array) -> None: ...
    def draw_bits(self, channel: str, zeroed: bool, out: _Array) -> None: ...

def midi_seconds(
    format: int,
    division: int,
    notes: _Array,
    events: _Array,
    payload: _Array,
    payload_ends: _Array,
    track_ends: _Array,
    ticks: npt.NDArray[np.int64],
    track: int,
    as_pretty_midi: bool,
) -> npt.NDArray[np.float64]: ...
def midi_duration(
    format: int,
    division: int,
    notes: _Array,
    events: _Array,
    payload: _Array,
    payload_ends: _Array,
    track_ends: _Array,
) -> float: ...

@final
class Cancel:
    def __init__(self) -> None: ...
    def is_set(self) -> bool: ...
    def set(self) -> None: ...

class Encoder:
    # Made by the encodings' own classes.
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    @property
    def width(self) -> int: ...
    # tokens, what the encoding could not hold
    def encode(
        self,
        format: int,
        division: int,
        notes: _Array,
        events: _Array,
        payload: _Array,
        payload_ends: _Array,
        track_ends: _Array,
    ) -> tuple[npt.NDArray[np.int32], list[str]]: ...
    def decode(self, tokens: npt.NDArray[np.int32]) -> _Tables: ...

# tokens; of every file: rows, bytes (-1: not read); SHA-256 end to end; (file, errno, message, offset or -1, track or
# -1); (file, issues). None if it was cancelled
def encode_files(
    encoder: Encoder, paths: list[bytes], strict: bool, max_duration: float, narrow: bool, cancel: Cancel
) -> (
    tuple[
        _Array,
        npt.NDArray[np.int64],
        npt.NDArray[np.int64],
        bytes,
        list[tuple[int, int, str, int, int]],
        list[tuple[int, list[str]]],
    ]
    | None
): ...

class VoiceGrid(Encoder):
    def __init__(
        self,
        voices: list[tuple[str, list[str], int, int]],
        hold: bool,
        lowest_pitch: int,
        num_pitches: int,
        microseconds_per_quarter: int,
        program: int,
    ) -> None: ...
    def tokens(
        self,
        pitch: npt.NDArray[np.int32],
        onset: npt.NDArray[np.bool_] | None,
        fermata: npt.NDArray[np.bool_] | None,
        end: bool,
    ) -> npt.NDArray[np.int32]: ...
    def check(self, tokens: npt.NDArray[np.int32]) -> None: ...
    # pitch, onset, fermata, whether there was an end
    def grid(
        self, tokens: npt.NDArray[np.int32]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_], npt.NDArray[np.bool_], bool]: ...
    def decode_as(
        self,
        tokens: npt.NDArray[np.int32],
        numerator: int,
        denominator: int,
        pickup: int,
        microseconds_per_quarter: int,
        key: tuple[int, int] | None,
        transpose: int,
    ) -> _Tables: ...
    # pitch, onset, fermata, first step, issues; or the problem and its tick
    def find(
        self,
        melody: bool,
        format: int,
        division: int,
        notes: _Array,
        events: _Array,
        payload: _Array,
        payload_ends: _Array,
        track_ends: _Array,
    ) -> tuple[Any, ...]: ...

@final
class BarEncoder(Encoder):
    def __init__(
        self,
        steps_per_beat: int,
        time_signatures: Sequence[tuple[int, int]],
        tempos: Sequence[int],
        durations: Sequence[int],
        chords: bool,
        programs: bool,
        drums: bool,
        velocity_bins: int,
        velocity: int,
        end: bool,
    ) -> None: ...

@final
class EventEncoder(Encoder):
    def __init__(
        self,
        steps_per_second: int,
        steps_per_beat: int,
        max_shift: int,
        velocity_bins: int,
        drums: bool,
        tracks: Sequence[int] | None,
        sustain: bool,
        velocity: int,
        end: bool,
    ) -> None: ...

@final
class PitchEncoder(Encoder):
    def __init__(
        self,
        lowest: int,
        highest: int,
        polyphony: int,
        drums: bool,
        tracks: Sequence[int] | None,
        duration: int,
        velocity: int,
        end: bool,
    ) -> None: ...

@final
class SamplerOptions:
    def __init__(self, temperature: float, top_k: int, top_p: float) -> None: ...

@final
class RecurrentStates:
    # Made by RecurrentModel.start and by sample only.
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    @property
    def frame(self) -> int: ...
    def __len__(self) -> int: ...
    def __getstate__(self) -> tuple[Any, ...]: ...
    def __setstate__(self, state: tuple[Any, ...]) -> None: ...

@final
class FeedForwardModel:
    def __init__(self, config: dict[str, Any], tensors: dict[str, _Array], precision: str) -> None: ...
    @property
    def packed_bytes(self) -> int: ...
    @property
    def macs(self) -> int: ...
    def run(self, x: npt.NDArray[np.float32], last_scale: float, threads: int) -> npt.NDArray[np.float32]: ...

@final
class TupleModel:
    def __init__(self, config: dict[str, Any], tensors: dict[str, _Array], precision: str) -> None: ...
    @property
    def packed_bytes(self) -> int: ...
    @property
    def macs_per_step(self) -> int: ...
    # (n, outputs), the next state
    def run(
        self, noise: npt.NDArray[np.float32], state: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]: ...

@final
class RecurrentModel:
    def __init__(self, config: dict[str, Any], tensors: dict[str, _Array], precision: str) -> None: ...
    @property
    def packed_bytes(self) -> int: ...
    @property
    def macs_per_frame(self) -> int: ...
    def start(self, batch: int) -> RecurrentStates: ...

# tokens, lengths, log_probs, logits, the next state
def sample(
    model: RecurrentModel,
    state: RecurrentStates,
    n_frames: int,
    coins: npt.NDArray[np.float64],
    forced: npt.NDArray[np.int32] | None,
    given: npt.NDArray[np.int32],
    vector: npt.NDArray[np.float32],
    allowed: npt.NDArray[np.uint8] | None,
    stop: tuple[int, int],
    options: SamplerOptions,
    threads: int,
    log_probs: bool,
    logits: bool,
) -> tuple[
    npt.NDArray[np.int32],
    npt.NDArray[np.int64],
    npt.NDArray[np.float64] | None,
    npt.NDArray[np.float32] | None,
    RecurrentStates,
]: ...

@final
class VariationalEncoder:
    def __init__(
        self, config: dict[str, Any], latent_size: int, tensors: dict[str, _Array], precision: str
    ) -> None: ...
    @property
    def packed_bytes(self) -> int: ...
    # mean, log-variance
    def encode(
        self, tokens: npt.NDArray[np.int32], threads: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]: ...

@final
class WaveNetStates:
    # Made by WaveNetModel.start and by wavenet_sample only.
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    @property
    def time(self) -> int: ...
    def __len__(self) -> int: ...
    def __getstate__(self) -> tuple[Any, ...]: ...
    def __setstate__(self, state: tuple[Any, ...]) -> None: ...

@final
class WaveNetModel:
    def __init__(self, config: dict[str, Any], tensors: dict[str, _Array], precision: str) -> None: ...
    @property
    def packed_bytes(self) -> int: ...
    @property
    def macs_per_sample(self) -> int: ...
    @property
    def receptive_field(self) -> int: ...
    @property
    def classes(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def coins_per_sample(self) -> int: ...
    def start(self, batch: int) -> WaveNetStates: ...

# samples, log_probs, logits, the next state
def wavenet_sample(
    model: WaveNetModel,
    state: WaveNetStates,
    n_samples: int,
    coins: npt.NDArray[np.float64],
    forced: npt.NDArray[np.int32] | None,
    condition: npt.NDArray[np.float32] | None,
    offset: int,
    options: SamplerOptions,
    threads: int,
    log_probs: bool,
    logits: bool,
) -> tuple[
    npt.NDArray[np.int32],
    npt.NDArray[np.float64] | None,
    npt.NDArray[np.float32] | None,
    WaveNetStates,
]: ...

@final
class AttentionStates:
    # Made by AttentionModel.start and by attention_sample only.
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    @property
    def frame(self) -> int: ...
    def __len__(self) -> int: ...
    def __getstate__(self) -> tuple[Any, ...]: ...
    def __setstate__(self, state: tuple[Any, ...]) -> None: ...

@final
class AttentionModel:
    def __init__(self, config: dict[str, Any], tensors: dict[str, _Array], precision: str) -> None: ...
    @property
    def packed_bytes(self) -> int: ...
    @property
    def macs_per_token(self) -> int: ...
    def start(self, batch: int, memories: list[Any]) -> AttentionStates: ...

# tokens, lengths, log_probs, logits, the next state
def attention_sample(
    model: AttentionModel,
    state: AttentionStates,
    n_frames: int,
    coins: npt.NDArray[np.float64],
    forced: npt.NDArray[np.int32] | None,
    allowed: npt.NDArray[np.uint8] | None,
    stop: int,
    options: SamplerOptions,
    threads: int,
    log_probs: bool,
    logits: bool,
) -> tuple[
    npt.NDArray[np.int32],
    npt.NDArray[np.int64],
    npt.NDArray[np.float64] | None,
    npt.NDArray[np.float32] | None,
    AttentionStates,
]: ...

@final
class FramesStates:
    # Made by FramesModel.start and by frames_sample only.
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    @property
    def frame(self) -> int: ...
    def __len__(self) -> int: ...
    def __getstate__(self) -> tuple[Any, ...]: ...
    def __setstate__(self, state: tuple[Any, ...]) -> None: ...

@final
class FramesModel:
    def __init__(
        self, config: dict[str, Any], trunk_channels: Sequence[int], tensors: dict[str, _Array], precision: str
    ) -> None: ...
    @property
    def packed_bytes(self) -> int: ...
    @property
    def macs_per_frame(self) -> int: ...
    def start(self, batch: int) -> FramesStates: ...

# frames, log_probs, logits, the next state
def frames_sample(
    model: FramesModel,
    state: FramesStates,
    n_frames: int,
    coins: npt.NDArray[np.float64],
    forced: npt.NDArray[np.int8] | None,
    options: SamplerOptions,
    threads: int,
    log_probs: bool,
    logits: bool,
) -> tuple[
    npt.NDArray[np.uint8],
    npt.NDArray[np.float64] | None,
    npt.NDArray[np.float32] | None,
    FramesStates,
]: ...

# audio
tone_dtype: np.dtype[np.void]
drum_program: int

def synthesize(tones: _Array, sr: float, room: float = ..., max_bytes: int = ...) -> npt.NDArray[np.float32]: ...
def synth_timbre(program: int, frequency: float, velocity: float, sr: float) -> dict[str, Any]: ...

# features
_F32: TypeAlias = npt.NDArray[np.float32]
_F64: TypeAlias = npt.NDArray[np.float64]

# how many NaN and infinities, and the flat index of the first one
def nonfinite(values: _F32) -> tuple[int, int]: ...
def any_from(values: _F32, limit: float) -> bool: ...

# the largest
def to_log(x: _F32, squared: bool, factor: float, amin: float, offset: float, out: _F32) -> float: ...
def at_least(out: _F32, floor: float) -> None: ...
def exp2_of(x: _F32, rate: float, scale: float, out: _F32) -> None: ...
def mu_compress(x: _F32, mu: float, out: _F32) -> None: ...
def mu_law(x: _F32, mu: float, out: npt.NDArray[np.int32]) -> None: ...
def mu_expand(x: _F64, mu: float, out: _F32) -> None: ...
def polar(x: npt.NDArray[np.complex64], magnitude: _F32, direction: npt.NDArray[np.complex64]) -> None: ...
def rms(y: _F32, frame_length: int, hop_length: int, out: _F32) -> None: ...
def zero_crossing_rate(
    y: _F32, frame_length: int, hop_length: int, threshold: float, zero_apart: bool, out: _F32
) -> None: ...
def kaldi_frames(
    y: _F32,
    first_start: int,
    hop_length: int,
    window: _F64,
    remove_mean: bool,
    raw_energy: bool,
    preemphasis: float,
    begin: int,
    out: _F32,
    energies: _F32,
) -> None: ...

# where spectra come from
class Tiles:
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

def spectra(S: _F32, signs_allowed: bool) -> Tiles: ...
def tiles(
    analysis: Analysis32,
    signals: _F32,
    heads: _F32,
    tails: _F32,
    n_fft: int,
    hop: int,
    offset: int,
    n_frames: int,
    n_head: int,
    n_tail: int,
    threads: int,
) -> Tiles: ...
def spectral_centroid(tiles: Tiles, frequencies: _F64, out: _F32) -> None: ...
def spectral_bandwidth(
    tiles: Tiles, frequencies: _F64, centres: _F32 | None, norm: bool, p: float, out: _F32
) -> None: ...
def spectral_rolloff(tiles: Tiles, values: _F64, share: float, out: _F32) -> None: ...
def spectral_flatness(tiles: Tiles, power: float, amin: float, out: _F32) -> None: ...
def spectral_norm(tiles: Tiles, weights: _F64, out: _F32) -> None: ...
def spectral_sums(tiles: Tiles, weights: _F64, out: _F32) -> None: ...

# bands: first bin, one past the last, how many values to average
def spectral_extremes(tiles: Tiles, bands: list[tuple[int, int, int]], valley: _F32, peak: _F32) -> None: ...

# positions in bins, heights
def spectral_peaks(tiles: Tiles, low: int, high: int, threshold: float) -> tuple[_F32, _F32]: ...
def correlate(x: _F32, taps: _F64, first: int, out: _F32) -> None: ...

# matching
# One array of scores for every piece.
def match_correlate(clip: _Array, pieces: list[_Array], center: bool, threads: int) -> list[_Array]: ...

# Costs and starts for every piece.
def match_warp(
    clip: _Array, pieces: list[_Array], metric: str, step_weights: tuple[float, float, float], threads: int
) -> list[tuple[_Array, _Array]]: ...
def match_warp_path(clip: _Array, stretch: _Array, metric: str, step_weights: tuple[float, float, float]) -> _Array: ...

# spectra
class Analysis32:
    def __init__(
        self,
        window: npt.NDArray[np.float64],
        stop: str,
        power: float,
        bands: npt.NDArray[np.float32] | None,
        cepstra: npt.NDArray[np.float32] | None,
        decibels: bool,
        least: float,
        range: float | None,
    ) -> None: ...
    # False: there is a NaN or an infinity
    def run(
        self,
        signals: npt.NDArray[np.float32],
        heads: npt.NDArray[np.float32],
        tails: npt.NDArray[np.float32],
        n_fft: int,
        hop: int,
        offset: int,
        n_frames: int,
        n_head: int,
        n_tail: int,
        out: _Array,
        threads: int,
    ) -> bool: ...
    # None: something is out of the ordinary
    def run_plain(self, y: _Array, hop: int, centred: bool, threads: int) -> _Array | None: ...

class Analysis64:
    def __init__(
        self,
        window: npt.NDArray[np.float64],
        stop: str,
        power: float,
        bands: npt.NDArray[np.float64] | None,
        cepstra: npt.NDArray[np.float64] | None,
        decibels: bool,
        least: float,
        range: float | None,
    ) -> None: ...
    def run(
        self,
        signals: npt.NDArray[np.float64],
        heads: npt.NDArray[np.float64],
        tails: npt.NDArray[np.float64],
        n_fft: int,
        hop: int,
        offset: int,
        n_frames: int,
        n_head: int,
        n_tail: int,
        out: _Array,
        threads: int,
    ) -> bool: ...
    # None: something is out of the ordinary
    def run_plain(self, y: _Array, hop: int, centred: bool, threads: int) -> _Array | None: ...

class Synthesis32:
    def __init__(self, window: npt.NDArray[np.float64], hop: int) -> None: ...
    def run(
        self,
        spectra: npt.NDArray[np.complex64],
        bins: int,
        n_frames: int,
        offset: int,
        out: npt.NDArray[np.float32],
        threads: int,
    ) -> None: ...

class Synthesis64:
    def __init__(self, window: npt.NDArray[np.float64], hop: int) -> None: ...
    def run(
        self,
        spectra: npt.NDArray[np.complex128],
        bins: int,
        n_frames: int,
        offset: int,
        out: npt.NDArray[np.float64],
        threads: int,
    ) -> None: ...
