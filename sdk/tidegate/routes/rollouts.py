"""Rollouts: look, wait, promote, abort, roll back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal
from urllib.parse import quote

from tidegate.flow.pages import pages, read
from tidegate.flow.poll import poll
from tidegate.flow.steps import Emitting, Flow, Request, ask
from tidegate.protocol.resources import DeploymentView, RolloutPhase, RolloutView
from tidegate.routes.deployments import Seen, path

ROOT = "/api/v1/rollouts"
ENDED = frozenset({RolloutPhase.PROMOTED, RolloutPhase.ROLLED_BACK})


def newest(name: str) -> Flow[RolloutView]:
    reply = yield from ask(Request("GET", path(name, "rollout")))
    return read(reply, RolloutView)


def listing(deployment: str | None) -> Emitting[RolloutView]:
    query = {"deployment": deployment} if deployment else {}
    return pages(Request("GET", ROOT, query=query), RolloutView, lambda view: view)


def request(rollout_id: str, wanted: Literal["promote", "abort"]) -> Flow[RolloutView]:
    """Ask for its end; asking twice is harmless."""
    reply = yield from ask(Request("POST", f"{ROOT}/{quote(rollout_id, safe='')}/{wanted}"))
    return read(reply, RolloutView)


def request_newest(name: str, wanted: Literal["promote", "abort"]) -> Flow[RolloutView]:
    view = yield from newest(name)
    return (yield from request(view.id, wanted))


def wait(
    name: str, *, timeout_s: float | None, on_progress: Callable[[RolloutView], None] | None
) -> Flow[RolloutView]:
    """The newest rollout when it has ended, promoted or rolled back. Raises WaitTimeout."""
    return poll(
        lambda: newest(name),
        lambda view: view.phase in ENDED,
        lambda view: (f"rollout of '{name}'", f"{view.phase.value} ({view.message})"),
        timeout_s=timeout_s,
        on_change=on_progress,
    )


def rollback(name: str, to: int | None) -> Flow[Seen]:
    body = {} if to is None else {"to": to}
    reply = yield from ask(Request("POST", path(name, "rollback"), json=body))
    return read(reply, DeploymentView), reply.headers.get("etag")
