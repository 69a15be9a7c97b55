"""Many files into one store: the same bytes whatever happens, nothing lost in silence, memory flat."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import musicgen_ext as mg
from musicgen_ext import corpus
from musicgen_ext.corpus import TokenStore, encode_corpus
from musicgen_ext.encodings import CHORALE

ROWS = ((72, 67, 60, 48), (74, 67, 59, 55), (72, 65, 60, 53), (71, 62, 59, 43))


def piece(seed: int) -> mg.Score:
    """A few chords of four voices, different for every seed."""
    rng = np.random.default_rng(seed)
    notes = []
    for step in range(int(rng.integers(2, 6))):
        for voice, pitch in enumerate(ROWS[int(rng.integers(4))]):
            notes.append((step * 480, 480, pitch, 80, voice))
    return mg.Score(notes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 files in subfolders, some of them bad, some odd."""
    root = tmp_path_factory.mktemp("corpus")
    for i in range(300):
        path = root / f"{i % 7}" / f"{'deep/' * (i % 3)}{i:03}.mid"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(piece(i).to_bytes())
    (root / "0" / "empty.mid").write_bytes(b"")
    (root / "1" / "text.mid").write_text("this is no MIDI file")
    (root / "2" / "cut.MID").write_bytes(piece(1).to_bytes()[:-9])
    (root / "3" / "five.midi").write_bytes(mg.Score([(0, 480, p) for p in (50, 55, 60, 64, 67)]).to_bytes())
    (root / "4" / "notes.txt").write_text("not looked at")
    (root / "5" / ".hidden.mid").write_text("not looked at")
    return root


def contents(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


def encode(folder: Path, out: Path, **options: Any) -> corpus.CorpusSummary:
    return encode_corpus(folder, CHORALE, out=out, **options)


@pytest.fixture(scope="module")
def store(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("store") / "whole"
    encode(folder, out, workers=1)
    return out


# -- what is in a store --------------------------------------------------------------------------------------------


def test_a_store_holds_what_encode_gives(folder: Path, store: Path) -> None:
    opened = TokenStore(store)
    names = [entry["file"] for entry in opened.manifest]
    assert len(opened) == len(names) == 301
    for name, tokens, entry in zip(names, opened, opened.manifest, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            score = mg.read_midi(folder / name)
        expected = CHORALE.encode(score)
        np.testing.assert_array_equal(tokens, expected)
        assert tokens.dtype == np.uint16
        assert entry["length"] == len(expected)
        data = (folder / name).read_bytes()
        assert entry["bytes"] == len(data)
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert entry["issues"] == [issue.message for issue in score.issues]
    assert opened.encoding == CHORALE
    assert opened.num_tokens == opened.tokens.size == sum(tokens.size for tokens in opened)
    assert not opened.tokens.flags.writeable


def test_files_come_depth_first_in_the_order_of_their_names(store: Path) -> None:
    names = [entry["file"] for entry in (*TokenStore(store).manifest, *TokenStore(store).failures)]
    order = [json.loads(line)["file"] for line in (store / "manifest.jsonl").read_bytes().splitlines()]
    assert order == sorted(names, key=lambda name: [os.fsencode(part) for part in name.split("/")])


def test_bad_files_are_skipped_and_named(folder: Path, store: Path) -> None:
    failures = {entry["file"]: entry["error"] for entry in TokenStore(store).failures}
    assert failures.keys() == {"0/empty.mid", "1/text.mid", "3/five.midi"}
    assert "too short for a MIDI header" in failures["0/empty.mid"]
    assert failures["3/five.midi"] == "tick 0: expected at most 4 notes at once, got 5"
    again = encode(folder, store)  # there is nothing left to do
    assert (again.files, again.failed, again.issues) == (301, 3, 1)
    assert dict(again.failures) == failures
    assert again.tokens == TokenStore(store).num_tokens


# -- the same bytes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [2, 5])
def test_the_same_bytes_for_any_number_of_workers(folder: Path, store: Path, tmp_path: Path, workers: int) -> None:
    encode(folder, tmp_path / "store", workers=workers)
    assert contents(tmp_path / "store") == contents(store)
