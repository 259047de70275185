"""One fault run: a data directory, a supervised control plane on it, a client, and the verdict."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
from tests.faults.checker import Verdict, check
from tests.faults.client import Client
from tests.faults.history import History
from tests.faults.nursery import Nursery, Process, Supervisor
from tests.faults.plane import Start
from tests.faults.replica import BIG, FLAKY, MODEL, SLOW, Replica, answer_to
from tests.ports import free_port
from tests.tiny_model import write_tiny_model

PROMPTS = ("one", "two", "three", f"{BIG} question" + "?" * 400, f"{SLOW} one", f"{FLAKY} one")
LINES = ("a", "b", "c", f"{BIG} line" + "?" * 400, "d", f"{FLAKY} line", "e", "f", "g", "h")
READY_S = 60.0


@dataclass(frozen=True)
class House:
    """Where fault runs take place."""

    nursery: Nursery
    template: Path
    """A data directory in which the model is deployed."""
    model: Path
    replica: Replica
    replica_url: str

    def furnish(self, data_dir: Path) -> Start:
        """A data directory of its own, and how a control plane is started on it."""
        shutil.copytree(self.template, data_dir)
        return Start(str(data_dir), free_port(), self.replica_url)

    @contextlib.contextmanager
    def open(self, start: Start, lives: list[list[str]] | None = None) -> Iterator[Supervisor]:
        supervisor = Supervisor(self.nursery, start, lives or [])
        try:
            yield supervisor
        finally:
            supervisor.stop()


@contextlib.contextmanager
def house(folder: Path, nursery: Nursery) -> Iterator[House]:
    """`folder` takes the model and the template."""
    replica = Replica()
    template = folder / "template"
    with replica.serving() as url:
        _deploy(nursery, Start(str(template), free_port(), url), folder / "model")
        yield House(nursery, template, folder / "model", replica, url)


def _deploy(nursery: Nursery, start: Start, model: Path) -> None:
    write_tiny_model(model)
    process = nursery.start(start)
    await_ready(start, process)
    declare(start, model)
    process.send(signal.SIGTERM)
    assert process.wait() == 0, (Path(start.data_dir) / "log").read_text()
    (Path(start.data_dir) / "log").unlink()


def declare(start: Start, model: Path) -> None:
    """Deploy the model on a platform that is ready."""
    spec = {
        "name": MODEL,
        "model": {"source": str(model)},
        "mode": "realtime",
        "scaling": {"min_replicas": 1, "max_replicas": 1},
    }
    headers = {"authorization": f"Bearer {key_of(start)}"}
    url = f"{url_of(start)}/api/v1/deployments/{MODEL}"
    response = httpx.put(url, json=spec, headers=headers, timeout=60)
    assert response.status_code < 300, response.text


def url_of(start: Start) -> str:
    return f"http://127.0.0.1:{start.port}"


def key_of(start: Start) -> str:
    """The key of the connection file, or of the one that a start has set aside."""
    for name in ("connection.json", ".connection.json.former"):
        with contextlib.suppress(FileNotFoundError):
            return str(json.loads((Path(start.data_dir) / name).read_text())["api_key"])
    raise AssertionError(f"no connection file in {start.data_dir}")


def await_ready(start: Start, process: Process | None = None) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url_of(start)}/readyz").status_code == 200:
                return
        over = process is not None and process.ended.is_set()
        if over or time.monotonic() > deadline:
            raise AssertionError((Path(start.data_dir) / "log").read_text()[-4000:])
        time.sleep(0.02)


# --- what clients do in a run ---------------------------------------------------------------------


def work_through(client: Client, *, batch: bool = True) -> list[str]:
    """Submit every kind of work, at once, and see it to its end; the ids of invocations.

    Each prompt is submitted twice with one key, by two threads, and some without a key.
    """
    with ThreadPoolExecutor(len(PROMPTS) + 2) as pool:
        file = pool.submit(client.submit_batch, list(LINES)) if batch else None
        twice = [(f"key of {prompt[:12]}", prompt) for prompt in PROMPTS for _ in range(2)]
        sent = [pool.submit(client.submit, prompt, key) for key, prompt in twice]
        bare = [pool.submit(client.submit, f"bare {n}", f"bare {n}", keyed=False) for n in range(2)]
        ids = sorted({each.result() for each in [*sent, *bare]})
        client.finish(ids)
        if file is not None:
            client.finish_batch(file.result())
    return ids


def judge(house: House, start: Start, lives: list[list[str]]) -> tuple[Verdict, Supervisor]:
    """Work through a house that fails as `lives` say; then judge it, after one more restart."""
    history = History(Path(start.data_dir).with_suffix(".history"))
    house.replica.asked.clear()
    client = Client(url_of(start), key_of(start), history)
    with contextlib.closing(client):
        with house.open(start, lives) as supervisor:
            ids = work_through(client)
        with house.open(replace(start, faults=[])):
            for key in ids:
                client.read(key)
            client.list_all()
    return check(history, answer_to), supervisor
