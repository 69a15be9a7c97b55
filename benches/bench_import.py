"""What a user waits for: the import, the first piece from a cold start, sixteen bars from a warm one."""

import subprocess
import sys

import pytest

IMPORTS = {
    "bare interpreter": "pass",
    "numpy": "import numpy",
    "musicgen_ext": "import musicgen_ext",
    "pretty_midi": "import pretty_midi",
    "onnxruntime": "import onnxruntime",
    "torch": "import torch",
}


def run(code, folder):
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("name", IMPORTS)
def test_import(benchmark, name, tmp_path):
    if name not in ("bare interpreter", "musicgen_ext"):
        pytest.importorskip(name)
    benchmark.group = "import, a fresh interpreter each time"
    benchmark.pedantic(run, args=(IMPORTS[name], tmp_path), rounds=7, warmup_rounds=1)


def test_one_liner(benchmark, tmp_path):
    benchmark.group = "one line, a fresh interpreter each time"
    code = "import musicgen_ext; musicgen_ext.sample().save('x.mid')"
    benchmark.pedantic(run, args=(code, tmp_path), rounds=5, warmup_rounds=1)
    assert (tmp_path / "x.mid").read_bytes()[:4] == b"MThd"


def test_sixteen_bars(benchmark):
    import musicgen_ext as mg

    model = mg.load("chorale")
    benchmark.group = "sixteen bars of chorale, model loaded"
    seeds = iter(range(1000))
    piece = benchmark(lambda: model.sample(length="16 bars", seed=next(seeds)))
    assert len(piece.notes) > 0
