"""Numbers about sound and spectra in plain numpy and double precision, frame by frame where a frame is what counts."""

from __future__ import annotations

import math

import numpy as np

TINY = float(np.finfo(np.float32).tiny)

# -- element by element ------------------------------------------------------------------------------------------------


def power_to_db(S, ref=1.0, amin=1e-10, top_db=80.0):
    S = np.asarray(S, np.float64)
    ref = float(ref(S)) if callable(ref) else abs(ref)
    db = 10 * np.log10(np.maximum(amin, S)) - 10 * math.log10(max(amin, ref))
    return db if top_db is None else np.maximum(db, db.max() - top_db)


def amplitude_to_db(S, ref=1.0, amin=1e-5, top_db=80.0):
    S = np.abs(np.asarray(S, np.float64))
    ref = float(ref(S)) if callable(ref) else ref
    return power_to_db(S**2, ref**2, amin**2, top_db)


def db_to_power(db, ref=1.0):
    return ref * 10 ** (np.asarray(db, np.float64) / 10)


def db_to_amplitude(db, ref=1.0):
    return abs(ref) * 10 ** (np.asarray(db, np.float64) / 20)


def magphase(D):
    D = np.asarray(D, np.complex128)
    magnitude = np.abs(D)
    return magnitude, np.where(magnitude > 0, D / np.where(magnitude > 0, magnitude, 1), 1)


def compressed(y, mu):
    y = np.asarray(y, np.float64)
    return np.sign(y) * np.log1p(mu * np.abs(y)) / math.log1p(mu)


def mu_law_encode(y, mu=255):
    return np.floor((compressed(y, mu) + 1) / 2 * mu + 0.5).astype(int)


def mu_law_decode(tokens, mu=255):
    c = 2 * np.asarray(tokens, np.float64) / mu - 1
    return np.sign(c) * ((1 + mu) ** np.abs(c) - 1) / mu


# -- frames of a signal ------------------------------------------------------------------------------------------------


