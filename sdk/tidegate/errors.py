"""Everything that can go wrong, in one tree.

    TidegateError
    ├── ConfigurationError          no URL or key, or one that cannot be used
    ├── ConnectionFailed            the server could not be reached, or hung up
    │   └── RequestTimeout          it was reached but stayed silent for too long
    ├── APIError                    the server answered, and the answer is an error
    │   ├── BadRequest              400
    │   ├── AuthenticationFailed    401
    │   ├── PermissionDenied        403
    │   ├── NotFound                404
    │   ├── Conflict                409
    │   ├── PreconditionFailed      412
    │   ├── TooLarge                413
    │   ├── Unprocessable           422
    │   │   └── InvalidDeclaration  422 for a declaration; also raised before it is sent
    │   ├── RateLimited             429, with `retry_after_s`
    │   ├── ServerError             5xx
    │   │   └── Unavailable         503, with `retry_after_s`
    │   └── UnexpectedAnswer        a success whose body is not what was promised
    ├── WaitTimeout                 it was not finished in the time given
    ├── DeploymentFailed            the deployment will not become ready, with `reason`
    ├── InvocationFailed            the invocation ended without a result
    ├── BatchFailed                 the batch ended before it was completed
    ├── TableError                  a table (CSV, JSON lines, Parquet) cannot be read or written
    ├── InvalidSignature            what was received is no webhook of this secret, or an old one
    └── LocalError                  what runs on this machine (platform, build) did not succeed

`str(error)` is one sentence that names what was wrong, with which value, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tidegate.spec.errors import SpecError, SpecIssue

if TYPE_CHECKING:
    from tidegate.protocol.resources import DeploymentView
    from tidegate.protocol.work import BatchObject, Invocation

__all__ = [
    "APIError",
    "AuthenticationFailed",
    "BadRequest",
    "BatchFailed",
    "ConfigurationError",
    "Conflict",
    "ConnectionFailed",
    "DeploymentFailed",
    "InvalidDeclaration",
    "InvalidSignature",
    "InvocationFailed",
    "LocalError",
    "NotFound",
    "PermissionDenied",
    "PreconditionFailed",
    "RateLimited",
    "RequestTimeout",
    "ServerError",
    "TableError",
    "TidegateError",
    "TooLarge",
    "Unavailable",
    "UnexpectedAnswer",
    "Unprocessable",
    "WaitTimeout",
]


class TidegateError(Exception):
    """The root: catch this to catch all that this package raises."""


class ConfigurationError(TidegateError):
    """The client was not told where the server is, who is asking, or something unusable."""


class ConnectionFailed(TidegateError):
    """No answer arrived. `sent` says whether the request may have reached the server."""

    def __init__(self, message: str, *, sent: bool = True) -> None:
        self.sent = sent
        super().__init__(message)


class RequestTimeout(ConnectionFailed):
    """The server stayed silent for longer than the timeout."""


class APIError(TidegateError):
    """The server answered with an error.

    Attributes: `status` (HTTP), `code` (a word for machines, or None), `message`, `param` (the
    request's field, or None), `request_id` (quote it when asking for help), `issues` (every fault
    of a declaration), `retry_after_s` (seconds, when the server said that waiting helps).
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
        issues: Sequence[SpecIssue] = (),
        retry_after_s: float | None = None,
    ) -> None:
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.request_id = request_id
        self.issues = tuple(issues)
        self.retry_after_s = retry_after_s
        super().__init__(message)


class BadRequest(APIError):
    """400: the request cannot be honoured as it stands."""


class AuthenticationFailed(APIError):
    """401: no API key, or one that is unknown or revoked."""


class PermissionDenied(APIError):
    """403: the key's role does not allow this."""


class NotFound(APIError):
    """404: there is no such thing."""


class Conflict(APIError):
    """409: the present state does not allow this."""


class PreconditionFailed(APIError):
    """412: someone else changed it first, or the name is taken."""


class TooLarge(APIError):
    """413: the body is larger than the server accepts."""


class Unprocessable(APIError):
    """422: well-formed, but it contradicts itself or an earlier request."""


class InvalidDeclaration(Unprocessable):
    """A declaration that cannot be; `issues` names each field, its value and the remedy."""

    @classmethod
    def of(cls, error: SpecError) -> InvalidDeclaration:
        """The same refusal that the server would give, found before sending."""
        return cls(str(error), status=422, code="invalid_declaration", issues=error.issues)


class RateLimited(APIError):
    """429: over the key's limits."""


class ServerError(APIError):
    """5xx: the server failed."""


class Unavailable(ServerError):
    """503: not now."""


class UnexpectedAnswer(APIError):
    """The answer is not what this route promises; perhaps the URL is not a Tidegate server."""


class WaitTimeout(TidegateError):
    """What was waited for did not happen within `timeout_s`; it may still happen."""

    def __init__(self, what: str, state: str, timeout_s: float) -> None:
        self.state = state
        self.timeout_s = timeout_s
        super().__init__(f"{what} was still {state} after {timeout_s:g} s; it goes on by itself")


class DeploymentFailed(TidegateError):
    """The deployment will not become ready by waiting. `reason` is a word for machines."""

    def __init__(self, view: DeploymentView) -> None:
        broken = next((c for c in view.conditions if c.type == "Ready" and not c.status), None)
        broken = broken or next((c for c in view.conditions if not c.status), None)
        self.view = view
        self.reason = broken.reason if broken else view.phase.value.capitalize()
        self.message = (broken.message if broken else "") or view.message
        detail = f": {self.message}" if self.message else ""
        super().__init__(f"deployment '{view.name}' is {view.phase.value} ({self.reason}){detail}")


class InvocationFailed(TidegateError):
    """The invocation ended as failed, dead, canceled or expired; `invocation.error` says why."""

    def __init__(self, invocation: Invocation) -> None:
        self.invocation = invocation
        detail = f": {invocation.error.message}" if invocation.error else ""
        super().__init__(f"invocation {invocation.id} {invocation.status.value}{detail}")


class TableError(TidegateError):
    """A table cannot be read or written; the message says where and why."""


class BatchFailed(TidegateError):
    """The batch ended as failed, expired or cancelled; what was done can still be read."""

    def __init__(self, batch: BatchObject) -> None:
        self.batch = batch
        found = batch.errors.data if batch.errors else []
        first = f": {_located(found[0].line)}{found[0].message}" if found else ""
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        super().__init__(f"batch {batch.id} {batch.status.value}{first}{more}")


class InvalidSignature(TidegateError):
    """A request that claims to be a webhook is not, was changed, or was captured and sent again."""


class LocalError(TidegateError):
    """A platform on this machine could not be started or stopped, or an artifact not be made."""


def _located(line: int | None) -> str:
    return f"line {line}: " if line is not None else ""
