"""Tidegate: declare a language model and how it should be served, then use it.

    >>> from tidegate import Client
    >>> with Client() as client:                               # doctest: +SKIP
    ...     smol = client.deploy("hf://org/name", name="smol", wait=True)
    ...     print(smol.chat("What is the capital of France? Answer in one sentence.").text)

`AsyncClient` has the same surface, awaited. Every error is a `TidegateError`; `tidegate.errors`
draws the tree. Names are loaded on first use, so that importing this package costs next to nothing
and `tidegate.spec` can be used without an HTTP client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tidegate.version import VERSION

if TYPE_CHECKING:
    from tidegate.aio import (
        AsyncBatch,
        AsyncClient,
        AsyncDeployment,
        AsyncInvocation,
        AsyncServedModel,
        AsyncStream,
    )
    from tidegate.answers import (
        BatchResult,
        ChatAnswer,
        ChatChunk,
        Embeddings,
        Ranks,
        Scores,
        TextAnswer,
    )
    from tidegate.client import Batch, Client, Deployment, Invocation, ServedModel, Stream
    from tidegate.errors import (
        APIError,
        AuthenticationFailed,
        BadRequest,
        BatchFailed,
        ConfigurationError,
        Conflict,
        ConnectionFailed,
        DeploymentFailed,
        InvalidDeclaration,
        InvalidSignature,
        InvocationFailed,
        LocalError,
        NotFound,
        PermissionDenied,
        PreconditionFailed,
        RateLimited,
        RequestTimeout,
        ServerError,
        TableError,
        TidegateError,
        TooLarge,
        Unavailable,
        UnexpectedAnswer,
        Unprocessable,
        WaitTimeout,
    )
    from tidegate.spec import (
        CanarySpec,
        CanaryStep,
        DeploymentSpec,
        GpuSpec,
        HardwareSpec,
        KvSpillSpec,
        Mode,
        ModelSpec,
        Pooling,
        Precision,
        RollbackSpec,
        RolloutSpec,
        RuntimeSpec,
        ScalingSpec,
        ScheduleSpec,
        ShadowSpec,
        SloSpec,
        SpeculationSpec,
        Strategy,
        Task,
    )

__all__ = [
    "APIError",
    "AsyncBatch",
    "AsyncClient",
    "AsyncDeployment",
    "AsyncInvocation",
    "AsyncServedModel",
    "AsyncStream",
    "AuthenticationFailed",
    "BadRequest",
    "Batch",
    "BatchFailed",
    "BatchResult",
    "CanarySpec",
    "CanaryStep",
    "ChatAnswer",
    "ChatChunk",
    "Client",
    "ConfigurationError",
    "Conflict",
    "ConnectionFailed",
    "Deployment",
    "DeploymentFailed",
    "DeploymentSpec",
    "Embeddings",
    "GpuSpec",
    "HardwareSpec",
    "InvalidDeclaration",
    "InvalidSignature",
    "Invocation",
    "InvocationFailed",
    "KvSpillSpec",
    "LocalError",
    "Mode",
    "ModelSpec",
    "NotFound",
    "PermissionDenied",
    "Pooling",
    "Precision",
    "PreconditionFailed",
    "Ranks",
    "RateLimited",
    "RequestTimeout",
    "RollbackSpec",
    "RolloutSpec",
    "RuntimeSpec",
    "ScalingSpec",
    "ScheduleSpec",
    "Scores",
    "ServedModel",
    "ServerError",
    "ShadowSpec",
    "SloSpec",
    "SpeculationSpec",
    "Strategy",
    "Stream",
    "TableError",
    "Task",
    "TextAnswer",
    "TidegateError",
    "TooLarge",
    "Unavailable",
    "UnexpectedAnswer",
    "Unprocessable",
    "WaitTimeout",
    "__version__",
]

__version__ = VERSION
_ROOMS = ("tidegate.errors", "tidegate.spec", "tidegate.answers", "tidegate.client", "tidegate.aio")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for room in _ROOMS:
            module = import_module(room)
            if name in module.__all__:
                globals()[name] = value = getattr(module, name)
                return value
    raise AttributeError(f"module 'tidegate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
