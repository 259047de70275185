"""Replicas as real child processes: start, watch, drain, end, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from tests.integration.provision.conformance import Conformance
from tests.integration.provision.conftest import COMMAND, SETTINGS, Nursery, a_provisioner, launch

from tidegate.protocol.replica import ReplicaConfig
from tidegate.spec import GpuSpec
from tidegate_controlplane.domain.replicas import Exited, Running
from tidegate_controlplane.provision.base import FormerReplica, StartFailed
from tidegate_controlplane.provision.process import is_alive, kill_exactly, start_ticks
from tidegate_controlplane.provision.start import SpawningStarter


def unhealthy(seen: object) -> bool:
    return isinstance(seen, Running) and not seen.healthy


class TestLocal(Conformance):
    """What every provisioner does."""

    place_type = Nursery

    @pytest.fixture
    def place(self, nursery: Nursery) -> Nursery:
        return nursery


# --- starting -------------------------------------------------------------------------------------


async def test_a_started_replica_becomes_ready_on_a_port_of_its_own(nursery: Nursery) -> None:
    await nursery.provisioner.start(launch())
    seen = await nursery.ready()
    assert is_alive(seen.pid, seen.process_start)
    endpoint = nursery.provisioner.endpoint("rep_1")
    assert endpoint is not None
    assert (endpoint.url, endpoint.capacity) == (f"http://127.0.0.1:{seen.port}", 3)
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{endpoint.url}/readyz")
    assert answer.json()["replica_id"] == "rep_1"


async def test_how_full_a_replica_says_it_is_comes_with_its_health(nursery: Nursery) -> None:
    await nursery.provisioner.start(launch())
    seen = await nursery.until(lambda one: isinstance(one, Running) and one.waiting > 0)
    assert isinstance(seen, Running)
    assert (seen.kv_used, seen.waiting) == (0.75, 3)


async def test_the_replica_is_told_what_was_planned(nursery: Nursery) -> None:
    await nursery.provisioner.start(launch())
    config = ReplicaConfig.model_validate_json(
        (nursery.directory / "rep_1" / "config.json").read_bytes()
    )
    assert (config.model_name, config.source, config.revision) == ("smol", "good", "abc123")
    assert config.source_digest == "sha256:d"
    assert (config.precision, config.context_tokens, config.kv_cache_bytes) == ("fp32", 128, 1024)
    assert (config.max_sequences, config.threads, config.drain_s) == (3, 2, 5.0)
    assert config.max_adapters == 5
    assert config.kv_spill == launch().plan.kv_spill
    assert (config.parent_pid, config.device) == (os.getpid(), "cpu")


async def test_a_replica_on_a_gpu_is_told_so_and_is_not_forked(tmp_path: Path) -> None:
    never = SpawningStarter(("/no/such/program",))
    provisioner = a_provisioner(tmp_path / "replicas", never, gpu_starter=SpawningStarter(COMMAND))
    nursery = Nursery(provisioner, tmp_path / "replicas")
    wanted = launch()
    on_gpu = wanted.plan.model_copy(update={"gpu": GpuSpec()})
    await provisioner.start(replace(wanted, plan=on_gpu))
    await nursery.ready()
    written = (tmp_path / "replicas" / "rep_1" / "config.json").read_bytes()
    assert ReplicaConfig.model_validate_json(written).device == "cuda"
    await provisioner.close()


async def test_the_token_is_in_the_environment_and_nowhere_else(nursery: Nursery) -> None:
    await nursery.provisioner.start(launch())
    await nursery.provisioner.start(launch(key="rep_2"))
    seen = await nursery.ready()
    endpoint, other = (nursery.provisioner.endpoint(key) for key in ("rep_1", "rep_2"))
    await nursery.ready("rep_2")
    assert endpoint is not None
    token = endpoint.token
    environment = Path(f"/proc/{seen.pid}/environ").read_bytes()
    assert f"TIDEGATE_REPLICA_TOKEN={token}".encode() in environment.split(b"\0")
    assert token.encode() not in Path(f"/proc/{seen.pid}/cmdline").read_bytes()
    files = [path.read_bytes() for path in nursery.directory.rglob("*") if path.is_file()]
    assert files
    assert not any(token.encode() in content for content in files)
    assert token not in repr(endpoint)
    assert "TIDEGATE_REPLICA_TOKEN" not in os.environ
    other = nursery.provisioner.endpoint("rep_2")
    assert other is not None
    assert other.token != token


async def test_a_replica_without_a_port_has_no_endpoint(nursery: Nursery) -> None:
    assert nursery.provisioner.endpoint("rep_1") is None
    await nursery.provisioner.start(launch())
    assert nursery.provisioner.endpoint("rep_1") is None


async def test_a_command_that_is_not_there_cannot_be_started(tmp_path: Path) -> None:
    provisioner = a_provisioner(tmp_path / "replicas", SpawningStarter(("/no/such/program",)))
    await provisioner.start(launch())
    seen = await Nursery(provisioner, tmp_path).exited()
    assert (seen.reason, seen.refused) == ("StartFailed", False)
    assert "/no/such/program" in seen.message
    await provisioner.forget("rep_1")
    assert provisioner.known() == []
    await provisioner.close()


async def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    directory = tmp_path / "file" / "replicas"
    provisioner = a_provisioner(directory)
    with pytest.raises(StartFailed, match=r"cannot write .*config\.json: Not a directory"):
        await provisioner.start(launch())
    await provisioner.close()


# --- failing --------------------------------------------------------------------------------------


async def test_a_refusal_is_told_with_the_reason_from_the_status_file(nursery: Nursery) -> None:
    await nursery.provisioner.start(launch("refuse"))
    assert await nursery.exited() == Exited(3, "Pickled", "its weights are pickled", refused=True)


async def test_a_crash_is_told_with_the_last_line_of_the_log(nursery: Nursery) -> None:
    await nursery.provisioner.start(launch("crash"))
    assert await nursery.exited() == Exited(
        1, "Crashed", "exited with status 1; its log ends: Traceback: boom"
    )


async def test_a_process_killed_from_outside_is_seen_as_crashed(nursery: Nursery) -> None:
    await nursery.provisioner.start(launch())
    os.kill((await nursery.ready()).pid, signal.SIGKILL)
    seen = await nursery.exited()
    assert (seen.code, seen.reason, seen.refused) == (-9, "Crashed", False)
    assert seen.message.startswith("killed by signal 9")


async def test_a_replica_that_ends_unasked_has_failed(nursery: Nursery) -> None:
    await nursery.provisioner.start(launch())
    os.kill((await nursery.ready()).pid, signal.SIGTERM)
    seen = await nursery.exited()
    assert (seen.code, seen.reason) == (0, "Ended")


@pytest.mark.parametrize("behaviour", ["sick", "impostor"])
async def test_a_replica_that_fails_its_health_checks_is_seen(
    nursery: Nursery, behaviour: str
) -> None:
    await nursery.provisioner.start(launch(behaviour))
    await nursery.until(unhealthy)


async def test_a_replica_that_hangs_is_seen_and_one_that_goes_on_is_forgiven(
    tmp_path: Path,
) -> None:
    hasty = SETTINGS.model_copy(update={"health_timeout_s": 0.1})
    provisioner = a_provisioner(tmp_path / "replicas", settings=hasty)
    nursery = Nursery(provisioner, tmp_path)
    await provisioner.start(launch())
    pid = (await nursery.ready()).pid
    os.kill(pid, signal.SIGSTOP)
    await nursery.until(unhealthy)
    os.kill(pid, signal.SIGCONT)
    await nursery.until(lambda seen: isinstance(seen, Running) and seen.healthy)
    await provisioner.close()


async def test_a_healthy_replica_stays_healthy_behind_a_proxy_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    provisioner = a_provisioner(tmp_path / "replicas")
    nursery = Nursery(provisioner, tmp_path)
    await provisioner.start(launch())
    await nursery.ready()
    for _ in range(20):
        assert not unhealthy(await nursery.seen())
        await asyncio.sleep(0.02)
    await provisioner.close()


async def test_a_replica_that_is_not_ready_in_time_is_overdue(tmp_path: Path) -> None:
    hasty = SETTINGS.model_copy(update={"start_timeout_s": 0.05})
    provisioner = a_provisioner(tmp_path / "replicas", settings=hasty)
    await provisioner.start(launch("slow"))
    await Nursery(provisioner, tmp_path).until(lambda s: isinstance(s, Running) and s.overdue)
    await provisioner.close()


async def test_a_process_that_said_it_failed_and_stays_is_ended_with_its_reason(
    nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate_controlplane.provision.local.END_GRACE_S", 0.1)
    await nursery.provisioner.start(launch("stuck after failure"))
    seen = await nursery.exited()
    assert (seen.code, seen.reason, seen.message) == (-9, "EngineDead", "the engine stopped")


# --- ending ---------------------------------------------------------------------------------------


async def test_a_replica_that_does_not_end_is_killed_after_its_drain_time(
    nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate_controlplane.provision.local.END_GRACE_S", 0.1)
    await nursery.provisioner.start(launch("stubborn", drain_timeout_s=0.3))
    await nursery.ready()
    await nursery.provisioner.drain("rep_1")
    await asyncio.sleep(0.15)
    assert isinstance(await nursery.seen(), Running)
    assert (await nursery.exited()).code == -9


async def test_a_killed_process_leaves_no_trace(nursery: Nursery) -> None:
    await nursery.provisioner.start(launch("stubborn"))
    pid = (await nursery.ready()).pid
    await nursery.provisioner.kill("rep_1")
    assert (await nursery.exited()).code == -9
    assert start_ticks(pid) is None
    await nursery.provisioner.kill("rep_1")


async def test_files_of_every_other_replica_are_deleted(nursery: Nursery) -> None:
    for key in ("rep_1", "rep_2"):
        await nursery.provisioner.start(launch("crash", key))
        await nursery.exited(key)
    await nursery.provisioner.keep_files({"rep_2"})
    assert [path.name for path in nursery.directory.iterdir()] == ["rep_2"]


# --- logs -----------------------------------------------------------------------------------------


async def test_log_lines_carry_the_offset_from_which_to_go_on(nursery: Nursery) -> None:
    home = nursery.directory / "rep_1"
    home.mkdir(parents=True)
    (home / "log").write_bytes("eins\nzwölf\n\nhalf".encode())
    lines = await nursery.provisioner.logs("rep_1", 0, 2)
    assert [(line.text, line.offset) for line in lines] == [("eins", 5), ("zwölf", 12)]
    rest = await nursery.provisioner.logs("rep_1", 12, 10)
    assert [(line.text, line.offset) for line in rest] == [("", 13)]
    with (home / "log").open("ab") as log:
        log.write(b" a line\n\xff\n")
    more = await nursery.provisioner.logs("rep_1", 13, 10)
    assert [line.text for line in more] == ["half a line", "\ufffd"]
    assert await nursery.provisioner.logs("rep_1", 10**6, 10) == []


async def test_a_line_without_end_is_cut_into_several(nursery: Nursery) -> None:
    home = nursery.directory / "rep_1"
    home.mkdir(parents=True)
    (home / "log").write_bytes(b"x" * 40_000 + b"\n")
    lines = await nursery.provisioner.logs("rep_1", 0, 10)
    assert [len(line.text) for line in lines] == [16_384, 16_384, 7_232]


# --- sweeping -------------------------------------------------------------------------------------


@pytest.fixture
def stranger() -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Makes processes that no provisioner started."""
    made: list[subprocess.Popen[bytes]] = []

    def make() -> subprocess.Popen[bytes]:
        made.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        return made[-1]

    yield make
    for process in made:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


