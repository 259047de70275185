"""What becomes of a run, from what came back. Pure.

| what came back                                   | then                                         |
|--------------------------------------------------|----------------------------------------------|
| 2xx with a JSON object                           | succeeded                                    |
| 408, 409, 429, 5xx, no answer, an unreadable one | again after a back-off; no attempt left: dead |
| any other 4xx                                    | failed: the request is at fault              |
| the run limit passed                             | failed, `timeout`                            |
| no replica, or the object store is away          | again; it was no attempt                     |
| the caller cancelled                             | canceled                                     |
| this process stops, or lost the lease            | again; it was no attempt                     |
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol

from pydantic_core import from_json

from tidegate.protocol.openai import ErrorDetail
from tidegate.protocol.work import InvocationState
from tidegate_controlplane.errors import Refused
from tidegate_controlplane.settings import WorkSettings

_RETRIED_4XX = frozenset({408, 409, 429})


class Failure(ErrorDetail):
    """Why a run failed, as it is kept with the row."""

    status_code: int


class Answered(Protocol):
    """A replica's answer."""

    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...


class Interrupted(Enum):
    """Why a run ended without an answer."""

    TIMEOUT = auto()
    """It ran for as long as it may."""
    NO_REPLICA = auto()
    """Nothing could serve it any more."""
    NO_STORAGE = auto()
    """Its request could not be read, or its result not be kept."""
    CANCELED = auto()
    """Its caller asked for that."""
    SHUTDOWN = auto()
    """This process stops."""
    LOST = auto()
    """The lease was taken back; whatever is decided, it changes nothing any more."""


Reply = Answered | Refused | Failure | Interrupted


@dataclass(frozen=True)
class Try:
    """Which attempt this was, of how many; and the random part of a back-off, in [0, 1)."""

    attempt: int
    max_attempts: int
    timeout_s: float
    jitter: float


@dataclass(frozen=True)
class Success:
    body: bytes
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class End:
    """Finished without a result."""

    state: InvocationState
    failure: Failure | None = None


@dataclass(frozen=True)
class Again:
    """Back to the queue."""

    after_s: float
    counted: bool
    """Whether the run was one of the row's attempts."""
    failure: Failure | None = None


Outcome = Success | End | Again


def decide(reply: Reply, tried: Try, settings: WorkSettings) -> Outcome:
    """The table above."""
    match reply:
        case Interrupted.TIMEOUT:
            return End(InvocationState.FAILED, _timeout(tried.timeout_s))
        case Interrupted.NO_REPLICA | Interrupted.NO_STORAGE:
            return Again(settings.retry_base_s, counted=False)
        case Interrupted.CANCELED:
            return End(InvocationState.CANCELED)
        case Interrupted.SHUTDOWN | Interrupted.LOST:
            return Again(0.0, counted=False)
        case Refused():
            return _again_or_dead(_of_refusal(reply), tried, settings)
        case Failure():
            return _again_or_dead(reply, tried, settings)
    if 200 <= reply.status < 300:
        return _read(reply.body) or _again_or_dead(_UNREADABLE, tried, settings)
    failure = _of_answer(reply)
    if 400 <= reply.status < 500 and reply.status not in _RETRIED_4XX:
        return End(InvocationState.FAILED, failure)
    return _again_or_dead(failure, tried, settings)


def backoff_s(tried: Try, settings: WorkSettings) -> float:
    """Exponential in the attempts so far, with half of it random so that retries spread out.

    Source: "Exponential Backoff And Jitter" (AWS Architecture Blog), the "equal jitter" form.
    """
    whole_s = min(settings.retry_max_s, settings.retry_base_s * 2.0 ** (tried.attempt - 1))
    return whole_s / 2 + whole_s / 2 * tried.jitter


def after_lost_lease(attempt: int, max_attempts: int, *, cancel_requested: bool) -> Outcome:
    """What becomes of a row whose worker was heard of no more."""
    if cancel_requested:
        return End(InvocationState.CANCELED)
    if attempt >= max_attempts:
        return End(InvocationState.DEAD, WORKER_LOST)
    return Again(0.0, counted=True, failure=WORKER_LOST)


def deployment_deleted(name: str) -> Failure:
    return Failure(
        status_code=404,
        message=f"the deployment '{name}' was deleted before this request could run",
        type="not_found_error",
        param="model",
        code="deployment_deleted",
    )


WORKER_LOST = Failure(
    status_code=502,
    message="the worker that ran this request was not heard of any more",
    type="server_error",
    code="worker_lost",
)
REQUEST_LOST = Failure(
    status_code=500,
    message="the stored body of this request is gone from the object store",
    type="server_error",
    code="request_lost",
)
_UNREADABLE = Failure(
    status_code=502,
    message="the replica's answer was not a JSON object",
    type="server_error",
    code="unreadable_answer",
)


def _again_or_dead(failure: Failure, tried: Try, settings: WorkSettings) -> Outcome:
    if tried.attempt >= tried.max_attempts:
        return End(InvocationState.DEAD, failure)
    return Again(backoff_s(tried, settings), counted=True, failure=failure)


def _read(body: bytes) -> Success | None:
    document = _object(body)
    if document is None:
        return None
    usage = document.get("usage")
    tokens = usage if isinstance(usage, dict) else {}
    return Success(
        body, _count(tokens.get("prompt_tokens")), _count(tokens.get("completion_tokens"))
    )


def _of_answer(answer: Answered) -> Failure:
    document = _object(answer.body) or {}
    error = document.get("error")
    said: dict[str, Any] = error if isinstance(error, dict) else {}
    return Failure(
        status_code=answer.status,
        message=str(said.get("message") or f"the replica answered {answer.status}"),
        type=str(said.get("type") or "server_error"),
        param=_text(said.get("param")),
        code=_text(said.get("code")),
    )


def _of_refusal(refused: Refused) -> Failure:
    return Failure(
        status_code=refused.status,
        message=refused.message,
        type=refused.kind,
        param=refused.param,
        code=refused.code,
    )


def _timeout(timeout_s: float) -> Failure:
    return Failure(
        status_code=504,
        message=f"the request ran for {timeout_s:g} s, which is as long as it may; raise timeout_s "
        "or ask for fewer tokens",
        type="server_error",
        code="timeout",
    )


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        document = from_json(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
