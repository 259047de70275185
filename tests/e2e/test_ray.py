"""One line moves a deployment from this machine to a Ray cluster; a node dies under its streams.

The real CLI, control plane, model and Ray; the cluster's nodes are all on this machine.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.platform import PARIS, Platform, start, stop
from tests.integration.provision.ray_cluster import Machines, machines

pytest.importorskip("ray", reason="the extra ray is not installed")
pytestmark = pytest.mark.soak
EXAMPLE = Path(__file__).parents[2] / "examples" / "deployment.yaml"
STREAMS = 50
TOKENS = 24
PATIENCE_S = 400.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    root = tmp_path_factory.mktemp("cluster")
    with machines(root, "a", "b", memory=4 * 2**30, object_store_memory=200 * 2**20) as made:
        yield made


@pytest.fixture
def platform_on_ray(cluster: Machines, tmp_path: Path) -> Iterator[Platform]:
    settings = tmp_path / "tidegate.yaml"
    settings.write_text(f"ray:\n  address: {cluster.cluster.address}\n")
    running = start(tmp_path / "data", tmp_path / "config", "--config", str(settings))
    yield running
    stop(running)


def until(holds: Callable[[], Any]) -> Any:
    give_up = time.monotonic() + PATIENCE_S
    while not (found := holds()):
        assert time.monotonic() < give_up
        time.sleep(0.05)
    return found


def replicas(http: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = http.get("/api/v1/deployments/smol/replicas").json()["data"]
    return found


def ready(http: httpx.Client, *, on_ray: bool) -> list[dict[str, Any]]:
    return [
        each
        for each in replicas(http)
        if each["phase"] == "ready" and bool(each["where"]) is on_ray
    ]


def asked(http: httpx.Client) -> str:
    body = {"model": "smol", "messages": [{"role": "user", "content": PARIS}], "temperature": 0}
    answer = http.post("/v1/chat/completions", json=body | {"max_tokens": 20}, timeout=PATIENCE_S)
    assert answer.is_success, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def streamed(http: httpx.Client, number: int) -> str:
    """How a stream ended."""
    body = {
        "model": "smol",
        "messages": [{"role": "user", "content": f"Tell me about the number {number}."}],
        "max_tokens": TOKENS,
        "stream": True,
    }
    try:
        answer = http.post("/v1/chat/completions", json=body, timeout=PATIENCE_S)
    except httpx.HTTPError as error:
        return repr(error)
    events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    if answer.status_code == 200 and events[-1:] == ["[DONE]"]:
        return "whole"
    if answer.status_code == 200 and events and "error" in json.loads(events[-1]):
        return "cut"
    return f"{answer.status_code} {answer.text[-200:]}"


def test_the_same_declaration_serves_locally_and_on_a_cluster_that_loses_a_node(
    cluster: Machines, platform_on_ray: Platform, smollm2: str, tmp_path: Path
) -> None:
    text = EXAMPLE.read_text()
    text = re.sub(r"^model: \S+", f"model: {smollm2}", text, flags=re.MULTILINE)
    text = text.replace("min_replicas: 0", "min_replicas: 2").replace("512MiB", "128MiB")
    text = text.replace("memory: 4GiB", "memory: 4GiB\n  cpu: 1")
    file = tmp_path / "deployment.yaml"
    file.write_text(text)
    platform_on_ray.cli("apply", "-f", str(file))
    with platform_on_ray.http() as http:
        http.timeout = httpx.Timeout(PATIENCE_S)
        until(lambda: len(ready(http, on_ray=False)) == 2)
        here = asked(http)
        begun = time.monotonic()
        file.write_text(text.replace("provisioner: local", "provisioner: ray"))
        platform_on_ray.cli("apply", "-f", str(file))
        until(lambda: len(ready(http, on_ray=True)) == 2 and not ready(http, on_ray=False))
        moved_s = time.monotonic() - begun
        there = asked(http)
        events = http.get("/api/v1/deployments/smol/events?limit=100").json()["data"]
        copies = [each["message"] for each in events if each["reason"] == "Copied"]
        homes = {each["id"]: cluster.home(each["id"]) for each in ready(http, on_ray=True)}
        with ThreadPoolExecutor(STREAMS) as threads:
            streams = [threads.submit(streamed, http, number) for number in range(STREAMS)]
            lost = next(key for key, home in homes.items() if home == "a")

            def in_flight() -> int:
                return next(int(r["in_flight"]) for r in replicas(http) if r["id"] == lost)

            on_it = until(in_flight)
            time.sleep(2.0)
            killed_at = time.monotonic()
            cluster.lose("a")
            until(lambda: any(r["phase"] == "failed" for r in replicas(http) if r["id"] == lost))
            noticed_s = time.monotonic() - killed_at
            until(lambda: len(ready(http, on_ray=True)) == 2)
            replaced_s = time.monotonic() - killed_at
            ends = Counter(stream.result() for stream in streams)
        assert asked(http) == there
    log = platform_on_ray.cli("logs", "smol")
    print(
        f"local said {here!r}; on Ray {there!r}; moved in {moved_s:.1f} s; {copies}; "
        f"{on_it} streams on the node; noticed after {noticed_s:.2f} s, replaced after "
        f"{replaced_s:.2f} s; streams ended {dict(ends)}; {len(log.splitlines())} lines of logs"
    )
    assert here == there
    assert set(ends) <= {"whole", "cut"}
    assert 0 < ends["cut"] < STREAMS
    assert any("its artifact" in copy for copy in copies)
    assert log.strip()
