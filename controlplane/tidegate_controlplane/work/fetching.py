"""Bringing a body by reference here, so that it is read once and what runs is what was pinned."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial

from tidegate_controlplane.errors import BadRequest, Conflict, NotFound, TooLarge
from tidegate_controlplane.settings import LimitSettings
from tidegate_controlplane.store import leases
from tidegate_controlplane.store.database import Database, Guarded
from tidegate_controlplane.store.tables import Invocation
from tidegate_controlplane.work.inputs import Inputs
from tidegate_controlplane.work.intake import Intake, Outline, checked
from tidegate_controlplane.work.object_keys import fetched_key
from tidegate_controlplane.work.payloads import Payload, Payloads
from tidegate_controlplane.work.request import Wanted
from tidegate_controlplane.work.run import Run

AT_FAULT = (BadRequest, Conflict, NotFound, TooLarge)
"""What another run would find again."""


class Fetching:
    """Copies, checking as for a body that is sent here."""

    def __init__(
        self, db: Database, payloads: Payloads, inputs: Inputs, limits: LimitSettings
    ) -> None:
        self._db = db
        self._payloads = payloads
        self._inputs = inputs
        self._limits = limits

    async def fetch(self, run: Run) -> bool:
        """Copy the run's body and say so in its row; False when its lease was lost.

        Raises what is in AT_FAULT, Unavailable, ObjectStoreError.
        """
        row = run.row
        key = fetched_key(row.project_id, row.id, row.lease_epoch)
        intake = Intake(self._limits.json_depth)

        def accept(outline: Outline) -> None:
            _check_same(outline.wanted, row)

        async with aclosing(self._inputs.read(row.input_uri or "", row.input_etag or "")) as body:
            pieces = checked(body, intake, accept)
            await self._payloads.keep_stream(key, pieces, self._limits.invocation_body_bytes)
        kept = intake.outline.kept if intake.outline else None
        receive = partial(leases.receive, lease=run.lease, key=key, outline=kept)
        if not await self._db.write(Guarded(receive)):
            await self._payloads.discard(Payload(key, None))
            return False
        row.request_key, row.outline = key, kept
        return True


def _check_same(wanted: Wanted, row: Invocation) -> None:
    """Raise BadRequest unless the body asks for what was said when it was accepted."""
    if (wanted.endpoint, wanted.model) != (row.endpoint, row.model):
        raise BadRequest(
            f"input_uri: the body there is for {wanted.model!r} at {wanted.endpoint}, but "
            f"{row.model!r} at {row.endpoint} was asked for",
            code="input_mismatch",
            param="input_uri",
        )
