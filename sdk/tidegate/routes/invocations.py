"""Invocations: durable requests, answered later."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, BinaryIO, TypedDict, TypeVar
from urllib.parse import quote

from tidegate.answers import ANSWER_OF, ChatAnswer, ModelAnswer
from tidegate.errors import ConnectionFailed, InvocationFailed
from tidegate.flow.pages import pages, read
from tidegate.flow.poll import poll
from tidegate.flow.sse import events as server_events
from tidegate.flow.steps import Emit, Emitting, Flow, Request, Sleep, ask, chunk
from tidegate.protocol.work import (
    Invocation,
    InvocationDeleted,
    InvocationEvent,
    InvocationState,
    RedriveAnswer,
    RedriveRequest,
)
from tidegate.routes.generate import Messages, conversation

T = TypeVar("T")
ROOT = "/v1/invocations"
REDRIVE_PAGE = 1000
SILENCE_S = 30.0
"""The server says something every ten seconds."""
RECONNECTS = 10
"""In a row, without news between them."""
RECONNECT_S = 1.0

Work = Messages | Mapping[str, Any]
"""A prompt, a conversation, or the whole body of a request of any endpoint."""


def work_body(model: str, work: Work) -> dict[str, Any]:
    """The request's body; a body without `model` gets the deployment's name."""
    if isinstance(work, Mapping):
        return {"model": model, **work}
    return {"model": model, "messages": conversation(work)}


class Terms(TypedDict, total=False):
    """What may be asked of the queue; the server's own default where absent."""

    timeout_s: float | None
    """Seconds that a run may take."""
    expires_in_s: float | None
    """Not begun by then, it expires."""
    deadline_s: float | None
    """Not finished by then, it is given up."""
    priority: int | None
    """From -5 to 5; the higher runs first."""
    max_attempts: int | None
    webhook: str | None
    """The id of one that is told how it ends, whatever its events."""
    result_ttl_s: float | None
    """How long it is kept after its end."""


def submit(
    body: Mapping[str, Any] | BinaryIO, idempotency_key: str | None, terms: Terms
) -> Flow[Invocation]:
    """Hand in work, as a value or as a file that holds it.

    The key, made up when absent, makes a repeated request the same invocation.
    """
    given: dict[str, Any] = {**terms}
    query = {name: value for name, value in given.items() if value is not None}
    headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
    request = Request("POST", ROOT, query=query, headers=headers)
    if isinstance(body, Mapping):
        request = replace(request, json=dict(body))
    else:
        request = replace(request, file=body)
    reply = yield from ask(request)
    return read(reply, Invocation)


def redrive(invocation_id: str) -> Flow[Invocation]:
    reply = yield from ask(Request("POST", _path(invocation_id, "redrive")))
    return read(reply, Invocation)


def redrive_all(status: str, model: str | None) -> Flow[int]:
    """Run again all that ended so, page by page; how many there were."""
    wanted: RedriveRequest | None = RedriveRequest.model_validate(
        {"status": status, "model": model, "limit": REDRIVE_PAGE}
    )
    number = 0
    while wanted is not None:
        body = wanted.model_dump(exclude_none=True)
        reply = yield from ask(Request("POST", f"{ROOT}/redrive", json=body))
        answer = read(reply, RedriveAnswer)
        number += answer.redriven
        more = answer.has_more and answer.last_id
        wanted = wanted.model_copy(update={"after": answer.last_id}) if more else None
    return number


def events(invocation_id: str) -> Emitting[InvocationEvent]:
    """What happens to it until its end; a connection that breaks is made again."""
    seen = [""]
    known, failures = "", 0
    while True:
        headers = {"Last-Event-ID": seen[-1]} if seen[-1] else {}
        path = _path(invocation_id, "events")
        request = Request("GET", path, headers=headers, stream=True, timeout_s=SILENCE_S)
        try:
            yield from server_events(request, InvocationEvent, seen.append)
            return
        except ConnectionFailed:
            failures = failures + 1 if seen[-1] == known else 1
            if failures > RECONNECTS:
                raise
            known = seen[-1]
            seen = [known]
            yield Sleep(RECONNECT_S)


def content(invocation: Invocation) -> Emitting[bytes]:
    """The bytes of the model's answer; a connection that breaks is taken up where it broke.

    Raises InvocationFailed when there is no answer.
    """
    if invocation.status is not InvocationState.SUCCEEDED:
        raise InvocationFailed(invocation)
    received, failures = 0, 0
    while True:
        headers = {"Range": f"bytes={received}-"} if received else {}
        path = _path(invocation.id, "result")
        try:
            reply = yield from ask(Request("GET", path, headers=headers, stream=True))
            while (data := (yield from chunk(reply.body))) is not None:
                received, failures = received + len(data), 0
                yield Emit(data)
            return
        except ConnectionFailed:
            failures += 1
            if failures > RECONNECTS:
                raise
            yield Sleep(RECONNECT_S)


def get(invocation_id: str) -> Flow[Invocation]:
    reply = yield from ask(Request("GET", _path(invocation_id)))
    return read(reply, Invocation)


def cancel(invocation_id: str) -> Flow[Invocation]:
    reply = yield from ask(Request("POST", _path(invocation_id, "cancel")))
    return read(reply, Invocation)


def delete(invocation_id: str) -> Flow[InvocationDeleted]:
    reply = yield from ask(Request("DELETE", _path(invocation_id)))
    return read(reply, InvocationDeleted)


def listing(
    status: InvocationState | str | None, model: str | None, make: Callable[[Invocation], T]
) -> Emitting[T]:
    query = {"status": str(status) if status else None, "model": model}
    given = {key: value for key, value in query.items() if value}
    return pages(Request("GET", ROOT, query=given), Invocation, make)


def finished(invocation_id: str, timeout_s: float | None) -> Flow[Invocation]:
    """Wait for its end, whichever it is; raises WaitTimeout."""
    return poll(
        lambda: get(invocation_id),
        lambda invocation: invocation.status.is_final,
        lambda invocation: (f"invocation {invocation.id}", invocation.status.value),
        timeout_s=timeout_s,
    )


def result(invocation: Invocation) -> Flow[ModelAnswer]:
    """What the model answered; raises InvocationFailed when there is no answer."""
    if invocation.status is not InvocationState.SUCCEEDED:
        raise InvocationFailed(invocation)
    reply = yield from ask(Request("GET", _path(invocation.id, "result")))
    return read(reply, ANSWER_OF.get(invocation.endpoint, ChatAnswer))


def _path(invocation_id: str, *rest: str) -> str:
    return "/".join([ROOT, quote(invocation_id, safe=""), *rest])
