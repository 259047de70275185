"""A request may name the webhook that is told how it ends."""

from __future__ import annotations

import pytest
from sqlmodel import select

from tidegate.protocol.webhooks import WebhookRequest
from tidegate.protocol.work import BatchRequest
from tidegate_controlplane.errors import BadRequest
from tidegate_controlplane.store.tables import Invocation, WebhookDelivery
from tidegate_controlplane.webhooks.secret import SecretBox
from tidegate_controlplane.webhooks.service import Webhooks


@pytest.fixture
def hooks(house):
    return Webhooks(house.db, SecretBox(bytes(32)), house.clock, house.settings)


async def declared(hooks, project="prj_1"):
    wanted = WebhookRequest(url="https://example.com/", events=[])
    return (await hooks.create(project, wanted)).id


async def told(house, webhook_id):
    def unit(session):
        query = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
        return [(row.type, row.data["id"]) for row in session.exec(query)]

    return await house.db.read(unit)


async def test_an_invocation_and_a_batch_are_told_to_the_webhook_that_they_name(house, hooks, kit):
    await house.deploy()
    named, other = await declared(hooks), await declared(hooks)
    async with house.working() as work:
        invocation_id = await house.submit(work, webhook=named)
        await house.finished(work, invocation_id)
        await house.finished(work, await house.submit(work))
        file_id = await house.upload(work, b"not a line\n")
        wanted = BatchRequest(
            input_file_id=file_id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            webhook=named,
        )
        batch = await work.batches.create(kit.principal, wanted)
        ended = await house.ended(work, batch.id)
    assert await told(house, named) == [
        ("invocation.succeeded", invocation_id),
        (f"batch.{ended.status}", batch.id),
    ]
    assert await told(house, other) == []


@pytest.mark.parametrize("name", ["unknown", "another project's", "deleted"])
async def test_a_webhook_that_the_project_does_not_have_is_refused_by_name(house, hooks, kit, name):
    await house.deploy()
    webhook_id = "wh_unknown"
    if name == "another project's":
        webhook_id = await declared(hooks, "prj_2")
    elif name == "deleted":
        webhook_id = await declared(hooks)
        await hooks.delete("prj_1", webhook_id)
    work = house.work()
    with pytest.raises(BadRequest, match=f"webhook: there is no webhook '{webhook_id}'"):
        await house.submit(work, webhook=webhook_id)
    wanted = BatchRequest(
        input_file_id=await house.upload(work, b"{}\n"),
        endpoint="/v1/chat/completions",
        completion_window="24h",
        webhook=webhook_id,
    )
    with pytest.raises(BadRequest, match="webhook: there is no webhook"):
        await work.batches.create(kit.principal, wanted)
    assert await house.db.read(lambda session: session.exec(select(Invocation)).all()) == []
