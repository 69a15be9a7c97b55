"""The command ``musicgen-ext``: every room of the package from a shell.

Exit codes: 0 done (or the reader of a pipe has gone), 1 bad data, 2 wrong usage, 130 interrupted. A failure is one line
on standard error, ``error: FILE: reason``; ``--debug`` shows the traceback behind it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import io
import json
import os
import stat
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NoReturn, cast

import numpy as np

from musicgen_ext import checks, corpus, encodings, files, model, summary
from musicgen_ext.audio import Audio, read_audio
from musicgen_ext.encodings import read_voices
from musicgen_ext.encodings.stream import TokenStream
from musicgen_ext.errors import MidiWarning, MusicgenExtError, WeightsError
from musicgen_ext.midi import Score, read_midi
from musicgen_ext.progress import Progress

DONE, BAD_DATA, USAGE, INTERRUPTED = 0, 1, 2, 130

_MIDI, _WAV = (".mid", ".midi"), (".wav",)
_SOUND_FILES = (*_WAV, ".flac", ".ogg", ".aiff")
_PICTURES = (".png", ".svg", ".pdf")
_COPY_SAMPLES = 8  # pieces of a fine-tuned model that are looked at for copies
# Arguments of `sample`, `piano_rolls` and `encode_corpus` that are options here: a ValueError about one of them is a
# matter of usage, not of data.
_OPTIONS = (
    *("temperature", "top_k", "top_p", "seed", "length", "num_samples", "condition", "device"),
    *("fs", "steps_per_beat", "pedal_threshold", "channels", "dtype", "threads"),
    *("workers", "shard", "max_duration", "voices", "style"),
)


class Failure(Exception):
    """One line for the user, and the exit code."""

    def __init__(self, message: str, code: int = BAD_DATA) -> None:
        super().__init__(message)
        self.code = code


# -- entry -------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; `argv` without the program's name. Returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A name that is not UTF-8, or a terminal that is not: shown escaped, never a UnicodeEncodeError.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    arguments = _parser().parse_args(argv)
    debug: bool = arguments.debug
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.showwarning = _warn
            code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        if debug:
            raise
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has enough
        _let_go_of_stdout()
        return DONE
    except Exception as error:
        if debug:
            raise
        _let_go_of_stdout()
        message, code = _explained(error)
        _say(f"error: {message}")
        return code


def _let_go_of_stdout() -> None:
    """What is still buffered and cannot be written must not raise again when Python exits."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explained(error: Exception) -> tuple[str, int]:
    """The line and the exit code for an error."""
    if isinstance(error, Failure):
        return str(error), error.code
    if isinstance(error, OSError):
        reason = error.strerror or str(error) or type(error).__name__
        return (reason if error.filename is None else f"{files.shown(error.filename)}: {reason}"), BAD_DATA
    if isinstance(error, MusicgenExtError | ValueError | ImportError | MemoryError):
        text = str(error) or type(error).__name__
        option = text.split(":")[0].split("[")[0]
        return text, USAGE if option in _OPTIONS else BAD_DATA
    return f"{type(error).__name__}: {error} (this is a fault of musicgen-ext; --debug shows where)", BAD_DATA


def _say(line: str) -> None:
    """One line on standard error, whatever the message holds."""
    text = " ".join(part for part in line.splitlines() if part)
    with contextlib.suppress(OSError, ValueError):  # nobody listens
        print(text, file=sys.stderr, flush=True)


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"warning: {message}")


# -- options -----------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        _say(f"error: {message}")
        raise SystemExit(USAGE)


