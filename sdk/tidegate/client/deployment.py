"""A deployment at hand: its model, and the levers of who runs it."""

from __future__ import annotations

from collections.abc import Callable

from tidegate.client.model import ServedModel
from tidegate.client.pump import Pump
from tidegate.client.stream import Stream
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


class Deployment(ServedModel):
    """What was declared, where it stands, and a `ServedModel` to use it."""

    def __init__(self, pump: Pump, view: DeploymentView, etag: str | None = None) -> None:
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

    def refresh(self) -> Deployment:
        """Look again; returns itself."""
        return self._now(self._pump.run(routes.get(self.name)))

    def wait_ready(
        self,
        timeout_s: float | None = 600,
        on_progress: Callable[[DeploymentView], None] | None = None,
    ) -> Deployment:
        """Wait until it serves: ready, or idle and woken by the next request. Returns itself.

        `on_progress` sees every change. Raises DeploymentFailed with the reason as soon as it is
        known to fail, WaitTimeout after `timeout_s` seconds.
        """
        flow = routes.wait_ready(self.name, timeout_s=timeout_s, on_progress=on_progress)
        return self._now(self._pump.run(flow))

    def scale(
        self,
        min: int | None = None,  # noqa: A002
        max: int | None = None,  # noqa: A002
    ) -> Deployment:
        """Change the bounds on its replicas; an absent one stays. Returns itself."""
        return self._now(self._pump.run(routes.scale(self.name, min, max)))

    def add_adapter(self, name: str, source: str) -> Deployment:
        """Serve a LoRA adapter as `model:name` while replicas go on. Returns itself."""
        return self._now(self._pump.run(routes.add_adapter(self.name, name, source)))

    def remove_adapter(self, name: str) -> Deployment:
        """Serve an adapter no longer; requests that have begun end with it. Returns itself."""
        return self._now(self._pump.run(routes.remove_adapter(self.name, name)))

    def wake(self) -> Deployment:
        """Start a replica before the first request asks for one. Returns itself."""
        return self._now(self._pump.run(routes.wake(self.name)))

    def profile(self, seconds: float = 10, replica: str | None = None) -> EngineProfile:
        """Record where the steps of a ready replica go: the busiest, or the one with that id.

        Raises Conflict when none is ready, or while it is being recorded already.
        """
        return self._pump.run(routes.profile(self.name, seconds, replica))

    def rollout(self) -> RolloutView:
        """The present rollout, or the last one. Raises NotFound before the first."""
        return self._pump.run(rollouts.newest(self.name))

    def promote(self) -> RolloutView:
        """Let the new revision take all now."""
        return self._pump.run(rollouts.request_newest(self.name, "promote"))

    def abort(self) -> RolloutView:
        """Send the traffic back to the former revision."""
        return self._pump.run(rollouts.request_newest(self.name, "abort"))

    def wait_rollout(
        self,
        timeout_s: float | None = 600,
        on_progress: Callable[[RolloutView], None] | None = None,
    ) -> RolloutView:
        """The newest rollout once it has ended, promoted or rolled back.

        `on_progress` sees every change. Raises WaitTimeout after `timeout_s` seconds.
        """
        flow = rollouts.wait(self.name, timeout_s=timeout_s, on_progress=on_progress)
        return self._pump.run(flow)

    def rollback(self, to: int | None = None) -> Deployment:
        """Declare the former revision, or the one with that number, again. Returns itself."""
        return self._now(self._pump.run(rollouts.rollback(self.name, to)))

    def replicas(self) -> list[ReplicaView]:
        return self._pump.run(routes.replicas(self.name))

    def revisions(self) -> list[RevisionView]:
        return self._pump.run(routes.revisions(self.name))

    def logs(self, follow: bool = False) -> Stream[LogLine]:
        """Its replicas' log lines; with `follow`, those still to come too, until closed."""
        return self._pump.stream(routes.logs(self.name, follow=follow))

    def events(self, follow: bool = False) -> Stream[EventView]:
        """What happened to it, oldest first; with `follow`, what still happens, until closed."""
        return self._pump.stream(routes.events(self.name, follow=follow))

    def decisions(self) -> Stream[DecisionView]:
        """What the autoscaler decided of its replicas and why, oldest first."""
        return self._pump.stream(routes.decisions(self.name))

    def delete(self, wait: bool = True, timeout_s: float | None = 300) -> None:
        """Delete it; with `wait`, return when nothing of it runs any more."""
        self._pump.run(routes.delete(self.name, wait=wait, timeout_s=timeout_s))

    def _now(self, seen: routes.Seen) -> Deployment:
        self._view, self._etag = seen
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self.phase.value}>"
