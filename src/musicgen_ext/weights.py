"""The one model file: safetensors plus our checks.

A model file is an ordinary safetensors file (https://github.com/huggingface/safetensors, section "Format") whose
metadata holds the strings ``format_version`` ("1"), ``arch``, and as JSON ``config``, ``encoding`` and ``card``.
Nothing in it is code, nothing in it is a path, and nothing outside it is read.

Reading is strict: the header is checked completely before memory is taken for the weights, duplicate keys are refused
(the safetensors library keeps the last one), the tensors must tile the data exactly, and every weight must be finite.
The whole file is copied to memory, so what happens to it afterwards does not matter.
"""

from __future__ import annotations

import json
import os
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, Literal, cast

import numpy as np
import numpy.typing as npt

from musicgen_ext import files
from musicgen_ext.errors import WeightsError

Storage = Literal["float32", "bfloat16", "int8"]
Tensors = dict[str, npt.NDArray[Any]]

FORMAT_VERSION = "1"

# A model of 5 million parameters has a header of a few kB. These bound what a broken file can make us do.
MAX_HEADER_BYTES = 16 << 20
MAX_FILE_BYTES = 8 << 30
MAX_RANK = 8
MAX_NAME_LENGTH = 512

_BYTES_PER_ELEMENT = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I8": 1}
_KEYS = ("format_version", "arch", "config", "encoding", "card")
_STORAGES = ("float32", "bfloat16", "int8")

# What people hand in instead of a model file, by its first bytes, and how to turn it into one.
_EXPORT = (
    "load it with the program that wrote it, put the weights into a module of musicgen_ext.train.models and write the "
    "model file with musicgen_ext.train.export"
)
_FOREIGN: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"PK\x03\x04", "a zip archive (torch .pt, numpy .npz …)", f"nothing was unpacked or unpickled; {_EXPORT}"),
    (0, b"PK\x05\x06", "an empty zip archive", _EXPORT),
    (0, b"\x80\x02", "a Python pickle (old torch .pt, .pkl)", f"nothing was unpickled; {_EXPORT}"),
    (0, b"\x80\x03", "a Python pickle", f"nothing was unpickled; {_EXPORT}"),
    (0, b"\x80\x04", "a Python pickle", f"nothing was unpickled; {_EXPORT}"),
    (0, b"\x80\x05", "a Python pickle", f"nothing was unpickled; {_EXPORT}"),
    (257, b"ustar", "a tar archive", f"nothing in it was extracted; {_EXPORT}"),
    (0, b"\x1f\x8b", "a gzip file", "decompress it first"),
    (0, b"BZh", "a bzip2 file", "decompress it first"),
    (0, b"\xfd7zXZ", "an xz file", "decompress it first"),
    (0, b"\x93NUMPY", "a numpy .npy array", _EXPORT),
    (0, b"\x89HDF\r\n", "an HDF5 file", _EXPORT),
    (0, b"GGUF", "a GGUF model", _EXPORT),
    (0, b"MThd", "a MIDI file", "a model file was expected here, MIDI goes to prompt= or condition="),
    (0, b"RIFF", "a RIFF file (WAV …)", "a model file was expected here"),
    (0, b"version https://git-lfs", "a git-lfs pointer", "fetch the real file with `git lfs pull`"),
)


@dataclass
class ModelFile:
    """A model as the file holds it, checked for form; whether the tensors fit the config is `check_tensors`.

    Attributes
    ----------
    path : str or None
        Where it was read from.
    arch : str
        The architecture, "recurrent" for example.
    config, encoding, card : dict
        What to build, what the tokens mean, and where the weights come from (licence, data, metrics, command …).
    tensors : dict of np.ndarray
        float32, or int8 matrices `X` (rows, ...) with their scales `X.scale` float32 (rows,): ``value = q * scale``.
        bfloat16 matrices are float32 in memory (exactly the same numbers).
    weights : "float32", "bfloat16" or "int8"
        How the matrices are stored.
    """

    path: str | None
    arch: str
    config: dict[str, Any]
    encoding: dict[str, Any]
    card: dict[str, Any]
    tensors: Tensors = field(repr=False)
    weights: Storage = "float32"

    @property
    def num_parameters(self) -> int:
        """Number of weights, the scales of int8 rows not counted."""
        return sum(a.size for name, a in self.tensors.items() if not _is_scale(name, self.tensors))

    @property
    def nbytes(self) -> int:
        """Bytes of the weights as stored in a file."""
        return sum(_stored_size(a, self.weights) for a in self.tensors.values())