def _parser() -> _Parser:
    common = _Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = _Parser(
        prog="musicgen-ext", description="Make music with small models; train and measure them.", allow_abbrev=False
    )
    version = model.build_info()["version"]
    parser.add_argument("--version", action="version", version=f"musicgen-ext {version}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], help: str, text: str = "") -> Any:
        made = commands.add_parser(
            name,
            help=help,
            description=text or help[0].upper() + help[1:] + ".",
            parents=[common],
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(run=run)
        return made

    sample = command("sample", _sample, "make music with a model", _SAMPLE)
    sample.add_argument("model", nargs="?", default="chorale", metavar="MODEL", help="bundled name or file (chorale)")
    sample.add_argument(
        "-o", "--output", action="append", metavar="FILE", help=".mid or .wav (models of sound: .wav, .flac); -: stdout"
    )
    sample.add_argument("-n", "--num-samples", type=_whole, metavar="N", help="so many pieces, {i} in the names counts")
    sample.add_argument("--length", metavar="LENGTH", help='"16 bars", "64 beats", "30 s", "256 steps"')
    sample.add_argument("--prompt", metavar="FILE", help="MIDI file of four parts or a tune, or sound, to continue")
    sample.add_argument("--soprano", metavar="FILE", help="MIDI file whose highest voice is to be harmonised")
    sample.add_argument(
        "-c", "--condition", action="append", default=[], metavar="NAME=VALUE", help="mode=minor, score=tune.mid …"
    )
    sample.add_argument("--voices", metavar="A,B", help="tracks of the score that are played, by name or number (all)")
    sample.add_argument("--temperature", type=float, default=1.0, metavar="T", help="below 1: more predictable (1.0)")
    sample.add_argument("--top-k", type=_whole, metavar="K", help="draw from the K most likely tokens")
    sample.add_argument("--top-p", type=float, default=1.0, metavar="P", help="draw from this much of the probability")
    sample.add_argument("--seed", type=_whole, metavar="SEED", help="the same seed makes the same piece")
    sample.add_argument("--device", default="cpu", help="cpu")
    sample.add_argument("--plot", metavar="FILE", help="piano-roll picture, .png, .svg or .pdf (needs [plot])")
    sample.add_argument("--sr", type=_whole, metavar="HZ", help="sample rate of sound (44100, or the model's)")
    sample.add_argument("--force", action="store_true", help="overwrite files that exist")

    transfer = command("transfer", _transfer, "tell a piece in another style", _TRANSFER)
    transfer.add_argument("model", metavar="MODEL", help="file of a model of styles")
    transfer.add_argument("piece", metavar="FILE", help="MIDI file")
    transfer.add_argument("-o", "--output", required=True, metavar="FILE", help=".mid or .wav; -: stdout")
    transfer.add_argument(
        "-c", "--condition", action="append", default=[], metavar="NAME=VALUE", help="style=folk density=high …"
    )
    transfer.add_argument("--hear", choices=encodings.HEARD, help="of the piece: all, outer lines or melody (melody)")
    transfer.add_argument("--temperature", type=float, default=0.0, metavar="T", help="above 0: varied (0.0)")
    transfer.add_argument("--seed", type=_whole, metavar="SEED", help="of what is varied")
    transfer.add_argument("--sr", type=_whole, metavar="HZ", help="sample rate of sound (44100)")
    transfer.add_argument("--force", action="store_true", help="overwrite a file that exists")

    train = command("train", _train, "train a model, or make one your own (needs [train])", _TRAIN)
    train.add_argument("config", metavar="CONFIG.toml", nargs="?", help="what the run is (see python/examples)")
    train.add_argument(
        "--model", choices=("attention", "gru", "lstm", "rnn"), help="a language model, without a CONFIG.toml"
    )
    train.add_argument("--from", dest="start_from", metavar="MODEL", help="a model to go on with: a name, or a file")
    train.add_argument("--data", metavar="FOLDER | FILE", help="the data: MIDI files, or in place of data.path")
    train.add_argument("--encoding", choices=("bars", "performance", "pitches"), help="for --model (bars)")
    train.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of the encoding")
    train.add_argument("--options", metavar="FILE", help="options of the encoding, .toml or .json")
    train.add_argument("--steps", type=_whole, metavar="N", help="of training, in place of train.epochs or train.steps")
    train.add_argument("-o", "--out", metavar="FOLDER", help="where the run goes, in place of run.out")
    train.add_argument("--seed", type=_whole, metavar="SEED", help="in place of train.seed")
    train.add_argument("--device", default="cpu", help="cpu or cuda")
    train.add_argument("--threads", type=_whole, metavar="N", help="threads of torch on the CPU")
    train.add_argument("--start", metavar="MODEL", help="model file to begin from")
    train.add_argument("--fresh", action="store_true", help="begin anew even if the run has checkpoints")
    train.add_argument("--tensorboard", action="store_true", help="write TensorBoard logs too")

    encode = command("encode", _encode, "turn MIDI files into tokens, many files into one store", _ENCODE)
    encode.add_argument("what", nargs="+", metavar="FOLDER | FILE")
    encode.add_argument("-o", "--out", required=True, metavar="STORE", help="folder of the store")
    encode.add_argument("--encoding", required=True, choices=sorted(encodings.NAMES), help="how music becomes numbers")
    encode.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of the encoding")
    encode.add_argument("--options", metavar="FILE", help="options of the encoding, .toml or .json")
    encode.add_argument("--workers", type=_whole, metavar="N", help="threads (one for every core)")
    encode.add_argument("--shard", metavar="I/N", help="only the I-th of N parts of the files")
    encode.add_argument("--strict", action="store_true", help="a file with any deviation is a bad one")
    encode.add_argument("--max-duration", type=float, default=86_400.0, metavar="S", help="longest piece in seconds")
    encode.add_argument("--force", action="store_true", help="begin anew whatever store is there")

    evaluate = command("evaluate", _evaluate, "measure models on a benchmark, or describe pieces", _EVALUATE)
    evaluate.add_argument(
        "what",
        nargs="+",
        metavar="jsb16 … | frames … | overlap MODEL … | rendering MODEL | audio MODEL FILE … | style MODEL … | FILE …",
    )
    evaluate.add_argument(
        "--data", metavar="FILE", help="jsb16: jsb16_separated.npz or .json; frames: the folder; overlap: MIDI"
    )
    evaluate.add_argument("--bars", type=_whole, default=4, metavar="N", help="overlap: length of an excerpt (4)")
    evaluate.add_argument("--samples", type=_whole, default=100, metavar="N", help="overlap: of every model (100)")
    evaluate.add_argument("--one-key", action="store_true", help="overlap: bring the data to C major or A minor")
    evaluate.add_argument("--split", action="append", choices=("valid", "test"), help="valid and test")
    evaluate.add_argument("--scores", nargs="+", metavar="FILE", help="rendering: MIDI files that the model plays")
    evaluate.add_argument("--length", metavar="LENGTH", help='rendering: of every line, "60 s" (all of it)')
    evaluate.add_argument("--seed", type=_whole, default=0, metavar="SEED", help="rendering: of every line (0)")
    evaluate.add_argument("--temperature", type=float, default=1.0, metavar="T", help="rendering: see sample (1.0)")
    evaluate.add_argument("--top-p", type=float, default=1.0, metavar="P", help="rendering: see sample (1.0)")
    evaluate.add_argument("--train", nargs="+", metavar="FILE", help="audio: sounds that the simple models learn from")
    evaluate.add_argument("--json", action="store_true", help="numbers as JSON")

    info = command("info", _info, "what is in a model or a MIDI file, or how this copy was built")
    info.add_argument("what", nargs="*", metavar="MODEL | FILE.mid")
    info.add_argument("--build", action="store_true", help="version, compiler, CPU path, CUDA")
    info.add_argument("--json", action="store_true", help="as JSON: everything, also where the screen shows a part")
    info.add_argument("--plot", metavar="FILE", help="piano-roll picture, .png, .svg or .pdf (needs [plot])")
    info.add_argument("--force", action="store_true", help="overwrite a picture that exists")

    command("models", _models, "list the bundled models")
    _add_features(command("features", _no_feature, "numbers from files, for programs that learn from them"), common)
    return parser


def _add_features(features: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """A sub-command for every kind of feature."""
    kinds = features.add_subparsers(title="features", required=True, metavar="KIND")
    roll = kinds.add_parser(
        "roll",
        help="piano rolls of MIDI files",
        description=_ROLL,
        parents=[common],
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    roll.set_defaults(run=_features_roll)
    roll.add_argument("inputs", nargs="+", metavar="IN", help="MIDI file")
    roll.add_argument("-o", "--output", required=True, metavar="OUT", help="NAME.npz, or a folder for .npy files")
    columns = roll.add_mutually_exclusive_group()
    columns.add_argument("--fs", type=float, metavar="HZ", help="frames per second (100)")
    columns.add_argument("--steps-per-beat", type=_whole, metavar="N", help="steps of a quarter note, in place of --fs")
    roll.add_argument("--pedal-threshold", type=float, metavar="N", help="pedal is down from this value on (64)")
    roll.add_argument("--no-pedal", action="store_true", help="without the sustain pedal")
    roll.add_argument("--channels", default="frame", metavar="A,B", help="frame, onset, offset (frame)")
    roll.add_argument("--per-track", action="store_true", help="a roll for every track")
    roll.add_argument("--drums", action="store_true", help="draw drums, too")
    roll.add_argument("--binary", action="store_true", help="1 where there is anything, in place of velocities")
    roll.add_argument("--packed", action="store_true", help="bits, eight columns to a byte (np.unpackbits)")
    roll.add_argument("--dtype", metavar="TYPE", help="float64, float32, uint8 or bool")
    roll.add_argument("--threads", type=_whole, metavar="N", help="files at a time (one for every CPU)")
    roll.add_argument("--plot", metavar="FILE", help="picture of the roll of one file (needs [plot])")
    roll.add_argument("--force", action="store_true", help="overwrite files that exist")
    for name, text in _SOUND_FEATURES.items():
        _add_sound_feature(kinds, name, text, common)


_SOUND_FEATURES = {
    "mfcc": "mel-frequency cepstral coefficients of sound files",
    "mel": "mel spectrograms of sound files (power)",
    "logmel": "mel spectrograms of sound files, in dB",
    "chroma": "pitch classes of sound files",
    "stft": "short-time Fourier transforms of sound files (complex)",
}
# Options of the functions behind them: name, type, which features have it (all if none is named), help.
_SOUND_OPTIONS: tuple[tuple[str, type, tuple[str, ...], str], ...] = (
    ("n_fft", int, (), "samples of a frame (2048)"),
    ("hop_length", int, (), "samples from one frame to the next (512)"),
    ("win_length", int, (), "samples of the window (n_fft)"),
    ("window", str, (), "hann, hamming, blackman … (hann)"),
    ("n_mfcc", int, ("mfcc",), "coefficients (20)"),
    ("lifter", float, ("mfcc",), "cepstral liftering (0: none)"),
    ("n_mels", int, ("mfcc", "mel", "logmel"), "mel bands (128)"),
    ("fmin", float, ("mfcc", "mel", "logmel"), "lowest frequency, in Hz (0)"),
    ("fmax", float, ("mfcc", "mel", "logmel"), "highest frequency, in Hz (half the sample rate)"),
    ("htk", bool, ("mfcc", "mel", "logmel"), "HTK's mel scale in place of Slaney's"),
    ("n_chroma", int, ("chroma",), "pitch classes (12)"),
)


def _add_sound_feature(kinds: Any, name: str, text: str, common: argparse.ArgumentParser) -> None:
    made = kinds.add_parser(
        name,
        help=text,
        description=_SOUND.replace("KIND", name),
        parents=[common],
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.set_defaults(run=_features_sound, feature=name)
    made.add_argument("inputs", nargs="+", metavar="IN", help="sound file; with --store, also a folder of them")
    made.add_argument("-o", "--output", required=True, metavar="OUT", help="NAME.npz, or a folder for .npy files")
    made.add_argument("--sr", type=_whole, default=22_050, metavar="HZ", help="sample rate to resample to (22050)")
    for option, kind, features, help in _SOUND_OPTIONS:
        if features and name not in features:
            continue
        flag = "--" + option.replace("_", "-")
        if kind is bool:
            made.add_argument(flag, action="store_const", const=True, help=help)
        else:
            made.add_argument(flag, type=_whole if kind is int else kind, metavar=option.upper(), help=help)
    made.add_argument("--store", action="store_true", help="one memory-mapped store in the folder OUT; resumes")
    made.add_argument("--workers", type=_whole, metavar="N", help="with --store: files at a time (one for every CPU)")
    made.add_argument("--shard", metavar="I/N", help="with --store: only the I-th of N parts of the files")
    made.add_argument("--plot", metavar="FILE", help="picture of the features of one file (needs [plot])")
    made.add_argument("--force", action="store_true", help="overwrite files that exist")


_SAMPLE = """\
Make music with a model.

  musicgen-ext sample -o chorale.mid --seed 7
  musicgen-ext sample -o a.mid -o a.wav --plot a.png -c mode=minor --length "16 bars"
  musicgen-ext sample -n 10 -o "piece-{i}.mid"
  musicgen-ext sample --prompt beginning.mid -o whole.mid
  musicgen-ext sample --soprano tune.mid -o harmonised.mid
  musicgen-ext sample folk -c "key=D major" -c meter=6/8 --length "16 bars" -o jig.mid

A model of sound plays a score; a model of notes is heard on a small synthesiser:

  musicgen-ext sample flute -c score=chorale.mid -o chorale.wav
  musicgen-ext sample flute -c score=chorale.mid --voices soprano -o soprano.flac --seed 7
"""
_TRANSFER = """\
Tell a piece in another style: encode it, window by window, and decode it under other labels.

  musicgen-ext transfer runs/vae_gan/model.safetensors song.mid -c style=chorale -o chorale.mid

`musicgen-ext info MODEL` lists the labels of each group. What is measured (density) stays as it is unless it is given.
"""
_TRAIN = """\
Train a model, or make one your own.

  musicgen-ext train python/examples/chorale.toml --data chorales_16th.npz
  musicgen-ext train --model lstm --data midi/ -o runs/mine
  musicgen-ext train --model gru --data midi/ --encoding performance --option steps_per_second=50 -o runs/mine
  musicgen-ext train --from chorale --data my_chorales/ -o runs/my_style
  musicgen-ext sample runs/my_style/model.safetensors -o new.mid

--model learns a language model from MIDI files of any kind, --from goes on with a bundled model or a model file, keeps
the weights of the best validation score (the old ones, if none are better) and tells how much it copies. A tenth of the
pieces is for validation, variants of a piece staying together; files that cannot be read are named and left out.
"""

_ENCODE = """\
Turn MIDI files into tokens, many files into one store.

  musicgen-ext encode midi/ -o tokens/ --encoding performance
  musicgen-ext encode midi/ -o tokens/ --encoding bars --option tempos=false --workers 8 --shard 1/4
  musicgen-ext encode a.mid b.mid -o tokens/ --encoding voices --option 'voices=["violin", "cello"]'

The same command again goes on where an earlier one was stopped. Bad files are skipped, named here and listed with their
reasons in STORE/manifest.jsonl; musicgen_ext.TokenStore("tokens/") reads the store.
"""
_EVALUATE = """\
Measure models on a benchmark, or describe pieces.

  musicgen-ext evaluate jsb16 --data jsb16_separated.npz runs/jsb16/model.safetensors
  musicgen-ext evaluate frames --data pianorolls runs/frames_jsb_notes/model.safetensors
  musicgen-ext evaluate *.mid
  musicgen-ext evaluate rendering flute --scores *.mid --length "60 s"
  musicgen-ext evaluate audio flute test/*.flac --train train/*.flac
  musicgen-ext evaluate style runs/vae_gan/model.safetensors vae_gan.toml --data corpora/
  musicgen-ext evaluate overlap runs/gan_conv/model.safetensors --data held_out_midi

The first prints nats per note of the JSB chorales, beside counting models and published numbers; the second a report
over four-part pieces: ranges, parallels, consonance, note lengths, repetition, endings. The third plays every line of
scores and listens: the share of notes with the right pitch, levels, and noise over time. The fourth prints bits per
sample of sounds, beside counting and linear prediction; what a model is told of x.flac is in x.mid. The fifth tells
held-out music in each of a model's styles: what survives of it, and whether a classifier that learnt from real music
recognises the new style. The sixth prints how far the distributions of what can be counted in
samples (or files) and in other music overlap, beside that music's notes shuffled.
"""


_ROLL = """\
Piano rolls of MIDI files: arrays of 128 pitches by frames, or by steps of a beat.

  musicgen-ext features roll *.mid -o rolls.npz
  musicgen-ext features roll *.mid -o rolls/ --steps-per-beat 4 --binary
  musicgen-ext features roll piece.mid -o piece.npz --fs 50 --plot piece.png

An array is named after its file, "piece" for "folder/piece.mid" ("piece-2" for another of that name). A file that
cannot be read is reported and left out.
"""


_SOUND = """\
Features of sound files, in arrays of shape (dims, frames).

  musicgen-ext features KIND *.wav -o features.npz
  musicgen-ext features KIND *.wav -o features/ --sr 16000 --n-fft 512 --hop-length 160
  musicgen-ext features KIND one.wav -o one.npz --plot one.png
  musicgen-ext features KIND recordings -o store --store --shard 1/4

An array is named after its file, "song" for "folder/song.wav" ("song-2" for another of that name). A file that cannot
be read is reported and left out. Other formats than WAV, and other sample rates than --sr, need [audio].
"""


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None


# -- sample ------------------------------------------------------------------------------------------------------


def _sample(arguments: argparse.Namespace) -> int:
    count: int | None = arguments.num_samples
    loaded = model.load(arguments.model, device=arguments.device)
    is_sound = isinstance(loaded, model.SoundModel)
    outputs: list[str] = arguments.output or [
        os.path.basename(arguments.model).removesuffix(".safetensors")
        + ("" if count is None else "-{i}")
        + (".wav" if is_sound else ".mid")
    ]
    targets = [(name, _SOUND_FILES if is_sound else _MIDI + _WAV) for name in outputs if name != "-"]
    if arguments.plot is not None:
        if is_sound:
            raise Failure(f"--plot: expected a model of notes, got {loaded.name!r}, which makes sound", USAGE)
        targets.append((arguments.plot, _PICTURES))
    for name, suffixes in targets:
        if not name.lower().endswith(suffixes):
            hint = " (this model makes sound)" if is_sound else ""
            raise Failure(f"{files.shown(name)}: expected a name in {', '.join(suffixes)}{hint}", USAGE)
        if count is not None and "{i}" not in name:
            raise Failure(
                f"{files.shown(name)}: expected {{i}} in the name, it stands for the number of the piece", USAGE
            )
    if count is not None and "-" in outputs:
        raise Failure("-: expected one piece for standard output, not -n", USAGE)
    condition = _condition(arguments, loaded)
    wanted = range(1 if count is None else max(count, 0))
    if not arguments.force:
        for i in wanted:
            for name, _ in targets:
                _refuse_to_overwrite(_numbered(name, i, count))

    prompt = arguments.prompt
    made = loaded.sample(
        num_samples=cast("Any", count),
        length=arguments.length,
        prompt=prompt if prompt is None or is_sound else read_midi(prompt),
        condition=_read(condition) or None,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        seed=arguments.seed,
        progress=True,
    )
    pieces: list[Any] = made if isinstance(made, list) else [made]
    notes_to = sys.stderr if "-" in outputs else sys.stdout
    with Progress(len(pieces), "writing", enabled=len(pieces) > 1) as bar:
        for i, piece in enumerate(pieces):
            for issue in piece.provenance.get("issues", []):
                if i == 0:
                    _say(f"warning: {issue}")
            for name in outputs:
                _write(piece, name if name == "-" else _numbered(name, i, count), arguments.sr)
            if arguments.plot is not None:
                _plot(piece.plot, _numbered(arguments.plot, i, count))
            bar.update(i + 1)
    for i, piece in enumerate(pieces):
        names = [_numbered(name, i, count) for name, _ in targets]
        wrote = ", ".join(map(files.shown, names)) if names else "standard output"
        if isinstance(piece, Score):
            what = f"{len(piece.notes)} notes, {piece.end_time:.1f} s"
        else:
            what = f"{piece.duration:.1f} s at {piece.sr} Hz"
        print(f"{wrote}: {what}, seed {piece.provenance['seed']}", file=notes_to)
    return DONE


def _transfer(arguments: argparse.Namespace) -> int:
    name: str = arguments.output
    if name != "-" and not name.lower().endswith(_MIDI + _WAV):
        raise Failure(f"{files.shown(name)}: expected a name in {', '.join(_MIDI + _WAV)}", USAGE)
    loaded = _style_model(arguments.model)
    labels = _pairs(arguments)
    if name != "-" and not arguments.force:
        _refuse_to_overwrite(name)
    piece = read_midi(arguments.piece)
    hear = {} if arguments.hear is None else {"hear": arguments.hear}
    told = loaded.transfer(piece, temperature=arguments.temperature, seed=arguments.seed, **hear, **labels)
    for issue in told.provenance.get("issues", []):
        _say(f"warning: {issue}")
    _write(told, name, arguments.sr)
    wrote = "standard output" if name == "-" else files.shown(name)
    print(f"{wrote}: {len(told.notes)} notes, {told.end_time:.1f} s", file=sys.stderr if name == "-" else sys.stdout)
    return DONE


def _style_model(name: str) -> model.StyleModel:
    loaded = model.load(name)
    if not isinstance(loaded, model.StyleModel):
        raise Failure(f"{files.shown(name)}: expected a model of styles (arch 'vae_gan'), got {loaded!r}")
    return loaded


def _read(condition: dict[str, Any]) -> dict[str, Any]:
    """The condition with what its files hold."""
    read = dict(condition)
    for name in ("soprano", "score"):
        if name in read:
            read[name] = read_midi(read[name])
    for name in read.keys() & {"frames", "z"}:
        path = read[name]
        try:
            read[name] = np.load(path, allow_pickle=False)
        except ValueError as error:
            raise Failure(f"{files.shown(path)}: expected an array of numbers in .npy form: {error}") from None
    return read


def _pairs(arguments: argparse.Namespace) -> dict[str, Any]:
    condition: dict[str, Any] = {}
    for pair in arguments.condition:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise Failure(f"--condition: expected NAME=VALUE, got {pair!r}", USAGE)
        condition[name] = value
    return condition


def _condition(arguments: argparse.Namespace, loaded: model.Model) -> dict[str, Any]:
    condition = _pairs(arguments)
    attributes = loaded.attributes if isinstance(loaded, model.VariationalModel) else ()
    for name in condition.keys() & {"pickup", *attributes}:
        try:
            condition[name] = float(condition[name])
        except ValueError:
            raise Failure(f"--condition {name}: expected a number, got {condition[name]!r}", USAGE) from None
    if arguments.soprano is not None:
        condition["soprano"] = arguments.soprano
    if arguments.voices is not None:
        condition["voices"] = arguments.voices
    if condition.get("voices", "all") != "all":
        condition["voices"] = condition["voices"].split(",")
    return condition


def _numbered(name: str, i: int, count: int | None) -> str:
    return name if count is None else name.replace("{i}", str(i))


def _refuse_to_overwrite(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        what = "is a folder" if stat.S_ISDIR(mode) else "exists already; --force overwrites it"
        raise Failure(f"{files.shown(path)}: {what}")


def _write(piece: Score | Audio, name: str, sr: int | None) -> None:
    if isinstance(piece, Audio):
        piece = piece if sr is None or sr == piece.sr else piece.resample(sr)
    elif name.lower().endswith(_WAV):
        piece = piece.synthesize(sr=44_100 if sr is None else sr)
    if name != "-":
        piece.save(name)
        return
    sys.stdout.buffer.write(piece.to_wav() if isinstance(piece, Audio) else piece.to_bytes())
    sys.stdout.buffer.flush()


def _plot(draw: Callable[[], Any], name: str) -> None:
    """The axes that `draw` returns, as a file."""
    with contextlib.suppress(ImportError):  # `plot` says what is missing
        import matplotlib

        matplotlib.use("Agg")  # a picture for a file, whatever windows this machine could open
    axes = draw()
    picture = io.BytesIO()
    figure = axes.figure
    figure.savefig(picture, format=os.path.splitext(name)[1][1:].lower(), dpi=150)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)
    files.replace(name, [picture.getvalue()])


# -- train -------------------------------------------------------------------------------------------------------


def _train(arguments: argparse.Namespace) -> int:
    _check_training(arguments)
    from musicgen_ext import train

    config, start = _training(arguments)
    result, likelihoods = train.run(
        config,
        data_path=arguments.data,
        out=arguments.out,
        seed=arguments.seed,
        device=arguments.device,
        threads=arguments.threads,
        resume=not arguments.fresh,
        start=start,
        tensorboard=arguments.tensorboard,
        steps=arguments.steps,
        measure=partial(_measured, copies=arguments.start_from is not None, seed=arguments.seed or 0),
    )
    for split, likelihood in likelihoods.items():
        unit, parts = ("nats per token", "tokens") if likelihood.name == "nll" else ("from held-out music", "excerpts")
        print(f"{split}: {likelihood.nll:.4f} {unit} ({likelihood.tokens:,} {parts})")
    print(files.shown(result.path))
    return DONE


def _check_training(arguments: argparse.Namespace) -> None:
    """Exactly one of the three ways to say what is trained, and nothing that belongs to another."""
    named = {"CONFIG.toml": arguments.config, "--model": arguments.model, "--from": arguments.start_from}
    given = [name for name, value in named.items() if value is not None]
    if len(given) != 1:
        raise Failure(f"expected one of {', '.join(named)}, got {' and '.join(given) or 'none'}", USAGE)
    if arguments.model is None and (arguments.encoding or arguments.option or arguments.options):
        raise Failure(f"--encoding, --option, --options: expected with --model only, got {given[0]}", USAGE)
    if arguments.config is None:
        for name in ("data", "out"):
            if getattr(arguments, name) is None:
                raise Failure(f"--{name}: expected a folder with {given[0]}, got none", USAGE)
        if arguments.start is not None:
            raise Failure(f"--start: expected with CONFIG.toml only, got {given[0]}", USAGE)


def _training(arguments: argparse.Namespace) -> tuple[Any, str | None]:
    """What is trained, and the model file that it begins with."""
    from musicgen_ext.train import quick

    if arguments.config is not None:
        return arguments.config, arguments.start
    if arguments.model is not None:
        try:
            options = _encoding_options(arguments)
            return quick.from_scratch(
                arguments.model, arguments.data, encoding=arguments.encoding or "bars", options=options
            ), None
        except WeightsError as error:
            raise Failure(str(error), USAGE) from error
    path = model.load(arguments.start_from).info["path"]
    return quick.from_model(path, arguments.data), path


def _measured(data: Any, path: str | os.PathLike[str], *, copies: bool, seed: int) -> dict[str, Any]:
    """What counting alone comes to on a corpus of tokens, and how much a model copies of what it was fine-tuned on."""
    from musicgen_ext.evaluate.copying import copying
    from musicgen_ext.evaluate.counting import counting_baseline

    numbers: dict[str, Any] = {}
    if getattr(data, "sources", None) is None:
        return numbers
    encoding = encodings.load(data.encoding, tokens=True)
    if isinstance(encoding, TokenStream):
        train, valid, test = ([piece.tokens[:, 0] for piece in part] for part in (data.train, data.valid, data.test))
        counted = numbers["counting"] = counting_baseline(train, valid, test, encoding.vocabulary)
        splits = ", ".join(f"{split} {counted[split]:.4f}" for split in ("valid", "test") if split in counted)
        print(f"counting model of order {counted['order']}, in {counted['keys']} key(s): {splits} nats per token")
    if copies:
        made = model.load(path).sample(num_samples=_COPY_SAMPLES, seed=seed)
        own, training = [[item.score for item in part] for part in (data.sources.valid, data.sources.train)]
        for whose, music in (("its samples", made), ("the validation files", own)):
            found = copying(music, training)
            numbers[f"copied, {whose}"] = dataclasses.asdict(found)
            print(
                f"of {found.windows:,} windows of 8 notes of {whose} {found.exact:.1%} are in the training files, "
                f"{found.transposed:.1%} in some key"
            )
    return numbers


# -- encode ------------------------------------------------------------------------------------------------------


def _encode(arguments: argparse.Namespace) -> int:
    try:
        encoding = encodings.named(arguments.encoding, _encoding_options(arguments))
    except WeightsError as error:
        raise Failure(str(error), USAGE) from error
    what: list[str] = arguments.what
    done = corpus.encode_corpus(
        what[0] if len(what) == 1 else what,
        encoding,
        out=arguments.out,
        workers=arguments.workers,
        shard=arguments.shard,
        force=arguments.force,
        strict=arguments.strict,
        max_duration=arguments.max_duration,
        progress=True,
    )
    if not done.files + done.failed and arguments.shard is None:
        names = ", ".join(corpus.MIDI_SUFFIXES)
        raise Failure(f"{', '.join(map(files.shown, what))}: expected files with names in {names}, got none")
    _say_failures(done, "encoded")
    print(
        f"{files.shown(done.path)}: {done.files:,} pieces, {done.tokens:,} tokens, {done.issues:,} issues, "
        f"{done.seconds:.1f} s"
    )
    return BAD_DATA if done.failed else DONE


def _say_failures(done: Any, what: str) -> None:
    """What went wrong with the files of a store, of its summary."""
    for name, reason in done.failures:
        _say(f"error: {files.shown(name)}: {reason}")
    if done.failed:
        listed = "" if done.failed == len(done.failures) else f"; {os.path.join(done.path, 'manifest.jsonl')} lists all"
        _say(f"{done.files} of {done.files + done.failed} files {what}, {done.failed} failed{listed}")
    if done.links:
        _say(f"warning: {done.links} links to folders were not followed")


def _encoding_options(arguments: argparse.Namespace) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if arguments.options is not None:
        name: str = arguments.options
        text = files.content(name)
        try:
            if name.lower().endswith(".toml"):
                import tomllib

                options = tomllib.loads(text.decode())
            else:
                options = json.loads(text)
        except ValueError as error:
            raise Failure(f"{files.shown(name)}: expected options in TOML or JSON: {error}") from None
        if not isinstance(options, dict):
            raise Failure(f"{files.shown(name)}: expected names and values, got {type(options).__name__}")
    for pair in arguments.option:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise Failure(f"--option: expected NAME=VALUE, got {pair!r}", USAGE)
        try:
            options[name] = json.loads(value)
        except ValueError:  # a word
            options[name] = value
    return options


# -- evaluate ----------------------------------------------------------------------------------------------------


def _evaluate(arguments: argparse.Namespace) -> int:
    if arguments.what[0] == "jsb16":
        return _evaluate_jsb16(arguments, arguments.what[1:])
    if arguments.what[0] == "frames":
        return _evaluate_frames(arguments, arguments.what[1:])
    if arguments.what[0] == "rendering":
        return _evaluate_rendering(arguments, arguments.what[1:])
    if arguments.what[0] == "audio":
        return _evaluate_audio(arguments, arguments.what[1:])
    if arguments.what[0] == "style":
        return _evaluate_style(arguments, arguments.what[1:])
    if arguments.what[0] == "overlap":
        return _evaluate_overlap(arguments, arguments.what[1:])
    return _evaluate_files(arguments, arguments.what)


def _evaluate_jsb16(arguments: argparse.Namespace, names: Sequence[str]) -> int:
    from musicgen_ext import evaluate

    if arguments.data is None:
        raise Failure("evaluate jsb16: expected --data FILE, jsb16_separated.npz or jsb16_separated.json", USAGE)
    data = evaluate.load_jsb16(arguments.data)
    splits = arguments.split or ["valid", "test"]
    numbers: dict[str, Any] = {}
    tables = []
    contenders: list[tuple[str, int | None, Any, Sequence[str]]] = []
    for name in names:
        loaded = model.load(name)
        if not isinstance(loaded, model.ScoreModel) or loaded.encoding.hold:
            raise Failure(f"{files.shown(name)}: expected a model of four voices without holds, got {loaded!r}")
        slots = [slot["name"] for slot in loaded.encoding.slots]
        contenders.append((name, loaded.info["parameters"], _Likelihood(loaded), slots))
    if not names:
        for label, phase in (("first-order counting model", False), ("the same with beat phase", True)):
            counting = evaluate.counting_model(data.train, beat_phase=phase)
            contenders.append((label, None, counting, evaluate.VOICES))
    for name, parameters, log_prob, columns in contenders:
        scores = {}
        for split in splits:
            pieces = data.split(split)
            with Progress(len(pieces), f"{name} {split}") as bar:
                scores[split] = evaluate.evaluate_jsb16(_counted(log_prob, bar), pieces, columns=columns)
        numbers[name] = {split: score.to_dict() for split, score in scores.items()}
        tables.append(evaluate.format_jsb16(scores, name=files.shown(name), parameters=parameters))
    print(json.dumps(numbers, indent=2) if arguments.json else "\n\n".join(tables))
    return DONE


def _evaluate_frames(arguments: argparse.Namespace, names: Sequence[str]) -> int:
    from musicgen_ext import evaluate

    if arguments.data is None:
        raise Failure(f"evaluate frames: expected --data FOLDER with {', '.join(evaluate.FRAME_SETS)} (.npz)", USAGE)
    paths = {one: os.path.join(arguments.data, f"{one}.npz") for one in evaluate.FRAME_SETS}
    splits = arguments.split or ["valid", "test"]
    loaded = {name: model.load(name) for name in names}
    wanted: dict[str, list[str]] = {}
    for name, each in loaded.items():
        if not isinstance(each, model.FramesModel) or each.encoding.keys != 88:
            raise Failure(f"{files.shown(name)}: expected a model of frames of 88 keys, got {each!r}")
        own = each.info["card"].get("set")
        wanted[name] = [own] if own in paths else list(paths)
    sets = [one for one in paths if not names or any(one in each for each in wanted.values())]
    found: dict[str, dict[str, dict[str, float]]] = {}
    scored: dict[str, dict[str, int]] = {}
    for one in sets:
        data = encodings.read_frames(paths[one])
        rivals = {
            "each key's share": evaluate.marginal_frames(data["train"]),
            "each key after itself": evaluate.first_order_frames(data["train"]),
        }
        models = {name: each.log_prob for name, each in loaded.items() if one in wanted[name]}
        for name, log_prob in {**rivals, **models}.items():
            for split in splits:
                with Progress(len(data[split]), f"{name} {one} {split}") as bar:
                    score = evaluate.evaluate_frames(_counted(log_prob, bar), data[split])
                found.setdefault(name, {}).setdefault(one, {})[split] = score.nats
                scored.setdefault(one, {})[split] = score.frames
    published: dict[str, dict[str, dict[str, float]]] = {
        f"{label} (published)": {one: {"test": nats} for one, nats in numbers.items() if one in sets}
        for kind in evaluate.FRAMES_PUBLISHED.values()
        for label, numbers in kind.items()
    }
    if arguments.json:
        print(json.dumps({"nats_per_frame": found, "frames": scored, "published": published}, indent=2))
        return DONE
    rows = [*found.items(), *((label, numbers) for label, numbers in published.items() if "test" in splits)]
    print(evaluate.format_frames([(files.shown(name), numbers) for name, numbers in rows], splits))
    return DONE


class _Likelihood:
    """A model as `evaluate_jsb16` wants it: pitches of a piece in, log-probabilities of its tokens out."""

    def __init__(self, loaded: model.ScoreModel) -> None:
        self.model = loaded

    def __call__(self, piece: Any) -> Any:
        return self.model.log_prob(self.model.encoding.grid_to_tokens(piece))


def _counted(log_prob: Callable[[Any], Any], bar: Progress) -> Callable[[Any], Any]:
    done = 0

    def call(piece: Any) -> Any:
        nonlocal done
        done += 1
        bar.update(min(done, bar.total))
        return log_prob(piece)

    return call


def _sound_model(name: str) -> model.SoundModel:
    loaded = model.load(name)
    if not isinstance(loaded, model.SoundModel):
        raise Failure(f"{files.shown(name)}: expected a model of sound, got {loaded!r}")
    return loaded


def _evaluate_rendering(arguments: argparse.Namespace, names: Sequence[str]) -> int:
    from musicgen_ext import evaluate

    if len(names) != 1 or not arguments.scores:
        raise Failure("evaluate rendering: expected one MODEL and --scores FILE …", USAGE)
    loaded = _sound_model(names[0])
    encoding = loaded.encoding
    if not isinstance(encoding, encodings.NotesToSound):
        raise Failure(f"{files.shown(names[0])}: expected a model that plays scores, got {loaded!r}")
    lines: dict[str, encodings.Line] = {}
    failed = 0
    for name in arguments.scores:
        try:
            found = encoding.lines(read_midi(name))
        except (OSError, ValueError, MemoryError) as error:
            if arguments.debug:
                raise
            failed += 1
            _say(f"error: {_named(name, error)}")
            continue
        for line in found:
            part = "" if len(found) == 1 else f" {line.name or line.track}, line {line.number}"
            lines[f"{files.shown(name)}{part}"] = line
    sounds = loaded.play(
        list(lines.values()),
        length=arguments.length,
        seed=arguments.seed,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        progress=True,
    )
    heard = {
        name: evaluate.hear(sound.y, sound.sr, line.notes)
        for (name, line), sound in zip(lines.items(), sounds, strict=True)
    }
    if heard:
        report = evaluate.rendering_report(heard)
        print(json.dumps(report, indent=2) if arguments.json else evaluate.format_rendering(report))
    if failed:
        _say(f"{len(arguments.scores) - failed} of {len(arguments.scores)} scores played, {failed} failed")
    return BAD_DATA if failed else DONE


_EXCERPT_BARS = 4  # of what a style is recognised in
_SAMPLES = 64  # of them, of every style


def _evaluate_style(arguments: argparse.Namespace, names: Sequence[str]) -> int:
    from musicgen_ext import evaluate, train

    if not 1 <= len(names) <= 2 or (len(names) == 1 and arguments.data is None):
        raise Failure("evaluate style: expected a model, and CONFIG.toml or --data FOLDER of its music", USAGE)
    loaded = _style_model(names[0])
    encoding, group = loaded.encoding, loaded.encoding.groups[0]
    if len(names) == 2:
        data = train.read_corpus(names[1], arguments.data)
    else:
        rolls = {key: value for key, value in encoding.roll_bars.to_dict().items() if key not in ("name", "onsets")}
        data = train.styles(
            arguments.data, group=group.name, density=0, bars=encoding.bars, one_key=encoding.one_key, **rolls
        )
    if not isinstance(data, train.StyleCorpus) or data.styled_bars.groups[0] != group:
        raise Failure(f"{files.shown(names[-1])}: expected music in the styles {list(group.labels)}")
    if data.styled_bars.shape != encoding.shape:
        got = f"{list(data.styled_bars.shape)}, got {list(encoding.shape)}"
        raise Failure(f"{files.shown(names[0])}: expected a model of pictures of shape {got}")
    together = -(-_EXCERPT_BARS // encoding.bars)

    def music_of(pieces: Sequence[Any]) -> dict[str, Any]:
        found = {}
        for i, name in enumerate(group.labels):
            cut = [evaluate.excerpts(piece.windows, together) for piece in pieces if piece.labels[0, 0] == i]
            found[name] = np.concatenate([np.zeros((0, *cut[0].shape[1:]), np.uint8), *cut])
            if not len(found[name]):
                raise Failure(f"{files.shown(names[-1])}: expected {_EXCERPT_BARS} bars on end of {name!r}, got none")
        return found

    def told(pictures: Any, target: str, hear: str) -> Any:
        count, channels, steps, pitches = pictures.shape
        windows = pictures.reshape(count, channels, together, -1, pitches).transpose(0, 2, 1, 3, 4)
        made = loaded.retell(windows.reshape(-1, channels, steps // together, pitches), {group.name: target}, hear=hear)
        return evaluate.excerpts(made, together)

    learnt = music_of(data.train)
    held = music_of(getattr(data, (arguments.split or ["valid"])[0]))
    which = np.repeat(np.arange(len(learnt)), [len(x) for x in learnt.values()])
    recogniser = evaluate.Recogniser.fit(np.concatenate(list(learnt.values())), which, group.labels)
    samples = {}
    empty = np.zeros((_EXCERPT_BARS, *encoding.roll_bars.shape), np.uint8)  # where a piece ends in silence
    with Progress(len(group.labels), "sampling") as bar:
        for i, name in enumerate(group.labels):
            made = loaded.sample(
                num_samples=_SAMPLES, length=f"{_EXCERPT_BARS} bars", condition={group.name: name}, seed=arguments.seed
            )
            windows = [np.concatenate([encoding.roll_bars.windows(score), empty])[:_EXCERPT_BARS] for score in made]
            samples[name] = evaluate.excerpts(np.concatenate(windows), _EXCERPT_BARS)
            bar.update(i + 1)
    tellings = {hear: functools.partial(told, hear=hear) for hear in encodings.HEARD}
    report = evaluate.style_report(recogniser, held, tellings, samples, seed=arguments.seed)
    print(json.dumps(report, indent=2) if arguments.json else evaluate.format_style(report))
    return DONE


def _named(name: str, error: Exception) -> str:
    """What is wrong with a file; what the message says of its content does not name it."""
    text = _explained(error)[0]
    return text if files.shown(name) in text else f"{files.shown(name)}: {text}"


def _evaluate_audio(arguments: argparse.Namespace, names: Sequence[str]) -> int:
    from musicgen_ext import evaluate

    if len(names) < 2:
        raise Failure("evaluate audio: expected MODEL FILE …", USAGE)
    loaded = _sound_model(names[0])
    told = "score" in loaded.info["conditions"]
    classes = loaded.engine.num_tokens
    rivals: dict[str, Any] = {}
    if arguments.train:
        if loaded.engine.config.output.kind != "mu_law":
            raise Failure("--train: expected a model of mu-law classes, this one draws 16 bits", USAGE)
        with Progress(len(arguments.train), "learning") as bar:
            training = []
            for name in arguments.train:
                try:
                    training.append(loaded.tokens(name))
                except (OSError, ValueError, ImportError) as error:
                    raise Failure(_named(name, error)) from error
                bar.update(len(training))
        rivals["first-order counting"] = evaluate.Counting(training, classes)
        rivals["linear prediction, order 32"] = evaluate.LinearPrediction(training, classes)
    bits: dict[str, list[Any]] = {name: [] for name in (loaded.name, *rivals)}
    failed = samples = 0
    with Progress(len(names) - 1, "listening") as bar:
        for i, name in enumerate(names[1:]):
            try:
                tokens = loaded.tokens(name)
                condition = {"score": read_midi(os.path.splitext(name)[0] + ".mid")} if told else None
                bits[loaded.name].append(loaded.log_prob(tokens, condition=condition))
            except (OSError, ValueError, MemoryError, ImportError) as error:
                if arguments.debug:
                    raise
                failed += 1
                bar.close()
                _say(f"error: {_named(name, error)}")
                continue
            samples += len(tokens)
            for rival, likelihood in rivals.items():
                bits[rival].append(likelihood.log_prob(tokens))
            bar.update(i + 1)
    if samples:
        seconds = samples / loaded.sample_rate
        numbers = {name: evaluate.bits_per_sample(parts) for name, parts in bits.items()}
        if arguments.json:
            print(json.dumps({"seconds": seconds, "bits_per_sample": numbers}, indent=2))
        else:
            print(f"{seconds:.1f} s of sound, bits per sample:")
            print("\n".join(f"  {value:6.3f}  {name}" for name, value in numbers.items()))
    if failed:
        _say(f"{len(names) - 1 - failed} of {len(names) - 1} files read, {failed} failed")
    return BAD_DATA if failed else DONE


def _evaluate_overlap(arguments: argparse.Namespace, names: Sequence[str]) -> int:
    from musicgen_ext import evaluate

    if not names or not arguments.data:
        raise Failure("evaluate overlap: expected MODEL … or FILE …, and --data FILE or FOLDER", USAGE)
    data = _scores_in(arguments.data)
    samples: dict[str, list[Score]] = {}
    files_of: list[Score] = []
    for name in names:
        if name.lower().endswith((".mid", ".midi")) or os.path.isdir(name):
            files_of += _scores_in(name)
            continue
        bars = f"{arguments.bars} bars"
        options: dict[str, Any] = {"temperature": arguments.temperature, "top_p": arguments.top_p}
        made = model.load(name).sample(num_samples=arguments.samples, length=bars, seed=arguments.seed, **options)
        samples[files.shown(name)] = cast("list[Score]", made)
    if files_of:
        samples["files"] = files_of
    report = evaluate.overlap_report(samples, data, bars=arguments.bars, one_key=arguments.one_key, seed=arguments.seed)
    print(json.dumps(report, indent=2) if arguments.json else evaluate.format_overlaps(report))
    return DONE


def _scores_in(path: str) -> list[Score]:
    """A MIDI file, or all of a folder."""
    if not os.path.isdir(path):
        return [read_midi(path)]
    found = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
    found = sorted(name for name in found if name.lower().endswith((".mid", ".midi")))
    if not found:
        raise Failure(f"{files.shown(path)}: expected MIDI files, got none")
    return [read_midi(name) for name in found]


def _evaluate_files(arguments: argparse.Namespace, names: Sequence[str]) -> int:
    from musicgen_ext import evaluate

    pieces = []
    failed = 0
    with Progress(len(names), "reading") as bar:
        for i, name in enumerate(names):
            try:
                voices = read_voices(read_midi(name), files.shown(name))
                pieces.append(
                    evaluate.Piece(
                        voices.pitch.astype(np.int64),
                        voices.onset,
                        position=voices.position.astype(np.int64),
                        bar_length=voices.meter.bar_length,
                        name=files.shown(name),
                    )
                )
            except (OSError, ValueError, MemoryError) as error:
                if arguments.debug:
                    raise
                failed += 1
                bar.close()
                _say(f"error: {_explained(error)[0]}")
            bar.update(i + 1)
    if pieces:
        report = evaluate.report(pieces)
        print(json.dumps(report, indent=2) if arguments.json else evaluate.format_report(report))
    if failed:
        _say(f"{len(pieces)} of {len(names)} files read, {failed} failed")
    return BAD_DATA if failed else DONE


# -- info --------------------------------------------------------------------------------------------------------


def _info(arguments: argparse.Namespace) -> int:
    names: list[str] = arguments.what
    if arguments.plot is not None:
        if not arguments.plot.lower().endswith(_PICTURES):
            raise Failure(f"{files.shown(arguments.plot)}: expected a name in {', '.join(_PICTURES)}", USAGE)
        if len(names) != 1 or not _looks_like_midi(names[0]):
            raise Failure("--plot: expected one MIDI file to draw", USAGE)
        if not arguments.force:
            _refuse_to_overwrite(arguments.plot)
    found: list[dict[str, Any]] = []
    texts: list[str] = []
    if arguments.build or not names:
        found.append(model.build_info())
        texts.append("\n".join(_lines(found[-1])))
    failed = 0
    for name in names:
        try:
            about, text = _score_info(name, arguments.plot) if _looks_like_midi(name) else _model_info(name)
        except (OSError, ValueError, MemoryError) as error:
            if arguments.debug or len(names) == 1:
                raise
            failed += 1
            _say(f"error: {_explained(error)[0]}")
            continue
        found.append(about)
        texts.append(text)
    if arguments.json and found:
        print(json.dumps(found[0] if len(found) == 1 and len(names) < 2 else found, indent=2))
    elif texts:
        print("\n\n".join(texts))
    if failed:
        _say(f"{len(names) - failed} of {len(names)} files read, {failed} failed")
    return BAD_DATA if failed else DONE


def _looks_like_midi(name: str) -> bool:
    if name.lower().endswith(_MIDI):
        return True
    try:
        if not stat.S_ISREG(os.stat(name).st_mode):
            return False
        with open(name, "rb") as stream:
            head = stream.read(12)
            return head[:4] == b"MThd" or (head[:4] == b"RIFF" and head[8:] == b"RMID")
    except OSError:
        return False


def _score_info(name: str, plot: str | None) -> tuple[dict[str, Any], str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MidiWarning)  # the issues are shown
        score = read_midi(name, max_duration=float("inf"))
    if plot is not None:
        _plot(score.plot, plot)
    about = summary.describe(score)
    text = [f"path: {files.shown(name)}", *summary.lines(about)]
    if score.provenance:
        lines = [summary.printable(line, 200) for line in islice(_lines(score.provenance, "  "), _MOST_LINES + 1)]
        more = ["  … (--json shows all)"] if len(lines) > _MOST_LINES else []
        text += ["provenance:", *lines[:_MOST_LINES], *more]
    return {"path": files.shown(name), **about}, "\n".join(text)


def _model_info(name: str) -> tuple[dict[str, Any], str]:
    about = model.load(name).info
    return about, "\n".join(_lines(about))


_MOST_LINES = 60  # of a provenance, which a file may fill with anything
_LONG = {"config"}  # what --json is for


def _lines(value: dict[str, Any], indent: str = "") -> Iterator[str]:
    """A dict as indented lines, one value each."""
    for name, content in value.items():
        if name in _LONG and indent == "":
            yield f"{indent}{name}: {len(content)} keys (--json shows them)"
        elif isinstance(content, dict) and content:
            yield f"{indent}{name}:"
            yield from _lines(content, indent + "  ")
        elif isinstance(content, list) and content and isinstance(content[0], dict | list):
            yield f"{indent}{name}:"
            for entry in content:
                yield f"{indent}  {json.dumps(entry, ensure_ascii=False)}"
        elif isinstance(content, str):
            first, *more = content.splitlines() or [""]
            yield f"{indent}{name}: {first}"
            yield from (f"{indent}  {line}" for line in more)
        else:
            yield f"{indent}{name}: {json.dumps(content, ensure_ascii=False)}"


# -- features ----------------------------------------------------------------------------------------------------


def _no_feature(arguments: argparse.Namespace) -> int:
    raise Failure("features: expected a kind of feature", USAGE)


def _features_roll(arguments: argparse.Namespace) -> int:
    from musicgen_ext import rolls

    names: list[str] = arguments.inputs
    labels = _checked_labels(arguments)
    threshold = 64.0 if arguments.pedal_threshold is None else arguments.pedal_threshold
    found = rolls.piano_rolls(
        names,
        threads=arguments.threads,
        errors="return",
        fs=100.0 if arguments.fs is None else arguments.fs,
        steps_per_beat=arguments.steps_per_beat,
        pedal_threshold=None if arguments.no_pedal else threshold,
        channels=tuple(arguments.channels.split(",")),
        per_track=arguments.per_track,
        drums=arguments.drums,
        binary=arguments.binary,
        packed=arguments.packed,
        dtype=arguments.dtype,
    )
    return _save_arrays(arguments, labels, found, "rolls", lambda roll: _drawn(roll, arguments))


def _features_sound(arguments: argparse.Namespace) -> int:
    from musicgen_ext.features import named

    feature: str = arguments.feature
    given = {option: getattr(arguments, option, None) for option, *_ in _SOUND_OPTIONS}
    options = {option: value for option, value in given.items() if value is not None}
    try:
        checks.integer("sr", arguments.sr)
        named.shape_of(feature, arguments.sr, **options)
    except (TypeError, ValueError) as error:
        raise Failure(str(error), USAGE) from None
    if arguments.store:
        return _store_features(arguments, options)
    for name in ("workers", "shard"):
        if getattr(arguments, name) is not None:
            raise Failure(f"--{name}: expected --store, too", USAGE)
    labels = _checked_labels(arguments)

    def found() -> Iterator[Any]:
        for name in arguments.inputs:
            try:
                sound = read_audio(name, arguments.sr).to_mono()
                yield np.ascontiguousarray(named.compute(feature, sound.y, sound.sr, **options))
            except (OSError, ValueError, ImportError, MemoryError) as error:
                yield error

    def draw(values: Any) -> Any:
        hop = options.get("hop_length", 512)
        return named.plot(feature, values, arguments.sr, hop)

    return _save_arrays(arguments, labels, found(), feature, draw)


def _store_features(arguments: argparse.Namespace, options: dict[str, Any]) -> int:
    from musicgen_ext import extraction

    if arguments.plot is not None:
        raise Failure("--plot: expected no --store, which holds many files", USAGE)
    inputs: list[str] = arguments.inputs
    done = extraction.extract_features(
        inputs[0] if len(inputs) == 1 else inputs,
        arguments.feature,
        out=arguments.output,
        sr=arguments.sr,
        workers=arguments.workers,
        shard=arguments.shard,
        force=arguments.force,
        progress=True,
        **options,
    )
    if not done.files + done.failed and arguments.shard is None:
        names = ", ".join(extraction.AUDIO_SUFFIXES)
        raise Failure(f"{', '.join(map(files.shown, inputs))}: expected files with names in {names}, got none")
    _say_failures(done, "done")
    print(f"{files.shown(done.path)}: {done.frames:,} frames of {done.files:,} files")
    return BAD_DATA if done.failed else DONE


def _checked_labels(arguments: argparse.Namespace) -> list[str]:
    """What the arrays of the input files are called, once it is sure that nothing stands in the way of the outputs."""
    labels = _labels(arguments.inputs)
    is_archive = arguments.output.lower().endswith(".npz")
    targets = [arguments.output] if is_archive else [os.path.join(arguments.output, f"{label}.npy") for label in labels]
    if arguments.plot is not None:
        if not arguments.plot.lower().endswith(_PICTURES):
            raise Failure(f"{files.shown(arguments.plot)}: expected a name in {', '.join(_PICTURES)}", USAGE)
        if len(labels) != 1:
            raise Failure(f"--plot: expected one file to draw, got {len(labels)}", USAGE)
        targets.append(arguments.plot)
    if not arguments.force:
        for target in targets:
            _refuse_to_overwrite(target)
    return labels


def _save_arrays(
    arguments: argparse.Namespace, labels: Sequence[str], found: Iterable[Any], what: str, draw: Callable[[Any], Any]
) -> int:
    """Write what was found for every label, an array or the error in its place, to where `arguments` says."""
    done: list[str] = []

    def good() -> Iterator[tuple[str, Any]]:
        with Progress(len(labels), what) as bar:
            for i, (label, result) in enumerate(zip(labels, found, strict=True)):
                if isinstance(result, Exception):
                    if arguments.debug:
                        raise result
                    bar.close()
                    _say(f"error: {_explained(result)[0]}")
                else:
                    if arguments.plot is not None:
                        _plot(lambda result=result: draw(result), arguments.plot)  # type: ignore[misc]
                    yield label, result
                    done.append(label)
                bar.update(i + 1)
        if not done:
            raise Failure(f"{files.shown(arguments.output)}: not written, none of {len(labels)} files could be read")

    if arguments.output.lower().endswith(".npz"):
        files.replace(arguments.output, _archive(good()))
    else:
        os.makedirs(arguments.output, exist_ok=True)
        for label, array in good():
            files.replace(os.path.join(arguments.output, f"{label}.npy"), _array_file(array))
    print(f"{files.shown(arguments.output)}: {len(done)} {what}")
    if len(done) < len(labels):
        _say(f"{len(done)} of {len(labels)} files done, {len(labels) - len(done)} failed")
        return BAD_DATA
    return DONE


def _labels(names: Sequence[str]) -> list[str]:
    """The names without folder and ending, each made different from those before it."""
    taken: set[str] = set()
    labels = []
    for name in names:
        stem = os.path.splitext(os.path.basename(os.path.normpath(name)))[0]
        label, count = stem, 1
        while label in taken:
            count += 1
            label = f"{stem}-{count}"
        taken.add(label)
        labels.append(label)
    return labels


def _array_file(array: Any) -> Iterator[bytes | memoryview]:
    """The chunks of an .npy file."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
    yield head.getvalue()
    if array.size:
        yield memoryview(array).cast("B")


def _archive(arrays: Iterator[tuple[str, Any]]) -> Iterator[bytes]:
    """The chunks of an .npz file, one array in memory at a time; the same arrays make the same bytes."""
    import zipfile

    class Chunks(io.RawIOBase):
        """What a ZipFile writes to, without looking back."""

        def __init__(self) -> None:
            self.waiting: list[bytes] = []

        def write(self, data: Any) -> int:
            self.waiting.append(bytes(data))
            return len(data)

    chunks = Chunks()
    with zipfile.ZipFile(chunks, "w") as archive:
        for label, array in arrays:
            entry = zipfile.ZipInfo(f"{files.shown(label)}.npy", (1980, 1, 1, 0, 0, 0))
            with archive.open(entry, "w", force_zip64=True) as stream:
                for part in _array_file(array):
                    for begin in range(0, len(part), 1 << 24):
                        stream.write(part[begin : begin + (1 << 24)])
                        yield b"".join(chunks.waiting)
                        chunks.waiting.clear()
    yield b"".join(chunks.waiting)


def _drawn(roll: Any, arguments: argparse.Namespace) -> Any:
    """The first channel and all tracks of a roll on new axes."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError('matplotlib is needed to plot: pip install "musicgen-ext[plot]"') from None
    picture = np.unpackbits(roll, axis=-1) if arguments.packed else roll
    while picture.ndim > 2:
        picture = picture.max(axis=0) if arguments.per_track and picture.ndim == 3 else picture[0]
    width = max(picture.shape[1], 1)
    group = -(-width // 4096)  # columns of a pixel
    if group > 1:
        picture = np.maximum.reduceat(picture, np.arange(0, width, group), axis=1)
    _, axes = plt.subplots(figsize=(min(max(width / 100, 6), 24), 4), layout="constrained")
    unit = 1.0 if arguments.steps_per_beat else arguments.fs or 100.0
    axes.imshow(
        picture, aspect="auto", origin="lower", interpolation="nearest", cmap="Greys",
        extent=(0, width / unit, -0.5, 127.5),
    )  # fmt: skip
    axes.set_xlabel(f"steps, {arguments.steps_per_beat} per beat" if arguments.steps_per_beat else "seconds")
    axes.set_ylabel("pitch")
    return axes


# -- models ------------------------------------------------------------------------------------------------------


def _models(arguments: argparse.Namespace) -> int:
    for name in model.models():
        info = model.load(name).info
        print(f"{name}: {info['arch']}, {info['parameters']:,} parameters, {info['weights']}, {info['bytes']:,} bytes")
    return DONE
