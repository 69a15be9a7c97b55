"""The model file: what is written is read back, safetensors agrees, and no broken file gets through."""

from __future__ import annotations

import io
import json
import os
import pickle
import stat
import struct
import subprocess
import sys
import tarfile
import threading
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from musicgen_ext import files, weights
from musicgen_ext.architectures import RecurrentConfig, WaveNetConfig
from musicgen_ext.errors import WeightsError

METADATA = {"format_version": "1", "arch": "recurrent", "config": "{}", "encoding": "{}", "card": "{}"}


def model_file(storage: weights.Storage = "float32", seed: int = 0) -> weights.ModelFile:
    random = np.random.default_rng(seed)
    tensors = {
        "a.weight": random.normal(size=(5, 7)).astype(np.float32),
        "a.bias": random.normal(size=5).astype(np.float32),
        "b.weight": random.normal(size=(3, 5)).astype(np.float32),
    }
    file = weights.ModelFile(None, "recurrent", {"hidden_size": 5}, {"kind": "x"}, {"licence": "MIT – ©"}, tensors)
    return weights.convert(file, storage)


def raw(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor_bytes(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8), data: bytes = bytes(8)) -> bytes:
    return raw({"__metadata__": METADATA, "x": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}, data)


def refused(data: bytes, tmp_path: Path, *words: str, name: str = "m.safetensors") -> Any:
    """Both doors refuse; the message names file and fault; the error pickles with its attributes."""
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(WeightsError) as caught:
        weights.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    for word in words:
        assert word in message
    with pytest.raises(WeightsError):
        weights.parse(data, name)
    assert vars(pickle.loads(pickle.dumps(caught.value))) == vars(caught.value)
    error: Any = caught.value
    assert error.path == str(path)
    return error


def same(a: weights.ModelFile, b: weights.ModelFile) -> None:
    assert (a.arch, a.config, a.encoding, a.card, a.weights) == (b.arch, b.config, b.encoding, b.card, b.weights)
    assert a.tensors.keys() == b.tensors.keys()
    for name in a.tensors:
        assert a.tensors[name].dtype == b.tensors[name].dtype
        np.testing.assert_array_equal(a.tensors[name], b.tensors[name])


# -- law ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
def test_read_undoes_write(tmp_path: Path, storage: weights.Storage) -> None:
    file = model_file(storage)
    path = tmp_path / "m.safetensors"
    weights.write(path, file)
    again = weights.read(path)
    same(again, file)
    assert again.path == str(path)
    assert again.num_parameters == 5 * 7 + 5 + 3 * 5
    assert path.read_bytes() == weights.serialize(file)
    same(weights.parse(path.read_bytes()), file)
    assert sorted(os.listdir(tmp_path)) == ["m.safetensors"]


def test_bytes_do_not_depend_on_the_order_of_tensors() -> None:
    file = model_file()
    shuffled = model_file()
    shuffled.tensors = dict(reversed(list(file.tensors.items())))
    assert weights.serialize(file) == weights.serialize(shuffled)


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_safetensors_library_agrees(tmp_path: Path, storage: weights.Storage) -> None:
    file = model_file(storage)
    path = tmp_path / "m.safetensors"
    weights.write(path, file)
    theirs = safetensors.numpy.load_file(path)
    assert theirs.keys() == file.tensors.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(array, file.tensors[name])
    with safetensors.safe_open(path, framework="numpy") as opened:
        metadata = opened.metadata()
    assert sorted(metadata) == ["arch", "card", "config", "encoding", "format_version"]
    assert json.loads(metadata["card"]) == file.card


def test_safetensors_library_agrees_on_bfloat16() -> None:
    file = model_file("bfloat16")
    entries = dict(safetensors.deserialize(weights.serialize(file)))
    assert entries["a.weight"]["dtype"] == "BF16"
    assert entries["a.weight"]["shape"] == [5, 7]
    bits = np.frombuffer(bytes(entries["a.weight"]["data"]), "<u2").reshape(5, 7)
    np.testing.assert_array_equal(weights.float32_from_bfloat16(bits), file.tensors["a.weight"])
    assert entries["a.bias"]["dtype"] == "F32"


def test_file_of_the_safetensors_library_is_read(tmp_path: Path) -> None:
    file = model_file()
    path = tmp_path / "theirs.safetensors"
    metadata = {**METADATA, "config": json.dumps(file.config), "encoding": json.dumps(file.encoding)}
    safetensors.numpy.save_file(file.tensors, path, metadata={**metadata, "card": json.dumps(file.card)})
    same(weights.read(path), file)