# -- reading -----------------------------------------------------------------------------------------------------


def read(path: str | os.PathLike[str]) -> ModelFile:
    """Read a model file, whole, with every check.

    Parameters
    ----------
    path : str or os.PathLike
        A ``.safetensors`` file written by `write` (or `musicgen_ext.train.export`). A symbolic link to one is followed.

    Returns
    -------
    file : ModelFile
        F16, BF16 and F64 weights arrive as float32.

    Raises
    ------
    WeightsError
        The file is not a model file; the message names the file and, where there is one, the tensor.
    OSError
        It cannot be read: `FileNotFoundError`, `IsADirectoryError` …, with ``filename``.
    MemoryError
        It is larger than 8 GiB.
    """
    name = os.fspath(path)
    mode = os.stat(name).st_mode
    if stat.S_ISDIR(mode):
        inside = [n for n in sorted(os.listdir(name)) if n.endswith(".safetensors")][:3]
        hint = f"; in it: {', '.join(map(files.shown, inside))}" if inside else ""
        raise IsADirectoryError(21, f"expected a model file, got a folder{hint}", name)
    if not stat.S_ISREG(mode):  # opening a pipe would wait for ever, a device may never end
        raise WeightsError(f"{files.shown(name)}: expected a regular file, got a device, pipe or socket", path=name)
    try:
        with open(name, "rb", buffering=0) as stream:
            return _read(stream, os.fstat(stream.fileno()).st_size, name)
    except OSError as error:
        error.filename = name
        raise


def parse(data: bytes | bytearray | memoryview, name: str = "model bytes") -> ModelFile:
    """The same as `read` for a model file that is already in memory; `name` stands for the path in messages."""
    import io

    file = _read(io.BytesIO(data), len(data), name)
    file.path = None
    return file


def _read(stream: Any, size: int, path: str) -> ModelFile:
    shown = files.shown(path)

    def wrong(text: str, **details: Any) -> WeightsError:
        return WeightsError(f"{shown}: {text}", path=path, **details)

    head = _read_exactly(stream, min(size, 512))
    _refuse_foreign(head, path, wrong)
    if len(head) < 8:
        raise wrong(f"too short for a model file: expected at least 8 bytes, got {len(head)}")
    (header_length,) = struct.unpack_from("<Q", head)
    if header_length > MAX_HEADER_BYTES:
        raise wrong(f"header length: expected at most {MAX_HEADER_BYTES} bytes, got {header_length}")
    if header_length > size - 8:
        raise wrong(f"truncated: expected a header of {header_length} bytes, got {size - 8} bytes after the length")
    if size > MAX_FILE_BYTES:
        raise MemoryError(f"{shown}: expected a model file of at most {MAX_FILE_BYTES} bytes, got {size}")
    header_bytes = head[8 : 8 + header_length]
    rest = _read_exactly(stream, header_length - len(header_bytes))
    early = head[8 + header_length :]  # data that came along with the first read
    header_bytes += rest
    if len(header_bytes) != header_length:
        raise wrong(f"truncated while it was read: expected a header of {header_length} bytes")

    header = _json(header_bytes, "header", wrong)
    metadata = header.pop("__metadata__", None)
    layout = _layout(header, size - 8 - header_length, wrong)
    values = _metadata(metadata, wrong)

    data = np.empty(size - 8 - header_length, np.uint8)
    data[: len(early)] = np.frombuffer(early, np.uint8)
    if not _read_into(stream, data.data[len(early) :]):
        raise wrong(f"truncated while it was read: expected {size} bytes")
    tensors: Tensors = {}
    for name, (dtype, shape, begin, end) in layout.items():
        tensors[name] = _tensor(data[begin:end], name, dtype, shape, wrong)
    matrices = {dtype for dtype, shape, _, _ in layout.values() if len(shape) >= 2}
    storage: Storage = "float32"
    if "I8" in matrices:
        storage = "int8"
    elif matrices == {"BF16"}:
        storage = "bfloat16"
    return ModelFile(path=path, tensors=tensors, weights=storage, **values)


