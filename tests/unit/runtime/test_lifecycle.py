import json
from pathlib import Path

import pytest

from tidegate.protocol.replica import ReplicaState
from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.server.lifecycle import Lifecycle
from tidegate_runtime.server.status import StatusFile


@pytest.fixture
async def lifecycle(tmp_path: Path) -> Lifecycle:
    return Lifecycle(StatusFile(tmp_path / "status.json", "r1"), 4711)


def written(tmp_path: Path) -> dict[str, object]:
    status = json.loads((tmp_path / "status.json").read_text())
    assert isinstance(status, dict)
    return status


async def test_every_state_is_written_with_the_port(lifecycle: Lifecycle, tmp_path: Path) -> None:
    for state in (ReplicaState.LOADING, ReplicaState.READY, ReplicaState.DRAINING):
        lifecycle.to(state)
        assert (written(tmp_path)["state"], written(tmp_path)["port"]) == (state, 4711)
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


async def test_a_state_cannot_be_skipped(lifecycle: Lifecycle) -> None:
    with pytest.raises(ValueError, match="cannot go"):
        lifecycle.to(ReplicaState.READY)


async def test_only_a_ready_replica_takes_work(lifecycle: Lifecycle) -> None:
    lifecycle.to(ReplicaState.LOADING)
    with pytest.raises(RequestRefused) as refused, lifecycle.work():
        pass
    assert (refused.value.status, refused.value.retry_after_s) == (503, 1)


async def test_draining_refuses_new_work_and_waits_for_the_old(lifecycle: Lifecycle) -> None:
    lifecycle.to(ReplicaState.LOADING)
    lifecycle.to(ReplicaState.READY)
    with lifecycle.work():
        lifecycle.drain()
        lifecycle.drain()
        with pytest.raises(RequestRefused), lifecycle.work():
            pass
        assert not await lifecycle.idle(0.01)
    assert await lifecycle.idle(0.01)


async def test_a_failure_is_written_once_with_reason_and_ends_the_process(
    lifecycle: Lifecycle, tmp_path: Path
) -> None:
    lifecycle.to(ReplicaState.LOADING)
    lifecycle.fail("NotAModel", "no model in 'x'", 3)
    lifecycle.fail("Later", "too late", 1)
    assert lifecycle.ended.is_set()
    assert lifecycle.exit_code == 3
    assert written(tmp_path)["reason"] == "NotAModel"
