"""Finds the calls in a model's text while it is written."""

from __future__ import annotations

from collections.abc import Callable, Collection

from tidegate_runtime.text.stop_strings import overlap
from tidegate_runtime.tools.call_object import CallObject
from tidegate_runtime.tools.events import Argued, Began, Broke, Ended, Event, Said
from tidegate_runtime.tools.syntax import CallSyntax


class ToolCallParser:
    """Text in, events out; the same events, joined, however the text is cut.

    Only a call of one of `functions` is one. Nothing is lost: what turns out to be no call comes
    back as it was written. White space beside a call, and the letters around it, are part of it.

    It is in one of four places, each with a method that takes what it can from the text at hand and
    says whether more can be done with the rest:

        words ── opening ──> before ── { ──> inside ── } ──> after ── separator ──> before
          ^                     │               │              │
          └─────────────────────┴──── broke ────┴── other text ┘
    """

    def __init__(self, syntax: CallSyntax, functions: Collection[str]) -> None:
        self._syntax = syntax
        self._functions = frozenset(functions)
        self._events: list[Event] = []
        self._place: Callable[[], bool] = self._words
        self._held = ""
        self._space = ""
        self._raw: list[str] = []
        self._call = CallObject(self._functions)
        self._is_told = False
        self._in_list = False
        self._is_first = True
        self._follows_call = False

    def push(self, text: str) -> list[Event]:
        """Take the next text; return what it shows."""
        self._held += text
        while self._held and self._place():
            pass
        return self._taken()

    def finish(self) -> list[Event]:
        """What was held back, now that nothing follows."""
        held, self._held = self._held, ""
        if self._place == self._after:
            held = "" if self._syntax.closing.startswith(held.strip()) else held
        elif self._place != self._words:
            self._raw.append(held)
            self._break()
            held = ""
        self._say(held)
        if self._space and not self._follows_call:
            self._events.append(Said(self._space))
        return self._taken()

    def _taken(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    # --- the places -------------------------------------------------------------------------------

    def _words(self) -> bool:
        syntax, held = self._syntax, self._held
        if syntax.bare and self._is_first:
            if not (begun := held.lstrip()):
                return False
            if begun[0] == "{":
                self._space, self._held = held[: len(held) - len(begun)], begun
                return self._open("")
        found = held.find(syntax.opening)
        if found < 0:
            keep = overlap(held, syntax.opening)
            self._held = held[len(held) - keep :]
            self._say(held[: len(held) - keep])
            return False
        self._say(held[:found])
        self._held = held[found + len(syntax.opening) :]
        return self._open(syntax.opening)

    def _before(self) -> bool:
        begun = self._held.lstrip()
        self._raw.append(self._held[: len(self._held) - len(begun)])
        self._held = begun
        if not begun:
            return False
        if begun[0] == "[" and not self._in_list:
            self._in_list = True
            self._raw.append("[")
            self._held = begun[1:]
        elif begun[0] == "{":
            self._call, self._is_told = CallObject(self._functions), False
            self._raw = ["".join(self._raw)]
            self._place = self._inside
        else:
            self._break()
        return True

    def _inside(self) -> bool:
        size = self._call.push(self._held)
        self._raw.append(self._held[:size])
        self._held = self._held[size:]
        self._tell()
        if self._call.is_whole:
            self._events.append(Ended())
            self._raw, self._is_told, self._follows_call = [], False, True
            self._place = self._after
        elif self._call.is_broken:
            self._break()
        return True

    def _after(self) -> bool:
        syntax, begun = self._syntax, self._held.lstrip()
        if not begun:
            return False
        if self._in_list and begun[0] in ",]":
            self._in_list = begun[0] == ","
            self._held = begun[1:]
            return self._open(",") if self._in_list else True
        if syntax.separator and begun.startswith(syntax.separator):
            self._held = begun[len(syntax.separator) :]
            return self._open(syntax.separator)
        if syntax.closing and begun.startswith(syntax.closing):
            begun = begun[len(syntax.closing) :]
        elif syntax.closing.startswith(begun):
            return False
        self._held, self._in_list = begun, False
        self._place = self._words
        return True

    # --- what they do -----------------------------------------------------------------------------

    def _open(self, letters: str) -> bool:
        """A call may begin; `letters` are taken as a part of it."""
        self._raw = [self._space, letters]
        self._space, self._is_first = "", False
        self._place = self._before
        return True

    def _tell(self) -> None:
        """Tell of the call as far as it is known."""
        call = self._call
        arguments = call.take_arguments() if call.name is not None else ""
        if not (call.name and arguments):
            return
        if not self._is_told:
            self._events.append(Began(call.name))
            self._is_told = True
        self._events.append(Argued(arguments))

    def _break(self) -> None:
        """It is no call; whatever follows is read as words."""
        text = "".join(self._raw)
        told = len(self._raw[0]) + self._call.arguments_end if self._is_told else 0
        self._events.append(Broke(text, text[told:]))
        self._raw, self._is_told, self._in_list = [], False, False
        self._is_first = self._follows_call = False
        self._place = self._words

    def _say(self, text: str) -> None:
        """Words; the white space at their end waits for what follows."""
        whole = self._space + text
        said = whole.rstrip()
        self._space = whole[len(said) :]
        if said:
            self._events.append(Said(said.lstrip() if self._follows_call else said))
            self._is_first = self._follows_call = False
