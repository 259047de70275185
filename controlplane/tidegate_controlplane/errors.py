"""What the control plane refuses, as one tree.

    ControlPlaneError
    ├── StartError                       the process cannot start; printed, exit code
    ├── BadTrace                         a simulation is asked for what cannot be; printed
    ├── BackupError                      a backup cannot be made or restored; printed
    └── Refused                          an answer to a caller
        ├── Invalid              422     the declaration is at fault; `issues` name every field
        ├── BadRequest           400
        ├── Unauthenticated      401
        ├── Forbidden            403
        ├── NotFound             404
        ├── Conflict             409
        ├── Gone                 410
        ├── PreconditionFailed   412
        ├── TooLarge             413
        ├── UnprocessableKey     422     an Idempotency-Key used with another body
        ├── RateLimited          429     `retry_after_s`
        ├── UpstreamFailed       502     a replica failed before its first byte, twice
        ├── Unavailable          503     `retry_after_s`
        │   └── OutcomeUnknown   503     a change was made, or not: nobody can say
        └── DeadlinePassed       504

The same error is an RFC 9457 problem under `/api/v1` and OpenAI's envelope under `/v1`; the edges
render it, nobody else knows of HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tidegate.spec import SpecIssue


class ControlPlaneError(Exception):
    """The root: whatever the control plane says on purpose."""


class StartError(ControlPlaneError):
    """The process cannot start; the message says why and what to do."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class BadTrace(ControlPlaneError):
    """A trace, or what shall be done with it, cannot be; the message names the field."""


class BackupError(ControlPlaneError):
    """A backup cannot be made or restored; the message says why and what to do."""


class Refused(ControlPlaneError):
    """An answer to a caller: what was wrong, with which value, and what to do."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Refused"
    kind: ClassVar[str] = "server_error"
    """OpenAI's error `type`."""
    default_code: ClassVar[str] = "refused"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        issues: Sequence[SpecIssue] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param
        self.issues = list(issues)
        self.retry_after_s = retry_after_s


class BadRequest(Refused):
    status, title, kind = 400, "Bad request", "invalid_request_error"
    default_code = "invalid_value"


class Invalid(Refused):
    status, title, kind = 422, "Invalid declaration", "invalid_request_error"
    default_code = "invalid_declaration"


class UnprocessableKey(Refused):
    status, title, kind = 422, "Idempotency key reused", "invalid_request_error"
    default_code = "idempotency_key_reused"


class Unauthenticated(Refused):
    status, title, kind = 401, "Unauthenticated", "authentication_error"
    default_code = "invalid_api_key"


class Forbidden(Refused):
    status, title, kind = 403, "Forbidden", "permission_error"
    default_code = "permission_denied"


class NotFound(Refused):
    status, title, kind = 404, "Not found", "not_found_error"
    default_code = "not_found"


class Conflict(Refused):
    status, title, kind = 409, "Conflict", "invalid_request_error"
    default_code = "conflict"


class Gone(Refused):
    status, title, kind = 410, "Gone", "invalid_request_error"
    default_code = "gone"


class PreconditionFailed(Refused):
    status, title, kind = 412, "Precondition failed", "invalid_request_error"
    default_code = "precondition_failed"


class TooLarge(Refused):
    status, title, kind = 413, "Too large", "invalid_request_error"
    default_code = "request_too_large"


class RateLimited(Refused):
    status, title, kind = 429, "Too many requests", "rate_limit_error"
    default_code = "rate_limit_exceeded"


class UpstreamFailed(Refused):
    status, title = 502, "Replica failed"
    default_code = "replica_failed"


class Unavailable(Refused):
    status, title = 503, "Unavailable"
    default_code = "unavailable"


class OutcomeUnknown(Unavailable):
    """A commit got no answer, and the database did not come back to tell."""

    title = "Outcome unknown"
    default_code = "outcome_unknown"


class DeadlinePassed(Refused):
    status, title = 504, "Deadline passed"
    default_code = "deadline_passed"
