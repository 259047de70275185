"""A disk that is full, or fails."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path

import pytest
from tests.faults import failpoints
from tests.faults.checker import check
from tests.faults.client import Client
from tests.faults.history import History
from tests.faults.house import House, await_ready, judge, key_of, url_of
from tests.faults.plane import LEASE_S
from tests.faults.replica import BIG, SLOW, answer_to

import tidegate_controlplane

DISK_BYTES = 3 * 1024 * 1024
OBJECT_POINTS = [
    name
    for name in failpoints.names(Path(tidegate_controlplane.__file__).parent)
    if name.startswith("object.")
]


@contextlib.contextmanager
def small_disk(place: Path):
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs takes root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(path: Path) -> None:
    """Until nothing more fits."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for size in (65536, 4096, 1):
            with contextlib.suppress(OSError):
                while os.write(descriptor, bytes(size)):
                    pass
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("prompt", "full_s"),
    [
        pytest.param("small", 0.0, id="row"),
        pytest.param(f"{BIG} " + "?" * 400, 0.0, id="object", marks=pytest.mark.soak),
        pytest.param("small", 6 * LEASE_S, id="long", marks=pytest.mark.soak),
    ],
)
def test_a_full_disk_refuses_new_work_keeps_what_it_has_and_recovers(
    prompt, full_s, fault_house: House, tmp_path, ledger
):
    """`full_s`: for longer than all attempts of a request may take, when each loses its lease."""
    with small_disk(tmp_path / "disk") as disk:
        start = fault_house.furnish(disk / "data")
        history = History(tmp_path / "history")
        client = Client(url_of(start), key_of(start), history)
        with contextlib.closing(client), fault_house.open(start) as supervisor:
            await_ready(start)
            fault_house.replica.asked.clear()
            before = [client.submit(f"{SLOW} {n}", f"before {n}") for n in range(6)]
            fill(disk / "filling")
            refused = until_refused(client, prompt)
            fill(disk / "filling")
            assert refused["code"] == "storage_full", refused
            assert all(client.get(f"/v1/invocations/{key}").status_code == 200 for key in before)
            time.sleep(full_s)
            (disk / "filling").unlink()
            after = [client.submit(f"after {n}", f"after {n}") for n in range(3)]
            client.finish([*before, *after])
            client.list_all()
            assert supervisor.ends == [], "it recovers without a restart"
        ledger.note("disk_full", check(history, answer_to))
    asked = {fault_house.replica.asked[f"{SLOW} {n}"] for n in range(6)}
    assert asked == {1}, "an answer waits until it can be kept"


def until_refused(client: Client, prompt: str) -> dict[str, object]:
    """Submit until the disk takes no more: the refusal."""
    for number in range(200):
        body = {"model": "m", "prompt": f"{prompt} {number}"}
        response = client._http.post("/v1/invocations", json=body)
        if response.status_code != 202:
            assert response.status_code == 503 and response.headers["retry-after"]
            return dict(response.json()["error"])
        accepted = response.json()["id"]
        client.history.add(
            "accepted", key=accepted, prompt=body["prompt"], id=accepted, keyed=False
        )
    raise AssertionError("the disk never filled")


@pytest.mark.soak
@pytest.mark.parametrize("action", ["eio", "enospc"])
@pytest.mark.parametrize("name", OBJECT_POINTS)
def test_an_error_at_each_step_of_an_object_loses_nothing(
    name, action, fault_house: House, data_dir, ledger
):
    faults = [f"{name}={action}@{at}" for at in (1, 3, 4)]
    verdict, supervisor = judge(fault_house, fault_house.furnish(data_dir), [faults])
    ledger.note("eio_object", verdict)
    assert supervisor.ends == [0]
