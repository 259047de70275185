"""The files by which a control plane is found."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tidegate_controlplane.data_dir import (
    announced_pid,
    former_key,
    listen,
    owned,
    read_connection,
    set_aside,
    write_private,
)
from tidegate_controlplane.errors import StartError
from tidegate_controlplane.provision.process import start_ticks

HOLD = """
import sys
from pathlib import Path
from tidegate_controlplane.data_dir import owned
with owned(Path(sys.argv[1])):
    print("owned", flush=True)
    sys.stdin.read()
"""


def test_a_data_directory_has_one_owner_at_a_time(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with owned(lock):
        with pytest.raises(StartError, match="tidegate down") as caught, owned(lock):
            pass
        assert caught.value.exit_code == 5
        assert str(tmp_path) in str(caught.value)
    with owned(lock):
        pass


def test_the_kernel_lets_go_of_a_lock_when_its_owner_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "owned\n"
        with pytest.raises(StartError), owned(lock):
            pass
        holder.kill()
        holder.wait()
        with owned(lock):
            pass


def test_a_data_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot write in .*No such file"):  # noqa: SIM117, RUF043
        with owned(tmp_path / "nowhere" / "lock"):
            pass


def test_port_zero_takes_any_free_port() -> None:
    with listen("127.0.0.1", 0) as one, listen("127.0.0.1", 0) as other:
        assert one.getsockname()[1] != other.getsockname()[1] != 0
        socket.create_connection(one.getsockname()).close()


def test_a_port_that_is_taken_is_named_with_the_remedy_and_exit_status_four() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError) as caught:
            listen("127.0.0.1", port)
    assert caught.value.exit_code == 4
    assert str(caught.value) == (
        f"port {port} on 127.0.0.1 is taken or cannot be used (Address already in use); "
        "choose another with --port, or --port 0 for any free one"
    )


def test_an_address_of_another_machine_cannot_be_used() -> None:
    with pytest.raises(StartError, match=r"port 0 on 192\.0\.2\.1"):
        listen("192.0.2.1", 0)


def test_the_pid_file_is_there_while_the_process_runs(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with announced_pid(path):
        expected = {"pid": os.getpid(), "start_time": start_ticks(os.getpid())}
        assert json.loads(path.read_text()) == expected
    assert not path.exists()


def test_a_private_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "connection.json"
    path.write_text("{}")
    path.chmod(0o644)
    former = os.umask(0)
    try:
        write_private(path, {"api_key": "tg_secret"})
    finally:
        os.umask(former)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_connection(path) == {"api_key": "tg_secret"}


def test_a_private_file_is_replaced_at_once_and_never_seen_half_written(tmp_path: Path) -> None:
    path = tmp_path / "connection.json"
    write_private(path, {"n": 1})
    with path.open() as reader:
        write_private(path, {"n": 2})
        assert json.load(reader) == {"n": 1}, "who had it open reads the former one whole"
    assert read_connection(path) == {"n": 2}


def test_a_private_file_that_cannot_be_written_leaves_the_former_and_no_draft(
    tmp_path: Path,
) -> None:
    path = tmp_path / "connection.json"
    write_private(path, {"n": 1})
    with pytest.raises(TypeError):
        write_private(path, {"n": object()})
    assert read_connection(path) == {"n": 1}
    assert [found.name for found in tmp_path.iterdir()] == ["connection.json"]


def test_a_draft_of_an_earlier_run_lends_its_mode_to_nobody(tmp_path: Path) -> None:
    path = tmp_path / "connection.json"
    draft = tmp_path / f".connection.json.{os.getpid()}"
    draft.write_text("old")
    draft.chmod(0o644)
    write_private(path, {"n": 1})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", None])
def test_a_connection_file_that_cannot_be_read_is_empty(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "connection.json"
    if content is not None:
        path.write_bytes(content)
    assert read_connection(path) == {}


async def test_answers_leave_at_once_instead_of_waiting_for_an_acknowledgement() -> None:
    """Nagle's algorithm and delayed acknowledgements would add 40 ms to each answer."""
    assert await _nodelay_of_accepted(listen("127.0.0.1", 0)) != 0


async def _nodelay_of_accepted(listener: socket.socket) -> int:
    found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted = writer.get_extra_info("socket")
        found.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(accept, sock=listener):
        _, writer = await asyncio.open_connection(*listener.getsockname())
        option = await found
        writer.close()
        await writer.wait_closed()
    return option


def test_a_connection_file_of_an_earlier_run_cannot_pass_for_this_ones_but_its_key_is_kept(
    tmp_path: Path,
) -> None:
    path = tmp_path / "connection.json"
    write_private(path, {"url": "http://127.0.0.1:1", "api_key": "tg_first"})
    set_aside(path)
    assert not path.exists()
    assert former_key(path) == "tg_first"
    set_aside(path)  # a run that ended before it was ready
    assert former_key(path) == "tg_first"
