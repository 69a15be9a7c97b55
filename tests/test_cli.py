"""The command line: what it writes, what it says, and the code it leaves with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import musicgen_ext as mg
from musicgen_ext import cli
from musicgen_ext.encodings import TICKS_PER_STEP, read_voices

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")


class Run:
    """`musicgen-ext` in this process: returns (exit code, standard output, standard error)."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self.capfd = capfd

    def __call__(self, *arguments: Any) -> tuple[int, str, str]:
        try:
            code = cli.main([os.fspath(a) if isinstance(a, os.PathLike) else str(a) for a in arguments])
        except SystemExit as exit:
            code = int(exit.code or 0)
        out, err = self.capfd.readouterr()
        return code, out, err


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    return Run(capfd)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*arguments: Any, **options: Any) -> Any:
    """`musicgen-ext` in a process of its own, with this very package, wherever the test has gone."""
    above = str(Path(mg.__file__).parents[1])
    environment = options.pop("env", os.environ)
    path = os.pathsep.join([above, *filter(None, [environment.get("PYTHONPATH")])])
    options = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        **options,
        "env": {**environment, "PYTHONPATH": path},
    }
    return subprocess.Popen([sys.executable, "-m", "musicgen_ext", *arguments], **options)


def one_error(result: tuple[int, str, str], code: int, *words: str) -> None:
    assert result[0] == code, result
    assert result[1] == ""
    lines = result[2].splitlines()
    assert lines[-1].startswith("error: ")
    assert "Traceback" not in result[2]
    for word in words:
        assert word in lines[-1]
    assert len(lines) == 1 or code == 2  # wrong usage shows how it is used


# -- sample --------------------------------------------------------------------------------------------------------


def test_sample_writes_what_sample_returns(run: Run, here: Path, chorale_file: Path) -> None:
    code, out, err = run("sample", chorale_file, "-o", "a.mid", "--seed", 7, "--length", "4 bars", "-c", "mode=minor")
    assert (code, err) == (0, "")
    piece = mg.sample(chorale_file, seed=7, length="4 bars", condition={"mode": "minor"})
    assert mg.read_midi("a.mid", strict=True) == piece
    assert out == f"a.mid: {len(piece.notes)} notes, {piece.end_time:.1f} s, seed 7\n"
    assert os.listdir() == ["a.mid"]


def test_sample_passes_every_option_on(run: Run, here: Path, chorale_file: Path) -> None:
    code, _, err = run(
        "sample", chorale_file, "--output=b.midi", "--seed=9", "--temperature", 0.8, "--top-k", 5, "--top-p", 0.9,
        "-c", "meter=3/4", "-c", "pickup=1", "--condition", "key=D major", "--length", "12 beats", "--device", "cpu",
    )  # fmt: skip
    assert (code, err) == (0, "")
    condition = {"meter": "3/4", "pickup": 1.0, "key": "D major"}
    expected = mg.sample(
        chorale_file, seed=9, temperature=0.8, top_k=5, top_p=0.9, length="12 beats", condition=condition
    )
    assert mg.read_midi("b.midi") == expected


def test_sample_wav(run: Run, here: Path, chorale_file: Path) -> None:
    code, out, _ = run("sample", chorale_file, "-o", "a.mid", "-o", "a.wav", "--sr", 8000, "--length", "2 beats")
    assert code == 0
    assert out.startswith("a.mid, a.wav: ")
    assert Path("a.wav").read_bytes()[:4] == b"RIFF"
    assert Path("a.mid").read_bytes()[:4] == b"MThd"


