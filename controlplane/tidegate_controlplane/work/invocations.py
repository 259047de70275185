"""Invocations: one durable request each, from its 202 to its result."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from sqlmodel import Session

from tidegate.protocol.work import Invocation as InvocationObject
from tidegate.protocol.work import InvocationList, InvocationState
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.domain.routing import expected_work
from tidegate_controlplane.errors import (
    BadRequest,
    Conflict,
    DeadlinePassed,
    Gone,
    NotFound,
    Refused,
    Unavailable,
    UnprocessableKey,
    UpstreamFailed,
)
from tidegate_controlplane.gateway.catalog import Catalog
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.store import invocations
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.store.tables import Invocation
from tidegate_controlplane.work.notices import Notices
from tidegate_controlplane.work.object_keys import request_key
from tidegate_controlplane.work.outcome import Failure, Interrupted
from tidegate_controlplane.work.pages import check_cursor
from tidegate_controlplane.work.payloads import Payload, Payloads
from tidegate_controlplane.work.request import INVOCATION_MODES, check, find, infer_endpoint, parse
from tidegate_controlplane.work.storage import answering_for_storage
from tidegate_controlplane.work.views import invocation_object
from tidegate_controlplane.work.worker import Worker

IDEMPOTENCY_WINDOW = timedelta(hours=24)
"""A key that is older may be used anew."""
CANCEL_S = 2.0
"""How long a cancellation waits for the replica to let go."""
MAX_WAIT_S = 300.0


@dataclass(frozen=True)
class Terms:
    """What a caller asks for beside the request itself."""

    idempotency_key: str | None = None
    timeout_s: float | None = None
    """Run limit; the platform's default when absent."""
    expires_in_s: float = 86_400.0


@dataclass(frozen=True)
class _Asked:
    """What makes two submissions the same."""

    project_id: str
    key: str | None
    sha256: str


