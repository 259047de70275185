"""The keys that wrap data keys: the newest wraps, every one that is held unwraps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tidegate_controlplane.encryption.envelope import Header, Wrapped
from tidegate_controlplane.encryption.errors import KeyMissing


@dataclass(frozen=True)
class DataKey:
    """A key of 32 bytes for one object, and how it is stored."""

    plain: bytes = field(repr=False)
    wrapped: Wrapped


class KeySource(Protocol):
    """Where keys are held: a file, or a key service. `name` is bound to what is wrapped."""

    @property
    def key_ids(self) -> Sequence[str]:
        """What it can unwrap, the newest last; ASCII, at most 255 characters each."""
        ...

    async def make(self, name: str) -> DataKey:
        """A new data key, wrapped by the newest. Raises KeysUnavailable."""
        ...

    async def wrap(self, data_key: bytes, name: str) -> Wrapped:
        """By the newest. Raises KeysUnavailable."""
        ...

    async def unwrap(self, wrapped: Wrapped, name: str) -> bytes:
        """Raises KeysUnavailable, and ObjectDamaged when it was not wrapped for `name`."""
        ...


class Keyring:
    """The sources in the order they are given, the one that wraps last."""

    def __init__(self, sources: Sequence[KeySource]) -> None:
        self._sources = sources

    @property
    def key_ids(self) -> list[str]:
        """Every key that is held, the newest last."""
        return [key_id for source in self._sources for key_id in source.key_ids]

    @property
    def newest(self) -> str:
        """The id of the key that wraps."""
        return self.key_ids[-1]

    async def make(self, name: str) -> DataKey:
        return await self._sources[-1].make(name)

    async def unwrap(self, wrapped: Wrapped, name: str) -> bytes:
        """Raises KeyMissing when no source holds the key, and what the source raises."""
        for source in self._sources:
            if wrapped.key_id in source.key_ids:
                return await source.unwrap(wrapped, name)
        raise KeyMissing(
            f"{name!r} is sealed under the key {wrapped.key_id}, which is not among those given "
            f"({', '.join(self.key_ids)}); give it again with --encryption-key"
        )

    async def rewrapped(self, header: Header, name: str) -> Header:
        """`header` with its data key under the newest key."""
        data_key = await self.unwrap(header.wrapped, name)
        return header.with_key(await self._sources[-1].wrap(data_key, name))
