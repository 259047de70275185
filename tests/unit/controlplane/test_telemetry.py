"""How the control plane begins to tell what it does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tidegate.protocol.replica import Telemetry
from tidegate_controlplane.provision.log import last_line
from tidegate_controlplane.provision.zygote_starter import zygote_command

WITHOUT_AN_ENDPOINT = """
import sys
import tidegate_controlplane.process, tidegate_runtime.server.process
from tidegate.telemetry.traces import open_tracer
tracer = open_tracer(None, "x")
caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
assert dict(tracer.begin("a", {"traceparent": caller}).headers) == {}
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""
WITHOUT_THE_EXTRA = """
import sys
sys.modules["opentelemetry"] = None
from tidegate_controlplane.__main__ import main
sys.argv = ["x", "--data", "/nonexistent/x", "--otlp-endpoint", "http://127.0.0.1:1"]
raise SystemExit(main())
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported() -> None:
    done = run(WITHOUT_AN_ENDPOINT)
    assert done.returncode == 0, done.stderr


def test_an_endpoint_without_the_extra_is_refused_with_the_command_to_run() -> None:
    done = run(WITHOUT_THE_EXTRA)
    assert done.returncode == 1
    assert "pip install 'tidegate[otel]'" in done.stderr.splitlines()[-1]
    assert "http://127.0.0.1:1" in done.stderr


def test_a_zygote_imports_what_traces_want_only_when_they_are_sent() -> None:
    assert "--traces" not in zygote_command(Telemetry())
    command = zygote_command(Telemetry(log_format="text", otlp_endpoint="http://127.0.0.1:4318"))
    assert command[-3:] == ("--log-format", "text", "--traces")


def test_a_replica_s_last_line_is_told_in_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        '{"time": "t", "level": "error", "message": "it failed", "error": "Traceback\\nE: why"}\n'
    )
    assert last_line(log) == "it failed: E: why"
    log.write_text("Fatal Python error: Aborted\n")
    assert last_line(log) == "Fatal Python error: Aborted"
