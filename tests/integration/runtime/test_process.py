"""How a replica process starts, ends and is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest


def chat(**fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "hello"}]
    return {"model": "test-model", "messages": messages, **fields}


def long_chat(tokens: int) -> dict[str, Any]:
    return chat(max_tokens=tokens, ignore_eos=True, stream=True, temperature=0)


def test_it_answers_health_while_it_loads_and_says_each_state(
    spawn: Callable[..., Any], tiny_llama: Path
) -> None:
    replica = spawn(environment={}, source=str(tiny_llama), model_name="test-model")
    replica.wait_for("loading")
    started = time.monotonic()
    while True:
        try:
            alive = httpx.get(replica.url + "/healthz")
            break
        except httpx.ConnectError:
            assert time.monotonic() - started < 60
    loading = httpx.get(replica.url + "/readyz")
    assert alive.status_code == 200
    assert (loading.status_code, loading.json()["state"]) == (503, "loading")
    with replica.client() as client:
        early = client.post("/v1/chat/completions", json=chat())
        assert early.status_code == 503
        assert early.headers["retry-after"]
    assert replica.wait_for("ready")["pid"] == replica.process.pid
    assert httpx.get(replica.url + "/readyz").status_code == 200
    replica.process.send_signal(signal.SIGTERM)
    assert replica.process.wait(60) == 0
    assert replica.status["state"] == "draining"


def test_a_drain_finishes_what_is_in_flight_refuses_the_rest_and_exits_0(
    spawn: Callable[..., Any], tiny_llama: Path
) -> None:
    replica = spawn(source=str(tiny_llama))
    replica.wait_for("ready")
    with (
        replica.client() as client,
        replica.client() as other,
        client.stream("POST", "/v1/chat/completions", json=long_chat(400)) as stream,
    ):
        lines = stream.iter_lines()
        next(lines)
        assert other.post("/drain").status_code == 202
        late = other.post("/v1/chat/completions", json=chat())
        assert late.status_code == 503
        assert late.headers["retry-after"]
        assert httpx.get(replica.url + "/readyz").json()["state"] == "draining"
        rest = list(lines)
    assert "data: [DONE]" in rest
    assert '"finish_reason":"length"' in rest[-5] + rest[-4] + rest[-3]
    assert replica.process.wait(60) == 0


def test_what_outlasts_the_drain_deadline_ends_in_an_error_event(
    spawn: Callable[..., Any], gguf: Path, real: Any
) -> None:
    replica = spawn(source=str(gguf), precision="bf16", drain_s=0.3)
    replica.wait_for("ready")
    with (
        replica.client() as client,
        client.stream("POST", "/v1/chat/completions", json=long_chat(4000)) as stream,
    ):
        lines = stream.iter_lines()
        next(lines)
        replica.process.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]
    assert "drain_s 0.3" in json.loads(rest[-1].removeprefix("data: "))["error"]["message"]
    assert "data: [DONE]" not in rest
    assert replica.process.wait(60) == 0


def make_directory(root: Path, kind: str) -> Path:
    root.mkdir(exist_ok=True)
    if kind == "pickled":
        (root / "config.json").write_text("{}")
        (root / "pytorch_model.bin").write_bytes(b"x")
    if kind == "remote code":
        (root / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "a.B"}}))
        (root / "model.safetensors").write_bytes(b"x")
    if kind == "unknown architecture":
        (root / "config.json").write_text(json.dumps({"model_type": "nonesuch"}))
        (root / "model.safetensors").write_bytes(b"x")
    return root


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("empty", "NotAModel"),
        ("pickled", "PickledWeights"),
        ("remote code", "RemoteCode"),
        ("unknown architecture", "UnsupportedModel"),
    ],
)
def test_a_directory_that_must_not_be_served_is_refused_with_exit_3(
    spawn: Callable[..., Any], tmp_path: Path, kind: str, reason: str
) -> None:
    replica = spawn(source=str(make_directory(tmp_path / "model", kind)))
    assert replica.process.wait(60) == 3
    assert (replica.status["state"], replica.status["reason"]) == ("failed", reason)
    assert str(tmp_path / "model") in replica.status["message"]


def test_a_missing_source_is_refused_with_exit_3(spawn: Callable[..., Any], tmp_path: Path) -> None:
    replica = spawn(source=str(tmp_path / "nothing"))
    assert replica.process.wait(60) == 3
    assert replica.status["reason"] == "SourceNotFound"


def test_a_configuration_that_is_wrong_is_refused_with_its_field(
    spawn: Callable[..., Any],
) -> None:
    replica = spawn(source="x", max_sequences=0)
    assert replica.process.wait(60) == 3
    assert replica.status["reason"] == "BadConfig"
    assert "max_sequences" in replica.status["message"]


def test_a_replica_without_a_token_is_refused(spawn: Callable[..., Any]) -> None:
    replica = spawn({"TIDEGATE_REPLICA_TOKEN": ""}, source="x")
    assert replica.process.wait(60) == 3
    assert replica.status["reason"] == "TokenMissing"


def test_a_taken_port_is_named_and_may_be_tried_again(spawn: Callable[..., Any]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        replica = spawn(source="x", port=port)
        assert replica.process.wait(60) == 1
    assert replica.status["reason"] == "PortTaken"
    assert str(port) in replica.status["message"]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pid: int, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while is_running(pid):
        assert time.monotonic() < deadline, f"process {pid} outlived its parent"
        time.sleep(0.02)


PARENT = """
import json, os, subprocess, sys, time
path = sys.argv[1]
config = json.load(open(path))
config["parent_pid"] = os.getpid()
json.dump(config, open(path, "w"))
child = subprocess.Popen([sys.executable, "-m", "tidegate_runtime.server", "--config", path])
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("state", ["loading", "ready"])
def test_it_dies_with_a_parent_that_was_killed(
    tmp_path: Path, cache_dir: Path, tiny_llama: Path, state: str
) -> None:
    status = tmp_path / "status.json"
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(
            {
                "replica_id": "r1",
                "model_name": "m",
                "source": str(tiny_llama),
                "status_path": str(status),
                "cache_dir": str(cache_dir),
                "precision": "bf16",
            }
        )
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(config)],
        env={**os.environ, "TIDEGATE_REPLICA_TOKEN": "t"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        deadline = time.monotonic() + 60
        while not (status.exists() and json.loads(status.read_text())["state"] == state):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        parent.kill()
        parent.wait()
        wait_until_gone(pid, 60)


def test_a_replica_whose_parent_is_already_another_does_not_start(
    spawn: Callable[..., Any],
) -> None:
    replica = spawn(source="x", parent_pid=1)
    assert replica.process.wait(60) == 1
    assert replica.status == {}


def test_a_request_larger_than_the_cache_is_refused_and_its_neighbour_goes_on(
    spawn: Callable[..., Any], tiny_llama: Path
) -> None:
    block_bytes = 3 * 2 * (8 + 8) * 2 * 16
    replica = spawn(source=str(tiny_llama), kv_cache_bytes=8 * block_bytes)
    replica.wait_for("ready")
    texts: list[str] = []

    def neighbour() -> None:
        with replica.client() as client:
            body = {**chat(max_tokens=80, ignore_eos=True, temperature=0)}
            made = client.post("/v1/chat/completions", json=body).json()
            texts.append(made["choices"][0]["message"]["content"])

    neighbour()
    with replica.client() as client:
        beside = threading.Thread(target=neighbour)
        beside.start()
        for _ in range(5):
            response = client.post("/v1/chat/completions", json=chat(max_tokens=200))
            assert response.status_code == 400
            assert response.json()["error"]["code"] == "kv_cache_exceeded"
        beside.join()
        silent = client.post("/v1/chat/completions", json=chat(ignore_eos=True)).json()
    assert texts[0] == texts[1]
    assert silent["usage"]["total_tokens"] == 128


def test_a_model_without_a_chat_template_points_to_completions(
    spawn: Callable[..., Any], tiny: Callable[..., Path]
) -> None:
    replica = spawn(source=str(tiny("Llama", chat=False)), context_tokens=64)
    assert replica.wait_for("ready")
    with replica.client() as client:
        error = client.post("/v1/chat/completions", json=chat()).json()["error"]
        assert error["code"] == "no_chat_template"
        assert "/v1/completions" in error["message"]
        body = {"model": "test-model", "prompt": "x" * 70}
        assert client.post("/v1/completions", json=body).status_code == 400
    assert httpx.get(replica.url + "/readyz").json()["context_tokens"] == 64


POISONS = {
    "loop": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "memory": "{{ 'a' * 10**10 }}",
    "attribute": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "file": "{% include '/etc/passwd' %}",
}


def test_a_poisoned_chat_template_is_refused_and_harms_nobody(
    spawn: Callable[..., Any], tiny: Callable[..., Path]
) -> None:
    root = tiny("Llama", chat=False)
    cases = "".join(
        f"{{% if messages[0].content == '{name}' %}}{poison}{{% endif %}}"
        for name, poison in POISONS.items()
    )
    (root / "chat_template.jinja").write_text(cases + "{{ messages[0].content }}")
    replica = spawn(source=str(root))
    assert replica.wait_for("ready")
    body = {"model": "test-model", "prompt": "x", "max_tokens": 64, "temperature": 0}
    harmless = {**body, "messages": [{"role": "user", "content": "x"}]}
    del harmless["prompt"]
    said = {}
    with replica.client() as client:
        alone = client.post("/v1/completions", json=body).json()["choices"][0]["text"]
        for poison in POISONS:
            asked = {**harmless, "messages": [{"role": "user", "content": poison}]}
            with ThreadPoolExecutor(1) as beside:
                refused = beside.submit(client.post, "/v1/chat/completions", json=asked)
                made = client.post("/v1/completions", json=body).json()
                assert made["choices"][0]["text"] == alone
                error = refused.result().json()["error"]
            assert refused.result().status_code == 400
            said[poison] = (error["code"], error["message"])
            after = client.post("/v1/chat/completions", json=harmless).json()
            assert after["choices"][0]["message"]["content"] == alone
    assert said["loop"][0] == "chat_template_stopped"
    # 2 s of a processor, which takes longer beside others, or 10 s of the clock.
    assert re.search(r"ran for more than (2|10) s", said["loop"][1])
    assert {said[poison][0] for poison in POISONS if poison != "loop"} == {"chat_template_error"}
    assert "memory" in said["memory"][1]
    assert "'__class__'" in said["attribute"][1]
    assert "no loader" in said["file"][1]
    assert replica.status["state"] == "ready"
