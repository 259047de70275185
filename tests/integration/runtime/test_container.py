"""The image's entry point as SageMaker starts it, without the image."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.provision.aws.conftest import aws_launch
from tests.ports import free_port

from tidegate.protocol.resources import PlannedDraft, PlannedHeads
from tidegate.spec import SpeculationSpec
from tidegate_controlplane.models.heads import read_heads
from tidegate_controlplane.provision.aws.program import BROUGHT
from tidegate_controlplane.provision.aws.program import environment as aws_environment

COMMAND = [sys.executable, "-m", "tidegate_runtime.container"]
DRAFTED = "vllm:spec_decode_num_draft_tokens_total"
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
CHAT = {"model": "test-model", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}


@dataclass
class Container:
    process: subprocess.Popen[bytes]
    url: str
    first_ping: int


def environment(directory: Path, **told: str) -> dict[str, str]:
    """What a container sees: nothing of this process's own but where Python finds things."""
    kept = {key: os.environ[key] for key in ("PATH", "PYTHONPATH", "HOME") if key in os.environ}
    return {**kept, "TIDEGATE_CACHE_DIR": str(directory), "TIDEGATE_DEVICE": "cpu", **told}


@pytest.fixture(scope="module")
def container(
    tiny_llama: Path, artifact_of: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Container]:
    directory = tmp_path_factory.mktemp("container")
    with running(directory, SM_MODEL_DIR=str(artifact_of(tiny_llama))) as started:
        yield started


@contextmanager
def running(directory: Path, **told: str) -> Iterator[Container]:
    """One that serves; its log and its cache are in `directory`."""
    port = free_port()
    seen = environment(directory, TIDEGATE_PORT=str(port), **told)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([*COMMAND, "serve"], env=seen, stderr=log, stdout=log)
    try:
        url = f"http://127.0.0.1:{port}"
        yield Container(process, url, wait_for_ping(url, process, directory / "log"))
    finally:
        process.kill()
        process.wait()


def wait_for_ping(url: str, process: subprocess.Popen[bytes], log: Path) -> int:
    """What /ping says first; returns when it says 200."""
    first = 0
    deadline = time.monotonic() + 400
    while (status := ping(url)) != 200:
        first = first or status
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    return first


def ping(url: str) -> int:
    try:
        return httpx.get(f"{url}/ping").status_code
    except httpx.ConnectError:
        return 0


def invoke(container: Container, body: Any, attributes: str | None = None) -> httpx.Response:
    headers = {} if attributes is None else {ATTRIBUTES: attributes}
    return httpx.post(f"{container.url}/invocations", json=body, headers=headers, timeout=60)


def test_ping_is_503_while_the_model_loads(container: Container) -> None:
    assert container.first_ping == 503


def test_an_invocation_is_the_request_that_its_attributes_say(container: Container) -> None:
    told = "path=/v1/chat/completions;project=p1;priority=0;request_id=r1"
    answer = invoke(container, CHAT, told)
    assert answer.status_code == 200, answer.text
    assert answer.json()["object"] == "chat.completion"


@pytest.mark.parametrize(
    ("body", "status", "found"),
    [
        (CHAT, 200, '"object":"chat.completion"'),
        (
            {"model": "test-model", "prompt": "hello", "max_tokens": 4},
            200,
            '"object":"text_completion"',
        ),
        ({"model": "test-model", "input": "hello"}, 400, "makes no embeddings"),
        ({"model": "test-model"}, 400, "the body has none of messages, prompt, input"),
        ([], 400, "the body has none of"),
        (CHAT | {"prompt": "x"}, 400, "the body has messages and prompt of"),
    ],
)
def test_without_attributes_the_shape_of_the_body_decides(
    container: Container, body: Any, status: int, found: str
) -> None:
    answer = invoke(container, body)
    assert (answer.status_code, found in answer.text) == (status, True), answer.text


def test_a_streamed_invocation_comes_in_pieces(container: Container) -> None:
    answer = invoke(container, CHAT | {"stream": True})
    events = [line for line in answer.text.splitlines() if line]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert len(events) > 4
    assert events[-1] == "data: [DONE]"
    assert json.loads(events[0].removeprefix("data: "))["object"] == "chat.completion.chunk"


def test_what_may_not_be_asked_is_refused_by_name(container: Container) -> None:
    assert "'/drain' is no route" in invoke(container, CHAT, "path=/drain").text
    large = httpx.post(f"{container.url}/invocations", content=b" " * (9 << 20), timeout=60)
    assert large.status_code == 413
    wrong = httpx.get(f"{container.url}/invocations")
    assert (wrong.status_code, "use POST" in wrong.text) == (405, True)


