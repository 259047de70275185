"""A batch's input file, from what a caller has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tidegate import ConfigurationError
from tidegate.routes.batch_input import BatchSource, opened, with_model
from tidegate.routes.generate import CHAT, COMPLETIONS, EMBEDDINGS, RERANK, SCORE


def _lines(source: BatchSource, endpoint: str = CHAT) -> list[Any]:
    with opened(source, endpoint, "smol") as (file, _):
        file.seek(0)
        return [json.loads(line) for line in file.read().splitlines()]


def test_prompts_become_bodies_of_the_endpoint() -> None:
    assert _lines(["hi"])[0] == {
        "custom_id": "request-1",
        "method": "POST",
        "url": CHAT,
        "body": {"model": "smol", "messages": [{"role": "user", "content": "hi"}]},
    }
    assert _lines(["hi"], COMPLETIONS)[0]["body"] == {"model": "smol", "prompt": "hi"}
    assert _lines(["hi"], EMBEDDINGS)[0]["body"] == {"model": "smol", "input": "hi"}


def test_bodies_get_the_model_and_a_number_unless_they_have_their_own() -> None:
    whole = {"custom_id": "mine", "method": "POST", "url": CHAT, "body": {"model": "other"}}
    first, second = _lines([{"messages": []}, whole])
    assert (first["custom_id"], first["body"]["model"]) == ("request-1", "smol")
    assert second == whole


def test_a_files_lines_keep_everything_but_a_missing_model(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(
        '{"custom_id":"a","body":{"x":"\u2028é"}}\r\n\n{"custom_id":"b","body":{"model":"m"}}'
    )
    first, second = _lines_of(path)
    assert json.loads(first) == {"custom_id": "a", "body": {"model": "smol", "x": "\u2028é"}}
    assert second == b'{"custom_id":"b","body":{"model":"m"}}'


def _lines_of(path: Path) -> list[bytes]:
    with opened(path, CHAT, "smol") as (file, name):
        assert name == path.name
        file.seek(0)
        return file.read().rstrip(b"\n").split(b"\n")


@pytest.mark.parametrize("line", [b"not json", b"[1]", b'{"body": 3}', b"\xff"])
def test_a_line_that_cannot_be_read_is_left_for_the_server_to_judge(line: bytes) -> None:
    assert with_model(line, "smol") == line


@pytest.mark.parametrize("source", ["missing.jsonl", Path("missing.jsonl"), Path("/")])
def test_a_path_that_cannot_be_read_is_named(source: Any) -> None:
    with pytest.raises(ConfigurationError, match=str(source)), opened(source, CHAT, "smol"):
        pass


def test_no_requests_at_all_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least one request"), opened([], CHAT, "m"):
        pass


def test_prompts_for_an_unknown_endpoint_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="/v1/embeddings"), opened(["a"], "/v1/x", "m"):
        pass


@pytest.mark.parametrize(("endpoint", "field"), [(RERANK, "documents"), (SCORE, "text_2")])
def test_a_text_alone_is_nothing_to_rank_but_a_body_is(endpoint: str, field: str) -> None:
    with pytest.raises(ConfigurationError, match=field), opened(["a"], endpoint, "m"):
        pass
    assert _lines([{field: ["a"]}], endpoint)[0]["body"] == {"model": "smol", field: ["a"]}
