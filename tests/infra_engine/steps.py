"""The steps of an update: each asks a provider, says so, and keeps what came of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from pulumi.runtime.proto import provider_pb2 as messages
from pulumi.runtime.proto import status_pb2
from tests.infra_engine.events import Reporter
from tests.infra_engine.plugins import Stub
from tests.infra_engine.stack_double import Kept, StackDouble
from tests.infra_engine.wire import Properties, plain, revealed, struct

PROVIDERS = "pulumi:providers:"


class UpdateFailed(Exception):
    """The update ended early; the reporter's errors say why."""


@dataclass
class Steps:
    """What can be done to a resource of a stack. Each raises UpdateFailed."""

    stack: StackDouble
    plugins: Mapping[str, Stub]
    """By package, such as `aws`."""
    reporter: Reporter
    preview: bool

    def __post_init__(self) -> None:
        self.cancelled = threading.Event()
        self._changing = threading.Lock()
        self._configured: dict[str, str] = {}

    # --- asking -------------------------------------------------------------------------------

    def configure(self, package: str, provider: Kept) -> Properties:
        """The provider's inputs as it understands them; from then on its resources can be made."""
        if self._configured.setdefault(package, provider.urn) != provider.urn:
            self.refuse(provider, "the engine double runs one provider of each package, not two")
        stub = self._stub(package)
        with self._failing("configure", provider):
            asked = messages.CheckRequest(urn=provider.urn, news=struct(provider.inputs))
            checked = stub.CheckConfig(asked)
            self._check_failures(provider, checked)
            variables = {
                f"{package}:config:{key}": str(revealed(value))
                for key, value in plain(checked.inputs).items()
            }
            wanted = messages.ConfigureRequest(variables=variables, args=checked.inputs)
            wanted.acceptSecrets = wanted.acceptResources = True
            stub.Configure(wanted)
        return plain(checked.inputs)

    def check(self, wanted: Kept, old: Kept | None) -> Properties:
        """The inputs as the provider understands them."""
        asked = messages.CheckRequest(urn=wanted.urn, randomSeed=bytes(32))
        asked.olds.CopyFrom(struct(old.inputs if old else {}))
        asked.news.CopyFrom(struct(wanted.inputs))
        with self._failing("check", wanted):
            checked = self._stub_of(wanted).Check(asked)
        self._check_failures(wanted, checked)
        return plain(checked.inputs)

    def diff(self, wanted: Kept, old: Kept, ignored: list[str]) -> Any:
        """What the provider would do about the difference."""
        asked = messages.DiffRequest(id=old.id, urn=wanted.urn, ignoreChanges=ignored)
        asked.olds.CopyFrom(struct(old.outputs))
        asked.old_inputs.CopyFrom(struct(old.inputs))
        asked.news.CopyFrom(struct(wanted.inputs))
        with self._failing("diff", wanted):
            said = self._stub_of(wanted).Diff(asked)
        kinds = messages.DiffResponse
        if said.changes == kinds.DIFF_UNKNOWN:
            said.changes = kinds.DIFF_NONE if old.inputs == wanted.inputs else kinds.DIFF_SOME
        return said

    def _check_failures(self, wanted: Kept, checked: Any) -> None:
        for failure in checked.failures:
            where = f"property {failure.property}: " if failure.property else ""
            name = wanted.urn.rsplit("::", 1)[-1]
            said = f"{wanted.type} resource '{name}' has a problem: {where}{failure.reason}"
            self.reporter.error(said, wanted.urn)
        if checked.failures:
            raise UpdateFailed(wanted.urn)

    # --- doing --------------------------------------------------------------------------------

    def leave(self, wanted: Kept, old: Kept | None, op: str = "same") -> Kept:
        """Nothing is asked of a provider."""
        self.reporter.begins(op, wanted)
        self.keep(wanted, old)
        self.reporter.done(op, wanted)
        return wanted

    def create(self, wanted: Kept, op: str = "create") -> Kept:
        asked = messages.CreateRequest(urn=wanted.urn, preview=self.preview)
        asked.properties.CopyFrom(struct(wanted.inputs))
        asked.timeout = wanted.customTimeouts.get("create", 0)
        self.reporter.begins(op, wanted)
        with self._pending("creating", wanted), self._failing(op, wanted, makes=True):
            made = self._stub_of(wanted).Create(asked)
            wanted.id, wanted.outputs = made.id, plain(made.properties)
            self.keep(wanted, None)
        self.reporter.done(op, wanted)
        return wanted

    def update(self, wanted: Kept, old: Kept, ignored: list[str]) -> Kept:
        asked = messages.UpdateRequest(id=old.id, urn=wanted.urn, preview=self.preview)
        asked.olds.CopyFrom(struct(old.outputs))
        asked.old_inputs.CopyFrom(struct(old.inputs))
        asked.news.CopyFrom(struct(wanted.inputs))
        asked.ignoreChanges.extend(ignored)
        asked.timeout = wanted.customTimeouts.get("update", 0)
        self.reporter.begins("update", wanted)
        with self._pending("updating", wanted), self._failing("update", wanted, makes=True):
            wanted.outputs = plain(self._stub_of(wanted).Update(asked).properties)
            self.keep(wanted, old)
        self.reporter.done("update", wanted)
        return wanted

    def delete(self, one: Kept, op: str) -> None:
        if one.protect:
            self.refuse(one, f"unable to delete resource {one.urn!r} as it is currently protected")
        self.reporter.begins(op, one)
        real = one.custom and not one.type.startswith(PROVIDERS) and not one.retainOnDelete
        if real and not self.preview:
            asked = messages.DeleteRequest(id=one.id, urn=one.urn)
            asked.properties.CopyFrom(struct(one.outputs))
            asked.old_inputs.CopyFrom(struct(one.inputs))
            asked.timeout = one.customTimeouts.get("delete", 0)
            with self._pending("deleting", one), self._failing(op, one):
                self._stub_of(one).Delete(asked)
        self._forget(one)
        self.reporter.done(op, one)

    def refresh(self, one: Kept) -> None:
        """Read it, and keep what is found."""
        asked = messages.ReadRequest(id=one.id, urn=one.urn)
        asked.properties.CopyFrom(struct(one.outputs))
        asked.inputs.CopyFrom(struct(one.inputs))
        self.reporter.begins("refresh", one)
        with self._failing("refresh", one):
            found = self._stub_of(one).Read(asked)
        if not found.id:
            self._forget(one)
            self.reporter.done("delete", one)
            return
        before = (one.inputs, one.outputs)
        one.id, one.inputs, one.outputs = found.id, plain(found.inputs), plain(found.properties)
        self.save()
        self.reporter.done("same" if before == (one.inputs, one.outputs) else "update", one)

    def refuse(self, one: Kept, message: str) -> NoReturn:
        self.reporter.error(message, one.urn)
        raise UpdateFailed(message)

    def _stub_of(self, one: Kept) -> Stub:
        return self._stub(one.type.partition(":")[0])

    def _stub(self, package: str) -> Stub:
        stub = self.plugins.get(package)
        if stub is None:
            message = f"no resource plugin 'pulumi-resource-{package}' found in the workspace"
            self.reporter.error(message)
            raise UpdateFailed(message)
        return stub

    # --- keeping ------------------------------------------------------------------------------

    def keep(self, new: Kept, old: Kept | None) -> None:
        """In the place of `old`, or at the end."""
        with self._changing:
            resources = self.stack.resources
            at = next((n for n, one in enumerate(resources) if one is old), len(resources))
            resources[at : at + 1] = [new]
        self.save()

    def save(self) -> None:
        if not self.preview:
            with self._changing:
                self.stack.save()

    def _forget(self, one: Kept) -> None:
        with self._changing:
            self.stack.resources = [each for each in self.stack.resources if each is not one]
        self.save()

    @contextmanager
    def _pending(self, doing: str, one: Kept) -> Iterator[None]:
        """Note what is under way, so that a killed update shows it."""
        said = {"urn": one.urn, "type": doing}
        with self._changing:
            self.stack.pending.append(said)
        self.save()
        try:
            yield
        finally:
            with self._changing:
                self.stack.pending = [each for each in self.stack.pending if each is not said]
            self.save()

    @contextmanager
    def _failing(self, op: str, one: Kept, *, makes: bool = False) -> Iterator[None]:
        """Report what a provider refuses; what it has made all the same is kept."""
        try:
            yield
        except grpc.RpcError as error:
            partial = _init_failed(error) if makes else None
            if partial is not None:
                one.id, one.outputs = partial.id, plain(partial.properties)
                one.initErrors = list(partial.reasons)
                self.keep(one, self.stack.live(one.urn))
            self.reporter.failed(op, one, error.details() or str(error.code()))
            self.cancelled.set()
            raise UpdateFailed(one.urn) from None


def _init_failed(error: grpc.RpcError) -> Any:
    """What was made although it did not start, from the status; None when nothing was."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                found = messages.ErrorResourceInitFailed()
                if detail.Unpack(found):
                    return found
    return None
