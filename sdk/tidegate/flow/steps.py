"""The steps a flow can ask for, and what it gets back."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Generic, TypeVar

T = TypeVar("T")
IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE"})
CONDITIONS = frozenset({"If-Match", "If-None-Match"})


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart body: one seekable file, sent from its beginning, and form fields."""

    file: BinaryIO
    filename: str
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, as a value. Answered with a `Reply`."""

    method: str
    path: str
    query: Mapping[str, str | int | float] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    """The body; None for no body."""
    upload: Upload | None = None
    file: BinaryIO | None = None
    """A body sent as it is, from the file's beginning; seekable, so that it can be sent again."""
    stream: bool = False
    """Leave the body of a success unread: `ReadChunk(reply.body)` reads on."""
    timeout_s: float | None = None
    """Seconds of silence that are borne; the client's own when None."""

    @property
    def may_repeat(self) -> bool:
        """Whether sending it a second time is harmless when the first may have arrived."""
        if CONDITIONS & self.headers.keys():
            return False
        return self.method in IDEMPOTENT_METHODS or "Idempotency-Key" in self.headers


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""
    body: Any = field(default=None, repr=False)
    """The pump's own handle of an unread body."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait. Answered with None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Now:
    """Answered with a monotonic time in seconds."""


@dataclass(frozen=True, slots=True)
class ReadChunk:
    """Answered with the next bytes of a streamed body, or None at its end."""

    body: Any


@dataclass(frozen=True, slots=True)
class Emit(Generic[T]):
    """Hand an item to the caller who iterates. Answered with None when it asks for more."""

    item: T


Step = Request | Sleep | Now | ReadChunk
Flow = Generator[Step, Any, T]
"""A conversation that ends in a value. Failed connections are thrown into it."""
Emitting = Generator[Step | Emit[T], Any, None]
"""A conversation that hands out items as it goes."""


def ask(request: Request) -> Flow[Reply]:
    """One request and its reply."""
    reply: Reply = yield request
    return reply


def now() -> Flow[float]:
    """The monotonic time in seconds."""
    moment: float = yield Now()
    return moment


def chunk(body: Any) -> Flow[bytes | None]:
    """The next bytes of a streamed body; None at its end."""
    data: bytes | None = yield ReadChunk(body)
    return data


def emitted(flow: Flow[T]) -> Emitting[T]:
    """A flow whose value is its only item."""
    value = yield from flow
    yield Emit(value)
