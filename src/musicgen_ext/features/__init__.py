"""Numbers out of sound: librosa's names, signatures, shapes and values; float32 in, float32 out."""

from __future__ import annotations

from musicgen_ext.features.decibels import (
    amplitude_to_db,
    db_to_amplitude,
    db_to_power,
    magphase,
    mu_compress,
    mu_expand,
    mu_law_decode,
    mu_law_encode,
    power_to_db,
)
from musicgen_ext.features.deltas import delta
from musicgen_ext.features.frames import rms, zero_crossing_rate
from musicgen_ext.features.mel import mel_filterbank, melspectrogram, mfcc
from musicgen_ext.features.spectra import istft, set_threads, stft
from musicgen_ext.features.windows import get_window

__all__ = [
    "amplitude_to_db",
    "db_to_amplitude",
    "db_to_power",
    "delta",
    "get_window",
    "istft",
    "magphase",
    "mel_filterbank",
    "melspectrogram",
    "mfcc",
    "mu_compress",
    "mu_expand",
    "mu_law_decode",
    "mu_law_encode",
    "power_to_db",
    "rms",
    "set_threads",
    "stft",
    "zero_crossing_rate",
]
