"""One update of a stack, as Pulumi's engine would carry it out: which step each resource needs.

A double: the order of steps, what is asked of a provider at each, and what is kept are those of
the real engine as far as its protocol and documentation tell. It has no plan files, no policies,
no targets and no aliases.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from google.protobuf.message import Message
from pulumi.runtime.proto import provider_pb2 as messages
from pulumi.runtime.proto import resource_pb2
from tests.infra_engine.events import Reporter
from tests.infra_engine.plugins import Stub
from tests.infra_engine.stack_double import Kept, StackDouble
from tests.infra_engine.steps import PROVIDERS, Steps, UpdateFailed
from tests.infra_engine.wire import UNKNOWN, Properties, keeping, plain, seconds, struct

PENDING = (
    "Attempting to deploy or update resources with {} pending operations from previous deployment."
    "{}\nThese resources are in an unknown state because the Pulumi CLI was interrupted while "
    "waiting for changes to these resources to complete. You should confirm whether or not the "
    "operations listed completed successfully by checking the state of the appropriate provider."
)


class UpdateDouble:
    """Takes the registrations of a program, makes each so, and at the end deletes the rest."""

    def __init__(
        self,
        stack: StackDouble,
        plugins: Mapping[str, Stub],
        reporter: Reporter,
        *,
        preview: bool = False,
    ) -> None:
        self.stack = _copy(stack) if preview else stack
        self.preview = preview
        self.reporter = reporter
        self.steps = Steps(self.stack, plugins, reporter, preview)
        self._seen: set[str] = set()
        self._registering = threading.Lock()
        self._configuring = threading.Lock()
        self._ready: set[str] = set()  # URNs of the providers that are configured
        if stack.pending:
            which = "".join(
                f"\n  * {p['urn']}, interrupted while {p['type']}" for p in stack.pending
            )
            reporter.diagnostic("warning", PENDING.format(len(stack.pending), which))
        # Only what may have been made unseen is remembered until someone has looked.
        self.stack.pending = [each for each in stack.pending if each["type"] == "creating"]

    def register(self, request: Any) -> Kept:
        """What there is once the registration is carried out. Raises UpdateFailed."""
        if self.steps.cancelled.is_set():
            raise UpdateFailed("the update was cancelled")
        wanted = self._wanted(request)
        with self._registering:
            if wanted.urn in self._seen:
                self.steps.refuse(wanted, f"Duplicate resource URN '{wanted.urn}'")
            self._seen.add(wanted.urn)
        if request.type.startswith(PROVIDERS):
            return self._provider(wanted)
        if request.remote:
            self.steps.refuse(wanted, "the engine double constructs no remote components")
        return self._custom(wanted, request) if request.custom else self._component(wanted)

    def outputs(self, urn: str, outputs: Properties) -> None:
        """What a component, or the whole program, says that it results in."""
        kept = self.stack.live(urn)
        assert kept is not None, urn
        kept.outputs = outputs
        self.steps.save()

    def invoke(self, token: str, arguments: Any) -> Any:
        """What a provider's function returns."""
        package = token.partition(":")[0]
        self._default_provider(package)
        return self.steps.plugins[package].Invoke(messages.InvokeRequest(tok=token, args=arguments))

    def finish(self) -> None:
        """Delete what was replaced and what the program no longer declares, the last made first."""
        for one in reversed(list(self.stack.resources)):
            if one.delete or one.urn not in self._seen:
                self._configured(one)
                self.steps.delete(one, "delete-replaced" if one.delete else "delete")

    def destroy(self) -> None:
        """Delete everything, the last made first."""
        self._seen.clear()
        self.finish()

    def refresh(self) -> None:
        """Read everything, and keep what is found."""
        for one in list(self.stack.resources):
            if one.custom and not one.type.startswith(PROVIDERS):
                self._configured(one)
                self.steps.refresh(one)

    def _wanted(self, request: Any) -> Kept:
        depends = {key: list(each.urns) for key, each in request.propertyDependencies.items()}
        return Kept(
            urn=self._urn(request.type, request.name, request.parent),
            type=request.type,
            custom=request.custom,
            parent=request.parent,
            inputs=plain(request.object),
            dependencies=list(request.dependencies),
            propertyDependencies=depends,
            protect=request.protect,
            retainOnDelete=request.retainOnDelete,
            customTimeouts={
                field.name: seconds(duration)
                for field, duration in request.customTimeouts.ListFields()
            },
        )

    def _urn(self, kind: str, name: str, parent: str) -> str:
        above = parent.split("::")[2] + "$" if parent else ""
        above = "" if above.startswith("pulumi:pulumi:Stack") else above
        return f"urn:pulumi:{self.stack.name}::{self.stack.project}::{above}{kind}::{name}"

    def _component(self, wanted: Kept) -> Kept:
        old = self.stack.live(wanted.urn)
        wanted.outputs = old.outputs if old else {}
        return self.steps.leave(wanted, old, "same" if old else "create")

    # --- providers ----------------------------------------------------------------------------

    def _provider(self, wanted: Kept) -> Kept:
        old = self.stack.live(wanted.urn)
        wanted.inputs = self.steps.configure(wanted.type.removeprefix(PROVIDERS), wanted)
        self._ready.add(wanted.urn)
        wanted.outputs = wanted.inputs
        wanted.id = old.id if old else str(uuid.uuid4())
        op = "create" if old is None else "same" if old.inputs == wanted.inputs else "update"
        return self.steps.leave(wanted, old, op)

    def _default_provider(self, package: str) -> str:
        """`urn::id` of the provider that the stack's configuration describes."""
        kind = PROVIDERS + package
        urn = self._urn(kind, "default", "")
        with self._configuring:
            if urn not in self._seen:
                self._provider(Kept(urn, kind, custom=True, inputs=self._config_of(package)))
                self._seen.add(urn)
        kept = self.stack.live(urn)
        assert kept is not None, urn
        return f"{urn}::{kept.id}"

    def _config_of(self, package: str) -> Properties:
        prefix = f"{package}:"
        found = self.stack.config.items()
        return {key.removeprefix(prefix): value for key, value in found if key.startswith(prefix)}

    def _configured(self, one: Kept) -> None:
        """Make ready the provider of a resource that is only read or deleted."""
        urn = one.provider.rpartition("::")[0]
        if not urn or urn in self._ready:
            return
        provider = self.stack.live(urn)
        assert provider is not None, one.provider
        package = provider.type.removeprefix(PROVIDERS)
        inputs = self._config_of(package) if urn.endswith("::default") else provider.inputs
        self.steps.configure(package, replace(provider, inputs=inputs))
        self._ready.add(urn)

    # --- custom resources ---------------------------------------------------------------------

    def _custom(self, wanted: Kept, request: Any) -> Kept:
        wanted.provider = request.provider or self._default_provider(request.type.partition(":")[0])
        old, ignored = self.stack.live(wanted.urn), list(request.ignoreChanges)
        if old is not None:
            wanted.inputs = keeping(wanted.inputs, old.inputs, ignored)
        wanted.inputs = self.steps.check(wanted, old)
        if old is None:
            return self.steps.create(wanted)
        wanted.id, wanted.outputs = old.id, old.outputs
        diff = self.steps.diff(wanted, old, ignored)
        if diff.replaces:
            declared = request.deleteBeforeReplaceDefined
            first = request.deleteBeforeReplace if declared else diff.deleteBeforeReplace
            return self._replace(wanted, old, delete_first=first)
        if diff.changes == messages.DiffResponse.DIFF_SOME or old.initErrors:
            return self.steps.update(wanted, old, ignored)
        return self.steps.leave(wanted, old)

    def _replace(self, wanted: Kept, old: Kept, *, delete_first: bool) -> Kept:
        if delete_first:
            for dependant in self._to_replace_with(old):
                self.steps.delete(dependant, "delete-replaced")
            self.steps.delete(old, "delete-replaced")
        else:
            old.delete = True
        wanted.inputs = self.steps.check(wanted, None)
        wanted.id, wanted.outputs = "", {}
        made = self.steps.create(wanted, "create-replacement")
        self.reporter.done("replace", made)
        return made

    def _to_replace_with(self, old: Kept) -> list[Kept]:
        """Those that cannot outlive `old`, the last made first."""
        found = [old]
        for one in self.stack.resources:
            gone = {each.urn for each in found}
            through = [key for key, urns in one.propertyDependencies.items() if gone & set(urns)]
            if one.delete or not one.custom or not through:
                continue
            unknown = replace(one, inputs=one.inputs | dict.fromkeys(through, UNKNOWN))
            if self.steps.diff(unknown, one, []).replaces:
                found.append(one)
        return found[:0:-1]


def answer(kept: Kept) -> Message:
    """What the program is told of a registration."""
    return resource_pb2.RegisterResourceResponse(
        urn=kept.urn, id=kept.id, object=struct(kept.outputs)
    )


def _copy(stack: StackDouble) -> StackDouble:
    copied = replace(stack, resources=[replace(one) for one in stack.resources])
    copied.pending = list(stack.pending)
    return copied
