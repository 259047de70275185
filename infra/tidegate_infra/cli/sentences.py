"""What Pulumi's engine says while it works, one sentence for each step."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pulumi.automation.events import EngineEvent, StepEventMetadata

DONE = {
    "create": "made",
    "create-replacement": "made anew",
    "update": "changed",
    "delete": "deleted",
    "delete-replaced": "deleted, since it was replaced",
}
COMING = {
    "create": "will be made",
    "replace": "will be replaced",
    "update": "will change",
    "delete": "will be deleted",
}
OURS = ("tidegate:", "pulumi:")
"""Components and stacks are no resources of AWS."""


def done(event: EngineEvent) -> str | None:
    """What an update has done or met, if it is worth a line."""
    if ended := event.res_outputs_event:
        return _step(ended.metadata, DONE)
    if failed := event.res_op_failed_event:
        return f"{_named(failed.metadata)} failed"
    return _said(event)


def coming(event: EngineEvent) -> str | None:
    """What a preview finds would change."""
    if begins := event.resource_pre_event:
        sentence = _step(begins.metadata, COMING)
        which = ", ".join(begins.metadata.diffs or ())
        return f"{sentence}: {which}" if sentence and which else sentence
    return _said(event)


def _said(event: EngineEvent) -> str | None:
    said = event.diagnostic_event
    if said and said.severity in ("warning", "error") and said.message.strip():
        return f"{said.severity}: {' '.join(said.message.split())}"
    return None


def _step(step: StepEventMetadata, words: dict[str, str]) -> str | None:
    word = words.get(str(step.op.value))
    if word is None or step.type.startswith(OURS):
        return None
    return f"{_named(step)} {word}"


def _named(step: StepEventMetadata) -> str:
    """`sagemaker Endpoint tidegate-rerank`."""
    _, module, kind = step.type.split(":")
    return f"{module.split('/')[0]} {kind} {step.urn.rpartition('::')[2]}"
