"""Scores to tokens and back, one thread: our streams beside MidiTok's REMI, on the same files."""

from __future__ import annotations

import pytest

import musicgen_ext as mg
from midi_files import write_group
from musicgen_ext import encodings

STREAMS = {
    "pitch sequence": encodings.PitchSequence(),
    "performance": encodings.Performance(),
    "performance, beats": encodings.Performance(steps_per_beat=12),
    "bars": encodings.Bars(),
    "bars, chords": encodings.Bars(chords=True),
}
GROUPS = ("chorales", "piano", "long")


@pytest.fixture(scope="module", params=GROUPS)
def files(request, tmp_path_factory):
    """Name of the group, the paths of its files (20 at most), their scores and the notes in all of them."""
    paths = write_group(tmp_path_factory.getbasetemp() / "midi", request.param)[:20]
    scores = [mg.read_midi(path) for path in paths]
    return request.param, paths, scores, sum(len(score.notes) for score in scores)


def rate(benchmark, group, notes):
    benchmark.group = group
    benchmark.extra_info["ns per note"] = round(benchmark.stats.stats.median / notes * 1e9, 1)
    benchmark.extra_info["notes/s"] = round(notes / benchmark.stats.stats.median)


@pytest.mark.parametrize("name", STREAMS)
def test_encode(benchmark, files, name):
    group, _, scores, notes = files
    encoding = STREAMS[name]
    assert all(len(encoding.encode(score)) for score in scores)
    benchmark.pedantic(lambda: [encoding.encode(score) for score in scores], rounds=9, warmup_rounds=1)
    rate(benchmark, f"encode {group}", notes)


@pytest.mark.filterwarnings("ignore")
def test_encode_miditok(benchmark, files):
    """MidiTok's REMI with the same programs, tempos, metres, velocities and grid; one file, for it takes seconds."""
    miditok = pytest.importorskip("miditok", reason="MidiTok is not installed")
    symusic = pytest.importorskip("symusic", reason="symusic is not installed")
    group, paths, scores, _ = files
    config = miditok.TokenizerConfig(
        use_programs=True, use_tempos=True, use_time_signatures=True, pitch_range=(0, 127), beat_res={(0, 16): 12}
    )
    remi = miditok.REMI(config)
    at = min(range(len(paths)), key=lambda i: len(scores[i].notes))
    score = symusic.Score(paths[at])
    tokens = benchmark.pedantic(remi.encode, args=(score,), rounds=3, warmup_rounds=1)
    assert len(tokens)
    rate(benchmark, f"encode {group}", len(scores[at].notes))


@pytest.mark.parametrize("name", STREAMS)
def test_decode(benchmark, files, name):
    group, _, scores, notes = files
    encoding = STREAMS[name]
    tokens = [encoding.encode(score) for score in scores]
    assert all((encoding.encode(encoding.decode(t)) == t).all() for t in tokens)
    benchmark.pedantic(lambda: [encoding.decode(t) for t in tokens], rounds=9, warmup_rounds=1)
    rate(benchmark, f"decode {group}", notes)
