"""What it takes to find the calls in the answers to one request."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate_runtime.grammar.source import GrammarSource
from tidegate_runtime.tools.parser import ToolCallParser
from tidegate_runtime.tools.syntax import CallSyntax


@dataclass(frozen=True)
class CallReading:
    """How calls are written, and the names of the functions that may be called.

    `grammar` is what the answer must follow, None where the model is free.
    """

    syntax: CallSyntax
    functions: frozenset[str]
    grammar: GrammarSource | None = None

    def parser(self) -> ToolCallParser:
        """A parser for one answer."""
        return ToolCallParser(self.syntax, self.functions)
