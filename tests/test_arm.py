"""The baseline on 64-bit ARM (NEON) gives the bits of x86: cross-compiled, and run in an emulator, where both are."""

import shutil
import subprocess
from pathlib import Path

import pytest

ENGINE = (
    *("history", "kernels", "logistics", "packing", "recurrent", "recurrent_packing", "sampler"),
    *("attention", "attention_kernels", "attention_packing"),
    *("wavenet", "wavenet_kernels", "wavenet_packing", "wavenet_pair"),
)
SOURCES = ("base/arena", "base/cpu", "base/parallel", *(f"generate/{name}" for name in ENGINE))


SPECTRA = (
    *("base/arena", "base/cpu", "base/pool"),
    *(f"audio/{name}" for name in ("correlation", "fft", "kernels", "match", "stft")),
)


def hashes(compiler, program, *options, run=(), main="same_bits", names=SOURCES):
    root = Path(__file__).parents[1]
    sources = [str(root / f"tests/cpp/{main}.cpp"), *(str(root / f"src/cpp/{name}.cpp") for name in names)]
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


def test_spectra_on_arm_have_the_bits_of_those_with_fused_multiply_add_here(tmp_path):
    for tool in ("c++", "aarch64-linux-gnu-g++", "qemu-aarch64"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool} (Debian: g++, g++-aarch64-linux-gnu, qemu-user)")
    program = {"main": "same_spectra", "names": SPECTRA}
    here = hashes("c++", tmp_path / "here", **program)
    here.pop("baseline")  # rounds once more where the others fuse
    there = hashes("aarch64-linux-gnu-g++", tmp_path / "there", "-static", run=["qemu-aarch64"], **program)
    if not here:
        pytest.skip("needs a processor with AVX2")
    assert len(set(here.values())) == 1, here
    assert set(there.values()) == set(here.values())