def frames(y, frame_length, hop_length, pad_mode):
    """(frames, frame_length) of one channel; no padding for None."""
    y = np.asarray(y, np.float64)
    if pad_mode is not None:
        y = np.pad(y, frame_length // 2, pad_mode)
    return [y[i : i + frame_length] for i in range(0, len(y) - frame_length + 1, hop_length)]


def rms(y, frame_length=2048, hop_length=512, pad_mode="constant"):
    return np.array([math.sqrt(np.mean(x**2)) for x in frames(y, frame_length, hop_length, pad_mode)])


def zero_crossing_rate(y, frame_length=2048, hop_length=512, center=True, threshold=1e-10, zero_pos=True):
    def sign(x):
        if -threshold <= x <= threshold:
            return 1 if zero_pos else 0
        return 1 if x > 0 else -1

    rates = []
    for x in frames(y, frame_length, hop_length, "edge" if center else None):
        signs = [sign(value) for value in x]
        rates.append(sum(a != b for a, b in zip(signs[1:], signs, strict=False)) / frame_length)
    return np.array(rates)


def delta(data, width=9, order=1, mode="interp", polyorder=None):
    """Of one row: the derivative at each point of the polynomial through its neighbours."""
    data = np.asarray(data, np.float64)
    half, degree = width // 2, order if polyorder is None else polyorder
    out = np.empty(len(data))
    x = np.arange(-half, half + 1)
    padded = data if mode == "interp" else np.pad(data, half, mode)
    for i in range(len(data)):
        if mode == "interp":
            centre = min(max(i, half), len(data) - 1 - half)
            piece, at = data[centre - half : centre + half + 1], i - centre
        else:
            piece, at = padded[i : i + width], 0
        out[i] = np.polyval(np.polyder(np.polyfit(x, piece, degree), order), at)
    return out


# -- spectra: (bins, frames) of one channel ----------------------------------------------------------------------------


def spectral_centroid(S, freq):
    S = np.asarray(S, np.float64)
    total = S.sum(axis=0)
    return freq @ S / np.where(total < TINY, 1, total)


def spectral_bandwidth(S, freq, centroid=None, norm=True, p=2):
    S = np.asarray(S, np.float64)
    centre = spectral_centroid(S, freq) if centroid is None else centroid
    total = S.sum(axis=0)
    weights = S / np.where(total < TINY, 1, total) if norm else S
    return (weights * np.abs(freq[:, None] - centre) ** p).sum(axis=0) ** (1 / p)


def spectral_rolloff(S, freq, roll_percent=0.85):
    sums = np.cumsum(np.asarray(S, np.float64), axis=0)
    return np.array([freq[column >= roll_percent * column[-1]].min() for column in sums.T])


def spectral_flatness(S, amin=1e-10, power=2.0):
    S = np.maximum(amin, np.asarray(S, np.float64) ** power)
    return np.exp(np.mean(np.log(S), axis=0)) / np.mean(S, axis=0)


def spectral_contrast(S, freq, fmin=200.0, n_bands=6, quantile=0.02, linear=False):
    S = np.asarray(S, np.float64)
    edges = [0.0, *(fmin * 2.0**k for k in range(n_bands + 1))]
    valley, peak = np.zeros((n_bands + 1, S.shape[1])), np.zeros((n_bands + 1, S.shape[1]))
    for k in range(n_bands + 1):
        inside = [i for i, f in enumerate(freq) if edges[k] <= f <= edges[k + 1]]
        if k > 0:
            inside = [inside[0] - 1, *inside]
        if k == n_bands:
            inside = list(range(inside[0], len(freq)))
        count = max(1, int(np.rint(quantile * len(inside))))
        ordered = np.sort(S[inside if k == n_bands else inside[:-1]], axis=0)
        valley[k], peak[k] = ordered[:count].mean(axis=0), ordered[-count:].mean(axis=0)
    return peak - valley if linear else power_to_db(peak) - power_to_db(valley)


def rms_of_spectrum(S, frame_length):
    power = np.asarray(S, np.float64) ** 2
    power[0] /= 2
    if frame_length % 2 == 0:
        power[-1] /= 2
    return np.sqrt(2 * power.sum(axis=0) / frame_length**2)


def peaks(S, sr, n_fft, fmin=150.0, fmax=4000.0, threshold=0.1):
    """(frequency, height) of every peak, one frame after the other: librosa's piptrack."""
    found = []
    for x in np.asarray(S, np.float64).T:
        limit = threshold * x.max()
        for k in range(1, len(x)):
            if not (fmin <= k * sr / n_fft < min(fmax, sr / 2) and x[k] > limit and x[k] > x[k - 1]):
                continue
            if k == len(x) - 1:
                found.append((k * sr / n_fft, x[k]))
            elif x[k] >= x[k + 1]:
                curve, slope = x[k + 1] + x[k - 1] - 2 * x[k], (x[k + 1] - x[k - 1]) / 2
                shift = 0 if abs(slope) >= abs(curve) else -slope / curve
                found.append(((k + shift) * sr / n_fft, x[k] + 0.5 * slope * shift))
    return found


def tuning(S, sr, n_fft, bins_per_octave=12, resolution=0.01):
    found = peaks(S, sr, n_fft)
    if not found:
        return 0.0
    middle = np.median([height for _, height in found])
    bins = np.array([bins_per_octave * math.log2(f / 27.5) % 1 for f, height in found if height >= middle])
    bins[bins >= 0.5] -= 1
    counts, edges = np.histogram(bins, np.linspace(-0.5, 0.5, math.ceil(1 / resolution) + 1))
    return edges[np.argmax(counts)]


def chroma_filter(sr, n_fft, tuning=0.0, n_chroma=12, ctroct=5.0, octwidth=2.0, norm=2, base_c=True):
    """Weights of each bin of a spectrum in each pitch class: a Gaussian around it, and one around an octave."""
    a440 = 440 * 2 ** (tuning / n_chroma)
    place = [n_chroma * math.log2(k * sr / n_fft / (a440 / 16)) for k in range(1, n_fft)]
    place = [place[0] - 1.5 * n_chroma, *place]
    weights = np.zeros((n_chroma, n_fft // 2 + 1))
    for k in range(n_fft // 2 + 1):
        width = max(place[k + 1] - place[k], 1) if k + 1 < n_fft else 1
        half = round(n_chroma / 2)
        for c in range(n_chroma):
            distance = (place[k] - c + half + 10 * n_chroma) % n_chroma - half
            weights[c, k] = math.exp(-0.5 * (2 * distance / width) ** 2)
        if norm is not None:
            weights[:, k] /= np.linalg.norm(weights[:, k], norm)
        if octwidth is not None:
            weights[:, k] *= math.exp(-0.5 * ((place[k] / n_chroma - ctroct) / octwidth) ** 2)
    return np.roll(weights, -3 * (n_chroma // 12), axis=0) if base_c else weights


def chroma(S, weights, norm=np.inf):
    raw = weights @ np.asarray(S, np.float64)
    if norm is None:
        return raw
    length = np.linalg.norm(raw, norm, axis=0)
    return raw / np.where(length < TINY, 1, length)


# -- rhythm ------------------------------------------------------------------------------------------------------------


def onset_strength(S, lag=1, max_size=1, shift=0, detrend=False):
    """From levels in decibels, (bands, frames); `shift`: frames that lie before the first."""
    S = np.asarray(S, np.float64)
    bands, n = S.shape
    out = np.zeros(n + lag + shift)
    for t in range(lag, n):
        rises = []
        for b in range(bands):
            near = range(b - max_size // 2, b - max_size // 2 + max_size)
            mirrored = [-k - 1 if k < 0 else 2 * bands - 1 - k if k >= bands else k for k in near]
            rises.append(max(0.0, S[b, t] - max(S[k, t - lag] for k in mirrored)))
        out[t + shift] = np.mean(rises)
    if detrend:
        before = 0.0
        for t in range(len(out) - 1, 0, -1):
            out[t] -= out[t - 1]
        for t in range(len(out)):
            before = out[t] = out[t] + 0.99 * before
    return out[:n]


def tempogram(envelope, window):
    """Autocorrelations of windows around each frame, by their sums; each divided by its value at lag 0."""
    lags = len(window)
    x = np.pad(np.asarray(envelope, np.float64), lags // 2, "linear_ramp")
    columns = []
    for t in range(len(envelope)):
        frame = x[t : t + lags] * window
        sums = np.array([np.dot(frame[: lags - k], frame[k:]) for k in range(lags)])
        columns.append(sums / (sums[0] if sums[0] >= TINY else 1))
    return np.stack(columns, axis=1)


def tempo(tempogram, sr, hop_length, start_bpm=120.0, std_bpm=1.0, max_tempo=320.0):
    best, best_score = 0.0, -math.inf
    for lag in range(1, len(tempogram)):
        bpm = 60 * sr / (hop_length * lag)
        if max_tempo is not None and bpm >= max_tempo:
            continue
        score = math.log1p(1e6 * tempogram[lag].mean()) - 0.5 * (math.log2(bpm / start_bpm) / std_bpm) ** 2
        if score > best_score:
            best, best_score = bpm, score
    return best


# -- as Kaldi ----------------------------------------------------------------------------------------------------------


def kaldi_frames(y, length, hop, snip_edges=True):
    if snip_edges:
        return [y[i : i + length] for i in range(0, len(y) - length + 1, hop)]
    mirrored = np.concatenate([y[::-1], y, y[::-1]])
    starts = [hop * t + hop // 2 - length // 2 + len(y) for t in range((len(y) + hop // 2) // hop)]
    return [mirrored[i : i + length] for i in starts]


def kaldi_fbank(y, sr, bands, low, high, window, preemphasis, remove_mean, raw_energy, snip_edges, power=2):
    """Logarithms of the frames' energies, (frames,), and of the energies in bands, (frames, bands)."""
    length, hop = int(sr * 0.025), int(sr * 0.010)
    size = 1 << (length - 1).bit_length()
    least = float(np.finfo(np.float32).eps)

    def mel(f):
        return 1127 * math.log1p(f / 700)

    edges = np.linspace(mel(low), mel(high), bands + 2)
    energies, rows = [], []
    for x in kaldi_frames(np.asarray(y, np.float64), length, hop, snip_edges):
        if remove_mean:
            x = x - x.mean()
        energy = np.sum(x**2)
        x = np.concatenate([[x[0] * (1 - preemphasis)], x[1:] - preemphasis * x[:-1]]) * window
        energies.append(math.log(max(energy if raw_energy else np.sum(x**2), least)))
        spectrum = np.abs(np.fft.rfft(x, size)) ** power
        row = np.zeros(bands)
        for k in range(size // 2):
            place = mel(k * sr / size)
            for b in range(bands):
                left, centre, right = edges[b : b + 3]
                row[b] += spectrum[k] * max(
                    0, min((place - left) / (centre - left), (right - place) / (right - centre))
                )
        rows.append(np.log(np.maximum(row, least)))
    return np.array(energies), np.array(rows)


def kaldi_mfcc(log_bands, num_ceps, lifter):
    bands = log_bands.shape[1]
    out = np.zeros((len(log_bands), num_ceps))
    for k in range(num_ceps):
        row = np.cos(math.pi / bands * (np.arange(bands) + 0.5) * k) * math.sqrt((2 if k else 1) / bands)
        out[:, k] = log_bands @ row * (1 + lifter / 2 * math.sin(math.pi * k / lifter) if lifter else 1)
    return out
