"""Keys in AWS KMS, or in anything that speaks its API: they never leave it.

Each object is one call of `GenerateDataKey` when it is written, and one of `Decrypt` when it is
read for the first time; data keys that were used lately are kept in memory, a bounded number for a
bounded time. The object's name is the encryption context, so KMS itself refuses to unwrap a key for
another object, and its audit trail says which objects were read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tidegate_controlplane.clock import Clock
from tidegate_controlplane.encryption.envelope import KEY_BYTES, Wrapped, damaged
from tidegate_controlplane.encryption.errors import KeysUnavailable
from tidegate_controlplane.encryption.keyring import DataKey
from tidegate_controlplane.objects.threads import in_thread

if TYPE_CHECKING:
    from botocore.client import BaseClient

P = ParamSpec("P")
T = TypeVar("T")

CACHED_KEYS = 1000
CACHED_S = 300.0
_CONTEXT = "tidegate"
_NOT_OURS = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})


class KmsKeys:
    """A KeySource over one key of KMS: an id, an ARN or an `alias/…`."""

    def __init__(self, key: str, clock: Clock, client: BaseClient | None = None) -> None:
        self._key = key
        # Its methods are made at run time, from the service's description.
        self._client: Any = client or new_client()
        self._cache = _Cache(clock)
        self.key_ids: Sequence[str] = (f"kms:{key}",)

    def check(self) -> None:
        """Raise KeysUnavailable unless the key wraps. Blocks: for the start of a process."""
        with self._said_plainly("start"):
            self._generate("start")

    async def make(self, name: str) -> DataKey:
        answer = await self._run(name, self._generate, name)
        wrapped = Wrapped(self.key_ids[0], answer["CiphertextBlob"])
        self._cache.put((name, wrapped.blob), answer["Plaintext"])
        return DataKey(answer["Plaintext"], wrapped)

    async def wrap(self, data_key: bytes, name: str) -> Wrapped:
        answer = await self._run(
            name,
            self._client.encrypt,
            KeyId=self._key,
            Plaintext=data_key,
            EncryptionContext={_CONTEXT: name},
        )
        return Wrapped(self.key_ids[0], answer["CiphertextBlob"])

    async def unwrap(self, wrapped: Wrapped, name: str) -> bytes:
        cached = self._cache.get((name, wrapped.blob))
        if cached is not None:
            return cached
        answer = await self._run(
            name,
            self._client.decrypt,
            KeyId=self._key,
            CiphertextBlob=wrapped.blob,
            EncryptionContext={_CONTEXT: name},
        )
        plain: bytes = answer["Plaintext"]
        self._cache.put((name, wrapped.blob), plain)
        return plain

    def _generate(self, name: str) -> Any:
        return self._client.generate_data_key(
            KeyId=self._key, NumberOfBytes=KEY_BYTES, EncryptionContext={_CONTEXT: name}
        )

    async def _run(self, name: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._said_plainly(name):
            return await in_thread(call, *args, **kwargs)

    @contextmanager
    def _said_plainly(self, name: str) -> Iterator[None]:
        """Turn boto3's errors into ours; none of them holds a key."""
        try:
            yield
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _NOT_OURS:
                raise damaged(name, "KMS did not wrap its key for it") from error
            raise KeysUnavailable(f"KMS key {self._key!r} refused {name!r}: {error}") from error
        except BotoCoreError as error:
            raise KeysUnavailable(
                f"KMS cannot be asked for the key of {name!r}: {error}"
            ) from error


class _Cache:
    """Data keys by the name and the wrapped key, the least used ones forgotten first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: OrderedDict[tuple[str, bytes], tuple[float, bytes]] = OrderedDict()

    def put(self, of: tuple[str, bytes], data_key: bytes) -> None:
        self._kept[of] = (self._clock.monotonic() + CACHED_S, data_key)
        if len(self._kept) > CACHED_KEYS:
            self._kept.popitem(last=False)

    def get(self, of: tuple[str, bytes]) -> bytes | None:
        until, data_key = self._kept.get(of, (0.0, b""))
        if self._clock.monotonic() >= until:
            self._kept.pop(of, None)
            return None
        self._kept.move_to_end(of)
        return data_key


def new_client() -> BaseClient:
    """A client with bounded waits; where and with which rights, boto3 finds in its environment."""
    client: BaseClient = boto3.client(
        "kms",
        config=Config(
            connect_timeout=5, read_timeout=10, retries={"mode": "standard", "max_attempts": 3}
        ),
    )
    return client
