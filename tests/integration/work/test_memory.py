"""What a large body costs in memory: real processes, over real sockets."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tidegate.protocol.work import MAX_BATCH_BYTES, MAX_BATCH_LINES

MIB = 1 << 20
Found = dict[str, Any]
PROGRAM = Path(__file__).with_name("large_process.py")


@contextmanager
def program(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin and process.stdout
    try:
        said = process.stdout.readline()
        assert said, "it did not start"
        yield process, json.loads(said)
    finally:
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def peak_bytes(process: subprocess.Popen[bytes]) -> int:
    """The most that the process ever had resident."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def body(items: int, item_bytes: int) -> Iterator[bytes]:
    """An embedding request of so many texts, its `model` at its end."""
    yield b'{"input":['
    item = b'"' + b"x" * item_bytes + b'"'
    for number in range(items):
        yield (b"," if number else b"") + item
    yield b'],"model":"e"}'


def through(client: httpx.Client, items: int, item_bytes: int) -> int:
    """Send a body, follow it to its end, and read its answer; the answer's bytes."""
    sent = client.post("/v1/invocations", content=body(items, item_bytes))
    assert sent.status_code == 202, sent.text
    url = f"/v1/invocations/{sent.json()['id']}"
    with client.stream("GET", f"{url}/events") as events:
        last = [line for line in events.iter_lines() if line.startswith("data: {")][-1]
    invocation = json.loads(last.removeprefix("data: "))["invocation"]
    assert invocation["status"] == "succeeded", invocation
    with client.stream("GET", f"{url}/result") as result:
        received = sum(len(piece) for piece in result.iter_bytes())
    assert received == invocation["result_bytes"] == int(result.headers["content-length"])
    return received


@contextmanager
def platform(tmp_path: Path, floats: int) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """A control plane whose replica answers each text with so many numbers, and its client."""
    with (
        program("replica", str(floats)) as (_, replica),
        program("plane", str(tmp_path), replica["url"]) as (plane, said),
        httpx.Client(
            base_url=said["url"],
            headers={"authorization": f"Bearer {said['key']}"},
            timeout=900,
            trust_env=False,
        ) as client,
    ):
        yield plane, client


def growth(tmp_path: Path, items: int, item_bytes: int, floats: int) -> tuple[int, int]:
    """How far the control plane grew, and the bytes of the answer."""
    with platform(tmp_path, floats) as (plane, client):
        through(client, 100, 1000)  # what is imported and made once
        before = peak_bytes(plane)
        answered = through(client, items, item_bytes)
        print(f"grown {(peak_bytes(plane) - before) / MIB:.1f} MiB, answered {answered / MIB:.1f}")
        return peak_bytes(plane) - before, answered


@pytest.mark.soak
def test_forty_mebibytes_in_and_more_out_cost_a_part_of_that(tmp_path: Path) -> None:
    grown, answered = growth(tmp_path, items=640, item_bytes=64 * 1024, floats=4000)
    assert answered > 40 * MIB
    assert grown < 20 * MIB


@pytest.mark.soak
def test_a_gibibyte_in_and_another_out_cost_less_than_64_mebibytes(tmp_path: Path) -> None:
    grown, answered = growth(tmp_path, items=16_383, item_bytes=64 * 1024, floats=4000)
    assert answered > 1024 * MIB
    assert grown < 64 * MIB


def batch_file(path: Path, lines: int, size_bytes: int) -> Path:
    """So many requests, each for one text, that fill a file of that size."""
    with path.open("wb") as file:
        for number in range(lines):
            end = size_bytes * (number + 1) // lines
            file.write(batch_line(number, end - file.tell()))
    assert path.stat().st_size == size_bytes
    return path


def batch_line(number: int, length_bytes: int) -> bytes:
    head = f'{{"custom_id":"line-{number}","method":"POST","url":"/v1/embeddings",'
    head += '"body":{"model":"e","input":["'
    tail = '"]}}\n'
    return (head + "x" * (length_bytes - len(head) - len(tail)) + tail).encode()


