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


def header(tracks=1, division=480, format=1, extra=b"", declared=None) -> bytes:
    fields = (format, tracks if declared is None else declared, division)
    return chunk(b"MThd", b"".join(value.to_bytes(2, "big") for value in fields) + extra)


def smf(*tracks: bytes, end=END, **fields) -> bytes:
    """A file of tracks, each given as the bytes of its events without the end-of-track event."""
    return header(len(tracks), **fields) + b"".join(chunk(b"MTrk", track + end) for track in tracks)


def riff(*chunks: tuple[bytes, bytes], length: int | None = None) -> bytes:
    """A RIFF file of form RMID; `length`: what it says about itself, in place of what is true."""
    form = b"RMID" + b"".join(k + len(d).to_bytes(4, "little") + d + bytes(len(d) % 2) for k, d in chunks)
    return b"RIFF" + (len(form) if length is None else length).to_bytes(4, "little") + form


def seeds() -> dict[str, bytes]:
    """A small file for every rule of the format and every way to break it, by name."""
    fromhex = bytes.fromhex
    note = fromhex("00903c40 60803c40")
    long = b"\xff\xff\xff\x7f"
    nested = b"".join(bytes([1, 0x90, 60, velocity]) for velocity in range(1, 9))
    hints = b"".join(b"\x01\xff\x7f\x05\x7dmgp" + bytes([older]) + b"\x00\x80\x3c\x40" for older in (3, 1, 5, 4))
    made = {
        "note": smf(note),
        "format_0": smf(note, format=0),
        "format_0_three_tracks": smf(note, note, note, format=0),
        "format_2": smf(note, b"\x00\xff\x51\x03\x0f\x42\x40" + note, format=2),
        "smpte_24": smf(note, division=0xE850),
        "smpte_25": smf(note, division=0xE728),
        "smpte_29": smf(note, division=0xE364),
        "smpte_30": smf(note, division=0xE201),
        "long_header": smf(note, extra=b"\0\1\2\3\4"),
        "riff": riff((b"data", smf(note))),
        "riff_with_more": riff((b"DISP", b"abc"), (b"data", smf(note)), (b"LIST", b"INFOICMT"), (b"data", b"x")),
        "riff_wrong_length": riff((b"data", smf(note)), length=1000) + b"abc",
        "alien_chunks": header(1) + chunk(b"XFIH", b"\0\xff") + chunk(b"MTrk", note + END) + chunk(b"last", b""),
        "garbage_between_tracks": header(2) + chunk(b"MTrk", note + END) + b"\0\1\2" + chunk(b"MTrk", note + END),
        "second_header": smf(note) + header(),
        "no_tracks": header(0),
        "tracks_not_declared": smf(note, note, declared=0),
        "tracks_missing": smf(note, note, declared=65_535),
        "chunk_too_long": header(1) + b"MTrk\xff\xff\xff\xff" + note + END + chunk(b"MTrk", note + END),
        "chunk_too_short": header(2) + b"MTrk\0\0\0\3" + note + END + chunk(b"MTrk", note + END),
        "no_end_of_track": smf(note, end=b""),
        "end_of_track_early": smf(note + END + note),
        "end_of_track_with_data": smf(note, end=b"\x00\xff\x2f\x02ab"),
        "event_cut": header(1) + chunk(b"MTrk", note + b"\x00\x90\x3c"),
        "number_too_long": smf(long[:3] + long + b"\x90\x3c\x40"),
        "number_cut": header(1) + chunk(b"MTrk", note + b"\x81\x80"),
        "running_status": smf(fromhex("00903c40 004040 104340 603c00 004000 83604300")),
        "running_status_missing": smf(b"\x00\x3c\x40" + note),
        "running_status_cancelled": smf(note[:4] + b"\x00\xff\x01\x00\x60\x3c\x00"),
        "running_program_changes": smf(fromhex("00c005 0006 810007 00d140 0541") + note),
        "high_data_byte": smf(b"\x00\x90\x3d\x90\x3c\x40" + note),
        "realtime_status": smf(b"\x00\xf8\x01\x02" + note + b"\x05\xf1\x01" + note),
        "long_deltas": smf((long + b"\x90\x3c\x40" + long + b"\x80\x3c\x40") * 5, division=32_767),
        "deltas_of_every_length": smf(
            fromhex("00903c01 7f3c00 81003c02 ff7f3c00 8180003c03 ffff7f3c00 818080003c04 ffffff7f3c00")
        ),
        "system_exclusive": smf(fromhex("05f005 7e7f0901f7 00f002 4312 05f702 01f7 00f702 f301") + note),
        "system_exclusive_too_long": smf(note + b"\x00\xf0" + long + b"abc", end=b""),
        "meta_events": smf(
            b"".join(bytes([0, 0xFF, kind, 3]) + b"a\xe4\0" for kind in (*range(10), 0x20, 0x21, 0x54, 0x60, 0x7F))
        ),
        "text_of_300_bytes": smf(b"\x00\xff\x01\x82\x2c" + b"m" * 300 + note),
        "tempos": smf(fromhex("00ff510307a120 60ff5103000000 00ff510207a1") + note),
        "time_signatures": smf(fromhex("00ff580406032408 00ff580400021808 00ff58020402") + note),
        "key_signatures": smf(fromhex("00ff5902fd01 00ff59020800 00ff590100") + note),
        "controls": smf(fromhex("00b00001 002002 00c005 00903c40 00b0407f 604000 00803c33 00e00140 00a03c11")),
        "overlapping": smf(nested + b"".join(b"\x05\x80\x3c\x40" for _ in range(8))),
        "nested": smf(nested + hints + b"".join(b"\x05\x80\x3c\x40" for _ in range(4))),
        "unended": smf(nested),
        "lone_note_offs": smf(b"\x00\x80\x3c\x40\x05\x90\x3c\x00" + note),
        "no_length": smf(b"\x05\x90\x3c\x01\x00\x80\x3c\x40\x00\x90\x3c\x02\x07\x3c\x00"),
        "every_channel": smf(
            b"".join(bytes([n, 0x90 | n, 60 + n, 64]) for n in range(16)),
            b"".join(bytes([1, 0x90 | n, 60 + n, 64, n, 0x80 | n, 60 + n, n]) for n in range(16)),
        ),
        "sixteen_tracks": smf(*(bytes([0, 0x90 | n, 60, 1, 96, 60, 0]) for n in range(16))),
        "four_voices": smf(
            *(
                b"\x00\xff\x03" + bytes([len(name)]) + name
                + b"".join(bytes([0, 0x90 | n, low + step % 7, 90, 0x83, 0x60, low + step % 7, 0]) for step in range(8))
                for n, (name, low) in enumerate(((b"Soprano", 67), (b"Alto", 60), (b"Tenor", 55), (b"Bass", 43)))
            )
        ),
        "cut_header": b"MThd\0\0\0\6\0\1\0\1\1",
        "division_0": smf(note, division=0),
        "format_7": smf(note, format=7),
    }  # fmt: skip
    for n in range(4):
        made[f"everything_{n}"] = random_file(random.Random(n))
    return made


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


SEEDS = seeds()


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
    parser.add_argument("--seeds", type=Path, help="only write the seeds of the libFuzzer target into this folder")
    parser.add_argument("--keep", type=Path, default=Path("fuzz_findings"), help="folder for mutants with findings")
    parser.add_argument("--child", type=int, default=-1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.seeds:
        for name, data in SEEDS.items():
            (options.seeds / f"{name}.mid").write_bytes(data)
        return 0
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
