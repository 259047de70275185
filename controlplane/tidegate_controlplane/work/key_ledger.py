"""At the start: the keys that are given against those that something is sealed under."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial

from tidegate_controlplane.clock import Clock
from tidegate_controlplane.encryption.envelope import is_sealed
from tidegate_controlplane.encryption.keyring import Keyring
from tidegate_controlplane.errors import StartError
from tidegate_controlplane.objects.base import ObjectStore
from tidegate_controlplane.store import encryption_keys
from tidegate_controlplane.store.database import Database


async def settle_keys(
    db: Database, objects: ObjectStore, keyring: Keyring | None, clock: Clock
) -> None:
    """Write down the key that seals from now on.

    Raises StartError when one is missing that something may be sealed under.
    """
    recorded = await db.read(encryption_keys.recorded)
    if keyring is None:
        await _settle_without(db, objects, recorded)
        return
    missing = [key_id for key_id in recorded if key_id not in keyring.key_ids]
    if missing:
        raise StartError(
            f"bodies and results are sealed under {' and '.join(missing)}, which is not among the "
            f"keys given ({', '.join(keyring.key_ids)}); give it too with --encryption-key, and "
            "run 'tidegate encryption rotate' before it is taken away"
        )
    await db.write(partial(encryption_keys.record, key_id=keyring.newest, now=clock.now()))


async def _settle_without(db: Database, objects: ObjectStore, recorded: list[str]) -> None:
    """Encryption is off: nothing sealed may be left."""
    if not recorded:
        return
    if await db.read(encryption_keys.has_sealed_rows) or await _has_sealed_objects(objects):
        raise StartError(
            f"bodies and results are sealed under {' and '.join(recorded)}, and no key is given; "
            "encryption cannot be turned off while any of them is kept: give --encryption-key"
        )
    await db.write(partial(encryption_keys.keep_only, key_ids=[]))


async def _has_sealed_objects(objects: ObjectStore) -> bool:
    async with aclosing(objects.list()) as found:
        async for listed in found:
            async with aclosing(objects.get(listed.key)) as pieces:
                if is_sealed(await anext(pieces, b"")):
                    return True
    return False
