"""What a replica has probably cached."""

from __future__ import annotations

from tidegate_controlplane.domain.prefix import (
    BLOCK_BYTES,
    BLOCK_TOKENS,
    MOST_BLOCKS,
    PrefixMemory,
    prefix_blocks,
)

SYSTEM = b"s" * (3 * BLOCK_BYTES)


def test_equal_beginnings_have_equal_blocks_and_only_those() -> None:
    one, other = prefix_blocks("p", SYSTEM + b"a" * BLOCK_BYTES), prefix_blocks("p", SYSTEM + b"b")
    assert one[:3] == other
    changed = prefix_blocks("p", b"x" + SYSTEM[1:])
    assert not set(changed) & set(one), "a block stands for everything before it"


def test_projects_share_no_blocks() -> None:
    assert not set(prefix_blocks("p", SYSTEM)) & set(prefix_blocks("q", SYSTEM))


def test_short_prompts_have_no_blocks_and_long_ones_a_bounded_number() -> None:
    assert prefix_blocks("p", b"s" * (BLOCK_BYTES - 1)) == ()
    assert len(prefix_blocks("p", b"s" * (BLOCK_BYTES * 1000))) == MOST_BLOCKS


def test_what_was_sent_is_saved_as_far_as_it_is_the_beginning() -> None:
    memory = PrefixMemory()
    memory.remember((1, 2, 3))
    assert memory.saved_tokens((1, 2, 9)) == 2 * BLOCK_TOKENS
    assert memory.saved_tokens((9, 1, 2)) == 0


def test_memory_is_bounded_and_the_beginnings_are_kept_longest() -> None:
    memory = PrefixMemory(capacity=4)
    memory.remember((1, 2, 3))
    memory.remember((4, 5))
    assert memory.saved_tokens((1, 2, 3)) == 2 * BLOCK_TOKENS
    assert memory.saved_tokens((4, 5)) == 2 * BLOCK_TOKENS
