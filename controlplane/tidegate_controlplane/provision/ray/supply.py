"""What a replica reads, brought to its node: an artifact is built once, and copied from there.

The node that builds reads the model's source. One that is a path of the control plane's machine is
copied to it first; one in S3 or on a hub it fetches itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tidegate.spec import SourceKind, SpeculationSpec, parse_source
from tidegate_controlplane.provision.base import Launch
from tidegate_controlplane.provision.ray.agent import Cargo, deliver
from tidegate_controlplane.provision.ray.errands import answered
from tidegate_controlplane.provision.ray.node import Node, last_words
from tidegate_controlplane.provision.ray.nodes import Nodes
from tidegate_controlplane.provision.ray.transfer import (
    ARTIFACTS,
    HEADS,
    SOURCES,
    Damaged,
    Item,
    heads_items,
    root_of,
    source_items,
)

logger = logging.getLogger("tidegate.ray")
POLL_S = 0.1
_WORDS = {SOURCES: "source", HEADS: "heads"}


class Supply:
    """Brings to a node what a replica reads there. One for all nodes."""

    def __init__(
        self,
        nodes: Nodes,
        is_starting: Callable[[str], bool],
        tell: Callable[[Launch, str], None],
    ) -> None:
        """`is_starting` says whether a replica may yet become ready; `tell` hears of copies."""
        self._nodes = nodes
        self._is_starting = is_starting
        self._tell = tell
        self._turns: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        """One copy of a thing to a node at a time."""
        self._builders: dict[str, str] = {}
        """The replica that builds an artifact, by key."""

    async def provide(self, node: Node, launch: Launch) -> Launch:
        """What starts it on `node`, once all is there that it reads, where it is there.

        Raises StartFailed, Damaged, OSError and Ray's errors.
        """
        there = replace(launch, source=await self._model(node, launch))
        found = await self._speculation(node, launch)
        return replace(there, plan=launch.plan.model_copy(update={"speculation": found}))

    async def _speculation(self, node: Node, launch: Launch) -> SpeculationSpec | None:
        """What guesses next tokens, as it is on `node`."""
        asked, draft, heads = launch.plan.speculation, launch.plan.draft, launch.plan.heads
        if asked is not None and asked.draft_model is not None and draft is not None:
            guessing = replace(
                launch,
                source=asked.draft_model,
                revision=draft.revision,
                digest=draft.digest,
                plan=launch.plan.model_copy(update={"precision": draft.precision}),
            )
            return asked.model_copy(update={"draft_model": await self._model(node, guessing)})
        if asked is not None and asked.heads is not None and heads is not None:
            return asked.model_copy(update={"heads": await self._heads(node, launch, asked.heads)})
        return asked

    async def _heads(self, node: Node, launch: Launch, heads: str) -> str:
        """The source of heads as it is on `node`."""
        source, planned = parse_source(heads), launch.plan.heads
        if source.kind is not SourceKind.PATH or planned is None:
            return heads
        path = Path(source.location)
        cargo = Cargo(HEADS, _key(planned.digest), planned.digest)
        return await self._copy(node, launch, cargo, path, heads_items)

    async def _model(self, node: Node, launch: Launch) -> str:
        """The source of one model as it is on `node`."""
        if launch.task == "generate" and await self._has_artifact(node, launch):
            return launch.source
        source = parse_source(launch.source, launch.revision)
        if source.kind is not SourceKind.PATH:
            return launch.source
        return await self._copy_source(node, launch, Path(source.location))

    async def _has_artifact(self, node: Node, launch: Launch) -> bool:
        """Whether the artifact is on the node, copied if need be; False when it is to build it."""
        precision = launch.plan.precision
        key = await node.agent.artifact_key.remote(launch.digest, precision)
        cargo = Cargo(ARTIFACTS, key, launch.digest, precision)
        while True:
            async with self._turns[node.fact.node_id, key]:
                if await _has(node, cargo) or await self._copy_artifact(node, launch, cargo):
                    return True
            builder = self._builders.get(key)
            if builder is None or not self._is_starting(builder):
                self._builders[key] = launch.replica_id
                return False
            await asyncio.sleep(POLL_S)

    async def _copy_artifact(self, node: Node, launch: Launch, cargo: Cargo) -> bool:
        """Copy it from any node that has it; whether that was possible."""
        from ray.exceptions import RayError

        for other in self._nodes.open_ones:
            if other is node or not await _has(other, cargo):
                continue
            try:
                sent = await other.agent.send.remote(cargo, node.agent)
            except (RayError, OSError, Damaged) as error:
                logger.warning("no artifact from %s: %s", other.where, last_words(error))
                continue
            self._tell(
                launch, f"its artifact ({_mb(sent)}) went from {other.where} to {node.where}"
            )
            return True
        return False

    async def _copy_source(self, node: Node, launch: Launch, path: Path) -> str:
        file = path.name if await asyncio.to_thread(path.is_file) else None
        cargo = Cargo(SOURCES, _key(launch.digest), launch.digest, file=file)
        return await self._copy(node, launch, cargo, path, source_items)

    async def _copy(
        self,
        node: Node,
        launch: Launch,
        cargo: Cargo,
        path: Path,
        items_of: Callable[[Path], list[Item]],
    ) -> str:
        """The path on `node` of what is at `path` here."""
        # Asked for first, so that it is kept from the moment it is there.
        there: str = await node.agent.read_source.remote(launch.replica_id, cargo)
        async with self._turns[node.fact.node_id, cargo.key]:
            if not await _has(node, cargo):
                items = await asyncio.to_thread(items_of, path)
                sent = await deliver(root_of(path), items, cargo, node.agent)
                self._tell(launch, f"its {_WORDS[cargo.kind]} ({_mb(sent)}) went to {node.where}")
        return there


async def _has(node: Node, cargo: Cargo) -> bool:
    return bool(await answered(node.agent.has.remote(cargo)))


def _key(digest: str) -> str:
    """A digest as the name of a directory."""
    return digest.replace(":", "-")


def _mb(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
