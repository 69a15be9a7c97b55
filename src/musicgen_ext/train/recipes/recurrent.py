"""Recurrent networks over voices on a grid, and over one token after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from musicgen_ext.architectures import RecurrentConfig
from musicgen_ext.encodings import CHORALE, FOLK, JSB16, load

HELD_BUCKETS = (*range(1, 17), 17, 25, 33)
MATCH_BUCKETS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 64)


def voices(
    *,
    slots: Sequence[Mapping[str, Any]],
    hidden_size: int,
    num_layers: int = 2,
    head_size: int = 256,
    cell: str = "lstm",
    lags: Sequence[int] = (4, 8, 16, 32),
    copy_lags: Sequence[int] = (),
    radius: int = 12,
    limit: int = 32,
    token_dim: int = 48,
    lag_dim: int = 16,
    match_dim: int = 24,
    small_dim: int = 16,
    clocks: Sequence[int] = (16, 64),
    head_clock: str | None = "clock_16",
    given: Sequence[Mapping[str, Any]] = (),
    match_window: int = 1024,
    lag_differences: bool = True,
    lag_onsets: bool = False,
    match: bool = True,
    absolute: bool = True,
    harmony: bool = False,
    tonic: str | None = None,
    lowest_pitch: int = 36,
) -> RecurrentConfig:
    """Several voices on a time grid, drawn one after the other in every frame.

    The trunk reads what every voice did in the last frame and at each of `lags`, how long it has been held, the
    intervals between the voices, what followed the longest earlier occurrence of the recent past (`match`), the clocks
    and the given features. Pitches also enter as *differences* (to the voice's last pitch, between voices, to what the
    match foretells), and leave as steps relative to the voice's last pitch and to the voices already drawn, or as
    copies of what was: so most of what is learnt in one key holds in all of them.

    Parameters
    ----------
    slots : list of {"name", "size", "first_pitch", "hold"}
        Slots without a `first_pitch` are marks (a fermata, the end) rather than voices.
    given : list of {"name", "size", "head"}
        Features that the caller supplies; those with ``head = true`` are also read by the heads.
    harmony : bool
        Whether a voice also leaves as an interval class above each voice already drawn, and knows which of its steps
        would be parallel to theirs.
    tonic : str, optional
        The given feature that holds the tonic's pitch class (12: unknown). Pitches then also enter and leave as
        degrees above it; `lowest_pitch` is the MIDI pitch of the slots' `first_pitch`.
    absolute : bool
        Whether pitches further away (other voices' in the heads, those of `lags` and of the match in the trunk) are
        also read as such, and not only as differences.
    lags, copy_lags : list of int
        Frames to look back for the trunk's inputs and for the heads' (which may also copy from there).
    lag_onsets : bool
        Whether what is there is what was drawn then, a hold or a pitch, rather than the pitch that sounded.
    """
    features: list[dict[str, Any]] = []
    trunk: list[dict[str, Any]] = []
    pitched = [i for i, s in enumerate(slots) if s.get("first_pitch") is not None]
    name = [str(s["name"]) for s in slots]

    def add(feature: dict[str, Any], dim: int = 0) -> str:
        if all(f["name"] != feature["name"] for f in features):
            features.append(feature)
        if dim:
            trunk.append({"feature": feature["name"], "dim": dim})
        return str(feature["name"])

    last: list[str] = []  # every slot's token in the last frame
    sounds: list[str] = []  # what it sounded then: the same unless the slot has a hold token
    held: list[str] = []
    for i, slot in enumerate(slots):
        is_voice = i in pitched
        last.append(add({"name": f"{name[i]}_1", "kind": "token", "slot": i, "lag": 1}, token_dim if is_voice else 4))
        if slot.get("hold") is None:
            sounds.append(last[i])
        else:
            kind = {"name": f"{name[i]}_sounds", "kind": "sounding", "slot": i, "lag": 1}
            sounds.append(add(kind, token_dim))
        if is_voice:
            held.append(
                add({"name": f"{name[i]}_held", "kind": "held", "slot": i, "buckets": list(HELD_BUCKETS)}, small_dim)
            )
    clock_names = [add({"name": f"clock_{p}", "kind": "clock", "period": p, "divide": 1}, small_dim) for p in clocks]
    shared = [c for c in clock_names if c == head_clock]
    for g in given:
        add({"name": g["name"], "kind": "given", "size": g["size"]}, g.get("dim", small_dim))
        if g.get("head"):
            shared.append(str(g["name"]))
    matched: dict[int, str] = {}
    if match:
        for i in range(len(slots)):
            feature = {"name": f"{name[i]}_match", "kind": "match", "slot": i}
            matched[i] = add(feature, 4 if i not in pitched else match_dim if absolute else 0)
        length = {"name": "match_length", "kind": "match_length", "buckets": list(MATCH_BUCKETS)}
        shared.append(add(length, small_dim))

    def difference(a: str, b: str, n: int, dim: int = 0) -> str:
        return add({"name": f"{a}-{b}", "kind": "difference", "features": [a, b], "limit": n}, dim)

    def past(i: int, lag: int, dim: int = 0) -> str:
        kind = "token" if lag_onsets or slots[i].get("hold") is None else "sounding"
        return add({"name": f"{name[i]}_{kind}_{lag}", "kind": kind, "slot": i, "lag": lag}, dim)

    if match and not absolute:
        for i in pitched:
            difference(matched[i], sounds[i], limit, match_dim)
    for lag in lags:
        for i in pitched:
            there = past(i, lag, lag_dim if absolute else 0)
            if lag_differences:
                difference(there, sounds[i], 16, lag_dim)
    for n, i in enumerate(pitched):
        for j in pitched[:n]:
            difference(sounds[j], sounds[i], limit, small_dim)

    offset = lowest_pitch % 12

    def degree(of: str, dim: int = 0) -> str:
        return add({"name": f"{of}^", "kind": "degree", "features": [of, tonic], "offset": offset}, dim)

    for i in pitched if tonic else ():
        degree(sounds[i], small_dim)

    chosen_sounds: dict[int, str] = {}
    configured: list[dict[str, Any]] = []
    for i, slot in enumerate(slots):
        inputs = [*last, *(s for s in sounds if s not in last), *held, *shared, *matched.values()]
        if not absolute:
            far = {*sounds, *matched.values()} - {sounds[i], matched.get(i)}
            inputs = [n for n in inputs if n not in far]
        relative: list[dict[str, Any]] = []
        periodic: list[dict[str, Any]] = []
        copy: list[str] = []
        for j in range(i):
            chosen = add({"name": f"{name[j]}_chosen", "kind": "chosen", "slot": j})
            held_or_not = slots[j].get("hold") is not None
            if absolute or held_or_not or j not in pitched:
                inputs.append(chosen)
            if j in pitched and held_or_not:
                feature = {"name": f"{name[j]}_chosen_sounds", "kind": "chosen_sounding", "slot": j}
                chosen_sounds[j] = add(feature)
                if absolute:
                    inputs.append(chosen_sounds[j])
            else:
                chosen_sounds[j] = chosen
        if i in pitched:
            mine = sounds[i]
            relative.append({"feature": mine, "radius": radius})
            copy.append(mine)
            if match:
                copy.append(matched[i])
                inputs.append(difference(matched[i], mine, limit))
            inputs += [difference(sounds[j], mine, limit) for j in pitched if j != i]
            for j in pitched[: pitched.index(i)]:
                relative.append({"feature": chosen_sounds[j], "radius": radius})
                inputs.append(difference(chosen_sounds[j], mine, limit))
                inputs.append(difference(chosen_sounds[j], sounds[j], limit))
                if harmony:
                    periodic.append({"feature": chosen_sounds[j], "offset": 0})
                    together = f"{name[i]}|{name[j]}"
                    kind = {"kind": "parallel", "features": [mine, chosen_sounds[j], sounds[j]]}
                    copy.append(add({"name": together, **kind}))
                if match:
                    inputs.append(difference(chosen_sounds[j], matched[j], limit))
            if tonic:
                inputs += [degree(sounds[j]) for j in pitched]
                inputs += [degree(chosen_sounds[j]) for j in pitched[: pitched.index(i)]]
                if match:
                    inputs.append(degree(matched[i]))
            for lag in copy_lags:
                there = past(i, lag)
                inputs.append(there)
                copy.append(there)
                if lag_differences:
                    inputs.append(difference(there, mine, 16))
        head = {"hidden_size": head_size, "inputs": list(dict.fromkeys(inputs)), "relative": relative, "copy": copy}
        if tonic and i in pitched:
            periodic.append({"feature": tonic, "offset": offset})
        head["periodic"] = periodic
        configured.append({**slot, "head": head})
    return RecurrentConfig.from_dict(
        {
            "cell": cell,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "combine": "concat",
            "features": features,
            "trunk": trunk,
            "match_window": match_window,
            "slots": configured,
        }
    )


def jsb16(**keywords: Any) -> RecurrentConfig:
    """`voices` for the benchmark's grid (`musicgen_ext.encodings.JSB16`)."""
    return voices(slots=JSB16.slots, **keywords)


def chorale(**keywords: Any) -> RecurrentConfig:
    """`voices` for chorales with onsets (`musicgen_ext.encodings.CHORALE`), told what can be known about a piece."""
    given = [{"name": name, "size": size, "head": True} for name, size in CHORALE.given_sizes.items()]
    told = {"clocks": (), "head_clock": None, "harmony": True, "tonic": "tonic", "lowest_pitch": CHORALE.lowest_pitch}
    return voices(slots=CHORALE.slots, given=given, **{**told, **keywords})


def folk(**keywords: Any) -> RecurrentConfig:
    """`voices` for tunes (`musicgen_ext.encodings.FOLK`), told what can be known about them."""
    given = [{"name": name, "size": size, "head": True} for name, size in FOLK.given_sizes.items()]
    told = {"clocks": (), "head_clock": None, "tonic": "tonic", "lowest_pitch": FOLK.lowest_pitch, "lag_onsets": True}
    return voices(slots=FOLK.slots, given=given, **{**told, **keywords})


def language_model(
    *,
    cell: str = "lstm",
    hidden_size: int = 256,
    num_layers: int = 2,
    embedding_size: int | None = None,
    vocab_size: int | None = None,
    tied: bool = False,
    encoding: Mapping[str, Any] | None = None,
) -> RecurrentConfig:
    """`RecurrentConfig.language_model`: the previous token in, a linear head out.

    Parameters
    ----------
    embedding_size : int, optional
        As wide as the network, if it is not said.
    vocab_size : int, optional
        That of the data's `encoding`, if it is not said.
    tied : bool
        Whether the output matrix is the embedding.
    """
    if vocab_size is None:
        written = encoding or {}
        named = written.get("name") == "tokens"
        vocab_size = int(written["vocab_size"]) if named else load(written, tokens=True).vocab_size
    return RecurrentConfig.language_model(
        cell,
        vocab_size=vocab_size,
        embedding_size=hidden_size if embedding_size is None else embedding_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        tied=tied,
    )
