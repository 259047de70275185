"""SageMaker's control API for inference components, and CloudWatch's for what containers wrote.

Copies are real processes. How SageMaker words what it refuses, and which status follows which, is
as its API reference and its error messages tell; when, is much faster.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from tests.aws_double.containers import Container
from tests.aws_double.runtime import Component, Copy, Runtime
from tests.aws_double.signature import is_signed

NO_CAPACITY = (
    "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error. "
    "Please retry using a different ML instance type or after some time."
)
UNHEALTHY = (
    "The inference component did not pass the ping health check. Please check CloudWatch logs for "
    "this inference component."
)


@dataclass
class Hosted(Component):
    """A component whose copies are processes."""

    name: str = ""
    behaviour: str = "good"
    status: str = "InService"
    desired: int = 0
    failure: str | None = None
    running: dict[Container, Copy | None] = field(default_factory=dict)
    """The copy of each container; None while it starts or ends."""
    log: list[dict[str, Any]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    keeping: asyncio.Task[None] | None = None

    @property
    def current(self) -> int:
        return len(self.running)


@dataclass
class SageMaker(Runtime):
    """All three APIs; point `AWS_ENDPOINT_URL` at it."""

    command: tuple[str, ...] = ()
    home: Path = Path()
    has_capacity: bool = True
    refuses_control: tuple[str, str] | None = None
    """Code and message of what every control call is answered."""
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    url: str = ""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[SageMaker]:
        self._loop, self._numbers = asyncio.get_running_loop(), itertools.count(1)
        app = web.Application()
        self.routes(app)
        app.router.add_post("/", self._control)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            for name in list(self.components):
                await self.delete(name)
            await runner.cleanup()

    # --- what the cloud makes and unmakes ---

    async def create(self, name: str, behaviour: str, copies: int) -> None:
        component = self.components[name] = Hosted(name, name=name, behaviour=behaviour)
        component.desired = copies
        component.keeping = asyncio.create_task(self._keep(component))

    async def delete(self, name: str) -> None:
        component = self.components.pop(name, None)
        if isinstance(component, Hosted) and component.keeping:
            component.keeping.cancel()
            await asyncio.gather(component.keeping, return_exceptions=True)
            await asyncio.gather(*(each.stop(0.1) for each in component.running))

    def on_loop(self, work: Any) -> None:
        """From another thread."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    # --- copies ---

    async def _keep(self, component: Hosted) -> None:
        """As many containers as there shall be; a copy that is lost is made again."""
        while True:
            component.changed.clear()
            if component.current < component.desired and not component.failure:
                await self._begin(component)
            elif component.current > component.desired:
                await self._end(component)
            else:
                component.status = "InService"
                await component.changed.wait()

    async def _begin(self, component: Hosted) -> None:
        component.status = "Updating"
        if not self.has_capacity:
            component.failure = NO_CAPACITY
            return
        number = next(self._numbers)
        home = self.home / str(number)
        made = Container(self.command, home, component.behaviour, number)
        starting = asyncio.create_task(made.start())
        other = asyncio.create_task(component.changed.wait())
        await asyncio.wait({starting, other}, return_when=asyncio.FIRST_COMPLETED)
        other.cancel()
        if not starting.done():  # something else is wanted now
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await made.stop(0)
            return
        url = starting.result()
        if url is None:
            self._write(component, made)
            component.failure = UNHEALTHY
            return
        copy = Copy(url, made.token)
        component.running[made] = copy
        component.copies.append(copy)
        self._watching = asyncio.create_task(self._watch(component, made, copy))

    async def _watch(self, component: Hosted, made: Container, copy: Copy) -> None:
        await made.ended()
        self._write(component, made)
        component.running.pop(made, None)
        if copy in component.copies:
            component.copies.remove(copy)
            component.failure = UNHEALTHY  # the double starts none anew by itself
        component.changed.set()

    async def _end(self, component: Hosted) -> None:
        component.status = "Updating"
        made, copy = component.running.popitem()
        component.running[made] = copy
        if copy in component.copies:
            component.copies.remove(copy)
        await made.stop()
        component.running.pop(made, None)

    def _write(self, component: Hosted, made: Container) -> None:
        at_ms = int(time.time() * 1000)
        for line in made.lines:
            key = f"{component.name}/{len(component.log)}"
            component.log.append({"eventId": key, "timestamp": at_ms, "message": line})
        made.lines.clear()

    # --- the API ---

    async def _control(self, request: web.Request) -> web.Response:
        service, _, name = request.headers["X-Amz-Target"].partition(".")
        body = await request.read()
        said = json.loads(body or b"{}")
        self.calls.append((name, said))
        signs = "logs" if service.startswith("Logs") else "sagemaker"
        if not is_signed(request, body, signs):
            return _refusal("InvalidSignatureException", "The request signature we calculated")
        if self.refuses_control:
            return _refusal(*self.refuses_control)
        answer: Callable[[dict[str, Any]], Any] = getattr(self, f"_{name}")
        try:
            return web.json_response(answer(said), content_type="application/x-amz-json-1.1")
        except LookupError as missing:
            text = f"Could not find inference component '{missing.args[0]}'."
            return _refusal("ValidationException", text)

    def _hosted(self, said: dict[str, Any]) -> Hosted:
        found = self.components[said["InferenceComponentName"]]
        assert isinstance(found, Hosted)
        return found

    def _DescribeInferenceComponent(self, said: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        component = self._hosted(said)
        # A copy is counted when it serves; one that ends is counted until it has.
        answer = {
            "InferenceComponentName": component.name,
            "InferenceComponentArn": f"arn:aws:sagemaker:us-east-1:1:x/{component.name}",
            "EndpointName": component.endpoint,
            "EndpointArn": f"arn:aws:sagemaker:us-east-1:1:endpoint/{component.endpoint}",
            "CreationTime": 0,
            "LastModifiedTime": 0,
            "InferenceComponentStatus": component.status,
            "RuntimeConfig": {
                "DesiredCopyCount": component.desired,
                "CurrentCopyCount": component.current,
            },
        }
        return answer | ({"FailureReason": component.failure} if component.failure else {})

    def _UpdateInferenceComponentRuntimeConfig(self, said: dict[str, Any]) -> Any:  # noqa: N802
        component = self._hosted(said)
        component.desired = said["DesiredRuntimeConfig"]["CopyCount"]
        component.failure, component.status = None, "Updating"
        component.changed.set()
        return {"InferenceComponentArn": "arn:aws:sagemaker:us-east-1:1:x"}

    def _ListInferenceComponents(self, said: dict[str, Any]) -> Any:  # noqa: N802
        names = [name for name in self.components if said["NameContains"] in name]
        return {
            "InferenceComponents": [
                {
                    "CreationTime": 0,
                    "InferenceComponentArn": name,
                    "InferenceComponentName": name,
                    "EndpointArn": name,
                    "EndpointName": name,
                    "VariantName": "copies",
                    "LastModifiedTime": 0,
                }
                for name in names
            ]
        }

    def _DeleteInferenceComponent(self, said: dict[str, Any]) -> Any:  # noqa: N802
        self._deleting = asyncio.create_task(self.delete(self._hosted(said).name))
        return {}

    def _DeleteEndpoint(self, said: dict[str, Any]) -> Any:  # noqa: N802
        return {}

    def _FilterLogEvents(self, said: dict[str, Any]) -> Any:  # noqa: N802
        name = said["logGroupName"].rpartition("/")[2]
        component = self._hosted({"InferenceComponentName": name})
        for made in component.running:
            self._write(component, made)
        return {"events": [e for e in component.log if e["timestamp"] >= said["startTime"]]}


def _refusal(code: str, message: str) -> web.Response:
    return web.json_response({"__type": code, "message": message}, status=400)
