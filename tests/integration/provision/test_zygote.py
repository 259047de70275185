"""Replicas forked by a zygote: children of the provisioner, whatever becomes of the zygote."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from unittest.mock import patch

import pytest
from tests.integration.provision.conftest import Nursery, a_provisioner, launch

from tidegate_controlplane.domain.replicas import Missing, NoCapacity, Running
from tidegate_controlplane.provision import child, start, zygote, zygote_starter
from tidegate_controlplane.provision.base import StartFailed
from tidegate_controlplane.provision.child import ChildProcess
from tidegate_controlplane.provision.process import is_alive, start_ticks
from tidegate_controlplane.provision.subreaper import Strays
from tidegate_controlplane.provision.zygote import Zygote
from tidegate_controlplane.provision.zygote_starter import ZygoteStarter, code_on_disk

COMMAND = (sys.executable, str(Path(__file__).with_name("zygote.py")))


@pytest.fixture
async def starter(tmp_path: Path) -> AsyncIterator[ZygoteStarter]:
    made = ZygoteStarter(tmp_path / "zygote.log", 0, COMMAND)
    made.open()
    yield made
    await made.close()


@pytest.fixture
async def forked(starter: ZygoteStarter, tmp_path: Path) -> AsyncIterator[Nursery]:
    directory = tmp_path / "replicas"
    provisioner = a_provisioner(directory, starter)
    yield Nursery(provisioner, directory)
    await provisioner.close()


def zygote_of(nursery: Nursery, key: str = "rep_1") -> int:
    """The pid of the zygote that forked a replica."""
    line = (nursery.directory / key / "log").read_text().splitlines()[0]
    return int(line.removeprefix("forked from "))


def held_by(pid: int, kind: str) -> set[str]:
    """The sockets or pipes that a process holds, by their inodes."""
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it is closed meanwhile
            found.add(str(path.readlink()))
    return {link for link in found if link.startswith(f"{kind}:")}


async def gone(pid: int) -> None:
    async with asyncio.timeout(60):
        while start_ticks(pid) is not None:
            await asyncio.sleep(0.01)


async def test_a_forked_replica_is_a_child_of_the_provisioner(forked: Nursery) -> None:
    await forked.provisioner.start(launch())
    seen = await forked.ready()
    status = Path(f"/proc/{seen.pid}/status").read_text()
    assert f"PPid:\t{os.getpid()}\n" in status
    assert os.getsid(seen.pid) == seen.pid
    assert "token of 43 characters" in (forked.directory / "rep_1" / "log").read_text()


async def test_replicas_of_one_zygote_are_forked_one_after_the_other(forked: Nursery) -> None:
    keys = [f"rep_{number}" for number in range(4)]
    for key in keys:
        await forked.provisioner.start(launch(key=key))
    pids = {(await forked.ready(key)).pid for key in keys}
    assert len(pids) == 4
    assert len({zygote_of(forked, key) for key in keys}) == 1


async def test_a_zygote_keeps_nothing_of_its_replicas_nor_they_of_it(forked: Nursery) -> None:
    await forked.provisioner.start(launch())
    seen = await forked.ready()
    zygote = zygote_of(forked)
    assert Path(f"/proc/{zygote}/task/{zygote}/children").read_text() == ""
    assert not held_by(zygote, "socket") & held_by(seen.pid, "socket")
    inherited = held_by(os.getpid(), "pipe")
    assert held_by(seen.pid, "pipe") <= inherited
    async with asyncio.timeout(60):
        while not held_by(zygote, "pipe") <= inherited:
            await asyncio.sleep(0.01)


async def test_how_a_forked_replica_ends_is_known(forked: Nursery) -> None:
    await forked.provisioner.start(launch("crash"))
    seen = await forked.exited()
    assert (seen.code, seen.message) == (
        1,
        "exited with status 1; its log ends: Traceback: boom",
    )
    await forked.provisioner.start(launch("refuse", "rep_2"))
    assert (await forked.exited("rep_2")).refused
    await forked.provisioner.start(launch(key="rep_3"))
    os.kill((await forked.ready("rep_3")).pid, signal.SIGKILL)
    assert (await forked.exited("rep_3")).code == -9


async def test_replicas_outlive_their_zygote_and_another_one_forks_the_next(
    forked: Nursery,
) -> None:
    await forked.provisioner.start(launch())
    first = await forked.ready()
    killed = zygote_of(forked)
    os.kill(killed, signal.SIGKILL)
    await gone(killed)
    await forked.provisioner.start(launch(key="rep_2"))
    await forked.ready("rep_2")
    assert zygote_of(forked, "rep_2") != killed
    assert (await forked.ready()).pid == first.pid
    await forked.provisioner.drain("rep_1")
    assert (await forked.exited()).code == 0


async def test_a_zygote_that_dies_is_replaced_before_anyone_asks(
    forked: Nursery, starter: ZygoteStarter
) -> None:
    await forked.provisioner.start(launch())
    await forked.ready()
    former = starter._current
    os.kill(zygote_of(forked), signal.SIGKILL)
    async with asyncio.timeout(60):
        while starter._current is former:
            await asyncio.sleep(0.01)
    assert starter._current is not None
    await starter._current.imported()


async def test_a_request_that_a_dying_zygote_took_along_is_asked_again(
    forked: Nursery, starter: ZygoteStarter
) -> None:
    await forked.provisioner.start(launch())
    await forked.ready()
    pid = zygote_of(forked)
    os.kill(pid, signal.SIGSTOP)
    await forked.provisioner.start(launch(key="rep_2"))
    await asyncio.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    await forked.ready("rep_2")


async def test_a_zygote_that_does_not_answer_is_ended_and_the_next_one_asked(
    forked: Nursery, starter: ZygoteStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    await forked.provisioner.start(launch())
    await forked.ready()
    former = starter._current
    assert former is not None
    former.process.send(signal.SIGSTOP)
    with monkeypatch.context() as hurried:
        hurried.setattr(zygote, "ANSWERS_WITHIN_S", 0.1)
        await forked.provisioner.start(launch(key="rep_2"))
        async with asyncio.timeout(60):
            while not former._forks:
                await asyncio.sleep(0)
    await forked.ready("rep_2")
    assert former.process.returncode == -signal.SIGKILL
    assert zygote_of(forked, "rep_2") != former.process.pid


async def test_a_fork_that_its_zygote_did_not_live_to_tell_of_ends_unbegun(tmp_path: Path) -> None:
    told = tmp_path / "told"
    starter = ZygoteStarter(tmp_path / "log", 0, (*COMMAND, "--dies-answering", str(told)))
    starter.open()
    forked = Nursery(a_provisioner(tmp_path / "replicas", starter), tmp_path / "replicas")
    await forked.provisioner.start(launch("stubborn"))
    seen = await forked.ready()
    stray = json.loads(told.read_bytes())["pid"]
    assert seen.pid != stray
    await gone(stray)
    log = (forked.directory / "rep_1" / "log").read_text()
    assert log.count("forked from ") == 1
    await forked.close()


async def test_what_a_zygote_answered_before_its_end_counts(
    forked: Nursery, starter: ZygoteStarter
) -> None:
    """Heard of only after its end, and after a reset, since it left a hint unread."""
    await forked.provisioner.start(launch())
    await forked.ready()
    former = starter._current
    assert former is not None
    former.process.send(signal.SIGSTOP)
    for key in ("rep_2", "rep_3"):
        await forked.provisioner.start(launch("stubborn", key))
    async with asyncio.timeout(60):
        while len(former._forks) < 2:
            await asyncio.sleep(0.01)
    former.process.send(signal.SIGCONT)
    for key in ("rep_2", "rep_3"):
        without_the_loop(lambda log=forked.directory / key / "log": begun(log))
    former.process.send(signal.SIGSTOP)
    status = Path(f"/proc/{former.process.pid}/status")
    without_the_loop(lambda: "State:\tT" in status.read_text())
    former._connection.send(b"left unread")
    former.process.send(signal.SIGKILL)
    without_the_loop(lambda: start_ticks(former.process.pid) is None)
    former.close()
    for key in ("rep_2", "rep_3"):
        await forked.ready(key)
        assert zygote_of(forked, key) == former.process.pid
        log = (forked.directory / key / "log").read_text()
        assert log.count("forked from ") == 1


def begun(log: Path) -> bool:
    return log.exists() and "forked from " in log.read_text()


def without_the_loop(holds: Callable[[], bool]) -> None:
    """Wait while nothing that arrives is received."""
    give_up = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.01)


async def test_a_zygote_without_a_process_to_spare_is_a_lack_of_capacity(tmp_path: Path) -> None:
    starter = ZygoteStarter(tmp_path / "zygote.log", 0, (*COMMAND, "--full"))
    starter.open()
    provisioner = a_provisioner(tmp_path / "replicas", starter)
    await provisioner.start(launch())
    seen = await Nursery(provisioner, tmp_path).until(lambda one: one != Missing())
    assert isinstance(seen, NoCapacity)
    assert "cannot fork a replica process: [Errno 11]" in seen.message
    await provisioner.close()


async def test_a_zygote_that_cannot_import_is_told_with_its_last_words(tmp_path: Path) -> None:
    starter = ZygoteStarter(tmp_path / "zygote.log", 0, (*COMMAND, "--broken"))
    starter.open()
    provisioner = a_provisioner(tmp_path / "replicas", starter)
    await provisioner.start(launch())
    seen = await Nursery(provisioner, tmp_path).exited()
    assert seen.reason == "StartFailed"
    assert "ImportError: no module named tomorrow" in seen.message
    await provisioner.close()


async def test_other_code_on_disk_is_taken_over_without_a_pause(
    forked: Nursery, starter: ZygoteStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zygote_starter, "LOOK_S", 0.01)
    await starter.close()
    starter = ZygoteStarter(forked.directory.parent / "log", 0, COMMAND)
    starter.open()
    forked.provisioner._starter = starter
    await forked.provisioner.start(launch())
    first = await forked.ready()
    former = starter._current
    monkeypatch.setattr(zygote_starter, "code_on_disk", lambda: "newer")
    count = 1
    async with asyncio.timeout(60):
        while starter._current is former:
            count += 1
            await forked.provisioner.start(launch(key=f"rep_{count}"))
            await forked.ready(f"rep_{count}")
    await forked.provisioner.start(launch(key="rep_last"))
    await forked.ready("rep_last")
    assert zygote_of(forked, "rep_last") != zygote_of(forked)
    await gone(zygote_of(forked))
    assert (await forked.ready()).pid == first.pid
    await starter.close()


async def test_other_code_is_looked_for_though_no_zygote_could_be_started(
    forked: Nursery, starter: ZygoteStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zygote_starter, "LOOK_S", 0.01)
    await starter.close()
    starter = ZygoteStarter(forked.directory.parent / "log", 0, COMMAND)
    starter.open()
    former = starter._current
    async with forked.full():
        monkeypatch.setattr(zygote_starter, "code_on_disk", lambda: "newer")
        async with asyncio.timeout(60):
            while not start.os.posix_spawn.called:  # type: ignore[attr-defined]
                await asyncio.sleep(0.01)
    async with asyncio.timeout(60):
        while starter._current is former:
            await asyncio.sleep(0.01)
    await starter.close()


async def test_code_whose_zygote_was_given_up_is_imported_when_it_comes_back(
    forked: Nursery, starter: ZygoteStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zygote_starter, "LOOK_S", 0.01)
    monkeypatch.setattr(zygote_starter, "code_on_disk", lambda: "a")
    await starter.close()
    starter = ZygoteStarter(forked.directory.parent / "log", 0, COMMAND)
    starter.open()
    former = starter._current
    assert former is not None
    starter._replace(former, "b")
    async with forked.full():
        with pytest.raises(StartFailed):
            starter._replace(former, "c")
    monkeypatch.setattr(zygote_starter, "code_on_disk", lambda: "b")
    async with asyncio.timeout(60):
        while starter._current is former:
            await asyncio.sleep(0.01)
    assert starter._current is not None
    assert starter._current.code == "b"
    await starter.close()


def test_code_that_is_being_replaced_has_a_name_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "half_there"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "gone.py").symlink_to("nowhere.py")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(zygote_starter, "PACKAGES", ("half_there",))
    monkeypatch.setattr(zygote_starter, "LIBRARIES", ("pytest", "half-there"))
    before = code_on_disk()
    assert "2 files" in before
    assert "half-there missing" in before
    (package / "gone.py").unlink()
    assert code_on_disk() != before


async def test_a_process_that_cannot_be_watched_is_not_left_running() -> None:
    pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
    spent = OSError(errno.EMFILE, "Too many open files")
    with (
        patch.object(child.os, "pidfd_open", side_effect=spent),
        pytest.raises(OSError, match="Too many open files"),
    ):
        ChildProcess(pid)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


async def test_a_replica_that_cannot_be_watched_is_said_to_have_failed(forked: Nursery) -> None:
    spent = OSError(errno.EMFILE, "Too many open files")
    with patch.object(child.os, "pidfd_open", side_effect=spent):
        await forked.provisioner.start(launch())
        seen = await forked.exited()
    assert seen.reason == "StartFailed"
    assert "cannot watch a replica process: [Errno 24] Too many open files" in seen.message


async def retired_amid_a_fork(forked: Nursery, starter: ZygoteStarter) -> Zygote:
    """A zygote that another one succeeds before it has forked rep_2, for it was stopped."""
    await forked.provisioner.start(launch())
    await forked.ready()
    former = starter._current
    assert former is not None
    former.process.send(signal.SIGSTOP)
    await forked.provisioner.start(launch(key="rep_2"))
    async with asyncio.timeout(60):
        while not former._forks:
            await asyncio.sleep(0.01)
    starter._replace(former, "newer")
    assert starter._succession is not None
    await starter._succession
    assert starter._current is not former
    return former


async def test_a_fork_under_way_is_finished_by_the_zygote_that_has_it(
    forked: Nursery, starter: ZygoteStarter
) -> None:
    """Asked of the next one too, there would be two processes of one replica."""
    former = await retired_amid_a_fork(forked, starter)
    former.process.send(signal.SIGCONT)
    await forked.ready("rep_2")
    assert zygote_of(forked, "rep_2") == former.process.pid
    await gone(former.process.pid)


async def test_closing_does_not_wait_for_a_fork_under_way(
    forked: Nursery, starter: ZygoteStarter
) -> None:
    former = await retired_amid_a_fork(forked, starter)
    async with asyncio.timeout(60):
        await forked.provisioner.close()
    assert start_ticks(former.process.pid) is None


async def test_code_that_cannot_be_imported_leaves_the_former_zygote_in_place(
    forked: Nursery, starter: ZygoteStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    await forked.provisioner.start(launch())
    await forked.ready()
    former = starter._current
    assert former is not None
    starter._command = (*COMMAND, "--broken")
    starter._replace(former, "broken")
    assert starter._succession is not None
    await starter._succession
    await forked.provisioner.start(launch(key="rep_2"))
    await forked.ready("rep_2")
    assert zygote_of(forked, "rep_2") == zygote_of(forked)


async def test_a_replica_that_is_killed_while_it_is_made_does_not_stay(forked: Nursery) -> None:
    await forked.provisioner.start(launch("stubborn"))
    await forked.provisioner.kill("rep_1")
    assert (await forked.exited()).code == -9


@pytest.mark.parametrize("model", ["bomb", "thread"])
async def test_a_model_that_the_zygote_cannot_warm_is_left_cold(
    forked: Nursery, starter: ZygoteStarter, model: str
) -> None:
    await forked.provisioner.start(launch())
    await forked.ready()
    await forked.provisioner.start(launch(model, "rep_2"))
    await forked.ready("rep_2")
    await gone(zygote_of(forked))
    await forked.provisioner.start(launch(model, "rep_3"))
    await forked.ready("rep_3")
    await forked.provisioner.start(launch(model, "rep_4"))
    await forked.ready("rep_4")
    assert zygote_of(forked, "rep_4") == zygote_of(forked, "rep_3")
    warmed = [line for line in starter._log.read_text().splitlines() if line.startswith("warm ")]
    assert warmed == ["warm good", f"warm {model}", "warm good"]


async def test_closing_ends_the_zygote_and_its_replicas(
    forked: Nursery, starter: ZygoteStarter
) -> None:
    await forked.provisioner.start(launch("stubborn"))
    seen = await forked.ready()
    zygote = zygote_of(forked)
    await forked.provisioner.close()
    assert start_ticks(zygote) is None
    assert start_ticks(seen.pid) is None


async def test_neither_outlives_a_control_plane_that_is_killed(tmp_path: Path) -> None:
    program = f"""
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {str(Path.cwd())!r})
from tests.integration.provision.conftest import Nursery, a_provisioner, launch
from tests.integration.provision.test_zygote import COMMAND, zygote_of
from tidegate_controlplane.provision.zygote import Zygote
from tidegate_controlplane.provision.zygote_starter import ZygoteStarter

