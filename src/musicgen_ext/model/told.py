"""Models that are told some tracks and write others: a melody over chords, an accompaniment of a melody."""

from __future__ import annotations

import dataclasses
import os
import re
import zlib
from collections.abc import Mapping
from typing import Any, Unpack, cast, overload

import numpy as np
import numpy.typing as npt

from musicgen_ext import encodings, generate
from musicgen_ext.encodings import Told
from musicgen_ext.encodings.told import CHORDS, chords_score
from musicgen_ext.errors import WeightsError
from musicgen_ext.midi import Score
from musicgen_ext.model.base import Options, score_of
from musicgen_ext.model.tokens import Ints, TokenModel, _Plan

_MIDI = re.compile(r"\.(mid|midi|kar|rmi|smf)$", re.IGNORECASE)


class ToldModel(TokenModel):
    """A transformer with an encoder: it writes tokens of `Told.music`, and is told those of `Told.told`.

    ``condition={"chords": …}`` (or ``{"melody": …}``: `info` says which it knows) is a Score or file with nothing else
    in it, or for chords a string such as ``"C G7 Am:2 F:2"``: four quarter notes each, or as many as it says. The
    result of `sample` holds both, each on its track; `stream` gives the notes that the model writes. Without a
    condition the model is told nothing.
    """

    def _build(self) -> None:
        told = encodings.load(self._file.encoding, tokens=True)
        if not isinstance(told, Told):
            raise WeightsError(f"encoding.name: expected 'told', got {told.name!r}")
        self._told = told
        file, self._file = self._file, dataclasses.replace(self._file, encoding=told.music.to_dict())
        try:
            super()._build()
        finally:
            self._file = file
        memory = cast("generate.AttentionEngine", self._engine).config.memory
        if memory is None or memory.vocab_size != told.told.vocab_size:
            got = None if memory is None else memory.vocab_size
            raise WeightsError(f"config.memory.vocab_size: expected {told.told.vocab_size}, got {got}")
        self._most_told = memory.context

    @property
    def encoding(self) -> Any:
        """What the tokens mean, both those it writes and those it is told."""
        return self._told

    @overload
    def sample(self, *, num_samples: None = None, **options: Unpack[Options]) -> Score: ...
    @overload
    def sample(self, *, num_samples: int, **options: Unpack[Options]) -> list[Score]: ...
    def sample(self, *, num_samples: int | None = None, **options: Any) -> Score | list[Score]:
        """Make music; arguments and result as for `musicgen_ext.sample`, what it was told included."""
        made: Score | list[Score] = super().sample(num_samples=cast("Any", num_samples), **options)
        memory = self._memory(options.get("condition"))
        if memory is None:
            return made
        both = [self._both(score, memory) for score in (made if isinstance(made, list) else [made])]
        return both if isinstance(made, list) else both[0]

    def log_prob(self, score: Any, *, condition: Mapping[str, Any] | None = None) -> npt.NDArray[np.float64]:
        """What the model thinks of a score, given what it is told.

        Parameters
        ----------
        score : Score, PrettyMIDI, path, or integer array [shape=(n,)]
            Music with the tracks that the model writes, or tokens.
        condition : dict, optional
            As for `sample`. None: what a score has on the tracks that the model is told.

        Returns
        -------
        log_probs : np.ndarray [shape=(n,)], float64
            Natural logarithm of the probability of every token given all before it.
        """
        if isinstance(score, np.ndarray):
            tokens, own = score, None
        else:
            read = score_of(score, "score")
            tokens, own = self._told.encode(read), self._checked(self._told.tell(read), "score")
        if tokens.ndim != 1:
            raise ValueError(f"score: expected tokens of shape (n,), got {tokens.shape}")
        memory = own if condition is None else self._memory(condition)
        return self._engine.log_prob(tokens[:, None], memory=memory)[:, 0]

    def _conditions(self) -> dict[str, Any]:
        if self._told.condition == "chords":
            return {"chords": f"a score of chords alone, or symbols such as 'C G7 Am:2': {', '.join(CHORDS)}"}
        return {self._told.condition: "a score of it alone"}

    def _memory(self, condition: Mapping[str, Any] | None) -> Ints | None:
        """The tokens of what it is told."""
        name = self._told.condition
        value = self._checked_names(condition).get(name)
        if value is None:
            return None
        what = f"condition[{name!r}]"
        if name == "chords" and isinstance(value, str) and not _MIDI.search(value) and not os.path.exists(value):
            try:
                score = chords_score(value)
            except ValueError as error:
                raise ValueError(f"{what}: {error}") from None
        else:
            score = score_of(value, what)
        return self._checked(self._told.tell_all(score), what)

    def _checked(self, tokens: Ints, what: str) -> Ints:
        if len(tokens) > self._most_told:
            raise ValueError(f"{what}: expected at most {self._most_told} tokens of it, got {len(tokens)}")
        return tokens

    def _both(self, score: Score, memory: Ints) -> Score:
        both = self._told.together(score, memory)
        both.provenance = score.provenance
        return both

    def _plan(
        self,
        length: float | str | None,
        prompt: Any,
        condition: Mapping[str, Any] | None,
        *options: Any,
    ) -> _Plan:
        memory = self._memory(condition)
        plan = super()._plan(length, prompt, None, *options)
        if memory is None:
            return plan
        told = {"tokens": len(memory), "crc32": zlib.crc32(memory.tobytes())}
        record = {**plan.record, "condition": {self._told.condition: told}}
        return dataclasses.replace(plan, memory=memory, record=record)
