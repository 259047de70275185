"""The client: one server, one key, one pool of connections."""

from __future__ import annotations

import os
from collections.abc import Mapping
from os import PathLike
from types import TracebackType

import httpx

from tidegate import wire
from tidegate.client.deployment import Deployment
from tidegate.client.model import ServedModel
from tidegate.client.offers import Offers
from tidegate.client.pump import Pump
from tidegate.client.resources import (
    Batches,
    Deployments,
    Encryption,
    Files,
    Invocations,
    Keys,
    Models,
    Rollouts,
)
from tidegate.client.webhooks import Webhooks
from tidegate.connection import resolve
from tidegate.flow.retry import RetryPolicy
from tidegate.protocol.resources import PlanView, UsageView, VersionView
from tidegate.routes import deployments, platform
from tidegate.routes.declare import Declared, Part, declaration, declaration_of
from tidegate.spec import DeploymentSpec, Mode, Task


class Client:
    """Talks to a Tidegate server and waits for its answers.

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
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        connection = resolve(url, api_key, os.environ)
        http = httpx.Client(**wire.settings(connection, timeout), transport=transport)
        self._hold(Pump(http, timeout, RetryPolicy(max_retries)))

    def _hold(self, pump: Pump) -> None:
        self._pump = pump
        self.deployments = Deployments(pump)
        self.rollouts = Rollouts(pump)
        self.models = Models(pump)
        self.keys = Keys(pump)
        self.encryption = Encryption(pump)
        self.offers = Offers(pump)
        self.invocations = Invocations(pump)
        self.batches = Batches(pump)
        self.files = Files(pump)
        self.webhooks = Webhooks(pump)

    @property
    def url(self) -> str:
        """The server's base URL."""
        return str(self._pump.http.base_url).rstrip("/")

    def with_options(
        self, *, timeout: float | None = None, max_retries: int | None = None
    ) -> Client:
        """The same client with another timeout (seconds) or number of retries, on the same pool."""
        policy = self._pump.policy if max_retries is None else RetryPolicy(max_retries)
        timeout_s = self._pump.timeout_s if timeout is None else timeout
        twin = object.__new__(type(self))
        twin._hold(Pump(self._pump.http, timeout_s, policy))
        return twin

    def deploy(
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
    ) -> Deployment:
        """Declare a model and how it is served: serverless, unless `mode` says otherwise.

        `source` is a directory, a `.gguf` file, `s3://bucket/prefix` or `hf://org/name`, or a whole
        DeploymentSpec. A relative path is read from the working directory. Declaring the same again
        changes nothing. With `wait`, returns once it serves.

        Raises InvalidDeclaration; PreconditionFailed when `replace` is false and the name is taken;
        with `wait`, what `Deployment.wait_ready` raises.
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
        deployment = self.apply(declaration_of(source, name, fields), replace=replace)
        return deployment.wait_ready() if wait else deployment

    def apply(
        self, spec: Declared, *, replace: bool = True, if_match: str | None = None
    ) -> Deployment:
        """Make the server's declaration this one; the same twice changes nothing.

        `spec` is a DeploymentSpec, a mapping, or YAML or JSON text. With `if_match` (an `etag`),
        raises PreconditionFailed when someone else changed it since.
        """
        flow = deployments.apply(declaration(spec), replace=replace, if_match=if_match)
        return Deployment(self._pump, *self._pump.run(flow))

    def plan(self, spec: Declared) -> PlanView:
        """What `apply` would change and what would run; nothing is touched."""
        return self._pump.run(deployments.plan(declaration(spec)))

    def model(self, name: str) -> ServedModel:
        """A deployment's model by name, to use it; nothing is asked of the server yet."""
        return ServedModel(self._pump, name)

    def usage(self) -> list[UsageView]:
        """Requests and tokens so far, by deployment."""
        return self._pump.run(platform.usage())

    def version(self) -> VersionView:
        """The server's version."""
        return self._pump.run(platform.version())

    def close(self) -> None:
        """Close the connections; the client and all that came from it are then of no more use."""
        self._pump.http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"
