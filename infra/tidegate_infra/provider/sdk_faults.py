"""Where Pulumi's SDK falls short of its own protocol (3.272.0), and what we do about it.

- A value that is not known yet arrives as a certain text, and a `Computed` cannot be sent: the
  text itself is what stands for such a value here.
- An integer cannot be sent: every number goes out, and comes in, as a float.
- Every failure is answered with status UNKNOWN and a Python traceback: `Servicer` answers with the
  sentence alone, and says of what was made but did not start what it is, so that Pulumi keeps it.
- Values that carry dependencies are not read when they are unknown: we ask Pulumi not to send such.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from pulumi.provider.experimental.property_value import PropertyValue
from pulumi.provider.experimental.provider import ConfigureResponse
from pulumi.provider.experimental.server import ProviderServicer
from pulumi.runtime import rpc
from pulumi.runtime.proto import provider_pb2, status_pb2

from tidegate import TidegateError
from tidegate_infra.errors import InfraError, StartFailed

T = TypeVar("T")
Values = Mapping[str, PropertyValue]

UNKNOWN: str = rpc.UNKNOWN
"""Stands for a value that only the update itself will know."""
CONFIGURED = ConfigureResponse(
    accept_secrets=True, supports_preview=True, accept_resources=False, accept_outputs=False
)


def plain(value: PropertyValue) -> Any:
    """The value in Python's own types, whole numbers as int, without its secrecy."""
    inner = value.value
    if isinstance(inner, float) and inner.is_integer():
        return int(inner)
    if isinstance(inner, Mapping):
        return {key: plain(each) for key, each in inner.items()}
    if isinstance(inner, Sequence) and not isinstance(inner, str):
        return [plain(each) for each in inner]
    return inner


def plain_map(values: Values) -> dict[str, Any]:
    """As `plain`, without what is null."""
    return {key: plain(value) for key, value in values.items() if value.value is not None}


def value_of(value: Any) -> PropertyValue:
    """A value of Python's own types, to be sent."""
    if isinstance(value, Mapping):
        return PropertyValue({key: value_of(each) for key, each in value.items()})
    if isinstance(value, Sequence) and not isinstance(value, str):
        return PropertyValue([value_of(each) for each in value])
    if isinstance(value, int) and not isinstance(value, bool):
        return PropertyValue(float(value))
    return PropertyValue(value)


def value_map(values: Mapping[str, Any], secret: frozenset[str]) -> dict[str, PropertyValue]:
    """Properties to be sent, those named in `secret` marked as such."""
    return {key: value_of(each).with_secret(key in secret) for key, each in values.items()}


def secrets_in(values: Values) -> frozenset[str]:
    """The properties that are secret, or hold something that is."""
    return frozenset(key for key, value in values.items() if value.contains_secret())


def has_unknown(value: Any) -> bool:
    """Whether it is, or holds, a value that is not known yet."""
    if isinstance(value, Mapping):
        return any(map(has_unknown, value.values()))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return any(map(has_unknown, value))
    return bool(value == UNKNOWN)


class Servicer(ProviderServicer):
    """The SDK's own, which fails in plain sentences."""

    async def CheckConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await _answered(super().CheckConfig(request, context), context)

    async def Configure(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await _answered(super().Configure(request, context), context)

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await _answered(super().Check(request, context), context)

    async def Diff(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await _answered(super().Diff(request, context), context)

    async def Create(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await _answered(super().Create(request, context), context)

    async def Read(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await _answered(super().Read(request, context), context)

    async def Update(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await _answered(super().Update(request, context), context)

    async def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await _answered(super().Delete(request, context), context)


async def _answered(answer: Awaitable[T], context: Any) -> T:
    try:
        return await answer
    except Exception as error:
        cause = error.__context__
        if not isinstance(cause, TidegateError | InfraError):
            raise
        details: tuple[tuple[str, bytes], ...] = ()
        if isinstance(cause, StartFailed):
            details = (("grpc-status-details-bin", _details(cause).SerializeToString()),)
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(cause), details)
        raise


def _details(failed: StartFailed) -> Message:
    status = status_pb2.Status(
        code=grpc.StatusCode.FAILED_PRECONDITION.value[0], message=str(failed)
    )
    made = provider_pb2.ErrorResourceInitFailed(id=failed.resource_id, reasons=[str(failed)])
    made.properties.CopyFrom(PropertyValue.marshal_map(dict(failed.outputs)))
    status.details.add().Pack(made)
    return status
