"""Filter banks and cepstra as Kaldi computes them, for those who come from kaldi-native-fbank or torchaudio.

The names of the options are those of ``torchaudio.compliance.kaldi``; in kaldi-native-fbank they are called

=============================  =======================================================================
here                           ``FbankOptions``, ``MfccOptions``
=============================  =======================================================================
``sr``                         ``frame_opts.samp_freq`` (torchaudio: ``sample_frequency``)
``frame_length``               ``frame_opts.frame_length_ms``
``frame_shift``                ``frame_opts.frame_shift_ms``
``preemphasis_coefficient``    ``frame_opts.preemph_coeff``
``remove_dc_offset``           ``frame_opts.remove_dc_offset``
``window_type``                ``frame_opts.window_type``
``blackman_coeff``             ``frame_opts.blackman_coeff``
``round_to_power_of_two``      ``frame_opts.round_to_power_of_two``
``snip_edges``                 ``frame_opts.snip_edges``
``num_mel_bins``               ``mel_opts.num_bins``
``low_freq``, ``high_freq``    ``mel_opts.low_freq``, ``mel_opts.high_freq``
``use_energy``                 ``use_energy`` (``MfccOptions`` has True by default, torchaudio False)
``raw_energy``                 ``raw_energy``
``energy_floor``               ``energy_floor`` (0 by default; torchaudio: 1)
``htk_compat``                 ``htk_compat``
``use_log_fbank``              ``use_log_fbank``
``use_power``                  ``use_power``
``num_ceps``                   ``num_ceps``
``cepstral_lifter``            ``cepstral_lifter``
=============================  =======================================================================

Dither (``frame_opts.dither``, 1 by default there) is noise that makes every result another one: here it is always 0;
add noise to the signal where silence needs some. Warped frequency axes (``vtln_*``) are not offered. Samples are taken
as they come: where a model was trained on 16-bit integers, multiply by 32768 first.

Source: D. Povey et al., The Kaldi Speech Recognition Toolkit, ASRU 2011; S. Young et al., The HTK Book, chapter 5.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from musicgen_ext import _core, checks
from musicgen_ext.features import spectra
from musicgen_ext.features.windows import get_window

_F32 = npt.NDArray[np.float32]
_F64 = npt.NDArray[np.float64]

_EPSILON = float(np.finfo(np.float32).eps)  # what an energy counts as at least
_CHUNK = 4096  # frames that are prepared at once
WINDOWS = ("povey", "hanning", "hamming", "rectangular", "blackman")


def kaldi_fbank(
    y: npt.ArrayLike,
    *,
    sr: float = 16000,
    num_mel_bins: int = 23,
    frame_length: float = 25.0,
    frame_shift: float = 10.0,
    preemphasis_coefficient: float = 0.97,
    remove_dc_offset: bool = True,
    window_type: str = "povey",
    blackman_coeff: float = 0.42,
    round_to_power_of_two: bool = True,
    snip_edges: bool = True,
    low_freq: float = 20.0,
    high_freq: float = 0.0,
    use_energy: bool = False,
    raw_energy: bool = True,
    energy_floor: float = 1.0,
    htk_compat: bool = False,
    use_log_fbank: bool = True,
    use_power: bool = True,
) -> _F32:
    """Energies in mel bands.

    Parameters
    ----------
    y : np.ndarray [shape=(n,)], floating point
        One channel.
    sr : number > 0
        Sample rate, in Hz.
    num_mel_bins : int >= 3
    frame_length, frame_shift : float > 0
        In milliseconds, rounded down to whole samples.
    preemphasis_coefficient : float, 0 to 1
        Each sample minus so much of the one before.
    remove_dc_offset : bool
        Subtract the mean of each frame.
    window_type : "povey", "hanning", "hamming", "rectangular" or "blackman"
    blackman_coeff : float
        Of the Blackman window.
    round_to_power_of_two : bool
        Pad frames with zeros to the next power of two.
    snip_edges : bool
        Only whole frames; False: ``n / shift`` of them, rounded, the signal mirrored at its ends.
    low_freq, high_freq : float
        Edges of the bands, in Hz; `high_freq` of 0 or less counts from ``sr / 2``.
    use_energy : bool
        Add the logarithm of the frame's energy as the first column.
    raw_energy : bool
        The energy before pre-emphasis and window; False: after them.
    energy_floor : float >= 0
        What the frame's energy counts as at least.
    htk_compat : bool
        The energy comes last.
    use_log_fbank : bool
        Natural logarithms; False: energies.
    use_power : bool
        Of powers; False: of magnitudes.

    Returns
    -------
    np.ndarray [shape=(frames, num_mel_bins) or (frames, num_mel_bins + 1)], float32
        Within 1e-3 (of logarithms of 5 to 25) of kaldi-native-fbank, whose single precision is the limit.

    Raises
    ------
    TypeError, ValueError, MemoryError
        An argument of the wrong type, out of its range, or not finite; the message names it.
    """
    energies, bands = _bands(
        y, sr, num_mel_bins, frame_length, frame_shift, preemphasis_coefficient, remove_dc_offset, window_type,
        blackman_coeff, round_to_power_of_two, snip_edges, low_freq, high_freq, raw_energy, energy_floor, use_power,
    )  # fmt: skip
    if use_log_fbank:
        bands = _logarithms(bands, _EPSILON)
    if not use_energy:
        return bands.T.copy()
    rows = (bands, energies[None]) if htk_compat else (energies[None], bands)
    return np.concatenate(rows).T.copy()


def kaldi_mfcc(
    y: npt.ArrayLike,
    *,
    sr: float = 16000,
    num_ceps: int = 13,
    num_mel_bins: int = 23,
    frame_length: float = 25.0,
    frame_shift: float = 10.0,
    preemphasis_coefficient: float = 0.97,
    remove_dc_offset: bool = True,
    window_type: str = "povey",
    blackman_coeff: float = 0.42,
    round_to_power_of_two: bool = True,
    snip_edges: bool = True,
    low_freq: float = 20.0,
    high_freq: float = 0.0,
    cepstral_lifter: float = 22.0,
    use_energy: bool = False,
    raw_energy: bool = True,
    energy_floor: float = 1.0,
    htk_compat: bool = False,
) -> _F32:
    """Cepstra of the logarithms of energies in mel bands.

    Parameters
    ----------
    num_ceps : int, 1 to `num_mel_bins`
        How many cepstra.
    cepstral_lifter : float >= 0
        Cepstrum k is multiplied by ``1 + lifter / 2 * sin(pi * k / lifter)``; 0: by 1.
    use_energy : bool
        The logarithm of the frame's energy in place of cepstrum 0.
    htk_compat : bool
        Cepstrum 0 (times the root of 2, unless it is the energy) comes last.
    others
        As in `kaldi_fbank`.

    Returns
    -------
    np.ndarray [shape=(frames, num_ceps)], float32
        Within 5e-3 of kaldi-native-fbank, where cepstra reach 100.
    """
    num_mel_bins = checks.integer("num_mel_bins", num_mel_bins, 3, 1 << 20)
    num_ceps = checks.integer("num_ceps", num_ceps)
    if num_ceps > num_mel_bins:
        raise ValueError(f"num_ceps: expected at most num_mel_bins={num_mel_bins}, got {num_ceps}")
    lifter = checks.real("cepstral_lifter", cepstral_lifter, 0)
    energies, bands = _bands(
        y, sr, num_mel_bins, frame_length, frame_shift, preemphasis_coefficient, remove_dc_offset, window_type,
        blackman_coeff, round_to_power_of_two, snip_edges, low_freq, high_freq, raw_energy, energy_floor, True,
    )  # fmt: skip
    cepstra = checks.empty("cepstra", (1, num_ceps, bands.shape[1]))
    if cepstra.size:
        logarithms = _core.spectra(_logarithms(bands, _EPSILON)[None], True)
        _core.spectral_sums(logarithms, _cosines(num_ceps, num_mel_bins, lifter), cepstra)
    result = cepstra[0].T
    if use_energy:
        result[:, 0] = energies
    if htk_compat:
        result = np.roll(result, -1, axis=1)
        if not use_energy:
            result[:, -1] *= np.float32(math.sqrt(2))
    return np.ascontiguousarray(result)


# -- helpers -----------------------------------------------------------------------------------------------------------


def _bands(
    y: Any, sr: float, num_mel_bins: int, frame_length: float, frame_shift: float, preemphasis: float,
    remove_dc_offset: bool, window_type: str, blackman_coeff: float, round_to_power_of_two: bool, snip_edges: bool,
    low_freq: float, high_freq: float, raw_energy: bool, energy_floor: float, use_power: bool,
) -> tuple[_F32, _F32]:  # fmt: skip
    """Logarithms of the frames' energies, (frames,), and energies in bands, (num_mel_bins, frames)."""
    sr = checks.rate(sr)
    samples = checks.samples(y)
    if samples.ndim != 1:
        raise ValueError(f"y: expected one channel, shape (n,), got {samples.shape}")
    num_mel_bins = checks.integer("num_mel_bins", num_mel_bins, 3, 1 << 20)
    length = int(sr * 0.001 * checks.real("frame_length", frame_length, above=0))
    hop = int(sr * 0.001 * checks.real("frame_shift", frame_shift, above=0))
    if length < 2:
        raise ValueError(f"frame_length: expected at least 2 samples with sr={sr:g}, got {frame_length:g} ms")
    if hop < 1:
        raise ValueError(f"frame_shift: expected at least 1 sample with sr={sr:g}, got {frame_shift:g} ms")
    checks.integer("frame_length", length, 2, 1 << 30)
    preemphasis = checks.real("preemphasis_coefficient", preemphasis, 0, 1)
    checks.choice("window_type", window_type, WINDOWS)
    floor = checks.real("energy_floor", energy_floor, 0)
    nyquist = sr / 2
    low = checks.real("low_freq", low_freq, 0)
    high = checks.real("high_freq", high_freq)
    high = high if high > 0 else nyquist + high
    if not low < high <= nyquist:
        raise ValueError(
            f"high_freq: expected more than low_freq={low:g} and at most sr / 2 = {nyquist:g} Hz, got {high:g}"
        )
    padded = 1 << (length - 1).bit_length() if round_to_power_of_two else length
    window = np.ascontiguousarray(_window(window_type, length, checks.real("blackman_coeff", blackman_coeff)))

    if snip_edges:
        count, first = max(0, 1 + (len(samples) - length) // hop), 0
    else:
        count, first = (len(samples) + hop // 2) // hop, hop // 2 - length // 2
    bands, energies = checks.empty("bands", (num_mel_bins, count)), checks.empty("energies", (count,))
    analysis = _analysis(padded, num_mel_bins, sr, low, high, 2.0 if use_power else 1.0)
    chunk = max(16, _CHUNK * 512 // padded)
    for begin in range(0, count, chunk):
        size = min(chunk, count - begin)
        frames = checks.empty("frames", (size, padded))
        energy = energies[begin : begin + size]
        _core.kaldi_frames(
            samples, first, hop, window, bool(remove_dc_offset), bool(raw_energy), preemphasis, begin, frames, energy
        )
        some = checks.empty("bands", (1, num_mel_bins, size))
        row = frames.reshape(1, -1)
        none = row[:, :0]
        if not analysis.run(row, none, none, padded, padded, 0, size, 0, 0, some, spectra.threads_for(None, size)):
            raise ValueError("y: expected numbers whose frames float32 can hold, got too large ones")
        bands[:, begin : begin + size] = some[0]
    return _logarithms(energies, max(_EPSILON, floor)), bands


def _logarithms(values: _F32, least: float) -> _F32:
    out = checks.empty("logarithms", values.shape)
    _core.to_log(values, False, 1.0, least, 0.0, out)
    return out


def _window(name: str, length: int, blackman_coeff: float) -> _F64:
    if name == "blackman":
        terms = (blackman_coeff, 0.5, 0.5 - blackman_coeff)
        return get_window(("general_cosine", terms), length, fftbins=False)
    return get_window("hann" if name == "hanning" else name, length, fftbins=False)


@lru_cache(maxsize=8)
def _analysis(padded: int, num_mel_bins: int, sr: float, low: float, high: float, power: float) -> Any:
    return _core.Analysis32(
        np.ones(padded), "bands", power, _mel_bands(padded, num_mel_bins, sr, low, high), None, False, 1e-10, None
    )


def _mel_bands(padded: int, num_mel_bins: int, sr: float, low: float, high: float) -> _F32:
    """Triangles on the mel scale, over frequencies converted to it; the bin at sr / 2 takes no part."""

    def mel(frequency: Any) -> Any:
        return 1127.0 * np.log1p(np.asarray(frequency, np.float64) / 700.0)

    bins = padded // 2
    checks.empty("bands", (num_mel_bins, 1 + bins), np.float64)  # fits, or raises
    edges = np.linspace(mel(low), mel(high), num_mel_bins + 2)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    places = mel(np.arange(bins) * (sr / padded))[None]
    rising, falling = (places - left) / (centre - left), (right - places) / (right - centre)
    weights = np.zeros((num_mel_bins, 1 + padded // 2), np.float32)
    weights[:, :bins] = np.maximum(0, np.minimum(rising, falling))
    empty = np.flatnonzero(~weights.any(axis=1))
    if len(empty):
        raise ValueError(
            f"num_mel_bins: expected bands that hold at least one of {bins} bins, got {num_mel_bins} between {low:g} "
            f"and {high:g} Hz, of which {len(empty)} hold none"
        )
    return weights


@lru_cache(maxsize=8)
def _cosines(num_ceps: int, num_mel_bins: int, lifter: float) -> _F64:
    k = np.arange(num_ceps)[:, None]
    cosines = np.cos(np.pi / num_mel_bins * (np.arange(num_mel_bins) + 0.5) * k) * math.sqrt(2 / num_mel_bins)
    cosines[0] = math.sqrt(1 / num_mel_bins)
    if lifter > 0:
        cosines *= 1 + 0.5 * lifter * np.sin(np.pi * k / lifter)
    return np.ascontiguousarray(cosines)