def _read_exactly(stream: BinaryIO, count: int) -> bytes:
    """Up to `count` bytes; fewer only at the end of the file (a raw read may return less than was asked)."""
    parts = b""
    while len(parts) < count:
        part = stream.read(count - len(parts))
        if not part:
            break
        parts += part
    return parts


def _read_into(stream: Any, view: memoryview) -> bool:
    while len(view):
        count = stream.readinto(view)
        if not count:
            return False
        view = view[count:]
    return True


def _refuse_foreign(head: bytes, path: str, wrong: Any) -> None:
    if head[8:9] == b"{" and head[5:8] == b"\0\0\0":
        return  # a header length below 2^40 and JSON: nothing else looks like this
    for offset, magic, what, advice in _FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            raise wrong(f"expected a model file (.safetensors), got {what}; {advice}")
    if os.fsdecode(path).lower().endswith(".onnx") or (head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x1a", b":")):
        raise wrong(f"expected a model file (.safetensors), got an ONNX model (or another protobuf); {_EXPORT}")


def _json(text: bytes, what: str, wrong: Any) -> dict[str, Any]:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(items)
        if len(built) != len(items):
            seen: set[str] = set()
            for key, _ in items:
                if key in seen:
                    raise wrong(f"{what}: expected distinct keys, got {_short(key)} twice")
                seen.add(key)
        return built

    def constant(name: str) -> Any:
        raise wrong(f"{what}: expected JSON, got {name}, which JSON does not have")

    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise wrong(f"{what}: expected UTF-8, got byte 0x{text[error.start]:02x} at byte {error.start} of it") from None
    try:
        value = json.loads(decoded, object_pairs_hook=pairs, parse_constant=constant)
    except WeightsError:
        raise
    except RecursionError:
        raise wrong(f"{what}: expected JSON of ordinary depth, got one nested too deeply to read") from None
    except ValueError as error:  # JSONDecodeError, and Python's limit on the digits of an integer
        raise wrong(f"{what}: expected JSON, got {_short(decoded[:40])} ({error})") from None
    if not isinstance(value, dict):
        raise wrong(f"{what}: expected a JSON object, got {_short(value)}")
    return value


def _layout(header: Mapping[str, Any], data_bytes: int, wrong: Any) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    """Where every tensor lies, in file order; the tensors must tile the data without holes or overlaps."""
    layout: dict[str, tuple[str, tuple[int, ...], int, int]] = {}
    for name, entry in header.items():
        if not name or not name.isprintable() or len(name) > MAX_NAME_LENGTH:
            raise wrong(
                f"tensor name: expected 1 to {MAX_NAME_LENGTH} printable characters, got {_short(name)}", tensor=name
            )

        def bad(text: str, name: str = name) -> WeightsError:
            return cast("WeightsError", wrong(f"tensor {name!r}: {text}", tensor=name))

        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            got = sorted(entry) if isinstance(entry, dict) else entry
            raise bad(f"expected the keys dtype, shape and data_offsets, got {_short(got)}")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _BYTES_PER_ELEMENT:
            raise bad(f"dtype: expected one of {', '.join(_BYTES_PER_ELEMENT)}, got {_short(dtype)}")
        if not isinstance(shape, list) or len(shape) > MAX_RANK:
            raise bad(f"shape: expected a list of at most {MAX_RANK} sizes, got {_short(shape)}")
        if not all(type(n) is int and n >= 1 for n in shape):
            raise bad(f"shape: expected sizes of at least 1, got {_short(shape)}")
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(n) is int for n in offsets):
            raise bad(f"data_offsets: expected [begin, end], got {_short(offsets)}")
        begin, end = offsets
        if not 0 <= begin <= end <= data_bytes:
            raise bad(f"data_offsets: expected 0 <= begin <= end <= {data_bytes}, got {_short(offsets)}")
        needed = _BYTES_PER_ELEMENT[dtype]
        for n in shape:  # Python's integers do not overflow
            needed *= n
        if needed != end - begin:
            raise bad(f"expected {_short(needed)} bytes for {dtype} {_short(shape)}, got {end - begin}")
        layout[name] = (dtype, tuple(shape), begin, end)
    at = 0
    last = ""
    for name, (_, _, begin, end) in sorted(layout.items(), key=lambda item: item[1][2:]):
        if begin != at:
            what = f"overlaps tensor {last!r}" if begin < at else "leaves a hole before it"
            raise wrong(f"tensor {name!r}: expected to begin at byte {at}, got {begin}: it {what}", tensor=name)
        at, last = end, name
    if at != data_bytes:
        raise wrong(f"trailing bytes: expected {at} bytes of tensors, got {data_bytes}")
    return layout


