"""A deployment at hand: its model, and the levers of who runs it."""

from __future__ import annotations

from collections.abc import Callable

from tidegate.aio.model import AsyncServedModel
from tidegate.aio.pump import AsyncPump
from tidegate.aio.stream import AsyncStream
from tidegate.protocol.profile import EngineProfile
from tidegate.protocol.resources import (
    DecisionView,
    DeploymentPhase,
    DeploymentView,
    EventView,
    LogLine,
    ReplicaView,
    RevisionView,
    RolloutView,
)
from tidegate.routes import deployments as routes
from tidegate.routes import rollouts
from tidegate.spec import DeploymentSpec


class AsyncDeployment(AsyncServedModel):
    """What was declared, where it stands, and a `AsyncServedModel` to use it."""

    def __init__(self, pump: AsyncPump, view: DeploymentView, etag: str | None = None) -> None:
        super().__init__(pump, view.name)
        self._view = view
        self._etag = etag

    @property
    def view(self) -> DeploymentView:
        """What the server last said about it; `refresh()` looks again."""
        return self._view

    @property
    def spec(self) -> DeploymentSpec:
        """The declaration, when last seen."""
        return self._view.spec

    @property
    def phase(self) -> DeploymentPhase:
        """Where it stood when last seen."""
        return self._view.phase

    @property
    def etag(self) -> str | None:
        """For `client.apply(spec, if_match=...)`; None when it came from a list."""
        return self._etag

    async def refresh(self) -> AsyncDeployment:
        """Look again; returns itself."""
        return self._now(await self._pump.run(routes.get(self.name)))

    async def wait_ready(
        self,
        timeout_s: float | None = 600,
        on_progress: Callable[[DeploymentView], None] | None = None,
    ) -> AsyncDeployment:
        """Wait until it serves: ready, or idle and woken by the next request. Returns itself.

        `on_progress` sees every change. Raises DeploymentFailed with the reason as soon as it is
        known to fail, WaitTimeout after `timeout_s` seconds.
        """
        flow = routes.wait_ready(self.name, timeout_s=timeout_s, on_progress=on_progress)
        return self._now(await self._pump.run(flow))

    async def scale(
        self,
        min: int | None = None,  # noqa: A002
        max: int | None = None,  # noqa: A002
    ) -> AsyncDeployment:
        """Change the bounds on its replicas; an absent one stays. Returns itself."""
        return self._now(await self._pump.run(routes.scale(self.name, min, max)))

    async def add_adapter(self, name: str, source: str) -> AsyncDeployment:
        """Serve a LoRA adapter as `model:name` while replicas go on. Returns itself."""
        return self._now(await self._pump.run(routes.add_adapter(self.name, name, source)))

    async def remove_adapter(self, name: str) -> AsyncDeployment:
        """Serve an adapter no longer; requests that have begun end with it. Returns itself."""
        return self._now(await self._pump.run(routes.remove_adapter(self.name, name)))

    async def wake(self) -> AsyncDeployment:
        """Start a replica before the first request asks for one. Returns itself."""
        return self._now(await self._pump.run(routes.wake(self.name)))

    async def profile(self, seconds: float = 10, replica: str | None = None) -> EngineProfile:
        """Record where the steps of a ready replica go: the busiest, or the one with that id.

        Raises Conflict when none is ready, or while it is being recorded already.
        """
        return await self._pump.run(routes.profile(self.name, seconds, replica))

    async def rollout(self) -> RolloutView:
        """The present rollout, or the last one. Raises NotFound before the first."""
        return await self._pump.run(rollouts.newest(self.name))

    async def promote(self) -> RolloutView:
        """Let the new revision take all now."""
        return await self._pump.run(rollouts.request_newest(self.name, "promote"))

    async def abort(self) -> RolloutView:
        """Send the traffic back to the former revision."""
        return await self._pump.run(rollouts.request_newest(self.name, "abort"))

    async def wait_rollout(
        self,
        timeout_s: float | None = 600,
        on_progress: Callable[[RolloutView], None] | None = None,
    ) -> RolloutView:
        """The newest rollout once it has ended, promoted or rolled back.

        `on_progress` sees every change. Raises WaitTimeout after `timeout_s` seconds.
        """
        flow = rollouts.wait(self.name, timeout_s=timeout_s, on_progress=on_progress)
        return await self._pump.run(flow)

    async def rollback(self, to: int | None = None) -> AsyncDeployment:
        """Declare the former revision, or the one with that number, again. Returns itself."""
        return self._now(await self._pump.run(rollouts.rollback(self.name, to)))

    async def replicas(self) -> list[ReplicaView]:
        return await self._pump.run(routes.replicas(self.name))

    async def revisions(self) -> list[RevisionView]:
        return await self._pump.run(routes.revisions(self.name))

    def logs(self, follow: bool = False) -> AsyncStream[LogLine]:
        """Its replicas' log lines; with `follow`, those still to come too, until closed."""
        return self._pump.stream(routes.logs(self.name, follow=follow))

    def events(self, follow: bool = False) -> AsyncStream[EventView]:
        """What happened to it, oldest first; with `follow`, what still happens, until closed."""
        return self._pump.stream(routes.events(self.name, follow=follow))

    def decisions(self) -> AsyncStream[DecisionView]:
        """What the autoscaler decided of its replicas and why, oldest first."""
        return self._pump.stream(routes.decisions(self.name))

    async def delete(self, wait: bool = True, timeout_s: float | None = 300) -> None:
        """Delete it; with `wait`, return when nothing of it runs any more."""
        await self._pump.run(routes.delete(self.name, wait=wait, timeout_s=timeout_s))

    def _now(self, seen: routes.Seen) -> AsyncDeployment:
        self._view, self._etag = seen
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self.phase.value}>"
