"""The command ``musicgen-ext``: every room of the package from a shell.

Exit codes: 0 done (or the reader of a pipe has gone), 1 bad data, 2 wrong usage, 130 interrupted. A failure is one line
on standard error, ``error: FILE: reason``; ``--debug`` shows the traceback behind it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import stat
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NoReturn, cast

import numpy as np

from musicgen_ext import files, model, summary
from musicgen_ext.encodings import read_voices
from musicgen_ext.errors import MidiWarning, MusicgenExtError
from musicgen_ext.midi import Score, read_midi
from musicgen_ext.progress import Progress

DONE, BAD_DATA, USAGE, INTERRUPTED = 0, 1, 2, 130

_MIDI, _WAV = (".mid", ".midi"), (".wav",)
_PICTURES = (".png", ".svg", ".pdf")
# Arguments of `sample` that are options here: a ValueError about one of them is a matter of usage, not of data.
_OPTIONS = ("temperature", "top_k", "top_p", "seed", "length", "num_samples", "condition", "device")


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
    sample.add_argument("-o", "--output", action="append", metavar="FILE", help=".mid or .wav, or - for MIDI to stdout")
    sample.add_argument("-n", "--num-samples", type=_whole, metavar="N", help="so many pieces, {i} in the names counts")
    sample.add_argument("--length", metavar="LENGTH", help='"16 bars", "64 beats", "30 s", "256 steps"')
    sample.add_argument("--prompt", metavar="FILE", help="four-part MIDI file to continue")
    sample.add_argument("--soprano", metavar="FILE", help="MIDI file whose highest voice is to be harmonised")
    sample.add_argument(
        "-c", "--condition", action="append", default=[], metavar="NAME=VALUE", help="mode=minor, meter=3/4 …"
    )
    sample.add_argument("--temperature", type=float, default=1.0, metavar="T", help="below 1: more predictable (1.0)")
    sample.add_argument("--top-k", type=_whole, metavar="K", help="draw from the K most likely tokens")
    sample.add_argument("--top-p", type=float, default=1.0, metavar="P", help="draw from this much of the probability")
    sample.add_argument("--seed", type=_whole, metavar="SEED", help="the same seed makes the same piece")
    sample.add_argument("--device", default="cpu", help="cpu")
    sample.add_argument("--plot", metavar="FILE", help="piano-roll picture, .png, .svg or .pdf (needs [plot])")
    sample.add_argument("--sr", type=_whole, default=44_100, metavar="HZ", help="sample rate of .wav files (44100)")
    sample.add_argument("--force", action="store_true", help="overwrite files that exist")

    train = command("train", _train, "train a model as a TOML file says (needs [train])")
    train.add_argument("config", metavar="CONFIG.toml")
    train.add_argument("--data", metavar="FILE", help="the data, in place of data.path")
    train.add_argument("-o", "--out", metavar="FOLDER", help="where the run goes, in place of run.out")
    train.add_argument("--seed", type=_whole, metavar="SEED", help="in place of train.seed")
    train.add_argument("--device", default="cpu", help="cpu or cuda")
    train.add_argument("--threads", type=_whole, metavar="N", help="threads of torch on the CPU")
    train.add_argument("--start", metavar="MODEL", help="model file to begin from")
    train.add_argument("--fresh", action="store_true", help="begin anew even if the run has checkpoints")
    train.add_argument("--tensorboard", action="store_true", help="write TensorBoard logs too")

    evaluate = command("evaluate", _evaluate, "measure models on a benchmark, or describe pieces", _EVALUATE)
    evaluate.add_argument("what", nargs="+", metavar="jsb16 [MODEL …] | FILE …")
    evaluate.add_argument("--data", metavar="FILE", help="jsb16_separated.npz or .json")
    evaluate.add_argument("--split", action="append", choices=("valid", "test"), help="valid and test")
    evaluate.add_argument("--json", action="store_true", help="numbers as JSON")

    info = command("info", _info, "what is in a model or a MIDI file, or how this copy was built")
    info.add_argument("what", nargs="*", metavar="MODEL | FILE.mid")
    info.add_argument("--build", action="store_true", help="version, compiler, CPU path, CUDA")
    info.add_argument("--json", action="store_true", help="as JSON: everything, also where the screen shows a part")
    info.add_argument("--plot", metavar="FILE", help="piano-roll picture, .png, .svg or .pdf (needs [plot])")
    info.add_argument("--force", action="store_true", help="overwrite a picture that exists")

    command("models", _models, "list the bundled models")
    return parser


_SAMPLE = """\
Make music with a model.

  musicgen-ext sample -o chorale.mid --seed 7
  musicgen-ext sample -o a.mid -o a.wav --plot a.png -c mode=minor --length "16 bars"
  musicgen-ext sample -n 10 -o "piece-{i}.mid"
  musicgen-ext sample --prompt beginning.mid -o whole.mid
  musicgen-ext sample --soprano tune.mid -o harmonised.mid
"""
_EVALUATE = """\
Measure models on a benchmark, or describe pieces.

  musicgen-ext evaluate jsb16 --data jsb16_separated.npz runs/jsb16/model.safetensors
  musicgen-ext evaluate *.mid

