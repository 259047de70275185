"""Short bytes at rest: bodies that are kept in their rows, and secrets. One chunk each.

`name` says whose they are, as the key of an object would: `{project}/…`. It must follow from the
row, not be read from a column beside the bytes, so that bytes moved to another row do not open.
"""

from __future__ import annotations

from tidegate_controlplane.encryption.envelope import Chunks, Header, damaged, is_sealed, parse
from tidegate_controlplane.encryption.errors import KeyMissing, NotSealed
from tidegate_controlplane.encryption.keyring import Keyring


class Envelopes:
    """Seals and opens; without a keyring, everything is plain and stays as it is."""

    def __init__(self, keyring: Keyring | None = None, *, required: bool = False) -> None:
        """`required`: nothing plain is believed, so nobody can put plain bytes in their place."""
        self.keyring = keyring
        self._required = required

    async def seal(self, name: str, plain: bytes) -> bytes:
        """`plain` as it is to be stored. Raises KeysUnavailable."""
        if self.keyring is None:
            return plain
        data_key = await self.keyring.make(name)
        header = Header(data_key.wrapped)
        return header.pack() + Chunks(data_key.plain, header, name).seal(0, plain, last=True)

    async def open(self, name: str, stored: bytes) -> bytes:
        """What was sealed under `name`. Raises KeysUnavailable, ObjectDamaged, NotSealed."""
        if not is_sealed(stored):
            if self._required:
                raise not_sealed(name)
            return stored
        if self.keyring is None:
            raise KeyMissing(f"{name!r} is sealed; give its key with --encryption-key")
        header, start = whole_header(stored, name)
        data_key = await self.keyring.unwrap(header.wrapped, name)
        return Chunks(data_key, header, name).open(0, stored[start:], last=True)

    async def rewrapped(self, name: str, stored: bytes) -> bytes:
        """The same under the newest key: only the header changes, unless `stored` is plain."""
        assert self.keyring is not None
        if not is_sealed(stored):
            return await self.seal(name, stored)
        header, start = whole_header(stored, name)
        return (await self.keyring.rewrapped(header, name)).pack() + stored[start:]


def whole_header(stored: bytes, name: str) -> tuple[Header, int]:
    """The header of sealed bytes that are all there. Raises ObjectDamaged."""
    found = parse(stored, name)
    if found is None:
        raise damaged(name, "it ends within its header")
    return found


def key_id_of(stored: bytes, name: str) -> str | None:
    """The key that short sealed bytes are under; None when they are plain."""
    return whole_header(stored, name)[0].wrapped.key_id if is_sealed(stored) else None


def not_sealed(name: str) -> NotSealed:
    return NotSealed(
        f"{name!r} is not sealed, and --encryption-required says that everything is; if it is from "
        "before encryption, start without that once and run: tidegate encryption rotate"
    )
