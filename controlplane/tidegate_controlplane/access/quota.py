"""Requests and tokens per minute of each key.

A request is charged when it is admitted. Tokens are known only when the work is done: a request is
admitted while the key's bucket of tokens is positive, and what it really used is taken afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tidegate_controlplane.access.bucket import Bucket
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.errors import RateLimited


@dataclass
class _Buckets:
    requests: Bucket | None
    tokens: Bucket | None


class Quotas:
    """What each key has left. In memory: a restart begins with full buckets."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_key: dict[str, _Buckets] = {}

    def admit(self, principal: Principal) -> None:
        """Charge one request, or raise RateLimited saying when to come again."""
        now = self._clock.monotonic()
        buckets = self._of(principal)
        if buckets.tokens and (wait_s := buckets.tokens.wait_s(1, now)):
            raise _limited("tokens", buckets.tokens, wait_s)
        if buckets.requests:
            if wait_s := buckets.requests.wait_s(1, now):
                raise _limited("requests", buckets.requests, wait_s)
            buckets.requests = buckets.requests.taken(1, now)

    def charge_tokens(self, principal: Principal, tokens: int) -> None:
        """Take what a finished request used; the bucket may go below zero."""
        buckets = self._of(principal)
        if buckets.tokens:
            buckets.tokens = buckets.tokens.taken(tokens, self._clock.monotonic())

    def headers(self, principal: Principal) -> dict[str, str]:
        """OpenAI's `x-ratelimit-*` headers; none for what is not limited."""
        now = self._clock.monotonic()
        buckets = self._of(principal)
        return {
            **dict(_headers("requests", buckets.requests, now)),
            **dict(_headers("tokens", buckets.tokens, now)),
        }

    def _of(self, principal: Principal) -> _Buckets:
        found = self._by_key.get(principal.key_id)
        if found is None:
            now = self._clock.monotonic()
            found = self._by_key[principal.key_id] = _Buckets(
                requests=_bucket(principal.requests_per_minute, now),
                tokens=_bucket(principal.tokens_per_minute, now),
            )
        return found


def duration(seconds: float) -> str:
    """A duration as OpenAI writes it: `120ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    if seconds < 60:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s"


def _bucket(per_minute: int | None, now: float) -> Bucket | None:
    return Bucket.full(per_minute, now) if per_minute is not None else None


def _limited(what: str, bucket: Bucket, wait_s: float) -> RateLimited:
    return RateLimited(
        f"this API key may use {bucket.per_minute} {what} per minute and has used them; "
        f"try again in {duration(wait_s)}",
        retry_after_s=wait_s,
    )


def _headers(what: str, bucket: Bucket | None, now: float) -> Iterator[tuple[str, str]]:
    if bucket is not None:
        yield f"x-ratelimit-limit-{what}", str(bucket.per_minute)
        yield f"x-ratelimit-remaining-{what}", str(bucket.remaining(now))
        yield f"x-ratelimit-reset-{what}", duration(bucket.full_in_s(now))