def test_bfloat16_rounds_to_nearest_even_like_torch() -> None:
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(1)
    bits = random.integers(0, 1 << 32, 200_000, dtype=np.uint64).astype(np.uint32)
    bits[:4] = [0x3F808000, 0x3F818000, 0x00000001, 0x80008000]  # ties, the smallest denormal, a negative tie
    values = bits.view(np.float32)
    values = values[np.isfinite(values) & (np.abs(values) < 3.38e38)]
    expected = torch.from_numpy(values).to(torch.bfloat16)
    ours = weights.bfloat16_from_float32(values)
    np.testing.assert_array_equal(ours, expected.view(torch.int16).numpy().view(np.uint16))
    np.testing.assert_array_equal(weights.float32_from_bfloat16(ours), expected.float().numpy())


def test_bfloat16_refuses_what_rounds_to_infinity() -> None:
    with pytest.raises(WeightsError, match="within bfloat16"):
        weights.bfloat16_from_float32(np.array([3.4e38], np.float32))


def test_every_bfloat16_survives_widening() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    finite = bits[(bits & 0x7F80) != 0x7F80]
    np.testing.assert_array_equal(weights.bfloat16_from_float32(weights.float32_from_bfloat16(finite)), finite)


def test_int8_is_within_half_a_scale() -> None:
    random = np.random.default_rng(2)
    matrix = (random.normal(size=(40, 33)) * np.exp(random.normal(size=(40, 1)) * 4)).astype(np.float32)
    matrix[7] = 0
    matrix[8] = 1e-45  # the scale underflows
    q, scale = weights.quantize(matrix)
    assert q.dtype == np.int8
    assert scale.dtype == np.float32
    assert np.abs(q.astype(int)).max() == 127
    np.testing.assert_allclose(scale[9:], np.abs(matrix[9:]).max(1) / 127, rtol=1e-6)
    # Half a scale, plus the rounding of scale and quotient: two operations of relative error eps/2 on |q| <= 127.
    slack = 127 * 2 * np.finfo(np.float32).eps
    assert (np.abs(q * scale[:, None] - matrix) <= scale[:, None] * (0.5 + slack) + 1e-44).all()
    assert not q[7:9].any()


@pytest.mark.parametrize("start", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("end", ["float32", "bfloat16", "int8"])
def test_convert(start: weights.Storage, end: weights.Storage) -> None:
    before = model_file(start)
    after = weights.convert(before, end)
    assert after.weights == end
    exact = weights.convert(before, "float32").tensors
    for name in ("a.weight", "b.weight"):
        if end == "int8":
            assert after.tensors[name].dtype == np.int8
            assert after.tensors[name + ".scale"].shape == exact[name].shape[:1]
        tolerance = {"float32": 0.0, "bfloat16": 2.0**-8, "int8": 0.5 / 127 * 1.001}[end]
        got = weights.convert(after, "float32").tensors[name]
        worst = np.abs(got - exact[name]).max(axis=1) / np.abs(exact[name]).max(axis=1)
        assert (worst <= tolerance).all()
    np.testing.assert_array_equal(after.tensors["a.bias"], before.tensors["a.bias"])
    data = weights.serialize(after)
    same(weights.parse(data), after)
    assert after.nbytes == len(data) - 8 - struct.unpack_from("<Q", data)[0]


def test_convert_refuses_another_precision() -> None:
    with pytest.raises(ValueError, match=r"expected one of .*float16"):
        weights.convert(model_file(), "float16")  # type: ignore[arg-type]


# -- reading: every broken file is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["at least 8 bytes", "got 0"]),
        (b"1234567", ["at least 8 bytes", "got 7"]),
        (struct.pack("<Q", 1 << 63) + b"{}", ["header length", str(1 << 63)]),
        (struct.pack("<Q", 200_000_000) + b"{}", ["header length", "200000000", str(weights.MAX_HEADER_BYTES)]),
        (struct.pack("<Q", 100) + b"{}", ["truncated", "header of 100 bytes", "got 2"]),
    ],
    ids=["empty", "7 bytes", "2^63", "200 MB", "past the end"],
)
def test_R28_header_length(data: bytes, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        weights.parse(b"")  # whatever is set up at the first call is set up now
    tracemalloc.start()
    try:
        refused(data, tmp_path, *words)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20  # nothing was taken on the word of the file


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b'{"\xff": 1}', ["UTF-8", "0xff"]),
        (b"hello", ["expected JSON"]),
        (b"[1]", ["JSON object"]),
        (b'{"x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", ["nested too deep"]),
        (b'{"x":' * 200_000 + b"1" + b"}" * 200_000, ["nested too deep"]),
        (b'{"a": 1, "a": 2}', ["distinct keys", "'a' twice"]),
        (b'{"x": NaN}', ["NaN"]),
        (b'{"x": ' + b"9" * 5000 + b"}", ["expected JSON"]),
        (b'{1: "x"}', ["expected JSON"]),
        (b'{"x": {"dtype": "F32", "shape": [], "data_offsets": [0, 0], "extra": 1}}', ["'x'", "keys", "extra"]),
        (b'{"x": 5}', ["'x'", "got 5"]),
        (b'{"": {"dtype": "F32", "shape": [], "data_offsets": [0, 0]}}', ["tensor name"]),
        (b'{"\\ud800": {"dtype": "F32", "shape": [], "data_offsets": [0, 0]}}', ["tensor name"]),
        (b'{"__metadata__": {"format_version": 1}}', ["metadata", "strings"]),
        (b'{"__metadata__": []}', ["metadata", "strings"]),
    ],
    ids=range(15),
)
def test_R29_header_text(header: bytes, words: list[str], tmp_path: Path) -> None:
    refused(raw(header), tmp_path, *words)


