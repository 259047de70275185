"""Performs the steps of a flow, awaiting each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, closing
from typing import Any, TypeVar

import httpx

from tidegate import wire
from tidegate.aio.stream import AsyncStream
from tidegate.errors import TidegateError
from tidegate.flow.retry import RetryPolicy, with_retries
from tidegate.flow.steps import (
    Emit,
    Emitting,
    Flow,
    Now,
    ReadChunk,
    Reply,
    Request,
    Sleep,
    Step,
    emitted,
)

T = TypeVar("T")


class AsyncPump:
    """Runs flows over one connection pool; safe to share between tasks."""

    def __init__(self, http: httpx.AsyncClient, timeout_s: float, policy: RetryPolicy) -> None:
        self.http = http
        self.timeout_s = timeout_s
        self.policy = policy

    async def run(self, flow: Flow[T]) -> T:
        """The value that the flow ends in."""
        async with aclosing(self._perform(emitted(flow))) as items:
            return await anext(items)

    def stream(self, flow: Emitting[T]) -> AsyncStream[T]:
        """The items that the flow hands out, as they come."""
        return AsyncStream(self._perform(flow))

    async def _perform(self, flow: Emitting[T]) -> AsyncGenerator[T, None]:
        async with AsyncExitStack() as opened:
            steps = opened.enter_context(closing(with_retries(flow, self.policy)))
            answer: Any = None
            error: TidegateError | None = None
            while True:
                try:
                    step = steps.send(answer) if error is None else steps.throw(error)
                except StopIteration:
                    return
                answer, error = None, None
                if isinstance(step, Emit):
                    yield step.item
                    continue
                try:
                    with wire.typed_failures(str(self.http.base_url)):
                        answer = await self._answer(step, opened)
                except TidegateError as failed:
                    error = failed

    async def _answer(self, step: Step, opened: AsyncExitStack) -> Any:
        match step:
            case Request():
                return await self._send(step, opened)
            case ReadChunk(body):
                return await anext(body, None)
            case Sleep(seconds):
                return await asyncio.sleep(seconds)
            case Now():
                return time.monotonic()

    async def _send(self, request: Request, opened: AsyncExitStack) -> Reply:
        sent = wire.build(self.http, request, self.timeout_s)
        response = await self.http.send(sent, stream=request.stream)
        if not request.stream:
            return wire.reply(response)
        opened.push_async_callback(response.aclose)
        if response.is_error:
            await response.aread()
            return wire.reply(response)
        return wire.reply(response, response.aiter_bytes())