def _metadata(metadata: Any, wrong: Any) -> dict[str, Any]:
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise wrong(f"metadata: expected an object of strings, got {_short(metadata)}")
    missing = [k for k in _KEYS if k not in metadata]
    unknown = sorted(k for k in metadata if k not in _KEYS)
    if missing == list(_KEYS):
        raise wrong("safetensors, but not a model file of musicgen_ext (no format_version in its metadata); " + _EXPORT)
    if metadata.get("format_version") != FORMAT_VERSION:  # before the keys: another version may have others
        raise wrong(f"format_version: expected {FORMAT_VERSION!r}, got {_short(metadata.get('format_version'))}")
    if missing or unknown:
        raise wrong(f"metadata: expected the keys {list(_KEYS)}, got missing {missing}, unknown {_short(unknown)}")
    arch = metadata["arch"]
    if not arch or not arch.isprintable() or len(arch) > 100:
        raise wrong(f"arch: expected a short name, got {_short(arch)}")
    values: dict[str, Any] = {"arch": arch}
    for key in ("config", "encoding", "card"):
        values[key] = _json(metadata[key].encode("utf-8", "surrogatepass"), key, wrong)
    return values


def _tensor(data: npt.NDArray[np.uint8], name: str, dtype: str, shape: tuple[int, ...], wrong: Any) -> npt.NDArray[Any]:
    def bad(text: str) -> WeightsError:
        return cast("WeightsError", wrong(f"tensor {name!r}: {text}", tensor=name))

    if dtype == "I8":
        quantised = data.view(np.int8).reshape(shape)
        if (quantised == -128).any():  # so that |q| fits int8 too
            raise bad("expected int8 weights in [-127, 127], got -128")
        return quantised
    if dtype == "BF16":
        values = float32_from_bfloat16(data.view("<u2"))
    else:
        given = data.view({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype])
        if not given.flags.aligned:  # the format does not align tensors
            given = given.copy()
        with np.errstate(over="ignore"):
            values = given.astype(np.float32, copy=False)
        if dtype == "F64" and not np.isfinite(values).all() and np.isfinite(given).all():
            raise bad(f"expected numbers within float32, got {float(np.abs(given).max())!r}")
    values = values.reshape(shape)
    _check_finite(values, bad)
    return values


def _check_finite(values: npt.NDArray[np.float32], bad: Any) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        count = int(values.size - np.count_nonzero(finite))
        first = tuple(int(i) for i in np.unravel_index(int(np.argmin(finite)), finite.shape))
        raise bad(f"expected finite weights, got {count} that are NaN or infinite, the first at {list(first)}")


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, int) or value.bit_length() < 256 else "an integer of 77 digits or more"
    return text if len(text) <= 120 else text[:117] + "..."


# -- checking ----------------------------------------------------------------------------------------------------


