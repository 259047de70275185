"""Prefixes that leave the cache and come back: the tokens are those of an engine that computes."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.runtime.engines import (
    GREEDY,
    Steps,
    make_engine,
    tokens_of,
    wait_for_no_blocks,
)
from tests.unit.runtime.fake_decoder import POISON, FakeDecoder
from tests.unit.runtime.tiny_decoders import logits_of, make_decoder, packed_weights, tiny_model

from tidegate_runtime.engine.block_manager import BlockManager, BlockTable, project_salt
from tidegate_runtime.engine.engine import Engine
from tidegate_runtime.engine.sequence import SequenceRequest
from tidegate_runtime.errors import GenerationFailed
from tidegate_runtime.spill.memory import MemoryTier
from tidegate_runtime.spill.open import SpillPlan
from tidegate_runtime.spill.pool import BlockPool, Bytes, DevicePool, HostPool
from tidegate_runtime.spill.store import SpillStore, Tier
from tidegate_runtime.spill.worker import Save, SpillWorker

MIB = 1 << 20
HISTORY = tuple(1 + number % 27 for number in range(400))


class Counts:
    """What a worker tells."""

    def __init__(self) -> None:
        self.taken: list[Tier] = []
        self.back: list[Tier] = []
        self.lacked = 0
        self.hits = 0

    def saved(self, tier: Tier, record_bytes: int) -> None:
        self.taken.append(tier)

    def loaded(self, tier: Tier, record_bytes: int) -> None:
        self.back.append(tier)

    def asked(self, blocks: int, hits: int) -> None:
        self.lacked += blocks
        self.hits += hits


def plan(root: Path, counts: Counts, **fields: Any) -> SpillPlan:
    given = {"memory_bytes": 0, "disk_bytes": 16 * MIB, "artifact": "a", "kv": "fp32", **fields}
    return SpillPlan(root=root, context_tokens=4096, observer=counts, **given)


def worker_of(engine: Engine) -> SpillWorker:
    assert engine._recalls is not None
    return engine._recalls._worker


async def saved(engine: Engine) -> None:
    """Wait until the worker has kept what was released."""
    await wait_for_no_blocks(engine)
    assert await asyncio.to_thread(worker_of(engine).settle, 60.0)


def ask(prompt: tuple[int, ...], count: int = 8, **fields: Any) -> SequenceRequest:
    return SequenceRequest(prompt, count, sampling=GREEDY, **fields)


async def computed(prompt: tuple[int, ...], count: int = 8) -> list[int | None]:
    """What an engine without a spill says."""
    engine = make_engine(FakeDecoder())
    tokens = await tokens_of(engine, ask(prompt, count))
    engine.stop("done")
    return tokens


@pytest.fixture
def counts() -> Counts:
    return Counts()


async def test_the_next_turn_of_a_conversation_finds_its_history_after_a_restart(
    tmp_path: Path, counts: Counts
) -> None:
    first = make_engine(FakeDecoder(), spill=plan(tmp_path, counts))
    answer = await tokens_of(first, ask(HISTORY, 20))
    await saved(first)
    first.stop("killed")
    turn = (*HISTORY, *(token for token in answer if token is not None), 3, 1, 4)
    decoder = FakeDecoder()
    second = make_engine(decoder, spill=plan(tmp_path, counts))
    assert await tokens_of(second, ask(turn)) == await computed(turn)
    assert decoder.rows[0] == len(turn) - 26 * 16
    assert (counts.lacked, counts.hits, set(counts.back)) == (24 + 26, 26, {"disk"})
    second.stop("done")


async def test_what_the_pool_had_no_room_for_comes_back_from_memory(
    tmp_path: Path, counts: Counts
) -> None:
    decoder = FakeDecoder()
    spill = plan(tmp_path, counts, disk_bytes=0, memory_bytes=MIB)
    engine = make_engine(decoder, blocks=30, spill=spill)
    told = await tokens_of(engine, ask(HISTORY))
    await saved(engine)
    await tokens_of(engine, ask(tuple(reversed(HISTORY))))
    await saved(engine)
    before = sum(decoder.rows)
    assert await tokens_of(engine, ask(HISTORY)) == told
    assert sum(decoder.rows) - before == 16 + 7  # the last block, which always runs, and a decode
    assert set(counts.back) == {"memory"}
    assert not any(tmp_path.iterdir())
    engine.stop("done")


async def test_a_project_never_finds_what_another_one_left(tmp_path: Path, counts: Counts) -> None:
    engine = make_engine(FakeDecoder(), spill=plan(tmp_path, counts))
    await tokens_of(engine, ask(HISTORY, project="prj_1"))
    await saved(engine)
    engine.stop("done")
    decoder = FakeDecoder()
    engine = make_engine(decoder, spill=plan(tmp_path, counts))
    await tokens_of(engine, ask(HISTORY, project="prj_2"))
    assert decoder.rows[0] == len(HISTORY)
    assert counts.hits == 0
    engine.stop("done")


async def test_damaged_files_cost_time_and_change_no_token(tmp_path: Path, counts: Counts) -> None:
    engine = make_engine(FakeDecoder(), spill=plan(tmp_path, counts))
    await tokens_of(engine, ask(HISTORY))
    await saved(engine)
    engine.stop("done")
    files = sorted(tmp_path.glob("kv/*/*/??/*.kv"))
    chance = random.Random(5)
    for file in chance.sample(files, 9):
        file.write_bytes(file.read_bytes()[: chance.randrange(150)])
    engine = make_engine(FakeDecoder(), spill=plan(tmp_path, counts))
    assert await tokens_of(engine, ask(HISTORY)) == await computed(HISTORY)
    assert counts.hits < 24
    await saved(engine)
    engine.stop("done")
    whole = [file for file in files if file.stat().st_size == 160]
    assert len(whole) == 25 - 9 + 1, "the one that was met is written again"


async def test_what_a_failed_sequence_left_is_removed_everywhere(
    tmp_path: Path, counts: Counts
) -> None:
    spill = plan(tmp_path, counts, memory_bytes=MIB)
    engine = make_engine(FakeDecoder(), spill=spill, step_tokens=64)
    prompt = (POISON, POISON, *HISTORY)
    await tokens_of(engine, ask(prompt, 0))  # nobody looks at the numbers of a prompt alone
    await saved(engine)
    assert set(counts.taken) == {"memory", "disk"}
    with pytest.raises(GenerationFailed):
        await tokens_of(engine, ask(prompt))
    await saved(engine)
    assert not [*tmp_path.glob("kv/*/*/??/*.kv")]
    with pytest.raises(GenerationFailed):
        await tokens_of(engine, ask(prompt))
    assert counts.hits == 0
    engine.stop("done")


async def test_prompts_that_are_only_scored_are_not_kept(tmp_path: Path, counts: Counts) -> None:
    engine = make_engine(FakeDecoder(), spill=plan(tmp_path, counts))
    await tokens_of(engine, ask(HISTORY, 0, prompt_logprobs=True))
    await saved(engine)
    assert not counts.taken
    engine.stop("done")


async def test_a_caller_that_leaves_while_blocks_come_back_takes_none_with_it(
    tmp_path: Path, counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(FakeDecoder(), spill=plan(tmp_path, counts))
    told = await tokens_of(engine, ask(HISTORY))
    await saved(engine)
    engine.stop("done")
    engine = make_engine(FakeDecoder(), blocks=64, spill=plan(tmp_path, counts))
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()
    load = worker_of(engine)._load
    monkeypatch.setattr(
        worker_of(engine),
        "_load",
        lambda recall: (
            asyncio.run_coroutine_threadsafe(_wait(gate), loop).result(),
            load(recall),
        )[1],
    )
    async with engine.generate([ask(HISTORY)]):
        while not counts.lacked and engine.stats().used_blocks == 0:
            await asyncio.sleep(0.002)
        beside = await tokens_of(engine, ask((1, 2, 3)))
        assert beside == await computed((1, 2, 3)), "a neighbour passes the one who waits"
    assert engine.stats().used_blocks == 24
    gate.set()
    await wait_for_no_blocks(engine)
    assert await tokens_of(engine, ask(HISTORY)) == told
    assert counts.lacked == 24 + 24, "what came back is there for whoever asks"
    engine.stop("done")


async def _wait(gate: asyncio.Event) -> None:
    await gate.wait()


@pytest.mark.parametrize("memory_bytes", [0, 12_000])
async def test_in_a_crowd_every_token_is_the_one_computed(
    tmp_path: Path, counts: Counts, memory_bytes: int
) -> None:
    chance = random.Random(memory_bytes)
    stems = [tuple(chance.choices(range(1, 29), k=200)) for _ in range(6)]
    asked = []
    for number in range(40):
        stem = chance.choice(stems)[: chance.randrange(20, 200)]
        tail = tuple(chance.choices(range(1, 29), k=chance.randrange(1, 40)))
        asked.append(ask((*stem, *tail), chance.randrange(1, 60), priority=number % 3))
    plain = make_engine(FakeDecoder(), blocks=512)
    expected = [await tokens_of(plain, replace(one, priority=0)) for one in asked]
    plain.stop("done")
    disk_bytes = 0 if memory_bytes else 16 * MIB
    spill = plan(tmp_path, counts, memory_bytes=memory_bytes, disk_bytes=disk_bytes)
    steps = Steps()
    engine = make_engine(FakeDecoder(), blocks=36, step_tokens=48, spill=spill, observer=steps)
    for _ in range(10):  # whom the engine meets first is the threads' affair
        found = await asyncio.gather(*(tokens_of(engine, one) for one in asked))
        assert found == expected
        if steps.total.preempted:
            break
    assert steps.total.preempted > 0
    assert counts.hits > 0
    await saved(engine)
    engine.stop("done")


# --- below the engine -----------------------------------------------------------------------------


class Overtaken:
    """A pool in which a block is given away while it is read."""

    record_bytes = 4

    def __init__(self, blocks: BlockManager, table: BlockTable) -> None:
        self.blocks = blocks
        self.table = table

    def read(self, block: int) -> bytes:
        self.blocks.forget(self.table)
        return b"torn"

    def write(self, block: int, record: Bytes) -> None:
        raise AssertionError


def test_a_copy_of_a_block_that_was_given_away_meanwhile_does_not_count() -> None:
    blocks, table = BlockManager(1), BlockTable(1)
    blocks.grow(table, 16)
    key = project_salt("any")
    blocks.register(int(table.ids[0]), key)
    counts, store = Counts(), SpillStore(4, MemoryTier(100))
    worker = SpillWorker(Overtaken(blocks, table), blocks, store, counts)
    worker.start(lambda recalled: None)
    worker.save([Save(0, key, blocks.version(0))])
    worker.stop()
    assert store.load(key) is None
    assert not counts.taken


@pytest.fixture(scope="module")
def llama() -> Iterator[Any]:
    yield tiny_model("Llama")


@pytest.mark.parametrize(
    ("kind", "kv"),
    [
        *(("native", kv) for kv in ("fp32", "bf16", "int8", "fp8")),
        ("transformers", "int8"),
        ("torch", "bf16"),
        ("torch", "int8"),
        ("torch", "fp8"),
    ],
)
@pytest.mark.parametrize("pool_kind", [HostPool, DevicePool])
def test_a_block_brought_back_is_the_same_to_the_bit(
    llama: Any, kind: str, kv: str, pool_kind: type[HostPool | DevicePool]
) -> None:
    weights = packed_weights(llama, 8)
    first, second = (make_decoder(kind, llama.config, weights, kv) for _ in range(2))
    prompt, tail = list(range(7, 39)), [5, 4, 3]
    logits_of(first, (prompt, 0, [3, 5]))
    expected = logits_of(first, (tail, 32, [3, 5, 6]))
    out, back = (pool_kind(decoder.pool_tensors()) for decoder in (first, second))
    _bring(out, back, {3: 40, 5: 2})
    assert torch.equal(logits_of(second, (tail, 32, [40, 2, 9])), expected)


def _bring(out: BlockPool, back: BlockPool, places: dict[int, int]) -> None:
    assert out.record_bytes == back.record_bytes
    for source, target in places.items():
        record = out.read(source)
        assert len(record) == out.record_bytes
        back.write(target, np.frombuffer(record, dtype=np.uint8))


def test_what_was_made_otherwise_has_another_directory(tmp_path: Path, counts: Counts) -> None:
    given = plan(tmp_path, counts)
    pools = [torch.zeros(4, 2, 16, 8)]
    kinds = [
        given.kind(pools),
        replace(given, artifact="b").kind(pools),
        replace(given, kv="bf16").kind(pools),
        replace(given, context_tokens=1).kind(pools),
        given.kind([pools[0].half()]),
        given.kind([pools[0].transpose(1, 2)]),
    ]
    assert len(set(kinds)) == len(kinds)
    other_room = replace(given, disk_bytes=1, memory_bytes=1, root=tmp_path / "elsewhere")
    assert other_room.kind([torch.ones(9, 2, 16, 8)]) == kinds[0]
