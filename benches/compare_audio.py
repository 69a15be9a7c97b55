"""Spectra, mel bands and cepstra side by side with librosa and torch, in one run.

    python benches/compare_audio.py [--rounds 15] [--seconds 30 600] [--fftw PROGRAM] [--bound PROGRAM PROGRAM]

Contenders take turns, round after round, so that a change of the machine's mood hits everyone; before that they must
agree. One thread each, unless the row says otherwise; calls with one and two threads also take turns by themselves,
"back to back", when neither finds the caches cold or the second thread asleep. torch computes what torchaudio does: a
short-time transform, a matrix product, a logarithm, another product. `--fftw` names `fftw_bench`, which prints how long
FFTW takes for the bare transforms of as many frames; `--bound` names the reachability checks for music and for speech.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time

# Before numpy wakes its BLAS: the number of threads is part of what is measured.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import librosa  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from musicgen_ext import features  # noqa: E402

MUSIC = {"sr": 22_050, "n_fft": 2048, "hop_length": 512, "n_mels": 128, "n_mfcc": 20}
SPEECH = {"sr": 16_000, "n_fft": 512, "hop_length": 160, "n_mels": 40, "n_mfcc": 13}


class Torch:
    """What torchaudio does, from parts of torch."""

    def __init__(self, setting):
        self.n_fft, self.hop = setting["n_fft"], setting["hop_length"]
        self.window = torch.hann_window(self.n_fft)
        bank = librosa.filters.mel(sr=setting["sr"], n_fft=self.n_fft, n_mels=setting["n_mels"])
        self.bank = torch.from_numpy(bank)
        identity = np.eye(setting["n_mels"])
        dct = librosa.feature.mfcc(S=identity, n_mfcc=setting["n_mfcc"])
        self.dct = torch.from_numpy(np.ascontiguousarray(dct, np.float32))

    def stft(self, y):
        return torch.stft(
            y, self.n_fft, self.hop, window=self.window, center=True, pad_mode="constant", return_complex=True
        )

    def mel(self, y):
        return torch.matmul(self.bank, self.stft(y).abs().pow(2.0))

    def mfcc(self, y):
        levels = 10.0 * torch.log10(torch.clamp(self.mel(y), min=1e-10))
        return torch.matmul(self.dct, torch.maximum(levels, levels.max() - 80.0))


def contenders(y, setting):
    """{group: {name: call}} for one sound."""
    framing = {name: setting[name] for name in ("n_fft", "hop_length")}
    bands = {name: setting[name] for name in ("sr", "n_fft", "hop_length", "n_mels")}
    peer, tensor = Torch(setting), torch.from_numpy(y)
    frames = 1 + len(y) // setting["hop_length"]
    spectra = librosa.stft(y, **framing)
    out = np.empty((frames, 1 + setting["n_fft"] // 2), np.complex64).T
    return {
        "mfcc": {
            "ours": lambda: features.mfcc(y, **setting, threads=1),
            "ours, 2 threads": lambda: features.mfcc(y, **setting, threads=2),
            "librosa": lambda: librosa.feature.mfcc(y=y, **setting),
            "torch": lambda: peer.mfcc(tensor).numpy(),
        },
        "mel": {
            "ours": lambda: features.melspectrogram(y, **bands, threads=1),
            "ours, 2 threads": lambda: features.melspectrogram(y, **bands, threads=2),
            "librosa": lambda: librosa.feature.melspectrogram(y=y, **bands),
            "torch": lambda: peer.mel(tensor).numpy(),
        },
        "stft": {
            "ours": lambda: features.stft(y, **framing, threads=1),
            "ours, out=": lambda: features.stft(y, **framing, threads=1, out=out),
            "ours, out=, 2 threads": lambda: features.stft(y, **framing, threads=2, out=out),
            "librosa": lambda: librosa.stft(y, **framing),
            "torch": lambda: peer.stft(tensor).numpy(),
        },
        "istft": {
            "ours": lambda: features.istft(spectra, hop_length=setting["hop_length"], threads=1),
            "librosa": lambda: librosa.istft(spectra, hop_length=setting["hop_length"]),
        },
    }


def check(calls):
    """Everyone's answer, against librosa's: at most a few roundings of the largest value."""
    expected = calls["librosa"]()
    scale = np.max(np.abs(expected))
    for name, call in calls.items():
        difference = np.max(np.abs(call() - expected)) / scale
        assert difference < 5e-5, (name, difference)


def race(calls, rounds):
    times = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:  # the first warms up
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def program(*arguments):
    return json.loads(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 30, 600])
    parser.add_argument("--only", nargs="+", default=["mfcc", "mel", "stft", "istft"])
    parser.add_argument("--fftw", help="the program fftw_bench")
    parser.add_argument("--bound", nargs=2, help="the programs logmel_bound, for music and for speech")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{features.__name__}, librosa {librosa.__version__}, torch {torch.__version__}, numpy {np.__version__}\n")
    print("| sound | result | who | ms, median | range | this / ours |\n| --- | --- | --- | --- | --- | --- |")
    for seconds in options.seconds:
        for name, setting in (("22.05 kHz, 2048/512/128", MUSIC), ("16 kHz, 512/160/40", SPEECH)):
            y = np.random.default_rng(1).uniform(-1, 1, seconds * setting["sr"]).astype(np.float32)
            rounds = options.rounds if seconds < 100 else max(3, options.rounds // 4)
            for group, calls in contenders(y, setting).items():
                if group not in options.only:
                    continue
                check(calls)
                times = race(calls, rounds)
                for who, taken in times.items():
                    ratio = statistics.median(b / a for a, b in zip(times["ours"], taken, strict=True))
                    print(
                        f"| {seconds} s, {name} | {group} | {who} | {statistics.median(taken):.3f} | "
                        f"{min(taken):.3f} to {max(taken):.3f} | {ratio:.2f} |",
                        flush=True,
                    )
                for who in [name for name in calls if name.endswith(", 2 threads")]:
                    one = who.removesuffix(", 2 threads")
                    times = race({one: calls[one], who: calls[who]}, 2 * rounds)
                    ratio = statistics.median(b / a for a, b in zip(*times.values(), strict=True))
                    alone, shared = (statistics.median(taken) for taken in times.values())
                    print(
                        f"| {seconds} s, {name} | {group}, back to back | {who} | {shared:.3f} | "
                        f"{min(times[who]):.3f} to {max(times[who]):.3f} | {ratio:.2f} (of {alone:.3f}) |",
                        flush=True,
                    )
            common = (str(len(y)), "1")
            if options.fftw:
                bare = program(options.fftw, str(setting["n_fft"]), str(setting["hop_length"]), *common)
                print(f"| {seconds} s, {name} | bare transforms | FFTW | {bare['fftw_frame_ms']:.3f} | | |")
            if options.bound:
                reached = program(options.bound[0 if setting is MUSIC else 1], *common)
                print(f"| {seconds} s, {name} | mfcc | reachability check | {reached['plus_dct_ms']:.3f} | | |")


if __name__ == "__main__":
    main()
