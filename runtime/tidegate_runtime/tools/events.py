"""What is found in a model's text: words, and calls as they are written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Said:
    """Text that belongs to no call."""

    text: str


@dataclass(frozen=True)
class Began:
    """A call of the function `name` has begun; its arguments follow."""

    name: str


@dataclass(frozen=True)
class Argued:
    """The next piece of the arguments."""

    text: str


@dataclass(frozen=True)
class Ended:
    """The call is whole; its arguments joined are a JSON object."""


@dataclass(frozen=True)
class Broke:
    """What looked like a call is none. `text` is all of it as the model wrote it, and `rest` that
    part of it which no event has told yet.
    """

    text: str
    rest: str


Event = Said | Began | Argued | Ended | Broke