def test_sample_plot(run: Run, here: Path, chorale_file: Path) -> None:
    pytest.importorskip("matplotlib")
    assert run("sample", chorale_file, "-o", "a.mid", "--plot", "a.png", "--length", "2 bars")[0] == 0
    assert Path("a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_sample_several(run: Run, here: Path, chorale_file: Path) -> None:
    code, out, err = run("sample", chorale_file, "-n", 3, "-o", "x-{i}.mid", "--seed", 1)
    assert (code, err) == (0, "")
    pieces = mg.sample(chorale_file, num_samples=3, seed=1)
    assert [mg.read_midi(f"x-{i}.mid") for i in range(3)] == pieces
    assert [line.split(":")[0] for line in out.splitlines()] == ["x-0.mid", "x-1.mid", "x-2.mid"]


def test_sample_names_its_own_output(run: Run, here: Path, chorale_file: Path) -> None:
    shutil.copy(chorale_file, "mine.safetensors")
    assert run("sample", "mine.safetensors", "--length", "1 bar")[0] == 0
    assert run("sample", "mine.safetensors", "--length", "1 bar", "-n", 2)[0] == 0
    assert sorted(os.listdir()) == ["mine-0.mid", "mine-1.mid", "mine.mid", "mine.safetensors"]


def test_sample_continues_and_harmonises(run: Run, here: Path, chorale_file: Path) -> None:
    run("sample", chorale_file, "-o", "a.mid", "--length", "4 bars", "--seed", 2)
    assert run("sample", chorale_file, "-o", "b.mid", "--prompt", "a.mid", "--length", "9 bars")[0] == 0
    assert run("sample", chorale_file, "-o", "c.mid", "--soprano", "a.mid")[0] == 0
    first, longer, same_tune = (mg.read_midi(f"{n}.mid") for n in "abc")
    end = int((first.notes["start"] + first.notes["duration"]).max()) // TICKS_PER_STEP
    np.testing.assert_array_equal(read_voices(longer).pitch[:end], read_voices(first).pitch)
    top = [s.notes[s.notes["track"] == 0][["start", "duration", "pitch"]].tolist() for s in (first, same_tune)]
    begin = top[0][0][0]
    assert [(s - begin, d, p) for s, d, p in top[0]] == [(s - top[1][0][0], d, p) for s, d, p in top[1]]


def test_sample_to_standard_output(here: Path, chorale_file: Path) -> None:
    done = command("sample", chorale_file, "-o", "-", "--seed", "3", "--length", "2 bars")
    out, err = done.communicate(timeout=60)
    assert done.returncode == 0
    assert mg.read_midi(out) == mg.sample(chorale_file, seed=3, length="2 bars")
    assert err.decode().startswith("standard output: ")
    assert os.listdir() == []


def test_what_changed_in_a_prompt_is_said(run: Run, here: Path, chorale_file: Path) -> None:
    mg.Score([(i * 480 + 7 * (i == 1), 480, p, 80, v) for i in range(8) for v, p in enumerate((72, 64, 57, 48))]).save(
        "p.mid"
    )
    code, _, err = run("sample", chorale_file, "-o", "a.mid", "--prompt", "p.mid", "--length", "4 bars")
    assert code == 0
    assert err.startswith("warning: prompt: 4 of 32 notes do not begin on a sixteenth")


# -- R47 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["COMMAND"]),
        (["compose"], ["compose"]),
        (["sample", "--quickly"], ["--quickly"]),
        (["sample", "--temp", "1"], ["--temp"]),
        (["sample", "--seed", "x"], ["--seed", "'x'"]),
        (["sample", "--seed", "1.5"], ["--seed", "'1.5'"]),
        (["sample", "--temperature", "hot"], ["--temperature"]),
        (["sample", "-o"], ["-o"]),
        (["sample", "MODEL", "-o", "x.mp3"], ["x.mp3", ".mid, .midi, .wav"]),
        (["sample", "MODEL", "-o", "x"], ["x", ".mid"]),
        (["sample", "MODEL", "-o", "x.mid", "--plot", "x.bmp"], ["x.bmp", ".png"]),
        (["sample", "MODEL", "-o", "x.mid", "-n", "3"], ["x.mid", "{i}"]),
        (["sample", "MODEL", "-o", "-", "-n", "3"], ["-n"]),
        (["sample", "MODEL", "-o", "x.mid", "-c", "minor"], ["NAME=VALUE", "'minor'"]),
        (["sample", "MODEL", "-o", "x.mid", "-c", "pickup=some"], ["pickup", "'some'"]),
        (["sample", "MODEL", "-o", "x.mid", "-c", "mode=dorian"], ["condition['mode']", "'dorian'"]),
        (["sample", "MODEL", "-o", "x.mid", "-c", "mood=sad"], ["condition", "'mood'"]),
        (["sample", "MODEL", "-o", "x.mid", "--temperature", "nan"], ["temperature", "nan"]),
        (["sample", "MODEL", "-o", "x.mid", "--temperature=-1"], ["temperature", "-1"]),
        (["sample", "MODEL", "-o", "x.mid", "--top-p", "2"], ["top_p"]),
        (["sample", "MODEL", "-o", "x.mid", "--top-k", "0"], ["top_k"]),
        (["sample", "MODEL", "-o", "x.mid", "--seed", "-1"], ["seed"]),
        (["sample", "MODEL", "-o", "x.mid", "--length", "16 barn"], ["length", "bars, beats, s, steps"]),
        (["sample", "MODEL", "-o", "x-{i}.mid", "-n", "0"], ["num_samples"]),
        (["sample", "MODEL", "-o", "x.mid", "--device", "tpu"], ["device"]),
        (["evaluate"], ["required"]),
        (["evaluate", "jsb16"], ["--data"]),
        (["train"], ["CONFIG.toml"]),
    ],
)
def test_R47_usage(run: Run, here: Path, chorale_file: Path, arguments: list[str], words: list[str]) -> None:
    one_error(run(*(str(chorale_file) if a == "MODEL" else a for a in arguments)), 2, *words)
    assert os.listdir() == []


def test_R47_input_that_is_missing_or_something_else(run: Run, here: Path, chorale_file: Path) -> None:
    Path("noise.mid").write_bytes(os.urandom(1000))
    Path("noise.safetensors").write_bytes(os.urandom(1000))
    Path("folder.mid").mkdir()
    before = sorted(os.listdir())
    one_error(run("sample", "none", "-o", "x.mid"), 1, "none: ", "expected a model file or the name of a bundled model")
    one_error(run("sample", "noise.safetensors", "-o", "x.mid"), 1, "noise.safetensors: ")
    one_error(run("sample", chorale_file, "-o", "x.mid", "--prompt", "none.mid"), 1, "none.mid: No such file")
    one_error(run("sample", chorale_file, "-o", "x.mid", "--prompt", "noise.mid"), 1, "noise.mid: ")
    one_error(run("sample", chorale_file, "-o", "x.mid", "--soprano", "folder.mid"), 1, "folder.mid: Is a directory")
    one_error(run("sample", chorale_file, "-o", "no/x.mid"), 1, "no/x.mid: No such file or directory")
    one_error(run("info", "none.mid"), 1, "none.mid: No such file")
    one_error(run("info", "noise.mid"), 1, "noise.mid: ")
    one_error(run("evaluate", "jsb16", "--data", "none.npz"), 1, "none.npz: No such file")
    one_error(run("sample", chorale_file, "--device", "cuda", "-o", "x.mid"), 2, "this build has no CUDA")
    assert sorted(os.listdir()) == before


