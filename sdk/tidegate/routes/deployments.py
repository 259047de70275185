"""Deployments: declare, observe, scale, delete."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from tidegate.errors import DeploymentFailed, NotFound
from tidegate.flow.pages import collected, pages, read
from tidegate.flow.poll import poll
from tidegate.flow.steps import Emit, Emitting, Flow, Request, Sleep, ask
from tidegate.protocol.profile import EngineProfile
from tidegate.protocol.resources import (
    DecisionView,
    DeploymentPhase,
    DeploymentView,
    EventView,
    LogLine,
    LogPage,
    Page,
    PlanView,
    ReplicaView,
    RevisionView,
)
from tidegate.routes.declare import absolute, body_of
from tidegate.spec import DeploymentSpec, Mode

T = TypeVar("T")
Seen = tuple[DeploymentView, str | None]
"""A deployment and the ETag it had."""

ROOT = "/api/v1/deployments"
SERVING = frozenset({DeploymentPhase.READY, DeploymentPhase.IDLE})
HOPELESS = frozenset(
    {
        DeploymentPhase.FAILED,
        DeploymentPhase.PAUSED,
        DeploymentPhase.DELETING,
        DeploymentPhase.DELETED,
    }
)
LOG_INTERVAL_S = 0.5
EVENT_WAIT_S = 25
LOG_LIMIT = 100
PROFILE_SILENCE_S = 90.0
"""Beyond the seconds that are recorded."""


def path(name: str, *rest: str) -> str:
    """The path of a deployment, or of something below it."""
    return "/".join([ROOT, quote(name, safe=""), *rest])


def apply(spec: DeploymentSpec, *, replace: bool = True, if_match: str | None = None) -> Flow[Seen]:
    """Declare. With `replace` false, PreconditionFailed when the name is taken."""
    headers = {} if replace else {"If-None-Match": "*"}
    if if_match is not None:
        headers["If-Match"] = if_match
    reply = yield from ask(Request("PUT", path(spec.name), headers=headers, json=body_of(spec)))
    return read(reply, DeploymentView), reply.headers.get("etag")


def plan(spec: DeploymentSpec) -> Flow[PlanView]:
    reply = yield from ask(Request("POST", "/api/v1/plans", json=body_of(spec)))
    return read(reply, PlanView)


def get(name: str) -> Flow[Seen]:
    reply = yield from ask(Request("GET", path(name)))
    return read(reply, DeploymentView), reply.headers.get("etag")


def listing(
    mode: Mode | str | None, label: str | None, make: Callable[[DeploymentView], T]
) -> Emitting[T]:
    query = {"mode": str(mode) if mode else None, "label": label}
    given = {key: value for key, value in query.items() if value}
    return pages(Request("GET", ROOT, query=given), DeploymentView, make)


def delete(name: str, *, wait: bool, timeout_s: float | None) -> Flow[None]:
    """Delete, and with `wait` return only when nothing of it runs any more."""
    yield from ask(Request("DELETE", path(name)))
    if wait:
        yield from poll(
            lambda: _seen_or_gone(name),
            lambda view: view is None or view.phase is DeploymentPhase.DELETED,
            lambda view: (f"deployment '{name}'", view.phase.value if view else "gone"),
            timeout_s=timeout_s,
        )


def wait_ready(
    name: str,
    *,
    timeout_s: float | None,
    on_progress: Callable[[DeploymentView], None] | None,
) -> Flow[Seen]:
    """Wait until the present declaration serves: replicas are ready, or a request would wake one.

    Raises DeploymentFailed as soon as waiting cannot help, WaitTimeout when the time is up.
    """
    etag: str | None = None

    def look() -> Flow[DeploymentView]:
        nonlocal etag
        view, etag = yield from get(name)
        return view

    view = yield from poll(
        look,
        is_serving,
        lambda view: (f"deployment '{name}'", _standing(view)),
        timeout_s=timeout_s,
        on_change=on_progress,
    )
    return view, etag


def is_serving(view: DeploymentView) -> bool:
    """Whether the present declaration serves; raises DeploymentFailed when it never will."""
    if view.phase in HOPELESS or _was_rolled_back(view):
        raise DeploymentFailed(view)
    return view.phase in SERVING and view.observed_generation >= view.generation


def _was_rolled_back(view: DeploymentView) -> bool:
    return any(
        (one.type, one.status, one.reason) == ("Current", False, "RolledBack")
        for one in view.conditions
    )


def scale(name: str, minimum: int | None, maximum: int | None) -> Flow[Seen]:
    bounds = {"min_replicas": minimum, "max_replicas": maximum}
    body = {key: value for key, value in bounds.items() if value is not None}
    reply = yield from ask(Request("POST", path(name, "scale"), json=body))
    return read(reply, DeploymentView), reply.headers.get("etag")


def add_adapter(name: str, adapter: str, source: str) -> Flow[Seen]:
    body = {"source": absolute(source, Path.cwd())}
    reply = yield from ask(Request("PUT", path(name, "adapters", adapter), json=body))
    return read(reply, DeploymentView), reply.headers.get("etag")


def remove_adapter(name: str, adapter: str) -> Flow[Seen]:
    reply = yield from ask(Request("DELETE", path(name, "adapters", adapter)))
    return read(reply, DeploymentView), reply.headers.get("etag")


def wake(name: str) -> Flow[Seen]:
    reply = yield from ask(Request("POST", path(name, "wake")))
    return read(reply, DeploymentView), reply.headers.get("etag")


def profile(name: str, seconds: float, replica: str | None) -> Flow[EngineProfile]:
    body = {"seconds": seconds} if replica is None else {"seconds": seconds, "replica": replica}
    silence_s = seconds + PROFILE_SILENCE_S
    request = Request("POST", path(name, "profile"), json=body, timeout_s=silence_s)
    return read((yield from ask(request)), EngineProfile)


def replicas(name: str) -> Flow[list[ReplicaView]]:
    return collected(Request("GET", path(name, "replicas")), ReplicaView)


def revisions(name: str) -> Flow[list[RevisionView]]:
    return collected(Request("GET", path(name, "revisions")), RevisionView)


def logs(name: str, *, follow: bool) -> Emitting[LogLine]:
    """The replicas' log lines; with `follow`, also those still to be written, for ever."""
    cursor: dict[str, str] = {}
    while True:
        query: dict[str, str | int] = {"limit": LOG_LIMIT, **cursor}
        reply = yield from ask(Request("GET", path(name, "logs"), query=query))
        page = read(reply, LogPage)
        for line in page.data:
            yield Emit(line)
        cursor = {"cursor": page.cursor}
        if not page.data:
            if not follow:
                return
            yield Sleep(LOG_INTERVAL_S)


def events(name: str, *, follow: bool) -> Emitting[EventView]:
    """What happened, oldest first; with `follow`, also what still happens, for ever."""
    after: dict[str, str] = {}
    waiting: dict[str, int] = {"wait_s": EVENT_WAIT_S} if follow else {}
    while True:
        query: dict[str, str | int] = {**after, **waiting}
        reply = yield from ask(Request("GET", path(name, "events"), query=query))
        page = read(reply, Page[EventView])
        for event in page.data:
            yield Emit(event)
        if page.next:
            after = {"after": page.next}
        if not follow and not page.has_more:
            return
        if follow and not page.data:
            yield Sleep(LOG_INTERVAL_S)


def decisions(name: str) -> Emitting[DecisionView]:
    """What the autoscaler decided, oldest first."""
    return pages(Request("GET", path(name, "decisions")), DecisionView, lambda view: view)


def _standing(view: DeploymentView) -> str:
    return f"{view.phase.value} ({view.message})" if view.message else view.phase.value


def _seen_or_gone(name: str) -> Flow[DeploymentView | None]:
    try:
        view, _ = yield from get(name)
    except NotFound:
        return None
    return view
