"""Fixtures of all rooms: a seeded generator, and one run of a numeric test on each instruction set of this machine."""

import os

import numpy as np
import pytest

from musicgen_ext import _core


def pytest_report_header():
    return f"musicgen_ext {_core.__version__}, {_core.compiler}, instruction sets: {', '.join(_core.isas_available())}"


@pytest.fixture
def rng():
    return np.random.default_rng(20_261_120)


@pytest.fixture(params=_core.isas_available())
def isa(request, monkeypatch):
    """The instruction set that the native code uses in this test."""
    monkeypatch.setenv("MUSICGEN_EXT_CPU", request.param)
    assert _core.isa_in_use() == request.param
    return request.param


@pytest.fixture
def on_every_isa(monkeypatch):
    """Call a function once on each instruction set and return the results by name."""

    def run(function):
        results = {}
        for name in _core.isas_available():
            monkeypatch.setenv("MUSICGEN_EXT_CPU", name)
            results[name] = function()
        monkeypatch.delenv("MUSICGEN_EXT_CPU")
        return results

    return run


def pytest_configure():
    os.environ.pop("MUSICGEN_EXT_CPU", None)  # tests choose their paths themselves
