"""What Pulumi's engine says while it works, as sentences for a deployment's events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.protocol.resources import Severity

if TYPE_CHECKING:
    from pulumi.automation.events import EngineEvent, StepEventMetadata

News = tuple[str, str, Severity]
"""A reason, a sentence, and how bad it is."""
DONE = {
    "create": "made",
    "create-replacement": "made anew",
    "update": "changed",
    "delete": "deleted",
    "delete-replaced": "deleted, since it was replaced",
    "import": "taken over",
}
OURS = ("tidegate:", "pulumi:")
"""Components and stacks are no resources of AWS."""


def news_of(event: EngineEvent) -> News | None:
    """What a person wants to know of it, if anything."""
    if done := event.res_outputs_event:
        word = DONE.get(str(done.metadata.op.value))
        if word is None or done.metadata.type.startswith(OURS):
            return None
        return "StackResource", f"{_named(done.metadata)} {word}", Severity.INFO
    if failed := event.res_op_failed_event:
        return "StackFailed", f"{_named(failed.metadata)} failed", Severity.ERROR
    said = event.diagnostic_event
    if said and said.severity in ("warning", "error") and said.message.strip():
        bad = Severity.ERROR if said.severity == "error" else Severity.WARNING
        return "StackSaid", " ".join(said.message.split()), bad
    return None


def drift_of(event: EngineEvent) -> str | None:
    """A resource that is not as the stack left it, from an event of a refresh that only looks."""
    seen = event.res_outputs_event or event.resource_pre_event
    if seen is None or seen.metadata.type.startswith(OURS):
        return None
    match str(seen.metadata.op.value):
        case "delete":
            return f"{_named(seen.metadata)} is gone"
        case "update":
            which = ", ".join(seen.metadata.diffs or ()) or "some properties"
            return f"{_named(seen.metadata)} has changed: {which}"
    return None


def _named(step: StepEventMetadata) -> str:
    """`Endpoint tidegate-rev-1`."""
    kind = step.type.rpartition(":")[2]
    return f"{kind} {step.urn.rpartition('::')[2]}"
