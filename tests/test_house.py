"""The house rules as code: who may import whom, what a fresh interpreter loads, what stays out of which folder."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import musicgen_ext
from musicgen_ext import weights

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "musicgen_ext"
CPP = ROOT / "src" / "cpp"

# Imports go down: a room may use rooms on a lower floor, never its own floor, never one above.
FLOORS = {
    "errors": 0,
    "_core": 0,
    "files": 1,
    "progress": 1,
    "provenance": 1,
    "architectures": 1,
    "checks": 1,
    "controllers": 1,
    "general_midi": 1,
    "hashing": 1,
    "keys": 1,
    "recognition": 1,
    "tables": 1,
    "timing": 1,
    "audio": 2,
    "midi": 2,
    "weights": 2,
    "encodings": 3,
    "features": 3,
    "interchange": 3,
    "likeness": 3,
    "melodies": 3,
    "pictures": 3,
    "render": 3,
    "rolls": 3,
    "summary": 3,
    "transform": 3,
    "corpus": 4,
    "matching": 5,
    "signals": 4,
    "generate": 4,
    "evaluate": 4,
    "train": 4,
    "extraction": 5,
    "model": 5,
    "cli": 6,
    "__init__": 6,
    "__main__": 7,
}
# Only inside functions: the command line fetches the workshop when `train` asks for it, and methods such as
# Score.synthesize, Score.plot and Audio.trim fetch the rooms above that play, draw and convert.
LAZILY_ANYWHERE = {
    "audio": {"signals"},
    "cli": {"train", "evaluate"},
    "midi": {"interchange", "pictures", "render", "transform"},
}
HEAVY = {"torch", "librosa", "pretty_midi", "matplotlib", "soundfile", "soxr", "scipy", "music21", "mido", "tqdm"}
HEAVY |= {"symusic"}

MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = sorted([*CPP.rglob("*.h"), *CPP.rglob("*.cpp"), *CPP.rglob("*.inl"), *CPP.rglob("*.cu*")])


def room_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports_of(path):
    """(room or package, whether at module level) for every import in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.walk(node)
    }
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        top = id(node) not in inside
        if isinstance(node, ast.Import):
            found += [(alias.name, top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            if node.module == "musicgen_ext":
                found += [(f"musicgen_ext.{alias.name}", top) for alias in node.names]
            else:
                found.append((node.module, top))
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    room = room_of(path)
    assert room in FLOORS, f"{room}: a new room needs a floor in FLOORS"
    for name, top in imports_of(path):
        parts = name.split(".")
        if parts[0] != "musicgen_ext":
            if parts[0] in HEAVY and room != "train":
                assert not top, f"{path.name}: {parts[0]} may be imported only where a call needs it"
            continue
        other = parts[1] if len(parts) > 1 else "__init__"
        if other == room:
            continue
        if other in ("__version__", "__init__"):
            other = "_core" if other == "__version__" else other
        assert other in FLOORS, f"{path.name} imports {name}: not a room"
        lazily = not top and other in LAZILY_ANYWHERE.get(room, set())
        assert lazily or FLOORS[other] < FLOORS[room], f"{room} may not import {other}: imports go down"


def test_only_the_workshop_knows_torch():
    for path in MODULES:
        if room_of(path) != "train":
            assert not any(name.split(".")[0] == "torch" for name, _ in imports_of(path)), path.name


def test_the_reference_is_not_used_by_the_package():
    for path in MODULES:
        assert "musicgen_reference" not in path.read_text(encoding="utf-8"), path.name


FRESH = """
import sys
import musicgen_ext as mg
{code}
found = sorted({{name.split(".")[0] for name in sys.modules}} & set({heavy!r}))
assert not found, found
"""


def fresh(code):
    """Run in a new interpreter, which must not have loaded any of the heavy packages."""
    program = FRESH.format(code=code, heavy=sorted(HEAVY))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_import_loads_nothing_heavy():
    fresh("")


def test_sampling_loads_nothing_heavy(tmp_path):
    fresh(f"mg.sample(seed=1, length='2 bars').save({str(tmp_path / 'x.mid')!r})")
    assert (tmp_path / "x.mid").read_bytes()[:4] == b"MThd"


def test_playing_a_score_loads_nothing_heavy(tmp_path, make_sound_model):
    weights.write(tmp_path / "m.safetensors", make_sound_model())
    score = "mg.Score([(0, 96, 60), (0, 192, 67)])"
    sample = f"mg.sample({str(tmp_path / 'm.safetensors')!r}, condition={{'score': {score}}}, seed=1)"
    fresh(f"{sample}.save({str(tmp_path / 'x.wav')!r})")
    assert (tmp_path / "x.wav").read_bytes()[:4] == b"RIFF"


def test_pybind11_stays_at_the_door():
    for path in SOURCES:
        if path.parent.name != "bindings":
            text = path.read_text(encoding="utf-8")
            assert "pybind11" not in text, path.name
            assert "Python.h" not in text, path.name


@pytest.mark.parametrize(
    ("folder", "pattern", "why"),
    [
        ("generate", r"\bstd::(mt19937|random_device|uniform_\w+_distribution)|\brand\(|#include <random>", "chance"),
        ("audio", r"\bstd::(mt19937|random_device)|\brand\(|#include <random>", "chance"),
        ("audio", r"#include <(fstream|filesystem)>|\bfopen\b|\bFILE\b", "files"),
        ("generate", r"#include <(fstream|filesystem)>|\bfopen\b|\bFILE\b", "files"),
        ("midi", r"#include <(fstream|filesystem)>|\bfopen\b|\bFILE\b", "files"),
        (".", r"\b(std::)?(exit|abort|quick_exit|_Exit)\(", "ending the process"),
        (".", r"\bassert\(", "assert: input is checked, and the rest is true"),
        (".", r"\b(printf|puts)\(|\bstd::(cout|cerr)\b", "printing"),
        (".", r"#pragma omp|#include <omp\.h>", "OpenMP: it does not survive a fork"),
    ],
)
def test_native_code_keeps_out_of(folder, pattern, why):
    for path in SOURCES:
        if folder != "." and path.parent.name != folder:
            continue
        code = re.sub(r"//.*", "", path.read_text(encoding="utf-8"))
        found = re.search(pattern, code)
        assert found is None, f"{path.relative_to(CPP)}: {found.group() if found else ''} ({why})"


def test_native_rooms_do_not_know_their_neighbours():
    """midi, audio and generate may include base and themselves; only bindings may include them all."""
    for path in SOURCES:
        room = path.relative_to(CPP).parts[0]
        for other in re.findall(r'#include "(\w+)/', path.read_text(encoding="utf-8")):
            if room == "bindings":
                continue
            assert other in ("base", room), f"{path.relative_to(CPP)} includes {other}"


def test_native_sources_are_listed_by_name():
    listed = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    for path in SOURCES:
        if path.suffix == ".cpp":
            assert path.relative_to(ROOT).as_posix() in listed, f"{path.name} is not in CMakeLists.txt"


def test_no_fast_math_and_no_native_architecture():
    listed = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    for flag in ("-ffast-math", "-march=native", "-Ofast", "-funsafe-math"):
        assert flag not in listed


def test_the_version_is_written_once():
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None
    assert musicgen_ext.__version__ == version.group(1)
    for path in [*MODULES, *SOURCES, ROOT / "CMakeLists.txt"]:
        assert f'"{version.group(1)}"' not in path.read_text(encoding="utf-8"), path.name


PUBLIC = {
    "music": [
        "Audio",
        "Model",
        "Score",
        "ScoreModel",
        "SoundModel",
        "TokenModel",
        "build_info",
        "load",
        "match",
        "models",
        "read_midi",
        "sample",
    ],
    "corpora": ["FeatureStore", "TokenStore", "encode_corpus", "extract_features"],
    "rolls": ["piano_roll", "piano_rolls"],
    "errors": ["CheckpointError", "DeviceError", "MidiError", "MusicgenExtError", "WeightsError"],
}


@pytest.mark.parametrize("name", [name for names in PUBLIC.values() for name in names])
def test_public_name(name):
    assert hasattr(musicgen_ext, name)
    assert name in musicgen_ext.__all__
    assert getattr(musicgen_ext, name).__doc__


def test_all_is_sorted_and_true():
    assert musicgen_ext.__all__ == sorted(musicgen_ext.__all__)
    for name in musicgen_ext.__all__:
        assert hasattr(musicgen_ext, name), name


@pytest.mark.parametrize("name", ["encodings", "features", "signals"])
def test_modules_are_attributes(name):
    fresh(f"assert mg.{name}.__name__ == 'musicgen_ext.{name}'\nassert {name!r} in dir(mg)")


@pytest.mark.parametrize("error", ["MidiError", "WeightsError", "CheckpointError"])
def test_data_errors_are_value_errors(error):
    assert issubclass(getattr(musicgen_ext, error), (musicgen_ext.MusicgenExtError, ValueError))
    assert issubclass(getattr(musicgen_ext, error), ValueError)


def test_the_package_is_typed():
    assert (PACKAGE / "py.typed").is_file()
    assert (PACKAGE / "_core.pyi").is_file()