def test_R47_nothing_is_overwritten_without_force(run: Run, here: Path, chorale_file: Path) -> None:
    Path("a.mid").write_bytes(b"precious")
    Path("b-1.mid").write_bytes(b"precious")
    one_error(run("sample", chorale_file, "-o", "a.mid"), 1, "a.mid: exists already; --force overwrites it")
    one_error(run("sample", chorale_file, "-o", "c.mid", "-o", "a.mid"), 1, "a.mid: exists already")
    one_error(run("sample", chorale_file, "-o", "b-{i}.mid", "-n", 2), 1, "b-1.mid: exists already")
    assert sorted(os.listdir()) == ["a.mid", "b-1.mid"]
    assert Path("a.mid").read_bytes() == b"precious"
    assert run("sample", chorale_file, "-o", "a.mid", "--force", "--length", "1 bar")[0] == 0
    assert Path("a.mid").read_bytes()[:4] == b"MThd"
    Path("d.mid").mkdir()
    one_error(run("sample", chorale_file, "-o", "d.mid"), 1, "d.mid: is a folder")
    one_error(run("sample", chorale_file, "-o", "d.mid", "--force"), 1, "d.mid: Is a directory")


def test_R47_one_bad_file_among_many(run: Run, here: Path, chorale_file: Path) -> None:
    run("sample", chorale_file, "-n", 20, "-o", "x-{i}.mid", "--length", "4 bars", "--seed", 1)
    Path("x-7.mid").write_bytes(b"MThd\0\0\0\6broken")
    names = [f"x-{i}.mid" for i in range(20)]
    code, out, err = run("evaluate", *names)
    assert code == 1
    assert "| pieces / steps / notes | 19 / " in out
    lines = err.splitlines()
    assert lines[0].startswith("error: x-7.mid: ")
    assert lines[1:] == ["19 of 20 files read, 1 failed"]
    names.remove("x-7.mid")
    code, out, err = run("evaluate", "--json", *names)
    assert (code, err) == (0, "")
    assert json.loads(out)["pieces"]["pieces"] == 19
    code, out, err = run("evaluate", "x-7.mid")
    assert (code, out) == (1, "")
    assert err.splitlines()[1:] == ["0 of 1 files read, 1 failed"]


