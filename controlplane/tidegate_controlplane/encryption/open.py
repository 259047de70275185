"""Which keys this process was given, and what they seal."""

from __future__ import annotations

from pathlib import Path

from tidegate_controlplane.clock import Clock
from tidegate_controlplane.encryption.errors import KeysUnavailable
from tidegate_controlplane.encryption.key_file import FileKeys, read_keys
from tidegate_controlplane.encryption.keyring import Keyring, KeySource
from tidegate_controlplane.encryption.sealed_store import SealedStore
from tidegate_controlplane.errors import StartError
from tidegate_controlplane.objects.base import ObjectStore
from tidegate_controlplane.settings import EncryptionSettings

KMS = "kms:"
_MAX_ID_CHARS = 255


def open_keyring(settings: EncryptionSettings, clock: Clock) -> Keyring | None:
    """The keys that the settings name, None when they name none; the last one wraps. Blocks.

    Raises StartError when one of them cannot be used, or a key is required and there is none.
    """
    if settings.keys:
        return Keyring([_source(place, clock) for place in settings.keys])
    if settings.required:
        raise StartError("--encryption-required: needs a key; give one with --encryption-key")
    return None


def sealing(store: ObjectStore, keyring: Keyring | None, *, required: bool) -> ObjectStore:
    """`store` behind a seal when there are keys, else itself."""
    return store if keyring is None else SealedStore(store, keyring, required=required)


def _source(place: str, clock: Clock) -> KeySource:
    if not place.startswith(KMS):
        return FileKeys(read_keys(Path(place)))
    key = place.removeprefix(KMS)
    if not key or not place.isascii() or len(place) > _MAX_ID_CHARS:
        raise StartError(f"--encryption-key: expected kms:<key id>, got {place!r}")
    from tidegate_controlplane.encryption.kms import KmsKeys  # boto3 takes half a second to import

    keys = KmsKeys(key, clock)
    try:
        keys.check()
    except KeysUnavailable as error:
        raise StartError(f"--encryption-key {place}: cannot be used: {error}") from error
    return keys
