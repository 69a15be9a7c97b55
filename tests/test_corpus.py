"""Many files into one store: the same bytes whatever happens, nothing lost in silence, memory flat."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import multiprocessing
import operator
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import musicgen_ext as mg
from musicgen_ext import corpus, encodings
from musicgen_ext.corpus import TokenStore, encode_corpus
from musicgen_ext.encodings import CHORALE, VoiceGrid

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


@pytest.mark.parametrize("isa", ["baseline", None])
def test_hashes_of_every_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isa: str | None) -> None:
    """Around the borders of SHA-256's blocks, with and without the processor's instructions."""
    if isa is not None:
        monkeypatch.setenv("MUSICGEN_EXT_CPU", isa)
    root = tmp_path / "files"
    root.mkdir()
    for size in range(200):
        (root / f"{size:03}.mid").write_bytes(bytes(i * size & 255 for i in range(size)))
    encode(root, tmp_path / "store")
    for size, entry in enumerate(TokenStore(tmp_path / "store").failures):
        assert entry["bytes"] == size
        assert entry["sha256"] == hashlib.sha256((root / f"{size:03}.mid").read_bytes()).hexdigest()


def test_shards_part_the_files(folder: Path, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "sharded"
    summaries = [encode(folder, out, shard=(i, 3)) if i > 1 else encode(folder, out, shard="1/3") for i in (2, 1, 3)]
    assert sorted(path.name for path in out.iterdir()) == ["shard-1-of-3", "shard-2-of-3", "shard-3-of-3"]
    assert sum(summary.files for summary in summaries) == 301
    assert min(summary.files for summary in summaries) > 60
    together, whole = TokenStore(out), TokenStore(store)
    assert len(together) == len(whole) == 301
    assert together.num_tokens == whole.num_tokens
    by_name = {e["file"]: t for e, t in zip(whole.manifest, whole, strict=True)}
    for entry, tokens in zip(together.manifest, together, strict=True):
        np.testing.assert_array_equal(tokens, by_name.pop(entry["file"]))
    assert not by_name
    assert {e["file"] for e in together.failures} == {e["file"] for e in whole.failures}
    np.testing.assert_array_equal(together[-1], together[len(together) - 1])
    with pytest.raises(ValueError, match="expected one shard, got 3"):
        together.tokens  # noqa: B018
    shutil.rmtree(out / "shard-2-of-3")
    with pytest.raises(ValueError, match="expected 3 shards, got 2, not 2"):
        TokenStore(out)


KILLED = """
import sys, musicgen_ext as mg
from musicgen_ext.encodings import CHORALE
mg.encode_corpus(sys.argv[1], CHORALE, out=sys.argv[2], workers=2)
print("done")
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 000 small files in folders of 200; every hundredth is broken."""
    root = tmp_path_factory.mktemp("many")
    pieces = [piece(i).to_bytes() for i in range(50)]
    for i in range(20_000):
        if i % 200 == 0:
            (root / f"{i // 200:03}").mkdir()
        (root / f"{i // 200:03}" / f"{i:05}.mid").write_bytes(pieces[i % 50][: 10 if i % 100 == 99 else None])
    return root


@pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does")
def test_R45_killed_at_any_moment_and_resumed(many: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    encode(many, whole)
    moments = random.Random(1)
    out, steps, longest = tmp_path / "killed", [], 0.05
    while len(steps) < 30 and len(set(steps)) < 4:
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(many), str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as child:
            while not (out / "encoding.json").exists() and child.poll() is None:
                time.sleep(0.001)
            time.sleep(moments.uniform(0, longest))
            child.kill()
            said, error = child.communicate()
        assert not error, error.decode()
        if said:
            break
        manifest = out / "manifest.jsonl.part"
        steps.append(manifest.stat().st_size if manifest.exists() else 0)
        longest *= 1.2 if steps[-1] == 0 else 1.0  # this machine takes longer for the first rows to reach the disk
        with pytest.raises(ValueError, match="unfinished"):
            TokenStore(out)
    encode(many, out, workers=3)
    assert contents(out) == contents(whole)
    assert sorted(steps) == steps  # what was done stays done
    assert steps[-1] > 0


def test_whatever_the_end_of_the_parts_is_a_resume_mends_it(folder: Path, store: Path, tmp_path: Path) -> None:
    """The disk of a machine that lost its power: rows without lines, cut lines, lines whose rows are missing."""
    names = ("tokens.npy", "offsets.npy", "manifest.jsonl")
    random_ = random.Random(2)
    for i in range(30):
        out = tmp_path / str(i)
        shutil.copytree(store, out)
        os.unlink(out / "summary.json")
        (out / "source.part").write_bytes(os.path.realpath(os.fsencode(folder)))
        for name in names:
            if i == 0:
                continue  # killed between the renames and the summary
            data = (out / name).read_bytes()
            os.unlink(out / name)
            cut = random_.choice([0, 1, 127, 128, 129, random_.randrange(len(data)), len(data)])
            (out / f"{name}.part").write_bytes(data[:cut] + (b"\0{" if i % 3 == 0 else b""))
        encode(folder, out, workers=1 + i % 3)
        assert contents(out) == contents(store)


# -- going on, or not ----------------------------------------------------------------------------------------------


def unfinished(folder: Path, out: Path, files: int = 50) -> None:
    """A store that was left after some files."""

    class Left(Exception):
        pass

    class Job(corpus._Encode):
        left = files

        def __call__(self, paths: list[bytes], cancel: Any) -> Any:
            self.left -= len(paths)
            if self.left < 0:
                raise Left
            return super().__call__(paths, cancel)

    with pytest.raises(Left):
        corpus.run(
            folder, Job(CHORALE, False, 86_400.0), out=out, workers=1, shard=None, resume=True, force=False,
            suffixes=corpus.MIDI_SUFFIXES, progress=False,
        )  # fmt: skip


def test_an_unfinished_store_is_refused_by_name_and_gone_on_with(folder: Path, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    unfinished(folder, out, 200)
    with pytest.raises(ValueError, match=r"store: expected a finished store, got an unfinished one"):
        TokenStore(out)
    encode(folder, out)
    assert contents(out) == contents(store)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strict": True}, "store of another job"),
        ({"max_duration": 60.0}, "store of another job"),
        ({"suffixes": [".mid"]}, "store of another suffixes"),
        ({"resume": False}, "holds a store already"),
    ],
)
def test_a_store_of_something_else_is_not_touched(
    folder: Path, store: Path, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    for make in (lambda out: shutil.copytree(store, out), lambda out: unfinished(folder, out)):
        out = tmp_path / "store"
        make(out)
        before = contents(out)
        with pytest.raises(FileExistsError, match=words) as caught:
            encode(folder, out, **options)
        assert caught.value.filename == str(out)
        assert contents(out) == before
        encode(folder, out, force=True, **{**options, "resume": True})
        TokenStore(out)
        shutil.rmtree(out)


def test_another_encoding_folder_or_order_of_files_is_refused(folder: Path, tmp_path: Path) -> None:
    out, copy = tmp_path / "store", tmp_path / "copy"
    unfinished(folder, out, 250)
    with pytest.raises(FileExistsError, match="store of another column, job"):
        encode_corpus(folder, VoiceGrid(hold=False), out=out)
    shutil.copytree(folder, copy)
    with pytest.raises(FileExistsError, match="unfinished store of another folder"):
        encode(copy, out)
    out2 = tmp_path / "store2"
    unfinished(copy, out2, 250)
    (copy / "0" / "000000.mid").write_bytes(piece(1).to_bytes())
    with pytest.raises(
        FileExistsError, match=r"the folder has changed since: expected 0/021\.mid as file 2, got 0/000000\.mid"
    ):
        encode(copy, out2)


def test_other_files_are_never_mixed_with_a_store(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for force in (False, True):
        with pytest.raises(FileExistsError, match=r"expected an empty folder or a store, got one with thesis\.tex"):
            encode(folder, tmp_path, force=force)
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


@pytest.mark.skipif(sys.platform == "win32", reason="locks as POSIX does")
def test_two_writers_of_one_store(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    unfinished(folder, out)
    with open(out / "manifest.jsonl.part", "ab") as held:
        corpus.files.lock(held.fileno(), out)
        with pytest.raises(OSError, match="another process is writing this") as caught:
            encode(folder, out)
    assert caught.value.errno == errno.EBUSY
    encode(folder, out)


# -- damaged stores ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("tokens.npy", lambda data: data[:-1], "tokens.npy: expected .* bytes, got"),
        ("tokens.npy", lambda data: b"PK" + data[2:], "tokens.npy: expected an .npy file"),
        ("offsets.npy", lambda data: data + b"\0", "offsets.npy: expected .* bytes"),
        ("offsets.npy", lambda data: data[:-1] + b"\1", "expected .* rows"),
        ("manifest.jsonl", lambda data: data[:-1], "manifest.jsonl: expected .* bytes"),
        ("manifest.jsonl", lambda data: b"!" + data[1:], "manifest.jsonl: line 1: expected a JSON object"),
        ("summary.json", lambda _: b"[]", "summary.json: expected a JSON object, got list"),
        ("encoding.json", lambda _: b"{", "encoding.json: expected JSON"),
    ],
)
def test_a_damaged_store_is_refused_by_name(
    store: Path, tmp_path: Path, name: str, change: Callable[[bytes], bytes], words: str
) -> None:
    out = tmp_path / "store"
    shutil.copytree(store, out)
    (out / name).write_bytes(change((out / name).read_bytes()))
    with pytest.raises(ValueError, match=words):
        list(TokenStore(out).manifest), TokenStore(out)[0]


def test_no_store() -> None:
    with pytest.raises(FileNotFoundError):
        TokenStore("no such folder")


def test_pieces_of_a_store(store: Path) -> None:
    opened = TokenStore(store)
    assert repr(opened).startswith("TokenStore(")
    np.testing.assert_array_equal(opened[-1], opened[300])
    assert [len(tokens) for tokens in opened[2:5]] == [len(opened[i]) for i in (2, 3, 4)]
    for index in (301, -302):
        with pytest.raises(IndexError, match=f"expected a piece below 301, got {index}"):
            opened[index]
    assert isinstance(opened[0].base, np.memmap)


# -- odd input -----------------------------------------------------------------------------------------------------


def test_R47_odd_names_empty_folders_links_and_what_is_no_file(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "nothing").mkdir(parents=True)
    assert encode(root, tmp_path / "empty").files == 0
    empty = TokenStore(tmp_path / "empty")
    assert len(empty) == 0
    assert empty.tokens.shape == (0, 5)
    assert list(empty) == list(empty.manifest) == []

    names = [b"two\nlines.mid", b"-x.mid", b"sp ace.MIDI", "ÿ€.mid".encode(), b'quote"\\.mid']
    if sys.platform == "linux":
        names.append(b"\xff\xfe.mid")
    for i, name in enumerate(names):
        (Path(os.fsdecode(os.path.join(os.fsencode(root), name)))).write_bytes(piece(i).to_bytes())
    if sys.platform != "win32":
        os.symlink("..", root / "nothing" / "loop")
        os.symlink(root / "-x.mid", root / "linked.mid")
        os.symlink(root / "gone", root / "broken.mid")
        os.mkfifo(root / "pipe.mid")
    summary = encode(root, tmp_path / "store")
    found = {os.fsencode(entry["file"]) for entry in TokenStore(tmp_path / "store").manifest}
    if sys.platform != "win32":
        assert found == {*names, b"linked.mid"}
        assert summary.links == 1
        assert dict(summary.failures) == {
            "broken.mid": "No such file or directory",
            "pipe.mid": "expected a regular file, got another kind",
        }


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_a_failure(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "locked").mkdir(parents=True)
    (root / "closed.mid").write_bytes(piece(0).to_bytes())
    for path in (root / "locked", root / "closed.mid"):
        path.chmod(0)
    summary = encode(root, tmp_path / "store")
    assert dict(summary.failures) == {"closed.mid": "Permission denied", "locked/": "Permission denied"}


def test_files_by_name_and_folders_together(tmp_path: Path) -> None:
    one, sub = tmp_path / "one.xyz", tmp_path / "sub"
    sub.mkdir()
    one.write_bytes(piece(1).to_bytes())
    (sub / "two.mid").write_bytes(piece(2).to_bytes())
    encode_corpus([one, sub, tmp_path / "gone.mid"], CHORALE, out=tmp_path / "store")
    opened = TokenStore(tmp_path / "store")
    assert [e["file"] for e in opened.manifest] == [str(one), str(sub).replace(os.sep, "/") + "/two.mid"]
    assert [(e["file"], e["error"]) for e in opened.failures] == [
        (str(tmp_path / "gone.mid"), "No such file or directory")
    ]
    with pytest.raises(FileNotFoundError) as missing:
        encode(tmp_path / "gone", tmp_path / "store2")
    assert missing.value.filename == str(tmp_path / "gone")


def test_limits_are_those_of_read_midi(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "long.mid").write_bytes(mg.Score([(0, 480 * 241, 60)]).to_bytes())
    (root / "wrong.mid").write_bytes(piece(0).to_bytes()[:-4])
    out = tmp_path / "store"
    assert encode(root, out).failed == 0
    failures = dict(encode(root, out, force=True, max_duration=120, strict=True).failures)
    with pytest.raises(mg.MidiError) as long:
        mg.read_midi(root / "long.mid", max_duration=120)
    with pytest.raises(mg.MidiError) as wrong:
        mg.read_midi(root / "wrong.mid", strict=True)
    assert str(long.value).endswith(failures["long.mid"])
    assert str(wrong.value).endswith(failures["wrong.mid"])
    entry = next(e for e in TokenStore(out).failures if e["file"] == "wrong.mid")
    assert (entry["at_byte"], entry["track"]) == (wrong.value.offset, wrong.value.track)
    assert encode(root, out, force=True, max_duration=None).files == 2


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"workers": 0}, ValueError, "workers: expected 1 to 1024, got 0"),
        ({"workers": 1.0}, TypeError, "workers: expected an integer, got float"),
        ({"shard": "0/3"}, ValueError, "shard: expected i/n with i from 1 to n, got 0/3"),
        ({"shard": (4, 3)}, ValueError, "got 4/3"),
        ({"shard": "half"}, ValueError, "shard: .*got 'half'"),
        ({"max_duration": 0}, ValueError, "max_duration: expected more than 0"),
        ({"max_duration": float("nan")}, ValueError, "max_duration"),
        ({"suffixes": ".mid"}, TypeError, "suffixes: expected a sequence of strings"),
    ],
)
def test_wrong_arguments(
    folder: Path, tmp_path: Path, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        encode(folder, tmp_path / "store", **options)
    with pytest.raises(TypeError, match="encoding: expected an Encoding, got str"):
        encode_corpus(folder, "chorale", out=tmp_path / "store")  # type: ignore[arg-type]
    assert not (tmp_path / "store").exists()


# -- the machine ---------------------------------------------------------------------------------------------------

# VmHWM and not ru_maxrss, which a process inherits from the one that started it.
PEAK = """
import pathlib, re, sys, musicgen_ext as mg
from musicgen_ext.encodings import CHORALE
summary = mg.encode_corpus(sys.argv[1], CHORALE, out=sys.argv[2], workers=2)
print(summary.files, re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_flat(many: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(many), str(tmp_path / "store")], capture_output=True, text=True, check=True
    )
    files, kilobytes = map(int, done.stdout.split())
    assert files >= 19_000
    assert kilobytes < 300_000


