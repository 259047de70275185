"""API keys: made, listed, revoked, and recognised without asking the database."""

from __future__ import annotations

import asyncio

from sqlmodel import Session

from tidegate.protocol.api_keys import ADMIN_KEY_VARIABLE, PresentedKey, new_secret, read_secret
from tidegate.protocol.resources import ApiKeyCreated, ApiKeyRequest, ApiKeyView, KeyRole, Page
from tidegate_controlplane.access import secret
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.errors import Conflict, NotFound, StartError, Unauthenticated
from tidegate_controlplane.store import keys as rows
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.store.planes import KEYS, raising
from tidegate_controlplane.store.tables import DEFAULT_PROJECT, ApiKey

CACHED_KEYS = 10_000
_HOW = "send the header 'Authorization: Bearer tg_…' with an API key of this platform"


class KeyService:
    """Every key of the platform.

    Keys in use are kept in memory, so a request costs no database read. `revoke` is the only change
    that a key sees, and it drops the key from memory; so does word of a revocation by another
    control plane (`forget`). A read that began before a revocation is not
    kept (`_revocations` has moved on), so a stale row cannot come back.
    """

    def __init__(self, db: Database, pepper: bytes, clock: Clock) -> None:
        self._db = db
        self._pepper = pepper
        self._clock = clock
        self._known: dict[str, ApiKey] = {}
        self._revocations = 0
        self._revoking: set[asyncio.Task[ApiKeyView]] = set()

    async def create(self, project_id: str, request: ApiKeyRequest) -> ApiKeyCreated:
        """A new key. Its secret is in the answer and nowhere else."""
        row, text = self._new(project_id, request)
        await self._db.write(lambda session: session.add(row))
        return _created(row, text)

    async def list(self, project_id: str, after: str | None, limit: int) -> Page[ApiKeyView]:
        """The project's keys, revoked ones too, oldest first."""
        found = await self._db.read(
            lambda session: rows.page_of_keys(session, project_id, after, limit + 1)
        )
        has_more = len(found) > limit
        data = [_view(row) for row in found[:limit]]
        return Page(data=data, has_more=has_more, next=data[-1].id if has_more else None)

    async def revoke(self, project_id: str, key_id: str) -> ApiKeyView:
        """Refuse the key from now on. Again: no change. NotFound; Conflict for the last admin."""
        # A caller that is cancelled must not part the commit from the forgetting.
        task = asyncio.create_task(self._revoke(project_id, key_id))
        self._revoking.add(task)
        task.add_done_callback(self._revoking.discard)
        return await asyncio.shield(task)

    async def authenticate(self, header_value: str | None) -> Principal:
        """The caller who sent this `Authorization` header. Raises Unauthenticated."""
        presented = _presented(header_value)
        row = self._known.get(presented.key_id) or await self._look_up(presented.key_id)
        if row is None or not secret.matches(presented.text, row.digest, self._pepper):
            raise Unauthenticated(f"this API key is unknown here; {_HOW}")
        if row.revoked_at is not None:
            raise Unauthenticated(
                f"the API key {row.name!r} was revoked; use another one", code="key_revoked"
            )
        return _principal(row)

    def forget(self) -> None:
        """Ask the database again for every key."""
        self._revocations += 1
        self._known.clear()

    async def ensure_first(self) -> str | None:
        """The secret of a first, unlimited admin key; None when there is any key already."""
        row, text = self._new(DEFAULT_PROJECT, admin("first"))

        def unit(session: Session) -> bool:
            rows.ensure_default_project(session, row.created_at)
            if rows.has_any_key(session):
                return False
            session.add(row)
            return True

        return text if await self._db.write(unit) else None

    async def ensure_given(self, text: str) -> bool:
        """Make a key that was chosen elsewhere an unlimited admin key; False if it was revoked.

        Raises StartError when it is no key, or differs from the one of the same id.
        """
        given = read_secret(text)
        if given is None:
            raise StartError(
                f"{ADMIN_KEY_VARIABLE} holds no whole API key (its checksum is wrong); make one "
                "with `tidegate keys new`"
            )
        row = self._row(DEFAULT_PROJECT, admin("given"), given)

        def unit(session: Session) -> ApiKey:
            rows.ensure_default_project(session, row.created_at)
            found = rows.find_key(session, row.id)
            if found is None:
                session.add(row)
            return found or row

        stored = await self._db.write(unit)
        if not secret.matches(text, stored.digest, self._pepper):
            raise StartError(
                f"{ADMIN_KEY_VARIABLE}: the key {row.id!r} was made with another secret or another "
                "pepper; restore the pepper, or give a key of `tidegate keys new`"
            )
        return stored.revoked_at is None

    def _new(self, project_id: str, request: ApiKeyRequest) -> tuple[ApiKey, str]:
        key_id = new_id("key")
        text = new_secret(key_id)
        return self._row(project_id, request, PresentedKey(key_id, text)), text

    def _row(self, project_id: str, request: ApiKeyRequest, key: PresentedKey) -> ApiKey:
        return ApiKey(
            id=key.key_id,
            project_id=project_id,
            name=request.name,
            role=request.role.value,
            digest=secret.digest(key.text, self._pepper),
            requests_per_minute=request.requests_per_minute,
            tokens_per_minute=request.tokens_per_minute,
            created_at=self._clock.now(),
        )

    async def _revoke(self, project_id: str, key_id: str) -> ApiKeyView:
        now = self._clock.now()

        def unit(session: Session) -> ApiKey:
            row = rows.find_key(session, key_id)
            if row is None or row.project_id != project_id:
                raise NotFound(f"there is no API key {key_id!r}")
            if row.revoked_at is not None:
                return row
            if row.role == KeyRole.ADMIN and rows.living_admins(session, project_id) == 1:
                raise Conflict(
                    f"{row.name!r} is the last admin key; create another one before revoking it",
                    code="last_admin_key",
                )
            row.revoked_at = now
            return row

        row = await self._db.write(raising(KEYS, unit))
        self._revocations += 1
        self._known.pop(key_id, None)
        return _view(row)

    async def _look_up(self, key_id: str) -> ApiKey | None:
        before = self._revocations
        row = await self._db.read(lambda session: rows.find_key(session, key_id))
        if row is not None and before == self._revocations:
            while len(self._known) >= CACHED_KEYS:
                del self._known[next(iter(self._known))]
            self._known[key_id] = row
        return row


