"""A draft model is declared: read, pinned by its digest, and part of the revision."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from sqlmodel import Session, col, select
from tests.tiny_model import write_tiny_model
from tests.unit.controlplane.deployments.conftest import PROJECT, MakeSpec, Room

from tidegate.protocol.resources import DeploymentView, RollbackRequest
from tidegate.spec import DeploymentSpec
from tidegate_controlplane.errors import Invalid
from tidegate_controlplane.store.tables import Deployment, ModelVersion

FIELD = "runtime.speculation.draft_model"


def tokens(path: Path, *texts: str) -> None:
    vocabulary = {text: number for number, text in enumerate(texts)}
    (path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))


@pytest.fixture
def draft(tmp_path: Path, model: Path) -> Path:
    """Another model with the tokens of the first."""
    path = write_tiny_model(tmp_path / "small")
    save_file({"embed": np.ones((10, 64), dtype=np.float32)}, path / "model.safetensors")
    for each in (model, path):
        tokens(each, "a", "b")
    return path


@pytest.fixture
def declared(spec: MakeSpec, draft: Path) -> DeploymentSpec:
    return spec(runtime={"speculation": {"method": "draft", "draft_model": str(draft)}})


async def plans(room: Room) -> list[tuple[int, str | None]]:
    """Number and draft model's digest of every revision."""
    page = await room.deployments.read.revisions(PROJECT, "smol", None, 100)
    return [(each.number, each.plan.draft and each.plan.draft.digest) for each in page.data]


async def digest_of(room: Room, view: DeploymentView) -> str:
    """That of the draft model which is planned now."""
    row = await room.database.read(lambda s: s.get_one(Deployment, view.id))
    return str(row.plan["draft"]["digest"])


async def test_a_declared_draft_model_is_pinned_and_listed_as_a_model(
    room: Room, declared: DeploymentSpec, draft: Path
) -> None:
    view, _ = await room.deployments.apply(PROJECT, declared)
    listed = (await room.deployments.read.models(PROJECT, None, 10)).data
    by_source = {each.source: each.versions[0].facts.digest for each in listed}
    assert len(by_source) == 2
    assert by_source[str(draft)] == await digest_of(room, view)
    assert await plans(room) == [(1, by_source[str(draft)])]


async def test_the_same_draft_model_again_changes_nothing(
    room: Room, declared: DeploymentSpec
) -> None:
    first, _ = await room.deployments.apply(PROJECT, declared)
    second, _ = await room.deployments.apply(PROJECT, declared)
    assert second == first
    assert len(await plans(room)) == 1


async def test_changed_files_of_the_draft_model_are_a_revision_and_can_be_gone_back_from(
    room: Room, declared: DeploymentSpec, draft: Path
) -> None:
    view, _ = await room.deployments.apply(PROJECT, declared)
    before = await digest_of(room, view)
    save_file({"embed": np.full((10, 64), 2, dtype=np.float32)}, draft / "model.safetensors")
    await room.deployments.apply(PROJECT, declared)
    after = await digest_of(room, view)
    assert after != before
    assert await plans(room) == [(1, before), (2, after)]
    await room.deployments.rollback(PROJECT, "smol", RollbackRequest(to=1))
    assert await digest_of(room, view) == before


async def test_a_draft_model_with_other_tokens_is_refused(
    room: Room, declared: DeploymentSpec, draft: Path
) -> None:
    tokens(draft, "a", "c")
    with pytest.raises(Invalid, match="has other tokens") as caught:
        await room.deployments.apply(PROJECT, declared)
    assert caught.value.param == FIELD
    assert caught.value.issues[0].value == str(draft)
    assert (await room.deployments.read.models(PROJECT, None, 10)).data == []


async def test_a_draft_model_that_is_not_there_is_refused_by_its_own_field(
    room: Room, spec: MakeSpec, tmp_path: Path
) -> None:
    missing = str(tmp_path / "nothing")
    declared = spec(runtime={"speculation": {"method": "draft", "draft_model": missing}})
    with pytest.raises(Invalid, match="does not exist") as caught:
        await room.deployments.apply(PROJECT, declared)
    assert (caught.value.param, caught.value.issues[0].value) == (FIELD, missing)


async def test_facts_from_before_tokens_were_compared_are_read_again(
    room: Room, spec: MakeSpec, declared: DeploymentSpec
) -> None:
    await room.deployments.apply(PROJECT, spec())

    def forget(session: Session) -> None:
        for version in session.exec(select(ModelVersion).where(col(ModelVersion.id) != "")):
            facts = {key: kept for key, kept in version.facts.items() if key != "tokens_digest"}
            version.facts = facts
            session.add(version)

    await room.database.write(forget)
    view, _ = await room.deployments.apply(PROJECT, declared)
    assert await digest_of(room, view)
