"""Everything that can go wrong in a replica, as one tree.

RuntimeFault
├── ModelRefused        the configuration or the model is at fault; exit status 3
├── InputRefused        what a job is to read or write is at fault; exit status 3
├── ReplicaUnavailable  something outside is at fault and may recover; exit status 1
├── RequestRefused      the caller is at fault, or must come back later; an HTTP 4xx or 503
└── GenerationFailed    this request's tokens cannot be made; an HTTP 500
    ├── GrammarTooCostly  the caller's grammar is at fault; an HTTP 400
    └── EngineDead      no request's tokens can be made any more; an HTTP 503
"""

from __future__ import annotations


class RuntimeFault(Exception):
    """Base of every error that this package raises on purpose."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ModelRefused(RuntimeFault):
    """The model or the configuration can never be served; starting again cannot help.

    `reason` is a CamelCase word for machines, `message` names the value and the remedy.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class InputRefused(RuntimeFault):
    """A job's input or output can never be used; starting again cannot help."""


class ReplicaUnavailable(RuntimeFault):
    """The replica cannot start now, but the same start may succeed later (network, port)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class RequestRefused(RuntimeFault):
    """A request that is not carried out. `status` is the HTTP status of the answer."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.param = param
        self.code = code
        self.status = status
        self.retry_after_s = retry_after_s


class GenerationFailed(RuntimeFault):
    """A request that was accepted ended without all of its tokens."""


class GrammarTooCostly(GenerationFailed):
    """Following the grammar of this request has become too costly; asking again cannot help."""


class EngineDead(GenerationFailed):
    """The step loop failed; the replica must be replaced."""
