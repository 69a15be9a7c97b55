"""Numbers out of sound: librosa's names, signatures, shapes and values; float32 in, float32 out."""

from __future__ import annotations

from musicgen_ext.features.chroma import chroma_filter, chroma_stft, estimate_tuning
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
from musicgen_ext.features.kaldi import kaldi_fbank, kaldi_mfcc
from musicgen_ext.features.mel import mel_filterbank, melspectrogram, mfcc
from musicgen_ext.features.rhythm import onset_strength, tempo, tempogram
from musicgen_ext.features.spectra import istft, set_threads, stft
from musicgen_ext.features.spectral import (
    spectral_bandwidth,
    spectral_centroid,
    spectral_contrast,
    spectral_flatness,
    spectral_rolloff,
)
from musicgen_ext.features.streams import StreamingMelspectrogram, StreamingMFCC, StreamingSTFT
from musicgen_ext.features.windows import get_window

__all__ = [
    "StreamingMFCC",
    "StreamingMelspectrogram",
    "StreamingSTFT",
    "amplitude_to_db",
    "chroma_filter",
    "chroma_stft",
    "db_to_amplitude",
    "db_to_power",
    "delta",
    "estimate_tuning",
    "get_window",
    "istft",
    "kaldi_fbank",
    "kaldi_mfcc",
    "magphase",
    "mel_filterbank",
    "melspectrogram",
    "mfcc",
    "mu_compress",
    "mu_expand",
    "mu_law_decode",
    "mu_law_encode",
    "onset_strength",
    "power_to_db",
    "rms",
    "set_threads",
    "spectral_bandwidth",
    "spectral_centroid",
    "spectral_contrast",
    "spectral_flatness",
    "spectral_rolloff",
    "stft",
    "tempo",
    "tempogram",
    "zero_crossing_rate",
]
