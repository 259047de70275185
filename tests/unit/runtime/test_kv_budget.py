import pytest

from tidegate_runtime.engine.kv_budget import KvShape, kv_blocks
from tidegate_runtime.errors import ModelRefused, ReplicaUnavailable

SHAPE = KvShape(layers=2, kv_heads=2, key_dim=8, value_dim=8, item_bytes=2)
BLOCK_BYTES = SHAPE.token_bytes * 16


def blocks(wanted: int | None, free: int, sequences: int = 4, context: int = 100) -> int:
    return kv_blocks(
        SHAPE,
        wanted_bytes=wanted,
        free_bytes=free,
        max_sequences=sequences,
        context_tokens=context,
    )


def test_a_token_takes_keys_and_values_of_every_layer() -> None:
    assert SHAPE.token_bytes == 2 * 2 * (8 + 8) * 2


def test_what_was_asked_for_is_given_in_whole_blocks() -> None:
    assert blocks(10 * BLOCK_BYTES + 1, 1 << 30) == 10


def test_unasked_it_takes_what_every_sequence_could_use() -> None:
    assert blocks(None, 1 << 30) == 4 * 7


def test_unasked_it_takes_at_most_a_quarter_of_the_free_memory() -> None:
    assert blocks(None, 40 * BLOCK_BYTES) == 10


def test_a_cache_without_a_single_block_is_refused_with_the_size_of_one() -> None:
    with pytest.raises(ModelRefused, match=str(BLOCK_BYTES)) as refused:
        blocks(BLOCK_BYTES - 1, 1 << 30)
    assert refused.value.reason == "KvCacheTooSmall"


def test_a_cache_larger_than_the_free_memory_may_fit_later() -> None:
    with pytest.raises(ReplicaUnavailable, match="lower it") as refused:
        blocks(1 << 20, 1 << 19)
    assert refused.value.reason == "OutOfMemory"
