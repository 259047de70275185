"""Invocations: one durable request each, from its 202 to its result."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from sqlmodel import Session

from tidegate.protocol.work import Invocation as InvocationObject
from tidegate.protocol.work import (
    InvocationDeleted,
    InvocationList,
    InvocationState,
    RedriveAnswer,
    RedriveRequest,
)
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.domain.retention import forget_at
from tidegate_controlplane.errors import (
    BadRequest,
    Conflict,
    DeadlinePassed,
    Gone,
    NotFound,
    Refused,
    Unavailable,
    UpstreamFailed,
)
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.store import invocations, retention
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.retention import Forgotten
from tidegate_controlplane.store.tables import Invocation
from tidegate_controlplane.work.events import POLL_S, Events
from tidegate_controlplane.work.notices import Notices
from tidegate_controlplane.work.outcome import Failure, Interrupted
from tidegate_controlplane.work.pages import check_cursor
from tidegate_controlplane.work.payloads import Payloads, result_of
from tidegate_controlplane.work.redriving import Redriving
from tidegate_controlplane.work.storage import answering_for_storage
from tidegate_controlplane.work.submission import Submissions, Terms
from tidegate_controlplane.work.views import invocation_object
from tidegate_controlplane.work.worker import Worker

CANCEL_S = 2.0
"""How long a cancellation waits for the replica to let go."""
MAX_WAIT_S = 300.0


@dataclass(frozen=True)
class ResultBytes:
    """A model's answer: how long it is as a whole, and its bytes, to be closed if left early."""

    total: int
    pieces: AsyncGenerator[bytes]


class Invocations:
    """The service behind `/v1/invocations`."""

    def __init__(
        self,
        db: Database,
        payloads: Payloads,
        clock: Clock,
        settings: Settings,
        worker: Worker,
        notices: Notices,
        submissions: Submissions,
        redriving: Redriving,
    ) -> None:
        self._db = db
        self._payloads = payloads
        self._clock = clock
        self._settings = settings
        self._worker = worker
        self._notices = notices
        self._submissions = submissions
        self._redriving = redriving
        self._events = Events(notices, clock, settings.limits.heartbeat_s)
        self.on_queued: Callable[[], None] = lambda: None
        """Called after each commit that queued something."""

    async def submit(
        self, principal: Principal, body: bytes | AsyncIterator[bytes], terms: Terms
    ) -> tuple[InvocationObject, bool]:
        """Accept a request durably; whether it is new, or the one that its key made before.

        Raises BadRequest, NotFound, TooLarge, UnprocessableKey when the key came with another body
        before, and Unavailable when nothing can be stored.
        """
        pieces = _once(body) if isinstance(body, bytes) else body
        row, is_new = await self._submissions.submit(principal, pieces, terms)
        # failpoint submit.committed
        if is_new:
            self.on_queued()
        return invocation_object(row), is_new

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
        """The model's answer as a whole; for one that is known to be small."""
        row = await self._succeeded(principal, invocation_id)
        with answering_for_storage():
            return await self._payloads.read(result_of(row))

    async def open_result(
        self, principal: Principal, invocation_id: str, start: int = 0
    ) -> ResultBytes:
        """The model's answer, in pieces from byte `start` on.

        Raises Conflict before it is finished (or when it was canceled), Gone when it was kept long
        enough, and what went wrong when it did not succeed.
        """
        row = await self._succeeded(principal, invocation_id)
        total = row.result_bytes
        if total is None:  # of a version that did not note it, and kept no large one
            total = len(await self.result(principal, invocation_id))
        pieces = self._payloads.stream(result_of(row), start)
        return ResultBytes(total, pieces)

    async def _succeeded(self, principal: Principal, invocation_id: str) -> Invocation:
        row = await self._find(principal, invocation_id)
        if row.finished_at is None:
            raise Conflict(
                f"the invocation is {row.status}; its result is not there yet",
                code="not_finished",
                retry_after_s=1.0,
            )
        gone_at = forget_at(
            row.finished_at, row.result_ttl_s, self._settings.limits.result_retention_s
        )
        if row.forgotten_at is not None or gone_at <= self._clock.now():
            raise Gone(
                f"the result was deleted, or kept until {gone_at:%Y-%m-%d %H:%M} UTC and is gone",
                code="result_gone",
            )
        if row.status != InvocationState.SUCCEEDED:
            raise refusal(row)
        return row

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
            self._notices.changed([invocation_id])
            return invocation_object(row)
        self._worker.interrupt([invocation_id], Interrupted.CANCELED)
        return await self.wait(principal, invocation_id, CANCEL_S)

    async def redrive(self, principal: Principal, invocation_id: str) -> InvocationObject:
        """Run again what failed or is dead; what is queued or runs already stays as it is.

        Raises Conflict for what ended otherwise, Gone when its request is no longer kept.
        """
        row = await self._find(principal, invocation_id)
        if row.finished_at is not None:
            await self._redriving.one(row)
            self._redriven([invocation_id])
        return await self.get(principal, invocation_id)

    async def redrive_many(self, principal: Principal, wanted: RedriveRequest) -> RedriveAnswer:
        """Run again at most `wanted.limit` that failed or are dead, the oldest first."""
        check_cursor(wanted.after, "inv")
        ids, answer = await self._redriving.many(principal.project_id, wanted)
        self._redriven(ids)
        return answer

    async def delete(self, principal: Principal, invocation_id: str) -> InvocationDeleted:
        """Remove the body and the result now; that it was there stays listed for a while.

        Raises Conflict before it is finished.
        """
        now = self._clock.now()

        def unit(session: Session) -> list[Forgotten]:
            row = invocations.get(session, principal.project_id, invocation_id)
            if row is None:
                raise _unknown(invocation_id)
            if row.finished_at is None:
                raise Conflict(
                    f"the invocation is {row.status}; cancel it first", code="not_finished"
                )
            return retention.forget(session, [row.id], now)

        for forgotten in await self._db.write(unit):
            with answering_for_storage():
                await self._payloads.delete(forgotten.keys)
        return InvocationDeleted(id=invocation_id)

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
                await bell.rings_within(min(remaining_s, POLL_S))

    async def events(
        self, principal: Principal, invocation_id: str, after: int | None
    ) -> AsyncGenerator[bytes]:
        """What happens to it until it is finished, as server-sent events; see `work.events`.

        Raises NotFound, and Unavailable when too many listen already.
        """
        await self._find(principal, invocation_id)
        return self._events.of(invocation_id, lambda: self._find(principal, invocation_id), after)

    def _redriven(self, ids: Sequence[str]) -> None:
        self._notices.changed(ids)
        if ids:
            self.on_queued()

    async def _find(self, principal: Principal, invocation_id: str) -> Invocation:
        row = await self._db.read(
            lambda session: invocations.get(session, principal.project_id, invocation_id)
        )
        if row is None:
            raise _unknown(invocation_id)
        return row


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


def _unknown(invocation_id: str) -> NotFound:
    return NotFound(f"there is no invocation {invocation_id[:64]!r} in this project")


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body
