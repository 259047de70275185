"""Which object store this process uses."""

from __future__ import annotations

from urllib.parse import urlsplit

from tidegate_controlplane.errors import StartError
from tidegate_controlplane.objects.base import ObjectStore, ObjectStoreError
from tidegate_controlplane.objects.directory import DirectoryStore
from tidegate_controlplane.settings import Settings


def open_objects(settings: Settings) -> ObjectStore:
    """The store that `settings.objects` names. Blocks. Raises StartError when it cannot be used."""
    if settings.objects is None or not settings.objects_in_s3:
        return DirectoryStore(settings.objects_dir)
    place = urlsplit(settings.objects)
    if place.scheme != "s3" or not place.netloc:
        raise StartError(
            f"objects: expected s3://bucket/prefix or an absolute directory, got "
            f"{settings.objects!r}"
        )
    from tidegate_controlplane.objects.s3 import S3Store  # boto3 takes half a second to import

    store = S3Store(place.netloc, place.path)
    try:
        store.check()
    except ObjectStoreError as error:
        raise StartError(f"objects: {settings.objects} cannot be used: {error}") from error
    return store
