"""What becomes of a run, from what came back. Pure.

| what came back                                   | then                                         |
|--------------------------------------------------|----------------------------------------------|
| 2xx with a JSON object                           | succeeded                                    |
| 408, 409, 429, 5xx, no answer, an unreadable one | again after a back-off; no attempt left: dead |
| any other 4xx                                    | failed: the request is at fault              |
| an input that is not what was pinned             | failed: the request is at fault              |
| the run limit passed                             | failed, `timeout`                            |
| the deadline passed                              | failed, `deadline`                           |
| no replica                                       | again; it was no attempt                     |
| storage or keys do not answer, or are full       | again after some seconds; it was no attempt  |
| what is stored does not open                     | again after a back-off; no attempt left: dead |
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
from tidegate_controlplane.objects.base import ObjectStoreError
from tidegate_controlplane.settings import WorkSettings

OUTAGE_BACKOFFS = 5
"""First back-offs that an outage is given before storage is asked again."""
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
    DEADLINE = auto()
    """It is too late for its answer."""
    NO_REPLICA = auto()
    """Nothing could serve it any more."""
    CANCELED = auto()
    """Its caller asked for that."""
    SHUTDOWN = auto()
    """This process stops."""
    LOST = auto()
    """The lease was taken back; whatever is decided, it changes nothing any more."""


@dataclass(frozen=True)
class Written:
    """An answer that is in the object store already."""

    key: str
    bytes: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Fault:
    """The request itself is at fault, and another run would find it so again."""

    failure: Failure


@dataclass(frozen=True)
class Outage:
    """The platform's own storage, or its keys, could not be used: the request is not at fault."""

    failure: Failure


Reply = Answered | Written | Refused | Failure | Fault | Interrupted | Outage


@dataclass(frozen=True)
class Try:
    """Which attempt this was, of how many; and the random part of a back-off, in [0, 1)."""

    attempt: int
    max_attempts: int
    timeout_s: float
    jitter: float


@dataclass(frozen=True)
class Success:
    answer: bytes | Written
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


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
        case Interrupted.DEADLINE:
            return End(InvocationState.FAILED, DEADLINE_PASSED)
        case Interrupted.NO_REPLICA:
            return Again(settings.retry_base_s, counted=False)
        case Interrupted.CANCELED:
            return End(InvocationState.CANCELED)
        case Interrupted.SHUTDOWN | Interrupted.LOST:
            return Again(0.0, counted=False)
        case Written():
            return Success(reply, reply.prompt_tokens, reply.completion_tokens)
        case Fault(failure=failure):
            return End(InvocationState.FAILED, failure)
        case Outage(failure=failure):
            return Again(outage_s(tried, settings), counted=False, failure=failure)
        case Refused():
            return _again_or_dead(of_refusal(reply), tried, settings)
        case Failure():
            return _again_or_dead(reply, tried, settings)
    if 200 <= reply.status < 300:
        return _read(reply.body) or _again_or_dead(UNREADABLE, tried, settings)
    failure = _of_answer(reply)
    if 400 <= reply.status < 500 and reply.status not in _RETRIED_4XX:
        return End(InvocationState.FAILED, failure)
    return _again_or_dead(failure, tried, settings)


def outage_s(tried: Try, settings: WorkSettings) -> float:
    """Until storage is asked again: seconds, as outages last, and half of them random."""
    whole_s = min(settings.retry_max_s, OUTAGE_BACKOFFS * settings.retry_base_s)
    return whole_s / 2 + whole_s / 2 * tried.jitter


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


def storage_failure(what: str, error: ObjectStoreError) -> Failure:
    return Failure(
        status_code=503,
        message=f"{what}: {error}",
        type="server_error",
        code="storage_unavailable",
    )


WORKER_LOST = Failure(
    status_code=502,
    message="the worker that ran this request was not heard of any more",
    type="server_error",
    code="worker_lost",
)
DEADLINE_PASSED = Failure(
    status_code=504,
    message="the deadline of this request came before its answer",
    type="server_error",
    code="deadline",
)
RESULT_TOO_LARGE = Failure(
    status_code=413,
    message="the answer is larger than the platform keeps; send fewer items in one request",
    type="invalid_request_error",
    code="result_too_large",
)
REQUEST_LOST = Failure(
    status_code=500,
    message="the stored body of this request is gone from the object store",
    type="server_error",
    code="request_lost",
)
UNREADABLE = Failure(
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
    details = tokens.get("prompt_tokens_details")
    return Success(
        body,
        _count(tokens.get("prompt_tokens")),
        _count(tokens.get("completion_tokens")),
        _count(details.get("cached_tokens")) if isinstance(details, dict) else 0,
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


def of_refusal(refused: Refused) -> Failure:
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
