from __future__ import annotations

import inspect
import json
import logging
from typing import Any

import pytest
from litestar.exceptions import (
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)
from pydantic import ValidationError

from tidegate.protocol.openai import ChatCompletionRequest, ErrorResponse
from tidegate.protocol.resources import ApiKeyRequest, Problem
from tidegate.spec import SpecIssue
from tidegate_controlplane import errors
from tidegate_controlplane.web.errors import Rendered, render

REFUSALS = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, errors.Refused) and value is not errors.Refused
]


def rendered(error: Exception, path: str = "/v1/x", method: str = "POST") -> Rendered:
    return render(error, method=method, path=path, request_id="req_1")


def validation_error(shape: Any, /, **fields: Any) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        shape.model_validate(fields)
    return caught.value


@pytest.mark.parametrize("kind", REFUSALS)
def test_every_refusal_has_openais_shape_under_v1(kind: type[errors.Refused]) -> None:
    answer = rendered(kind("this is why", param="model"))
    detail = ErrorResponse.model_validate_json(answer.body).error
    assert (answer.status, answer.media_type) == (kind.status, "application/json")
    assert (detail.message, detail.param, detail.type) == ("this is why", "model", kind.kind)
    assert detail.code == kind.default_code


@pytest.mark.parametrize("kind", REFUSALS)
def test_every_refusal_is_a_problem_elsewhere(kind: type[errors.Refused]) -> None:
    issue = SpecIssue("scaling.min", 7, "too many")
    answer = rendered(kind("this is why", issues=[issue]), "/api/v1/x")
    problem = Problem.model_validate_json(answer.body)
    assert (answer.status, answer.media_type) == (kind.status, "application/problem+json")
    assert problem.type == f"urn:tidegate:problem:{kind.default_code}"
    assert (problem.status, problem.detail, problem.instance) == (
        kind.status,
        "this is why",
        "/api/v1/x",
    )
    assert problem.issues[0].field == "scaling.min"
    assert problem.issues[0].value == 7
    assert problem.request_id == "req_1"


@pytest.mark.parametrize(("wait_s", "header"), [(0.0, "1"), (0.2, "1"), (3.0, "3"), (3.1, "4")])
def test_retry_after_is_whole_seconds_rounded_up(wait_s: float, header: str) -> None:
    answer = rendered(errors.Unavailable("later", retry_after_s=wait_s))
    assert answer.headers["retry-after"] == header


def test_without_a_time_there_is_no_retry_after() -> None:
    assert "retry-after" not in rendered(errors.Unavailable("never")).headers


def test_a_401_names_the_scheme() -> None:
    assert rendered(errors.Unauthenticated("who?")).headers == {"www-authenticate": "Bearer"}


def test_a_misshapen_body_is_400_naming_the_field_under_v1() -> None:
    error = validation_error(ChatCompletionRequest, model="m", messages=[], colour="blue")
    answer = rendered(error)
    detail = json.loads(answer.body)["error"]
    assert answer.status == 400
    assert detail["param"] in {"colour", "messages"}


def test_a_misshapen_body_is_422_naming_every_field_under_api() -> None:
    answer = rendered(validation_error(ApiKeyRequest, name="", colour="blue"), "/api/v1/x")
    problem = json.loads(answer.body)
    assert answer.status == 422
    assert {issue["field"] for issue in problem["issues"]} == {"name", "colour"}


def test_a_row_that_cannot_be_read_is_not_the_callers_fault() -> None:
    answer = rendered(validation_error(ApiKeyRequest, name=""), "/api/v1/x", method="GET")
    assert answer.status == 500


@pytest.mark.parametrize("path", ["/v1/x", "/api/v1/x", "/elsewhere"])
def test_what_is_unexpected_is_logged_with_the_request_id_and_not_told(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = rendered(RuntimeError("password=hunter2"), path)
    assert answer.status == 500
    assert b"hunter2" not in answer.body
    assert "req_1" in caplog.text
    assert "hunter2" in caplog.text
    assert caplog.records[0].levelno == logging.ERROR


def test_litestars_own_refusals_have_the_same_shapes() -> None:
    missing = rendered(NotFoundException(), "/v1/none")
    wrong = rendered(MethodNotAllowedException(headers={"allow": "GET"}), "/api/v1/x")
    bad = rendered(ValidationException(extra=[{"key": "limit", "message": "not a number"}]))
    assert json.loads(missing.body)["error"]["code"] == "not_found"
    assert (wrong.status, wrong.headers) == (405, {"allow": "GET"})
    assert json.loads(wrong.body)["code"] == "method_not_allowed"
    assert json.loads(bad.body)["error"]["param"] == "limit"


def test_a_value_that_utf8_cannot_hold_is_answered_all_the_same() -> None:
    error = validation_error(ChatCompletionRequest, **{"model": "m", "messages": [], "\ud800": 1})
    for path in ("/v1/x", "/api/v1/x"):
        assert json.loads(rendered(error, path).body)
