"""Performs the steps of a flow, waiting for each."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import ExitStack, closing
from typing import Any, TypeVar

import httpx

from tidegate import wire
from tidegate.client.stream import Stream
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


class Pump:
    """Runs flows over one connection pool; safe to share between threads."""

    def __init__(self, http: httpx.Client, timeout_s: float, policy: RetryPolicy) -> None:
        self.http = http
        self.timeout_s = timeout_s
        self.policy = policy

    def run(self, flow: Flow[T]) -> T:
        """The value that the flow ends in."""
        with closing(self._perform(emitted(flow))) as items:
            return next(items)

    def stream(self, flow: Emitting[T]) -> Stream[T]:
        """The items that the flow hands out, as they come."""
        return Stream(self._perform(flow))

    def _perform(self, flow: Emitting[T]) -> Generator[T, None, None]:
        with ExitStack() as opened, closing(with_retries(flow, self.policy)) as steps:
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
                        answer = self._answer(step, opened)
                except TidegateError as failed:
                    error = failed

    def _answer(self, step: Step, opened: ExitStack) -> Any:
        match step:
            case Request():
                return self._send(step, opened)
            case ReadChunk(body):
                return next(body, None)
            case Sleep(seconds):
                return time.sleep(seconds)
            case Now():
                return time.monotonic()

    def _send(self, request: Request, opened: ExitStack) -> Reply:
        sent = wire.build(self.http, request, self.timeout_s)
        response = self.http.send(sent, stream=request.stream)
        if not request.stream:
            return wire.reply(response)
        opened.callback(response.close)
        if response.is_error:
            response.read()
            return wire.reply(response)
        return wire.reply(response, response.iter_bytes())
