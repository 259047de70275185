"""Provider plugins for the engine double: real ones over gRPC, and a cloud that is invented."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2 as messages
from pulumi.runtime.proto import provider_pb2_grpc as services
from tests.infra_engine.wire import UNKNOWN, Properties, has_unknown, plain, revealed, struct

Stub = services.ResourceProviderStub


@contextmanager
def served(servicer: Any, close: Callable[[], Awaitable[None]]) -> Iterator[Stub]:
    """A servicer whose methods are coroutines, such as the SDK's own, and a stub that asks it.

    `close` is awaited at the end.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def on_loop(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    async def begin() -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server()
        services.add_ResourceProviderServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    server, port = on_loop(begin())
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Stub(channel)
    finally:
        on_loop(server.stop(None))
        on_loop(close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


Invent = Callable[[str, str, Properties], Properties]
"""From a resource's type, its name and its inputs to more of its outputs."""


def arns(kind: str, name: str, inputs: Properties) -> Properties:
    """What nearly every resource of AWS has."""
    return {"arn": f"arn:aws:test:eu-west-1:123456789012:{kind}/{name}", "name": name}


@dataclass
class InventedCloud(services.ResourceProviderServicer):
    """A double of a cloud's provider: keeps what it is told, invents an id, and does nothing.

    It knows no schema, so it accepts any property; `before` sees each step (`create`, `update`,
    `delete`, `read`) with its type and name, and may wait, or raise ValueError to fail it.
    """

    invent: Invent = arns
    before: Callable[[str, str, str], None] = lambda step, kind, name: None
    answer: Callable[[str, Properties], Properties] = lambda token, arguments: arguments
    """What a function of the provider returns."""
    replacing: frozenset[str] = frozenset({"name"})
    """Properties that cannot change in place."""
    kept: dict[str, Properties] = field(default_factory=dict)
    """What there is, by id: change it here, and the stack has drifted."""
    steps: list[tuple[str, str]] = field(default_factory=list)
    """What was done, as step and URN."""
    address: str = ""
    """Where it listens while it is `invented`."""

    def CheckConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        return messages.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        return messages.DiffResponse(changes=messages.DiffResponse.DIFF_NONE)

    def Configure(self, request: Any, context: Any) -> Any:  # noqa: N802
        return messages.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        return messages.CheckResponse(inputs=request.news)

    def Diff(self, request: Any, context: Any) -> Any:  # noqa: N802
        olds, news = plain(request.olds), plain(request.news)
        changed = sorted(key for key in news if olds.get(key) != news[key])
        kinds = messages.DiffResponse
        return messages.DiffResponse(
            changes=kinds.DIFF_SOME if changed else kinds.DIFF_NONE,
            replaces=[key for key in changed if key in self.replacing],
            diffs=changed,
        )

    def Create(self, request: Any, context: Any) -> Any:  # noqa: N802
        kind, name = _type_and_name(request.urn)
        inputs = plain(request.properties)
        if request.preview:
            invented = dict.fromkeys(self.invent(kind, name, inputs), UNKNOWN)
            return messages.CreateResponse(id="", properties=struct({**invented, **inputs}))
        self._step("create", request.urn, context)
        given = revealed(inputs.get("name"))
        name = given if isinstance(given, str) and not has_unknown(given) else f"{name}-1"
        self.kept[name] = {**self.invent(kind, name, inputs), **inputs}
        return messages.CreateResponse(id=name, properties=struct(self.kept[name]))

    def Read(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._step("read", request.urn, context)
        if request.id not in self.kept:
            return messages.ReadResponse(id="")
        now = struct(self.kept[request.id])
        return messages.ReadResponse(id=request.id, properties=now, inputs=request.inputs)

    def Update(self, request: Any, context: Any) -> Any:  # noqa: N802
        outputs = {**plain(request.olds), **plain(request.news)}
        if not request.preview:
            self._step("update", request.urn, context)
            self.kept[request.id] = outputs
        return messages.UpdateResponse(properties=struct(outputs))

    def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._step("delete", request.urn, context)
        self.kept.pop(request.id, None)
        return empty_pb2.Empty()

    def Invoke(self, request: Any, context: Any) -> Any:  # noqa: N802
        said = self.answer(request.tok, plain(request.args))
        return messages.InvokeResponse(**{"return": struct(said)})

    def _step(self, step: str, urn: str, context: grpc.ServicerContext) -> None:
        self.steps.append((step, urn))
        try:
            self.before(step, *_type_and_name(urn))
        except ValueError as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))


@contextmanager
def invented(cloud: InventedCloud) -> Iterator[Stub]:
    """The cloud, and a stub that asks it."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        server = grpc.server(pool)
        services.add_ResourceProviderServicer_to_server(cloud, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                cloud.address = f"127.0.0.1:{port}"
                yield Stub(channel)
        finally:
            server.stop(None).wait()


def _type_and_name(urn: str) -> tuple[str, str]:
    *_, kind, name = urn.split("::")
    return kind.rsplit("$", 1)[-1], name
