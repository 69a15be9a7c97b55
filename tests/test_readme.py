"""The README's examples run as they stand, in order, in one interpreter's namespace; those of docstrings, too."""

import doctest
import importlib
import re
from pathlib import Path

import numpy as np
import pytest

import musicgen_ext as mg
from musicgen_ext import encodings, weights
from musicgen_ext.architectures import VariationalConfig

PACKAGE = Path(mg.__file__).parent
WITH_EXAMPLES = sorted(path for path in PACKAGE.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))
README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def fences(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def beginning(score, ticks):
    """The notes that start before so many ticks, with the voice that sings them."""
    notes = score.notes[score.notes["start"] < ticks]
    return sorted(zip(notes["start"].tolist(), notes["track"].tolist(), notes["pitch"].tolist(), strict=True))


def tiny_vae():
    """What the training of a VAE on tunes leaves, but small and random."""
    encoding = encodings.MelodyWindows(32, 40, 61, 40, 100)
    config = VariationalConfig.from_dict(
        {
            "latent_size": 6,
            "window": 32,
            "encoder": {"cell": "gru", "hidden_size": 8, "num_layers": 1, "dim": 6},
            "decoder": {
                "cell": "lstm",
                "hidden_size": 8,
                "num_layers": 1,
                "features": [],
                "trunk": [],
                "vector": {"size": 6, "dim": 6, "initial": True},
                "slots": [{"name": "melody", "size": 63, "first_pitch": 2, "hold": 0}],
            },
            "attributes": list(encodings.ATTRIBUTES),
        }
    )
    rng = np.random.default_rng(5)
    tensors = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in config.tensor_shapes().items()}
    tensors["attribute_deviation"] = np.abs(tensors["attribute_deviation"]) + 1
    return weights.ModelFile(None, "variational", config.to_dict(), encoding.to_dict(), {}, tensors)


def test_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("runs/vae").mkdir(parents=True)
    weights.write("runs/vae/model.safetensors", tiny_vae())
    mg.sample(seed=11, length="4 bars").save("melody.mid")
    names = {}
    for number, code in enumerate(fences("python")):
        exec(compile(code, f"README example {number}", "exec"), names)
    piece, harmonised = names["piece"], mg.read_midi("harmonised.mid")
    assert mg.read_midi("chorale.mid").to_bytes() == piece.to_bytes()
    assert Path("chorale.wav").read_bytes()[:4] == b"RIFF"
    assert piece.provenance["seed"] == 7
    assert len(names["minor"]) == 4
    assert 6 in mg.read_midi("tune.mid").time_signatures["numerator"]  # after an upbeat
    assert names["z"].shape[1:] == (6,)
    assert len(names["between"]) == 8
    # The prompt comes back at the beginning, the melody on top.
    three_bars = 3 * 4 * names["opening"].ticks_per_quarter
    assert beginning(names["opening"], three_bars) == beginning(names["longer"], three_bars)
    melody = names["melody"].notes
    np.testing.assert_array_equal(
        harmonised.notes["pitch"][harmonised.notes["track"] == harmonised.notes["track"].min()],
        melody["pitch"][melody["track"] == melody["track"].min()],
    )
    assert names["nats"].dtype == np.float64
    assert (names["nats"] <= 0).all()
    assert "nats" in capsys.readouterr().out


def test_two_commands_and_no_more():
    """`.ci/run` runs the first and the second sh fence; a third would be documented and never run."""
    commands = fences("sh")
    assert len(commands) == 2
    assert all(len(command.strip().splitlines()) == 1 for command in commands)
    assert "chorale.mid" in commands[0]
    assert commands[1].rstrip().endswith("&& .venv-test/bin/pytest")


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.stem)
def test_examples_of_docstrings_run(path):
    name = ".".join(("musicgen_ext", *path.relative_to(PACKAGE).with_suffix("").parts))
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
