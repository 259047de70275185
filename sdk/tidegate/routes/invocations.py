"""Invocations: durable requests, answered later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from tidegate.answers import ANSWER_OF, ChatAnswer, ModelAnswer
from tidegate.errors import InvocationFailed
from tidegate.flow.pages import pages, read
from tidegate.flow.poll import poll
from tidegate.flow.steps import Emitting, Flow, Request, ask
from tidegate.protocol.work import Invocation, InvocationState
from tidegate.routes.generate import Messages, conversation

T = TypeVar("T")
ROOT = "/v1/invocations"

Work = Messages | Mapping[str, Any]
"""A prompt, a conversation, or the whole body of a request of any endpoint."""


def work_body(model: str, work: Work) -> dict[str, Any]:
    """The request's body; a body without `model` gets the deployment's name."""
    if isinstance(work, Mapping):
        return {"model": model, **work}
    return {"model": model, "messages": conversation(work)}


def submit(
    body: Mapping[str, Any],
    *,
    idempotency_key: str,
    timeout_s: float | None,
    expires_in_s: float | None,
    webhook: str | None,
) -> Flow[Invocation]:
    """Hand in work. The key makes a repeated request the same invocation."""
    terms = {"timeout_s": timeout_s, "expires_in_s": expires_in_s, "webhook": webhook}
    query = {key: value for key, value in terms.items() if value is not None}
    headers = {"Idempotency-Key": idempotency_key}
    reply = yield from ask(Request("POST", ROOT, query=query, headers=headers, json=dict(body)))
    return read(reply, Invocation)


def get(invocation_id: str) -> Flow[Invocation]:
    reply = yield from ask(Request("GET", _path(invocation_id)))
    return read(reply, Invocation)


def cancel(invocation_id: str) -> Flow[Invocation]:
    reply = yield from ask(Request("POST", _path(invocation_id, "cancel")))
    return read(reply, Invocation)


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
