"""Short-time spectra, mel bands and cepstra in numpy and double precision, a frame and a sum at a time.

Windows are given as arrays, filter banks as matrices: where these come from is not retold here, but for the mel scale.
"""

from __future__ import annotations

import numpy as np


def padded(y, n_fft, center, pad_mode):
    """One channel with half a frame on either side."""
    if not center:
        return y
    return np.pad(y, n_fft // 2, mode=pad_mode)


def full_window(window, n_fft):
    before = (n_fft - len(window)) // 2
    return np.concatenate([np.zeros(before), window, np.zeros(n_fft - len(window) - before)])


def stft(y, n_fft, hop_length, window, center=True, pad_mode="constant", bins=None):
    """Shape (1 + n_fft // 2, frames), complex128, of one channel; `bins`: only these rows."""
    y = padded(np.asarray(y, np.float64), n_fft, center, pad_mode)
    w = full_window(np.asarray(window, np.float64), n_fft)
    frames = np.stack([y[t : t + n_fft] * w for t in range(0, len(y) - n_fft + 1, hop_length)], axis=1)
    turns = 2 * np.pi * np.arange(n_fft) / n_fft
    rows = []
    for k in range(1 + n_fft // 2) if bins is None else bins:
        at = turns[k * np.arange(n_fft) % n_fft]  # sines of large numbers are not exact
        rows.append(np.cos(at) @ frames - 1j * (np.sin(at) @ frames))
    return np.stack(rows)


def istft(spectra, n_fft, hop_length, window, center=True, length=None):
    """The signal whose frames overlap and add up to `spectra`, divided by the sum of the squared windows."""
    w = full_window(np.asarray(window, np.float64), n_fft)
    begin = n_fft // 2 if center else 0
    count = spectra.shape[1]
    if length is None:
        end = n_fft + hop_length * (count - 1) - begin
    else:
        end = begin + length
        count = min(count, -(-(length + 2 * begin) // hop_length))
    total, weight = np.zeros(max(end, n_fft + hop_length * count)), np.zeros(max(end, n_fft + hop_length * count))
    for t in range(count):
        frame = np.fft.irfft(spectra[:, t], n_fft)
        total[t * hop_length : t * hop_length + n_fft] += frame * w
        weight[t * hop_length : t * hop_length + n_fft] += w**2
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1), total)[begin:end]


def hz_to_mel(f, htk):
    if htk:
        return 2595 * np.log10(1 + f / 700)
    return f / (200 / 3) if f < 1000 else 15 + np.log(f / 1000) / (np.log(6.4) / 27)


def mel_to_hz(m, htk):
    if htk:
        return 700 * (10 ** (m / 2595) - 1)
    return m * 200 / 3 if m < 15 else 1000 * np.exp((m - 15) * np.log(6.4) / 27)


def mel_filterbank(sr, n_fft, n_mels, fmin, fmax, htk=False, norm="slaney"):
    low, high = hz_to_mel(fmin, htk), hz_to_mel(fmax, htk)
    edges = [mel_to_hz(low + (high - low) * i / (n_mels + 1), htk) for i in range(n_mels + 2)]
    bank = np.zeros((n_mels, 1 + n_fft // 2))
    for b in range(n_mels):
        left, top, right = edges[b : b + 3]
        for k in range(bank.shape[1]):
            f = k * sr / n_fft
            bank[b, k] = max(0, min((f - left) / (top - left), (right - f) / (right - top)))
        if norm == "slaney":
            bank[b] *= 2 / (right - left)
        elif norm is not None and np.linalg.norm(bank[b], norm) > 0:
            bank[b] /= np.linalg.norm(bank[b], norm)
    return bank


def melspectrogram(spectra, bank, power=2):
    return bank @ np.abs(spectra) ** power


def decibels(S, amin=1e-10, top_db=80.0):
    levels = 10 * np.log10(np.maximum(S, amin))
    return levels if top_db is None else np.maximum(levels, levels.max() - top_db)


def dct(x, kind, norm=None):
    """The cosine transform of columns, term by term."""
    n = len(x)
    out = np.zeros(x.shape)
    for k in range(n):
        for i in range(n):
            if kind == 1:
                factor = (1 if i in (0, n - 1) else 2) * np.cos(np.pi * k * i / (n - 1))
            elif kind == 2:
                factor = 2 * np.cos(np.pi * k * (2 * i + 1) / (2 * n))
            else:
                factor = (1 if i == 0 else 2) * np.cos(np.pi * (2 * k + 1) * i / (2 * n))
            if norm == "ortho" and ((kind == 1 and i in (0, n - 1)) or (kind == 3 and i == 0)):
                factor *= np.sqrt(2)
            out[k] += factor * x[i]
        if norm == "ortho":
            out[k] /= np.sqrt(2 * (n - 1) if kind == 1 else 2 * n)
            if (kind == 1 and k in (0, n - 1)) or (kind == 2 and k == 0):
                out[k] /= np.sqrt(2)
        elif norm == "forward":
            out[k] /= 2 * (n - 1) if kind == 1 else 2 * n
    return out


def mfcc(levels, n_mfcc, kind=2, norm="ortho", lifter=0.0):
    out = dct(levels, kind, norm)[:n_mfcc]
    if lifter > 0:
        out *= (1 + lifter / 2 * np.sin(np.pi * np.arange(1, len(out) + 1) / lifter))[:, np.newaxis]
    return out