@pytest.mark.parametrize("key", ["config", "encoding", "card"])
@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[]", "JSON object"),
        ("{", "expected JSON"),
        ('{"a":' + "[" * 100_000, "nested too deep"),
        ('{"a": 1, "a": 2}', "twice"),
        ('{"a": Infinity}', "Infinity"),
        ("\ud800", "UTF-8"),
    ],
    ids=range(6),
)
def test_R29_metadata_text(key: str, text: str, word: str, tmp_path: Path) -> None:
    refused(raw({"__metadata__": {**METADATA, key: text}}), tmp_path, key, word)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format_version": "2"}, ["format_version", "'1'", "'2'"]),
        ({"format_version": None}, ["format_version"]),
        ({"colour": "red"}, ["unknown ['colour']"]),
        ({"card": None}, ["missing ['card']"]),
        ({"arch": ""}, ["arch"]),
        ({"arch": "a\nb"}, ["arch"]),
        (dict.fromkeys(METADATA), ["not a model file of musicgen_ext", "export"]),
    ],
)
def test_R29_metadata_keys(change: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    metadata = {k: v for k, v in {**METADATA, **change}.items() if v is not None}
    refused(raw({"__metadata__": metadata}), tmp_path, *words)


@pytest.mark.parametrize(
    ("shape", "offsets", "words"),
    [
        ([1 << 32, 1 << 32], [0, 0], ["expected 73786976294838206464 bytes"]),  # 2^66: 0 in 64 bits
        ([10**4000] * 8, [0, 8], ["bytes for F32"]),
        ([-2, -1], [0, 8], ["at least 1"]),
        ([0, 2], [0, 0], ["at least 1"]),
        ([2.0], [0, 8], ["at least 1"]),
        ([True, 2], [0, 8], ["at least 1"]),
        ([1] * 8 + [2], [0, 8], ["at most 8"]),
        ("22", [0, 8], ["list"]),
        ([3], [0, 8], ["expected 12 bytes", "got 8"]),
        ([1], [0, 8], ["expected 4 bytes", "got 8"]),
    ],
    ids=range(10),
)
def test_R30_shapes(shape: Any, offsets: list[int], words: list[str], tmp_path: Path) -> None:
    error = refused(tensor_bytes("F32", shape, offsets), tmp_path, "tensor 'x'", *words)
    assert error.tensor == "x"


def two_tensors(first: list[int], second: list[int], data: int) -> bytes:
    entry = {"dtype": "I8"}
    sized = [{**entry, "shape": [max(b - a, 1)], "data_offsets": [a, b]} for a, b in (first, second)]
    return raw({"__metadata__": METADATA, "x": sized[0], "y": sized[1]}, bytes(data))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tensor_bytes(offsets=[8, 0]), ["'x'", "begin <= end"]),
        (tensor_bytes(offsets=[-8, 0]), ["'x'", "0 <= begin"]),
        (tensor_bytes(offsets=[0, 8], data=bytes(7)), ["'x'", "<= 7"]),
        (tensor_bytes(offsets=[0, 1 << 64]), ["'x'", "<= 8"]),
        (tensor_bytes(offsets=[0]), ["'x'", "[begin, end]"]),
        (tensor_bytes(offsets=[0, "8"]), ["'x'", "[begin, end]"]),
        (tensor_bytes(data=bytes(9)), ["trailing bytes", "8", "got 9"]),
        (raw({"__metadata__": METADATA}, b"x"), ["trailing bytes"]),
        (two_tensors([0, 4], [3, 7], 7), ["'y'", "overlaps tensor 'x'"]),
        (two_tensors([0, 4], [5, 7], 7), ["'y'", "hole"]),
        (two_tensors([1, 4], [4, 7], 7), ["'x'", "hole"]),
        (two_tensors([0, 4], [0, 4], 4), ["'y'", "overlaps"]),
    ],
    ids=range(12),
)
def test_R31_offsets(data: bytes, words: list[str], tmp_path: Path) -> None:
    refused(data, tmp_path, *words)


