"""Every function of `musicgen_ext.features` beside librosa's of the same name, in one run, one thread each.

    python benches/compare_features.py [--seconds 30] [--rounds 9] [--only NAME …] [--json FILE]

First both must agree; then they take turns, round after round, so that a change of the machine's mood hits both.
Printed as a Markdown table: medians in milliseconds, and the median over the rounds of the ratio. The two Kaldi
functions stand beside kaldi-native-fbank. The signal is a made-up piece at 22.05 kHz (16 kHz for Kaldi), always the
same; where a function takes a spectrogram or MFCC, it is librosa's of that signal.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
import warnings
from importlib import metadata

# Before numpy wakes its BLAS: the number of threads is part of what is measured.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402

from musicgen_ext import _core, features  # noqa: E402

SR = 22_050


def piece(seconds, sr=SR):
    """Chords that fade, twice a second, and a little noise."""
    random = np.random.default_rng(11)
    n = np.arange(round(seconds * sr))
    since = n % (sr // 2)
    y = 0.005 * random.normal(size=len(n))
    for k, ratio in enumerate((1.0, 1.26, 1.5, 3.01, 7.02)):
        pitch = 220 * 2 ** (((n // (sr // 2)) * 5 % 12) / 12) * ratio
        y += 0.2 / (k + 1) * np.sin(2 * np.pi * np.cumsum(pitch) / sr) * np.exp(-since / (0.2 * sr))
    return np.clip(y, -1, 1).astype(np.float32)


def rows(seconds):
    """name: (ours, the peer's, by how much of the largest value they may differ)."""
    import librosa

    y = piece(seconds)
    D = librosa.stft(y)
    S = np.abs(D)
    mel = librosa.feature.melspectrogram(y=y)
    db = librosa.power_to_db(mel)
    mfcc = librosa.feature.mfcc(y=y)
    envelope = librosa.onset.onset_strength(y=y)
    f, lf = features, librosa.feature
    found = {
        "stft": (lambda: f.stft(y), lambda: librosa.stft(y), 1e-6),
        "istft": (lambda: f.istft(D), lambda: librosa.istft(D), 1e-5),
        "melspectrogram": (lambda: f.melspectrogram(y=y), lambda: lf.melspectrogram(y=y), 1e-5),
        "mfcc": (lambda: f.mfcc(y=y), lambda: lf.mfcc(y=y), 1e-4),
        "power_to_db": (lambda: f.power_to_db(mel), lambda: librosa.power_to_db(mel), 1e-6),
        "amplitude_to_db": (lambda: f.amplitude_to_db(S), lambda: librosa.amplitude_to_db(S), 1e-6),
        "db_to_power": (lambda: f.db_to_power(db), lambda: librosa.db_to_power(db), 1e-5),
        "db_to_amplitude": (lambda: f.db_to_amplitude(db), lambda: librosa.db_to_amplitude(db), 1e-5),
        "magphase": (lambda: f.magphase(D)[0], lambda: librosa.magphase(D)[0], 1e-6),
        "mu_compress": (lambda: f.mu_compress(y), lambda: librosa.mu_compress(y), 0.01),  # a step of 256
        "mu_expand": (lambda: f.mu_expand(y, quantize=False), lambda: librosa.mu_expand(y, quantize=False), 1e-5),
        "delta": (lambda: f.delta(mfcc), lambda: lf.delta(mfcc), 1e-5),
        "delta, order 2": (lambda: f.delta(mfcc, order=2), lambda: lf.delta(mfcc, order=2), 1e-4),
        "rms(y)": (lambda: f.rms(y=y), lambda: lf.rms(y=y), 1e-5),
        "rms(S)": (lambda: f.rms(S=S), lambda: lf.rms(S=S), 1e-5),
        "zero_crossing_rate": (lambda: f.zero_crossing_rate(y), lambda: lf.zero_crossing_rate(y), 1e-6),
    }
    spectral = {"centroid": 1e-5, "bandwidth": 1e-5, "rolloff": 0.01, "flatness": 1e-4, "contrast": 0.01}
    measures = {f"spectral_{name}": close for name, close in spectral.items()}
    for name, close in {**measures, "chroma_stft": 1e-4}.items():
        ours, theirs = getattr(f, name), getattr(lf, name)
        found[f"{name}(y)"] = (lambda g=ours: g(y=y), lambda g=theirs: g(y=y), close)
        found[f"{name}(S)"] = (lambda g=ours: g(S=S), lambda g=theirs: g(S=S), close)
    found |= {
        "estimate_tuning": (lambda: f.estimate_tuning(y=y), lambda: librosa.estimate_tuning(y=y), 0.02),
        "onset_strength": (lambda: f.onset_strength(y=y), lambda: librosa.onset.onset_strength(y=y), 1e-5),
        "tempogram": (
            lambda: f.tempogram(onset_envelope=envelope), lambda: lf.tempogram(onset_envelope=envelope), 1e-5,
        ),
        "tempo(y)": (lambda: f.tempo(y=y), lambda: lf.tempo(y=y), 1e-9),
        "tempo(envelope)": (
            lambda: f.tempo(onset_envelope=envelope), lambda: lf.tempo(onset_envelope=envelope), 1e-9,
        ),
        "mel_filterbank": (
            lambda: f.mel_filterbank(sr=SR, n_fft=2048), lambda: librosa.filters.mel(sr=SR, n_fft=2048), 1e-6,
        ),
        "chroma_filter": (
            lambda: f.chroma_filter(sr=SR, n_fft=2048), lambda: librosa.filters.chroma(sr=SR, n_fft=2048), 1e-6,
        ),
        "get_window": (lambda: f.get_window("hann", 2048), lambda: librosa.filters.get_window("hann", 2048), 1e-12),
    }  # fmt: skip
    try:
        import kaldi_native_fbank as knf
    except ImportError:
        return found
    speech = np.round(piece(seconds, 16_000) * 20_000).astype(np.float32)

    def kaldi(options, computer):
        options.frame_opts.dither, options.energy_floor = 0, 1
        options.use_energy = False
        made = computer(options)
        made.accept_waveform(16_000, speech)
        made.input_finished()
        return np.stack([made.get_frame(i) for i in range(made.num_frames_ready)])

    found["kaldi_fbank"] = (
        lambda: f.kaldi_fbank(speech), lambda: kaldi(knf.FbankOptions(), knf.OnlineFbank), 1e-4,
    )  # fmt: skip
    found["kaldi_mfcc"] = (lambda: f.kaldi_mfcc(speech), lambda: kaldi(knf.MfccOptions(), knf.OnlineMfcc), 1e-4)
    return found


def agree(name, ours, theirs, close):
    ours, theirs = np.asarray(ours(), np.complex128), np.asarray(theirs(), np.complex128)
    if ours.shape != theirs.shape:
        sys.exit(f"error: {name}: expected the peer's shape {theirs.shape}, got {ours.shape}")
    worst = np.max(np.abs(ours - theirs)) / max(np.max(np.abs(theirs)), 1e-30)
    if not worst <= close:
        sys.exit(f"error: {name}: expected the peer's numbers to {close:g} of the largest, got {worst:g}")
    return float(worst)


def race(functions, rounds, least=0.01):
    """Seconds per call, one list for each function; they take turns."""
    calls = []
    for function in functions:
        begun = time.perf_counter()
        function()
        calls.append(max(1, int(least / max(time.perf_counter() - begun, 1e-6))))
    times = [[] for _ in functions]
    for _ in range(rounds):
        for function, count, taken in zip(functions, calls, times, strict=True):
            begun = time.perf_counter()
            for _ in range(count):
                function()
            taken.append((time.perf_counter() - begun) / count)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=30, help="of sound")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="*", default=[], help="functions whose names contain one of these")
    parser.add_argument("--json", help="write the results to this file")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # librosa's, about what it was given
    features.set_threads(1)
    versions = ", ".join(f"{p} {metadata.version(p)}" for p in ("librosa", "numpy"))
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {_core.compiler}, "
          f"{_core.isa_in_use()} path; {versions}; {arguments.seconds:g} s of sound\n")  # fmt: skip
    print("| function | ours ms | peer ms | times as fast | largest difference |\n| --- | --- | --- | --- | --- |")
    results = []
    for name, (ours, theirs, close) in rows(arguments.seconds).items():
        if arguments.only and not any(word in name for word in arguments.only):
            continue
        difference = agree(name, ours, theirs, close)
        mine, peers = race((ours, theirs), arguments.rounds)
        ratio = statistics.median(b / a for a, b in zip(mine, peers, strict=True))
        result = {
            "function": name, "ours_ms": 1e3 * statistics.median(mine), "peer_ms": 1e3 * statistics.median(peers),
            "ratio": ratio, "difference": difference,
        }  # fmt: skip
        results.append(result)
        print(
            f"| {name} | {result['ours_ms']:.3f} | {result['peer_ms']:.3f} | {ratio:.1f} | {difference:.1e} |",
            flush=True,
        )
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as stream:
            json.dump({"seconds": arguments.seconds, "versions": versions, "results": results}, stream, indent=1)


if __name__ == "__main__":
    main()
