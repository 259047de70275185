"""Models from a hub: a loopback server that speaks as much of its API as a fetch needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORIES = {
    "good/model": {
        "config.json": b'{"model_type": "llama"}',
        "model.safetensors": b"weights",
        "pytorch_model.bin": b"pickle",
        "README.md": b"hello",
    },
    "good/adapter": {
        "adapter_config.json": b"{}",
        "adapter_model.safetensors": b"weights",
        "optimizer.pt": b"pickle",
    },
    "bad/adapter": {"adapter_config.json": b"{}", "adapter_model.bin": b"pickle"},
    "good/heads": {"heads.json": b"{}", "heads.safetensors": b"weights", "README.md": b"read me"},
    "bad/pickled": {"config.json": b"{}", "pytorch_model.bin": b"pickle"},
    "bad/remote": {"config.json": b'{"auto_map": {}}', "model.safetensors": b"weights"},
}
RESOLVE = """
import sys
from pathlib import Path
from tidegate_runtime.artifact.resolve import resolve
from tidegate_runtime.errors import ModelRefused, ReplicaUnavailable
try:
    files = resolve(sys.argv[1], sys.argv[2] or None, Path(sys.argv[3])).files
except (ModelRefused, ReplicaUnavailable) as error:
    print(error.reason)
else:
    print(files.root)
"""
FETCH_ADAPTER = """
import sys
from pathlib import Path
from tidegate_runtime.adapters.source import fetch_adapter
from tidegate_runtime.errors import ModelRefused, ReplicaUnavailable
try:
    root = fetch_adapter(sys.argv[1], Path(sys.argv[3]))
except (ModelRefused, ReplicaUnavailable) as error:
    print(error.reason)
else:
    print(root)
"""
FETCH_HEADS = """
import sys
from pathlib import Path
from tidegate_runtime.errors import ModelRefused, ReplicaUnavailable
from tidegate_runtime.speculation.source import fetch_heads
try:
    root = fetch_heads(sys.argv[1], Path(sys.argv[3]), revision=sys.argv[2] or None)
except (ModelRefused, ReplicaUnavailable) as error:
    print(error.reason)
else:
    print(root)
"""


class Hub(BaseHTTPRequestHandler):
    """Model info, heads and files of the repositories above."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, *arguments: object) -> None:
        pass

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.split("?")[0].strip("/")
        type(self).asked.append(path)
        body, status, headers = self._find(path)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _find(self, path: str) -> tuple[bytes, int, dict[str, str]]:
        for repo, files in REPOSITORIES.items():
            if path.startswith(f"api/models/{repo}") and "/revision/other" not in path:
                siblings = [{"rfilename": name} for name in files]
                if "/tree/" in path:
                    tree = [
                        {"type": "file", "path": name, "size": len(body), "oid": name}
                        for name, body in files.items()
                    ]
                    return json.dumps(tree).encode(), 200, {}
                info = {"id": repo, "sha": COMMIT, "siblings": siblings}
                return json.dumps(info).encode(), 200, {"Content-Type": "application/json"}
            prefix = f"{repo}/resolve/{COMMIT}/"
            if path.startswith(prefix) and path.removeprefix(prefix) in files:
                name = path.removeprefix(prefix)
                headers = {"ETag": f'"{len(files[name])}"', "X-Repo-Commit": COMMIT}
                return files[name], 200, headers
            if path.startswith(f"api/models/{repo}"):
                return b"{}", 404, {"X-Error-Code": "RevisionNotFound"}
        return b"{}", 404, {"X-Error-Code": "RepoNotFound"}


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(hub: str, cache: Path, source: str, revision: str = "", program: str = RESOLVE) -> str:
    """Resolve in a process of its own: the library reads its endpoint when it is imported."""
    made = subprocess.run(
        [sys.executable, "-c", program, source, revision, str(cache)],
        env={**os.environ, "HF_ENDPOINT": hub, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def test_a_model_is_kept_under_its_commit_without_pickles(hub: str, tmp_path: Path) -> None:
    root = Path(fetch(hub, tmp_path, "hf://good/model"))
    assert root.name == COMMIT
    assert (root / "model.safetensors").read_bytes() == b"weights"
    assert not (root / "pytorch_model.bin").exists()
    asked = len(Hub.asked)
    assert fetch(hub, tmp_path, "hf://good/model", COMMIT) == str(root)
    assert len(Hub.asked) == asked, "a pinned commit that is here needs no network"


@pytest.mark.parametrize(
    ("source", "revision", "reason"),
    [
        ("hf://bad/pickled", "", "PickledWeights"),
        ("hf://bad/remote", "", "RemoteCode"),
        ("hf://no/model", "", "SourceNotFound"),
        ("hf://good/model", "other", "SourceNotFound"),
    ],
)
def test_what_cannot_be_served_is_refused(
    hub: str, tmp_path: Path, source: str, revision: str, reason: str
) -> None:
    assert fetch(hub, tmp_path, source, revision) == reason
    assert not list(tmp_path.rglob("pytorch_model.bin"))


def test_a_hub_that_is_away_is_worth_another_try(tmp_path: Path) -> None:
    assert fetch("http://127.0.0.1:9", tmp_path, "hf://good/model") == "SourceUnavailable"


def test_an_adapter_is_its_two_files(hub: str, tmp_path: Path) -> None:
    root = Path(fetch(hub, tmp_path, "hf://good/adapter", program=FETCH_ADAPTER))
    there = {path.name for path in root.iterdir() if path.is_file()}
    assert there == {"adapter_config.json", "adapter_model.safetensors"}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("hf://bad/adapter", "PickledWeights"),
        ("hf://good/model", "NotAnAdapter"),
        ("hf://no/adapter", "SourceNotFound"),
    ],
)
def test_what_is_no_adapter_is_refused(hub: str, tmp_path: Path, source: str, reason: str) -> None:
    assert fetch(hub, tmp_path, source, program=FETCH_ADAPTER) == reason
    assert not list(tmp_path.rglob("*.bin"))


def test_heads_are_their_two_files_at_a_commit(hub: str, tmp_path: Path) -> None:
    root = Path(fetch(hub, tmp_path, "hf://good/heads", program=FETCH_HEADS))
    there = {path.name for path in root.iterdir() if path.is_file()}
    assert there == {"heads.json", "heads.safetensors"}
    asked = len(Hub.asked)
    assert fetch(hub, tmp_path, "hf://good/heads", COMMIT, FETCH_HEADS) == str(root)
    assert len(Hub.asked) == asked, "a pinned commit that is here needs no network"
    assert fetch(hub, tmp_path, "hf://good/heads", "other", FETCH_HEADS) == "SourceNotFound"
    assert fetch(hub, tmp_path, "hf://good/model", program=FETCH_HEADS) == "DamagedHeads"
