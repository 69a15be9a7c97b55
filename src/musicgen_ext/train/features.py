"""The features of a whole token grid at once: the vectorised twin of what the native engine keeps up to date per frame.

Definitions: `musicgen_ext.architectures.RecurrentConfig`. A feature of frame t is computed from frames before t only,
except the `chosen` kinds, which heads may read for slots drawn earlier in the same frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from musicgen_ext.architectures import PITCH_CLASSES, Feature, RecurrentConfig

Ints = npt.NDArray[np.int32]


def recurrent_features(
    config: RecurrentConfig,
    tokens: npt.ArrayLike,
    given: Mapping[str, npt.ArrayLike] | None = None,
    *,
    match: tuple[Ints, Ints] | None = None,
) -> dict[str, Ints]:
    """Every feature of `config` for every frame.

    Parameters
    ----------
    config : RecurrentConfig
    tokens : array-like of int [shape=(n_frames, F)]
        Token ids, one column for every slot.
    given : mapping of str to array-like of int [shape=(n_frames,)]
        The features of kind ``given``, by name.
    match : pair of int32 arrays [shape=(n_frames,)], optional
        What `longest_matches(tokens, config.match_window)` returned, to save its time: it is the same for a
        transposed piece.

    Returns
    -------
    features : dict of str to int32 array [shape=(n_frames,)]
        Ids, row numbers of the feature's embedding table.

    Raises
    ------
    ValueError
        The grid has another number of slots, a token is outside its slot, or a given feature is missing, of another
        length, or outside its size; the message names it.
    """
    grid = np.asarray(tokens, dtype=np.int32)
    if grid.ndim != 2 or grid.shape[1] != len(config.slots):
        raise ValueError(f"tokens: expected shape (n_frames, {len(config.slots)}), got {grid.shape}")
    sizes = np.array([slot.size for slot in config.slots])
    if grid.size and ((grid < 0) | (grid >= sizes)).any():
        frame, column = np.argwhere((grid < 0) | (grid >= sizes))[0]
        raise ValueError(
            f"tokens: expected 0..{sizes[column] - 1} in slot {config.slots[column].name!r}, "
            f"got {grid[frame, column]} at frame {frame}"
        )
    n = len(grid)
    kinds = {f.kind for f in config.features}
    if match is None and kinds & {"match", "match_length"}:
        match = longest_matches(grid, config.match_window)
    sounding: dict[int, Ints] = {}

    def sounds(slot: int) -> Ints:
        if slot not in sounding:
            sounding[slot] = _sounding(grid[:, slot], config.slots[slot].size, config.slots[slot].hold)
        return sounding[slot]

    def compute(f: Feature) -> Ints:
        slot = config.slots[f.slot]
        if f.kind == "token":
            return _lagged(grid[:, f.slot], f.lag, slot.size)
        if f.kind == "sounding":
            return _lagged(sounds(f.slot), f.lag, slot.size)
        if f.kind == "held":
            return _buckets(_frames_held(grid[:, f.slot], slot.hold), f.buckets)
        if f.kind == "clock":
            return (np.arange(n) // f.divide % f.period).astype(np.int32)
        if f.kind == "match":
            assert match is not None
            where = match[0]
            return np.where(where >= 0, grid[np.maximum(where, 0), f.slot], slot.size).astype(np.int32)
        if f.kind == "match_length":
            assert match is not None
            return _buckets(match[1], f.buckets)
        if f.kind == "interval":
            a, b = (_lagged(sounds(s), 1, config.slots[s].size) for s in f.slots)
            return _difference(config, f.slots, a, b, f.limit)
        if f.kind == "chosen":
            return grid[:, f.slot]
        if f.kind == "chosen_sounding":
            return sounds(f.slot)
        if f.kind == "given":
            return _given(f, given, n)
        raise AssertionError(f.kind)  # RecurrentConfig knows no other

    out: dict[str, Ints] = {}
    for f in config.features:
        if f.kind == "difference":
            a, b = (compute(config.feature(name)) for name in f.features)
            out[f.name] = _difference(config, tuple(config.feature(name).slot for name in f.features), a, b, f.limit)
        elif f.kind == "parallel":
            out[f.name] = _parallel(
                config,
                [config.feature(name).slot for name in f.features],
                map(compute, map(config.feature, f.features)),
            )
        elif f.kind == "degree":
            a, b = (compute(config.feature(name)) for name in f.features)
            out[f.name] = _degree(config, config.feature(f.features[0]).slot, a, b, f.offset)
        else:
            out[f.name] = compute(f)
    return out


def longest_matches(tokens: npt.ArrayLike, window: int) -> tuple[Ints, Ints]:
    """Where the recent past happened before.

    For every frame t, over earlier frames j (1 <= j <= t - 1, j > t - 1 - window), the longest common suffix of
    frames[..t-1] and frames[..j-1]; ties go to the latest j.

    Returns
    -------
    where, length : int32 arrays [shape=(n_frames,)]
        The frame j that followed the match, -1 if there is none, and the match's length in frames.
    """
    grid = np.asarray(tokens, dtype=np.int32)
    n = len(grid)
    where, length = np.full(n, -1, np.int32), np.zeros(n, np.int32)
    if n < 3:
        return where, length
    code = np.unique(grid, axis=0, return_inverse=True)[1].reshape(-1)
    backwards = code[::-1].copy()  # backwards[n - 1 - i] == code[i]
    runs = np.zeros(min(n, window), np.int32)  # runs[d - 1]: the match's length at distance d = t - j
    for t in range(2, n):
        most = min(t - 1, window)
        # frames t - 1 - d for d = 1..most, against frame t - 1
        same = backwards[n + 1 - t : n + 1 - t + most] == code[t - 1]
        runs[:most] = np.where(same, runs[:most] + 1, 0)
        d = int(runs[:most].argmax()) + 1
        if runs[d - 1]:
            where[t], length[t] = t - d, runs[d - 1]
    return where, length


def _lagged(ids: npt.NDArray[np.int32], lag: int, start: int) -> Ints:
    out = np.full(len(ids), start, np.int32)
    if lag < len(ids):
        out[lag:] = ids[: len(ids) - lag]
    return out


def _sounding(column: npt.NDArray[np.int32], start: int, hold: int | None) -> Ints:
    """The last token other than `hold`, this frame's included; `start` before the first."""
    if hold is None:
        return column
    last = np.maximum.accumulate(np.where(column != hold, np.arange(len(column)), -1))
    return np.where(last >= 0, column[np.maximum(last, 0)], start).astype(np.int32)


