"""Adapters before anybody asks for them: whether there is one, and how large it is."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tidegate.spec import DeploymentSpec, ModelSpec, ProvisionerName, SpecIssue
from tidegate_controlplane.domain.adapters import Update, Updates
from tidegate_controlplane.models.facts import safetensors_header
from tidegate_controlplane.models.inspect import open_source
from tidegate_controlplane.models.source import SourceError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
AT_ONCE = 8
"""Sources that are read together."""
READ_S = 10.0
"""How long a declaration waits for the sizes of its adapters."""
REMEMBERED = 4096


def missing_adapters(spec: DeploymentSpec) -> Iterator[SpecIssue]:
    """Directories of this machine that hold no adapter; other sources are seen when they are used.

    Touches the disk.
    """
    if spec.hardware.provisioner is not ProvisionerName.LOCAL:
        return
    for name, source in spec.runtime.adapters.items():
        if _is_here(source) and not (Path(source) / CONFIG).is_file():
            yield SpecIssue(
                f"runtime.adapters.{name}",
                source,
                f"there is no {CONFIG} in it; give the directory that PEFT's save_pretrained wrote",
            )


@dataclass(frozen=True)
class Sizes:
    """What is known of declared adapters before a replica reads them."""

    known: Sequence[Updates]
    """Of each source once: names of the same weights share them."""
    unknown: Mapping[str, str]
    """Name → why its size is not known."""

    @property
    def warnings(self) -> list[str]:
        """What a plan leaves out."""
        return [
            f"runtime.adapters.{name}: its memory is not planned for: {why}"
            for name, why in self.unknown.items()
        ]


class AdapterSizes:
    """Reads how large adapters are, from the headers of their weights.

    A source that cannot be read now is no fault of a declaration: a replica says so to whoever asks
    for the adapter. Sources of other machines are read once and remembered.
    """

    def __init__(self, read_s: float = READ_S) -> None:
        self._read_s = read_s
        self._seen: dict[str, Updates] = {}

    async def of(self, spec: DeploymentSpec) -> Sizes:
        """The sizes of the adapters of a declaration, as far as they are found in time."""
        names: defaultdict[str, list[str]] = defaultdict(list)
        for name, source in spec.runtime.adapters.items():
            names[source].append(name)
        if not names:
            return Sizes((), {})
        limit = asyncio.Semaphore(AT_ONCE)
        tasks = {source: asyncio.create_task(self._read(source, limit)) for source in names}
        _, late = await asyncio.wait(tasks.values(), timeout=self._read_s)
        for task in late:
            task.cancel()
        tardy = f"it was not read within {self._read_s:g} s"
        found = {
            source: tardy if task in late else _outcome(task) for source, task in tasks.items()
        }
        return Sizes(
            [updates for updates in found.values() if not isinstance(updates, str)],
            {
                name: why
                for source, why in found.items()
                if isinstance(why, str)
                for name in names[source]
            },
        )

    async def _read(self, source: str, limit: asyncio.Semaphore) -> Updates:
        if (seen := self._seen.get(source)) is not None:
            return seen
        async with limit:
            updates = await asyncio.to_thread(read_updates, source)
        if not _is_here(source):
            while len(self._seen) >= REMEMBERED:
                del self._seen[next(iter(self._seen))]
            self._seen[source] = updates
        return updates


def read_updates(source: str) -> Updates:
    """The updates of an adapter, by the header of its weights. Raises SourceError. Blocks."""
    location = str(Path(source).absolute()) if _is_here(source) else source
    files = open_source(ModelSpec(source=location))
    listing = files.listing()
    if WEIGHTS not in listing:
        raise SourceError(f"cannot read {WEIGHTS!r}: it is not there")
    shapes = safetensors_header(files, WEIGHTS, listing[WEIGHTS]).shapes
    updates = []
    for name, down in shapes.items():
        if not name.endswith(DOWN):
            continue
        module = name.removesuffix(DOWN)
        up = shapes.get(module + UP)
        if up is None or len(up) != 2 or len(down) != 2 or down[0] != up[1]:
            raise SourceError(f"the factors of {module!r} do not fit each other")
        updates.append(Update(down[0], down[1], up[0], linear=module.rpartition(".")[2]))
    return tuple(updates)


def _outcome(task: asyncio.Task[Updates]) -> Updates | str:
    """What a task found, or why nothing."""
    error = task.exception()
    if isinstance(error, SourceError):
        return str(error)
    return task.result()


def _is_here(source: str) -> bool:
    return "://" not in source