def upload(client: httpx.Client, path: Path) -> httpx.Response:
    with path.open("rb") as file:
        return client.post("/v1/files", files={"file": file}, data={"purpose": "batch"})


def begin_batch(client: httpx.Client, path: Path) -> str:
    """Upload a file and begin a batch over it; the batch's id."""
    sent = upload(client, path)
    assert sent.status_code == 200, sent.text
    wanted = {"endpoint": "/v1/embeddings", "completion_window": "24h"}
    began = client.post("/v1/batches", json={"input_file_id": sent.json()["id"], **wanted})
    assert began.status_code == 200, began.text
    return str(began.json()["id"])


def batch_when(
    client: httpx.Client, batch_id: str, holds: Callable[[Found], bool], within_s: float = 1800
) -> Found:
    deadline = time.monotonic() + within_s
    while not holds(batch := client.get(f"/v1/batches/{batch_id}").json()):
        assert time.monotonic() < deadline, batch
        time.sleep(0.5)
    return dict(batch)


def has_ended(batch: Found) -> bool:
    return batch["status"] in ("completed", "failed", "expired", "cancelled")


def run_batch(client: httpx.Client, path: Path) -> Found:
    return batch_when(client, begin_batch(client, path), has_ended)


def lines_of(client: httpx.Client, file_id: str) -> Iterator[Found]:
    with client.stream("GET", f"/v1/files/{file_id}/content") as content:
        yield from map(json.loads, content.iter_lines())


@pytest.mark.soak
def test_a_batch_as_large_as_one_may_be_costs_less_than_64_mebibytes(tmp_path: Path) -> None:
    """It is taken, begun and cancelled: running all of it would tell nothing more of memory."""
    path = batch_file(tmp_path / "in.jsonl", MAX_BATCH_LINES, MAX_BATCH_BYTES)
    with platform(tmp_path, floats=8) as (plane, client):
        run_batch(client, batch_file(tmp_path / "small.jsonl", 10, 2000))
        before = peak_bytes(plane)
        batch_id = begin_batch(client, path)
        batch_when(client, batch_id, lambda batch: batch["request_counts"]["completed"] >= 500)
        client.post(f"/v1/batches/{batch_id}/cancel")
        batch = batch_when(client, batch_id, has_ended)
        answered = [line["custom_id"] for line in lines_of(client, batch["output_file_id"])]
        left = [line["custom_id"] for line in lines_of(client, batch["error_file_id"])]
        grown = peak_bytes(plane) - before
        print(f"grown {grown / MIB:.1f} MiB; {len(answered)} answered, {len(left)} cancelled")
    assert batch["request_counts"]["total"] == MAX_BATCH_LINES
    assert batch["request_counts"]["completed"] == len(answered) >= 500
    assert sorted([*answered, *left]) == sorted(f"line-{n}" for n in range(MAX_BATCH_LINES))
    assert grown < 64 * MIB


@pytest.mark.soak
def test_a_batch_beyond_its_limits_is_refused_and_costs_no_memory(tmp_path: Path) -> None:
    longer = batch_file(tmp_path / "longer.jsonl", MAX_BATCH_LINES + 1, 10_000_000)
    larger = batch_file(tmp_path / "larger.jsonl", 1000, MAX_BATCH_BYTES + 1)
    with platform(tmp_path, floats=8) as (plane, client):
        run_batch(client, batch_file(tmp_path / "small.jsonl", 10, 2000))
        before = peak_bytes(plane)
        refused = upload(client, larger)
        failed = run_batch(client, longer)
        grown = peak_bytes(plane) - before
        print(f"grown {grown / MIB:.1f} MiB: {refused.text} {failed['errors']}")
    assert refused.status_code == 413
    assert failed["status"] == "failed"
    assert "50000" in failed["errors"]["data"][0]["message"].replace(",", "")
    assert grown < 64 * MIB
