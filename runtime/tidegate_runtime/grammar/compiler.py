"""Grammars for requests: compiled once, away from the event loop and the step loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor

from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.grammar.matcher import Grammar
from tidegate_runtime.grammar.source import GrammarSource
from tidegate_runtime.grammar.tables import TokenTables
from tidegate_runtime.grammar.trial import COMPILE_S, WAIT_S, Trials

KEPT = 256
MAX_WAITING = 32
_NICE = 10
_FINAL = 400


class Compiler:
    """Compiles what was not compiled before; of a refusal the reason is kept too.

    A grammar is tried in a process of its own first (`Trials`), which is killed when it takes too
    long. One that passes is compiled again here, in one thread that gives way to the steps.
    Nothing is started before the first grammar, and no vocabulary is read here at all: that would
    hold up the steps (docs/decisions/149).
    """

    def __init__(
        self,
        tables: TokenTables | RequestRefused,
        *,
        compile_s: float = COMPILE_S,
        wait_s: float = WAIT_S,
    ) -> None:
        """Over the tables of a vocabulary; or why there are none, which every caller is told."""
        self._tables = tables
        self._compile_s = compile_s
        self._wait_s = wait_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="grammar", initializer=_give_way)
        self._known: OrderedDict[GrammarSource, Future[Grammar | RequestRefused]] = OrderedDict()
        self._trials: Trials | None = None

    async def compile(self, source: GrammarSource) -> Grammar:
        """The grammar of a source, which all that ask for it share. Call it on one event loop.

        Raises RequestRefused: `invalid_schema`, `invalid_grammar`, `schema_too_complex`.
        """
        found = await asyncio.shield(asyncio.wrap_future(self._find(source)))
        if isinstance(found, Grammar):
            return found
        if found.status != _FINAL:
            self._known.pop(source, None)
        # Each caller gets an error of its own, since raising one changes it.
        raise RequestRefused(
            found.message,
            param=found.param,
            code=found.code,
            status=found.status,
            retry_after_s=found.retry_after_s,
        )

    def close(self) -> None:
        """Stop compiling, and end the process."""
        self._thread.shutdown(cancel_futures=True)
        if self._trials is not None:
            self._trials.close()

    def _find(self, source: GrammarSource) -> Future[Grammar | RequestRefused]:
        if (known := self._known.get(source)) is not None:
            self._known.move_to_end(source)
            return known
        if sum(not item.done() for item in self._known.values()) >= MAX_WAITING:
            raise RequestRefused(
                f"{MAX_WAITING} grammars wait to be compiled already; try again later.",
                param=source.param,
                code="engine_overloaded",
                status=503,
                retry_after_s=5,
            )
        made = self._known[source] = self._thread.submit(self._compile, source)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return made

    # --- the compiling thread ---------------------------------------------------------------------

    def _compile(self, source: GrammarSource) -> Grammar | RequestRefused:
        tables = self._tables
        if isinstance(tables, RequestRefused):
            return tables
        try:
            if self._trials is None:
                self._trials = Trials(tables.vocabulary, self._compile_s, self._wait_s)
            return Grammar.start(tables.tokenizer, self._trials.run(source))
        except RequestRefused as error:
            return error


def _give_way() -> None:
    """Linux keeps a nice value for each thread."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
