"""The adapters of a replica: which are known, and which of them are in memory.

A request holds its adapter until it is answered, and what is held is never evicted. Weights that
were replaced or removed while requests held them stay until the last of these is answered.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tidegate.protocol.replica import AdapterInfo
from tidegate_runtime.engine.adapter import Adapter
from tidegate_runtime.errors import ModelRefused, ReplicaUnavailable, RequestRefused

if TYPE_CHECKING:  # the loader imports torch, and routes are made before that
    from collections.abc import Iterator

    from tidegate_runtime.adapters.load import AdapterLoader
    from tidegate_runtime.adapters.read import Lora


class AdapterObserver(Protocol):
    """Counts what a pool does."""

    def adapter_loaded(self) -> None: ...

    def adapter_evicted(self) -> None: ...


@dataclass(frozen=True)
class _Known:
    """An adapter that requests may ask for; its files stay where they are."""

    source: str
    directory: Path
    digest: str
    rank: int
    targets: tuple[str, ...]
    weights_bytes: int


@dataclass
class _Held:
    """Weights in memory, and the number of requests that hold them."""

    adapter: Adapter
    requests: int = 0


class AdapterPool:
    """Belongs to the event loop; files are read away from it, one adapter at a time.

    Names lead to digests, and weights are kept by digest, the longest unused first: at most `most`
    of them. Invariant: what no name leads to is held by some request.
    """

    def __init__(
        self, model: str, loader: AdapterLoader, most: int, observer: AdapterObserver
    ) -> None:
        self._prefix = f"{model}:"
        self._loader = loader
        self._most = most
        self._observer = observer
        self._known: dict[str, _Known] = {}
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._fetches = asyncio.Lock()
        self._loads = asyncio.Lock()

    @property
    def names(self) -> list[str]:
        """The adapters that requests may ask for."""
        return sorted(self._known)

    @property
    def loaded(self) -> int:
        """How many are in memory."""
        return len(self._held)

    def declare(self, adapters: Mapping[str, str]) -> None:
        """Check adapters (name → source) before any request, and load as many as there is room for.

        Raises ModelRefused, ReplicaUnavailable.
        """
        for name, source in adapters.items():
            directory = self._loader.fetch(source)
            lora = self._loader.read(source, directory)
            adapter = self._loader.adapt(source, lora)
            self._known[name] = _known(source, directory, lora, adapter)
            if len(self._held) < self._most:
                self._keep(adapter)

    def list(self) -> list[AdapterInfo]:
        """Every known adapter."""
        return [self._info(name) for name in self.names]

    async def add(self, name: str, source: str) -> AdapterInfo:
        """Load an adapter under a name; what it named before goes when nobody holds it.

        The same files again change nothing. Raises RequestRefused.
        """
        with _refusals("source", 400):
            async with self._fetches:
                directory = await asyncio.to_thread(self._loader.fetch, source)
            async with self._loads:
                lora = await asyncio.to_thread(self._loader.read, source, directory)
                adapter = await self._load(source, lora)
                before = self._known.get(name)
                self._known[name] = _known(source, directory, lora, adapter)
                if before is not None:
                    self._let_go(before.digest)
        return self._info(name)

    def remove(self, name: str) -> None:
        """Forget an adapter; requests that hold it are answered. Raises RequestRefused (404)."""
        known = self._known.pop(name, None)
        if known is None:
            raise self._unknown(name)
        self._let_go(known.digest)

    @asynccontextmanager
    async def hold(self, model: str) -> AsyncIterator[Adapter | None]:
        """The adapter of a request's `model`, in memory inside the block; None for the model alone.

        Raises RequestRefused.
        """
        if not model.startswith(self._prefix):
            yield None
            return
        held = await self._bring(model.removeprefix(self._prefix))
        held.requests += 1
        try:
            yield held.adapter
        finally:
            held.requests -= 1
            self._let_go(held.adapter.id)

    async def _bring(self, name: str) -> _Held:
        """The weights of a known adapter, which are read again if they were evicted."""
        while True:
            known = self._known.get(name)
            if known is None:
                raise self._unknown(name)
            if (held := self._held.get(known.digest)) is not None:
                self._held.move_to_end(known.digest)
                return held
            with _refusals("model", 503):
                async with self._loads:
                    await self._reload(known)

    async def _reload(self, known: _Known) -> None:
        if known.digest in self._held:
            return
        lora = await asyncio.to_thread(self._loader.read, known.source, known.directory)
        if lora.digest != known.digest:
            raise ModelRefused(
                "SourceChanged",
                f"adapter {known.source!r} has the digest {lora.digest}, and it was added with "
                f"{known.digest}; its files have changed since: add it again",
            )
        await self._load(known.source, lora)

    async def _load(self, source: str, lora: Lora) -> Adapter:
        """The weights in memory; the caller has the lock."""
        if (held := self._held.get(lora.digest)) is not None:
            return held.adapter
        while len(self._held) >= self._most:
            self._evict()
        adapter = await asyncio.to_thread(self._loader.adapt, source, lora)
        self._keep(adapter)
        return adapter

    def _keep(self, adapter: Adapter) -> None:
        if adapter.id not in self._held:
            self._held[adapter.id] = _Held(adapter)
            self._observer.adapter_loaded()

    def _evict(self) -> None:
        """Drop the longest unused of the weights that no request holds. Raises RequestRefused."""
        for digest, held in self._held.items():
            if not held.requests:
                del self._held[digest]
                self._observer.adapter_evicted()
                return
        raise RequestRefused(
            f"All {self._most} adapters that may be in memory are in use; try again, or raise "
            "max_adapters.",
            code="adapters_busy",
            status=503,
            retry_after_s=1,
        )

    def _let_go(self, digest: str) -> None:
        """Drop weights that no name leads to and no request holds."""
        held = self._held.get(digest)
        if held is None or held.requests:
            return
        if all(known.digest != digest for known in self._known.values()):
            del self._held[digest]

    def _info(self, name: str) -> AdapterInfo:
        known = self._known[name]
        held = self._held.get(known.digest)
        return AdapterInfo(
            name=name,
            source=known.source,
            digest=known.digest,
            rank=known.rank,
            targets=list(known.targets),
            weights_bytes=known.weights_bytes,
            loaded=held is not None,
            in_use=0 if held is None else held.requests,
        )

    def _unknown(self, name: str) -> RequestRefused:
        there = ", ".join(map(repr, self.names)) or "none"
        return RequestRefused(
            f"There is no adapter {name!r} here; there are: {there}. Add it with POST /adapters.",
            param="model",
            code="adapter_not_found",
            status=404,
        )


def _known(source: str, directory: Path, lora: Lora, adapter: Adapter) -> _Known:
    return _Known(source, directory, lora.digest, lora.rank, lora.targets, adapter.weights_bytes)


@contextmanager
def _refusals(param: str, status: int) -> Iterator[None]:
    """An adapter that cannot be loaded is an answer, and no fault of the replica."""
    try:
        yield
    except ModelRefused as error:
        raise RequestRefused(
            f"{error.message}.", param=param, code="adapter_refused", status=status
        ) from error
    except ReplicaUnavailable as error:
        raise RequestRefused(
            f"{error.message}.",
            param=param,
            code="adapter_unavailable",
            status=503,
            retry_after_s=5,
        ) from error
