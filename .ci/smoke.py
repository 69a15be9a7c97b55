"""The installed wheel in an environment that has numpy and safetensors only: makes music, says who it is."""

import importlib.metadata
import importlib.util
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import musicgen_ext as mg

for package in ("torch", "matplotlib", "pretty_midi", "soundfile", "librosa"):
    assert importlib.util.find_spec(package) is None, f"{package} is installed: this is not the plain environment"
assert mg.__version__ == importlib.metadata.version("musicgen-ext")
print(mg.build_info())
print("bundled:", mg.models())

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "x.mid")
    start = time.perf_counter()
    mg.sample(seed=7).save(path)
    print(f"one piece, import not counted: {time.perf_counter() - start:.3f} s")
    again = mg.sample(seed=7)
    assert path.read_bytes() == again.to_bytes(), "one seed, one piece: two calls differ"
    assert len(mg.read_midi(path).notes) == len(again.notes) > 20
    start = time.perf_counter()
    code = f"import musicgen_ext; musicgen_ext.sample().save({str(path)!r})"
    subprocess.run([sys.executable, "-c", code], check=True)
    print(f"one line in a fresh interpreter: {time.perf_counter() - start:.3f} s")
    command = Path(sys.executable).with_name("musicgen-ext")
    subprocess.run([command, "info", "--build"], check=True)
    subprocess.run([command, "sample", "-o", Path(folder, "y.mid"), "--seed", "7", "--length", "4 bars"], check=True)
    assert Path(folder, "y.mid").read_bytes()[:4] == b"MThd"
    code = "import musicgen_ext; musicgen_ext.sample(seed=7).plot()"
    plot = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError" in plot.stderr, plot
    assert "pip install" in plot.stderr, plot