async def main():
    starter = ZygoteStarter(Path({str(tmp_path)!r}) / "zygote.log", 0, COMMAND)
    starter.open()
    directory = Path({str(tmp_path)!r}) / "replicas"
    nursery = Nursery(a_provisioner(directory, starter), directory)
    await nursery.provisioner.start(launch("stubborn"))
    seen = await nursery.ready()
    print(seen.pid, seen.process_start, zygote_of(nursery), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as plane:
        assert plane.stdout is not None
        pid, began, zygote = map(int, plane.stdout.readline().split())
        assert is_alive(pid, began)
        plane.kill()
    await gone(pid)
    await gone(zygote)


async def test_a_change_of_status_and_an_end_are_heard_at_once(
    starter: ZygoteStarter, tmp_path: Path
) -> None:
    changed = asyncio.Event()
    provisioner = a_provisioner(tmp_path / "replicas", starter, changed=changed)
    nursery = Nursery(provisioner, tmp_path)
    await provisioner.start(launch())
    async with asyncio.timeout(60):
        seen = await nursery.seen()
        while not (isinstance(seen, Running) and seen.port):
            await changed.wait()
            changed.clear()
            seen = await nursery.seen()
    await nursery.ready()
    changed.clear()
    await provisioner.kill("rep_1")
    async with asyncio.timeout(60):
        await changed.wait()
    await provisioner.close()


async def test_orphans_that_nobody_waits_for_are_collected(forked: Nursery) -> None:
    program = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'input()'], "
        "stdin=subprocess.PIPE); print(child.pid, flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        orphan = int(parent.stdout.readline())
        parent.wait()
    async with asyncio.timeout(60):
        while Path(f"/proc/{orphan}").exists():
            await forked.provisioner.observe([])
            await asyncio.sleep(0.01)


async def test_an_end_that_somebody_may_wait_for_is_left_to_them_at_the_first_look() -> None:
    pid, strays = os.posix_spawn("/bin/true", ["true"], {}), Strays()
    async with asyncio.timeout(60):
        while "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
            await asyncio.sleep(0.01)
    assert strays.collect({pid}) is None
    assert strays.collect({pid}) is None, "it is awaited"
    assert Strays().collect(()) is None, "its first look"
    assert strays.collect(()) == pid
    assert not Path(f"/proc/{pid}").exists()
