"""A model in S3, or in anything that speaks it: a prefix of files, or one GGUF object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tidegate_controlplane.models.source import SourceError

CONFIG = Config(connect_timeout=5, read_timeout=30, retries={"max_attempts": 3})


class S3Files:
    """Implements `ModelFiles` for `bucket/key`."""

    revision = None

    def __init__(self, location: str, is_gguf: bool) -> None:
        self._bucket, _, self._key = location.partition("/")
        self._is_gguf = is_gguf
        self._etags: dict[str, str] = {}
        try:
            self._client: Any = boto3.client("s3", config=CONFIG)
        except (BotoCoreError, ValueError) as error:
            raise SourceError(self._cannot(error)) from error

    def listing(self) -> Mapping[str, int]:
        prefix = self._key if self._is_gguf else f"{self._key}/"
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=prefix
            )
            found = {
                self._name(item["Key"]): (int(item["Size"]), str(item["ETag"]).strip('"'))
                for page in pages
                for item in page.get("Contents", [])
                if self._is_part(item["Key"])
            }
        except (BotoCoreError, ClientError) as error:
            raise SourceError(self._cannot(error)) from error
        if not found:
            raise SourceError(
                f"'s3://{self._bucket}/{self._key}' does not exist: there is no object under it; "
                "check the bucket and the key"
            )
        self._etags = {name: etag for name, (_, etag) in found.items()}
        return {name: size for name, (size, _) in found.items()}

    def fingerprint(self, name: str) -> str:
        return self._etags[name]

    def read(self, name: str, start: int, length: int) -> bytes:
        key = self._key if self._is_gguf else f"{self._key}/{name}"
        try:
            answer = self._client.get_object(
                Bucket=self._bucket, Key=key, Range=f"bytes={start}-{start + length - 1}"
            )
            body: bytes = answer["Body"].read()
        except (BotoCoreError, ClientError) as error:
            raise SourceError(self._cannot(error)) from error
        return body

    def _is_part(self, key: str) -> bool:
        """The one object; or any under the prefix, but for the empty ones that mark a folder."""
        return key == self._key if self._is_gguf else not key.endswith("/")

    def _name(self, key: str) -> str:
        return key.rsplit("/", 1)[-1] if self._is_gguf else key.removeprefix(f"{self._key}/")

    def _cannot(self, error: Exception) -> str:
        return (
            f"cannot read 's3://{self._bucket}/{self._key}': {error}; check the bucket, the "
            "credentials (AWS_ACCESS_KEY_ID, AWS_PROFILE) and AWS_ENDPOINT_URL"
        )
