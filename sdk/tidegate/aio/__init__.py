"""The client that is awaited: the twin of `tidegate.client`, file by file."""

from tidegate.aio.client import AsyncClient
from tidegate.aio.deployment import AsyncDeployment
from tidegate.aio.model import AsyncServedModel
from tidegate.aio.stream import AsyncStream
from tidegate.aio.work import AsyncBatch, AsyncInvocation, AsyncTableBatch

__all__ = [
    "AsyncBatch",
    "AsyncClient",
    "AsyncDeployment",
    "AsyncInvocation",
    "AsyncServedModel",
    "AsyncStream",
    "AsyncTableBatch",
]
