"""What counting alone foretells: an interpolated n-gram model of tokens, the baseline of every likelihood."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from musicgen_ext.hashing import Hashes, mixed

Grid = npt.NDArray[np.integer]


class CountingModel:
    """Probabilities of the next token by how often it followed the last few, smoothed by fewer of them.

    Witten-Bell interpolation: with c(h, w) the number of times that w followed the context h, and t(h) that of
    different tokens which did,

        p(w | h) = (c(h, w) + t(h) p(w | h without its first token)) / (c(h) + t(h)),

    down to the empty context, below which all tokens are equally likely. A piece begins with as many start symbols as a
    context is long. Grids of several slots are read slot by slot; every context knows which slot is next.

    Parameters
    ----------
    pieces : sequence of int arrays [shape=(n,) or (n, slots)]
    vocab_size : int, or sequence of int
        Number of tokens, of each slot if there are several.
    order : int >= 0
        Tokens of a context.

    Raises
    ------
    ValueError
        A token outside the vocabulary, or pieces of another shape; the message says which.

    Notes
    -----
    Source: I. H. Witten, T. C. Bell, The zero-frequency problem, IEEE Transactions on Information Theory 37, 1991;
    interpolated as in S. F. Chen, J. Goodman, An empirical study of smoothing techniques, 1999.
    """

    def __init__(self, pieces: Sequence[Grid], vocab_size: int | Sequence[int], order: int) -> None:
        if order < 0:
            raise ValueError(f"order: expected an integer >= 0, got {order}")
        self.order = order
        self.sizes = np.array([vocab_size] if isinstance(vocab_size, int | np.integer) else vocab_size, np.int64)
        contexts, tokens = self._contexts(pieces)
        self._tables = []
        for context in contexts:
            pairs, first, counts = np.unique(mixed(context, tokens), return_index=True, return_counts=True)
            known, totals = np.unique(context, return_counts=True)
            different = np.bincount(np.searchsorted(known, context[first]), minlength=len(known))
            self._tables.append((pairs, counts, known, totals, different))

    def log_probs(self, pieces: Sequence[Grid], order: int | None = None) -> npt.NDArray[np.float64]:
        """Natural logarithms of the probabilities of all tokens of all pieces, end to end [shape=(tokens,)].

        With `order`, as a model of that order (at most this one's own) would have it.
        """
        contexts, tokens = self._contexts(pieces)
        p = 1.0 / self.sizes[self._slots(pieces)]
        used = self._tables if order is None else self._tables[: order + 1]
        for context, (pairs, counts, known, totals, different) in zip(contexts, used, strict=False):
            count = _looked_up(mixed(context, tokens), pairs, counts)
            total, kinds = _looked_up(context, known, totals), _looked_up(context, known, different)
            p = np.where(total > 0, (count + kinds * p) / np.maximum(total + kinds, 1), p)
        return np.log(p)

    def _slots(self, pieces: Sequence[Grid]) -> npt.NDArray[np.int64]:
        return np.concatenate([np.zeros(0, np.int64), *(np.arange(np.size(p)) % len(self.sizes) for p in pieces)])

    def _contexts(self, pieces: Sequence[Grid]) -> tuple[list[Hashes], npt.NDArray[np.int64]]:
        """Hashes of the contexts of every order, shortest first, and the tokens."""
        count, longest = len(self.sizes), self.order
        shape = "(n,)" if count == 1 else f"(n, {count})"
        padded = []
        for i, piece in enumerate(pieces):
            if not np.issubdtype(piece.dtype, np.integer):
                raise TypeError(f"pieces[{i}]: expected integers, got {piece.dtype}")
            if piece.ndim > 2 or (piece.shape[1] if piece.ndim == 2 else 1) != count:
                raise ValueError(f"pieces[{i}]: expected shape {shape}, got {piece.shape}")
            rows = piece.reshape(-1, count).astype(np.int64)
            if (rows < 0).any() or (rows >= self.sizes).any():
                at = np.argwhere((rows < 0) | (rows >= self.sizes))[0]
                size = self.sizes[at[1]]
                raise ValueError(f"pieces[{i}]: expected tokens in 0..{size - 1}, got {rows[tuple(at)]} at {at[0]}")
            padded.append(np.concatenate([np.full(longest, -1), rows.ravel()]))
        together = np.concatenate([np.zeros(0, np.int64), *padded])
        lengths = [len(p) for p in padded]
        starts = np.cumsum([0, *lengths[:-1]], dtype=np.int64)
        real = np.concatenate(
            [np.zeros(0, np.int64), *(a + np.arange(longest, n) for a, n in zip(starts, lengths, strict=False))]
        )
        context = mixed(np.zeros(len(real), np.uint64), self._slots(pieces))
        contexts = [context]
        for back in range(1, longest + 1):
            context = mixed(context, together[real - back])
            contexts.append(context)
        return contexts, together[real]


def _looked_up(keys: Hashes, known: Hashes, values: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """The value of every key, 0 where it is not known."""
    if not len(known):
        return np.zeros(len(keys), np.int64)
    at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[at] == keys, values[at], 0)


def counting_nats(
    train: Sequence[Grid],
    test: Sequence[Grid],
    vocab_size: int | Sequence[int],
    *,
    orders: Iterable[int] = range(7),
    valid: Sequence[Grid] | None = None,
) -> tuple[float, int]:
    """Nats that the best `CountingModel` of `train` needs for `test`, and the number of tokens there.

    Parameters
    ----------
    train, test, valid : sequence of int arrays [shape=(n,) or (n, slots)]
    vocab_size : int, or sequence of int
    orders : iterable of int
        The one best on `valid` is taken; without `valid`, the one best on `test`, which flatters the baseline.

    Returns
    -------
    nats : float
        The sum over all tokens.
    tokens : int
    """
    orders = list(orders)
    model = CountingModel(train, vocab_size, max(orders))
    judged_by = test if valid is None else valid
    best = max(orders, key=lambda order: float(model.log_probs(judged_by, order).sum()))
    log_probs = model.log_probs(test, best)
    return -float(log_probs.sum()), len(log_probs)


_MOST_COUNTED = 6_000_000  # tokens that are counted in all keys: more take more memory than they are worth


def counting_baseline(
    train: Sequence[Grid], valid: Sequence[Grid], test: Sequence[Grid], vocabulary: Sequence[str]
) -> dict[str, float]:
    """What counting comes to on a corpus of tokens, as strong as it gets: the order that validation likes best of 0 to
    6, and all 12 keys of the training pieces counted (unless those are more than 6 million tokens).

    Parameters
    ----------
    train, valid, test : sequence of int arrays [shape=(n,)]
    vocabulary : sequence of str
        What every token means, as `Bars`, `Performance` and `PitchSequence` say it: "pitch 60", "note_on 60" …

    Returns
    -------
    numbers : dict
        ``order``, ``keys`` (1 or 12), and ``valid`` and (if there is one) ``test`` in nats per token.
    """
    shifts = range(-5, 7) if 12 * sum(map(len, train)) <= _MOST_COUNTED else range(1)
    counted = [ids[piece] for ids in _transpositions(vocabulary, shifts) for piece in train]
    model = CountingModel(counted, len(vocabulary), 6)
    by_order = [-float(model.log_probs(valid, order).mean()) for order in range(7)]
    order = int(np.argmin(by_order))
    numbers = {"order": order, "keys": len(shifts), "valid": by_order[order]}
    if len(test):
        numbers["test"] = -float(model.log_probs(test, order).mean())
    return numbers


def _transpositions(vocabulary: Sequence[str], shifts: Iterable[int]) -> list[npt.NDArray[np.int64]]:
    """For every shift, what becomes of every token; a pitch that leaves the vocabulary stays where it is."""
    places = {meaning: i for i, meaning in enumerate(vocabulary)}
    tables = []
    for shift in shifts:
        table = np.arange(len(vocabulary))
        for i, meaning in enumerate(vocabulary):
            kind, _, pitch = meaning.partition(" ")
            if kind in ("pitch", "note_on", "note_off"):
                table[i] = places.get(f"{kind} {int(pitch) + shift}", i)
        tables.append(table)
    return tables
