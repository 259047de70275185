"""Declaring, scaling, waking and deleting: what changes, and what does not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.unit.controlplane.deployments.conftest import PROJECT, MakeSpec, Room

from tidegate.protocol.resources import (
    DeploymentPhase,
    DeploymentView,
    RollbackRequest,
    ScaleRequest,
)
from tidegate_controlplane.deployments.rules import etag
from tidegate_controlplane.errors import Conflict, Invalid, NotFound, PreconditionFailed
from tidegate_controlplane.reconcile.observe import read_all
from tidegate_controlplane.store.deployments import change_deployment
from tidegate_controlplane.store.tables import Deployment


async def reasons(room: Room, name: str = "smol") -> list[str]:
    page = await room.deployments.read.events(PROJECT, name, None, 100)
    return [event.reason for event in page.data]


async def revisions(room: Room, name: str = "smol") -> list[int]:
    page = await room.deployments.read.revisions(PROJECT, name, None, 100)
    return [revision.generation for revision in page.data]


async def gone(room: Room, view: DeploymentView) -> None:
    """What the reconciler writes in the end."""
    now = room.clock.now()

    await room.database.write(
        lambda s: change_deployment(
            s, s.get_one(Deployment, view.id), now, phase="deleted", deleted_at=now
        )
    )


# --- apply ----------------------------------------------------------------------------------------


async def test_a_new_declaration_is_pending_with_its_first_revision(
    room: Room, spec: MakeSpec
) -> None:
    view, created = await room.deployments.apply(PROJECT, spec(labels={"team": "a"}))
    assert created
    assert (view.name, view.phase, view.generation) == ("smol", DeploymentPhase.PENDING, 1)
    assert view.spec == spec(labels={"team": "a"})
    assert await revisions(room) == [1]
    assert await reasons(room) == ["Declared"]


async def test_a_declared_deployment_can_be_named_in_a_request_at_once(
    room: Room, spec: MakeSpec
) -> None:
    room.endpoints.wanted.clear()
    view, _ = await room.deployments.apply(PROJECT, spec())
    served = room.catalog.get(PROJECT, "smol")
    assert served is not None
    assert served.deployment_id == view.id
    assert room.endpoints.wanted.is_set(), "the reconciler need not wait for its tick"


async def test_the_same_body_twice_changes_nothing(room: Room, spec: MakeSpec) -> None:
    first, _ = await room.deployments.apply(PROJECT, spec())
    room.clock.elapsed_s += 60
    second, created = await room.deployments.apply(PROJECT, spec())
    assert not created
    assert second == first
    assert await revisions(room) == [1]
    assert await reasons(room) == ["Declared"]


async def test_changed_scaling_is_a_generation_without_a_revision(
    room: Room, spec: MakeSpec
) -> None:
    await room.deployments.apply(PROJECT, spec())
    view, created = await room.deployments.apply(PROJECT, spec(scaling={"max_replicas": 3}))
    assert not created
    assert view.generation == 2
    assert await revisions(room) == [1]
    page = await room.deployments.read.events(PROJECT, "smol", None, 100)
    assert page.data[-1].message == "generation 2 changes scaling.max_replicas"


async def test_a_changed_way_to_run_is_a_revision(room: Room, spec: MakeSpec) -> None:
    await room.deployments.apply(PROJECT, spec())
    view, _ = await room.deployments.apply(PROJECT, spec(runtime={"max_sequences": 3}))
    assert view.generation == 2
    page = await room.deployments.read.revisions(PROJECT, "smol", None, 100)
    assert [(r.number, r.generation, r.plan.max_sequences) for r in page.data] == [
        (1, 1, 16),
        (2, 2, 3),
    ]


async def test_changed_files_of_the_model_are_a_revision_of_the_same_declaration(
    room: Room, spec: MakeSpec, model: Path
) -> None:
    await room.deployments.apply(PROJECT, spec())
    save_file({"embed": np.ones((10, 64), dtype=np.float32)}, model / "model.safetensors")
    await room.deployments.apply(PROJECT, spec())
    assert await revisions(room) == [1, 2]
    page = await room.deployments.read.events(PROJECT, "smol", None, 100)
    assert page.data[-1].message == "generation 2 changes the files of the model"
    (listed,) = (await room.deployments.read.models(PROJECT, None, 10)).data
    assert len(listed.versions) == 2


@pytest.mark.parametrize(
    ("parts", "field", "remedy"),
    [
        ({"mode": "realtime"}, "mode", "is 'serverless' and cannot become 'realtime'; delete it"),
        ({"task": "embed"}, "model.task", "is 'generate' and cannot become 'embed'; delete it"),
    ],
)
async def test_what_callers_rely_on_cannot_change(
    room: Room, spec: MakeSpec, model: Path, parts: dict[str, str], field: str, remedy: str
) -> None:
    before, _ = await room.deployments.apply(PROJECT, spec())
    if "task" in parts:
        parts = {"model": {"source": str(model), "task": "embed"}}  # type: ignore[dict-item]
    for attempt in (room.deployments.apply, room.deployments.plan):
        with pytest.raises(Conflict, match=remedy) as caught:
            await attempt(PROJECT, spec(**parts))
        assert caught.value.param == field
    assert await room.deployments.read.get(PROJECT, "smol") == before


async def test_a_model_that_cannot_be_served_leaves_nothing_behind(
    room: Room, spec: MakeSpec, model: Path
) -> None:
    (model / "config.json").write_text(json.dumps({"auto_map": {}}))
    with pytest.raises(Invalid, match="auto_map"):
        await room.deployments.apply(PROJECT, spec())
    assert (await room.deployments.read.page(PROJECT, None, 10)).data == []
    assert (await room.deployments.read.models(PROJECT, None, 10)).data == []
    assert room.catalog.get(PROJECT, "smol") is None


async def test_a_plan_that_is_refused_names_every_field(room: Room, spec: MakeSpec) -> None:
    declared = spec(runtime={"precision": "int4", "context_tokens": 9999})
    with pytest.raises(Invalid) as caught:
        await room.deployments.apply(PROJECT, declared)
    fields = [issue.field for issue in caught.value.issues]
    assert fields == ["runtime.precision", "runtime.context_tokens"]


async def test_one_name_is_one_deployment_however_many_declare_it_at_once(
    room: Room, spec: MakeSpec
) -> None:
    outcomes = await asyncio.gather(*(room.deployments.apply(PROJECT, spec()) for _ in range(8)))
    assert [created for _, created in outcomes].count(True) == 1
    assert len({view.id for view, _ in outcomes}) == 1
    assert await revisions(room) == [1]


async def test_two_projects_can_use_the_same_name(room: Room, spec: MakeSpec) -> None:
    mine, _ = await room.deployments.apply(PROJECT, spec())
    theirs, created = await room.deployments.apply("prj_other", spec(mode="realtime"))
    assert created
    assert mine.id != theirs.id
    with pytest.raises(NotFound):
        await room.deployments.read.get("prj_third", "smol")


# --- preconditions --------------------------------------------------------------------------------


async def test_an_etag_that_still_holds_lets_the_change_through(room: Room, spec: MakeSpec) -> None:
    view, _ = await room.deployments.apply(PROJECT, spec())
    changed, _ = await room.deployments.apply(PROJECT, spec(labels={"a": "b"}), if_match=etag(view))
    assert changed.generation == 2
    await room.deployments.apply(PROJECT, spec(), if_match="*")


@pytest.mark.parametrize("if_match", ['"dep_x.1"', "nonsense", '""'])
async def test_an_etag_that_does_not_hold_changes_nothing(
    room: Room, spec: MakeSpec, if_match: str
) -> None:
    view, _ = await room.deployments.apply(PROJECT, spec())
    with pytest.raises(PreconditionFailed, match="is not the present version"):
        await room.deployments.apply(PROJECT, spec(labels={"a": "b"}), if_match=if_match)
    with pytest.raises(PreconditionFailed):
        await room.deployments.delete(PROJECT, "smol", if_match=if_match)
    assert await room.deployments.read.get(PROJECT, "smol") == view


async def test_an_etag_of_a_deployment_that_is_not_there_does_not_hold(
    room: Room, spec: MakeSpec
) -> None:
    for if_match in ("*", '"dep_x.1"'):
        with pytest.raises(PreconditionFailed):
            await room.deployments.apply(PROJECT, spec(), if_match=if_match)


async def test_of_two_changes_with_the_same_etag_one_wins(room: Room, spec: MakeSpec) -> None:
    view, _ = await room.deployments.apply(PROJECT, spec())
    outcomes = await asyncio.gather(
        *(
            room.deployments.apply(PROJECT, spec(labels={"n": str(n)}), if_match=etag(view))
            for n in range(5)
        ),
        return_exceptions=True,
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, PreconditionFailed)]
    assert len(refused) == 4
    assert (await room.deployments.read.get(PROJECT, "smol")).generation == 2


async def test_only_a_free_name_satisfies_who_wants_a_new_one(room: Room, spec: MakeSpec) -> None:
    await room.deployments.apply(PROJECT, spec(), only_new=True)
    with pytest.raises(PreconditionFailed, match="the name 'smol' is taken"):
        await room.deployments.apply(PROJECT, spec(), only_new=True)


# --- plan -----------------------------------------------------------------------------------------


async def test_a_dry_run_says_what_would_change_and_touches_nothing(
    room: Room, spec: MakeSpec
) -> None:
    new = await room.deployments.plan(PROJECT, spec())
    assert (new.action, new.new_revision) == ("create", True)
    assert (await room.deployments.read.page(PROJECT, None, 10)).data == []
    before, _ = await room.deployments.apply(PROJECT, spec())
    same = await room.deployments.plan(PROJECT, spec())
    assert (same.action, same.changes, same.new_revision) == ("none", [], False)
    other = await room.deployments.plan(PROJECT, spec(scaling={"max_replicas": 2}))
    assert (other.action, other.new_revision) == ("update", False)
    assert [(c.field, c.before, c.after) for c in other.changes] == [
        ("scaling.max_replicas", None, 2)
    ]
    assert other.warnings
    assert await room.deployments.read.get(PROJECT, "smol") == before


def write_adapter(path: Path) -> Path:
    """An adapter of rank 16 on one linear of 1024 by 1024: 64 KiB in bf16."""
    path.mkdir()
    (path / "adapter_config.json").write_text("{}")
    tensors = {
        "m.lora_A.weight": np.zeros((16, 1024), dtype=np.float16),
        "m.lora_B.weight": np.zeros((1024, 16), dtype=np.float16),
    }
    save_file(tensors, path / "adapter_model.safetensors")
    return path


async def test_a_dry_run_counts_adapters_and_says_which_it_could_not(
    room: Room, spec: MakeSpec, tmp_path: Path
) -> None:
    law, empty = write_adapter(tmp_path / "law"), write_adapter(tmp_path / "empty")
    (empty / "adapter_model.safetensors").unlink()
    adapters = {"law": str(law), "empty": str(empty)}
    found = await room.deployments.plan(PROJECT, spec(runtime={"adapters": adapters}))
    assert found.plan.adapters_bytes == 64 * 1024
    assert [w.split(":")[0] for w in found.warnings] == ["runtime.adapters.empty"]


async def test_an_adapter_that_is_added_takes_memory_of_replicas_that_run(
    room: Room, spec: MakeSpec, tmp_path: Path
) -> None:
    async def each() -> list[int]:
        (declared,) = await room.database.read(lambda s: read_all(s, room.clock.now()))
        return list(declared.replica_bytes.values())

    await room.deployments.apply(PROJECT, spec())
    (before,) = await each()
    await room.deployments.add_adapter(PROJECT, "smol", "law", str(write_adapter(tmp_path / "law")))
    assert await each() == [before + 64 * 1024]
    assert await revisions(room) == [1]
    await room.deployments.remove_adapter(PROJECT, "smol", "law")
    assert await each() == [before]


# --- scale ----------------------------------------------------------------------------------------


async def test_scaling_changes_one_bound_and_keeps_the_rest(room: Room, spec: MakeSpec) -> None:
    await room.deployments.apply(PROJECT, spec(labels={"a": "b"}, scaling={"idle_timeout_s": 5}))
    view = await room.deployments.scale(PROJECT, "smol", ScaleRequest(max_replicas=4))
    scaled = view.spec.scaling
    assert (scaled.min_replicas, scaled.max_replicas, scaled.idle_timeout_s) == (None, 4, 5)
    assert view.spec.labels == {"a": "b"}
    assert await revisions(room) == [1]


async def test_impossible_bounds_are_refused_by_name(room: Room, spec: MakeSpec) -> None:
    await room.deployments.apply(PROJECT, spec(scaling={"max_replicas": 2}))
    with pytest.raises(Invalid) as caught:
        await room.deployments.scale(PROJECT, "smol", ScaleRequest(min_replicas=3))
    assert caught.value.issues[0].field == "scaling.min_replicas"


async def test_scaling_and_declaring_at_once_lose_neither(room: Room, spec: MakeSpec) -> None:
    await room.deployments.apply(PROJECT, spec())
    await asyncio.gather(
        room.deployments.scale(PROJECT, "smol", ScaleRequest(max_replicas=4)),
        room.deployments.scale(PROJECT, "smol", ScaleRequest(min_replicas=1)),
    )
    scaled = (await room.deployments.read.get(PROJECT, "smol")).spec.scaling
    assert (scaled.min_replicas, scaled.max_replicas) == (1, 4)


# --- wake and delete ------------------------------------------------------------------------------


async def test_waking_counts_as_activity_and_forgives_former_failures(
    room: Room, spec: MakeSpec
) -> None:
    view, _ = await room.deployments.apply(PROJECT, spec())
    assert room.endpoints.demand(view.id).idle_s is None
    room.clock.elapsed_s = 50
    await room.deployments.wake(PROJECT, "smol")
    assert room.endpoints.demand(view.id).idle_s == 0
    row = await room.database.read(lambda s: s.get_one(Deployment, view.id))
    assert row.forgiven_at == room.clock.now()
    assert await reasons(room) == ["Declared", "WakeRequested"]


async def failed(room: Room, view: DeploymentView) -> None:
    """What the reconciler writes when a replica refuses to start."""
    now = room.clock.now()
    await room.database.write(
        lambda s: change_deployment(s, s.get_one(Deployment, view.id), now, phase="failed")
    )


async def test_declaring_a_failed_deployment_again_is_asking_for_another_try(
    room: Room, spec: MakeSpec
) -> None:
    view, _ = await room.deployments.apply(PROJECT, spec())
    await failed(room, view)
    again, created = await room.deployments.apply(PROJECT, spec())
    assert (again.phase, again.generation, created) == (DeploymentPhase.PROVISIONING, 1, False)
    assert await reasons(room) == ["Declared", "RetryRequested"]


async def test_a_changed_declaration_of_a_failed_deployment_does_not_show_the_former_failure(
    room: Room, spec: MakeSpec
) -> None:
    view, _ = await room.deployments.apply(PROJECT, spec())
    await failed(room, view)
    changed, _ = await room.deployments.apply(PROJECT, spec(runtime={"max_sequences": 2}))
    assert (changed.phase, changed.generation) == (DeploymentPhase.PROVISIONING, 2)


async def test_deleting_twice_is_the_same_as_once(room: Room, spec: MakeSpec) -> None:
    await room.deployments.apply(PROJECT, spec())
    first = await room.deployments.delete(PROJECT, "smol")
    assert first.phase is DeploymentPhase.DELETING
    assert await room.deployments.delete(PROJECT, "smol") == first
    assert await reasons(room) == ["Declared", "DeleteRequested"]


async def test_a_deployment_being_deleted_is_no_longer_served_nor_changed(
    room: Room, spec: MakeSpec
) -> None:
    await room.deployments.apply(PROJECT, spec())
    await room.deployments.delete(PROJECT, "smol")
    assert room.catalog.get(PROJECT, "smol") is None
    for attempt in (
        room.deployments.apply(PROJECT, spec(labels={"a": "b"})),
        room.deployments.plan(PROJECT, spec()),
        room.deployments.wake(PROJECT, "smol"),
        room.deployments.scale(PROJECT, "smol", ScaleRequest(max_replicas=2)),
    ):
        with pytest.raises(Conflict, match="'smol' is being deleted; try again"):
            await attempt
    await room.deployments.load_catalog()
    assert room.catalog.get(PROJECT, "smol") is None


async def test_a_deleted_name_is_free_for_another_mode(room: Room, spec: MakeSpec) -> None:
    view, _ = await room.deployments.apply(PROJECT, spec())
    await gone(room, await room.deployments.delete(PROJECT, "smol"))
    with pytest.raises(NotFound, match="there is no deployment 'smol'"):
        await room.deployments.read.get(PROJECT, "smol")
    again, created = await room.deployments.apply(PROJECT, spec(mode="batch"))
    assert created
    assert again.id != view.id


@pytest.mark.parametrize("name", ["nothing", "", "../etc", "\0"])
async def test_a_name_that_is_not_there_is_not_found(room: Room, name: str) -> None:
    for attempt in (
        room.deployments.read.get(PROJECT, name),
        room.deployments.delete(PROJECT, name),
        room.deployments.wake(PROJECT, name),
        room.deployments.scale(PROJECT, name, ScaleRequest(max_replicas=1)),
        room.deployments.read.events(PROJECT, name, None, 10),
        room.deployments.read.logs(PROJECT, name, None, 10),
    ):
        with pytest.raises(NotFound):
            await attempt


async def test_the_catalog_is_filled_again_after_a_restart(room: Room, spec: MakeSpec) -> None:
    await room.deployments.apply(PROJECT, spec())
    room.catalog.remove(PROJECT, "smol")
    await room.deployments.load_catalog()
    assert room.catalog.get(PROJECT, "smol") is not None


async def test_adapters_stay_when_a_former_revision_is_declared_again(
    room: Room, spec: MakeSpec, tmp_path: Path
) -> None:
    law = str(write_adapter(tmp_path / "law"))
    await room.deployments.apply(PROJECT, spec())
    await room.deployments.apply(PROJECT, spec(runtime={"max_sequences": 2}))
    await room.deployments.add_adapter(PROJECT, "smol", "law", law)
    back = await room.deployments.rollback(PROJECT, "smol", RollbackRequest(to=1))
    assert back.spec.runtime.max_sequences == spec().runtime.max_sequences
    assert back.spec.runtime.adapters == {"law": law}
    plan = await room.database.read(lambda s: s.get_one(Deployment, back.id).plan)
    assert plan["adapters_bytes"] == 64 * 1024