FULL = """
import resource, signal, sys, musicgen_ext as mg
from musicgen_ext.encodings import CHORALE
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    mg.encode_corpus(sys.argv[1], CHORALE, out=sys.argv[2], workers=2)
except OSError as error:
    print(error.errno, error.filename)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits as POSIX has them")
@pytest.mark.parametrize("limit", [100, 5_000, 30_000])
def test_R45_no_room_is_an_error_and_can_be_gone_on_with(folder: Path, store: Path, tmp_path: Path, limit: int) -> None:
    out = tmp_path / "store"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(folder), str(out), str(limit)], capture_output=True, text=True, check=True
    )
    number, name = done.stdout.split()
    assert int(number) == errno.EFBIG
    assert name.startswith(str(out))
    encode(folder, out)
    assert contents(out) == contents(store)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_R45_a_folder_that_may_not_be_written(folder: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError) as caught:
        encode(folder, tmp_path / "store")
    assert caught.value.filename == str(tmp_path / "store")


def test_a_file_in_the_place_of_the_store(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(FileExistsError):
        encode(folder, tmp_path / "store")


def interrupted(folder: Path, out: Path, after: float) -> float | None:
    """Seconds from a Ctrl-C to the KeyboardInterrupt; None if the work was done before."""
    sent = 0.0

    def send() -> None:
        nonlocal sent
        sent = time.monotonic()
        signal.raise_signal(signal.SIGINT) if sys.platform == "win32" else os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(after, send)
    timer.start()
    try:
        encode(folder, out, workers=2)
    except KeyboardInterrupt:
        return time.monotonic() - sent
    finally:
        timer.cancel()
        with contextlib.suppress(KeyboardInterrupt):
            timer.join()
    return None


def test_R39_ctrl_c_is_heard_and_the_store_can_be_gone_on_with(many: Path, tmp_path: Path) -> None:
    begun = time.monotonic()
    encode(many, tmp_path / "whole")
    whole = time.monotonic() - begun
    waits = []
    for attempt in range(6):
        out = tmp_path / f"store{attempt}"
        threads = threading.active_count()
        waits.append(interrupted(many, out, whole * (0.1 + 0.1 * attempt)))
        assert threading.active_count() == threads
    heard = [wait for wait in waits if wait is not None]
    assert len(heard) >= 2
    assert sorted(heard)[len(heard) // 2] < 0.1
    encode(many, out)
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX sends them")
@pytest.mark.parametrize("after", [0, 0.0005, 0.001, 0.005, 0.02])
def test_R40_ctrl_c_in_another_process_ends_it_as_usual(many: Path, tmp_path: Path, after: float) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(many), str(tmp_path / "s")], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        while not (tmp_path / "s" / "manifest.jsonl.part").exists() and child.poll() is None:
            time.sleep(0.001)
        time.sleep(after)
        child.send_signal(signal.SIGINT)
        try:
            said, error = child.communicate(timeout=20)
        finally:
            child.kill()
    assert child.returncode == -signal.SIGINT
    assert said == b""
    assert error.rstrip().endswith(b"KeyboardInterrupt")
    assert b"terminate called" not in error


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_R42_stores_in_other_processes(folder: Path, store: Path, tmp_path: Path, method: str) -> None:
    opened = TokenStore(store)
    assert len(opened[3]) > 0  # mapped here before it travels
    context = multiprocessing.get_context(method)
    outs = [tmp_path / str(i) for i in range(2)]
    with context.Pool(2) as pool:  # what runs there must be importable there: functions of installed packages
        made = [pool.apply_async(encode_corpus, (folder, CHORALE), {"out": out, "workers": 2}) for out in outs]
        assert [each.get(timeout=60).files for each in made] == [301, 301]
        pieces = pool.map_async(operator.itemgetter(3), [opened] * 2).get(timeout=60)
    assert all(np.array_equal(piece, opened[3]) for piece in pieces)
    assert contents(outs[0]) == contents(store)


def test_public_objects_travel(store: Path, folder: Path) -> None:
    opened = TokenStore(store)
    again = pickle.loads(pickle.dumps(opened))
    np.testing.assert_array_equal(again[7], opened[7])
    summary = encode(folder, store)
    assert pickle.loads(pickle.dumps(summary)) == summary
    assert pickle.loads(pickle.dumps(CHORALE)) == CHORALE


def test_an_error_in_a_worker_is_raised_with_the_names_of_the_files(folder: Path, tmp_path: Path) -> None:
    class Job(corpus._Encode):
        def __call__(self, paths: list[bytes], cancel: Any) -> Any:
            raise RuntimeError("broken")

    for workers in (1, 3):
        with pytest.raises(RuntimeError, match="broken") as caught:
            corpus.run(
                folder, Job(CHORALE, False, None), out=tmp_path / "s", workers=workers, shard=None, resume=True,
                force=True, suffixes=corpus.MIDI_SUFFIXES, progress=False,
            )  # fmt: skip
        assert caught.value.__notes__ == ["in one of the files 0/000.mid to 3/five.midi"] or caught.value.__notes__
        assert not any(thread.name.startswith("corpus") for thread in threading.enumerate())


def test_wide_vocabularies_are_kept_in_int32(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VoiceGrid, "vocab_size", property(lambda self: 70_000))
    encode(folder, tmp_path / "store")
    monkeypatch.undo()
    opened = TokenStore(tmp_path / "store")
    assert opened[0].dtype == np.int32
    np.testing.assert_array_equal(opened[0], CHORALE.encode(mg.read_midi(folder / next(opened.manifest)["file"])))


def test_every_encoding_that_a_store_names_is_found_again(store: Path) -> None:
    assert encodings.load(json.loads((store / "encoding.json").read_bytes())["job"]["encoding"]) == CHORALE


# -- the command line ----------------------------------------------------------------------------------------------


def command(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "musicgen_ext", "encode", *map(os.fspath, arguments)], capture_output=True, timeout=60,
        check=False, **options,
    )  # fmt: skip


def test_R47_one_bad_file_among_a_thousand(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for i in range(1000):
        (root / f"{i:03}.mid").write_bytes(b"RIFF" if i == 417 else piece(i % 9).to_bytes())
    done = command(root, "-o", tmp_path / "store", "--encoding", "chorale", "--workers", "2")
    assert done.returncode == 1
    bad, counted = done.stderr.decode().splitlines()
    assert bad.startswith("error: 417.mid: ")
    assert counted == "999 of 1000 files encoded, 1 failed"
    assert done.stdout.decode().startswith(f"{tmp_path / 'store'}: 999 pieces, ")
    assert len(TokenStore(tmp_path / "store")) == 999
    (root / "417.mid").unlink()
    again = command(root, "-o", tmp_path / "store", "--encoding", "chorale", "--force")
    assert (again.returncode, again.stderr) == (0, b"")
    assert len(TokenStore(tmp_path / "store")) == 999


def test_encodings_by_name_with_options(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "o.toml").write_text('lowest_pitch = 21\nnum_pitches = 88\nvoices = ["high", "middle", "low"]\n')
    (tmp_path / "o.json").write_text('{"lowest_pitch": 21, "num_pitches": 88, "voices": ["high", "middle", "low"]}')
    three = VoiceGrid(voices=("high", "middle", "low"), lowest_pitch=21, num_pitches=88, hold=False)
    for i, name in enumerate(("o.toml", "o.json")):
        out = tmp_path / str(i)
        done = command(
            folder, "-o", out, "--encoding", "voices", "--options", tmp_path / name, "--option", "hold=false"
        )
        assert done.returncode == 1, done.stderr  # there are four voices at once
        assert TokenStore(out).encoding == three
    for name in encodings.NAMES:
        done = command(folder / "0" / "000.mid", "-o", tmp_path / name, "--encoding", name)
        assert (done.returncode, done.stderr) == (0, b"")
        opened = TokenStore(tmp_path / name)
        assert opened.encoding == encodings.named(name)
        np.testing.assert_array_equal(opened[0], opened.encoding.encode(mg.read_midi(folder / "0" / "000.mid")))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--encoding", "bars"], 2, "required: -o/--out"),
        (["-o", "s"], 2, "required: --encoding"),
        (["-o", "s", "--encoding", "braille"], 2, "invalid choice: 'braille'"),
        (["-o", "s", "--encoding", "voices", "--option", "colour=red"], 2, "unknown ['colour']"),
        (["-o", "s", "--encoding", "voices", "--option", "tempo"], 2, "expected NAME=VALUE, got 'tempo'"),
        (["-o", "s", "--encoding", "voices", "--options", "gone.toml"], 1, "gone.toml: No such file"),
        (["-o", "s", "--encoding", "voices", "--workers", "0"], 2, "workers: expected 1 to 1024, got 0"),
        (["-o", "s", "--encoding", "voices", "--shard", "3/2"], 2, "shard: expected"),
        (["-o", "s", "--encoding", "voices", "gone"], 1, "expected files"),
        (["-o", ".", "--encoding", "voices"], 1, "expected an empty folder or a store, got one with empty"),
    ],
)
def test_R47_usage(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    (tmp_path / "empty").mkdir()
    if "gone" in arguments:
        arguments = [a for a in arguments if a != "gone"]
    done = command("empty", *arguments, cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    last = done.stderr.decode().splitlines()[-1]
    assert done.returncode == code
    assert words in last
    assert last.startswith("error: ") or code == 2
    assert done.stdout == b""


@pytest.mark.skipif(sys.platform == "win32", reason="signals and terminals as POSIX has them")
def test_R47_interrupted_on_a_terminal(many: Path, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    leader, follower = pty.openpty()
    arguments = ["-m", "musicgen_ext", "encode", str(many), "-o", str(tmp_path / "s"), "--encoding", "chorale"]
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, stderr=follower) as child:
        os.close(follower)
        shown = b""
        while b"tokens [" not in shown:
            shown += os.read(leader, 1 << 16)
        child.send_signal(signal.SIGINT)
        out = child.communicate(timeout=60)[0]
    with contextlib.suppress(OSError):  # the terminal is gone with its last program
        while more := os.read(leader, 1 << 16):
            shown += more
    os.close(leader)
    assert child.returncode == 130
    assert out == b""
    assert shown.endswith(b"\r\x1b[Kinterrupted\r\n")
    assert command(many, "-o", tmp_path / "s", "--encoding", "chorale").returncode == 1  # some files are broken
    assert len(TokenStore(tmp_path / "s")) == 19_800


@pytest.mark.skipif(sys.platform == "win32", reason="pipes as POSIX has them")
def test_R47_a_closed_pipe_is_no_error(folder: Path, tmp_path: Path) -> None:
    arguments = ["-m", "musicgen_ext", "encode", str(folder / "6"), "-o", str(tmp_path / "s"), "--encoding", "chorale"]
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 0
    TokenStore(tmp_path / "s")
