"""The JSON object of one call, read as it is written."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any, NoReturn

MAX_DEPTH = 64
_ARGUMENTS = frozenset({"arguments", "parameters"})
_KEYS = _ARGUMENTS | {"name", "id", "type"}
_CLOSES = {"}": "{", "]": "["}
_OF_NOTE = re.compile(r"[^\s0-9a-zE+.-]")
"""Outside of strings: what gives JSON its structure, and what JSON cannot have."""
_ENDS_STRING = re.compile(r'["\\]')


class CallObject:
    """`{"name": …, "arguments": {…}}`, its keys in any order, its arguments given out as they come.

    `name`, one of `functions`, is known once its value has ended. `is_whole` says that the object
    has ended and is valid JSON, `is_broken` that the next letter makes it none, or no call. Where
    that is does not depend on how the text is cut; what only the whole shows (a bad number, a bad
    escape) breaks it at its end. `arguments_end` counts the letters up to the last argument's.
    """

    def __init__(self, functions: Collection[str]) -> None:
        self.name: str | None = None
        self.is_whole = False
        self.is_broken = False
        self.arguments_end = 0
        self._functions = functions
        self._letters = 0
        self._text: list[str] = []
        self._open: list[str] = []
        self._in_string = False
        self._is_escaped = False
        self._key: str | None = None
        self._member: list[str] = []
        self._arguments: list[str] = []
        self._seen: set[str] = set()

    def push(self, text: str) -> int:
        """Take text that begins with `{` the first time; returns how much of it is the object's."""
        place = 0
        while place < len(text) and not (self.is_whole or self.is_broken):
            place = self._string(text, place) if self._in_string else self._structure(text, place)
        return place

    def take_arguments(self) -> str:
        """The arguments' text that came since the last time."""
        pieces, self._arguments = self._arguments, []
        return "".join(pieces)

    def _string(self, text: str, place: int) -> int:
        if self._is_escaped:
            self._is_escaped = False
            return self._keep(text, place, place + 1)
        found = _ENDS_STRING.search(text, place)
        if found is None:
            return self._keep(text, place, len(text))
        self._is_escaped = found[0] == "\\"
        self._in_string = self._is_escaped
        return self._keep(text, place, found.end())

    def _structure(self, text: str, place: int) -> int:
        found = _OF_NOTE.search(text, place)
        if found is None:
            return self._keep(text, place, len(text))
        self._keep(text, place, found.start())
        letter, at_top = found[0], len(self._open) == 1
        if at_top and letter in ":,}":
            self._text.append(letter)
            self._end_of_part(letter)
            self._letters += 1
        else:
            self._nest(letter, at_top)
            if not self.is_broken:
                self._keep(text, found.start(), found.end(), inner=letter in "}]")
        return found.start() if self.is_broken else found.end()

    def _keep(self, text: str, start: int, end: int, *, inner: bool = False) -> int:
        """Keep `text[start:end]`, as arguments too where it is inside of theirs."""
        piece = text[start:end]
        self._text.append(piece)
        self._member.append(piece)
        self._letters += len(piece)
        if self._key in _ARGUMENTS and (inner or len(self._open) > 1):
            self._arguments.append(piece)
            self.arguments_end = self._letters
        return end

    def _nest(self, letter: str, at_top: bool) -> None:
        if letter == '"':
            self._in_string = True
        elif letter in "{[":
            wrong = at_top and (self._key is None or (self._key in _ARGUMENTS and letter == "["))
            self.is_broken = wrong or len(self._open) >= MAX_DEPTH
            self._open.append(letter)
            if len(self._open) == 1:
                return
        elif letter in _CLOSES:
            self.is_broken = self._open.pop() != _CLOSES[letter]
        elif letter not in ",:":
            self.is_broken = True

    def _end_of_part(self, letter: str) -> None:
        """A key, a value or the object itself has ended."""
        try:
            if letter == ":":
                self._end_of_key()
            else:
                self._end_of_value()
            if letter == "}":
                self._end()
        except (ValueError, RecursionError):
            self.is_broken = True
        self._member = []

    def _end_of_key(self) -> None:
        key = _read("".join(self._member).removeprefix("{"))
        if self._key is not None or key not in _KEYS or key in self._seen:
            raise ValueError(key)
        if key in _ARGUMENTS and _ARGUMENTS & self._seen:
            raise ValueError(key)
        self._key = key
        self._seen.add(key)

    def _end_of_value(self) -> None:
        if self._key is None:
            raise ValueError("no key")
        if self._key == "name":
            name = _read("".join(self._member))
            if name not in self._functions:
                raise ValueError(name)
            self.name = name
        elif self._key in _ARGUMENTS and not "".join(self._member).strip().endswith("}"):
            raise ValueError("the arguments are no object")
        self._key = None

    def _end(self) -> None:
        _read("".join(self._text))
        if self.name is None:
            raise ValueError("no name")
        if not _ARGUMENTS & self._seen:
            self._arguments.append("{}")
        self.is_whole = True


def _read(text: str) -> Any:
    return json.loads(text, parse_constant=_no_constant)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