def test_R31_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = weights.serialize(model_file("int8"))
    for length in range(len(whole)):
        with pytest.raises(WeightsError):
            weights.parse(whole[:length])
    refused(whole + b"\0", tmp_path, "trailing")


def test_R31_a_damaged_byte_raises_weights_error_or_nothing() -> None:
    """Whatever a damaged byte does, it ends in a `WeightsError` or in tensors of the stated form."""
    whole = bytearray(weights.serialize(model_file()))
    random = np.random.default_rng(3)
    survived = 0
    for _ in range(3000):
        broken = whole.copy()
        for at in random.integers(0, len(whole), random.integers(1, 4)):
            broken[at] ^= 1 << int(random.integers(8))
        try:
            file = weights.parse(bytes(broken))
        except WeightsError:
            continue
        survived += 1
        assert all(np.isfinite(a).all() for a in file.tensors.values())
    assert 0 < survived < 3000


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("F16", np.array([1.5, -2.25], np.float16)),
        ("F64", np.array([0.1, -2.5], np.float64)),
        ("BF16", np.array([0x3FC0, 0xC010], np.uint16)),
    ],
)
def test_R32_other_floats_convert(dtype: str, values: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(tensor_bytes(dtype, [2], [0, values.nbytes], values.tobytes()))
    got = weights.read(path).tensors["x"]
    assert got.dtype == np.float32
    expected = [1.5, -2.25] if dtype == "BF16" else values.astype(np.float32)
    np.testing.assert_array_equal(got, expected)


def test_R32_float64_beyond_float32(tmp_path: Path) -> None:
    refused(tensor_bytes("F64", [1], [0, 8], np.float64(1e300).tobytes()), tmp_path, "'x'", "float32", "1e+300")


@pytest.mark.parametrize("dtype", ["I16", "I32", "I64", "U8", "BOOL", "F8_E4M3", "C64", "float32", 5, None, ["F32"]])
def test_R32_other_dtypes_are_refused(dtype: Any, tmp_path: Path) -> None:
    refused(tensor_bytes(dtype), tmp_path, "tensor 'x'", "dtype", "F64, F32, F16, BF16, I8")


def test_R32_a_matrix_that_is_not_aligned_is_read() -> None:
    values = np.array([[1, 2], [3, 4]], np.float32)
    header = {
        "__metadata__": METADATA,
        "q": {"dtype": "I8", "shape": [1], "data_offsets": [0, 1]},
        "x": {"dtype": "F32", "shape": [2, 2], "data_offsets": [1, 17]},
    }
    file = weights.parse(raw(header, b"\x05" + values.tobytes()))
    np.testing.assert_array_equal(file.tensors["x"], values)
    assert file.tensors["x"].flags.aligned


def test_R32_check_tensors_lists_everything() -> None:
    config = RecurrentConfig.language_model("gru", vocab_size=9, embedding_size=3, hidden_size=4, num_layers=2)
    shapes = config.tensor_shapes()
    tensors: weights.Tensors = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    file = weights.ModelFile("m.safetensors", "recurrent", config.to_dict(), {}, {}, tensors)
    for storage in ("float32", "bfloat16", "int8"):
        weights.check_tensors(weights.convert(file, storage), shapes)  # type: ignore[arg-type]

    del tensors["rnn.bias_ih_l0"], tensors["rnn.bias_hh_l1"]
    tensors["rnn.weight_hh_l0"] = np.ones((4, 12), np.float32)
    tensors["head.token.output.bias"] = np.ones((9,), np.int8)
    tensors["../../etc/passwd"] = np.ones((1,), np.float32)
    tensors["stranger"] = np.ones((1,), np.float32)
    with pytest.raises(WeightsError) as caught:
        weights.check_tensors(file, shapes)
    message = str(caught.value)
    assert "missing ['rnn.bias_ih_l0', 'rnn.bias_hh_l1']" in message
    assert "unexpected ['../../etc/passwd', 'stranger']" in message
    assert "'rnn.weight_hh_l0' expected float32 [12, 4], got float32 [4, 12]" in message
    assert "'head.token.output.bias' expected float32 [9], got int8 [9]" in message


def test_R32_an_int8_matrix_needs_its_scales() -> None:
    file = model_file("int8")
    shapes: dict[str, tuple[int, ...]] = {"a.weight": (5, 7), "a.bias": (5,), "b.weight": (3, 5)}
    weights.check_tensors(file, shapes)
    del file.tensors["a.weight.scale"]
    file.tensors["b.weight.scale"] = np.ones(4, np.float32)
    with pytest.raises(WeightsError, match=r"missing \['a.weight.scale'\].*'b.weight.scale' expected float32 \[3\]"):
        weights.check_tensors(file, shapes)
    with pytest.raises(WeightsError, match=r"expected an int8 matrix with 'a.weight.scale'"):
        weights.convert(file, "float32")


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("F32", np.array([1, np.nan], np.float32)),
        ("F32", np.array([1, -np.inf], np.float32)),
        ("F16", np.array([1, np.inf], np.float16)),
        ("F64", np.array([1, np.nan], np.float64)),
        ("BF16", np.array([0x3F80, 0x7F80], np.uint16)),
        ("BF16", np.array([0x3F80, 0x7FC1], np.uint16)),
    ],
)
def test_R33_nan_and_infinity(dtype: str, values: Any, tmp_path: Path) -> None:
    data = tensor_bytes(dtype, [2], [0, values.nbytes], values.tobytes())
    refused(data, tmp_path, "tensor 'x'", "finite", "got 1", "[1]")


