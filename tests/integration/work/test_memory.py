"""What a large body costs in memory: real processes, over real sockets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

MIB = 1 << 20
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


def growth(tmp_path: Path, items: int, item_bytes: int, floats: int) -> tuple[int, int]:
    """How far the control plane grew, and the bytes of the answer."""
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
        through(client, 100, 1000)  # what is imported and made once
        before = peak_bytes(plane)
        answered = through(client, items, item_bytes)
        print(f"grown {(peak_bytes(plane) - before) / MIB:.1f} MiB, answered {answered / MIB:.1f}")
        return peak_bytes(plane) - before, answered


def test_forty_mebibytes_in_and_more_out_cost_a_part_of_that(tmp_path: Path) -> None:
    grown, answered = growth(tmp_path, items=640, item_bytes=64 * 1024, floats=4000)
    assert answered > 40 * MIB
    assert grown < 20 * MIB


@pytest.mark.soak
def test_a_gibibyte_in_and_another_out_cost_less_than_64_mebibytes(tmp_path: Path) -> None:
    grown, answered = growth(tmp_path, items=16_383, item_bytes=64 * 1024, floats=4000)
    assert answered > 1024 * MIB
    assert grown < 64 * MIB
