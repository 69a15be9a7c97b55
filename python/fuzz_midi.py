"""Seeded mutants of valid MIDI files against the native parser and writer, best under a build with sanitizers.

    cmake -S . -B build/asan -DMUSICGEN_EXT_SANITIZE=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo …   # then copy _core*.so
    LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so)" \
    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1 \
    python python/fuzz_midi.py --mutants 100000

Mutant n of seed s is the same everywhere. Every one is read in both modes; what can be read is written, read again and
compared. A child process does the work and notes where it is, so that a crash or a hang names its mutant, which is kept
as a file, and the rest goes on. Exit code 1 after any finding.
"""

from __future__ import annotations

import argparse
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from musicgen_reference import midi as reference

MOST_FINDINGS = 10
END = b"\x00\xff\x2f\x00"
META = (
    b"\xff\x51\x03\x07\xa1\x20", b"\xff\x58\x04\x03\x02\x18\x08", b"\xff\x59\x02\xfd\x01", b"\xff\x01\x02hi",
    b"\xff\x05\x00", b"\xff\x7f\x05\x7dmgp\x01",
)  # fmt: skip
SYSEX = (b"\xf0\x03\x01\x02\xf7", b"\xf7\x01\xf8", b"\xf0\x81\x00" + bytes(128))


def chunk(kind: bytes, data: bytes) -> bytes:
    return kind + len(data).to_bytes(4, "big") + data


def random_file(rng: random.Random) -> bytes:
    """A valid file with everything in it: all events, running status, overlapping and nested notes, long deltas."""
    tracks = []
    for _ in range(rng.randint(1, 4)):
        track, running, sounding = bytearray(), 0, []
        for _ in range(rng.randint(0, 40)):
            track += reference.variable_length(rng.choice((0, 0, 1, 5, 120, 127, 128, 16_383, 16_384, 2_097_152)))
            kind = rng.choice(("on", "on", "on", "off", "off", "control", "program", "bend", "meta", "sysex"))
            channel, pitch = rng.choice((0, 0, 1, 9, 15)), rng.choice((60, 60, 61, 127))
            if kind == "off" and sounding:
                channel, pitch = sounding.pop(rng.randrange(len(sounding)))
                as_off = rng.random() < 0.5
                message = [(0x80 if as_off else 0x90) | channel, pitch, rng.randrange(128) if as_off else 0]
            elif kind in ("on", "off"):
                sounding.append((channel, pitch))
                message = [0x90 | channel, pitch, rng.randint(1, 127)]
            elif kind == "control":
                message = [0xB0 | channel, rng.choice((7, 10, 64)), rng.randrange(128)]
            elif kind == "program":
                message = [0xC0 | channel, rng.randrange(128)]
            elif kind == "bend":
                message = [0xE0 | channel, rng.randrange(128), rng.randrange(128)]
            else:
                message = list(rng.choice(META if kind == "meta" else SYSEX))
            if message[0] == running and rng.random() < 0.8:
                message = message[1:]
            else:
                running = message[0] if message[0] < 0xF0 else 0
            track += bytes(message)
        for channel, pitch in sounding:
            track += bytes([5, 0x80 | channel, pitch, 64])
        tracks.append(chunk(b"MTrk", bytes(track) + END))
    fields = (rng.choice((1, 1, 2)), len(tracks), rng.choice((1, 96, 480, 32_767, 0xE728, 0xE350)))
    return chunk(b"MThd", b"".join(value.to_bytes(2, "big") for value in fields)) + b"".join(tracks)


