"""A compiled grammar, and where a sequence stands in it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from collections.abc import Sequence as Many
from contextlib import contextmanager
from typing import Any

import llguidance
import numpy as np

from tidegate_runtime.errors import GrammarTooCostly
from tidegate_runtime.grammar.definition import LIMITS, reason

Masks = np.ndarray[tuple[int, int], np.dtype[np.int32]]
"""`[rows, words]`: bit i of a row is token i, 1 when it is allowed."""
FIRST_S = 0.2
ROW_S = 0.001
"""A sequence may spend so much of the processor on its grammar: at first, and more for every row.

An ambiguous grammar costs more with every token, and other sequences wait for the same step; JSON
costs 0.02 ms a token.
"""


class Grammar:
    """What the tokens of a sequence must make up. Shared by all sequences that follow it."""

    def __init__(self, state: Any) -> None:
        self._state = state

    @classmethod
    def start(cls, tokenizer: Any, definition: str) -> Grammar:
        """From llguidance's text of a grammar that is known to compile."""
        state = llguidance.LLMatcher(tokenizer, definition, log_level=0, limits=LIMITS)
        # What is found out for the first token, every sequence has from the start.
        state.compute_bitmask()
        return cls(state)

    def matcher(self) -> Matcher:
        """At the start of a text."""
        return Matcher(self._state.deep_copy())


class Matcher:
    """Where one sequence stands. Only the engine's thread uses it.

    Every method raises GrammarTooCostly when following the grammar has become too costly.
    """

    def __init__(self, state: Any) -> None:
        self._state = state
        self._left_s = FIRST_S

    @property
    def is_done(self) -> bool:
        """Whether nothing may follow but the end of the text."""
        return bool(self._state.is_stopped())

    def take(self, token: int) -> None:
        """Go on by a token that is allowed."""
        with self._paid():
            self._state.consume_token(token)

    def allowed(self, drafts: Many[int]) -> int:
        """How many of the drafts are allowed, each after those before it."""
        return int(self._state.validate_tokens(list(drafts)))

    def fill(self, masks: Masks, drafts: Many[int]) -> None:
        """Row i becomes the tokens that are allowed after the first i drafts.

        Rows after a draft that is not allowed are left as they are: nothing comes of them.
        """
        self._left_s += ROW_S * len(masks)
        taken = 0
        with self._paid():
            for place in range(len(masks)):
                self._state.unsafe_compute_mask_ptr(masks[place].ctypes.data, masks[place].nbytes)
                if place == len(drafts) or not self._state.try_consume_tokens([drafts[place]]):
                    break
                taken += 1
            self._state.rollback(taken)

    @contextmanager
    def _paid(self) -> Iterator[None]:
        """Take what it costs from what is left."""
        began_s = time.thread_time()
        yield
        self._left_s -= time.thread_time() - began_s
        if self._state.is_error() or self._left_s < 0:
            why = reason(self._state.get_error()) or "it is too ambiguous"
            raise GrammarTooCostly(
                f"the grammar has become too costly to follow ({why}); make it simpler: fewer "
                "alternatives that begin alike"
            )
