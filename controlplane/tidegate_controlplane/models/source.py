"""The contract of a place that holds a model's files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class ModelFiles(Protocol):
    """A model's files, by name relative to its root. Calls block: run them in a thread.

    Raises SourceError when the place or a file in it cannot be read.
    """

    @property
    def revision(self) -> str | None:
        """The commit that was read, for sources that have commits."""
        ...

    def listing(self) -> Mapping[str, int]:
        """The size in bytes of every file of the model."""
        ...

    def fingerprint(self, name: str) -> str:
        """A text that changes when the content of that file does."""
        ...

    def read(self, name: str, start: int, length: int) -> bytes:
        """At most `length` bytes from `start`."""
        ...


class SourceError(Exception):
    """A source that cannot be read: says which, and what to do."""