def check_tensors(file: ModelFile, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Check that `file` holds exactly the tensors of an architecture.

    Parameters
    ----------
    file : ModelFile
    expected : mapping of name to shape
        For example `RecurrentConfig.tensor_shapes()`. An int8 matrix also needs its scales, `X.scale` (rows,).

    Raises
    ------
    WeightsError
        One message with *all* missing and unexpected names, and the expected and found shape of every misfit.
    """
    wanted = dict(expected)
    kinds = dict.fromkeys(wanted, "float32")
    for name, shape in expected.items():
        found = file.tensors.get(name)
        if found is not None and found.dtype == np.int8 and len(shape) >= 2:
            kinds[name] = "int8"
            wanted[name + ".scale"] = shape[:1]
            kinds[name + ".scale"] = "float32"
    missing = [name for name in wanted if name not in file.tensors]
    extra = [name for name in file.tensors if name not in wanted]
    misfits = []
    for name, shape in wanted.items():
        array = file.tensors.get(name)
        if array is not None and (array.shape != tuple(shape) or array.dtype != kinds[name]):
            misfits.append(
                f"{name!r} expected {kinds[name]} {list(shape)}, got {array.dtype} {list(array.shape)}",
            )
    if missing or extra or misfits:
        parts = []
        if missing:
            parts.append(f"missing {missing}")
        if extra:
            parts.append(f"unexpected {extra}")
        if misfits:
            parts.append("misshapen " + ", ".join(misfits))
        name = "model" if file.path is None else files.shown(file.path)
        raise WeightsError(
            f"{name}: tensors do not fit arch {file.arch!r} with this config: " + "; ".join(parts),
            path=file.path,
            tensor=(missing + extra + [m.split("'")[1] for m in misfits])[0],
        )


# -- writing -----------------------------------------------------------------------------------------------------


def write(path: str | os.PathLike[str], file: ModelFile) -> None:
    """Write a model file, whole or not at all (see `musicgen_ext.files.replace`). The same model gives the same bytes.

    Matrices are stored as `file.weights` says; float32 ones are rounded to bfloat16 on the way if it says so, int8 ones
    must be int8 already (see `convert`). One-dimensional tensors are always stored as float32.

    Raises
    ------
    WeightsError
        A tensor is not finite or of another dtype, or a part of the metadata is not JSON. The target is not touched.
    OSError
        The file cannot be written; its old bytes are intact.
    """
    name = os.fspath(path)
    try:
        pieces = list(_serialised(file))
    except WeightsError as error:
        raise WeightsError(f"{files.shown(name)}: {error}", path=name, tensor=getattr(error, "tensor", None)) from None
    files.replace(path, pieces)


def serialize(file: ModelFile) -> bytes:
    """The bytes that `write` would put into the file; `parse` reads them."""
    return b"".join(_serialised(file))


def _serialised(file: ModelFile) -> Iterator[bytes]:
    if file.weights not in _STORAGES:
        raise WeightsError(f"weights: expected one of {list(_STORAGES)}, got {file.weights!r}")
    metadata = {"format_version": FORMAT_VERSION, "arch": file.arch}
    for key in ("config", "encoding", "card"):
        try:
            metadata[key] = json.dumps(getattr(file, key), allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError) as error:
            raise WeightsError(f"{key}: expected what JSON can hold, got {error}") from None
    stored: list[tuple[str, str, npt.NDArray[Any]]] = []
    for name, array in file.tensors.items():
        stored.append((name, *_stored(name, array, file.weights)))
    # Widest elements first, so that every tensor starts at a multiple of its element size.
    stored.sort(key=lambda item: (-item[2].itemsize, item[0]))
    header: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for name, dtype, array in stored:
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        raise WeightsError(f"header: expected at most {MAX_HEADER_BYTES} bytes, got {len(text)}")
    yield struct.pack("<Q", len(text))
    yield text
    for _, _, array in stored:
        yield array.tobytes()


def _stored(name: str, array: npt.NDArray[Any], weights: Storage) -> tuple[str, npt.NDArray[Any]]:
    def bad(text: str) -> WeightsError:
        return WeightsError(f"tensor {name!r}: {text}", tensor=name)

    if not isinstance(array, np.ndarray) or array.dtype not in (np.float32, np.int8):
        raise bad(f"expected a float32 or int8 array, got {getattr(array, 'dtype', type(array).__name__)}")
    if not array.size or array.ndim > MAX_RANK:
        raise bad(f"expected 1 to {MAX_RANK} dimensions of at least 1, got shape {list(array.shape)}")
    if array.dtype == np.int8:
        if weights != "int8":
            raise bad(f"expected {weights} weights, got int8; use weights.convert")
        return "I8", np.ascontiguousarray(array)
    _check_finite(array, bad)
    if weights == "bfloat16" and array.ndim >= 2:
        return "BF16", bfloat16_from_float32(array, name).astype("<u2", copy=False)
    return "F32", np.ascontiguousarray(array, "<f4")


def _stored_size(array: npt.NDArray[Any], weights: Storage) -> int:
    return array.size * 2 if weights == "bfloat16" and array.ndim >= 2 else array.nbytes


# -- precision ---------------------------------------------------------------------------------------------------


def float32_from_bfloat16(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Widen bfloat16 (as uint16 bit patterns, any shape) to float32; exact."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def bfloat16_from_float32(values: npt.NDArray[np.float32], name: str = "values") -> npt.NDArray[np.uint16]:
    """Round finite float32 (any shape) to bfloat16 bit patterns, ties to even.

    Raises
    ------
    WeightsError
        A value would round to infinity (above 3.39e38 in magnitude); `name` stands for the array in the message.
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + (((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF))) >> np.uint32(16)
    if ((rounded & np.uint32(0x7F80)) == np.uint32(0x7F80)).any():
        raise WeightsError(f"tensor {name!r}: expected finite numbers within bfloat16, got {np.abs(values).max()!r}")
    return rounded.astype(np.uint16).reshape(np.shape(values))


def quantize(matrix: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """int8 with one scale a row.

    Parameters
    ----------
    matrix : np.ndarray [shape=(rows, ...)], float32

    Returns
    -------
    q : np.ndarray [the shape of `matrix`], int8 in [-127, 127]
    scale : np.ndarray [shape=(rows,)], float32
        ``max(abs(row)) / 127``, so that ``q * scale`` is within half a scale of the row. A row of zeros has scale 0.
    """
    rows = matrix.reshape(len(matrix), -1)
    scale = (np.abs(rows).max(axis=1) / np.float32(127)).astype(np.float32)
    divisor = np.where(scale > 0, scale, np.float32(1))[:, None]
    return np.clip(np.rint(rows / divisor), -127, 127).astype(np.int8).reshape(matrix.shape), scale


def convert(file: ModelFile, weights: Storage) -> ModelFile:
    """The same model with its matrices in another precision; what has one dimension, biases, stays float32.

    A tensor of more dimensions, of a convolution, is a matrix whose rows are its first.

    From int8 the numbers ``q * scale`` are taken as they are; to bfloat16 they are rounded, ties to even.
    """
    if weights not in _STORAGES:
        raise ValueError(f"weights: expected one of {list(_STORAGES)}, got {weights!r}")
    if weights == file.weights:
        return replace(file)
    tensors: Tensors = {}
    for name, array in file.tensors.items():
        if _is_scale(name, file.tensors):
            continue
        if array.dtype == np.int8:
            scale = file.tensors.get(name + ".scale")
            if array.ndim < 2 or scale is None or scale.shape != array.shape[:1]:
                raise WeightsError(f"tensor {name!r}: expected an int8 matrix with {name + '.scale'!r}", tensor=name)
            array = array.astype(np.float32) * scale.reshape(-1, *(1,) * (array.ndim - 1))
        if array.ndim >= 2 and weights == "int8":
            tensors[name], tensors[name + ".scale"] = quantize(array)
        elif array.ndim >= 2 and weights == "bfloat16":
            tensors[name] = float32_from_bfloat16(bfloat16_from_float32(array, name))
        else:
            tensors[name] = array
    return replace(file, tensors=tensors, weights=weights)


def _is_scale(name: str, tensors: Mapping[str, npt.NDArray[Any]]) -> bool:
    matrix = tensors.get(name.removesuffix(".scale")) if name.endswith(".scale") else None
    return matrix is not None and matrix.dtype == np.int8