class Invocations:
    """The service behind `/v1/invocations`."""

    def __init__(
        self,
        db: Database,
        payloads: Payloads,
        catalog: Catalog,
        clock: Clock,
        settings: Settings,
        worker: Worker,
        notices: Notices,
    ) -> None:
        self._db = db
        self._payloads = payloads
        self._catalog = catalog
        self._clock = clock
        self._settings = settings
        self._worker = worker
        self._notices = notices
        self.on_queued: Callable[[], None] = lambda: None
        """Called after each commit that queued something."""

    async def submit(
        self, principal: Principal, body: bytes, terms: Terms
    ) -> tuple[InvocationObject, bool]:
        """Accept a request durably; whether it is new, or the one that its key made before.

        Raises BadRequest, NotFound, UnprocessableKey when the key came with another body before,
        and Unavailable when nothing can be stored.
        """
        asked = _Asked(principal.project_id, _checked_key(terms.idempotency_key), _digest(body))
        known = await self._db.read(lambda session: self._known(session, asked))
        if known is None:
            row = self._row(principal, body, terms)
            async with self._stored(row, body):
                # failpoint submit.stored
                known = await self._db.write(lambda session: self._insert(session, asked, row))
        # failpoint submit.committed
        if known is not None:
            return invocation_object(_same_body(known, asked)), False
        self.on_queued()
        return invocation_object(row), True

    async def get(self, principal: Principal, invocation_id: str) -> InvocationObject:
        return invocation_object(await self._find(principal, invocation_id))

    async def list(
        self,
        principal: Principal,
        *,
        after: str | None,
        limit: int,
        status: InvocationState | None = None,
        model: str | None = None,
    ) -> InvocationList:
        """Newest first."""
        check_cursor(after, "inv")
        rows = await self._db.read(
            lambda session: invocations.page(
                session,
                principal.project_id,
                after=after,
                limit=limit + 1,
                status=status,
                model=model,
            )
        )
        data = [invocation_object(row) for row in rows[:limit]]
        return InvocationList(
            data=data,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
            has_more=len(rows) > limit,
        )

    async def result(self, principal: Principal, invocation_id: str) -> bytes:
        """The model's answer.

        Raises Conflict before it is finished (or when it was canceled), Gone when it was kept long
        enough, and what went wrong when it did not succeed.
        """
        row = await self._find(principal, invocation_id)
        if row.finished_at is None:
            raise Conflict(
                f"the invocation is {row.status}; its result is not there yet",
                code="not_finished",
                retry_after_s=1.0,
            )
        kept = timedelta(seconds=self._settings.limits.result_retention_s)
        if row.finished_at + kept <= self._clock.now():
            raise Gone(f"the result was kept for {kept.days} days and is gone", code="result_gone")
        if row.status != InvocationState.SUCCEEDED:
            raise refusal(row)
        with answering_for_storage():
            return await self._payloads.read(Payload(row.result, row.result_key))

    async def cancel(self, principal: Principal, invocation_id: str) -> InvocationObject:
        """Cancel what is not finished; what is finished stays as it is."""
        now = self._clock.now()

        def unit(session: Session) -> Invocation | None:
            row = invocations.get(session, principal.project_id, invocation_id)
            if row is not None and row.finished_at is None:
                invocations.cancel(session, row, now)
                session.refresh(row)
            return row

        row = await self._db.write(unit)
        if row is None:
            raise _unknown(invocation_id)
        if row.finished_at is not None:
            self._notices.finished([invocation_id])
            return invocation_object(row)
        self._worker.interrupt([invocation_id], Interrupted.CANCELED)
        return await self.wait(principal, invocation_id, CANCEL_S)

    async def wait(
        self, principal: Principal, invocation_id: str, seconds: float
    ) -> InvocationObject:
        """The invocation once it is finished, or as it is after `seconds`."""
        with self._notices.listen(invocation_id) as bell:
            deadline = self._clock.monotonic() + min(seconds, MAX_WAIT_S)
            while True:
                row = await self._find(principal, invocation_id)
                remaining_s = deadline - self._clock.monotonic()
                if row.finished_at is not None or remaining_s <= 0 or self._notices.closing:
                    return invocation_object(row)
                await _set_within(bell, remaining_s)

    async def _find(self, principal: Principal, invocation_id: str) -> Invocation:
        row = await self._db.read(
            lambda session: invocations.get(session, principal.project_id, invocation_id)
        )
        if row is None:
            raise _unknown(invocation_id)
        return row

    def _row(self, principal: Principal, body: bytes, terms: Terms) -> Invocation:
        """The request as a row, if it is valid."""
        limits = self._settings.limits
        timeout_s = terms.timeout_s or limits.invocation_run_s
        if timeout_s > limits.invocation_run_max_s:
            raise BadRequest(
                f"timeout_s: at most {limits.invocation_run_max_s:g} (got {timeout_s:g})",
                param="timeout_s",
            )
        document = parse(body, limits.json_depth)
        wanted = check(document, infer_endpoint(document))
        served = find(self._catalog, principal.project_id, wanted, INVOCATION_MODES)
        now = self._clock.now()
        expires_at = now + timedelta(seconds=terms.expires_in_s)
        return Invocation(
            id=new_id("inv"),
            project_id=principal.project_id,
            deployment_id=served.deployment_id,
            key_id=principal.key_id,
            model=wanted.model,
            endpoint=wanted.endpoint,
            status=InvocationState.QUEUED.value,
            max_attempts=self._settings.work.max_attempts,
            timeout_s=timeout_s,
            request_sha256=_digest(body),
            idempotency_key=terms.idempotency_key,
            created_at=now,
            available_at=now,
            expires_at=expires_at,
            due_at=expires_at,
            tokens=expected_work(len(body), wanted.most_tokens),
        )

    def _known(self, session: Session, asked: _Asked) -> Invocation | None:
        """What the idempotency key made within the window."""
        row = self._by_key(session, asked)
        if row is None or row.created_at + IDEMPOTENCY_WINDOW <= self._clock.now():
            return None
        return row

    def _insert(self, session: Session, asked: _Asked, row: Invocation) -> Invocation | None:
        """Insert `row`; or return the one that its key made before."""
        if known := self._known(session, asked):
            return known
        if stale := self._by_key(session, asked):
            invocations.release_key(session, stale)
        invocations.insert(session, row)
        return None

    @staticmethod
    def _by_key(session: Session, asked: _Asked) -> Invocation | None:
        if asked.key is None:
            return None
        return invocations.by_key(session, asked.project_id, asked.key)

    @asynccontextmanager
    async def _stored(self, row: Invocation, body: bytes) -> AsyncIterator[None]:
        """Inside, the body is stored; outside, only if the row was inserted."""
        with answering_for_storage():
            kept = await self._payloads.keep(request_key(row.project_id, row.id), body)
        row.request, row.request_key = kept.inline, kept.key
        if kept.key is None:
            yield
            return
        try:
            yield
        finally:
            # Asked of the writer, so after an insertion that a cancellation left on its way.
            if await self._db.write(lambda session: session.get(Invocation, row.id)) is None:
                await self._payloads.discard(kept)


def refusal(row: Invocation) -> Refused:
    """Why a finished invocation has no result, as an answer."""
    match InvocationState(row.status):
        case InvocationState.CANCELED:
            return Conflict("the invocation was canceled", code="canceled")
        case InvocationState.EXPIRED:
            return DeadlinePassed("the invocation expired before it could run", code="expired")
    failure = Failure.model_validate(row.error)
    kind = _REFUSAL_OF.get(failure.status_code)
    if kind is None:
        kind = BadRequest if failure.status_code < 500 else UpstreamFailed
    return kind(failure.message, code=failure.code, param=failure.param)


_REFUSAL_OF: dict[int, type[Refused]] = {
    404: NotFound,
    408: DeadlinePassed,
    429: Unavailable,
    503: Unavailable,
    504: DeadlinePassed,
}
"""Other client errors are a 400, other server errors a 502."""


def _same_body(known: Invocation, asked: _Asked) -> Invocation:
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


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _unknown(invocation_id: str) -> NotFound:
    return NotFound(f"there is no invocation {invocation_id[:64]!r} in this project")


async def _set_within(bell: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await bell.wait()
    except TimeoutError:
        return
    bell.clear()
