"""The provider as a plugin: Pulumi starts it, reads the port that it says, and asks there."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress

import grpc
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.proto import provider_pb2_grpc

from tidegate.version import VERSION
from tidegate_infra.provider.provider import TidegateProvider
from tidegate_infra.provider.sdk_faults import Servicer


def main() -> None:
    """`pulumi-resource-tidegate [DIRECTORY] ENGINE [--flags]`, as Pulumi calls it."""
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(TidegateProvider(), engine_address(sys.argv[1:])))


def engine_address(arguments: Sequence[str]) -> str:
    """The last argument that is no flag; a plugin by source is given its directory before it."""
    words = [each for each in arguments if not each.startswith("-")]
    return words[-1] if words else ""


async def serve(provider: TidegateProvider, engine: str) -> None:
    """Say the port and answer until the process is ended."""
    server = grpc.aio.server(options=_GRPC_CHANNEL_OPTIONS)
    servicer = Servicer([], VERSION, provider, engine)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    try:
        await server.wait_for_termination()
    finally:
        await provider.close()
