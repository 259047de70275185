"""The service behind `/api/v1/webhooks`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

from sqlmodel import Session

from tidegate.protocol.resources import Page
from tidegate.protocol.webhooks import (
    TEST_EVENT,
    DeliveryState,
    DeliveryView,
    ReplayRequest,
    ReplayView,
    RotateRequest,
    WebhookChange,
    WebhookCreated,
    WebhookRequest,
    WebhookView,
)
from tidegate.spec import SpecIssue
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.deployments.cursors import page
from tidegate_controlplane.domain.destinations import ForbiddenDestination, destination
from tidegate_controlplane.errors import BadRequest, Conflict, Invalid, NotFound
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.store import deliveries, outbox
from tidegate_controlplane.store import webhooks as rows
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.store.tables import Webhook, WebhookDelivery
from tidegate_controlplane.webhooks.secret import SecretBox, new_secret
from tidegate_controlplane.webhooks.sender import rules_of
from tidegate_controlplane.webhooks.views import created_view, delivery_view, webhook_view


class Webhooks:
    """Declares webhooks, and looks after their deliveries."""

    def __init__(self, db: Database, box: SecretBox, clock: Clock, settings: Settings) -> None:
        self._db = db
        self._box = box
        self._clock = clock
        self._rules = rules_of(settings)
        self._per_project = settings.webhooks.per_project
        self.on_due: Callable[[], None] = lambda: None
        """Called after each commit that made a delivery due."""

    # --- webhooks ---

    async def create(self, project_id: str, wanted: WebhookRequest) -> WebhookCreated:
        """A new one. Its secret is in the answer and nowhere else in clear.

        Raises Invalid when its url may not be used, Conflict when the project has too many.
        """
        self._check(wanted.url)
        webhook_id, secret, now = new_id("wh"), new_secret(), self._clock.now()
        row = Webhook(
            id=webhook_id,
            project_id=project_id,
            url=wanted.url,
            events=_distinct(wanted.events),
            description=wanted.description,
            secret=self._box.seal(secret, webhook_id),
            created_at=now,
            updated_at=now,
        )

        def unit(session: Session) -> None:
            if rows.number(session, project_id) >= self._per_project:
                raise Conflict(
                    f"the project has {self._per_project} webhooks, which is the most it may; "
                    "delete one, or have the setting webhooks.per_project raised",
                    code="too_many_webhooks",
                )
            rows.insert(session, row)

        await self._db.write(unit)
        return created_view(row, secret)

    async def get(self, project_id: str, webhook_id: str) -> WebhookView:
        row = await self._db.read(lambda session: _find(session, project_id, webhook_id))
        return webhook_view(row)

    async def list(self, project_id: str, after: str | None, limit: int) -> Page[WebhookView]:
        """Oldest first."""
        found = await self._db.read(
            lambda session: rows.page(session, project_id, after, limit + 1)
        )
        return page([webhook_view(row) for row in found], limit, lambda view: view.id)

    async def change(self, project_id: str, webhook_id: str, wanted: WebhookChange) -> WebhookView:
        """Enabling one again forgets why it was given up, and sends what has waited."""
        if wanted.url is not None:
            self._check(wanted.url)
        now = self._clock.now()

        def unit(session: Session) -> Webhook:
            row = _find(session, project_id, webhook_id)
            if wanted.events is not None:
                row.events = _distinct(wanted.events)
            row.url = row.url if wanted.url is None else wanted.url
            if wanted.description is not None:
                row.description = wanted.description
            if wanted.enabled is not None:
                row.enabled, row.disabled_reason, row.failing_since = wanted.enabled, None, None
            row.updated_at = now
            return row

        row = await self._db.write(unit)
        self.on_due()
        return webhook_view(row)

    async def delete(self, project_id: str, webhook_id: str) -> WebhookView:
        """Nothing more is sent to it; what waited is given up. Its secrets are forgotten."""
        now = self._clock.now()

        def unit(session: Session) -> Webhook:
            row = _find(session, project_id, webhook_id)
            row.enabled, row.secret, row.former_secret = False, "", None
            row.deleted_at = row.updated_at = now
            deliveries.end_pending(session, webhook_id, now)
            return row

        return webhook_view(await self._db.write(unit))

    async def rotate(
        self, project_id: str, webhook_id: str, wanted: RotateRequest
    ) -> WebhookCreated:
        """A new secret; the former one signs too for `overlap_s`."""
        secret, now = new_secret(), self._clock.now()

        def unit(session: Session) -> Webhook:
            row = _find(session, project_id, webhook_id)
            row.former_secret, row.former_secret_until = None, None
            if wanted.overlap_s:
                row.former_secret = row.secret
                row.former_secret_until = now + timedelta(seconds=wanted.overlap_s)
            row.secret = self._box.seal(secret, webhook_id)
            row.updated_at = now
            return row

        return created_view(await self._db.write(unit), secret)

    # --- deliveries ---

    async def test(self, project_id: str, webhook_id: str) -> DeliveryView:
        """Send one event of type `webhook.test`. Conflict when it is disabled."""
        now = self._clock.now()

        def unit(session: Session) -> WebhookDelivery:
            row = _find(session, project_id, webhook_id)
            if not row.enabled:
                raise Conflict(f"{webhook_id} is disabled; enable it first", code="disabled")
            [made] = outbox.announce(session, [row.id], TEST_EVENT, now, {"id": row.id})
            return session.get_one(WebhookDelivery, made)

        made = await self._db.write(unit)
        self.on_due()
        return delivery_view(made)

    async def deliveries(
        self,
        project_id: str,
        webhook_id: str,
        after: str | None,
        limit: int,
        status: DeliveryState | None = None,
    ) -> Page[DeliveryView]:
        """Newest first."""

        def unit(session: Session) -> list[WebhookDelivery]:
            _find(session, project_id, webhook_id)
            return deliveries.page(session, webhook_id, after=after, limit=limit + 1, status=status)

        found = await self._db.read(unit)
        return page([delivery_view(row) for row in found], limit, lambda view: view.id)

    async def delivery(self, project_id: str, webhook_id: str, delivery_id: str) -> DeliveryView:
        row = await self._db.read(
            lambda session: _find_delivery(session, project_id, webhook_id, delivery_id)
        )
        return delivery_view(row)

    async def replay(self, project_id: str, webhook_id: str, delivery_id: str) -> DeliveryView:
        """Send it again, with all of its tries. Conflict when it has not ended."""
        now = self._clock.now()

        def unit(session: Session) -> WebhookDelivery:
            row = _find_delivery(session, project_id, webhook_id, delivery_id)
            if not deliveries.replay(session, row, now):
                raise Conflict(
                    f"{delivery_id} is {row.status}: it is still being delivered",
                    code="not_finished",
                )
            session.refresh(row)
            return row

        row = await self._db.write(unit)
        self.on_due()
        return delivery_view(row)

    async def replay_range(
        self, project_id: str, webhook_id: str, wanted: ReplayRequest
    ) -> ReplayView:
        """Send again what was given up in a range of time, or all that ended in it."""
        now = self._clock.now()
        states = [DeliveryState.DEAD, *([DeliveryState.DELIVERED] if wanted.delivered else [])]
        replayed, last = 0, ""

        def unit(session: Session) -> list[str]:
            _find(session, project_id, webhook_id)
            until = wanted.until or now
            return deliveries.replay_range(
                session, webhook_id, wanted.since, until, now, states=states, after=last
            )

        while found := await self._db.write(unit):
            replayed, last = replayed + len(found), found[-1]
        self.on_due()
        return ReplayView(replayed=replayed)

    def _check(self, url: str) -> None:
        try:
            destination(url, self._rules)
        except ForbiddenDestination as error:
            raise Invalid(
                str(error),
                code="forbidden_destination",
                param="url",
                issues=[SpecIssue("url", url, str(error).removeprefix("url: "))],
            ) from None


def check_named(session: Session, project_id: str, webhook_id: str | None) -> None:
    """Raise BadRequest when a request names a webhook that its project does not have."""
    if webhook_id is not None and rows.get(session, project_id, webhook_id) is None:
        raise BadRequest(
            f"webhook: there is no webhook {webhook_id[:64]!r} in this project; declare it first, "
            "or leave the field out",
            param="webhook",
        )


def _find(session: Session, project_id: str, webhook_id: str) -> Webhook:
    row = rows.get(session, project_id, webhook_id)
    if row is None:
        raise NotFound(f"there is no webhook {webhook_id[:64]!r} in this project")
    return row


def _find_delivery(
    session: Session, project_id: str, webhook_id: str, delivery_id: str
) -> WebhookDelivery:
    _find(session, project_id, webhook_id)
    row = deliveries.get(session, webhook_id, delivery_id)
    if row is None:
        raise NotFound(f"{webhook_id} has no delivery {delivery_id[:64]!r}")
    return row


def _distinct(events: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(str(event) for event in events))
