"""Reading the JSON form of a configuration: a mistake is a `WeightsError` that names key, range and value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from musicgen_ext.errors import WeightsError


def only(entry: Any, known: set[str], where: str) -> None:
    if not isinstance(entry, Mapping):
        raise WeightsError(f"{where}: expected an object, got {type(entry).__name__}")
    unknown = sorted(str(k) for k in set(entry) - known)
    if unknown:
        raise WeightsError(f"{where}: expected keys out of {sorted(known)}, got unknown {unknown}")


def integer(entry: Mapping[str, Any], key: str, low: int, high: int, where: str, default: int | None = None) -> int:
    value = entry.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise WeightsError(f"{where}.{key}: expected an integer in [{low}, {high}], got {value!r}")
    return value


def boolean(entry: Mapping[str, Any], key: str, where: str, default: bool) -> bool:
    value = entry.get(key, default)
    if not isinstance(value, bool):
        raise WeightsError(f"{where}.{key}: expected true or false, got {value!r}")
    return value


def string(entry: Mapping[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value or not value.isprintable() or len(value) > 200:
        raise WeightsError(f"{where}.{key}: expected a short non-empty string, got {value!r}")
    return value


def choice(entry: Any, key: str, choices: tuple[str, ...], where: str, default: str | None = None) -> str:
    value = entry.get(key, default) if isinstance(entry, Mapping) else None
    if not isinstance(value, str) or value not in choices:
        raise WeightsError(f"{where}.{key}: expected one of {list(choices)}, got {value!r}")
    return value


def entries(
    entry: Mapping[str, Any], key: str, least: int, most: int, where: str, default: list[Any] | None = None
) -> list[Any]:
    value = entry.get(key, default)
    if not isinstance(value, list | tuple) or not least <= len(value) <= most:
        got = f"{len(value)} entries" if isinstance(value, list | tuple) else repr(value)
        raise WeightsError(f"{where}.{key}: expected a list of {least} to {most} entries, got {got}")
    return list(value)


def unique(names: Iterable[str], where: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise WeightsError(f"{where}: expected distinct names, got {name!r} twice")
        seen.add(name)