def _frames_held(column: npt.NDArray[np.int32], hold: int | None) -> Ints:
    """(t - 1) - (frame of the last onset before t); 0 where there is none."""
    n = len(column)
    onset = np.empty(n, bool)
    if hold is None:
        onset[:1] = True
        onset[1:] = column[1:] != column[:-1]
    else:
        onset[:] = column != hold
    last = np.maximum.accumulate(np.where(onset, np.arange(n), -1)) if n else np.zeros(0, np.int64)
    out = np.zeros(n, np.int32)
    if n > 1:
        out[1:] = np.where(last[:-1] >= 0, np.arange(n - 1) - last[:-1], 0)
    return out


def _buckets(values: npt.NDArray[np.int32], thresholds: tuple[int, ...]) -> Ints:
    return np.searchsorted(np.asarray(thresholds), values, side="right").astype(np.int32)


def _difference(config: RecurrentConfig, slots: tuple[int, ...], a: Ints, b: Ints, limit: int) -> Ints:
    defined = np.ones(len(a), bool)
    for slot, ids in zip(slots, (a, b), strict=True):
        defined &= (ids >= (config.slots[slot].first_pitch or 0)) & (ids < config.slots[slot].size)
    return np.where(defined, 1 + limit + np.clip(a - b, -limit, limit), 0).astype(np.int32)


def _parallel(config: RecurrentConfig, slots: Sequence[int], ids: Iterable[Ints]) -> Ints:
    def pitches(slot: int, values: Ints) -> npt.NDArray[np.bool_]:
        return (values >= (config.slots[slot].first_pitch or 0)) & (values < config.slots[slot].size)

    a, b, c = ids
    moved = a + b - c
    defined = pitches(slots[0], a) & pitches(slots[1], b) & pitches(slots[2], c) & pitches(slots[0], moved)
    return np.where(defined, moved, config.slots[slots[0]].size).astype(np.int32)


def _degree(config: RecurrentConfig, slot: int, ids: Ints, tonic: Ints, offset: int) -> Ints:
    first = config.slots[slot].first_pitch or 0
    defined = (ids >= first) & (ids < config.slots[slot].size) & (tonic < PITCH_CLASSES)
    return np.where(defined, 1 + (ids - first + offset - tonic) % PITCH_CLASSES, 0).astype(np.int32)


def _given(f: Feature, given: Mapping[str, npt.ArrayLike] | None, n: int) -> Ints:
    if given is None or f.name not in given:
        raise ValueError(f"given: expected the feature {f.name!r}, got {sorted(given or ())}")
    ids = np.asarray(given[f.name], dtype=np.int32)
    if ids.shape != (n,):
        raise ValueError(f"given[{f.name!r}]: expected shape ({n},), got {ids.shape}")
    if n and not (ids.min() >= 0 and ids.max() < f.size):
        raise ValueError(f"given[{f.name!r}]: expected 0..{f.size - 1}, got {ids.min()}..{ids.max()}")
    return ids
