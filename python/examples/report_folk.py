"""The report in the card of the model `folk`: tunes it makes beside real ones that it has not seen.

    python python/examples/report_folk.py folk.json [--model FILE] [--samples 200] [--json report.json]

The data are those that `python -m musicgen_ext.train.rebuild_folk` writes. Every sample is told the key, the metre, the
pickup and the length of a test tune, in turn.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np

import musicgen_ext as mg
from musicgen_ext.encodings import FOLK, SCALES, STEPS_PER_QUARTER, TICKS_PER_STEP, Meter, read_melody
from musicgen_ext.evaluate.copying import copying
from musicgen_ext.train.folk import folk, tune_key

NOTES = ["C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"]


def score_of(piece):
    """A piece of the data as a score, with its key, metre and length as a call of `sample` says them."""
    given = {name: ids.tolist() for name, ids in piece.given.items()}
    numerator, denominator = map(int, FOLK.meters[given["bar_length"][0] - 1].split("/"))
    meter = Meter(numerator, denominator)
    meter = Meter(numerator, denominator, -given["position"][0] % meter.bar_length)
    key = given["tonic"][0], FOLK.modes[given["mode"][0] - 1]
    told = {"key": f"{NOTES[key[0]]} {key[1]}", "meter": str(meter), "pickup": meter.pickup / STEPS_PER_QUARTER}
    return FOLK.decode(piece.tokens, meter=meter, key=key), {
        "condition": told,
        "length": f"{len(piece.tokens) - 1} steps",
    }


def measured(scores, told):
    """Numbers about some tunes that were told these things."""
    counts, onsets, lengths, steps = Counter(), {}, Counter(), Counter()
    for score, asked in zip(scores, told, strict=True):
        condition = asked["condition"]
        name, mode = condition["key"].split()
        tonic, (numerator, denominator) = NOTES.index(name), map(int, condition["meter"].split("/"))
        meter = Meter(numerator, denominator, round(condition["pickup"] * STEPS_PER_QUARTER))
        notes = score.notes
        pitch, duration = notes["pitch"].astype(int), notes["duration"] // TICKS_PER_STEP
        start = notes["start"] // TICKS_PER_STEP
        inside = np.isin((pitch - tonic) % 12, SCALES[mode])
        counts.update(
            tunes=1, notes=len(pitch), time=duration.sum(), in_scale=duration[inside].sum(),
            tonic_last=int((pitch[-1] - tonic) % 12 == 0), key_heard=int(tune_key(pitch, duration) == (tonic, mode)),
            sounds_to_the_end=int(start[-1] + duration[-1] == int(asked["length"].split()[0])),
            low=pitch.min(), high=pitch.max(), over_bar_lines=0,
        )  # fmt: skip
        position = meter.positions(int(start.max()) + 1)[start]
        counts["over_bar_lines"] += int((position + duration > meter.bar_length).sum())
        onsets.setdefault(str(condition["meter"]), Counter()).update(position.tolist())
        lengths.update(duration.tolist())
        steps.update(np.diff(pitch).tolist())
        bars = Counter()
        for bar in range(int((start[-1] + meter.pickup) // meter.bar_length) + 1):
            here = (start - meter.pickup) // meter.bar_length == bar
            bars[tuple(zip(position[here].tolist(), pitch[here].tolist(), strict=True))] += 1
        counts.update(bars=sum(bars.values()), bars_heard_before=sum(n - 1 for n in bars.values()))
    share = {
        name: counts[name] / counts["tunes"] for name in ("tonic_last", "key_heard", "sounds_to_the_end", "low", "high")
    }
    numbers = {
        "tunes": counts["tunes"], "notes": counts["notes"], **share, "in_scale": counts["in_scale"] / counts["time"],
        "over_bar_lines": counts["over_bar_lines"] / counts["notes"],
        "bars_heard_before": counts["bars_heard_before"] / counts["bars"],
    }  # fmt: skip
    return {name: float(value) for name, value in numbers.items()}, onsets, lengths, steps


def overlap(one, other):
    """Common area of two histograms."""
    return float(sum(min(one[k] / one.total(), other[k] / other.total()) for k in one if k in other))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folk.json")
    parser.add_argument("--model", default="folk", help="bundled name or model file")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--json", type=Path, help="write the numbers here")
    arguments = parser.parse_args()

    corpus = folk(arguments.data)
    training = [FOLK.decode(piece.tokens) for piece in corpus.train]
    real, told = zip(*map(score_of, corpus.test), strict=True)
    asked = [told[i % len(told)] for i in range(arguments.samples)]
    model = mg.load(arguments.model)
    made = [
        model.sample(**one, seed=arguments.seed + i, temperature=arguments.temperature) for i, one in enumerate(asked)
    ]
    result = {}
    for name, scores, conditions in (("samples", made, asked), ("test", real, told)):
        numbers, *histograms = measured(scores, conditions)
        copied = copying(scores, training)
        result[name] = {**numbers, "copied": copied.exact, "copied_transposed": copied.transposed}
        result[name]["issues"] = sum(len(read_melody(score, encoding=FOLK).issues) for score in scores)
        if name == "samples":
            ours = histograms
    onsets, lengths, steps = histograms
    weight = {meter: counts.total() for meter, counts in onsets.items() if meter in ours[0]}
    result["samples"] |= {
        "onset_overlap": sum(overlap(ours[0][m], onsets[m]) * n for m, n in weight.items()) / sum(weight.values()),
        "length_overlap": overlap(ours[1], lengths),
        "interval_overlap": overlap(ours[2], steps),
    }
    for name in result["samples"]:
        print(f"{name:<20} {result['samples'][name]:>10.3f} {result['test'].get(name, float('nan')):>10.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
