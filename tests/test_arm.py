"""The baseline on 64-bit ARM (NEON) gives the bits of x86: cross-compiled, and run in an emulator, where both are."""

import shutil
import subprocess
from pathlib import Path

import pytest

ENGINE = ("history", "kernels", "packing", "recurrent", "sampler")
SOURCES = ("base/arena", "base/cpu", "base/parallel", *(f"generate/{name}" for name in ENGINE))


def hashes(compiler, program, *options, run=()):
    root = Path(__file__).parents[1]
    sources = [str(root / "tests/cpp/same_bits.cpp"), *(str(root / f"src/cpp/{name}.cpp") for name in SOURCES)]
    flags = ["-std=c++17", "-O1", "-ffp-contract=off", "-pthread", "-w", f"-I{root / 'src/cpp'}"]
    subprocess.run([compiler, *flags, *options, *sources, "-o", str(program)], check=True)
    output = subprocess.run([*run, str(program)], check=True, capture_output=True, text=True).stdout
    return dict(line.split() for line in output.splitlines())


@pytest.mark.parametrize("options", [(), ("-march=armv8.2-a+dotprod",)], ids=["armv8", "dotprod"])
def test_arm_gives_the_bits_of_this_machine(tmp_path, options):
    for tool in ("c++", "aarch64-linux-gnu-g++", "qemu-aarch64"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool} (Debian: g++, g++-aarch64-linux-gnu, qemu-user)")
    here = hashes("c++", tmp_path / "here")
    there = hashes("aarch64-linux-gnu-g++", tmp_path / "there", "-static", *options, run=["qemu-aarch64"])
    assert len(set(here.values())) == 1, here
    assert set(there.values()) == set(here.values())
