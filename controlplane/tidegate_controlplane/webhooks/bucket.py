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
        from tidegate_controlplane.objects.s3 import S3Store  # boto3 takes long to import

        if self._client is None:
            self._client = await asyncio.to_thread(_new_client, self._timeout_s)
        store = S3Store(destination.bucket, destination.prefix, self._client)
        try:
            await store.put(f"{event_id}.json", [body])
        except ObjectStoreError as error:
            raise Unreachable(f"not stored: {error}") from error
        return STORED


def _new_client(timeout_s: float) -> S3Client:
    """One that gives up within the time of a try: the delivery is what is tried again."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        config=Config(
            connect_timeout=timeout_s / 2,
            read_timeout=timeout_s / 2,
            retries={"mode": "standard", "total_max_attempts": 1},
        ),
    )
