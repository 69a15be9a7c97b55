"""Render what the bundled model `flute` learns from: single lines of chorales, played by a sampled flute.

    python python/examples/render_flute.py chorales_16th.npz OUT [--soundfont FluidR3_GM.sf2] [--minutes 80]

Needs FluidSynth and a General MIDI sound font (Debian: fluidsynth, fluid-soundfont-gm; the font, by Frank Wen and
others, has the MIT licence). OUT gets the folders train, valid and test, of the chorales of these splits: for every
line NAME.flac, 16 kHz mono without reverberation, and NAME.mid, what was played. The chorales are those that
`python -m musicgen_ext.train.rebuild_chorales` writes.
"""

import argparse
import subprocess
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np

import musicgen_ext as mg

LOW, HIGH = 36, 88  # the notes that the model is to play
FLUTE = 73  # General MIDI, from 0
RATE, RENDER_RATE = 16_000, 48_000
GAIN = 2.0  # of FluidSynth: the loudest notes come close to full scale
TAIL = 0.6  # seconds kept after the last note
SIXTEENTHS = (64, 160)  # of a line, at least and at most
SPLITS = {"train": 1.0, "valid": 0.05, "test": 0.05}  # of --minutes


def lines(path, split):
    """(name, pitch, onset) of every voice of the pieces of a split: int arrays over sixteenths, pitch -1 for rests."""
    data = np.load(path, allow_pickle=False)
    onset = np.unpackbits(data["onset"], axis=1)[:, :4].astype(bool)
    found = []
    for index, (start, stop) in enumerate(pairwise(data["offsets"].tolist())):
        if data["split"][index] == split and not data["duplicate"][index] and stop - start >= SIXTEENTHS[0]:
            for voice, letter in enumerate("SATB"):
                name = f"{data['ids'][index]}-{letter}"
                found.append((name, data["pitch"][start:stop, voice].astype(int), onset[start:stop, voice]))
    return found


def score_of(pitch, onset, rng):
    """A Score of a part of the line, somewhere between LOW and HIGH, at some tempo, loudness and articulation."""
    length = int(rng.integers(SIXTEENTHS[0], min(SIXTEENTHS[1], len(pitch)) + 1))
    first = int(rng.integers(0, len(pitch) - length + 1))
    pitch, onset = pitch[first : first + length], onset[first : first + length].copy()
    onset[0] = pitch[0] >= 0
    sounding = pitch[pitch >= 0]
    if not len(sounding):
        return None
    lowest, highest = LOW - sounding.min(), HIGH - sounding.max()
    if lowest > highest:
        return None
    shift = int(rng.integers(lowest, highest + 1))
    velocity, length_of_notes = rng.integers(72, 121), rng.choice([1.0, 1.0, 0.9, 0.7])
    changes = np.flatnonzero(onset | (np.diff(pitch, prepend=pitch[0]) != 0))
    notes = []
    for start, stop in pairwise([*changes.tolist(), len(pitch)]):
        if pitch[start] >= 0:
            ticks = max(30, round(120 * (stop - start) * length_of_notes))
            loud = int(np.clip(velocity + rng.integers(-8, 9), 1, 127))
            notes.append((120 * start + 240, ticks, int(pitch[start]) + shift, loud))
    tempo = float(rng.uniform(66, 138))
    return mg.Score(notes, ticks_per_quarter=480, tempos=[(0, round(60e6 / tempo))], programs=[(0, FLUTE)])


def render(score, soundfont):
    with tempfile.TemporaryDirectory() as folder:
        midi, wav = Path(folder) / "line.mid", Path(folder) / "line.wav"
        score.save(midi)
        command = ["fluidsynth", "-ni", "-q", "-R", "0", "-C", "0", "-g", str(GAIN), "-r", str(RENDER_RATE)]
        subprocess.run([*command, "-F", str(wav), str(soundfont), str(midi)], check=True, stdout=subprocess.DEVNULL)
        sound = mg.read_audio(wav).to_mono().resample(RATE)
    return mg.Audio(sound.y[: round((score.end_time + TAIL) * RATE)], RATE)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("chorales", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--soundfont", type=Path, default=Path("/usr/share/sounds/sf2/FluidR3_GM.sf2"))
    parser.add_argument("--minutes", type=float, default=80.0, help="of music for training")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for number, (split, share) in enumerate(SPLITS.items()):
        rng = np.random.default_rng([arguments.seed, number])
        folder = arguments.out / split
        folder.mkdir(parents=True, exist_ok=True)
        found, seconds, peak, count = lines(arguments.chorales, split), 0.0, 0.0, 0
        while seconds < 60 * arguments.minutes * share:
            name, pitch, onset = found[int(rng.integers(len(found)))]
            score = score_of(pitch, onset, rng)
            if score is None:
                continue
            audio = render(score, arguments.soundfont)
            stem = f"{count:04d}-{name}"
            score.save(folder / f"{stem}.mid")
            audio.save(folder / f"{stem}.flac")
            seconds += len(audio.y) / audio.sr
            peak, count = max(peak, float(np.abs(audio.y).max())), count + 1
        print(f"{split}: {count} lines, {seconds / 60:.1f} minutes, peak {peak:.2f}")


if __name__ == "__main__":
    main()
