"""What a body asks for."""

from __future__ import annotations

import pytest

from tidegate_controlplane.errors import BadRequest, NotFound
from tidegate_controlplane.work.request import (
    BATCH_MODES,
    INVOCATION_MODES,
    Wanted,
    check,
    find,
    infer_endpoint,
    parse,
)

CHAT = {"model": "live", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("field", "endpoint"),
    [
        ("messages", "/v1/chat/completions"),
        ("prompt", "/v1/completions"),
        ("input", "/v1/embeddings"),
        ("query", "/v1/rerank"),
        ("text_1", "/v1/score"),
    ],
)
def test_the_endpoint_follows_from_the_field_that_only_it_has(field, endpoint):
    assert infer_endpoint({"model": "m", field: "x"}) == endpoint


def test_a_body_that_fits_no_endpoint_is_told_what_it_may_have():
    with pytest.raises(BadRequest, match=r"'messages'.*'prompt'.*'input'"):
        infer_endpoint({"model": "m"})


def test_a_body_that_fits_two_endpoints_is_refused_by_both_names():
    with pytest.raises(BadRequest, match="'messages' and 'prompt' belong to different"):
        infer_endpoint({"messages": [], "prompt": ""})


@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b"[]", b'"x"', b'{"a": NaN}', b'{"a":"\\ud800"}', b"\xff", b"[" * 500],
)
def test_what_is_not_a_json_object_is_refused(body):
    with pytest.raises(BadRequest) as refused:
        parse(body, 64)
    assert refused.value.code == "invalid_json"


def test_nesting_is_bounded():
    assert parse(b'{"a":' + b"[" * 3 + b"]" * 3 + b"}", 4)
    with pytest.raises(BadRequest, match="deeper than 4"):
        parse(b'{"a":' + b"[" * 4 + b"]" * 4 + b"}", 4)


def test_a_valid_request_names_its_endpoint_and_model():
    assert check(CHAT, "/v1/chat/completions") == Wanted("/v1/chat/completions", "live")


def test_a_stream_is_refused_by_name():
    with pytest.raises(BadRequest, match="'stream' cannot be true") as refused:
        check(CHAT | {"stream": True}, "/v1/chat/completions")
    assert refused.value.param == "stream"
    assert check(CHAT | {"stream": False}, "/v1/chat/completions")


def test_an_unknown_field_is_refused_by_name():
    with pytest.raises(BadRequest, match="'functions'") as refused:
        check(CHAT | {"functions": []}, "/v1/chat/completions")
    assert refused.value.param == "functions"


def test_an_unknown_model_is_not_found(catalog):
    with pytest.raises(NotFound) as refused:
        find(catalog, "prj_1", Wanted("/v1/completions", "absent"), INVOCATION_MODES)
    assert refused.value.code == "model_not_found"


def test_a_model_of_another_project_is_not_found(catalog):
    with pytest.raises(NotFound):
        find(catalog, "prj_2", Wanted("/v1/completions", "live"), INVOCATION_MODES)


@pytest.mark.parametrize("name", ["live", "cold", "queue"])
def test_invocations_are_taken_by_every_mode_but_batch(catalog, name):
    served = find(catalog, "prj_1", Wanted("/v1/completions", name), INVOCATION_MODES)
    assert served.name == name


def test_a_batch_deployment_takes_no_invocation(catalog):
    with pytest.raises(BadRequest, match="'realtime' or 'serverless' or 'async'") as refused:
        find(catalog, "prj_1", Wanted("/v1/completions", "job"), INVOCATION_MODES)
    assert refused.value.code == "wrong_mode"


@pytest.mark.parametrize("name", ["live", "cold", "queue", "job"])
def test_batches_are_taken_by_every_mode(catalog, name):
    assert find(catalog, "prj_1", Wanted("/v1/completions", name), BATCH_MODES).name == name


def test_an_embedding_model_does_not_chat(catalog):
    with pytest.raises(BadRequest) as refused:
        find(catalog, "prj_1", Wanted("/v1/chat/completions", "vectors"), INVOCATION_MODES)
    assert refused.value.code == "wrong_task"
