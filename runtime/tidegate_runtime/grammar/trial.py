"""A process that grammars are tried in first, so that one that never compiles can be stopped.

What a grammar costs is counted in time of the processor: the process gives way to the steps, so how
long it takes says more of who else is served than of the grammar.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from typing import IO, Any

from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.grammar.source import TOO_COMPLEX, GrammarSource
from tidegate_runtime.grammar.vocabulary import Vocabulary

COMPILE_S = 2.0
"""Of the processor, for one grammar."""
WAIT_S = 20.0
"""For one grammar, where other work takes the processor."""
_START_S = 60.0


class TrialStopped(Exception):
    """The process is gone, or says nothing that can be read."""


class TrialDelayed(TrialStopped):
    """The process said nothing in time."""


class Trials:
    """One process, started with the first trial and again after one that was stopped.

    For one thread at a time.
    """

    def __init__(
        self, vocabulary: Vocabulary, compile_s: float = COMPILE_S, wait_s: float = WAIT_S
    ) -> None:
        self._vocabulary = vocabulary
        self._compile_s = compile_s
        self._wait_s = wait_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process; None before the first trial, and after one that was stopped."""
        return None if self._process is None else self._process.pid

    def run(self, source: GrammarSource) -> str:
        """llguidance's text of a grammar that compiles. Raises RequestRefused for others."""
        process = self._process or self._start()
        asked = {"kind": source.kind, "text": source.text, "lenient": source.lenient}
        try:
            said = _ask(process, json.dumps(asked).encode() + b"\n", self._wait_s)
        except TrialDelayed as error:
            self.close()
            raise RequestRefused(
                f"{source.param}: it was not compiled within {self._wait_s:g} s, since other work "
                "has the processor; try again later.",
                param=source.param,
                code="engine_overloaded",
                status=503,
                retry_after_s=5,
            ) from error
        except TrialStopped as error:
            self.close()
            raise RequestRefused(
                f"{source.param}: it did not compile within {self._compile_s:g} s of the processor "
                "and the memory that a grammar may take; make it simpler: fewer alternatives, "
                "smaller counts.",
                param=source.param,
                code=TOO_COMPLEX,
            ) from error
        if (wrong := said.get("error")) is not None:
            raise RequestRefused(
                f"{source.param}: {wrong}. Correct it and ask again.",
                param=source.param,
                code="invalid_schema" if source.kind == "json" else "invalid_grammar",
            )
        return str(said["definition"])

    def close(self) -> None:
        """End the process, whatever it is at."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with process:
                pass

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tidegate_runtime.grammar.worker"]
        command += [str(os.getpid()), str(self._compile_s)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        try:
            _ask(self._process, self._vocabulary.message(), _START_S)
        except TrialStopped as error:
            self.close()
            raise RequestRefused(
                "The process that compiles grammars did not start; the replica's log may say why. "
                "Ask again, or without a grammar.",
                code="grammar_unsupported",
                status=503,
                retry_after_s=1,
            ) from error
        return self._process


def _ask(process: subprocess.Popen[bytes], message: bytes, within_s: float) -> Any:
    """A message there and one line of JSON back. Raises TrialStopped."""
    give_up = time.monotonic() + within_s
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None
    try:
        _write(stdin, message)
        return json.loads(_read_line(stdout, give_up))
    except (OSError, ValueError) as error:
        raise TrialStopped from error


def _write(stream: IO[bytes], data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[stream.write(rest) :]


def _read_line(stream: IO[bytes], give_up: float) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([stream], [], [], max(0.0, give_up - time.monotonic()))
        if not readable:
            raise TrialDelayed
        part = os.read(stream.fileno(), 1 << 16)
        if not part:
            raise TrialStopped
        line += part
    return line
