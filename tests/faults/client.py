"""A client that does as the documentation asks of clients, and writes down what it saw.

It repeats a submission with the same Idempotency-Key until it is told that it was accepted, so a
connection that breaks costs it nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

import httpx
from tests.faults.checker import FINAL, FINAL_BATCH
from tests.faults.history import History
from tests.faults.replica import MODEL, answer_to

PATIENCE_S = 60.0
"""Of a machine that has much else to do; it ends only what would never end."""
PAUSE_S = 0.03


class Client:
    """Threads may share it."""

    def __init__(self, url: str, api_key: str, history: History) -> None:
        self._http = httpx.Client(
            base_url=url, headers={"authorization": f"Bearer {api_key}"}, timeout=20
        )
        self.history = history

    def close(self) -> None:
        self._http.close()

    # --- invocations ---

    def submit(self, prompt: str, key: str, *, keyed: bool = True) -> str:
        """Until it is accepted; the id."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            if accepted := self.try_submit(prompt, key, keyed=keyed):
                return accepted
            assert time.monotonic() < deadline, f"{key} was not accepted in {PATIENCE_S} s"
            time.sleep(PAUSE_S)

    def try_submit(self, prompt: str, key: str, *, keyed: bool = True) -> str | None:
        """Once; the id, or None when it was refused or nothing was heard."""
        body = {"model": MODEL, "prompt": prompt}
        headers = {"idempotency-key": key} if keyed else {}
        self.history.add("submitted", key=key, prompt=prompt, keyed=keyed)
        try:
            response = self._http.post("/v1/invocations", json=body, headers=headers)
        except httpx.TransportError:
            self.history.add("lost", key=key, text=answer_to(prompt), keyed=keyed)
            return None
        if response.status_code != 202:
            status = f"{response.status_code} {_code(response)}"
            self.history.add("refused", key=key, prompt=prompt, status=status)
            if response.status_code == 500:  # it may have been kept all the same
                self.history.add("lost", key=key, text=answer_to(prompt), keyed=keyed)
            return None
        accepted = str(response.json()["id"])
        self.history.add("accepted", key=key, prompt=prompt, id=accepted, keyed=keyed)
        return accepted

    def finish(self, ids: Iterable[str]) -> None:
        """Wait for each, and read its result twice."""
        deadline = time.monotonic() + PATIENCE_S
        for key in ids:
            self._until(f"/v1/invocations/{key}", key, "state", FINAL, deadline)
            self.read(key)
            self.read(key)

    def read(self, key: str) -> None:
        """The state and the result, once."""
        status = self.get(f"/v1/invocations/{key}").json()["status"]
        self.history.add("state", id=key, status=status)
        if status == "succeeded":
            self.history.add("result", id=key, text=self._result(key))

    def list_all(self) -> None:
        """Everything that the platform says there is, once all of it has ended."""
        after: dict[str, str] = {}
        deadline = time.monotonic() + PATIENCE_S
        while True:
            page = self.get("/v1/invocations", limit="100", **after).json()
            for key in (each["id"] for each in page["data"]):
                found = self._until(f"/v1/invocations/{key}", key, "state", FINAL, deadline)
                status = found["status"]
                text = self._result(key) if status == "succeeded" else ""
                self.history.add("listed", id=key, status=status, text=text)
            if not page["has_more"]:
                return
            after = {"after": page["last_id"]}

    # --- batches ---

    def submit_batch(self, prompts: list[str]) -> str:
        """Upload a file and begin a batch over it, until that is accepted; the batch's id."""
        expected = {f"line-{n}": answer_to(prompt) for n, prompt in enumerate(prompts)}
        lines = [
            json.dumps(
                {
                    "custom_id": f"line-{n}",
                    "method": "POST",
                    "url": "/v1/completions",
                    "body": {"model": MODEL, "prompt": prompt},
                }
            )
            for n, prompt in enumerate(prompts)
        ]
        form = {"file": ("in.jsonl", "\n".join(lines).encode()), "purpose": (None, "batch")}
        file = self._insist("/v1/files", files=form)
        wanted = {
            "input_file_id": file["id"],
            "endpoint": "/v1/completions",
            "completion_window": "24h",
        }
        batch = self._insist("/v1/batches", json=wanted)
        self.history.add("batch", id=batch["id"], expected=expected)
        return str(batch["id"])

    def finish_batch(self, key: str) -> None:
        """Wait for it, and read its files."""
        batch = self._until(f"/v1/batches/{key}", key, "batch_state", FINAL_BATCH)
        for name in ("output_file_id", "error_file_id"):
            if batch[name]:
                for line in self.get(f"/v1/files/{batch[name]}/content").text.splitlines():
                    said = json.loads(line)
                    response = said["response"]
                    text = _text(response["body"]) if response else str(said["error"])
                    self.history.add("line", id=key, custom_id=said["custom_id"], text=text)

    # --- inside ---

    def get(self, path: str, **params: str) -> httpx.Response:
        """Ask until somebody answers."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                response = self._http.get(path, params=params)
                if response.status_code < 500:
                    assert response.status_code == 200, f"{path}: {response.text}"
                    return response
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, f"nobody answered {path} in {PATIENCE_S} s"
            time.sleep(PAUSE_S)

    def _result(self, key: str) -> str:
        return _text(self.get(f"/v1/invocations/{key}/result").json())

    def _until(
        self, path: str, key: str, what: str, final: Iterable[str], deadline: float | None = None
    ) -> dict[str, Any]:
        deadline = deadline or time.monotonic() + PATIENCE_S
        seen = ""
        while True:
            found: dict[str, Any] = self.get(path).json()
            if found["status"] != seen:
                seen = found["status"]
                self.history.add(what, id=key, status=seen)
            if seen in final or time.monotonic() >= deadline:
                return found
            time.sleep(PAUSE_S)

    def _insist(self, path: str, **content: Any) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                response = self._http.post(path, **content)
                if response.status_code == 200:
                    return dict(response.json())
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, f"{path} was not accepted in {PATIENCE_S} s"
            time.sleep(PAUSE_S)


def _text(document: dict[str, Any]) -> str:
    try:
        return str(document["choices"][0]["text"])
    except (KeyError, IndexError):
        return json.dumps(document)


def _code(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return ""
