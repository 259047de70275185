"""Keeps one deployment in AWS as it shall be: its stack, and the copies of each component."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NoReturn

from tidegate.protocol.resources import Severity
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.deployments.bell import heard
from tidegate_controlplane.domain.replicas import Exited
from tidegate_controlplane.objects.threads import in_thread
from tidegate_controlplane.provision.aws.container_logs import ContainerLogs
from tidegate_controlplane.provision.aws.copies import FAILED, Copies, Seen
from tidegate_controlplane.provision.aws.failures import AwsFailed, Failure, explain
from tidegate_controlplane.provision.aws.names import stack_name
from tidegate_controlplane.provision.aws.program import program_of
from tidegate_controlplane.provision.aws.sentences import News
from tidegate_controlplane.provision.aws.site import Component, Site
from tidegate_controlplane.provision.aws.stacks import Stacks
from tidegate_controlplane.provision.base import Notice
from tidegate_controlplane.settings import AwsSettings

logger = logging.getLogger("tidegate.provision")


@dataclass(frozen=True)
class Pace:
    """How often SageMaker is asked how it stands."""

    moving_s: float = 2.0
    """While something is on its way."""
    settled_s: float = 15.0
    failed_s: float = 30.0
    """After a step that failed."""


@dataclass
class Tools:
    """What a keeper works with; one set for all."""

    settings: AwsSettings
    stacks: Stacks
    copies: Copies
    logs: ContainerLogs
    clock: Clock
    changed: asyncio.Event
    """Set when a replica has changed."""
    pace: Pace = Pace()
    notices: list[Notice] = field(default_factory=list)
    lingering: dict[str, float] = field(default_factory=dict)
    """Until when (monotonic) copies that an earlier control plane left are kept, by component."""

    def teller(self, deployment_id: str) -> Callable[[News], None]:
        """What takes news of a deployment, from any thread. Made on the event loop."""
        loop = asyncio.get_running_loop()

        def tell(news: News) -> None:
            reason, message, severity = news
            notice = Notice(deployment_id, reason, message, severity)
            loop.call_soon_threadsafe(self.notices.append, notice)

        return tell


async def keep(site: Site, tools: Tools) -> NoReturn:
    """Until cancelled; waits for a step in hand."""
    while True:
        site.changed.clear()
        before = site.standing
        pause_s = tools.pace.failed_s
        try:
            await _once(site, tools)
            pause_s = tools.pace.moving_s if site.is_moving else tools.pace.settled_s
        except AwsFailed as error:
            _failed(site, tools, error.failure)
        except Exception:
            logger.exception("keeping deployment %s in AWS failed", site.deployment_id)
        if site.standing != before:
            tools.changed.set()
        await heard(site.changed, pause_s)


async def _once(site: Site, tools: Tools) -> None:
    if site.is_wanted and (site.applied != site.declared or site.to_repair):
        await _bring_up(site, tools)
    for key, component in list(site.components.items()):
        if key in (site.applied or ()):
            await _steer(site, component, tools)
    await _look_for_drift(site, tools)


async def _bring_up(site: Site, tools: Tools) -> None:
    wanted = site.declared
    launches = {key: site.components[key].launch for key in wanted}
    program = program_of(tools.settings, launches)
    tell = tools.teller(site.deployment_id)
    look = site.to_repair or bool(site.drift)
    site.to_repair = True  # unless it ends well
    for each in site.components.values():
        if each.seen and each.seen.status == FAILED:  # which takes no change any more
            await in_thread(tools.copies.end, each.name)
    for key in wanted - (site.applied or frozenset()):  # a component is made with its first copy
        site.components[key].asked_for = frozenset(site.components[key].waiting)
    await in_thread(tools.stacks.up, _stack(site, tools), program, tell, look=look)
    site.applied, site.to_repair, site.failure, site.drift = wanted, False, None, ()
    site.prune()


async def _steer(site: Site, component: Component, tools: Tools) -> None:
    """Look how many copies there are, and ask for as many as there shall be."""
    seen = await in_thread(tools.copies.seen, component.name)
    number = _wanted_copies(component, seen, tools)
    if seen and seen.takes_changes and (seen.desired != number or component.tries_anew(seen)):
        await in_thread(tools.copies.set, component.name, number)
        component.asked_for = frozenset(component.waiting)
        seen = replace(seen, status="Updating", desired=number)
    last = await _last_words(component, seen, tools)
    component.judge(seen, Exited(1, "Crashed", f"SageMaker ended its copy{last}"))
    if seen is None or seen.status == FAILED:
        site.to_repair = True
    if seen and (why := seen.why_fewer):
        failure = explain(why, tools.settings, component.name)
        component.fail(replace(failure, message=failure.message + last).observation)


async def _last_words(component: Component, seen: Seen | None, tools: Tools) -> str:
    """Fetch the logs of those that are about to end, and say what the last of them said."""
    last = ""
    for each in component.leaving(seen):
        key = each.launch.replica_id
        await in_thread(tools.logs.fetch, component.name, key, each.began_at)
        last = await in_thread(tools.logs.last_line, key)
    return f"; its log ends: {last}" if last else ""


def _wanted_copies(component: Component, seen: Seen | None, tools: Tools) -> int:
    """As many as it has replicas; no fewer than an earlier control plane left, for a while."""
    number = len(component.live)
    until = tools.lingering.get(component.name)
    if until is None or seen is None:
        return number
    given_up = any(each.is_unwanted for each in component.replicas.values())
    if given_up or tools.clock.monotonic() >= until:
        del tools.lingering[component.name]
        return number
    return max(number, seen.desired)


def _failed(site: Site, tools: Tools, failure: Failure) -> None:
    """The replicas that wait for what failed will not come; the others go on."""
    if failure != site.failure:
        tools.teller(site.deployment_id)((failure.reason, failure.message, Severity.ERROR))
    site.failure = failure
    for key, component in site.components.items():
        if key not in (site.applied or ()):
            component.fail(failure.observation)


async def _look_for_drift(site: Site, tools: Tools) -> None:
    every_s, now = tools.settings.drift_every_s, tools.clock.monotonic()
    if not every_s or site.is_moving or not site.applied:
        return
    if not site.looked_s:
        site.looked_s = now
    if now - site.looked_s < every_s:
        return
    site.looked_s = now
    found = tuple(await in_thread(tools.stacks.drift, _stack(site, tools)))
    if found != site.drift:
        said = "; ".join(found) + "; the next change of the deployment mends it"
        news = ("StackDrifted", said, Severity.WARNING)
        if not found:
            news = ("StackInOrder", "AWS is again as the stack left it", Severity.INFO)
        tools.teller(site.deployment_id)(news)
    site.drift = found


def _stack(site: Site, tools: Tools) -> str:
    return stack_name(tools.settings, site.deployment_id)
