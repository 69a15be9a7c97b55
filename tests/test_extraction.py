"""Features of many sound files: what the store holds, and that nothing but the files and the options decides it."""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import musicgen_ext as mg
from musicgen_ext import FeatureStore, TokenStore, extract_features
from musicgen_ext.extraction import FeatureSummary
from musicgen_ext.features import named

SR = 8000
OPTIONS: dict[str, Any] = {"sr": SR, "n_fft": 256, "hop_length": 64, "n_mels": 20, "n_mfcc": 7}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 sounds in subfolders, mono and stereo, some bad, some odd."""
    root = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(20_261_120)
    for i in range(60):
        path = root / f"{i % 3}" / f"{'deep/' * (i % 2)}{i:02}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (int(rng.integers(300, 3000)),) if i % 4 else (2, 1000)
        mg.Audio(rng.uniform(-0.5, 0.5, shape), SR).save(path)
    good = (root / "0" / "00.wav").read_bytes()
    (root / "0" / "empty.wav").write_bytes(b"")
    (root / "1" / "text.wav").write_text("this is no sound")
    (root / "2" / "cut.WAV").write_bytes(good[:-99])
    (root / "2" / "silent.wav").write_bytes(mg.Audio(np.zeros(0, np.float32), SR).to_wav())
    (root / "2" / "notes.txt").write_text("not looked at")
    (root / "2" / ".hidden.wav").write_text("not looked at")
    return root


def contents(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


def extract(folder: Path, out: Path, **options: Any) -> FeatureSummary:
    return extract_features(folder, "mfcc", out=out, **{**OPTIONS, **options})


@pytest.fixture(scope="module")
def store(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("store") / "whole"
    extract(folder, out, workers=1)
    return out


def computed(path: Path, feature: str, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sound = mg.read_audio(path)
    sr = options.pop("sr")
    return named.compute(feature, sound.to_mono().y, sr, **options)


def test_a_store_holds_what_the_function_gives(folder: Path, store: Path) -> None:
    opened = FeatureStore(store)
    names = [entry["file"] for entry in opened.manifest]
    assert len(opened) == len(names) == 61
    for name, values, entry in zip(names, opened, opened.manifest, strict=True):
        expected = computed(folder / name, "mfcc", **OPTIONS)
        np.testing.assert_array_equal(values, expected)
        assert values.dtype == np.float32
        assert not values.flags.writeable
        assert entry["length"] == expected.shape[1]
        assert entry["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert opened.num_frames == len(opened.rows) == sum(values.shape[1] for values in opened)
    assert (opened.feature, opened.sr) == ("mfcc", SR)
    assert opened.options == {key: value for key, value in OPTIONS.items() if key != "sr"}
    assert repr(opened) == f"FeatureStore({str(store)!r}: mfcc of 61 sounds, {opened.num_frames} frames)"
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(opened))[5], opened[5])


def test_bad_files_are_skipped_and_named(folder: Path, store: Path) -> None:
    failures = {entry["file"]: entry["error"] for entry in FeatureStore(store).failures}
    assert failures.keys() == {"0/empty.wav", "1/text.wav", "2/silent.wav"}
    assert failures["0/empty.wav"] == "expected a sound file, got 0 bytes"
    expected = "expected a sound file, got first bytes b'this is ' (Format not recognised.)"
    assert failures["1/text.wav"] == expected
    assert "expected at least 1 sample" in failures["2/silent.wav"]
    (cut,) = [entry for entry in FeatureStore(store).manifest if entry["file"] == "2/cut.WAV"]
    assert cut["issues"][0].startswith("expected ")
    assert "got 3901 before the end of the file" in cut["issues"][0]
    again = extract(folder, store)
    assert (again.files, again.failed, again.issues) == (61, 3, 1)
    assert again.frames == FeatureStore(store).num_frames
    assert dict(again.failures) == failures


@pytest.mark.parametrize("workers", [2, 5])
def test_any_number_of_workers_writes_the_same_bytes(folder: Path, store: Path, tmp_path: Path, workers: int) -> None:
    extract(folder, tmp_path / "again", workers=workers)
    assert contents(tmp_path / "again") == contents(store)


def test_shards_make_the_whole(folder: Path, store: Path, tmp_path: Path) -> None:
    for i in (2, 1, 3):
        extract(folder, tmp_path / "parts", shard=f"{i}/3")
    parts, whole = FeatureStore(tmp_path / "parts"), FeatureStore(store)
    assert len(parts.shards) == 3
    assert parts.num_frames == whole.num_frames
    by_name = {entry["file"]: values for entry, values in zip(whole.manifest, whole, strict=True)}
    for entry, values in zip(parts.manifest, parts, strict=True):
        np.testing.assert_array_equal(values, by_name[entry["file"]])


@pytest.mark.parametrize(
    ("feature", "options", "dims", "dtype"),
    [
        ("mel", {"n_mels": 30}, 30, np.float32),
        ("logmel", {"n_mels": 30, "power": 1}, 30, np.float32),
        ("stft", {}, 129, np.complex64),
        ("chroma", {"n_chroma": 24, "tuning": 0.0}, 24, np.float32),
    ],
)
def test_every_feature(folder: Path, tmp_path: Path, feature: str, options: Any, dims: int, dtype: Any) -> None:
    options = {**options, "sr": SR, "n_fft": 256, "hop_length": 64}
    extract_features([folder / "0" / "00.wav", folder / "1" / "01.wav"], feature, out=tmp_path / "x", **options)
    opened = FeatureStore(tmp_path / "x")
    with pytest.raises(FileNotFoundError):
        FeatureStore(tmp_path / "y")
    assert len(opened) == 1  # deep/01.wav is another file: the second is not there
    assert [entry["error"] for entry in opened.failures] == ["No such file or directory"]
    assert opened[0].shape[0] == dims
    assert opened[0].dtype == dtype
    np.testing.assert_array_equal(opened[0], computed(folder / "0" / "00.wav", feature, **options))


def test_other_rates_are_resampled(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("soxr")
    extract_features(folder / "0", "mfcc", out=tmp_path / "x", sr=16_000, n_fft=512)
    opened = FeatureStore(tmp_path / "x")
    name = next(iter(opened.manifest))["file"]
    sound = mg.read_audio(folder / "0" / name, sr=16_000).to_mono()
    np.testing.assert_array_equal(opened[0], mg.mfcc(sound.y, sr=16_000, n_fft=512))
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(ImportError, match=r'needs soxr: pip install "musicgen-ext\[audio\]"'):
        extract_features(folder / "0", "mfcc", out=tmp_path / "y", sr=16_000, n_fft=512)


@pytest.mark.parametrize(
    ("feature", "options", "error", "message"),
    [
        ("rhythm", {}, ValueError, "feature: expected one of 'chroma', 'logmel', 'mel', 'mfcc', 'stft'"),
        ("mfcc", {"n_mfcc": 0}, ValueError, "n_mfcc"),
        ("mel", {"n_mfcc": 3}, TypeError, "^mel: .*n_mfcc"),
        ("mfcc", {"window": np.ones(9)}, TypeError, "options: expected what JSON can hold"),
        ("mfcc", {"threads": 2}, TypeError, "threads: expected an option of mfcc"),
        ("mfcc", {"sr": 0}, ValueError, "sr"),
        ("mfcc", {"workers": 0}, ValueError, "workers"),
        ("mfcc", {"shard": "3/2"}, ValueError, "shard"),
    ],
)
def test_nothing_is_written_for_options_out_of_range(
    folder: Path, tmp_path: Path, feature: str, options: Any, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        extract_features(folder, feature, out=tmp_path / "x", **options)
    assert os.listdir(tmp_path) == []


def test_a_store_of_something_else_is_refused(folder: Path, store: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="another column, job"):
        extract(folder, store, n_mfcc=8)
    with pytest.raises(FileExistsError, match="another job"):
        extract(folder, store, fmin=50)
    with pytest.raises(ValueError, match="expected a store of tokens, got one of features"):
        TokenStore(store)
    before = contents(store)
    extract(folder, store, force=True, n_mfcc=8)
    assert FeatureStore(store)[0].shape[0] == 8
    extract(folder, store, force=True)
    assert contents(store) == before


KILLED = """
import sys
from musicgen_ext import extract_features
print("begun", flush=True)
extract_features(sys.argv[1], "mfcc", out=sys.argv[2], sr=8000, n_fft=256, hop_length=64, n_mels=20, n_mfcc=7)
print("done")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
def test_R39_R45_what_was_ended_goes_on(folder: Path, store: Path, tmp_path: Path, how: str) -> None:
    many = tmp_path / "many"
    many.mkdir()
    names = sorted((folder / "0").glob("*.wav"))
    for i in range(1500):
        os.link(names[i % len(names)], many / f"{i:04}.wav")
    out = tmp_path / "out"
    program = [sys.executable, "-c", KILLED, str(many), str(out)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        deadline = time.monotonic() + 30
        manifest = out / "manifest.jsonl.part"
        while not (manifest.exists() and manifest.stat().st_size) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(getattr(signal, how))
        said = process.communicate(timeout=30)[1]
    if how == "SIGINT" and process.returncode != 0:
        assert "KeyboardInterrupt" in said
    with pytest.raises(ValueError, match="unfinished") if process.returncode else warnings.catch_warnings():
        FeatureStore(out)
    extract(many, out)
    extract(many, tmp_path / "at once")
    assert contents(out) == contents(tmp_path / "at once")