def mutant(rng: random.Random, data: bytes) -> bytes:
    """Bytes changed, taken out, put in, doubled or cut off."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at = rng.randrange(len(out) + 1)
        what = rng.randrange(6)
        if what == 0 and at < len(out):
            out[at] = rng.choice((0, 0x7F, 0x80, 0x90, 0xC0, 0xF0, 0xF7, 0xFF, rng.randrange(256)))
        elif what == 1:
            del out[at : at + rng.choice((1, 1, 2, 8))]
        elif what == 2:
            out[at:at] = rng.choice((b"\xff", b"\x80", b"\x00", b"MTrk", b"\xff\x2f\x00", b"\xff\xff\xff\x7f", END))
        elif what == 3:
            out[at:at] = out[at : at + rng.randrange(20)]
        elif what == 4 and rng.random() < 0.3:
            del out[at:]
        elif at < len(out):
            out[at] ^= 1 << rng.randrange(8)
    return bytes(out)


def numbered_mutant(seed: int, index: int) -> bytes:
    rng = random.Random(seed << 40 | index)
    return mutant(rng, random_file(rng))


def check(data: bytes) -> bool:
    """True if the bytes were read; AssertionError or a crash is a finding."""
    from musicgen_ext import MidiError, _core

    try:
        tables, chunks, issues, _ = _core.midi_parse(data, False)
    except MidiError:
        return False
    try:
        _core.midi_parse(data, True)
    except MidiError:
        assert issues, "strict mode refuses what the default mode reads without an issue"
    try:
        written = _core.midi_write(*tables, chunks)
    except ValueError as error:
        if "ticks after the event before it" in str(error):
            return True  # what an event in between bridged when it was read is too far apart without it
        raise
    again, chunks_again, _, _ = _core.midi_parse(written, False)
    for name, one, two in zip(("notes", "events", "payload", "ends", "track ends"), tables[2:], again[2:], strict=True):
        if name == "events":
            one["place"] = two["place"] = 0
        assert one.tolist() == two.tolist(), f"{name} change when written and read"
    assert chunks == chunks_again, "chunks change when written and read"
    return True


def shortened(report: str) -> str:
    """The lines that say what and where: the first of a sanitizer's, the last of Python's."""
    lines = [line[:200] for line in report.splitlines()]
    return "\n".join(lines if len(lines) <= 14 else [*lines[:10], "…", *lines[-3:]])


def work(seed: int, begin: int, end: int, status: int) -> None:
    read = 0
    for index in range(begin, end):
        os.pwrite(status, struct.pack("<QQ", index, read), 0)
        read += check(numbered_mutant(seed, index))
    os.pwrite(status, struct.pack("<QQ", end, read), 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mutants", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--begin", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--seconds-each", type=float, default=20, help="a mutant that takes longer hangs")
    parser.add_argument("--keep", type=Path, default=Path("fuzz_findings"), help="folder for mutants with findings")
    parser.add_argument("--child", type=int, default=-1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    end = options.begin + options.mutants
    if options.child >= 0:
        work(options.seed, options.begin, end, options.child)
        return 0

    started, findings, total_read, begin = time.monotonic(), 0, 0, options.begin
    with tempfile.TemporaryFile() as status:
        descriptor = status.fileno()
        while begin < end:
            os.pwrite(descriptor, struct.pack("<QQ", begin, 0), 0)
            command = [sys.executable, __file__, "--child", str(descriptor), "--seed", str(options.seed)]
            command += ["--begin", str(begin), "--mutants", str(end - begin)]
            child = subprocess.Popen(command, pass_fds=[descriptor], stderr=subprocess.PIPE, text=True)
            why, last = "", begin
            while True:
                try:
                    why = child.communicate(timeout=options.seconds_each)[1]
                    break
                except subprocess.TimeoutExpired:
                    at = struct.unpack("<QQ", os.pread(descriptor, 16, 0))[0]
                    if at == last:
                        child.kill()
                        why = f"no answer for {options.seconds_each:g} s\n" + child.communicate()[1]
                        break
                    last = at
            at, read = struct.unpack("<QQ", os.pread(descriptor, 16, 0))
            total_read += read
            if at == end and child.returncode == 0:
                break
            findings += 1
            options.keep.mkdir(exist_ok=True)
            path = options.keep / f"mutant_{options.seed}_{at}.mid"
            path.write_bytes(numbered_mutant(options.seed, at))
            print(f"finding: mutant {at} of seed {options.seed}, kept as {path}\n{shortened(why)}", flush=True)
            begin = at + 1
            if findings == MOST_FINDINGS:
                break
    print(
        f"mutants {options.begin} to {at if findings == MOST_FINDINGS else end} of seed {options.seed} in "
        f"{time.monotonic() - started:.0f} s: {total_read} could be read, {findings} findings"
    )
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
