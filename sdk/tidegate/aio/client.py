"""The client: one server, one key, one pool of connections."""

from __future__ import annotations

import os
from collections.abc import Mapping
from os import PathLike
from types import TracebackType

import httpx

from tidegate import wire
from tidegate.aio.deployment import AsyncDeployment
from tidegate.aio.model import AsyncServedModel
from tidegate.aio.offers import AsyncOffers
from tidegate.aio.pump import AsyncPump
from tidegate.aio.resources import (
    AsyncBatches,
    AsyncDeployments,
    AsyncEncryption,
    AsyncFiles,
    AsyncInvocations,
    AsyncKeys,
    AsyncModels,
    AsyncRollouts,
)
from tidegate.aio.webhooks import AsyncWebhooks
from tidegate.connection import resolve
from tidegate.flow.retry import RetryPolicy
from tidegate.protocol.resources import PlanView, UsageView, VersionView
from tidegate.routes import deployments, platform
from tidegate.routes.declare import Declared, Part, declaration, declaration_of
from tidegate.spec import DeploymentSpec, Mode, Task


class AsyncClient:
    """Talks to a Tidegate server and awaits its answers; the twin of `Client`.

    `url` and `api_key` default to `TIDEGATE_URL` and `TIDEGATE_API_KEY`, then to the profile that
    `tidegate up` wrote. `timeout` bounds the server's silence in seconds; connecting is bounded by
    5 s. `max_retries` further attempts are made where that is safe. `transport` replaces the
    network, for tests. Raises ConfigurationError when no server or key is known.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = wire.READ_TIMEOUT_S,
        max_retries: int = 2,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        connection = resolve(url, api_key, os.environ)
        http = httpx.AsyncClient(**wire.settings(connection, timeout), transport=transport)
        self._hold(AsyncPump(http, timeout, RetryPolicy(max_retries)))

    def _hold(self, pump: AsyncPump) -> None:
        self._pump = pump
        self.deployments = AsyncDeployments(pump)
        self.rollouts = AsyncRollouts(pump)
        self.models = AsyncModels(pump)
        self.keys = AsyncKeys(pump)
        self.encryption = AsyncEncryption(pump)
        self.offers = AsyncOffers(pump)
        self.invocations = AsyncInvocations(pump)
        self.batches = AsyncBatches(pump)
        self.files = AsyncFiles(pump)
        self.webhooks = AsyncWebhooks(pump)

    @property
    def url(self) -> str:
        """The server's base URL."""
        return str(self._pump.http.base_url).rstrip("/")

    def with_options(
        self, *, timeout: float | None = None, max_retries: int | None = None
    ) -> AsyncClient:
        """The same client with another timeout (seconds) or number of retries, on the same pool."""
        policy = self._pump.policy if max_retries is None else RetryPolicy(max_retries)
        timeout_s = self._pump.timeout_s if timeout is None else timeout
        twin = object.__new__(type(self))
        twin._hold(AsyncPump(self._pump.http, timeout_s, policy))
        return twin

    async def deploy(
        self,
        source: str | PathLike[str] | DeploymentSpec,
        *,
        name: str | None = None,
        mode: Mode | str | None = None,
        task: Task | str | None = None,
        revision: str | None = None,
        runtime: Part | None = None,
        hardware: Part | None = None,
        scaling: Part | None = None,
        slo: Part | None = None,
        rollout: Part | None = None,
        labels: Mapping[str, str] | None = None,
        replace: bool = True,
        wait: bool = False,
    ) -> AsyncDeployment:
        """Declare a model and how it is served: serverless, unless `mode` says otherwise.

        `source` is a directory, a `.gguf` file, `s3://bucket/prefix` or `hf://org/name`, or a whole
        DeploymentSpec. A relative path is read from the working directory. Declaring the same again
        changes nothing. With `wait`, returns once it serves.

        Raises InvalidDeclaration; PreconditionFailed when `replace` is false and the name is taken;
        with `wait`, what `AsyncDeployment.wait_ready` raises.
        """
        fields = {
            "mode": mode,
            "task": task,
            "revision": revision,
            "runtime": runtime,
            "hardware": hardware,
            "scaling": scaling,
            "slo": slo,
            "rollout": rollout,
            "labels": labels,
        }
        deployment = await self.apply(declaration_of(source, name, fields), replace=replace)
        return await deployment.wait_ready() if wait else deployment

    async def apply(
        self, spec: Declared, *, replace: bool = True, if_match: str | None = None
    ) -> AsyncDeployment:
        """Make the server's declaration this one; the same twice changes nothing.

        `spec` is a DeploymentSpec, a mapping, or YAML or JSON text. With `if_match` (an `etag`),
        raises PreconditionFailed when someone else changed it since.
        """
        flow = deployments.apply(declaration(spec), replace=replace, if_match=if_match)
        return AsyncDeployment(self._pump, *await self._pump.run(flow))

    async def plan(self, spec: Declared) -> PlanView:
        """What `apply` would change and what would run; nothing is touched."""
        return await self._pump.run(deployments.plan(declaration(spec)))

    def model(self, name: str) -> AsyncServedModel:
        """A deployment's model by name, to use it; nothing is asked of the server yet."""
        return AsyncServedModel(self._pump, name)

    async def usage(self) -> list[UsageView]:
        """Requests and tokens so far, by deployment."""
        return await self._pump.run(platform.usage())

    async def version(self) -> VersionView:
        """The server's version."""
        return await self._pump.run(platform.version())

    async def close(self) -> None:
        """Close the connections; the client and all that came from it are then of no more use."""
        await self._pump.http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"