def test_R33_int8_minus_128(tmp_path: Path) -> None:
    refused(tensor_bytes("I8", [8], [0, 8], b"\x80" * 8), tmp_path, "tensor 'x'", "[-127, 127]")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"num_layers": 10**9}, "64"),
        ({"num_layers": 0}, "num_layers"),
        ({"hidden_size": 10**9}, "16384"),
        ({"hidden_size": 1e3}, "hidden_size"),
        ({"cell": "transformer"}, "cell"),
        ({"match_window": 0}, "match_window"),
        ({"surprise": 1}, "surprise"),
        ({"slots": [{"name": "token", "size": 10**12}]}, "size"),
        ({"slots": [{"name": "token", "size": 4, "hold": 4}]}, "hold"),
    ],
)
def test_R33_config_limits(change: dict[str, Any], word: str) -> None:
    config = RecurrentConfig.language_model("gru", vocab_size=9, embedding_size=3, hidden_size=4, num_layers=2)
    with pytest.raises(WeightsError, match=word):
        RecurrentConfig.from_dict({**config.to_dict(), **change})


WAVENET: dict[str, Any] = {
    "sample_rate": 16000, "residual_channels": 6, "skip_channels": 5, "hidden_channels": 4, "dilations": [1, 2, 4],
    "kernel_size": 3, "output": {"kind": "mu_law", "classes": 16},
    "condition": {"channels": 7, "width": 3, "kernel_size": 5, "hop_length": 80},
}  # fmt: skip


def wavenet_file(storage: weights.Storage = "float32", **changes: Any) -> weights.ModelFile:
    config = WaveNetConfig.from_dict({**WAVENET, **changes})
    random = np.random.default_rng(5)
    tensors = {name: random.normal(size=shape).astype(np.float32) for name, shape in config.tensor_shapes().items()}
    return weights.convert(weights.ModelFile(None, "wavenet", config.to_dict(), {}, {}, tensors), storage)


@pytest.mark.parametrize("output", [{"kind": "mu_law", "classes": 16}, {"kind": "logistics", "mixtures": 2}])
@pytest.mark.parametrize("told", [True, False])
def test_a_wavenet_has_the_tensors_of_its_config(output: dict[str, Any], told: bool) -> None:
    condition = WAVENET["condition"] if told else None
    config = WaveNetConfig.from_dict({**WAVENET, "output": output, "condition": condition})
    assert WaveNetConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.num_layers == 3
    assert config.receptive_field == 1 + 2 * 7
    assert config.frames(801) == (11 if told else 0)
    # Counted by hand: gates, residuals of all layers but the last, skip, hidden, the two ends, the condition's parts.
    rows = 16 if output["kind"] == "mu_law" else 6
    first = 16 * 6 if output["kind"] == "mu_law" else 2 * 6
    expected = 3 * (12 * 6 * 3 + 12) + 2 * (36 + 6) + (5 * 18 + 5) + (4 * 5 + 4) + (rows * 4 + rows) + first
    expected += (3 * 7 * 5 + 3 + 3 * 12 * 3) if told else 0
    assert config.num_parameters() == expected


