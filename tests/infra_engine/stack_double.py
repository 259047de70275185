"""A stack as our double of Pulumi's engine keeps it: one JSON file and one lock in a directory.

The file has the shape of `pulumi stack export --show-secrets`, so secrets lie open in it: a real
back end encrypts them. It is written after every step, as a real engine writes its checkpoint, so
that what a killed update leaves behind can be read: a lock, and operations that were pending.
"""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.infra_engine.wire import Properties


class StackError(Exception):
    """What the command line would print after `error:`."""


@dataclass
class Kept:
    """One resource of a stack."""

    urn: str
    type: str
    custom: bool
    id: str = ""
    parent: str = ""
    provider: str = ""
    """`urn::id` of the provider that made it; empty for a component."""
    inputs: Properties = field(default_factory=dict)
    outputs: Properties = field(default_factory=dict)
    dependencies: list[str] = field(default_factory=list)
    propertyDependencies: dict[str, list[str]] = field(default_factory=dict)  # noqa: N815
    delete: bool = False
    """It was replaced and waits for its deletion."""
    protect: bool = False
    retainOnDelete: bool = False  # noqa: N815
    initErrors: list[str] = field(default_factory=list)  # noqa: N815
    customTimeouts: dict[str, float] = field(default_factory=dict)  # noqa: N815
    """Seconds, by `create`, `update` and `delete`."""


@dataclass
class StackDouble:
    """The resources of one stack, in the order of their making, and its configuration."""

    path: Path
    project: str
    name: str
    resources: list[Kept] = field(default_factory=list)
    pending: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    secret_keys: set[str] = field(default_factory=set)
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._writing = threading.Lock()

    @classmethod
    def create(cls, directory: Path, project: str, name: str) -> StackDouble:
        """Raises StackError when there is one of this name."""
        stack = cls(path_of(directory, name), project, name)
        if stack.path.exists():
            raise StackError(f"stack '{name}' already exists")
        stack.save()
        return stack

    @classmethod
    def load(cls, directory: Path, name: str) -> StackDouble:
        """Raises StackError when there is none of this name."""
        path = path_of(directory, name)
        if not path.exists():
            raise StackError(f"no stack named '{name}' found")
        said = json.loads(path.read_text())
        stack = cls(path, said["project"], name)
        stack.take(said)
        stack.config = said["config"]
        stack.secret_keys = set(said["secret_keys"])
        stack.history = said["history"]
        return stack

    def take(self, exported: dict[str, Any]) -> None:
        """Hold what was exported before."""
        self.resources = [Kept(**each) for each in exported["deployment"]["resources"]]
        self.pending = exported["deployment"]["pending_operations"]

    def exported(self) -> dict[str, Any]:
        """As `pulumi stack export --show-secrets` prints it."""
        resources = [asdict(each) for each in self.resources]
        return {
            "version": 3,
            "deployment": {"resources": resources, "pending_operations": self.pending},
        }

    def save(self) -> None:
        rest = {
            "project": self.project,
            "config": self.config,
            "secret_keys": sorted(self.secret_keys),
            "history": self.history,
        }
        with self._writing:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            draft = self.path.with_suffix(".draft")
            draft.write_text(json.dumps(self.exported() | rest))
            draft.replace(self.path)

    def remove(self) -> None:
        """Raises StackError while there are resources in it."""
        if self.resources:
            raise StackError(
                f"'{self.name}' still has resources; removal rejected. Possible actions:\n"
                "- Make sure that 'pulumi destroy' is run before removing the stack"
            )
        self.path.unlink()

    def live(self, urn: str) -> Kept | None:
        return next((one for one in self.resources if one.urn == urn and not one.delete), None)

    @property
    def outputs(self) -> Properties:
        """What the program exported."""
        root = next((one for one in self.resources if one.type == "pulumi:pulumi:Stack"), None)
        return root.outputs if root else {}

    # --- one update at a time -----------------------------------------------------------------

    @property
    def lock_directory(self) -> Path:
        return self.path.parent / "locks" / self.name

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Raises StackError while another update runs, or one that was killed left its lock."""
        held = list(self.lock_directory.glob("*.json"))
        if held:
            raise StackError(
                f"the stack is currently locked by {len(held)} lock(s). Either wait for the other "
                "process(es) to end or delete the lock file with `pulumi cancel`."
                + "".join(f"\n  file://{one}: created by {_holder(one)}" for one in held)
            )
        self.lock_directory.mkdir(parents=True, exist_ok=True)
        lock = self.lock_directory / f"{uuid.uuid4()}.json"
        lock.write_text(json.dumps({"pid": os.getpid(), "username": "test", "hostname": "here"}))
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)

    def unlock(self) -> None:
        """As `pulumi cancel` does with a self-managed back end: remove whatever locks it."""
        for lock in self.lock_directory.glob("*.json"):
            lock.unlink(missing_ok=True)


def path_of(directory: Path, name: str) -> Path:
    return directory / f"{name}.json"


def _holder(lock: Path) -> str:
    said = json.loads(lock.read_text())
    return f"{said['username']}@{said['hostname']} (pid {said['pid']})"
