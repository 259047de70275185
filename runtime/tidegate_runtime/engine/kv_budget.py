"""How many blocks the key/value cache gets. Pure arithmetic over sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate_runtime.engine.block_manager import BLOCK_TOKENS, blocks_for
from tidegate_runtime.errors import ModelRefused, ReplicaUnavailable

_FREE_SHARE = 4


@dataclass(frozen=True)
class KvShape:
    """What one layer keeps of one token; every layer of a model is alike.

    `head_bytes` is what each head keeps beside its key and value, such as their scales.
    """

    layers: int
    kv_heads: int
    key_dim: int
    value_dim: int
    item_bytes: int
    head_bytes: int = 0

    @property
    def token_bytes(self) -> int:
        """Bytes that one token takes over all layers, keys and values."""
        head = (self.key_dim + self.value_dim) * self.item_bytes + self.head_bytes
        return self.layers * self.kv_heads * head


def kv_blocks(
    shape: KvShape,
    *,
    wanted_bytes: int | None,
    free_bytes: int,
    max_sequences: int,
    context_tokens: int,
) -> int:
    """The number of blocks: what was asked for, or else what every sequence could ever use.

    Unasked, it takes at most a quarter of the free memory, because the machine is shared and
    activations need room. Raises ModelRefused (KvCacheTooSmall), or ReplicaUnavailable
    (OutOfMemory), since what others hold now may be free later.
    """
    block_bytes = shape.token_bytes * BLOCK_TOKENS
    if wanted_bytes is not None:
        if wanted_bytes > free_bytes:
            raise ReplicaUnavailable(
                "OutOfMemory",
                f"kv_cache_bytes {wanted_bytes} is more than the {free_bytes} bytes free; lower it",
            )
        count = wanted_bytes // block_bytes
    else:
        useful = max_sequences * blocks_for(context_tokens)
        count = min(free_bytes // _FREE_SHARE // block_bytes, useful)
    if count < 1:
        raise ModelRefused(
            "KvCacheTooSmall",
            f"a key/value cache of {wanted_bytes or free_bytes // _FREE_SHARE} bytes holds no "
            f"block of {BLOCK_TOKENS} tokens, which takes {block_bytes} bytes; raise "
            "kv_cache_bytes or use a smaller model",
        )
    return count
