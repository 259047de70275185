from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tidegate.spec import Mode, Task
from tidegate_controlplane.errors import BadRequest, NotFound
from tidegate_controlplane.gateway.admission import Admitted, admit
from tidegate_controlplane.gateway.catalog import Catalog, Served
from tidegate_controlplane.web.body import JsonBody

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
RERANK, SCORE = "/v1/rerank", "/v1/score"
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "hi"}]},
    COMPLETIONS: {"prompt": "hi"},
    EMBEDDINGS: {"input": "hi"},
    RERANK: {"query": "hi", "documents": ["ho"]},
    SCORE: {"text_1": "hi", "text_2": "ho"},
}


def catalog_of(*names: str, mode: Mode = Mode.SERVERLESS, task: Task = Task.GENERATE) -> Catalog:
    catalog = Catalog()
    for name in names:
        catalog.put(Served(f"dep_{name}", "prj", name, mode, task, datetime.now(UTC)))
    return catalog


def asked(catalog: Catalog, path: str = CHAT, project: str = "prj", **fields: Any) -> Admitted:
    document = {"model": "smol", **BODIES[path], **fields}
    return admit(catalog, project, path, JsonBody(json.dumps(document).encode(), document))


def test_a_request_is_forwarded_byte_for_byte() -> None:
    document = {"model": "smol", **BODIES[CHAT]}
    raw = json.dumps(document, indent=3).encode()
    admitted = admit(catalog_of("smol"), "prj", CHAT, JsonBody(raw, document))
    assert admitted.body is raw
    assert not admitted.is_stream


def test_a_stream_always_asks_the_replica_for_usage() -> None:
    plain = asked(catalog_of("smol"), stream=True)
    null = asked(catalog_of("smol"), stream=True, stream_options=None)
    wants = asked(catalog_of("smol"), stream=True, stream_options={"include_usage": True})
    for admitted in (plain, null, wants):
        assert json.loads(admitted.body)["stream_options"] == {"include_usage": True}
        assert admitted.is_stream
    assert [plain.wants_usage, null.wants_usage, wants.wants_usage] == [False, False, True]


def test_a_character_that_utf8_cannot_hold_is_refused_not_stumbled_over() -> None:
    with pytest.raises(BadRequest):
        asked(catalog_of("smol"), stream=True, stop="\ud800")


def test_an_unknown_model_is_told_a_few_that_exist() -> None:
    with pytest.raises(NotFound, match="a, b, c, d, e, …") as caught:
        asked(catalog_of(*"gfedcba"))
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(NotFound, match="nothing is deployed"):
        asked(catalog_of())


def test_another_projects_model_does_not_exist() -> None:
    with pytest.raises(NotFound) as caught:
        asked(catalog_of("smol"), project="prj_other")
    assert "deployments here" not in caught.value.message


@pytest.mark.parametrize(
    ("mode", "door"), [(Mode.ASYNC, "/v1/invocations"), (Mode.BATCH, "/v1/batches")]
)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_a_mode_that_does_not_answer_here_names_its_door(path: str, mode: Mode, door: str) -> None:
    with pytest.raises(BadRequest, match=door) as caught:
        asked(catalog_of("smol", mode=mode), path)
    assert caught.value.code == "wrong_mode"


@pytest.mark.parametrize(
    ("path", "task", "door"),
    [
        (CHAT, Task.EMBED, "/v1/embeddings"),
        (COMPLETIONS, Task.EMBED, "/v1/embeddings"),
        (EMBEDDINGS, Task.GENERATE, "/v1/chat/completions"),
        (EMBEDDINGS, Task.RERANK, "/v1/rerank or /v1/score"),
        (RERANK, Task.GENERATE, "/v1/chat/completions"),
        (SCORE, Task.GENERATE, "/v1/chat/completions"),
    ],
)
def test_a_model_that_does_other_work_names_its_door(path: str, task: Task, door: str) -> None:
    with pytest.raises(BadRequest, match=door) as caught:
        asked(catalog_of("smol", task=task), path)
    assert caught.value.code == "wrong_task"


@pytest.mark.parametrize("task", [Task.EMBED, Task.RERANK])
@pytest.mark.parametrize("path", [RERANK, SCORE])
def test_ranks_and_scores_are_asked_of_both_kinds_of_encoders(path: str, task: Task) -> None:
    admitted = asked(catalog_of("smol", task=task), path)
    assert (admitted.path, admitted.is_stream, admitted.ask.most_tokens) == (path, False, 0)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, EMBEDDINGS, RERANK, SCORE])
def test_a_field_that_is_not_honoured_is_refused_by_name_before_the_model_is_looked_for(
    path: str,
) -> None:
    with pytest.raises(BadRequest, match="'functions'") as caught:
        asked(catalog_of(), path, functions=[])
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "functions")