def test_only_invocations_come_in_from_elsewhere_without_a_token(container: Container) -> None:
    elsewhere = {"host": "10.0.0.7:8080"}
    ours = httpx.post(f"{container.url}/v1/chat/completions", json=CHAT, timeout=60)
    assert ours.status_code == 200
    for method, path in (("POST", "/drain"), ("GET", "/metrics"), ("GET", "/v1/models")):
        refused = httpx.request(method, f"{container.url}{path}", headers=elsewhere)
        assert refused.status_code == 403
    invoked = httpx.post(f"{container.url}/invocations", json=CHAT, headers=elsewhere, timeout=60)
    assert invoked.status_code == 200


def test_sigterm_drains_what_is_in_flight(container: Container) -> None:
    body = CHAT | {"stream": True, "max_tokens": 400, "ignore_eos": True}
    with httpx.stream("POST", f"{container.url}/invocations", json=body, timeout=60) as stream:
        lines = stream.iter_lines()
        next(lines)
        container.process.send_signal(signal.SIGTERM)
        assert "data: [DONE]" in list(lines)
    assert container.process.wait(60) == 0


def test_a_bad_variable_ends_the_container_with_3(tmp_path: Path) -> None:
    told = environment(tmp_path, TIDEGATE_MODEL_NAME="m", TIDEGATE_PRECISION="int3")
    done = subprocess.run(COMMAND, env=told, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "TIDEGATE_PRECISION: 'int3'" in done.stderr


def test_a_job_that_is_stopped_before_it_begins_is_not_done(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        told = environment(
            tmp_path,
            TIDEGATE_MODEL_NAME="m",
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{silent.getsockname()[1]}",
            AWS_ACCESS_KEY_ID="any",
            AWS_SECRET_ACCESS_KEY="any",
            AWS_DEFAULT_REGION="us-east-1",
        )
        process = subprocess.Popen([*COMMAND, "batch", "s3://b/in/", "s3://b/out/"], env=told)
        silent.settimeout(60)
        asking, _ = silent.accept()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 1
        asking.close()


def random_heads(root: Path, hidden: int, vocabulary: int) -> PlannedHeads:
    """Heads that have learnt nothing, as a plan finds them."""
    import torch

    from tidegate_runtime.distill.learner import OwnExit, new_learner
    from tidegate_runtime.speculation.heads import HeadsManifest, write_heads

    table = torch.randn(vocabulary, hidden, generator=torch.Generator().manual_seed(1))
    own = OwnExit(torch.ones(hidden), 1e-6, table, table)
    learner = new_learner("medusa", own, torch.arange(vocabulary).int(), 2, seed=1)
    sizes = {"hidden": hidden, "vocabulary": vocabulary, "shortlist": vocabulary, "levels": 2}
    said = {"format": 1, "method": "medusa", "exit_layer": None, "epsilon": 1e-6, "model": "tiny"}
    of = {"model_digest": "", "precision": "int8", "text": "", "trained_tokens": 0}
    seen = {"acceptance": [], "untrained_acceptance": []}
    root.mkdir()
    manifest = HeadsManifest.model_validate({**sizes, **said, **of, **seen})
    write_heads(root, manifest, learner.learnt().packed())
    return read_heads(str(root)).planned


@pytest.mark.parametrize("channel", ["draft_model", "heads"])
def test_what_a_plan_for_aws_says_serves_from_what_is_brought(
    channel: str, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    brought = tmp_path / "brought"
    if channel == "heads":
        brought.mkdir()
        asked = SpeculationSpec(method="medusa", heads="s3://models/heads")
        beside: dict[str, Any] = {"heads": random_heads(brought / channel, 32, 257)}
    else:
        asked = SpeculationSpec(method="draft", draft_model="s3://models/small")
        shutil.copytree(tiny("Llama", num_hidden_layers=1), brought / channel)
        draft = PlannedDraft(
            digest="sha256:etags", precision="int8", weights_bytes=1, kv_cache_bytes=1 << 20
        )
        beside = {"draft": draft}
    fields = {"precision": "int8", "kv_cache_bytes": 1 << 20, "kv_spill": None, "threads": 1}
    plan = aws_launch().plan.model_copy(update={**fields, "speculation": asked, **beside})
    told = aws_environment(replace(aws_launch(), plan=plan, digest="sha256:etags"))
    there = {key: text.replace(BROUGHT, str(brought)) for key, text in told.items()}
    with running(tmp_path, SM_MODEL_DIR=str(tiny("Llama")), **there) as container:
        body = {"model": "smol", "prompt": "hello", "max_tokens": 40, "ignore_eos": True}
        assert invoke(container, body).status_code == 200
        lines = httpx.get(f"{container.url}/metrics").text.splitlines()
        (drafted,) = (line for line in lines if line.startswith(DRAFTED))
        assert float(drafted.split()[-1]) > 0
