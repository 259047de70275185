"""Which adapters are in memory, as requests come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tidegate_runtime.adapters.load import AdapterLoader
from tidegate_runtime.adapters.pool import AdapterPool
from tidegate_runtime.engine.adapter import Adapter
from tidegate_runtime.errors import ModelRefused, RequestRefused


class Counts:
    """What a pool tells of."""

    def __init__(self) -> None:
        self.loads = self.evictions = 0

    def adapter_loaded(self) -> None:
        self.loads += 1

    def adapter_evicted(self) -> None:
        self.evictions += 1


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
async def pool(
    loader: AdapterLoader, save_adapter: Callable[..., Path], counts: Counts
) -> AsyncIterator[AdapterPool]:
    """Three known adapters, two of them in memory."""
    made = AdapterPool("m", loader, 2, counts)
    names = {"a": 1, "b": 2, "c": 3}
    made.declare(
        {
            name: str(save_adapter(name, seed=seed, r=1, target_modules=("q_proj",)))
            for name, seed in names.items()
        }
    )
    yield made


def in_memory(pool: AdapterPool) -> set[str]:
    return {info.name for info in pool.list() if info.loaded}


async def held(pool: AdapterPool, name: str) -> Adapter:
    async with pool.hold(f"m:{name}") as adapter:
        assert adapter is not None
        return adapter


async def test_the_first_declared_ones_are_in_memory_at_the_start(pool: AdapterPool) -> None:
    assert pool.names == ["a", "b", "c"]
    assert in_memory(pool) == {"a", "b"}
    async with pool.hold("m") as adapter:
        assert adapter is None


async def test_a_declared_one_that_is_wrong_is_refused(
    loader: AdapterLoader, save_adapter: Callable[..., Path], counts: Counts
) -> None:
    with pytest.raises(ModelRefused, match="bias"):
        AdapterPool("m", loader, 2, counts).declare(
            {"x": str(save_adapter("x", bias="lora_only", r=1))}
        )


async def test_the_longest_unused_makes_room_and_comes_back_the_same(
    pool: AdapterPool, counts: Counts
) -> None:
    first = await held(pool, "a")
    await held(pool, "c")
    assert in_memory(pool) == {"a", "c"}
    await held(pool, "b")
    assert in_memory(pool) == {"c", "b"}
    again = await held(pool, "a")
    assert (again.id, again is first) == (first.id, False)
    assert (counts.loads, counts.evictions) == (5, 3)


async def test_what_a_request_holds_is_never_evicted(pool: AdapterPool) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(pool.hold("m:a"))
        await held(pool, "b")
        await held(pool, "c")
        assert in_memory(pool) == {"a", "c"}
        await stack.enter_async_context(pool.hold("m:c"))
        with pytest.raises(RequestRefused, match="All 2 adapters") as refused:
            await held(pool, "b")
        assert (refused.value.status, refused.value.code) == (503, "adapters_busy")
        assert in_memory(pool) == {"a", "c"}
    await held(pool, "b")


async def test_many_requests_for_one_that_was_evicted_read_it_once(
    pool: AdapterPool, counts: Counts
) -> None:
    found = await asyncio.gather(*(held(pool, "c") for _ in range(5)))
    assert len({id(adapter) for adapter in found}) == 1
    assert (counts.loads, counts.evictions) == (3, 1)


async def test_the_same_files_again_change_nothing(pool: AdapterPool, counts: Counts) -> None:
    before = pool.list()[0]
    assert await pool.add("a", before.source) == before
    assert counts.loads == 2


async def test_a_replaced_adapter_stays_for_those_who_hold_it(
    pool: AdapterPool, save_adapter: Callable[..., Path]
) -> None:
    async with pool.hold("m:a") as old:
        assert old is not None
        info = await pool.add("a", str(save_adapter("new", seed=9, r=2)))
        assert (info.rank, info.loaded) == (2, True)
        assert info.digest != old.id
        assert (await held(pool, "a")).id == info.digest
        assert pool.loaded == 2
    assert pool.loaded == 1
    assert (await held(pool, "a")).id == info.digest


async def test_a_removed_adapter_stays_for_those_who_hold_it(pool: AdapterPool) -> None:
    async with pool.hold("m:a"):
        pool.remove("a")
        assert pool.names == ["b", "c"]
        assert pool.loaded == 2
    assert pool.loaded == 1
    with pytest.raises(RequestRefused, match="there are: 'b', 'c'") as refused:
        await held(pool, "a")
    assert refused.value.status == 404
    with pytest.raises(RequestRefused, match="no adapter 'a'"):
        pool.remove("a")


async def test_two_names_of_the_same_files_share_their_weights(pool: AdapterPool) -> None:
    source = pool.list()[0].source
    await pool.add("again", source)
    assert (await held(pool, "again")) is (await held(pool, "a"))
    pool.remove("again")
    assert in_memory(pool) == {"a", "b"}


async def test_files_that_changed_since_are_not_taken_for_the_same(
    pool: AdapterPool, save_adapter: Callable[..., Path]
) -> None:
    save_adapter("c", seed=7, r=1, target_modules=("q_proj",))
    with pytest.raises(RequestRefused, match="add it again"):
        await held(pool, "c")
    await pool.add("c", pool.list()[2].source)
    await held(pool, "c")


async def test_a_wrong_adapter_is_refused_and_the_others_are_as_they_were(
    pool: AdapterPool, save_adapter: Callable[..., Path]
) -> None:
    with pytest.raises(RequestRefused, match="use_dora") as refused:
        await pool.add("d", str(save_adapter("d", use_dora=True)))
    assert (refused.value.status, refused.value.param) == (400, "source")
    assert in_memory(pool) == {"a", "b"}
    assert pool.names == ["a", "b", "c"]
