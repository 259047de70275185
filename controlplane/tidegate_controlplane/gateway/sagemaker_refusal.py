"""What SageMaker means when it refuses a request, in the words that the gateway acts on.

A component without a copy answers `ValidationError`, as a wrong request does; only the message
tells them apart. What the model itself answered with an error status comes as `ModelError`, and is
taken out of it again, so that callers see the runtime's own answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tidegate_controlplane.errors import DeadlinePassed
from tidegate_controlplane.gateway.hop import ReplicaFailed, ReplicaFull, ReplicaGone

ANSWER_S = 60
"""SageMaker waits so long for an answer in one piece (its model hosting FAQ)."""
MOST_BYTES = 256 * 1024
"""Of a refusal."""
NOT_NOW = frozenset({"ModelNotReadyException", "ThrottlingException", "ServiceUnavailable"})
NO_RIGHTS = frozenset(
    {
        "AccessDeniedException",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "UnrecognizedClientException",
    }
)


class Whole:
    """Implements `Content` with bytes that are here already."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self, n: int = -1, /) -> bytes:
        size = len(self._body) if n < 0 else n
        found, self._body = self._body[:size], self._body[size:]
        return found

    async def readany(self) -> bytes:
        return await self.read()


@dataclass(frozen=True)
class OwnAnswer:
    """Implements `Reply`: what the model answered with an error status."""

    status: int
    content: Whole
    content_type: str = "application/json"

    def close(self) -> None:
        """Nothing is open."""


def understood(status: int, kind: str, said: bytes) -> OwnAnswer:
    """The model's own answer, when the refusal is one; `kind` is the name of SageMaker's error.

    Raises ReplicaFull when no copy is there yet or none takes more, ReplicaGone when the endpoint
    is, DeadlinePassed at SageMaker's own limit, ReplicaFailed otherwise.
    """
    told = _document(said)
    kind = kind or str(told.get("__type") or told.get("code") or "").rpartition("#")[2]
    message = str(told.get("Message") or told.get("message") or "")
    if kind == "ModelError":
        return _of_model(told, message)
    if kind in NOT_NOW or "no capacity to process" in message:
        raise ReplicaFull
    if kind in NO_RIGHTS:
        raise ReplicaFailed(f"AWS refused the platform's credentials ({kind})")
    if kind == "ValidationError" and "not found" in message.lower():
        raise ReplicaGone("its endpoint is gone")
    raise ReplicaFailed(f"SageMaker answered {status} {kind}: {message}".strip(": "))


def _of_model(told: dict[str, Any], message: str) -> OwnAnswer:
    status = told.get("OriginalStatusCode") or 0
    if "timed out while waiting for a response" in message:
        raise DeadlinePassed(
            f"SageMaker waits {ANSWER_S} s for an answer in one piece; ask for less at once"
        )
    if not status:
        raise ReplicaFailed(f"its container did not answer: {message}")
    own = str(told.get("OriginalMessage") or "").encode()
    if "error" not in _document(own):
        own = _error(status, own.decode() or "the model refused the request")
    return OwnAnswer(status, Whole(own))


def _error(status: int, message: str) -> bytes:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return json.dumps({"error": {"message": message, "type": kind, "code": "model_error"}}).encode()


def _document(said: bytes) -> dict[str, Any]:
    try:
        found = json.loads(said)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
