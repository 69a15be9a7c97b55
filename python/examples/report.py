"""The report in the card of a chorale model: samples beside real chorales that it has not seen.

    python python/examples/report.py chorales_16th.npz [--model FILE] [--samples 100] [--json report.json]

The data are those that `python -m musicgen_ext.train.rebuild_chorales` writes.
"""

import argparse
import json
from itertools import pairwise
from pathlib import Path

import numpy as np

import musicgen_ext as mg
from musicgen_ext import evaluate
from musicgen_ext.encodings import read_voices


def chorales(path, splits):
    """The pieces of these splits, without those that are listed as copies of others."""
    data = np.load(path, allow_pickle=False)
    onset = np.unpackbits(data["onset"], axis=1)[:, :4].astype(bool)
    pieces = []
    for index, (start, stop) in enumerate(pairwise(data["offsets"].tolist())):
        if data["split"][index] in splits and not data["duplicate"][index]:
            position = data["bar_pos"][start:stop]
            pitch = data["pitch"][start:stop]
            pieces.append(
                evaluate.Piece(
                    pitch,
                    onset[start:stop] & (pitch >= 0),
                    position=position,
                    bar_length=12 if position.max() < 12 else 16,
                    name=str(data["ids"][index]),
                )
            )
    return pieces


def piece_of(score, name):
    """A sampled score as a grid."""
    voices = read_voices(score, name)
    return evaluate.Piece(
        voices.pitch.astype(np.int64),
        voices.onset,
        position=voices.position.astype(np.int64),
        bar_length=voices.meter.bar_length,
        name=name,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="chorales_16th.npz")
    parser.add_argument("--model", default="chorale", help="bundled name or model file")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--json", type=Path, help="write the numbers here")
    arguments = parser.parse_args()

    scores = mg.sample(
        arguments.model,
        num_samples=arguments.samples,
        seed=arguments.seed,
        temperature=arguments.temperature,
        progress=True,
    )
    result = evaluate.report(
        [piece_of(score, f"sample {i}") for i, score in enumerate(scores)],
        reference=chorales(arguments.data, ("test",)),
        training=chorales(arguments.data, ("train", "extra")),
    )
    print(evaluate.format_report(result, names=(f"{arguments.samples} samples", "test pieces")))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