@posix
def test_R47_odd_file_names(here: Path, chorale_file: Path) -> None:
    odd = [b"two words.mid", b"line\nbreak.mid", b"\xff\xfe.mid", "süß ♪.mid".encode(), b"-x.mid", b"\x1b[31m.mid"]
    for name in odd:
        wrote = command("sample", chorale_file, b"--output=" + name, "--length", "1 bars", "--seed", "1")
        out, err = wrote.communicate(timeout=60)
        assert wrote.returncode == 0, err
        assert out.count(b"\n") == 1
        assert b"\x1b" not in out
        assert os.path.exists(name)
        told = command("info", "--", name)
        out, err = told.communicate(timeout=60)
        assert told.returncode == 0, err
        assert out.startswith(b"path: ")
    again = command("sample", chorale_file, b"--output=line\nbreak.mid")
    out, err = again.communicate(timeout=60)
    assert again.returncode == 1
    assert err == b"error: line\\nbreak.mid: exists already; --force overwrites it\n"
    # The same where the terminal cannot show everything.
    told = command("info", "--", odd[3], env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    out, err = told.communicate(timeout=60)
    assert told.returncode == 0, err
    assert out.isascii()


@posix
@pytest.mark.parametrize("arguments", [["info", "MODEL", "--json"], ["sample", "MODEL", "-o", "-"]])
def test_R47_a_closed_pipe_is_no_error(arguments: list[str], chorale_file: Path) -> None:
    child = command(*(str(chorale_file) if a == "MODEL" else a for a in arguments))
    child.stdout.close()
    err = child.stderr.read()
    assert child.wait(60) == 0
    assert b"rror" not in err
    assert b"Traceback" not in err
    child.stderr.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_R45_a_full_disk(here: Path, chorale_file: Path) -> None:
    with open("/dev/full", "wb") as full:
        child = command("sample", chorale_file, "-o", "-", "--length", "1 bars", stdout=full)
        err = child.communicate(timeout=60)[1]
    assert child.returncode == 1
    assert err.decode().splitlines()[-1] == "error: No space left on device"
    os.symlink("/dev/full", "x.mid")
    child = command("sample", chorale_file, "-o", "x.mid", "--length", "1 bars")
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (1, b"")
    assert err == b"error: x.mid: No space left on device\n"


@posix
def test_R47_interrupted(here: Path, chorale_file: Path) -> None:
    pty = pytest.importorskip("pty")
    leader, follower = pty.openpty()
    try:
        arguments = ["-n", "100000", "-o", "x-{i}.mid", "--length", "64 bars"]
        child = command("sample", chorale_file, *arguments, stderr=follower)
        shown = b""
        while b"sampling" not in shown:  # the bar says that the work has begun
            shown += os.read(leader, 1 << 16)
        child.send_signal(signal.SIGINT)
        sent = time.monotonic()
        out = child.communicate(timeout=60)[0]
        took = time.monotonic() - sent
        os.write(follower, b"\0")  # so that there is something to read, whatever was said
        while b"\0" not in shown:
            shown += os.read(leader, 1 << 16)
    finally:
        os.close(leader)
        os.close(follower)
    assert took < 5
    assert child.returncode == 130
    assert out == b""
    assert shown.endswith(b"\r\x1b[Kinterrupted\r\n\0")
    assert b"Traceback" not in shown
    assert os.listdir() == []


@posix
def test_R47_a_bar_on_a_terminal_and_nothing_in_a_pipe(here: Path, chorale_file: Path) -> None:
    pty = pytest.importorskip("pty")
    leader, follower = pty.openpty()
    try:
        arguments = ["sample", str(chorale_file), "-n", "130", "-o", "x-{i}.mid", "--length", "2 bars"]
        child = command(*arguments, stderr=follower)
        child.communicate(timeout=120)
        assert child.returncode == 0
        drawn = os.read(leader, 1 << 16)
    finally:
        os.close(leader)
        os.close(follower)
    assert b"sampling [" in drawn
    assert b"/130" in drawn
    assert drawn.endswith(b"\r\x1b[K")  # wiped away


def test_debug_shows_the_traceback(run: Run, chorale_file: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run("sample", chorale_file, "--prompt", "none.mid", "--debug", "-o", "x.mid")


def test_a_fault_of_ours_is_one_line_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise KeyError("surprise")

    monkeypatch.setattr(cli.model, "models", broken)
    one_error(run("models"), 1, "KeyError: 'surprise'", "--debug")


# -- info, models, evaluate ----------------------------------------------------------------------------------------


def test_info_build(run: Run) -> None:
    code, out, err = run("info", "--build", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == mg.build_info()
    assert f"version: {mg.__version__}" in run("info", "--build")[1].splitlines()
    assert run("--version")[1] == f"musicgen-ext {mg.__version__}\n"


def test_info_model(run: Run, chorale_file: Path) -> None:
    code, out, _ = run("info", chorale_file, "--json")
    assert code == 0
    assert json.loads(out) == mg.load(chorale_file).info
    text = run("info", chorale_file)[1]
    assert "licence: CC0\n" in text
    assert '  meter: ["4/4", "3/4"]\n' in text


def test_info_score(run: Run, here: Path, chorale_file: Path) -> None:
    run("sample", chorale_file, "-o", "a.mid", "--seed", 5, "--length", "2 bars")
    code, out, _ = run("info", "a.mid", "--json")
    assert code == 0
    found, score = json.loads(out), mg.read_midi("a.mid")
    assert [t["name"] for t in found["tracks"]] == ["Soprano", "Alto", "Tenor", "Bass"]
    assert [t["instrument"] for t in found["tracks"]] == ["Choir Aahs"] * 4
    for i, track in enumerate(found["tracks"]):
        pitch = score.notes["pitch"][score.notes["track"] == i]
        assert (track["notes"], track["lowest"], track["highest"]) == (len(pitch), pitch.min(), pitch.max())
    assert (found["notes"], found["bars"]) == (len(score.notes), score.bars["number"][-1])
    assert found["seconds"] == pytest.approx(score.end_time, abs=1e-3)
    assert found["provenance"]["seed"] == 5
    shutil.copy("a.mid", "nameless")
    text = run("info", "nameless")[1]
    assert "  seed: 5\n" in text
    assert "\nissues: none\n" in text
    assert f"length: {score.end_time:.2f} s, {found['bars']} bars, {len(score.notes)} notes" in text
    assert "  0  Soprano        0       52  Choir Aahs " in text


def smf(*tracks: bytes, format: int = 1, division: int = 480) -> bytes:
    header = b"".join(value.to_bytes(2, "big") for value in (format, len(tracks), division))
    chunks = [header, *(track + b"\0\xff\x2f\0" for track in tracks)]
    kinds = [b"MThd", *[b"MTrk"] * len(tracks)]
    return b"".join(kind + len(data).to_bytes(4, "big") + data for kind, data in zip(kinds, chunks, strict=True))


def test_info_of_times_and_kinds(run: Run, here: Path) -> None:
    score = mg.Score(
        [(0, 480, 60, 80, 0), (480 * 5, 480, 72, 80, 0), (0, 1, 36, 80, 1)],
        tempos=[(0, 500_000), (1920, 600_000)], time_signatures=[(0, 4, 4), (1920, 3, 4)],
        key_signatures=[(0, -3, 0), (0, -3, 0), (1920, 4, 1)],
        tracks=[mg.Track("Lead", 73), mg.Track("Kit", is_drum=True), mg.Track("empty")],
        controls=[(0, 64, 127)], pitch_bends=[(0, 5)], texts=[mg.midi.Text(0, "marker", b"A")],
    )  # fmt: skip
    score.save("a.mid")
    code, out, err = run("info", "a.mid")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "path: a.mid",
        "format: 1, 480 ticks per quarter",
        "length: 3.20 s, 2 bars, 3 notes",
        "tempo: 120, 100 (bar 2)",
        "metre: 4/4, 3/4 (bar 2)",
        "key: E♭ major, C♯ minor (bar 2)",
        "tracks:",
        "  #  name   channel  program  instrument  notes  range",
        "  0  Lead         0       73  Flute           2  C4–C5",
        "  1  Kit          9           drums           1  C2–C2",
        "  2  empty                                    0",
        "events: 1 controls, 1 programs, 1 pitch bends, 1 marker, 3 track names",
        "issues: none",
    ]
    note = bytes.fromhex("00903c40 60803c40")
    Path("smpte.mid").write_bytes(smf(note, division=0xE728))
    lines = run("info", "smpte.mid")[1].splitlines()
    assert lines[1] == "format: 1, SMPTE time, 25 frames of 40 ticks a second"
    assert lines[2] == "length: 0.10 s, 1 bar, 1 note"
    tempo = b"\0\xff\x51\3\x0f\x42\x40"
    Path("two.mid").write_bytes(smf(tempo + note, note, format=2))
    lines = run("info", "two.mid")[1].splitlines()
    assert lines[1:4] == ["format: 2, 480 ticks per quarter", "length: 0.20 s, 2 notes", "tempo: 60 (track 0, 0.00 s)"]
    Path("riff.bin").write_bytes(b"RIFF\x30\0\0\0RMIDdata\x24\0\0\0" + smf(note))
    assert json.loads(run("info", "riff.bin", "--json")[1])["notes"] == 1
    mg.Score().save("empty.mid")
    assert "length: 0.00 s, 1 bar, 0 notes\n" in run("info", "empty.mid")[1]


def test_info_plot(run: Run, here: Path, chorale_file: Path) -> None:
    pytest.importorskip("matplotlib")
    run("sample", chorale_file, "-o", "a.mid", "--length", "1 bar")
    code, out, _ = run("info", "a.mid", "--plot", "a.png")
    assert code == 0
    assert out.startswith("path: a.mid\n")
    assert Path("a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    one_error(run("info", "a.mid", "--plot", "a.png"), 1, "a.png: exists already; --force overwrites it")
    assert run("info", "a.mid", "--plot", "a.png", "--force")[0] == 0
    one_error(run("info", "a.mid", "--plot", "a.txt"), 2, "a.txt: expected a name in .png, .svg, .pdf")
    for what in ([], ["a.mid", "a.mid"], [chorale_file]):
        one_error(run("info", *what, "--plot", "b.png"), 2, "--plot: expected one MIDI file to draw")
    one_error(run("info", "none.mid", "--plot", "b.png"), 1, "none.mid: No such file")
    assert sorted(os.listdir()) == ["a.mid", "a.png"]


def test_R47_info_of_a_file_with_thousands_of_issues_is_short(run: Run, here: Path) -> None:
    Path("bad.mid").write_bytes(smf(b"\0\x80\x3c\x40" * 20_000 + b"\0\xff\x51\3\1\0\0" * 20_000))
    code, out, err = run("info", "bad.mid")
    assert (code, err) == (0, "")
    assert len(out.splitlines()) < 30
    assert "issues: 10001\n" in out
    assert "at byte 22, track 0" in out
    assert "… and 9989 more (--json shows them)" in out
    assert "… and 19988 more (--json shows them)" in out  # tempos
    found = json.loads(run("info", "bad.mid", "--json")[1])
    assert len(found["issues"]) == 10_001
    assert found["issues"][0]["offset"] == 22
    assert len(found["tempos"]) == 20_000


def test_R47_info_does_nothing_to_a_terminal(run: Run, here: Path) -> None:
    name = b"\x1b[2J\nx" + b"y" * 200
    track = b"\0\xff\3" + b"\x81\x4f" + name + b'\0\xff\1\x25musicgen_ext: {"a": "\\u001b[2J\\r\\nb"}'
    Path("odd.mid").write_bytes(smf(track + b"\0\x90\x3c\x40\x60\x80\x3c\x40"))
    code, out, _ = run("info", "odd.mid")
    assert code == 0
    assert "\x1b" not in out
    assert "\r" not in out
    assert all(len(line) < 250 for line in out.splitlines())
    many = b"musicgen_ext: " + json.dumps({str(n): n for n in range(5000)}).encode()
    size = bytes([0x80 | len(many) >> 14, 0x80 | len(many) >> 7 & 127, len(many) & 127])
    Path("many.mid").write_bytes(smf(b"\0\xff\1" + size + many, *[b""] * 200))
    code, out, _ = run("info", "many.mid")
    assert len(out.splitlines()) < 150
    assert "  … (--json shows all)" in out
    assert "  … and 137 more (--json shows them)" in out
    assert len(json.loads(run("info", "many.mid", "--json")[1])["provenance"]) == 5000


def test_R47_info_of_one_bad_file_among_many(run: Run, here: Path) -> None:
    mg.Score([(0, 1, 60)]).save("a.mid")
    Path("b.mid").write_bytes(b"MThd\0\0\0\6broken")
    code, out, err = run("info", "a.mid", "b.mid", "none.mid", "a.mid", "--json")
    assert code == 1
    assert [found["path"] for found in json.loads(out)] == ["a.mid", "a.mid"]
    assert err.splitlines()[0].startswith("error: b.mid: ")
    assert err.splitlines()[1:] == ["error: none.mid: No such file or directory", "2 of 4 files read, 2 failed"]
    code, out, err = run("info", "b.mid", "none.mid")
    assert (code, out) == (1, "")
    one_error(run("info", "b.mid"), 1, "b.mid: ")


def test_models(run: Run, chorale_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(chorale_file, tmp_path / "small.safetensors")
    monkeypatch.setattr(cli.model, "_BUNDLED", str(tmp_path))
    code, out, _ = run("models")
    assert code == 0
    assert out.startswith("small: recurrent, ")
    assert run("sample", "none", "-o", tmp_path / "x.mid")[2].endswith("name of a bundled model (small)\n")


def test_evaluate_jsb16(
    run: Run, here: Path, chorale_file: Path, jsb16_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from musicgen_ext import evaluate

    random = np.random.default_rng(1)
    pieces = {s: [random.integers(48, 70, (int(n), 4)).tolist() for n in (9, 16, 5)] for s in evaluate.JSB16_SPLITS}
    Path("jsb16_separated.json").write_text(json.dumps(pieces))
    one_error(run("evaluate", "jsb16", jsb16_file, "--data", "jsb16_separated.json"), 1, "SHA-256")
    read = evaluate.load_jsb16
    monkeypatch.setattr(evaluate, "load_jsb16", lambda path: read(path, allow_other=True))
    code, out, err = run("evaluate", "jsb16", jsb16_file, "--data", "jsb16_separated.json", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)[str(jsb16_file)]["valid"]
    loaded = mg.load(jsb16_file)
    nats = [-loaded.log_prob(loaded.encoding.grid_to_tokens(p)).sum() for p in pieces["valid"]]
    assert found["joint"] == pytest.approx(sum(nats) / (4 * 30))
    assert found["tokens"] == 4 * 30
    code, out, _ = run("evaluate", "jsb16", "--data", "jsb16_separated.json", "--split", "test")
    assert code == 0
    assert "| **first-order counting model** | test |" in out
    one_error(run("evaluate", "jsb16", chorale_file, "--data", "jsb16_separated.json"), 1, "without holds")


def test_train_without_torch(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [n for n in sys.modules if n.startswith("musicgen_ext.train")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(vars(mg), "train", raising=False)  # as an attribute it would be fetched first
    one_error(run("train", "x.toml"), 1, 'pip install "musicgen-ext[train]"')


def test_train_with_a_missing_config(run: Run, here: Path) -> None:
    pytest.importorskip("torch")
    one_error(run("train", "none.toml", "-o", "run"), 1, "none.toml: No such file")
    assert os.listdir() == []


# -- features ----------------------------------------------------------------------------------------------------


@pytest.fixture
def pieces(here: Path) -> list[Path]:
    paths = [here / "one.mid", here / "two.mid", here / "sub" / "one.mid"]
    (here / "sub").mkdir()
    for i, path in enumerate(paths):
        mg.Score([(0, 480 * (i + 1), 60 + i), (240, 240, 40)]).save(path)
    return paths


def test_features_roll_as_an_archive(run: Run, pieces: list[Path]) -> None:
    code, out, err = run("features", "roll", *pieces, "-o", "rolls.npz")
    assert (code, out, err) == (0, "rolls.npz: 3 rolls\n", "")
    with np.load("rolls.npz") as rolls:
        assert rolls.files == ["one", "two", "one-2"]
        for name, path in zip(rolls.files, pieces, strict=True):
            np.testing.assert_array_equal(rolls[name], mg.piano_roll(path))
            assert rolls[name].dtype == np.float64
    before = Path("rolls.npz").read_bytes()
    code, out, err = run("features", "roll", *pieces, "-o", "rolls.npz")
    assert (code, out, err) == (1, "", "error: rolls.npz: exists already; --force overwrites it\n")
    assert run("features", "roll", *pieces, "-o", "rolls.npz", "--force", "--threads", "1")[0] == 0
    assert Path("rolls.npz").read_bytes() == before


def test_features_roll_as_files(run: Run, pieces: list[Path]) -> None:
    options = ("--steps-per-beat", 4, "--channels", "onset,frame", "--per-track", "--drums", "--dtype", "float32")
    code, out, err = run("features", "roll", *pieces, "-o", "rolls", *options)
    assert (code, out, err) == (0, "rolls: 3 rolls\n", "")
    for name, path in zip(("one", "two", "one-2"), pieces, strict=True):
        roll = np.load(f"rolls/{name}.npy")
        expected = mg.piano_roll(
            path, steps_per_beat=4, channels=("onset", "frame"), per_track=True, drums=True, dtype="float32"
        )
        np.testing.assert_array_equal(roll, expected)
        assert roll.dtype == np.float32
    assert run("features", "roll", pieces[0], "-o", "rolls")[0] == 1
    code, _, _ = run("features", "roll", pieces[0], "-o", "rolls", "--force", "--packed", "--no-pedal", "--fs", 20)
    assert code == 0
    np.testing.assert_array_equal(np.load("rolls/one.npy"), mg.piano_roll(pieces[0], fs=20, packed=True))
    assert sorted(os.listdir("rolls")) == ["one-2.npy", "one.npy", "two.npy"]


def test_features_roll_draws(run: Run, pieces: list[Path]) -> None:
    pytest.importorskip("matplotlib")
    code, _, err = run(
        "features", "roll", pieces[1], "-o", "a.npz", "--plot", "a.png", "--packed", "--channels", "frame"
    )
    assert (code, err) == (0, "")
    assert Path("a.png").read_bytes()[:4] == b"\x89PNG"
    code, _, err = run("features", "roll", *pieces, "-o", "b.npz", "--plot", "b.png")
    assert (code, err) == (2, "error: --plot: expected one file to draw, got 3\n")
    assert run("features", "roll", pieces[1], "-o", "c.npz", "--plot", "a.png")[0] == 1
    assert not Path("b.npz").exists()
    assert not Path("c.npz").exists()


def test_R47_one_bad_file_among_a_thousand(run: Run, here: Path) -> None:
    names = [f"{i}.mid" for i in range(1000)]
    data = mg.Score([(0, 480, 60)]).to_bytes()
    for name in names:
        Path(name).write_bytes(data)
    Path("500.mid").write_bytes(b"no music")
    for out in ("rolls.npz", "rolls"):
        code, said, err = run("features", "roll", *names, "-o", out, "--steps-per-beat", 1)
        assert code == 1
        assert said == f"{out}: 999 rolls\n"
        assert err.startswith("error: 500.mid: ")
        assert err.endswith("999 of 1000 files done, 1 failed\n")
        assert err.count("\n") == 2
    with np.load("rolls.npz") as rolls:
        assert len(rolls.files) == 999
        assert rolls["999"].tolist()[60] == [80]
    assert len(os.listdir("rolls")) == 999


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["roll", "missing.mid", "-o", "x.npz"], 1, "error: missing.mid: No such file or directory"),
        (["roll", "missing.mid", "-o", "x.npz"], 1, "error: x.npz: not written, none of 1 files could be read"),
        (["roll", "one.mid", "-o", "x.npz", "--fs", "0"], 2, "error: fs: expected frames per second above 0, got 0.0"),
        (["roll", "one.mid", "-o", "x.npz", "--fs", "1e9"], 1, "one.mid: expected a roll of at most 8589934592 bytes"),
        (["roll", "one.mid", "-o", "x.npz", "--fs", "9", "--steps-per-beat", "4"], 2, "not allowed with argument"),
        (["roll", "one.mid", "-o", "x.npz", "--channels", "hum"], 2, "error: channels: expected one or more of frame"),
        (["roll", "one.mid", "-o", "x.npz", "--threads", "0"], 2, "error: threads: expected at least 1, got 0"),
        (["roll", "one.mid"], 2, "error: the following arguments are required: -o/--output"),
        (["roll", "one.mid", "-o", "one.mid/x.npz"], 1, "error: one.mid/x.npz: "),
        (["roll", "one.mid", "-o", "one.mid"], 1, "error: one.mid: "),
        (["hum", "one.mid"], 2, "invalid choice: 'hum'"),
        ([], 2, "error: the following arguments are required: KIND"),
    ],
)
def test_R47_features_that_cannot_be(
    run: Run, pieces: list[Path], arguments: list[str], code: int, message: str
) -> None:
    before = sorted(os.listdir("."))
    got, out, err = run("features", *arguments)
    assert (got, out) == (code, "")
    assert message in err
    assert "Traceback" not in err
    assert sorted(os.listdir(".")) == before


@posix
def test_R47_features_of_odd_names(run: Run, here: Path) -> None:
    data = mg.Score([(0, 480, 60)]).to_bytes()
    names = [b"a b.mid", b"new\nline.mid", b"caf\xe9.mid", b"-x.mid"]
    for name in names:
        Path(os.fsdecode(name)).write_bytes(data)
    arguments = ("features", "roll", "-o", "rolls.npz", "--", *map(os.fsdecode, names))
    assert run(*arguments)[:2] == (0, "rolls.npz: 4 rolls\n")
    with np.load("rolls.npz") as rolls:
        assert rolls.files == ["a b", "new\\nline", "caf\\udce9", "-x"]
    assert run("features", "roll", "-o", "rolls", "--", *map(os.fsdecode, names))[0] == 0
    assert sorted(os.listdir(b"rolls")) == sorted(name[:-4] + b".npy" for name in names)


@pytest.fixture
def sounds(here: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [here / "one.wav", here / "two.wav", here / "sub" / "one.wav"]
    (here / "sub").mkdir()
    for i, path in enumerate(paths):
        tone = 0.5 * np.sin(0.1 * np.arange(4000 + i))
        mg.Audio(tone + rng.uniform(-0.1, 0.1, (1 + i % 2, len(tone))), 22_050).save(path)
    return paths


@pytest.mark.parametrize(
    ("feature", "options", "expected"),
    [
        ("mfcc", ["--n-mfcc", 13, "--lifter", 22.0], lambda y: mg.mfcc(y, n_mfcc=13, lifter=22.0)),
        ("mel", ["--n-mels", 40, "--fmin", 50, "--fmax", 8000, "--htk"],
         lambda y: mg.melspectrogram(y, n_mels=40, fmin=50, fmax=8000, htk=True)),
        ("stft", ["--n-fft", 512, "--hop-length", 100, "--window", "hamming"],
         lambda y: mg.stft(y, n_fft=512, hop_length=100, window="hamming")),
    ],
)  # fmt: skip
def test_features_of_sounds(run: Run, sounds: list[Path], feature: str, options: list[Any], expected: Any) -> None:
    code, out, err = run("features", feature, *sounds, "-o", "x.npz", *options)
    assert (code, out, err) == (0, f"x.npz: 3 {feature}\n", "")
    with np.load("x.npz") as arrays:
        assert arrays.files == ["one", "two", "one-2"]
        for name, path in zip(arrays.files, sounds, strict=True):
            np.testing.assert_array_equal(arrays[name], expected(mg.read_audio(path).to_mono().y))
    assert run("features", feature, *sounds, "-o", "x.npz")[0] == 1  # exists
    assert run("features", feature, *sounds, "-o", "folder", *options)[:2] == (0, f"folder: 3 {feature}\n")
    np.testing.assert_array_equal(np.load("folder/two.npy"), expected(mg.read_audio(sounds[1]).to_mono().y))


def test_features_at_another_rate(run: Run, sounds: list[Path]) -> None:
    pytest.importorskip("soxr")
    assert run("features", "logmel", sounds[0], "-o", "x.npz", "--sr", 16_000, "--n-mels", 40)[0] == 0
    sound = mg.read_audio(sounds[0], sr=16_000).to_mono()
    with np.load("x.npz") as arrays:
        assert arrays["one"].shape == mg.melspectrogram(sound.y, sr=16_000, n_mels=40).shape


@pytest.mark.parametrize("feature", ["mfcc", "mel", "logmel", "chroma", "stft"])
def test_features_of_sounds_are_drawn(run: Run, sounds: list[Path], feature: str) -> None:
    pytest.importorskip("matplotlib")
    code, _, err = run("features", feature, sounds[0], "-o", "x.npz", "--plot", "x.png")
    assert (code, err) == (0, "")
    assert Path("x.png").read_bytes()[:4] == b"\x89PNG"


def test_features_in_a_store(run: Run, sounds: list[Path]) -> None:
    Path("sub/bad.wav").write_bytes(b"no sound")
    code, out, err = run("features", "mfcc", "sub", "-o", "store", "--store", "--n-mfcc", 5)
    assert (code, out) == (1, "store: 8 frames of 1 files\n")
    assert err.startswith("error: bad.wav: expected a sound file, got first bytes")
    assert err.endswith("1 of 2 files done, 1 failed\n")
    opened = mg.FeatureStore("store")
    np.testing.assert_array_equal(opened[0], mg.mfcc(mg.read_audio(sounds[2]).to_mono().y, n_mfcc=5))
    assert run("features", "mfcc", *sounds, "-o", "parts", "--store", "--shard", "1/1", "--workers", 2)[0] == 0
    assert len(mg.FeatureStore("parts")) == 3


def test_R47_one_bad_sound_among_a_thousand(run: Run, here: Path) -> None:
    names = [f"{i}.wav" for i in range(1000)]
    data = mg.Audio(np.ones(200, np.float32), 22_050).to_wav()
    for name in names:
        Path(name).write_bytes(data)
    Path("500.wav").write_bytes(b"no sound")
    options = ("--n-fft", 64, "--n-mels", 8, "--n-mfcc", 4)
    for out in ("x.npz", "x"):
        code, said, err = run("features", "mfcc", *names, "-o", out, *options)
        assert (code, said) == (1, f"{out}: 999 mfcc\n")
        assert err.startswith("error: 500.wav: expected a sound file")
        assert err.endswith("999 of 1000 files done, 1 failed\n")
        assert err.count("\n") == 2
    with np.load("x.npz") as arrays:
        assert len(arrays.files) == 999
    assert len(os.listdir("x")) == 999


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["mfcc", "missing.wav", "-o", "x.npz"], 1, "error: missing.wav: No such file or directory"),
        (["mfcc", "missing.wav", "-o", "x.npz"], 1, "error: x.npz: not written, none of 1 files could be read"),
        (["mfcc", "sub", "-o", "x.npz"], 1, "error: sub: Is a directory"),
        (["mfcc", "one.wav", "-o", "x.npz", "--n-fft", "0"], 2, "error: n_fft: expected 1 to"),
        (["mfcc", "one.wav", "-o", "x.npz", "--n-mfcc", "-2"], 2, "error: n_mfcc: expected"),
        (["mel", "one.wav", "-o", "x.npz", "--fmin", "9000", "--fmax", "20"], 2, "error: fmin: expected less than"),
        (["mfcc", "one.wav", "-o", "x.npz", "--sr", "0"], 2, "error: sr: expected 1 to"),
        (["stft", "one.wav", "-o", "x.npz", "--window", "hat"], 2, "error: "),
        (["mel", "one.wav", "-o", "x.npz", "--n-mfcc", "3"], 2, "unrecognized arguments: --n-mfcc"),
        (["mfcc", "one.wav", "-o", "x.npz", "--shard", "1/2"], 2, "error: --shard: expected --store, too"),
        (["mfcc", "one.wav", "-o", "x", "--store", "--shard", "3/2"], 2, "error: shard: expected i/n"),
        (["mfcc", "one.wav", "-o", "x", "--store", "--plot", "x.png"], 2, "error: --plot: expected no --store"),
        (["mfcc", "one.wav", "-o", "x.npz", "--plot", "x.txt"], 2, "error: x.txt: expected a name in"),
        (["mfcc", "one.wav"], 2, "error: the following arguments are required: -o/--output"),
    ],
)
def test_R47_features_of_sounds_that_cannot_be(
    run: Run, sounds: list[Path], arguments: list[str], code: int, message: str
) -> None:
    before = sorted(os.listdir("."))
    got, out, err = run("features", *arguments)
    assert (got, out) == (code, "")
    assert message in err
    assert "Traceback" not in err
    assert sorted(os.listdir(".")) == before