async def test_a_sweep_ends_exactly_the_process_that_was_started(
    nursery: Nursery, stranger: Callable[[], subprocess.Popen[bytes]]
) -> None:
    former, reused = stranger(), stranger()
    began = start_ticks(former.pid), start_ticks(reused.pid)
    assert began[0] is not None
    assert began[1] is not None
    await nursery.provisioner.sweep(
        [
            FormerReplica("rep_1", "dep", "local", former.pid, began[0]),
            FormerReplica("rep_2", "dep", "local", reused.pid, began[1] - 1),
            FormerReplica("rep_3", "dep", "local", 2**22 - 1, 5),
        ]
    )
    assert former.wait(60) == -signal.SIGKILL
    assert reused.poll() is None


def test_a_process_is_named_by_its_pid_and_its_start(
    stranger: Callable[[], subprocess.Popen[bytes]],
) -> None:
    process = stranger()
    began = start_ticks(process.pid)
    assert began is not None
    assert is_alive(process.pid, began)
    assert not is_alive(process.pid, began + 1)
    assert not kill_exactly(process.pid, began + 1)
    assert process.poll() is None
    assert kill_exactly(process.pid, began)
    assert start_ticks(process.pid) is None, "a zombie is no process"
    process.wait()
    assert not kill_exactly(process.pid, began)


def test_a_process_with_a_confusing_name_is_read_right(tmp_path: Path) -> None:
    program = tmp_path / "a) S 1 (b"
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(program), "30"])
    try:
        began = start_ticks(process.pid)
        assert began is not None
        assert began >= (start_ticks(os.getpid()) or 0)
    finally:
        process.kill()
        process.wait()
