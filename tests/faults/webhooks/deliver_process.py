"""A process that is killed around a delivery. Run as `python deliver_process.py DATA_DIR STEP`.

finish    declares a webhook for RECEIVER, ends one invocation in a transaction that commits and one
          in a transaction that fails, says so, and delivers nothing
deliver   delivers what is due until it is killed
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

from sqlmodel import Session

from tidegate.protocol.webhooks import WebhookEvent, WebhookRequest
from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.settings import Settings, WebhookSettings
from tidegate_controlplane.store import leases
from tidegate_controlplane.store.leases import Lease, Result
from tidegate_controlplane.store.migrate import migrate
from tidegate_controlplane.store.sqlite import SqliteDatabase
from tidegate_controlplane.store.tables import Invocation, Project
from tidegate_controlplane.webhooks.deliverer import delivering
from tidegate_controlplane.webhooks.secret import SecretBox
from tidegate_controlplane.webhooks.service import Webhooks


def settings(data_dir: Path, port: int) -> Settings:
    return Settings(
        data_dir=data_dir,
        webhooks=WebhookSettings(
            allow_http=True,
            allow_networks=(ip_network("127.0.0.0/8"),),
            ports=(port,),
            timeout_s=0.4,
            lease_s=0.5,
            poll_s=0.02,
            retry_base_s=0.05,
        ),
    )


async def finish(data_dir: Path, port: int) -> None:
    told = settings(data_dir, port)
    db, clock, now = SqliteDatabase(told.database_path), SystemClock(), datetime.now(UTC)
    migrate(db.writer)
    await db.write(lambda session: session.add(Project(id="prj_1", name="one", created_at=now)))
    hooks = Webhooks(db, SecretBox(bytes(32)), clock, told)
    wanted = WebhookRequest(url=f"http://127.0.0.1:{port}/", events=list(WebhookEvent))
    made = await hooks.create("prj_1", wanted)
    (data_dir / "secret").write_text(made.secret)
    await db.write(lambda session: session.add_all([row("inv_kept", now), row("inv_lost", now)]))

    def end(session: Session, invocation_id: str) -> None:
        result = Result(b"{}", None, 1, 1)
        assert leases.succeed(session, Lease(invocation_id, 1), now, result)

    def fail(session: Session) -> None:
        end(session, "inv_lost")
        raise OSError

    await db.write(lambda session: end(session, "inv_kept"))
    try:
        await db.write(fail)
    except OSError:
        print("committed", flush=True)
    await asyncio.sleep(600)


def row(invocation_id: str, now: datetime) -> Invocation:
    return Invocation(
        id=invocation_id,
        project_id="prj_1",
        model="m",
        endpoint="/v1/completions",
        status="running",
        lease_epoch=1,
        timeout_s=1.0,
        request_sha256="0",
        created_at=now,
        available_at=now,
    )


async def deliver(data_dir: Path, port: int) -> None:
    told = settings(data_dir, port)
    db = SqliteDatabase(told.database_path)
    async with delivering(db, SecretBox(bytes(32)), SystemClock(), told):
        await asyncio.sleep(600)


if __name__ == "__main__":
    steps = {"finish": finish, "deliver": deliver}
    step = steps[sys.argv[2]]
    asyncio.run(step(Path(sys.argv[1]), int(os.environ["RECEIVER_PORT"])))
