"""Events as objects in S3, for those who would rather look than listen."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tidegate_controlplane.domain.destinations import BucketDestination
from tidegate_controlplane.objects.base import ObjectStoreError
from tidegate_controlplane.webhooks.receiver import Answered, Unreachable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

STORED = Answered(200, None, b"")


class Buckets:
    """Every bucket that events are written to."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._client: S3Client | None = None

    async def put(self, destination: BucketDestination, event_id: str, body: bytes) -> Answered:
        """One object `<event id>.json`: a second try writes the same again. Raises Unreachable."""
        from tidegate_controlplane.objects.s3 import S3Store, new_client  # boto3 takes long

        if self._client is None:
            half_s = self._timeout_s / 2  # within a try: the delivery is what is tried again
            self._client = await asyncio.to_thread(new_client, half_s, half_s, tries=1)
        store = S3Store(destination.bucket, destination.prefix, self._client)
        try:
            await store.put(f"{event_id}.json", [body])
        except ObjectStoreError as error:
            raise Unreachable(f"not stored: {error}") from error
        return STORED
