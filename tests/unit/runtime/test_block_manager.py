import pytest

from tidegate_runtime.engine.block_manager import BlockManager, blocks_for


def test_a_table_grows_by_whole_blocks_of_sixteen_tokens() -> None:
    blocks = BlockManager(4)
    table: list[int] = []
    assert blocks.grow(table, 16)
    assert len(table) == 1
    assert blocks.grow(table, 17)
    assert len(table) == 2
    assert blocks.grow(table, 20)
    assert len(table) == 2
    assert (blocks.free_blocks, blocks.used_blocks) == (2, 2)


def test_growth_that_does_not_fit_takes_nothing() -> None:
    blocks = BlockManager(2)
    table: list[int] = []
    assert not blocks.grow(table, 33)
    assert table == []
    assert blocks.free_blocks == 2


def test_no_block_is_given_to_two_tables() -> None:
    blocks = BlockManager(4)
    first: list[int] = []
    second: list[int] = []
    assert blocks.grow(first, 32)
    assert blocks.grow(second, 32)
    assert not set(first) & set(second)


def test_a_shared_block_is_free_only_when_its_last_holder_lets_go() -> None:
    blocks = BlockManager(1)
    table: list[int] = []
    blocks.grow(table, 1)
    shared = list(table)
    blocks.share(shared)
    blocks.release(table)
    assert blocks.free_blocks == 0
    blocks.release(shared)
    assert blocks.free_blocks == 1


def test_a_block_cannot_be_released_twice() -> None:
    blocks = BlockManager(1)
    table: list[int] = []
    blocks.grow(table, 1)
    again = list(table)
    blocks.release(table)
    with pytest.raises(ValueError, match="more often"):
        blocks.release(again)


def test_a_free_block_cannot_be_shared() -> None:
    with pytest.raises(ValueError, match="is free"):
        BlockManager(1).share([0])


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (16, 1), (17, 2)])
def test_tokens_are_rounded_up_to_blocks(tokens: int, blocks: int) -> None:
    assert blocks_for(tokens) == blocks