def test_the_rows_of_a_convolution_are_quantised_like_those_of_a_matrix() -> None:
    exact, packed = wavenet_file(), wavenet_file("int8")
    shapes = WaveNetConfig.from_dict(WAVENET).tensor_shapes()
    weights.check_tensors(packed, shapes)
    data = weights.serialize(packed)
    same(weights.parse(data), packed)
    assert packed.nbytes == len(data) - 8 - struct.unpack_from("<Q", data)[0]
    assert packed.num_parameters == exact.num_parameters == WaveNetConfig.from_dict(WAVENET).num_parameters()
    for name, shape in shapes.items():
        if len(shape) == 3:
            assert packed.tensors[name].dtype == np.int8
            q, scale = weights.quantize(exact.tensors[name].reshape(shape[0], -1))
            np.testing.assert_array_equal(packed.tensors[name], q.reshape(shape))
            np.testing.assert_array_equal(packed.tensors[name + ".scale"], scale)
            back = weights.convert(packed, "float32").tensors[name]
            np.testing.assert_array_equal(back.reshape(shape[0], -1), q.astype(np.float32) * scale[:, None])
    rounded = wavenet_file("bfloat16")
    same(weights.parse(weights.serialize(rounded)), rounded)
    assert weights.parse(weights.serialize(rounded)).weights == "bfloat16"