The first prints nats per note of the JSB chorales, beside counting models and published numbers; the second a report
over four-part pieces: ranges, parallels, consonance, note lengths, repetition, endings.
"""


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None


# -- sample ------------------------------------------------------------------------------------------------------


def _sample(arguments: argparse.Namespace) -> int:
    count: int | None = arguments.num_samples
    outputs: list[str] = arguments.output or [
        os.path.basename(arguments.model).removesuffix(".safetensors") + ("" if count is None else "-{i}") + ".mid"
    ]
    targets = [(name, _MIDI + _WAV) for name in outputs if name != "-"]
    if arguments.plot is not None:
        targets.append((arguments.plot, _PICTURES))
    for name, suffixes in targets:
        if not name.lower().endswith(suffixes):
            raise Failure(f"{files.shown(name)}: expected a name in {', '.join(suffixes)}", USAGE)
        if count is not None and "{i}" not in name:
            raise Failure(
                f"{files.shown(name)}: expected {{i}} in the name, it stands for the number of the piece", USAGE
            )
    if count is not None and "-" in outputs:
        raise Failure("-: expected one piece for standard output, not -n", USAGE)
    condition = _condition(arguments.condition)
    if arguments.soprano is not None:
        condition["soprano"] = arguments.soprano
    wanted = range(1 if count is None else max(count, 0))
    if not arguments.force:
        for i in wanted:
            for name, _ in targets:
                _refuse_to_overwrite(_numbered(name, i, count))

    if "soprano" in condition:
        condition["soprano"] = read_midi(condition["soprano"])
    made = model.sample(
        arguments.model,
        num_samples=cast("Any", count),
        length=arguments.length,
        prompt=None if arguments.prompt is None else read_midi(arguments.prompt),
        condition=condition or None,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        seed=arguments.seed,
        device=arguments.device,
        progress=True,
    )
    pieces = [made] if isinstance(made, Score) else made
    notes_to = sys.stderr if "-" in outputs else sys.stdout
    with Progress(len(pieces), "writing", enabled=len(pieces) > 1) as bar:
        for i, piece in enumerate(pieces):
            for issue in piece.provenance.get("issues", []):
                if i == 0:
                    _say(f"warning: {issue}")
            for name in outputs:
                _write(piece, name if name == "-" else _numbered(name, i, count), arguments)
            if arguments.plot is not None:
                _plot(piece, _numbered(arguments.plot, i, count))
            bar.update(i + 1)
    for i, piece in enumerate(pieces):
        names = [_numbered(name, i, count) for name, _ in targets]
        wrote = ", ".join(map(files.shown, names)) if names else "standard output"
        print(
            f"{wrote}: {len(piece.notes)} notes, {piece.end_time:.1f} s, seed {piece.provenance['seed']}", file=notes_to
        )
    return DONE


def _condition(pairs: Sequence[str]) -> dict[str, Any]:
    condition: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise Failure(f"--condition: expected NAME=VALUE, got {pair!r}", USAGE)
        condition[name] = value
    if "pickup" in condition:
        try:
            condition["pickup"] = float(condition["pickup"])
        except ValueError:
            raise Failure(f"--condition pickup: expected a number, got {condition['pickup']!r}", USAGE) from None
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


def _write(piece: Score, name: str, arguments: argparse.Namespace) -> None:
    if name == "-":
        sys.stdout.buffer.write(piece.to_bytes())
        sys.stdout.buffer.flush()
    elif name.lower().endswith(_WAV):
        piece.synthesize(sr=arguments.sr).save(name)
    else:
        piece.save(name)


def _plot(piece: Score, name: str) -> None:
    import io

    with contextlib.suppress(ImportError):  # `plot` says what is missing
        import matplotlib

        matplotlib.use("Agg")  # a picture for a file, whatever windows this machine could open
    axes = piece.plot()
    picture = io.BytesIO()
    figure = axes.figure
    figure.savefig(picture, format=os.path.splitext(name)[1][1:].lower(), dpi=150)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)
    files.replace(name, [picture.getvalue()])


# -- train -------------------------------------------------------------------------------------------------------


def _train(arguments: argparse.Namespace) -> int:
    from musicgen_ext import train

    result, likelihoods = train.run(
        arguments.config,
        data_path=arguments.data,
        out=arguments.out,
        seed=arguments.seed,
        device=arguments.device,
        threads=arguments.threads,
        resume=not arguments.fresh,
        start=arguments.start,
        tensorboard=arguments.tensorboard,
    )
    for split, likelihood in likelihoods.items():
        print(f"{split}: {likelihood.nll:.4f} nats per token ({likelihood.tokens:,} tokens)")
    print(files.shown(result.path))
    return DONE


# -- evaluate ----------------------------------------------------------------------------------------------------


def _evaluate(arguments: argparse.Namespace) -> int:
    if arguments.what[0] == "jsb16":
        return _evaluate_jsb16(arguments, arguments.what[1:])
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
        if loaded.encoding.hold:
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


class _Likelihood:
    """A model as `evaluate_jsb16` wants it: pitches of a piece in, log-probabilities of its tokens out."""

    def __init__(self, loaded: model.Model) -> None:
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
        _plot(score, plot)
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


def _models(arguments: argparse.Namespace) -> int:
    for name in model.models():
        info = model.load(name).info
        print(f"{name}: {info['arch']}, {info['parameters']:,} parameters, {info['weights']}, {info['bytes']:,} bytes")
    return DONE
