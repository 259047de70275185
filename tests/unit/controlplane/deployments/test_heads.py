"""Heads are declared: read, pinned by their digest, and part of the revision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session, select
from tests.tiny_heads import digest_of, write_tiny_heads
from tests.unit.controlplane.deployments.conftest import PROJECT, MakeSpec, Room

from tidegate.protocol.resources import RollbackRequest
from tidegate.spec import DeploymentSpec
from tidegate_controlplane.errors import Invalid
from tidegate_controlplane.store.tables import Deployment, Revision

FIELD = "runtime.speculation.heads"


@pytest.fixture
def heads(tmp_path: Path) -> Path:
    return write_tiny_heads(tmp_path / "heads")


@pytest.fixture
def declared(spec: MakeSpec, heads: Path) -> DeploymentSpec:
    return spec(runtime={"speculation": {"method": "medusa", "heads": str(heads)}})


async def plans(room: Room) -> list[tuple[int, str | None]]:
    """Number and digest of the heads of every revision."""
    page = await room.deployments.read.revisions(PROJECT, "smol", None, 100)
    return [(each.number, each.plan.heads and each.plan.heads.digest) for each in page.data]


async def plan_now(room: Room) -> dict[str, Any]:
    return await room.database.read(lambda s: s.exec(select(Deployment)).one().plan)


async def test_declared_heads_are_pinned(room: Room, declared: DeploymentSpec, heads: Path) -> None:
    await room.deployments.apply(PROJECT, declared)
    assert await plans(room) == [(1, digest_of(heads))]
    assert (await plan_now(room))["heads"]["weights_bytes"] == len(b"weights")


async def test_the_same_heads_again_change_nothing(room: Room, declared: DeploymentSpec) -> None:
    first, _ = await room.deployments.apply(PROJECT, declared)
    second, _ = await room.deployments.apply(PROJECT, declared)
    assert second == first
    assert len(await plans(room)) == 1


async def test_changed_heads_are_a_revision_and_can_be_gone_back_from(
    room: Room, declared: DeploymentSpec, heads: Path
) -> None:
    await room.deployments.apply(PROJECT, declared)
    before = digest_of(heads)
    write_tiny_heads(heads, b"others!")
    await room.deployments.apply(PROJECT, declared)
    after = digest_of(heads)
    assert await plans(room) == [(1, before), (2, after)]
    await room.deployments.rollback(PROJECT, "smol", RollbackRequest(to=1))
    assert (await plan_now(room))["heads"]["digest"] == before


async def test_a_revision_from_before_heads_were_planned_can_be_gone_back_to(
    room: Room, declared: DeploymentSpec, heads: Path
) -> None:
    await room.deployments.apply(PROJECT, declared)

    def forget(session: Session) -> None:
        row = session.exec(select(Revision)).one()
        row.plan = {key: value for key, value in row.plan.items() if key != "heads"}
        session.add(row)

    await room.database.write(forget)
    write_tiny_heads(heads, b"others!")
    await room.deployments.apply(PROJECT, declared)
    await room.deployments.rollback(PROJECT, "smol", RollbackRequest(to=1))
    assert (await plan_now(room))["heads"] is None


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"hidden": 96}, "with the hidden size 96, and here it is 64"),
        ({"method": "hydra"}, "with the method hydra, and here it is medusa"),
    ],
)
async def test_heads_of_another_model_are_refused(
    room: Room, declared: DeploymentSpec, heads: Path, said: dict[str, Any], words: str
) -> None:
    write_tiny_heads(heads, **said)
    with pytest.raises(Invalid, match=words) as caught:
        await room.deployments.apply(PROJECT, declared)
    assert (caught.value.param, caught.value.issues[0].value) == (FIELD, str(heads))


async def test_heads_that_are_not_there_are_refused(
    room: Room, spec: MakeSpec, tmp_path: Path
) -> None:
    missing = str(tmp_path / "nothing")
    declared = spec(runtime={"speculation": {"method": "medusa", "heads": missing}})
    with pytest.raises(Invalid, match="does not exist") as caught:
        await room.deployments.apply(PROJECT, declared)
    assert (caught.value.param, caught.value.issues[0].value) == (FIELD, missing)
