"""Accepting a request durably: its body is kept, then one transaction makes it an invocation."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from pydantic import ValidationError
from sqlmodel import Session

from tidegate.protocol.openai import error_from_validation
from tidegate.protocol.work import MAX_ATTEMPTS, MAX_PRIORITY, InvocationReference, InvocationState
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.domain.routing import expected_work
from tidegate_controlplane.errors import BadRequest, UnprocessableKey
from tidegate_controlplane.gateway.catalog import Catalog
from tidegate_controlplane.objects.base import chained
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.store import invocations
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.store.tables import Invocation
from tidegate_controlplane.webhooks.service import check_named
from tidegate_controlplane.work.inputs import Inputs
from tidegate_controlplane.work.intake import ARRAYS, Intake, Outline, checked
from tidegate_controlplane.work.items import PIECE_ITEMS
from tidegate_controlplane.work.object_keys import request_key
from tidegate_controlplane.work.payloads import Payload, Payloads
from tidegate_controlplane.work.request import (
    INVOCATION_MODES,
    Wanted,
    check,
    find,
    infer_endpoint,
    parse,
)
from tidegate_controlplane.work.storage import answering_for_storage, check_still_there

IDEMPOTENCY_WINDOW = timedelta(hours=24)
"""A key that is older may be used anew."""


@dataclass(frozen=True)
class Terms:
    """What a caller asks for beside the request itself."""

    idempotency_key: str | None = None
    timeout_s: float | None = None
    """Run limit; the platform's default when absent."""
    expires_in_s: float = 86_400.0
    """Not begun by then, it expires."""
    deadline_s: float | None = None
    """Not finished by then, its answer is of no use."""
    priority: int = 0
    """The higher runs first."""
    max_attempts: int | None = None
    """The platform's default when absent."""
    webhook: str | None = None
    """The id of one that is told how it ends."""
    result_ttl_s: float | None = None
    """How long after its end the body and the result are kept; as long as any when absent."""


@dataclass(frozen=True)
class Asked:
    """What makes two submissions the same."""

    project_id: str
    key: str | None
    sha256: str