def admin(name: str) -> ApiKeyRequest:
    """An admin key without limits."""
    return ApiKeyRequest(
        name=name, role=KeyRole.ADMIN, requests_per_minute=None, tokens_per_minute=None
    )


def _presented(header_value: str | None) -> PresentedKey:
    if header_value is None:
        raise Unauthenticated(f"no API key was given; {_HOW}")
    scheme, _, text = header_value.strip().partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated(f"the Authorization header is not a bearer token; {_HOW}")
    presented = read_secret(text.strip())
    if presented is None:
        raise Unauthenticated(f"this is not a whole API key (its checksum is wrong); {_HOW}")
    return presented


def _principal(row: ApiKey) -> Principal:
    return Principal(
        key_id=row.id,
        project_id=row.project_id,
        name=row.name,
        role=KeyRole(row.role),
        requests_per_minute=row.requests_per_minute,
        tokens_per_minute=row.tokens_per_minute,
    )


def _view(row: ApiKey) -> ApiKeyView:
    return ApiKeyView(
        id=row.id,
        name=row.name,
        role=KeyRole(row.role),
        requests_per_minute=row.requests_per_minute,
        tokens_per_minute=row.tokens_per_minute,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
    )


def _created(row: ApiKey, text: str) -> ApiKeyCreated:
    return ApiKeyCreated(**_view(row).model_dump(), key=text)
