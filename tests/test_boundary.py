"""Where the package meets the world: public names, import, errors that travel, files that cannot be written."""

from __future__ import annotations

import inspect
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import musicgen_ext as mg
from musicgen_ext import _core, files


def python(code: str, *arguments: str, **options: Any) -> str:
    """Standard output of a program in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- names ---------------------------------------------------------------------------------------------------------


def test_public_names_are_there_and_documented() -> None:
    assert mg.__all__ == sorted(set(mg.__all__))
    for name in mg.__all__:
        thing = getattr(mg, name)
        assert name in dir(mg)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), name


def test_sample_has_the_promised_signature() -> None:
    signature = inspect.signature(mg.sample)
    defaults = {
        "model": "chorale", "num_samples": None, "length": None, "prompt": None, "condition": None,
        "temperature": 1.0, "top_k": None, "top_p": 1.0, "seed": None, "device": "cpu", "progress": False,
    }  # fmt: skip
    assert {name: p.default for name, p in signature.parameters.items()} == defaults
    kinds = [p.kind for p in signature.parameters.values()]
    assert kinds == [inspect.Parameter.POSITIONAL_OR_KEYWORD] + [inspect.Parameter.KEYWORD_ONLY] * 10
    methods = inspect.signature(mg.Model.sample).parameters
    assert list(methods)[1:] == list(defaults)[1:]


def test_build_info() -> None:
    info = mg.build_info()
    assert info["version"] == mg.__version__ == _core.__version__
    assert info["isa"] in info["isas"]
    assert info["cuda"] is False
    forced = python(
        "import musicgen_ext as mg; print(mg.build_info()['isa'])", env={**os.environ, "MUSICGEN_EXT_CPU": "baseline"}
    )
    assert forced == "baseline\n"


# -- import --------------------------------------------------------------------------------------------------------


def test_import_is_light() -> None:
    """What is slow to import, or not ours to import, is not imported: time tells little on a busy machine."""
    found = python(
        "import sys, numpy\nbefore = set(sys.modules)\nimport musicgen_ext\nprint(*sorted(set(sys.modules) - before))"
    ).split()
    slow = {"argparse", "asyncio", "concurrent.futures", "email", "hashlib", "http", "importlib.metadata", "logging",
            "lzma", "multiprocessing", "numpy.random", "pathlib", "safetensors", "shutil", "socket", "ssl",
            "subprocess", "tempfile", "tomllib", "unittest", "urllib", "uuid", "wave", "xml", "zipfile"}  # fmt: skip
    assert not slow & set(found)
    strangers = {name.split(".")[0] for name in found if "." not in name} - set(sys.stdlib_module_names)
    assert strangers == {"musicgen_ext"}


def test_import_adds_at_most_60_ms() -> None:
    code = (
        "import time, numpy\nbegun = time.process_time()\nimport musicgen_ext\n"
        "print(time.process_time() - begun, end='')"
    )
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    # The best of several: others use this machine too. The first may compile.
    assert min(float(python(code, env=env)) for _ in range(6)) < 0.060


# -- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "bases", "details"),
    [
        (mg.MusicgenExtError, (Exception,), {}),
        (mg.MidiError, (mg.MusicgenExtError, ValueError), {"path": "x.mid", "offset": 12, "track": 3}),
        (mg.WeightsError, (mg.MusicgenExtError, ValueError), {"path": "m", "tensor": "rnn.weight_ih_l0"}),
        (mg.CheckpointError, (mg.MusicgenExtError, ValueError), {"path": "c", "previous": "b"}),
        (mg.DeviceError, (mg.MusicgenExtError, RuntimeError), {"device": "cuda"}),
    ],
)
def test_errors_keep_their_attributes(kind: Any, bases: tuple[type, ...], details: dict[str, Any]) -> None:
    error = kind("what: expected this, got that", **details)
    assert isinstance(error, bases)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))
        assert type(again) is kind
        assert str(again) == str(error)
        assert vars(again) == details


# -- files ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def score() -> mg.Score:
    return mg.Score([(i * 480, 480, 60 + i % 12) for i in range(200)])


def savers(score: mg.Score) -> dict[str, Any]:
    return {"midi": lambda path: score.save(path), "wav": lambda path: score.synthesize(sr=8000).save(path)}


@pytest.mark.parametrize("kind", ["midi", "wav"])
@pytest.mark.parametrize("point", ["fsync", "replace", "ftruncate"])
def test_R45_a_failed_save_is_raised_and_harms_nothing(
    kind: str, point: str, score: mg.Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"x.{kind}"
    path.write_bytes(b"old")

    def fails(*_: Any) -> None:
        raise OSError(28, "No space left on device", "elsewhere")

    with monkeypatch.context() as patch:
        patch.setattr(os, point, fails)
        with pytest.raises(OSError, match="No space left") as caught:
            savers(score)[kind](path)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]
    savers(score)[kind](path)
    assert path.read_bytes() != b"old"
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("kind", ["midi", "wav"])
def test_R45_targets_that_cannot_be(kind: str, score: mg.Score, tmp_path: Path) -> None:
    save = savers(score)[kind]
    taken = tmp_path / "folder.wav"
    taken.mkdir()
    with pytest.raises(IsADirectoryError) as folder:
        save(taken)
    assert folder.value.filename == str(taken)
    with pytest.raises(FileNotFoundError) as missing:
        save(tmp_path / "no" / "x.wav")
    assert missing.value.filename == str(tmp_path / "no" / "x.wav")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        save(tmp_path / "file" / "x.wav")
    if os.path.exists("/dev/full"):
        device = tmp_path / "full.wav"
        device.symlink_to("/dev/full")
        with pytest.raises(OSError, match="No space left") as full:
            save(device)
        assert full.value.filename == str(device)
        assert stat.S_ISCHR(os.stat("/dev/full").st_mode)  # not replaced by a file
        assert device.is_symlink()


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_R45_a_midi_file_cut_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "x.mid"
    path.write_bytes(b"old")
    out = python(
        "import resource, signal, sys\n"
        "import musicgen_ext as mg\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    mg.Score([(i * 480, 480, 60) for i in range(5000)]).save(sys.argv[1])\n"
        "except OSError as e:\n"
        "    print(e.errno, e.filename)\n",
        str(path),
    )
    assert out.split() == ["27", str(path)]
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.mid"]


@pytest.mark.skipif(not hasattr(os, "fork") or not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_R45_a_read_only_folder_as_an_ordinary_user(score: mg.Score, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Root may write anywhere, so a child gives that up first."""
    folder = Path("/tmp") / f"musicgen-read-only-{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        (folder / "x.mid").write_bytes(b"old")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.setresuid(65534, 65534, 65534)
                score.save(folder / "x.mid")
            except PermissionError as error:
                code = 0 if error.filename == str(folder / "x.mid") else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert (folder / "x.mid").read_bytes() == b"old"
        assert os.listdir(folder) == ["x.mid"]
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain name.mid", "plain name.mid"),
        ("süß.mid", "süß.mid"),
        ("line\nbreak", "line\\nbreak"),
        ("\x1b[31mred", "\\x1b[31mred"),
        (b"\xff.mid", "\\udcff.mid"),
    ],
)
def test_shown_names_stay_on_one_line(name: Any, shown: str) -> None:
    assert files.shown(name) == shown