class Submissions:
    """Makes invocations of requests."""

    def __init__(
        self,
        db: Database,
        payloads: Payloads,
        inputs: Inputs,
        catalog: Catalog,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._db = db
        self._payloads = payloads
        self._inputs = inputs
        self._catalog = catalog
        self._clock = clock
        self._settings = settings

    async def submit(
        self, principal: Principal, body: AsyncIterator[bytes], terms: Terms
    ) -> tuple[Invocation, bool]:
        """The new invocation, or the one that the idempotency key made before; and whether new.

        A small body is held and lies in its row. A larger one passes into the object store, and
        when anything is wrong with it, it was never there.
        """
        row = self._draft(principal, terms)
        first = await _up_to(body, self._settings.limits.inline_body_bytes)
        if len(first) <= self._settings.limits.inline_body_bytes:
            return await self._submit_small(row, first)
        return await self._submit_large(row, chained(first, body))

    async def _submit_small(self, row: Invocation, body: bytes) -> tuple[Invocation, bool]:
        asked = Asked(row.project_id, row.idempotency_key, hashlib.sha256(body).hexdigest())
        if known := await self._db.read(lambda session: self._known(session, asked)):
            return _same_body(known, asked), False
        await self._describe_small(row, body)
        row.request_sha256 = asked.sha256
        if row.input_uri is None:
            kept = await self._payloads.keep(request_key(row.project_id, row.id), body)
            row.request = kept.inline
        # failpoint submit.stored
        known = await self._db.write(lambda session: self._insert(session, asked, row))
        return (_same_body(known, asked), False) if known else (row, True)

    async def _submit_large(
        self, row: Invocation, body: AsyncIterator[bytes]
    ) -> tuple[Invocation, bool]:
        given = Asked(row.project_id, row.idempotency_key, "")
        if known := await self._db.read(lambda session: self._known(session, given)):
            asked = Asked(row.project_id, row.idempotency_key, await _digest(body))
            return _same_body(known, asked), False
        async with self._stored(row, body) as stored_at:
            asked = Asked(row.project_id, row.idempotency_key, row.request_sha256)

            def unit(session: Session) -> Invocation | None:
                grace_s = self._settings.retention.orphan_grace_s
                check_still_there(stored_at, self._clock.monotonic(), grace_s)
                return self._insert(session, asked, row)

            # failpoint submit.object_stored
            known = await self._db.write(unit)
        return (_same_body(known, asked), False) if known else (row, True)

    # --- what the row says ---

    def _draft(self, principal: Principal, terms: Terms) -> Invocation:
        """All that does not depend on the body. Raises BadRequest naming the term."""
        limits, now = self._settings.limits, self._clock.now()
        timeout_s = terms.timeout_s or limits.invocation_run_s
        _within("timeout_s", timeout_s, limits.invocation_run_max_s)
        _within("result_ttl_s", terms.result_ttl_s or 0.0, limits.result_retention_s)
        _within("priority", abs(terms.priority), MAX_PRIORITY)
        _within("max_attempts", terms.max_attempts or 1, MAX_ATTEMPTS)
        expires_at = now + timedelta(seconds=terms.expires_in_s)
        deadline_at = now + timedelta(seconds=terms.deadline_s) if terms.deadline_s else None
        if deadline_at is not None:
            expires_at = min(expires_at, deadline_at)
        return Invocation(
            id=new_id("inv"),
            project_id=principal.project_id,
            key_id=principal.key_id,
            model="",
            endpoint="",
            status=InvocationState.QUEUED.value,
            priority=-terms.priority,
            max_attempts=terms.max_attempts or self._settings.work.max_attempts,
            timeout_s=timeout_s,
            request_sha256="",
            idempotency_key=_checked_key(terms.idempotency_key),
            created_at=now,
            available_at=now,
            expires_at=expires_at,
            due_at=expires_at,
            deadline_at=deadline_at,
            webhook_id=terms.webhook,
            result_ttl_s=terms.result_ttl_s,
        )

    async def _describe_small(self, row: Invocation, body: bytes) -> None:
        """Say in `row` what a body asks for that is held as a whole."""
        document = parse(body, self._settings.limits.json_depth)
        if "input_uri" in document:
            reference = _reference(document)
            self._describe(row, Wanted(reference.endpoint, reference.model))
            pinned = await self._inputs.pin(reference.input_uri)
            row.input_uri, row.input_etag = reference.input_uri, pinned.etag
            row.tokens = expected_work(pinned.bytes, None)
            return
        if any(_is_long(document.get(name)) for name in ARRAYS):
            intake = Intake(self._settings.limits.json_depth)
            intake.feed(body)
            outline = intake.finish()
            self.outlined(row, outline)
            row.tokens = _expected_work(len(body), outline)
            return
        wanted = check(document, infer_endpoint(document))
        self._describe(row, wanted)
        row.tokens = expected_work(len(body), wanted.most_tokens)

    def outlined(self, row: Invocation, outline: Outline) -> None:
        """Say in `row` what a body asks for that was not held."""
        self._describe(row, outline.wanted)
        row.outline = outline.kept

    def _describe(self, row: Invocation, wanted: Wanted) -> None:
        served = find(self._catalog, row.project_id, wanted, INVOCATION_MODES)
        row.deployment_id = served.deployment_id
        row.model, row.endpoint = wanted.model, wanted.endpoint

    # --- the idempotency key ---

    def _known(self, session: Session, asked: Asked) -> Invocation | None:
        """What the idempotency key made within the window."""
        row = _by_key(session, asked)
        if row is None or row.created_at + IDEMPOTENCY_WINDOW <= self._clock.now():
            return None
        return row

    def _insert(self, session: Session, asked: Asked, row: Invocation) -> Invocation | None:
        """Insert `row`; or return the one that its key made before."""
        if known := self._known(session, asked):
            return known
        if stale := _by_key(session, asked):
            invocations.release_key(session, stale)
        check_named(session, row.project_id, row.webhook_id)
        invocations.insert(session, row)
        return None

    @asynccontextmanager
    async def _stored(self, row: Invocation, body: AsyncIterator[bytes]) -> AsyncIterator[float]:
        """Inside, the body is checked and stored, since when (monotonic seconds).

        Outside, only if the row was inserted.
        """
        limits, key = self._settings.limits, request_key(row.project_id, row.id)
        intake = Intake(limits.json_depth)
        pieces = checked(body, intake, partial(self.outlined, row))
        with answering_for_storage():
            stored = await self._payloads.keep_stream(key, pieces, limits.invocation_body_bytes)
        row.request_key, row.request_sha256 = key, stored.sha256
        if intake.outline is not None:
            row.tokens = _expected_work(stored.bytes, intake.outline)
        try:
            yield self._clock.monotonic()
        finally:
            # Asked of the writer, so after an insertion that a cancellation left on its way.
            if await self._db.write(lambda session: session.get(Invocation, row.id)) is None:
                await self._payloads.discard(Payload(key, None))


def _by_key(session: Session, asked: Asked) -> Invocation | None:
    if asked.key is None:
        return None
    return invocations.by_key(session, asked.project_id, asked.key)


def _same_body(known: Invocation, asked: Asked) -> Invocation:
    if known.request_sha256 != asked.sha256:
        raise UnprocessableKey(
            f"the Idempotency-Key {asked.key!r} was used with another body "
            f"(invocation {known.id}); use a new key for a new request"
        )
    return known


def _checked_key(key: str | None) -> str | None:
    if key is not None and not (0 < len(key) <= 255 and key.isprintable()):
        raise BadRequest(
            "Idempotency-Key: expected 1 to 255 printable characters", param="Idempotency-Key"
        )
    return key


def _within(name: str, value: float, most: float) -> None:
    if value > most:
        raise BadRequest(f"{name}: at most {most:g} (got {value:g})", param=name)


def _reference(document: dict[str, object]) -> InvocationReference:
    try:
        return InvocationReference.model_validate(document)
    except ValidationError as error:
        detail = error_from_validation(error.errors(include_url=False))
        raise BadRequest(detail.message, code=detail.code, param=detail.param) from None


def _expected_work(body_bytes: int, outline: Outline) -> int:
    """The tokens that a request is expected to be, whose answers are as many as its items."""
    most = outline.wanted.most_tokens
    return expected_work(body_bytes, None if most is None else most * max(1, outline.items))


def _is_long(value: object) -> bool:
    """Whether it is an array of more items than are asked at once."""
    return isinstance(value, list) and len(value) > PIECE_ITEMS and not isinstance(value[0], int)


async def _up_to(body: AsyncIterator[bytes], limit_bytes: int) -> bytes:
    """The body, or its beginning as soon as it is longer than `limit_bytes`."""
    held = bytearray()
    async for piece in body:
        held += piece
        if len(held) > limit_bytes:
            break
    return bytes(held)


async def _digest(body: AsyncIterator[bytes]) -> str:
    digest = hashlib.sha256()
    async for piece in body:
        digest.update(piece)
    return digest.hexdigest()
