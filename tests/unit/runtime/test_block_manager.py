import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_runtime.engine.block_manager import (
    BlockHash,
    BlockManager,
    BlockTable,
    block_hash,
    blocks_for,
    project_salt,
)


def key(name: str) -> BlockHash:
    return BlockHash(hashlib.blake2b(name.encode(), digest_size=16).digest())


def blocks_of(table: BlockTable) -> list[int]:
    return list(table.ids[: table.length])


def cached(blocks: BlockManager, *names: str) -> BlockTable:
    """Blocks that were computed, are known by these names, and have no holder any more."""
    table = BlockTable(len(names))
    assert blocks.grow(table, 16 * len(names))
    for block, name in zip(blocks_of(table), names, strict=True):
        blocks.register(block, key(name))
    before = BlockTable(len(names))
    before.extend(blocks_of(table))
    blocks.release(table)
    return before


def test_a_table_grows_by_whole_blocks_of_sixteen_tokens() -> None:
    blocks = BlockManager(4)
    table = BlockTable(4)
    assert blocks.grow(table, 16)
    assert table.length == 1
    assert blocks.grow(table, 17)
    assert table.length == 2
    assert blocks.grow(table, 20)
    assert table.length == 2
    assert (blocks.free_blocks, blocks.used_blocks) == (2, 2)


def test_growth_that_does_not_fit_takes_nothing() -> None:
    blocks = BlockManager(2)
    table = BlockTable(3)
    assert not blocks.grow(table, 33)
    assert table.length == 0
    assert blocks.free_blocks == 2


def test_no_block_is_given_to_two_tables() -> None:
    blocks = BlockManager(4)
    first, second = BlockTable(2), BlockTable(2)
    assert blocks.grow(first, 32)
    assert blocks.grow(second, 32)
    assert not set(blocks_of(first)) & set(blocks_of(second))


def test_a_block_cannot_be_released_twice() -> None:
    blocks = BlockManager(1)
    table, again = BlockTable(1), BlockTable(1)
    blocks.grow(table, 1)
    again.extend(blocks_of(table))
    blocks.release(table)
    with pytest.raises(ValueError, match="more often"):
        blocks.release(again)


def test_a_free_block_cannot_be_registered() -> None:
    with pytest.raises(ValueError, match="is free"):
        BlockManager(1).register(0, key("a"))


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (16, 1), (17, 2)])
def test_tokens_are_rounded_up_to_blocks(tokens: int, blocks: int) -> None:
    assert blocks_for(tokens) == blocks


def test_the_longest_known_prefix_is_found_and_shared() -> None:
    blocks = BlockManager(8)
    before = cached(blocks, "a", "b", "c")
    wanted = [key("a"), key("b"), key("x"), key("c")]
    assert blocks.known(wanted) == 2
    table = BlockTable(4)
    blocks.share(table, wanted[:2])
    assert blocks_of(table) == blocks_of(before)[:2]
    assert blocks.used_blocks == 2


def test_a_shared_block_is_free_only_when_its_last_holder_lets_go() -> None:
    blocks = BlockManager(2)
    cached(blocks, "a")
    first, second = BlockTable(1), BlockTable(1)
    blocks.share(first, [key("a")])
    blocks.share(second, [key("a")])
    blocks.release(first)
    assert blocks.used_blocks == 1
    blocks.release(second)
    assert blocks.used_blocks == 0
    assert blocks.known([key("a")]) == 1


def test_cached_blocks_are_reclaimed_last_and_the_longest_unused_first() -> None:
    blocks = BlockManager(4)
    cached(blocks, "old")
    cached(blocks, "new")
    used = BlockTable(1)
    blocks.share(used, [key("old")])
    blocks.release(used)
    table = BlockTable(4)
    assert blocks.grow(table, 2 * 16)
    assert blocks.known([key("old")]) == blocks.known([key("new")]) == 1
    assert blocks.grow(table, 3 * 16)
    assert (blocks.known([key("old")]), blocks.known([key("new")])) == (1, 0)
    assert blocks.grow(table, 4 * 16)
    assert blocks.known([key("old")]) == 0


def test_the_end_of_a_prefix_is_reclaimed_before_its_start() -> None:
    blocks = BlockManager(3)
    cached(blocks, "a", "ab", "abc")
    assert blocks.grow(BlockTable(1), 16)
    assert blocks.known([key("a"), key("ab"), key("abc")]) == 2


def test_of_two_blocks_with_the_same_content_one_is_known() -> None:
    blocks = BlockManager(4)
    first, second = BlockTable(1), BlockTable(1)
    for table in (first, second):
        blocks.grow(table, 16)
        blocks.register(blocks_of(table)[0], key("a"))
    blocks.release(second)
    blocks.release(first)
    shared = BlockTable(1)
    blocks.share(shared, [key("a")])
    assert blocks.used_blocks == 1
    assert blocks.free_blocks == 3


def test_what_is_forgotten_is_not_found_again() -> None:
    blocks = BlockManager(4)
    cached(blocks, "a", "b")
    table = BlockTable(2)
    blocks.share(table, [key("a"), key("b")])
    blocks.forget(table)
    blocks.release(table)
    assert blocks.known([key("a")]) == 0
    assert blocks.free_blocks == 4


def test_a_hash_depends_on_the_tokens_the_context_and_the_project() -> None:
    hashes = {
        block_hash(project_salt(project), content)
        for project in ("", "a", "b")
        for content in (b"one", b"two")
    }
    hashes |= {block_hash(parent, b"one") for parent in list(hashes)}
    assert len(hashes) == 12
    assert all(len(made) == 16 for made in hashes)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=80))
def test_any_history_keeps_every_block_in_one_state(history: list[tuple[int, int]]) -> None:
    blocks = BlockManager(12)
    tables = [BlockTable(12) for _ in range(5)]
    names: dict[int, list[BlockHash]] = {}
    for which, action in history:
        table = tables[which]
        if action < 4:
            blocks.grow(table, 16 * min(12, table.length + action))
        elif action < 7 and not table.length and which in names:
            blocks.share(table, names[which][: blocks.known(names[which])])
        elif action < 9:
            names[which] = [key(f"{which}/{place}") for place in range(table.length)]
            for block, name in zip(blocks_of(table), names[which], strict=True):
                blocks.register(block, name)
            blocks.release(table)
        else:
            blocks.forget(table)
        held = {block for other in tables for block in blocks_of(other)}
        assert blocks.used_blocks == len(held)
        assert not held & set(blocks._cached)
        assert sorted([*held, *blocks._cached, *blocks._free]) == list(range(12))
        assert {blocks._block_of[name] for name in blocks._block_of} == set(blocks._hash_of)
    for table in tables:
        blocks.release(table)
    assert blocks.free_blocks == 12
