"""Something to iterate that may hold a connection open."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class AsyncStream(Generic[T]):
    """Iterate it once. Leaving an `async with` block, or `close()`, hangs up: the server stops
    working.

    Nothing is sent before the first item is asked for, so errors are raised there.
    """

    def __init__(self, items: AsyncGenerator[T, None]) -> None:
        self._items = items

    def __aiter__(self) -> AsyncStream[T]:
        return self

    async def __anext__(self) -> T:
        return await anext(self._items)

    async def __aenter__(self) -> AsyncStream[T]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Hang up; what was not read is gone."""
        await self._items.aclose()