def test_R32_a_wavenet_without_its_tensors() -> None:
    file = wavenet_file()
    shapes = WaveNetConfig.from_dict(WAVENET).tensor_shapes()
    del file.tensors["layers.1.gate.weight"]
    file.tensors["layers.2.residual.weight"] = np.ones((6, 6), np.float32)  # the last layer has none
    file.tensors["skip.weight"] = np.ones((5, 6), np.float32)
    with pytest.raises(WeightsError) as caught:
        weights.check_tensors(file, shapes)
    message = str(caught.value)
    assert "missing ['layers.1.gate.weight']" in message
    assert "unexpected ['layers.2.residual.weight']" in message
    assert "'skip.weight' expected float32 [5, 18], got float32 [5, 6]" in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sample_rate": 0}, ["config.sample_rate", "[1, 384000]", "got 0"]),
        ({"sample_rate": 16000.0}, ["config.sample_rate", "16000.0"]),
        ({"residual_channels": 10**9}, ["config.residual_channels", str(10**9)]),
        ({"skip_channels": 0}, ["config.skip_channels"]),
        ({"hidden_channels": True}, ["config.hidden_channels", "True"]),
        ({"dilations": []}, ["config.dilations", "1 to 256 entries", "0 entries"]),
        ({"dilations": [1] * 257}, ["config.dilations", "257 entries"]),
        ({"dilations": 10**9}, ["config.dilations", str(10**9)]),
        ({"dilations": [1, 0]}, ["config.dilations[1]", "got 0"]),
        ({"dilations": [1, -2]}, ["config.dilations[1]", "got -2"]),
        ({"dilations": [1 << 40]}, ["config.dilations[0]", str(1 << 40)]),
        ({"dilations": [1 << 16] * 100, "residual_channels": 2048}, ["queues", str(2 * 6553600 * 2048)]),
        ({"kernel_size": 0}, ["config.kernel_size", "[2, 3]", "got 0"]),
        ({"kernel_size": 4}, ["config.kernel_size", "got 4"]),
        ({"output": {"kind": "mu_law", "classes": 1}}, ["config.output.classes", "got 1"]),
        ({"output": {"kind": "mu_law", "mixtures": 3}}, ["config.output", "mixtures"]),
        ({"output": {"kind": "logistics", "mixtures": 0}}, ["config.output.mixtures", "got 0"]),
        ({"output": {"kind": "gauss"}}, ["config.output.kind", "'gauss'", "logistics"]),
        ({"output": None}, ["config.output.kind"]),
        ({"output": "mu_law"}, ["config.output"]),
        ({"condition": {}}, ["config.condition.kernel_size"]),
        ({"condition": 5}, ["config.condition", "int"]),
        ({"condition": {**WAVENET["condition"], "kernel_size": 4}}, ["config.condition.kernel_size", "odd", "4"]),
        ({"condition": {**WAVENET["condition"], "hop_length": 0}}, ["config.condition.hop_length"]),
        ({"condition": {**WAVENET["condition"], "channels": 1 << 30}}, ["config.condition.channels"]),
        ({"condition": {**WAVENET["condition"], "colour": 1}}, ["config.condition", "colour"]),
        ({"surprise": 1}, ["config", "surprise"]),
    ],
    ids=range(27),
)  # fmt: skip
def test_R33_wavenet_config_limits(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(WeightsError) as caught:
        WaveNetConfig.from_dict({**WAVENET, **change})
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("key", ["sample_rate", "residual_channels", "skip_channels", "hidden_channels", "dilations"])
def test_R33_wavenet_config_without_a_key(key: str) -> None:
    with pytest.raises(WeightsError, match=key):
        WaveNetConfig.from_dict({k: v for k, v in WAVENET.items() if k != key})


# -- strangers ---------------------------------------------------------------------------------------------------


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("exploded",)


def strangers() -> dict[str, tuple[bytes, str]]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("../escaped", "x")
        opened.writestr("archive/data.pkl", pickle.dumps(Bomb()))
    tape = io.BytesIO()
    with tarfile.open(fileobj=tape, mode="w") as opened_tar:
        link = tarfile.TarInfo("/etc/link")
        link.type = tarfile.SYMTYPE
        link.linkname = "/etc/passwd"
        opened_tar.addfile(link)
    arrays = io.BytesIO()
    np.savez(arrays, x=np.zeros(3))
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    return {
        "model.pt": (archive.getvalue(), "zip archive"),
        "old.pt": (pickle.dumps(Bomb(), 2), "pickle"),
        "new.pkl": (pickle.dumps(Bomb(), 5), "pickle"),
        "weights.npz": (arrays.getvalue(), "zip archive"),
        "weights.npy": (array.getvalue(), ".npy"),
        "model.tar": (tape.getvalue(), "tar archive"),
        "model.onnx": (b"\x08\x07\x12\x07pytorch" + bytes(20), "ONNX"),
        "renamed.safetensors": (b"\x08\x07\x12\x07pytorch" + bytes(20), "ONNX"),
        "model.gz": (b"\x1f\x8b\x08" + bytes(20), "gzip"),
        "song.mid": (b"MThd" + bytes(20), "MIDI"),
        "model.h5": (b"\x89HDF\r\n\x1a\n" + bytes(20), "HDF5"),
    }


@pytest.mark.parametrize("name", list(strangers()))
def test_R34_foreign_files_are_refused_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data, what = strangers()[name]
    error = refused(data, tmp_path, "expected a model file", what, name=name)
    assert name == "song.mid" or "export" in str(error) or "decompress" in str(error)
    assert os.listdir(tmp_path) == [name]  # nothing exploded, escaped or was extracted


def test_R34_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to("/etc/passwd")
    with pytest.raises(IsADirectoryError, match=r"expected a model file, got a folder; in it: model\.safetensors") as e:
        weights.read(tmp_path)
    assert e.value.filename == str(tmp_path)


def test_R34_missing_pipe_device(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        weights.read(tmp_path / "none.safetensors")
    assert caught.value.filename == str(tmp_path / "none.safetensors")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(WeightsError, match="regular file"):
            weights.read(tmp_path / "pipe")
    if os.path.exists("/dev/zero"):
        with pytest.raises(WeightsError, match="regular file"):
            weights.read("/dev/zero")


def test_R34_odd_file_names_stay_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a\nb\x1b[31m.safetensors"
    path.write_bytes(b"")
    with pytest.raises(WeightsError) as caught:
        weights.read(path)
    assert str(caught.value).isprintable()


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    with open(path, "wb") as stream:
        stream.write(raw({"__metadata__": METADATA}))
        try:
            stream.truncate(1 << 40)  # sparse
        except OSError:
            pytest.skip("this file system has no sparse files of 1 TiB")
    with pytest.raises(MemoryError, match=f"{weights.MAX_FILE_BYTES} bytes, got {1 << 40}"):
        weights.read(path)


# -- files that change, writes that fail -------------------------------------------------------------------------


def test_R35_what_is_loaded_does_not_follow_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    weights.write(path, model_file())
    loaded = weights.read(path)
    with open(path, "r+b") as stream:  # overwritten in place, then cut, then removed
        stream.write(b"\xff" * 400)
        stream.truncate(10)
    path.unlink()
    same(loaded, model_file())


def test_R35_saving_onto_the_file_just_loaded(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    weights.write(path, model_file())
    loaded = weights.read(path)
    weights.write(path, weights.convert(loaded, "int8"))
    same(weights.read(path), model_file("int8"))
    same(loaded, model_file())
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_R35_a_link_is_followed_and_the_mode_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "real.safetensors"
    weights.write(path, model_file())
    path.chmod(0o600)
    link = tmp_path / "link.safetensors"
    link.symlink_to(path)
    weights.write(link, model_file("int8"))
    assert link.is_symlink()
    assert weights.read(path).weights == "int8"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_R35_a_reader_sees_old_or_new_and_writers_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    weights.write(path, model_file("float32"))
    stop = threading.Event()
    written = [0, 0]
    other: list[BaseException] = []

    def write_often(index: int, storage: weights.Storage) -> None:
        while not stop.is_set():
            try:
                weights.write(path, model_file(storage))
                written[index] += 1
            except OSError as error:
                if "another process is writing" not in str(error):
                    other.append(error)

    threads = [
        threading.Thread(target=write_often, args=(0, "int8")),
        threading.Thread(target=write_often, args=(1, "bfloat16")),
    ]
    for thread in threads:
        thread.start()
    try:
        deadline = time.monotonic() + 60
        reads = 0
        while reads < 100 or not (all(written) or time.monotonic() > deadline):  # each writer has had its turn, too
            file = weights.read(path)
            same(file, model_file(file.weights))
            reads += 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert all(written)
    assert not other


@pytest.mark.parametrize("point", ["fsync", "replace", "ftruncate"])
def test_R45_a_failed_write_leaves_the_old_bytes(point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    weights.write(path, model_file())
    before = path.read_bytes()

    def fails(*_: Any) -> None:
        raise OSError(28, "No space left on device", "somewhere else")

    with monkeypatch.context() as patch:
        patch.setattr(os, point, fails)
        with pytest.raises(OSError, match="No space left") as caught:
            weights.write(path, model_file("int8"))
    assert caught.value.filename == str(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_R45_interrupted_while_writing(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"old")

    def chunks() -> Any:
        yield b"half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.replace(path, chunks())
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["m.safetensors"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_R45_a_full_device() -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        weights.write("/dev/full", model_file())
    assert caught.value.filename == "/dev/full"
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)  # not replaced by a file


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_R45_a_write_cut_in_the_middle(tmp_path: Path) -> None:
    """A limit on the file size fails the write in the middle of the data, as a full disk would."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"old")
    code = (
        "import resource, signal, sys\n"
        "from musicgen_ext import files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "try:\n"
        "    files.replace(sys.argv[1], [bytes(1 << 20)])\n"
        "except OSError as e:\n"
        "    print(e.errno, e.filename)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["27", str(path)]
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_R45_target_is_a_folder_or_in_no_folder(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as caught:
        weights.write(tmp_path, model_file())
    assert caught.value.filename == str(tmp_path)
    with pytest.raises(FileNotFoundError) as missing:
        weights.write(tmp_path / "no" / "m.safetensors", model_file())
    assert missing.value.filename == str(tmp_path / "no" / "m.safetensors")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_R45_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError) as caught:
            weights.write(tmp_path / "m.safetensors", model_file())
        assert caught.value.filename == str(tmp_path / "m.safetensors")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_R45_killed_while_saving_leaves_a_whole_file_and_at_most_one_tmp(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    weights.write(path, model_file())
    code = (
        "import sys, numpy as np\n"
        "from musicgen_ext import weights\n"
        "file = weights.read(sys.argv[1])\n"
        "file.tensors['a.weight'] = np.zeros((2000, 500), np.float32)\n"
        "print('go', flush=True)\n"
        "while True: weights.write(sys.argv[1], file)\n"
    )
    random = np.random.default_rng(4)
    for _ in range(8):
        child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        try:
            child.wait(float(random.uniform(0, 0.05)))
        except subprocess.TimeoutExpired:
            child.kill()
        child.wait()
        child.stdout.close()
        assert weights.read(path).tensors["a.bias"].shape == (5,)
        assert set(os.listdir(tmp_path)) <= {"m.safetensors", ".m.safetensors.tmp"}
    weights.write(path, model_file())
    assert os.listdir(tmp_path) == ["m.safetensors"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"tensors": {"x": np.array([np.nan], np.float32)}}, "finite"),
        ({"tensors": {"x": np.array([1.0])}}, "float64"),
        ({"tensors": {"x": np.zeros((0, 2), np.float32)}}, "dimensions of at least 1"),
        ({"tensors": {"x": np.ones((1, 1), np.int8)}}, "use weights.convert"),
        ({"tensors": {"x": [1.0]}}, "list"),
        ({"card": {"loss": float("nan")}}, "card"),
        ({"config": {"x": object()}}, "config"),
        ({"weights": "int4"}, "int4"),
    ],
)
def test_write_refuses_and_leaves_the_target(change: dict[str, Any], word: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"old")
    file = model_file()
    for name, value in change.items():
        setattr(file, name, value)
    with pytest.raises(WeightsError, match=word) as caught:
        weights.write(path, file)
    assert str(caught.value).startswith(f"{path}: ")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_names_may_be_bytes(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "x")
    files.replace(path, [b"1"])  # type: ignore[arg-type]
    assert (tmp_path / "x").read_bytes() == b"1"
    with pytest.raises(IsADirectoryError) as caught:
        files.replace(os.fsencode(tmp_path), [b"1"])  # type: ignore[arg-type]
    assert caught.value.filename == os.fsencode(tmp_path)


def test_names_near_the_limit(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    files.replace(path, [b"1"])
    assert path.read_bytes() == b"1"
    assert len(os.listdir(tmp_path)) == 1
